//! Entries of an agent mesh's trace stream: what its agents publish straight into Redis when a function has run.
//!
//! An entry is a flat list of names and texts; every runtime of the mesh writes some of them in a way of its own (`null`, `None` or nothing at all, `True` or `true`, whole or
//! fractional milliseconds). It becomes a span, because that is what it reports: one timed step with an id, a parent, a name and an outcome. What the entry says beyond that stays
//! as attributes under the names its producer used, and is read by the rule `mesh:entry`.
//!
//! The form is that of MCP Mesh (<https://github.com/dhyansraj/mcp-mesh>), its Python, TypeScript and Java runtimes and the events its registry knows.

use std::{collections::HashMap, sync::Arc};

use bytes::Bytes;
use serde_json::{Map, Value};
use xxhash_rust::xxh3::xxh3_64;

use crate::{
    convention::{ends_run, text_time_ns},
    id::TraceId,
    limits::Limits,
    observed::{Canonical, Context, Incoming, What},
    verbosity::Verbosity,
    wire,
};

/// The scope of every span made of an entry; the rule that reads them knows them by it.
pub const SCOPE: &str = "mesh:trace";

/// Who published: the same for all entries of an agent, so it is kept once per chunk.
const ABOUT_THE_AGENT: &[&str] = &[
    "agent_id",
    "agent_name",
    "agent_namespace",
    "agent_type",
    "agent_hostname",
    "agent_ip",
    "ip_address",
    "agent_port",
    "agent_endpoint",
    "runtime",
];

/// Why an entry cannot become an event, now or ever.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    #[error("its trace_id is {0}")]
    TraceId(String),
    #[error("it has {0} bytes")]
    TooLarge(usize),
    #[error("it has {0} fields")]
    TooManyFields(usize),
}

impl Unreadable {
    /// A word for metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::TraceId(_) => "invalid_trace_id",
            Self::TooLarge(_) => "entry_too_large",
            Self::TooManyFields(_) => "too_many_fields",
        }
    }
}

/// Decodes entries of one stream; those of one agent share its context.
#[derive(Debug)]
pub struct Decoder<'a> {
    stream: &'a str,
    limits: &'a Limits,
    contexts: HashMap<Vec<(String, String)>, Arc<Context>>,
}

impl<'a> Decoder<'a> {
    /// Of the entries of `stream`; its name is part of their identities.
    pub fn new(stream: &'a str, limits: &'a Limits) -> Self {
        Self {
            stream,
            limits,
            contexts: HashMap::new(),
        }
    }

    /// What the entry `id` (`<ms>-<n>`) reports, and of which trace. Its identity is its place in the stream: an entry that is read twice is one event.
    ///
    /// # Errors
    /// [`Unreadable`]; every other peculiarity (missing names, times that are none, bytes that are not UTF-8) still gives an event.
    pub fn decode(
        &mut self,
        id: &str,
        fields: &[(Bytes, Bytes)],
    ) -> Result<(TraceId, Incoming), Unreadable> {
        let bytes = fields.iter().map(|(key, value)| key.len() + value.len());
        let bytes = bytes.sum::<usize>();
        if bytes > self.limits.native_event_bytes {
            return Err(Unreadable::TooLarge(bytes));
        }
        if fields.len() > self.limits.list {
            return Err(Unreadable::TooManyFields(fields.len()));
        }
        let mut entry = Entry::of(fields);
        let trace = entry.take(&["trace_id"]).unwrap_or_default();
        let trace = TraceId::parse(trace.trim()).map_err(|_| {
            Unreadable::TraceId(match trace.is_empty() {
                true => "missing".to_owned(),
                false => format!("{trace:.130?}, and must be {}", TraceId::RULE),
            })
        })?;
        let place = xxh3_64(format!("{}\0{id}", self.stream).as_bytes());
        let arrived_ns = id
            .split('-')
            .next()
            .and_then(|ms| ms.parse::<u64>().ok())
            .and_then(|ms| ms.checked_mul(1_000_000))
            .unwrap_or(0);
        let (context, what, may_end_run) = match entry.phase() {
            Phase::Said(event_type) => {
                let ends = ends_run(&event_type);
                (Arc::default(), entry.into_native(), ends)
            }
            phase => {
                let context = self.context(&mut entry);
                let span = entry.into_span(&phase, place, arrived_ns);
                let ends = span.parent_span_id.is_empty() && span.end_time_unix_nano != 0;
                (context, What::Span(Arc::new(span)), ends)
            }
        };
        let incoming = Incoming {
            context,
            what: Canonical::from(&what),
            identity: Some(place.cast_signed()),
            may_end_run,
            trace_level: Verbosity::Debug,
        };
        Ok((trace, incoming))
    }

