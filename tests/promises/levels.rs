//! What a level does not promise is shown on no read and no stream.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Instance, RedisServer, Viewer, http};

/// Stands in prompts, inputs and outputs.
const CANARY: &str = "zanary";
/// Stands in error texts: at their beginning, and behind their first 200 characters.
const ERROR: &str = "zerror";
const ERROR_TAIL: &str = "zerrtail";

const TRACE: &str = "000102030405060708090a0b0c0d0e0f";
const SESSION: &str = "talk";

fn text(key: &str, value: &str) -> Value {
    json!({"key": key, "value": {"stringValue": value}})
}

fn span(id: u8, parent: u8, name: &str, attributes: Vec<Value>) -> Value {
    let mut attributes = attributes;
    attributes.push(text("session.id", SESSION));
    json!({
        "traceId": TRACE, "spanId": format!("{id:016x}"),
        "parentSpanId": if parent == 0 { String::new() } else { format!("{parent:016x}") },
        "name": name,
        "startTimeUnixNano": format!("{}", 1_800_000_000_000_000_000_u64 + u64::from(id) * 1_000_000),
        "endTimeUnixNano": format!("{}", 1_800_000_001_000_000_000_u64 + u64::from(id) * 1_000_000),
        "attributes": attributes,
        "events": [{
            "name": "gen_ai.content.prompt", "timeUnixNano": "1800000000000000000",
            "attributes": [text("gen_ai.prompt", &format!("{CANARY} span event"))],
        }],
    })
}

fn messages(role: &str, id: &str) -> String {
    json!([{"role": role, "parts": [{"type": "text", "content": format!("{CANARY} {id}")}]}])
        .to_string()
}

/// Spans of several dialects, each with words where its dialect has them.
fn spans() -> Vec<Value> {
    let error = format!("{ERROR} {} {ERROR_TAIL}", "x".repeat(300));
    let mut failed = span(
        6,
        1,
        "execute_tool search",
        vec![
            text("gen_ai.operation.name", "execute_tool"),
            text("gen_ai.tool.name", "search"),
            text(
                "gen_ai.tool.call.arguments",
                &json!({"q": CANARY}).to_string(),
            ),
            text("gen_ai.tool.call.result", &format!("{CANARY} result")),
        ],
    );
    failed["status"] = json!({"code": 2, "message": error});
    failed["events"] = json!([{
        "name": "exception", "timeUnixNano": "1800000000500000000",
        "attributes": [
            text("exception.type", "ValueError"), text("exception.message", &error),
            text("exception.stacktrace", &format!("at {CANARY}")),
        ],
    }]);
    vec![
        span(
            1,
            0,
            "invoke_agent planner",
            vec![
                text("gen_ai.operation.name", "invoke_agent"),
                text("gen_ai.agent.name", "planner"),
                text("gen_ai.input.messages", &messages("user", "agent in")),
                text(
                    "gen_ai.output.messages",
                    &messages("assistant", "agent out"),
                ),
            ],
        ),
        span(
            2,
            1,
            "chat gpt-4o",
            vec![
                text("gen_ai.operation.name", "chat"),
                text("gen_ai.request.model", "gpt-4o"),
                text("gen_ai.system_instructions", &format!("{CANARY} system")),
                text("gen_ai.input.messages", &messages("user", "in")),
                text("gen_ai.output.messages", &messages("assistant", "out")),
                text("own.key", &format!("{CANARY} own")),
            ],
        ),
        span(
            3,
            1,
            "ChatOpenAI",
            vec![
                text("openinference.span.kind", "LLM"),
                text("llm.model_name", "gpt-4o"),
                text("input.value", &format!("{CANARY} oi in")),
                text("output.value", &format!("{CANARY} oi out")),
                text("llm.input_messages.0.message.role", "user"),
                text(
                    "llm.input_messages.0.message.content",
                    &format!("{CANARY} oi message"),
                ),
            ],
        ),
        span(
            4,
            1,
            "retrieve",
            vec![
                text("openinference.span.kind", "RETRIEVER"),
                text("input.value", &format!("{CANARY} query")),
                text("retrieval.documents.0.document.id", "doc-1"),
                text(
                    "retrieval.documents.0.document.content",
                    &format!("{CANARY} chunk"),
                ),
            ],
        ),
        span(
            5,
            1,
            "step.task",
            vec![
                text("traceloop.span.kind", "task"),
                text("traceloop.entity.name", "step"),
                text(
                    "traceloop.entity.input",
                    &json!({"inputs": CANARY}).to_string(),
                ),
                text(
                    "traceloop.entity.output",
                    &json!({"outputs": CANARY}).to_string(),
                ),
            ],
        ),
        failed,
    ]
}

