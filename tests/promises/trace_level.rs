//! Less is recorded where the producer or the operator asks for less: what was said is nowhere in the store, everything else is as it was, and the trace says so.

use std::{collections::HashMap, sync::Arc, time::Duration};

use serde_json::{Value, json};
use tailspan_core::{
    id::{TenantId, TraceId},
    verbosity::Verbosity,
};
use tailspan_service::{
    config::{Config, TraceLevels},
    log::read::{PageSize, ReadFrom},
};

use crate::support::{Instance, RedisServer, config, http};

/// Stands in every place that can hold what was said; each with a number of its own, so that a failure names its place.
const CANARY: &str = "canary";
/// The beginning of an error's text, which `standard` tells and `minimal` does not.
const ERROR: &str = "the sensor does not answer";

struct Canaries(usize);

impl Canaries {
    fn word(&mut self) -> String {
        self.0 += 1;
        format!("{CANARY}-{}", self.0)
    }

    /// JSON text with one in it.
    fn json(&mut self) -> String {
        json!([{"role": "user", "content": self.word(), "parts": [{"type": "text", "content": self.word()}]}]).to_string()
    }
}

fn text(key: &str, value: &str) -> Value {
    json!({"key": key, "value": {"stringValue": value}})
}

fn span(trace: &str, id: u64, parent: u64, name: &str, attributes: &[Value]) -> Value {
    let mut span = json!({
        "traceId": trace, "spanId": format!("{id:016x}"), "name": name, "attributes": attributes,
        "startTimeUnixNano": (1_800_000_000_000_000_000 + id * 1_000_000).to_string(),
        "endTimeUnixNano": (1_800_000_001_000_000_000 - id * 1_000_000).to_string(),
    });
    if parent > 0 {
        span["parentSpanId"] = json!(format!("{parent:016x}"));
    }
    span
}

