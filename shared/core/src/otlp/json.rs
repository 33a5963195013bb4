//! OTLP/JSON as it is found in the wild, not only as it is specified.
//!
//! Accepted beyond the specification: ids in base64 beside hex, 64-bit numbers as numbers beside strings, enum names beside
//! ordinals, `snake_case` keys beside `lowerCamelCase`, bare values where an `AnyValue` belongs, `null` for anything,
//! lone surrogates (JavaScript cuts strings in the middle of an emoji), bytes that are no UTF-8 inside strings. Items are
//! found first and read one by one, straight into [`crate::wire`] structs: no tree of the document is ever built.

use std::{borrow::Cow, fmt};

use base64::{
    Engine, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use bytes::Bytes;
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::value::RawValue;

use super::{
    budget::Budget,
    item::{Fault, Item, Kind, Scopes, Sink},
};
use crate::wire::{self, any_value::Value};

/// The document is no export request; the text says where.
pub(super) type Damaged = serde_json::Error;

/// Reads an `ExportTraceServiceRequest` or `ExportLogsServiceRequest` and hands each item to the sink, in order.
pub(super) fn export_request(body: &[u8], budget: &Budget, sink: &mut Sink) -> Result<(), Damaged> {
    // A broken character costs itself: exporters cut texts by bytes.
    let text = String::from_utf8_lossy(body);
    let text = text.trim_start_matches('\u{feff}');
    let mut document = serde_json::Deserializer::from_str(text);
    let mut uncollected = 0;
    Request {
        budget,
        sink: &mut *sink,
        uncollected: &mut uncollected,
    }
    .deserialize(&mut document)?;
    document.end()?;
    sink.reject_uncollected(uncollected);
    Ok(())
}

/// Checks that a body is one JSON object.
pub(super) fn check(body: &[u8]) -> Result<(), Damaged> {
    let text = String::from_utf8_lossy(body);
    serde_json::from_str::<Object>(text.trim_start_matches('\u{feff}')).map(|_| ())
}

/// Any object, not looked into.
struct Object;

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Skip;
        impl<'de> Visitor<'de> for Skip {
            type Value = Object;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object, A::Error> {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(Object)
            }
        }
        deserializer.deserialize_map(Skip)
    }
}

/// Makes a seed that reads an object field by field into a value given by reference. An unknown key is skipped, `null`
/// leaves everything as it is, anything but an object is an error of this item.
macro_rules! object {
    (
        $(#[$doc:meta])*
        $name:ident<$($life:lifetime),+> for <$($argument:lifetime),+>
        { $($field:ident: $type:ty),* $(,)? },
        |$this:ident, $map:ident| { $($($key:literal)|+ => $read:expr,)* }
    ) => {
        $(#[$doc])*
        struct $name<$($life),+> { $($field: $type),* }

        impl<'de> DeserializeSeed<'de> for $name<$($argument),+> {
            type Value = ();

            fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
                deserializer.deserialize_any(self)
            }
        }

        impl<'de> Visitor<'de> for $name<$($argument),+> {
            type Value = ();

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_unit<E>(self) -> Result<(), E> {
                Ok(())
            }

            fn visit_map<A: MapAccess<'de>>(self, mut $map: A) -> Result<(), A::Error> {
                #[allow(unused_mut, reason = "not every object has places of its own")]
                let mut $this = self;
                while let Some(Key(key)) = $map.next_key()? {
                    match key.as_ref() {
                        $($($key)|+ => $read,)*
                        _ => {
                            $map.next_value::<IgnoredAny>()?;
                        }
                    }
                }
                let _ = &mut $this;
                Ok(())
            }
        }
    };
}

/// Makes a seed that reads a list with one seed per element; `null` is an empty list.
macro_rules! list {
    (
        $(#[$doc:meta])*
        $name:ident<$($life:lifetime),+> for <$($argument:lifetime),+>
        { $($field:ident: $type:ty),* $(,)? },
        |$this:ident| $element:expr
    ) => {
        $(#[$doc])*
        struct $name<$($life),+> { $($field: $type),* }

        impl<'de> DeserializeSeed<'de> for $name<$($argument),+> {
            type Value = ();

            fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
                deserializer.deserialize_any(self)
            }
        }

        impl<'de> Visitor<'de> for $name<$($argument),+> {
            type Value = ();

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list")
            }

            fn visit_unit<E>(self) -> Result<(), E> {
                Ok(())
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
                #[allow(unused_mut, reason = "not every list has places of its own")]
                let mut $this = self;
                while seq.next_element_seed($element)?.is_some() {}
                let _ = &mut $this;
                Ok(())
            }
        }
    };
}

// The envelope, down to the items' boundaries.

