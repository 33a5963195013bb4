//! Who, which model, how many tokens, which tool, which error: the facts that every convention has under another key.

use serde_json::Value;

use super::{Look, messages};
use crate::attributes::{Attributes, parse_text};
use crate::model::{Failure, Kind, Log, Span, Tool, ToolKind, Usage};
use crate::observed::Context;

/// Conversation ids, the most deliberate first.
const SESSION_KEYS: &[&str] = &[
    "session.id",
    "langfuse.session.id",
    "gen_ai.conversation.id",
    "gen_ai.session.id",
    "gcp.vertex.agent.session_id",
    "ai.telemetry.metadata.sessionId",
    "traceloop.association.properties.session_id",
    "traceloop.association.properties.thread_id",
    "lmnr.association.properties.session_id",
];
const USER_KEYS: &[&str] = &[
    "user.id",
    "enduser.id",
    "langfuse.user.id",
    "ai.telemetry.metadata.userId",
    "traceloop.association.properties.user_id",
    "lmnr.association.properties.user_id",
    "llm.user",
];
const AGENT_KEYS: &[&str] = &["gen_ai.agent.name", "agent.name", "agent_name"];

/// Exceptions that steer a LangGraph run rather than end it.
const CONTROL_FLOW: &[&str] = &[
    "ParentCommand",
    "GraphInterrupt",
    "NodeInterrupt",
    "GraphBubbleUp",
];

pub(super) fn read(look: &Look, context: &Context, span: &mut Span) {
    let attributes = &look.attributes;
    let resource = Attributes::new(&context.resource);
    span.service = resource.str("service.name").map(str::to_owned);
    span.sessions = sessions(attributes, &look.metadata);
    span.user = attributes
        .first_text(USER_KEYS)
        .or_else(|| metadata_text(&look.metadata, &["user_id", "userId"]));
    span.provider = provider(attributes);
    span.invocation_id = attributes
        .str("gcp.vertex.agent.invocation_id")
        .map(str::to_owned);
    span.failure = failure(look);
    span.agent = agent(look, span.kind)
        .map(|name| name.trim().to_owned())
        .filter(|name| !name.is_empty());
    if matches!(
        span.kind,
        Kind::Llm | Kind::LlmFetch | Kind::Embedding | Kind::Reranker | Kind::Plan
    ) {
        models(look, span);
        span.finish_reasons = finish_reasons(attributes);
    }
    if matches!(span.kind, Kind::Llm | Kind::Embedding) {
        span.usage = usage(look, span);
    }
    if span.kind == Kind::Tool {
        let tool = tool(look);
        // ADK adds a span for parallel calls, without a call behind it.
        span.made_up = tool.name.starts_with("(merged");
        span.tool = Some(tool);
    }
}

pub(super) fn read_log(attributes: &Attributes, context: &Context, log: &mut Log) {
    let resource = Attributes::new(&context.resource);
    log.service = resource.str("service.name").map(str::to_owned);
    log.sessions = sessions(attributes, &Value::Null);
    log.user = attributes.first_text(USER_KEYS);
    log.agent = attributes.first_text(AGENT_KEYS);
    log.provider = provider(attributes);
    log.model = attributes.first_text(&["gen_ai.request.model", "gen_ai.response.model"]);
    if attributes.has("exception.type") || attributes.has("exception.message") {
        log.failure = Some(Failure {
            kind: attributes.text("exception.type").unwrap_or_default(),
            message: attributes.text("exception.message").unwrap_or_default(),
        });
    }
}

/// The sessions that attributes name, each once.
pub(super) fn sessions(attributes: &Attributes, metadata: &Value) -> Vec<String> {
    let named = SESSION_KEYS.iter().filter_map(|key| attributes.text(key));
    let in_metadata = ["session_id", "sessionId", "thread_id", "conversation_id"]
        .iter()
        .filter_map(|key| metadata_text(metadata, &[key]));
    let mut sessions: Vec<String> = Vec::new();
    for session in named.chain(in_metadata) {
        if !sessions.contains(&session) {
            sessions.push(session);
        }
    }
    sessions
}

/// Whether [`sessions`] looks at an attribute of this name.
pub(super) fn may_name_session(key: &[u8]) -> bool {
    key == b"metadata" || SESSION_KEYS.iter().any(|name| name.as_bytes() == key)
}

fn metadata_text(metadata: &Value, keys: &[&str]) -> Option<String> {
    keys.iter().find_map(|key| match metadata.get(*key)? {
        Value::String(text) if !text.is_empty() => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    })
}

