//! Spans and log records in the form that the dialect's frames have: read into what the log keeps, and written back as they came.
//!
//! Nearly all spans come from one client and have one form, of which nothing is lost. What has another form is read as far as it can be understood, and kept beside that word for word.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use prost::{Message as _, encoding::encoded_len_varint};
use serde::de::{SeqAccess, Visitor};
use serde::ser::{SerializeMap as _, SerializeSeq as _};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};
use xxhash_rust::xxh3::xxh3_64;

use super::json::{push_json, push_number, push_text};
use crate::attributes::to_json;
use crate::id::{TraceId, hex, push_hex};
use crate::observed::{Canonical, Context, EncodedSpan, Incoming, Observation, What};
use crate::otlp;
use crate::protobuf::{self, field_len};
use crate::verbosity::Verbosity;
use crate::wire::{self, any_value::Value as Any};

/// The resource attribute of what came by a frame: the trace id that its producer gave it.
pub const TRACE_ID: &str = "tailspan.frame.trace_id";
/// The attribute with a span or log record word for word, where it has no usual form.
pub const VERBATIM: &str = "tailspan.frame";

const SCOPE_NAME: &str = "otel.scope.name";
const SCOPE_VERSION: &str = "otel.scope.version";
/// Contexts that are remembered, so that spans of one scope share theirs.
const CONTEXTS: usize = 16;
/// Attributes of one span that are read; a frame's bytes bound what is kept of it.
const MOST_ATTRIBUTES: usize = 4096;
/// Most have fewer.
const USUAL_ATTRIBUTES: usize = 16;
/// How deep a value is taken apart; deeper parts stay JSON text.
const DEEPEST: usize = 16;

/// Reads spans and log records of one connection.
pub struct Reader {
    room: Room,
    nonce: u64,
    /// Spans without an id so far.
    unnamed: u64,
    contexts: Vec<(ContextKey, Arc<Context>)>,
}

/// Trace id, scope's name, scope's version.
type ContextKey = [String; 3];

/// The form of the dialect's own client.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Usual<'a> {
    #[serde(borrow)]
    trace_id: Cow<'a, str>,
    #[serde(borrow)]
    span_id: Cow<'a, str>,
    // Named, so that it must be there: an absent one is another form.
    #[serde(borrow, deserialize_with = "present")]
    parent_span_id: Option<Cow<'a, str>>,
    #[serde(borrow)]
    name: Cow<'a, str>,
    kind: u8,
    #[serde(borrow)]
    start_time_unix_nano: Cow<'a, str>,
    #[serde(borrow)]
    end_time_unix_nano: Cow<'a, str>,
    #[serde(deserialize_with = "pairs")]
    attributes: Vec<wire::KeyValue>,
    status: UsualStatus,
}

fn present<'de: 'a, 'a, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Cow<'a, str>>, D::Error> {
    Ok(Option::<BorrowedText<'a>>::deserialize(deserializer)?.map(|text| text.0))
}

/// A list that has room for the usual number from the start. Its values are those of [`UsualValue`], though their type knows more.
fn pairs<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<wire::KeyValue>, D::Error> {
    struct Pairs;
    impl<'de> Visitor<'de> for Pairs {
        type Value = Vec<wire::KeyValue>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list of attributes")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
            let mut pairs = Vec::with_capacity(USUAL_ATTRIBUTES);
            while let Some(pair) = seq.next_element::<UsualPair<'_>>()? {
                let value = match pair.value {
                    UsualValue::String(text) => Any::String(text.into()),
                    UsualValue::Int(number) => Any::Int(number),
                    UsualValue::Bool(yes) => Any::Bool(yes),
                    UsualValue::Double(number) => Any::Double(number),
                };
                pairs.push(wire::KeyValue {
                    key: pair.key.into(),
                    value: Some(wire::AnyValue { value: Some(value) }),
                });
            }
            Ok(pairs)
        }
    }
    deserializer.deserialize_seq(Pairs)
}

#[derive(Deserialize)]
struct BorrowedText<'a>(#[serde(borrow)] Cow<'a, str>);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct UsualPair<'a> {
    #[serde(borrow)]
    key: Cow<'a, str>,
    #[serde(borrow)]
    value: UsualValue<'a>,
}

