//! The steps of a run on one clock: which of them count, which lies in which, from when to when.
//!
//! What producers say of time is taken as far as it can be true: a step does not begin before the one that called it, and one that belongs to another
//! clock is moved.

use std::cmp::Reverse;
use std::collections::HashSet;

use super::Asked;
use crate::model::Kind;
use crate::run::{Run, Step};
use crate::settle::Status;

/// The JavaScript SDK starts spans at whole milliseconds: steps that follow one another may seem to overlap by as much.
pub(super) const COARSE_CLOCK_NS: u64 = 1_000_000;
/// Steps that are looked at to find the one that holds a native event without a parent.
const MAX_HOLDERS: usize = 64;

/// What a moment of a run is spent on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Work {
    Model,
    Tool,
    Retrieval,
}

/// One step that counts.
#[derive(Clone, Debug)]
pub(super) struct Node {
    /// Its place in [`Run::steps`].
    pub step: usize,
    /// The nearest step above it that counts.
    pub parent: Option<usize>,
    pub start_ns: u64,
    /// Of an open step the last moment that is known of it.
    pub own_end_ns: u64,
    /// With what was begun in it and outlived it.
    pub end_ns: u64,
    pub is_open: bool,
    /// The work that this is part of; `None` for agents, workflows and what lies in them only.
    pub work: Option<Work>,
    /// The step whose time this one's is: a request within a model call is the call's.
    pub owner: usize,
    /// Its own time, without that of the steps in it.
    pub self_ns: u64,
}

impl Node {
    pub(super) fn total_ns(&self) -> u64 {
        self.own_end_ns.saturating_sub(self.start_ns)
    }
}

/// A step that was not within the one that it names as its parent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Skew {
    pub node: usize,
    /// How far out it was.
    pub by_ns: u64,
    /// It was too long to be moved, and is cut.
    pub is_cut: bool,
}

#[derive(Debug, Default)]
pub(super) struct Timeline {
    /// Parents before what is in them.
    pub nodes: Vec<Node>,
    /// By start.
    pub children: Vec<Vec<usize>>,
    /// By start.
    pub roots: Vec<usize>,
    /// By place in [`Run::steps`].
    pub node_of: Vec<Option<usize>>,
    pub from_ns: u64,
    pub to_ns: u64,
    pub skews: Vec<Skew>,
    /// By node the one that nothing holds, at or above it.
    top: Vec<usize>,
}

impl Timeline {
    pub(super) fn top_of(&self, at: usize) -> usize {
        self.top.get(at).copied().unwrap_or(at)
    }

    pub(super) fn wall_ns(&self) -> u64 {
        self.to_ns.saturating_sub(self.from_ns)
    }

    /// The node that stands for a step: its own, else that of the nearest step above that counts.
    pub(super) fn at(&self, step: usize) -> Option<usize> {
        self.node_of.get(step).copied().flatten()
    }

    pub(super) fn of(run: &Run, asked: &Asked) -> Self {
        let mut timeline = Self::arranged(run);
        let horizon_ns = timeline.horizon_ns(run, asked);
        timeline.set_times(run, asked, horizon_ns);
        timeline.set_work(run);
        timeline.set_self_times();
        let ends = timeline.nodes.iter().map(|node| node.end_ns);
        timeline.to_ns = ends.max().unwrap_or(0);
        if asked.status == Status::Running && !run.forest.ghosts.is_empty() {
            // Their parents run on.
            timeline.to_ns = timeline.to_ns.max(horizon_ns);
        }
        let starts = timeline.nodes.iter().map(|node| node.start_ns);
        timeline.from_ns = starts.min().unwrap_or(timeline.to_ns);
        timeline
    }

