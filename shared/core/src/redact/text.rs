//! Secrets within a text, which may be prose, JSON, JSON within JSON, what is left of JSON that was cut off, or how Python writes a dictionary.
//!
//! Nothing is parsed and written again: what is secret is replaced where it stands, and every other byte stays as it was.

use std::{borrow::Cow, cmp::Reverse, ops::Range};

use super::{Pass, is_mark, paths};

/// A name in quotes is no longer than this.
const MAX_NAME_BYTES: usize = 256;
/// One replacement may make another one visible; more rounds than this there are only in texts that were made for it.
const MAX_ROUNDS: usize = 8;
/// Values nest no deeper than a reader of ours follows; what lies deeper, where a path is still to be looked for, goes as a whole.
const MAX_DEPTH: usize = 96;
/// Numbers of a list that are looked over for how the list is quoted.
const MAX_NUMBERS_BACK: usize = 32;
/// JSON texts within JSON texts.
const MAX_TEXTS: usize = 6;

/// What is to be replaced by what.
#[derive(Default)]
pub(super) struct Edits(Vec<(Range<usize>, Vec<u8>)>);

impl Edits {
    fn push(&mut self, range: Range<usize>, by: impl Into<Vec<u8>>) {
        self.0.push((range, by.into()));
    }

    /// The text with what was replaced, and how much of it was. Of two that overlap the one that begins first is done, else the longer one.
    fn apply(mut self, text: &[u8]) -> (Vec<u8>, u64) {
        self.0
            .sort_by_key(|(range, _)| (range.start, Reverse(range.end)));
        let (mut out, mut at, mut count) = (Vec::with_capacity(text.len()), 0, 0);
        for (range, by) in self.0 {
            if range.start < at {
                continue;
            }
            out.extend_from_slice(text.get(at..range.start).unwrap_or_default());
            out.extend_from_slice(&by);
            at = range.end;
            count += 1;
        }
        out.extend_from_slice(text.get(at..).unwrap_or_default());
        (out, count)
    }
}

/// How a text is quoted: by this, after so many backslashes (JSON within JSON has 1, within that 3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Quote {
    by: u8,
    escapes: usize,
}

impl Quote {
    fn len(self) -> usize {
        self.escapes + 1
    }

    fn write(self, out: &mut Vec<u8>) {
        out.resize(out.len() + self.escapes, b'\\');
        out.push(self.by);
    }

    /// Puts a text between quotes.
    fn around(self, text: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        self.write(&mut out);
        out.extend_from_slice(text);
        self.write(&mut out);
        out
    }

    /// The quote that stands here, if one does.
    fn at(text: &[u8], at: usize) -> Option<Self> {
        let escapes = backslashes_from(text, at);
        let by = *text.get(at + escapes)?;
        matches!(by, b'"' | b'\'').then_some(Self { by, escapes })
    }

    /// Where the text that was opened by this ends: behind its last byte. The end of all where it was cut off.
    fn end_of(self, text: &[u8], from: usize) -> usize {
        let mut at = from;
        while let Some(found) = find(text, at, |byte| byte == self.by) {
            let escapes = backslashes_before(text, found, from);
            // A backslash of the text itself is two, four, eight here.
            let unit = 2 * (self.escapes + 1);
            if escapes < self.escapes {
                return found - escapes;
            }
            if (escapes - self.escapes).is_multiple_of(unit) {
                return found - self.escapes;
            }
            at = found + 1;
        }
        text.len()
    }
}

fn find(text: &[u8], from: usize, is_it: impl Fn(u8) -> bool) -> Option<usize> {
    let rest = text.get(from..)?;
    rest.iter()
        .position(|byte| is_it(*byte))
        .map(|at| from + at)
}

fn backslashes_from(text: &[u8], at: usize) -> usize {
    let rest = text.get(at..).unwrap_or_default();
    rest.iter().take_while(|byte| **byte == b'\\').count()
}

fn backslashes_before(text: &[u8], at: usize, not_before: usize) -> usize {
    let before = text.get(not_before..at).unwrap_or_default();
    before
        .iter()
        .rev()
        .take_while(|byte| **byte == b'\\')
        .count()
}

/// Past white space, also that which is written as `\n` where the text stands within another one.
fn skip_space(text: &[u8], mut at: usize) -> usize {
    loop {
        match text.get(at) {
            Some(byte) if byte.is_ascii_whitespace() => at += 1,
            Some(b'\\') => {
                let after = at + backslashes_from(text, at);
                match text.get(after) {
                    Some(b'n' | b'r' | b't') => at = after + 1,
                    _ => return at,
                }
            }
            _ => return at,
        }
    }
}

