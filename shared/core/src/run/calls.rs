//! Calls to models and tools, each once, however many spans tell of it.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use serde_json::Value;

use super::{Run, Step};
use crate::fold::{Said, ToolFacts};
use crate::model::{Kind, ToolKind, Usage};
use crate::pricing::{Cost, Prices};

/// Model calls around a model call that are asked for what it lacks.
const MAX_WRAPPERS: usize = 8;

/// One call to a model, counted once: the innermost of spans that wrap one another.
#[derive(Clone, Debug)]
pub(crate) struct LlmCall<'a> {
    pub(crate) step: usize,
    pub(crate) usage: Usage,
    pub(crate) request_model: Option<&'a str>,
    pub(crate) response_model: Option<&'a str>,
    pub(crate) provider: Option<&'a str>,
    pub(crate) said: &'a Said,
}

impl<'a> LlmCall<'a> {
    /// What the call cost, if its model (as answered, else as asked for) has a price and its tokens are told.
    pub(crate) fn cost(&self, prices: &Prices) -> Option<Cost> {
        prices.cost_of_call(
            self.request_model,
            self.response_model,
            self.provider,
            &self.usage,
        )
    }

    /// Takes what it lacks from another telling of the same call.
    fn learn(&mut self, other: &'a Step<'a>) {
        if self.usage.is_zero() {
            self.usage = other.facts.usage.unwrap_or_default();
        }
        self.request_model = self.request_model.or(other.facts.request_model.as_deref());
        self.response_model = self
            .response_model
            .or(other.facts.response_model.as_deref());
        self.provider = self.provider.or(other.facts.provider.as_deref());
        if self.said.is_empty() {
            self.said = &other.said;
        }
    }
}

/// One tool call: what the model asked for and what was done, joined.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) name: String,
    pub(crate) id: Option<String>,
    pub(crate) arguments: Value,
    pub(crate) kind: ToolKind,
    /// The agent that called.
    pub(crate) by: Option<String>,
    /// The step that asked or, when nobody is known to have asked, that ran.
    pub(crate) step: usize,
    /// The model call that asked for it, if one is known.
    pub(crate) asked_by: Option<usize>,
    /// The step that ran it, if one is known.
    pub(crate) ran: Option<usize>,
    /// What the tool said: told by its step, else by the model call that was given it.
    pub(crate) result: Option<Value>,
    pub(crate) at: (u64, usize),
}

