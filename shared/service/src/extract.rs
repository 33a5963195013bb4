//! What handlers get instead of strings: a tenant, a trace.

use std::borrow::Cow;

use axum::{
    extract::{FromRef, FromRequestParts, Path, Query, path::ErrorKind, rejection::PathRejection},
    http::{header::AUTHORIZATION, request::Parts},
};
use serde::Deserialize;
use tailspan_core::{
    format::Format,
    id::{TenantId, TraceId},
    lens::{Filter, Lens},
    verbosity::Verbosity,
};

use crate::{app::App, error::ApiError};

/// Event types that one reader may name, and characters of a name: a lens is kept for as long as somebody looks through it.
const MOST_EVENT_TYPES: usize = 64;
const LONGEST_NAME: usize = 512;

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
        token(parts)
            .and_then(|token| tokens.get(&*token))
            .map(|tenant| Self(tenant.clone()))
            .ok_or_else(ApiError::unauthorized)
    }
}

/// Whoever may see what is counted over all tenants: everybody where no tokens are configured, the one tenant where there is one, else the bearer of
/// the admin token.
#[derive(Clone, Copy, Debug)]
pub struct Operator;

impl<S> FromRequestParts<S> for Operator
where
    App: FromRef<S>,
    S: Send + Sync,
{
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let app = App::from_ref(state);
        let tokens = &app.config.tokens;
        let given = token(parts);
        if tokens.is_empty()
            || given.is_some() && given.as_deref() == app.config.admin_token.as_deref()
        {
            return Ok(Self);
        }
        if !given.is_some_and(|token| tokens.contains_key(&*token)) {
            return Err(ApiError::unauthorized());
        }
        let mut tenants = tokens.values();
        let first = tenants.next();
        if tenants.all(|tenant| Some(tenant) == first) {
            Ok(Self)
        } else {
            Err(ApiError::forbidden(
                "this counts over several tenants and needs the admin token (TAILSPAN_ADMIN_TOKEN)",
            ))
        }
    }
}

/// `Authorization: Bearer`, else `?token=`: a browser's EventSource cannot send headers.
fn token(parts: &Parts) -> Option<Cow<'_, str>> {
    #[derive(Deserialize)]
    struct Credentials {
        token: String,
    }
    let header = parts
        .headers
        .get(AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| {
            let (scheme, token) = value.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
        });
    header.map(Cow::Borrowed).or_else(|| {
        let query = Query::<Credentials>::try_from_uri(&parts.uri).ok()?;
        Some(Cow::Owned(query.0.token))
    })
}

/// A valid trace id from the path segment `{trace_id}`.
#[derive(Clone, Debug)]
pub struct TracePath(pub TraceId);

/// The path segment of a trace.
#[derive(Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::IntoParams), into_params(parameter_in = Path))]
pub struct TraceSegment {
    /// The trace: 1 to 128 characters of A-Z a-z 0-9 _ -. An OTel id in upper case, or with the dashes of a UUID, is the same trace.
    #[cfg_attr(feature = "openapi", param(pattern = "^[A-Za-z0-9_-]{1,128}$"))]
    trace_id: String,
}

impl<S: Send + Sync> FromRequestParts<S> for TracePath {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let segments = Path::<TraceSegment>::from_request_parts(parts, state)
            .await
            .map_err(|rejection| invalid_segment(&rejection))?;
        Ok(Self(TraceId::parse(&segments.trace_id)?))
    }
}

/// A segment that is no UTF-8 after decoding is no id: of what, its name in the route says.
fn invalid_segment(rejection: &PathRejection) -> ApiError {
    if let PathRejection::FailedToDeserializePathParams(failure) = rejection
        && let ErrorKind::InvalidUtf8InPathParam { key } = failure.kind()
        && key == "span_id"
    {
        return invalid_span_id();
    }
    ApiError::invalid(
        "invalid_trace_id",
        format!("trace_id must be {}", TraceId::RULE),
    )
}

