//! Appending: one atomic script per chunk, exact under repetition. What is appended is [`Clean`]: every way in is redacted first.

use std::{collections::HashSet, time::Instant};

use futures::{StreamExt as _, stream};
use tailspan_core::{
    chunk,
    id::{TenantId, TraceId},
    lower,
    observed::{Canonical, Incoming},
    redact::Clean,
    verbosity::Verbosity,
};
use tracing::warn;

use super::{
    Log, LogError, RETRY_PAUSES,
    notice::{Named, Notice},
    now_unix_ms, recent,
    remove::Forget,
};
use crate::{
    keys::TraceKeys,
    redis::{Arg, RedisError, Reply, Script},
};

static APPEND: Script = Script::new(include_str!("../lua/append.lua"));

/// Traces of one request that are appended at the same time.
const TRACES_AT_ONCE: usize = 16;

/// What an append may do beyond adding.
#[derive(Clone, Copy, Debug, Default)]
pub struct AppendOptions {
    /// Begin the trace anew: what was there goes, numbers go on above it, viewers are told.
    pub replace: bool,
}

/// What became of a batch for one trace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Appended {
    /// Events stored now.
    pub stored: u64,
    /// Events that were there already.
    pub duplicates: u64,
    /// The first event stored now; 0 when none was.
    pub first_seq: u64,
    /// The trace's last event.
    pub last_seq: u64,
    /// The mark of the chunk that holds `last_seq`.
    pub mark: u32,
    /// How much of the batch was recorded, at most.
    pub level: Verbosity,
    /// The trace was deleted: nothing was stored, and nothing will be.
    pub deleted: bool,
    /// Spans beyond those that a trace of the tenant may have: they were not stored.
    pub refused: u64,
    /// What is stored of the trace, packed; 0 when nothing was stored now.
    pub bytes: u64,
}

/// A batch as the script takes it: its encoding is made once and used for every attempt.
struct Batch<'a> {
    events: Vec<&'a Clean>,
    identities: Vec<i64>,
    /// Stands for events without an identity of their own, so that our own repeat is recognised.
    token: Option<i64>,
    mark: u32,
    /// How much of the events is recorded.
    level: Verbosity,
    packed: Packed,
}

/// A chunk as arguments of the script; cheap to clone.
#[derive(Clone)]
struct Packed {
    spans: usize,
    block: Arg,
    block_bytes: usize,
    pieces: Vec<Arg>,
    /// What a reader of the block will find in it, where all of it is at hand: never what was taken out of it before it was stored.
    spans_at_hand: Option<Vec<recent::Stored>>,
}

impl Log {
    /// Appends to one trace; answered `Ok` only when everything is stored (or known, or the trace is deleted).
    ///
    /// # Errors
    /// [`LogError`]; after it, repeating the same batch stores what is missing and nothing twice (events without identity excepted).
    pub async fn append(
        &self,
        tenant: &TenantId,
        trace: &TraceId,
        events: Vec<Incoming>,
        options: AppendOptions,
    ) -> Result<Appended, LogError> {
        if options.replace {
            self.forget_archived(tenant, trace).await?;
            self.forget(tenant, trace, Forget::Replace).await?;
            // What the old life was found by.
            self.drop_rows(tenant, std::slice::from_ref(trace)).await?;
        }
        let events = self.clean(tenant, events);
        let named = Named::in_batch(&events);
        let appended = self.append_counted(tenant, trace, &events).await?;
        self.note(
            tenant,
            &[Notice {
                trace,
                last_seq: appended.last_seq,
                named: &named,
                status: None,
                level: appended.level,
                is_first: appended.first_seq == 1,
            }],
        )
        .await;
        Ok(appended)
    }

    /// Appends to several traces, and notes them in one go. The answers are in the order of the request.
    ///
    /// # Errors
    /// The first failure; other traces may have been stored, and are known when the request is repeated.
    pub async fn append_all(
        &self,
        tenant: &TenantId,
        traces: Vec<(TraceId, Vec<Incoming>)>,
    ) -> Result<Vec<Appended>, LogError> {
        self.append_each(tenant, traces).await.into_iter().collect()
    }

