//! One trace: itself, its events, its summary, its invocations, and its end.

use axum::{Json, extract::State, http::StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};
use tailspan_core::{
    continuity::{Continuity, locate},
    cursor::Cursor,
    event,
    id::{TenantId, TraceId},
    invocations::{Invocation, invocations},
    settle::{Status, decide},
    summary::{Summary, summary},
    tree,
};
use tailspan_service::{
    App,
    error::ApiError,
    extract::{Params, Tenant, TracePath},
    log::{
        now_unix_ms,
        read::{Folded, PageSize, ReadFrom},
    },
};
#[cfg(feature = "openapi")]
use tailspan_service::{extract::TraceSegment, openapi::TraceNotFound};
use tracing::error;

/// Events of a page when nobody says, and at most.
const PAGE: usize = 100;
const LARGEST_PAGE: usize = 1000;
/// Bytes of events on one page: with their attributes a thousand could be gigabytes. An event that is larger stands on a page of its own.
const PAGE_BYTES: usize = 4 << 20;

/// A trace: what its summary says, and its spans as a tree.
#[derive(Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub(crate) struct Trace {
    #[serde(flatten)]
    summary: Summary,
    /// Where a stream goes on from what is shown here.
    cursor: String,
    /// Depth first, parents before children.
    spans: Vec<tree::Row>,
}

/// One trace: what its summary says, and its spans as a tree.
#[cfg_attr(feature = "openapi", utoipa::path(
    get, path = "/traces/{trace_id}", tag = "traces", params(TraceSegment),
    responses(
        (status = 200, description = "the trace", body = Trace),
        (status = 404, response = TraceNotFound),
    ),
))]
pub(crate) async fn get_trace(
    State(app): State<App>,
    Tenant(tenant): Tenant,
    TracePath(trace): TracePath,
) -> Result<Json<Trace>, ApiError> {
    let folded = folded(&app, &tenant, &trace).await?;
    Ok(Json(Trace {
        summary: summary(
            &folded.state,
            trace.as_str(),
            status(&app, &folded),
            &app.config.prices,
        ),
        cursor: folded.trace.cursor().to_string(),
        spans: tree::rows(&folded.state, &app.config.prices),
    }))
}

/// The trace in a few numbers.
#[cfg_attr(feature = "openapi", utoipa::path(
    get, path = "/traces/{trace_id}/summary", tag = "traces", params(TraceSegment),
    responses(
        (status = 200, description = "the summary", body = Summary),
        (status = 404, response = TraceNotFound),
    ),
))]
pub(crate) async fn get_summary(
    State(app): State<App>,
    Tenant(tenant): Tenant,
    TracePath(trace): TracePath,
) -> Result<Json<Summary>, ApiError> {
    let folded = folded(&app, &tenant, &trace).await?;
    Ok(Json(summary(
        &folded.state,
        trace.as_str(),
        status(&app, &folded),
        &app.config.prices,
    )))
}

/// The turns of the user, each with what was answered and the tools that were called.
#[cfg_attr(feature = "openapi", utoipa::path(
    get, path = "/traces/{trace_id}/invocations", tag = "traces", params(TraceSegment),
    responses(
        (status = 200, description = "the turns, in their order", body = Vec<Invocation>),
        (status = 404, response = TraceNotFound),
    ),
))]
pub(crate) async fn get_invocations(
    State(app): State<App>,
    Tenant(tenant): Tenant,
    TracePath(trace): TracePath,
) -> Result<Json<Vec<Invocation>>, ApiError> {
    Ok(Json(invocations(
        &folded(&app, &tenant, &trace).await?.state,
    )))
}

/// Removes the trace.
///
/// Every read answers 404 afterwards, streams of it end with `deleted`, and late spans do not bring it back.
#[cfg_attr(feature = "openapi", utoipa::path(
    delete, path = "/traces/{trace_id}", tag = "traces", params(TraceSegment),
    responses(
        (status = 204, description = "the trace is gone"),
        (status = 404, response = TraceNotFound),
    ),
))]
pub(crate) async fn delete_trace(
    State(app): State<App>,
    Tenant(tenant): Tenant,
    TracePath(trace): TracePath,
) -> Result<StatusCode, ApiError> {
    match app.log.delete(&tenant, &trace).await? {
        true => Ok(StatusCode::NO_CONTENT),
        false => Err(ApiError::trace_not_found(&trace)),
    }
}

#[derive(Debug, Default, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::IntoParams), into_params(parameter_in = Query))]
pub(crate) struct EventsQuery {
    /// Events of a page.
    #[cfg_attr(feature = "openapi", param(minimum = 1, maximum = 1000, default = 100))]
    limit: Option<usize>,
    /// Only what comes after: the `next_cursor` of the page before, or the `id` of a stream's frame.
    #[cfg_attr(feature = "openapi", param(pattern = "^[0-9]{1,15}(-[0-9]{1,9})?$"))]
    cursor: Option<String>,
    /// `attributes`: with everything the producer sent.
    #[cfg_attr(feature = "openapi", param(pattern = "^attributes$"))]
    include: Option<String>,
    /// Event types, comma separated; others are left out (and counted in no page).
    #[cfg_attr(feature = "openapi", param(min_length = 1))]
    event_types: Option<String>,
}

#[derive(Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub(crate) struct Events {
    trace_id: TraceId,
    /// Events of the trace.
    total: u64,
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<tailspan_core::event::Event>))]
    events: Vec<Box<RawValue>>,
    /// For the next page, and for a stream that goes on from here; absent when this was the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
    /// Where the last event shown or left out stands.
    cursor: String,
    /// Events that cannot be shown: before these, or where their numbers leave a hole.
    #[serde(skip_serializing_if = "Option::is_none")]
    gap: Option<Gap>,
}

