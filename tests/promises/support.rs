//! A Redis of its own for every test, instances of the product on it, and a reader of event streams.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use axum::Router;
use futures::StreamExt as _;
use tailspan_service::{App, config::Config, cors, error::with_told_misses};
use tempfile::TempDir;

use crate::containers::Contained;
use crate::stores::{Secured, Watched};
use tokio_util::sync::CancellationToken;

/// `redis-server` from TAILSPAN_REDIS_SERVER, else from the PATH, else the embedded one.
pub(crate) fn redis_binary() -> PathBuf {
    if let Some(path) = std::env::var_os("TAILSPAN_REDIS_SERVER") {
        return path.into();
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    ["redis-server", "valkey-server"]
        .iter()
        .flat_map(|name| std::env::split_paths(&path).map(move |dir| dir.join(name)))
        .find(|candidate| candidate.is_file())
        .unwrap_or_else(|| {
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/tools/valkey-server")
        })
}

/// A child `redis-server` on a TCP port of the loopback, its data in a folder of its own.
pub(crate) struct RedisServer {
    pub(crate) port: u16,
    _reserved: ReservedPort,
    dir: TempDir,
    program: PathBuf,
    options: Vec<String>,
    variables: Vec<(String, String)>,
    child: Option<Child>,
}

impl RedisServer {
    pub(crate) async fn start() -> Self {
        Self::start_with(&["--save", "", "--appendonly", "no"]).await
    }

    /// One that loses nothing over `kill -9`.
    pub(crate) async fn durable() -> Self {
        Self::start_with(&[
            "--save",
            "",
            "--appendonly",
            "yes",
            "--appendfsync",
            "always",
        ])
        .await
    }

    pub(crate) async fn start_with(options: &[&str]) -> Self {
        Self::of(redis_binary(), options).await
    }

    /// A server of this program.
    pub(crate) async fn of(program: PathBuf, options: &[&str]) -> Self {
        let reserved = ReservedPort::take();
        let mut server = Self {
            port: reserved.number,
            _reserved: reserved,
            dir: tempfile::tempdir().expect("a temporary folder"),
            program,
            options: options.iter().map(ToString::to_string).collect(),
            variables: Vec::new(),
            child: None,
        };
        server.launch().await;
        server
    }

    /// Ends it, and starts it again on the same data with these variables.
    pub(crate) async fn relaunch_with(&mut self, variables: Vec<(String, String)>) {
        self.kill();
        self.variables = variables;
        self.launch().await;
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Starts the process again on the same data.
    pub(crate) async fn launch(&mut self) {
        let child = Command::new(&self.program)
            .args(["--port", &self.port.to_string(), "--bind", "127.0.0.1"])
            .args(["--dir", &self.dir.path().display().to_string()])
            .args(&self.options)
            .envs(self.variables.iter().cloned())
            .args(["--logfile", "server.log"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("redis-server starts");
        let child = self.child.insert(child);
        for _ in 0..4_000 {
            if answers(self.port).await {
                return;
            }
            if let Some(status) = child.try_wait().expect("the child is ours") {
                let log = std::fs::read_to_string(self.dir.path().join("server.log"));
                panic!("redis-server ended at once with {status}: {log:?}");
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("redis-server does not answer on port {}", self.port);
    }

    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("the child is ours");
            child.wait().expect("the child is ours");
        }
    }

    /// Sends its process a signal: `STOP` is a disk or a host that hangs, `CONT` its end.
    pub(crate) fn signal(&self, name: &str) {
        let pid = self.child.as_ref().expect("it runs").id().to_string();
        let sent = Command::new("kill").args(["-s", name, &pid]).status();
        assert!(sent.expect("kill runs").success());
    }

    /// Runs `redis-cli`-like commands for a look or a fault; the answer as text.
    pub(crate) async fn cli(&self, words: &[&str]) -> String {
        raw_command(self.port, words)
            .await
            .unwrap_or_else(|error| error.to_string())
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill();
    }
}

async fn answers(port: u16) -> bool {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let Ok(mut socket) = tokio::net::TcpStream::connect(("127.0.0.1", port)).await else {
        return false;
    };
    let mut reply = [0; 7];
    socket.write_all(b"PING\r\n").await.is_ok()
        && socket.read_exact(&mut reply).await.is_ok()
        && &reply == b"+PONG\r\n"
}

/// Where a test's log lies: one node, or a cluster of three.
pub(crate) enum Store {
    Node(RedisServer),
    Cluster(Vec<RedisServer>),
    /// Over TLS, with a certificate of ours and a user who may do what docs/operations.md names.
    Secured(Secured),
    /// A master and a replica, found through a sentinel.
    Sentinel(Watched),
    Container(Box<Contained>),
}

impl Store {
    pub(crate) async fn node() -> Self {
        Self::Node(RedisServer::start().await)
    }

    /// Three masters that share the slots, as soon as all agree that the cluster is whole.
    pub(crate) async fn cluster() -> Self {
        let mut nodes = Vec::new();
        for _ in 0..3 {
            let options = [
                "--save",
                "",
                "--appendonly",
                "no",
                "--cluster-enabled",
                "yes",
                "--cluster-node-timeout",
                "2000",
            ];
            nodes.push(RedisServer::start_with(&options).await);
        }
        let slots = [("0", "5461"), ("5462", "10922"), ("10923", "16383")];
        for (number, (node, (from, to))) in nodes.iter().zip(slots).enumerate() {
            node.cli(&["CLUSTER", "SET-CONFIG-EPOCH", &(number + 1).to_string()])
                .await;
            node.cli(&["CLUSTER", "ADDSLOTSRANGE", from, to]).await;
        }
        for node in &nodes[1..] {
            nodes[0]
                .cli(&["CLUSTER", "MEET", "127.0.0.1", &node.port.to_string()])
                .await;
        }
        for node in &nodes {
            for _ in 0..2_000 {
                let info = node.cli(&["CLUSTER", "INFO"]).await;
                if info.contains("cluster_state:ok") && info.contains("cluster_known_nodes:3") {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
        Self::Cluster(nodes)
    }

    pub(crate) fn url(&self) -> String {
        match self {
            Self::Node(node) => node.url(),
            Self::Cluster(nodes) => {
                let others: Vec<_> = nodes[1..]
                    .iter()
                    .map(|node| format!("node=127.0.0.1:{}", node.port))
                    .collect();
                format!(
                    "redis-cluster://127.0.0.1:{}?{}",
                    nodes[0].port,
                    others.join("&")
                )
            }
            Self::Secured(secured) => secured.url(),
            Self::Sentinel(watched) => watched.url(),
            Self::Container(contained) => contained.url(),
        }
    }

    pub(crate) fn config(&self) -> Config {
        match self {
            Self::Secured(secured) => secured.config(),
            store => config(&store.url()),
        }
    }

    /// A command where its key lives; `KEYS` everywhere.
    pub(crate) async fn cli(&self, words: &[&str]) -> String {
        match self {
            Self::Node(node) => node.cli(words).await,
            Self::Secured(secured) => secured.server.cli(words).await,
            Self::Sentinel(watched) => watched.master.cli(words).await,
            Self::Container(contained) => contained.cli(words).await,
            Self::Cluster(nodes) => {
                let mut answers = String::new();
                for node in nodes {
                    let answer = node.cli(words).await;
                    if !answer.starts_with("-MOVED") {
                        answers.push_str(&answer);
                    }
                }
                answers
            }
        }
    }
}

/// One command over a socket of its own; for a look or a fault from outside the product.
pub(crate) async fn raw_command(port: u16, words: &[&str]) -> Result<String> {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut socket = tokio::net::TcpStream::connect(("127.0.0.1", port)).await?;
    let mut request = format!("*{}\r\n", words.len());
    for word in words {
        request.push_str(&format!("${}\r\n{word}\r\n", word.len()));
    }
    request.push_str("*1\r\n$4\r\nQUIT\r\n");
    socket.write_all(request.as_bytes()).await?;
    let mut reply = Vec::new();
    tokio::time::timeout(Duration::from_secs(10), socket.read_to_end(&mut reply)).await??;
    let text = String::from_utf8_lossy(&reply).into_owned();
    Ok(text.strip_suffix("+OK\r\n").unwrap_or(&text).to_owned())
}

/// A loopback port that is nobody else's for as long as this lives, also while its server is down and starts again.
///
/// Ports are taken below the range from which the system gives ports to connections (32,768 and up on Linux): a connection of another test could otherwise
/// sit on the port of a server that restarts, or on the second port of a cluster node, 10,000 above the first. A lock on a file per port keeps the processes of
/// a test run apart; the lock goes with the process, so a killed test leaves nothing behind.
pub(crate) struct ReservedPort {
    pub(crate) number: u16,
    _lock: std::fs::File,
}

impl ReservedPort {
    pub(crate) fn take() -> Self {
        let locks = std::env::temp_dir().join("tailspan-test-ports");
        std::fs::create_dir_all(&locks).expect("a folder for locks");
        // Processes begin at different places, so that they seldom try the same port.
        let first = std::process::id().wrapping_mul(97);
        (0..Self::COUNT)
            .map(|step| Self::FIRST + ((first + step) % Self::COUNT) as u16)
            .find_map(|number| {
                let lock = std::fs::File::create(locks.join(number.to_string())).ok()?;
                lock.try_lock().ok()?;
                [number, number + 10_000]
                    .iter()
                    .all(|port| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok())
                    .then_some(Self {
                        number,
                        _lock: lock,
                    })
            })
            .expect("a free port")
    }

    const FIRST: u16 = 12_000;
    const COUNT: u32 = 10_000;
}

/// Settings for tests: quick deadlines, everything else as shipped.
pub(crate) fn config(url: &str) -> Config {
    let mut config = Config {
        redis_url: url.to_owned(),
        ..Config::default()
    };
    config.patience.grace_ms = 200;
    config
}

/// One instance of the product: all routers, on a port of its own.
pub(crate) struct Instance {
    pub(crate) app: App,
    pub(crate) address: SocketAddr,
    stop: CancellationToken,
}

impl Instance {
    pub(crate) async fn start(url: &str) -> Self {
        Self::with(config(url)).await
    }

    pub(crate) async fn with(config: Config) -> Self {
        let app = App::start(config).await.expect("the app starts");
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a port");
        let address = listener.local_addr().expect("bound");
        let stop = CancellationToken::new();
        let router = router(&app);
        let stopped = stop.clone().cancelled_owned();
        tokio::spawn(async move {
            axum::serve(listener, router)
                .with_graceful_shutdown(stopped)
                .await
        });
        Self { app, address, stop }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        self.app.shutdown.cancel();
        self.stop.cancel();
    }
}

pub(crate) fn router(app: &App) -> Router {
    let router = with_told_misses(
        Router::new()
            .merge(tailspan_ingest::router(app.clone()))
            .merge(tailspan_query::router(app.clone()))
            .merge(tailspan_stream::router(app.clone()))
            .merge(tailspan_cleanup::router(app.clone()))
            .merge(tailspan_evaluate::router(app.clone()))
            .merge(tailspan_socket::router(app.clone())),
    );
    cors::shared_with(router, &app.config.cors_origins)
}

/// One frame of an event stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) id: Option<String>,
    /// Empty for data frames.
    pub(crate) name: String,
    pub(crate) data: String,
}

impl Frame {
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.data).expect("data is JSON")
    }
}

/// A client whose every request takes a connection of its own, so that a cut costs one stream.
fn unpooled() -> &'static reqwest::Client {
    static CLIENT: std::sync::OnceLock<reqwest::Client> = std::sync::OnceLock::new();
    CLIENT.get_or_init(|| {
        let client = reqwest::Client::builder()
            .no_proxy()
            .pool_max_idle_per_host(0);
        client.build().expect("a client")
    })
}

/// A client that goes straight to where it is sent, and does not wait for ever.
pub(crate) fn http() -> reqwest::Client {
    reqwest::Client::builder()
        .no_proxy()
        .timeout(Duration::from_secs(20))
        .build()
        .expect("a client")
}

/// A client that reads an event stream as the HTML standard says.
pub(crate) struct Viewer {
    pub(crate) last_event_id: Option<String>,
    body: std::pin::Pin<Box<dyn futures::Stream<Item = reqwest::Result<bytes::Bytes>> + Send>>,
    buffer: Vec<u8>,
}

impl Viewer {
    pub(crate) async fn open(url: &str, last_event_id: Option<&str>) -> Result<Self> {
        let mut request = unpooled().get(url).header("accept", "text/event-stream");
        if let Some(id) = last_event_id {
            request = request.header("last-event-id", id);
        }
        let response = request.send().await?;
        if response.status() != 200 {
            bail!("{} {}", response.status().as_u16(), response.text().await?);
        }
        let mut viewer = Self::of(response);
        viewer.last_event_id = last_event_id.map(str::to_owned);
        Ok(viewer)
    }

    /// A reader of an answer that is a stream.
    pub(crate) fn of(response: reqwest::Response) -> Self {
        Self {
            last_event_id: None,
            body: Box::pin(response.bytes_stream()),
            buffer: Vec::new(),
        }
    }

    /// The next frame with data; `None` at the end of the stream.
    pub(crate) async fn next(&mut self) -> Result<Option<Frame>> {
        loop {
            match self.next_or_heartbeat().await? {
                Some(frame) if frame.data.is_empty() => {}
                other => return Ok(other),
            }
        }
    }

    /// The next block, also one without data. A block that was cut is dropped, as a browser does.
    pub(crate) async fn next_or_heartbeat(&mut self) -> Result<Option<Frame>> {
        loop {
            if let Some(end) = self.buffer.windows(2).position(|pair| pair == b"\n\n") {
                let text: Vec<u8> = self.buffer.drain(..end + 2).collect();
                return Ok(Some(self.frame(std::str::from_utf8(&text)?)));
            }
            match self.body.next().await {
                Some(bytes) => self.buffer.extend_from_slice(&bytes?),
                None => return Ok(None),
            }
        }
    }

    /// As [`Viewer::next`], at most this long.
    pub(crate) async fn soon(&mut self) -> Result<Option<Frame>> {
        tokio::time::timeout(Duration::from_secs(15), self.next())
            .await
            .context("no frame within 15 s")?
    }

    /// Everything up to the end of the stream.
    pub(crate) async fn rest(&mut self) -> Result<Vec<Frame>> {
        let mut frames = Vec::new();
        while let Some(frame) = self.soon().await? {
            frames.push(frame);
        }
        Ok(frames)
    }

    fn frame(&mut self, text: &str) -> Frame {
        let mut frame = Frame::default();
        for line in text.lines() {
            let (field, value) = line.split_once(": ").unwrap_or((line, ""));
            match field {
                "id" => {
                    frame.id = Some(value.to_owned());
                    self.last_event_id = Some(value.to_owned());
                }
                "event" => frame.name = value.to_owned(),
                "data" => frame.data.push_str(value),
                _ => {}
            }
        }
        frame
    }
}
