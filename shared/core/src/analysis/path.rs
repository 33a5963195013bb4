//! The critical path: for every moment of a run the one step that it waited for.
//!
//! It is read backwards. What ended last is what its parent waited for at the end; before it began, the parent waited for what ended last before that. Where nothing had ended
//! but something ran, the run waited for that; where nothing ran, for the parent itself.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::timeline::{COARSE_CLOCK_NS, Timeline};

/// Pieces of time in which one step is on the path. Beyond it, further ones are the step's own: a background task among thousands of short steps would be taken apart
/// as often as there are steps, on every level below it.
const MAX_WINDOWS: usize = 64;

/// A stretch of the path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    /// `None`: no step was running.
    pub node: Option<usize>,
    pub from_ns: u64,
    pub to_ns: u64,
}

/// A step that ran beside the path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Beside {
    pub node: usize,
    /// The step on the path that ended after it.
    pub path: usize,
    /// How much longer it could have taken.
    pub slack_ns: u64,
}

#[derive(Debug, Default)]
pub(super) struct Path {
    /// By time, without holes, from the first start to the last end.
    pub segments: Vec<Segment>,
    pub beside: Vec<Beside>,
    /// By node: its time on the path, without that of the steps in it.
    pub on_path_ns: Vec<u64>,
    pub idle_ns: u64,
}

impl Path {
    pub(super) fn of(timeline: &Timeline) -> Self {
        let mut path = Self {
            on_path_ns: vec![0; timeline.nodes.len()],
            ..Self::default()
        };
        let mut windows: Vec<Vec<(u64, u64)>> = vec![Vec::new(); timeline.nodes.len()];
        let whole = [(timeline.from_ns, timeline.to_ns)];
        path.sweep(timeline, None, &timeline.roots, &whole, &mut windows);
        for at in 0..timeline.nodes.len() {
            let own = std::mem::take(&mut windows[at]);
            if !own.is_empty() {
                path.sweep(
                    timeline,
                    Some(at),
                    &timeline.children[at],
                    &own,
                    &mut windows,
                );
            }
        }
        path.segments.sort_by_key(|segment| segment.from_ns);
        for segment in &path.segments {
            let length_ns = segment.to_ns - segment.from_ns;
            match segment.node {
                Some(node) => path.on_path_ns[node] += length_ns,
                None => path.idle_ns += length_ns,
            }
        }
        path
    }

    /// The time in which something ran.
    pub(super) fn busy_ns(&self) -> u64 {
        self.on_path_ns.iter().sum()
    }

    /// Deals the time in which a step is on the path out to the steps in it. Windows come latest first, and so do those that are dealt out.
    fn sweep(
        &mut self,
        timeline: &Timeline,
        owner: Option<usize>,
        children: &[usize],
        windows: &[(u64, u64)],
        windows_of: &mut [Vec<(u64, u64)>],
    ) {
        let node = |at: usize| &timeline.nodes[at];
        let mut by_end: Vec<usize> = children.to_vec();
        by_end.sort_by_key(|at| Reverse((node(*at).end_ns, Reverse(node(*at).start_ns))));
        let mut next = 0;
        // What ran on beside the path, the earliest start first.
        let mut running: BinaryHeap<Reverse<(u64, usize)>> = BinaryHeap::new();
        let mut chosen: Option<usize> = None;
        for (low, high) in windows {
            let mut until = *high;
            while until > *low {
                while let Some(at) = by_end.get(next).copied()
                    && node(at).end_ns > until.saturating_add(COARSE_CLOCK_NS)
                {
                    running.push(Reverse((node(at).start_ns, at)));
                    if let Some(path) = chosen {
                        self.beside.push(Beside {
                            node: at,
                            path,
                            slack_ns: node(path).end_ns.saturating_sub(node(at).end_ns),
                        });
                    }
                    next += 1;
                }
                let before = by_end.get(next).copied();
                let ended = before.map_or(*low, |at| node(at).end_ns.clamp(*low, until));
                if ended < until {
                    if let Some(Reverse((start_ns, at))) = running.peek().copied()
                        && start_ns < until
                    {
                        let from = start_ns.max(ended);
                        self.give(&mut windows_of[at], at, from, until);
                        until = from;
                    }
                    self.keep(timeline, owner, ended, until);
                    until = ended;
                }
                let Some(at) = before.filter(|_| until > *low) else {
                    continue;
                };
                next += 1;
                chosen = Some(at);
                let from = node(at).start_ns.max(*low);
                if from < until {
                    self.give(&mut windows_of[at], at, from, until);
                    until = from;
                }
                if node(at).start_ns < *low {
                    running.push(Reverse((node(at).start_ns, at)));
                }
            }
        }
    }

    fn give(&mut self, windows: &mut Vec<(u64, u64)>, at: usize, from_ns: u64, to_ns: u64) {
        if windows.len() < MAX_WINDOWS {
            windows.push((from_ns, to_ns));
        } else {
            self.segments.push(Segment {
                node: Some(at),
                from_ns,
                to_ns,
            });
        }
    }

    /// A stretch that no step within the owner has; after its own end it is nobody's.
    fn keep(&mut self, timeline: &Timeline, owner: Option<usize>, from_ns: u64, to_ns: u64) {
        let own_end_ns = owner.map_or(from_ns, |at| timeline.nodes[at].own_end_ns);
        let middle = own_end_ns.clamp(from_ns, to_ns.max(from_ns));
        for (node, from_ns, to_ns) in [(owner, from_ns, middle), (None, middle, to_ns)] {
            if from_ns < to_ns {
                self.segments.push(Segment {
                    node,
                    from_ns,
                    to_ns,
                });
            }
        }
    }
}
