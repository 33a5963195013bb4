//! What was said: messages on attributes, span events or log records.

use serde_json::Value;

use super::{Look, keys, messages, retrieval};
use crate::attributes::{Attributes, list_to_json, parse_text};
use crate::model::{Kind, Log, Message, Span};

pub(super) fn read(look: &Look, span: &mut Span) {
    if span.kind == Kind::Tool {
        return; // its arguments and result are read with the tool
    }
    let attributes = &look.attributes;
    attributes.about("input_messages");
    span.input = input_messages(attributes);
    attributes.about("output_messages");
    span.output = output_messages(attributes);
    if span.input.is_empty() && span.output.is_empty() {
        from_events(look, span);
    }
    if span.input.is_empty() && span.output.is_empty() {
        from_event_list(attributes, span);
    }
    attributes.about("input_messages");
    if let Some(instructions) = attributes.json("gen_ai.system_instructions") {
        add_system(&instructions, &mut span.input);
    }
    if span.kind == Kind::Llm {
        // The instrumentation may know the client's request and response only as a whole.
        if span.input.is_empty()
            && let Some(value) = input_value(attributes)
        {
            span.input = messages::read(&prompt_or(value), "user");
        }
        attributes.about("output_messages");
        if span.output.is_empty()
            && span.failure.is_none()
            && let Some(value) = output_value(attributes)
        {
            span.output = messages::read(&value, "assistant");
            span.output.retain(|message| message.role == "assistant");
        }
    } else {
        attributes.about("input");
        span.input_value = input_value(attributes).or_else(|| crew_task(attributes));
        if span.input.is_empty()
            && let Some(value) = &span.input_value
            && value.get("prompt").is_some()
        {
            span.input = messages::read(&prompt_or(value.clone()), "user");
        }
        attributes.about("output");
        span.output_value = output_value(attributes);
        // LlamaIndex's first step of an agent gives back what the agent is asked.
        if span.kind == Kind::Agent
            && span.input.is_empty()
            && span.input_value.is_none()
            && let Some(input) = span
                .output_value
                .as_ref()
                .and_then(|value| value.get("input"))
        {
            span.input = messages::read(input, "user");
        }
    }
    if span.kind == Kind::Retriever {
        attributes.about("input");
        span.input_value = span
            .input_value
            .take()
            .or_else(|| attributes.json("gen_ai.retrieval.query.text"));
        attributes.about("output");
        span.output_value = attributes
            .first_json(&["gen_ai.retrieval.documents"])
            .or_else(|| attributes.structure("retrieval.documents"))
            .or_else(|| span.output_value.take());
    }
    if matches!(span.kind, Kind::Retriever | Kind::Reranker) {
        span.retrieval = Some(retrieval::read(look, span));
    }
}

pub(super) fn input_value(attributes: &Attributes) -> Option<Value> {
    told_value(attributes, keys::INPUT)
}

pub(super) fn output_value(attributes: &Attributes) -> Option<Value> {
    told_value(attributes, keys::OUTPUT)
}

fn told_value(attributes: &Attributes, keys: &[&str]) -> Option<Value> {
    keys.iter().find_map(|key| {
        let value = unwrapped(attributes.json(key)?);
        // Most write any value as JSON, the quotes of a text included; what OpenInference calls text is text.
        match value.as_str().filter(|text| text.starts_with('"')) {
            Some(text) if !key.ends_with(".value") => {
                serde_json::from_str(text).ok().or(Some(value))
            }
            _ => Some(value),
        }
    })
}

/// LangWatch says of every value what it is: `{"type": "chat_messages", "value": [..]}`.
fn unwrapped(mut value: Value) -> Value {
    match value.as_object_mut() {
        Some(object) if object.len() == 2 && object.contains_key("type") => {
            object.remove("value").unwrap_or(value)
        }
        _ => value,
    }
}

/// What a crew was asked: CrewAI's spans have its inputs and its tasks.
fn crew_task(attributes: &Attributes) -> Option<Value> {
    let tasks = attributes.first_json(&["crew_tasks", "crewai.crew.tasks"])?;
    let first = tasks.get(0)?.get("description")?;
    // A description that still has its gaps is made for any question.
    match first.as_str().is_some_and(|text| text.contains('{')) {
        true => attributes.json("crew_inputs"),
        false => Some(first.clone()),
    }
}

