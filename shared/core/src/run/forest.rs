//! Spans to a forest: every span once, whatever their parents say.
//!
//! A parent that never arrived is drawn as a ghost; a span that is its own ancestor becomes a root.

use std::collections::HashMap;

/// One span of those to be arranged.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Leaf<'a> {
    pub id: &'a str,
    pub parent_id: Option<&'a str>,
    pub start_ns: u64,
    /// Breaks ties: the JavaScript SDK starts spans at whole milliseconds, and exports them in the order in which they ended.
    pub seq: u64,
}

/// A forest over indexes. Indexes from `leaves` on are ghosts: parents that are named but not there.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Forest {
    pub leaves: usize,
    /// The ids of the ghosts, in the order of their indexes.
    pub ghosts: Vec<String>,
    pub parent: Vec<Option<usize>>,
    /// By start, then by arrival, then by id.
    pub children: Vec<Vec<usize>>,
    /// By start, then by arrival, then by id; a ghost starts with its first child.
    pub roots: Vec<usize>,
}

impl Forest {
    /// Every index, parents before children, with its depth.
    pub(crate) fn depth_first(&self) -> Vec<(usize, usize)> {
        let mut order = Vec::with_capacity(self.parent.len());
        let mut stack: Vec<(usize, usize)> =
            self.roots.iter().rev().map(|root| (*root, 0)).collect();
        while let Some((index, depth)) = stack.pop() {
            order.push((index, depth));
            for child in self.children.get(index).into_iter().flatten().rev() {
                stack.push((*child, depth + 1));
            }
        }
        order
    }
}

/// Arranges spans by the parents they name. Ids are taken to be unique.
pub(crate) fn arrange(leaves: &[Leaf]) -> Forest {
    let index_of: HashMap<&str, usize> = leaves
        .iter()
        .enumerate()
        .map(|(index, leaf)| (leaf.id, index))
        .collect();
    let mut ghosts: Vec<String> = Vec::new();
    let mut ghost_of: HashMap<&str, usize> = HashMap::new();
    let mut parent: Vec<Option<usize>> = Vec::with_capacity(leaves.len());
    for leaf in leaves {
        parent.push(leaf.parent_id.filter(|id| *id != leaf.id).map(|id| {
            index_of.get(id).copied().unwrap_or_else(|| {
                *ghost_of.entry(id).or_insert_with(|| {
                    ghosts.push(id.to_owned());
                    leaves.len() + ghosts.len() - 1
                })
            })
        }));
    }
    let mut starts: Vec<u64> = leaves.iter().map(|leaf| leaf.start_ns).collect();
    starts.resize(leaves.len() + ghosts.len(), u64::MAX);
    for (index, above) in parent.iter().enumerate() {
        if let Some(above) = above
            && *above >= leaves.len()
            && let (Some(child), Some(ghost)) = (starts.get(index).copied(), starts.get_mut(*above))
        {
            *ghost = (*ghost).min(child);
        }
    }
    parent.resize(leaves.len() + ghosts.len(), None);

    let key = |index: usize| {
        let leaf = leaves.get(index);
        let id = leaf.map(|leaf| leaf.id).or_else(|| {
            ghosts
                .get(index.wrapping_sub(leaves.len()))
                .map(String::as_str)
        });
        (starts.get(index).copied(), leaf.map(|leaf| leaf.seq), id)
    };
    break_cycles(&mut parent, |a, b| key(a) < key(b));

    let mut children: Vec<Vec<usize>> = vec![Vec::new(); parent.len()];
    let mut roots = Vec::new();
    for (index, above) in parent.iter().enumerate() {
        match above {
            Some(above) => {
                if let Some(siblings) = children.get_mut(*above) {
                    siblings.push(index);
                }
            }
            None => roots.push(index),
        }
    }
    let by_start = |a: &usize, b: &usize| key(*a).cmp(&key(*b));
    children
        .iter_mut()
        .for_each(|siblings| siblings.sort_by(by_start));
    roots.sort_by(by_start);
    Forest {
        leaves: leaves.len(),
        ghosts,
        parent,
        children,
        roots,
    }
}

/// Of every cycle the earliest span (by `before`) becomes a root.
fn break_cycles(parent: &mut [Option<usize>], before: impl Fn(usize, usize) -> bool) {
    #[derive(Clone, Copy, PartialEq)]
    enum Seen {
        No,
        OnPath,
        Settled,
    }
    let mut seen = vec![Seen::No; parent.len()];
    for start in 0..parent.len() {
        let mut path = Vec::new();
        let mut at = Some(start);
        while let Some(index) = at {
            match seen.get(index) {
                Some(Seen::No) => {
                    seen[index] = Seen::OnPath;
                    path.push(index);
                    at = parent[index];
                }
                Some(Seen::OnPath) => {
                    let cycle = path.iter().position(|step| *step == index).unwrap_or(0);
                    if let Some(first) = path[cycle..]
                        .iter()
                        .copied()
                        .reduce(|a, b| if before(b, a) { b } else { a })
                    {
                        parent[first] = None;
                    }
                    break;
                }
                Some(Seen::Settled) | None => break,
            }
        }
        for index in path {
            seen[index] = Seen::Settled;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_cycle_becomes_a_root_and_an_absent_parent_a_ghost() {
        let leaves = [
            Leaf {
                id: "a",
                parent_id: Some("b"),
                start_ns: 2,
                seq: 0,
            },
            Leaf {
                id: "b",
                parent_id: Some("a"),
                start_ns: 1,
                seq: 0,
            },
            Leaf {
                id: "c",
                parent_id: Some("x"),
                start_ns: 5,
                seq: 0,
            },
            Leaf {
                id: "d",
                parent_id: Some("d"),
                start_ns: 9,
                seq: 0,
            },
        ];
        let forest = arrange(&leaves);
        assert_eq!(forest.ghosts, ["x"]);
        assert_eq!(forest.roots, [1, 4, 3]);
        assert_eq!(
            forest.depth_first(),
            [(1, 0), (0, 1), (4, 0), (2, 1), (3, 0)]
        );
    }

    #[test]
    fn siblings_that_began_in_the_same_millisecond_stand_as_they_came() {
        let leaf = |id, seq| Leaf {
            id,
            parent_id: None,
            start_ns: 1_000_000,
            seq,
        };
        let forest = arrange(&[leaf("a", 9), leaf("b", 7), leaf("c", 8)]);
        assert_eq!(forest.roots, [1, 2, 0]);
    }

    proptest! {
        #[test]
        fn any_spans_make_a_forest_that_holds_each_once(
            parents in proptest::collection::vec(proptest::option::of(0usize..24), 0..20),
            starts in proptest::collection::vec(0u64..5, 20),
        ) {
            let ids: Vec<String> = (0..24).map(|n| format!("s{n}")).collect();
            let leaves: Vec<Leaf> = parents
                .iter()
                .enumerate()
                .map(|(n, parent)| Leaf {
                    id: &ids[n],
                    parent_id: parent.map(|p| ids[p].as_str()),
                    start_ns: starts[n],
                    seq: 0,
                })
                .collect();
            let forest = arrange(&leaves);
            let mut held: Vec<usize> = forest.depth_first().into_iter().map(|(index, _)| index).collect();
            held.sort_unstable();
            prop_assert_eq!(held, (0..leaves.len() + forest.ghosts.len()).collect::<Vec<_>>());
        }
    }
}
