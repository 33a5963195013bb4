//! One trace: itself, its summary, its invocations, and its end.

use axum::{
    Json,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};
use tailspan_core::{
    event,
    id::{TenantId, TraceId},
    invocations::{Invocation, invocations},
    settle::Status,
    summary::{Summary, summary},
    tree,
    verbosity::Verbosity,
};
use tailspan_service::{
    App,
    error::ApiError,
    extract::{Admin, Glimpse, LensParams, Params, Tenant, TracePath, View},
    log::read::Folded,
};

#[cfg(feature = "openapi")]
use tailspan_service::{extract::TraceSegment, openapi::TraceNotFound};

use crate::events::EventsQuery;
use crate::session;

/// A trace: what its summary says, and its spans as a tree.
#[derive(Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub(crate) struct Trace {
    #[serde(flatten)]
    summary: Summary,
    level: Verbosity,
    /// Where a stream goes on from what is shown here.
    cursor: String,
    /// Depth first, parents before children: all of them at every level, for they hold no words of what went in or out.
    spans: Vec<tree::Row>,
}

/// One trace: what its summary says, and its spans as a tree; with `format` as a session with its events, or as a timeline of text.
#[cfg_attr(feature = "openapi", utoipa::path(
    get, path = "/traces/{trace_id}", tag = "traces", params(
        TraceSegment, EventsQuery, LensParams,
        ("format" = Option<String>, Query, description = "as a session with its events, or as lines of text", pattern = "^(streaming|compact|detailed|timeline)$"),
    ),
    responses(
        (status = 200, description = "the trace", content(
            (crate::openapi::AnyTrace = "application/json"),
            (String = "text/plain"),
        )),
        (status = 404, response = TraceNotFound),
    ),
))]
pub(crate) async fn get_trace(
    State(app): State<App>,
    Tenant(tenant, viewer): Tenant<Glimpse>,
    TracePath(trace): TracePath,
    Params(query): Params<EventsQuery>,
    Params(lens): Params<LensParams>,
) -> Result<Response, ApiError> {
    let lens = lens.for_viewer(viewer)?;
    if lens.format() == Some("timeline") {
        return session::timeline(&app, &tenant, &trace, &query, lens).await;
    }
    let shown = lens.lens()?;
    if let Some(format) = shown.format {
        let told = session::session(&app, &tenant, &trace, &query, &shown, format).await?;
        return Ok(Json(told).into_response());
    }
    let folded = folded(&app, &tenant, &trace).await?;
    let answer = Trace {
        summary: summary_of(&app, &trace, &folded, shown.level),
        level: shown.level,
        cursor: folded.trace.cursor().to_string(),
        spans: tree::rows(&folded.state, &app.config.prices),
    };
    Ok(Json(answer).into_response())
}

/// The trace in a few numbers.
#[cfg_attr(feature = "openapi", utoipa::path(
    get, path = "/traces/{trace_id}/summary", tag = "traces", params(TraceSegment, LensParams),
    responses(
        (status = 200, description = "the summary", body = Summary),
        (status = 404, response = TraceNotFound),
    ),
))]
pub(crate) async fn get_summary(
    State(app): State<App>,
    Tenant(tenant, viewer): Tenant<Glimpse>,
    TracePath(trace): TracePath,
    Params(lens): Params<LensParams>,
) -> Result<Json<Summary>, ApiError> {
    let level = lens.for_viewer(viewer)?.lens()?.level;
    let folded = folded(&app, &tenant, &trace).await?;
    Ok(Json(summary_of(&app, &trace, &folded, level)))
}

/// A trace's summary as it is told at a level.
pub(crate) fn summary_of(app: &App, trace: &TraceId, folded: &Folded, level: Verbosity) -> Summary {
    let prices = &app.config.prices;
    summary(
        &folded.state,
        trace.as_str(),
        app.log.status(folded),
        prices,
    )
    .at(level)
}

/// A turn of the user, and when it began.
#[derive(Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub(crate) struct TimedTurn {
    #[serde(flatten)]
    turn: Invocation,
    /// Every step that began then or later, and before the next turn, is of this one.
    #[serde(rename = "startedAt")]
    #[cfg_attr(feature = "openapi", schema(format = DateTime))]
    started_at: String,
}

/// The turns of the user, each with what was answered and the tools that were called; whole unless a lower level is asked for.
#[cfg_attr(feature = "openapi", utoipa::path(
    get, path = "/traces/{trace_id}/invocations", tag = "traces", params(TraceSegment, LensParams),
    responses(
        (status = 200, description = "the turns, in their order", body = Vec<TimedTurn>),
        (status = 404, response = TraceNotFound),
    ),
))]
pub(crate) async fn get_invocations(
    State(app): State<App>,
    Tenant(tenant, _): Tenant<View>,
    TracePath(trace): TracePath,
    Params(lens): Params<LensParams>,
) -> Result<Json<Vec<TimedTurn>>, ApiError> {
    let level = lens.level()?.unwrap_or(Verbosity::Debug);
    let folded = folded(&app, &tenant, &trace).await?;
    let timed = |turn: Invocation| TimedTurn {
        started_at: event::rfc3339_ns(turn.source.from_ns),
        turn: turn.at(level),
    };
    Ok(Json(
        invocations(&folded.state).into_iter().map(timed).collect(),
    ))
}

#[derive(Debug, Default, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::IntoParams), into_params(parameter_in = Query))]
pub(crate) struct DeleteQuery {
    /// Also while it runs.
    force: Option<bool>,
}

/// Removes the trace.
///
/// Every read answers 404 afterwards, streams of it end with `deleted`, and late spans do not bring it back.
#[cfg_attr(feature = "openapi", utoipa::path(
    delete, path = "/traces/{trace_id}", tag = "traces", params(TraceSegment, DeleteQuery),
    responses(
        (status = 204, description = "the trace is gone"),
        (status = 404, response = TraceNotFound),
        (status = 409, description = "the trace runs", body = tailspan_service::openapi::ErrorBody),
    ),
))]
pub(crate) async fn delete_trace(
    State(app): State<App>,
    Tenant(tenant, _): Tenant<Admin>,
    TracePath(trace): TracePath,
    Params(query): Params<DeleteQuery>,
) -> Result<StatusCode, ApiError> {
    delete(&app, &tenant, &trace, &query).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// # Errors
/// 404 for a trace that is not there, 409 for one that runs unless it is forced, 503.
pub(crate) async fn delete(
    app: &App,
    tenant: &TenantId,
    trace: &TraceId,
    query: &DeleteQuery,
) -> Result<(), ApiError> {
    if !query.force.unwrap_or(false) {
        let folded = folded(app, tenant, trace).await?;
        if matches!(app.log.status(&folded), Status::Running | Status::Stalled) {
            return Err(ApiError::conflict(
                "trace_running",
                format!(
                    "trace {trace} is running; delete it with ?force=true, or when it has ended"
                ),
            ));
        }
    }
    match app.log.delete(tenant, trace).await? {
        true => Ok(()),
        false => Err(ApiError::trace_not_found(trace)),
    }
}

pub(crate) async fn folded(
    app: &App,
    tenant: &TenantId,
    trace: &TraceId,
) -> Result<Folded, ApiError> {
    app.log
        .folded_or_archived(tenant, trace)
        .await?
        .ok_or_else(|| ApiError::trace_not_found(trace))
}
