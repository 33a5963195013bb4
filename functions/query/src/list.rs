//! `GET /traces`: newest first, page by page.

use axum::{Json, extract::State};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tailspan_core::{event::rfc3339_ms, id::TraceId, settle::Status};
use tailspan_service::{
    App,
    error::ApiError,
    extract::{Params, Tenant},
    log::{now_unix_ms, read::TraceState, rows::Row},
};

/// Rows of a page when nobody says, and at most.
const PAGE: usize = 20;
const LARGEST_PAGE: usize = 200;
/// States asked for at the same time.
const STATES_AT_ONCE: usize = 16;

#[derive(Debug, Default, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::IntoParams), into_params(parameter_in = Query))]
pub(crate) struct ListQuery {
    #[cfg_attr(feature = "openapi", param(minimum = 1, maximum = 200, default = 20))]
    /// Rows of a page.
    #[cfg_attr(feature = "openapi", param(minimum = 1, maximum = 200, default = 20))]
    limit: Option<usize>,
    /// The `next_cursor` of the page before.
    #[cfg_attr(
        feature = "openapi",
        param(pattern = "^[0-9]{1,15}-[A-Za-z0-9_-]{1,128}$")
    )]
    cursor: Option<String>,
}

#[derive(Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub(crate) struct List {
    traces: Vec<ListedTrace>,
    /// For the next page; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

/// Counted state, as of now; and of the last run that ended what was summed up then (`run.as_of_seq` says up to where).
#[derive(Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
struct ListedTrace {
    trace_id: TraceId,
    status: Status,
    #[cfg_attr(feature = "openapi", schema(format = DateTime))]
    started_at: String,
    #[cfg_attr(feature = "openapi", schema(format = DateTime))]
    last_event_at: String,
    total_events: u64,
    /// Runs that ended before the current one.
    ended_runs: u64,
    as_of_seq: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<tailspan_core::summary::Summary>))]
    run: Option<Value>,
}

/// The traces, newest first, page by page.
#[cfg_attr(feature = "openapi", utoipa::path(
    get, path = "/traces", tag = "traces", params(ListQuery),
    responses((status = 200, description = "a page of traces", body = List)),
))]
pub(crate) async fn list_traces(
    State(app): State<App>,
    Tenant(tenant): Tenant,
    Params(query): Params<ListQuery>,
) -> Result<Json<List>, ApiError> {
    let limit = query.limit.unwrap_or(PAGE);
    if !(1..=LARGEST_PAGE).contains(&limit) {
        return Err(ApiError::invalid(
            "invalid_parameter",
            format!("limit must be 1 to {LARGEST_PAGE}"),
        ));
    }
    let after = query.cursor.as_deref().map(parse_cursor).transpose()?;
    let rows = app.log.rows(&tenant, after.as_ref(), limit).await?;
    let next_cursor = rows
        .last()
        .filter(|_| rows.len() == limit)
        .map(|row| format!("{}-{}", row.started_unix_ms, row.trace));
    let names: Vec<TraceId> = rows.iter().map(|row| row.trace.clone()).collect();
    let states = stream::iter(names.clone())
        .map(|trace| {
            let (log, tenant) = (&app.log, &tenant);
            async move { log.state(tenant, &trace).await }
        })
        .buffered(STATES_AT_ONCE);
    let states: Vec<Option<TraceState>> = states.try_collect().await?;
    let runs = app.log.run_rows(&tenant, &names).await?;
    let traces = rows
        .into_iter()
        .zip(states)
        .zip(runs)
        // A row without a trace is one whose first append is under way, or never came.
        .filter_map(|((row, state), run)| {
            Some(listed(&app, row, state.filter(|state| !state.dead)?, run))
        })
        .collect();
    Ok(Json(List {
        traces,
        next_cursor,
    }))
}

fn listed(app: &App, row: Row, state: TraceState, run: Option<String>) -> ListedTrace {
    let patience = app.log.patience();
    let silent_ms = now_unix_ms().saturating_sub(state.last_arrival_unix_ms);
    let status = match state.ended() {
        Some(status) => status.parse().unwrap_or(Status::Completed),
        None if silent_ms >= patience.lost_ms => Status::Lost,
        None if silent_ms >= patience.stalled_ms => Status::Stalled,
        None => Status::Running,
    };
    ListedTrace {
        trace_id: row.trace,
        status,
        started_at: rfc3339_ms(row.started_unix_ms),
        last_event_at: rfc3339_ms(state.last_arrival_unix_ms),
        total_events: state.seq - state.base,
        ended_runs: state.run + u64::from(state.settled.is_some() || state.reopened),
        as_of_seq: state.seq,
        run: run.and_then(|run| serde_json::from_str(&run).ok()),
    }
}

fn parse_cursor(text: &str) -> Result<Row, ApiError> {
    let invalid =
        || ApiError::invalid("invalid_cursor", "cursor must be the next_cursor of a list");
    let (started, trace) = text.split_once('-').ok_or_else(invalid)?;
    Ok(Row {
        started_unix_ms: started.parse().map_err(|_| invalid())?,
        trace: TraceId::parse(trace).map_err(|_| invalid())?,
    })
}
