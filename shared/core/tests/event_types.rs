//! Every event type of the two sources comes out of real input, and what the records of a run promise: the mesh's example with its exact parents, model
//! calls with their own counts, retrievals with their chunks, results of every type, thoughts that end.
#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::{collections::BTreeSet, path::PathBuf};

use bytes::Bytes;
use proptest::prelude::*;
use prost::Message;
use serde_json::{Value, json};
use tailspan_core::{
    event::{self, Event},
    fold::State,
    id::TraceId,
    lens::{Filter, Lens},
    limits::Limits,
    mesh::Decoder,
    native::{self, Format, Sender},
    observed::{Incoming, Recorded},
    otlp::{Encoding, decode_logs, decode_traces, inflate},
    pricing::Prices,
    settle,
    summary::{Summary, summary},
    tree::{self, Row},
    verbosity::{Verbosity, show},
    wire,
};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const ARRIVED_UNIX_MS: u64 = 1_800_000_000_000;

fn trace() -> TraceId {
    TraceId::parse(TRACE).unwrap()
}

fn recorded(incoming: &[Incoming]) -> Vec<Recorded> {
    (1..)
        .zip(incoming)
        .map(|(seq, incoming)| Recorded {
            seq,
            arrived_unix_ms: ARRIVED_UNIX_MS + seq,
            observation: incoming.observation(),
        })
        .collect()
}

fn events(recorded: &[Recorded]) -> Vec<Event> {
    let trace = trace();
    recorded
        .iter()
        .map(|recorded| event::view(&trace, recorded))
        .collect()
}

fn state(recorded: &[Recorded]) -> State {
    let mut state = State::default();
    recorded.iter().for_each(|recorded| state.apply(recorded));
    state
}

fn rows(recorded: &[Recorded]) -> Vec<Row> {
    tree::rows(&state(recorded), &Prices::builtin())
}

fn summed(recorded: &[Recorded]) -> Summary {
    let state = state(recorded);
    summary(&state, TRACE, settle::standing(&state), &Prices::builtin())
}

/// As `POST /traces/{trace_id}/events` takes them.
fn posted(events: &Value) -> Vec<Recorded> {
    let limits = Limits::default();
    let body = events.to_string();
    let taken = native::decode(
        &trace(),
        body.as_bytes(),
        Format::Json,
        Sender::default(),
        &limits,
    )
    .unwrap();
    assert_eq!(taken.rejected, []);
    recorded(&taken.events)
}

fn flat(traces: Vec<(TraceId, Vec<Incoming>)>) -> Vec<Recorded> {
    let all: Vec<Incoming> = traces.into_iter().flat_map(|(_, all)| all).collect();
    recorded(&all)
}

fn exported(body: &Value) -> Vec<Recorded> {
    let body = body.to_string();
    let decode = if body.contains("resourceLogs") {
        decode_logs
    } else {
        decode_traces
    };
    let decoded = decode(Encoding::Json, body.as_bytes(), &Limits::default()).unwrap();
    assert_eq!(decoded.rejected, []);
    flat(decoded.traces)
}

fn any(value: &Value) -> Value {
    match value {
        Value::Null => json!({}),
        Value::Bool(truth) => json!({"boolValue": truth}),
        Value::Number(number) if number.is_f64() => json!({"doubleValue": number}),
        Value::Number(number) => json!({"intValue": number.to_string()}),
        Value::String(text) => json!({"stringValue": text}),
        Value::Array(items) => {
            json!({"arrayValue": {"values": items.iter().map(any).collect::<Vec<_>>()}})
        }
        Value::Object(fields) => json!({"kvlistValue": {"values": attributes(fields)}}),
    }
}

fn attributes(fields: &serde_json::Map<String, Value>) -> Value {
    fields
        .iter()
        .map(|(key, value)| json!({"key": key, "value": any(value)}))
        .collect()
}

/// One OTLP span; `end_ns` 0: it has not ended.
fn span(name: &str, said: &Value, end_ns: u64) -> Value {
    json!({"resourceSpans": [{"scopeSpans": [{"spans": [{
        "traceId": TRACE, "spanId": "00000000000000a1", "parentSpanId": "00000000000000a0", "name": name,
        "startTimeUnixNano": "1800000000000000000", "endTimeUnixNano": end_ns.to_string(), "attributes": attributes(said.as_object().unwrap()),
    }]}]}]})
}

