//! One span of each dialect, written by hand after its specification: what is read from it. Whole runs of real frameworks are in the corpus (`corpus.rs`).

use std::sync::Arc;

use serde_json::{Value, json};
use tailspan_core::{
    event,
    fold::State,
    limits::Limits,
    observed::{Observation, Recorded, What},
    otlp::{Encoding, decode_logs, decode_traces},
    pricing::Prices,
    settle::Status,
    summary::summary,
    tree,
};

const TRACE: &str = "5b8efff798038103d269b633813fc60c";

fn any(value: &Value) -> Value {
    match value {
        Value::Bool(truth) => json!({"boolValue": truth}),
        Value::Number(number) if number.is_f64() => json!({"doubleValue": number}),
        Value::Number(number) => json!({"intValue": number.to_string()}),
        Value::Array(items) => {
            json!({"arrayValue": {"values": items.iter().map(any).collect::<Vec<_>>()}})
        }
        Value::Object(_) => json!({"stringValue": value.to_string()}),
        Value::String(text) => json!({"stringValue": text}),
        Value::Null => json!({}),
    }
}

fn attributes(all: &Value) -> Value {
    let all = all.as_object().expect("an object");
    all.iter()
        .map(|(key, value)| json!({"key": key, "value": any(value)}))
        .collect()
}

/// A span of a scope; `more` are further fields of it.
fn span(scope: &str, name: &str, said: &Value, more: &Value) -> Value {
    let mut span = json!({
        "traceId": TRACE, "spanId": "00000000000000a1", "parentSpanId": "00000000000000a0", "name": name,
        "startTimeUnixNano": "1800000000000000000", "endTimeUnixNano": "1800000001000000000", "attributes": attributes(said),
    });
    for (key, value) in more.as_object().expect("an object") {
        span[key] = value.clone();
    }
    json!({"resourceSpans": [{"scopeSpans": [{"scope": {"name": scope}, "spans": [span]}]}]})
}

fn recorded(bodies: &[(bool, Value)]) -> Vec<Recorded> {
    let mut all = Vec::new();
    for (is_log, body) in bodies {
        let decode = if *is_log { decode_logs } else { decode_traces };
        let decoded = decode(
            Encoding::Json,
            body.to_string().as_bytes(),
            &Limits::default(),
        )
        .expect("decoded");
        assert_eq!(decoded.rejected, []);
        for (_, incoming) in decoded.traces {
            for incoming in incoming {
                let seq = all.len() as u64 + 1;
                all.push(Recorded {
                    seq,
                    arrived_unix_ms: 1_800_000_002_000,
                    observation: incoming.observation(),
                });
            }
        }
    }
    all
}

/// What is told of one span, by name of the fact; text of messages without their roles.
fn read(body: Value) -> Value {
    let trace = tailspan_core::id::TraceId::parse(TRACE).expect("an id");
    let event =
        serde_json::to_value(event::view(&trace, &recorded(&[(false, body)])[0])).expect("JSON");
    let said = |messages: &Value| match messages {
        Value::Array(messages) => messages
            .iter()
            .filter_map(|message| message["content"].as_str().filter(|text| !text.is_empty()))
            .collect::<Vec<_>>()
            .join(" | ")
            .into(),
        other => other.clone(),
    };
    json!({
        "kind": event["kind"], "rule": event["convention"], "agent": event["agent_name"], "model": event["model"], "provider": event["provider"],
        "tokens": event["usage"].as_object().map(|usage| json!([usage["input_tokens"], usage["output_tokens"], usage["cached_tokens"]])),
        "tool": event["tool"]["name"], "arguments": event["tool"]["arguments"], "result": event["tool"]["result"],
        "input": said(&event["input"]), "output": said(&event["output"]),
        "session": event["session_id"], "user": event["user_id"], "error": event["error"]["message"],
    })
}

/// The facts of `expected` are as told; those that it does not name are not looked at.
fn check(body: Value, expected: &Value) {
    let told = read(body);
    for (fact, value) in expected.as_object().expect("an object") {
        assert_eq!(&told[fact], value, "{fact} of {told:#}");
    }
}

fn checked(scope: &str, name: &str, said: &Value, expected: &Value) {
    check(span(scope, name, said, &json!({})), expected);
}

