//! The forms of seed 001, field by field.
#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::sync::Arc;

use serde_json::{Value, json};
use tailspan_core::{
    fold::State,
    format::{self, Format},
    id::TraceId,
    lens::Lens,
    observed::{Context, Observation, Recorded, What},
    pricing::Prices,
    settle,
    summary::summary,
    verbosity::Verbosity,
};

/// A run as the seed's collector sees it.
const RUN: &[&str] = &[
    r#"{"event_type":"workflow_started","event_id":"e1","timestamp":"2025-01-20T10:30:45.000Z","agent_id":"helper","session_id":"s-1","user_id":"u-1","inputs":{"question":"How?"}}"#,
    r#"{"event_type":"node_started","event_id":"e2","timestamp":"2025-01-20T10:30:45.100Z","component_id":"n1","component_name":"Plan","component_type":"Agent","span_id":"n1","inputs":{"list":[1,2,3,4,5,6,7,8,9,10,11,12]},"thoughts":"Let me see."}"#,
    r#"{"event_type":"llm_call_completed","event_id":"e3","timestamp":"2025-01-20T10:30:46.500Z","call_id":"c1","model_name":"gpt-4o","prompt":"P","response":"R","prompt_tokens":12,"completion_tokens":5,"temperature":0.5,"max_tokens":64,"latency_ms":1234.5678}"#,
    r#"{"event_type":"retrieval_completed","event_id":"e4","timestamp":"2025-01-20T10:30:46.700Z","retrieval_id":"r1","query":"Q","knowledge_bases":["kb"],"top_k":7,"similarity_threshold":0.2,"rerank_enabled":true,"chunks":[{"id":"a","score":0.9},{"id":"b","score":0.8},{"id":"c","score":0.7},{"id":"d","score":0.6}],"latency_ms":20}"#,
    r#"{"event_type":"tool_call_completed","event_id":"e5","timestamp":"2025-01-20T10:30:46.900Z","call_id":"t1","tool_name":"calc","tool_type":"function","arguments":{"x":1},"result":0,"latency_ms":3}"#,
    r#"{"event_type":"node_failed","event_id":"e6","timestamp":"2025-01-20T10:30:47.000Z","component_id":"n1","component_name":"Plan","component_type":"Agent","span_id":"n1","error":"it broke","elapsed_time":1.90049}"#,
    r#"{"event_type":"workflow_failed","event_id":"e7","timestamp":"2025-01-20T10:30:47.250Z","agent_id":"helper","error":"it broke","elapsed_time":2.25}"#,
];

fn recorded() -> Vec<Recorded> {
    RUN.iter()
        .enumerate()
        .map(|(n, text)| Recorded {
            seq: n as u64 + 1,
            arrived_unix_ms: 1_737_369_050_000,
            observation: Observation {
                context: Arc::new(Context::default()),
                what: What::Native((*text).into()),
            },
        })
        .collect()
}

fn lens(format: Format) -> Lens {
    Lens {
        level: Verbosity::Debug,
        format: Some(format),
        ..Lens::default()
    }
}

fn events(format: Format) -> Vec<Value> {
    let trace = TraceId::parse("run-1").unwrap();
    let lens = lens(format);
    recorded()
        .iter()
        .map(|recorded| {
            serde_json::from_str(&lens.line(&trace, recorded, &Prices::default()).unwrap()).unwrap()
        })
        .collect()
}

fn session(format: Format, level: Verbosity) -> Value {
    let trace = TraceId::parse("run-1").unwrap();
    let mut state = State::default();
    recorded().iter().for_each(|event| state.apply(event));
    let summary = summary(
        &state,
        "run-1",
        settle::standing(&state),
        &Prices::default(),
    );
    let lens = Lens {
        level,
        ..lens(format)
    };
    let events: Vec<_> = recorded()
        .iter()
        .filter_map(|recorded| lens.event(&trace, recorded, &Prices::default()))
        .collect();
    let session = format::Session {
        summary: &summary,
        tenant_id: "default",
        level,
        trace_level: Verbosity::Debug,
    };
    format::session(&session, &events, format)
}

fn keys(value: &Value) -> Vec<&str> {
    value
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect()
}

#[test]
fn the_streaming_form() {
    let events = events(Format::Streaming);
    assert_eq!(
        events[1],
        json!({
            "event_id": "e2", "event_type": "node_started", "timestamp": "2025-01-20T10:30:45.100Z",
            "component_id": "n1", "component_name": "Plan", "component_type": "Agent",
            "inputs": {"list": [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, "10 of 12 items"]}, "thoughts": "Let me see."
        })
    );
    assert_eq!(
        events[5],
        json!({
            "event_id": "e6", "event_type": "node_failed", "timestamp": "2025-01-20T10:30:47.000Z",
            "component_id": "n1", "component_name": "Plan", "component_type": "Agent",
            "error": "it broke", "elapsed_time": 1.9
        })
    );
    let session = session(Format::Streaming, Verbosity::Debug);
    assert_eq!(
        keys(&session),
        [
            "session_id",
            "task_id",
            "status",
            "started_at",
            "completed_at",
            "total_elapsed_time",
            "summary",
            "events"
        ]
    );
    assert_eq!(session["session_id"], "s-1");
    assert_eq!(session["status"], "failed");
    assert_eq!(
        session["summary"],
        json!({
            "total_events": 7, "total_llm_calls": 1, "total_retrievals": 1, "total_tool_calls": 1, "total_tokens": 17,
            "total_chunks_retrieved": 4, "nodes_executed": session["summary"]["nodes_executed"], "errors_count": 1
        })
    );
    assert_eq!(session["events"].as_array().unwrap().len(), 7);
}

