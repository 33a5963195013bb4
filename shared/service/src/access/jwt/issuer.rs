//! The keys of the issuer, as this process has them.
//!
//! They are fetched by one process and lie in Redis for all: `access:jwks:<source>`, beside `..:asked`, which is there for [`ASKED_EVERY`] after somebody asked the issuer. So however many
//! processes there are, and whatever strangers send, the issuer is asked once in that time at most; and a process that cannot reach it needs only one that can. Who writes in Redis could make API keys as well.
//!
//! | age of the keys | what happens |
//! | --- | --- |
//! | a minute | a process looks at what lies in Redis |
//! | [`YOUNG_MS`] | the sweep asks the issuer |
//! | [`OLD_MS`] | a request does, if nobody else is about to |
//! | [`TOO_OLD_MS`] | they are good no more: 503 |
//!
//! A token by a key that is not among them asks sooner: the issuer may have begun to use a new one.

use std::{
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::{Duration, Instant},
};

use reqwest::Client;
use serde::{Deserialize, Serialize};
use url::Url;

use super::{
    keyset::KeySet,
    settings::{JwtSettings, Source, keys_url},
};
use crate::{
    error::ApiError,
    log::now_unix_ms,
    outward::{self, Proxy},
    redis::{Arg, Redis},
    tls,
};

const LOOKED_EVERY: Duration = Duration::from_secs(60);
const YOUNG_MS: u64 = 5 * 60_000;
const OLD_MS: u64 = 15 * 60_000;
const TOO_OLD_MS: u64 = 24 * 3_600_000;
/// Between two questions to the issuer, of all processes.
const ASKED_EVERY: Duration = Duration::from_secs(30);
/// Between two looks of a process for a key that it does not know; a token by one that comes sooner is refused.
const UNKNOWN_EVERY: Duration = Duration::from_secs(2);
/// For the issuer's document and its keys together. Requests may wait for it.
const PATIENCE: Duration = Duration::from_secs(4);
/// Between two looks whether another process has them by now.
const BETWEEN_LOOKS: Duration = Duration::from_millis(200);
/// Bytes of a document.
const LARGEST: usize = 512 * 1024;

/// Keys, and when they were the issuer's.
#[derive(Clone, Debug)]
pub(super) struct Known {
    pub(super) set: Arc<KeySet>,
    at_unix_ms: u64,
}

impl Known {
    fn age_ms(&self) -> u64 {
        now_unix_ms().saturating_sub(self.at_unix_ms)
    }
}

/// As they lie in Redis.
#[derive(Serialize, Deserialize)]
struct Copy {
    at_unix_ms: u64,
    jwks: String,
}

/// Why keys are looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Need {
    /// It is time to see whether there are others.
    Usual,
    /// A token names one that is not among those of this time.
    Unknown { since_unix_ms: u64 },
    /// The sweep: so that nobody has to wait later.
    Early,
}

#[derive(Debug, Default)]
struct Held {
    known: Option<Known>,
    looked: Option<Instant>,
    looked_for_unknown: Option<Instant>,
}

/// Who signs tokens.
pub(in crate::access) struct Issuer {
    settings: JwtSettings,
    redis: Redis,
    /// Where the keys lie for all processes.
    key: String,
    held: Mutex<Held>,
    /// One look at a time.
    looking: tokio::sync::Mutex<()>,
    client: OnceLock<Result<Client, String>>,
}

impl Issuer {
    /// `key` makes the name of a key in Redis of what tells sources apart.
    pub(in crate::access) fn new(
        settings: JwtSettings,
        redis: Redis,
        key: impl Fn(&str) -> String,
    ) -> Self {
        let source = format!("{} {:?}", settings.issuer, settings.source);
        Self {
            key: key(&source),
            settings,
            redis,
            held: Mutex::default(),
            looking: tokio::sync::Mutex::default(),
            client: OnceLock::new(),
        }
    }

    pub(super) fn settings(&self) -> &JwtSettings {
        &self.settings
    }

    /// The keys that are good now.
    ///
    /// # Errors
    /// 503: there are none, or only such as are too old.
    pub(super) async fn keys(&self) -> Result<Known, ApiError> {
        let (known, is_due) = {
            let held = self.held();
            let is_due = held.looked.is_none_or(|at| at.elapsed() >= LOOKED_EVERY);
            (held.known.clone(), is_due)
        };
        let known = known.filter(|known| known.age_ms() < TOO_OLD_MS);
        match known {
            Some(known) if !is_due => Ok(known),
            // Somebody looks already, and what is known will do meanwhile.
            Some(known) if self.looking.try_lock().is_err() => Ok(known),
            Some(known) => match self.look(Need::Usual).await {
                Ok(newer) => Ok(newer),
                Err(_) => Ok(known),
            },
            None => self.look(Need::Usual).await,
        }
    }

