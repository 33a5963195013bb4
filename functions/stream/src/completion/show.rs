//! What the caller is shown: the agent's frames and the trace's events as they happen, then the end; or all of it as one JSON.

use std::{collections::VecDeque, time::Duration};

use axum::body::{Body, Bytes};
use futures::stream;
use serde_json::{Value, json};
use tailspan_core::{
    continuity::{Continuity, locate},
    cursor::Cursor,
    event::Event,
    format::{self, Format, Session},
    frame,
    lens::Lens,
    observed::Recorded,
    summary::{Summary, summary},
    verbosity::Verbosity,
};
use tailspan_service::{
    error::ApiError,
    log::{
        LogError,
        follow::{CatchUp, Next, Watch},
        read::{PageSize, ReadFrom, StoredChunk},
    },
};
use tokio::{
    sync::mpsc::UnboundedReceiver,
    time::{Instant, sleep, sleep_until, timeout},
};

use super::{
    record::Place,
    run::{Ended, News},
};

/// How long the end of a stream, or the trace of an answer, waits for a store that does not answer.
const PATIENCE: Duration = Duration::from_secs(10);
const RETRY_LOG: Duration = Duration::from_millis(250);
/// Between two looks at the trace when the doorbell is not heard any more, for the process shuts down.
const CLOSING_LOOK: Duration = Duration::from_millis(100);
/// Events in one JSON, and their bytes: who wants more asks for the trace's events.
const MOST_EVENTS: usize = 1_000;
const MOST_BYTES: usize = 4 << 20;

/// How the caller wants to see the run.
#[derive(Clone)]
pub(super) struct View {
    pub(super) place: Place,
    pub(super) agent: String,
    pub(super) level: Verbosity,
    pub(super) recorded: Option<Verbosity>,
    pub(super) include_trace: bool,
    pub(super) style: Style,
}

/// Whose form the trace has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    Ours,
    /// Seed 001's: events in its streaming form, the whole trace as its compact session.
    Seed,
}

impl View {
    fn lens(&self) -> Lens {
        Lens {
            level: self.level,
            format: match self.style {
                Style::Ours => None,
                Style::Seed => Some(Format::Streaming),
            },
            ..Lens::default()
        }
    }

    /// An event as the data of a frame.
    fn frame(&self, recorded: &Recorded) -> Option<String> {
        let Place { app, trace, .. } = &self.place;
        let line = self.lens().frame(trace, recorded, &app.config.prices)?;
        Some(match self.style {
            Style::Ours => format!("{{\"event\":\"trace\",\"data\":{line}}}"),
            Style::Seed => line,
        })
    }
}

/// The body of a streamed answer, from after event `after`.
pub(super) fn stream_body(
    view: View,
    after: u64,
    first: Option<News>,
    news: UnboundedReceiver<News>,
) -> Body {
    let Place { app, tenant, trace } = view.place.clone();
    // Only listened to: a lens that others have too.
    let listen = || app.hub.watch(&tenant, &trace, Lens::default());
    let opening = json!({"event": "trace_started", "trace_id": trace, "data": {
        "trace_id": trace, "agent_id": view.agent, "trace_level": view.level,
        "stream": format!("/traces/{trace}/stream"),
    }});
    let mut shown = Shown {
        watch: view.include_trace.then(listen),
        view,
        news,
        after,
        cursor: Cursor {
            seq: after,
            mark: None,
        },
        is_behind: true,
        ready: VecDeque::from([data_frame(None, &opening.to_string())]),
        ended: None,
        next_heartbeat: Instant::now(),
        is_over: false,
    };
    if first.is_some() {
        shown.hear(first);
    }
    let frames = stream::unfold(shown, |mut shown| async move {
        let frame = shown.next().await?;
        Some((Ok::<_, std::convert::Infallible>(frame), shown))
    });
    Body::from_stream(frames)
}

/// A stream to one caller. It is pulled by the caller's socket; of the trace it holds one page at most, of the agent's frames what an answer may have.
struct Shown {
    view: View,
    /// The event before the run.
    after: u64,
    watch: Option<Watch>,
    news: UnboundedReceiver<News>,
    cursor: Cursor,
    /// The log has, or may have, something after the cursor.
    is_behind: bool,
    ready: VecDeque<Bytes>,
    ended: Option<Box<Ended>>,
    next_heartbeat: Instant,
    is_over: bool,
}

