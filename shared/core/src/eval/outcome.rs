//! What an evaluation found.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Whether a metric was met.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Status {
    Passed,
    Failed,
    /// No score could be given; why is in the result's `error`.
    #[default]
    NotEvaluated,
}

impl Status {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Passed => "PASSED",
            Self::Failed => "FAILED",
            Self::NotEvaluated => "NOT_EVALUATED",
        }
    }

    /// Passed when the score reaches the threshold.
    pub fn of(score: f64, threshold: f64) -> Self {
        if score >= threshold {
            Self::Passed
        } else {
            Self::Failed
        }
    }
}

/// What one metric says of one trace.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MetricResult {
    pub metric_name: String,
    /// 0 to 1; absent when none could be given.
    pub score: Option<f64>,
    pub eval_status: Status,
    /// One per turn, of metrics that look at turns.
    pub per_invocation_scores: Vec<Option<f64>>,
    /// Why there is no score; a result with an error never counts as passed.
    pub error: Option<String>,
    pub details: Option<Map<String, Value>>,
    pub duration_ms: Option<f64>,
}

impl MetricResult {
    /// A score, judged by its threshold.
    pub fn scored(metric_name: &str, score: f64, threshold: f64) -> Self {
        Self {
            metric_name: metric_name.to_owned(),
            score: Some(score),
            eval_status: Status::of(score, threshold),
            ..Self::default()
        }
    }

    /// The mean of the turns' scores, judged by its threshold.
    pub fn of_turns(metric_name: &str, scores: &[f64], threshold: f64) -> Self {
        if scores.is_empty() {
            return Self::failed(metric_name, "there is no turn to score");
        }
        let mean = scores.iter().sum::<f64>() / scores.len() as f64;
        Self {
            per_invocation_scores: scores.iter().copied().map(Some).collect(),
            ..Self::scored(metric_name, mean, threshold)
        }
    }

    /// No score, and why.
    pub fn failed(metric_name: &str, error: impl Into<String>) -> Self {
        Self {
            metric_name: metric_name.to_owned(),
            error: Some(error.into()),
            ..Self::default()
        }
    }

    #[must_use]
    pub fn with_details(mut self, details: Value) -> Self {
        if let Value::Object(details) = details {
            self.details = Some(details);
        }
        self
    }

    /// Whether a pipeline may go on: neither failed nor without an answer.
    pub fn is_success(&self) -> bool {
        self.eval_status != Status::Failed && self.error.is_none()
    }
}

/// What was found of one trace.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TraceResult {
    pub trace_id: String,
    pub num_invocations: usize,
    pub metric_results: Vec<MetricResult>,
    pub conversion_warnings: Vec<String>,
    /// [`super::performance::Performance::to_json`].
    pub performance_metrics: Option<Value>,
}

/// What was found of all traces.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RunResult {
    pub trace_results: Vec<TraceResult>,
    /// What could not even begin: a file that cannot be read, an eval set that is none.
    pub errors: Vec<String>,
    /// [`super::performance::overall`].
    pub performance_metrics: Option<Value>,
}

impl RunResult {
    /// Whether a pipeline may go on: no metric failed or has an error, and nothing else went wrong.
    pub fn is_success(&self) -> bool {
        self.errors.is_empty()
            && self
                .trace_results
                .iter()
                .flat_map(|trace| &trace.metric_results)
                .all(MetricResult::is_success)
    }
}
