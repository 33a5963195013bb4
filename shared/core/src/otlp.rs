//! OTLP/HTTP in: bytes to observations, and the answer to them.
//!
//! Input is strangers': one bad span costs itself and is reported as `partialSuccess`; only a body of which not even the spans'
//! boundaries can be found is refused as a whole. What the attributes mean is not known here.

mod budget;
mod canonical;
mod inflate;
mod item;
mod json;
mod names;
mod protobuf;
pub(crate) mod reading;
#[cfg(test)]
mod tests;

use prost::Message;
use serde_json::json;

pub use self::inflate::inflate;
pub(crate) use self::json::mend_surrogates;
use self::{
    budget::Budget,
    item::{Kind, Sink},
};
use crate::{
    id::TraceId,
    limits::Limits,
    observed::{Canonical, Incoming},
    wire,
};

/// A single span as OTLP JSON has it, however it says what it says. Its ids are as they came.
pub(crate) fn read_span(json: &str) -> Option<wire::Span> {
    let budget = Budget::new(&Limits::default());
    match json::item(json, Kind::Span, &budget) {
        Ok(item::Item::Span(span)) => Some(*span),
        _ => None,
    }
}

/// As [`read_span`], a log record.
pub(crate) fn read_log(json: &str) -> Option<wire::LogRecord> {
    let budget = Budget::new(&Limits::default());
    match json::item(json, Kind::Log, &budget) {
        Ok(item::Item::Log(log)) => Some(*log),
        _ => None,
    }
}

/// What makes a re-send of a span recognisable within its trace: its id, and its bytes as they are kept.
pub(crate) fn span_identity(span_id: &[u8], kept: &[u8]) -> i64 {
    item::identity(Kind::Span, span_id, kept)
}

/// The identity of a span or log record as it is kept, where it is made of its content.
pub(crate) fn identity_of(what: &Canonical) -> Option<i64> {
    Some(match what {
        Canonical::Span(bytes) => {
            let span = wire::Span::decode(&bytes[..]).ok()?;
            item::identity(Kind::Span, &span.span_id, bytes)
        }
        Canonical::Log(bytes) => {
            let time = wire::LogRecord::decode(&bytes[..]).ok()?.time_unix_nano;
            item::identity(Kind::Log, &time.to_be_bytes(), bytes)
        }
        Canonical::Native(_) => return None,
    })
}

/// How a request is written; its answer is written the same way (OTLP specification, "OTLP/HTTP Response").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    Protobuf,
    Json,
}

impl Encoding {
    /// Reads a `Content-Type`; without one, looks at the (unpacked) body. `None`: neither protobuf nor JSON, answer 415.
    pub fn of(content_type: Option<&str>, body: &[u8]) -> Option<Self> {
        let name = content_type.map(|value| value.split(';').next().unwrap_or("").trim());
        match name {
            None | Some("") => Some(if looks_like_json(body) {
                Self::Json
            } else {
                Self::Protobuf
            }),
            Some(name) if name.eq_ignore_ascii_case("application/json") => Some(Self::Json),
            Some(name)
                if [
                    "application/x-protobuf",
                    "application/protobuf",
                    "application/x-google-protobuf",
                ]
                .iter()
                .any(|known| name.eq_ignore_ascii_case(known)) =>
            {
                Some(Self::Protobuf)
            }
            Some(_) => None,
        }
    }

    pub fn content_type(self) -> &'static str {
        match self {
            Self::Protobuf => "application/x-protobuf",
            Self::Json => "application/json",
        }
    }
}

/// `{` would be a group, which proto3 does not have. White space may begin both: a line feed is the tag of field 1.
fn looks_like_json(body: &[u8]) -> bool {
    match body.trim_ascii_start() {
        text @ [b'{', ..] => text.len() == body.len() || protobuf::check(body).is_err(),
        _ => false,
    }
}

/// The signal an endpoint is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    Traces,
    Logs,
    Metrics,
}

/// A request of which nothing was taken, and what its sender should do about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refused {
    /// The HTTP status: 400, 413 or 415.
    pub status: u16,
    /// For the product's own error bodies.
    pub code: &'static str,
    pub message: String,
}

impl Refused {
    pub(crate) fn bad_request(message: String) -> Self {
        Self {
            status: 400,
            code: "invalid_body",
            message,
        }
    }

    pub(crate) fn too_large(limit: usize) -> Self {
        Self {
            status: 413,
            code: "body_too_large",
            message: format!(
                "the body is larger than {limit} bytes unpacked: send smaller batches"
            ),
        }
    }

    pub(crate) fn unsupported(message: String) -> Self {
        Self {
            status: 415,
            code: "unsupported_media_type",
            message,
        }
    }

    /// For a `Content-Type` that [`Encoding::of`] does not know.
    pub fn content_type() -> Self {
        Self::unsupported(
            "content type must be application/x-protobuf or application/json".to_owned(),
        )
    }
}

/// What a request held.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Decoded {
    /// Traces in the order of their first item; each item in its order. A trace id inside an item is empty: it is the key.
    pub traces: Vec<(TraceId, Vec<Incoming>)>,
    /// Items taken, with those repeated inside the request.
    pub accepted: u64,
    /// Of the accepted: repeats of an item of the same request, dropped.
    pub repeated: u64,
    /// One entry for each reason.
    pub rejected: Vec<Rejected>,
    /// Attributes, span events and links of accepted items that did not fit [`Limits`].
    pub left_out: u64,
    /// About how much memory all this takes, together with the body it was read from.
    pub memory_bytes: usize,
}

