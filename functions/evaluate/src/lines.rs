//! A session's spans and log records as the dev server's dialect writes them, and as a trace file with a span a line.
//!
//! In that file what log records tell of a model call (`gen_ai.*` events) stands on the call's span, because the file has room for nothing else.
//! The original puts every message of a session on every span, where records name no span; here a record belongs to the call during which it came.

use std::collections::HashMap;

use serde_json::{Map, Value, json};
use tailspan_core::{
    attributes,
    id::TraceId,
    live::wire_form::{wire_log, wire_span},
    observed::{Observation, What},
    wire::{self, any_value},
};

/// Of a file, and of what a session holds when it is taken out at once.
pub(crate) const MOST_BYTES: usize = 64 * 1024 * 1024;

const INPUT: &str = "gen_ai.input.messages";
const OUTPUT: &str = "gen_ai.output.messages";

/// What the traces of a session hold.
#[derive(Default)]
pub(crate) struct Held {
    spans: Vec<Observation>,
    place_of: HashMap<bytes::Bytes, usize>,
    logs: Vec<Observation>,
    bytes: usize,
}

/// What log records say of one span.
#[derive(Default)]
struct Messages {
    input: Vec<Value>,
    output: Vec<Value>,
}

impl Held {
    /// Adds what was observed; of a span that came again the later version. `false`: it is more than is taken out at once.
    pub(crate) fn add(&mut self, observation: Observation) -> bool {
        match &observation.what {
            What::Span(span) => {
                self.bytes += prost::Message::encoded_len(&**span);
                let id = span.span_id.clone();
                let place = self.place_of.get(&id).copied();
                match place.and_then(|place| self.spans.get_mut(place)) {
                    Some(former) => *former = observation,
                    None => {
                        self.place_of.insert(id, self.spans.len());
                        self.spans.push(observation);
                    }
                }
            }
            What::Log(log) => {
                self.bytes += prost::Message::encoded_len(&**log);
                self.logs.push(observation);
            }
            // The dialect has no words for them.
            What::Native(_) => {}
        }
        self.bytes <= MOST_BYTES
    }

    pub(crate) fn span_count(&self) -> usize {
        self.spans.len()
    }

    pub(crate) fn log_count(&self) -> usize {
        self.logs.len()
    }

    /// The spans, each under the trace id that the session goes by.
    pub(crate) fn spans(&self, trace_id: &str) -> Vec<Value> {
        let spans = self.spans.iter();
        spans.filter_map(|span| span_json(span, trace_id)).collect()
    }

    /// The log records of the dialect.
    pub(crate) fn logs(&self) -> Vec<Value> {
        self.logs.iter().filter_map(log_json).collect()
    }

    /// A trace file: a span a line, with the messages that log records tell of.
    pub(crate) fn lines(&self, trace_id: &str) -> String {
        let messages = self.messages();
        let mut lines = String::new();
        for (place, held) in self.spans.iter().enumerate() {
            let Some(mut span) = span_json(held, trace_id) else {
                continue;
            };
            if let (Some(messages), Some(list)) = (
                messages.get(&place),
                span.get_mut("attributes").and_then(Value::as_array_mut),
            ) {
                for (key, messages) in [(INPUT, &messages.input), (OUTPUT, &messages.output)] {
                    let is_told = list.iter().any(|it| it["key"] == key);
                    if !messages.is_empty() && !is_told {
                        let text = Value::Array(messages.clone()).to_string();
                        list.push(json!({"key": key, "value": {"stringValue": text}}));
                    }
                }
            }
            lines.push_str(&span.to_string());
            lines.push('\n');
        }
        lines
    }

    /// The messages of log records, by the place of the span that they are about.
    fn messages(&self) -> HashMap<usize, Messages> {
        let mut messages: HashMap<usize, Messages> = HashMap::new();
        let calls = self.model_calls();
        for log in &self.logs {
            let What::Log(log) = &log.what else { continue };
            let Some((is_input, message)) = message(log) else {
                continue;
            };
            let named = self.place_of.get(&log.span_id).copied();
            let place = named.or_else(|| call_at(&calls, time_of(log), is_input));
            if let Some(place) = place {
                let of_span = messages.entry(place).or_default();
                match is_input {
                    true => of_span.input.push(message),
                    false => of_span.output.push(message),
                }
            }
        }
        messages
    }