object! {
    Request<'a> for <'_> { budget: &'a Budget, sink: &'a mut Sink, uncollected: &'a mut u64 },
    |this, map| {
        "resourceSpans" | "resource_spans" => map.next_value_seed(Resources {
            budget: this.budget,
            sink: &mut *this.sink,
            uncollected: &mut *this.uncollected,
            found: Kind::Span,
        })?,
        "resourceLogs" | "resource_logs" => map.next_value_seed(Resources {
            budget: this.budget,
            sink: &mut *this.sink,
            uncollected: &mut *this.uncollected,
            found: Kind::Log,
        })?,
    }
}

list! {
    Resources<'a> for <'_> { budget: &'a Budget, sink: &'a mut Sink, uncollected: &'a mut u64, found: Kind },
    |this| Resource {
        budget: this.budget,
        sink: &mut *this.sink,
        uncollected: &mut *this.uncollected,
        found: this.found,
    }
}

/// One of `resourceSpans` or `resourceLogs`. The resource may stand behind its scopes, so the items wait for its end.
struct Resource<'a> {
    budget: &'a Budget,
    sink: &'a mut Sink,
    uncollected: &'a mut u64,
    found: Kind,
}

impl<'de> DeserializeSeed<'de> for Resource<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        let mut parts = Parts {
            room: self.sink.room(),
            ..Parts::default()
        };
        ResourceBody {
            budget: self.budget,
            parts: &mut parts,
        }
        .deserialize(deserializer)?;
        *self.uncollected += parts.uncollected;
        let mut scopes = Scopes::new(parts.resource, &parts.schema_url);
        let wanted = self.sink.kind();
        for scope in parts.scopes {
            scopes.enter(scope.scope, &scope.schema_url);
            for raw in scope.items {
                self.sink.item(&mut scopes, || match (wanted, self.found) {
                    (Kind::Span, Kind::Log) => Err(Fault::LogRecord),
                    (Kind::Log, Kind::Span) => Err(Fault::Span),
                    _ => item(raw.get(), wanted, self.budget),
                });
            }
        }
        Ok(())
    }
}

/// What one resource holds, in the order of its own keys.
#[derive(Default)]
struct Parts<'d> {
    resource: Vec<wire::KeyValue>,
    schema_url: String,
    scopes: Vec<ScopeParts<'d>>,
    /// How many more items the request may hold, and how many were found beyond.
    room: usize,
    uncollected: u64,
}

#[derive(Default)]
struct ScopeParts<'d> {
    scope: wire::Scope,
    schema_url: String,
    items: Vec<&'d RawValue>,
}

object! {
    ResourceBody<'a, 'd> for <'_, 'de> { budget: &'a Budget, parts: &'a mut Parts<'d> },
    |this, map| {
        "resource" => map.next_value_seed(ResourceFields {
            budget: this.budget,
            attributes: &mut this.parts.resource,
        })?,
        "schemaUrl" | "schema_url" => this.parts.schema_url = map.next_value_seed(Text)?,
        "scopeSpans" | "scope_spans" | "instrumentationLibrarySpans"
        | "scopeLogs" | "scope_logs" | "instrumentationLibraryLogs" => {
            map.next_value_seed(ScopeList { budget: this.budget, parts: &mut *this.parts })?;
        },
    }
}

object! {
    ResourceFields<'a> for <'_> { budget: &'a Budget, attributes: &'a mut Vec<wire::KeyValue> },
    |this, map| {
        "attributes" => map.next_value_seed(Attributes {
            budget: this.budget,
            list: &mut *this.attributes,
            dropped: &mut 0,
        })?,
    }
}

list! {
    ScopeList<'a, 'd> for <'_, 'de> { budget: &'a Budget, parts: &'a mut Parts<'d> },
    |this| OneScope { budget: this.budget, parts: &mut *this.parts }
}

struct OneScope<'a, 'd> {
    budget: &'a Budget,
    parts: &'a mut Parts<'d>,
}

impl<'de> DeserializeSeed<'de> for OneScope<'_, 'de> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        let mut scope = ScopeParts::default();
        ScopeBody {
            budget: self.budget,
            scope: &mut scope,
            room: &mut self.parts.room,
            uncollected: &mut self.parts.uncollected,
        }
        .deserialize(deserializer)?;
        // Empty scopes are three bytes of a body and would be many times that here.
        if !scope.items.is_empty() {
            self.parts.scopes.push(scope);
        }
        Ok(())
    }
}

object! {
    ScopeBody<'a, 'd> for <'_, 'de> {
        budget: &'a Budget,
        scope: &'a mut ScopeParts<'d>,
        room: &'a mut usize,
        uncollected: &'a mut u64,
    },
    |this, map| {
        "scope" | "instrumentationLibrary" => map.next_value_seed(ScopeFields {
            budget: this.budget,
            scope: &mut this.scope.scope,
        })?,
        "schemaUrl" | "schema_url" => this.scope.schema_url = map.next_value_seed(Text)?,
        "spans" | "logRecords" | "log_records" => map.next_value_seed(Items {
            items: &mut this.scope.items,
            room: &mut *this.room,
            uncollected: &mut *this.uncollected,
        })?,
    }
}

