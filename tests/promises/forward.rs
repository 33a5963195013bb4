//! What comes in reaches another backend as it was sent: each span once, also when the backend was away; twice only when who forwarded was killed.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Read as _,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode, Uri},
    response::{IntoResponse as _, Response},
};
use prost::Message as _;
use serde_json::json;
use tailspan_core::wire;
use tailspan_service::{config::Config, forward::Targets, metrics::Reason};

use crate::{
    faults::Process,
    gate::{Gate, Stop},
    mesh::until,
    support::{Instance, RedisServer, ReservedPort, config, http},
};

/// The fields of a protobuf message that are messages, texts or bytes, by their numbers: read by the wire format alone, so that the product's own types are not asked about themselves.
fn fields(mut message: &[u8]) -> Vec<(u64, &[u8])> {
    fn varint(message: &mut &[u8]) -> u64 {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = message.split_first().expect("a varint ends");
            *message = rest;
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                break;
            }
        }
        number
    }
    let mut found = Vec::new();
    while !message.is_empty() {
        let tag = varint(&mut message);
        let length = match tag & 7 {
            0 => {
                varint(&mut message);
                continue;
            }
            1 => 8,
            5 => 4,
            2 => usize::try_from(varint(&mut message)).unwrap(),
            other => panic!("wire type {other}"),
        };
        let (value, rest) = message.split_at(length);
        if tag & 7 == 2 {
            found.push((tag >> 3, value));
        }
        message = rest;
    }
    found
}

fn under(message: &[u8], number: u64) -> Vec<&[u8]> {
    let all = fields(message).into_iter();
    all.filter_map(|(field, value)| (field == number).then_some(value))
        .collect()
}

/// A backend that takes spans and log records, or not.
#[derive(Clone, Default)]
struct Backend {
    /// Requests that are still to be refused, and how.
    refuses: Arc<AtomicUsize>,
    with: Arc<Mutex<Option<StatusCode>>>,
    /// By path and trace id, span id: the items as they came.
    got: Arc<Mutex<BTreeMap<(String, Vec<u8>, Vec<u8>), Vec<Vec<u8>>>>>,
    resources: Arc<Mutex<BTreeSet<Vec<u8>>>>,
    /// What each answer that takes something says.
    answer: Arc<Mutex<Vec<u8>>>,
    asked: Arc<AtomicUsize>,
}

