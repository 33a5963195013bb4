//! Where each fact of a span stands, by convention: the keys that are asked, in this order. The first that says something holds.
//!
//! docs/conventions.md shows this table; a test holds the two equal.

/// Attributes beside the table's that tell something and are no content: what a span is, which agent it is of, what lies above it.
const PLAIN: &[&str] = &[
    "tailspan.kind",
    "tailspan.retrieval",
    "langfuse.observation.type",
    "langfuse.observation.level",
    "lmnr.span.type",
    "mlflow.spanType",
    "langsmith.span.kind",
    "mastra.span.type",
    "langwatch.span.type",
    "ag2.span.type",
    "openinference.span.kind",
    "gen_ai.operation.name",
    "mcp.method.name",
    "traceloop.span.kind",
    "llm.request.type",
    "ai.operationId",
    "operation.name",
    "genkit:metadata:subtype",
    "genkit:type",
    "haystack.component.type",
    "haystack.component.name",
    "logfire.span_type",
    "logfire.pending_parent_id",
    "ai.telemetry.functionId",
    "graph.node.name",
    "graph.node.id",
    "traceloop.entity.name",
    "gcp.vertex.agent.invocation_id",
    "gen_ai.agent.id",
    "agent.id",
    "gen_ai.handoff.to_agent",
    "from_agent",
    "to_agent",
    "agent_trace_id",
    "error.type",
    "exception.type",
    "event.name",
    "lmnr.span.ids_path",
    "lmnr.span.path",
    "lmnr.span.starts_path",
    "traceroot.span.ids_path",
    "traceroot.span.path",
    "traceroot.span.starts_path",
];

/// Every attribute that is read for a fact that is no content.
pub(super) fn plain() -> impl Iterator<Item = &'static str> {
    let facts = [
        SESSIONS,
        USER,
        AGENT,
        PROVIDER,
        REQUEST_MODEL,
        RESPONSE_MODEL,
        RESPONSE_ID,
        FINISH_REASONS,
        INPUT_TOKENS,
        OUTPUT_TOKENS,
        TOTAL_TOKENS,
        REASONING_TOKENS,
        CACHE_READ_TOKENS,
        CACHE_WRITE_TOKENS,
        FIRST_CHUNK_MS,
        FIRST_CHUNK_SECONDS,
        FIRST_CHUNK_AT,
        RETRIEVAL_TOP_K,
        KNOWLEDGE_BASES,
        TOOL_TYPE,
        TOOL_NAME,
        TOOL_CALL_ID,
        PLAIN,
    ];
    facts.into_iter().flatten().copied()
}

#[cfg(test)]
/// A fact, and the attributes that may hold it.
pub(super) struct Fact {
    /// As `why` calls it.
    pub(super) name: &'static str,
    pub(super) keys: &'static [&'static str],
}

