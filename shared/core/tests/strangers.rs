//! Whatever strangers write into attributes, bodies and native events: it is read without a panic, and every view of it can be taken.
#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::sync::Arc;

use proptest::prelude::*;
use serde_json::{Value, json};
use tailspan_core::{
    event,
    fold::State,
    id::TraceId,
    invocations::invocations,
    observed::{Context, Observation, Recorded, What},
    pricing::Prices,
    settle,
    summary::summary,
    tree,
    wire::{AnyValue, KeyValue, LogRecord, Scope, Span, SpanEvent, Status, any_value},
};

/// Names that the readers look for, so that odd values stand where they look.
const NAMES: &[&str] = &[
    "role",
    "content",
    "parts",
    "type",
    "text",
    "tool_calls",
    "function",
    "name",
    "arguments",
    "id",
    "messages",
    "message",
    "output",
    "choices",
    "contents",
    "message_content",
    "toolUse",
    "toolResult",
    "function_call",
    "data",
    "kwargs",
    "update",
    "inputs",
    "prompt",
    "usage_metadata",
    "config",
    "system_instruction",
    "labels",
    "user",
    "assistant",
    "tool",
    "human",
    "tool_call",
    "tool_call_response",
    "",
];

const KEYS: &[&str] = &[
    "gen_ai.operation.name",
    "gen_ai.input.messages",
    "gen_ai.output.messages",
    "gen_ai.system_instructions",
    "gen_ai.prompt",
    "gen_ai.prompt.0.content",
    "gen_ai.completion.0.tool_calls.0.name",
    "gen_ai.tool.name",
    "gen_ai.tool.call.arguments",
    "gen_ai.tool.call.result",
    "gen_ai.usage.input_tokens",
    "gen_ai.agent.name",
    "openinference.span.kind",
    "llm.input_messages.0.message.content",
    "llm.input_messages.99999999999999999999.message.role",
    "llm.output_messages",
    "llm.invocation_parameters",
    "llm.token_count.prompt",
    "metadata",
    "input.value",
    "output.value",
    "tool.name",
    "session.id",
    "gcp.vertex.agent.llm_request",
    "gcp.vertex.agent.llm_response",
    "gcp.vertex.agent.tool_call_args",
    "traceloop.span.kind",
    "traceloop.entity.input",
    "traceloop.association.properties.thread_id",
    "ai.operationId",
    "ai.prompt",
    "ai.prompt.messages",
    "ai.response.toolCalls",
    "ai.response.text",
    "logfire.span_type",
    "logfire.pending_parent_id",
    "mcp.method.name",
    "error.type",
    "retrieval.documents.0.document.content",
    "pydantic_ai.all_messages",
    "final_result",
    "message",
    "content",
    "exception.type",
    "exception.message",
    "event.name",
    "...",
    "",
];

const WORDS: &[&str] = &[
    "chat",
    "execute_tool",
    "invoke_agent",
    "LLM",
    "TOOL",
    "AGENT",
    "CHAIN",
    "workflow",
    "tools/call",
    "pending_span",
    "ai.toolCall",
    "ai.generateText.doStream",
    "handoff to ",
    "HANDOFF TO é",
    "transfer_to_x",
    "invoke_agent ",
    "agent_run [",
    "gen_ai.choice",
    "gen_ai.user.message",
    "gen_ai.tool.message",
    "gen_ai.client.inference.operation.details",
    "exception",
    "é\u{0}",
    "<not specified>",
    "17",
    "-1",
    "1e400",
    "{",
    "[[[",
    "{\"role\":\"user\"}",
];

fn word() -> impl Strategy<Value = String> {
    prop_oneof![
        prop::sample::select(WORDS).prop_map(str::to_owned),
        ".{0,6}"
    ]
}

fn json_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        word().prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((prop::sample::select(NAMES), inner.clone()), 0..4).prop_map(
                |pairs| pairs
                    .into_iter()
                    .map(|(key, value)| (key.to_owned(), value))
                    .collect()
            ),
            // JSON as text, as many write it.
            inner.prop_map(|value| Value::String(value.to_string())),
        ]
    })
}

