//! What an agent's answer means: its frames, or its one JSON, become native events, an answer, and an end or a failure. Pure: no clock, no ids.
//!
//! RAGFlow's engine tells its steps; an OpenAI-compatible endpoint tells its words, its thoughts and its use of tokens. Frames that are not known here are
//! passed on like the others and mean nothing.

use std::collections::{HashMap, VecDeque};

use serde_json::{Map, Value, json};
use tailspan_service::agents::AgentKind;

use super::sse::SseEvent;

/// Fields of a native event, `event_type` among them.
pub(super) type Fields = Map<String, Value>;

/// Why an agent failed, in words for the caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    /// A word for programs.
    pub(super) kind: String,
    pub(super) message: String,
}

impl Failure {
    pub(super) fn new(kind: &str, message: impl Into<String>) -> Self {
        Self {
            kind: kind.to_owned(),
            message: message.into(),
        }
    }
}

/// An answer, as far as it has come.
#[derive(Debug)]
pub(super) struct Reading {
    kind: AgentKind,
    question: String,
    words: String,
    thoughts: String,
    /// Spans of thinking begun so far, and whether the last of them goes on.
    thinkings: usize,
    is_thinking: bool,
    tool_calls: Vec<ToolCall>,
    pub(super) model: Option<String>,
    usage: Option<Value>,
    finish_reason: Option<Value>,
    /// The engine's outputs at its end.
    outputs: Option<Value>,
    reference: Option<Value>,
    /// The conversation that the agent itself named.
    pub(super) session_id: Option<String>,
    /// What came whole: the answer's JSON, or the last frame that holds it.
    whole: Option<Value>,
    /// Steps that began, and have not ended, by component.
    open_nodes: HashMap<String, VecDeque<usize>>,
    nodes: usize,
    /// RAGFlow's public routes leave some of the engine's frames out: only who told a start tells an end.
    tells_its_start: bool,
    is_finished: bool,
}

/// What a model wants called, put together from its pieces.
#[derive(Debug, Default)]
struct ToolCall {
    id: String,
    name: String,
    arguments: String,
}

/// Tool calls of one answer; the index is the agent's to say.
const MOST_TOOL_CALLS: usize = 256;

impl Reading {
    pub(super) fn new(kind: AgentKind, question: &str) -> Self {
        Self {
            kind,
            question: question.to_owned(),
            words: String::new(),
            thoughts: String::new(),
            thinkings: 0,
            is_thinking: false,
            tool_calls: Vec::new(),
            model: None,
            usage: None,
            finish_reason: None,
            outputs: None,
            reference: None,
            session_id: None,
            whole: None,
            open_nodes: HashMap::new(),
            nodes: 0,
            tells_its_start: false,
            is_finished: false,
        }
    }

    /// Takes in a frame; what happened by it is added to `events`.
    ///
    /// # Errors
    /// The frame says that the agent failed, or is no JSON.
    pub(super) fn frame(
        &mut self,
        frame: &SseEvent,
        events: &mut Vec<Fields>,
    ) -> Result<(), Failure> {
        let data: Value = serde_json::from_str(&frame.data).map_err(|_| {
            Failure::new("invalid_answer", "the agent sent a frame that is not JSON")
        })?;
        match self.kind {
            AgentKind::OpenaiChat => self.chat_frame(&data, events),
            AgentKind::OpenaiResponses => self.responses_frame(data, events),
            AgentKind::Ragflow => self.engine_frame(data, events),
        }
    }

    /// The agent said `[DONE]`. RAGFlow says so after a failure too.
    pub(super) fn done(&mut self) {
        self.is_finished |= self.kind != AgentKind::Ragflow;
    }

