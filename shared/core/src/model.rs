//! What a span, a log record or a native event means, whichever convention said it.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What a step is. The names are those of the event JSON.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    Agent,
    /// An agent was created, not run.
    AgentAdmin,
    Llm,
    /// A stored answer was fetched: no tokens.
    LlmFetch,
    Tool,
    Workflow,
    /// A step of a workflow that is none of the others (OpenInference CHAIN, Traceloop task, a graph's node).
    Task,
    Retriever,
    Embedding,
    Reranker,
    Guardrail,
    Evaluator,
    Memory,
    Plan,
    Prompt,
    Mcp,
    /// A log line that was sent as a span of no length.
    Log,
    #[default]
    Span,
}

impl Kind {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::AgentAdmin => "agent_admin",
            Self::Llm => "llm",
            Self::LlmFetch => "llm_fetch",
            Self::Tool => "tool",
            Self::Workflow => "workflow",
            Self::Task => "task",
            Self::Retriever => "retriever",
            Self::Embedding => "embedding",
            Self::Reranker => "reranker",
            Self::Guardrail => "guardrail",
            Self::Evaluator => "evaluator",
            Self::Memory => "memory",
            Self::Plan => "plan",
            Self::Prompt => "prompt",
            Self::Mcp => "mcp",
            Self::Log => "log",
            Self::Span => "span",
        }
    }
}

/// How a step stands, as it is shown. Written by hand where it is; this says so to the API's document.
#[cfg(feature = "openapi")]
#[derive(utoipa::ToSchema)]
#[schema(rename_all = "snake_case")]
pub enum StepStatus {
    Running,
    Ok,
    Error,
}

/// Token counts of one call. `input` includes what came from a cache, `output` includes reasoning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    pub input: u64,
    pub output: u64,
    #[serde(default)]
    pub cache_read: u64,
    #[serde(default)]
    pub cache_write: u64,
    #[serde(default)]
    pub reasoning: u64,
}

impl Usage {
    pub fn total(&self) -> u64 {
        self.input.saturating_add(self.output)
    }

    pub fn is_zero(&self) -> bool {
        *self == Self::default()
    }

    pub fn add(&mut self, other: &Self) {
        self.input = self.input.saturating_add(other.input);
        self.output = self.output.saturating_add(other.output);
        self.cache_read = self.cache_read.saturating_add(other.cache_read);
        self.cache_write = self.cache_write.saturating_add(other.cache_write);
        self.reasoning = self.reasoning.saturating_add(other.reasoning);
    }
}

/// Why a step failed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Failure {
    /// The exception's class or the convention's `error.type`; empty when not said.
    #[serde(rename = "type")]
    pub kind: String,
    pub message: String,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum ToolKind {
    #[default]
    Tool,
    /// Passes the conversation to another agent.
    Handoff,
    /// Runs another agent and returns its answer.
    AgentTool,
}

impl ToolKind {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tool => "tool",
            Self::Handoff => "handoff",
            Self::AgentTool => "agent_tool",
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tool {
    pub name: String,
    pub call_id: Option<String>,
    pub kind: ToolKind,
    /// What sort of tool it is, in the producer's word: `function`, `extension`, `datastore`, `mcp`, a class.
    pub tool_type: Option<String>,
    pub arguments: Option<Value>,
    /// `None`: nobody told it. `null`, `""`, `0`, `false` and `[]` are results.
    pub result: Option<Value>,
    /// Of a hand-off: the agent that takes over.
    pub target: Option<String>,
}

/// A call that a model asked for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ToolCall {
    pub id: Option<String>,
    pub name: String,
    pub arguments: Value,
}

/// One message of a conversation with a model.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Message {
    /// system, user, assistant or tool; an unknown role stays as it came.
    pub role: String,
    /// The text parts, joined.
    pub text: String,
    /// What the model thought before it said that, where it tells.
    pub thinking: Option<String>,
    pub tool_calls: Vec<ToolCall>,
    /// Of a tool's message: which call it answers.
    pub tool_call_id: Option<String>,
}

/// What was looked for in stored knowledge, and what was found.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Retrieval {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub query: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub knowledge_bases: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top_k: Option<u64>,
    /// Chunks below this score were left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub threshold: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rerank: Option<bool>,
    /// How many were found, which may be more than are told; `None` when nobody said (a retrieval that goes on).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chunks_total: Option<u64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub chunks: Vec<Chunk>,
}

/// A piece of a document that was found.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Chunk {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub score: Option<f64>,
    /// Its document's name or source, else its id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub document: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link {
    pub trace_id: String,
    pub span_id: String,
}

