//! One viewer: from its cursor to the end, pulled by its own socket. Between two reads of the socket it holds one chunk at most.

use std::{
    collections::VecDeque,
    convert::Infallible,
    future::Future,
    mem,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    body::{Body, Bytes},
    extract::State,
    http::{
        HeaderMap, HeaderName, HeaderValue, StatusCode,
        header::{CACHE_CONTROL, CONTENT_TYPE},
    },
    response::{IntoResponse, Response},
};
use futures::Stream;
use serde_json::json;
use tailspan_core::{
    cursor::Cursor,
    frame,
    id::{TenantId, TraceId},
    lens::Lens,
};
use tailspan_service::{
    App,
    error::ApiError,
    extract::{Glimpse, LensParams, Params, Read, Tenant, TracePath},
    function::StreamUntil,
    limits::streams::StreamPlace,
    log::{
        follow::{CatchUp, Framed, Next, Watch},
        read::{StoredChunk, TraceState},
    },
    metrics::{Metrics, Reason},
};
#[cfg(feature = "openapi")]
use tailspan_service::{
    extract::TraceSegment,
    openapi::{NotAcceptable, SeedRefusal, TooMany, TraceNotFound},
};
use tokio::time::{Instant, Sleep, sleep, sleep_until, timeout_at};

use crate::request::{From, Query, Wanted, wanted};

/// What a client waits before it comes back after a cut. Short: the cursor makes coming back cheap.
pub(crate) const RETRY_MS: u64 = 1000;
/// How long a stream outlives its time for the `end` of a run that is being settled.
const LINGER: Duration = Duration::from_secs(3);
/// Before the log is asked again that did not answer.
pub(crate) const RETRY_LOG: Duration = Duration::from_millis(250);
/// How long the first look at a trace may take before the answer is "unavailable".
const FIRST_LOOK: Duration = Duration::from_secs(5);

/// Every event of the trace in its order, history first, then live, to the end of the run.
///
/// Data frames have no name; control frames are `gap` and `end`. A comment and an `id` without data come after 15 s without a frame. A stream that has
/// lived its time closes without `end`: come back with the `id` of the last frame.
#[cfg_attr(feature = "openapi", utoipa::path(
    get, path = "/traces/{trace_id}/stream", tag = "streams",
    params(
        TraceSegment, Query, LensParams,
        ("Last-Event-ID" = Option<String>, Header, description = "go on after this event: the `id` of its frame; wins over `cursor`", pattern = "^[0-9]{1,15}(-[0-9]{1,9})?$"),
    ),
    responses(
        (status = 200, description = "the frames", body = String, content_type = "text/event-stream"),
        (status = 204, description = "the cursor is the last event of an ended run: there is nothing to come back for"),
        (status = 404, response = TraceNotFound),
        (status = 406, response = NotAcceptable),
        (status = 429, response = TooMany),
    ),
))]
pub(crate) async fn stream_trace(
    State(app): State<App>,
    Tenant(tenant, viewer): Tenant<Glimpse>,
    TracePath(trace): TracePath,
    Params(query): Params<Query>,
    Params(lens): Params<LensParams>,
    until: StreamUntil,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let wanted = wanted(query, &headers)?;
    let lens = lens.for_viewer(viewer)?.lens()?;
    let seat = Seat::take(&app, &tenant, until).await?;
    stream(app, tenant, trace, wanted, lens, Style::Ours, seat).await
}

/// The same for the clients of seed 001: every line of data is an object with its event's name, and the last one is `[DONE]`.
#[cfg_attr(feature = "openapi", utoipa::path(
    get, path = "/v1/trace/traces/{trace_id}/stream", tag = "seed",
    params(
        TraceSegment, Query, LensParams,
        ("Last-Event-ID" = Option<String>, Header, description = "go on after this event: the `id` of its frame; wins over `cursor`", pattern = "^[0-9]{1,15}(-[0-9]{1,9})?$"),
    ),
    responses(
        (status = 200, description = "the frames", body = String, content_type = "text/event-stream"),
        (status = 204, description = "the cursor is the last event of an ended run: there is nothing to come back for"),
        (status = 404, description = "there is no such trace", body = SeedRefusal),
        (status = 406, description = "the client takes no event stream", body = SeedRefusal),
        (status = 429, description = "all places are taken", body = SeedRefusal),
    ),
))]
pub(crate) async fn stream_seed(
    State(app): State<App>,
    Tenant(tenant, _): Tenant<Read>,
    TracePath(trace): TracePath,
    Params(query): Params<Query>,
    Params(lens): Params<LensParams>,
    until: StreamUntil,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let wanted = wanted(query, &headers)?;
    let lens = lens.lens()?;
    let lens = Lens {
        format: Some(lens.format.unwrap_or_default()),
        ..lens
    };
    let seat = Seat::take(&app, &tenant, until).await?;
    stream(app, tenant, trace, wanted, lens, Style::Seed, seat).await
}

