//! A typed client of a running server: where it is, what it answers, and in plain words why it does not.

use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use reqwest::{Response, StatusCode, header};
use serde::de::DeserializeOwned;
use tailspan_core::files::send;

/// Where the server is and who asks.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Server")]
pub struct ServerOptions {
    /// Address of the running server
    #[arg(
        long,
        env = "TAILSPAN_URL",
        value_name = "URL",
        default_value = "http://127.0.0.1:8001"
    )]
    pub url: String,

    /// Its token, where it asks for one
    #[arg(long, env = "TAILSPAN_TOKEN", hide_env_values = true)]
    pub token: Option<String>,
}

const CONNECT: Duration = Duration::from_secs(5);
/// A heartbeat comes every 15 s: a stream that is silent for longer than two of them and a bit is dead.
const SILENCE: Duration = Duration::from_secs(40);
/// A whole answer, where it is not a stream.
const ANSWER: Duration = Duration::from_secs(60);
/// The largest page of events is 4 MiB and one event; the tree of 65,536 spans is about 30 MB.
const MOST_ANSWER_BYTES: usize = 256 << 20;
/// One event: what is stored of it is less than 17 MiB.
const MOST_FRAME_BYTES: usize = 64 << 20;
/// How long one request waits on the server for a trace to begin: less than [`SILENCE`], so that a dead server is noticed.
const WAIT: Duration = Duration::from_secs(20);
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

const PATH: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'%')
    .add(b'/')
    .add(b'<')
    .add(b'>')
    .add(b'?')
    .add(b'`')
    .add(b'{')
    .add(b'}');

/// Why there is no answer, for a person.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error("\"{0}\" is no address of a server: expected something like http://127.0.0.1:8001")]
    Address(String),
    #[error(
        "no server answers at {url}: start one with `tailspan serve`, or say where it is with --url or TAILSPAN_URL ({cause})"
    )]
    Unreachable { url: String, cause: String },
    #[error("the server at {url} broke off: {cause}")]
    Broken { url: String, cause: String },
    #[error(
        "the server at {0} asks for a token: pass the one that it printed at its start with --token or TAILSPAN_TOKEN"
    )]
    Unauthorised(String),
    #[error("{message} ({code})")]
    Refused {
        status: StatusCode,
        code: String,
        message: String,
        retry_after: Option<Duration>,
    },
    #[error("the answer of {url} is not what a tailspan server says: {cause}")]
    Strange { url: String, cause: String },
}

impl Failure {
    /// The thing that was asked for is not there.
    pub(crate) fn is_absent(&self) -> bool {
        matches!(self, Self::Refused { status, .. } if *status == StatusCode::NOT_FOUND)
    }

    /// Worth asking again in a while.
    pub(super) fn passes(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Broken { .. } => true,
            Self::Refused { status, .. } => {
                status.is_server_error() || *status == StatusCode::TOO_MANY_REQUESTS
            }
            Self::Address(_) | Self::Unauthorised(_) | Self::Strange { .. } => false,
        }
    }
}

type Result<T> = std::result::Result<T, Failure>;

/// One server; cheap to clone.
#[derive(Clone, Debug)]
pub struct Client {
    http: reqwest::Client,
    base: Arc<str>,
    token: Option<Arc<str>>,
}

impl Client {
    /// # Errors
    /// The address is none, or this machine's roots of trust cannot be used.
    pub fn new(options: &ServerOptions) -> Result<Self> {
        let base = options.url.trim().trim_end_matches('/');
        let url = reqwest::Url::parse(base)
            .ok()
            .filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
            .ok_or_else(|| Failure::Address(options.url.clone()))?;
        let mut http = reqwest::Client::builder()
            .connect_timeout(CONNECT)
            .read_timeout(SILENCE)
            .user_agent(concat!("tailspan/", env!("CARGO_PKG_VERSION")));
        // Nobody reaches a server of this machine by a proxy.
        if url.host_str().is_some_and(crate::guard::is_loopback) {
            http = http.no_proxy();
        }
        if url.scheme() == "https" {
            let mut roots = rustls::RootCertStore::empty();
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            let tls = rustls::ClientConfig::builder()
                .with_root_certificates(roots)
                .with_no_client_auth();
            http = http.use_preconfigured_tls(tls);
        }
        let token = options.token.as_deref().map(str::trim);
        Ok(Self {
            http: http
                .build()
                .map_err(|error| Failure::Address(format!("{}: {error}", options.url)))?,
            base: base.into(),
            token: token.filter(|token| !token.is_empty()).map(Arc::from),
        })
    }

    /// Where it is, for people.
    pub(crate) fn url(&self) -> &str {
        &self.base
    }

