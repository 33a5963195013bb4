//! How a model was called: its parameters, and when the first piece of its answer came.

use serde_json::{Map, Value};

use super::{Look, keys};
use crate::model::{Kind, Span};

/// Longest parameter, as JSON: what is longer is content or a schema, and stands in the attributes.
const MAX_PARAMETER_BYTES: usize = 256;

/// What is a parameter. Some write the client's whole request or response in their place (openai-agents over OpenInference), content and all.
const NAMES: &[&str] = &[
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "max_tokens",
    "max_tool_calls",
    "n",
    "best_of",
    "stop",
    "seed",
    "frequency_penalty",
    "presence_penalty",
    "repetition_penalty",
    "stream",
    "reasoning",
    "reasoning_effort",
    "thinking",
    "thinking_budget",
    "verbosity",
    "tool_choice",
    "parallel_tool_calls",
    "response_format",
    "service_tier",
    "truncation",
    "logprobs",
    "top_logprobs",
    "dimensions",
    "encoding_format",
    "encoding_formats",
];

/// The parameters of a call, by one name each, whatever the convention calls them.
pub(super) fn parameters(look: &Look, kind: Kind) -> Map<String, Value> {
    let mut parameters = Map::new();
    if !matches!(kind, Kind::Llm | Kind::Embedding) {
        return parameters;
    }
    let attributes = &look.attributes;
    attributes.about("parameters");
    for key in keys::PARAMETERS {
        if let Some(Value::Object(told)) = attributes.json(key) {
            add(told, &mut parameters);
        }
    }
    for prefix in keys::FLATTENED_PARAMETERS {
        if let Some(Value::Object(told)) = attributes.structure(prefix) {
            add(told, &mut parameters);
        }
    }
    if let Some(request) = attributes.json("gcp.vertex.agent.llm_request")
        && let Some(Value::Object(config)) = request.get("config")
    {
        add(config.clone(), &mut parameters);
    }
    // LangChain's tracer: `ls_temperature`, `ls_max_tokens`.
    if let Value::Object(metadata) = &look.metadata {
        let told = ["temperature", "max_tokens", "stop"].iter();
        let told = told.filter_map(|name| {
            let value = metadata.get(&format!("ls_{name}"))?;
            Some(((*name).to_owned(), value.clone()))
        });
        add(told.collect(), &mut parameters);
    }
    parameters
}

/// What a native event says of its call; the fields are taken out.
pub(super) fn native_parameters(fields: &mut Map<String, Value>) -> Map<String, Value> {
    let mut parameters = Map::new();
    for name in NAMES {
        // What an agent thought is told under this name too.
        if *name != "thinking"
            && fields.get(*name).is_some_and(is_small)
            && let Some(value) = fields.shift_remove(*name)
        {
            parameters.insert((*name).to_owned(), value);
        }
    }
    for field in ["parameters", "params"] {
        if let Some(Value::Object(_)) = fields.get(field)
            && let Some(Value::Object(told)) = fields.shift_remove(field)
        {
            add(told, &mut parameters);
        }
    }
    parameters
}

/// The first that names a parameter holds.
fn add(told: Map<String, Value>, to: &mut Map<String, Value>) {
    for (name, value) in told {
        let name = plain_name(&name);
        // `choice: {count: 2}`, `reasoning: {level: "high"}`, as flattened keys spell them.
        let (name, value) = match (name.as_str(), value) {
            ("choice", Value::Object(mut inner)) => {
                ("n".to_owned(), inner.remove("count").unwrap_or_default())
            }
            ("reasoning", Value::Object(mut inner)) => match inner.remove("level") {
                Some(level) => ("reasoning_effort".to_owned(), level),
                None => (name, Value::Object(inner)),
            },
            (_, value) => (name, value),
        };
        if !NAMES.contains(&name.as_str()) || !is_small(&value) {
            continue;
        }
        to.entry(name).or_insert(value);
    }
}

fn is_small(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(_) | Value::Number(_) => true,
        Value::String(text) => text.len() <= MAX_PARAMETER_BYTES,
        Value::Array(items) if items.is_empty() => false,
        Value::Object(fields) if fields.is_empty() => false,
        Value::Array(_) | Value::Object(_) => value.to_string().len() <= MAX_PARAMETER_BYTES,
    }
}

/// `maxOutputTokens`, `max_completion_tokens` and `max_tokens` are one parameter.
fn plain_name(name: &str) -> String {
    let mut snake = String::with_capacity(name.len() + 4);
    for letter in name.chars() {
        if letter.is_ascii_uppercase() && !snake.is_empty() {
            snake.push('_');
        }
        snake.push(letter.to_ascii_lowercase());
    }
    match snake.as_str() {
        "max_output_tokens" | "max_completion_tokens" | "max_new_tokens" => "max_tokens",
        "stop_sequences" => "stop",
        "candidate_count" => "n",
        "is_stream" | "streaming" => "stream",
        other => other,
    }
    .to_owned()
}

/// Nanoseconds from the start of a call to the first piece of its answer.
pub(super) fn time_to_first_chunk_ns(look: &Look, span: &Span) -> Option<u64> {
    let attributes = &look.attributes;
    attributes.about("time_to_first_chunk");
    for key in keys::FIRST_CHUNK_MS {
        if let Some(ns) = attributes.float(key).and_then(|ms| ns(ms, 1e6)) {
            return Some(ns);
        }
    }
    for key in keys::FIRST_CHUNK_SECONDS {
        // The convention has seconds; who writes a whole number (Strands) has milliseconds.
        if let Some(ms) = attributes.int_only(key) {
            return ns(ms as f64, 1e6);
        }
        if let Some(ns) = attributes.float(key).and_then(|seconds| ns(seconds, 1e9)) {
            return Some(ns);
        }
    }
    for key in keys::FIRST_CHUNK_AT {
        if let Some(at) = attributes.text(key)
            && let Some(at_ns) = super::text_time_ns(at.trim_matches('"'))
            && at_ns >= span.start_ns
        {
            return Some(at_ns - span.start_ns);
        }
    }
    let first = look
        .span
        .events
        .iter()
        .filter(|event| keys::FIRST_CHUNK_EVENTS.contains(&event.name.as_str()))
        .min_by_key(|event| event.time_unix_nano)?;
    look.note(&format!("event {}", first.name));
    first.time_unix_nano.checked_sub(span.start_ns)
}

/// A time that is none (negative, not finite, longer than a day) is not told.
pub(super) fn ns(number: f64, unit_ns: f64) -> Option<u64> {
    const DAY_NS: f64 = 86_400e9;
    let ns = number * unit_ns;
    (ns.is_finite() && (0.0..=DAY_NS).contains(&ns)).then_some(ns as u64)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn parameters_have_one_name_and_are_no_content() {
        let mut parameters = Map::new();
        let Value::Object(told) = json!({
            "model": "m", "messages": [], "temperature": 0.2, "maxOutputTokens": 50, "choice": {"count": 2}, "reasoning": {"level": "high"},
            "stop_sequences": ["x"], "topP": 1, "id": "resp_1", "text": "words", "seed": null, "tools": [{"a": 1}], "response_format": {"schema": "x".repeat(300)}
        }) else {
            panic!()
        };
        add(told, &mut parameters);
        assert_eq!(
            Value::Object(parameters),
            json!({"temperature": 0.2, "max_tokens": 50, "n": 2, "reasoning_effort": "high", "stop": ["x"], "top_p": 1})
        );
    }
}