async fn stream(
    app: App,
    tenant: TenantId,
    trace: TraceId,
    wanted: Wanted,
    lens: Lens,
    style: Style,
    seat: Seat,
) -> Result<Response, ApiError> {
    let mut watch = app.hub.watch(&tenant, &trace, lens);
    let state = first_look(&app, &mut watch, &tenant, &trace, wanted).await?;
    let Some(state) = state else {
        return match wanted.from {
            // A viewer that knew this trace is told that it is gone, by a stream that ends: an EventSource gives up on 404 without a word to the page.
            From::Cursor(cursor) if cursor.seq > 0 => Ok(gone(style, cursor, "expired")),
            _ => Err(ApiError::trace_not_found(&trace)),
        };
    };
    if state.dead {
        return match wanted.from {
            From::Cursor(cursor) if cursor.seq > 0 => Ok(gone(style, cursor, "deleted")),
            _ => Err(ApiError::trace_not_found(&trace)),
        };
    }
    let cursor = match wanted.from {
        From::Start => Cursor::START,
        From::Now => state.cursor(),
        From::Cursor(cursor) => cursor,
    };
    // EventSource comes back after every close; 204 tells it that there is nothing to come back for.
    let has_all = state.ended().is_some()
        && matches!(wanted.from, From::Cursor(cursor) if is_end(cursor, &state));
    if has_all && !wanted.until_closed {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let viewer = Box::new(Viewer {
        trace,
        style,
        watch,
        cursor,
        until_closed: wanted.until_closed,
        may_have_ended: false,
        ended_at: None,
        heartbeat: app.config.heartbeat,
        next_heartbeat: Instant::now() + app.config.heartbeat,
        ends_at: seat.ends_at(&app),
        ready: VecDeque::from([Bytes::from(frame::opening(RETRY_MS))]),
        chunks: VecDeque::new(),
        done: false,
        timer: None,
        caught_up: None,
        seat,
        app,
    });
    Ok(event_stream(Body::from_stream(Frames::Ready(viewer))))
}

/// The trace as it is, waiting for it as long as the viewer wants.
async fn first_look(
    app: &App,
    watch: &mut Watch,
    tenant: &TenantId,
    trace: &TraceId,
    wanted: Wanted,
) -> Result<Option<TraceState>, ApiError> {
    let until = Instant::now() + wanted.wait;
    // Asked directly, not through the shared reader: the answer must be as of this request, and an error must be told.
    let look = tokio::time::timeout(FIRST_LOOK, app.log.state_or_archived(tenant, trace)).await;
    let mut state =
        look.map_err(|_| ApiError::unavailable("the store does not answer in time; try again"))??;
    let is_there = |state: &Option<TraceState>| state.as_ref().is_some_and(|state| !state.dead);
    while !is_there(&state) && Instant::now() < until {
        tokio::select! {
            () = watch.changed() => {}
            () = sleep_until(until) => {}
            () = app.shutdown.cancelled() => {
                // Not "there is no such trace": nobody waited for it as long as was asked.
                return Err(ApiError::unavailable("this process shuts down; come again"));
            }
        }
        state = app.log.state(tenant, trace).await?;
    }
    Ok(state)
}

fn settled_at(state: &TraceState) -> Option<u64> {
    state.settled.as_ref().map(|settled| settled.at_unix_ms)
}

fn is_end(cursor: Cursor, state: &TraceState) -> bool {
    cursor.seq == state.seq && cursor.mark.is_none_or(|mark| mark == state.mark)
}

/// Ends at 80-100 % of the limit, so that viewers do not all come back in the same second.
fn jittered(lifetime: Duration) -> Duration {
    lifetime.mul_f64(rand::random_range(0.8..=1.0))
}

fn gone(style: Style, cursor: Cursor, reason: &str) -> Response {
    let gap = json!({"reason": reason, "from": cursor.seq + 1});
    let gap = style.remark("gap", Some(cursor), gap);
    let end = style.end(Some(cursor), reason);
    event_stream(Body::from(frame::opening(RETRY_MS) + &gap + &end))
}

/// How a stream speaks of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Style {
    /// Named frames, which `onmessage` does not get.
    Ours,
    /// Seed 001's: its clients read every line of data, and stop at `[DONE]`.
    Seed,
}

