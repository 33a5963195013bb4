//! `/api/streaming`: live sessions listed, taken out as trace files, and made into eval sets.

use std::str::FromStr as _;

use axum::{
    Json,
    extract::{Path, Request, State, rejection::PathRejection},
    http::{
        HeaderValue,
        header::{CONTENT_DISPOSITION, CONTENT_TYPE},
    },
    response::{IntoResponse, Response},
};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use serde::Serialize;
use serde_json::{Map, Value, json};
use tailspan_core::{
    cursor::Cursor,
    event::rfc3339_ms,
    id::{SessionKey, TenantId, TraceId},
    invocations::{Invocation, of_session},
    live::compat,
};
use tailspan_service::{
    App,
    error::ApiError,
    extract::{Read, Tenant},
    live::LiveSession,
    log::{
        LogError,
        read::{PageSize, ReadFrom},
    },
};

use crate::{
    Evaluate,
    answer::{Answer, Refusal},
    lines::{Held, MOST_BYTES},
    request::{Fields, SMALL_BODY_BYTES},
};

/// Sessions, and traces of one session, read at the same time.
const AT_ONCE: usize = 8;

/// A live session.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub(crate) struct SessionInfo {
    session_id: String,
    /// As its client called it; of exported traces that of the first.
    trace_id: String,
    eval_set_id: Option<String>,
    span_count: u64,
    is_complete: bool,
    /// RFC 3339, microseconds.
    started_at: String,
    metadata: Map<String, Value>,
    /// The turns, once the session is complete; null before, and when there are none.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<Vec<crate::openapi::Turn>>))]
    invocations: Option<Vec<Value>>,
}

impl SessionInfo {
    async fn of(app: &App, tenant: &TenantId, session: LiveSession) -> Result<Self, LogError> {
        let span_count = app.log.live_span_count(tenant, &session).await?;
        let turns = match session.complete {
            true => turns(app, tenant, &session).await?,
            false => Vec::new(),
        };
        let turns: Vec<Value> = turns.iter().map(compat::invocation).collect();
        Ok(Self {
            started_at: started_at(&session),
            session_id: session.name,
            trace_id: session.trace,
            eval_set_id: session.eval_set_id,
            span_count,
            is_complete: session.complete,
            metadata: session.metadata,
            invocations: (!turns.is_empty()).then_some(turns),
        })
    }
}

/// The live sessions, in the order in which they began.
#[cfg_attr(feature = "openapi", utoipa::path(
    get, path = "/api/streaming/sessions", tag = "dev", operation_id = "dev_sessions",
    responses((status = 200, description = "all of them", body = Answer<Vec<SessionInfo>>)),
))]
pub(crate) async fn list(
    State(app): State<App>,
    Tenant(tenant, _): Tenant<Read>,
) -> Result<Json<Answer<Vec<SessionInfo>>>, Refusal> {
    let sessions = app.log.live_sessions(&tenant).await?;
    let told = stream::iter(sessions)
        .map(|session| SessionInfo::of(&app, &tenant, session))
        .buffered(AT_ONCE)
        .try_collect()
        .await?;
    Ok(Answer::of(told))
}

#[derive(Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub(crate) struct SessionTrace {
    session_id: String,
    /// A span a line, in OTLP's JSON, each under the session's trace id and with what log records say of it.
    trace_content: String,
    num_spans: usize,
}

/// A session as a trace file.
#[cfg_attr(feature = "openapi", utoipa::path(
    post, path = "/api/streaming/get-trace", tag = "dev", operation_id = "dev_get_trace", request_body = crate::openapi::OfSession,
    responses(
        (status = 200, description = "the file", body = Answer<SessionTrace>),
        (status = 404, description = "there is no such session", body = crate::openapi::DevRefusal),
        (status = 413, description = "the body is too large, or the session", body = crate::openapi::DevRefusal),
        (status = 422, description = "the body is not as it has to be", body = crate::openapi::DevRefusal),
        (status = 429, description = "too much is taken in at this moment", body = crate::openapi::DevRefusal),
    ),
))]
pub(crate) async fn get_trace(
    State(evaluate): State<Evaluate>,
    Tenant(tenant, _): Tenant<Read>,
    request: Request,
) -> Result<Json<Answer<SessionTrace>>, Refusal> {
    let mut fields = Fields::read(&evaluate.intake, request, SMALL_BODY_BYTES).await?;
    let session_id = fields.text("session_id");
    fields.check()?;
    let session = find(&evaluate.app, &tenant, &session_id).await?;
    let held = held(&evaluate.app, &tenant, &session).await?;
    Ok(Answer::of(SessionTrace {
        session_id,
        num_spans: held.span_count(),
        trace_content: lines(held, &session).await?,
    }))
}

