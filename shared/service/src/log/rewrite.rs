//! Rewriting a log: the same events under the same numbers, in other chunks.
//!
//! A run that ends leaves as many chunks as requests brought it, each with an entry, a block and a dictionary of its own..
//! An entry that several chunks were joined into still says where each of them ended, with its mark and its arrival (field `m`), and [`super::read`] takes it apart again: to
//! everybody above, a joined log reads as the one that was written, and every cursor that was ever given goes on where it did.

use std::sync::Arc;

use tailspan_core::{
    chunk,
    cursor::Cursor,
    id::{TenantId, TraceId},
    observed::{Canonical, Context},
};
use tracing::{debug, warn};

use super::{
    Log, LogError,
    read::{PageSize, ReadFrom, StoredChunk, TraceState},
};
use crate::redis::{Arg, Reply, Script};

static REWRITE: Script = Script::new(include_str!("../lua/rewrite.lua"));

/// A joined chunk holds at most as many events as any (a reader takes it apart at once), and about this many bytes before they are packed.
const JOINED_BYTES: usize = 64 * 1024;
/// A log is not worth rewriting for fewer entries, or when more than three quarters of them would stay.
const LEAST_ENTRIES: usize = 4;
/// For how long what was made stays when nobody puts it in its place.
pub(super) const MADE_TTL_SECONDS: u64 = 600;

/// What became of a log that was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compacted {
    /// So many entries became so many.
    Joined { from: usize, to: usize },
    /// It is as it should be, or cannot be read in full and stays as it is.
    Left,
    /// Something was appended meanwhile.
    Moved,
}

/// The events of a chunk.
pub(super) type Events = Vec<(Arc<Context>, Canonical)>;

/// Chunks that become one entry.
#[derive(Default)]
pub(super) struct Joined {
    pub(super) parts: Vec<StoredChunk>,
    events: Events,
    bytes: usize,
}

impl Log {
    /// Joins the small chunks of a trace whose run ended.
    ///
    /// # Errors
    /// [`LogError`]; the log is as it was, and doing it again is harmless.
    pub async fn compact(
        &self,
        tenant: &TenantId,
        trace: &TraceId,
        state: &TraceState,
    ) -> Result<Compacted, LogError> {
        let keys = self.keys.trace(tenant, trace);
        let length = self
            .redis
            .command("XLEN", &keys.events, vec![Arg::from(&keys.events)])
            .await?;
        let entries = usize::try_from(length.number().unwrap_or_default()).unwrap_or(usize::MAX);
        let joined = match entries < LEAST_ENTRIES {
            true => None,
            false => {
                self.joined(tenant, trace, state, &mut |events| events)
                    .await?
            }
        };
        let Some(joined) = joined.filter(|joined| joined.len() * 4 <= entries * 3) else {
            self.mark_compacted(&keys.trace, state).await?;
            return Ok(Compacted::Left);
        };
        // A name of its own: who else is at it makes another.
        let made = format!("{}:made:{:016x}", keys.events, rand::random::<u64>());
        let (mut bytes, mut new) = (0, 0);
        for (at, entry) in joined.iter().enumerate() {
            let (of_block, of_pieces) = self.put(&made, &keys.blobs, entry).await?;
            bytes += of_block;
            new += of_pieces;
            if at == 0 {
                let args = vec![Arg::from(&made), Arg::from(MADE_TTL_SECONDS)];
                self.redis.command("EXPIRE", &made, args).await?;
            }
        }
        let args = vec![
            Arg::from(state.seq),
            Arg::from(state.life()),
            Arg::from(MADE_TTL_SECONDS),
            Arg::from(bytes),
            Arg::from(new),
        ];
        let slots = [keys.trace.as_str(), &keys.events, &made];
        let done = self.redis.script(&REWRITE, &slots, args).await? == Reply::Int(1);
        if done {
            self.count_again(tenant, trace).await;
        }
        let to = joined.len();
        debug!(%trace, entries, to, done, "joined the chunks of a trace");
        Ok(match done {
            true => Compacted::Joined { from: entries, to },
            false => Compacted::Moved,
        })
    }

