//! Out of the archive: a trace in its place again, as it was.

use std::{collections::HashSet, io};

use bytes::Bytes;
use tailspan_core::{
    archive::{Chunk, Item},
    chunk::{self, PieceId},
    cursor::Cursor,
    id::{TenantId, TraceId},
    listing, lower,
    observed::Incoming,
    settle::Status,
    stats,
    summary::summary,
    verbosity::Verbosity,
};

use super::{LISTED, NOT_KEPT, state_of};
use crate::{
    archive::Lines,
    log::{
        Log, LogError, beside,
        notice::{Named, Notice},
        now_unix_ms,
        read::TraceState,
        work::Job,
    },
    redis::{Arg, Reply, Script},
};

static RESTORE: Script = Script::new(include_str!("../../lua/restore.lua"));

/// Unpacked bytes of an archive that is brought back.
const MOST_RESTORED: u64 = 16 << 30;
/// What is read of a file and written to the store in one go.
const RESTORED_AT_ONCE: usize = 1 << 20;
/// For how long what was made stays when nobody puts it in its place.
const MADE_TTL_SECONDS: u64 = 600;
/// Pieces stored by one command.
const PIECES_AT_ONCE: usize = 4096;
/// Names of pieces that are remembered as stored while a trace is brought back.
const MOST_PIECES_KNOWN: usize = 1 << 20;

/// What became of an archive that was given to be brought back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restored {
    pub trace: TraceId,
    pub events: u64,
    /// They were there already, all of them as they are in the archive.
    pub was_there: bool,
    /// The trace was deleted and stays so.
    pub deleted: bool,
    pub cursor: Cursor,
}

