//! `POST /traces/cleanup`: a tenant's old traces go at once, and not when retention says so.

use std::time::{Duration, Instant};

use axum::{
    Json,
    body::Bytes,
    extract::{State, rejection::BytesRejection},
};
use serde::Serialize;
use tailspan_core::{event::rfc3339_ms, id::TenantId, listing::Place, retention::CleanupRequest};
use tailspan_service::{
    App,
    envelope::Enveloped,
    error::ApiError,
    extract::{Admin, Tenant},
    log::{
        now_unix_ms,
        remove::{Removal, Wanted},
    },
};

#[cfg(feature = "openapi")]
use crate::openapi::CleanupBody;
#[cfg(feature = "openapi")]
use tailspan_service::openapi::{SeedAnswer, SeedRefusal};

/// A request works this long at most; every gateway waits longer.
const LONGEST: Duration = Duration::from_secs(5);
/// The age that seed 001 takes when none is said.
const SEED_DAYS: u64 = 7;

#[derive(Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub(crate) struct Cleaned {
    /// Traces that went.
    deleted: u64,
    /// Traces that were old enough, and ended as asked.
    matched: u64,
    dry_run: bool,
    /// Traces whose last event came before this.
    #[cfg_attr(feature = "openapi", schema(format = DateTime))]
    older_than: String,
    /// All were looked at; else ask again, with `next_cursor` as `cursor`.
    complete: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
    message: String,
}

/// Removes the tenant's traces that ended and whose last event is old.
///
/// Works for five seconds at most: where `complete` is false, the same request with the answer's `next_cursor` as `cursor` goes on. Asked twice, the second finds nothing more.
#[cfg_attr(feature = "openapi", utoipa::path(
    post, path = "/traces/cleanup", tag = "traces", request_body = CleanupBody,
    responses(
        (status = 200, description = "what was done", body = Cleaned),
        (status = 413, response = tailspan_service::openapi::TooLarge),
    ),
))]
pub(crate) async fn clean_up(
    State(app): State<App>,
    Tenant(tenant, _): Tenant<Admin>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Cleaned>, ApiError> {
    Ok(Json(clean(&app, &tenant, body, None).await?))
}

/// As `POST /traces/cleanup`; without an age, what is older than seven days.
#[cfg_attr(feature = "openapi", utoipa::path(
    post, path = "/v1/trace/traces/cleanup", operation_id = "seed_clean_up", tag = "seed", request_body = Option<CleanupBody>,
    responses(
        (status = 200, description = "what was done", body = SeedAnswer<Cleaned>),
        (status = 413, description = "the body is too large", body = SeedRefusal),
    ),
))]
pub(crate) async fn seed_clean_up(
    State(app): State<App>,
    Tenant(tenant, _): Tenant<Admin>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Enveloped<Cleaned>, ApiError> {
    Ok(Enveloped(
        clean(&app, &tenant, body, Some(SEED_DAYS)).await?,
    ))
}

async fn clean(
    app: &App,
    tenant: &TenantId,
    body: Result<Bytes, BytesRejection>,
    default_days: Option<u64>,
) -> Result<Cleaned, ApiError> {
    let until = Instant::now() + LONGEST;
    let body =
        body.map_err(|_| ApiError::too_large("the body cannot be read, or has more than 64 KiB"))?;
    let request = CleanupRequest::parse(&body, now_unix_ms(), default_days)
        .map_err(|mistake| ApiError::invalid("invalid_body", mistake))?;
    let removal = Removal {
        before_unix_ms: request.before_unix_ms,
        wanted: request.status.map_or(Wanted::Ended, Wanted::As),
        dry_run: request.dry_run,
    };
    let (mut matched, mut deleted, mut after) = (0, 0, request.after);
    loop {
        let step = app
            .log
            .remove_step(tenant, &removal, after.as_ref())
            .await?;
        matched += step.matched;
        deleted += step.removed;
        after = step.next;
        if after.is_none() || Instant::now() >= until {
            break;
        }
    }
    let older_than = rfc3339_ms(request.before_unix_ms);
    let done = match request.dry_run {
        true => format!("{matched} traces would be removed"),
        false => format!("{deleted} traces were removed"),
    };
    let more = match after {
        Some(_) => "; there may be more: ask again with next_cursor as cursor",
        None => "",
    };
    Ok(Cleaned {
        deleted,
        matched,
        dry_run: request.dry_run,
        complete: after.is_none(),
        next_cursor: after.as_ref().map(Place::cursor),
        message: format!("{done} whose last event came before {older_than}{more}"),
        older_than,
    })
}
