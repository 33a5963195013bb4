//! The three forms of seed 001 for events and traces, and the timeline as text.
//!
//! Field names, rounding and lengths are its formatters' (docs/protocol.md, "Formats"). Two things are answered better than there: what is cut says how much it
//! was, and a stored trace looks like a live one.

use std::{fmt, fmt::Write as _, str::FromStr};

use serde_json::{Map, Value, json};

use crate::event::Event;
use crate::settle::Status;
use crate::summary::Summary;
use crate::verbosity::{Verbosity, preview, preview_text};

/// Characters shown of a text of the inputs, of the outputs, of a thought.
const INPUT_CHARACTERS: usize = 200;
const OUTPUT_CHARACTERS: usize = 500;
const THOUGHT_CHARACTERS: usize = 300;
/// Characters of an error in the compact form, and in the timeline.
const COMPACT_ERROR_CHARACTERS: usize = 100;
const TIMELINE_ERROR_CHARACTERS: usize = 50;
/// Characters of a call's prompt, answer or result.
const CALL_CHARACTERS: usize = 200;
/// Chunks of a retrieval that are listed.
const CHUNKS_SHOWN: usize = 3;

/// A form of seed 001.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Format {
    #[default]
    Streaming,
    Compact,
    Detailed,
}

/// A format that is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("format must be one of streaming, compact, detailed")]
pub struct UnknownFormat;

impl FromStr for Format {
    type Err = UnknownFormat;

    fn from_str(text: &str) -> Result<Self, UnknownFormat> {
        match text {
            "streaming" => Ok(Self::Streaming),
            "compact" => Ok(Self::Compact),
            "detailed" => Ok(Self::Detailed),
            _ => Err(UnknownFormat),
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Streaming => "streaming",
            Self::Compact => "compact",
            Self::Detailed => "detailed",
        })
    }
}

/// One event, in a form. What its level has taken away is not here either.
pub fn event(event: &Event, format: Format) -> Value {
    Value::Object(match format {
        Format::Streaming => streaming(event),
        Format::Compact => compact(event),
        Format::Detailed => detailed(event),
    })
}

/// One event as the data of a stream's frame.
pub fn frame(shown: &Event, format: Format) -> Value {
    let name = match format {
        Format::Streaming => "trace",
        Format::Compact => "trace_compact",
        Format::Detailed => "trace_detailed",
    };
    json!({"event": name, "data": event(shown, format)})
}

/// What a trace says of itself beside its events.
pub struct Session<'a> {
    pub summary: &'a Summary,
    pub tenant_id: &'a str,
    /// What the level leaves of the texts: at `debug` calls are told whole.
    pub level: Verbosity,
    /// What was asked to be recorded.
    pub trace_level: Verbosity,
}

/// A trace with the events given, in a form.
pub fn session(session: &Session<'_>, events: &[Event], format: Format) -> Value {
    Value::Object(match format {
        Format::Streaming => streaming_session(session, events),
        Format::Compact => compact_session(session, events),
        Format::Detailed => detailed_session(session, events),
    })
}

/// Events as lines of text: time, sign, type, who, how long, what went wrong.
pub fn timeline(events: &[Event]) -> String {
    let mut text = String::new();
    for event in events {
        let _ = write!(
            text,
            "{} {} {}",
            clock(&event.timestamp, false),
            icon(event),
            printable(&event.event_type)
        );
        if let Some(name) = component_name(event) {
            let _ = write!(text, " [{}]", printable(name));
        }
        if let Some(ms) = event.duration_ms {
            let _ = write!(text, " ({ms:.0}ms)");
        }
        if let Some(error) = error_text(event) {
            let error = printable(&preview_text(error, TIMELINE_ERROR_CHARACTERS));
            let _ = write!(text, " ERROR: {error}");
        }
        text.push('\n');
    }
    text
}

/// Names come from strangers: what could steer a terminal, or begin a line, is left out.
fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).collect()
}

