//! This function's part of the API's document (tests/openapi makes it).
#![expect(dead_code, reason = "types that only say what other code writes")]

use tailspan_core::settle::Status;
use utoipa::{IntoParams, OpenApi, ToSchema};

use crate::{
    analysis, credentials, digest, document, events, export, health, list, sessions, stats, status,
    trace, v1, webhooks, why,
};

/// Name every handler here; its annotation says the rest.
#[derive(OpenApi)]
#[openapi(paths(
    list::list_traces,
    list::list_traces_of_agent,
    sessions::list_sessions,
    sessions::get_session,
    trace::get_trace,
    trace::delete_trace,
    events::get_events,
    digest::get_digest,
    trace::get_summary,
    analysis::get_analysis,
    trace::get_invocations,
    export::get_export,
    why::get_why,
    stats::get_stats,
    v1::list_traces,
    v1::list_traces_of_agent,
    v1::get_trace,
    v1::get_events,
    v1::get_summary,
    analysis::get_seed_analysis,
    v1::delete_trace,
    credentials::list_tokens,
    credentials::create_token,
    credentials::delete_token,
    credentials::list_keys,
    credentials::create_key,
    credentials::rotate_key,
    credentials::revoke_key,
    webhooks::list_webhooks,
    webhooks::list_deliveries,
    webhooks::replay_delivery,
    webhooks::replay_dead,
    health::health,
    health::ready,
    health::metrics,
    status::get_status,
    status::get_limits,
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

/// What a list of all agents' traces takes beyond [`ListQuery`].
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct OfAgent {
    /// Name or id of an agent.
    #[param(min_length = 1)]
    agent_id: Option<String>,
}

/// What a list of all sessions' traces takes beyond [`ListQuery`].
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct InSession {
    /// Name of a session, or its key.
    #[param(min_length = 1)]
    session_id: Option<String>,
}

/// What `tailspan_core::listing::Request` reads.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct ListQuery {
    /// Name of a user.
    #[param(min_length = 1)]
    user_id: Option<String>,
    /// How the trace stands.
    #[param(inline)]
    status: Option<Status>,
    /// The trace began then or later: RFC 3339 (without a zone it is UTC), or seconds or milliseconds since 1970.
    #[param(example = "2025-01-20T10:30:45Z")]
    start_time: Option<String>,
    /// The trace began then or before.
    #[param(example = "2025-01-21T10:30:45+02:00")]
    end_time: Option<String>,
    /// From the first start to the last end that is known, milliseconds.
    #[param(minimum = 0)]
    min_duration_ms: Option<f64>,
    /// As `min_duration_ms`, at most.
    #[param(minimum = 0)]
    max_duration_ms: Option<f64>,
    /// The same with a unit (`1.5s`, `250ms`, `2m`, `1h`), or in seconds.
    #[param(example = "1.5s")]
    min_duration: Option<String>,
    /// As `min_duration`, at most.
    #[param(example = "2m")]
    max_duration: Option<String>,
    /// Whether the run has errors.
    has_error: Option<bool>,
    /// Somewhere in the names of the trace, its agents, tools and steps, or in the first 200 characters of an error's text; in whichever case.
    #[param(min_length = 1, max_length = 200)]
    text: Option<String>,
    /// The whole name of a step, a tool or an agent; in whichever case.
    #[param(min_length = 1, max_length = 200)]
    operation: Option<String>,
    /// The id of a span, of the trace itself or of whoever called it, that is a step's parent.
    #[param(min_length = 1, max_length = 200)]
    parent_span_id: Option<String>,
    /// Rows of a page.
    #[param(minimum = 1, maximum = 200, default = 20)]
    limit: Option<usize>,
    /// The `next_cursor` of the page before.
    #[param(pattern = "^[0-9]{1,15}-[A-Za-z0-9_-]{1,128}$")]
    cursor: Option<String>,
    /// A numbered page in place of `limit` and `cursor`; `page * page_size` is at most 10,000.
    #[param(minimum = 1, maximum = 10000)]
    page: Option<usize>,
    /// Rows of a numbered page.
    #[param(minimum = 1, maximum = 200, default = 20)]
    page_size: Option<usize>,
    /// `minimal`: rows without texts of errors.
    #[param(pattern = "^(minimal|standard|detailed|debug)$")]
    level: Option<String>,
}

/// What a list of sessions takes.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct SessionsQuery {
    /// Sessions of a page.
    #[param(minimum = 1, maximum = 200, default = 20)]
    limit: Option<usize>,
    /// The `next_cursor` of the page before.
    #[param(pattern = "^[0-9]{1,15}-[a-z2-7]{26}$")]
    cursor: Option<String>,
}

/// What is kept of a run for lists.
#[derive(ToSchema)]
pub(crate) struct RunRow {
    /// Of the first step that has no parent: its agent's, else its own.
    #[schema(nullable = false)]
    pub name: Option<String>,
    #[serde(flatten)]
    pub summary: tailspan_core::summary::Summary,
}

/// A trace, in the form that `format` asks for.
#[derive(ToSchema)]
#[serde(untagged)]
pub(crate) enum AnyTrace {
    Ours(Box<trace::Trace>),
    Formatted(tailspan_core::openapi::AnySession),
}

#[derive(ToSchema)]
pub(crate) struct SeedList {
    /// Of the traces found; as many at least where they are not counted.
    pub total: Option<u64>,
    pub page: u64,
    pub page_size: u64,
    pub sessions: Vec<SeedRow>,
    /// `total` is not exact.
    #[schema(nullable = false)]
    pub total_is_at_least: Option<bool>,
    #[schema(nullable = false)]
    pub next_cursor: Option<String>,
}

#[derive(ToSchema)]
pub(crate) struct SeedRow {
    pub task_id: String,
    pub agent_id: String,
    pub session_id: String,
    pub user_id: String,
    pub tenant_id: String,
    #[schema(format = DateTime)]
    pub created_at: String,
    pub status: tailspan_core::openapi::SessionStatus,
    #[schema(format = DateTime)]
    pub completed_at: Option<String>,
    /// Seconds.
    pub total_elapsed_time: Option<f64>,
    pub total_events: u64,
    pub total_tokens: Option<u64>,
    pub errors_count: Option<u64>,
}

#[derive(ToSchema)]
pub(crate) struct SeedEvents {
    pub events: Vec<tailspan_core::openapi::AnyEvent>,
    /// Of this page.
    pub count: u64,
    /// That the level and the filters let pass.
    pub total: u64,
    #[schema(nullable = false)]
    pub next_cursor: Option<String>,
}

#[derive(ToSchema)]
pub(crate) struct SeedDeleted {
    pub task_id: String,
    pub message: String,
}
