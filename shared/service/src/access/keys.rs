//! API keys: `ts_<id>_<secret>`, made here, kept in Redis without their secret.
//!
//! Under the id lies the SHA-256 of the secret, which is 256 random bits: what is stored opens nothing, and needs no slow hash. A key is looked up by one command,
//! whosever it is, and remembered for [`REMEMBERED`]: that is how long a revoked one is still good in another process.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use serde::Serialize;
use subtle::ConstantTimeEq as _;
use tailspan_core::{
    event::rfc3339_ms,
    id::{TenantId, hex},
};

use super::{Access, Principal, Reach, Scopes, sha256};
use crate::{
    error::ApiError,
    log::{LogError, now_unix_ms},
    redis::{Arg, Reply, Script},
};

static SET_IF_THERE: Script = Script::new(include_str!("../lua/set_if_there.lua"));

/// How old what a process knows of a key may be.
pub const REMEMBERED: Duration = Duration::from_secs(5);
/// Keys that a process knows something of.
const MOST_REMEMBERED: usize = 4096;
/// Keys of a tenant.
const MOST_KEYS: u64 = 1000;
/// Between two writes of when a key was used.
const USED_EVERY_MS: u64 = 60_000;
/// An expired key is listed for so long.
const SHOWN_AFTER_EXPIRY_MS: u64 = 7 * 24 * 3_600_000;
/// Characters of a key's name.
pub const LONGEST_NAME: usize = 100;

/// An API key as it is listed: all but its secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = ApiKey))]
pub struct KeyRow {
    pub id: String,
    /// Whose data it opens.
    pub tenant: String,
    pub name: String,
    /// `ingest`, `read`, `admin`.
    pub scopes: Vec<&'static str>,
    #[cfg_attr(feature = "openapi", schema(format = DateTime))]
    pub created_at: String,
    /// From then on it is refused; `null`: never.
    #[cfg_attr(feature = "openapi", schema(format = DateTime))]
    pub expires_at: Option<String>,
    /// To a minute; `null`: not yet.
    #[cfg_attr(feature = "openapi", schema(format = DateTime))]
    pub last_used_at: Option<String>,
    /// Its former secret is good until then.
    #[cfg_attr(feature = "openapi", schema(format = DateTime))]
    pub former_secret_until: Option<String>,
}

/// What a new key shall be.
pub struct NewKey {
    pub tenant: TenantId,
    pub name: String,
    pub scopes: Scopes,
    pub lifetime: Option<Duration>,
}

/// A key as it is stored.
pub(super) struct Stored {
    tenant: TenantId,
    name: String,
    scopes: Scopes,
    created_unix_ms: u64,
    expires_unix_ms: Option<u64>,
    hash: String,
    /// The secret before the last rotation, and until when it is good.
    former: Option<(String, u64)>,
    used_unix_ms: AtomicU64,
}

impl Stored {
    fn of(fields: &[Reply]) -> Option<Self> {
        let pairs = fields.chunks_exact(2);
        let fields: HashMap<String, String> = pairs
            .filter_map(|pair| Some((pair.first()?.text()?, pair.get(1)?.text()?)))
            .collect();
        let number = |name: &str| fields.get(name)?.parse().ok();
        let scopes = fields.get("scopes")?.split(' ').filter_map(Scopes::named);
        Some(Self {
            tenant: TenantId::parse(fields.get("tenant")?).ok()?,
            name: fields.get("name").cloned().unwrap_or_default(),
            scopes: scopes.fold(Scopes::NONE, Scopes::with),
            created_unix_ms: number("created").unwrap_or_default(),
            expires_unix_ms: number("expires"),
            hash: fields.get("hash")?.clone(),
            former: fields.get("former").cloned().zip(number("former_until")),
            used_unix_ms: AtomicU64::new(number("used").unwrap_or_default()),
        })
    }

    fn is_expired(&self, now: u64) -> bool {
        self.expires_unix_ms.is_some_and(|at| at <= now)
    }

    /// Whether the secret with this hash opens it, in a time that does not depend on how much of it is right.
    fn opens(&self, hash: &str, now: u64) -> bool {
        let is = |known: &str| bool::from(known.as_bytes().ct_eq(hash.as_bytes()));
        let former = self.former.as_ref();
        let is_former = former.is_some_and(|(known, until)| *until > now && is(known));
        (is(&self.hash) | is_former) && !self.is_expired(now)
    }

    fn row(&self, id: &str) -> KeyRow {
        let now = now_unix_ms();
        let used = self.used_unix_ms.load(Ordering::Relaxed);
        let former = self.former.as_ref().map(|(_, until)| *until);
        KeyRow {
            id: id.to_owned(),
            tenant: self.tenant.to_string(),
            name: self.name.clone(),
            scopes: self.scopes.names().collect(),
            created_at: rfc3339_ms(self.created_unix_ms),
            expires_at: self.expires_unix_ms.map(rfc3339_ms),
            last_used_at: (used > 0).then(|| rfc3339_ms(used)),
            former_secret_until: former.filter(|until| *until > now).map(rfc3339_ms),
        }
    }
}

