//! Reading: state, pages of chunks, what they hold, and the fold.

use std::{collections::HashMap, sync::Arc};

use bytes::Bytes;
use tailspan_core::{
    chunk::{self, PieceId},
    continuity::{ChunkSpan, Extent},
    cursor::Cursor,
    fold,
    id::{TenantId, TraceId},
    observed::{Observation, Recorded},
};
use tokio::sync::OnceCell;
use tracing::{error, warn};

pub use super::recent::JustStored;
use super::{Log, LogError, beside};
use crate::{
    keys::TraceKeys,
    redis::{Arg, Reply, Script},
};

static READ: Script = Script::new(include_str!("../lua/read.lua"));
static FOLD_PUT: Script = Script::new(include_str!("../lua/fold_put.lua"));

/// Chunks and block bytes that one read brings at most; a page holds at least one chunk.
#[derive(Clone, Copy, Debug)]
pub struct PageSize {
    pub(super) chunks: usize,
    pub(super) bytes: usize,
}

impl PageSize {
    /// For who reads a whole trace.
    pub const LARGE: Self = Self {
        chunks: 64,
        bytes: 1024 * 1024,
    };
    /// For a viewer that is behind: it may hold what it read for as long as its client reads nothing.
    pub const SMALL: Self = Self {
        chunks: 8,
        bytes: 64 * 1024,
    };
    const NONE: Self = Self {
        chunks: 0,
        bytes: 0,
    };
}

/// Pieces asked for in one command.
const PIECES_AT_ONCE: usize = 512;
/// A snapshot is renewed when a quarter as many events came after it as it holds, and at least this many.
const LEAST_EVENTS_FOR_SNAPSHOT: u64 = 256;
/// So many are folded on the spot.
const FEW_EVENTS: usize = 64;

/// Whether a fold is kept in Redis, for other processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Snapshot {
    /// When much came since the last one.
    OfMuch,
    /// The run's settlement, which follows, keeps one.
    Later,
}

/// A trace's counted state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TraceState {
    pub seq: u64,
    pub mark: u32,
    /// Last and first arrival, ms since 1970.
    pub last_arrival_unix_ms: u64,
    pub first_arrival_unix_ms: u64,
    /// Deleted: the name stays taken.
    pub dead: bool,
    /// Numbers up to here belong to lives that were replaced.
    pub base: u64,
    pub settled: Option<Settled>,
    /// How many runs ended before the current one.
    pub run: u64,
    /// The run had ended, and something came since that was no other root's end.
    pub reopened: bool,
    /// Something arrived that may have ended the run.
    pub may_have_ended: bool,
    pub spans: u64,
    fold_through: Option<u64>,
    /// Changes with every replacement; kept as Redis keeps it.
    life: String,
    /// Up to where its chunks were joined, or were found to be large.
    pub compacted: u64,
    /// It lies in the archive, and not in the log.
    pub archived: bool,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settled {
    pub status: String,
    pub seq: u64,
    pub at_unix_ms: u64,
}

impl TraceState {
    /// What a cursor is compared with.
    pub fn extent(&self) -> Extent {
        Extent {
            base: self.base,
            last: self.seq,
        }
    }

    /// The end of the log.
    pub fn cursor(&self) -> Cursor {
        Cursor::new(self.seq, self.mark)
    }

    pub(super) fn life(&self) -> &str {
        &self.life
    }

    /// The status of the run that ended with the last event, if it did.
    pub fn ended(&self) -> Option<&str> {
        self.settled
            .as_ref()
            .filter(|settled| settled.seq == self.seq)
            .map(|settled| settled.status.as_str())
    }
}

/// A chunk as it was appended.
#[derive(Clone, Debug)]
pub struct StoredChunk {
    pub span: ChunkSpan,
    pub arrived_unix_ms: u64,
    pub block: Bytes,
    /// Of the first chunk, when it is small: the identities that lie with it.
    pub(super) identities: Option<Bytes>,
    /// It was joined with others since ([`super::rewrite`]).
    joined: Option<Joined>,
    /// It comes from the archive, with the pieces of its trace.
    thawed: Option<Arc<HashMap<PieceId, Bytes>>>,
}