object! {
    ScopeFields<'a> for <'_> { budget: &'a Budget, scope: &'a mut wire::Scope },
    |this, map| {
        "name" => this.scope.name = map.next_value_seed(Text)?,
        "version" => this.scope.version = map.next_value_seed(Text)?,
        "attributes" => map.next_value_seed(Attributes {
            budget: this.budget,
            list: &mut this.scope.attributes,
            dropped: &mut 0,
        })?,
    }
}

/// The items, not read yet.
struct Items<'a, 'd> {
    items: &'a mut Vec<&'d RawValue>,
    room: &'a mut usize,
    uncollected: &'a mut u64,
}

impl<'de> DeserializeSeed<'de> for Items<'_, 'de> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Items<'_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while let Some(raw) = seq.next_element::<&'de RawValue>()? {
            if *self.room > 0 {
                *self.room -= 1;
                self.items.push(raw);
            } else {
                *self.uncollected += 1;
            }
        }
        Ok(())
    }
}

fn item(text: &str, wanted: Kind, budget: &Budget) -> Result<Item, Fault> {
    match read_item(text, wanted, budget) {
        Err(_) if text.contains("\\u") => {
            // Perhaps only half of an emoji, and then not worth a span.
            read_item(&mend_surrogates(text), wanted, budget)
        }
        read => read,
    }
    .map_err(|error| Fault::Malformed(error.to_string()))
}

fn read_item(text: &str, wanted: Kind, budget: &Budget) -> Result<Item, Damaged> {
    // What a failed first reading left behind is no concern of the second.
    budget.take_overflow();
    let mut item = serde_json::Deserializer::from_str(text);
    // `null` would pass for an object without fields.
    Ok(match wanted {
        Kind::Span => {
            let mut span = Box::<wire::Span>::default();
            SpanFields {
                budget,
                span: &mut span,
            }
            .deserialize(&mut item)?;
            Item::Span(span)
        }
        Kind::Log => {
            let mut log = Box::<wire::LogRecord>::default();
            LogFields {
                budget,
                log: &mut log,
            }
            .deserialize(&mut item)?;
            Item::Log(log)
        }
    })
}

/// Replaces escaped halves of surrogate pairs that stand alone by U+FFFD.
pub(crate) fn mend_surrogates(json: &str) -> Cow<'_, str> {
    let unit = |rest: &str| -> Option<u16> {
        let digits = rest.strip_prefix("\\u")?.get(..4)?;
        u16::from_str_radix(digits, 16).ok()
    };
    let mut mended = String::new();
    let mut rest = json;
    while let Some(at) = rest.find('\\') {
        let (before, escape) = rest.split_at(at);
        mended.push_str(before);
        // An escape is two characters, or `\uXXXX`, or a pair of those.
        let (kept, length) = match unit(escape) {
            Some(0xd800..=0xdbff) => match escape.get(6..).and_then(unit) {
                Some(0xdc00..=0xdfff) => (true, 12),
                _ => (false, 6),
            },
            Some(0xdc00..=0xdfff) => (false, 6),
            _ => (true, 2),
        };
        let (escape, after) = escape.split_at_checked(length).unwrap_or((escape, ""));
        mended.push_str(if kept { escape } else { "\u{fffd}" });
        rest = after;
    }
    if mended.is_empty() {
        return Cow::Borrowed(json);
    }
    mended.push_str(rest);
    Cow::Owned(mended)
}

// The items.

object! {
    SpanFields<'a> for <'_> { budget: &'a Budget, span: &'a mut wire::Span },
    |this, map| {
        "traceId" | "trace_id" => this.span.trace_id = map.next_value_seed(Id(16))?,
        "spanId" | "span_id" => this.span.span_id = map.next_value_seed(Id(8))?,
        "parentSpanId" | "parent_span_id" => this.span.parent_span_id = map.next_value_seed(Id(8))?,
        "traceState" | "trace_state" => this.span.trace_state = map.next_value_seed(Text)?,
        "name" => this.span.name = map.next_value_seed(Text)?,
        "kind" => this.span.kind = map.next_value_seed(Enum(&SPAN_KINDS))?,
        "startTimeUnixNano" | "start_time_unix_nano" => {
            this.span.start_time_unix_nano = map.next_value_seed(Time)?;
        },
        "endTimeUnixNano" | "end_time_unix_nano" => {
            this.span.end_time_unix_nano = map.next_value_seed(Time)?;
        },
        "attributes" => map.next_value_seed(Attributes {
            budget: this.budget,
            list: &mut this.span.attributes,
            dropped: &mut this.span.dropped_attributes_count,
        })?,
        "droppedAttributesCount" | "dropped_attributes_count" => {
            map.next_value_seed(Count(&mut this.span.dropped_attributes_count))?;
        },
        "events" => map.next_value_seed(Events { budget: this.budget, span: &mut *this.span })?,
        "droppedEventsCount" | "dropped_events_count" => {
            map.next_value_seed(Count(&mut this.span.dropped_events_count))?;
        },
        "links" => map.next_value_seed(Links { budget: this.budget, span: &mut *this.span })?,
        "droppedLinksCount" | "dropped_links_count" => {
            map.next_value_seed(Count(&mut this.span.dropped_links_count))?;
        },
        "status" => map.next_value_seed(StatusFields {
            status: this.span.status.get_or_insert_default(),
        })?,
        "flags" => map.next_value_seed(Count(&mut this.span.flags))?,
    }
}