    /// The tree of the steps that count; those between them are passed through.
    fn arranged(run: &Run) -> Self {
        let count = run.forest.parent.len();
        let counts: Vec<bool> = (0..run.steps.len())
            .map(|index| {
                run.twin_of.get(index).copied().flatten().is_none()
                    && run.steps.get(index).is_some_and(step_counts)
            })
            .collect();
        let is_counted = |index: usize| counts.get(index) == Some(&true);
        // By forest index: the step that stands for it.
        let mut anchor: Vec<Option<usize>> = vec![None; count];
        let mut parent: Vec<Option<usize>> = vec![None; run.steps.len()];
        for (index, _) in run.forest.depth_first() {
            let above = run.forest.parent.get(index).copied().flatten();
            let above_anchor = above.and_then(|above| anchor.get(above).copied().flatten());
            let twin = run.twin_of.get(index).copied().flatten();
            let stands = if is_counted(index) {
                if let Some(slot) = parent.get_mut(index) {
                    *slot = above_anchor;
                }
                Some(index)
            } else if let Some(twin) = twin.filter(|twin| {
                // Beside the other one only: one that lies deeper could be below this.
                is_counted(*twin) && run.forest.parent.get(*twin).copied().flatten() == above
            }) {
                Some(twin)
            } else {
                above_anchor
            };
            if let Some(slot) = anchor.get_mut(index) {
                *slot = stands;
            }
        }
        put_natives_in_their_holders(run, &counts, &mut parent);

        let mut below: Vec<Vec<usize>> = vec![Vec::new(); run.steps.len()];
        let mut top = Vec::new();
        for (index, above) in parent.iter().enumerate() {
            if !is_counted(index) {
                continue;
            }
            match above.and_then(|above| below.get_mut(above)) {
                Some(list) => list.push(index),
                None => top.push(index),
            }
        }
        let mut timeline = Self {
            node_of: vec![None; run.steps.len()],
            ..Self::default()
        };
        let mut stack: Vec<(usize, Option<usize>)> =
            top.into_iter().rev().map(|step| (step, None)).collect();
        while let Some((step, parent)) = stack.pop() {
            let node = timeline.nodes.len();
            timeline.nodes.push(Node {
                step,
                parent,
                start_ns: 0,
                own_end_ns: 0,
                end_ns: 0,
                is_open: run.steps.get(step).is_some_and(Step::is_open),
                work: None,
                owner: node,
                self_ns: 0,
            });
            timeline.children.push(Vec::new());
            match parent.and_then(|parent| timeline.children.get_mut(parent)) {
                Some(list) => list.push(node),
                None => timeline.roots.push(node),
            }
            if let Some(slot) = timeline.node_of.get_mut(step) {
                *slot = Some(node);
            }
            let children = below.get(step).into_iter().flatten().rev();
            stack.extend(children.map(|child| (*child, Some(node))));
        }
        for (index, stands) in anchor.iter().enumerate().take(run.steps.len()) {
            if let (Some(stands), None) = (stands, timeline.at(index)) {
                let node = timeline.at(*stands);
                if let Some(slot) = timeline.node_of.get_mut(index) {
                    *slot = node;
                }
            }
        }
        timeline
    }

    /// Up to when open steps are taken to have run: now, on the producers' clock, while the run goes on.
    fn horizon_ns(&self, run: &Run, asked: &Asked) -> u64 {
        let steps = self
            .nodes
            .iter()
            .filter_map(|node| run.steps.get(node.step));
        let known_ns = steps
            .map(|step| {
                let facts = &step.facts;
                facts.end_ns.unwrap_or(0).max(facts.start_ns)
            })
            .max()
            .unwrap_or(0);
        let goes_on = !run.forest.ghosts.is_empty() || self.nodes.iter().any(|node| node.is_open);
        match asked.status {
            Status::Running if goes_on => {
                // Their clock is not ours: what both know is how long they have been silent.
                let silent_ms = asked
                    .now_unix_ms
                    .saturating_sub(run.state.last_arrival_unix_ms);
                known_ns.saturating_add(silent_ms.saturating_mul(1_000_000))
            }
            _ => known_ns,
        }
    }

