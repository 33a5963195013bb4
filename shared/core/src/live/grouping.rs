//! Into which live session an exported trace goes: by the best name that a batch gives it.

use std::cmp::Reverse;
use std::collections::HashSet;
use std::sync::Arc;

use prost::Message as _;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::attributes::{Attributes, to_json};
use crate::convention;
use crate::id::TraceId;
use crate::listing::label_text;
use crate::lower;
use crate::observed::{Canonical, Context, Incoming};
use crate::protobuf::{Fields, Raw};
use crate::verbosity::Verbosity;
use crate::wire::{KeyValue, LOG_ATTRIBUTES, SPAN_ATTRIBUTES, any_value};

/// Resource attributes that are about the session itself begin with this.
const OWN: &str = "agentevals.";
const SESSION_NAME: &str = "agentevals.session_name";
/// What the original groups by when the producer gave no name.
const CONVERSATION: &str = "gen_ai.conversation.id";
const EVAL_SET: &str = "agentevals.eval_set_id";
/// Attributes that a session gets of a resource, and bytes of one of them.
const MOST_METADATA: usize = 64;
const LONGEST_METADATA: usize = 1024;

/// A session's name, and how good it is: a better one moves a trace, of equal ones the first stays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionName {
    /// 1 the trace's own, 2 to 7 a conversation's or session's, 8 one that the producer gave for this dialect. 9 is a WebSocket's, which nothing moves.
    pub rank: u8,
    pub name: String,
}

impl SessionName {
    /// The name of a trace that is named by nothing: of an OTel id the beginning.
    pub fn own(trace: &TraceId) -> Self {
        let id = trace.as_str();
        let is_otel = id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
        let short = if is_otel {
            id.get(..12).unwrap_or(id)
        } else {
            id
        };
        Self {
            rank: 1,
            name: format!("otlp-{short}"),
        }
    }
}

/// The best name that a batch of one trace gives its session; `sessions` are the names in it that [`crate::convention::labels`] found.
///
/// A name that the producer gave for this dialect is the best. Of conversations' and sessions' names the outermost step's is better than what lies below it in the batch, and a step without a parent is known
/// to be the outermost: so a sub-agent that has a conversation of its own does not take its trace away, and where its batch came first, the root's brings the trace back. Of one step's names a
/// conversation's is better than a session's, as in the original; of equal ones the one that began first.
///
/// Asked for every batch on its way in: where nobody named a session it reads no event.
pub fn session_name<'a>(
    events: impl IntoIterator<Item = &'a Incoming> + Clone,
    sessions: &[String],
) -> Option<SessionName> {
    let mut known: Option<&Arc<Context>> = None;
    for incoming in events.clone() {
        if known.is_some_and(|known| Arc::ptr_eq(known, &incoming.context)) {
            continue;
        }
        known = Some(&incoming.context);
        if let Some(name) = Attributes::new(&incoming.context.resource).text(SESSION_NAME)
            && !label_text(&name).is_empty()
        {
            return Some(SessionName {
                rank: 8,
                name: label_text(&name).to_owned(),
            });
        }
    }
    // All of a batch usually name the same one: then only its rank is to be found.
    if sessions.is_empty() {
        return None;
    }
    let heads: Vec<Head> = events.into_iter().filter_map(head).collect();
    let ids: HashSet<&[u8]> = heads.iter().map(|head| head.id).collect();
    let mut best: Option<(u8, Reverse<u64>, SessionName)> = None;
    for head in &heads {
        let place = match head.parent {
            _ if !head.is_step => 2,
            [] => 6,
            parent if parent.iter().all(|byte| *byte == 0) => 6,
            parent if ids.contains(parent) => 2,
            _ => 4,
        };
        // Nothing that it says can be better.
        if best
            .as_ref()
            .is_some_and(|(rank, began, _)| (place + 1, Reverse(head.start_ns)) <= (*rank, *began))
        {
            continue;
        }
        let Some((is_conversation, name)) = head.name() else {
            continue;
        };
        let rank = place + u8::from(is_conversation);
        let began = Reverse(head.start_ns);
        if best
            .as_ref()
            .is_none_or(|(other, since, _)| (rank, began) > (*other, *since))
        {
            best = Some((rank, began, SessionName { rank, name }));
        }
    }
    // What names a session in a structure of its own (`metadata`) is not looked for again.
    let first = || {
        let name = sessions.first()?.clone();
        Some(SessionName { rank: 2, name })
    };
    best.map(|(_, _, name)| name).or_else(first)
}

