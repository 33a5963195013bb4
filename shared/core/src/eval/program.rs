//! Evaluators that are programs: protocol 1.0, one JSON in on stdin, one JSON out on stdout.

use serde_json::{Map, Value, json};

use super::outcome::{MetricResult, Status};
use super::plan::Subject;
use super::turn::Turn;

/// The version of the protocol: major.minor, minor versions only add.
pub const PROTOCOL_VERSION: &str = "1.0";

/// What a program gets on stdin.
pub(super) fn input(
    name: &str,
    threshold: f64,
    config: &Map<String, Value>,
    subject: &Subject,
    expected: Option<&[Turn]>,
) -> Value {
    let performance = subject.performance.to_json();
    let actual: Vec<Value> = subject
        .turns
        .iter()
        .map(|turn| turn_json(turn, Some(&performance)))
        .collect();
    let expected = expected.map(|turns| {
        turns
            .iter()
            .map(|turn| turn_json(turn, None))
            .collect::<Vec<_>>()
    });
    json!({
        "protocol_version": PROTOCOL_VERSION,
        "metric_name": name,
        "threshold": threshold,
        "config": config,
        "invocations": actual,
        "expected_invocations": expected,
    })
}

/// What a program said on stdout, judged.
pub fn result(name: &str, threshold: f64, turns: usize, stdout: &[u8]) -> MetricResult {
    match read(stdout) {
        Ok(said) => {
            let mut result = MetricResult::scored(name, said.score, threshold);
            result.eval_status = said.status.unwrap_or(result.eval_status);
            if !said.per_turn.is_empty() {
                result.per_invocation_scores = said.per_turn;
                result.per_invocation_scores.resize(turns, None);
            }
            result.details = said.details;
            result
        }
        Err(error) => {
            MetricResult::failed(name, format!("evaluator `{name}` gave no result: {error}"))
        }
    }
}

struct Said {
    score: f64,
    status: Option<Status>,
    per_turn: Vec<Option<f64>>,
    details: Option<Map<String, Value>>,
}

fn read(stdout: &[u8]) -> Result<Said, String> {
    let text = String::from_utf8_lossy(stdout);
    let text = text.trim();
    if text.is_empty() {
        return Err("nothing on stdout".to_owned());
    }
    let value: Value =
        serde_json::from_str(text).map_err(|error| format!("stdout is not JSON: {error}"))?;
    let Some(score) = value.get("score").and_then(Value::as_f64) else {
        return Err("there is no number `score`".to_owned());
    };
    if !(0.0..=1.0).contains(&score) {
        return Err(format!("`score` is {score} and not from 0 to 1"));
    }
    let status = match value.get("status") {
        None | Some(Value::Null) => None,
        Some(status) => Some(serde_json::from_value(status.clone()).map_err(|_| {
            format!("`status` is {status} and none of PASSED, FAILED, NOT_EVALUATED")
        })?),
    };
    let per_turn = match value.get("per_invocation_scores") {
        None | Some(Value::Null) => Vec::new(),
        Some(scores) => serde_json::from_value(scores.clone())
            .map_err(|_| "`per_invocation_scores` is no list of numbers".to_owned())?,
    };
    let details = match value.get("details") {
        Some(Value::Object(details)) => Some(details.clone()),
        None | Some(Value::Null) => None,
        Some(_) => return Err("`details` is no object".to_owned()),
    };
    Ok(Said {
        score,
        status,
        per_turn,
        details,
    })
}

fn turn_json(turn: &Turn, performance: Option<&Value>) -> Value {
    let response = turn.response_line();
    let calls: Vec<Value> = turn
        .tool_calls
        .iter()
        .map(|call| {
            let args = match &call.args {
                args @ Value::Object(_) => args.clone(),
                _ => json!({}),
            };
            json!({"name": call.name, "args": args})
        })
        .collect();
    let replies: Vec<Value> = turn
        .tool_responses
        .iter()
        .map(|reply| {
            // Text, by the protocol; of an object its JSON.
            let output = match &reply.response {
                Value::Null => String::new(),
                Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            json!({"name": reply.name, "output": output, "status": null})
        })
        .collect();
    json!({
        "invocation_id": turn.id,
        "user_content": turn.user_text(),
        "final_response": if response.is_empty() { Value::Null } else { Value::String(response) },
        "intermediate_steps": {"tool_calls": calls, "tool_responses": replies},
        "performance_metrics": performance,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_s_words_become_a_result() {
        let said = |text: &str| result("m", 0.7, 2, text.as_bytes());
        let good = said(r#"{"score": 0.8, "per_invocation_scores": [1], "details": {"a": 1}}"#);
        assert_eq!(good.eval_status, Status::Passed);
        assert_eq!(good.per_invocation_scores, [Some(1.0), None]);
        assert_eq!(good.details.unwrap()["a"], 1);
        assert_eq!(
            said(r#"{"score": 0.8, "status": "FAILED"}"#).eval_status,
            Status::Failed
        );
        for (text, error) in [
            ("", "nothing on stdout"),
            ("ok", "stdout is not JSON"),
            (r#"{"score": 2}"#, "`score` is 2 and not from 0 to 1"),
            (r#"{"score": 1, "status": "GOOD"}"#, "`status` is \"GOOD\""),
            ("[1]", "there is no number `score`"),
        ] {
            let result = said(text);
            assert!(result.error.unwrap().contains(error), "{text}");
            assert_eq!(result.eval_status, Status::NotEvaluated);
        }
    }
}
