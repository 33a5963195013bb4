//! Evaluation of traces: [`tailspan_core::eval`] says what is to be done, this does what needs the world, judges over HTTP and programs.
//!
//! One entry for all who evaluate, [`Evaluation::run`]. Subjects come from files, sessions or stored traces, by [`Subject::of`] their folded state.

mod judges;
mod operator;
mod programs;
mod providers;
mod stored;

use std::{path::Path, sync::Arc, time::Duration};

use futures::{StreamExt as _, stream, stream::FuturesUnordered};
use tailspan_core::{
    eval::{
        Config, EvalCase, EvalSet, Evaluator, MetricResult, RunResult, Subject, Task, TraceResult,
        performance, program, task,
    },
    pricing::Prices,
};
use tokio::{sync::Semaphore, time::Instant};

pub use self::operator::{Operator, find_eval_set, load_eval_set};
pub use self::providers::Providers;
pub use self::stored::{Stood, evaluate_ended, keep_results};
use self::{judges::Judges, judges::Spending};

/// Evaluates traces; cheap to clone.
#[derive(Clone, Default)]
pub struct Evaluation {
    judges: Judges,
}

/// One evaluation.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    /// Each is evaluated with everything; none is an error of the run.
    pub subjects: &'a [Subject],
    pub eval_set: Option<&'a EvalSet>,
    pub config: &'a Config,
    /// Where relative paths of programs begin: the folder of the operator's configuration. Also there only programs run that `config` names.
    pub folder: Option<&'a Path>,
}

/// How an evaluation goes on.
#[derive(Clone, Copy, Debug)]
pub enum Progress<'a> {
    /// So many traces will be evaluated.
    Begun {
        traces: usize,
    },
    /// The trace number `number` (from 1) of `of` begins.
    Trace {
        number: usize,
        of: usize,
        subject: &'a Subject,
    },
    /// An evaluator begins.
    Evaluator {
        name: &'a str,
    },
    /// What is found of a trace so far; comes after each evaluator.
    Result(&'a TraceResult),
    Ended,
}

impl Evaluation {
    /// `providers`: whom judges may be asked of ([`Providers::from_vars`]); `prices`: what that costs.
    pub fn new(providers: Providers, prices: Arc<Prices>) -> Self {
        Self {
            judges: Judges::new(providers, prices),
        }
    }

    /// Evaluates all subjects with all evaluators of the configuration, `max_concurrent_traces` traces and `max_concurrent_evals` evaluators at a time.
    ///
    /// Never fails: what went wrong is an error of a metric, or of the run. Results stand in the order of the subjects and of the evaluators.
    /// `progress` is called between steps and must not block. Dropping the future ends judges' calls and programs.
    pub async fn run(
        &self,
        request: Request<'_>,
        progress: &(dyn Fn(Progress<'_>) + Send + Sync),
    ) -> RunResult {
        let Request {
            subjects, config, ..
        } = request;
        let mut run = RunResult::default();
        if subjects.is_empty() {
            run.errors.push("No traces provided.".to_owned());
            return run;
        }
        progress(Progress::Begun {
            traces: subjects.len(),
        });
        let seconds = Duration::from_secs(config.judge_seconds);
        let shared = Shared {
            request,
            progress,
            spending: Spending::new(config.budget, seconds),
            places: Semaphore::new(config.max_concurrent_evals.max(1)),
        };
        let traces: Vec<_> = subjects
            .iter()
            .enumerate()
            .map(|(n, subject)| self.trace(&shared, n, subject))
            .collect();
        run.trace_results = stream::iter(traces)
            .buffered(config.max_concurrent_traces.max(1))
            .collect()
            .await;
        run.performance_metrics =
            performance::overall(subjects.iter().map(|subject| &subject.performance));
        progress(Progress::Ended);
        run
    }

    async fn trace(&self, shared: &Shared<'_>, n: usize, subject: &Subject) -> TraceResult {
        (shared.progress)(Progress::Trace {
            number: n + 1,
            of: shared.request.subjects.len(),
            subject,
        });
        let mut result = subject.begin();
        if subject.turns.is_empty() {
            (shared.progress)(Progress::Result(&result));
            return result;
        }
        let case = shared
            .request
            .eval_set
            .and_then(|set| set.case_for(&subject.turns));
        let evaluators = &shared.request.config.evaluators;
        let mut under_way: FuturesUnordered<_> = evaluators
            .iter()
            .enumerate()
            .map(|(at, evaluator)| async move {
                (at, self.evaluator(shared, subject, evaluator, case).await)
            })
            .collect();
        let mut order: Vec<usize> = Vec::with_capacity(evaluators.len());
        while let Some((at, metric)) = under_way.next().await {
            let place = order.partition_point(|known| *known < at);
            order.insert(place, at);
            result.metric_results.insert(place, metric);
            (shared.progress)(Progress::Result(&result));
        }
        result
    }

    async fn evaluator(
        &self,
        shared: &Shared<'_>,
        subject: &Subject,
        evaluator: &Evaluator,
        case: Option<&EvalCase>,
    ) -> MetricResult {
        let name = evaluator.name.as_str();
        let Ok(_place) = shared.places.acquire().await else {
            return MetricResult::failed(name, "the run has ended");
        };
        (shared.progress)(Progress::Evaluator { name });
        let begun = Instant::now();
        let mut result = match task(subject, evaluator, shared.request.config, case) {
            Task::Done(result) => result,
            Task::Judge(judging) => self.judges.judge(*judging, &shared.spending).await,
            Task::Program {
                program,
                input,
                threshold,
            } => match programs::run(&program, shared.request.folder, &input).await {
                Ok(stdout) => program::result(name, threshold, subject.turns.len(), &stdout),
                Err(why) => MetricResult::failed(name, format!("evaluator `{name}`: {why}")),
            },
        };
        result.duration_ms = Some(begun.elapsed().as_secs_f64() * 1_000.0);
        result
    }
}

struct Shared<'a> {
    request: Request<'a>,
    progress: &'a (dyn Fn(Progress<'_>) + Send + Sync),
    spending: Spending,
    places: Semaphore,
}

#[cfg(test)]
mod tests;