#[derive(Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub(crate) struct MadeEvalSet {
    /// In the JSON of Google's ADK: one case, `case_1`, that expects what the session was.
    #[cfg_attr(feature = "openapi", schema(value_type = crate::openapi::EvalSet))]
    eval_set: Value,
    num_invocations: usize,
}

/// An eval set that expects of others what this session was.
#[cfg_attr(feature = "openapi", utoipa::path(
    post, path = "/api/streaming/create-eval-set", tag = "dev", operation_id = "dev_create_eval_set", request_body = crate::openapi::ToEvalSet,
    responses(
        (status = 200, description = "the eval set", body = Answer<MadeEvalSet>),
        (status = 404, description = "there is no such session", body = crate::openapi::DevRefusal),
        (status = 413, description = "the body is too large", body = crate::openapi::DevRefusal),
        (status = 422, description = "the body is not as it has to be", body = crate::openapi::DevRefusal),
        (status = 429, description = "too much is taken in at this moment", body = crate::openapi::DevRefusal),
    ),
))]
pub(crate) async fn create_eval_set(
    State(evaluate): State<Evaluate>,
    Tenant(tenant, _): Tenant<Read>,
    request: Request,
) -> Result<Json<Answer<MadeEvalSet>>, Refusal> {
    let mut fields = Fields::read(&evaluate.intake, request, SMALL_BODY_BYTES).await?;
    let (session_id, id) = (fields.text("session_id"), fields.text("eval_set_id"));
    fields.check()?;
    let session = find(&evaluate.app, &tenant, &session_id).await?;
    let turns = turns(&evaluate.app, &tenant, &session).await?;
    if evaluate.app.log.live_span_count(&tenant, &session).await? == 0 {
        return Err(Refusal::unusable(format!(
            "No traces found in session (spans=0, logs={})",
            session.logs
        )));
    }
    Ok(Answer::of(MadeEvalSet {
        eval_set: eval_set(&id, &turns),
        num_invocations: turns.len(),
    }))
}

#[derive(Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub(crate) struct Prepared {
    eval_set_url: String,
    trace_urls: Vec<String>,
    num_traces: usize,
}

/// Where the files for an evaluation are: the eval set of a golden session, and the traces of others.
///
/// The files are made when they are fetched. Sessions that there are not, or that go on, are left out.
#[cfg_attr(feature = "openapi", utoipa::path(
    post, path = "/api/streaming/prepare-evaluation", tag = "dev", operation_id = "dev_prepare_evaluation", request_body = crate::openapi::ToPrepare,
    responses(
        (status = 200, description = "paths of the files", body = Answer<Prepared>),
        (status = 404, description = "there is no such golden session", body = crate::openapi::DevRefusal),
        (status = 413, description = "the body is too large", body = crate::openapi::DevRefusal),
        (status = 422, description = "the body is not as it has to be", body = crate::openapi::DevRefusal),
        (status = 429, description = "too much is taken in at this moment", body = crate::openapi::DevRefusal),
    ),
))]
pub(crate) async fn prepare_evaluation(
    State(evaluate): State<Evaluate>,
    Tenant(tenant, _): Tenant<Read>,
    request: Request,
) -> Result<Json<Answer<Prepared>>, Refusal> {
    let mut fields = Fields::read(&evaluate.intake, request, SMALL_BODY_BYTES).await?;
    let golden = fields.text("golden_session_id");
    let wanted = match fields.texts("session_ids") {
        Some(wanted) => wanted,
        None => fields.missing("session_ids"),
    };
    fields.check()?;
    let (app, tenant) = (&evaluate.app, &tenant);
    if session(app, tenant, &golden).await?.is_none() {
        return Err(golden_not_found());
    }
    let found: Vec<_> = stream::iter(wanted)
        .map(|name| async move { session(app, tenant, &name).await })
        .buffered(AT_ONCE)
        .try_collect()
        .await?;
    let complete = found.iter().flatten().filter(|session| session.complete);
    let trace_urls: Vec<_> = complete
        .map(|session| Prepare::Trace(session.name.clone()).url())
        .collect();
    Ok(Answer::of(Prepared {
        eval_set_url: Prepare::EvalSet(golden).url(),
        num_traces: trace_urls.len(),
        trace_urls,
    }))
}