impl Style {
    fn remark(self, name: &str, cursor: Option<Cursor>, data: serde_json::Value) -> String {
        match self {
            Self::Ours => frame::control(name, cursor, &data.to_string()),
            Self::Seed => frame::unnamed(cursor, &json!({"event": name, "data": data}).to_string()),
        }
    }

    fn end(self, cursor: Option<Cursor>, status: &str) -> String {
        match self {
            Self::Ours => self.remark("end", cursor, json!({"status": status})),
            Self::Seed => frame::unnamed(cursor, "[DONE]"),
        }
    }
}

pub(crate) fn event_stream(body: Body) -> Response {
    const HEADERS: [(HeaderName, HeaderValue); 3] = [
        (CONTENT_TYPE, HeaderValue::from_static("text/event-stream")),
        (
            CACHE_CONTROL,
            HeaderValue::from_static("no-cache, no-transform"),
        ),
        // nginx and its kin hold a response back until it ends, unless told.
        (
            HeaderName::from_static("x-accel-buffering"),
            HeaderValue::from_static("no"),
        ),
    ];
    (HEADERS, body).into_response()
}

/// One of the process's places for viewers, and of the tenant's.
pub(crate) struct Seat {
    metrics: Arc<Metrics>,
    /// The stream came to its end by itself; otherwise its viewer left or was cut.
    pub(crate) ended: bool,
    until: StreamUntil,
    _place: StreamPlace,
}

impl Seat {
    /// `until`: when the stream has to be over, whatever its usual time is.
    pub(crate) async fn take(
        app: &App,
        tenant: &TenantId,
        until: StreamUntil,
    ) -> Result<Self, ApiError> {
        let place = app.limits.open_stream(tenant).await?;
        let taken = app.metrics.viewers.inc();
        let seat = Self {
            metrics: Arc::clone(&app.metrics),
            ended: true,
            until,
            _place: place,
        };
        let most = i64::try_from(app.config.max_streams).unwrap_or(i64::MAX);
        if taken >= most {
            return Err(ApiError::too_many(format!(
                "{most} streams are open, which is all this process takes"
            )));
        }
        Ok(seat)
    }

    /// When a stream is over that begins now.
    pub(crate) fn ends_at(&self, app: &App) -> Instant {
        let usually = Instant::now() + jittered(app.config.stream_lifetime);
        let StreamUntil(until) = self.until;
        until.map_or(usually, |until| until.min(usually))
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.metrics.viewers.dec();
        if !self.ended {
            self.metrics.viewers_cut.inc();
        }
    }
}

struct Viewer {
    app: App,
    trace: TraceId,
    style: Style,
    watch: Watch,
    cursor: Cursor,
    until_closed: bool,
    /// Something arrived that may have ended the run.
    may_have_ended: bool,
    /// The settlement whose `end` was sent, by its time, for streams that stay between runs; what is said about an ended run later does not end it anew.
    ended_at: Option<u64>,
    heartbeat: Duration,
    next_heartbeat: Instant,
    ends_at: Instant,
    /// Frames to send before anything else.
    ready: VecDeque<Bytes>,
    /// Chunks read from the log and not unfolded yet.
    chunks: VecDeque<StoredChunk>,
    done: bool,
    /// When the wait for the next event is over. Made once and moved seldom: a heartbeat that an event put off is found to be so when it would be due.
    timer: Option<Pin<Box<Sleep>>>,
    /// The trace as it was when the last chunk was taken, that chunk being its end: spares a second look for every event.
    caught_up: Option<Arc<TraceState>>,
    seat: Seat,
}