impl Run<'_> {
    /// Every model call once, by start. Wrappers (LlamaIndex, LiteLLM within ADK, two instrumentations at once) lend their inner call
    /// what it lacks. An agent or a tool in between separates two calls: Google ADK 1 runs the next agent within a call.
    pub(crate) fn llm_calls(&self) -> Vec<LlmCall<'_>> {
        let is_call: Vec<bool> = self.steps.iter().map(is_model_call).collect();
        let mut llm_above: Vec<Option<usize>> = vec![None; self.forest.parent.len()];
        let mut inner: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for index in &self.order {
            let Some(above) = self.forest.parent[*index] else {
                continue;
            };
            llm_above[*index] = match self.steps.get(above).map(|step| step.facts.kind) {
                Some(Kind::Llm) => Some(above),
                Some(Kind::Agent | Kind::Tool | Kind::Workflow) => None,
                _ => llm_above[above],
            };
            if is_call[*index]
                && let Some(wrapper) = llm_above[*index]
            {
                inner.entry(wrapper).or_default().push(*index);
            }
        }
        let mut told_again: HashMap<usize, Vec<usize>> = HashMap::new();
        for (index, twin) in self.twin_of.iter().enumerate() {
            if let Some(twin) = twin {
                told_again.entry(*twin).or_default().push(index);
            }
        }
        let mut calls = Vec::new();
        for index in self.by_start() {
            if !is_call[index] || inner.contains_key(&index) || self.twin_of[index].is_some() {
                continue;
            }
            let Some(step) = self.steps.get(index) else {
                continue;
            };
            let mut call = LlmCall {
                step: index,
                usage: step.facts.usage.unwrap_or_default(),
                request_model: step.facts.request_model.as_deref(),
                response_model: step.facts.response_model.as_deref(),
                provider: step.facts.provider.as_deref(),
                said: &step.said,
            };
            for twin in told_again.get(&index).into_iter().flatten() {
                if let Some(twin) = self.steps.get(*twin) {
                    call.learn(twin);
                }
            }
            let mut above = llm_above[index];
            for _ in 0..MAX_WRAPPERS {
                let Some(wrapper) = above else { break };
                let is_only = inner.get(&wrapper).is_some_and(|inner| inner.len() == 1);
                if let (true, Some(wrapping)) = (is_only, self.steps.get(wrapper)) {
                    call.learn(wrapping);
                }
                above = llm_above[wrapper];
            }
            calls.push(call);
        }
        calls
    }

    /// Every tool call once, in the order in which they were asked for.
    pub(crate) fn tool_calls(&self, llm_calls: &[LlmCall]) -> Vec<Call> {
        let mut asked: Vec<Call> = Vec::new();
        let mut known: HashSet<(&str, &str, &str)> = HashSet::new();
        for call in llm_calls {
            let Some(step) = self.steps.get(call.step) else {
                continue;
            };
            for (position, wanted) in call.said.calls.iter().enumerate() {
                // Told twice when two instrumentations watch one client. An id alone is no proof: some clients count from 0 in every call.
                if let Some(id) = &wanted.id
                    && !known.insert((id, &wanted.name, &wanted.arguments))
                {
                    continue;
                }
                asked.push(Call {
                    name: wanted.name.clone(),
                    id: wanted.id.clone(),
                    arguments: serde_json::from_str(&wanted.arguments).unwrap_or(Value::Null),
                    kind: kind_of_name(&wanted.name),
                    by: self.agent_of[call.step].clone(),
                    step: call.step,
                    asked_by: Some(call.step),
                    ran: None,
                    result: None,
                    // ADK 1's calls last as long as all they trigger: their start orders them better than their end.
                    at: (step.facts.start_ns, position),
                });
            }
        }
        let done = self.tool_steps();
        let matched = match_calls(&asked, &done);
        let mut calls = asked;
        for (tool, at) in done.into_iter().zip(matched) {
            match at.and_then(|at| calls.get_mut(at)) {
                Some(call) => {
                    if is_empty(&call.arguments)
                        && let Some(arguments) = tool.arguments
                    {
                        call.arguments = arguments;
                    }
                    call.kind = call.kind.max(tool.kind);
                    call.ran = Some(tool.step);
                    call.result = tool.result;
                    call.id = call.id.take().or(tool.call_id);
                }
                None => calls.push(Call {
                    name: tool.name,
                    id: tool.call_id,
                    arguments: tool
                        .arguments
                        .unwrap_or_else(|| Value::Object(serde_json::Map::new())),
                    kind: tool.kind,
                    by: tool.by,
                    step: tool.step,
                    asked_by: None,
                    ran: Some(tool.step),
                    result: tool.result,
                    at: (tool.start_ns, 0),
                }),
            }
        }
        let mut given: HashMap<&str, VecDeque<&str>> = HashMap::new();
        for call in llm_calls {
            for result in &call.said.results {
                if let Some(id) = &result.id {
                    given.entry(id).or_default().push_back(&result.text);
                }
            }
        }
        for call in &mut calls {
            // A client that counts from 0 in every answer uses an id again: the first result is that of the first call.
            let said = call.id.as_deref().and_then(|id| {
                let told = given.get_mut(id)?;
                if told.len() > 1 {
                    told.pop_front()
                } else {
                    told.front().copied()
                }
            });
            if call.result.is_none() {
                call.result = said.map(|text| Value::String(text.to_owned()));
            }
        }
        calls.sort_by_key(|call| call.at);
        calls
    }

    /// Name and step of every tool that ran, each once.
    pub(crate) fn tools_that_ran(&self) -> Vec<(String, usize)> {
        let done = self.tool_steps().into_iter();
        done.map(|tool| (tool.name, tool.step)).collect()
    }

    /// The tools that ran, each once: of spans of one call that nest (MCP's client, server and handler) the outermost, with what the inner
    /// ones know better.
    fn tool_steps(&self) -> Vec<Done> {
        let mut done: Vec<Done> = Vec::new();
        let mut position_of: HashMap<usize, usize> = HashMap::new();
        // The nearest tool above that is the same call: nothing that thinks (an agent, a model) stands between.
        let mut same_call_above: Vec<Option<usize>> = vec![None; self.forest.parent.len()];
        let mut runs_agent: Vec<bool> = vec![false; self.forest.parent.len()];
        for index in &self.order {
            let Some(step) = self.steps.get(*index) else {
                continue;
            };
            if let Some(above) = self.forest.parent[*index] {
                same_call_above[*index] = match self.steps.get(above).map(|step| step.facts.kind) {
                    Some(Kind::Tool) => Some(above),
                    Some(Kind::Agent | Kind::Llm | Kind::Workflow) => None,
                    _ => same_call_above[above],
                };
            }
            if step.facts.kind == Kind::Agent
                && let Some(tool) = self.tool_above[*index]
            {
                runs_agent[tool] = true;
            }
            let Some(tool) = step
                .facts
                .tool
                .as_ref()
                .filter(|_| step.facts.kind == Kind::Tool && !step.facts.made_up)
            else {
                continue;
            };
            let twin = self.twin_of[*index].and_then(|twin| position_of.get(&twin).copied());
            if twin.is_none() && self.twin_of[*index].is_some() {
                // The one that is counted comes later.
                continue;
            }
            let outer = same_call_above[*index]
                .and_then(|above| position_of.get(&above).copied())
                .filter(|at| done.get(*at).is_some_and(|outer| outer.name == tool.name))
                .or(twin);
            if let Some(at) = outer {
                position_of.insert(*index, at);
                if let Some(outer) = done.get_mut(at) {
                    outer.call_id = outer.call_id.take().or_else(|| tool.call_id.clone());
                    outer.arguments = outer.arguments.take().or_else(|| parsed(tool));
                    outer.result = outer.result.take().or_else(|| result_of(tool));
                }
                continue;
            }
            position_of.insert(*index, done.len());
            done.push(Done {
                name: tool.name.clone(),
                call_id: tool.call_id.clone(),
                arguments: parsed(tool),
                result: result_of(tool),
                kind: tool.kind,
                target: tool.target.clone(),
                by: self.agent_of[*index].clone(),
                step: *index,
                start_ns: step.facts.start_ns,
            });
        }
        for tool in &mut done {
            if runs_agent[tool.step] && tool.kind == ToolKind::Tool {
                tool.kind = ToolKind::AgentTool;
            }
        }
        done.sort_by_key(|tool| tool.start_ns);
        done
    }
}

