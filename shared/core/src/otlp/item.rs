//! One span or log record, whichever encoding it came in: is it usable, whose is it, has it been seen.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use bytes::{Bytes, BytesMut};
use prost::Message;
use xxhash_rust::xxh3::Xxh3;

use super::{Decoded, Rejected, budget::Budget, canonical};
use crate::{
    id::{TraceId, hex},
    limits::Limits,
    lower,
    observed::{Canonical, Context, Incoming},
    settle,
    verbosity::{UnknownLevel, Verbosity},
    wire::{self, any_value::Value},
};

/// What a request should consist of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Span,
    Log,
    /// Spans and log records, each as it is found: a file may hold both.
    Either,
}

/// An item as its producer sent it, readable but not yet looked at.
#[expect(
    clippy::large_enum_variant,
    reason = "the usual one, and short-lived: a box for it would be an allocation for each span"
)]
pub(super) enum Item<'a> {
    /// Of usable ids and times, and its bytes are what will be kept of it.
    Canonical(canonical::Canonical<'a>, Kind),
    Span(Box<wire::Span>),
    Log(Box<wire::LogRecord>),
}

/// Why one item was not taken. It costs only itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// Not readable; the text says where, when that is known.
    Malformed(String),
    /// A log record among the spans.
    LogRecord,
    /// A span among the log records.
    Span,
    TraceId,
    SpanId,
    ParentSpanId,
    Time,
    NoTraceId,
    TooManyItems(usize),
    TooManyScopes,
    /// The resource asks for a level that is none.
    TraceLevel,
}

impl Fault {
    fn reason(&self) -> &'static str {
        match self {
            Self::Malformed(_) => "malformed",
            Self::LogRecord => "log_record",
            Self::Span => "span",
            Self::TraceId => "invalid_trace_id",
            Self::SpanId => "invalid_span_id",
            Self::ParentSpanId => "invalid_parent_span_id",
            Self::Time => "invalid_time",
            Self::NoTraceId => "no_trace_id",
            Self::TooManyItems(_) => "too_many_items",
            Self::TooManyScopes => "too_many_scopes",
            Self::TraceLevel => "invalid_trace_level",
        }
    }

    /// What the producer's owner should do about it.
    fn advice(&self) -> String {
        match self {
            Self::Malformed(detail) => detail.clone(),
            Self::LogRecord => "a log record: send it to /v1/logs".to_owned(),
            Self::Span => "a span: send it to /v1/traces".to_owned(),
            Self::TraceId => "a trace id is 16 bytes, not all zero".to_owned(),
            Self::SpanId => "a span id is 8 bytes, not all zero".to_owned(),
            Self::ParentSpanId => "a parent span id is 8 bytes, or absent".to_owned(),
            Self::Time => "a time is 0 to 2^63 nanoseconds since 1970".to_owned(),
            Self::NoTraceId => {
                "a log record is shown in its trace: emit it inside a span".to_owned()
            }
            Self::TooManyItems(limit) => {
                format!("one request holds at most {limit}: send smaller batches")
            }
            Self::TraceLevel => format!("the resource attribute {}: {UnknownLevel}", lower::MARK),
            Self::TooManyScopes => {
                "a large resource is repeated for too many scopes: send smaller batches".to_owned()
            }
        }
    }
}

/// The scopes of one resource; makes the context that items share.
pub(super) struct Scopes {
    resource: Vec<wire::KeyValue>,
    resource_schema_url: String,
    resource_weight: usize,
    trace_level: Result<Verbosity, UnknownLevel>,
    scope: wire::Scope,
    schema_url: String,
    context: Option<Arc<Context>>,
}

impl Scopes {
    pub(super) fn new(resource: Vec<wire::KeyValue>, schema_url: &str) -> Self {
        Self {
            resource_weight: weight(&resource),
            trace_level: lower::asked_by(&resource),
            resource,
            resource_schema_url: schema_url.to_owned(),
            scope: wire::Scope::default(),
            schema_url: String::new(),
            context: None,
        }
    }

