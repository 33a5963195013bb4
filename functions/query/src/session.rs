//! A trace in the forms of seed 001: as a session with its events, and as a timeline of text.

use axum::{
    http::header::CONTENT_TYPE,
    response::{IntoResponse, Response},
};
use serde_json::Value;
use tailspan_core::{
    format::{self, Format},
    id::{TenantId, TraceId},
    lens::Lens,
};
use tailspan_service::{App, error::ApiError, extract::LensParams};

use crate::events::{self, EventsQuery};
use crate::trace::{folded, summary_of};

/// Events that a trace in a form holds when the query does not say how many.
const EVENTS_SHOWN: usize = 1000;

/// The trace as a session, with its events from the query's cursor on. What does not fit is told by `next_cursor`.
///
/// # Errors
/// As of its events.
pub(crate) async fn session(
    app: &App,
    tenant: &TenantId,
    trace: &TraceId,
    query: &EventsQuery,
    lens: &Lens,
    format: Format,
) -> Result<Value, ApiError> {
    let folded = folded(app, tenant, trace).await?;
    let page = events::page(app, tenant, trace, query, EVENTS_SHOWN, lens).await?;
    let summary = summary_of(app, trace, &folded, lens.level);
    let session = format::Session {
        summary: &summary,
        tenant_id: tenant.as_str(),
        level: lens.level,
        trace_level: summary.trace_level,
    };
    let mut told = format::session(&session, &page.events, format);
    if let (Some(next), Value::Object(fields)) = (page.next, &mut told) {
        fields.insert("next_cursor".to_owned(), Value::from(next.to_string()));
    }
    Ok(told)
}

/// The trace as lines of text; a header says where the next ones begin when there are more.
///
/// # Errors
/// As of its events.
pub(crate) async fn timeline(
    app: &App,
    tenant: &TenantId,
    trace: &TraceId,
    query: &EventsQuery,
    lens: LensParams,
) -> Result<Response, ApiError> {
    let lens = lens.without_format().lens()?;
    let page = events::page(app, tenant, trace, query, EVENTS_SHOWN, &lens).await?;
    let text = format::timeline(&page.events);
    let mut response = ([(CONTENT_TYPE, "text/plain; charset=utf-8")], text).into_response();
    if let Some(next) = page.next
        && let Ok(next) = next.to_string().parse()
    {
        response.headers_mut().insert("x-next-cursor", next);
    }
    Ok(response)
}
