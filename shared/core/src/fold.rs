//! Events to state: what a trace is so far, the same whatever the order in which its events came.
//!
//! Every part of the state is a set that only grows, or the greatest of several versions, so applying commutes. Nothing here looks
//! at the tree; `run` does, when somebody asks.

mod counted;
mod kept;
mod said;

use std::borrow::Cow;
use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use self::counted::Counted;
use self::kept::Kept;
pub(crate) use self::said::{
    Line, Said, answer_in, digest, digest_step, question_in, shorten, text_hash,
};
use self::said::{MAX_ARGUMENT_BYTES, MAX_RESULT_BYTES, arguments, failure, name};
use crate::convention::{self, begins_run, ends_run};
use crate::eval::record;
use crate::event;
use crate::lower;
use crate::model::{Ancestor, Failure, Kind, Span, Tool, ToolKind, Usage};
use crate::observed::{Recorded, What};
use crate::verbosity::Verbosity;

/// Bump when the form of [`State`] changes.
const FORMAT: u8 = 8;
/// Bump when a convention is read differently: older snapshots are folded anew.
const MAPPER: u8 = 6;
/// Results of evaluations that are known again.
const MAX_EVALUATED: usize = 10_000;
/// Decompressed size beyond which a snapshot is not one of ours.
const MAX_SNAPSHOT_BYTES: usize = 256 << 20;

/// What a trace is so far.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// Events applied.
    pub events: u64,
    /// The greatest sequence number applied: what `as_of_seq` says.
    pub last_seq: u64,
    /// Arrival of the first and the last event, milliseconds since 1970; 0 when there is none.
    pub first_arrival_unix_ms: u64,
    pub last_arrival_unix_ms: u64,
    /// Spans, log records with content and native events: of each the first by key, as many as there is room for.
    pub(crate) spans: Kept<SpanFacts>,
    pub(crate) logs: Kept<LogFacts>,
    pub(crate) natives: Kept<NativeFacts>,
    /// Native events that begin or end a run: apart, so that no flood of others pushes them out.
    pub(crate) run_natives: Kept<NativeFacts>,
    /// How often each event type came.
    pub(crate) event_types: Counted,
    /// The greatest sequence number of an event that is no result of an evaluation.
    #[serde(default)]
    told_through: u64,
    /// Keys of the results that Tailspan wrote: of those that there are the first by key, as many as are kept.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    evaluated: BTreeSet<u64>,
    /// The least that was recorded of any of the events; `None`: everything of all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) trace_level: Option<Verbosity>,
}

/// What is kept of a span.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct SpanFacts {
    pub seq: u64,
    pub hash: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
    pub name: String,
    pub kind: Kind,
    pub rule: Cow<'static, str>,
    pub start_ns: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_ns: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sessions: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_model: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response_model: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub finish_reasons: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool: Option<ToolFacts>,
    #[serde(default, skip_serializing_if = "Said::is_empty")]
    pub said: Said,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub invocation_id: Option<String>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub made_up: bool,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ancestors: Vec<Ancestor>,
    /// Of model calls and tools: what tells a call that two instrumentations watched.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub scope: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response_id: Option<String>,
    /// Of a model call: from its start to the first piece of its answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_chunk_ns: Option<u64>,
    /// Of a retrieval: how many chunks were found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chunks: Option<u64>,
    /// Of a model call, JSON text: see [`ToolFacts::arguments`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub temperature: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_tokens: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct ToolFacts {
    pub name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub call_id: Option<String>,
    pub kind: ToolKind,
    /// JSON text; the text survives a snapshot unchanged, which a parsed number might not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arguments: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Of the result as JSON: its length, and what tells it from others. 0: not told.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub result_bytes: u64,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub result_hash: u64,
    /// The result as JSON text; when it is too long, an object that says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<String>,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// What is kept of a log record that says more than a line.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct LogFacts {
    pub hash: u64,
    pub seq: u64,
    pub time_ns: u64,
    /// The producer said no time: `time_ns` is the arrival.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub untimed: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub span_id: Option<String>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_whole_call: bool,
    #[serde(default, skip_serializing_if = "Said::is_empty")]
    pub said: Said,
    /// It is an answer, also if it says nothing.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_choice: bool,
    /// Of a message of the assistant: what it is if it is no history but the answer.
    #[serde(default, skip_serializing_if = "Said::is_empty")]
    pub reply: Said,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sessions: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
}

/// What is kept of a native event.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct NativeFacts {
    pub hash: u64,
    pub seq: u64,
    pub event_type: String,
    pub timestamp_ms: u64,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub untimed: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub span_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent_span_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    /// Whole microseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_us: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub call_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub component_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_chunk_ns: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chunks: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool: Option<ToolFacts>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub question: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<String>,
}

