//! Many traces as one stream: those of a session, or all of the tenant.
//!
//! A viewer reads the log of notices and, for each notice, the events it is of; so it holds one chunk at most, and its cursor is a place in that log.

use std::{collections::VecDeque, convert::Infallible};

use axum::{
    body::{Body, Bytes},
    extract::{Path, State},
    http::HeaderMap,
    response::Response,
};
use futures::stream;
use serde_json::{Value, json};
use tailspan_core::{
    event::rfc3339_ms,
    feed::{FeedCursor, Happened},
    frame,
    id::{SessionKey, TenantId, TraceId},
    lens::Lens,
    observed::{Recorded, Sent},
};
#[cfg(feature = "openapi")]
use tailspan_service::openapi::{NotAcceptable, TooMany};
use tailspan_service::{
    App,
    error::ApiError,
    extract::{Glimpse, LensParams, Params, Read, Tenant},
    function::StreamUntil,
    log::{
        LogError,
        feed::{FeedWatch, Noticed, Scope},
        read::{PageSize, ReadFrom, StoredChunk},
    },
    metrics::Reason,
};
use tokio::time::{Instant, sleep, timeout_at};

use crate::request::{FeedQuery, WantedFeed, wanted_feed};
use crate::updates::Place;
use crate::viewer::{RETRY_LOG, RETRY_MS, Seat, event_stream};

/// Notices read in one go.
const NOTICES_AT_ONCE: usize = 64;
/// Frames that are handed to the socket as one: what stays in a processor's cache.
const BYTES_AT_ONCE: usize = 32 << 10;
/// About how long the frames of one event are together.
const BYTES_OF_AN_EVENT: usize = 2 << 10;
/// Characters of a session's name.
const LONGEST_NAME: usize = 512;

/// Everything that happens to the tenant's traces, as it happens.
#[cfg_attr(feature = "openapi", utoipa::path(
    get, path = "/stream", tag = "streams",
    params(
        FeedQuery, LensParams,
        ("Last-Event-ID" = Option<String>, Header, description = "go on after this: the `id` of a frame; wins over `cursor`", pattern = "^[0-9]{1,15}-[0-9]{1,15}\\.[0-9]{1,15}$"),
    ),
    responses(
        (status = 200, description = "the frames", body = String, content_type = "text/event-stream"),
        (status = 406, response = NotAcceptable),
        (status = 429, response = TooMany),
    ),
))]
pub(crate) async fn stream_tenant(
    State(app): State<App>,
    Tenant(tenant, _): Tenant<Read>,
    Params(query): Params<FeedQuery>,
    Params(lens): Params<LensParams>,
    until: StreamUntil,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let wanted = wanted_feed(&query, &headers)?;
    let lens = lens.lens()?;
    let seat = Seat::take(&app, &tenant, until).await?;
    let watch = app.hub.watch_feed(&tenant, &Scope::Tenant);
    let feed = Feed {
        tenant,
        scope: Scope::Tenant,
        watch,
    };
    follow(app, feed, wanted, lens, seat).await
}

/// All traces of a session as one stream: a conversation, turn after turn.
#[cfg_attr(feature = "openapi", utoipa::path(
    get, path = "/sessions/{session_id}/stream", tag = "streams",
    params(
        ("session_id" = String, Path, description = "the session's name, or its key", min_length = 1, max_length = 512),
        FeedQuery, LensParams,
        ("Last-Event-ID" = Option<String>, Header, description = "go on after this: the `id` of a frame; wins over `cursor`", pattern = "^[0-9]{1,15}-[0-9]{1,15}\\.[0-9]{1,15}$"),
    ),
    responses(
        (status = 200, description = "the frames", body = String, content_type = "text/event-stream"),
        (status = 404, description = "no trace names such a session", body = tailspan_service::openapi::ErrorBody),
        (status = 406, response = NotAcceptable),
        (status = 429, response = TooMany),
    ),
))]
pub(crate) async fn stream_session(
    State(app): State<App>,
    Tenant(tenant, viewer): Tenant<Glimpse>,
    session: Result<Path<String>, axum::extract::rejection::PathRejection>,
    Params(query): Params<FeedQuery>,
    Params(lens): Params<LensParams>,
    until: StreamUntil,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let name = session.map(|Path(name)| name).unwrap_or_default();
    if name.is_empty() || name.chars().count() > LONGEST_NAME {
        return Err(ApiError::invalid(
            "invalid_parameter",
            format!(
                "session_id must be a session's name, of 1 to {LONGEST_NAME} characters, or its key"
            ),
        ));
    }
    let wanted = wanted_feed(&query, &headers)?;
    let lens = lens.for_viewer(viewer)?.lens()?;
    let seat = Seat::take(&app, &tenant, until).await?;
    let (scope, watch) = find(&app, &tenant, &name, wanted).await?;
    let feed = Feed {
        tenant,
        scope,
        watch,
    };
    follow(app, feed, wanted, lens, seat).await
}

