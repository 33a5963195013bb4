//! A stored trace as a file: what [`super::read`] reads, and other tools too.
//!
//! Written while it is read, whatever its size: a form that groups what the log holds mixed goes over the events several times.

use std::{collections::HashMap, fmt::Write as _, str::FromStr, sync::Arc};

use base64::Engine as _;
use serde_json::{Map, Value, json};
use xxhash_rust::xxh3::xxh3_64;

use super::NATIVE_EVENTS;
use crate::{
    id::{TraceId, hex},
    lower,
    observed::{Canonical, Context, Incoming, Observation, Recorded, What},
    verbosity::Verbosity,
    wire::{self, AnyValue, KeyValue, any_value},
};

/// How an exported trace is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// One document: `resourceSpans`, `resourceLogs` and, where there are native events, `nativeEvents`. Nothing is lost.
    Otlp,
    /// What Jaeger's page loads: the last word on each span. It has no place for log records and native events.
    Jaeger,
    /// Exports of few items, a line each, in the order of the log. Nothing is lost.
    Jsonl,
}

impl Form {
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Otlp | Self::Jaeger => "application/json",
            Self::Jsonl => "application/x-ndjson",
        }
    }
}

/// A form's name that is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("format must be otlp, jaeger or jsonl")]
pub struct UnknownForm;

impl FromStr for Form {
    type Err = UnknownForm;

    fn from_str(name: &str) -> Result<Self, UnknownForm> {
        match name {
            "otlp" => Ok(Self::Otlp),
            "jaeger" => Ok(Self::Jaeger),
            "jsonl" => Ok(Self::Jsonl),
            _ => Err(UnknownForm),
        }
    }
}

/// The events as they would have been recorded at a level.
pub fn lowered(events: Vec<Recorded>, level: Verbosity) -> Vec<Recorded> {
    if level == Verbosity::Debug {
        return events;
    }
    let whole: Vec<Incoming> = events
        .iter()
        .map(|recorded| Incoming {
            context: Arc::clone(&recorded.observation.context),
            what: Canonical::from(&recorded.observation.what),
            identity: None,
            may_end_run: false,
            trace_level: level,
        })
        .collect();
    let lowered = lower::lower(&whole.iter().collect::<Vec<_>>(), level);
    events
        .into_iter()
        .zip(lowered)
        .map(|(recorded, incoming)| Recorded {
            observation: incoming.observation(),
            ..recorded
        })
        .collect()
}

/// Items of one line of [`Form::Jsonl`].
const ITEMS_PER_LINE: usize = 64;
/// Gaps that are told one by one.
const MAX_GAPS: usize = 1_000;

/// Writes one trace. Push all its events in their order, then [`Writer::end_pass`], and both again for as long as it says so.
#[derive(Debug)]
pub struct Writer {
    form: Form,
    trace_id: String,
    pass: usize,
    /// The group of items that is open in the text: its sort, whose they are and how many.
    open: Option<(Sort, Arc<Context>, usize)>,
    /// Something stands in the list that is being written.
    has_any: bool,
    has_logs: bool,
    has_natives: bool,
    gaps: Vec<(u64, u64)>,
    /// Of Jaeger: number of each resource's process by its hash, and the event that counts of each span.
    processes: HashMap<u64, usize>,
    latest: HashMap<Vec<u8>, (bool, u64, u64)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sort {
    Spans,
    Logs,
    Natives,
}

impl Sort {
    /// The keys of its resources, scopes and items.
    fn keys(self) -> [&'static str; 3] {
        match self {
            Self::Spans => ["resourceSpans", "scopeSpans", "spans"],
            Self::Logs => ["resourceLogs", "scopeLogs", "logRecords"],
            Self::Natives => [NATIVE_EVENTS, "", ""],
        }
    }
}

impl Writer {
    pub fn new(form: Form, trace: &TraceId) -> Self {
        Self {
            form,
            trace_id: trace.as_str().to_owned(),
            pass: 0,
            open: None,
            has_any: false,
            has_logs: false,
            has_natives: false,
            gaps: Vec::new(),
            processes: HashMap::new(),
            latest: HashMap::new(),
        }
    }

