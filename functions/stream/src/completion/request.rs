//! What a caller asked for: a body becomes one value, or a 400; and what the agent is sent for it.

use std::fmt;

use serde_json::{Map, Value, json};
use tailspan_core::verbosity::Verbosity;
use tailspan_service::{
    agents::{Agent, AgentKind},
    error::ApiError,
};

/// A request, understood.
#[derive(Clone, PartialEq)]
pub(super) struct Asked {
    /// What the user said last.
    pub(super) question: String,
    /// The conversation as an OpenAI endpoint takes it, the question being its end.
    messages: Vec<Value>,
    pub(super) session_id: Option<String>,
    pub(super) user_id: Option<String>,
    pub(super) stream: bool,
    /// What the trace shows.
    pub(super) level: Verbosity,
    /// What is to be recorded of the run, if less than everything.
    pub(super) recorded: Option<Verbosity>,
    pub(super) include_trace: bool,
    /// Everything else, passed on to the agent.
    rest: Map<String, Value>,
}

/// Without what was said.
impl fmt::Debug for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Asked")
            .field("stream", &self.stream)
            .field("level", &self.level)
            .finish_non_exhaustive()
    }
}

/// Reads a body.
///
/// # Errors
/// 400 for what is no JSON object, lacks the question, or has a field of ours that cannot be read.
pub(super) fn parse(body: &[u8], kind: AgentKind) -> Result<Asked, ApiError> {
    let invalid = |message: String| ApiError::invalid("invalid_body", message);
    let mut fields = match serde_json::from_slice(body) {
        Ok(Value::Object(fields)) => fields,
        Ok(_) => return Err(invalid("the body must be a JSON object".to_owned())),
        Err(error) => return Err(invalid(format!("the body is not JSON: {error}"))),
    };
    let mut flag = |name: &str, default| match fields.shift_remove(name) {
        None | Some(Value::Null) => Ok(default),
        Some(Value::Bool(said)) => Ok(said),
        Some(_) => Err(invalid(format!("{name} must be true or false"))),
    };
    let stream = flag("stream", true)?;
    let include_trace = flag("include_trace", true)?;
    let mut text = |name: &str| match fields.shift_remove(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(said)) => Ok(Some(said).filter(|said| !said.is_empty())),
        Some(_) => Err(invalid(format!("{name} must be text"))),
    };
    let recorded =
        match text("trace_level")? {
            None => None,
            Some(level) => Some(level.parse::<Verbosity>().map_err(|error| {
                ApiError::invalid("invalid_parameter", format!("trace_{error}"))
            })?),
        };
    let (session_id, user_id) = (text("session_id")?, text("user_id")?);
    let question = text("question")?.filter(|question| !question.trim().is_empty());
    let told = match kind {
        // The engine keeps the conversation itself, by its session.
        AgentKind::Ragflow => None,
        AgentKind::OpenaiChat | AgentKind::OpenaiResponses => fields.shift_remove("messages"),
    };
    let mut messages = match told {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::Array(messages)) if messages.iter().all(Value::is_object) => messages,
        Some(_) => return Err(invalid("messages must be a list of objects".to_owned())),
    };
    let question = match question {
        Some(question) => {
            messages.push(json!({"role": "user", "content": question}));
            question
        }
        None => last_words(&messages).ok_or_else(|| {
            let message = match kind {
                AgentKind::Ragflow => "question is missing: text that the agent is to answer",
                _ => "question is missing: text that the agent is to answer, or messages with one of the user",
            };
            ApiError::invalid("missing_question", message)
        })?,
    };
    Ok(Asked {
        question,
        messages,
        session_id,
        user_id,
        stream,
        // What nobody asked to be left out is recorded, and shown as reads show it.
        level: recorded.unwrap_or_default(),
        recorded,
        include_trace,
        rest: fields,
    })
}

/// The text of the user's last message; of one in parts the parts that are text.
fn last_words(messages: &[Value]) -> Option<String> {
    let of_user = |message: &&Value| message.get("role").and_then(Value::as_str) == Some("user");
    match messages.iter().rfind(of_user)?.get("content")? {
        Value::String(text) => Some(text.clone()),
        Value::Array(parts) => {
            let texts = parts.iter().filter_map(|part| part.get("text")?.as_str());
            Some(texts.collect::<Vec<_>>().join("\n"))
        }
        _ => None,
    }
}

impl Asked {
    /// Whether the agent itself is asked for a stream: RAGFlow always, for only so it tells its steps.
    pub(super) fn streams_from(&self, agent: &Agent) -> bool {
        self.stream || agent.kind == AgentKind::Ragflow
    }

    /// The conversation, as a model call is recorded with it.
    pub(super) fn messages(&self) -> &[Value] {
        &self.messages
    }