#[test]
fn opentelemetry_genai_new_and_old() {
    checked(
        "x",
        "chat a-model",
        &json!({
            "gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai", "gen_ai.request.model": "a-model", "gen_ai.response.model": "a-model-1",
            "gen_ai.usage.input_tokens": 100, "gen_ai.usage.output_tokens": 7, "gen_ai.usage.cache_read.input_tokens": 64, "gen_ai.conversation.id": "c1",
            "gen_ai.input.messages": [], "gen_ai.output.messages": json!([{"role": "assistant", "parts": [{"type": "text", "content": "hi"}]}]).to_string(),
        }),
        &json!({"kind": "llm", "rule": "gen_ai:operation.name", "model": "a-model", "provider": "openai", "tokens": [100, 7, 64], "session": "c1", "output": "hi"}),
    );
    checked(
        "x",
        "chat a-model",
        &json!({
            "gen_ai.system": "az.ai.openai", "gen_ai.request.model": "a-model", "gen_ai.usage.prompt_tokens": "10", "gen_ai.usage.completion_tokens": 2.0,
            "gen_ai.prompt.0.role": "user", "gen_ai.prompt.0.content": "hello", "gen_ai.completion.0.role": "assistant", "gen_ai.completion.0.content": "hi",
        }),
        &json!({"kind": "llm", "rule": "gen_ai:model", "provider": "azure.ai.openai", "tokens": [10, 2, 0], "input": "hello", "output": "hi"}),
    );
    // A total alone, and a total beside the answer's.
    checked(
        "x",
        "chat",
        &json!({"gen_ai.operation.name": "chat", "gen_ai.usage.total_tokens": 9}),
        &json!({"tokens": [9, 0, 0]}),
    );
    checked(
        "x",
        "chat",
        &json!({"gen_ai.operation.name": "chat", "llm.usage.total_tokens": 9, "gen_ai.usage.output_tokens": 4}),
        &json!({"tokens": [5, 4, 0]}),
    );
    // Anthropic's own count leaves out what the cache had.
    checked(
        "x",
        "chat",
        &json!({"gen_ai.operation.name": "chat", "gen_ai.usage.input_tokens": 3, "gen_ai.usage.output_tokens": 4,
            "gen_ai.usage.cache_read_input_tokens": 1000, "gen_ai.usage.cache_creation_input_tokens": 20}),
        &json!({"tokens": [1023, 4, 1000]}),
    );
    checked(
        "x",
        "execute_tool roll",
        &json!({"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "roll", "gen_ai.tool.call.arguments": {"sides": 6}, "gen_ai.tool.call.result": 4, "error.type": "x"}),
        &json!({"kind": "tool", "tool": "roll", "arguments": {"sides": 6}, "result": 4, "error": ""}),
    );
    for (operation, kind) in [
        ("generate_content", "llm"),
        ("embeddings", "embedding"),
        ("retrieval", "retriever"),
        ("create_agent", "agent_admin"),
        ("invoke_agent", "agent"),
        ("invoke_workflow", "workflow"),
        ("plan", "plan"),
        ("search_memory", "memory"),
        ("execute_event_loop_cycle", "task"),
        ("invoke_node", "task"),
        ("chat.streaming_completions", "llm"),
        ("load_skill", "tool"),
    ] {
        checked(
            "x",
            "s",
            &json!({"gen_ai.operation.name": operation}),
            &json!({"kind": kind}),
        );
    }
}

#[test]
fn mcp() {
    checked(
        "x",
        "tools/call roll",
        &json!({"mcp.method.name": "tools/call", "gen_ai.tool.name": "roll", "mcp.session.id": "m", "rpc.response.status_code": "0"}),
        &json!({"kind": "tool", "rule": "mcp:method.name", "tool": "roll"}),
    );
    // Merged into the tool's own span.
    checked(
        "x",
        "execute_tool roll",
        &json!({"gen_ai.operation.name": "execute_tool", "mcp.method.name": "tools/call", "gen_ai.tool.name": "roll"}),
        &json!({"kind": "tool", "rule": "gen_ai:operation.name"}),
    );
    checked(
        "x",
        "initialize",
        &json!({"mcp.method.name": "initialize"}),
        &json!({"kind": "mcp"}),
    );
}

#[test]
fn openinference() {
    checked(
        "openinference.instrumentation.openai",
        "ChatCompletion",
        &json!({
            "openinference.span.kind": "LLM", "llm.model_name": "a-model-1", "llm.invocation_parameters": {"model": "a-model"}, "llm.provider": "openai",
            "llm.token_count.prompt": 12, "llm.token_count.completion": 3, "llm.token_count.prompt_details.cache_read": 4, "session.id": "s", "user.id": "u",
            "llm.input_messages.0.message.role": "user", "llm.input_messages.0.message.contents.0.message_content.type": "text",
            "llm.input_messages.0.message.contents.0.message_content.text": "hello",
            "llm.output_messages.0.message.role": "assistant", "llm.output_messages.0.message.content": "hi",
        }),
        &json!({"kind": "llm", "model": "a-model", "tokens": [12, 3, 4], "input": "hello", "output": "hi", "session": "s", "user": "u"}),
    );
    checked(
        "x",
        "ChatCompletion",
        &json!({"openinference.span.kind": "LLM", "llm.token_count.total": 8}),
        &json!({"tokens": [8, 0, 0]}),
    );
    checked(
        "x",
        "roll",
        &json!({"openinference.span.kind": "TOOL", "tool.name": "roll", "input.value": "{\"sides\": 6}", "input.mime_type": "application/json", "output.value": "4"}),
        &json!({"kind": "tool", "tool": "roll", "arguments": {"sides": 6}, "result": "4"}),
    );
    for (word, kind) in [
        ("CHAIN", "task"),
        ("RETRIEVER", "retriever"),
        ("RERANKER", "reranker"),
        ("GUARDRAIL", "guardrail"),
        ("EVALUATOR", "evaluator"),
        ("PROMPT", "prompt"),
        ("EMBEDDING", "embedding"),
    ] {
        checked(
            "x",
            "s",
            &json!({"openinference.span.kind": word}),
            &json!({"kind": kind}),
        );
    }
    checked(
        "x",
        "s",
        &json!({"openinference.span.kind": "UNKNOWN"}),
        &json!({"kind": "span", "rule": "plain"}),
    );
}

#[test]
fn traceloop() {
    checked(
        "opentelemetry.instrumentation.openai.v1",
        "openai.chat",
        &json!({
            "llm.request.type": "chat", "gen_ai.system": "openai", "gen_ai.request.model": "a-model", "gen_ai.usage.input_tokens": 5, "gen_ai.usage.output_tokens": 6,
            "llm.usage.total_tokens": 11, "gen_ai.prompt.0.role": "system", "gen_ai.prompt.0.content": "be kind", "gen_ai.prompt.1.role": "user", "gen_ai.prompt.1.content": "hello",
            "gen_ai.completion.0.tool_calls.0.name": "roll", "gen_ai.completion.0.tool_calls.0.arguments": "{}", "gen_ai.completion.0.role": "assistant",
            "traceloop.association.properties.session_id": "s", "traceloop.association.properties.user_id": "u",
        }),
        &json!({"kind": "llm", "rule": "traceloop:span.kind", "tokens": [5, 6, 0], "input": "be kind | hello", "session": "s", "user": "u"}),
    );
    checked(
        "x",
        "roll.tool",
        &json!({"traceloop.span.kind": "tool", "traceloop.entity.name": "roll", "traceloop.entity.input": "{\"input_str\": \"{'sides': 6}\", \"inputs\": {\"sides\": 6}}", "traceloop.entity.output": "4"}),
        &json!({"kind": "tool", "tool": "roll", "arguments": {"sides": 6}, "result": "4"}),
    );
    checked(
        "x",
        "writer.agent",
        &json!({"traceloop.span.kind": "agent", "traceloop.entity.name": "writer"}),
        &json!({"kind": "agent", "agent": "writer"}),
    );
    checked(
        "x",
        "flow.workflow",
        &json!({"traceloop.span.kind": "workflow"}),
        &json!({"kind": "workflow"}),
    );
}

#[test]
fn vercel_ai_sdk() {
    // Version 3: the answer under its first name.
    checked(
        "ai",
        "ai.generateText.doGenerate",
        &json!({"operation.name": "ai.generateText.doGenerate writer", "ai.operationId": "ai.generateText.doGenerate", "ai.telemetry.functionId": "writer", "ai.model.id": "a-model",
            "ai.prompt.messages": "[{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"hello\"}]}]", "ai.result.text": "hi", "ai.finishReason": "stop",
            "ai.usage.promptTokens": 5, "ai.usage.completionTokens": 6, "ai.telemetry.metadata.sessionId": "s"}),
        &json!({"kind": "llm", "agent": "writer", "model": "a-model", "tokens": [5, 6, 0], "input": "hello", "output": "hi", "session": "s"}),
    );
    // Version 5 and 6, an object as the answer, the cache in its details.
    checked(
        "ai",
        "ai.generateObject.doGenerate",
        &json!({"ai.operationId": "ai.generateObject.doGenerate", "ai.response.object": "{\"n\":4}", "ai.usage.inputTokens": 50, "ai.usage.outputTokens": 6,
            "ai.usage.inputTokenDetails.cacheReadTokens": 40}),
        &json!({"kind": "llm", "tokens": [50, 6, 40], "output": "{\"n\":4}"}),
    );
    // The cache in the provider's own words.
    checked(
        "ai",
        "ai.streamText.doStream",
        &json!({"ai.operationId": "ai.streamText.doStream", "ai.response.text": "hi", "ai.usage.inputTokens": 3, "ai.usage.outputTokens": 6,
            "ai.response.providerMetadata": {"anthropic": {"usage": {"cache_read_input_tokens": 100, "cache_creation_input_tokens": 10}}}}),
        &json!({"tokens": [113, 6, 100]}),
    );
    checked(
        "ai",
        "ai.toolCall",
        &json!({"ai.operationId": "ai.toolCall", "ai.toolCall.name": "roll", "ai.toolCall.id": "c1", "ai.toolCall.args": "{\"sides\":6}", "ai.toolCall.result": "4"}),
        &json!({"kind": "tool", "tool": "roll", "arguments": {"sides": 6}, "result": "4"}),
    );
    // Version 7.
    checked(
        "gen_ai",
        "invoke_agent a-model",
        &json!({"gen_ai.operation.name": "invoke_agent", "gen_ai.agent.name": "writer", "gen_ai.usage.input_tokens": 5}),
        &json!({"kind": "agent", "agent": "writer", "tokens": null}),
    );
}

#[test]
fn genkit() {
    checked(
        "genkit-tracer",
        "openai/a-model",
        &json!({"genkit:type": "action", "genkit:metadata:subtype": "model", "genkit:name": "openai/a-model",
            "genkit:input": {"messages": [{"role": "user", "content": [{"text": "hello"}]}], "config": {}},
            "genkit:output": {"message": {"role": "model", "content": [{"text": "hi"}]}, "finishReason": "stop", "usage": {"inputTokens": 5, "outputTokens": 6, "totalTokens": 11}}}),
        &json!({"kind": "llm", "rule": "genkit:subtype", "model": "openai/a-model", "tokens": [5, 6, 0], "input": "hello", "output": "hi"}),
    );
    checked(
        "genkit-tracer",
        "roll",
        &json!({"genkit:type": "action", "genkit:metadata:subtype": "tool", "genkit:name": "roll", "genkit:input": {"sides": 6}, "genkit:output": "4"}),
        &json!({"kind": "tool", "tool": "roll", "arguments": {"sides": 6}, "result": "4"}),
    );
    checked(
        "genkit-tracer",
        "flow",
        &json!({"genkit:metadata:subtype": "flow"}),
        &json!({"kind": "workflow"}),
    );
}

#[test]
fn pydantic_ai_and_logfire() {
    // The first format: events as JSON in one attribute.
    checked(
        "pydantic-ai",
        "chat a-model",
        &json!({"gen_ai.operation.name": "chat", "gen_ai.request.model": "a-model",
            "events": json!([{"event.name": "gen_ai.user.message", "role": "user", "content": "hello", "gen_ai.message.index": 0},
                {"event.name": "gen_ai.choice", "index": 0, "message": {"role": "assistant", "content": "hi"}}]).to_string()}),
        &json!({"kind": "llm", "input": "hello", "output": "hi"}),
    );
    checked(
        "pydantic-ai",
        "agent run",
        &json!({"agent_name": "writer", "model_name": "a-model", "gen_ai.operation.name": "invoke_agent", "logfire.span_type": "span", "final_result": "done",
            "all_messages_events": json!([{"role": "user", "content": "hello", "event.name": "gen_ai.user.message"}, {"role": "assistant", "content": "hi", "event.name": "gen_ai.assistant.message"}]).to_string()}),
        &json!({"kind": "agent", "agent": "writer", "input": "hello"}),
    );
    // Logfire's instrumentation of a client has request and response as a whole.
    checked(
        "logfire.openai",
        "Chat Completion with 'a-model'",
        &json!({"gen_ai.request.model": "a-model", "request_data": {"messages": [{"role": "user", "content": "hello"}], "model": "a-model"},
            "response_data": {"message": {"role": "assistant", "content": "hi"}, "usage": {"prompt_tokens": 5, "completion_tokens": 6, "total_tokens": 11}}}),
        &json!({"kind": "llm", "tokens": [5, 6, 0], "input": "hello", "output": "hi"}),
    );
}

#[test]
fn vendors_own_types() {
    checked(
        "langfuse-sdk",
        "generation",
        &json!({"langfuse.observation.type": "generation", "langfuse.observation.model.name": "a-model", "langfuse.observation.usage_details": {"input": 5, "output": 6, "total": 11},
            "langfuse.observation.input": "[{\"role\":\"user\",\"content\":\"hello\"}]", "langfuse.observation.output": "{\"role\":\"assistant\",\"content\":\"hi\"}",
            "langfuse.observation.level": "ERROR", "langfuse.observation.status_message": "too long", "session.id": "s"}),
        &json!({"kind": "llm", "model": "a-model", "tokens": [5, 6, 0], "input": "hello", "session": "s", "error": "too long"}),
    );
    checked(
        "lmnr",
        "roll",
        &json!({"lmnr.span.type": "TOOL", "lmnr.span.input": "{\"sides\":6}", "lmnr.span.output": "4"}),
        &json!({"kind": "tool", "tool": "roll", "arguments": {"sides": 6}}),
    );
    checked(
        "mlflow",
        "chat",
        &json!({"mlflow.spanType": "\"CHAT_MODEL\"", "mlflow.spanInputs": "{\"messages\": [{\"role\": \"user\", \"content\": \"hello\"}]}",
            "mlflow.spanOutputs": "{\"choices\": [{\"message\": {\"role\": \"assistant\", \"content\": \"hi\"}}]}", "mlflow.chat.tokenUsage": "{\"input_tokens\": 5, \"output_tokens\": 6, \"total_tokens\": 11}"}),
        &json!({"kind": "llm", "tokens": [5, 6, 0], "input": "hello", "output": "hi"}),
    );
    checked(
        "langsmith",
        "roll",
        &json!({"langsmith.span.kind": "tool", "langsmith.metadata.thread_id": "s"}),
        &json!({"kind": "tool", "session": "s"}),
    );
    checked(
        "@mastra/otel",
        "agent run",
        &json!({"mastra.span.type": "agent_run", "gen_ai.agent.name": "writer"}),
        &json!({"kind": "agent", "agent": "writer"}),
    );
}

/// Taken from real exports of September to November 2026.
#[test]
fn what_frameworks_write_beside_the_conventions() {
    checked(
        "langfuse-sdk",
        "writer",
        &json!({"langfuse.observation.type": "chain", "langfuse.observation.metadata.lc_agent_name": "\"writer\""}),
        &json!({"kind": "agent", "agent": "writer"}),
    );
    checked(
        "langfuse-sdk",
        "generation",
        &json!({"langfuse.observation.type": "generation", "langfuse.observation.usage_details": {"input": 78, "input_cache_read": 38, "output": 26, "output_reasoning": 3, "total": 145}}),
        &json!({"kind": "llm", "tokens": [116, 29, 38]}),
    );
    checked(
        "langfuse-sdk",
        "roll",
        &json!({"langfuse.observation.type": "tool", "langfuse.observation.input": {"args": [], "kwargs": {"sides": 6}}}),
        &json!({"kind": "tool", "tool": "roll", "arguments": {"sides": 6}}),
    );
    checked(
        "langsmith",
        "writer",
        &json!({"langsmith.span.kind": "chain", "langsmith.metadata.lc_agent_name": "writer"}),
        &json!({"kind": "agent", "agent": "writer"}),
    );
    checked(
        "langwatch",
        "llm",
        &json!({"langwatch.span.type": "llm", "langwatch.input": {"type": "chat_messages", "value": [{"role": "user", "content": "hello"}]},
            "langwatch.output": {"type": "chat_messages", "value": [{"role": "assistant", "content": "hi"}]}}),
        &json!({"kind": "llm", "input": "hello", "output": "hi"}),
    );
    checked(
        "@mastra/otel-exporter",
        "invoke_agent writer",
        &json!({"mastra.span.type": "agent_run", "mastra.agent_run.input": "hello"}),
        &json!({"kind": "agent", "agent": "writer", "input": "hello"}),
    );
    let agents = "logfire.openai_agents";
    checked(
        agents,
        "Agent run: {name!r}",
        &json!({"name": "writer", "handoffs": "[]", "tools": "[]"}),
        &json!({"kind": "agent", "agent": "writer"}),
    );
    checked(
        agents,
        "Function: {name}",
        &json!({"name": "roll", "input": "{\"sides\":6}", "output": "4"}),
        &json!({"kind": "tool", "tool": "roll", "arguments": {"sides": 6}}),
    );
    checked(
        agents,
        "Responses API",
        &json!({"gen_ai.operation.name": "chat", "events": [{"event.name": "gen_ai.user.message", "role": "user", "content": "hello"},
            {"event.name": "gen_ai.assistant.message", "role": "assistant", "content": "hi"}]}),
        &json!({"kind": "llm", "input": "hello", "output": "hi"}),
    );
    let crewai = "opentelemetry.instrumentation.crewai";
    checked(
        crewai,
        "crewai.workflow",
        &json!({"gen_ai.operation.name": "invoke_agent", "crewai.crew.tasks": "[{\"description\": \"hello\"}]"}),
        &json!({"kind": "workflow", "input": "hello"}),
    );
    checked(
        crewai,
        "hello.task",
        &json!({"gen_ai.operation.name": "invoke_agent", "traceloop.span.kind": "task"}),
        &json!({"kind": "task"}),
    );
    checked(
        "opentelemetry.instrumentation.llamaindex",
        "BaseWorkflowAgent.task",
        &json!({"traceloop.span.kind": "task", "traceloop.entity.output": {"input": [{"role": "user", "blocks": [{"block_type": "text", "text": "hello"}]}], "current_agent_name": "writer"}}),
        &json!({"kind": "agent", "agent": "writer", "input": "hello"}),
    );
    checked(
        "openinference.instrumentation.langchain",
        "call_agent",
        &json!({"openinference.span.kind": "AGENT", "metadata": {"langgraph_node": "writer", "langgraph_checkpoint_ns": "writer:1"}}),
        &json!({"kind": "agent", "agent": "writer"}),
    );
    checked(
        "opentelemetry.instrumentation.ag2",
        "record_usage model_call",
        &json!({"ag2.span.type": "usage", "gen_ai.response.model": "m", "gen_ai.usage.input_tokens": 5}),
        &json!({"kind": "task", "tokens": null}),
    );
    checked(
        "openinference.instrumentation.autogen",
        "roll",
        &json!({"openinference.span.kind": "TOOL", "tool.name": "roll", "input.value": {"name": "roll", "arguments": "{\"sides\": 6}"}}),
        &json!({"tool": "roll", "arguments": {"sides": 6}}),
    );
    checked(
        "haystack",
        "haystack.component.run",
        &json!({"haystack.component.name": "llm", "haystack.component.type": "OpenAIChatGenerator",
            "haystack.component.input": {"messages": [{"role": "user", "content": [{"text": "hello"}]}]},
            "haystack.component.output": {"replies": [{"role": "assistant", "content": [{"text": "hi"}], "meta": {"model": "m", "usage": {"prompt_tokens": 5, "completion_tokens": 6}}}]}}),
        &json!({"kind": "llm", "model": "m", "tokens": [5, 6, 0], "input": "hello", "output": "hi"}),
    );
}

#[test]
fn what_python_printed_is_read_as_what_was_said() {
    checked(
        "x",
        "chat",
        &json!({"openinference.span.kind": "LLM", "input.value": "[ChatMessage(role=<Role.USER: 'user'>, blocks=[TextBlock(block_type='text', text='hello')])]",
            "output.value": "{'role': 'assistant', 'content': 'it\\'s me'}"}),
        &json!({"kind": "llm", "input": "hello", "output": "it's me"}),
    );
    checked(
        "x",
        "chat",
        &json!({"gen_ai.operation.name": "chat",
            "gen_ai.output.messages": [{"role": "assistant", "parts": [{"type": "text", "content": "ResponseOutputText(text='hi', annotations=[])"}]}]}),
        &json!({"output": "hi"}),
    );
    // What a user says may look like it.
    checked(
        "x",
        "chat",
        &json!({"gen_ai.operation.name": "chat", "gen_ai.input.messages": [{"role": "user", "parts": [{"type": "text", "content": "Sort [3, 1, 2]"}, {"type": "text", "content": "{'a': 1}"}]}]}),
        &json!({"input": "Sort [3, 1, 2] {'a': 1}"}),
    );
}

/// A span of one call, beside another of the same parent.
fn told(scope: &str, id: &str, start: u64, end: u64, said: &Value, more: &Value) -> (bool, Value) {
    let mut about = json!({"spanId": id, "startTimeUnixNano": (1_800_000_000_000_000_000 + start).to_string(), "endTimeUnixNano": (1_800_000_000_000_000_000 + end).to_string()});
    for (key, value) in more.as_object().expect("an object") {
        about[key] = value.clone();
    }
    (false, span(scope, "a call", said, &about))
}

#[test]
fn a_call_that_two_instrumentations_tell_side_by_side_is_one() {
    const MS: u64 = 1_000_000;
    let ours = json!({"gen_ai.operation.name": "chat", "gen_ai.request.model": "m", "gen_ai.usage.input_tokens": 5, "gen_ai.usage.output_tokens": 6,
        "gen_ai.input.messages": [{"role": "user", "parts": [{"type": "text", "content": "hello"}]}]});
    let clients = json!({"gen_ai.operation.name": "chat", "gen_ai.request.model": "m", "gen_ai.usage.input_tokens": 5, "gen_ai.usage.output_tokens": 6});
    let failed = json!({"status": {"code": 2, "message": "no"}});
    let none = json!({});
    let count = |bodies: &[(bool, Value)]| {
        let summary = summary(&state(bodies), TRACE, Status::Running, &Prices::builtin());
        (
            summary.total_llm_calls,
            summary.input_tokens,
            summary.errors_count,
        )
    };
    let pair = |more: &Value| {
        [
            told("ours", "00000000000000a1", 0, 100 * MS, &ours, more),
            told(
                "client",
                "00000000000000a2",
                10 * MS,
                90 * MS,
                &clients,
                more,
            ),
        ]
    };
    assert_eq!(count(&pair(&none)), (1, 5, 0));
    assert_eq!(count(&pair(&failed)), (1, 5, 1));
    // A try that failed is a call of its own.
    let [ours_told, second] = pair(&none);
    let model = json!({"gen_ai.operation.name": "chat", "gen_ai.request.model": "m"});
    let first = told(
        "client",
        "00000000000000a3",
        2 * MS,
        8 * MS,
        &model,
        &failed,
    );
    assert_eq!(count(&[first, second, ours_told]), (2, 5, 1));
    // One client's calls side by side are as many calls.
    let parallel = [
        told("client", "00000000000000a1", 0, 100 * MS, &clients, &none),
        told(
            "client",
            "00000000000000a2",
            10 * MS,
            90 * MS,
            &clients,
            &none,
        ),
    ];
    assert_eq!(count(&parallel), (2, 10, 0));
    // One after the other too, whoever tells them, unless the provider's id says otherwise.
    let later = |said: &Value| {
        [
            told("ours", "00000000000000a1", 0, 100 * MS, said, &none),
            told(
                "client",
                "00000000000000a2",
                200 * MS,
                290 * MS,
                said,
                &none,
            ),
        ]
    };
    assert_eq!(count(&later(&clients)), (2, 10, 0));
    let mut answered = clients.clone();
    answered["gen_ai.response.id"] = "r1".into();
    assert_eq!(count(&later(&answered)), (1, 5, 0));
    let tool = json!({"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "roll", "gen_ai.tool.call.arguments": {"sides": 6}});
    let tools = [
        told("ours", "00000000000000a1", 0, 100 * MS, &tool, &none),
        told("client", "00000000000000a2", 10 * MS, 90 * MS, &tool, &none),
    ];
    let summary = summary(&state(&tools), TRACE, Status::Running, &Prices::builtin());
    assert_eq!(summary.total_tool_calls, 1);
}

/// Google ADK with Gemini, which gives a call no id: its log record counts positions, its tool's span has an id of ADK's own.
#[test]
fn a_call_without_an_id_of_its_own_is_the_tool_that_ran() {
    let asked = json!({"gen_ai.operation.name": "generate_content", "gen_ai.request.model": "gemini-2", "gen_ai.usage.input_tokens": 5, "gen_ai.usage.output_tokens": 6, "gen_ai.usage.total_tokens": 15,
        "gen_ai.output.messages": [{"role": "assistant", "parts": [{"type": "tool_call", "id": "roll_0", "name": "roll", "arguments": {"sides": 6}}]}]});
    let mut other = asked.clone();
    other["gen_ai.output.messages"][0]["parts"][0]["id"] = "c1".into();
    let ran = json!({"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "roll", "gen_ai.tool.call.id": "adk-1"});
    for asked in [asked, other] {
        let told = [
            told(
                "gcp.vertex.agent",
                "00000000000000a1",
                0,
                100,
                &asked,
                &json!({}),
            ),
            told(
                "gcp.vertex.agent",
                "00000000000000a2",
                200,
                300,
                &ran,
                &json!({}),
            ),
        ];
        let summary = summary(&state(&told), TRACE, Status::Running, &Prices::builtin());
        // What Gemini thought is in its total only.
        assert_eq!((summary.total_tool_calls, summary.output_tokens), (1, 10));
    }
}

#[test]
fn an_end_that_overtook_its_start_ends_it() {
    for (first, timed) in [
        ("llm_call_completed", ""),
        ("llm_call_started", ""),
        (
            "llm_call_started",
            r#","timestamp":"2025-01-20T10:30:45+0200""#,
        ),
    ] {
        let second = if first == "llm_call_started" {
            "llm_call_completed"
        } else {
            "llm_call_started"
        };
        let mut state = State::default();
        for (seq, event_type) in [(1, first), (2, second)] {
            let text =
                format!(r#"{{"event_type":"{event_type}","agent_id":"a","model":"m"{timed}}}"#);
            state.apply(&Recorded {
                seq,
                arrived_unix_ms: 1_800_000_000_000 + seq,
                observation: Observation {
                    context: Arc::default(),
                    what: What::Native(text.into()),
                },
            });
        }
        let summary = summary(&state, TRACE, Status::Running, &Prices::builtin());
        assert_eq!(
            (summary.total_llm_calls, summary.open_spans),
            (1, 0),
            "{first}{timed}"
        );
    }
}

#[test]
fn a_span_that_fits_nothing_is_plain() {
    check(
        span(
            "my.app",
            "GET /orders",
            &json!({"http.request.method": "GET", "agent": 3}),
            &json!({"status": {"code": 2, "message": "no"}}),
        ),
        &json!({"kind": "span", "rule": "plain", "tokens": null, "tool": null, "error": "no"}),
    );
}

fn state(bodies: &[(bool, Value)]) -> State {
    let mut state = State::default();
    recorded(bodies)
        .iter()
        .for_each(|recorded| state.apply(recorded));
    state
}

/// (name, depth, status, estimated) of every row of the tree.
fn rows(state: &State) -> Vec<(String, usize, &'static str, bool)> {
    tree::rows(state, &Prices::builtin())
        .into_iter()
        .map(|row| (row.name, row.depth, row.status, row.estimated))
        .collect()
}

#[test]
fn a_path_on_every_span_draws_the_spans_that_have_not_come() {
    for (producer, ids) in [
        (
            "lmnr",
            json!([
                "00000000-0000-0000-0000-0000000000f0",
                "00000000-0000-0000-0000-0000000000a0",
                "00000000-0000-0000-0000-0000000000a1"
            ]),
        ),
        (
            "traceroot",
            json!(["00000000000000f0", "00000000000000A0", "00000000000000a1"]),
        ),
    ] {
        let said = json!({format!("{producer}.span.ids_path"): ids, format!("{producer}.span.path"): ["run", "agent", "chat"]});
        let state = state(&[(false, span("x", "chat", &said, &json!({})))]);
        let expected = [
            ("run", 0, "running", true),
            ("agent", 1, "running", true),
            ("chat", 2, "ok", false),
        ];
        let expected = expected
            .map(|(name, depth, status, estimated)| (name.to_owned(), depth, status, estimated));
        assert_eq!(rows(&state), expected, "{producer}");
        assert_eq!(
            summary(&state, TRACE, Status::Running, &Prices::builtin()).total_spans,
            1,
            "{producer}"
        );
    }
}

#[test]
fn a_span_is_known_from_the_log_records_that_tell_of_it_while_it_runs() {
    let heartbeat = |event: &str, whole: bool, more: &Value| {
        let body = span(
            "x",
            "invoke_agent writer",
            &json!({"gen_ai.operation.name": "invoke_agent", "gen_ai.agent.name": "writer"}),
            more,
        );
        let told = match whole {
            true => body.to_string(),
            false => body["resourceSpans"][0]["scopeSpans"][0]["spans"][0].to_string(),
        };
        let record = json!({"traceId": TRACE, "spanId": "00000000000000a1", "timeUnixNano": "1800000000500000000", "body": {"stringValue": told},
            "attributes": [{"key": "partial.event", "value": {"stringValue": event}}]});
        (
            true,
            json!({"resourceLogs": [{"scopeLogs": [{"logRecords": [record]}]}]}),
        )
    };
    for whole in [true, false] {
        let open = heartbeat("heartbeat", whole, &json!({"parentSpanId": ""}));
        let row = |status| vec![("invoke_agent writer".to_owned(), 0, status, false)];
        assert_eq!(rows(&state(&[open.clone(), open.clone()])), row("running"));
        let stop = heartbeat("stop", whole, &json!({"parentSpanId": ""}));
        for bodies in [[open.clone(), stop.clone()], [stop, open.clone()]] {
            assert_eq!(rows(&state(&bodies)), row("ok"));
        }
        let trace = tailspan_core::id::TraceId::parse(TRACE).expect("an id");
        let event = event::view(&trace, &recorded(&[open])[0]);
        assert_eq!(
            (event.event_type.as_str(), event.convention, event.status),
            ("task_progress", "partial:log", Some("running"))
        );
    }
}

#[test]
fn a_span_may_come_twice_first_open() {
    let open = span(
        "genkit-tracer",
        "flow",
        &json!({"genkit:metadata:subtype": "flow"}),
        &json!({"endTimeUnixNano": "0", "parentSpanId": ""}),
    );
    let ended = span(
        "genkit-tracer",
        "flow",
        &json!({"genkit:metadata:subtype": "flow"}),
        &json!({"parentSpanId": ""}),
    );
    for bodies in [[open.clone(), ended.clone()], [ended, open]] {
        let bodies = bodies.map(|body| (false, body));
        assert_eq!(rows(&state(&bodies)), [("flow".to_owned(), 0, "ok", false)]);
    }
}

/// Of a model call or retrieval: how it was called, when its first piece came, what was thought, what was found.
fn call(scope: &str, said: &Value, more: &Value) -> Value {
    let trace = tailspan_core::id::TraceId::parse(TRACE).expect("an id");
    let body = span(scope, "call", said, more);
    let event = event::view(&trace, &recorded(&[(false, body)])[0]);
    json!({
        "parameters": event.parameters, "first_ms": event.time_to_first_chunk_ms, "thinking": event.thinking,
        "retrieval": event.retrieval, "tool_type": event.tool.and_then(|tool| tool.tool_type),
    })
}

#[test]
fn how_a_model_was_called_is_told_by_one_name_each() {
    let told = json!({"temperature": 0.5, "max_tokens": 100, "stop": ["."]});
    let chat = json!({"gen_ai.operation.name": "chat"});
    let with = |more: Value| {
        let mut all = chat.clone();
        for (key, value) in more.as_object().expect("an object") {
            all[key] = value.clone();
        }
        call("x", &all, &json!({}))["parameters"].clone()
    };
    for said in [
        json!({"gen_ai.request.model": "m", "gen_ai.request.temperature": 0.5, "gen_ai.request.max_tokens": 100, "gen_ai.request.stop_sequences": ["."]}),
        json!({"llm.invocation_parameters": {"model": "m", "temperature": 0.5, "max_tokens": 100, "stop": ["."], "messages": [{"role": "user"}]}}),
        json!({"ai.settings.temperature": 0.5, "ai.settings.maxOutputTokens": 100, "ai.settings.stopSequences": ["."]}),
        json!({"langfuse.observation.model.parameters": {"temperature": 0.5, "max_completion_tokens": 100, "stop": ["."]}}),
        json!({"gcp.vertex.agent.llm_request": {"model": "m", "contents": [], "config": {"temperature": 0.5, "max_output_tokens": 100, "stop_sequences": ["."], "system_instruction": "s"}}}),
        json!({"metadata": {"ls_temperature": 0.5, "ls_max_tokens": 100, "ls_stop": ["."], "ls_provider": "p"}}),
    ] {
        assert_eq!(with(said.clone()), told, "{said}");
    }
    let more = json!({"gen_ai.request.choice.count": 2, "gen_ai.request.reasoning.level": "high", "gen_ai.request.stream": true});
    assert_eq!(
        with(more),
        json!({"n": 2, "reasoning_effort": "high", "stream": true})
    );
    // A tool has none.
    let tool = json!({"gen_ai.operation.name": "execute_tool", "gen_ai.request.temperature": 0.5});
    assert_eq!(call("x", &tool, &json!({}))["parameters"], json!({}));
}

#[test]
fn when_the_first_piece_of_an_answer_came() {
    let event = |name: &str, at: &str| json!({"events": [{"name": "other", "timeUnixNano": "1800000000100000000"}, {"name": name, "timeUnixNano": at}, {"name": name, "timeUnixNano": "1800000000900000000"}]});
    let at = "1800000000250000000";
    let none = json!({});
    for (key, value, more) in [
        ("gen_ai.response.time_to_first_chunk", json!(0.25), &none),
        (
            "gen_ai.client.operation.time_to_first_chunk",
            json!(0.25),
            &none,
        ),
        // Strands: milliseconds.
        ("gen_ai.server.time_to_first_token", json!(250), &none),
        ("ai.response.msToFirstChunk", json!(250.0), &none),
        ("ai.stream.msToFirstChunk", json!(250), &none),
        (
            "langfuse.observation.completion_start_time",
            json!("\"2027-01-15T08:00:00.250Z\""),
            &none,
        ),
        ("x", json!(1), &event("First Token Stream Event", at)),
        ("x", json!(1), &event("ai.stream.firstChunk", at)),
        ("x", json!(1), &event("llm.content.completion.chunk", at)),
    ] {
        let said = json!({"gen_ai.operation.name": "chat", key: value});
        assert_eq!(
            call("x", &said, more)["first_ms"],
            json!(250.0),
            "{key} {more}"
        );
    }
    for nonsense in [json!(-1), json!("soon"), json!(1e300), json!(f64::MAX)] {
        let said = json!({"gen_ai.operation.name": "chat", "gen_ai.response.time_to_first_chunk": nonsense});
        assert_eq!(call("x", &said, &none)["first_ms"], Value::Null);
    }
}

#[test]
fn what_a_model_thought_is_told_apart_from_what_it_said() {
    for said in [
        json!({"gen_ai.operation.name": "chat", "gen_ai.output.messages": json!([{"role": "assistant", "parts": [{"type": "reasoning", "content": "Hm."}, {"type": "text", "content": "4"}]}]).to_string()}),
        json!({"ai.operationId": "ai.generateText.doGenerate", "ai.response.text": "4", "ai.response.reasoning": "Hm."}),
        json!({"ai.operationId": "ai.generateText.doGenerate", "ai.response.text": "4", "ai.response.reasoning": json!([{"type": "text", "text": "Hm."}]).to_string()}),
        json!({"openinference.span.kind": "LLM", "llm.output_messages.0.message.role": "assistant", "llm.output_messages.0.message.contents.0.message_content.type": "reasoning",
            "llm.output_messages.0.message.contents.0.message_content.text": "Hm.", "llm.output_messages.0.message.contents.1.message_content.type": "text",
            "llm.output_messages.0.message.contents.1.message_content.text": "4"}),
        json!({"gen_ai.operation.name": "chat", "gen_ai.completion.0.role": "assistant", "gen_ai.completion.0.content": "4", "gen_ai.completion.0.reasoning": "Hm."}),
        json!({"gcp.vertex.agent.llm_response": {"content": {"role": "model", "parts": [{"text": "Hm.", "thought": true}, {"text": "4"}]}}, "gen_ai.operation.name": "generate_content"}),
    ] {
        let trace = tailspan_core::id::TraceId::parse(TRACE).expect("an id");
        let event = event::view(
            &trace,
            &recorded(&[(false, span("x", "call", &said, &json!({})))])[0],
        );
        assert_eq!(event.thinking.as_deref(), Some("Hm."), "{said}");
        assert_eq!(
            event.output.expect("an answer")[0]["content"],
            "4",
            "{said}"
        );
    }
}

#[test]
fn retrievals_of_many_frameworks() {
    let found = |chunks: Value| json!({"query": "how long", "chunks_total": 1, "chunks": chunks});
    let document = json!([{"id": "d1", "score": 0.5, "document": "a.md", "text": "12 months"}]);
    for (said, expected) in [
        (
            json!({"openinference.span.kind": "RETRIEVER", "input.value": "how long", "retrieval.documents.0.document.id": "d1", "retrieval.documents.0.document.score": 0.5,
                "retrieval.documents.0.document.content": "12 months", "retrieval.documents.0.document.metadata": "{\"source\": \"a.md\"}"}),
            found(document.clone()),
        ),
        (
            json!({"langfuse.observation.type": "retriever", "langfuse.observation.input": {"query": "how long"},
                "langfuse.observation.output": [{"page_content": "12 months", "metadata": {"source": "a.md"}, "id": "d1"}]}),
            found(json!([{"id": "d1", "document": "a.md", "text": "12 months"}])),
        ),
        (
            json!({"genkit:metadata:subtype": "retriever", "genkit:input": {"query": {"content": [{"text": "how long"}]}},
                "genkit:output": {"documents": [{"content": [{"text": "12 months"}], "metadata": {"source": "a.md"}}]}}),
            found(json!([{"document": "a.md", "text": "12 months"}])),
        ),
        (
            json!({"haystack.component.type": "InMemoryBM25Retriever", "haystack.component.input": {"query": "how long", "top_k": 3},
                "haystack.component.output": {"documents": [{"id": "d1", "content": "12 months", "meta": {"file_path": "a.md"}, "score": 0.5}]}}),
            json!({"query": "how long", "top_k": 3, "chunks_total": 1, "chunks": document}),
        ),
        (
            json!({"openinference.span.kind": "RERANKER", "reranker.query": "how long", "reranker.top_k": 1, "reranker.output_documents.0.document.id": "d1",
                "reranker.output_documents.0.document.score": 0.9}),
            json!({"query": "how long", "top_k": 1, "chunks_total": 1, "chunks": [{"id": "d1", "score": 0.9}]}),
        ),
        (
            json!({"openinference.span.kind": "RETRIEVER", "input.value": {"query": "how long", "similarity_threshold": 0.3, "rerank": true, "knowledge_bases": ["kb", {"name": "other"}]},
                "output.value": "nothing found"}),
            json!({"query": "how long", "threshold": 0.3, "rerank": true, "knowledge_bases": ["kb", "other"]}),
        ),
    ] {
        assert_eq!(
            call("x", &said, &json!({}))["retrieval"],
            expected,
            "{said}"
        );
    }
}

#[test]
fn a_tool_is_of_the_type_that_its_producer_names() {
    let execute = json!({"gen_ai.operation.name": "execute_tool", "gen_ai.tool.type": "function"});
    assert_eq!(call("x", &execute, &json!({}))["tool_type"], "function");
    let mcp = json!({"mcp.method.name": "tools/call", "gen_ai.tool.name": "t"});
    assert_eq!(call("x", &mcp, &json!({}))["tool_type"], "mcp");
    let other = json!({"openinference.span.kind": "TOOL"});
    assert_eq!(call("x", &other, &json!({}))["tool_type"], Value::Null);
}
