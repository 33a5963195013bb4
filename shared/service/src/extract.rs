//! What handlers get instead of strings: a tenant, a trace.

use axum::{
    extract::{FromRef, FromRequestParts, Path},
    http::{header::AUTHORIZATION, request::Parts},
};
use serde::Deserialize;
use tailspan_core::id::{TenantId, TraceId};

use crate::{app::App, error::ApiError};

/// Whose data a request may see: what its token says, or the default tenant where no tokens are configured.
#[derive(Clone, Debug)]
pub struct Tenant(pub TenantId);

impl<S> FromRequestParts<S> for Tenant
where
    App: FromRef<S>,
    S: Send + Sync,
{
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let app = App::from_ref(state);
        let tokens = &app.config.tokens;
        if tokens.is_empty() {
            return Ok(Self(TenantId::default()));
        }
        let header = parts
            .headers
            .get(AUTHORIZATION)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| {
                value
                    .strip_prefix("Bearer ")
                    .or_else(|| value.strip_prefix("bearer "))
            });
        // A browser's EventSource cannot send headers.
        let query = parts
            .uri
            .query()
            .unwrap_or_default()
            .split('&')
            .find_map(|pair| pair.strip_prefix("token="));
        header
            .or(query)
            .and_then(|token| tokens.get(token.trim()))
            .map(|tenant| Self(tenant.clone()))
            .ok_or_else(ApiError::unauthorized)
    }
}

/// A valid trace id from the path segment `{trace_id}`.
#[derive(Clone, Debug)]
pub struct TracePath(pub TraceId);

#[derive(Deserialize)]
struct Segments {
    trace_id: String,
}

impl<S: Send + Sync> FromRequestParts<S> for TracePath {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        // A segment that is no UTF-8 after decoding is no id either.
        let segments = Path::<Segments>::from_request_parts(parts, state)
            .await
            .map_err(|_| {
                ApiError::invalid(
                    "invalid_trace_id",
                    format!("trace_id must be {}", TraceId::RULE),
                )
            })?;
        Ok(Self(TraceId::parse(&segments.trace_id)?))
    }
}

/// Query parameters; what cannot be read is 400 with the reason, not ignored.
pub struct Params<T>(pub T);

impl<S, T> FromRequestParts<S> for Params<T>
where
    T: serde::de::DeserializeOwned,
    S: Send + Sync,
{
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        axum::extract::Query::<T>::from_request_parts(parts, state)
            .await
            .map(|query| Self(query.0))
            .map_err(|rejection| ApiError::invalid("invalid_parameter", rejection.body_text()))
    }
}
