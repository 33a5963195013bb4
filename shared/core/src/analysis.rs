//! What an engineer would say of a run: where its time went, what it waits for, what went wrong first, and what it did in vain.
//!
//! All of it is computed from the folded state, so it is the same on every instance and for every order of arrival. It holds names, counts and times of steps; of what was
//! said in them nothing but the texts of errors, which stand in fields of their own ([`ErrorLine::error`], [`Finding::error`]).

mod broken;
mod path;
mod repeats;
mod slow;
mod timeline;
mod tokens;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::Serialize;
use serde_json::{Map, Value};

use self::path::Path;
use self::repeats::Acts;
use self::timeline::{Node, Timeline, Work};
use crate::event::{rfc3339_ms, rfc3339_ns};
use crate::fold::{State, shorten};
use crate::model::{Kind, Usage};
use crate::pricing::{Cost, Costs, Prices};
use crate::run::{Call, Cause, LlmCall, Run, Step};
use crate::settle::Status;
use crate::stats::{Dimension, History};
use crate::summary::plain_model;
use crate::verbosity::{PREVIEW_CHARACTERS, Verbosity, preview_text};

/// Steps listed of the path, beside it, by self time, and of what is waited for.
const MAX_LISTED: usize = 100;
/// Errors listed; `errors_count` counts all.
const MAX_ERRORS: usize = 1_000;
/// Findings of one class.
const MAX_OF_CLASS: usize = 20;
/// Steps that one finding names; its `numbers` count all.
const MAX_SPANS: usize = 50;
/// Bytes of a name in a sentence.
const MAX_NAME_BYTES: usize = 80;

/// From when on something is worth a remark.
#[derive(Clone, Debug, PartialEq)]
pub struct Thresholds {
    /// Share of the critical path that one step has to itself, 0 to 1.
    pub bottleneck_share: f64,
    pub bottleneck_ms: u64,
    /// A step is slower than usual beyond this many times the 95th percentile of its history, and beyond it by this much.
    pub slower_factor: f64,
    pub slower_ms: u64,
    /// Durations that a history needs to count.
    pub history_count: u64,
    /// The same call with the same arguments, and rounds of one pattern.
    pub loop_count: u64,
    /// Input tokens that were sent again, and came from no cache.
    pub repeated_tokens: u64,
    /// Size of a tool's result as JSON, in bytes.
    pub result_bytes: u64,
    /// Time that calls could have saved by running side by side.
    pub missed_ms: u64,
    /// Time until the first piece of an answer came.
    pub first_token_ms: u64,
    /// How far a step may lie outside of the one that called it.
    pub skew_ms: u64,
}

impl Default for Thresholds {
    fn default() -> Self {
        Self {
            bottleneck_share: 0.5,
            bottleneck_ms: 1_000,
            slower_factor: 1.5,
            slower_ms: 500,
            history_count: 20,
            loop_count: 3,
            repeated_tokens: 20_000,
            result_bytes: 20_000,
            missed_ms: 500,
            first_token_ms: 3_000,
            skew_ms: 50,
        }
    }
}

/// What an analysis is told beside the state.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    pub status: Status,
    pub now_unix_ms: u64,
    pub thresholds: &'a Thresholds,
    /// How long these agents, tools and models usually take.
    pub history: &'a History,
    pub prices: &'a Prices,
}

/// What a remark is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// The first failure, where it arose.
    RootCauseError,
    /// Steps that never ended.
    UnclosedSpan,
    /// One step has most of the critical path to itself.
    Bottleneck,
    /// A step took longer than almost all before it.
    SlowerThanUsual,
    /// The same call again and again, or the same few in turns.
    Loop,
    /// A call was made again after it had failed.
    Retry,
    /// The same tool call twice, although it had succeeded.
    RepeatedCall,
    /// Tokens that were paid for again and again.
    TokenWaste,
    /// An answer was long in coming.
    SlowFirstToken,
    /// Calls that waited for one another without need.
    MissedParallelism,
    /// A step lies outside of the one that called it.
    ClockSkew,
}