/// `{"system": .., "prompt": ..}`: how the Vercel SDK writes a call without messages.
fn prompt_or(value: Value) -> Value {
    match value.get("prompt") {
        Some(prompt) if value.get("messages").is_none() => prompt.clone(),
        _ => value,
    }
}

fn input_messages(attributes: &Attributes) -> Vec<Message> {
    if let Some(request) = attributes.json("gcp.vertex.agent.llm_request")
        && let Some(contents) = request.get("contents")
    {
        let mut read = messages::read(contents, "user");
        if let Some(instruction) = request
            .get("config")
            .and_then(|config| config.get("system_instruction"))
        {
            add_system(instruction, &mut read);
        }
        return read;
    }
    for key in keys::INPUT_MESSAGES {
        if let Some(mut read) = messages_in(attributes, key, "user") {
            if matches!(*key, "pydantic_ai.all_messages" | "all_messages_events") {
                // The whole conversation with its answer: what came after the last question is the output.
                let asked = read.iter().rposition(|message| message.role == "user");
                read.truncate(asked.map_or(0, |at| at + 1));
            }
            if !read.is_empty() {
                return read;
            }
        }
    }
    for prefix in keys::FLATTENED_INPUT {
        if let Some(value) = attributes.structure(prefix) {
            let read = messages::read(&value, "user");
            if !read.is_empty() {
                return read;
            }
        }
    }
    attributes
        .str("gen_ai.prompt")
        .map(|text| messages::read(&parse_text(text), "user"))
        .unwrap_or_default()
}

/// The messages in an attribute. `None`: it says nothing.
fn messages_in(attributes: &Attributes, key: &str, default_role: &str) -> Option<Vec<Message>> {
    if let Some(read) = attributes.str(key).and_then(messages::usual) {
        return Some(read);
    }
    Some(messages::read(&attributes.json(key)?, default_role))
}

fn output_messages(attributes: &Attributes) -> Vec<Message> {
    if let Some(response) = attributes.json("gcp.vertex.agent.llm_response")
        && let Some(content) = response.get("content")
    {
        return messages::read(content, "assistant");
    }
    if let Some(read) = messages_in(attributes, "gen_ai.output.messages", "assistant") {
        return read;
    }
    if let Some(answer) = vercel_answer(attributes) {
        return vec![answer];
    }
    for prefix in keys::FLATTENED_OUTPUT {
        if let Some(value) = attributes.structure(prefix) {
            let read: Vec<Message> = messages::read(&value, "assistant")
                .into_iter()
                .filter(|message| {
                    !message.text.is_empty()
                        || !message.tool_calls.is_empty()
                        || message.thinking.is_some()
                })
                .collect();
            if !read.is_empty() {
                return read;
            }
        }
    }
    attributes
        .str("gen_ai.completion")
        .map(|text| messages::read(&parse_text(text), "assistant"))
        .unwrap_or_default()
}

fn vercel_answer(attributes: &Attributes) -> Option<Message> {
    let text = attributes.first_text(keys::ANSWER_TEXT);
    let calls = attributes.first_json(keys::ANSWER_CALLS);
    let thinking = attributes.first_json(keys::ANSWER_THINKING);
    if text.is_none() && calls.is_none() && !attributes.has("ai.response.text") {
        return None;
    }
    let tool_calls = match calls {
        Some(Value::Array(calls)) => calls.iter().filter_map(messages::tool_call).collect(),
        _ => Vec::new(),
    };
    Some(Message {
        role: "assistant".to_owned(),
        text: text.unwrap_or_default(),
        thinking: thinking
            .map(|parts| messages::text_of(&parts))
            .filter(|text| !text.is_empty()),
        tool_calls,
        tool_call_id: None,
    })
}

/// A system prompt beside the messages stands before them, unless they hold it too.
fn add_system(instructions: &Value, into: &mut Vec<Message>) {
    let read = messages::read(instructions, "system");
    let text = read
        .iter()
        .map(|message| message.text.as_str())
        .collect::<Vec<_>>()
        .join("\n");
    if !text.is_empty() && into.first().is_none_or(|first| first.role != "system") {
        into.insert(
            0,
            Message {
                role: "system".to_owned(),
                text,
                ..Message::default()
            },
        );
    }
}