struct Done {
    name: String,
    call_id: Option<String>,
    arguments: Option<Value>,
    result: Option<Value>,
    kind: ToolKind,
    target: Option<String>,
    by: Option<String>,
    step: usize,
    start_ns: u64,
}

fn parsed(tool: &ToolFacts) -> Option<Value> {
    tool.arguments
        .as_ref()
        .and_then(|text| serde_json::from_str(text).ok())
}

fn result_of(tool: &ToolFacts) -> Option<Value> {
    serde_json::from_str(tool.result.as_ref()?).ok()
}

fn is_empty(arguments: &Value) -> bool {
    match arguments {
        Value::Null => true,
        Value::Object(object) => object.is_empty(),
        _ => false,
    }
}

/// For every tool that ran the call that asked for it, if one is known: by id, else by name and arguments, else by name, else (hand-offs)
/// by target; the earlier call first.
fn match_calls(asked: &[Call], done: &[Done]) -> Vec<Option<usize>> {
    /// Calls of one id or name that are looked at per tool: beyond it nobody could tell them apart either.
    const CANDIDATES: usize = 64;
    let mut by_id: HashMap<&str, VecDeque<usize>> = HashMap::new();
    let mut by_name: HashMap<&str, VecDeque<usize>> = HashMap::new();
    let mut handoffs: VecDeque<usize> = VecDeque::new();
    let mut is_done = vec![false; asked.len()];
    for (at, asked) in asked.iter().enumerate() {
        if let Some(id) = &asked.id {
            by_id.entry(id).or_default().push_back(at);
        }
        by_name.entry(&asked.name).or_default().push_back(at);
        if asked.kind == ToolKind::Handoff {
            handoffs.push_back(at);
        }
    }
    let mut matched: Vec<Option<usize>> = vec![None; done.len()];
    let passes: [fn(&Call, &Done) -> bool; 6] = [
        |asked, tool| same_id(asked, tool) && asked.name == tool.name,
        same_id,
        same_name_and_arguments,
        same_name,
        same_target,
        // Nobody asked by the tool's id, nothing ran by the call's: two sides that count apart.
        same_but_for_the_id,
    ];
    for (number, pass) in passes.into_iter().enumerate() {
        for (position, tool) in done.iter().enumerate() {
            if matched.get(position).copied().flatten().is_some() {
                continue;
            }
            let candidates = match number {
                0 | 1 => tool
                    .call_id
                    .as_ref()
                    .and_then(|id| by_id.get_mut(id.as_str())),
                4 => Some(&mut handoffs),
                _ => by_name.get_mut(tool.name.as_str()),
            };
            let Some(candidates) = candidates else {
                continue;
            };
            while candidates
                .front()
                .is_some_and(|at| is_done.get(*at) == Some(&true))
            {
                candidates.pop_front();
            }
            let found = candidates.iter().take(CANDIDATES).copied().find(|at| {
                is_done.get(*at) == Some(&false)
                    && asked.get(*at).is_some_and(|asked| pass(asked, tool))
            });
            if let Some(at) = found
                && let (Some(done), Some(slot)) = (is_done.get_mut(at), matched.get_mut(position))
            {
                *done = true;
                *slot = Some(at);
            }
        }
    }
    matched
}

