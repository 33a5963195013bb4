//! The live view: what is said and done in sessions, told in order, once, on any instance.

use std::time::Duration;

use serde_json::{Value, json};
use tailspan_core::id::{TenantId, TraceId};
use tailspan_service::live::Start;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::support::{Frame, Instance, Store, Viewer, http};

const NS: u64 = 1_760_000_000_000_000_000;

fn attributes(pairs: &[(&str, &str)]) -> Value {
    let pairs = pairs.iter();
    pairs
        .map(|(key, value)| json!({"key": key, "value": {"stringValue": value}}))
        .collect()
}

/// A span `id` of a trace under `parent` (0: none).
fn span(trace: u64, id: u64, parent: u64, name: &str, pairs: &[(&str, &str)]) -> Value {
    let mut span = json!({
        "traceId": format!("{trace:032x}"), "spanId": format!("{id:016x}"), "name": name, "kind": 3,
        "startTimeUnixNano": (NS + id * 1_000_000_000).to_string(),
        "endTimeUnixNano": (NS + id * 1_000_000_000 + 500_000_000).to_string(),
        "attributes": attributes(pairs),
    });
    if parent != 0 {
        span["parentSpanId"] = json!(format!("{parent:016x}"));
    }
    span
}

/// A model call of the OTel convention.
fn chat(trace: u64, id: u64, parent: u64, asked: &Value, answered: &Value) -> Value {
    let (asked, answered) = (asked.to_string(), answered.to_string());
    let pairs = [
        ("gen_ai.operation.name", "chat"),
        ("gen_ai.request.model", "gpt-4o"),
        ("gen_ai.usage.input_tokens", "12"),
        ("gen_ai.usage.output_tokens", "3"),
        ("gen_ai.input.messages", asked.as_str()),
        ("gen_ai.output.messages", answered.as_str()),
    ];
    span(trace, id, parent, "chat gpt-4o", &pairs)
}

fn says(role: &str, text: &str) -> Value {
    json!({"role": role, "parts": [{"type": "text", "content": text}]})
}

fn plain_chat(trace: u64, id: u64, parent: u64, question: &str, answer: &str) -> Value {
    let asked = json!([says("user", question)]);
    chat(
        trace,
        id,
        parent,
        &asked,
        &json!([says("assistant", answer)]),
    )
}

async fn export(instance: &Instance, resource: &[(&str, &str)], spans: &[Value]) {
    let body = json!({"resourceSpans": [{
        "resource": {"attributes": attributes(resource)},
        "scopeSpans": [{"scope": {"name": "mine", "version": "1"}, "spans": spans}],
    }]});
    let sent = http()
        .post(instance.url("/v1/traces"))
        .json(&body)
        .send()
        .await
        .unwrap();
    assert_eq!(sent.status(), 200);
}

/// In short, what a frame tells.
fn short(frame: &Frame) -> String {
    let told = frame.json();
    let text = |key: &str| told[key].as_str().unwrap_or_default().to_owned();
    let more = match told["type"].as_str().unwrap() {
        "session_started" => {
            return format!("started {}", told["session"]["sessionId"].as_str().unwrap());
        }
        "span_received" => format!("span {}", told["span"]["name"].as_str().unwrap()),
        "user_input" => format!("user {}", text("text")),
        "agent_response" => format!("agent {}", text("text")),
        "tool_call" => format!(
            "call {} {}",
            told["toolCall"]["name"].as_str().unwrap(),
            told["toolCall"]["args"]
        ),
        "tool_result" => format!("result {} {}", text("toolName"), told["response"]),
        "token_update" => format!("tokens {} {}", told["inputTokens"], told["outputTokens"]),
        "session_complete" => format!("complete {}", told["invocations"].as_array().unwrap().len()),
        "session_removed" => format!("removed by {}", text("absorbedBy")),
        other => panic!("{other}"),
    };
    format!("{}: {more}", text("sessionId"))
}

/// What comes until something is told of so many times.
async fn until(viewer: &mut Viewer, last: &str, times: usize) -> Vec<String> {
    let mut told: Vec<String> = Vec::new();
    while told.iter().filter(|told| *told == last).count() < times {
        let frame = viewer
            .soon()
            .await
            .unwrap_or_else(|error| panic!("{error}: {told:#?}"));
        told.push(short(&frame.expect("goes on")));
    }
    told
}

