//! Reading the attributes of strangers: lenient in form, bounded in size.
//!
//! Producers write the same fact as an integer or as its digits, as a structure or as JSON text, as one key or flattened over
//! `a.0.b`, `a.1.b`. Whoever asks here says what it wants and gets it in whichever of these forms it came.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, HashMap};

use base64::Engine;
use serde_json::{Map, Value};

use crate::wire::{AnyValue, KeyValue, any_value};

/// Nesting that is kept when a value becomes JSON; what lies deeper is replaced by a note.
const MAX_DEPTH: usize = 64;
/// Segments of a flattened key that are followed (`llm.input_messages.0.message.tool_calls.0.tool_call.function.arguments` has 10).
const MAX_SEGMENTS: usize = 16;

/// The attributes of one span, log record, span event or resource, by key. Of a doubled key the last counts.
#[derive(Clone, Debug, Default)]
pub struct Attributes<'a> {
    /// A span is asked for some hundred keys, nearly all of which it has not: half of reading it was the standard library's hash.
    by_key: HashMap<&'a str, &'a any_value::Value, foldhash::fast::RandomState>,
    /// What its keys look like from outside, see [`outline`]: most keys that are asked for look like none of them.
    outlines: [u64; 2],
    /// With what bytes its keys begin, see [`start`]: conventions have names of their own in front, of which a span has one or two.
    starts: u64,
    /// Keys that were sent without a value: OpenTelemetry's null.
    nulls: Vec<&'a str>,
    /// Who wants to know what is read.
    readings: Option<&'a Readings>,
    /// Put before the keys there: of a span's own attributes nothing.
    place: &'static str,
}

/// What facts were read from which keys: for who asks why a span was read as it was.
#[derive(Clone, Debug, Default)]
pub struct Readings {
    about: Cell<&'static str>,
    keys: RefCell<BTreeMap<&'static str, BTreeSet<String>>>,
}

impl Readings {
    /// What is read from now on is for this fact.
    pub(crate) fn begin(&self, fact: &'static str) {
        self.about.set(fact);
    }

    /// What was read for this fact was of no use.
    pub(crate) fn forget(&self, fact: &'static str) {
        self.keys.borrow_mut().remove(fact);
    }

    /// A key (or a part of the span that is no attribute) that said something.
    pub(crate) fn note(&self, key: String) {
        let mut keys = self.keys.borrow_mut();
        keys.entry(self.about.get()).or_default().insert(key);
    }

    /// The keys by fact.
    pub(crate) fn into_keys(self) -> BTreeMap<&'static str, BTreeSet<String>> {
        self.keys.into_inner()
    }
}

impl<'a> Attributes<'a> {
    pub fn new(list: &'a [KeyValue]) -> Self {
        let mut by_key =
            HashMap::with_capacity_and_hasher(list.len(), foldhash::fast::RandomState::default());
        let (mut outlines, mut starts) = ([0; 2], 0);
        for pair in list {
            if let Some(value) = pair.value.as_ref().and_then(|value| value.value.as_ref()) {
                by_key.insert(pair.key.as_str(), value);
                let of = outline(&pair.key);
                outlines = [outlines[0] | of[0], outlines[1] | of[1]];
                starts |= start(&pair.key);
            }
        }
        let is_null = |pair: &&KeyValue| {
            pair.value
                .as_ref()
                .is_none_or(|value| value.value.is_none())
        };
        Self {
            by_key,
            outlines,
            starts,
            nulls: list
                .iter()
                .filter(is_null)
                .map(|pair| pair.key.as_str())
                .collect(),
            readings: None,
            place: "",
        }
    }

    /// As [`Attributes::new`]; what is read is noted, with `place` before the key.
    pub(crate) fn noting(
        list: &'a [KeyValue],
        place: &'static str,
        readings: Option<&'a Readings>,
    ) -> Self {
        Self {
            readings,
            place,
            ..Self::new(list)
        }
    }

    /// What is read from now on is for this fact.
    pub(crate) fn about(&self, fact: &'static str) {
        if let Some(readings) = self.readings {
            readings.begin(fact);
        }
    }

    fn note(&self, key: &str) {
        if let Some(readings) = self.readings {
            readings.note(format!("{}{key}", self.place));
        }
    }