    /// As [`Log::append_all`], and says of each trace what became of it.
    pub async fn append_each(
        &self,
        tenant: &TenantId,
        traces: Vec<(TraceId, Vec<Incoming>)>,
    ) -> Vec<Result<Appended, LogError>> {
        let appends = traces.into_iter().map(|(trace, events)| async move {
            let events = self.clean(tenant, events);
            let named = Named::in_batch(&events);
            let appended = self.append_counted(tenant, &trace, &events).await;
            (trace, named, appended)
        });
        let answers: Vec<_> = stream::iter(appends)
            .buffered(TRACES_AT_ONCE)
            .collect()
            .await;
        let notices: Vec<_> = answers
            .iter()
            .filter_map(|(trace, named, answer)| {
                let appended = answer.as_ref().ok()?;
                Some(Notice {
                    trace,
                    last_seq: appended.last_seq,
                    named,
                    status: None,
                    level: appended.level,
                    is_first: appended.first_seq == 1,
                })
            })
            .collect();
        self.note(tenant, &notices).await;
        let answers = answers.into_iter().map(|(_, _, answer)| answer);
        answers.collect()
    }

    /// Appends what says something about a trace and is no part of its run (results of an evaluation): its status, its run's number, its deadlines and
    /// its sessions stay as they are, and nobody is told that it ended anew. `sessions`: the names of those whose followers see it. A trace that is
    /// not there is not begun: the answer says `deleted`.
    ///
    /// # Errors
    /// As [`Log::append`].
    pub async fn append_aside(
        &self,
        tenant: &TenantId,
        trace: &TraceId,
        events: Vec<Incoming>,
        sessions: Vec<String>,
    ) -> Result<Appended, LogError> {
        let events = self.clean(tenant, events);
        let appended = self.append_chunks(tenant, trace, &events, true).await;
        match &appended {
            Ok(appended) => self.metrics.appended(appended),
            Err(error) => self.metrics.append_failed(error.reason()),
        }
        let appended = appended?;
        if appended.stored > 0 {
            let notice = Notice {
                trace,
                last_seq: appended.last_seq,
                named: &Named::aside(sessions),
                status: None,
                level: appended.level,
                is_first: false,
            };
            self.note(tenant, &[notice]).await;
        }
        Ok(appended)
    }

    pub(crate) async fn append_counted(
        &self,
        tenant: &TenantId,
        trace: &TraceId,
        events: &[Clean],
    ) -> Result<Appended, LogError> {
        let appended = self.append_chunks(tenant, trace, events, false).await;
        match &appended {
            Ok(appended) => self.metrics.appended(appended),
            Err(error) => self.metrics.append_failed(error.reason()),
        }
        if let Ok(appended) = &appended {
            self.count_stored(tenant, trace, appended.bytes).await;
        }
        appended
    }

    async fn append_chunks(
        &self,
        tenant: &TenantId,
        trace: &TraceId,
        events: &[Clean],
        is_aside: bool,
    ) -> Result<Appended, LogError> {
        let keys = self.keys.trace(tenant, trace);
        let mut total = Appended::default();
        let mut may_end_run = false;
        let (events, repeated) = without_repeats(events);
        total.duplicates = repeated;
        let level = events.iter().map(|incoming| incoming.trace_level);
        let mut level = level.fold(self.trace_levels.of(tenant), Ord::min);
        for events in chunk::split(events, |incoming| incoming.what.len()) {
            let (part, reopened) = self
                .append_chunk(tenant, trace, &keys, &events, &mut level, is_aside)
                .await?;
            // What is late for a run that was settled leaves it ended: it is settled again soon, and not when its deadline comes.
            may_end_run |= reopened || events.iter().any(|incoming| incoming.may_end_run);
            total.stored += part.stored;
            total.duplicates += part.duplicates;
            total.refused += part.refused;
            total.bytes = total.bytes.max(part.bytes);
            total.last_seq = part.last_seq;
            total.mark = part.mark;
            if total.first_seq == 0 {
                total.first_seq = part.first_seq;
            }
            total.level = part.level;
            if part.deleted {
                total.deleted = true;
                break;
            }
        }
        if may_end_run
            && !total.deleted
            // When this is lost, the deadline that is there comes later.
            && let Err(error) = self
                .look_within(tenant, trace, self.patience.grace_ms)
                .await
        {
            warn!(%trace, %error, "failed to bring a deadline forward");
        }
        Ok(total)
    }

