//! The one place that imports fred: connections, commands, scripts and the doorbell's subscription.
//!
//! What callers see is small on purpose: a command or a script goes out, a [`Reply`] or a [`RedisError`] comes back. fred's defaults are not
//! safe for a log (no reconnect policy; with one, lost replies are replayed and writes double), so a policy is set, a command
//! gets one attempt, and repeating is decided by those who know whether a repeat is harmless.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use fred::{
    clients::{Client, SubscriberClient},
    error::ErrorKind,
    interfaces::{ClientLike, EventInterface, PubsubInterface},
    types::{
        Builder, ClusterHash, ConnectHandle, CustomCommand, Value,
        config::{
            ClusterDiscoveryPolicy, Config as FredConfig, ReconnectPolicy, Server, ServerConfig,
            TcpConfig, TlsConfig, TlsConnector, TlsHostMapping, UnresponsiveConfig,
        },
    },
    util::{redis_keyslot, sha1_hash},
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use tokio::sync::broadcast;
use tracing::{debug, warn};

use crate::{
    config::RedisTls,
    redis_url::{Address, Place, RedisUrl},
};

/// How long one command may take before its caller hears "unavailable".
const COMMAND_TIMEOUT: Duration = Duration::from_secs(4);
/// How long a connection may take; a function that thawed with a dead socket must not wait longer for a new one.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Before a connection task that ended by itself begins anew; twice as long each time that it ends at once.
const RESTART_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_RESTART_PAUSE: Duration = Duration::from_secs(1);
/// How long a command waits for a connection that is being renewed.
const RECONNECT_GRACE: Duration = Duration::from_millis(600);
/// The longest a blocking read waits in Redis. Shorter than [`COMMAND_TIMEOUT`]: a client-side time-out would leave the connection blocked behind it.
pub const LONGEST_BLOCK: Duration = Duration::from_secs(2);

/// Why Redis did not do what was asked, by what a caller can do about it.
#[derive(Clone, Debug, thiserror::Error)]
pub enum RedisError {
    /// No answer, or one that says "not now" (restarting, loading, failing over). Whether a write happened is unknown.
    #[error("redis is unavailable: {0}")]
    Unavailable(String),
    /// `maxmemory` is reached and nothing may be evicted; reads and deletes go on.
    #[error("redis is full: {0}")]
    Full(String),
    /// An answer that says the request itself was wrong: a fault of ours.
    #[error("redis refused: {0}")]
    Refused(String),
}

impl RedisError {
    /// The group or its stream is gone (`DEL`, a flush, a failover).
    pub fn is_no_group(&self) -> bool {
        matches!(self, Self::Refused(text) if text.starts_with("NOGROUP"))
    }

    /// The group is there already.
    pub fn is_busy_group(&self) -> bool {
        matches!(self, Self::Refused(text) if text.starts_with("BUSYGROUP"))
    }
}

impl From<fred::error::Error> for RedisError {
    fn from(error: fred::error::Error) -> Self {
        use fred::error::ErrorKind as Kind;
        // The server's error replies begin with an upper-case word; fred sorts only a few of them into kinds.
        let details = error.details();
        let word = details.split([' ', ':']).next().unwrap_or_default();
        match word {
            "OOM" => return Self::Full(details.to_owned()),
            "LOADING" | "READONLY" | "MASTERDOWN" | "CLUSTERDOWN" | "TRYAGAIN" | "BUSY"
            | "MISCONF" | "NOREPLICAS" | "UNBLOCKED" => {
                return Self::Unavailable(details.to_owned());
            }
            _ => {}
        }
        if details.contains("OOM command not allowed")
            || details.contains("command not allowed when used memory")
        {
            return Self::Full(details.to_owned());
        }
        // Everything else in capitals is the server's word on our request. What the client says by itself means that it did not
        // reach one, whatever kind it gives it ("Failed to route command." has none), unless our words were wrong.
        let server_said = word.len() > 1 && word.bytes().all(|b| b.is_ascii_uppercase());
        match error.kind() {
            Kind::Config
            | Kind::Url
            | Kind::InvalidArgument
            | Kind::InvalidCommand
            | Kind::Parse => Self::Refused(details.to_owned()),
            _ if server_said => Self::Refused(details.to_owned()),
            _ => Self::Unavailable(error.to_string()),
        }
    }
}

