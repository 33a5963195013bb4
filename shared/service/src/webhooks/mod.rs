//! Webhooks: whom the operator wants told of which runs, and the deliveries that lie in Redis until they were taken.
//!
//! The file (`TAILSPAN_WEBHOOKS`) is YAML or JSON: `endpoints`, a map of name (1-40 of `a-z 0-9 -`) to
//!
//! | field | default | meaning |
//! | --- | --- | --- |
//! | `url` | | where to post to: `https`, or `http` to a loopback address; `${VARIABLE}` stands for an environment variable |
//! | `secret` | | `whsec_` and 24 to 64 bytes as base64, or a list of such while one is exchanged; best as `${VARIABLE}` |
//! | `events` | all but `run.lost` | some of `run.completed`, `run.failed`, `run.lost`, `run.stalled`, `evaluation.failed` |
//! | `agents` | all | only runs in which one of these agents took part |
//! | `tenants` | all | whose runs |
//! | `level` | `minimal` | `standard`: also what errors say, cut to 200 characters |
//! | `headers` | none | more headers, as of agents |
//! | `timeout_seconds` | 10 | until the answer is there; at most 60 |
//! | `attempts` | 10 | before a notification is put aside as a dead letter; at most 50 |
//! | `first_retry_seconds`, `longest_retry_seconds` | 5, 21600 | the pause before the second attempt, four times as long before each further one, and the longest |
//! | `at_once` | 4 | requests to it at a time, from each worker; at most 64 |
//!
//! Nothing that comes over the network names an endpoint.

mod deliveries;

use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

use axum::http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{CONTENT_TYPE, USER_AGENT},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use ring::hmac;
use serde_json::Value;
use tailspan_core::{
    id::TenantId,
    notify::{Kind, Patience},
    verbosity::Verbosity,
};
use url::Url;

pub use self::deliveries::{Added, Claimed, Counts, Delivery, Outcome, Standing};
use crate::operator_file::{self, Reader};

/// Of a file.
const MOST_ENDPOINTS: usize = 100;
/// Bytes of a secret (Standard Webhooks, "Signature scheme": 192 to 512 bits).
const SECRET_BYTES: std::ops::RangeInclusive<usize> = 24..=64;

/// Somebody who wants to be told.
pub struct Endpoint {
    pub name: String,
    /// May hold a secret.
    pub url: Url,
    pub kinds: Vec<Kind>,
    /// Empty: of whatever agent.
    pub agents: Vec<String>,
    pub level: Verbosity,
    /// Marked sensitive.
    pub headers: HeaderMap,
    pub timeout: Duration,
    pub patience: Patience,
    pub at_once: usize,
    tenants: Option<Vec<TenantId>>,
    keys: Vec<hmac::Key>,
    secrets: Vec<String>,
}

/// Without its address, its headers and its keys.
impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint")
            .field("name", &self.name)
            .field("kinds", &self.kinds)
            .finish_non_exhaustive()
    }
}

impl Endpoint {
    pub fn is_for(&self, tenant: &TenantId) -> bool {
        operator_file::is_for(self.tenants.as_deref(), tenant)
    }

    /// Whether it is told of a run of these agents.
    pub fn wants(&self, kind: Kind, agents: &[String]) -> bool {
        self.kinds.contains(&kind)
            && (self.agents.is_empty() || self.agents.iter().any(|agent| agents.contains(agent)))
    }

    /// Where it is, as far as that may be told: scheme and host.
    pub fn place(&self) -> String {
        let host = self.url.host_str().unwrap_or_default();
        format!("{}://{host}", self.url.scheme())
    }

    /// A text of the receiver's without what it was sent to let us in.
    pub fn without_secrets(&self, text: &str) -> String {
        operator_file::without(&self.secrets, text)
    }