    /// Also tells whether the chunk reopened a trace whose run was settled. `level` is how much is recorded, and becomes less when less was asked of the trace before.
    async fn append_chunk(
        &self,
        tenant: &TenantId,
        trace: &TraceId,
        keys: &TraceKeys,
        events: &[&Clean],
        level: &mut Verbosity,
        is_aside: bool,
    ) -> Result<(Appended, bool), LogError> {
        let mut batch = Batch::new(events.to_vec(), *level);
        let mut pauses = RETRY_PAUSES.iter();
        let (mut may_create, mut reopens) = (false, false);
        let mut refused = 0;
        let most_spans = match is_aside {
            true => 0,
            false => self.quotas.of(tenant).spans_per_trace.unwrap_or(0),
        };
        loop {
            let now_ms = now_unix_ms();
            let asked = self.append_script(keys, &batch, now_ms, may_create, is_aside, most_spans);
            let reply = match asked.await {
                Err(error @ RedisError::Unavailable(_)) => match pauses.next() {
                    Some(pause) => {
                        tokio::time::sleep(*pause).await;
                        continue;
                    }
                    None => return Err(error.into()),
                },
                reply => reply?.list(),
            };
            let mut reply = reply.into_iter();
            let verdict = reply
                .next()
                .and_then(|word| word.text())
                .unwrap_or_default();
            match verdict.as_str() {
                "stored" => {
                    let (first_seq, last_seq) = (number(&mut reply), number(&mut reply));
                    let bytes = number(&mut reply);
                    let stored = batch.events.len() as u64;
                    if let Some(spans) = batch.packed.spans_at_hand.take() {
                        self.recent.keep(recent::Chunk {
                            tenant: tenant.clone(),
                            trace: trace.clone(),
                            first_seq,
                            arrived_unix_ms: now_ms,
                            block_bytes: batch.packed.block_bytes,
                            spans,
                            stored: Instant::now(),
                        });
                    }
                    let appended = Appended {
                        stored,
                        duplicates: events.len() as u64 - stored - refused,
                        first_seq,
                        last_seq,
                        mark: batch.mark,
                        level: *level,
                        deleted: false,
                        refused,
                        bytes,
                    };
                    return Ok((appended, reopens));
                }
                "known" => {
                    let (last_seq, mark) = (number(&mut reply), number(&mut reply));
                    let known: Vec<bool> = reply.map(|flag| flag == Reply::Int(1)).collect();
                    // An earlier attempt of ours arrived, and its answer did not.
                    let stored = if batch.token.is_some() && known.last() == Some(&true) {
                        batch.events.len() as u64
                    } else {
                        batch.drop_known(&known);
                        if !batch.events.is_empty() {
                            continue;
                        }
                        0
                    };
                    let appended = Appended {
                        stored,
                        duplicates: events.len() as u64 - stored - refused,
                        first_seq: 0,
                        last_seq,
                        mark: u32::try_from(mark).unwrap_or_default(),
                        level: *level,
                        deleted: false,
                        refused,
                        bytes: 0,
                    };
                    return Ok((appended, reopens));
                }
                "unarmed" => {
                    reopens = number(&mut reply) == 1;
                    self.arm(tenant, trace).await?;
                    may_create = true;
                }
                "lower" => {
                    *level = level_of(number(&mut reply)).min(*level);
                    batch.lower_to(*level);
                }
                "spans" => {
                    let (last_seq, mark) = (number(&mut reply), number(&mut reply));
                    refused += batch.keep_spans(number(&mut reply));
                    if batch.events.is_empty() {
                        let appended = Appended {
                            duplicates: events.len() as u64 - refused,
                            last_seq,
                            mark: u32::try_from(mark).unwrap_or_default(),
                            level: *level,
                            refused,
                            ..Appended::default()
                        };
                        return Ok((appended, reopens));
                    }
                }
                "deleted" => {
                    let appended = Appended {
                        deleted: true,
                        ..Appended::default()
                    };
                    return Ok((appended, false));
                }
                // A connection that broke; what happened is unknown, and found out by the next attempt.
                "" => match pauses.next() {
                    Some(pause) => tokio::time::sleep(*pause).await,
                    None => return Err(LogError::Unavailable("an empty answer".to_owned())),
                },
                other => {
                    return Err(LogError::Internal(format!(
                        "append answered \"{other}\" for trace {trace}"
                    )));
                }
            }
        }
    }

    async fn append_script(
        &self,
        keys: &TraceKeys,
        batch: &Batch<'_>,
        now_ms: u64,
        may_create: bool,
        is_aside: bool,
        most_spans: u64,
    ) -> Result<Reply, RedisError> {
        let packed = &batch.packed;
        let may_end = batch.events.iter().any(|incoming| incoming.may_end_run);
        let identities = batch.identities.len() + usize::from(batch.token.is_some());
        let mut args = vec![
            Arg::from(now_ms),
            Arg::from(u64::from(batch.mark)),
            Arg::from(batch.events.len()),
            packed.block.clone(),
            Arg::from(self.ttl_seconds()),
            Arg::from(if may_create { "1" } else { "0" }),
            Arg::from(match (is_aside, may_end) {
                (true, _) => "-",
                (_, true) => "1",
                _ => "0",
            }),
            Arg::from(self.publish()),
            Arg::from(&keys.bell),
            Arg::from(packed.spans),
            Arg::from(identities),
            Arg::from(packed.pieces.len() / 2),
            Arg::from(batch.level as u64),
            Arg::from(most_spans),
        ];
        args.extend(batch.identities.iter().copied().map(Arg::from));
        args.extend(batch.token.map(Arg::from));
        args.extend(packed.pieces.iter().cloned());
        let keys = [keys.events.as_str(), &keys.trace, &keys.seen, &keys.blobs];
        self.redis.script(&APPEND, &keys, args).await
    }
}

