//! A trace as it lies in the archive: lines of JSON, of which every release can make the trace again as it was.
//!
//! The first line is the [`Header`]. Then come the chunks of the log, each in lines of its own as `tailspan export --format jsonl` writes them, so that other tools read
//! them too; the first line of a chunk says by its key `chunk` which events it holds and how many lines it has. Then the identities of what was stored, by which what is
//! sent again is known, and a last line that says that the file is whole. Blocks of the log are not kept as they are: their format changes sooner than an archive is thrown away.
//!
//! What JSON cannot hold to the last bit (a key that is no text of ours, a trace whose id is none of OpenTelemetry's) is kept as the bytes that were stored, in base64, under `raw`.

use std::{collections::BTreeMap, sync::Arc};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use prost::Message as _;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::{
    continuity::ChunkSpan,
    files::{
        self,
        write::{Form, Writer},
    },
    id::{TenantId, TraceId},
    observed::{Canonical, Context, Observation, Recorded},
    wire,
};

/// What this release writes; it reads no other.
const FORMAT: u32 = 1;
/// How the first line begins, by which an archive is told from other trace files.
pub const BEGINS: &str = "{\"tailspan_archive\":";
/// Identities of one line.
const IDENTITIES_PER_LINE: usize = 4096;
/// Lines of one chunk, at most: it has a line for each event when every one has another context.
const MOST_LINES: usize = 4096;

/// Whose trace it is, and how it stood.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    tailspan_archive: u32,
    pub tenant: TenantId,
    pub trace_id: TraceId,
    /// The counted state, as the log keeps it.
    pub state: BTreeMap<String, String>,
    /// What was archived together: a trace to which something came after it had been archived is archived again, behind what is there.
    pub parts: Vec<Part>,
}

/// Events that the log held at one time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// When the first of them came, milliseconds since 1970.
    pub from_unix_ms: u64,
    /// The number of the last.
    pub through: u64,
}

impl Header {
    pub fn new(
        tenant: &TenantId,
        trace: &TraceId,
        state: BTreeMap<String, String>,
        parts: Vec<Part>,
    ) -> Self {
        Self {
            tailspan_archive: FORMAT,
            tenant: tenant.clone(),
            trace_id: trace.clone(),
            state,
            parts,
        }
    }

    /// A number of the state; 0 where there is none.
    pub fn number(&self, field: &str) -> u64 {
        let value = self.state.get(field).and_then(|value| value.parse().ok());
        value.unwrap_or_default()
    }

    pub fn line(&self) -> String {
        json!(self).to_string() + "\n"
    }
}

/// A chunk of the log. When it holds fewer events than its span, the others could not be read when it was archived.
#[derive(Clone, Debug, PartialEq)]
pub struct Chunk {
    pub span: ChunkSpan,
    pub arrived_unix_ms: u64,
    pub events: Vec<(Arc<Context>, Canonical)>,
}

/// What the lines of an archive hold.
#[derive(Clone, Debug, PartialEq)]
pub enum Item {
    Header(Header),
    Chunk(Chunk),
    Identities(Vec<i64>),
    /// The file is whole, and has so many events.
    End {
        events: u64,
    },
}

/// Why a file is no archive that can be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    #[error("the archive has format {0}, this release reads {FORMAT}")]
    Format(u32),
    #[error("line {line} of the archive is damaged: {what}")]
    Damaged { line: u64, what: String },
    #[error("the archive is cut short")]
    Short,
}

#[derive(Serialize, Deserialize)]
struct Head {
    first: u64,
    last: u64,
    mark: u32,
    previous: u32,
    arrived_unix_ms: u64,
    /// 0: none of its events could be read.
    lines: usize,
}

/// What a line says beside its events.
#[derive(Default, Deserialize)]
struct Marks {
    tailspan_archive: Option<u32>,
    chunk: Option<Head>,
    raw: Option<Raw>,
    identities: Option<Vec<i64>>,
    end: Option<u64>,
}