/// Why an archive was not brought back.
#[derive(Debug, thiserror::Error)]
pub enum NotRestored {
    /// Nothing was changed.
    #[error("{0}")]
    Unreadable(String),
    /// There is a trace of this name, and it is another.
    #[error("there is a trace {0}, and it is not as it was archived")]
    Other(TraceId),
    #[error(transparent)]
    Log(#[from] LogError),
}

/// What a file gave in one go.
enum Taken {
    More(Vec<Made>),
    Whole(Vec<Made>),
}

enum Made {
    Chunk(Chunk),
    Identities(Vec<i64>),
}

impl Log {
    /// Brings a trace back from an archive, packed or not, as it was: same numbers, same arrival times, same cursors. It is kept as long as one whose last event has just come.
    /// `replace`: whatever lies under its name goes.
    ///
    /// # Errors
    /// [`NotRestored`]; the trace is as it was.
    pub async fn restore(
        &self,
        tenant: &TenantId,
        file: Bytes,
        replace: bool,
    ) -> Result<Restored, NotRestored> {
        let unreadable = |error: io::Error| NotRestored::Unreadable(error.to_string());
        let opened = beside(move || {
            let mut lines = Lines::unpacking(io::Cursor::new(file), MOST_RESTORED)?;
            let first = lines.read_next()?;
            Ok::<_, io::Error>((lines, first))
        });
        let (mut lines, first) = opened.await?.map_err(unreadable)?;
        let Some(Item::Header(header)) = first else {
            return Err(NotRestored::Unreadable("it has no header".to_owned()));
        };
        let trace = &header.trace_id;
        let state = state_of(&header.state)
            .filter(|state| state.seq > state.base && !state.dead)
            .ok_or_else(|| NotRestored::Unreadable("it has no state".to_owned()))?;
        let answer = |was_there, deleted| Restored {
            trace: trace.clone(),
            events: state.seq - state.base,
            was_there,
            deleted,
            cursor: state.cursor(),
        };
        if let Some(found) = self.state(tenant, trace).await?.filter(|_| !replace) {
            return match found.dead {
                true => Ok(answer(false, true)),
                false if found.cursor() == state.cursor() => Ok(answer(true, false)),
                false => Err(NotRestored::Other(trace.clone())),
            };
        }
        let keys = self.keys.trace(tenant, trace);
        let token = rand::random::<u64>();
        let made =
            [&keys.events, &keys.seen, &keys.blobs].map(|key| format!("{key}:made:{token:016x}"));
        let (mut has, mut stored) = ([false; 3], HashSet::new());
        let mut last = state.base;
        loop {
            let (back, some) = beside(move || {
                let some = take(&mut lines);
                (lines, some)
            })
            .await?;
            lines = back;
            let (some, is_whole) = match some.map_err(unreadable)? {
                Taken::More(some) => (some, false),
                Taken::Whole(some) => (some, true),
            };
            for item in some {
                match item {
                    Made::Chunk(chunk) => {
                        last = chunk.span.last;
                        let pieces = (&mut has, &mut stored);
                        self.put_back(tenant, &made, pieces, chunk).await?;
                    }
                    Made::Identities(identities) => {
                        let mut args = vec![Arg::from(&made[1])];
                        args.extend(identities.into_iter().map(Arg::from));
                        self.make("SADD", &made[1], args, &mut has[1]).await?;
                    }
                }
            }
            if is_whole {
                break;
            }
        }
        if last != state.seq {
            return Err(NotRestored::Unreadable(
                "its last events are missing".to_owned(),
            ));
        }
        if replace {
            self.drop_rows(tenant, std::slice::from_ref(trace)).await?;
        }
        // The row before the trace, at the place where it stood.
        let traces = self.keys.tenant(tenant).traces;
        let place = vec![
            Arg::from(&traces),
            Arg::from("NX"),
            Arg::from(match header.number(LISTED) {
                0 => state.first_arrival_unix_ms,
                listed => listed,
            }),
            Arg::from(trace.as_str()),
        ];
        let placed = self.redis.command("ZADD", &traces, place).await;
        placed.map_err(LogError::from)?;
        self.arm(tenant, trace).await?;
        let mut slots: Vec<&str> = keys.stored().to_vec();
        slots.extend(made.iter().map(String::as_str));
        let mut args = vec![
            Arg::from(if replace { "1" } else { "0" }),
            Arg::from(self.ttl_seconds()),
            Arg::from(now_unix_ms()),
            Arg::from(self.publish()),
            Arg::from(&keys.bell),
        ];
        let kept = header.state.iter();
        for (field, value) in kept.filter(|(field, _)| !NOT_KEPT.contains(&field.as_str())) {
            args.extend([Arg::from(field), Arg::from(value)]);
        }
        // An open run is looked at when its deadline comes, which it has.
        args.extend([
            Arg::from("armed"),
            Arg::from(if state.ended().is_some() { "0" } else { "1" }),
        ]);
        let reply = self.redis.script(&RESTORE, &slots, args).await;
        let reply = reply.map_err(LogError::from)?.list();
        if reply.first() != Some(&Reply::Int(1)) {
            // Somebody was faster; what it is, is found out by asking again.
            return Err(NotRestored::Other(trace.clone()));
        }
        self.count_again(tenant, trace).await;
        self.thaws.forget(tenant, trace);
        self.metrics.restored_traces.inc();
        self.list_restored(tenant, trace, &state).await?;
        Ok(answer(false, false))
    }

    /// Lets lists, statistics and sessions find a trace that came back, without telling anybody that a run ended.
    async fn list_restored(
        &self,
        tenant: &TenantId,
        trace: &TraceId,
        state: &TraceState,
    ) -> Result<(), LogError> {
        let status = state
            .ended()
            .and_then(|status| status.parse::<Status>().ok());
        let Some(status) = status else {
            return self.look_within(tenant, trace, 0).await;
        };
        let Some(folded) = self.folded(tenant, trace).await? else {
            return Ok(());
        };
        let summary = summary(&folded.state, trace.as_str(), status, &self.prices);
        let card = listing::card(&folded.state, summary);
        let card = card.map_err(|error| LogError::Internal(error.to_string()))?;
        let notice = Notice {
            trace,
            last_seq: folded.through,
            named: &Named::from(&card),
            status: Some(status),
            level: Verbosity::Minimal,
            is_first: false,
        };
        self.note(tenant, &[notice]).await;
        let job = Job {
            tenant: tenant.clone(),
            trace: trace.clone(),
            run: state.run,
            through: folded.through,
            status: status.to_string(),
        };
        self.keep_run_row(&job, &folded.trace, &card.row).await?;
        let contribution = stats::of(&folded.state, &self.prices);
        self.keep_stats(tenant, trace, &contribution, folded.through)
            .await
    }

