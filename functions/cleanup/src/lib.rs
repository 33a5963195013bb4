//! The scheduled sweep: what is due is looked at, what is older than the retention goes.

use std::time::{Duration, Instant};

use serde::Serialize;
use tailspan_service::{App, log::LogError};
use tracing::{info, warn};

/// What one sweep did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Swept {
    pub tenants: usize,
    /// Traces that were due and looked at.
    pub looked_at: usize,
    /// Traces removed.
    pub removed: u64,
    /// `false`: the time was over before everything was looked at; the next sweep goes on.
    pub complete: bool,
}

/// Sweeps once, at most until `until`.
///
/// # Errors
/// [`LogError`]; the next sweep goes on.
pub async fn sweep(app: &App, until: Instant) -> Result<Swept, LogError> {
    let mut swept = Swept {
        complete: true,
        ..Swept::default()
    };
    for tenant in app.log.tenants().await? {
        swept.tenants += 1;
        loop {
            if Instant::now() >= until {
                swept.complete = false;
                return Ok(swept);
            }
            let looked_at = app.log.settle_due(&tenant).await?;
            swept.looked_at += looked_at;
            if looked_at == 0 {
                break;
            }
        }
        swept.removed += app.log.sweep(&tenant).await?;
    }
    Ok(swept)
}

/// Sweeps every so often until the process shuts down.
pub async fn run_forever(app: App, every: Duration) {
    loop {
        tokio::select! {
            () = app.shutdown.cancelled() => return,
            () = tokio::time::sleep(every) => {}
        }
        match sweep(&app, Instant::now() + every).await {
            Ok(swept) if swept.removed > 0 => info!(
                removed = swept.removed,
                "removed traces older than the retention"
            ),
            Ok(_) => {}
            Err(error) => warn!(%error, "failed to sweep"),
        }
    }
}
