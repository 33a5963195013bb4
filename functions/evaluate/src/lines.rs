//! A session's spans and log records as the dev server's dialect writes them, and as a trace file with a span a line.
//!
//! In that file what log records tell of a model call (`gen_ai.*` events) stands on the call's span, because the file has room for nothing else.
//! The original puts every message of a session on every span, where records name no span; here a record belongs to the call during which it came.

use std::collections::HashMap;

use serde_json::{Map, Value, json};
use tailspan_core::{
    attributes,
    id::hex,
    observed::{Observation, What},
    wire::{self, any_value},
};

/// Of a file, and of what a session holds when it is taken out at once.
pub(crate) const MOST_BYTES: usize = 64 * 1024 * 1024;

const INPUT: &str = "gen_ai.input.messages";
const OUTPUT: &str = "gen_ai.output.messages";

/// How the original holds a span, by the way it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// Numbers as numbers, kinds and codes by ordinal.
    Frame,
    /// The JSON of protobuf: 64-bit numbers as text, kinds and codes by name.
    Export,
}

struct HeldSpan {
    span: wire::Span,
    scope: wire::Scope,
    form: Form,
}

/// What the traces of a session hold.
#[derive(Default)]
pub(crate) struct Held {
    spans: Vec<HeldSpan>,
    place_of: HashMap<bytes::Bytes, usize>,
    logs: Vec<wire::LogRecord>,
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
    pub(crate) fn add(&mut self, observation: Observation, form: Form) -> bool {
        let scope = &observation.context.scope;
        match observation.what {
            What::Span(span) => {
                self.bytes += prost::Message::encoded_len(&*span);
                let held = HeldSpan {
                    span: *span,
                    scope: scope.clone(),
                    form,
                };
                let place = self.place_of.get(&held.span.span_id).copied();
                match place.and_then(|place| self.spans.get_mut(place)) {
                    Some(former) => *former = held,
                    None => {
                        let id = held.span.span_id.clone();
                        self.place_of.insert(id, self.spans.len());
                        self.spans.push(held);
                    }
                }
            }
            What::Log(log) => {
                self.bytes += prost::Message::encoded_len(&*log);
                self.logs.push(*log);
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
        spans.map(|held| span_json(held, trace_id)).collect()
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
            let mut span = span_json(held, trace_id);
            if let (Some(messages), Some(list)) =
                (messages.get(&place), span["attributes"].as_array_mut())
            {
                for (key, messages) in [(INPUT, &messages.input), (OUTPUT, &messages.output)] {
                    if !messages.is_empty() && !has(&held.span, key) {
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
        let calls = spans.filter(|(_, held)| has(&held.span, "gen_ai.request.model"));
        let mut calls: Vec<_> = calls
            .map(|(place, HeldSpan { span, .. })| {
                let end = match span.end_time_unix_nano {
                    0 => u64::MAX,
                    end => end,
                };
                (span.start_time_unix_nano, end, place)
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

fn log_json(log: &wire::LogRecord) -> Option<Value> {
    let name = event_name(log);
    if !name.starts_with("gen_ai.") {
        return None;
    }
    let mut told = json!({
        "event_name": name,
        "timestamp": time_of(log).to_string(),
        "body": body(log),
        "attributes": attributes::list_to_json(&log.attributes),
    });
    if let (false, Value::Object(fields)) = (log.span_id.is_empty(), &mut told) {
        fields.insert("span_id".to_owned(), Value::from(hex(&log.span_id)));
    }
    Some(told)
}

const KINDS: [&str; 6] = [
    "SPAN_KIND_UNSPECIFIED",
    "SPAN_KIND_INTERNAL",
    "SPAN_KIND_SERVER",
    "SPAN_KIND_CLIENT",
    "SPAN_KIND_PRODUCER",
    "SPAN_KIND_CONSUMER",
];
const CODES: [&str; 3] = ["STATUS_CODE_UNSET", "STATUS_CODE_OK", "STATUS_CODE_ERROR"];

fn span_json(held: &HeldSpan, trace_id: &str) -> Value {
    let HeldSpan { span, scope, form } = held;
    let named = |names: &[&str], number: i32| {
        let name = usize::try_from(number).ok().and_then(|at| names.get(at));
        name.copied().unwrap_or_default().to_owned()
    };
    let parent = hex(&span.parent_span_id);
    let mut attributes: Vec<Value> = Vec::with_capacity(span.attributes.len() + 2);
    for (key, said) in [
        ("otel.scope.name", &scope.name),
        ("otel.scope.version", &scope.version),
    ] {
        if !said.is_empty() && !has(span, key) {
            attributes.push(json!({"key": key, "value": {"stringValue": said}}));
        }
    }
    attributes.extend(span.attributes.iter().map(|it| pair_json(it, *form)));
    let status = span.status.as_ref();
    let (code, says) = status.map_or((0, ""), |status| (status.code, status.message.as_str()));
    let mut status = Map::new();
    let (kind, parent) = match form {
        Form::Frame => {
            status.insert("code".to_owned(), Value::from(code));
            // OTel's API counts kinds from internal, OTLP from unspecified.
            let kind = Value::from(span.kind.saturating_sub(1).max(0));
            (kind, Some(parent).filter(|id| !id.is_empty()).into())
        }
        Form::Export => {
            if code != 0 {
                status.insert("code".to_owned(), Value::from(named(&CODES, code)));
            }
            (Value::from(named(&KINDS, span.kind)), Value::from(parent))
        }
    };
    if !says.is_empty() {
        status.insert("message".to_owned(), Value::from(says));
    }
    let mut told = json!({
        "traceId": trace_id,
        "spanId": hex(&span.span_id),
        "parentSpanId": parent,
        "name": span.name,
        "kind": kind,
        "startTimeUnixNano": span.start_time_unix_nano.to_string(),
        "endTimeUnixNano": span.end_time_unix_nano.to_string(),
        "attributes": attributes,
        "status": status,
    });
    if let (false, Value::Object(fields)) = (span.events.is_empty(), &mut told) {
        let events = span.events.iter().map(|event| {
            let attributes = event.attributes.iter().map(|it| pair_json(it, *form));
            json!({
                "timeUnixNano": event.time_unix_nano.to_string(),
                "name": event.name,
                "attributes": attributes.collect::<Vec<_>>(),
            })
        });
        fields.insert("events".to_owned(), events.collect());
    }
    told
}

fn pair_json(pair: &wire::KeyValue, form: Form) -> Value {
    let value = pair.value.as_ref().and_then(|value| value.value.as_ref());
    json!({"key": pair.key, "value": value.map_or_else(|| json!({}), |value| value_json(value, form, 0))})
}

/// An attribute's value in OTLP's JSON.
fn value_json(value: &any_value::Value, form: Form, depth: usize) -> Value {
    /// As deep as anything is read.
    const DEEPEST: usize = 64;
    use any_value::Value as Any;
    if depth > DEEPEST {
        return json!({});
    }
    let inner = |value: &wire::AnyValue| match &value.value {
        Some(value) => value_json(value, form, depth + 1),
        None => json!({}),
    };
    match value {
        Any::String(text) => json!({ "stringValue": text }),
        Any::Bool(truth) => json!({ "boolValue": truth }),
        Any::Int(number) if form == Form::Frame => json!({ "intValue": number }),
        Any::Int(number) => json!({"intValue": number.to_string()}),
        Any::Double(number) if number.is_finite() => json!({ "doubleValue": number }),
        Any::Double(number) => json!({"doubleValue": number.to_string()}),
        Any::Array(array) => {
            let values: Vec<_> = array.values.iter().map(inner).collect();
            json!({"arrayValue": {"values": values}})
        }
        Any::Map(map) => {
            let pairs = map.values.iter().map(|pair| {
                let value = pair.value.as_ref().map_or_else(|| json!({}), inner);
                json!({"key": pair.key, "value": value})
            });
            json!({"kvlistValue": {"values": pairs.collect::<Vec<_>>()}})
        }
        any @ Any::Bytes(_) => {
            let value = wire::AnyValue {
                value: Some(any.clone()),
            };
            json!({"bytesValue": attributes::to_json(&value)})
        }
    }
}
