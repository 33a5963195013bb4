//! Native events: JSON objects that say themselves what they are.

use serde_json::{Map, Value};

use super::{call, retrieval};
use crate::model::{Failure, Native, Tool, ToolKind, Usage};

/// Whether an event of this type may end its run.
pub(crate) fn ends_run(event_type: &str) -> bool {
    matches!(event_type, "workflow_completed" | "task_completed") || ends_in_failure(event_type)
}

/// Whether the run that an event of this type ends has failed.
pub(crate) fn ends_in_failure(event_type: &str) -> bool {
    matches!(event_type, "workflow_failed" | "task_failed")
}

/// Whether a run, or one of its tasks, begins with an event of this type.
pub(crate) fn begins_run(event_type: &str) -> bool {
    matches!(event_type, "workflow_started" | "task_started")
}

/// Reads a native event; what it does not know stays in `rest` under its own name.
///
/// `arrived_unix_ms` stands in for a timestamp that is missing or is no time. Text that is no JSON object (the intake lets none pass)
/// becomes an event of type `unknown`.
pub fn read_native(text: &str, arrived_unix_ms: u64) -> Native {
    let mut fields = match serde_json::from_str(text) {
        Ok(Value::Object(fields)) => fields,
        _ => Map::new(),
    };
    lift_metadata(&mut fields);
    let told_ms = fields.get("timestamp").and_then(time_ms);
    let timestamp_ms = told_ms.unwrap_or(arrived_unix_ms);
    fields.shift_remove("timestamp");
    let mut event = Native {
        event_type: take_text(&mut fields, &["event_type"]).unwrap_or_else(|| "unknown".to_owned()),
        event_id: take_text(&mut fields, &["event_id"]),
        timestamp_ms,
        untimed: told_ms.is_none(),
        agent_id: take_text(&mut fields, &["agent_id"]),
        agent_name: take_text(&mut fields, &["agent_name"]),
        span_id: take_text(&mut fields, &["span_id"]),
        parent_span_id: take_text(&mut fields, &["parent_span_id", "parent_span"])
            .filter(|id| is_an_id(id)),
        session_id: take_text(&mut fields, &["session_id"]),
        user_id: take_text(&mut fields, &["user_id"]),
        name: take_text(
            &mut fields,
            &["name", "component_name", "operation", "function_name"],
        ),
        model: take_text(&mut fields, &["model", "model_name", "llm_model"]),
        provider: take_text(&mut fields, &["provider", "llm_provider"]),
        call_id: take_text(&mut fields, &["call_id", "retrieval_id"]),
        duration_ms: duration_ms(&mut fields),
        ..Native::default()
    };
    // Of a node both are shown as they came, among the details.
    event.component_id = fields.get("component_id").and_then(scalar_text);
    event.failure = failure(&mut fields, &event.event_type);
    event.usage = usage(&mut fields);
    event.tool = tool(&mut fields, &event);
    event.thinking = take_text(&mut fields, &["thoughts", "thinking"]);
    if event.event_type.starts_with("llm_call_") {
        event.parameters = call::native_parameters(&mut fields);
        event.time_to_first_chunk_ns = first_chunk_ns(&mut fields);
    }
    if event.event_type.starts_with("retrieval_") {
        event.retrieval = Some(retrieval::read_native(&mut fields));
    }
    event.inputs = take(&mut fields, &["inputs", "input", "prompt", "query"]);
    event.outputs = take(
        &mut fields,
        &["outputs", "output", "response", "content", "chunks"],
    );
    event.details = take(&mut fields, &["details"]);
    read_details(&mut event);
    event.rest = fields;
    event
}

/// What the trace service of seed 001 puts into an event's `metadata`: the call that it is of.
fn lift_metadata(fields: &mut Map<String, Value>) {
    const CALL: [&str; 8] = [
        "call_id",
        "retrieval_id",
        "model_name",
        "tool_name",
        "tool_type",
        "query",
        "chunks_count",
        "tokens",
    ];
    let Some(Value::Object(metadata)) = fields.get("metadata") else {
        return;
    };
    let told: Vec<(String, Value)> = CALL
        .iter()
        .filter(|key| !fields.contains_key(**key))
        .filter_map(|key| Some(((*key).to_owned(), metadata.get(*key)?.clone())))
        .collect();
    fields.extend(told);
}

