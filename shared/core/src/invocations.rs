//! The user's turns: what was asked, what was answered, which tools were called and what they said.

use std::collections::{BTreeSet, HashMap, HashSet};

use serde::Serialize;
use serde_json::Value;

use crate::fold::{Line, State, text_hash};
use crate::model::{Kind, Usage};
use crate::run::{Call, LlmCall, Run};
use crate::summary::plain_model;
use crate::verbosity::{PREVIEW_CHARACTERS, Verbosity, preview, preview_text};

/// One user turn.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Invocation {
    /// The producer's own id of the turn, else that of its first span; further turns of one span are numbered.
    pub invocation_id: String,
    pub user_text: String,
    pub agent_text: String,
    pub tool_calls: Vec<InvocationToolCall>,
    /// What the tools said, in the order of their calls; a call without a known answer has none.
    pub tool_responses: Vec<InvocationToolResponse>,
    pub model_info: ModelInfo,
    /// What other forms of a turn need ([`crate::live::compat`]).
    #[serde(skip)]
    pub source: Source,
}

/// Where a turn was read from.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Source {
    /// The id by the rules of the dev server's dialect: `genai-<span>`, `genai-turn-<n>-<8 digits>`, or Google ADK's own.
    pub dialect_id: String,
    /// Google ADK wrote it.
    pub is_adk: bool,
    /// Names of models as they were told, with the prefix of a provider.
    pub models: BTreeSet<String>,
    pub response_models: BTreeSet<String>,
    /// When the turn began, nanoseconds since 1970.
    pub from_ns: u64,
}

