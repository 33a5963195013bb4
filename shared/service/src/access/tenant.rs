//! How a handler asks who it works for: `Tenant(tenant, _): Tenant<Read>` says the scope in its signature, and nothing of a tenant can be had without one.

use std::time::Duration;

use axum::{
    extract::{FromRef, FromRequestParts, Query, RawPathParams},
    http::request::Parts,
};
use tailspan_core::{
    id::{SessionKey, TenantId, TraceId},
    listing::label_text,
};
use tokio::time::Instant;

use super::{Caller, Principal, Reach, Scopes, credential};
use crate::{app::App, error::ApiError, function::StreamUntil, log::now_unix_ms, requests};

/// A stream by a credential that can be revoked or expires ends after so long, and is opened again with it or not.
const LONGEST_STREAM: Duration = Duration::from_secs(300);

/// Whose data a request is about, and that it may do with it what `S` says: [`Read`], [`Write`], [`Exchange`], [`Admin`], and for what can be lent to a viewer [`View`]
/// or [`Glimpse`].
#[derive(Clone, Debug)]
pub struct Tenant<S>(pub TenantId, pub S);

/// What a handler needs of who calls it.
pub trait Needs: Sized + Send {
    const SCOPES: Scopes;

    /// What the handler is told of the caller, who has [`Needs::SCOPES`].
    ///
    /// # Errors
    /// 403: it is not for them.
    fn of(principal: &Principal) -> Result<Self, ApiError>;

    /// Whether a principal who reaches one trace or session may come here, for that one.
    const LENT: bool = false;
}

/// Seeing anything of a tenant's. Not for whom only one thing was lent: a route is closed to them until it says that it looks at no other.
#[derive(Clone, Copy, Debug)]
pub struct Read;

/// Storing.
#[derive(Clone, Copy, Debug)]
pub struct Write {
    /// Whether what was stored of a trace may be put aside for what comes, which deletes it.
    pub may_replace: bool,
}

/// Calling an agent: its run is stored, and shown to the caller.
#[derive(Clone, Copy, Debug)]
pub struct Exchange;

/// Removing, and what else concerns the tenant as a whole.
#[derive(Clone, Copy, Debug)]
pub struct Admin;

/// Lending what can be read: not for whom it was lent.
#[derive(Clone, Copy, Debug)]
pub struct Lend;

/// Seeing the one trace or session that the path names, whole.
#[derive(Clone, Copy, Debug)]
pub struct View;

/// As [`View`], also for whom contents are not: the handler leaves them out.
#[derive(Clone, Copy, Debug)]
pub struct Glimpse {
    pub redacted: bool,
}

impl Needs for Read {
    const SCOPES: Scopes = Scopes::READ;

    fn of(principal: &Principal) -> Result<Self, ApiError> {
        whole(principal).map(|()| Self)
    }
}

impl Needs for Write {
    const SCOPES: Scopes = Scopes::INGEST;

    fn of(principal: &Principal) -> Result<Self, ApiError> {
        Ok(Self {
            may_replace: principal.scopes.has(Scopes::ADMIN),
        })
    }
}

impl Write {
    /// # Errors
    /// 403 for who may not delete.
    pub fn replacing(self, replace: bool) -> Result<(), ApiError> {
        match replace && !self.may_replace {
            true => Err(lacking(Scopes::ADMIN)),
            false => Ok(()),
        }
    }
}

impl Needs for Exchange {
    const SCOPES: Scopes = Scopes::READ.with(Scopes::INGEST);

    fn of(_: &Principal) -> Result<Self, ApiError> {
        Ok(Self)
    }
}

impl Needs for Admin {
    const SCOPES: Scopes = Scopes::ADMIN;

    fn of(_: &Principal) -> Result<Self, ApiError> {
        Ok(Self)
    }
}

impl Needs for Lend {
    const SCOPES: Scopes = Scopes::READ;

    fn of(principal: &Principal) -> Result<Self, ApiError> {
        match principal.lent {
            true => Err(ApiError::forbidden(
                "who was lent something lends it to nobody",
            )),
            false => Ok(Self),
        }
    }
}

impl Needs for View {
    const SCOPES: Scopes = Scopes::READ;
    const LENT: bool = true;

    fn of(principal: &Principal) -> Result<Self, ApiError> {
        whole(principal).map(|()| Self)
    }
}

impl Needs for Glimpse {
    const SCOPES: Scopes = Scopes::READ;
    const LENT: bool = true;

    fn of(principal: &Principal) -> Result<Self, ApiError> {
        Ok(Self {
            redacted: principal.redacted,
        })
    }
}

fn whole(principal: &Principal) -> Result<(), ApiError> {
    match principal.redacted {
        true => Err(ApiError::forbidden(
            "this shows contents, which the token does not open",
        )),
        false => Ok(()),
    }
}

fn lacking(scopes: Scopes) -> ApiError {
    let names: Vec<_> = scopes.names().collect();
    ApiError::forbidden(format!(
        "this needs a key with the scope {}",
        names.join(" and ")
    ))
}

/// Who is asked, and by whom.
async fn asked<S>(parts: &Parts, state: &S) -> Result<(App, Caller), ApiError>
where
    App: FromRef<S>,
{
    let app = App::from_ref(state);
    let credential = credential(&parts.headers, &parts.uri);
    let caller = app.access.caller(credential.as_deref()).await?;
    Ok((app, caller))
}

