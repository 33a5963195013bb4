//! A log whose chunks were joined reads as the one that was written, and every cursor that was given goes on.

use std::time::Duration;

use serde_json::{Value, json};
use tailspan_core::id::{TenantId, TraceId};
use tailspan_service::log::rewrite::Compacted;

use crate::support::{Frame, Instance, Store, Viewer, config, http};

const TRACE: &str = "000102030405060708090a0b0c0d0e0f";

async fn post(instance: &Instance, path: &str, body: &Value) {
    let sent = http().post(instance.url(path)).json(body).send().await;
    let response = sent.unwrap();
    assert_eq!(response.status(), 200, "{}", response.text().await.unwrap());
}

async fn get(instance: &Instance, path: &str) -> String {
    let response = http().get(instance.url(path)).send().await.unwrap();
    assert_eq!(response.status(), 200, "{path}");
    response.text().await.unwrap()
}

/// Spans in small batches: their history grows, so that they share pieces; and native events that say no time, so that their arrival is theirs.
async fn fill(instance: &Instance, batches: u64) {
    let mut history = String::new();
    for n in 1..=batches {
        history += &format!("turn {n}: what was said in it, and more of it. ").repeat(8);
        let span = json!({
            "traceId": TRACE, "spanId": format!("{:016x}", n + 1), "parentSpanId": "0000000000000001", "name": format!("chat {n}"),
            "startTimeUnixNano": format!("{}", 1_800_000_000_000_000_000 + n), "endTimeUnixNano": format!("{}", 1_800_000_001_000_000_000 + n),
            "attributes": [
                {"key": "gen_ai.operation.name", "value": {"stringValue": "chat"}},
                {"key": "gen_ai.input.messages", "value": {"stringValue": json!([{"role": "user", "parts": [{"type": "text", "content": history}]}]).to_string()}},
            ],
        });
        let body = json!({"resourceSpans": [{"resource": {"attributes": []}, "scopeSpans": [{"spans": [span]}]}]});
        post(instance, "/v1/traces", &body).await;
        let events = json!([{"event_type": "step", "n": n}, {"event_type": "step", "n": n + 1}]);
        post(instance, &format!("/traces/{TRACE}/events"), &events).await;
    }
    let end = json!([{"event_type": "workflow_completed"}]);
    post(instance, &format!("/traces/{TRACE}/events"), &end).await;
}

/// Everything that is read of the trace.
async fn reads(instance: &Instance) -> Vec<String> {
    let mut told = Vec::new();
    for rest in [
        "",
        "/summary",
        "/invocations",
        "/events?level=debug&limit=1000",
    ] {
        told.push(get(instance, &format!("/traces/{TRACE}{rest}")).await);
    }
    told
}

async fn frames(instance: &Instance, cursor: Option<&str>) -> Vec<Frame> {
    let url = instance.url(&format!("/traces/{TRACE}/stream?level=debug"));
    Viewer::open(&url, cursor)
        .await
        .unwrap()
        .rest()
        .await
        .unwrap()
}

async fn compact(instance: &Instance) -> Compacted {
    let (tenant, trace) = (TenantId::default(), TraceId::parse(TRACE).unwrap());
    let log = &instance.app.log;
    let state = log.state(&tenant, &trace).await.unwrap().expect("a trace");
    log.compact(&tenant, &trace, &state).await.unwrap()
}

#[tokio::test]
async fn a_joined_log_reads_as_it_was_written() {
    joined(Store::node().await).await;
}

#[tokio::test]
async fn a_joined_log_reads_as_it_was_written_on_a_cluster() {
    joined(Store::cluster().await).await;
}

async fn joined(redis: Store) {
    let instance = Instance::start(&redis.url()).await;
    let other = Instance::start(&redis.url()).await;
    fill(&instance, 30).await;
    // The first viewer's wait settles the run.
    let before = frames(&instance, None).await;
    let told = reads(&instance).await;
    let Compacted::Joined { from, to } = compact(&instance).await else {
        panic!("it was worth joining")
    };
    assert!(from == 61 && to < 10, "{from} entries became {to}");
    for instance in [&instance, &other] {
        assert_eq!(reads(instance).await, told);
        assert_eq!(frames(instance, None).await, before);
    }
    // From every place at which a viewer may have been cut.
    let events = before.len() - 1;
    for (at, frame) in before.iter().take(events - 1).enumerate() {
        let rest = frames(&other, frame.id.as_deref()).await;
        assert_eq!(rest, before[at + 1..], "from {:?}", frame.id);
    }
    // Another log's mark is another log's.
    let (seq, mark) = before[40].id.as_deref().unwrap().split_once('-').unwrap();
    let wrong = format!("{seq}-{}", mark.parse::<u32>().unwrap() ^ 1);
    let rest = frames(&other, Some(&wrong)).await;
    assert_eq!(
        (rest[0].name.as_str(), &rest[0].json()["reason"]),
        ("gap", &"replaced".into())
    );

    // Again does nothing, and what comes later is appended and known as ever.
    assert_eq!(compact(&instance).await, Compacted::Left);
    let late = json!([{"event_type": "step", "event_id": "late"}]);
    for duplicates in [0, 1] {
        let sent = http()
            .post(instance.url(&format!("/traces/{TRACE}/events")))
            .json(&late)
            .send()
            .await
            .unwrap();
        let answer: Value = sent.json().await.unwrap();
        assert_eq!(answer["duplicates"], duplicates);
    }
    let page: Value = serde_json::from_str(
        &get(
            &instance,
            &format!("/traces/{TRACE}/events?limit=1000&level=debug"),
        )
        .await,
    )
    .unwrap();
    assert_eq!(page["events"].as_array().unwrap().len(), events + 1);
}

#[tokio::test]
async fn a_log_that_moves_meanwhile_is_left_alone() {
    let redis = Store::node().await;
    let instance = Instance::start(&redis.url()).await;
    fill(&instance, 10).await;
    let (tenant, trace) = (TenantId::default(), TraceId::parse(TRACE).unwrap());
    let log = &instance.app.log;
    let state = log.state(&tenant, &trace).await.unwrap().expect("a trace");
    let more = json!([{"event_type": "step"}]);
    post(&instance, &format!("/traces/{TRACE}/events"), &more).await;
    let seen = log.compact(&tenant, &trace, &state).await.unwrap();
    assert_eq!(seen, Compacted::Moved);
    let page: Value = serde_json::from_str(
        &get(
            &instance,
            &format!("/traces/{TRACE}/events?limit=1000&level=debug"),
        )
        .await,
    )
    .unwrap();
    assert_eq!(page["events"].as_array().unwrap().len(), 32);
    // Nothing of the attempt is left.
    assert!(!redis.cli(&["KEYS", "*"]).await.contains("made"));
}

#[tokio::test]
async fn a_while_after_its_end_a_log_is_joined() {
    let redis = Store::node().await;
    let mut config = config(&redis.url());
    config.compact_after_ms = 0;
    let instance = Instance::with(config).await;
    let worker = tokio::spawn(tailspan_worker::run(instance.app.clone(), |_| {}));
    fill(&instance, 10).await;
    let key = format!("{{default/{TRACE}}}:events");
    let joined = async {
        while redis.cli(&["XLEN", &key]).await.trim() == "21" {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), joined)
        .await
        .expect("joined");
    assert_eq!(frames(&instance, None).await.len(), 32);
    worker.abort();
}