    async fn mark_compacted(&self, key: &str, state: &TraceState) -> Result<(), LogError> {
        let seq = state.seq.to_string();
        let args = [key, "compacted", &seq].map(Arg::from).to_vec();
        self.redis.command("HSET", key, args).await?;
        Ok(())
    }

    /// The log of a trace in joined chunks, each event as `change` leaves it. `None`: it cannot be read in full.
    pub(super) async fn joined(
        &self,
        tenant: &TenantId,
        trace: &TraceId,
        state: &TraceState,
        change: &mut (dyn FnMut(Events) -> Events + Send),
    ) -> Result<Option<Vec<Joined>>, LogError> {
        let mut all: Vec<Joined> = vec![Joined::default()];
        let mut after = Cursor {
            seq: state.base,
            mark: None,
        };
        while after.seq < state.seq {
            let from = ReadFrom::After(after);
            let page = self.page(tenant, trace, from, PageSize::LARGE).await?;
            let Some(last) = page.chunks.last() else {
                return Ok(None);
            };
            let end = last.span.end();
            for part in page.chunks {
                // What is lost or unreadable must not be written down as all there was.
                let Some(recorded) = self.recorded_whole(tenant, trace, &part).await? else {
                    warn!(%trace, first = part.span.first, "a trace that cannot be read in full is left as it is");
                    return Ok(None);
                };
                let events: Vec<_> = recorded
                    .into_iter()
                    .map(|recorded| {
                        let observation = recorded.observation;
                        (observation.context, Canonical::from(&observation.what))
                    })
                    .collect();
                let events = change(events);
                let bytes = events.iter().map(|(_, what)| what.len()).sum::<usize>();
                let is_full = all.last().is_some_and(|joined| {
                    !joined.parts.is_empty()
                        && (joined.bytes + bytes > JOINED_BYTES
                            || joined.events.len() + events.len() > chunk::MAX_EVENTS)
                });
                if is_full {
                    all.push(Joined::default());
                }
                if let Some(joined) = all.last_mut() {
                    joined.parts.push(part);
                    joined.events.extend(events);
                    joined.bytes += bytes;
                }
            }
            after = end;
        }
        all.retain(|joined| !joined.parts.is_empty());
        Ok(Some(all))
    }

    /// Adds a joined chunk to the log that is being made, after the pieces it refers to. Returns the bytes of its block, and of pieces that were not there.
    pub(super) async fn put(
        &self,
        made: &str,
        blobs: &str,
        entry: &Joined,
    ) -> Result<(usize, usize), LogError> {
        let (Some(first), Some(last)) = (entry.parts.first(), entry.parts.last()) else {
            return Ok((0, 0));
        };
        let mut new = 0;
        let events = entry.events.iter().map(|(context, what)| (context, what));
        let encoded = chunk::encode(events);
        for (id, piece) in encoded.pieces {
            // Nearly always there: pieces are named by what they hold.
            let length = piece.len();
            let args = vec![Arg::from(blobs), Arg::from(id.to_vec()), Arg::from(piece)];
            if self.redis.command("HSETNX", blobs, args).await? == Reply::Int(1) {
                new += length;
            }
        }
        let parts: Vec<String> = entry
            .parts
            .iter()
            .map(|part| {
                let count = part.span.last + 1 - part.span.first;
                format!("{count}:{}:{}", part.span.mark, part.arrived_unix_ms)
            })
            .collect();
        let bytes = encoded.block.len();
        let mut args = vec![
            Arg::from(made),
            Arg::from(last.span.end().to_string()),
            Arg::from("n"),
            Arg::from(entry.events.len()),
            Arg::from("t"),
            Arg::from(last.arrived_unix_ms),
            Arg::from("p"),
            Arg::from(u64::from(first.span.previous)),
            Arg::from("b"),
            Arg::from(encoded.block),
        ];
        if parts.len() > 1 {
            args.extend([Arg::from("m"), Arg::from(parts.join(" "))]);
        }
        if let Some(identities) = &first.identities {
            args.extend([Arg::from("i"), Arg::from(identities.clone())]);
        }
        self.redis.command("XADD", made, args).await?;
        Ok((bytes, new))
    }
}
