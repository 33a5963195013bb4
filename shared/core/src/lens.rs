//! What one reader gets to see of a trace's events: which ones, how much of each, in which form. The same for a list, a stream, a live and a stored trace.

use serde_json::Value;

use crate::event::{self, Event};
use crate::feed::Happened;
use crate::format::{self, Format};
use crate::id::TraceId;
use crate::observed::Recorded;
use crate::pricing::Prices;
use crate::verbosity::{self, Verbosity};

/// Which events, how much, in which form. Cheap to compare: readers with equal lenses share what was made for one of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Lens {
    pub level: Verbosity,
    /// `None`: our own form (docs/protocol.md, "Events").
    pub format: Option<Format>,
    pub filter: Filter,
    /// At `debug`: without the producer's own words, which repeat in the attributes what the event tells, often many times over.
    pub without_attributes: bool,
    /// At `debug`: the `input` of a model call is all that it was sent, not only what is new in it.
    pub with_history: bool,
}

/// Which events; what is empty or `None` lets all pass.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Filter {
    pub event_types: Vec<String>,
    /// A step, by its id (a span's, a component's) or its name.
    pub component: Option<String>,
    /// An agent, by its id or its name.
    pub agent: Option<String>,
}

impl Filter {
    /// Every event passes.
    pub fn is_open(&self) -> bool {
        self.event_types.is_empty() && self.component.is_none() && self.agent.is_none()
    }

    fn lets_pass(&self, event: &Event) -> bool {
        let is = |wanted: &Option<String>, told: &[Option<&str>]| {
            wanted
                .as_deref()
                .is_none_or(|wanted| told.contains(&Some(wanted)))
        };
        let component = event.details.get("component_id").and_then(Value::as_str);
        let types = &self.event_types;
        (types.is_empty() || names(types, &event.event_type))
            && is(
                &self.component,
                &[event.span_id.as_deref(), event.name.as_deref(), component],
            )
            && is(
                &self.agent,
                &[Some(&event.agent_id), event.agent_name.as_deref()],
            )
    }
}

impl Lens {
    /// What there is to see of an observation. `None`: it is filtered out, or the level does not tell of it.
    pub fn event(&self, trace: &TraceId, recorded: &Recorded, prices: &Prices) -> Option<Event> {
        let mut event = match self.level {
            Verbosity::Debug if !self.without_attributes => {
                event::view_with_attributes(trace, recorded)
            }
            _ => event::view(trace, recorded),
        };
        if !self.filter.lets_pass(&event) {
            return None;
        }
        if self.with_history
            && self.level == Verbosity::Debug
            && let Some(history) = event::history(recorded)
        {
            event.input = Some(history);
        }
        event.cost_usd = event::cost_usd(&event, prices);
        // Who asks for a type by its name is shown that there are such events, whatever the level; it says what is told of them.
        match self.filter.event_types.is_empty() {
            true => verbosity::show(event, self.level),
            false => Some(verbosity::as_told(event, self.level)),
        }
    }

    /// As [`Lens::event`], as one line of JSON in the form asked for.
    pub fn line(&self, trace: &TraceId, recorded: &Recorded, prices: &Prices) -> Option<String> {
        let event = self.event(trace, recorded, prices)?;
        Some(match self.format {
            None => json(&event),
            Some(format) => json(&format::event(&event, format)),
        })
    }

    /// As [`Lens::line`], as the data of a frame of a stream: a format's event stands in its envelope.
    pub fn frame(&self, trace: &TraceId, recorded: &Recorded, prices: &Prices) -> Option<String> {
        let event = self.event(trace, recorded, prices)?;
        Some(match self.format {
            None => json(&event),
            Some(format) => json(&format::frame(&event, format)),
        })
    }
}

impl Lens {
    /// What happened to a trace as the data of a frame, if this reader wants to know: one who looks for agents, steps or event types is told of those only.
    ///
    /// Nobody is told of live sessions here: those have a stream of their own, and each trace would be told of twice.
    pub fn happened(&self, happened: &Happened, trace_id: &str, timestamp: &str) -> Option<String> {
        if matches!(happened, Happened::Session { .. }) {
            return None;
        }
        let name = happened.event_type();
        let is_wanted = match self.filter.event_types.as_slice() {
            [] => self.filter.is_open(),
            types => names(types, name),
        };
        let told = happened.told(trace_id, timestamp);
        is_wanted.then(|| match self.format {
            None => json(&told),
            Some(_) => json(&serde_json::json!({"event": name, "data": told})),
        })
    }
}

/// `*` names every type: all events, and of each no more than the level tells.
fn names(wanted: &[String], event_type: &str) -> bool {
    wanted
        .iter()
        .any(|wanted| wanted == event_type || wanted == "*")
}

/// Our own values have text keys and finite numbers: they can be written.
fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).unwrap_or_else(|_| "{}".to_owned())
}
