//! Why a span is shown as it is: the rule that read it, the attributes that told each fact, and everything its producer sent.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serde_json::Value;

use crate::{
    attributes,
    convention::{self, rules, told},
    event::{self, Event, rfc3339_ms},
    fold::{Rank, rank},
    id::{TraceId, hex},
    observed::{Recorded, What},
};

/// Observations of one span that are shown; a span that was sent more often is shown with its first and its last ones.
const MOST: usize = 50;

/// Collects what a trace's events say about one span.
#[derive(Debug)]
pub struct Collector {
    trace: TraceId,
    span_id: String,
    with_attributes: bool,
    observations: Vec<Observed>,
    left_out: u64,
    log_records: Vec<Record>,
    native_events: Vec<Record>,
    best: Option<(Rank, Best)>,
}

#[derive(Debug)]
struct Best {
    event: Event,
    seq: u64,
    passed_over: Vec<&'static str>,
    read_from: BTreeMap<&'static str, BTreeSet<String>>,
}

/// The answer of `GET /traces/{trace_id}/spans/{span_id}/why`.
#[derive(Clone, Debug, Serialize)]
pub struct Explanation {
    pub trace_id: String,
    pub span_id: String,
    /// The rule that read the observation that holds; absent when only log records or native events speak of the span.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<RuleShown>,
    /// Rules that were asked before it and did not know the span, in their order.
    pub passed_over: Vec<&'static str>,
    /// Of each fact: the attributes that told it; `(name)`, `(status)` and `(event ...)` are parts of the span itself.
    pub read_from: BTreeMap<&'static str, BTreeSet<String>>,
    /// How the span is shown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub event: Option<Event>,
    /// All that was sent of the span, as it came.
    pub observations: Vec<Observed>,
    /// Observations between the first and the last ones that are not shown.
    pub left_out: u64,
    /// Log records that name the span: its messages may stand in them.
    pub log_records: Vec<Record>,
    pub native_events: Vec<Record>,
}

/// A rule, for who wants to check it: docs/conventions.md has all of them.
#[derive(Clone, Debug, Serialize)]
pub struct RuleShown {
    pub name: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub written_by: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub looks_for: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reference: Option<&'static str>,
}

/// One observation of the span.
#[derive(Clone, Debug, Serialize)]
pub struct Observed {
    pub seq: u64,
    pub arrived_at: String,
    /// Of several, this one counts: an end before none, then the later end, then the later word.
    pub holds: bool,
    pub rule: &'static str,
    pub kind: &'static str,
    pub status: &'static str,
    pub name: String,
    pub scope: Value,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attributes: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub span_events: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resource: Option<Value>,
}

/// A log record or native event that names the span.
#[derive(Clone, Debug, Serialize)]
pub struct Record {
    pub seq: u64,
    pub event_type: String,
    pub rule: &'static str,
    /// It has messages of the span.
    pub has_content: bool,
}

impl Collector {
    /// Of one span; without attributes the answer stays short.
    pub fn new(trace: TraceId, span_id: &str, with_attributes: bool) -> Self {
        let is_hex = span_id.bytes().all(|digit| digit.is_ascii_hexdigit());
        Self {
            trace,
            // As the forms of one OTel id are one.
            span_id: match is_hex {
                true => span_id.to_ascii_lowercase(),
                false => span_id.to_owned(),
            },
            with_attributes,
            observations: Vec::new(),
            left_out: 0,
            log_records: Vec::new(),
            native_events: Vec::new(),
            best: None,
        }
    }

