//! Redaction: what is secret is in nothing that is kept, said or logged, whichever way it came; and what is not secret is as it was sent.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    io::Write as _,
    path::Path,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use base64::Engine as _;
use prost::Message as _;
use serde_json::{Map, Value, json};
use tailspan_core::{
    chunk,
    id::{TenantId, TraceId},
    observed::{Canonical, Context, Incoming},
    redact::{Redactor, Rules},
    verbosity::Verbosity,
    wire::{
        AnyValue, ArrayValue, ExportRequest, KeyValue, KeyValueList, Link, LogRecord, Resource,
        ResourceItems, Scope, ScopeItems, Span, SpanEvent, Status, any_value,
    },
};
use tailspan_service::{archive::ArchiveConfig, config::Config, webhooks::Webhooks};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::{
    api::upload,
    completion::{Agent, settings},
    mesh::until,
    socket::Client,
    support::{Instance, RedisServer, Viewer, config, http},
    webhooks::{self, Receiver},
};

/// What an operator asks for beyond what is always done.
const RULES: &str = r#"{
    "names": ["x-private-*", "ssn"],
    "paths": ["args $.customer.iban", "$..hidden_field"],
    "patterns": ["email", "card", "/EMP-[0-9]{6}/"]
}"#;

fn redactor(rules: &str) -> Arc<Redactor> {
    let key = Some(&b"a key that only this test has"[..]);
    Arc::new(Redactor::new(&Rules::parse(rules).unwrap(), key).unwrap())
}

/// Secrets, each of its own, and how each is recognised; beside them words that are not secret and stay.
#[derive(Default)]
struct Canaries {
    /// What must be nowhere, and the place where it stood.
    secrets: Vec<(String, String)>,
    /// What must be everywhere.
    kept: Vec<String>,
    way: &'static str,
}

impl Canaries {
    fn add(&mut self, place: &str, needle: &str) -> usize {
        let place = format!("{} {place}", self.way);
        self.secrets.push((needle.to_owned(), place));
        self.secrets.len()
    }

    /// A word that nothing but its place makes a secret.
    fn word(&mut self, place: &str) -> String {
        let word = format!("cnry{:05}word", self.secrets.len());
        self.add(place, &word);
        word
    }

    fn number(&mut self, place: &str) -> i64 {
        let number = 770_000_000_000 + self.secrets.len() as i64;
        self.add(place, &number.to_string());
        number
    }

    /// A text with a secret in it that is one by its form; each time another form.
    fn form(&mut self, place: &str) -> String {
        let n = self.secrets.len();
        let letters: String = format!("{n:05}")
            .bytes()
            .map(|digit| char::from(b'A' + digit - b'0'))
            .collect();
        let (text, needle) = match n % 12 {
            0 => (
                format!("to cnry{n:05}@mail.example.com."),
                format!("cnry{n:05}@"),
            ),
            1 => {
                let card = card(n);
                (format!("paid with {card}, thanks"), card)
            }
            2 => (
                format!("by EMP-{:06}", 100_000 + n),
                format!("EMP-{:06}", 100_000 + n),
            ),
            3 => (
                format!("key sk-proj-cnry{n:05}abcdefghijkl"),
                format!("cnry{n:05}abcdefghijkl"),
            ),
            4 => (
                format!("id AKIACNRY{letters}CNRYCNR"),
                format!("CNRY{letters}CNRYCNR"),
            ),
            5 => {
                let claims = format!("cnry{n:05}claims");
                (
                    format!("jwt eyJhbGciOiJIUzI1NiJ9.eyJ{claims}.c2lnbmF0dXJl"),
                    claims,
                )
            }
            6 => (
                format!("Bearer cnry{n:05}bearertoken"),
                format!("cnry{n:05}bearertoken"),
            ),
            7 => (
                format!("-----BEGIN PRIVATE KEY-----\nMIIcnry{n:05}key\n-----END PRIVATE KEY-----"),
                format!("MIIcnry{n:05}key"),
            ),
            8 => (
                format!("postgres://app:cnry{n:05}pw@db/app"),
                format!("cnry{n:05}pw"),
            ),
            9 => (
                format!("ghp_cnry{n:05}{}", "a1b2c3d4e5".repeat(3)),
                format!("ghp_cnry{n:05}"),
            ),
            10 => (
                format!("GET /x?api_key=cnry{n:05}query&a=1"),
                format!("cnry{n:05}query"),
            ),
            _ => (
                format!(r#"{{"a":[{{"password":"cnry{n:05}json"}}],"b":1.50}}"#),
                format!("cnry{n:05}json"),
            ),
        };
        self.add(place, &needle);
        text
    }

    /// JSON with secrets by name and by path, also within JSON that is within it.
    fn json(&mut self, place: &str) -> String {
        let inner =
            json!({"client_secret": self.word(place), "hidden_field": self.word(place), "n": 1})
                .to_string();
        json!({
            "customer": {"api_key": self.word(place), "hidden_field": {"deep": self.word(place)}},
            "list": [{"Set-Cookie": [self.word(place)]}, {"hidden_field": self.number(place)}],
            "inner": inner, "text": self.form(place), "usage": {"input_tokens": 3},
        })
        .to_string()
    }

    fn kept(&mut self) -> String {
        let kept = format!("kept{:05}plain", self.kept.len());
        self.kept.push(kept.clone());
        kept
    }
}

/// A number that passes for one of a card.
fn card(n: usize) -> String {
    let mut digits: Vec<u32> = format!("400000{n:09}")
        .bytes()
        .map(|byte| u32::from(byte - b'0'))
        .collect();
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(at, digit)| match at % 2 == 0 {
            true if digit * 2 > 9 => digit * 2 - 9,
            true => digit * 2,
            false => *digit,
        })
        .sum();
    digits.push((10 - sum % 10) % 10);
    digits.iter().map(ToString::to_string).collect()
}

fn any(value: any_value::Value) -> AnyValue {
    AnyValue { value: Some(value) }
}

fn text(text: impl Into<String>) -> AnyValue {
    any(any_value::Value::String(text.into().into()))
}

fn pair(key: impl Into<String>, value: AnyValue) -> KeyValue {
    KeyValue {
        key: key.into().into(),
        value: Some(value),
    }
}

fn list(values: Vec<AnyValue>) -> AnyValue {
    any(any_value::Value::Array(ArrayValue { values }))
}

fn map(values: Vec<KeyValue>) -> AnyValue {
    any(any_value::Value::Map(KeyValueList { values }))
}