object! {
    StatusFields<'a> for <'_> { status: &'a mut wire::Status },
    |this, map| {
        "message" => this.status.message = map.next_value_seed(Text)?,
        "code" => this.status.code = map.next_value_seed(Enum(&STATUS_CODES))?,
    }
}

list! {
    Events<'a> for <'_> { budget: &'a Budget, span: &'a mut wire::Span },
    |this| OneEvent { budget: this.budget, span: &mut *this.span }
}

/// A span event, or one too many.
struct OneEvent<'a> {
    budget: &'a Budget,
    span: &'a mut wire::Span,
}

impl<'de> DeserializeSeed<'de> for OneEvent<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        if self.span.events.len() >= self.budget.list || !self.budget.spend(1) {
            self.budget.take_overflow();
            self.budget.leave_out(&mut self.span.dropped_events_count);
            return IgnoredAny::deserialize(deserializer).map(|_| ());
        }
        let mut event = wire::SpanEvent::default();
        EventFields {
            budget: self.budget,
            event: &mut event,
        }
        .deserialize(deserializer)?;
        self.span.events.push(event);
        Ok(())
    }
}

object! {
    EventFields<'a> for <'_> { budget: &'a Budget, event: &'a mut wire::SpanEvent },
    |this, map| {
        "timeUnixNano" | "time_unix_nano" => this.event.time_unix_nano = map.next_value_seed(Time)?,
        "name" => this.event.name = map.next_value_seed(Text)?,
        "attributes" => map.next_value_seed(Attributes {
            budget: this.budget,
            list: &mut this.event.attributes,
            dropped: &mut this.event.dropped_attributes_count,
        })?,
        "droppedAttributesCount" | "dropped_attributes_count" => {
            map.next_value_seed(Count(&mut this.event.dropped_attributes_count))?;
        },
    }
}

list! {
    Links<'a> for <'_> { budget: &'a Budget, span: &'a mut wire::Span },
    |this| OneLink { budget: this.budget, span: &mut *this.span }
}

/// A link, or one too many.
struct OneLink<'a> {
    budget: &'a Budget,
    span: &'a mut wire::Span,
}

impl<'de> DeserializeSeed<'de> for OneLink<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        if self.span.links.len() >= self.budget.list || !self.budget.spend(1) {
            self.budget.take_overflow();
            self.budget.leave_out(&mut self.span.dropped_links_count);
            return IgnoredAny::deserialize(deserializer).map(|_| ());
        }
        let mut link = wire::Link::default();
        LinkFields {
            budget: self.budget,
            link: &mut link,
        }
        .deserialize(deserializer)?;
        self.span.links.push(link);
        Ok(())
    }
}

object! {
    LinkFields<'a> for <'_> { budget: &'a Budget, link: &'a mut wire::Link },
    |this, map| {
        "traceId" | "trace_id" => this.link.trace_id = map.next_value_seed(Id(16))?,
        "spanId" | "span_id" => this.link.span_id = map.next_value_seed(Id(8))?,
        "traceState" | "trace_state" => this.link.trace_state = map.next_value_seed(Text)?,
        "attributes" => map.next_value_seed(Attributes {
            budget: this.budget,
            list: &mut this.link.attributes,
            dropped: &mut this.link.dropped_attributes_count,
        })?,
        "droppedAttributesCount" | "dropped_attributes_count" => {
            map.next_value_seed(Count(&mut this.link.dropped_attributes_count))?;
        },
        "flags" => map.next_value_seed(Count(&mut this.link.flags))?,
    }
}