/// What of an event tells where it stands and what it names, unread.
struct Head<'a> {
    id: &'a [u8],
    parent: &'a [u8],
    start_ns: u64,
    /// A step, not a record of something in it.
    is_step: bool,
    names: Names<'a>,
}

enum Names<'a> {
    /// Attributes on the wire whose name is that of a session, each with the place of that name among all.
    Wire(Vec<(usize, &'a [u8])>),
    Native(String),
}

impl Head<'_> {
    /// The name by the first of the keys that says one, and whether it is a conversation's.
    fn name(&self) -> Option<(bool, String)> {
        let wire = match &self.names {
            Names::Native(name) => return Some((false, name.clone())),
            Names::Wire(wire) => wire,
        };
        let conversation = wire.iter().filter(|(at, _)| is_conversation(*at));
        let sessions = wire.iter().filter(|(at, _)| !is_conversation(*at));
        for (at, bytes) in conversation.chain(sessions) {
            let Ok(pair) = KeyValue::decode(*bytes) else {
                continue;
            };
            let pair = [pair];
            let name = Attributes::new(&pair).text(pair[0].key.as_str());
            let name = name.as_deref().map(label_text).unwrap_or_default();
            if !name.is_empty() {
                return Some((is_conversation(*at), name.to_owned()));
            }
        }
        None
    }
}

fn is_conversation(at: usize) -> bool {
    convention::session_keys().get(at) == Some(&CONVERSATION)
}

fn head(incoming: &Incoming) -> Option<Head<'_>> {
    // The numbers of the fields in `trace.proto` and `logs.proto`.
    const ID: u32 = 2;
    const PARENT: u32 = 4;
    const START: u32 = 7;
    let (bytes, attributes, is_step) = match &incoming.what {
        Canonical::Span(span) => (&**span, SPAN_ATTRIBUTES, true),
        Canonical::Log(bytes) => (bytes, LOG_ATTRIBUTES, false),
        Canonical::Native(json) => return native_head(json),
    };
    let mut names = Vec::new();
    let mut head = Head {
        id: &[],
        parent: &[],
        start_ns: 0,
        is_step,
        names: Names::Wire(Vec::new()),
    };
    let mut fields = Fields(bytes);
    while let Ok(Some((number, raw))) = fields.next() {
        match (number, raw) {
            (ID, Raw::Bytes(id)) if is_step => head.id = id,
            (PARENT, Raw::Bytes(parent)) if is_step => head.parent = parent,
            (START, raw @ Raw::Fixed64(_)) if is_step => head.start_ns = raw.uint64(),
            (number, Raw::Bytes(attribute)) if number == attributes => {
                names.extend(session_key(attribute).map(|at| (at, attribute)));
            }
            _ => {}
        }
    }
    names.sort_by_key(|(at, _)| *at);
    head.names = Names::Wire(names);
    Some(head)
}

/// The place of an attribute's name among those that name sessions.
fn session_key(attribute: &[u8]) -> Option<usize> {
    let Ok(Some((1, Raw::Bytes(key)))) = Fields(attribute).next() else {
        return None;
    };
    let keys = convention::session_keys();
    keys.iter().position(|known| known.as_bytes() == key)
}

/// Native events are flat: what names a session stands on the outside.
fn native_head(json: &str) -> Option<Head<'static>> {
    #[derive(Deserialize)]
    struct Named {
        session_id: Option<Value>,
    }
    let named = serde_json::from_str::<Named>(json).ok()?.session_id?;
    let name = match &named {
        Value::String(name) => label_text(name).to_owned(),
        Value::Number(number) => number.to_string(),
        _ => return None,
    };
    (!name.is_empty()).then_some(Head {
        id: &[],
        parent: b"?",
        start_ns: 0,
        is_step: true,
        names: Names::Native(name),
    })
}