/// A viewer's frames. An event that comes while a viewer waits takes a short way, without a future being made; whatever takes longer (reading the log, waiting for a
/// store that is away) is a future of its own for as long as it takes.
enum Frames {
    Ready(Box<Viewer>),
    Reading(Pin<Box<dyn Future<Output = Box<Viewer>> + Send>>),
    Ended,
}

/// What a viewer has for its socket.
enum Now {
    Frame(Bytes),
    /// Nothing; the task is woken when there is.
    Waiting,
    /// The log has to be read, or waited for.
    MustRead,
    Ended,
}

impl Stream for Frames {
    type Item = Result<Bytes, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            match &mut *self {
                Self::Ready(viewer) => match viewer.poll_frame(context) {
                    Now::Frame(frame) => return Poll::Ready(Some(Ok(frame))),
                    Now::Waiting => return Poll::Pending,
                    Now::Ended => *self = Self::Ended,
                    Now::MustRead => {
                        if let Self::Ready(mut viewer) = mem::replace(&mut *self, Self::Ended) {
                            *self = Self::Reading(Box::pin(async move {
                                viewer.read().await;
                                viewer
                            }));
                        }
                    }
                },
                Self::Reading(reading) => match reading.as_mut().poll(context) {
                    Poll::Ready(viewer) => *self = Self::Ready(viewer),
                    Poll::Pending => return Poll::Pending,
                },
                Self::Ended => return Poll::Ready(None),
            }
        }
    }
}

impl Viewer {
    /// The next bytes for the socket. Asked when the socket takes more, so a slow viewer asks seldom.
    fn poll_frame(&mut self, context: &mut Context<'_>) -> Now {
        self.seat.ended = false;
        let mut now = Instant::now();
        loop {
            if let Some(frame) = self.ready.pop_front() {
                self.next_heartbeat = now + self.heartbeat;
                return Now::Frame(frame);
            }
            if self.done {
                self.seat.ended = true;
                return Now::Ended;
            }
            if !self.chunks.is_empty() {
                return Now::MustRead;
            }
            // Once for an event: the token behind it is a lock, at which thousands of viewers meet.
            if self.caught_up.is_none() && self.time_is_over(now) {
                // No `end`: the client comes back at its cursor, here or on another instance.
                self.ready
                    .push_back(frame::heartbeat(Some(self.cursor)).into());
                self.done = true;
                continue;
            }
            let next = match self.caught_up.take() {
                Some(state) => Next::CaughtUp(state),
                None => self.watch.next(self.cursor),
            };
            match next {
                Next::Chunk(chunk, caught_up) => {
                    self.show(&chunk);
                    self.caught_up = caught_up;
                }
                Next::CaughtUp(state) if !state.dead => {
                    // A cursor without a mark, or at the very start, now knows where it is.
                    self.cursor = state.cursor();
                    self.may_have_ended = state.may_have_ended;
                    match state.ended() {
                        Some(status) if self.ended_at != settled_at(&state) => {
                            self.ended_at = settled_at(&state);
                            self.end(status);
                            self.done = !self.until_closed;
                        }
                        _ if self.poll_wait(context).is_pending() => return Now::Waiting,
                        _ => now = Instant::now(),
                    }
                }
                _ => return Now::MustRead,
            }
        }
    }

