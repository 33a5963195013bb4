//! Native events: what agents without OpenTelemetry post as JSON.
//!
//! An event is an object with an `event_type`; every other field is its producer's own and is kept as posted. What the types and
//! fields mean is decided when the event is read.

mod boundaries;
mod head;

use std::{collections::HashSet, sync::Arc};

use xxhash_rust::xxh3::Xxh3;

use crate::{
    convention::ends_run,
    id::TraceId,
    limits::Limits,
    observed::{Canonical, Context, Incoming},
    otlp::{Refused, mend_surrogates},
    verbosity::{UnknownLevel, Verbosity},
};

pub use self::boundaries::Format;
use self::{
    boundaries::split,
    head::{Field, Head, depth},
};

/// Characters of an `event_type` at most.
const MAX_TYPE_CHARS: usize = 128;

/// What the request's headers say about all of its events.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sender<'a> {
    /// `Idempotency-Key`: with an event's place in the body, its identity when it has no `event_id`.
    pub idempotency_key: Option<&'a str>,
    /// `X-Parent-Span`, or the parent in `traceparent`: for events without a `parent_span_id`.
    pub parent_span_id: Option<&'a str>,
}

/// What a request held.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Posted {
    /// The events taken, in their order.
    pub events: Vec<Incoming>,
    /// Events whose `event_id` stood earlier in the same body, dropped.
    pub repeated: u64,
    pub rejected: Vec<RejectedEvent>,
}

/// An event that was not taken. It costs only itself.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RejectedEvent {
    /// Its place in the body, from 0.
    pub index: usize,
    /// A word for programs and metrics.
    pub reason: &'static str,
    /// A sentence for people.
    pub message: String,
}

/// Decodes the body of `POST /traces/{trace_id}/events`.
///
/// # Errors
/// 400 when not even the events' boundaries can be found, or there is no event; 413 when there are more than
/// `limits.native_events`. Nothing of such a body is taken.
pub fn decode(
    trace: &TraceId,
    body: &[u8],
    format: Format,
    sender: Sender<'_>,
    limits: &Limits,
) -> Result<Posted, Refused> {
    let mut posted = Posted::default();
    let mut seen = HashSet::new();
    let context = Arc::new(Context::default());
    for (index, text) in split(body, format, limits)?.into_iter().enumerate() {
        let event = text
            .ok_or_else(|| fault("invalid_utf8", "the line is not UTF-8".to_owned()))
            .and_then(|text| read(trace, text, index, sender, limits));
        match event {
            Ok(event)
                if event
                    .identity
                    .is_some_and(|identity| !seen.insert(identity)) =>
            {
                posted.repeated += 1;
            }
            Ok(event) => posted.events.push(Incoming {
                identity: event.identity,
                may_end_run: event.may_end_run,
                context: context.clone(),
                what: Canonical::Native(event.text),
                trace_level: event.trace_level,
            }),
            Err((reason, message)) => posted.rejected.push(RejectedEvent {
                index,
                reason,
                message,
            }),
        }
    }
    Ok(posted)
}