impl<S, N> FromRequestParts<S> for Tenant<N>
where
    App: FromRef<S>,
    S: Send + Sync,
    N: Needs,
{
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let (app, caller) = asked(parts, state).await?;
        let principal = app.access.of_a_tenant(caller)?;
        requests::is_of("tenant", principal.tenant.as_str());
        if !principal.scopes.has(N::SCOPES) {
            return Err(lacking(N::SCOPES));
        }
        let needed = N::of(&principal)?;
        if principal.reach != Reach::Whole {
            if !N::LENT {
                return Err(elsewhere());
            }
            check_reach(&app, &principal, parts, state).await?;
        }
        if principal.revocable {
            bound_streams(&principal, parts);
        }
        Ok(Self(principal.tenant, needed))
    }
}

/// A stream does not outlive what opened it: it ends with it, and well before the end of what can be revoked; who may, comes back at its cursor.
fn bound_streams(principal: &Principal, parts: &mut Parts) {
    let left_ms = match principal.until_unix_ms {
        Some(until) => until.saturating_sub(now_unix_ms()),
        None => u64::MAX,
    };
    let left = Duration::from_millis(left_ms).min(LONGEST_STREAM);
    let until = Instant::now() + left;
    let known = parts.extensions.get::<StreamUntil>();
    let until = known
        .and_then(|known| known.0)
        .map_or(until, |known| known.min(until));
    parts.extensions.insert(StreamUntil(Some(until)));
}

/// Whose keys are kept: the tenant whose administrator asks, or for the operator the one that `?tenant=` names (else the default one).
#[derive(Clone, Debug)]
pub struct Keeper(pub TenantId);

impl<S> FromRequestParts<S> for Keeper
where
    App: FromRef<S>,
    S: Send + Sync,
{
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        #[derive(serde::Deserialize)]
        struct Named {
            tenant: Option<String>,
        }
        let (_, caller) = asked(parts, state).await?;
        let named = Query::<Named>::try_from_uri(&parts.uri)
            .ok()
            .and_then(|query| query.0.tenant);
        let named = named.map(|name| TenantId::parse(&name)).transpose()?;
        match caller {
            Caller::Operator => Ok(Self(named.unwrap_or_default())),
            Caller::Principal(principal) if !principal.scopes.has(Scopes::ADMIN) => {
                Err(lacking(Scopes::ADMIN))
            }
            Caller::Principal(principal) => match named {
                Some(other) if other != principal.tenant => Err(ApiError::forbidden(
                    "another tenant's keys are for the admin token (TAILSPAN_ADMIN_TOKEN)",
                )),
                _ => Ok(Self(principal.tenant)),
            },
        }
    }
}

fn elsewhere() -> ApiError {
    ApiError::forbidden("the token opens one trace or session, and this is something else")
}

/// Whether the path names what was lent. Of everything else they are told that it is not there, whether it is or not.
async fn check_reach<S: Send + Sync>(
    app: &App,
    principal: &Principal,
    parts: &mut Parts,
    state: &S,
) -> Result<(), ApiError> {
    let segments = RawPathParams::from_request_parts(parts, state).await;
    let segments = segments.map_err(|_| elsewhere())?;
    let named = |name: &str| {
        let mut all = segments.iter();
        all.find_map(|(key, value)| (key == name).then_some(value))
    };
    if let Some(text) = named("trace_id") {
        let trace = TraceId::parse(text)?;
        let is_lent = match &principal.reach {
            Reach::Whole => true,
            Reach::Trace(lent) => *lent == trace,
            Reach::Session(key) => {
                app.log
                    .is_of_session(&principal.tenant, &trace, key)
                    .await?
            }
        };
        return match is_lent {
            true => Ok(()),
            false => Err(ApiError::trace_not_found(&trace)),
        };
    }
    if let Some(name) = named("session_id") {
        // By its name alone: what looks like a key may be another session's name.
        return match &principal.reach {
            Reach::Session(key)
                if *key == SessionKey::of(label_text(name))
                    && SessionKey::parse(name).is_none() =>
            {
                Ok(())
            }
            _ => Err(ApiError::session_not_found(name)),
        };
    }
    Err(elsewhere())
}

/// Whoever may see what is counted over all tenants: everybody where nobody is asked who they are, the bearer of the admin token, and who administers the only
/// tenant that there is.
#[derive(Clone, Copy, Debug)]
pub struct Operator;

impl<S> FromRequestParts<S> for Operator
where
    App: FromRef<S>,
    S: Send + Sync,
{
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let (app, caller) = asked(parts, state).await?;
        let principal = match caller {
            Caller::Operator => return Ok(Self),
            Caller::Principal(_) if app.access.is_open() => return Ok(Self),
            Caller::Principal(principal) => principal,
        };
        let refused = || {
            ApiError::forbidden(
                "this counts over several tenants and needs the admin token (TAILSPAN_ADMIN_TOKEN)",
            )
        };
        if !principal.scopes.has(Scopes::ADMIN) || principal.reach != Reach::Whole {
            return Err(refused());
        }
        let is_alone = |tenant: &TenantId| *tenant == principal.tenant;
        if app.access.named_tenants().all(is_alone) && app.log.tenants().await?.iter().all(is_alone)
        {
            return Ok(Self);
        }
        Err(refused())
    }
}
