//! This function's part of the API's document (tests/openapi makes it).
#![expect(dead_code, reason = "types that only say what other code writes")]

use std::collections::HashMap;

use serde_json::Value;
use tailspan_service::openapi::ErrorBody;
use utoipa::{OpenApi, ToSchema};

use crate::{about, convert, debug, golden, run, sessions, sets};

/// Name every handler here; its annotation says the rest.
#[derive(OpenApi)]
#[openapi(
    paths(
        about::health,
        about::config,
        about::metrics,
        sets::validate,
        convert::convert,
        run::of_files,
        run::of_files_streamed,
        run::of_json,
        run::of_json_streamed,
        sessions::list,
        sessions::create_eval_set,
        golden::evaluate_sessions,
        sessions::prepare_evaluation,
        sessions::download,
        sessions::get_trace,
        debug::bundle,
        debug::load,
    ),
    components(schemas(DevRefusal))
)]
pub struct Document;

/// An error as the dev server words it; what stands in front of its routes words it as everywhere.
#[derive(ToSchema)]
#[serde(untagged)]
pub(crate) enum DevRefusal {
    Dev(DevError),
    Error(ErrorBody),
}

#[derive(ToSchema)]
pub(crate) struct DevError {
    pub detail: Detail,
}

/// A sentence, or what is wrong with which field.
#[derive(ToSchema)]
#[serde(untagged)]
pub(crate) enum Detail {
    Sentence(String),
    Problems(Vec<Problem>),
}

/// What is wrong with a field of a body.
#[derive(ToSchema)]
pub(crate) struct Problem {
    /// A word for programs, as `missing` or `string_type`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Where it stands: `body`, then names of fields and places in lists.
    pub loc: Vec<Value>,
    pub msg: String,
    /// What stood there; null when it is long.
    pub input: Value,
    /// More about it.
    #[schema(nullable = false)]
    pub ctx: Option<Value>,
}

/// A turn of the user, with what was answered and which tools were called.
#[derive(ToSchema)]
#[schema(as = DevTurn)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Turn {
    pub invocation_id: String,
    pub user_text: String,
    pub agent_text: String,
    pub tool_calls: Vec<TurnCall>,
    pub tool_responses: Vec<TurnResponse>,
    pub model_info: TurnModels,
}

#[derive(ToSchema)]
pub(crate) struct TurnCall {
    pub name: String,
    pub args: Value,
    #[schema(required)]
    pub id: Option<String>,
}

#[derive(ToSchema)]
pub(crate) struct TurnResponse {
    pub name: String,
    pub response: Value,
    #[schema(required)]
    pub id: Option<String>,
}

/// The models of one turn; what is empty is left out.
#[derive(ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TurnModels {
    #[schema(nullable = false)]
    pub models: Option<Vec<String>>,
    #[schema(nullable = false)]
    pub input_tokens: Option<u64>,
    #[schema(nullable = false)]
    pub output_tokens: Option<u64>,
    #[schema(nullable = false)]
    pub provider: Option<String>,
    #[schema(nullable = false)]
    pub response_models: Option<Vec<String>>,
    #[schema(nullable = false)]
    pub finish_reasons: Option<Vec<String>>,
    #[schema(nullable = false)]
    pub cache_creation_tokens: Option<u64>,
    #[schema(nullable = false)]
    pub cache_read_tokens: Option<u64>,
    #[schema(nullable = false)]
    pub temperature: Option<f64>,
    #[schema(nullable = false)]
    pub max_tokens: Option<f64>,
    #[schema(nullable = false)]
    pub error_types: Option<Vec<String>>,
}

/// An eval set of Google's ADK; ADK says the rest.
#[derive(ToSchema)]
pub(crate) struct EvalSet {
    pub eval_set_id: String,
    pub eval_cases: Vec<HashMap<String, Value>>,
    #[serde(flatten)]
    pub more: HashMap<String, Value>,
}

/// A session by its id.
#[derive(ToSchema)]
pub(crate) struct OfSession {
    pub session_id: String,
}

/// The session that is to be expected of others, and what the eval set is to be called.
#[derive(ToSchema)]
pub(crate) struct ToEvalSet {
    pub session_id: String,
    pub eval_set_id: String,
}

/// The session that is to be expected of others, and the others.
#[derive(ToSchema)]
pub(crate) struct ToPrepare {
    pub golden_session_id: String,
    pub session_ids: Vec<String>,
}

