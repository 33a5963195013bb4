//! Tokens of an OpenID Connect issuer (mode `jwt`): JWTs in compact form (RFC 7515, RFC 7519), signed with a key that the issuer publishes (RFC 7517).
//!
//! ```text
//! text -> [`token`]    its form, the issuer, the audience, the time          pure
//!      -> [`keyset`]   the signature, by a key of the issuer's               pure
//!      -> [`mapping`]  which of its claims are a tenant and scopes of ours   pure
//!      -> Principal
//! ```
//!
//! [`issuer`] has the keys and renews them. The signature's check is ring's, which TLS brings anyway. A library around it would be more code than it saves: `jsonwebtoken` (11)
//! comes with RustCrypto or aws-lc, or wants its crypto written by us; it takes the last of two members of one name, and knows nothing of `crit`, `use` and `key_ops`, so those checks would be
//! ours all the same. `josekit` needs OpenSSL.

mod issuer;
mod keyset;
mod mapping;
mod settings;
mod token;

#[cfg(test)]
mod tests;

use std::sync::Arc;

pub(super) use self::issuer::Issuer;
pub use self::settings::JwtSettings;
use self::token::{Expected, LEEWAY_MS, Refusal, verified};
use super::{Access, Principal, Reach};
use crate::{error::ApiError, log::now_unix_ms};

/// Whether a credential has the form of a JWT; no other kind has two points.
pub(super) fn is_jwt(text: &str) -> bool {
    text.bytes().filter(|byte| *byte == b'.').count() == 2
}

impl Access {
    /// Whose a token of the issuer is. `None`: it is none that is good now.
    ///
    /// # Errors
    /// 403: it is good, and names no tenant. 503: the issuer's keys cannot be had.
    pub(super) async fn of_jwt(&self, given: &str) -> Result<Option<Principal>, ApiError> {
        let Some(issuer) = &self.issuer else {
            return Ok(None);
        };
        let settings = issuer.settings();
        let expected = Expected {
            issuer: &settings.issuer,
            audiences: &settings.audiences,
            now_unix_ms: now_unix_ms(),
        };
        // What cannot be good asks nobody for keys.
        let token = match token::parse(given, &expected) {
            Ok(token) => token,
            Err(refusal) => return Ok(refused(refusal)),
        };
        let keys = issuer.keys().await?;
        let claims = match verified(&token, &keys.set) {
            Err(Refusal::UnknownKey) => {
                let newer = issuer.keys_after(&keys).await;
                verified(&token, &newer.as_ref().unwrap_or(&keys).set)
            }
            other => other,
        };
        let claims = match claims {
            Ok(claims) => claims,
            Err(refusal) => return Ok(refused(refusal)),
        };
        let Some(tenant) = settings.mapping.tenant(claims) else {
            return Err(ApiError::forbidden(format!(
                "the token is good, and its claim {} names no tenant here",
                settings.mapping.tenant_claim()
            )));
        };
        Ok(Some(Principal {
            tenant,
            scopes: settings.mapping.scopes(claims),
            reach: Reach::Whole,
            redacted: false,
            lent: false,
            // The issuer may withdraw its key.
            revocable: true,
            until_unix_ms: Some(token.expires_unix_ms.saturating_add(LEEWAY_MS)),
        }))
    }

    /// Renews the issuer's keys when they are not young any more: for whoever works by a schedule, so that no request has to wait for it.
    pub async fn renew_issuer_keys(&self) {
        if let Some(issuer) = &self.issuer {
            Arc::clone(issuer).renew().await;
        }
    }
}

/// Nothing of the token: it may be good elsewhere.
fn refused(refusal: Refusal) -> Option<Principal> {
    tracing::debug!(why = %refusal, "refused a token of an issuer");
    None
}