object! {
    LogFields<'a> for <'_> { budget: &'a Budget, log: &'a mut wire::LogRecord },
    |this, map| {
        "timeUnixNano" | "time_unix_nano" => this.log.time_unix_nano = map.next_value_seed(Time)?,
        "observedTimeUnixNano" | "observed_time_unix_nano" => {
            this.log.observed_time_unix_nano = map.next_value_seed(Time)?;
        },
        "severityNumber" | "severity_number" => {
            this.log.severity_number = map.next_value_seed(Enum(&SEVERITIES))?;
        },
        "severityText" | "severity_text" => this.log.severity_text = map.next_value_seed(Text)?,
        "eventName" | "event_name" => this.log.event_name = map.next_value_seed(Text)?,
        "body" => {
            this.log.body = map.next_value_seed(Any { budget: this.budget, depth: 1 })?.map(some);
            if this.budget.take_overflow() {
                this.log.body = None;
                this.budget.leave_out(&mut this.log.dropped_attributes_count);
            }
        },
        "attributes" => map.next_value_seed(Attributes {
            budget: this.budget,
            list: &mut this.log.attributes,
            dropped: &mut this.log.dropped_attributes_count,
        })?,
        "droppedAttributesCount" | "dropped_attributes_count" => {
            map.next_value_seed(Count(&mut this.log.dropped_attributes_count))?;
        },
        "flags" => map.next_value_seed(Count(&mut this.log.flags))?,
        "traceId" | "trace_id" => this.log.trace_id = map.next_value_seed(Id(16))?,
        "spanId" | "span_id" => this.log.span_id = map.next_value_seed(Id(8))?,
    }
}

// Attributes.

/// `[{"key": .., "value": ..}]`, or the `{key: value}` that hand-written producers send.
struct Attributes<'a> {
    budget: &'a Budget,
    list: &'a mut Vec<wire::KeyValue>,
    dropped: &'a mut u32,
}

impl Attributes<'_> {
    fn is_full(&self) -> bool {
        self.list.len() >= self.budget.list
    }

    fn take(&mut self, pair: wire::KeyValue) {
        if self.budget.take_overflow() {
            self.budget.leave_out(self.dropped);
        } else {
            self.list.push(pair);
        }
    }
}

impl<'de> DeserializeSeed<'de> for Attributes<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Attributes<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of attributes")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut seq: A) -> Result<(), A::Error> {
        loop {
            if self.is_full() {
                if seq.next_element::<IgnoredAny>()?.is_none() {
                    return Ok(());
                }
                self.budget.leave_out(self.dropped);
            } else {
                let mut pair = wire::KeyValue::default();
                let seed = Pair {
                    budget: self.budget,
                    depth: 1,
                    pair: &mut pair,
                };
                if seq.next_element_seed(seed)?.is_none() {
                    return Ok(());
                }
                self.take(pair);
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        while let Some(Key(key)) = map.next_key()? {
            if self.is_full() {
                map.next_value::<IgnoredAny>()?;
                self.budget.leave_out(self.dropped);
            } else {
                let seed = Any {
                    budget: self.budget,
                    depth: 1,
                };
                let value = map.next_value_seed(seed)?.map(some);
                self.take(wire::KeyValue {
                    key: key.into_owned(),
                    value,
                });
            }
        }
        Ok(())
    }
}

/// A `KeyValue`. One without a value costs as much as one with.
struct Pair<'a> {
    budget: &'a Budget,
    depth: usize,
    pair: &'a mut wire::KeyValue,
}

impl<'de> DeserializeSeed<'de> for Pair<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        let mut has_value = false;
        PairFields {
            budget: self.budget,
            depth: &self.depth,
            pair: self.pair,
            has_value: &mut has_value,
        }
        .deserialize(deserializer)?;
        if !has_value {
            self.budget.spend(self.depth);
        }
        Ok(())
    }
}

object! {
    PairFields<'a> for <'_> {
        budget: &'a Budget,
        depth: &'a usize,
        pair: &'a mut wire::KeyValue,
        has_value: &'a mut bool,
    },
    |this, map| {
        "key" => this.pair.key = map.next_value_seed(Text)?,
        "value" => {
            *this.has_value = true;
            let seed = Any { budget: this.budget, depth: *this.depth };
            this.pair.value = map.next_value_seed(seed)?.map(some);
        },
    }
}

fn some(value: Value) -> wire::AnyValue {
    wire::AnyValue { value: Some(value) }
}

/// An `AnyValue`; `None` is null, or what overflowed the budget.
struct Any<'a> {
    budget: &'a Budget,
    depth: usize,
}

