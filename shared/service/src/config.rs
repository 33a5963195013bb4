//! Settings of a process. What was said (variables, flags) becomes what is meant here, and all mistakes are told at once.
//!
//! | variable | default | meaning |
//! | --- | --- | --- |
//! | `TAILSPAN_REDIS_URL` (else `REDIS_URL`) | `redis://127.0.0.1:6379` | `redis://`, `redis-cluster://`, `redis-sentinel://`, the same with `rediss` for TLS, or `redis+unix://`; see [`crate::redis_url`] |
//! | `TAILSPAN_REDIS_CA_FILE` | the system's roots | PEM file: the authorities that may have signed the certificate of Redis, in place of the system's |
//! | `TAILSPAN_REDIS_CERT_FILE`, `TAILSPAN_REDIS_KEY_FILE` | none | PEM files: the certificate with which we say who we are, and its key |
//! | `TAILSPAN_KEY_PREFIX` | empty | put before every key and channel; `[a-z0-9:-]`, at most 40 |
//! | `TAILSPAN_TOKENS` | none | `token=tenant` pairs, comma separated; when set, every request needs one |
//! | `TAILSPAN_ADMIN_TOKEN` | none | the token for `/metrics`, which counts over all tenants; needed where tokens are those of several |
//! | `TAILSPAN_AUTH`, `TAILSPAN_JWT_*`, `TAILSPAN_SIGNING_KEY` | | who is let in, see [`crate::access::settings`] |
//! | `TAILSPAN_LIMITS` | none | what a tenant may send, watch and hold: `rate=1000/s,burst=5000,streams=200,stored=10GiB,spans=50000; team-a: rate=100/s`, see [`tailspan_core::quota`] |
//! | `TAILSPAN_CORS_ORIGINS` | none | origins of pages that may use the API, comma separated: `https://dash.example,http://localhost:5173`, or `*`; see [`crate::cors`] |
//! | `TAILSPAN_RETENTION_SECONDS` | 604800 (7 days) | how long a trace is kept after its last event |
//! | `TAILSPAN_RETENTION_RULES` | none | other times by how a run ended, also of one tenant: `failed=30d,completed=7d,team-a/*=1d`; see [`tailspan_core::retention::Retention::with_rules`] |
//! | `TAILSPAN_ARCHIVE` | none | where traces go that retention removes: `file:///folder` or `s3://bucket/prefix`, see [`crate::archive`] |
//! | `TAILSPAN_ARCHIVE_ENDPOINT` | that of AWS | `https://host` of another store that speaks as S3 does |
//! | `AWS_REGION`, `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_SESSION_TOKEN` | as Lambda sets them | who we are at the bucket of the archive |
//! | `TAILSPAN_COMPACT_SECONDS` | 600 | how long after a run's end its small chunks are joined into large ones |
//! | `TAILSPAN_STREAM_SECONDS` | 3600 | an SSE stream ends cleanly after 80-100 % of this; functions set 90 |
//! | `TAILSPAN_HEARTBEAT_SECONDS` | 15 | silence after which a stream says where it is |
//! | `TAILSPAN_MAX_STREAMS` | 10000 | open streams of this process; more are answered 429 |
//! | `TAILSPAN_GRACE_MS` | 1000 | how long after its root's end a run may still get late spans |
//! | `TAILSPAN_STALLED_SECONDS`, `TAILSPAN_LOST_SECONDS` | 60, 900 | silence after which an open run is stalled, then lost |
//! | `TAILSPAN_MESH_STREAM` | `mesh:trace` | the stream of an agent mesh; empty: none is read. `tailspan serve` with its private Redis reads one only when this or the next is set |
//! | `TAILSPAN_MESH_REDIS_URL` | our own | the Redis of the mesh, where it is another one; written as `TAILSPAN_REDIS_URL` |
//! | `TAILSPAN_MESH_GROUP` | `tailspan` | the consumer group that all instances share; the key prefix is put before it |
//! | `TAILSPAN_MESH_TENANT` | `default` | whose traces the mesh's are |
//! | `TAILSPAN_MESH_TAKE_OVER_SECONDS` | 30 | an entry that was read and not acknowledged for this long is taken over |
//! | `TAILSPAN_MESH_TRIES` | 5 | an entry that was refused so often, or of which so many readers died, is set aside |
//! | `TAILSPAN_MESH_RETENTION_SECONDS` | none | entries older than this, and done with, are removed from the stream |
//! | `TAILSPAN_MESH_SECONDS` | up to the deadline | how long one invocation of the function reads, at most |
//! | `TAILSPAN_PRICES` | none | JSON file of prices that go before the built-in ones; see [`tailspan_core::pricing::Prices::parse`] |
//! | `TAILSPAN_TRACE_LEVEL` | `debug` | how much of what comes is recorded: `minimal`, `standard`, `detailed` or `debug` (everything) for all tenants, `tenant=level` for one, or both, comma separated |
//! | `TAILSPAN_REDACT` | none | what is taken out of what comes, beyond what always is: rules as JSON, or the path of a file of them; see [`tailspan_core::redact::Rules`] |
//! | `TAILSPAN_REDACT_KEY` | none | at least 16 bytes, for the mode `hmac`; the keys of tenants are made from it |
//! | `TAILSPAN_MAX_SESSIONS` | 1000 | live sessions of a tenant; beyond, the oldest complete ones make room |
//! | `TAILSPAN_SESSION_TTL_SECONDS` | 604800 (7 days) | how long a complete live session is kept, from its start; its traces stay |
//! | `TAILSPAN_SESSION_MAX_SPANS`, `TAILSPAN_SESSION_MAX_LOGS` | 10000, 5000 | spans and log records that one live session takes from its WebSockets |
//! | `TAILSPAN_MAX_BODY_BYTES` | 16777216 | a request's body after decompression |
//! | `TAILSPAN_AGENTS` | none | the file of the agents that may be called, see [`crate::agents`]; read once, at the start |
//! | `TAILSPAN_WEBHOOKS` | none | the file of those who are told of runs, see [`crate::webhooks`]; read once, at the start |
//! | `TAILSPAN_FORWARD` | none | another OTLP backend that gets what comes in, or a file of some, see [`crate::forward`]; read once, at the start |
//! | `TAILSPAN_PUBLIC_URL` | none | where people reach the dashboard: links in notifications begin with it |
//! | `TAILSPAN_EVALUATORS` | none | YAML file of evaluators that run when a run ends, see docs/evaluation.md; requests may name its programs. Read once, at the start |
//! | `TAILSPAN_EVAL_SETS` | none | folder of eval sets; a session's `eval_set_id` names one of them |
//! | `TAILSPAN_MAX_COMPLETIONS` | 32 | calls to agents at a time in this process; more are answered 429 |
//! | `GOOGLE_API_KEY` or `GEMINI_API_KEY`, `ANTHROPIC_API_KEY`, `OPENAI_API_KEY` | none | whose models judges may be asked; `/api/config` says which there are |
//! | `TAILSPAN_MAX_IN_FLIGHT_BYTES` | 268435456 | bodies being taken in at once; more are answered 429 |