/// What a process knows of keys, for [`REMEMBERED`].
pub(super) struct Remembered<T>(Mutex<HashMap<String, (T, Instant)>>);

impl<T> Default for Remembered<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T: Clone> Remembered<T> {
    pub(super) fn get(&self, id: &str) -> Option<T> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (value, at) = known.get(id)?;
        (at.elapsed() < REMEMBERED).then(|| value.clone())
    }

    pub(super) fn keep(&self, id: &str, value: T) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MOST_REMEMBERED {
            known.retain(|_, (_, at)| at.elapsed() < REMEMBERED);
        }
        if known.len() >= MOST_REMEMBERED {
            known.clear();
        }
        known.insert(id.to_owned(), (value, Instant::now()));
    }

    pub(super) fn forget(&self, id: &str) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.remove(id);
    }
}

pub(super) type KnownKeys = Remembered<Arc<Stored>>;

/// 16 hex digits, as every id here.
pub(super) fn is_id(text: &str) -> bool {
    let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    text.len() == 16 && text.bytes().all(is_digit)
}

/// Id and secret of what has the form of a key.
pub(super) fn parts(given: &str) -> Option<(&str, &str)> {
    let (id, secret) = given.strip_prefix("ts_")?.split_once('_')?;
    is_id(id).then_some((id, secret))
}

pub(super) fn fresh_id() -> String {
    hex(&rand::random::<[u8; 8]>())
}

/// 256 bits of the generator that is meant for secrets.
pub(super) fn fresh_secret() -> String {
    hex(&rand::random::<[u8; 32]>())
}

impl Access {
    /// Whose an API key is. `None`: it is none that is good now.
    pub(super) async fn of_api_key(&self, given: &str) -> Result<Option<Principal>, LogError> {
        let Some((id, secret)) = parts(given) else {
            return Ok(None);
        };
        let Some(key) = self.key_opened_by(id, &hex(&sha256(secret))).await? else {
            return Ok(None);
        };
        let now = now_unix_ms();
        self.note_use(id, &key, now).await;
        Ok(Some(Principal {
            tenant: key.tenant.clone(),
            scopes: key.scopes,
            reach: Reach::Whole,
            redacted: false,
            lent: false,
            revocable: true,
            until_unix_ms: key.expires_unix_ms,
        }))
    }

    /// The key of this id, if the secret with this hash opens it.
    pub(super) async fn key_opened_by(
        &self,
        id: &str,
        hash: &str,
    ) -> Result<Option<Arc<Stored>>, LogError> {
        // What is remembered may be from before a rotation: a secret that it does not know is looked up anew.
        let known = self.known_keys.get(id);
        if let Some(key) = known.filter(|key| key.opens(hash, now_unix_ms())) {
            return Ok(Some(key));
        }
        let Some(key) = self.stored_key(id).await? else {
            return Ok(None);
        };
        let key = Arc::new(key);
        self.known_keys.keep(id, Arc::clone(&key));
        Ok(key.opens(hash, now_unix_ms()).then_some(key))
    }