    /// Takes in an answer that is one JSON.
    ///
    /// # Errors
    /// It says that the agent failed, or is not what its kind answers.
    pub(super) fn whole(&mut self, body: &[u8]) -> Result<(), Failure> {
        let not_one = |what: &str| Failure::new("invalid_answer", what);
        let answer: Value =
            serde_json::from_slice(body).map_err(|_| not_one("the agent's answer is not JSON"))?;
        if let Some(failure) = error_in(&answer) {
            return Err(failure);
        }
        match self.kind {
            AgentKind::OpenaiChat => {
                let message = answer
                    .pointer("/choices/0/message")
                    .ok_or_else(|| not_one("the agent's answer has no choices[0].message"))?;
                self.words = text_of(message.get("content"));
                self.thoughts = text_of(message.get("reasoning_content"));
                for call in items(message.get("tool_calls")).take(MOST_TOOL_CALLS) {
                    let mut asked = ToolCall::default();
                    asked.add(call);
                    self.tool_calls.push(asked);
                }
                self.finish_reason = answer.pointer("/choices/0/finish_reason").cloned();
                self.usage = answer
                    .get("usage")
                    .filter(|usage| usage.is_object())
                    .cloned();
                self.model = text_in(&answer, "model");
            }
            AgentKind::OpenaiResponses => self.response(&answer)?,
            AgentKind::Ragflow => {
                let data = answer.get("data").filter(|data| data.is_object());
                let data = data.ok_or_else(|| not_one("the agent's answer has no data"))?;
                // Some routes answer the final frame, others its data.
                let inner = data.get("data").filter(|inner| inner.is_object());
                let inner = inner.unwrap_or(data);
                self.words = text_of(inner.get("content").or_else(|| inner.get("answer")));
                self.refer(inner);
                self.session_id = text_in(data, "session_id");
            }
        }
        self.whole = Some(answer);
        self.is_finished = true;
        Ok(())
    }

    /// The agent's answer has ended.
    ///
    /// # Errors
    /// It had not said that it would.
    pub(super) fn end(&self) -> Result<(), Failure> {
        match self.is_finished {
            true => Ok(()),
            false => Err(Failure::new(
                "broken_off",
                "the agent's answer broke off before its end",
            )),
        }
    }

    /// The last events before the run's own end: the answer, or what came of it.
    pub(super) fn closing(&mut self, events: &mut Vec<Fields>) {
        if self.is_thinking && self.is_finished {
            self.stop_thinking(events);
        }
        let said = !self.words.is_empty() || !self.tool_calls.is_empty();
        match self.kind {
            AgentKind::Ragflow => self.message(events),
            _ if said || self.usage.is_some() => {
                let mut fields = fields("message_generated");
                fields.insert("outputs".to_owned(), self.outputs());
                self.add_use(&mut fields);
                if let Some(model) = &self.model {
                    fields.insert("model".to_owned(), Value::from(model.as_str()));
                }
                if let Some(reason) = &self.finish_reason {
                    fields.insert("finish_reason".to_owned(), reason.clone());
                }
                events.push(fields);
            }
            _ => {}
        }
    }

    /// What the run gave back.
    pub(super) fn outputs(&self) -> Value {
        if let Some(outputs) = self.outputs.as_ref().filter(|outputs| outputs.is_object()) {
            return outputs.clone();
        }
        let mut outputs = Map::new();
        outputs.insert("content".to_owned(), Value::from(self.words.as_str()));
        if !self.tool_calls.is_empty() {
            let calls = self.tool_calls.iter().map(ToolCall::json).collect();
            outputs.insert("tool_calls".to_owned(), calls);
        }
        Value::Object(outputs)
    }

    pub(super) fn has_words(&self) -> bool {
        !self.words.is_empty()
    }

    /// Adds what the answer cost in tokens, as far as the agent said so.
    pub(super) fn add_use(&self, fields: &mut Fields) {
        let Some(usage) = &self.usage else { return };
        let count = |paths: [&str; 2]| paths.iter().find_map(|path| usage.pointer(path)?.as_u64());
        for (name, paths) in [
            ("input_tokens", ["/prompt_tokens", "/input_tokens"]),
            ("output_tokens", ["/completion_tokens", "/output_tokens"]),
            (
                "cached_tokens",
                [
                    "/prompt_tokens_details/cached_tokens",
                    "/input_tokens_details/cached_tokens",
                ],
            ),
            (
                "reasoning_tokens",
                [
                    "/completion_tokens_details/reasoning_tokens",
                    "/output_tokens_details/reasoning_tokens",
                ],
            ),
        ] {
            if let Some(count) = count(paths) {
                fields.insert(name.to_owned(), Value::from(count));
            }
        }
    }

