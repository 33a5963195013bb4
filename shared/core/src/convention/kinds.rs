//! What a span is, by the first convention that says so.

use serde_json::Value;

use super::{Look, fields, mesh, parent_id};
use crate::model::Kind;

/// One convention's way to say what a span is.
pub struct Rule {
    /// `convention:what`, shown beside every span that the rule decided.
    pub name: &'static str,
    /// Who writes so.
    pub written_by: &'static str,
    /// What the span must have.
    pub looks_for: &'static str,
    /// Where the conventions are collected: the sections of `conventions.md` in the reference.
    pub reference: &'static str,
    pub(super) kind: fn(&Look) -> Option<Kind>,
}

/// First match wins. The order is that of specificity: a vendor's own type before a shared convention, a named kind before a guess. docs/conventions.md shows this
/// table; a test holds the two equal.
pub(super) const RULES: &[Rule] = &[
    Rule {
        name: "tailspan:kind",
        written_by: "Tailspan, of a span that is recorded with less than it had and whose kind only content told",
        looks_for: "`tailspan.kind`",
        reference: "none",
        kind: recorded_kind,
    },
    Rule {
        name: "mesh:entry",
        written_by: "an agent mesh's Redis stream",
        looks_for: "scope `mesh:trace`, which the intake gives entries; `llm_model` or `llm_provider` is a model call",
        reference: "4.9 (mcp-mesh)",
        kind: mesh::kind,
    },
    Rule {
        name: "langfuse:observation.type",
        written_by: "Langfuse SDK",
        looks_for: "`langfuse.observation.type`; `span` says nothing",
        reference: "4.1 step 1",
        kind: langfuse_kind,
    },
    Rule {
        name: "lmnr:span.type",
        written_by: "Laminar",
        looks_for: "`lmnr.span.type`; `DEFAULT` says nothing",
        reference: "4.1 step 1",
        kind: lmnr_kind,
    },
    Rule {
        name: "mlflow:spanType",
        written_by: "MLflow",
        looks_for: "`mlflow.spanType`; `UNKNOWN` says nothing",
        reference: "4.1 step 1",
        kind: mlflow_kind,
    },
    Rule {
        name: "langsmith:span.kind",
        written_by: "LangSmith",
        looks_for: "`langsmith.span.kind`",
        reference: "4.1 step 1",
        kind: langsmith_kind,
    },
    Rule {
        name: "mastra:span.type",
        written_by: "Mastra",
        looks_for: "`mastra.span.type`",
        reference: "4.1 step 1",
        kind: mastra_kind,
    },
    Rule {
        name: "langwatch:span.type",
        written_by: "LangWatch",
        looks_for: "`langwatch.span.type`; `span` says nothing",
        reference: "4.1 step 1",
        kind: langwatch_kind,
    },
    Rule {
        name: "ag2:span.type",
        written_by: "AG2",
        looks_for: "`ag2.span.type`, where it is no call: `usage` (the counts of one, once more), `speaker_selection`, `human_input`, `code_execution`",
        reference: "4.2 (`record_usage`)",
        kind: ag2_kind,
    },
    Rule {
        name: "openinference:span.kind",
        written_by: "OpenInference",
        looks_for: "`openinference.span.kind`",
        reference: "4.1 step 2, 4.5",
        kind: openinference_kind,
    },
    Rule {
        name: "gen_ai:operation.name",
        written_by: "OpenTelemetry GenAI, old and new; Strands, Pydantic AI, Microsoft's agent framework, AI SDK 7, Google ADK 2",
        looks_for: "`gen_ai.operation.name`, a value that is known",
        reference: "4.1 step 3, 4.2",
        kind: operation_kind,
    },
    Rule {
        name: "mcp:method.name",
        written_by: "OpenTelemetry MCP",
        looks_for: "`mcp.method.name`",
        reference: "4.1 step 4, 4.4",
        kind: mcp_kind,
    },
    Rule {
        name: "traceloop:span.kind",
        written_by: "OpenLLMetry (Traceloop)",
        looks_for: "`traceloop.span.kind`, else `llm.request.type`",
        reference: "4.1 step 5, 4.6",
        kind: traceloop_kind,
    },
    Rule {
        name: "vercel:operationId",
        written_by: "Vercel AI SDK 3 to 6",
        looks_for: "`ai.operationId`, else `operation.name`, beginning with `ai.`",
        reference: "4.1 step 6, 4.8",
        kind: vercel_kind,
    },
    Rule {
        name: "genkit:subtype",
        written_by: "Genkit",
        looks_for: "`genkit:metadata:subtype`, else `genkit:type`",
        reference: "4.1 step 7",
        kind: genkit_kind,
    },
    Rule {
        name: "adk:span.name",
        written_by: "Google ADK 1",
        looks_for: "scope `gcp.vertex.agent` or attributes of it; the first word of the span's name",
        reference: "4.1 step 8, 4.7",
        kind: adk_kind,
    },
    Rule {
        name: "logfire:openai_agents",
        written_by: "Logfire, of OpenAI's agents",
        looks_for: "scope `logfire.openai_agents`; `handoffs` (an agent), `from_agent` (a hand-off), `Function: ..` (a tool), `agent_trace_id` (the run)",
        reference: "4.9",
        kind: logfire_agents_kind,
    },
    Rule {
        name: "haystack:component",
        written_by: "Haystack",
        looks_for: "`haystack.component.type`: the component's class; else the name `haystack.pipeline.run`",
        reference: "none",
        kind: haystack_kind,
    },
    Rule {
        name: "gen_ai:tool",
        written_by: "any",
        looks_for: "`gen_ai.tool.name` or `gen_ai.tool.call.id`",
        reference: "4.1 step 9",
        kind: tool_kind,
    },
    Rule {
        name: "gen_ai:model",
        written_by: "any",
        looks_for: "a model: `gen_ai.request.model`, `gen_ai.response.model`, `llm.model_name`, `llm.request.model`",
        reference: "4.1 step 10",
        kind: model_kind,
    },
    Rule {
        name: "logfire:span_type",
        written_by: "Logfire",
        looks_for: "`logfire.span_type` = `log`: a line, not a step",
        reference: "4.9",
        kind: logfire_kind,
    },
    Rule {
        name: "name:agent",
        written_by: "hand-written spans",
        looks_for: "the name: `agent X`, `invoke_agent X`, `agent_run [X]`",
        reference: "4.1 step 8",
        kind: named_agent_kind,
    },
];

