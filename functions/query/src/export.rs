//! `GET /traces/{trace_id}/export`: a trace as a file.

use axum::{
    body::Body,
    extract::State,
    http::header::{CONTENT_DISPOSITION, CONTENT_TYPE},
    response::{IntoResponse, Response},
};
use futures::stream;
use serde::Deserialize;
use tailspan_core::{
    cursor::Cursor,
    files::write::{Form, Writer, lowered},
    id::{TenantId, TraceId},
    verbosity::Verbosity,
};
use tailspan_service::{
    App,
    error::ApiError,
    extract::{Params, Tenant, TracePath, View},
    log::read::{Page, PageSize, ReadFrom},
};
#[cfg(feature = "openapi")]
use tailspan_service::{extract::TraceSegment, openapi::TraceNotFound};
use tracing::warn;

/// In which form, and how much of it.
#[derive(Clone, Debug, Default, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::IntoParams), into_params(parameter_in = Query))]
pub(crate) struct ExportQuery {
    /// otlp (the default), jaeger or jsonl.
    #[cfg_attr(feature = "openapi", param(pattern = "^(otlp|jaeger|jsonl)$"))]
    format: Option<String>,
    /// minimal, standard, detailed or debug (the default): as if the trace had been recorded at this level.
    #[cfg_attr(
        feature = "openapi",
        param(pattern = "^(minimal|standard|detailed|debug)$")
    )]
    level: Option<String>,
}

/// A trace as a file, for other tools and for another Tailspan.
///
/// `otlp` is one JSON document of all that was sent: spans, log records and native events. `jsonl` is the same in lines, in the order of the log.
/// `jaeger` is what Jaeger's page loads: spans only. It holds what the trace held when the answer began, and is written while it is read: an answer that breaks off is not whole.
#[cfg_attr(feature = "openapi", utoipa::path(
    get, path = "/traces/{trace_id}/export", tag = "traces", params(TraceSegment, ExportQuery),
    responses(
        (status = 200, description = "the file", content((serde_json::Value = "application/json"), (String = "application/x-ndjson"))),
        (status = 404, response = TraceNotFound),
    ),
))]
pub(crate) async fn get_export(
    State(app): State<App>,
    Tenant(tenant, _): Tenant<View>,
    TracePath(trace): TracePath,
    Params(query): Params<ExportQuery>,
) -> Result<Response, ApiError> {
    let invalid = |message: String| ApiError::invalid("invalid_parameter", message);
    let form = query.format.as_deref().unwrap_or("otlp").parse::<Form>();
    let form = form.map_err(|error| invalid(error.to_string()))?;
    let level = query.level.as_deref().unwrap_or("debug").parse();
    let level: Verbosity = level
        .map_err(|error: tailspan_core::verbosity::UnknownLevel| invalid(error.to_string()))?;
    let from = ReadFrom::After(Cursor::START);
    let page = app
        .log
        .page_or_archived(&tenant, &trace, from, PageSize::SMALL)
        .await?;
    let state = page.state.clone().filter(|state| !state.dead);
    let state = state.ok_or_else(|| ApiError::trace_not_found(&trace))?;
    let export = Export {
        writer: Writer::new(form, &trace),
        level,
        through: state.seq,
        base: state.base,
        cursor: Cursor::START,
        page: Some(page),
        app,
        tenant,
        trace: trace.clone(),
    };
    let parts = stream::try_unfold(Some(export), |export| async {
        let Some(mut export) = export else {
            return Ok::<_, Broken>(None);
        };
        let mut text = String::new();
        let is_over = export.part(&mut text).await?;
        Ok(Some((text, (!is_over).then_some(export))))
    });
    let ending = match form {
        Form::Otlp => "otlp.json",
        Form::Jaeger => "jaeger.json",
        Form::Jsonl => "jsonl",
    };
    let headers = [
        (CONTENT_TYPE, form.content_type().to_owned()),
        // An id is of an alphabet that needs no quoting.
        (
            CONTENT_DISPOSITION,
            format!("attachment; filename=\"{trace}.{ending}\""),
        ),
    ];
    Ok((headers, Body::from_stream(parts)).into_response())
}

/// The file is not whole, and its reader learns it by an answer that breaks off.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Broken(String);

/// A file that is being written: one page of the log in memory at a time.
struct Export {
    app: App,
    tenant: TenantId,
    trace: TraceId,
    writer: Writer,
    level: Verbosity,
    /// The last event of the file, and where the life of the trace begins that it is of.
    through: u64,
    base: u64,
    /// Up to where this pass has come.
    cursor: Cursor,
    /// The first page was read to know whether there is a trace.
    page: Option<Page>,
}

impl Export {
    /// Writes what the next page holds. `true`: that was the last.
    async fn part(&mut self, out: &mut String) -> Result<bool, Broken> {
        let broken = |message: String| {
            warn!(trace = %self.trace, %message, "an export breaks off");
            Broken(message)
        };
        let page = match self.page.take() {
            Some(page) => page,
            None => {
                let from = ReadFrom::After(self.cursor);
                let page =
                    self.app
                        .log
                        .page_or_archived(&self.tenant, &self.trace, from, PageSize::SMALL);
                page.await.map_err(|error| broken(error.to_string()))?
            }
        };
        let state = page.state.filter(|state| !state.dead);
        if state.is_none_or(|state| state.base != self.base) {
            return Err(broken("the trace was deleted or replaced".to_owned()));
        }
        let mut is_over = page.chunks.is_empty();
        for chunk in &page.chunks {
            if chunk.span.first > self.through {
                is_over = true;
                break;
            }
            let recorded = self.app.log.recorded(&self.tenant, &self.trace, chunk);
            let recorded = recorded.await.map_err(|error| broken(error.to_string()))?;
            if let Some((from, to)) = chunk.unread(&recorded) {
                self.writer.miss(from, to);
            }
            for event in &lowered(recorded, self.level) {
                self.writer.push(event, out);
            }
            self.cursor = chunk.span.end();
            is_over = self.cursor.seq >= self.through;
        }
        if is_over {
            self.cursor = Cursor::START;
            return Ok(!self.writer.end_pass(out));
        }
        Ok(false)
    }
}