    /// The answer as its kind gives one that is not streamed.
    pub(super) fn answer(&mut self) -> Value {
        match (self.whole.take(), self.kind) {
            (Some(whole), AgentKind::OpenaiChat | AgentKind::OpenaiResponses) => whole,
            (None, AgentKind::OpenaiResponses) => {
                json!({"object": "response", "output_text": self.words})
            }
            (None, AgentKind::OpenaiChat) => {
                let mut message = json!({"role": "assistant", "content": self.words});
                if !self.tool_calls.is_empty() {
                    message["tool_calls"] = self.tool_calls.iter().map(ToolCall::json).collect();
                }
                let choice =
                    json!({"index": 0, "message": message, "finish_reason": self.finish_reason});
                json!({"object": "chat.completion", "model": self.model, "choices": [choice], "usage": self.usage})
            }
            // The last frame that tells of the answer, with all of the answer in it.
            (whole, AgentKind::Ragflow) => {
                let mut frame = match whole {
                    Some(Value::Object(frame)) => frame,
                    _ => Map::new(),
                };
                let data = frame.entry("data").or_insert_with(|| json!({}));
                if !data.is_object() {
                    *data = json!({});
                }
                data["content"] = Value::from(self.words.as_str());
                data["reference"] = self.reference.clone().unwrap_or_else(|| json!({}));
                Value::Object(frame)
            }
        }
    }

    fn chat_frame(&mut self, data: &Value, events: &mut Vec<Fields>) -> Result<(), Failure> {
        if let Some(failure) = error_in(data) {
            return Err(failure);
        }
        if self.model.is_none() {
            self.model = text_in(data, "model");
        }
        if let Some(usage) = data.get("usage").filter(|usage| usage.is_object()) {
            self.usage = Some(usage.clone());
        }
        // Of several answers the first is the one that is recorded.
        let of_first =
            |choice: &&Value| choice.get("index").and_then(Value::as_u64).unwrap_or(0) == 0;
        for choice in items(data.get("choices")).filter(of_first) {
            if let Some(delta) = choice.get("delta") {
                let thought = ["reasoning_content", "reasoning"];
                let thought = thought.iter().find_map(|name| delta.get(*name)?.as_str());
                self.think(thought.unwrap_or_default(), events);
                self.say(
                    delta
                        .get("content")
                        .and_then(Value::as_str)
                        .unwrap_or_default(),
                    events,
                );
                for call in items(delta.get("tool_calls")) {
                    let index = call.get("index").and_then(Value::as_u64);
                    let index = index.and_then(|index| usize::try_from(index).ok());
                    let at = index.unwrap_or(self.tool_calls.len());
                    if at < MOST_TOOL_CALLS {
                        if self.tool_calls.len() <= at {
                            self.tool_calls.resize_with(at + 1, ToolCall::default);
                        }
                        if let Some(asked) = self.tool_calls.get_mut(at) {
                            asked.add(call);
                        }
                    }
                }
            }
            if let Some(reason) = choice
                .get("finish_reason")
                .filter(|reason| reason.is_string())
            {
                self.finish_reason = Some(reason.clone());
                self.is_finished = true;
            }
        }
        Ok(())
    }

    fn responses_frame(&mut self, data: Value, events: &mut Vec<Fields>) -> Result<(), Failure> {
        let delta = data
            .get("delta")
            .and_then(Value::as_str)
            .unwrap_or_default();
        match data.get("type").and_then(Value::as_str).unwrap_or_default() {
            "response.output_text.delta" | "response.refusal.delta" => self.say(delta, events),
            "response.reasoning_summary_text.delta" | "response.reasoning_text.delta" => {
                self.think(delta, events)
            }
            "response.completed" | "response.incomplete" | "response.failed" => {
                let response = data.get("response").cloned().unwrap_or_default();
                self.response(&response)?;
                self.is_finished = true;
                self.whole = Some(response);
            }
            "error" => {
                let error = data.get("error").filter(|error| error.is_object());
                let error = error.unwrap_or(&data);
                let (kind, message) = (text_in(error, "code"), text_in(error, "message"));
                return Err(Failure::new(
                    kind.as_deref().unwrap_or("agent_error"),
                    message.as_deref().unwrap_or("the agent failed"),
                ));
            }
            _ => {
                if let Some(failure) = error_in(&data) {
                    return Err(failure);
                }
            }
        }
        Ok(())
    }

