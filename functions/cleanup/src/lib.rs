//! The scheduled sweep: what is due is looked at, what is older than the retention goes. And cleaning up and redacting on request.

#[cfg(feature = "openapi")]
pub mod openapi;
mod redact;
mod request;

use std::time::{Duration, Instant};

use axum::{Router, extract::DefaultBodyLimit, middleware::map_response, routing::post};
use serde::Serialize;
use tailspan_service::{App, envelope::put_errors_in, log::LogError};
use tracing::{info, warn};

/// Bytes of a request.
const LARGEST_BODY: usize = 64 * 1024;
/// Between two looks for what is older than the retention, at most.
const RETENTION_EVERY: Duration = Duration::from_secs(60);

/// The routes of this function; its schedule calls [`sweep`].
pub fn router(app: App) -> Router {
    let seed = Router::new()
        .route("/v1/trace/traces/cleanup", post(request::seed_clean_up))
        .layer(map_response(put_errors_in));
    Router::new()
        .route("/traces/cleanup", post(request::clean_up))
        .route("/traces/{trace_id}/redact", post(redact::redact))
        .merge(seed)
        .layer(DefaultBodyLimit::max(LARGEST_BODY))
        .with_state(app)
}

/// What one sweep did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Swept {
    pub tenants: usize,
    /// Traces that were due and looked at.
    pub looked_at: usize,
    /// Traces removed.
    pub removed: u64,
    /// Live sessions removed: there were too many, or they were complete for long. Their traces stay.
    pub sessions: u64,
    /// `false`: the time was over before everything was looked at; the next sweep goes on.
    pub complete: bool,
}

/// Sweeps once, at most until `until`.
///
/// # Errors
/// [`LogError`]; the next sweep goes on.
pub async fn sweep(app: &App, until: Instant) -> Result<Swept, LogError> {
    sweep_parts(app, until, true).await
}

async fn sweep_parts(app: &App, until: Instant, retention: bool) -> Result<Swept, LogError> {
    let mut swept = Swept {
        complete: true,
        ..Swept::default()
    };
    let tenants = app.log.tenants().await?;
    for tenant in &tenants {
        swept.tenants += 1;
        loop {
            if Instant::now() >= until {
                swept.complete = false;
                return Ok(swept);
            }
            let looked_at = app.log.settle_due(tenant).await?;
            swept.looked_at += looked_at;
            if looked_at == 0 {
                break;
            }
        }
    }
    for tenant in &tenants {
        swept.sessions += app.log.live_sweep(tenant).await?;
    }
    if retention {
        app.access.renew_issuer_keys().await;
    }
    for tenant in tenants.iter().filter(|_| retention) {
        app.log.heal_stored(tenant).await?;
        let kept = app.log.sweep(tenant, until).await?;
        swept.removed += kept.removed;
        swept.complete &= kept.complete;
    }
    Ok(swept)
}

/// Sweeps every so often until the process shuts down: deadlines each time, retention once a minute, or ten times within the shortest retention.
pub async fn run_forever(app: App, every: Duration) {
    let shortest = Duration::from_millis(app.config.retention.shortest_ms());
    let retention_every = (shortest / 10).min(RETENTION_EVERY);
    let mut kept_at: Option<Instant> = None;
    loop {
        tokio::select! {
            () = app.shutdown.cancelled() => return,
            () = tokio::time::sleep(every) => {}
        }
        let retention = kept_at.is_none_or(|at| at.elapsed() >= retention_every);
        if retention {
            kept_at = Some(Instant::now());
        }
        match sweep_parts(&app, Instant::now() + every, retention).await {
            Ok(swept) => {
                if swept.removed > 0 {
                    info!(
                        removed = swept.removed,
                        complete = swept.complete,
                        "removed traces older than the retention"
                    );
                }
                if !swept.complete {
                    // What is left goes with the next sweep.
                    kept_at = None;
                }
            }
            Err(error) => warn!(%error, "failed to sweep"),
        }
    }
}