fn streaming(event: &Event) -> Map<String, Value> {
    let mut fields = head(event);
    put(
        &mut fields,
        "component_id",
        event.span_id.as_deref().map(Value::from),
    );
    put(
        &mut fields,
        "component_name",
        component_name(event).map(Value::from),
    );
    put(
        &mut fields,
        "component_type",
        component_type(event).map(Value::from),
    );
    put(
        &mut fields,
        "inputs",
        inputs(event).map(|inputs| preview(inputs, INPUT_CHARACTERS)),
    );
    put(
        &mut fields,
        "outputs",
        outputs(event).map(|outputs| preview(outputs, OUTPUT_CHARACTERS)),
    );
    put(&mut fields, "error", error_text(event).map(Value::from));
    put(
        &mut fields,
        "elapsed_time",
        event
            .duration_ms
            .map(|ms| Value::from(rounded(ms / 1000.0, 3))),
    );
    put(
        &mut fields,
        "thoughts",
        thoughts(event).map(|text| Value::from(preview_text(&text, THOUGHT_CHARACTERS))),
    );
    fields
}

fn compact(event: &Event) -> Map<String, Value> {
    let mut fields = Map::new();
    fields.insert("type".to_owned(), Value::from(event.event_type.as_str()));
    fields.insert("icon".to_owned(), Value::from(icon(event)));
    fields.insert(
        "time".to_owned(),
        Value::from(clock(&event.timestamp, true)),
    );
    put(
        &mut fields,
        "component",
        component_name(event).map(Value::from),
    );
    put(
        &mut fields,
        "duration_ms",
        event.duration_ms.map(|ms| Value::from(rounded(ms, 1))),
    );
    put(
        &mut fields,
        "error",
        error_text(event).map(|text| Value::from(preview_text(text, COMPACT_ERROR_CHARACTERS))),
    );
    fields
}

fn detailed(event: &Event) -> Map<String, Value> {
    let mut fields = head(event);
    put(
        &mut fields,
        "timestamp_unix",
        unix_seconds(&event.timestamp).map(Value::from),
    );
    if event.span_id.is_some() || event.name.is_some() {
        fields.insert(
            "component".to_owned(),
            json!({"id": event.span_id, "name": component_name(event), "type": component_type(event)}),
        );
    }
    put(&mut fields, "inputs", inputs(event));
    put(&mut fields, "outputs", outputs(event));
    put(
        &mut fields,
        "error",
        error_text(event)
            .map(|text| json!({"message": text, "occurred_at": event.timestamp.as_str()})),
    );
    put(
        &mut fields,
        "timing",
        event.duration_ms.map(
            |ms| json!({"elapsed_seconds": rounded(ms / 1000.0, 4), "elapsed_ms": rounded(ms, 2)}),
        ),
    );
    put(&mut fields, "thoughts", thoughts(event).map(Value::from));
    let metadata = metadata(event);
    if !metadata.is_empty() {
        fields.insert("metadata".to_owned(), Value::Object(metadata));
    }
    fields
}

fn head(event: &Event) -> Map<String, Value> {
    let id = match event.details.get("event_id").and_then(Value::as_str) {
        Some(id) => id.to_owned(),
        None => format!("{}-{}", event.trace_id, event.seq),
    };
    Map::from_iter([
        ("event_id".to_owned(), Value::from(id)),
        (
            "event_type".to_owned(),
            Value::from(event.event_type.as_str()),
        ),
        (
            "timestamp".to_owned(),
            Value::from(event.timestamp.as_str()),
        ),
    ])
}

fn put(fields: &mut Map<String, Value>, name: &str, value: Option<Value>) {
    if let Some(value) = value {
        fields.insert(name.to_owned(), value);
    }
}

fn component_name(event: &Event) -> Option<&str> {
    let tool = event.tool.as_ref().map(|tool| tool.name.as_str());
    event
        .name
        .as_deref()
        .or(tool.filter(|name| !name.is_empty()))
        .or(event.agent_name.as_deref())
        .or(Some(event.agent_id.as_str()))
        .filter(|name| !name.is_empty())
}

fn component_type(event: &Event) -> Option<&str> {
    let told = event.details.get("component_type").and_then(Value::as_str);
    told.or(event.kind)
}

/// The seed's inputs are an object: what is none is put into one.
fn inputs(event: &Event) -> Option<Value> {
    if let Some(tool) = &event.tool
        && let Some(arguments) = &tool.arguments
    {
        return Some(json!({"tool_name": tool.name, "arguments": arguments}));
    }
    event.input.as_ref().map(|input| object_of(input, "input"))
}

fn outputs(event: &Event) -> Option<Value> {
    if let Some(tool) = &event.tool
        && let Some(result) = &tool.result
    {
        return Some(json!({"result": result}));
    }
    event
        .output
        .as_ref()
        .map(|output| object_of(output, "output"))
}

