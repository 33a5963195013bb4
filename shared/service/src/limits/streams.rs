//! Places for a tenant's open streams, over all instances: leases in a sorted set, renewed by who holds them. What a process leaves that dies is free a minute later ([`Config::stream_lease`](crate::config::Config::stream_lease)).

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tailspan_core::id::TenantId;
use tokio::time::sleep;
use tracing::{debug, warn};

use super::{Limits, seconds};
use crate::{
    error::ApiError,
    log::LogError,
    redis::{Arg, Reply, Script},
};

static TAKE: Script = Script::new(include_str!("../lua/stream_take.lua"));
static RENEW: Script = Script::new(include_str!("../lua/stream_renew.lua"));

/// How often a place is renewed within its lease.
const RENEWALS: u32 = 3;
/// Places renewed by one command.
const AT_ONCE: usize = 1000;
/// Another's stream may end at any time: who found no place asks again after so long, or when the first lease ends if that is sooner.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// The places that this process holds.
#[derive(Default)]
pub(super) struct Held(Mutex<Leases>);

#[derive(Default)]
struct Leases {
    of: HashMap<TenantId, BTreeSet<String>>,
    /// Somebody renews them.
    is_renewed: bool,
}

impl Held {
    fn lock(&self) -> MutexGuard<'_, Leases> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place for an open stream, given back when it is dropped.
pub struct StreamPlace {
    /// `None`: the tenant may have as many as it likes.
    held: Option<(Limits, TenantId, String)>,
}

impl Limits {
    /// Takes a place for a stream of a tenant's.
    ///
    /// # Errors
    /// 429 when all are taken; 503.
    pub async fn open_stream(&self, tenant: &TenantId) -> Result<StreamPlace, ApiError> {
        let Some(most) = self.of(tenant).streams else {
            return Ok(StreamPlace { held: None });
        };
        let id = format!("{:016x}", rand::random::<u64>());
        // From here on it is given back whatever happens, also when nobody waits for the answer any more.
        let place = StreamPlace {
            held: Some((self.clone(), tenant.clone(), id.clone())),
        };
        self.hold(tenant, &id);
        let key = self.0.keys.streams(tenant);
        let args = vec![Arg::from(&id), Arg::from(most), Arg::from(self.lease_ms())];
        let asked = self.0.redis.script(&TAKE, &[&key], args).await;
        let wait_ms = asked.map_err(LogError::from)?.number().unwrap_or_default();
        if wait_ms == 0 {
            return Ok(place);
        }
        self.let_go(tenant, &id);
        let wait = Duration::from_millis(wait_ms).min(LONGEST_WAIT);
        Err(ApiError::over_limit(
            "too_many_streams",
            format!(
                "{most} streams are open, which is as many as this tenant may have: close one, or try again"
            ),
            seconds(wait),
        ))
    }

    /// Streams of a tenant that are open now, over all instances.
    ///
    /// # Errors
    /// [`LogError`].
    pub async fn open_streams(&self, tenant: &TenantId) -> Result<u64, LogError> {
        let key = self.0.keys.streams(tenant);
        let now = self.0.redis.now_unix_ms().await?;
        let args = vec![Arg::from(&key), Arg::from(now), Arg::from("+inf")];
        let counted = self.0.redis.command("ZCOUNT", &key, args).await?;
        Ok(counted.number().unwrap_or_default())
    }

    fn lease_ms(&self) -> u64 {
        u64::try_from(self.0.stream_lease.as_millis()).unwrap_or(u64::MAX)
    }

    fn hold(&self, tenant: &TenantId, id: &str) {
        let mut leases = self.0.streams.lock();
        leases
            .of
            .entry(tenant.clone())
            .or_default()
            .insert(id.to_owned());
        if !std::mem::replace(&mut leases.is_renewed, true) {
            let limits = self.clone();
            tokio::spawn(async move { limits.renew().await });
        }
    }

    /// `false`: it was not held any more.
    fn let_go(&self, tenant: &TenantId, id: &str) -> bool {
        let mut leases = self.0.streams.lock();
        let Some(held) = leases.of.get_mut(tenant) else {
            return false;
        };
        let was_held = held.remove(id);
        if held.is_empty() {
            leases.of.remove(tenant);
        }
        was_held
    }

    /// Renews what is held until nothing is.
    async fn renew(self) {
        loop {
            sleep(self.0.stream_lease / RENEWALS).await;
            let held: Vec<(TenantId, Vec<String>)> = {
                let mut leases = self.0.streams.lock();
                leases.is_renewed = !leases.of.is_empty();
                if !leases.is_renewed {
                    return;
                }
                let all = leases.of.iter();
                all.map(|(tenant, ids)| (tenant.clone(), ids.iter().cloned().collect()))
                    .collect()
            };
            for (tenant, ids) in held {
                let key = self.0.keys.streams(&tenant);
                for ids in ids.chunks(AT_ONCE) {
                    let mut args = vec![Arg::from(self.lease_ms())];
                    args.extend(ids.iter().map(Arg::from));
                    if let Err(error) = self.0.redis.script(&RENEW, &[&key], args).await {
                        warn!(%tenant, %error, "failed to renew the places of open streams");
                    }
                }
            }
        }
    }

    async fn free(self, tenant: TenantId, id: String) {
        let key = self.0.keys.streams(&tenant);
        let args = vec![Arg::from(&key), Arg::from(&id)];
        let freed: Result<Reply, _> = self.0.redis.command("ZREM", &key, args).await;
        if let Err(error) = freed {
            debug!(%tenant, %error, "failed to give the place of a stream back; it ends by itself");
        }
    }
}

impl Drop for StreamPlace {
    fn drop(&mut self) {
        let Some((limits, tenant, id)) = self.held.take() else {
            return;
        };
        if limits.let_go(&tenant, &id)
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            runtime.spawn(limits.free(tenant, id));
        }
    }
}