impl Backend {
    async fn start() -> (Self, SocketAddr) {
        let backend = Self::default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().fallback(take).with_state(backend.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        (backend, address)
    }

    fn refuse(&self, times: usize, with: StatusCode) {
        *self.with.lock().unwrap() = Some(with);
        self.refuses.store(times, Ordering::SeqCst);
    }

    /// How often each span came.
    fn spans(&self) -> BTreeMap<Vec<u8>, usize> {
        let got = self.got.lock().unwrap();
        let spans = got.iter().filter(|((path, ..), _)| path == "/v1/traces");
        spans
            .map(|((_, _, span), items)| (span.clone(), items.len()))
            .collect()
    }
}

async fn take(
    State(backend): State<Backend>,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    backend.asked.fetch_add(1, Ordering::SeqCst);
    let less = |left: usize| left.checked_sub(1);
    let refused = backend
        .refuses
        .fetch_update(Ordering::SeqCst, Ordering::SeqCst, less);
    if refused.is_ok() {
        let with = backend.with.lock().unwrap().unwrap();
        return (with, [("retry-after", "1")]).into_response();
    }
    assert_eq!(headers["content-type"], "application/x-protobuf");
    assert_eq!(headers["content-encoding"], "gzip");
    assert_eq!(headers["x-key"], "for the backend");
    let mut message = Vec::new();
    flate2::read::GzDecoder::new(&body[..])
        .read_to_end(&mut message)
        .unwrap();
    let (id, span) = match uri.path() {
        "/v1/traces" => (1, 2),
        "/v1/logs" => (9, 10),
        other => panic!("{other}"),
    };
    let mut got = backend.got.lock().unwrap();
    for resource in under(&message, 1) {
        backend
            .resources
            .lock()
            .unwrap()
            .extend(under(resource, 1).iter().map(|one| one.to_vec()));
        for scope in under(resource, 2) {
            for item in under(scope, 2) {
                let one = |number| under(item, number)[0].to_vec();
                let key = (uri.path().to_owned(), one(id), one(span));
                got.entry(key).or_default().push(item.to_vec());
            }
        }
    }
    backend.answer.lock().unwrap().clone().into_response()
}

fn file(address: SocketAddr) -> String {
    format!(
        "targets: {{backend: {{url: 'http://{address}', headers: {{x-key: for the backend}}, timeout_seconds: 1}}}}"
    )
}

fn to(url: &str, address: SocketAddr) -> Config {
    let mut config = config(url);
    config.forward = Targets::parse(&file(address), |_| None).unwrap();
    config
}

async fn working(config: Config) -> Instance {
    let instance = Instance::with(config).await;
    tokio::spawn(tailspan_worker::run(instance.app.clone(), |_| {}));
    instance
}

fn text(key: &str, value: &str) -> wire::KeyValue {
    let value = wire::any_value::Value::String(value.to_owned());
    wire::KeyValue {
        key: key.to_owned(),
        value: Some(wire::AnyValue { value: Some(value) }),
    }
}

fn span(trace: u8, number: u64) -> wire::Span {
    wire::Span {
        trace_id: Bytes::from(vec![trace; 16]),
        span_id: Bytes::copy_from_slice(&number.to_be_bytes()),
        parent_span_id: Bytes::from_static(b"a parent"),
        name: format!("step {number}"),
        kind: 3,
        start_time_unix_nano: 1_763_683_200_000_000_000 + number,
        end_time_unix_nano: 1_763_683_201_000_000_000 + number,
        attributes: vec![
            text("gen_ai.operation.name", "chat"),
            text("long", &format!("{number} ").repeat(2_000)),
        ],
        dropped_attributes_count: 3,
        status: Some(wire::Status {
            message: "no".to_owned(),
            code: 2,
        }),
        flags: 257,
        ..wire::Span::default()
    }
}

/// Sends items as a client of OTLP does; returns the resource as it was encoded.
async fn send(base: &str, path: &str, service: &str, items: Vec<Bytes>) -> Vec<u8> {
    let resource = wire::Resource {
        attributes: vec![text("service.name", service)],
    };
    let request = wire::ExportRequest {
        resources: vec![wire::ResourceItems {
            resource: Some(resource.clone()),
            scopes: vec![wire::ScopeItems {
                scope: Some(wire::Scope {
                    name: "scope".to_owned(),
                    ..wire::Scope::default()
                }),
                items,
                ..wire::ScopeItems::default()
            }],
            ..wire::ResourceItems::default()
        }],
    };
    let response = http()
        .post(format!("{base}{path}"))
        .header("content-type", "application/x-protobuf")
        .body(request.encode_to_vec())
        .send()
        .await
        .unwrap();
    assert_eq!(response.status(), 200);
    resource.encode_to_vec()
}

async fn send_spans(base: &str, trace: u8, numbers: std::ops::Range<u64>) -> BTreeSet<Vec<u8>> {
    let spans: Vec<_> = numbers.map(|number| span(trace, number)).collect();
    let items = spans.iter().map(|span| span.encode_to_vec().into());
    send(base, "/v1/traces", "agent", items.collect()).await;
    spans.iter().map(|span| span.span_id.to_vec()).collect()
}

fn not_forwarded(instance: &Instance, reason: &'static str) -> u64 {
    let metrics = &instance.app.metrics.not_forwarded;
    metrics.get_or_create(&Reason { reason }).get()
}

#[tokio::test]
async fn spans_and_logs_go_on_as_they_were_sent() {
    let redis = RedisServer::start().await;
    let (backend, address) = Backend::start().await;
    let instance = working(to(&redis.url(), address)).await;
    let base = instance.url("");
    let spans: Vec<_> = (1..=3).map(|number| span(7, number)).collect();
    let items: Vec<Bytes> = spans.iter().map(|span| span.encode_to_vec().into()).collect();
    let resource = send(&base, "/v1/traces", "agent", items.clone()).await;
    let log = wire::LogRecord {
        time_unix_nano: 1_763_683_200_000_000_000,
        body: Some(wire::AnyValue {
            value: Some(wire::any_value::Value::String("said".to_owned())),
        }),
        trace_id: Bytes::from(vec![7; 16]),
        span_id: spans[0].span_id.clone(),
        ..wire::LogRecord::default()
    };
    send(&base, "/v1/logs", "agent", vec![log.encode_to_vec().into()]).await;
    let event = json!({"event_type": "step", "span_id": "step"});
    let url = instance.url("/traces/named/events");
    http().post(url).json(&event).send().await.unwrap();
    until("all came", async || {
        backend.got.lock().unwrap().len() == 4 && not_forwarded(&instance, "no_otlp") == 1
    })
    .await;
    {
        let got = backend.got.lock().unwrap();
        for (span, item) in spans.iter().zip(&items) {
            let key = (
                "/v1/traces".to_owned(),
                vec![7; 16],
                span.span_id.to_vec(),
            );
            assert_eq!(got[&key], [item.to_vec()], "byte by byte, once");
        }
        let key = ("/v1/logs".to_owned(), vec![7; 16], log.span_id.to_vec());
        assert_eq!(got[&key], [log.encode_to_vec()]);
        let resources = backend.resources.lock().unwrap();
        assert_eq!(*resources, BTreeSet::from([resource]));
    }
    // What the backend does not take of a request is counted, and not sent again.
    let partial = wire::ExportResponse {
        partial_success: Some(wire::PartialSuccess {
            rejected: 2,
            error_message: "too old".to_owned(),
        }),
    };
    *backend.answer.lock().unwrap() = partial.encode_to_vec();
    send_spans(&base, 7, 10..13).await;
    until("they are counted", async || {
        not_forwarded(&instance, "rejected") == 2
    })
    .await;
    assert_eq!(instance.app.metrics.forwarded.get(), 4 + 1);
    // Nor is what it refuses.
    backend.answer.lock().unwrap().clear();
    backend.refuse(1, StatusCode::BAD_REQUEST);
    send_spans(&base, 7, 20..23).await;
    until("they are counted", async || {
        not_forwarded(&instance, "refused") == 3
    })
    .await;
    // One that is too large comes in parts.
    backend.refuse(1, StatusCode::PAYLOAD_TOO_LARGE);
    let sent = send_spans(&base, 7, 30..34).await;
    until("both halves came", async || {
        let got = backend.spans();
        sent.iter().all(|span| got.get(span) == Some(&1))
    })
    .await;
}

#[tokio::test]
async fn a_backend_that_was_away_gets_what_it_missed_once() {
    let redis = RedisServer::start().await;
    let (backend, address) = Backend::start().await;
    backend.refuse(usize::MAX, StatusCode::SERVICE_UNAVAILABLE);
    let instance = working(to(&redis.url(), address)).await;
    // Two processes; one of them forwards.
    let _other = working(to(&redis.url(), address)).await;
    let base = instance.url("");
    let mut expected = BTreeSet::new();
    for trace in 1..=20 {
        let first = u64::from(trace) * 100;
        expected.extend(send_spans(&base, trace, first..first + 10).await);
    }
    let gone = send_spans(&base, 99, 1..4).await;
    until("it was asked in vain", async || {
        backend.asked.load(Ordering::SeqCst) >= 2
    })
    .await;
    assert!(instance.app.count_to_forward().await.unwrap() >= 21);
    // Retention takes one of them meanwhile.
    let tag = format!("{{default/{}}}", "63".repeat(16));
    let keys = ["events", "trace", "seen", "blobs", "fold"].map(|key| format!("{tag}:{key}"));
    let command: Vec<_> = ["DEL"].into_iter().chain(keys.iter().map(String::as_str)).collect();
    redis.cli(&command).await;
    for trace in 1..=20 {
        let first = u64::from(trace) * 100 + 50;
        expected.extend(send_spans(&base, trace, first..first + 2).await);
    }
    backend.refuse(1, StatusCode::TOO_MANY_REQUESTS);
    until("all came", async || backend.spans().len() >= expected.len()).await;
    until("nothing waits", async || {
        instance.app.count_to_forward().await.unwrap() == 0
    })
    .await;
    let got = backend.spans();
    assert_eq!(got.keys().cloned().collect::<BTreeSet<_>>(), expected);
    assert!(got.values().all(|times| *times == 1), "{got:?}");
    assert!(gone.is_disjoint(&expected));
    let lost = not_forwarded(&instance, "removed") + not_forwarded(&_other, "removed");
    assert_eq!(lost, 1, "a trace that was removed before is counted");
}

/// Where a forwarder is killed.
#[derive(Clone, Copy, Debug)]
enum Point {
    BeforeTheLease,
    LeaseUnheard,
    /// The backend has them, and their places are not written down.
    BeforeThePlace,
    PlaceUnheard,
}

impl Point {
    const ALL: [Self; 4] = [
        Self::BeforeTheLease,
        Self::LeaseUnheard,
        Self::BeforeThePlace,
        Self::PlaceUnheard,
    ];

