//! How much of an event a reader sees.
//!
//! Levels take away by what is known to be harmless: below `detailed` only the fields named here survive, so an attribute or a field of a native event that
//! nobody has heard of is content, and is not shown. Nothing is recorded less for it: see [`crate::lower`] for that.
//!
//! | level | events | of each |
//! | --- | --- | --- |
//! | minimal | a run's and its tasks' beginning and end, root spans, and what failed | ids, names, times, status, the type of an error |
//! | standard | and agents, nodes, tools, retrievals, messages | and models, token counts, the first 200 characters of an error |
//! | detailed | and model calls, thinking, log records | and what went in and out, each text to its first 200 characters |
//! | debug | the same | everything, with the producer's own words |

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::event::{Event, EventRetrieval, EventTool};
use crate::model::Failure;

/// Shown of a text that is previewed, in characters.
pub const PREVIEW_CHARACTERS: usize = 200;
/// Shown of a list or an object that is previewed, in items.
const PREVIEW_ITEMS: usize = 10;
/// Of a retrieval, the first chunks.
const PREVIEW_CHUNKS: usize = 5;
/// How deep a structure is previewed; what is deeper is told as text.
const PREVIEW_DEPTH: usize = 6;
/// Shown of one text in an event at `debug`; the attributes hold the whole.
const MAX_TEXT_BYTES: usize = 32 << 10;

/// How much is told. The order is that of the amount.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Verbosity {
    Minimal,
    #[default]
    Standard,
    Detailed,
    Debug,
}

/// A level that is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("level must be one of minimal, standard, detailed, debug")]
pub struct UnknownLevel;

impl Verbosity {
    pub const ALL: [Self; 4] = [Self::Minimal, Self::Standard, Self::Detailed, Self::Debug];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Minimal => "minimal",
            Self::Standard => "standard",
            Self::Detailed => "detailed",
            Self::Debug => "debug",
        }
    }
}

impl fmt::Display for Verbosity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Verbosity {
    type Err = UnknownLevel;

    fn from_str(text: &str) -> Result<Self, UnknownLevel> {
        let known = Self::ALL.into_iter().find(|level| level.as_str() == text);
        known.ok_or(UnknownLevel)
    }
}

/// Details of an event that say nothing of what went in or out: what a mesh tells of a call, how far a task is, and our own remarks.
const PLAIN_DETAILS: [&str; 33] = [
    "event_id",
    "operation",
    "agent_name",
    "ip_address",
    "runtime",
    "duration_ms",
    "success",
    "capability",
    "target_agent",
    "function_name",
    "published_at",
    "args_count",
    "kwargs_count",
    "result_type",
    "request_bytes",
    "response_bytes",
    "call_attempts",
    "status_code",
    "response_model",
    "finish_reasons",
    "input_messages",
    "links",
    "invocation_id",
    "made_up",
    "severity",
    "progress",
    "step",
    "total_steps",
    "component_type",
    "trace_level",
    // Of an evaluation's result; not its explanation.
    "metric",
    "score",
    "label",
];

/// Whether a detail of this name says nothing of what went in or out.
pub(crate) fn is_plain_detail(name: &str) -> bool {
    PLAIN_DETAILS.contains(&name)
}

/// The least level at which an event is shown.
pub fn least_level(event: &Event) -> Verbosity {
    let failed = event.error.is_some() || event.status == Some("error");
    let is_log = event.kind == Some("log");
    let is_root = event.kind.is_some()
        && !is_log
        && event.span_id.is_some()
        && event.parent_span_id.is_none();
    let is_lifecycle = matches!(
        event.event_type.as_str(),
        "workflow_started"
            | "workflow_completed"
            | "workflow_failed"
            | "task_started"
            | "task_completed"
            | "task_failed"
    );
    if failed && !is_log || is_root || is_lifecycle {
        return Verbosity::Minimal;
    }
    let is_a_call = matches!(event.kind, Some("llm" | "llm_fetch"))
        || event.event_type.starts_with("llm_call_")
        || event.event_type.starts_with("thinking_");
    match is_a_call || is_log {
        true => Verbosity::Detailed,
        false => Verbosity::Standard,
    }
}

