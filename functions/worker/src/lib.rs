//! What must happen once when a run ends, whoever is awake: deciding that it ended, keeping what a list shows of it, and counting it.
//!
//! Jobs come from the `work` stream through a consumer group, so any number of workers share them. A job may come twice (its worker died before
//! it said "done"); its effects are keyed by the run's last event, so twice is once.
//! Evaluation, which may take minutes, goes on beside the other jobs; its job stays in hand meanwhile.
//! Who is told of a run is written down before its job is done; the deliveries have due times of their own.

mod delivering;
mod evaluating;
mod finished;
mod forwarding;
mod notifying;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use delivering::Delivering;
use evaluating::Evaluating;
pub use finished::FinishedRun;
use forwarding::Forwarding;
use tailspan_core::{listing::card, settle::Status, stats, verbosity::Verbosity};
use tailspan_service::{
    App,
    log::{
        LogError,
        notice::{Named, Notice},
        read::Folded,
        work::{Job, Taken, Worker},
    },
    metrics::Reason,
};
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

/// How often deadlines are looked at. They are due to the millisecond; this is what a run's `end` may come late.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// How often jobs of dead workers are looked for.
const TAKE_OVER_EVERY: Duration = Duration::from_secs(10);
/// How often deliveries that are due are looked for.
const DELIVER_EVERY: Duration = Duration::from_millis(500);
/// Before the store is asked again that did not answer.
const RETRY: Duration = Duration::from_millis(500);

/// Works until the process shuts down, and tells `report` of every run whose end it was the first to take in.
pub async fn run(app: App, report: impl Fn(&FinishedRun)) {
    let shutdown = app.shutdown.clone();
    let forwarder = consumer_name();
    let work = async {
        tokio::join!(
            look_at_deadlines(&app),
            take_jobs(&app, &report),
            deliver(&app),
            Forwarding::run(&app, &forwarder)
        );
    };
    tokio::select! {
        () = work => {}
        () = shutdown.cancelled() => {}
    }
}

/// Works off what there is, until nothing is due or pending, or `until` comes: for a function that is woken by a schedule. Returns the jobs done.
///
/// # Errors
/// [`LogError`]; what was not done is done by the next.
pub async fn work_off(
    app: &App,
    until: Instant,
    report: impl Fn(&FinishedRun),
) -> Result<usize, LogError> {
    let worker = Arc::new(app.log.worker(&consumer_name()).await?);
    let evaluating = Evaluating::new(app, TaskTracker::new());
    let delivering = Delivering::new(app, TaskTracker::new());
    let mut forwarding = Forwarding::new(app, consumer_name());
    let mut done = 0;
    loop {
        let mut looked = 0;
        for tenant in app.log.tenants().await? {
            looked += app.log.settle_due(&tenant).await?;
        }
        let mut jobs = worker.take_over().await?;
        jobs.extend(worker.next(Duration::from_millis(1)).await?);
        let idle = looked == 0 && jobs.is_empty();
        for job in jobs {
            finish(app, &worker, &evaluating, job, &report).await;
            done += 1;
        }
        let mut begun = delivering.begin_due().await?;
        for target in app.config.forward.all() {
            begun += forwarding.pass(target, Some(until)).await?;
        }
        let is_over = Instant::now() >= until;
        if idle && begun == 0 && !is_over && (delivering.is_busy() || evaluating.is_busy()) {
            // What an evaluation finds is told of, and what was not taken may come due again.
            tokio::time::sleep(LOOK_EVERY).await;
        } else if idle && begun == 0 || is_over {
            // What is not through by then is taken over by the next.
            let left = until.saturating_duration_since(Instant::now());
            let ending = async { tokio::join!(evaluating.end(), delivering.end()) };
            let _ = tokio::time::timeout(left, ending).await;
            return Ok(done);
        }
    }
}