    /// The items that follow are of this scope.
    pub(super) fn enter(&mut self, scope: wire::Scope, schema_url: &str) {
        let schema_url = if schema_url.is_empty() {
            &self.resource_schema_url
        } else {
            schema_url
        };
        // An exporter that opens a scope anew for each span shares one context all the same.
        if self.scope != scope || self.schema_url != schema_url {
            self.context = None;
            self.schema_url = schema_url.to_owned();
            self.scope = scope;
        }
    }

    /// `None`: the request's contexts have become too large together.
    fn context(&mut self, bytes: &mut usize, limit: usize) -> Option<Arc<Context>> {
        if self.context.is_none() {
            let sum = *bytes + self.resource_weight + weight(&self.scope.attributes) + 256;
            if sum > limit {
                return None;
            }
            *bytes = sum;
            self.context = Some(Arc::new(Context {
                resource: self.resource.clone(),
                scope: self.scope.clone(),
                schema_url: self.schema_url.clone(),
            }));
        }
        self.context.clone()
    }
}

/// About how many bytes of memory attributes take.
fn weight(attributes: &[wire::KeyValue]) -> usize {
    fn any(value: &wire::AnyValue) -> usize {
        size_of::<wire::AnyValue>()
            + match &value.value {
                Some(Value::String(text)) => text.len(),
                Some(Value::Bytes(bytes)) => bytes.len(),
                Some(Value::Array(array)) => array.values.iter().map(any).sum(),
                Some(Value::Map(map)) => weight(&map.values),
                Some(Value::Bool(_) | Value::Int(_) | Value::Double(_)) | None => 0,
            }
    }
    attributes
        .iter()
        .map(|pair| {
            size_of::<wire::KeyValue>() + pair.key.len() + pair.value.as_ref().map_or(0, any)
        })
        .sum()
}

/// Takes the items of one request in their order.
pub(super) struct Sink {
    kind: Kind,
    items_limit: usize,
    items: usize,
    context_bytes_limit: usize,
    context_bytes: usize,
    place_of: HashMap<[u8; 16], usize>,
    seen: HashSet<(usize, i64)>,
    /// Where items are written one behind the other: an allocation for many of them.
    written: BytesMut,
    decoded: Decoded,
}

impl Sink {
    pub(super) fn new(kind: Kind, limits: &Limits) -> Self {
        Self {
            kind,
            items_limit: limits.items,
            items: 0,
            context_bytes_limit: limits.context_bytes,
            context_bytes: 0,
            place_of: HashMap::new(),
            seen: HashSet::new(),
            written: BytesMut::new(),
            decoded: Decoded::default(),
        }
    }

    pub(super) fn kind(&self) -> Kind {
        self.kind
    }

    /// How many more items will be looked at.
    pub(super) fn room(&self) -> usize {
        self.items_limit.saturating_sub(self.items)
    }

