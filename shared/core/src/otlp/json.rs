//! OTLP/JSON as it is found in the wild, not only as it is specified.
//!
//! Accepted beyond the specification: ids in base64 beside hex, 64-bit numbers as numbers beside strings, enum names beside
//! ordinals, `snake_case` keys beside `lowerCamelCase`, bare values where an `AnyValue` belongs, `null` for anything,
//! lone surrogates (JavaScript cuts strings in the middle of an emoji), bytes that are no UTF-8 inside strings. Items are
//! found first and read one by one, straight into [`crate::wire`] structs: no tree of the document is ever built.

#[macro_use]
mod seeds;
mod fields;
mod leaf;
mod value;

use std::{borrow::Cow, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::value::RawValue;

pub(super) use self::leaf::id;
use self::{
    fields::{LogFields, SpanFields},
    leaf::{Key, Text},
    value::Attributes,
};
use super::{
    budget::Budget,
    item::{Fault, Item, Kind, Scopes, Sink},
};
use crate::wire;

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

// The envelope, down to the items' boundaries.

object! {
    Request<'a> for <'_> { budget: &'a Budget, sink: &'a mut Sink, uncollected: &'a mut u64 },
    |this, map| {
        "resourceSpans" | "resource_spans" | "batches" => map.next_value_seed(Resources {
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
        // Tempo and Jaeger answer queries with an export in a wrapper.
        "trace" | "result" => map.next_value_seed(Request {
            budget: this.budget,
            sink: &mut *this.sink,
            uncollected: &mut *this.uncollected,
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
                    _ => item(raw.get(), self.found, self.budget),
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

pub(super) fn item(text: &str, wanted: Kind, budget: &Budget) -> Result<Item<'static>, Fault> {
    match read_item(text, wanted, budget) {
        Err(_) if text.contains("\\u") => {
            // Perhaps only half of an emoji, and then not worth a span.
            read_item(&mend_surrogates(text), wanted, budget)
        }
        read => read,
    }
    .map_err(|error| {
        budget.note_fault(text, error.line(), error.column());
        Fault::Malformed(error.to_string())
    })
}

fn read_item(text: &str, wanted: Kind, budget: &Budget) -> Result<Item<'static>, Damaged> {
    // What a failed first reading left behind is no concern of the second.
    budget.take_overflow();
    let mut item = serde_json::Deserializer::from_str(text);
    // `null` would pass for an object without fields.
    Ok(match wanted {
        Kind::Span | Kind::Either => {
            let mut span = Box::<wire::Span>::default();
            SpanFields {
                budget,
                span: &mut span,
            }
            .deserialize(&mut item)?;
            if let Some(names) = &budget.names {
                names.complete(&mut span);
            }
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
