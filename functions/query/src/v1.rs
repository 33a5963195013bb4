//! Seed 001's routes under `/v1/trace`: the same reads in its envelope, with its field names. The stream is `functions/stream`'s, the cleanup `functions/cleanup`'s.

use axum::extract::{Path, State, rejection::PathRejection};
use serde_json::{Map, Value, json};
use tailspan_core::{
    event::Event,
    format::{self, Format},
    id::TenantId,
    lens::Lens,
    listing::Request,
    settle::Status,
};
use tailspan_service::{
    App,
    envelope::Enveloped,
    error::ApiError,
    extract::{Admin, LensParams, Params, Read, Tenant, TracePath},
};

#[cfg(feature = "openapi")]
use {
    crate::openapi::{SeedDeleted, SeedEvents},
    tailspan_core::openapi::{AnySession, SessionNumbers},
    tailspan_service::{
        extract::TraceSegment,
        openapi::{SeedAnswer, SeedRefusal},
    },
};

use crate::events::{self, EventsQuery};
use crate::list::{self, Pairs};
use crate::session;
use crate::trace::{DeleteQuery, delete, folded, summary_of};

/// Events of a page when nobody says (the seed's `limit=100`).
const PAGE: usize = 100;

/// The traces, newest first, by numbered pages; the filters are those of `/traces`.
#[cfg_attr(feature = "openapi", utoipa::path(
    get, path = "/v1/trace/traces", tag = "seed", operation_id = "seed_list_traces",
    params(crate::openapi::OfAgent, crate::openapi::InSession, crate::openapi::ListQuery),
    responses((status = 200, description = "a page of traces", body = SeedAnswer<crate::openapi::SeedList>)),
))]
pub(crate) async fn list_traces(
    State(app): State<App>,
    Tenant(tenant, _): Tenant<Read>,
    Params(pairs): Params<Pairs>,
) -> Result<Enveloped<Value>, ApiError> {
    let request = Request::parse(numbered(pairs)).map_err(list::invalid)?;
    Ok(Enveloped(sessions(&app, &tenant, &request).await?))
}

/// The traces of one agent, as the list of all.
#[cfg_attr(feature = "openapi", utoipa::path(
    get, path = "/v1/trace/agents/{agent_id}/traces", tag = "seed", operation_id = "seed_list_traces_of_agent",
    params(("agent_id" = String, Path, description = "name or id of the agent, percent-encoded"), crate::openapi::InSession, crate::openapi::ListQuery),
    responses((status = 200, description = "a page of traces", body = SeedAnswer<crate::openapi::SeedList>)),
))]
pub(crate) async fn list_traces_of_agent(
    State(app): State<App>,
    Tenant(tenant, _): Tenant<Read>,
    agent: Result<Path<String>, PathRejection>,
    Params(pairs): Params<Pairs>,
) -> Result<Enveloped<Value>, ApiError> {
    let request = list::of_agent(agent, numbered(pairs))?;
    Ok(Enveloped(sessions(&app, &tenant, &request).await?))
}

/// The seed counts pages: the first, unless a page or a cursor is given.
fn numbered(mut pairs: Pairs) -> Pairs {
    let is_told = |name: &str| pairs.iter().any(|(key, _)| key == name);
    if !["page", "page_size", "cursor", "limit"]
        .into_iter()
        .any(is_told)
    {
        pairs.push(("page".to_owned(), "1".to_owned()));
    }
    pairs
}

async fn sessions(app: &App, tenant: &TenantId, request: &Request) -> Result<Value, ApiError> {
    let found = list::find(app, tenant, request).await?;
    let sessions: Vec<Value> = found
        .traces
        .iter()
        .map(|trace| {
            let run = trace.run.as_ref().unwrap_or(&Value::Null);
            let first = |names: &str| run[names].get(0).cloned().unwrap_or_else(|| "".into());
            let is_over = !matches!(trace.status, Status::Running | Status::Stalled);
            json!({
                "task_id": trace.trace_id,
                "agent_id": first("agents"),
                "session_id": first("sessions"),
                "user_id": first("users"),
                "tenant_id": tenant.as_str(),
                "created_at": trace.started_at,
                "status": format::status(trace.status),
                "completed_at": run.get("ended_at").filter(|_| is_over),
                "total_elapsed_time": run["duration_ms"].as_f64().map(|ms| ms / 1000.0),
                "total_events": trace.total_events,
                "total_tokens": run.get("total_tokens"),
                "errors_count": run.get("errors_count"),
            })
        })
        .collect();
    let mut told = json!({
        "total": found.total.or(found.total_at_least),
        "page": found.page.unwrap_or(1),
        "page_size": found.page_size.unwrap_or(sessions.len()),
        "sessions": sessions,
    });
    if let Value::Object(fields) = &mut told {
        if found.total.is_none() {
            fields.insert("total_is_at_least".to_owned(), Value::Bool(true));
        }
        if let Some(next) = found.next_cursor {
            fields.insert("next_cursor".to_owned(), Value::from(next));
        }
    }
    Ok(told)
}