/// The provider under its present name (`gen_ai.provider.name`), whichever the producer used.
fn provider(attributes: &Attributes) -> Option<String> {
    let name = attributes.first_str(&[
        "gen_ai.provider.name",
        "llm.provider",
        "gen_ai.system",
        "llm.system",
        "ai.model.provider",
    ])?;
    Some(
        match name {
            "az.ai.openai" => "azure.ai.openai",
            "az.ai.inference" => "azure.ai.inference",
            "vertex_ai" => "gcp.vertex_ai",
            "gemini" => "gcp.gemini",
            "xai" => "x_ai",
            other => other,
        }
        .to_owned(),
    )
}

fn agent(look: &Look, kind: Kind) -> Option<String> {
    let attributes = &look.attributes;
    if let Some(name) = attributes.first_text(AGENT_KEYS) {
        // The OTel project's instrumentation of openai-agents writes this default on every span; the true name is in the span's own.
        if name != "OpenAI Agent" || !look.scope.contains("openai_agents") {
            return Some(name);
        }
        return agent_in_name(&look.span.name).filter(|_| kind == Kind::Agent);
    }
    if let Some(name) = metadata_text(&look.metadata, &["lc_agent_name"]) {
        return Some(name);
    }
    if kind == Kind::Llm
        && let Some(request) = attributes.json("gcp.vertex.agent.llm_request")
        && let Some(labels) = request
            .get("config")
            .and_then(|config| config.get("labels"))
        && let Some(name) = metadata_text(labels, &["adk_agent_name"])
    {
        return Some(name);
    }
    if kind == Kind::Llm
        && let Some(node) = graph_node(&look.metadata)
    {
        return Some(node);
    }
    if matches!(kind, Kind::Agent | Kind::Llm | Kind::Tool)
        && let Some(name) = attributes.text("ai.telemetry.functionId")
    {
        return Some(name);
    }
    if kind != Kind::Agent {
        return None;
    }
    if look.scope.ends_with("llama_index") {
        let event = attributes
            .json("input.value")
            .map(|value| value.to_string())
            .unwrap_or_default();
        let (_, rest) = event.rsplit_once("current_agent_name='")?;
        return rest.split('\'').next().map(str::to_owned);
    }
    attributes
        .first_text(&["graph.node.name", "graph.node.id", "traceloop.entity.name"])
        .or_else(|| agent_in_name(&look.span.name))
        .or_else(|| {
            // "Researcher.run", "CodeAgent.invoke", "Researcher.agent"
            let name = look.span.name.as_str();
            let bare = [".run", ".invoke", ".agent", ".ainvoke", ".arun"]
                .iter()
                .find_map(|end| name.strip_suffix(end))
                .unwrap_or(name);
            (attributes.has("openinference.span.kind") || attributes.has("traceloop.span.kind"))
                .then(|| bare.to_owned())
        })
}

/// The agent that a span's own name tells: `invoke_agent X`, `agent_run [X]`, `agent X`.
pub(super) fn agent_in_name(name: &str) -> Option<String> {
    /// What follows "agent" in names that name no agent.
    const VERBS: [&str; 9] = [
        "run", "loop", "step", "turn", "workflow", "executor", "call", "invoke", "session",
    ];
    let (first, rest) = name.split_once(' ')?;
    if !matches!(first, "invoke_agent" | "agent_run" | "agent") {
        return None;
    }
    let rest = rest.trim().trim_start_matches('[').trim_end_matches(']');
    (!rest.is_empty() && !VERBS.contains(&rest.to_ascii_lowercase().as_str()))
        .then(|| rest.to_owned())
}

/// The node of a LangGraph in which a model was called. A node that calls a model itself is what others call an agent; the inner nodes of a
/// ready-made agent (`model`, `tools`, ...) are not, so the innermost node with a name of its own counts.
fn graph_node(metadata: &Value) -> Option<String> {
    const INNER: [&str; 8] = [
        "model",
        "agent",
        "tools",
        "call_model",
        "llm",
        "chatbot",
        "__start__",
        "generate",
    ];
    let path = metadata
        .get("langgraph_checkpoint_ns")
        .and_then(Value::as_str)
        .unwrap_or_default();
    path.rsplit('|')
        .filter_map(|part| part.split(':').next())
        .chain(metadata.get("langgraph_node").and_then(Value::as_str))
        .find(|node| !node.is_empty() && !INNER.contains(node))
        .map(str::to_owned)
}

