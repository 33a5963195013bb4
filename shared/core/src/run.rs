//! A run, put together from its state: the tree, the model calls, the tool calls, the errors and how it went.
//!
//! Summary, invocations, tree and settlement are views of this. It is built when somebody asks and is linear in the number of spans.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use serde_json::Value;

use crate::fold::{NativeFacts, Said, SpanFacts, State, ToolFacts};
use crate::model::{Failure, Kind, ToolKind, Usage};
use crate::tree::{Forest, Leaf, arrange};

/// Model calls around a model call that are asked for what it lacks.
const MAX_WRAPPERS: usize = 8;
/// What a clock of whole milliseconds may be behind.
const COARSE_CLOCK_NS: u64 = 1_000_000;
/// Errors that one error is compared with, to tell an echo.
const MAX_ECHOES: usize = 64;

/// One step: a span, or what native events or orphaned log records let us know of one.
#[derive(Clone, Debug)]
pub(crate) struct Step<'a> {
    pub(crate) id: String,
    pub(crate) facts: Cow<'a, SpanFacts>,
    /// What was said in it, on its attributes or in log records.
    pub(crate) said: Cow<'a, Said>,
    /// It was never seen itself.
    pub(crate) estimated: bool,
    /// Told by native events.
    pub(crate) native: bool,
}

impl Step<'_> {
    pub(crate) fn is_open(&self) -> bool {
        self.facts.end_ns.is_none()
    }

    pub(crate) fn status(&self) -> &'static str {
        if self.facts.failure.is_some() {
            "error"
        } else if self.is_open() {
            "running"
        } else {
            "ok"
        }
    }

    fn end_or_start(&self) -> u64 {
        self.facts.end_ns.unwrap_or(self.facts.start_ns)
    }

    /// When it began, and for those of the same moment which came first.
    fn began(&self) -> (u64, u64) {
        (self.facts.start_ns, self.facts.seq)
    }

    /// Its producer reads a clock of whole milliseconds, as the JavaScript SDK does for the start of a span.
    fn has_coarse_clock(&self) -> bool {
        self.facts.start_ns.is_multiple_of(COARSE_CLOCK_NS)
    }
}

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
    pub(crate) at: (u64, usize),
}

/// One error, at the step where it arose.
#[derive(Clone, Debug)]
pub(crate) struct Cause {
    pub(crate) step: usize,
    pub(crate) failure: Failure,
}

pub(crate) struct Run<'a> {
    pub(crate) state: &'a State,
    pub(crate) steps: Vec<Step<'a>>,
    pub(crate) forest: Forest,
    /// Steps in depth-first order, without ghosts.
    order: Vec<usize>,
    /// The nearest tool above, through anything.
    pub(crate) tool_above: Vec<Option<usize>>,
    /// The nearest agent's name above or here.
    pub(crate) agent_of: Vec<Option<String>>,
    pub(crate) root_of: Vec<usize>,
}

impl<'a> Run<'a> {
    pub(crate) fn of(state: &'a State) -> Self {
        let steps = steps(state);
        let leaves: Vec<Leaf> = steps
            .iter()
            .map(|step| Leaf {
                id: &step.id,
                parent_id: step.facts.parent.as_deref(),
                start_ns: step.facts.start_ns,
                seq: step.facts.seq,
            })
            .collect();
        let forest = arrange(&leaves);
        let count = forest.parent.len();
        let mut tool_above = vec![None; count];
        let mut agent_of: Vec<Option<String>> = vec![None; count];
        let mut root_of: Vec<usize> = (0..count).collect();
        let mut order = Vec::with_capacity(steps.len());
        for (index, _) in forest.depth_first() {
            let step = steps.get(index);
            if step.is_some() {
                order.push(index);
            }
            let mut agent = step.and_then(|step| step.facts.agent.clone());
            if let Some(above) = forest.parent[index] {
                let above_is_tool = steps
                    .get(above)
                    .is_some_and(|step| step.facts.kind == Kind::Tool);
                tool_above[index] = if above_is_tool {
                    Some(above)
                } else {
                    tool_above[above]
                };
                root_of[index] = root_of[above];
                agent = agent.or_else(|| agent_of[above].clone());
            }
            agent_of[index] = agent;
        }
        Self {
            state,
            steps,
            forest,
            order,
            tool_above,
            agent_of,
            root_of,
        }
    }

