//! Where it lies: an archived trace as the log would have it, for whoever reads.

use std::{
    collections::{HashMap, VecDeque},
    io,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use tailspan_core::{
    archive::{Header, Item},
    chunk::{self, PieceId},
    fold,
    id::{TenantId, TraceId},
};
use tracing::warn;

use super::state_of;
use crate::{
    archive::{Lines, object_name},
    log::{
        Log, LogError, beside,
        folds::Turns,
        read::{Folded, Page, PageSize, ReadFrom, StoredChunk, TraceState},
    },
    requests,
};

/// Packed and unpacked bytes of a trace that is read where it lies; larger ones are brought back first.
const MOST_PACKED: u64 = 16 << 20;
const MOST_UNPACKED: u64 = 256 << 20;
/// Of all archived traces that are held for who reads on, in bytes of blocks, and for how long.
const MOST_HELD: usize = 32 << 20;
const HELD_FOR: Duration = Duration::from_secs(60);

/// Archived traces that were read a moment ago.
#[derive(Default)]
pub(crate) struct Thaws {
    held: Mutex<VecDeque<Held>>,
    turns: Turns<(TenantId, TraceId)>,
}

struct Held {
    tenant: TenantId,
    since: Instant,
    thawed: Arc<Thawed>,
}

/// An archived trace as the log would have it.
pub(super) struct Thawed {
    trace: TraceId,
    state: TraceState,
    chunks: Vec<StoredChunk>,
    bytes: usize,
}

impl Thaws {
    fn get(&self, tenant: &TenantId, trace: &TraceId) -> Option<Arc<Thawed>> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.retain(|held| held.since.elapsed() < HELD_FOR);
        let found = held
            .iter()
            .find(|held| held.thawed.trace == *trace && held.tenant == *tenant);
        found.map(|held| Arc::clone(&held.thawed))
    }

    fn keep(&self, tenant: &TenantId, thawed: &Arc<Thawed>) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.push_back(Held {
            tenant: tenant.clone(),
            since: Instant::now(),
            thawed: Arc::clone(thawed),
        });
        let mut bytes: usize = held.iter().map(|held| held.thawed.bytes).sum();
        while bytes > MOST_HELD {
            let Some(oldest) = held.pop_front() else {
                break;
            };
            bytes -= oldest.thawed.bytes;
        }
    }

    pub(in crate::log) fn forget(&self, tenant: &TenantId, trace: &TraceId) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.retain(|held| held.thawed.trace != *trace || held.tenant != *tenant);
    }
}

impl Thawed {
    fn page(&self, from: ReadFrom, size: PageSize) -> Page {
        let first = match from {
            ReadFrom::Holding(seq) => seq,
            ReadFrom::After(cursor) => cursor.seq.saturating_add(1),
        };
        let begin = self.chunks.partition_point(|chunk| chunk.span.last < first);
        let mut bytes = 0;
        let following = self.chunks.iter().skip(begin).take(size.chunks);
        let chunks = following.take_while(|chunk| {
            let fits = bytes < size.bytes;
            bytes += chunk.block.len();
            fits
        });
        Page {
            state: Some(self.state.clone()),
            chunks: chunks.cloned().collect(),
        }
    }

    fn read(bytes: Bytes) -> io::Result<(Header, Self)> {
        let invalid = |why: &str| io::Error::new(io::ErrorKind::InvalidData, why);
        let mut lines = Lines::unpacking(io::Cursor::new(bytes), MOST_UNPACKED)?;
        let Some(Item::Header(header)) = lines.read_next()? else {
            return Err(invalid("it has no header"));
        };
        let (mut chunks, mut pieces, mut size) = (Vec::new(), HashMap::new(), 0);
        while let Some(item) = lines.read_next()? {
            let Item::Chunk(chunk) = item else { continue };
            let encoded = chunk::encode(chunk.events.iter().map(|(context, what)| (context, what)));
            size += encoded.block.len();
            for (id, piece) in encoded.pieces {
                let bytes = piece.len();
                let is_new = pieces.insert(id, Bytes::from(piece)).is_none();
                size += if is_new { bytes } else { 0 };
            }
            chunks.push((chunk.span, chunk.arrived_unix_ms, encoded.block));
            if size > 2 * MOST_HELD {
                return Err(io::Error::from(io::ErrorKind::FileTooLarge));
            }
        }
        let pieces: Arc<HashMap<PieceId, Bytes>> = Arc::new(pieces);
        let chunks = chunks.into_iter().map(|(span, arrived_unix_ms, block)| {
            StoredChunk::thawed(span, arrived_unix_ms, block.into(), Arc::clone(&pieces))
        });
        let mut state = state_of(&header.state).ok_or_else(|| invalid("it has no state"))?;
        state.archived = true;
        Ok((
            header.clone(),
            Self {
                trace: header.trace_id,
                state,
                chunks: chunks.collect(),
                bytes: size,
            },
        ))
    }
}

