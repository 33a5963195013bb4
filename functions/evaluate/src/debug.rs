//! `/api/debug`: a bug report with the sessions as they are held, and sessions back out of one.

use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hash as _, Hasher as _},
};

use axum::{
    Json,
    extract::{Request, State},
    http::{
        HeaderName, HeaderValue,
        header::{CONTENT_DISPOSITION, CONTENT_TYPE},
    },
};
use serde::Serialize;
use serde_json::{Map, Value, json};
use tailspan_core::{event::rfc3339_ms, id::TenantId, live::wire_form::Reader, observed::Incoming};
use tailspan_service::{
    App,
    error::ApiError,
    extract::{Exchange, Read, Tenant},
    live::Start,
    log::now_unix_ms,
};

use crate::{
    Evaluate,
    answer::{Answer, Refusal},
    request::{Fields, Form},
    sessions::{held, started_at},
    zipped::{Packer, Unreadable, unpack},
};

/// What a page may add to a report.
const DIAGNOSTICS_BYTES: usize = 16 * 1024 * 1024;
/// Of all files of a report before they are packed; sessions that do not fit are named in it.
const REPORT_BYTES: usize = 128 * 1024 * 1024;
/// Of all files of a report that is read, unpacked.
const UNPACKED_BYTES: u64 = 256 * 1024 * 1024;

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
    Tenant(tenant, _): Tenant<Read>,
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

/// What was taken out of a report.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub(crate) struct Loaded {
    loaded_sessions: Vec<String>,
    count: usize,
}

/// A session as a report has it.
struct Reported {
    start: Start,
    spans: Vec<Value>,
    logs: Vec<Value>,
}

/// Begins the sessions of a bug report anew, and ends them.
///
/// A session that there is goes on under a new trace; spans and records beyond the limits of a session, and what is none, are passed over.
#[cfg_attr(feature = "openapi", utoipa::path(
    post, path = "/api/debug/load", tag = "dev", operation_id = "dev_debug_load",
    request_body(content = crate::openapi::ReportForm, content_type = "multipart/form-data"),
    responses(
        (status = 200, description = "the sessions that were loaded", body = Answer<Loaded>),
        (status = 413, description = "the body is too large, or what it unpacks to", body = crate::openapi::DevRefusal),
        (status = 422, description = "there is no file", body = crate::openapi::DevRefusal),
        (status = 429, description = "too much is taken in at this moment", body = crate::openapi::DevRefusal),
    ),
))]
pub(crate) async fn load(
    State(evaluate): State<Evaluate>,
    Tenant(tenant, _): Tenant<Exchange>,
    request: Request,
) -> Result<Json<Answer<Loaded>>, Refusal> {
    let form = Form::read(&evaluate.intake, request).await?;
    let files = form.files("file");
    let files = files.map_err(|problem| Refusal::misshapen(vec![problem]))?;
    let archive = files
        .last()
        .map(|file| file.bytes.clone())
        .unwrap_or_default();
    let _turn = evaluate.reports.acquire().await;
    let read = tokio::task::spawn_blocking(move || reported(&archive)).await;
    let sessions = read.map_err(|error| {
        tracing::error!(%error, "failed to read a report");
        ApiError::internal()
    })??;
    let events = |session: &Reported| session.spans.len() + session.logs.len();
    let events: usize = sessions.iter().map(events).sum();
    evaluate.app.log.has_room(&tenant).await?;
    evaluate.app.limits.take(&tenant, events as u64).await?;
    let mut loaded_sessions = Vec::with_capacity(sessions.len());
    for mut session in sessions {
        session.start = evaluate.app.log.clean_start(&tenant, &session.start);
        let name = session.start.session.clone();
        begin(&evaluate.app, &tenant, session).await?;
        loaded_sessions.push(name);
    }
    Ok(Answer::of(Loaded {
        count: loaded_sessions.len(),
        loaded_sessions,
    }))
}