/// Where a chunk stands in the block of those that it was joined with.
#[derive(Clone, Debug)]
struct Joined {
    /// Events of the block before those of this chunk.
    skip: usize,
    /// All that the block holds, once somebody has read it, and how many pieces of it are lost.
    block: Arc<OnceCell<(Vec<Observation>, usize)>>,
}

impl StoredChunk {
    /// A chunk of a trace that lies in the archive.
    pub(super) fn thawed(
        span: ChunkSpan,
        arrived_unix_ms: u64,
        block: Bytes,
        pieces: Arc<HashMap<PieceId, Bytes>>,
    ) -> Self {
        Self {
            span,
            arrived_unix_ms,
            block,
            identities: None,
            joined: None,
            thawed: Some(pieces),
        }
    }

    fn count(&self) -> usize {
        let count = (self.span.last + 1).saturating_sub(self.span.first);
        usize::try_from(count).unwrap_or(usize::MAX)
    }

    /// First and last of the events that [`Log::recorded`] did not find in the block.
    pub fn unread(&self, events: &[Recorded]) -> Option<(u64, u64)> {
        let from = self.span.first + events.len() as u64;
        (from <= self.span.last).then_some((from, self.span.last))
    }
}

/// State and chunks as of one moment. No state: there is no such trace.
#[derive(Clone, Debug, Default)]
pub struct Page {
    pub state: Option<TraceState>,
    pub chunks: Vec<StoredChunk>,
}

/// Where a page begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadFrom {
    /// The chunk that holds this event, or the first after it. Shows whether the viewer's mark is the log's.
    Holding(u64),
    /// After the chunk that ends here.
    After(Cursor),
}

/// The folded state of a trace.
pub struct Folded {
    pub state: Arc<fold::State>,
    pub through: u64,
    pub trace: TraceState,
}

impl Log {
    /// A trace's counted state; a deleted trace has one, marked dead.
    ///
    /// # Errors
    /// [`LogError`].
    pub async fn state(
        &self,
        tenant: &TenantId,
        trace: &TraceId,
    ) -> Result<Option<TraceState>, LogError> {
        Ok(self.read(tenant, trace, "-", PageSize::NONE).await?.state)
    }

    /// Some chunks from a position on.
    ///
    /// # Errors
    /// [`LogError`].
    pub async fn page(
        &self,
        tenant: &TenantId,
        trace: &TraceId,
        from: ReadFrom,
        size: PageSize,
    ) -> Result<Page, LogError> {
        // Of chunks that were joined with others the entry is that of all.
        let (bound, first) = match from {
            ReadFrom::Holding(seq) => (format!("{seq}-0"), seq),
            ReadFrom::After(cursor) => {
                let mark = cursor.mark.unwrap_or(u32::MAX);
                (format!("({}-{mark}", cursor.seq), cursor.seq + 1)
            }
        };
        let mut page = self.read(tenant, trace, &bound, size).await?;
        page.chunks.retain(|chunk| chunk.span.last >= first);
        Ok(page)
    }

    async fn read(
        &self,
        tenant: &TenantId,
        trace: &TraceId,
        from: &str,
        size: PageSize,
    ) -> Result<Page, LogError> {
        let keys = self.keys.trace(tenant, trace);
        let args = vec![
            Arg::from(from),
            Arg::from(size.chunks),
            Arg::from(size.bytes),
        ];
        let both = [keys.trace.as_str(), &keys.events];
        let reply = self.redis.script(&READ, &both, args).await?;
        let mut reply = reply.list().into_iter();
        let (Some(Reply::List(state)), Some(Reply::List(chunks))) = (reply.next(), reply.next())
        else {
            // A connection that breaks may leave an answer that is none. It must not be taken for "there is no such trace".
            return Err(LogError::Unavailable("an empty answer".to_owned()));
        };
        Ok(Page {
            state: parse_state(&state),
            chunks: chunks
                .into_iter()
                .filter_map(|entry| parse_chunks(&entry.list()))
                .flatten()
                .collect(),
        })
    }

    /// Events from `seq` on that this process stored just now, at most to the end of their chunk. `None`: ask the log.
    pub fn just_stored(
        &self,
        tenant: &TenantId,
        trace: &TraceId,
        seq: u64,
    ) -> Option<Vec<JustStored>> {
        self.recent.from(tenant, trace, seq)
    }

