//! A trace in a few numbers.

use serde::Serialize;

use crate::event::{duration_ms, rfc3339_ms, rfc3339_ns};
use crate::fold::State;
use crate::model::{Kind, Usage};
use crate::pricing::{Cost, Costs, Prices};
use crate::run::Run;
use crate::settle::Status;
use crate::verbosity::{PREVIEW_CHARACTERS, Verbosity, preview_text};

/// Errors listed; `errors_count` counts all.
const MAX_ERRORS: usize = 100;

/// The summary of a trace, with the names of seed 001 where it has any.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Summary {
    pub trace_id: String,
    pub status: Status,
    /// RFC 3339, UTC: when the first step began.
    #[cfg_attr(feature = "openapi", schema(format = DateTime))]
    pub started_at: Option<String>,
    /// When the last step ended; absent while the run goes on.
    #[cfg_attr(feature = "openapi", schema(format = DateTime))]
    pub ended_at: Option<String>,
    /// From the first start to the last end known so far.
    pub duration_ms: Option<f64>,
    /// In the order in which they first appear.
    pub agents: Vec<String>,
    /// As asked for, else as answered; without the provider prefix of LiteLLM.
    pub models: Vec<String>,
    /// As the providers answered.
    pub response_models: Vec<String>,
    pub providers: Vec<String>,
    pub services: Vec<String>,
    /// Over the calls to models, each counted once; what came from a cache is included.
    pub input_tokens: u64,
    /// Reasoning is included.
    pub output_tokens: u64,
    pub total_tokens: u64,
    pub cached_tokens: u64,
    pub cache_write_tokens: u64,
    pub reasoning_tokens: u64,
    /// US dollars, over the calls whose cost is known; absent when none is.
    pub cost_usd: Option<f64>,
    pub total_llm_calls: usize,
    /// Calls that `cost_usd` lacks: their model has no price, or nobody told their tokens. Calls that run, or failed before they cost anything, are not among them.
    pub unpriced_llm_calls: usize,
    pub total_tool_calls: usize,
    pub total_retrievals: usize,
    /// Over the retrievals, each counted once.
    pub total_chunks_retrieved: u64,
    pub errors_count: usize,
    pub errors: Vec<ErrorLine>,
    pub total_events: u64,
    pub total_spans: usize,
    /// Distinct names of the agents, tools, tasks and other steps that ran.
    pub nodes_executed: usize,
    pub open_spans: usize,
    pub sessions: Vec<String>,
    pub users: Vec<String>,
    /// The last event that is counted here.
    pub as_of_seq: u64,
    /// More came than is kept of one trace; the numbers are those of what is kept.
    pub truncated: bool,
    /// The least that was recorded of any event, as the producer or the operator asked; `debug`: everything of all.
    pub trace_level: Verbosity,
    /// Whether texts of what went in and out were recorded: all of them at `debug`, each to its first 200 characters at `detailed`.
    pub content_recorded: bool,
}

impl Summary {
    /// As it is told at a level: below `detailed` errors are cut to 200 characters, at `minimal` only their types are told.
    pub fn at(mut self, level: Verbosity) -> Self {
        for error in &mut self.errors {
            error.message = match level {
                Verbosity::Minimal => String::new(),
                Verbosity::Standard | Verbosity::Detailed => {
                    preview_text(&error.message, PREVIEW_CHARACTERS)
                }
                Verbosity::Debug => continue,
            };
        }
        self
    }
}

/// One error, where it arose.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ErrorLine {
    pub span_id: String,
    pub agent: Option<String>,
    pub name: String,
    #[cfg_attr(feature = "openapi", schema(value_type = crate::model::Kind))]
    pub kind: &'static str,
    #[serde(rename = "type")]
    pub error_type: String,
    pub message: String,
}

