//! The run's own events on their way into the log: in order, each once, beside the answer and never in its way.

use std::{sync::Arc, time::Duration};

use serde_json::Value;
use tailspan_core::{
    event::rfc3339_ms,
    id::{TenantId, TraceId},
    limits::Limits,
    native::{self, Format, Sender},
    observed::Incoming,
    verbosity::Verbosity,
};
use tailspan_service::{
    App,
    log::{
        LogError,
        append::{AppendOptions, Appended},
        now_unix_ms,
    },
};
use tokio::{
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    task::JoinHandle,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::reading::Fields;

/// Of one field of an event. What an event may have in all is a few of these.
const MAX_FIELD_BYTES: usize = 128 << 10;
/// How deep a field may nest; a deeper one is kept as text.
const MAX_FIELD_DEPTH: usize = 32;
/// Events that go to the log together at most.
const BATCH: usize = 256;
/// Before a log that did not answer is tried again.
const RETRY: Duration = Duration::from_millis(250);
/// How long the end of a run waits for a log that does not answer.
const LAST_TRY: Duration = Duration::from_secs(10);

/// Where events go, and what all of them say.
#[derive(Clone)]
pub(super) struct Place {
    pub(super) app: App,
    pub(super) tenant: TenantId,
    pub(super) trace: TraceId,
}

/// What all events of a run have in common.
#[derive(Clone)]
pub(super) struct Common {
    /// The run's own span.
    pub(super) span: Arc<str>,
    /// The caller's span, above it.
    pub(super) parent: Option<String>,
    pub(super) agent: String,
    pub(super) session: Option<String>,
    pub(super) user: Option<String>,
    /// What is to be recorded, where the caller said so.
    pub(super) level: Option<Verbosity>,
}

/// What became of a run's events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Kept {
    /// The trace's last event when the last of them was stored.
    pub(super) last_seq: u64,
    /// Of them, not stored: the store was away for too long, or the trace was deleted.
    pub(super) lost: u64,
}

/// Takes a run's events.
pub(super) struct Recorder {
    pub(super) common: Common,
    number: u64,
    inbox: UnboundedSender<String>,
    closing: CancellationToken,
    keeping: JoinHandle<Kept>,
}

impl Recorder {
    /// Stores the run's first event, and returns the number of the event before it.
    ///
    /// # Errors
    /// [`LogError`]. The trace was deleted: `Ok(None)`.
    pub(super) async fn begin(
        place: Place,
        common: Common,
        first: Fields,
    ) -> Result<Option<(Self, u64)>, LogError> {
        let mut recorder = Self::start(place.clone(), common);
        let first = recorder.written(first);
        let appended = append(&place, std::slice::from_ref(&first)).await?;
        if appended.deleted {
            return Ok(None);
        }
        let before = appended.first_seq.saturating_sub(1);
        Ok(Some((recorder, before)))
    }

    fn start(place: Place, common: Common) -> Self {
        let (inbox, events) = unbounded_channel();
        let closing = CancellationToken::new();
        Self {
            common,
            number: 0,
            inbox,
            keeping: tokio::spawn(keep(place, events, closing.clone())),
            closing,
        }
    }

    /// Takes an event of the run: its own (`workflow_...`), or of a step below it.
    pub(super) fn record(&mut self, event: Fields) {
        let event = self.written(event);
        // Its reader ends after us.
        let _ = self.inbox.send(event);
    }

    /// Waits until all is stored, or cannot be.
    pub(super) async fn finish(self) -> Kept {
        drop(self.inbox);
        self.closing.cancel();
        self.keeping.await.unwrap_or_else(|error| {
            tracing::error!(%error, "failed to record a run");
            Kept::default()
        })
    }

    fn written(&mut self, mut event: Fields) -> String {
        let Common {
            span,
            parent,
            agent,
            session,
            user,
            level,
        } = &self.common;
        for value in event.values_mut() {
            bound(value);
        }
        let is_run = event
            .get("event_type")
            .and_then(Value::as_str)
            .is_some_and(|name| name.starts_with("workflow_"));
        let parent = match is_run {
            true => {
                event.insert("span_id".to_owned(), Value::from(&**span));
                parent.as_deref()
            }
            false => Some(&**span),
        };
        self.number += 1;
        let mut say = |name: &str, value: Option<&str>| {
            if let Some(value) = value {
                event.insert(name.to_owned(), Value::from(value));
            }
        };
        say("event_id", Some(&format!("{span}-{}", self.number)));
        say("timestamp", Some(&rfc3339_ms(now_unix_ms())));
        say("agent_id", Some(agent));
        say("session_id", session.as_deref());
        say("user_id", user.as_deref());
        say("parent_span_id", parent);
        say("trace_level", level.map(Verbosity::as_str));
        Value::Object(event).to_string()
    }
}

