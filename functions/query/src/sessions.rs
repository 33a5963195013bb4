//! Sessions: which there are, and what one of them holds.

use axum::{
    Json,
    extract::{Path, State, rejection::PathRejection},
};
use serde::Serialize;
use tailspan_core::{
    event::rfc3339_ms,
    id::{SessionKey, TenantId},
    listing::{Label, Request, Totals, label_text, page_of_sessions, session_key},
};
use tailspan_service::{
    App,
    error::ApiError,
    extract::{Params, Read, Tenant, View},
    log::{rows::Walk, sessions::Session},
};

use crate::list::{Found, Pairs, find, invalid, name_in_path};

/// Rows that the totals of a session look at in a step, and how many steps they take: of a longer session they count the newest traces.
const STEP: usize = 200;
const STEPS: usize = 5;

/// A page of the list of sessions.
#[derive(Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub(crate) struct Sessions {
    sessions: Vec<SessionRow>,
    /// For the next page; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

/// A session, as a list shows it.
#[derive(Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub(crate) struct SessionRow {
    /// As its producers call it.
    session_id: String,
    /// Stands for the name in paths and filters: 26 letters and digits.
    key: String,
    /// Traces that name it and are kept.
    traces: u64,
    /// When it was first named, and last.
    #[cfg_attr(feature = "openapi", schema(format = DateTime))]
    first_event_at: String,
    #[cfg_attr(feature = "openapi", schema(format = DateTime))]
    last_event_at: String,
}

/// A session: itself, what its traces come to, and a page of them.
#[derive(Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub(crate) struct OneSession {
    session_id: String,
    key: String,
    #[cfg_attr(feature = "openapi", schema(format = DateTime))]
    first_event_at: String,
    #[cfg_attr(feature = "openapi", schema(format = DateTime))]
    last_event_at: String,
    /// Over its traces, at most the newest 1,000 (`totals.traces` says how many).
    totals: Totals,
    #[serde(flatten)]
    found: Found,
}

impl From<Session> for SessionRow {
    fn from(session: Session) -> Self {
        Self {
            key: session.key.as_str().to_owned(),
            session_id: session.name,
            traces: session.traces,
            first_event_at: rfc3339_ms(session.first_unix_ms),
            last_event_at: rfc3339_ms(session.last_unix_ms),
        }
    }
}

/// The sessions, those heard of last first, page by page.
#[cfg_attr(feature = "openapi", utoipa::path(
    get, path = "/sessions", tag = "traces", params(crate::openapi::SessionsQuery),
    responses((status = 200, description = "a page of sessions", body = Sessions)),
))]
pub(crate) async fn list_sessions(
    State(app): State<App>,
    Tenant(tenant, _): Tenant<Read>,
    Params(pairs): Params<Pairs>,
) -> Result<Json<Sessions>, ApiError> {
    let (limit, after) = page_of_sessions(pairs).map_err(invalid)?;
    let after = after.as_ref().map(|(at, key)| (*at, key.as_str()));
    let (sessions, last) = app.log.sessions(&tenant, after, limit).await?;
    Ok(Json(Sessions {
        next_cursor: last.map(|(at, key)| format!("{at}-{}", key.as_str())),
        sessions: sessions.into_iter().map(SessionRow::from).collect(),
    }))
}

/// One session: what its traces come to, and a page of them, newest first; filters and paging are those of the list of traces.
#[cfg_attr(feature = "openapi", utoipa::path(
    get, path = "/sessions/{session_id}", tag = "traces",
    params(
        ("session_id" = String, Path, description = "name of the session, percent-encoded, or its key"),
        crate::openapi::OfAgent,
        crate::openapi::ListQuery,
    ),
    responses(
        (status = 200, description = "the session", body = OneSession),
        (status = 404, description = "there is no such session", body = tailspan_service::openapi::ErrorBody),
    ),
))]
pub(crate) async fn get_session(
    State(app): State<App>,
    Tenant(tenant, _): Tenant<View>,
    name: Result<Path<String>, PathRejection>,
    Params(pairs): Params<Pairs>,
) -> Result<Json<OneSession>, ApiError> {
    let mut request = Request::parse(pairs).map_err(invalid)?;
    let name = name_in_path(name, "session_id")?;
    if request.filter.session.is_some() {
        let message = "session_id stands in the path already";
        return Err(ApiError::invalid("invalid_parameter", message));
    }
    let session = known(&app, &tenant, &name).await?;
    request.filter.session = Some(session.key.as_str().to_owned());
    let (totals, found) = tokio::try_join!(
        totals(&app, &tenant, &session.key),
        find(&app, &tenant, &request),
    )?;
    Ok(Json(OneSession {
        key: session.key.as_str().to_owned(),
        session_id: session.name,
        first_event_at: rfc3339_ms(session.first_unix_ms),
        last_event_at: rfc3339_ms(session.last_unix_ms),
        totals,
        found,
    }))
}

/// The session of a name or a key.
async fn known(app: &App, tenant: &TenantId, name: &str) -> Result<Session, ApiError> {
    let key = session_key(name);
    let session = match app.log.session(tenant, &key).await? {
        // A name may look like a key.
        None => {
            let of_name = SessionKey::of(label_text(name));
            app.log.session(tenant, &of_name).await?
        }
        session => session,
    };
    session.ok_or_else(|| ApiError::session_not_found(name))
}

async fn totals(app: &App, tenant: &TenantId, session: &SessionKey) -> Result<Totals, ApiError> {
    let label = Label::session(session);
    let mut totals = Totals::default();
    let mut after = None;
    for _ in 0..STEPS {
        let walk = Walk {
            index: Some(&label),
            after: after.take(),
            step: STEP,
            wanted: STEP,
            ..Walk::default()
        };
        let step = app.log.walk(tenant, walk).await?;
        for listed in &step.found {
            totals.add(listed.row.as_deref());
        }
        after = step.last;
        if !step.more || after.is_none() {
            break;
        }
    }
    Ok(totals)
}