/// The sessions of a report.
fn reported(archive: &[u8]) -> Result<Vec<Reported>, Refusal> {
    const FILES: [&str; 3] = ["spans.json", "logs.json", "session_meta.json"];
    // `<report>/sessions/<session>/<file>`
    let of = |name: &str| -> Option<(String, String)> {
        let (folder, file) = name.rsplit_once('/')?;
        let (sessions, session) = folder.rsplit_once('/')?;
        let is_one = sessions.ends_with("/sessions") && FILES.contains(&file);
        is_one.then(|| (session.to_owned(), file.to_owned()))
    };
    let files = unpack(archive, UNPACKED_BYTES, |name| of(name).is_some());
    let files = files.map_err(|unreadable| match unreadable {
        Unreadable::Broken => Refusal::unusable("Invalid ZIP file"),
        Unreadable::TooLarge => {
            let megabytes = UNPACKED_BYTES / (1024 * 1024);
            Refusal::too_large(format!("The archive unpacks to more than {megabytes}MB"))
        }
    })?;
    let mut sessions: BTreeMap<String, BTreeMap<String, Vec<u8>>> = BTreeMap::new();
    for (name, content) in files {
        if let Some((session, file)) = of(&name) {
            sessions.entry(session).or_default().insert(file, content);
        }
    }
    if sessions.is_empty() {
        return Err(Refusal::unusable("No sessions found in ZIP"));
    }
    let mut reported = Vec::new();
    for (folder, files) in sessions {
        let read = |file: &str| -> Result<Option<Value>, Refusal> {
            let content = files.get(file).map(|it| serde_json::from_slice(it));
            content.transpose().map_err(|error| {
                Refusal::unusable(format!("sessions/{folder}/{file} is no JSON: {error}"))
            })
        };
        let list = |value: Option<Value>| match value {
            Some(Value::Array(list)) => list,
            _ => Vec::new(),
        };
        let Some(spans) = read("spans.json")? else {
            continue;
        };
        let meta = read("session_meta.json")?.unwrap_or_default();
        let text = |name: &str| meta[name].as_str().map(str::to_owned);
        reported.push(Reported {
            start: Start {
                session: text("session_id").unwrap_or_else(|| folder.clone()),
                trace: text("trace_id").unwrap_or_else(|| folder.clone()),
                eval_set_id: text("eval_set_id"),
                metadata: match &meta["metadata"] {
                    Value::Object(metadata) => metadata.clone(),
                    _ => Map::new(),
                },
            },
            spans: list(Some(spans)),
            logs: list(read("logs.json")?),
        });
    }
    Ok(reported)
}

/// Begins a session, fills it and ends it, as its agent would over a WebSocket.
async fn begin(app: &App, tenant: &TenantId, session: Reported) -> Result<(), Refusal> {
    let name = session.start.session.clone();
    let mut reader = Reader::new(session_nonce(&name));
    let spans = session.spans.iter();
    let spans = spans.filter_map(|span| reader.span(&name, &span.to_string()).ok());
    let mut spans: Vec<_> = spans.collect();
    let logs = session.logs.iter();
    let logs = logs.filter_map(|log| reader.log(&log.to_string()).ok());
    let mut logs: Vec<_> = logs.collect();
    let log = &app.log;
    log.live_start(tenant, &session.start).await?;
    let count = |list: &Vec<Incoming>| u64::try_from(list.len()).unwrap_or(u64::MAX);
    let taken = log.live_take(tenant, &name, count(&spans), count(&logs));
    if let Some(taken) = taken.await? {
        spans.truncate(usize::try_from(taken.spans).unwrap_or(usize::MAX));
        logs.truncate(usize::try_from(taken.logs).unwrap_or(usize::MAX));
        spans.append(&mut logs);
        if !spans.is_empty() {
            let spans = log.clean(tenant, spans);
            log.live_append(tenant, &name, &taken.into, &spans).await?;
        }
    }
    log.live_end(tenant, &name).await?;
    Ok(())
}

/// Tells spans without an id of one session from those of another.
fn session_nonce(session: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    session.hash(&mut hasher);
    hasher.finish()
}
