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
};
#[cfg(feature = "openapi")]
use tailspan_service::openapi::{NotAcceptable, TooMany};
use tailspan_service::{
    App,
    error::ApiError,
    extract::{LensParams, Params, Tenant},
    log::{
        LogError,
        feed::{FeedWatch, Noticed, Scope},
        read::{PageSize, ReadFrom},
    },
    metrics::Reason,
};
use tokio::time::{Instant, sleep, timeout_at};

use crate::request::{FeedQuery, WantedFeed, wanted_feed};
use crate::viewer::{RETRY_LOG, RETRY_MS, Seat, event_stream, jittered};

/// Notices read in one go.
const NOTICES_AT_ONCE: usize = 64;
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
    Tenant(tenant): Tenant,
    Params(query): Params<FeedQuery>,
    Params(lens): Params<LensParams>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let wanted = wanted_feed(&query, &headers)?;
    let lens = lens.lens()?;
    let seat = Seat::take(&app)?;
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
    Tenant(tenant): Tenant,
    session: Result<Path<String>, axum::extract::rejection::PathRejection>,
    Params(query): Params<FeedQuery>,
    Params(lens): Params<LensParams>,
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
    let lens = lens.lens()?;
    let seat = Seat::take(&app)?;
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
struct Feed {
    tenant: TenantId,
    scope: Scope,
    watch: FeedWatch,
}

async fn follow(
    app: App,
    feed: Feed,
    wanted: WantedFeed,
    lens: Lens,
    seat: Seat,
) -> Result<Response, ApiError> {
    let Feed {
        tenant,
        scope,
        watch,
    } = feed;
    // A conversation is read from its beginning; of all that a tenant does, what comes.
    let usually_from_now = scope == Scope::Tenant;
    let cursor = match wanted.cursor {
        Some(cursor) => cursor,
        None if wanted.from_now.unwrap_or(usually_from_now) => {
            app.log.last_notice(&tenant, &scope).await?
        }
        None => FeedCursor::START,
    };
    let now = Instant::now();
    let follower = Follower {
        ready: VecDeque::from([Bytes::from(frame::opening(RETRY_MS))]),
        // A cursor that the log does not hold any more is told once, before anything else.
        unverified: wanted.cursor.is_some(),
        cursor,
        notices: VecDeque::new(),
        next_heartbeat: now + app.config.heartbeat,
        ends_at: now + jittered(app.config.stream_lifetime),
        done: false,
        wanted,
        lens,
        watch,
        tenant,
        scope,
        seat,
        app,
    };
    let frames = stream::unfold(Box::new(follower), async |mut follower| {
        let frame = follower.next().await?;
        Some((Ok::<_, Infallible>(frame), follower))
    });
    Ok(event_stream(Body::from_stream(frames)))
}

struct Follower {
    app: App,
    tenant: TenantId,
    scope: Scope,
    watch: FeedWatch,
    lens: Lens,
    wanted: WantedFeed,
    cursor: FeedCursor,
    /// The cursor came from a client: whether the log still holds its notice is to be seen.
    unverified: bool,
    notices: VecDeque<Noticed>,
    ready: VecDeque<Bytes>,
    next_heartbeat: Instant,
    ends_at: Instant,
    done: bool,
    seat: Seat,
}

impl Follower {
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
        // Before the first notice there is no place to come back to.
        match self.cursor == FeedCursor::START {
            true => frame::heartbeat(None).into(),
            false => format!(": heartbeat\nid: {}\n\n", self.cursor).into(),
        }
    }

    fn beat_if_due(&mut self) {
        if Instant::now() >= self.next_heartbeat {
            self.ready.push_back(self.heartbeat());
        }
    }

    async fn wait(&mut self) {
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
        if (noticed.ms, noticed.n) != self.cursor.notice() {
            self.cursor = FeedCursor {
                ms: noticed.ms,
                n: noticed.n,
                seq: 0,
            };
            self.tell(&noticed);
        }
        let is_over = match noticed.happened {
            Happened::Moved { first, last } if self.wanted.with_events => {
                self.show(&noticed.trace, first, last).await?
            }
            Happened::Moved { last, .. } => {
                self.cursor.seq = last;
                true
            }
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
            Happened::Ended { .. } | Happened::Session { .. } => true,
        }
    }

    fn tell(&mut self, noticed: &Noticed) {
        if !self.wanted.with_traces {
            return;
        }
        let timestamp = rfc3339_ms(noticed.ms);
        let told = self
            .lens
            .happened(&noticed.happened, noticed.trace.as_str(), &timestamp);
        if let Some(told) = told {
            let frame = format!("id: {}\ndata: {told}\n\n", self.cursor);
            self.ready.push_back(frame.into());
        }
    }

    /// Shows a chunk of the events that a notice is of. `true`: all of them were shown.
    async fn show(&mut self, trace: &TraceId, first: u64, last: u64) -> Result<bool, LogError> {
        let next = first.max(self.cursor.seq + 1);
        if next > last {
            return Ok(true);
        }
        let log = &self.app.log;
        let page = log
            .page(
                &self.tenant,
                trace,
                ReadFrom::Holding(next),
                PageSize::SMALL,
            )
            .await?;
        let state = page.state.filter(|state| !state.dead);
        let Some(state) = state else {
            self.skip(trace, "deleted", next, last);
            return Ok(true);
        };
        if state.base >= next {
            self.skip(trace, "replaced", next, last.min(state.base));
            return Ok(self.cursor.seq >= last);
        }
        let Some(chunk) = page.chunks.first() else {
            self.skip(trace, "trimmed", next, last);
            return Ok(true);
        };
        if chunk.span.first > next {
            self.skip(trace, "trimmed", next, last.min(chunk.span.first - 1));
            return Ok(self.cursor.seq >= last);
        }
        let recorded = log.recorded(&self.tenant, trace, chunk).await?;
        let mut frames = String::new();
        let mut shown = 0;
        for recorded in &recorded {
            if recorded.seq < next || recorded.seq > last {
                continue;
            }
            self.cursor.seq = recorded.seq;
            if let Some(told) = self.lens.frame(trace, recorded, &self.app.config.prices) {
                frames.push_str(&format!("id: {}\ndata: {told}\n\n", self.cursor));
                shown += 1;
            }
        }
        if !frames.is_empty() {
            self.app.metrics.frames.inc_by(shown);
            self.ready.push_back(frames.into());
        }
        if let Some((from, to)) = chunk.unread(&recorded)
            && to >= next
        {
            self.skip(trace, "unreadable", from.max(next), to.min(last));
        }
        self.cursor.seq = self.cursor.seq.max(chunk.span.last.min(last));
        Ok(self.cursor.seq >= last)
    }

    /// Events that cannot be shown any more.
    fn skip(&mut self, trace: &TraceId, reason: &'static str, from: u64, to: u64) {
        self.cursor.seq = to;
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