fn object_of(value: &Value, name: &str) -> Value {
    match value {
        Value::Object(_) => value.clone(),
        Value::Array(list) if list.iter().all(|item| item.get("role").is_some()) => {
            json!({"messages": value})
        }
        _ => json!({name: value}),
    }
}

fn thoughts(event: &Event) -> Option<String> {
    event.thinking.clone().filter(|text| !text.is_empty())
}

fn error_text(event: &Event) -> Option<&str> {
    let error = event.error.as_ref()?;
    Some(match error.message.is_empty() {
        true if error.kind.is_empty() => "failed",
        true => &error.kind,
        false => &error.message,
    })
}

fn metadata(event: &Event) -> Map<String, Value> {
    let mut metadata = Map::new();
    let call_id = event
        .tool
        .as_ref()
        .and_then(|tool| tool.call_id.as_deref())
        .or_else(|| event.details.get("call_id").and_then(Value::as_str));
    put(&mut metadata, "call_id", call_id.map(Value::from));
    put(
        &mut metadata,
        "tool_name",
        event
            .tool
            .as_ref()
            .map(|tool| Value::from(tool.name.as_str())),
    );
    put(
        &mut metadata,
        "model_name",
        event.model.as_deref().map(Value::from),
    );
    put(
        &mut metadata,
        "tokens",
        event.usage.map(|usage| Value::from(usage.total_tokens)),
    );
    put(
        &mut metadata,
        "agent_id",
        Some(&event.agent_id)
            .filter(|id| !id.is_empty())
            .map(|id| Value::from(id.as_str())),
    );
    put(
        &mut metadata,
        "parent_id",
        event.parent_span_id.as_deref().map(Value::from),
    );
    for (key, value) in &event.details {
        if !matches!(key.as_str(), "event_id" | "component_type") {
            metadata.entry(key.clone()).or_insert_with(|| value.clone());
        }
    }
    metadata
}

/// `HH:MM:SS`, or with milliseconds, of one of our own RFC 3339 times.
fn clock(timestamp: &str, milliseconds: bool) -> String {
    let end = if milliseconds { 23 } else { 19 };
    timestamp.get(11..end).unwrap_or_default().to_owned()
}

fn unix_seconds(timestamp: &str) -> Option<f64> {
    let format = &time::format_description::well_known::Rfc3339;
    let moment = time::OffsetDateTime::parse(timestamp, format).ok()?;
    Some((moment.unix_timestamp_nanos() / 1_000) as f64 / 1e6)
}

fn rounded(number: f64, digits: i32) -> f64 {
    let scale = 10f64.powi(digits);
    (number * scale).round() / scale
}

fn icon(event: &Event) -> &'static str {
    match event.event_type.as_str() {
        "workflow_started" | "task_started" => "🚀",
        "workflow_completed" | "task_completed" => "✅",
        "workflow_failed" | "task_failed" => "❌",
        "node_started" => "▶️",
        "node_finished" => "✔️",
        "node_failed" => "⚠️",
        "retrieval_started" => "🔍",
        "retrieval_completed" => "📚",
        "llm_call_started" => "🤖",
        "llm_call_completed" => "💬",
        "tool_call_started" => "🔧",
        "tool_call_completed" => "🛠️",
        "message_generated" => "📝",
        "error_occurred" => "🔥",
        "thinking_started" => "💭",
        "thinking_completed" => "💡",
        "agent_called" => "👤",
        "task_progress" => "⏳",
        _ => "•",
    }
}

/// The seed knows three: what is stalled still runs, what is lost has failed.
pub fn status(status: Status) -> &'static str {
    match status {
        Status::Completed => "completed",
        Status::Failed | Status::Lost => "failed",
        Status::Running | Status::Stalled => "running",
    }
}

fn session_id(summary: &Summary) -> &str {
    summary.sessions.first().unwrap_or(&summary.trace_id)
}

fn seconds(summary: &Summary) -> f64 {
    summary.duration_ms.unwrap_or(0.0) / 1000.0
}

/// The numbers of the seed's summary, under its names.
pub fn summary(summary: &Summary) -> Value {
    json!({
        "total_events": summary.total_events,
        "total_llm_calls": summary.total_llm_calls,
        "total_retrievals": summary.total_retrievals,
        "total_tool_calls": summary.total_tool_calls,
        "total_tokens": summary.total_tokens,
        "total_chunks_retrieved": summary.total_chunks_retrieved,
        "nodes_executed": summary.nodes_executed,
        "errors_count": summary.errors_count,
    })
}