/// What a command answered.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    Nil,
    Int(i64),
    Bytes(Bytes),
    List(Vec<Reply>),
}

impl Reply {
    /// The items of a list; none of anything else.
    pub fn list(self) -> Vec<Self> {
        match self {
            Self::List(items) => items,
            _ => Vec::new(),
        }
    }

    /// The bytes of a text or number.
    pub fn bytes(&self) -> Option<Bytes> {
        match self {
            Self::Bytes(bytes) => Some(bytes.clone()),
            Self::Int(number) => Some(Bytes::from(number.to_string())),
            Self::Nil | Self::List(_) => None,
        }
    }

    /// As [`Reply::bytes`], what is not UTF-8 replaced.
    pub fn text(&self) -> Option<String> {
        self.bytes()
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
    }

    /// A number, also one that came as digits (hash fields do).
    pub fn number(&self) -> Option<u64> {
        match self {
            Self::Int(number) => u64::try_from(*number).ok(),
            Self::Bytes(bytes) => std::str::from_utf8(bytes).ok()?.parse().ok(),
            Self::Nil | Self::List(_) => None,
        }
    }
}

impl From<Value> for Reply {
    fn from(value: Value) -> Self {
        match value {
            Value::Null | Value::Queued => Self::Nil,
            Value::Boolean(yes) => Self::Int(i64::from(yes)),
            Value::Integer(number) => Self::Int(number),
            Value::Double(number) => Self::Bytes(Bytes::from(number.to_string())),
            Value::String(text) => Self::Bytes(text.into_inner()),
            Value::Bytes(bytes) => Self::Bytes(bytes),
            Value::Map(map) => Self::List(
                map.inner()
                    .into_iter()
                    .flat_map(|(key, value)| [Self::Bytes(key.into_bytes()), Self::from(value)])
                    .collect(),
            ),
            Value::Array(items) => Self::List(items.into_iter().map(Self::from).collect()),
        }
    }
}

/// An argument; everything goes over the wire as bytes.
#[derive(Clone, Debug)]
pub struct Arg(Bytes);

impl From<&str> for Arg {
    fn from(text: &str) -> Self {
        Self(Bytes::copy_from_slice(text.as_bytes()))
    }
}
impl From<String> for Arg {
    fn from(text: String) -> Self {
        Self(text.into())
    }
}
impl From<&String> for Arg {
    fn from(text: &String) -> Self {
        text.as_str().into()
    }
}
impl From<Bytes> for Arg {
    fn from(bytes: Bytes) -> Self {
        Self(bytes)
    }
}
impl From<Vec<u8>> for Arg {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes.into())
    }
}
impl From<u64> for Arg {
    fn from(number: u64) -> Self {
        number.to_string().into()
    }
}
impl From<i64> for Arg {
    fn from(number: i64) -> Self {
        number.to_string().into()
    }
}
impl From<usize> for Arg {
    fn from(number: usize) -> Self {
        number.to_string().into()
    }
}

impl From<Arg> for Value {
    fn from(arg: Arg) -> Self {
        Value::Bytes(arg.0)
    }
}

/// A Lua script: its text, and its SHA-1, under which Redis caches it.
#[derive(Debug)]
pub struct Script {
    pub text: &'static str,
    sha1: OnceLock<String>,
}

impl Script {
    /// Of a text that is part of the program.
    pub const fn new(text: &'static str) -> Self {
        Self {
            text,
            sha1: OnceLock::new(),
        }
    }

    fn sha1(&self) -> &str {
        self.sha1.get_or_init(|| sha1_hash(self.text))
    }
}

