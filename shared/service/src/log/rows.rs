//! A tenant's indexes: which traces there are, what they are found by, when to look at them, and what a list shows of them.

use std::collections::BTreeMap;

use tailspan_core::{
    id::{SessionKey, TenantId, TraceId},
    listing::{self, Condition, KeptRow, Label, Place},
    settle::Status,
    summary::summary,
    verbosity::Verbosity,
};
use tracing::error;

use super::{
    Log, LogError,
    notice::{NOTICES_KEPT, Named, Notice},
    now_unix_us,
    read::{Folded, TraceState},
    work::Job,
};
use crate::redis::{Arg, Reply, Script};

static ARM: Script = Script::new(include_str!("../lua/arm.lua"));
static COUNT: Script = Script::new(include_str!("../lua/count.lua"));
static DROP_ROWS: Script = Script::new(concat!(
    include_str!("../lua/live.lua"),
    include_str!("../lua/drop_rows.lua")
));
static LEAVE_SESSION: Script = Script::new(include_str!("../lua/leave_session.lua"));
static ROW: Script = Script::new(include_str!("../lua/row.lua"));
static WALK: Script = Script::new(include_str!("../lua/walk.lua"));

/// A trace's place in an index, and what was kept of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    pub place: Place,
    pub row: Option<String>,
}

/// A step down an index.
#[derive(Clone, Debug, Default)]
pub struct Walk<'a> {
    /// `None`: all traces.
    pub index: Option<&'a Label>,
    /// Labels looked up for the traces of the index.
    pub others: &'a [Condition],
    /// Starts, milliseconds since 1970, both ends included.
    pub from_unix_ms: Option<u64>,
    pub to_unix_ms: Option<u64>,
    pub after: Option<Place>,
    /// Entries passed over unseen.
    pub offset: usize,
    /// Entries looked at, at most.
    pub step: usize,
    /// Traces wanted, at most.
    pub wanted: usize,
}

/// What a step found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Step {
    pub found: Vec<Listed>,
    /// The last entry that was looked at.
    pub last: Option<Place>,
    /// The index goes on.
    pub more: bool,
}

impl Log {
    /// Index row and deadline, before the first append and after a settlement.
    pub(super) async fn arm(&self, tenant: &TenantId, trace: &TraceId) -> Result<(), LogError> {
        let tenants = self.keys.tenants();
        let args = vec![Arg::from(&tenants), Arg::from(tenant.as_str())];
        self.redis.command("SADD", &tenants, args).await?;
        let within_ms = listing::first_look_ms(self.patience.stalled_ms);
        self.look_within(tenant, trace, within_ms).await
    }

    /// Sees to it that a trace has its row, and is looked at in `ms` milliseconds or before.
    pub(crate) async fn look_within(
        &self,
        tenant: &TenantId,
        trace: &TraceId,
        ms: u64,
    ) -> Result<(), LogError> {
        let index = self.keys.tenant(tenant);
        let args = vec![Arg::from(trace.as_str()), Arg::from(ms)];
        self.redis
            .script(&ARM, &[&index.traces, &index.due], args)
            .await?;
        Ok(())
    }

    /// Takes traces that are gone from the tenant's indexes and from their sessions.
    pub(super) async fn drop_rows(
        &self,
        tenant: &TenantId,
        traces: &[TraceId],
    ) -> Result<(), LogError> {
        if traces.is_empty() {
            return Ok(());
        }
        let index = self.keys.tenant(tenant);
        let stored = self.keys.stored(tenant);
        self.stored.forget(tenant);
        let mut args = vec![
            Arg::from(&index.by),
            Arg::from(&index.live_of),
            Arg::from(NOTICES_KEPT),
            Arg::from(now_unix_us()),
            Arg::from(self.publish()),
        ];
        args.extend(traces.iter().map(|trace| Arg::from(trace.as_str())));
        let slots = [
            index.traces.as_str(),
            &index.due,
            &index.rows,
            &index.noted,
            &index.sessions,
            &index.live,
            &index.log,
            &stored,
        ];
        let left = self.redis.script(&DROP_ROWS, &slots, args).await?.list();
        let mut of_sessions: BTreeMap<String, Vec<Arg>> = BTreeMap::new();
        for pair in left.chunks_exact(2) {
            if let [trace, session] = pair
                && let (Some(trace), Some(session)) = (trace.text(), session.text())
            {
                of_sessions
                    .entry(session)
                    .or_default()
                    .push(Arg::from(trace));
            }
        }
        for (session, gone) in of_sessions {
            let Some(session) = SessionKey::parse(&session) else {
                continue;
            };
            let keys = self.keys.session(tenant, &session);
            self.redis
                .script(&LEAVE_SESSION, &[&keys.session, &keys.log], gone)
                .await?;
        }
        self.forget_stats(tenant, traces).await?;
        for trace in traces {
            let state = self.state(tenant, trace).await?;
            if state.is_some_and(|state| !state.dead) {
                // Begun again after it was removed: the row that went was its new one.
                self.look_within(tenant, trace, self.patience.stalled_ms)
                    .await?;
            }
        }
        Ok(())
    }

