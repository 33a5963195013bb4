//! This function's part of the API's document (tests/openapi makes it).
#![expect(dead_code, reason = "types that only say what other code writes")]

use utoipa::{OpenApi, ToSchema};

use crate::{document, events, health, list, trace, v1, why};

/// Name every handler here; its annotation says the rest.
#[derive(OpenApi)]
#[openapi(paths(
    list::list_traces,
    trace::get_trace,
    trace::delete_trace,
    events::get_events,
    trace::get_summary,
    trace::get_invocations,
    why::get_why,
    v1::get_trace,
    v1::get_events,
    v1::get_summary,
    v1::delete_trace,
    health::health,
    health::ready,
    health::metrics,
    document::document,
    document::page,
))]
pub struct Document;

#[derive(ToSchema)]
pub(crate) struct Health {
    /// `ok`
    pub status: String,
    /// Of the program.
    pub version: String,
}

#[derive(ToSchema)]
pub(crate) struct Ready {
    pub status: Readiness,
    /// Redis' `maxmemory-policy`; absent when it may not be asked.
    pub redis_policy: Option<String>,
    /// What should be seen to.
    pub warnings: Vec<String>,
}

#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
pub(crate) enum Readiness {
    Ready,
    Degraded,
    Unavailable,
}

#[derive(ToSchema)]
#[schema(as = NotReady)]
#[serde(untagged)]
pub(crate) enum NotReady {
    Readiness {
        status: Readiness,
        warnings: Vec<String>,
    },
    Error(tailspan_service::openapi::ErrorBody),
}