fn natives() -> Vec<Value> {
    let head = |event_type: &str, more: Value| {
        let mut event =
            json!({"event_type": event_type, "agent_id": "native-agent", "session_id": SESSION});
        let fields = event.as_object_mut().unwrap();
        fields.extend(more.as_object().unwrap().clone());
        event
    };
    vec![
        head("workflow_started", json!({"inputs": {"question": CANARY}})),
        head(
            "node_started",
            json!({"component_id": "n", "component_name": "Node", "component_type": "Agent", "inputs": {"a": CANARY}, "thoughts": CANARY}),
        ),
        head("thinking_started", json!({"component_id": "n"})),
        head(
            "thinking_completed",
            json!({"component_id": "n", "thoughts": CANARY}),
        ),
        head(
            "retrieval_started",
            json!({"retrieval_id": "r", "query": CANARY, "knowledge_bases": ["kb"], "top_k": 3}),
        ),
        head(
            "retrieval_completed",
            json!({"retrieval_id": "r", "chunks": [{"id": "c", "score": 0.5, "document": "d", "content": CANARY}]}),
        ),
        head(
            "llm_call_started",
            json!({"call_id": "l", "model_name": "gpt-4o", "prompt": CANARY, "temperature": 0.1}),
        ),
        head(
            "llm_call_completed",
            json!({"call_id": "l", "response": CANARY, "prompt_tokens": 3, "completion_tokens": 4}),
        ),
        head(
            "tool_call_started",
            json!({"call_id": "t", "tool_name": "calc", "tool_type": "function", "arguments": {"x": CANARY}}),
        ),
        head(
            "tool_call_completed",
            json!({"call_id": "t", "result": {"y": CANARY}}),
        ),
        head("message_generated", json!({"content": CANARY})),
        head(
            "task_progress",
            json!({"details": {"progress": 0.5, "message": CANARY, "partial": {"z": CANARY}}}),
        ),
        head(
            "own_type",
            json!({"whatever": CANARY, "deep": {"er": [CANARY]}}),
        ),
        head(
            "error_occurred",
            json!({"error": {"type": "Oops", "message": format!("{ERROR} {} {ERROR_TAIL}", "y".repeat(300))}, "inputs": CANARY}),
        ),
        head(
            "node_finished",
            json!({"component_id": "n", "component_name": "Node", "outputs": {"b": CANARY}, "elapsed_time": 0.5}),
        ),
        head("workflow_completed", json!({"outputs": {"answer": CANARY}})),
    ]
}

fn logs() -> Value {
    let record = |name: &str, body: Value| {
        json!({
            "traceId": TRACE, "spanId": "0000000000000002", "timeUnixNano": "1800000000100000000", "eventName": name, "body": body,
            "attributes": [text("gen_ai.system", "openai"), text("own", CANARY)],
        })
    };
    json!([
        record(
            "gen_ai.user.message",
            json!({"kvlistValue": {"values": [text("content", &format!("{CANARY} log"))]}})
        ),
        record("", json!({"stringValue": format!("{CANARY} line")})),
    ])
}

async fn post(instance: &Instance, path: &str, body: Value) {
    let response = http()
        .post(instance.url(path))
        .json(&body)
        .send()
        .await
        .unwrap();
    assert_eq!(response.status(), 200, "{path}");
}