fn slice(text: &[u8], range: Range<usize>) -> &[u8] {
    text.get(range).unwrap_or_default()
}

/// ASCII that was written as `\u00..`, as itself: in whatever reads it, that is the same text. Quotes, backslashes and what is no character stay.
fn unhidden(text: &[u8]) -> Cow<'_, [u8]> {
    let mut out: Vec<u8> = Vec::new();
    let (mut done, mut at) = (0, 0);
    while let Some(found) = find(text, at, |byte| byte == b'\\') {
        let after = found + backslashes_from(text, found);
        at = after;
        let Some([b'u', b'0', b'0', high, low]) = text.get(after..after + 5) else {
            continue;
        };
        let digit = |byte: u8| (byte as char).to_digit(16);
        let code = digit(*high)
            .zip(digit(*low))
            .map(|(high, low)| high * 16 + low);
        let Some(byte) = code.and_then(|code| u8::try_from(code).ok()) else {
            continue;
        };
        if (byte.is_ascii_graphic() || byte == b' ') && !matches!(byte, b'"' | b'\'' | b'\\') {
            out.extend_from_slice(slice(text, done..found));
            out.push(byte);
            done = after + 5;
            at = done;
        }
    }
    if done == 0 {
        return Cow::Borrowed(text);
    }
    out.extend_from_slice(slice(text, done..text.len()));
    Cow::Owned(out)
}

