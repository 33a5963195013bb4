//! Whether a log goes on where a viewer left it: the decision behind every `gap`.

use crate::cursor::Cursor;

/// What identifies a chunk within its trace: the events it holds, its mark, and the mark of the chunk before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkSpan {
    pub first: u64,
    pub last: u64,
    pub mark: u32,
    pub previous: u32,
}

impl ChunkSpan {
    /// The position after the chunk.
    pub fn end(&self) -> Cursor {
        Cursor::new(self.last, self.mark)
    }
}

/// The extent of a log: numbers up to `base` belong to lives that were replaced, `last` is the newest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extent {
    pub base: u64,
    pub last: u64,
}

/// How a cursor relates to the log as it is now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Continuity {
    /// The next event is the one after the cursor.
    Continues,
    /// Events `from..=to` cannot be shown any more.
    Trimmed { from: u64, to: u64 },
    /// The log the cursor belongs to is not this one: deleted and begun again, or its last writes were lost.
    Replaced,
}

/// Compares a cursor with the log.
///
/// `next` is the first chunk whose last event is not before the cursor: the one that holds it, else the one after it; `None` when there is no such chunk.
pub fn locate(cursor: Cursor, extent: Extent, next: Option<ChunkSpan>) -> Continuity {
    if cursor.seq > extent.last || (1..=extent.base).contains(&cursor.seq) {
        return Continuity::Replaced;
    }
    // A viewer from the start begins with the life there is.
    let seq = cursor.seq.max(extent.base);
    let Some(next) = next else {
        return if seq == extent.last {
            Continuity::Continues
        } else {
            Continuity::Trimmed {
                from: seq + 1,
                to: extent.last,
            }
        };
    };
    let expected_mark = if next.first <= seq {
        next.mark
    } else if next.first == seq + 1 {
        next.previous
    } else {
        return Continuity::Trimmed {
            from: seq + 1,
            to: next.first - 1,
        };
    };
    match cursor.mark {
        Some(mark) if cursor.seq > 0 && mark != expected_mark => Continuity::Replaced,
        _ => Continuity::Continues,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHUNK: ChunkSpan = ChunkSpan {
        first: 11,
        last: 20,
        mark: 7,
        previous: 3,
    };

    #[track_caller]
    fn check(cursor: &str, base: u64, last: u64, next: Option<ChunkSpan>, expected: Continuity) {
        let cursor = cursor.parse().expect("a cursor");
        assert_eq!(locate(cursor, Extent { base, last }, next), expected);
    }

    #[test]
    fn a_cursor_goes_on_where_its_mark_is_known() {
        use Continuity::*;
        check("15-7", 0, 20, Some(CHUNK), Continues);
        check("20-7", 0, 20, Some(CHUNK), Continues);
        check("15", 0, 20, Some(CHUNK), Continues);
        check("10-3", 0, 20, Some(CHUNK), Continues);
        check("0", 10, 20, Some(CHUNK), Continues);
        check("0", 0, 0, None, Continues);
        check("20-7", 0, 20, None, Continues);
    }

    #[test]
    fn another_mark_a_lower_log_or_an_older_life_is_a_replaced_log() {
        use Continuity::*;
        check("15-8", 0, 20, Some(CHUNK), Replaced);
        check("10-4", 0, 20, Some(CHUNK), Replaced);
        check("21-7", 0, 20, None, Replaced);
        check("10-3", 10, 20, Some(CHUNK), Replaced);
    }

    #[test]
    fn what_was_trimmed_is_told() {
        use Continuity::*;
        check("5-1", 0, 20, Some(CHUNK), Trimmed { from: 6, to: 10 });
        check("0", 0, 20, Some(CHUNK), Trimmed { from: 1, to: 10 });
        check("5-1", 0, 20, None, Trimmed { from: 6, to: 20 });
    }
}
