//! Python's way to print a value, read back: `{'role': 'user'}`, `[ChatMessage(role=<Role.USER: 'user'>, ..)]`, `role='user' content='..'`.
//!
//! Instrumentations that cannot serialise an object send what `repr` or `str` makes of it. It is read as the JSON it would have been: an
//! object's fields by name, its class as `type` unless it has one, an enumeration as its value. What is cut short or not of this form
//! is no value at all.

use serde_json::{Map, Value};

/// Longer texts stay texts.
const MAX_BYTES: usize = 1 << 20;
/// Deeper values stay texts.
const MAX_DEPTH: usize = 32;

/// The value that `text` prints; `None` for anything that does not look like a list, a dictionary or an object from beginning to end.
pub(super) fn parse(text: &str) -> Option<Value> {
    let text = text.trim();
    let begins = text.chars().next()?;
    let may_be = matches!(begins, '[' | '{' | '(') || begins.is_ascii_alphabetic();
    let closed = text.ends_with([']', '}', ')', '\'', '"']);
    if !may_be || !closed || text.len() > MAX_BYTES {
        return None;
    }
    let mut reader = Reader { rest: text };
    let value = match reader.fields_apart_by_spaces() {
        Some(fields) => fields,
        None => {
            reader.rest = text;
            reader.value(0)?
        }
    };
    reader.skip_space();
    (reader.rest.is_empty() && (value.is_array() || value.is_object())).then_some(value)
}

struct Reader<'a> {
    rest: &'a str,
}

impl<'a> Reader<'a> {
    fn skip_space(&mut self) {
        self.rest = self.rest.trim_start();
    }

    fn take(&mut self, what: char) -> bool {
        self.skip_space();
        match self.rest.strip_prefix(what) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn word(&mut self) -> Option<&'a str> {
        self.skip_space();
        let end = self
            .rest
            .find(|c: char| !(c.is_alphanumeric() || c == '_' || c == '.'))
            .unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        if !word.starts_with(|c: char| c.is_alphabetic() || c == '_') {
            return None;
        }
        self.rest = rest;
        Some(word)
    }

    /// `role='user' content='..'`: how pydantic prints a model by `str`.
    fn fields_apart_by_spaces(&mut self) -> Option<Value> {
        let mut fields = Map::new();
        loop {
            self.skip_space();
            if self.rest.is_empty() && !fields.is_empty() {
                return Some(Value::Object(fields));
            }
            let name = self.word()?.trim_start_matches('_').to_owned();
            if !self.rest.starts_with('=') {
                return None;
            }
            self.rest = self.rest.get(1..)?;
            let value = self.value(1)?;
            fields.insert(name, value);
        }
    }

    fn value(&mut self, depth: usize) -> Option<Value> {
        if depth > MAX_DEPTH {
            return None;
        }
        self.skip_space();
        match self.rest.chars().next()? {
            '[' => self.list('[', ']', depth),
            '(' => self.list('(', ')', depth),
            '{' => self.dictionary(depth),
            '<' => self.angle(depth),
            '\'' | '"' => self.text().map(Value::String),
            c if c.is_ascii_digit() || c == '-' || c == '+' => self.number(),
            _ => self.named(depth),
        }
    }

    fn list(&mut self, open: char, close: char, depth: usize) -> Option<Value> {
        self.take(open);
        let mut items = Vec::new();
        loop {
            if self.take(close) {
                return Some(Value::Array(items));
            }
            items.push(self.value(depth + 1)?);
            if !self.take(',') && !self.rest.trim_start().starts_with(close) {
                return None;
            }
        }
    }

    /// A dictionary, or a set as a list.
    fn dictionary(&mut self, depth: usize) -> Option<Value> {
        self.take('{');
        let mut fields = Map::new();
        let mut items = Vec::new();
        loop {
            if self.take('}') {
                return Some(match items.is_empty() {
                    true => Value::Object(fields),
                    false => Value::Array(items),
                });
            }
            let key = self.value(depth + 1)?;
            if self.take(':') {
                let key = match key {
                    Value::String(key) => key,
                    other => other.to_string(),
                };
                let value = self.value(depth + 1)?;
                fields.insert(key, value);
            } else {
                items.push(key);
            }
            if !self.take(',') && !self.rest.trim_start().starts_with('}') {
                return None;
            }
        }
    }

    /// `<Role.USER: 'user'>` is its value; `<object at 0x7f..>` is a text.
    fn angle(&mut self, depth: usize) -> Option<Value> {
        let whole = self.rest;
        self.take('<');
        if self.word().is_some()
            && self.take(':')
            && let Some(value) = self.value(depth + 1)
            && self.take('>')
        {
            return Some(value);
        }
        let (inner, rest) = whole.get(1..)?.split_once('>')?;
        self.rest = rest;
        Some(Value::String(inner.to_owned()))
    }