/// A kind in Langfuse's, LangSmith's or MLflow's words. `span`, `unknown` and the like say nothing: a convention beside it may.
fn kind_of_word(word: &str) -> Option<Kind> {
    Some(match word.trim_matches('"').to_ascii_lowercase().as_str() {
        "generation" | "llm" | "chat_model" => Kind::Llm,
        "agent" => Kind::Agent,
        "tool" => Kind::Tool,
        "chain" | "parser" | "task" => Kind::Task,
        "workflow" => Kind::Workflow,
        "retriever" => Kind::Retriever,
        "embedding" => Kind::Embedding,
        "reranker" => Kind::Reranker,
        "evaluator" => Kind::Evaluator,
        "guardrail" => Kind::Guardrail,
        "memory" => Kind::Memory,
        "prompt" => Kind::Prompt,
        "event" => Kind::Log,
        _ => return None,
    })
}

fn recorded_kind(look: &Look) -> Option<Kind> {
    use serde::{Deserialize as _, de::value};
    let word = look.attributes.str(crate::lower::KIND)?;
    Kind::deserialize(value::StrDeserializer::<value::Error>::new(word)).ok()
}

fn mlflow_kind(look: &Look) -> Option<Kind> {
    // MLflow writes every value as JSON, the quotes of a text included.
    kind_of_word(look.attributes.str("mlflow.spanType")?)
}

fn langsmith_kind(look: &Look) -> Option<Kind> {
    kind_of_chain(look, "langsmith.span.kind")
}

/// LangChain's callbacks know no agents: a run of one is the chain that bears the agent's name.
fn kind_of_chain(look: &Look, key: &str) -> Option<Kind> {
    match kind_of_word(look.attributes.str(key)?)? {
        Kind::Task if is_langchain_agent(look) => Some(Kind::Agent),
        kind => Some(kind),
    }
}