    /// Adds a chunk to the log that is being made. What is recorded less of now than then comes back as it would be recorded now, without what must not be stored.
    async fn put_back(
        &self,
        tenant: &TenantId,
        made: &[String; 3],
        (has, stored): (&mut [bool; 3], &mut HashSet<PieceId>),
        chunk: Chunk,
    ) -> Result<(), LogError> {
        let [events, _, blobs] = made;
        let count = chunk.span.last - chunk.span.first + 1;
        let level_of_tenant = self.trace_levels.of(tenant);
        let incoming = chunk.events.into_iter().map(|(context, what)| Incoming {
            context,
            what,
            identity: None,
            may_end_run: false,
            trace_level: level_of_tenant,
        });
        let clean = self.clean(tenant, incoming.collect());
        let clean: Vec<&Incoming> = clean.iter().map(|clean| &**clean).collect();
        let level = clean.iter().map(|item| item.trace_level).min();
        let encoded = match level.unwrap_or(level_of_tenant) {
            Verbosity::Debug => chunk::encode(clean.iter().map(|item| (&item.context, &item.what))),
            level => {
                let lowered = lower::lower(&clean, level);
                chunk::encode(lowered.iter().map(|item| (&item.context, &item.what)))
            }
        };
        // A call's history is that of the call before it: most pieces were stored with other chunks.
        if stored.len() > MOST_PIECES_KNOWN {
            stored.clear();
        }
        let pieces = encoded.pieces.into_iter();
        let pieces: Vec<_> = pieces.filter(|(id, _)| stored.insert(*id)).collect();
        for pieces in pieces.chunks(PIECES_AT_ONCE) {
            let mut args = vec![Arg::from(blobs)];
            for (id, piece) in pieces {
                args.extend([Arg::from(id.to_vec()), Arg::from(piece.clone())]);
            }
            self.make("HSET", blobs, args, &mut has[2]).await?;
        }
        let args = vec![
            Arg::from(events),
            Arg::from(chunk.span.end().to_string()),
            Arg::from("n"),
            Arg::from(count),
            Arg::from("t"),
            Arg::from(chunk.arrived_unix_ms),
            Arg::from("p"),
            Arg::from(u64::from(chunk.span.previous)),
            Arg::from("b"),
            Arg::from(encoded.block),
        ];
        self.make("XADD", events, args, &mut has[0]).await
    }

    /// Writes to a key that goes by itself when nobody puts it in its place.
    async fn make(
        &self,
        command: &'static str,
        key: &str,
        args: Vec<Arg>,
        is_there: &mut bool,
    ) -> Result<(), LogError> {
        if args.len() < 2 {
            return Ok(());
        }
        self.redis.command(command, key, args).await?;
        if !*is_there {
            *is_there = true;
            let args = vec![Arg::from(key), Arg::from(MADE_TTL_SECONDS)];
            self.redis.command("EXPIRE", key, args).await?;
        }
        Ok(())
    }
}

fn take(lines: &mut Lines<io::Cursor<Bytes>>) -> io::Result<Taken> {
    let (mut some, mut bytes) = (Vec::new(), 0);
    while bytes < RESTORED_AT_ONCE {
        match lines.read_next()? {
            None => return Ok(Taken::Whole(some)),
            Some(Item::Chunk(chunk)) => {
                bytes += lines.text.len();
                some.push(Made::Chunk(chunk));
            }
            Some(Item::Identities(identities)) if !identities.is_empty() => {
                bytes += lines.text.len();
                some.push(Made::Identities(identities));
            }
            Some(_) => {}
        }
    }
    Ok(Taken::More(some))
}