/// The eval set of a session (empty: none) and its metadata, a JSON object of the scalar attributes of a resource, as far as a level records them.
pub fn session_details(context: &Context, level: Verbosity) -> (String, String) {
    let lowered;
    let context = match level {
        Verbosity::Debug => context,
        level => {
            lowered = lower::marked(context, level);
            &lowered
        }
    };
    let attributes = Attributes::new(&context.resource);
    let eval_set = attributes.text(EVAL_SET).unwrap_or_default();
    let scalars = context.resource.iter().filter(|pair| is_scalar(pair));
    let metadata: Map<String, Value> = scalars
        .take(MOST_METADATA)
        .filter_map(|pair| Some((pair.key.to_string(), to_json(pair.value.as_ref()?))))
        .collect();
    let eval_set = label_text(&eval_set).to_owned();
    (eval_set, Value::Object(metadata).to_string())
}

fn is_scalar(pair: &KeyValue) -> bool {
    let value = pair.value.as_ref().and_then(|value| value.value.as_ref());
    !pair.key.starts_with(OWN)
        && pair.key.len() <= LONGEST_METADATA
        && match value {
            Some(any_value::Value::String(text)) => text.len() <= LONGEST_METADATA,
            Some(
                any_value::Value::Bool(_) | any_value::Value::Int(_) | any_value::Value::Double(_),
            ) => true,
            _ => false,
        }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observed::What;
    use crate::wire;

    fn pair(key: &str, value: &str) -> KeyValue {
        KeyValue {
            key: key.into(),
            value: Some(wire::AnyValue {
                value: Some(any_value::Value::String(value.into())),
            }),
        }
    }

    /// A span `id` under `parent` (0: none) that starts at `id`, with one attribute.
    fn span(id: u8, parent: u8, key: &str, value: &str) -> Incoming {
        let parent_span_id = match parent {
            0 => vec![],
            parent => vec![parent; 8],
        };
        incoming(&What::Span(Arc::new(wire::Span {
            span_id: vec![id; 8].into(),
            parent_span_id: parent_span_id.into(),
            start_time_unix_nano: u64::from(id),
            attributes: vec![pair("gen_ai.request.model", "m"), pair(key, value)],
            ..wire::Span::default()
        })))
    }

    fn incoming(what: &What) -> Incoming {
        Incoming {
            context: Arc::default(),
            what: Canonical::from(what),
            identity: None,
            may_end_run: false,
            trace_level: Verbosity::Debug,
        }
    }

    #[track_caller]
    fn check(events: &[Incoming], expected: Option<(u8, &str)>) {
        let labels = convention::labels(events);
        let named = session_name(events, &labels.sessions);
        let named = named
            .as_ref()
            .map(|named| (named.rank, named.name.as_str()));
        assert_eq!(named, expected);
    }

    #[test]
    fn the_outermost_step_names_the_session() {
        const CONVERSATION: &str = "gen_ai.conversation.id";
        check(&[], None);
        check(&[span(1, 0, "hue", "red")], None);
        // Sub-agents that have conversations of their own, exported before and with the root.
        let sub = span(3, 2, CONVERSATION, "sub");
        let agent = span(2, 1, "hue", "red");
        let root = span(1, 0, "session.id", "all");
        check(std::slice::from_ref(&sub), Some((5, "sub")));
        check(&[sub.clone(), agent.clone()], Some((3, "sub")));
        check(&[sub.clone(), agent, root.clone()], Some((6, "all")));
        check(&[sub, span(1, 0, CONVERSATION, "all")], Some((7, "all")));
        // Of two that stand equally the one that began first.
        let later = span(9, 1, CONVERSATION, "late");
        check(
            &[later, span(4, 1, CONVERSATION, "early")],
            Some((5, "early")),
        );
        let mut both = root;
        if let What::Span(mut span) = both.what.read() {
            Arc::make_mut(&mut span)
                .attributes
                .push(pair(CONVERSATION, "talk"));
            both.what = Canonical::from(&What::Span(span));
        }
        check(&[both], Some((7, "talk")));
    }

    #[test]
    fn other_events_name_sessions_too() {
        check(
            &[incoming(&What::Native(
                r#"{"event_type":"x","session_id":7}"#.into(),
            ))],
            Some((4, "7")),
        );
        check(
            &[span(1, 0, "metadata", r#"{"thread_id":"t"}"#)],
            Some((2, "t")),
        );
        let mut given = span(1, 0, "session.id", "s");
        given.context = Arc::new(Context {
            resource: vec![pair(SESSION_NAME, " mine ")],
            ..Context::default()
        });
        check(&[given], Some((8, "mine")));
    }
}
