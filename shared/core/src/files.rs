//! Trace files: bytes of a file in, observations out, as they would have come over the network.
//!
//! What a file is, is told by its content: Jaeger JSON, OTLP JSON (one export, also as Tempo and Jaeger wrap it), lines of exports
//! (the Collector's file exporter), of spans, of log records or of native events, mixed as they come. OTLP protobuf has no mark of its own and
//! is read when it is asked for. gzip and zstd around any of these are unpacked, within a limit.
//!
//! Unlike a producer's request a file is taken as a whole or not at all: who scores a run must not score half of it unawares.

mod jaeger;
pub mod send;
#[cfg(test)]
mod tests;
pub mod write;

use std::{borrow::Cow, fmt, str::FromStr};

use serde::{
    Deserializer as _,
    de::{DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::value::RawValue;

use crate::{
    fold::State,
    id::TraceId,
    limits::Limits,
    native,
    observed::{Incoming, Recorded, What},
    otlp::{self, reading::Reading},
};

/// How a file is written, where it is told and not looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `{"data": [{"traceID": .., "spans": [..]}]}`, as Jaeger's API and UI give it.
    JaegerJson,
    /// One export or lines.
    OtlpJson,
    /// One `ExportTraceServiceRequest` or `ExportLogsServiceRequest`.
    OtlpProtobuf,
}

impl Format {
    /// The names that [`Format::from_str`] reads.
    pub const NAMES: [&str; 3] = ["jaeger-json", "otlp-json", "otlp-protobuf"];
}

/// A format's name that is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("format must be jaeger-json, otlp-json or otlp-protobuf")]
pub struct UnknownFormat;

impl FromStr for Format {
    type Err = UnknownFormat;

    fn from_str(name: &str) -> Result<Self, UnknownFormat> {
        match name {
            "jaeger-json" => Ok(Self::JaegerJson),
            "otlp-json" => Ok(Self::OtlpJson),
            "otlp-protobuf" => Ok(Self::OtlpProtobuf),
            _ => Err(UnknownFormat),
        }
    }
}

/// A file that was not taken. One line, for who has the file: which, where in it, what is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileError {
    /// The file, as the caller called it.
    pub name: String,
    /// Line and column, both from 1, where they are known; a column counts bytes.
    pub place: Option<(usize, usize)>,
    /// What is wrong, and with which span.
    pub message: String,
    /// It is none of the formats: another sort of file, not a broken one.
    pub is_other: bool,
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.name)?;
        if let Some((line, column)) = self.place {
            write!(f, "line {line}, column {column}: ")?;
        }
        f.write_str(&self.message)
    }
}

impl std::error::Error for FileError {}

/// One trace of a file.
#[derive(Clone, Debug, PartialEq)]
pub struct FileTrace {
    /// The id under which the trace can be stored: 32 lower-case hex digits where it has spans or log records.
    pub trace_id: TraceId,
    /// The id as the file spells it.
    pub spelled: String,
    /// In the order of the file.
    pub items: Vec<Incoming>,
    /// The file, as the caller called it.
    pub source: String,
}

impl FileTrace {
    /// The trace as a log would hold it that took all of it at its last moment.
    pub fn recorded(&self) -> impl Iterator<Item = Recorded> + '_ {
        let observations = || self.items.iter().map(Incoming::observation);
        let last_ns = observations()
            .map(|observation| match &observation.what {
                What::Span(span) => span.end_time_unix_nano.max(span.start_time_unix_nano),
                What::Log(log) => log.time_unix_nano.max(log.observed_time_unix_nano),
                What::Native(text) => crate::convention::read_native(text, 0)
                    .timestamp_ms
                    .saturating_mul(1_000_000),
            })
            .max()
            .unwrap_or(0);
        (1..)
            .zip(observations())
            .map(move |(seq, observation)| Recorded {
                seq,
                arrived_unix_ms: last_ns / 1_000_000,
                observation,
            })
    }

    /// What the trace tells, taken together.
    pub fn fold(&self) -> State {
        let mut state = State::default();
        for recorded in self.recorded() {
            state.apply(&recorded);
        }
        state
    }
}