/// An event as it is told at a level. `None`: it is not.
pub fn show(event: Event, level: Verbosity) -> Option<Event> {
    (least_level(&event) <= level).then(|| as_told(event, level))
}

/// As [`show`], of an event that is shown in any case.
pub fn as_told(event: Event, level: Verbosity) -> Event {
    match level {
        Verbosity::Minimal => minimal(event),
        Verbosity::Standard => standard(event),
        Verbosity::Detailed => detailed(event),
        Verbosity::Debug => debug(event),
    }
}

fn minimal(event: Event) -> Event {
    Event {
        model: None,
        provider: None,
        usage: None,
        cost_usd: None,
        time_to_first_chunk_ms: None,
        retrieval: None,
        tool: None,
        error: event.error.as_ref().map(|error| Failure {
            kind: error.kind.clone(),
            message: String::new(),
        }),
        details: Map::new(),
        ..standard(event)
    }
}

/// Every field is named: a new one is decided about here.
fn standard(event: Event) -> Event {
    let Event {
        seq,
        event_type,
        trace_id,
        timestamp,
        agent_id,
        agent_name,
        span_id,
        parent_span_id,
        kind,
        name,
        status,
        start_time,
        end_time,
        duration_ms,
        session_id,
        user_id,
        model,
        provider,
        usage,
        cost_usd,
        parameters: _,
        time_to_first_chunk_ms,
        retrieval,
        tool,
        thinking: _,
        input: _,
        output: _,
        error,
        service,
        convention,
        details,
        attributes: _,
        span_events: _,
        resource: _,
    } = event;
    let mut plain: Map<String, Value> = details
        .into_iter()
        .filter(|(key, value)| {
            // A structure may hold anything.
            is_plain_detail(key) && (!value.is_object() || key == "links")
        })
        .collect();
    // A mesh tells of a failure in its details too.
    if let Some(error) = &error
        && plain.contains_key("success")
    {
        plain.insert(
            "error_message".to_owned(),
            Value::String(preview_text(&error.message, PREVIEW_CHARACTERS)),
        );
    }
    Event {
        seq,
        event_type,
        trace_id,
        timestamp,
        agent_id,
        agent_name,
        span_id,
        parent_span_id,
        kind,
        name,
        status,
        start_time,
        end_time,
        duration_ms,
        session_id,
        user_id,
        model,
        provider,
        usage,
        cost_usd,
        parameters: Map::new(),
        time_to_first_chunk_ms,
        retrieval: retrieval.map(|retrieval| EventRetrieval {
            query: None,
            knowledge_bases: Vec::new(),
            chunks: Vec::new(),
            ..retrieval
        }),
        tool: tool.map(|tool| EventTool {
            arguments: None,
            result: None,
            ..tool
        }),
        thinking: None,
        input: None,
        output: None,
        error: error.map(short_failure),
        service,
        convention,
        details: plain,
        attributes: None,
        span_events: None,
        resource: None,
    }
}

fn short_failure(error: Failure) -> Failure {
    Failure {
        message: preview_text(&error.message, PREVIEW_CHARACTERS),
        kind: error.kind,
    }
}

fn detailed(event: Event) -> Event {
    let preview = |value: Value| preview(value, PREVIEW_CHARACTERS);
    let words = |text: String| preview_text(&text, PREVIEW_CHARACTERS);
    let details = event.details.into_iter();
    Event {
        tool: event.tool.map(|tool| EventTool {
            arguments: tool.arguments.map(preview),
            result: tool.result.map(preview),
            ..tool
        }),
        parameters: event
            .parameters
            .into_iter()
            .map(|(name, value)| (name, preview(value)))
            .collect(),
        retrieval: event.retrieval.map(|retrieval| EventRetrieval {
            query: retrieval.query.map(words),
            knowledge_bases: retrieval
                .knowledge_bases
                .into_iter()
                .take(PREVIEW_ITEMS)
                .map(words)
                .collect(),
            chunks: preview_chunks(retrieval.chunks),
            ..retrieval
        }),
        thinking: event.thinking.map(words),
        input: event.input.map(preview),
        output: event.output.map(preview),
        error: event.error.map(short_failure),
        details: details.map(|(key, value)| (key, preview(value))).collect(),
        attributes: None,
        span_events: None,
        resource: None,
        ..event
    }
}