/// Attributes with a secret wherever one can stand.
fn attributes(c: &mut Canaries, place: &str) -> Vec<KeyValue> {
    let at = |what: &str| format!("{place}: {what}");
    vec![
        pair("note", text(c.kept())),
        pair("gen_ai.usage.input_tokens", any(any_value::Value::Int(12))),
        pair("a", text(c.form(&at("text")))),
        pair("b", text(c.form(&at("text")))),
        pair(c.form(&at("key")), text("x")),
        pair(
            "http.request.header.authorization",
            list(vec![text(c.word(&at("list of a name")))]),
        ),
        pair("OPENAI_API_KEY", text(c.word(&at("name")))),
        pair(
            "db.password",
            any(any_value::Value::Int(c.number(&at("number of a name")))),
        ),
        pair(
            "x-private-thing",
            text(c.word(&at("name that was asked for"))),
        ),
        pair(
            "cookie",
            map(vec![pair("x", text(c.word(&at("map of a name"))))]),
        ),
        pair(
            "refresh_token",
            any(any_value::Value::Bytes(
                c.word(&at("bytes of a name")).into_bytes().into(),
            )),
        ),
        pair(
            "c",
            list(vec![
                text(c.form(&at("list"))),
                list(vec![text(c.form(&at("list in list")))]),
            ]),
        ),
        pair(
            "d",
            map(vec![
                pair("secret", text(c.word(&at("name in map")))),
                pair("x", text(c.form(&at("map")))),
                pair(
                    c.form(&at("key in map")),
                    map(vec![pair("ssn", text(c.word(&at("map in map"))))]),
                ),
                pair("hidden_field", text(c.word(&at("path in map")))),
            ]),
        ),
        pair(
            "e",
            any(any_value::Value::Bytes(
                c.form(&at("bytes")).into_bytes().into(),
            )),
        ),
        pair(
            "args",
            text(json!({"customer": {"iban": c.word(&at("path")), "name": "Ada"}}).to_string()),
        ),
        pair("f", text(c.json(&at("json")))),
        // Cut off, as SDKs do.
        pair(
            "g",
            text(format!(
                r#"{{"a":1,"password":"{}"#,
                c.word(&at("cut json"))
            )),
        ),
        pair(
            "h",
            text(format!(
                r#"{{"pass\u0077ord":"{}"}}"#,
                c.word(&at("escaped name"))
            )),
        ),
        pair(
            "i",
            text(format!(
                "{{'password': '{}', 'n': 1}}",
                c.word(&at("python"))
            )),
        ),
    ]
}

const START_NS: u64 = 1_800_000_000_000_000_000;

fn span(c: &mut Canaries, trace: u8, id: u8) -> Span {
    Span {
        trace_id: vec![trace; 16].into(),
        span_id: vec![id; 8].into(),
        trace_state: c.form("trace state"),
        parent_span_id: if id > 1 { vec![1; 8].into() } else { Vec::new().into() },
        name: format!("{} {}", c.kept(), c.form("name")),
        kind: 1,
        start_time_unix_nano: START_NS + u64::from(id) * 1_000_000,
        end_time_unix_nano: START_NS + 1_000_000_000 - u64::from(id) * 1_000_000,
        attributes: [
            attributes(c, "attribute"),
            vec![
                pair("gen_ai.operation.name", text("chat")),
                pair("gen_ai.request.model", text("a-model")),
                pair("gen_ai.agent.name", text(format!("agent {}", c.form("agent")))),
                pair("user.id", text(c.form("user"))),
                pair("session.id", text(format!("of {}", c.form("session")))),
                pair("gen_ai.input.messages", text(json!([{"role": "user", "parts": [{"type": "text", "content": c.form("message")}]}]).to_string())),
                pair("gen_ai.output.messages", text(json!([{"role": "assistant", "parts": [{"type": "tool_call", "id": "1", "name": "search", "arguments": {"password": c.word("argument"), "for": c.form("argument")}}]}]).to_string())),
                // A long one, which is stored in pieces.
                pair("gen_ai.system_instructions", text(format!("{} {} {}", "what was said at length ".repeat(300), c.form("long text"), "and more of it ".repeat(300)))),
            ],
        ]
        .concat(),
        events: vec![
            SpanEvent { time_unix_nano: START_NS + 5, name: c.form("event"), attributes: attributes(c, "event"), ..SpanEvent::default() },
            SpanEvent {
                time_unix_nano: START_NS + 6,
                name: "exception".to_owned(),
                attributes: vec![
                    pair("exception.type", text("Failed")),
                    pair("exception.message", text(c.form("exception"))),
                    pair("exception.stacktrace", text(c.form("stack trace"))),
                ],
                ..SpanEvent::default()
            },
        ],
        links: vec![Link { trace_id: vec![9; 16].into(), span_id: vec![9; 8].into(), trace_state: c.form("link state"), attributes: attributes(c, "link"), ..Link::default() }],
        status: Some(Status { message: c.form("error text"), code: 2 }),
        ..Span::default()
    }
}

fn log(c: &mut Canaries, trace: u8, at: u8) -> LogRecord {
    let body = match at % 4 {
        0 => text(c.form("body")),
        1 => map(attributes(c, "body")),
        2 => list(vec![
            text(c.form("body list")),
            map(vec![pair("password", text(c.word("body name")))]),
        ]),
        _ => text(c.json("body json")),
    };
    LogRecord {
        time_unix_nano: START_NS + u64::from(at),
        severity_text: c.form("severity"),
        body: Some(body),
        attributes: attributes(c, "log attribute"),
        trace_id: vec![trace; 16].into(),
        span_id: vec![1; 8].into(),
        event_name: c.form("event name"),
        ..LogRecord::default()
    }
}

fn batch(c: &mut Canaries, items: Vec<Vec<u8>>) -> ExportRequest {
    ExportRequest {
        resources: vec![ResourceItems {
            resource: Some(Resource {
                attributes: attributes(c, "resource"),
            }),
            scopes: vec![ScopeItems {
                scope: Some(Scope {
                    name: c.form("scope"),
                    version: c.form("scope version"),
                    attributes: attributes(c, "scope"),
                }),
                items: items.into_iter().map(Into::into).collect(),
                schema_url: c.form("schema url"),
            }],
            schema_url: c.form("schema url of resource"),
        }],
    }
}

/// As OTLP/JSON has it.
fn any_json(value: &AnyValue) -> Value {
    match value.value.as_ref().unwrap() {
        any_value::Value::String(text) => json!({"stringValue": text}),
        any_value::Value::Bool(truth) => json!({"boolValue": truth}),
        any_value::Value::Int(number) => json!({"intValue": number.to_string()}),
        any_value::Value::Double(number) => json!({"doubleValue": number}),
        any_value::Value::Bytes(bytes) => {
            json!({"bytesValue": base64::engine::general_purpose::STANDARD.encode(bytes)})
        }
        any_value::Value::Array(list) => {
            json!({"arrayValue": {"values": list.values.iter().map(any_json).collect::<Vec<_>>()}})
        }
        any_value::Value::Map(map) => json!({"kvlistValue": {"values": pairs_json(&map.values)}}),
    }
}