    fn number(&mut self) -> Option<Value> {
        let end = self
            .rest
            .find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '.' | '+' | '-' | '_')))
            .unwrap_or(self.rest.len());
        let (digits, rest) = self.rest.split_at(end);
        self.rest = rest;
        let digits = digits.replace('_', "");
        if let Ok(whole) = digits.parse::<i64>() {
            return Some(Value::from(whole));
        }
        serde_json::Number::from_f64(digits.parse().ok()?).map(Value::Number)
    }

    /// `None`, `True`, an enumeration's name, or an object: `Class(field=value, ..)`.
    fn named(&mut self, depth: usize) -> Option<Value> {
        let word = self.word()?;
        // Strings with a prefix.
        if matches!(word, "b" | "r" | "u" | "f") && self.rest.starts_with(['\'', '"']) {
            return self.text().map(Value::String);
        }
        if !self.rest.starts_with('(') {
            return Some(match word {
                "None" | "nan" | "inf" => Value::Null,
                "True" => Value::Bool(true),
                "False" => Value::Bool(false),
                name => Value::String(name.to_owned()),
            });
        }
        self.take('(');
        let mut fields = Map::new();
        let mut items = Vec::new();
        loop {
            if self.take(')') {
                break;
            }
            let before = self.rest;
            match self.word() {
                Some(name) if self.rest.starts_with('=') => {
                    self.rest = self.rest.get(1..)?;
                    let value = self.value(depth + 1)?;
                    fields.insert(name.trim_start_matches('_').to_owned(), value);
                }
                _ => {
                    self.rest = before;
                    items.push(self.value(depth + 1)?);
                }
            }
            if !self.take(',') && !self.rest.trim_start().starts_with(')') {
                return None;
            }
        }
        if fields.is_empty() && !items.is_empty() {
            return Some(Value::Array(items));
        }
        if !fields.contains_key("type") && !fields.contains_key("role") {
            let class = word.rsplit('.').next().unwrap_or(word);
            fields.insert("type".to_owned(), Value::String(class.to_owned()));
        }
        Some(Value::Object(fields))
    }

    fn text(&mut self) -> Option<String> {
        let quote = self.rest.chars().next()?;
        let mut text = String::new();
        let mut characters = self.rest.get(1..)?.char_indices();
        while let Some((at, character)) = characters.next() {
            if character == quote {
                self.rest = self.rest.get(1 + at + quote.len_utf8()..)?;
                return Some(text);
            }
            if character != '\\' {
                text.push(character);
                continue;
            }
            let (_, escaped) = characters.next()?;
            let digits = match escaped {
                'x' => 2,
                'u' => 4,
                'U' => 8,
                _ => 0,
            };
            match escaped {
                'n' => text.push('\n'),
                't' => text.push('\t'),
                'r' => text.push('\r'),
                'x' | 'u' | 'U' => {
                    let mut code = 0u32;
                    for _ in 0..digits {
                        let digit = characters.next()?.1.to_digit(16)?;
                        code = code.checked_mul(16)?.checked_add(digit)?;
                    }
                    text.push(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER));
                }
                other => text.push(other),
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_python_prints_is_read_back() {
        for (text, value) in [
            (
                "{'role': 'user', 'content': 'it\\'s', 'n': None}",
                json!({"role": "user", "content": "it's", "n": null}),
            ),
            (
                "[True, 1_000, -2.5, (1,), {'a'}]",
                json!([true, 1000, -2.5, [1], ["a"]]),
            ),
            (
                "[ChatMessage(role=<MessageRole.USER: 'user'>, blocks=[TextBlock(block_type='text', text=\"a\\nb\")])]",
                json!([{"role": "user", "blocks": [{"block_type": "text", "text": "a\nb", "type": "TextBlock"}]}]),
            ),
            (
                "HumanMessage(content='hi', at=<object at 0x7f>)",
                json!({"content": "hi", "at": "object at 0x7f", "type": "HumanMessage"}),
            ),
            (
                "role='user' content='\\xe9\\U0001f3b2'",
                json!({"role": "user", "content": "é🎲"}),
            ),
        ] {
            assert_eq!(parse(text), Some(value), "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read_or_left(text in "([\\[\\](){}<>=:,.'\"\\\\xuU0-9a-fé🎲 _-]|None|role=){0,60}") {
            let _ = parse(&text);
            let _ = parse(&format!("[{text}]"));
            let _ = parse(&format!("A('{text}')"));
        }
    }

    #[test]
    fn what_is_no_python_value_stays_text() {
        for text in [
            "Hello (you)",
            "[Note] read this",
            "{'a': 'cut sho",
            "I am 'me'",
            "f(x) = 'y' + 2",
            "[",
            "",
            "x='",
            "'a'",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
        assert_eq!(
            parse(&format!("{}{}", "[".repeat(10_000), "]".repeat(10_000))),
            None
        );
    }
}