/// Somebody appended to a trace; `None` means bells may have been missed: look at everything that is watched.
pub type Ring = Option<Arc<str>>;

/// One Redis (a node, a cluster, or what sentinels name), as this process uses it.
#[derive(Clone)]
pub struct Redis {
    client: Client,
    renewing: Renewing,
    closed: Closed,
    subscriber: SubscriberClient,
    /// Made for the first who listens: its room takes a function that follows nothing a tenth of its start.
    rings: Arc<OnceLock<broadcast::Sender<Ring>>>,
    config: FredConfig,
    clustered: bool,
}

impl Redis {
    /// Connects, or goes on trying in the background where nobody answers within a short budget: commands then say "unavailable" until
    /// somebody does, and nothing has to be started again. Connections are renewed for ever.
    ///
    /// # Errors
    /// The URL, or a file that TLS needs, cannot be read (`Refused`, with what to do about it and without secrets).
    pub async fn connect(url: &str, tls: &RedisTls) -> Result<Self, RedisError> {
        // Two TLS providers in one binary panic at the first rediss:// connection; naming one first is harmless.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let url = RedisUrl::parse(url).map_err(|mistakes| {
            RedisError::Refused(format!(
                "cannot read the redis url: {}",
                mistakes.join("; ")
            ))
        })?;
        let config = fred_config(url, tls)?;
        let clustered = config.server.is_clustered();
        let client = builder(config.clone(), WAITING).build()?;
        let subscriber = builder(config.clone(), MESSAGES_WAITING).build_subscriber_client()?;
        tell_why_not_connected(&client);
        let closed = Closed::default();
        tokio::join!(init(&client, &closed), init(&subscriber, &closed));
        let redis = Self {
            client,
            renewing: Renewing::default(),
            closed,
            subscriber,
            rings: Arc::default(),
            config,
            clustered,
        };
        redis.listen();
        Ok(redis)
    }

    /// A connection of its own for blocking reads: a blocked one holds every command behind it (a GET took 1.45 s behind a 1.5 s block).
    ///
    /// # Errors
    /// As [`Redis::connect`].
    pub async fn blocking_connection(&self) -> Result<BlockingConnection, RedisError> {
        let client = builder(self.config.clone(), WAITING).build()?;
        let closed = Closed::default();
        init(&client, &closed).await;
        Ok(BlockingConnection {
            client,
            renewing: Renewing::default(),
            closed,
        })
    }

    /// Whether commands are spread over slots; the doorbell is a sharded channel then.
    pub fn is_cluster(&self) -> bool {
        self.clustered
    }

    /// Runs `name args...` where `key` lives.
    ///
    /// # Errors
    /// See [`RedisError`]; after `Unavailable` a write may or may not have happened.
    pub async fn command(
        &self,
        name: &'static str,
        key: &str,
        args: Vec<Arg>,
    ) -> Result<Reply, RedisError> {
        command(&self.client, &self.renewing, name, key, args, false).await
    }

    /// Runs a script over keys of one slot: by its hash, and with its text where the node does not know it yet.
    ///
    /// # Errors
    /// As [`Redis::command`].
    pub async fn script(
        &self,
        script: &Script,
        keys: &[&str],
        args: Vec<Arg>,
    ) -> Result<Reply, RedisError> {
        let slot_key = keys.first().copied().unwrap_or_default();
        let with = |head: &str| {
            let mut all = Vec::with_capacity(args.len() + keys.len() + 2);
            all.push(Arg::from(head));
            all.push(Arg::from(keys.len()));
            all.extend(keys.iter().map(|key| Arg::from(*key)));
            all.extend(args.iter().cloned());
            all
        };
        match self.command("EVALSHA", slot_key, with(script.sha1())).await {
            Err(RedisError::Refused(text)) if text.starts_with("NOSCRIPT") => {
                self.command("EVAL", slot_key, with(script.text)).await
            }
            other => other,
        }
    }

    /// Milliseconds since 1970 on the clock of Redis.
    ///
    /// # Errors
    /// As [`Redis::command`].
    pub async fn now_unix_ms(&self) -> Result<u64, RedisError> {
        let time = self.command("TIME", "", Vec::new()).await?.list();
        let part = |at: usize| time.get(at).and_then(Reply::number).unwrap_or_default();
        Ok(part(0).saturating_mul(1000).saturating_add(part(1) / 1000))
    }

    /// Rings of the channels this process subscribed to.
    pub fn rings(&self) -> broadcast::Receiver<Ring> {
        let rings = self
            .rings
            .get_or_init(|| broadcast::Sender::new(RINGS_WAITING));
        rings.subscribe()
    }

    /// # Errors
    /// As [`Redis::command`].
    pub async fn subscribe(&self, channel: &str) -> Result<(), RedisError> {
        if self.clustered {
            self.subscriber.ssubscribe(channel).await?;
        } else {
            self.subscriber.subscribe(channel).await?;
        }
        Ok(())
    }

    /// # Errors
    /// As [`Redis::command`].
    pub async fn unsubscribe(&self, channel: &str) -> Result<(), RedisError> {
        if self.clustered {
            self.subscriber.sunsubscribe(channel).await?;
        } else {
            self.subscriber.unsubscribe(channel).await?;
        }
        Ok(())
    }

    /// Channels that are subscribed to, or will be again once there is a connection.
    pub fn subscriptions(&self) -> usize {
        self.subscriber.tracked_channels().len() + self.subscriber.tracked_shard_channels().len()
    }

    /// Ends the connections; commands in flight get their answers first.
    pub async fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        let _ = self.client.quit().await;
        let _ = self.subscriber.quit().await;
    }

    /// Passes messages and reconnections on as rings, for as long as the subscriber lives.
    fn listen(&self) {
        let _resubscribes = self.subscriber.manage_subscriptions();
        let mut messages = self.subscriber.message_rx();
        let mut reconnections = self.subscriber.reconnect_rx();
        let rings = Arc::clone(&self.rings);
        tokio::spawn(async move {
            loop {
                let ring = tokio::select! {
                    message = messages.recv() => match message {
                        Ok(message) => Some(Arc::from(&*message.channel)),
                        Err(broadcast::error::RecvError::Lagged(_)) => None,
                        Err(broadcast::error::RecvError::Closed) => return,
                    },
                    again = reconnections.recv() => match again {
                        Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => None,
                        Err(broadcast::error::RecvError::Closed) => return,
                    },
                };
                // Nobody follows anything: the ring is not needed.
                if let Some(rings) = rings.get() {
                    let _ = rings.send(ring);
                }
            }
        });
    }
}