    /// The keys after those among which one was missing. `None`: there are none, or it was looked for a moment ago.
    pub(super) async fn keys_after(&self, before: &Known) -> Option<Known> {
        let need = Need::Unknown {
            since_unix_ms: before.at_unix_ms,
        };
        self.look(need).await.ok()
    }

    /// Asks for the keys unless those that lie there are young.
    pub(super) async fn renew(&self) {
        // What fails was logged.
        let _ = self.look(Need::Early).await;
    }

    fn held(&self) -> std::sync::MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn look(&self, need: Need) -> Result<Known, ApiError> {
        let _looking = self.looking.lock().await;
        {
            let mut held = self.held();
            let is_recent = |at: Option<Instant>, every| at.is_some_and(|at| at.elapsed() < every);
            let is_enough = match (need, &held.known) {
                // Who waited for another's look has what that found.
                (Need::Unknown { since_unix_ms }, Some(known)) => {
                    known.at_unix_ms > since_unix_ms
                        || is_recent(held.looked_for_unknown, UNKNOWN_EVERY)
                }
                (Need::Usual, Some(known)) => {
                    known.age_ms() < TOO_OLD_MS && is_recent(held.looked, LOOKED_EVERY)
                }
                (Need::Early, _) | (_, None) => false,
            };
            if let Some(known) = held.known.clone().filter(|_| is_enough) {
                return Ok(known);
            }
            if matches!(need, Need::Unknown { .. }) {
                held.looked_for_unknown = Some(Instant::now());
            }
        }
        let found = match &self.settings.source {
            Source::Given(keys) => read(keys.as_bytes()),
            Source::File(path) => std::fs::read(path)
                .map_err(|error| error.to_string())
                .and_then(|keys| read(&keys)),
            Source::Discovery(_) | Source::At(_) => self.shared(need).await,
        };
        let found = found.map_err(ApiError::issuer_unavailable);
        let mut held = self.held();
        held.looked = Some(Instant::now());
        let known = held.known.clone();
        let known = known.filter(|known| known.age_ms() < TOO_OLD_MS);
        // Keys that are known are better than none, for a while.
        let found = match (found, known) {
            (Ok(found), Some(known)) if known.at_unix_ms > found.at_unix_ms => known,
            (Ok(found), _) => found,
            (Err(_), Some(known)) => known,
            (Err(error), None) => return Err(error),
        };
        held.known = Some(found.clone());
        Ok(found)
    }

    /// The keys that lie in Redis, or that the issuer has, if it may be asked.
    async fn shared(&self, need: Need) -> Result<Known, String> {
        let lying = self.lying().await?;
        let is_enough = lying.as_ref().is_some_and(|known| match need {
            Need::Usual => known.age_ms() < OLD_MS,
            Need::Early => known.age_ms() < YOUNG_MS,
            Need::Unknown { since_unix_ms } => known.at_unix_ms > since_unix_ms,
        });
        match lying {
            Some(known) if is_enough => Ok(known),
            lying => {
                let asked_at = now_unix_ms();
                let found = match self.may_ask(asked_at).await? {
                    Ask::Now => self.fetched().await,
                    Ask::Since(at) if need != Need::Early => self.of_another(at).await,
                    Ask::Since(_) => Err("the issuer was asked a moment ago".to_owned()),
                };
                match (found, lying) {
                    (Ok(known), _) => Ok(known),
                    (Err(cause), Some(known)) => {
                        tracing::debug!(cause, "the keys of the issuer are as they were");
                        Ok(known)
                    }
                    (Err(cause), None) => Err(cause),
                }
            }
        }
    }

    async fn lying(&self) -> Result<Option<Known>, String> {
        let key = &self.key;
        let lying = self.redis.command("GET", key, vec![Arg::from(key)]).await;
        let lying = lying.map_err(|error| error.to_string())?.text();
        // What cannot be read is of another release.
        let copy = lying.and_then(|text| serde_json::from_str::<Copy>(&text).ok());
        Ok(copy.and_then(|copy| {
            let set = KeySet::parse(copy.jwks.as_bytes()).ok()?;
            Some(Known {
                set: Arc::new(set),
                // No clock is so far ahead that keys would never be old.
                at_unix_ms: copy.at_unix_ms.min(now_unix_ms()),
            })
        }))
    }

