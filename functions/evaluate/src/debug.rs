//! `/api/debug`: a bug report with the sessions as they are held.

use axum::{
    extract::{Request, State},
    http::{
        HeaderName, HeaderValue,
        header::{CONTENT_DISPOSITION, CONTENT_TYPE},
    },
};
use serde_json::{Value, json};
use tailspan_core::event::rfc3339_ms;
use tailspan_service::{error::ApiError, extract::Tenant, log::now_unix_ms};

use crate::{
    Evaluate,
    answer::Refusal,
    request::Fields,
    sessions::{held, started_at},
    zipped::Packer,
};

/// What a page may add to a report.
const DIAGNOSTICS_BYTES: usize = 16 * 1024 * 1024;
/// Of all files of a report before they are packed; sessions that do not fit are named in it.
const REPORT_BYTES: usize = 128 * 1024 * 1024;

type Archive = ([(HeaderName, HeaderValue); 2], Vec<u8>);

/// A bug report: what the page saw, and the live sessions with their spans and log records.
///
/// It holds no log lines and no files of the process.
#[cfg_attr(feature = "openapi", utoipa::path(
    post, path = "/api/debug/bundle", tag = "dev", operation_id = "dev_debug_bundle", request_body = crate::openapi::Diagnostics,
    responses(
        (status = 200, description = "an archive `bug-report-<time>.zip`", content((Vec<u8> = "application/zip"))),
        (status = 413, description = "the body is too large", body = crate::openapi::DevRefusal),
        (status = 422, description = "the body is not as it has to be", body = crate::openapi::DevRefusal),
        (status = 429, description = "too much is taken in at this moment", body = crate::openapi::DevRefusal),
    ),
))]
pub(crate) async fn bundle(
    State(evaluate): State<Evaluate>,
    Tenant(tenant): Tenant,
    request: Request,
) -> Result<Archive, Refusal> {
    let mut fields = Fields::read(&evaluate.intake, request, DIAGNOSTICS_BYTES).await?;
    let description = fields.optional_text("user_description").unwrap_or_default();
    let browser = fields.object("browser_info").unwrap_or_default();
    let of_page = [
        (
            "frontend_state.json",
            fields.object("app_state").unwrap_or_default().into(),
        ),
        (
            "console_logs.json",
            Value::from(fields.list("console_logs").unwrap_or_default()),
        ),
        (
            "network_errors.json",
            Value::from(fields.list("network_errors").unwrap_or_default()),
        ),
    ];
    fields.check()?;
    // A report may hold much: one at a time.
    let _turn = evaluate.reports.acquire().await;
    let app = &evaluate.app;
    let now = rfc3339_ms(now_unix_ms());
    let folder = format!("bug-report-{}", compact(&now));

    let mut files: Vec<(String, Vec<u8>)> = Vec::new();
    let mut room = REPORT_BYTES;
    let mut left_out = Vec::new();
    for session in app.log.live_sessions(&tenant).await? {
        let held = match held(app, &tenant, &session).await {
            Ok(held) => held,
            Err(refusal) if refusal.status.is_client_error() => {
                left_out.push(session.name);
                continue;
            }
            Err(refusal) => return Err(refusal),
        };
        let meta = json!({
            "session_id": session.name,
            "trace_id": session.trace,
            "eval_set_id": session.eval_set_id,
            "started_at": started_at(&session),
            "is_complete": session.complete,
            "span_count": held.span_count(),
            "log_count": held.log_count(),
            "metadata": session.metadata,
        });
        // A session's name may be any text; its key is a name for files.
        let path = format!("{folder}/sessions/{}", session.key.as_str());
        let of_session = [
            ("spans.json", Value::from(held.spans(&session.trace))),
            ("logs.json", Value::from(held.logs())),
            ("session_meta.json", meta),
        ];
        let of_session = of_session.map(|(name, value)| (format!("{path}/{name}"), text(&value)));
        let size: usize = of_session.iter().map(|(_, content)| content.len()).sum();
        match room.checked_sub(size) {
            Some(rest) => {
                room = rest;
                files.extend(of_session);
            }
            None => left_out.push(session.name),
        }
    }
    let keys = app.config.provider_keys;
    let metadata = json!({
        "timestamp": now,
        "tailspan_version": env!("CARGO_PKG_VERSION"),
        "os": std::env::consts::OS,
        "machine": std::env::consts::ARCH,
        "api_keys": {"google": keys.google, "anthropic": keys.anthropic, "openai": keys.openai},
        "user_description": description,
        "browser_info": browser,
        "sessions_left_out": left_out,
    });
    files.push((format!("{folder}/metadata.json"), text(&metadata)));
    let of_page = of_page.map(|(name, value)| (format!("{folder}/{name}"), text(&value)));
    files.extend(of_page);

    let packed = tokio::task::spawn_blocking(move || {
        let mut packer = Packer::new();
        for (name, content) in files {
            packer.add(&name, &content)?;
        }
        packer.finish()
    });
    let packed = packed.await.map_err(|error| error.to_string());
    let packed = packed.and_then(|packed| packed).map_err(|error| {
        tracing::error!(error, "failed to pack a report");
        ApiError::internal()
    })?;
    let named = format!("attachment; filename=\"{folder}.zip\"");
    let named = HeaderValue::from_str(&named).map_err(|_| ApiError::internal())?;
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static("application/zip")),
        (CONTENT_DISPOSITION, named),
    ];
    Ok((headers, packed))
}

/// `2026-01-02T03:04:05.678Z` as `20260102-030405`.
fn compact(rfc3339: &str) -> String {
    let to_seconds = rfc3339.split('.').next().unwrap_or_default();
    let kept = to_seconds.chars().filter(|c| !matches!(c, '-' | ':'));
    kept.map(|c| if c == 'T' { '-' } else { c }).collect()
}

/// Readable JSON: people look into a report.
fn text(value: &Value) -> Vec<u8> {
    serde_json::to_vec_pretty(value).unwrap_or_default()
}
