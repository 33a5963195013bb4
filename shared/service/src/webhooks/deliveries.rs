//! Deliveries in Redis: each lies there, with the bytes that are sent, from before it is first tried until it was taken or given up.
//!
//! Nobody keeps timers: when a delivery is tried next lies in a sorted set of its endpoint; a worker claims what is due and pushes it ahead, so one that is killed in between leaves a claim that
//! runs out. The body is made once and kept, so every attempt sends the same bytes under the same id, whoever makes it.

use tailspan_core::{
    id::{TenantId, TraceId},
    notify::Kind,
};
use tracing::error;

use super::{Endpoint, Webhooks};
use crate::{
    keys::DeliveryKeys,
    log::{Log, LogError, now_unix_ms},
    redis::{Arg, Reply, Script},
};

static ADD: Script = Script::new(concat!(
    include_str!("../lua/hook.lua"),
    include_str!("../lua/hook_add.lua")
));
static CLAIM: Script = Script::new(include_str!("../lua/hook_claim.lua"));
static END: Script = Script::new(concat!(
    include_str!("../lua/hook.lua"),
    include_str!("../lua/hook_end.lua")
));
static REPLAY: Script = Script::new(include_str!("../lua/hook_replay.lua"));
static LIST: Script = Script::new(include_str!("../lua/hook_list.lua"));

/// Of a tenant: deliveries that wait, dead letters and delivered ones that are kept.
const MOST_WAITING: u64 = 10_000;
const DEAD_KEPT: u64 = 1_000;
const DELIVERED_KEPT: u64 = 1_000;
/// How long a delivery is kept at all; longer than any endpoint's patience.
const TTL_SECONDS: u64 = 30 * 24 * 3600;
/// A claim holds for an attempt's time and this.
const CLAIM_BEYOND_MS: u64 = 5_000;
/// Deliveries that are looked through in one go for endpoints that are gone.
const LOOKED_THROUGH: u64 = 100;

/// Where a delivery stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    Waiting,
    /// Given up.
    Dead,
    Delivered,
}

impl Standing {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Dead => "dead",
            Self::Delivered => "delivered",
        }
    }

    /// The one that [`Standing::as_str`] names.
    pub fn named(name: &str) -> Option<Self> {
        let all = [Self::Waiting, Self::Dead, Self::Delivered];
        all.into_iter().find(|standing| standing.as_str() == name)
    }
}

/// A delivery, as it is listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    pub id: String,
    pub endpoint: String,
    pub kind: String,
    pub trace: String,
    pub standing: String,
    pub created_unix_ms: u64,
    pub attempts: u64,
    /// 0: it was not tried yet.
    pub tried_unix_ms: u64,
    /// What was answered last; 0: nothing.
    pub status: u64,
    pub error: String,
    /// While it waits.
    pub next_unix_ms: Option<u64>,
}

/// A delivery in hand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claimed {
    /// The place of its endpoint among those that were asked for.
    pub endpoint: usize,
    pub id: String,
    /// Which attempt this is, from 1.
    pub attempt: u32,
    pub kind: String,
    pub trace: String,
    pub body: bytes::Bytes,
}

/// What became of an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Delivered,
    /// To be tried again.
    Again {
        at_unix_ms: u64,
    },
    Dead,
}

/// What became of a notification that was written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Added {
    /// It was there already.
    Known,
    Waits,
    /// Too many wait: it is a dead letter.
    Full,
}

/// Deliveries of a tenant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub waiting: u64,
    pub dead: u64,
}

