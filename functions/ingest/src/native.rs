//! `POST /traces/{trace_id}/events` and `POST /traces/events`.

use axum::{
    Json,
    body::Body,
    extract::State,
    http::{
        HeaderMap, HeaderName, HeaderValue, StatusCode,
        header::{ALLOW, CONTENT_ENCODING, CONTENT_TYPE},
    },
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tailspan_core::{
    cursor::Cursor,
    id::{TenantId, TraceId},
    native::{self, Format, Posted, RejectedEvent, Sender},
    otlp,
    propagation::TraceParent,
};
use tailspan_service::{
    body::header,
    error::ApiError,
    extract::{Params, Tenant, TracePath, Write},
    log::append::{AppendOptions, Appended},
};

#[cfg(feature = "openapi")]
use tailspan_service::{
    extract::TraceSegment,
    openapi::{TooLarge, TooMany, TraceDeleted, UnsupportedMediaType},
};

#[cfg(feature = "openapi")]
use crate::openapi::{
    Caller, CallerTrace, ContentEncoding, HowMuch, NativeEvents, NothingStored, StoredEvents,
};
use crate::{Ingest, admitted, level::trace_level, stored};

const X_TRACE_ID: HeaderName = HeaderName::from_static("x-trace-id");
const X_PARENT_SPAN: HeaderName = HeaderName::from_static("x-parent-span");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// Characters of an `X-Parent-Span` that are believed.
const MAX_PARENT_CHARS: usize = 128;

#[derive(Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::IntoParams), into_params(parameter_in = Query))]
pub(crate) struct Query {
    /// Begin the trace anew with these events.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", param(default = false))]
    replace: bool,
}

/// What became of a request's events.
#[derive(Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = Stored))]
pub(crate) struct Answer {
    trace_id: TraceId,
    /// Events of this request that are in the trace now.
    accepted: u64,
    /// Of the accepted: those that were there before.
    duplicates: u64,
    rejected: Vec<RejectedEvent>,
    /// The trace's last event.
    last_seq: u64,
    /// Where a stream goes on after it; absent when nothing was stored.
    #[serde(skip_serializing_if = "Option::is_none")]
    cursor: Option<String>,
}

/// Native events, to the trace in the path.
///
/// To that trace, whatever the headers say.
#[cfg_attr(feature = "openapi", utoipa::path(
    post, path = "/traces/{trace_id}/events", tag = "ingest", operation_id = "post_events",
    params(TraceSegment, Query, Caller, ContentEncoding, HowMuch),
    request_body(
        content((NativeEvents = "application/json"), (String = "application/x-ndjson")),
        description = "one event, an array of them, or one a line; at most 10,000 of at most 1 MiB and 64 levels each, 16 MiB unpacked in all",
    ),
    responses(
        (status = 200, response = StoredEvents),
        (status = 400, response = NothingStored),
        (status = 410, response = TraceDeleted),
        (status = 413, response = TooLarge),
        (status = 415, response = UnsupportedMediaType),
        (status = 429, response = TooMany),
    ),
))]
pub(crate) async fn to_trace(
    State(ingest): State<Ingest>,
    Tenant(tenant, write): Tenant<Write>,
    TracePath(trace): TracePath,
    Params(query): Params<Query>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    if let Err(refused) = write.replacing(query.replace) {
        return refused.into_response();
    }
    post(&ingest, &tenant, trace, &query, &headers, body).await
}

/// Native events, to the trace that the caller works for.
///
/// To the caller's trace, else to a new one, whose id is in the answer.
#[cfg_attr(feature = "openapi", utoipa::path(
    post, path = "/traces/events", tag = "ingest", operation_id = "post_own_events",
    params(Query, CallerTrace, Caller, ContentEncoding, HowMuch),
    request_body(
        content((NativeEvents = "application/json"), (String = "application/x-ndjson")),
        description = "one event, an array of them, or one a line; at most 10,000 of at most 1 MiB and 64 levels each, 16 MiB unpacked in all",
    ),
    responses(
        (status = 200, response = StoredEvents),
        (status = 400, response = NothingStored),
        (status = 410, response = TraceDeleted),
        (status = 413, response = TooLarge),
        (status = 415, response = UnsupportedMediaType),
        (status = 429, response = TooMany),
    ),
))]
pub(crate) async fn to_own_trace(
    State(ingest): State<Ingest>,
    Tenant(tenant, write): Tenant<Write>,
    TracePath(path): TracePath,
    Params(query): Params<Query>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    if path.as_str() != "events" {
        let mut refused = ApiError::method_not_allowed().into_response();
        // What other functions answer here.
        let others = HeaderValue::from_static("GET,HEAD,DELETE");
        refused.headers_mut().insert(ALLOW, others);
        return refused;
    }
    if let Err(refused) = write.replacing(query.replace) {
        return refused.into_response();
    }
    let trace = match headers.get(X_TRACE_ID) {
        // Text of other alphabets is no id either, and says so.
        Some(named) => {
            TraceId::parse(&String::from_utf8_lossy(named.as_bytes())).map_err(ApiError::from)
        }
        None => Ok(parent(&headers).map_or_else(fresh_trace, |parent| parent.trace)),
    };
    match trace {
        Ok(trace) => post(&ingest, &tenant, trace, &query, &headers, body).await,
        Err(error) => error.into_response(),
    }
}

