//! Credentials of connections that somebody else holds: API Gateway says of a frame which connection it is of, and no more. What is kept says whether the credential is good still, and is of no use to anybody else.

use serde::{Deserialize, Serialize};
use tailspan_core::id::{TenantId, hex};

use super::{Access, Principal, keys::parts, sha256};
use crate::{
    error::ApiError,
    log::{LogError, now_unix_ms},
};

/// With what somebody was let in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Admitted {
    tenant: String,
    by: By,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum By {
    /// A configured token, by its hash.
    Token(String),
    /// An API key, and the hash of the secret that was shown of it.
    Key { id: String, hash: String },
    /// What nobody takes back before it ends.
    Until(u64),
}

impl Access {
    /// Lets somebody in for longer than one request.
    ///
    /// # Errors
    /// As [`Access::principal`].
    pub async fn admit(&self, credential: Option<&str>) -> Result<(Principal, Admitted), ApiError> {
        let principal = self.principal(credential).await?;
        let given = credential.unwrap_or_default();
        let hash = sha256(given);
        let by = match (parts(given), principal.until_unix_ms) {
            _ if self.tokens.contains_key(&hash) => By::Token(hex(&hash)),
            (Some((id, secret)), _) => By::Key {
                id: id.to_owned(),
                hash: hex(&sha256(secret)),
            },
            (None, until) => By::Until(until.unwrap_or(u64::MAX)),
        };
        let tenant = principal.tenant.to_string();
        Ok((principal, Admitted { tenant, by }))
    }

    /// Whose connection it is. `None`: what it was opened with is good no more (revoked, rotated, expired, not configured any more).
    ///
    /// # Errors
    /// [`LogError`]: nothing is known.
    pub async fn still(&self, admitted: &Admitted) -> Result<Option<TenantId>, LogError> {
        let is_good = match &admitted.by {
            By::Token(hash) => self.tokens.keys().any(|known| hex(known) == *hash),
            By::Key { id, hash } => self.key_opened_by(id, hash).await?.is_some(),
            By::Until(until) => *until > now_unix_ms(),
        };
        let tenant = TenantId::parse(&admitted.tenant).ok();
        Ok(tenant.filter(|_| is_good))
    }
}
