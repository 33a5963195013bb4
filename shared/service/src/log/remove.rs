//! Removal: a trace that is deleted or begun again, and retention, under which traces that nobody touched for longer go with every key and row of theirs.

use tailspan_core::id::{TenantId, TraceId};

use super::{Log, LogError, RETRY_PAUSES, now_unix_ms};
use crate::redis::{Arg, RedisError, Reply, Script};

static FORGET: Script = Script::new(include_str!("../lua/forget.lua"));
static EXPIRE: Script = Script::new(include_str!("../lua/expire.lua"));

/// Rows looked at in one command.
const ROWS_AT_ONCE: usize = 100;

/// What comes after a life that is ended.
#[derive(Clone, Copy)]
pub(super) enum Forget {
    /// The name stays taken.
    Delete,
    /// A new life begins above the old numbers.
    Replace,
}

impl Log {
    /// Ends the life of a trace. `false`: there is no such trace.
    ///
    /// # Errors
    /// [`LogError`].
    pub async fn delete(&self, tenant: &TenantId, trace: &TraceId) -> Result<bool, LogError> {
        let existed = self.forget(tenant, trace, Forget::Delete).await?;
        self.drop_rows(tenant, std::slice::from_ref(trace)).await?;
        Ok(existed)
    }

    /// Removes what is older than the retention, for one tenant. Returns how many traces went.
    ///
    /// # Errors
    /// [`LogError`]; the next sweep goes on where this one stopped.
    pub async fn sweep(&self, tenant: &TenantId) -> Result<u64, LogError> {
        let retention_ms = u64::try_from(self.retention.as_millis()).unwrap_or(u64::MAX);
        let now = self.sure_now().await?;
        self.remove_before(tenant, now.saturating_sub(retention_ms))
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

    /// Ends the life of a trace: its data goes, its viewers are told. `false`: there is none.
    pub(super) async fn forget(
        &self,
        tenant: &TenantId,
        trace: &TraceId,
        how: Forget,
    ) -> Result<bool, LogError> {
        let keys = self.keys.trace(tenant, trace);
        // Stays over attempts, so that the script knows our own repeat.
        let token = rand::random::<u64>();
        let mut pauses = RETRY_PAUSES.iter();
        loop {
            let args = vec![
                Arg::from(now_unix_ms()),
                Arg::from(self.ttl_seconds()),
                Arg::from(self.publish()),
                Arg::from(&keys.bell),
                Arg::from(match how {
                    Forget::Delete => "delete",
                    Forget::Replace => "replace",
                }),
                Arg::from(token),
            ];
            match (
                self.redis.script(&FORGET, &keys.stored(), args).await,
                pauses.next(),
            ) {
                (Err(RedisError::Unavailable(_)), Some(pause)) => tokio::time::sleep(*pause).await,
                (reply, _) => return Ok(reply?.list().first() == Some(&Reply::Int(1))),
            }
        }
    }
}
