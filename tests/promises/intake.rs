//! Promises 3, 5 and 6 at the door: what strangers send costs only itself, is answered clearly, and is stored when it was answered 2xx.

use std::io::Write as _;

use prost::Message as _;
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde_json::{Value as Json, json};
use tailspan_core::wire::{
    ExportRequest, ExportResponse, LogRecord, ResourceItems, RpcStatus, ScopeItems, Span,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::support::{Instance, RedisServer, Viewer, config, http};

const PROTOBUF: &str = "application/x-protobuf";
const TRACE: &str = "5b8efff798038103d269b633813fc60c";

fn post(instance: &Instance, path: &str) -> RequestBuilder {
    http().request(Method::POST, instance.url(path))
}

async fn get(instance: &Instance, path: &str) -> Json {
    let client = http();
    let response = client.get(instance.url(path)).send().await.expect("sent");
    response.json().await.expect("json")
}

async fn sent(request: RequestBuilder) -> Response {
    request.send().await.expect("an answer")
}

fn header(response: &Response, name: &str) -> String {
    let value = response.headers().get(name);
    value
        .map_or("", |value| value.to_str().expect("text"))
        .to_owned()
}

fn span(name: &str) -> Span {
    Span {
        trace_id: b"\x5b\x8e\xff\xf7\x98\x03\x81\x03\xd2\x69\xb6\x33\x81\x3f\xc6\x0c"
            .as_slice()
            .into(),
        span_id: name.bytes().cycle().take(8).collect::<Vec<_>>().into(),
        name: name.into(),
        start_time_unix_nano: 1_795_208_184_784_000_000,
        end_time_unix_nano: 1_795_208_184_929_380_221,
        parent_span_id: vec![9; 8].into(),
        ..Span::default()
    }
}

fn request(items: Vec<Vec<u8>>) -> Vec<u8> {
    ExportRequest {
        resources: vec![ResourceItems {
            scopes: vec![ScopeItems {
                items: items.into_iter().map(Into::into).collect(),
                ..ScopeItems::default()
            }],
            ..ResourceItems::default()
        }],
    }
    .encode_to_vec()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).expect("in memory");
    encoder.finish().expect("in memory")
}

/// Names of the trace's spans, in the order of the log.
async fn names(instance: &Instance, trace: &str) -> Vec<String> {
    let events = get(instance, &format!("/traces/{trace}/events?limit=1000")).await;
    let list = events["events"].as_array().cloned().unwrap_or_default();
    list.iter()
        .map(|event| event["name"].as_str().unwrap_or("-").to_owned())
        .collect()
}

/// What is sent, its content type and encoding; the status; a piece of the message; the spans that are stored of it.
type Case = (
    &'static str,
    Vec<u8>,
    &'static str,
    Option<&'static str>,
    u16,
    &'static str,
    &'static [&'static str],
);