impl Invocation {
    /// As it is told at a level: below `detailed` without a word of what was said, and without arguments and responses; at `detailed` the beginnings.
    pub fn at(mut self, level: Verbosity) -> Self {
        let shown = |text: String| match level {
            Verbosity::Debug => text.trim().to_owned(),
            Verbosity::Detailed => preview_text(text.trim(), PREVIEW_CHARACTERS),
            Verbosity::Standard | Verbosity::Minimal => String::new(),
        };
        self.user_text = shown(self.user_text);
        self.agent_text = shown(self.agent_text);
        let responses = self.tool_responses.iter_mut();
        let values = self
            .tool_calls
            .iter_mut()
            .map(|call| &mut call.args)
            .chain(responses.map(|response| &mut response.response));
        for value in values {
            *value = match level {
                Verbosity::Debug => continue,
                Verbosity::Detailed => preview(std::mem::take(value), PREVIEW_CHARACTERS),
                Verbosity::Standard | Verbosity::Minimal => Value::Null,
            };
        }
        if level == Verbosity::Minimal {
            self.tool_calls.clear();
            self.tool_responses.clear();
            self.model_info = ModelInfo::default();
        }
        self
    }
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct InvocationToolCall {
    pub name: String,
    pub args: Value,
    pub id: Option<String>,
    /// tool, handoff or agent_tool.
    #[cfg_attr(feature = "openapi", schema(value_type = crate::model::ToolKind))]
    pub kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
    /// Of the step that ran it, if one is known: the id of the call that it tells, else its own.
    #[serde(skip)]
    pub step_id: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct InvocationToolResponse {
    pub name: String,
    /// The tool's result: text, or the value that it is.
    pub response: Value,
    pub id: Option<String>,
    /// As [`InvocationToolCall::step_id`].
    #[serde(skip)]
    pub step_id: Option<String>,
}

/// The models of one turn; what is empty is left out.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct ModelInfo {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub models: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub response_models: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
    pub input_tokens: u64,
    pub output_tokens: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub cache_read_tokens: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub cache_creation_tokens: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub finish_reasons: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub error_types: Vec<String>,
    /// Of the first call that has one; of `max_tokens` too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_tokens: Option<u64>,
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// The turns of a session, in order: those of its traces. Calls that nothing holds together in a trace (clients without a framework) belong
/// together in the session, where one turn may be several traces.
pub fn of_session<'a>(traces: impl IntoIterator<Item = &'a State>) -> Vec<Invocation> {
    let (bare, whole): (Vec<_>, Vec<_>) = traces.into_iter().partition(|state| state.is_bare());
    let mut turns: Vec<Invocation> = whole.into_iter().flat_map(invocations).collect();
    match bare.as_slice() {
        [] => {}
        [one] => turns.extend(invocations(one)),
        [first, others @ ..] => {
            let mut together = (*first).clone();
            others.iter().for_each(|other| together.absorb(other));
            turns.extend(invocations(&together));
        }
    }
    turns.sort_by_key(|turn| turn.source.from_ns);
    turns
}

/// The turns of a trace, in order. A trace without model calls, tools or agents has none.
pub fn invocations(state: &State) -> Vec<Invocation> {
    let run = Run::of(state);
    let calls = run.llm_calls();
    let tools = run.tool_calls(&calls);

    // Bare model calls and flat native events have no root in common: they are one unit.
    let unit_of = |step: usize| -> Unit {
        let root = run.root_of.get(step).copied().unwrap_or(step);
        match run.steps.get(root) {
            Some(step) if step.native => Unit::Native,
            Some(step) if step.facts.kind == Kind::Llm => Unit::BareCalls,
            _ => Unit::Root(root),
        }
    };
    // The units in the order in which they begin, each with its steps by start.
    let mut units: Vec<(Unit, Vec<usize>)> = Vec::new();
    let mut position_of: HashMap<Unit, usize> = HashMap::new();
    for index in run.by_start() {
        let unit = unit_of(index);
        let at = *position_of.entry(unit).or_insert_with(|| {
            units.push((unit, Vec::new()));
            units.len() - 1
        });
        if let Some((_, members)) = units.get_mut(at) {
            members.push(index);
        }
    }
    let mut calls_of: HashMap<Unit, Vec<&LlmCall>> = HashMap::new();
    for call in &calls {
        calls_of.entry(unit_of(call.step)).or_default().push(call);
    }
    let mut tools_of: HashMap<Unit, Vec<&Call>> = HashMap::new();
    for tool in &tools {
        tools_of.entry(unit_of(tool.step)).or_default().push(tool);
    }

    let mut invocations: Vec<(u64, Invocation)> = Vec::new();
    for (unit, members) in &units {
        let own_calls = calls_of.remove(unit).unwrap_or_default();
        let own_tools = tools_of.remove(unit).unwrap_or_default();
        let acts = members.iter().any(|index| {
            run.steps.get(*index).is_some_and(|step| {
                step.facts.kind == Kind::Agent
                    || (step.native && step.facts.kind == Kind::Workflow)
                    || (step.said.question.is_some() && step.facts.kind == Kind::Workflow)
            })
        });
        if own_calls.is_empty() && own_tools.is_empty() && !acts {
            continue;
        }
        let group = Group::of(&run, *unit, members);
        let turns = turns(&run, &group, &own_calls);
        // Everything belongs to the last turn that had begun.
        let turn_at = |start_ns: u64| {
            turns
                .partition_point(|turn| turn.from_ns <= start_ns)
                .saturating_sub(1)
        };
        let mut calls_in: Vec<Vec<&LlmCall>> = vec![Vec::new(); turns.len()];
        for call in own_calls {
            let start_ns = run
                .steps
                .get(call.step)
                .map_or(0, |step| step.facts.start_ns);
            if let Some(calls) = calls_in.get_mut(turn_at(start_ns)) {
                calls.push(call);
            }
        }
        let mut tools_in: Vec<Vec<&Call>> = vec![Vec::new(); turns.len()];
        for tool in own_tools {
            if let Some(tools) = tools_in.get_mut(turn_at(tool.at.0)) {
                tools.push(tool);
            }
        }
        let (mut ids, mut dialect_ids) = (HashSet::new(), HashSet::new());
        for (number, ((turn, calls), tools)) in turns.iter().zip(calls_in).zip(tools_in).enumerate()
        {
            let once = |ids: &mut HashSet<String>, id: &str| {
                let id = match ids.contains(id) {
                    true => format!("{id}-{}", number + 1),
                    false => id.to_owned(),
                };
                ids.insert(id.clone());
                id
            };
            let mut source = Source {
                dialect_id: once(&mut dialect_ids, &turn.dialect_id),
                is_adk: group.is_adk,
                from_ns: turn.from_ns,
                ..Source::default()
            };
            for call in &calls {
                let asked = call.request_model.or(call.response_model);
                source.models.extend(asked.map(str::to_owned));
                let answered = call.response_model.map(str::to_owned);
                source.response_models.extend(answered);
            }
            let invocation = Invocation {
                invocation_id: once(&mut ids, &turn.id),
                user_text: turn.question.clone(),
                agent_text: turn.answer.clone(),
                tool_calls: tools.iter().map(|tool| tool_call(&run, tool)).collect(),
                tool_responses: tools
                    .iter()
                    .filter_map(|tool| tool_response(&run, tool))
                    .collect(),
                model_info: model_info(&run, &calls),
                source,
            };
            invocations.push((turn.from_ns, invocation));
        }
    }
    // The units may run side by side.
    invocations.sort_by_key(|(from_ns, _)| *from_ns);
    invocations
        .into_iter()
        .map(|(_, invocation)| invocation)
        .collect()
}

fn tool_call(run: &Run, tool: &Call) -> InvocationToolCall {
    InvocationToolCall {
        name: tool.name.clone(),
        args: tool.arguments.clone(),
        id: tool.id.clone(),
        kind: tool.kind.as_str(),
        agent: tool.by.clone(),
        step_id: step_id(run, tool),
    }
}

fn step_id(run: &Run, tool: &Call) -> Option<String> {
    let step = run.steps.get(tool.ran?)?;
    let told = step
        .facts
        .tool
        .as_ref()
        .and_then(|tool| tool.call_id.clone());
    Some(told.unwrap_or_else(|| step.id.clone()))
}

fn tool_response(run: &Run, tool: &Call) -> Option<InvocationToolResponse> {
    Some(InvocationToolResponse {
        name: tool.name.clone(),
        response: tool.result.clone()?,
        id: tool.id.clone(),
        step_id: step_id(run, tool),
    })
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Unit {
    Root(usize),
    BareCalls,
    Native,
}

/// What is true of all turns of a unit, found once.
struct Group {
    unit: Unit,
    /// Its root was seen; otherwise its parts may have nothing to do with one another.
    has_root: bool,
    is_adk: bool,
    /// When its first step began.
    from_ns: u64,
    /// The words of what speaks for the unit: its root first, then its outermost agents by start.
    question: Option<String>,
    answer: Option<String>,
    /// The outermost agent.
    agent: Option<usize>,
    /// Of native events the first.
    first_native: Option<String>,
}

impl Group {
    fn of(run: &Run, unit: Unit, members: &[usize]) -> Self {
        let steps = || {
            members
                .iter()
                .filter_map(|index| Some((*index, run.steps.get(*index)?)))
        };
        let mut speakers: Vec<_> = steps()
            .filter(|(index, step)| {
                step.facts.kind != Kind::Llm
                    && !step.said.is_empty()
                    && run.tool_above.get(*index).copied().flatten().is_none()
            })
            .collect();
        if let Unit::Root(root) = unit {
            speakers.sort_by_key(|(index, _)| *index != root);
        }
        Self {
            unit,
            has_root: matches!(unit, Unit::Root(root) if root < run.steps.len()),
            is_adk: steps().any(|(_, step)| {
                step.facts.invocation_id.is_some()
                    || step.facts.rule.starts_with("adk:")
                    || step.facts.scope == "gcp.vertex.agent"
            }),
            from_ns: steps().next().map_or(0, |(_, step)| step.facts.start_ns),
            question: speakers
                .iter()
                .find_map(|(_, step)| step.said.question.clone()),
            answer: speakers
                .iter()
                .rev()
                .filter(|(_, step)| step.facts.failure.is_none())
                .find_map(|(_, step)| step.said.answer.clone()),
            agent: steps()
                .find(|(_, step)| step.facts.kind == Kind::Agent)
                .map(|(index, _)| index),
            first_native: steps()
                .find(|(_, step)| step.native)
                .map(|(_, step)| step.id.clone()),
        }
    }

    /// A root knows the words of one turn better than the prompts that were made of them.
    fn root<'a>(&self, run: &'a Run, only_one: bool) -> Option<&'a crate::run::Step<'a>> {
        match self.unit {
            Unit::Root(root) if only_one => run.steps.get(root),
            _ => None,
        }
    }
}

struct Turn {
    id: String,
    dialect_id: String,
    from_ns: u64,
    question: String,
    answer: String,
}

/// Splits a unit's model calls where the user spoke again.
///
/// A call begins a new turn when its history holds, after the turn's question, the answer that the call before it gave, and then new words of
/// the user. Whatever else user-role messages are used for (context, tool results, sub-agents' tasks) does not follow such an answer.
fn turns(run: &Run, unit: &Group, calls: &[&LlmCall]) -> Vec<Turn> {
    // Calls within a tool are an agent's that serves as a tool: another conversation.
    let outside: Vec<&&LlmCall> = calls
        .iter()
        .filter(|call| run.tool_above.get(call.step).copied().flatten().is_none())
        .collect();
    let main: Vec<&LlmCall> = if outside.is_empty() {
        calls.to_vec()
    } else {
        outside.into_iter().copied().collect()
    };
    let mut groups: Vec<Vec<&LlmCall>> = Vec::new();
    for call in main {
        let begins = groups
            .last()
            .and_then(|group| group.last())
            .is_none_or(|before| {
                goes_on(run, before, call) || is_unrelated(run, unit, before, call)
            });
        match groups.last_mut() {
            Some(group) if !begins => group.push(call),
            _ => groups.push(vec![call]),
        }
    }
    if groups.is_empty() {
        groups.push(Vec::new());
    }
    let only_one = groups.len() == 1;
    // The dev server's dialect gives all calls all messages when log records name no span, and walks them.
    let first_calls = groups.first().and_then(|group| group.first());
    let walked = (unit.unit == Unit::BareCalls && !only_one)
        .then(|| run.steps.get(first_calls?.step))
        .flatten()
        .filter(|step| step.told_by_time)
        .map(|step| step.id.chars().take(8).collect::<String>());
    groups
        .iter()
        .enumerate()
        .map(|(number, group)| {
            let first = group.first().and_then(|call| run.steps.get(call.step));
            Turn {
                id: turn_id(run, unit, group),
                dialect_id: match &walked {
                    Some(digits) => format!("genai-turn-{}-{digits}", number + 1),
                    None => dialect_id(run, unit, group),
                },
                from_ns: first.map_or(unit.from_ns, |step| step.facts.start_ns),
                question: question(run, unit, group, only_one),
                answer: answer(run, unit, group, only_one),
            }
        })
        .collect()
}

fn goes_on(run: &Run, before: &LlmCall, call: &LlmCall) -> bool {
    if before.said.answer.is_none() || !before.said.calls.is_empty() {
        return false;
    }
    let outline = &call.said.outline;
    let Some(answered) = outline
        .iter()
        .rposition(|line| line.0 == 'a' && line.1 == before.said.answer_hash)
    else {
        return false;
    };
    let Some(question) = before.said.question.as_deref().map(text_hash) else {
        return false;
    };
    let asked = |outline: &[Line]| {
        let lines = outline.iter();
        lines.filter(|line| **line == Line('u', question)).count()
    };
    outline.iter().skip(answered + 1).any(|line| line.0 == 'u')
        && outline.iter().take(answered).any(|line| *line == Line('u', question))
        // The next agent of a chain may be shown the answer of the one before together with the same question.
        && (before.said.question != call.said.question
            || (asked(outline) > asked(&before.said.outline)
                && run.agent_of.get(before.step) == run.agent_of.get(call.step)))
}

/// Calls without a common root are turns of their own when they share no history.
fn is_unrelated(run: &Run, unit: &Group, before: &LlmCall, call: &LlmCall) -> bool {
    if before.said.question.is_none() || call.said.question.is_none() {
        return false;
    }
    let answered = before.said.answer.is_some() && before.said.calls.is_empty();
    let is_new = before.said.question != call.said.question;
    match unit.unit {
        Unit::BareCalls => is_new || (answered && asks_afresh(before, call)),
        // What stands under a parent that never came may have nothing else in common.
        Unit::Root(_) if !unit.has_root => {
            let apart = run.top_of.get(before.step) != run.top_of.get(call.step);
            apart && answered && is_new
        }
        _ => false,
    }
}

/// The same question once more, by a client that shows no history: nothing was said since, and nothing is known of the answer.
fn asks_afresh(before: &LlmCall, call: &LlmCall) -> bool {
    let outline = &call.said.outline;
    outline.last().is_some_and(|line| line.0 == 'u')
        && !outline.contains(&Line('a', before.said.answer_hash))
}

fn turn_id(run: &Run, unit: &Group, group: &[&LlmCall]) -> String {
    let named = group
        .iter()
        .filter_map(|call| run.steps.get(call.step))
        .find_map(|step| step.facts.invocation_id.clone());
    named
        .or_else(|| match unit.unit {
            Unit::Root(root) => run.id(root),
            Unit::BareCalls => group.first().and_then(|call| run.id(call.step)),
            Unit::Native => unit.first_native.clone(),
        })
        .unwrap_or_default()
}

/// The id that the dev server's dialect gives a turn.
fn dialect_id(run: &Run, unit: &Group, group: &[&LlmCall]) -> String {
    let last_call = group.last().map(|call| call.step);
    if unit.is_adk
        && let Some(step) = unit.agent.and_then(|agent| run.steps.get(agent))
    {
        return step
            .facts
            .invocation_id
            .clone()
            .unwrap_or_else(|| step.id.clone());
    }
    let span = match unit.unit {
        Unit::Root(root) if unit.has_root => Some(root),
        // Every span without a parent is a turn there, and of several with one question the last counts.
        Unit::Root(_) | Unit::BareCalls => last_call.and_then(|call| run.top_of.get(call).copied()),
        Unit::Native => None,
    };
    match span.and_then(|span| run.id(span)) {
        Some(id) => format!("genai-{id}"),
        None => turn_id(run, unit, group),
    }
}

fn question(run: &Run, unit: &Group, group: &[&LlmCall], only_one: bool) -> String {
    let asked = || group.iter().find_map(|call| call.said.question.clone());
    let known = match unit.unit {
        Unit::Native => unit.question.clone(),
        _ => unit
            .root(run, only_one)
            .filter(|step| matches!(step.facts.kind, Kind::Agent | Kind::Workflow | Kind::Task))
            .and_then(|step| step.said.question.clone()),
    };
    known
        .or_else(asked)
        .or_else(|| unit.question.clone().filter(|_| only_one))
        .unwrap_or_default()
}

fn answer(run: &Run, unit: &Group, group: &[&LlmCall], only_one: bool) -> String {
    let known = || {
        if unit.unit == Unit::Native {
            return unit.answer.clone();
        }
        let step = unit.root(run, only_one)?;
        if step.facts.failure.is_some() {
            return Some(String::new());
        }
        let speaks = matches!(step.facts.kind, Kind::Agent | Kind::Workflow | Kind::Task);
        step.said.answer.clone().filter(|_| speaks)
    };
    // The last call that began gives the answer, unless it failed or asked for tools: then only the run itself can know one.
    let last = group
        .iter()
        .max_by_key(|call| run.steps.get(call.step).map(|step| step.facts.start_ns));
    let Some(last) = last else {
        return known().or_else(|| unit.answer.clone()).unwrap_or_default();
    };
    let failed = run
        .steps
        .get(last.step)
        .is_some_and(|step| step.facts.failure.is_some());
    if failed {
        return String::new();
    }
    match &last.said.answer {
        // What a program made of a model's structured answer is what its user sees.
        Some(text) if last.said.calls.is_empty() && text.trim_start().starts_with('{') => known()
            .filter(|answer| !answer.is_empty())
            .unwrap_or_else(|| text.clone()),
        Some(text) if last.said.calls.is_empty() => text.clone(),
        // What it said beside the calls is all that is known of an answer.
        beside => known()
            .or_else(|| unit.answer.clone().filter(|_| only_one))
            .or_else(|| beside.clone())
            .unwrap_or_default(),
    }
}

fn model_info(run: &Run, calls: &[&LlmCall]) -> ModelInfo {
    let mut info = ModelInfo::default();
    let mut usage = Usage::default();
    let add = |list: &mut Vec<String>, item: &str| {
        if !item.is_empty() && !list.iter().any(|known| known == item) {
            list.push(item.to_owned());
        }
    };
    for call in calls {
        usage.add(&call.usage);
        if let Some(model) = call.request_model.or(call.response_model) {
            add(&mut info.models, plain_model(model));
        }
        if let Some(model) = call.response_model {
            add(&mut info.response_models, plain_model(model));
        }
        info.provider = info
            .provider
            .take()
            .or_else(|| call.provider.map(str::to_owned));
        if let Some(step) = run.steps.get(call.step) {
            step.facts
                .finish_reasons
                .iter()
                .for_each(|reason| add(&mut info.finish_reasons, reason));
            if let Some(failure) = &step.facts.failure {
                add(&mut info.error_types, &failure.kind);
            }
            let number = |text: &Option<String>| text.as_ref()?.parse::<f64>().ok();
            info.temperature = info.temperature.or_else(|| number(&step.facts.temperature));
            let most = || number(&step.facts.max_tokens).map(|most| most as u64);
            info.max_tokens = info.max_tokens.or_else(most);
        }
    }
    info.input_tokens = usage.input;
    info.output_tokens = usage.output;
    info.cache_read_tokens = usage.cache_read;
    info.cache_creation_tokens = usage.cache_write;
    info
}