fn invalid_span_id() -> ApiError {
    ApiError::invalid(
        "invalid_span_id",
        "span_id must be 16 hex digits, or the 1 to 128 characters that a native event named",
    )
}

/// The trace and the span that the path names, as `{trace_id}` and `{span_id}`.
///
/// A span id is 16 hex digits, or what a native event calls its span: 1 to 128 characters that can be printed.
pub struct SpanPath(pub TraceId, pub String);

/// The path segment of a span.
#[derive(Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::IntoParams), into_params(parameter_in = Path))]
pub struct SpanSegment {
    /// 16 hex digits, or what a native event calls its span: 1 to 128 characters that can be printed, percent-encoded.
    #[cfg_attr(
        feature = "openapi",
        param(pattern = r"^[^\x00-\x1f\x7f-\x9f]{1,128}$")
    )]
    span_id: String,
}

impl<S: Send + Sync> FromRequestParts<S> for SpanPath {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let TracePath(trace) = TracePath::from_request_parts(parts, state).await?;
        let span = Path::<SpanSegment>::from_request_parts(parts, state).await;
        match span {
            Ok(Path(SpanSegment { span_id }))
                if (1..=128).contains(&span_id.chars().count())
                    && !span_id.chars().any(char::is_control) =>
            {
                Ok(Self(trace, span_id))
            }
            _ => Err(invalid_span_id()),
        }
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
        Query::<T>::from_request_parts(parts, state)
            .await
            .map(|query| Self(query.0))
            .map_err(|rejection| {
                // The sentence begins with what failed inside; its end names the parameter and the reason.
                let text = rejection.body_text();
                let reason = text
                    .split_once(": ")
                    .map_or(text.as_str(), |(_, reason)| reason);
                ApiError::invalid("invalid_parameter", reason)
            })
    }
}

/// The query parameters by which a reader says which events, how much of each, and in which form; on every read and stream of events.
#[derive(Clone, Debug, Default, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::IntoParams), into_params(parameter_in = Query))]
pub struct LensParams {
    /// minimal, standard (the default), detailed or debug.
    #[cfg_attr(
        feature = "openapi",
        param(pattern = "^(minimal|standard|detailed|debug)$")
    )]
    level: Option<String>,
    /// streaming, compact or detailed; ours when absent.
    #[cfg_attr(feature = "openapi", param(pattern = "^(streaming|compact|detailed)$"))]
    format: Option<String>,
    /// Comma separated; `*` names all of them.
    #[cfg_attr(feature = "openapi", param(min_length = 1))]
    event_types: Option<String>,
    /// A step's id or name.
    #[cfg_attr(feature = "openapi", param(min_length = 1, max_length = 512))]
    component: Option<String>,
    /// The seed's name of `component`.
    #[cfg_attr(feature = "openapi", param(min_length = 1, max_length = 512))]
    component_id: Option<String>,
    /// An agent's id or name.
    #[cfg_attr(feature = "openapi", param(min_length = 1, max_length = 512))]
    agent: Option<String>,
    /// The seed's name of `agent`.
    #[cfg_attr(feature = "openapi", param(min_length = 1, max_length = 512))]
    agent_id: Option<String>,
    /// `attributes`: what `level=debug` shows too. `history`: of model calls all messages that they were sent, at `level=debug`.
    #[cfg_attr(
        feature = "openapi",
        param(pattern = "^(attributes|history|attributes,history)$")
    )]
    include: Option<String>,
    /// `attributes`: `level=debug` without them.
    #[cfg_attr(feature = "openapi", param(pattern = "^attributes$"))]
    exclude: Option<String>,
}

/// What is asked for beyond the level.
#[derive(Clone, Copy, Default)]
struct Include {
    attributes: bool,
    history: bool,
}

impl LensParams {
    /// The format as it was written.
    pub fn format(&self) -> Option<&str> {
        self.format.as_deref()
    }

