//! Why a span is shown as it is: the rule that read it, the attributes that told each fact, and everything its producer sent.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serde_json::{
    Value,
    value::{RawValue, to_raw_value},
};

use crate::{
    attributes,
    convention::{self, rules, told},
    event::{self, Event, rfc3339_ms},
    fold::{Rank, rank, shorten},
    id::{TraceId, hex},
    observed::{Context, Recorded, What},
    run::native_step_ids,
    tree::Row,
    verbosity,
};

/// Observations of one span that are shown; a span that was sent more often is shown with its first and its last ones.
const MOST: usize = 50;
/// Bytes of what the producer sent that are shown of all observations together; the one that holds is shown whole, however large.
const MOST_BYTES: usize = 4 << 20;
/// Shown of a name.
const NAME_BYTES: usize = 1 << 10;

/// Collects what a trace's events say about one span.
#[derive(Debug)]
pub struct Collector {
    trace: TraceId,
    /// As it was asked for: a native event's span has any name.
    asked: String,
    span_id: String,
    with_attributes: bool,
    observations: Vec<Observed>,
    /// Of all observations that are shown with what was sent.
    bytes: usize,
    left_out: u64,
    log_records: Vec<Record>,
    native_events: Vec<Record>,
    unreadable_events: u64,
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
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Explanation {
    pub trace_id: String,
    pub span_id: String,
    /// The rule that read the observation that holds, or that made the span of what else tells of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<RuleShown>,
    /// The span's row in the trace's tree; absent when it is none of the spans that a trace of such length shows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub row: Option<Row>,
    /// Of an estimated span: the spans right below it, which tell of it; the first ones.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub told_by: Vec<String>,
    /// Rules that were asked before it and did not know the span, in their order.
    pub passed_over: Vec<&'static str>,
    /// Of each fact: the attributes that told it; `(name)`, `(status)` and `(event ...)` are parts of the span itself.
    #[cfg_attr(feature = "openapi", schema(value_type = std::collections::BTreeMap<String, Vec<String>>))]
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
    /// Events of the trace that cannot be read any more: some may have been about this span.
    #[serde(skip_serializing_if = "is_zero")]
    pub unreadable_events: u64,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// A rule, for who wants to check it: docs/conventions.md has all of them.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RuleShown {
    pub name: Cow<'static, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub written_by: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub looks_for: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reference: Option<&'static str>,
}

/// One observation of the span.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Observed {
    pub seq: u64,
    #[cfg_attr(feature = "openapi", schema(format = DateTime))]
    pub arrived_at: String,
    /// Of several, this one counts: an end before none, then the later end, then the later word.
    pub holds: bool,
    pub rule: &'static str,
    #[cfg_attr(feature = "openapi", schema(value_type = crate::model::Kind))]
    pub kind: &'static str,
    #[cfg_attr(feature = "openapi", schema(value_type = crate::model::StepStatus))]
    pub status: &'static str,
    pub name: String,
    /// The scope's name and version.
    pub scope: Scope,
    /// What the producer sent: as it came, and not in an answer without attributes.
    #[serde(flatten)]
    #[cfg_attr(feature = "openapi", schema(value_type = Sent))]
    pub sent: Option<Sent>,
    /// Bytes of what the producer sent that are not shown, because other observations have filled the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_left_out: Option<usize>,
}

/// Whose instrumentation made an observation.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Scope {
    pub name: String,
    pub version: String,
}

/// An observation in its producer's words.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Sent {
    #[cfg_attr(feature = "openapi", schema(value_type = Object, required = false))]
    pub attributes: Box<RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<Vec<Object>>))]
    pub span_events: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<Object>))]
    pub resource: Option<Box<RawValue>>,
    #[cfg_attr(feature = "openapi", schema(value_type = Object, required = false))]
    pub scope_attributes: Box<RawValue>,
}

impl Sent {
    /// `None` when it has none, as in a view without attributes.
    fn of(shown: &Event, context: &Context) -> Option<Self> {
        // Values that were made of what was decoded can always be written.
        let raw = |value: Option<&Value>| to_raw_value(value?).ok();
        Some(Self {
            attributes: raw(shown.attributes.as_ref())?,
            span_events: raw(shown.span_events.as_ref()),
            resource: raw(shown.resource.as_ref()),
            scope_attributes: raw(Some(&attributes::list_to_json(&context.scope.attributes)))?,
        })
    }

    fn bytes(&self) -> usize {
        let optional = [&self.span_events, &self.resource];
        let optional = optional.into_iter().flatten();
        let all = [&self.attributes, &self.scope_attributes]
            .into_iter()
            .chain(optional);
        all.map(|part| part.get().len()).sum()
    }
}

