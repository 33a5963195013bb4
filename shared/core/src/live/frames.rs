//! What a listener of `/stream/ui-updates` is told, as one line of JSON each: exact to the field (docs/protocol.md, "Live updates").

use std::borrow::Cow;

use serde_json::{Map, Value, json};

use super::incremental::{Increment, Told};
use super::json::{Object, push_text};
use super::wire_form::push_span;
use crate::event::rfc3339_us;
use crate::id::TraceId;
use crate::observed::Observation;

/// A session as its listeners and the lists of sessions see it.
#[derive(Clone, Debug, Default)]
pub struct Shown<'a> {
    pub name: &'a str,
    /// As the client called it; of exported traces that of the first.
    pub trace: &'a str,
    pub eval_set_id: Option<&'a str>,
    pub span_count: u64,
    pub is_complete: bool,
    /// Microseconds since 1970.
    pub started_unix_us: u64,
    pub metadata: Option<&'a Map<String, Value>>,
    /// Of a session that has some and is complete.
    pub invocations: Option<&'a [Value]>,
}

/// `{sessionId, traceId, evalSetId, spanCount, isComplete, startedAt, metadata, invocations}`, all always there.
pub fn session(shown: &Shown) -> Value {
    json!({
        "sessionId": shown.name,
        "traceId": shown.trace,
        "evalSetId": shown.eval_set_id,
        "spanCount": shown.span_count,
        "isComplete": shown.is_complete,
        "startedAt": rfc3339_us(shown.started_unix_us),
        "metadata": shown.metadata.cloned().unwrap_or_default(),
        "invocations": shown.invocations,
    })
}

pub fn session_started(shown: &Shown) -> String {
    json!({"type": "session_started", "session": session(shown)}).to_string()
}

