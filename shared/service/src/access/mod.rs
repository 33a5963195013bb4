//! Who a request is from, and how far they reach: decided once per request, before a handler sees anything.
//!
//! A credential comes as `Authorization: Bearer`, or as `?token=` where a client cannot send headers (a browser's `EventSource`, a link). It is looked up by
//! its SHA-256, so that no comparison tells how much of a guess was right, and becomes a [`Principal`]: a tenant, scopes, and for what was lent to a viewer
//! the one thing that it opens. Handlers ask for it as [`Tenant`], with what they need as its type.

pub mod held;
mod jwt;
pub mod keys;
pub mod lent;
pub mod settings;
mod tenant;

use std::{borrow::Cow, collections::HashMap, sync::Arc};

use axum::{
    extract::Query,
    http::{HeaderMap, Uri, header::AUTHORIZATION},
};
use ring::digest::{SHA256, digest};
use serde::Deserialize;
use tailspan_core::id::{SessionKey, TenantId, TraceId, hex};

pub use self::jwt::JwtSettings;
pub use self::tenant::{
    Admin, Exchange, Glimpse, Keeper, Lend, Needs, Operator, Read, Tenant, View, Write,
};
use self::{
    jwt::{Issuer, is_jwt},
    keys::{KnownKeys, Remembered},
    settings::Mode,
};
use crate::{config::Config, error::ApiError, keys::Keys, redis::Redis};

/// What a credential may be used for; a set of three.
///
/// | scope | opens |
/// | --- | --- |
/// | `ingest` | OTLP, native events, import of files, the WebSocket |
/// | `read` | everything that shows or evaluates, and lending it to viewers |
/// | `admin` | deleting, cleaning up, beginning a trace again (`replace=true`), API keys |
///
/// Calling an agent (`completions`) needs `ingest` and `read`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scopes(u8);

impl Scopes {
    pub const NONE: Self = Self(0);
    pub const INGEST: Self = Self(1);
    pub const READ: Self = Self(2);
    pub const ADMIN: Self = Self(4);
    pub const ALL: Self = Self(7);
    const NAMES: [(Self, &'static str); 3] = [
        (Self::INGEST, "ingest"),
        (Self::READ, "read"),
        (Self::ADMIN, "admin"),
    ];

    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub const fn has(self, all: Self) -> bool {
        self.0 & all.0 == all.0
    }

    /// The names of those in it.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        let of = move |(scope, name)| self.has(scope).then_some(name);
        Self::NAMES.into_iter().filter_map(of)
    }

    /// One of them by its name.
    pub fn named(name: &str) -> Option<Self> {
        let mut names = Self::NAMES.into_iter();
        names.find_map(|(scope, known)| (known == name).then_some(scope))
    }
}

/// Of its tenant's data, how much a principal may see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reach {
    /// All of it.
    Whole,
    Trace(TraceId),
    /// A session, and the traces that name it.
    Session(SessionKey),
}

/// Who a request is from.
#[derive(Clone, Debug)]
pub struct Principal {
    pub tenant: TenantId,
    pub scopes: Scopes,
    pub reach: Reach,
    /// Contents are not for them: what was said, given and answered.
    pub redacted: bool,
    /// They have it of somebody, by a viewer token, and lend it to nobody.
    pub lent: bool,
    /// What they have can be taken from them while it is used.
    pub revocable: bool,
    /// Milliseconds since 1970 at which they are nobody any more.
    pub until_unix_ms: Option<u64>,
}

impl Principal {
    /// Whoever has all of a tenant.
    fn owner(tenant: TenantId) -> Self {
        Self {
            tenant,
            scopes: Scopes::ALL,
            reach: Reach::Whole,
            redacted: false,
            lent: false,
            revocable: false,
            until_unix_ms: None,
        }
    }
}

/// Whose a credential is.
#[derive(Clone, Debug)]
pub enum Caller {
    /// Of the admin token: no tenant's, but of what concerns all of them.
    Operator,
    Principal(Principal),
}

type Sha256 = [u8; 32];

fn sha256(text: &str) -> Sha256 {
    let mut hash = Sha256::default();
    hash.copy_from_slice(digest(&SHA256, text.as_bytes()).as_ref());
    hash
}

/// What credentials are worth to this process.
pub struct Access {
    /// Of configured tokens: by their hash, so that looking one up takes the same time whatever was guessed.
    tokens: HashMap<Sha256, TenantId>,
    operator: Option<Sha256>,
    mode: Mode,
    redis: Redis,
    keys: Arc<Keys>,
    known_keys: KnownKeys,
    /// What is configured to sign with.
    signing: Vec<String>,
    signing_keys: tokio::sync::OnceCell<Vec<ring::hmac::Key>>,
    known_loans: Remembered<()>,
    /// Whose tokens are taken too; of mode `jwt`.
    issuer: Option<Arc<Issuer>>,
}