impl Pass<'_> {
    /// A text without what is secret in it; `None`: there is nothing. `active`: what is left of paths at this text, if it is JSON.
    pub(super) fn text(&self, text: &[u8], active: &[paths::Active<'_>]) -> Option<Vec<u8>> {
        self.text_within(text, active, 0)
    }

    fn text_within(
        &self,
        text: &[u8],
        active: &[paths::Active<'_>],
        texts: usize,
    ) -> Option<Vec<u8>> {
        if !self.rules.quick.is_match(text) {
            return None;
        }
        let mut now = unhidden(text);
        let mut changed = false;
        for _ in 0..MAX_ROUNDS {
            let mut edits = Edits::default();
            self.names_in(&now, &mut edits);
            if !active.is_empty() {
                let walk = Walk {
                    pass: self,
                    text: &now,
                    texts,
                };
                walk.value(0, active, 0, &mut edits);
            }
            self.patterns_in(&now, &mut edits);
            if edits.0.is_empty() {
                break;
            }
            let (edited, count) = edits.apply(&now);
            self.count(count);
            changed = true;
            now = Cow::Owned(edited);
        }
        changed.then(|| now.into_owned())
    }

    fn patterns_in(&self, text: &[u8], edits: &mut Edits) {
        for pattern in self.rules.patterns() {
            for found in pattern.find_in(text) {
                let found = on_characters(text, found);
                // What an operator's expression hits may be our own mark.
                let is_ours = slice(text, found.clone());
                if !found.is_empty() && !is_mark(is_ours) && !is_within_mark(text, &found) {
                    let by = self.mark(is_ours);
                    match quote_for_number(text, &found) {
                        Some(quote) => edits.push(found, quote.around(by.as_bytes())),
                        None => edits.push(found, by),
                    }
                }
            }
        }
    }

    /// What stands under secret names: as fields of JSON and the like, and as `name=value` and `name: value`.
    fn names_in(&self, text: &[u8], edits: &mut Edits) {
        // Up to where something is replaced, and up to where a line was looked through in vain: what stands there is not looked at again, however often a stranger repeats a name.
        let (mut done, mut line_done) = (0, 0);
        for part in self.rules.parts_of_names.find_iter(text) {
            let part = part.range();
            if part.start < done {
                continue;
            }
            let before = edits.0.len();
            match quoted_around(text, &part) {
                Some((name, quote)) => {
                    if self.rules.is_secret_name(slice(text, name.clone())) {
                        self.value_of(text, name, quote, edits);
                    }
                }
                None => self.bare_value_of(text, &part, &mut line_done, edits),
            }
            if let Some((range, _)) = edits.0.get(before) {
                done = range.end;
            }
        }
    }

    fn value_of(&self, text: &[u8], name: Range<usize>, quote: Quote, edits: &mut Edits) {
        let at = skip_space(text, name.end + quote.len());
        let value = match text.get(at) {
            Some(b':') => skip_space(text, at + 1),
            // Ruby's way.
            Some(b'=') if text.get(at + 1) == Some(&b'>') => skip_space(text, at + 2),
            // `{"key": "password", "value": ...}`, as OTLP has attributes.
            Some(b',') => match self.value_beside(text, at + 1) {
                Some(value) => value,
                None => return,
            },
            _ => return,
        };
        self.replace_value(text, value, quote, edits);
    }

    /// Where the value of a pair stands whose name came before.
    fn value_beside(&self, text: &[u8], after_comma: usize) -> Option<usize> {
        let begin = skip_space(text, after_comma);
        let quote = Quote::at(text, begin)?;
        let from = begin + quote.len();
        let end = quote.end_of(text, from);
        let is_value = matches!(
            slice(text, from..end),
            b"value" | b"Value" | b"stringValue" | b"string_value"
        );
        let at = skip_space(text, end + quote.len());
        (is_value && text.get(at) == Some(&b':')).then(|| skip_space(text, at + 1))
    }

    /// Replaces the value that begins here, of whatever kind it is; nothing and a truth tell nothing.
    fn replace_value(&self, text: &[u8], at: usize, quote: Quote, edits: &mut Edits) {
        if let Some(own) = Quote::at(text, at) {
            let from = at + own.len();
            let range = from..own.end_of(text, from);
            let said = slice(text, range.clone());
            if !said.is_empty() && !is_mark(said) {
                edits.push(range, self.mark_quoted(said, own));
            }
            return;
        }
        let end = end_of_value(text, at);
        let said = slice(text, at..end);
        if is_marked(said) {
            return;
        }
        let marked = |said: &[u8]| quote.around(self.mark(said).as_bytes());
        let by = match text.get(at) {
            Some(b'{') if is_any_value(said) => {
                let mut by = b"{".to_vec();
                by.extend(quote.around(b"stringValue"));
                by.push(b':');
                by.extend(marked(said));
                by.push(b'}');
                by
            }
            Some(b'{') if is_of_a_schema(said) => return,
            Some(b'{') => marked(said),
            Some(b'[') => [b"[", marked(said).as_slice(), b"]"].concat(),
            _ if tells_nothing(said) => return,
            _ => marked(said),
        };
        edits.push(at..end, by);
    }

    /// `?api_key=...`, `PASSWORD=...`, `Cookie: a=b`, `password: hunter2`.
    fn bare_value_of(
        &self,
        text: &[u8],
        part: &Range<usize>,
        line_done: &mut usize,
        edits: &mut Edits,
    ) {
        let is_of_name =
            |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
        let before = text.get(..part.start).unwrap_or_default();
        let before = before.iter().rev().take(MAX_NAME_BYTES);
        let begin = part.start - before.take_while(|byte| is_of_name(**byte)).count();
        let after = text.get(part.end..).unwrap_or_default();
        let after = after.iter().take(MAX_NAME_BYTES);
        let end = part.end + after.take_while(|byte| is_of_name(**byte)).count();
        let name = slice(text, begin..end);
        if !self.rules.is_secret_name(name) {
            return;
        }
        let line = |byte: u8| matches!(byte, b'\n' | b'\r' | b'"' | b'\'' | b'\\' | b'<' | b'`');
        let word = |byte: u8| {
            line(byte)
                || byte.is_ascii_whitespace()
                || matches!(
                    byte,
                    b'&' | b';' | b',' | b')' | b']' | b'}' | b'(' | b'[' | b'{'
                )
        };
        let range = match (text.get(end), text.get(end + 1)) {
            (Some(b'='), Some(next)) if *next != b'=' && !word(*next) => {
                end + 1..find(text, end + 1, word).unwrap_or(text.len())
            }
            (Some(b'=' | b':'), Some(b'"' | b'\'')) => {
                let Some(own) = Quote::at(text, end + 1) else {
                    return;
                };
                let from = end + 1 + own.len();
                from..own.end_of(text, from)
            }
            (Some(b':'), Some(_)) => {
                let blank = |byte: &&u8| matches!(byte, b' ' | b'\t');
                let rest = text.get(end + 1..).unwrap_or_default();
                let from = end + 1 + rest.iter().take_while(blank).count();
                let lower = name.to_ascii_lowercase();
                let is_header = lower.ends_with(b"authorization") || lower.ends_with(b"cookie");
                if is_header && from < *line_done {
                    return;
                }
                let range = match is_header {
                    true => from..find(text, from, line).unwrap_or(text.len()),
                    false => from..find(text, from, word).unwrap_or(text.len()),
                };
                // Prose says `password: click here`, and code `secret: String`.
                let said = slice(text, range.clone());
                let tells = |byte: &u8| byte.is_ascii_digit() || *byte == b'=';
                if said.len() < 6 || !said.iter().any(tells) {
                    *line_done = range.end;
                    return;
                }
                range
            }
            _ => return,
        };
        let said = slice(text, range.clone());
        if !said.is_empty() && !is_mark(said) && !tells_nothing(said) {
            edits.push(range, self.mark(said));
        }
    }

    /// The mark of a text that stands in quotes: equal values are equal however they were quoted.
    fn mark_quoted(&self, said: &[u8], quote: Quote) -> String {
        let whole = quote.around(said);
        let plain = match quote {
            Quote {
                by: b'"',
                escapes: 0,
            } => serde_json::from_slice::<String>(&whole).ok(),
            _ => None,
        };
        match plain {
            Some(plain) => self.mark(plain.as_bytes()),
            None => self.mark(said),
        }
    }
}

/// The name in quotes of which this is a part.
fn quoted_around(text: &[u8], part: &Range<usize>) -> Option<(Range<usize>, Quote)> {
    let is_end = |byte: u8| matches!(byte, b'"' | b'\'');
    // What never stands in a name.
    let is_outside = |byte: u8| {
        matches!(
            byte,
            b'\n' | b'\r' | b'{' | b'}' | b'<' | b'>' | b',' | b'=' | b'&' | b'?'
        )
    };
    let last = text.len().min(part.end + MAX_NAME_BYTES);
    let closing = find(slice(text, 0..last), part.end, |byte| {
        is_end(byte) || is_outside(byte)
    })?;
    let by = *text.get(closing).filter(|byte| is_end(**byte))?;
    let escapes = backslashes_before(text, closing, part.end);
    let first = part.start.saturating_sub(MAX_NAME_BYTES);
    let before = slice(text, first..part.start);
    let opening = before
        .iter()
        .rposition(|byte| is_end(*byte) || is_outside(*byte))?
        + first;
    let is_same = text.get(opening) == Some(&by) && backslashes_before(text, opening, 0) >= escapes;
    is_same.then_some((opening + 1..closing - escapes, Quote { by, escapes }))
}

/// How a text is quoted that takes the place of a number of JSON; `None`: it is none.
fn quote_for_number(text: &[u8], range: &Range<usize>) -> Option<Quote> {
    let is_number = slice(text, range.clone()).iter().all(u8::is_ascii_digit);
    let after = text.get(skip_space(text, range.end));
    if !is_number || !matches!(after, Some(b',' | b'}' | b']')) {
        return None;
    }
    let not_space = |until: usize| {
        let before = text.get(..until)?;
        before.iter().rposition(|byte| !byte.is_ascii_whitespace())
    };
    let quoted = |at: usize| {
        let by = *text.get(at).filter(|byte| matches!(byte, b'"' | b'\''))?;
        let escapes = backslashes_before(text, at, 0);
        Some(Quote { by, escapes })
    };
    let mut at = range.start;
    let mut is_in_list = false;
    for _ in 0..MAX_NUMBERS_BACK {
        let Some(before) = not_space(at) else {
            return is_in_list.then_some(JSON);
        };
        match text.get(before)? {
            b':' => return quoted(not_space(before)?),
            b'[' => {
                is_in_list = true;
                at = before;
            }
            b',' => {
                // Behind another number, or behind a text that is quoted as this one shall be.
                let last = not_space(before)?;
                if let Some(quote) = quoted(last) {
                    return Some(quote);
                }
                let is_of_number =
                    |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'+');
                let number = text
                    .get(..=last)?
                    .iter()
                    .rev()
                    .take_while(|byte| is_of_number(byte))
                    .count();
                if number == 0 {
                    return Some(JSON);
                }
                at = last + 1 - number;
            }
            // The text within which this one stands.
            _ if is_in_list => {
                let outer = quoted(before)?;
                return Some(Quote {
                    escapes: 2 * outer.escapes + 1,
                    ..outer
                });
            }
            _ => return None,
        }
    }
    Some(JSON)
}

