//! Where a run's time went and what went wrong in it: `GET /traces/{trace_id}/analysis`.

use axum::{Json, extract::State};
use serde::Deserialize;
use serde_json::Value;
use tailspan_core::{
    analysis::{Analysis, Asked, Thresholds, analyze, names_in},
    id::{TenantId, TraceId},
    verbosity::Verbosity,
};
use tailspan_service::{
    App,
    envelope::Enveloped,
    error::ApiError,
    extract::{Params, Read, Tenant, TracePath, View},
    log::now_unix_ms,
};
#[cfg(feature = "openapi")]
use tailspan_service::{
    extract::TraceSegment,
    openapi::{SeedAnswer, SeedRefusal, TraceNotFound},
};

use tracing::error;

use crate::trace::folded;

/// A day, and a gigabyte, and more calls than a trace holds: whoever wants no remark of a class asks for as much.
const MOST_MS: u64 = 86_400_000;
const MOST: u64 = 1 << 30;

/// From when on something is worth a remark; what is not said has its default.
#[derive(Debug, Default, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::IntoParams), into_params(parameter_in = Query))]
pub(crate) struct AnalysisQuery {
    /// minimal, standard (the default), detailed or debug: how much is told of the texts of errors.
    #[cfg_attr(
        feature = "openapi",
        param(pattern = "^(minimal|standard|detailed|debug)$")
    )]
    level: Option<String>,
    /// Share of the critical path that one step has to itself, above 0, at most 1.
    #[cfg_attr(
        feature = "openapi",
        param(exclusive_minimum = 0.0, maximum = 1.0, default = 0.5)
    )]
    bottleneck_share: Option<f64>,
    /// Milliseconds that such a step has at least.
    #[cfg_attr(feature = "openapi", param(maximum = 86_400_000, default = 1000))]
    bottleneck_ms: Option<u64>,
    /// A step is slower than usual beyond this many times the 95th percentile of its history.
    #[cfg_attr(
        feature = "openapi",
        param(minimum = 1.0, maximum = 1000.0, default = 1.5)
    )]
    slower_factor: Option<f64>,
    /// And by this many milliseconds.
    #[cfg_attr(feature = "openapi", param(maximum = 86_400_000, default = 500))]
    slower_ms: Option<u64>,
    /// Durations that a history needs to count.
    #[cfg_attr(
        feature = "openapi",
        param(minimum = 1, maximum = 1_073_741_824, default = 20)
    )]
    history_count: Option<u64>,
    /// The same call with the same arguments, and rounds of one pattern.
    #[cfg_attr(
        feature = "openapi",
        param(minimum = 2, maximum = 1_073_741_824, default = 3)
    )]
    loop_count: Option<u64>,
    /// Input tokens that were sent again and came from no cache.
    #[cfg_attr(
        feature = "openapi",
        param(minimum = 1, maximum = 1_073_741_824, default = 20_000)
    )]
    repeated_tokens: Option<u64>,
    /// Bytes of a tool's result that goes back to a model.
    #[cfg_attr(
        feature = "openapi",
        param(minimum = 1, maximum = 1_073_741_824, default = 20_000)
    )]
    result_bytes: Option<u64>,
    /// Milliseconds that calls could have saved by running side by side.
    #[cfg_attr(feature = "openapi", param(maximum = 86_400_000, default = 500))]
    missed_ms: Option<u64>,
    /// Milliseconds until the first piece of a model's answer came.
    #[cfg_attr(feature = "openapi", param(maximum = 86_400_000, default = 3000))]
    first_token_ms: Option<u64>,
    /// Milliseconds that a step may lie outside of the one that called it.
    #[cfg_attr(feature = "openapi", param(maximum = 86_400_000, default = 50))]
    skew_ms: Option<u64>,
}

impl AnalysisQuery {
    fn level(&self) -> Result<Verbosity, ApiError> {
        let level = self.level.as_deref().map(str::parse::<Verbosity>);
        let level = level.transpose();
        level
            .map(Option::unwrap_or_default)
            .map_err(|error| ApiError::invalid("invalid_parameter", error.to_string()))
    }