impl Log {
    /// Writes a notification down for an endpoint: it is tried from now on. What is known already stays as it is.
    ///
    /// # Errors
    /// [`LogError`]; repeating it is harmless.
    pub async fn add_delivery(
        &self,
        tenant: &TenantId,
        endpoint: &str,
        kind: Kind,
        trace: &TraceId,
        id: &str,
        body: String,
    ) -> Result<Added, LogError> {
        let keys = self.keys.deliveries(tenant);
        let (of, due) = (keys.delivery(id), keys.due(endpoint));
        let mut args = vec![
            Arg::from(id),
            Arg::from(now_unix_ms()),
            Arg::from(TTL_SECONDS),
            Arg::from(MOST_WAITING),
            Arg::from(DEAD_KEPT),
            Arg::from(&keys.of),
        ];
        let fields = [
            ("endpoint", endpoint),
            ("kind", kind.as_str()),
            ("trace", trace.as_str()),
        ];
        for (name, value) in fields {
            args.extend([Arg::from(name), Arg::from(value)]);
        }
        args.extend([Arg::from("body"), Arg::from(body)]);
        let slots = [of.as_str(), &due, &keys.waiting, &keys.dead];
        let reply = self.redis.script(&ADD, &slots, args).await?.list();
        let dropped = reply.get(1).and_then(Reply::number).unwrap_or_default();
        self.dropped(tenant, dropped);
        let word = reply.first().and_then(Reply::text);
        Ok(match word.as_deref() {
            Some("known") => Added::Known,
            Some("full") => {
                error!(%tenant, endpoint, %trace, "a notification is a dead letter: as many wait as may");
                self.metrics.webhooks_dead.inc();
                Added::Full
            }
            _ => Added::Waits,
        })
    }

    /// Takes deliveries of these endpoints that are due, of each at most as many as is said with it. Whoever takes them says what became of them
    /// ([`Log::end_delivery`]), or they come due again a little after the endpoint's time-out.
    ///
    /// # Errors
    /// [`LogError`].
    pub async fn claim_deliveries(
        &self,
        tenant: &TenantId,
        endpoints: &[(&Endpoint, usize)],
    ) -> Result<Vec<Claimed>, LogError> {
        let keys = self.keys.deliveries(tenant);
        let now = now_unix_ms();
        let mut slots = vec![keys.waiting.clone()];
        let mut args = vec![Arg::from(now), Arg::from(&keys.of)];
        for (endpoint, most) in endpoints {
            slots.push(keys.due(&endpoint.name));
            let timeout = u64::try_from(endpoint.timeout.as_millis()).unwrap_or(u64::MAX);
            let until = now.saturating_add(timeout).saturating_add(CLAIM_BEYOND_MS);
            args.extend([Arg::from(until), Arg::from(*most)]);
        }
        let slots: Vec<_> = slots.iter().map(String::as_str).collect();
        let found = self.redis.script(&CLAIM, &slots, args).await?.list();
        let claimed = found.into_iter().filter_map(|found| {
            let found = found.list();
            let text = |at: usize| found.get(at).and_then(Reply::text);
            let place = found.first().and_then(Reply::number)?;
            Some(Claimed {
                endpoint: usize::try_from(place).ok()?.checked_sub(1)?,
                id: text(1)?,
                attempt: u32::try_from(found.get(2)?.number()?).ok()?,
                kind: text(3)?,
                trace: text(4)?,
                body: found.get(5)?.bytes()?,
            })
        });
        Ok(claimed.collect())
    }

    /// Says what became of an attempt; `status` is what was answered (0: nothing), `error` why it was not taken.
    ///
    /// # Errors
    /// [`LogError`]; the delivery comes due again.
    pub async fn end_delivery(
        &self,
        tenant: &TenantId,
        endpoint: &str,
        (id, attempt): (&str, u32),
        outcome: &Outcome,
        (status, error): (u16, &str),
    ) -> Result<(), LogError> {
        let keys = self.keys.deliveries(tenant);
        let (state, next) = match outcome {
            Outcome::Delivered => (Standing::Delivered, 0),
            Outcome::Again { at_unix_ms } => (Standing::Waiting, *at_unix_ms),
            Outcome::Dead => (Standing::Dead, 0),
        };
        let args = vec![
            Arg::from(id),
            Arg::from(u64::from(attempt)),
            Arg::from(state.as_str()),
            Arg::from(now_unix_ms()),
            Arg::from(next),
            Arg::from(u64::from(status)),
            Arg::from(error),
            Arg::from(DEAD_KEPT),
            Arg::from(DELIVERED_KEPT),
            Arg::from(&keys.of),
        ];
        let (of, due) = (keys.delivery(id), keys.due(endpoint));
        let slots = [
            of.as_str(),
            &due,
            &keys.waiting,
            &keys.dead,
            &keys.delivered,
        ];
        let reply = self.redis.script(&END, &slots, args).await?.list();
        let number = |at: usize| reply.get(at).and_then(Reply::number).unwrap_or_default();
        self.dropped(tenant, number(1));
        if number(0) == 1 && *outcome == Outcome::Dead {
            self.metrics.webhooks_dead.inc();
        }
        Ok(())
    }

