//! What routes have in common in the API's document (tests/openapi makes it): how an error looks, and which there are.
#![expect(dead_code, reason = "types that only say what other code writes")]

use utoipa::{
    PartialSchema, ToResponse, ToSchema,
    openapi::{ObjectBuilder, RefOr, Schema, Type},
};

/// Every error.
#[derive(ToSchema)]
pub struct ErrorBody {
    pub error: ErrorSaid,
}

#[derive(ToSchema)]
pub struct ErrorSaid {
    pub code: ErrorCode,
    /// What failed, for which thing, and what to do: a sentence for people.
    pub message: String,
    /// Of what is our fault (5xx): the id by which our log names the request, as `x-request-id` has it.
    #[schema(nullable = false)]
    pub request_id: Option<String>,
}

/// A word for programs; it never changes.
pub struct ErrorCode;

/// Every code there is. tests/openapi looks for codes in the sources that are not here.
pub const CODES: &[&str] = &[
    "agent_failed",
    "agent_not_found",
    "agent_timeout",
    "archived_too_large",
    "body_too_large",
    "delivery_not_found",
    "event_too_large",
    "forbidden",
    "host_missing",
    "host_not_allowed",
    "internal",
    "invalid_body",
    "invalid_cursor",
    "invalid_event_id",
    "invalid_event_type",
    "invalid_file",
    "invalid_parameter",
    "invalid_rules",
    "invalid_span_id",
    "invalid_trace_id",
    "invalid_trace_level",
    "invalid_utf8",
    "key_not_found",
    "malformed",
    "method_not_allowed",
    "missing_question",
    "not_acceptable",
    "origin_not_allowed",
    "rate_exceeded",
    "route_not_found",
    "session_not_found",
    "span_not_found",
    "storage_exceeded",
    "store_full",
    "token_not_found",
    "too_deep",
    "too_large",
    "too_many",
    "too_many_connections",
    "too_many_events",
    "too_many_keys",
    "too_many_streams",
    "too_many_tokens",
    "trace_deleted",
    "trace_exists",
    "trace_id_mismatch",
    "trace_not_found",
    "trace_running",
    "unauthorized",
    "unavailable",
    "unsupported_media_type",
    "upgrade_required",
];

impl PartialSchema for ErrorCode {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(Type::String)
            .description(Some("A word for programs; it never changes."))
            .enum_values(Some(CODES.iter().copied()))
            .into()
    }
}

impl ToSchema for ErrorCode {}

/// An answer in the envelope of seed 001.
#[derive(ToSchema)]
pub struct SeedAnswer<T: ToSchema> {
    /// 0
    pub code: u16,
    pub message: String,
    pub data: T,
}

/// An error in the envelope of seed 001, under the true HTTP status.
#[derive(ToSchema)]
pub struct SeedError {
    /// 100 failed, 101 an argument is wrong, 102 there is no such thing, 401 not allowed to ask.
    pub code: u16,
    pub message: String,
    /// null
    pub data: Option<String>,
    pub error: ErrorCode,
}

/// What a route of seed 001 answers instead: what stands in front of it does not know the envelope.
#[derive(ToSchema)]
#[serde(untagged)]
pub enum SeedRefusal {
    Seed(SeedError),
    Error(ErrorBody),
}

/// Why events cannot be shown.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
pub enum GapReason {
    /// The oldest events were taken away.
    Trimmed,
    /// What is stored of them is damaged, or of a newer release.
    Unreadable,
    /// The log that the cursor is of is not this one: it was begun again, or its last writes were lost in a failover.
    Replaced,
    /// The trace was deleted.
    Deleted,
    /// Nobody touched the trace for as long as traces are kept.
    Expired,
}

// In the order of their statuses. The first ones may be the answer of every route: tests/openapi adds them.

/// the request cannot be understood
#[derive(ToResponse)]
pub struct Invalid(ErrorBody);

/// tokens are configured and this is none of them
#[derive(ToResponse)]
pub struct Unauthorized(ErrorBody);

/// the token does not reach this far, or the request comes by a name or from a page that may not use this server
#[derive(ToResponse)]
pub struct Forbidden(ErrorBody);

/// a fault of ours
#[derive(ToResponse)]
pub struct Internal(ErrorBody);

/// the store does not answer, or is full, or this process has as many connections as it may have: come again
#[derive(ToResponse)]
#[response(headers(("Retry-After" = u32, description = "seconds after which trying again makes sense")))]
pub struct Unavailable(ErrorBody);

/// there is no such trace
#[derive(ToResponse)]
pub struct TraceNotFound(ErrorBody);

/// there is no such trace, or nothing in it names such a span
#[derive(ToResponse)]
pub struct SpanNotFound(ErrorBody);

/// there is no such agent, or it is another tenant's
#[derive(ToResponse)]
pub struct AgentNotFound(ErrorBody);

/// the client takes none of what the route answers
#[derive(ToResponse)]
pub struct NotAcceptable(ErrorBody);

/// the trace was deleted, and its name stays taken: begin it again with `?replace=true`, or use another id
#[derive(ToResponse)]
pub struct TraceDeleted(ErrorBody);

/// more than is taken in one request: send smaller batches
#[derive(ToResponse)]
pub struct TooLarge(ErrorBody);

/// a content type or encoding that is not read here
#[derive(ToResponse)]
pub struct UnsupportedMediaType(ErrorBody);

/// this process has all it can hold, or the tenant has all that it may: come again
#[derive(ToResponse)]
#[response(headers(("Retry-After" = u32, description = "seconds after which trying again makes sense")))]
pub struct TooMany(ErrorBody);
