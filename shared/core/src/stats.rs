//! What is counted over many runs: per agent, edge, model and tool how often, how long, how much; and how one run compares with that.
//!
//! Everything here is numbers that add up: a run's contribution can be added to what is stored, and taken away again when the run ends anew.

mod sketch;

use std::collections::HashMap;

pub use self::sketch::Sketch;

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

/// The name of an edge: the agent that called, the agent that was called, and the step that this was in the latter (its function).
pub fn edge_name(caller: &str, callee: &str, step: &str) -> String {
    [caller, callee, step]
        .map(|part| part.replace(BETWEEN, " "))
        .join(&BETWEEN.to_string())
}

/// How long the steps of a tenant's earlier runs took, by what they were steps of.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct History {
    durations: HashMap<(Dimension, String), Sketch>,
}

impl History {
    /// The durations known of a name; `None`: nothing is known.
    pub fn durations(&self, of: Dimension, name: &str) -> Option<&Sketch> {
        self.durations.get(&(of, name.to_owned()))
    }

    /// Adds what is known of a name to what was known.
    pub fn add(&mut self, of: Dimension, name: &str, durations: &Sketch) {
        let known = self.durations.entry((of, name.to_owned())).or_default();
        known.merge(durations);
    }

    pub fn is_empty(&self) -> bool {
        self.durations.is_empty()
    }
}
