//! The forms of seed 001 ([`crate::format`] makes them) as types, for the API's document.

use serde_json::Value;
use utoipa::ToSchema;

use crate::{event::Event, verbosity::Verbosity};

/// An event, in the form that `format` asks for; without one as `Event`.
#[derive(ToSchema)]
#[serde(untagged)]
pub enum AnyEvent {
    Ours(Box<Event>),
    Streaming(Box<StreamingEvent>),
    Compact(Box<CompactEvent>),
    Detailed(Box<DetailedEvent>),
}

/// `format=streaming`
#[derive(ToSchema)]
pub struct StreamingEvent {
    pub event_id: String,
    pub event_type: String,
    #[schema(format = DateTime)]
    pub timestamp: String,
    #[schema(nullable = false)]
    pub component_id: Option<String>,
    #[schema(nullable = false)]
    pub component_name: Option<String>,
    #[schema(nullable = false)]
    pub component_type: Option<String>,
    /// Each text to its first 200 characters.
    pub inputs: Option<Value>,
    /// Each text to its first 500 characters.
    pub outputs: Option<Value>,
    #[schema(nullable = false)]
    pub error: Option<String>,
    /// Seconds.
    #[schema(nullable = false)]
    pub elapsed_time: Option<f64>,
    #[schema(nullable = false)]
    pub thoughts: Option<String>,
    /// Under `/v1/trace` only.
    #[schema(nullable = false, value_type = Option<Object>)]
    pub metadata: Option<Value>,
}

/// `format=compact`
#[derive(ToSchema)]
pub struct CompactEvent {
    pub r#type: String,
    pub icon: String,
    /// `HH:MM:SS.mmm`
    pub time: String,
    #[schema(nullable = false)]
    pub component: Option<String>,
    #[schema(nullable = false)]
    pub duration_ms: Option<f64>,
    #[schema(nullable = false)]
    pub error: Option<String>,
}

/// `format=detailed`
#[derive(ToSchema)]
pub struct DetailedEvent {
    pub event_id: String,
    pub event_type: String,
    #[schema(format = DateTime)]
    pub timestamp: String,
    /// Seconds since 1970.
    #[schema(nullable = false)]
    pub timestamp_unix: Option<f64>,
    #[schema(nullable = false)]
    pub component: Option<Component>,
    pub inputs: Option<Value>,
    pub outputs: Option<Value>,
    #[schema(nullable = false)]
    pub error: Option<DetailedError>,
    #[schema(nullable = false)]
    pub timing: Option<EventTiming>,
    #[schema(nullable = false)]
    pub thoughts: Option<String>,
    #[schema(nullable = false, value_type = Option<Object>)]
    pub metadata: Option<Value>,
}

#[derive(ToSchema)]
pub struct Component {
    pub id: Option<String>,
    pub name: Option<String>,
    pub r#type: Option<String>,
}

#[derive(ToSchema)]
pub struct DetailedError {
    pub message: String,
    #[schema(format = DateTime)]
    pub occurred_at: String,
}

#[derive(ToSchema)]
pub struct EventTiming {
    pub elapsed_seconds: f64,
    pub elapsed_ms: f64,
}

/// A trace with its events, in the form that `format` asks for.
#[derive(ToSchema)]
#[serde(untagged)]
pub enum AnySession {
    Streaming(Box<StreamingSession>),
    Compact(Box<CompactSession>),
    Detailed(Box<DetailedSession>),
}

/// The seed knows three: what is stalled still runs, what is lost has failed.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
pub enum SessionStatus {
    Running,
    Completed,
    Failed,
}

/// A trace with `format=streaming`.
#[derive(ToSchema)]
pub struct StreamingSession {
    pub session_id: String,
    pub task_id: String,
    pub status: SessionStatus,
    #[schema(format = DateTime)]
    pub started_at: Option<String>,
    #[schema(format = DateTime)]
    pub completed_at: Option<String>,
    /// Seconds.
    pub total_elapsed_time: f64,
    pub summary: SessionNumbers,
    pub events: Vec<StreamingEvent>,
    /// For what does not fit here.
    #[schema(nullable = false)]
    pub next_cursor: Option<String>,
}

/// A trace with `format=compact`.
#[derive(ToSchema)]
pub struct CompactSession {
    pub session_id: String,
    pub task_id: String,
    pub status: SessionStatus,
    pub duration_s: f64,
    pub nodes: u64,
    pub llm_calls: u64,
    pub retrievals: u64,
    pub tool_calls: u64,
    pub tokens: u64,
    pub errors: u64,
    pub timeline: Vec<CompactEvent>,
    /// For what does not fit here.
    #[schema(nullable = false)]
    pub next_cursor: Option<String>,
}

