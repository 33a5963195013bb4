//! Who, which model, how many tokens, which tool, which error: the facts that every convention has under another key.

use serde_json::Value;

use super::{Look, call, keys, python, tools};
use crate::attributes::Attributes;
use crate::model::{Ancestor, Failure, Kind, Log, Span, Usage};
use crate::observed::Context;

/// Exceptions that steer a LangGraph run rather than end it.
const CONTROL_FLOW: &[&str] = &[
    "ParentCommand",
    "GraphInterrupt",
    "NodeInterrupt",
    "GraphBubbleUp",
];

const SERVICE: &str = "service.name";

/// What was asked, done and counted: all that who follows a conversation needs.
pub(super) fn read_said(look: &Look, span: &mut Span) {
    let attributes = &look.attributes;
    attributes.about("invocation_id");
    span.invocation_id = attributes
        .str("gcp.vertex.agent.invocation_id")
        .map(str::to_owned);
    attributes.about("failure");
    span.failure = failure(look);
    if matches!(
        span.kind,
        Kind::Llm | Kind::LlmFetch | Kind::Embedding | Kind::Reranker | Kind::Plan
    ) {
        models(look, span);
    }
    if matches!(span.kind, Kind::Llm | Kind::Embedding) {
        span.usage = usage(look, span);
    }
    if span.kind == Kind::Tool {
        let tool = tools::read(look);
        // ADK adds a span for parallel calls, without a call behind it.
        span.made_up = tool.name.starts_with("(merged");
        span.tool = Some(tool);
    }
}

/// Who it was, where, and how it was asked.
pub(super) fn read_rest(look: &Look, context: &Context, span: &mut Span) {
    let attributes = &look.attributes;
    attributes.about("service");
    if context.resource.iter().any(|pair| pair.key == SERVICE) {
        let resource = Attributes::noting(&context.resource, "resource.", look.readings);
        span.service = resource.str(SERVICE).map(str::to_owned);
    }
    attributes.about("sessions");
    span.sessions = sessions(attributes, &look.metadata);
    attributes.about("user");
    span.user = attributes
        .first_text(keys::USER)
        .or_else(|| metadata_text(&look.metadata, &["user_id", "userId"]));
    attributes.about("provider");
    span.provider = provider(attributes);
    attributes.about("ancestors");
    span.ancestors = ancestors(attributes);
    attributes.about("agent");
    span.agent = agent(look, span.kind)
        .map(|name| name.trim().to_owned())
        .filter(|name| !name.is_empty());
    if matches!(
        span.kind,
        Kind::Llm | Kind::LlmFetch | Kind::Embedding | Kind::Reranker | Kind::Plan
    ) {
        attributes.about("finish_reasons");
        span.finish_reasons = finish_reasons(attributes);
        span.parameters = call::parameters(look, span.kind);
    }
    if span.kind == Kind::Llm {
        attributes.about("response_id");
        span.response_id = attributes.first_text(keys::RESPONSE_ID).or_else(|| {
            // OpenInference keeps the client's whole answer.
            metadata_text(&attributes.json("output.value")?, &["id"])
        });
        span.time_to_first_chunk_ns = call::time_to_first_chunk_ns(look, span);
    }
}

/// Laminar and TraceRoot write the whole path from the root on every span: ids, names, and (the latter) starts; its last step is the span itself.
fn ancestors(attributes: &Attributes) -> Vec<Ancestor> {
    /// Deeper than any run; a longer path is somebody's mistake.
    const DEEPEST: usize = 64;
    const PATHS: [[&str; 3]; 2] = [
        [
            "lmnr.span.ids_path",
            "lmnr.span.path",
            "lmnr.span.starts_path",
        ],
        [
            "traceroot.span.ids_path",
            "traceroot.span.path",
            "traceroot.span.starts_path",
        ],
    ];
    for [ids, names, starts] in PATHS {
        let ids = attributes.texts(ids);
        if ids.len() < 2 || ids.len() > DEEPEST {
            continue;
        }
        let (names, starts) = (attributes.texts(names), attributes.texts(starts));
        let all = ids.iter().enumerate().map(|(at, id)| {
            // As 16 hex digits, or as a UUID with the id in its second half.
            let digits: String = id.chars().filter(char::is_ascii_hexdigit).collect();
            let id = digits.get(digits.len().checked_sub(16)?..)?;
            Some(Ancestor {
                id: id.to_ascii_lowercase(),
                name: names.get(at).cloned().unwrap_or_default(),
                start_ns: starts
                    .get(at)
                    .and_then(|start| super::text_time_ns(start))
                    .unwrap_or(0),
            })
        });
        let mut all: Vec<_> = all.map_while(|above| above).collect();
        if all.len() == ids.len() {
            all.pop();
            return all;
        }
    }
    Vec::new()
}