macro_rules! facts {
    ($($(#[$about:meta])* $fact:ident $name:literal [$($key:literal),* $(,)?])*) => {
        $($(#[$about])* pub(super) const $fact: &[&str] = &[$($key),*];)*
        /// All of them.
        #[cfg(test)]
        pub(super) const FACTS: &[Fact] = &[$(Fact { name: $name, keys: $fact }),*];
    };
}

facts! {
    /// Conversation ids, the most deliberate first; all of them count.
    SESSIONS "sessions" [
        "session.id",
        "langfuse.session.id",
        "gen_ai.conversation.id",
        "gen_ai.session.id",
        "gcp.vertex.agent.session_id",
        "ai.telemetry.metadata.sessionId",
        "traceloop.association.properties.session_id",
        "traceloop.association.properties.thread_id",
        "lmnr.association.properties.session_id",
        "langsmith.trace.session_id",
        "langsmith.metadata.session_id",
        "langsmith.metadata.thread_id",
        "mlflow.trace.session",
    ]
    USER "user" [
        "user.id",
        "enduser.id",
        "langfuse.user.id",
        "ai.telemetry.metadata.userId",
        "traceloop.association.properties.user_id",
        "lmnr.association.properties.user_id",
        "langsmith.metadata.user_id",
        "mlflow.trace.user",
        "llm.user",
    ]
    AGENT "agent" ["gen_ai.agent.name", "agent.name", "agent_name"]
    PROVIDER "provider" [
        "gen_ai.provider.name",
        "llm.provider",
        "gen_ai.system",
        "llm.system",
        "ai.model.provider",
    ]
    REQUEST_MODEL "request_model" [
        "gen_ai.request.model",
        "llm.request.model_name",
        "llm.request.model",
        "ai.model.id",
        "embedding.model_name",
        "reranker.model_name",
        "langfuse.observation.model.name",
        "genkit:name",
    ]
    RESPONSE_MODEL "response_model" [
        "gen_ai.response.model",
        "llm.response.model_name",
        "llm.response.model",
        "ai.response.model",
        "llm.model_name",
    ]
    RESPONSE_ID "response_id" ["gen_ai.response.id", "llm.response.id", "ai.response.id"]
    FINISH_REASONS "finish_reasons" [
        "gen_ai.response.finish_reasons",
        "llm.finish_reason",
        "ai.response.finishReason",
        "ai.finishReason",
        "llm.response.finish_reason",
        "gen_ai.completion.0.finish_reason",
    ]
    INPUT_TOKENS "input_tokens" [
        "gen_ai.usage.input_tokens",
        "gen_ai.usage.prompt_tokens",
        "llm.token_count.prompt",
        "ai.usage.inputTokens",
        "ai.usage.promptTokens",
        "ai.usage.tokens",
        "llm.usage.prompt_tokens",
        "traceloop.usage.prompt_tokens",
    ]
    OUTPUT_TOKENS "output_tokens" [
        "gen_ai.usage.output_tokens",
        "gen_ai.usage.completion_tokens",
        "llm.token_count.completion",
        "ai.usage.outputTokens",
        "ai.usage.completionTokens",
        "llm.usage.completion_tokens",
        "traceloop.usage.completion_tokens",
    ]
    /// Asked only when input or output is not told: the rest of the total is the other.
    TOTAL_TOKENS "total_tokens" [
        "gen_ai.usage.total_tokens",
        "llm.token_count.total",
        "ai.usage.totalTokens",
        "llm.usage.total_tokens",
    ]
    REASONING_TOKENS "reasoning_tokens" [
        "gen_ai.usage.reasoning.output_tokens",
        "gen_ai.usage.reasoning_tokens",
        "gen_ai.usage.experimental.reasoning_tokens",
        "gen_ai.usage.details.reasoning_tokens",
        "gen_ai.usage.thinking_tokens",
        "llm.token_count.completion_details.reasoning",
        "ai.usage.reasoningTokens",
        "ai.usage.outputTokenDetails.reasoningTokens",
        "llm.usage.reasoning_tokens",
    ]
    CACHE_READ_TOKENS "cache_read_tokens" [
        "gen_ai.usage.cache_read.input_tokens",
        "gen_ai.usage.cache_read_input_tokens",
        "gen_ai.usage.details.cache_read_tokens",
        "gen_ai.usage.details.cache_read_input_tokens",
        "llm.token_count.prompt_details.cache_read",
        "llm.token_count.prompt_details.cache_input",
        "ai.usage.inputTokenDetails.cacheReadTokens",
        "ai.usage.cachedInputTokens",
    ]
    CACHE_WRITE_TOKENS "cache_write_tokens" [
        "gen_ai.usage.cache_write.input_tokens",
        "gen_ai.usage.cache_write_input_tokens",
        "gen_ai.usage.cache_creation.input_tokens",
        "gen_ai.usage.cache_creation_input_tokens",
        "gen_ai.usage.details.cache_write_tokens",
        "gen_ai.usage.details.cache_creation_input_tokens",
        "llm.token_count.prompt_details.cache_write",
        "ai.usage.inputTokenDetails.cacheWriteTokens",
    ]
    /// How the model was called, as an object.
    PARAMETERS "parameters" [
        "llm.invocation_parameters",
        "embedding.invocation_parameters",
        "langfuse.observation.model.parameters",
    ]
    FLATTENED_PARAMETERS "parameters" ["gen_ai.request", "ai.settings"]
    /// Milliseconds.
    FIRST_CHUNK_MS "time_to_first_chunk" ["ai.response.msToFirstChunk", "ai.stream.msToFirstChunk"]
    /// Seconds; a whole number is milliseconds.
    FIRST_CHUNK_SECONDS "time_to_first_chunk" [
        "gen_ai.response.time_to_first_chunk",
        "gen_ai.client.operation.time_to_first_chunk",
        "gen_ai.server.time_to_first_token",
        "gen_ai.server.ttft",
    ]
    /// A moment.
    FIRST_CHUNK_AT "time_to_first_chunk" ["langfuse.observation.completion_start_time"]
    /// The first span event of such a name.
    FIRST_CHUNK_EVENTS "time_to_first_chunk" [
        "First Token Stream Event",
        "ai.stream.firstChunk",
        "llm.content.completion.chunk",
        "gen_ai.content.completion.chunk",
    ]
    RETRIEVAL_QUERY "retrieval" ["gen_ai.retrieval.query.text", "reranker.query"]
    RETRIEVAL_TOP_K "retrieval" ["gen_ai.retrieval.top_k", "reranker.top_k", "db.vector.query.top_k"]
    RETRIEVAL_DOCUMENTS "retrieval" ["gen_ai.retrieval.documents"]
    KNOWLEDGE_BASES "retrieval" ["gen_ai.data_source.id", "db.collection.name"]
    /// What Vercel's SDK says that a model thought.
    ANSWER_THINKING "output_messages" ["ai.response.reasoning", "ai.result.reasoning"]
    TOOL_TYPE "tool_type" ["gen_ai.tool.type"]
    TOOL_NAME "tool_name" ["gen_ai.tool.name", "tool.name", "ai.toolCall.name", "genkit:name"]
    TOOL_CALL_ID "tool_call_id" [
        "gen_ai.tool.call.id",
        "tool_call.id",
        "ai.toolCall.id",
        "tool.id",
    ]
    TOOL_ARGUMENTS "tool_arguments" [
        "gen_ai.tool.call.arguments",
        "gcp.vertex.agent.tool_call_args",
        "tool_arguments",
        "tool.arguments",
        "ai.toolCall.args",
        "mcp.request.argument",
    ]
    TOOL_RESULT "tool_result" [
        "gen_ai.tool.call.result",
        "gcp.vertex.agent.tool_response",
        "tool_response",
        "ai.toolCall.result",
        "mcp.response.value",
    ]
    /// Whole messages.
    INPUT_MESSAGES "input_messages" [
        "gen_ai.input.messages",
        "pydantic_ai.all_messages",
        "all_messages_events",
        "ai.prompt.messages",
    ]
    /// Messages in many attributes, or in one of this name.
    FLATTENED_INPUT "input_messages" ["llm.input_messages", "gen_ai.prompt", "llm.prompts"]
    FLATTENED_OUTPUT "output_messages" ["llm.output_messages", "gen_ai.completion", "llm.choices"]
    /// What Vercel's SDK answered: text, calls, an object.
    ANSWER_TEXT "output_messages" ["ai.response.text", "ai.result.text", "ai.response.object", "ai.result.object"]
    ANSWER_CALLS "output_messages" ["ai.response.toolCalls", "ai.result.toolCalls"]
    /// What went in and came out, whatever it is; the messages of a model call that tells them nowhere else.
    INPUT "input" [
        "input.value",
        "traceloop.entity.input",
        "ai.prompt",
        "genkit:input",
        "langfuse.observation.input",
        "lmnr.span.input",
        "mlflow.spanInputs",
        "mastra.agent_run.input",
        "mastra.workflow_run.input",
        "mastra.model_generation.input",
        "mastra.tool_call.input",
        "haystack.component.input",
        "langwatch.input",
        "gen_ai.workflow.input",
        "request_data",
        "input",
    ]
    OUTPUT "output" [
        "output.value",
        "traceloop.entity.output",
        "genkit:output",
        "langfuse.observation.output",
        "lmnr.span.output",
        "mlflow.spanOutputs",
        "mastra.agent_run.output",
        "mastra.workflow_run.output",
        "mastra.model_generation.output",
        "mastra.tool_call.output",
        "haystack.component.output",
        "langwatch.output",
        "gen_ai.workflow.output",
        "response_data",
        "final_result",
        "output",
    ]
}