    /// What a chunk holds, long text filled in. A block that cannot be read (damaged, or of a newer release) is told in our log and holds nothing;
    /// [`StoredChunk::unread`] says what is missing.
    ///
    /// # Errors
    /// [`LogError`].
    pub async fn recorded(
        &self,
        tenant: &TenantId,
        trace: &TraceId,
        chunk: &StoredChunk,
    ) -> Result<Vec<Recorded>, LogError> {
        let (observations, _) = self.own(tenant, trace, chunk).await?;
        Ok(numbered(chunk, observations))
    }

    /// As [`Log::recorded`]. `None`: something is damaged or lost.
    pub(super) async fn recorded_whole(
        &self,
        tenant: &TenantId,
        trace: &TraceId,
        chunk: &StoredChunk,
    ) -> Result<Option<Vec<Recorded>>, LogError> {
        let (observations, lost) = self.own(tenant, trace, chunk).await?;
        let is_whole = lost == 0 && observations.len() == chunk.count();
        Ok(is_whole.then(|| numbered(chunk, observations)))
    }

    /// What a chunk holds, and how many pieces its block lost. A block that several chunks share is read once for all of them.
    async fn own(
        &self,
        tenant: &TenantId,
        trace: &TraceId,
        chunk: &StoredChunk,
    ) -> Result<(Vec<Observation>, usize), LogError> {
        let Some(joined) = &chunk.joined else {
            return self.observations(tenant, trace, chunk).await;
        };
        let read = || self.observations(tenant, trace, chunk);
        let (all, lost) = joined.block.get_or_try_init(read).await?;
        let own = all.iter().skip(joined.skip).take(chunk.count());
        Ok((own.cloned().collect(), *lost))
    }

    /// What a block holds, and how many pieces of it are lost.
    async fn observations(
        &self,
        tenant: &TenantId,
        trace: &TraceId,
        chunk: &StoredChunk,
    ) -> Result<(Vec<Observation>, usize), LogError> {
        let decoded = match chunk::decode(&chunk.block) {
            Ok(decoded) => decoded,
            Err(error) => {
                error!(%trace, first = chunk.span.first, last = chunk.span.last, %error, "failed to read a chunk");
                self.metrics.unreadable_chunks.inc();
                return Ok((Vec::new(), 0));
            }
        };
        if let Some(pieces) = &chunk.thawed {
            return Ok(decoded.resolve(pieces));
        }
        let pieces = self
            .pieces(&self.keys.trace(tenant, trace), decoded.pieces())
            .await?;
        let (observations, lost) = decoded.resolve(&pieces);
        // A trace that was deleted or begun anew since the chunk was read has lost nothing that it should have.
        if lost > 0 && self.still_has(tenant, trace, chunk).await? {
            warn!(%trace, first = chunk.span.first, lost, "pieces of text are gone from the store");
            self.metrics.lost_pieces.inc_by(lost as u64);
        }
        Ok((observations, lost))
    }

    async fn still_has(
        &self,
        tenant: &TenantId,
        trace: &TraceId,
        chunk: &StoredChunk,
    ) -> Result<bool, LogError> {
        let state = self.state(tenant, trace).await?;
        Ok(state.is_some_and(|state| !state.dead && state.base < chunk.span.last))
    }

    async fn pieces(
        &self,
        keys: &TraceKeys,
        ids: Vec<PieceId>,
    ) -> Result<HashMap<PieceId, Bytes>, LogError> {
        let mut pieces = HashMap::with_capacity(ids.len());
        for ids in ids.chunks(PIECES_AT_ONCE) {
            let mut args = vec![Arg::from(&keys.blobs)];
            args.extend(ids.iter().map(|id| Arg::from(id.to_vec())));
            let found = self.redis.command("HMGET", &keys.blobs, args).await?.list();
            pieces.extend(
                ids.iter()
                    .zip(found)
                    .filter_map(|(id, piece)| Some((*id, piece.bytes()?))),
            );
        }
        Ok(pieces)
    }