/// Writes a frame; `false`, and nothing, where the event is no span. `sent`: what it came as, see [`Sent`](crate::observed::Sent).
pub fn push_span_received(
    into: &mut String,
    session: &str,
    trace: &TraceId,
    event: &Observation,
    sent: Option<&str>,
) -> bool {
    let before = into.len();
    into.push_str(r#"{"type":"span_received","sessionId":"#);
    push_text(into, session);
    into.push_str(",\"span\":");
    match sent {
        Some(json) => into.push_str(json),
        None if push_span(into, trace, event) => {}
        None => {
            into.truncate(before);
            return false;
        }
    }
    into.push('}');
    true
}

/// `invocations` is the text of a JSON list.
pub fn session_complete(session: &str, invocations: &str) -> String {
    let session = Value::from(session);
    format!(r#"{{"type":"session_complete","sessionId":{session},"invocations":{invocations}}}"#)
}

/// `absorbed_by`: the session that has its traces now; absent where there is none.
pub fn session_removed(session: &str, absorbed_by: Option<&str>) -> String {
    let mut frame = json!({"type": "session_removed", "sessionId": session});
    if let (Some(by), Some(fields)) = (absorbed_by, frame.as_object_mut()) {
        fields.insert("absorbedBy".to_owned(), by.into());
    }
    frame.to_string()
}

/// Writes a frame about one [`Increment`], its fields in the dialect's order.
pub fn push_increment(into: &mut String, session: &str, increment: &Increment) {
    into.reserve(about_bytes(&increment.what));
    let mut frame = Object::begin(into);
    let kind = match &increment.what {
        Told::UserInput { .. } => "user_input",
        Told::AgentResponse { .. } => "agent_response",
        Told::ToolCall { .. } => "tool_call",
        Told::ToolResult { .. } => "tool_result",
        Told::Tokens { .. } => "token_update",
    };
    frame.text("type", kind);
    frame.text("invocationId", &increment.invocation_id);
    match &increment.what {
        Told::UserInput { text, at_ns } | Told::AgentResponse { text, at_ns } => {
            frame.text("text", text);
            frame.json("timestamp", &seconds(*at_ns));
        }
        Told::ToolCall {
            id,
            name,
            args,
            tool_type,
            description,
            at_ns,
        } => {
            let mut call = Object::begin(frame.field("toolCall"));
            call.text("id", id);
            call.text("name", name);
            call.value("args", &arguments(args));
            for (key, text) in [("type", tool_type), ("description", description)] {
                if let Some(text) = text {
                    call.text(key, text);
                }
            }
            call.end();
            frame.json("timestamp", &seconds(*at_ns));
        }
        Told::ToolResult {
            id,
            name,
            response,
            is_error,
            at_ns,
        } => {
            frame.text("toolCallId", id);
            frame.text("toolName", name);
            frame.value("response", response);
            frame.json("isError", is_error);
            frame.json("timestamp", &seconds(*at_ns));
        }
        Told::Tokens {
            input,
            output,
            model,
        } => {
            frame.number("inputTokens", *input);
            frame.number("outputTokens", *output);
            frame.text("model", model.as_deref().unwrap_or("unknown"));
        }
    }
    frame.text("sessionId", session);
    frame.end();
}

/// About how long a frame is: where its content is not a text it is let grow.
fn about_bytes(told: &Told) -> usize {
    const FIELDS: usize = 256;
    match told {
        Told::UserInput { text, .. } | Told::AgentResponse { text, .. } => {
            FIELDS + text.len() + text.len() / 10
        }
        Told::ToolCall { .. } | Told::ToolResult { .. } => 2 * FIELDS,
        Told::Tokens { .. } => FIELDS,
    }
}

/// Arguments are an object there; any other value stands under `input`, as in `session_complete`.
fn arguments(args: &Value) -> Cow<'_, Value> {
    match args {
        Value::Object(_) => Cow::Borrowed(args),
        Value::Null => Cow::Owned(json!({})),
        other => Cow::Owned(json!({ "input": other })),
    }
}

/// Seconds since 1970, as precise as a double holds them.
fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::live::wire_form::Reader;

    #[track_caller]
    fn check(what: Told, expected: &str) {
        let told = Increment {
            invocation_id: "i".to_owned(),
            what,
        };
        let mut frame = String::new();
        push_increment(&mut frame, "s", &told);
        assert_eq!(frame, expected);
    }

    #[test]
    fn increments_have_the_fields_of_the_dialect_in_their_order() {
        let at_ns = 1_760_000_000_010_000_000;
        let text = "hi".to_owned();
        check(
            Told::UserInput {
                text: text.clone(),
                at_ns,
            },
            r#"{"type":"user_input","invocationId":"i","text":"hi","timestamp":1760000000.01,"sessionId":"s"}"#,
        );
        check(
            Told::AgentResponse { text, at_ns },
            r#"{"type":"agent_response","invocationId":"i","text":"hi","timestamp":1760000000.01,"sessionId":"s"}"#,
        );
        check(
            Told::ToolCall {
                id: "c".to_owned(),
                name: "roll".to_owned(),
                args: json!({"sides": 6}),
                tool_type: Some("function".to_owned()),
                description: None,
                at_ns,
            },
            r#"{"type":"tool_call","invocationId":"i","toolCall":{"id":"c","name":"roll","args":{"sides":6},"type":"function"},"timestamp":1760000000.01,"sessionId":"s"}"#,
        );
        check(
            Told::ToolResult {
                id: "c".to_owned(),
                name: "roll".to_owned(),
                response: json!({"result": "4"}),
                is_error: false,
                at_ns,
            },
            r#"{"type":"tool_result","invocationId":"i","toolCallId":"c","toolName":"roll","response":{"result":"4"},"isError":false,"timestamp":1760000000.01,"sessionId":"s"}"#,
        );
        check(
            Told::Tokens {
                input: 3,
                output: 4,
                model: None,
            },
            r#"{"type":"token_update","invocationId":"i","inputTokens":3,"outputTokens":4,"model":"unknown","sessionId":"s"}"#,
        );
    }

    #[test]
    fn sessions_are_told_of_as_in_the_dialect() {
        let shown = Shown {
            name: "s",
            trace: "t",
            started_unix_us: 1_760_000_000_000_001,
            ..Shown::default()
        };
        assert_eq!(
            session_started(&shown),
            r#"{"type":"session_started","session":{"sessionId":"s","traceId":"t","evalSetId":null,"spanCount":0,"isComplete":false,"startedAt":"2025-10-09T08:53:20.000001+00:00","metadata":{},"invocations":null}}"#
        );
        assert_eq!(
            session_removed("a\"b", Some("c")),
            r#"{"type":"session_removed","sessionId":"a\"b","absorbedBy":"c"}"#
        );
        assert_eq!(
            session_removed("a", None),
            r#"{"type":"session_removed","sessionId":"a"}"#
        );
        let mut reader = Reader::new(1);
        let span = |reader: &mut Reader, json| reader.span("s", json).unwrap().observation();
        let trace = TraceId::parse("t").unwrap();
        let received = |event: &Observation, sent: Option<&str>| {
            let mut frame = "before".to_owned();
            let is_one = push_span_received(&mut frame, "a\"b", &trace, event, sent);
            (is_one, frame)
        };
        let event = span(&mut reader, r#"{"name":"x"}"#);
        for (sent, shown) in [(None, r#"{"name":"x"}"#), (Some("{ }"), "{ }")] {
            let frame = r#"before{"type":"span_received","sessionId":"a\"b","span":"#;
            assert_eq!(received(&event, sent), (true, format!("{frame}{shown}}}")));
        }
        let log = reader.log("{}").unwrap().observation();
        assert_eq!(received(&log, None), (false, "before".to_owned()));
        assert_eq!(
            session_complete("s", "[]"),
            r#"{"type":"session_complete","sessionId":"s","invocations":[]}"#
        );
    }
}