async fn post(
    ingest: &Ingest,
    tenant: &TenantId,
    trace: TraceId,
    query: &Query,
    headers: &HeaderMap,
    body: Body,
) -> Response {
    let id = HeaderValue::from_str(trace.as_str());
    let mut response = match take(ingest, tenant, trace, query, headers, body).await {
        Ok(response) => response,
        Err(error) => {
            ingest.app.metrics.reject(error.code, 1);
            error.into_response()
        }
    };
    // The caller's context comes back, so that it need not be remembered.
    let answered = response.headers_mut();
    for name in [X_PARENT_SPAN, TRACEPARENT] {
        if let Some(value) = headers.get(&name) {
            answered.insert(name, value.clone());
        }
    }
    if let Ok(id) = id {
        answered.insert(X_TRACE_ID, id);
    }
    response
}

async fn take(
    ingest: &Ingest,
    tenant: &TenantId,
    trace: TraceId,
    query: &Query,
    headers: &HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let Ingest {
        app,
        intake,
        limits,
    } = ingest;
    let trace_level = trace_level(headers)?;
    let format = Format::of(header(headers, &CONTENT_TYPE)).ok_or_else(|| {
        ApiError::unsupported_media_type(
            "content type must be application/json or application/x-ndjson",
        )
    })?;
    let body = admitted(app, tenant, headers, body).await?;
    let (body, mut share) = intake.read(headers, body, limits.body_bytes).await?;
    let content_encoding = header(headers, &CONTENT_ENCODING).map(str::to_owned);
    let is_packed = content_encoding.is_some();
    let idempotency_key = headers
        .get(IDEMPOTENCY_KEY)
        .map(|key| String::from_utf8_lossy(key.as_bytes()).into_owned())
        .filter(|key| !key.is_empty());
    let parent_span_id = parent_span(headers);
    let limits = *limits;
    let of = trace.clone();
    let (posted, unpacked_bytes) = intake
        .decode(body, is_packed, move |body| {
            let body = otlp::inflate(content_encoding.as_deref(), body, limits.body_bytes)?;
            let sender = Sender {
                idempotency_key: idempotency_key.as_deref(),
                parent_span_id: parent_span_id.as_deref(),
            };
            let posted = native::decode(&of, &body, format, sender, &limits)?;
            Ok::<_, ApiError>((posted, body.len()))
        })
        .await?;
    intake.grow(&mut share, unpacked_bytes)?;
    let count = posted.events.len() as u64;
    app.limits.take(tenant, count).await?;
    let Posted {
        mut events,
        repeated,
        rejected,
    } = posted;
    for event in &mut events {
        event.trace_level = event.trace_level.min(trace_level);
    }
    for event in &rejected {
        app.metrics.reject(event.reason, 1);
    }
    // Nothing good in it: not even a replacement, for that would only delete.
    if events.is_empty() && !rejected.is_empty() {
        return Ok(all_rejected(&rejected));
    }
    if events.is_empty() && query.replace {
        return Err(ApiError::invalid(
            "invalid_body",
            "a trace begins anew with at least one event: send one, or DELETE the trace",
        ));
    }
    let options = AppendOptions {
        replace: query.replace,
    };
    let appended = if events.is_empty() {
        as_it_stands(ingest, tenant, &trace).await?
    } else {
        stored(app.log.append(tenant, &trace, events, options)).await?
    };
    if appended.deleted {
        return Err(ApiError::trace_deleted(&trace));
    }
    app.metrics.native_events.inc_by(count);
    let answer = Answer {
        trace_id: trace,
        accepted: count + repeated,
        duplicates: appended.duplicates + repeated,
        rejected,
        last_seq: appended.last_seq,
        cursor: (appended.last_seq > 0)
            .then(|| Cursor::new(appended.last_seq, appended.mark).to_string()),
    };
    Ok(Json(answer).into_response())
}

/// What there is to say of a trace to which nothing was sent.
async fn as_it_stands(
    ingest: &Ingest,
    tenant: &TenantId,
    trace: &TraceId,
) -> Result<Appended, ApiError> {
    let state = stored(ingest.app.log.state(tenant, trace)).await?;
    Ok(state.map_or_else(Appended::default, |state| Appended {
        last_seq: state.seq,
        mark: state.mark,
        deleted: state.dead,
        ..Appended::default()
    }))
}

/// 400 with the first reason as the error, and all of them beside it.
fn all_rejected(rejected: &[RejectedEvent]) -> Response {
    let (code, message) = rejected.first().map_or(("invalid_body", ""), |first| {
        (first.reason, first.message.as_str())
    });
    let body = json!({"error": {"code": code, "message": message}, "rejected": rejected});
    (StatusCode::BAD_REQUEST, Json(body)).into_response()
}

fn parent(headers: &HeaderMap) -> Option<TraceParent> {
    header(headers, &TRACEPARENT).and_then(TraceParent::parse)
}

fn parent_span(headers: &HeaderMap) -> Option<String> {
    header(headers, &X_PARENT_SPAN)
        .map(str::trim)
        .filter(|span| (1..=MAX_PARENT_CHARS).contains(&span.len()))
        .map(str::to_owned)
        .or_else(|| parent(headers).map(|parent| parent.parent_span_id))
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
