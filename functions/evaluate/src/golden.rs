//! `/api/streaming/evaluate-sessions`: every complete session compared with a golden one.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Request, State},
};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use serde::Serialize;
use serde_json::{Map, Value, json};
use tailspan_core::{
    eval::{Config, EvalSet, MetricResult, Subject, Turn},
    id::{TenantId, TraceId},
    invocations::of_session,
};
use tailspan_service::{
    App,
    evaluation::{self, Stood, keep_results},
    extract::{Read, Tenant},
    live::LiveSession,
    log::{LogError, beside, read::Folded},
};

use crate::{
    Evaluate,
    answer::{Answer, Refusal},
    request::{Fields, SMALL_BODY_BYTES},
    sessions::{golden_not_found, session, turns},
};

/// Sessions evaluated, and read, at the same time.
const AT_ONCE: usize = 5;
const MATCH_TYPES: [&str; 3] = ["EXACT", "IN_ORDER", "ANY_ORDER"];

#[derive(Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub(crate) struct Compared {
    golden_session_id: String,
    eval_set_id: String,
    results: Vec<ComparedSession>,
}

#[derive(Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub(crate) struct ComparedSession {
    session_id: String,
    trace_id: String,
    num_invocations: usize,
    metric_results: Vec<ComparedMetric>,
    /// null: what went wrong with a metric stands there.
    error: Option<String>,
}

#[derive(Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub(crate) struct ComparedMetric {
    metric_name: String,
    score: Option<f64>,
    /// PASSED, FAILED or NOT_EVALUATED.
    eval_status: &'static str,
    /// Why there is no score.
    error: Option<String>,
    per_invocation_scores: Vec<Option<f64>>,
    details: Option<Map<String, Value>>,
}

impl From<MetricResult> for ComparedMetric {
    fn from(result: MetricResult) -> Self {
        Self {
            metric_name: result.metric_name,
            score: result.score,
            eval_status: result.eval_status.as_str(),
            error: result.error,
            per_invocation_scores: result.per_invocation_scores,
            details: result.details,
        }
    }
}

/// Compares every complete session, the golden one too, with the golden one.
///
/// What is found is kept with the session: events `gen_ai.evaluation.result` in the log of its last trace, each evaluation once.
#[cfg_attr(feature = "openapi", utoipa::path(
    post, path = "/api/streaming/evaluate-sessions", tag = "dev", operation_id = "dev_evaluate_sessions", request_body = crate::openapi::ToEvaluate,
    responses(
        (status = 200, description = "the results, in the order in which the sessions began", body = Answer<Compared>),
        (status = 404, description = "there is no such golden session", body = crate::openapi::DevRefusal),
        (status = 413, description = "the body is too large", body = crate::openapi::DevRefusal),
        (status = 422, description = "the body is not as it has to be", body = crate::openapi::DevRefusal),
        (status = 429, description = "too much is taken in, or evaluated, at this moment", body = crate::openapi::DevRefusal),
    ),
))]
pub(crate) async fn evaluate_sessions(
    State(evaluate): State<Evaluate>,
    Tenant(tenant, _): Tenant<Read>,
    request: Request,
) -> Result<Json<Answer<Compared>>, Refusal> {
    let mut fields = Fields::read(&evaluate.intake, request, SMALL_BODY_BYTES).await?;
    let golden = fields.text("golden_session_id");
    let eval_set_id = fields.text("eval_set_id");
    let metrics = fields.texts("metrics");
    let judge_model = fields.optional_text("judge_model");
    let match_type = fields.optional_text("trajectory_match_type");
    if let Some(other) = match_type.as_deref().filter(|it| !MATCH_TYPES.contains(it)) {
        let says = "Input should be 'EXACT', 'IN_ORDER' or 'ANY_ORDER'";
        fields.wrong("literal_error", "trajectory_match_type", says, other.into());
    }
    fields.check()?;
    let config = match metrics.as_deref() {
        // The original then evaluates nothing, and says so of every session.
        Some([]) => Config::default(),
        _ => {
            let mut asked = json!({"judge_model": judge_model, "trajectory_match_type": match_type, "max_concurrent_traces": AT_ONCE});
            if let (Some(metrics), Value::Object(asked)) = (metrics, &mut asked) {
                asked.insert("metrics".to_owned(), Value::from(metrics));
            }
            let operator = evaluate.operator().map(|operator| &operator.config);
            Config::from_request(&asked, operator)
                .map_err(|mistakes| Refusal::unusable(mistakes.join("; ")))?
        }
    };
    let _place = evaluate.place()?;
    let app = &evaluate.app;
    let golden_session = session(app, &tenant, &golden).await?;
    let golden_session = golden_session.ok_or_else(golden_not_found)?;
    let expected = turns(app, &tenant, &golden_session).await?;
    let expected = expected.iter().map(Turn::from).collect();
    let eval_set = EvalSet::from_turns(&eval_set_id, &eval_set_id, "", expected);

    let sessions = app.log.live_sessions(&tenant).await?;
    let (app, tenant) = (app, &tenant);
    let complete = sessions.into_iter().filter(|session| session.complete);
    let read: Vec<Answered> = stream::iter(complete.collect::<Vec<_>>())
        .map(|session| read(app, tenant, session))
        .buffered(AT_ONCE)
        .try_collect()
        .await?;
    let (stood, subjects): (Vec<_>, Vec<_>) = read
        .into_iter()
        .map(|it| ((it.name, it.stood), it.subject))
        .unzip();
    let request = evaluation::Request {
        subjects: &subjects,
        eval_set: Some(&eval_set),
        config: &config,
        folder: evaluate.operator().map(|operator| &*operator.folder),
    };
    let result = app.evaluation.run(request, &|_| {}).await;
    let mut results = Vec::with_capacity(stood.len());
    for ((session_id, stood), result) in stood.into_iter().zip(result.trace_results) {
        if let Some(stood) = &stood {
            keep_results(app, tenant, stood, &config, Some(&eval_set), &result).await?;
        }
        results.push(ComparedSession {
            session_id,
            trace_id: result.trace_id,
            num_invocations: result.num_invocations,
            metric_results: result.metric_results.into_iter().map(Into::into).collect(),
            error: None,
        });
    }
    Ok(Answer::of(Compared {
        golden_session_id: golden,
        eval_set_id,
        results,
    }))
}

/// A session that is evaluated.
struct Answered {
    name: String,
    /// All its traces together.
    subject: Subject,
    /// `None`: it has no traces.
    stood: Option<Stood>,
}

async fn read(app: &App, tenant: &TenantId, session: LiveSession) -> Result<Answered, LogError> {
    let mut traces = Vec::with_capacity(session.traces.len());
    for of in &session.traces {
        let folded = app.log.folded(tenant, &of.trace).await?;
        traces.extend(folded.map(|folded| (of.trace.clone(), folded)));
    }
    let prices = Arc::clone(&app.config.prices);
    // A long session takes a moment, in which other requests must go on.
    beside(move || {
        let of_trace = |(trace, folded): &(TraceId, Folded)| {
            Subject::of(trace.as_str(), &folded.state, &prices)
        };
        let mut subject = Subject::joined(&session.trace, traces.iter().map(of_trace).collect());
        // As those of the golden session are read: a turn may be spread over traces.
        let turns = of_session(traces.iter().map(|(_, folded)| folded.state.as_ref()));
        subject.turns = turns.iter().map(Turn::from).collect();
        subject.performance.invocations = subject.turns.len();
        Answered {
            stood: Stood::session(&session, &traces, &prices),
            subject,
            name: session.name,
        }
    })
    .await
}
