//! A turn as the dev server's dialect has it: over WebSocket and SSE, in its REST answers, and as an ADK eval case.
//!
//! The forms are exact to the field; where what they say differs from the original, docs/protocol.md lists it as a deliberate correction.

use serde_json::{Map, Value, json};

use crate::fold::State;
use crate::invocations::{self, Invocation, ModelInfo};

/// The turns of a trace, as `session_complete` has them.
pub fn invocations(state: &State) -> Vec<Value> {
    invocations::invocations(state)
        .iter()
        .map(invocation)
        .collect()
}

/// The turns of a session that has several traces, as `session_complete` has them: [`invocations::of_session`].
pub fn of_session<'a>(traces: impl IntoIterator<Item = &'a State>) -> Vec<Value> {
    invocations::of_session(traces)
        .iter()
        .map(invocation)
        .collect()
}

/// [`of_session`] as JSON text.
pub fn session_text<'a>(traces: impl IntoIterator<Item = &'a State>) -> String {
    Value::Array(of_session(traces)).to_string()
}

/// One turn: `invocationId`, `userText`, `agentText`, `toolCalls`, `toolResponses`, `modelInfo`, all always there.
pub fn invocation(turn: &Invocation) -> Value {
    json!({
        "invocationId": turn.source.dialect_id,
        "userText": turn.user_text,
        "agentText": turn.agent_text,
        "toolCalls": calls(turn).collect::<Vec<_>>(),
        "toolResponses": responses(turn).collect::<Vec<_>>(),
        "modelInfo": model_info(turn),
    })
}

/// One turn as an element of the `conversation` of an ADK eval case (snake_case; a tool call without an id has none).
pub fn eval_invocation(turn: &Invocation) -> Value {
    let content = |role: &str, text: &str| json!({"parts": [{"text": text}], "role": role});
    let without_null = |value: Value| match value {
        Value::Object(mut fields) => {
            fields.retain(|_, value| !value.is_null());
            Value::Object(fields)
        }
        other => other,
    };
    json!({
        "invocation_id": turn.source.dialect_id,
        "user_content": content("user", &turn.user_text),
        "final_response": content("model", &turn.agent_text),
        "intermediate_data": {
            "tool_uses": calls(turn).map(without_null).collect::<Vec<_>>(),
            "tool_responses": responses(turn).map(without_null).collect::<Vec<_>>(),
            "intermediate_responses": [],
        },
    })
}

fn calls(turn: &Invocation) -> impl Iterator<Item = Value> {
    turn.tool_calls.iter().map(|call| {
        let id = id(turn, &call.id, &call.step_id);
        json!({"name": call.name, "args": arguments(&call.args), "id": id})
    })
}

fn responses(turn: &Invocation) -> impl Iterator<Item = Value> {
    turn.tool_responses.iter().map(|told| {
        let id = id(turn, &told.id, &told.step_id);
        json!({"name": told.name, "response": response(&told.response), "id": id})
    })
}

/// Google ADK's tools without an id go by their span, whatever the model called them.
fn id<'a>(
    turn: &Invocation,
    known: &'a Option<String>,
    step: &'a Option<String>,
) -> Option<&'a str> {
    let by_step = step.as_deref().filter(|_| turn.source.is_adk);
    by_step.or(known.as_deref())
}

/// Arguments are an object there; any other value stands under `input`.
fn arguments(value: &Value) -> Value {
    match value {
        Value::Object(_) => value.clone(),
        Value::Null => json!({}),
        other => json!({ "input": other }),
    }
}

/// A result is an object, also if written as text; any other stands under `result`, as Python prints it.
fn response(value: &Value) -> Value {
    let parsed = value
        .as_str()
        .and_then(|text| serde_json::from_str(text).ok());
    let told = parsed.as_ref().unwrap_or(value);
    match told {
        Value::Object(_) => told.clone(),
        Value::String(text) => json!({ "result": text }),
        other => json!({ "result": printed(other) }),
    }
}

/// What Python's `str` makes of a JSON value. Values of strangers are of bounded depth.
fn printed(value: &Value) -> String {
    match value {
        Value::Null => "None".to_owned(),
        Value::Bool(true) => "True".to_owned(),
        Value::Bool(false) => "False".to_owned(),
        Value::Number(number) => number.to_string(),
        Value::String(text) => quoted(text),
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(printed).collect();
            format!("[{}]", items.join(", "))
        }
        Value::Object(fields) => {
            let fields: Vec<String> = fields
                .iter()
                .map(|(key, value)| format!("{}: {}", quoted(key), printed(value)))
                .collect();
            format!("{{{}}}", fields.join(", "))
        }
    }
}

fn quoted(text: &str) -> String {
    let quote = if text.contains('\'') && !text.contains('"') {
        '"'
    } else {
        '\''
    };
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push(quote);
    for letter in text.chars() {
        match letter {
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            '\\' => quoted.push_str("\\\\"),
            _ if letter == quote => {
                quoted.push('\\');
                quoted.push(letter);
            }
            _ => quoted.push(letter),
        }
    }
    quoted.push(quote);
    quoted
}

/// The models of a turn: only what is not empty.
fn model_info(turn: &Invocation) -> Value {
    let ModelInfo {
        provider,
        input_tokens,
        output_tokens,
        cache_read_tokens,
        cache_creation_tokens,
        finish_reasons,
        error_types,
        temperature,
        max_tokens,
        models: _,
        response_models: _,
    } = &turn.model_info;
    let source = &turn.source;
    let sorted = |list: &[String]| {
        let mut list = list.to_vec();
        list.sort();
        json!(list)
    };
    let told = [
        ("models", json!(source.models)),
        ("inputTokens", json!(input_tokens)),
        ("outputTokens", json!(output_tokens)),
        ("provider", json!(provider)),
        ("responseModels", json!(source.response_models)),
        ("finishReasons", sorted(finish_reasons)),
        ("cacheCreationTokens", json!(cache_creation_tokens)),
        ("cacheReadTokens", json!(cache_read_tokens)),
        ("temperature", json!(temperature)),
        ("maxTokens", json!(max_tokens)),
        ("errorTypes", sorted(error_types)),
    ];
    let says_something = |name: &str, value: &Value| match value {
        Value::Null => false,
        Value::Array(items) => !items.is_empty(),
        // A temperature of 0 is one.
        Value::Number(number) => {
            !name.ends_with("Tokens") || name == "maxTokens" || number.as_u64() != Some(0)
        }
        _ => true,
    };
    let mut info = Map::new();
    for (name, value) in told {
        if says_something(name, &value) {
            info.insert(name.to_owned(), value);
        }
    }
    Value::Object(info)
}