/// Nanoseconds from whichever unit the producer thinks in.
fn first_chunk_ns(fields: &mut Map<String, Value>) -> Option<u64> {
    for (key, unit_ns) in [
        ("time_to_first_chunk_ms", 1e6),
        ("time_to_first_token_ms", 1e6),
        ("ttft_ms", 1e6),
        ("time_to_first_chunk", 1e9),
        ("time_to_first_token", 1e9),
    ] {
        let told = fields.get(key).and_then(Value::as_f64);
        if let Some(ns) = told.and_then(|number| call::ns(number, unit_ns)) {
            fields.shift_remove(key);
            return Some(ns);
        }
    }
    None
}

/// What seed producers put into `details`, if it is not beside them.
fn read_details(event: &mut Native) {
    let Some(Value::Object(details)) = &event.details else {
        return;
    };
    let text = |keys: &[&str]| keys.iter().find_map(|key| scalar_text(details.get(*key)?));
    if event.agent_name.is_none() {
        event.agent_name = text(&["agent_name"]);
    }
    if event.name.is_none() {
        event.name = text(&["operation", "name"]);
    }
    if event.duration_ms.is_none() {
        event.duration_ms = details.get("duration_ms").and_then(Value::as_f64);
    }
    if event.failure.is_none()
        && (details.get("success") == Some(&Value::Bool(false))
            || details.contains_key("error_message"))
    {
        let message = text(&["error_message", "error"]).unwrap_or_default();
        if !(message.is_empty() && details.get("success") != Some(&Value::Bool(false))) {
            event.failure = Some(Failure {
                kind: String::new(),
                message,
            });
        }
    }
}

fn is_an_id(text: &str) -> bool {
    // The mesh's agents write a missing parent as a word.
    !matches!(
        text.trim().to_ascii_lowercase().as_str(),
        "" | "null" | "none"
    )
}

fn failure(fields: &mut Map<String, Value>, event_type: &str) -> Option<Failure> {
    let mut failure = Failure::default();
    let mut said = false;
    for key in ["error", "error_message"] {
        match fields.shift_remove(key) {
            None | Some(Value::Null) => {}
            Some(Value::String(text)) if text.is_empty() || text == "null" => {}
            Some(Value::Object(error)) => {
                said = true;
                let text =
                    |keys: &[&str]| keys.iter().find_map(|key| scalar_text(error.get(*key)?));
                failure.kind = text(&["type", "code", "name"]).unwrap_or_default();
                failure.message = text(&["message", "msg", "detail"])
                    .unwrap_or_else(|| Value::Object(error.clone()).to_string());
            }
            Some(other) => {
                said = true;
                failure.message = scalar_text(&other).unwrap_or_else(|| other.to_string());
            }
        }
    }
    if let Some(kind) = take_text(fields, &["error_type"]) {
        failure.kind = kind;
        said = true;
    }
    let by_type = matches!(
        event_type,
        "task_failed" | "workflow_failed" | "node_failed" | "error_occurred" | "error"
    );
    let unsuccessful = fields.get("success") == Some(&Value::Bool(false));
    (said || by_type || unsuccessful).then_some(failure)
}

fn usage(fields: &mut Map<String, Value>) -> Option<Usage> {
    let nested = match fields.get("usage") {
        Some(Value::Object(nested)) => nested.clone(),
        _ => Map::new(),
    };
    let mut count = |keys: &[&str]| {
        keys.iter()
            .find_map(|key| fields.shift_remove(*key).as_ref().and_then(whole))
            .or_else(|| keys.iter().find_map(|key| nested.get(*key).and_then(whole)))
    };
    let mut input = count(&["prompt_tokens", "input_tokens", "llm_input_tokens"]);
    let output = count(&["completion_tokens", "output_tokens", "llm_output_tokens"]);
    let cache_read = count(&[
        "cached_tokens",
        "cache_read_tokens",
        "cache_read_input_tokens",
    ])
    .unwrap_or(0);
    let cache_write = count(&["cache_write_tokens", "cache_creation_input_tokens"]).unwrap_or(0);
    let reasoning = count(&["reasoning_tokens"]).unwrap_or(0);
    let total = count(&["total_tokens", "llm_total_tokens", "tokens"]);
    // A total alone cannot be divided: what is not known to be an answer was asked.
    if input.is_none()
        && let Some(total) = total
    {
        input = Some(total.saturating_sub(output.unwrap_or(0)));
    }
    (input.is_some() || output.is_some()).then(|| {
        let cached = cache_read.saturating_add(cache_write);
        let input = input.unwrap_or(0);
        Usage {
            // Counted beside it, as Anthropic's API does: what is included cannot be more than the whole.
            input: if cached > input {
                input.saturating_add(cached)
            } else {
                input
            },
            output: output.unwrap_or(0),
            cache_read,
            cache_write,
            reasoning,
        }
    })
}