impl Class {
    /// The name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::RootCauseError => "root_cause_error",
            Self::UnclosedSpan => "unclosed_span",
            Self::Bottleneck => "bottleneck",
            Self::SlowerThanUsual => "slower_than_usual",
            Self::Loop => "loop",
            Self::Retry => "retry",
            Self::RepeatedCall => "repeated_call",
            Self::TokenWaste => "token_waste",
            Self::SlowFirstToken => "slow_first_token",
            Self::MissedParallelism => "missed_parallelism",
            Self::ClockSkew => "clock_skew",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    Error,
    Warning,
    Info,
}

/// One remark.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Finding {
    pub class: Class,
    pub severity: Severity,
    /// The steps that it rests on, the one to look at first in front; at most 50, `numbers` count all.
    pub spans: Vec<String>,
    /// The names of those steps, each once.
    pub components: Vec<String>,
    #[cfg_attr(feature = "openapi", schema(value_type = std::collections::HashMap<String, Value>))]
    pub numbers: Map<String, Value>,
    /// What is so, in a sentence.
    pub message: String,
    /// What to do about it, in a sentence.
    pub recommendation: String,
    /// Of an error its text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// A run, examined. The names of seed 001 have its shapes.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Analysis {
    pub trace_id: String,
    pub status: Status,
    /// The last event that is counted here.
    pub as_of_seq: u64,
    pub total_events: u64,
    /// More came than is kept of one trace; what is said is said of what is kept.
    pub truncated: bool,
    /// From the first start to the last end known so far; to now where a step is open.
    pub duration_ms: f64,
    pub findings: Vec<Finding>,
    /// Steps for which the run waited, in order; the first 100 by their time on the path.
    pub critical_path: Vec<PathStep>,
    /// Steps of the path that are not listed.
    pub critical_path_left_out: usize,
    /// Steps that ran beside the path, the longest first, at most 100.
    pub parallel: Vec<ParallelStep>,
    /// Steps by the time that was theirs alone, at most 100.
    pub steps: Vec<StepTime>,
    /// Of a run that goes on: the open steps in which nothing is open.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub waiting_on: Vec<Waiting>,
    pub time: Shares,
    pub parallelism: Parallelism,
    pub cost_by_agent: Vec<AgentCost>,
    /// The dearest first.
    pub cost_by_model: Vec<ModelCost>,
    /// How often each event type came.
    pub event_distribution: BTreeMap<String, u64>,
    /// Seconds, by the name of the tool, agent, model or step.
    pub component_execution_times: BTreeMap<String, Vec<f64>>,
    pub bottlenecks: Vec<Bottleneck>,
    pub errors: Vec<ErrorLine>,
    pub errors_count: usize,
    pub recommendations: Vec<String>,
}

impl Analysis {
    /// As it is told at a level: below `debug` the texts of errors are cut to 200 characters, at `minimal` only their types are told.
    pub fn at(mut self, level: Verbosity) -> Self {
        let shown = |text: &str| match level {
            Verbosity::Minimal => String::new(),
            Verbosity::Standard | Verbosity::Detailed => preview_text(text, PREVIEW_CHARACTERS),
            Verbosity::Debug => text.to_owned(),
        };
        for error in &mut self.errors {
            error.error = shown(&error.error);
        }
        for finding in &mut self.findings {
            let text = finding.error.take().map(|text| shown(&text));
            finding.error = text.filter(|text| !text.is_empty());
        }
        self
    }
}

/// A step on the critical path.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PathStep {
    pub span_id: String,
    pub name: String,
    #[cfg_attr(feature = "openapi", schema(value_type = crate::model::Kind))]
    pub kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
    #[cfg_attr(feature = "openapi", schema(format = DateTime))]
    pub start_time: String,
    pub duration_ms: f64,
    /// The time on the path that is its own, not that of steps in it.
    pub path_ms: f64,
    /// Of the path.
    pub share: f64,
}

/// A step beside the critical path.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ParallelStep {
    pub span_id: String,
    pub name: String,
    #[cfg_attr(feature = "openapi", schema(value_type = crate::model::Kind))]
    pub kind: &'static str,
    pub duration_ms: f64,
    /// How much longer it could have taken before the run would have.
    pub slack_ms: f64,
    /// The step on the path that ended after it.
    pub beside: String,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct StepTime {
    pub span_id: String,
    pub name: String,
    #[cfg_attr(feature = "openapi", schema(value_type = crate::model::Kind))]
    pub kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
    pub total_ms: f64,
    /// Without the time of the steps in it.
    pub self_ms: f64,
}

