//! Native events to steps: which begin and end one step, and in which other it happened.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};

use super::{Step, calls::kind_of_name};
use crate::convention::ends_run;
use crate::fold::{NativeFacts, Said, SpanFacts, State, ToolFacts};
use crate::model::Kind;

/// How far an end without a time may come before its start.
const OVERTAKING_NS: u64 = 5_000_000_000;

const RUN: &str = "native:run";
const NODE: &str = "native:node";
const AGENT: &str = "native:agent";
const THINKING: &str = "native:thinking";

/// What a native event type speaks of, and how far that is.
fn family(event_type: &str) -> (Kind, &'static str, Phase) {
    match event_type {
        "workflow_started" => (Kind::Workflow, RUN, Phase::Start),
        "workflow_completed" | "workflow_failed" => (Kind::Workflow, RUN, Phase::End),
        "task_started" => (Kind::Agent, RUN, Phase::Start),
        "task_completed" | "task_failed" => (Kind::Agent, RUN, Phase::End),
        "node_started" => (Kind::Task, NODE, Phase::Start),
        "node_finished" | "node_failed" => (Kind::Task, NODE, Phase::End),
        "llm_call_started" => (Kind::Llm, "native:llm", Phase::Start),
        "llm_call_completed" | "llm_call_failed" => (Kind::Llm, "native:llm", Phase::End),
        "tool_call_started" => (Kind::Tool, "native:tool", Phase::Start),
        "tool_call_completed" | "tool_call_failed" => (Kind::Tool, "native:tool", Phase::End),
        "retrieval_started" => (Kind::Retriever, "native:retrieval", Phase::Start),
        "retrieval_completed" | "retrieval_failed" => {
            (Kind::Retriever, "native:retrieval", Phase::End)
        }
        "thinking_started" => (Kind::Span, THINKING, Phase::Start),
        "thinking_completed" => (Kind::Span, THINKING, Phase::End),
        "agent_called" => (Kind::Agent, AGENT, Phase::Point),
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

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Start,
    End,
    Point,
}

/// Native events as steps. Start and end are joined by span id, else by call id, else first come first served among those of the same sort whose agent and name agree.
/// What names no parent is tied to the run or node in which it happened, as far as there is no doubt which ([`Open::parent_of`]).
pub(super) fn native_steps<'a>(state: &'a State, steps: &mut Vec<Step<'a>>) {
    let known: HashSet<String> = steps.iter().map(|step| step.id.clone()).collect();
    let first_native = steps.len();
    let mut position_of: HashMap<String, usize> = HashMap::new();
    let mut starts = Starts::default();
    // Ends whose start has not come: of events without a time the order is only that of arrival.
    let mut ended: HashMap<Exactly, VecDeque<usize>> = HashMap::new();
    let mut open = Open::default();
    let mut tied: Vec<(usize, usize)> = Vec::new();
    for event in state.natives() {
        let (kind, rule, phase) = family(&event.event_type);
        if event.span_id.as_ref().is_some_and(|id| known.contains(id)) {
            continue; // the span itself tells more
        }
        // Events of several sorts that name one span are of that span.
        let named = event
            .span_id
            .clone()
            .or_else(|| Some(call_step_id(rule, event.call_id.as_ref()?)));
        let sort = (rule, kind);
        let exactly: Exactly = (sort, event.agent.as_deref(), ident(event));
        let at = match &named {
            Some(id) => position_of.get(id).copied(),
            None if phase == Phase::End => starts.take(sort, event, steps),
            None if phase == Phase::Start && event.untimed => {
                let time_ns = event.timestamp_ms.saturating_mul(1_000_000);
                let waiting = ended.get_mut(&exactly);
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
                told_by_time: false,
            });
            steps.len() - 1
        });
        if !is_joined && event.span_id.is_none() && event.parent_span_id.is_none() {
            tied.extend(open.parent_of(sort, event).map(|parent| (at, parent)));
        }
        match phase {
            Phase::End if named.is_none() && event.untimed && !is_joined => {
                ended.entry(exactly).or_default().push_back(at);
            }
            Phase::Start if !is_joined => {
                if event.span_id.is_none() {
                    starts.add(sort, event, at);
                }
                open.begin(sort, event, at);
            }
            _ => {}
        }
        if phase == Phase::End {
            open.end(at);
        }
        if let Some(step) = steps.get_mut(at) {
            add_event(step, event, kind, rule, phase);
        }
    }
    for (at, parent) in tied {
        let parent = steps.get(parent).map(|step| step.id.clone());
        if let (Some(step), Some(parent)) = (steps.get_mut(at), parent)
            && step.facts.parent.is_none()
            && step.id != parent
        {
            step.facts.to_mut().parent = Some(parent);
        }
    }
    end_thoughts(state, steps, first_native);
}

