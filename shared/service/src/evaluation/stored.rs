//! Evaluation of stored traces: what was found becomes events of the trace, once for each run and evaluator.

use std::sync::Arc;

use tailspan_core::{
    eval::{
        Config, EvalSet, Subject, TraceResult,
        record::{Evaluated, record, version_of},
    },
    id::{TenantId, TraceId},
    settle::Status,
    summary::summary,
};
use tracing::warn;

use super::{Request, find_eval_set};
use crate::{
    App,
    log::{LogError, now_unix_ms, read::Folded},
};

/// Evaluates a run that ended with the operator's evaluators ([`crate::config::Config::evaluators`]), and keeps what they found. Those that
/// have evaluated it as it is are not asked again. `None`: there was nothing to do.
///
/// The eval set is the one that the trace's live session names, in the operator's folder; else the configuration's own.
///
/// # Errors
/// [`LogError`] of the store; what an evaluator could not do stands in its result.
pub async fn evaluate_ended(
    app: &App,
    tenant: &TenantId,
    trace: &TraceId,
    folded: &Folded,
) -> Result<Option<TraceResult>, LogError> {
    let Some(operator) = &app.config.evaluators else {
        return Ok(None);
    };
    let named = eval_set_of_session(app, tenant, trace).await?;
    let eval_set = named.or_else(|| operator.eval_set.clone());
    let mut config = operator.config.clone();
    config.evaluators.retain(|evaluator| {
        let evaluated = Evaluated {
            through: folded.state.told_through(),
            version: version_of(evaluator, &operator.config, eval_set.as_deref()),
        };
        !folded.state.has_evaluated(evaluated.key(&evaluator.name))
    });
    if config.evaluators.is_empty() {
        return Ok(None);
    }
    let subject = Subject::of(trace.as_str(), &folded.state, &app.config.prices);
    // What nobody said anything in is no conversation: a health check, say.
    if subject.turns.is_empty() {
        return Ok(None);
    }
    let request = Request {
        subjects: std::slice::from_ref(&subject),
        eval_set: eval_set.as_deref(),
        config: &config,
        folder: Some(&operator.folder),
    };
    let run = app.evaluation.run(request, &|_| {}).await;
    let Some(result) = run.trace_results.into_iter().next() else {
        return Ok(None);
    };
    keep_results(
        app,
        tenant,
        trace,
        folded,
        &config,
        eval_set.as_deref(),
        &result,
    )
    .await?;
    Ok(Some(result))
}

/// Appends what was found of a trace to its log, an event `gen_ai.evaluation.result` for each metric. What is known already, of the same run by the
/// same evaluator, stays as it was. `config` and `eval_set` are those that it was evaluated with.
///
/// # Errors
/// [`LogError`]; repeating it stores what is missing and nothing twice.
pub async fn keep_results(
    app: &App,
    tenant: &TenantId,
    trace: &TraceId,
    folded: &Folded,
    config: &Config,
    eval_set: Option<&EvalSet>,
    result: &TraceResult,
) -> Result<(), LogError> {
    let now = now_unix_ms();
    let events: Vec<_> = result
        .metric_results
        .iter()
        .filter_map(|metric| {
            let mut evaluators = config.evaluators.iter();
            let evaluator = evaluators.find(|known| known.name == metric.metric_name)?;
            let evaluated = Evaluated {
                through: folded.state.told_through(),
                version: version_of(evaluator, config, eval_set),
            };
            let eval_set = eval_set.map(|set| set.id.as_str());
            Some(record(metric, evaluated, eval_set, now))
        })
        .collect();
    if !events.is_empty() {
        // Whoever follows a session of the trace shall see them.
        let run = summary(
            &folded.state,
            trace.as_str(),
            Status::Completed,
            &app.config.prices,
        );
        app.log
            .append_aside(tenant, trace, events, run.sessions)
            .await?;
    }
    Ok(())
}

async fn eval_set_of_session(
    app: &App,
    tenant: &TenantId,
    trace: &TraceId,
) -> Result<Option<Arc<EvalSet>>, LogError> {
    let Some(folder) = &app.config.eval_sets else {
        return Ok(None);
    };
    let Some(key) = app.log.live_session_of(tenant, trace).await? else {
        return Ok(None);
    };
    let session = app.log.live_session(tenant, &key).await?;
    let Some(id) = session.and_then(|session| session.eval_set_id) else {
        return Ok(None);
    };
    let folder = folder.clone();
    let wanted = id.clone();
    // Files of a disk that may be slow.
    let found = tokio::task::spawn_blocking(move || find_eval_set(&folder, &wanted)).await;
    let found = found.map_err(|error| LogError::Internal(error.to_string()))?;
    Ok(match found {
        Ok(Some(set)) => Some(Arc::new(set)),
        Ok(None) => {
            warn!(%trace, eval_set = id, "there is no eval set of the id that a session names");
            None
        }
        Err(error) => {
            warn!(%trace, eval_set = id, %error, "failed to read the eval set that a session names");
            None
        }
    })
}