    fn set_times(&mut self, run: &Run, asked: &Asked, horizon_ns: u64) {
        let is_live = matches!(asked.status, Status::Running | Status::Stalled);
        let tolerance_ns = asked.thresholds.skew_ms.saturating_mul(1_000_000);
        let agreeing = self.agreeing_clocks(run, tolerance_ns);
        let told_starts = self.told_starts(run);
        // How far a clock is moved, per node.
        let mut offsets: Vec<i128> = Vec::with_capacity(self.nodes.len());
        for at in 0..self.nodes.len() {
            let node = &self.nodes[at];
            let Some(step) = run.steps.get(node.step) else {
                offsets.push(0);
                continue;
            };
            let parent = node.parent.and_then(|parent| self.nodes.get(parent));
            let parent_step = parent.and_then(|parent| run.steps.get(parent.step));
            let services = (
                step.facts.service.as_deref(),
                parent_step.and_then(|parent| parent.facts.service.as_deref()),
            );
            let other_clock = matches!(services, (Some(own), Some(above)) if own != above);
            let clocks_agree =
                matches!(services, (Some(own), Some(above)) if agreeing.contains(&(own, above)));
            let mut offset = match node.parent {
                Some(parent) if !other_clock => offsets.get(parent).copied().unwrap_or(0),
                _ => 0,
            };
            let moved = |time_ns: u64, offset: i128| {
                u64::try_from((i128::from(time_ns) + offset).clamp(0, i128::from(u64::MAX)))
                    .unwrap_or(u64::MAX)
            };
            let told_end = step.facts.end_ns;
            let raw_start = told_starts.get(at).copied().unwrap_or_default();
            let raw_end = told_end.unwrap_or(match is_live {
                true => horizon_ns.max(raw_start),
                false => raw_start,
            });
            let mut start = moved(raw_start, offset);
            let mut end = moved(raw_end, offset).max(start);
            if let (Some(above), Some(above_step)) = (parent, parent_step)
                && !above_step.estimated
            {
                let (from, to) = (above.start_ns, above.own_end_ns);
                let fits = end - start <= to.saturating_sub(from)
                    && !step.is_open()
                    && !above_step.is_open();
                let early = from.saturating_sub(start);
                let late = end.saturating_sub(to);
                let mut out_by = 0;
                if early > tolerance_ns {
                    out_by = early;
                    if fits {
                        offset += i128::from(early);
                    }
                } else if other_clock && !clocks_agree && fits && late > tolerance_ns {
                    out_by = late;
                    offset -= i128::from(late);
                }
                if out_by > 0 {
                    self.skews.push(Skew {
                        node: at,
                        by_ns: out_by,
                        is_cut: !fits,
                    });
                    if fits {
                        start = moved(raw_start, offset);
                        end = moved(raw_end, offset).max(start);
                    } else if !above_step.is_open() {
                        end = end.min(to.max(from));
                    }
                }
                // Within the tolerance it is a coarse clock, and cut in silence.
                start = start.max(from);
                end = end.max(start);
            }
            offsets.push(offset);
            let parent = self.holder_of(run, at, start);
            let node = &mut self.nodes[at];
            node.parent = parent;
            node.start_ns = start;
            node.own_end_ns = end;
            node.end_ns = end;
        }
        self.roots.clear();
        self.children.iter_mut().for_each(Vec::clear);
        for at in 0..self.nodes.len() {
            let parent = self.nodes[at].parent;
            match parent.and_then(|parent| self.children.get_mut(parent)) {
                Some(list) => list.push(at),
                None => self.roots.push(at),
            }
            let top = parent.and_then(|parent| self.top.get(parent).copied());
            self.top.push(top.unwrap_or(at));
        }
        for at in (0..self.nodes.len()).rev() {
            let node = &mut self.nodes[at];
            // Nobody knows when a step ended that never said so; it lived as long as what is in it.
            if node.is_open {
                node.own_end_ns = node.own_end_ns.max(node.end_ns);
            }
            let (parent, end_ns) = (node.parent, node.end_ns);
            if let Some(parent) = parent.and_then(|parent| self.nodes.get_mut(parent)) {
                parent.end_ns = parent.end_ns.max(end_ns);
            }
        }
        let starts: Vec<(u64, u64)> = self
            .nodes
            .iter()
            .map(|node| {
                let seq = run.steps.get(node.step).map_or(0, |step| step.facts.seq);
                (node.start_ns, seq)
            })
            .collect();
        for list in self.children.iter_mut().chain([&mut self.roots]) {
            list.sort_by_key(|node| starts.get(*node).copied());
        }
    }