    /// The answer to `GET path`, as text.
    ///
    /// # Errors
    /// There is none, or another status than 2xx.
    pub(crate) async fn text(&self, path: &str, query: &Query) -> Result<String> {
        let answer = self.get(path, query, None);
        self.whole(answer).await
    }

    /// The answer to `GET path`, read.
    ///
    /// # Errors
    /// As [`Client::text`]; or it is something else.
    pub(crate) async fn json<T: DeserializeOwned>(&self, path: &str, query: &Query) -> Result<T> {
        let text = self.text(path, query).await?;
        self.read(&text)
    }

    /// The answer to a JSON that is posted.
    ///
    /// # Errors
    /// As [`Client::json`].
    pub(crate) async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &serde_json::Value,
    ) -> Result<T> {
        let request = self.http.post(format!("{}{path}", self.base)).json(body);
        let text = self.whole(self.send(request)).await?;
        self.read(&text)
    }

    /// The answer to a JSON that is posted with these parameters.
    ///
    /// # Errors
    /// As [`Client::json`].
    pub(crate) async fn post_with<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &Query,
        body: &serde_json::Value,
    ) -> Result<T> {
        let request = self.http.post(format!("{}{path}", self.base));
        let request = request.query(&query.0).json(body);
        let text = self.whole(self.send(request)).await?;
        self.read(&text)
    }

    /// Removes what is at a path.
    ///
    /// # Errors
    /// There is no answer, or another status than 2xx.
    pub(crate) async fn delete(&self, path: &str, query: &Query) -> Result<()> {
        let request = self.http.delete(format!("{}{path}", self.base));
        self.send(request.query(&query.0)).await.map(|_| ())
    }

    /// The answer to bytes that are posted, with these headers.
    ///
    /// # Errors
    /// There is none, or another status than 2xx.
    pub(crate) async fn post_bytes(
        &self,
        path: &str,
        headers: &[(&'static str, &str)],
        body: bytes::Bytes,
    ) -> Result<bytes::Bytes> {
        let mut request = self.http.post(format!("{}{path}", self.base)).body(body);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = self.send(request).await?;
        answer.bytes().await.map_err(|error| Failure::Broken {
            url: self.base.to_string(),
            cause: causes(&error),
        })
    }

    /// The answer to `GET path`, part by part as it comes; it may have any length.
    ///
    /// # Errors
    /// There is none, another status than 2xx, or it breaks off.
    pub(crate) async fn download(
        &self,
        path: &str,
        query: &Query,
        mut take: impl FnMut(&[u8]) -> std::io::Result<()>,
    ) -> anyhow::Result<()> {
        let mut answer = self.get(path, query, None).await?;
        loop {
            let part = answer.chunk().await.map_err(|error| Failure::Broken {
                url: self.base.to_string(),
                cause: causes(&error),
            })?;
            match part {
                Some(part) => take(&part)?,
                None => return Ok(()),
            }
        }
    }

    fn read<T: DeserializeOwned>(&self, text: &str) -> Result<T> {
        serde_json::from_str(text).map_err(|error| Failure::Strange {
            url: self.base.to_string(),
            cause: error.to_string(),
        })
    }

    async fn whole(&self, answer: impl Future<Output = Result<Response>>) -> Result<String> {
        let broken = |cause: String| Failure::Broken {
            url: self.base.to_string(),
            cause,
        };
        let read = async {
            let mut answer = answer.await?;
            let mut body = Vec::new();
            while let Some(part) = answer
                .chunk()
                .await
                .map_err(|error| broken(causes(&error)))?
            {
                if body.len() + part.len() > MOST_ANSWER_BYTES {
                    return Err(broken("its answer has no end".to_owned()));
                }
                body.extend_from_slice(&part);
            }
            String::from_utf8(body).map_err(|_| Failure::Strange {
                url: self.base.to_string(),
                cause: "not UTF-8".to_owned(),
            })
        };
        match tokio::time::timeout(ANSWER, read).await {
            Ok(read) => read,
            Err(_) => Err(broken(format!("no answer within {} s", ANSWER.as_secs()))),
        }
    }

    async fn get(&self, path: &str, query: &Query, cursor: Option<&str>) -> Result<Response> {
        let mut request = self
            .http
            .get(format!("{}{path}", self.base))
            .query(&query.0);
        if let Some(cursor) = cursor {
            request = request.header("last-event-id", cursor);
        }
        self.send(request).await
    }

    async fn send(&self, mut request: reqwest::RequestBuilder) -> Result<Response> {
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        let began = Instant::now();
        let answer = request.send().await.map_err(|error| {
            let (url, cause) = (self.base.to_string(), causes(&error));
            match error.is_connect() {
                true => Failure::Unreachable { url, cause },
                false => Failure::Broken { url, cause },
            }
        })?;
        let status = answer.status();
        tracing::debug!(path = answer.url().path(), %status, elapsed = ?began.elapsed(), "answered");
        match status {
            status if status.is_success() => Ok(answer),
            StatusCode::UNAUTHORIZED => Err(Failure::Unauthorised(self.base.to_string())),
            status => Err(refusal(status, answer).await),
        }
    }

    /// Follows a stream from its beginning, or from what the query says.
    pub(crate) fn follow(&self, path: String, query: Query) -> Follow {
        Follow {
            client: self.clone(),
            path,
            query,
            cursor: None,
            open: None,
            has_been_open: false,
            pause: FIRST_PAUSE,
        }
    }

    /// Waits until there is a trace, at most so long.
    ///
    /// # Errors
    /// There is none after that time (404), or no answer.
    pub(crate) async fn wait_for_trace(&self, trace: &str, at_most: Duration) -> Result<()> {
        let end = Instant::now() + at_most;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let wait = format!("{}ms", left.min(WAIT).as_millis());
            let query = Query::new()
                .with("wait", Some(wait))
                .with("from", Some("now"));
            let answer = self.get(&trace_path(trace, "/stream"), &query, None).await;
            match answer {
                Err(failure) if failure.is_absent() && Instant::now() < end => {}
                answer => return answer.map(drop),
            }
        }
    }
}

