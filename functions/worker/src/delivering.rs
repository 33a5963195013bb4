//! Deliveries that are due are posted to their endpoints, a few at a time to each, so that a slow one delays no other.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use tailspan_core::id::TenantId;
use tailspan_service::{
    App,
    log::{LogError, now_unix_ms},
    outward::Outward,
    webhooks::{Claimed, Endpoint, Outcome},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::task::TaskTracker;
use tracing::{debug, info, warn};

/// Of an answer that is no yes, what is kept for a look, in bytes.
const EXCERPT_BYTES: usize = 256;
/// What endpoints are gone is looked for so often.
const ORPHANS_EVERY: Duration = Duration::from_secs(60);
/// The receiver wants nothing more of this (Standard Webhooks, "Delivery": 410 ends it).
const GONE: u16 = 410;

/// The deliveries of one worker.
pub(crate) struct Delivering {
    app: App,
    tasks: TaskTracker,
    outward: Arc<Outward>,
    places: Mutex<HashMap<String, Arc<Semaphore>>>,
    orphans: Mutex<Option<Instant>>,
}

impl Delivering {
    pub(crate) fn new(app: &App, tasks: TaskTracker) -> Self {
        Self {
            app: app.clone(),
            tasks,
            outward: Arc::default(),
            places: Mutex::default(),
            orphans: Mutex::default(),
        }
    }

    /// Begins what is due, of all tenants, as far as there is room. Returns how much that was.
    pub(crate) async fn begin_due(&self) -> Result<usize, LogError> {
        let webhooks = &self.app.config.webhooks;
        if webhooks.is_empty() {
            return Ok(0);
        }
        let looks_for_orphans = {
            let mut looked = self.orphans.lock().unwrap_or_else(PoisonError::into_inner);
            let is_time = looked.is_none_or(|at| at.elapsed() >= ORPHANS_EVERY);
            if is_time {
                *looked = Some(Instant::now());
            }
            is_time
        };
        let mut begun = 0;
        for tenant in self.app.log.tenants().await? {
            if looks_for_orphans {
                let buried = self.app.log.bury_orphans(&tenant, webhooks).await?;
                if buried > 0 {
                    warn!(%tenant, buried, "notifications are dead letters: their endpoints are configured no more");
                }
            }
            begun += self.begin_due_of(&tenant).await?;
        }
        Ok(begun)
    }

    async fn begin_due_of(&self, tenant: &TenantId) -> Result<usize, LogError> {
        // Places are taken before deliveries are: what is claimed is tried at once.
        let mut ready: Vec<(&Arc<Endpoint>, Vec<OwnedSemaphorePermit>)> = Vec::new();
        for endpoint in self.app.config.webhooks.of(tenant) {
            let places = self.places_of(endpoint);
            let free = std::iter::from_fn(|| Arc::clone(&places).try_acquire_owned().ok());
            let free: Vec<_> = free.collect();
            if !free.is_empty() {
                ready.push((endpoint, free));
            }
        }
        if ready.is_empty() {
            return Ok(0);
        }
        let asked: Vec<_> = ready
            .iter()
            .map(|(endpoint, free)| (endpoint.as_ref(), free.len()))
            .collect();
        let claimed = self.app.log.claim_deliveries(tenant, &asked).await?;
        let begun = claimed.len();
        for claimed in claimed {
            let Some((endpoint, free)) = ready.get_mut(claimed.endpoint) else {
                continue;
            };
            let place = free.pop();
            let attempt = Attempt {
                app: self.app.clone(),
                outward: Arc::clone(&self.outward),
                tenant: tenant.clone(),
                endpoint: Arc::clone(endpoint),
                claimed,
            };
            self.tasks.spawn(async move {
                attempt.make().await;
                drop(place);
            });
        }
        Ok(begun)
    }

    fn places_of(&self, endpoint: &Endpoint) -> Arc<Semaphore> {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        let known = places.entry(endpoint.name.clone());
        Arc::clone(known.or_insert_with(|| Arc::new(Semaphore::new(endpoint.at_once))))
    }

    /// Whether something is under way.
    pub(crate) fn is_busy(&self) -> bool {
        !self.tasks.is_empty()
    }

    /// Waits for what is under way.
    pub(crate) async fn end(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }
}

/// One try of one delivery.
struct Attempt {
    app: App,
    outward: Arc<Outward>,
    tenant: TenantId,
    endpoint: Arc<Endpoint>,
    claimed: Claimed,
}

impl Attempt {
    async fn make(&self) {
        let (endpoint, claimed) = (&self.endpoint, &self.claimed);
        let headers = endpoint.signed(&claimed.id, now_unix_ms() / 1000, &claimed.body);
        let body: Bytes = claimed.body.clone();
        let posting = self.outward.post(
            &endpoint.url,
            headers,
            body,
            endpoint.timeout,
            EXCERPT_BYTES,
        );
        let posted = tokio::select! {
            posted = posting => posted,
            // It comes due again, wherever a worker is awake then.
            () = self.app.shutdown.cancelled() => return,
        };
        let (status, retry_after_ms, error) = match posted {
            Ok(answer) if answer.is_success() => (answer.status, None, None),
            Ok(answer) => (
                answer.status,
                answer.retry_after_ms,
                Some(excerpt(&answer.body)),
            ),
            Err(error) => (0, None, Some(error)),
        };
        let metrics = &self.app.metrics;
        let (name, trace, attempt) = (&endpoint.name, &claimed.trace, claimed.attempt);
        let outcome = match &error {
            None => {
                metrics.webhooks_delivered.inc();
                info!(endpoint = name, trace, attempt, status, "{}", claimed.kind);
                Outcome::Delivered
            }
            Some(error) => {
                metrics.webhooks_failed.inc();
                let error = endpoint.without_secrets(error);
                let pause = endpoint
                    .patience
                    .pause_ms(attempt, rand::random(), retry_after_ms)
                    .filter(|_| status != GONE);
                match pause {
                    Some(pause_ms) => {
                        warn!(
                            endpoint = name,
                            trace, attempt, status, pause_ms, error, "a notification was not taken"
                        );
                        Outcome::Again {
                            at_unix_ms: now_unix_ms().saturating_add(pause_ms),
                        }
                    }
                    None => {
                        tracing::error!(
                            endpoint = name,
                            trace,
                            attempt,
                            status,
                            error,
                            "gave a notification up: it is a dead letter"
                        );
                        Outcome::Dead
                    }
                }
            }
        };
        let error = endpoint.without_secrets(&error.unwrap_or_default());
        let of = (claimed.id.as_str(), attempt);
        let ended = self
            .app
            .log
            .end_delivery(&self.tenant, name, of, &outcome, (status, &error));
        if let Err(error) = ended.await {
            debug!(endpoint = name, trace, %error, "failed to write down what became of a notification; it is sent again");
        }
    }
}

/// The beginning of an answer in one line, without what a terminal would act on.
fn excerpt(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let text = text.trim();
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}