fn pairs_json(pairs: &[KeyValue]) -> Value {
    pairs
        .iter()
        .map(|pair| json!({"key": pair.key, "value": any_json(pair.value.as_ref().unwrap())}))
        .collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn span_json(span: &Span) -> Value {
    json!({
        "traceId": hex(&span.trace_id), "spanId": hex(&span.span_id), "parentSpanId": hex(&span.parent_span_id),
        "traceState": span.trace_state, "name": span.name, "kind": span.kind,
        "startTimeUnixNano": span.start_time_unix_nano.to_string(), "endTimeUnixNano": span.end_time_unix_nano.to_string(),
        "attributes": pairs_json(&span.attributes),
        "events": span.events.iter().map(|event| json!({"timeUnixNano": event.time_unix_nano.to_string(), "name": event.name, "attributes": pairs_json(&event.attributes)})).collect::<Vec<_>>(),
        "links": span.links.iter().map(|link| json!({"traceId": hex(&link.trace_id), "spanId": hex(&link.span_id), "traceState": link.trace_state, "attributes": pairs_json(&link.attributes)})).collect::<Vec<_>>(),
        "status": {"message": span.status.as_ref().unwrap().message, "code": 2},
    })
}

fn log_json(log: &LogRecord) -> Value {
    json!({
        "timeUnixNano": log.time_unix_nano.to_string(), "severityText": log.severity_text, "body": any_json(log.body.as_ref().unwrap()),
        "attributes": pairs_json(&log.attributes), "traceId": hex(&log.trace_id), "spanId": hex(&log.span_id), "eventName": log.event_name,
    })
}

fn request_json(c: &mut Canaries, kinds: (&str, &str, &str), items: Vec<Value>) -> Value {
    json!({kinds.0: [{
        "resource": {"attributes": pairs_json(&attributes(c, "resource"))}, "schemaUrl": c.form("schema url of resource"),
        kinds.1: [{"scope": {"name": c.form("scope"), "version": c.form("scope version"), "attributes": pairs_json(&attributes(c, "scope"))},
            "schemaUrl": c.form("schema url"), kinds.2: items}],
    }]})
}

const SPANS: (&str, &str, &str) = ("resourceSpans", "scopeSpans", "spans");
const LOGS: (&str, &str, &str) = ("resourceLogs", "scopeLogs", "logRecords");

fn native(c: &mut Canaries, n: usize) -> Value {
    let mut event = json!({
        "event_type": if n == 0 { "workflow_started".to_owned() } else { format!("step {}", c.form("event type")) },
        "event_id": format!("{n} {}", c.form("event id")), "timestamp": "2027-01-15T08:00:00.000Z",
        "agent_id": c.form("agent id"), "agent_name": c.form("agent name"), "span_id": format!("s{n}"), "session_id": format!("s {}", c.form("session id")),
        "user_id": c.form("user id"), "name": format!("{} {}", c.kept(), c.form("name")), "error": c.form("error"), "input": {"prompt": c.form("input"), "password": c.word("field")},
        "output": [c.form("output"), {"x": {"api_key": c.word("deep field")}}], "hidden_field": c.number("path"), "args": {"customer": {"iban": c.word("path of a field")}},
        "Authorization": c.word("name"), "ssn": 5, "text": c.json("json"), "n": 9_007_199_254_740_993_u64, "total_tokens": 7,
    });
    if n > 0 {
        event[c.form("key")] = json!(1);
    }
    event
}

// Looking.

/// Looks for secrets in whatever is given, after decoding it: zstd with and without the dictionary, blocks and pieces, gzip, base64, escapes of JSON.
struct Found {
    needles: regex::bytes::Regex,
    looked: HashSet<Vec<u8>>,
    /// Needle by needle, where it was.
    found: BTreeMap<String, BTreeSet<String>>,
    bytes: usize,
}

impl Found {
    fn of<'a>(needles: impl IntoIterator<Item = &'a str>) -> Self {
        let needles: Vec<String> = needles.into_iter().map(regex::escape).collect();
        let needles = regex::bytes::RegexBuilder::new(&needles.join("|"))
            .unicode(false)
            .size_limit(64 << 20)
            .build();
        Self {
            needles: needles.unwrap(),
            looked: HashSet::new(),
            found: BTreeMap::new(),
            bytes: 0,
        }
    }

    fn look(&mut self, place: &str, bytes: &[u8]) {
        self.look_within(place, bytes, 0);
    }

    fn look_within(&mut self, place: &str, bytes: &[u8], depth: usize) {
        if bytes.len() < 8 || depth > 4 || !self.looked.insert(bytes.to_vec()) {
            return;
        }
        self.bytes += bytes.len();
        for needle in self.needles.find_iter(bytes) {
            let needle = String::from_utf8_lossy(needle.as_bytes()).into_owned();
            self.found
                .entry(needle)
                .or_default()
                .insert(place.to_owned());
        }
        if let Some(inside) = chunk::unpacked(bytes) {
            self.look_within(place, &inside, depth + 1);
        }
        // Snapshots have two bytes before their frame, files of the archive none.
        for at in 0..bytes.len().min(4) {
            let frame = &bytes[at..];
            if frame.starts_with(&[0x28, 0xb5, 0x2f, 0xfd])
                && let Ok(inside) = zstd::stream::decode_all(frame)
            {
                self.look_within(place, &inside, depth + 1);
            }
        }
        if bytes.starts_with(&[0x1f, 0x8b]) {
            let mut inside = Vec::new();
            if std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(bytes), &mut inside)
                .is_ok()
            {
                self.look_within(place, &inside, depth + 1);
            }
        }
        let is_base64 =
            |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=');
        for run in bytes
            .split(|byte| !is_base64(byte))
            .filter(|run| run.len() >= 16)
        {
            let run = run.strip_suffix(b"=").unwrap_or(run);
            let run = run.strip_suffix(b"=").unwrap_or(run);
            if let Ok(inside) = base64::engine::general_purpose::STANDARD_NO_PAD.decode(run) {
                self.look_within(place, &inside, depth + 1);
            }
        }
        if bytes.windows(4).any(|four| four == b"\\u00") {
            let text = String::from_utf8_lossy(bytes);
            let plain = (0x20..0x7f_u8).fold(text.into_owned(), |text, byte| {
                let lower = format!("\\u{byte:04x}");
                text.replace(&lower, &char::from(byte).to_string())
            });
            self.look_within(place, plain.as_bytes(), depth + 1);
        }
    }

    /// Every value of every key, but for the stream that a mesh owns.
    async fn look_in_redis(&mut self, redis: &RedisServer) -> usize {
        let keys = ask(redis.port, &["KEYS", "*"]).await;
        let mut count = 0;
        for key in &keys {
            let key = String::from_utf8(key.clone()).unwrap();
            if key == "mesh:trace" {
                continue;
            }
            count += 1;
            self.look("the name of a key", key.as_bytes());
            let kind = ask(redis.port, &["TYPE", &key]).await;
            let words: &[&str] = match kind[0].as_slice() {
                b"string" => &["GET", &key],
                b"hash" => &["HGETALL", &key],
                b"set" => &["SMEMBERS", &key],
                b"zset" => &["ZRANGE", &key, "0", "-1", "WITHSCORES"],
                b"stream" => &["XRANGE", &key, "-", "+"],
                b"list" => &["LRANGE", &key, "0", "-1"],
                b"none" => continue,
                other => panic!("a key of kind {}", String::from_utf8_lossy(other)),
            };
            for value in ask(redis.port, words).await {
                self.look(&format!("redis {key}"), &value);
            }
        }
        count
    }

    fn look_in_folder(&mut self, folder: &Path) -> usize {
        let mut count = 0;
        for entry in std::fs::read_dir(folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                count += self.look_in_folder(&path);
            } else {
                count += 1;
                self.look("the name of a file", path.to_string_lossy().as_bytes());
                self.look(
                    &format!("file {}", path.display()),
                    &std::fs::read(&path).unwrap(),
                );
            }
        }
        count
    }

    /// What every route that reads says, at the level that tells most.
    async fn look_in_answers(&mut self, instance: &Instance) -> usize {
        let document: Value =
            serde_json::from_str(include_str!("../../docs/openapi.json")).unwrap();
        let of = async |path: &str| -> Value {
            let answer = http().get(instance.url(path)).send().await.unwrap();
            serde_json::from_str(&answer.text().await.unwrap()).unwrap_or_default()
        };
        let names = |list: &Value, field: &str| -> Vec<String> {
            let list = list.as_array().into_iter().flatten();
            list.filter_map(|row| Some(row[field].as_str()?.to_owned()))
                .collect()
        };
        let traces = names(&of("/traces?limit=100").await["traces"], "trace_id");
        assert!(!traces.is_empty());
        let sessions = names(&of("/sessions?limit=100").await["sessions"], "session_id");
        let mut agents = BTreeSet::new();
        let mut paths = Vec::new();
        for (path, methods) in document["paths"].as_object().unwrap() {
            let Some(get) = methods.get("get") else {
                continue;
            };
            // The socket is looked at where it is used.
            if path == "/ws/traces" || path.starts_with("/admin") || path.starts_with("/tokens") {
                continue;
            }
            let is_stream = get.to_string().contains("text/event-stream");
            paths.push((path.clone(), is_stream));
        }
        let mut count = 0;
        let encoded =
            |name: &str| -> String { name.bytes().map(|byte| format!("%{byte:02X}")).collect() };
        for (path, is_stream) in paths {
            let mut all = vec![path.clone()];
            if path.contains("{trace_id}") {
                all = traces
                    .iter()
                    .map(|trace| path.replace("{trace_id}", trace))
                    .collect();
            }
            if path.contains("{session_id}") {
                all = sessions
                    .iter()
                    .map(|name| path.replace("{session_id}", &encoded(name)))
                    .collect();
            }
            if path.contains("{agent_id}") {
                all = agents
                    .iter()
                    .take(20)
                    .map(|name: &String| path.replace("{agent_id}", &encoded(name)))
                    .collect();
            }
            if path.contains("{span_id}") {
                all = all
                    .iter()
                    .map(|path| path.replace("{span_id}", &"01".repeat(8)))
                    .collect();
            }
            for path in all {
                for query in [
                    "",
                    "?level=debug",
                    "?level=debug&limit=1000",
                    "?level=debug&attributes=all",
                    "?format=jsonl&level=debug",
                    "?format=detailed&level=debug",
                ] {
                    if is_stream && query != "?level=debug" {
                        continue;
                    }
                    let path = format!("{path}{query}");
                    count += 1;
                    if is_stream {
                        let path = match path.as_str() {
                            "/stream/ui-updates?level=debug" => {
                                "/stream/ui-updates?cursor=0-0.0".to_owned()
                            }
                            path if path.starts_with("/traces/") || path.starts_with("/v1") => {
                                path.to_owned()
                            }
                            path => format!("{path}&from=start"),
                        };
                        self.look_in_stream(instance, &path).await;
                        continue;
                    }
                    let answer = http().get(instance.url(&path)).send().await.unwrap();
                    assert!(answer.status().as_u16() < 500, "{path}");
                    let said = format!("{:?}", answer.headers());
                    self.look(&path, said.as_bytes());
                    let body = answer.bytes().await.unwrap();
                    if let Ok(Value::Object(page)) = serde_json::from_slice::<Value>(&body) {
                        for event in page
                            .get("events")
                            .and_then(Value::as_array)
                            .into_iter()
                            .flatten()
                        {
                            agents.extend(
                                event["agent_id"]
                                    .as_str()
                                    .filter(|name| !name.is_empty())
                                    .map(str::to_owned),
                            );
                        }
                    }
                    self.look(&path, &body);
                }
            }
        }
        count
    }

    async fn look_in_stream(&mut self, instance: &Instance, path: &str) {
        let mut viewer = match Viewer::open(&instance.url(path), None).await {
            Ok(viewer) => viewer,
            // It has a page for people only, or its name is none here.
            Err(refused) => {
                assert!(refused.to_string().starts_with("404"), "{path}: {refused}");
                return;
            }
        };
        let until = Instant::now() + Duration::from_secs(3);
        while let Ok(Ok(Some(frame))) =
            tokio::time::timeout(Duration::from_millis(300), viewer.next()).await
        {
            self.look(path, frame.data.as_bytes());
            if Instant::now() > until {
                break;
            }
        }
    }

    #[track_caller]
    fn nothing(&self, canaries: &Canaries) {
        let place: BTreeMap<&str, &str> = canaries
            .secrets
            .iter()
            .map(|(needle, place)| (needle.as_str(), place.as_str()))
            .collect();
        let told: Vec<String> = self
            .found
            .iter()
            .map(|(needle, found)| {
                let at: Vec<_> = found.iter().take(3).collect();
                format!(
                    "{needle} ({}) in {at:?}",
                    place.get(needle.as_str()).unwrap_or(&"?")
                )
            })
            .collect();
        assert!(
            told.is_empty(),
            "{} of {} were found:\n{}",
            told.len(),
            canaries.secrets.len(),
            told.join("\n")
        );
    }
}