use std::{collections::HashMap, fmt, fs, path::PathBuf, sync::Arc, time::Duration};

use tailspan_core::{
    id::TenantId,
    pricing::Prices,
    quota::Quotas,
    redact::{Redactor, Rules},
    retention::Retention,
    settle::Patience,
    verbosity::Verbosity,
};

use crate::{
    access::settings::{AccessSettings, Mode},
    agents::Agents,
    archive::ArchiveConfig,
    cors::Origins,
    evaluation::{Operator, Providers},
    forward::Targets,
    operator_file,
    redis_url::RedisUrl,
    webhooks::Webhooks,
};

/// What a process was told; the fields are those of the table above.
#[derive(Clone)]
pub struct Config {
    pub redis_url: String,
    pub redis_tls: RedisTls,
    pub key_prefix: String,
    /// Bearer token -> tenant. Empty: everybody is the default tenant.
    pub tokens: HashMap<String, TenantId>,
    /// Opens what counts over all tenants.
    pub admin_token: Option<String>,
    pub access: AccessSettings,
    /// What tenants may send, watch and hold.
    pub quotas: Arc<Quotas>,
    /// Whose pages may use the API.
    pub cors_origins: Arc<Origins>,
    /// For how long a tenant's place for a stream is kept for a process that says nothing; no setting.
    pub stream_lease: Duration,
    /// How long traces are kept after their last event.
    pub retention: Retention,
    /// From the end of a run until its small chunks are joined.
    pub compact_after_ms: u64,
    pub stream_lifetime: Duration,
    pub heartbeat: Duration,
    pub max_streams: usize,
    pub patience: Patience,
    pub max_body_bytes: usize,
    pub max_in_flight_bytes: usize,
    pub mesh: MeshConfig,
    /// What calls to models cost.
    pub prices: Arc<Prices>,
    /// At most how much is recorded.
    pub trace_levels: Arc<TraceLevels>,
    pub redactor: Arc<Redactor>,
    pub agents: Agents,
    pub webhooks: Webhooks,
    pub forward: Targets,
    /// Without a slash at its end.
    pub public_url: Option<String>,
    pub max_completions: usize,
    pub provider_keys: ProviderKeys,
    /// Where judges are, with their keys.
    pub providers: Providers,
    /// What evaluates every run that ends.
    pub evaluators: Option<Arc<Operator>>,
    /// The folder of eval sets.
    pub eval_sets: Option<PathBuf>,
    pub live: LiveLimits,
    /// Where traces go that retention removes.
    pub archive: Option<ArchiveConfig>,
    /// AWS Lambda started us: it says so by `AWS_LAMBDA_RUNTIME_API`.
    pub is_function: bool,
}

