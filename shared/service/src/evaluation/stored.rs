//! Evaluation of stored traces: what was found becomes events of the trace, once for each run and evaluator.

use std::sync::Arc;

use tailspan_core::{
    eval::{
        Config, EvalSet, Evaluator, Subject, TraceResult,
        record::{Evaluated, record, version_of},
    },
    id::{TenantId, TraceId},
    pricing::Prices,
    settle::Status,
    summary::summary,
};
use tracing::warn;

use super::{Request, find_eval_set};
use crate::{
    App,
    live::{LiveSession, Source},
    log::{LogError, beside, now_unix_ms, read::Folded},
};

/// What was evaluated, as it stood then: by that results are known, and there they are kept.
#[derive(Clone, Debug)]
pub struct Stood {
    /// The trace that takes the results, of a session its last, and its last event that is no result.
    trace: TraceId,
    through: u64,
    /// The other traces of a session.
    others: Vec<(TraceId, u64)>,
    /// The live session that was evaluated as a whole.
    session: Option<String>,
    /// Sessions whose followers see the results.
    followed: Vec<String>,
}

impl Stood {
    /// A trace.
    pub fn trace(trace: &TraceId, folded: &Folded, prices: &Prices) -> Self {
        let run = summary(&folded.state, trace.as_str(), Status::Completed, prices);
        Self {
            trace: trace.clone(),
            through: folded.state.told_through(),
            others: Vec::new(),
            session: None,
            followed: run.sessions,
        }
    }

    /// A live session, with the traces that it has. `None`: it has none.
    pub fn session(
        session: &LiveSession,
        traces: &[(TraceId, Folded)],
        prices: &Prices,
    ) -> Option<Self> {
        let ((last, folded), others) = traces.split_last()?;
        let others = others.iter();
        let stood = Self {
            others: others
                .map(|(trace, folded)| (trace.clone(), folded.state.told_through()))
                .collect(),
            session: Some(session.name.clone()),
            ..Self::trace(last, folded, prices)
        };
        Some(stood.followed_in(session))
    }

    /// Followers of a session that is made of frames see the results too: its trace does not tell of it.
    fn followed_in(mut self, session: &LiveSession) -> Self {
        let name = &session.name;
        if session.source == Source::WebSocket && !self.followed.contains(name) {
            self.followed.push(name.clone());
        }
        self
    }

    fn evaluated(&self, by: &Evaluator, config: &Config, eval_set: Option<&EvalSet>) -> Evaluated {
        let evaluated = Evaluated {
            through: self.through,
            version: version_of(by, config, eval_set),
        };
        evaluated.together_with(&self.others)
    }
}

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
    let session = match app.log.live_session_of(tenant, trace).await? {
        Some(key) => app.log.live_session(tenant, &key).await?,
        None => None,
    };
    let named = match &session {
        Some(session) => eval_set_of(app, session).await?,
        None => None,
    };
    let eval_set = named.or_else(|| operator.eval_set.clone());
    let mut stood = Stood::trace(trace, folded, &app.config.prices);
    if let Some(session) = &session {
        stood = stood.followed_in(session);
    }
    let mut config = operator.config.clone();
    config.evaluators.retain(|evaluator| {
        let evaluated = stood.evaluated(evaluator, &operator.config, eval_set.as_deref());
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
    keep_results(app, tenant, &stood, &config, eval_set.as_deref(), &result).await?;
    Ok(Some(result))
}

/// Appends what was found to the log of the trace, of a session to that of its last trace: an event `gen_ai.evaluation.result` for each metric. What
/// is known already, of the same events by the same evaluator, stays as it was. `config` and `eval_set` are those that it was evaluated with.
///
/// # Errors
/// [`LogError`]; repeating it stores what is missing and nothing twice.
pub async fn keep_results(
    app: &App,
    tenant: &TenantId,
    stood: &Stood,
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
            let evaluated = stood.evaluated(evaluator, config, eval_set);
            let eval_set = eval_set.map(|set| set.id.as_str());
            let session = stood.session.as_deref();
            Some(record(metric, evaluated, eval_set, session, now))
        })
        .collect();
    if !events.is_empty() {
        let followed = stood.followed.clone();
        app.log
            .append_aside(tenant, &stood.trace, events, followed)
            .await?;
    }
    Ok(())
}

/// The eval set that a session names, in the operator's folder.
async fn eval_set_of(app: &App, session: &LiveSession) -> Result<Option<Arc<EvalSet>>, LogError> {
    let (Some(folder), Some(id)) = (&app.config.eval_sets, &session.eval_set_id) else {
        return Ok(None);
    };
    let (folder, wanted) = (folder.clone(), id.clone());
    // Files of a disk that may be slow.
    let found = beside(move || find_eval_set(&folder, &wanted)).await?;
    Ok(match found {
        Ok(Some(set)) => Some(Arc::new(set)),
        Ok(None) => {
            warn!(
                session = session.name,
                eval_set = id,
                "there is no eval set of the id that a session names"
            );
            None
        }
        Err(error) => {
            warn!(session = session.name, eval_set = id, %error, "failed to read the eval set that a session names");
            None
        }
    })
}