/// What a page saw.
#[derive(ToSchema)]
pub(crate) struct Diagnostics {
    pub user_description: Option<String>,
    pub browser_info: Option<HashMap<String, Value>>,
    #[schema(nullable = false)]
    pub console_logs: Option<Vec<Value>>,
    pub app_state: Option<HashMap<String, Value>>,
    #[schema(nullable = false)]
    pub network_errors: Option<Vec<Value>>,
}

#[derive(ToSchema)]
pub(crate) struct EvalSetForm {
    /// JSON, at most 10 MiB.
    #[schema(format = Binary, content_media_type = "application/octet-stream")]
    pub eval_set_file: String,
}

#[derive(ToSchema)]
pub(crate) struct ConvertForm {
    /// `.json` or `.jsonl`, at most 10 MiB each: Jaeger, OTLP, one export or lines.
    #[schema(value_type = Vec<String>, format = Binary, min_items = 1)]
    pub trace_files: Vec<String>,
    /// Told by their content when absent.
    #[schema(nullable = false, pattern = "^(jaeger-json|otlp-json|otlp-protobuf)$")]
    pub trace_format: Option<String>,
}

/// A built-in metric.
#[derive(ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct MetricInfo {
    pub name: String,
    pub category: String,
    pub requires_eval_set: bool,
    #[serde(rename = "requiresLLM")]
    pub requires_llm: bool,
    #[serde(rename = "requiresGCP")]
    pub requires_gcp: bool,
    pub requires_rubrics: bool,
    pub description: String,
    /// Whether it can be computed here.
    pub working: bool,
}

#[derive(ToSchema)]
pub(crate) struct EvaluateForm {
    /// `.json` or `.jsonl`, at most 10 MiB each.
    #[schema(value_type = Vec<String>, format = Binary, min_items = 1)]
    pub trace_files: Vec<String>,
    /// JSON text: `metrics` (not empty), `threshold` (0 to 1), `judgeModel`, `trajectoryMatchType`, `trace_format`, `customEvaluators`.
    #[schema(example = "{\"metrics\": [\"response_match_score\"]}")]
    pub config: String,
    /// JSON, at most 10 MiB.
    #[schema(format = Binary, nullable = false, content_media_type = "application/octet-stream")]
    pub eval_set_file: Option<String>,
}

#[derive(ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct EvaluateJson {
    /// An OTLP export, also as Tempo wraps it.
    pub traces: HashMap<String, Value>,
    #[schema(nullable = false)]
    pub config: Option<HashMap<String, Value>>,
    /// In the JSON of Google's ADK; also as `eval_set`.
    pub eval_set: Option<HashMap<String, Value>>,
}

#[derive(ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RunReport {
    pub trace_results: Vec<TraceReport>,
    /// What could not be read.
    pub errors: Vec<String>,
    #[schema(required)]
    pub performance_metrics: Option<HashMap<String, Value>>,
}

#[derive(ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TraceReport {
    pub trace_id: String,
    pub num_invocations: usize,
    pub metric_results: Vec<MetricReport>,
    pub conversion_warnings: Vec<String>,
    #[schema(required)]
    pub performance_metrics: Option<HashMap<String, Value>>,
}

#[derive(ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct MetricReport {
    pub metric_name: String,
    #[schema(required)]
    pub score: Option<f64>,
    pub eval_status: MetricStatus,
    pub per_invocation_scores: Vec<Option<f64>>,
    /// Why there is no score.
    #[schema(required)]
    pub error: Option<String>,
    #[schema(required)]
    pub details: Option<HashMap<String, Value>>,
    #[schema(required)]
    pub duration_ms: Option<f64>,
}

#[derive(ToSchema)]
#[schema(rename_all = "SCREAMING_SNAKE_CASE")]
pub(crate) enum MetricStatus {
    Passed,
    Failed,
    NotEvaluated,
}

/// All complete sessions are compared with the golden one.
#[derive(ToSchema)]
pub(crate) struct ToEvaluate {
    pub golden_session_id: String,
    pub eval_set_id: String,
    /// The tool trajectory when absent.
    #[schema(nullable = false)]
    pub metrics: Option<Vec<String>>,
    #[schema(nullable = false)]
    pub judge_model: Option<String>,
    #[schema(pattern = "^(EXACT|IN_ORDER|ANY_ORDER)$")]
    pub trajectory_match_type: Option<String>,
}

#[derive(ToSchema)]
pub(crate) struct ReportForm {
    /// An archive as `/api/debug/bundle` makes it.
    #[schema(format = Binary, content_media_type = "application/octet-stream")]
    pub file: String,
}