/// Everything that can be read of what was sent, as text.
async fn reads(instance: &Instance, level: &str) -> Vec<(String, String)> {
    let mut paths = vec![
        "/traces".to_owned(),
        format!("/sessions/{SESSION}"),
        "/sessions".to_owned(),
        "/agents/planner/traces".to_owned(),
        "/stats".to_owned(),
        "/v1/trace/traces".to_owned(),
    ];
    for trace in [TRACE, "native"] {
        for rest in ["", "/events", "/summary", "/analysis", "/invocations"] {
            paths.push(format!("/traces/{trace}{rest}"));
        }
        for format in ["streaming", "compact", "detailed"] {
            paths.push(format!("/traces/{trace}?format={format}"));
            paths.push(format!("/traces/{trace}/events?format={format}&offset=0"));
            paths.push(format!("/v1/trace/traces/{trace}?format={format}"));
        }
        paths.push(format!("/traces/{trace}?format=timeline"));
        for rest in ["/events", "/summary", "/analysis"] {
            paths.push(format!("/v1/trace/traces/{trace}{rest}"));
        }
    }
    for id in 1..=6 {
        paths.push(format!("/traces/{TRACE}/spans/{id:016x}/why"));
    }
    let mut told = Vec::new();
    for path in paths {
        let with = if path.contains('?') { '&' } else { '?' };
        // Statistics have no words and no levels.
        let path = match path.as_str() {
            "/stats" => path,
            _ => format!("{path}{with}level={level}"),
        };
        let response = http().get(instance.url(&path)).send().await.unwrap();
        let status = response.status();
        let body = response.text().await.unwrap();
        assert_eq!(status, 200, "{path}: {body}");
        told.push((path, body));
    }
    for trace in [TRACE, "native"] {
        for format in [
            "",
            "&format=streaming",
            "&format=compact",
            "&format=detailed",
        ] {
            for prefix in ["/traces", "/v1/trace/traces"] {
                let path = format!("{prefix}/{trace}/stream?level={level}{format}");
                let mut viewer = Viewer::open(&instance.url(&path), None).await.unwrap();
                let frames = viewer.rest().await.unwrap();
                assert!(!frames.is_empty(), "{path}");
                let text: String = frames.into_iter().map(|frame| frame.data + "\n").collect();
                told.push((path, text));
            }
        }
    }
    for path in [
        format!("/sessions/{SESSION}/stream?level={level}"),
        format!("/stream?from=start&level={level}"),
    ] {
        let mut viewer = Viewer::open(&instance.url(&path), None).await.unwrap();
        // It goes on; what there is comes at once, to the end of both runs.
        let mut text = String::new();
        let mut ends = 0;
        while ends < 2 {
            let frame = viewer.soon().await.unwrap().expect("goes on");
            ends += usize::from(frame.data.contains("trace_completed"));
            text += &frame.data;
            text.push('\n');
        }
        told.push((path, text));
    }
    told
}