impl<'de> DeserializeSeed<'de> for Any<'_> {
    type Value = Option<Value>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        if self.budget.overflowed() || !self.budget.spend(self.depth) {
            return IgnoredAny::deserialize(deserializer).map(|_| None);
        }
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Any<'_> {
    type Value = Option<Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Self::Value, E> {
        Ok(Some(Value::Bool(value)))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Self::Value, E> {
        Ok(Some(Value::Int(value)))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Self::Value, E> {
        Ok(Some(match i64::try_from(value) {
            Ok(value) => Value::Int(value),
            Err(_) => Value::Double(value as f64),
        }))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Self::Value, E> {
        Ok(Some(Value::Double(value)))
    }

    fn visit_str<E>(self, value: &str) -> Result<Self::Value, E> {
        Ok(Some(Value::String(value.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut values = Vec::new();
        loop {
            let element = Any {
                budget: self.budget,
                depth: self.depth + 1,
            };
            match seq.next_element_seed(element)? {
                None => return Ok(Some(Value::Array(wire::ArrayValue { values }))),
                Some(_) if self.budget.overflowed() => {}
                Some(value) => values.push(wire::AnyValue { value }),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut value = None;
        while let Some(Key(key)) = map.next_key()? {
            // A scalar costs what its `AnyValue` has paid already.
            let scalar = |map: &mut A| map.next_value_seed(Scalar);
            match key.as_ref() {
                "stringValue" | "string_value" => {
                    value = Some(Value::String(map.next_value_seed(Text)?));
                }
                "boolValue" | "bool_value" => value = scalar(&mut map)?.map(as_bool),
                "intValue" | "int_value" => value = scalar(&mut map)?.map(as_int),
                "doubleValue" | "double_value" => value = scalar(&mut map)?.map(as_double),
                "bytesValue" | "bytes_value" => value = scalar(&mut map)?.map(as_bytes),
                "arrayValue" | "array_value" => {
                    let mut values = Vec::new();
                    map.next_value_seed(ArrayFields {
                        budget: self.budget,
                        depth: &(self.depth + 1),
                        values: &mut values,
                    })?;
                    value = Some(Value::Array(wire::ArrayValue { values }));
                }
                "kvlistValue" | "kvlist_value" => {
                    let mut values = Vec::new();
                    map.next_value_seed(MapFields {
                        budget: self.budget,
                        depth: &(self.depth + 1),
                        values: &mut values,
                    })?;
                    value = Some(Value::Map(wire::KeyValueList { values }));
                }
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(value)
    }
}

object! {
    ArrayFields<'a> for <'_> {
        budget: &'a Budget,
        depth: &'a usize,
        values: &'a mut Vec<wire::AnyValue>,
    },
    |this, map| {
        "values" => map.next_value_seed(Elements {
            budget: this.budget,
            depth: this.depth,
            values: &mut *this.values,
        })?,
    }
}

list! {
    Elements<'a> for <'_> {
        budget: &'a Budget,
        depth: &'a usize,
        values: &'a mut Vec<wire::AnyValue>,
    },
    |this| Element {
        budget: this.budget,
        depth: *this.depth,
        values: &mut *this.values,
    }
}

struct Element<'a> {
    budget: &'a Budget,
    depth: usize,
    values: &'a mut Vec<wire::AnyValue>,
}

impl<'de> DeserializeSeed<'de> for Element<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        let any = Any {
            budget: self.budget,
            depth: self.depth,
        };
        let value = any.deserialize(deserializer)?;
        if !self.budget.overflowed() {
            self.values.push(wire::AnyValue { value });
        }
        Ok(())
    }
}

object! {
    MapFields<'a> for <'_> {
        budget: &'a Budget,
        depth: &'a usize,
        values: &'a mut Vec<wire::KeyValue>,
    },
    |this, map| {
        "values" => map.next_value_seed(Pairs {
            budget: this.budget,
            depth: this.depth,
            values: &mut *this.values,
        })?,
    }
}

list! {
    Pairs<'a> for <'_> {
        budget: &'a Budget,
        depth: &'a usize,
        values: &'a mut Vec<wire::KeyValue>,
    },
    |this| OnePair {
        budget: this.budget,
        depth: *this.depth,
        values: &mut *this.values,
    }
}

struct OnePair<'a> {
    budget: &'a Budget,
    depth: usize,
    values: &'a mut Vec<wire::KeyValue>,
}

impl<'de> DeserializeSeed<'de> for OnePair<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        let mut pair = wire::KeyValue::default();
        Pair {
            budget: self.budget,
            depth: self.depth,
            pair: &mut pair,
        }
        .deserialize(deserializer)?;
        if !self.budget.overflowed() {
            self.values.push(pair);
        }
        Ok(())
    }
}

// Leaves. A leaf of the wrong type is never worth a span: it becomes the nearest thing it can be.

/// A key, borrowed where it can be.
struct Key<'d>(Cow<'d, str>);

impl<'de> Deserialize<'de> for Key<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Read;
        impl<'de> Visitor<'de> for Read {
            type Value = Key<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a key")
            }

            fn visit_borrowed_str<E>(self, key: &'de str) -> Result<Key<'de>, E> {
                Ok(Key(Cow::Borrowed(key)))
            }

            fn visit_str<E>(self, key: &str) -> Result<Key<'de>, E> {
                Ok(Key(Cow::Owned(key.to_owned())))
            }
        }
        deserializer.deserialize_str(Read)
    }
}

