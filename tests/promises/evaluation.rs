//! Evaluation of runs that end: once, by the operator's evaluators, kept as events of the trace that change nothing of its run.

use std::{
    os::unix::fs::PermissionsExt as _,
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tailspan_core::{
    eval::{MetricResult, TraceResult},
    feed::{FeedCursor, Happened, SessionNews},
    id::{SessionKey, TenantId, TraceId},
};
use tailspan_service::{
    App,
    config::Config,
    evaluation::{Operator, Stood, evaluate_ended, keep_results},
    log::{
        feed::Scope,
        read::{Folded, TraceState},
    },
};
use tempfile::TempDir;

use crate::support::{Instance, Store, Viewer, http};

/// A conversation of one turn with one tool call, as native events; the second part comes late.
const RUN: &str = r#"
{"event_id":"1","event_type":"workflow_started","agent_id":"helper","session_id":"conv","inputs":{"query":"How warm is it?"}}
{"event_id":"2","event_type":"tool_call_started","agent_id":"helper","call_id":"t1","tool_name":"read_sensor","arguments":{"id":"th-1"}}
{"event_id":"3","event_type":"tool_call_completed","agent_id":"helper","call_id":"t1","tool_name":"read_sensor","result":"21"}
{"event_id":"4","event_type":"workflow_completed","agent_id":"helper","outputs":{"answer":"It is 21 degrees."}}
"#;
const LATE: &str = r#"{"event_id":"5","event_type":"tool_call_completed","agent_id":"helper","call_id":"t1","tool_name":"read_sensor","result":"21 C"}"#;

/// An operator's folder: a program that counts how often it is asked, two metrics, an eval set.
fn folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
    };
    let asked = folder.path().join("asked");
    write(
        "count.sh",
        &format!(
            "#!/bin/sh\ncat > /dev/null\necho . >> {}\necho '{{\"score\": 0.75}}'\n",
            asked.display()
        ),
    );
    write(
        "evaluators.yaml",
        "evaluators:\n  - {name: counted, type: code, path: count.sh}\n  - {name: error_free, type: builtin}\n  - {name: response_match_score, type: builtin}\n",
    );
    write(
        "set.json",
        &json!({"eval_set_id": "warm", "eval_cases": [{"eval_id": "1", "conversation": [{
            "user_content": {"parts": [{"text": "How warm is it?"}]},
            "final_response": {"parts": [{"text": "It is 21 degrees."}]}}]}]})
        .to_string(),
    );
    folder
}

fn with(folder: &TempDir, config: Config) -> Config {
    Config {
        evaluators: Some(Arc::new(
            Operator::load(&folder.path().join("evaluators.yaml")).unwrap(),
        )),
        eval_sets: Some(folder.path().to_owned()),
        ..config
    }
}

fn times_asked(folder: &TempDir) -> usize {
    let asked = std::fs::read_to_string(folder.path().join("asked"));
    asked.map_or(0, |asked| asked.lines().count())
}

async fn post(instance: &Instance, trace: &str, events: &str) {
    let lines: Vec<Value> = events
        .lines()
        .filter(|line| !line.trim().is_empty())
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let url = instance.url(&format!("/traces/{trace}/events"));
    let response = http().post(url).json(&lines).send().await.unwrap();
    assert!(
        response.status().is_success(),
        "{:?}",
        response.text().await
    );
}

async fn get(instance: &Instance, path: &str) -> Value {
    let response = http().get(instance.url(path)).send().await.unwrap();
    response.json().await.unwrap()
}

async fn state(app: &App, trace: &str) -> TraceState {
    let id = TraceId::parse(trace).unwrap();
    let state = app.log.state(&TenantId::default(), &id).await.unwrap();
    state.unwrap()
}

async fn folded(app: &App, trace: &str) -> Folded {
    let id = TraceId::parse(trace).unwrap();
    let folded = app.log.folded(&TenantId::default(), &id).await.unwrap();
    folded.unwrap()
}

/// Works until the trace's run has ended and nothing is left to do.
async fn work(app: &App, trace: &str) {
    loop {
        let until = Instant::now() + Duration::from_secs(20);
        let done = tailspan_worker::work_off(app, until, |_| {}).await.unwrap();
        if done == 0 && state(app, trace).await.ended().is_some() {
            return;
        }
    }
}