    fn get(&self, key: &str) -> Option<&'a any_value::Value> {
        if self.starts & start(key) == 0 {
            return None;
        }
        let of = outline(key);
        if self.outlines[0] & of[0] == 0 || self.outlines[1] & of[1] == 0 {
            return None;
        }
        self.by_key.get(key).copied()
    }

    /// What a key said, if it said something: a filler, or a word where a number is asked for, has told no fact.
    fn told<T>(&self, key: &str, said: Option<T>) -> Option<T> {
        if said.is_some() {
            self.note(key);
        }
        said
    }

    pub fn has(&self, key: &str) -> bool {
        self.told(key, self.get(key)).is_some()
    }

    pub fn has_prefix(&self, prefix: &str) -> bool {
        let found = self.by_key.keys().any(|key| key.starts_with(prefix));
        if found {
            self.note(&format!("{prefix}*"));
        }
        found
    }

    /// All of them as one JSON object, by key.
    pub fn all(&self) -> Value {
        let mut pairs: Vec<_> = self.by_key.iter().collect();
        pairs.sort_by_key(|(key, _)| **key);
        pairs
            .into_iter()
            .map(|(key, value)| ((*key).to_owned(), value_to_json(value, 0)))
            .collect()
    }

    /// A string that says something: not empty, and none of the fillers that instrumentations write for "nothing".
    pub fn str(&self, key: &str) -> Option<&'a str> {
        let said = match self.get(key)? {
            any_value::Value::String(text) => said(text),
            _ => None,
        };
        self.told(key, said)
    }

    /// The first of several spellings that says something.
    pub fn first_str(&self, keys: &[&str]) -> Option<&'a str> {
        keys.iter().find_map(|key| self.str(key))
    }

    /// Any scalar as text.
    pub fn text(&self, key: &str) -> Option<String> {
        let said = match self.get(key)? {
            any_value::Value::String(text) => said(text).map(str::to_owned),
            any_value::Value::Int(number) => Some(number.to_string()),
            any_value::Value::Double(number) => Some(number.to_string()),
            any_value::Value::Bool(truth) => Some(truth.to_string()),
            _ => None,
        };
        self.told(key, said)
    }

    pub fn first_text(&self, keys: &[&str]) -> Option<String> {
        keys.iter().find_map(|key| self.text(key))
    }

    /// An integer, also when it came as a whole double or as digits.
    pub fn int(&self, key: &str) -> Option<i64> {
        let said = match self.get(key)? {
            any_value::Value::Int(number) => Some(*number),
            any_value::Value::Double(number) => whole(*number),
            any_value::Value::String(text) => text.trim().parse().ok(),
            _ => None,
        };
        self.told(key, said)
    }

    /// An integer that came as one.
    pub fn int_only(&self, key: &str) -> Option<i64> {
        let said = match self.get(key)? {
            any_value::Value::Int(number) => Some(*number),
            _ => None,
        };
        self.told(key, said)
    }

    /// Any number, also as digits.
    pub fn float(&self, key: &str) -> Option<f64> {
        let said = match self.get(key)? {
            any_value::Value::Int(number) => Some(*number as f64),
            any_value::Value::Double(number) => Some(*number),
            any_value::Value::String(text) => text.trim().parse().ok(),
            _ => None,
        };
        self.told(key, said.filter(|number| number.is_finite()))
    }

    /// A count: an integer that is not negative.
    pub fn count(&self, keys: &[&str]) -> Option<u64> {
        keys.iter()
            .find_map(|key| u64::try_from(self.int(key)?).ok())
    }

    pub fn bool(&self, key: &str) -> Option<bool> {
        let said = match self.get(key)? {
            any_value::Value::Bool(truth) => Some(*truth),
            any_value::Value::String(text) if text.eq_ignore_ascii_case("true") => Some(true),
            any_value::Value::String(text) if text.eq_ignore_ascii_case("false") => Some(false),
            _ => None,
        };
        self.told(key, said)
    }

    /// The value as JSON. Text that holds a JSON object, array or string is parsed; other text stays text.
    pub fn json(&self, key: &str) -> Option<Value> {
        let said = match self.get(key)? {
            any_value::Value::String(text) => said(text).map(parse_text),
            value => Some(value_to_json(value, 0)),
        };
        self.told(key, said)
    }

    pub fn first_json(&self, keys: &[&str]) -> Option<Value> {
        keys.iter().find_map(|key| self.json(key))
    }

    /// Of the first of these keys that was sent, though it says nothing: empty text or null. For what may be nothing, as the result of a tool.
    pub fn first_nothing(&self, keys: &[&str]) -> Option<Value> {
        keys.iter().find_map(|key| {
            let nothing = match self.get(key) {
                Some(any_value::Value::String(text)) if text.is_empty() => Value::from(""),
                None if self.nulls.contains(key) => Value::Null,
                _ => return None,
            };
            self.note(key);
            Some(nothing)
        })
    }

    /// A list of texts: an array, JSON text of one, or a single text.
    pub fn texts(&self, key: &str) -> Vec<String> {
        match self.json(key) {
            Some(Value::Array(items)) => items
                .into_iter()
                .filter_map(|item| match item {
                    Value::String(text) => Some(text),
                    Value::Null => None,
                    other => Some(other.to_string()),
                })
                .collect(),
            Some(Value::String(text)) => vec![text],
            _ => Vec::new(),
        }
    }

    /// What stands under `prefix`: the structure itself, or the one that the flattened keys `prefix.0.a`, `prefix.1.a` spell.
    pub fn structure(&self, prefix: &str) -> Option<Value> {
        if let Some(value @ (Value::Array(_) | Value::Object(_))) = self.json(prefix) {
            return Some(value);
        }
        if self.starts & start(prefix) == 0 {
            return None;
        }
        let mut root = Node::default();
        let mut found = false;
        for (key, value) in &self.by_key {
            // The dot first: few keys have one just there, and many begin alike.
            if key.as_bytes().get(prefix.len()) != Some(&b'.') {
                continue;
            }
            let Some(path) = key
                .strip_prefix(prefix)
                .and_then(|rest| rest.strip_prefix('.'))
            else {
                continue;
            };
            if path.split('.').count() > MAX_SEGMENTS {
                continue;
            }
            found = true;
            root.insert(path, value_to_json(value, 0));
        }
        if found {
            self.note(&format!("{prefix}.*"));
        }
        found.then(|| root.into_json())
    }
}