/// An open step in which nothing is open.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Waiting {
    pub span_id: String,
    pub name: String,
    #[cfg_attr(feature = "openapi", schema(value_type = crate::model::Kind))]
    pub kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
    #[cfg_attr(feature = "openapi", schema(format = DateTime))]
    pub since: String,
    pub open_ms: f64,
    /// Since anything arrived of this trace.
    pub silent_ms: u64,
    /// It was never seen itself: steps in it name it, and it is exported when it ends.
    pub estimated: bool,
    /// The name of the step in it that ended last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
}

/// Shares of the time from the first start to the last end, along the critical path; together 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Shares {
    pub model: f64,
    pub tool: f64,
    pub retrieval: f64,
    /// Steps that hold no others and are none of these.
    pub other: f64,
    /// A step was open and nothing ran in it.
    pub queue: f64,
    /// Nothing was open.
    pub idle: f64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Parallelism {
    /// The time of calls and of steps that hold no others, over the time in which anything ran: how many worked at once on average.
    pub achieved: f64,
    /// The most that ran at one moment.
    pub most: usize,
    /// What could have been saved by running side by side what one answer asked for.
    pub missed_ms: f64,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AgentCost {
    /// Absent: calls of no known agent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
    pub llm_calls: usize,
    pub input_tokens: u64,
    pub output_tokens: u64,
    pub cached_tokens: u64,
    /// US dollars, over the calls whose cost is known; absent when none is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost_usd: Option<f64>,
    pub unpriced_llm_calls: usize,
}

/// As [`AgentCost`], of the calls of one model.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ModelCost {
    /// As it was asked for, else as it answered; without the prefix of a provider. Absent: calls of no known model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    pub llm_calls: usize,
    pub input_tokens: u64,
    pub output_tokens: u64,
    pub cached_tokens: u64,
    /// US dollars, over the calls whose cost is known; absent when none is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost_usd: Option<f64>,
    pub unpriced_llm_calls: usize,
}

#[derive(Debug, Default)]
struct Spent {
    llm_calls: usize,
    usage: Usage,
    costs: Costs,
}

impl Spent {
    fn usd(&self) -> Option<f64> {
        self.costs.known.map(Cost::usd)
    }
}

/// As in seed 001, with the numbers that it lacked.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Bottleneck {
    pub component: String,
    /// Seconds, over all executions of this component in the run.
    pub avg_execution_time: f64,
    pub executions: usize,
    pub span_id: String,
    /// Seconds of this one step.
    pub execution_time: f64,
    /// Of the critical path.
    pub share: f64,
}

/// As in seed 001, with where to look.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = AnalysisError))]
pub struct ErrorLine {
    pub component: String,
    /// The text of the error.
    pub error: String,
    /// When it arose, RFC 3339.
    #[cfg_attr(feature = "openapi", schema(format = DateTime))]
    pub timestamp: String,
    #[serde(rename = "type")]
    pub error_type: String,
    pub span_id: String,
    #[cfg_attr(feature = "openapi", schema(value_type = crate::model::Kind))]
    pub kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
}

/// Everything that the remarks are made from.
struct Seen<'a> {
    run: &'a Run<'a>,
    asked: &'a Asked<'a>,
    timeline: Timeline,
    path: Path,
    calls: Vec<LlmCall<'a>>,
    tools: Vec<Call>,
    causes: Vec<Cause>,
    /// By place in [`Run::steps`].
    call_of: HashMap<usize, usize>,
}