async fn results(instance: &Instance, trace: &str) -> Vec<Value> {
    let path = format!("/traces/{trace}/events?event_types=gen_ai.evaluation.result&level=debug");
    let events = get(instance, &path).await;
    let Some(events) = events["events"].as_array() else {
        panic!("{events}")
    };
    events.clone()
}

/// What is said of a run, without what counts events.
async fn said(instance: &Instance, trace: &str) -> Vec<Value> {
    let mut said = Vec::new();
    for path in ["summary", "invocations", "analysis"] {
        let mut value = get(instance, &format!("/traces/{trace}/{path}")).await;
        for counter in ["total_events", "as_of_seq", "event_distribution"] {
            if let Some(object) = value.as_object_mut() {
                object.remove(counter);
            }
        }
        said.push(value);
    }
    let mut listed = get(instance, "/traces?status=completed").await;
    let row = &mut listed["traces"][0];
    assert_eq!(row["trace_id"], trace, "{row}");
    said.push(json!([row["status"], row["ended_runs"], row["run"]]));
    said.push(get(instance, "/stats").await["agents"].clone());
    said
}

#[tokio::test]
async fn results_change_nothing_of_the_run_and_stand_once() {
    let redis = Store::node().await;
    let folder = folder();
    let plain = Instance::with(redis.config()).await;
    let attached = Instance::with(with(&folder, redis.config())).await;
    let tenant = TenantId::default();
    let trace = TraceId::parse("run").unwrap();
    post(&plain, "run", RUN).await;
    work(&plain.app, "run").await;
    let before = (said(&plain, "run").await, state(&plain.app, "run").await);
    let due = redis
        .cli(&["ZRANGE", "{default}:due", "0", "-1", "WITHSCORES"])
        .await;

    let run = folded(&attached.app, "run").await;
    let found = evaluate_ended(&attached.app, &tenant, &trace, &run)
        .await
        .unwrap();
    assert_eq!(found.unwrap().metric_results.len(), 3);
    let results_found = results(&plain, "run").await;
    assert_eq!(results_found.len(), 3);
    assert_eq!(times_asked(&folder), 1);

    let after = state(&plain.app, "run").await;
    assert_eq!(after.seq, before.1.seq + 3);
    assert_eq!(after.ended(), Some("completed"));
    assert_eq!((after.run, after.reopened), (0, false));
    assert_eq!(
        after.settled.as_ref().unwrap().at_unix_ms,
        before.1.settled.as_ref().unwrap().at_unix_ms
    );
    assert_eq!(after.last_arrival_unix_ms, before.1.last_arrival_unix_ms);
    assert_eq!(said(&plain, "run").await, before.0);
    assert_eq!(
        redis
            .cli(&["ZRANGE", "{default}:due", "0", "-1", "WITHSCORES"])
            .await,
        due
    );

    // It is no reason to work, and the same run is not evaluated again: neither with what was read before, nor anew.
    work(&attached.app, "run").await;
    for run in [run, folded(&attached.app, "run").await] {
        let config = attached
            .app
            .config
            .evaluators
            .as_ref()
            .unwrap()
            .config
            .clone();
        let again = TraceResult {
            metric_results: vec![MetricResult::scored("counted", 0.1, 0.5)],
            ..TraceResult::default()
        };
        let stood = Stood::trace(&trace, &run, &attached.app.config.prices);
        keep_results(&attached.app, &tenant, &stood, &config, None, &again)
            .await
            .unwrap();
    }
    let run = folded(&attached.app, "run").await;
    assert_eq!(
        evaluate_ended(&attached.app, &tenant, &trace, &run)
            .await
            .unwrap(),
        None
    );
    assert_eq!(results(&plain, "run").await, results_found);
    assert_eq!(said(&plain, "run").await, before.0);

    // What comes late changes the run, so it is evaluated as it is now, once more.
    post(&plain, "run", LATE).await;
    work(&attached.app, "run").await;
    work(&attached.app, "run").await;
    assert_eq!(results(&plain, "run").await.len(), 6);
    assert_eq!(times_asked(&folder), 2);
    assert_eq!(state(&plain.app, "run").await.run, 0);
}