/// A span above another, as the lower one tells of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ancestor {
    /// 16 hex digits.
    pub id: String,
    pub name: String,
    /// Nanoseconds since 1970; 0 when not said.
    #[serde(default)]
    pub start_ns: u64,
}

/// A span, understood.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Span {
    /// 16 hex digits.
    pub id: String,
    pub parent_id: Option<String>,
    pub name: String,
    pub kind: Kind,
    /// The rule that decided the kind, as `convention:what`.
    pub rule: &'static str,
    /// The instrumentation that wrote it.
    pub scope: String,
    /// Of a model call: the provider's id of the answer.
    pub response_id: Option<String>,
    /// Nanoseconds since 1970.
    pub start_ns: u64,
    /// `None`: not ended. Never before the start.
    pub end_ns: Option<u64>,
    /// `Some` when the span failed; control flow that is reported as an exception (a hand-off) is no failure.
    pub failure: Option<Failure>,
    pub agent: Option<String>,
    /// The agent's own id, where its convention has one beside the name.
    pub agent_id: Option<String>,
    /// Every conversation id the span carries, the most specific first.
    pub sessions: Vec<String>,
    pub user: Option<String>,
    pub service: Option<String>,
    pub provider: Option<String>,
    pub request_model: Option<String>,
    pub response_model: Option<String>,
    pub finish_reasons: Vec<String>,
    pub usage: Option<Usage>,
    /// How the model was called (`temperature`, `max_tokens`, ..), by one name each.
    pub parameters: serde_json::Map<String, Value>,
    /// From the start to the first piece of the answer.
    pub time_to_first_chunk_ns: Option<u64>,
    /// Of a retriever or reranker.
    pub retrieval: Option<Retrieval>,
    pub tool: Option<Tool>,
    pub input: Vec<Message>,
    pub output: Vec<Message>,
    /// Input and output that are not messages.
    pub input_value: Option<Value>,
    pub output_value: Option<Value>,
    pub links: Vec<Link>,
    /// The spans above it, the root first, where the producer writes them on every span.
    pub ancestors: Vec<Ancestor>,
    /// The producer's own name of the user turn this belongs to.
    pub invocation_id: Option<String>,
    /// The step never happened: a span that only an exporter needed. Shown, never counted.
    pub made_up: bool,
    /// What the convention says beyond this model, shown as it is.
    pub details: serde_json::Map<String, Value>,
}

impl Span {
    /// Nanoseconds; an open span has no duration yet.
    pub fn duration_ns(&self) -> Option<u64> {
        self.end_ns.map(|end| end.saturating_sub(self.start_ns))
    }
}

/// A log record, understood. It may carry the messages of a span.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Log {
    pub event_name: Option<String>,
    pub span_id: Option<String>,
    /// Nanoseconds since 1970: when it happened, else when it was observed, else when it arrived.
    pub time_ns: u64,
    /// OTel severity, 0 when not said.
    pub severity: i32,
    pub body: Value,
    /// The rule that read its content, as `convention:what`.
    pub rule: &'static str,
    pub input: Vec<Message>,
    pub output: Vec<Message>,
    /// The record holds a whole call (all its input and output), not one message of it.
    pub is_whole_call: bool,
    pub failure: Option<Failure>,
    pub agent: Option<String>,
    pub sessions: Vec<String>,
    pub user: Option<String>,
    pub service: Option<String>,
    pub model: Option<String>,
    pub provider: Option<String>,
}

/// A native event, understood.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Native {
    pub event_type: String,
    pub event_id: Option<String>,
    /// Milliseconds since 1970; the arrival where the producer said nothing that is a time.
    pub timestamp_ms: u64,
    /// The producer said no time.
    pub untimed: bool,
    pub agent_id: Option<String>,
    pub agent_name: Option<String>,
    pub span_id: Option<String>,
    pub parent_span_id: Option<String>,
    pub session_id: Option<String>,
    pub user_id: Option<String>,
    pub name: Option<String>,
    /// The node of the workflow that the event is of or happened in.
    pub component_id: Option<String>,
    pub failure: Option<Failure>,
    pub duration_ms: Option<f64>,
    pub model: Option<String>,
    pub provider: Option<String>,
    pub usage: Option<Usage>,
    /// The call this event belongs to (`call_id`), of a model or a tool.
    pub call_id: Option<String>,
    pub parameters: serde_json::Map<String, Value>,
    pub time_to_first_chunk_ns: Option<u64>,
    pub retrieval: Option<Retrieval>,
    pub tool: Option<Tool>,
    /// What the agent thought.
    pub thinking: Option<String>,
    pub inputs: Option<Value>,
    pub outputs: Option<Value>,
    pub details: Option<Value>,
    /// Every other field of the object, as it came.
    pub rest: serde_json::Map<String, Value>,
}
