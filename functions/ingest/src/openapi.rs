//! This function's part of the API's document (tests/openapi makes it): what is only written by hand or in protobuf, as types.
#![expect(dead_code, reason = "types that only say what other code writes")]

use std::collections::HashMap;

use serde_json::Value;
use tailspan_core::native::RejectedEvent;
use tailspan_service::openapi::{ErrorBody, ErrorSaid};
use utoipa::{IntoParams, OpenApi, ToResponse, ToSchema};

use crate::{
    native::{self, Answer},
    otlp,
};

/// Name every handler here; its annotation says the rest.
#[derive(OpenApi)]
#[openapi(
    paths(
        otlp::traces,
        otlp::logs,
        otlp::metrics,
        native::to_trace,
        native::to_own_trace
    ),
    components(
        schemas(Answer, NothingTaken, OtlpRefusal),
        responses(StoredEvents, NothingStored)
    )
)]
pub struct Document;

#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
pub(crate) struct ContentEncoding {
    /// `gzip`, `deflate`, `zstd`, or several, comma separated, in the order in which they were applied.
    #[param(
        rename = "Content-Encoding",
        pattern = "^(gzip|deflate|zstd|identity)$"
    )]
    pub content_encoding: Option<String>,
}

/// Who sends native events, and for whom.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
pub(crate) struct Caller {
    /// With an event's place in the body its identity, when it has no `event_id`: sent again, it is not stored twice.
    #[param(rename = "Idempotency-Key")]
    pub idempotency_key: Option<String>,
    /// The `parent_span_id` of events that have none; 1 to 128 characters. It comes back with the answer.
    #[param(rename = "X-Parent-Span")]
    pub parent: Option<String>,
    /// W3C Trace Context: its parent, when there is no `X-Parent-Span`. It comes back with the answer.
    pub traceparent: Option<String>,
}

#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
pub(crate) struct CallerTrace {
    /// The trace. Without it that of `traceparent`, else a new one.
    #[param(rename = "X-Trace-ID", pattern = "^[A-Za-z0-9_-]{1,128}$")]
    pub trace_id: Option<String>,
}

/// An OTLP export request as JSON: ids in hex or base64, 64-bit numbers as text or numbers, enums by name or ordinal, camelCase or snake_case keys;
/// what is unknown is skipped.
#[derive(ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Export {
    /// Of `/v1/traces`.
    pub resource_spans: Option<Vec<HashMap<String, Value>>>,
    /// Of `/v1/logs`.
    pub resource_logs: Option<Vec<HashMap<String, Value>>>,
    /// Of `/v1/metrics`.
    pub resource_metrics: Option<Vec<HashMap<String, Value>>>,
}

/// `Export*ServiceResponse`, in the request's encoding.
#[derive(ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ExportAnswer {
    /// What was rejected or left out; absent when nothing was.
    #[schema(nullable = false)]
    pub partial_success: Option<PartialSuccess>,
}

#[derive(ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PartialSuccess {
    /// A number as text, as OTLP's JSON has 64-bit numbers.
    #[schema(nullable = false)]
    pub rejected_spans: Option<String>,
    #[schema(nullable = false)]
    pub rejected_log_records: Option<String>,
    #[schema(nullable = false)]
    pub rejected_data_points: Option<String>,
    /// For each reason the first of them, and what to do.
    #[schema(nullable = false)]
    pub error_message: Option<String>,
}

/// `google.rpc.Status`, in the request's encoding.
#[derive(ToSchema)]
pub(crate) struct OtlpStatus {
    /// The HTTP status.
    pub code: u16,
    pub message: String,
}

/// One native event, or several.
#[derive(ToSchema)]
#[serde(untagged)]
pub(crate) enum NativeEvents {
    One(Box<NativeEvent>),
    Several(Vec<NativeEvent>),
}

/// A fact about a trace. Everything beside these fields is kept, and shown in the event's `details`.
#[derive(ToSchema)]
pub(crate) struct NativeEvent {
    /// Known or not.
    #[schema(min_length = 1, max_length = 128)]
    pub event_type: String,
    /// Makes the event recognisable within its trace: text or a number.
    pub event_id: Option<EventId>,
    /// RFC 3339, or seconds or milliseconds since 1970; its arrival when there is none.
    pub timestamp: Option<Value>,
    pub agent_id: Option<String>,
    pub agent_name: Option<String>,
    pub span_id: Option<String>,
    pub parent_span_id: Option<String>,
    pub session_id: Option<String>,
    pub user_id: Option<String>,
    /// Else `component_name`, `operation`.
    pub name: Option<String>,
    pub call_id: Option<String>,
    /// Else `model`.
    pub model_name: Option<String>,
    pub provider: Option<String>,
    pub prompt_tokens: Option<u64>,
    pub completion_tokens: Option<u64>,
    pub tool_name: Option<String>,
    pub arguments: Option<Value>,
    pub result: Option<Value>,
    /// Else `input`, `prompt`, `query`.
    pub inputs: Option<Value>,
    /// Else `output`, `response`, `content`.
    pub outputs: Option<Value>,
    /// Else `latency_ms`, or `elapsed_time` in seconds.
    pub duration_ms: Option<f64>,
    /// Text, or `{type, message}`.
    pub error: Option<Value>,
    pub details: Option<Value>,
}

#[derive(ToSchema)]
#[serde(untagged)]
pub(crate) enum EventId {
    Text(String),
    Number(u64),
}

/// everything good in it is stored
#[derive(ToResponse)]
#[response(headers(
    ("X-Trace-ID" = String, description = "the trace"),
    ("X-Parent-Span" = String, description = "as it was sent, if it was"),
    ("traceparent" = String, description = "as it was sent, if it was"),
))]
pub(crate) struct StoredEvents(Answer);

/// the request cannot be understood, or every event was rejected
#[derive(ToResponse)]
pub(crate) struct NothingStored(NothingTaken);

#[derive(ToSchema)]
pub(crate) struct NothingTaken {
    pub error: ErrorSaid,
    /// Every event, when every event was rejected; the first one's reason is the error's code.
    #[schema(nullable = false)]
    pub rejected: Option<Vec<RejectedEvent>>,
}

/// What an OTLP route answers instead of taking: the server itself speaks JSON.
#[derive(ToSchema)]
#[serde(untagged)]
pub(crate) enum OtlpRefusal {
    Status(OtlpStatus),
    Error(ErrorBody),
}