    /// Once a minute at most; that it could not be noted costs nobody anything.
    async fn note_use(&self, id: &str, key: &Stored, now: u64) {
        let used = key.used_unix_ms.load(Ordering::Relaxed);
        let is_due = now.saturating_sub(used) >= USED_EVERY_MS;
        let is_mine = is_due
            && key
                .used_unix_ms
                .compare_exchange(used, now, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok();
        if is_mine {
            let key = self.keys.api_key(id);
            let args = vec![Arg::from("used"), Arg::from(now)];
            if let Err(error) = self.redis.script(&SET_IF_THERE, &[&key], args).await {
                tracing::debug!(%error, "failed to note the use of a key");
            }
        }
    }

    async fn stored_key(&self, id: &str) -> Result<Option<Stored>, LogError> {
        let key = self.keys.api_key(id);
        let fields = self.redis.command("HGETALL", &key, vec![Arg::from(&key)]);
        Ok(Stored::of(&fields.await?.list()))
    }

    /// A tenant's key; nobody else's.
    async fn key_of(&self, tenant: &TenantId, id: &str) -> Result<Stored, ApiError> {
        let absent = || ApiError::key_not_found(id);
        if !is_id(id) {
            return Err(absent());
        }
        let stored = self.stored_key(id).await?;
        stored
            .filter(|key| key.tenant == *tenant)
            .ok_or_else(absent)
    }

    /// Makes a key; the text is the only place where its secret ever stands.
    ///
    /// # Errors
    /// 409 when the tenant has as many as it may have, 503.
    pub async fn create_key(&self, new: NewKey) -> Result<(KeyRow, String), ApiError> {
        let (id, secret, now) = (fresh_id(), fresh_secret(), now_unix_ms());
        let index = self.keys.api_keys(&new.tenant);
        let count = [&index, "-inf", "+inf"].map(Arg::from).to_vec();
        let count = self.redis.command("ZCOUNT", &index, count).await;
        let count = count.map_err(LogError::from)?.number().unwrap_or_default();
        if count >= MOST_KEYS {
            return Err(ApiError::conflict(
                "too_many_keys",
                format!("the tenant has {MOST_KEYS} keys, which is as many as it may have"),
            ));
        }
        let lifetime_ms = new
            .lifetime
            .map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
        let key = Stored {
            expires_unix_ms: lifetime_ms.map(|ms| now.saturating_add(ms)),
            tenant: new.tenant,
            name: new.name,
            scopes: new.scopes,
            created_unix_ms: now,
            hash: hex(&sha256(&secret)),
            former: None,
            used_unix_ms: AtomicU64::new(0),
        };
        // First what lists it: a key that is in no list could not be revoked.
        let args = vec![Arg::from(&index), Arg::from(now), Arg::from(&id)];
        self.redis
            .command("ZADD", &index, args)
            .await
            .map_err(LogError::from)?;
        let name = self.keys.api_key(&id);
        let scopes: Vec<_> = key.scopes.names().collect();
        let mut args = vec![
            Arg::from(&name),
            Arg::from("tenant"),
            Arg::from(key.tenant.as_str()),
            Arg::from("name"),
            Arg::from(&key.name),
            Arg::from("scopes"),
            Arg::from(&scopes.join(" ")),
            Arg::from("created"),
            Arg::from(now),
            Arg::from("hash"),
            Arg::from(&key.hash),
        ];
        if let Some(at) = key.expires_unix_ms {
            args.extend([Arg::from("expires"), Arg::from(at)]);
        }
        self.redis
            .command("HSET", &name, args)
            .await
            .map_err(LogError::from)?;
        if let Some(ms) = lifetime_ms {
            let seconds = ms.saturating_add(SHOWN_AFTER_EXPIRY_MS) / 1000;
            let args = vec![Arg::from(&name), Arg::from(seconds)];
            self.redis
                .command("EXPIRE", &name, args)
                .await
                .map_err(LogError::from)?;
        }
        tracing::info!(key = id, tenant = %key.tenant, scopes = scopes.join(" "), "made an api key");
        Ok((key.row(&id), format!("ts_{id}_{secret}")))
    }

    /// A tenant's keys, the oldest first.
    ///
    /// # Errors
    /// 503.
    pub async fn list_keys(&self, tenant: &TenantId) -> Result<Vec<KeyRow>, LogError> {
        let index = self.keys.api_keys(tenant);
        let args = [&index, "0", "-1"].map(Arg::from).to_vec();
        let ids = self.redis.command("ZRANGE", &index, args).await?.list();
        let mut rows = Vec::with_capacity(ids.len());
        for id in ids.iter().filter_map(Reply::text) {
            match self.stored_key(&id).await? {
                Some(key) => rows.push(key.row(&id)),
                // Expired long ago.
                None => {
                    let args = vec![Arg::from(&index), Arg::from(&id)];
                    self.redis.command("ZREM", &index, args).await?;
                }
            }
        }
        Ok(rows)
    }

    /// Gives a tenant's key a new secret; the one it had stays good for the grace. Rotated twice within it, only the last two are good.
    ///
    /// # Errors
    /// 404 for what is no key of the tenant's, 503.
    pub async fn rotate_key(
        &self,
        tenant: &TenantId,
        id: &str,
        grace: Duration,
    ) -> Result<(KeyRow, String), ApiError> {
        let mut key = self.key_of(tenant, id).await?;
        let secret = fresh_secret();
        let grace_ms = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
        let until = now_unix_ms().saturating_add(grace_ms);
        let hash = hex(&sha256(&secret));
        let former = std::mem::replace(&mut key.hash, hash);
        let args = vec![
            Arg::from("hash"),
            Arg::from(&key.hash),
            Arg::from("former"),
            Arg::from(&former),
            Arg::from("former_until"),
            Arg::from(until),
        ];
        key.former = Some((former, until));
        let name = self.keys.api_key(id);
        let set = self.redis.script(&SET_IF_THERE, &[&name], args).await;
        self.known_keys.forget(id);
        match set.map_err(LogError::from)?.number() {
            Some(1) => Ok((key.row(id), format!("ts_{id}_{secret}"))),
            _ => Err(ApiError::key_not_found(id)),
        }
    }

    /// Ends a tenant's key: here at once, elsewhere within [`REMEMBERED`].
    ///
    /// # Errors
    /// 404 for what is no key of the tenant's, 503.
    pub async fn revoke_key(&self, tenant: &TenantId, id: &str) -> Result<(), ApiError> {
        self.key_of(tenant, id).await?;
        let name = self.keys.api_key(id);
        let gone = self.redis.command("DEL", &name, vec![Arg::from(&name)]);
        let gone = gone.await;
        self.known_keys.forget(id);
        gone.map_err(LogError::from)?;
        let index = self.keys.api_keys(tenant);
        let args = vec![Arg::from(&index), Arg::from(id)];
        self.redis
            .command("ZREM", &index, args)
            .await
            .map_err(LogError::from)?;
        tracing::info!(key = id, %tenant, "revoked an api key");
        Ok(())
    }
}