/// A trace as a session of seed 001, in the format asked for (streaming by default).
#[cfg_attr(feature = "openapi", utoipa::path(
    get, path = "/v1/trace/traces/{trace_id}", operation_id = "seed_get_trace", tag = "seed", params(TraceSegment, EventsQuery, LensParams),
    responses(
        (status = 200, description = "the trace as a session", body = SeedAnswer<AnySession>),
        (status = 404, description = "there is no such trace", body = SeedRefusal),
    ),
))]
pub(crate) async fn get_trace(
    State(app): State<App>,
    Tenant(tenant, _): Tenant<Read>,
    TracePath(trace): TracePath,
    Params(query): Params<EventsQuery>,
    Params(lens): Params<LensParams>,
) -> Result<Enveloped<Value>, ApiError> {
    let lens = lens.lens()?;
    let format = lens.format.unwrap_or_default();
    let told = session::session(&app, &tenant, &trace, &query, &lens, format).await?;
    Ok(Enveloped(told))
}

/// A page of events as seed 001 keeps them.
#[cfg_attr(feature = "openapi", utoipa::path(
    get, path = "/v1/trace/traces/{trace_id}/events", operation_id = "seed_get_events", tag = "seed", params(TraceSegment, EventsQuery, LensParams),
    responses(
        (status = 200, description = "a page of events, its length and how many there are", body = SeedAnswer<SeedEvents>),
        (status = 404, description = "there is no such trace", body = SeedRefusal),
    ),
))]
pub(crate) async fn get_events(
    State(app): State<App>,
    Tenant(tenant, _): Tenant<Read>,
    TracePath(trace): TracePath,
    Params(query): Params<EventsQuery>,
    Params(lens): Params<LensParams>,
) -> Result<Enveloped<Value>, ApiError> {
    let lens = lens.lens()?;
    let page = events::page(&app, &tenant, &trace, &query.counted(), PAGE, &lens).await?;
    let shown = page.events.iter().map(|event| seed_event(event, &lens));
    let shown: Vec<Value> = shown.collect();
    let mut told = json!({
        "events": shown,
        "count": page.events.len(),
        "total": page.matching.unwrap_or(page.total),
    });
    if let (Some(next), Value::Object(fields)) = (page.next, &mut told) {
        fields.insert("next_cursor".to_owned(), Value::from(next.to_string()));
    }
    Ok(Enveloped(told))
}

/// An event as the seed's collector kept it: that of the streaming format with its metadata, unless a format is asked for.
fn seed_event(event: &Event, lens: &Lens) -> Value {
    if let Some(format) = lens.format {
        return format::event(event, format);
    }
    let mut told = format::event(event, Format::Streaming);
    let detailed = format::event(event, Format::Detailed);
    if let (Value::Object(fields), Some(metadata)) = (&mut told, detailed.get("metadata")) {
        fields.insert("metadata".to_owned(), metadata.clone());
    }
    told
}

/// The numbers of a trace under the names of seed 001.
#[cfg_attr(feature = "openapi", utoipa::path(
    get, path = "/v1/trace/traces/{trace_id}/summary", operation_id = "seed_get_summary", tag = "seed", params(TraceSegment, LensParams),
    responses(
        (status = 200, description = "the numbers", body = SeedAnswer<SessionNumbers>),
        (status = 404, description = "there is no such trace", body = SeedRefusal),
    ),
))]
pub(crate) async fn get_summary(
    State(app): State<App>,
    Tenant(tenant, _): Tenant<Read>,
    TracePath(trace): TracePath,
    Params(lens): Params<LensParams>,
) -> Result<Enveloped<Value>, ApiError> {
    let level = lens.lens()?.level;
    let folded = folded(&app, &tenant, &trace).await?;
    Ok(Enveloped(format::summary(&summary_of(
        &app, &trace, &folded, level,
    ))))
}

/// Removes the trace.
#[cfg_attr(feature = "openapi", utoipa::path(
    delete, path = "/v1/trace/traces/{trace_id}", operation_id = "seed_delete_trace", tag = "seed", params(TraceSegment, DeleteQuery),
    responses(
        (status = 200, description = "the trace is gone", body = SeedAnswer<SeedDeleted>),
        (status = 409, description = "the trace runs", body = SeedRefusal),
        (status = 404, description = "there is no such trace", body = SeedRefusal),
    ),
))]
pub(crate) async fn delete_trace(
    State(app): State<App>,
    Tenant(tenant, _): Tenant<Admin>,
    TracePath(trace): TracePath,
    Params(query): Params<DeleteQuery>,
) -> Result<Enveloped<Map<String, Value>>, ApiError> {
    delete(&app, &tenant, &trace, &query).await?;
    Ok(Enveloped(Map::from_iter([
        ("task_id".to_owned(), Value::from(trace.as_str())),
        (
            "message".to_owned(),
            Value::from("Trace deleted successfully"),
        ),
    ])))
}