fn tool(fields: &mut Map<String, Value>, event: &Native) -> Option<Tool> {
    let nested = match fields.get("tool") {
        Some(Value::Object(nested)) => nested.clone(),
        _ => Map::new(),
    };
    let name = take_text(fields, &["tool_name"])
        .or_else(|| nested.get("name").and_then(scalar_text))
        .or_else(|| {
            event
                .event_type
                .starts_with("tool_call_")
                .then(|| event.name.clone())?
        });
    let arguments =
        take(fields, &["arguments", "args"]).or_else(|| nested.get("arguments").cloned());
    let result = fields
        .shift_remove("result")
        .or_else(|| nested.get("result").cloned())
        // Who announces a call may say that there is no result yet.
        .filter(|result| !(result.is_null() && event.event_type.ends_with("_started")));
    let tool_type =
        take_text(fields, &["tool_type"]).or_else(|| nested.get("type").and_then(scalar_text));
    if name.is_none() && arguments.is_none() && !event.event_type.starts_with("tool_call_") {
        // `result` alone is any step's outcome.
        if let Some(result) = result {
            fields.insert("result".to_owned(), result);
        }
        if let Some(tool_type) = tool_type {
            fields.insert("tool_type".to_owned(), Value::from(tool_type));
        }
        return None;
    }
    Some(Tool {
        name: name.unwrap_or_default(),
        call_id: event.call_id.clone(),
        kind: ToolKind::Tool,
        tool_type,
        arguments: arguments.map(|value| super::messages::arguments(&value)),
        result,
        target: None,
    })
}

/// Milliseconds from whichever unit the producer thinks in; a remaining number of the mesh's is in seconds.
fn duration_ms(fields: &mut Map<String, Value>) -> Option<f64> {
    for (key, factor) in [
        ("duration_ms", 1.0),
        ("latency_ms", 1.0),
        ("elapsed_ms", 1.0),
        ("elapsed_time", 1_000.0),
        ("duration_seconds", 1_000.0),
    ] {
        let number = match fields.get(key) {
            Some(Value::Number(number)) => number.as_f64(),
            Some(Value::String(text)) => text.trim().parse().ok(),
            _ => None,
        };
        if let Some(number) = number.filter(|number: &f64| number.is_finite() && *number >= 0.0) {
            fields.shift_remove(key);
            return Some(number * factor);
        }
    }
    None
}

/// RFC 3339 text (without a zone: UTC), or a number of seconds or milliseconds since 1970.
pub(crate) fn time_ms(value: &Value) -> Option<u64> {
    match value {
        Value::String(text) => {
            let text = text.trim();
            if let Ok(number) = text.parse::<f64>() {
                return number_ms(number);
            }
            let moment = time::OffsetDateTime::parse(
                &as_rfc3339(text),
                &time::format_description::well_known::Rfc3339,
            );
            let moment = moment.ok()?;
            u64::try_from(moment.unix_timestamp_nanos() / 1_000_000).ok()
        }
        Value::Number(number) => number_ms(number.as_f64()?),
        _ => None,
    }
}

/// What ISO 8601 allows beside RFC 3339, written as the latter: a space for the `T`, no time (midnight), no seconds, no zone (UTC), a zone without a colon or minutes.
fn as_rfc3339(text: &str) -> String {
    let date_ends = text.char_indices().nth(10).map_or(text.len(), |(at, _)| at);
    let (date, rest) = text.split_at(date_ends);
    let rest = rest.trim_start_matches(['T', 't', ' ']).trim();
    let zone_at = rest.find(['+', '-', 'Z', 'z']).unwrap_or(rest.len());
    let (time, zone) = rest.split_at(zone_at);
    let time = match time.trim() {
        "" => "00:00:00".to_owned(),
        time if time.len() == 5 => format!("{time}:00"),
        time => time.replace(',', "."),
    };
    let zone = match zone {
        "" => "Z".to_owned(),
        zone if zone.len() == 5 && zone.is_ascii() && !zone.contains(':') => {
            format!("{}:{}", &zone[..3], &zone[3..])
        }
        zone if zone.len() == 3 => format!("{zone}:00"),
        zone => zone.to_owned(),
    };
    format!("{date}T{time}{zone}")
}