/// What one file may hold. A file is its owner's: the bounds only keep a mistake from taking the machine.
pub fn limits() -> Limits {
    Limits {
        body_bytes: 512 << 20,
        items: 2_000_000,
        list: 100_000,
        values: 50_000_000,
        context_bytes: 512 << 20,
        native_events: 2_000_000,
        ..Limits::default()
    }
}

/// Reads a file of the name by which it is called in errors. Traces come in the order of their first item; a file may have none.
///
/// Log records outside of any trace are passed over. Ids may be any texts: those that OpenTelemetry would not know are hashed.
///
/// # Errors
/// Nothing is taken of a file that is cut short, of no known format, larger than [`limits`] unpacked, or of which one span is broken.
pub fn read(name: &str, bytes: &[u8], format: Option<Format>) -> Result<Vec<FileTrace>, FileError> {
    read_within(name, bytes, format, &limits())
}

/// As [`read`], of a stranger's file.
///
/// # Errors
/// As [`read`].
pub fn read_within(
    name: &str,
    bytes: &[u8],
    format: Option<Format>,
    limits: &Limits,
) -> Result<Vec<FileTrace>, FileError> {
    let file = File { name };
    let bytes = file.unpack(bytes, limits)?;
    let mut reading = Reading::new(limits);
    if format == Some(Format::OtlpProtobuf) {
        if !reading.protobuf(&bytes) {
            return Err(file.error("the protobuf is cut short or damaged"));
        }
        return file.finish(reading, "");
    }
    // A broken character costs itself: exporters cut texts by bytes.
    let text = String::from_utf8_lossy(&bytes);
    let text = text.trim_start_matches('\u{feff}');
    if text.trim_start().is_empty() && format != Some(Format::OtlpJson) {
        return Err(file.error("the file is empty"));
    }
    reading.enter_text(text);
    file.documents(text, format, limits, &mut reading)?;
    file.finish(reading, text)
}

/// A file packed more often than this is a trick.
const MAX_PACKED: usize = 3;

struct File<'a> {
    name: &'a str,
}