/// A log record or native event that names the span.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
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
            asked: span_id.to_owned(),
            // As the forms of one OTel id are one.
            span_id: match is_hex {
                true => span_id.to_ascii_lowercase(),
                false => span_id.to_owned(),
            },
            with_attributes,
            observations: Vec::new(),
            bytes: 0,
            left_out: 0,
            log_records: Vec::new(),
            native_events: Vec::new(),
            unreadable_events: 0,
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
                            event_type: shorten(
                                log.event_name.unwrap_or_else(|| "log".to_owned()),
                                NAME_BYTES,
                            ),
                            rule: log.rule,
                            has_content,
                        },
                    );
                }
            }
            What::Native(text) => {
                // Read whole: an id may be written with escapes, or as a number.
                let event = convention::read_native(text, recorded.arrived_unix_ms);
                let is_named = match event.span_id.as_deref() {
                    Some(id) => id == self.asked || id == self.span_id,
                    None => {
                        let call = event.call_id.as_deref();
                        let (of_call, own) = native_step_ids(&event.event_type, call, recorded.seq);
                        own == self.asked || of_call.as_ref() == Some(&self.asked)
                    }
                };
                if is_named {
                    let has_content = event.inputs.is_some() || event.outputs.is_some();
                    push(
                        &mut self.native_events,
                        Record {
                            seq: recorded.seq,
                            event_type: shorten(event.event_type, NAME_BYTES),
                            rule: "native",
                            has_content,
                        },
                    );
                }
            }
        }
    }

    fn add(&mut self, recorded: &Recorded, context: &Context, why: convention::Why) {
        let shown = verbosity::debug(match self.with_attributes {
            true => event::view_with_attributes(&self.trace, recorded),
            false => event::view(&self.trace, recorded),
        });
        let sent = Sent::of(&shown, context);
        let bytes = sent.as_ref().map_or(0, Sent::bytes);
        let observed = Observed {
            seq: recorded.seq,
            arrived_at: rfc3339_ms(recorded.arrived_unix_ms),
            holds: false,
            rule: why.span.rule,
            kind: why.span.kind.as_str(),
            status: shown.status.unwrap_or_default(),
            name: shorten(why.span.name.clone(), NAME_BYTES),
            scope: Scope {
                name: shorten(context.scope.name.clone(), NAME_BYTES),
                version: shorten(context.scope.version.clone(), NAME_BYTES),
            },
            sent,
            bytes_left_out: None,
        };
        self.bytes += bytes;
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
        self.keep_within_bounds();
    }

    /// Leaves out what does not hold: first the words of all, the first observation last, then whole observations from the middle.
    fn keep_within_bounds(&mut self) {
        let held = self.best.as_ref().map(|(_, best)| best.seq);
        if self.observations.len() > MOST {
            let does_not_hold = |observed: &Observed| Some(observed.seq) != held;
            let middle = self.observations.iter().skip(MOST / 2);
            if let Some(at) = middle.clone().position(does_not_hold) {
                let gone = self.observations.remove(MOST / 2 + at);
                self.bytes -= gone.sent.as_ref().map_or(0, Sent::bytes);
                self.left_out += 1;
            }
        }
        // From the second on, the first after all others.
        let count = self.observations.len();
        for at in (1..count).chain(0..1) {
            if self.bytes <= MOST_BYTES {
                return;
            }
            let Some(observed) = self.observations.get_mut(at) else {
                return;
            };
            if Some(observed.seq) != held
                && let Some(sent) = observed.sent.take()
            {
                let bytes = sent.bytes();
                self.bytes -= bytes;
                observed.bytes_left_out = Some(bytes);
            }
        }
    }

    /// So many events cannot be read.
    pub fn miss(&mut self, events: u64) {
        self.unreadable_events += events;
    }

    /// `tree`: the trace's rows. `None`: nothing in the trace names the span.
    pub fn finish(mut self, tree: Vec<Row>) -> Option<Explanation> {
        let told_by = tree
            .iter()
            .filter(|row| row.parent_span_id.as_ref() == Some(&self.span_id))
            .map(|row| row.span_id.clone())
            .take(MOST)
            .collect();
        let mut tree = tree.into_iter();
        let row = tree.find(|row| row.span_id == self.span_id || row.span_id == self.asked);
        if row.is_none()
            && self.best.is_none()
            && self.log_records.is_empty()
            && self.native_events.is_empty()
        {
            return None;
        }
        let best = self.best.take().map(|(_, best)| best);
        let (mut passed_over, mut read_from, mut event) = Default::default();
        let mut rule = row.as_ref().map(|row| row.convention.clone());
        if let Some(best) = best {
            for observed in &mut self.observations {
                observed.holds = observed.seq == best.seq;
            }
            rule = Some(Cow::Borrowed(best.event.convention));
            passed_over = best.passed_over;
            read_from = best.read_from;
            event = Some(best.event);
        }
        Some(Explanation {
            trace_id: self.trace.as_str().to_owned(),
            span_id: match &row {
                Some(row) => row.span_id.clone(),
                None => self.span_id,
            },
            rule: rule.map(RuleShown::of),
            told_by: match &row {
                Some(row) if row.estimated => told_by,
                _ => Vec::new(),
            },
            row,
            passed_over,
            read_from,
            event,
            observations: self.observations,
            left_out: self.left_out,
            log_records: self.log_records,
            native_events: self.native_events,
            unreadable_events: self.unreadable_events,
        })
    }
}

impl RuleShown {
    fn of(name: Cow<'static, str>) -> Self {
        let known = rules().iter().find(|rule| rule.name == name);
        Self {
            written_by: known.map(|rule| rule.written_by),
            looks_for: known.map(|rule| rule.looks_for),
            reference: known.map(|rule| rule.reference),
            name,
        }
    }
}

/// A span has few records; one that has more than are shown is not better explained by them.
fn push(records: &mut Vec<Record>, record: Record) {
    if records.len() < 20 * MOST {
        records.push(record);
    }
}