impl Shown {
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(frame) = self.ready.pop_front() {
                self.next_heartbeat = Instant::now() + self.view.place.app.config.heartbeat;
                return Some(frame);
            }
            if self.is_over {
                return None;
            }
            if let Some(ended) = self.ended.take() {
                self.finish(*ended).await;
                continue;
            }
            self.wait().await;
        }
    }

    /// Until the agent says something, or something is appended to the trace.
    async fn wait(&mut self) {
        let is_closing = self.view.place.app.shutdown.is_cancelled();
        let (is_behind, heartbeat) = (self.is_behind, self.next_heartbeat);
        let appended = async {
            match &mut self.watch {
                _ if is_behind => {}
                Some(_) if is_closing => sleep(CLOSING_LOOK).await,
                Some(watch) => watch.changed().await,
                None => std::future::pending().await,
            }
        };
        // None is preferred: an agent that never pauses must not hide its trace.
        tokio::select! {
            news = self.news.recv() => self.hear(news),
            () = appended => self.look(is_closing).await,
            () = sleep_until(heartbeat) => self.ready.push_back(frame::heartbeat(None).into()),
        }
    }

    fn hear(&mut self, news: Option<News>) {
        match news {
            Some(News::Frame(frame)) => self.ready.push_back(frame.into()),
            Some(News::Ended(ended)) => self.ended = Some(ended),
            Some(News::Begun { .. } | News::Refused(_)) => {}
            // The run's task died: nothing more will be heard of it.
            None => {
                self.tell_error(&ApiError::internal());
                self.tell_done();
            }
        }
    }

    async fn look(&mut self, is_closing: bool) {
        let Some(watch) = &mut self.watch else {
            self.is_behind = false;
            return;
        };
        if !self.is_behind && !is_closing {
            self.is_behind = match watch.next(self.cursor) {
                Next::Chunk(..) | Next::Behind => true,
                Next::CaughtUp(_) | Next::Gone | Next::Unavailable => false,
            };
            if !self.is_behind {
                return;
            }
        }
        if let Err(error) = self.read().await {
            tracing::debug!(trace = %self.view.place.trace, %error, "failed to read for a completion");
            sleep(RETRY_LOG).await;
        }
    }

    /// Reads a page of what follows the cursor.
    async fn read(&mut self) -> Result<(), LogError> {
        let Some(watch) = &self.watch else {
            return Ok(());
        };
        match watch.catch_up(self.cursor).await? {
            CatchUp::Chunks(chunks) => {
                self.is_behind = !chunks.is_empty();
                for chunk in chunks {
                    let recorded = self
                        .view
                        .place
                        .app
                        .log
                        .recorded(&self.view.place.tenant, &self.view.place.trace, &chunk)
                        .await?;
                    self.show(&chunk, &recorded);
                }
            }
            CatchUp::Trimmed { from, to } => {
                self.cursor = Cursor {
                    seq: to,
                    mark: None,
                };
                self.gap(&json!({"reason": "trimmed", "from": from, "to": to}));
            }
            CatchUp::Replaced { base } => {
                self.cursor = Cursor {
                    seq: base,
                    mark: None,
                };
                self.gap(&json!({"reason": "replaced", "from": base + 1}));
            }
            CatchUp::Gone => {
                self.watch = None;
                self.is_behind = false;
                self.gap(&json!({"reason": "deleted", "from": self.cursor.seq + 1}));
            }
        }
        Ok(())
    }

    fn show(&mut self, chunk: &StoredChunk, recorded: &[Recorded]) {
        for recorded in recorded {
            if recorded.seq <= self.cursor.seq {
                continue;
            }
            if let Some(frame) = self.view.frame(recorded) {
                let cursor = Cursor::new(recorded.seq, chunk.span.mark);
                self.ready.push_back(data_frame(Some(cursor), &frame));
            }
        }
        if let Some((from, to)) = chunk.unread(recorded) {
            self.gap(&json!({"reason": "unreadable", "from": from, "to": to}));
        }
        self.cursor = chunk.span.end();
    }

    /// Everything that was appended before the run's end is shown before the stream's.
    async fn finish(&mut self, ended: Ended) {
        let drained = timeout(PATIENCE, self.drain(ended.kept.last_seq)).await;
        if drained.is_err() || ended.kept.lost > 0 {
            let (from, lost) = (self.cursor.seq + 1, ended.kept.lost);
            self.gap(&json!({"reason": "unavailable", "from": from, "lost": lost}));
        }
        if let Err(error) = &ended.answer {
            self.tell_error(&error.api());
        }
        if self.view.style == Style::Seed
            && self.view.include_trace
            && let Ok(session) = trace_json(&self.view, self.after).await
        {
            let frame = json!({"event": "trace", "data": session});
            self.ready.push_back(data_frame(None, &frame.to_string()));
        }
        self.tell_done();
    }

    async fn drain(&mut self, last_seq: u64) {
        let mut until = None;
        while self.watch.is_some() {
            let done = match until {
                None => self
                    .view
                    .place
                    .app
                    .log
                    .state(&self.view.place.tenant, &self.view.place.trace)
                    .await
                    .map(|state| {
                        until = state.map(|state| state.seq.max(last_seq));
                        until.is_none()
                    }),
                Some(seq) if self.cursor.seq >= seq => Ok(true),
                Some(_) => self.read().await.map(|()| false),
            };
            match done {
                Ok(true) => return,
                Ok(false) => {}
                Err(error) => {
                    tracing::debug!(trace = %self.view.place.trace, %error, "failed to read for a completion");
                    sleep(RETRY_LOG).await;
                }
            }
        }
    }

    fn gap(&mut self, data: &Value) {
        if self.watch.is_some() || data["reason"] == "deleted" {
            let frame = json!({"event": "trace_gap", "data": data});
            self.ready.push_back(data_frame(None, &frame.to_string()));
        }
    }

    fn tell_error(&mut self, error: &ApiError) {
        let frame = json!({"event": "error", "data": {"code": error.code, "message": error.message, "trace_id": self.view.place.trace}});
        self.ready.push_back(data_frame(None, &frame.to_string()));
    }

    fn tell_done(&mut self) {
        self.ready
            .push_back(Bytes::from_static(b"data: [DONE]\n\n"));
        self.is_over = true;
    }
}

