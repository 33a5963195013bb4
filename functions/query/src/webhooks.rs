//! Notifications of runs: who is told, what waits, what was given up, and trying it again.

use axum::{
    Json,
    extract::{Path, State, rejection::PathRejection},
    http::StatusCode,
};
use serde::{Deserialize, Serialize};
use tailspan_core::{event::rfc3339_ms, notify};
use tailspan_service::{
    App,
    error::ApiError,
    extract::{Keeper, Params},
    webhooks::{Delivery, Standing},
};

#[cfg(feature = "openapi")]
use tailspan_service::openapi::ErrorBody;

/// Deliveries of an answer, unless it is said, and at most.
const USUAL_LIMIT: u64 = 100;
const MOST: u64 = 1_000;

/// Who is told of a tenant's runs.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub(crate) struct WebhookList {
    endpoints: Vec<WebhookEndpoint>,
    /// Deliveries that are still tried.
    waiting: u64,
    /// Dead letters.
    dead: u64,
}

#[derive(Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub(crate) struct WebhookEndpoint {
    name: String,
    /// Scheme and host; the rest of the address may hold a secret.
    place: String,
    /// Kinds of notifications.
    events: Vec<&'static str>,
    /// Only runs of these; empty: of all.
    agents: Vec<String>,
    level: &'static str,
    attempts: u32,
}

#[derive(Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub(crate) struct Deliveries {
    deliveries: Vec<WebhookDelivery>,
}

#[derive(Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub(crate) struct WebhookDelivery {
    /// What the receiver sees as `webhook-id`.
    id: String,
    endpoint: String,
    #[serde(rename = "type")]
    kind: String,
    trace_id: String,
    /// `waiting`, `dead` or `delivered`.
    standing: String,
    #[cfg_attr(feature = "openapi", schema(format = DateTime))]
    created_at: String,
    /// Attempts so far; from none again after a replay.
    attempts: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(nullable = false, format = DateTime))]
    last_attempt_at: Option<String>,
    /// The status that was answered last; absent when nothing was.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(nullable = false))]
    last_status: Option<u64>,
    /// Why it was not taken: the beginning of the answer, or what went wrong before one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(nullable = false))]
    last_error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(nullable = false, format = DateTime))]
    next_attempt_at: Option<String>,
}

impl From<Delivery> for WebhookDelivery {
    fn from(delivery: Delivery) -> Self {
        Self {
            created_at: rfc3339_ms(delivery.created_unix_ms),
            last_attempt_at: (delivery.tried_unix_ms > 0)
                .then(|| rfc3339_ms(delivery.tried_unix_ms)),
            last_status: (delivery.status > 0).then_some(delivery.status),
            last_error: Some(delivery.error).filter(|error| !error.is_empty()),
            next_attempt_at: delivery.next_unix_ms.map(rfc3339_ms),
            id: delivery.id,
            endpoint: delivery.endpoint,
            kind: delivery.kind,
            trace_id: delivery.trace,
            standing: delivery.standing,
            attempts: delivery.attempts,
        }
    }
}

#[derive(Debug, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::IntoParams), into_params(parameter_in = Query))]
pub(crate) struct WhichDeliveries {
    /// Which: `dead` unless it is said.
    #[cfg_attr(feature = "openapi", param(pattern = "^(waiting|dead|delivered)$"))]
    standing: Option<String>,
    /// At most so many, the newest.
    #[cfg_attr(feature = "openapi", param(minimum = 1, maximum = 1000, default = 100))]
    limit: Option<u64>,
}

#[derive(Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub(crate) struct Replayed {
    /// Deliveries that wait again.
    replayed: u64,
}

/// Who is told of the tenant's runs, without addresses and secrets, and how many deliveries wait or were given up.
#[cfg_attr(feature = "openapi", utoipa::path(
    get, path = "/admin/webhooks", tag = "webhooks",
    params(("tenant" = Option<String>, Query, description = "whose, for the admin token; else the default tenant's", pattern = "^[a-z0-9-]{1,40}$")),
    responses((status = 200, description = "the endpoints that the operator configured for the tenant", body = WebhookList)),
))]
pub(crate) async fn list_webhooks(
    State(app): State<App>,
    Keeper(tenant): Keeper,
) -> Result<Json<WebhookList>, ApiError> {
    let counts = app.log.count_deliveries(&tenant).await?;
    let endpoints = app.config.webhooks.of(&tenant).map(|endpoint| {
        let kinds = endpoint.kinds.iter();
        WebhookEndpoint {
            name: endpoint.name.clone(),
            place: endpoint.place(),
            events: kinds.map(|kind| kind.as_str()).collect(),
            agents: endpoint.agents.clone(),
            level: endpoint.level.as_str(),
            attempts: endpoint.patience.attempts,
        }
    });
    Ok(Json(WebhookList {
        endpoints: endpoints.collect(),
        waiting: counts.waiting,
        dead: counts.dead,
    }))
}