fn first_error(session: &Session<'_>) -> Option<Value> {
    let error = session.summary.errors.first()?;
    let text = match session.level {
        Verbosity::Minimal => &error.error_type,
        _ if error.message.is_empty() => &error.error_type,
        _ => &error.message,
    };
    Some(Value::from(text.as_str()))
}

fn streaming_session(session: &Session<'_>, events: &[Event]) -> Map<String, Value> {
    let told = session.summary;
    let events: Vec<Value> = events
        .iter()
        .map(|shown| event(shown, Format::Streaming))
        .collect();
    Map::from_iter([
        ("session_id".to_owned(), Value::from(session_id(told))),
        ("task_id".to_owned(), Value::from(told.trace_id.as_str())),
        ("status".to_owned(), Value::from(status(told.status))),
        ("started_at".to_owned(), json!(told.started_at)),
        ("completed_at".to_owned(), json!(told.ended_at)),
        (
            "total_elapsed_time".to_owned(),
            Value::from(rounded(seconds(told), 3)),
        ),
        ("summary".to_owned(), summary(told)),
        ("events".to_owned(), Value::Array(events)),
    ])
}

fn compact_session(session: &Session<'_>, events: &[Event]) -> Map<String, Value> {
    let told = session.summary;
    let timeline: Vec<Value> = events
        .iter()
        .map(|shown| event(shown, Format::Compact))
        .collect();
    Map::from_iter([
        ("session_id".to_owned(), Value::from(session_id(told))),
        ("task_id".to_owned(), Value::from(told.trace_id.as_str())),
        ("status".to_owned(), Value::from(status(told.status))),
        (
            "duration_s".to_owned(),
            Value::from(rounded(seconds(told), 2)),
        ),
        ("nodes".to_owned(), Value::from(told.nodes_executed)),
        ("llm_calls".to_owned(), Value::from(told.total_llm_calls)),
        ("retrievals".to_owned(), Value::from(told.total_retrievals)),
        ("tool_calls".to_owned(), Value::from(told.total_tool_calls)),
        ("tokens".to_owned(), Value::from(told.total_tokens)),
        ("errors".to_owned(), Value::from(told.errors_count)),
        ("timeline".to_owned(), Value::Array(timeline)),
    ])
}

fn detailed_session(session: &Session<'_>, events: &[Event]) -> Map<String, Value> {
    let told = session.summary;
    let is_raw = session.level == Verbosity::Debug;
    // A call's end tells what its start did too, where both are told.
    let calls = |types: &[&str], form: fn(&Event, bool) -> Value| -> Value {
        let of_type = events
            .iter()
            .filter(|event| types.contains(&event.event_type.as_str()));
        of_type.map(|event| form(event, is_raw)).collect()
    };
    let llm_calls = calls(&["llm_call_completed", "llm_call_failed"], llm_call);
    let retrievals = calls(&["retrieval_completed", "retrieval_failed"], retrieval);
    let tool_calls = calls(&["tool_call_completed", "tool_call_failed"], tool_call);
    let shown: Vec<Value> = events
        .iter()
        .map(|shown| event(shown, Format::Detailed))
        .collect();
    let mut fields = Map::from_iter([
        ("session_id".to_owned(), Value::from(session_id(told))),
        ("task_id".to_owned(), Value::from(told.trace_id.as_str())),
        (
            "metadata".to_owned(),
            json!({
                "agent_id": told.agents.first().map_or("", String::as_str),
                "session_id": told.sessions.first().map_or("", String::as_str),
                "user_id": told.users.first().map_or("", String::as_str),
                "tenant_id": session.tenant_id,
                "trace_level": session.trace_level.as_str(),
                "created_at": told.started_at,
                "tags": [],
                "custom_data": {},
            }),
        ),
        ("status".to_owned(), Value::from(status(told.status))),
        (
            "timing".to_owned(),
            json!({
                "started_at": told.started_at,
                "completed_at": told.ended_at,
                "total_elapsed_seconds": rounded(seconds(told), 4),
            }),
        ),
        ("summary".to_owned(), summary(told)),
        ("events".to_owned(), Value::Array(shown)),
        ("llm_calls".to_owned(), llm_calls),
        ("retrievals".to_owned(), retrievals),
        ("tool_calls".to_owned(), tool_calls),
    ]);
    put(&mut fields, "error", first_error(session));
    fields
}