impl State {
    /// Takes in one event. Any order of the same events gives the same state; an event must not be applied twice (its count would be).
    pub fn apply(&mut self, recorded: &Recorded) {
        self.events = self.events.saturating_add(1);
        self.last_seq = self.last_seq.max(recorded.seq);
        if record::is_result(&recorded.observation) {
            self.event_types.add(record::EVENT);
            self.evaluated.extend(record::key_of(&recorded.observation));
            if self.evaluated.len() > MAX_EVALUATED {
                self.evaluated.pop_last();
            }
            return;
        }
        self.first_arrival_unix_ms = if self.told_through == 0 {
            recorded.arrived_unix_ms
        } else {
            self.first_arrival_unix_ms.min(recorded.arrived_unix_ms)
        };
        self.last_arrival_unix_ms = self.last_arrival_unix_ms.max(recorded.arrived_unix_ms);
        self.told_through = self.told_through.max(recorded.seq);
        if !matches!(recorded.observation.what, What::Native(_)) {
            let resource = &recorded.observation.context.resource;
            self.lowered_to(lower::asked_by(resource).unwrap_or(Verbosity::Debug));
        }
        let (observation, is_partial) = convention::told(&recorded.observation);
        match &observation.what {
            What::Span(span) => {
                let hash = xxh3_64(&prost::Message::encode_to_vec(span.as_ref()));
                let mut read = convention::read_span(span, &observation.context);
                if is_partial {
                    read.rule = convention::PARTIAL;
                }
                self.event_types.add(event::type_of_span(&read, is_partial));
                let (id, facts) = SpanFacts::of(read, recorded.seq, hash);
                self.spans.add(id, facts, SpanFacts::version);
            }
            What::Log(record) => {
                let hash = xxh3_64(&prost::Message::encode_to_vec(record.as_ref()));
                let mut log = convention::read_log(record, &observation.context);
                let untimed = log.time_ns == 0;
                if untimed {
                    log.time_ns = recorded.arrived_unix_ms.saturating_mul(1_000_000);
                }
                self.event_types
                    .add(&name(event::type_of_log(&log).to_owned()));
                if let Some(mut facts) = LogFacts::of(&log, hash) {
                    (facts.seq, facts.untimed) = (recorded.seq, untimed);
                    let key = format!("{:020}-{:020}-{hash:016x}", facts.time_ns, recorded.seq);
                    self.logs.add(key, facts, |_| ());
                }
            }
            What::Native(text) => {
                let hash = xxh3_64(text.as_bytes());
                let event = convention::read_native(text, recorded.arrived_unix_ms);
                self.lowered_to(lower::native_mark(&event.rest));
                let key = format!(
                    "{:020}-{:020}-{hash:016x}",
                    event.timestamp_ms, recorded.seq
                );
                let facts = NativeFacts::of(event, recorded.seq, hash);
                self.event_types.add(&facts.event_type);
                let kept = if begins_run(&facts.event_type) || ends_run(&facts.event_type) {
                    &mut self.run_natives
                } else {
                    &mut self.natives
                };
                kept.add(key, facts, |_| ());
            }
        }
    }

    /// The last event that tells of the run itself: what comes of evaluations is no part of it.
    pub fn told_through(&self) -> u64 {
        self.told_through
    }

    /// Whether a result of this key ([`record::Evaluated::key`]) was written.
    pub fn has_evaluated(&self, key: u64) -> bool {
        self.evaluated.contains(&key)
    }

    fn lowered_to(&mut self, level: Verbosity) {
        if level < self.trace_level() {
            self.trace_level = Some(level);
        }
    }

    /// The least that was recorded of any event; [`Verbosity::Debug`] is everything.
    pub fn trace_level(&self) -> Verbosity {
        self.trace_level.unwrap_or(Verbosity::Debug)
    }

    /// About what it holds, in bytes of JSON.
    pub fn bytes(&self) -> usize {
        self.spans.bytes() + self.logs.bytes() + self.natives.bytes() + self.run_natives.bytes()
    }

    /// More spans, records or events came than are kept.
    pub fn is_truncated(&self) -> bool {
        self.spans.is_truncated()
            || self.logs.is_truncated()
            || self.natives.is_truncated()
            || self.run_natives.is_truncated()
    }

