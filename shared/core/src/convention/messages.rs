//! One reader for the messages of all conventions.
//!
//! OTel parts, OpenAI chat and Responses items, Bedrock and Gemini blocks, OpenInference's nested names and LangChain's serialised
//! messages differ in names, hardly in structure: a message has a role, text, calls it asks for or a call it answers. Reading by shape
//! also reads the dialects that mix them.

use std::borrow::Cow;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;

use super::python;
use crate::attributes::parse_text;
use crate::model::{Message, ToolCall};

/// Messages of one call that are read; a history longer than this keeps its last ones.
const MAX_MESSAGES: usize = 4_096;
/// How far wrappers (`{"messages": [[..]]}`, `kwargs`, `data`, `message`) are followed.
const MAX_WRAPPERS: usize = 6;

/// The messages in `value`, which may be a list, one message, or something that wraps either. `default_role` is for what names none.
pub(super) fn read(value: &Value, default_role: &str) -> Vec<Message> {
    let mut messages = Vec::new();
    collect(value, default_role, 0, &mut messages);
    join_thoughts(&mut messages);
    if messages.len() > MAX_MESSAGES {
        messages.drain(..messages.len() - MAX_MESSAGES);
    }
    messages
}

/// A message as the convention itself has it, told in text alone. Nearly all that is sent is of this form, and is read without a tree of values in between.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Usual<'a> {
    #[serde(borrow)]
    role: Cow<'a, str>,
    #[serde(borrow)]
    parts: Vec<UsualPart<'a>>,
    #[serde(default, rename = "finish_reason")]
    _finish_reason: Option<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct UsualPart<'a> {
    #[serde(borrow)]
    r#type: Cow<'a, str>,
    #[serde(borrow)]
    content: Cow<'a, str>,
}

/// The messages in JSON text, as [`read`] has them. `None`: they have another form.
pub(super) fn usual(text: &str) -> Option<Vec<Message>> {
    if !text.starts_with('[') {
        return None;
    }
    let all: Vec<Usual<'_>> = serde_json::from_str(text).ok()?;
    let mut parts = all.iter().flat_map(|message| &message.parts);
    if !parts.all(|part| part.r#type == "text") {
        return None;
    }
    let messages = all.iter().map(|message| {
        let mut read = Message {
            role: role(&message.role),
            ..Message::default()
        };
        for part in &message.parts {
            add_words(&part.content, &mut read, 2);
        }
        read
    });
    let too_many = all.len().saturating_sub(MAX_MESSAGES);
    Some(messages.skip(too_many).collect())
}

/// What the Responses API has as an item of its own belongs to the answer that follows it.
fn join_thoughts(messages: &mut Vec<Message>) {
    let is_thought = |message: &Message| {
        message.thinking.is_some()
            && message.text.is_empty()
            && message.tool_calls.is_empty()
            && message.tool_call_id.is_none()
    };
    if !messages.iter().any(is_thought) {
        return;
    }
    let mut joined: Vec<Message> = Vec::with_capacity(messages.len());
    for mut message in messages.drain(..) {
        if message.role == "assistant"
            && let Some(before) = joined.pop_if(|before| is_thought(before))
            && let Some(mut thought) = before.thinking
        {
            if let Some(own) = &message.thinking {
                thought.push('\n');
                thought.push_str(own);
            }
            message.thinking = Some(thought);
        }
        joined.push(message);
    }
    *messages = joined;
}

/// What a tool said, in the parts of a message: its value as it came.
pub(super) fn tool_response(value: &Value) -> Option<Value> {
    let messages = value.as_array()?;
    let parts = messages
        .iter()
        .filter_map(|message| message.get("parts")?.as_array())
        .flatten();
    let mut responses = parts.filter(|part| {
        part.get("type")
            .is_some_and(|kind| kind == "tool_call_response")
    });
    let part = responses.next()?;
    let response = part.get("response").or_else(|| part.get("result"))?;
    Some(match response {
        Value::String(text) => parse_text(text),
        other => other.clone(),
    })
}