fn models(look: &Look, span: &mut Span) {
    let attributes = &look.attributes;
    let parameters = attributes
        .first_json(&[
            "llm.invocation_parameters",
            "embedding.invocation_parameters",
        ])
        .unwrap_or(Value::Null);
    span.request_model = attributes
        .first_text(&[
            "gen_ai.request.model",
            "llm.request.model_name",
            "llm.request.model",
            "ai.model.id",
            "embedding.model_name",
            "reranker.model_name",
        ])
        .or_else(|| metadata_text(&parameters, &["model", "model_name"]));
    span.response_model = attributes
        .first_text(&[
            "gen_ai.response.model",
            "llm.response.model_name",
            "llm.response.model",
            "ai.response.model",
            "llm.model_name",
        ])
        .or_else(|| {
            let response = attributes.json("gcp.vertex.agent.llm_response")?;
            metadata_text(&response, &["model_version"])
        });
}

fn finish_reasons(attributes: &Attributes) -> Vec<String> {
    [
        "gen_ai.response.finish_reasons",
        "llm.finish_reason",
        "ai.response.finishReason",
        "llm.response.finish_reason",
        "gen_ai.completion.0.finish_reason",
    ]
    .iter()
    .map(|key| attributes.texts(key))
    .find(|reasons| !reasons.is_empty())
    .unwrap_or_default()
}

fn usage(look: &Look, span: &Span) -> Option<Usage> {
    let attributes = &look.attributes;
    // ADK 1 keeps the details in the response itself.
    let response = attributes
        .json("gcp.vertex.agent.llm_response")
        .unwrap_or(Value::Null);
    let metadata = response.get("usage_metadata").unwrap_or(&Value::Null);
    let in_metadata = |key: &str| metadata.get(key).and_then(Value::as_u64);

    let input = attributes
        .count(&[
            "gen_ai.usage.input_tokens",
            "gen_ai.usage.prompt_tokens",
            "llm.token_count.prompt",
            "ai.usage.inputTokens",
            "ai.usage.promptTokens",
            "ai.usage.tokens",
            "llm.usage.prompt_tokens",
        ])
        .or_else(|| in_metadata("prompt_token_count"));
    let output = attributes
        .count(&[
            "gen_ai.usage.output_tokens",
            "gen_ai.usage.completion_tokens",
            "llm.token_count.completion",
            "ai.usage.outputTokens",
            "ai.usage.completionTokens",
            "llm.usage.completion_tokens",
        ])
        .or_else(|| in_metadata("candidates_token_count"));
    if input.is_none() && output.is_none() {
        return None;
    }
    let reasoning = attributes
        .count(&[
            "gen_ai.usage.reasoning.output_tokens",
            "gen_ai.usage.reasoning_tokens",
            "gen_ai.usage.experimental.reasoning_tokens",
            "gen_ai.usage.details.reasoning_tokens",
            "llm.token_count.completion_details.reasoning",
            "ai.usage.reasoningTokens",
            "llm.usage.reasoning_tokens",
        ])
        .or_else(|| in_metadata("thoughts_token_count"))
        .unwrap_or(0);
    let mut usage = Usage {
        input: input.unwrap_or(0),
        output: output.unwrap_or(0),
        cache_read: attributes
            .count(&[
                "gen_ai.usage.cache_read.input_tokens",
                "gen_ai.usage.cache_read_input_tokens",
                "gen_ai.usage.details.cache_read_tokens",
                "llm.token_count.prompt_details.cache_read",
                "llm.token_count.prompt_details.cache_input",
                "ai.usage.cachedInputTokens",
            ])
            .or_else(|| in_metadata("cached_content_token_count"))
            .unwrap_or(0),
        cache_write: attributes
            .count(&[
                "gen_ai.usage.cache_write.input_tokens",
                "gen_ai.usage.cache_write_input_tokens",
                "gen_ai.usage.cache_creation.input_tokens",
                "gen_ai.usage.cache_creation_input_tokens",
                "llm.token_count.prompt_details.cache_write",
            ])
            .unwrap_or(0),
        reasoning,
    };
    if counts_reasoning_twice(look, span) {
        usage.output = usage.output.saturating_sub(reasoning);
    }
    Some(usage)
}

/// ADK 2 reports `candidates + thoughts` as its output. Gemini counts the two apart, but the models that ADK reaches through LiteLLM
/// (their names carry LiteLLM's `provider/` prefix) count reasoning within the completion, so it is in the sum twice.
fn counts_reasoning_twice(look: &Look, span: &Span) -> bool {
    look.scope == "gcp.vertex.agent"
        && look.attributes.has("gen_ai.usage.reasoning.output_tokens")
        && span
            .request_model
            .as_deref()
            .and_then(|model| model.split_once('/'))
            .is_some_and(|(provider, _)| {
                !matches!(provider, "gemini" | "vertex_ai" | "models" | "projects")
            })
}