/// What an answer that is no success says.
async fn refusal(status: StatusCode, answer: Response) -> Failure {
    let retry_after = answer
        .headers()
        .get(header::RETRY_AFTER)
        .and_then(|after| after.to_str().ok()?.parse().ok())
        .map(Duration::from_secs);
    // Errors are short; whatever else stands there is not read to its end.
    let is_protobuf = answer
        .headers()
        .get(header::CONTENT_TYPE)
        .is_some_and(|kind| kind == "application/x-protobuf");
    let body = tokio::time::timeout(CONNECT, head(answer)).await;
    let body = body.unwrap_or_default();
    let text = String::from_utf8_lossy(&body);
    let said: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
    let word = |name: &str| said.pointer(name).and_then(serde_json::Value::as_str);
    let of_otlp = is_protobuf.then(|| send::refusal(&body)).flatten();
    let detail = word("/error/message")
        .or_else(|| word("/detail"))
        .or(of_otlp.as_deref());
    Failure::Refused {
        status,
        code: word("/error/code").unwrap_or(status.as_str()).to_owned(),
        message: match detail {
            Some(message) => message.to_owned(),
            None => status.canonical_reason().unwrap_or("refused").to_owned(),
        },
        retry_after,
    }
}

async fn head(mut answer: Response) -> Vec<u8> {
    let mut body = Vec::new();
    while body.len() < 64 << 10 {
        match answer.chunk().await {
            Ok(Some(part)) => body.extend_from_slice(&part),
            _ => break,
        }
    }
    body
}