/// What several instrumentations send of one run; its root is the last span.
fn spans(trace: &str) -> Value {
    let mut canary = Canaries(0);
    let messages = json!([{"role": "assistant", "parts": [
        {"type": "text", "content": canary.word()},
        {"type": "tool_call", "id": "call-1", "name": "search", "arguments": {"for": canary.word()}},
    ]}])
    .to_string();
    let mut chat = span(
        trace,
        2,
        1,
        "chat a-model",
        &[
            text("gen_ai.operation.name", "chat"),
            text("gen_ai.request.model", "a-model"),
            json!({"key": "gen_ai.request.temperature", "value": {"doubleValue": 0.5}}),
            json!({"key": "gen_ai.request.stop", "value": {"stringValue": canary.word()}}),
            json!({"key": "gen_ai.usage.input_tokens", "value": {"intValue": "12"}}),
            json!({"key": "gen_ai.usage.output_tokens", "value": {"intValue": "5"}}),
            text("gen_ai.input.messages", &canary.json()),
            text("gen_ai.output.messages", &messages),
            text("gen_ai.system_instructions", &canary.json()),
            text("gen_ai.tool.definitions", &canary.json()),
            text("my.own.key", &canary.word()),
            json!({"key": "my.map", "value": {"kvlistValue": {"values": [text("a", &canary.word())]}}}),
            json!({"key": "my.list", "value": {"arrayValue": {"values": [{"stringValue": canary.word()}]}}}),
            // What has no business under a name of facts.
            json!({"key": "gen_ai.response.id", "value": {"kvlistValue": {"values": [text("a", &canary.word())]}}}),
        ],
    );
    chat["events"] = json!([
        {"name": "gen_ai.user.message", "timeUnixNano": "1800000000100000000", "attributes": [text("content", &canary.word())]},
        {"name": canary.word(), "timeUnixNano": "1800000000100000000", "attributes": [text("x", &canary.word())]},
    ]);
    chat["links"] = json!([{"traceId": trace, "spanId": "00000000000000ff", "attributes": [text("x", &canary.word())]}]);
    let old = span(
        trace,
        3,
        1,
        "ChatX",
        &[
            text("openinference.span.kind", "LLM"),
            text("llm.model_name", "b-model"),
            json!({"key": "llm.token_count.prompt", "value": {"intValue": "7"}}),
            text("llm.input_messages.0.message.role", "user"),
            text("llm.input_messages.0.message.content", &canary.word()),
            text("input.value", &canary.json()),
            text("output.value", &canary.json()),
            text(
                "llm.invocation_parameters",
                &json!({"temperature": 0.1, "prompt": canary.word()}).to_string(),
            ),
            text(
                "metadata",
                &json!({"lc_agent_name": "helper", "thread_id": "thread-9", "note": canary.word()})
                    .to_string(),
            ),
        ],
    );
    let mut tool = span(
        trace,
        4,
        1,
        "execute_tool search",
        &[
            text("gen_ai.operation.name", "execute_tool"),
            text("gen_ai.tool.name", "search"),
            text("gen_ai.tool.call.id", "call-1"),
            text("gen_ai.tool.call.arguments", &canary.json()),
            text("gen_ai.tool.call.result", &canary.word()),
            text("gen_ai.tool.description", &canary.word()),
        ],
    );
    let long = format!("{ERROR}{} {}", ".".repeat(200), canary.word());
    tool["status"] = json!({"code": 2, "message": long});
    tool["events"] = json!([{"name": "exception", "timeUnixNano": "1800000000200000000", "attributes": [
        text("exception.type", "SensorError"), text("exception.message", &long), text("exception.stacktrace", &canary.word()),
    ]}]);
    let smith = span(
        trace,
        5,
        1,
        "a chain",
        &[
            text("langsmith.span.kind", "llm"),
            text("gen_ai.prompt.0.content", &canary.word()),
            text("gen_ai.completion.0.content", &canary.word()),
            text("langsmith.metadata.note", &canary.word()),
            text("langsmith.metadata.session_id", "session-1"),
        ],
    );
    let found = span(
        trace,
        6,
        1,
        "retrieve",
        &[
            text("openinference.span.kind", "RETRIEVER"),
            text("input.value", &canary.word()),
            text("retrieval.documents.0.document.id", "doc-1"),
            text("retrieval.documents.0.document.content", &canary.word()),
            text("retrieval.documents.1.document.content", &canary.word()),
        ],
    );
    let root = span(
        trace,
        1,
        0,
        "writer.agent",
        &[
            text("traceloop.span.kind", "agent"),
            text("traceloop.entity.name", "writer"),
            text("traceloop.entity.input", &canary.json()),
            text("traceloop.entity.output", &canary.json()),
            text("traceloop.association.properties.note", &canary.word()),
        ],
    );
    json!({"resourceSpans": [{
        "resource": {"attributes": [text("service.name", "writing"), text("process.command_line", &canary.word())]},
        "scopeSpans": [{"scope": {"name": "a-scope"}, "spans": [chat, old, tool, smith, found, root]}],
    }]})
}

fn records(trace: &str) -> Value {
    let mut canary = Canaries(100);
    let record = |name: &str, body: Value, attributes: Value| {
        json!({"traceId": trace, "spanId": "0000000000000002", "timeUnixNano": "1800000000300000000", "eventName": name, "body": body,
            "attributes": attributes})
    };
    let heartbeat = json!({"spanId": "0000000000000007", "traceId": trace, "parentSpanId": "0000000000000001", "name": "goes on",
        "startTimeUnixNano": "1800000000300000000", "attributes": [text("input.value", &canary.word())]});
    let records = [
        record(
            "",
            json!({"stringValue": canary.word()}),
            json!([text("x", &canary.word())]),
        ),
        record(
            "gen_ai.user.message",
            json!({"kvlistValue": {"values": [text("content", &canary.word())]}}),
            json!([]),
        ),
        record(
            "",
            json!({"stringValue": heartbeat.to_string()}),
            json!([text("partial.event", "heartbeat")]),
        ),
    ];
    json!({"resourceLogs": [{"scopeLogs": [{"logRecords": records}]}]})
}

