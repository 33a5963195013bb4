//! API keys and viewer tokens: made, listed, changed, ended. A secret stands in the answer that makes it, and nowhere else.

use std::time::Duration;

use axum::{
    Json,
    body::Bytes,
    extract::{
        Path, State,
        rejection::{BytesRejection, PathRejection},
    },
    http::{
        StatusCode,
        header::{CACHE_CONTROL, HeaderName},
    },
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tailspan_core::id::TraceId;
use tailspan_service::{
    App,
    access::{
        Scopes,
        keys::{KeyRow, LONGEST_NAME, NewKey},
        lent::{LONGEST_LIFETIME, Lent, LentRow, Loan, USUAL_LIFETIME},
    },
    error::ApiError,
    extract::{Keeper, Lend, Tenant},
};

#[cfg(feature = "openapi")]
use tailspan_service::openapi::ErrorBody;

/// Characters of a session's name.
const LONGEST_SESSION: usize = 512;
/// How long a secret outlives its successor, when it is not said, and at most.
const USUAL_GRACE_SECONDS: u64 = 24 * 3600;
const LONGEST_GRACE_SECONDS: u64 = 30 * 24 * 3600;
/// Of a key.
const LONGEST_KEY_SECONDS: u64 = 10 * 366 * 24 * 3600;

/// A secret in an answer stays out of every cache.
type Once<T> = (StatusCode, [(HeaderName, &'static str); 1], Json<T>);

fn once<T>(status: StatusCode, body: T) -> Once<T> {
    (status, [(CACHE_CONTROL, "no-store")], Json(body))
}

fn invalid(message: impl Into<String>) -> ApiError {
    ApiError::invalid("invalid_body", message)
}

/// A body of JSON; none is an empty object.
fn read<T: DeserializeOwned>(body: Result<Bytes, BytesRejection>) -> Result<T, ApiError> {
    let body = body.map_err(|_| ApiError::too_large("the body cannot be read, or is too large"))?;
    let json = match body.trim_ascii() {
        b"" => b"{}",
        json => json,
    };
    serde_json::from_slice(json).map_err(|error| invalid(error.to_string()))
}

fn name(name: Option<String>) -> Result<String, ApiError> {
    let name = name.unwrap_or_default();
    match name.chars().count() <= LONGEST_NAME && !name.chars().any(char::is_control) {
        true => Ok(name),
        false => Err(invalid(format!(
            "name must be at most {LONGEST_NAME} characters that can be printed"
        ))),
    }
}

/// What a path names; what is no UTF-8 names nothing.
fn segment(path: Result<Path<String>, PathRejection>) -> String {
    path.map_or_else(|_| "\u{fffd}".to_owned(), |Path(id)| id)
}

fn within(seconds: Option<u64>, usual: u64, most: u64, what: &str) -> Result<Duration, ApiError> {
    match seconds.unwrap_or(usual) {
        seconds if seconds <= most => Ok(Duration::from_secs(seconds)),
        _ => Err(invalid(format!("{what} must be at most {most}"))),
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub(crate) struct NewToken {
    /// The trace to show; it may be yet to come.
    #[cfg_attr(feature = "openapi", schema(pattern = "^[A-Za-z0-9_-]{1,128}$"))]
    trace_id: Option<String>,
    /// The session to show, with its traces, by its name. Without both, everything that the tenant may read.
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 512))]
    session_id: Option<String>,
    /// Without contents: what was said, given and answered.
    redact: Option<bool>,
    /// An hour unless it is said; at most 30 days.
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 2_592_000))]
    expires_in_seconds: Option<u64>,
    /// For who reads the list.
    #[cfg_attr(feature = "openapi", schema(max_length = 100))]
    name: Option<String>,
}

#[derive(Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub(crate) struct MadeToken {
    /// To be sent as any other: `Authorization: Bearer`, or `?token=`.
    token: String,
    #[serde(flatten)]
    row: LentRow,
}

#[derive(Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub(crate) struct Tokens {
    tokens: Vec<LentRow>,
}

