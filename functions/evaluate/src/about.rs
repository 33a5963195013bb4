//! What the dev server says of itself.

use axum::{Json, extract::State};
use serde::Serialize;
use tailspan_core::eval::metrics::{METRICS, Metric};
use tailspan_service::{
    App,
    extract::{Read, Tenant},
};

use crate::answer::Answer;

#[derive(Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = DevHealth))]
pub(crate) struct Health {
    /// `ok`
    status: &'static str,
    /// Of the program.
    version: &'static str,
}

/// Whether the server answers.
#[cfg_attr(feature = "openapi", utoipa::path(
    get, path = "/api/health", tag = "dev", operation_id = "dev_health", security(()),
    responses((status = 200, description = "it does", body = Answer<Health>)),
))]
pub(crate) async fn health() -> Json<Answer<Health>> {
    Answer::of(Health {
        status: "ok",
        version: env!("CARGO_PKG_VERSION"),
    })
}

#[derive(Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = DevConfig))]
#[serde(rename_all = "camelCase")]
pub(crate) struct Config {
    api_keys: ApiKeys,
}

/// Which keys the process has; never the keys.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub(crate) struct ApiKeys {
    google: bool,
    anthropic: bool,
    openai: bool,
}

/// Whose models judges may be asked.
#[cfg_attr(feature = "openapi", utoipa::path(
    get, path = "/api/config", tag = "dev", operation_id = "dev_config",
    responses((status = 200, description = "the providers whose API keys there are", body = Answer<Config>)),
))]
pub(crate) async fn config(State(app): State<App>, _: Tenant<Read>) -> Json<Answer<Config>> {
    let keys = app.config.provider_keys;
    Answer::of(Config {
        api_keys: ApiKeys {
            google: keys.google,
            anthropic: keys.anthropic,
            openai: keys.openai,
        },
    })
}

/// The built-in metrics.
#[cfg_attr(feature = "openapi", utoipa::path(
    get, path = "/api/metrics", tag = "dev", operation_id = "dev_metrics",
    responses((status = 200, description = "all of them", body = Answer<Vec<crate::openapi::MetricInfo>>)),
))]
pub(crate) async fn metrics(_: Tenant<Read>) -> Json<Answer<Vec<&'static Metric>>> {
    Answer::of(METRICS.iter().filter(|metric| !metric.hidden).collect())
}
