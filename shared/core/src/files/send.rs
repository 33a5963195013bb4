//! A file's traces as the requests that bring them into a server, and as the parts that a server appends by itself.

use std::collections::VecDeque;

use bytes::Bytes;
use prost::Message as _;
use xxhash_rust::xxh3::xxh3_64;

use super::FileTrace;
use crate::{
    limits::Limits,
    native,
    observed::{Canonical, Context, Incoming},
    wire,
};

/// A request is closed when it holds as much; a larger item goes alone.
const BYTES: usize = 2 << 20;
const ITEMS: usize = 2_000;

/// One POST.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// Of the URL, ready to be sent.
    pub path: String,
    pub content_type: &'static str,
    pub body: Vec<u8>,
    /// Spans, log records or events in it.
    pub items: usize,
    /// `Idempotency-Key`, where the items have no identity of their own: the same file sent again adds nothing.
    pub key: Option<String>,
}

impl Request {
    /// What a 200 answer to it says of items that were not taken: how many, and why. `None`: all were.
    pub fn not_taken(&self, answer: &[u8]) -> Option<(u64, String)> {
        if self.key.is_none() {
            let partial = wire::ExportResponse::decode(answer).ok()?.partial_success?;
            let rejected = u64::try_from(partial.rejected).unwrap_or(0);
            return (rejected > 0 || !partial.error_message.is_empty())
                .then_some((rejected, partial.error_message));
        }
        let said: serde_json::Value = serde_json::from_slice(answer).ok()?;
        let rejected = said.get("rejected")?.as_array()?;
        let message = rejected.first()?.get("message")?.as_str()?;
        Some((rejected.len() as u64, message.to_owned()))
    }
}

/// What an OTLP answer that is an error says.
pub fn refusal(answer: &[u8]) -> Option<String> {
    let status = wire::RpcStatus::decode(answer).ok()?;
    (!status.message.is_empty()).then_some(status.message)
}

/// The requests of a trace. Spans go last: they say when the run is over.
pub fn requests(trace: &FileTrace) -> impl Iterator<Item = Request> + '_ {
    batches(trace).map(|batch| request(trace, &batch))
}

/// The trace in the parts of [`requests`], each item with the identity that it has after such a request: whichever way a file comes, what is
/// known of it is not stored twice.
pub fn parts(trace: &FileTrace) -> impl Iterator<Item = Vec<Incoming>> + '_ {
    batches(trace).map(|batch| match native_body(&batch) {
        None => batch.into_iter().cloned().collect(),
        Some(body) => {
            let key = key(&body);
            let sender = native::Sender {
                idempotency_key: Some(&key),
                parent_span_id: None,
            };
            let limits = Limits {
                body_bytes: body.len(),
                ..Limits::default()
            };
            let format = native::Format::Json;
            native::decode(&trace.trace_id, body.as_bytes(), format, sender, &limits)
                .map_or_else(|_| batch.into_iter().cloned().collect(), |it| it.events)
        }
    })
}

/// Items of one sort, as many as one request has: native events, log records, then spans.
fn batches(trace: &FileTrace) -> impl Iterator<Item = Vec<&Incoming>> + '_ {
    let of = |wanted: fn(&Canonical) -> bool| -> VecDeque<&Incoming> {
        let items = trace.items.iter();
        items.filter(|item| wanted(&item.what)).collect()
    };
    let mut sorts = [
        of(|what| matches!(what, Canonical::Native(_))),
        of(|what| matches!(what, Canonical::Log(_))),
        of(|what| matches!(what, Canonical::Span(_))),
    ];
    std::iter::from_fn(move || {
        let items = sorts.iter_mut().find(|items| !items.is_empty())?;
        let (mut bytes, mut batch) = (0, Vec::new());
        while let Some(item) = items.front() {
            bytes += item.what.len();
            if !batch.is_empty() && (bytes > BYTES || batch.len() >= ITEMS) {
                break;
            }
            batch.extend(items.pop_front());
        }
        Some(batch)
    })
}

/// The body that posts native events; `None` for items of another sort.
fn native_body(batch: &[&Incoming]) -> Option<String> {
    let texts: Option<Vec<&str>> = batch
        .iter()
        .map(|item| match &item.what {
            Canonical::Native(text) => Some(text.as_ref()),
            _ => None,
        })
        .collect();
    Some(format!("[{}]", texts?.join(",")))
}

/// What makes native events without an `event_id` recognisable: the batch that they are in.
fn key(body: &str) -> String {
    format!("import-{:016x}", xxh3_64(body.as_bytes()))
}

fn request(trace: &FileTrace, batch: &[&Incoming]) -> Request {
    if let Some(body) = native_body(batch) {
        return Request {
            path: format!("/traces/{}/events", trace.trace_id),
            content_type: "application/json",
            key: Some(key(&body)),
            body: body.into_bytes(),
            items: batch.len(),
        };
    }
    let is_log = batch
        .first()
        .is_some_and(|item| matches!(item.what, Canonical::Log(_)));
    Request {
        path: if is_log { "/v1/logs" } else { "/v1/traces" }.to_owned(),
        content_type: "application/x-protobuf",
        body: export(trace, batch).encode_to_vec(),
        items: batch.len(),
        key: None,
    }
}

fn export(trace: &FileTrace, batch: &[&Incoming]) -> wire::ExportRequest {
    let id = super::otel_bytes(&trace.trace_id).unwrap_or_default();
    let mut request = wire::ExportRequest::default();
    let mut last: Option<&Context> = None;
    for item in batch {
        let bytes = match &item.what {
            // The id is the first field of a span and the ninth of a log record; it was taken out of both.
            Canonical::Span(bytes) => [&[10, 16][..], &id, bytes].concat(),
            Canonical::Log(bytes) => [&bytes[..], &[74, 16], &id].concat(),
            Canonical::Native(_) => continue,
        };
        if last.is_none_or(|last| *last != *item.context) {
            last = Some(&item.context);
            request.resources.push(wire::ResourceItems {
                resource: Some(wire::Resource {
                    attributes: item.context.resource.clone(),
                }),
                scopes: vec![wire::ScopeItems {
                    scope: Some(item.context.scope.clone()),
                    schema_url: item.context.schema_url.clone(),
                    items: Vec::new(),
                }],
                schema_url: String::new(),
            });
        }
        if let Some(scope) = request
            .resources
            .last_mut()
            .and_then(|resource| resource.scopes.last_mut())
        {
            scope.items.push(Bytes::from(bytes));
        }
    }
    request
}