#[derive(Deserialize)]
enum UsualValue<'a> {
    #[serde(rename = "stringValue", borrow)]
    String(Cow<'a, str>),
    #[serde(rename = "intValue")]
    Int(i64),
    #[serde(rename = "boolValue")]
    Bool(bool),
    #[serde(rename = "doubleValue")]
    Double(f64),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct UsualStatus {
    code: u8,
}

impl Reader {
    /// `nonce` goes into the ids of spans that have none.
    pub fn new(nonce: u64) -> Self {
        Self {
            room: Room::default(),
            nonce,
            unnamed: 0,
            contexts: Vec::new(),
        }
    }

    /// A span of a session, as JSON.
    ///
    /// # Errors
    /// It is no object, or its attributes are no list.
    pub fn span(&mut self, session: &str, json: &str) -> Result<Incoming, String> {
        // A list would pass for an object whose fields have no names.
        if json.starts_with('{')
            && let Ok(usual) = serde_json::from_str(json)
            && let Some(incoming) = self.usual(usual, Some(json))
        {
            return Ok(incoming);
        }
        self.unusual(session, json)
    }

    /// A span in the form of the dialect's own client, and its text if that is at hand. `None`: it only looked like one.
    pub(super) fn usual(&mut self, usual: Usual<'_>, json: Option<&str>) -> Option<Incoming> {
        let plain_id = |text: &str, length: usize| {
            let is_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
            text.len() == length && text.bytes().all(is_hex)
        };
        if !plain_id(&usual.trace_id, 32)
            || usual.kind > 4
            || usual.status.code > 2
            || usual.attributes.len() > MOST_ATTRIBUTES
        {
            return None;
        }
        let id = |text: &str| {
            let plain = plain_id(text, 16).then_some(text)?;
            let id = u64::from_str_radix(plain, 16).ok()?;
            (id != 0).then(|| id.to_be_bytes())
        };
        let span_id = id(&usual.span_id)?;
        let scope = [SCOPE_NAME, SCOPE_VERSION].map(|key| {
            // The last one counts.
            let mut pairs = usual.attributes.iter().rev();
            pairs.find_map(|pair| match usual_value(pair) {
                Some(Any::String(text)) if pair.key == key => Some(text.as_str()),
                _ => None,
            })
        });
        let context = self.context(&usual.trace_id, scope.map(Option::unwrap_or_default));
        let parent = match &usual.parent_span_id {
            Some(parent) => Some(id(parent)?),
            None => None,
        };
        let times = [
            plain_time(&usual.start_time_unix_nano)?,
            plain_time(&usual.end_time_unix_nano)?,
        ];
        let json = json.filter(|json| is_one_line(json)).unwrap_or_default();
        canonical(&usual, span_id, parent, times, &mut self.room.written);
        let identity = otlp::span_identity(&span_id, &self.room.written);
        let (written, sent) = self.room.keep(json);
        let span = wire::Span {
            attributes: usual.attributes,
            span_id: written.slice(SPAN_ID_AT),
            parent_span_id: parent.map_or_else(Bytes::new, |_| written.slice(PARENT_AT)),
            name: usual.name.into_owned(),
            kind: i32::from(usual.kind) + 1,
            start_time_unix_nano: times[0],
            end_time_unix_nano: times[1],
            status: status(usual.status.code),
            ..wire::Span::default()
        };
        let mut span = EncodedSpan::written(written, span);
        if !sent.is_empty() {
            span = span.sent_as(sent);
        }
        Some(Incoming {
            context,
            identity: Some(identity),
            what: Canonical::Span(span),
            may_end_run: false,
            trace_level: Verbosity::Debug,
        })
    }

    fn unusual(&mut self, session: &str, json: &str) -> Result<Incoming, String> {
        let Ok(object) = serde_json::from_str::<Map<String, Value>>(json) else {
            return Err("span must be an object".to_owned());
        };
        match object.get("attributes") {
            None | Some(Value::Null | Value::Array(_)) => {}
            Some(_) => return Err("attributes of a span must be a list".to_owned()),
        }
        let pairs = object.get("attributes").and_then(Value::as_array);
        if pairs.is_some_and(|pairs| pairs.iter().any(|pair| !pair.is_object())) {
            return Err("attributes of a span must be objects with key and value".to_owned());
        }
        let text = |key: &str| object.get(key).and_then(Value::as_str);
        let mut span = otlp::read_span(json).unwrap_or_default();
        span.trace_id = Bytes::new();
        let said = text("spanId").filter(|id| !id.is_empty());
        span.span_id = match said {
            Some(said) => span_id(said),
            None => {
                self.unnamed += 1;
                let unique = format!("{session} {:x} {:x}", self.nonce, self.unnamed);
                hashed(&unique)
            }
        };
        span.parent_span_id = match text("parentSpanId").filter(|id| !id.is_empty()) {
            Some(parent) => span_id(parent),
            None => Bytes::new(),
        };
        // The numbers of the API, which begin at 0; names mean what they say.
        if let Some(kind @ 0..=4) = object.get("kind").and_then(Value::as_i64) {
            span.kind = i32::try_from(kind).unwrap_or_default() + 1;
        }
        for time in [&mut span.start_time_unix_nano, &mut span.end_time_unix_nano] {
            if i64::try_from(*time).is_err() {
                *time = 0;
            }
        }
        span.links.clear();
        span.status
            .take_if(|status| status.code == 0 && status.message.is_empty());
        let attribute = |key: &str| {
            let pair = span.attributes.iter().find(|pair| pair.key == key)?;
            match pair.value.as_ref()?.value.as_ref()? {
                Any::String(text) => Some(text.as_str()),
                _ => None,
            }
        };
        let scope = [SCOPE_NAME, SCOPE_VERSION].map(|key| attribute(key).unwrap_or_default());
        let trace = text("traceId").unwrap_or_default();
        let context = self.context(trace, scope);
        span.attributes.push(string(VERBATIM, json));
        let span_id = span.span_id.clone();
        let span = EncodedSpan::with(span);
        Ok(Incoming {
            context,
            // Two spans without an id are two.
            identity: said.map(|_| otlp::span_identity(&span_id, &span)),
            what: Canonical::Span(span),
            may_end_run: false,
            trace_level: Verbosity::Debug,
        })
    }

    /// A log record, as JSON: `{event_name, timestamp, body, attributes, span_id?}` with a body that is decoded, or as OTLP has it.
    ///
    /// # Errors
    /// It is no object.
    pub fn log(&mut self, json: &str) -> Result<Incoming, String> {
        let Ok(object) = serde_json::from_str::<Map<String, Value>>(json) else {
            return Err("log must be an object".to_owned());
        };
        let mut log = read_log(&object, json);
        log.attributes.push(string(VERBATIM, json));
        Ok(Incoming {
            context: self.context("", [""; 2]),
            what: Canonical::Log(log.encode_to_vec().into()),
            // What was said twice was said twice; the client does not send a record again.
            identity: None,
            may_end_run: false,
            trace_level: Verbosity::Debug,
        })
    }

    fn context(&mut self, trace: &str, scope: [&str; 2]) -> Arc<Context> {
        let key = [trace, scope[0], scope[1]];
        let mut known = self.contexts.iter().rev();
        if let Some((_, context)) = known.find(|(known, _)| *known == key) {
            return Arc::clone(context);
        }
        let context = Arc::new(Context {
            resource: vec![string(TRACE_ID, trace)],
            scope: wire::Scope {
                name: scope[0].to_owned(),
                version: scope[1].to_owned(),
                ..wire::Scope::default()
            },
            ..Context::default()
        });
        if self.contexts.len() >= CONTEXTS {
            self.contexts.remove(0);
        }
        let key = key.map(str::to_owned);
        self.contexts.push((key, Arc::clone(&context)));
        context
    }
}

fn read_log(object: &Map<String, Value>, json: &str) -> wire::LogRecord {
    let first = |keys: &[&str]| keys.iter().find_map(|key| object.get(*key));
    let otlp_body = object.get("body").and_then(otlp_value);
    let is_otlp = otlp_body.is_some()
        || object.get("attributes").is_some_and(Value::is_array)
        || object.contains_key("eventName");
    let mut log = match is_otlp {
        true => otlp::read_log(json).unwrap_or_default(),
        false => wire::LogRecord::default(),
    };
    log.trace_id = Bytes::new();
    if let Some(Value::String(name)) = first(&["event_name", "eventName"]) {
        log.event_name = name.clone();
    }
    if log.event_name.is_empty() {
        let named = log.attributes.iter().find(|pair| pair.key == "event.name");
        let named = named.and_then(|pair| pair.value.as_ref()?.value.as_ref());
        if let Some(Any::String(name)) = named {
            log.event_name = name.to_string();
        }
    }
    let time = first(&["timestamp", "timeUnixNano", "observedTimeUnixNano"]);
    log.time_unix_nano = time.and_then(nanoseconds).unwrap_or_default();
    log.observed_time_unix_nano = 0;
    log.span_id = match first(&["span_id", "spanId"]) {
        Some(Value::String(id)) if !id.is_empty() => span_id(id),
        _ => Bytes::new(),
    };
    log.body = match otlp_body {
        // A text that is JSON is what it says.
        Some(Value::String(text)) if text.trim_start().starts_with(['{', '[']) => {
            let said = serde_json::from_str(&text).unwrap_or(Value::String(text));
            Some(any(&said, 0))
        }
        Some(body) => Some(any(&body, 0)),
        None => object
            .get("body")
            .filter(|body| !body.is_null())
            .map(|body| any(body, 0)),
    };
    if let Some(Value::Object(attributes)) = object.get("attributes") {
        let attributes = attributes.iter().take(MOST_ATTRIBUTES);
        log.attributes = attributes
            .map(|(key, value)| wire::KeyValue {
                key: key.as_str().into(),
                value: Some(any(value, 0)),
            })
            .collect();
    }
    log
}

/// What a value in OTLP's JSON form means. `None`: it is in no such form.
fn otlp_value(value: &Value) -> Option<Value> {
    let object = value.as_object().filter(|object| object.len() == 1)?;
    let (kind, value) = object.iter().next()?;
    match (kind.as_str(), value) {
        ("stringValue" | "bytesValue", Value::String(_))
        | ("boolValue", Value::Bool(_))
        | ("intValue" | "doubleValue", Value::Number(_)) => Some(value.clone()),
        ("intValue", Value::String(digits)) => {
            let number: i64 = digits.parse().ok()?;
            Some(number.into())
        }
        ("arrayValue", Value::Object(array)) => {
            let values = array.get("values").and_then(Value::as_array);
            let values = values.into_iter().flatten();
            Some(values.filter_map(otlp_value).collect())
        }
        ("kvlistValue", Value::Object(map)) => {
            let pairs = map.get("values").and_then(Value::as_array);
            let pairs = pairs.into_iter().flatten();
            let pairs = pairs.filter_map(|pair| {
                let key = pair.get("key")?.as_str()?.to_owned();
                Some((key, pair.get("value").and_then(otlp_value)?))
            });
            Some(Value::Object(pairs.collect()))
        }
        _ => None,
    }
}

fn any(value: &Value, depth: usize) -> wire::AnyValue {
    let value = match value {
        Value::Null => None,
        Value::Bool(yes) => Some(Any::Bool(*yes)),
        Value::Number(number) => Some(match (number.as_i64(), number.as_f64()) {
            (Some(whole), _) => Any::Int(whole),
            (None, Some(real)) => Any::Double(real),
            (None, None) => Any::String(number.to_string().into()),
        }),
        Value::String(text) => Some(Any::String(text.as_str().into())),
        deep if depth >= DEEPEST => Some(Any::String(deep.to_string().into())),
        Value::Array(values) => Some(Any::Array(wire::ArrayValue {
            values: values.iter().map(|value| any(value, depth + 1)).collect(),
        })),
        Value::Object(pairs) => Some(Any::Map(wire::KeyValueList {
            values: pairs
                .iter()
                .map(|(key, value)| wire::KeyValue {
                    key: key.as_str().into(),
                    value: Some(any(value, depth + 1)),
                })
                .collect(),
        })),
    };
    wire::AnyValue { value }
}

/// A usual pair has a value, and that is none of lists, maps or bytes.
fn usual_value(pair: &wire::KeyValue) -> Option<&Any> {
    pair.value.as_ref()?.value.as_ref()
}

/// Where [`canonical`] puts the ids: each behind a byte for its field and one for its length.
const SPAN_ID_AT: Range<usize> = 2..10;
const PARENT_AT: Range<usize> = 12..20;

/// Memory for what is kept of spans while they are on their way: a piece for some of them, since a piece for each cost more than what is put into it (`perf` of `scripts/bench socket`). One that was given
/// away lives as long as the last of its spans.
#[derive(Default)]
struct Room {
    pieces: BytesMut,
    /// Where a span is written.
    written: Vec<u8>,
}

impl Room {
    const PIECE_BYTES: usize = 16 << 10;
    /// Of a connection, for whatever it sends next.
    const WRITTEN_BYTES: usize = 64 << 10;

    /// Takes what was written, and some text.
    fn keep(&mut self, text: &str) -> (Bytes, Bytes) {
        let length = self.written.len();
        let most = length + text.len();
        if self.pieces.capacity() < most {
            self.pieces = BytesMut::with_capacity(most.max(Self::PIECE_BYTES));
        }
        self.pieces.extend_from_slice(&self.written);
        self.pieces.extend_from_slice(text.as_bytes());
        self.written.clear();
        self.written.shrink_to(Self::WRITTEN_BYTES);
        let mut kept = self.pieces.split().freeze();
        let text = kept.split_off(length);
        (kept, text)
    }
}

/// A usual span as [`wire::Span`] is written, straight from its text: writing it by way of the struct was 4 % of what a span costs (`perf` of `scripts/bench socket`). Its times are `[start, end]`.
fn canonical(
    usual: &Usual<'_>,
    span_id: [u8; 8],
    parent: Option<[u8; 8]>,
    times: [u64; 2],
    out: &mut Vec<u8>,
) {
    let value_len = |value: &Any| match value {
        Any::String(text) => field_len(text.len()),
        Any::Int(number) => 1 + encoded_len_varint(number.cast_unsigned()),
        Any::Bool(_) => 2,
        Any::Double(_) => 9,
        Any::Array(_) | Any::Map(_) | Any::Bytes(_) => 0,
    };
    let key_len = |pair: &wire::KeyValue| match pair.key.len() {
        0 => 0,
        length => field_len(length),
    };
    protobuf::put_bytes(2, &span_id, out);
    if let Some(parent) = parent {
        protobuf::put_bytes(4, &parent, out);
    }
    if !usual.name.is_empty() {
        protobuf::put_bytes(5, usual.name.as_bytes(), out);
    }
    protobuf::put_number(6, u64::from(usual.kind) + 1, out);
    for (number, time) in [7, 8].into_iter().zip(times) {
        if time != 0 {
            protobuf::put_fixed64(number, time, out);
        }
    }
    for pair in &usual.attributes {
        let Some(value) = usual_value(pair) else {
            continue;
        };
        let length = value_len(value);
        protobuf::begin_field(9, key_len(pair) + field_len(length), out);
        if !pair.key.is_empty() {
            protobuf::put_bytes(1, pair.key.as_bytes(), out);
        }
        protobuf::begin_field(2, length, out);
        match value {
            Any::String(text) => protobuf::put_bytes(1, text.as_bytes(), out),
            Any::Bool(yes) => protobuf::put_number(2, u64::from(*yes), out),
            Any::Int(number) => protobuf::put_number(3, number.cast_unsigned(), out),
            Any::Double(number) => protobuf::put_fixed64(4, number.to_bits(), out),
            Any::Array(_) | Any::Map(_) | Any::Bytes(_) => {}
        }
    }
    if usual.status.code != 0 {
        protobuf::begin_field(15, 2, out);
        protobuf::put_number(3, u64::from(usual.status.code), out);
    }
}

/// Whether JSON stands on one line, as a frame of server-sent events needs it. Within its texts control characters are escaped.
fn is_one_line(json: &str) -> bool {
    json.bytes().fold(u8::MAX, u8::min) >= b' '
}

/// A time as the client writes it: digits, and no more of them than are needed.
fn plain_time(text: &str) -> Option<u64> {
    let time: i64 = text.parse().ok()?;
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit())
        && (text.len() == 1 || !text.starts_with('0'));
    u64::try_from(time).ok().filter(|_| is_plain)
}

