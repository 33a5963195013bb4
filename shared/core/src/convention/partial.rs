//! Spans told by log records before they are over: `PartialSpan` processors send the span as JSON in a record's body, when it begins, every few seconds, and when it ends.

use std::{borrow::Cow, sync::Arc};

use serde_json::{Value, json};

use crate::{
    attributes,
    limits::Limits,
    observed::{Context, Observation, What},
    otlp::{self, Encoding},
    wire,
};

/// The attribute of such records (`heartbeat` or `stop`).
const EVENT: &str = "partial.event";

/// What an observation is about: itself, or the span that a log record tells of. Also whether the latter is the case.
pub(crate) fn told(observation: &Observation) -> (Cow<'_, Observation>, bool) {
    let What::Log(record) = &observation.what else {
        return (Cow::Borrowed(observation), false);
    };
    match span_in(record, &observation.context) {
        Some(told) => (Cow::Owned(told), true),
        None => (Cow::Borrowed(observation), false),
    }
}

fn span_in(record: &wire::LogRecord, context: &Arc<Context>) -> Option<Observation> {
    let event = record
        .attributes
        .iter()
        .find(|pair| pair.key == EVENT || pair.key.contains("heartbeat"))?;
    let body = match attributes::to_json(record.body.as_ref()?) {
        Value::String(text) => serde_json::from_str(&text).ok()?,
        body => body,
    };
    // A whole export, or the bare span.
    let is_export = body.get("resourceSpans").or(body.get("resource_spans"));
    let is_whole = is_export.is_some();
    let body = match is_whole {
        true => body,
        false => json!({"resourceSpans": [{"scopeSpans": [{"spans": [body]}]}]}),
    };
    let body = serde_json::to_vec(&body).ok()?;
    let decoded = otlp::decode_traces(Encoding::Json, &body, &Limits::default()).ok()?;
    let incoming = decoded.traces.into_iter().next()?.1.into_iter().next()?;
    let mut told = incoming.observation();
    if let What::Span(span) = &mut told.what {
        let word = event.value.as_ref().map(attributes::to_json);
        if word.as_ref().and_then(Value::as_str) != Some("stop") {
            // Some processors write the moment of the heartbeat there.
            Arc::make_mut(span).end_time_unix_nano = 0;
        }
    }
    if !is_whole {
        told.context = Arc::clone(context);
    }
    Some(told)
}
