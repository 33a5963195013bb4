//! Whether the tools were called as expected: names and arguments, never ids.

use std::collections::HashMap;

use serde_json::{Map, Value};

use super::turn::ToolUse;

/// How expected and actual calls are compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MatchType {
    /// The same calls in the same order, nothing else.
    #[default]
    Exact,
    /// The expected calls in their order; others may stand between.
    InOrder,
    /// The expected calls, each as often as expected, in any order; there may be others.
    AnyOrder,
}

impl MatchType {
    pub const NAMES: [&str; 3] = ["EXACT", "IN_ORDER", "ANY_ORDER"];

    /// Reads a name in any case.
    ///
    /// # Errors
    /// A sentence with the names that there are.
    pub fn parse(name: &str) -> Result<Self, String> {
        match name.to_ascii_uppercase().as_str() {
            "EXACT" => Ok(Self::Exact),
            "IN_ORDER" => Ok(Self::InOrder),
            "ANY_ORDER" => Ok(Self::AnyOrder),
            _ => Err(format!(
                "trajectory match type `{name}` is none of EXACT, IN_ORDER, ANY_ORDER"
            )),
        }
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Exact => "EXACT",
            Self::InOrder => "IN_ORDER",
            Self::AnyOrder => "ANY_ORDER",
        }
    }
}

/// Whether `actual` is what was expected. Nothing expected is met by anything, but for `EXACT`. Linear in the calls.
pub fn matches(expected: &[ToolUse], actual: &[ToolUse], match_type: MatchType) -> bool {
    let expected: Vec<String> = expected.iter().map(canonical).collect();
    let actual: Vec<String> = actual.iter().map(canonical).collect();
    match match_type {
        MatchType::Exact => expected == actual,
        MatchType::InOrder => {
            let mut actual = actual.iter();
            expected
                .iter()
                .all(|wanted| actual.by_ref().any(|call| call == wanted))
        }
        MatchType::AnyOrder => {
            let mut left: HashMap<&str, usize> = HashMap::new();
            for call in &actual {
                *left.entry(call).or_default() += 1;
            }
            expected
                .iter()
                .all(|wanted| match left.get_mut(wanted.as_str()) {
                    Some(count) if *count > 0 => {
                        *count -= 1;
                        true
                    }
                    _ => false,
                })
        }
    }
}

/// A call as a text that is the same for equal calls: keys sorted, 1.0 written as 1, no arguments as empty ones.
pub(super) fn canonical(call: &ToolUse) -> String {
    let args = match &call.args {
        Value::Null => Value::Object(Map::new()),
        args => sorted(args),
    };
    Value::Array(vec![Value::String(call.name.clone()), args]).to_string()
}

/// What is read from JSON is at most 128 levels deep, so the recursion ends there.
fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(object) => {
            let mut entries: Vec<(&String, &Value)> = object.iter().collect();
            entries.sort_by_key(|(key, _)| *key);
            Value::Object(
                entries
                    .into_iter()
                    .map(|(key, value)| (key.clone(), sorted(value)))
                    .collect(),
            )
        }
        Value::Array(items) => Value::Array(items.iter().map(sorted).collect()),
        Value::Number(number) => match number.as_f64() {
            Some(float)
                if number.is_f64()
                    && float.fract() == 0.0
                    && float.abs() < 9_007_199_254_740_992.0 =>
            {
                Value::from(float as i64)
            }
            _ => value.clone(),
        },
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn calls(names: &str) -> Vec<ToolUse> {
        let names = names.split_whitespace();
        names
            .map(|name| ToolUse {
                name: name.to_owned(),
                args: json!({"n": 1}),
                id: None,
            })
            .collect()
    }

    #[test]
    fn calls_match_by_type() {
        // expected, actual, EXACT, IN_ORDER, ANY_ORDER
        for (expected, actual, exact, in_order, any_order) in [
            ("a b", "a b", true, true, true),
            ("a b", "b a", false, false, true),
            ("a b", "a x b", false, true, true),
            ("a a", "a", false, false, false),
            ("a", "a a", false, true, true),
            ("", "a", false, true, true),
            ("", "", true, true, true),
            ("a", "", false, false, false),
        ] {
            for (match_type, holds) in [
                (MatchType::Exact, exact),
                (MatchType::InOrder, in_order),
                (MatchType::AnyOrder, any_order),
            ] {
                assert_eq!(
                    matches(&calls(expected), &calls(actual), match_type),
                    holds,
                    "{expected} / {actual} {match_type:?}"
                );
            }
        }
    }

    #[test]
    fn arguments_are_compared_by_what_they_mean() {
        let call = |args: Value| {
            vec![ToolUse {
                name: "t".into(),
                args,
                id: None,
            }]
        };
        let equal = |a: Value, b: Value| matches(&call(a), &call(b), MatchType::Exact);
        assert!(equal(
            json!({"a": 1, "b": [2.0]}),
            json!({"b": [2], "a": 1.0})
        ));
        assert!(equal(Value::Null, json!({})));
        assert!(!equal(json!({"a": 1}), json!({"a": "1"})));
        assert!(!equal(json!({"a": 1}), json!({"a": true})));
        assert!(!equal(json!({}), json!({"a": null})));
    }
}