    fn context(&mut self, entry: &mut Entry) -> Arc<Context> {
        let said: Vec<_> = ABOUT_THE_AGENT
            .iter()
            .filter_map(|name| Some(((*name).to_owned(), entry.take(&[name])?)))
            .collect();
        let make = |said: &Vec<(String, String)>| {
            let named = |name: &str| said.iter().find(|(key, _)| key == name);
            let service = named("agent_name").or_else(|| named("agent_id"));
            let service = service.map(|(_, value)| pair("service.name", value));
            let all = said.iter().map(|(key, value)| pair(key, value));
            Arc::new(Context {
                resource: service.into_iter().chain(all).collect(),
                scope: wire::Scope {
                    name: SCOPE.to_owned(),
                    ..wire::Scope::default()
                },
                ..Context::default()
            })
        };
        let context = self.contexts.get(&said).cloned();
        context.unwrap_or_else(|| {
            let context = make(&said);
            self.contexts.insert(said, Arc::clone(&context));
            context
        })
    }
}

/// What an entry reports of its step.
enum Phase {
    /// The whole of it: what all agents publish.
    Whole,
    Began,
    Ended,
    Failed,
    /// An event of another type, in its own words.
    Said(String),
}

/// An entry's fields in their order. What says "nothing" in some runtime's way is left out.
struct Entry {
    fields: Map<String, Value>,
}

impl Entry {
    fn of(fields: &[(Bytes, Bytes)]) -> Self {
        let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
        Self {
            fields: fields
                .iter()
                .filter(|(_, value)| says_something(value))
                .map(|(key, value)| (text(key), Value::String(text(value))))
                .collect(),
        }
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.fields.get(name).and_then(Value::as_str)
    }

    /// The first of these that is there, taken out.
    fn take(&mut self, names: &[&str]) -> Option<String> {
        let name = names.iter().find(|name| self.fields.contains_key(**name))?;
        match self.fields.shift_remove(*name)? {
            Value::String(text) => Some(text),
            _ => None,
        }
    }

    fn phase(&self) -> Phase {
        match self.get("event_type") {
            None => Phase::Whole,
            Some("span_start") => Phase::Began,
            Some("span_end") => Phase::Ended,
            Some("error") => Phase::Failed,
            Some(other) => Phase::Said(other.to_owned()),
        }
    }

    fn into_native(self) -> What {
        What::Native(Value::Object(self.fields).to_string().into())
    }

    fn into_span(mut self, phase: &Phase, place: u64, arrived_ns: u64) -> wire::Span {
        let is_start = matches!(phase, Phase::Began);
        let duration_ns = self.get("duration_ms").and_then(milliseconds_as_ns);
        let mut time = |names: &[&str]| {
            let name = names.iter().find(|name| {
                let text = self.fields.get(**name).and_then(Value::as_str);
                text.and_then(text_time_ns).is_some()
            })?;
            text_time_ns(self.fields.shift_remove(*name)?.as_str()?)
        };
        let began = time(&["start_time"]);
        let ended = time(&["end_time"]);
        // The registry's own events have one time: when they happened.
        let happened = time(&["timestamp"]);
        let published = || self.get("published_at").and_then(text_time_ns);
        let (start, end) = match phase {
            Phase::Began => (began.or(happened), None),
            Phase::Whole => (began.or(happened), ended),
            _ => (began, ended.or(happened)),
        };
        let end = end.or_else(|| Some(start?.saturating_add(duration_ns?)));
        let end = end.or_else(published).unwrap_or(arrived_ns).max(1);
        let start = start.unwrap_or_else(|| match is_start {
            true => end,
            false => end.saturating_sub(duration_ns.unwrap_or(0)),
        });
        let span_id = self.take(&["span_id"]);
        let parent = self.take(&["parent_span", "parent_span_id"]);
        let name = self.take(&["function_name", "operation", "route_name"]);
        let attributes = self.fields.iter();
        wire::Span {
            span_id: match span_id {
                Some(id) => span_id_of(&id),
                None => Bytes::copy_from_slice(&place.to_be_bytes()),
            },
            parent_span_id: parent.map(|id| span_id_of(&id)).unwrap_or_default(),
            name: name.unwrap_or_default(),
            start_time_unix_nano: start,
            end_time_unix_nano: if is_start { 0 } else { end },
            attributes: attributes
                .filter_map(|(key, value)| Some(pair(key, value.as_str()?)))
                .collect(),
            ..wire::Span::default()
        }
    }
}