impl File<'_> {
    fn error(&self, message: impl Into<String>) -> FileError {
        FileError {
            name: self.name.to_owned(),
            place: None,
            message: message.into(),
            is_other: false,
        }
    }

    /// An error at a byte of the text.
    fn error_at(&self, text: &str, at: usize, message: impl Into<String>) -> FileError {
        FileError {
            place: Some(line_and_column(text, at)),
            ..self.error(message)
        }
    }

    /// An error of JSON in a part of the text that begins at a byte.
    fn json_error(&self, text: &str, part_at: usize, error: &serde_json::Error) -> FileError {
        FileError {
            place: Some(within(text, part_at, error.line(), error.column())),
            ..self.error(without_place(error))
        }
    }

    fn unpack<'b>(&self, bytes: &'b [u8], limits: &Limits) -> Result<Cow<'b, [u8]>, FileError> {
        let mut bytes = Cow::Borrowed(bytes);
        for _ in 0..=MAX_PACKED {
            let encoding = match bytes.as_ref() {
                [0x1f, 0x8b, ..] => "gzip",
                [0x28, 0xb5, 0x2f, 0xfd, ..] => "zstd",
                plain if plain.len() > limits.body_bytes => {
                    let limit = limits.body_bytes;
                    return Err(self.error(format!("the file is larger than {limit} bytes")));
                }
                _ => return Ok(bytes),
            };
            let unpacked = otlp::inflate(Some(encoding), &bytes, limits.body_bytes);
            bytes = Cow::Owned(
                unpacked
                    .map_err(|refused| match refused.status {
                        413 => self.error(format!(
                            "the file is larger than {} bytes unpacked",
                            limits.body_bytes
                        )),
                        _ => self.error(format!("the file is not complete {encoding}")),
                    })?
                    .into_owned(),
            );
        }
        Err(self.error("the file is packed too many times over"))
    }

    fn documents(
        &self,
        text: &str,
        format: Option<Format>,
        limits: &Limits,
        reading: &mut Reading,
    ) -> Result<(), FileError> {
        let documents = serde_json::Deserializer::from_str(text).into_iter::<&RawValue>();
        for document in documents {
            let document = document.map_err(|error| match format {
                None if !text.trim_start().starts_with(['{', '[']) => self.unknown(),
                _ => self.json_error(text, 0, &error),
            })?;
            let document = document.get();
            let at = document
                .as_ptr()
                .addr()
                .saturating_sub(text.as_ptr().addr());
            let shape = shape_of(document).map_err(|error| self.json_error(text, at, &error))?;
            match (format, shape) {
                (Some(Format::OtlpJson), Shape::Jaeger | Shape::JaegerTrace) => {
                    return Err(self.error_at(text, at, "this is Jaeger JSON, not OTLP"));
                }
                (_, Shape::Jaeger | Shape::JaegerTrace) => {
                    jaeger::read(self, text, document, shape == Shape::Jaeger, reading)?;
                }
                (Some(Format::JaegerJson), _) => {
                    let message = "not Jaeger JSON: the key \"data\" is missing";
                    return Err(self.error_at(text, at, message));
                }
                (_, Shape::Export) => reading
                    .export(document)
                    .map_err(|error| self.json_error(text, at, &error))?,
                (_, Shape::ExportAndNatives) => {
                    reading
                        .export(document)
                        .map_err(|error| self.json_error(text, at, &error))?;
                    let natives: Natives<'_> = serde_json::from_str(document)
                        .map_err(|error| self.json_error(text, at, &error))?;
                    for entry in natives.entries {
                        self.native(
                            text,
                            entry.event.get(),
                            Some(&entry.trace_id),
                            limits,
                            reading,
                        )?;
                    }
                }
                (_, Shape::Native) => self.native(text, document, None, limits, reading)?,
                (_, Shape::Log) => reading.item(document, true),
                (_, Shape::Span) | (Some(_), Shape::Other) => reading.item(document, false),
                (None, Shape::Other) => return Err(self.unknown()),
                (_, Shape::None) => {
                    return Err(self.error_at(text, at, "this is no JSON object"));
                }
            }
        }
        Ok(())
    }

    fn native(
        &self,
        text: &str,
        document: &str,
        of_trace: Option<&str>,
        limits: &Limits,
        reading: &mut Reading,
    ) -> Result<(), FileError> {
        let at = document
            .as_ptr()
            .addr()
            .saturating_sub(text.as_ptr().addr());
        let error = |message: String| self.error_at(text, at, message);
        let spelled = match of_trace {
            Some(trace) => Cow::Borrowed(trace),
            None => {
                let named: Named<'_> = serde_json::from_str(document)
                    .map_err(|error| self.json_error(text, at, &error))?;
                named.trace_id.unwrap_or_default()
            }
        };
        let trace_id = TraceId::parse(&spelled)
            .map_err(|invalid| error(format!("native event: {invalid}")))?;
        let posted = native::decode(
            &trace_id,
            document.as_bytes(),
            native::Format::Json,
            native::Sender::default(),
            limits,
        )
        .map_err(|refused| error(refused.message))?;
        if let Some(rejected) = posted.rejected.first() {
            return Err(error(format!("native event: {}", rejected.message)));
        }
        for event in posted.events {
            reading.native(trace_id.as_str(), event);
        }
        Ok(())
    }

    fn unknown(&self) -> FileError {
        FileError {
            is_other: true,
            ..self.error(
                "no known trace format: expected Jaeger JSON ({\"data\": [..]}), OTLP JSON ({\"resourceSpans\": [..]}, {\"batches\": [..]}) or lines of exports or spans",
            )
        }
    }

    fn finish(&self, reading: Reading, text: &str) -> Result<Vec<FileTrace>, FileError> {
        let read = reading.finish();
        // A log record outside of any trace is no mistake of the file's.
        let wrong = read
            .decoded
            .rejected
            .iter()
            .find(|rejected| rejected.reason != "no_trace_id");
        if let Some(wrong) = wrong {
            let others = match wrong.count {
                0 | 1 => String::new(),
                count => format!(" (and {} more)", count - 1),
            };
            return Err(match read.fault.filter(|_| wrong.reason == "malformed") {
                Some(fault) => FileError {
                    place: Some(within(text, fault.item_at, fault.line, fault.column)),
                    ..self.error(format!(
                        "{}{}{others}",
                        which(text.get(fault.item_at..).unwrap_or("")),
                        cut_place(&wrong.example)
                    ))
                },
                None => self.error(format!("{}{others}", wrong.example)),
            });
        }
        let traces = read.decoded.traces.into_iter();
        Ok(traces
            .filter(|(_, items)| !items.is_empty())
            .map(|(trace_id, items)| {
                let bytes = otel_bytes(&trace_id);
                let spelled = bytes.and_then(|bytes| read.spelled.get(&bytes)).cloned();
                let spelled = spelled.unwrap_or_else(|| trace_id.as_str().to_owned());
                let only_natives = items
                    .iter()
                    .all(|item| matches!(item.what, crate::observed::Canonical::Native(_)));
                FileTrace {
                    trace_id: match TraceId::parse(&spelled) {
                        Ok(own) if only_natives => own,
                        _ => trace_id,
                    },
                    spelled,
                    items,
                    source: self.name.to_owned(),
                }
            })
            .collect())
    }
}