fn langwatch_kind(look: &Look) -> Option<Kind> {
    match look.attributes.str("langwatch.span.type")? {
        "rag" => Some(Kind::Retriever),
        "evaluation" => Some(Kind::Evaluator),
        word => kind_of_word(word),
    }
}

fn ag2_kind(look: &Look) -> Option<Kind> {
    match look.attributes.str("ag2.span.type")? {
        "usage" | "speaker_selection" | "human_input" | "code_execution" => Some(Kind::Task),
        _ => None,
    }
}

fn mastra_kind(look: &Look) -> Option<Kind> {
    Some(match look.attributes.str("mastra.span.type")? {
        "agent_run" => Kind::Agent,
        "model_generation" | "llm_generation" => Kind::Llm,
        "tool_call" | "mcp_tool_call" => Kind::Tool,
        "workflow_run" => Kind::Workflow,
        "model_step" | "model_chunk" | "llm_chunk" | "processor_run" => Kind::Task,
        step if step.starts_with("workflow_") => Kind::Task,
        _ => return None,
    })
}

fn langfuse_kind(look: &Look) -> Option<Kind> {
    kind_of_chain(look, "langfuse.observation.type")
}

fn lmnr_kind(look: &Look) -> Option<Kind> {
    let kind = look.attributes.str("lmnr.span.type")?;
    Some(match kind.to_ascii_uppercase().as_str() {
        "LLM" => Kind::Llm,
        "TOOL" => Kind::Tool,
        "EVALUATOR" => Kind::Evaluator,
        _ => return None,
    })
}

fn openinference_kind(look: &Look) -> Option<Kind> {
    let kind = look.attributes.str("openinference.span.kind")?;
    Some(match kind.to_ascii_uppercase().as_str() {
        "LLM" if is_llamaindex_helper(look) => Kind::Task,
        "LLM" => Kind::Llm,
        "EMBEDDING" => Kind::Embedding,
        "CHAIN" if is_llamaindex_agent(look) => Kind::Agent,
        // LangChain's instrumentation knows no agents: a run of one is the chain that bears the agent's name.
        "CHAIN" if is_langchain_agent(look) => Kind::Agent,
        "CHAIN" if look.scope.ends_with("haystack") && look.span.name == "Agent.run" => Kind::Agent,
        // CrewAI's crew.
        "CHAIN" if look.attributes.has("crew_tasks") => Kind::Workflow,
        "CHAIN" => Kind::Task,
        "RETRIEVER" => Kind::Retriever,
        "RERANKER" => Kind::Reranker,
        "TOOL" => Kind::Tool,
        // openai-agents' trace is an AGENT without a name, above the agents: the workflow.
        "AGENT" if is_nameless_root(look) => Kind::Workflow,
        // LangChain's instrumentation calls so whatever has "agent" in its name, also the function that finds the first node.
        "AGENT"
            if look.metadata.get("langgraph_node").and_then(Value::as_str) == Some("__start__") =>
        {
            Kind::Task
        }
        "AGENT" => Kind::Agent,
        "GUARDRAIL" => Kind::Guardrail,
        "EVALUATOR" => Kind::Evaluator,
        "PROMPT" => Kind::Prompt,
        _ => return None,
    })
}

/// LlamaIndex marks as LLM whatever belongs to its LLM classes; only the innermost span has messages, tokens or the error.
fn is_llamaindex_helper(look: &Look) -> bool {
    look.scope.ends_with("llama_index")
        && !look.attributes.has_prefix("llm.input_messages")
        && !look.attributes.has_prefix("llm.prompts")
        && !look.attributes.has_prefix("llm.token_count")
        && look.span.end_time_unix_nano != 0
        && look
            .span
            .status
            .as_ref()
            .is_none_or(|status| status.code != 2)
}

/// One step of a LlamaIndex agent; its name is in the representation of the event that the step takes.
fn is_llamaindex_agent(look: &Look) -> bool {
    look.scope.ends_with("llama_index") && look.span.name.ends_with(".run_agent_step")
}

fn is_langchain_agent(look: &Look) -> bool {
    look.metadata
        .get("lc_agent_name")
        .and_then(Value::as_str)
        .is_some_and(|name| name == look.span.name)
}