    /// A response object, the whole of an answer.
    fn response(&mut self, response: &Value) -> Result<(), Failure> {
        if let Some(failure) = error_in(response) {
            return Err(failure);
        }
        if response.get("status").and_then(Value::as_str) == Some("failed") {
            return Err(Failure::new("agent_error", "the agent failed"));
        }
        if !response.get("output").is_some_and(Value::is_array) {
            return Err(Failure::new(
                "invalid_answer",
                "the agent's answer has no output",
            ));
        }
        self.model = text_in(response, "model");
        self.usage = response
            .get("usage")
            .filter(|usage| usage.is_object())
            .cloned();
        self.finish_reason = response.pointer("/incomplete_details/reason").cloned();
        let mut words = String::new();
        for item in items(response.get("output")) {
            for part in items(item.get("content")) {
                let part = part.get("text").or_else(|| part.get("refusal"));
                words.push_str(part.and_then(Value::as_str).unwrap_or_default());
            }
            if item.get("type").and_then(Value::as_str) == Some("function_call")
                && self.tool_calls.len() < MOST_TOOL_CALLS
            {
                self.tool_calls.push(ToolCall {
                    id: text_of(item.get("call_id")),
                    name: text_of(item.get("name")),
                    arguments: text_of(item.get("arguments")),
                });
            }
        }
        self.words = words;
        Ok(())
    }

    fn engine_frame(&mut self, frame: Value, events: &mut Vec<Fields>) -> Result<(), Failure> {
        // `{code, message}` instead of a frame is how its routes tell an error.
        if let Some(failure) = error_in(&frame) {
            return Err(failure);
        }
        let Some(name) = text_in(&frame, "event") else {
            return Ok(());
        };
        if self.session_id.is_none() {
            self.session_id = text_in(&frame, "session_id");
        }
        let none = Value::Null;
        let data = frame.get("data").unwrap_or(&none);
        match name.as_str() {
            "workflow_started" => self.tells_its_start = true,
            "node_started" => {
                let mut fields = self.node("node_started", data);
                let component = text_of(data.get("component_id"));
                self.nodes += 1;
                fields.insert(
                    "call_id".to_owned(),
                    Value::from(format!("{component}:{}", self.nodes)),
                );
                self.open_nodes
                    .entry(component)
                    .or_default()
                    .push_back(self.nodes);
                events.push(fields);
            }
            "node_finished" => {
                let failed = data.get("error").is_some_and(says_something);
                let mut fields = self.node(
                    if failed {
                        "node_failed"
                    } else {
                        "node_finished"
                    },
                    data,
                );
                let component = text_of(data.get("component_id"));
                let open = self.open_nodes.get_mut(&component);
                if let Some(number) = open.and_then(VecDeque::pop_front) {
                    fields.insert(
                        "call_id".to_owned(),
                        Value::from(format!("{component}:{number}")),
                    );
                }
                events.push(fields);
            }
            "message" => {
                if data.get("start_to_think") == Some(&Value::Bool(true)) && !self.is_thinking {
                    self.start_thinking(events);
                }
                let words = data
                    .get("content")
                    .and_then(Value::as_str)
                    .unwrap_or_default();
                match self.is_thinking {
                    true => self.thoughts.push_str(words),
                    false => self.words.push_str(words),
                }
                if data.get("end_to_think") == Some(&Value::Bool(true)) && self.is_thinking {
                    self.stop_thinking(events);
                }
                self.whole = Some(frame);
            }
            "message_end" => {
                self.refer(data);
                self.retrieval(&frame, events);
                self.is_finished |= !self.tells_its_start;
                self.whole = Some(frame);
            }
            // The run waits for its user, and goes on with another request.
            "user_inputs" | "waiting_for_user" => {
                let mut fields = fields("user_inputs");
                fields.insert("outputs".to_owned(), data.clone());
                events.push(fields);
                self.is_finished = true;
            }
            "workflow_finished" => {
                if let Some(usage) = data.get("usage").filter(|usage| usage.is_object()) {
                    self.usage = Some(usage.clone());
                }
                self.outputs = data.get("outputs").cloned();
                self.is_finished = true;
            }
            "error" => {
                let message = text_in(data, "message").or_else(|| text_in(&frame, "message"));
                let message = message.unwrap_or_else(|| "the agent failed".to_owned());
                return Err(Failure::new("agent_error", message));
            }
            _ => {}
        }
        Ok(())
    }

