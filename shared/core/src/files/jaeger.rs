//! Jaeger's JSON, as its API and UI give it: times in microseconds, typed tags, parents among the references, resources by process.
//!
//! What OpenTelemetry's mapping to Jaeger wrote into tags goes back to where it came from: scope, kind, status, trace state.

use std::{borrow::Cow, collections::HashMap};

use base64::Engine as _;
use serde::Deserialize;
use serde_json::{Map, Value, value::RawValue};

use super::{File, FileError};
use crate::{
    otlp::{
        mend_surrogates,
        reading::{Ids, Origin, Reading, take_scope},
    },
    wire::{self, AnyValue, KeyValue, any_value},
};

/// A value that nests deeper is kept as its JSON text.
const MAX_DEPTH: usize = 24;

#[derive(Deserialize)]
struct Document<'a> {
    #[serde(borrow)]
    data: Vec<&'a RawValue>,
}

#[derive(Deserialize)]
struct Trace<'a> {
    #[serde(rename = "traceID", default)]
    trace_id: Option<Value>,
    #[serde(borrow, default)]
    spans: Option<Vec<&'a RawValue>>,
    #[serde(default)]
    processes: Option<HashMap<String, Value>>,
}

/// Reads a document: all of `data`, or one entry of it.
pub(super) fn read(
    file: &File<'_>,
    text: &str,
    document: &str,
    is_whole: bool,
    reading: &mut Reading,
) -> Result<(), FileError> {
    let at = |part: &str| part.as_ptr().addr().saturating_sub(text.as_ptr().addr());
    let entries = if is_whole {
        let document: Document<'_> = serde_json::from_str(document)
            .map_err(|error| file.json_error(text, at(document), &error))?;
        document.data.into_iter().map(RawValue::get).collect()
    } else {
        vec![document]
    };
    for entry in entries {
        let trace: Trace<'_> = serde_json::from_str(entry)
            .map_err(|error| file.json_error(text, at(entry), &error))?;
        let spans = trace.spans.unwrap_or_default();
        let last = last_of_each_id(&spans);
        let processes = trace.processes.unwrap_or_default();
        let mut of_trace = OfTrace {
            trace_id: trace.trace_id.as_ref().map(id).unwrap_or_default(),
            processes,
            origins: HashMap::new(),
        };
        for (place, raw) in spans.into_iter().enumerate() {
            // Of a span that stands there twice, the last counts.
            if last.get(place) == Some(&false) {
                continue;
            }
            of_trace.take(raw.get(), reading).map_err(|message| {
                file.error_at(
                    text,
                    at(raw.get()),
                    format!("span {}: {message}", place + 1),
                )
            })?;
        }
    }
    Ok(())
}

/// Of each span: is it the last of its id?
fn last_of_each_id(spans: &[&RawValue]) -> Vec<bool> {
    #[derive(Deserialize)]
    struct Named {
        #[serde(rename = "spanID", default)]
        id: Option<Value>,
    }
    let mut last = HashMap::new();
    let ids: Vec<Option<String>> = spans
        .iter()
        .map(|raw| {
            let named: Named = serde_json::from_str(raw.get()).ok()?;
            Some(id(&named.id?))
        })
        .collect();
    for (place, id) in ids.iter().enumerate() {
        if let Some(id) = id {
            last.insert(id.as_str(), place);
        }
    }
    ids.iter()
        .enumerate()
        .map(|(place, id)| match id {
            Some(id) => last.get(id.as_str()) == Some(&place),
            None => true,
        })
        .collect()
}

/// The spans of one entry share this.
struct OfTrace {
    trace_id: String,
    processes: HashMap<String, Value>,
    /// By process, scope's name and version.
    origins: HashMap<(String, String, String), Origin>,
}

