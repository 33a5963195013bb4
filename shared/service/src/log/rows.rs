//! A tenant's indexes: which traces there are, when to look at them, and what a list shows of a run that ended.

use tailspan_core::id::{TenantId, TraceId};

use super::{Log, LogError, read::TraceState, work::Job};
use crate::redis::{Arg, Reply, Script};

static ARM: Script = Script::new(include_str!("../lua/arm.lua"));
static DROP_ROWS: Script = Script::new(include_str!("../lua/drop_rows.lua"));
static ROW: Script = Script::new(include_str!("../lua/row.lua"));

/// One row of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    pub trace: TraceId,
    pub started_unix_ms: u64,
}

impl Log {
    /// Index row and deadline, before the first append and after a settlement.
    pub(super) async fn arm(&self, tenant: &TenantId, trace: &TraceId) -> Result<(), LogError> {
        let tenants = self.keys.tenants();
        let args = vec![Arg::from(&tenants), Arg::from(tenant.as_str())];
        self.redis.command("SADD", &tenants, args).await?;
        self.look_within(tenant, trace, self.patience.stalled_ms)
            .await
    }

    /// Sees to it that a trace has its row, and is looked at in `ms` milliseconds or before.
    pub(super) async fn look_within(
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
            .map(|row| row.text()?.splitn(3, ' ').nth(2).map(str::to_owned))
            .collect())
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
}