    /// Nothing holds its calls together: every root is a call to a model or a tool.
    pub(crate) fn is_bare(&self) -> bool {
        let stands = |span: &SpanFacts| match &span.parent {
            None => matches!(span.kind, Kind::Llm | Kind::Tool),
            Some(parent) => self.spans.contains(parent),
        };
        self.spans.len() > 0
            && self.natives.len() == 0
            && self.run_natives.len() == 0
            && self.spans.values().all(stands)
    }

    /// Takes in the steps of another trace and what was said in them; what is counted stays as it is.
    pub(crate) fn absorb(&mut self, other: &Self) {
        self.spans.absorb(&other.spans);
        self.logs.absorb(&other.logs);
    }

    /// All native events by time, then as they came.
    pub(crate) fn natives(&self) -> Vec<&NativeFacts> {
        let mut all: Vec<_> = self.natives.iter().chain(self.run_natives.iter()).collect();
        all.sort_by_key(|(key, _)| key.as_str());
        all.into_iter().map(|(_, facts)| facts).collect()
    }
}

/// See [`rank`].
pub(crate) type Rank = (bool, u64, u64);

/// Which of several observations of a span counts, the greatest: an end before none, then the later end, then the later word.
pub(crate) fn rank(end_ns: Option<u64>, seq: u64) -> Rank {
    (end_ns.is_some(), end_ns.unwrap_or(0), seq)
}

impl SpanFacts {
    fn of(span: Span, seq: u64, hash: u64) -> (String, Self) {
        let said = if span.kind == Kind::Llm {
            digest(&span.input, &span.output)
        } else {
            digest_step(&span)
        };
        let facts = Self {
            seq,
            hash,
            parent: span.parent_id,
            name: name(span.name),
            kind: span.kind,
            rule: Cow::Borrowed(span.rule),
            start_ns: span.start_ns,
            end_ns: span.end_ns,
            failure: span.failure.map(failure),
            agent: span.agent.map(name),
            sessions: span.sessions.into_iter().map(name).collect(),
            user: span.user.map(name),
            service: span.service.map(name),
            provider: span.provider.map(name),
            request_model: span.request_model.map(name),
            response_model: span.response_model.map(name),
            finish_reasons: span.finish_reasons.into_iter().take(16).map(name).collect(),
            usage: span.usage,
            tool: span.tool.map(ToolFacts::of),
            said,
            invocation_id: span.invocation_id.map(name),
            made_up: span.made_up,
            ancestors: span
                .ancestors
                .into_iter()
                .map(|above| Ancestor {
                    name: name(above.name),
                    ..above
                })
                .collect(),
            scope: match span.kind {
                Kind::Llm | Kind::Tool => name(span.scope),
                _ => String::new(),
            },
            response_id: span.response_id.map(name),
            first_chunk_ns: span.time_to_first_chunk_ns,
            chunks: span.retrieval.and_then(|retrieval| retrieval.chunks_total),
            temperature: number(span.parameters.get("temperature")),
            max_tokens: number(span.parameters.get("max_tokens")),
        };
        (span.id, facts)
    }

    fn version(&self) -> (Rank, u64) {
        (rank(self.end_ns, self.seq), self.hash)
    }
}

/// Some write numbers as text.
fn number(parameter: Option<&serde_json::Value>) -> Option<String> {
    let text = match parameter? {
        serde_json::Value::String(text) => text.trim().to_owned(),
        other => other.to_string(),
    };
    text.parse::<f64>()
        .is_ok_and(f64::is_finite)
        .then(|| name(text))
}

impl ToolFacts {
    fn of(tool: Tool) -> Self {
        let told = tool.result.as_ref().map(ToString::to_string);
        let json = told.as_deref().map(str::as_bytes);
        Self {
            result_bytes: json.map_or(0, |json| json.len() as u64),
            result_hash: json.map_or(0, xxh3_64),
            result: tool
                .result
                .as_ref()
                .map(|value| arguments(value, MAX_RESULT_BYTES)),
            name: name(tool.name),
            call_id: tool.call_id.map(name),
            kind: tool.kind,
            arguments: tool
                .arguments
                .as_ref()
                .map(|value| arguments(value, MAX_ARGUMENT_BYTES)),
            target: tool.target.map(name),
        }
    }
}

impl LogFacts {
    /// It holds what a model answered.
    pub(crate) fn answers(&self) -> bool {
        self.is_choice || self.said.answer.is_some() || !self.said.calls.is_empty()
    }

    pub(crate) fn says_nothing(&self) -> bool {
        self.said.is_empty() && self.reply.is_empty() && !self.is_choice
    }

