//! Ids in files: of any form, for people write traces by hand and other tools have ids of their own.

use std::{cell::RefCell, collections::HashMap};

use bytes::Bytes;
use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

use super::json;
use crate::{id::hex, wire};

/// Makes the ids of one file, and keeps how those of traces were spelled where that is not their usual form.
#[derive(Debug, Default)]
pub(crate) struct Names {
    spelled: RefCell<HashMap<[u8; 16], String>>,
    /// Spans without an id, so far.
    nameless: RefCell<u64>,
}

impl Names {
    /// The id that a text is, else one made of it: always the same for the same text.
    ///
    /// Digits of hex that are too few (Jaeger's short ids) are filled up with zeros, other texts are hashed.
    pub(super) fn id(&self, text: &str, length: usize) -> Bytes {
        if text.is_empty() || text.bytes().all(|digit| digit == b'0') && length != 16 {
            return Bytes::new();
        }
        let is_short_hex = text.len() < 2 * length && text.bytes().all(|b| b.is_ascii_hexdigit());
        let id = if is_short_hex {
            json::id(&format!("{text:0>width$}", width = 2 * length), length)
        } else {
            json::id(text, length)
        };
        let is_usable = id.len() == length && id.iter().any(|byte| *byte != 0);
        let id = if is_usable { id } else { made_of(text, length) };
        if let Ok(bytes) = <[u8; 16]>::try_from(id.as_ref())
            && hex(&bytes) != text
        {
            let mut spelled = self.spelled.borrow_mut();
            spelled.entry(bytes).or_insert_with(|| text.to_owned());
        }
        id
    }

    /// Gives a span without ids some: such spans are one trace, and nothing is below them.
    pub(super) fn complete(&self, span: &mut wire::Span) {
        if span.trace_id.is_empty() {
            span.trace_id = made_of("", 16);
            if let Ok(bytes) = <[u8; 16]>::try_from(span.trace_id.as_ref()) {
                self.spelled.borrow_mut().entry(bytes).or_default();
            }
        }
        if span.span_id.is_empty() {
            let mut nameless = self.nameless.borrow_mut();
            *nameless += 1;
            span.span_id = made_of(&format!("span without an id {nameless}"), 8);
        }
    }

    /// How a trace's id was spelled, where that is not 32 lower-case hex digits.
    pub(super) fn into_spelled(self) -> HashMap<[u8; 16], String> {
        self.spelled.into_inner()
    }
}

fn made_of(text: &str, length: usize) -> Bytes {
    if length == 16 {
        // All zero is no id; no text is known to come out so.
        Bytes::copy_from_slice(&xxh3_128(text.as_bytes()).max(1).to_be_bytes())
    } else {
        Bytes::copy_from_slice(&xxh3_64(text.as_bytes()).max(1).to_be_bytes())
    }
}
