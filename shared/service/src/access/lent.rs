//! Viewer tokens: what is lent to somebody who has no key, or to a client that can only send a URL.
//!
//! `tv_<claims>.<signature>`: the claims say whose data, which of it, until when; HMAC-SHA256 over them, under a key that all instances have, says that they are
//! ours. A forged one costs no command. The id of a good one is looked for in the tenant's list of what is lent, so that it can be ended; what was found is
//! remembered as keys are.

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::hmac;
use serde::{Deserialize, Serialize};
use tailspan_core::{
    event::rfc3339_ms,
    id::{SessionKey, TenantId, TraceId},
    listing::label_text,
};

use super::{
    Access, Principal, Reach, Scopes,
    keys::{fresh_id, fresh_secret, is_id},
};
use crate::{
    error::ApiError,
    log::{LogError, now_unix_ms},
    redis::{Arg, Reply, Script},
};

static LEND: Script = Script::new(include_str!("../lua/lend.lua"));

/// How long something is lent, when it is not said, and at most.
pub const USUAL_LIFETIME: Duration = Duration::from_secs(3600);
pub const LONGEST_LIFETIME: Duration = Duration::from_secs(30 * 24 * 3600);
/// Tokens of a tenant that are good at a time.
const MOST_LENT: u64 = 1000;
/// Bytes of a token: a session's key, a trace's id and the rest have room in it.
const LONGEST_TOKEN: usize = 1024;

/// What a token says.
#[derive(Serialize, Deserialize)]
struct Claims {
    /// Its id.
    i: String,
    /// The tenant.
    t: String,
    /// Milliseconds since 1970.
    x: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    trace: Option<String>,
    /// A session's key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    session: Option<String>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    redact: bool,
}

/// What is to be lent.
pub struct Loan {
    pub what: Lent,
    pub redact: bool,
    pub lifetime: Duration,
    pub name: String,
}

/// Of a tenant's data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lent {
    /// Everything that can be read.
    Reads,
    Trace(TraceId),
    /// By its name.
    Session(String),
}

/// What was lent, as it is listed: all but the token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = ViewerToken))]
pub struct LentRow {
    /// By which it is ended.
    pub id: String,
    pub name: String,
    /// The trace that it opens; `null`: another thing.
    pub trace_id: Option<String>,
    /// The session that it opens, with its traces; where both are `null`, it opens all that the tenant may read.
    pub session_id: Option<String>,
    /// It shows no contents.
    pub redact: bool,
    #[cfg_attr(feature = "openapi", schema(format = DateTime))]
    pub created_at: String,
    #[cfg_attr(feature = "openapi", schema(format = DateTime))]
    pub expires_at: String,
}

impl Access {
    /// Keys that sign, the first of which does it now.
    async fn signing_keys(&self) -> Result<&[hmac::Key], LogError> {
        let made = async {
            let secrets = match self.signing.is_empty() {
                true => vec![self.kept_signing_key().await?],
                false => self.signing.clone(),
            };
            let key = |secret: &String| hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
            Ok::<_, LogError>(secrets.iter().map(key).collect())
        };
        let keys: &Vec<_> = self.signing_keys.get_or_try_init(|| made).await?;
        Ok(keys)
    }

    /// The one that the first instance made.
    async fn kept_signing_key(&self) -> Result<String, LogError> {
        let key = self.keys.signing_key();
        let args = vec![Arg::from(&key), Arg::from(&fresh_secret()), Arg::from("NX")];
        self.redis.command("SET", &key, args).await?;
        let kept = self.redis.command("GET", &key, vec![Arg::from(&key)]);
        let absent = || LogError::Unavailable("there is no signing key".to_owned());
        kept.await?.text().ok_or_else(absent)
    }

    /// Whose a viewer token is. `None`: it is none that is good now.
    pub(super) async fn of_viewer_token(&self, given: &str) -> Result<Option<Principal>, LogError> {
        let Some(text) = given
            .strip_prefix("tv_")
            .filter(|text| text.len() <= LONGEST_TOKEN)
        else {
            return Ok(None);
        };
        let Some((signed, signature)) = text.split_once('.') else {
            return Ok(None);
        };
        let Ok(signature) = URL_SAFE_NO_PAD.decode(signature) else {
            return Ok(None);
        };
        let mut keys = self.signing_keys().await?.iter();
        if !keys.any(|key| hmac::verify(key, signed.as_bytes(), &signature).is_ok()) {
            return Ok(None);
        }
        let claims = URL_SAFE_NO_PAD.decode(signed).ok();
        let claims = claims.and_then(|json| serde_json::from_slice::<Claims>(&json).ok());
        let Some(claims) = claims.filter(|claims| claims.x > now_unix_ms()) else {
            return Ok(None);
        };
        let Ok(tenant) = TenantId::parse(&claims.t) else {
            return Ok(None);
        };
        let reach = match (&claims.trace, &claims.session) {
            (None, None) => Some(Reach::Whole),
            (Some(trace), None) => TraceId::parse(trace).ok().map(Reach::Trace),
            (None, Some(session)) => SessionKey::parse(session).map(Reach::Session),
            (Some(_), Some(_)) => None,
        };
        let Some(reach) = reach.filter(|_| is_id(&claims.i)) else {
            return Ok(None);
        };
        if self.known_loans.get(&claims.i).is_none() {
            let (lent, _) = self.keys.lent(&tenant);
            let args = vec![Arg::from(&lent), Arg::from(&claims.i)];
            let at = self.redis.command("ZSCORE", &lent, args).await?;
            if at.text().is_none() {
                return Ok(None);
            }
            self.known_loans.keep(&claims.i, ());
        }
        Ok(Some(Principal {
            tenant,
            scopes: Scopes::READ,
            reach,
            redacted: claims.redact,
            lent: true,
            revocable: true,
            until_unix_ms: Some(claims.x),
        }))
    }