fn events() -> Vec<Value> {
    let mut canary = Canaries(200);
    let long = format!("{ERROR}{} {}", ".".repeat(200), canary.word());
    let mut events = vec![
        json!({"event_type": "node_started", "name": "n", "inputs": {"question": canary.word()}, "mine": canary.word(), "details": {"note": canary.word(), "duration_ms": 3}}),
        json!({"event_type": "llm_call_completed", "call_id": "c-1", "model_name": "c-model", "prompt_tokens": 20, "completion_tokens": 4,
            "temperature": 0.7, "prompt": canary.word(), "response": canary.word(), "thinking": canary.word(), "metadata": {"x": canary.word()}}),
        json!({"event_type": "tool_call_completed", "call_id": "t-1", "tool": {"name": "look_up", "arguments": {"a": canary.word()}, "result": canary.word()}}),
        json!({"event_type": "retrieval_completed", "retrieval_id": "r-1", "query": canary.word(), "top_k": 4,
            "chunks": [{"id": "k-1", "score": 0.5, "text": canary.word()}, {"text": canary.word()}]}),
        json!({"event_type": "node_failed", "name": "n", "error": {"type": "Oops", "message": long, "stack": canary.word()}}),
        json!({"event_type": "message_generated", "content": canary.word(), "list": [canary.word()], canary.word(): 1}),
    ];
    for (second, event) in events.iter_mut().enumerate() {
        event["timestamp"] = json!(1_800_000_000 + second);
    }
    events
}

/// Posts with these headers; the answer's status and text.
async fn post(
    instance: &Instance,
    path: &str,
    headers: &[(&str, &str)],
    body: &Value,
) -> (u16, String) {
    let mut request = http().post(instance.url(path)).json(body);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = request.send().await.unwrap();
    (response.status().as_u16(), response.text().await.unwrap())
}

async fn taken(instance: &Instance, path: &str, headers: &[(&str, &str)], body: &Value) {
    let (status, answer) = post(instance, path, headers, body).await;
    assert_eq!(status, 200, "{answer}");
    assert!(
        !answer.contains("rejected\":[{") && !answer.contains("rejectedSpans"),
        "{answer}"
    );
}

async fn get(instance: &Instance, path: &str) -> String {
    let response = http().get(instance.url(path)).send().await.unwrap();
    let status = response.status().as_u16();
    let text = response.text().await.unwrap();
    assert_eq!(status, 200, "{path}: {text}");
    text
}

async fn summary(instance: &Instance, trace: &str) -> Value {
    serde_json::from_str(&get(instance, &format!("/traces/{trace}/summary")).await).unwrap()
}

async fn send_all(instance: &Instance, trace: &str, headers: &[(&str, &str)]) {
    taken(instance, "/v1/logs", headers, &records(trace)).await;
    let path = format!("/traces/{trace}/events");
    taken(instance, &path, headers, &json!(events())).await;
    taken(instance, "/v1/traces", headers, &spans(trace)).await;
}

/// Everything that a reader can get, and everything that lies in the store.
async fn everywhere(
    redis: &RedisServer,
    instance: &Instance,
    trace: &str,
) -> Vec<(String, String)> {
    let mut all = Vec::new();
    for path in [
        "stream?level=debug",
        "events?level=debug&limit=1000",
        "summary?level=debug",
        "analysis?level=debug",
        "invocations?level=debug",
        "spans/0000000000000002/why",
        "spans/0000000000000004/why",
    ] {
        let path = format!("/traces/{trace}/{path}");
        let told = get(instance, &path).await;
        all.push((path, told));
    }
    for path in [
        format!("/traces/{trace}?level=debug"),
        format!("/traces/{trace}?level=debug&format=detailed"),
        format!("/traces/{trace}?level=debug&format=streaming"),
        format!("/traces/{trace}?level=debug&format=timeline"),
        format!("/v1/trace/traces/{trace}?level=debug"),
        "/traces".to_owned(),
        "/sessions".to_owned(),
        "/stats".to_owned(),
    ] {
        let told = get(instance, &path).await;
        all.push((path, told));
    }
    let (tenant, id) = (TenantId::default(), TraceId::parse(trace).unwrap());
    let log = &instance.app.log;
    let page = log
        .page(&tenant, &id, ReadFrom::Holding(1), PageSize::LARGE)
        .await
        .unwrap();
    for chunk in &page.chunks {
        let recorded = log.recorded(&tenant, &id, chunk).await.unwrap();
        all.push(("a chunk".to_owned(), format!("{recorded:?}")));
    }
    let folded = log.folded(&tenant, &id).await.unwrap().unwrap();
    all.push(("the fold".to_owned(), format!("{:?}", folded.state)));
    let keys = redis.cli(&["KEYS", "*"]).await;
    for key in keys.lines().filter(|line| line.contains('{')) {
        for command in [
            &["HGETALL", key][..],
            &["GET", key],
            &["SMEMBERS", key],
            &["ZRANGE", key, "0", "-1"],
            &["XRANGE", key, "-", "+"],
        ] {
            all.push((format!("{command:?}"), redis.cli(command).await));
        }
    }
    all
}