/// Whose models judges may be asked, by the API keys that the environment has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProviderKeys {
    pub google: bool,
    pub anthropic: bool,
    pub openai: bool,
}

/// How many live sessions there are, for how long, and how much one takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LiveLimits {
    pub max_sessions: u64,
    pub ttl_ms: u64,
    pub max_spans: u64,
    pub max_logs: u64,
}

impl Default for LiveLimits {
    fn default() -> Self {
        Self {
            max_sessions: 1000,
            ttl_ms: 7 * 24 * 3_600_000,
            max_spans: 10_000,
            max_logs: 5_000,
        }
    }
}

/// At most how much is recorded, for each tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceLevels {
    /// Of tenants that are not named.
    pub default: Verbosity,
    pub by_tenant: HashMap<TenantId, Verbosity>,
}

impl Default for TraceLevels {
    fn default() -> Self {
        Self {
            default: Verbosity::Debug,
            by_tenant: HashMap::new(),
        }
    }
}

impl TraceLevels {
    pub fn of(&self, tenant: &TenantId) -> Verbosity {
        self.by_tenant.get(tenant).copied().unwrap_or(self.default)
    }

    /// Reads `level` and `tenant=level`, comma separated; an empty text says nothing.
    ///
    /// # Errors
    /// Every part that is neither, with what it should be.
    fn parse(text: &str) -> Result<Self, Vec<String>> {
        let mut levels = Self::default();
        let mut mistakes = Vec::new();
        let mut defaults = 0;
        for part in text
            .split(',')
            .map(str::trim)
            .filter(|part| !part.is_empty())
        {
            let (tenant, level) = match part.split_once('=') {
                Some((tenant, level)) => (Some(TenantId::parse(tenant.trim())), level.trim()),
                None => (None, part),
            };
            match (tenant, level.parse()) {
                (None, Ok(level)) => {
                    defaults += 1;
                    levels.default = level;
                }
                (Some(Ok(tenant)), Ok(level)) => {
                    if levels.by_tenant.insert(tenant.clone(), level).is_some() {
                        mistakes.push(format!("\"{tenant}\" is named twice"));
                    }
                }
                (Some(Err(invalid)), _) => mistakes.push(format!("\"{part}\": {invalid}")),
                (_, Err(unknown)) => mistakes.push(format!("\"{part}\": {unknown}")),
            }
        }
        if defaults > 1 {
            mistakes.push("more than one level without a tenant".to_owned());
        }
        match mistakes.is_empty() {
            true => Ok(levels),
            false => Err(mistakes),
        }
    }
}