/// Makes a viewer token: for a link that shows one trace or session, or for a client that can only send a URL.
#[cfg_attr(feature = "openapi", utoipa::path(
    post, path = "/tokens", tag = "access", request_body = NewToken,
    responses(
        (status = 201, description = "the token, which is shown this once", body = MadeToken),
        (status = 409, description = "as many are good as may be", body = ErrorBody),
        (status = 413, response = tailspan_service::openapi::TooLarge),
    ),
))]
pub(crate) async fn create_token(
    State(app): State<App>,
    Tenant(tenant, _): Tenant<Lend>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Once<MadeToken>, ApiError> {
    let new: NewToken = read(body)?;
    let redact = new.redact.unwrap_or(false);
    let what = match (new.trace_id, new.session_id) {
        (Some(trace), None) => Lent::Trace(TraceId::parse(&trace)?),
        (None, Some(session)) => {
            let length = session.chars().count();
            if !(1..=LONGEST_SESSION).contains(&length) {
                return Err(invalid(format!(
                    "session_id must be a session's name, of 1 to {LONGEST_SESSION} characters"
                )));
            }
            Lent::Session(session)
        }
        (None, None) if !redact => Lent::Reads,
        (None, None) => return Err(invalid("redact is for one trace or one session")),
        (Some(_), Some(_)) => {
            return Err(invalid("trace_id and session_id exclude one another"));
        }
    };
    let usual = USUAL_LIFETIME.as_secs();
    let most = LONGEST_LIFETIME.as_secs();
    let lifetime = within(new.expires_in_seconds, usual, most, "expires_in_seconds")?;
    if lifetime.is_zero() {
        return Err(invalid("expires_in_seconds must be at least 1"));
    }
    let loan = Loan {
        what,
        redact,
        lifetime,
        name: name(new.name)?,
    };
    let (row, token) = app.access.lend(&tenant, loan).await?;
    Ok(once(StatusCode::CREATED, MadeToken { token, row }))
}

/// The viewer tokens that are good now.
#[cfg_attr(feature = "openapi", utoipa::path(
    get, path = "/tokens", tag = "access",
    responses((status = 200, description = "the tokens, without their secrets", body = Tokens)),
))]
pub(crate) async fn list_tokens(
    State(app): State<App>,
    Tenant(tenant, _): Tenant<Lend>,
) -> Result<Json<Tokens>, ApiError> {
    let mut tokens = app.access.list_lent(&tenant).await?;
    tokens.sort_by(|one, other| (&one.created_at, &one.id).cmp(&(&other.created_at, &other.id)));
    Ok(Json(Tokens { tokens }))
}

/// Ends a viewer token: at once here, within five seconds in other processes.
#[cfg_attr(feature = "openapi", utoipa::path(
    delete, path = "/tokens/{token_id}", tag = "access",
    params(("token_id" = String, Path, description = "the token's id", pattern = "^[0-9a-f]{16}$")),
    responses(
        (status = 204, description = "it opens nothing any more"),
        (status = 404, description = "there is no such token", body = ErrorBody),
    ),
))]
pub(crate) async fn delete_token(
    State(app): State<App>,
    Tenant(tenant, _): Tenant<Lend>,
    id: Result<Path<String>, PathRejection>,
) -> Result<StatusCode, ApiError> {
    app.access.end_loan(&tenant, &segment(id)).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub(crate) struct NewApiKey {
    /// What it is for.
    #[cfg_attr(feature = "openapi", schema(max_length = 100))]
    name: Option<String>,
    /// Some of `ingest`, `read`, `admin`.
    #[cfg_attr(feature = "openapi", schema(min_items = 1, max_items = 3))]
    scopes: Vec<String>,
    /// For ever unless it is said; at most ten years.
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 316_224_000))]
    expires_in_seconds: Option<u64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub(crate) struct Rotation {
    /// How long the former secret stays good: a day unless it is said, at most 30.
    #[cfg_attr(feature = "openapi", schema(maximum = 2_592_000))]
    grace_seconds: Option<u64>,
}

#[derive(Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub(crate) struct MadeApiKey {
    /// `ts_<id>_<secret>`.
    key: String,
    #[serde(flatten)]
    row: KeyRow,
}

#[derive(Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub(crate) struct ApiKeyList {
    keys: Vec<KeyRow>,
}

/// The tenant's API keys, the oldest first.
#[cfg_attr(feature = "openapi", utoipa::path(
    get, path = "/admin/keys", tag = "access",
    params(("tenant" = Option<String>, Query, description = "whose, for the admin token; else the default tenant's", pattern = "^[a-z0-9-]{1,40}$")),
    responses((status = 200, description = "the keys, without their secrets", body = ApiKeyList)),
))]
pub(crate) async fn list_keys(
    State(app): State<App>,
    Keeper(tenant): Keeper,
) -> Result<Json<ApiKeyList>, ApiError> {
    let keys = app.access.list_keys(&tenant).await?;
    Ok(Json(ApiKeyList { keys }))
}

