//! What a span is, by the first convention that says so.

use serde_json::Value;

use super::{Look, fields, mesh, parent_id};
use crate::model::Kind;

/// One convention's way to say what a span is.
pub(super) struct Rule {
    /// `convention:what`, shown beside every span that the rule decided.
    pub(super) name: &'static str,
    pub(super) kind: fn(&Look) -> Option<Kind>,
}

/// First match wins. The order is that of specificity: a vendor's own type before a shared convention, a named kind before a guess.
pub(super) const RULES: &[Rule] = &[
    Rule {
        name: "mesh:entry",
        kind: mesh::kind,
    },
    Rule {
        name: "langfuse:observation.type",
        kind: langfuse_kind,
    },
    Rule {
        name: "lmnr:span.type",
        kind: lmnr_kind,
    },
    Rule {
        name: "openinference:span.kind",
        kind: openinference_kind,
    },
    Rule {
        name: "gen_ai:operation.name",
        kind: operation_kind,
    },
    Rule {
        name: "mcp:method.name",
        kind: mcp_kind,
    },
    Rule {
        name: "traceloop:span.kind",
        kind: traceloop_kind,
    },
    Rule {
        name: "vercel:operationId",
        kind: vercel_kind,
    },
    Rule {
        name: "genkit:subtype",
        kind: genkit_kind,
    },
    Rule {
        name: "adk:span.name",
        kind: adk_kind,
    },
    Rule {
        name: "gen_ai:tool",
        kind: tool_kind,
    },
    Rule {
        name: "gen_ai:model",
        kind: model_kind,
    },
    Rule {
        name: "logfire:span_type",
        kind: logfire_kind,
    },
    Rule {
        name: "name:agent",
        kind: named_agent_kind,
    },
];

fn langfuse_kind(look: &Look) -> Option<Kind> {
    let kind = look.attributes.str("langfuse.observation.type")?;
    Some(match kind.to_ascii_lowercase().as_str() {
        "generation" => Kind::Llm,
        "agent" => Kind::Agent,
        "tool" => Kind::Tool,
        "chain" => Kind::Task,
        "retriever" => Kind::Retriever,
        "embedding" => Kind::Embedding,
        "evaluator" => Kind::Evaluator,
        "guardrail" => Kind::Guardrail,
        "event" => Kind::Log,
        // "span" says nothing: a convention beside it may.
        _ => return None,
    })
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
        "CHAIN" => Kind::Task,
        "RETRIEVER" => Kind::Retriever,
        "RERANKER" => Kind::Reranker,
        "TOOL" => Kind::Tool,
        // openai-agents' trace is an AGENT without a name, above the agents: the workflow.
        "AGENT" if is_nameless_root(look) => Kind::Workflow,
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
            if is_swarm_or_graph(look)
                || look.attributes.str("traceloop.span.kind") == Some("workflow")
            {
                Kind::Workflow
            } else {
                Kind::Agent
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
    Some(match look.attributes.str("genkit:metadata:subtype")? {
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

fn logfire_kind(look: &Look) -> Option<Kind> {
    (look.attributes.str("logfire.span_type") == Some("log")).then_some(Kind::Log)
}

/// Hand-written instrumentation names its span `agent <Name>` or `invoke_agent <Name>` and nothing else.
fn named_agent_kind(look: &Look) -> Option<Kind> {
    fields::agent_in_name(&look.span.name).map(|_| Kind::Agent)
}
