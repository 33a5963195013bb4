//! Lists of traces: what a trace is found by, what a request asks for, and whether a trace is that.
//!
//! A trace is found by labels (agents, users, sessions, its status, that it failed), each a sorted set of its own; by its start; and by what the row says that is kept of it
//! (duration, names). [`Filter`] says which labels to look at, the caller looks, [`Filter::admits_row`] decides the rest.

mod card;
mod query;
mod totals;

use std::fmt;

use serde::Deserialize;

pub use self::card::{Card, card, name};
pub use self::query::{Invalid, LARGEST_PAGE, Paging, Place, Request, page_of_sessions};
pub use self::totals::Totals;

use crate::id::SessionKey;
use crate::settle::Status;

/// Bytes of a name that count: what a list finds a trace by, and what the fold keeps of it.
const MAX_LABEL_BYTES: usize = 512;
/// Labels that are kept of one trace; one that names more is labelled so.
pub const MAX_LABELS: usize = 64;
/// The first look at a run that goes on comes this long after its start; each further one after twice the time.
const FIRST_LOOK_MS: u64 = 2_000;

/// What a trace is found by: the end of its sorted set's key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Label(String);

impl Label {
    /// An agent, by its name or its id.
    pub fn agent(name: &str) -> Self {
        Self::hashed("agent", name)
    }

    pub fn user(name: &str) -> Self {
        Self::hashed("user", name)
    }

    pub fn session(session: &SessionKey) -> Self {
        Self(format!("session:{}", session.as_str()))
    }

    pub fn status(status: Status) -> Self {
        Self(format!("status:{status}"))
    }

    /// The run has errors.
    pub fn error() -> Self {
        Self("error".to_owned())
    }

    /// It names more than it can be found by.
    pub fn more() -> Self {
        Self("more".to_owned())
    }

    fn hashed(kind: &str, name: &str) -> Self {
        // A session's key is the hash of any text.
        Self(format!(
            "{kind}:{}",
            SessionKey::of(label_text(name)).as_str()
        ))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The part of a name that counts for labels: without blanks around it, cut at 512 bytes.
pub fn label_text(name: &str) -> &str {
    let name = name.trim();
    if name.len() <= MAX_LABEL_BYTES {
        return name;
    }
    let mut end = MAX_LABEL_BYTES;
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    name.get(..end).unwrap_or(name)
}

/// What a list shall show; nothing said shows all.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Filter {
    /// Name or id of an agent.
    pub agent: Option<String>,
    pub user: Option<String>,
    /// Name of a session, or its key.
    pub session: Option<String>,
    pub status: Option<Status>,
    /// When the trace began, milliseconds since 1970; both ends included.
    pub from_unix_ms: Option<u64>,
    pub to_unix_ms: Option<u64>,
    pub min_duration_ms: Option<f64>,
    pub max_duration_ms: Option<f64>,
    pub has_error: Option<bool>,
    /// Lower case; somewhere in the names of trace, agents, tools and steps, or in the beginning of an error's text.
    pub text: Option<String>,
    /// Lower case; the whole name of a step, tool or agent.
    pub operation: Option<String>,
    /// The id of a span, here or elsewhere, that is a step's parent.
    pub parent_span_id: Option<String>,
}

/// A label that a trace must have, or must not have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    pub label: Label,
    pub present: bool,
}

impl Filter {
    /// What the labels of a trace must be.
    pub fn conditions(&self) -> Vec<Condition> {
        let mut conditions: Vec<Condition> = [
            self.agent.as_deref().map(Label::agent),
            self.user.as_deref().map(Label::user),
            self.session
                .as_deref()
                .map(|session| Label::session(&session_key(session))),
            self.status.map(Label::status),
        ]
        .into_iter()
        .flatten()
        .map(|label| Condition {
            label,
            present: true,
        })
        .collect();
        conditions.extend(self.has_error.map(|present| Condition {
            label: Label::error(),
            present,
        }));
        conditions
    }

    /// Whether labels and start do not say all.
    pub fn needs_row(&self) -> bool {
        self.min_duration_ms.is_some()
            || self.max_duration_ms.is_some()
            || self.text.is_some()
            || self.operation.is_some()
            || self.parent_span_id.is_some()
    }

    /// Whether a trace is shown, as far as its row tells. A trace of which no row is kept yet has no duration and no names.
    pub fn admits_row(&self, row: Option<&str>) -> bool {
        if !self.needs_row() {
            return true;
        }
        let Some(row) = row.and_then(KeptRow::parse) else {
            return false;
        };
        if self.min_duration_ms.is_some() || self.max_duration_ms.is_some() {
            let Some(duration_ms) = row.duration_ms() else {
                return false;
            };
            if self
                .min_duration_ms
                .is_some_and(|least| duration_ms < least)
                || self.max_duration_ms.is_some_and(|most| duration_ms > most)
            {
                return false;
            }
        }
        self.text
            .as_ref()
            .is_none_or(|text| row.words.contains(text.as_str()))
            && self
                .operation
                .as_ref()
                .is_none_or(|name| row.words.split('\n').any(|word| word == name))
            && self
                .parent_span_id
                .as_ref()
                .is_none_or(|id| row.has_parent(id))
    }

    pub fn admits_status(&self, status: Status) -> bool {
        self.status.is_none_or(|wanted| wanted == status)
    }
}

/// The key of a session that a client names: by the key itself, or by the session's name.
pub fn session_key(name: &str) -> SessionKey {
    SessionKey::parse(name).unwrap_or_else(|| SessionKey::of(label_text(name)))
}

