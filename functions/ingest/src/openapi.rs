//! This function's part of the API's document (tests/openapi makes it): what is only written by hand or in protobuf, as types.
#![expect(dead_code, reason = "types that only say what other code writes")]

use std::collections::HashMap;

use serde_json::Value;
use tailspan_core::native::RejectedEvent;
use tailspan_service::openapi::{ErrorBody, ErrorSaid};
use utoipa::{IntoParams, OpenApi, ToResponse, ToSchema};

use crate::{
    files::{self, Imported},
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
        native::to_own_trace,
        files::import
    ),
    components(
        schemas(Answer, NothingTaken, OtlpRefusal, Imported, FileNotTaken),
        responses(StoredEvents, NothingStored, FileInvalid)
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

#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
pub(crate) struct HowMuch {
    /// How much of it is recorded; it can only be less than what the operator lets be recorded, and holds for the rest of each trace.
    #[param(rename = "X-Trace-Level")]
    pub trace_level: Option<tailspan_core::verbosity::Verbosity>,
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
/// what is unknown is skipped. OTLP itself says the rest.
#[derive(ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ExportSpans {
    pub resource_spans: Vec<ResourceSpans>,
}

/// As `ExportSpans`, of log records.
#[derive(ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ExportLogs {
    pub resource_logs: Vec<ResourceLogs>,
}

/// As `ExportSpans`, of metrics; only that it is one is looked at.
#[derive(ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ExportMetrics {
    pub resource_metrics: Vec<HashMap<String, Value>>,
}

#[derive(ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ResourceSpans {
    #[schema(nullable = false)]
    pub resource: Option<Resource>,
    pub scope_spans: Vec<ScopeSpans>,
}

#[derive(ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ResourceLogs {
    #[schema(nullable = false)]
    pub resource: Option<Resource>,
    pub scope_logs: Vec<ScopeLogs>,
}

#[derive(ToSchema)]
pub(crate) struct Resource {
    pub attributes: Vec<KeyValue>,
}

#[derive(ToSchema)]
pub(crate) struct ScopeSpans {
    #[schema(nullable = false)]
    pub scope: Option<OtlpScope>,
    pub spans: Vec<OtlpSpan>,
}

#[derive(ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ScopeLogs {
    #[schema(nullable = false)]
    pub scope: Option<OtlpScope>,
    pub log_records: Vec<LogRecord>,
}

#[derive(ToSchema)]
pub(crate) struct OtlpScope {
    pub name: String,
    #[schema(nullable = false)]
    pub version: Option<String>,
}

/// A span that is not sent whole is sent again when it ended.
#[derive(ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct OtlpSpan {
    /// The trace.
    #[schema(pattern = "^[0-9a-fA-F]{32}$")]
    pub trace_id: String,
    #[schema(pattern = "^[0-9a-fA-F]{16}$")]
    pub span_id: String,
    #[schema(pattern = "^([0-9a-fA-F]{16})?$", nullable = false)]
    pub parent_span_id: Option<String>,
    pub name: String,
    #[schema(minimum = 0, maximum = 5, nullable = false)]
    pub kind: Option<u8>,
    #[schema(pattern = "^[0-9]{1,18}$")]
    pub start_time_unix_nano: String,
    /// None, or 0: it has not ended.
    #[schema(pattern = "^[0-9]{1,18}$", nullable = false)]
    pub end_time_unix_nano: Option<String>,
    #[schema(nullable = false)]
    pub attributes: Option<Vec<KeyValue>>,
    #[schema(nullable = false)]
    pub events: Option<Vec<SpanEvent>>,
    #[schema(nullable = false)]
    pub status: Option<SpanStatus>,
}

#[derive(ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SpanEvent {
    pub name: String,
    #[schema(pattern = "^[0-9]{1,18}$", nullable = false)]
    pub time_unix_nano: Option<String>,
    #[schema(nullable = false)]
    pub attributes: Option<Vec<KeyValue>>,
}

#[derive(ToSchema)]
pub(crate) struct SpanStatus {
    /// 2 is an error.
    #[schema(minimum = 0, maximum = 2)]
    pub code: u8,
    #[schema(nullable = false)]
    pub message: Option<String>,
}

#[derive(ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct LogRecord {
    /// A record outside of any trace is rejected.
    #[schema(pattern = "^[0-9a-fA-F]{32}$")]
    pub trace_id: String,
    #[schema(pattern = "^[0-9a-fA-F]{16}$", nullable = false)]
    pub span_id: Option<String>,
    #[schema(pattern = "^[0-9]{1,18}$", nullable = false)]
    pub time_unix_nano: Option<String>,
    #[schema(minimum = 0, maximum = 24, nullable = false)]
    pub severity_number: Option<u8>,
    #[schema(nullable = false)]
    pub event_name: Option<String>,
    #[schema(nullable = false)]
    pub body: Option<AnyValue>,
    #[schema(nullable = false)]
    pub attributes: Option<Vec<KeyValue>>,
}

#[derive(ToSchema)]
pub(crate) struct KeyValue {
    pub key: String,
    pub value: AnyValue,
}

/// One of these; `arrayValue`, `kvlistValue` and `bytesValue` too.
#[derive(ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct AnyValue {
    #[schema(nullable = false)]
    pub string_value: Option<String>,
    #[schema(nullable = false)]
    pub bool_value: Option<bool>,
    /// A number as text.
    #[schema(pattern = "^-?[0-9]{1,18}$", nullable = false)]
    pub int_value: Option<String>,
    #[schema(nullable = false)]
    pub double_value: Option<f64>,
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
    /// How much of this event, and of what follows in its trace, is recorded.
    pub trace_level: Option<tailspan_core::verbosity::Verbosity>,
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

/// the file cannot be read: nothing of it was stored
#[derive(ToResponse)]
pub(crate) struct FileInvalid(FileNotTaken);

#[derive(ToSchema)]
pub(crate) struct FileNotTaken {
    pub error: FileSaid,
}

#[derive(ToSchema)]
pub(crate) struct FileSaid {
    pub code: tailspan_service::openapi::ErrorCode,
    /// What is wrong, and with which span.
    pub message: String,
    /// Where in the file, unpacked, from 1; absent where it is not known.
    #[schema(minimum = 1, nullable = false)]
    pub line: Option<u64>,
    /// In bytes, from 1.
    #[schema(minimum = 1, nullable = false)]
    pub column: Option<u64>,
}

/// What an OTLP route answers instead of taking: the server itself speaks JSON.
#[derive(ToSchema)]
#[serde(untagged)]
pub(crate) enum OtlpRefusal {
    Status(OtlpStatus),
    Error(ErrorBody),
}