/// An agent mesh whose trace stream is read.
#[derive(Clone)]
pub struct MeshConfig {
    /// `None`: none is read.
    pub stream: Option<String>,
    /// `None`: it lies in our own Redis.
    pub redis_url: Option<String>,
    pub group: String,
    pub tenant: TenantId,
    pub take_over: Duration,
    pub tries: u64,
    pub retention: Option<Duration>,
    /// How long one invocation reads; `None`: up to its deadline.
    pub longest_read: Option<Duration>,
}

impl Default for MeshConfig {
    fn default() -> Self {
        Self {
            stream: Some("mesh:trace".to_owned()),
            redis_url: None,
            group: "tailspan".to_owned(),
            tenant: TenantId::default(),
            take_over: Duration::from_secs(30),
            tries: 5,
            retention: None,
            longest_read: None,
        }
    }
}

/// Files that TLS to Redis needs, where the system's own will not do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RedisTls {
    pub ca_file: Option<PathBuf>,
    /// Our certificate and its key.
    pub client_files: Option<(PathBuf, PathBuf)>,
}

/// Without what is secret: the URL and the tokens.
impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("key_prefix", &self.key_prefix)
            .field("redis_tls", &self.redis_tls)
            .field("retention", &self.retention)
            .field("patience", &self.patience)
            .finish_non_exhaustive()
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            redis_url: "redis://127.0.0.1:6379".to_owned(),
            redis_tls: RedisTls::default(),
            key_prefix: String::new(),
            tokens: HashMap::new(),
            admin_token: None,
            access: AccessSettings::default(),
            quotas: Arc::default(),
            cors_origins: Arc::default(),
            stream_lease: Duration::from_secs(60),
            retention: Retention::new(7 * 24 * 3_600_000),
            compact_after_ms: 600_000,
            stream_lifetime: Duration::from_secs(3600),
            heartbeat: Duration::from_secs(15),
            max_streams: 10_000,
            patience: Patience::default(),
            max_body_bytes: 16 * 1024 * 1024,
            max_in_flight_bytes: 256 * 1024 * 1024,
            mesh: MeshConfig::default(),
            prices: Arc::new(Prices::builtin()),
            trace_levels: Arc::default(),
            redactor: Arc::default(),
            agents: Agents::default(),
            webhooks: Webhooks::default(),
            forward: Targets::default(),
            public_url: None,
            max_completions: 32,
            provider_keys: ProviderKeys::default(),
            providers: Providers::default(),
            evaluators: None,
            eval_sets: None,
            live: LiveLimits::default(),
            archive: None,
            is_function: false,
        }
    }
}

/// All mistakes of a configuration, a line each.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub struct InvalidConfig(pub Vec<String>);

