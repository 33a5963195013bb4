//! Agents in service: whom `POST /agents/{agent_id}/completions/trace` may call. The operator's file says it, and no request adds to it.
//!
//! The file (`TAILSPAN_AGENTS`) is one JSON object, an agent per name:
//!
//! | field | default | meaning |
//! | --- | --- | --- |
//! | `kind` | | `openai_chat` (chat completions), `openai_responses`, or `ragflow` (`{question, session_id, stream}`, answered by its engine's frames) |
//! | `url` | | the whole address that is posted to, `http` or `https`; `${VARIABLE}` stands for an environment variable |
//! | `model` | what the request says | sent as `model`, whatever the request says |
//! | `headers` | none | name -> value; `${VARIABLE}` stands for an environment variable, so that no secret stands in the file |
//! | `connect_seconds` | 5 | until the connection stands |
//! | `first_byte_seconds` | 60 | until the first byte of the answer's body |
//! | `total_seconds` | 300 | until the answer's last byte |
//! | `max_answer_bytes` | 4194304 | of an answer; a longer one fails |
//! | `instrumented` | true | the agent tells its model calls itself, by telemetry; `false`: a bare model, whose use is recorded as a model call of the run |
//! | `stream_usage` | true | ask an `openai_chat` endpoint for `stream_options.include_usage` |
//! | `tenants` | everybody | who may call it; for others it is not there |

use std::{collections::HashMap, fmt, sync::Arc, time::Duration};

use axum::http::HeaderMap;
use serde_json::Value;
use tailspan_core::id::TenantId;
use url::Url;

use crate::operator_file::{self, Reader};

const LARGEST_ANSWER_BYTES: u64 = 64 << 20;

/// What an agent speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AgentKind {
    /// `POST .../chat/completions` as OpenAI defined it.
    OpenaiChat,
    /// `POST .../responses` as OpenAI defined it.
    OpenaiResponses,
    /// RAGFlow's agent completions: server-sent events of its engine.
    Ragflow,
}

/// One agent, as the table above says.
pub struct Agent {
    pub id: String,
    pub kind: AgentKind,
    /// May hold a secret.
    pub url: Url,
    pub model: Option<String>,
    /// Marked sensitive.
    pub headers: HeaderMap,
    pub connect: Duration,
    pub first_byte: Duration,
    pub total: Duration,
    pub max_answer_bytes: usize,
    pub instrumented: bool,
    pub stream_usage: bool,
    tenants: Option<Vec<TenantId>>,
    /// What must not be repeated to anybody.
    secrets: Vec<String>,
}

/// Without its address and headers.
impl fmt::Debug for Agent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Agent")
            .field("id", &self.id)
            .field("kind", &self.kind)
            .finish_non_exhaustive()
    }
}

impl Agent {
    /// A text of the agent's (an error that repeats the key it was sent, say) without what is secret about it.
    pub fn without_secrets(&self, text: &str) -> String {
        operator_file::without(&self.secrets, text)
    }
}

/// The agents of this process; cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Agents(Arc<HashMap<String, Arc<Agent>>>);

impl Agents {
    /// Reads the operator's file; `var` is the environment.
    ///
    /// # Errors
    /// Every mistake, a sentence each, without what the file or the environment says where that may be secret.
    pub fn parse(text: &str, var: impl Fn(&str) -> Option<String>) -> Result<Self, Vec<String>> {
        let agents = match serde_json::from_str(text) {
            Ok(Value::Object(agents)) => agents,
            Ok(_) => return Err(vec!["the file must be an object, an agent per name".into()]),
            Err(error) => {
                return Err(vec![format!(
                    "the file is not JSON (line {}, column {})",
                    error.line(),
                    error.column()
                )]);
            }
        };
        let agents = operator_file::fields_of(agents);
        let agents = operator_file::each("agent", agents, &var, |reader| reader.agent())?;
        Ok(Self(Arc::new(agents)))
    }

    /// The agent of this name, if the tenant may use it.
    pub fn get(&self, tenant: &TenantId, id: &str) -> Option<&Arc<Agent>> {
        let agent = self.0.get(id);
        agent.filter(|agent| operator_file::is_for(agent.tenants.as_deref(), tenant))
    }
}