fn log(event_name: &str, said: &Value, body: &Value) -> Value {
    json!({"resourceLogs": [{"scopeLogs": [{"logRecords": [{
        "traceId": TRACE, "spanId": "00000000000000a1", "timeUnixNano": "1800000000500000000", "eventName": event_name,
        "attributes": attributes(said.as_object().unwrap()), "body": any(body),
    }]}]}]})
}

/// As an agent of a mesh publishes it into Redis.
fn published(entries: &[Vec<(String, String)>]) -> Vec<Incoming> {
    let limits = Limits::default();
    let mut decoder = Decoder::new("mesh:trace", &limits);
    (1..)
        .zip(entries)
        .map(|(n, entry)| {
            let fields: Vec<(Bytes, Bytes)> = entry
                .iter()
                .map(|(key, value)| (key.clone().into(), value.clone().into()))
                .collect();
            decoder
                .decode(&format!("1737369046000-{n}"), &fields)
                .unwrap()
                .1
        })
        .collect()
}

fn entry(fields: &[(&str, &str)]) -> Vec<(String, String)> {
    [("trace_id", TRACE)]
        .iter()
        .chain(fields)
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect()
}

/// What real frameworks sent, recorded outside the repository. `None`: there are no recordings here.
fn corpus(scenario: &str) -> Option<Vec<Recorded>> {
    let place = std::env::var_os("TAILSPAN_CORPUS").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/corpus"),
        PathBuf::from,
    );
    let mut bodies: Vec<PathBuf> = std::fs::read_dir(place.join(scenario).join("requests"))
        .ok()?
        .map(|file| file.unwrap().path())
        .filter(|file| file.extension().is_some_and(|kind| kind == "body"))
        .collect();
    bodies.sort();
    let mut all = Vec::new();
    for file in bodies {
        let about = std::fs::read(file.with_extension("json")).unwrap();
        let about: Value = serde_json::from_slice(&about).unwrap();
        let header = |wanted: &str| {
            let headers = about["headers"].as_array().unwrap();
            let mut found = headers
                .iter()
                .filter(|header| header[0].as_str().unwrap().eq_ignore_ascii_case(wanted));
            found.find_map(|header| header[1].as_str())
        };
        let body = std::fs::read(&file).unwrap();
        let body = inflate(header("content-encoding"), &body, 16 << 20).unwrap();
        let encoding = Encoding::of(header("content-type"), &body).unwrap();
        let decode = match about["path"].as_str().unwrap() {
            "/v1/traces" => decode_traces,
            "/v1/logs" => decode_logs,
            _ => continue,
        };
        let decoded = decode(encoding, &body, &Limits::default()).unwrap();
        all.extend(decoded.traces.into_iter().flat_map(|(_, all)| all));
    }
    Some(recorded(&all))
}