#[tokio::test(flavor = "multi_thread")]
async fn malformed_input_costs_itself_and_nothing_before_or_after_it() {
    let redis = RedisServer::start().await;
    let instance = Instance::start(&redis.url()).await;
    let good = |name: &str| span(name).encode_to_vec();
    let json_span = |name: &str, more: Json| {
        let mut span = json!({"traceId": TRACE, "spanId": "00000000000000aa", "parentSpanId": "0909090909090909", "name": name});
        for (key, value) in more.as_object().expect("an object") {
            span[key] = value.clone();
        }
        json!({"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]})
            .to_string()
            .into_bytes()
    };
    let mut cut = good("cut");
    cut.truncate(cut.len() - 3);
    let mut broken_text = good("a@b");
    for byte in broken_text.iter_mut().filter(|byte| **byte == b'@') {
        *byte = 0xff;
    }
    let wide = {
        let mut bytes = good("wide");
        bytes.extend([0x4a, 0].repeat(1_000_000));
        bytes
    };
    let deep = (0..2_000).fold(vec![], |inner: Vec<u8>, _| {
        let mut array = vec![0x0a];
        prost::encode_length_delimiter(inner.len(), &mut array).expect("in memory");
        array.extend(inner);
        let mut any = vec![0x2a];
        prost::encode_length_delimiter(array.len(), &mut any).expect("in memory");
        any.extend(array);
        any
    });
    let deep = {
        let mut attribute = vec![0x12];
        prost::encode_length_delimiter(deep.len(), &mut attribute).expect("in memory");
        attribute.extend(deep);
        let mut bytes = good("deep");
        bytes.push(0x4a);
        prost::encode_length_delimiter(attribute.len(), &mut bytes).expect("in memory");
        bytes.extend(attribute);
        bytes
    };
    let log = LogRecord {
        time_unix_nano: 1,
        ..LogRecord::default()
    };
    let circle = |id: u8, parent: u8, name: &str| {
        Span {
            span_id: vec![id; 8].into(),
            parent_span_id: vec![parent; 8].into(),
            ..span(name)
        }
        .encode_to_vec()
    };
    let whole = request(vec![good("lost")]);
    let nested_json = format!("{}1{}", "[".repeat(50_000), "]".repeat(50_000));
    let deep_json = json_span(
        "deep-json",
        json!({"attributes": [{"key": "k", "value": "DEEP"}]}),
    );
    let deep_json = String::from_utf8(deep_json)
        .expect("text")
        .replace("\"DEEP\"", &nested_json);

    #[rustfmt::skip]
    let cases: Vec<Case> = vec![
        ("a cut envelope", whole[..whole.len() - 9].to_vec(), PROTOBUF, None, 400, "cut short", &[]),
        ("a cut span", request(vec![cut]), PROTOBUF, None, 200, "damaged", &[]),
        ("noise", vec![0xff; 300], PROTOBUF, None, 400, "cut short or damaged", &[]),
        ("a gzip bomb", gzip(&vec![0; 40 << 20]), PROTOBUF, Some("gzip"), 413, "16777216 bytes", &[]),
        ("cut gzip", gzip(&whole)[..20].to_vec(), PROTOBUF, Some("gzip"), 400, "not complete gzip", &[]),
        ("an unknown encoding", whole.clone(), PROTOBUF, Some("br"), 415, "gzip, deflate or zstd", &[]),
        ("an unknown type", whole.clone(), "text/html", None, 415, "application/x-protobuf", &[]),
        ("gzip that nobody announced", gzip(&whole), PROTOBUF, None, 400, "content-encoding", &[]),
        ("json as protobuf", json_span("lost", json!({})), PROTOBUF, None, 400, "application/json", &[]),
        ("a json bomb", vec![b'['; 4 << 20], "application/json", None, 400, "line 1 column", &[]),
        ("deep json", deep_json.into_bytes(), "application/json", None, 200, "left out", &["deep-json"]),
        ("cut json", br#"{"resourceSpans": [{"#.to_vec(), "application/json", None, 400, "EOF", &[]),
        ("negative times", json_span("lost", json!({"startTimeUnixNano": "-1"})), "application/json", None, 200, "invalid_time", &[]),
        ("half an emoji", json_span("HALF", json!({})).iter().map(|b| *b as char).collect::<String>().replace("HALF", "half \\ud83d").into_bytes(), "application/json", None, 200, "", &["half \u{fffd}"]),
        ("text that is no UTF-8", request(vec![broken_text]), PROTOBUF, None, 200, "", &["a\u{fffd}b"]),
        ("a million attributes", request(vec![wide]), PROTOBUF, None, 200, "left out", &["wide"]),
        ("deep nesting", request(vec![deep]), PROTOBUF, None, 200, "left out", &["deep"]),
        ("a log record among spans", request(vec![log.encode_to_vec()]), PROTOBUF, None, 200, "/v1/logs", &[]),
        ("no trace id", request(vec![Span { trace_id: vec![].into(), ..span("x") }.encode_to_vec()]), PROTOBUF, None, 200, "16 bytes", &[]),
        ("parents in a circle", request(vec![circle(1, 2, "c1"), circle(2, 1, "c2"), circle(3, 3, "c3")]), PROTOBUF, None, 200, "", &["c1", "c2", "c3"]),
    ];
    let mut expected = Vec::new();
    for (number, (what, body, content_type, encoding, status, says, stored)) in
        cases.into_iter().enumerate()
    {
        let before = format!("before-{number}");
        let answer = sent(
            post(&instance, "/v1/traces")
                .header("content-type", PROTOBUF)
                .body(request(vec![good_named(&before, number)])),
        )
        .await;
        assert_eq!(answer.status(), 200);
        expected.push(before);
        let mut bad = post(&instance, "/v1/traces")
            .header("content-type", content_type)
            .body(body);
        if let Some(encoding) = encoding {
            bad = bad.header("content-encoding", encoding);
        }
        let answer = sent(bad).await;
        assert_eq!(answer.status(), status, "{what}");
        let (message, json) = message(answer).await;
        assert!(message.contains(says), "{what}: {message}");
        assert_eq!(
            json,
            content_type != PROTOBUF,
            "{what}: in the request's encoding"
        );
        expected.extend(stored.iter().map(ToString::to_string));
    }
    assert_eq!(names(&instance, TRACE).await, expected);
    // And it can all be watched.
    let mut viewer = Viewer::open(&instance.url(&format!("/traces/{TRACE}/stream")), None)
        .await
        .expect("a stream");
    for seq in 1..=expected.len() {
        let frame = viewer.soon().await.expect("a frame").expect("not the end");
        assert_eq!(frame.json()["seq"], seq);
    }
}

fn good_named(name: &str, number: usize) -> Vec<u8> {
    Span {
        span_id: (number as u64 + 1).to_be_bytes().to_vec().into(),
        ..span(name)
    }
    .encode_to_vec()
}

/// The text of an answer, partial success or error, and whether it was JSON.
async fn message(answer: Response) -> (String, bool) {
    let is_json = header(&answer, "content-type") == "application/json";
    let is_ok = answer.status().is_success();
    let bytes = answer.bytes().await.expect("a body");
    if is_json {
        let json: Json = serde_json::from_slice(&bytes).expect("json");
        let message = if is_ok {
            &json["partialSuccess"]["errorMessage"]
        } else {
            &json["message"]
        };
        return (message.as_str().unwrap_or("").to_owned(), true);
    }
    let message = if is_ok {
        let response = ExportResponse::decode(bytes).expect("a response");
        response.partial_success.unwrap_or_default().error_message
    } else {
        RpcStatus::decode(bytes).expect("a status").message
    };
    (message, false)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_through_another_encoding_is_the_same_span() {
    let redis = RedisServer::start().await;
    let instance = Instance::start(&redis.url()).await;
    let protobuf = request(vec![span("x").encode_to_vec()]);
    let json = json!({"resource_spans": [{"scope_spans": [{"spans": [{
        "trace_id": TRACE.to_uppercase(), "span_id": "eHh4eHh4eHg=", "parent_span_id": "0909090909090909", "name": "x",
        "start_time_unix_nano": 1_795_208_184_784_000_000u64, "end_time_unix_nano": "1795208184929380221",
    }]}]}]})
    .to_string();
    for _ in 0..2 {
        let answer = sent(
            post(&instance, "/v1/traces")
                .header("content-type", PROTOBUF)
                .header("content-encoding", "gzip")
                .body(gzip(&protobuf)),
        )
        .await;
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.bytes().await.expect("a body"), b"".as_slice());
        let chunked = reqwest::Body::wrap_stream(futures::stream::iter(
            json.clone()
                .into_bytes()
                .chunks(7)
                .map(|piece| Ok::<_, std::io::Error>(piece.to_vec()))
                .collect::<Vec<_>>(),
        ));
        let answer = sent(
            post(&instance, "/v1/traces")
                .header("content-type", "application/json")
                .body(chunked),
        )
        .await;
        assert_eq!(
            (answer.status(), answer.text().await.expect("text").as_str()),
            (StatusCode::OK, "{}")
        );
    }
    assert_eq!(names(&instance, TRACE).await, ["x"]);
    for path in ["/v1/metrics", "/v1/logs"] {
        let answer = sent(post(&instance, path).header("content-type", PROTOBUF)).await;
        assert_eq!(answer.status(), 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn native_events_are_counted_one_by_one() {
    let redis = RedisServer::start().await;
    let instance = Instance::start(&redis.url()).await;
    let lines = "{\"event_type\":\"task_started\",\"event_id\":\"1\"}\n{\"event_type\":\n{\"event_type\":\"my_own\",\"event_id\":\"2\"}\n";
    let answer = sent(
        post(&instance, "/traces/run-1/events")
            .header("content-type", "application/x-ndjson")
            .header("x-parent-span", "caller-1")
            .body(lines),
    )
    .await;
    assert_eq!(answer.status(), 200);
    assert_eq!(header(&answer, "x-trace-id"), "run-1");
    assert_eq!(header(&answer, "x-parent-span"), "caller-1");
    let told: Json = answer.json().await.expect("json");
    assert_eq!(
        (&told["accepted"], &told["duplicates"], &told["last_seq"]),
        (&json!(2), &json!(0), &json!(2))
    );
    assert_eq!(
        (
            &told["rejected"][0]["index"],
            &told["rejected"][0]["reason"]
        ),
        (&json!(1), &json!("malformed"))
    );
    let cursor = told["cursor"].as_str().expect("a cursor").to_owned();

    // A stream from that cursor shows the next event first.
    let mut viewer = Viewer::open(&instance.url("/traces/run-1/stream"), Some(&cursor))
        .await
        .expect("a stream");
    let again = "[{\"event_type\":\"my_own\",\"event_id\":2},{\"event_type\":\"more\"}]";
    let told: Json = sent(post(&instance, "/traces/run-1/events").body(again))
        .await
        .json()
        .await
        .expect("json");
    assert_eq!(
        (&told["accepted"], &told["duplicates"], &told["last_seq"]),
        (&json!(2), &json!(1), &json!(3))
    );
    let frame = viewer
        .soon()
        .await
        .expect("a frame")
        .expect("not the end")
        .json();
    assert_eq!(
        (&frame["event_type"], &frame["seq"]),
        (&json!("more"), &json!(3))
    );

    let keyed = || {
        post(&instance, "/traces/run-1/events")
            .header("idempotency-key", "k")
            .body("[{\"event_type\":\"a\"},{\"event_type\":\"a\"}]")
    };
    let first: Json = sent(keyed()).await.json().await.expect("json");
    let second: Json = sent(keyed()).await.json().await.expect("json");
    assert_eq!(
        (
            &first["duplicates"],
            &second["duplicates"],
            &second["last_seq"]
        ),
        (&json!(0), &json!(2), &json!(5))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn native_refusals_say_what_to_do() {
    let redis = RedisServer::start().await;
    let instance = Instance::start(&redis.url()).await;
    for (path, content_type, body, status, code) in [
        (
            "/traces/a.b/events",
            "application/json",
            "{}",
            400,
            "invalid_trace_id",
        ),
        (
            "/traces/a/events",
            "application/json",
            "",
            400,
            "invalid_body",
        ),
        (
            "/traces/a/events",
            "application/json",
            "{]",
            400,
            "invalid_body",
        ),
        (
            "/traces/a/events",
            "application/json",
            "{}",
            400,
            "invalid_event_type",
        ),
        (
            "/traces/a/events",
            "application/json",
            "{\"event_type\":\"x\",\"trace_id\":\"b\"}",
            400,
            "trace_id_mismatch",
        ),
        (
            "/traces/a/events",
            "image/png",
            "{}",
            415,
            "unsupported_media_type",
        ),
        (
            "/traces/a/events?replace=perhaps",
            "application/json",
            "{}",
            400,
            "invalid_parameter",
        ),
        (
            "/traces/a",
            "application/json",
            "{}",
            405,
            "method_not_allowed",
        ),
    ] {
        let answer = sent(
            post(&instance, path)
                .header("content-type", content_type)
                .body(body),
        )
        .await;
        assert_eq!(answer.status(), status, "{path} {body}");
        let told: Json = answer.json().await.expect("json");
        assert_eq!(told["error"]["code"], code, "{path} {body}");
    }
    let answer = get(&instance, "/traces/a").await;
    assert_eq!(
        answer["error"]["code"], "trace_not_found",
        "nothing was stored"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_callers_context_names_the_trace() {
    let redis = RedisServer::start().await;
    let instance = Instance::start(&redis.url()).await;
    let own = |headers: &[(&str, &str)]| {
        let mut request = post(&instance, "/traces/events").body("{\"event_type\":\"x\"}");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        sent(request)
    };
    assert_eq!(
        header(&own(&[("x-trace-id", "session-7")]).await, "x-trace-id"),
        "session-7"
    );
    let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let answer = own(&[("traceparent", parent)]).await;
    assert_eq!(
        header(&answer, "x-trace-id"),
        "4bf92f3577b34da6a3ce929d0e0e4736"
    );
    assert_eq!(header(&answer, "traceparent"), parent);
    let events = get(&instance, "/traces/4bf92f3577b34da6a3ce929d0e0e4736/events").await;
    assert_eq!(events["events"][0]["parent_span_id"], "00f067aa0ba902b7");
    let fresh = header(&own(&[]).await, "x-trace-id");
    assert_eq!(
        get(&instance, &format!("/traces/{fresh}/events")).await["events"][0]["event_type"],
        "x"
    );
    assert_eq!(own(&[("x-trace-id", "no id")]).await.status(), 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn too_much_at_once_and_an_absent_store_are_told_apart_and_may_be_repeated() {
    let mut redis = RedisServer::durable().await;
    let mut config = config(&redis.url());
    config.max_body_bytes = 4096;
    config.max_in_flight_bytes = 6000;
    let instance = Instance::with(config).await;
    let large = |bytes| {
        post(&instance, "/v1/traces")
            .header("content-type", "application/json")
            .body(vec![b' '; bytes])
    };
    assert_eq!(sent(large(4097)).await.status(), 413);

    // Bodies that do not come to their end hold what has come; what they announce holds nothing.
    let mut slow = Vec::new();
    for (announced, arrives) in [(2900, 2800), (2900, 2800), (4000, 1), (4000, 1)] {
        use tokio::io::AsyncWriteExt as _;
        let mut socket = tokio::net::TcpStream::connect(instance.address)
            .await
            .expect("connected");
        let mut request = format!(
            "POST /v1/traces HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {announced}\r\n\r\n"
        )
        .into_bytes();
        request.resize(request.len() + arrives, b' ');
        socket.write_all(&request).await.expect("sent");
        slow.push(socket);
    }
    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    let answer = sent(large(1000)).await;
    assert_eq!(
        (answer.status(), header(&answer, "retry-after").as_str()),
        (StatusCode::TOO_MANY_REQUESTS, "1")
    );
    assert_eq!(answer.json::<Json>().await.expect("json")["code"], 8);
    drop(slow);
    tokio::time::sleep(std::time::Duration::from_millis(200)).await;

    let good = || {
        post(&instance, "/v1/traces")
            .header("content-type", PROTOBUF)
            .body(request(vec![span("kept").encode_to_vec()]))
    };
    let native = || {
        post(&instance, &format!("/traces/{TRACE}/events"))
            .body("{\"event_type\":\"e\",\"event_id\":1}")
    };
    assert_eq!(sent(good()).await.status(), 200);
    redis.kill();
    let down = std::time::Instant::now();
    let (answer, native_answer) = tokio::join!(sent(good()), sent(native()));
    // OTel's exporters wait 10 s for an answer.
    assert!(
        down.elapsed() < std::time::Duration::from_secs(9),
        "{:?}",
        down.elapsed()
    );
    assert_eq!(
        (answer.status(), header(&answer, "retry-after").as_str()),
        (StatusCode::SERVICE_UNAVAILABLE, "1")
    );
    assert_eq!(
        RpcStatus::decode(answer.bytes().await.expect("a body"))
            .expect("a status")
            .code,
        14
    );
    assert_eq!(native_answer.status(), 503);
    assert_eq!(
        native_answer.json::<Json>().await.expect("json")["error"]["code"],
        "unavailable"
    );
    redis.launch().await;
    for request in [good(), native()] {
        let mut request = Some(request);
        for attempt in 0.. {
            let again = request.as_ref().and_then(RequestBuilder::try_clone);
            if sent(request.take().expect("one more")).await.status() == 200 {
                break;
            }
            assert!(attempt < 100, "no recovery");
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            request = again;
        }
    }
    assert_eq!(names(&instance, TRACE).await.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_array_changes_nothing_and_a_client_that_only_sends_hears_the_answer() {
    let redis = RedisServer::start().await;
    let instance = Instance::start(&redis.url()).await;
    let path = "/traces/kept/events";
    let event = post(&instance, path).body(r#"{"event_type":"a"}"#);
    let first: Json = sent(event).await.json().await.expect("json");
    let nothing = sent(post(&instance, path).body("[]")).await;
    let answer: Json = nothing.json().await.expect("json");
    assert_eq!(answer["accepted"], 0);
    assert_eq!(answer["last_seq"], first["last_seq"]);
    assert_eq!(answer["cursor"], first["cursor"]);
    let anew = post(&instance, &format!("{path}?replace=true")).body("[]");
    assert_eq!(sent(anew).await.status(), 400);
    assert_eq!(names(&instance, "kept").await.len(), 1);

    // Twice the limit is taken to its end: a client cut while it sends would see a broken connection and send the same again.
    let body = vec![b' '; 32 * 1024 * 1024];
    for path in [path, "/v1/traces"] {
        let mut socket = TcpStream::connect(instance.address)
            .await
            .expect("connected");
        let length = body.len();
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n"
        );
        socket.write_all(head.as_bytes()).await.expect("head sent");
        socket.write_all(&body).await.expect("body sent");
        let mut answer = Vec::new();
        socket.read_to_end(&mut answer).await.expect("an answer");
        assert!(
            answer.starts_with(b"HTTP/1.1 413 "),
            "{}",
            String::from_utf8_lossy(&answer)
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_trace_stays_deleted_until_it_is_begun_again() {
    let redis = RedisServer::start().await;
    let instance = Instance::start(&redis.url()).await;
    let export = || {
        post(&instance, "/v1/traces").header("content-type", "application/json").body(
        json!({"resourceSpans": [{"scopeSpans": [{"spans": [{"traceId": TRACE, "spanId": "00000000000000aa", "name": "late"}]}]}]}).to_string())
    };
    assert_eq!(sent(export()).await.status(), 200);
    let client = http();
    let deleted = client
        .delete(instance.url(&format!("/traces/{TRACE}?force=true")))
        .send()
        .await
        .expect("sent");
    assert!(deleted.status().is_success(), "{}", deleted.status());
    let answer: Json = sent(export()).await.json().await.expect("json");
    assert_eq!(answer["partialSuccess"]["rejectedSpans"], "1");
    let event = |query: &str| {
        post(&instance, &format!("/traces/{TRACE}/events{query}")).body("{\"event_type\":\"anew\"}")
    };
    let answer = sent(event("")).await;
    assert_eq!(answer.status(), 410);
    // Nothing to begin it with.
    let nothing = post(&instance, &format!("/traces/{TRACE}/events?replace=true")).body("[]");
    assert_eq!(sent(nothing).await.status(), 400);
    assert_eq!(sent(event("?replace=true")).await.status(), 200);
    assert_eq!(names(&instance, TRACE).await.len(), 1);
}
