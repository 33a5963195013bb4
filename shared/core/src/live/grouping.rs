//! Into which live session an exported trace goes: by the best name that a batch gives it.

use std::sync::Arc;

use serde_json::{Map, Value};

use crate::attributes::{Attributes, to_json};
use crate::id::TraceId;
use crate::listing::label_text;
use crate::lower;
use crate::observed::{Context, Incoming};
use crate::verbosity::Verbosity;
use crate::wire::{KeyValue, any_value};

/// Resource attributes that are about the session itself begin with this.
const OWN: &str = "agentevals.";
const SESSION_NAME: &str = "agentevals.session_name";
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
pub fn session_name(events: &[Incoming], sessions: &[String]) -> Option<SessionName> {
    let mut known: Option<&Arc<Context>> = None;
    for incoming in events {
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
    sessions.first().map(|name| SessionName {
        rank: 2,
        name: name.clone(),
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
        .filter_map(|pair| Some((pair.key.clone(), to_json(pair.value.as_ref()?))))
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
