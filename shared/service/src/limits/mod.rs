//! What a tenant may send, watch and hold ([`tailspan_core::quota`] is how it is said), over all instances.
//!
//! The truth is in Redis, in the tenant's slot; what a process was told there it remembers, so that refusing costs Redis nothing. What the store cannot be asked is not refused: the append that
//! follows needs the same store, and says so.
//!
//! | key | what |
//! | --- | --- |
//! | `{tenant}:rate` | the bucket of events ([`rate`]) |
//! | `{tenant}:streams` | open streams, by when they are given up unless they are renewed ([`streams`]) |

mod rate;
pub mod streams;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tailspan_core::{
    id::TenantId,
    quota::{Bucket, Quota, Quotas},
};
use tokio::time::{Instant, sleep, timeout};
use tracing::warn;

use self::rate::{Known, Look};
use crate::{
    config::Config,
    error::ApiError,
    keys::Keys,
    log::LogError,
    redis::{Arg, Redis, Reply, Script},
    requests,
};

static RATE: Script = Script::new(include_str!("../lua/rate.lua"));

/// Longer than this no request waits for the store's word on its tenant's bucket.
const ASKING_TIME: Duration = Duration::from_millis(500);
/// Tenants of which something is remembered; beyond, what is known of idle ones is forgotten.
const MOST_REMEMBERED: usize = 10_000;

/// Handle on the limits of all tenants; cheap to clone.
#[derive(Clone)]
pub struct Limits(Arc<Inner>);

struct Inner {
    quotas: Arc<Quotas>,
    stream_lease: Duration,
    redis: Redis,
    keys: Arc<Keys>,
    buckets: Mutex<HashMap<TenantId, Arc<Known>>>,
    streams: streams::Held,
}

/// How a bucket stands, as far as it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Events that may be sent now.
    pub left: u64,
    /// Until there is one again; zero when there is.
    pub wait: Duration,
}

impl Limits {
    pub(crate) fn new(config: &Config, redis: Redis, keys: Arc<Keys>) -> Self {
        Self(Arc::new(Inner {
            quotas: Arc::clone(&config.quotas),
            stream_lease: config.stream_lease,
            redis,
            keys,
            buckets: Mutex::default(),
            streams: streams::Held::default(),
        }))
    }

    /// What holds for a tenant.
    pub fn of(&self, tenant: &TenantId) -> &Quota {
        self.0.quotas.of(tenant)
    }

    /// Whether a tenant may send at all now, as far as this process knows: before anything of a request is read.
    ///
    /// # Errors
    /// 429.
    pub fn admit(&self, tenant: &TenantId) -> Result<(), ApiError> {
        let Some(bucket) = self.of(tenant).rate else {
            return Ok(());
        };
        match self.known(tenant).empty_for(Instant::now()) {
            Some(wait) => Err(refused(&bucket, wait)),
            None => Ok(()),
        }
    }

    /// Takes the events of a request. One that finds any in the bucket takes all of its own, and those that come after it wait until that is paid.
    ///
    /// # Errors
    /// 429.
    pub async fn take(&self, tenant: &TenantId, events: u64) -> Result<(), ApiError> {
        let Some(bucket) = self.of(tenant).rate else {
            return Ok(());
        };
        match self.try_take(tenant, &bucket, events).await? {
            Ok(standing) => {
                if let Some(standing) = standing {
                    told(&bucket, standing);
                }
                Ok(())
            }
            Err(wait) => Err(refused(&bucket, wait)),
        }
    }

    /// As [`Limits::take`], and waits so long for the bucket, for whom nobody sends anything again.
    ///
    /// # Errors
    /// 429.
    pub async fn take_within(
        &self,
        tenant: &TenantId,
        events: u64,
        patience: Duration,
    ) -> Result<(), ApiError> {
        let Some(bucket) = self.of(tenant).rate else {
            return Ok(());
        };
        let until = Instant::now() + patience;
        loop {
            match self.try_take(tenant, &bucket, events).await? {
                Ok(_) => return Ok(()),
                Err(wait) if Instant::now() + wait > until => return Err(refused(&bucket, wait)),
                Err(wait) => sleep(wait).await,
            }
        }
    }

    /// Waits until a tenant may send, as far as this process knows: for who takes in what cannot be refused, before more of it is taken.
    pub async fn paid(&self, tenant: &TenantId) {
        while let Some(wait) = self
            .known_of(tenant)
            .and_then(|known| known.empty_for(Instant::now()))
        {
            sleep(wait).await;
        }
    }