    /// Takes the next item, or notes why it was not taken. `read` runs only when there is room for it.
    pub(super) fn item<'a>(
        &mut self,
        scopes: &mut Scopes,
        read: impl FnOnce() -> Result<Item<'a>, Fault>,
    ) {
        self.items += 1;
        if self.items > self.items_limit {
            self.reject(&Fault::TooManyItems(self.items_limit), "");
            return;
        }
        let number = self.items;
        let item = match read() {
            Ok(item) => item,
            Err(fault) => return self.reject(&fault, &format!("number {number}")),
        };
        // Named only when rejected: most items never are.
        let named = |item: &Item| match item {
            Item::Canonical(..) => format!("number {number}"),
            Item::Span(span) => format!("span {} \"{}\"", hex(&span.span_id), cut(&span.name)),
            Item::Log(log) => format!("log record \"{}\"", cut(&log.event_name)),
        };
        let Ok(trace_level) = scopes.trace_level else {
            return self.reject(&Fault::TraceLevel, &named(&item));
        };
        let Some(context) = scopes.context(&mut self.context_bytes, self.context_bytes_limit)
        else {
            return self.reject(&Fault::TooManyScopes, &named(&item));
        };
        match item {
            Item::Canonical(item, kind) => {
                item.write(&mut self.written);
                let of = (context, trace_level);
                self.accept(kind, item.trace_id, &item.key, of, item.is_ended_root);
            }
            Item::Span(mut span) => match settle_span(&mut span) {
                Ok(trace_id) => {
                    write(&*span, &mut self.written);
                    let is_ended_root = settle::is_ended_root(&span);
                    let of = (context, trace_level);
                    self.accept(Kind::Span, trace_id, &span.span_id, of, is_ended_root);
                }
                Err(fault) => self.reject(&fault, &named(&Item::Span(span))),
            },
            Item::Log(mut log) => match settle_log(&mut log) {
                Ok(trace_id) => {
                    write(&*log, &mut self.written);
                    let time = log.time_unix_nano.to_be_bytes();
                    let of = (context, trace_level);
                    self.accept(Kind::Log, trace_id, &time, of, false);
                }
                Err(fault) => self.reject(&fault, &named(&Item::Log(log))),
            },
        }
    }

    /// Takes a native event into the order of its trace.
    pub(super) fn native(&mut self, trace_id: [u8; 16], event: Incoming) {
        self.decoded.accepted += 1;
        let place = self.place(trace_id);
        let is_repeated = event
            .identity
            .is_some_and(|identity| !self.seen.insert((place, identity)));
        if is_repeated {
            self.decoded.repeated += 1;
        } else if let Some((_, items)) = self.decoded.traces.get_mut(place) {
            items.push(event);
        }
    }

    fn place(&mut self, trace_id: [u8; 16]) -> usize {
        let traces = &mut self.decoded.traces;
        *self.place_of.entry(trace_id).or_insert_with(|| {
            traces.push((TraceId::of_otel(&trace_id), Vec::new()));
            traces.len() - 1
        })
    }

    /// Items that were only counted.
    pub(super) fn reject_uncollected(&mut self, count: u64) {
        if count > 0 {
            self.reject(&Fault::TooManyItems(self.items_limit), "");
            if let Some(last) = self
                .decoded
                .rejected
                .iter_mut()
                .find(|rejected| rejected.reason == "too_many_items")
            {
                last.count += count - 1;
            }
        }
    }

    pub(super) fn finish(self, body_bytes: usize, budget: &Budget) -> Decoded {
        let items: usize = self
            .decoded
            .traces
            .iter()
            .map(|(_, items)| items.len())
            .sum();
        Decoded {
            left_out: budget.left_out(),
            memory_bytes: body_bytes
                + self.context_bytes
                + items * size_of::<Incoming>()
                // Span events are the largest of what counts as a value and is kept in numbers.
                + budget.spent() * size_of::<wire::SpanEvent>(),
            ..self.decoded
        }
    }

    /// Takes the item that was just written.
    fn accept(
        &mut self,
        kind: Kind,
        trace_id: [u8; 16],
        key: &[u8],
        (context, trace_level): (Arc<Context>, Verbosity),
        may_end_run: bool,
    ) {
        self.decoded.accepted += 1;
        let bytes = self.written.split().freeze();
        let identity = identity(kind, key, &bytes);
        let place = self.place(trace_id);
        // An exporter that repeats an item within one request is told it was taken, which it was.
        if !self.seen.insert((place, identity)) {
            self.decoded.repeated += 1;
            return;
        }
        if let Some((_, items)) = self.decoded.traces.get_mut(place) {
            items.push(Incoming {
                context,
                what: match kind {
                    Kind::Log => Canonical::Log(bytes),
                    Kind::Span | Kind::Either => Canonical::Span(bytes.into()),
                },
                identity: Some(identity),
                may_end_run,
                trace_level,
            });
        }
    }

    fn reject(&mut self, fault: &Fault, which: &str) {
        let reason = fault.reason();
        match self
            .decoded
            .rejected
            .iter_mut()
            .find(|rejected| rejected.reason == reason)
        {
            Some(rejected) => rejected.count += 1,
            None => {
                let advice = fault.advice();
                self.decoded.rejected.push(Rejected {
                    reason,
                    count: 1,
                    example: if which.is_empty() {
                        advice
                    } else {
                        format!("{which}: {advice}")
                    },
                });
            }
        }
    }
}

