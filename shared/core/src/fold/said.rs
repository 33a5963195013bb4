//! What is kept of what was said: questions, answers and calls, not the history, which every call repeats. And how much of any text.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::convention;
use crate::model::{Failure, Kind, Message, Span};

/// Kept of one text (a question, an answer).
const MAX_TEXT_BYTES: usize = 16 << 10;
/// Kept of a result or an error message.
const MAX_SHORT_BYTES: usize = 2 << 10;
/// Kept of names and ids of strangers.
const MAX_NAME_BYTES: usize = 512;
/// Tool calls kept of one answer.
const MAX_CALLS: usize = 128;
/// Kept of the arguments of one call, and of all calls of one answer.
pub(super) const MAX_ARGUMENT_BYTES: usize = 8 << 10;
const MAX_ARGUMENTS_BYTES: usize = 64 << 10;
/// Kept of the result of one call as JSON, and of all that one call to a model was given.
pub(super) const MAX_RESULT_BYTES: usize = 8 << 10;
const MAX_RESULTS_BYTES: usize = 64 << 10;
/// Messages of one history whose outline is kept; the last ones count.
const MAX_OUTLINE: usize = 128;

/// The part of a conversation that the summary and the invocations need: not the history, which every call repeats.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Said {
    /// The input's messages in outline.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub outline: Vec<Line>,
    /// The user's last words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub question: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub calls: Vec<CallFacts>,
    /// Of the answer, before it was shortened.
    #[serde(default)]
    pub answer_hash: u64,
    /// What the tools said that the last answer before asked for: what came before that, an earlier call was given.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub results: Vec<ResultFacts>,
}

impl Said {
    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Joins what several records say of one call, in the order given.
    pub(crate) fn extend(&mut self, other: &Self) {
        self.outline.extend_from_slice(&other.outline);
        if other.question.is_some() {
            self.question.clone_from(&other.question);
        }
        if other.answer.is_some() {
            self.answer.clone_from(&other.answer);
            self.answer_hash = other.answer_hash;
        }
        for call in &other.calls {
            if self.calls.len() < MAX_CALLS {
                self.calls.push(call.clone());
            }
        }
        for result in &other.results {
            if self.results.len() < MAX_CALLS {
                self.results.push(result.clone());
            }
        }
    }

    /// Takes what it lacks from what else is known of the same call: what was asked, what was answered.
    pub(crate) fn learn(&mut self, other: &Self) {
        if self.question.is_none() && self.outline.is_empty() {
            self.outline.clone_from(&other.outline);
            self.question.clone_from(&other.question);
            self.results.clone_from(&other.results);
        }
        if self.answer.is_none() && self.calls.is_empty() {
            self.answer.clone_from(&other.answer);
            self.answer_hash = other.answer_hash;
            self.calls.clone_from(&other.calls);
        }
    }

    /// It knows what was asked and what was answered.
    pub(crate) fn is_whole(&self) -> bool {
        let asked = self.question.is_some() || !self.outline.is_empty();
        asked && (self.answer.is_some() || !self.calls.is_empty())
    }
}

/// One message of a history: who spoke (`u`, `a`), and the hash of the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Line(pub char, pub u64);

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct CallFacts {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    pub name: String,
    /// JSON text.
    pub arguments: String,
}

/// What a tool said, as a model was told it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct ResultFacts {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    pub text: String,
}

/// Of an agent, a workflow or a root: what it was asked and what it answered. Steps between repeat it and keep nothing.
pub(crate) fn digest_step(span: &Span) -> Said {
    let matters = matches!(span.kind, Kind::Agent | Kind::Workflow) || span.parent_id.is_none();
    if !matters {
        return Said::default();
    }
    let mut said = digest(&span.input, &span.output);
    said.calls.clear();
    said.results.clear();
    if said.question.is_none() {
        said.question = span.input_value.as_ref().and_then(question_in);
    }
    if said.answer.is_none() {
        said.answer = span.output_value.as_ref().and_then(answer_in);
    }
    said
}

pub(crate) fn digest(input: &[Message], output: &[Message]) -> Said {
    // Only questions and plain answers tell turns apart; what tools said between them does not.
    let mut outline: Vec<Line> = input
        .iter()
        .rev()
        .filter(|message| {
            let is_a_thought = message.text.is_empty() && message.thinking.is_some();
            message.role == "user"
                || (message.role == "assistant" && message.tool_calls.is_empty() && !is_a_thought)
        })
        .take(MAX_OUTLINE)
        .map(|message| Line(role_letter(&message.role), text_hash(&message.text)))
        .collect();
    outline.reverse();
    let question = input
        .iter()
        .rev()
        .find(|message| message.role == "user" && !message.text.trim().is_empty())
        .map(|message| text(asked(&message.text)));
    // An agent may tell all that it said on the way; its answer is what it said after the last tool.
    let last_tool = output.iter().rposition(|message| message.role == "tool");
    let answer: String = output
        .iter()
        .skip(last_tool.map_or(0, |at| at + 1))
        // Some exports do not know who speaks (`unknown`); an output is the model's.
        .filter(|message| !matches!(message.role.as_str(), "user" | "system" | "tool"))
        .map(|message| message.text.as_str())
        .collect();
    let mut room = MAX_ARGUMENTS_BYTES;
    let calls = output
        .iter()
        .flat_map(|message| &message.tool_calls)
        .take(MAX_CALLS)
        .map(|call| {
            let arguments = arguments(&call.arguments, MAX_ARGUMENT_BYTES.min(room));
            room = room.saturating_sub(arguments.len());
            CallFacts {
                id: call.id.clone().map(name),
                name: name(call.name.clone()),
                arguments,
            }
        })
        .collect();
    Said {
        outline,
        question,
        results: results(input),
        answer_hash: if answer.is_empty() {
            0
        } else {
            text_hash(&answer)
        },
        answer: (!answer.is_empty()).then(|| text(&answer)),
        calls,
    }
}

