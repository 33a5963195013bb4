//! Completion with trace: `POST /agents/{agent_id}/completions/trace` calls an agent of the operator's file and returns its answer with what happened on the way.
//!
//! body -> [`request`] -> a run in a task of its own ([`run`]): [`call`] -> [`sse`] -> [`reading`] (pure) -> native events ([`record`]) and the agent's frames
//! -> [`show`]: frames and events interleaved, or one JSON. The caller may go at any time; the run goes on, and its trace ends.

mod call;
mod reading;
mod record;
mod request;
mod run;
mod show;
mod sse;

use std::{sync::Arc, time::Duration};

use axum::{
    Json,
    body::{Body, BodyDataStream},
    extract::{FromRef, Path, State, rejection::PathRejection},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
};
use futures::StreamExt as _;
use serde_json::{Value, json};
use tailspan_core::{
    id::{TenantId, TraceId},
    propagation::TraceParent,
};
#[cfg(feature = "openapi")]
use tailspan_service::openapi::{
    AgentNotFound, SeedAnswer, SeedRefusal, TooLarge, TooMany, TraceDeleted, UnsupportedMediaType,
};
use tailspan_service::{
    App,
    envelope::{self, Enveloped},
    error::ApiError,
    extract::{Exchange, Tenant},
};
use tokio::{
    sync::{Semaphore, mpsc::UnboundedReceiver},
    time::{Instant, timeout_at},
};

use self::{
    call::Clients,
    record::Place,
    run::{Ended, News, Run},
    show::{Style, View},
};
use crate::viewer::event_stream;

const X_TRACE_ID: HeaderName = HeaderName::from_static("x-trace-id");
const X_PARENT_SPAN: HeaderName = HeaderName::from_static("x-parent-span");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// Of a request's body.
const MAX_BODY_BYTES: usize = 4 << 20;
const BODY_TIME: Duration = Duration::from_secs(30);
/// Of a refused body so much is still taken from the connection, and for so long.
const LET_PASS_BYTES: usize = 64 << 20;
const LET_PASS_TIME: Duration = Duration::from_secs(5);
/// How long a streamed answer waits for the agent's first frame, so that a failure is told by the status. Then the stream begins without it: the trace is
/// already worth seeing.
const FIRST_FRAME_TIME: Duration = Duration::from_secs(2);

/// What the handlers share.
#[derive(Clone)]
pub(crate) struct Completions {
    app: App,
    clients: Arc<Clients>,
    places: Arc<Semaphore>,
}

impl FromRef<Completions> for App {
    fn from_ref(completions: &Completions) -> Self {
        completions.app.clone()
    }
}

impl Completions {
    pub(crate) fn new(app: App) -> Self {
        Self {
            clients: Arc::default(),
            places: Arc::new(Semaphore::new(app.config.max_completions)),
            app,
        }
    }
}

/// Calls an agent, and shows its answer with the trace of what happened.
///
/// With `stream` (the default) the agent's frames come as they are, with frames of the trace in between (`event` is `trace_started`, `trace`, `trace_gap` or
/// `error`), and `data: [DONE]` at the end; else one JSON, the agent's answer with `trace` and `trace_id`. Who goes away does not stop the run.
#[cfg_attr(feature = "openapi", utoipa::path(
    post, path = "/agents/{agent_id}/completions/trace", tag = "agents",
    params(
        ("agent_id" = String, Path, min_length = 1, description = "a name in the operator's file of agents"),
        ("X-Trace-ID" = Option<String>, Header, pattern = "^[A-Za-z0-9_-]{1,128}$", description = "record in this trace; else in that of `traceparent`, else in a new one"),
        ("X-Parent-Span" = Option<String>, Header, description = "the caller's span, above the run"),
        ("traceparent" = Option<String>, Header, description = "W3C Trace Context"),
    ),
    request_body(content = crate::openapi::CompletionRequest, description = "at most 4 MiB"),
    responses(
        (status = 200, description = "the agent's answer, as frames or as one JSON; `X-Trace-ID` names the trace", content(
            (crate::openapi::CompletionAnswer = "application/json"),
            (String = "text/event-stream"),
        )),
        (status = 404, response = AgentNotFound),
        (status = 410, response = TraceDeleted),
        (status = 413, response = TooLarge),
        (status = 415, response = UnsupportedMediaType),
        (status = 429, response = TooMany),
        (status = 502, description = "the agent was called and failed", body = crate::openapi::FailedCompletion),
        (status = 504, description = "the agent was called and did not answer in its time", body = crate::openapi::FailedCompletion),
    ),
))]
pub(crate) async fn complete(
    State(completions): State<Completions>,
    Tenant(tenant, _): Tenant<Exchange>,
    agent_id: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    answer(&completions, tenant, agent_id, &headers, body, Style::Ours).await
}

