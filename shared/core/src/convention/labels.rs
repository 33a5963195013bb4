//! Whom an observation names: agents, users, sessions. Asked for every event on its way in, so an observation is not read for it: only attributes whose name may
//! tell are, and one that came before in the same batch is not read again.

use std::collections::HashSet;
use std::sync::Arc;

use prost::Message as _;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::{fields, keys};
use crate::attributes::Attributes;
use crate::id::SessionKey;
use crate::listing::{Label, label_text};
use crate::mesh;
use crate::observed::{Canonical, Context, Incoming};
use crate::protobuf::{Fields, Raw};
use crate::wire;

/// Names taken from one batch of a trace, of each sort; more are those of a stranger, or come with the next batch.
const MAX_AGENTS: usize = 32;
const MAX_USERS: usize = 8;
const MAX_SESSIONS: usize = 16;

/// Agents that only a list looks for: ids beside the names, and where LangChain's names lie when its metadata came flattened.
const AGENT_IDS: &[&str] = &[
    "gen_ai.agent.id",
    "agent.id",
    "traceloop.association.properties.lc_agent_name",
    "langsmith.metadata.lc_agent_name",
];
/// A structure that names sessions, users and agents in keys of its own.
const METADATA: &str = "metadata";
const IN_METADATA: [(&str, &[&str]); 3] = [
    (
        "session",
        &["session_id", "sessionId", "thread_id", "conversation_id"],
    ),
    ("user", &["user_id", "userId"]),
    ("agent", &["lc_agent_name"]),
];

/// Who is named in a batch, each once, in the order in which they came. Names are cut as [`label_text`] cuts them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Labels {
    /// Names and ids of agents.
    pub agents: Vec<String>,
    pub users: Vec<String>,
    pub sessions: Vec<String>,
    /// There were more than are taken from one batch.
    pub more: bool,
}

#[derive(Clone, Copy)]
enum Who {
    Agent,
    User,
    Session,
}

impl Labels {
    /// What the trace is found by.
    pub fn list(&self) -> Vec<Label> {
        let agents = self.agents.iter().map(|name| Label::agent(name));
        let users = self.users.iter().map(|name| Label::user(name));
        let sessions = self.sessions.iter();
        let sessions = sessions.map(|name| Label::session(&SessionKey::of(name)));
        let more = self.more.then(Label::more);
        agents.chain(users).chain(sessions).chain(more).collect()
    }

    fn add(&mut self, who: Who, name: &str) {
        let (names, most) = match who {
            Who::Agent => (&mut self.agents, MAX_AGENTS),
            Who::User => (&mut self.users, MAX_USERS),
            Who::Session => (&mut self.sessions, MAX_SESSIONS),
        };
        let name = label_text(name);
        if name.is_empty() || names.iter().any(|known| known == name) {
            return;
        }
        if names.len() < most {
            names.push(name.to_owned());
        } else {
            self.more = true;
        }
    }
}

/// Reads a batch once. What is damaged names nobody.
pub fn labels<'a>(events: impl IntoIterator<Item = &'a Incoming>) -> Labels {
    let mut scan = Scan::default();
    for incoming in events {
        scan.context(&incoming.context);
        match &incoming.what {
            Canonical::Span(bytes) => {
                scan.message(bytes, wire::SPAN_ATTRIBUTES, Some(SPAN_NAME), incoming);
            }
            Canonical::Log(bytes) => scan.message(bytes, wire::LOG_ATTRIBUTES, None, incoming),
            Canonical::Native(json) => scan.native(json),
        }
    }
    scan.labels
}

/// The number of a span's name in `trace.proto`.
const SPAN_NAME: u32 = 5;

#[derive(Default)]
struct Scan<'a> {
    labels: Labels,
    /// Attributes that were read, as they lie on the wire.
    read: HashSet<&'a [u8]>,
    /// The context of the observation before this one.
    context: Option<&'a Arc<Context>>,
}

