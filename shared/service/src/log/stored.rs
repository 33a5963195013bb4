//! What is stored of a tenant's traces, packed, without what Redis needs beside it: blocks and pieces. Counted only for tenants that have a limit.
//!
//! Each trace counts its own bytes, in the script that stores them (`bytes`, `pieces` of its hash). The tenant's hash `{tenant}:stored` has each trace's part and their sum: an append puts the part right, so does joining chunks, and what takes a
//! trace's rows takes its part. What was lost in between (a process that dies after an append, keys that timed out by themselves, traces of before there was a limit) is put right by [`Log::heal_stored`], which each sweep
//! goes on with.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tailspan_core::id::{TenantId, TraceId};
use tracing::warn;

use super::{Log, LogError};
use crate::{
    error::ApiError,
    redis::{Arg, Reply, Script},
};

static STORED: Script = Script::new(include_str!("../lua/stored.lua"));

/// How long a sum is believed. An append tells it anew.
const BELIEVED: Duration = Duration::from_secs(2);
/// Room is made by deletes and by the sweep.
const RETRY_AFTER_SECONDS: u32 = 10;
/// Traces that one sweep counts again, of a tenant.
const COUNTED_AGAIN: u64 = 100;
/// Tenants whose sum is remembered.
const MOST_REMEMBERED: usize = 10_000;

/// Sums as this process was last told.
#[derive(Debug, Default)]
pub(super) struct Known(Mutex<HashMap<TenantId, (u64, Instant)>>);

impl Known {
    fn lock(&self) -> MutexGuard<'_, HashMap<TenantId, (u64, Instant)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keep(&self, tenant: &TenantId, bytes: u64) {
        let mut known = self.lock();
        if known.len() >= MOST_REMEMBERED {
            known.retain(|_, (_, at)| at.elapsed() < BELIEVED);
        }
        known.insert(tenant.clone(), (bytes, Instant::now()));
    }

    pub(super) fn forget(&self, tenant: &TenantId) {
        self.lock().remove(tenant);
    }

    fn get(&self, tenant: &TenantId) -> Option<u64> {
        let known = self.lock();
        let (bytes, at) = known.get(tenant)?;
        (at.elapsed() < BELIEVED).then_some(*bytes)
    }
}

impl Log {
    /// Whether a tenant may store more. Requests on their way are not counted yet, so the limit is passed by those at most.
    ///
    /// # Errors
    /// 429 when it has as much as it may; what cannot be found out is not refused here.
    pub async fn has_room(&self, tenant: &TenantId) -> Result<(), ApiError> {
        let Some(most) = self.quotas.of(tenant).stored_bytes else {
            return Ok(());
        };
        let bytes = match self.stored.get(tenant) {
            Some(bytes) => bytes,
            None => match self.stored_bytes(tenant).await {
                Ok(bytes) => bytes,
                Err(_) => return Ok(()),
            },
        };
        match bytes < most {
            true => Ok(()),
            false => Err(ApiError::over_limit(
                "storage_exceeded",
                format!(
                    "{bytes} bytes are stored, of {most} that this tenant may have: delete traces, or wait until their retention is over; reading goes on"
                ),
                RETRY_AFTER_SECONDS,
            )),
        }
    }

    /// Bytes that are stored of a tenant's traces, as far as they were counted.
    ///
    /// # Errors
    /// [`LogError`].
    pub async fn stored_bytes(&self, tenant: &TenantId) -> Result<u64, LogError> {
        let key = self.keys.stored(tenant);
        let args = [key.as_str(), "*"].map(Arg::from).to_vec();
        let bytes = self.redis.command("HGET", &key, args).await?;
        let bytes = bytes.number().unwrap_or_default();
        self.stored.keep(tenant, bytes);
        Ok(bytes)
    }

    /// Counts what an append left of a trace. When it fails, the trace's next append or the sweep puts it right.
    pub(super) async fn count_stored(&self, tenant: &TenantId, trace: &TraceId, bytes: u64) {
        if bytes > 0 && self.quotas.of(tenant).stored_bytes.is_some() {
            self.count(tenant, trace, bytes, "+").await;
        }
    }

    /// Counts a trace as it is.
    pub(super) async fn count_again(&self, tenant: &TenantId, trace: &TraceId) {
        if self.quotas.of(tenant).stored_bytes.is_none() {
            return;
        }
        let key = self.keys.trace(tenant, trace).trace;
        let args = [key.as_str(), "bytes", "pieces"].map(Arg::from).to_vec();
        match self.redis.command("HMGET", &key, args).await {
            Ok(parts) => {
                let parts = parts.list();
                let bytes = parts.iter().filter_map(Reply::number).sum();
                self.count(tenant, trace, bytes, "=").await;
            }
            Err(error) => warn!(%trace, %error, "failed to count what is stored of a trace"),
        }
    }

    async fn count(&self, tenant: &TenantId, trace: &TraceId, bytes: u64, how: &str) {
        let key = self.keys.stored(tenant);
        let args = vec![Arg::from(trace.as_str()), Arg::from(bytes), Arg::from(how)];
        match self.redis.script(&STORED, &[&key], args).await {
            Ok(sum) => self.stored.keep(tenant, sum.number().unwrap_or_default()),
            Err(error) => warn!(%trace, %error, "failed to count what is stored of a trace"),
        }
    }

    /// Counts some of a tenant's traces again, and some that are counted and may not be there: each call those after the last one's.
    ///
    /// # Errors
    /// [`LogError`].
    pub async fn heal_stored(&self, tenant: &TenantId) -> Result<(), LogError> {
        if self.quotas.of(tenant).stored_bytes.is_none() {
            return Ok(());
        }
        let (key, traces) = (self.keys.stored(tenant), self.keys.tenant(tenant).traces);
        let args = [key.as_str(), "@"].map(Arg::from).to_vec();
        let from = self.redis.command("HGET", &key, args).await?;
        let from = from.number().unwrap_or_default();
        let args = vec![
            Arg::from(&traces),
            Arg::from(from),
            Arg::from(from + COUNTED_AGAIN - 1),
        ];
        let some = self.redis.command("ZRANGE", &traces, args).await?.list();
        let next = match some.len() as u64 {
            COUNTED_AGAIN => from + COUNTED_AGAIN,
            _ => 0,
        };
        let args = vec![Arg::from(&key), Arg::from(COUNTED_AGAIN)];
        let counted = self.redis.command("HRANDFIELD", &key, args).await?.list();
        for trace in some.iter().chain(&counted).filter_map(Reply::text) {
            if let Ok(trace) = TraceId::parse(&trace) {
                self.count_again(tenant, &trace).await;
            }
        }
        let args = vec![Arg::from(&key), Arg::from("@"), Arg::from(next)];
        self.redis.command("HSET", &key, args).await?;
        Ok(())
    }
}
