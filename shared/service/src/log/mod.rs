//! The log: the one truth about every trace.
//!
//! What lies in Redis, and what moves between:
//! - `{tenant/trace}:events` a stream, an entry per chunk, id `<last seq>-<mark>`; [`append`] adds, [`read`] pages, [`follow`] waits
//! - `{tenant/trace}:trace` a hash: seq, mark, at (last arrival), from (first), armed, settled, run, base and life (of replacements), dead (the tombstone)
//! - `{tenant/trace}:seen`, `:blobs`, `:fold`: identities, pieces of long text, the snapshot of the fold
//! - `{tenant}:traces`, `:due`, `:rows` the indexes; written before a trace's first append, so no trace is ever without its row
//! - `{tenant}:by:<label>`, `:noted`, `:sessions` what a trace is found by, written with its notices; [`rows`] walks them
//! - `{tenant}:live`, `:live:<session>` live sessions, see [`crate::live`]
//! - `{tenant}:log`, `{tenant/s/session}:log` notices; `work` jobs for the worker group
//!
//! A trace's life: unarmed append -> armed (row and deadline, [`rows`]) -> append -> notice; its deadline comes -> [`settle`] (lease, job, status) -> row; retention passes ->
//! archive ([`frozen`]) -> [`remove`].

pub mod append;
pub mod feed;
mod folds;
pub mod follow;
pub mod frozen;
pub mod notice;
pub mod read;
mod recent;
pub mod redact;
pub mod remove;
pub mod rewrite;
pub mod rows;
pub mod sessions;
pub mod settle;
pub mod stats;
pub mod stored;
pub mod work;

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tailspan_core::{
    id::TenantId,
    observed::Incoming,
    pricing::Prices,
    quota::Quotas,
    redact::{Clean, Redactor},
    retention::Retention,
    settle::Patience,
};

use crate::{
    archive::Archive,
    config::{Config, LiveLimits, TraceLevels},
    keys::Keys,
    metrics::Metrics,
    redis::{Redis, RedisError},
};

/// How long keys outlive the retention when no sweep comes: the net, not the rule.
const TTL_BEYOND_RETENTION: Duration = Duration::from_secs(7 * 24 * 3600);

/// Pauses before a write of which a repeat is known is sent again after "unavailable"; then the caller is told.
const RETRY_PAUSES: [Duration; 2] = [Duration::from_millis(50), Duration::from_millis(400)];

/// Why the log could not do what was asked.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LogError {
    /// Try again: nothing that was acknowledged is affected, and repeating is harmless.
    #[error("the store is unavailable: {0}")]
    Unavailable(String),
    /// The store's memory bound is reached; reading, streaming and deleting go on.
    #[error("the store is full: {0}")]
    Full(String),
    /// A fault of ours.
    #[error("the store refused: {0}")]
    Internal(String),
    /// The trace lies in the archive, and is too large to be read there.
    #[error("the archived trace is too large to be read where it lies")]
    TooLargeToRead,
}

impl LogError {
    /// A word for metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Unavailable(_) => "unavailable",
            Self::Full(_) => "full",
            Self::Internal(_) => "internal",
            Self::TooLargeToRead => "archived_too_large",
        }
    }
}

impl From<RedisError> for LogError {
    fn from(error: RedisError) -> Self {
        match error {
            RedisError::Unavailable(text) => Self::Unavailable(text),
            RedisError::Full(text) => Self::Full(text),
            RedisError::Refused(text) => Self::Internal(text),
        }
    }
}

/// A handle on the log; cheap to clone.
#[derive(Clone)]
pub struct Log {
    pub(crate) redis: Redis,
    pub(crate) keys: Arc<Keys>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) retention: Arc<Retention>,
    /// From the end of a run until its chunks are joined.
    pub(crate) compact_after_ms: u64,
    pub(crate) patience: Patience,
    pub(crate) prices: Arc<Prices>,
    pub(crate) trace_levels: Arc<TraceLevels>,
    pub(crate) quotas: Arc<Quotas>,
    stored: Arc<stored::Known>,
    pub(crate) redactor: Arc<Redactor>,
    pub(crate) folds: Arc<folds::Folds>,
    recent: Arc<recent::Recent>,
    pub(crate) live: LiveLimits,
    pub(crate) archive: Option<Arc<Archive>>,
    pub(crate) thaws: Arc<frozen::Thaws>,
}

impl Log {
    /// A log under the configured prefix, retention and patience.
    pub fn new(redis: Redis, config: &Config, metrics: Arc<Metrics>) -> Self {
        Self {
            redis,
            keys: Arc::new(Keys::new(&config.key_prefix)),
            metrics,
            retention: Arc::new(config.retention.clone()),
            compact_after_ms: config.compact_after_ms,
            patience: config.patience,
            prices: Arc::clone(&config.prices),
            trace_levels: Arc::clone(&config.trace_levels),
            quotas: Arc::clone(&config.quotas),
            stored: Arc::default(),
            redactor: Arc::clone(&config.redactor),
            folds: Arc::default(),
            recent: Arc::default(),
            live: config.live,
            archive: config
                .archive
                .as_ref()
                .map(|config| Arc::new(Archive::new(config))),
            thaws: Arc::default(),
        }
    }

    /// How long silence is borne.
    pub fn patience(&self) -> &Patience {
        &self.patience
    }

    /// Takes out of a batch what must not be stored: the one way into the log.
    pub fn clean(&self, tenant: &TenantId, events: Vec<Incoming>) -> Vec<Clean> {
        let cleaned = self.redactor.clean(tenant, events);
        self.metrics.redacted.inc_by(cleaned.redacted);
        cleaned.events
    }

    /// Seconds after which Redis itself drops an untouched trace.
    pub(crate) fn ttl_seconds(&self) -> u64 {
        (Duration::from_millis(self.retention.longest_ms()) + TTL_BEYOND_RETENTION).as_secs()
    }

    /// Milliseconds since 1970 by which silence and age are told: the earlier of Redis's clock and ours. So one clock that jumps ahead, or a process whose clock is wrong,
    /// ends no run as lost and removes no trace before its time.
    pub(crate) async fn sure_now(&self) -> Result<u64, LogError> {
        Ok(self.redis.now_unix_ms().await?.min(now_unix_ms()))
    }

    /// How the doorbell rings: a sharded channel in a cluster reaches only the nodes of its slot.
    pub(crate) fn publish(&self) -> &'static str {
        if self.redis.is_cluster() {
            "SPUBLISH"
        } else {
            "PUBLISH"
        }
    }
}

/// Does work of more than a millisecond beside the runtime's threads, on which others' frames wait.
///
/// # Errors
/// [`LogError::Internal`]: it panicked, or the process ends.
pub async fn beside<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, LogError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| LogError::Internal(error.to_string()))
}

/// Milliseconds since 1970 on this machine's clock. The log orders by number, never by time: a jump of the clock moves arrival times and deadlines, not events.
pub fn now_unix_ms() -> u64 {
    let elapsed = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)
}

/// As [`now_unix_ms`], in microseconds.
pub(crate) fn now_unix_us() -> u64 {
    let elapsed = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX)
}
