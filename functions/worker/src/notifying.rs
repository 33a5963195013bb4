//! Who is told of a run: notifications are written down here, before the job that they come of is done, and delivered elsewhere.

use std::collections::BTreeMap;

use tailspan_core::{
    eval::record::result_of,
    listing,
    notify::{Evaluation, Kind, Moment, Told, body},
    settle::Status,
    summary::{Summary, summary},
};
use tailspan_service::{
    App,
    log::{
        LogError, now_unix_ms,
        read::{Folded, PageSize, ReadFrom},
        work::Job,
    },
};

/// Events after a run's end that are looked through for results; they come right after it.
const MOST_EVENTS: u64 = 5_000;

/// Of a run that ended or stalled.
///
/// # Errors
/// [`LogError`]; repeating it tells nobody twice.
pub(crate) async fn tell_of_run(app: &App, job: &Job, folded: &Folded) -> Result<(), LogError> {
    let status = job.status.parse().unwrap_or(Status::Completed);
    let Some(kind) = Kind::of(status) else {
        return Ok(());
    };
    let settled = folded.trace.settled.as_ref();
    let settled = settled.filter(|settled| settled.seq == job.through);
    let at_unix_ms = settled.map_or_else(now_unix_ms, |settled| settled.at_unix_ms);
    tell(app, job, folded, (kind, job.through), at_unix_ms, &[]).await
}

/// Of evaluators that found the run wanting, or failed themselves: read from the trace, so that one who takes the job over after they were stored tells of them too.
///
/// # Errors
/// As [`tell_of_run`].
pub(crate) async fn tell_of_evaluation(app: &App, job: &Job) -> Result<(), LogError> {
    if !is_wanted(app, job, Kind::EvaluationFailed) {
        return Ok(());
    }
    let Some(folded) = app.log.folded(&job.tenant, &job.trace).await? else {
        return Ok(());
    };
    let mut failed: BTreeMap<u64, (u64, Vec<Evaluation>)> = BTreeMap::new();
    let mut from = ReadFrom::Holding(job.through + 1);
    let last = folded.through.min(job.through + MOST_EVENTS);
    loop {
        let page = app
            .log
            .page(&job.tenant, &job.trace, from, PageSize::LARGE)
            .await?;
        let Some(end) = page.chunks.last().map(|chunk| chunk.span.last) else {
            break;
        };
        for chunk in &page.chunks {
            for event in app.log.recorded(&job.tenant, &job.trace, chunk).await? {
                let Some((through, found)) = result_of(&event.observation) else {
                    continue;
                };
                if through >= job.through && matches!(found.label.as_str(), "failed" | "error") {
                    let of = failed.entry(through).or_default();
                    of.0 = event.arrived_unix_ms;
                    of.1.push(found);
                }
            }
        }
        if end >= last {
            break;
        }
        from = ReadFrom::Holding(end + 1);
    }
    for (through, (at_unix_ms, found)) in failed {
        let of = (Kind::EvaluationFailed, through);
        tell(app, job, &folded, of, at_unix_ms, &found).await?;
    }
    Ok(())
}

fn is_wanted(app: &App, job: &Job, kind: Kind) -> bool {
    let mut endpoints = app.config.webhooks.of(&job.tenant);
    endpoints.any(|endpoint| endpoint.kinds.contains(&kind))
}

async fn tell(
    app: &App,
    job: &Job,
    folded: &Folded,
    (kind, through): (Kind, u64),
    at_unix_ms: u64,
    evaluations: &[Evaluation],
) -> Result<(), LogError> {
    if !is_wanted(app, job, kind) {
        return Ok(());
    }
    let (summary, name) = summed_up(app, job, folded);
    let url = app.config.public_url.as_ref();
    let url = url.map(|url| format!("{url}/runs/{}", job.trace));
    let told = Told {
        moment: Moment {
            tenant: &job.tenant,
            trace: &job.trace,
            began_unix_ms: folded.trace.first_arrival_unix_ms,
            through,
            kind,
        },
        run: job.run,
        at_unix_ms,
        name: name.as_deref(),
        summary: &summary,
        evaluations,
        url: url.as_deref(),
    };
    for endpoint in app.config.webhooks.of(&job.tenant) {
        if !endpoint.wants(kind, &summary.agents) {
            continue;
        }
        let id = told.moment.id(&endpoint.name);
        app.log
            .add_delivery(
                &job.tenant,
                &endpoint.name,
                kind,
                &job.trace,
                &id,
                body(&told, endpoint.level),
            )
            .await?;
    }
    Ok(())
}

fn summed_up(app: &App, job: &Job, folded: &Folded) -> (Summary, Option<String>) {
    let status = job.status.parse().unwrap_or(Status::Completed);
    let summary = summary(
        &folded.state,
        job.trace.as_str(),
        status,
        &app.config.prices,
    );
    (summary, listing::name(&folded.state))
}