/// The session of this name, or with this key; waits for it as long as is wanted.
async fn find(
    app: &App,
    tenant: &TenantId,
    name: &str,
    wanted: WantedFeed,
) -> Result<(Scope, FeedWatch), ApiError> {
    let until = Instant::now() + wanted.wait;
    let by_name = SessionKey::of(name);
    let mut watch = app.hub.watch_feed(tenant, &Scope::Session(by_name.clone()));
    loop {
        if app.log.knows_session(tenant, &by_name).await? {
            return Ok((Scope::Session(by_name), watch));
        }
        if let Some(key) = SessionKey::parse(name)
            && app.log.knows_session(tenant, &key).await?
        {
            let scope = Scope::Session(key);
            let watch = app.hub.watch_feed(tenant, &scope);
            return Ok((scope, watch));
        }
        if Instant::now() >= until {
            return Err(ApiError::session_not_found(name));
        }
        tokio::select! {
            _ = timeout_at(until, watch.changed()) => {}
            () = app.shutdown.cancelled() => {
                return Err(ApiError::unavailable("this process shuts down; come again"));
            }
        }
    }
}

/// What is followed.
pub(crate) struct Feed {
    pub(crate) tenant: TenantId,
    pub(crate) scope: Scope,
    pub(crate) watch: FeedWatch,
}

/// Where a feed begins.
pub(crate) enum From {
    Start,
    /// Only what comes from now on.
    Now,
    Cursor(Place),
}

/// The data of frames, each one line.
#[derive(Default)]
pub(crate) struct Frames {
    data: String,
    /// Where each of them ends.
    ends: Vec<usize>,
}

impl Frames {
    /// Of one more frame, written at the end of what is given. `false`: it is none.
    pub(crate) fn push_with(&mut self, write: impl FnOnce(&mut String) -> bool) {
        if write(&mut self.data) {
            self.ends.push(self.data.len());
        }
    }

    pub(crate) fn push(&mut self, data: &str) {
        self.push_with(|into| {
            into.push_str(data);
            true
        });
    }

    fn clear(&mut self) {
        self.data.clear();
        self.data.shrink_to(BYTES_AT_ONCE);
        self.ends.clear();
    }

    fn iter(&self) -> impl Iterator<Item = &str> {
        let begins = [0].into_iter().chain(self.ends.iter().copied());
        let ends = begins.zip(&self.ends);
        ends.filter_map(|(begin, end)| self.data.get(begin..*end))
    }
}

/// What a reader of many traces is shown of them.
pub(crate) trait Tell: Send + 'static {
    /// Of a notice, before the events it is of.
    fn notice(
        &mut self,
        app: &App,
        tenant: &TenantId,
        noticed: &Noticed,
        frames: &mut Frames,
    ) -> impl Future<Output = Result<(), LogError>> + Send;

    /// Makes ready for the events of a notice from `next_seq` on. `false`: they are not shown.
    fn prepare(
        &mut self,
        app: &App,
        tenant: &TenantId,
        noticed: &Noticed,
        next_seq: u64,
    ) -> impl Future<Output = Result<bool, LogError>> + Send;

    /// Of an event: those of a trace come in their order. `sent`: what it came as, where that is still at hand.
    fn event(
        &mut self,
        app: &App,
        trace: &TraceId,
        recorded: &Recorded,
        sent: Option<&Sent>,
        frames: &mut Frames,
    );
}

/// Events as they are, and what happened to their traces.
struct Events {
    lens: Lens,
    wanted: WantedFeed,
}

impl Tell for Events {
    async fn notice(
        &mut self,
        _: &App,
        _: &TenantId,
        noticed: &Noticed,
        frames: &mut Frames,
    ) -> Result<(), LogError> {
        if self.wanted.with_traces {
            let (happened, trace) = (&noticed.happened, noticed.trace.as_str());
            let told = self.lens.happened(happened, trace, &rfc3339_ms(noticed.ms));
            told.iter().for_each(|data| frames.push(data));
        }
        Ok(())
    }