impl OfTrace {
    fn take(&mut self, raw: &str, reading: &mut Reading) -> Result<(), String> {
        let fields = object(raw)?;
        let said = |key: &str| fields.get(key).map(id).unwrap_or_default();
        let name = said("operationName");
        let named = |message: String| format!("\"{name}\" ({}): {message}", said("spanID"));
        let mut span = wire::Span {
            name: name.clone(),
            ..wire::Span::default()
        };
        let start_us = number(&fields, "startTime").map_err(named)?;
        let duration_us = number(&fields, "duration").map_err(named)?;
        span.start_time_unix_nano = nanoseconds(start_us);
        // Jaeger has ended spans only, and zero would say that this one is open.
        span.end_time_unix_nano = nanoseconds(start_us + duration_us).max(1);
        span.attributes = tags(fields.get("tags"), "tags").map_err(named)?;
        let scope = take_scope(&mut span.attributes);
        take_own(&mut span);
        for log in list(fields.get("logs"), "logs").map_err(named)? {
            span.events.push(event(log).map_err(named)?);
        }

        let mut parent = None;
        let mut links = Vec::new();
        for reference in list(fields.get("references"), "references").map_err(named)? {
            let said = |key: &str| reference.get(key).map(id).unwrap_or_default();
            let is_child = reference.get("refType").and_then(Value::as_str) == Some("CHILD_OF");
            if is_child && parent.is_none() {
                parent = Some(said("spanID"));
            } else {
                links.push((said("traceID"), said("spanID")));
                span.links.push(wire::Link::default());
            }
        }
        // An older form, and that of the stores.
        let parent = parent.unwrap_or_else(|| said("parentSpanID"));
        let trace = match self.trace_id.as_str() {
            "" => said("traceID"),
            of_entry => of_entry.to_owned(),
        };

        let process = said("processID");
        let key = (process, scope.name.clone(), scope.version.clone());
        let resource = match fields.get("process") {
            Some(own) => Some(own),
            None => self.processes.get(&key.0),
        };
        let mut own_origin;
        let origin = if fields.contains_key("process") {
            own_origin = Origin::new(attributes_of(resource).map_err(named)?, scope);
            &mut own_origin
        } else {
            if !self.origins.contains_key(&key) {
                let resource = attributes_of(resource).map_err(named)?;
                self.origins
                    .insert(key.clone(), Origin::new(resource, scope));
            }
            match self.origins.get_mut(&key) {
                Some(origin) => origin,
                None => return Ok(()),
            }
        };
        let ids = Ids {
            trace: &trace,
            span: &said("spanID"),
            parent: &parent,
            links: &links,
        };
        reading.span(origin, ids, span);
        Ok(())
    }
}

fn object(raw: &str) -> Result<Map<String, Value>, String> {
    let read = |text: &str| serde_json::from_str::<Map<String, Value>>(text);
    read(raw)
        // Perhaps only half of an emoji.
        .or_else(|error| match mend_surrogates(raw) {
            Cow::Owned(mended) => read(&mended),
            Cow::Borrowed(_) => Err(error),
        })
        .map_err(|error| super::without_place(&error))
}

/// An id or a name as text, whatever it was written as.
fn id(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

/// A time or a length in microseconds; absent is 0.
fn number(fields: &Map<String, Value>, key: &str) -> Result<f64, String> {
    let number = match fields.get(key) {
        None | Some(Value::Null) => Some(0.0),
        Some(Value::Number(number)) => number.as_f64(),
        Some(Value::String(text)) => text.trim().parse().ok(),
        Some(_) => None,
    };
    number
        .filter(|number| (0.0..9.2e15).contains(number))
        .ok_or_else(|| format!("{key} is no number of microseconds"))
}

/// Microseconds of today have 51 bits, so a double holds them whole; the rest of a nanosecond is not there.
fn nanoseconds(microseconds: f64) -> u64 {
    let whole = microseconds.trunc();
    (whole as u64).saturating_mul(1_000) + ((microseconds - whole) * 1_000.0) as u64
}

fn list<'a>(value: Option<&'a Value>, key: &str) -> Result<&'a [Value], String> {
    match value {
        None | Some(Value::Null) => Ok(&[]),
        Some(Value::Array(items)) => Ok(items),
        Some(_) => Err(format!("{key} is no list")),
    }
}

fn tags(value: Option<&Value>, key: &str) -> Result<Vec<KeyValue>, String> {
    // Some stores write tags as an object.
    if let Some(Value::Object(by_key)) = value {
        return Ok(by_key
            .iter()
            .map(|(key, value)| pair(key, any(value, 1)))
            .collect());
    }
    let tags = list(value, key)?.iter().enumerate();
    tags.map(|(place, tag)| {
        let name = tag.get("key").and_then(Value::as_str);
        let name = name.ok_or_else(|| format!("{key}[{place}] has no key"))?;
        let kind = tag.get("type").and_then(Value::as_str).unwrap_or("");
        let value = tag.get("value").unwrap_or(&Value::Null);
        Ok(pair(name, typed(kind, value)))
    })
    .collect()
}

fn pair(key: &str, value: Option<any_value::Value>) -> KeyValue {
    KeyValue {
        key: key.into(),
        value: value.map(|value| AnyValue { value: Some(value) }),
    }
}