async fn listen(instance: &Instance) -> Viewer {
    Viewer::open(&instance.url("/stream/ui-updates"), None)
        .await
        .unwrap()
}

/// Runs are settled by whoever follows them, and by the worker, which these instances have not.
async fn settle(instance: &Instance) {
    let app = instance.app.clone();
    tokio::spawn(async move {
        while !app.shutdown.is_cancelled() {
            let _ = app.log.settle_due(&TenantId::default()).await;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
}

/// A turn with a tool, in the order in which an SDK exports it.
fn turn(trace: u64) -> Vec<Value> {
    let wants = json!([{"role": "assistant", "parts": [{"type": "tool_call", "id": "c-1", "name": "roll", "arguments": {"sides": 6}}]}]);
    let question = says("user", "Roll a die");
    let got = json!([question.clone(), wants[0].clone(),
        {"role": "tool", "parts": [{"type": "tool_call_response", "id": "c-1", "response": {"result": 4}}]}]);
    let tool = [
        ("gen_ai.operation.name", "execute_tool"),
        ("gen_ai.tool.name", "roll"),
        ("gen_ai.tool.type", "function"),
        ("gen_ai.tool.description", "rolls"),
        ("gen_ai.tool.call.id", "c-1"),
        ("gen_ai.tool.call.arguments", r#"{"sides":6}"#),
        ("gen_ai.tool.call.result", r#"{"result":4}"#),
    ];
    vec![
        chat(trace, 2, 1, &json!([question]), &wants),
        span(trace, 3, 1, "execute_tool roll", &tool),
        chat(trace, 4, 1, &got, &json!([says("assistant", "A 4.")])),
        span(
            trace,
            1,
            0,
            "invoke_agent dice",
            &[
                ("gen_ai.operation.name", "invoke_agent"),
                ("gen_ai.conversation.id", "talk"),
            ],
        ),
    ]
}

const TURN: [&str; 11] = [
    "talk: user Roll a die",
    "talk: tokens 12 3",
    "talk: span chat gpt-4o",
    r#"talk: call roll {"sides":6}"#,
    r#"talk: result roll {"result":4}"#,
    "talk: span execute_tool roll",
    "talk: agent A 4.",
    "talk: tokens 12 3",
    "talk: span chat gpt-4o",
    "talk: span invoke_agent dice",
    "talk: complete 1",
];

#[tokio::test]
async fn a_turn_is_told_in_the_dialect_s_order_and_fields() {
    told(Store::node().await).await;
}

#[tokio::test]
async fn a_turn_is_told_the_same_on_a_cluster() {
    told(Store::cluster().await).await;
}

async fn told(store: Store) {
    let one = Instance::start(&store.url()).await;
    let other = Instance::start(&store.url()).await;
    settle(&one).await;
    let response = http()
        .get(other.url("/stream/ui-updates"))
        .send()
        .await
        .unwrap();
    assert_eq!(
        response.headers()["content-type"],
        "text/event-stream; charset=utf-8"
    );
    let mut viewer = Viewer::of(response);
    let resource = [("service.name", "dice"), ("agentevals.eval_set_id", "set")];
    export(&one, &resource, &turn(7)).await;
    let mut frames = Vec::new();
    while frames.len() < 12 {
        frames.push(viewer.soon().await.unwrap().expect("goes on"));
    }
    let told: Vec<String> = frames.iter().map(short).collect();
    assert_eq!(told[0], "started talk");
    assert_eq!(told[1..], TURN);
    let seen: Vec<Value> = frames.iter().map(Frame::json).collect();
    let session = &seen[0]["session"];
    assert_eq!(
        (
            &session["traceId"],
            &session["evalSetId"],
            &session["metadata"],
            &session["invocations"]
        ),
        (
            &json!(format!("{:032x}", 7)),
            &json!("set"),
            &json!({"service.name": "dice"}),
            &Value::Null
        )
    );
    let invocation = json!(format!("{:016x}", 1));
    assert_eq!(
        seen[4],
        json!({
            "type": "tool_call", "invocationId": invocation,
            "toolCall": {"id": "c-1", "name": "roll", "args": {"sides": 6}, "type": "function", "description": "rolls"},
            "timestamp": 1_760_000_003.0, "sessionId": "talk",
        })
    );
    assert_eq!(
        seen[5],
        json!({
            "type": "tool_result", "invocationId": invocation, "toolCallId": "c-1", "toolName": "roll",
            "response": {"result": 4}, "isError": false, "timestamp": 1_760_000_003.5, "sessionId": "talk",
        })
    );
    // As protobuf's JSON has it, with the scope among the attributes.
    let exported = &seen[3]["span"];
    assert_eq!(exported["kind"], "SPAN_KIND_CLIENT");
    let of = exported["attributes"].as_array().unwrap();
    assert!(of.contains(&json!({"key": "otel.scope.name", "value": {"stringValue": "mine"}})));
    let complete = &seen[11]["invocations"][0];
    assert_eq!(
        (
            &complete["userText"],
            &complete["agentText"],
            &complete["toolCalls"]
        ),
        (
            &json!("Roll a die"),
            &json!("A 4."),
            &json!([{"name": "roll", "args": {"sides": 6}, "id": "c-1"}])
        )
    );

    // Cut after every frame and gone on with elsewhere: each once, also within what one span gives.
    let mut again = Vec::new();
    let mut place = "0-0.0".to_owned();
    while again.len() < frames.len() {
        let instance = if again.len() % 2 == 0 { &one } else { &other };
        let url = instance.url("/stream/ui-updates");
        let mut viewer = Viewer::open(&url, Some(&place)).await.unwrap();
        let frame = viewer.soon().await.unwrap().expect("goes on");
        place = frame.id.clone().expect("an id");
        again.push(frame);
    }
    assert_eq!(again, frames);

    let refused = http()
        .get(one.url("/stream/ui-updates?cursor=7"))
        .send()
        .await
        .unwrap();
    assert_eq!(refused.status(), 400);
}

#[tokio::test]
async fn the_same_words_in_two_turns_are_told_twice() {
    let store = Store::node().await;
    let instance = Instance::start(&store.url()).await;
    let mut viewer = listen(&instance).await;
    let name = [("agentevals.session_name", "s")];
    let root = |trace, id| {
        span(
            trace,
            id,
            0,
            "invoke_agent a",
            &[("gen_ai.operation.name", "invoke_agent")],
        )
    };
    // One after the other in one trace, and in another; the second without a history, the third with one.
    let history = json!([
        says("user", "yes"),
        says("assistant", "Done."),
        says("user", "yes")
    ]);
    export(
        &instance,
        &name,
        &[
            plain_chat(1, 2, 3, "yes", "Done."),
            root(1, 3),
            plain_chat(1, 4, 5, "yes", "Done."),
            chat(
                1,
                6,
                5,
                &history,
                &json!([says("assistant", "Done, again.")]),
            ),
            root(1, 5),
        ],
    )
    .await;
    export(&instance, &name, &[plain_chat(2, 2, 0, "yes", "Done.")]).await;
    let told = until(&mut viewer, "s: span chat gpt-4o", 4).await;
    let words: Vec<&str> = told
        .iter()
        .map(String::as_str)
        .filter(|told| told.starts_with("s: user") || told.starts_with("s: agent"))
        .collect();
    assert_eq!(
        words,
        [
            "s: user yes",
            "s: agent Done.",
            "s: user yes",
            "s: agent Done.",
            "s: user yes",
            "s: agent Done, again.",
            "s: user yes",
            "s: agent Done.",
        ]
    );
}

#[tokio::test]
async fn a_conversation_s_turns_stay_in_one_session() {
    let store = Store::node().await;
    let instance = Instance::start(&store.url()).await;
    settle(&instance).await;
    let mut viewer = listen(&instance).await;
    let talk = [
        ("gen_ai.operation.name", "invoke_agent"),
        ("gen_ai.conversation.id", "conv"),
    ];
    for (trace, ends) in [(1, "conv: complete 1"), (2, "conv: complete 2")] {
        let spans = [
            plain_chat(trace, 2, 1, "hi", "hello"),
            span(trace, 1, 0, "invoke_agent a", &talk),
        ];
        export(&instance, &[], &spans).await;
        let told = until(&mut viewer, ends, 1).await;
        // Settled meanwhile, and open again under the same name.
        assert_eq!(
            told.iter().filter(|told| *told == "started conv").count(),
            usize::from(trace == 1)
        );
        assert!(
            !told.iter().any(|told| told.contains("conv-2")),
            "{told:#?}"
        );
    }
    // A late record of an ended trace: the session is complete again.
    export(
        &instance,
        &[],
        &[plain_chat(2, 3, 1, "and?", "that is all")],
    )
    .await;
    let told = until(&mut viewer, "conv: complete 2", 1).await;
    assert!(
        told.contains(&"conv: agent that is all".to_owned()),
        "{told:#?}"
    );
}

#[tokio::test]
async fn a_sub_agent_s_conversation_does_not_keep_the_trace() {
    let store = Store::node().await;
    let instance = Instance::start(&store.url()).await;
    settle(&instance).await;
    let mut viewer = listen(&instance).await;
    let agent = |id, parent, conversation: &str| {
        let pairs = [
            ("gen_ai.operation.name", "invoke_agent"),
            ("gen_ai.conversation.id", conversation),
        ];
        span(1, id, parent, "invoke_agent a", &pairs)
    };
    // Exported in two batches, children first.
    export(
        &instance,
        &[],
        &[plain_chat(1, 4, 3, "sub", "task"), agent(3, 2, "sub")],
    )
    .await;
    export(
        &instance,
        &[],
        &[agent(2, 1, "other-sub"), agent(1, 0, "main")],
    )
    .await;
    let told = until(&mut viewer, "main: complete 1", 1).await;
    let sessions: Vec<&str> = told
        .iter()
        .map(String::as_str)
        .filter(|told| !told.contains(": span") && !told.contains(": tokens"))
        .collect();
    assert_eq!(
        sessions,
        [
            "started sub",
            "sub: user sub",
            "sub: agent task",
            "started main",
            "sub: removed by main",
            "main: complete 1",
        ]
    );
    // A name given for this dialect wins over all; two traces of it are one session.
    let name = [("agentevals.session_name", "given")];
    export(
        &instance,
        &name,
        &[span(2, 1, 0, "a", &[("gen_ai.conversation.id", "c")])],
    )
    .await;
    export(&instance, &name, &[span(3, 1, 0, "b", &[])]).await;
    let told = until(&mut viewer, "given: span b", 1).await;
    assert_eq!(
        told.iter()
            .filter(|told| told.starts_with("started"))
            .count(),
        1,
        "{told:#?}"
    );
    // Without any, by the trace.
    export(
        &instance,
        &[],
        &[span(0x00ab_cdef_0000_0000, 1, 0, "c", &[])],
    )
    .await;
    until(&mut viewer, "otlp-000000000000: span c", 1).await;
}

#[tokio::test]
async fn a_session_of_steps_below_a_root_elsewhere_is_complete_after_its_silence() {
    let store = Store::node().await;
    let mut config = store.config();
    assert_eq!(config.patience.stalled_ms, 60_000);
    config.patience.stalled_ms = 400;
    let instance = Instance::with(config).await;
    // No viewer of the trace settles it: the deadline alone.
    let worker = tokio::spawn(tailspan_worker::run(instance.app.clone(), |_| {}));
    let mut viewer = listen(&instance).await;
    let name = [("agentevals.session_name", "below")];
    let (first, second) = (
        plain_chat(1, 2, 9, "How warm?", "21 degrees."),
        plain_chat(1, 3, 9, "And cold?", "3 degrees."),
    );
    export(&instance, &name, &[first]).await;
    let told = until(&mut viewer, "below: complete 1", 1).await;
    assert_eq!(
        told,
        [
            "started below",
            "below: user How warm?",
            "below: agent 21 degrees.",
            "below: tokens 12 3",
            "below: span chat gpt-4o",
            "below: complete 1",
        ]
    );
    // The trace itself stands as it is: nobody has seen its root end.
    let id = TraceId::parse(&format!("{:032x}", 1)).unwrap();
    let state = instance.app.log.state(&TenantId::default(), &id).await;
    assert_eq!(state.unwrap().unwrap().ended(), None);
    // What comes later opens the session again, and it is complete after the next silence.
    export(&instance, &name, &[second]).await;
    let told = until(&mut viewer, "below: complete 2", 1).await;
    assert_eq!(
        told,
        [
            "below: agent 3 degrees.",
            "below: tokens 12 3",
            "below: span chat gpt-4o",
            "below: complete 2",
        ]
    );
    worker.abort();
}

#[tokio::test]
async fn a_session_that_is_ended_and_begun_anew_is_told_of_each_time() {
    let store = Store::node().await;
    let instance = Instance::start(&store.url()).await;
    let mut viewer = listen(&instance).await;
    let (log, tenant) = (&instance.app.log, TenantId::default());
    let start = Start {
        session: "s".to_owned(),
        trace: "t".to_owned(),
        ..Start::default()
    };
    log.live_start(&tenant, &start).await.unwrap();
    log.live_end(&tenant, "s").await.unwrap();
    log.live_end(&tenant, "s").await.unwrap();
    log.live_start(&tenant, &start).await.unwrap();
    let told = until(&mut viewer, "started s", 2).await;
    assert_eq!(
        told,
        ["started s", "s: complete 0", "s: complete 0", "started s"]
    );
}

#[tokio::test]
async fn a_listener_that_reads_nothing_holds_up_nobody_and_loses_nothing() {
    let store = Store::node().await;
    let instance = Instance::start(&store.url()).await;
    let mut slow = tokio::net::TcpStream::connect(instance.address)
        .await
        .unwrap();
    slow.write_all(b"GET /stream/ui-updates HTTP/1.1\r\nhost: localhost\r\n\r\n")
        .await
        .unwrap();
    let mut head = vec![0; 12];
    slow.read_exact(&mut head).await.unwrap();
    let mut viewer = listen(&instance).await;
    let filler = "x".repeat(4_000);
    let mut sent = 0;
    for trace in 1..=20 {
        let spans: Vec<Value> = (1..=100)
            .map(|id| {
                let pairs = [("filler", filler.as_str()), ("number", &id.to_string())];
                span(trace, id, 1_000, "step", &pairs)
            })
            .collect();
        sent += spans.len();
        export(&instance, &[("agentevals.session_name", "s")], &spans).await;
    }
    // Eight megabytes lie before the slow one; the other has them all.
    until(&mut viewer, "s: span step", sent).await;
    let mut received = Vec::new();
    let mut piece = vec![0; 1 << 16];
    let count = |received: &[u8]| {
        String::from_utf8_lossy(received)
            .matches(r#""span_received""#)
            .count()
    };
    let all = tokio::time::timeout(Duration::from_secs(60), async {
        let mut found = 0;
        while found < sent {
            let read = slow.read(&mut piece).await.unwrap();
            assert!(read > 0, "cut after {found}");
            received.extend_from_slice(&piece[..read]);
            if received.len() > 1 << 20 {
                // What may go on in the next piece is kept.
                let keep = received.len() - 16;
                found += count(&received[..keep]);
                let from = received[keep - 16..keep].to_vec();
                found -= count(&from);
                received.drain(..keep - 16);
            }
            if found + count(&received) >= sent {
                found = sent;
            }
        }
    });
    all.await.expect("all of it");
}

#[tokio::test]
async fn a_server_that_stops_ends_its_streams() {
    let store = Store::node().await;
    let instance = Instance::start(&store.url()).await;
    let mut viewer = listen(&instance).await;
    export(&instance, &[], &[span(1, 1, 0, "a", &[])]).await;
    let told = until(&mut viewer, "otlp-000000000000: span a", 1).await;
    assert_eq!(told.len(), 2);
    instance.app.shutdown.cancel();
    let end = tokio::time::timeout(Duration::from_secs(10), viewer.next()).await;
    assert_eq!(end.expect("ends").unwrap(), None);
    // It goes on elsewhere where it was.
    let other = Instance::start(&store.url()).await;
    export(&other, &[], &[span(2, 1, 0, "b", &[])]).await;
    let place = viewer.last_event_id.expect("an id");
    let mut viewer = Viewer::open(&other.url("/stream/ui-updates"), Some(&place))
        .await
        .unwrap();
    until(&mut viewer, "otlp-000000000000: span b", 1).await;
}