impl Config {
    /// Reads the variables of the table above; unset ones keep their default.
    ///
    /// # Errors
    /// Every variable that cannot be read, with what it should be.
    pub fn from_vars(var: impl Fn(&str) -> Option<String>) -> Result<Self, InvalidConfig> {
        let mut config = Self::default();
        let mut mistakes = Vec::new();
        let mut number = |name: &str, least: u64, set: &mut dyn FnMut(u64)| {
            if let Some(text) = var(name) {
                match text.trim().parse() {
                    Ok(value) if value >= least => set(value),
                    _ => mistakes.push(format!(
                        "{name} must be a number of at least {least}, not \"{text}\""
                    )),
                }
            }
        };
        number("TAILSPAN_RETENTION_SECONDS", 1, &mut |seconds| {
            config.retention = Retention::new(seconds.saturating_mul(1000))
        });
        number("TAILSPAN_COMPACT_SECONDS", 0, &mut |seconds| {
            config.compact_after_ms = seconds.saturating_mul(1000)
        });
        number("TAILSPAN_STREAM_SECONDS", 1, &mut |seconds| {
            config.stream_lifetime = Duration::from_secs(seconds)
        });
        number("TAILSPAN_HEARTBEAT_SECONDS", 1, &mut |seconds| {
            config.heartbeat = Duration::from_secs(seconds)
        });
        number("TAILSPAN_MAX_STREAMS", 1, &mut |count| {
            config.max_streams = to_usize(count)
        });
        number("TAILSPAN_GRACE_MS", 0, &mut |ms| {
            config.patience.grace_ms = ms
        });
        number("TAILSPAN_STALLED_SECONDS", 1, &mut |seconds| {
            config.patience.stalled_ms = seconds.saturating_mul(1000)
        });
        number("TAILSPAN_LOST_SECONDS", 1, &mut |seconds| {
            config.patience.lost_ms = seconds.saturating_mul(1000)
        });
        number("TAILSPAN_MAX_COMPLETIONS", 1, &mut |count| {
            config.max_completions = to_usize(count)
        });
        number("TAILSPAN_MAX_SESSIONS", 1, &mut |count| {
            config.live.max_sessions = count
        });
        number("TAILSPAN_SESSION_TTL_SECONDS", 1, &mut |seconds| {
            config.live.ttl_ms = seconds.saturating_mul(1000)
        });
        number("TAILSPAN_SESSION_MAX_SPANS", 1, &mut |count| {
            config.live.max_spans = count
        });
        number("TAILSPAN_SESSION_MAX_LOGS", 1, &mut |count| {
            config.live.max_logs = count
        });
        number("TAILSPAN_MAX_BODY_BYTES", 1024, &mut |bytes| {
            config.max_body_bytes = to_usize(bytes)
        });
        number("TAILSPAN_MAX_IN_FLIGHT_BYTES", 1024, &mut |bytes| {
            config.max_in_flight_bytes = to_usize(bytes)
        });
        number("TAILSPAN_MESH_TAKE_OVER_SECONDS", 1, &mut |seconds| {
            config.mesh.take_over = Duration::from_secs(seconds)
        });
        number("TAILSPAN_MESH_TRIES", 1, &mut |tries| {
            config.mesh.tries = tries
        });
        number("TAILSPAN_MESH_RETENTION_SECONDS", 1, &mut |seconds| {
            config.mesh.retention = Some(Duration::from_secs(seconds))
        });
        number("TAILSPAN_MESH_SECONDS", 1, &mut |seconds| {
            config.mesh.longest_read = Some(Duration::from_secs(seconds))
        });
        let has = |name: &str| var(name).is_some_and(|key| !key.trim().is_empty());
        config.provider_keys = ProviderKeys {
            google: has("GOOGLE_API_KEY") || has("GEMINI_API_KEY"),
            anthropic: has("ANTHROPIC_API_KEY"),
            openai: has("OPENAI_API_KEY"),
        };
        if let Some(rules) = var("TAILSPAN_RETENTION_RULES") {
            match config.retention.clone().with_rules(&rules) {
                Ok(retention) => config.retention = retention,
                Err(all) => mistakes.extend(
                    all.into_iter()
                        .map(|mistake| format!("TAILSPAN_RETENTION_RULES: {mistake}")),
                ),
            }
        }
        if let Some(limits) = var("TAILSPAN_LIMITS") {
            match Quotas::parse(&limits) {
                Ok(quotas) => config.quotas = Arc::new(quotas),
                Err(all) => mistakes.extend(
                    all.into_iter()
                        .map(|mistake| format!("TAILSPAN_LIMITS: {mistake}")),
                ),
            }
        }
        if let Some(origins) = var("TAILSPAN_CORS_ORIGINS") {
            match Origins::parse(&origins) {
                Ok(origins) => config.cors_origins = Arc::new(origins),
                Err(all) => mistakes.extend(
                    all.into_iter()
                        .map(|mistake| format!("TAILSPAN_CORS_ORIGINS: {mistake}")),
                ),
            }
        }
        if let Some(stream) = var("TAILSPAN_MESH_STREAM") {
            config.mesh.stream = Some(stream).filter(|stream| !stream.is_empty());
        }
        if let Some(group) = var("TAILSPAN_MESH_GROUP").filter(|group| !group.is_empty()) {
            config.mesh.group = group;
        }
        if let Some(tenant) = var("TAILSPAN_MESH_TENANT").filter(|tenant| !tenant.is_empty()) {
            match TenantId::parse(&tenant) {
                Ok(tenant) => config.mesh.tenant = tenant,
                Err(invalid) => mistakes.push(format!("TAILSPAN_MESH_TENANT: {invalid}")),
            }
        }
        if let Some(url) = var("TAILSPAN_MESH_REDIS_URL").filter(|url| !url.is_empty()) {
            if let Err(all) = RedisUrl::parse(&url) {
                let told = all
                    .into_iter()
                    .map(|mistake| format!("TAILSPAN_MESH_REDIS_URL: {mistake}"));
                mistakes.extend(told);
            }
            config.mesh.redis_url = Some(url);
        }
        if let Some(url) = var("TAILSPAN_REDIS_URL").or_else(|| var("REDIS_URL")) {
            match RedisUrl::parse(&url) {
                Ok(parsed) => {
                    config.redis_url = url;
                    config.redis_tls = redis_tls(&var, parsed.tls, &mut mistakes);
                }
                Err(all) => mistakes.extend(
                    all.into_iter()
                        .map(|mistake| format!("TAILSPAN_REDIS_URL: {mistake}")),
                ),
            }
        }
        if let Some(path) = var("TAILSPAN_PRICES").filter(|path| !path.is_empty()) {
            match prices(&path) {
                Ok(prices) => config.prices = Arc::new(prices),
                Err(all) => mistakes.extend(
                    all.into_iter()
                        .map(|mistake| format!("TAILSPAN_PRICES ({path}): {mistake}")),
                ),
            }
        }
        if let Some(path) = var("TAILSPAN_AGENTS").filter(|path| !path.is_empty()) {
            let read = std::fs::read_to_string(&path)
                .map_err(|error| vec![format!("cannot read {path}: {error}")])
                .and_then(|text| Agents::parse(&text, &var));
            match read {
                Ok(agents) => config.agents = agents,
                Err(all) => mistakes.extend(
                    all.into_iter()
                        .map(|mistake| format!("TAILSPAN_AGENTS: {mistake}")),
                ),
            }
        }
        if let Some(path) = var("TAILSPAN_WEBHOOKS").filter(|path| !path.is_empty()) {
            let read = operator_file::read(&path).and_then(|text| Webhooks::parse(&text, &var));
            match read {
                Ok(webhooks) => config.webhooks = webhooks,
                Err(all) => mistakes.extend(
                    all.into_iter()
                        .map(|mistake| format!("TAILSPAN_WEBHOOKS: {mistake}")),
                ),
            }
        }
        if let Some(setting) = var("TAILSPAN_FORWARD").filter(|setting| !setting.is_empty()) {
            match Targets::read(&setting, &var) {
                Ok(targets) => config.forward = targets,
                Err(all) => mistakes.extend(
                    all.into_iter()
                        .map(|mistake| format!("TAILSPAN_FORWARD: {mistake}")),
                ),
            }
        }
        if let Some(url) = var("TAILSPAN_PUBLIC_URL").filter(|url| !url.is_empty()) {
            config.public_url = Some(url.trim_end_matches('/').to_owned());
        }
        config.providers = Providers::from_vars(&var);
        config.is_function = has("AWS_LAMBDA_RUNTIME_API");
        config.archive = ArchiveConfig::from_vars(&var, &mut mistakes);
        if let Some(path) = var("TAILSPAN_EVALUATORS").filter(|path| !path.is_empty()) {
            match Operator::load(path.as_ref()) {
                Ok(operator) => config.evaluators = Some(Arc::new(operator)),
                Err(all) => mistakes.extend(
                    all.into_iter()
                        .map(|mistake| format!("TAILSPAN_EVALUATORS: {mistake}")),
                ),
            }
        }
        if let Some(path) = var("TAILSPAN_EVAL_SETS").filter(|path| !path.is_empty()) {
            match std::fs::read_dir(&path) {
                Ok(_) => config.eval_sets = Some(path.into()),
                Err(error) => {
                    mistakes.push(format!("TAILSPAN_EVAL_SETS: cannot read {path}: {error}"));
                }
            }
        }
        if let Some(text) = var("TAILSPAN_TRACE_LEVEL") {
            match TraceLevels::parse(&text) {
                Ok(levels) => config.trace_levels = Arc::new(levels),
                Err(all) => mistakes.extend(
                    all.into_iter()
                        .map(|mistake| format!("TAILSPAN_TRACE_LEVEL: {mistake}")),
                ),
            }
        }
        match redactor(&var) {
            Ok(redactor) => config.redactor = Arc::new(redactor),
            Err(all) => mistakes.extend(all),
        }
        config.admin_token = var("TAILSPAN_ADMIN_TOKEN").filter(|token| !token.is_empty());
        if let Some(prefix) = var("TAILSPAN_KEY_PREFIX") {
            let valid = prefix.len() <= 40
                && prefix.bytes().all(|b| {
                    b.is_ascii_lowercase() || b.is_ascii_digit() || b == b':' || b == b'-'
                });
            if valid {
                config.key_prefix = prefix;
            } else {
                mistakes.push(
                    "TAILSPAN_KEY_PREFIX must be at most 40 characters of a-z 0-9 : -".to_owned(),
                );
            }
        }
        if let Some(pairs) = var("TAILSPAN_TOKENS") {
            for pair in pairs
                .split(',')
                .map(str::trim)
                .filter(|pair| !pair.is_empty())
            {
                // The token may itself end in "=" (base64), so the tenant is what follows the last one.
                match pair
                    .rsplit_once('=')
                    .map(|(token, tenant)| (token, TenantId::parse(tenant)))
                {
                    Some((token, Ok(tenant))) if !token.is_empty() => {
                        config.tokens.insert(token.to_owned(), tenant);
                    }
                    // The pair holds a secret: say what is wrong without it.
                    _ => mistakes.push(
                        "TAILSPAN_TOKENS must be token=tenant pairs, the tenant of a-z 0-9 -"
                            .to_owned(),
                    ),
                }
            }
        }
        config.access = AccessSettings::from_vars(&var, &mut mistakes);
        if config.access.mode == Some(Mode::None) && !config.tokens.is_empty() {
            mistakes.push(
                "TAILSPAN_AUTH is none, and TAILSPAN_TOKENS names tokens: unset one of them"
                    .to_owned(),
            );
        }
        if config.patience.lost_ms < config.patience.stalled_ms {
            mistakes.push(
                "TAILSPAN_LOST_SECONDS must not be less than TAILSPAN_STALLED_SECONDS".to_owned(),
            );
        }
        if mistakes.is_empty() {
            Ok(config)
        } else {
            Err(InvalidConfig(mistakes))
        }
    }