impl<'a> Scan<'a> {
    /// An agent mesh names its agent in the resource.
    fn context(&mut self, context: &'a Arc<Context>) {
        if self
            .context
            .is_some_and(|known| Arc::ptr_eq(known, context))
        {
            return;
        }
        self.context = Some(context);
        if context.scope.name == mesh::SCOPE {
            let resource = Attributes::new(&context.resource);
            for key in ["agent_name", "agent_id"] {
                if let Some(name) = resource.text(key) {
                    self.labels.add(Who::Agent, &name);
                }
            }
        }
    }

    fn message(
        &mut self,
        message: &'a [u8],
        attributes: u32,
        name: Option<u32>,
        incoming: &Incoming,
    ) {
        let mut fields = Fields(message);
        while let Ok(Some((number, raw))) = fields.next() {
            let Raw::Bytes(bytes) = raw else { continue };
            if number == attributes {
                self.attribute(bytes, incoming);
            } else if Some(number) == name
                && (bytes.starts_with(b"invoke_agent ") || bytes.starts_with(b"agent"))
                && let Ok(span) = std::str::from_utf8(bytes)
                && let Some(agent) = fields::agent_in_name(span)
            {
                self.labels.add(Who::Agent, &agent);
            }
        }
    }

    fn attribute(&mut self, attribute: &'a [u8], incoming: &Incoming) {
        let Ok(Some((1, Raw::Bytes(key)))) = Fields(attribute).next() else {
            return;
        };
        let Some(told) = told_by(key) else { return };
        if !self.read.insert(attribute) {
            return;
        }
        let Ok(pair) = wire::KeyValue::decode(attribute) else {
            return;
        };
        let pair = [pair];
        let attributes = Attributes::new(&pair);
        let key = pair[0].key.as_str();
        let Some(who) = told else {
            return self.metadata(&attributes);
        };
        if let Some(name) = attributes.text(key) {
            let is_default = matches!(who, Who::Agent)
                && fields::is_default_agent(&name, &incoming.context.scope.name);
            if !is_default {
                self.labels.add(who, name.trim());
            }
        }
    }

    fn metadata(&mut self, attributes: &Attributes) {
        let metadata = attributes.json(METADATA).unwrap_or(Value::Null);
        for (who, keys) in IN_METADATA {
            let who = match who {
                "session" => Who::Session,
                "user" => Who::User,
                _ => Who::Agent,
            };
            for key in keys {
                if let Some(name) = fields::metadata_text(&metadata, &[key]) {
                    self.labels.add(who, &name);
                }
            }
        }
    }

    fn native(&mut self, json: &str) {
        #[derive(Deserialize)]
        struct Named<'a> {
            agent_id: Option<Value>,
            agent_name: Option<Value>,
            user_id: Option<Value>,
            session_id: Option<Value>,
            #[serde(borrow)]
            details: Option<&'a RawValue>,
        }
        #[derive(Deserialize)]
        struct Details {
            agent_name: Option<Value>,
        }
        let Ok(named) = serde_json::from_str::<Named>(json) else {
            return;
        };
        let in_details = named
            .details
            .filter(|details| details.get().contains("agent_name"))
            .and_then(|details| serde_json::from_str::<Details>(details.get()).ok())
            .and_then(|details| details.agent_name);
        for (who, name) in [
            (Who::Agent, named.agent_name),
            (Who::Agent, in_details),
            (Who::Agent, named.agent_id),
            (Who::User, named.user_id),
            (Who::Session, named.session_id),
        ] {
            match name {
                Some(Value::String(name)) => self.labels.add(who, &name),
                Some(Value::Number(number)) => self.labels.add(who, &number.to_string()),
                _ => {}
            }
        }
    }
}

/// Whom an attribute of this name tells of: `None` nobody, `Some(None)` several in a structure.
#[allow(clippy::option_option)]
fn told_by(key: &[u8]) -> Option<Option<Who>> {
    if !has_length(key) {
        return None;
    }
    let among = |names: &[&str]| names.iter().any(|name| name.as_bytes() == key);
    if among(keys::SESSIONS) {
        Some(Some(Who::Session))
    } else if among(keys::USER) {
        Some(Some(Who::User))
    } else if among(keys::AGENT) || among(AGENT_IDS) {
        Some(Some(Who::Agent))
    } else {
        (key == METADATA.as_bytes()).then_some(None)
    }
}