impl<'a> Batch<'a> {
    fn new(events: Vec<&'a Clean>, level: Verbosity) -> Self {
        let mut batch = Self {
            packed: Packed::at(&events, level),
            events,
            level,
            identities: Vec::new(),
            token: None,
            mark: rand::random(),
        };
        batch.identify();
        batch
    }

    fn identify(&mut self) {
        self.identities = self
            .events
            .iter()
            .filter_map(|incoming| incoming.identity)
            .collect();
        let unnamed = self.identities.len() < self.events.len();
        // The token stays over attempts; that is its use.
        self.token = unnamed.then(|| self.token.unwrap_or_else(rand::random));
    }

    /// Leaves what the log does not have yet. `known` answers for the identities, in order.
    fn drop_known(&mut self, known: &[bool]) {
        let mut flags = known.iter();
        self.events
            .retain(|incoming| incoming.identity.is_none() || flags.next() != Some(&true));
        self.packed = Packed::at(&self.events, self.level);
        self.identify();
    }

    /// Leaves so many spans, the first ones, and all that is none. Returns how many were too many.
    fn keep_spans(&mut self, most: u64) -> u64 {
        let (before, mut left) = (self.events.len(), most);
        self.events.retain(|incoming| match incoming.what {
            Canonical::Span(_) => {
                let is_kept = left > 0;
                left = left.saturating_sub(1);
                is_kept
            }
            Canonical::Log(_) | Canonical::Native(_) => true,
        });
        self.packed = Packed::at(&self.events, self.level);
        self.identify();
        (before - self.events.len()) as u64
    }

    fn lower_to(&mut self, level: Verbosity) {
        self.level = level;
        self.packed = Packed::at(&self.events, level);
    }
}

impl Packed {
    /// What is recorded of the events at a level: at `debug` they are taken as they are.
    fn at(events: &[&Clean], level: Verbosity) -> Self {
        let events: Vec<&Incoming> = events.iter().map(|clean| &***clean).collect();
        if level == Verbosity::Debug {
            return Self::of(&events);
        }
        let lowered = lower::lower(&events, level);
        Self::of(&lowered.iter().collect::<Vec<_>>())
    }

    fn of(events: &[&Incoming]) -> Self {
        let spans = events
            .iter()
            .filter(|incoming| matches!(incoming.what, Canonical::Span(_)))
            .count();
        let encoded = chunk::encode(
            events
                .iter()
                .map(|incoming| (&incoming.context, &incoming.what)),
        );
        let at_hand = events.iter().map(|incoming| match &incoming.what {
            Canonical::Span(span) => recent::Stored::of(&incoming.context, span),
            Canonical::Log(_) | Canonical::Native(_) => None,
        });
        Self {
            spans,
            spans_at_hand: at_hand.collect(),
            block_bytes: encoded.block.len(),
            block: Arg::from(encoded.block),
            pieces: encoded
                .pieces
                .into_iter()
                .flat_map(|(id, piece)| [Arg::from(id.to_vec()), Arg::from(piece)])
                .collect(),
        }
    }
}

/// A level as scripts have it: its place in the order. What is none is the least, which tells nothing that it should not.
fn level_of(number: u64) -> Verbosity {
    let place = usize::try_from(number).unwrap_or(usize::MAX);
    Verbosity::ALL
        .get(place)
        .copied()
        .unwrap_or(Verbosity::Minimal)
}

/// The next item of an answer, as the number that the script put there.
fn number(reply: &mut impl Iterator<Item = Reply>) -> u64 {
    reply
        .next()
        .and_then(|item| item.number())
        .unwrap_or_default()
}

/// A batch in which every identity stands once, and how many stood there more than once.
fn without_repeats(events: &[Clean]) -> (Vec<&Clean>, u64) {
    let mut known = HashSet::with_capacity(events.len());
    let once = events.iter().filter(|incoming| {
        let identity = incoming.identity;
        identity.is_none_or(|identity| known.insert(identity))
    });
    let once: Vec<_> = once.collect();
    let repeated = (events.len() - once.len()) as u64;
    (once, repeated)
}