    /// Takes in the next event of the trace.
    pub fn take(&mut self, recorded: &Recorded) {
        let (observation, is_partial) = told(&recorded.observation);
        match &observation.what {
            What::Span(span) => {
                // A copy that announces a span carries its id as the parent's.
                let named = hex(&span.span_id) == self.span_id;
                if !named && hex(&span.parent_span_id) != self.span_id {
                    return;
                }
                let mut why = convention::why(span, &observation.context);
                if why.span.id != self.span_id {
                    return;
                }
                if is_partial {
                    why.span.rule = convention::PARTIAL;
                }
                self.add(recorded, &observation.context, why);
            }
            What::Log(record) => {
                if hex(&record.span_id) == self.span_id {
                    let log = convention::read_log(record, &observation.context);
                    let has_content = !log.input.is_empty() || !log.output.is_empty();
                    push(
                        &mut self.log_records,
                        Record {
                            seq: recorded.seq,
                            event_type: log.event_name.unwrap_or_else(|| "log".to_owned()),
                            rule: log.rule,
                            has_content,
                        },
                    );
                }
            }
            What::Native(text) => {
                if !text.contains(&self.span_id) {
                    return;
                }
                let event = convention::read_native(text, recorded.arrived_unix_ms);
                if event.span_id.as_ref() == Some(&self.span_id) {
                    let has_content = event.inputs.is_some() || event.outputs.is_some();
                    push(
                        &mut self.native_events,
                        Record {
                            seq: recorded.seq,
                            event_type: event.event_type,
                            rule: "native",
                            has_content,
                        },
                    );
                }
            }
        }
    }

    fn add(
        &mut self,
        recorded: &Recorded,
        context: &crate::observed::Context,
        why: convention::Why,
    ) {
        let shown = match self.with_attributes {
            true => event::view_with_attributes(&self.trace, recorded),
            false => event::view(&self.trace, recorded),
        };
        let observed = Observed {
            seq: recorded.seq,
            arrived_at: rfc3339_ms(recorded.arrived_unix_ms),
            holds: false,
            rule: why.span.rule,
            kind: why.span.kind.as_str(),
            status: shown.status.unwrap_or_default(),
            name: why.span.name.clone(),
            scope: serde_json::json!({
                "name": context.scope.name,
                "version": context.scope.version,
                "attributes": attributes::list_to_json(&context.scope.attributes),
            }),
            attributes: shown.attributes.clone(),
            span_events: shown.span_events.clone(),
            resource: shown.resource.clone(),
        };
        if self.observations.len() >= MOST {
            self.observations.remove(MOST / 2);
            self.left_out += 1;
        }
        self.observations.push(observed);
        let rank = rank(why.span.end_ns, recorded.seq);
        if self.best.as_ref().is_none_or(|(best, _)| rank > *best) {
            let best = Best {
                event: Event {
                    attributes: None,
                    span_events: None,
                    resource: None,
                    ..shown
                },
                seq: recorded.seq,
                passed_over: why.passed_over,
                read_from: why.read_from,
            };
            self.best = Some((rank, best));
        }
    }

    /// `None`: nothing in the trace names the span.
    pub fn finish(mut self) -> Option<Explanation> {
        if self.best.is_none() && self.log_records.is_empty() && self.native_events.is_empty() {
            return None;
        }
        let best = self.best.take().map(|(_, best)| best);
        let (mut rule, mut passed_over, mut read_from, mut event) = Default::default();
        if let Some(best) = best {
            for observed in &mut self.observations {
                observed.holds = observed.seq == best.seq;
            }
            let name = best.event.convention;
            let known = rules().iter().find(|rule| rule.name == name);
            rule = Some(RuleShown {
                name,
                written_by: known.map(|rule| rule.written_by),
                looks_for: known.map(|rule| rule.looks_for),
                reference: known.map(|rule| rule.reference),
            });
            passed_over = best.passed_over;
            read_from = best.read_from;
            event = Some(best.event);
        }
        Some(Explanation {
            trace_id: self.trace.as_str().to_owned(),
            span_id: self.span_id,
            rule,
            passed_over,
            read_from,
            event,
            observations: self.observations,
            left_out: self.left_out,
            log_records: self.log_records,
            native_events: self.native_events,
        })
    }
}

/// A span has few records; one that has more than are shown is not better explained by them.
fn push(records: &mut Vec<Record>, record: Record) {
    if records.len() < 20 * MOST {
        records.push(record);
    }
}
