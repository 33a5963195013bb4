//! Steps from facts: the spans with what log records say of them, calls that only log records know, and what native events tell.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use super::{Step, calls::kind_of_name};
use crate::fold::{LogFacts, NativeFacts, Said, SpanFacts, State, ToolFacts};
use crate::model::Kind;

/// How far an end without a time may come before its start.
const OVERTAKING_NS: u64 = 5_000_000_000;

/// The state's spans with what log records say of them, the calls that only log records know, and the native events as steps.
pub(super) fn steps(state: &State) -> Vec<Step<'_>> {
    let mut said_in_logs: BTreeMap<&str, Vec<&LogFacts>> = BTreeMap::new();
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
    add_ancestors(&mut steps);
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

/// Spans that have not come, of which those below them tell: they run, since their first child at least.
fn add_ancestors(steps: &mut Vec<Step<'_>>) {
    let known: HashSet<String> = steps.iter().map(|step| step.id.clone()).collect();
    let mut missing: BTreeMap<String, SpanFacts> = BTreeMap::new();
    for step in steps.iter() {
        let mut parent: Option<&str> = None;
        for above in &step.facts.ancestors {
            if !known.contains(&above.id) {
                let began = match above.start_ns {
                    0 => step.facts.start_ns,
                    told => told,
                };
                let facts = missing
                    .entry(above.id.clone())
                    .or_insert_with(|| SpanFacts {
                        seq: step.facts.seq,
                        parent: parent.map(str::to_owned),
                        name: above.name.clone(),
                        rule: Cow::Borrowed("path:ancestor"),
                        start_ns: began,
                        ..SpanFacts::default()
                    });
                facts.start_ns = facts.start_ns.min(began);
                facts.seq = facts.seq.min(step.facts.seq);
            }
            parent = Some(&above.id);
        }
    }
    steps.extend(missing.into_iter().map(|(id, facts)| Step {
        id,
        facts: Cow::Owned(facts),
        said: Cow::Owned(Said::default()),
        estimated: true,
        native: false,
    }));
}

fn join(logs: &[&LogFacts]) -> Said {
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

/// The ids by which the tree may show a native event that names no span: that of its call, and its own.
pub(crate) fn native_step_ids(
    event_type: &str,
    call_id: Option<&str>,
    seq: u64,
) -> (Option<String>, String) {
    let (_, rule, _) = family(event_type);
    (
        call_id.map(|call| call_step_id(rule, call)),
        event_step_id(seq),
    )
}

fn call_step_id(rule: &str, call_id: &str) -> String {
    format!("{rule}:{call_id}")
}

fn event_step_id(seq: u64) -> String {
    format!("event:{seq}")
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
    // Ends whose start has not come: of events without a time the order is only that of arrival.
    let mut ended: HashMap<String, VecDeque<usize>> = HashMap::new();
    for event in state.natives() {
        let (kind, rule, phase) = family(&event.event_type);
        if event.span_id.as_ref().is_some_and(|id| known.contains(id)) {
            continue; // the span itself tells more
        }
        // `native:run` and `native:agent` of one span are that span.
        let named = event
            .span_id
            .clone()
            .or_else(|| Some(call_step_id(rule, event.call_id.as_ref()?)));
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
            None if phase == Phase::Start && event.untimed => {
                let time_ns = event.timestamp_ms.saturating_mul(1_000_000);
                let waiting = ended.get_mut(&pairing);
                let found = waiting.and_then(VecDeque::pop_front);
                found.filter(|at| {
                    let end_ns = steps.get(*at).map_or(0, Step::end_or_start);
                    time_ns.abs_diff(end_ns) <= OVERTAKING_NS
                })
            }
            None => None,
        };
        let is_joined = at.is_some();
        let at = at.unwrap_or_else(|| {
            let id = named.clone().unwrap_or_else(|| event_step_id(event.seq));
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
        if named.is_none() && phase == Phase::End && event.untimed && !is_joined {
            ended.entry(pairing).or_default().push_back(at);
        } else if named.is_none() && phase == Phase::Start && !is_joined {
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