type Fault = (&'static str, String);

fn fault(reason: &'static str, message: String) -> Fault {
    (reason, message)
}

struct Event {
    text: Arc<str>,
    identity: Option<i64>,
    may_end_run: bool,
    trace_level: Verbosity,
}

fn read(
    trace: &TraceId,
    text: &str,
    index: usize,
    sender: Sender<'_>,
    limits: &Limits,
) -> Result<Event, Fault> {
    if text.len() > limits.native_event_bytes {
        let limit = limits.native_event_bytes;
        return Err(fault(
            "event_too_large",
            format!(
                "the event has {} bytes, at most {limit} are taken",
                text.len()
            ),
        ));
    }
    if depth(text) > limits.native_depth {
        let limit = limits.native_depth;
        return Err(fault(
            "too_deep",
            format!("the event nests deeper than {limit} levels"),
        ));
    }
    // Half an emoji would make the whole event unreadable to strict JSON readers.
    let text = mend_surrogates(text);
    let head: Head = serde_json::from_str(&text).map_err(|error| {
        fault(
            "malformed",
            format!("the event is not a JSON object: {error}"),
        )
    })?;
    let event_type = match head.event_type {
        Field::Text(name) if (1..=MAX_TYPE_CHARS).contains(&name.chars().count()) => name,
        _ => {
            return Err(fault(
                "invalid_event_type",
                format!("event_type must be text of 1 to {MAX_TYPE_CHARS} characters"),
            ));
        }
    };
    match head.trace_id {
        Field::Absent => {}
        Field::Text(named) if TraceId::parse(&named).as_ref() == Ok(trace) => {}
        _ => {
            return Err(fault(
                "trace_id_mismatch",
                format!("trace_id must be absent or {trace}, the trace this was posted to"),
            ));
        }
    }
    let identity = match (head.event_id, sender.idempotency_key) {
        (Field::Text(id) | Field::Number(id), _) if !id.is_empty() => {
            Some(identity(b'e', id.as_bytes(), 0))
        }
        (Field::Other, _) => {
            return Err(fault(
                "invalid_event_id",
                "event_id must be text or a number".to_owned(),
            ));
        }
        (_, Some(key)) => Some(identity(b'k', key.as_bytes(), index)),
        (_, None) => None,
    };
    let trace_level = match head.trace_level {
        Field::Absent => Ok(Verbosity::Debug),
        Field::Text(level) => level.parse(),
        Field::Number(_) | Field::Other => Err(UnknownLevel),
    };
    let trace_level =
        trace_level.map_err(|unknown| fault("invalid_trace_level", format!("trace_{unknown}")))?;
    let parent = match head.parent_span_id {
        Field::Absent => sender.parent_span_id,
        _ => None,
    };
    Ok(Event {
        may_end_run: ends_run(&event_type),
        text: match parent {
            Some(parent) => with_parent(&text, parent).into(),
            None => text.into(),
        },
        identity,
        trace_level,
    })
}

/// Adds a field to an object that is known to have others (an `event_type` at least).
fn with_parent(object: &str, parent: &str) -> String {
    let inside = object.trim_end().strip_suffix('}').unwrap_or(object);
    format!(
        "{},\"parent_span_id\":{}}}",
        inside.trim_end(),
        serde_json::Value::from(parent)
    )
}

/// The identity of an event that has an id of its own.
pub(crate) fn identity_of(what: &Canonical) -> Option<i64> {
    let Canonical::Native(text) = what else {
        return None;
    };
    match serde_json::from_str::<Head>(text).ok()?.event_id {
        Field::Text(id) | Field::Number(id) if !id.is_empty() => {
            Some(identity(b'e', id.as_bytes(), 0))
        }
        _ => None,
    }
}

/// The identity of an event whose own id is not kept.
pub(crate) fn identity_by_content(text: &str) -> i64 {
    identity(b'c', text.as_bytes(), 0)
}

fn identity(kind: u8, key: &[u8], index: usize) -> i64 {
    let mut hash = Xxh3::new();
    hash.update(&[kind]);
    hash.update(&(index as u64).to_be_bytes());
    hash.update(key);
    hash.digest().cast_signed()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn post(body: &str, format: Format, sender: Sender<'_>) -> Result<Posted, Refused> {
        let trace = TraceId::parse("run-1").unwrap();
        decode(&trace, body.as_bytes(), format, sender, &Limits::default())
    }

    fn texts(posted: &Posted) -> Vec<&str> {
        posted
            .events
            .iter()
            .map(|incoming| match &incoming.what {
                Canonical::Native(text) => &**text,
                other => panic!("{other:?}"),
            })
            .collect()
    }

    /// Taken texts and rejected `(index, reason)`.
    fn check(body: &str, format: Format, taken: &[&str], rejected: &[(usize, &str)]) {
        let posted = post(body, format, Sender::default()).unwrap();
        assert_eq!(texts(&posted), taken);
        let reasons: Vec<_> = posted
            .rejected
            .iter()
            .map(|r| (r.index, r.reason))
            .collect();
        assert_eq!(reasons, rejected, "{:?}", posted.rejected);
    }

    const A: &str = r#"{"event_type":"a"}"#;
    const B: &str = r#"{"event_type":"b","deep":{"x":[1,null,true]}}"#;

    #[test]
    fn one_event_an_array_or_lines() {
        check(A, Format::Json, &[A], &[]);
        check(A, Format::Lines, &[A], &[]);
        check(A, Format::Unsaid, &[A], &[]);
        let pretty = "{\n  \"event_type\": \"a\"\n}";
        check(&format!("{pretty}\n"), Format::Unsaid, &[pretty], &[]);
        check(&format!(" [{A} , {B}]"), Format::Json, &[A, B], &[]);
        check(&format!("[{A},{B}]"), Format::Unsaid, &[A, B], &[]);
        check(&format!("{A}\r\n\n{B}\n"), Format::Lines, &[A, B], &[]);
        check(&format!("{A}\n{B}"), Format::Unsaid, &[A, B], &[]);
        check("[]", Format::Json, &[], &[]);
    }

    #[test]
    fn a_bad_event_costs_itself() {
        check(
            &format!("{A}\n{{\"event_type\": \n5\n{B}"),
            Format::Unsaid,
            &[A, B],
            &[(1, "malformed"), (2, "malformed")],
        );
        check(
            &format!(
                r#"[{A}, 5, {{}}, {{"event_type":""}}, {{"event_type":7}}, {{"event_type":"{}"}}, {{"event_type":"x","n":1e999}}, {{"event_type":"x","event_id":[]}}, {B}]"#,
                "t".repeat(129)
            ),
            Format::Json,
            &[A, B],
            &[
                (1, "malformed"),
                (2, "invalid_event_type"),
                (3, "invalid_event_type"),
                (4, "invalid_event_type"),
                (5, "invalid_event_type"),
                (6, "malformed"),
                (7, "invalid_event_id"),
            ],
        );
        let deep = |levels| {
            format!(
                r#"{{"event_type":"x","d":{}{}}}"#,
                "[".repeat(levels),
                "]".repeat(levels)
            )
        };
        check(&deep(63), Format::Json, &[&deep(63)], &[]);
        check(
            &format!("[{},{A}]", deep(64)),
            Format::Json,
            &[A],
            &[(0, "too_deep")],
        );
        check(
            &format!("{A}\n{}", deep(100_000)),
            Format::Lines,
            &[A],
            &[(1, "too_deep")],
        );
        let large = format!(r#"{{"event_type":"x","d":"{}"}}"#, "d".repeat(1 << 20));
        check(
            &format!("{large}\n{A}"),
            Format::Lines,
            &[A],
            &[(0, "event_too_large")],
        );
        let broken = [A.as_bytes(), b"\n{\"event_type\":\"\xff\"}\n", B.as_bytes()].concat();
        let trace = TraceId::parse("run-1").unwrap();
        let posted = decode(
            &trace,
            &broken,
            Format::Lines,
            Sender::default(),
            &Limits::default(),
        )
        .unwrap();
        assert_eq!(
            (texts(&posted), posted.rejected[0].reason),
            (vec![A, B], "invalid_utf8")
        );
    }

    #[test]
    fn a_body_without_boundaries_is_refused() {
        for (body, status, code) in [
            ("", 400, "invalid_body"),
            (" \n", 400, "invalid_body"),
            ("{", 400, "invalid_body"),
            ("[{\"event_type\":\"a\"},", 400, "invalid_body"),
            ("hello", 400, "invalid_body"),
            (&"[".repeat(1 << 20), 400, "invalid_body"),
            (
                &format!("[{}{A}]", format!("{A},").repeat(10_000)),
                413,
                "too_many_events",
            ),
            (&format!("{A}\n").repeat(10_001), 413, "too_many_events"),
        ] {
            let refused = post(body, Format::Unsaid, Sender::default()).unwrap_err();
            assert_eq!((refused.status, refused.code), (status, code), "{refused}");
        }
    }

    #[test]
    fn the_trace_of_the_path_is_the_one() {
        let own = r#"{"event_type":"a","trace_id":"run-1"}"#;
        let other = r#"{"event_type":"a","trace_id":"run-2"}"#;
        check(
            &format!("[{own},{other}]"),
            Format::Json,
            &[own],
            &[(1, "trace_id_mismatch")],
        );
        // The forms of one OTel id are one id.
        let trace = TraceId::parse("5B8EFFF798038103D269B633813FC60C").unwrap();
        let body = br#"{"event_type":"a","trace_id":"5b8efff7-9803-8103-d269-b633813fc60c"}"#;
        let posted = decode(
            &trace,
            body,
            Format::Json,
            Sender::default(),
            &Limits::default(),
        )
        .unwrap();
        assert_eq!(posted.rejected, []);
    }

    #[test]
    fn an_event_may_ask_for_less_to_be_recorded() {
        let body = r#"[{"event_type":"a","trace_level":"standard"},{"event_type":"b","trace_level":null},{"event_type":"c","trace_level":"all"},{"event_type":"d","trace_level":1}]"#;
        let posted = post(body, Format::Json, Sender::default()).unwrap();
        let levels: Vec<_> = posted
            .events
            .iter()
            .map(|event| event.trace_level)
            .collect();
        assert_eq!(levels, [Verbosity::Standard, Verbosity::Debug]);
        let rejected: Vec<_> = posted
            .rejected
            .iter()
            .map(|r| (r.index, r.reason))
            .collect();
        assert_eq!(
            rejected,
            [(2, "invalid_trace_level"), (3, "invalid_trace_level")]
        );
        assert_eq!(
            posted.rejected[0].message,
            "trace_level must be one of minimal, standard, detailed, debug"
        );
    }

    #[test]
    fn an_event_is_known_by_its_id_or_by_its_place_under_a_key() {
        let identities = |body: &str, key| {
            let sender = Sender {
                idempotency_key: key,
                ..Sender::default()
            };
            let posted = post(body, Format::Json, sender).unwrap();
            posted
                .events
                .iter()
                .map(|event| event.identity)
                .collect::<Vec<_>>()
        };
        assert_eq!(identities(A, None), [None]);
        let two = format!("[{A},{A}]");
        assert_eq!(
            identities(&two, None),
            [None, None],
            "honest repeats are not duplicates"
        );
        let keyed = identities(&two, Some("k"));
        assert_ne!(keyed[0], keyed[1]);
        assert_eq!(keyed, identities(&two, Some("k")));
        assert_ne!(keyed, identities(&two, Some("other")));
        let by_id = r#"{"event_type":"a","event_id":"7"}"#;
        let by_number = r#"{"event_id":7,"event_type":"b"}"#;
        assert_eq!(identities(by_id, Some("k")), identities(by_number, None));
        let posted = post(
            &format!("[{by_id},{by_number}]"),
            Format::Json,
            Sender::default(),
        )
        .unwrap();
        assert_eq!((posted.events.len(), posted.repeated), (1, 1));
    }

    #[test]
    fn the_callers_span_is_the_parent_unless_the_event_names_one() {
        let sender = Sender {
            parent_span_id: Some("caller\"1"),
            ..Sender::default()
        };
        let own = r#"{"event_type":"a","parent_span_id":"p"}"#;
        let posted = post(
            &format!("[{own},{{\"event_type\":\"a\" }}]"),
            Format::Json,
            sender,
        )
        .unwrap();
        assert_eq!(
            texts(&posted),
            [own, r#"{"event_type":"a","parent_span_id":"caller\"1"}"#]
        );
    }

    #[test]
    fn half_an_emoji_costs_only_itself() {
        check(
            r#"{"event_type":"a","text":"cut \ud83d"}"#,
            Format::Json,
            &["{\"event_type\":\"a\",\"text\":\"cut \u{fffd}\"}"],
            &[],
        );
    }

    #[test]
    fn only_a_runs_last_words_may_end_it() {
        for (name, ends) in [
            ("workflow_completed", true),
            ("task_failed", true),
            ("task_progress", false),
            ("agent_called", false),
        ] {
            let posted = post(
                &format!(r#"{{"event_type":"{name}"}}"#),
                Format::Json,
                Sender::default(),
            );
            assert_eq!(posted.unwrap().events[0].may_end_run, ends, "{name}");
        }
    }

    proptest! {
        #[test]
        fn no_body_panics_and_what_is_taken_can_be_read(body in any::<String>(), event in "\\PC*") {
            let lines = format!("{A}\n{body}\n{{\"event_type\":\"x\",\"e\":{event}}}");
            for body in [body.as_str(), &lines] {
                for format in [Format::Json, Format::Lines, Format::Unsaid] {
                    let sender = Sender { parent_span_id: Some("p"), ..Sender::default() };
                    for text in post(body, format, sender).iter().flat_map(texts) {
                        prop_assert!(serde_json::from_str::<serde_json::Value>(text).unwrap().is_object());
                    }
                }
            }
        }
    }
}