/// Of spans and log records the attributes hold what is cut here; a native event has no other place for it.
pub(crate) fn debug(event: Event) -> Event {
    if event.kind.is_none() {
        return event;
    }
    Event {
        tool: event.tool.map(|tool| EventTool {
            arguments: tool.arguments.map(bounded),
            result: tool.result.map(bounded),
            ..tool
        }),
        retrieval: event.retrieval.map(|retrieval| EventRetrieval {
            query: retrieval.query.map(|query| cut(&query, MAX_TEXT_BYTES)),
            chunks: retrieval.chunks.into_iter().map(bounded_item).collect(),
            ..retrieval
        }),
        thinking: event.thinking.map(|thought| cut(&thought, MAX_TEXT_BYTES)),
        input: event.input.map(bounded),
        output: event.output.map(bounded),
        error: event.error.map(|error| Failure {
            message: cut(&error.message, MAX_TEXT_BYTES),
            kind: error.kind,
        }),
        ..event
    }
}

/// A value with long texts cut, long lists ended early and deep structures told as text; what was left out says how much it was.
pub fn preview(value: Value, characters: usize) -> Value {
    shortened(value, characters, PREVIEW_ITEMS, PREVIEW_DEPTH)
}

/// As [`preview`], of the chunks of a retrieval.
pub fn preview_chunks(chunks: Vec<Value>) -> Vec<Value> {
    let count = chunks.len();
    let mut shown: Vec<Value> = chunks
        .into_iter()
        .take(PREVIEW_CHUNKS)
        .map(|chunk| preview(chunk, PREVIEW_CHARACTERS))
        .collect();
    if count > PREVIEW_CHUNKS {
        shown.push(Value::String(of(PREVIEW_CHUNKS, count, "chunks")));
    }
    shown
}

fn shortened(value: Value, characters: usize, items: usize, depth: usize) -> Value {
    match value {
        Value::String(text) => Value::String(preview_text(&text, characters)),
        Value::Array(_) | Value::Object(_) if depth == 0 => {
            Value::String(preview_text(&value.to_string(), characters))
        }
        Value::Array(list) => {
            let count = list.len();
            let mut shown: Vec<Value> = list
                .into_iter()
                .take(items)
                .map(|item| shortened(item, characters, items, depth - 1))
                .collect();
            if count > items {
                shown.push(Value::String(of(items, count, "items")));
            }
            Value::Array(shown)
        }
        Value::Object(fields) => {
            let count = fields.len();
            // An object is told by its fields; one that has more than five lists' worth of them is a table.
            let most = items * 5;
            let mut shown: Map<String, Value> = fields
                .into_iter()
                .take(most)
                .map(|(key, value)| {
                    let key = preview_text(&key, characters);
                    (key, shortened(value, characters, items, depth - 1))
                })
                .collect();
            if count > most {
                shown.insert("...".to_owned(), Value::String(of(most, count, "fields")));
            }
            Value::Object(shown)
        }
        other => other,
    }
}

/// The first characters of a text, and how many of how many they are.
pub fn preview_text(text: &str, characters: usize) -> String {
    let Some((end, _)) = text.char_indices().nth(characters) else {
        return text.to_owned();
    };
    let shown = text.get(..end).unwrap_or_default();
    let count = text.chars().count();
    format!("{shown}... [{}]", of(characters, count, "characters"))
}

/// `200 of 5,312 characters`
fn of(shown: usize, count: usize, what: &str) -> String {
    format!("{} of {} {what}", thousands(shown), thousands(count))
}