    /// The headers of an attempt: who it is from, its id, when it is made, and a signature for each secret over all three, as Standard Webhooks has them.
    pub fn signed(&self, id: &str, at_unix_seconds: u64, body: &[u8]) -> HeaderMap {
        const ID: HeaderName = HeaderName::from_static("webhook-id");
        const TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
        const SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");
        let at = at_unix_seconds.to_string();
        let signatures: Vec<_> = self
            .keys
            .iter()
            .map(|key| {
                let mut context = hmac::Context::with_key(key);
                for part in [id.as_bytes(), b".", at.as_bytes(), b".", body] {
                    context.update(part);
                }
                format!("v1,{}", STANDARD.encode(context.sign()))
            })
            .collect();
        let mut headers = self.headers.clone();
        let own = [
            (ID, id),
            (TIMESTAMP, &at),
            (SIGNATURE, &signatures.join(" ")),
            (CONTENT_TYPE, "application/json"),
        ];
        for (name, value) in own {
            if let Ok(value) = HeaderValue::from_str(value) {
                headers.insert(name, value);
            }
        }
        headers
    }
}

/// The endpoints of this process; cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Webhooks(Arc<BTreeMap<String, Arc<Endpoint>>>);

impl Webhooks {
    /// Reads the operator's file; `var` is the environment.
    ///
    /// # Errors
    /// Every mistake, a sentence each, without what may be secret.
    pub fn parse(text: &str, var: impl Fn(&str) -> Option<String>) -> Result<Self, Vec<String>> {
        let all = operator_file::things(text, "endpoints", MOST_ENDPOINTS)?;
        let endpoints = operator_file::each("endpoint", all, &var, read)?;
        Ok(Self(Arc::new(endpoints)))
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Those who may be told of a tenant's runs.
    pub fn of<'a>(&'a self, tenant: &'a TenantId) -> impl Iterator<Item = &'a Arc<Endpoint>> {
        self.0.values().filter(|endpoint| endpoint.is_for(tenant))
    }

    /// The endpoint of this name, if it is for the tenant.
    pub fn get(&self, tenant: &TenantId, name: &str) -> Option<&Arc<Endpoint>> {
        self.0.get(name).filter(|endpoint| endpoint.is_for(tenant))
    }
}

fn read<V: Fn(&str) -> Option<String>>(reader: &mut Reader<'_, V>) -> Option<Endpoint> {
    const OURS: [&str; 3] = ["webhook-id", "webhook-timestamp", "webhook-signature"];
    reader.check_name();
    let url = reader.url();
    if url.as_ref().is_some_and(|url| !operator_file::is_safe(url)) {
        reader.wrong("url must be https, but to a loopback address");
    }
    let keys = keys(reader);
    let known = Kind::ALL.map(Kind::as_str).join(", ");
    let kinds = reader.some_of("events", Kind::named, &known);
    let usual = || Kind::ALL.into_iter().filter(|kind| *kind != Kind::Lost);
    let agents = reader.texts("agents").unwrap_or_default();
    let tenants = reader.tenants();
    let level = match reader.text("level").as_deref() {
        None | Some("minimal") => Verbosity::Minimal,
        Some("standard") => Verbosity::Standard,
        Some(_) => {
            reader.wrong("level must be minimal or standard");
            Verbosity::Minimal
        }
    };
    let headers = reader.headers();
    if OURS.iter().any(|name| headers.contains_key(*name)) || headers.contains_key(USER_AGENT) {
        reader.wrong("webhook-id, webhook-timestamp, webhook-signature and user-agent are ours");
    }
    let timeout = reader.timeout();
    let usual_patience = Patience::default();
    let attempts = reader.number("attempts", u64::from(usual_patience.attempts), 1..=50);
    let first = reader.seconds("first_retry_seconds", 5.0);
    let longest = reader.number(
        "longest_retry_seconds",
        usual_patience.longest_ms / 1000,
        1..=86_400,
    );
    let at_once = reader.number("at_once", 4, 1..=64);
    reader.nothing_else();
    Some(Endpoint {
        name: reader.id.to_owned(),
        url: url?,
        kinds: kinds.unwrap_or_else(|| usual().collect()),
        agents,
        level,
        headers,
        timeout,
        patience: Patience {
            attempts: u32::try_from(attempts).unwrap_or(u32::MAX),
            first_ms: u64::try_from(first.as_millis()).unwrap_or(u64::MAX),
            longest_ms: longest.saturating_mul(1000),
        },
        at_once: usize::try_from(at_once).unwrap_or(1),
        tenants,
        keys,
        secrets: std::mem::take(&mut reader.secrets),
    })
}

fn keys<V: Fn(&str) -> Option<String>>(reader: &mut Reader<'_, V>) -> Vec<hmac::Key> {
    const RULE: &str =
        "secret must be whsec_ and the base64 of 24 to 64 bytes, or a list of at most four such";
    let told = match reader.fields.shift_remove("secret") {
        Some(Value::String(one)) => vec![Value::String(one)],
        Some(Value::Array(some)) if (1..=4).contains(&some.len()) => some,
        _ => Vec::new(),
    };
    let count = told.len();
    let mut keys = Vec::new();
    for secret in told {
        let Some(secret) = secret
            .as_str()
            .and_then(|text| reader.expand("secret", text))
        else {
            continue;
        };
        let bytes = secret
            .trim()
            .strip_prefix("whsec_")
            .and_then(|base64| STANDARD.decode(base64).ok())
            .filter(|bytes| SECRET_BYTES.contains(&bytes.len()));
        keys.extend(bytes.map(|bytes| hmac::Key::new(hmac::HMAC_SHA256, &bytes)));
        reader.secrets.push(secret);
    }
    if count == 0 || keys.len() != count {
        reader.wrong(RULE);
    }
    keys
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

    fn read(text: &str) -> Result<Webhooks, Vec<String>> {
        Webhooks::parse(text, |name| {
            (name == "HOOK_SECRET").then(|| SECRET.to_owned())
        })
    }

    #[test]
    fn an_endpoint_is_what_the_file_says() {
        let hooks = read(
            "endpoints:
  ops:
    url: https://hooks.example/services/T0/B1
    secret: ${HOOK_SECRET}
    events: [run.failed]
    agents: [planner]
    tenants: [team-a]
    attempts: 3
  all:
    url: http://127.0.0.1:9/x
    secret: [\"${HOOK_SECRET}\", whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA]
",
        )
        .unwrap();
        let team = TenantId::parse("team-a").unwrap();
        let ops = hooks.get(&team, "ops").unwrap();
        assert_eq!(ops.place(), "https://hooks.example");
        assert!(ops.wants(Kind::Failed, &["planner".to_owned()]));
        assert!(!ops.wants(Kind::Failed, &["other".to_owned()]));
        assert!(!ops.wants(Kind::Completed, &["planner".to_owned()]));
        assert_eq!(ops.patience.attempts, 3);
        let default = TenantId::default();
        assert!(hooks.get(&default, "ops").is_none());
        let all = hooks.get(&default, "all").unwrap();
        assert!(all.wants(Kind::Stalled, &[]) && !all.wants(Kind::Lost, &[]));
        assert_eq!(hooks.of(&team).count(), 2);
        let told = format!("{hooks:?}");
        assert!(!told.contains("MfKQ") && !told.contains("T0"), "{told}");
        assert_eq!(all.without_secrets(&format!("bad {SECRET}")), "bad ***");
    }

    #[test]
    fn what_is_sent_is_signed_as_the_standard_says() {
        let text = format!("endpoints: {{one: {{url: 'https://host/', secret: {SECRET}}}}}");
        let hooks = read(&text).unwrap();
        let one = hooks.get(&TenantId::default(), "one").unwrap();
        // The example of the reference libraries' own tests.
        let headers = one.signed(
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            1_614_265_330,
            br#"{"test": 2432232314}"#,
        );
        assert_eq!(
            headers["webhook-signature"],
            "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
        );
        assert_eq!(headers["webhook-timestamp"], "1614265330");
        assert_eq!(headers["webhook-id"], "msg_p5jXN8AQM9LWM0D4loKWxJek");
    }

    #[test]
    fn all_mistakes_are_told_without_secrets() {
        let mistakes = read(
            "endpoints:
  Bad Name: {url: 'https://host', secret: whsec_AAAA}
  plain: {url: 'http://hooks.example/very-secret', secret: very-secret}
  more: {url: 'https://host', secret: '${NONE}', events: [run.ended], level: debug, attempts: 0, at_once: many, timeout_seconds: 100, colour: red}
",
        )
        .unwrap_err();
        let told = mistakes.join("\n");
        assert_eq!(mistakes.len(), 12, "{told}");
        assert!(!told.contains("very-secret"), "{told}");
        assert_eq!(read("[]").unwrap_err().len(), 1);
        assert_eq!(read("endpoints: {").unwrap_err().len(), 1);
        assert_eq!(read("endpoints: {}\nmore: 1").unwrap_err().len(), 1);
    }
}