/// Events as bytes.
#[derive(Serialize, Deserialize)]
struct Raw {
    contexts: Vec<String>,
    /// The context, what it is (`span`, `log`, `native`), and it itself.
    events: Vec<(usize, String, String)>,
}

/// What a context says, as a message of its own.
#[derive(Clone, PartialEq, prost::Message)]
struct RawContext {
    #[prost(message, repeated, tag = "1")]
    resource: Vec<wire::KeyValue>,
    #[prost(message, optional, tag = "2")]
    scope: Option<wire::Scope>,
    #[prost(string, tag = "3")]
    schema_url: String,
}

/// A chunk of the log as lines: what was read of it, and where it stands.
pub fn chunk_lines(
    trace: &TraceId,
    span: ChunkSpan,
    arrived_unix_ms: u64,
    recorded: &[Recorded],
) -> String {
    let head = |lines| {
        let head = Head {
            first: span.first,
            last: span.last,
            mark: span.mark,
            previous: span.previous,
            arrived_unix_ms,
            lines,
        };
        format!("{{\"chunk\":{}", json!(head))
    };
    let events: Vec<_> = recorded
        .iter()
        .map(|recorded| {
            let observation = &recorded.observation;
            let what = Canonical::from(&observation.what);
            (Arc::clone(&observation.context), what)
        })
        .collect();
    if events.is_empty() {
        return head(0) + "}\n";
    }
    let mut text = String::new();
    let mut writer = Writer::new(Form::Jsonl, trace);
    for recorded in recorded {
        writer.push(recorded, &mut text);
    }
    writer.end_pass(&mut text);
    // Read as it will be read: only what comes back to the bit is kept so.
    let lines = text.lines().count();
    if lines <= MOST_LINES && read_lines(&text).is_ok_and(|read| read == events) {
        let rest = text.strip_prefix('{').unwrap_or(&text);
        return format!("{},{rest}", head(lines));
    }
    let raw = json!(Raw::of(&events));
    format!("{},\"raw\":{raw}}}\n", head(1))
}

/// Lines of identities, none for none.
pub fn identity_lines(identities: &[i64]) -> String {
    let lines = identities.chunks(IDENTITIES_PER_LINE);
    lines
        .map(|some| json!({"identities": some}).to_string() + "\n")
        .collect()
}

/// The last line.
pub fn end_line(events: u64) -> String {
    format!("{{\"end\":{events}}}\n")
}

/// Reads an archive line by line; holds the lines of one chunk.
#[derive(Debug, Default)]
pub struct Reader {
    lines: u64,
    has_header: bool,
    has_end: bool,
    last_seq: u64,
    events: u64,
    /// The chunk whose lines are being collected, and how many are still to come.
    open: Option<(Chunk, usize, String)>,
}

