//! What is to be done for each evaluator of a trace, and all that can be computed at once.

use serde_json::{Value, json};

use super::config::{Config, Evaluator, How, Program, TurnCount, option};
use super::eval_set::EvalCase;
use super::judge::{self, Judging};
use super::metrics::{self, Means};
use super::outcome::{MetricResult, TraceResult};
use super::performance::Performance;
use super::program;
use super::rouge::rouge_1_of_any_script;
use super::trajectory::{canonical, matches};
use super::turn::{ToolUse, Turn};
use crate::fold::State;
use crate::invocations::invocations;
use crate::pricing::Prices;

/// A trace that is evaluated.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Subject {
    pub trace_id: String,
    pub turns: Vec<Turn>,
    pub performance: Performance,
    /// What could not be made sense of while it was read.
    pub warnings: Vec<String>,
}

impl Subject {
    /// Of a folded trace.
    pub fn of(trace_id: &str, state: &State, prices: &Prices) -> Self {
        // A step of an agent in which nothing was said or done is no turn to be compared with one.
        let said_something = |turn: &Turn| {
            !(turn.user_text().is_empty()
                && turn.response_text().is_empty()
                && turn.tool_calls.is_empty())
        };
        let turns = invocations(state);
        let turns = turns.iter().map(Turn::from).filter(said_something);
        let turns: Vec<Turn> = turns.collect();
        Self {
            trace_id: trace_id.to_owned(),
            performance: Performance::of(state, turns.len(), prices),
            turns,
            warnings: Vec::new(),
        }
    }

    /// Of a session, whose traces are these: their turns one after the other, and all that they took.
    pub fn joined(trace_id: &str, traces: Vec<Self>) -> Self {
        let mut joined = Self {
            trace_id: trace_id.to_owned(),
            ..Self::default()
        };
        for trace in traces {
            joined.turns.extend(trace.turns);
            joined.performance.add(trace.performance);
            joined.warnings.extend(trace.warnings);
        }
        joined
    }

    /// The frame of what is found of it. A trace without turns has its one result already, and no evaluator is asked.
    pub fn begin(&self) -> TraceResult {
        let mut result = TraceResult {
            trace_id: self.trace_id.clone(),
            num_invocations: self.turns.len(),
            metric_results: Vec::new(),
            conversion_warnings: self.warnings.clone(),
            performance_metrics: Some(self.performance.to_json()),
        };
        if self.turns.is_empty() {
            let nothing = MetricResult::failed("(all)", "No invocations extracted from trace.");
            result.metric_results.push(nothing);
        }
        result
    }
}

/// What an evaluator needs.
#[derive(Debug)]
pub enum Task {
    /// Nothing more.
    Done(MetricResult),
    /// A judge's answers.
    Judge(Box<Judging>),
    /// A program's output: `program` gets `input` (JSON) on stdin, and [`program::result`] reads what it wrote.
    Program {
        program: Program,
        input: Value,
        threshold: f64,
    },
}

/// What one evaluator has to do for a trace that is compared with `case`.
pub fn task(
    subject: &Subject,
    evaluator: &Evaluator,
    config: &Config,
    case: Option<&EvalCase>,
) -> Task {
    let name = evaluator.name.as_str();
    let threshold = config.threshold_of(evaluator);
    let expected = case
        .and_then(|case| case.conversation.as_deref())
        .filter(|turns| !turns.is_empty());
    match &evaluator.how {
        How::Unsupported(why) => Task::Done(MetricResult::failed(name, why)),
        How::Program(program) => Task::Program {
            program: program.clone(),
            input: program::input(name, threshold, &evaluator.config, subject, expected),
            threshold,
        },
        How::Builtin { .. } => {
            let Some(metric) = metrics::find(name) else {
                let error = format!("{name} not found in registry.");
                return Task::Done(MetricResult::failed(name, error));
            };
            if let Means::Nothing(why) = metric.means {
                let error = format!("metric `{name}` cannot be computed: {why}");
                return Task::Done(MetricResult::failed(name, error));
            }
            if metric.requires_eval_set && expected.is_none() {
                let error = format!(
                    "Metric '{name}' requires expected invocations (golden eval set), but none were provided or matched."
                );
                return Task::Done(MetricResult::failed(name, error));
            }
            let pairs = pair(&subject.turns, expected.unwrap_or_default(), config.turns);
            if let Means::Judge(judge) = metric.means {
                return match judge::judging(judge, subject, evaluator, config, case, &pairs) {
                    Ok(judging) => Task::Judge(Box::new(judging)),
                    Err(error) => Task::Done(MetricResult::failed(name, error)),
                };
            }
            Task::Done(computed(metric.means, subject, evaluator, config, &pairs))
        }
    }
}

/// A turn of the run, and the one that was expected in its place.
pub(super) type Pair<'a> = (Option<&'a Turn>, Option<&'a Turn>);