/// A rule and a kind: events of one sort may begin and end one step.
type Sort = (&'static str, Kind);
/// A sort, the agent and the step's name, as one event says them.
type Exactly<'a> = (Sort, Option<&'a str>, Option<&'a str>);

/// What an event calls its step.
fn ident(event: &NativeFacts) -> Option<&str> {
    let tool = event.tool.as_ref().map(|tool| tool.name.as_str());
    event
        .name
        .as_deref()
        .or(tool.filter(|name| !name.is_empty()))
        .or(event.model.as_deref())
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Whose<'a> {
    Agent(&'a str),
    Unsaid,
    Any,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Which<'a> {
    Component(&'a str),
    Name(&'a str),
    /// A name, of one that has no component's id.
    OnlyName(&'a str),
    Unsaid,
    Any,
}

/// Steps that began and may still be going on, by what may be known of them when they end.
#[derive(Default)]
struct Starts<'a> {
    queues: HashMap<(Sort, Whose<'a>, Which<'a>), VecDeque<usize>>,
}

impl<'a> Starts<'a> {
    fn add(&mut self, sort: Sort, event: &'a NativeFacts, at: usize) {
        let whose = event.agent.as_deref().map_or(Whose::Unsaid, Whose::Agent);
        let (component, name) = (event.component_id.as_deref(), ident(event));
        let which = [
            component.map(Which::Component),
            name.map(Which::Name),
            name.filter(|_| component.is_none()).map(Which::OnlyName),
            (component.is_none() && name.is_none()).then_some(Which::Unsaid),
            Some(Which::Any),
        ];
        for which in which.into_iter().flatten() {
            for whose in [whose, Whose::Any] {
                let queue = self.queues.entry((sort, whose, which)).or_default();
                queue.push_back(at);
            }
        }
    }

    /// The first that began, has not ended, and differs in nothing that both say.
    fn take(&mut self, sort: Sort, event: &'a NativeFacts, steps: &[Step]) -> Option<usize> {
        let whose = match event.agent.as_deref() {
            Some(agent) => [Some(Whose::Agent(agent)), Some(Whose::Unsaid)],
            None => [Some(Whose::Any), None],
        };
        let name = ident(event);
        let which = match (event.component_id.as_deref(), name) {
            (Some(id), _) => [
                Some(Which::Component(id)),
                name.map(Which::OnlyName),
                Some(Which::Unsaid),
            ],
            (None, Some(name)) => [Some(Which::Name(name)), Some(Which::Unsaid), None],
            (None, None) => [Some(Which::Any), None, None],
        };
        for which in which.into_iter().flatten() {
            for whose in whose.into_iter().flatten() {
                let Some(queue) = self.queues.get_mut(&(sort, whose, which)) else {
                    continue;
                };
                while let Some(at) = queue.pop_front() {
                    if steps.get(at).is_some_and(Step::is_open) {
                        return Some(at);
                    }
                }
            }
        }
        None
    }
}

/// Runs and nodes that are going on at a moment: what happens then happens in one of them.
#[derive(Default)]
struct Open<'a> {
    runs: Going<'a>,
    workflows: BTreeSet<usize>,
    nodes: Going<'a>,
    /// The latest node of a component, open or not.
    node_of: HashMap<&'a str, usize>,
}

impl<'a> Open<'a> {
    fn begin(&mut self, (rule, kind): Sort, event: &'a NativeFacts, at: usize) {
        let agent = event.agent.as_deref();
        match rule {
            RUN => {
                self.runs.begin(agent, at);
                if kind == Kind::Workflow {
                    self.workflows.insert(at);
                }
            }
            NODE => {
                self.nodes.begin(agent, at);
                if let Some(component) = event.component_id.as_deref() {
                    self.node_of.insert(component, at);
                }
            }
            _ => {}
        }
    }

    fn end(&mut self, at: usize) {
        self.nodes.end(at);
        self.workflows.remove(&at);
        if self.runs.end(at) && self.runs.all.is_empty() {
            // Nodes that were never finished are not those of the next run.
            self.nodes = Going::default();
            self.node_of.clear();
        }
    }

    /// Where an event that names no parent happened: in the node of its component, in the one open node of its agent, in the one open run of its agent, in the one
    /// open workflow. With several to choose from nobody could tell; a node is never within a node, since workflows announce all nodes of a batch before they run.
    fn parent_of(&self, (rule, kind): Sort, event: &NativeFacts) -> Option<usize> {
        let agent = event.agent.as_deref();
        let workflow = || only(&self.workflows);
        match (rule, kind) {
            (RUN, Kind::Workflow) => None,
            (RUN | AGENT, _) => workflow(),
            (NODE, _) => self.runs.only_of(agent).or_else(workflow),
            _ => event
                .component_id
                .as_deref()
                .and_then(|component| self.node_of.get(component).copied())
                .or_else(|| self.nodes.only_of(agent))
                .or_else(|| self.runs.only_of(agent))
                .or_else(workflow),
        }
    }
}

#[derive(Default)]
struct Going<'a> {
    all: BTreeSet<usize>,
    by_agent: HashMap<Option<&'a str>, BTreeSet<usize>>,
    agent_of: HashMap<usize, Option<&'a str>>,
}

impl<'a> Going<'a> {
    fn begin(&mut self, agent: Option<&'a str>, at: usize) {
        self.all.insert(at);
        self.by_agent.entry(agent).or_default().insert(at);
        self.agent_of.insert(at, agent);
    }

    /// Whether it was going on.
    fn end(&mut self, at: usize) -> bool {
        if let Some(agent) = self.agent_of.remove(&at)
            && let Some(own) = self.by_agent.get_mut(&agent)
        {
            own.remove(&at);
        }
        self.all.remove(&at)
    }

    /// The one of an agent, else the one of nobody in particular; for nobody in particular the one there is.
    fn only_of(&self, agent: Option<&str>) -> Option<usize> {
        if agent.is_none() {
            return only(&self.all);
        }
        let of = |agent| self.by_agent.get(&agent).filter(|own| !own.is_empty());
        only(of(agent).or_else(|| of(None))?)
    }
}

fn only(set: &BTreeSet<usize>) -> Option<usize> {
    set.first().copied().filter(|_| set.len() == 1)
}

/// Who thought when a run failed or was cancelled never said that it was done: the thought ended with the step or run that it was part of.
fn end_thoughts(state: &State, steps: &mut [Step], first_native: usize) {
    let is_open_thought = |step: &Step| step.is_open() && step.facts.rule == THINKING;
    if !steps.iter().skip(first_native).any(is_open_thought) {
        return;
    }
    let end_of: HashMap<String, u64> = steps
        .iter()
        .filter_map(|step| Some((step.id.clone(), step.facts.end_ns?)))
        .collect();
    let run_ended_ns = state
        .run_natives
        .values()
        .next_back()
        .filter(|event| ends_run(&event.event_type))
        .map(|event| event.timestamp_ms.saturating_mul(1_000_000));
    for step in steps.iter_mut().skip(first_native) {
        if !is_open_thought(step) {
            continue;
        }
        let above = step.facts.parent.as_ref();
        let end_ns = above
            .and_then(|above| end_of.get(above).copied())
            .or(run_ended_ns);
        if let Some(end_ns) = end_ns {
            step.facts.to_mut().end_ns = Some(end_ns.max(step.facts.start_ns));
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
        // An end that nobody saw begin says how long it took; so does one without a time, of whose start only the arrival is known.
        if let Some(duration) = event.duration_us
            && (facts.start_ns == time_ns || event.untimed)
        {
            let began_ns = time_ns.saturating_sub(duration.saturating_mul(1_000));
            facts.start_ns = facts.start_ns.min(began_ns);
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
            .unwrap_or_else(|| match rule {
                THINKING => "thinking".to_owned(),
                _ => event.event_type.clone(),
            });
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
    facts.first_chunk_ns = event.first_chunk_ns.or(facts.first_chunk_ns);
    facts.chunks = event.chunks.or(facts.chunks);
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
            if told.result_bytes > 0 {
                tool.result_bytes = told.result_bytes;
                tool.result_hash = told.result_hash;
            }
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
