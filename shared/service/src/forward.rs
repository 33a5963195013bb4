//! Forwarding: other OTLP backends that get what comes in, beside Tailspan.
//!
//! The setting (`TAILSPAN_FORWARD`) is an address, or names a YAML or JSON file: `targets`, a map of name (1-40 of `a-z 0-9 -`) to
//!
//! | field | default | meaning |
//! | --- | --- | --- |
//! | `url` | | what `/v1/traces` and `/v1/logs` are added to, `http` or `https`; `${VARIABLE}` stands for an environment variable |
//! | `headers` | none | name -> value, as of agents |
//! | `signals` | `[traces, logs]` | what is sent |
//! | `tenants` | all | whose traces |
//! | `gzip` | true | whether requests are compressed |
//! | `timeout_seconds` | 10 | until the answer is there; at most 60 |
//!
//! Nothing of it is in the way of a producer's request: a notice, which is written anyway, also puts its trace into the queue of each target, and forwarders read the log from
//! where they left each trace. How far that is lies in the trace's own state. So what was not forwarded is kept as long as the trace is, whatever happens to who forwards.

use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

use axum::http::HeaderMap;
use serde_json::Map;
use tailspan_core::{
    forward::Signal,
    id::{TenantId, TraceId},
};
use url::Url;

use crate::{
    keys::ForwardKeys,
    log::{Log, LogError, now_unix_ms},
    operator_file::{self, Reader, Things},
    redis::{Arg, Reply, Script},
};

static WANT: Script = Script::new(include_str!("lua/forward_want.lua"));
static LEASE: Script = Script::new(include_str!("lua/forward_lease.lua"));
static RELEASE: Script = Script::new(include_str!("lua/forward_release.lua"));
static DONE: Script = Script::new(include_str!("lua/forward_done.lua"));
static SET_IF_THERE: Script = Script::new(include_str!("lua/set_if_there.lua"));

/// Of a file.
const MOST_TARGETS: usize = 16;
/// How long notices are queued for a target that nobody speaks of any more.
const WANTED_MS: u64 = 7 * 24 * 3_600_000;
/// Of a tenant that a target gets for the first time, traces that began so long ago go along: their notices came before anybody knew.
const BEFORE_MS: u64 = 300_000;
const MOST_BEFORE: u64 = 100_000;

/// A backend that gets what comes in.
pub struct Target {
    pub name: String,
    /// May hold a secret.
    url: Url,
    /// Marked sensitive.
    pub headers: HeaderMap,
    pub signals: Vec<Signal>,
    pub gzip: bool,
    pub timeout: Duration,
    tenants: Option<Vec<TenantId>>,
    secrets: Vec<String>,
}

/// Without its address and headers.
impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Target")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl Target {
    pub fn is_for(&self, tenant: &TenantId) -> bool {
        operator_file::is_for(self.tenants.as_deref(), tenant)
    }

    /// Where requests of a signal go (OTLP specification, "OTLP/HTTP Request").
    pub fn url(&self, signal: Signal) -> Url {
        let mut url = self.url.clone();
        let path = url.path().trim_end_matches('/').to_owned();
        url.set_path(&format!("{path}/v1/{}", signal.as_str()));
        url
    }

    /// A text of the backend's without what it was sent to let us in.
    pub fn without_secrets(&self, text: &str) -> String {
        operator_file::without(&self.secrets, text)
    }
}

/// The targets of this process; cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Targets(Arc<BTreeMap<String, Arc<Target>>>);

impl Targets {
    /// Reads the setting: an address, or a file's name; `var` is the environment.
    ///
    /// # Errors
    /// Every mistake, a sentence each, without what may be secret.
    pub fn read(setting: &str, var: impl Fn(&str) -> Option<String>) -> Result<Self, Vec<String>> {
        if !(setting.starts_with("http://") || setting.starts_with("https://")) {
            return Self::parse(&operator_file::read(setting)?, var);
        }
        let mut fields = Map::new();
        fields.insert("url".to_owned(), setting.into());
        Self::of(vec![("default".to_owned(), fields)], &var)
    }

    /// As [`Targets::read`], of a file's text.
    ///
    /// # Errors
    /// As there.
    pub fn parse(text: &str, var: impl Fn(&str) -> Option<String>) -> Result<Self, Vec<String>> {
        Self::of(operator_file::things(text, "targets", MOST_TARGETS)?, &var)
    }