/// The same for the clients of seed 001.
///
/// Events have its streaming form, and before `[DONE]` stands `{"event": "trace", "data": ...}` with the trace as its compact session. Not streamed, the
/// answer with `trace` (the compact session) and `trace_id` is the data of its envelope.
#[cfg_attr(feature = "openapi", utoipa::path(
    post, path = "/v1/trace/agents/{agent_id}/completions/trace", tag = "seed",
    params(
        ("agent_id" = String, Path, min_length = 1, description = "a name in the operator's file of agents"),
        ("X-Trace-ID" = Option<String>, Header, pattern = "^[A-Za-z0-9_-]{1,128}$", description = "record in this trace; else in that of `traceparent`, else in a new one"),
        ("X-Parent-Span" = Option<String>, Header, description = "the caller's span, above the run"),
        ("traceparent" = Option<String>, Header, description = "W3C Trace Context"),
    ),
    request_body(content = crate::openapi::CompletionRequest, description = "at most 4 MiB"),
    responses(
        (status = 200, description = "the agent's answer, as frames or as one JSON; `X-Trace-ID` names the trace", content(
            (SeedAnswer<crate::openapi::SeedCompletionAnswer> = "application/json"),
            (String = "text/event-stream"),
        )),
        (status = 404, description = "there is no such agent", body = SeedRefusal),
        (status = 410, description = "the trace was deleted", body = SeedRefusal),
        (status = 413, description = "the body is too large", body = SeedRefusal),
        (status = 415, description = "the body is not JSON", body = SeedRefusal),
        (status = 429, description = "too many calls to agents are going on", body = SeedRefusal),
        (status = 502, description = "the agent failed; with `trace_id` and the `trace` so far", body = crate::openapi::SeedFailedCompletion),
        (status = 504, description = "the agent did not answer in its time; with `trace_id` and the `trace` so far", body = crate::openapi::SeedFailedCompletion),
    ),
))]
pub(crate) async fn complete_seed(
    State(completions): State<Completions>,
    Tenant(tenant, _): Tenant<Exchange>,
    agent_id: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    answer(&completions, tenant, agent_id, &headers, body, Style::Seed).await
}

async fn answer(
    completions: &Completions,
    tenant: TenantId,
    agent_id: Result<Path<String>, PathRejection>,
    headers: &HeaderMap,
    body: Body,
    style: Style,
) -> Response {
    // What is no UTF-8 is nobody's name.
    let agent_id = agent_id.map_or_else(|_| "\u{fffd}".to_owned(), |Path(id)| id);
    match begin(completions, tenant, &agent_id, headers, body, style).await {
        Ok(begun) => begun.answer().await,
        Err(error) => error.into_response(),
    }
}

/// Checks a request and starts its run.
async fn begin(
    completions: &Completions,
    tenant: TenantId,
    agent_id: &str,
    headers: &HeaderMap,
    body: Body,
    style: Style,
) -> Result<Begun, ApiError> {
    let app = &completions.app;
    let agent = app.config.agents.get(&tenant, agent_id);
    let agent = agent.ok_or_else(|| ApiError::agent_not_found(agent_id))?;
    app.log.has_room(&tenant).await?;
    app.limits.take(&tenant, 1).await?;
    let permit = Arc::clone(&completions.places).try_acquire_owned();
    let permit = permit.map_err(|_| {
        let most = app.config.max_completions;
        ApiError::too_many(format!(
            "{most} calls to agents are going on, which is all this process takes"
        ))
    })?;
    if !is_json(headers) {
        return Err(ApiError::unsupported_media_type(
            "content type must be application/json",
        ));
    }
    let body = read(body, MAX_BODY_BYTES.min(app.config.max_body_bytes)).await?;
    let asked = request::parse(&body, agent.kind)?;
    let (trace, parent) = caller(headers)?;
    let place = Place {
        app: app.clone(),
        tenant,
        trace,
    };
    let view = View {
        place: place.clone(),
        agent: agent.id.clone(),
        level: asked.level,
        recorded: asked.recorded,
        include_trace: asked.include_trace,
        style,
    };
    let is_streamed = asked.stream;
    let news = run::start(Run {
        place,
        clients: Arc::clone(&completions.clients),
        agent: Arc::clone(agent),
        asked,
        parent,
        permit,
    });
    Ok(Begun {
        view,
        is_streamed,
        news,
    })
}

fn is_json(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_none_or(|kind| {
        let kind = kind.to_str().unwrap_or_default();
        let kind = kind.split(';').next().unwrap_or_default().trim();
        kind.eq_ignore_ascii_case("application/json")
    })
}