/// Where `XREADGROUP ... BLOCK` may wait.
pub struct BlockingConnection {
    client: Client,
    renewing: Renewing,
    closed: Closed,
}

impl BlockingConnection {
    /// # Errors
    /// As [`Redis::command`].
    pub async fn command(
        &self,
        name: &'static str,
        key: &str,
        args: Vec<Arg>,
    ) -> Result<Reply, RedisError> {
        command(&self.client, &self.renewing, name, key, args, true).await
    }
}

impl Drop for BlockingConnection {
    fn drop(&mut self) {
        self.closed.store(true, Ordering::SeqCst);
        let client = self.client.clone();
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { client.quit().await });
        }
    }
}

/// What the URL means to fred.
fn fred_config(url: RedisUrl, tls: &RedisTls) -> Result<FredConfig, RedisError> {
    let server = |address: Address| Server::new(address.host, address.port);
    let servers = |all: Vec<Address>| all.into_iter().map(server).collect();
    let place = match url.place {
        Place::Node(address) => ServerConfig::Centralized {
            server: server(address),
        },
        Place::Cluster(nodes) => ServerConfig::Clustered {
            hosts: servers(nodes),
            policy: ClusterDiscoveryPolicy::default(),
        },
        Place::Sentinel {
            sentinels,
            service,
            credentials,
        } => ServerConfig::Sentinel {
            hosts: servers(sentinels),
            service_name: service,
            username: credentials.user,
            password: credentials.password,
        },
        Place::Unix(path) => ServerConfig::Unix { path },
    };
    let tls = match url.tls {
        true => Some(TlsConfig {
            connector: tls_connector(tls)?,
            hostnames: TlsHostMapping::None,
        }),
        false => None,
    };
    Ok(FredConfig {
        server: place,
        username: url.credentials.user,
        password: url.credentials.password,
        database: url.database,
        tls,
        // A Redis that is away when we start is waited for like one that goes away later.
        fail_fast: false,
        ..FredConfig::default()
    })
}

