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

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Map, Value};
use tailspan_core::id::TenantId;
use url::Url;

/// The longest of any time-out, in seconds.
const LONGEST_SECONDS: f64 = 3_600.0;
const LARGEST_ANSWER_BYTES: u64 = 64 << 20;
/// Headers that are ours to set.
const OWN_HEADERS: [&str; 9] = [
    "host",
    "connection",
    "content-length",
    "content-type",
    "transfer-encoding",
    "accept",
    "traceparent",
    "x-trace-id",
    "x-parent-span",
];

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
        self.secrets
            .iter()
            .fold(text.to_owned(), |text, secret| text.replace(secret, "***"))
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
        let mut mistakes = Vec::new();
        let mut all = HashMap::new();
        for (id, said) in agents {
            let mut reader = Reader {
                id: &id,
                var: &var,
                fields: match said {
                    Value::Object(fields) => fields,
                    _ => Map::new(),
                },
                mistakes: &mut mistakes,
                secrets: Vec::new(),
            };
            if let Some(agent) = reader.agent() {
                all.insert(id, Arc::new(agent));
            }
        }
        match mistakes.is_empty() {
            true => Ok(Self(Arc::new(all))),
            false => Err(mistakes),
        }
    }

    /// The agent of this name, if the tenant may use it.
    pub fn get(&self, tenant: &TenantId, id: &str) -> Option<&Arc<Agent>> {
        self.0.get(id).filter(|agent| {
            let tenants = agent.tenants.as_ref();
            tenants.is_none_or(|tenants| tenants.contains(tenant))
        })
    }
}

/// Reads one agent's fields; what is wrong is noted, and the rest is read on.
struct Reader<'a, V> {
    id: &'a str,
    var: &'a V,
    fields: Map<String, Value>,
    mistakes: &'a mut Vec<String>,
    secrets: Vec<String>,
}

impl<V: Fn(&str) -> Option<String>> Reader<'_, V> {
    fn agent(&mut self) -> Option<Agent> {
        let before = self.mistakes.len();
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
        let max_answer_bytes = self.answer_bytes();
        let instrumented = self.flag("instrumented");
        let stream_usage = self.flag("stream_usage");
        let tenants = self.tenants();
        let unknown: Vec<_> = self.fields.keys().map(|name| format!("{name:?}")).collect();
        if !unknown.is_empty() {
            self.wrong(&format!("unknown fields: {}", unknown.join(", ")));
        }
        if self.mistakes.len() > before {
            return None;
        }
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

    fn wrong(&mut self, what: &str) {
        self.mistakes.push(format!("agent {:?}: {what}", self.id));
    }

    fn text(&mut self, name: &str) -> Option<String> {
        match self.fields.shift_remove(name)? {
            Value::String(text) if !text.is_empty() => Some(text),
            _ => {
                self.wrong(&format!("{name} must be text"));
                None
            }
        }
    }

    fn url(&mut self) -> Option<Url> {
        const RULE: &str = "url must be an http or https address with a host";
        let told = match self.fields.shift_remove("url") {
            Some(Value::String(told)) => told,
            _ => {
                self.wrong(RULE);
                return None;
            }
        };
        let url = Url::parse(&self.expand("url", &told)?).ok().filter(|url| {
            matches!(url.scheme(), "http" | "https") && url.has_host() && url.fragment().is_none()
        });
        if url.is_none() {
            self.wrong(RULE);
        }
        if let Some(password) = url.as_ref().and_then(Url::password) {
            self.secrets.push(password.to_owned());
        }
        url
    }

    fn headers(&mut self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let told = match self.fields.shift_remove("headers") {
            None => return headers,
            Some(Value::Object(told)) => told,
            Some(_) => {
                self.wrong("headers must be an object of text");
                return headers;
            }
        };
        for (name, value) in told {
            let parsed = HeaderName::from_bytes(name.as_bytes())
                .ok()
                .filter(|name| !OWN_HEADERS.contains(&name.as_str()));
            let Some(parsed) = parsed else {
                self.wrong(&format!(
                    "{name:?} is no header that may be set: these are ours: {}",
                    OWN_HEADERS.join(", ")
                ));
                continue;
            };
            let Value::String(value) = value else {
                self.wrong(&format!("header {name:?} must be text"));
                continue;
            };
            let Some(value) = self.expand(&format!("header {name:?}"), &value) else {
                continue;
            };
            match HeaderValue::from_str(&value) {
                Ok(mut header) => {
                    header.set_sensitive(true);
                    headers.append(parsed, header);
                    // The key by itself too: whoever repeats it seldom repeats the scheme.
                    let key = value.rsplit(' ').next().unwrap_or_default();
                    self.secrets.extend(is_secret(key).then(|| key.to_owned()));
                }
                Err(_) => self.wrong(&format!(
                    "header {name:?} has characters that none may have"
                )),
            }
        }
        headers
    }

    /// Puts variables in; what they hold is secret.
    fn expand(&mut self, what: &str, told: &str) -> Option<String> {
        let mut text = String::new();
        let mut rest = told;
        while let Some((before, after)) = rest.split_once("${") {
            text.push_str(before);
            let Some((name, after)) = after.split_once('}') else {
                self.wrong(&format!("{what}: \"${{\" without a \"}}\""));
                return None;
            };
            let Some(value) = (self.var)(name).filter(|value| !value.is_empty()) else {
                self.wrong(&format!("{what}: the variable {name} is not set"));
                return None;
            };
            text.push_str(&value);
            self.secrets.extend(is_secret(&value).then_some(value));
            rest = after;
        }
        text.push_str(rest);
        Some(text)
    }

    fn seconds(&mut self, name: &str, default: f64) -> Duration {
        let seconds = match self.fields.shift_remove(name) {
            None => Some(default),
            Some(told) => told
                .as_f64()
                .filter(|seconds| *seconds >= 0.001 && *seconds <= LONGEST_SECONDS),
        };
        if seconds.is_none() {
            self.wrong(&format!(
                "{name} must be a number of seconds, at most {LONGEST_SECONDS}"
            ));
        }
        Duration::from_secs_f64(seconds.unwrap_or(default))
    }

    fn answer_bytes(&mut self) -> usize {
        let bytes = match self.fields.shift_remove("max_answer_bytes") {
            None => Some(4 << 20),
            Some(told) => told
                .as_u64()
                .filter(|bytes| (1..=LARGEST_ANSWER_BYTES).contains(bytes)),
        };
        if bytes.is_none() {
            self.wrong(&format!(
                "max_answer_bytes must be a number from 1 to {LARGEST_ANSWER_BYTES}"
            ));
        }
        usize::try_from(bytes.unwrap_or_default()).unwrap_or(usize::MAX)
    }

    fn flag(&mut self, name: &str) -> bool {
        match self.fields.shift_remove(name) {
            None => true,
            Some(Value::Bool(said)) => said,
            Some(_) => {
                self.wrong(&format!("{name} must be true or false"));
                true
            }
        }
    }

    fn tenants(&mut self) -> Option<Vec<TenantId>> {
        let told = self.fields.shift_remove("tenants")?;
        let tenants: Option<Vec<_>> = told.as_array().and_then(|names| {
            let names = names
                .iter()
                .map(|name| TenantId::parse(name.as_str()?).ok());
            names.collect()
        });
        if tenants.is_none() {
            self.wrong("tenants must be a list of names of a-z 0-9 -");
        }
        tenants
    }
}

/// Short words (`1`, `v2`, `Basic`) are no secrets, and would tear holes into every text.
fn is_secret(text: &str) -> bool {
    text.len() >= 8
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
