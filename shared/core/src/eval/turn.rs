//! A user turn as it is evaluated: what a trace told, or what an eval set expects.

use serde_json::Value;

use crate::invocations::Invocation;

/// One turn. Texts keep the parts that they came in, because metrics join them differently.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Turn {
    pub id: String,
    pub user: Vec<String>,
    /// The final answer; empty: none was given.
    pub response: Vec<String>,
    pub tool_calls: Vec<ToolUse>,
    pub tool_responses: Vec<ToolReply>,
    /// What an eval set asks of this turn.
    pub rubrics: Vec<Rubric>,
    /// What the agents were told to be, where an eval set says it.
    pub instructions: Vec<String>,
}

/// A tool call; ids never take part in a comparison.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ToolUse {
    pub name: String,
    /// `Null`: none were told.
    pub args: Value,
    pub id: Option<String>,
}

/// What a tool answered.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ToolReply {
    pub name: String,
    pub response: Value,
    pub id: Option<String>,
}

/// One property that an answer, or the use of tools, must have.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rubric {
    pub id: String,
    pub text: String,
    pub description: Option<String>,
    /// `FINAL_RESPONSE_QUALITY`, `TOOL_USE_QUALITY` or what else its author calls it.
    pub kind: Option<String>,
}

impl Turn {
    /// What the user said, in one line as matching compares it.
    pub fn user_text(&self) -> String {
        join(&self.user, " ")
    }

    /// The answer as it is scored: a line per part.
    pub fn response_text(&self) -> String {
        join(&self.response, "\n")
    }

    /// The answer as evaluators' programs get it.
    pub fn response_line(&self) -> String {
        join(&self.response, " ")
    }
}

fn join(parts: &[String], separator: &str) -> String {
    let parts: Vec<&str> = parts
        .iter()
        .map(String::as_str)
        .filter(|part| !part.is_empty())
        .collect();
    parts.join(separator)
}

impl From<&Invocation> for Turn {
    fn from(invocation: &Invocation) -> Self {
        let dialect_id = &invocation.source.dialect_id;
        Self {
            // Reports name turns as agentevals does.
            id: if dialect_id.is_empty() {
                invocation.invocation_id.clone()
            } else {
                dialect_id.clone()
            },
            user: part(&invocation.user_text),
            response: part(&invocation.agent_text),
            tool_calls: invocation
                .tool_calls
                .iter()
                .map(|call| ToolUse {
                    name: call.name.clone(),
                    args: call.args.clone(),
                    id: call.id.clone(),
                })
                .collect(),
            tool_responses: invocation
                .tool_responses
                .iter()
                .map(|reply| ToolReply {
                    name: reply.name.clone(),
                    response: reply.response.clone(),
                    id: reply.id.clone(),
                })
                .collect(),
            ..Self::default()
        }
    }
}

fn part(text: &str) -> Vec<String> {
    if text.is_empty() {
        Vec::new()
    } else {
        vec![text.to_owned()]
    }
}