/// A trace with `format=detailed`. What `level=debug` tells whole, other levels tell as previews.
#[derive(ToSchema)]
pub struct DetailedSession {
    pub session_id: String,
    pub task_id: String,
    pub metadata: SessionMetadata,
    pub status: SessionStatus,
    pub timing: SessionTiming,
    pub summary: SessionNumbers,
    pub events: Vec<DetailedEvent>,
    pub llm_calls: Vec<LlmCallTold>,
    pub retrievals: Vec<RetrievalTold>,
    pub tool_calls: Vec<ToolCallTold>,
    #[schema(nullable = false)]
    pub error: Option<String>,
    /// For what does not fit here.
    #[schema(nullable = false)]
    pub next_cursor: Option<String>,
}

/// The numbers of a trace, under seed 001's names.
#[derive(ToSchema)]
pub struct SessionNumbers {
    pub total_events: u64,
    pub total_llm_calls: u64,
    pub total_retrievals: u64,
    pub total_tool_calls: u64,
    pub total_tokens: u64,
    pub total_chunks_retrieved: u64,
    pub nodes_executed: u64,
    pub errors_count: u64,
}

#[derive(ToSchema)]
pub struct SessionMetadata {
    pub agent_id: String,
    pub session_id: String,
    pub user_id: String,
    pub tenant_id: String,
    pub trace_level: Verbosity,
    #[schema(format = DateTime)]
    pub created_at: Option<String>,
    pub tags: Vec<String>,
    #[schema(value_type = Object)]
    pub custom_data: Value,
}

#[derive(ToSchema)]
pub struct SessionTiming {
    #[schema(format = DateTime)]
    pub started_at: Option<String>,
    #[schema(format = DateTime)]
    pub completed_at: Option<String>,
    pub total_elapsed_seconds: f64,
}

#[derive(ToSchema)]
pub struct LlmCallTold {
    pub call_id: Option<String>,
    pub model_name: Option<String>,
    pub tokens: CallTokens,
    pub latency_ms: f64,
    #[schema(format = DateTime)]
    pub started_at: Option<String>,
    #[schema(format = DateTime)]
    pub completed_at: String,
    #[schema(nullable = false)]
    pub error: Option<String>,
    pub temperature: Option<Value>,
    pub max_tokens: Option<Value>,
    pub prompt: Option<Value>,
    #[schema(nullable = false)]
    pub prompt_preview: Option<String>,
    pub response: Option<Value>,
    #[schema(nullable = false)]
    pub response_preview: Option<String>,
}

#[derive(ToSchema)]
pub struct CallTokens {
    pub prompt: u64,
    pub completion: u64,
    pub total: u64,
}

#[derive(ToSchema)]
pub struct RetrievalTold {
    pub retrieval_id: Option<String>,
    pub query: Option<Value>,
    pub knowledge_bases: Option<Value>,
    pub config: RetrievalConfig,
    pub results: RetrievalResults,
    pub latency_ms: f64,
    #[schema(format = DateTime)]
    pub started_at: Option<String>,
    #[schema(format = DateTime)]
    pub completed_at: String,
    #[schema(nullable = false)]
    pub error: Option<String>,
}

#[derive(ToSchema)]
pub struct RetrievalConfig {
    pub top_k: Option<Value>,
    pub similarity_threshold: Option<Value>,
    pub rerank_enabled: Option<Value>,
}

#[derive(ToSchema)]
pub struct RetrievalResults {
    pub chunks_retrieved: u64,
    #[schema(nullable = false)]
    pub chunks: Option<Vec<Value>>,
    #[schema(nullable = false)]
    pub chunks_preview: Option<Vec<ChunkPreview>>,
}

#[derive(ToSchema)]
pub struct ChunkPreview {
    pub id: Option<Value>,
    pub score: Option<Value>,
}

#[derive(ToSchema)]
pub struct ToolCallTold {
    pub call_id: Option<String>,
    pub tool_name: String,
    pub tool_type: String,
    pub arguments: Option<Value>,
    pub latency_ms: f64,
    #[schema(format = DateTime)]
    pub started_at: Option<String>,
    #[schema(format = DateTime)]
    pub completed_at: String,
    #[schema(nullable = false)]
    pub error: Option<String>,
    pub result: Option<Value>,
    #[schema(nullable = false)]
    pub result_preview: Option<String>,
}

/// An event in the form that `format` asks for, as the data of a stream's frame.
#[derive(ToSchema)]
pub struct FormattedFrame {
    pub event: FormatName,
    pub data: AnyEvent,
}

#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
pub enum FormatName {
    Trace,
    TraceCompact,
    TraceDetailed,
}