fn nanoseconds(value: &Value) -> Option<u64> {
    let time = match value {
        Value::Number(number) => number.as_u64().or_else(|| {
            let real = number.as_f64().filter(|real| *real >= 0.0)?;
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "checked; saturates"
            )]
            Some(real as u64)
        }),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    };
    time.filter(|time| i64::try_from(*time).is_ok())
}

fn status(code: u8) -> Option<wire::Status> {
    (code != 0).then(|| wire::Status {
        code: i32::from(code),
        ..wire::Status::default()
    })
}

/// The bytes of an id: those it names, or a hash of an id that is none.
fn span_id(text: &str) -> Bytes {
    let is_hex = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    match u64::from_str_radix(text, 16) {
        Ok(id) if is_hex && id != 0 => Bytes::copy_from_slice(&id.to_be_bytes()),
        _ => hashed(text),
    }
}

fn hashed(text: &str) -> Bytes {
    Bytes::copy_from_slice(&xxh3_64(text.as_bytes()).max(1).to_be_bytes())
}

fn string(key: &str, text: &str) -> wire::KeyValue {
    wire::KeyValue {
        key: key.into(),
        value: Some(wire::AnyValue {
            value: Some(Any::String(text.into())),
        }),
    }
}

/// The trace id that a producer gave what came by a frame, perhaps an empty one. `None`: it came otherwise.
pub fn trace_id_of_frame(context: &Context) -> Option<&str> {
    let mut pairs = context.resource.iter();
    let pair = pairs.find(|pair| pair.key == TRACE_ID)?;
    match pair.value.as_ref()?.value.as_ref()? {
        Any::String(text) => Some(text),
        _ => None,
    }
}

