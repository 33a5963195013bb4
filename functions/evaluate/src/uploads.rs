//! Uploaded trace files: which are taken, and what they hold.

use bytes::Bytes;
use tailspan_core::{
    files::{self, FileTrace, Format},
    fold::State,
    invocations::{Invocation, invocations},
    limits::Limits,
    observed::What,
    pricing::Prices,
    settle::Status,
    summary::{Summary, summary},
};

use crate::{
    answer::Refusal,
    request::{FILE_BYTES, Part},
};

/// A trace of an uploaded file, as it is read for an answer.
pub(crate) struct Uploaded {
    /// As the file spells it.
    pub(crate) trace_id: String,
    /// The file's name.
    pub(crate) file: String,
    /// The first start of a step, microseconds since 1970; 0: none is told.
    pub(crate) started_us: u64,
    pub(crate) state: State,
}

/// A file that may be read.
#[derive(Clone, Debug)]
pub(crate) struct TraceFile {
    pub(crate) name: String,
    bytes: Bytes,
}

impl TraceFile {
    /// The files of a form; those that nobody chose are passed over.
    ///
    /// # Errors
    /// 400 for a name or a size that is not taken, and when there is none.
    pub(crate) fn all(parts: &[&Part]) -> Result<Vec<Self>, Refusal> {
        let mut taken = Vec::new();
        for part in parts.iter().filter(|part| !part.called().is_empty()) {
            let name = part.called();
            let lower = name.to_ascii_lowercase();
            if !lower.ends_with(".json") && !lower.ends_with(".jsonl") {
                return Err(Refusal::unusable(format!(
                    "Invalid file extension for {name}. Only .json and .jsonl files are allowed."
                )));
            }
            if part.bytes.len() > FILE_BYTES {
                return Err(Refusal::unusable(format!("File {name} exceeds 10MB limit")));
            }
            taken.push(Self {
                name: name.to_owned(),
                bytes: part.bytes.clone(),
            });
        }
        match taken.is_empty() {
            true => Err(Refusal::unusable("No valid trace files provided")),
            false => Ok(taken),
        }
    }

    /// The traces that it holds.
    ///
    /// # Errors
    /// Why the file cannot be read, with its name and place.
    pub(crate) fn read(&self, format: Option<Format>) -> Result<Vec<Uploaded>, String> {
        let limits = limits(self.bytes.len());
        let traces = files::read_within(&self.name, &self.bytes, format, &limits);
        let traces = traces.map_err(|error| error.to_string())?;
        Ok(traces.iter().map(Uploaded::of).collect())
    }
}

/// What a stranger's file of this size may hold: packed, it must not become many times that.
pub(crate) fn limits(bytes: usize) -> Limits {
    Limits {
        body_bytes: bytes.max(1024 * 1024).saturating_mul(4),
        ..Limits::default()
    }
}

impl Uploaded {
    pub(crate) fn of(trace: &FileTrace) -> Self {
        let starts = trace
            .items
            .iter()
            .filter_map(|item| match item.what.read() {
                What::Span(span) => Some(span.start_time_unix_nano),
                _ => None,
            });
        Self {
            trace_id: trace.spelled.clone(),
            file: trace.source.clone(),
            started_us: starts.min().unwrap_or_default() / 1000,
            state: trace.fold(),
        }
    }

    pub(crate) fn turns(&self) -> Vec<Invocation> {
        invocations(&self.state)
    }

    pub(crate) fn summary(&self) -> Summary {
        summary(
            &self.state,
            &self.trace_id,
            Status::Completed,
            &Prices::default(),
        )
    }
}

/// The name of a file's format, as a request says it.
///
/// # Errors
/// 400 for a name that is none.
pub(crate) fn format(name: Option<&str>) -> Result<Option<Format>, Refusal> {
    let name = name.map(str::trim).filter(|name| !name.is_empty());
    let format = name.map(str::parse::<Format>).transpose();
    format.map_err(|unknown| Refusal::unusable(format!("trace_{unknown}")))
}
