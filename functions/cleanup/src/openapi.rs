//! This function's part of the API's document (tests/openapi makes it).
#![expect(dead_code, reason = "types that only say what other code writes")]

use utoipa::{OpenApi, ToSchema};

use crate::{redact, request};

/// Name every handler here; its annotation says the rest.
#[derive(OpenApi)]
#[openapi(paths(request::clean_up, request::seed_clean_up, redact::redact))]
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

/// What is taken out of the trace beyond what the server takes out of what comes.
#[derive(ToSchema)]
#[schema(example = json!({"names": ["user.email"], "patterns": ["card"]}))]
#[serde(deny_unknown_fields)]
pub(crate) struct RedactBody {
    /// Names of attributes and of fields of JSON, with `*` for anything.
    #[schema(max_items = 1000)]
    pub names: Option<Vec<String>>,
    /// Paths into attributes that hold JSON, after the attribute that they are for, if they are for one: `args $.customer.iban`, `$..birthday`.
    #[schema(max_items = 1000)]
    pub paths: Option<Vec<String>>,
    /// `email`, `card`, or an expression between slashes.
    #[schema(max_items = 1000)]
    pub patterns: Option<Vec<String>>,
    /// `off`: what was said goes, as at the level `minimal`.
    pub content: Option<RedactContent>,
    /// What stands in the place of what was taken out: `[redacted]`, or `[hmac:...]`, equal for equal values.
    pub mode: Option<RedactMode>,
}

#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
pub(crate) enum RedactContent {
    On,
    Off,
}

#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
pub(crate) enum RedactMode {
    Remove,
    Hmac,
}