enum Input {
    /// A recorded run of a real framework.
    Corpus(&'static str),
    Otlp(fn() -> Value),
    Mesh(&'static [(&'static str, &'static str)]),
    Native,
}

/// Each event type, an input that it comes out of, and how docs/protocol.md says that.
const SOURCES: &[(&str, &str, Input)] = &[
    (
        "workflow_started",
        "a workflow's span that has not ended (Genkit exports each span twice, first without an end)",
        Input::Otlp(|| {
            span(
                "flow",
                &json!({"genkit:type": "action", "genkit:metadata:subtype": "flow"}),
                0,
            )
        }),
    ),
    (
        "workflow_completed",
        "Google ADK (`adk-chain`)",
        Input::Corpus("adk-chain"),
    ),
    (
        "workflow_failed",
        "Google ADK (`adk-error`)",
        Input::Corpus("adk-error"),
    ),
    (
        "node_started",
        "Logfire's pending spans (`logfire-pending-agents`)",
        Input::Corpus("logfire-pending-agents"),
    ),
    (
        "node_finished",
        "LlamaIndex over OpenInference (`llamaindex-rag`)",
        Input::Corpus("llamaindex-rag"),
    ),
    (
        "node_failed",
        "LangGraph over OpenInference (`langgraph-oi-error`)",
        Input::Corpus("langgraph-oi-error"),
    ),
    (
        "retrieval_started",
        "a retriever's span that has not ended",
        Input::Otlp(|| {
            span(
                "retrieve",
                &json!({"openinference.span.kind": "RETRIEVER"}),
                0,
            )
        }),
    ),
    (
        "retrieval_completed",
        "LlamaIndex over OpenInference (`llamaindex-rag`)",
        Input::Corpus("llamaindex-rag"),
    ),
    (
        "llm_call_started",
        "Logfire's pending spans (`logfire-pending-agents`)",
        Input::Corpus("logfire-pending-agents"),
    ),
    (
        "llm_call_completed",
        "Google ADK (`adk-chain`)",
        Input::Corpus("adk-chain"),
    ),
    (
        "tool_call_started",
        "Logfire's pending spans (`logfire-pending-agents`)",
        Input::Corpus("logfire-pending-agents"),
    ),
    (
        "tool_call_completed",
        "Google ADK (`adk-chain`)",
        Input::Corpus("adk-chain"),
    ),
    (
        "message_generated",
        "OpenAI's client, log records `gen_ai.choice` (`openai-v2-old`)",
        Input::Corpus("openai-v2-old"),
    ),
    (
        "error_occurred",
        "a log record with an exception (`gen_ai.client.operation.exception`)",
        Input::Otlp(|| {
            log(
                "gen_ai.client.operation.exception",
                &json!({"exception.type": "TimeoutError", "exception.message": "too late"}),
                &Value::Null,
            )
        }),
    ),
    (
        "thinking_started",
        "a span of the operation `plan` that has not ended",
        Input::Otlp(|| span("plan Triage", &json!({"gen_ai.operation.name": "plan"}), 0)),
    ),
    (
        "thinking_completed",
        "a span of the operation `plan`",
        Input::Otlp(|| {
            span(
                "plan Triage",
                &json!({"gen_ai.operation.name": "plan"}),
                1_800_000_001_000_000_000,
            )
        }),
    ),
    (
        "task_started",
        "Logfire's pending spans (`logfire-pending-agents`); a mesh's `span_start`",
        Input::Corpus("logfire-pending-agents"),
    ),
    (
        "task_progress",
        "a log record that tells of a span under way (PartialSpan)",
        Input::Otlp(|| {
            let running = json!({
                "traceId": TRACE, "spanId": "00000000000000a1", "name": "agent Triage", "startTimeUnixNano": "1800000000000000000",
            });
            log(
                "",
                &json!({"partial.event": "heartbeat"}),
                &Value::from(running.to_string()),
            )
        }),
    ),
    ("task_completed", "native events only", Input::Native),
    (
        "task_failed",
        "Google ADK (`adk-error`); a mesh's entry with `success` = `False`",
        Input::Corpus("adk-error"),
    ),
    (
        "agent_called",
        "a mesh's entry; Google ADK (`adk-chain`)",
        Input::Mesh(&[("function_name", "plan"), ("agent_name", "planner")]),
    ),
    (
        "dependency_resolved",
        "a mesh's entry of this `event_type`",
        Input::Mesh(&[
            ("event_type", "dependency_resolved"),
            ("agent_name", "planner"),
        ]),
    ),
];

#[test]
fn every_event_type_of_the_sources_comes_out_of_real_input() {
    let document = include_str!("../../../docs/protocol.md");
    let names: BTreeSet<&str> = SOURCES.iter().map(|(name, ..)| *name).collect();
    assert_eq!(names.len(), 16 + 6);
    for (name, how, input) in SOURCES {
        let from_input = match input {
            Input::Corpus(scenario) => corpus(scenario),
            Input::Otlp(body) => Some(exported(&body())),
            Input::Mesh(fields) => Some(recorded(&published(&[entry(fields)]))),
            Input::Native => None,
        };
        // Whoever posts an event may call it so.
        let posted = posted(&json!([{"event_type": name, "agent_id": "a"}]));
        for told in [from_input, Some(posted)].into_iter().flatten() {
            let told = events(&told);
            assert!(
                told.iter().any(|event| event.event_type == *name),
                "{name} does not come out of {how}"
            );
        }
        let row = format!("| `{name}` | {how} |");
        assert!(document.contains(&row), "docs/protocol.md lacks {row}");
    }
}

/// The observability example of MCP Mesh: orchestrator, processor, analyzer and storage in a chain, then processor and storage side by side. Its parents, as its README has them:
/// span, parent, function, agent.
const EXAMPLE: [(&str, &str, &str, &str); 11] = [
    ("s001", "", "orchestrate_workflow", "orchestrator"),
    ("s002", "s001", "proxy_call_wrapper", "orchestrator"),
    ("s003", "s002", "process_data", "processor"),
    ("s004", "s003", "proxy_call_wrapper", "processor"),
    ("s005", "s004", "analyze_data", "analyzer"),
    ("s006", "s005", "proxy_call_wrapper", "analyzer"),
    ("s007", "s006", "store_result", "storage"),
    ("s008", "s001", "proxy_call_wrapper", "orchestrator"),
    ("s009", "s008", "get_status", "processor"),
    ("s010", "s001", "proxy_call_wrapper", "orchestrator"),
    ("s011", "s010", "get_metrics", "storage"),
];

/// Spans of the example begin one after another; each ends when all in it have.
fn example(number: usize) -> Vec<(String, String)> {
    let (id, parent, function, agent) = EXAMPLE[number];
    let last = match number {
        0 => 10,
        1..=6 => 6,
        7 | 8 => 8,
        _ => 10,
    };
    let start = format!("{}.5", 1_800_000_000 + number);
    let end = format!("{}.{}", 1_800_000_020 + last, 90 - number);
    entry(&[
        ("span_id", &hex_id(id)),
        (
            "parent_span",
            &if parent.is_empty() {
                "null".to_owned()
            } else {
                hex_id(parent)
            },
        ),
        ("function_name", function),
        ("agent_name", agent),
        ("start_time", &start),
        ("end_time", &end),
        ("success", "True"),
    ])
}

fn hex_id(name: &str) -> String {
    format!("{:0>16}", name.trim_start_matches('s'))
}

/// Each row's id, its parent's and whether it was seen.
fn family(rows: &[Row]) -> BTreeSet<(String, Option<String>, bool)> {
    rows.iter()
        .map(|row| {
            (
                row.span_id.clone(),
                row.parent_span_id.clone(),
                !row.estimated,
            )
        })
        .collect()
}

fn expected(seen: impl Fn(usize) -> bool) -> BTreeSet<(String, Option<String>, bool)> {
    (0..EXAMPLE.len())
        .map(|number| {
            let (id, parent, ..) = EXAMPLE[number];
            let parent = (!parent.is_empty()).then(|| hex_id(parent));
            (hex_id(id), parent, seen(number))
        })
        .collect()
}

fn check_example(recorded: &[Recorded]) {
    let rows = rows(recorded);
    assert_eq!(family(&rows), expected(|_| true));
    assert_eq!(rows.len(), 11);
    assert_eq!(rows.iter().filter(|row| row.depth == 0).count(), 1);
    let ids: BTreeSet<&str> = rows.iter().map(|row| row.span_id.as_str()).collect();
    let orphans = rows
        .iter()
        .filter_map(|row| row.parent_span_id.as_deref())
        .filter(|parent| !ids.contains(parent));
    assert_eq!(orphans.count(), 0);
    let summary = summed(recorded);
    assert_eq!(
        summary.agents,
        ["orchestrator", "processor", "analyzer", "storage"]
    );
    assert_eq!((summary.total_spans, summary.open_spans), (11, 0));
    assert_eq!(summary.status, settle::Status::Completed);
}

proptest! {
    #[test]
    fn the_meshs_example_has_its_exact_parents_in_any_order_and_doubled(
        order in Just((0..22).collect::<Vec<usize>>()).prop_shuffle(),
        doubled in proptest::bool::ANY,
    ) {
        let entries: Vec<_> = order
            .into_iter()
            .filter(|number| doubled || *number < 11)
            .map(|number| example(number % 11))
            .collect();
        check_example(&recorded(&published(&entries)));
    }
}

#[test]
fn the_meshs_example_with_its_root_missing_until_last() {
    let mut entries: Vec<_> = (1..11).map(example).collect();
    let before = rows(&recorded(&published(&entries)));
    let mut without_root = expected(|number| number != 0);
    assert_eq!(family(&before), without_root);
    assert_eq!(before.iter().filter(|row| row.depth == 0).count(), 1);
    entries.push(example(0));
    check_example(&recorded(&published(&entries)));

    // Its older command line named a span of its own as the parent of the root, and never published it.
    let mut of_old: Vec<_> = (0..11).map(example).collect();
    let parent = of_old[0].iter_mut().find(|(key, _)| key == "parent_span");
    parent.unwrap().1 = "00000000000000ee".to_owned();
    let rows = rows(&recorded(&published(&of_old)));
    without_root.retain(|(_, parent, _)| parent.is_some());
    without_root.insert((hex_id("s001"), Some("00000000000000ee".to_owned()), true));
    without_root.insert(("00000000000000ee".to_owned(), None, false));
    assert_eq!(family(&rows), without_root);
    assert_eq!(rows.iter().filter(|row| row.depth == 0).count(), 1);
}

/// Id or name of each row, its depth and its parent's name.
fn outline(rows: &[Row]) -> Vec<(String, usize)> {
    rows.iter()
        .map(|row| (row.name.clone(), row.depth))
        .collect()
}

#[test]
fn two_model_calls_in_one_node_are_told_apart_and_summed() {
    let run = posted(&json!([
        {"event_type": "workflow_started", "agent_id": "helper", "inputs": {"query": "How warm is it?"}},
        {"event_type": "node_started", "component_id": "n1", "component_name": "Answer", "component_type": "LLM"},
        {"event_type": "llm_call_started", "call_id": "c1", "model_name": "gpt-4o", "prompt": "How warm is it?", "temperature": 0.2, "max_tokens": 50},
        {"event_type": "llm_call_completed", "call_id": "c1", "response": "21", "prompt_tokens": 1_000, "completion_tokens": 10, "time_to_first_chunk_ms": 120},
        {"event_type": "llm_call_started", "model_name": "gpt-4o-mini"},
        {"event_type": "llm_call_completed", "model_name": "gpt-4o-mini", "prompt_tokens": 2_000, "completion_tokens": 20, "error": "cut off"},
        {"event_type": "node_finished", "component_id": "n1", "component_name": "Answer", "outputs": {"content": "21"}},
        {"event_type": "workflow_completed", "outputs": {"answer": "21"}},
    ]));
    let rows = rows(&run);
    assert_eq!(
        outline(&rows),
        [
            ("helper".to_owned(), 0),
            ("Answer".to_owned(), 1),
            ("gpt-4o".to_owned(), 2),
            ("gpt-4o-mini".to_owned(), 2)
        ]
    );
    let told: Vec<_> = rows
        .iter()
        .filter_map(|row| {
            let usage = row.usage?;
            Some((
                usage.input_tokens,
                usage.output_tokens,
                row.cost_usd,
                row.status,
            ))
        })
        .collect();
    assert_eq!(
        told,
        [
            (1_000, 10, Some(0.0026), "ok"),
            (2_000, 20, Some(0.000_312), "error")
        ]
    );
    let summary = summed(&run);
    assert_eq!(summary.total_llm_calls, 2);
    assert_eq!((summary.input_tokens, summary.output_tokens), (3_000, 30));
    assert_eq!(summary.cost_usd, Some(0.002_912));
    assert_eq!(summary.unpriced_llm_calls, 0);
    let event = &events(&run)[2];
    assert_eq!(
        Value::Object(event.parameters.clone()),
        json!({"temperature": 0.2, "max_tokens": 50})
    );
    assert_eq!(event.model.as_deref(), Some("gpt-4o"));
    assert_eq!(event.input, Some(json!("How warm is it?")));
    let ended = &events(&run)[3];
    assert_eq!(ended.time_to_first_chunk_ms, Some(120.0));
    assert_eq!(ended.output, Some(json!("21")));
    assert_eq!(ended.details["call_id"], "c1");
    let prices = Prices::builtin();
    let cost = |level, at: usize| {
        let lens = Lens {
            level,
            ..Lens::default()
        };
        lens.event(&trace(), &run[at], &prices)?.cost_usd
    };
    // An event is read by itself: this one does not name the model, as the start of the call did.
    assert_eq!(cost(Verbosity::Detailed, 3), None);
    assert_eq!(cost(Verbosity::Detailed, 5), Some(0.000_312));
    // A failed call is told of at every level, what it cost not at the least.
    assert_eq!(cost(Verbosity::Minimal, 5), None);
    assert_eq!(cost(Verbosity::Standard, 5), Some(0.000_312));
    let of_component = Lens {
        filter: Filter {
            component: Some("n1".to_owned()),
            ..Filter::default()
        },
        ..Lens::default()
    };
    let of_component = run
        .iter()
        .filter(|recorded| of_component.event(&trace(), recorded, &prices).is_some());
    assert_eq!(of_component.count(), 2);
}

#[test]
fn calls_belong_to_the_node_they_ran_in_as_far_as_there_is_no_doubt() {
    // Two nodes side by side: only those calls that name one are in one.
    let run = posted(&json!([
        {"event_type": "workflow_started", "agent_id": "helper"},
        {"event_type": "node_started", "component_id": "a", "component_name": "A"},
        {"event_type": "node_started", "component_id": "b", "component_name": "B"},
        {"event_type": "tool_call_started", "component_id": "b", "call_id": "1", "tool_name": "in b"},
        {"event_type": "tool_call_started", "call_id": "2", "tool_name": "in doubt"},
        {"event_type": "tool_call_completed", "call_id": "1", "result": 1},
        {"event_type": "tool_call_completed", "call_id": "2", "result": 2},
        {"event_type": "node_finished", "component_id": "b"},
        {"event_type": "error_occurred", "error": "odd"},
        {"event_type": "node_finished", "component_id": "a"},
        {"event_type": "message_generated", "content": "done"},
        {"event_type": "workflow_completed", "agent_id": "helper"},
    ]));
    let rows = rows(&run);
    let named = |name: &str, depth: usize| (name.to_owned(), depth);
    assert_eq!(
        outline(&rows),
        [
            named("helper", 0),
            named("A", 1),
            named("error_occurred", 2),
            named("B", 1),
            named("in b", 2),
            named("in doubt", 1),
            named("message_generated", 1)
        ]
    );
    assert!(rows.iter().all(|row| row.status != "running"));

    // A loop: the second round of a node is a node of its own, and so is a second run.
    let round = [
        json!({"event_type": "node_started", "component_id": "n", "component_name": "N"}),
        json!({"event_type": "llm_call_started", "model_name": "m"}),
        json!({"event_type": "llm_call_completed", "model_name": "m"}),
        json!({"event_type": "node_finished", "component_id": "n"}),
    ];
    let run = [
        vec![json!({"event_type": "workflow_started", "agent_id": "w"})],
        round.to_vec(),
        round.to_vec(),
        vec![json!({"event_type": "workflow_completed", "agent_id": "w"})],
    ]
    .concat();
    let twice = posted(&json!([run.clone(), run].concat()));
    let depths: Vec<usize> = self::rows(&twice).iter().map(|row| row.depth).collect();
    assert_eq!(depths, [0, 1, 2, 1, 2, 0, 1, 2, 1, 2]);
    // Each agent's calls are its own.
    let agents = posted(&json!([
        {"event_type": "task_started", "agent_id": "x"},
        {"event_type": "task_started", "agent_id": "y"},
        {"event_type": "llm_call_started", "agent_id": "y", "model_name": "of y"},
        {"event_type": "llm_call_started", "agent_id": "x", "model_name": "of x"},
        {"event_type": "llm_call_started", "model_name": "of whom"},
    ]));
    assert_eq!(
        outline(&self::rows(&agents)),
        [
            named("x", 0),
            named("of x", 1),
            named("y", 0),
            named("of y", 1),
            named("of whom", 0)
        ]
    );
}

fn seven_chunks() -> Value {
    (1..=7)
        .map(|n| json!({"id": format!("c{n}"), "score": 0.1 * f64::from(n), "document": "guide.md", "text": "x".repeat(300)}))
        .collect()
}

#[test]
fn seven_chunks_are_seven_chunks() {
    let native = posted(&json!([
        {"event_type": "retrieval_started", "retrieval_id": "r", "query": "warranty", "knowledge_bases": ["kb"], "top_k": 10, "similarity_threshold": 0.2, "rerank_enabled": true},
        {"event_type": "retrieval_completed", "retrieval_id": "r", "chunks": seven_chunks()},
    ]));
    let otlp = exported(&span(
        "retrieval kb",
        &json!({
            "gen_ai.operation.name": "retrieval", "gen_ai.data_source.id": "kb", "gen_ai.retrieval.query.text": "warranty",
            "gen_ai.retrieval.top_k": 10, "gen_ai.retrieval.documents": seven_chunks().to_string(),
        }),
        1_800_000_001_000_000_000,
    ));
    let asked = events(&native)[0].retrieval.clone().unwrap();
    assert_eq!(
        serde_json::to_value(&asked).unwrap(),
        json!({"query": "warranty", "knowledge_bases": ["kb"], "top_k": 10, "threshold": 0.2, "rerank": true})
    );
    for run in [&native, &otlp] {
        let summary = summed(run);
        assert_eq!(
            (summary.total_retrievals, summary.total_chunks_retrieved),
            (1, 7)
        );
        let event = events(run).pop().unwrap();
        let debug = show(event.clone(), Verbosity::Debug)
            .unwrap()
            .retrieval
            .unwrap();
        assert_eq!(debug.chunks_total, Some(7));
        assert_eq!(Value::Array(debug.chunks), seven_chunks());
        let detailed = show(event.clone(), Verbosity::Detailed)
            .unwrap()
            .retrieval
            .unwrap();
        assert_eq!(detailed.chunks.last(), Some(&json!("5 of 7 chunks")));
        assert_eq!(detailed.chunks[4]["score"], 0.5);
        assert!(
            detailed.chunks[0]["text"]
                .as_str()
                .unwrap()
                .ends_with("[200 of 300 characters]")
        );
        let standard = show(event, Verbosity::Standard).unwrap();
        let shown = standard.retrieval.as_ref().unwrap();
        assert_eq!((shown.chunks_total, shown.chunks.len()), (Some(7), 0));
        assert_eq!(standard.output, None);
    }
}

/// The result of a tool as its event shows it at `debug`; `None`: none was told.
fn result(recorded: &[Recorded]) -> Option<Value> {
    let event = events(recorded).pop().unwrap();
    let shown = serde_json::to_value(show(event, Verbosity::Debug).unwrap()).unwrap();
    shown["tool"].get("result").cloned()
}

#[test]
fn the_result_of_a_tool_keeps_its_type() {
    let big = "ü".repeat(1 << 20);
    let results = [
        json!(0),
        json!(0.5),
        json!(""),
        json!([]),
        json!(false),
        json!(null),
        json!({}),
        json!({"rooms": [{"id": 1, "free": [true, null]}], "note": ""}),
        json!("0"),
        json!("null"),
    ];
    let tool = |said: Value| {
        let mut all = json!({"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "t"});
        all.as_object_mut()
            .unwrap()
            .extend(said.as_object().unwrap().clone());
        exported(&span("execute_tool t", &all, 1_800_000_001_000_000_000))
    };
    for told in &results {
        let native = posted(
            &json!([{"event_type": "tool_call_completed", "tool_name": "t", "result": told}]),
        );
        assert_eq!(result(&native).as_ref(), Some(told), "native");
        let otlp = tool(json!({"gen_ai.tool.call.result": told}));
        assert_eq!(result(&otlp).as_ref(), Some(told), "OTLP");
        // The fold takes them all, and a snapshot gives back the state.
        let state = state(&otlp);
        let bytes = tailspan_core::fold::encode_snapshot(&state, 1);
        assert_eq!(
            tailspan_core::fold::decode_snapshot(&bytes),
            Some((state, 1))
        );
    }
    let untold = json!([{"event_type": "tool_call_completed", "tool_name": "t"}]);
    assert_eq!(result(&posted(&untold)), None);
    assert_eq!(result(&tool(json!({}))), None);
    let begun = json!([{"event_type": "tool_call_started", "tool_name": "t", "result": null}]);
    assert_eq!(result(&posted(&begun)), None);

    // A long one is cut and says of how much; a native event has no other place for it and keeps it.
    let otlp = tool(json!({"gen_ai.tool.call.result": big}));
    let shown = result(&otlp).unwrap();
    assert!(
        shown
            .as_str()
            .unwrap()
            .ends_with("of 1,048,576 characters]")
    );
    let preview = show(events(&otlp).pop().unwrap(), Verbosity::Detailed).unwrap();
    let preview = preview.tool.unwrap().result.unwrap();
    assert!(
        preview
            .as_str()
            .unwrap()
            .ends_with("[200 of 1,048,576 characters]")
    );

    let whole = Value::from("x".repeat(1_000_000));
    let native =
        posted(&json!([{"event_type": "tool_call_completed", "tool_name": "t", "result": whole}]));
    assert_eq!(result(&native), Some(whole));

    // Bytes are told as base64, text that is none is mended; neither stops anything.
    let bytes = exported(&json!({"resourceSpans": [{"scopeSpans": [{"spans": [{
        "traceId": TRACE, "spanId": "00000000000000a1", "name": "execute_tool t", "startTimeUnixNano": "1", "endTimeUnixNano": "2",
        "attributes": [
            {"key": "gen_ai.operation.name", "value": {"stringValue": "execute_tool"}},
            {"key": "gen_ai.tool.call.result", "value": {"bytesValue": "/w=="}},
        ],
    }]}]}]}));
    assert_eq!(result(&bytes), Some(json!("/w==")));
    let mut span = wire::Span {
        trace_id: vec![1; 16].into(),
        span_id: vec![2; 8].into(),
        name: "execute_tool t".to_owned(),
        start_time_unix_nano: 1,
        end_time_unix_nano: 2,
        ..wire::Span::default()
    };
    for (key, value) in [
        ("gen_ai.operation.name", "execute_tool"),
        ("gen_ai.tool.call.result", "\u{1}\u{1}"),
    ] {
        span.attributes.push(wire::KeyValue {
            key: key.into(),
            value: Some(wire::AnyValue {
                value: Some(wire::any_value::Value::String(value.into())),
            }),
        });
    }
    let message = |number: u8, inner: &[u8]| {
        let mut outer = vec![number << 3 | 2];
        prost::encoding::encode_varint(inner.len() as u64, &mut outer);
        outer.extend_from_slice(inner);
        outer
    };
    let mut body = message(1, &message(2, &message(2, &span.encode_to_vec())));
    let at = body.windows(2).rposition(|two| two == [1, 1]).unwrap();
    body[at] = 0xff;
    let decoded = decode_traces(Encoding::Protobuf, &body, &Limits::default()).unwrap();
    assert_eq!(decoded.traces.len() + decoded.rejected.len(), 1);
    for (_, incoming) in decoded.traces {
        assert_eq!(result(&recorded(&incoming)), Some(json!("\u{fffd}\u{1}")));
    }
    let lines = [
        br#"{"event_type":"tool_call_completed","tool_name":"t","result":""#.as_slice(),
        b"\xff\"}\n{\"event_type\":\"tool_call_completed\",\"tool_name\":\"t\",\"result\":7}",
    ]
    .concat();
    let taken = native::decode(
        &trace(),
        &lines,
        Format::Lines,
        Sender::default(),
        &Limits::default(),
    )
    .unwrap();
    assert_eq!(taken.rejected[0].reason, "invalid_utf8");
    assert_eq!(result(&recorded(&taken.events)), Some(json!(7)));
}

#[test]
fn every_thought_has_an_end() {
    let begun = [
        json!({"event_type": "workflow_started", "agent_id": "w"}),
        json!({"event_type": "node_started", "component_id": "n", "component_name": "N"}),
        json!({"event_type": "thinking_started", "component_id": "n", "thoughts": "Let me see."}),
    ];
    let thought = |end: &[Value]| {
        let run = posted(&[&begun, end].concat().into());
        let rows = rows(&run);
        let row = rows.iter().find(|row| row.name == "thinking").unwrap();
        (row.depth, row.status)
    };
    assert_eq!(thought(&[]), (2, "running"));
    let done =
        json!({"event_type": "thinking_completed", "component_id": "n", "thoughts": "I see."});
    assert_eq!(thought(&[done]), (2, "ok"));
    // The node failed; the run was cancelled, and nobody finished the node.
    let failed = json!({"event_type": "node_failed", "component_id": "n", "error": "no"});
    assert_eq!(thought(&[failed]), (2, "ok"));
    let cancelled = json!({"event_type": "workflow_failed", "agent_id": "w", "error": {"type": "Cancelled", "message": "by the user"}});
    assert_eq!(thought(&[cancelled]), (2, "ok"));

    let run = posted(&Value::from(begun.to_vec()));
    let event = events(&run).pop().unwrap();
    assert_eq!(event.thinking.as_deref(), Some("Let me see."));
    assert_eq!(show(event, Verbosity::Standard), None);
}
