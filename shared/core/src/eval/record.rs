//! Results as events of the evaluated trace: log records `gen_ai.evaluation.result` of OpenTelemetry's GenAI conventions.
//!
//! Such a record says something about the run and is no part of it: the fold counts it and takes nothing else from it. It is known by what was
//! evaluated, by what, and under which name, so that the same evaluation is stored once whatever a judge says the second time.

use std::sync::Arc;

use prost::Message as _;
use serde_json::{Map, Value};
use xxhash_rust::xxh3::Xxh3;

use super::config::{Config, Evaluator};
use super::eval_set::EvalSet;
use super::outcome::MetricResult;
use crate::id::TraceId;
use crate::notify::Evaluation;
use crate::observed::{Canonical, Context, Incoming, Observation, What};
use crate::verbosity::Verbosity;
use crate::wire::{self, AnyValue, KeyValue, any_value};

/// The event's name.
pub const EVENT: &str = "gen_ai.evaluation.result";
/// The scope of those that Tailspan writes.
pub const SCOPE: &str = "tailspan.evaluation";

/// Bump when the same evaluator may say something else of the same run: then it is evaluated again at its next end.
const VERSION: u32 = 1;
/// What an explanation and the details hold at most, in bytes.
const MAX_EXPLANATION: usize = 1_000;
const MAX_DETAILS: usize = 16 << 10;
/// OTel severity: information.
const INFO: i32 = 9;

const NAME: &str = "gen_ai.evaluation.name";
const SCORE: &str = "gen_ai.evaluation.score.value";
const LABEL: &str = "gen_ai.evaluation.score.label";
const EXPLANATION: &str = "gen_ai.evaluation.explanation";
const THROUGH: &str = "tailspan.evaluation.through";
const EVALUATOR: &str = "tailspan.evaluation.evaluator";
const EVAL_SET: &str = "tailspan.evaluation.eval_set";
const SESSION: &str = "tailspan.evaluation.session";
const DETAILS: &str = "tailspan.evaluation.details";

/// What a result is about, and by whom it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Evaluated {
    /// The run's last event that is no result ([`crate::fold::State::told_through`]).
    pub through: u64,
    /// [`version_of`] the evaluator.
    pub version: u64,
}

impl Evaluated {
    /// The same together with other traces, each up to an event: another evaluation than that of the one trace.
    pub fn together_with(self, others: &[(TraceId, u64)]) -> Self {
        if others.is_empty() {
            return self;
        }
        let mut hash = Xxh3::new();
        hash.update(&self.version.to_le_bytes());
        for (trace, through) in others {
            hash.update(trace.as_str().as_bytes());
            hash.update(b"\0");
            hash.update(&through.to_le_bytes());
        }
        Self {
            version: hash.digest(),
            ..self
        }
    }

    /// What makes a result known.
    pub fn key(&self, name: &str) -> u64 {
        let mut hash = Xxh3::new();
        hash.update(b"evaluation\0");
        hash.update(&self.through.to_le_bytes());
        hash.update(&self.version.to_le_bytes());
        hash.update(name.as_bytes());
        hash.digest()
    }
}

/// A number for an evaluator as it is configured, and the eval set that it compares with: another configuration is another evaluator.
pub fn version_of(evaluator: &Evaluator, config: &Config, eval_set: Option<&EvalSet>) -> u64 {
    let mut hash = Xxh3::new();
    hash.update(&VERSION.to_le_bytes());
    // Their debug forms name every field, so that a new one is not forgotten here.
    hash.update(format!("{evaluator:?}").as_bytes());
    let general = (
        &config.judge_model,
        config.threshold,
        config.match_type,
        config.turns,
        &config.rubrics,
        config.samples,
    );
    hash.update(format!("{general:?}").as_bytes());
    if let Some(set) = eval_set {
        hash.update(format!("{set:?}").as_bytes());
    }
    hash.digest()
}

