//! What is kept of a trace for lists, while it runs and after it ended.

use std::collections::HashSet;

use serde::Serialize;

use super::{Label, label_text, parent_mark};
use crate::fold::State;
use crate::id::SessionKey;
use crate::run::Run;
use crate::summary::Summary;
use crate::verbosity::{PREVIEW_CHARACTERS, Verbosity};

/// Of each kind of name, and of errors, a row shows this many; `/summary` has the rest.
const NAMES_IN_A_ROW: usize = 50;
const ERRORS_IN_A_ROW: usize = 5;
/// Bytes of the words that a row is searched by.
const WORDS_BYTES: usize = 2_048;
/// Parents of steps that a row is searched by.
const PARENTS: usize = 256;
/// Labels of each sort; with status, error and "more" they are [`super::MAX_LABELS`].
const AGENTS: usize = 37;
const USERS: usize = 8;
const SESSIONS: usize = 16;

/// A row, and what it is found by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Card {
    /// The summary as JSON in one line, the parents of its steps in the next, then the words in a line each.
    pub row: String,
    /// Agents, users and sessions, the error where there is one, and that there are more.
    pub labels: Vec<Label>,
    /// The run has no errors: it must not be found as one that has.
    pub without_error: bool,
    /// Names of the sessions.
    pub sessions: Vec<String>,
}

#[derive(Serialize)]
struct Shown<'a> {
    /// Of the first step that has no parent: its agent's, else its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    #[serde(flatten)]
    summary: &'a Summary,
}

/// Makes the row of a trace from its state and the summary of it.
///
/// # Errors
/// A number that JSON cannot hold.
pub fn card(state: &State, mut summary: Summary) -> Result<Card, serde_json::Error> {
    let run = Run::of(state);
    let order = run.by_start();
    let steps = || order.iter().filter_map(|index| run.steps.get(*index));
    let name = name_of(&run, &order);

    let mut words = Words::default();
    words.add(name.as_deref().unwrap_or_default());
    summary.agents.iter().for_each(|agent| words.add(agent));
    for error in &summary.errors {
        let head: String = error.message.chars().take(PREVIEW_CHARACTERS).collect();
        words.add(&error.error_type);
        words.add(&head);
    }
    for step in steps() {
        if let Some(tool) = &step.facts.tool {
            words.add(&tool.name);
        }
    }
    steps().for_each(|step| words.add(&step.facts.name));

    let has_more = summary.agents.len() > AGENTS
        || summary.users.len() > USERS
        || summary.sessions.len() > SESSIONS;
    let mut labels = Vec::new();
    labels.extend(
        summary
            .users
            .iter()
            .take(USERS)
            .map(|user| Label::user(user)),
    );
    let sessions: Vec<String> = summary
        .sessions
        .iter()
        .take(SESSIONS)
        .map(|session| label_text(session).to_owned())
        .collect();
    labels.extend(
        sessions
            .iter()
            .map(|session| Label::session(&SessionKey::of(session))),
    );
    labels.extend(
        summary
            .agents
            .iter()
            .take(AGENTS)
            .map(|agent| Label::agent(agent)),
    );
    labels.extend(has_more.then(Label::more));
    let without_error = summary.errors_count == 0;
    if !without_error {
        labels.push(Label::error());
    }

    for names in [
        &mut summary.agents,
        &mut summary.models,
        &mut summary.response_models,
        &mut summary.providers,
        &mut summary.services,
        &mut summary.sessions,
        &mut summary.users,
    ] {
        names.truncate(NAMES_IN_A_ROW);
    }
    summary.errors.truncate(ERRORS_IN_A_ROW);
    let summary = summary.at(Verbosity::Standard);
    let mut row = serde_json::to_string(&Shown {
        name: name.as_deref(),
        summary: &summary,
    })?;
    row.push('\n');
    let natives = state.natives();
    let told = natives
        .iter()
        .filter_map(|event| event.parent_span_id.as_deref());
    let mut known = HashSet::new();
    for parent in steps()
        .filter_map(|step| step.facts.parent.as_deref())
        .chain(told)
    {
        if known.len() < PARENTS && known.insert(parent) {
            row.push_str(&parent_mark(parent));
        }
    }
    for word in &words.lines {
        row.push('\n');
        row.push_str(word);
    }
    Ok(Card {
        row,
        labels,
        without_error,
        sessions,
    })
}

/// What a trace is called in lists: the first step that has no parent gives it its agent's name, else its own.
pub fn name(state: &State) -> Option<String> {
    let run = Run::of(state);
    name_of(&run, &run.by_start())
}

fn name_of(run: &Run<'_>, order: &[usize]) -> Option<String> {
    let steps = || order.iter().filter_map(|index| run.steps.get(*index));
    let first = steps()
        .find(|step| step.facts.parent.is_none() && !step.estimated)
        .or_else(|| steps().next())?;
    let agent = first.facts.agent.as_ref();
    Some(agent.unwrap_or(&first.facts.name).clone())
}

/// Lower-case lines, each once, as many as there is room for.
#[derive(Default)]
struct Words {
    lines: Vec<String>,
    known: HashSet<String>,
    bytes: usize,
}

impl Words {
    fn add(&mut self, word: &str) {
        if self.bytes >= WORDS_BYTES || word.is_empty() {
            return;
        }
        let line = word.to_lowercase().replace(['\n', '\r'], " ");
        if self.bytes + line.len() < WORDS_BYTES && self.known.insert(line.clone()) {
            self.bytes += line.len() + 1;
            self.lines.push(line);
        }
    }
}
