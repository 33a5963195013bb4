//! What the routers share: one per process.

use std::{ops::Deref, sync::Arc};

use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{
    config::Config,
    log::{Log, LogError, follow::Hub},
    metrics::Metrics,
    redis::{Arg, Redis},
};

/// Handle on the process's shared state; cheap to clone.
#[derive(Clone)]
pub struct App(Arc<Shared>);

/// What an [`App`] leads to.
pub struct Shared {
    pub config: Config,
    pub log: Log,
    pub hub: Hub,
    pub metrics: Arc<Metrics>,
    /// Cancelled when the process is to end: streams end with their cursor, loops stop.
    pub shutdown: CancellationToken,
    redis: Redis,
}

/// What Redis says of its memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoreMemory {
    pub used_bytes: u64,
    /// 0: unbounded.
    pub max_bytes: u64,
    pub policy: String,
}

impl StoreMemory {
    /// Anything but `noeviction` lets Redis drop single keys of traces: with `volatile-lru`, 454 of 3,000 traces lost half of theirs.
    pub fn warning(&self) -> Option<String> {
        (!self.policy.is_empty() && self.policy != "noeviction").then(|| {
            format!(
                "redis evicts by {}: acknowledged events can be lost; set maxmemory-policy to noeviction",
                self.policy
            )
        })
    }
}

impl Deref for App {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.0
    }
}

impl App {
    /// Connects, and looks at what Redis may evict. A Redis that is down is no reason not to start: it is asked again with every request.
    ///
    /// # Errors
    /// The URL cannot be read.
    pub async fn start(config: Config) -> Result<Self, LogError> {
        let redis = Redis::connect(&config.redis_url).await?;
        let metrics = Arc::new(Metrics::default());
        let log = Log::new(redis.clone(), &config, Arc::clone(&metrics));
        let app = Self(Arc::new(Shared {
            hub: Hub::new(log.clone()),
            log,
            config,
            metrics,
            shutdown: CancellationToken::new(),
            redis,
        }));
        match app.store_memory().await {
            Ok(memory) => match memory.warning() {
                Some(warning) => warn!("{warning}"),
                None => info!(policy = memory.policy, "redis answers"),
            },
            Err(error) => warn!(%error, "redis does not answer yet"),
        }
        Ok(app)
    }

    /// Asks Redis for its memory; also shows whether it answers.
    ///
    /// # Errors
    /// [`LogError`].
    pub async fn store_memory(&self) -> Result<StoreMemory, LogError> {
        let reply = self
            .redis
            .command("INFO", "", vec![Arg::from("memory")])
            .await;
        self.metrics.redis_up.set(i64::from(reply.is_ok()));
        let text = reply?.text().unwrap_or_default();
        let field = |name: &str| {
            let line = text
                .lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            line.map(|value| value.trim().to_owned())
                .unwrap_or_default()
        };
        let memory = StoreMemory {
            used_bytes: field("used_memory").parse().unwrap_or_default(),
            max_bytes: field("maxmemory").parse().unwrap_or_default(),
            policy: field("maxmemory_policy"),
        };
        self.metrics
            .redis_memory_bytes
            .set(i64::try_from(memory.used_bytes).unwrap_or(i64::MAX));
        Ok(memory)
    }

    /// Ends the connections, after everything else.
    pub async fn close(&self) {
        self.shutdown.cancel();
        self.redis.close().await;
    }
}
