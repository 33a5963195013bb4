//! JSON written straight into a text: a page's listeners are told of every span, and escaping its texts byte by byte was most of what writing it cost (`perf` of `scripts/bench socket`).

use std::fmt::Write as _;
use std::io;

use serde::Serialize;
use serde_json::Value;

/// Writes a text with its quotes, escaped as `serde_json` does it.
pub(super) fn push_text(into: &mut String, text: &str) {
    into.push('"');
    let mut rest = text;
    loop {
        let clean = clean_bytes(rest.as_bytes());
        // What is escaped is ASCII, so a character begins there and after it.
        let (Some(before), Some(byte)) = (rest.get(..clean), rest.as_bytes().get(clean)) else {
            into.push_str(rest);
            break;
        };
        into.push_str(before);
        match byte {
            b'"' => into.push_str("\\\""),
            b'\\' => into.push_str("\\\\"),
            b'\n' => into.push_str("\\n"),
            b'\r' => into.push_str("\\r"),
            b'\t' => into.push_str("\\t"),
            0x08 => into.push_str("\\b"),
            0x0c => into.push_str("\\f"),
            // Writing to a text does not fail.
            other => {
                let _ = write!(into, "\\u{other:04x}");
            }
        }
        rest = rest.get(clean + 1..).unwrap_or_default();
    }
    into.push('"');
}

/// How many bytes stand before the first that JSON escapes (RFC 8259, section 7), or all. Looks at thirty-two at a time, which compilers do with vectors, then at eight.
fn clean_bytes(bytes: &[u8]) -> usize {
    let is_escaped = |byte: &u8| *byte < 0x20 || matches!(byte, b'"' | b'\\');
    const ONES: u64 = u64::MAX / 255;
    const HIGHEST: u64 = ONES << 7;
    // Of each byte its highest bit, where it is below `limit`; a byte above one that is may be told wrongly, so the lowest counts.
    let below = |word: u64, limit: u64| word.wrapping_sub(ONES * limit) & !word & HIGHEST;
    let mut at = 0;
    while let Some(block) = bytes.get(at..).and_then(|rest| rest.first_chunk::<32>())
        // Without an end in its middle.
        && !block.iter().fold(false, |any, byte| any | is_escaped(byte))
    {
        at += 32;
    }
    while let Some(word) = bytes.get(at..).and_then(|rest| rest.first_chunk()) {
        let word = u64::from_le_bytes(*word);
        let is = |byte: u8| below(word ^ (ONES * u64::from(byte)), 1);
        let found = below(word, 0x20) | is(b'"') | is(b'\\');
        if found != 0 {
            return at + found.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    let rest = bytes.get(at..).unwrap_or_default();
    at + rest.iter().position(is_escaped).unwrap_or(rest.len())
}

/// Writes a whole number.
pub(super) fn push_number(into: &mut String, number: impl itoa::Integer) {
    into.push_str(itoa::Buffer::new().format(number));
}

/// Writes a value as `serde_json` does it. As deep as values can be read, so it ends.
pub(super) fn push_value(into: &mut String, value: &Value) {
    let separate = |into: &mut String, at: usize| {
        if at > 0 {
            into.push(',');
        }
    };
    match value {
        Value::String(text) => push_text(into, text),
        Value::Array(values) => {
            into.push('[');
            for (at, value) in values.iter().enumerate() {
                separate(into, at);
                push_value(into, value);
            }
            into.push(']');
        }
        Value::Object(pairs) => {
            into.push('{');
            for (at, (key, value)) in pairs.iter().enumerate() {
                separate(into, at);
                push_text(into, key);
                into.push(':');
                push_value(into, value);
            }
            into.push('}');
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => push_json(into, value),
    }
}

/// An object that is written field by field. Keys are our own words, in which nothing is escaped.
pub(super) struct Object<'a> {
    into: &'a mut String,
    is_begun: bool,
}

impl<'a> Object<'a> {
    pub(super) fn begin(into: &'a mut String) -> Self {
        into.push('{');
        Self {
            into,
            is_begun: false,
        }
    }

    /// Where the value of this field is to be written.
    pub(super) fn field(&mut self, key: &'static str) -> &mut String {
        self.into.push_str(if self.is_begun { ",\"" } else { "\"" });
        self.is_begun = true;
        self.into.push_str(key);
        self.into.push_str("\":");
        self.into
    }

    pub(super) fn text(&mut self, key: &'static str, text: &str) {
        push_text(self.field(key), text);
    }

    pub(super) fn number(&mut self, key: &'static str, number: impl itoa::Integer) {
        push_number(self.field(key), number);
    }

    pub(super) fn value(&mut self, key: &'static str, value: &Value) {
        push_value(self.field(key), value);
    }

    pub(super) fn json(&mut self, key: &'static str, value: &impl Serialize) {
        push_json(self.field(key), value);
    }

    pub(super) fn end(self) {
        self.into.push('}');
    }
}

/// Writes what `serde` knows how to write; keys are texts, so it is written.
pub(super) fn push_json(into: &mut String, value: &impl Serialize) {
    struct Texts<'a>(&'a mut String);
    impl io::Write for Texts<'_> {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let text = str::from_utf8(bytes).map_err(io::Error::other)?;
            self.0.push_str(text);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let before = into.len();
    if serde_json::to_writer(Texts(into), value).is_err() {
        into.truncate(before);
        into.push_str("null");
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_text_is_written_as_serde_json_does_it(text in "(\\PC|[\"\\\\\\x00-\\x20\u{7f}-\u{9f}é🎲]){0,60}") {
            let mut written = String::new();
            push_text(&mut written, &text);
            prop_assert_eq!(written, serde_json::to_string(&text).unwrap());
        }
    }

    #[test]
    fn a_value_is_written_as_serde_json_does_it() {
        let value = serde_json::json!({
            "": null, "b": [], "a\"": [true, -1, 1.5, 1e300, u64::MAX, {"z": {}, "a": ["\n", "é"]}],
        });
        let mut written = String::new();
        push_value(&mut written, &value);
        assert_eq!(written, value.to_string());
        let mut written = "x".to_owned();
        let mut object = Object::begin(&mut written);
        object.text("a", "\"");
        object.number("b", 3_u64);
        object.value("c", &serde_json::json!([]));
        object.json("d", &0.5);
        object.end();
        assert_eq!(written, r#"x{"a":"\"","b":3,"c":[],"d":0.5}"#);
    }

    #[test]
    fn every_character_is_found_wherever_it_stands() {
        for at in 0..70 {
            for byte in 0..0x80_u8 {
                let mut text = "é".repeat(10) + &"x".repeat(at);
                text.push(char::from(byte));
                text.push_str("\"more\u{1f3b2}");
                let mut written = String::new();
                push_text(&mut written, &text);
                assert_eq!(written, serde_json::to_string(&text).unwrap());
            }
        }
    }
}