/// TLS with the named authority, else the system's, and our own certificate where there is one. Names are always checked.
fn tls_connector(tls: &RedisTls) -> Result<TlsConnector, RedisError> {
    let refused = |text: String| RedisError::Refused(text);
    let certificates = |path: &std::path::Path, variable: &str| {
        CertificateDer::pem_file_iter(path)
            .and_then(|all| all.collect::<Result<Vec<_>, _>>())
            .map_err(|error| format!("{error}"))
            .and_then(|all| match all.is_empty() {
                true => Err("it holds no certificate".to_owned()),
                false => Ok(all),
            })
            .map_err(|why| refused(format!("{variable}: cannot read {}: {why}", path.display())))
    };
    let mut roots = rustls::RootCertStore::empty();
    match &tls.ca_file {
        Some(path) => {
            for certificate in certificates(path, "TAILSPAN_REDIS_CA_FILE")? {
                roots.add(certificate).map_err(|error| {
                    refused(format!(
                        "TAILSPAN_REDIS_CA_FILE: {}: {error}",
                        path.display()
                    ))
                })?;
            }
        }
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            if roots.is_empty() {
                return Err(refused(
                    "this machine has no root certificates: install them (ca-certificates), or name a file with TAILSPAN_REDIS_CA_FILE"
                        .to_owned(),
                ));
            }
        }
    }
    let config = rustls::ClientConfig::builder().with_root_certificates(roots);
    let config = match &tls.client_files {
        None => config.with_no_client_auth(),
        Some((certificate, key)) => {
            let chain = certificates(certificate, "TAILSPAN_REDIS_CERT_FILE")?;
            let file = key.display();
            let key = PrivateKeyDer::from_pem_file(key).map_err(|error| {
                refused(format!(
                    "TAILSPAN_REDIS_KEY_FILE: cannot read {file}: {error}"
                ))
            })?;
            config.with_client_auth_cert(chain, key).map_err(|error| {
                refused(format!(
                    "TAILSPAN_REDIS_CERT_FILE and TAILSPAN_REDIS_KEY_FILE cannot be used together: {error}"
                ))
            })?
        }
    };
    Ok(config.into())
}

/// Logs why there is no connection, each cause once until there is one again: a wrong password must not look like a Redis that is away.
fn tell_why_not_connected(client: &Client) {
    let (mut errors, mut connections) = (client.error_rx(), client.reconnect_rx());
    tokio::spawn(async move {
        let mut told = Vec::<String>::new();
        loop {
            tokio::select! {
                error = errors.recv() => match error {
                    Ok((error, _)) => {
                        let cause = error.details().to_owned();
                        if told.len() < 16 && !told.contains(&cause) {
                            match advice(&cause) {
                                Some(advice) => warn!("no connection to redis: {cause}; {advice}"),
                                None => warn!("no connection to redis: {cause}"),
                            }
                            told.push(cause);
                        }
                    }
                    Err(broadcast::error::RecvError::Lagged(_)) => {}
                    Err(broadcast::error::RecvError::Closed) => return,
                },
                again = connections.recv() => match again {
                    Err(broadcast::error::RecvError::Closed) => return,
                    _ => told.clear(),
                },
            }
        }
    });
}