fn same_id(asked: &Call, tool: &Done) -> bool {
    asked.id.is_some() && asked.id == tool.call_id
}

fn same_name_and_arguments(asked: &Call, tool: &Done) -> bool {
    same_name(asked, tool)
        && tool.arguments.as_ref().is_some_and(|arguments| {
            *arguments == asked.arguments || holds_bare(arguments, &asked.arguments)
        })
}

/// LangChain's `{"input": "x"}` for the call `{"query": "x"}`.
fn holds_bare(arguments: &Value, asked: &Value) -> bool {
    let Some(bare) = arguments.get("input") else {
        return false;
    };
    let bare_text = bare.as_str().unwrap_or_default();
    asked.as_object().is_some_and(|object| {
        object.len() == 1
            && object.values().all(|value| {
                value == bare || (!value.is_string() && value.to_string().as_str() == bare_text)
            })
    })
}

/// Models without ids of their own are given some, by the framework and by what writes its messages (Gemini).
fn same_but_for_the_id(asked: &Call, tool: &Done) -> bool {
    asked.name == tool.name
        && tool
            .arguments
            .as_ref()
            .is_none_or(|arguments| *arguments == asked.arguments || is_empty(arguments))
}

fn same_name(asked: &Call, tool: &Done) -> bool {
    asked.name == tool.name
        && (asked.id.is_none() || tool.call_id.is_none() || asked.id == tool.call_id)
}

/// A hand-off's span may not bear the name of the call that asked for it.
fn same_target(asked: &Call, tool: &Done) -> bool {
    if tool.kind != ToolKind::Handoff || asked.kind != ToolKind::Handoff {
        return false;
    }
    match &tool.target {
        Some(target) => {
            let plain = plain_name(target);
            plain_name(&asked.name).ends_with(&plain)
                || plain_name(&asked.arguments.to_string()).contains(&plain)
        }
        None => true,
    }
}

fn plain_name(name: &str) -> String {
    name.chars()
        .map(|c| {
            if c.is_alphanumeric() {
                c.to_ascii_lowercase()
            } else {
                '_'
            }
        })
        .collect()
}

pub(super) fn kind_of_name(name: &str) -> ToolKind {
    let lower = name.to_ascii_lowercase();
    let hands_over = lower == "handoff"
        || lower.starts_with("transfer_to_")
        || lower.starts_with("transfer_back_to_")
        || lower.starts_with("handoff_to_");
    if hands_over {
        ToolKind::Handoff
    } else {
        ToolKind::Tool
    }
}

fn is_model_call(step: &Step) -> bool {
    step.facts.kind == Kind::Llm && !step.facts.made_up
}