    /// What the engine says of a step. Its `created_at` is no date, so it is left out.
    fn node(&self, event_type: &str, data: &Value) -> Fields {
        let mut fields = fields(event_type);
        for name in [
            "component_id",
            "component_name",
            "component_type",
            "inputs",
            "outputs",
            "thoughts",
            "error",
            "elapsed_time",
        ] {
            if let Some(value) = data.get(name).filter(|value| says_something(value)) {
                fields.insert(name.to_owned(), value.clone());
            }
        }
        fields
    }

    /// What was found for the answer, once it is known.
    fn retrieval(&self, frame: &Value, events: &mut Vec<Fields>) {
        let chunks = self
            .reference
            .as_ref()
            .and_then(|reference| reference.get("chunks"));
        let chunks: Vec<Value> = match chunks {
            Some(Value::Array(chunks)) => chunks.clone(),
            // Later releases: by the number with which the answer refers to it.
            Some(Value::Object(chunks)) => chunks.values().cloned().collect(),
            _ => return,
        };
        if chunks.is_empty() {
            return;
        }
        let mut fields = fields("retrieval_completed");
        if let Some(id) = text_in(frame, "message_id") {
            fields.insert("retrieval_id".to_owned(), Value::from(id));
        }
        fields.insert("name".to_owned(), Value::from("reference"));
        fields.insert("query".to_owned(), Value::from(self.question.as_str()));
        fields.insert("chunks_retrieved".to_owned(), Value::from(chunks.len()));
        fields.insert("chunks".to_owned(), Value::Array(chunks));
        events.push(fields);
    }

    fn message(&self, events: &mut Vec<Fields>) {
        if !self.words.is_empty() {
            let mut fields = fields("message_generated");
            fields.insert("outputs".to_owned(), json!({"content": self.words}));
            events.push(fields);
        }
    }

    fn refer(&mut self, data: &Value) {
        if let Some(reference) = data
            .get("reference")
            .filter(|reference| says_something(reference))
        {
            self.reference = Some(reference.clone());
        }
    }

    fn think(&mut self, thought: &str, events: &mut Vec<Fields>) {
        if thought.is_empty() {
            return;
        }
        if !self.is_thinking {
            self.start_thinking(events);
        }
        self.thoughts.push_str(thought);
    }

    fn say(&mut self, words: &str, events: &mut Vec<Fields>) {
        if words.is_empty() {
            return;
        }
        if self.is_thinking {
            self.stop_thinking(events);
        }
        self.words.push_str(words);
    }

    fn start_thinking(&mut self, events: &mut Vec<Fields>) {
        self.is_thinking = true;
        self.thinkings += 1;
        let mut fields = fields("thinking_started");
        fields.insert(
            "call_id".to_owned(),
            Value::from(self.thinkings.to_string()),
        );
        events.push(fields);
    }

    fn stop_thinking(&mut self, events: &mut Vec<Fields>) {
        self.is_thinking = false;
        let mut fields = fields("thinking_completed");
        fields.insert(
            "call_id".to_owned(),
            Value::from(self.thinkings.to_string()),
        );
        fields.insert(
            "thoughts".to_owned(),
            Value::from(std::mem::take(&mut self.thoughts)),
        );
        events.push(fields);
    }
}