    /// Who is let in: as it was said, else who has one of the configured tokens, else everybody.
    pub fn auth_mode(&self) -> Mode {
        let usual = match self.tokens.is_empty() {
            true => Mode::None,
            false => Mode::Keys,
        };
        self.access.mode.unwrap_or(usual)
    }

    /// [`Config::from_vars`] over the process's environment.
    ///
    /// # Errors
    /// As there.
    pub fn from_env() -> Result<Self, InvalidConfig> {
        Self::from_vars(|name| std::env::var(name).ok())
    }
}

/// The built-in prices with those of a file before them.
fn prices(path: &str) -> Result<Prices, Vec<String>> {
    let text = fs::read_to_string(path).map_err(|error| vec![error.to_string()])?;
    Prices::builtin().with(Prices::parse(&text)?)
}

/// What is taken out of what comes.
fn redactor(var: &impl Fn(&str) -> Option<String>) -> Result<Redactor, Vec<String>> {
    let said = |name: &str| var(name).filter(|text| !text.trim().is_empty());
    let told = |all: Vec<String>| -> Vec<String> {
        let all = all.into_iter();
        all.map(|mistake| format!("TAILSPAN_REDACT: {mistake}"))
            .collect()
    };
    let rules = match said("TAILSPAN_REDACT") {
        None => Rules::default(),
        Some(text) if text.trim_start().starts_with('{') => Rules::parse(&text).map_err(told)?,
        Some(path) => {
            let text = fs::read_to_string(path.trim())
                .map_err(|error| told(vec![format!("cannot read {}: {error}", path.trim())]))?;
            Rules::parse(&text).map_err(told)?
        }
    };
    let key = said("TAILSPAN_REDACT_KEY");
    Redactor::new(&rules, key.as_ref().map(|key| key.trim().as_bytes())).map_err(told)
}