    async fn prepare(
        &mut self,
        _: &App,
        _: &TenantId,
        _: &Noticed,
        _: u64,
    ) -> Result<bool, LogError> {
        Ok(self.wanted.with_events)
    }

    fn event(
        &mut self,
        app: &App,
        trace: &TraceId,
        recorded: &Recorded,
        _: Option<&Sent>,
        frames: &mut Frames,
    ) {
        let told = self.lens.frame(trace, recorded, &app.config.prices);
        told.iter().for_each(|data| frames.push(data));
    }
}

async fn follow(
    app: App,
    feed: Feed,
    wanted: WantedFeed,
    lens: Lens,
    seat: Seat,
) -> Result<Response, ApiError> {
    // A conversation is read from its beginning; of all that a tenant does, what comes.
    let usually_from_now = feed.scope == Scope::Tenant;
    let from = match wanted.cursor {
        Some(cursor) => From::Cursor(Place { cursor, part: 0 }),
        None if wanted.from_now.unwrap_or(usually_from_now) => From::Now,
        None => From::Start,
    };
    Follower::follow(app, feed, from, Events { lens, wanted }, seat).await
}

/// A trace's chunks that were read and not shown, as of one moment.
struct Page {
    trace: TraceId,
    base: u64,
    chunks: VecDeque<StoredChunk>,
}

pub(crate) struct Follower<T> {
    app: App,
    tenant: TenantId,
    scope: Scope,
    watch: FeedWatch,
    tell: T,
    cursor: FeedCursor,
    /// Of what the next event, or the notice, gives so many frames were shown.
    part: u32,
    /// The cursor came from a client: whether the log still holds its notice is to be seen.
    unverified: bool,
    notices: VecDeque<Noticed>,
    page: Option<Page>,
    ready: VecDeque<Bytes>,
    next_heartbeat: Instant,
    ends_at: Instant,
    done: bool,
    seat: Seat,
}

/// For the frames of so many events, as far as they become one piece.
fn room_for(events: usize) -> String {
    let most = BYTES_AT_ONCE / BYTES_OF_AN_EVENT + 1;
    String::with_capacity(BYTES_OF_AN_EVENT * events.min(most))
}

impl<T: Tell> Follower<T> {
    /// # Errors
    /// When the log does not answer.
    pub(crate) async fn follow(
        app: App,
        feed: Feed,
        from: From,
        tell: T,
        seat: Seat,
    ) -> Result<Response, ApiError> {
        let Feed {
            tenant,
            scope,
            watch,
        } = feed;
        let place = match &from {
            From::Cursor(place) => *place,
            From::Now => Place {
                cursor: app.log.last_notice(&tenant, &scope).await?,
                part: 0,
            },
            From::Start => Place::default(),
        };
        let now = Instant::now();
        let mut follower = Self {
            ready: VecDeque::from([Bytes::from(frame::opening(RETRY_MS))]),
            // A cursor that the log does not hold any more is told once, before anything else.
            unverified: matches!(from, From::Cursor(_)),
            cursor: place.cursor,
            part: place.part,
            notices: VecDeque::new(),
            page: None,
            next_heartbeat: now + app.config.heartbeat,
            ends_at: seat.ends_at(&app),
            done: false,
            tell,
            watch,
            tenant,
            scope,
            seat,
            app,
        };
        if matches!(from, From::Now) {
            // Who is cut off before the first frame comes back to where it began.
            let place = follower.heartbeat();
            follower.ready.push_back(place);
        }
        let frames = stream::unfold(Box::new(follower), async |mut follower| {
            let frame = follower.next().await?;
            Some((Ok::<_, Infallible>(frame), follower))
        });
        Ok(event_stream(Body::from_stream(frames)))
    }

    /// The next bytes for the socket; `None` at the end of the stream's time.
    async fn next(&mut self) -> Option<Bytes> {
        self.seat.ended = false;
        loop {
            if let Some(frame) = self.ready.pop_front() {
                self.next_heartbeat = Instant::now() + self.app.config.heartbeat;
                return Some(frame);
            }
            if self.done {
                self.seat.ended = true;
                return None;
            }
            if Instant::now() >= self.ends_at || self.app.shutdown.is_cancelled() {
                self.ready.push_back(self.heartbeat());
                self.done = true;
                continue;
            }
            match self.step().await {
                Ok(true) => {}
                Ok(false) => self.wait().await,
                Err(error) => {
                    tracing::debug!(%error, "failed to read for a viewer of many traces");
                    self.page = None;
                    tokio::select! {
                        () = sleep(RETRY_LOG) => {}
                        () = self.app.shutdown.cancelled() => {}
                    }
                    self.beat_if_due();
                }
            }
        }
    }