    /// Lends something of a tenant's; whether there is such a thing is not asked: it may be yet to come.
    ///
    /// # Errors
    /// 409 when as many are lent as may be, 503.
    pub async fn lend(&self, tenant: &TenantId, loan: Loan) -> Result<(LentRow, String), ApiError> {
        let now = now_unix_ms();
        let lifetime = loan.lifetime.min(LONGEST_LIFETIME);
        let until = now.saturating_add(u64::try_from(lifetime.as_millis()).unwrap_or(u64::MAX));
        let (trace, session) = match &loan.what {
            Lent::Reads => (None, None),
            Lent::Trace(trace) => (Some(trace.to_string()), None),
            Lent::Session(name) => (None, Some(name.clone())),
        };
        let key = session
            .as_deref()
            .map(|name| SessionKey::of(label_text(name)).as_str().to_owned());
        let row = LentRow {
            id: fresh_id(),
            name: loan.name,
            trace_id: trace.clone(),
            session_id: session,
            redact: loan.redact,
            created_at: rfc3339_ms(now),
            expires_at: rfc3339_ms(until),
        };
        let claims = Claims {
            i: row.id.clone(),
            t: tenant.to_string(),
            x: until,
            trace,
            session: key,
            redact: loan.redact,
        };
        let signing = self.signing_keys().await?.first();
        let signing = signing.ok_or_else(ApiError::internal)?;
        let json = |of: Result<String, _>| of.map_err(|_: serde_json::Error| ApiError::internal());
        let signed = URL_SAFE_NO_PAD.encode(json(serde_json::to_string(&claims))?);
        let signature = hmac::sign(signing, signed.as_bytes());
        let token = format!("tv_{signed}.{}", URL_SAFE_NO_PAD.encode(signature));
        let (lent, lent_of) = self.keys.lent(tenant);
        let args = vec![
            Arg::from(now),
            Arg::from(&row.id),
            Arg::from(until),
            Arg::from(&json(serde_json::to_string(&row))?),
            Arg::from(MOST_LENT),
            Arg::from(LONGEST_LIFETIME.as_secs() + 1),
        ];
        let written = self.redis.script(&LEND, &[&lent, &lent_of], args).await;
        match written.map_err(LogError::from)?.number() {
            Some(1) => Ok((row, token)),
            _ => Err(ApiError::conflict(
                "too_many_tokens",
                format!(
                    "{MOST_LENT} viewer tokens are good now, which is as many as may be: end some, or wait"
                ),
            )),
        }
    }

    /// What of a tenant's is lent now, in no order.
    ///
    /// # Errors
    /// 503.
    pub async fn list_lent(&self, tenant: &TenantId) -> Result<Vec<LentRow>, LogError> {
        let (_, lent_of) = self.keys.lent(tenant);
        let args = vec![Arg::from(&lent_of)];
        let fields = self.redis.command("HGETALL", &lent_of, args).await?.list();
        let now = rfc3339_ms(now_unix_ms());
        let rows = fields.chunks_exact(2).filter_map(|pair| {
            let text = pair.get(1).and_then(Reply::text)?;
            let row: LentRow = serde_json::from_str(&text).ok()?;
            // Times of one form stand in the order of their texts.
            (row.expires_at > now).then_some(row)
        });
        Ok(rows.collect())
    }

    /// Ends what was lent: here at once, elsewhere within [`super::keys::REMEMBERED`].
    ///
    /// # Errors
    /// 404 for what the tenant has not lent, 503.
    pub async fn end_loan(&self, tenant: &TenantId, id: &str) -> Result<(), ApiError> {
        let absent = || ApiError::token_not_found(id);
        if !is_id(id) {
            return Err(absent());
        }
        let (lent, lent_of) = self.keys.lent(tenant);
        let args = |key: &String| vec![Arg::from(key), Arg::from(id)];
        let gone = self.redis.command("ZREM", &lent, args(&lent)).await;
        let of = self.redis.command("HDEL", &lent_of, args(&lent_of)).await;
        let was_there = gone.map_err(LogError::from)?.number() == Some(1);
        of.map_err(LogError::from)?;
        if !was_there {
            return Err(absent());
        }
        self.known_loans.forget(id);
        Ok(())
    }
}