/// Agents, models and tools whose history an analysis of this run compares it with; of more than 500 the first.
pub fn names_in(state: &State) -> Vec<(Dimension, String)> {
    const MOST: usize = 500;
    let mut names: BTreeSet<(Dimension, String)> = BTreeSet::new();
    let mut add = |of: Dimension, name: Option<&str>| {
        if let Some(name) = name.filter(|name| !name.is_empty())
            && names.len() < MOST
        {
            names.insert((of, name.to_owned()));
        }
    };
    for facts in state.spans.values() {
        let model = facts
            .request_model
            .as_ref()
            .or(facts.response_model.as_ref());
        match facts.kind {
            Kind::Agent => add(
                Dimension::Agent,
                facts.agent.as_deref().or(Some(&facts.name)),
            ),
            Kind::Tool => add(
                Dimension::Tool,
                facts.tool.as_ref().map(|tool| tool.name.as_str()),
            ),
            Kind::Llm => add(Dimension::Model, model.map(|model| plain_model(model))),
            _ => {}
        }
    }
    for event in state.natives() {
        add(Dimension::Agent, event.agent.as_deref());
        add(
            Dimension::Tool,
            event.tool.as_ref().map(|tool| tool.name.as_str()),
        );
        add(Dimension::Model, event.model.as_deref().map(plain_model));
    }
    names.into_iter().collect()
}

/// Examines a run, live or ended, from all that is kept of it. The work is in proportion to `n log n` for `n` steps.
pub fn analyze(state: &State, trace_id: &str, asked: &Asked) -> Analysis {
    let run = Run::of(state);
    let seen = Seen::of(&run, asked);
    let acts = Acts::of(&seen);
    let mut findings = broken::findings(&seen, &acts);
    findings.extend(slow::findings(&seen));
    let (missed, missed_ns) = slow::missed(&seen);
    findings.extend(missed);
    findings.extend(repeats::findings(&seen, &acts));
    findings.extend(tokens::findings(&seen, &acts));
    findings.sort_by_key(|finding| (finding.severity, finding.class));
    let mut of_class: HashMap<Class, usize> = HashMap::new();
    findings.retain(|finding| {
        let count = of_class.entry(finding.class).or_default();
        *count += 1;
        *count <= MAX_OF_CLASS
    });
    let mut recommendations: Vec<String> = Vec::new();
    for finding in &findings {
        if !recommendations.contains(&finding.recommendation) {
            recommendations.push(finding.recommendation.clone());
        }
    }
    let component_execution_times = seen.execution_times();
    let bottlenecks = seen.bottlenecks(&findings, &component_execution_times);
    let (critical_path, critical_path_left_out) = seen.critical_path();
    Analysis {
        trace_id: trace_id.to_owned(),
        status: asked.status,
        as_of_seq: state.last_seq,
        total_events: state.events,
        truncated: state.is_truncated(),
        duration_ms: ms(seen.timeline.wall_ns()),
        critical_path,
        critical_path_left_out,
        parallel: seen.parallel(),
        steps: seen.by_self_time(),
        waiting_on: seen.waiting_on(),
        time: seen.shares(),
        parallelism: seen.parallelism(missed_ns),
        cost_by_agent: seen.cost_by_agent(),
        cost_by_model: seen.cost_by_model(),
        event_distribution: state.event_types.counts(),
        component_execution_times,
        bottlenecks,
        errors: seen.errors(),
        errors_count: seen.causes.len(),
        findings,
        recommendations,
    }
}

impl<'a> Seen<'a> {
    fn of(run: &'a Run<'a>, asked: &'a Asked<'a>) -> Self {
        let timeline = Timeline::of(run, asked);
        let path = Path::of(&timeline);
        let calls = run.llm_calls();
        let tools = run.tool_calls(&calls);
        let call_of = calls
            .iter()
            .enumerate()
            .map(|(at, call)| (call.step, at))
            .collect();
        Self {
            causes: run.causes(),
            run,
            asked,
            timeline,
            path,
            calls,
            tools,
            call_of,
        }
    }

    fn node(&self, at: usize) -> &Node {
        &self.timeline.nodes[at]
    }

