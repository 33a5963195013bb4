//! What is counted over many runs: per agent, edge, model and tool how often, how long, how much; and how one run compares with that.
//!
//! Everything here is numbers that add up: a run's contribution can be added to what is stored, and taken away again when the run ends anew.

mod contribution;
mod figures;
mod sketch;
mod window;

use std::collections::HashMap;

pub use self::contribution::{Change, Contribution, of};
pub use self::figures::Figures;
pub use self::sketch::Sketch;
pub use self::window::{Bucket, SLOT_MS, Window};

/// Names a run, and a bucket, has of each dimension at most; what comes beyond them counts under [`OTHER`].
pub const NAMES_OF_A_RUN: usize = 64;
pub const NAMES_OF_A_BUCKET: usize = 200;
/// The name of all that found no place under its own.
pub const OTHER: &str = "(other)";
/// Longer names are cut: those that differ only behind it count as one.
const MAX_NAME_BYTES: usize = 160;
const CUT: char = '…';

/// What the counting is by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Dimension {
    /// An agent, by its name.
    Agent,
    /// One agent's call of another: see [`edge_name`].
    Edge,
    /// A model, as asked for, else as answered, without its provider.
    Model,
    /// A tool that ran, by its name.
    Tool,
}

impl Dimension {
    pub const ALL: [Self; 4] = [Self::Agent, Self::Edge, Self::Model, Self::Tool];

    /// The name on the wire, and in keys.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::Edge => "edge",
            Self::Model => "model",
            Self::Tool => "tool",
        }
    }
}

impl std::str::FromStr for Dimension {
    type Err = ();

    /// The name as [`Dimension::as_str`] writes it.
    fn from_str(text: &str) -> Result<Self, ()> {
        let mut all = Self::ALL.into_iter();
        all.find(|one| one.as_str() == text).ok_or(())
    }
}

/// Stands between the parts of an edge's name; no part has it, see [`edge_name`].
const BETWEEN: char = '\u{1f}';

/// A name as it is counted under: of a length that is borne, and without what would break a line or a list. Done twice is done once.
fn counted_name(name: &str) -> String {
    let mut plain = String::with_capacity(name.len().min(MAX_NAME_BYTES));
    for c in name.chars().map(|c| if c.is_control() { ' ' } else { c }) {
        if plain.len() + c.len_utf8() > MAX_NAME_BYTES - CUT.len_utf8() {
            // The end is only written where more than it would be cut.
            if name.len() > MAX_NAME_BYTES {
                plain.push(CUT);
                return plain;
            }
        }
        plain.push(c);
    }
    plain
}

/// The name of an edge: the agent that called, the agent that was called, and the step that this was in the latter (its function).
pub fn edge_name(caller: &str, callee: &str, step: &str) -> String {
    [caller, callee, step]
        .map(counted_name)
        .join(&BETWEEN.to_string())
}

/// The parts of what [`edge_name`] made: caller, callee, step. [`OTHER`] has none but itself.
pub fn edge_parts(name: &str) -> (&str, &str, &str) {
    let mut parts = name.splitn(3, BETWEEN);
    let mut next = || parts.next().unwrap_or_default();
    (next(), next(), next())
}

/// A name that a reader asks by, as it is stored.
pub fn stored_name(of: Dimension, name: &str) -> String {
    match of {
        Dimension::Edge => {
            let (caller, callee, step) = edge_parts(name);
            match callee.is_empty() && step.is_empty() {
                true => counted_name(caller),
                false => edge_name(caller, callee, step),
            }
        }
        _ => counted_name(name),
    }
}

/// How long the steps of a tenant's earlier runs took, by what they were steps of.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct History {
    durations: HashMap<(Dimension, String), Sketch>,
}

impl History {
    /// The durations known of a name; `None`: nothing is known.
    pub fn durations(&self, of: Dimension, name: &str) -> Option<&Sketch> {
        self.durations.get(&(of, stored_name(of, name)))
    }

    /// Adds what is known of a name to what was known.
    pub fn add(&mut self, of: Dimension, name: &str, durations: &Sketch) {
        let known = self.durations.entry((of, stored_name(of, name)));
        known.or_default().merge(durations);
    }

    pub fn is_empty(&self) -> bool {
        self.durations.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_cut_once_and_edges_are_taken_apart_again() {
        for length in [1, 157, 158, 159, 160, 161, 400] {
            for letter in ["x", "é", "語"] {
                let cut = counted_name(&letter.repeat(length));
                assert!(cut.len() <= MAX_NAME_BYTES, "{}", cut.len());
                assert_eq!(counted_name(&cut), cut);
            }
        }
        let edge = edge_name("a\u{1f}b", "c", &"d".repeat(400));
        assert_eq!(stored_name(Dimension::Edge, &edge), edge);
        let (caller, callee, step) = edge_parts(&edge);
        assert_eq!((caller, callee, step.len()), ("a b", "c", 160));
        assert_eq!(stored_name(Dimension::Edge, OTHER), OTHER);
    }
}