async fn look_at_deadlines(app: &App) {
    loop {
        if let Err(error) = look_at_all(app).await {
            debug!(%error, "failed to look at deadlines");
            tokio::time::sleep(RETRY).await;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

async fn look_at_all(app: &App) -> Result<(), LogError> {
    for tenant in app.log.tenants().await? {
        while app.log.settle_due(&tenant).await? > 0 {}
    }
    Ok(())
}

async fn deliver(app: &App) {
    if app.config.webhooks.is_empty() {
        return;
    }
    let delivering = Delivering::new(app, app.tasks.clone());
    loop {
        match delivering.begin_due().await {
            Ok(0) => tokio::time::sleep(DELIVER_EVERY).await,
            // There may be more.
            Ok(_) => {}
            Err(error) => {
                debug!(%error, "failed to look for deliveries");
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

async fn take_jobs(app: &App, report: &impl Fn(&FinishedRun)) {
    let name = consumer_name();
    let evaluating = Evaluating::new(app, app.tasks.clone());
    loop {
        let error = match app.log.worker(&name).await {
            Ok(worker) => take_jobs_with(app, &Arc::new(worker), &evaluating, report).await,
            Err(error) => error,
        };
        debug!(%error, "failed to take jobs");
        tokio::time::sleep(RETRY).await;
    }
}

/// Works until the store fails.
async fn take_jobs_with(
    app: &App,
    worker: &Arc<Worker>,
    evaluating: &Evaluating,
    report: &impl Fn(&FinishedRun),
) -> LogError {
    let mut taken_over_at: Option<Instant> = None;
    loop {
        let mut jobs = match worker.next(Duration::from_secs(1)).await {
            Ok(jobs) => jobs,
            Err(error) => return error,
        };
        if taken_over_at.is_none_or(|at| at.elapsed() >= TAKE_OVER_EVERY) {
            taken_over_at = Some(Instant::now());
            match worker.take_over().await {
                Ok(left) => jobs.extend(left),
                Err(error) => return error,
            }
        }
        for job in jobs {
            finish(app, worker, evaluating, job, report).await;
        }
    }
}

/// Does a job; one that fails stays pending and is taken over later.
async fn finish(
    app: &App,
    worker: &Arc<Worker>,
    evaluating: &Evaluating,
    taken: Taken,
    report: &impl Fn(&FinishedRun),
) {
    let ended = async {
        let has_ended = take_in(app, &taken, report).await?;
        if has_ended && app.config.evaluators.is_some() {
            evaluating.begin(worker, &taken).await;
            return Ok(());
        }
        worker.done(&taken).await
    };
    if let Err(error) = ended.await {
        warn!(trace = %taken.job.trace, %error, "failed to finish a job; it will be taken again");
    }
}

/// Also tells whether it is about a run's end, and not about one that stalled.
async fn take_in(
    app: &App,
    taken: &Taken,
    report: &impl Fn(&FinishedRun),
) -> Result<bool, LogError> {
    let job = &taken.job;
    let has_ended = job.status != Status::Stalled.as_str();
    // Without it its trace is gone, and there is nothing to take in.
    let Some(folded) = app.log.folded(&job.tenant, &job.trace).await? else {
        return Ok(has_ended);
    };
    if has_ended {
        if let Some(run) = keep_row(app, job, &folded).await? {
            app.metrics
                .runs_ended
                .get_or_create(&Reason {
                    reason: run.status_label(),
                })
                .inc();
            report(&run);
        }
        let contribution = stats::of(&folded.state, &app.config.prices);
        app.log
            .keep_stats(&job.tenant, &job.trace, &contribution, folded.through)
            .await?;
    }
    notifying::tell_of_run(app, job, &folded).await?;
    Ok(has_ended)
}

/// What a list shows of the run. `None`: it is known already, or its trace is gone.
async fn keep_row(app: &App, job: &Job, folded: &Folded) -> Result<Option<FinishedRun>, LogError> {
    let run = FinishedRun::of(job, folded, &app.config.prices);
    let card = card(&folded.state, run.summary.clone())
        .map_err(|error| LogError::Internal(error.to_string()))?;
    app.log
        .note(
            &job.tenant,
            &[Notice {
                trace: &job.trace,
                last_seq: folded.through,
                named: &Named::from(&card),
                // What came since is not what ended, but for what was only said about it.
                status: (folded.through == job.through || folded.trace.ended().is_some())
                    .then_some(run.summary.status),
                level: Verbosity::Minimal,
                is_first: false,
            }],
        )
        .await;
    let is_new = app.log.keep_run_row(job, &folded.trace, &card.row).await?;
    Ok(is_new.then_some(run))
}

/// A name no other worker has; members that left are removed after an hour.
fn consumer_name() -> String {
    format!(
        "worker-{}-{:08x}",
        std::process::id(),
        rand::random::<u32>()
    )
}