fn results(input: &[Message]) -> Vec<ResultFacts> {
    let asked = input
        .iter()
        .rposition(|message| message.role == "assistant" && !message.tool_calls.is_empty());
    let mut room = MAX_RESULTS_BYTES;
    input
        .iter()
        .skip(asked.map_or(0, |at| at + 1))
        .filter(|message| message.tool_call_id.is_some())
        .take(MAX_CALLS)
        .map(|message| {
            let text = shorten(message.text.clone(), MAX_RESULT_BYTES.min(room));
            room = room.saturating_sub(text.len());
            ResultFacts {
                id: message.tool_call_id.clone().map(name),
                text,
            }
        })
        .collect()
}

/// The task in the prompts that some frameworks make of it (CrewAI, smolagents).
fn asked(prompt: &str) -> &str {
    let inner = prompt.trim();
    if let Some(task) = inner.strip_prefix("Current Task: ")
        && let Some((task, _)) =
            task.split_once("\n\nThis is the expected criteria for your final answer:")
    {
        return task;
    }
    inner.strip_prefix("New task:\n").unwrap_or(prompt)
}

fn role_letter(role: &str) -> char {
    if role == "user" { 'u' } else { 'a' }
}

/// Histories differ in the space around a text, not in the text.
pub(crate) fn text_hash(text: &str) -> u64 {
    xxh3_64_with_seed(text.trim().as_bytes(), 1)
}

/// The user's words in what a step took in: plain text, or one of the fields that are usual for it.
pub(crate) fn question_in(value: &Value) -> Option<String> {
    const FIELDS: [&str; 10] = [
        "question",
        "query",
        "input",
        "prompt",
        "task",
        "user_input",
        "message",
        "text",
        "user",
        "inputs",
    ];
    words_in(value, "inputs", &FIELDS, "user")
}

/// The answer in what a step gave back.
pub(crate) fn answer_in(value: &Value) -> Option<String> {
    const FIELDS: [&str; 10] = [
        "answer",
        "raw",
        "output",
        "response",
        "final_output",
        "result",
        "content",
        "text",
        "message",
        "outputs",
    ];
    words_in(value, "outputs", &FIELDS, "assistant")
}

/// Plain text; else the first of the fields that is text, here or within the `wrapper`; else the last message of the role.
fn words_in(value: &Value, wrapper: &str, fields: &[&str], role: &str) -> Option<String> {
    let value = value
        .get(wrapper)
        .filter(|inner| inner.is_object())
        .unwrap_or(value);
    let found = match value {
        Value::String(words) => Some(words.clone()),
        // A Python function and what it was called with.
        Value::Object(call) if call.len() == 2 && call.contains_key("kwargs") => {
            let by_name = fields.iter().find_map(|key| value["kwargs"].get(*key));
            by_name
                .or_else(|| call.get("args")?.get(0))
                .and_then(Value::as_str)
                .map(str::to_owned)
        }
        Value::Object(_) => fields
            .iter()
            .find_map(|key| value.get(*key).and_then(Value::as_str))
            .map(str::to_owned),
        _ => None,
    };
    found
        .or_else(|| last_text(value, role))
        .or_else(|| {
            // A field that is a message.
            let inner = fields.iter().find_map(|key| {
                let inner = value.get(*key)?;
                (inner.get("role").is_some() || inner.get(0)?.get("role").is_some())
                    .then_some(inner)
            })?;
            last_of(inner, role)
        })
        .filter(|words| !words.trim().is_empty())
        .map(|words| text(&words))
}

fn last_text(value: &Value, role: &str) -> Option<String> {
    value.get("messages")?;
    last_of(value, role)
}

fn last_of(value: &Value, role: &str) -> Option<String> {
    convention::read_messages(value, "")
        .into_iter()
        .rev()
        .find(|message| message.role == role && !message.text.trim().is_empty())
        .map(|message| message.text)
}

pub(super) fn failure(failure: Failure) -> Failure {
    Failure {
        kind: name(failure.kind),
        message: shorten(failure.message, MAX_SHORT_BYTES),
    }
}

pub(super) fn name(name: String) -> String {
    shorten(name, MAX_NAME_BYTES)
}

fn text(text: &str) -> String {
    shorten(text.to_owned(), MAX_TEXT_BYTES)
}

/// Arguments as JSON text; when they are too long, an object that says so.
pub(super) fn arguments(value: &Value, max_bytes: usize) -> String {
    let json = value.to_string();
    if json.len() <= max_bytes {
        return json;
    }
    let length = json.len();
    let preview = shorten(json, max_bytes.min(MAX_SHORT_BYTES) / 2);
    serde_json::json!({ "truncated": true, "bytes": length, "preview": preview }).to_string()
}

/// Cuts at a character and says how much is missing.
pub(crate) fn shorten(mut text: String, max_bytes: usize) -> String {
    if text.len() <= max_bytes {
        return text;
    }
    let mut end = max_bytes;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let missing = text.len() - end;
    text.truncate(end);
    text.push_str(&format!("... [{missing} bytes more]"));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_that_was_cut_says_so() {
        assert_eq!(shorten("übermut".to_owned(), 3), "üb... [5 bytes more]");
    }
}