    fn stop(self) -> Stop {
        let at = |part, passes| Stop {
            part,
            sent: true,
            passes,
            after: 0,
        };
        match self {
            Self::BeforeTheLease => at(b"}:forward:lease:backend\r\n", false),
            Self::LeaseUnheard => at(b"}:forward:lease:backend\r\n", true),
            // Asking for a place ends with its name; writing it goes on.
            Self::BeforeThePlace => at(b"fwd:backend\r\n$", false),
            Self::PlaceUnheard => at(b"fwd:backend\r\n$", true),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forwarders_killed_at_named_points_leave_no_span_out() {
    let redis = RedisServer::start().await;
    let gate = Gate::before(SocketAddr::from(([127, 0, 0, 1], redis.port))).await;
    let url = format!("redis://{}", gate.address);
    let port = ReservedPort::take();
    let (backend, address) = Backend::start().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("forward.yaml");
    std::fs::write(&path, file(address)).unwrap();
    let start = || {
        let variables = [("TAILSPAN_FORWARD", path.display().to_string())];
        let variables = variables.map(|(name, value)| (name.to_owned(), value));
        Process::with(port.number, &url, variables.to_vec())
    };
    let intake = Instance::start(&redis.url()).await;
    let base = intake.url("");
    let mut expected = BTreeSet::new();
    for kill in 0..8_u8 {
        let point = Point::ALL[usize::from(kill) % Point::ALL.len()];
        for trace in 1..=3 {
            let first = u64::from(kill) * 1_000 + u64::from(trace) * 100;
            expected.extend(send_spans(&base, trace, first..first + 5).await);
        }
        gate.arm(Some(point.stop()));
        let process = tokio::task::block_in_place(start);
        // The lease of the one before runs out first.
        tokio::time::timeout(Duration::from_secs(40), gate.reached())
            .await
            .unwrap_or_else(|_| panic!("{point:?} is never reached"));
        drop(process);
    }
    gate.arm(None);
    let process = tokio::task::block_in_place(start);
    until("all came", async || backend.spans().len() >= expected.len()).await;
    let got = backend.spans();
    assert_eq!(got.keys().cloned().collect::<BTreeSet<_>>(), expected);
    let twice = got.values().filter(|times| **times > 1).count();
    // Of each process that was killed with places in hand, what it had sent.
    assert!(twice <= 4 * 15 * 2, "{twice} came more than once");
    assert!(got.values().all(|times| *times <= 5));
    drop(process);
}