    fn step(&self, node: usize) -> &Step<'a> {
        &self.run.steps[self.timeline.nodes[node].step]
    }

    fn id(&self, node: usize) -> String {
        self.step(node).id.clone()
    }

    fn agent(&self, node: usize) -> Option<&str> {
        let step = self.timeline.nodes[node].step;
        self.run.agent_of.get(step).and_then(Option::as_deref)
    }

    fn component(&self, node: usize) -> String {
        component(self.step(node))
    }

    /// The name as it stands in a sentence: what it is, and how it is called.
    fn called(&self, node: usize) -> String {
        let facts = &self.step(node).facts;
        let has_model = facts.request_model.is_some() || facts.response_model.is_some();
        match facts.kind == Kind::Llm && !has_model {
            true => format!("model call `{}`", shortened(&self.component(node))),
            false => called(facts.kind, &self.component(node)),
        }
    }

    /// Steps that stand for themselves: not the parts of a call.
    fn owners(&self) -> impl Iterator<Item = usize> {
        let nodes = self.timeline.nodes.iter().enumerate();
        nodes.filter_map(|(at, node)| (node.owner == at).then_some(at))
    }

    /// By node: the time on the path of it and of its parts.
    fn path_by_owner(&self) -> Vec<u64> {
        let mut by_owner = vec![0u64; self.timeline.nodes.len()];
        for (at, node) in self.timeline.nodes.iter().enumerate() {
            by_owner[node.owner] += self.path.on_path_ns[at];
        }
        by_owner
    }

    fn critical_path(&self) -> (Vec<PathStep>, usize) {
        let busy_ns = self.path.busy_ns();
        let mut is_listed = vec![false; self.timeline.nodes.len()];
        let mut on_path: Vec<usize> = Vec::new();
        for segment in &self.path.segments {
            if let Some(node) = segment.node
                && !is_listed[node]
            {
                is_listed[node] = true;
                on_path.push(node);
            }
        }
        let mut by_time = on_path.clone();
        by_time.sort_by_key(|node| std::cmp::Reverse(self.path.on_path_ns[*node]));
        for node in by_time.iter().skip(MAX_LISTED) {
            is_listed[*node] = false;
        }
        let left_out = on_path.len().saturating_sub(MAX_LISTED);
        let listed = on_path.into_iter().filter(|node| is_listed[*node]);
        let steps = listed.map(|at| {
            let node = self.node(at);
            PathStep {
                span_id: self.id(at),
                name: self.component(at),
                kind: self.step(at).facts.kind.as_str(),
                agent: self.agent(at).map(str::to_owned),
                start_time: rfc3339_ns(node.start_ns),
                duration_ms: ms(node.total_ns()),
                path_ms: ms(self.path.on_path_ns[at]),
                share: share(self.path.on_path_ns[at], busy_ns),
            }
        });
        (steps.collect(), left_out)
    }

    fn parallel(&self) -> Vec<ParallelStep> {
        let mut beside: Vec<_> = self.path.beside.iter().collect();
        beside.sort_by_key(|step| std::cmp::Reverse(self.node(step.node).total_ns()));
        let listed = beside.into_iter().take(MAX_LISTED);
        listed
            .map(|step| ParallelStep {
                span_id: self.id(step.node),
                name: self.component(step.node),
                kind: self.step(step.node).facts.kind.as_str(),
                duration_ms: ms(self.node(step.node).total_ns()),
                slack_ms: ms(step.slack_ns),
                beside: self.id(step.path),
            })
            .collect()
    }

    fn by_self_time(&self) -> Vec<StepTime> {
        let mut nodes: Vec<usize> = (0..self.timeline.nodes.len()).collect();
        nodes.sort_by_key(|at| std::cmp::Reverse(self.node(*at).self_ns));
        let listed = nodes.into_iter().take(MAX_LISTED);
        listed
            .map(|at| StepTime {
                span_id: self.id(at),
                name: self.component(at),
                kind: self.step(at).facts.kind.as_str(),
                agent: self.agent(at).map(str::to_owned),
                total_ms: ms(self.node(at).total_ns()),
                self_ms: ms(self.node(at).self_ns),
            })
            .collect()
    }

    fn waiting_on(&self) -> Vec<Waiting> {
        if !matches!(self.asked.status, Status::Running | Status::Stalled) {
            return Vec::new();
        }
        let run = self.run;
        let silent_ms = self
            .asked
            .now_unix_ms
            .saturating_sub(run.state.last_arrival_unix_ms);
        let known_ns = run.steps.iter().map(Step::end_or_start).max().unwrap_or(0);
        let now_ns = known_ns.saturating_add(silent_ms.saturating_mul(1_000_000));
        // Below a step as the timeline has it, and as the producers told it: parents that never came are in the latter only.
        let nodes = &self.timeline.nodes;
        let mut holds_open = vec![false; nodes.len()];
        for (at, node) in nodes.iter().enumerate().rev() {
            if let Some(parent) = node.parent {
                holds_open[parent] |= holds_open[at] || broken::may_be_waited_for(self.step(at));
            }
        }
        let mut open_below = vec![false; run.forest.parent.len()];
        let mut waiting = Vec::new();
        for (index, _) in run.forest.depth_first().into_iter().rev() {
            let is_open = match run.steps.get(index) {
                Some(step) => broken::may_be_waited_for(step),
                None => true,
            };
            let node = self.timeline.at(index);
            let has_open_below = open_below[index] || node.is_some_and(|at| holds_open[at]);
            if let Some(above) = run.forest.parent[index] {
                open_below[above] |= is_open || has_open_below;
            }
            if !is_open || has_open_below {
                continue;
            }
            let step = run.steps.get(index);
            let start_ns =
                step.map_or_else(|| run.ghost_start_ns(index), |step| step.facts.start_ns);
            waiting.push((
                start_ns,
                Waiting {
                    span_id: run.id(index).unwrap_or_default(),
                    name: step.map_or_else(|| "unknown".to_owned(), component),
                    kind: step.map_or(Kind::Span, |step| step.facts.kind).as_str(),
                    agent: run.agent_of.get(index).cloned().flatten(),
                    since: rfc3339_ns(start_ns),
                    open_ms: ms(now_ns.saturating_sub(start_ns)),
                    silent_ms,
                    estimated: step.is_none_or(|step| step.estimated),
                    after: self.ended_last_in(index),
                },
            ));
        }
        waiting.sort_by_key(|(start_ns, _)| *start_ns);
        let listed = waiting.into_iter().take(MAX_LISTED);
        listed.map(|(_, waiting)| waiting).collect()
    }

    /// The name of the step right below that ended last.
    fn ended_last_in(&self, index: usize) -> Option<String> {
        let children = self.run.forest.children.get(index)?.iter();
        let ended = children
            .filter_map(|child| self.run.steps.get(*child))
            .filter(|step| !step.is_open() && !step.facts.made_up);
        ended.max_by_key(|step| step.end_or_start()).map(component)
    }

    fn shares(&self) -> Shares {
        let (mut model, mut tool, mut retrieval, mut other, mut queue) = (0, 0, 0, 0, 0);
        for (at, on_path_ns) in self.path.on_path_ns.iter().enumerate() {
            let sum: &mut u64 = match self.node(at).work {
                Some(Work::Model) => &mut model,
                Some(Work::Tool) => &mut tool,
                Some(Work::Retrieval) => &mut retrieval,
                None if self.timeline.children[at].is_empty() => &mut other,
                None => &mut queue,
            };
            *sum += on_path_ns;
        }
        // Parents that are exported when they end are open until then.
        let mut idle = self.path.idle_ns;
        if self.asked.status == Status::Running && !self.run.forest.ghosts.is_empty() {
            queue += std::mem::take(&mut idle);
        }
        let of_all = |ns: u64| share(ns, self.timeline.wall_ns());
        Shares {
            model: of_all(model),
            tool: of_all(tool),
            retrieval: of_all(retrieval),
            other: of_all(other),
            queue: of_all(queue),
            idle: of_all(idle),
        }
    }

    fn parallelism(&self, missed_ns: u64) -> Parallelism {
        let leaves = || {
            let nodes = self.timeline.nodes.iter().enumerate();
            nodes
                .filter(|(at, _)| self.timeline.children[*at].is_empty())
                .map(|(_, node)| node)
        };
        // A call that holds what it triggers (Google ADK 1) works where nothing in it does.
        let nodes = self.timeline.nodes.iter().enumerate();
        let worked_ns = nodes
            .filter(|(at, node)| node.work.is_some() || self.timeline.children[*at].is_empty())
            .fold(0u64, |sum, (_, node)| sum.saturating_add(node.self_ns));
        // Ends before starts: what follows at once does not run beside.
        let mut marks: Vec<(u64, i8)> = leaves()
            .filter(|node| node.total_ns() > 0)
            .flat_map(|node| [(node.start_ns, 1), (node.own_end_ns, -1)])
            .collect();
        marks.sort_unstable();
        let (mut now, mut most) = (0usize, 0usize);
        for (_, mark) in marks {
            now = now.saturating_add_signed(isize::from(mark));
            most = most.max(now);
        }
        let busy_ns = self.path.busy_ns();
        Parallelism {
            achieved: match busy_ns {
                0 => 0.0,
                busy_ns => rounded(worked_ns as f64 / busy_ns as f64, 100.0),
            },
            most,
            missed_ms: ms(missed_ns),
        }
    }

    fn cost_by_agent(&self) -> Vec<AgentCost> {
        let agent = |call: &LlmCall| self.run.agent_of.get(call.step).cloned().flatten();
        let told = |(agent, spent): (Option<String>, Spent)| AgentCost {
            agent,
            llm_calls: spent.llm_calls,
            input_tokens: spent.usage.input,
            output_tokens: spent.usage.output,
            cached_tokens: spent.usage.cache_read,
            cost_usd: spent.usd(),
            unpriced_llm_calls: spent.costs.unpriced,
        };
        self.spent_by(agent).into_iter().map(told).collect()
    }

    fn cost_by_model(&self) -> Vec<ModelCost> {
        let model = |call: &LlmCall| {
            let named = call.request_model.or(call.response_model)?;
            Some(plain_model(named).to_owned())
        };
        let told = |(model, spent): (Option<String>, Spent)| ModelCost {
            model,
            llm_calls: spent.llm_calls,
            input_tokens: spent.usage.input,
            output_tokens: spent.usage.output,
            cached_tokens: spent.usage.cache_read,
            cost_usd: spent.usd(),
            unpriced_llm_calls: spent.costs.unpriced,
        };
        self.spent_by(model).into_iter().map(told).collect()
    }

    /// What the model calls spent, by a name that each of them has or lacks; the dearest first.
    fn spent_by(
        &self,
        name_of: impl Fn(&LlmCall) -> Option<String>,
    ) -> Vec<(Option<String>, Spent)> {
        let mut all: Vec<(Option<String>, Spent)> = Vec::new();
        let mut place_of: HashMap<Option<String>, usize> = HashMap::new();
        for call in &self.calls {
            let name = name_of(call);
            let place = *place_of.entry(name.clone()).or_insert_with(|| {
                all.push((name, Spent::default()));
                all.len() - 1
            });
            if let Some((_, spent)) = all.get_mut(place) {
                spent.llm_calls += 1;
                spent.usage.add(&call.usage);
                let cost = call.cost(self.asked.prices);
                let is_known = cost.is_some();
                // What runs, or failed before it cost anything, lacks no price.
                let step = self.run.steps.get(call.step);
                let costs_nothing = call.usage.is_zero()
                    && step.is_some_and(|step| step.is_open() || step.facts.failure.is_some());
                if is_known || !costs_nothing {
                    spent.costs.add(cost);
                }
            }
        }
        all.sort_by(|(_, a), (_, b)| {
            let usd = |spent: &Spent| spent.usd().unwrap_or(0.0);
            (usd(b).total_cmp(&usd(a))).then(b.usage.total().cmp(&a.usage.total()))
        });
        all
    }

    fn execution_times(&self) -> BTreeMap<String, Vec<f64>> {
        let mut times: BTreeMap<String, Vec<f64>> = BTreeMap::new();
        for at in self.owners() {
            if !self.node(at).is_open {
                let seconds = seconds(self.node(at).total_ns());
                times.entry(self.component(at)).or_default().push(seconds);
            }
        }
        times
    }

    fn bottlenecks(
        &self,
        findings: &[Finding],
        times: &BTreeMap<String, Vec<f64>>,
    ) -> Vec<Bottleneck> {
        let of_class = findings.iter().filter(|one| one.class == Class::Bottleneck);
        of_class
            .filter_map(|finding| {
                let component = finding.components.first()?;
                let all = times.get(component)?;
                let number = |key: &str| finding.numbers.get(key).and_then(Value::as_f64);
                Some(Bottleneck {
                    component: component.clone(),
                    avg_execution_time: rounded(
                        all.iter().sum::<f64>() / all.len().max(1) as f64,
                        100.0,
                    ),
                    executions: all.len(),
                    span_id: finding.spans.first()?.clone(),
                    execution_time: rounded(number("duration_ms")? / 1e3, 1e3),
                    share: number("share")?,
                })
            })
            .collect()
    }

    fn errors(&self) -> Vec<ErrorLine> {
        let listed = self.causes.iter().take(MAX_ERRORS);
        listed
            .filter_map(|cause| {
                let step = self.run.steps.get(cause.step)?;
                Some(ErrorLine {
                    component: component(step),
                    error: cause.failure.message.clone(),
                    timestamp: match step.end_or_start() {
                        0 => rfc3339_ms(self.run.state.last_arrival_unix_ms),
                        ns => rfc3339_ns(ns),
                    },
                    error_type: cause.failure.kind.clone(),
                    span_id: step.id.clone(),
                    kind: step.facts.kind.as_str(),
                    agent: self.run.agent_of.get(cause.step).cloned().flatten(),
                })
            })
            .collect()
    }

    /// A remark on these steps; the first is the one to look at.
    fn finding(&self, class: Class, severity: Severity, nodes: &[usize]) -> Finding {
        let mut components: Vec<String> = Vec::new();
        for node in nodes.iter().take(MAX_SPANS) {
            let name = self.component(*node);
            if !components.contains(&name) {
                components.push(name);
            }
        }
        Finding {
            class,
            severity,
            spans: nodes
                .iter()
                .take(MAX_SPANS)
                .map(|node| self.id(*node))
                .collect(),
            components,
            numbers: Map::new(),
            message: String::new(),
            recommendation: String::new(),
            error: None,
        }
    }
}

