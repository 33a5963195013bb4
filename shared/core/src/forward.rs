//! What was recorded, as OTLP requests to another backend: the same ids, the same attributes, by the same resource and scope.

use bytes::Bytes;
use prost::Message as _;

use crate::{
    files::otel_bytes,
    id::TraceId,
    observed::{Context, Observation, What},
    wire,
};

/// The two kinds of requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Signal {
    Traces,
    Logs,
}

impl Signal {
    pub const ALL: [Self; 2] = [Self::Traces, Self::Logs];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Traces => "traces",
            Self::Logs => "logs",
        }
    }

    /// The signal that [`Signal::as_str`] names.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|signal| signal.as_str() == name)
    }
}

/// An observation as an item of a request.
#[derive(Clone, Debug, PartialEq)]
pub struct Item {
    pub signal: Signal,
    context: std::sync::Arc<Context>,
    bytes: Bytes,
}

impl Item {
    /// `None`: it is no span and no log record, or the trace has no id that OTLP can say (128 bits).
    pub fn of(trace: &TraceId, observation: &Observation) -> Option<Self> {
        let id = Bytes::copy_from_slice(&otel_bytes(trace)?);
        let (signal, bytes) = match &observation.what {
            What::Span(span) => {
                let span = wire::Span {
                    trace_id: id,
                    ..wire::Span::clone(span)
                };
                (Signal::Traces, span.encode_to_vec())
            }
            What::Log(log) => {
                let log = wire::LogRecord {
                    trace_id: id,
                    ..wire::LogRecord::clone(log)
                };
                (Signal::Logs, log.encode_to_vec())
            }
            What::Native(_) => return None,
        };
        Some(Self {
            signal,
            context: std::sync::Arc::clone(&observation.context),
            bytes: bytes.into(),
        })
    }

    /// Bytes that it adds to a request, about.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
}

/// `ExportTraceServiceRequest` or `ExportLogsServiceRequest` of these items, each in its order within its resource and scope.
pub fn request(items: &[Item]) -> Vec<u8> {
    let mut resources: Vec<(&Context, wire::ResourceItems)> = Vec::new();
    for item in items {
        let context: &Context = &item.context;
        let known = resources
            .iter()
            .rposition(|(known, _)| std::ptr::eq(*known, context) || *known == context);
        let at = known.unwrap_or_else(|| {
            let of = wire::ResourceItems {
                resource: Some(wire::Resource {
                    attributes: context.resource.clone(),
                }),
                scopes: vec![wire::ScopeItems {
                    scope: Some(context.scope.clone()),
                    schema_url: context.schema_url.clone(),
                    items: Vec::new(),
                }],
                schema_url: String::new(),
            };
            resources.push((context, of));
            resources.len() - 1
        });
        let of = resources.get_mut(at);
        if let Some(scope) = of.and_then(|(_, of)| of.scopes.last_mut()) {
            scope.items.push(item.bytes.clone());
        }
    }
    let request = wire::ExportRequest {
        resources: resources.into_iter().map(|(_, of)| of).collect(),
    };
    request.encode_to_vec()
}

/// What became of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Taken, but for so many items, and why.
    Taken { rejected: u64, message: String },
    /// To be sent again, the same.
    Again,
    /// Too large as it is.
    Halve,
    /// It will never be taken.
    Refused,
}

/// What an answer means (OTLP specification, "OTLP/HTTP Response"): 429, 502, 503 and 504 are to be tried again. So is 408, and for some time every other 5xx, which proxies say of
/// backends that start.
pub fn verdict(status: u16, answer: &[u8]) -> Verdict {
    match status {
        200..=299 => {
            let answer = wire::ExportResponse::decode(answer).unwrap_or_default();
            let partial = answer.partial_success.unwrap_or_default();
            Verdict::Taken {
                rejected: u64::try_from(partial.rejected).unwrap_or(0),
                message: partial.error_message,
            }
        }
        413 => Verdict::Halve,
        408 | 429 | 500..=599 => Verdict::Again,
        _ => Verdict::Refused,
    }
}

/// Whether the specification itself says that such an answer is to be tried again, for as long as it takes.
pub fn is_passing(status: u16) -> bool {
    matches!(status, 0 | 408 | 429 | 502 | 503 | 504)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn observation(service: &str, name: &str) -> Observation {
        let value = wire::any_value::Value::String(service.into());
        Observation {
            context: Arc::new(Context {
                resource: vec![wire::KeyValue {
                    key: "service.name".into(),
                    value: Some(wire::AnyValue { value: Some(value) }),
                }],
                ..Context::default()
            }),
            what: What::Span(Arc::new(wire::Span {
                span_id: Bytes::from_static(b"12345678"),
                name: name.to_owned(),
                flags: 257,
                ..wire::Span::default()
            })),
        }
    }

    #[test]
    fn a_span_goes_out_with_its_ids_by_its_resource() {
        let trace = TraceId::parse("5b8efff798038103d269b633813fc60c").unwrap();
        let items: Vec<_> = [("a", "1"), ("b", "2"), ("a", "3")]
            .into_iter()
            .filter_map(|(service, name)| Item::of(&trace, &observation(service, name)))
            .collect();
        let sent = wire::ExportRequest::decode(&request(&items)[..]).unwrap();
        let names: Vec<Vec<_>> = sent
            .resources
            .iter()
            .map(|of| {
                let items = of.scopes[0].items.iter();
                items
                    .map(|item| wire::Span::decode(item.clone()).unwrap())
                    .inspect(|span| {
                        assert_eq!(span.trace_id[..2], [0x5b, 0x8e]);
                        assert_eq!((&span.span_id[..], span.flags), (&b"12345678"[..], 257));
                    })
                    .map(|span| span.name)
                    .collect()
            })
            .collect();
        assert_eq!(names, [vec!["1", "3"], vec!["2"]]);
        let named = TraceId::parse("run-7").unwrap();
        assert_eq!(Item::of(&named, &observation("a", "1")), None);
    }

    #[test]
    fn answers_mean_what_the_specification_says() {
        let partial = wire::ExportResponse {
            partial_success: Some(wire::PartialSuccess {
                rejected: 2,
                error_message: "no".to_owned(),
            }),
        };
        let taken = |rejected, message: &str| Verdict::Taken {
            rejected,
            message: message.to_owned(),
        };
        assert_eq!(verdict(200, &partial.encode_to_vec()), taken(2, "no"));
        // A proxy's page is no answer to be read.
        assert_eq!(verdict(200, b"<html>"), taken(0, ""));
        assert_eq!(verdict(503, b""), Verdict::Again);
        assert_eq!(verdict(413, b""), Verdict::Halve);
        assert_eq!(verdict(400, b""), Verdict::Refused);
        assert!(is_passing(429) && !is_passing(500));
    }
}