/// Deliveries of notifications, the newest first: dead letters, unless others are asked for.
#[cfg_attr(feature = "openapi", utoipa::path(
    get, path = "/admin/webhooks/deliveries", tag = "webhooks",
    params(
        WhichDeliveries,
        ("tenant" = Option<String>, Query, description = "whose, for the admin token; else the default tenant's", pattern = "^[a-z0-9-]{1,40}$"),
    ),
    responses((status = 200, description = "the deliveries", body = Deliveries)),
))]
pub(crate) async fn list_deliveries(
    State(app): State<App>,
    Keeper(tenant): Keeper,
    Params(which): Params<WhichDeliveries>,
) -> Result<Json<Deliveries>, ApiError> {
    let invalid = |sentence| ApiError::invalid("invalid_parameter", sentence);
    let standing = match which.standing.as_deref() {
        None => Standing::Dead,
        Some(name) => Standing::named(name)
            .ok_or_else(|| invalid("standing must be waiting, dead or delivered"))?,
    };
    let limit = which.limit.unwrap_or(USUAL_LIMIT);
    if !(1..=MOST).contains(&limit) {
        return Err(invalid("limit must be a number from 1 to 1000"));
    }
    let found = app.log.deliveries(&tenant, standing, limit).await?;
    Ok(Json(Deliveries {
        deliveries: found.into_iter().map(Into::into).collect(),
    }))
}

/// Tries a delivery again, whether it was given up, was taken or still waits: the same bytes under the same id.
#[cfg_attr(feature = "openapi", utoipa::path(
    post, path = "/admin/webhooks/deliveries/{delivery_id}/replay", tag = "webhooks",
    params(
        ("delivery_id" = String, Path, description = "the delivery's id", pattern = "^msg_[0-9a-f]{32}$"),
        ("tenant" = Option<String>, Query, description = "whose, for the admin token; else the default tenant's", pattern = "^[a-z0-9-]{1,40}$"),
    ),
    responses(
        (status = 202, description = "it waits", body = Replayed),
        (status = 404, description = "there is no such delivery", body = ErrorBody),
    ),
))]
pub(crate) async fn replay_delivery(
    State(app): State<App>,
    Keeper(tenant): Keeper,
    id: Result<Path<String>, PathRejection>,
) -> Result<(StatusCode, Json<Replayed>), ApiError> {
    // What is no UTF-8 names nothing.
    let id = id.map_or_else(|_| "\u{fffd}".to_owned(), |Path(id)| id);
    // Anything else would be another key.
    if !notify::is_id(&id) || !app.log.replay_delivery(&tenant, &id).await? {
        return Err(ApiError::delivery_not_found(&id));
    }
    Ok((StatusCode::ACCEPTED, Json(Replayed { replayed: 1 })))
}

/// Tries all dead letters again.
#[cfg_attr(feature = "openapi", utoipa::path(
    post, path = "/admin/webhooks/replay", tag = "webhooks",
    params(("tenant" = Option<String>, Query, description = "whose, for the admin token; else the default tenant's", pattern = "^[a-z0-9-]{1,40}$")),
    responses((status = 202, description = "they wait", body = Replayed)),
))]
pub(crate) async fn replay_dead(
    State(app): State<App>,
    Keeper(tenant): Keeper,
) -> Result<(StatusCode, Json<Replayed>), ApiError> {
    let mut replayed = 0;
    for letter in app.log.deliveries(&tenant, Standing::Dead, MOST).await? {
        replayed += u64::from(app.log.replay_delivery(&tenant, &letter.id).await?);
    }
    Ok((StatusCode::ACCEPTED, Json(Replayed { replayed })))
}