    /// The body for the agent.
    pub(super) fn for_agent(&self, agent: &Agent) -> Value {
        let mut body = self.rest.clone();
        let stream = self.streams_from(agent);
        let model = agent.model.as_deref();
        if let (Some(model), true) = (model, agent.kind != AgentKind::Ragflow) {
            body.insert("model".to_owned(), Value::from(model));
        }
        body.insert("stream".to_owned(), Value::Bool(stream));
        match agent.kind {
            AgentKind::OpenaiChat => {
                body.insert("messages".to_owned(), Value::from(self.messages.clone()));
                if stream && agent.stream_usage && !body.contains_key("stream_options") {
                    body.insert("stream_options".to_owned(), json!({"include_usage": true}));
                }
            }
            AgentKind::OpenaiResponses => {
                body.insert("input".to_owned(), Value::from(self.messages.clone()));
            }
            AgentKind::Ragflow => {
                body.insert("question".to_owned(), Value::from(self.question.as_str()));
                let ids = [("session_id", &self.session_id), ("user_id", &self.user_id)];
                for (name, id) in ids {
                    if let Some(id) = id {
                        body.insert(name.to_owned(), Value::from(id.as_str()));
                    }
                }
            }
        }
        Value::Object(body)
    }
}

#[cfg(test)]
mod tests {
    use tailspan_core::id::TenantId;
    use tailspan_service::agents::Agents;

    use super::*;

    /// What an agent of this kind is sent for a body, or the error's code.
    fn sent(agent: &str, body: &str) -> Result<Value, &'static str> {
        let file = format!(r#"{{"a": {agent}}}"#);
        let agents = Agents::parse(&file, |_| None).unwrap();
        let agent = agents.get(&TenantId::default(), "a").unwrap();
        parse(body.as_bytes(), agent.kind)
            .map(|asked| asked.for_agent(agent))
            .map_err(|error| error.code)
    }

    #[test]
    fn each_kind_is_sent_what_it_takes() {
        let chat = r#"{"kind": "openai_chat", "url": "http://h/", "model": "m"}"#;
        assert_eq!(
            sent(
                chat,
                r#"{"question": "why?", "model": "dear", "temperature": 0, "session_id": "s", "trace_level": "debug", "include_trace": false}"#
            ),
            Ok(
                json!({"model": "m", "temperature": 0, "stream": true, "messages": [{"role": "user", "content": "why?"}], "stream_options": {"include_usage": true}})
            )
        );
        assert_eq!(
            sent(
                chat,
                r#"{"messages": [{"role": "system", "content": "x"}, {"role": "user", "content": [{"type": "text", "text": "why?"}]}], "stream": false}"#
            ),
            Ok(
                json!({"model": "m", "stream": false, "messages": [{"role": "system", "content": "x"}, {"role": "user", "content": [{"type": "text", "text": "why?"}]}]})
            )
        );
        let responses = r#"{"kind": "openai_responses", "url": "http://h/"}"#;
        assert_eq!(
            sent(responses, r#"{"question": "why?", "model": "o"}"#),
            Ok(
                json!({"model": "o", "stream": true, "input": [{"role": "user", "content": "why?"}]})
            )
        );
        let ragflow = r#"{"kind": "ragflow", "url": "http://h/"}"#;
        assert_eq!(
            sent(
                ragflow,
                r#"{"question": "why?", "stream": false, "session_id": "s", "inputs": {"a": 1}}"#
            ),
            Ok(json!({"inputs": {"a": 1}, "stream": true, "question": "why?", "session_id": "s"}))
        );
    }

    #[test]
    fn what_cannot_be_read_is_told() {
        let chat = r#"{"kind": "openai_chat", "url": "http://h/"}"#;
        for (body, code) in [
            ("", "invalid_body"),
            ("[]", "invalid_body"),
            ("{", "invalid_body"),
            ("{}", "missing_question"),
            (r#"{"question": " "}"#, "missing_question"),
            (r#"{"question": 5}"#, "invalid_body"),
            (
                r#"{"messages": [{"role": "assistant", "content": "x"}]}"#,
                "missing_question",
            ),
            (r#"{"messages": "x"}"#, "invalid_body"),
            (r#"{"question": "x", "stream": "yes"}"#, "invalid_body"),
            (r#"{"question": "x", "session_id": 5}"#, "invalid_body"),
            (
                r#"{"question": "x", "trace_level": "verbose"}"#,
                "invalid_parameter",
            ),
        ] {
            assert_eq!(sent(chat, body), Err(code), "{body}");
        }
        let ragflow = r#"{"kind": "ragflow", "url": "http://h/"}"#;
        let only_messages = r#"{"messages": [{"role": "user", "content": "x"}]}"#;
        assert_eq!(sent(ragflow, only_messages), Err("missing_question"));
        assert_eq!(
            parse(
                br#"{"question": "x", "trace_level": "all"}"#,
                AgentKind::Ragflow
            )
            .unwrap_err()
            .message,
            "trace_level must be one of minimal, standard, detailed, debug"
        );
    }
}
