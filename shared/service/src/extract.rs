//! What handlers get instead of strings: a tenant, a trace.

use axum::{
    extract::{FromRequestParts, Path, Query, path::ErrorKind, rejection::PathRejection},
    http::request::Parts,
};
use serde::Deserialize;
use tailspan_core::{
    format::Format,
    id::TraceId,
    lens::{Filter, Lens},
    verbosity::Verbosity,
};

pub use crate::access::{
    Admin, Exchange, Glimpse, Keeper, Lend, Operator, Read, Tenant, View, Write,
};
use crate::{error::ApiError, requests};

/// Event types that one reader may name, and characters of a name: a lens is kept for as long as somebody looks through it.
const MOST_EVENT_TYPES: usize = 64;
const LONGEST_NAME: usize = 512;

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
        let trace = TraceId::parse(&segments.trace_id)?;
        requests::is_of("trace_id", trace.as_str());
        Ok(Self(trace))
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

    /// As a viewer may ask for it: of whom contents are kept, at most what is told without them.
    ///
    /// # Errors
    /// As of [`LensParams::level`].
    pub fn for_viewer(self, viewer: Glimpse) -> Result<Self, ApiError> {
        if !viewer.redacted {
            return Ok(self);
        }
        let level = self.level()?.unwrap_or_default().min(Verbosity::Standard);
        Ok(Self {
            level: Some(level.to_string()),
            include: None,
            ..self
        })
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
