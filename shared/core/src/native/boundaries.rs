//! Where the events of a body begin and end, found before any of them is read.

use std::fmt;

use serde::{
    Deserializer,
    de::{DeserializeSeed, SeqAccess, Visitor},
};
use serde_json::value::RawValue;

use crate::{limits::Limits, otlp::Refused};

/// How a body holds its events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// One object, or an array of them.
    Json,
    /// One object a line.
    Lines,
    /// Whichever of them it looks like.
    Unsaid,
}

impl Format {
    /// Reads a `Content-Type`. `None`: answer 415.
    pub fn of(content_type: Option<&str>) -> Option<Self> {
        let name = content_type.and_then(|value| value.split(';').next());
        match name.unwrap_or("").trim().to_ascii_lowercase().as_str() {
            // What `curl -d` and a plain fetch say when nobody chose.
            ""
            | "application/x-www-form-urlencoded"
            | "text/plain"
            | "application/octet-stream" => Some(Self::Unsaid),
            "application/json" => Some(Self::Json),
            "application/x-ndjson"
            | "application/ndjson"
            | "application/jsonl"
            | "application/x-jsonlines" => Some(Self::Lines),
            _ => None,
        }
    }
}

/// Finds the events' boundaries. A line that is not UTF-8 is `None`.
pub(super) fn split<'a>(
    body: &'a [u8],
    format: Format,
    limits: &Limits,
) -> Result<Vec<Option<&'a str>>, Refused> {
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    if body.trim_ascii().is_empty() {
        return Err(Refused::bad_request(
            "the body is empty: send an event, an array of events, or one event a line".to_owned(),
        ));
    }
    match format {
        Format::Json => split_document(body, limits),
        Format::Lines => split_lines(body, limits),
        Format::Unsaid => match split_document(body, limits) {
            // Several lines, of which the first is a whole object: a damaged one among them costs only itself.
            Err(refused) if refused.status == 400 && first_line_is_object(body) => {
                split_lines(body, limits)
            }
            split => split,
        },
    }
}

fn split_document<'a>(body: &'a [u8], limits: &Limits) -> Result<Vec<Option<&'a str>>, Refused> {
    let text = std::str::from_utf8(body)
        .map_err(|error| Refused::bad_request(format!("the body is not UTF-8: {error}")))?;
    let damaged =
        |error: serde_json::Error| Refused::bad_request(format!("the body is not JSON: {error}"));
    if !text.trim_start().starts_with('[') {
        let one: &RawValue = serde_json::from_str(text).map_err(damaged)?;
        return Ok(vec![Some(one.get())]);
    }
    let mut events = Vec::new();
    let mut total = 0usize;
    let mut document = serde_json::Deserializer::from_str(text);
    let elements = Elements {
        events: &mut events,
        total: &mut total,
        limit: limits.native_events,
    };
    elements.deserialize(&mut document).map_err(damaged)?;
    document.end().map_err(damaged)?;
    counted(events, total, limits)
}

fn split_lines<'a>(body: &'a [u8], limits: &Limits) -> Result<Vec<Option<&'a str>>, Refused> {
    let mut lines = body
        .split(|byte| *byte == b'\n')
        .map(<[u8]>::trim_ascii)
        .filter(|line| !line.is_empty());
    let events: Vec<_> = lines
        .by_ref()
        .take(limits.native_events)
        .map(|line| std::str::from_utf8(line).ok())
        .collect();
    let total = events.len() + lines.count();
    counted(events, total, limits)
}

fn counted<'a>(
    events: Vec<Option<&'a str>>,
    total: usize,
    limits: &Limits,
) -> Result<Vec<Option<&'a str>>, Refused> {
    if total > limits.native_events {
        return Err(Refused {
            status: 413,
            code: "too_many_events",
            message: format!(
                "{total} events: send at most {} in one request",
                limits.native_events
            ),
        });
    }
    Ok(events)
}

fn first_line_is_object(body: &[u8]) -> bool {
    let line = body.trim_ascii_start().split(|byte| *byte == b'\n').next();
    line.is_some_and(|line| {
        line.starts_with(b"{") && serde_json::from_slice::<&RawValue>(line).is_ok()
    })
}

/// An array's elements, not read yet; those beyond the limit are only counted.
struct Elements<'a, 'd> {
    events: &'a mut Vec<Option<&'d str>>,
    total: &'a mut usize,
    limit: usize,
}

impl<'de> DeserializeSeed<'de> for Elements<'_, 'de> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Elements<'_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of events")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while let Some(raw) = seq.next_element::<&'de RawValue>()? {
            *self.total += 1;
            if self.events.len() < self.limit {
                self.events.push(Some(raw.get()));
            }
        }
        Ok(())
    }
}