fn attributes() -> impl Strategy<Value = Vec<KeyValue>> {
    let value = prop_oneof![
        any::<i64>().prop_map(any_value::Value::Int),
        any::<f64>().prop_map(any_value::Value::Double),
        any::<bool>().prop_map(any_value::Value::Bool),
        word().prop_map(|text| any_value::Value::String(text.into())),
        json_value().prop_map(|value| any_value::Value::String(value.to_string().into())),
        Just(any_value::Value::Bytes(vec![0, 255].into())),
    ];
    prop::collection::vec((prop::sample::select(KEYS), prop::option::of(value)), 0..12).prop_map(
        |pairs| {
            pairs
                .into_iter()
                .map(|(key, value)| KeyValue {
                    key: key.into(),
                    value: Some(AnyValue { value }),
                })
                .collect()
        },
    )
}

fn what() -> impl Strategy<Value = What> {
    let span = (
        (0u8..4, 0u8..5, word(), any::<u64>(), any::<u64>()),
        attributes(),
        prop::collection::vec((word(), attributes()), 0..3),
        0i32..4,
        word(),
    )
        .prop_map(
            |((id, parent, name, start, end), attributes, events, code, message)| {
                What::Span(Arc::new(Span {
                    span_id: vec![id; 8].into(),
                    parent_span_id: vec![parent; 8].into(),
                    name,
                    start_time_unix_nano: start,
                    end_time_unix_nano: end,
                    attributes,
                    events: events
                        .into_iter()
                        .map(|(name, attributes)| SpanEvent {
                            name,
                            attributes,
                            ..SpanEvent::default()
                        })
                        .collect(),
                    status: Some(Status { message, code }),
                    ..Span::default()
                }))
            },
        );
    let log = (0u8..5, any::<u64>(), word(), attributes(), json_value()).prop_map(
        |(id, time, event_name, attributes, body)| {
            What::Log(Arc::new(LogRecord {
                span_id: vec![id; 8].into(),
                time_unix_nano: time,
                event_name,
                attributes,
                body: Some(AnyValue {
                    value: Some(any_value::Value::String(body.to_string().into())),
                }),
                ..LogRecord::default()
            }))
        },
    );
    let types = [
        "workflow_started",
        "workflow_failed",
        "task_started",
        "task_completed",
        "llm_call_started",
        "llm_call_completed",
        "tool_call_started",
        "tool_call_completed",
        "agent_called",
        "node_failed",
        "message_generated",
        "own",
    ];
    let fields = [
        "timestamp",
        "agent_id",
        "span_id",
        "parent_span_id",
        "call_id",
        "error",
        "usage",
        "tool",
        "tool_name",
        "arguments",
        "result",
        "inputs",
        "outputs",
        "details",
        "elapsed_time",
        "prompt_tokens",
        "name",
        "trace_id",
        "seq",
        "odd",
    ];
    let native = (
        prop::sample::select(types.to_vec()),
        prop::collection::vec((prop::sample::select(fields.to_vec()), json_value()), 0..8),
    )
        .prop_map(|(event_type, fields)| {
            let mut object = json!({ "event_type": event_type });
            for (key, value) in fields {
                object[key] = value;
            }
            What::Native(object.to_string().into())
        });
    prop_oneof![4 => span, 1 => log, 2 => native]
}

proptest! {
    #[test]
    fn nothing_that_a_stranger_writes_panics(
        whats in prop::collection::vec(what(), 1..12),
        scope in prop::sample::select(&["", "gcp.vertex.agent", "openinference.instrumentation.llama_index", "opentelemetry.instrumentation.openai_agents", "ai"]),
    ) {
        let trace = TraceId::parse("t").unwrap();
        let context = Arc::new(Context {
            scope: Scope { name: scope.to_owned(), ..Scope::default() },
            ..Context::default()
        });
        let mut state = State::default();
        for (n, what) in whats.into_iter().enumerate() {
            let recorded = Recorded {
                seq: n as u64 + 1,
                arrived_unix_ms: 1_800_000_000_000,
                observation: Observation { context: context.clone(), what },
            };
            let seen = serde_json::to_value(event::view_with_attributes(&trace, &recorded)).unwrap();
            prop_assert!(seen["event_type"].is_string());
            prop_assert!(seen["timestamp"].as_str().unwrap().ends_with('Z'));
            prop_assert_eq!(&seen["seq"], &json!(n as u64 + 1));
            settle::may_end_run(&recorded.observation.what);
            state.apply(&recorded);
        }
        let told = summary(&state, "t", settle::standing(&state), &Prices::builtin());
        serde_json::to_string(&told).unwrap();
        serde_json::to_string(&invocations(&state)).unwrap();
        serde_json::to_string(&tree::rows(&state, &Prices::builtin())).unwrap();
        settle::decide(&state, 0, u64::MAX, &settle::Patience::default());
    }
}