/// Where a list, an object, a number or a word ends.
fn end_of_value(text: &[u8], from: usize) -> usize {
    let is_nested = matches!(text.get(from), Some(b'{' | b'['));
    if !is_nested {
        let is_end = |byte: u8| {
            byte.is_ascii_whitespace()
                || matches!(byte, b',' | b'}' | b']' | b')' | b'"' | b'\'' | b'\\')
        };
        return find(text, from, is_end).unwrap_or(text.len());
    }
    let (mut depth, mut at) = (0_usize, from);
    while let Some(byte) = text.get(at) {
        match byte {
            b'{' | b'[' => depth += 1,
            b'}' | b']' => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return at + 1;
                }
            }
            b'"' | b'\'' | b'\\' => {
                if let Some(quote) = Quote::at(text, at) {
                    let inside = at + quote.len();
                    let end = quote.end_of(text, inside);
                    // An apostrophe in what is no quotation, or a text that ends outside: not past what surrounds it.
                    at = end + if end < text.len() { quote.len() } else { 0 };
                    continue;
                }
            }
            _ => {}
        }
        at += 1;
    }
    text.len()
}

/// A value that OTLP/JSON wraps in its kind.
fn is_any_value(said: &[u8]) -> bool {
    let first: Vec<u8> = said
        .iter()
        .skip(1)
        .copied()
        .filter(|byte| !matches!(byte, b'\\' | b'"' | b'\'') && !byte.is_ascii_whitespace())
        .take(14)
        .collect();
    [
        "stringValue:",
        "intValue:",
        "doubleValue:",
        "bytesValue:",
        "arrayValue:",
        "kvlistValue:",
    ]
    .iter()
    .any(|kind| first.starts_with(kind.as_bytes()))
}