pub(super) fn read_log(attributes: &Attributes, context: &Context, log: &mut Log) {
    let resource = Attributes::new(&context.resource);
    log.service = resource.str(SERVICE).map(str::to_owned);
    log.sessions = sessions(attributes, &Value::Null);
    log.user = attributes.first_text(keys::USER);
    log.agent = attributes.first_text(keys::AGENT);
    log.provider = provider(attributes);
    log.model = attributes.first_text(&["gen_ai.request.model", "gen_ai.response.model"]);
    if attributes.has("exception.type") || attributes.has("exception.message") {
        log.failure = Some(Failure {
            kind: attributes.text("exception.type").unwrap_or_default(),
            message: attributes.text("exception.message").unwrap_or_default(),
        });
    }
}

/// What a producer adds to its spans, wherever its instrumentation puts it: LangChain names agents, graph nodes and threads there.
pub(super) fn metadata(attributes: &Attributes) -> Value {
    if let Some(metadata) = attributes.json("metadata").filter(Value::is_object) {
        return metadata;
    }
    for prefix in [
        "traceloop.association.properties",
        "langsmith.metadata",
        "langfuse.observation.metadata",
    ] {
        let Some(Value::Object(mut metadata)) = attributes.structure(prefix) else {
            continue;
        };
        for value in metadata.values_mut() {
            // Langfuse writes every value as JSON, the quotes of a text included.
            if let Value::String(text) = value
                && text.starts_with('"')
                && let Ok(unquoted) = serde_json::from_str(text)
            {
                *value = Value::String(unquoted);
            }
        }
        return Value::Object(metadata);
    }
    Value::Null
}