#[derive(Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
struct Gap {
    #[cfg_attr(feature = "openapi", schema(value_type = tailspan_service::openapi::GapReason))]
    reason: &'static str,
    from: u64,
    to: u64,
}

/// The events of a trace in their order, page by page.
///
/// A page also ends at 4 MiB of events; a larger event stands on a page of its own.
#[cfg_attr(feature = "openapi", utoipa::path(
    get, path = "/traces/{trace_id}/events", tag = "traces", params(TraceSegment, EventsQuery),
    responses(
        (status = 200, description = "a page of events", body = Events),
        (status = 404, response = TraceNotFound),
    ),
))]
pub(crate) async fn get_events(
    State(app): State<App>,
    Tenant(tenant): Tenant,
    TracePath(trace): TracePath,
    Params(query): Params<EventsQuery>,
) -> Result<Json<Events>, ApiError> {
    let invalid = |message: String| ApiError::invalid("invalid_parameter", message);
    let limit = query.limit.unwrap_or(PAGE);
    if !(1..=LARGEST_PAGE).contains(&limit) {
        return Err(invalid(format!("limit must be 1 to {LARGEST_PAGE}")));
    }
    let view = match query.include.as_deref() {
        None => event::view,
        Some("attributes") => event::view_with_attributes,
        Some(_) => return Err(invalid("include must be attributes".to_owned())),
    };
    let wanted: Option<Vec<&str>> = query.event_types.as_deref().map(|types| {
        let types = types.split(',').map(str::trim);
        types.filter(|name| !name.is_empty()).collect()
    });
    if wanted.as_ref().is_some_and(Vec::is_empty) {
        return Err(invalid("event_types must name event types".to_owned()));
    }
    let mut cursor: Cursor = match &query.cursor {
        Some(text) => text.parse().map_err(|_| {
            ApiError::invalid("invalid_cursor", "cursor must be <seq> or <seq>-<mark>")
        })?,
        None => Cursor::START,
    };
    let asked = cursor;
    let mut events = Vec::new();
    let (mut bytes, mut is_full) = (0, false);
    let mut gap = None;
    loop {
        let page = app
            .log
            .page(
                &tenant,
                &trace,
                ReadFrom::Holding(cursor.seq),
                PageSize::LARGE,
            )
            .await?;
        let state = page
            .state
            .filter(|state| !state.dead)
            .ok_or_else(|| ApiError::trace_not_found(&trace))?;
        match locate(
            cursor,
            state.extent(),
            page.chunks.first().map(|chunk| chunk.span),
        ) {
            Continuity::Continues => {}
            Continuity::Trimmed { from, to } => {
                gap = Some(Gap {
                    reason: "trimmed",
                    from,
                    to,
                });
                cursor = Cursor {
                    seq: to,
                    mark: None,
                };
                continue;
            }
            Continuity::Replaced => {
                gap = Some(Gap {
                    reason: "replaced",
                    from: cursor.seq,
                    to: cursor.seq,
                });
                cursor = Cursor::START;
                continue;
            }
        }
        let before = cursor;
        'page: for chunk in &page.chunks {
            if chunk.span.last <= cursor.seq {
                continue;
            }
            let recorded = app.log.recorded(&tenant, &trace, chunk).await?;
            let unread = chunk.unread(&recorded);
            for recorded in recorded {
                if recorded.seq <= cursor.seq {
                    continue;
                }
                let event = view(&trace, &recorded);
                if wanted
                    .as_ref()
                    .is_none_or(|types| types.contains(&event.event_type.as_str()))
                {
                    let event = to_raw_value(&event).map_err(|error| {
                        error!(%trace, seq = recorded.seq, %error, "failed to write an event as JSON");
                        ApiError::internal()
                    })?;
                    let more = bytes + event.get().len();
                    is_full = events.len() >= limit || !events.is_empty() && more > PAGE_BYTES;
                    if is_full {
                        break 'page;
                    }
                    bytes = more;
                    events.push(event);
                }
                cursor = Cursor::new(recorded.seq, chunk.span.mark);
            }
            if let Some((from, to)) = unread {
                if gap.is_some() {
                    // One gap an answer: this one stands at the head of the next page.
                    break 'page;
                }
                let reason = "unreadable";
                gap = Some(Gap { reason, from, to });
                cursor = chunk.span.end();
            }
        }
        if is_full || events.len() >= limit || cursor.seq >= state.seq || cursor == before {
            return Ok(Json(Events {
                trace_id: trace,
                total: state.seq - state.base,
                events,
                // A page that did not get on would be asked for again and again.
                next_cursor: (cursor.seq < state.seq && cursor != asked)
                    .then(|| cursor.to_string()),
                cursor: cursor.to_string(),
                gap,
            }));
        }
    }
}

async fn folded(app: &App, tenant: &TenantId, trace: &TraceId) -> Result<Folded, ApiError> {
    app.log
        .folded(tenant, trace)
        .await?
        .ok_or_else(|| ApiError::trace_not_found(trace))
}

/// What was settled, else what can be said at this moment.
fn status(app: &App, folded: &Folded) -> Status {
    let last_arrival = folded.trace.last_arrival_unix_ms;
    match folded.trace.ended() {
        Some(status) => status.parse().unwrap_or(Status::Completed),
        None => decide(
            &folded.state,
            last_arrival,
            now_unix_ms(),
            app.log.patience(),
        )
        .status(),
    }
}