/// A result as an event of its trace; `session` is the live session that was evaluated as a whole, `now_unix_ms` when it was found.
///
/// An error is known apart from a score: who asks again, once a judge is there, shall have the score stored too.
pub fn record(
    result: &MetricResult,
    evaluated: Evaluated,
    eval_set: Option<&str>,
    session: Option<&str>,
    now_unix_ms: u64,
) -> Incoming {
    let name = result.metric_name.as_str();
    let mut attributes = vec![text(NAME, name)];
    if let Some(score) = result.score {
        attributes.push(attribute(SCORE, any_value::Value::Double(score)));
    }
    let label = result.eval_status.as_str().to_ascii_lowercase();
    attributes.push(text(LABEL, &label));
    if let Some(explanation) = explanation(result) {
        attributes.push(text(EXPLANATION, cut(&explanation, MAX_EXPLANATION)));
    }
    if result.error.is_some() {
        attributes.push(text("error.type", "evaluation_error"));
    }
    let through = i64::try_from(evaluated.through).unwrap_or(i64::MAX);
    attributes.push(attribute(THROUGH, any_value::Value::Int(through)));
    let version = format!("{:016x}", evaluated.version);
    attributes.push(text(EVALUATOR, &version));
    if let Some(eval_set) = eval_set {
        attributes.push(text(EVAL_SET, eval_set));
    }
    if let Some(session) = session {
        attributes.push(text(SESSION, session));
    }
    if let Some(details) = &result.details {
        let json = Value::Object(details.clone()).to_string();
        // Half a JSON is none.
        if json.len() <= MAX_DETAILS {
            attributes.push(text(DETAILS, &json));
        }
    }
    let log = wire::LogRecord {
        time_unix_nano: now_unix_ms.saturating_mul(1_000_000),
        severity_number: INFO,
        event_name: EVENT.to_owned(),
        attributes,
        ..wire::LogRecord::default()
    };
    let context = Context {
        scope: wire::Scope {
            name: SCOPE.to_owned(),
            ..wire::Scope::default()
        },
        ..Context::default()
    };
    let key = evaluated.key(name);
    let identity = if result.error.is_some() { !key } else { key };
    Incoming {
        context: Arc::new(context),
        what: Canonical::Log(log.encode_to_vec().into()),
        identity: Some(identity.cast_signed()),
        may_end_run: false,
        trace_level: Verbosity::Debug,
    }
}

/// Whether an attribute of this name tells how a run was found to be and nothing of what was said in it.
pub(crate) fn is_fact(key: &str) -> bool {
    [NAME, SCORE, LABEL, THROUGH, EVALUATOR, EVAL_SET, SESSION].contains(&key)
}

/// Whether an observation is a result, of ours or of anybody.
pub(crate) fn is_result(observation: &Observation) -> bool {
    match &observation.what {
        What::Log(log) => {
            log.event_name == EVENT
                || log.event_name.is_empty()
                    && read(&log.attributes, "event.name").is_some_and(
                        |name| matches!(name, any_value::Value::String(name) if name == EVENT),
                    )
        }
        What::Span(_) | What::Native(_) => false,
    }
}

/// What a result says, for an event's details: `metric`, `score`, `label`, `explanation`.
pub(crate) fn details(log: &wire::LogRecord) -> Map<String, Value> {
    [
        ("metric", NAME),
        ("score", SCORE),
        ("label", LABEL),
        ("explanation", EXPLANATION),
    ]
    .into_iter()
    .filter_map(|(name, key)| {
        let value = match read(&log.attributes, key)? {
            any_value::Value::String(text) => Value::from(text.as_str()),
            any_value::Value::Double(number) => Value::from(*number),
            any_value::Value::Int(number) => Value::from(*number),
            _ => return None,
        };
        Some((name.to_owned(), value))
    })
    .collect()
}

/// The key of a result that Tailspan wrote; `None` of others.
pub(crate) fn key_of(observation: &Observation) -> Option<u64> {
    let What::Log(log) = &observation.what else {
        return None;
    };
    if observation.context.scope.name != SCOPE {
        return None;
    }
    let words = |key: &str| match read(&log.attributes, key) {
        Some(any_value::Value::String(text)) => Some(text.as_str()),
        _ => None,
    };
    let Some(any_value::Value::Int(through)) = read(&log.attributes, THROUGH) else {
        return None;
    };
    let evaluated = Evaluated {
        through: u64::try_from(*through).ok()?,
        version: u64::from_str_radix(words(EVALUATOR)?, 16).ok()?,
    };
    Some(evaluated.key(words(NAME)?))
}