impl Reader {
    /// Takes a line, and says what is complete with it.
    ///
    /// # Errors
    /// [`Unreadable`]: nothing that comes after it is worth reading.
    pub fn line(&mut self, line: &str) -> Result<Option<Item>, Unreadable> {
        self.lines += 1;
        let number = self.lines;
        let damaged = |what: &dyn std::fmt::Display| Unreadable::Damaged {
            line: number,
            what: what.to_string(),
        };
        if self.has_end {
            return Err(damaged(&"something stands behind the end"));
        }
        if let Some((mut chunk, left, mut text)) = self.open.take() {
            text.push_str(line);
            text.push('\n');
            if left > 1 {
                self.open = Some((chunk, left - 1, text));
                return Ok(None);
            }
            chunk.events = read_lines(&text).map_err(|what| damaged(&what))?;
            return self.chunk(chunk, damaged).map(Some);
        }
        let marks: Marks = serde_json::from_str(line).map_err(|error| damaged(&error))?;
        if !self.has_header {
            return match marks.tailspan_archive {
                None => Err(damaged(&"it is no header of an archive")),
                Some(FORMAT) => {
                    self.has_header = true;
                    let header: Header =
                        serde_json::from_str(line).map_err(|error| damaged(&error))?;
                    self.last_seq = header.number("base");
                    Ok(Some(Item::Header(header)))
                }
                Some(other) => Err(Unreadable::Format(other)),
            };
        }
        match marks {
            Marks {
                chunk: Some(head),
                raw,
                ..
            } => {
                if head.first <= self.last_seq || head.last < head.first {
                    return Err(damaged(&"its events stand out of order"));
                }
                let mut chunk = Chunk {
                    span: ChunkSpan {
                        first: head.first,
                        last: head.last,
                        mark: head.mark,
                        previous: head.previous,
                    },
                    arrived_unix_ms: head.arrived_unix_ms,
                    events: Vec::new(),
                };
                if head.lines > MOST_LINES {
                    return Err(damaged(&"it announces too many lines"));
                }
                if let Some(raw) = raw {
                    chunk.events = raw.read().ok_or_else(|| damaged(&"its bytes are none"))?;
                } else if head.lines > 1 {
                    self.open = Some((chunk, head.lines - 1, format!("{line}\n")));
                    return Ok(None);
                } else if head.lines == 1 {
                    chunk.events = read_lines(line).map_err(|what| damaged(&what))?;
                }
                self.chunk(chunk, damaged).map(Some)
            }
            Marks {
                identities: Some(identities),
                ..
            } => Ok(Some(Item::Identities(identities))),
            Marks {
                end: Some(events), ..
            } if events == self.events => {
                self.has_end = true;
                Ok(Some(Item::End { events }))
            }
            Marks { end: Some(_), .. } => Err(damaged(&"events are missing before it")),
            // A later release may have more to say.
            _ => Ok(None),
        }
    }

    fn chunk(
        &mut self,
        chunk: Chunk,
        damaged: impl Fn(&dyn std::fmt::Display) -> Unreadable,
    ) -> Result<Item, Unreadable> {
        let count = chunk.span.last - chunk.span.first + 1;
        let read = chunk.events.len() as u64;
        if read > count {
            return Err(damaged(&"it holds more events than it says"));
        }
        self.last_seq = chunk.span.last;
        self.events += read;
        Ok(Item::Chunk(chunk))
    }

    /// All lines were given.
    ///
    /// # Errors
    /// [`Unreadable::Short`].
    pub fn finish(&self) -> Result<(), Unreadable> {
        match self.has_end {
            true => Ok(()),
            false => Err(Unreadable::Short),
        }
    }
}

/// The events of the lines of a chunk.
fn read_lines(text: &str) -> Result<Vec<(Arc<Context>, Canonical)>, String> {
    let read = files::read_within("the chunk", text.as_bytes(), None, &files::limits());
    let mut traces = read.map_err(|error| error.to_string())?;
    match (traces.pop(), traces.is_empty()) {
        (Some(trace), true) => Ok(trace
            .items
            .into_iter()
            .map(|item| (item.context, item.what))
            .collect()),
        _ => Err("it is not of one trace".to_owned()),
    }
}

impl Raw {
    fn of(events: &[(Arc<Context>, Canonical)]) -> Self {
        let mut raw = Self {
            contexts: Vec::new(),
            events: Vec::new(),
        };
        let mut last: Option<&Arc<Context>> = None;
        for (context, what) in events {
            if last.is_none_or(|last| !Arc::ptr_eq(last, context) && last != context) {
                let context = RawContext {
                    resource: context.resource.clone(),
                    scope: Some(context.scope.clone()),
                    schema_url: context.schema_url.clone(),
                };
                raw.contexts.push(STANDARD.encode(context.encode_to_vec()));
            }
            last = Some(context);
            let (kind, text) = match what {
                Canonical::Span(span) => ("span", STANDARD.encode(&**span)),
                Canonical::Log(bytes) => ("log", STANDARD.encode(bytes)),
                Canonical::Native(json) => ("native", json.to_string()),
            };
            let context = raw.contexts.len() - 1;
            raw.events.push((context, kind.to_owned(), text));
        }
        raw
    }