impl<V: Fn(&str) -> Option<String>> Reader<'_, V> {
    fn agent(&mut self) -> Option<Agent> {
        let valid_id =
            (1..=128).contains(&self.id.chars().count()) && !self.id.chars().any(char::is_control);
        if !valid_id {
            self.wrong("its name must have 1 to 128 characters");
        }
        let kind = match self
            .fields
            .shift_remove("kind")
            .as_ref()
            .and_then(Value::as_str)
        {
            Some("openai_chat") => Some(AgentKind::OpenaiChat),
            Some("openai_responses") => Some(AgentKind::OpenaiResponses),
            Some("ragflow") => Some(AgentKind::Ragflow),
            _ => {
                self.wrong("kind must be openai_chat, openai_responses or ragflow");
                None
            }
        };
        let url = self.url();
        let model = self.text("model");
        let headers = self.headers();
        let connect = self.seconds("connect_seconds", 5.0);
        let first_byte = self.seconds("first_byte_seconds", 60.0);
        let total = self.seconds("total_seconds", 300.0);
        let max_answer_bytes = self.number("max_answer_bytes", 4 << 20, 1..=LARGEST_ANSWER_BYTES);
        let max_answer_bytes = usize::try_from(max_answer_bytes).unwrap_or(usize::MAX);
        let instrumented = self.flag("instrumented");
        let stream_usage = self.flag("stream_usage");
        let tenants = self.tenants();
        self.nothing_else();
        Some(Agent {
            id: self.id.to_owned(),
            kind: kind?,
            url: url?,
            model,
            headers,
            connect,
            first_byte,
            total,
            max_answer_bytes,
            instrumented,
            stream_usage,
            tenants,
            secrets: std::mem::take(&mut self.secrets),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Agents, Vec<String>> {
        Agents::parse(text, |name| {
            (name == "KEY").then(|| "sk-very-secret".to_owned())
        })
    }

    #[test]
    fn an_agent_is_what_the_file_says() {
        let agents = read(
            r#"{"a": {"kind": "openai_chat", "url": "https://host/v1/chat/completions", "model": "m", "headers": {"authorization": "Bearer ${KEY}"},
                "first_byte_seconds": 0.5, "tenants": ["team-a"], "instrumented": false},
              "b": {"kind": "ragflow", "url": "http://host/api"}}"#,
        )
        .unwrap();
        let team = TenantId::parse("team-a").unwrap();
        let agent = agents.get(&team, "a").unwrap();
        assert_eq!(agent.headers["authorization"], "Bearer sk-very-secret");
        assert_eq!(agent.first_byte, Duration::from_millis(500));
        assert!(!agent.instrumented && agent.stream_usage);
        assert!(!format!("{agents:?}").contains("secret"));
        assert_eq!(
            agent.without_secrets("bad key sk-very-secret for you"),
            "bad key *** for you"
        );
        assert!(agents.get(&TenantId::default(), "a").is_none());
        assert!(agents.get(&TenantId::default(), "b").is_some());
        assert!(agents.get(&team, "c").is_none());
    }

    #[test]
    fn all_mistakes_are_told_without_secrets() {
        let mistakes = read(
            r#"{"a": {"kind": "openai", "url": "ftp://sk-very-secret@host", "headers": {"authorization": "Bearer ${NO}", "host": "x", "x": 7}, "speed": 1},
                "b": 5, "c": {"kind": "ragflow", "url": "http://${KEY", "total_seconds": "long", "max_answer_bytes": 0, "tenants": "all", "instrumented": "no",
                "headers": "sk-very-secret", "model": ["sk-very-secret"]}}"#,
        )
        .unwrap_err();
        assert_eq!(mistakes.len(), 15, "{mistakes:#?}");
        assert!(
            !format!("{mistakes:?}").contains("very-secret"),
            "{mistakes:#?}"
        );
        assert_eq!(read("[").unwrap_err().len(), 1);
        assert_eq!(read("[]").unwrap_err().len(), 1);
    }
}