    pub(crate) fn id(&self, index: usize) -> Option<String> {
        match self.steps.get(index) {
            Some(step) => Some(step.id.clone()),
            None => self.forest.ghosts.get(index - self.steps.len()).cloned(),
        }
    }

    /// A ghost began no later than its first child.
    pub(crate) fn ghost_start_ns(&self, index: usize) -> u64 {
        self.forest
            .children
            .get(index)
            .and_then(|children| children.first())
            .and_then(|child| self.steps.get(*child))
            .map_or(0, |step| step.facts.start_ns)
    }

    /// Steps by the time they began.
    pub(crate) fn by_start(&self) -> Vec<usize> {
        let mut order = self.order.clone();
        order.sort_by_key(|index| self.steps.get(*index).map(|step| step.facts.start_ns));
        order
    }

    /// The steps that began as a root: no parent was named.
    pub(crate) fn true_roots(&self) -> impl Iterator<Item = &Step<'a>> {
        self.steps
            .iter()
            .filter(|step| step.facts.parent.is_none() && !step.estimated && !step.native)
    }

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
        let mut calls = Vec::new();
        for index in self.by_start() {
            if !is_call[index] || inner.contains_key(&index) {
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
            let mut above = llm_above[index];
            for _ in 0..MAX_WRAPPERS {
                let Some(wrapper) = above else { break };
                let is_only = inner.get(&wrapper).is_some_and(|inner| inner.len() == 1);
                if let (true, Some(wrapping)) = (is_only, self.steps.get(wrapper)) {
                    if call.usage.is_zero() {
                        call.usage = wrapping.facts.usage.unwrap_or_default();
                    }
                    call.request_model = call
                        .request_model
                        .or(wrapping.facts.request_model.as_deref());
                    call.response_model = call
                        .response_model
                        .or(wrapping.facts.response_model.as_deref());
                    call.provider = call.provider.or(wrapping.facts.provider.as_deref());
                    if call.said.is_empty() {
                        call.said = &wrapping.said;
                    }
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
                    at: (tool.start_ns, 0),
                }),
            }
        }
        calls.sort_by_key(|call| call.at);
        calls
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
            let outer = same_call_above[*index]
                .and_then(|above| position_of.get(&above).copied())
                .filter(|at| done.get(*at).is_some_and(|outer| outer.name == tool.name));
            if let Some(at) = outer {
                position_of.insert(*index, at);
                if let Some(outer) = done.get_mut(at) {
                    outer.call_id = outer.call_id.take().or_else(|| tool.call_id.clone());
                    outer.arguments = outer.arguments.take().or_else(|| parsed(tool));
                }
                continue;
            }
            position_of.insert(*index, done.len());
            done.push(Done {
                name: tool.name.clone(),
                call_id: tool.call_id.clone(),
                arguments: parsed(tool),
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

    /// The errors, each once, where they arose: a failure that passes up through its parents is one.
    pub(crate) fn causes(&self) -> Vec<Cause> {
        let count = self.forest.parent.len();
        // Of every subtree: its latest cause, and when its last successful work began.
        let mut latest: Vec<Option<usize>> = vec![None; count];
        let mut worked_at: Vec<u64> = vec![0; count];
        let mut causes: BTreeMap<usize, Failure> = BTreeMap::new();
        let mut told_by: HashMap<usize, usize> = HashMap::new();
        for index in self.order.iter().rev() {
            let Some(step) = self.steps.get(*index) else {
                continue;
            };
            let below = latest[*index];
            let mut own = below;
            let is_work = matches!(step.facts.kind, Kind::Llm | Kind::Tool);
            if let Some(failure) = &step.facts.failure
                && !step.facts.made_up
            {
                let passed_on = below.and_then(|cause| {
                    let cause_step = self.steps.get(cause)?;
                    let cause_failure = causes.get(&cause)?;
                    let nothing_went_on = worked_at[*index] <= cause_step.end_or_start();
                    (failure.message.is_empty()
                        || nothing_went_on
                        || related(failure, cause_failure))
                    .then_some(cause)
                });
                match passed_on {
                    Some(cause) => {
                        // A tool or a model call tells more than the plain span in it that raised.
                        let cause_is_work = self.steps.get(cause).is_some_and(|step| {
                            matches!(
                                step.facts.kind,
                                Kind::Llm | Kind::Tool | Kind::Retriever | Kind::Embedding
                            )
                        });
                        if is_work && !cause_is_work {
                            told_by.entry(cause).or_insert(*index);
                        }
                    }
                    None => {
                        causes.insert(*index, failure.clone());
                        own = Some(*index);
                    }
                }
            }
            if let Some(above) = self.forest.parent[*index] {
                if is_work && step.facts.failure.is_none() {
                    worked_at[above] = worked_at[above].max(step.facts.start_ns);
                }
                worked_at[above] = worked_at[above].max(worked_at[*index]);
                if let Some(own) = own {
                    let end = |cause: usize| self.steps.get(cause).map(Step::end_or_start);
                    if latest[above].is_none_or(|other| end(other) < end(own)) {
                        latest[above] = Some(own);
                    }
                }
            }
        }
        let mut causes: Vec<Cause> = causes
            .into_iter()
            .map(|(cause, failure)| Cause {
                step: told_by.get(&cause).copied().unwrap_or(cause),
                failure,
            })
            .collect();
        self.join_siblings(&mut causes);
        causes.sort_by_key(|cause| {
            self.steps
                .get(cause.step)
                .map(|step| (step.end_or_start(), step.id.clone()))
        });
        drop_echoes(&self.steps, &mut causes);
        causes
    }

    /// Within one failed call the same failure may be told side by side (MCP's handler and the writer of its response): it is one.
    fn join_siblings(&self, causes: &mut Vec<Cause>) {
        let mut failed_call: Vec<Option<usize>> = vec![None; self.forest.parent.len()];
        for index in &self.order {
            let Some(step) = self.steps.get(*index) else {
                continue;
            };
            let is_failed_call =
                matches!(step.facts.kind, Kind::Llm | Kind::Tool) && step.facts.failure.is_some();
            failed_call[*index] = if is_failed_call {
                Some(*index)
            } else {
                self.forest.parent[*index].and_then(|above| failed_call[above])
            };
        }
        let mut kept: Vec<Cause> = Vec::new();
        let mut of_call: HashMap<usize, Vec<usize>> = HashMap::new();
        for cause in causes.drain(..) {
            let Some(call) = failed_call[cause.step] else {
                kept.push(cause);
                continue;
            };
            let others = of_call.entry(call).or_default();
            let twin = others.iter().take(MAX_ECHOES).copied().find(|at| {
                kept.get(*at)
                    .is_some_and(|other| related(&other.failure, &cause.failure))
            });
            match twin.and_then(|at| kept.get_mut(at)) {
                Some(twin) => twin.step = call,
                None => {
                    others.push(kept.len());
                    kept.push(cause);
                }
            }
        }
        *causes = kept;
    }

    /// The agents, in the order in which they first appear.
    pub(crate) fn agents(&self) -> Vec<String> {
        let mut agents: Vec<String> = Vec::new();
        let mut known: HashSet<&str> = HashSet::new();
        for index in self.by_start() {
            let Some(step) = self.steps.get(index) else {
                continue;
            };
            if self.is_a_graph(index) {
                continue;
            }
            let acts =
                step.native || matches!(step.facts.kind, Kind::Agent | Kind::Llm | Kind::Tool);
            if let Some(agent) = step.facts.agent.as_ref().filter(|_| acts)
                && known.insert(agent)
            {
                agents.push(agent.clone());
            }
        }
        agents
    }

    /// OpenLLMetry's LangGraph: the graph as an agent, around the graph as a workflow of the same name.
    fn is_a_graph(&self, index: usize) -> bool {
        let agent_of = |index: usize| {
            self.steps
                .get(index)
                .and_then(|step| step.facts.agent.as_deref())
        };
        self.forest
            .children
            .get(index)
            .into_iter()
            .flatten()
            .any(|child| {
                self.steps
                    .get(*child)
                    .is_some_and(|step| step.facts.kind == Kind::Workflow)
                    && agent_of(*child).is_some()
                    && agent_of(*child) == agent_of(index)
            })
    }

    /// Whether the run, once ended, had failed.
    ///
    /// A root that says so, a native `*_failed` at the end; or, because some frameworks leave the root unset or even OK when the run dies
    /// (openai-agents), a model or tool error after which no model was called successfully any more.
    pub(crate) fn has_failed(&self) -> bool {
        if let Some(last) = self.terminal_native() {
            return is_failure(&last.event_type) || last.failure.is_some();
        }
        let last_root = self.true_roots().max_by_key(|step| step.end_or_start());
        if last_root.is_some_and(|step| step.facts.failure.is_some()) {
            return true;
        }
        let calls = self.llm_calls();
        let answers = || {
            let steps = calls.iter().filter_map(|call| self.steps.get(call.step));
            steps.filter(|step| step.facts.failure.is_none())
        };
        let last_answered_ns = answers()
            .map(|step| match contains_work(step) {
                true => step.facts.start_ns,
                false => step.end_or_start(),
            })
            .max();
        let last_asked = answers().map(Step::began).max();
        let is_followed = |index: usize, step: &Step| {
            let failed_ns = step.end_or_start();
            let is_leaf = self.forest.children.get(index).is_some_and(Vec::is_empty);
            last_answered_ns.is_some_and(|answered_ns| {
                let is_unclear = is_leaf
                    && step.has_coarse_clock()
                    && answered_ns.abs_diff(failed_ns) < COARSE_CLOCK_NS;
                match is_unclear {
                    // Each of the two ends may be early by almost that much: what began later is the better witness.
                    true => last_asked > Some(step.began()),
                    false => answered_ns >= failed_ns,
                }
            })
        };
        self.causes().iter().any(|cause| {
            let Some(step) = self.steps.get(cause.step) else {
                return false;
            };
            let fatal_kind = match step.facts.kind {
                Kind::Llm | Kind::Agent => true,
                Kind::Tool => !calls.is_empty(),
                _ => false,
            };
            fatal_kind && !is_followed(cause.step, step)
        })
    }

    /// The last native event that ends a run, unless a task began after it.
    pub(crate) fn terminal_native(&self) -> Option<&'a NativeFacts> {
        self.state
            .natives
            .values()
            .rev()
            .find(|event| is_terminal(&event.event_type) || starts_task(&event.event_type))
            .filter(|event| is_terminal(&event.event_type))
    }
}

