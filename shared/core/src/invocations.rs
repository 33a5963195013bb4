//! The user's turns: what was asked, what was answered, which tools were called.

use std::collections::{HashMap, HashSet};

use serde::Serialize;
use serde_json::Value;

use crate::fold::{State, text_hash};
use crate::model::{Kind, Usage};
use crate::run::{Call, LlmCall, Run};
use crate::summary::plain_model;
use crate::verbosity::{PREVIEW_CHARACTERS, Verbosity, preview, preview_text};

/// One user turn, in the form of seed 002.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Invocation {
    /// The producer's own id of the turn, else that of its first span; further turns of one span are numbered.
    pub invocation_id: String,
    pub user_text: String,
    pub agent_text: String,
    pub tool_calls: Vec<InvocationToolCall>,
    pub model_info: ModelInfo,
}

impl Invocation {
    /// As it is told at a level: below `detailed` without a word of what was said, and without the arguments; at `detailed` the beginnings.
    pub fn at(mut self, level: Verbosity) -> Self {
        let shown = |text: String| match level {
            Verbosity::Debug => text,
            Verbosity::Detailed => preview_text(&text, PREVIEW_CHARACTERS),
            Verbosity::Standard | Verbosity::Minimal => String::new(),
        };
        self.user_text = shown(self.user_text);
        self.agent_text = shown(self.agent_text);
        for call in &mut self.tool_calls {
            call.args = match level {
                Verbosity::Debug => continue,
                Verbosity::Detailed => preview(std::mem::take(&mut call.args), PREVIEW_CHARACTERS),
                Verbosity::Standard | Verbosity::Minimal => Value::Null,
            };
        }
        if level == Verbosity::Minimal {
            self.tool_calls.clear();
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
}

fn is_zero(count: &u64) -> bool {
    *count == 0
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
        let turns = turns(&run, *unit, members, &own_calls);
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
        let mut tools_in: Vec<Vec<InvocationToolCall>> = vec![Vec::new(); turns.len()];
        for tool in own_tools {
            if let Some(tools) = tools_in.get_mut(turn_at(tool.at.0)) {
                tools.push(InvocationToolCall {
                    name: tool.name.clone(),
                    args: tool.arguments.clone(),
                    id: tool.id.clone(),
                    kind: tool.kind.as_str(),
                    agent: tool.by.clone(),
                });
            }
        }
        let mut ids: HashSet<String> = HashSet::new();
        for (number, ((turn, calls), tool_calls)) in
            turns.iter().zip(calls_in).zip(tools_in).enumerate()
        {
            let mut id = turn.id.clone();
            if !ids.insert(id.clone()) {
                id = format!("{id}-{}", number + 1);
            }
            let invocation = Invocation {
                invocation_id: id,
                user_text: turn.question.trim().to_owned(),
                agent_text: turn.answer.trim().to_owned(),
                tool_calls,
                model_info: model_info(&run, &calls),
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

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Unit {
    Root(usize),
    BareCalls,
    Native,
}

struct Turn {
    id: String,
    from_ns: u64,
    question: String,
    answer: String,
}

/// Splits a unit's model calls where the user spoke again.
///
/// A call begins a new turn when its history holds, after the turn's question, the answer that the call before it gave, and then new words of
/// the user. Whatever else user-role messages are used for (context, tool results, sub-agents' tasks) does not follow such an answer.
fn turns(run: &Run, unit: Unit, members: &[usize], calls: &[&LlmCall]) -> Vec<Turn> {
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
            .is_none_or(|before| goes_on(before, call) || is_unrelated(unit, before, call));
        match groups.last_mut() {
            Some(group) if !begins => group.push(call),
            _ => groups.push(vec![call]),
        }
    }
    let only_one = groups.len() <= 1;
    let mut turns: Vec<Turn> = groups
        .iter()
        .map(|group| {
            let first = group.first().and_then(|call| run.steps.get(call.step));
            Turn {
                id: turn_id(run, unit, group),
                from_ns: first.map_or(0, |step| step.facts.start_ns),
                question: question(run, unit, members, group, only_one),
                answer: answer(run, unit, members, group, only_one),
            }
        })
        .collect();
    if turns.is_empty() {
        turns.push(Turn {
            id: turn_id(run, unit, &[]),
            from_ns: members
                .first()
                .and_then(|index| run.steps.get(*index))
                .map_or(0, |step| step.facts.start_ns),
            question: question(run, unit, members, &[], true),
            answer: answer(run, unit, members, &[], true),
        });
    }
    turns
}

fn goes_on(before: &LlmCall, call: &LlmCall) -> bool {
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
    outline.iter().skip(answered + 1).any(|line| line.0 == 'u')
        // The next agent of a chain may be shown the answer of the one before together with the same question.
        && before.said.question != call.said.question
        && outline
            .iter()
            .take(answered)
            .any(|line| line.0 == 'u' && before.said.question.as_ref().is_some_and(|question| text_hash(question) == line.1))
}

/// Bare calls without a common root are turns of their own when they share no history.
fn is_unrelated(unit: Unit, before: &LlmCall, call: &LlmCall) -> bool {
    unit == Unit::BareCalls
        && before.said.question.is_some()
        && call.said.question.is_some()
        && before.said.question != call.said.question
}

fn turn_id(run: &Run, unit: Unit, group: &[&LlmCall]) -> String {
    let named = group
        .iter()
        .filter_map(|call| run.steps.get(call.step))
        .find_map(|step| step.facts.invocation_id.clone());
    let first_call = group.first().and_then(|call| run.id(call.step));
    match unit {
        Unit::Root(root) => named.or_else(|| run.id(root)),
        Unit::BareCalls => named.or(first_call),
        Unit::Native => named.or_else(|| {
            let first = run
                .steps
                .iter()
                .filter(|step| step.native)
                .min_by_key(|step| step.facts.start_ns)?;
            Some(first.id.clone())
        }),
    }
    .unwrap_or_default()
}

/// The steps of a unit that speak for it: its root first, then its outermost agents by start.
fn speakers(run: &Run, unit: Unit, members: &[usize]) -> Vec<usize> {
    let mut speakers: Vec<usize> = members
        .iter()
        .copied()
        .filter(|index| {
            run.steps.get(*index).is_some_and(|step| {
                step.facts.kind != Kind::Llm
                    && !step.said.is_empty()
                    && run.tool_above.get(*index).copied().flatten().is_none()
            })
        })
        .collect();
    if let Unit::Root(root) = unit {
        speakers.sort_by_key(|index| *index != root);
    }
    speakers
}

fn question(
    run: &Run,
    unit: Unit,
    members: &[usize],
    group: &[&LlmCall],
    only_one: bool,
) -> String {
    let asked = group.iter().find_map(|call| call.said.question.clone());
    let spoken = || {
        speakers(run, unit, members)
            .into_iter()
            .find_map(|index| run.steps.get(index)?.said.question.clone())
    };
    // A root knows the user's words better than the prompts made of them, as long as they are those of one turn.
    let root = match unit {
        Unit::Root(root) if only_one => run
            .steps
            .get(root)
            .filter(|step| matches!(step.facts.kind, Kind::Agent | Kind::Workflow | Kind::Task))
            .and_then(|step| step.said.question.clone()),
        Unit::Native => spoken(),
        _ => None,
    };
    root.or(asked)
        .or_else(|| if only_one { spoken() } else { None })
        .unwrap_or_default()
}

fn answer(run: &Run, unit: Unit, members: &[usize], group: &[&LlmCall], only_one: bool) -> String {
    let spoken = || {
        speakers(run, unit, members)
            .into_iter()
            .filter_map(|index| {
                let step = run.steps.get(index)?;
                if step.facts.failure.is_some() {
                    return None;
                }
                step.said.answer.clone()
            })
            .next_back()
    };
    let root_answer = || match unit {
        Unit::Root(root) if only_one => {
            let step = run.steps.get(root)?;
            if step.facts.failure.is_some() {
                return Some(String::new());
            }
            let speaks = matches!(step.facts.kind, Kind::Agent | Kind::Workflow | Kind::Task);
            step.said.answer.clone().filter(|_| speaks)
        }
        Unit::Native => spoken(),
        _ => None,
    };
    // The last call that began gives the answer, unless it failed or asked for tools: then only the run itself can know one.
    let last = group
        .iter()
        .max_by_key(|call| run.steps.get(call.step).map(|step| step.facts.start_ns));
    let Some(last) = last else {
        return root_answer().or_else(spoken).unwrap_or_default();
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
        Some(text) if last.said.calls.is_empty() && text.trim_start().starts_with('{') => {
            root_answer()
                .filter(|answer| !answer.is_empty())
                .unwrap_or_else(|| text.clone())
        }
        Some(text) if last.said.calls.is_empty() => text.clone(),
        _ => root_answer()
            .or_else(|| only_one.then(spoken).flatten())
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
        }
    }
    info.input_tokens = usage.input;
    info.output_tokens = usage.output;
    info.cache_read_tokens = usage.cache_read;
    info.cache_creation_tokens = usage.cache_write;
    info
}
