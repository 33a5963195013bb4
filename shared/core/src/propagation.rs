//! The headers by which callers pass on which trace a call belongs to.

use std::fmt;

use crate::id::{TraceId, hex};

/// A `traceparent` header (W3C Trace Context, level 1, section 3.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceParent {
    pub trace: TraceId,
    /// 16 lower-case hex digits, not all zero.
    pub parent_span_id: String,
    pub flags: u8,
}

impl TraceParent {
    /// Reads the header's value; `None` when it is not valid, and then the specification has it ignored.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.trim().split('-');
        let [version, trace, parent, flags] = [(); 4].map(|()| parts.next());
        let [version] = lower_hex::<1>(version?)?;
        // Later versions may append parts; 255 is forbidden.
        if version == 255 || (version == 0 && parts.next().is_some()) {
            return None;
        }
        let trace = TraceId::from_otel(&lower_hex::<16>(trace?)?)?;
        let parent = lower_hex::<8>(parent?)?;
        let [flags] = lower_hex::<1>(flags?)?;
        parent.iter().any(|byte| *byte != 0).then(|| Self {
            trace,
            parent_span_id: hex(&parent),
            flags,
        })
    }
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            trace,
            parent_span_id,
            flags,
        } = self;
        write!(f, "00-{trace}-{parent_span_id}-{flags:02x}")
    }
}

fn lower_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digit = |byte: &u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if pairs.len() != N || !rest.is_empty() {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
        *byte = digit(high)? << 4 | digit(low)?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traceparent_is_read_by_the_specification() {
        let check = |text: &str, printed: Option<&str>| {
            let read = TraceParent::parse(text).map(|parent| parent.to_string());
            assert_eq!(read.as_deref(), printed, "{text}");
        };
        let valid = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        check(valid, Some(valid));
        check(&format!("{valid}-more"), None);
        // A later version may say more.
        check(
            "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            Some(valid),
        );
        for invalid in [
            "",
            "00",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4bf92f3577b34da6a3ce929d0e0e47-00f067aa0ba902b7-01",
        ] {
            check(invalid, None);
        }
    }
}
