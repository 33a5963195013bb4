//! Trace files: what is exported and imported again is the same trace, at every server, and what is broken is told.

use std::{collections::BTreeSet, process::Stdio};

use serde_json::{Value, json};
use tokio::{io::AsyncWriteExt as _, process::Command};

use crate::{
    embedded::program,
    support::{Instance, RedisServer, http},
};

const TRACE: &str = "5b8efff798038103d269b633813fc60c";

async fn post(instance: &Instance, path: &str, body: &Value) {
    let sent = http().post(instance.url(path)).json(body).send().await;
    let response = sent.unwrap();
    assert_eq!(response.status(), 200, "{}", response.text().await.unwrap());
}

async fn get(instance: &Instance, path: &str) -> (u16, String) {
    let response = http().get(instance.url(path)).send().await.unwrap();
    (response.status().as_u16(), response.text().await.unwrap())
}

async fn tailspan(
    instance: &Instance,
    words: &[&str],
    input: &[u8],
) -> (Option<i32>, String, String) {
    let mut child = Command::new(program())
        .args(words)
        .env("TAILSPAN_URL", instance.url(""))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(input).await.unwrap();
    drop(stdin);
    let output = child.wait_with_output().await.unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (
        output.status.code(),
        text(output.stdout),
        text(output.stderr),
    )
}

/// All events of the trace, whole, without what the log numbers.
async fn events(instance: &Instance) -> BTreeSet<String> {
    let path = format!("/traces/{TRACE}/events?level=debug&limit=1000");
    let (_, page) = get(instance, &path).await;
    let page: Value = serde_json::from_str(&page).unwrap();
    let events = page["events"].as_array().unwrap().iter();
    events
        .map(|event| {
            let mut event = event.clone();
            event.as_object_mut().unwrap().remove("seq");
            event.to_string()
        })
        .collect()
}

async fn start(redis: &RedisServer) -> Instance {
    Instance::start(&redis.url()).await
}

#[tokio::test]
async fn an_exported_trace_is_the_same_where_it_is_imported() {
    let text = |key: &str, value: &str| json!({"key": key, "value": {"stringValue": value}});
    let span = |id: &str, parent: &str, secret: &str| {
        json!({"traceId": TRACE, "spanId": id, "parentSpanId": parent, "name": "chat m", "kind": 3,
            "startTimeUnixNano": "1800000000000000001", "endTimeUnixNano": "1800000000500000002",
            "attributes": [text("gen_ai.operation.name", "chat"), text("secret", secret),
                {"key": "n", "value": {"arrayValue": {"values": [{"intValue": "9007199254740993"}, {"doubleValue": 0.1}, {"bytesValue": "AQI="}]}}}]})
    };
    let long = "what was said, at length ".repeat(400);
    let redis = RedisServer::start().await;
    let instance = start(&redis).await;
    let spans: Vec<Value> = (1..=150)
        .map(|n| span(&format!("{n:016x}"), "00000000000000ff", &long))
        .collect();
    post(&instance, "/v1/traces", &json!({"resourceSpans": [
        {"resource": {"attributes": [text("service.name", "a")]}, "scopeSpans": [{"scope": {"name": "s", "version": "1"}, "spans": spans}]},
        {"resource": {"attributes": [text("service.name", "b")]}, "scopeSpans": [{"spans": [span("00000000000000ff", "", "x")]}]}]})).await;
    post(&instance, "/v1/logs", &json!({"resourceLogs": [{"scopeLogs": [{"logRecords": [
        {"traceId": TRACE, "spanId": "00000000000000ff", "timeUnixNano": "1800000000000000009", "eventName": "gen_ai.choice", "body": {"stringValue": "hi"}}]}]}]})).await;
    let native = json!({"event_type": "step", "event_id": "e1", "timestamp": 1_800_000_000_100u64, "name": "n"});
    post(&instance, &format!("/traces/{TRACE}/events"), &native).await;
    let before = events(&instance).await;
    assert_eq!(before.len(), 153);

    for form in ["otlp", "jsonl"] {
        let (code, file, error) =
            tailspan(&instance, &["export", TRACE, "--format", form], b"").await;
        assert_eq!((code, error.as_str()), (Some(0), ""));
        // Again into the same server: nothing is added.
        let (code, told, _) = tailspan(&instance, &["import", "-"], file.as_bytes()).await;
        assert_eq!(
            (code, told),
            (Some(0), format!("{TRACE}  153 events  stdin\n"))
        );
        assert_eq!(
            get(&instance, &format!("/traces/{TRACE}/events?limit=1"))
                .await
                .1
                .matches("\"total\":153")
                .count(),
            1
        );
        // And into another.
        let elsewhere = RedisServer::start().await;
        let other = start(&elsewhere).await;
        let (code, _, error) = tailspan(&other, &["import", "-"], file.as_bytes()).await;
        assert_eq!((code, error.as_str()), (Some(0), ""));
        assert_eq!(events(&other).await, before);
    }

    let (_, jaeger, _) = tailspan(&instance, &["export", TRACE, "--format", "jaeger"], b"").await;
    let jaeger: Value = serde_json::from_str(&jaeger).unwrap();
    assert_eq!(jaeger["data"][0]["spans"].as_array().unwrap().len(), 151);
    assert_eq!(jaeger["data"][0]["processes"].as_object().unwrap().len(), 2);
    // A lower level tells nothing of what was said.
    let (_, lowered) = get(
        &instance,
        &format!("/traces/{TRACE}/export?level=standard&format=jsonl"),
    )
    .await;
    assert!(lowered.contains("chat m") && !lowered.contains("what was said"));
}

#[tokio::test]
async fn what_cannot_be_exported_or_imported_is_told() {
    let redis = RedisServer::start().await;
    let instance = start(&redis).await;
    let (code, out, error) = tailspan(&instance, &["export", "nosuch"], b"").await;
    assert_eq!((code, out.as_str()), (Some(2), ""));
    assert!(error.contains("no trace"), "{error}");
    assert_eq!(get(&instance, "/traces/nosuch/export").await.0, 404);
    assert_eq!(
        get(&instance, "/traces/nosuch/export?format=pdf").await.0,
        400
    );
    assert_eq!(
        get(&instance, "/traces/nosuch/export?level=loud").await.0,
        400
    );
    let (code, _, error) = tailspan(&instance, &["import", "-"], b"{\"resourceSpans\": [\n]").await;
    assert_eq!(code, Some(1));
    assert!(error.contains("stdin: line 2"), "{error}");
}