    /// The rest of it.
    pub fn without_format(self) -> Self {
        Self {
            format: None,
            ..self
        }
    }

    /// The level asked for.
    ///
    /// # Errors
    /// 400 for a level that is none, or that shows no attributes where they are asked for.
    pub fn level(&self) -> Result<Option<Verbosity>, ApiError> {
        let invalid = |message: String| ApiError::invalid("invalid_parameter", message);
        let level = self.level.as_deref().map(str::parse::<Verbosity>);
        let level = level
            .transpose()
            .map_err(|error| invalid(error.to_string()))?;
        let include = self.include()?;
        if self.without_attributes()? && include.attributes {
            return Err(invalid(
                "attributes cannot be both included and excluded".to_owned(),
            ));
        }
        match (include.attributes || include.history, level) {
            (false, level) => Ok(level),
            (true, None | Some(Verbosity::Debug)) => Ok(Some(Verbosity::Debug)),
            (true, Some(_)) => Err(invalid(
                "attributes and history are shown at level=debug only".to_owned(),
            )),
        }
    }

    fn include(&self) -> Result<Include, ApiError> {
        let mut include = Include::default();
        for part in self.include.iter().flat_map(|parts| parts.split(',')) {
            match part.trim() {
                "attributes" => include.attributes = true,
                "history" => include.history = true,
                _ => {
                    return Err(ApiError::invalid(
                        "invalid_parameter",
                        "include must be attributes, history or both, comma separated",
                    ));
                }
            }
        }
        Ok(include)
    }

    fn without_attributes(&self) -> Result<bool, ApiError> {
        match self.exclude.as_deref() {
            None => Ok(false),
            Some("attributes") => Ok(true),
            Some(_) => Err(ApiError::invalid(
                "invalid_parameter",
                "exclude must be attributes",
            )),
        }
    }

    /// All of it.
    ///
    /// # Errors
    /// 400 for what cannot be read, with what it may be.
    pub fn lens(&self) -> Result<Lens, ApiError> {
        let invalid = |message: String| ApiError::invalid("invalid_parameter", message);
        let format = self.format.as_deref().map(str::parse::<Format>);
        let event_types = match &self.event_types {
            None => Vec::new(),
            Some(types) => {
                let types = types.split(',').map(str::trim);
                let types: Vec<String> = types
                    .filter(|name| !name.is_empty())
                    .map(str::to_owned)
                    .collect();
                if types.is_empty() || types.len() > MOST_EVENT_TYPES {
                    return Err(invalid(format!(
                        "event_types must name 1 to {MOST_EVENT_TYPES} event types, comma separated"
                    )));
                }
                types
            }
        };
        let one_of = |name: &str, first: &Option<String>, second: &Option<String>| {
            let told = first.as_ref().or(second.as_ref());
            match told {
                Some(text) if text.is_empty() || text.chars().count() > LONGEST_NAME => {
                    Err(invalid(format!(
                        "{name} must be an id or a name of 1 to {LONGEST_NAME} characters"
                    )))
                }
                told => Ok(told.cloned()),
            }
        };
        Ok(Lens {
            level: self.level()?.unwrap_or_default(),
            format: format
                .transpose()
                .map_err(|error| invalid(error.to_string()))?,
            filter: Filter {
                event_types,
                component: one_of("component", &self.component, &self.component_id)?,
                agent: one_of("agent", &self.agent, &self.agent_id)?,
            },
            without_attributes: self.without_attributes()?,
            with_history: self.include()?.history,
        })
    }
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
            assert_eq!(token(&parts).as_deref(), expected, "{uri} {header:?}");
        };
        check("/", None, None);
        check("/?token=abc&x=1", None, Some("abc"));
        check("/?x=1&token=a%2Bb%2Fc%3D%3D", None, Some("a+b/c=="));
        check("/?token=abc==", None, Some("abc=="));
        check("/?token=abc", Some("bearer def"), Some("def"));
        check("/", Some("Basic abc"), None);
    }
}