/// What a tool's description says of a parameter of that name; it holds no value.
fn is_of_a_schema(said: &[u8]) -> bool {
    const WORDS: [&str; 9] = [
        "type",
        "description",
        "title",
        "format",
        "minLength",
        "maxLength",
        "nullable",
        "writeOnly",
        "pattern",
    ];
    let Ok(fields) = serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(said)
    else {
        return false;
    };
    let is_type = |value: &serde_json::Value| {
        matches!(
            value.as_str(),
            Some("string" | "number" | "integer" | "boolean" | "object" | "array" | "null")
        )
    };
    fields.get("type").is_some_and(is_type)
        && fields.keys().all(|key| WORDS.contains(&key.as_str()))
}

fn tells_nothing(said: &[u8]) -> bool {
    matches!(
        said,
        b"" | b"null" | b"true" | b"false" | b"None" | b"True" | b"False" | b"nil" | b"undefined"
    )
}

/// A list or an object that was replaced before.
fn is_marked(said: &[u8]) -> bool {
    let is_shell = |byte: &u8| {
        matches!(
            byte,
            b'[' | b']' | b'{' | b'}' | b'"' | b'\'' | b'\\' | b' '
        )
    };
    let Some(begin) = said.iter().position(|byte| !is_shell(byte)) else {
        // Empty lists.
        return true;
    };
    let end = said
        .iter()
        .rposition(|byte| !is_shell(byte))
        .map_or(begin, |at| at + 1);
    let mut inside = slice(said, begin..end);
    if let Some(rest) = inside.strip_prefix(b"stringValue") {
        let is_between = |byte: &u8| is_shell(byte) || *byte == b':';
        let from = rest
            .iter()
            .position(|byte| !is_between(byte))
            .unwrap_or(rest.len());
        inside = slice(rest, from..rest.len());
    }
    is_mark(&[b"[", inside, b"]"].concat())
}

/// Whether a range lies within a mark of ours.
fn is_within_mark(text: &[u8], range: &Range<usize>) -> bool {
    let first = range.start.saturating_sub(super::MARK_BYTES);
    let before = slice(text, first..range.start);
    let Some(open) = before.iter().rposition(|byte| *byte == b'[') else {
        return false;
    };
    let open = first + open;
    let near = slice(text, 0..text.len().min(open + super::MARK_BYTES));
    find(near, open, |byte| byte == b']')
        .is_some_and(|close| close >= range.end - 1 && is_mark(slice(text, open..close + 1)))
}

/// A range of bytes as one of whole characters.
fn on_characters(text: &[u8], range: Range<usize>) -> Range<usize> {
    let is_inside = |at: usize| text.get(at).is_some_and(|byte| byte & 0xc0 == 0x80);
    let (mut start, mut end) = (range.start, range.end);
    while start > 0 && is_inside(start) {
        start -= 1;
    }
    while is_inside(end) {
        end += 1;
    }
    start..end
}

/// Follows paths through JSON, as far as it is any.
struct Walk<'a> {
    pass: &'a Pass<'a>,
    text: &'a [u8],
    texts: usize,
}

const JSON: Quote = Quote {
    by: b'"',
    escapes: 0,
};