struct Done {
    name: String,
    call_id: Option<String>,
    arguments: Option<Value>,
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
    let passes: [fn(&Call, &Done) -> bool; 5] = [
        |asked, tool| same_id(asked, tool) && asked.name == tool.name,
        same_id,
        same_name_and_arguments,
        same_name,
        same_target,
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

fn kind_of_name(name: &str) -> ToolKind {
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

/// Google ADK 1's `call_llm` lasts as long as the tools and agents that it triggers.
fn contains_work(step: &Step) -> bool {
    step.facts.rule == "adk:span.name"
}

fn is_model_call(step: &Step) -> bool {
    step.facts.kind == Kind::Llm && !step.facts.made_up
}

/// Whether two failures tell of the same: one message holds the other.
fn related(a: &Failure, b: &Failure) -> bool {
    let (a, b) = (a.message.trim(), b.message.trim());
    a == b || (a.len().min(b.len()) > 8 && (a.contains(b) || b.contains(a)))
}

/// A flat native stream tells of one failure several times: the node's, then the workflow's.
fn drop_echoes(steps: &[Step], causes: &mut Vec<Cause>) {
    let mut kept: Vec<Cause> = Vec::new();
    for cause in causes.drain(..) {
        let is_echo = steps
            .get(cause.step)
            .is_some_and(|step| step.native && step.facts.rule == "native:run")
            && kept.iter().rev().take(MAX_ECHOES).any(|earlier| {
                steps.get(earlier.step).is_some_and(|step| step.native)
                    && (cause.failure.message.is_empty()
                        || related(&cause.failure, &earlier.failure))
            });
        if !is_echo {
            kept.push(cause);
        }
    }
    *causes = kept;
}

pub(crate) fn is_terminal(event_type: &str) -> bool {
    matches!(
        event_type,
        "workflow_completed" | "workflow_failed" | "task_completed" | "task_failed"
    )
}

fn is_failure(event_type: &str) -> bool {
    matches!(event_type, "workflow_failed" | "task_failed")
}

fn starts_task(event_type: &str) -> bool {
    matches!(event_type, "workflow_started" | "task_started")
}

/// The state's spans with what log records say of them, the calls that only log records know, and the native events as steps.
fn steps(state: &State) -> Vec<Step<'_>> {
    let mut said_in_logs: BTreeMap<&str, Vec<&crate::fold::LogFacts>> = BTreeMap::new();
    for log in state.logs.values() {
        if let Some(span_id) = log.span_id.as_deref()
            && !log.said.is_empty()
        {
            said_in_logs.entry(span_id).or_default().push(log);
        }
    }
    let mut steps = Vec::with_capacity(state.spans.len());
    for (id, facts) in state.spans.iter() {
        let logs = said_in_logs.remove(id.as_str());
        let said = match logs {
            Some(logs) if facts.said.is_empty() => Cow::Owned(join(&logs)),
            _ => Cow::Borrowed(&facts.said),
        };
        steps.push(Step {
            id: id.clone(),
            facts: Cow::Borrowed(facts),
            said,
            estimated: false,
            native: false,
        });
    }
    for (id, logs) in said_in_logs {
        // Messages of a span that has not come (yet): a call under way, or one that was given up.
        let first = logs.iter().map(|log| log.time_ns).min().unwrap_or(0);
        steps.push(Step {
            id: id.to_owned(),
            said: Cow::Owned(join(&logs)),
            facts: Cow::Owned(SpanFacts {
                name: "unknown".to_owned(),
                kind: Kind::Llm,
                rule: Cow::Borrowed("logs:orphaned"),
                start_ns: first,
                agent: logs.iter().find_map(|log| log.agent.clone()),
                ..SpanFacts::default()
            }),
            estimated: true,
            native: false,
        });
    }
    native_steps(state, &mut steps);
    steps
}

fn join(logs: &[&crate::fold::LogFacts]) -> Said {
    if let Some(whole) = logs.iter().rev().find(|log| log.is_whole_call) {
        return whole.said.clone();
    }
    let mut said = Said::default();
    logs.iter().for_each(|log| said.extend(&log.said));
    said
}

/// What a native event type speaks of, and how far that is.
fn family(event_type: &str) -> (Kind, &'static str, Phase) {
    match event_type {
        "workflow_started" => (Kind::Workflow, "native:run", Phase::Start),
        "workflow_completed" | "workflow_failed" => (Kind::Workflow, "native:run", Phase::End),
        "task_started" => (Kind::Agent, "native:run", Phase::Start),
        "task_completed" | "task_failed" => (Kind::Agent, "native:run", Phase::End),
        "node_started" => (Kind::Task, "native:node", Phase::Start),
        "node_finished" | "node_failed" => (Kind::Task, "native:node", Phase::End),
        "llm_call_started" => (Kind::Llm, "native:llm", Phase::Start),
        "llm_call_completed" | "llm_call_failed" => (Kind::Llm, "native:llm", Phase::End),
        "tool_call_started" => (Kind::Tool, "native:tool", Phase::Start),
        "tool_call_completed" | "tool_call_failed" => (Kind::Tool, "native:tool", Phase::End),
        "retrieval_started" => (Kind::Retriever, "native:retrieval", Phase::Start),
        "retrieval_completed" | "retrieval_failed" => {
            (Kind::Retriever, "native:retrieval", Phase::End)
        }
        "thinking_started" => (Kind::Span, "native:thinking", Phase::Start),
        "thinking_completed" => (Kind::Span, "native:thinking", Phase::End),
        "agent_called" => (Kind::Agent, "native:agent", Phase::Point),
        "start" | "span_start" => (Kind::Span, "native:span", Phase::Start),
        "end" | "span_end" | "error" => (Kind::Span, "native:span", Phase::End),
        _ => (Kind::Span, "native:event", Phase::Point),
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Phase {
    Start,
    End,
    Point,
}

/// Native events as steps: start and end are joined by span id, else by call id, else first come first served among those of the
/// same kind, agent and name.
fn native_steps(state: &State, steps: &mut Vec<Step<'_>>) {
    let known: HashSet<String> = steps.iter().map(|step| step.id.clone()).collect();
    let mut position_of: HashMap<String, usize> = HashMap::new();
    let mut open: HashMap<String, VecDeque<usize>> = HashMap::new();
    for event in state.natives.values() {
        let (kind, rule, phase) = family(&event.event_type);
        if event.span_id.as_ref().is_some_and(|id| known.contains(id)) {
            continue; // the span itself tells more
        }
        // `native:run` and `native:agent` of one span are that span.
        let named = event.span_id.clone().or_else(|| {
            let call = event.call_id.as_ref()?;
            Some(format!("{rule}:{call}"))
        });
        let pairing = format!(
            "{rule}\u{1}{}\u{1}{}",
            event.agent.as_deref().unwrap_or_default(),
            event
                .name
                .as_deref()
                .or(event.tool.as_ref().map(|tool| tool.name.as_str()))
                .unwrap_or_default()
        );
        let at = match &named {
            Some(id) => position_of.get(id).copied(),
            None if phase == Phase::End => open.get_mut(&pairing).and_then(VecDeque::pop_front),
            None => None,
        };
        let at = at.unwrap_or_else(|| {
            let id = named
                .clone()
                .unwrap_or_else(|| format!("event:{}", event.seq));
            position_of.insert(id.clone(), steps.len());
            steps.push(Step {
                id,
                facts: Cow::Owned(SpanFacts {
                    seq: event.seq,
                    parent: event.parent_span_id.clone(),
                    kind,
                    rule: Cow::Borrowed(rule),
                    start_ns: event.timestamp_ms.saturating_mul(1_000_000),
                    ..SpanFacts::default()
                }),
                said: Cow::Owned(Said::default()),
                estimated: false,
                native: true,
            });
            steps.len() - 1
        });
        if named.is_none() && phase == Phase::Start {
            open.entry(pairing).or_default().push_back(at);
        }
        if let Some(step) = steps.get_mut(at) {
            add_event(step, event, kind, rule, phase);
        }
    }
}

fn add_event(step: &mut Step, event: &NativeFacts, kind: Kind, rule: &'static str, phase: Phase) {
    let time_ns = event.timestamp_ms.saturating_mul(1_000_000);
    let facts = step.facts.to_mut();
    if facts.kind == Kind::Span && kind != Kind::Span {
        facts.kind = kind;
        facts.rule = Cow::Borrowed(rule);
    }
    facts.start_ns = facts.start_ns.min(time_ns);
    let ends = phase == Phase::End || (phase == Phase::Point && event.span_id.is_none());
    if ends {
        facts.end_ns = Some(facts.end_ns.unwrap_or(0).max(time_ns));
        // An end that nobody saw begin says how long it took.
        if let Some(duration) = event.duration_us
            && facts.start_ns == time_ns
        {
            facts.start_ns = time_ns.saturating_sub(duration.saturating_mul(1_000));
        }
    }
    if facts.name.is_empty() || facts.name == facts.kind.as_str() {
        facts.name = event
            .name
            .clone()
            .or_else(|| {
                event
                    .tool
                    .as_ref()
                    .map(|tool| tool.name.clone())
                    .filter(|name| !name.is_empty())
            })
            .or_else(|| event.model.clone())
            .or_else(|| event.agent.clone())
            .unwrap_or_else(|| event.event_type.clone());
    }
    let set = |slot: &mut Option<String>, value: &Option<String>| {
        if slot.is_none() {
            slot.clone_from(value);
        }
    };
    set(&mut facts.agent, &event.agent);
    set(&mut facts.parent, &event.parent_span_id);
    set(&mut facts.request_model, &event.model);
    set(&mut facts.provider, &event.provider);
    set(&mut facts.user, &event.user);
    if let Some(session) = &event.session
        && !facts.sessions.contains(session)
    {
        facts.sessions.push(session.clone());
    }
    if event.usage.is_some() {
        facts.usage = event.usage;
    }
    if event.failure.is_some() {
        facts.failure.clone_from(&event.failure);
    }
    if facts.kind == Kind::Tool {
        let tool = facts.tool.get_or_insert_with(|| ToolFacts {
            call_id: event.call_id.clone(),
            ..ToolFacts::default()
        });
        if let Some(told) = &event.tool {
            if tool.name.is_empty() {
                tool.name.clone_from(&told.name);
            }
            tool.arguments = tool.arguments.take().or_else(|| told.arguments.clone());
        }
        if tool.name.is_empty() {
            tool.name.clone_from(&facts.name);
        }
        tool.kind = kind_of_name(&tool.name);
    }
    let said = step.said.to_mut();
    if said.question.is_none() {
        said.question.clone_from(&event.question);
    }
    if event.answer.is_some() {
        said.answer.clone_from(&event.answer);
    }
}
