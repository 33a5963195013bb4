//! OTLP out of files: many documents, spans and log records mixed, ids of any form. What a file is made of is `crate::files`' to know.

use std::collections::HashMap;

use super::{
    Decoded,
    budget::{Budget, FaultAt},
    item::{Item, Kind, Scopes, Sink},
    json, protobuf,
};
use crate::{
    limits::Limits,
    observed::Incoming,
    wire::{self, any_value::Value},
};

/// Items of one file, in the order in which they stand there.
pub(crate) struct Reading {
    budget: Budget,
    sink: Sink,
}

/// What was read of a file.
pub(crate) struct Read {
    pub(crate) decoded: Decoded,
    /// The ids of traces that were not spelled as 32 lower-case hex digits.
    pub(crate) spelled: HashMap<[u8; 16], String>,
    /// Where the first unreadable item is.
    pub(crate) fault: Option<FaultAt>,
}

impl Reading {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self {
            budget: Budget::of_file(limits),
            sink: Sink::new(Kind::Either, limits),
        }
    }

    /// The text in which all that is read as JSON lies.
    pub(crate) fn enter_text(&self, text: &str) {
        self.budget.enter_text(text);
    }

    /// One export, of traces or of logs, with or without a wrapper.
    ///
    /// # Errors
    /// It is no export; the place is within this document.
    pub(crate) fn export(&mut self, document: &str) -> Result<(), serde_json::Error> {
        json::export_request(document.as_bytes(), &self.budget, &mut self.sink)
    }

    /// One span or log record that stands alone.
    pub(crate) fn item(&mut self, document: &str, is_log: bool) {
        let kind = if is_log { Kind::Log } else { Kind::Span };
        let budget = &self.budget;
        let mut item = json::item(document, kind, budget);
        let scope = match &mut item {
            Ok(Item::Span(span)) => take_scope(&mut span.attributes),
            Ok(Item::Log(log)) => take_scope(&mut log.attributes),
            _ => wire::Scope::default(),
        };
        self.sink
            .item(&mut Origin::new(Vec::new(), scope).0, || item);
    }

    /// A native event of the trace that is spelled so. Repeats are dropped.
    pub(crate) fn native(&mut self, trace: &str, event: Incoming) {
        if let Some(names) = &self.budget.names
            && let Ok(id) = <[u8; 16]>::try_from(names.id(trace, 16).as_ref())
        {
            self.sink.native(id, event);
        }
    }

    /// One export in protobuf. `false`: it is none.
    pub(crate) fn protobuf(&mut self, body: &[u8]) -> bool {
        protobuf::export_request(body, &self.budget, &mut self.sink).is_ok()
    }

    /// One span of another format, its ids as they are spelled.
    pub(crate) fn span(&mut self, origin: &mut Origin, ids: Ids<'_>, mut span: wire::Span) {
        if let Some(names) = &self.budget.names {
            span.trace_id = names.id(ids.trace, 16);
            span.span_id = names.id(ids.span, 8);
            span.parent_span_id = names.id(ids.parent, 8);
            for (link, (trace, linked)) in span.links.iter_mut().zip(ids.links) {
                link.trace_id = names.id(trace, 16);
                link.span_id = names.id(linked, 8);
            }
            names.complete(&mut span);
        }
        self.sink
            .item(&mut origin.0, || Ok(Item::Span(Box::new(span))));
    }

    pub(crate) fn finish(mut self) -> Read {
        let fault = self.budget.fault();
        let names = self.budget.names.take();
        Read {
            decoded: self.sink.finish(0, &self.budget),
            spelled: names
                .map(super::names::Names::into_spelled)
                .unwrap_or_default(),
            fault,
        }
    }
}

/// The resource and scope of spans that follow each other.
pub(crate) struct Origin(Scopes);

impl Origin {
    pub(crate) fn new(resource: Vec<wire::KeyValue>, scope: wire::Scope) -> Self {
        let mut scopes = Scopes::new(resource, "");
        scopes.enter(scope, "");
        Self(scopes)
    }
}

/// The scope that a span without surroundings names in its attributes (OpenTelemetry's mapping to other formats).
pub(crate) fn take_scope(attributes: &mut Vec<wire::KeyValue>) -> wire::Scope {
    let mut scope = wire::Scope::default();
    attributes.retain_mut(|pair| {
        let place = match pair.key.as_str() {
            "otel.scope.name" | "otel.library.name" => &mut scope.name,
            "otel.scope.version" | "otel.library.version" => &mut scope.version,
            _ => return true,
        };
        match pair.value.as_mut().and_then(|value| value.value.as_mut()) {
            // The older key stands beside the newer one and says the same.
            Some(Value::String(text)) => {
                if place.is_empty() {
                    *place = std::mem::take(text).into();
                }
                false
            }
            _ => true,
        }
    });
    scope
}

/// The ids of a span, as spelled; empty for none.
pub(crate) struct Ids<'a> {
    pub(crate) trace: &'a str,
    pub(crate) span: &'a str,
    pub(crate) parent: &'a str,
    /// Of each link: trace and span.
    pub(crate) links: &'a [(String, String)],
}