/// Sums a trace up. `status` is what the settlement decided, or [`crate::settle::standing`] while it has not.
pub fn summary(state: &State, trace_id: &str, status: Status, prices: &Prices) -> Summary {
    let run = Run::of(state);
    let calls = run.llm_calls();
    let mut usage = Usage::default();
    let mut costs = Costs::default();
    let (mut models, mut response_models, mut providers) = (Vec::new(), Vec::new(), Vec::new());
    for call in &calls {
        usage.add(&call.usage);
        let is_done = run
            .steps
            .get(call.step)
            .is_some_and(|step| !step.is_open() && step.facts.failure.is_none());
        if is_done || !call.usage.is_zero() {
            costs.add(call.cost(prices));
        }
        let model = call.request_model.or(call.response_model).map(plain_model);
        add(&mut models, model);
        add(&mut response_models, call.response_model.map(plain_model));
        add(&mut providers, call.provider);
    }
    let causes = run.causes();
    let errors = causes
        .iter()
        .take(MAX_ERRORS)
        .filter_map(|cause| {
            let step = run.steps.get(cause.step)?;
            Some(ErrorLine {
                span_id: step.id.clone(),
                agent: run.agent_of.get(cause.step).cloned().flatten(),
                name: step
                    .facts
                    .tool
                    .as_ref()
                    .map_or_else(|| step.facts.name.clone(), |tool| tool.name.clone()),
                kind: step.facts.kind.as_str(),
                error_type: cause.failure.kind.clone(),
                message: cause.failure.message.clone(),
            })
        })
        .collect();

    let (mut sessions, mut users, mut services) = (Vec::new(), Vec::new(), Vec::new());
    let mut nodes: Vec<&str> = Vec::new();
    let (mut started, mut ended): (Option<u64>, Option<u64>) = (None, None);
    let mut open_spans = 0;
    let (mut total_spans, mut total_retrievals) = (0, 0);
    let mut total_chunks_retrieved = 0_u64;
    for index in run.by_start() {
        let Some(step) = run.steps.get(index) else {
            continue;
        };
        let facts = &step.facts;
        facts
            .sessions
            .iter()
            .for_each(|session| add(&mut sessions, Some(session)));
        add(&mut users, facts.user.as_deref());
        add(&mut services, facts.service.as_deref());
        if facts.start_ns != 0 {
            started = Some(started.map_or(facts.start_ns, |first| first.min(facts.start_ns)));
        }
        ended = ended.max(facts.end_ns);
        open_spans += usize::from(step.is_open());
        total_spans += usize::from(!step.estimated && !step.native);
        // A retriever within a retriever is the same retrieval, told by its library and by its store.
        let above = run
            .forest
            .parent
            .get(index)
            .copied()
            .flatten()
            .and_then(|above| run.steps.get(above));
        let is_within = above.is_some_and(|above| above.facts.kind == Kind::Retriever);
        if facts.kind == Kind::Retriever {
            total_retrievals += usize::from(!is_within);
            // The outer one may not tell what the inner one found.
            let told_above = above.is_some_and(|above| above.facts.chunks.is_some());
            if !(is_within && told_above) {
                total_chunks_retrieved =
                    total_chunks_retrieved.saturating_add(facts.chunks.unwrap_or(0));
            }
        }
        if !matches!(facts.kind, Kind::Span | Kind::Log | Kind::Mcp) {
            nodes.push(
                facts
                    .agent
                    .as_deref()
                    .filter(|_| facts.kind == Kind::Agent)
                    .unwrap_or(&facts.name),
            );
        }
    }
    for log in state.logs.values() {
        log.sessions
            .iter()
            .for_each(|session| add(&mut sessions, Some(session)));
        add(&mut users, log.user.as_deref());
    }
    nodes.sort_unstable();
    nodes.dedup();
    let mut agents = run.agents();
    agents.truncate(MAX_NAMES);
    let is_over = !matches!(status, Status::Running | Status::Stalled);
    Summary {
        trace_id: trace_id.to_owned(),
        status,
        started_at: started
            .map(rfc3339_ns)
            .or_else(|| (state.events > 0).then(|| rfc3339_ms(state.first_arrival_unix_ms))),
        ended_at: ended.filter(|_| is_over).map(rfc3339_ns),
        duration_ms: started
            .zip(ended)
            .map(|(start, end)| duration_ms(start, end)),
        agents,
        models,
        response_models,
        providers,
        services,
        input_tokens: usage.input,
        output_tokens: usage.output,
        total_tokens: usage.total(),
        cached_tokens: usage.cache_read,
        cache_write_tokens: usage.cache_write,
        reasoning_tokens: usage.reasoning,
        cost_usd: costs.known.map(Cost::usd),
        total_llm_calls: calls.len(),
        unpriced_llm_calls: costs.unpriced,
        total_tool_calls: run.tool_calls(&calls).len(),
        total_retrievals,
        total_chunks_retrieved,
        errors_count: causes.len(),
        errors,
        total_events: state.events,
        total_spans,
        nodes_executed: nodes.len(),
        open_spans,
        sessions,
        users,
        as_of_seq: state.last_seq,
        truncated: state.is_truncated(),
        trace_level: state.trace_level(),
        content_recorded: state.trace_level() >= Verbosity::Detailed,
    }
}