    /// Whether nobody asked the issuer for a while.
    async fn may_ask(&self, now: u64) -> Result<Ask, String> {
        let key = format!("{}:asked", self.key);
        let every = ASKED_EVERY.as_secs();
        let args = vec![
            Arg::from(&key),
            Arg::from(now),
            Arg::from("EX"),
            Arg::from(every),
            Arg::from("NX"),
        ];
        let set = self.redis.command("SET", &key, args).await;
        if set.map_err(|error| error.to_string())?.text().is_some() {
            return Ok(Ask::Now);
        }
        let at = self.redis.command("GET", &key, vec![Arg::from(&key)]).await;
        let at = at.map_err(|error| error.to_string())?.number();
        Ok(Ask::Since(at.unwrap_or_default()))
    }

    /// Waits for the answer that another process waits for.
    async fn of_another(&self, asked_at: u64) -> Result<Known, String> {
        let patience_ms = u64::try_from(PATIENCE.as_millis()).unwrap_or(u64::MAX);
        while now_unix_ms().saturating_sub(asked_at) < patience_ms {
            tokio::time::sleep(BETWEEN_LOOKS).await;
            if let Some(known) = self.lying().await?
                && known.at_unix_ms >= asked_at
            {
                return Ok(known);
            }
        }
        Err("the issuer was asked a moment ago".to_owned())
    }

    /// Asks the issuer, and puts its keys where all find them.
    async fn fetched(&self) -> Result<Known, String> {
        let fetched = tokio::time::timeout(PATIENCE, self.fetch()).await;
        let fetched = fetched.unwrap_or_else(|_| Err("no answer in time".to_owned()));
        let jwks = fetched.inspect_err(|cause| {
            tracing::warn!(cause, "failed to ask the issuer of tokens for its keys");
        })?;
        let known = read(jwks.as_bytes())?;
        let copy = Copy {
            at_unix_ms: known.at_unix_ms,
            jwks,
        };
        let copy = serde_json::to_string(&copy).map_err(|error| error.to_string())?;
        let args = vec![
            Arg::from(&self.key),
            Arg::from(&copy),
            Arg::from("PX"),
            Arg::from(TOO_OLD_MS),
        ];
        if let Err(error) = self.redis.command("SET", &self.key, args).await {
            tracing::debug!(%error, "failed to keep the keys of the issuer");
        }
        tracing::info!(keys = ?known.set, "asked the issuer of tokens for its keys");
        Ok(known)
    }

    async fn fetch(&self) -> Result<String, String> {
        #[derive(Deserialize)]
        struct Document {
            issuer: String,
            jwks_uri: String,
        }
        let at = match &self.settings.source {
            Source::Discovery(at) => {
                let document = self.get(at).await?;
                let document: Document = serde_json::from_str(&document)
                    .map_err(|_| format!("{at} is no document of an issuer"))?;
                if document.issuer != self.settings.issuer {
                    return Err(format!("{at} is the document of another issuer"));
                }
                let keys = keys_url(&document.jwks_uri);
                let keys = keys.map_err(|mistake| format!("jwks_uri of {at} {mistake}"))?;
                if at.scheme() == "https" && keys.scheme() != "https" {
                    return Err(format!("jwks_uri of {at} must be https"));
                }
                keys
            }
            Source::At(at) => at.clone(),
            Source::File(_) | Source::Given(_) => return Err("nobody is to be asked".to_owned()),
        };
        self.get(&at).await
    }

    async fn get(&self, url: &Url) -> Result<String, String> {
        let client = self.client.get_or_init(client).as_ref();
        let request = client.map_err(Clone::clone)?.get(url.clone());
        let unreachable = |error: reqwest::Error| {
            let mut cause = error.without_url().to_string();
            cause.insert_str(0, &format!("{url}: "));
            cause
        };
        let mut answer = request.send().await.map_err(unreachable)?;
        if answer.status() != reqwest::StatusCode::OK {
            return Err(format!("{url} answers {}", answer.status()));
        }
        let mut body = Vec::new();
        while let Some(part) = answer.chunk().await.map_err(unreachable)? {
            if body.len() + part.len() > LARGEST {
                return Err(format!("{url} has more than {LARGEST} bytes"));
            }
            body.extend_from_slice(&part);
        }
        String::from_utf8(body).map_err(|_| format!("{url} is no text"))
    }
}

enum Ask {
    Now,
    /// Another process asked at this time.
    Since(u64),
}

fn read(keys: &[u8]) -> Result<Known, String> {
    Ok(Known {
        set: Arc::new(KeySet::parse(keys)?),
        at_unix_ms: now_unix_ms(),
    })
}

fn client() -> Result<Client, String> {
    let client = outward::client(Proxy::Environments, Some(tls::client()));
    client
        .timeout(PATIENCE)
        .build()
        .map_err(|error| error.to_string())
}