    /// When each node began by its producer's word. Native events say how long a step took rather than when it began: what holds it began no later.
    fn told_starts(&self, run: &Run) -> Vec<u64> {
        let step = |node: &Node| run.steps.get(node.step);
        let mut starts: Vec<u64> = self
            .nodes
            .iter()
            .map(|node| {
                step(node).map_or(0, |step| match step.facts.start_ns {
                    0 => step.facts.end_ns.unwrap_or(0),
                    start => start,
                })
            })
            .collect();
        for (at, node) in self.nodes.iter().enumerate().rev() {
            let above = node
                .parent
                .and_then(|above| Some((above, self.nodes.get(above)?)));
            if let Some((above, holder)) = above
                && step(node).is_some_and(|step| step.native)
                && step(holder).is_some_and(|step| step.native)
            {
                starts[above] = starts[above].min(starts[at]);
            }
        }
        starts
    }

    /// Pairs of services, callee and caller, of which some call lies within its caller without help: their clocks agree, and what lies outside was begun late.
    fn agreeing_clocks<'a>(
        &self,
        run: &'a Run<'_>,
        tolerance_ns: u64,
    ) -> HashSet<(&'a str, &'a str)> {
        let mut agreeing = HashSet::new();
        for node in &self.nodes {
            let above = node.parent.and_then(|parent| self.nodes.get(parent));
            let step = run.steps.get(node.step).map(|step| &step.facts);
            let above = above.and_then(|above| run.steps.get(above.step));
            let (Some(own), Some(above)) = (step, above.map(|above| &above.facts)) else {
                continue;
            };
            if let (Some(service), Some(caller)) =
                (own.service.as_deref(), above.service.as_deref())
                && let (Some(end), Some(until)) = (own.end_ns, above.end_ns)
                && own.start_ns.saturating_add(tolerance_ns) >= above.start_ns
                && end <= until.saturating_add(tolerance_ns)
            {
                agreeing.insert((service, caller));
            }
        }
        agreeing
    }

    /// The step in which one that began at this moment lies: its parent, or, when that had ended before, the nearest above that had not.
    fn holder_of(&self, run: &Run, at: usize, start_ns: u64) -> Option<usize> {
        let mut holder = self.nodes[at].parent;
        for _ in 0..MAX_HOLDERS {
            let above = holder.and_then(|at| self.nodes.get(at))?;
            let is_over = run
                .steps
                .get(above.step)
                .is_some_and(|step| !step.is_open())
                && above.own_end_ns.saturating_add(COARSE_CLOCK_NS) < start_ns;
            if !is_over {
                return holder;
            }
            holder = above.parent;
        }
        None
    }

    fn set_work(&mut self, run: &Run) {
        for at in 0..self.nodes.len() {
            let Some(step) = run.steps.get(self.nodes[at].step) else {
                continue;
            };
            let parent = self.nodes[at]
                .parent
                .and_then(|parent| self.nodes.get(parent));
            let above = parent.and_then(|parent| parent.work);
            let owner = parent.map(|parent| parent.owner);
            let owner_step = owner
                .and_then(|owner| self.nodes.get(owner))
                .and_then(|owner| run.steps.get(owner.step));
            let own = match step.facts.kind {
                Kind::Llm => Some(Work::Model),
                Kind::Tool => Some(Work::Tool),
                Kind::Retriever | Kind::Embedding | Kind::Reranker => Some(Work::Retrieval),
                _ => None,
            };
            let is_part = owner_step.is_some_and(|owner| match step.facts.kind {
                Kind::Agent | Kind::Workflow => false,
                // A call within a call of its kind tells of the same one.
                Kind::Llm | Kind::Retriever => owner.facts.kind == step.facts.kind,
                Kind::Tool => {
                    let name = |step: &Step| step.facts.tool.as_ref().map(|tool| tool.name.clone());
                    owner.facts.kind == Kind::Tool && name(owner) == name(step)
                }
                Kind::Embedding | Kind::Reranker => false,
                _ => above.is_some(),
            });
            let node = &mut self.nodes[at];
            node.work = match step.facts.kind {
                Kind::Agent | Kind::Workflow => None,
                Kind::Mcp => above.or(Some(Work::Tool)),
                _ => own.or(above),
            };
            if is_part && let Some(owner) = owner {
                node.owner = owner;
            }
        }
    }

    fn set_self_times(&mut self) {
        for at in 0..self.nodes.len() {
            let (from, to) = (self.nodes[at].start_ns, self.nodes[at].own_end_ns);
            let mut covered_ns: u64 = 0;
            let mut up_to = from;
            for child in &self.children[at] {
                let child = &self.nodes[*child];
                let (start, end) = (child.start_ns.max(up_to), child.end_ns.min(to));
                if end > start {
                    covered_ns += end - start;
                    up_to = end;
                }
            }
            self.nodes[at].self_ns = to.saturating_sub(from).saturating_sub(covered_ns);
        }
    }
}

