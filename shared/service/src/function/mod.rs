//! What every function of AWS Lambda does around its router: its start, and what stands about each invocation. It knows no crate of the platform: `main.rs` hands over what these say.

mod emf;
mod initial;
#[cfg(feature = "aws")]
mod secrets;

use std::{
    collections::HashMap,
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use axum::{
    Router,
    body::{Body, Bytes, HttpBody},
    extract::{FromRequestParts, Request},
    http::request::Parts,
    middleware::{Next, from_fn},
    response::Response,
};
use http_body::{Frame, SizeHint};
use tokio::time::Instant;
use tracing::{Instrument as _, Span, error, error_span};

use crate::{
    App,
    access::settings::Mode,
    config::{Config, InvalidConfig},
    cors,
    error::with_told_misses,
    log::LogError,
    schedule,
    telemetry::{self, Lines},
};
use emf::Emf;

/// Why a function did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Config(#[from] InvalidConfig),
    #[cfg(feature = "aws")]
    #[error(transparent)]
    Secret(#[from] secrets::SecretError),
    #[error(transparent)]
    Log(#[from] LogError),
    /// What the internet reaches is not left open because nobody thought of it.
    #[error(
        "nobody would be asked who they are: set TAILSPAN_AUTH to keys, or name tokens with TAILSPAN_TOKENS; TAILSPAN_AUTH=none says that everybody may do everything"
    )]
    Open,
}

impl StartError {
    /// As the platform's page of errors shows it.
    fn kind(&self) -> &'static str {
        match self {
            Self::Config(_) => "Tailspan.InvalidConfig",
            #[cfg(feature = "aws")]
            Self::Secret(_) => "Tailspan.NoSecret",
            Self::Log(_) => "Tailspan.NoStore",
            Self::Open => "Tailspan.Open",
        }
    }
}

/// A function that has started.
#[derive(Clone)]
pub struct Function {
    pub app: App,
    emf: Arc<Emf>,
}

/// What the platform says of an invocation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Invocation {
    pub request_id: String,
    /// The header `X-Amzn-Trace-Id`; empty without tracing.
    pub xray_trace_id: String,
    /// Milliseconds since 1970; an emulator's is 0, and none.
    pub deadline_unix_ms: u64,
}

impl Invocation {
    /// Of the parts of the platform's context.
    pub fn new(request_id: &str, xray_trace_id: Option<&str>, deadline_unix_ms: u64) -> Self {
        Self {
            request_id: request_id.to_owned(),
            xray_trace_id: xray_trace_id.unwrap_or_default().to_owned(),
            deadline_unix_ms,
        }
    }

    /// All that is logged within it says whose it is. An error's span: no level that is asked for leaves it out.
    fn span(&self) -> Span {
        error_span!("invocation", request_id = %self.request_id, xray_trace_id = %self.xray_trace_id)
    }
}

/// Until when an answer may be streamed: a little before its invocation's deadline. `None` where there is no such thing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StreamUntil(pub Option<Instant>);

impl<S: Send + Sync> FromRequestParts<S> for StreamUntil {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(parts.extensions.get().copied().unwrap_or_default())
    }
}

/// Starts a function by its environment: log lines, configuration, the store. `defaults` are values of variables that are not set.
///
/// # Errors
/// [`StartError`], which the platform has been told then (`/runtime/init/error`): all that is left is to end.
pub async fn start(defaults: &[(&str, &str)]) -> Result<Function, StartError> {
    telemetry::start(Lines::Json);
    let started = started(defaults).await;
    if let Err(error) = &started {
        error!(%error, "failed to start");
        initial::report(error.kind(), &error.to_string());
    }
    started
}

async fn started(defaults: &[(&str, &str)]) -> Result<Function, StartError> {
    let defaults = defaults
        .iter()
        .map(|(name, value)| (name.to_string(), value.to_string()));
    let mut vars: HashMap<String, String> = defaults.collect();
    // A name or value that is no text is none of ours.
    vars.extend(
        std::env::vars_os().filter_map(|(name, value)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        }),
    );
    #[cfg(feature = "aws")]
    vars.extend(secrets::read(&vars).await?);
    let config = Config::from_vars(|name| vars.get(name).cloned())?;
    if config.auth_mode() == Mode::None && config.access.mode.is_none() {
        return Err(StartError::Open);
    }
    let app = App::start(config).await?;
    let name = std::env::var("AWS_LAMBDA_FUNCTION_NAME").unwrap_or_default();
    let emf = Arc::new(Emf::new(Arc::clone(&app.metrics), name));
    Ok(Function { app, emf })
}

impl Function {
    /// Routes as a function has them: each request knows its deadline, its log lines say whose they are, and what it counted is told at the end of its answer. `of` reads what the platform says of a request.
    pub fn serves(&self, router: Router, of: fn(&Request) -> Option<Invocation>) -> Router {
        let emf = Arc::clone(&self.emf);
        let around = from_fn(move |mut request: Request, next: Next| {
            let emf = Arc::clone(&emf);
            async move {
                let invocation = of(&request).unwrap_or_default();
                let until = schedule::stream_until(invocation.deadline_unix_ms);
                request.extensions_mut().insert(StreamUntil(until));
                let span = invocation.span();
                let ending = Ending {
                    emf,
                    request_id: Some(invocation.request_id),
                };
                let answer = next.run(request).instrument(span.clone()).await;
                observed(answer, span, ending)
            }
        });
        cors::shared_with(with_told_misses(router), &self.app.config.cors_origins).layer(around)
    }

    /// An invocation that is no request: as [`Function::serves`] has it.
    pub async fn invoked<T>(&self, invocation: Invocation, work: impl Future<Output = T>) -> T {
        let done = work.instrument(invocation.span()).await;
        self.emf.tell(&invocation.request_id);
        done
    }
}

fn observed(answer: Response, span: Span, ending: Ending) -> Response {
    answer.map(|inner| {
        Body::new(Observed {
            inner,
            span,
            ending,
        })
    })
}

/// Tells what was counted, once: when the body ended, or when nobody reads it any more.
struct Ending {
    emf: Arc<Emf>,
    /// `None`: it is told.
    request_id: Option<String>,
}

impl Ending {
    fn tell(&mut self) {
        if let Some(request_id) = self.request_id.take() {
            self.emf.tell(&request_id);
        }
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        self.tell();
    }
}

/// A body that the platform's loop reads in a task of its own: what it logs belongs to the invocation all the same.
struct Observed {
    inner: Body,
    span: Span,
    ending: Ending,
}

impl HttpBody for Observed {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = &mut *self;
        let polled = this
            .span
            .in_scope(|| Pin::new(&mut this.inner).poll_frame(context));
        if let Poll::Ready(None) = polled {
            this.ending.tell();
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
