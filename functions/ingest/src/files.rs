//! `POST /traces/import`: a trace file in, its traces stored as if their producers had sent them.

use axum::{
    Json,
    body::{Body, Bytes},
    extract::State,
    http::{HeaderMap, StatusCode, header::CONTENT_ENCODING},
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tailspan_core::{
    cursor::Cursor,
    files::{self, FileError, FileTrace, Format, send},
    id::{TenantId, TraceId},
    limits::Limits,
    observed::{Canonical, Incoming},
    otlp,
};
use tailspan_service::{
    archive,
    body::header,
    error::ApiError,
    extract::{Params, Tenant, Write},
    log::{
        append::{AppendOptions, Appended},
        frozen::NotRestored,
    },
};

#[cfg(feature = "openapi")]
use tailspan_service::openapi::{TooLarge, TooMany, UnsupportedMediaType};

#[cfg(feature = "openapi")]
use crate::openapi::{ContentEncoding, FileInvalid, HowMuch};
use crate::{Ingest, admitted, level::trace_level, stored};

/// Of a file, as it is sent and unpacked. It is held as a whole, because it is taken as a whole or not at all.
const FILE_BYTES: usize = 64 << 20;
/// Spans and log records, and native events, of a file: a span of less than 256 bytes is rare.
const ITEMS: usize = FILE_BYTES / 256;
/// Traces and items that are appended together.
const TRACES_AT_ONCE: usize = 64;
const ITEMS_AT_ONCE: usize = 2_000;

#[derive(Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::IntoParams), into_params(parameter_in = Query))]
pub(crate) struct Query {
    /// `jaeger-json`, `otlp-json` or `otlp-protobuf`; without it the file's content tells.
    #[cfg_attr(
        feature = "openapi",
        param(pattern = "^(jaeger-json|otlp-json|otlp-protobuf)$", nullable = false)
    )]
    format: Option<String>,
    /// Begin the file's traces anew, also those that were deleted.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", param(default = false))]
    replace: bool,
}

/// What became of a file.
#[derive(Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub(crate) struct Imported {
    /// In the order of the file; at least one.
    traces: Vec<ImportedTrace>,
}

#[derive(Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub(crate) struct ImportedTrace {
    /// Where it is stored.
    trace_id: TraceId,
    /// The id, as the file spells it.
    spelled: String,
    /// Spans, log records and native events of the file that are in the trace now.
    accepted: u64,
    /// Of the accepted: those that were there before.
    duplicates: u64,
    /// Spans of the file that are beyond what a trace of the tenant may have: they are not stored.
    refused: u64,
    /// The trace was deleted and takes nothing of the file.
    deleted: bool,
    /// The trace's last event.
    last_seq: u64,
    /// Where a stream goes on after it; absent when nothing was stored.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(nullable = false))]
    cursor: Option<String>,
}

/// A trace file, stored as traces.
///
/// Jaeger JSON, OTLP JSON (also as Tempo wraps it) and lines of exports, spans, log records or native events are told apart by what they hold, also within gzip and zstd. A file is taken as a whole or not at all; sent again, it adds nothing.
/// A file of the archive brings its trace back as it was, with its numbers, its times and how it ended; where another trace has its name it is refused, unless it is to `replace` it.
#[cfg_attr(feature = "openapi", utoipa::path(
    post, path = "/traces/import", tag = "ingest", operation_id = "import_file",
    params(Query, ContentEncoding, HowMuch),
    request_body(content = Vec<u8>, content_type = "application/octet-stream", description = "the file, whatever its content type says; at most 64 MiB unpacked"),
    responses(
        (status = 200, description = "the traces of the file", body = Imported),
        (status = 400, response = FileInvalid),
        (status = 409, description = "the file is of the archive, and there is a trace of its name that is not as it was archived", body = tailspan_service::openapi::ErrorBody),
        (status = 413, response = TooLarge),
        (status = 415, response = UnsupportedMediaType),
        (status = 429, response = TooMany),
    ),
))]
pub(crate) async fn import(
    State(ingest): State<Ingest>,
    Tenant(tenant, write): Tenant<Write>,
    Params(query): Params<Query>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    if let Err(refused) = write.replacing(query.replace) {
        return refused.into_response();
    }
    match take(&ingest, &tenant, &query, &headers, body).await {
        Ok(imported) => Json(imported).into_response(),
        Err(refused) => {
            ingest.app.metrics.reject(refused.code(), 1);
            refused.into_response()
        }
    }
}