impl ToolCall {
    fn add(&mut self, piece: &Value) {
        let text = |path: &str| {
            piece
                .pointer(path)
                .and_then(Value::as_str)
                .unwrap_or_default()
        };
        self.id.push_str(text("/id"));
        self.name.push_str(text("/function/name"));
        self.arguments.push_str(text("/function/arguments"));
    }

    fn json(&self) -> Value {
        json!({"id": self.id, "type": "function", "function": {"name": self.name, "arguments": self.arguments}})
    }
}

pub(super) fn fields(event_type: &str) -> Fields {
    Map::from_iter([("event_type".to_owned(), Value::from(event_type))])
}

/// An error in any of the forms in which agents tell one; `null` is none.
pub(super) fn error_in(answer: &Value) -> Option<Failure> {
    let told = answer.get("error").filter(|error| says_something(error));
    if let Some(error) = told {
        let kind = text_in(error, "type").or_else(|| text_in(error, "code"));
        let message = text_in(error, "message").unwrap_or_else(|| text_of(Some(error)));
        return Some(Failure {
            kind: kind.unwrap_or_else(|| "agent_error".to_owned()),
            message: match message.is_empty() {
                true => error.to_string(),
                false => message,
            },
        });
    }
    // RAGFlow's envelope: 0 is well.
    let code = answer
        .get("code")
        .and_then(Value::as_i64)
        .filter(|code| *code != 0)?;
    answer
        .get("message")
        .and_then(Value::as_str)
        .map(|message| Failure {
            kind: code.to_string(),
            message: message.to_owned(),
        })
}

/// Neither null nor empty text.
fn says_something(value: &Value) -> bool {
    !matches!(value, Value::Null) && value.as_str() != Some("")
}

fn text_in(object: &Value, name: &str) -> Option<String> {
    let text = object.get(name)?.as_str()?;
    Some(text.to_owned()).filter(|text| !text.is_empty())
}