/// A bit for the first byte of a key.
fn start(key: &str) -> u64 {
    1 << (key.as_bytes().first().copied().unwrap_or_default() % 64)
}

/// A bit for the length of a key, and one for its last byte and that in its middle.
fn outline(key: &str) -> [u64; 2] {
    let bytes = key.as_bytes();
    let byte = |at: usize| bytes.get(at).copied().unwrap_or_default();
    let ends = byte(bytes.len().wrapping_sub(1)).wrapping_mul(7) ^ byte(bytes.len() / 2);
    [1 << (bytes.len() % 64), 1 << (ends % 64)]
}

/// `None` for what instrumentations write when they have nothing: empty text and the fillers of Google ADK.
fn said(text: &str) -> Option<&str> {
    const FILLERS: [&str; 3] = ["<not specified>", "<not serializable>", "N/A"];
    (!text.is_empty() && !FILLERS.contains(&text)).then_some(text)
}

fn whole(number: f64) -> Option<i64> {
    // 2^53: beyond it a double no longer counts.
    (number.fract() == 0.0 && number.abs() <= 9_007_199_254_740_992.0).then_some(number as i64)
}

/// JSON text becomes its value; any other text stays text. Numbers and words stay text: `17` as an answer is not a number.
pub fn parse_text(text: &str) -> Value {
    let begins = text.trim_start().as_bytes().first();
    if matches!(begins, Some(b'{' | b'['))
        && let Ok(value) = serde_json::from_str(text)
    {
        return value;
    }
    Value::String(text.to_owned())
}

/// The JSON form of an attribute value: bytes as base64, doubles that JSON cannot hold as their names.
pub fn to_json(value: &AnyValue) -> Value {
    value
        .value
        .as_ref()
        .map_or(Value::Null, |value| value_to_json(value, 0))
}

/// A list of attributes as one JSON object.
pub fn list_to_json(list: &[KeyValue]) -> Value {
    pairs_to_json(list, 0)
}

fn value_to_json(value: &any_value::Value, depth: usize) -> Value {
    if depth >= MAX_DEPTH {
        return Value::String("[nested too deeply]".to_owned());
    }
    match value {
        any_value::Value::String(text) => Value::String(text.to_string()),
        any_value::Value::Bool(truth) => Value::Bool(*truth),
        any_value::Value::Int(number) => Value::from(*number),
        any_value::Value::Double(number) => serde_json::Number::from_f64(*number)
            .map_or_else(|| Value::String(number.to_string()), Value::Number),
        any_value::Value::Array(array) => Value::Array(
            array
                .values
                .iter()
                .map(|item| {
                    item.value
                        .as_ref()
                        .map_or(Value::Null, |value| value_to_json(value, depth + 1))
                })
                .collect(),
        ),
        any_value::Value::Map(map) => pairs_to_json(&map.values, depth + 1),
        any_value::Value::Bytes(bytes) => {
            Value::String(base64::engine::general_purpose::STANDARD.encode(bytes))
        }
    }
}