impl Access {
    pub(crate) fn new(config: &Config, redis: Redis, keys: Arc<Keys>) -> Self {
        let tokens = config.tokens.iter();
        let issuer = config.access.jwt.clone().map(|settings| {
            let key = |source: &str| keys.issuer_keys(&hex(&sha256(source)[..8]));
            Arc::new(Issuer::new(settings, redis.clone(), key))
        });
        Self {
            tokens: tokens
                .map(|(token, tenant)| (sha256(token), tenant.clone()))
                .collect(),
            operator: config.admin_token.as_deref().map(sha256),
            mode: config.auth_mode(),
            redis,
            keys,
            known_keys: KnownKeys::default(),
            signing: config.access.signing_keys.clone(),
            signing_keys: tokio::sync::OnceCell::new(),
            known_loans: Remembered::default(),
            issuer,
        }
    }

    /// Whether everybody is the default tenant.
    pub fn is_open(&self) -> bool {
        self.mode == Mode::None
    }

    /// Whose this credential is.
    ///
    /// # Errors
    /// 401 when it is nobody's, or there is none and one is needed; 503 when that cannot be found out.
    pub async fn caller(&self, credential: Option<&str>) -> Result<Caller, ApiError> {
        let given = credential.map(sha256);
        if given.is_some() && given == self.operator {
            return Ok(Caller::Operator);
        }
        if let Some(tenant) = given.and_then(|given| self.tokens.get(&given)) {
            return Ok(Caller::Principal(Principal::owner(tenant.clone())));
        }
        // Where everybody may do everything, what was lent is still no more than it says.
        let lent = match credential {
            Some(text) if text.starts_with("tv_") => self.of_viewer_token(text).await?,
            Some(text) if is_jwt(text) => self.of_jwt(text).await?,
            Some(text) if !self.is_open() => self.of_api_key(text).await?,
            _ => None,
        };
        match lent {
            Some(principal) => Ok(Caller::Principal(principal)),
            None if self.is_open() && !credential.is_some_and(|text| text.starts_with("tv_")) => {
                Ok(Caller::Principal(Principal::owner(TenantId::default())))
            }
            None => Err(ApiError::unauthorized()),
        }
    }

    /// As [`Access::caller`], for what is a tenant's.
    ///
    /// # Errors
    /// As there, and 401 for the operator, who is no tenant.
    pub async fn principal(&self, credential: Option<&str>) -> Result<Principal, ApiError> {
        let caller = self.caller(credential).await?;
        self.of_a_tenant(caller)
    }

    /// # Errors
    /// 401 for the operator, who is no tenant.
    fn of_a_tenant(&self, caller: Caller) -> Result<Principal, ApiError> {
        match caller {
            Caller::Principal(principal) => Ok(principal),
            // Where no tokens are configured its bearer is as everybody.
            Caller::Operator if self.is_open() => Ok(Principal::owner(TenantId::default())),
            Caller::Operator => Err(ApiError::unauthorized()),
        }
    }

    /// Waits until a credential that was good is so no more. An open connection does not outlive it by much.
    pub async fn ended(&self, credential: Option<&str>) {
        loop {
            tokio::time::sleep(keys::REMEMBERED).await;
            // A store that does not answer says nothing of it.
            if let Err(refused) = self.principal(credential).await
                && refused.status == axum::http::StatusCode::UNAUTHORIZED
            {
                return;
            }
        }
    }

    /// The tenants that configured tokens are for.
    pub fn named_tenants(&self) -> impl Iterator<Item = &TenantId> {
        self.tokens.values()
    }
}

/// `Authorization: Bearer`, else `?token=`.
pub fn credential<'a>(headers: &'a HeaderMap, uri: &Uri) -> Option<Cow<'a, str>> {
    #[derive(Deserialize)]
    struct Credentials {
        token: String,
    }
    let header = headers
        .get(AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| {
            let (scheme, token) = value.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
        });
    header.map(Cow::Borrowed).or_else(|| {
        let query = Query::<Credentials>::try_from_uri(uri).ok()?;
        Some(Cow::Owned(query.0.token))
    })
}

#[cfg(test)]
mod tests {
    use axum::http::Request;

    use super::*;

    #[test]
    fn a_token_comes_in_a_header_or_encoded_in_the_query() {
        let check = |uri: &str, header: Option<&str>, expected: Option<&str>| {
            let mut request = Request::builder().uri(uri);
            if let Some(header) = header {
                request = request.header(AUTHORIZATION, header);
            }
            let (parts, ()) = request.body(()).unwrap().into_parts();
            assert_eq!(
                credential(&parts.headers, &parts.uri).as_deref(),
                expected,
                "{uri} {header:?}"
            );
        };
        check("/", None, None);
        check("/?token=abc&x=1", None, Some("abc"));
        check("/?x=1&token=a%2Bb%2Fc%3D%3D", None, Some("a+b/c=="));
        check("/?token=abc==", None, Some("abc=="));
        check("/?token=abc", Some("bearer def"), Some("def"));
        check("/", Some("Basic abc"), None);
    }

    #[test]
    fn scopes_have_names() {
        let both = Scopes::INGEST.with(Scopes::ADMIN);
        assert_eq!(both.names().collect::<Vec<_>>(), ["ingest", "admin"]);
        assert!(both.has(Scopes::ADMIN) && !both.has(Scopes::READ) && !both.has(Scopes::ALL));
        assert_eq!(Scopes::named("read"), Some(Scopes::READ));
        assert_eq!(Scopes::named("write"), None);
    }
}