/// Items of one request that were not taken for the same reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejected {
    /// A word for metrics.
    pub reason: &'static str,
    pub count: u64,
    /// The first of them and what to do.
    pub example: String,
}

impl Decoded {
    pub fn rejected_count(&self) -> u64 {
        self.rejected.iter().map(|rejected| rejected.count).sum()
    }

    /// `None` when all is well. With nothing rejected the message is a warning (OTLP specification, "Partial Success").
    pub fn partial_success(&self) -> Option<wire::PartialSuccess> {
        let mut parts: Vec<String> = self
            .rejected
            .iter()
            .map(|rejected| {
                format!(
                    "{} rejected ({}): {}",
                    rejected.count, rejected.reason, rejected.example
                )
            })
            .collect();
        if self.left_out > 0 {
            parts.push(format!(
                "{} attributes, span events or links were left out: too many or too deep",
                self.left_out
            ));
        }
        (!parts.is_empty()).then(|| wire::PartialSuccess {
            rejected: i64::try_from(self.rejected_count()).unwrap_or(i64::MAX),
            error_message: parts.join("; "),
        })
    }
}

/// Decodes the body of `POST /v1/traces`.
///
/// # Errors
/// 400 when the body is cut short or damaged outside of its spans. The body's size is [`inflate`]'s to bound.
pub fn decode_traces(encoding: Encoding, body: &[u8], limits: &Limits) -> Result<Decoded, Refused> {
    decode(encoding, body, Kind::Span, limits)
}

/// Decodes the body of `POST /v1/logs`. A record without a trace id belongs to no trace and is rejected.
///
/// # Errors
/// As [`decode_traces`].
pub fn decode_logs(encoding: Encoding, body: &[u8], limits: &Limits) -> Result<Decoded, Refused> {
    decode(encoding, body, Kind::Log, limits)
}

/// Checks the body of `POST /v1/metrics`, which is answered and not kept.
///
/// # Errors
/// 400 when it is not a message at all.
pub fn check_metrics(encoding: Encoding, body: &[u8]) -> Result<(), Refused> {
    match encoding {
        Encoding::Protobuf => protobuf::check(body).map_err(|_| damaged_protobuf(body)),
        Encoding::Json => json::check(body).map_err(damaged_json),
    }
}

fn decode(
    encoding: Encoding,
    body: &[u8],
    kind: Kind,
    limits: &Limits,
) -> Result<Decoded, Refused> {
    let budget = Budget::new(limits);
    let mut sink = Sink::new(kind, limits);
    match encoding {
        Encoding::Protobuf => protobuf::export_request(body, &budget, &mut sink)
            .map_err(|_| damaged_protobuf(body))?,
        Encoding::Json => json::export_request(body, &budget, &mut sink).map_err(damaged_json)?,
    }
    Ok(sink.finish(body.len(), &budget))
}

fn damaged_protobuf(body: &[u8]) -> Refused {
    Refused::bad_request(
        if looks_like_json(body) {
            "the body is JSON: send it with content-type application/json"
        } else if looks_packed(body) {
            "the body is compressed: say so with content-encoding"
        } else {
            "the protobuf body is cut short or damaged: send a whole export request, with the content-encoding it has"
        }
        .to_owned(),
    )
}

fn damaged_json(error: json::Damaged) -> Refused {
    Refused::bad_request(format!(
        "the body is not an OTLP/JSON export request: {error}"
    ))
}

/// The first bytes of gzip (RFC 1952) and zstd (RFC 8878) frames.
fn looks_packed(body: &[u8]) -> bool {
    body.starts_with(&[0x1f, 0x8b]) || body.starts_with(&[0x28, 0xb5, 0x2f, 0xfd])
}

/// The body of a 200 answer.
pub fn encode_response(
    encoding: Encoding,
    signal: Signal,
    partial_success: Option<wire::PartialSuccess>,
) -> Vec<u8> {
    match encoding {
        Encoding::Protobuf => wire::ExportResponse { partial_success }.encode_to_vec(),
        Encoding::Json => {
            let Some(partial) = partial_success else {
                return b"{}".to_vec();
            };
            let rejected = match signal {
                Signal::Traces => "rejectedSpans",
                Signal::Logs => "rejectedLogRecords",
                Signal::Metrics => "rejectedDataPoints",
            };
            // OTLP/JSON writes 64-bit numbers as strings (protobuf's JSON mapping).
            json!({"partialSuccess": {
                rejected: partial.rejected.to_string(),
                "errorMessage": partial.error_message,
            }})
            .to_string()
            .into_bytes()
        }
    }
}

/// The body of an error answer: a `google.rpc.Status`, its code (`google.rpc.Code`) chosen by the HTTP status.
pub fn encode_status(encoding: Encoding, http_status: u16, message: &str) -> Vec<u8> {
    let code = match http_status {
        400 | 415 => 3,  // INVALID_ARGUMENT
        401 => 16,       // UNAUTHENTICATED
        403 => 7,        // PERMISSION_DENIED
        404 => 5,        // NOT_FOUND
        413 | 429 => 8,  // RESOURCE_EXHAUSTED
        502..=504 => 14, // UNAVAILABLE
        _ => 13,         // INTERNAL
    };
    match encoding {
        Encoding::Protobuf => wire::RpcStatus {
            code,
            message: message.to_owned(),
        }
        .encode_to_vec(),
        Encoding::Json => json!({"code": code, "message": message})
            .to_string()
            .into_bytes(),
    }
}
