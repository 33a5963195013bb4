//! The WebSocket protocol as a state machine: text of frames in, what to do and what to answer out. It knows no connection, no clock and no store.
//!
//! | frame of the client | effect | answer |
//! | --- | --- | --- |
//! | `session_start` | begins the session, or begins it anew | none |
//! | `span`, `log` | an event of the session; of an unknown one nothing | `error` when the session is full |
//! | `session_end` | ends it | `session_complete` with its invocations; of an unknown one none |
//! | another type | none | none |
//! | what is none of these | none | `error` |

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::wire_form::{Reader as ItemReader, Usual};
use crate::observed::{Canonical, Incoming};

/// Bytes of a frame; larger ones end the connection with [`TOO_BIG`].
pub const LARGEST_FRAME: usize = 16 << 20;
/// Close codes (RFC 6455, section 7.4.1).
pub const GOING_AWAY: u16 = 1001;
pub const TOO_BIG: u16 = 1009;
pub const NO_PONG: u16 = 1011;

/// Bytes of a session's id, a trace's id, an eval set's id.
const LONGEST_NAME: usize = 512;
/// Bytes of a session's metadata, as JSON.
const LARGEST_METADATA: usize = 64 << 10;

/// A session that begins.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Start {
    pub session: String,
    /// As the client says it; spans of the session may say otherwise.
    pub trace: String,
    pub eval_set_id: Option<String>,
    pub metadata: Map<String, Value>,
}

/// What a frame says.
#[derive(Clone, Debug, PartialEq)]
pub enum Message {
    Start(Start),
    /// A span or a log record.
    Item {
        session: Arc<str>,
        item: Box<Incoming>,
    },
    End {
        session: String,
    },
    /// Of a type that means nothing here.
    Other,
}

/// Reads the frames of one connection.
pub struct Reader {
    items: ItemReader,
    /// The session of the last item: nearly always that of the next.
    session: Arc<str>,
}

#[derive(Deserialize)]
struct Frame<'a> {
    #[serde(borrow, default)]
    r#type: Field<'a>,
    #[serde(borrow, default)]
    session_id: Field<'a>,
    #[serde(borrow, default)]
    trace_id: Field<'a>,
    #[serde(borrow, default)]
    eval_set_id: Field<'a>,
    #[serde(borrow, default)]
    metadata: Option<&'a RawValue>,
    #[serde(borrow, default)]
    span: Option<&'a RawValue>,
    #[serde(borrow, default)]
    log: Option<&'a RawValue>,
}

/// Nearly all frames: a span in the form of the dialect's own client, read at one go.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SpanFrame<'a> {
    #[serde(borrow)]
    r#type: Cow<'a, str>,
    #[serde(borrow)]
    session_id: Cow<'a, str>,
    #[serde(borrow)]
    span: Usual<'a>,
}

/// A field that should be a text.
#[derive(Default)]
enum Field<'a> {
    #[default]
    Missing,
    Null,
    Text(Cow<'a, str>),
    Else,
}

impl<'de: 'a, 'a> Deserialize<'de> for Field<'a> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = <&'de RawValue>::deserialize(deserializer)?.get();
        Ok(match raw.as_bytes().first() {
            Some(b'n') => Self::Null,
            Some(b'"') => match borrowed(raw) {
                Some(text) => Self::Text(Cow::Borrowed(text)),
                None => Self::Text(Cow::Owned(
                    serde_json::from_str(raw).map_err(serde::de::Error::custom)?,
                )),
            },
            _ => Self::Else,
        })
    }
}

/// A JSON text without an escape stands there as it is.
fn borrowed(raw: &str) -> Option<&str> {
    let inner = raw.strip_prefix('"')?.strip_suffix('"')?;
    (!inner.contains('\\')).then_some(inner)
}

impl<'a> Field<'a> {
    fn required(self, name: &str) -> Result<Cow<'a, str>, String> {
        match self {
            Self::Text(text) if text.len() <= LONGEST_NAME => Ok(text),
            Self::Text(_) => Err(format!("{name} is longer than {LONGEST_NAME} bytes")),
            Self::Missing => Err(format!("{name} is missing")),
            Self::Null | Self::Else => Err(format!("{name} must be a string")),
        }
    }
}