    /// Calls of models by their start: start, end, place.
    fn model_calls(&self) -> Vec<(u64, u64, usize)> {
        let spans = self.spans.iter().enumerate();
        let mut calls: Vec<_> = spans
            .filter_map(|(place, held)| match &held.what {
                What::Span(span) if has(span, "gen_ai.request.model") => {
                    let end = match span.end_time_unix_nano {
                        0 => u64::MAX,
                        end => end,
                    };
                    Some((span.start_time_unix_nano, end, place))
                }
                _ => None,
            })
            .collect();
        calls.sort_unstable();
        calls
    }
}

/// The call during which a record came; between two, what goes in belongs to the next and what comes out to the one before.
fn call_at(calls: &[(u64, u64, usize)], at: u64, is_input: bool) -> Option<usize> {
    let next = calls.partition_point(|(start, _, _)| *start <= at);
    let before = next.checked_sub(1).and_then(|place| calls.get(place));
    let during = before.filter(|(_, end, _)| at <= *end);
    let after = calls.get(next).filter(|_| is_input || before.is_none());
    let call = during.or(after).or(before);
    call.map(|(_, _, place)| *place)
}

fn has(span: &wire::Span, key: &str) -> bool {
    span.attributes.iter().any(|attribute| attribute.key == key)
}

fn time_of(log: &wire::LogRecord) -> u64 {
    match log.time_unix_nano {
        0 => log.observed_time_unix_nano,
        time => time,
    }
}

fn event_name(log: &wire::LogRecord) -> &str {
    if !log.event_name.is_empty() {
        return &log.event_name;
    }
    let named = log.attributes.iter().find(|it| it.key == "event.name");
    match named.and_then(|it| it.value.as_ref()?.value.as_ref()) {
        Some(any_value::Value::String(name)) => name,
        _ => "",
    }
}

/// A record's body as its producer meant it: JSON text is read.
fn body(log: &wire::LogRecord) -> Value {
    match log.body.as_ref().map(attributes::to_json) {
        Some(Value::String(text)) => attributes::parse_text(&text),
        Some(body) => body,
        None => Value::Null,
    }
}

/// The message that a record tells of, and whether it went into the model (else it came out of it).
fn message(log: &wire::LogRecord) -> Option<(bool, Value)> {
    let role = match event_name(log) {
        "gen_ai.user.message" => "user",
        "gen_ai.system.message" => "system",
        "gen_ai.tool.message" => "tool",
        "gen_ai.assistant.message" => "assistant",
        "gen_ai.choice" => "",
        _ => return None,
    };
    let Value::Object(body) = body(log) else {
        return None;
    };
    let is_input = !role.is_empty();
    let nested = match body.get("message") {
        Some(Value::Object(nested)) if !is_input => nested.clone(),
        _ => Map::new(),
    };
    let mut message = Map::new();
    let role = if is_input { role } else { "assistant" };
    message.insert("role".to_owned(), Value::from(role));
    for key in ["content", "tool_calls", "id", "name"] {
        let told = body.get(key).or_else(|| nested.get(key));
        if let Some(told) = told.filter(|told| !told.is_null()) {
            message.insert(key.to_owned(), told.clone());
        }
    }
    (message.len() > 1).then_some((is_input, Value::Object(message)))
}

/// A record as the dialect has it, which knows only those of model calls.
fn log_json(log: &Observation) -> Option<Value> {
    let mut told: Value = serde_json::from_str(&wire_log(log)?).ok()?;
    if let What::Log(record) = &log.what {
        let name = event_name(record);
        if !name.starts_with("gen_ai.") {
            return None;
        }
        if told["event_name"] == "" {
            told["event_name"] = Value::from(name);
        }
    }
    Some(told)
}

/// A span as the dialect has it, under the trace id that its session goes by.
fn span_json(span: &Observation, trace_id: &str) -> Option<Value> {
    let nobodys = TraceId::from_otel(&[1; 16])?;
    let mut told: Value = serde_json::from_str(&wire_span(&nobodys, span)?).ok()?;
    told.as_object_mut()?
        .insert("traceId".to_owned(), Value::from(trace_id));
    Some(told)
}
