//! Judges against a scripted server, programs as real processes.

use std::{
    collections::VecDeque,
    os::unix::fs::PermissionsExt as _,
    sync::{Arc, Mutex},
};

use axum::{
    Json, Router,
    extract::State,
    http::{HeaderMap, StatusCode, Uri},
    response::{IntoResponse as _, Response},
};
use serde_json::{Value, json};
use tailspan_core::eval::{Status, Turn, config::Budget};

use super::*;

/// What the server does with a question.
#[derive(Clone)]
enum Reply {
    /// A verdict on the one claim.
    Says(&'static str),
    Text(&'static str),
    Fails(u16),
    /// No answer, ever.
    Hangs,
}

#[derive(Clone)]
struct Judge {
    script: Arc<Mutex<VecDeque<Reply>>>,
    asked: Arc<Mutex<Vec<(String, HeaderMap, Value)>>>,
}

async fn judge(
    State(judge): State<Judge>,
    uri: Uri,
    headers: HeaderMap,
    Json(body): Json<Value>,
) -> Response {
    let path = uri.path().to_owned();
    judge
        .asked
        .lock()
        .unwrap()
        .push((path.clone(), headers, body));
    // The last reply goes on for ever.
    let reply = {
        let mut script = judge.script.lock().unwrap();
        match script.len() {
            1 => script.front().cloned().unwrap(),
            _ => script.pop_front().unwrap(),
        }
    };
    let text = match reply {
        Reply::Says(word) => {
            json!({"verdicts": [{"claim": 1, "reason": "so", "verdict": word}]}).to_string()
        }
        Reply::Text(text) => text.to_owned(),
        Reply::Fails(status) => {
            let body = json!({"error": {"message": "no, not with the key sk-secret"}});
            return (StatusCode::from_u16(status).unwrap(), Json(body)).into_response();
        }
        Reply::Hangs => std::future::pending().await,
    };
    let body = if path.ends_with("/v1/messages") {
        json!({"content": [{"type": "text", "text": text}], "usage": {"input_tokens": 90, "output_tokens": 10}})
    } else if path.ends_with(":generateContent") {
        json!({"candidates": [{"content": {"parts": [{"text": text}]}}], "usageMetadata": {"promptTokenCount": 90, "candidatesTokenCount": 10}})
    } else {
        json!({"choices": [{"message": {"content": text}}], "usage": {"prompt_tokens": 90, "completion_tokens": 10}})
    };
    Json(body).into_response()
}

/// Serves the script and evaluates one turn by it.
async fn judged(script: &[Reply], metric: &str, config: Config) -> (MetricResult, Judge) {
    let judge_state = Judge {
        script: Arc::new(Mutex::new(script.iter().cloned().collect())),
        asked: Arc::default(),
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let router = Router::new()
        .fallback(axum::routing::post(judge))
        .with_state(judge_state.clone());
    let server = tokio::spawn(async move { axum::serve(listener, router).await });
    let providers = Providers::from_vars(|name| match name {
        "OPENAI_BASE_URL" => Some(format!("{base}/v1")),
        "ANTHROPIC_BASE_URL" | "GEMINI_BASE_URL" | "OLLAMA_API_BASE" => Some(base.clone()),
        name if name.ends_with("_API_KEY") => Some("sk-secret".to_owned()),
        _ => None,
    });
    let evaluation = Evaluation::new(providers, Arc::new(Prices::builtin()));
    let config = Config {
        evaluators: vec![Evaluator::builtin(metric)],
        judge_model: config.judge_model.or(Some("openai/gpt-4o".to_owned())),
        ..config
    };
    let run = evaluate(&evaluation, &config, None).await;
    server.abort();
    (run.trace_results[0].metric_results[0].clone(), judge_state)
}

async fn evaluate(evaluation: &Evaluation, config: &Config, folder: Option<&Path>) -> RunResult {
    let turn = |answer: &str| Turn {
        id: "i".into(),
        user: vec!["How warm?".into()],
        response: vec![answer.into()],
        ..Turn::default()
    };
    let subject = Subject {
        trace_id: "t".into(),
        turns: vec![turn("21 degrees")],
        ..Subject::default()
    };
    let set = EvalSet::from_turns("s", "", "", vec![turn("It is 21.")]);
    let request = Request {
        subjects: &[subject],
        eval_set: Some(&set),
        config,
        folder,
    };
    evaluation.run(request, &|_| {}).await
}

fn asked(judge: &Judge) -> usize {
    judge.asked.lock().unwrap().len()
}

const MATCH: &str = "final_response_match_v2";
use Reply::{Fails, Hangs, Says, Text};

#[tokio::test]
async fn five_opinions_are_asked_for_and_the_majority_counts() {
    let script = [
        Says("valid"),
        Says("invalid"),
        Says("valid"),
        Says("invalid"),
        Says("valid"),
    ];
    let (result, judge) = judged(&script, MATCH, Config::default()).await;
    assert_eq!((result.score, asked(&judge)), (Some(1.0), 5));
    assert_eq!(result.eval_status, Status::Passed);
    let details = result.details.unwrap();
    assert_eq!(details["judge"]["used"]["input_tokens"], 450);
    assert_eq!(details["invocations"][0]["verdicts"][0]["votes_for"], 3);
    let script = [
        Says("valid"),
        Says("invalid"),
        Says("invalid"),
        Says("valid"),
        Says("invalid"),
    ];
    let (result, _) = judged(&script, MATCH, Config::default()).await;
    assert_eq!(
        (result.score, result.eval_status),
        (Some(0.0), Status::Failed)
    );
}

#[tokio::test]
async fn a_tie_speaks_against() {
    let config = Config {
        samples: 4,
        ..Config::default()
    };
    let script = [
        Says("valid"),
        Says("invalid"),
        Says("valid"),
        Says("invalid"),
    ];
    let (result, judge) = judged(&script, MATCH, config).await;
    assert_eq!((result.score, asked(&judge)), (Some(0.0), 4));
}

#[tokio::test]
async fn malformed_answers_are_asked_for_again_and_end_as_an_error() {
    let script = [Text("hm"), Says("valid")];
    let (result, judge) = judged(&script, MATCH, Config::default()).await;
    assert_eq!((result.score, asked(&judge)), (Some(1.0), 6));
    let one = Config {
        samples: 1,
        ..Config::default()
    };
    let (result, judge) = judged(&[Text("{}")], MATCH, one).await;
    assert_eq!(asked(&judge), 3);
    assert!(!result.is_success());
    assert_eq!(result.eval_status, Status::NotEvaluated);
    let error = result.error.unwrap();
    assert!(
        error.contains("no answer that can be read in 3 tries"),
        "{error}"
    );
}

#[tokio::test]
async fn a_judge_that_is_too_slow_is_an_error() {
    let config = Config {
        judge_seconds: 1,
        ..Config::default()
    };
    let (result, judge) = judged(&[Hangs], MATCH, config).await;
    let error = result.error.unwrap();
    assert!(
        error.ends_with("could not answer: no answer within 1 s"),
        "{error}"
    );
    // Not asked again: each try would be paid for.
    assert_eq!(asked(&judge), 5);
}

#[tokio::test]
async fn budgets_end_a_run() {
    let budget = |budget: Budget| Config {
        budget,
        samples: 25,
        ..Config::default()
    };
    let calls = budget(Budget {
        max_calls: 3,
        ..Budget::default()
    });
    let (result, judge) = judged(&[Says("valid")], MATCH, calls).await;
    let error = result.error.unwrap();
    assert!(
        error.ends_with("the budget of 3 calls is used up"),
        "{error}"
    );
    assert!(asked(&judge) <= 3);
    // 25 questions of 100 tokens, ten at a time: what is under way when the budget ends is not cut off.
    let tokens = budget(Budget {
        max_tokens: Some(500),
        ..Budget::default()
    });
    let (result, judge) = judged(&[Says("valid")], MATCH, tokens).await;
    let error = result.error.unwrap();
    assert!(
        error.ends_with("the budget of 500 tokens is used up"),
        "{error}"
    );
    assert!((5..=15).contains(&asked(&judge)), "{}", asked(&judge));
    let dollars = budget(Budget {
        max_usd: Some(0.0),
        ..Budget::default()
    });
    let (result, judge) = judged(&[Says("valid")], MATCH, dollars).await;
    assert!(
        result
            .error
            .unwrap()
            .ends_with("the budget of 0 US dollars is used up")
    );
    assert_eq!(asked(&judge), 0);
    let unpriced = Config {
        judge_model: Some("openai/nobody-s-own".to_owned()),
        ..budget(Budget {
            max_usd: Some(1.0),
            ..Budget::default()
        })
    };
    let (result, _) = judged(&[Says("valid")], MATCH, unpriced).await;
    assert!(result.error.unwrap().ends_with("this model has no price"));
}

#[tokio::test]
async fn a_busy_provider_is_asked_again_and_a_refusal_is_told_without_the_key() {
    let one = || Config {
        samples: 1,
        ..Config::default()
    };
    let (result, judge) = judged(&[Fails(429), Says("valid")], MATCH, one()).await;
    assert_eq!((result.score, asked(&judge)), (Some(1.0), 2));
    let (result, judge) = judged(&[Fails(401)], MATCH, one()).await;
    let error = result.error.unwrap();
    assert!(
        error.ends_with("status 401: no, not with the key ***"),
        "{error}"
    );
    assert_eq!(asked(&judge), 1);
}

#[tokio::test]
async fn every_provider_is_asked_in_its_own_form() {
    for (model, path, header, told) in [
        (
            "openai/gpt-4o",
            "/v1/chat/completions",
            "authorization",
            "/messages/1/content",
        ),
        (
            "ollama/llama3",
            "/v1/chat/completions",
            "content-type",
            "/messages/1/content",
        ),
        (
            "anthropic/claude-x",
            "/v1/messages",
            "x-api-key",
            "/messages/0/content",
        ),
        (
            "gemini-2.5-flash",
            "/v1beta/models/gemini-2.5-flash:generateContent",
            "x-goog-api-key",
            "/contents/0/parts/0/text",
        ),
    ] {
        let config = Config {
            samples: 1,
            judge_model: Some(model.to_owned()),
            ..Config::default()
        };
        let (result, judge) = judged(&[Says("safe")], "safety_v1", config).await;
        assert_eq!(result.score, Some(1.0), "{model}: {:?}", result.error);
        let asked = judge.asked.lock().unwrap();
        let (asked_path, headers, body) = &asked[0];
        assert_eq!(asked_path, path);
        assert!(headers.contains_key(header), "{model}");
        let prompt = body.pointer(told).unwrap().as_str().unwrap();
        assert!(prompt.contains("21 degrees"), "{prompt}");
    }
}

#[tokio::test]
async fn without_a_key_there_is_an_error() {
    let evaluation = Evaluation::default();
    let mut config = Config::of_metrics(["hallucinations_v1"]);
    for (model, why) in [
        (None, "GOOGLE_API_KEY is not set"),
        (Some("anthropic/claude-x"), "ANTHROPIC_API_KEY is not set"),
        (Some("mistral"), "names no provider"),
    ] {
        config.judge_model = model.map(str::to_owned);
        let run = evaluate(&evaluation, &config, None).await;
        assert!(!run.is_success());
        let error = run.trace_results[0].metric_results[0].error.clone();
        assert!(error.unwrap().contains(why), "{model:?}");
    }
}

/// Writes a program and evaluates with it.
async fn told_by(name: &str, text: &str, more: &str) -> MetricResult {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    let yaml = format!(
        "evaluators:\n - {{name: mine, type: code, path: ./{name}, threshold: 0.7, config: {{k: v}}, {more}}}\n"
    );
    let config = Config::from_yaml(&yaml).unwrap();
    let run = evaluate(&Evaluation::default(), &config, Some(folder.path())).await;
    run.trace_results[0].metric_results[0].clone()
}

#[tokio::test]
async fn programs_get_the_protocol_and_give_a_result() {
    let python = r#"
import json, os, sys
told = json.load(sys.stdin)
turn, expected = told["invocations"][0], told["expected_invocations"][0]
assert told["protocol_version"] == "1.0" and told["config"] == {"k": "v"} and told["threshold"] == 0.7
assert turn["final_response"] == "21 degrees" and expected["final_response"] == "It is 21."
assert turn["performance_metrics"]["counts"] and expected["performance_metrics"] is None
assert "CARGO_MANIFEST_DIR" not in os.environ, "the environment is ours"
print("noise", file=sys.stderr)
json.dump({"score": 0.75, "per_invocation_scores": [0.75], "details": {"seen": True}}, sys.stdout)
"#;
    let result = told_by("check.py", python, "").await;
    assert_eq!(result.error, None);
    assert_eq!(
        (result.score, result.eval_status),
        (Some(0.75), Status::Passed)
    );
    assert_eq!(result.details.unwrap()["seen"], true);
    let shell = "#!/bin/sh\ncat > /dev/null\necho '{\"score\": 0.2}'\n";
    let result = told_by("check.sh", shell, "").await;
    assert_eq!(
        (result.score, result.eval_status),
        (Some(0.2), Status::Failed)
    );
    // One that does not care for what it is told.
    let result = told_by("deaf", "#!/bin/sh\nexec echo '{\"score\": 1}'\n", "").await;
    assert_eq!(result.score, Some(1.0));
}

#[tokio::test]
async fn programs_that_fail_say_why() {
    for (text, why) in [
        ("echo 'it broke' >&2; exit 3", "exit status: 3: it broke"),
        ("echo sorry", "stdout is not JSON"),
        ("true", "it wrote nothing on stdout"),
        ("head -c 5000000 /dev/zero", "it wrote more than"),
    ] {
        let result = told_by("bad.sh", &format!("#!/bin/sh\n{text}\n"), "").await;
        let error = result.error.unwrap();
        assert!(error.contains(why), "{error}");
        assert_eq!(result.eval_status, Status::NotEvaluated);
    }
    let config = Config::from_yaml("evaluators: [{name: m, type: code, path: none.py}]").unwrap();
    let run = evaluate(&Evaluation::default(), &config, None).await;
    let error = run.trace_results[0].metric_results[0]
        .error
        .clone()
        .unwrap();
    assert_eq!(error, "evaluator `m`: there is no file none.py");
}

#[tokio::test]
async fn a_program_that_is_too_slow_ends_with_all_that_it_started() {
    let folder = tempfile::tempdir().unwrap();
    let fifo = folder.path().join("alive");
    let made = std::process::Command::new("mkfifo").arg(&fifo).status();
    assert!(made.unwrap().success());
    // Its child holds the pipe open until it dies, whatever becomes of its parent.
    let path = fifo.display();
    let text = format!("#!/bin/sh\nsh -c 'exec 3> {path}; sleep 600' &\nsleep 600\n");
    let reading = tokio::task::spawn_blocking(move || std::fs::read(fifo));
    let result = told_by("slow.sh", &text, "timeout: 1").await;
    assert_eq!(
        result.error.unwrap(),
        "evaluator `mine`: timed out after 1s"
    );
    // The end of the pipe: nobody has it open any more.
    assert!(reading.await.unwrap().unwrap().is_empty());
}
