//! A viewer's position in a trace.

use std::{fmt, str::FromStr};

/// The position after event `seq`. `mark` is 32 bits of the batch that held it: a viewer that comes back with a mark
/// can be told that the log it knew is not this one any more.
///
/// Text form `<seq>-<mark>`, the mark in decimal as in a Redis stream id; a bare `<seq>` is accepted and goes unverified.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Cursor {
    pub seq: u64,
    pub mark: Option<u32>,
}

/// The largest `seq` there is: the log counts in the numbers of Redis' scripts, which are exact up to here.
pub(crate) const MAX_SEQ: u64 = (1 << 53) - 1;

impl Cursor {
    /// Before the first event.
    pub const START: Self = Self { seq: 0, mark: None };

    /// After event `seq`, whose chunk has this mark.
    pub fn new(seq: u64, mark: u32) -> Self {
        Self {
            seq,
            mark: Some(mark),
        }
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.mark {
            Some(mark) => write!(f, "{}-{mark}", self.seq),
            None => write!(f, "{}", self.seq),
        }
    }
}

/// Text that is no cursor.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cursor must be <seq> or <seq>-<mark>, as a stream's `id:` gave it")]
pub struct InvalidCursor;

impl FromStr for Cursor {
    type Err = InvalidCursor;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let number = |digits: &str| -> Result<u64, InvalidCursor> {
            // `parse` would also take "+1".
            if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
                return Err(InvalidCursor);
            }
            match digits.parse() {
                Ok(number) if number <= MAX_SEQ => Ok(number),
                _ => Err(InvalidCursor),
            }
        };
        match text.split_once('-') {
            None => Ok(Self {
                seq: number(text)?,
                mark: None,
            }),
            Some((seq, mark)) => Ok(Self {
                seq: number(seq)?,
                mark: Some(u32::try_from(number(mark)?).map_err(|_| InvalidCursor)?),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_reads_what_it_wrote_and_nothing_else() {
        for cursor in [
            Cursor::START,
            Cursor::new(7, 0),
            Cursor::new(MAX_SEQ, u32::MAX),
        ] {
            assert_eq!(cursor.to_string().parse(), Ok(cursor));
        }
        for text in [
            "",
            "-",
            "1-",
            "-1",
            "+1",
            "1-4294967296",
            "a",
            "1-2-3",
            "9007199254740992",
            "18446744073709551616",
        ] {
            assert_eq!(text.parse::<Cursor>(), Err(InvalidCursor), "{text}");
        }
    }
}