/// Keeps a field within what an event may be: a structure that is too large or too deep becomes text, text is cut and says so.
fn bound(value: &mut Value) {
    match value {
        Value::String(text) if text.len() <= MAX_FIELD_BYTES => {}
        Value::String(text) => *value = Value::from(cut(text)),
        Value::Array(_) | Value::Object(_) => {
            let text = value.to_string();
            if text.len() > MAX_FIELD_BYTES || depth(value) > MAX_FIELD_DEPTH {
                *value = Value::from(cut(&text));
            }
        }
        _ => {}
    }
}

fn cut(text: &str) -> String {
    let end = text.floor_char_boundary(MAX_FIELD_BYTES);
    match text.get(..end) {
        Some(head) if end < text.len() => {
            format!("{head}... [{} bytes more]", text.len() - end)
        }
        _ => text.to_owned(),
    }
}

/// The parser lets nothing in that nests deeper than 128.
fn depth(value: &Value) -> usize {
    let inner = match value {
        Value::Array(items) => items.iter().map(depth).max(),
        Value::Object(fields) => fields.values().map(depth).max(),
        _ => return 0,
    };
    1 + inner.unwrap_or(0)
}

/// Stores what comes until nothing more can come. A log that is away holds up only the record.
async fn keep(
    place: Place,
    mut events: UnboundedReceiver<String>,
    closing: CancellationToken,
) -> Kept {
    let mut kept = Kept::default();
    let mut batch = Vec::new();
    while events.recv_many(&mut batch, BATCH).await > 0 {
        match stored(&place, &batch, &closing).await {
            Some(appended) => kept.last_seq = appended.last_seq,
            None => {
                kept.lost += batch.len() as u64;
                // What comes after a hole would tell another story.
                events.close();
                while events.recv().await.is_some() {
                    kept.lost += 1;
                }
                break;
            }
        }
        batch.clear();
    }
    if kept.lost > 0 {
        let (trace, lost) = (&place.trace, kept.lost);
        tracing::warn!(%trace, lost, "failed to record the end of a run");
    }
    kept
}

/// Tries until it is stored. Once the run has ended, [`LAST_TRY`] more.
async fn stored(place: &Place, batch: &[String], closing: &CancellationToken) -> Option<Appended> {
    let trying = async {
        loop {
            match append(place, batch).await {
                Ok(appended) => return (!appended.deleted).then_some(appended),
                Err(error) => {
                    tracing::debug!(trace = %place.trace, %error, "failed to record a run; trying again");
                    sleep(RETRY).await;
                }
            }
        }
    };
    tokio::pin!(trying);
    tokio::select! {
        stored = &mut trying => return stored,
        () = closing.cancelled() => {}
    }
    timeout(LAST_TRY, trying).await.ok().flatten()
}

async fn append(place: &Place, batch: &[String]) -> Result<Appended, LogError> {
    let Place { app, tenant, trace } = place;
    let events = incoming(place, batch)?;
    let count = events.len() as u64;
    let appended = app
        .log
        .append(tenant, trace, events, AppendOptions::default())
        .await?;
    app.limits.owe(tenant, count).await;
    if !appended.deleted {
        app.metrics.native_events.inc_by(count);
    }
    Ok(appended)
}

/// As events that an agent posts, with the same checks.
fn incoming(place: &Place, batch: &[String]) -> Result<Vec<Incoming>, LogError> {
    let posted = native::decode(
        &place.trace,
        batch.join("\n").as_bytes(),
        Format::Lines,
        Sender::default(),
        &Limits::default(),
    )
    .map_err(|refused| LogError::Internal(refused.to_string()))?;
    for rejected in &posted.rejected {
        place.app.metrics.reject(rejected.reason, 1);
        tracing::error!(trace = %place.trace, reason = rejected.reason, "failed to record an event of a run");
    }
    Ok(posted.events)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn no_field_is_too_large_or_too_deep_for_an_event() {
        let mut deep = json!(1);
        for _ in 0..100 {
            deep = json!([deep]);
        }
        let long = "ü".repeat(MAX_FIELD_BYTES);
        for mut value in [json!(long), json!([long]), json!({ "a": long }), deep] {
            bound(&mut value);
            let text = value.as_str().unwrap();
            assert!(text.len() <= MAX_FIELD_BYTES + 30, "{}", text.len());
        }
        let kept = json!({"a": [1, {"b": null}], "c": "x"});
        let mut value = kept.clone();
        bound(&mut value);
        assert_eq!(value, kept);
    }
}