/// Why nothing of a file was taken.
enum NotTaken {
    Unread(FileError),
    Refused(ApiError),
}

impl NotTaken {
    fn code(&self) -> &'static str {
        match self {
            Self::Unread(_) => "invalid_file",
            Self::Refused(error) => error.code,
        }
    }
}

impl From<ApiError> for NotTaken {
    fn from(error: ApiError) -> Self {
        Self::Refused(error)
    }
}

impl From<otlp::Refused> for NotTaken {
    fn from(refused: otlp::Refused) -> Self {
        Self::Refused(refused.into())
    }
}

impl IntoResponse for NotTaken {
    fn into_response(self) -> Response {
        let code = self.code();
        let error = match self {
            Self::Refused(error) => return error.into_response(),
            Self::Unread(error) => error,
        };
        let mut said = json!({"code": code, "message": error.message});
        if let Some((line, column)) = error.place {
            said["line"] = line.into();
            said["column"] = column.into();
        }
        let body = Json(json!({ "error": said }));
        (StatusCode::BAD_REQUEST, body).into_response()
    }
}

async fn take(
    ingest: &Ingest,
    tenant: &TenantId,
    query: &Query,
    headers: &HeaderMap,
    body: Body,
) -> Result<Imported, NotTaken> {
    let trace_level = trace_level(headers)?;
    let format = query.format.as_deref().map(str::parse::<Format>);
    let format = format
        .transpose()
        .map_err(|unknown| ApiError::invalid("invalid_parameter", unknown.to_string()))?;
    let body = admitted(&ingest.app, tenant, headers, body).await?;
    let (body, mut share) = ingest.intake.read(headers, body, FILE_BYTES).await?;
    let content_encoding = header(headers, &CONTENT_ENCODING).map(str::to_owned);
    let encoding = content_encoding.as_deref();
    // Packed for the way and packed for good look alike.
    let may_be = encoding.is_none_or(|encoding| ["identity", "zstd"].contains(&encoding));
    if may_be && archive::begins_archive(&body) {
        return restore(ingest, tenant, query, body).await;
    }
    // A file may be packed without saying so.
    let mut traces = ingest
        .intake
        .decode(body, true, move |body| {
            let body = otlp::inflate(content_encoding.as_deref(), body, FILE_BYTES)?;
            let limits = Limits {
                body_bytes: FILE_BYTES,
                items: ITEMS,
                native_events: ITEMS,
                values: 8 * ITEMS,
                ..Limits::default()
            };
            files::read_within("the file", &body, format, &limits).map_err(NotTaken::Unread)
        })
        .await?;
    let items = traces.iter().flat_map(|trace| &trace.items);
    let bytes = items.map(|item| item.what.len()).sum();
    ingest.intake.grow(&mut share, bytes)?;
    if traces.is_empty() {
        return Err(NotTaken::Unread(FileError {
            name: String::new(),
            place: None,
            message: "there is no trace in it".to_owned(),
            is_other: false,
        }));
    }
    let items = traces.iter().map(|trace| trace.items.len() as u64);
    ingest.app.limits.take(tenant, items.sum()).await?;
    for item in traces.iter_mut().flat_map(|trace| &mut trace.items) {
        item.trace_level = item.trace_level.min(trace_level);
    }
    let mut import = Import {
        ingest,
        tenant,
        found: traces.iter().map(ImportedTrace::new).collect(),
        waiting: Vec::new(),
        items: 0,
    };
    for (at, trace) in traces.iter().enumerate() {
        for (number, part) in send::parts(trace).enumerate() {
            let replace = query.replace && number == 0;
            import.add(at, &trace.trace_id, part, replace).await?;
        }
    }
    import.flush().await?;
    Ok(Imported {
        traces: import.found,
    })
}