impl Finding {
    fn number(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.numbers.insert(key.to_owned(), value.into());
        self
    }

    fn saying(mut self, message: String, recommendation: String) -> Self {
        self.message = message;
        self.recommendation = recommendation;
        self
    }
}

/// What a step is called by those who built it: its tool, agent or model, else its own name.
fn component(step: &Step) -> String {
    let facts = &step.facts;
    let model = facts
        .request_model
        .as_deref()
        .or(facts.response_model.as_deref());
    let name = match facts.kind {
        Kind::Tool => facts.tool.as_ref().map(|tool| tool.name.as_str()),
        Kind::Agent => facts.agent.as_deref(),
        Kind::Llm => model.map(plain_model),
        _ => None,
    };
    name.filter(|name| !name.is_empty())
        .unwrap_or(&facts.name)
        .to_owned()
}

fn called(kind: Kind, name: &str) -> String {
    let what = match kind {
        Kind::Llm => "model",
        Kind::Tool => "tool",
        Kind::Agent => "agent",
        Kind::Workflow => "workflow",
        Kind::Retriever => "retrieval",
        Kind::Embedding => "embedding",
        Kind::Reranker => "reranker",
        _ => "step",
    };
    format!("{what} `{}`", shortened(name))
}

fn shortened(name: &str) -> String {
    shorten(name.to_owned(), MAX_NAME_BYTES)
}