/// Messages told by span events: one event per message (older OTel, Strands) or per call (newer).
fn from_events(look: &Look, span: &mut Span) {
    for event in &look.span.events {
        let values = Attributes::noting(&event.attributes, "event: ", look.readings);
        match event.name.as_str() {
            "gen_ai.client.inference.operation.details" => {
                span.input.extend(input_messages(&values));
                span.output.extend(output_messages(&values));
            }
            "gen_ai.content.prompt" => span.input.extend(input_messages(&values)),
            "gen_ai.content.completion" => span.output.extend(output_messages(&values)),
            name => {
                if let Some(role) = message_role(name) {
                    look.note(&format!("event {name}"));
                    let body = list_to_json(&event.attributes);
                    add_message(role, &body, &mut span.input, &mut span.output);
                }
            }
        }
    }
}

/// Pydantic AI's first format: the same events as JSON in one attribute.
fn from_event_list(attributes: &Attributes, span: &mut Span) {
    attributes.about("input_messages");
    let Some(Value::Array(events)) = attributes.json("events") else {
        return;
    };
    for event in events {
        let event = match event {
            Value::String(text) => parse_text(&text),
            other => other,
        };
        let role = event.get("event.name").and_then(Value::as_str);
        if let Some(role) = role.and_then(message_role) {
            add_message(role, &event, &mut span.input, &mut span.output);
        }
    }
    // Logfire's events of OpenAI's agents end with the answer, as further messages.
    if span.kind == Kind::Llm && span.output.is_empty() && span.failure.is_none() {
        let answered = span.input.iter().rev();
        let count = answered.take_while(|last| last.role == "assistant").count();
        span.output = span.input.split_off(span.input.len() - count);
    }
}

/// The role that the older convention puts into an event's name; a choice is the answer.
fn message_role(event_name: &str) -> Option<&'static str> {
    Some(match event_name {
        "gen_ai.system.message" => "system",
        "gen_ai.user.message" => "user",
        "gen_ai.assistant.message" => "assistant",
        "gen_ai.tool.message" => "tool",
        "gen_ai.choice" => "choice",
        _ => return None,
    })
}

fn add_message(role: &str, body: &Value, input: &mut Vec<Message>, output: &mut Vec<Message>) {
    // Some write the message as JSON text, into the body or into this one attribute.
    let body = match body.get("gen_ai.event.content").unwrap_or(body) {
        Value::String(text) => parse_text(text),
        other => other.clone(),
    };
    if role != "choice" {
        let mut read = messages::read(&body, role);
        // A tool's answer may call itself an assistant's; the event's name knows.
        for message in &mut read {
            if role == "tool" || message.role == "choice" {
                role.clone_into(&mut message.role);
            }
        }
        input.extend(read);
        return;
    }
    // Strands writes the answer's blocks as JSON text, OpenAI's instrumentation as an object.
    let answer = match body.get("message") {
        Some(Value::String(text)) => parse_text(text),
        Some(message) => message.clone(),
        None => body,
    };
    output.extend(messages::read(&answer, "assistant"));
}

pub(super) fn read_log(attributes: &Attributes, body: &Value, log: &mut Log) {
    let Some(name) = log.event_name.clone() else {
        return;
    };
    if let Some(role) = message_role(&name) {
        log.rule = "gen_ai:message.event";
        let (mut input, mut output) = (Vec::new(), Vec::new());
        add_message(role, body, &mut input, &mut output);
        if input.is_empty() && output.is_empty() {
            add_message(role, &attributes.all(), &mut input, &mut output);
        }
        log.input = input;
        log.output = output;
    } else if name == "gen_ai.client.inference.operation.details" {
        log.rule = "gen_ai:operation.details";
        log.is_whole_call = true;
        log.input = input_messages(attributes);
        log.output = output_messages(attributes);
        if let Some(instructions) = attributes.json("gen_ai.system_instructions") {
            add_system(&instructions, &mut log.input);
        }
    }
}