fn is_nameless_root(look: &Look) -> bool {
    parent_id(&look.span.parent_span_id).is_none()
        && look.scope.contains("openai_agents")
        && look
            .attributes
            .first_str(&["agent.name", "graph.node.id", "gen_ai.agent.name"])
            .is_none()
}

fn operation_kind(look: &Look) -> Option<Kind> {
    Some(match look.attributes.str("gen_ai.operation.name")? {
        "chat"
        | "generate_content"
        | "text_completion"
        | "completion"
        | "generate"
        | "chat.completions"
        | "chat.streaming_completions" => Kind::Llm,
        "embeddings" | "embedding" => Kind::Embedding,
        "retrieval" | "vector_db_retrieve" => Kind::Retriever,
        "fetch_response" => Kind::LlmFetch,
        "create_memory_store"
        | "delete_memory_store"
        | "create_memory"
        | "update_memory"
        | "upsert_memory"
        | "search_memory"
        | "delete_memory" => Kind::Memory,
        "create_agent" => Kind::AgentAdmin,
        "invoke_agent" => {
            // OpenLLMetry names this operation for whatever belongs to an agent framework, and says beside it what it is.
            match look.attributes.str("traceloop.span.kind") {
                Some("workflow") => Kind::Workflow,
                Some("task") => Kind::Task,
                Some("tool") => Kind::Tool,
                _ if is_swarm_or_graph(look) || is_nameless_workflow(look) => Kind::Workflow,
                _ => Kind::Agent,
            }
        }
        "execute_tool" | "load_skill" | "handoff" | "agent_handoff" => Kind::Tool,
        "guardrail" | "guardrail_check" => Kind::Guardrail,
        "invoke_workflow" | "invoke_swarm" | "invoke_graph" | "conversation" => Kind::Workflow,
        "plan" => Kind::Plan,
        "execute_event_loop_cycle" | "invoke_node" | "execute_task" | "goto" | "record_usage" => {
            Kind::Task
        }
        _ => return None,
    })
}

/// Strands calls its orchestrators' operation `invoke_agent`, without an agent's name.
fn is_swarm_or_graph(look: &Look) -> bool {
    matches!(look.span.name.as_str(), "invoke_swarm" | "invoke_graph")
        && look
            .attributes
            .str("gen_ai.agent.name")
            .is_none_or(|name| matches!(name, "swarm" | "graph"))
}

/// OpenLLMetry's span of a whole crew: `crewai.workflow`, without an agent.
fn is_nameless_workflow(look: &Look) -> bool {
    look.span.name.ends_with(".workflow") && !look.attributes.has("gen_ai.agent.name")
}

fn mcp_kind(look: &Look) -> Option<Kind> {
    // One call may show up as client, server and tool; the fold joins those that nest.
    Some(match look.attributes.str("mcp.method.name")? {
        "tools/call" => Kind::Tool,
        _ => Kind::Mcp,
    })
}

fn traceloop_kind(look: &Look) -> Option<Kind> {
    if let Some(kind) = look.attributes.str("traceloop.span.kind") {
        return Some(match kind {
            "workflow" => Kind::Workflow,
            // A LlamaIndex agent's step that runs a tool.
            "task" if look.attributes.has("tool.name") => Kind::Tool,
            "task" if fields::llamaindex_agent(look).is_some() => Kind::Agent,
            "task" => Kind::Task,
            "agent" => Kind::Agent,
            "tool" => Kind::Tool,
            _ => return request_kind(look),
        });
    }
    request_kind(look)
}

fn request_kind(look: &Look) -> Option<Kind> {
    Some(match look.attributes.str("llm.request.type")? {
        "chat" | "completion" => Kind::Llm,
        "embedding" => Kind::Embedding,
        "rerank" => Kind::Reranker,
        _ => return None,
    })
}