    fn read(self) -> Option<Vec<(Arc<Context>, Canonical)>> {
        let contexts = self.contexts.into_iter().map(|context| {
            let bytes = STANDARD.decode(context).ok()?;
            let context = RawContext::decode(bytes.as_slice()).ok()?;
            Some(Arc::new(Context {
                resource: context.resource,
                scope: context.scope.unwrap_or_default(),
                schema_url: context.schema_url,
            }))
        });
        let contexts: Vec<_> = contexts.collect::<Option<_>>()?;
        let events = self.events.into_iter().map(|(context, kind, text)| {
            let context = Arc::clone(contexts.get(context)?);
            let bytes = || STANDARD.decode(&text).map(Bytes::from).ok();
            let what = match kind.as_str() {
                "span" => Canonical::Span(bytes()?.into()),
                "log" => Canonical::Log(bytes()?),
                "native" => Canonical::Native(text.into()),
                _ => return None,
            };
            // What is stored must be readable: everybody who reads the log trusts that it is.
            let is_whole = match &what {
                Canonical::Span(span) => wire::Span::decode(Bytes::clone(span)).is_ok(),
                Canonical::Log(bytes) => wire::LogRecord::decode(bytes.clone()).is_ok(),
                Canonical::Native(json) => {
                    serde_json::from_str::<serde_json::Map<_, _>>(json).is_ok()
                }
            };
            is_whole.then_some((context, what))
        });
        events.collect()
    }
}

