//! This function's part of the API's document (tests/openapi makes it).
#![expect(dead_code, reason = "types that only say what other code writes")]

use utoipa::{OpenApi, ToSchema};

use crate::request;

/// Name every handler here; its annotation says the rest.
#[derive(OpenApi)]
#[openapi(paths(request::clean_up, request::seed_clean_up))]
pub struct Document;

/// Which traces are to go: `days` or `older_than`, one of them.
#[derive(ToSchema)]
#[schema(example = json!({"older_than": "7d", "dry_run": true}))]
#[serde(deny_unknown_fields)]
pub(crate) struct CleanupBody {
    /// Their last event is older than this many days.
    #[schema(minimum = 1, maximum = 36_500)]
    pub days: Option<u32>,
    /// An age (`90s`, `30m`, `12h`, `7d`, `2w`) or a moment that has passed (RFC 3339).
    pub older_than: Option<String>,
    /// They ended so; without it, whichever way.
    pub status: Option<CleanupStatus>,
    /// They are only counted.
    pub dry_run: Option<bool>,
    /// The `next_cursor` of the answer before.
    pub cursor: Option<String>,
}

#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
pub(crate) enum CleanupStatus {
    Completed,
    Failed,
    Lost,
}