fn typed(kind: &str, value: &Value) -> Option<any_value::Value> {
    let as_text = match value {
        Value::String(text) => Some(text.as_str()),
        _ => None,
    };
    let typed = match (kind, as_text) {
        ("int64", Some(text)) => text.parse().ok().map(any_value::Value::Int),
        ("float64", Some(text)) => text.parse().ok().map(any_value::Value::Double),
        ("float64", None) => value.as_f64().map(any_value::Value::Double),
        ("bool", Some(text)) => text.parse().ok().map(any_value::Value::Bool),
        ("binary", Some(text)) => base64::engine::general_purpose::STANDARD
            .decode(text)
            .ok()
            .map(|bytes| any_value::Value::Bytes(bytes.into())),
        _ => None,
    };
    typed.or_else(|| any(value, 1))
}

fn any(value: &Value, depth: usize) -> Option<any_value::Value> {
    Some(match value {
        Value::Null => return None,
        Value::Bool(truth) => any_value::Value::Bool(*truth),
        Value::Number(number) => match number.as_i64() {
            Some(number) => any_value::Value::Int(number),
            None => any_value::Value::Double(number.as_f64()?),
        },
        Value::String(text) => any_value::Value::String(text.as_str().into()),
        deep if depth >= MAX_DEPTH => any_value::Value::String(deep.to_string().into()),
        Value::Array(items) => any_value::Value::Array(wire::ArrayValue {
            values: items
                .iter()
                .map(|item| AnyValue {
                    value: any(item, depth + 1),
                })
                .collect(),
        }),
        Value::Object(fields) => any_value::Value::Map(wire::KeyValueList {
            values: fields
                .iter()
                .map(|(key, value)| pair(key, any(value, depth + 1)))
                .collect(),
        }),
    })
}

/// The process as a resource.
fn attributes_of(process: Option<&Value>) -> Result<Vec<KeyValue>, String> {
    let Some(process) = process else {
        return Ok(Vec::new());
    };
    let mut attributes = tags(process.get("tags"), "process.tags")?;
    let name = process.get("serviceName").and_then(Value::as_str);
    if let Some(name) = name.filter(|name| !name.is_empty()) {
        attributes.retain(|pair| pair.key != "service.name");
        let name = any_value::Value::String(name.into());
        attributes.insert(0, pair("service.name", Some(name)));
    }
    Ok(attributes)
}

/// What the mapping put into tags, back to its fields.
fn take_own(span: &mut wire::Span) {
    let mut status = wire::Status::default();
    let mut failed = false;
    let (kind, state) = (&mut span.kind, &mut span.trace_state);
    span.attributes.retain_mut(|pair| {
        let value = pair.value.as_mut().and_then(|value| value.value.as_mut());
        match (pair.key.as_str(), value) {
            ("span.kind", Some(any_value::Value::String(text))) => {
                *kind = match text.as_str() {
                    "internal" => 1,
                    "server" => 2,
                    "client" => 3,
                    "producer" => 4,
                    "consumer" => 5,
                    _ => return true,
                };
            }
            ("otel.status_code", Some(any_value::Value::String(text))) => {
                status.code = match text.as_str() {
                    "OK" => 1,
                    "ERROR" => 2,
                    _ => return true,
                };
            }
            ("otel.status_description", Some(any_value::Value::String(text))) => {
                status.message = std::mem::take(text).into();
            }
            ("w3c.tracestate", Some(any_value::Value::String(text))) => {
                *state = std::mem::take(text).into();
            }
            ("error", Some(any_value::Value::Bool(true))) => failed = true,
            ("internal.span.format", _) => {}
            _ => return true,
        }
        false
    });
    if failed && status.code == 0 {
        status.code = 2;
    }
    span.status = (status != wire::Status::default()).then_some(status);
}

/// One of a span's `logs`.
fn event(log: &Value) -> Result<wire::SpanEvent, String> {
    let Value::Object(fields) = log else {
        return Err("one of logs is no object".to_owned());
    };
    let mut attributes = tags(fields.get("fields"), "logs.fields")?;
    let mut name = String::new();
    attributes.retain_mut(|pair| {
        let value = pair.value.as_mut().and_then(|value| value.value.as_mut());
        match (pair.key.as_str(), value) {
            ("event", Some(any_value::Value::String(text))) if name.is_empty() => {
                name = std::mem::take(text).into();
                false
            }
            _ => true,
        }
    });
    Ok(wire::SpanEvent {
        time_unix_nano: nanoseconds(number(fields, "timestamp")?),
        name,
        attributes,
        dropped_attributes_count: 0,
    })
}
