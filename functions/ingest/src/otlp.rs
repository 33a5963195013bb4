//! `POST /v1/traces`, `/v1/logs`, `/v1/metrics`.

use std::mem;

use axum::{
    body::Body,
    extract::State,
    http::{
        HeaderMap, HeaderValue, StatusCode,
        header::{CONTENT_ENCODING, CONTENT_TYPE, RETRY_AFTER},
    },
    response::{IntoResponse, Response},
};
use tailspan_core::{
    id::TraceId,
    otlp::{self, Decoded, Encoding, Refused, Rejected, Signal},
    verbosity::Verbosity,
    wire::PartialSuccess,
};
use tailspan_service::{
    body::header,
    error::ApiError,
    extract::{Tenant, Write},
};

#[cfg(feature = "openapi")]
use crate::openapi::{
    ContentEncoding, ExportAnswer, ExportLogs, ExportMetrics, ExportSpans, HowMuch,
};
use crate::{Ingest, admitted, level::trace_level, stored};

type Caller = Result<Tenant<Write>, ApiError>;

/// Spans, as OTLP.
///
/// What is wrong with some of them is told as `partialSuccess`, and costs only those. Sent again, the same span is the same event.
#[cfg_attr(feature = "openapi", utoipa::path(
    post, path = "/v1/traces", tag = "ingest", operation_id = "otlp_traces",
    params(ContentEncoding, HowMuch),
    request_body(content((ExportSpans = "application/json"), (Vec<u8> = "application/x-protobuf")), description = "`ExportTraceServiceRequest`; at most 16 MiB unpacked"),
    responses((
        status = 200,
        description = "everything good in it is stored",
        content((ExportAnswer = "application/json"), (Vec<u8> = "application/x-protobuf")),
    )),
))]
pub(crate) async fn traces(
    State(ingest): State<Ingest>,
    caller: Caller,
    headers: HeaderMap,
    body: Body,
) -> Response {
    export(&ingest, Signal::Traces, caller, &headers, body).await
}

/// Log records, as OTLP.
///
/// A record outside of any trace is rejected. What is wrong with some of them is told as `partialSuccess`.
#[cfg_attr(feature = "openapi", utoipa::path(
    post, path = "/v1/logs", tag = "ingest", operation_id = "otlp_logs",
    params(ContentEncoding, HowMuch),
    request_body(content((ExportLogs = "application/json"), (Vec<u8> = "application/x-protobuf")), description = "`ExportLogsServiceRequest`; at most 16 MiB unpacked"),
    responses((
        status = 200,
        description = "everything good in it is stored",
        content((ExportAnswer = "application/json"), (Vec<u8> = "application/x-protobuf")),
    )),
))]
pub(crate) async fn logs(
    State(ingest): State<Ingest>,
    caller: Caller,
    headers: HeaderMap,
    body: Body,
) -> Response {
    export(&ingest, Signal::Logs, caller, &headers, body).await
}

/// Metrics, as OTLP: checked and answered, so that exporters stay quiet. Nothing of them is kept.
#[cfg_attr(feature = "openapi", utoipa::path(
    post, path = "/v1/metrics", tag = "ingest", operation_id = "otlp_metrics",
    params(ContentEncoding),
    request_body(content((ExportMetrics = "application/json"), (Vec<u8> = "application/x-protobuf")), description = "`ExportMetricsServiceRequest`; at most 16 MiB unpacked"),
    responses((
        status = 200,
        description = "everything good in it is stored",
        content((ExportAnswer = "application/json"), (Vec<u8> = "application/x-protobuf")),
    )),
))]
pub(crate) async fn metrics(
    State(ingest): State<Ingest>,
    caller: Caller,
    headers: HeaderMap,
    body: Body,
) -> Response {
    export(&ingest, Signal::Metrics, caller, &headers, body).await
}

/// Whatever happens is answered in the request's encoding; where that is not known, in JSON.
async fn export(
    ingest: &Ingest,
    signal: Signal,
    caller: Caller,
    headers: &HeaderMap,
    body: Body,
) -> Response {
    let mut encoding = Encoding::of(header(headers, &CONTENT_TYPE), b"{").unwrap_or(Encoding::Json);
    match take(ingest, signal, caller, headers, body, &mut encoding).await {
        Ok(partial_success) => answer(
            StatusCode::OK,
            encoding,
            otlp::encode_response(encoding, signal, partial_success),
        ),
        Err(error) => {
            ingest.app.metrics.reject(error.code, 1);
            let status = otlp::encode_status(encoding, error.status.as_u16(), &error.message);
            let mut response = answer(error.status, encoding, status);
            if let Some(seconds) = error.retry_after_seconds() {
                response
                    .headers_mut()
                    .insert(RETRY_AFTER, HeaderValue::from(seconds));
            }
            response
        }
    }
}