/// A command's answer: all texts in it.
async fn ask(port: u16, words: &[&str]) -> Vec<Vec<u8>> {
    let mut socket = tokio::net::TcpStream::connect(("127.0.0.1", port))
        .await
        .unwrap();
    let mut request = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        request.extend(format!("${}\r\n{word}\r\n", word.len()).into_bytes());
    }
    request.extend(b"*1\r\n$4\r\nQUIT\r\n");
    socket.write_all(&request).await.unwrap();
    let mut reply = Vec::new();
    socket.read_to_end(&mut reply).await.unwrap();
    let mut texts = Vec::new();
    let mut at = 0;
    while at < reply.len() {
        let end = at
            + reply[at..]
                .windows(2)
                .position(|two| two == b"\r\n")
                .unwrap();
        let head = &reply[at + 1..end];
        let kind = reply[at];
        at = end + 2;
        match kind {
            b'$' if head != b"-1" => {
                let length: usize = std::str::from_utf8(head).unwrap().parse().unwrap();
                texts.push(reply[at..at + length].to_vec());
                at += length + 2;
            }
            b'+' | b':' => texts.push(head.to_vec()),
            b'-' => panic!("{words:?}: {}", String::from_utf8_lossy(head)),
            _ => {}
        }
    }
    // What was answered to QUIT.
    texts.pop();
    texts
}

/// What the process logs.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Lines {
    /// Everything of ours down to `trace`, from all threads: nextest gives every test a process of its own.
    fn watch() -> Self {
        let lines = Self::default();
        let writer = lines.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_env_filter("info,tailspan_service=trace,tailspan_ingest=trace,tailspan_query=trace,tailspan_stream=trace,tailspan_socket=trace,tailspan_mesh=trace,tailspan_worker=trace,tailspan_cleanup=trace,tailspan_evaluate=trace")
            .with_ansi(false)
            .with_writer(move || writer.clone())
            .finish();
        let _ = tracing::subscriber::set_global_default(subscriber);
        lines
    }

    fn take(&self) -> Vec<u8> {
        self.0.lock().unwrap().clone()
    }
}

// Sending.

