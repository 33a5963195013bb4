//! Evaluation of runs that ended: beside the other jobs, a few at a time.

use std::{sync::Arc, time::Duration};

use tailspan_service::{
    App,
    evaluation::evaluate_ended,
    log::{
        LogError,
        work::{Taken, Worker},
    },
};
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use crate::notifying::tell_of_evaluation;

/// Runs evaluated at a time, and runs that wait for it; beyond, no further job is taken.
const AT_ONCE: usize = 4;
const WAITING: usize = 64;
/// How often it is said that a job is still in hand; well before others would take it over.
const HOLD_EVERY: Duration = Duration::from_secs(10);

/// The evaluations of one worker.
pub(crate) struct Evaluating {
    app: App,
    tasks: TaskTracker,
    places: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
}

impl Evaluating {
    pub(crate) fn new(app: &App, tasks: TaskTracker) -> Self {
        Self {
            app: app.clone(),
            tasks,
            places: Arc::new(Semaphore::new(AT_ONCE)),
            waiting: Arc::new(Semaphore::new(AT_ONCE + WAITING)),
        }
    }

    /// Evaluates the run of a job, and says that the job is done when it is. Returns when there is room for it.
    pub(crate) async fn begin(&self, worker: &Arc<Worker>, taken: &Taken) {
        let Ok(waits) = Arc::clone(&self.waiting).acquire_owned().await else {
            return;
        };
        let (app, places) = (self.app.clone(), Arc::clone(&self.places));
        let (worker, taken) = (Arc::clone(worker), taken.clone());
        self.tasks.spawn(async move {
            let _waits = waits;
            let evaluated = async {
                let Ok(_place) = places.acquire().await else {
                    return Ok(());
                };
                evaluate(&app, &taken).await?;
                tell_of_evaluation(&app, &taken.job).await?;
                worker.done(&taken).await
            };
            let held = async {
                loop {
                    tokio::time::sleep(HOLD_EVERY).await;
                    if let Err(error) = worker.hold(&taken).await {
                        warn!(%error, "failed to hold a job; another worker may take it over");
                    }
                }
            };
            tokio::select! {
                evaluated = evaluated => {
                    if let Err(error) = evaluated {
                        warn!(trace = %taken.job.trace, %error, "failed to evaluate a run; it will be tried again");
                    }
                }
                () = held => {}
                // The job stays in the group, and another worker takes it over.
                () = app.shutdown.cancelled() => {}
            }
        });
    }

    /// Whether something is under way.
    pub(crate) fn is_busy(&self) -> bool {
        !self.tasks.is_empty()
    }

    /// Waits for what is under way.
    pub(crate) async fn end(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }
}

async fn evaluate(app: &App, taken: &Taken) -> Result<(), LogError> {
    let job = &taken.job;
    // Read again: it may have waited for long.
    let Some(folded) = app.log.folded(&job.tenant, &job.trace).await? else {
        return Ok(());
    };
    let found = evaluate_ended(app, &job.tenant, &job.trace, &folded).await?;
    for metric in found.iter().flat_map(|found| &found.metric_results) {
        let (name, score) = (&metric.metric_name, metric.score.unwrap_or(f64::NAN));
        match &metric.error {
            None => info!(trace = %job.trace, score, "{name} {}", metric.eval_status.as_str()),
            Some(error) => warn!(trace = %job.trace, error, "{name} could not be evaluated"),
        }
    }
    Ok(())
}