fn verbatim(attributes: &[wire::KeyValue]) -> Option<&str> {
    let last = attributes.last().filter(|pair| pair.key == VERBATIM)?;
    match last.value.as_ref()?.value.as_ref()? {
        Any::String(text) => Some(text),
        _ => None,
    }
}

/// A span as the dialect shows it, as JSON: one that came by a frame as it came, another as the JSON of its protobuf, with scope and messages among its attributes. `None`: it is no span.
pub fn wire_span(trace: &TraceId, observation: &Observation) -> Option<String> {
    let mut json = String::new();
    push_span(&mut json, trace, observation).then_some(json)
}

/// Writes what [`wire_span`] gives; `false`, and nothing, where it is no span.
pub(super) fn push_span(into: &mut String, trace: &TraceId, observation: &Observation) -> bool {
    let What::Span(span) = &observation.what else {
        return false;
    };
    if let Some(text) = verbatim(&span.attributes) {
        push_line(into, text);
        return true;
    }
    into.reserve(about_bytes(span));
    match trace_id_of_frame(&observation.context) {
        Some(trace_id) => push_frame_span(into, trace_id, span),
        None => {
            let context = &observation.context;
            let exported = ExportedSpan {
                trace,
                span,
                context,
            };
            push_json(into, &exported);
        }
    }
    true
}