    /// Deliveries that wait for endpoints that are configured no more become dead letters: nobody tries them. Returns how many.
    ///
    /// # Errors
    /// [`LogError`].
    pub async fn bury_orphans(
        &self,
        tenant: &TenantId,
        webhooks: &Webhooks,
    ) -> Result<usize, LogError> {
        let keys = self.keys.deliveries(tenant);
        let waiting = self.list_of(&keys, &keys.waiting, LOOKED_THROUGH).await?;
        let mut buried = 0;
        for orphan in waiting {
            if webhooks.get(tenant, &orphan.endpoint).is_some() {
                continue;
            }
            let attempt = u32::try_from(orphan.attempts).unwrap_or(u32::MAX);
            let told = (0, "no endpoint of this name is configured");
            let of = (orphan.id.as_str(), attempt);
            self.end_delivery(tenant, &orphan.endpoint, of, &Outcome::Dead, told)
                .await?;
            buried += 1;
        }
        Ok(buried)
    }

    /// Deliveries that stand so, the newest first.
    ///
    /// # Errors
    /// [`LogError`].
    pub async fn deliveries(
        &self,
        tenant: &TenantId,
        standing: Standing,
        most: u64,
    ) -> Result<Vec<Delivery>, LogError> {
        let keys = self.keys.deliveries(tenant);
        let list = match standing {
            Standing::Waiting => &keys.waiting,
            Standing::Dead => &keys.dead,
            Standing::Delivered => &keys.delivered,
        };
        self.list_of(&keys, list, most).await
    }

    async fn list_of(
        &self,
        keys: &DeliveryKeys,
        list: &str,
        most: u64,
    ) -> Result<Vec<Delivery>, LogError> {
        let args = vec![
            Arg::from(most),
            Arg::from(&keys.of),
            Arg::from(&keys.due_of),
        ];
        let found = self.redis.script(&LIST, &[list], args).await?.list();
        let listed = found.into_iter().filter_map(|found| {
            let found = found.list();
            let text = |at: usize| found.get(at).and_then(Reply::text);
            let number = |at: usize| found.get(at).and_then(Reply::number);
            Some(Delivery {
                id: text(0)?,
                endpoint: text(1)?,
                kind: text(2)?,
                trace: text(3)?,
                standing: text(4)?,
                created_unix_ms: number(5)?,
                attempts: number(6)?,
                tried_unix_ms: number(7).unwrap_or_default(),
                status: number(8).unwrap_or_default(),
                error: text(9)?,
                next_unix_ms: number(10),
            })
        });
        Ok(listed.collect())
    }

    /// Makes a delivery wait again, with all its attempts before it; the id and the bytes stay. Whether there is one.
    ///
    /// # Errors
    /// [`LogError`].
    pub async fn replay_delivery(&self, tenant: &TenantId, id: &str) -> Result<bool, LogError> {
        let keys = self.keys.deliveries(tenant);
        let of = keys.delivery(id);
        let slots = [of.as_str(), &keys.waiting, &keys.dead, &keys.delivered];
        let args = vec![
            Arg::from(id),
            Arg::from(now_unix_ms()),
            Arg::from(TTL_SECONDS),
            Arg::from(&keys.due_of),
        ];
        Ok(self.redis.script(&REPLAY, &slots, args).await? == Reply::Int(1))
    }

    /// How many deliveries of a tenant wait, and how many dead letters there are.
    ///
    /// # Errors
    /// [`LogError`].
    pub async fn count_deliveries(&self, tenant: &TenantId) -> Result<Counts, LogError> {
        let keys = self.keys.deliveries(tenant);
        let count = async |list: &str| {
            let args = [list, "-inf", "+inf"].map(Arg::from).to_vec();
            let counted = self.redis.command("ZCOUNT", list, args).await?;
            Ok::<_, LogError>(counted.number().unwrap_or_default())
        };
        Ok(Counts {
            waiting: count(&keys.waiting).await?,
            dead: count(&keys.dead).await?,
        })
    }

    fn dropped(&self, tenant: &TenantId, count: u64) {
        if count > 0 {
            error!(%tenant, count, "dropped the oldest dead letters: as many are kept as may be");
            self.metrics.webhooks_dropped.inc_by(count);
        }
    }
}