    /// Events that cannot be read, by their numbers.
    pub fn miss(&mut self, from: u64, to: u64) {
        if self.pass == 0 && self.gaps.len() < MAX_GAPS {
            self.gaps.push((from, to));
        }
    }

    /// The next event.
    pub fn push(&mut self, recorded: &Recorded, out: &mut String) {
        match (self.form, self.pass) {
            (Form::Jaeger, 0) => self.look(recorded, out),
            (Form::Jaeger, _) => self.jaeger_span(recorded, out),
            (Form::Otlp, _) => self.grouped(recorded, out),
            (Form::Jsonl, _) => self.line(recorded, out),
        }
    }

    /// All events were pushed. `true`: push them again.
    pub fn end_pass(&mut self, out: &mut String) -> bool {
        let pass = self.pass;
        self.pass += 1;
        match self.form {
            Form::Jsonl => {
                self.close_line(out);
                if !self.gaps.is_empty() {
                    let _ = writeln!(out, "{}", json!({NATIVE_EVENTS: [], "gaps": self.gaps()}));
                }
                false
            }
            Form::Jaeger if pass == 0 => {
                if self.processes.is_empty() {
                    self.jaeger_head(out);
                }
                out.push_str("},\"spans\":[");
                self.has_any = false;
                true
            }
            Form::Jaeger => {
                let mut warnings: Vec<Value> = Vec::new();
                if self.has_logs || self.has_natives {
                    warnings.push("log records and events that are no spans are left out".into());
                }
                warnings.extend(self.gaps.iter().map(|(from, to)| {
                    Value::from(format!("events {from} to {to} cannot be read"))
                }));
                let warnings = if warnings.is_empty() {
                    Value::Null
                } else {
                    Value::Array(warnings)
                };
                let _ = writeln!(out, "],\"warnings\":{warnings}}}]}}");
                false
            }
            Form::Otlp => self.end_list(pass, out),
        }
    }

    fn gaps(&self) -> Value {
        self.gaps
            .iter()
            .map(|(from, to)| json!({"from": from, "to": to}))
            .collect()
    }

    // One document: a list for each sort.

    fn grouped(&mut self, recorded: &Recorded, out: &mut String) {
        let Observation { context, what } = &recorded.observation;
        let sort = sort(what);
        self.has_logs |= sort == Sort::Logs;
        self.has_natives |= sort == Sort::Natives;
        if sort != self.sort_of_pass() {
            return;
        }
        if !self.has_any {
            self.begin_list(sort, out);
        }
        if sort == Sort::Natives {
            if self.has_any {
                out.push(',');
            }
            self.native(what, out);
        } else {
            let is_same = self
                .open
                .as_ref()
                .is_some_and(|(_, open, _)| Arc::ptr_eq(open, context) || open == context);
            if is_same {
                out.push(',');
            } else {
                self.close_group(out);
                if self.has_any {
                    out.push(',');
                }
                open_group(sort, context, out);
                self.open = Some((sort, Arc::clone(context), 0));
            }
            self.item(what, out);
        }
        self.has_any = true;
    }

    fn sort_of_pass(&self) -> Sort {
        match self.pass {
            0 => Sort::Spans,
            1 if self.has_logs => Sort::Logs,
            _ => Sort::Natives,
        }
    }

    fn begin_list(&self, sort: Sort, out: &mut String) {
        let [list, ..] = sort.keys();
        let begin = if self.pass == 0 { '{' } else { ',' };
        let _ = write!(out, "{begin}\"{list}\":[");
    }

