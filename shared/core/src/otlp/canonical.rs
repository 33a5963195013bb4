//! Spans and log records whose bytes are already in the form in which they are kept.
//!
//! Nearly every exporter writes protobuf the one obvious way: fields in ascending order, shortest numbers, defaults left out. Of such an item the
//! canonical bytes are its own, less its trace id and what says nothing; reading it into a struct and writing it again, for its identity and for
//! its chunk, took five times as long as this look. Whatever is not clearly in that form is left to [`super::protobuf`], which mends; a property test and
//! the fuzz targets hold that both ways give the same bytes.

use std::ops::Range;

use super::budget::Budget;

/// What ingest asks of an item, and where its canonical bytes are.
pub(super) struct Canonical<'a> {
    pub(super) trace_id: [u8; 16],
    /// With the content this makes the identity: a span's id, a log record's time as it is encoded for that.
    pub(super) key: [u8; 8],
    /// A span without a parent that has ended.
    pub(super) is_ended_root: bool,
    message: &'a [u8],
    left_out: LeftOut,
}

/// Parts of the message that do not belong to its canonical form, in order.
#[derive(Default)]
struct LeftOut {
    ranges: [Range<usize>; 12],
    count: usize,
}

impl LeftOut {
    fn push(&mut self, range: Range<usize>) -> Option<()> {
        *self.ranges.get_mut(self.count)? = range;
        self.count += 1;
        Some(())
    }
}

impl Canonical<'_> {
    /// Appends the canonical bytes.
    pub(super) fn write(&self, out: &mut impl bytes::BufMut) {
        let mut from = 0;
        for range in self.left_out.ranges.iter().take(self.left_out.count) {
            out.put_slice(self.message.get(from..range.start).unwrap_or_default());
            from = range.end;
        }
        out.put_slice(self.message.get(from..).unwrap_or_default());
    }
}

/// `None`: read it field by field; nothing was spent of the budget.
pub(super) fn span<'a>(message: &'a [u8], budget: &Budget) -> Option<Canonical<'a>> {
    budget.all_or_nothing(|| look_at_span(message, budget))
}

/// As [`span`], for a log record.
pub(super) fn log_record<'a>(message: &'a [u8], budget: &Budget) -> Option<Canonical<'a>> {
    budget.all_or_nothing(|| look_at_log_record(message, budget))
}

fn look_at_span<'a>(message: &'a [u8], budget: &Budget) -> Option<Canonical<'a>> {
    let mut scan = Scan::repeating(message, &[9, 11, 13]);
    let (mut trace_id, mut key) = (None, None);
    let (mut has_parent, mut has_ended) = (false, false);
    let (mut attributes, mut events, mut links) = (0, 0, 0);
    let mut left_out = LeftOut::default();
    while let Some(tag) = scan.tag()? {
        let begin = scan.field_begin;
        let says_something = match tag {
            (1, LEN) => {
                trace_id = Some(id::<16>(scan.bytes()?)?);
                false
            }
            (2, LEN) => {
                key = Some(id::<8>(scan.bytes()?)?);
                true
            }
            (3 | 5, LEN) => !scan.text()?.is_empty(),
            (4, LEN) => {
                let parent = scan.bytes()?;
                has_parent = parent.iter().any(|byte| *byte != 0);
                if has_parent && parent.len() != 8 {
                    return None;
                }
                has_parent
            }
            (6, VARINT) => scan.positive_int32()? != 0,
            (7, FIXED64) => scan.time()? != 0,
            (8, FIXED64) => {
                has_ended = scan.time()? != 0;
                has_ended
            }
            (9, LEN) => {
                attributes += 1;
                key_value(scan.bytes()?, 1, budget)?;
                true
            }
            (10 | 12 | 14, VARINT) => scan.uint32()? != 0,
            (11, LEN) => {
                events += 1;
                budget.spend(1).then_some(())?;
                span_event(scan.bytes()?, budget)?;
                true
            }
            (13, LEN) => {
                links += 1;
                budget.spend(1).then_some(())?;
                link(scan.bytes()?, budget)?;
                true
            }
            (15, LEN) => status(scan.bytes()?)?,
            (16, FIXED32) => scan.fixed32()? != 0,
            _ => return None,
        };
        if !says_something {
            left_out.push(begin..scan.at)?;
        }
    }
    (attributes.max(events).max(links) <= budget.list).then_some(())?;
    Some(Canonical {
        trace_id: trace_id?,
        key: key?,
        is_ended_root: has_ended && !has_parent,
        message,
        left_out,
    })
}