    /// How many traces each index has that began within a time (milliseconds since 1970, both ends included); `None` is the index of all.
    ///
    /// # Errors
    /// [`LogError`].
    pub async fn count_traces(
        &self,
        tenant: &TenantId,
        indexes: &[Option<&Label>],
        from_unix_ms: Option<u64>,
        to_unix_ms: Option<u64>,
    ) -> Result<Vec<u64>, LogError> {
        let keys: Vec<String> = indexes
            .iter()
            .map(|index| self.index_key(tenant, *index))
            .collect();
        let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
        let args = vec![least(from_unix_ms), greatest(to_unix_ms)];
        let counts = self.redis.script(&COUNT, &keys, args).await?.list();
        if counts.len() != keys.len() {
            return Err(LogError::Unavailable("an empty answer".to_owned()));
        }
        Ok(counts
            .iter()
            .map(|count| count.number().unwrap_or_default())
            .collect())
    }

    /// Goes one step down an index, newest first.
    ///
    /// # Errors
    /// [`LogError`].
    pub async fn walk(&self, tenant: &TenantId, walk: Walk<'_>) -> Result<Step, LogError> {
        let index = self.keys.tenant(tenant);
        let mut keys = vec![self.index_key(tenant, walk.index), index.rows];
        keys.extend(
            walk.others
                .iter()
                .map(|condition| self.index_key(tenant, Some(&condition.label))),
        );
        let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
        let (after_start, after_trace) = match &walk.after {
            Some(place) => (place.started_unix_ms.to_string(), place.trace.to_string()),
            None => Default::default(),
        };
        let mut args = vec![
            greatest(walk.to_unix_ms),
            least(walk.from_unix_ms),
            Arg::from(after_start),
            Arg::from(after_trace),
            Arg::from(walk.offset),
            Arg::from(walk.step.max(1)),
            Arg::from(walk.wanted.max(1)),
            Arg::from("1"),
        ];
        args.extend(
            walk.others
                .iter()
                .map(|condition| Arg::from(if condition.present { "+" } else { "-" })),
        );
        let reply = self.redis.script(&WALK, &keys, args).await?.list();
        let [looked, more, last_start, last_trace, found @ ..] = reply.as_slice() else {
            return Err(LogError::Unavailable("an empty answer".to_owned()));
        };
        let place = |start: &Reply, trace: &Reply| {
            Some(Place {
                started_unix_ms: start.number()?,
                trace: TraceId::parse(&trace.text()?).ok()?,
            })
        };
        Ok(Step {
            last: place(last_start, last_trace).filter(|_| looked.number() > Some(0)),
            more: more.number() == Some(1),
            found: found
                .chunks_exact(3)
                .filter_map(|found| match found {
                    [start, trace, row] => Some(Listed {
                        place: place(start, trace)?,
                        row: row.text().filter(|row| !row.is_empty()),
                    }),
                    _ => None,
                })
                .collect(),
        })
    }

    /// Which traces have a label.
    ///
    /// # Errors
    /// [`LogError`].
    pub async fn have_label(
        &self,
        tenant: &TenantId,
        label: &Label,
        traces: &[&TraceId],
    ) -> Result<Vec<bool>, LogError> {
        if traces.is_empty() {
            return Ok(Vec::new());
        }
        let key = self.index_key(tenant, Some(label));
        let mut args = vec![Arg::from(&key)];
        args.extend(traces.iter().map(|trace| Arg::from(trace.as_str())));
        let scores = self.redis.command("ZMSCORE", &key, args).await?.list();
        Ok(scores
            .iter()
            .map(|score| score.text().is_some())
            .chain(std::iter::repeat(false))
            .take(traces.len())
            .collect())
    }