/// The bytes of an id of OpenTelemetry's.
pub(crate) fn otel_bytes(trace_id: &TraceId) -> Option<[u8; 16]> {
    let number = u128::from_str_radix(trace_id.as_str(), 16).ok()?;
    (trace_id.as_str().len() == 32).then_some(number.to_be_bytes())
}

/// Our own key beside `resourceSpans` and `resourceLogs`: events that OTLP has no words for.
pub(crate) const NATIVE_EVENTS: &str = "nativeEvents";

#[derive(serde::Deserialize)]
struct Natives<'a> {
    #[serde(borrow, rename = "nativeEvents")]
    entries: Vec<NativeEntry<'a>>,
}

/// A native event as it was posted, and the trace that it was posted to.
#[derive(serde::Deserialize)]
struct NativeEntry<'a> {
    #[serde(borrow)]
    trace_id: Cow<'a, str>,
    #[serde(borrow)]
    event: &'a RawValue,
}

/// Of a native event, whose it is.
#[derive(serde::Deserialize)]
struct Named<'a> {
    #[serde(borrow, default)]
    trace_id: Option<Cow<'a, str>>,
}

/// What one JSON document of a file is, by its keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    Export,
    ExportAndNatives,
    Jaeger,
    /// One entry of Jaeger's `data`.
    JaegerTrace,
    Span,
    Log,
    Native,
    /// An object of none of these.
    Other,
    /// No object.
    None,
}

fn shape_of(document: &str) -> Result<Shape, serde_json::Error> {
    let mut keys = Keys::default();
    if !document.starts_with('{') {
        return Ok(Shape::None);
    }
    serde_json::Deserializer::from_str(document).deserialize_map(&mut keys)?;
    Ok(match keys {
        Keys { natives: true, .. } => Shape::ExportAndNatives,
        Keys { export: true, .. } => Shape::Export,
        Keys { data: true, .. } => Shape::Jaeger,
        Keys { spans: true, .. } => Shape::JaegerTrace,
        Keys { native: true, .. } => Shape::Native,
        Keys { span: true, .. } => Shape::Span,
        Keys { log: true, .. } => Shape::Log,
        _ => Shape::Other,
    })
}

