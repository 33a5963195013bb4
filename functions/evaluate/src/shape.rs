//! Keys as `/api` answers them.

use serde_json::Value;

/// Every key of ours in camelCase. What stands below `args` and `response` is a tool's, and stays as the tool has it: the original rewrites those keys, too.
pub(crate) fn camelized(value: Value) -> Value {
    match value {
        Value::Object(object) => {
            let pairs = object.into_iter().map(|(key, value)| {
                let value = match key.as_str() {
                    "args" | "response" => value,
                    _ => camelized(value),
                };
                (camel(&key), value)
            });
            Value::Object(pairs.collect())
        }
        Value::Array(items) => items.into_iter().map(camelized).collect(),
        other => other,
    }
}

/// `per_llm_call` as `perLlmCall`.
fn camel(key: &str) -> String {
    let mut words = key.split('_').filter(|word| !word.is_empty());
    let mut camel = words.next().unwrap_or_default().to_owned();
    for word in words {
        let mut letters = word.chars();
        camel.extend(letters.next().map(|first| first.to_ascii_uppercase()));
        camel.push_str(letters.as_str());
    }
    camel
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn our_keys_are_camel_case_and_those_of_tools_stay() {
        let told = json!({"eval_set": [{"tool_uses": [{"name": "a_b", "args": {"release_name": {"a1_b2": 1}}}]}], "per_llm_call": {"p50": 1},
            "tool_responses": [{"response": {"UPPER_CASE": 1}}]});
        let shaped = json!({"evalSet": [{"toolUses": [{"name": "a_b", "args": {"release_name": {"a1_b2": 1}}}]}], "perLlmCall": {"p50": 1},
            "toolResponses": [{"response": {"UPPER_CASE": 1}}]});
        assert_eq!(camelized(told), shaped);
    }
}