fn text_of(value: Option<&Value>) -> String {
    value.and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn items(list: Option<&Value>) -> impl Iterator<Item = &Value> {
    list.and_then(Value::as_array).into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The events of a stream, its outputs, and how it ended.
    fn read(kind: AgentKind, frames: &[Value]) -> (Vec<Value>, Value, Result<(), Failure>) {
        let mut reading = Reading::new(kind, "why?");
        let mut events = Vec::new();
        let mut ended = Ok(());
        for frame in frames {
            let frame = SseEvent {
                name: None,
                data: frame.to_string(),
            };
            ended = ended.and_then(|()| reading.frame(&frame, &mut events));
        }
        let ended = ended.and_then(|()| reading.end());
        reading.closing(&mut events);
        let events = events.into_iter().map(Value::Object).collect();
        (events, reading.outputs(), ended)
    }

    #[track_caller]
    fn fails(kind: AgentKind, frames: &[Value], kind_of_failure: &str, message: &str) {
        let failure = Failure::new(kind_of_failure, message);
        assert_eq!(read(kind, frames).2, Err(failure));
    }

    #[test]
    fn a_chat_is_its_words_thoughts_and_tokens() {
        let delta = |delta: Value| json!({"model": "m-1", "choices": [{"index": 0, "delta": delta, "finish_reason": null}]});
        let (events, outputs, ended) = read(
            AgentKind::OpenaiChat,
            &[
                delta(json!({"role": "assistant", "content": ""})),
                delta(json!({"reasoning_content": "hm"})),
                delta(json!({"content": "be"})),
                json!({"choices": [{"index": 1, "delta": {"content": "another"}}]}),
                delta(
                    json!({"tool_calls": [{"index": 0, "id": "c", "function": {"name": "f", "arguments": "{\"a\""}}]}),
                ),
                delta(json!({"tool_calls": [{"index": 0, "function": {"arguments": ":1}"}}]})),
                delta(json!({"content": "cause"})),
                json!({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}),
                json!({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 1}}}),
            ],
        );
        let call = json!({"id": "c", "type": "function", "function": {"name": "f", "arguments": "{\"a\":1}"}});
        assert_eq!(outputs, json!({"content": "because", "tool_calls": [call]}));
        assert_eq!(
            events,
            [
                json!({"event_type": "thinking_started", "call_id": "1"}),
                json!({"event_type": "thinking_completed", "call_id": "1", "thoughts": "hm"}),
                json!({"event_type": "message_generated", "outputs": outputs, "input_tokens": 3, "output_tokens": 2, "cached_tokens": 1, "model": "m-1", "finish_reason": "stop"}),
            ]
        );
        assert_eq!(ended, Ok(()));
    }

    #[test]
    fn a_chat_that_fails_says_why() {
        let kind = AgentKind::OpenaiChat;
        let part = json!({"choices": [{"delta": {"content": "be"}}]});
        fails(
            kind,
            std::slice::from_ref(&part),
            "broken_off",
            "the agent's answer broke off before its end",
        );
        fails(
            kind,
            &[
                part.clone(),
                json!({"error": {"message": "no", "type": "overloaded"}}),
            ],
            "overloaded",
            "no",
        );
        fails(kind, &[json!({"error": "no"})], "agent_error", "no");
        fails(
            kind,
            &[json!({"error": {"at": 5}})],
            "agent_error",
            "{\"at\":5}",
        );
        assert_eq!(read(kind, &[part]).1, json!({"content": "be"}));
        let mut reading = Reading::new(kind, "");
        let garbage = SseEvent {
            name: None,
            data: "<html>".to_owned(),
        };
        assert_eq!(
            reading.frame(&garbage, &mut Vec::new()).unwrap_err().kind,
            "invalid_answer"
        );
        for (body, kind) in [
            ("<html>", "invalid_answer"),
            ("{}", "invalid_answer"),
            (r#"{"error": {"message": "x"}}"#, "agent_error"),
        ] {
            assert_eq!(
                reading.whole(body.as_bytes()).unwrap_err().kind,
                kind,
                "{body}"
            );
        }
    }

    #[test]
    fn a_response_is_read_from_its_frames_or_as_a_whole() {
        let kind = AgentKind::OpenaiResponses;
        let response = json!({"object": "response", "status": "completed", "model": "m", "usage": {"input_tokens": 3, "output_tokens": 2},
            "output": [{"type": "reasoning", "summary": []}, {"type": "message", "content": [{"type": "output_text", "text": "because"}]}]});
        let (events, outputs, ended) = read(
            kind,
            &[
                json!({"type": "response.created", "response": {"status": "in_progress", "error": null}}),
                json!({"type": "response.output_text.delta", "delta": "beca"}),
                json!({"type": "response.completed", "response": response}),
            ],
        );
        let message = json!({"event_type": "message_generated", "outputs": {"content": "because"}, "input_tokens": 3, "output_tokens": 2, "model": "m"});
        assert_eq!(
            (events, outputs, ended),
            (vec![message], json!({"content": "because"}), Ok(()))
        );
        let mut reading = Reading::new(kind, "");
        reading.whole(response.to_string().as_bytes()).unwrap();
        assert_eq!(
            (reading.outputs(), reading.answer()),
            (json!({"content": "because"}), response)
        );
        let error = json!({"code": "server_error", "message": "no"});
        fails(
            kind,
            &[json!({"type": "response.failed", "response": {"status": "failed", "error": error}})],
            "server_error",
            "no",
        );
        fails(
            kind,
            &[json!({"type": "error", "code": "c", "message": "no"})],
            "c",
            "no",
        );
        fails(
            kind,
            &[json!({"type": "response.output_text.delta", "delta": "x"})],
            "broken_off",
            "the agent's answer broke off before its end",
        );
    }

    fn engine(event: &str, data: Value) -> Value {
        json!({"event": event, "message_id": "m1", "created_at": 15294, "task_id": "t", "session_id": "s1", "data": data})
    }

    fn node(event: &str, error: Value) -> Value {
        engine(
            event,
            json!({"component_id": "c:1", "component_name": "Ask", "component_type": "LLM", "inputs": {"q": 1}, "outputs": {"a": 0}, "error": error, "elapsed_time": 0.5, "created_at": 15294.0382, "thoughts": ""}),
        )
    }

    #[test]
    fn the_engines_frames_become_events_of_each_kind() {
        let chunks = json!([{"id": "k", "content": "text", "similarity": 0.5}]);
        let started = |n: usize| json!({"event_type": "node_started", "component_id": "c:1", "component_name": "Ask", "component_type": "LLM", "inputs": {"q": 1}, "outputs": {"a": 0}, "elapsed_time": 0.5, "call_id": format!("c:1:{n}")});
        let ended = |n: usize, name: &str| {
            let mut event = started(n);
            event["event_type"] = name.into();
            event
        };
        let (events, outputs, end) = read(
            AgentKind::Ragflow,
            &[
                engine("workflow_started", json!({"inputs": {}})),
                node("node_started", Value::Null),
                node("node_started", Value::Null),
                node("node_finished", Value::Null),
                node("node_finished", json!("no")),
                engine("message", json!({"content": "", "start_to_think": true})),
                engine("message", json!({"content": "hm"})),
                engine("message", json!({"content": "", "end_to_think": true})),
                engine("message", json!({"content": "be"})),
                engine("message", json!({"content": "cause"})),
                engine("message_end", json!({"reference": {"chunks": chunks}})),
                engine(
                    "workflow_finished",
                    json!({"outputs": {"content": "because"}, "created_at": 3.5}),
                ),
            ],
        );
        let mut failed = ended(2, "node_failed");
        failed["error"] = "no".into();
        let expected = [
            started(1),
            started(2),
            ended(1, "node_finished"),
            failed,
            json!({"event_type": "thinking_started", "call_id": "1"}),
            json!({"event_type": "thinking_completed", "call_id": "1", "thoughts": "hm"}),
            json!({"event_type": "retrieval_completed", "retrieval_id": "m1", "name": "reference", "query": "why?", "chunks_retrieved": 1, "chunks": chunks}),
            json!({"event_type": "message_generated", "outputs": {"content": "because"}}),
        ];
        assert_eq!(events, expected);
        assert_eq!((outputs, end), (json!({"content": "because"}), Ok(())));
    }

    #[test]
    fn an_engine_that_falls_silent_has_failed() {
        let kind = AgentKind::Ragflow;
        let (started, said) = (
            engine("workflow_started", json!({})),
            engine("message", json!({"content": "be"})),
        );
        let ended = engine("message_end", json!({}));
        let broke = "the agent's answer broke off before its end";
        fails(
            kind,
            &[started.clone(), said.clone(), ended.clone()],
            "broken_off",
            broke,
        );
        fails(kind, std::slice::from_ref(&said), "broken_off", broke);
        fails(
            kind,
            &[started, engine("error", json!({"message": "no"}))],
            "agent_error",
            "no",
        );
        fails(
            kind,
            &[json!({"code": 102, "message": "no such agent", "data": false})],
            "102",
            "no such agent",
        );
        // A route that leaves the engine's own frames out.
        assert_eq!(read(kind, &[said, ended]).2, Ok(()));
        assert_eq!(
            read(kind, &[engine("user_inputs", json!({"tips": "who?"}))]).2,
            Ok(())
        );
        let mut reading = Reading::new(kind, "");
        reading.done();
        assert!(
            reading.end().is_err(),
            "it says that it is done after a failure too"
        );
    }

    #[test]
    fn the_engines_answer_is_its_last_frame_with_all_of_it() {
        let mut reading = Reading::new(AgentKind::Ragflow, "");
        for frame in [
            engine("message", json!({"content": "be"})),
            engine("message", json!({"content": "cause"})),
            engine("message_end", json!({"reference": {"doc_aggs": []}})),
        ] {
            let frame = SseEvent {
                name: None,
                data: frame.to_string(),
            };
            reading.frame(&frame, &mut Vec::new()).unwrap();
        }
        let expected = engine(
            "message_end",
            json!({"reference": {"doc_aggs": []}, "content": "because"}),
        );
        assert_eq!(reading.answer(), expected);
    }
}