/// A file that [`prepare_evaluation`] names.
#[derive(Debug, PartialEq, Eq)]
enum Prepare {
    EvalSet(String),
    Trace(String),
}

impl Prepare {
    fn file_name(&self) -> String {
        match self {
            Self::EvalSet(session) => format!("eval_set_{session}.json"),
            Self::Trace(session) => format!("agentevals_{session}.jsonl"),
        }
    }

    fn url(&self) -> String {
        let name = self.file_name();
        let name = percent_encoding::utf8_percent_encode(&name, percent_encoding::NON_ALPHANUMERIC);
        // What needs no encoding in a path stays readable.
        let name = name.to_string();
        let name = name
            .replace("%5F", "_")
            .replace("%2D", "-")
            .replace("%2E", ".");
        format!("/api/streaming/download/{name}")
    }
}

impl std::str::FromStr for Prepare {
    type Err = Refusal;

    fn from_str(name: &str) -> Result<Self, Refusal> {
        let between = |before, after| name.strip_prefix(before)?.strip_suffix(after);
        let eval_set = between("eval_set_", ".json").map(|it: &str| Self::EvalSet(it.to_owned()));
        let trace = between("agentevals_", ".jsonl").map(|it: &str| Self::Trace(it.to_owned()));
        eval_set.or(trace).ok_or_else(file_not_found)
    }
}

/// A file that `prepare-evaluation` named.
#[cfg_attr(feature = "openapi", utoipa::path(
    get, path = "/api/streaming/download/{filename}", tag = "dev", operation_id = "dev_download",
    params(("filename" = String, Path, description = "`eval_set_<session>.json` or `agentevals_<session>.jsonl`, percent-encoded")),
    responses(
        (status = 200, description = "the file: an eval set, or a trace with a span a line", content((Value = "application/json"))),
        (status = 404, description = "there is no such session, or it goes on", body = crate::openapi::DevRefusal),
        (status = 413, description = "the session is too large", body = crate::openapi::DevRefusal),
    ),
))]
pub(crate) async fn download(
    State(app): State<App>,
    Tenant(tenant, _): Tenant<Read>,
    name: Result<Path<String>, PathRejection>,
) -> Result<Response, Refusal> {
    let Path(name) = name.map_err(|_| file_not_found())?;
    let file = Prepare::from_str(&name)?;
    let (Prepare::EvalSet(of) | Prepare::Trace(of)) = &file;
    let session = session(&app, &tenant, of).await?;
    let session = session.ok_or_else(file_not_found)?;
    let content = match &file {
        Prepare::EvalSet(of) => {
            let turns = turns(&app, &tenant, &session).await?;
            eval_set(&format!("golden_{of}"), &turns).to_string()
        }
        Prepare::Trace(_) if session.complete => {
            let held = held(&app, &tenant, &session).await?;
            lines(held, &session).await?
        }
        Prepare::Trace(_) => return Err(file_not_found()),
    };
    let mut response = content.into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    // A name with more than plain characters is encoded (RFC 6266).
    let plain = name
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b));
    let named = match plain {
        true => format!("attachment; filename=\"{name}\""),
        false => {
            let all = percent_encoding::NON_ALPHANUMERIC;
            let name = percent_encoding::utf8_percent_encode(&name, all);
            format!("attachment; filename*=utf-8''{name}")
        }
    };
    if let Ok(named) = named.parse() {
        headers.insert(CONTENT_DISPOSITION, named);
    }
    Ok(response)
}