/// Turns by position.
fn pair<'a>(actual: &'a [Turn], expected: &'a [Turn], turns: TurnCount) -> Vec<Pair<'a>> {
    let count = match turns {
        TurnCount::Count => actual.len().max(expected.len()),
        TurnCount::Truncate => actual.len().min(expected.len()),
    };
    (0..count)
        .map(|n| (actual.get(n), expected.get(n)))
        .collect()
}

fn computed(
    means: Means,
    subject: &Subject,
    evaluator: &Evaluator,
    config: &Config,
    pairs: &[Pair],
) -> MetricResult {
    let name = evaluator.name.as_str();
    let threshold = config.threshold_of(evaluator);
    let performance = &subject.performance;
    let turns = subject.turns.len().max(1) as f64;
    match means {
        Means::Trajectory => trajectory(name, threshold, config, pairs),
        Means::ResponseMatch => {
            let scores: Vec<f64> = pairs
                .iter()
                .map(|pair| match pair {
                    (Some(actual), Some(expected)) => {
                        rouge_1_of_any_script(&actual.response_text(), &expected.response_text())
                    }
                    _ => 0.0,
                })
                .collect();
            let result = MetricResult::of_turns(name, &scores, threshold);
            match turn_counts(pairs) {
                Some(counts) => result.with_details(json!({ "turns": counts })),
                None => result,
            }
        }
        Means::TokenEfficiency => {
            let per_turn = performance.total_tokens() as f64 / turns;
            let most = option(evaluator, "max_tokens").unwrap_or(f64::INFINITY);
            MetricResult::scored(name, enough(most, per_turn), threshold).with_details(json!({
                "tokens": performance.total_tokens(), "tokens_per_turn": per_turn, "max_tokens": most,
            }))
        }
        Means::StepCount => {
            let steps = performance.llm_calls + performance.tool_calls;
            let per_turn = steps as f64 / turns;
            let most = option(evaluator, "max_steps").unwrap_or(f64::INFINITY);
            MetricResult::scored(name, enough(most, per_turn), threshold).with_details(json!({
                "llm_calls": performance.llm_calls, "tool_calls": performance.tool_calls,
                "steps_per_turn": per_turn, "max_steps": most,
            }))
        }
        Means::ToolEfficiency => {
            let most = option(evaluator, "max_calls");
            let scores: Vec<f64> = subject
                .turns
                .iter()
                .map(|turn| useful_share(&turn.tool_calls, most))
                .collect();
            MetricResult::of_turns(name, &scores, threshold)
        }
        Means::LatencyBudget => {
            let most = option(evaluator, "max_seconds").unwrap_or(f64::INFINITY) * 1_000.0;
            let all = &performance.overall_ms;
            if all.is_empty() {
                return MetricResult::failed(name, "no call of an agent has ended");
            }
            let within = all.iter().filter(|took| **took <= most).count();
            let score = within as f64 / all.len() as f64;
            MetricResult::scored(name, score, threshold).with_details(json!({
                "calls": all.len(), "within": within, "max_seconds": most / 1_000.0,
                "slowest_seconds": all.iter().copied().fold(0.0, f64::max) / 1_000.0,
            }))
        }
        Means::CostBudget => {
            if performance.unpriced_llm_calls > 0 {
                let error = format!(
                    "the cost of {} of {} model calls is not known: their models have no price, or nobody told their tokens",
                    performance.unpriced_llm_calls, performance.llm_calls
                );
                return MetricResult::failed(name, error);
            }
            let cost = performance.cost_usd.unwrap_or(0.0);
            let most = option(evaluator, "max_usd").unwrap_or(f64::INFINITY);
            let score = if cost <= most { 1.0 } else { 0.0 };
            MetricResult::scored(name, score, threshold)
                .with_details(json!({"cost_usd": cost, "max_usd": most}))
        }
        Means::ErrorFree => {
            let ignore = evaluator.config.get("ignore_recovered") == Some(&Value::Bool(true));
            let has_errors = if ignore {
                performance.has_failed
            } else {
                performance.errors_count > 0
            };
            let errors: Vec<Value> = performance
                .errors
                .iter()
                .map(|(step, error)| json!({"step": step, "error": error}))
                .collect();
            let score = if has_errors { 0.0 } else { 1.0 };
            MetricResult::scored(name, score, threshold)
                .with_details(json!({"errors_count": performance.errors_count, "errors": errors}))
        }
        // Decided before.
        Means::Judge(_) | Means::Nothing(_) => MetricResult::failed(name, "not computed"),
    }
}

/// 1 within the limit, else the share of what was used that would have been within.
fn enough(most: f64, used: f64) -> f64 {
    if used <= most { 1.0 } else { most / used }
}