/// Brings a trace back. Unlike other files an archive is read while it is stored, so only what is packed has to fit.
async fn restore(
    ingest: &Ingest,
    tenant: &TenantId,
    query: &Query,
    file: Bytes,
) -> Result<Imported, NotTaken> {
    let app = &ingest.app;
    // How many events there are is known when they are stored.
    app.limits.take(tenant, 1).await?;
    let log = &app.log;
    let restored = match log.restore(tenant, file, query.replace).await {
        Ok(restored) => restored,
        Err(NotRestored::Unreadable(message)) => {
            return Err(NotTaken::Unread(FileError {
                name: String::new(),
                place: None,
                message,
                is_other: false,
            }));
        }
        Err(error @ NotRestored::Other(_)) => {
            let message = format!("{error}; import it with ?replace=true to have it so again");
            return Err(ApiError::conflict("trace_exists", message).into());
        }
        Err(NotRestored::Log(error)) => return Err(ApiError::from(error).into()),
    };
    let taken = if restored.deleted { 0 } else { restored.events };
    app.limits.owe(tenant, taken.saturating_sub(1)).await;
    Ok(Imported {
        traces: vec![ImportedTrace {
            spelled: restored.trace.as_str().to_owned(),
            trace_id: restored.trace,
            accepted: taken,
            refused: 0,
            duplicates: if restored.was_there { taken } else { 0 },
            deleted: restored.deleted,
            last_seq: restored.cursor.seq,
            cursor: (!restored.deleted).then(|| restored.cursor.to_string()),
        }],
    })
}

impl ImportedTrace {
    fn new(trace: &FileTrace) -> Self {
        Self {
            trace_id: trace.trace_id.clone(),
            spelled: trace.spelled.clone(),
            accepted: 0,
            duplicates: 0,
            refused: 0,
            deleted: false,
            last_seq: 0,
            cursor: None,
        }
    }

    fn add(&mut self, appended: &Appended) {
        self.deleted |= appended.deleted;
        if appended.deleted {
            return;
        }
        self.accepted += appended.stored + appended.duplicates;
        self.duplicates += appended.duplicates;
        self.refused += appended.refused;
        self.last_seq = appended.last_seq;
        self.cursor = (appended.last_seq > 0)
            .then(|| Cursor::new(appended.last_seq, appended.mark).to_string());
    }
}

/// A file on its way into the log: small traces go together, the parts of a large one after each other.
struct Import<'a> {
    ingest: &'a Ingest,
    tenant: &'a TenantId,
    found: Vec<ImportedTrace>,
    /// Each for the trace at that place of `found`.
    waiting: Vec<(usize, TraceId, Vec<Incoming>)>,
    items: usize,
}

impl Import<'_> {
    async fn add(
        &mut self,
        at: usize,
        trace: &TraceId,
        part: Vec<Incoming>,
        replace: bool,
    ) -> Result<(), ApiError> {
        let is_of_last = self.waiting.last().is_some_and(|(last, ..)| *last == at);
        let is_full = self.waiting.len() >= TRACES_AT_ONCE
            || self.items.saturating_add(part.len()) > ITEMS_AT_ONCE;
        if is_of_last || is_full {
            self.flush().await?;
        }
        if replace {
            let log = &self.ingest.app.log;
            self.count(&part);
            let appending = log.append(self.tenant, trace, part, AppendOptions { replace });
            let appended = stored(appending).await?;
            self.note(at, &appended);
            return Ok(());
        }
        self.items += part.len();
        self.waiting.push((at, trace.clone(), part));
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), ApiError> {
        let waiting = std::mem::take(&mut self.waiting);
        self.items = 0;
        let places: Vec<usize> = waiting.iter().map(|(at, ..)| *at).collect();
        for (_, _, part) in &waiting {
            self.count(part);
        }
        let traces = waiting.into_iter().map(|(_, trace, part)| (trace, part));
        let log = &self.ingest.app.log;
        let appended = stored(log.append_all(self.tenant, traces.collect())).await?;
        for (at, appended) in places.into_iter().zip(&appended) {
            self.note(at, appended);
        }
        Ok(())
    }

    fn note(&mut self, at: usize, appended: &Appended) {
        if let Some(found) = self.found.get_mut(at) {
            found.add(appended);
        }
    }

    fn count(&self, part: &[Incoming]) {
        let metrics = &self.ingest.app.metrics;
        let counter = match part.first().map(|item| &item.what) {
            Some(Canonical::Span(_)) => &metrics.spans,
            Some(Canonical::Log(_)) => &metrics.log_records,
            Some(Canonical::Native(_)) => &metrics.native_events,
            None => return,
        };
        counter.inc_by(part.len() as u64);
    }
}
