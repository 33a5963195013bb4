//! The user's turns: what was asked, what was answered, which tools were called.

use serde::Serialize;
use serde_json::Value;

use crate::fold::{State, text_hash};
use crate::model::{Kind, Usage};
use crate::run::{LlmCall, Run};
use crate::summary::plain_model;

/// One user turn, in the form of seed 002.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Invocation {
    /// The producer's own id of the turn, else that of its first span; further turns of one span are numbered.
    pub invocation_id: String,
    pub user_text: String,
    pub agent_text: String,
    pub tool_calls: Vec<InvocationToolCall>,
    pub model_info: ModelInfo,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct InvocationToolCall {
    pub name: String,
    pub args: Value,
    pub id: Option<String>,
    /// tool, handoff or agent_tool.
    pub kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
}

/// The models of one turn; what is empty is left out.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
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
    let mut units: Vec<Unit> = Vec::new();
    for index in run.by_start() {
        let matters = run.steps.get(index).is_some_and(|step| {
            matches!(step.facts.kind, Kind::Agent | Kind::Tool | Kind::Llm)
                || (step.native && step.facts.kind == Kind::Workflow)
                || step.said.question.is_some()
        });
        let unit = unit_of(index);
        if matters && !units.contains(&unit) {
            units.push(unit);
        }
    }

    let mut invocations = Vec::new();
    for unit in units {
        let own_calls: Vec<&LlmCall> = calls
            .iter()
            .filter(|call| unit_of(call.step) == unit)
            .collect();
        let turns = turns(&run, unit, &own_calls);
        let several = turns.len() > 1;
        for (number, turn) in turns.iter().enumerate() {
            let upto = turns.get(number + 1).map_or(u64::MAX, |next| next.from_ns);
            let from = if number == 0 { 0 } else { turn.from_ns };
            let tool_calls: Vec<InvocationToolCall> = tools
                .iter()
                .filter(|call| unit_of(call.step) == unit && (from..upto).contains(&call.at.0))
                .map(|call| InvocationToolCall {
                    name: call.name.clone(),
                    args: call.arguments.clone(),
                    id: call.id.clone(),
                    kind: call.kind.as_str(),
                    agent: call.by.clone(),
                })
                .collect();
            let in_turn: Vec<&LlmCall> = own_calls
                .iter()
                .copied()
                .filter(|call| {
                    run.steps
                        .get(call.step)
                        .is_some_and(|step| (from..upto).contains(&step.facts.start_ns))
                })
                .collect();
            let has_agent = run.by_start().into_iter().any(|index| {
                unit_of(index) == unit
                    && run
                        .steps
                        .get(index)
                        .is_some_and(|step| step.facts.kind == Kind::Agent)
            });
            let said_something = !turn.question.is_empty() || !turn.answer.is_empty();
            if in_turn.is_empty() && tool_calls.is_empty() && !has_agent && !said_something {
                continue;
            }
            let mut id = turn.id.clone();
            if several && number > 0 && turns.iter().take(number).any(|earlier| earlier.id == id) {
                id = format!("{id}-{}", number + 1);
            }
            invocations.push(Invocation {
                invocation_id: id,
                user_text: turn.question.trim().to_owned(),
                agent_text: turn.answer.trim().to_owned(),
                tool_calls,
                model_info: model_info(&run, &in_turn),
            });
        }
    }
    invocations
}

#[derive(Clone, Copy, PartialEq)]
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
fn turns(run: &Run, unit: Unit, calls: &[&LlmCall]) -> Vec<Turn> {
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
                question: question(run, unit, group, only_one),
                answer: answer(run, unit, group, only_one),
            }
        })
        .collect();
    if turns.is_empty() {
        turns.push(Turn {
            id: turn_id(run, unit, &[]),
            from_ns: 0,
            question: question(run, unit, &[], true),
            answer: answer(run, unit, &[], true),
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
        .rposition(|line| line.0 == 'a' && line.1 == before.said.answer_hash && !line.2)
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
fn speakers(run: &Run, unit: Unit) -> Vec<usize> {
    let in_unit = |index: &usize| match unit {
        Unit::Root(root) => run.root_of.get(*index) == Some(&root),
        Unit::BareCalls => false,
        Unit::Native => run.steps.get(*index).is_some_and(|step| step.native),
    };
    let mut speakers: Vec<usize> = run
        .by_start()
        .into_iter()
        .filter(in_unit)
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

fn question(run: &Run, unit: Unit, group: &[&LlmCall], only_one: bool) -> String {
    let asked = group.iter().find_map(|call| call.said.question.clone());
    let spoken = || {
        speakers(run, unit)
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

fn answer(run: &Run, unit: Unit, group: &[&LlmCall], only_one: bool) -> String {
    let spoken = || {
        speakers(run, unit)
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
