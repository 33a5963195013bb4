//! OTLP's protobuf, read by hand.
//!
//! A generated decoder refuses a whole message for one wrong byte and allocates what a length claims. This one hands every span
//! over alone, mends text that is not UTF-8 where it stands, and spends from a [`Budget`]. It knows the field numbers
//! of [`crate::wire`] (a property test holds the two together) and nothing of what the fields mean.

use bytes::Bytes;

use super::{
    budget::Budget,
    canonical,
    item::{Fault, Item, Kind, Scopes, Sink},
};
use crate::{
    protobuf::{Damaged, Fields, Raw, each_message},
    wire::{self, any_value::Value},
};

/// Walks an `ExportTraceServiceRequest` or `ExportLogsServiceRequest` and hands each item to the sink, in order.
pub(super) fn export_request(body: &[u8], budget: &Budget, sink: &mut Sink) -> Result<(), Damaged> {
    each_message(body, 1, |resource_items| {
        // The resource may stand after its scopes: field order is free.
        let mut resource = Vec::new();
        let mut schema_url = "";
        let mut fields = Fields(resource_items);
        while let Some((number, raw)) = fields.next()? {
            match (number, raw) {
                (1, Raw::Bytes(bytes)) => {
                    let mut dropped = 0;
                    each_message(bytes, 1, |attribute| {
                        push_attribute(&mut resource, &mut dropped, attribute, budget)
                    })?;
                }
                (3, Raw::Bytes(bytes)) => schema_url = std::str::from_utf8(bytes).unwrap_or(""),
                _ => {}
            }
        }
        let mut scopes = Scopes::new(resource, schema_url);
        each_message(resource_items, 2, |scope_items| {
            scope(scope_items, budget, &mut scopes, sink)
        })
    })
}

fn scope(
    bytes: &[u8],
    budget: &Budget,
    scopes: &mut Scopes,
    sink: &mut Sink,
) -> Result<(), Damaged> {
    let mut scope = wire::Scope::default();
    let mut schema_url = "";
    let mut fields = Fields(bytes);
    while let Some((number, raw)) = fields.next()? {
        match (number, raw) {
            (1, Raw::Bytes(bytes)) => merge_scope(&mut scope, bytes, budget)?,
            (3, Raw::Bytes(bytes)) => schema_url = std::str::from_utf8(bytes).unwrap_or(""),
            _ => {}
        }
    }
    scopes.enter(scope, schema_url);
    let kind = sink.kind();
    each_message(bytes, 2, |bytes| {
        sink.item(scopes, || item(bytes, kind, budget));
        Ok(())
    })
}

fn item<'a>(bytes: &'a [u8], wanted: Kind, budget: &Budget) -> Result<Item<'a>, Fault> {
    let wanted = match wanted {
        Kind::Either => nature(bytes).unwrap_or(Kind::Span),
        told => told,
    };
    let as_it_is = match wanted {
        Kind::Span | Kind::Either => canonical::span(bytes, budget),
        Kind::Log => canonical::log_record(bytes, budget),
    };
    if let Some(canonical) = as_it_is {
        return Ok(Item::Canonical(canonical, wanted));
    }
    let item = match (wanted, nature(bytes)) {
        (Kind::Span, Some(Kind::Log)) => return Err(Fault::LogRecord),
        (Kind::Log, Some(Kind::Span)) => return Err(Fault::Span),
        (Kind::Span | Kind::Either, _) => {
            span(bytes, budget).map(|span| Item::Span(Box::new(span)))
        }
        (Kind::Log, _) => log_record(bytes, budget).map(|log| Item::Log(Box::new(log))),
    };
    item.map_err(|Damaged| Fault::Malformed("its bytes are cut short or damaged".to_owned()))
}

/// `ResourceLogs` and `ResourceSpans` share field numbers, so the endpoint alone does not tell what a body is. A log record
/// has a fixed64 time where a span has its id (1) or its events (11); a span has its times at 7 and 8.
fn nature(item: &[u8]) -> Option<Kind> {
    let mut fields = Fields(item);
    while let Ok(Some((number, raw))) = fields.next() {
        match (number, raw) {
            (1 | 11, Raw::Fixed64(_)) => return Some(Kind::Log),
            (1, Raw::Bytes(_)) | (7 | 8, Raw::Fixed64(_)) => return Some(Kind::Span),
            _ => {}
        }
    }
    None
}