    fn thresholds(&self) -> Result<Thresholds, ApiError> {
        let usual = Thresholds::default();
        let whole = |name: &str, told: Option<u64>, usual: u64, least: u64, most: u64| match told {
            Some(told) if !(least..=most).contains(&told) => Err(ApiError::invalid(
                "invalid_parameter",
                format!("{name} must be {least} to {most}"),
            )),
            told => Ok(told.unwrap_or(usual)),
        };
        let bottleneck_share = self.bottleneck_share.unwrap_or(usual.bottleneck_share);
        if !(bottleneck_share > 0.0 && bottleneck_share <= 1.0) {
            return Err(ApiError::invalid(
                "invalid_parameter",
                "bottleneck_share must be above 0 and at most 1",
            ));
        }
        let slower_factor = self.slower_factor.unwrap_or(usual.slower_factor);
        if !(1.0..=1_000.0).contains(&slower_factor) {
            return Err(ApiError::invalid(
                "invalid_parameter",
                "slower_factor must be 1 to 1000",
            ));
        }
        let ms = |name, told, usual| whole(name, told, usual, 0, MOST_MS);
        Ok(Thresholds {
            bottleneck_share,
            bottleneck_ms: ms("bottleneck_ms", self.bottleneck_ms, usual.bottleneck_ms)?,
            slower_factor,
            slower_ms: ms("slower_ms", self.slower_ms, usual.slower_ms)?,
            history_count: whole(
                "history_count",
                self.history_count,
                usual.history_count,
                1,
                MOST,
            )?,
            loop_count: whole("loop_count", self.loop_count, usual.loop_count, 2, MOST)?,
            repeated_tokens: whole(
                "repeated_tokens",
                self.repeated_tokens,
                usual.repeated_tokens,
                1,
                MOST,
            )?,
            result_bytes: whole(
                "result_bytes",
                self.result_bytes,
                usual.result_bytes,
                1,
                MOST,
            )?,
            missed_ms: ms("missed_ms", self.missed_ms, usual.missed_ms)?,
            first_token_ms: ms("first_token_ms", self.first_token_ms, usual.first_token_ms)?,
            skew_ms: ms("skew_ms", self.skew_ms, usual.skew_ms)?,
        })
    }
}

/// Where the run's time went, what it waits for, and what was wrong in it.
#[cfg_attr(feature = "openapi", utoipa::path(
    get, path = "/traces/{trace_id}/analysis", tag = "traces", params(TraceSegment, AnalysisQuery),
    responses(
        (status = 200, description = "the run, examined", body = Analysis),
        (status = 404, response = TraceNotFound),
    ),
))]
pub(crate) async fn get_analysis(
    State(app): State<App>,
    Tenant(tenant, _): Tenant<View>,
    TracePath(trace): TracePath,
    Params(query): Params<AnalysisQuery>,
) -> Result<Json<Analysis>, ApiError> {
    Ok(Json(analysis(&app, &tenant, &trace, &query).await?))
}

/// The same in the seed's envelope.
#[cfg_attr(feature = "openapi", utoipa::path(
    get, path = "/v1/trace/traces/{trace_id}/analysis", operation_id = "seed_get_analysis", tag = "seed", params(TraceSegment, AnalysisQuery),
    responses(
        (status = 200, description = "the run, examined", body = SeedAnswer<Analysis>),
        (status = 404, description = "there is no such trace", body = SeedRefusal),
    ),
))]
pub(crate) async fn get_seed_analysis(
    State(app): State<App>,
    Tenant(tenant, _): Tenant<Read>,
    TracePath(trace): TracePath,
    Params(query): Params<AnalysisQuery>,
) -> Result<Enveloped<Value>, ApiError> {
    let told = analysis(&app, &tenant, &trace, &query).await?;
    let mut told = serde_json::to_value(told).map_err(|error| {
        error!(%trace, %error, "failed to write an analysis as JSON");
        ApiError::internal()
    })?;
    // The seed's name of a trace.
    told["task_id"] = Value::from(trace.as_str());
    Ok(Enveloped(told))
}

async fn analysis(
    app: &App,
    tenant: &TenantId,
    trace: &TraceId,
    query: &AnalysisQuery,
) -> Result<Analysis, ApiError> {
    let (level, thresholds) = (query.level()?, query.thresholds()?);
    let folded = folded(app, tenant, trace).await?;
    let names = names_in(&folded.state);
    let history = app.log.history(tenant, &names).await?;
    let asked = Asked {
        status: app.log.status(&folded),
        now_unix_ms: now_unix_ms(),
        thresholds: &thresholds,
        history: &history,
        prices: &app.config.prices,
    };
    Ok(analyze(&folded.state, trace.as_str(), &asked).at(level))
}