#[test]
fn the_compact_form() {
    let events = events(Format::Compact);
    assert_eq!(
        events[2],
        json!({"type": "llm_call_completed", "icon": "💬", "time": "10:30:46.500", "duration_ms": 1234.6})
    );
    assert_eq!(events[4]["component"], "calc");
    assert_eq!(
        events[5],
        json!({"type": "node_failed", "icon": "⚠️", "time": "10:30:47.000", "component": "Plan", "duration_ms": 1900.5, "error": "it broke"})
    );
    let session = session(Format::Compact, Verbosity::Debug);
    assert_eq!(
        keys(&session),
        [
            "session_id",
            "task_id",
            "status",
            "duration_s",
            "nodes",
            "llm_calls",
            "retrievals",
            "tool_calls",
            "tokens",
            "errors",
            "timeline"
        ]
    );
    assert_eq!(session["duration_s"], 2.25);
}

#[test]
fn the_detailed_form() {
    let events = events(Format::Detailed);
    assert_eq!(events[5]["timestamp_unix"], 1_737_369_047.0);
    assert_eq!(
        events[5]["timing"],
        json!({"elapsed_seconds": 1.9005, "elapsed_ms": 1900.49})
    );
    assert_eq!(
        events[5]["error"],
        json!({"message": "it broke", "occurred_at": "2025-01-20T10:30:47.000Z"})
    );
    assert_eq!(
        events[5]["component"],
        json!({"id": "n1", "name": "Plan", "type": "Agent"})
    );
    assert_eq!(events[2]["metadata"]["model_name"], "gpt-4o");

    let whole = session(Format::Detailed, Verbosity::Debug);
    assert_eq!(
        keys(&whole),
        [
            "session_id",
            "task_id",
            "metadata",
            "status",
            "timing",
            "summary",
            "events",
            "llm_calls",
            "retrievals",
            "tool_calls",
            "error"
        ]
    );
    let call = &whole["llm_calls"][0];
    assert_eq!(call["call_id"], "c1");
    assert_eq!(
        call["tokens"],
        json!({"prompt": 12, "completion": 5, "total": 17})
    );
    assert_eq!(call["latency_ms"], 1234.57);
    assert_eq!(
        (&call["temperature"], &call["max_tokens"]),
        (&json!(0.5), &json!(64))
    );
    assert_eq!(
        (&call["prompt"], &call["response"]),
        (&json!("P"), &json!("R"))
    );
    let retrieval = &whole["retrievals"][0];
    assert_eq!(retrieval["retrieval_id"], "r1");
    assert_eq!(
        retrieval["config"],
        json!({"top_k": 7, "similarity_threshold": 0.2, "rerank_enabled": true})
    );
    assert_eq!(retrieval["results"]["chunks_retrieved"], 4);
    let tool = &whole["tool_calls"][0];
    assert_eq!(
        (
            &tool["tool_name"],
            &tool["tool_type"],
            &tool["arguments"],
            &tool["result"]
        ),
        (
            &json!("calc"),
            &json!("function"),
            &json!({"x": 1}),
            &json!(0)
        )
    );
    assert_eq!(whole["error"], "it broke");

    // Below debug: the beginnings.
    let previews = session(Format::Detailed, Verbosity::Detailed);
    assert_eq!(previews["llm_calls"][0]["prompt_preview"], "P");
    assert_eq!(previews["tool_calls"][0]["result_preview"], "0");
    assert_eq!(
        previews["retrievals"][0]["results"]["chunks_preview"],
        json!([{"id": "a", "score": 0.9}, {"id": "b", "score": 0.8}, {"id": "c", "score": 0.7}])
    );
}

#[test]
fn the_timeline() {
    let trace = TraceId::parse("run-1").unwrap();
    let lens = Lens {
        level: Verbosity::Debug,
        ..Lens::default()
    };
    let events: Vec<_> = recorded()
        .iter()
        .filter_map(|recorded| lens.event(&trace, recorded, &Prices::default()))
        .collect();
    let timeline = format::timeline(&events);
    let lines: Vec<&str> = timeline.lines().collect();
    assert_eq!(lines.len(), 7);
    assert_eq!(lines[0], "10:30:45 🚀 workflow_started [helper]");
    assert!(
        lines[4].contains("tool_call_completed [calc]"),
        "{}",
        lines[4]
    );
    assert_eq!(
        lines[5],
        "10:30:47 ⚠️ node_failed [Plan] (1900ms) ERROR: it broke"
    );
}