fn levels(default: Verbosity, by_tenant: &[(&str, Verbosity)]) -> Arc<TraceLevels> {
    let named = |(tenant, level): &(&str, Verbosity)| (TenantId::parse(tenant).unwrap(), *level);
    Arc::new(TraceLevels {
        default,
        by_tenant: by_tenant.iter().map(named).collect::<HashMap<_, _>>(),
    })
}

const WHOLE: &str = "0af7651916cd43dd8448eb211c803101";
const LOWERED: &str = "0af7651916cd43dd8448eb211c803102";

async fn nothing_that_was_said_is_anywhere(level: &str) {
    let redis = RedisServer::start().await;
    let mut settings = config(&redis.url());
    // One step goes on, so the stream has no end but this.
    settings.stream_lifetime = Duration::from_secs(1);
    let instance = Instance::with(settings).await;
    let headers = [("x-trace-level", level)];
    send_all(&instance, LOWERED, &headers).await;
    for (place, told) in everywhere(&redis, &instance, LOWERED).await {
        let canary = told
            .find(CANARY)
            .map(|at| &told[at..(at + 40).min(told.len())]);
        assert_eq!(canary, None, "{place} at {level}");
        if level == "minimal" {
            assert!(!told.contains(ERROR), "{place}");
        }
    }
    // And they were all there to be found.
    send_all(&instance, WHOLE, &[]).await;
    let all = everywhere(&redis, &instance, WHOLE).await;
    for n in (1..=36).chain(101..=104).chain(201..=216) {
        let canary = format!("{CANARY}-{n}\"");
        let plain = format!("{CANARY}-{n}");
        let ends = |text: &str| {
            text.match_indices(&plain).any(|(at, _)| {
                !text[at + plain.len()..].starts_with(|next: char| next.is_ascii_digit())
            })
        };
        assert!(
            all.iter()
                .any(|(_, told)| told.contains(&canary) || ends(told)),
            "{plain}"
        );
    }

    let (before, mut now) = (
        summary(&instance, WHOLE).await,
        summary(&instance, LOWERED).await,
    );
    assert_eq!(now["trace_level"], json!(level));
    assert_eq!(now["content_recorded"], json!(false));
    assert_eq!(
        (&before["trace_level"], &before["content_recorded"]),
        (&json!("debug"), &json!(true))
    );
    for field in ["trace_id", "trace_level", "content_recorded"] {
        now[field] = before[field].clone();
    }
    if level == "minimal" {
        for error in now["errors"].as_array_mut().unwrap() {
            assert_eq!(error["message"], json!(""));
        }
        for (now, before) in now["errors"]
            .as_array_mut()
            .unwrap()
            .iter_mut()
            .zip(before["errors"].as_array().unwrap())
        {
            now["message"] = before["message"].clone();
        }
    }
    let text = |value: &Value| serde_json::to_string_pretty(value).unwrap();
    // An error that was cut when it was recorded says so once.
    let cut = |told: String| {
        let lines = told
            .lines()
            .map(|line| line.split("... [").next().unwrap_or_default().to_owned());
        lines.collect::<Vec<_>>()
    };
    assert_eq!(cut(text(&now)), cut(text(&before)));
    let tree = async |trace: &str| -> Value {
        let told: Value =
            serde_json::from_str(&get(&instance, &format!("/traces/{trace}")).await).unwrap();
        told["spans"].clone()
    };
    assert_eq!(tree(LOWERED).await, tree(WHOLE).await);
    // A run that ended has its row in lists.
    let ended = "0af7651916cd43dd8448eb211c803103";
    taken(
        &instance,
        "/v1/traces",
        &headers,
        &one_span(ended, 1, 0, &[]),
    )
    .await;
    let stream = get(&instance, &format!("/traces/{ended}/stream")).await;
    assert!(stream.contains("event: end"), "{stream}");
    let until = std::time::Instant::now() + Duration::from_secs(10);
    let done = tailspan_worker::work_off(&instance.app, until, |_| {}).await;
    done.unwrap();
    let rows: Value = serde_json::from_str(&get(&instance, "/traces").await).unwrap();
    let mut rows = rows["traces"].as_array().unwrap().iter();
    let row = rows.find(|row| row["trace_id"] == ended).unwrap();
    assert_eq!(row["run"]["trace_level"], level, "{row}");
}