/// What was made up, log lines and events of no length are no steps of a run.
fn step_counts(step: &Step) -> bool {
    let facts = &step.facts;
    let is_point = facts.end_ns.is_none_or(|end| end <= facts.start_ns);
    let tells_no_time = facts.start_ns == 0 && facts.end_ns.is_none_or(|end| end == 0);
    let only_happened = step.native && facts.rule == "native:event" && is_point;
    let is_no_step = facts.made_up || matches!(facts.kind, Kind::Log | Kind::AgentAdmin);
    !(is_no_step || only_happened || tells_no_time)
}

/// Native events without a parent lie flat beside one another: a call that ran within a node's time, and a node within the workflow's, are put there.
fn put_natives_in_their_holders(run: &Run, counts: &[bool], parent: &mut [Option<usize>]) {
    let breadth = |step: &Step| match step.facts.kind {
        Kind::Workflow => 0,
        Kind::Agent => 1,
        Kind::Llm | Kind::Tool | Kind::Retriever => 3,
        _ => 2,
    };
    let end = |step: &Step| step.facts.end_ns.unwrap_or(u64::MAX);
    let is_flat = |index: &usize| {
        counts.get(*index) == Some(&true)
            && run.forest.parent.get(*index) == Some(&None)
            && run.steps.get(*index).is_some_and(|step| step.native)
    };
    let mut flat: Vec<usize> = (0..run.steps.len()).filter(is_flat).collect();
    flat.sort_by_key(|index| {
        let step = &run.steps[*index];
        (
            step.facts.start_ns,
            breadth(step),
            Reverse(end(step)),
            step.facts.seq,
        )
    });
    let mut holders: Vec<usize> = Vec::new();
    for index in flat {
        let step = &run.steps[index];
        while let Some(last) = holders.last()
            && end(&run.steps[*last]) < step.facts.start_ns
        {
            holders.pop();
        }
        let holds = |holder: &&usize| {
            let holder = &run.steps[**holder];
            let same_agent = match (&holder.facts.agent, &step.facts.agent) {
                (Some(holder), Some(own)) => holder == own,
                _ => true,
            };
            breadth(holder) < breadth(step)
                && holder.facts.start_ns <= step.facts.start_ns
                && end(step).min(end(holder)) == end(step)
                && (same_agent || holder.facts.kind == Kind::Workflow)
        };
        let found = holders.iter().rev().take(MAX_HOLDERS).find(holds).copied();
        if let Some(slot) = parent.get_mut(index) {
            *slot = found;
        }
        holders.push(index);
    }
}