fn look_at_log_record<'a>(message: &'a [u8], budget: &Budget) -> Option<Canonical<'a>> {
    let mut scan = Scan::repeating(message, &[6]);
    let (mut trace_id, mut time) = (None, 0);
    let mut attributes = 0;
    let mut left_out = LeftOut::default();
    while let Some(tag) = scan.tag()? {
        let begin = scan.field_begin;
        let says_something = match tag {
            (1, FIXED64) => {
                time = scan.time()?;
                time != 0
            }
            (2, VARINT) => scan.positive_int32()? != 0,
            (3 | 12, LEN) => !scan.text()?.is_empty(),
            (5, LEN) => {
                any_value(scan.bytes()?, 1, budget)?;
                true
            }
            (6, LEN) => {
                attributes += 1;
                key_value(scan.bytes()?, 1, budget)?;
                true
            }
            (7, VARINT) => scan.uint32()? != 0,
            (8, FIXED32) => scan.fixed32()? != 0,
            (9, LEN) => {
                trace_id = Some(id::<16>(scan.bytes()?)?);
                false
            }
            (10, LEN) => {
                let span = scan.bytes()?;
                let is_named = span.iter().any(|byte| *byte != 0);
                if is_named && span.len() != 8 {
                    return None;
                }
                is_named
            }
            (11, FIXED64) => scan.time()? != 0,
            _ => return None,
        };
        if !says_something {
            left_out.push(begin..scan.at)?;
        }
    }
    (attributes <= budget.list).then_some(())?;
    Some(Canonical {
        trace_id: trace_id?,
        key: time.to_be_bytes(),
        is_ended_root: false,
        message,
        left_out,
    })
}

fn span_event(message: &[u8], budget: &Budget) -> Option<()> {
    let mut scan = Scan::repeating(message, &[3]);
    let mut attributes = 0;
    while let Some(tag) = scan.tag()? {
        let says_something = match tag {
            (1, FIXED64) => scan.time()? != 0,
            (2, LEN) => !scan.text()?.is_empty(),
            (3, LEN) => {
                attributes += 1;
                key_value(scan.bytes()?, 1, budget)?;
                true
            }
            (4, VARINT) => scan.uint32()? != 0,
            _ => return None,
        };
        says_something.then_some(())?;
    }
    (attributes <= budget.list).then_some(())
}

fn link(message: &[u8], budget: &Budget) -> Option<()> {
    let mut scan = Scan::repeating(message, &[4]);
    let (mut trace_id, mut span_id, mut attributes) = (None, None, 0);
    while let Some(tag) = scan.tag()? {
        let says_something = match tag {
            (1, LEN) => {
                trace_id = Some(id::<16>(scan.bytes()?)?);
                true
            }
            (2, LEN) => {
                span_id = Some(id::<8>(scan.bytes()?)?);
                true
            }
            (3, LEN) => !scan.text()?.is_empty(),
            (4, LEN) => {
                attributes += 1;
                key_value(scan.bytes()?, 1, budget)?;
                true
            }
            (5, VARINT) => scan.uint32()? != 0,
            (6, FIXED32) => scan.fixed32()? != 0,
            _ => return None,
        };
        says_something.then_some(())?;
    }
    trace_id.zip(span_id)?;
    (attributes <= budget.list).then_some(())
}

/// Whether a status says something; one that does not is no status.
fn status(message: &[u8]) -> Option<bool> {
    let mut scan = Scan::repeating(message, &[]);
    while let Some(tag) = scan.tag()? {
        let says_something = match tag {
            (2, LEN) => !scan.text()?.is_empty(),
            (3, VARINT) => scan.positive_int32()? != 0,
            _ => return None,
        };
        says_something.then_some(())?;
    }
    Some(!message.is_empty())
}

fn key_value(message: &[u8], depth: usize, budget: &Budget) -> Option<()> {
    let mut scan = Scan::repeating(message, &[]);
    let mut has_value = false;
    while let Some(tag) = scan.tag()? {
        match tag {
            (1, LEN) => (!scan.text()?.is_empty()).then_some(())?,
            (2, LEN) => {
                has_value = true;
                any_value(scan.bytes()?, depth, budget)?;
            }
            _ => return None,
        }
    }
    (has_value || budget.spend(depth)).then_some(())
}