/// A value without parts; lists and objects read as `None`, as `null` does.
enum Leaf<'d> {
    Bool(bool),
    Int(i64),
    Large(u64),
    Double(f64),
    Text(Cow<'d, str>),
}

struct Scalar;

impl<'de> DeserializeSeed<'de> for Scalar {
    type Value = Option<Leaf<'de>>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Scalar {
    type Value = Option<Leaf<'de>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Self::Value, E> {
        Ok(Some(Leaf::Bool(value)))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Self::Value, E> {
        Ok(Some(Leaf::Int(value)))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Self::Value, E> {
        Ok(Some(
            i64::try_from(value).map_or(Leaf::Large(value), Leaf::Int),
        ))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Self::Value, E> {
        Ok(Some(Leaf::Double(value)))
    }

    fn visit_borrowed_str<E>(self, value: &'de str) -> Result<Self::Value, E> {
        Ok(Some(Leaf::Text(Cow::Borrowed(value))))
    }

    fn visit_str<E>(self, value: &str) -> Result<Self::Value, E> {
        Ok(Some(Leaf::Text(Cow::Owned(value.to_owned()))))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(None)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(None)
    }
}

/// Makes a seed out of what a leaf is read as.
macro_rules! leaf {
    ($(#[$doc:meta])* $name:ident $(($field:ident: $type:ty))? -> $value:ty, |$leaf:ident| $read:expr) => {
        $(#[$doc])*
        struct $name $(($type))?;

        impl<'de> DeserializeSeed<'de> for $name {
            type Value = $value;

            fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<$value, D::Error> {
                $(let Self($field) = self;)?
                let $leaf = Scalar.deserialize(deserializer)?;
                Ok($read)
            }
        }
    };
}

leaf! {
    Text -> String, |leaf| match leaf {
        None => String::new(),
        Some(Leaf::Text(text)) => text.into_owned(),
        Some(Leaf::Bool(value)) => value.to_string(),
        Some(Leaf::Int(value)) => value.to_string(),
        Some(Leaf::Large(value)) => value.to_string(),
        Some(Leaf::Double(value)) => value.to_string(),
    }
}

leaf! {
    /// An id of so many bytes; what is none comes out with a length that no id has.
    Id(length: usize) -> Bytes, |leaf| match leaf {
        None => Bytes::new(),
        Some(Leaf::Text(text)) => id(text.trim(), length),
        Some(_) => NO_ID,
    }
}

leaf! {
    /// Nanoseconds; what is no time comes out beyond every time.
    Time -> u64, |leaf| match leaf {
        None => 0,
        Some(Leaf::Text(text)) if text.trim().is_empty() => 0,
        Some(leaf) => as_u64(&leaf).unwrap_or(u64::MAX),
    }
}

leaf! {
    /// An enum by ordinal or by name.
    Enum(names: &'static [(&'static str, i32)]) -> i32, |leaf| match leaf {
        Some(Leaf::Int(ordinal)) => i32::try_from(ordinal).unwrap_or(0),
        Some(Leaf::Double(ordinal)) if ordinal.fract() == 0.0 => ordinal as i32,
        Some(Leaf::Text(name)) => ordinal(name.trim(), names),
        _ => 0,
    }
}

/// Adds a `uint32` to a place, which may hold a count of ours already.
struct Count<'a>(&'a mut u32);

impl<'de> DeserializeSeed<'de> for Count<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        let leaf = Scalar.deserialize(deserializer)?;
        let number = leaf.as_ref().and_then(as_u64).unwrap_or(0);
        *self.0 = self
            .0
            .saturating_add(u32::try_from(number).unwrap_or(u32::MAX));
        Ok(())
    }
}

fn as_u64(leaf: &Leaf<'_>) -> Option<u64> {
    match leaf {
        Leaf::Int(value) => u64::try_from(*value).ok(),
        Leaf::Large(value) => Some(*value),
        Leaf::Double(value) => whole(*value).and_then(|value| u64::try_from(value).ok()),
        Leaf::Text(text) => {
            let text = text.trim();
            text.parse().ok().or_else(|| {
                let value = whole(text.parse().ok()?)?;
                u64::try_from(value).ok()
            })
        }
        Leaf::Bool(_) => None,
    }
}

/// A double that is an integer of 63 bits.
fn whole(value: f64) -> Option<i64> {
    (value.fract() == 0.0 && value.abs() < 9.2e18).then_some(value as i64)
}

fn as_bool(leaf: Leaf<'_>) -> Value {
    match leaf {
        Leaf::Bool(value) => Value::Bool(value),
        Leaf::Text(text) if text == "true" => Value::Bool(true),
        Leaf::Text(text) if text == "false" => Value::Bool(false),
        leaf => as_is(leaf),
    }
}