fn thousands(number: usize) -> String {
    let digits = number.to_string();
    let mut grouped = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// Long text is cut; a long structure becomes text that is cut, but for a list, of which only the long items are.
fn bounded(value: Value) -> Value {
    match value {
        Value::String(text) => Value::String(cut(&text, MAX_TEXT_BYTES)),
        Value::Array(list) => Value::Array(list.into_iter().map(bounded_item).collect()),
        Value::Object(_) => bounded_item(value),
        other => other,
    }
}

/// A message keeps its form; of anything else that is too long the text is told.
fn bounded_item(value: Value) -> Value {
    match value {
        Value::Object(mut message)
            if message.contains_key("role")
                && message.get("content").is_some_and(Value::is_string) =>
        {
            if let Some(Value::String(text)) = message.get_mut("content") {
                *text = cut(text, MAX_TEXT_BYTES);
            }
            Value::Object(message)
        }
        Value::Array(_) | Value::Object(_) => {
            let text = value.to_string();
            match text.len() <= MAX_TEXT_BYTES {
                true => value,
                false => Value::String(cut(&text, MAX_TEXT_BYTES)),
            }
        }
        Value::String(text) => Value::String(cut(&text, MAX_TEXT_BYTES)),
        other => other,
    }
}

fn cut(text: &str, bytes: usize) -> String {
    match text.len() <= bytes {
        true => text.to_owned(),
        // At most as many characters as bytes.
        false => {
            let mut end = bytes;
            while !text.is_char_boundary(end) {
                end -= 1;
            }
            let characters = text.get(..end).unwrap_or_default().chars().count();
            preview_text(text, characters)
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn event(kind: &'static str, event_type: &str) -> Event {
        Event {
            event_type: event_type.to_owned(),
            span_id: Some("1".to_owned()),
            parent_span_id: Some("0".to_owned()),
            kind: Some(kind),
            ..Event::default()
        }
    }

    #[test]
    fn each_level_shows_what_the_one_below_does_and_more() {
        let check = |event: Event, least| assert_eq!(least_level(&event), least, "{event:?}");
        check(event("agent", "task_failed"), Verbosity::Minimal);
        check(
            Event {
                parent_span_id: None,
                ..event("llm", "llm_call_completed")
            },
            Verbosity::Minimal,
        );
        check(
            Event {
                status: Some("error"),
                ..event("llm", "llm_call_completed")
            },
            Verbosity::Minimal,
        );
        check(event("agent", "agent_called"), Verbosity::Standard);
        check(event("tool", "tool_call_started"), Verbosity::Standard);
        check(event("llm", "llm_call_started"), Verbosity::Detailed);
        check(event("log", "gen_ai.user.message"), Verbosity::Detailed);
    }

    #[test]
    fn what_is_cut_says_how_much_it_was() {
        assert_eq!(preview_text("abc", 3), "abc");
        let long = "ä".repeat(5_312);
        let shown = preview_text(&long, 200);
        assert!(shown.ends_with("... [200 of 5,312 characters]"), "{shown}");
        assert_eq!(
            preview(json!([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, {"a": "x"}]), 5),
            json!([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, "10 of 12 items"])
        );
        assert_eq!(
            preview_chunks((0..7).map(Value::from).collect()).last(),
            Some(&json!("5 of 7 chunks"))
        );
        assert_eq!(thousands(1_234_567), "1,234,567");
    }

    #[test]
    fn nothing_unknown_is_shown_below_detailed() {
        let event = Event {
            input: Some(json!("canary")),
            output: Some(json!(["canary"])),
            attributes: Some(json!({"k": "canary"})),
            details: Map::from_iter([
                ("progress".to_owned(), json!(0.5)),
                ("operation".to_owned(), json!({"k": "canary"})),
                ("own".to_owned(), json!("canary")),
            ]),
            error: Some(Failure {
                kind: "ValueError".to_owned(),
                message: "x".repeat(300),
            }),
            thinking: Some("canary".to_owned()),
            parameters: Map::from_iter([("stop".to_owned(), json!(["canary"]))]),
            retrieval: Some(EventRetrieval {
                query: Some("canary".to_owned()),
                knowledge_bases: vec!["canary".to_owned()],
                chunks_total: Some(7),
                chunks: vec![json!({"text": "canary"})],
                ..EventRetrieval::default()
            }),
            tool: Some(EventTool {
                name: "t".to_owned(),
                arguments: Some(json!("canary")),
                result: Some(json!("canary")),
                ..EventTool::default()
            }),
            ..event("tool", "tool_call_completed")
        };
        for level in [Verbosity::Minimal, Verbosity::Standard] {
            let shown = serde_json::to_string(&show(event.clone(), level)).expect("JSON");
            assert!(!shown.contains("canary"), "{level}: {shown}");
            assert_eq!(shown.contains("xxx"), level == Verbosity::Standard);
            assert_eq!(shown.contains("progress"), level == Verbosity::Standard);
        }
    }
}