/// The session of a name.
///
/// # Errors
/// 404, 503.
pub(crate) async fn find(app: &App, tenant: &TenantId, name: &str) -> Result<LiveSession, Refusal> {
    let found = session(app, tenant, name).await?;
    found.ok_or_else(|| Refusal::absent("Session not found"))
}

pub(crate) async fn session(
    app: &App,
    tenant: &TenantId,
    name: &str,
) -> Result<Option<LiveSession>, LogError> {
    app.log.live_session(tenant, &SessionKey::of(name)).await
}

pub(crate) fn golden_not_found() -> Refusal {
    Refusal::absent("Golden session not found")
}

fn file_not_found() -> Refusal {
    Refusal::absent("File not found")
}

/// The turns of a session: those of its traces, one after the other.
pub(crate) async fn turns(
    app: &App,
    tenant: &TenantId,
    session: &LiveSession,
) -> Result<Vec<Invocation>, LogError> {
    let traces = session.traces.iter().map(|of| of.trace.clone());
    let folded: Vec<_> = stream::iter(traces.collect::<Vec<_>>())
        .map(|trace| async move {
            let folded = app.log.folded(tenant, &trace).await?;
            Ok::<_, LogError>(folded)
        })
        .buffered(AT_ONCE)
        .try_collect()
        .await?;
    Ok(of_session(
        folded.iter().flatten().map(|folded| folded.state.as_ref()),
    ))
}

/// The eval set that expects these turns.
pub(crate) fn eval_set(id: &str, turns: &[Invocation]) -> Value {
    let conversation: Vec<_> = turns.iter().map(compat::eval_invocation).collect();
    json!({"eval_set_id": id, "eval_cases": [{"eval_id": "case_1", "conversation": conversation}]})
}

/// What the traces of a session hold.
///
/// # Errors
/// 413 for a session that is larger than what is taken out at once; 503.
pub(crate) async fn held(
    app: &App,
    tenant: &TenantId,
    session: &LiveSession,
) -> Result<Held, Refusal> {
    let mut held = Held::default();
    for of in &session.traces {
        add_trace(app, tenant, &of.trace, &mut held).await?;
    }
    Ok(held)
}

async fn add_trace(
    app: &App,
    tenant: &TenantId,
    trace: &TraceId,
    held: &mut Held,
) -> Result<(), Refusal> {
    let mut after = Cursor::START;
    loop {
        let from = ReadFrom::After(after);
        let page = app.log.page(tenant, trace, from, PageSize::LARGE).await?;
        let Some(state) = page.state.filter(|state| !state.dead) else {
            return Ok(());
        };
        for chunk in &page.chunks {
            for recorded in app.log.recorded(tenant, trace, chunk).await? {
                if recorded.seq > state.base && !held.add(recorded.observation) {
                    let megabytes = MOST_BYTES / (1024 * 1024);
                    return Err(Refusal::too_large(format!(
                        "The session holds more than {megabytes}MB: read its traces in pages, at /traces/{trace}/events"
                    )));
                }
            }
            after.seq = after.seq.max(chunk.span.last);
        }
        if page.chunks.is_empty() || after.seq >= state.seq {
            return Ok(());
        }
    }
}

/// The trace file of a session.
async fn lines(held: Held, session: &LiveSession) -> Result<String, Refusal> {
    let trace = session.trace.clone();
    // A long session takes a moment to write out; it must not hold up the other requests of this thread.
    let lines = tokio::task::spawn_blocking(move || held.lines(&trace)).await;
    lines.map_err(|error| {
        tracing::error!(%error, "failed to write out a session");
        ApiError::internal().into()
    })
}

/// When a session began, as the dialect writes it.
pub(crate) fn started_at(session: &LiveSession) -> String {
    let us = session.started_unix_us;
    let to_ms = rfc3339_ms(us / 1000);
    format!("{}{:03}+00:00", to_ms.trim_end_matches('Z'), us % 1000)
}