/// Names listed of one sort; a run that has more is not told by its names.
const MAX_NAMES: usize = 1_000;

fn add(list: &mut Vec<String>, item: Option<impl AsRef<str>>) {
    if let Some(item) = item
        && list.len() < MAX_NAMES
        && !list.iter().any(|known| known == item.as_ref())
    {
        list.push(item.as_ref().to_owned());
    }
}

/// LiteLLM names models `provider/model`. Names of model hubs (`meta-llama/..`) keep their owner.
pub(crate) fn plain_model(model: &str) -> &str {
    provider_and_model(model).1
}

/// The provider that is called (of `openrouter/anthropic/..` the first), if the name tells it, and the model's own name.
pub(crate) fn provider_and_model(model: &str) -> (Option<&str>, &str) {
    const PROVIDERS: [&str; 20] = [
        "openai",
        "azure",
        "azure_ai",
        "anthropic",
        "gemini",
        "vertex_ai",
        "bedrock",
        "groq",
        "mistral",
        "cohere",
        "deepseek",
        "xai",
        "ollama",
        "ollama_chat",
        "together_ai",
        "fireworks_ai",
        "openrouter",
        "perplexity",
        "models",
        "litellm_proxy",
    ];
    let (mut provider, mut plain) = (None, model);
    while let Some((prefix, rest)) = plain.split_once('/') {
        if !PROVIDERS.contains(&prefix) || rest.is_empty() {
            break;
        }
        provider = provider.or(Some(prefix));
        plain = rest;
    }
    (provider, plain)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::invocations::invocations;
    use crate::observed::{Context, Observation, Recorded, What};
    use crate::settle;

    /// The state after native events, one per line.
    fn told(lines: &str) -> State {
        let mut state = State::default();
        for (n, line) in lines
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty())
            .enumerate()
        {
            state.apply(&Recorded {
                seq: n as u64 + 1,
                arrived_unix_ms: 1_800_000_000_000 + n as u64 * 100,
                observation: Observation {
                    context: Arc::new(Context::default()),
                    what: What::Native(line.into()),
                },
            });
        }
        state
    }

    #[test]
    fn a_trace_of_seed_001_is_summed_up() {
        let state = told(
            r#"
            {"event_type":"workflow_started","agent_id":"helper","session_id":"s-1","user_id":"u-1","inputs":{"query":"How warm is it?"}}
            {"event_type":"node_started","component_id":"n1","component_name":"Begin"}
            {"event_type":"node_finished","component_id":"n1","component_name":"Begin","elapsed_time":0.1}
            {"event_type":"retrieval_started","retrieval_id":"r1","query":"temperature"}
            {"event_type":"retrieval_completed","retrieval_id":"r1","chunks":[{"id":1}]}
            {"event_type":"llm_call_started","call_id":"c1","model_name":"m-1","prompt":"How warm is it?"}
            {"event_type":"llm_call_completed","call_id":"c1","prompt_tokens":10,"completion_tokens":4}
            {"event_type":"tool_call_started","call_id":"t1","tool_name":"read_sensor","arguments":{"id":"th-1"}}
            {"event_type":"tool_call_completed","call_id":"t1","result":"21","error":null}
            {"event_type":"llm_call_started","model_name":"m-1"}
            {"event_type":"llm_call_completed","model_name":"m-1","prompt_tokens":20,"completion_tokens":6}
            {"event_type":"message_generated","content":"It is 21 degrees."}
            {"event_type":"workflow_completed","agent_id":"helper","outputs":{"answer":"It is 21 degrees."}}
            "#,
        );
        let status = settle::standing(&state);
        let summary = summary(&state, "t", status, &Prices::builtin());
        assert_eq!(summary.status, settle::Status::Completed);
        assert_eq!(summary.agents, ["helper"]);
        assert_eq!(summary.models, ["m-1"]);
        assert_eq!(
            (
                summary.input_tokens,
                summary.output_tokens,
                summary.total_tokens
            ),
            (30, 10, 40)
        );
        assert_eq!(
            (
                summary.total_llm_calls,
                summary.total_tool_calls,
                summary.total_retrievals
            ),
            (2, 1, 1)
        );
        assert_eq!((summary.errors_count, summary.total_events), (0, 13));
        assert_eq!(
            (summary.sessions, summary.users),
            (vec!["s-1".to_owned()], vec!["u-1".to_owned()])
        );
        assert_eq!(summary.duration_ms, Some(1_200.0));
        let turns = invocations(&state);
        assert_eq!(turns.len(), 1);
        assert_eq!(turns[0].user_text, "How warm is it?");
        assert_eq!(turns[0].agent_text, "It is 21 degrees.");
        assert_eq!(turns[0].tool_calls[0].name, "read_sensor");
        assert_eq!(
            turns[0].tool_calls[0].args,
            serde_json::json!({"id": "th-1"})
        );
    }

    #[test]
    fn a_failure_that_is_told_twice_is_one_error() {
        let state = told(
            r#"
            {"event_type":"workflow_started","agent_id":"helper"}
            {"event_type":"node_started","component_name":"Search"}
            {"event_type":"node_failed","component_name":"Search","error":"the index is gone"}
            {"event_type":"workflow_failed","agent_id":"helper","error":"the index is gone"}
            "#,
        );
        let summary = summary(&state, "t", settle::standing(&state), &Prices::builtin());
        assert_eq!(summary.status, settle::Status::Failed);
        assert_eq!(summary.errors_count, 1);
        assert_eq!(summary.errors[0].name, "Search");
    }

    #[test]
    fn agents_of_the_mesh_are_listed_as_they_were_called() {
        let state = told(
            r#"
            {"event_type": "agent_called", "agent_id": "dependent-service", "timestamp": "2025-01-20T10:30:45Z"}
            {"event_type": "agent_called", "agent_id": "fastmcp-service", "timestamp": "2025-01-20T10:30:47Z"}
            {"event_type": "agent_called", "agent_id": "system-agent", "timestamp": "2025-01-20T10:30:48Z", "details": {"success": false, "error_message": "out of time"}}
            "#,
        );
        let summary = summary(&state, "t", settle::standing(&state), &Prices::builtin());
        assert_eq!(
            summary.agents,
            ["dependent-service", "fastmcp-service", "system-agent"]
        );
        assert_eq!(summary.errors_count, 1);
        assert_eq!(summary.errors[0].message, "out of time");
        assert_eq!(summary.duration_ms, Some(3_000.0));
    }

    #[test]
    fn native_spans_form_a_tree() {
        let state = told(
            r#"
            {"event_type":"task_started","agent_id":"a","span_id":"1"}
            {"event_type":"tool_call_started","agent_id":"a","span_id":"2","parent_span_id":"1","tool_name":"t"}
            {"event_type":"task_progress","agent_id":"a","span_id":"1"}
            {"event_type":"tool_call_completed","span_id":"2","result":{"n":1}}
            {"event_type":"task_completed","agent_id":"a","span_id":"1"}
            "#,
        );
        let rows = crate::tree::rows(&state, &Prices::builtin());
        let seen: Vec<(&str, usize, &str, &str)> = rows
            .iter()
            .map(|row| (row.span_id.as_str(), row.depth, row.kind, row.status))
            .collect();
        assert_eq!(seen, [("1", 0, "agent", "ok"), ("2", 1, "tool", "ok")]);
        assert_eq!(settle::standing(&state), settle::Status::Completed);
    }

    #[test]
    fn names_lose_the_prefix_of_litellm_only() {
        assert_eq!(plain_model("openai/gpt-4o"), "gpt-4o");
        assert_eq!(plain_model("meta-llama/Llama-3"), "meta-llama/Llama-3");
        assert_eq!(plain_model("openrouter/anthropic/claude"), "claude");
    }
}
