//! Whoever is to be told of a run is told: once after de-duplication by id, signed, whatever the receiver answers and whichever worker dies.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse as _, Response},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tailspan_service::{config::Config, webhooks::Webhooks};

use crate::{
    faults::Process,
    gate::{Gate, Stop},
    mesh::until,
    support::{Instance, RedisServer, ReservedPort, config, http},
};

const SECRET: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";

/// HMAC-SHA256 by its definition (RFC 2104), so that the product's own is not asked about itself.
fn hmac(key: &[u8], text: &[u8]) -> Vec<u8> {
    let pad = |byte: u8| -> Vec<u8> {
        let mut block: Vec<u8> = key.iter().map(|b| b ^ byte).collect();
        block.resize(64, byte);
        block
    };
    let inner = Sha256::new().chain_update(pad(0x36)).chain_update(text);
    let outer = Sha256::new().chain_update(pad(0x5c));
    outer.chain_update(inner.finalize()).finalize().to_vec()
}

/// What came under one id.
#[derive(Clone, Debug, Default)]
struct Got {
    attempts: usize,
    accepted: usize,
    bodies: BTreeSet<Vec<u8>>,
}

impl Got {
    fn json(&self) -> Value {
        serde_json::from_slice(self.bodies.first().unwrap()).unwrap()
    }
}

/// A receiver that checks each signature, and refuses each id a few times.
#[derive(Clone, Default)]
pub(crate) struct Receiver {
    refuses: usize,
    got: Arc<Mutex<HashMap<String, Got>>>,
    broken: Arc<Mutex<Vec<String>>>,
}