/// Names of files that are there for TLS; that they can be read is seen when they are.
fn redis_tls(
    var: &impl Fn(&str) -> Option<String>,
    tls: bool,
    mistakes: &mut Vec<String>,
) -> RedisTls {
    let file = |name| var(name).filter(|path| !path.is_empty()).map(PathBuf::from);
    let (ca, certificate, key) = (
        file("TAILSPAN_REDIS_CA_FILE"),
        file("TAILSPAN_REDIS_CERT_FILE"),
        file("TAILSPAN_REDIS_KEY_FILE"),
    );
    if !tls && (ca.is_some() || certificate.is_some() || key.is_some()) {
        mistakes.push(
            "TAILSPAN_REDIS_CA_FILE, _CERT_FILE and _KEY_FILE are for TLS: begin TAILSPAN_REDIS_URL with rediss, or unset them"
                .to_owned(),
        );
    }
    if certificate.is_some() != key.is_some() {
        mistakes.push(
            "TAILSPAN_REDIS_CERT_FILE and TAILSPAN_REDIS_KEY_FILE must be set both or not at all"
                .to_owned(),
        );
    }
    RedisTls {
        ca_file: ca,
        client_files: certificate.zip(key),
    }
}

fn to_usize(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_mistakes_are_told_at_once() {
        let vars = HashMap::from([
            ("TAILSPAN_RETENTION_SECONDS", "soon"),
            ("TAILSPAN_RETENTION_RULES", "failed=soon, ended=7d"),
            ("TAILSPAN_MAX_STREAMS", "0"),
            ("TAILSPAN_LIMITS", "rate=fast"),
            ("TAILSPAN_CORS_ORIGINS", "dash.example"),
            ("TAILSPAN_TOKENS", "secret=NOT A TENANT"),
            ("TAILSPAN_REDIS_URL", "redis://:secret@host"),
            ("TAILSPAN_REDIS_CERT_FILE", "/cert.pem"),
            ("TAILSPAN_PRICES", "/no/such/file"),
            ("TAILSPAN_AGENTS", "/nowhere/agents.json"),
            ("TAILSPAN_REDACT", r#"{"names":["*"],"mode":"hmac"}"#),
        ]);
        let error = Config::from_vars(|name| vars.get(name).map(ToString::to_string)).unwrap_err();
        assert_eq!(error.0.len(), 12, "{error}");
        assert!(!error.to_string().contains("secret"));
    }

    #[test]
    fn a_token_may_end_in_padding() {
        let config =
            Config::from_vars(|name| (name == "TAILSPAN_TOKENS").then(|| "abc==team-a".to_owned()))
                .unwrap();
        assert_eq!(
            config.tokens.get("abc=").map(TenantId::as_str),
            Some("team-a")
        );
    }
}