/// Writes JSON on one line: what breaks it can only stand between its words.
fn push_line(into: &mut String, json: &str) {
    for (at, line) in json.split(['\n', '\r']).enumerate() {
        into.push_str(if at > 0 { " " } else { "" });
        into.push_str(line);
    }
}

/// About how long a span's JSON is.
fn about_bytes(span: &wire::Span) -> usize {
    let attributes = span.attributes.iter().map(|pair| {
        let value = pair.value.as_ref().and_then(|value| value.value.as_ref());
        let text = match value {
            // A tenth for what is escaped.
            Some(Any::String(text)) => text.len() + text.len() / 10,
            _ => 16,
        };
        pair.key.len() + text + 48
    });
    300 + attributes.sum::<usize>()
}

/// A log record as the dialect keeps it, as JSON. `None`: it is none.
pub fn wire_log(observation: &Observation) -> Option<String> {
    let What::Log(log) = &observation.what else {
        return None;
    };
    if let Some(text) = verbatim(&log.attributes) {
        return Some(text.to_owned());
    }
    let time = match log.time_unix_nano {
        0 => log.observed_time_unix_nano,
        time => time,
    };
    let mut object = Map::new();
    let body = log.body.as_ref().map_or(Value::Null, to_json);
    let attributes = log.attributes.iter().map(|pair| {
        let value = pair.value.as_ref().map_or(Value::Null, to_json);
        (pair.key.to_string(), value)
    });
    object.insert("event_name".to_owned(), log.event_name.clone().into());
    object.insert("timestamp".to_owned(), time.to_string().into());
    object.insert("body".to_owned(), body);
    object.insert("attributes".to_owned(), Value::Object(attributes.collect()));
    if !log.span_id.is_empty() {
        object.insert("span_id".to_owned(), hex(&log.span_id).into());
    }
    Some(Value::Object(object).to_string())
}

/// As the dialect's client sends it.
fn push_frame_span(into: &mut String, trace_id: &str, span: &wire::Span) {
    let id = |into: &mut String, id: &[u8]| {
        into.push('"');
        push_hex(into, id);
        into.push('"');
    };
    into.push_str("{\"traceId\":");
    push_text(into, trace_id);
    into.push_str(",\"spanId\":");
    id(into, &span.span_id);
    into.push_str(",\"parentSpanId\":");
    match span.parent_span_id.is_empty() {
        true => into.push_str("null"),
        false => id(into, &span.parent_span_id),
    }
    into.push_str(",\"name\":");
    push_text(into, &span.name);
    into.push_str(",\"kind\":");
    push_number(into, span.kind.saturating_sub(1).max(0));
    into.push_str(",\"startTimeUnixNano\":\"");
    push_number(into, span.start_time_unix_nano);
    into.push_str("\",\"endTimeUnixNano\":\"");
    push_number(into, span.end_time_unix_nano);
    into.push_str("\",\"attributes\":[");
    for (at, pair) in span.attributes.iter().enumerate() {
        into.push_str(if at > 0 { ",{\"key\":" } else { "{\"key\":" });
        push_text(into, &pair.key);
        if let Some(value) = &pair.value {
            into.push_str(",\"value\":");
            match &value.value {
                Some(Any::String(text)) => {
                    into.push_str("{\"stringValue\":");
                    push_text(into, text);
                    into.push('}');
                }
                _ => push_json(into, &Written(value, IntForm::Number)),
            }
        }
        into.push('}');
    }
    into.push_str("],\"status\":{\"code\":");
    push_number(into, span.status.as_ref().map_or(0, |status| status.code));
    into.push_str("}}");
}

/// As the JSON of an exported protobuf message (proto3 JSON: what is nothing is left out), with what the dialect adds to its attributes.
struct ExportedSpan<'a> {
    trace: &'a TraceId,
    span: &'a wire::Span,
    context: &'a Context,
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
/// What a span's events may hold in place of its attributes.
const MESSAGES: [&str; 2] = ["gen_ai.input.messages", "gen_ai.output.messages"];