    fn end_list(&mut self, pass: usize, out: &mut String) -> bool {
        self.close_group(out);
        if pass == 0 && !self.has_any {
            out.push_str("{\"resourceSpans\":[");
        }
        out.push(']');
        self.has_any = false;
        let passes = 1 + usize::from(self.has_logs) + usize::from(self.has_natives);
        if self.pass < passes {
            return true;
        }
        if !self.gaps.is_empty() {
            let _ = write!(out, ",\"gaps\":{}", self.gaps());
        }
        out.push_str("}\n");
        false
    }

    fn close_group(&mut self, out: &mut String) {
        if self.open.take().is_some() {
            out.push_str("]}]}");
        }
    }

    // Lines.

    fn line(&mut self, recorded: &Recorded, out: &mut String) {
        let Observation { context, what } = &recorded.observation;
        let sort = sort(what);
        let is_open = self.open.as_ref().is_some_and(|(open, of, items)| {
            *open == sort
                && *items < ITEMS_PER_LINE
                && (sort == Sort::Natives || Arc::ptr_eq(of, context) || of == context)
        });
        if is_open {
            out.push(',');
        } else {
            self.close_line(out);
            let [list, ..] = sort.keys();
            let _ = write!(out, "{{\"{list}\":[");
            if sort != Sort::Natives {
                open_group(sort, context, out);
            }
            self.open = Some((sort, Arc::clone(context), 0));
        }
        if let Some((_, _, items)) = &mut self.open {
            *items += 1;
        }
        if sort == Sort::Natives {
            let begin = out.len();
            self.native(what, out);
            // Between the fields of an event as it was posted, never within a text.
            if out[begin..].contains(['\n', '\r']) {
                let one_line = out[begin..].replace(['\n', '\r'], " ");
                out.truncate(begin);
                out.push_str(&one_line);
            }
        } else {
            self.item(what, out);
        }
    }

    fn close_line(&mut self, out: &mut String) {
        match self.open.take() {
            Some((Sort::Natives, ..)) => out.push_str("]}\n"),
            Some(_) => out.push_str("]}]}]}\n"),
            None => {}
        }
    }

    fn native(&self, what: &What, out: &mut String) {
        if let What::Native(text) = what {
            let _ = write!(
                out,
                "{{\"trace_id\":{},\"event\":{text}}}",
                json!(self.trace_id)
            );
        }
    }

    fn item(&self, what: &What, out: &mut String) {
        let item = match what {
            What::Span(span) => span_json(span, &self.trace_id),
            What::Log(log) => log_json(log, &self.trace_id),
            What::Native(_) => return,
        };
        let _ = write!(out, "{item}");
    }

    // Jaeger.

    /// Writes the processes, and finds what counts of each span.
    fn look(&mut self, recorded: &Recorded, out: &mut String) {
        let Observation { context, what } = &recorded.observation;
        let What::Span(span) = what else {
            self.has_natives |= sort(what) == Sort::Natives;
            self.has_logs |= sort(what) == Sort::Logs;
            return;
        };
        let rank = rank(span, recorded.seq);
        let latest = self.latest.entry(span.span_id.to_vec()).or_insert(rank);
        *latest = rank.max(*latest);
        let number = self.processes.len() + 1;
        if !self.processes.contains_key(&resource_hash(context)) {
            if number == 1 {
                self.jaeger_head(out);
            } else {
                out.push(',');
            }
            self.processes.insert(resource_hash(context), number);
            let _ = write!(out, "\"p{number}\":{}", process(context));
        }
    }

    fn jaeger_head(&self, out: &mut String) {
        let id = json!(self.trace_id);
        let _ = write!(out, "{{\"data\":[{{\"traceID\":{id},\"processes\":{{");
    }