    fn of(all: Things, var: &impl Fn(&str) -> Option<String>) -> Result<Self, Vec<String>> {
        let targets = operator_file::each("target", all, var, read)?;
        Ok(Self(Arc::new(targets)))
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = &Arc<Target>> {
        self.0.values()
    }
}

fn read<V: Fn(&str) -> Option<String>>(reader: &mut Reader<'_, V>) -> Option<Target> {
    reader.check_name();
    let url = reader.url();
    let headers = reader.headers();
    if headers.contains_key("content-encoding") {
        reader.wrong("content-encoding is ours: see gzip");
    }
    let known = Signal::ALL.map(Signal::as_str).join(", ");
    let signals = reader.some_of("signals", Signal::named, &known);
    let gzip = reader.flag("gzip");
    let timeout = reader.timeout();
    let tenants = reader.tenants();
    reader.nothing_else();
    Some(Target {
        name: reader.id.to_owned(),
        url: url?,
        headers,
        signals: signals.unwrap_or_else(|| Signal::ALL.to_vec()),
        gzip,
        timeout,
        tenants,
        secrets: std::mem::take(&mut reader.secrets),
    })
}

/// What became of asking for the lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lease {
    Held {
        /// How often in a row the target did not take what it was sent.
        failures: u32,
    },
    /// Another process forwards, or the target is not to be asked yet.
    NotNow,
}

impl Log {
    fn forward_keys(&self, tenant: &TenantId, target: &str) -> ForwardKeys {
        self.keys.forward(tenant, target)
    }

    /// Has a tenant's notices queued for a target; to be said again within a week.
    ///
    /// # Errors
    /// [`LogError`].
    pub async fn want_forwarded(&self, tenant: &TenantId, target: &str) -> Result<(), LogError> {
        let keys = self.forward_keys(tenant, target);
        let now = now_unix_ms();
        let args = vec![
            Arg::from(target),
            Arg::from(now),
            Arg::from(now + WANTED_MS),
            Arg::from(now.saturating_sub(BEFORE_MS)),
            Arg::from(MOST_BEFORE),
        ];
        let traces = self.keys.tenant(tenant).traces;
        let slots = [keys.wanted.as_str(), &keys.todo, &traces];
        self.redis.script(&WANT, &slots, args).await?;
        Ok(())
    }

    /// Takes the lease on a target of a tenant, or keeps it, for so long.
    ///
    /// # Errors
    /// [`LogError`].
    pub async fn lease_forwarding(
        &self,
        tenant: &TenantId,
        target: &str,
        holder: &str,
        lasts: Duration,
    ) -> Result<Lease, LogError> {
        let keys = self.forward_keys(tenant, target);
        let now = now_unix_ms();
        let lasts = u64::try_from(lasts.as_millis()).unwrap_or(u64::MAX);
        let args = vec![
            Arg::from(holder),
            Arg::from(now),
            Arg::from(now.saturating_add(lasts)),
        ];
        let reply = self.redis.script(&LEASE, &[&keys.lease], args).await?;
        let reply = reply.list();
        let word = reply.first().and_then(Reply::text);
        Ok(match word.as_deref() {
            Some("go") => Lease::Held {
                failures: reply
                    .get(1)
                    .and_then(Reply::number)
                    .and_then(|count| u32::try_from(count).ok())
                    .unwrap_or_default(),
            },
            _ => Lease::NotNow,
        })
    }