    /// The folded state of a trace up to its last event: the snapshot, and what came after it. `None`: there is no such trace, or it was deleted.
    ///
    /// # Errors
    /// [`LogError`].
    pub async fn folded(
        &self,
        tenant: &TenantId,
        trace: &TraceId,
    ) -> Result<Option<Folded>, LogError> {
        self.folded_keeping(tenant, trace, Snapshot::OfMuch).await
    }

    /// As [`Log::folded`], and says what is kept of it.
    pub(crate) async fn folded_keeping(
        &self,
        tenant: &TenantId,
        trace: &TraceId,
        keep: Snapshot,
    ) -> Result<Option<Folded>, LogError> {
        loop {
            let Some(mut found) = self.living(tenant, trace).await? else {
                return Ok(None);
            };
            if let Some(folded) = self.folded_before(tenant, trace, &found) {
                return Ok(Some(folded));
            }
            let turn = self
                .folds
                .folding
                .take((tenant.clone(), trace.clone()))
                .await;
            if turn.waited {
                match self.living(tenant, trace).await? {
                    Some(now) => found = now,
                    None => return Ok(None),
                }
                if let Some(folded) = self.folded_before(tenant, trace, &found) {
                    return Ok(Some(folded));
                }
            }
            if let Some(folded) = self.fold_life(tenant, trace, &found, keep).await? {
                return Ok(Some(folded));
            }
        }
    }

    /// How a trace stands that was not deleted.
    async fn living(
        &self,
        tenant: &TenantId,
        trace: &TraceId,
    ) -> Result<Option<TraceState>, LogError> {
        let state = self.state(tenant, trace).await?;
        Ok(state.filter(|state| !state.dead))
    }

    fn folded_before(
        &self,
        tenant: &TenantId,
        trace: &TraceId,
        found: &TraceState,
    ) -> Option<Folded> {
        Some(Folded {
            state: self.folds.get(tenant, trace, found)?,
            through: found.seq,
            trace: found.clone(),
        })
    }

    /// Folds the life of a trace that was `found`. `None`: it was deleted or begun again meanwhile.
    async fn fold_life(
        &self,
        tenant: &TenantId,
        trace: &TraceId,
        found: &TraceState,
        keep: Snapshot,
    ) -> Result<Option<Folded>, LogError> {
        let keys = self.keys.trace(tenant, trace);
        let (mut state, mut through) = match found.fold_through {
            Some(_) => self
                .redis
                .command("GET", &keys.fold, vec![Arg::from(&keys.fold)])
                .await?
                .bytes()
                .and_then(|snapshot| fold::decode_snapshot(&snapshot))
                .filter(|(_, through)| *through > found.base)
                .unwrap_or_else(|| (fold::State::default(), found.base)),
            None => (fold::State::default(), found.base),
        };
        let snapshot_through = through;
        let trace_state = loop {
            let after = Cursor {
                seq: through,
                mark: None,
            };
            let page = self
                .page(tenant, trace, ReadFrom::After(after), PageSize::LARGE)
                .await?;
            let Some(now) = page
                .state
                .filter(|state| !state.dead && state.life == found.life)
            else {
                return Ok(None);
            };
            if page.chunks.is_empty() {
                break now;
            }
            for chunk in &page.chunks {
                let mut recorded = self.recorded(tenant, trace, chunk).await?;
                recorded.retain(|recorded| recorded.seq > through);
                let apply = move || {
                    recorded.iter().for_each(|recorded| state.apply(recorded));
                    state
                };
                state = match chunk.count() {
                    0..=FEW_EVENTS => apply(),
                    _ => beside(apply).await?,
                };
                through = through.max(chunk.span.last);
            }
            if through >= now.seq {
                break now;
            }
        };
        let folded = Folded {
            state: Arc::new(state),
            through,
            trace: trace_state,
        };
        self.folds.keep(tenant, trace, &folded);
        let tail = through - snapshot_through;
        let is_much =
            tail >= LEAST_EVENTS_FOR_SNAPSHOT && tail > (snapshot_through - found.base) / 4;
        if is_much && keep == Snapshot::OfMuch {
            self.keep_fold(tenant, trace, &folded).await;
        }
        Ok(Some(folded))
    }