/// What to do about an answer of Redis, or of TLS, that will not change by itself.
fn advice(cause: &str) -> Option<&'static str> {
    let known = [
        (
            "WRONGPASS",
            "user or password in TAILSPAN_REDIS_URL is wrong, or the user is off",
        ),
        (
            "invalid password",
            "the password in TAILSPAN_REDIS_URL is wrong",
        ),
        (
            "without any password configured",
            "this redis knows no password: take it out of TAILSPAN_REDIS_URL",
        ),
        (
            "NOAUTH",
            "redis asks for a password: put user:password@ before the host in TAILSPAN_REDIS_URL",
        ),
        (
            "NOPERM",
            "the user lacks a permission; the rule it needs stands in docs/operations.md",
        ),
        (
            "cluster support disabled",
            "this redis is no cluster: say redis:// in TAILSPAN_REDIS_URL",
        ),
        (
            "MOVED",
            "this redis is a cluster: say redis-cluster:// in TAILSPAN_REDIS_URL",
        ),
        (
            "UnknownIssuer",
            "name the authority that signed the certificate of redis with TAILSPAN_REDIS_CA_FILE",
        ),
        (
            "NotValidForName",
            "the certificate of redis is for another name than the host in TAILSPAN_REDIS_URL",
        ),
        (
            "CertificateRequired",
            "redis asks for a certificate: set TAILSPAN_REDIS_CERT_FILE and TAILSPAN_REDIS_KEY_FILE",
        ),
        (
            "AlertReceived(UnknownCA)",
            "redis does not know the authority that signed the certificate in TAILSPAN_REDIS_CERT_FILE",
        ),
        (
            "InvalidContentType",
            "this port of redis does not speak TLS: say redis in place of rediss, or take its TLS port",
        ),
        (
            "Missing primary address",
            "no sentinel knows the service that TAILSPAN_REDIS_URL names",
        ),
    ];
    known
        .iter()
        .find(|(word, _)| cause.contains(word))
        .map(|(_, advice)| *advice)
}

/// Errors and reconnections that wait for who tells of them, and messages that wait to be passed on as rings. fred has seven such channels a client and makes room in all of them at once, in
/// pages that a cold start waits for; who falls behind is told so, and misses nothing.
const WAITING: usize = 32;
const MESSAGES_WAITING: usize = 1024;
/// Rings that wait for one who follows; beyond them he looks at all that he watches.
const RINGS_WAITING: usize = 8192;

fn builder(config: FredConfig, waiting: usize) -> Builder {
    let mut builder = Builder::from_config(config);
    builder
        .with_connection_config(|connection| {
            connection.connection_timeout = CONNECT_TIMEOUT;
            connection.internal_command_timeout = CONNECT_TIMEOUT;
            connection.max_command_attempts = 1;
            // The one attempt is spent when Redis points elsewhere, and fred's connection task ends for good when it is to follow an ASK then. Where MOVED points is learnt all the same.
            connection.max_redirections = 0;
            connection.tcp = TcpConfig {
                nodelay: Some(true),
                ..TcpConfig::default()
            };
            // A half-open connection is noticed by silence on a command in flight.
            connection.unresponsive = UnresponsiveConfig {
                max_timeout: Some(COMMAND_TIMEOUT),
                interval: Duration::from_millis(500),
            };
        })
        .with_performance_config(|performance| {
            performance.default_command_timeout = COMMAND_TIMEOUT;
            performance.broadcast_channel_capacity = waiting;
        })
        .set_policy(reconnecting());
    builder
}

/// For ever: after 1, 2, 4, ... up to 1,000 ms. fred waits for the first of these before its first connection too, and adds up to 50 ms at random by default: of a function's cold start that was half.
fn reconnecting() -> ReconnectPolicy {
    let mut policy = ReconnectPolicy::new_exponential(0, 1, 1_000, 2);
    policy.set_jitter(0);
    policy
}