#[tokio::test]
async fn a_run_that_ends_is_evaluated_once_by_whoever_works() {
    let redis = Store::node().await;
    let folder = folder();
    let instances = [
        Instance::with(with(&folder, redis.config())).await,
        Instance::with(with(&folder, redis.config())).await,
    ];
    let workers = instances
        .each_ref()
        .map(|instance| tokio::spawn(tailspan_worker::run(instance.app.clone(), |_| {})));
    post(&instances[0], "run", RUN).await;
    let url = instances[1].url("/traces/run/stream?until=closed&level=debug");
    let mut viewer = Viewer::open(&url, None).await.unwrap();
    let (mut seen, mut ends) = (Vec::new(), 0);
    while seen.len() < 7 {
        let frame = viewer.soon().await.unwrap().expect("goes on");
        match frame.name.as_str() {
            "end" => ends += 1,
            "" => seen.push(frame.json()),
            name => panic!("{name} {}", frame.data),
        }
    }
    // Live, after the run's one end.
    assert_eq!(ends, 1);
    let mut names: Vec<&str> = seen[4..]
        .iter()
        .map(|event| {
            event["details"]["metric"]
                .as_str()
                .unwrap_or_else(|| panic!("{event}"))
        })
        .collect();
    names.sort_unstable();
    assert_eq!(names, ["counted", "error_free", "response_match_score"]);
    assert_eq!(times_asked(&folder), 1);
    let result = |name: &str| {
        let of = |event: &&Value| event["details"]["metric"] == name;
        seen[4..].iter().find(of).unwrap()
    };
    let counted = result("counted");
    assert_eq!(counted["event_type"], "gen_ai.evaluation.result");
    assert_eq!(counted["details"]["score"], 0.75);
    assert_eq!(counted["details"]["label"], "passed");
    // Nobody named an eval set, so there is no score, and the result says why; it is no error of the run.
    let unmatched = result("response_match_score");
    assert_eq!(unmatched["event_type"], "gen_ai.evaluation.result");
    let explanation = unmatched["details"]["explanation"].as_str().unwrap();
    assert!(explanation.contains("requires expected invocations"));
    for worker in workers {
        worker.abort();
    }
}

#[tokio::test]
async fn a_session_s_eval_set_is_compared_with_and_the_session_stays_complete() {
    let redis = Store::node().await;
    let folder = folder();
    let instance = Instance::with(with(&folder, redis.config())).await;
    let text = |key: &str, text: &str| json!({"key": key, "value": {"stringValue": text}});
    let message = |role: &str, said: &str| {
        json!([{"role": role, "parts": [{"type": "text", "content": said}]}]).to_string()
    };
    let span = json!({"traceId": "0af7651916cd43dd8448eb211c80319c", "spanId": "b7ad6b7169203331", "name": "chat m",
        "startTimeUnixNano": "1760000000000000000", "endTimeUnixNano": "1760000001000000000", "attributes": [
            text("gen_ai.operation.name", "chat"), text("gen_ai.request.model", "m"),
            text("gen_ai.input.messages", &message("user", "How warm is it?")),
            text("gen_ai.output.messages", &message("assistant", "It is 21 degrees."))]});
    let body = json!({"resourceSpans": [{"resource": {"attributes": [
        text("agentevals.session_name", "talk"), text("agentevals.eval_set_id", "warm")]}, "scopeSpans": [{"spans": [span]}]}]});
    let sent = http()
        .post(instance.url("/v1/traces"))
        .json(&body)
        .send()
        .await
        .unwrap();
    assert!(sent.status().is_success());
    let trace = "0af7651916cd43dd8448eb211c80319c";
    work(&instance.app, trace).await;
    work(&instance.app, trace).await;
    let results = results(&instance, trace).await;
    assert_eq!(results.len(), 3, "{results:?}");
    let matched = results
        .iter()
        .find(|result| result["details"]["metric"] == "response_match_score");
    let matched = &matched.unwrap()["attributes"];
    assert_eq!(matched["gen_ai.evaluation.score.value"], 1.0, "{matched}");
    assert_eq!(matched["tailspan.evaluation.eval_set"], "warm");
    let log = &instance.app.log;
    let tenant = TenantId::default();
    let session = log
        .live_session(&tenant, &SessionKey::of("talk"))
        .await
        .unwrap()
        .unwrap();
    assert!(session.complete);
    let told = log
        .notices(&tenant, &Scope::Tenant, FeedCursor::START, 1_000)
        .await
        .unwrap();
    let completions = told.iter().filter(|noticed| {
        matches!(
            noticed.happened,
            Happened::Session {
                news: SessionNews::Complete,
                ..
            }
        )
    });
    assert_eq!(completions.count(), 1);
}
