//! What a tool was asked, what it answered, and whether it handed the conversation over.

use serde_json::Value;

use super::{Look, content, fields::metadata_text, keys, messages};
use crate::attributes::{Attributes, parse_text};
use crate::model::{Tool, ToolKind};

pub(super) fn read(look: &Look) -> Tool {
    let attributes = &look.attributes;
    let name = look.span.name.as_str();
    attributes.about("tool_name");
    let named = attributes.first_text(keys::TOOL_NAME);
    let mut tool = Tool {
        name: named.or_else(|| tool_in_name(look)).unwrap_or_else(|| {
            look.note("name");
            name.to_owned()
        }),
        ..Tool::default()
    };
    attributes.about("tool_call_id");
    tool.call_id = attributes.first_text(keys::TOOL_CALL_ID);
    attributes.about("tool_type");
    tool.tool_type = attributes.first_text(keys::TOOL_TYPE).or_else(|| {
        let is_mcp = attributes.has("mcp.method.name")
            || attributes.str("mastra.span.type") == Some("mcp_tool_call");
        is_mcp.then(|| "mcp".to_owned())
    });
    attributes.about("tool_arguments");
    let arguments = attributes.first_json(keys::TOOL_ARGUMENTS);
    tool.arguments = arguments.map(|value| messages::arguments(&value));
    attributes.about("tool_result");
    tool.result = attributes
        .first_json(keys::TOOL_RESULT)
        .or_else(|| attributes.first_nothing(keys::TOOL_RESULT));
    if is_filler(tool.result.as_ref()) {
        tool.result = None;
    }
    tool_io(look, &mut tool);
    tool_events(look, &mut tool);
    unwrap_arguments(&mut tool);
    unwrap_result(&mut tool);
    handoff(look, &mut tool);
    tool
}

/// ADK 1 writes `{"result": "<not specified>"}` when it knows none.
fn is_filler(result: Option<&Value>) -> bool {
    result
        .and_then(|value| value.get("result"))
        .and_then(Value::as_str)
        .is_some_and(|text| text == "<not specified>" || text == "<not serializable>")
}

fn tool_in_name(look: &Look) -> Option<String> {
    let name = look.span.name.as_str();
    for start in [
        "execute_tool ",
        "tools/call ",
        "MCP send tools/call ",
        "running tool: ",
        "running tool ",
    ] {
        if let Some(rest) = name.strip_prefix(start) {
            look.note("name");
            return Some(rest.to_owned());
        }
    }
    if look.scope == "logfire.openai_agents" {
        let target = look.attributes.text("to_agent");
        return target
            .map(|target| format!("handoff to {target}"))
            .or_else(|| look.attributes.text("name"));
    }
    if look.attributes.has("traceloop.span.kind") {
        return look
            .attributes
            .text("traceloop.entity.name")
            .or_else(|| name.strip_suffix(".tool").map(str::to_owned));
    }
    None
}

/// OpenInference and Traceloop have one input and one output for every kind of span.
fn tool_io(look: &Look, tool: &mut Tool) {
    let attributes = &look.attributes;
    attributes.about("tool_arguments");
    if tool.arguments.is_none()
        && let Some(input) = content::input_value(attributes)
    {
        tool.arguments = Some(match input {
            // LangChain gives a tool of one argument its bare value; whoever called it knows the name (the fold looks).
            Value::String(text) => serde_json::json!({ "input": text }),
            other => other,
        });
    }
    if tool.result.is_none() {
        attributes.about("tool_result");
        tool.result = content::output_value(attributes)
            .or_else(|| attributes.first_nothing(&["output.value"]));
    }
}

/// Strands tells a tool's input and output by span events.
fn tool_events(look: &Look, tool: &mut Tool) {
    for event in &look.span.events {
        let values = Attributes::noting(&event.attributes, "event: ", look.readings);
        match event.name.as_str() {
            "gen_ai.tool.message" if tool.arguments.is_none() => {
                tool.arguments = values
                    .json("content")
                    .map(|value| messages::arguments(&value));
                tool.call_id = tool.call_id.take().or_else(|| values.text("id"));
            }
            "gen_ai.choice" if tool.result.is_none() => {
                const PLACES: [&str; 2] = ["message", "content"];
                tool.result = values
                    .first_json(&PLACES)
                    .or_else(|| values.first_nothing(&PLACES));
                tool.call_id = tool.call_id.take().or_else(|| values.text("id"));
            }
            "gen_ai.client.inference.operation.details" => {
                for message in values
                    .json("gen_ai.input.messages")
                    .map(|value| messages::read(&value, "assistant"))
                    .unwrap_or_default()
                {
                    if let Some(call) = message.tool_calls.into_iter().next()
                        && tool.arguments.is_none()
                    {
                        tool.arguments = Some(call.arguments);
                        tool.call_id = tool.call_id.take().or(call.id);
                    }
                }
                if tool.result.is_none() {
                    tool.result = values.json("gen_ai.output.messages").and_then(|value| {
                        messages::tool_response(&value).or_else(|| {
                            let message = messages::read(&value, "tool").into_iter().next()?;
                            Some(parse_text(&message.text))
                        })
                    });
                }
            }
            _ => {}
        }
    }
}