fn collect(value: &Value, default_role: &str, depth: usize, into: &mut Vec<Message>) {
    if depth > MAX_WRAPPERS {
        return;
    }
    match value {
        Value::String(text) => match parse_text(text) {
            Value::String(text) if text.is_empty() => {}
            Value::String(text) => {
                let printed = printed_messages(&text, default_role, depth);
                if printed.is_empty() {
                    into.push(Message {
                        role: role(default_role),
                        text,
                        ..Message::default()
                    });
                } else {
                    into.extend(printed);
                }
            }
            parsed => collect(&parsed, default_role, depth + 1, into),
        },
        Value::Array(items) => {
            if let [Value::String(role_name), Value::String(text)] = items.as_slice()
                && is_role(role_name)
            {
                into.push(Message {
                    role: role(role_name),
                    text: text.clone(),
                    ..Message::default()
                });
            } else if items.iter().all(is_block) && !items.is_empty() {
                into.extend(message_of_blocks(items, default_role));
            } else {
                for item in items {
                    collect(item, default_role, depth + 1, into);
                }
            }
        }
        Value::Object(object) => {
            // Wrappers first: a list of messages under one of the names the clients use.
            for key in [
                "messages",
                "choices",
                "replies",
                "generations",
                "contents",
                "output",
                "update",
            ] {
                if let Some(inner @ (Value::Array(_) | Value::Object(_))) = object.get(key)
                    && !object.contains_key("role")
                    && !is_flat_contents(key, inner)
                {
                    collect(inner, default_role, depth + 1, into);
                    return;
                }
            }
            for key in ["message", "kwargs", "data"] {
                if let Some(inner @ Value::Object(_)) = object.get(key)
                    && !object.contains_key("role")
                {
                    let role_hint = object
                        .get("type")
                        .and_then(Value::as_str)
                        .filter(|name| is_role(name))
                        .unwrap_or(default_role);
                    collect(inner, role_hint, depth + 1, into);
                    return;
                }
            }
            into.extend(message(value, default_role));
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// The messages in what Python printed of them. A text of that form that holds none is what somebody said.
fn printed_messages(text: &str, default_role: &str, depth: usize) -> Vec<Message> {
    let mut read = Vec::new();
    if let Some(value) = python::parse(text) {
        collect(&value, default_role, depth + 1, &mut read);
        read.retain(|message| {
            !message.text.is_empty()
                || !message.tool_calls.is_empty()
                || message.tool_call_id.is_some()
                || message.thinking.is_some()
        });
    }
    read
}

/// OpenInference's `message.contents` is a list of parts, Gemini's `contents` a list of messages.
fn is_flat_contents(key: &str, inner: &Value) -> bool {
    key == "contents"
        && inner
            .as_array()
            .and_then(|items| items.first())
            .is_some_and(|first| first.get("message_content").is_some())
}

/// A part of a message rather than a message.
fn is_block(value: &Value) -> bool {
    let Some(object) = value.as_object() else {
        return false;
    };
    if object.contains_key("role") || object.contains_key("message") {
        return false;
    }
    if [
        "toolUse",
        "toolResult",
        "toolRequest",
        "toolResponse",
        "reasoningContent",
    ]
    .iter()
    .any(|key| object.contains_key(*key))
    {
        return true;
    }
    match object.get("type").and_then(Value::as_str) {
        Some(
            "text" | "reasoning" | "tool_call" | "tool_call_response" | "tool_use" | "tool_result"
            | "tool-call" | "tool-result" | "input_text" | "output_text" | "refusal" | "thinking"
            | "redacted_thinking",
        ) => true,
        Some(_) => false,
        None => object.len() == 1 && object.contains_key("text"),
    }
}

fn message(value: &Value, default_role: &str) -> Option<Message> {
    let object = value.as_object()?;
    match object.get("type").and_then(Value::as_str) {
        // Items of the OpenAI Responses API stand where messages stand.
        Some("function_call") => {
            return Some(Message {
                role: "assistant".to_owned(),
                tool_calls: vec![tool_call(value)?],
                ..Message::default()
            });
        }
        Some("function_call_output") => {
            return Some(Message {
                role: "tool".to_owned(),
                text: text_of(object.get("output").unwrap_or(&Value::Null)),
                tool_call_id: string(value, &["call_id"]),
                ..Message::default()
            });
        }
        Some("reasoning") => {
            let mut thought = Message {
                role: "assistant".to_owned(),
                ..Message::default()
            };
            add_thinking(value, &mut thought);
            return thought.thinking.is_some().then_some(thought);
        }
        _ => {}
    }
    let role_name = object
        .get("role")
        .and_then(Value::as_str)
        .or_else(|| {
            object
                .get("type")
                .and_then(Value::as_str)
                .filter(|name| is_role(name))
        })
        .unwrap_or(default_role);
    let mut read = Message {
        role: role(role_name),
        tool_call_id: string(value, &["tool_call_id", "toolCallId"])
            // A tool's message of the older OTel convention names its call `id`.
            .or_else(|| (role(role_name) == "tool").then(|| string(value, &["id"]))?),
        ..Message::default()
    };
    // OpenInference writes the same words as `content` and, part by part, as `contents`.
    for key in ["contents", "content", "parts", "text", "blocks"] {
        if let Some(content) = object.get(key)
            && !content.is_null()
        {
            add_content(content, &mut read, 0);
            if !read.text.is_empty() || !read.tool_calls.is_empty() || read.tool_call_id.is_some() {
                break;
            }
        }
    }
    if let Some(Value::Array(calls)) = object.get("tool_calls").or_else(|| object.get("toolCalls"))
    {
        for call in calls.iter().filter_map(tool_call) {
            // Some clients write a call as a part of the content and once more in the list.
            let known = read
                .tool_calls
                .iter()
                .any(|other| other.id.is_some() && other.id == call.id);
            if !known {
                read.tool_calls.push(call);
            }
        }
    }
    // DeepSeek, vLLM, OpenRouter; LangChain keeps what it does not know among others.
    if read.thinking.is_none() {
        let others = object.get("additional_kwargs").unwrap_or(value);
        read.thinking = string(value, &["reasoning_content", "reasoning", "thinking"])
            .or_else(|| string(others, &["reasoning_content"]));
    }
    // The one call of OpenAI's first function calling, whose answers name no call.
    if read.tool_calls.is_empty()
        && let Some(call) = legacy_call(object)
    {
        read.tool_calls.push(call);
    }
    let says_something = !read.text.is_empty()
        || !read.tool_calls.is_empty()
        || read.tool_call_id.is_some()
        || read.thinking.is_some()
        || object.contains_key("role")
        || object.contains_key("content");
    says_something.then_some(read)
}

/// `{function_call: {name, arguments}}`, or as OpenInference flattens it.
fn legacy_call(message: &serde_json::Map<String, Value>) -> Option<ToolCall> {
    if let Some(call) = message.get("function_call") {
        return bare_call(call);
    }
    let name = message.get("function_call_name")?.as_str()?;
    Some(ToolCall {
        id: None,
        name: name.to_owned(),
        arguments: message
            .get("function_call_arguments_json")
            .map_or_else(empty_object, arguments),
    })
}

fn message_of_blocks(blocks: &[Value], default_role: &str) -> Option<Message> {
    let mut read = Message {
        role: role(default_role),
        ..Message::default()
    };
    for block in blocks {
        add_content(block, &mut read, 0);
    }
    (!read.text.is_empty()
        || !read.tool_calls.is_empty()
        || read.tool_call_id.is_some()
        || read.thinking.is_some())
    .then_some(read)
}

/// Adds a text, or what it is a text of, to a message.
fn add_words(text: &str, to: &mut Message, depth: usize) {
    let of_blocks = |value: &Value| match value {
        Value::Array(items) => !items.is_empty() && items.iter().all(is_block),
        _ => false,
    };
    // Blocks may be written as JSON text; any other JSON is simply what was said.
    let written = text.trim_start().starts_with('[').then(|| parse_text(text));
    if let Some(blocks) = written.filter(of_blocks) {
        return add_content(&blocks, to, depth);
    }
    match python::parse(text) {
        Some(blocks) if of_blocks(&blocks) => add_content(&blocks, to, depth),
        // An answer's items, printed instead of written (`ResponseFunctionToolCall(name=.., arguments=..)`).
        Some(printed @ Value::Object(_))
            if depth < 4 && text.starts_with(|c: char| c.is_ascii_uppercase()) =>
        {
            let before = (to.text.len(), to.tool_calls.len());
            add_content(&printed, to, depth + 1);
            if before == (to.text.len(), to.tool_calls.len()) {
                add_text(text, to);
            }
        }
        _ => add_text(text, to),
    }
}

/// Adds one content (text, a part, or a list of parts) to a message.
fn add_content(content: &Value, to: &mut Message, depth: usize) {
    if depth > MAX_WRAPPERS {
        return;
    }
    match content {
        Value::String(text) => add_words(text, to, depth),
        Value::Array(items) => items
            .iter()
            .for_each(|item| add_content(item, to, depth + 1)),
        Value::Object(object) => {
            if let Some(inner) = object.get("message_content") {
                return add_content(inner, to, depth + 1);
            }
            if let Some(result) = object
                .get("toolResult")
                .or_else(|| object.get("toolResponse"))
                .or_else(|| object.get("function_response"))
                .or_else(|| object.get("functionResponse"))
            {
                to.tool_call_id = string(result, &["toolUseId", "id", "ref"]);
                let said = ["content", "response", "output"]
                    .iter()
                    .find_map(|key| result.get(*key))
                    .map(text_of)
                    .unwrap_or_default();
                return add_result(&said, to);
            }
            if let (Some(origin @ Value::Object(_)), Some(result)) =
                (object.get("origin"), object.get("result"))
            {
                // Haystack's answer of a tool holds the call.
                to.tool_call_id = string(origin, &["id"]);
                return add_result(&text_of(result), to);
            }
            // Bedrock.
            if let Some(reasoning) = object.get("reasoningContent") {
                return add_thinking(reasoning.get("reasoningText").unwrap_or(reasoning), to);
            }
            match object.get("type").and_then(Value::as_str) {
                Some(
                    "tool_call_response"
                    | "tool_result"
                    | "tool-result"
                    | "server_tool_call_response",
                ) => {
                    to.tool_call_id = string(
                        content,
                        &["id", "tool_use_id", "toolCallId", "tool_call_id"],
                    );
                    let said = ["response", "result", "content", "output"]
                        .iter()
                        .find_map(|key| object.get(*key))
                        .map(text_of)
                        .unwrap_or_default();
                    return add_result(&said, to);
                }
                // Not said aloud.
                Some("reasoning" | "thinking") => return add_thinking(content, to),
                // Not text.
                Some(
                    "redacted_thinking" | "compaction" | "blob" | "file" | "uri" | "image_url",
                ) => {
                    return;
                }
                _ => {}
            }
            if let Some(call) = tool_call(content) {
                to.tool_calls.push(call);
                return;
            }
            // Gemini marks what a model thinks instead of giving it a type.
            if object.get("thought") == Some(&Value::Bool(true)) {
                return add_thinking(content, to);
            }
            for key in ["text", "content", "parts", "refusal", "value"] {
                if let Some(inner) = object.get(key).filter(|inner| !inner.is_null()) {
                    return add_content(inner, to, depth + 1);
                }
            }
        }
        Value::Number(_) | Value::Bool(_) => add_text(&content.to_string(), to),
        Value::Null => {}
    }
}

/// What a model thought, in a part that holds nothing else.
fn add_thinking(part: &Value, to: &mut Message) {
    const PLACES: [&str; 5] = ["thinking", "text", "reasoning", "content", "summary"];
    let thought = PLACES
        .iter()
        .filter_map(|key| part.get(*key))
        .map(text_of)
        .find(|text| !text.is_empty());
    if let Some(thought) = thought {
        match &mut to.thinking {
            Some(before) => {
                before.push('\n');
                before.push_str(&thought);
            }
            None => to.thinking = Some(thought),
        }
    }
}

/// Parts of what a user says are separate remarks; parts of an answer are pieces of one text.
fn add_text(text: &str, to: &mut Message) {
    if !to.text.is_empty() && to.role != "assistant" {
        to.text.push(' ');
    }
    to.text.push_str(text);
}

fn add_result(text: &str, to: &mut Message) {
    if to.role == "user" && to.text.is_empty() {
        // Bedrock and Gemini let the user's side return what a tool said.
        "tool".clone_into(&mut to.role);
    }
    add_text(text, to);
}

/// A call in any of its shapes: `{function: {name, arguments}}`, `{name, arguments}`, `{toolUse: {..}}`, `{function_call: {..}}`,
/// `{tool_call: {..}}`, `{toolName, input}`. `None` for what names no tool.
pub(super) fn tool_call(value: &Value) -> Option<ToolCall> {
    for key in [
        "tool_call",
        "toolUse",
        "toolRequest",
        "function_call",
        "functionCall",
    ] {
        if let Some(inner @ Value::Object(_)) = value.get(key) {
            let mut call = tool_call(inner).or_else(|| bare_call(inner))?;
            call.id = call
                .id
                .or_else(|| string(value, &["id", "call_id"]))
                .or_else(|| string(inner, &["ref"]));
            return Some(call);
        }
    }
    let function = value.get("function").filter(|inner| inner.is_object());
    if let Some(function) = function {
        let mut call = bare_call(function)?;
        call.id = string(value, &["id", "call_id"]);
        return Some(call);
    }
    let kind = value.get("type").and_then(Value::as_str);
    let is_call = matches!(
        kind,
        Some(
            "tool_call"
                | "tool_use"
                | "tool-call"
                | "function_call"
                | "function"
                | "server_tool_call"
        )
    ) || ["arguments", "args", "input", "toolUseId", "toolCallId"]
        .iter()
        .any(|key| value.get(*key).is_some());
    if is_call { bare_call(value) } else { None }
}

fn bare_call(value: &Value) -> Option<ToolCall> {
    let name = string(value, &["name", "toolName", "tool_name"])?;
    let arguments = ["arguments", "args", "input", "parameters"]
        .iter()
        .find_map(|key| value.get(*key))
        .map_or_else(empty_object, arguments);
    let id = string(
        value,
        &["id", "call_id", "toolUseId", "toolCallId", "tool_call_id"],
    );
    Some(ToolCall {
        id: id.filter(|id| !is_position(id, &name)),
        name,
        arguments,
    })
}

/// `get_weather_0`: not an id but the position of a call to which the model gave none.
fn is_position(id: &str, name: &str) -> bool {
    id.strip_prefix(name)
        .and_then(|rest| rest.strip_prefix('_'))
        .is_some_and(|number| {
            number.len() <= 3 && number.bytes().all(|digit| digit.is_ascii_digit())
        })
}

/// Arguments as an object where they are one, also written as text; a call without arguments has an empty object.
pub(super) fn arguments(value: &Value) -> Value {
    match value {
        Value::String(text) if text.trim().is_empty() => empty_object(),
        Value::String(text) => match parse_text(text) {
            Value::String(text) => python::parse(&text)
                .filter(Value::is_object)
                .unwrap_or(Value::String(text)),
            parsed => parsed,
        },
        Value::Null => empty_object(),
        other => other.clone(),
    }
}

fn empty_object() -> Value {
    Value::Object(serde_json::Map::new())
}

/// What a value says when it is read aloud: text as it is, parts joined, anything else as JSON.
pub(super) fn text_of(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        Value::Array(items) if items.iter().all(|item| item.get("text").is_some()) => items
            .iter()
            .filter_map(|item| item.get("text").and_then(Value::as_str))
            .collect::<Vec<_>>()
            .join(" "),
        other => other.to_string(),
    }
}

fn string(value: &Value, keys: &[&str]) -> Option<String> {
    keys.iter().find_map(|key| match value.get(*key)? {
        Value::String(text) if !text.is_empty() => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    })
}

fn is_role(name: &str) -> bool {
    matches!(
        name,
        "system"
            | "developer"
            | "user"
            | "human"
            | "assistant"
            | "ai"
            | "model"
            | "tool"
            | "function"
            | "HumanMessage"
            | "AIMessage"
            | "SystemMessage"
            | "ToolMessage"
    )
}

/// The role in OTel's words; an unknown one stays as it came.
pub(super) fn role(name: &str) -> String {
    match name {
        "human" | "HumanMessage" => "user",
        "ai" | "model" | "AIMessage" | "AIMessageChunk" => "assistant",
        "developer" | "SystemMessage" => "system",
        "function" | "ToolMessage" => "tool",
        other => other.rsplit('.').next().unwrap_or(other),
    }
    .to_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    /// Texts that other readers take apart: blocks, calls and values, written as JSON and printed by Python.
    fn words() -> impl Strategy<Value = String> {
        let special = prop_oneof![
            Just(r#"[{"type":"text","text":"in a block"}]"#.to_owned()),
            Just(r#" [{"type":"tool_call","name":"f","arguments":{}}]"#.to_owned()),
            Just("[{'type': 'text', 'text': 'printed'}]".to_owned()),
            Just("ResponseFunctionToolCall(name='f', arguments='{}')".to_owned()),
            Just("{\"a\": 1}".to_owned()),
            Just("[]".to_owned()),
        ];
        prop_oneof![3 => any::<String>(), 2 => special]
    }

    proptest! {
        #[test]
        fn the_usual_form_is_read_as_any_other(
            messages in proptest::collection::vec(
                (
                    prop_oneof![Just("user"), Just("assistant"), Just("system"), Just("tool"), Just("model"), Just("")],
                    proptest::collection::vec(words(), 0..4),
                    proptest::option::of(Just("stop")),
                ),
                0..4,
            ),
        ) {
            let parts = |texts: &[String]| -> Vec<Value> {
                texts.iter().map(|text| json!({"type": "text", "content": text})).collect()
            };
            let all = messages.iter().map(|(role, texts, reason)| match reason {
                Some(reason) => json!({"role": role, "parts": parts(texts), "finish_reason": reason}),
                None => json!({"role": role, "parts": parts(texts)}),
            });
            let text = Value::Array(all.collect()).to_string();
            prop_assert_eq!(usual(&text), Some(read(&parse_text(&text), "user")));
        }
    }

    #[test]
    fn what_has_another_form_is_not_read_as_the_usual_one() {
        for text in [
            r#"[{"role":"user","content":"x"}]"#,
            r#"[{"role":"user","parts":[{"type":"tool_call","name":"f","arguments":{}}]}]"#,
            r#"[{"role":"user","parts":[{"type":"reasoning","content":"x"}]}]"#,
            r#"[{"role":"user","parts":[{"type":"text","content":"x"}],"id":"1"}]"#,
            r#"[{"role":"user","parts":[]"#,
            "x",
        ] {
            assert_eq!(usual(text), None, "{text}");
        }
    }

    /// One conversation in every shape: a question, a call, its result, an answer.
    fn check(messages: &Value) {
        let read = read(messages, "user");
        let said: Vec<(&str, &str)> = read
            .iter()
            .filter(|message| !message.text.is_empty())
            .map(|message| (message.role.as_str(), message.text.as_str()))
            .collect();
        assert_eq!(
            said,
            [
                ("user", "Roll a die."),
                ("tool", "4"),
                ("assistant", "It is 4.")
            ]
        );
        let calls: Vec<&ToolCall> = read
            .iter()
            .flat_map(|message| &message.tool_calls)
            .collect();
        assert_eq!(calls.len(), 1);
        assert_eq!(calls[0].name, "roll_die");
        assert_eq!(calls[0].arguments, json!({"sides": 6}));
        assert_eq!(calls[0].id.as_deref(), Some("c1"));
        assert!(
            read.iter()
                .any(|message| message.tool_call_id.as_deref() == Some("c1"))
        );
    }

    #[test]
    fn otel_parts() {
        check(&json!([
            {"role": "user", "parts": [{"type": "text", "content": "Roll a die."}]},
            {"role": "assistant", "parts": [{"type": "tool_call", "id": "c1", "name": "roll_die", "arguments": {"sides": 6}}]},
            {"role": "tool", "parts": [{"type": "tool_call_response", "id": "c1", "response": "4"}]},
            {"role": "assistant", "parts": [{"type": "text", "content": "It is 4."}], "finish_reason": "stop"}
        ]));
    }

    #[test]
    fn openai_chat() {
        check(&json!({"messages": [
            {"role": "user", "content": "Roll a die."},
            {"role": "assistant", "content": null, "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "roll_die", "arguments": "{\"sides\": 6}"}}]},
            {"role": "tool", "tool_call_id": "c1", "content": "4"},
            {"role": "assistant", "content": "It is 4."}
        ]}));
    }

    #[test]
    fn openai_responses_items() {
        check(&json!([
            {"role": "user", "content": "Roll a die."},
            {"type": "function_call", "call_id": "c1", "name": "roll_die", "arguments": "{\"sides\": 6}"},
            {"type": "function_call_output", "call_id": "c1", "output": "4"},
            {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "It is 4."}]}
        ]));
    }

    #[test]
    fn bedrock_blocks() {
        check(&json!([
            {"role": "user", "content": [{"text": "Roll a die."}]},
            {"role": "assistant", "content": [{"toolUse": {"toolUseId": "c1", "name": "roll_die", "input": {"sides": 6}}}]},
            {"role": "user", "content": [{"toolResult": {"toolUseId": "c1", "status": "success", "content": [{"text": "4"}]}}]},
            {"role": "assistant", "content": "[{\"text\": \"It is 4.\"}]"}
        ]));
    }

    #[test]
    fn gemini_contents() {
        check(&json!({"contents": [
            {"role": "user", "parts": [{"text": "Roll a die."}]},
            {"role": "model", "parts": [{"function_call": {"id": "c1", "name": "roll_die", "args": {"sides": 6}}}]},
            {"role": "user", "parts": [{"function_response": {"id": "c1", "name": "roll_die", "response": "4"}}]},
            {"role": "model", "parts": [{"text": "It is 4."}]}
        ]}));
    }

    #[test]
    fn what_gemini_thinks_is_not_said() {
        let read = read(
            &json!({"role": "model", "parts": [{"text": "Hm.", "thought": true}, {"text": "It is "}, {"text": "4."}]}),
            "assistant",
        );
        assert_eq!(read[0].text, "It is 4.");
        assert_eq!(read[0].thinking.as_deref(), Some("Hm."));
    }

    #[test]
    fn thoughts_belong_to_the_answer() {
        for said in [
            json!([{"role": "assistant", "parts": [{"type": "reasoning", "content": "Hm."}, {"type": "text", "content": "It is 4."}]}]),
            json!([{"role": "assistant", "content": [{"type": "thinking", "thinking": "Hm.", "signature": "s"}, {"type": "text", "text": "It is 4."}]}]),
            json!([{"type": "thinking", "thinking": "Hm."}, {"type": "redacted_thinking", "data": "x"}, {"type": "text", "text": "It is 4."}]),
            json!([{"role": "assistant", "content": [{"reasoningContent": {"reasoningText": {"text": "Hm.", "signature": "s"}}}, {"text": "It is 4."}]}]),
            json!({"output": [{"type": "reasoning", "id": "r", "summary": [{"type": "summary_text", "text": "Hm."}]}, {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "It is 4."}]}]}),
            json!({"choices": [{"message": {"role": "assistant", "content": "It is 4.", "reasoning_content": "Hm."}}]}),
            json!({"type": "ai", "data": {"content": "It is 4.", "additional_kwargs": {"reasoning_content": "Hm."}}}),
            json!([{"message": {"role": "assistant", "contents": [{"message_content": {"type": "reasoning", "text": "Hm."}}, {"message_content": {"type": "text", "text": "It is 4."}}]}}]),
        ] {
            let read = read(&said, "assistant");
            assert_eq!(
                (
                    read.len(),
                    read[0].text.as_str(),
                    read[0].thinking.as_deref()
                ),
                (1, "It is 4.", Some("Hm.")),
                "{said}"
            );
        }
    }

    #[test]
    fn a_thought_without_an_answer_is_kept() {
        let read = read(
            &json!({"output": [{"type": "reasoning", "summary": [{"type": "summary_text", "text": "Hm."}]}]}),
            "assistant",
        );
        assert_eq!(
            (read[0].text.as_str(), read[0].thinking.as_deref()),
            ("", Some("Hm."))
        );
    }

    #[test]
    fn the_first_function_calls() {
        for message in [
            json!({"role": "assistant", "content": null, "function_call": {"name": "roll_die", "arguments": "{\"sides\": 6}"}}),
            json!({"message": {"role": "assistant", "function_call_name": "roll_die", "function_call_arguments_json": "{\"sides\": 6}"}}),
        ] {
            let read = read(&message, "assistant");
            assert_eq!(read[0].tool_calls[0].name, "roll_die");
            assert_eq!(read[0].tool_calls[0].arguments, json!({"sides": 6}));
        }
    }

    #[test]
    fn openinference_names() {
        check(&json!([
            {"message": {"role": "user", "content": "Roll a die."}},
            {"message": {"role": "assistant", "tool_calls": [{"tool_call": {"id": "c1", "function": {"name": "roll_die", "arguments": "{\"sides\": 6}"}}}]}},
            {"message": {"role": "tool", "tool_call_id": "c1", "content": "4"}},
            {"message": {"role": "assistant", "contents": [{"message_content": {"type": "text", "text": "It is 4."}}]}}
        ]));
    }

    #[test]
    fn langchain_serialised() {
        check(&json!({"messages": [
            ["user", "Roll a die."],
            {"type": "ai", "data": {"content": "", "type": "ai", "tool_calls": [{"name": "roll_die", "args": {"sides": 6}, "id": "c1"}]}},
            {"lc": 1, "type": "constructor", "kwargs": {"content": "4", "type": "tool", "tool_call_id": "c1"}},
            {"type": "ai", "data": {"content": [{"type": "text", "text": "It is 4."}], "type": "ai"}}
        ]}));
    }
}