fn among<'a>(names: &'a [&'a str], number: i32) -> Option<&'a str> {
    names.get(usize::try_from(number).ok()?).copied()
}

impl Serialize for ExportedSpan<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self {
            trace,
            span,
            context,
        } = self;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("traceId", trace.as_str())?;
        map.serialize_entry("spanId", &hex(&span.span_id))?;
        if !span.parent_span_id.is_empty() {
            map.serialize_entry("parentSpanId", &hex(&span.parent_span_id))?;
        }
        map.serialize_entry("name", &span.name)?;
        if let Some(kind) = among(&KINDS, span.kind).filter(|_| span.kind != 0) {
            map.serialize_entry("kind", kind)?;
        }
        for (key, time) in [
            ("startTimeUnixNano", span.start_time_unix_nano),
            ("endTimeUnixNano", span.end_time_unix_nano),
        ] {
            if time != 0 {
                map.serialize_entry(key, &time.to_string())?;
            }
        }
        let added = added(span, context);
        let attributes: Vec<_> = span.attributes.iter().chain(&added).collect();
        map.serialize_entry("attributes", &Pairs(attributes, IntForm::Text))?;
        if !span.events.is_empty() {
            map.serialize_entry("events", &Events(&span.events))?;
        }
        let mut status = Map::new();
        if let Some(of) = &span.status {
            if !of.message.is_empty() {
                status.insert("message".to_owned(), of.message.clone().into());
            }
            if let Some(code) = among(&CODES, of.code).filter(|_| of.code != 0) {
                status.insert("code".to_owned(), code.into());
            }
        }
        map.serialize_entry("status", &status)?;
        map.end()
    }
}

/// Scope, and messages of span events, where the span has no such attribute of its own.
fn added(span: &wire::Span, context: &Context) -> Vec<wire::KeyValue> {
    let has = |key: &str| span.attributes.iter().any(|pair| pair.key == key);
    let scope = [
        (SCOPE_NAME, &context.scope.name),
        (SCOPE_VERSION, &context.scope.version),
    ];
    let scope = scope.into_iter().filter(|(_, text)| !text.is_empty());
    let scope = scope.map(|(key, text)| string(key, text));
    let messages = MESSAGES.iter().filter_map(|key| {
        let mut all = span.events.iter().flat_map(|event| &event.attributes);
        all.find(|pair| pair.key == *key).cloned()
    });
    let mut added: Vec<_> = scope.chain(messages).collect();
    added.retain(|pair| !has(&pair.key));
    added
}

struct Events<'a>(&'a [wire::SpanEvent]);

impl Serialize for Events<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        struct Event<'a>(&'a wire::SpanEvent);
        impl Serialize for Event<'_> {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let mut map = serializer.serialize_map(None)?;
                map.serialize_entry("timeUnixNano", &self.0.time_unix_nano.to_string())?;
                map.serialize_entry("name", &self.0.name)?;
                let attributes = self.0.attributes.iter().collect();
                map.serialize_entry("attributes", &Pairs(attributes, IntForm::Text))?;
                map.end()
            }
        }
        serializer.collect_seq(self.0.iter().map(Event))
    }
}

/// How whole numbers are written: by the dialect's client, or as proto3 JSON writes 64 bits.
#[derive(Clone, Copy)]
enum IntForm {
    Number,
    Text,
}

struct Pairs<'a>(Vec<&'a wire::KeyValue>, IntForm);

impl Serialize for Pairs<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        struct Pair<'a>(&'a wire::KeyValue, IntForm);
        impl Serialize for Pair<'_> {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let mut map = serializer.serialize_map(None)?;
                map.serialize_entry("key", &self.0.key)?;
                if let Some(value) = &self.0.value {
                    map.serialize_entry("value", &Written(value, self.1))?;
                }
                map.end()
            }
        }
        let mut seq = serializer.serialize_seq(Some(self.0.len()))?;
        for pair in &self.0 {
            seq.serialize_element(&Pair(pair, self.1))?;
        }
        seq.end()
    }
}

/// A value in OTLP's JSON form.
struct Written<'a>(&'a wire::AnyValue, IntForm);

impl Serialize for Written<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self(value, form) = self;
        let mut map = serializer.serialize_map(None)?;
        match &value.value {
            None => {}
            Some(Any::String(text)) => map.serialize_entry("stringValue", text)?,
            Some(Any::Bool(yes)) => map.serialize_entry("boolValue", yes)?,
            Some(Any::Int(number)) => match form {
                IntForm::Number => map.serialize_entry("intValue", number)?,
                IntForm::Text => map.serialize_entry("intValue", &number.to_string())?,
            },
            Some(Any::Double(number)) => map.serialize_entry("doubleValue", number)?,
            Some(Any::Bytes(bytes)) => {
                use base64::Engine as _;
                let text = base64::engine::general_purpose::STANDARD.encode(bytes);
                map.serialize_entry("bytesValue", &text)?;
            }
            Some(Any::Array(array)) => {
                let values = array.values.iter().map(|value| Written(value, *form));
                let values: Vec<_> = values.collect();
                map.serialize_entry("arrayValue", &Values(&values))?;
            }
            Some(Any::Map(list)) => {
                let pairs = Pairs(list.values.iter().collect(), *form);
                map.serialize_entry("kvlistValue", &Values(&pairs))?;
            }
        }
        map.end()
    }
}

struct Values<'a, T: ?Sized>(&'a T);

impl<T: Serialize + ?Sized> Serialize for Values<'_, T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(1))?;
        map.serialize_entry("values", self.0)?;
        map.end()
    }
}

#[cfg(test)]
mod tests {
    // By name: there is another one here.
    use proptest::prelude::any;
    use proptest::{collection::vec, prelude::*};

