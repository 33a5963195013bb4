//! Takes in what the agents of a mesh publish into a Redis stream of theirs. How, and what is promised, stands in [`tailspan_service::mesh`].

use std::time::Duration;

use tailspan_service::{
    App,
    mesh::{Intake, read},
};
use tokio::time::Instant;
use tracing::{error, warn};

/// Before the mesh's Redis is asked again that did not answer, or that refused.
const RETRY: Duration = Duration::from_millis(500);
/// A reason is logged again after this long.
const SAY_AGAIN: Duration = Duration::from_secs(60);

/// Reads until the process shuts down; returns at once where no mesh is named.
pub async fn run(app: App) {
    let Some(intake) = Intake::of(&app) else {
        return;
    };
    let mut said: Option<(String, Instant)> = None;
    while !app.shutdown.is_cancelled() {
        let intake = intake.clone();
        // In a task of its own: an entry that makes it panic must not end the reading, and is set aside after a few tries.
        let reason = match tokio::spawn(async move { read(&intake, None).await }).await {
            Ok(Ok(_)) => continue,
            Ok(Err(failed)) => failed.to_string(),
            Err(panicked) => {
                error!(%panicked, "failed to read the mesh's stream");
                panicked.to_string()
            }
        };
        if said
            .as_ref()
            .is_none_or(|(last, at)| *last != reason || at.elapsed() >= SAY_AGAIN)
        {
            warn!(reason, "the mesh's stream cannot be read; trying again");
            said = Some((reason, Instant::now()));
        }
        tokio::select! {
            () = app.shutdown.cancelled() => {}
            () = tokio::time::sleep(RETRY) => {}
        }
    }
}
