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
            "attributes": [text("gen_ai.operation.name", "chat"), text("marker", secret),
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

async fn import(instance: &Instance, query: &str, file: impl Into<reqwest::Body>) -> (u16, Value) {
    let url = instance.url(&format!("/traces/import{query}"));
    let response = http().post(url).body(file).send().await.unwrap();
    (response.status().as_u16(), response.json().await.unwrap())
}

#[tokio::test]
async fn a_posted_file_is_stored_as_its_traces() {
    let redis = RedisServer::start().await;
    let instance = start(&redis).await;
    let span = |trace: &str, id: &str| {
        json!({"traceId": trace, "spanId": id, "name": "chat m",
            "startTimeUnixNano": "1800000000000000001", "endTimeUnixNano": "1800000000500000002"})
    };
    let native = json!({"trace_id": "native-run", "event_type": "task_started", "name": "n"});
    let other = "00000000000000000000000000000abc";
    let mut lines: Vec<Value> = (1..=4500)
        .map(|n| span(TRACE, &format!("{n:016x}")))
        .collect();
    lines.extend([span("abc", "0000000000000001"), native]);
    let lines: Vec<String> = lines.iter().map(Value::to_string).collect();
    let lines = lines.join("\n");

    let (status, told) = import(&instance, "", lines.clone()).await;
    assert_eq!(status, 200, "{told}");
    let of = |told: &Value, at: usize| {
        let trace = &told["traces"][at];
        let number = |key: &str| trace[key].as_u64().unwrap();
        let id = trace["trace_id"].as_str().unwrap().to_owned();
        (id, number("accepted"), number("duplicates"))
    };
    assert_eq!(of(&told, 0), (TRACE.to_owned(), 4500, 0));
    assert_eq!(of(&told, 1), (other.to_owned(), 1, 0));
    assert_eq!(told["traces"][1]["spelled"], "abc");
    assert_eq!(of(&told, 2), ("native-run".to_owned(), 1, 0));
    let (_, page) = get(&instance, &format!("/traces/{TRACE}/events?limit=1")).await;
    assert!(page.contains("\"total\":4500"), "{page}");
    // A stream goes on after it.
    let cursor = told["traces"][0]["cursor"].as_str().unwrap();
    assert!(cursor.starts_with("4500-"), "{cursor}");

    // Again: nothing is added, whichever way it comes.
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut packed, lines.as_bytes()).unwrap();
    let (_, told) = import(&instance, "", packed.finish().unwrap()).await;
    assert_eq!(of(&told, 0), (TRACE.to_owned(), 4500, 4500));
    assert_eq!(of(&told, 2), ("native-run".to_owned(), 1, 1));
    let (code, _, _) = tailspan(&instance, &["import", "-"], lines.as_bytes()).await;
    assert_eq!(code, Some(0));
    let (_, page) = get(&instance, "/traces/native-run/events").await;
    assert!(page.contains("\"total\":1"), "{page}");

    // What was deleted stays so, unless it is to begin anew.
    let deleted = http().delete(instance.url(&format!("/traces/{other}?force=true")));
    assert_eq!(deleted.send().await.unwrap().status(), 204);
    let (status, told) = import(&instance, "", span("abc", "01").to_string()).await;
    assert_eq!((status, &told["traces"][0]["deleted"]), (200, &json!(true)));
    assert_eq!(of(&told, 0), (other.to_owned(), 0, 0));
    let (_, told) = import(&instance, "?replace=true", span("abc", "01").to_string()).await;
    assert_eq!(of(&told, 0), (other.to_owned(), 1, 0));
    assert_eq!(get(&instance, &format!("/traces/{other}")).await.0, 200);
}

#[tokio::test]
async fn a_posted_file_that_cannot_be_read_says_where_and_stores_nothing() {
    let redis = RedisServer::start().await;
    let instance = start(&redis).await;
    let good = json!({"traceId": TRACE, "spanId": "0000000000000001", "name": "n", "startTimeUnixNano": "1"});
    let (status, told) = import(&instance, "", format!("{good}\n{{\"traceId\": oops}}\n")).await;
    assert_eq!(status, 400);
    assert_eq!(told["error"]["code"], "invalid_file");
    assert_eq!(told["error"]["line"], 2, "{told}");
    assert!(told["error"]["column"].is_u64(), "{told}");
    assert_eq!(get(&instance, &format!("/traces/{TRACE}")).await.0, 404);

    for (query, file, code) in [
        ("", "", "invalid_file"),
        ("", "a,b\n1,2", "invalid_file"),
        ("", "{\"resourceSpans\": []}", "invalid_file"),
        (
            "?format=jaeger-json",
            "{\"resourceSpans\": []}",
            "invalid_file",
        ),
        ("?format=csv", "{}", "invalid_parameter"),
    ] {
        let (status, told) = import(&instance, query, file).await;
        assert_eq!(
            (status, told["error"]["code"].as_str()),
            (400, Some(code)),
            "{query} {file}"
        );
    }
    let large = vec![b' '; (64 << 20) + 1];
    assert_eq!(import(&instance, "", large).await.0, 413);
}