/// Checks that a body is a message all through its first two levels; for signals that are only answered.
pub(super) fn check(body: &[u8]) -> Result<(), Damaged> {
    each_message(body, 1, |resource| {
        let mut fields = Fields(resource);
        while fields.next()?.is_some() {}
        Ok(())
    })
}

fn span(message: &[u8], budget: &Budget) -> Result<wire::Span, Damaged> {
    let mut span = wire::Span::default();
    let mut fields = Fields(message);
    while let Some((number, raw)) = fields.next()? {
        match number {
            1 => span.trace_id = raw.id(),
            2 => span.span_id = raw.id(),
            3 => span.trace_state = raw.text(),
            4 => span.parent_span_id = raw.id(),
            5 => span.name = raw.text(),
            6 => span.kind = raw.int32(),
            7 => span.start_time_unix_nano = raw.uint64(),
            8 => span.end_time_unix_nano = raw.uint64(),
            9 => push_attribute(
                &mut span.attributes,
                &mut span.dropped_attributes_count,
                raw.bytes(),
                budget,
            )?,
            10 => count(&mut span.dropped_attributes_count, raw),
            11 if span.events.len() >= budget.list || !budget.spend(1) => {
                budget.take_overflow();
                budget.leave_out(&mut span.dropped_events_count);
            }
            11 => span.events.push(span_event(raw.bytes(), budget)?),
            12 => count(&mut span.dropped_events_count, raw),
            13 if span.links.len() >= budget.list || !budget.spend(1) => {
                budget.take_overflow();
                budget.leave_out(&mut span.dropped_links_count);
            }
            13 => span.links.push(link(raw.bytes(), budget)?),
            14 => count(&mut span.dropped_links_count, raw),
            15 => {
                let status = span.status.get_or_insert_default();
                let mut fields = Fields(raw.bytes());
                while let Some((number, raw)) = fields.next()? {
                    match number {
                        2 => status.message = raw.text(),
                        3 => status.code = raw.int32(),
                        _ => {}
                    }
                }
            }
            16 => span.flags = raw.uint32(),
            _ => {}
        }
    }
    Ok(span)
}

fn span_event(message: &[u8], budget: &Budget) -> Result<wire::SpanEvent, Damaged> {
    let mut event = wire::SpanEvent::default();
    let mut fields = Fields(message);
    while let Some((number, raw)) = fields.next()? {
        match number {
            1 => event.time_unix_nano = raw.uint64(),
            2 => event.name = raw.text(),
            3 => push_attribute(
                &mut event.attributes,
                &mut event.dropped_attributes_count,
                raw.bytes(),
                budget,
            )?,
            4 => count(&mut event.dropped_attributes_count, raw),
            _ => {}
        }
    }
    Ok(event)
}

fn link(message: &[u8], budget: &Budget) -> Result<wire::Link, Damaged> {
    let mut link = wire::Link::default();
    let mut fields = Fields(message);
    while let Some((number, raw)) = fields.next()? {
        match number {
            1 => link.trace_id = raw.id(),
            2 => link.span_id = raw.id(),
            3 => link.trace_state = raw.text(),
            4 => push_attribute(
                &mut link.attributes,
                &mut link.dropped_attributes_count,
                raw.bytes(),
                budget,
            )?,
            5 => count(&mut link.dropped_attributes_count, raw),
            6 => link.flags = raw.uint32(),
            _ => {}
        }
    }
    Ok(link)
}