    /// Until something is appended, a heartbeat is due, the stream's time is over, or the process shuts down (which wakes all).
    fn poll_wait(&mut self, context: &mut Context<'_>) -> Poll<()> {
        // A shutdown is a change too, also one that came after it was looked for above.
        if self.watch.poll_changed(context).is_ready() {
            return Poll::Ready(());
        }
        let due = self.next_heartbeat.min(self.over_at());
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(due)));
        // One that is early is looked at when it comes; one that is late would be missed.
        if timer.deadline() > due {
            timer.as_mut().reset(due);
        }
        while timer.as_mut().poll(context).is_ready() {
            if due <= Instant::now() {
                self.heartbeat_if_due();
                return Poll::Ready(());
            }
            timer.as_mut().reset(due);
        }
        Poll::Pending
    }

    fn heartbeat_if_due(&mut self) {
        if self.next_heartbeat <= Instant::now() {
            let cursor = (self.cursor.seq > 0).then_some(self.cursor);
            self.ready.push_back(frame::heartbeat(cursor).into());
        }
    }

    /// A run that is about to be settled is waited for, so that the viewer hears its `end`: whoever comes back after it gets 204.
    fn time_is_over(&self, now: Instant) -> bool {
        let lingering = self.may_have_ended && now < self.ends_at + LINGER;
        now >= self.ends_at && !lingering || self.app.shutdown.is_cancelled()
    }

    /// Takes a step that needs the log, or waits for it.
    async fn read(&mut self) {
        if let Some(chunk) = self.chunks.front() {
            match self.watch.frame(chunk).await {
                Ok(framed) => {
                    self.chunks.pop_front();
                    self.show(&framed);
                }
                Err(error) => {
                    tracing::debug!(trace = %self.trace, %error, "failed to read for a viewer");
                    // Read again from the cursor: the log may have changed meanwhile.
                    self.chunks.clear();
                    self.wait_briefly().await;
                }
            }
            return;
        }
        match self.watch.next(self.cursor) {
            Next::Chunk(chunk, _) => self.show(&chunk),
            Next::Behind => self.catch_up().await,
            Next::CaughtUp(state) if state.dead => self.end("deleted"),
            // There is news since: taken by the short way.
            Next::CaughtUp(_) => {}
            Next::Gone if self.cursor.seq > 0 => {
                self.gap(
                    "expired",
                    json!({"reason": "expired", "from": self.cursor.seq + 1}),
                );
                self.end("expired");
            }
            Next::Gone | Next::Unavailable => self.wait().await,
        }
    }

    async fn catch_up(&mut self) {
        match self.watch.catch_up(self.cursor).await {
            Ok(CatchUp::Chunks(chunks)) if chunks.is_empty() => self.wait_briefly().await,
            Ok(CatchUp::Chunks(chunks)) => self.chunks.extend(chunks),
            Ok(CatchUp::Trimmed { from, to }) => {
                self.cursor = Cursor {
                    seq: to,
                    mark: None,
                };
                self.gap(
                    "trimmed",
                    json!({"reason": "trimmed", "from": from, "to": to}),
                );
            }
            Ok(CatchUp::Replaced { base }) => {
                let known = self.cursor.seq;
                self.cursor = Cursor::START;
                self.ended_at = None;
                self.gap(
                    "replaced",
                    json!({"reason": "replaced", "known": known, "from": base + 1}),
                );
            }
            // The shared reader says how it is gone.
            Ok(CatchUp::Gone) => self.wait_briefly().await,
            Err(error) => {
                tracing::debug!(trace = %self.trace, %error, "failed to read for a viewer");
                self.wait_briefly().await;
            }
        }
    }

    fn show(&mut self, chunk: &Framed) {
        let (frames, count) = chunk.after(self.cursor.seq);
        self.cursor = chunk.end();
        if !frames.is_empty() {
            self.app.metrics.frames.inc_by(count as u64);
            self.ready.push_back(frames);
        }
    }

    fn gap(&mut self, reason: &'static str, data: serde_json::Value) {
        self.app
            .metrics
            .gaps
            .get_or_create(&Reason { reason })
            .inc();
        // A replaced log leaves no cursor to come back to: the next event brings one.
        let cursor = (self.cursor.seq > 0).then_some(self.cursor);
        let frame = self.style.remark("gap", cursor, data);
        self.ready.push_back(frame.into());
    }

    fn end(&mut self, status: &str) {
        let cursor = (self.cursor.seq > 0).then_some(self.cursor);
        self.ready.push_back(self.style.end(cursor, status).into());
        self.done = true;
    }

    /// When the stream is over, a run that is about to be settled being waited for.
    fn over_at(&self) -> Instant {
        match self.may_have_ended {
            true => self.ends_at + LINGER,
            false => self.ends_at,
        }
    }

    /// As [`Viewer::poll_wait`], where the trace is not to be had.
    async fn wait(&mut self) {
        let due = self.next_heartbeat.min(self.over_at());
        let shutdown = self.app.shutdown.clone();
        tokio::select! {
            changed = timeout_at(due, self.watch.changed()) => {
                if changed.is_err() {
                    self.heartbeat_if_due();
                }
            }
            () = shutdown.cancelled() => {}
        }
    }

    async fn wait_briefly(&mut self) {
        tokio::select! {
            () = self.wait() => {}
            () = sleep(RETRY_LOG) => {}
        }
    }
}