    fn heartbeat(&self) -> Bytes {
        format!(": heartbeat\nid: {}\n\n", self.place()).into()
    }

    fn place(&self) -> Place {
        Place {
            cursor: self.cursor,
            part: self.part,
        }
    }

    fn beat_if_due(&mut self) {
        if Instant::now() >= self.next_heartbeat {
            self.ready.push_back(self.heartbeat());
        }
    }

    async fn wait(&mut self) {
        self.page = None;
        let due = self.next_heartbeat.min(self.ends_at);
        let shutdown = self.app.shutdown.clone();
        tokio::select! {
            _ = timeout_at(due, self.watch.changed()) => {}
            () = shutdown.cancelled() => {}
        }
        self.beat_if_due();
    }

    /// Takes one step through the log. `false`: there is nothing more.
    async fn step(&mut self) -> Result<bool, LogError> {
        if self.notices.is_empty() {
            let read =
                self.app
                    .log
                    .notices(&self.tenant, &self.scope, self.cursor, NOTICES_AT_ONCE);
            self.notices = read.await?.into();
            if self.unverified {
                self.unverified = false;
                self.verify();
            }
            // What was shown to its end.
            while let Some(first) = self.notices.front()
                && (first.ms, first.n) == self.cursor.notice()
                && self.is_shown(first)
            {
                self.notices.pop_front();
            }
        }
        let Some(noticed) = self.notices.front().cloned() else {
            return Ok(false);
        };
        let is_new = (noticed.ms, noticed.n) != self.cursor.notice();
        let is_moved = matches!(noticed.happened, Happened::Moved { .. });
        // Of a notice that has no events some frames may have been shown.
        if is_new || !is_moved {
            let mut told = Frames::default();
            let telling = self
                .tell
                .notice(&self.app, &self.tenant, &noticed, &mut told);
            telling.await?;
            if is_new {
                self.part = 0;
                self.cursor = FeedCursor {
                    ms: noticed.ms,
                    n: noticed.n,
                    seq: 0,
                };
            }
            let mut frames = String::new();
            self.put(&told, self.cursor, &mut frames);
            self.push(frames);
        }
        let is_over = match noticed.happened {
            Happened::Moved { first, last } => self.show(&noticed, first, last).await?,
            Happened::Ended { .. } | Happened::Session { .. } => true,
        };
        if is_over {
            self.notices.pop_front();
        }
        Ok(true)
    }

    /// The notice of a client's cursor was the first that was read, or is gone.
    fn verify(&mut self) {
        let first = self.notices.front();
        let is_there = first.is_some_and(|first| (first.ms, first.n) == self.cursor.notice());
        if !is_there && self.cursor != FeedCursor::START {
            let gap = json!({"reason": "trimmed", "after": self.cursor.to_string()});
            self.tell_gap("trimmed", gap);
        }
    }

    fn is_shown(&self, noticed: &Noticed) -> bool {
        match noticed.happened {
            Happened::Moved { last, .. } => self.cursor.seq >= last,
            Happened::Ended { .. } | Happened::Session { .. } => self.part == 0,
        }
    }

    /// Writes frames, those left out that were shown; with the last one all before `after` was.
    fn put(&mut self, told: &Frames, after: FeedCursor, into: &mut String) {
        let count = told.ends.len();
        let shown = std::mem::take(&mut self.part);
        for (at, data) in (1..).zip(told.iter()) {
            if at <= shown {
                continue;
            }
            self.app.metrics.frames.inc();
            let place = match at as usize == count {
                true => Place {
                    cursor: after,
                    part: 0,
                },
                false => Place {
                    cursor: self.cursor,
                    part: at,
                },
            };
            into.push_str("id: ");
            place.push_to(into);
            into.push_str("\ndata: ");
            into.push_str(data);
            into.push_str("\n\n");
        }
        self.cursor = after;
    }

    fn push(&mut self, frames: String) {
        if !frames.is_empty() {
            self.ready.push_back(frames.into());
        }
    }