/// A data frame; the id is where `GET /traces/{trace_id}/stream` would go on.
fn data_frame(cursor: Option<Cursor>, json: &str) -> Bytes {
    let mut text = String::with_capacity(json.len() + 32);
    match cursor {
        Some(cursor) => frame::data(&mut text, cursor, json),
        None => {
            text.push_str("data: ");
            text.push_str(json);
            text.push_str("\n\n");
        }
    }
    text.into()
}

/// The trace as one JSON: its summary, and its events after `after`.
///
/// # Errors
/// The store does not answer in time.
pub(super) async fn trace_json(view: &View, after: u64) -> Result<Value, ApiError> {
    let told = timeout(PATIENCE, async {
        let summary = summed_up(view).await?;
        let (events, next) = list_events(view, after).await?;
        Ok::<_, ApiError>(match view.style {
            Style::Ours => {
                let mut trace = serde_json::to_value(&summary).unwrap_or_default();
                trace["events"] = serde_json::to_value(&events).unwrap_or_default();
                if let Some(next) = next {
                    trace["next_cursor"] = Value::from(next.to_string());
                }
                trace
            }
            Style::Seed => {
                let session = Session {
                    summary: &summary,
                    tenant_id: view.place.tenant.as_str(),
                    level: view.level,
                    trace_level: view.recorded.unwrap_or(Verbosity::Debug),
                };
                format::session(&session, &events, Format::Compact)
            }
        })
    });
    told.await
        .map_err(|_| ApiError::unavailable("the store does not answer in time"))?
}

async fn summed_up(view: &View) -> Result<Summary, ApiError> {
    let Place { app, tenant, trace } = &view.place;
    let folded = app.log.folded(tenant, trace).await?;
    let folded = folded.ok_or_else(|| ApiError::trace_not_found(trace))?;
    let prices = &app.config.prices;
    Ok(summary(
        &folded.state,
        trace.as_str(),
        app.log.status(&folded),
        prices,
    )
    .at(view.level))
}

/// Events after `after`, and where to go on when they are not all.
async fn list_events(view: &View, after: u64) -> Result<(Vec<Event>, Option<Cursor>), ApiError> {
    let Place { app, tenant, trace } = &view.place;
    let lens = view.lens();
    let mut cursor = Cursor {
        seq: after,
        mark: None,
    };
    let (mut events, mut bytes) = (Vec::new(), 0);
    loop {
        let from = ReadFrom::Holding(cursor.seq);
        let page = app.log.page(tenant, trace, from, PageSize::LARGE).await?;
        let state = page.state.filter(|state| !state.dead);
        let state = state.ok_or_else(|| ApiError::trace_not_found(trace))?;
        let before = cursor;
        for chunk in &page.chunks {
            if chunk.span.last <= cursor.seq {
                continue;
            }
            if locate(cursor, state.extent(), Some(chunk.span)) != Continuity::Continues {
                break;
            }
            for recorded in app.log.recorded(tenant, trace, chunk).await? {
                if recorded.seq <= cursor.seq {
                    continue;
                }
                if let Some(event) = lens.event(trace, &recorded, &app.config.prices) {
                    bytes += serde_json::to_vec(&event).map_or(0, |json| json.len());
                    if events.len() >= MOST_EVENTS || !events.is_empty() && bytes > MOST_BYTES {
                        return Ok((events, Some(cursor)));
                    }
                    events.push(event);
                }
                cursor = Cursor::new(recorded.seq, chunk.span.mark);
            }
            cursor = chunk.span.end();
        }
        if cursor.seq >= state.seq || cursor == before {
            return Ok((events, None));
        }
    }
}