    /// Keeps a snapshot. Losing it costs time, not truth.
    pub(super) async fn keep_fold(&self, tenant: &TenantId, trace: &TraceId, folded: &Folded) {
        let keys = self.keys.trace(tenant, trace);
        let (state, through) = (Arc::clone(&folded.state), folded.through);
        let encoded = beside(move || fold::encode_snapshot(&state, through)).await;
        let Ok(encoded) = encoded else { return };
        let args = vec![
            Arg::from(folded.through),
            Arg::from(encoded),
            Arg::from(self.ttl_seconds()),
            Arg::from(&folded.trace.life),
        ];
        if let Err(error) = self
            .redis
            .script(&FOLD_PUT, &[&keys.trace, &keys.fold], args)
            .await
        {
            warn!(%trace, %error, "failed to keep a snapshot");
        }
    }
}

pub(super) fn parse_state(fields: &[Reply]) -> Option<TraceState> {
    let number = |at: usize| fields.get(at).and_then(Reply::number);
    let text = |at: usize| fields.get(at).and_then(Reply::text).unwrap_or_default();
    let status = text(6);
    Some(TraceState {
        seq: number(0)?,
        mark: number(1)
            .and_then(|mark| u32::try_from(mark).ok())
            .unwrap_or_default(),
        last_arrival_unix_ms: number(2).unwrap_or_default(),
        first_arrival_unix_ms: number(3).unwrap_or_default(),
        dead: !text(4).is_empty(),
        base: number(5).unwrap_or_default(),
        settled: (!status.is_empty()).then(|| Settled {
            status,
            seq: number(7).unwrap_or_default(),
            at_unix_ms: number(11).unwrap_or_default(),
        }),
        run: number(8).unwrap_or_default(),
        may_have_ended: number(9).is_some(),
        spans: number(10).unwrap_or_default(),
        fold_through: number(12),
        life: text(13),
        reopened: !text(14).is_empty(),
        compacted: number(15).unwrap_or_default(),
        archived: false,
    })
}

fn numbered(chunk: &StoredChunk, observations: Vec<Observation>) -> Vec<Recorded> {
    (chunk.span.first..)
        .zip(observations)
        .map(|(seq, observation)| Recorded {
            seq,
            arrived_unix_ms: chunk.arrived_unix_ms,
            observation,
        })
        .collect()
}

/// The chunks of an entry: one, or those that were joined into it.
fn parse_chunks(entry: &[Reply]) -> Option<Vec<StoredChunk>> {
    let [id, count, arrived, previous, block, parts, identities] = entry else {
        return None;
    };
    let cursor: Cursor = id.text()?.parse().ok()?;
    let identities = identities.bytes().filter(|all| !all.is_empty());
    let whole = StoredChunk {
        span: ChunkSpan {
            first: (cursor.seq + 1).saturating_sub(count.number()?),
            last: cursor.seq,
            mark: cursor.mark.unwrap_or_default(),
            previous: previous
                .number()
                .and_then(|mark| u32::try_from(mark).ok())
                .unwrap_or_default(),
        },
        arrived_unix_ms: arrived.number().unwrap_or_default(),
        block: block.bytes()?,
        identities,
        joined: None,
        thawed: None,
    };
    let parts = parts.text().unwrap_or_default();
    if parts.is_empty() {
        return Some(vec![whole]);
    }
    let block = Arc::new(OnceCell::new());
    let mut chunks: Vec<StoredChunk> = Vec::new();
    let (mut skip, mut previous) = (0, whole.span.previous);
    for part in parts.split(' ') {
        let mut numbers = part.split(':').map(str::parse::<u64>);
        let (count, mark, arrived) = (
            numbers.next()?.ok()?,
            u32::try_from(numbers.next()?.ok()?).ok()?,
            numbers.next()?.ok()?,
        );
        let first = whole.span.first + skip as u64;
        chunks.push(StoredChunk {
            span: ChunkSpan {
                first,
                last: (first + count).saturating_sub(1),
                mark,
                previous,
            },
            arrived_unix_ms: arrived,
            block: whole.block.clone(),
            identities: whole.identities.clone().filter(|_| chunks.is_empty()),
            joined: Some(Joined {
                skip,
                block: Arc::clone(&block),
            }),
            thawed: None,
        });
        skip += usize::try_from(count).ok()?;
        previous = mark;
    }
    Some(chunks)
}