/// The innermost cause says what happened; those around it repeat what was tried.
fn causes(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

/// The path of a trace, or of something below it.
pub(crate) fn trace_path(trace: &str, below: &str) -> String {
    format!("/traces/{}{below}", utf8_percent_encode(trace, PATH))
}

/// The path of a session by its name, or of something below it.
pub(crate) fn session_path(name: &str, below: &str) -> String {
    format!("/sessions/{}{below}", utf8_percent_encode(name, PATH))
}

/// Parameters of a request.
#[derive(Clone, Debug, Default)]
pub(crate) struct Query(Vec<(&'static str, String)>);

impl Query {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// With this one, if there is a value.
    pub(crate) fn with<T: Into<String>>(mut self, name: &'static str, value: Option<T>) -> Self {
        self.0.extend(value.map(|value| (name, value.into())));
        self
    }
}

/// A frame of a stream that says something.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Frame {
    /// `gap` or `end`; a data frame has none.
    pub event: Option<String>,
    pub data: String,
}

/// What following a stream comes to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next {
    Frame(Frame),
    /// The server said that everything was shown and that nothing more comes.
    Over,
    /// The connection was lost, or refused for now: it is tried again after a pause. Told once for each time.
    Lost(String),
    /// It was lost and is there again.
    Back,
}

/// A stream that goes on where it was cut: the server keeps the place, this keeps the cursor.
pub(crate) struct Follow {
    client: Client,
    path: String,
    query: Query,
    cursor: Option<String>,
    open: Option<Lines>,
    has_been_open: bool,
    pause: Duration,
}

impl Follow {
    /// Where it goes on.
    pub(crate) fn cursor(&self) -> Option<&str> {
        self.cursor.as_deref()
    }

    /// The next thing to tell. Not to be cancelled halfway: a connection that is being made would be lost with it.
    ///
    /// # Errors
    /// The server cannot be reached at first, or refuses for good.
    pub(crate) async fn next(&mut self) -> Result<Next> {
        loop {
            let Some(lines) = &mut self.open else {
                let was_lost = self.pause > FIRST_PAUSE;
                let answer = self
                    .client
                    .get(&self.path, &self.query, self.cursor.as_deref())
                    .await;
                match answer {
                    Ok(answer) if answer.status() == StatusCode::NO_CONTENT => {
                        return Ok(Next::Over);
                    }
                    Ok(answer) => {
                        self.open = Some(Lines::of(answer));
                        self.has_been_open = true;
                        if was_lost {
                            return Ok(Next::Back);
                        }
                        continue;
                    }
                    Err(failure) if failure.passes() && self.has_been_open => {
                        let first = !was_lost;
                        self.rest(&failure).await;
                        if first {
                            return Ok(Next::Lost(failure.to_string()));
                        }
                        continue;
                    }
                    Err(failure) => return Err(failure),
                }
            };
            match lines.next().await {
                Ok(Some(event)) => {
                    self.pause = FIRST_PAUSE;
                    if let Some(id) = event.id {
                        self.cursor = Some(id);
                    }
                    if let Some(frame) = event.frame {
                        return Ok(Next::Frame(frame));
                    }
                }
                // Closed after its lifetime, or cut: the cursor goes on. All viewers of a server were cut together.
                Ok(None) | Err(_) => {
                    self.open = None;
                    tokio::time::sleep(FIRST_PAUSE.mul_f64(rand::random())).await;
                }
            }
        }
    }

    /// Waits longer each time, up to [`LONGEST_PAUSE`], and for as long as the server asks.
    async fn rest(&mut self, failure: &Failure) {
        let asked = match failure {
            Failure::Refused { retry_after, .. } => *retry_after,
            _ => None,
        };
        let asked = asked.unwrap_or_default().min(Duration::from_secs(60));
        let jitter = 0.5 + rand::random::<f64>() / 2.0;
        tokio::time::sleep(self.pause.mul_f64(jitter).max(asked)).await;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
    }
}

/// An event of a stream: its id even where it says nothing else.
#[derive(Debug, Default)]
struct Event {
    id: Option<String>,
    frame: Option<Frame>,
}

/// Server-sent events out of a body.
struct Lines {
    answer: Response,
    held: Vec<u8>,
    /// So much of `held` was read.
    read: usize,
    /// So much of it was searched for an end of line.
    searched: usize,
}

impl Lines {
    fn of(answer: Response) -> Self {
        Self {
            answer,
            held: Vec::new(),
            read: 0,
            searched: 0,
        }
    }

    /// `None` when the body ended.
    async fn next(&mut self) -> std::result::Result<Option<Event>, String> {
        let mut event = Event::default();
        let (mut name, mut data) = (None, None::<String>);
        loop {
            let Some(line) = self.line().await? else {
                return Ok(None);
            };
            if line.is_empty() {
                if let Some(data) = data.take() {
                    event.frame = Some(Frame { event: name, data });
                }
                if event.id.is_some() || event.frame.is_some() {
                    return Ok(Some(event));
                }
                name = None;
                continue;
            }
            let (field, value) = line.split_once(':').unwrap_or((&line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match field {
                "id" => event.id = Some(value.to_owned()),
                "event" => name = Some(value.to_owned()),
                "data" => {
                    let data = data.get_or_insert_default();
                    if !data.is_empty() {
                        data.push('\n');
                    }
                    if data.len() + value.len() > MOST_FRAME_BYTES {
                        return Err("a frame without end".to_owned());
                    }
                    data.push_str(value);
                }
                _ => {}
            }
        }
    }

    async fn line(&mut self) -> std::result::Result<Option<String>, String> {
        loop {
            let fresh = self.held.get(self.searched..).unwrap_or_default();
            if let Some(at) = fresh.iter().position(|byte| *byte == b'\n') {
                let end = self.searched + at;
                let line = self.held.get(self.read..end).unwrap_or_default();
                let line = line.strip_suffix(b"\r").unwrap_or(line);
                let line = String::from_utf8_lossy(line).into_owned();
                self.read = end + 1;
                self.searched = self.read;
                return Ok(Some(line));
            }
            self.searched = self.held.len();
            let Some(part) = self.answer.chunk().await.map_err(|e| causes(&e))? else {
                return Ok(None);
            };
            // What was read goes before more is held: each byte is moved at most once per part that it waited for.
            self.held.drain(..self.read);
            self.searched -= self.read;
            self.read = 0;
            if self.held.len() + part.len() > MOST_FRAME_BYTES {
                return Err("a line without end".to_owned());
            }
            self.held.extend_from_slice(&part);
        }
    }
}
