//! Following many traces at once: a position in a log of notices, and what a notice says.

use std::{fmt, str::FromStr};

use serde_json::{Value, json};

use crate::{cursor::MAX_SEQ, id::SessionKey};

/// The position after event `seq` of the notice with the stream id `<ms>-<n>`; `seq` 0: after the notice itself, before the events it is of.
///
/// Text form `<ms>-<n>.<seq>`. A cursor is good for as long as the log holds its notice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FeedCursor {
    pub ms: u64,
    pub n: u64,
    pub seq: u64,
}

impl FeedCursor {
    /// Before the first notice.
    pub const START: Self = Self {
        ms: 0,
        n: 0,
        seq: 0,
    };

    /// The id of the notice.
    pub fn notice(&self) -> (u64, u64) {
        (self.ms, self.n)
    }

    /// Writes its text form: each frame of a feed has one, and by the standard library's formatting it was 1 % of what a span costs.
    pub fn push_to(&self, into: &mut String) {
        let mut number = itoa::Buffer::new();
        into.push_str(number.format(self.ms));
        into.push('-');
        into.push_str(number.format(self.n));
        into.push('.');
        into.push_str(number.format(self.seq));
    }
}

impl fmt::Display for FeedCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::new();
        self.push_to(&mut text);
        f.write_str(&text)
    }
}

/// Text that is no position in a log of notices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cursor must be <ms>-<n>.<seq>, as this stream's `id:` gave it")]
pub struct InvalidFeedCursor;

impl FromStr for FeedCursor {
    type Err = InvalidFeedCursor;

    fn from_str(text: &str) -> Result<Self, InvalidFeedCursor> {
        let number = |digits: &str| {
            let is_number = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
            let number = is_number.then(|| digits.parse().ok()).flatten();
            number
                .filter(|number| *number <= MAX_SEQ)
                .ok_or(InvalidFeedCursor)
        };
        let (notice, seq) = text.split_once('.').ok_or(InvalidFeedCursor)?;
        let (ms, n) = notice.split_once('-').ok_or(InvalidFeedCursor)?;
        Ok(Self {
            ms: number(ms)?,
            n: number(n)?,
            seq: number(seq)?,
        })
    }
}

/// What happened to a trace, as its tenant's and its sessions' followers are told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Happened {
    /// Events were appended.
    Moved { first: u64, last: u64 },
    /// A run ended with event `last`.
    Ended { status: String, last: u64 },
    /// Something happened to a live session; `life` tells the sessions apart that one name had, one after the other.
    Session {
        session: SessionKey,
        name: String,
        life: u64,
        news: SessionNews,
    },
}

/// What happened to a live session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionNews {
    /// It began, or began anew.
    Started,
    /// None of its traces is open. May come again: after a second end, late events, a further turn.
    Complete,
    /// It is no session any more; `absorbed_by` is the name of the one that has its traces now, where there is one.
    Removed { absorbed_by: Option<String> },
}

impl Happened {
    /// The name of its frame.
    pub fn event_type(&self) -> &'static str {
        match self {
            Self::Moved { first: 1, .. } => "trace_started",
            Self::Moved { .. } => "trace_updated",
            Self::Ended { .. } => "trace_completed",
            Self::Session { news, .. } => match news {
                SessionNews::Started => "session_started",
                SessionNews::Complete => "session_complete",
                SessionNews::Removed { .. } => "session_removed",
            },
        }
    }

    /// Its frame's data. `timestamp` is the notice's own time, RFC 3339.
    pub fn told(&self, trace_id: &str, timestamp: &str) -> Value {
        let name = self.event_type();
        match self {
            Self::Moved { first, last } => json!({
                "event_type": name, "trace_id": trace_id, "timestamp": timestamp,
                "first_seq": first, "last_seq": last,
            }),
            Self::Ended { status, last } => json!({
                "event_type": name, "trace_id": trace_id, "timestamp": timestamp,
                "status": status, "last_seq": last,
            }),
            Self::Session { name: of, .. } => json!({
                "event_type": name, "trace_id": trace_id, "timestamp": timestamp, "session_id": of,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_position_is_read_as_it_was_written(ms in 0..=MAX_SEQ, n in 0..=MAX_SEQ, seq in 0..=MAX_SEQ) {
            let cursor = FeedCursor { ms, n, seq };
            prop_assert_eq!(cursor.to_string().parse(), Ok(cursor));
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,20}") {
            let _ = text.parse::<FeedCursor>();
        }
    }

    #[test]
    fn what_is_no_position_is_told() {
        for text in [
            "", "1", "1-2", "1-2.", "1.2", "+1-2.3", "1-2.3.4", "1-2-3.4", "a-b.c",
        ] {
            assert_eq!(text.parse::<FeedCursor>(), Err(InvalidFeedCursor), "{text}");
        }
    }
}
