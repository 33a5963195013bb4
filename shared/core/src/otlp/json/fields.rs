//! The fields of spans and log records, and of what they hold.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor},
};

use super::{
    leaf::{Count, Enum, Id, Key, Text, Time},
    value::{Any, Attributes, some},
};
use crate::{otlp::budget::Budget, wire};

object! {
    SpanFields<'a> for <'_> { budget: &'a Budget, span: &'a mut wire::Span },
    |this, map| {
        "traceId" | "trace_id" => this.span.trace_id = map.next_value_seed(Id(16, this.budget))?,
        "spanId" | "span_id" => this.span.span_id = map.next_value_seed(Id(8, this.budget))?,
        "parentSpanId" | "parent_span_id" => this.span.parent_span_id = map.next_value_seed(Id(8, this.budget))?,
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
        "traceId" | "trace_id" => this.link.trace_id = map.next_value_seed(Id(16, this.budget))?,
        "spanId" | "span_id" => this.link.span_id = map.next_value_seed(Id(8, this.budget))?,
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
        "traceId" | "trace_id" => this.log.trace_id = map.next_value_seed(Id(16, this.budget))?,
        "spanId" | "span_id" => this.log.span_id = map.next_value_seed(Id(8, this.budget))?,
    }
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