fn log_record(message: &[u8], budget: &Budget) -> Result<wire::LogRecord, Damaged> {
    let mut log = wire::LogRecord::default();
    let mut fields = Fields(message);
    while let Some((number, raw)) = fields.next()? {
        match number {
            1 => log.time_unix_nano = raw.uint64(),
            2 => log.severity_number = raw.int32(),
            3 => log.severity_text = raw.text(),
            5 => {
                log.body = any_value(raw.bytes(), 1, budget)?.map(some);
                if budget.take_overflow() {
                    log.body = None;
                    budget.leave_out(&mut log.dropped_attributes_count);
                }
            }
            6 => push_attribute(
                &mut log.attributes,
                &mut log.dropped_attributes_count,
                raw.bytes(),
                budget,
            )?,
            7 => count(&mut log.dropped_attributes_count, raw),
            8 => log.flags = raw.uint32(),
            9 => log.trace_id = raw.id(),
            10 => log.span_id = raw.id(),
            11 => log.observed_time_unix_nano = raw.uint64(),
            12 => log.event_name = raw.text(),
            _ => {}
        }
    }
    Ok(log)
}

fn merge_scope(scope: &mut wire::Scope, message: &[u8], budget: &Budget) -> Result<(), Damaged> {
    let mut dropped = 0;
    let mut fields = Fields(message);
    while let Some((number, raw)) = fields.next()? {
        match number {
            1 => scope.name = raw.text(),
            2 => scope.version = raw.text(),
            3 => push_attribute(&mut scope.attributes, &mut dropped, raw.bytes(), budget)?,
            _ => {}
        }
    }
    Ok(())
}

/// The producer's own count; ours may have been added before it.
fn count(counter: &mut u32, raw: Raw<'_>) {
    *counter = counter.saturating_add(raw.uint32());
}

fn push_attribute(
    list: &mut Vec<wire::KeyValue>,
    dropped: &mut u32,
    message: &[u8],
    budget: &Budget,
) -> Result<(), Damaged> {
    if list.len() >= budget.list {
        budget.leave_out(dropped);
        return Ok(());
    }
    let attribute = key_value(message, 1, budget)?;
    if budget.take_overflow() {
        budget.leave_out(dropped);
    } else {
        list.push(attribute);
    }
    Ok(())
}

fn key_value(message: &[u8], depth: usize, budget: &Budget) -> Result<wire::KeyValue, Damaged> {
    let mut pair = wire::KeyValue::default();
    let mut has_value = false;
    let mut fields = Fields(message);
    while let Some((number, raw)) = fields.next()? {
        match number {
            1 => pair.key = raw.text().into(),
            2 => {
                has_value = true;
                pair.value = any_value(raw.bytes(), depth, budget)?.map(some);
            }
            _ => {}
        }
    }
    if !has_value {
        budget.spend(depth);
    }
    Ok(pair)
}

/// `None` is an empty value (OTLP's null), or one that overflowed the budget.
fn any_value(message: &[u8], depth: usize, budget: &Budget) -> Result<Option<Value>, Damaged> {
    if !budget.spend(depth) {
        return Ok(None);
    }
    let mut value = None;
    let mut fields = Fields(message);
    while let Some((number, raw)) = fields.next()? {
        value = match number {
            1 => Some(Value::String(raw.text().into())),
            2 => Some(Value::Bool(raw.uint64() != 0)),
            3 => Some(Value::Int(raw.uint64().cast_signed())),
            4 => Some(Value::Double(raw.double())),
            5 => {
                let mut array = wire::ArrayValue::default();
                let mut fits = true;
                each_message(raw.bytes(), 1, |element| {
                    if fits {
                        let element = any_value(element, depth + 1, budget)?;
                        fits = !budget.overflowed();
                        array.values.push(wire::AnyValue { value: element });
                    }
                    Ok(())
                })?;
                Some(Value::Array(array))
            }
            6 => {
                let mut map = wire::KeyValueList::default();
                let mut fits = true;
                each_message(raw.bytes(), 1, |pair| {
                    if fits {
                        let pair = key_value(pair, depth + 1, budget)?;
                        fits = !budget.overflowed();
                        map.values.push(pair);
                    }
                    Ok(())
                })?;
                Some(Value::Map(map))
            }
            7 => Some(Value::Bytes(Bytes::copy_from_slice(raw.bytes()))),
            _ => value,
        };
    }
    Ok(value)
}

fn some(value: Value) -> wire::AnyValue {
    wire::AnyValue { value: Some(value) }
}