    use super::*;
    use crate::observed::Sent;

    fn back(reader: &mut Reader, json: &str) -> String {
        let incoming = reader.span("s", json).unwrap();
        let Canonical::Span(written) = &incoming.what else {
            panic!("a span");
        };
        // Who follows in this process is shown the span at hand, everybody else what was written.
        let read_back = wire::Span::decode(Bytes::clone(written)).unwrap();
        assert_eq!(written.at_hand().map(Arc::as_ref), Some(&read_back));
        let trace = TraceId::parse("t").unwrap();
        wire_span(&trace, &incoming.observation()).unwrap()
    }

    const USUAL: &str = r#"{"traceId":"a1000000000000000000000000000001","spanId":"a100000000000002","parentSpanId":null,"name":"chat \"x\"","kind":2,"startTimeUnixNano":"1760000000010000000","endTimeUnixNano":"1760000000210000000","attributes":[{"key":"otel.scope.name","value":{"stringValue":"scope"}},{"key":"a","value":{"intValue":3}},{"key":"b","value":{"boolValue":true}},{"key":"c","value":{"doubleValue":0.5}}],"status":{"code":0}}"#;

    #[test]
    fn a_usual_span_comes_back_byte_for_byte_and_is_kept_once() {
        let mut reader = Reader::new(1);
        assert_eq!(back(&mut reader, USUAL), USUAL);
        let incoming = reader.span("s", USUAL).unwrap();
        assert_eq!(incoming.context.scope.name, "scope");
        let What::Span(span) = incoming.what.read() else {
            panic!("a span");
        };
        // CLIENT, in the numbers of OTLP.
        assert_eq!((span.kind, span.attributes.len()), (3, 4));
        let again = reader.span("s", USUAL).unwrap();
        assert!(Arc::ptr_eq(&incoming.context, &again.context));
        assert_eq!(incoming.identity, again.identity);
        let failed = USUAL.replace(r#""code":0"#, r#""code":2"#);
        assert_eq!(back(&mut reader, &failed), failed);
        let child = USUAL.replace("null", r#""a100000000000009""#);
        assert_eq!(back(&mut reader, &child), child);
    }

    proptest! {
        #[test]
        fn a_usual_span_is_written_as_its_message_is(
            name in ".{0,5}", kind in 0..5_u8, parent in any::<bool>(), times in [0..3_u64, 0..u64::MAX >> 1], code in 0..3_u8,
            pairs in vec((".{0,3}", value(), 0..200_usize), 0..20),
        ) {
            let attributes: Vec<_> = pairs.into_iter().map(|(key, value, long)| {
                serde_json::json!({"key": key.clone() + &"k".repeat(long), "value": value})
            }).collect();
            let json = serde_json::json!({
                "traceId": "a".repeat(32), "spanId": "b".repeat(16), "parentSpanId": parent.then(|| "c".repeat(16)), "name": name, "kind": kind,
                "startTimeUnixNano": times[0].to_string(), "endTimeUnixNano": times[1].to_string(), "attributes": attributes, "status": {"code": code},
            });
            let sent = json.to_string();
            let incoming = Reader::new(1).span("s", &sent).unwrap();
            let Canonical::Span(written) = &incoming.what else {
                panic!("a span");
            };
            let at_hand = written.at_hand().unwrap();
            prop_assert!(at_hand.attributes.last().is_none_or(|pair| pair.key != VERBATIM));
            prop_assert_eq!(&written[..], &at_hand.encode_to_vec()[..]);
            prop_assert_eq!(&wire::Span::decode(Bytes::clone(written)).unwrap(), at_hand.as_ref());
            // Who is shown it as it came is shown the same.
            let shown = wire_span(&TraceId::parse("t").unwrap(), &incoming.observation()).unwrap();
            let shown: Value = serde_json::from_str(&shown).unwrap();
            prop_assert_eq!(&shown, &json);
            prop_assert_eq!(written.sent().map(Sent::as_str), Some(sent.as_str()));
        }
    }

    fn value() -> impl Strategy<Value = Value> {
        prop_oneof![
            ".{0,3}".prop_map(|text| serde_json::json!({"stringValue": text})),
            (0..20_000_usize).prop_map(|long| serde_json::json!({"stringValue": "v".repeat(long)})),
            any::<i64>().prop_map(|number| serde_json::json!({"intValue": number})),
            any::<bool>().prop_map(|yes| serde_json::json!({"boolValue": yes})),
            proptest::num::f64::NORMAL
                .prop_map(|number| serde_json::json!({"doubleValue": number})),
        ]
    }

    #[test]
    fn a_span_is_shown_on_one_line_however_it_came() {
        let mut reader = Reader::new(1);
        let lines = |compact: &str| {
            let value: Value = serde_json::from_str(compact).unwrap();
            serde_json::to_string_pretty(&value)
                .unwrap()
                .replace('\n', "\r\n")
        };
        for json in [USUAL, r#"{"name":"a\nb","more":[1,2]}"#] {
            let incoming = reader.span("s", &lines(json)).unwrap();
            let Canonical::Span(written) = &incoming.what else {
                panic!("a span");
            };
            assert!(written.sent().is_none());
            let shown = back(&mut reader, &lines(json));
            assert!(!shown.contains(['\n', '\r']), "{shown}");
            let [shown, sent]: [Value; 2] =
                [&shown, json].map(|json| serde_json::from_str(json).unwrap());
            assert_eq!(shown, sent);
        }
    }

    #[test]
    fn an_unusual_span_comes_back_word_for_word_and_is_understood_as_far_as_can_be() {
        let mut reader = Reader::new(1);
        for json in [
            "{}",
            r#"{"spanId":"not hex","parentSpanId":"also not","startTimeUnixNano":5,"more":[1]}"#,
            r#"{"spanId":"","kind":"SPAN_KIND_CLIENT","attributes":null,"startTimeUnixNano":"soon"}"#,
            r#"{"attributes":[{"key":"a","value":{"arrayValue":{"values":[{"intValue":"1"}]}}}]}"#,
            r#"{"name":"half \ud83d","attributes":[]}"#,
        ] {
            if json.contains("\\ud83d") {
                // Half of an emoji is no text: told to its sender.
                assert!(reader.span("s", json).is_err());
                continue;
            }
            assert_eq!(back(&mut reader, json), json);
        }
        let read = |reader: &mut Reader, json: &str| {
            let incoming = reader.span("s", json).unwrap();
            let What::Span(span) = incoming.what.read() else {
                panic!("a span");
            };
            (incoming.identity, span)
        };
        let (identity, one) = read(&mut reader, "{}");
        let (_, other) = read(&mut reader, "{}");
        assert!(identity.is_none() && one.span_id != other.span_id && one.span_id.len() == 8);
        let (_, parent) = read(&mut reader, r#"{"spanId":"p"}"#);
        let (_, child) = read(&mut reader, r#"{"spanId":"c","parentSpanId":"p","kind":2}"#);
        assert_eq!((&child.parent_span_id, child.kind), (&parent.span_id, 3));
        for wrong in [
            "[]",
            "null",
            "3",
            r#"{"attributes":{}}"#,
            r#"{"attributes":[3]}"#,
        ] {
            assert!(reader.span("s", wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn log_records_are_read_in_both_forms() {
        let mut reader = Reader::new(1);
        let mut read = |json: &str| {
            let incoming = reader.log(json).unwrap();
            assert_eq!(wire_log(&incoming.observation()).unwrap(), json);
            let What::Log(log) = incoming.what.read() else {
                panic!("a log record");
            };
            let body = log.body.as_ref().map_or(Value::Null, to_json);
            (log.event_name.clone(), log.time_unix_nano, body)
        };
        let content = serde_json::json!({"content": "Roll a d20"});
        let expected = (
            "gen_ai.user.message".to_owned(),
            1_760_000_000_001_000_000,
            content,
        );
        for json in [
            r#"{"event_name":"gen_ai.user.message","timestamp":"1760000000001000000","body":{"content":"Roll a d20"},"attributes":{"gen_ai.system":"openai"}}"#,
            r#"{"event_name":"gen_ai.user.message","timestamp":1760000000001000000,"body":{"stringValue":"{\"content\":\"Roll a d20\"}"}}"#,
            r#"{"timeUnixNano":"1760000000001000000","attributes":[{"key":"event.name","value":{"stringValue":"gen_ai.user.message"}}],"body":{"kvlistValue":{"values":[{"key":"content","value":{"stringValue":"Roll a d20"}}]}}}"#,
        ] {
            assert_eq!(read(json), expected, "{json}");
        }
        assert_eq!(read("{}"), (String::new(), 0, Value::Null));
    }

    #[test]
    fn deep_values_stay_within_what_can_be_read_back() {
        let deep = format!("{}1{}", "[".repeat(100), "]".repeat(100));
        let json = format!(r#"{{"event_name":"x","body":{deep}}}"#);
        let incoming = Reader::new(1).log(&json).unwrap();
        let What::Log(log) = incoming.what.read() else {
            panic!("a log record");
        };
        assert_eq!(log.event_name, "x");
    }

    #[test]
    fn an_exported_span_is_written_as_its_protobuf_is() {
        let span = wire::Span {
            span_id: Bytes::from_static(&[1, 2, 3, 4, 5, 6, 7, 8]),
            name: "n".to_owned(),
            kind: 3,
            start_time_unix_nano: 5,
            end_time_unix_nano: 6,
            attributes: vec![wire::KeyValue {
                key: "count".into(),
                value: Some(wire::AnyValue {
                    value: Some(Any::Int(3)),
                }),
            }],
            events: vec![wire::SpanEvent {
                name: "e".to_owned(),
                attributes: vec![string("gen_ai.input.messages", "[]")],
                ..wire::SpanEvent::default()
            }],
            status: status(1),
            ..wire::Span::default()
        };
        let observation = Observation {
            context: Arc::new(Context {
                scope: wire::Scope {
                    name: "scope".to_owned(),
                    ..wire::Scope::default()
                },
                ..Context::default()
            }),
            what: What::Span(Arc::new(span)),
        };
        let trace = TraceId::parse("a1000000000000000000000000000001").unwrap();
        let written: Value =
            serde_json::from_str(&wire_span(&trace, &observation).unwrap()).unwrap();
        assert_eq!(
            written,
            serde_json::json!({
                "traceId": "a1000000000000000000000000000001", "spanId": "0102030405060708", "name": "n",
                "kind": "SPAN_KIND_CLIENT", "startTimeUnixNano": "5", "endTimeUnixNano": "6",
                "attributes": [
                    {"key": "count", "value": {"intValue": "3"}},
                    {"key": "otel.scope.name", "value": {"stringValue": "scope"}},
                    {"key": "gen_ai.input.messages", "value": {"stringValue": "[]"}},
                ],
                "events": [{"timeUnixNano": "0", "name": "e", "attributes": [
                    {"key": "gen_ai.input.messages", "value": {"stringValue": "[]"}}]}],
                "status": {"code": "STATUS_CODE_OK"},
            })
        );
    }
}