/// Milliseconds, to the microsecond.
fn ms(ns: u64) -> f64 {
    (ns / 1_000) as f64 / 1e3
}

/// Seconds, to the millisecond.
fn seconds(ns: u64) -> f64 {
    (ns.saturating_add(500_000) / 1_000_000) as f64 / 1e3
}

/// 0 to 1, to the ten thousandth, and never rounded up, so that shares of one whole are never more than it.
fn share(part_ns: u64, whole_ns: u64) -> f64 {
    match whole_ns {
        0 => 0.0,
        whole => (part_ns as f64 / whole as f64 * 1e4 + 1e-6).floor() / 1e4,
    }
}

fn rounded(number: f64, per_one: f64) -> f64 {
    (number * per_one).round() / per_one
}

/// A duration in a sentence.
fn spoken(ns: u64) -> String {
    let ms = ns / 1_000_000;
    match ms {
        0 => format!("{:.2} ms", ns as f64 / 1e6),
        1..1_000 => format!("{ms} ms"),
        1_000..60_000 => format!("{:.1} s", ns as f64 / 1e9),
        _ => format!("{} min {} s", ms / 60_000, ms % 60_000 / 1_000),
    }
}

fn percent(share: f64) -> String {
    format!("{:.0} %", share * 100.0)
}

/// A number of things in a sentence.
fn count(number: usize, one: &str, more: &str) -> String {
    match number {
        1 => format!("1 {one}"),
        number => format!("{number} {more}"),
    }
}