    fn index_key(&self, tenant: &TenantId, index: Option<&Label>) -> String {
        let keys = self.keys.tenant(tenant);
        match index {
            Some(label) => format!("{}{label}", keys.by),
            None => keys.traces,
        }
    }

    /// Keeps what a list shows of a run that ended. `false`: that end is known already, or what came late changed a run that had ended.
    ///
    /// # Errors
    /// [`LogError`].
    pub async fn keep_run_row(
        &self,
        job: &Job,
        trace: &TraceState,
        row: &str,
    ) -> Result<bool, LogError> {
        let index = self.keys.tenant(&job.tenant);
        let args = vec![
            Arg::from(job.trace.as_str()),
            Arg::from(job.through),
            Arg::from(job.run),
            Arg::from(trace.base),
            Arg::from(row),
        ];
        let slots = [index.rows.as_str(), &index.traces];
        Ok(self.redis.script(&ROW, &slots, args).await? == Reply::Int(1))
    }

    /// Shows a run that goes on as it is now: its row is made anew when a good part came since, its labels and its status are set right. Losing it costs nothing but freshness.
    pub(super) async fn show_open_run(
        &self,
        tenant: &TenantId,
        trace: &TraceId,
        state: &TraceState,
        folded: Option<&Folded>,
        status: Status,
    ) -> Result<(), LogError> {
        let rows = self.keys.tenant(tenant).rows;
        let args = vec![Arg::from(&rows), Arg::from(trace.as_str())];
        let known = self.redis.command("HGET", &rows, args).await?.text();
        let through = known
            .as_deref()
            .and_then(KeptRow::parse)
            .map_or(0, |row| row.as_of_seq());
        let fresh;
        let folded = match folded {
            _ if !listing::is_outgrown(
                through.saturating_sub(state.base),
                state.seq - state.base,
            ) =>
            {
                None
            }
            Some(folded) => Some(folded),
            None => {
                fresh = self.folded(tenant, trace).await?;
                fresh.as_ref()
            }
        };
        let Some(folded) = folded else {
            if status != Status::Running {
                self.note_status(tenant, trace, state.seq, status).await;
            }
            return Ok(());
        };
        let summary = summary(&folded.state, trace.as_str(), status, &self.prices);
        let card = match listing::card(&folded.state, summary) {
            Ok(card) => card,
            Err(error) => {
                error!(%trace, %error, "failed to write a row as JSON");
                return Ok(());
            }
        };
        let notice = Notice {
            trace,
            last_seq: folded.through,
            named: &Named::from(&card),
            status: (folded.through == state.seq).then_some(status),
            level: Verbosity::Minimal,
            is_first: false,
        };
        let index = self.keys.tenant(tenant);
        let args = vec![
            Arg::from(trace.as_str()),
            Arg::from(folded.through),
            Arg::from("-"),
            Arg::from(folded.trace.base),
            Arg::from(card.row),
        ];
        // The row first: whoever is told, or finds the trace by how it stands now, sees it as it is now.
        self.redis
            .script(&ROW, &[&index.rows, &index.traces], args)
            .await?;
        self.note(tenant, &[notice]).await;
        Ok(())
    }

    /// Lets lists find a trace by how it was seen to stand as of an event.
    pub(super) async fn note_status(
        &self,
        tenant: &TenantId,
        trace: &TraceId,
        through: u64,
        status: Status,
    ) {
        let notice = Notice {
            trace,
            last_seq: through,
            named: &Named::default(),
            status: Some(status),
            level: Verbosity::Minimal,
            is_first: false,
        };
        self.note(tenant, &[notice]).await;
    }
}

fn least(from_unix_ms: Option<u64>) -> Arg {
    from_unix_ms.map_or_else(|| Arg::from("-inf"), Arg::from)
}

fn greatest(to_unix_ms: Option<u64>) -> Arg {
    to_unix_ms.map_or_else(|| Arg::from("+inf"), Arg::from)
}