/// Whether a client's owner is done with it.
type Closed = Arc<AtomicBool>;

/// Starts the client's connection task, which ends with its `quit`, and gives it a moment.
async fn init<C: ClientLike + 'static>(client: &C, closed: &Closed) {
    let task = client.connect();
    tokio::spawn(keep_running(client.clone(), task, Arc::clone(closed)));
    let _ = tokio::time::timeout(CONNECT_TIMEOUT, client.wait_for_connect()).await;
}

/// Begins the connection task anew when it ends by itself, as fred's does on answers that it did not expect: whatever is asked of the client from then on would wait in vain.
async fn keep_running(client: impl ClientLike, mut task: ConnectHandle, closed: Closed) {
    let mut pause = RESTART_PAUSE;
    loop {
        let began = Instant::now();
        let ended = task.await;
        if closed.load(Ordering::SeqCst) {
            return;
        }
        if began.elapsed() > LONGEST_RESTART_PAUSE {
            pause = RESTART_PAUSE;
        }
        let why = match ended {
            Ok(Err(error)) => error.to_string(),
            Ok(Ok(())) => "no reason given".to_owned(),
            Err(panicked) => panicked.to_string(),
        };
        // One that ends again and again has a cause that stays, which is told elsewhere.
        if pause == RESTART_PAUSE {
            warn!("the task of a connection to redis ended ({why}); it begins anew");
        } else {
            debug!("the task of a connection to redis ended again ({why})");
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_RESTART_PAUSE);
        // Who is done with it meanwhile found nothing to end.
        if closed.load(Ordering::SeqCst) {
            return;
        }
        task = client.connect();
    }
}

/// Whether a client's connections are being renewed because one of them fell silent.
type Renewing = Arc<AtomicBool>;

/// A connection on which a command was not answered in time may be open and dead, and everything behind it would wait as long: all are made anew. Where Redis itself is slow, it costs
/// a connection.
fn renew(client: &Client, renewing: &Renewing) {
    if renewing.swap(true, Ordering::SeqCst) {
        return;
    }
    let (client, renewing) = (client.clone(), Arc::clone(renewing));
    tokio::spawn(async move {
        let _ = tokio::time::timeout(CONNECT_TIMEOUT, client.force_reconnection()).await;
        renewing.store(false, Ordering::SeqCst);
    });
}

async fn command(
    client: &Client,
    renewing: &Renewing,
    name: &'static str,
    key: &str,
    args: Vec<Arg>,
    blocking: bool,
) -> Result<Reply, RedisError> {
    if !client.is_connected() {
        // Known to be away: a producer is told soon, and a connection that is just being renewed is used.
        let connected = Box::pin(client.wait_for_connect());
        let _ = tokio::time::timeout(RECONNECT_GRACE, connected).await;
        if !client.is_connected() {
            return Err(RedisError::Unavailable("not connected".to_owned()));
        }
    }
    let slot = ClusterHash::Custom(redis_keyslot(key.as_bytes()));
    let command = CustomCommand::new_static(name, slot, blocking);
    // Boxed: fred's future has 7 KiB, which every viewer would hold for the reads it seldom needs.
    match Box::pin(client.custom::<Value, _>(command, args)).await {
        Ok(value) => Ok(value.into()),
        Err(error) => {
            if *error.kind() == ErrorKind::Timeout {
                renew(client, renewing);
            }
            // A master that became a replica keeps its connections where no sentinel cuts them: look again who the master is.
            if error.details().starts_with("READONLY") {
                let _ = Box::pin(client.force_reconnection()).await;
            }
            Err(told(error.into()))
        }
    }
}

/// An answer that will not change by itself, with what to do about it.
fn told(error: RedisError) -> RedisError {
    match error {
        RedisError::Refused(text) if text.starts_with("NOPERM") || text.starts_with("MOVED") => {
            let advice = advice(&text).unwrap_or_default();
            RedisError::Refused(format!("{text}; {advice}"))
        }
        error => error,
    }
}