    fn of(log: &crate::model::Log, hash: u64) -> Option<Self> {
        let facts = Self {
            hash,
            time_ns: log.time_ns,
            seq: 0,
            untimed: false,
            span_id: log.span_id.clone(),
            is_whole_call: log.is_whole_call,
            said: digest(&log.input, &log.output),
            is_choice: log.event_name.as_deref() == Some("gen_ai.choice"),
            reply: match log.event_name.as_deref() {
                Some("gen_ai.assistant.message") => digest(&[], &log.input),
                _ => Said::default(),
            },
            agent: log.agent.clone().map(name),
            sessions: log.sessions.iter().cloned().map(name).collect(),
            user: log.user.clone().map(name),
        };
        let says_something = !facts.says_nothing()
            || facts.agent.is_some()
            || !facts.sessions.is_empty()
            || facts.user.is_some();
        says_something.then_some(facts)
    }
}

impl NativeFacts {
    fn of(event: crate::model::Native, seq: u64, hash: u64) -> Self {
        Self {
            hash,
            seq,
            question: event.inputs.as_ref().and_then(question_in),
            answer: event.outputs.as_ref().and_then(answer_in),
            event_type: name(event.event_type),
            timestamp_ms: event.timestamp_ms,
            untimed: event.untimed,
            agent: event.agent_name.or(event.agent_id).map(name),
            span_id: event.span_id.map(name),
            parent_span_id: event.parent_span_id.map(name),
            session: event.session_id.map(name),
            user: event.user_id.map(name),
            name: event.name.map(name),
            failure: event.failure.map(failure),
            duration_us: event.duration_ms.map(|ms| (ms * 1_000.0) as u64),
            model: event.model.map(name),
            provider: event.provider.map(name),
            usage: event.usage,
            call_id: event.call_id.map(name),
            component_id: event.component_id.map(name),
            first_chunk_ns: event.time_to_first_chunk_ns,
            chunks: event.retrieval.and_then(|retrieval| retrieval.chunks_total),
            tool: event.tool.map(ToolFacts::of),
        }
    }
}

/// A snapshot of the state after the events 1 to `through_seq`.
///
/// Form: format version, mapper version, zstd of JSON `[through_seq, state]`.
pub fn encode_snapshot(state: &State, through_seq: u64) -> Vec<u8> {
    let json = serde_json::to_vec(&(through_seq, state)).unwrap_or_default();
    let mut bytes = vec![FORMAT, MAPPER];
    // Level 1: a snapshot is rewritten often and read rarely. What cannot be packed is not recognised later, and folded anew.
    bytes.extend(zstd::bulk::compress(&json, 1).unwrap_or_default());
    bytes
}