#[tokio::test]
async fn nothing_beyond_its_level_is_shown_anywhere() {
    let redis = RedisServer::start().await;
    let instance = Instance::start(&redis.url()).await;
    let worker = tokio::spawn(tailspan_worker::run(instance.app.clone(), |_| {}));
    let scoped = |what: &str, items: Value| json!({"resourceSpans": [{"resource": {"attributes": [text("service.name", "svc")]}, "scopeSpans": [{what: items}]}]});
    post(&instance, "/v1/traces", scoped("spans", spans().into())).await;
    post(
        &instance,
        "/v1/logs",
        json!({"resourceLogs": [{"resource": {"attributes": []}, "scopeLogs": [{"logRecords": logs()}]}]}),
    )
    .await;
    post(&instance, "/traces/native/events", natives().into()).await;
    // Until both runs are settled and summed up.
    let settled = async {
        loop {
            let list: Value = http()
                .get(instance.url("/traces"))
                .send()
                .await
                .unwrap()
                .json()
                .await
                .unwrap();
            let ended = list["traces"].as_array().unwrap().iter().filter(|trace| {
                trace["status"] != "running" && trace["run"]["as_of_seq"] == trace["as_of_seq"]
            });
            if ended.count() == 2 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), settled)
        .await
        .expect("settled");

    let mut sizes = Vec::new();
    for level in ["minimal", "standard", "detailed", "debug"] {
        let told = reads(&instance, level).await;
        let mut events = 0;
        for (path, text) in &told {
            if matches!(level, "minimal" | "standard") {
                assert!(!text.contains(CANARY), "{path}: {text}");
                assert!(!text.contains(ERROR_TAIL), "{path}: {text}");
            }
            if level == "minimal" {
                assert!(!text.contains(ERROR), "{path}: {text}");
            }
            if path.contains("/events?level") && path.starts_with("/traces") {
                let page: Value = serde_json::from_str(text).unwrap();
                events += page["events"].as_array().unwrap().len();
            }
        }
        let all: String = told.into_iter().map(|(_, text)| text).collect();
        assert_eq!(all.contains(ERROR), level != "minimal", "{level}");
        assert_eq!(
            all.contains(CANARY),
            matches!(level, "detailed" | "debug"),
            "{level}"
        );
        sizes.push((events, all.len()));
    }
    // Each level tells more than the one below.
    for pair in sizes.windows(2) {
        assert!(pair[0].0 <= pair[1].0 && pair[0].1 < pair[1].1, "{sizes:?}");
    }
    assert!(
        sizes[0].0 < sizes[1].0 && sizes[1].0 < sizes[2].0,
        "{sizes:?}"
    );
    worker.abort();
}

#[tokio::test]
async fn a_model_call_is_told_with_its_whole_history_and_without_attributes_if_asked() {
    let redis = RedisServer::start().await;
    let instance = Instance::start(&redis.url()).await;
    let said = json!([
        {"role": "user", "parts": [{"type": "text", "content": "first"}]},
        {"role": "assistant", "parts": [{"type": "text", "content": "answer"}]},
        {"role": "user", "parts": [{"type": "text", "content": "second"}]},
    ]);
    let call = span(
        1,
        0,
        "chat m",
        vec![
            text("gen_ai.operation.name", "chat"),
            text("gen_ai.request.model", "m"),
            text("gen_ai.input.messages", &said.to_string()),
        ],
    );
    let body = json!({"resourceSpans": [{"scopeSpans": [{"spans": [call]}]}]});
    let sent = http().post(instance.url("/v1/traces")).json(&body).send();
    assert_eq!(sent.await.unwrap().status(), 200);
    let events = async |query: &str| -> Value {
        let url = instance.url(&format!("/traces/{TRACE}/events?{query}"));
        let response = http().get(url).send().await.unwrap();
        let mut page: Value = response.json().await.unwrap();
        page["events"][0].take()
    };
    let words = |event: &Value| -> Vec<String> {
        let messages = event["input"].as_array().unwrap().iter();
        messages
            .map(|message| message["content"].as_str().unwrap().to_owned())
            .collect()
    };

    let whole = events("level=debug").await;
    assert_eq!(words(&whole), ["second"]);
    assert!(whole.get("attributes").is_some());
    let short = events("level=debug&exclude=attributes").await;
    assert_eq!(words(&short), ["second"]);
    for part in ["attributes", "span_events", "resource"] {
        assert_eq!(short.get(part), None, "{part}");
    }
    let all = events("include=history&exclude=attributes").await;
    assert_eq!(words(&all), ["first", "answer", "second"]);
    assert_eq!(all.get("attributes"), None);
    let both = events("include=attributes,history").await;
    assert_eq!(words(&both), ["first", "answer", "second"]);
    assert!(both.get("attributes").is_some());

    let turns = http().get(instance.url(&format!("/traces/{TRACE}/invocations")));
    let turns: Value = turns.send().await.unwrap().json().await.unwrap();
    assert_eq!(turns[0]["startedAt"], "2027-01-15T08:00:00.001000Z");
}