// Reading where it lies.

impl Log {
    /// As [`Log::state`], and of a trace that the log does not have as it was archived.
    ///
    /// # Errors
    /// [`LogError`].
    pub async fn state_or_archived(
        &self,
        tenant: &TenantId,
        trace: &TraceId,
    ) -> Result<Option<TraceState>, LogError> {
        if let Some(state) = self.state(tenant, trace).await? {
            return Ok(Some(state));
        }
        let thawed = self.thawed(tenant, trace).await?;
        Ok(thawed.map(|thawed| thawed.state.clone()))
    }

    /// As [`Log::page`], and of a trace that the log does not have as it was archived.
    ///
    /// # Errors
    /// [`LogError`].
    pub async fn page_or_archived(
        &self,
        tenant: &TenantId,
        trace: &TraceId,
        from: ReadFrom,
        size: PageSize,
    ) -> Result<Page, LogError> {
        let page = self.page(tenant, trace, from, size).await?;
        if page.state.is_some() {
            return Ok(page);
        }
        let thawed = self.thawed(tenant, trace).await?;
        Ok(thawed.map_or(page, |thawed| thawed.page(from, size)))
    }

    /// As [`Log::folded`], and of a trace that the log does not have as it was archived.
    ///
    /// # Errors
    /// [`LogError`].
    pub async fn folded_or_archived(
        &self,
        tenant: &TenantId,
        trace: &TraceId,
    ) -> Result<Option<Folded>, LogError> {
        if let Some(folded) = self.folded(tenant, trace).await? {
            return Ok(Some(folded));
        }
        // Deleted: what is left of it in an archive is nobody's any more.
        if self.archive.is_none() || self.state(tenant, trace).await?.is_some() {
            return Ok(None);
        }
        let Some(thawed) = self.thawed(tenant, trace).await? else {
            return Ok(None);
        };
        let found = thawed.state.clone();
        let known = self.folds.get(tenant, trace, &found);
        let state = match known {
            Some(state) => state,
            None => {
                let mut state = fold::State::default();
                for chunk in &thawed.chunks {
                    let recorded = self.recorded(tenant, trace, chunk).await?;
                    state = beside(move || {
                        recorded.iter().for_each(|recorded| state.apply(recorded));
                        state
                    })
                    .await?;
                }
                Arc::new(state)
            }
        };
        let folded = Folded {
            state,
            through: found.seq,
            trace: found,
        };
        self.folds.keep(tenant, trace, &folded);
        Ok(Some(folded))
    }

    /// The archived trace. An absent one, and one of another tenant, take the same way: they have other names.
    async fn thawed(
        &self,
        tenant: &TenantId,
        trace: &TraceId,
    ) -> Result<Option<Arc<Thawed>>, LogError> {
        let Some(archive) = &self.archive else {
            return Ok(None);
        };
        if let Some(thawed) = self.thaws.get(tenant, trace) {
            requests::mark_archived();
            return Ok(Some(thawed));
        }
        let of = (tenant.clone(), trace.clone());
        let turn = self.thaws.turns.take(of).await;
        if turn.waited
            && let Some(thawed) = self.thaws.get(tenant, trace)
        {
            requests::mark_archived();
            return Ok(Some(thawed));
        }
        let Some(bytes) = archive
            .get(&object_name(tenant, trace), MOST_PACKED)
            .await?
        else {
            return Ok(None);
        };
        let (header, thawed) = match beside(move || Thawed::read(bytes)).await? {
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::FileTooLarge => {
                return Err(LogError::TooLargeToRead);
            }
            Err(error) => {
                let why = format!("failed to read the archived trace {trace}: {error}");
                return Err(LogError::Internal(why));
            }
        };
        if header.tenant != *tenant || header.trace_id != *trace {
            warn!(%trace, "an archived trace lies under the name of another one");
            return Ok(None);
        }
        let thawed = Arc::new(thawed);
        self.thaws.keep(tenant, &thawed);
        self.metrics.archived_reads.inc();
        requests::mark_archived();
        Ok(Some(thawed))
    }
}