fn call_id(event: &Event) -> Value {
    let told = event
        .tool
        .as_ref()
        .and_then(|tool| tool.call_id.as_deref())
        .or_else(|| event.details.get("call_id").and_then(Value::as_str))
        .or(event.span_id.as_deref());
    json!(told)
}

/// Times and the outcome of a call.
fn timing(fields: &mut Map<String, Value>, event: &Event) {
    fields.insert(
        "latency_ms".to_owned(),
        Value::from(rounded(event.duration_ms.unwrap_or(0.0), 2)),
    );
    fields.insert("started_at".to_owned(), json!(event.start_time));
    let completed_at = event.end_time.as_deref().unwrap_or(&event.timestamp);
    fields.insert("completed_at".to_owned(), Value::from(completed_at));
    put(fields, "error", error_text(event).map(Value::from));
}

/// A text whole under its name, or its beginning under the name of a preview.
fn text(fields: &mut Map<String, Value>, name: &str, value: Option<&Value>, is_raw: bool) {
    let Some(value) = value else { return };
    if is_raw {
        fields.insert(name.to_owned(), value.clone());
        return;
    }
    let words = match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let shown = preview_text(&words, CALL_CHARACTERS);
    fields.insert(format!("{name}_preview"), Value::from(shown));
}

fn llm_call(event: &Event, is_raw: bool) -> Value {
    let usage = event.usage.unwrap_or_default();
    let mut fields = Map::from_iter([
        ("call_id".to_owned(), call_id(event)),
        ("model_name".to_owned(), json!(event.model)),
        (
            "tokens".to_owned(),
            json!({
                "prompt": usage.input_tokens,
                "completion": usage.output_tokens,
                "total": usage.total_tokens,
            }),
        ),
    ]);
    timing(&mut fields, event);
    for name in ["temperature", "max_tokens"] {
        put(&mut fields, name, parameter(event, name));
    }
    text(&mut fields, "prompt", event.input.as_ref(), is_raw);
    text(&mut fields, "response", event.output.as_ref(), is_raw);
    Value::Object(fields)
}

fn parameter(event: &Event, name: &str) -> Option<Value> {
    event.parameters.get(name).cloned()
}

fn retrieval(event: &Event, is_raw: bool) -> Value {
    let told = event.retrieval.clone().unwrap_or_default();
    let chunks = &told.chunks;
    let count = told.chunks_total.unwrap_or(chunks.len() as u64);
    let shown: Value = match is_raw {
        true => chunks.clone().into(),
        false => chunks
            .iter()
            .filter(|chunk| chunk.is_object())
            .take(CHUNKS_SHOWN)
            .map(|chunk| json!({"id": chunk.get("id"), "score": chunk.get("score")}))
            .collect(),
    };
    let results = match is_raw {
        true => json!({"chunks_retrieved": count, "chunks": shown}),
        false => json!({"chunks_retrieved": count, "chunks_preview": shown}),
    };
    let mut fields = Map::from_iter([
        ("retrieval_id".to_owned(), call_id(event)),
        ("query".to_owned(), json!(told.query)),
        ("knowledge_bases".to_owned(), json!(told.knowledge_bases)),
        (
            "config".to_owned(),
            json!({
                "top_k": told.top_k,
                "similarity_threshold": told.threshold,
                "rerank_enabled": told.rerank,
            }),
        ),
        ("results".to_owned(), results),
    ]);
    timing(&mut fields, event);
    Value::Object(fields)
}

fn tool_call(event: &Event, is_raw: bool) -> Value {
    let tool = event.tool.clone().unwrap_or_default();
    let mut fields = Map::from_iter([
        ("call_id".to_owned(), call_id(event)),
        ("tool_name".to_owned(), Value::from(tool.name)),
        (
            "tool_type".to_owned(),
            Value::from(tool.tool_type.unwrap_or_else(|| tool.kind.to_owned())),
        ),
        ("arguments".to_owned(), json!(tool.arguments)),
    ]);
    timing(&mut fields, event);
    text(&mut fields, "result", tool.result.as_ref(), is_raw);
    Value::Object(fields)
}