/// The events as a reader of the log sees them.
pub fn recorded(chunk: &Chunk) -> Vec<Recorded> {
    let events = (chunk.span.first..).zip(&chunk.events);
    events
        .map(|(seq, (context, what))| Recorded {
            seq,
            arrived_unix_ms: chunk.arrived_unix_ms,
            observation: Observation {
                context: Arc::clone(context),
                what: what.read(),
            },
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observed::What;

    fn trace() -> TraceId {
        TraceId::parse("5b8efff798038103d269b633813fc60c").unwrap()
    }

    fn span(name: &str, value: wire::any_value::Value) -> What {
        What::Span(Arc::new(wire::Span {
            span_id: Bytes::from_static(&[1, 2, 3, 4, 5, 6, 7, 8]),
            name: name.to_owned(),
            start_time_unix_nano: 1_800_000_000_000_000_001,
            end_time_unix_nano: 1_800_000_000_500_000_002,
            attributes: vec![wire::KeyValue {
                key: "n".into(),
                value: Some(wire::AnyValue { value: Some(value) }),
            }],
            ..Default::default()
        }))
    }

    fn log(body: &str) -> What {
        What::Log(Arc::new(wire::LogRecord {
            time_unix_nano: 1_800_000_000_000_000_009,
            body: Some(wire::AnyValue {
                value: Some(wire::any_value::Value::String(body.into())),
            }),
            ..Default::default()
        }))
    }

    fn events(all: Vec<What>) -> Vec<Recorded> {
        let contexts = ["a", "b"].map(|name| {
            Arc::new(Context {
                scope: wire::Scope {
                    name: name.to_owned(),
                    ..Default::default()
                },
                ..Context::default()
            })
        });
        (7..)
            .zip(all)
            .map(|(seq, what)| Recorded {
                seq,
                arrived_unix_ms: 1_800_000_000_123,
                observation: Observation {
                    // A native event has none.
                    context: match what {
                        What::Native(_) => Arc::default(),
                        _ => Arc::clone(&contexts[usize::try_from(seq % 2).unwrap()]),
                    },
                    what,
                },
            })
            .collect()
    }

    fn header() -> Header {
        let state = BTreeMap::from([("base".to_owned(), "6".to_owned())]);
        let parts = vec![Part {
            from_unix_ms: 1,
            through: 12,
        }];
        Header::new(&TenantId::default(), &trace(), state, parts)
    }

    fn written(trace: &TraceId, recorded: &[Recorded], span: ChunkSpan) -> String {
        header().line()
            + &chunk_lines(trace, span, 1_800_000_000_123, recorded)
            + &identity_lines(&[i64::MIN, 0, i64::MAX])
            + &end_line(recorded.len() as u64)
    }

    fn read(text: &str) -> Result<Vec<Item>, Unreadable> {
        let mut reader = Reader::default();
        let mut items = Vec::new();
        for line in text.lines() {
            items.extend(reader.line(line)?);
        }
        reader.finish()?;
        Ok(items)
    }

    fn check(trace: &TraceId, all: Vec<What>, is_raw: bool) {
        let all = events(all);
        let span = ChunkSpan {
            first: 7,
            last: 6 + (all.len() as u64).max(2),
            mark: 5,
            previous: 4,
        };
        let text = written(trace, &all, span);
        assert_eq!(text.contains("\"raw\""), is_raw, "{text}");
        let items = read(&text).unwrap();
        let Some(Item::Chunk(chunk)) = items.get(1) else {
            panic!("{items:?}");
        };
        assert_eq!((chunk.span, recorded(chunk)), (span, all));
        assert_eq!(items[0], Item::Header(header()));
        assert_eq!(items[2], Item::Identities(vec![i64::MIN, 0, i64::MAX]));
    }

    #[test]
    fn what_is_written_is_read_to_the_bit() {
        use wire::any_value::Value;
        let native = || What::Native("{\"event_type\":\"step\",\"name\":\"n\"}".into());
        let all = vec![
            span("chat", Value::Double(0.1)),
            log("hi"),
            native(),
            log("a [ and \"}}\""),
            span("tool", Value::Int(i64::MIN)),
            span("tool", Value::Bytes(Bytes::from_static(&[0, 255]))),
        ];
        check(&trace(), all, false);
        // No trace of OpenTelemetry's.
        let native_named = TraceId::parse("Run-7").unwrap();
        check(
            &native_named,
            vec![span("chat", Value::Bool(true)), native()],
            false,
        );
        check(&native_named, vec![native(), native()], false);
        // A double with a payload that JSON has no word for.
        let odd = f64::from_bits(0x7ff8_0000_0000_0001);
        let all = events(vec![span("chat", Value::Double(odd))]);
        let span = ChunkSpan {
            first: 7,
            last: 7,
            mark: 5,
            previous: 4,
        };
        let items = read(&written(&trace(), &all, span)).unwrap();
        let Some(Item::Chunk(chunk)) = items.get(1) else {
            panic!("{items:?}");
        };
        let was = Canonical::from(&all[0].observation.what);
        assert_eq!(chunk.events[0].1, was);
        // Nothing of it could be read.
        check(&trace(), Vec::new(), false);
    }

    #[test]
    fn what_is_cut_or_damaged_is_told() {
        let all = events(vec![log("a"), log("b"), log("c")]);
        let span = ChunkSpan {
            first: 7,
            last: 9,
            mark: 5,
            previous: 4,
        };
        let text = written(&trace(), &all, span);
        let lines: Vec<&str> = text.lines().collect();
        for kept in 0..lines.len() {
            assert!(read(&lines[..kept].join("\n")).is_err(), "{kept}");
        }
        // A line less in the middle.
        for left_out in 0..lines.len() - 2 {
            let mut some = lines.clone();
            some.remove(left_out);
            assert!(read(&some.join("\n")).is_err(), "{left_out}");
        }
        let later = text.replacen("\"tailspan_archive\":1", "\"tailspan_archive\":2", 1);
        assert_eq!(read(&later), Err(Unreadable::Format(2)));
        assert!(read("{}").is_err() && read("").is_err() && read("[").is_err());
        assert!(text.starts_with(BEGINS));
    }
}