/// What is kept of a trace for lists: `<through> <run> <summary as JSON>`, then in a line the parents of its steps, then in a line each the words that it is searched by.
pub struct KeptRow<'a> {
    /// The summary as JSON.
    pub json: &'a str,
    /// [`parent_mark`]s, one after the other.
    parents: &'a str,
    /// Lower-case lines; empty in rows that an earlier release kept.
    pub words: &'a str,
}

impl<'a> KeptRow<'a> {
    /// `None`: it is no row of ours.
    pub fn parse(stored: &'a str) -> Option<Self> {
        let row = stored.splitn(3, ' ').nth(2)?;
        let (json, rest) = row.split_once('\n').unwrap_or((row, ""));
        let (parents, words) = rest.split_once('\n').unwrap_or((rest, ""));
        Some(Self {
            json,
            parents,
            words,
        })
    }

    fn has_parent(&self, id: &str) -> bool {
        let mark = parent_mark(id);
        let marks = self.parents.as_bytes().chunks_exact(mark.len());
        marks.into_iter().any(|known| known == mark.as_bytes())
    }

    /// From the first start to the last end that is known.
    pub fn duration_ms(&self) -> Option<f64> {
        #[derive(Deserialize)]
        struct Timed {
            duration_ms: Option<f64>,
        }
        serde_json::from_str::<Timed>(self.json).ok()?.duration_ms
    }

    /// The last event that the row counts.
    pub fn as_of_seq(&self) -> u64 {
        #[derive(Deserialize)]
        struct Counted {
            as_of_seq: u64,
        }
        serde_json::from_str::<Counted>(self.json).map_or(0, |counted| counted.as_of_seq)
    }
}

/// What stands for the id of a parent in a row: 32 bits as 8 hex digits. Of 256 parents one looks like another's in 16 million rows.
fn parent_mark(id: &str) -> String {
    let hash = xxhash_rust::xxh3::xxh3_64(id.trim().to_ascii_lowercase().as_bytes());
    format!("{:08x}", hash >> 32)
}

/// When a run that goes on is looked at next, so that lists show it as it is: after 2, 4, 8 ... seconds from its start.
pub fn next_look_unix_ms(started_unix_ms: u64, now_unix_ms: u64) -> u64 {
    let age = now_unix_ms.saturating_sub(started_unix_ms);
    let mut after = FIRST_LOOK_MS;
    while after <= age && after < u64::MAX / 2 {
        after *= 2;
    }
    started_unix_ms.saturating_add(after)
}

/// How long after its beginning a run is looked at first, milliseconds.
pub fn first_look_ms(stalled_ms: u64) -> u64 {
    FIRST_LOOK_MS.min(stalled_ms)
}

/// Whether the row of a run that goes on is worth making anew: at least a quarter of what it counts has come since.
pub fn is_outgrown(row_through: u64, last_seq: u64) -> bool {
    last_seq > row_through && last_seq - row_through >= row_through / 4
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_come_ever_more_seldom() {
        let mut now = 1_000;
        let mut ages = Vec::new();
        for _ in 0..5 {
            now = next_look_unix_ms(1_000, now);
            ages.push(now - 1_000);
        }
        assert_eq!(ages, [2_000, 4_000, 8_000, 16_000, 32_000]);
        assert!(is_outgrown(0, 1) && is_outgrown(8, 10) && !is_outgrown(8, 9));
        assert!(!is_outgrown(8, 8));
    }

    #[test]
    fn a_row_is_searched_by_its_duration_and_its_words() {
        let stored = format!(
            "10 0 {{\"duration_ms\":1500.0,\"as_of_seq\":10}}\n{}{}\nresearcher\nread_sensor\ntimeout: the sensor is gone",
            parent_mark("00f067aa0ba902b7"),
            parent_mark("step 1"),
        );
        let stored = stored.as_str();
        let check = |filter: Filter, expected: bool| {
            assert_eq!(filter.admits_row(Some(stored)), expected, "{filter:?}");
            assert_eq!(filter.admits_row(None), !filter.needs_row(), "{filter:?}");
        };
        let text = |text: &str| Filter {
            text: Some(text.to_owned()),
            ..Filter::default()
        };
        let operation = |name: &str| Filter {
            operation: Some(name.to_owned()),
            ..Filter::default()
        };
        let duration = |least: Option<f64>, most: Option<f64>| Filter {
            min_duration_ms: least,
            max_duration_ms: most,
            ..Filter::default()
        };
        check(Filter::default(), true);
        check(text("sensor is"), true);
        check(text("thermometer"), false);
        check(operation("read_sensor"), true);
        check(operation("read"), false);
        for (id, expected) in [
            ("00F067AA0BA902B7", true),
            ("step 1", true),
            ("00f067aa0ba902b8", false),
        ] {
            let filter = Filter {
                parent_span_id: Some(id.to_owned()),
                ..Filter::default()
            };
            check(filter, expected);
        }
        check(duration(Some(1_500.0), None), true);
        check(duration(Some(1_500.1), None), false);
        check(duration(None, Some(1_499.0)), false);
        check(duration(Some(1.0), Some(2_000.0)), true);
        assert_eq!(KeptRow::parse(stored).map(|row| row.as_of_seq()), Some(10));
        // A row of an earlier release has no words.
        assert!(!text("a").admits_row(Some("1 0 {\"agents\":[\"a\"]}")));
    }

    #[test]
    fn a_session_is_named_by_its_name_or_its_key() {
        let key = SessionKey::of("chat 7");
        assert_eq!(session_key("chat 7"), key);
        assert_eq!(session_key(key.as_str()), key);
        let long = "x".repeat(600);
        assert_eq!(Label::agent(&long), Label::agent(&long[..512]));
    }
}
