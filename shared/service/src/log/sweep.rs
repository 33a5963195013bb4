//! Retention: traces that nobody touched for longer than it go, with every key and row of theirs.

use tailspan_core::id::{TenantId, TraceId};

use super::{Log, LogError, now_unix_ms};
use crate::redis::{Arg, Reply, Script};

static EXPIRE: Script = Script::new(include_str!("../lua/expire.lua"));
static DROP_ROWS: Script = Script::new(include_str!("../lua/drop_rows.lua"));
static ROW: Script = Script::new(include_str!("../lua/row.lua"));

/// Rows looked at in one command.
const ROWS_AT_ONCE: usize = 100;

/// One row of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    pub trace: TraceId,
    pub started_unix_ms: u64,
}

impl Log {
    /// Removes what is older than the retention, for one tenant. Returns how many traces went.
    ///
    /// # Errors
    /// [`LogError`]; the next sweep goes on where this one stopped.
    pub async fn sweep(&self, tenant: &TenantId) -> Result<u64, LogError> {
        let retention_ms = u64::try_from(self.retention.as_millis()).unwrap_or(u64::MAX);
        self.remove_before(tenant, now_unix_ms().saturating_sub(retention_ms))
            .await
    }

    /// Removes traces whose last event came before a time.
    ///
    /// # Errors
    /// As [`Log::sweep`].
    pub async fn remove_before(
        &self,
        tenant: &TenantId,
        before_unix_ms: u64,
    ) -> Result<u64, LogError> {
        let traces = self.keys.tenant(tenant).traces;
        let (mut removed, mut kept) = (0, 0u64);
        loop {
            let args = vec![
                Arg::from(&traces),
                Arg::from("-inf"),
                Arg::from(format!("({before_unix_ms}")),
                Arg::from("BYSCORE"),
                Arg::from("LIMIT"),
                Arg::from(kept),
                Arg::from(ROWS_AT_ONCE),
            ];
            let names = self.redis.command("ZRANGE", &traces, args).await?.list();
            let mut gone = Vec::new();
            for name in &names {
                let Some(trace) = name.text().and_then(|name| TraceId::parse(&name).ok()) else {
                    kept += 1;
                    continue;
                };
                let keys = self.keys.trace(tenant, &trace);
                let args = vec![
                    Arg::from(before_unix_ms),
                    Arg::from(self.publish()),
                    Arg::from(&keys.bell),
                ];
                match self.redis.script(&EXPIRE, &keys.stored(), args).await? {
                    Reply::Int(0) => kept += 1,
                    answer => {
                        removed += u64::from(answer == Reply::Int(1));
                        gone.push(trace);
                    }
                }
            }
            self.drop_rows(tenant, &gone).await?;
            if names.len() < ROWS_AT_ONCE {
                self.metrics.swept_traces.inc_by(removed);
                return Ok(removed);
            }
        }
    }

    /// Takes traces that are gone from the tenant's indexes.
    pub(super) async fn drop_rows(
        &self,
        tenant: &TenantId,
        traces: &[TraceId],
    ) -> Result<(), LogError> {
        if traces.is_empty() {
            return Ok(());
        }
        let index = self.keys.tenant(tenant);
        let names = traces
            .iter()
            .map(|trace| Arg::from(trace.as_str()))
            .collect();
        let slots = [index.traces.as_str(), &index.due, &index.rows, &index.noted];
        self.redis.script(&DROP_ROWS, &slots, names).await?;
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

    /// A tenant's traces, newest first, after a row that was seen (`None`: from the newest).
    ///
    /// # Errors
    /// [`LogError`].
    pub async fn rows(
        &self,
        tenant: &TenantId,
        after: Option<&Row>,
        limit: usize,
    ) -> Result<Vec<Row>, LogError> {
        let traces = self.keys.tenant(tenant).traces;
        let mut rows = Vec::new();
        let mut offset = 0;
        loop {
            let from =
                after.map_or_else(|| "+inf".to_owned(), |row| row.started_unix_ms.to_string());
            let args = [&traces, &from, "-inf", "BYSCORE", "REV", "LIMIT"]
                .map(|text| Arg::from(text as &str));
            let mut args = args.to_vec();
            args.extend([
                Arg::from(offset),
                Arg::from(limit.max(1)),
                Arg::from("WITHSCORES"),
            ]);
            let found = self.redis.command("ZRANGE", &traces, args).await?.list();
            let pairs = found.chunks_exact(2);
            let fetched = pairs.len();
            offset += fetched;
            rows.extend(pairs.filter_map(|pair| {
                let row = Row {
                    trace: TraceId::parse(&pair.first()?.text()?).ok()?,
                    started_unix_ms: pair.get(1)?.number()?,
                };
                // Rows of one millisecond stand in reverse order of their names.
                let seen = after.is_some_and(|last| {
                    row.started_unix_ms == last.started_unix_ms && row.trace >= last.trace
                });
                (!seen).then_some(row)
            }));
            if rows.len() >= limit || fetched < limit.max(1) {
                rows.truncate(limit);
                return Ok(rows);
            }
        }
    }

    /// What was kept of ended runs for a list, in the order of `traces`.
    ///
    /// # Errors
    /// [`LogError`].
    pub async fn run_rows(
        &self,
        tenant: &TenantId,
        traces: &[TraceId],
    ) -> Result<Vec<Option<String>>, LogError> {
        if traces.is_empty() {
            return Ok(Vec::new());
        }
        let rows = self.keys.tenant(tenant).rows;
        let mut args = vec![Arg::from(&rows)];
        args.extend(traces.iter().map(|trace| Arg::from(trace.as_str())));
        let found = self.redis.command("HMGET", &rows, args).await?.list();
        Ok(found
            .iter()
            .map(|row| row.text()?.split_once(' ').map(|(_, row)| row.to_owned()))
            .collect())
    }

    /// Keeps what a list shows of a run that ended with event `through`. `false`: that end is known already.
    ///
    /// # Errors
    /// [`LogError`].
    pub async fn keep_run_row(
        &self,
        tenant: &TenantId,
        trace: &TraceId,
        through: u64,
        row: &str,
    ) -> Result<bool, LogError> {
        let index = self.keys.tenant(tenant);
        let args = vec![
            Arg::from(trace.as_str()),
            Arg::from(through),
            Arg::from(row),
        ];
        Ok(self
            .redis
            .script(&ROW, &[&index.rows, &index.traces], args)
            .await?
            == Reply::Int(1))
    }
}