#[tokio::test]
async fn at_standard_nothing_that_was_said_is_anywhere_and_all_else_is_as_it_was() {
    nothing_that_was_said_is_anywhere("standard").await;
}

#[tokio::test]
async fn at_minimal_nothing_that_was_said_is_anywhere_and_all_else_is_as_it_was() {
    nothing_that_was_said_is_anywhere("minimal").await;
}

fn one_span(trace: &str, id: u64, parent: u64, resource: &[Value]) -> Value {
    let attributes = [text("my.note", &format!("note {}", "n".repeat(400)))];
    json!({"resourceSpans": [{"resource": {"attributes": resource}, "scopeSpans": [{"spans": [span(trace, id, parent, "s", &attributes)]}]}]})
}

/// The attribute `my.note` of the trace's last event, as its length.
async fn noted(instance: &Instance, trace: &str) -> Option<usize> {
    let path = format!("/traces/{trace}/events?level=debug&limit=1000");
    let told: Value = serde_json::from_str(&get(instance, &path).await).unwrap();
    let last = told["events"].as_array().unwrap().last().unwrap().clone();
    last["attributes"]["my.note"].as_str().map(str::len)
}

#[tokio::test]
async fn whoever_asks_for_least_is_followed_and_so_is_the_rest_of_the_trace() {
    let redis = RedisServer::start().await;
    let tokens = |config: &mut Config| {
        for tenant in ["open", "closed", "other"] {
            let id = TenantId::parse(tenant).unwrap();
            config.tokens.insert(tenant.to_owned(), id);
        }
        config.admin_token = Some("admin".to_owned());
    };
    let instance = Instance::start(&redis.url()).await;
    let id = |n: u32| format!("0af7651916cd43dd8448eb211c8032{n:02}");
    let asks = [text("tailspan.trace_level", "standard")];

    // The resource of an SDK, and what another producer sends later.
    let trace = id(1);
    taken(&instance, "/v1/traces", &[], &one_span(&trace, 1, 9, &[])).await;
    assert_eq!(noted(&instance, &trace).await, Some(405));
    taken(&instance, "/v1/traces", &[], &one_span(&trace, 2, 9, &asks)).await;
    assert_eq!(noted(&instance, &trace).await, None);
    taken(&instance, "/v1/traces", &[], &one_span(&trace, 3, 9, &[])).await;
    assert_eq!(
        noted(&instance, &trace).await,
        None,
        "what was asked holds for the rest"
    );
    let event = json!({"event_type": "step", "mine": "said"});
    taken(
        &instance,
        &format!("/traces/{trace}/events"),
        &[("x-trace-level", "debug")],
        &event,
    )
    .await;
    let told = get(&instance, &format!("/traces/{trace}/events?level=debug")).await;
    assert!(!told.contains("said"), "{told}");
    assert_eq!(summary(&instance, &trace).await["trace_level"], "standard");
    // The same again is known.
    let count = summary(&instance, &trace).await["total_events"].clone();
    taken(&instance, "/v1/traces", &[], &one_span(&trace, 2, 9, &asks)).await;
    taken(&instance, "/v1/traces", &[], &one_span(&trace, 3, 9, &[])).await;
    assert_eq!(summary(&instance, &trace).await["total_events"], count);

    // A header; `detailed` leaves the first 200 characters.
    let trace = id(2);
    taken(
        &instance,
        "/v1/traces",
        &[("x-trace-level", "detailed")],
        &one_span(&trace, 1, 9, &[]),
    )
    .await;
    let left = noted(&instance, &trace).await.unwrap();
    assert!((200..240).contains(&left), "{left}");
    assert_eq!(
        summary(&instance, &trace).await["content_recorded"],
        json!(true)
    );
    taken(
        &instance,
        "/v1/traces",
        &[("x-trace-level", "minimal")],
        &one_span(&trace, 2, 9, &[]),
    )
    .await;
    assert_eq!(noted(&instance, &trace).await, None);
    assert_eq!(summary(&instance, &trace).await["trace_level"], "minimal");

    // A native event.
    let trace = id(3);
    let event = json!({"event_type": "step", "mine": "said", "trace_level": "standard"});
    let path = format!("/traces/{trace}/events");
    taken(&instance, &path, &[], &event).await;
    assert!(
        !get(&instance, &format!("{path}?level=debug"))
            .await
            .contains("said")
    );
    assert_eq!(summary(&instance, &trace).await["trace_level"], "standard");

    // What is no level is not taken.
    let sentence = "trace-level must be one of minimal, standard, detailed, debug";
    for path in ["/v1/traces", "/v1/logs"] {
        let (status, answer) = post(
            &instance,
            path,
            &[("x-trace-level", "some")],
            &one_span(&id(4), 1, 9, &[]),
        )
        .await;
        assert_eq!(status, 400);
        assert!(
            answer.contains(sentence) && answer.contains("\"code\":3"),
            "{answer}"
        );
    }
    let (status, answer) = post(&instance, &path, &[("x-trace-level", "")], &event).await;
    assert_eq!(status, 400);
    assert!(
        answer.contains("invalid_trace_level") && answer.contains(sentence),
        "{answer}"
    );
    let (status, answer) = post(
        &instance,
        &path,
        &[],
        &json!({"event_type": "x", "trace_level": "none"}),
    )
    .await;
    assert_eq!(status, 400);
    assert!(answer.contains("invalid_trace_level"), "{answer}");
    let wrong = [text("tailspan.trace_level", "standart")];
    let (status, answer) = post(
        &instance,
        "/v1/traces",
        &[],
        &one_span(&id(4), 1, 9, &wrong),
    )
    .await;
    assert_eq!(status, 200);
    assert!(
        answer.contains("tailspan.trace_level") && answer.contains("rejectedSpans\":\"1\""),
        "{answer}"
    );

    // The operator, for all tenants and for one; nobody gets more by asking.
    let mut settings = config(&redis.url());
    tokens(&mut settings);
    settings.trace_levels = levels(
        Verbosity::Standard,
        &[("open", Verbosity::Debug), ("closed", Verbosity::Minimal)],
    );
    let strict = Instance::with(settings).await;
    for (tenant, level) in [
        ("open", "debug"),
        ("closed", "minimal"),
        ("other", "standard"),
    ] {
        let trace = id(5);
        let bearer = format!("Bearer {tenant}");
        let headers = [
            ("authorization", bearer.as_str()),
            ("x-trace-level", "debug"),
        ];
        taken(
            &strict,
            "/v1/traces",
            &headers,
            &one_span(&trace, 1, 9, &[]),
        )
        .await;
        let path = strict.url(&format!("/traces/{trace}/summary"));
        let response = http().get(path).bearer_auth(tenant).send().await.unwrap();
        let told: Value = response.json().await.unwrap();
        assert_eq!(told["trace_level"], level, "{tenant}");
    }
}

#[test]
fn the_operators_level_is_read_and_its_mistakes_are_told() {
    let read = |text: &str| {
        Config::from_vars(|name| (name == "TAILSPAN_TRACE_LEVEL").then(|| text.to_owned()))
            .map(|config| config.trace_levels)
    };
    assert_eq!(read("").unwrap(), levels(Verbosity::Debug, &[]));
    assert_eq!(read("standard").unwrap(), levels(Verbosity::Standard, &[]));
    let both = read(" minimal, acme = debug ,b=detailed").unwrap();
    assert_eq!(
        both,
        levels(
            Verbosity::Minimal,
            &[("acme", Verbosity::Debug), ("b", Verbosity::Detailed)]
        )
    );
    let mistakes = read("all,Acme=standard,b=none,c=debug,c=debug,debug,debug")
        .unwrap_err()
        .0;
    assert_eq!(mistakes.len(), 5, "{mistakes:?}");
    assert!(
        mistakes
            .iter()
            .all(|mistake| mistake.starts_with("TAILSPAN_TRACE_LEVEL: "))
    );
}