fn any_value(message: &[u8], depth: usize, budget: &Budget) -> Option<()> {
    budget.spend(depth).then_some(())?;
    let mut scan = Scan::repeating(message, &[]);
    match scan.tag()?? {
        (1, LEN) => drop(scan.text()?),
        (2, VARINT) => (scan.varint()? <= 1).then_some(())?,
        (3, VARINT) => drop(scan.varint()?),
        // Of the many NaNs one is kept.
        (4, FIXED64) => (!f64::from_bits(scan.fixed64()?).is_nan()).then_some(())?,
        (5, LEN) => {
            let mut array = Scan::repeating(scan.bytes()?, &[1]);
            while let Some(tag) = array.tag()? {
                (tag == (1, LEN)).then_some(())?;
                match array.bytes()? {
                    // Null, as an element of a list.
                    [] => budget.spend(depth + 1).then_some(())?,
                    element => any_value(element, depth + 1, budget)?,
                }
            }
        }
        (6, LEN) => {
            let mut map = Scan::repeating(scan.bytes()?, &[1]);
            while let Some(tag) = map.tag()? {
                (tag == (1, LEN)).then_some(())?;
                key_value(map.bytes()?, depth + 1, budget)?;
            }
        }
        (7, LEN) => drop(scan.bytes()?),
        _ => return None,
    }
    // A second value would replace the first.
    scan.is_at_end().then_some(())
}

/// An id of this length that is not all zero.
fn id<const N: usize>(bytes: &[u8]) -> Option<[u8; N]> {
    let id: [u8; N] = bytes.try_into().ok()?;
    (id != [0; N]).then_some(id)
}

const VARINT: u8 = 0;
const FIXED64: u8 = 1;
const LEN: u8 = 2;
const FIXED32: u8 = 5;

/// Walks the fields of one message; every answer is `None` for what is not in canonical form.
struct Scan<'a> {
    message: &'a [u8],
    at: usize,
    field_begin: usize,
    last: u8,
    /// A bit for each field that may stand more than once, side by side.
    repeated: u32,
}

impl<'a> Scan<'a> {
    fn repeating(message: &'a [u8], fields: &[u8]) -> Self {
        Self {
            message,
            at: 0,
            field_begin: 0,
            last: 0,
            repeated: fields.iter().fold(0, |bits, field| bits | 1 << field),
        }
    }

    fn is_at_end(&self) -> bool {
        self.at == self.message.len()
    }

    /// The next field's number and wire type; inner `None` at the end.
    #[expect(
        clippy::option_option,
        reason = "the outer one is not canonical, the inner one the end"
    )]
    #[inline]
    fn tag(&mut self) -> Option<Option<(u8, u8)>> {
        let Some(byte) = self.message.get(self.at).copied() else {
            return Some(None);
        };
        self.field_begin = self.at;
        self.at += 1;
        let (number, wire_type) = if byte < 0x80 {
            (byte >> 3, byte & 7)
        } else {
            // Field 16 is the only one with a longer tag.
            (byte == 0x85 && self.message.get(self.at) == Some(&1)).then_some(())?;
            self.at += 1;
            (16, FIXED32)
        };
        if number < self.last || number == self.last && self.repeated >> number & 1 == 0 {
            return None;
        }
        self.last = number;
        Some(Some((number, wire_type)))
    }

    #[inline]
    fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = usize::try_from(self.varint()?).ok()?;
        let end = self.at.checked_add(length)?;
        let bytes = self.message.get(self.at..end)?;
        self.at = end;
        Some(bytes)
    }

    #[inline]
    fn text(&mut self) -> Option<&'a [u8]> {
        let bytes = self.bytes()?;
        // The usual text, told by a few wide instructions.
        (bytes.is_ascii() || std::str::from_utf8(bytes).is_ok()).then_some(bytes)
    }

    /// In its shortest form.
    #[inline]
    fn varint(&mut self) -> Option<u64> {
        let first = *self.message.get(self.at)?;
        self.at += 1;
        if first < 0x80 {
            return Some(u64::from(first));
        }
        let mut value = u64::from(first & 0x7f);
        for shift in (7..70).step_by(7) {
            let byte = *self.message.get(self.at)?;
            self.at += 1;
            // The tenth byte holds one bit.
            if shift == 63 && byte > 1 {
                return None;
            }
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return (byte != 0).then_some(value);
            }
        }
        None
    }

    fn positive_int32(&mut self) -> Option<u64> {
        self.varint().filter(|value| *value <= i32::MAX as u64)
    }

    fn uint32(&mut self) -> Option<u64> {
        self.varint().filter(|value| *value <= u64::from(u32::MAX))
    }

    fn fixed64(&mut self) -> Option<u64> {
        let end = self.at.checked_add(8)?;
        let bytes = self.message.get(self.at..end)?;
        self.at = end;
        Some(u64::from_le_bytes(bytes.try_into().ok()?))
    }

    fn fixed32(&mut self) -> Option<u32> {
        let end = self.at.checked_add(4)?;
        let bytes = self.message.get(self.at..end)?;
        self.at = end;
        Some(u32::from_le_bytes(bytes.try_into().ok()?))
    }

    /// Nanoseconds since 1970, up to 2^63.
    fn time(&mut self) -> Option<u64> {
        self.fixed64().filter(|time| i64::try_from(*time).is_ok())
    }
}