    /// Counts what came in without having been asked for: what is beyond the bucket is owed by those who come after it.
    pub async fn owe(&self, tenant: &TenantId, events: u64) {
        let Some(bucket) = self.of(tenant).rate.filter(|_| events > 0) else {
            return;
        };
        let known = self.known(tenant);
        let owing = async {
            let mut held = known.held.lock().await;
            self.ask(tenant, &bucket, &known, &mut held, events, true)
                .await
        };
        match timeout(ASKING_TIME, owing).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => {
                warn!(%tenant, %error, events, "failed to count events against a limit")
            }
            Err(_) => warn!(%tenant, events, "failed to count events against a limit in time"),
        }
    }

    /// How a tenant's bucket stands in the store, for who wants to know. `None`: it has no such limit.
    ///
    /// # Errors
    /// [`LogError`].
    pub async fn standing(&self, tenant: &TenantId) -> Result<Option<Standing>, LogError> {
        let Some(bucket) = self.of(tenant).rate else {
            return Ok(None);
        };
        let known = self.known(tenant);
        let mut held = known.held.lock().await;
        let asked = self.ask(tenant, &bucket, &known, &mut held, 0, true);
        asked.await.map(|asked| asked.ok())
    }

    /// The inner error is how long to wait. Nothing inside: it could not be found out, and so is not refused.
    async fn try_take(
        &self,
        tenant: &TenantId,
        bucket: &Bucket,
        events: u64,
    ) -> Result<Result<Option<Standing>, Duration>, ApiError> {
        // One that has no events, or none that is good, has cost something too.
        let events = events.max(1);
        let known = self.known(tenant);
        let asking = async {
            // One at a time asks for a tenant: what it is told answers those behind it.
            let mut held = known.held.lock().await;
            match known.look(&mut held, events, Instant::now()) {
                Look::Taken(standing) => return Ok(Ok(standing)),
                Look::Empty(wait) => return Ok(Err(wait)),
                Look::Ask => {}
            }
            self.ask(tenant, bucket, &known, &mut held, events, false)
                .await
        };
        match timeout(ASKING_TIME, asking).await {
            Ok(Ok(answer)) => Ok(answer.map(Some)),
            Ok(Err(LogError::Internal(cause))) => Err(LogError::Internal(cause).into()),
            Ok(Err(_)) | Err(_) => Ok(Ok(None)),
        }
    }

    async fn ask(
        &self,
        tenant: &TenantId,
        bucket: &Bucket,
        known: &Known,
        held: &mut rate::Held,
        events: u64,
        forced: bool,
    ) -> Result<Result<Standing, Duration>, LogError> {
        let key = self.0.keys.rate(tenant);
        let lease = if forced { 0 } else { bucket.lease() };
        let args = vec![
            Arg::from(bucket.us_per_event().to_string()),
            Arg::from(bucket.burst),
            Arg::from(events),
            Arg::from(held.give_back()),
            Arg::from(lease),
            Arg::from(if forced { "1" } else { "0" }),
        ];
        let reply = self.0.redis.script(&RATE, &[&key], args).await?.list();
        let number = |at: usize| reply.get(at).and_then(Reply::number).unwrap_or_default();
        let wait = Duration::from_micros(number(3));
        known.learn(held, number(1), number(2), wait, Instant::now());
        Ok(match number(0) {
            1 => Ok(Standing {
                left: number(1) + number(2),
                wait,
            }),
            _ => Err(wait),
        })
    }

    fn known_of(&self, tenant: &TenantId) -> Option<Arc<Known>> {
        let buckets = self.0.buckets.lock();
        let buckets = buckets.unwrap_or_else(PoisonError::into_inner);
        buckets.get(tenant).cloned()
    }

    fn known(&self, tenant: &TenantId) -> Arc<Known> {
        let buckets = self.0.buckets.lock();
        let mut buckets = buckets.unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = buckets.get(tenant) {
            return Arc::clone(known);
        }
        if buckets.len() >= MOST_REMEMBERED {
            let now = Instant::now();
            // Those in use are held by who uses them.
            buckets
                .retain(|_, known| Arc::strong_count(known) > 1 || known.empty_for(now).is_some());
        }
        let known = Arc::new(Known::new(Instant::now()));
        if buckets.len() < MOST_REMEMBERED {
            buckets.insert(tenant.clone(), Arc::clone(&known));
        }
        known
    }
}

/// The request that is answered says how its tenant's bucket stands.
fn told(bucket: &Bucket, standing: Standing) {
    let state = match standing.wait {
        Duration::ZERO => format!("\"events\";r={}", standing.left),
        wait => format!("\"events\";r={};t={}", standing.left, seconds(wait)),
    };
    requests::mark_quota(bucket.policy(), state);
}

fn refused(bucket: &Bucket, wait: Duration) -> ApiError {
    told(bucket, Standing { left: 0, wait });
    let seconds = seconds(wait);
    ApiError::over_limit(
        "rate_exceeded",
        format!(
            "more events came than this tenant may send ({} a second, {} at once): send this again after {seconds} s",
            bucket.events_per_second, bucket.burst
        ),
        seconds,
    )
}

/// Whole seconds after which a time is over; at least one.
fn seconds(wait: Duration) -> u32 {
    u32::try_from(wait.as_secs() + u64::from(wait.subsec_nanos() > 0))
        .unwrap_or(u32::MAX)
        .max(1)
}