async fn take(
    ingest: &Ingest,
    signal: Signal,
    caller: Caller,
    headers: &HeaderMap,
    body: Body,
    encoding: &mut Encoding,
) -> Result<Option<PartialSuccess>, ApiError> {
    let Tenant(tenant, _) = caller?;
    let trace_level = trace_level(headers)?;
    let Ingest {
        app,
        intake,
        limits,
    } = ingest;
    // Nothing is kept of metrics, so they count nothing.
    let body = match signal {
        Signal::Metrics => body,
        _ => admitted(app, &tenant, headers, body).await?,
    };
    let (body, mut share) = intake.read(headers, body, limits.body_bytes).await?;
    let content_type = header(headers, &CONTENT_TYPE).map(str::to_owned);
    let content_encoding = header(headers, &CONTENT_ENCODING).map(str::to_owned);
    let is_packed = content_encoding.is_some();
    let limits = *limits;
    let (mut decoded, found) = intake
        .decode(body, is_packed, move |body| {
            let body = otlp::inflate(content_encoding.as_deref(), body, limits.body_bytes)?;
            let encoding =
                Encoding::of(content_type.as_deref(), &body).ok_or_else(Refused::content_type)?;
            let decoded = match signal {
                Signal::Traces => otlp::decode_traces(encoding, &body, &limits)?,
                Signal::Logs => otlp::decode_logs(encoding, &body, &limits)?,
                Signal::Metrics => {
                    otlp::check_metrics(encoding, &body)?;
                    Decoded::default()
                }
            };
            Ok::<_, ApiError>((decoded, encoding))
        })
        .await?;
    *encoding = found;
    // A small body may have become large, and is held until it is stored.
    intake.grow(&mut share, decoded.memory_bytes)?;
    if signal != Signal::Metrics {
        app.limits.take(&tenant, decoded.accepted).await?;
    }
    let mut traces = mem::take(&mut decoded.traces);
    if trace_level < Verbosity::Debug {
        for item in traces.iter_mut().flat_map(|(_, items)| items) {
            item.trace_level = item.trace_level.min(trace_level);
        }
    }
    let counts: Vec<_> = traces
        .iter()
        .map(|(trace, items)| (trace.clone(), items.len() as u64))
        .collect();
    let appended = stored(app.log.append_all(&tenant, traces)).await?;
    for rejected in &decoded.rejected {
        app.metrics.reject(rejected.reason, rejected.count);
    }
    // The log counts these itself.
    let mut late = counts
        .iter()
        .zip(&appended)
        .filter_map(|(sent, appended)| appended.deleted.then_some(sent));
    let mut accepted = decoded.accepted;
    if let Some((trace, count)) = late.next() {
        let count = count + late.map(|(_, count)| count).sum::<u64>();
        accepted = accepted.saturating_sub(count);
        decoded.rejected.push(Rejected {
            reason: "trace_deleted",
            count,
            example: format!("trace {trace} was deleted, late items cannot bring it back"),
        });
    }
    let refused: u64 = appended.iter().map(|appended| appended.refused).sum();
    if refused > 0 {
        let most = app.limits.of(&tenant).spans_per_trace.unwrap_or_default();
        let full = counts
            .iter()
            .zip(&appended)
            .find_map(|((trace, _), appended)| (appended.refused > 0).then_some(trace));
        let full = full.map_or("-", TraceId::as_str);
        accepted = accepted.saturating_sub(refused);
        // The log counts these too.
        decoded.rejected.push(Rejected {
            reason: "spans_exceeded",
            count: refused,
            example: format!("trace {full} has {most} spans, which is as many as it may"),
        });
    }
    match signal {
        Signal::Traces => app.metrics.spans.inc_by(accepted),
        Signal::Logs => app.metrics.log_records.inc_by(accepted),
        Signal::Metrics => 0,
    };
    Ok(decoded.partial_success())
}

fn answer(status: StatusCode, encoding: Encoding, body: Vec<u8>) -> Response {
    let content_type = HeaderValue::from_static(encoding.content_type());
    (status, [(CONTENT_TYPE, content_type)], body).into_response()
}