async fn read(body: Body, limit: usize) -> Result<Vec<u8>, ApiError> {
    let by = Instant::now() + BODY_TIME;
    let mut pieces = body.into_data_stream();
    let mut read = Vec::new();
    loop {
        let piece = timeout_at(by, pieces.next()).await.map_err(|_| {
            ApiError::unavailable(format!(
                "the body did not arrive within {BODY_TIME:?}: send it again"
            ))
        })?;
        let Some(piece) = piece else { return Ok(read) };
        let piece = piece
            .map_err(|_| ApiError::invalid("invalid_body", "the body broke off before its end"))?;
        if read.len() + piece.len() > limit {
            let_pass(&mut pieces).await;
            return Err(ApiError::too_large(format!(
                "the body is larger than {limit} bytes"
            )));
        }
        read.extend_from_slice(&piece);
    }
}

/// Takes the rest of a refused body and keeps nothing of it: a client that is cut while it sends sees a broken connection instead of the answer.
async fn let_pass(pieces: &mut BodyDataStream) {
    let by = Instant::now() + LET_PASS_TIME;
    let mut left = LET_PASS_BYTES;
    while let Ok(Some(Ok(piece))) = timeout_at(by, pieces.next()).await {
        match left.checked_sub(piece.len()) {
            Some(rest) => left = rest,
            None => return,
        }
    }
}

/// The trace that the caller names, else a new one; and the caller's span.
fn caller(headers: &HeaderMap) -> Result<(TraceId, Option<String>), ApiError> {
    let text = |name: HeaderName| headers.get(name)?.to_str().ok();
    let above = text(TRACEPARENT).and_then(TraceParent::parse);
    let parent = text(X_PARENT_SPAN)
        .map(str::trim)
        .filter(|span| (1..=128).contains(&span.len()))
        .map(str::to_owned)
        .or_else(|| above.as_ref().map(|above| above.parent_span_id.clone()));
    let trace = match (headers.get(X_TRACE_ID), above) {
        // Text of other alphabets is no id either, and says so.
        (Some(named), _) => TraceId::parse(&String::from_utf8_lossy(named.as_bytes()))?,
        (None, Some(above)) => above.trace,
        (None, None) => fresh_trace(),
    };
    Ok((trace, parent))
}

/// 32 hex digits, as an OTel SDK would make them.
fn fresh_trace() -> TraceId {
    loop {
        // All zero is the one id that is none.
        if let Some(trace) = TraceId::from_otel(&rand::random::<[u8; 16]>()) {
            return trace;
        }
    }
}

/// A run that was started, and how its caller wants to see it.
struct Begun {
    view: View,
    is_streamed: bool,
    news: UnboundedReceiver<News>,
}

impl Begun {
    async fn answer(mut self) -> Response {
        let trace = self.view.place.trace.clone();
        let after = match self.news.recv().await {
            Some(News::Begun { after }) => after,
            Some(News::Refused(error)) => return error.into_response(),
            _ => return ApiError::internal().into_response(),
        };
        let response = match self.is_streamed {
            true => self.streamed(after).await,
            false => loop {
                match self.news.recv().await {
                    Some(News::Ended(ended)) => break self.whole(*ended, after).await,
                    Some(_) => {}
                    None => break ApiError::internal().into_response(),
                }
            },
        };
        named(response, &trace)
    }

    async fn streamed(mut self, after: u64) -> Response {
        let by = Instant::now() + FIRST_FRAME_TIME;
        let first = match timeout_at(by, self.news.recv()).await {
            Ok(Some(News::Ended(ended))) if ended.answer.is_err() => {
                return self.whole(*ended, after).await;
            }
            Ok(Some(first)) => Some(first),
            Ok(None) => return ApiError::internal().into_response(),
            Err(_) => None,
        };
        let body = show::stream_body(self.view, after, first, self.news);
        event_stream(body)
    }

    /// The answer, or the error, as one JSON; either way with the trace.
    async fn whole(self, ended: Ended, after: u64) -> Response {
        let Self { view, .. } = self;
        let trace = match view.include_trace {
            true => Some(show::trace_json(&view, after).await),
            false => None,
        };
        let is_seed = view.style == Style::Seed;
        let (status, mut body) = match ended.answer {
            Ok(answer) => (StatusCode::OK, answer),
            Err(error) => {
                let error = error.api();
                let body = match is_seed {
                    true => envelope::error(error.status, error.code, &error.message),
                    false => json!({"error": {"code": error.code, "message": error.message}}),
                };
                (error.status, body)
            }
        };
        if let Value::Object(fields) = &mut body {
            fields.insert("trace_id".to_owned(), json!(view.place.trace));
            let trace = trace.map(|trace| {
                // The answer is worth having without it.
                trace.unwrap_or_else(
                    |error| json!({"error": {"code": error.code, "message": error.message}}),
                )
            });
            fields.extend(trace.map(|trace| ("trace".to_owned(), trace)));
        }
        match is_seed && status == StatusCode::OK {
            true => Enveloped(body).into_response(),
            false => (status, Json(body)).into_response(),
        }
    }
}

fn named(mut response: Response, trace: &TraceId) -> Response {
    if let Ok(id) = HeaderValue::from_str(trace.as_str()) {
        response.headers_mut().insert(X_TRACE_ID, id);
    }
    response
}