fn failure(look: &Look) -> Option<Failure> {
    let attributes = &look.attributes;
    let status = look.span.status.as_ref();
    let code = status.map_or(0, |status| status.code);
    let error_type = attributes.text("error.type");
    let failed = code == 2 || (code == 0 && error_type.is_some());
    if !failed {
        return None;
    }
    let mut failure = Failure {
        kind: error_type.unwrap_or_default(),
        message: status
            .map(|status| status.message.clone())
            .unwrap_or_default(),
    };
    for event in look
        .span
        .events
        .iter()
        .filter(|event| event.name == "exception")
    {
        let exception = Attributes::new(&event.attributes);
        if let Some(kind) = exception.text("exception.type") {
            failure.kind = kind;
        }
        if let Some(message) = exception.text("exception.message") {
            failure.message = message;
        }
    }
    let class = failure.kind.rsplit('.').next().unwrap_or_default();
    if CONTROL_FLOW.contains(&class)
        || CONTROL_FLOW
            .iter()
            .any(|name| failure.kind.is_empty() && failure.message.starts_with(name))
    {
        return None;
    }
    if failure.message.is_empty() {
        failure.message = attributes
            .first_text(&["error.message", "exception.message"])
            .unwrap_or_default();
    }
    Some(failure)
}

fn tool(look: &Look) -> Tool {
    let attributes = &look.attributes;
    let name = look.span.name.as_str();
    let mut tool = Tool {
        name: attributes
            .first_text(&["gen_ai.tool.name", "tool.name", "ai.toolCall.name"])
            .or_else(|| tool_in_name(look))
            .unwrap_or_else(|| name.to_owned()),
        call_id: attributes.first_text(&[
            "gen_ai.tool.call.id",
            "tool_call.id",
            "ai.toolCall.id",
            "tool.id",
        ]),
        arguments: attributes
            .first_json(&[
                "gen_ai.tool.call.arguments",
                "gcp.vertex.agent.tool_call_args",
                "tool_arguments",
                "ai.toolCall.args",
                "mcp.request.argument",
            ])
            .map(|value| messages::arguments(&value)),
        result: attributes.first_json(&[
            "gen_ai.tool.call.result",
            "gcp.vertex.agent.tool_response",
            "tool_response",
            "ai.toolCall.result",
            "mcp.response.value",
        ]),
        ..Tool::default()
    };
    if is_filler(tool.result.as_ref()) {
        tool.result = None;
    }
    tool_io(look, &mut tool);
    tool_events(look, &mut tool);
    unwrap_arguments(&mut tool);
    unwrap_result(&mut tool);
    handoff(look, &mut tool);
    tool
}

/// ADK 1 writes `{"result": "<not specified>"}` when it knows none.
fn is_filler(result: Option<&Value>) -> bool {
    result
        .and_then(|value| value.get("result"))
        .and_then(Value::as_str)
        .is_some_and(|text| text == "<not specified>" || text == "<not serializable>")
}

fn tool_in_name(look: &Look) -> Option<String> {
    let name = look.span.name.as_str();
    for start in [
        "execute_tool ",
        "tools/call ",
        "MCP send tools/call ",
        "running tool: ",
        "running tool ",
    ] {
        if let Some(rest) = name.strip_prefix(start) {
            return Some(rest.to_owned());
        }
    }
    if look.attributes.has("traceloop.span.kind") {
        return look
            .attributes
            .text("traceloop.entity.name")
            .or_else(|| name.strip_suffix(".tool").map(str::to_owned));
    }
    None
}

/// OpenInference and Traceloop have one input and one output for every kind of span.
fn tool_io(look: &Look, tool: &mut Tool) {
    let attributes = &look.attributes;
    if tool.arguments.is_none()
        && let Some(input) =
            attributes.first_json(&["input.value", "traceloop.entity.input", "input"])
    {
        tool.arguments = Some(match input {
            // LangChain gives a tool of one argument its bare value; whoever called it knows the name (the fold looks).
            Value::String(text) => serde_json::json!({ "input": text }),
            other => other,
        });
    }
    if tool.result.is_none() {
        tool.result = attributes.first_json(&["output.value", "traceloop.entity.output", "output"]);
    }
}