/// The sessions that attributes name, each once.
pub(super) fn sessions(attributes: &Attributes, metadata: &Value) -> Vec<String> {
    let named = keys::SESSIONS.iter().filter_map(|key| attributes.text(key));
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

pub(super) fn metadata_text(metadata: &Value, keys: &[&str]) -> Option<String> {
    keys.iter().find_map(|key| match metadata.get(*key)? {
        Value::String(text) if !text.is_empty() => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    })
}

/// The provider under its present name (`gen_ai.provider.name`), whichever the producer used.
fn provider(attributes: &Attributes) -> Option<String> {
    let name = attributes.first_str(keys::PROVIDER)?;
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

/// The OTel project's instrumentation of openai-agents writes this on every span; the true name is in the span's own.
pub(super) fn is_default_agent(name: &str, scope: &str) -> bool {
    name == "OpenAI Agent" && scope.contains("openai_agents")
}

fn agent(look: &Look, kind: Kind) -> Option<String> {
    let attributes = &look.attributes;
    if let Some(name) = attributes.first_text(keys::AGENT) {
        if !is_default_agent(&name, look.scope) {
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
    if look.scope == "logfire.openai_agents" {
        return attributes.text("name");
    }
    if let Some(name) = attributes.text("haystack.component.name") {
        return Some(name);
    }
    // A function of a graph's node bears any name; the node's is the agent's.
    if attributes.has("openinference.span.kind")
        && let Some(node) = graph_node(&look.metadata)
    {
        return Some(node);
    }
    if let Some(name) = llamaindex_agent(look) {
        return Some(name);
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
        .or_else(|| {
            let named = agent_in_name(&look.span.name)?;
            look.note("name");
            Some(named)
        })
        .or_else(|| {
            look.note("name");
            // "Researcher.run", "CodeAgent.invoke", "Researcher.agent"
            let name = look.span.name.as_str();
            let bare = [".run", ".invoke", ".agent", ".ainvoke", ".arun"]
                .iter()
                .find_map(|end| name.strip_suffix(end))
                .unwrap_or(name);
            [
                "openinference.span.kind",
                "traceloop.span.kind",
                "langfuse.observation.type",
            ]
            .iter()
            .any(|key| attributes.has(key))
            .then(|| bare.to_owned())
        })
}

/// LlamaIndex's steps of an agent, as OpenLLMetry writes them, name it in what they give back.
pub(super) fn llamaindex_agent(look: &Look) -> Option<String> {
    if !look.scope.ends_with("llamaindex") {
        return None;
    }
    let output = look.attributes.json("traceloop.entity.output")?;
    metadata_text(&output, &["current_agent_name"])
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
    attributes.about("request_model");
    span.request_model = attributes
        .first_text(keys::REQUEST_MODEL)
        .or_else(|| metadata_text(&parameters, &["model", "model_name"]));
    attributes.about("response_model");
    span.response_model = attributes
        .first_text(keys::RESPONSE_MODEL)
        .or_else(|| match attributes.json("gcp.vertex.agent.llm_response") {
            Some(response) => metadata_text(&response, &["model_version"]),
            None => haystack_reply(attributes, "model")?
                .as_str()
                .map(str::to_owned),
        });
}

fn finish_reasons(attributes: &Attributes) -> Vec<String> {
    let mut told = keys::FINISH_REASONS.iter().map(|key| attributes.texts(key));
    let reasons = told.find(|reasons| !reasons.is_empty()).unwrap_or_default();
    // The dev server's client sends a tuple as Python prints it: `('stop',)`.
    if let [printed] = reasons.as_slice()
        && let Some(Value::Array(items)) = python::parse(printed)
    {
        let items = items.iter().map(|item| item.as_str().map(str::to_owned));
        return items.collect::<Option<_>>().unwrap_or(reasons);
    }
    reasons
}

fn usage(look: &Look, span: &Span) -> Option<Usage> {
    let attributes = &look.attributes;
    // Some keep the counts, or the details of them, in a structure of their own.
    let structures: Vec<Value> = [
        ("gcp.vertex.agent.llm_response", Some("usage_metadata")),
        ("langfuse.observation.usage_details", None),
        ("mlflow.chat.tokenUsage", None),
        ("response_data", Some("usage")),
        ("genkit:output", Some("usage")),
    ]
    .iter()
    .filter_map(|(key, inner)| {
        attributes.about("usage");
        let value = attributes.json(key)?;
        match inner {
            Some(inner) => value.get(inner).cloned(),
            None => Some(units_joined(value)),
        }
    })
    .chain(haystack_reply(attributes, "usage"))
    .collect();
    let in_structure = |names: &[&str]| {
        let mut found = structures
            .iter()
            .flat_map(|structure| names.iter().map(move |name| structure.get(*name)));
        found.find_map(|value| value?.as_u64())
    };
    let count = |fact: &'static str, keys: &[&str], names: &[&str]| {
        attributes.about(fact);
        attributes.count(keys).or_else(|| in_structure(names))
    };
    let mut input = count(
        "input_tokens",
        keys::INPUT_TOKENS,
        &[
            "prompt_token_count",
            "input_tokens",
            "prompt_tokens",
            "inputTokens",
            "input",
        ],
    );
    let mut output = count(
        "output_tokens",
        keys::OUTPUT_TOKENS,
        &[
            "candidates_token_count",
            "output_tokens",
            "completion_tokens",
            "outputTokens",
            "output",
        ],
    );
    if input.is_none() || output.is_none() {
        let total = count(
            "total_tokens",
            keys::TOTAL_TOKENS,
            &["total_token_count", "total_tokens", "total"],
        );
        // A total alone cannot be divided: what is not known to be an answer was asked.
        match (total, input) {
            (Some(total), Some(input)) => output = Some(total.saturating_sub(input)),
            (Some(total), None) => input = Some(total.saturating_sub(output.unwrap_or(0))),
            (None, _) => {}
        }
    }
    if input.is_none() && output.is_none() {
        return None;
    }
    // Gemini counts what it thought beside its answer, in the total only.
    if let (Some(input), Some(answer)) = (input, output)
        && is_gemini(span)
        && let Some(total) = count("total_tokens", keys::TOTAL_TOKENS, &["total_token_count"])
        && total > input.saturating_add(answer)
    {
        output = Some(total - input);
    }
    let provider = provider_details(attributes);
    let (read_by_provider, written_by_provider) = provider.unwrap_or_default();
    let reasoning = count(
        "reasoning_tokens",
        keys::REASONING_TOKENS,
        &[
            "thoughts_token_count",
            "reasoning_tokens",
            "output_reasoning_tokens",
            "output_reasoning",
        ],
    )
    .unwrap_or(0);
    let mut usage = Usage {
        input: input.unwrap_or(0),
        output: output.unwrap_or(0),
        cache_read: count(
            "cache_read_tokens",
            keys::CACHE_READ_TOKENS,
            &[
                "cached_content_token_count",
                "cache_read_input_tokens",
                "input_cached_tokens",
                "input_cache_read",
                "cache_read_tokens",
            ],
        )
        .or(read_by_provider)
        .unwrap_or(0),
        cache_write: count(
            "cache_write_tokens",
            keys::CACHE_WRITE_TOKENS,
            &["cache_creation_input_tokens", "cache_write_tokens"],
        )
        .or(written_by_provider)
        .unwrap_or(0),
        reasoning,
    };
    if counts_reasoning_twice(look, span) {
        usage.output = usage.output.saturating_sub(reasoning);
    }
    // Anthropic's API counts what the cache had beside its input, and some pass that on; what is included cannot be more than the whole.
    let cached = usage.cache_read.saturating_add(usage.cache_write);
    if cached > usage.input {
        usage.input = usage.input.saturating_add(cached);
    }
    Some(usage)
}

/// What Haystack's generators know of their answer.
fn haystack_reply(attributes: &Attributes, what: &str) -> Option<Value> {
    let output = attributes.json("haystack.component.output")?;
    let meta = output.get("replies")?.get(0)?.get("meta")?;
    meta.get(what).cloned()
}

fn is_gemini(span: &Span) -> bool {
    let models = [&span.request_model, &span.response_model];
    models.into_iter().flatten().any(|model| {
        model
            .rsplit('/')
            .next()
            .is_some_and(|name| name.starts_with("gemini"))
    })
}

/// Langfuse divides a call's tokens into units that exclude one another (`input`, `input_cache_read`, `output`, `output_reasoning`), as far as its
/// total says so: then `input` and `output` become their sums.
fn units_joined(mut details: Value) -> Value {
    let Value::Object(units) = &mut details else {
        return details;
    };
    let sum = |start: &str| {
        let counts = units.iter().filter(|(unit, _)| unit.starts_with(start));
        counts.filter_map(|(_, count)| count.as_u64()).sum::<u64>()
    };
    let (input, output) = (sum("input"), sum("output"));
    let total = units.get("total").and_then(Value::as_u64);
    if units.contains_key("input") && total.is_none_or(|total| total == input + output) {
        units.insert("input".to_owned(), Value::from(input));
        units.insert("output".to_owned(), Value::from(output));
    }
    details
}

/// Vercel's SDK leaves what the cache gave and took to the provider's own words: `(read, written)`.
fn provider_details(attributes: &Attributes) -> Option<(Option<u64>, Option<u64>)> {
    attributes.about("cache_read_tokens");
    let details = attributes.json("ai.response.providerMetadata")?;
    let count = |path: &[&str]| {
        let found = path.iter().try_fold(&details, |value, key| value.get(*key));
        found.and_then(Value::as_u64)
    };
    Some((
        count(&["anthropic", "usage", "cache_read_input_tokens"])
            .or_else(|| count(&["openai", "cachedPromptTokens"]))
            .or_else(|| count(&["bedrock", "usage", "cacheReadInputTokens"])),
        count(&["anthropic", "usage", "cache_creation_input_tokens"])
            .or_else(|| count(&["anthropic", "cacheCreationInputTokens"]))
            .or_else(|| count(&["bedrock", "usage", "cacheWriteInputTokens"])),
    ))
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
    // Langfuse has a level of its own.
    let is_level = attributes.str("langfuse.observation.level") == Some("ERROR");
    let failed = code == 2 || (code == 0 && (error_type.is_some() || is_level));
    if !failed {
        return None;
    }
    if code == 2 {
        look.note("status");
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
        let exception = Attributes::noting(&event.attributes, "event exception: ", look.readings);
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
            .first_text(&[
                "error.message",
                "exception.message",
                "langfuse.observation.status_message",
            ])
            .unwrap_or_default();
    }
    Some(failure)
}
