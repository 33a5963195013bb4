//! What the routers share: one per process.

use std::{
    ops::Deref,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use prometheus_client::metrics::gauge::Gauge;
use tailspan_core::id::{TenantId, TraceId};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{error, info, warn};

use crate::{
    access::Access,
    config::Config,
    evaluation::Evaluation,
    limits::Limits,
    log::{Log, LogError, follow::Hub},
    mesh::Intake,
    metrics::Metrics,
    redis::{Arg, Redis, RedisError, Reply, Script},
    webhooks::Counts,
};

static PROBE: Script = Script::new(include_str!("lua/probe.lua"));

/// Handle on the process's shared state; cheap to clone.
#[derive(Clone)]
pub struct App(Arc<Shared>);

/// What an [`App`] leads to.
pub struct Shared {
    pub config: Config,
    pub access: Access,
    /// What tenants may send, watch and hold.
    pub limits: Limits,
    pub log: Log,
    pub hub: Hub,
    pub metrics: Arc<Metrics>,
    pub evaluation: Evaluation,
    /// Cancelled when the process is to end: streams end with their cursor, loops stop.
    pub shutdown: CancellationToken,
    /// When the process began to work.
    pub began: Instant,
    /// Work that goes on when its request is gone; whoever ends the process waits for it. All of it ends by itself after [`Shared::shutdown`].
    pub tasks: TaskTracker,
    redis: Redis,
    /// Where the mesh's stream is: the same Redis unless another is named.
    pub(crate) mesh_redis: Redis,
    /// Sentences about what the Redis user was found not to be allowed.
    refusals: Mutex<Vec<String>>,
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

/// Lacking the doorbell costs time, never an event.
fn may_not_ring(command: &str, bell: &str) -> String {
    format!(
        "the redis user may not {command} on channels such as {bell} (add &*:bell): viewers see events up to two seconds late"
    )
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
        let redis = Redis::connect(&config.redis_url, &config.redis_tls).await?;
        let mesh_redis = match &config.mesh.redis_url {
            Some(url) => Redis::connect(url, &config.redis_tls).await?,
            None => redis.clone(),
        };
        let metrics = Arc::new(Metrics::default());
        let log = Log::new(redis.clone(), &config, Arc::clone(&metrics));
        let access = Access::new(&config, redis.clone(), Arc::clone(&log.keys));
        let limits = Limits::new(&config, redis.clone(), Arc::clone(&log.keys));
        let app = Self(Arc::new(Shared {
            hub: Hub::new(log.clone()),
            log,
            access,
            limits,
            evaluation: Evaluation::new(config.providers.clone(), Arc::clone(&config.prices)),
            config,
            metrics,
            shutdown: CancellationToken::new(),
            began: Instant::now(),
            tasks: TaskTracker::new(),
            redis,
            mesh_redis,
            refusals: Mutex::default(),
        }));
        match app.store_memory().await {
            Ok(memory) => match memory.warning() {
                Some(warning) => warn!("{warning}"),
                None => info!(policy = memory.policy, "redis answers"),
            },
            Err(error) => warn!(%error, "redis does not answer yet"),
        }
        let (shutdown, hub) = (app.shutdown.clone(), app.hub.clone());
        tokio::spawn(async move {
            shutdown.cancelled().await;
            hub.wake_all();
        });
        let asking = app.clone();
        // Beside the first requests: a function that was just started must not wait for it.
        tokio::spawn(async move { asking.ask_what_we_may().await });
        Ok(app)
    }

    /// Whether the process is a function of the cloud.
    pub fn is_function(&self) -> bool {
        self.config.is_function
    }

    /// What the Redis user was found not to be allowed when the process began; a sentence each.
    pub fn refusals(&self) -> Vec<String> {
        self.refusals
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Tries what the scripts and the doorbell need, so that an ACL rule that lacks something is told at the start, and not only by a write that stops
    /// half-way. Takes about a second when the bell cannot be heard, else a few milliseconds.
    pub async fn ask_what_we_may(&self) {
        let Ok(trace) = TraceId::parse("tailspan-probe") else {
            return;
        };
        let keys = self.log.keys.trace(&TenantId::default(), &trace);
        let publish = self.log.publish();
        let mut rings = self.redis.rings();
        // Its answer says nothing: fred does not wait for that of Redis.
        let _ = self.redis.subscribe(&keys.bell).await;
        let mut refusals = Vec::new();
        let mut rang = false;
        for patience_ms in [10, 50, 200, 700] {
            let args = vec![Arg::from(publish), Arg::from(&keys.bell)];
            let names: Vec<_> = match self.redis.script(&PROBE, &[&keys.blobs], args).await {
                Ok(reply) => reply.list().iter().filter_map(Reply::text).collect(),
                Err(RedisError::Refused(text)) => {
                    refusals = vec![text];
                    break;
                }
                // Away: nothing is known.
                Err(_) => return,
            };
            let (bell, commands): (Vec<_>, Vec<_>) =
                names.iter().partition(|name| *name == publish);
            refusals.clear();
            if !commands.is_empty() {
                refusals.push(format!(
                    "the redis user may not run {} on keys such as {}: writes will fail",
                    commands.into_iter().cloned().collect::<Vec<_>>().join(" "),
                    keys.blobs
                ));
            }
            if !bell.is_empty() {
                refusals.push(may_not_ring(publish, &keys.bell));
                break;
            }
            let heard = async {
                while let Ok(ring) = rings.recv().await {
                    if ring.as_deref() == Some(keys.bell.as_str()) {
                        return;
                    }
                }
            };
            let patience = Duration::from_millis(patience_ms);
            rang = tokio::time::timeout(patience, heard).await.is_ok();
            if rang {
                break;
            }
        }
        if !rang && refusals.is_empty() {
            refusals.push(may_not_ring("SUBSCRIBE", &keys.bell));
        }
        let _ = self.redis.unsubscribe(&keys.bell).await;
        for refusal in &refusals {
            error!("{refusal}; the rule it needs stands in docs/operations.md");
        }
        *self.refusals.lock().unwrap_or_else(PoisonError::into_inner) = refusals;
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

    /// Sets the metrics of what is held right now, here and in Redis; those of Redis stay as they were when it does not answer.
    pub async fn count(&self) {
        let set = |gauge: &Gauge, count| {
            gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
        };
        let metrics = &self.metrics;
        let tasks = tokio::runtime::Handle::current()
            .metrics()
            .num_alive_tasks();
        set(&metrics.tasks, tasks as u64);
        set(&metrics.subscriptions, self.redis.subscriptions() as u64);
        if self.store_memory().await.is_ok()
            && let Ok(work) = self.log.work_counts().await
        {
            set(&metrics.work_length, work.length);
            set(&metrics.work_pending, work.pending);
            set(&metrics.work_set_aside, work.set_aside);
            set(&metrics.work_consumers, work.consumers);
        }
        if let Ok(waiting) = self.count_to_forward().await {
            set(&metrics.forward_waiting, waiting);
        }
        if let Some(mesh) = Intake::of(self) {
            mesh.count().await;
        }
    }

    /// Traces of all tenants that wait to be forwarded, over all targets.
    ///
    /// # Errors
    /// [`LogError`].
    pub async fn count_to_forward(&self) -> Result<u64, LogError> {
        let mut waiting = 0;
        if self.config.forward.is_empty() {
            return Ok(waiting);
        }
        for tenant in self.log.tenants().await? {
            for target in self.config.forward.all() {
                waiting += self.log.count_to_forward(&tenant, &target.name).await?;
            }
        }
        Ok(waiting)
    }

    /// Deliveries of all tenants: how many wait, and how many dead letters there are. None where no endpoint is configured.
    ///
    /// # Errors
    /// [`LogError`].
    pub async fn count_deliveries(&self) -> Result<Counts, LogError> {
        let mut counts = Counts::default();
        if self.config.webhooks.is_empty() {
            return Ok(counts);
        }
        for tenant in self.log.tenants().await? {
            let of = self.log.count_deliveries(&tenant).await?;
            counts.waiting += of.waiting;
            counts.dead += of.dead;
        }
        Ok(counts)
    }

    /// Ends the connections, after everything else.
    pub async fn close(&self) {
        self.shutdown.cancel();
        self.redis.close().await;
        if self.config.mesh.redis_url.is_some() {
            self.mesh_redis.close().await;
        }
    }
}
