//! What the log keeps: observations, as their producers sent them.
//!
//! The log stores facts in the producer's own words; conventions are applied when they are read. A mapper that learns a new
//! dialect tomorrow therefore also mends the traces of today, and nothing is stored twice.

use std::ops::Deref;
use std::sync::Arc;

use bytes::Bytes;
use prost::Message as _;

use crate::{verbosity::Verbosity, wire};

/// The resource and instrumentation scope that a batch of spans or log records shares.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Context {
    pub resource: Vec<wire::KeyValue>,
    pub scope: wire::Scope,
    pub schema_url: String,
}

/// One fact about a trace: what becomes one event of its log.
#[derive(Clone, Debug, PartialEq)]
pub struct Observation {
    pub context: Arc<Context>,
    pub what: What,
}

/// The fact itself, in its producer's words; cheap to clone.
#[derive(Clone, Debug, PartialEq)]
pub enum What {
    Span(Arc<wire::Span>),
    Log(Arc<wire::LogRecord>),
    /// A native event: a JSON object, as posted (already checked to be an object of bounded size and depth).
    Native(Arc<str>),
}

/// An observation's own part in the one form in which it is kept, sized and hashed.
///
/// A span or log record is its protobuf message as [`crate::wire`] writes it: fields in ascending order, none that says nothing, no trace id (inside
/// the trace's log it is the key). Most exporters send just that, so ingest takes their bytes over without reading what they mean.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Canonical {
    Span(EncodedSpan),
    Log(Bytes),
    Native(Arc<str>),
}

/// A span's message; and the span itself, and the JSON that it came as, where whoever wrote the message had them at hand.
#[derive(Clone, Debug)]
pub struct EncodedSpan {
    bytes: Bytes,
    span: Option<Arc<wire::Span>>,
    sent: Option<Sent>,
}

/// What a span came as: JSON of one line, that says what the span says and nothing beside. As [`crate::live::wire_form::wire_span`] shows it, without writing it again.
#[derive(Clone, Debug)]
pub struct Sent(Bytes);

impl Sent {
    /// What is in UTF-8; other bytes are shown as nothing.
    pub fn as_str(&self) -> &str {
        str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl EncodedSpan {
    /// Writes a span, and keeps it beside what was written.
    pub fn with(span: wire::Span) -> Self {
        Self::written(span.encode_to_vec().into(), span)
    }

    /// A span as it was written, and the span itself.
    pub(crate) fn written(bytes: Bytes, span: wire::Span) -> Self {
        Self {
            bytes,
            span: Some(Arc::new(span)),
            sent: None,
        }
    }

    /// The same, and what it came as, see [`Sent`]; in UTF-8.
    pub(crate) fn sent_as(self, json: Bytes) -> Self {
        let sent = Some(Sent(json));
        Self { sent, ..self }
    }

    /// The span, where it need not be read again.
    pub fn at_hand(&self) -> Option<&Arc<wire::Span>> {
        self.span.as_ref()
    }

    /// What it came as, where that is at hand.
    pub fn sent(&self) -> Option<&Sent> {
        self.sent.as_ref()
    }

    /// What it came as is not what is to be shown of it.
    pub(crate) fn forget_sent(&mut self) {
        self.sent = None;
    }
}

impl From<Bytes> for EncodedSpan {
    fn from(bytes: Bytes) -> Self {
        Self {
            bytes,
            span: None,
            sent: None,
        }
    }
}

impl Deref for EncodedSpan {
    type Target = Bytes;

    fn deref(&self) -> &Bytes {
        &self.bytes
    }
}

impl PartialEq for EncodedSpan {
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes
    }
}

impl Eq for EncodedSpan {}

impl Canonical {
    pub fn len(&self) -> usize {
        match self {
            Self::Span(span) => span.bytes.len(),
            Self::Log(bytes) => bytes.len(),
            Self::Native(json) => json.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The fact itself. A message that cannot be read is empty: that takes a caller who made one up.
    pub fn read(&self) -> What {
        match self {
            Self::Span(of) => What::Span(match &of.span {
                Some(span) => Arc::clone(span),
                None => Arc::new(wire::Span::decode(of.bytes.clone()).unwrap_or_default()),
            }),
            Self::Log(bytes) => What::Log(Arc::new(
                wire::LogRecord::decode(bytes.clone()).unwrap_or_default(),
            )),
            Self::Native(json) => What::Native(Arc::clone(json)),
        }
    }
}

impl From<&What> for Canonical {
    fn from(what: &What) -> Self {
        match what {
            What::Span(span) => Self::Span(Bytes::from(span.encode_to_vec()).into()),
            What::Log(log) => Self::Log(log.encode_to_vec().into()),
            What::Native(json) => Self::Native(Arc::clone(json)),
        }
    }
}

/// An observation on its way in, with its identity.
#[derive(Clone, Debug, PartialEq)]
pub struct Incoming {
    pub context: Arc<Context>,
    pub what: Canonical,
    /// What makes a re-send recognisable within its trace; `None` is never a duplicate (DESIGN.md section 4, "Identity").
    pub identity: Option<i64>,
    /// The observation may end its run (a root's end, a terminal native event): look at the trace soon.
    pub may_end_run: bool,
    /// How much of it its producer wants recorded; [`Verbosity::Debug`] is everything.
    pub trace_level: Verbosity,
}

impl Incoming {
    /// The observation as a reader of the log will see it.
    pub fn observation(&self) -> Observation {
        Observation {
            context: Arc::clone(&self.context),
            what: self.what.read(),
        }
    }
}

/// An observation read from the log.
#[derive(Clone, Debug, PartialEq)]
pub struct Recorded {
    /// Position in the trace, from 1.
    pub seq: u64,
    /// When the log took it, milliseconds since 1970.
    pub arrived_unix_ms: u64,
    pub observation: Observation,
}