impl Receiver {
    pub(crate) async fn start(refuses: usize) -> (Self, SocketAddr) {
        let receiver = Self {
            refuses,
            ..Self::default()
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().fallback(receive).with_state(receiver.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        (receiver, address)
    }

    /// By type and trace: how many ids were taken.
    fn taken(&self) -> BTreeMap<(String, String), usize> {
        let mut taken = BTreeMap::new();
        for got in self.got.lock().unwrap().values() {
            let body = got.json();
            let text = |value: &Value| value.as_str().unwrap().to_owned();
            if got.accepted > 0 {
                let of = (text(&body["type"]), text(&body["data"]["trace_id"]));
                *taken.entry(of).or_default() += 1;
            }
        }
        taken
    }

    /// All that came.
    pub(crate) fn bodies(&self) -> Vec<Vec<u8>> {
        let got = self.got.lock().unwrap();
        got.values().flat_map(|got| got.bodies.clone()).collect()
    }

    fn body(&self, kind: &str, trace: &str) -> Option<Value> {
        let got = self.got.lock().unwrap();
        let mut bodies = got.values().map(Got::json);
        bodies.find(|body| body["type"] == kind && body["data"]["trace_id"] == trace)
    }

    fn assert_sound(&self) {
        assert_eq!(*self.broken.lock().unwrap(), Vec::<String>::new());
        for (id, got) in self.got.lock().unwrap().iter() {
            assert_eq!(got.bodies.len(), 1, "{id} came with other bytes");
        }
    }
}

async fn receive(State(receiver): State<Receiver>, headers: HeaderMap, body: Bytes) -> Response {
    let text = |name: &str| {
        let value = headers.get(name).and_then(|value| value.to_str().ok());
        value.unwrap_or_default().to_owned()
    };
    let (id, at) = (text("webhook-id"), text("webhook-timestamp"));
    let key = STANDARD
        .decode(SECRET.strip_prefix("whsec_").unwrap())
        .unwrap();
    let mut signed = format!("{id}.{at}.").into_bytes();
    signed.extend_from_slice(&body);
    let signature = format!("v1,{}", STANDARD.encode(hmac(&key, &signed)));
    if text("webhook-signature") != signature {
        let mut broken = receiver.broken.lock().unwrap();
        broken.push(format!("{id}: {}", text("webhook-signature")));
    }
    let mut all = receiver.got.lock().unwrap();
    let got = all.entry(id).or_default();
    got.attempts += 1;
    got.bodies.insert(body.to_vec());
    if got.attempts <= receiver.refuses {
        return (StatusCode::INTERNAL_SERVER_ERROR, "come again").into_response();
    }
    got.accepted += 1;
    StatusCode::NO_CONTENT.into_response()
}

/// The operator's file with this receiver; `more` stands behind its other fields.
pub(crate) fn file(address: SocketAddr, more: &str) -> String {
    format!(
        "endpoints:\n  ops: {{url: 'http://{address}/hook', secret: {SECRET}, timeout_seconds: 1, first_retry_seconds: 0.02, longest_retry_seconds: 1{more}}}\n"
    )
}

fn told(url: &str, file: &str) -> Config {
    let mut config = config(url);
    config.patience.stalled_ms = 1_000;
    config.patience.lost_ms = 60_000;
    config.webhooks = Webhooks::parse(file, |_| None).unwrap();
    config.public_url = Some("https://tailspan.example".to_owned());
    config
}

/// An instance with a worker.
async fn working(config: Config) -> Instance {
    let instance = Instance::with(config).await;
    tokio::spawn(tailspan_worker::run(instance.app.clone(), |_| {}));
    instance
}

async fn post(instance: &Instance, trace: &str, events: Value) {
    let url = instance.url(&format!("/traces/{trace}/events"));
    let response = http().post(url).json(&events).send().await.unwrap();
    assert!(response.status().is_success());
}

fn begun(query: &str) -> Value {
    json!({"event_id": "1", "event_type": "workflow_started", "agent_id": "helper", "session_id": "talk", "inputs": {"query": query}})
}

fn ended() -> Value {
    json!({"event_id": "2", "event_type": "workflow_completed", "agent_id": "helper", "outputs": {"answer": "of a secret"}})
}

fn broken() -> Value {
    json!({"event_id": "2", "event_type": "workflow_failed", "agent_id": "helper", "error": {"type": "timeout", "message": "of a secret"}})
}

async fn get(instance: &Instance, path: &str) -> Value {
    let response = http().get(instance.url(path)).send().await.unwrap();
    response.json().await.unwrap()
}

async fn again(instance: &Instance, path: &str) -> (u16, Value) {
    let response = http().post(instance.url(path)).send().await.unwrap();
    (response.status().as_u16(), response.json().await.unwrap())
}

fn key(kind: &str, trace: &str) -> (String, String) {
    (kind.to_owned(), trace.to_owned())
}

#[tokio::test]
async fn each_kind_of_end_is_told_of_without_contents() {
    let redis = RedisServer::start().await;
    let (receiver, address) = Receiver::start(0).await;
    let instance = working(told(&redis.url(), &file(address, ""))).await;
    post(&instance, "well", json!([begun("of a secret"), ended()])).await;
    post(&instance, "badly", json!([begun("of a secret"), broken()])).await;
    post(&instance, "silent", json!([begun("of a secret")])).await;
    let mut expected: BTreeMap<_, usize> = [
        key("run.completed", "well"),
        key("run.failed", "badly"),
        key("run.stalled", "silent"),
    ]
    .map(|key| (key, 1))
    .into();
    until("all three are told of", async || {
        receiver.taken() == expected
    })
    .await;

    // A run that goes on ends under another id, and so does one that ends anew.
    post(&instance, "silent", json!([ended()])).await;
    post(&instance, "well", json!([{"event_id": "3", "event_type": "agent_thought", "agent_id": "helper", "data": {"text": "late"}}])).await;
    expected.insert(key("run.completed", "silent"), 1);
    expected.insert(key("run.completed", "well"), 2);
    until("the further ends are told of", async || {
        receiver.taken() == expected
    })
    .await;
    receiver.assert_sound();
    let failed = receiver.body("run.failed", "badly").unwrap();
    assert_eq!(failed["data"]["status"], "failed");
    assert_eq!(failed["data"]["agents"], json!(["helper"]));
    assert_eq!(failed["data"]["url"], "https://tailspan.example/runs/badly");
    assert_eq!(failed["data"]["errors_count"], 1);
    for got in receiver.got.lock().unwrap().values() {
        let body = got.json().to_string();
        assert!(!body.contains("secret"), "{body}");
    }
    let told = get(&instance, "/admin/webhooks").await;
    assert_eq!(told["endpoints"][0]["place"], "http://127.0.0.1");
    assert_eq!((&told["waiting"], &told["dead"]), (&json!(0), &json!(0)));
    let taken = get(&instance, "/admin/webhooks/deliveries?standing=delivered").await;
    assert_eq!(taken["deliveries"].as_array().unwrap().len(), 5, "{taken}");
}

#[tokio::test]
async fn what_is_given_up_lies_there_until_it_is_replayed() {
    let redis = RedisServer::start().await;
    let (receiver, address) = Receiver::start(3).await;
    let file = file(address, ", attempts: 3, events: [run.completed]");
    let instance = working(told(&redis.url(), &file)).await;
    for trace in ["a", "b"] {
        post(&instance, trace, json!([begun("q"), ended()])).await;
    }
    until("both are given up", async || {
        get(&instance, "/admin/webhooks").await["dead"] == 2
    })
    .await;
    assert_eq!(instance.app.metrics.webhooks_dead.get(), 2);
    let dead = get(&instance, "/admin/webhooks/deliveries").await;
    let letter = &dead["deliveries"][0];
    assert_eq!(letter["attempts"], 3);
    assert_eq!(letter["last_status"], 500);
    assert_eq!(letter["last_error"], "come again");
    let id = letter["id"].as_str().unwrap();
    let path = format!("/admin/webhooks/deliveries/{id}/replay");
    assert_eq!(again(&instance, &path).await, (202, json!({"replayed": 1})));
    until("it is taken", async || {
        receiver.taken().values().sum::<usize>() == 1
    })
    .await;
    let all = again(&instance, "/admin/webhooks/replay").await;
    assert_eq!(all, (202, json!({"replayed": 1})));
    until("the other is taken", async || {
        receiver.taken().values().sum::<usize>() == 2
    })
    .await;
    // Also what was taken can be had again: the same bytes under the same id.
    assert_eq!(again(&instance, &path).await.0, 202);
    until("it came again", async || {
        receiver.got.lock().unwrap()[id].accepted == 2
    })
    .await;
    receiver.assert_sound();
    let none = format!("/admin/webhooks/deliveries/msg_{}/replay", "0".repeat(32));
    assert_eq!(again(&instance, &none).await.0, 404);

    // Whose endpoint is configured no more is a dead letter too.
    instance.app.shutdown.cancel();
    let (other, address) = Receiver::start(usize::MAX).await;
    let many = self::file(address, ", attempts: 50");
    let instance = working(told(&redis.url(), &many)).await;
    post(&instance, "c", json!([begun("q"), ended()])).await;
    until("it was tried", async || {
        !other.got.lock().unwrap().is_empty()
    })
    .await;
    instance.app.shutdown.cancel();
    let renamed = many.replace("ops:", "others:");
    let instance = working(told(&redis.url(), &renamed)).await;
    until("it is given up", async || {
        let dead = get(&instance, "/admin/webhooks/deliveries").await;
        dead["deliveries"][0]["last_error"] == "no endpoint of this name is configured"
    })
    .await;
}

#[tokio::test]
async fn a_slow_receiver_delays_no_other() {
    let redis = RedisServer::start().await;
    // It takes connections and never answers.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (receiver, address) = Receiver::start(0).await;
    let slow = format!(
        "  slow: {{url: 'http://{}/', secret: {SECRET}, timeout_seconds: 20, at_once: 1}}\n",
        silent.local_addr().unwrap()
    );
    let file = file(address, "") + &slow;
    let instance = working(told(&redis.url(), &file)).await;
    for n in 0..20 {
        post(&instance, &format!("t{n}"), json!([begun("q"), ended()])).await;
    }
    until("all are told of", async || receiver.taken().len() == 20).await;
    // One at a time and 20 s each: behind it they would have taken minutes.
    assert_eq!(get(&instance, "/admin/webhooks").await["waiting"], 20);
}

/// Where a worker is killed.
#[derive(Clone, Copy, Debug)]
enum Point {
    /// The job was given to it, and it does not know.
    JobUnheard,
    /// The notification is written down, and it does not know.
    NotedUnheard,
    BeforeTheJobIsDone,
    /// The delivery is claimed, and nothing was sent.
    ClaimUnheard,
    /// The receiver has it, and nobody knows what it said.
    BeforeTheOutcome,
    OutcomeUnheard,
}

impl Point {
    const ALL: [Self; 6] = [
        Self::JobUnheard,
        Self::NotedUnheard,
        Self::BeforeTheJobIsDone,
        Self::ClaimUnheard,
        Self::BeforeTheOutcome,
        Self::OutcomeUnheard,
    ];

    fn stop(self) -> Stop {
        let at = |part, sent, passes| Stop {
            part,
            sent,
            passes,
            after: 0,
        };
        match self {
            Self::JobUnheard => at(b"\"through\":", false, false),
            Self::NotedUnheard => at(b"\"type\":\"run.", true, true),
            Self::BeforeTheJobIsDone => at(b"XACK\r\n", true, false),
            Self::ClaimUnheard => at(b"\"type\":\"run.", false, false),
            Self::BeforeTheOutcome => at(b"}:hooks:delivered\r\n", true, false),
            Self::OutcomeUnheard => at(b"}:hooks:delivered\r\n", true, true),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_killed_at_named_points_tell_of_each_run_once() {
    let redis = RedisServer::start().await;
    let gate = Gate::before(SocketAddr::from(([127, 0, 0, 1], redis.port))).await;
    let url = format!("redis://{}", gate.address);
    let port = ReservedPort::take();
    let (receiver, address) = Receiver::start(5).await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("webhooks.yaml");
    std::fs::write(&path, file(address, ", attempts: 20")).unwrap();
    let start = || {
        let path = path.display().to_string();
        let variables = [
            ("TAILSPAN_WEBHOOKS", path.as_str()),
            ("TAILSPAN_GRACE_MS", "200"),
        ];
        let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
        Process::with(port.number, &url, variables.to_vec())
    };
    // Takes events in, and works on none.
    let intake = Instance::start(&redis.url()).await;
    let mut expected = BTreeMap::new();
    // The first process teaches Redis the scripts, so that each of them is one command.
    post(&intake, "first", json!([begun("q"), ended()])).await;
    expected.insert(key("run.completed", "first"), 1);
    gate.arm(None);
    let process = tokio::task::block_in_place(start);
    until("the first is told of", async || {
        receiver.taken() == expected
    })
    .await;
    drop(process);
    for (number, point) in Point::ALL.into_iter().enumerate() {
        for n in 0..3 {
            let trace = format!("t{number}-{n}");
            let (end, kind) = match n {
                0 => (broken(), "run.failed"),
                _ => (ended(), "run.completed"),
            };
            post(&intake, &trace, json!([begun("q"), end])).await;
            expected.insert(key(kind, &trace), 1);
        }
        gate.arm(Some(point.stop()));
        let process = tokio::task::block_in_place(start);
        tokio::time::timeout(Duration::from_secs(30), gate.reached())
            .await
            .unwrap_or_else(|_| panic!("{point:?} is never reached"));
        drop(process);
    }
    gate.arm(None);
    let process = tokio::task::block_in_place(start);
    // Jobs of the killed are taken over after half a minute.
    for _ in 0..3 {
        if receiver.taken() == expected {
            break;
        }
        tokio::time::sleep(Duration::from_secs(20)).await;
    }
    until("all are told of, each under one id", async || {
        receiver.taken() == expected
    })
    .await;
    let base = format!("http://127.0.0.1:{}", port.number);
    until("nothing waits", async || {
        let told = http().get(format!("{base}/admin/webhooks")).send().await;
        let told: Value = told.unwrap().json().await.unwrap();
        assert_eq!(told["dead"], 0, "{told}");
        told["waiting"] == 0
    })
    .await;
    receiver.assert_sound();
    let got = receiver.got.lock().unwrap();
    assert_eq!(got.len(), expected.len(), "no id beside these");
    assert!(got.values().all(|got| got.attempts > 5));
    drop(process);
}