fn pair(key: &str, value: &str) -> wire::KeyValue {
    wire::KeyValue {
        key: key.into(),
        value: Some(wire::AnyValue {
            value: Some(wire::any_value::Value::String(value.into())),
        }),
    }
}

/// Whether a value is one: the runtimes write what is not there as a word of their language.
fn says_something(value: &[u8]) -> bool {
    let value = value.trim_ascii();
    let words: [&[u8]; 4] = [b"null", b"none", b"undefined", b"nil"];
    !value.is_empty() && !words.iter().any(|word| value.eq_ignore_ascii_case(word))
}

/// Eight bytes: those of 16 hex digits, else a hash, so that a parent is found whatever alphabet an agent writes ids in.
fn span_id_of(text: &str) -> Bytes {
    let text = text.trim();
    let number = match text.len() == 16 && text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        true => u64::from_str_radix(text, 16).unwrap_or_default(),
        false => xxh3_64(text.as_bytes()),
    };
    Bytes::copy_from_slice(&number.to_be_bytes())
}

fn milliseconds_as_ns(text: &str) -> Option<u64> {
    let ms: f64 = text.trim().parse().ok()?;
    // `as` saturates; a step of centuries is a step of centuries.
    (ms.is_finite() && ms >= 0.0).then_some((ms * 1e6) as u64)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        convention::read_span,
        model::{Kind, Span, Usage},
        observed::Observation,
    };

    const TRACE: (&str, &str) = ("trace_id", "0af7651916cd43dd8448eb211c80319c");

    fn decode(id: &str, fields: &[(&str, &str)]) -> Result<(TraceId, Incoming), Unreadable> {
        let fields: Vec<_> = fields
            .iter()
            .map(|(key, value)| {
                let bytes = |text: &str| Bytes::copy_from_slice(text.as_bytes());
                (bytes(key), bytes(value))
            })
            .collect();
        Decoder::new("mesh:trace", &Limits::default()).decode(id, &fields)
    }

    fn span(fields: &[(&str, &str)]) -> Span {
        let (_, incoming) = decode("1737369046000-0", fields).unwrap();
        let Observation { context, what } = incoming.observation();
        let What::Span(span) = what else {
            panic!("{what:?}")
        };
        read_span(&span, &context)
    }

    /// As the Python runtime writes it.
    const PYTHON: &[(&str, &str)] = &[
        TRACE,
        ("span_id", "00f067aa0ba902b7"),
        ("parent_span", "null"),
        ("function_name", "plan_trip"),
        ("start_time", "1737369045.123456"),
        ("end_time", "1737369045.8239"),
        ("duration_ms", "700.44"),
        ("success", "True"),
        ("error", "null"),
        ("result_type", "dict"),
        ("args_count", "0"),
        ("kwargs_count", "2"),
        ("dependencies", "[\"weather\"]"),
        ("agent_id", "planner-1f2e"),
        ("agent_name", "planner"),
        ("agent_hostname", "pod-7"),
        ("agent_ip", "10.0.0.7"),
        ("runtime", "python"),
        ("published_at", "1737369045.83"),
    ];

    #[test]
    fn a_finished_call_is_an_agents_span() {
        let read = span(PYTHON);
        assert_eq!(
            (read.kind, read.rule, read.name.as_str()),
            (Kind::Agent, "mesh:entry", "plan_trip")
        );
        assert_eq!(
            (read.id.as_str(), read.parent_id),
            ("00f067aa0ba902b7", None)
        );
        assert_eq!(
            (read.start_ns, read.end_ns),
            (1_737_369_045_123_456_000, Some(1_737_369_045_823_900_000))
        );
        assert_eq!(
            (read.agent.as_deref(), read.agent_id.as_deref()),
            (Some("planner"), Some("planner-1f2e"))
        );
        assert_eq!((read.failure, read.usage), (None, None));
        let details = Value::Object(read.details);
        assert_eq!(
            details,
            serde_json::json!({
                "operation": "plan_trip", "agent_name": "planner", "ip_address": "10.0.0.7", "runtime": "python", "duration_ms": 700.44, "success": true,
                "result_type": "dict", "args_count": 0, "kwargs_count": 2, "dependencies": ["weather"], "agent_hostname": "pod-7",
            })
        );
    }

    #[test]
    fn only_what_ends_a_root_may_end_the_run() {
        let ends = |fields: &[_]| decode("1-0", fields).unwrap().1.may_end_run;
        assert!(ends(PYTHON));
        assert!(!ends(&[TRACE, ("parent_span", "00f067aa0ba902b7")]));
        assert!(!ends(&[TRACE, ("event_type", "span_start")]));
        assert!(ends(&[TRACE, ("event_type", "span_end")]));
        assert!(ends(&[TRACE, ("event_type", "task_failed")]));
        assert!(!ends(&[TRACE, ("event_type", "task_progress")]));
    }

    #[test]
    fn failures_are_told_in_four_ways() {
        let failure = |fields: &[(&str, &str)]| {
            let mut all = vec![TRACE, ("agent_id", "a")];
            all.extend(fields);
            let read = span(&all);
            read.failure.map(|failure| (failure.kind, failure.message))
        };
        let of = |kind: &str, message: &str| Some((kind.to_owned(), message.to_owned()));
        assert_eq!(failure(&[("success", "true"), ("error", "None")]), None);
        assert_eq!(
            failure(&[("success", "False"), ("error", "no seat left")]),
            of("", "no seat left")
        );
        assert_eq!(
            failure(&[
                ("success", "false"),
                ("error", "boom"),
                ("error_type", "java.lang.IllegalStateException")
            ]),
            of("java.lang.IllegalStateException", "boom")
        );
        assert_eq!(failure(&[("success", "0")]), of("", ""));
        assert_eq!(
            failure(&[("event_type", "error"), ("error_message", "late")]),
            of("", "late")
        );
        // Python's routes call whatever raised nothing a success.
        assert_eq!(
            failure(&[("success", "True"), ("status_code", "502")]),
            of("", "HTTP 502")
        );
        assert_eq!(
            failure(&[("success", "True"), ("status_code", "404")]),
            None
        );
    }

    #[test]
    fn a_model_call_has_its_tokens() {
        let read = span(&[
            TRACE,
            ("span_id", "b"),
            ("parent_span", "a"),
            ("function_name", "process_chat"),
            ("llm_model", "claude-sonnet"),
            ("llm_provider", "anthropic"),
            ("llm_input_tokens", "812"),
            ("llm_output_tokens", "44"),
            ("llm_total_tokens", "856"),
            ("agent_name", "writer"),
            ("duration_ms", "12"),
            ("start_time", "1737369045"),
        ]);
        assert_eq!(read.kind, Kind::Llm);
        assert_eq!(
            (read.request_model.as_deref(), read.provider.as_deref()),
            (Some("claude-sonnet"), Some("anthropic"))
        );
        assert_eq!(
            read.usage,
            Some(Usage {
                input: 812,
                output: 44,
                ..Usage::default()
            })
        );
        assert_eq!(read.duration_ns(), Some(12_000_000));
        // Ids in another alphabet find each other.
        let parent = span(&[TRACE, ("span_id", "a")]);
        assert_eq!(read.parent_id, Some(parent.id));
    }

    #[test]
    fn a_callers_side_of_a_call_is_no_agent() {
        for name in ["proxy_call_wrapper", "_internal_heartbeat"] {
            let read = span(&[TRACE, ("function_name", name), ("agent_name", "a")]);
            assert_eq!(read.kind, Kind::Span, "{name}");
        }
    }

    #[test]
    fn a_step_may_be_told_when_it_begins_and_when_it_ends() {
        let started = [
            TRACE,
            ("span_id", "s1"),
            ("event_type", "span_start"),
            ("operation", "plan"),
            ("timestamp", "1737369045.5"),
            ("agent_id", "p"),
        ];
        let ended = [
            TRACE,
            ("span_id", "s1"),
            ("event_type", "span_end"),
            ("operation", "plan"),
            ("timestamp", "1737369046.5"),
            ("duration_ms", "1000"),
            ("agent_id", "p"),
        ];
        let (started, ended) = (span(&started), span(&ended));
        assert_eq!(started.id, ended.id);
        assert_eq!(
            (started.start_ns, started.end_ns),
            (1_737_369_045_500_000_000, None)
        );
        assert_eq!(
            (ended.start_ns, ended.end_ns),
            (1_737_369_045_500_000_000, Some(1_737_369_046_500_000_000))
        );
    }

    #[test]
    fn times_that_are_missing_or_none_are_found_elsewhere() {
        let times = |fields: &[(&str, &str)]| {
            let mut all = vec![TRACE];
            all.extend(fields);
            let read = span(&all);
            (read.start_ns, read.end_ns)
        };
        let second = 1_000_000_000;
        let arrived = 1_737_369_046 * second;
        assert_eq!(times(&[]), (arrived, Some(arrived)));
        assert_eq!(
            times(&[("start_time", "soon"), ("duration_ms", "-3")]),
            (arrived, Some(arrived))
        );
        assert_eq!(
            times(&[("duration_ms", "1000.0")]),
            (arrived - second, Some(arrived))
        );
        assert_eq!(
            times(&[("start_time", "10"), ("duration_ms", "0.7")]),
            (10 * second, Some(10 * second + 700_000))
        );
        // A clock that was set back meanwhile.
        assert_eq!(
            times(&[("start_time", "10"), ("end_time", "9.5")]),
            (10 * second, Some(10 * second))
        );
    }

    #[test]
    fn an_event_of_another_type_keeps_its_own_words() {
        let (_, incoming) = decode(
            "5-1",
            &[
                TRACE,
                ("event_type", "task_progress"),
                ("agent_id", "a"),
                ("parent_span", "null"),
            ],
        )
        .unwrap();
        let expected = r#"{"event_type":"task_progress","agent_id":"a"}"#;
        assert_eq!(incoming.what, Canonical::Native(expected.into()));
    }

    #[test]
    fn an_entry_of_no_trace_is_unreadable() {
        for (fields, expected) in [
            (&[][..], "its trace_id is missing"),
            (&[("trace_id", "null")], "its trace_id is missing"),
            (
                &[("trace_id", "a b")],
                "its trace_id is \"a b\", and must be 1 to 128 characters of A-Z a-z 0-9 _ -",
            ),
        ] {
            assert_eq!(decode("1-0", fields).unwrap_err().to_string(), expected);
        }
        let large = "x".repeat(1 << 20);
        let error = decode("1-0", &[TRACE, ("error", &large)]).unwrap_err();
        assert_eq!(error.reason(), "entry_too_large");
    }

    #[test]
    fn an_entry_is_known_by_its_place_in_its_stream() {
        let identity = |stream: &str, id: &str| {
            let fields = [(Bytes::from("trace_id"), Bytes::from("t"))];
            let limits = Limits::default();
            let decoded = Decoder::new(stream, &limits).decode(id, &fields);
            decoded.unwrap().1.identity
        };
        assert_eq!(identity("m", "1-0"), identity("m", "1-0"));
        assert_ne!(identity("m", "1-0"), identity("m", "1-1"));
        assert_ne!(identity("m", "1-0"), identity("n", "1-0"));
    }

    #[test]
    fn entries_of_one_agent_share_its_context() {
        let limits = Limits::default();
        let mut decoder = Decoder::new("m", &limits);
        let mut context = |agent: &str| {
            let fields = [("trace_id", "t"), ("agent_name", agent)]
                .map(|(key, value)| (Bytes::from(key), Bytes::from(value.to_owned())));
            decoder.decode("1-0", &fields).unwrap().1.context
        };
        assert!(Arc::ptr_eq(&context("a"), &context("a")));
        assert_ne!(context("a"), context("b"));
    }

    proptest! {
        #[test]
        fn no_entry_panics_and_durations_are_never_negative(
            fields in proptest::collection::vec((
                prop_oneof!["[a-z_]{0,12}", Just("start_time".to_owned()), Just("end_time".to_owned()), Just("duration_ms".to_owned()), Just("timestamp".to_owned()),
                    Just("event_type".to_owned()), Just("success".to_owned()), Just("status_code".to_owned()), Just("span_id".to_owned()), Just("parent_span".to_owned())],
                prop_oneof!["\\PC{0,20}", "-?[0-9]{1,25}(\\.[0-9]{0,12})?", "span_start|span_end|error", "[0-9e.+-]{0,8}"],
            ), 0..12),
            id in "\\PC{0,12}",
        ) {
            let mut all: Vec<_> = fields.into_iter().map(|(key, value)| (Bytes::from(key), Bytes::from(value))).collect();
            all.push((Bytes::from("trace_id"), Bytes::from("t")));
            let limits = Limits::default();
            let (_, incoming) = Decoder::new("m", &limits).decode(&id, &all).unwrap();
            let Observation { context, what } = incoming.observation();
            if let What::Span(span) = what {
                let read = read_span(&span, &context);
                prop_assert!(read.end_ns.is_none_or(|end| end >= read.start_ns));
                prop_assert_eq!(read.rule, "mesh:entry");
            }
        }
    }
}