fn vercel_kind(look: &Look) -> Option<Kind> {
    let operation = look
        .attributes
        .str("ai.operationId")
        .or_else(|| {
            // "ai.generateText my-function"
            look.attributes.str("operation.name")?.split(' ').next()
        })
        .filter(|name| name.starts_with("ai."))?;
    Some(match operation {
        "ai.toolCall" => Kind::Tool,
        "ai.rerank" | "ai.rerank.doRerank" => Kind::Reranker,
        _ if operation.starts_with("ai.embed") => Kind::Embedding,
        _ if operation.ends_with(".doGenerate") || operation.ends_with(".doStream") => Kind::Llm,
        // Only the inner span is a call to the model; the outer one is the loop around it.
        "ai.generateText" | "ai.streamText" | "ai.generateObject" | "ai.streamObject" => {
            Kind::Agent
        }
        _ => Kind::Task,
    })
}

fn genkit_kind(look: &Look) -> Option<Kind> {
    let kind = look
        .attributes
        .first_str(&["genkit:metadata:subtype", "genkit:type"])?;
    Some(match kind {
        "model" => Kind::Llm,
        "tool" => Kind::Tool,
        "flow" => Kind::Workflow,
        "agent" => Kind::Agent,
        "retriever" => Kind::Retriever,
        "embedder" => Kind::Embedding,
        "reranker" => Kind::Reranker,
        "evaluator" => Kind::Evaluator,
        _ => return None,
    })
}

fn adk_kind(look: &Look) -> Option<Kind> {
    let is_adk = look.scope == "gcp.vertex.agent"
        || look.attributes.str("gen_ai.system") == Some("gcp.vertex.agent")
        || look.attributes.has_prefix("gcp.vertex.agent.");
    if !is_adk {
        return None;
    }
    let name = look.span.name.as_str();
    Some(match name.split([' ', '[']).next()? {
        "invocation" | "invoke_workflow" => Kind::Workflow,
        "invoke_agent" | "agent_run" => Kind::Agent,
        "call_llm" | "generate_content" => Kind::Llm,
        "execute_tool" => Kind::Tool,
        "invoke_node" => Kind::Task,
        _ => return None,
    })
}

fn tool_kind(look: &Look) -> Option<Kind> {
    look.attributes
        .first_str(&["gen_ai.tool.name", "gen_ai.tool.call.id"])
        .map(|_| Kind::Tool)
}

fn model_kind(look: &Look) -> Option<Kind> {
    look.attributes
        .first_str(&[
            "gen_ai.request.model",
            "gen_ai.response.model",
            "llm.model_name",
            "llm.request.model",
        ])
        .map(|_| Kind::Llm)
}

/// Logfire writes the agents SDK's own fields, by their names there; of model calls it writes OpenTelemetry's too.
fn logfire_agents_kind(look: &Look) -> Option<Kind> {
    if look.scope != "logfire.openai_agents" {
        return None;
    }
    let has = |key: &str| look.attributes.has(key);
    if has("handoffs") && has("name") {
        Some(Kind::Agent)
    } else if has("from_agent") || look.span.name.starts_with("Function: ") {
        Some(Kind::Tool)
    } else if has("agent_trace_id") {
        Some(Kind::Workflow)
    } else if has("triggered") {
        Some(Kind::Guardrail)
    } else {
        None
    }
}

/// Haystack's own tracer knows components, not what they are; their classes' names say it.
fn haystack_kind(look: &Look) -> Option<Kind> {
    let Some(class) = look.attributes.str("haystack.component.type") else {
        return (look.span.name == "haystack.pipeline.run").then_some(Kind::Workflow);
    };
    Some(match class {
        "Agent" => Kind::Agent,
        _ if class.ends_with("Generator") => Kind::Llm,
        _ if class.ends_with("Retriever") => Kind::Retriever,
        _ if class.ends_with("Embedder") => Kind::Embedding,
        _ if class.ends_with("Ranker") => Kind::Reranker,
        _ => Kind::Task,
    })
}

fn logfire_kind(look: &Look) -> Option<Kind> {
    (look.attributes.str("logfire.span_type") == Some("log")).then_some(Kind::Log)
}

/// Hand-written instrumentation names its span `agent <Name>` or `invoke_agent <Name>` and nothing else.
fn named_agent_kind(look: &Look) -> Option<Kind> {
    fields::agent_in_name(&look.span.name).map(|_| Kind::Agent)
}