/// Reads a snapshot. `None` for another format, another mapper's state or damage: the caller folds anew from the log.
pub fn decode_snapshot(bytes: &[u8]) -> Option<(State, u64)> {
    let [FORMAT, MAPPER, packed @ ..] = bytes else {
        return None;
    };
    let mut json = Vec::new();
    let decoder = zstd::stream::Decoder::new(packed).ok()?;
    std::io::Read::read_to_end(
        &mut std::io::Read::take(decoder, MAX_SNAPSHOT_BYTES as u64),
        &mut json,
    )
    .ok()?;
    let (through_seq, state) = serde_json::from_slice(&json).ok()?;
    Some((state, through_seq))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::observed::{Context, Observation};
    use crate::pricing::Prices;
    use crate::wire;

    fn pair(key: &str, value: &str) -> wire::KeyValue {
        wire::KeyValue {
            key: key.into(),
            value: Some(wire::AnyValue {
                value: Some(wire::any_value::Value::String(value.into())),
            }),
        }
    }

    /// Anything a stranger may send about few spans: versions of one span, cycles, logs before spans, native events.
    fn what() -> impl Strategy<Value = What> {
        let span = (0u8..5, 0u8..6, 0u64..4, 0u64..5, 0usize..6, "[a-c]{0,3}").prop_map(
            |(id, parent, start, end, kind, text)| {
                let kinds = ["chat", "execute_tool", "invoke_agent", "invoke_workflow", "odd", "embeddings"];
                What::Span(Arc::new(wire::Span {
                    span_id: vec![id + 1; 8].into(),
                    parent_span_id: if parent == 0 { vec![].into() } else { vec![parent; 8].into() },
                    name: text.clone(),
                    start_time_unix_nano: start,
                    end_time_unix_nano: end,
                    attributes: vec![
                        pair("gen_ai.operation.name", kinds[kind]),
                        pair("gen_ai.agent.name", &text),
                        pair("gen_ai.usage.input_tokens", "3"),
                        pair("gen_ai.output.messages", r#"[{"role":"assistant","parts":[{"type":"tool_call","name":"t","arguments":{"x":0.1}}]}]"#),
                    ],
                    status: Some(wire::Status {
                        message: text,
                        code: (end % 3) as i32,
                    }),
                    ..wire::Span::default()
                }))
            },
        );
        let log = (0u8..6, 0u64..4, "[a-c]{0,3}").prop_map(|(id, time, text)| {
            What::Log(Arc::new(wire::LogRecord {
                span_id: vec![id; 8].into(),
                time_unix_nano: time,
                event_name: "gen_ai.user.message".to_owned(),
                body: Some(wire::AnyValue {
                    value: Some(wire::any_value::Value::String(text.into())),
                }),
                ..wire::LogRecord::default()
            }))
        });
        let native = (0usize..6, 0u64..4, "[a-c]{0,2}").prop_map(|(kind, time, agent)| {
            let kinds = ["task_started", "task_completed", "tool_call_started", "workflow_failed", "llm_call_completed", "own"];
            let text = format!(
                r#"{{"event_type":"{}","timestamp":{time},"agent_id":"{agent}","elapsed_time":0.3}}"#,
                kinds[kind]
            );
            What::Native(text.into())
        });
        prop_oneof![3 => span, 1 => log, 2 => native]
    }

    fn recorded(whats: Vec<What>) -> Vec<Recorded> {
        whats
            .into_iter()
            .enumerate()
            .map(|(n, what)| Recorded {
                seq: n as u64 + 1,
                arrived_unix_ms: 1_000 + (n as u64 * 7) % 5,
                observation: Observation {
                    context: Arc::new(Context::default()),
                    what,
                },
            })
            .collect()
    }

    fn fold<'a>(events: impl IntoIterator<Item = &'a Recorded>) -> State {
        let mut state = State::default();
        events.into_iter().for_each(|event| state.apply(event));
        state
    }

    proptest! {
        #[test]
        fn any_order_and_any_split_give_the_same_state(
            (events, shuffled) in proptest::collection::vec(what(), 0..24)
                .prop_map(recorded)
                .prop_flat_map(|events| (Just(events.clone()), Just(events).prop_shuffle())),
            split in 0usize..24,
        ) {
            let whole = fold(&events);
            prop_assert_eq!(&fold(&shuffled), &whole);
            let (before, after) = shuffled.split_at(split.min(shuffled.len()));
            let (mut state, through) = decode_snapshot(&encode_snapshot(&fold(before), 5)).expect("our own");
            prop_assert_eq!(through, 5);
            after.iter().for_each(|event| state.apply(event));
            prop_assert_eq!(&state, &whole);
        }

        #[test]
        fn every_view_of_any_state_can_be_taken(events in proptest::collection::vec(what(), 0..24).prop_map(recorded)) {
            let state = fold(&events);
            let status = crate::settle::standing(&state);
            let summary = crate::summary::summary(&state, "t", status, &Prices::builtin());
            prop_assert_eq!(summary.total_events, events.len() as u64);
            prop_assert!(summary.duration_ms.is_none_or(|ms| ms >= 0.0));
            let calls: usize = crate::invocations::invocations(&state).iter().map(|turn| turn.tool_calls.len()).sum();
            prop_assert_eq!(calls, summary.total_tool_calls);
            prop_assert!(crate::tree::rows(&state, &Prices::builtin()).len() >= summary.total_spans);
            let asked = crate::analysis::Asked {
                status,
                now_unix_ms: state.last_arrival_unix_ms,
                thresholds: &crate::analysis::Thresholds::default(),
                history: &crate::stats::History::default(),
                prices: &Prices::builtin(),
            };
            let analysis = crate::analysis::analyze(&state, "t", &asked);
            prop_assert_eq!(analysis.errors_count, summary.errors_count);
            prop_assert_eq!(analysis.event_distribution.values().sum::<u64>(), events.len() as u64);
        }

        #[test]
        fn damaged_snapshots_are_folded_anew(mut bytes in proptest::collection::vec(any::<u8>(), 0..64), at in 0usize..64, bit in 0u8..8) {
            decode_snapshot(&bytes);
            bytes.splice(0..bytes.len().min(2), [FORMAT, MAPPER]);
            decode_snapshot(&bytes);
            let mut ours = encode_snapshot(&State::default(), 1);
            let length = ours.len();
            ours[at % length] ^= 1 << bit;
            decode_snapshot(&ours);
        }
    }

    #[test]
    fn another_version_is_folded_anew() {
        let mut bytes = encode_snapshot(&State::default(), 3);
        assert_eq!(decode_snapshot(&bytes), Some((State::default(), 3)));
        bytes[1] += 1;
        assert_eq!(decode_snapshot(&bytes), None);
    }
}