/// Brings a span into the form in which it is kept: one form for what the two encodings can say in several. Its
/// trace id is taken out: inside the trace's log it is the key.
fn settle_span(span: &mut wire::Span) -> Result<[u8; 16], Fault> {
    let trace = trace_id(&span.trace_id).ok_or(Fault::TraceId)?;
    span.trace_id = Bytes::new();
    if !is_span_id(&span.span_id) {
        return Err(Fault::SpanId);
    }
    if is_zero(&span.parent_span_id) {
        span.parent_span_id = Bytes::new();
    } else if span.parent_span_id.len() != 8 {
        // Without its parent it would pass for a root and might end the run.
        return Err(Fault::ParentSpanId);
    }
    let event_times = span.events.iter().map(|event| event.time_unix_nano);
    if [span.start_time_unix_nano, span.end_time_unix_nano]
        .into_iter()
        .chain(event_times)
        .any(|time| i64::try_from(time).is_err())
    {
        return Err(Fault::Time);
    }
    span.status
        .take_if(|status| status.code == 0 && status.message.is_empty());
    let links = span.links.len();
    span.links
        .retain(|link| is_span_id(&link.span_id) && trace_id(&link.trace_id).is_some());
    span.dropped_links_count = span
        .dropped_links_count
        .saturating_add(u32::try_from(links - span.links.len()).unwrap_or(u32::MAX));
    Ok(trace)
}

/// As [`settle_span`], for a log record.
fn settle_log(log: &mut wire::LogRecord) -> Result<[u8; 16], Fault> {
    if is_zero(&log.trace_id) {
        return Err(Fault::NoTraceId);
    }
    let trace = trace_id(&log.trace_id).ok_or(Fault::TraceId)?;
    log.trace_id = Bytes::new();
    if is_zero(&log.span_id) {
        log.span_id = Bytes::new();
    } else if log.span_id.len() != 8 {
        return Err(Fault::SpanId);
    }
    if [log.time_unix_nano, log.observed_time_unix_nano]
        .into_iter()
        .any(|time| i64::try_from(time).is_err())
    {
        return Err(Fault::Time);
    }
    Ok(trace)
}

/// The id of an OTel trace: 16 bytes, not all zero (W3C Trace Context 3.2.2.3).
fn trace_id(bytes: &[u8]) -> Option<[u8; 16]> {
    bytes.try_into().ok().filter(|id| *id != [0; 16])
}

fn is_span_id(id: &[u8]) -> bool {
    id.len() == 8 && !is_zero(id)
}

/// All zero, or nothing at all: both mean "none" in OTLP.
fn is_zero(id: &[u8]) -> bool {
    id.iter().all(|byte| *byte == 0)
}

fn write(item: &impl Message, out: &mut BytesMut) {
    out.reserve(item.encoded_len());
    // There is room, so this cannot fail.
    let _ = item.encode(out);
}

/// DESIGN.md section 4, "Identity": the key (span id; a log's time) and the content. The resource is left out: a retry
/// through a collector may have gained attributes there.
pub(super) fn identity(kind: Kind, key: &[u8], content: &[u8]) -> i64 {
    let mut hash = Xxh3::new();
    hash.update(match kind {
        Kind::Span | Kind::Either => b"s",
        Kind::Log => b"l",
    });
    hash.update(key);
    hash.update(content);
    hash.digest().cast_signed()
}

/// The beginning of a stranger's text, short enough for an error message.
fn cut(text: &str) -> &str {
    text.char_indices()
        .nth(60)
        .and_then(|(end, _)| text.get(..end))
        .unwrap_or(text)
}