fn as_int(leaf: Leaf<'_>) -> Value {
    match leaf {
        Leaf::Double(value) => whole(value).map_or(Value::Double(value), Value::Int),
        Leaf::Text(text) => match text.trim().parse() {
            Ok(value) => Value::Int(value),
            Err(_) => Value::String(text.into_owned()),
        },
        leaf => as_is(leaf),
    }
}

fn as_double(leaf: Leaf<'_>) -> Value {
    match leaf {
        Leaf::Int(value) => Value::Double(value as f64),
        // Also "NaN", "Infinity" and "-Infinity", which protobuf's JSON mapping writes as text.
        Leaf::Text(text) => match text.trim().parse::<f64>() {
            Ok(value) if value.is_nan() => Value::Double(f64::NAN),
            Ok(value) => Value::Double(value),
            Err(_) => Value::String(text.into_owned()),
        },
        leaf => as_is(leaf),
    }
}

fn as_bytes(leaf: Leaf<'_>) -> Value {
    match leaf {
        Leaf::Text(text) => match decode_base64(text.trim()) {
            Some(bytes) => Value::Bytes(Bytes::from(bytes)),
            None => Value::String(text.into_owned()),
        },
        leaf => as_is(leaf),
    }
}

fn as_is(leaf: Leaf<'_>) -> Value {
    match leaf {
        Leaf::Bool(value) => Value::Bool(value),
        Leaf::Int(value) => Value::Int(value),
        Leaf::Large(value) => Value::Double(value as f64),
        Leaf::Double(value) => Value::Double(value),
        Leaf::Text(text) => Value::String(text.into_owned()),
    }
}

/// One byte: neither "no id" nor an id.
const NO_ID: Bytes = Bytes::from_static(b"?");

/// Hex as OTLP/JSON says, or base64 as protobuf's JSON mapping would have it; a text of one is never one of the other,
/// for their lengths differ.
fn id(text: &str, length: usize) -> Bytes {
    if text.is_empty() {
        return Bytes::new();
    }
    let bytes = if text.len() == 2 * length {
        decode_hex(text)
    } else if text.len() == 36 && length == 16 {
        // A UUID library's dashes.
        decode_hex(&text.replace('-', ""))
    } else {
        decode_base64(text)
    };
    bytes
        .filter(|bytes| bytes.len() == length)
        .map_or(NO_ID, Bytes::from)
}

fn decode_hex(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u8> = text
        .chars()
        .map(|digit| {
            digit
                .to_digit(16)
                .and_then(|digit| u8::try_from(digit).ok())
        })
        .collect::<Option<_>>()?;
    let (pairs, rest) = digits.as_chunks::<2>();
    rest.is_empty()
        .then(|| pairs.iter().map(|[high, low]| high << 4 | low).collect())
}

fn decode_base64(text: &str) -> Option<Vec<u8>> {
    const LENIENT: GeneralPurposeConfig = GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true);
    const STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, LENIENT);
    const URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, LENIENT);
    STANDARD
        .decode(text)
        .or_else(|_| URL_SAFE.decode(text))
        .ok()
}

/// A name with or without its prefix, in any case; an unknown one is 0, "unspecified".
fn ordinal(name: &str, names: &[(&str, i32)]) -> i32 {
    if let Ok(number) = name.parse() {
        return number;
    }
    let name = name.to_ascii_uppercase();
    names
        .iter()
        .find(|(known, _)| {
            name.strip_suffix(known)
                .is_some_and(|prefix| prefix.is_empty() || prefix.ends_with('_'))
        })
        .map_or(0, |(_, ordinal)| *ordinal)
}

const SPAN_KINDS: [(&str, i32); 5] = [
    ("INTERNAL", 1),
    ("SERVER", 2),
    ("CLIENT", 3),
    ("PRODUCER", 4),
    ("CONSUMER", 5),
];

const STATUS_CODES: [(&str, i32); 2] = [("OK", 1), ("ERROR", 2)];

const SEVERITIES: [(&str, i32); 24] = [
    ("TRACE", 1),
    ("TRACE2", 2),
    ("TRACE3", 3),
    ("TRACE4", 4),
    ("DEBUG", 5),
    ("DEBUG2", 6),
    ("DEBUG3", 7),
    ("DEBUG4", 8),
    ("INFO", 9),
    ("INFO2", 10),
    ("INFO3", 11),
    ("INFO4", 12),
    ("WARN", 13),
    ("WARN2", 14),
    ("WARN3", 15),
    ("WARN4", 16),
    ("ERROR", 17),
    ("ERROR2", 18),
    ("ERROR3", 19),
    ("ERROR4", 20),
    ("FATAL", 21),
    ("FATAL2", 22),
    ("FATAL3", 23),
    ("FATAL4", 24),
];
