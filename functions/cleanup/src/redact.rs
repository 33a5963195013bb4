//! `POST /traces/{trace_id}/redact`: what must not be kept is taken out of what is stored.

use axum::{
    Json,
    body::Bytes,
    extract::{State, rejection::BytesRejection},
};
use serde::Serialize;
use tailspan_core::{id::TraceId, redact::Rules};
use tailspan_service::{
    App,
    error::ApiError,
    extract::{Admin, Tenant, TracePath},
};

#[cfg(feature = "openapi")]
use crate::openapi::RedactBody;

#[derive(Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub(crate) struct Redacted {
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    trace_id: TraceId,
    /// Events that were looked at, in the log and in the archive.
    events: u64,
    /// Values that were taken out.
    redacted: u64,
    /// There is an archived copy, and it was looked at.
    archived: bool,
}

/// Takes out of a stored trace what the server's rules take out of what comes, and what the request asks for.
///
/// Numbers, cursors and marks stay, so viewers go on where they are. Asked twice, the second finds nothing more.
#[cfg_attr(feature = "openapi", utoipa::path(
    post, path = "/traces/{trace_id}/redact", tag = "traces", params(tailspan_service::extract::TraceSegment), request_body = Option<RedactBody>,
    responses(
        (status = 200, description = "what was done", body = Redacted),
        (status = 404, response = tailspan_service::openapi::TraceNotFound),
        (status = 413, response = tailspan_service::openapi::TooLarge),
    ),
))]
pub(crate) async fn redact(
    State(app): State<App>,
    Tenant(tenant, _): Tenant<Admin>,
    TracePath(trace): TracePath,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Redacted>, ApiError> {
    let body =
        body.map_err(|_| ApiError::too_large("the body cannot be read, or has more than 64 KiB"))?;
    let invalid = |mistakes: Vec<String>| ApiError::invalid("invalid_rules", mistakes.join("; "));
    let rules = match body.trim_ascii() {
        b"" => Rules::default(),
        text => Rules::parse(&String::from_utf8_lossy(text)).map_err(invalid)?,
    };
    if rules.names_tenants() {
        return Err(invalid(vec![
            "rules of a request are for one trace, not for tenants".to_owned(),
        ]));
    }
    let redactor = app.log.redactor_with(&tenant, &rules).map_err(invalid)?;
    let done = app.log.redact(&tenant, &trace, &redactor).await?;
    let done = done.ok_or_else(|| ApiError::trace_not_found(&trace))?;
    Ok(Json(Redacted {
        trace_id: trace,
        events: done.events,
        redacted: done.redacted,
        archived: done.archived,
    }))
}