fn pairs_to_json(list: &[KeyValue], depth: usize) -> Value {
    let object = list
        .iter()
        .map(|pair| {
            let value = pair
                .value
                .as_ref()
                .and_then(|value| value.value.as_ref())
                .map_or(Value::Null, |value| value_to_json(value, depth + 1));
            (pair.key.to_string(), value)
        })
        .collect();
    Value::Object(object)
}

/// A structure on its way from flattened keys.
#[derive(Default)]
struct Node {
    value: Option<Value>,
    children: std::collections::BTreeMap<String, Node>,
}

impl Node {
    fn insert(&mut self, path: &str, value: Value) {
        let mut node = self;
        for segment in path.split('.') {
            node = node.children.entry(segment.to_owned()).or_default();
        }
        node.value = Some(value);
    }

    /// Numbered children are a list in the order of their numbers; the numbers themselves may have gaps. The depth is that of a key,
    /// at most [`MAX_SEGMENTS`].
    fn into_json(self) -> Value {
        if self.children.is_empty() {
            return self.value.unwrap_or(Value::Null);
        }
        let numbered: Option<Vec<usize>> = self
            .children
            .keys()
            .map(|segment| segment.parse().ok())
            .collect();
        match numbered {
            Some(numbers) => {
                let mut items: Vec<(usize, Node)> = numbers
                    .into_iter()
                    .zip(self.children.into_values())
                    .collect();
                items.sort_by_key(|(number, _)| *number);
                Value::Array(
                    items
                        .into_iter()
                        .map(|(_, node)| node.into_json())
                        .collect(),
                )
            }
            None => Value::Object(
                self.children
                    .into_iter()
                    .map(|(segment, node)| (segment, node.into_json()))
                    .collect::<Map<_, _>>(),
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pair(key: &str, value: any_value::Value) -> KeyValue {
        KeyValue {
            key: key.into(),
            value: Some(AnyValue { value: Some(value) }),
        }
    }

    fn text(key: &str, value: &str) -> KeyValue {
        pair(key, any_value::Value::String(value.into()))
    }

    #[test]
    fn reads_a_number_in_any_of_its_forms() {
        let list = [
            pair("a", any_value::Value::Int(7)),
            text("b", "7"),
            pair("c", any_value::Value::Double(7.0)),
            text("d", "seven"),
        ];
        let attributes = Attributes::new(&list);
        for key in ["a", "b", "c"] {
            assert_eq!(attributes.int(key), Some(7), "{key}");
        }
        assert_eq!(attributes.int("d"), None);
    }

    #[test]
    fn only_what_said_something_is_noted() {
        let list = [text("a", "N/A"), text("b", "a model"), text("c", "another")];
        let readings = Readings::default();
        let attributes = Attributes::noting(&list, "", Some(&readings));
        attributes.about("model");
        assert_eq!(attributes.first_str(&["z", "a", "b", "c"]), Some("a model"));
        attributes.about("tokens");
        assert_eq!(attributes.count(&["b", "c"]), None);
        let told = BTreeMap::from([("model", BTreeSet::from(["b".to_owned()]))]);
        assert_eq!(readings.into_keys(), told);
    }

    #[test]
    fn flattened_keys_become_the_structure_they_spell() {
        let list = [
            text("m.10.role", "tool"),
            text("m.2.role", "user"),
            text("m.2.calls.0.name", "roll"),
            text("other", "x"),
        ];
        assert_eq!(
            Attributes::new(&list).structure("m"),
            Some(json!([{"calls": [{"name": "roll"}], "role": "user"}, {"role": "tool"}]))
        );
    }

    #[test]
    fn json_text_and_structure_read_the_same() {
        let list = [
            text("a", r#"{"n": 17}"#),
            pair(
                "b",
                any_value::Value::Map(crate::wire::KeyValueList {
                    values: vec![pair("n", any_value::Value::Int(17))],
                }),
            ),
            text("c", "{not json"),
        ];
        let attributes = Attributes::new(&list);
        assert_eq!(attributes.json("a"), attributes.json("b"));
        assert_eq!(attributes.json("c"), Some(json!("{not json")));
    }

    #[test]
    fn fillers_say_nothing() {
        let list = [text("a", "<not specified>"), text("b", "")];
        let attributes = Attributes::new(&list);
        assert_eq!((attributes.str("a"), attributes.json("b")), (None, None));
    }
}