/// The keys that tell something of what an object is.
#[derive(Default)]
struct Keys {
    export: bool,
    natives: bool,
    data: bool,
    spans: bool,
    native: bool,
    span: bool,
    log: bool,
}

impl<'de> Visitor<'de> for &mut Keys {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<Cow<'_, str>>()? {
            match key.as_ref() {
                "resourceSpans" | "resource_spans" | "resourceLogs" | "resource_logs"
                | "batches" => self.export = true,
                NATIVE_EVENTS => self.natives = true,
                "trace" | "result" => {
                    self.export |= map.next_value_seed(HoldsExport)?;
                    continue;
                }
                "data" => self.data = true,
                "spans" => self.spans = true,
                "event_type" => self.native = true,
                "spanId"
                | "span_id"
                | "startTimeUnixNano"
                | "start_time_unix_nano"
                | "parentSpanId" => self.span = true,
                "timeUnixNano"
                | "observedTimeUnixNano"
                | "body"
                | "severityNumber"
                | "severityText" => self.log = true,
                _ => {}
            }
            map.next_value::<IgnoredAny>()?;
        }
        // A record of a span names it, and has none of a span's times.
        self.span &= !self.log;
        Ok(())
    }
}

/// Is the value an object that is an export?
struct HoldsExport;

impl<'de> DeserializeSeed<'de> for HoldsExport {
    type Value = bool;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for HoldsExport {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("anything")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<bool, A::Error> {
        let mut holds = false;
        while let Some((key, _)) = map.next_entry::<Cow<'_, str>, IgnoredAny>()? {
            holds |= matches!(key.as_ref(), "resourceSpans" | "resource_spans" | "batches");
        }
        Ok(holds)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<bool, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(false)
    }

    fn visit_unit<E>(self) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_bool<E>(self, _: bool) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_i64<E>(self, _: i64) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_u64<E>(self, _: u64) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_f64<E>(self, _: f64) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_str<E>(self, _: &str) -> Result<bool, E> {
        Ok(false)
    }
}

/// Which span it is that begins here, as far as it says: `span "chat" (00f067aa0ba902b7): `.
fn which(item: &str) -> String {
    #[derive(serde::Deserialize)]
    struct Named {
        #[serde(default)]
        name: Option<serde_json::Value>,
        #[serde(default, rename = "spanId")]
        span_id: Option<serde_json::Value>,
    }
    let mut items = serde_json::Deserializer::from_str(item).into_iter::<Named>();
    let Some(Ok(named)) = items.next() else {
        return String::new();
    };
    let short = |value: Option<serde_json::Value>| -> Option<String> {
        Some(value?.as_str()?.chars().take(60).collect())
    };
    match (short(named.name), short(named.span_id)) {
        (Some(name), Some(id)) => format!("span \"{name}\" ({id}): "),
        (Some(name), None) => format!("span \"{name}\": "),
        (None, Some(id)) => format!("span {id}: "),
        (None, None) => String::new(),
    }
}

/// Line and column, from 1, of a byte.
fn line_and_column(text: &str, at: usize) -> (usize, usize) {
    let before = text.as_bytes().get(..at).unwrap_or(text.as_bytes());
    let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
    let begin = before
        .iter()
        .rposition(|byte| *byte == b'\n')
        .map_or(0, |newline| newline + 1);
    (line, before.len() - begin + 1)
}

/// Line and column of what stands at a line and column of a part.
fn within(text: &str, part_at: usize, line: usize, column: usize) -> (usize, usize) {
    let (first_line, first_column) = line_and_column(text, part_at);
    match line {
        0 | 1 => (first_line, (first_column + column).saturating_sub(1).max(1)),
        _ => (first_line + line - 1, column.max(1)),
    }
}

/// What serde_json says, without a place that would be the wrong one.
fn without_place(error: &serde_json::Error) -> String {
    cut_place(&error.to_string()).to_owned()
}

fn cut_place(said: &str) -> &str {
    said.rsplit_once(" at line ")
        .map_or(said, |(message, _)| message)
}
