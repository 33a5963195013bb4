//! What this process stored just now, as it was read: a follower in the same process need not ask the log for it again.
//!
//! Numbers of a trace are never given twice within the time that a tombstone is kept, which is days; what is here is [`LONGEST`] old at most. So what
//! the log noted under a number is what was kept under it.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use tailspan_core::{
    id::{TenantId, TraceId},
    observed::{Context, EncodedSpan, Observation, Recorded, Sent, What},
};

/// Of all that is kept, in bytes of blocks; in memory it is several times that.
const MOST_BYTES: usize = 1 << 20;
/// A follower that is further behind reads the log.
const LONGEST: Duration = Duration::from_secs(2);

/// The chunks that were stored last, the oldest first.
#[derive(Default)]
pub(super) struct Recent(Mutex<VecDeque<Chunk>>);

/// A chunk that was stored.
pub(super) struct Chunk {
    pub(super) tenant: TenantId,
    pub(super) trace: TraceId,
    pub(super) first_seq: u64,
    pub(super) arrived_unix_ms: u64,
    pub(super) block_bytes: usize,
    pub(super) spans: Vec<Stored>,
    pub(super) stored: Instant,
}

/// A span that was stored.
#[derive(Clone)]
pub(super) struct Stored {
    observation: Observation,
    sent: Option<Sent>,
}

impl Stored {
    /// `None`: the span would have to be read.
    pub(super) fn of(context: &Arc<Context>, encoded: &EncodedSpan) -> Option<Self> {
        let observation = Observation {
            context: Arc::clone(context),
            what: What::Span(Arc::clone(encoded.at_hand()?)),
        };
        Some(Self {
            observation,
            sent: encoded.sent().cloned(),
        })
    }
}

/// An event that this process stored just now, and what it came as where that is at hand.
pub struct JustStored {
    pub recorded: Recorded,
    pub sent: Option<Sent>,
}

impl Recent {
    pub(super) fn keep(&self, chunk: Chunk) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.push_back(chunk);
        let mut held: usize = all.iter().map(|chunk| chunk.block_bytes).sum();
        while all
            .front()
            .is_some_and(|oldest| held > MOST_BYTES || oldest.stored.elapsed() > LONGEST)
            && let Some(oldest) = all.pop_front()
        {
            held -= oldest.block_bytes;
        }
    }

    pub(super) fn forget(&self) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
    }

    /// The events of the chunk that holds `seq`, from there on.
    pub(super) fn from(
        &self,
        tenant: &TenantId,
        trace: &TraceId,
        seq: u64,
    ) -> Option<Vec<JustStored>> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (chunk, skip) = all.iter().rev().find_map(|chunk| {
            let skip = usize::try_from(seq.checked_sub(chunk.first_seq)?).ok()?;
            let is_it = skip < chunk.spans.len()
                && chunk.trace == *trace
                && chunk.tenant == *tenant
                && chunk.stored.elapsed() <= LONGEST;
            is_it.then_some((chunk, skip))
        })?;
        let spans = chunk.spans.iter().skip(skip);
        let stored = (seq..).zip(spans).map(|(seq, stored)| JustStored {
            recorded: Recorded {
                seq,
                arrived_unix_ms: chunk.arrived_unix_ms,
                observation: stored.observation.clone(),
            },
            sent: stored.sent.clone(),
        });
        Some(stored.collect())
    }
}