impl Reader {
    /// `nonce` tells this connection's spans without an id from those of every other.
    pub fn new(nonce: u64) -> Self {
        Self {
            items: ItemReader::new(nonce),
            session: Arc::default(),
        }
    }

    /// What a binary frame says; the dialect has text alone, and what is text all the same is taken as such.
    ///
    /// # Errors
    /// As [`Reader::read_text`].
    pub fn read(&mut self, frame: &[u8]) -> Result<Message, String> {
        let text = std::str::from_utf8(frame)
            .map_err(|_| "a frame must be a JSON object in UTF-8".to_owned())?;
        self.read_text(text)
    }

    /// What a frame says.
    ///
    /// # Errors
    /// Why it says nothing, for its sender.
    pub fn read_text(&mut self, text: &str) -> Result<Message, String> {
        // A list would pass for an object whose fields have no names.
        if !text.trim_start().starts_with('{') {
            return Err("a frame must be a JSON object".to_owned());
        }
        if let Some(message) = self.usual_span(text) {
            return Ok(message);
        }
        let frame: Frame<'_> = serde_json::from_str(text)
            .map_err(|error| format!("a frame must be a JSON object: {error}"))?;
        let kind = frame.r#type.required("type")?;
        match kind.as_ref() {
            "session_start" => {
                let session = frame.session_id.required("session_id")?.into_owned();
                if session.is_empty() {
                    return Err("session_id is empty".to_owned());
                }
                Ok(Message::Start(Start {
                    session,
                    trace: frame.trace_id.required("trace_id")?.into_owned(),
                    eval_set_id: match frame.eval_set_id {
                        Field::Missing | Field::Null => None,
                        id => Some(id.required("eval_set_id")?.into_owned()),
                    },
                    metadata: metadata(frame.metadata)?,
                }))
            }
            "span" => {
                let session = self.session(&frame.session_id.required("session_id")?);
                let span = frame.span.ok_or("span is missing")?.get();
                let item = Box::new(self.items.span(&session, span)?);
                Ok(Message::Item { session, item })
            }
            "log" => {
                let session = self.session(&frame.session_id.required("session_id")?);
                let log = frame.log.ok_or("log is missing")?.get();
                let item = Box::new(self.items.log(log)?);
                Ok(Message::Item { session, item })
            }
            "session_end" => Ok(Message::End {
                session: frame.session_id.required("session_id")?.into_owned(),
            }),
            _ => Ok(Message::Other),
        }
    }
}

impl Reader {
    /// `None`: the frame is to be looked at part by part.
    fn usual_span(&mut self, text: &str) -> Option<Message> {
        let frame: SpanFrame<'_> = serde_json::from_str(text).ok()?;
        if frame.r#type != "span" || frame.session_id.len() > LONGEST_NAME {
            return None;
        }
        let item = Box::new(self.items.usual(frame.span, span_of(text))?);
        let session = self.session(&frame.session_id);
        Some(Message::Item { session, item })
    }

    fn session(&mut self, name: &str) -> Arc<str> {
        if *self.session != *name {
            self.session = name.into();
        }
        Arc::clone(&self.session)
    }
}

/// The span's own text in a usual frame, where it stands last. No text within such a frame can look like its key: what is quoted there is escaped, and nothing else has that name.
fn span_of(frame: &str) -> Option<&str> {
    let (_, span) = frame.split_once(r#""span":"#)?;
    let span = span.trim().strip_suffix('}')?.trim_end();
    // What follows the span ends with a quote.
    span.ends_with('}').then_some(span)
}

fn metadata(raw: Option<&RawValue>) -> Result<Map<String, Value>, String> {
    let Some(raw) = raw.map(RawValue::get).filter(|raw| *raw != "null") else {
        return Ok(Map::new());
    };
    if raw.len() > LARGEST_METADATA {
        return Err(format!("metadata is larger than {LARGEST_METADATA} bytes"));
    }
    serde_json::from_str(raw).map_err(|_| "metadata must be an object".to_owned())
}

/// What a batch of frames asks for, in an order that keeps that of each session.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    Start(Start),
    Append(Append),
    End {
        session: String,
    },
    /// A frame to send.
    Answer(String),
}