/// Whether a telling key has this length: nearly all that tell nothing are known by it alone.
fn has_length(key: &[u8]) -> bool {
    const LENGTHS: u64 = lengths(keys::SESSIONS)
        | lengths(keys::USER)
        | lengths(keys::AGENT)
        | lengths(AGENT_IDS)
        | lengths(&[METADATA]);
    key.len() < 64 && LENGTHS & (1 << key.len()) != 0
}

const fn lengths(keys: &[&str]) -> u64 {
    let (mut mask, mut at) = (0, 0);
    while at < keys.len() {
        assert!(keys[at].len() < 64, "a key is too long for the mask");
        mask |= 1 << keys[at].len();
        at += 1;
    }
    mask
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observed::What;

    fn pair(key: &str, value: &str) -> wire::KeyValue {
        wire::KeyValue {
            key: key.into(),
            value: Some(wire::AnyValue {
                value: Some(wire::any_value::Value::String(value.into())),
            }),
        }
    }

    fn span(scope: &str, name: &str, attributes: &[(&str, &str)]) -> Incoming {
        let span = wire::Span {
            name: name.to_owned(),
            attributes: attributes
                .iter()
                .map(|(key, value)| pair(key, value))
                .collect(),
            ..wire::Span::default()
        };
        incoming(scope, &What::Span(Arc::new(span)))
    }

    fn incoming(scope: &str, what: &What) -> Incoming {
        Incoming {
            context: Arc::new(Context {
                scope: wire::Scope {
                    name: scope.to_owned(),
                    ..wire::Scope::default()
                },
                resource: vec![pair("agent_name", "Meshed"), pair("agent_id", "meshed-1")],
                ..Context::default()
            }),
            what: Canonical::from(what),
            identity: None,
            may_end_run: false,
            trace_level: crate::verbosity::Verbosity::Debug,
        }
    }

    #[test]
    fn names_are_read_off_spans_records_and_native_events() {
        let native = r#"{"event_type":"x","agent_id":"n-1","user_id":7,"session_id":"s-2","details":{"agent_name":"Native"}}"#;
        let batch = [
            span(
                "x",
                "chat m",
                &[("gen_ai.agent.name", "Triage"), ("session.id", "s-1")],
            ),
            span(
                "x",
                "chat m",
                &[("gen_ai.agent.name", "Triage"), ("user.id", "u")],
            ),
            span(
                "x",
                "invoke_agent Writer",
                &[("gen_ai.agent.id", "asst_1"), ("unknown.key", "no")],
            ),
            span(
                "x",
                "agent loop",
                &[("metadata", r#"{"thread_id":"t","lc_agent_name":"Graph"}"#)],
            ),
            span(
                "opentelemetry.openai_agents",
                "s",
                &[("gen_ai.agent.name", "OpenAI Agent")],
            ),
            span(mesh::SCOPE, "f", &[]),
            incoming("x", &What::Native(native.into())),
            incoming("x", &What::Native("[no object]".into())),
        ];
        let read = labels(&batch);
        assert_eq!(
            read.agents,
            [
                "Triage", "Writer", "asst_1", "Graph", "Meshed", "meshed-1", "Native", "n-1"
            ]
            .map(str::to_owned)
            .to_vec()
        );
        assert_eq!(
            (read.users, read.sessions),
            (
                vec!["u".to_owned(), "7".to_owned()],
                vec!["s-1".to_owned(), "t".to_owned(), "s-2".to_owned()],
            )
        );
        assert!(!read.more);
    }

    #[test]
    fn a_batch_of_a_stranger_names_no_more_than_is_taken() {
        let names: Vec<String> = (0..100).map(|n| format!("agent-{n}")).collect();
        let batch: Vec<Incoming> = names
            .iter()
            .map(|name| span("x", "s", &[("agent.name", name)]))
            .collect();
        let read = labels(&batch);
        assert_eq!((read.agents.len(), read.more), (MAX_AGENTS, true));
    }
}