fn trajectory(name: &str, threshold: f64, config: &Config, pairs: &[Pair]) -> MetricResult {
    let match_type = config.match_type.unwrap_or_default();
    let calls = |turn: Option<&Turn>| -> Vec<Value> {
        turn.into_iter()
            .flat_map(|turn| &turn.tool_calls)
            .map(|call| json!({"name": call.name, "args": call.args}))
            .collect()
    };
    let mut scores = Vec::with_capacity(pairs.len());
    let mut comparisons = Vec::with_capacity(pairs.len());
    for (actual, expected) in pairs.iter().copied() {
        let matched = match (actual, expected) {
            (Some(actual), Some(expected)) => {
                matches(&expected.tool_calls, &actual.tool_calls, match_type)
            }
            _ => false,
        };
        scores.push(if matched { 1.0 } else { 0.0 });
        comparisons.push(json!({
            "invocation_id": actual.map(|turn| &turn.id),
            "expected": calls(expected),
            "actual": calls(actual),
            "matched": matched,
        }));
    }
    let mut details = json!({ "comparisons": comparisons });
    if let (Some(counts), Some(details)) = (turn_counts(pairs), details.as_object_mut()) {
        details.insert("turns".into(), counts);
    }
    MetricResult::of_turns(name, &scores, threshold).with_details(details)
}

/// How many turns there are on either side, when they are not as many.
pub(super) fn turn_counts(pairs: &[Pair]) -> Option<Value> {
    let actual = pairs.iter().filter(|(actual, _)| actual.is_some()).count();
    let expected = pairs.iter().filter(|pair| pair.1.is_some()).count();
    (actual != expected && expected > 0).then(|| json!({"actual": actual, "expected": expected}))
}

/// Share of the calls that are neither repeats nor beyond the most; 1 of none.
fn useful_share(calls: &[ToolUse], most: Option<f64>) -> f64 {
    if calls.is_empty() {
        return 1.0;
    }
    let mut known = std::collections::HashSet::new();
    let different = calls
        .iter()
        .filter(|call| known.insert(canonical(call)))
        .count() as f64;
    different.min(most.unwrap_or(f64::INFINITY)) / calls.len() as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::outcome::Status;

    fn turn(asked: &str, answered: &str, calls: &[&str]) -> Turn {
        Turn {
            user: vec![asked.into()],
            response: vec![answered.into()],
            tool_calls: calls
                .iter()
                .map(|name| ToolUse {
                    name: (*name).to_owned(),
                    ..ToolUse::default()
                })
                .collect(),
            ..Turn::default()
        }
    }

    fn done(metric: &str, turns: Vec<Turn>, expected: Vec<Turn>, config: Config) -> MetricResult {
        let subject = Subject {
            turns,
            performance: Performance {
                prompt_tokens: 30_000,
                overall_ms: vec![1_000.0, 40_000.0],
                llm_calls: 2,
                cost_usd: Some(0.2),
                errors_count: 1,
                ..Performance::default()
            },
            ..Subject::default()
        };
        let case = EvalCase {
            conversation: Some(expected),
            ..EvalCase::default()
        };
        match task(&subject, &Evaluator::builtin(metric), &config, Some(&case)) {
            Task::Done(result) => result,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn turns_that_only_one_side_has_score_nothing() {
        let actual = || vec![turn("a", "yes", &["x"]), turn("b", "no", &[])];
        let expected = || vec![turn("a", "yes", &["x"])];
        let result = done(
            "tool_trajectory_avg_score",
            actual(),
            expected(),
            Config::default(),
        );
        assert_eq!(result.score, Some(0.5));
        assert_eq!(result.per_invocation_scores, [Some(1.0), Some(0.0)]);
        assert_eq!(result.eval_status, Status::Passed);
        let truncate = Config {
            turns: TurnCount::Truncate,
            ..Config::default()
        };
        let result = done("tool_trajectory_avg_score", actual(), expected(), truncate);
        assert_eq!(result.score, Some(1.0));
        let result = done(
            "response_match_score",
            expected(),
            actual(),
            Config::default(),
        );
        assert_eq!(result.score, Some(0.5));
    }

    #[test]
    fn what_cannot_be_computed_is_an_error() {
        for (metric, error) in [
            (
                "tool_trajectory_avg_score",
                "Metric 'tool_trajectory_avg_score' requires expected",
            ),
            ("unheard_of", "unheard_of not found in registry."),
            (
                "multi_turn_task_success_v1",
                "metric `multi_turn_task_success_v1` cannot be computed",
            ),
        ] {
            let result = done(metric, vec![turn("a", "b", &[])], vec![], Config::default());
            assert!(result.error.unwrap().starts_with(error), "{metric}");
            assert_eq!(result.eval_status, Status::NotEvaluated);
        }
    }

    #[test]
    fn what_a_run_used_is_scored() {
        for (metric, score) in [
            ("token_efficiency", 1.0 / 3.0),
            ("latency_budget", 0.5),
            ("cost_budget", 0.0),
            ("step_count", 1.0),
            ("error_free", 0.0),
            ("tool_efficiency", 0.75),
        ] {
            let turns = vec![turn("a", "b", &["x", "y", "x", "z"])];
            let result = done(metric, turns, vec![], Config::default());
            assert_eq!(result.score, Some(score), "{metric}");
        }
    }
}