/// Events of one session, in their order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Append {
    pub session: String,
    pub events: Vec<Incoming>,
    pub spans: u64,
    pub logs: u64,
}

/// Gathers what frames ask for: the events of one session become one append, wherever they stood among those of others.
#[derive(Debug, Default)]
pub struct Plan {
    actions: Vec<Action>,
    /// Where each session's events are gathered until it begins anew or ends.
    gathering: HashMap<Arc<str>, usize>,
}

impl Plan {
    /// What the next frame says.
    pub fn push(&mut self, frame: Result<Message, String>) {
        let Self { actions, gathering } = self;
        match frame {
            Ok(Message::Start(start)) => {
                gathering.remove(start.session.as_str());
                actions.push(Action::Start(start));
            }
            Ok(Message::End { session }) => {
                gathering.remove(session.as_str());
                actions.push(Action::End { session });
            }
            Ok(Message::Item { session, item }) => {
                let known = gathering.get(&session).copied();
                let at = known.unwrap_or_else(|| {
                    actions.push(Action::Append(Append {
                        session: session.to_string(),
                        ..Append::default()
                    }));
                    gathering.insert(session, actions.len() - 1);
                    actions.len() - 1
                });
                if let Some(Action::Append(append)) = actions.get_mut(at) {
                    match item.what {
                        Canonical::Log(_) => append.logs += 1,
                        Canonical::Span(_) | Canonical::Native(_) => append.spans += 1,
                    }
                    append.events.push(*item);
                }
            }
            Ok(Message::Other) => {}
            Err(why) => actions.push(Action::Answer(error(&why))),
        }
    }

    /// What is to be done.
    pub fn finish(self) -> Vec<Action> {
        self.actions
    }
}

/// What frames ask for together, see [`Plan`].
pub fn plan(frames: impl IntoIterator<Item = Result<Message, String>>) -> Vec<Action> {
    let mut plan = Plan::default();
    frames.into_iter().for_each(|frame| plan.push(frame));
    plan.finish()
}

/// How many places a session had for an append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Places {
    pub spans: u64,
    pub logs: u64,
    /// How many the session has, with these.
    pub span_count: u64,
    pub log_count: u64,
}

impl Append {
    /// The events that have a place, and an answer for each that has none.
    pub fn within(self, places: Places) -> (Vec<Incoming>, Vec<String>) {
        if places.spans >= self.spans && places.logs >= self.logs {
            return (self.events, Vec::new());
        }
        let (mut spans, mut logs) = (places.spans, places.logs);
        let mut refused = Vec::new();
        let mut events = self.events;
        events.retain(|event| {
            let (left, what, count) = match event.what {
                Canonical::Log(_) => (&mut logs, "log", places.log_count),
                Canonical::Span(_) | Canonical::Native(_) => {
                    (&mut spans, "span", places.span_count)
                }
            };
            if *left > 0 {
                *left -= 1;
                return true;
            }
            // Word for word what the dialect's clients know.
            refused.push(error(&format!(
                "Session has reached maximum {what} limit ({count})"
            )));
            false
        });
        (events, refused)
    }
}

/// The frame that says what is wrong.
pub fn error(message: &str) -> String {
    json!({"type": "error", "message": message}).to_string()
}