/// The size tells the unit: seconds until the year 5138, then milliseconds, microseconds, nanoseconds.
fn number_ms(number: f64) -> Option<u64> {
    if !number.is_finite() || number < 0.0 {
        return None;
    }
    let ms = if number < 1e11 {
        number * 1e3
    } else if number < 1e14 {
        number
    } else if number < 1e17 {
        number / 1e3
    } else {
        number / 1e6
    };
    // 9999-12-31: what RFC 3339 can still say.
    (ms < 253_402_300_800_000.0).then_some(ms as u64)
}

fn take(fields: &mut Map<String, Value>, keys: &[&str]) -> Option<Value> {
    for key in keys {
        if fields.get(*key).is_some_and(|value| !value.is_null()) {
            return fields.shift_remove(*key);
        }
    }
    None
}

fn take_text(fields: &mut Map<String, Value>, keys: &[&str]) -> Option<String> {
    for key in keys {
        if let Some(text) = fields.get(*key).and_then(scalar_text) {
            fields.shift_remove(*key);
            return Some(text);
        }
    }
    None
}

fn scalar_text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) if !text.is_empty() => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

fn whole(value: &Value) -> Option<u64> {
    match value {
        Value::Number(number) => number.as_u64().or_else(|| {
            number
                .as_f64()
                .filter(|n| *n >= 0.0 && n.fract() == 0.0)
                .map(|n| n as u64)
        }),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_what_it_does_not_know() {
        let event = read_native(
            r#"{"event_type":"coffee_made","agent_id":"barista","beans":{"kind":"arabica"},"timestamp":"2025-01-20T10:30:45Z"}"#,
            5,
        );
        assert_eq!(event.event_type, "coffee_made");
        assert_eq!(event.timestamp_ms, 1_737_369_045_000);
        assert_eq!(event.rest["beans"]["kind"], "arabica");
    }

    #[test]
    fn takes_a_time_in_any_of_its_forms() {
        for form in [
            "\"2025-01-20T10:30:45Z\"",
            "\"2025-01-20T12:30:45+02:00\"",
            "\"2025-01-20 10:30:45\"",
            "\"2025-01-20T12:30:45+0200\"",
            "\"2025-01-20 12:30:45.000 +02\"",
            "\"2025-01-20T10:30:45,000Z\"",
            "\"2025-01-20T10:30:45\"",
            "1737369045",
            "1737369045.0",
            "1737369045000",
            "\"1737369045\"",
        ] {
            let event = read_native(&format!(r#"{{"event_type":"x","timestamp":{form}}}"#), 5);
            assert_eq!(event.timestamp_ms, 1_737_369_045_000, "{form}");
        }
        let midnight = read_native(r#"{"event_type":"x","timestamp":"2025-01-20"}"#, 5);
        assert_eq!(midnight.timestamp_ms, 1_737_331_200_000);
        let minute = read_native(r#"{"event_type":"x","timestamp":"2025-01-20T10:30Z"}"#, 5);
        assert_eq!(minute.timestamp_ms, 1_737_369_000_000);
        for form in [
            "-1",
            "\"2025-01-20Tää+0ä\"",
            "\"2025-13\"",
            "null",
            "\"soon\"",
            "[1]",
        ] {
            let event = read_native(&format!(r#"{{"event_type":"x","timestamp":{form}}}"#), 5);
            assert_eq!(event.timestamp_ms, 5, "{form}");
        }
    }

    #[test]
    fn reads_a_model_call_and_a_tool_call() {
        let event = read_native(
            r#"{"event_type":"llm_call_completed","call_id":"c","model_name":"m","prompt_tokens":3,"completion_tokens":"4","error":null}"#,
            0,
        );
        assert_eq!(
            event.usage,
            Some(Usage {
                input: 3,
                output: 4,
                ..Usage::default()
            })
        );
        assert_eq!((event.model.as_deref(), event.failure), (Some("m"), None));
        let event = read_native(
            r#"{"event_type":"tool_call_completed","tool_name":"t","arguments":"{\"a\":1}","result":0,"error":"no"}"#,
            0,
        );
        let tool = event.tool.expect("a tool");
        assert_eq!(
            (tool.name.as_str(), tool.result),
            ("t", Some(Value::from(0)))
        );
        assert_eq!(tool.arguments, Some(serde_json::json!({"a": 1})));
        assert_eq!(event.failure.expect("a failure").message, "no");
    }
}
