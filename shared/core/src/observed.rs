//! What the log keeps: observations, as their producers sent them.
//!
//! The log stores facts in the producer's own words; conventions are applied when they are read. A mapper that learns a new
//! dialect tomorrow therefore also mends the traces of today, and nothing is stored twice.

use std::sync::Arc;

use crate::wire;

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

/// The fact itself, in its producer's words.
#[derive(Clone, Debug, PartialEq)]
pub enum What {
    Span(Box<wire::Span>),
    Log(Box<wire::LogRecord>),
    /// A native event: a JSON object, as posted (already checked to be an object of bounded size and depth).
    Native(Arc<str>),
}

/// An observation on its way in, with its identity.
#[derive(Clone, Debug, PartialEq)]
pub struct Incoming {
    pub observation: Observation,
    /// What makes a re-send recognisable within its trace; `None` is never a duplicate (DESIGN.md section 4, "Identity").
    pub identity: Option<i64>,
    /// The observation may end its run (a root's end, a terminal native event): look at the trace soon.
    pub may_end_run: bool,
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