/// What a result of an evaluator that Tailspan ran says, and up to which event of its run it holds; `None` of anything else.
pub fn result_of(observation: &Observation) -> Option<(u64, Evaluation)> {
    let What::Log(log) = &observation.what else {
        return None;
    };
    if observation.context.scope.name != SCOPE || !is_result(observation) {
        return None;
    }
    let words = |key: &str| match read(&log.attributes, key) {
        Some(any_value::Value::String(text)) => Some(text.clone()),
        _ => None,
    };
    let Some(any_value::Value::Int(through)) = read(&log.attributes, THROUGH) else {
        return None;
    };
    let label = match words("error.type") {
        Some(_) => "error".to_owned(),
        None => words(LABEL).unwrap_or_default().into(),
    };
    let evaluation = Evaluation {
        name: words(NAME)?.into(),
        score: match read(&log.attributes, SCORE) {
            Some(any_value::Value::Double(score)) => Some(*score),
            _ => None,
        },
        label,
    };
    Some((u64::try_from(*through).ok()?, evaluation))
}

fn read<'a>(attributes: &'a [KeyValue], key: &str) -> Option<&'a any_value::Value> {
    let found = attributes.iter().find(|attribute| attribute.key == key)?;
    found.value.as_ref()?.value.as_ref()
}

/// The error; else what a judge said of the first claim that does not hold.
fn explanation(result: &MetricResult) -> Option<String> {
    if let Some(error) = &result.error {
        return Some(error.clone());
    }
    let details: &Map<String, Value> = result.details.as_ref()?;
    let invocations = details.get("invocations")?.as_array()?;
    let mut verdicts = invocations
        .iter()
        .filter_map(|turn| turn.get("verdicts")?.as_array())
        .flatten();
    let against = verdicts.find(|verdict| verdict.get("holds") == Some(&Value::Bool(false)))?;
    let said = |key: &str| against.get(key).and_then(Value::as_str).unwrap_or_default();
    Some(format!("{}: {}", said("claim"), said("reason")))
}

fn cut(text: &str, most: usize) -> &str {
    let mut end = most.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default()
}

fn text(key: &str, value: &str) -> KeyValue {
    attribute(key, any_value::Value::String(value.into()))
}

fn attribute(key: &str, value: any_value::Value) -> KeyValue {
    KeyValue {
        key: key.into(),
        value: Some(AnyValue { value: Some(value) }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fold::State;
    use crate::observed::Recorded;

    #[test]
    fn a_result_is_known_by_what_was_evaluated_and_changes_nothing_of_the_run() {
        let config = Config::of_metrics(["error_free"]);
        let version = version_of(&config.evaluators[0], &config, None);
        let evaluated = Evaluated {
            through: 7,
            version,
        };
        let incoming = |score| {
            record(
                &MetricResult::scored("error_free", score, 0.5),
                evaluated,
                Some("s"),
                None,
                1,
            )
        };
        assert_eq!(incoming(1.0).identity, incoming(0.0).identity);
        let failed = MetricResult::failed("error_free", "no answer");
        let failed = record(&failed, evaluated, Some("s"), None, 1);
        assert_ne!(failed.identity, incoming(1.0).identity);
        let told = |incoming: Incoming| result_of(&incoming.observation()).unwrap();
        let label = |incoming| told(incoming).1.label;
        assert_eq!(label(incoming(1.0)), "passed");
        assert_eq!(label(incoming(0.0)), "failed");
        assert_eq!(label(failed), "error");
        assert_eq!(told(incoming(0.0)).0, 7);
        let mut state = State::default();
        state.apply(&Recorded {
            seq: 8,
            arrived_unix_ms: 5,
            observation: incoming(1.0).observation(),
        });
        assert!(state.has_evaluated(evaluated.key("error_free")));
        assert!(!state.has_evaluated(evaluated.key("other")));
        assert_eq!(
            (state.events, state.last_seq, state.told_through()),
            (1, 8, 0)
        );
        assert_eq!(
            (state.first_arrival_unix_ms, state.last_arrival_unix_ms),
            (0, 0)
        );
        let other = Config {
            threshold: Some(0.9),
            ..config.clone()
        };
        assert_ne!(version, version_of(&config.evaluators[0], &other, None));
        let with = |through| evaluated.together_with(&[(TraceId::parse("t").unwrap(), through)]);
        assert_eq!(evaluated.together_with(&[]), evaluated);
        assert_ne!(with(1), evaluated);
        assert_ne!(with(1), with(2));
    }
}
