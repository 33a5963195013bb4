//! A run, put together from its state: the tree, the model calls, the tool calls, the errors and how it went.
//!
//! Summary, invocations, tree and settlement are views of this. It is built when somebody asks and is linear in the number of spans.

mod by_time;
mod calls;
mod failures;
mod forest;
mod natives;
mod steps;
mod twins;

use std::borrow::Cow;
use std::collections::HashSet;

pub(crate) use self::calls::{Call, LlmCall};
pub(crate) use self::failures::Cause;
use self::forest::{Forest, Leaf, arrange};
pub(crate) use self::natives::native_step_ids;
use self::steps::steps;
use self::twins::twins;
use crate::convention::ends_run;
use crate::fold::{NativeFacts, Said, SpanFacts, State};
use crate::model::Kind;

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
    /// What was said in it stands in log records that name no span.
    pub(crate) told_by_time: bool,
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

    pub(crate) fn end_or_start(&self) -> u64 {
        self.facts.end_ns.unwrap_or(self.facts.start_ns)
    }

    /// When it began, and for those of the same moment which came first.
    fn began(&self) -> (u64, u64) {
        (self.facts.start_ns, self.facts.seq)
    }
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
    /// The uppermost step that was seen: the root, or what stands directly under one that was not.
    pub(crate) top_of: Vec<usize>,
    /// Of a call that is told a second time: the step that tells it first.
    pub(crate) twin_of: Vec<Option<usize>>,
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
        let mut top_of: Vec<usize> = (0..count).collect();
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
                if above < steps.len() {
                    top_of[index] = top_of[above];
                }
                agent = agent.or_else(|| agent_of[above].clone());
            }
            agent_of[index] = agent;
        }
        let twin_of = twins(&steps, &forest);
        Self {
            twin_of,
            state,
            steps,
            forest,
            order,
            tool_above,
            agent_of,
            root_of,
            top_of,
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
    pub(crate) fn is_a_graph(&self, index: usize) -> bool {
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

    /// The last native event that ends a run, unless a task began after it.
    pub(crate) fn terminal_native(&self) -> Option<&'a NativeFacts> {
        self.state
            .run_natives
            .values()
            .next_back()
            .filter(|event| ends_run(&event.event_type))
    }
}