    /// Shows a chunk of the events that a notice is of. `true`: all of them were shown.
    async fn show(&mut self, noticed: &Noticed, first: u64, last: u64) -> Result<bool, LogError> {
        let trace = &noticed.trace;
        let next = first.max(self.cursor.seq + 1);
        if next > last {
            return Ok(true);
        }
        let is_shown = self.tell.prepare(&self.app, &self.tenant, noticed, next);
        if !is_shown.await? {
            self.cursor.seq = last;
            return Ok(true);
        }
        if let Some(stored) = self.app.log.just_stored(&self.tenant, trace, next) {
            let events = stored
                .iter()
                .map(|event| (&event.recorded, event.sent.as_ref()));
            self.tell_events(trace, events, next, last);
            return Ok(self.cursor.seq >= last);
        }
        let Some(page) = self.page_at(trace, next).await? else {
            self.skip(trace, "deleted", next, last);
            return Ok(true);
        };
        let base = page.base;
        if base >= next {
            self.skip(trace, "replaced", next, last.min(base));
            return Ok(self.cursor.seq >= last);
        }
        let Some(chunk) = page.chunks.pop_front() else {
            self.skip(trace, "trimmed", next, last);
            return Ok(true);
        };
        if chunk.span.first > next {
            self.skip(trace, "trimmed", next, last.min(chunk.span.first - 1));
            return Ok(self.cursor.seq >= last);
        }
        let recorded = self.app.log.recorded(&self.tenant, trace, &chunk).await?;
        let events = recorded.iter().map(|recorded| (recorded, None));
        self.tell_events(trace, events, next, last);
        if let Some((from, to)) = chunk.unread(&recorded)
            && to >= next
        {
            self.skip(trace, "unreadable", from.max(next), to.min(last));
        }
        self.cursor.seq = self.cursor.seq.max(chunk.span.last.min(last));
        Ok(self.cursor.seq >= last)
    }

    /// Tells of those events that are `next` to `last`.
    fn tell_events<'a>(
        &mut self,
        trace: &TraceId,
        events: impl ExactSizeIterator<Item = (&'a Recorded, Option<&'a Sent>)>,
        next: u64,
        last: u64,
    ) {
        let count = events.len();
        let (mut frames, mut told) = (room_for(count), Frames::default());
        for (recorded, sent) in events {
            if recorded.seq < next || recorded.seq > last {
                continue;
            }
            // A place within the events of a notice is after the one before.
            self.cursor.seq = recorded.seq - 1;
            told.clear();
            self.tell.event(&self.app, trace, recorded, sent, &mut told);
            let after = FeedCursor {
                seq: recorded.seq,
                ..self.cursor
            };
            self.put(&told, after, &mut frames);
            if frames.len() >= BYTES_AT_ONCE {
                let full = std::mem::replace(&mut frames, room_for(count));
                self.push(full);
            }
        }
        self.push(frames);
    }

    /// The trace's chunks from the one that holds an event on: of a notice before, where more was read than it was of. `None`: the trace is gone.
    async fn page_at(&mut self, trace: &TraceId, next: u64) -> Result<Option<&mut Page>, LogError> {
        let begins = |page: &Page| {
            let first = page.chunks.front();
            page.trace == *trace && first.is_some_and(|chunk| chunk.span.first == next)
        };
        if !self.page.as_ref().is_some_and(begins) {
            let (from, size) = (ReadFrom::Holding(next), PageSize::SMALL);
            let read = self.app.log.page(&self.tenant, trace, from, size).await?;
            let state = read.state.filter(|state| !state.dead);
            self.page = state.map(|state| Page {
                trace: trace.clone(),
                base: state.base,
                chunks: read.chunks.into(),
            });
        }
        Ok(self.page.as_mut())
    }

    /// Events that cannot be shown any more.
    fn skip(&mut self, trace: &TraceId, reason: &'static str, from: u64, to: u64) {
        (self.cursor.seq, self.part) = (to, 0);
        let gap = json!({"reason": reason, "trace_id": trace, "from": from, "to": to});
        self.tell_gap(reason, gap);
    }

    fn tell_gap(&mut self, reason: &'static str, gap: Value) {
        let gaps = &self.app.metrics.gaps;
        gaps.get_or_create(&Reason { reason }).inc();
        let frame = format!("id: {}\nevent: gap\ndata: {gap}\n\n", self.cursor);
        self.ready.push_back(frame.into());
    }
}