/// Makes an API key.
#[cfg_attr(feature = "openapi", utoipa::path(
    post, path = "/admin/keys", tag = "access", request_body = NewApiKey,
    params(("tenant" = Option<String>, Query, description = "whose, for the admin token; else the default tenant's", pattern = "^[a-z0-9-]{1,40}$")),
    responses(
        (status = 201, description = "the key, which is shown this once", body = MadeApiKey),
        (status = 409, description = "the tenant has as many as it may have", body = ErrorBody),
        (status = 413, response = tailspan_service::openapi::TooLarge),
    ),
))]
pub(crate) async fn create_key(
    State(app): State<App>,
    Keeper(tenant): Keeper,
    body: Result<Bytes, BytesRejection>,
) -> Result<Once<MadeApiKey>, ApiError> {
    let new: NewApiKey = read(body)?;
    let mut scopes = Scopes::NONE;
    for scope in &new.scopes {
        let scope = Scopes::named(scope)
            .ok_or_else(|| invalid("scopes must be some of ingest, read and admin"))?;
        scopes = scopes.with(scope);
    }
    if scopes == Scopes::NONE {
        return Err(invalid(
            "scopes must name one of ingest, read and admin at least",
        ));
    }
    let lifetime = match new.expires_in_seconds {
        None => None,
        Some(0) => return Err(invalid("expires_in_seconds must be at least 1")),
        some => Some(within(some, 0, LONGEST_KEY_SECONDS, "expires_in_seconds")?),
    };
    let new = NewKey {
        tenant,
        name: name(new.name)?,
        scopes,
        lifetime,
    };
    let (row, key) = app.access.create_key(new).await?;
    Ok(once(StatusCode::CREATED, MadeApiKey { key, row }))
}

/// Gives an API key a new secret; the former one stays good for a while.
#[cfg_attr(feature = "openapi", utoipa::path(
    post, path = "/admin/keys/{key_id}/rotate", tag = "access", request_body = Option<Rotation>,
    params(
        ("key_id" = String, Path, description = "the key's id", pattern = "^[0-9a-f]{16}$"),
        ("tenant" = Option<String>, Query, description = "whose, for the admin token; else the default tenant's", pattern = "^[a-z0-9-]{1,40}$"),
    ),
    responses(
        (status = 200, description = "the key with its new secret, which is shown this once", body = MadeApiKey),
        (status = 404, description = "there is no such key", body = ErrorBody),
        (status = 413, response = tailspan_service::openapi::TooLarge),
    ),
))]
pub(crate) async fn rotate_key(
    State(app): State<App>,
    Keeper(tenant): Keeper,
    id: Result<Path<String>, PathRejection>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Once<MadeApiKey>, ApiError> {
    let rotation: Rotation = read(body)?;
    let grace = within(
        rotation.grace_seconds,
        USUAL_GRACE_SECONDS,
        LONGEST_GRACE_SECONDS,
        "grace_seconds",
    )?;
    let (row, key) = app.access.rotate_key(&tenant, &segment(id), grace).await?;
    Ok(once(StatusCode::OK, MadeApiKey { key, row }))
}

/// Revokes an API key: at once here, within five seconds in other processes.
#[cfg_attr(feature = "openapi", utoipa::path(
    delete, path = "/admin/keys/{key_id}", tag = "access",
    params(
        ("key_id" = String, Path, description = "the key's id", pattern = "^[0-9a-f]{16}$"),
        ("tenant" = Option<String>, Query, description = "whose, for the admin token; else the default tenant's", pattern = "^[a-z0-9-]{1,40}$"),
    ),
    responses(
        (status = 204, description = "it opens nothing any more"),
        (status = 404, description = "there is no such key", body = ErrorBody),
    ),
))]
pub(crate) async fn revoke_key(
    State(app): State<App>,
    Keeper(tenant): Keeper,
    id: Result<Path<String>, PathRejection>,
) -> Result<StatusCode, ApiError> {
    app.access.revoke_key(&tenant, &segment(id)).await?;
    Ok(StatusCode::NO_CONTENT)
}