/// `{"tool_name": .., "arguments": {..}}` (Traceloop's MCP), `{"input_str": .., "inputs": {..}}` (its LangChain).
fn unwrap_arguments(tool: &mut Tool) {
    let inner = tool.arguments.as_ref().and_then(|value| {
        let object = value.as_object()?;
        if let (2, Some(Value::Array(list)), Some(Value::Object(kwargs))) =
            (object.len(), object.get("args"), object.get("kwargs"))
        {
            // Langfuse's decorator: how Python called the function.
            return (list.is_empty() || !kwargs.is_empty()).then(|| Value::Object(kwargs.clone()));
        }
        if let (2, Some(Value::String(_)), Some(inner)) =
            (object.len(), object.get("name"), object.get("arguments"))
        {
            // The call as OpenAI's API has it.
            return Some(messages::arguments(inner));
        }
        if object.contains_key("tool_name") {
            object.get("arguments").cloned()
        } else if let (1, Some(kwargs @ Value::Object(_))) = (object.len(), object.get("kwargs")) {
            // LlamaIndex: the tool's keyword arguments.
            Some(kwargs.clone())
        } else if object.contains_key("input_str") || object.contains_key("inputs") {
            object
                .get("inputs")
                .filter(|inputs| inputs.is_object())
                .cloned()
                .or_else(|| {
                    let text = object.get("input_str")?.as_str()?;
                    Some(parse_text(text)).filter(Value::is_object)
                })
        } else {
            None
        }
    });
    if inner.is_some() {
        tool.arguments = inner;
    }
}

/// A serialised LangChain `ToolMessage` holds the result and says which call it answers.
fn unwrap_result(tool: &mut Tool) {
    let Some(result) = &tool.result else { return };
    let output = result
        .get("output")
        .filter(|inner| inner.is_object())
        .unwrap_or(result);
    let Some(inner) = output
        .get("data")
        .or_else(|| output.get("kwargs"))
        .filter(|inner| inner.get("tool_call_id").is_some())
    else {
        return;
    };
    if tool.call_id.is_none() {
        tool.call_id = inner
            .get("tool_call_id")
            .and_then(Value::as_str)
            .filter(|id| !id.is_empty())
            .map(str::to_owned);
    }
    tool.result = inner.get("content").cloned();
}

/// Which tools hand the conversation over, and to whom.
fn handoff(look: &Look, tool: &mut Tool) {
    let lower = tool.name.to_ascii_lowercase();
    if let Some(target) = lower
        .strip_prefix("handoff to ")
        .map(|_| tool.name[11..].to_owned())
    {
        // openai-agents over OpenInference: a span of its own, from `input.value` to `output.value`; the model's call has the name.
        tool.kind = ToolKind::Handoff;
        tool.target = look
            .attributes
            .first_text(&["output.value", "gen_ai.handoff.to_agent"])
            .or(Some(target));
        tool.arguments = None;
        tool.result = None;
        return;
    }
    let by_operation = matches!(
        look.attributes.str("gen_ai.operation.name"),
        Some("handoff" | "agent_handoff")
    );
    let by_name = lower == "handoff"
        || lower.starts_with("transfer_to_")
        || lower.starts_with("handoff_to_")
        || lower.starts_with("transfer_back_to_");
    if !(by_operation || by_name) {
        return;
    }
    tool.kind = ToolKind::Handoff;
    tool.target = tool
        .arguments
        .as_ref()
        .and_then(|arguments| {
            metadata_text(arguments, &["agent_name", "to_agent", "agent", "target"])
        })
        .or_else(|| look.attributes.text("gen_ai.handoff.to_agent"))
        .or_else(|| {
            ["transfer_back_to_", "transfer_to_", "handoff_to_"]
                .iter()
                .find_map(|start| lower.strip_prefix(start))
                .filter(|rest| *rest != "agent")
                .map(str::to_owned)
        });
}
