//! `GET /traces/{trace_id}/analysis`: what is said of a run, while it goes on and after, at each level.

use serde_json::{Value, json};
use tailspan_core::id::{TenantId, TraceId};

use crate::support::{Instance, RedisServer, http};

async fn ask(instance: &Instance, path: &str) -> (u16, Value) {
    let response = http().get(instance.url(path)).send().await.unwrap();
    let status = response.status().as_u16();
    (status, response.json().await.unwrap())
}

async fn post(instance: &Instance, trace: &str, events: &Value) {
    let url = instance.url(&format!("/traces/{trace}/events"));
    let sent = http().post(url).json(events).send().await;
    assert_eq!(sent.unwrap().status(), 200);
}

fn first_half() -> Value {
    json!([
        {"event_type": "workflow_started", "agent_id": "helper", "timestamp": 1_800_000_000_000_u64},
        {"event_type": "tool_call_started", "call_id": "t1", "tool_name": "search", "arguments": {"q": "CANARY-1"},
            "timestamp": 1_800_000_000_100_u64},
    ])
}

fn second_half() -> Value {
    let text = format!("CANARY-2 {}", "x".repeat(400));
    json!([
        {"event_type": "tool_call_completed", "call_id": "t1", "result": "CANARY-3", "timestamp": 1_800_000_003_100_u64},
        {"event_type": "tool_call_started", "call_id": "t2", "tool_name": "read", "timestamp": 1_800_000_003_110_u64},
        {"event_type": "tool_call_completed", "call_id": "t2", "error": {"type": "Gone", "message": text}, "timestamp": 1_800_000_003_200_u64},
        {"event_type": "workflow_failed", "agent_id": "helper", "error": {"type": "Gone", "message": text}, "timestamp": 1_800_000_003_300_u64},
    ])
}

#[tokio::test]
async fn a_run_is_examined_while_it_goes_on_and_when_it_has_ended() {
    let redis = RedisServer::start().await;
    let instance = Instance::start(&redis.url()).await;
    assert_eq!(ask(&instance, "/traces/run-1/analysis").await.0, 404);

    post(&instance, "run-1", &first_half()).await;
    let (status, live) = ask(&instance, "/traces/run-1/analysis").await;
    assert_eq!(
        (status, &live["status"], &live["waiting_on"][0]["name"]),
        (200, &json!("running"), &json!("search")),
        "{live}"
    );
    assert_eq!(live["findings"], json!([]));

    post(&instance, "run-1", &second_half()).await;
    let (_, ended) = ask(&instance, "/traces/run-1/analysis").await;
    let classes: Vec<&Value> = ended["findings"]
        .as_array()
        .unwrap()
        .iter()
        .map(|finding| &finding["class"])
        .collect();
    assert_eq!(classes, ["root_cause_error", "bottleneck"], "{ended}");
    assert_eq!(ended["bottlenecks"][0]["component"], "search");
    assert_eq!(ended["bottlenecks"][0]["avg_execution_time"], 3.0);
    assert_eq!(
        (
            &ended["total_events"],
            &ended["event_distribution"]["tool_call_started"]
        ),
        (&json!(6), &json!(2))
    );
    assert_eq!(ended["errors"].as_array().unwrap().len(), 1);

    let (_, seed) = ask(&instance, "/v1/trace/traces/run-1/analysis").await;
    assert_eq!(seed["data"]["bottlenecks"], ended["bottlenecks"], "{seed}");

    // Thresholds, and what is none.
    let (_, strict) = ask(&instance, "/traces/run-1/analysis?bottleneck_share=0.95").await;
    assert_eq!(strict["bottlenecks"], json!([]));
    for wrong in [
        "bottleneck_share=0",
        "bottleneck_share=nan",
        "loop_count=1",
        "bottleneck_ms=-1",
        "level=loud",
        "slower_factor=0.5",
    ] {
        let (status, answer) = ask(&instance, &format!("/traces/run-1/analysis?{wrong}")).await;
        assert_eq!(
            (status, &answer["error"]["code"]),
            (400, &json!("invalid_parameter")),
            "{wrong}: {answer}"
        );
    }
}

#[tokio::test]
async fn no_level_says_more_of_a_run_than_it_promises() {
    let redis = RedisServer::start().await;
    let instance = Instance::start(&redis.url()).await;
    post(&instance, "run-2", &first_half()).await;
    post(&instance, "run-2", &second_half()).await;
    let at = |level: &'static str| {
        let instance = &instance;
        async move {
            let path = format!("/traces/run-2/analysis?level={level}");
            ask(instance, &path).await.1
        }
    };
    let minimal = at("minimal").await;
    assert!(!minimal.to_string().contains("CANARY"), "{minimal}");
    assert_eq!(minimal["errors"][0]["type"], "Gone");
    let standard = at("standard").await;
    let told = standard["errors"][0]["error"].as_str().unwrap();
    assert!(
        told.starts_with("CANARY-2") && told.ends_with("[200 of 409 characters]"),
        "{told}"
    );
    assert_eq!(
        at("debug").await["errors"][0]["error"]
            .as_str()
            .unwrap()
            .len(),
        409
    );
    for level in [standard, at("debug").await] {
        let text = level.to_string();
        assert!(
            !text.contains("CANARY-1") && !text.contains("CANARY-3"),
            "{text}"
        );
    }
}

/// A run of one search that takes this long, ended.
async fn search(instance: &Instance, trace: &str, ms: u64) {
    let at = |ms: u64| 1_800_000_000_000 + ms;
    post(
        instance,
        trace,
        &json!([
            {"event_type": "workflow_started", "agent_id": "helper", "timestamp": at(0)},
            {"event_type": "tool_call_started", "call_id": "t", "tool_name": "search", "timestamp": at(0)},
            {"event_type": "tool_call_completed", "call_id": "t", "tool_name": "search", "timestamp": at(ms)},
            {"event_type": "workflow_completed", "agent_id": "helper", "timestamp": at(8_000)},
        ]),
    )
    .await;
}

#[tokio::test]
async fn a_run_is_compared_with_those_before_it() {
    let redis = RedisServer::start().await;
    let instance = Instance::start(&redis.url()).await;
    let app = &instance.app;
    let tenant = TenantId::default();
    for run in 0..20 {
        let trace = format!("usual-{run}");
        search(&instance, &trace, 300).await;
        let trace = TraceId::parse(&trace).unwrap();
        let folded = app.log.folded(&tenant, &trace).await.unwrap().unwrap();
        let contribution = tailspan_core::stats::of(&folded.state, &app.config.prices);
        let kept = app
            .log
            .keep_stats(&tenant, &trace, &contribution, folded.through);
        kept.await.unwrap();
    }
    search(&instance, "slow", 2_000).await;
    let (_, slow) = ask(&instance, "/traces/slow/analysis").await;
    let findings = slow["findings"].as_array().unwrap();
    assert_eq!(findings.len(), 1, "{slow}");
    assert_eq!(
        (
            &findings[0]["class"],
            &findings[0]["components"],
            &findings[0]["numbers"]["samples"]
        ),
        (&json!("slower_than_usual"), &json!(["search"]), &json!(20))
    );
    let usual = findings[0]["numbers"]["usual_p95_ms"].as_f64().unwrap();
    assert!((300.0..340.0).contains(&usual), "{usual}");
    let (_, more) = ask(&instance, "/traces/slow/analysis?history_count=21").await;
    assert_eq!(more["findings"], json!([]));
}