impl Walk<'_> {
    /// Returns where the value ends.
    fn value(
        &self,
        at: usize,
        active: &[paths::Active<'_>],
        depth: usize,
        edits: &mut Edits,
    ) -> usize {
        let at = skip_space(self.text, at);
        match self.text.get(at) {
            _ if active.is_empty() => self.end_of(at),
            Some(b'{' | b'[') if depth >= MAX_DEPTH => {
                let end = self.end_of(at);
                self.replace(at, end, edits);
                end
            }
            Some(b'{') => self.object(at + 1, active, depth, edits),
            Some(b'[') => self.list(at + 1, active, depth, edits),
            Some(b'"') => {
                let end = self.end_of(at);
                self.inner(at..end, active, edits);
                end
            }
            _ => self.end_of(at),
        }
    }

    fn end_of(&self, at: usize) -> usize {
        match self.text.get(at) {
            Some(b'"') => (JSON.end_of(self.text, at + 1) + 1).min(self.text.len()),
            _ => end_of_value(self.text, at),
        }
    }

    fn object(
        &self,
        mut at: usize,
        active: &[paths::Active<'_>],
        depth: usize,
        edits: &mut Edits,
    ) -> usize {
        loop {
            at = skip_space(self.text, at);
            match self.text.get(at) {
                Some(b'}') => return at + 1,
                Some(b',') => at += 1,
                Some(b'"') => {
                    let name_end = self.end_of(at);
                    let name = slice(self.text, at..name_end);
                    let name = serde_json::from_slice::<String>(name).unwrap_or_else(|_| {
                        String::from_utf8_lossy(name).trim_matches('"').to_owned()
                    });
                    let colon = skip_space(self.text, name_end);
                    if self.text.get(colon) != Some(&b':') {
                        return self.text.len();
                    }
                    let value = skip_space(self.text, colon + 1);
                    at = self.step(value, active, paths::Step::Field(&name), depth, edits);
                }
                _ => return self.text.len(),
            }
        }
    }

    fn list(
        &self,
        mut at: usize,
        active: &[paths::Active<'_>],
        depth: usize,
        edits: &mut Edits,
    ) -> usize {
        let mut place = 0;
        loop {
            at = skip_space(self.text, at);
            match self.text.get(at) {
                Some(b']') => return at + 1,
                Some(b',') => at += 1,
                None | Some(b'}' | b':') => return self.text.len(),
                Some(_) => {
                    let end = self.step(at, active, paths::Step::Element(place), depth, edits);
                    if end <= at {
                        return self.text.len();
                    }
                    at = end;
                    place += 1;
                }
            }
        }
    }

    fn step(
        &self,
        at: usize,
        active: &[paths::Active<'_>],
        step: paths::Step<'_>,
        depth: usize,
        edits: &mut Edits,
    ) -> usize {
        let (left, is_end) = paths::step(active, step);
        match is_end {
            true => {
                let end = self.end_of(at);
                self.replace(at, end, edits);
                end
            }
            false => self.value(at, &left, depth + 1, edits),
        }
    }

    fn replace(&self, at: usize, end: usize, edits: &mut Edits) {
        let said = slice(self.text, at..end);
        let inside = at + 1..JSON.end_of(self.text, at + 1);
        match self.text.get(at) {
            Some(b'"') if inside.is_empty() || is_mark(slice(self.text, inside.clone())) => {}
            Some(b'"') => {
                let by = self
                    .pass
                    .mark_quoted(slice(self.text, inside.clone()), JSON);
                edits.push(inside, by);
            }
            _ if said.is_empty() || said == b"null" || is_marked(said) => {}
            _ => edits.push(at..end, JSON.around(self.pass.mark(said).as_bytes())),
        }
    }

    /// A text that is JSON itself.
    fn inner(&self, range: Range<usize>, active: &[paths::Active<'_>], edits: &mut Edits) {
        let Ok(inner) = serde_json::from_slice::<String>(slice(self.text, range.clone())) else {
            return;
        };
        if !inner.trim_start().starts_with(['{', '[']) {
            return;
        }
        let by = match self.texts >= MAX_TEXTS {
            true => Some(self.pass.mark(inner.as_bytes()).into_bytes()),
            false => self
                .pass
                .text_within(inner.as_bytes(), active, self.texts + 1),
        };
        if let Some(by) = by {
            let by = serde_json::to_vec(&String::from_utf8_lossy(&by));
            edits.push(range, by.unwrap_or_default());
        }
    }
}