async fn post(
    instance: &Instance,
    path: &str,
    kind: &str,
    encoding: Option<&str>,
    body: Vec<u8>,
) -> Value {
    let mut request = http()
        .post(instance.url(path))
        .header("content-type", kind)
        .body(body);
    if let Some(encoding) = encoding {
        request = request.header("content-encoding", encoding);
    }
    let answer = request.send().await.unwrap();
    let status = answer.status();
    let body = answer.bytes().await.unwrap();
    assert_eq!(status, 200, "{path}: {}", String::from_utf8_lossy(&body));
    serde_json::from_slice(&body).unwrap_or_default()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

const PROTOBUF: &str = "application/x-protobuf";
const JSON: &str = "application/json";

/// Sends secrets through every way in, each way traces of its own.
async fn send_everything(
    c: &mut Canaries,
    redis: &RedisServer,
    instance: &Instance,
    agent: &mut Agent,
) {
    c.way = "protobuf";
    let items = (1..4).map(|id| span(c, 0xa1, id).encode_to_vec()).collect();
    let body = batch(c, items).encode_to_vec();
    post(instance, "/v1/traces", PROTOBUF, None, body).await;
    c.way = "gzip";
    let items = (1..3).map(|id| span(c, 0xa2, id).encode_to_vec()).collect();
    let body = gzip(&batch(c, items).encode_to_vec());
    post(instance, "/v1/traces", PROTOBUF, Some("gzip"), body).await;
    c.way = "json";
    let items = (1..4).map(|id| span_json(&span(c, 0xa3, id))).collect();
    let body = request_json(c, SPANS, items).to_string();
    post(instance, "/v1/traces", JSON, None, body.into_bytes()).await;
    c.way = "logs protobuf";
    let items = (0..4).map(|at| log(c, 0xa3, at).encode_to_vec()).collect();
    let body = batch(c, items).encode_to_vec();
    post(instance, "/v1/logs", PROTOBUF, None, body).await;
    c.way = "logs json";
    let items = (0..4).map(|at| log_json(&log(c, 0xa4, at))).collect();
    let body = request_json(c, LOGS, items).to_string();
    post(instance, "/v1/logs", JSON, None, body.into_bytes()).await;
    c.way = "a span in a log record";
    // Names and forms are known in it; paths into its attributes, and bytes in base64, are not (docs/operations.md).
    let mut spare = Canaries::default();
    let mut inner = span(&mut spare, 0xa5, 2);
    inner.events.clear();
    inner.links.clear();
    inner.attributes = vec![
        pair("note", text(c.kept())),
        pair(
            "db.password",
            any(any_value::Value::Int(c.number("number of a name"))),
        ),
        pair(
            "http.request.header.authorization",
            list(vec![text(c.word("list of a name"))]),
        ),
        pair(
            "cookie",
            map(vec![pair("x", text(c.word("map of a name")))]),
        ),
        pair("x-private-thing", text(c.word("name that was asked for"))),
        pair("x", text(c.form("text"))),
        pair(c.form("key"), text(c.form("text"))),
        pair("f", text(c.json("json"))),
    ];
    (inner.name, inner.trace_state) = (c.form("name"), c.form("state"));
    inner.status = Some(Status {
        message: c.form("error"),
        code: 2,
    });
    let told =
        json!({"resourceSpans": [{"scopeSpans": [{"spans": [span_json(&inner)]}]}]}).to_string();
    let record = LogRecord {
        time_unix_nano: START_NS,
        body: Some(text(told)),
        attributes: vec![pair("partial.event", text("heartbeat"))],
        trace_id: vec![0xa5; 16].into(),
        ..LogRecord::default()
    };
    let body = batch(c, vec![record.encode_to_vec()]).encode_to_vec();
    post(instance, "/v1/logs", PROTOBUF, None, body).await;
    c.way = "native";
    let events: Vec<Value> = (0..4).map(|n| native(c, n)).collect();
    post(
        instance,
        "/traces/native-1/events",
        JSON,
        None,
        json!(events).to_string().into_bytes(),
    )
    .await;
    let lines: Vec<String> = (4..7).map(|n| native(c, n).to_string()).collect();
    post(
        instance,
        "/traces/native-2/events",
        "application/x-ndjson",
        None,
        lines.join("\n").into_bytes(),
    )
    .await;
    c.way = "import";
    let spans = [1, 2].map(|id| span_json(&span(c, 0xa6, id)));
    let file = request_json(c, SPANS, spans.into()).to_string();
    post(instance, "/traces/import", JSON, None, file.into_bytes()).await;
    c.way = "mesh";
    let entry: Vec<(String, String)> = vec![
        ("trace_id".into(), "mesh-1".into()),
        ("span_id".into(), "b7ad6b7169203331".into()),
        (
            "function_name".into(),
            format!("{} {}", c.kept(), c.form("function")),
        ),
        ("agent_name".into(), c.form("agent")),
        ("agent_id".into(), c.form("agent id")),
        ("runtime".into(), c.form("runtime")),
        ("password".into(), c.word("name")),
        ("error".into(), c.form("error")),
        ("success".into(), "False".into()),
        ("result".into(), c.json("result")),
        ("start_time".into(), "1800000000.25".into()),
        ("end_time".into(), "1800000000.5".into()),
        (c.form("key"), "x".into()),
    ];
    let said: Vec<(String, String)> = vec![
        ("trace_id".into(), "mesh-1".into()),
        ("event_type".into(), "custom".into()),
        ("api_key".into(), c.word("name")),
        ("x".into(), c.form("text")),
    ];
    // One that is set aside, for it names no trace.
    let bad: Vec<(String, String)> = vec![
        ("trace_id".into(), "no trace".into()),
        ("password".into(), c.word("set aside")),
        ("x".into(), c.json("set aside")),
    ];
    for entry in [entry, said, bad] {
        let mut words = vec!["XADD".to_owned(), "mesh:trace".to_owned(), "*".to_owned()];
        words.extend(entry.into_iter().flat_map(|(key, value)| [key, value]));
        ask(
            redis.port,
            &words.iter().map(String::as_str).collect::<Vec<_>>(),
        )
        .await;
    }
    c.way = "socket";
    let name = format!("s {}", c.form("session"));
    let mut client = Client::connect(instance).await;
    client.send(json!({"type": "session_start", "session_id": name, "trace_id": c.form("trace"), "eval_set_id": c.form("eval set"),
        "metadata": {"password": c.word("metadata"), "x": c.form("metadata"), "deep": {"hidden_field": c.word("metadata path")}}})).await;
    for id in 1..3 {
        client
            .send(
                json!({"type": "span", "session_id": name, "span": span_json(&span(c, 0xa7, id))}),
            )
            .await;
    }
    client.send(json!({"type": "log", "session_id": name, "log": {"event_name": c.form("event"), "timestamp": "2027-01-15T08:00:00Z", "body": {"password": c.word("body"), "x": c.form("body")}, "attributes": {"api_key": c.word("attribute"), "y": c.form("attribute")}}})).await;
    client.ended(&name).await;
    c.way = "completion";
    let question = json!({"question": format!("why {}", c.form("question")), "stream": false, "session_id": format!("s {}", c.form("session")), "user_id": c.form("user")});
    let asking = http()
        .post(instance.url("/agents/helper/completions/trace"))
        .json(&question)
        .send();
    let answering = async {
        let words = format!("because {} {}", c.form("answer"), c.form("answer"));
        let call = agent.call().await;
        call.json(&json!({"model": "m", "choices": [{"index": 0, "message": {"role": "assistant", "content": words}, "finish_reason": "stop"}], "usage": {"prompt_tokens": 3, "completion_tokens": 2}}));
    };
    let (answer, ()) = tokio::join!(asking, answering);
    assert_eq!(answer.unwrap().status(), 200);
    until("the mesh is read", async || {
        let pending = redis.cli(&["XPENDING", "mesh:trace", "tailspan"]).await;
        let aside = redis.cli(&["XLEN", "mesh:set-aside"]).await;
        pending.starts_with("*4\r\n:0\r\n") && aside.contains(":1")
    })
    .await;
}

/// Lets runs end and workers work.
async fn settle(instance: &Instance) {
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_millis(700)).await;
        tailspan_cleanup::sweep(&instance.app, Instant::now() + Duration::from_secs(5))
            .await
            .unwrap();
        tailspan_worker::work_off(
            &instance.app,
            Instant::now() + Duration::from_millis(200),
            |_| {},
        )
        .await
        .unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_secrets_in_every_place_and_by_every_way_are_in_nothing_that_is_kept_said_or_logged()
 {
    let lines = Lines::watch();
    let (redis, mut agent, folder) = (
        RedisServer::start().await,
        Agent::start().await,
        tempfile::tempdir().unwrap(),
    );
    let mut config: Config = settings(&redis, &agent.url, json!({}));
    config.redactor = redactor(RULES);
    config.archive = Some(ArchiveConfig::Folder(folder.path().to_owned()));
    (config.patience.stalled_ms, config.patience.lost_ms) = (500, 1000);
    config.mesh.tries = 1;
    // As much as an endpoint may be told.
    let (receiver, address) = Receiver::start(0).await;
    let file = webhooks::file(address, ", level: standard");
    config.webhooks = Webhooks::parse(&file, |_| None).unwrap();
    let instance = Instance::with(config.clone()).await;
    tokio::spawn(tailspan_mesh::run(instance.app.clone()));
    let mut c = Canaries::default();
    send_everything(&mut c, &redis, &instance, &mut agent).await;

    // What another installation without these rules has: its archive and its report of sessions.
    let (elsewhere, other_folder) = (RedisServer::start().await, tempfile::tempdir().unwrap());
    let mut other = self::config(&elsewhere.url());
    other.archive = Some(ArchiveConfig::Folder(other_folder.path().to_owned()));
    (other.patience.stalled_ms, other.patience.lost_ms) = (500, 1000);
    let other = Instance::with(other).await;
    c.way = "restored";
    let mut emails = Map::new();
    for n in 0..20 {
        let n = format!("{n} cnryrestore{n:03}@mail.example.com");
        c.add("restored", n.split(' ').next_back().unwrap());
        emails.insert(n, json!({"EMP": c.kept()}));
    }
    let event = json!({"event_type": "workflow_completed", "x": emails}).to_string();
    post(
        &other,
        "/traces/moved-1/events",
        JSON,
        None,
        event.into_bytes(),
    )
    .await;
    let mut client = Client::connect(&other).await;
    client.send(json!({"type": "session_start", "session_id": "loaded", "trace_id": "t", "metadata": {"mail": "cnryloaded1@mail.example.com"}})).await;
    c.add("loaded metadata", "cnryloaded1@mail");
    let mut loaded = span(&mut Canaries::default(), 0xa8, 1);
    loaded
        .attributes
        .push(pair("mail", text("cnryloaded2@mail.example.com")));
    c.add("loaded span", "cnryloaded2@mail");
    client
        .send(json!({"type": "span", "session_id": "loaded", "span": span_json(&loaded)}))
        .await;
    client.ended("loaded").await;
    let report = http()
        .post(other.url("/api/debug/bundle"))
        .json(&json!({}))
        .send()
        .await
        .unwrap()
        .bytes()
        .await
        .unwrap();
    upload(
        &instance,
        "/api/debug/load",
        &[("file", Some("r.zip"), &*report)],
    )
    .await;
    settle(&other).await;
    let before = tailspan_service::log::now_unix_ms() + 3_600_000;
    other
        .app
        .log
        .remove_before(&TenantId::default(), before)
        .await
        .unwrap();
    let archived = std::fs::read(other_folder.path().join("default/moved-1.jsonl.zst")).unwrap();
    let sent = http().post(instance.url("/traces/import")).body(archived);
    let restored: Value = sent.send().await.unwrap().json().await.unwrap();
    assert_eq!(restored["traces"][0]["trace_id"], "moved-1", "{restored}");

    assert!(c.secrets.len() >= 1_000, "{}", c.secrets.len());
    settle(&instance).await;
    let mut found = Found::of(c.secrets.iter().map(|(needle, _)| needle.as_str()));
    let mut kept = Found::of(c.kept.iter().map(String::as_str));
    let keys = found.look_in_redis(&redis).await;
    kept.look_in_redis(&redis).await;
    let answers = found.look_in_answers(&instance).await;
    let told = receiver.bodies();
    for body in &told {
        found.look("a webhook", body);
    }
    // Into the archive, and read there.
    let before = tailspan_service::log::now_unix_ms() + 3_600_000;
    instance
        .app
        .log
        .remove_before(&TenantId::default(), before)
        .await
        .unwrap();
    let files = found.look_in_folder(folder.path());
    kept.look_in_folder(folder.path());
    found.look_in_redis(&redis).await;
    found.look("the log", &lines.take());
    println!(
        "{} secrets, {} kept words; looked at {keys} keys, {answers} answers, {files} files, {} log bytes, {} bytes in all",
        c.secrets.len(),
        c.kept.len(),
        lines.take().len(),
        found.bytes
    );
    assert!(keys > 50 && answers > 100 && files > 5 && !lines.take().is_empty());
    assert!(told.len() > 5, "{} notifications", told.len());
    found.nothing(&c);
    // The search is not blind: what stands beside the secrets is found.
    let missing: Vec<_> = c
        .kept
        .iter()
        .filter(|word| !kept.found.contains_key(*word))
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
}

fn incoming(json: &Value) -> Incoming {
    Incoming {
        context: Arc::new(Context::default()),
        what: Canonical::Native(json.to_string().into()),
        identity: None,
        may_end_run: false,
        trace_level: Verbosity::Debug,
    }
}

/// What is said of a trace's events.
async fn events(instance: &Instance, trace: &str) -> Vec<Value> {
    let url = instance.url(&format!("/traces/{trace}/events?level=debug&limit=1000"));
    let page: Value = http().get(url).send().await.unwrap().json().await.unwrap();
    page["events"]
        .as_array()
        .cloned()
        .unwrap_or_else(|| panic!("{page}"))
}

#[tokio::test]
async fn what_is_not_secret_is_as_it_was_sent_and_a_repeat_is_known_again() {
    let redis = RedisServer::start().await;
    let mut config = config(&redis.url());
    config.redactor = redactor(RULES);
    let instance = Instance::with(config).await;
    let plain = Span {
        attributes: vec![
            pair("gen_ai.usage.input_tokens", any(any_value::Value::Int(12))),
            pair("max_tokens", any(any_value::Value::Int(100))),
            pair("order", text("1234567890123456")),
            pair("json", text("{\"a\": 1.50,\n \"token_count\":2}")),
            pair("password", text("hunter2")),
        ],
        name: "plain".to_owned(),
        trace_id: vec![0xb1; 16].into(),
        span_id: vec![1; 8].into(),
        start_time_unix_nano: START_NS,
        end_time_unix_nano: START_NS + 1,
        ..Span::default()
    };
    let body = ExportRequest {
        resources: vec![ResourceItems {
            scopes: vec![ScopeItems {
                items: vec![plain.encode_to_vec().into()],
                ..ScopeItems::default()
            }],
            ..ResourceItems::default()
        }],
    };
    for _ in 0..3 {
        post(
            &instance,
            "/v1/traces",
            PROTOBUF,
            None,
            body.encode_to_vec(),
        )
        .await;
    }
    let trace = hex(&plain.trace_id);
    let told = events(&instance, &trace).await;
    assert_eq!(told.len(), 1, "{told:?}");
    let attributes = &told[0]["attributes"];
    assert_eq!(attributes["order"], "1234567890123456");
    assert_eq!(attributes["json"], "{\"a\": 1.50,\n \"token_count\":2}");
    assert_eq!(
        (
            &attributes["max_tokens"],
            &attributes["gen_ai.usage.input_tokens"]
        ),
        (&json!(100), &json!(12))
    );
    assert_eq!(attributes["password"], "[redacted]");
    let metrics = http()
        .get(instance.url("/metrics"))
        .send()
        .await
        .unwrap()
        .text()
        .await
        .unwrap();
    assert!(metrics.contains("tailspan_redacted_total 3"), "{metrics}");

    let event = json!({"event_type": "a", "event_id": "e-1", "api_key": "x", "n": 9_007_199_254_740_993_u64}).to_string();
    for (stored, duplicates) in [(1, 0), (1, 1)] {
        let answer = post(
            &instance,
            "/traces/n-1/events",
            JSON,
            None,
            event.clone().into_bytes(),
        )
        .await;
        assert_eq!(
            (&answer["accepted"], &answer["duplicates"]),
            (&json!(stored), &json!(duplicates))
        );
    }
    // Two events whose ids are secrets are two.
    for n in 0..2 {
        let event =
            json!({"event_type": "a", "event_id": format!("u{n}@mail.example.com"), "n": n})
                .to_string();
        post(
            &instance,
            "/traces/n-1/events",
            JSON,
            None,
            event.into_bytes(),
        )
        .await;
    }
    let told = events(&instance, "n-1").await;
    assert_eq!(told.len(), 3);
    assert_eq!(
        told[0]["details"]["n"],
        json!(9_007_199_254_740_993_u64),
        "{:?}",
        told[0]
    );
}

#[tokio::test]
async fn equal_values_are_equal_within_a_tenant_and_differ_between_tenants() {
    let redis = RedisServer::start().await;
    let mut config = config(&redis.url());
    config.redactor =
        redactor(r#"{"mode":"hmac","patterns":["email"],"tenants":{"c":{"content":"off"}}}"#);
    for tenant in ["a", "b", "c"] {
        config
            .tokens
            .insert(format!("token-{tenant}"), TenantId::parse(tenant).unwrap());
    }
    let instance = Instance::with(config).await;
    let mut told = BTreeMap::new();
    for tenant in ["a", "b", "c"] {
        let id = TenantId::parse(tenant).unwrap();
        let trace = TraceId::parse("run").unwrap();
        let of = |user: &str| {
            incoming(
                &json!({"event_type": "node_finished", "user_id": user, "name": "x", "password": "hunter2", "input": "words that were said"}),
            )
        };
        let events = vec![
            of("ada@mail.example.com"),
            of("bob@mail.example.com"),
            of("ada@mail.example.com"),
        ];
        instance
            .app
            .log
            .append(&id, &trace, events, Default::default())
            .await
            .unwrap();
        let answer = http()
            .get(instance.url("/traces/run/events?level=debug"))
            .bearer_auth(format!("token-{tenant}"))
            .send()
            .await
            .unwrap();
        let page: Value = answer.json().await.unwrap();
        let users: Vec<String> = page["events"]
            .as_array()
            .unwrap()
            .iter()
            .map(|event| event["user_id"].as_str().unwrap_or_default().to_owned())
            .collect();
        assert!(
            users
                .iter()
                .all(|user| user.starts_with("[hmac:") && user.len() == 23),
            "{page}"
        );
        assert!(users[0] == users[2] && users[0] != users[1], "{users:?}");
        assert!(!page.to_string().contains("hunter2"));
        // Content is off for one of them.
        assert_eq!(
            page.to_string().contains("words that were said"),
            tenant != "c",
            "{page}"
        );
        told.insert(tenant, users);
    }
    assert_ne!(told["a"], told["b"]);
    let mut found = Found::of(["hunter2", "ada@mail", "bob@mail"]);
    found.look_in_redis(&redis).await;
    assert!(found.found.is_empty(), "{:?}", found.found);
}

/// Secrets that only a request's rules know for such.
const LATER: &str = r#"{"patterns":["email","/EMP-[0-9]{6}/"],"names":["x-private-*"],"paths":["$..hidden_field"]}"#;

/// A span of which nothing is taken out before [`LATER`] is asked for.
fn unredacted(c: &mut Canaries, id: u8) -> Span {
    let mail = |c: &mut Canaries, place: &str| {
        let word = c.word(place);
        format!("{word}@mail.example.com")
    };
    let long = format!(
        "{} {} {}",
        "what was said at length ".repeat(300),
        mail(c, "long text"),
        "and more of it ".repeat(300)
    );
    Span {
        trace_id: vec![0xc1; 16].into(),
        span_id: vec![id; 8].into(),
        parent_span_id: if id > 1 { vec![1; 8].into() } else { Vec::new().into() },
        name: format!("{} {}", c.kept(), mail(c, "name")),
        start_time_unix_nano: START_NS + u64::from(id) * 1_000_000,
        end_time_unix_nano: START_NS + 1_000_000_000 - u64::from(id) * 1_000_000,
        attributes: vec![
            pair("gen_ai.operation.name", text("invoke_agent")),
            // Sums of the statistics stay when a trace is archived, under the names that it had, and so do notices of its session.
            pair("gen_ai.agent.name", text(if id < 4 { "an agent".to_owned() } else { mail(c, "agent") })),
            pair("gen_ai.tool.name", text(if id < 4 { "a tool".to_owned() } else { mail(c, "tool") })),
            pair("user.id", text(mail(c, "user"))),
            pair("session.id", text(if id < 4 { "a session".to_owned() } else { mail(c, "session") })),
            pair("x-private-note", text(c.word("name"))),
            pair("json", text(json!({"a": [{"hidden_field": c.word("path")}], "n": 1.0}).to_string())),
            pair("gen_ai.input.messages", text(json!([{"role": "user", "parts": [{"type": "text", "content": mail(c, "message")}]}]).to_string())),
            pair("gen_ai.system_instructions", text(long)),
        ],
        status: Some(Status { message: mail(c, "error"), code: 2 }),
        ..Span::default()
    }
}

fn plain_batch(spans: &[Span]) -> Vec<u8> {
    let items = spans
        .iter()
        .map(|span| span.encode_to_vec().into())
        .collect();
    ExportRequest {
        resources: vec![ResourceItems {
            scopes: vec![ScopeItems {
                items,
                ..ScopeItems::default()
            }],
            ..ResourceItems::default()
        }],
    }
    .encode_to_vec()
}

/// Frames of events until one of this name.
async fn frames_until(viewer: &mut Viewer, name: &str) -> Vec<crate::support::Frame> {
    let mut frames = Vec::new();
    loop {
        let frame = viewer.soon().await.unwrap().expect("a frame");
        let is_it = frame.data.contains(name);
        frames.push(frame);
        if is_it {
            return frames;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stored_trace_is_redacted_under_its_viewers_and_every_cursor_goes_on() {
    let lines = Lines::watch();
    let (redis, folder) = (RedisServer::start().await, tempfile::tempdir().unwrap());
    let mut config = config(&redis.url());
    config.archive = Some(ArchiveConfig::Folder(folder.path().to_owned()));
    (config.patience.stalled_ms, config.patience.lost_ms) = (500, 1000);
    let instance = Instance::with(config.clone()).await;
    let mut c = Canaries {
        way: "stored",
        ..Canaries::default()
    };
    let trace = hex(&[0xc1; 16]);
    // Some of it is in the archive, and more came since.
    let first: Vec<Span> = (1..4).map(|id| unredacted(&mut c, id)).collect();
    post(&instance, "/v1/traces", PROTOBUF, None, plain_batch(&first)).await;
    settle(&instance).await;
    let before = tailspan_service::log::now_unix_ms() + 3_600_000;
    instance
        .app
        .log
        .remove_before(&TenantId::default(), before)
        .await
        .unwrap();
    // A session of frames, whose name and metadata tell too.
    let name = format!("{}@mail.example.com", c.word("session of frames"));
    let mut client = Client::connect(&instance).await;
    client.send(json!({"type": "session_start", "session_id": name, "trace_id": format!("{}@mail.example.com", c.word("trace of frames")), "metadata": {"mail": format!("{}@mail.example.com", c.word("metadata"))}})).await;
    client
        .send(
            json!({"type": "span", "session_id": name, "span": span_json(&unredacted(&mut c, 20))}),
        )
        .await;
    client.ended(&name).await;
    settle(&instance).await;
    // Nobody settles this part: its streams go on.
    let second: Vec<Span> = (4..9).map(|id| unredacted(&mut c, id)).collect();
    for span in &second {
        post(
            &instance,
            "/v1/traces",
            PROTOBUF,
            None,
            plain_batch(std::slice::from_ref(span)),
        )
        .await;
    }
    let mut seen = Found::of(c.secrets.iter().map(|(needle, _)| needle.as_str()));
    seen.look_in_redis(&redis).await;
    seen.look_in_folder(folder.path());
    let unseen: Vec<_> = c
        .secrets
        .iter()
        .filter(|(needle, _)| !seen.found.contains_key(needle))
        .collect();
    assert!(unseen.is_empty(), "these were not stored: {unseen:?}");

    let stream = instance.url(&format!("/traces/{trace}/stream?level=debug"));
    let mut viewer = Viewer::open(&stream, None).await.unwrap();
    let shown = frames_until(&mut viewer, c.kept.last().unwrap()).await;
    let told = events(&instance, &trace).await;
    let places = |events: &[Value]| -> Vec<(u64, Value)> {
        events
            .iter()
            .map(|event| (event["seq"].as_u64().unwrap(), event["span_id"].clone()))
            .collect()
    };

    // What a follower of the tenant has seen is not told again.
    let answer = post(
        &instance,
        &format!("/traces/{trace}/redact"),
        JSON,
        None,
        LATER.as_bytes().to_vec(),
    )
    .await;
    assert!(
        answer["redacted"].as_u64().unwrap() > 50 && answer["archived"] == true,
        "{answer}"
    );
    let again = post(
        &instance,
        &format!("/traces/{trace}/redact"),
        JSON,
        None,
        LATER.as_bytes().to_vec(),
    )
    .await;
    assert_eq!(again["redacted"], 0, "{again}");
    // The session's trace as well.
    let list: Value = http()
        .get(instance.url("/traces?limit=100"))
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    for row in list["traces"].as_array().unwrap() {
        let of = row["trace_id"].as_str().unwrap();
        post(
            &instance,
            &format!("/traces/{of}/redact"),
            JSON,
            None,
            LATER.as_bytes().to_vec(),
        )
        .await;
    }
    assert_eq!(places(&events(&instance, &trace).await), places(&told));

    // Whoever watched goes on; whoever comes back does so where it was.
    let late = Span {
        name: "late and plain".to_owned(),
        trace_id: vec![0xc1; 16].into(),
        span_id: vec![30; 8].into(),
        parent_span_id: vec![1; 8].into(),
        start_time_unix_nano: START_NS,
        end_time_unix_nano: START_NS + 1,
        ..Span::default()
    };
    post(
        &instance,
        "/v1/traces",
        PROTOBUF,
        None,
        plain_batch(std::slice::from_ref(&late)),
    )
    .await;
    let next = frames_until(&mut viewer, "late and plain").await;
    let names: Vec<_> = next.iter().map(|frame| frame.name.as_str()).collect();
    assert!(
        !names.contains(&"gap") && next.iter().filter(|frame| frame.name.is_empty()).count() == 1,
        "{next:?}"
    );
    let data: Vec<_> = shown.iter().filter(|frame| frame.name.is_empty()).collect();
    let from = data[1].id.clone().unwrap();
    let mut resumed = Viewer::open(&stream, Some(&from)).await.unwrap();
    let rest = frames_until(&mut resumed, "late and plain").await;
    let ids = |frames: &[&crate::support::Frame]| -> Vec<Option<String>> {
        frames.iter().map(|frame| frame.id.clone()).collect()
    };
    let rest: Vec<_> = rest.iter().filter(|frame| frame.name.is_empty()).collect();
    assert_eq!(ids(&rest)[..rest.len() - 1], ids(&data)[2..]);
    assert!(!format!("{rest:?}").contains("mail.example.com"));

    let mut found = Found::of(c.secrets.iter().map(|(needle, _)| needle.as_str()));
    found.look_in_redis(&redis).await;
    found.look_in_folder(folder.path());
    found.look_in_answers(&instance).await;
    found.look("the log", &lines.take());
    found.nothing(&c);
    let mut kept = Found::of(c.kept.iter().map(String::as_str));
    kept.look_in_redis(&redis).await;
    kept.look_in_folder(folder.path());
    assert_eq!(kept.found.len(), c.kept.len());

    // What is sent again to a server that takes out the same is known.
    config.redactor = redactor(LATER);
    let other = Instance::with(config).await;
    let count = events(&other, &trace).await.len();
    post(&other, "/v1/traces", PROTOBUF, None, plain_batch(&second)).await;
    assert_eq!(events(&other, &trace).await.len(), count);
    let absent = http()
        .post(instance.url("/traces/nothing/redact"))
        .send()
        .await
        .unwrap();
    assert_eq!(absent.status(), 404);
    let wrong = http()
        .post(instance.url(&format!("/traces/{trace}/redact")))
        .body(r#"{"names":["*"]}"#)
        .send()
        .await
        .unwrap();
    assert_eq!(wrong.status(), 400);
}