    /// Gives the lease up. `pause`: how long nobody asks the target, after so many failures in a row.
    ///
    /// # Errors
    /// [`LogError`]; it runs out by itself.
    pub async fn release_forwarding(
        &self,
        tenant: &TenantId,
        target: &str,
        holder: &str,
        pause: Option<Duration>,
        failures: u32,
    ) -> Result<(), LogError> {
        let keys = self.forward_keys(tenant, target);
        let until = pause.map_or(0, |pause| {
            let pause = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX);
            now_unix_ms().saturating_add(pause)
        });
        let args = vec![
            Arg::from(holder),
            Arg::from(until),
            Arg::from(u64::from(failures)),
        ];
        self.redis.script(&RELEASE, &[&keys.lease], args).await?;
        Ok(())
    }

    /// Traces of which something is to be forwarded, those that wait longest first.
    ///
    /// # Errors
    /// [`LogError`].
    pub async fn to_forward(
        &self,
        tenant: &TenantId,
        target: &str,
        most: usize,
    ) -> Result<Vec<TraceId>, LogError> {
        let keys = self.forward_keys(tenant, target);
        let last = most.saturating_sub(1).to_string();
        let args = [&keys.todo, "0", &last].map(Arg::from).to_vec();
        let found = self.redis.command("ZRANGE", &keys.todo, args).await?;
        let names = found.list().into_iter();
        Ok(names
            .filter_map(|name| TraceId::parse(&name.text()?).ok())
            .collect())
    }

    /// How many traces of a tenant have something to be forwarded to a target.
    ///
    /// # Errors
    /// [`LogError`].
    pub async fn count_to_forward(&self, tenant: &TenantId, target: &str) -> Result<u64, LogError> {
        let keys = self.forward_keys(tenant, target);
        let args = [keys.todo.as_str(), "-inf", "+inf"].map(Arg::from).to_vec();
        let counted = self.redis.command("ZCOUNT", &keys.todo, args).await?;
        Ok(counted.number().unwrap_or_default())
    }

    /// The last event of a trace that a target has; 0 for none.
    ///
    /// # Errors
    /// [`LogError`].
    pub async fn forwarded_through(
        &self,
        tenant: &TenantId,
        trace: &TraceId,
        target: &str,
    ) -> Result<u64, LogError> {
        let key = self.keys.trace(tenant, trace).trace;
        let args = vec![Arg::from(&key), Arg::from(cursor(target))];
        let through = self.redis.command("HGET", &key, args).await?;
        Ok(through.number().unwrap_or_default())
    }

    /// Writes down up to where traces were forwarded (`None`: it is gone), and takes those from the queue of which nothing is left.
    ///
    /// # Errors
    /// [`LogError`]; what was sent may be sent again.
    pub async fn forwarded(
        &self,
        tenant: &TenantId,
        target: &str,
        traces: &BTreeMap<TraceId, Option<u64>>,
    ) -> Result<(), LogError> {
        if traces.is_empty() {
            return Ok(());
        }
        let writing = traces.iter().filter_map(|(trace, through)| {
            let key = self.keys.trace(tenant, trace).trace;
            let args = vec![Arg::from(cursor(target)), Arg::from((*through)?)];
            Some(async move { self.redis.script(&SET_IF_THERE, &[&key], args).await })
        });
        futures::future::try_join_all(writing).await?;
        let keys = self.forward_keys(tenant, target);
        let mut args = vec![Arg::from(now_unix_ms())];
        for (trace, through) in traces {
            args.push(Arg::from(trace.as_str()));
            args.push(through.map_or(Arg::from("-"), Arg::from));
        }
        let noted = self.keys.tenant(tenant).noted;
        self.redis
            .script(&DONE, &[&keys.todo, &noted], args)
            .await?;
        Ok(())
    }
}

/// The field of a trace's state that holds how far a target has it.
fn cursor(target: &str) -> String {
    format!("fwd:{target}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_what_the_setting_says() {
        let targets = Targets::parse(
            "targets: {backend: {url: 'https://otlp.example/api/', headers: {x-key: '${KEY}'}, signals: [traces], tenants: [team-a], gzip: false}}",
            |name| (name == "KEY").then(|| "very-secret".to_owned()),
        )
        .unwrap();
        let target = targets.all().next().unwrap();
        assert_eq!(
            target.url(Signal::Traces).as_str(),
            "https://otlp.example/api/v1/traces"
        );
        assert_eq!(target.headers["x-key"], "very-secret");
        assert!(!target.is_for(&TenantId::default()) && !target.gzip);
        assert!(!format!("{targets:?}").contains("otlp.example"));
        assert_eq!(target.without_secrets("no very-secret"), "no ***");
        let one = Targets::read("http://collector:4318", |_| None).unwrap();
        let one = one.all().next().unwrap();
        assert_eq!(
            one.url(Signal::Logs).as_str(),
            "http://collector:4318/v1/logs"
        );
        assert_eq!((one.name.as_str(), one.signals.len()), ("default", 2));
        let wrong = "targets: {B: {url: 'ftp://x', signals: [metrics], headers: {content-encoding: br}, timeout_seconds: 61, more: 1}}";
        let mistakes = Targets::parse(wrong, |_| None).unwrap_err();
        assert_eq!(mistakes.len(), 6, "{mistakes:#?}");
        assert!(Targets::read("/nowhere/forward.yaml", |_| None).is_err());
    }
}