/// The frame that answers a session's end; of several sessions on one connection it is told by its place. `invocations` is the text of a JSON list.
pub fn complete(invocations: &str) -> String {
    format!(r#"{{"type":"session_complete","invocations":{invocations}}}"#)
}

/// As [`complete`], in at most `most` bytes: of a longer list as many turns as fit, from the first, and `truncated` with the URL of the whole.
pub fn complete_within(invocations: &str, most: usize, url: &str) -> String {
    let whole = complete(invocations);
    if whole.len() <= most {
        return whole;
    }
    let turns: Vec<&RawValue> = serde_json::from_str(invocations).unwrap_or_default();
    let end = format!(r#"],"truncated":true,"url":{}}}"#, Value::from(url));
    let mut frame = r#"{"type":"session_complete","invocations":["#.to_owned();
    for (at, turn) in turns.iter().enumerate() {
        let comma = if at > 0 { "," } else { "" };
        if frame.len() + comma.len() + turn.get().len() + end.len() > most {
            break;
        }
        frame.push_str(comma);
        frame.push_str(turn.get());
    }
    frame + &end
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Result<Message, String> {
        Reader::new(1).read(text.as_bytes())
    }

    #[test]
    fn a_usual_span_is_shown_as_it_came_where_it_stands_last() {
        const SPAN: &str = r#"{"traceId": "a1000000000000000000000000000001", "spanId": "a100000000000002", "parentSpanId": null, "name": "\"span\":{}}", "kind": 2, "startTimeUnixNano": "1", "endTimeUnixNano": "2", "attributes": [{"key": "span", "value": {"stringValue": "\"span\":{"}}], "status": {"code": 0}}"#;
        let sent = |frame: String| match read(&frame) {
            Ok(Message::Item { item, .. }) => match item.what {
                Canonical::Span(span) => span.sent().map(|sent| sent.as_str().to_owned()),
                _ => panic!("a span"),
            },
            other => panic!("{other:?}"),
        };
        let name = r#""session_id": "\"span\":{}""#;
        for (frame, is_last) in [
            (
                format!(r#"{{"type": "span", {name}, "span": {SPAN}}}"#),
                true,
            ),
            (format!(r#"{{"type":"span",{name},"span":{SPAN} }} "#), true),
            (
                format!(r#"{{{name}, "span": {SPAN}, "type": "span"}}"#),
                false,
            ),
            (
                format!(r#"{{{name}, "type": "span", "sp\u0061n": {SPAN}}}"#),
                false,
            ),
            (
                format!(r#"{{{name}, "type": "span", "span" : {SPAN}}}"#),
                false,
            ),
            (
                format!("{{{name}, \"type\": \"span\",\n\"span\":\n{SPAN}\n}}"),
                true,
            ),
        ] {
            let sent = sent(frame.clone());
            assert_eq!(sent.as_deref(), is_last.then_some(SPAN), "{frame}");
        }
    }

    #[test]
    fn frames_say_what_they_say() {
        let start = r#"{"type":"session_start","session_id":"s \"1\"","trace_id":"t","eval_set_id":null,"metadata":{"a":[1]},"more":1}"#;
        let Ok(Message::Start(start)) = read(start) else {
            panic!("a start");
        };
        assert_eq!(
            (start.session.as_str(), start.trace.as_str()),
            ("s \"1\"", "t")
        );
        assert_eq!((start.eval_set_id, start.metadata.len()), (None, 1));
        let null = r#"{"type":"session_start","session_id":"s","trace_id":"t","eval_set_id":"e","metadata":null}"#;
        assert!(
            matches!(read(null), Ok(Message::Start(start)) if start.metadata.is_empty() && start.eval_set_id.as_deref() == Some("e"))
        );
        assert_eq!(read(r#"{"type":"hello"}"#), Ok(Message::Other));
        assert_eq!(
            read(r#"{"type":"session_end","session_id":"s"}"#),
            Ok(Message::End {
                session: "s".to_owned()
            })
        );
    }

    #[test]
    fn what_is_malformed_is_told() {
        for (frame, told) in [
            ("", "a frame must be a JSON object"),
            ("[1]", "a frame must be a JSON object"),
            (
                "{",
                "a frame must be a JSON object: EOF while parsing an object at line 1 column 1",
            ),
            ("{}", "type is missing"),
            (r#"{"type":3}"#, "type must be a string"),
            (r#"{"type":"span"}"#, "session_id is missing"),
            (
                r#"{"type":"span","session_id":3}"#,
                "session_id must be a string",
            ),
            (r#"{"type":"span","session_id":"s"}"#, "span is missing"),
            (
                r#"{"type":"span","session_id":"s","span":[]}"#,
                "span must be an object",
            ),
            (r#"{"type":"log","session_id":"s"}"#, "log is missing"),
            (
                r#"{"type":"log","session_id":"s","log":"x"}"#,
                "log must be an object",
            ),
            (r#"{"type":"session_end"}"#, "session_id is missing"),
            (
                r#"{"type":"session_start","session_id":"s"}"#,
                "trace_id is missing",
            ),
            (
                r#"{"type":"session_start","session_id":7,"trace_id":"t"}"#,
                "session_id must be a string",
            ),
            (
                r#"{"type":"session_start","session_id":"","trace_id":"t"}"#,
                "session_id is empty",
            ),
            (
                r#"{"type":"session_start","session_id":"s","trace_id":"t","metadata":[]}"#,
                "metadata must be an object",
            ),
        ] {
            assert_eq!(read(frame), Err(told.to_owned()), "{frame}");
        }
        assert!(Reader::new(1).read(&[0xff]).is_err());
        let long = format!(
            r#"{{"type":"session_end","session_id":"{}"}}"#,
            "x".repeat(513)
        );
        assert!(read(&long).is_err());
    }

    #[test]
    fn an_answer_that_is_too_long_has_the_first_turns_and_says_where_the_whole_is() {
        let turns = format!(
            r#"[{{"a":1}},{{"b":"\u0022]"}},{{"c":"{}"}}]"#,
            "c".repeat(100)
        );
        let whole = complete(&turns);
        assert_eq!(complete_within(&turns, whole.len(), "/x"), whole);
        let part = |most| complete_within(&turns, most, "/x");
        let two = r#"{"type":"session_complete","invocations":[{"a":1},{"b":"\u0022]"}],"truncated":true,"url":"/x"}"#;
        assert_eq!(part(two.len()), two);
        assert_eq!(part(whole.len() - 1), two);
        assert!(
            part(two.len() - 1)
                .starts_with(r#"{"type":"session_complete","invocations":[{"a":1}],"truncated""#)
        );
        let none = r#"{"type":"session_complete","invocations":[],"truncated":true,"url":"/x"}"#;
        assert_eq!(part(10), none);
    }

    fn span(session: &str) -> Result<Message, String> {
        read(&format!(
            r#"{{"type":"span","session_id":"{session}","span":{{}}}}"#
        ))
    }

    #[test]
    fn a_batch_becomes_one_append_for_each_session_between_its_start_and_end() {
        let end = |session: &str| {
            Ok(Message::End {
                session: session.to_owned(),
            })
        };
        let log = read(r#"{"type":"log","session_id":"a","log":{}}"#);
        let batch = [
            span("a"),
            span("b"),
            Err("wrong".to_owned()),
            log,
            span("b"),
            end("a"),
            span("a"),
            span("b"),
        ];
        let told: Vec<_> = plan(batch)
            .into_iter()
            .map(|action| match action {
                Action::Append(append) => {
                    format!("{} {}+{}", append.session, append.spans, append.logs)
                }
                Action::End { session } => format!("end {session}"),
                Action::Answer(text) => text,
                Action::Start(start) => format!("start {}", start.session),
            })
            .collect();
        assert_eq!(
            told,
            [
                "a 1+1",
                "b 3+0",
                r#"{"type":"error","message":"wrong"}"#,
                "end a",
                "a 1+0"
            ]
        );
    }

    #[test]
    fn each_event_without_a_place_is_answered() {
        let Some(Action::Append(append)) = plan([span("a"), span("a"), span("a")]).pop() else {
            panic!("an append");
        };
        let places = Places {
            spans: 1,
            logs: 0,
            span_count: 10_000,
            log_count: 0,
        };
        let (events, refused) = append.within(places);
        assert_eq!(events.len(), 1);
        let told = r#"{"type":"error","message":"Session has reached maximum span limit (10000)"}"#;
        assert_eq!(refused, [told, told]);
    }

    proptest! {
        #[test]
        fn no_frame_panics(text in "\\PC{0,200}", key in "type|session_id|span|log|metadata", value in "[\\[\\]{}\":,a-z0-9]{0,20}") {
            let _ = read(&text);
            let _ = read(&format!(r#"{{"type":"span","session_id":"s","{key}":{value}}}"#));
        }
    }
}