    fn jaeger_span(&mut self, recorded: &Recorded, out: &mut String) {
        let Observation { context, what } = &recorded.observation;
        let What::Span(span) = what else { return };
        if self.latest.get(span.span_id.as_ref()) != Some(&rank(span, recorded.seq)) {
            return;
        }
        let Some(process) = self.processes.get(&resource_hash(context)) else {
            return;
        };
        if self.has_any {
            out.push(',');
        }
        self.has_any = true;
        let _ = write!(
            out,
            "{}",
            jaeger_span(span, &context.scope, &self.trace_id, *process)
        );
    }
}

fn sort(what: &What) -> Sort {
    match what {
        What::Span(_) => Sort::Spans,
        What::Log(_) => Sort::Logs,
        What::Native(_) => Sort::Natives,
    }
}

/// As [`crate::fold`] takes one of several observations of a span.
fn rank(span: &wire::Span, seq: u64) -> (bool, u64, u64) {
    let end = span.end_time_unix_nano;
    (end != 0, end, seq)
}

fn open_group(sort: Sort, context: &Context, out: &mut String) {
    let [_, scopes, items] = sort.keys();
    let resource = json!({"attributes": pairs(&context.resource)});
    let mut scope = Map::new();
    put_text(&mut scope, "name", &context.scope.name);
    put_text(&mut scope, "version", &context.scope.version);
    put_pairs(&mut scope, "attributes", &context.scope.attributes);
    let scope = Value::Object(scope);
    let url = json!(context.schema_url);
    let _ = write!(
        out,
        "{{\"resource\":{resource},\"{scopes}\":[{{\"scope\":{scope},\"schemaUrl\":{url},\"{items}\":["
    );
}

// OTLP's JSON: lower camel case, 64 bits as text, ids in hex, nothing that says nothing.

fn put_text(fields: &mut Map<String, Value>, key: &str, text: &str) {
    if !text.is_empty() {
        fields.insert(key.to_owned(), Value::from(text));
    }
}

fn put_id(fields: &mut Map<String, Value>, key: &str, id: &[u8]) {
    if !id.is_empty() {
        fields.insert(key.to_owned(), Value::from(hex(id)));
    }
}

fn put_time(fields: &mut Map<String, Value>, key: &str, time: u64) {
    if time != 0 {
        fields.insert(key.to_owned(), Value::from(time.to_string()));
    }
}

fn put_number(fields: &mut Map<String, Value>, key: &str, number: impl Into<i64>) {
    let number = number.into();
    if number != 0 {
        fields.insert(key.to_owned(), Value::from(number));
    }
}

fn put_pairs(fields: &mut Map<String, Value>, key: &str, list: &[KeyValue]) {
    if !list.is_empty() {
        fields.insert(key.to_owned(), pairs(list));
    }
}

fn pairs(list: &[KeyValue]) -> Value {
    list.iter()
        .map(|pair| match &pair.value {
            Some(value) => json!({"key": pair.key, "value": any(value)}),
            None => json!({"key": pair.key}),
        })
        .collect()
}

/// Values nest no deeper than they were let in.
fn any(value: &AnyValue) -> Value {
    match &value.value {
        None => json!({}),
        Some(any_value::Value::String(text)) => json!({"stringValue": text}),
        Some(any_value::Value::Bool(truth)) => json!({"boolValue": truth}),
        Some(any_value::Value::Int(number)) => json!({"intValue": number.to_string()}),
        Some(any_value::Value::Double(number)) => json!({"doubleValue": double(*number)}),
        Some(any_value::Value::Bytes(bytes)) => json!({"bytesValue": base64(bytes)}),
        Some(any_value::Value::Array(array)) => {
            let values: Value = array.values.iter().map(any).collect();
            json!({"arrayValue": {"values": values}})
        }
        Some(any_value::Value::Map(map)) => {
            json!({"kvlistValue": {"values": pairs(&map.values)}})
        }
    }
}

/// What JSON has no numbers for is text, as protobuf's mapping says.
fn double(number: f64) -> Value {
    if number.is_nan() {
        Value::from("NaN")
    } else if number.is_infinite() {
        Value::from(if number > 0.0 {
            "Infinity"
        } else {
            "-Infinity"
        })
    } else {
        Value::from(number)
    }
}

fn base64(bytes: &[u8]) -> String {
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

fn span_json(span: &wire::Span, trace_id: &str) -> Value {
    let mut fields = Map::new();
    put_text(&mut fields, "traceId", trace_id);
    put_id(&mut fields, "spanId", &span.span_id);
    put_text(&mut fields, "traceState", &span.trace_state);
    put_id(&mut fields, "parentSpanId", &span.parent_span_id);
    put_text(&mut fields, "name", &span.name);
    put_number(&mut fields, "kind", span.kind);
    put_time(&mut fields, "startTimeUnixNano", span.start_time_unix_nano);
    put_time(&mut fields, "endTimeUnixNano", span.end_time_unix_nano);
    put_pairs(&mut fields, "attributes", &span.attributes);
    put_number(
        &mut fields,
        "droppedAttributesCount",
        span.dropped_attributes_count,
    );
    if !span.events.is_empty() {
        let events = span.events.iter().map(|event| {
            let mut fields = Map::new();
            put_time(&mut fields, "timeUnixNano", event.time_unix_nano);
            put_text(&mut fields, "name", &event.name);
            put_pairs(&mut fields, "attributes", &event.attributes);
            put_number(
                &mut fields,
                "droppedAttributesCount",
                event.dropped_attributes_count,
            );
            Value::Object(fields)
        });
        fields.insert("events".to_owned(), events.collect());
    }
    put_number(&mut fields, "droppedEventsCount", span.dropped_events_count);
    if !span.links.is_empty() {
        let links = span.links.iter().map(|link| {
            let mut fields = Map::new();
            put_id(&mut fields, "traceId", &link.trace_id);
            put_id(&mut fields, "spanId", &link.span_id);
            put_text(&mut fields, "traceState", &link.trace_state);
            put_pairs(&mut fields, "attributes", &link.attributes);
            put_number(
                &mut fields,
                "droppedAttributesCount",
                link.dropped_attributes_count,
            );
            put_number(&mut fields, "flags", link.flags);
            Value::Object(fields)
        });
        fields.insert("links".to_owned(), links.collect());
    }
    put_number(&mut fields, "droppedLinksCount", span.dropped_links_count);
    if let Some(status) = &span.status {
        let mut of = Map::new();
        put_text(&mut of, "message", &status.message);
        put_number(&mut of, "code", status.code);
        fields.insert("status".to_owned(), Value::Object(of));
    }
    put_number(&mut fields, "flags", span.flags);
    Value::Object(fields)
}

fn log_json(log: &wire::LogRecord, trace_id: &str) -> Value {
    let mut fields = Map::new();
    put_time(&mut fields, "timeUnixNano", log.time_unix_nano);
    put_time(
        &mut fields,
        "observedTimeUnixNano",
        log.observed_time_unix_nano,
    );
    put_number(&mut fields, "severityNumber", log.severity_number);
    put_text(&mut fields, "severityText", &log.severity_text);
    put_text(&mut fields, "eventName", &log.event_name);
    if let Some(body) = &log.body {
        fields.insert("body".to_owned(), any(body));
    }
    put_pairs(&mut fields, "attributes", &log.attributes);
    put_number(
        &mut fields,
        "droppedAttributesCount",
        log.dropped_attributes_count,
    );
    put_number(&mut fields, "flags", log.flags);
    put_text(&mut fields, "traceId", trace_id);
    put_id(&mut fields, "spanId", &log.span_id);
    Value::Object(fields)
}

// Jaeger's JSON: typed tags, microseconds.

fn resource_hash(context: &Context) -> u64 {
    let resource = wire::Resource {
        attributes: context.resource.clone(),
    };
    xxh3_64(&prost::Message::encode_to_vec(&resource))
}

fn process(context: &Context) -> Value {
    let (mut name, mut tags) = (Value::from("unknown"), Vec::new());
    for pair in &context.resource {
        match (
            pair.key.as_str(),
            pair.value.as_ref().and_then(|value| value.value.as_ref()),
        ) {
            ("service.name", Some(any_value::Value::String(text))) => name = json!(text),
            _ => tags.push(tag_of(pair)),
        }
    }
    json!({"serviceName": name, "tags": tags})
}

fn tag(key: &str, kind: &str, value: impl Into<Value>) -> Value {
    json!({"key": key, "type": kind, "value": value.into()})
}

fn tag_of(pair: &KeyValue) -> Value {
    // A JavaScript number counts so far.
    const WHOLE: u64 = 1 << 53;
    let key = &pair.key;
    match pair.value.as_ref().and_then(|value| value.value.as_ref()) {
        None => tag(key, "string", ""),
        Some(any_value::Value::String(text)) => tag(key, "string", text.as_str()),
        Some(any_value::Value::Bool(truth)) => tag(key, "bool", *truth),
        Some(any_value::Value::Int(number)) if number.unsigned_abs() > WHOLE => {
            tag(key, "int64", number.to_string())
        }
        Some(any_value::Value::Int(number)) => tag(key, "int64", *number),
        Some(any_value::Value::Double(number)) => tag(key, "float64", double(*number)),
        Some(any_value::Value::Bytes(bytes)) => tag(key, "binary", base64(bytes)),
        Some(any_value::Value::Array(_) | any_value::Value::Map(_)) => {
            let value = pair.value.as_ref().map(crate::attributes::to_json);
            tag(key, "string", value.unwrap_or_default().to_string())
        }
    }
}

fn jaeger_span(span: &wire::Span, scope: &wire::Scope, trace_id: &str, process: usize) -> Value {
    let mut tags: Vec<Value> = span.attributes.iter().map(tag_of).collect();
    let mut own = |key: &str, text: &str| {
        if !text.is_empty() {
            tags.push(tag(key, "string", text));
        }
    };
    own("otel.scope.name", &scope.name);
    own("otel.scope.version", &scope.version);
    own(
        "span.kind",
        match span.kind {
            1 => "internal",
            2 => "server",
            3 => "client",
            4 => "producer",
            5 => "consumer",
            _ => "",
        },
    );
    own("w3c.tracestate", &span.trace_state);
    if let Some(status) = &span.status {
        own(
            "otel.status_code",
            match status.code {
                1 => "OK",
                2 => "ERROR",
                _ => "",
            },
        );
        own("otel.status_description", &status.message);
        if status.code == 2 {
            tags.push(tag("error", "bool", true));
        }
    }
    let mut references = Vec::new();
    if !span.parent_span_id.is_empty() {
        references.push(json!({"refType": "CHILD_OF", "traceID": trace_id, "spanID": hex(&span.parent_span_id)}));
    }
    references.extend(span.links.iter().map(|link| {
        json!({"refType": "FOLLOWS_FROM", "traceID": hex(&link.trace_id), "spanID": hex(&link.span_id)})
    }));
    let logs: Vec<Value> = span
        .events
        .iter()
        .map(|event| {
            let mut fields = vec![tag("event", "string", event.name.as_str())];
            fields.extend(event.attributes.iter().map(tag_of));
            json!({"timestamp": event.time_unix_nano / 1_000, "fields": fields})
        })
        .collect();
    let (start, end) = (span.start_time_unix_nano, span.end_time_unix_nano);
    let warnings = (end == 0).then(|| json!(["the span has not ended"]));
    json!({
        "traceID": trace_id,
        "spanID": hex(&span.span_id),
        "operationName": span.name,
        "references": references,
        "startTime": start / 1_000,
        "duration": (end / 1_000).saturating_sub(start / 1_000),
        "tags": tags,
        "logs": logs,
        "processID": format!("p{process}"),
        "warnings": warnings,
    })
}