/// Strands tells a tool's input and output by span events.
fn tool_events(look: &Look, tool: &mut Tool) {
    for event in &look.span.events {
        let values = Attributes::new(&event.attributes);
        match event.name.as_str() {
            "gen_ai.tool.message" if tool.arguments.is_none() => {
                tool.arguments = values
                    .json("content")
                    .map(|value| messages::arguments(&value));
                tool.call_id = tool.call_id.take().or_else(|| values.text("id"));
            }
            "gen_ai.choice" if tool.result.is_none() => {
                tool.result = values.first_json(&["message", "content"]);
                tool.call_id = tool.call_id.take().or_else(|| values.text("id"));
            }
            "gen_ai.client.inference.operation.details" => {
                for message in values
                    .json("gen_ai.input.messages")
                    .map(|value| messages::read(&value, "assistant"))
                    .unwrap_or_default()
                {
                    if let Some(call) = message.tool_calls.into_iter().next()
                        && tool.arguments.is_none()
                    {
                        tool.arguments = Some(call.arguments);
                        tool.call_id = tool.call_id.take().or(call.id);
                    }
                }
                if tool.result.is_none() {
                    tool.result = values
                        .json("gen_ai.output.messages")
                        .map(|value| messages::read(&value, "tool"))
                        .and_then(|read| read.into_iter().next())
                        .map(|message| parse_text(&message.text));
                }
            }
            _ => {}
        }
    }
}

/// `{"tool_name": .., "arguments": {..}}` (Traceloop's MCP), `{"input_str": .., "inputs": {..}}` (its LangChain).
fn unwrap_arguments(tool: &mut Tool) {
    let inner = tool.arguments.as_ref().and_then(|value| {
        let object = value.as_object()?;
        if object.contains_key("tool_name") {
            object.get("arguments").cloned()
        } else if let (1, Some(kwargs @ Value::Object(_))) = (object.len(), object.get("kwargs")) {
            // LlamaIndex: the tool's keyword arguments.
            Some(kwargs.clone())
        } else if object.contains_key("input_str") || object.contains_key("inputs") {
            object
                .get("inputs")
                .filter(|inputs| inputs.is_object())
                .cloned()
                .or_else(|| {
                    let text = object.get("input_str")?.as_str()?;
                    Some(parse_text(text)).filter(Value::is_object)
                })
        } else {
            None
        }
    });
    if inner.is_some() {
        tool.arguments = inner;
    }
}

/// A serialised LangChain `ToolMessage` holds the result and says which call it answers.
fn unwrap_result(tool: &mut Tool) {
    let Some(result) = &tool.result else { return };
    let output = result
        .get("output")
        .filter(|inner| inner.is_object())
        .unwrap_or(result);
    let Some(inner) = output
        .get("data")
        .or_else(|| output.get("kwargs"))
        .filter(|inner| inner.get("tool_call_id").is_some())
    else {
        return;
    };
    if tool.call_id.is_none() {
        tool.call_id = inner
            .get("tool_call_id")
            .and_then(Value::as_str)
            .filter(|id| !id.is_empty())
            .map(str::to_owned);
    }
    tool.result = inner.get("content").cloned();
}

/// Which tools hand the conversation over, and to whom.
fn handoff(look: &Look, tool: &mut Tool) {
    let lower = tool.name.to_ascii_lowercase();
    if let Some(target) = lower
        .strip_prefix("handoff to ")
        .map(|_| tool.name[11..].to_owned())
    {
        // openai-agents over OpenInference: a span of its own, from `input.value` to `output.value`; the model's call has the name.
        tool.kind = ToolKind::Handoff;
        tool.target = look.attributes.text("output.value").or(Some(target));
        tool.arguments = None;
        tool.result = None;
        return;
    }
    let by_operation = matches!(
        look.attributes.str("gen_ai.operation.name"),
        Some("handoff" | "agent_handoff")
    );
    let by_name = lower == "handoff"
        || lower.starts_with("transfer_to_")
        || lower.starts_with("handoff_to_")
        || lower.starts_with("transfer_back_to_");
    if !(by_operation || by_name) {
        return;
    }
    tool.kind = ToolKind::Handoff;
    tool.target = tool
        .arguments
        .as_ref()
        .and_then(|arguments| {
            metadata_text(arguments, &["agent_name", "to_agent", "agent", "target"])
        })
        .or_else(|| look.attributes.text("gen_ai.handoff.to_agent"))
        .or_else(|| {
            ["transfer_back_to_", "transfer_to_", "handoff_to_"]
                .iter()
                .find_map(|start| lower.strip_prefix(start))
                .filter(|rest| *rest != "agent")
                .map(str::to_owned)
        });
}
