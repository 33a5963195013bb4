//! `GET /traces/{trace_id}/spans/{span_id}/why`: which rule read a span, from what.

use serde_json::{Value, json};

use crate::support::{Instance, RedisServer, http};

const TRACE: &str = "5b8efff798038103d269b633813fc60c";

async fn post(instance: &Instance, path: &str, body: &Value) {
    let sent = http().post(instance.url(path)).json(body).send().await;
    let response = sent.unwrap();
    assert_eq!(response.status(), 200, "{}", response.text().await.unwrap());
}

async fn ask(instance: &Instance, path: &str) -> (u16, Value) {
    let response = http().get(instance.url(path)).send().await.unwrap();
    let status = response.status().as_u16();
    (status, response.json().await.unwrap())
}

fn span(ended: bool) -> Value {
    let text = |key: &str, value: &str| json!({"key": key, "value": {"stringValue": value}});
    let mut span = json!({
        "traceId": TRACE, "spanId": "eee19b7ec3c1b174", "name": "chat a-model", "startTimeUnixNano": "1800000000000000000",
        "attributes": [text("gen_ai.operation.name", "chat"), text("gen_ai.request.model", "a-model"), text("session.id", "s1"),
            text("gen_ai.input.messages", r#"[{"role":"user","content":"hello"}]"#), text("colour", "red")],
    });
    if ended {
        span["endTimeUnixNano"] = json!("1800000001000000000");
        span["status"] = json!({"code": 2, "message": "too long"});
        let count = json!({"key": "gen_ai.usage.input_tokens", "value": {"intValue": "12"}});
        span["attributes"].as_array_mut().unwrap().push(count);
    }
    json!({"resourceSpans": [{
        "resource": {"attributes": [text("service.name", "writer")]},
        "scopeSpans": [{"scope": {"name": "a-scope", "version": "1.2"}, "spans": [span]}],
    }]})
}

#[tokio::test]
async fn a_span_is_explained_by_what_told_each_fact() {
    let redis = RedisServer::start().await;
    let instance = Instance::start(&redis.url()).await;
    post(&instance, "/v1/traces", &span(false)).await;
    post(&instance, "/v1/traces", &span(true)).await;
    let record = json!({"resourceLogs": [{"scopeLogs": [{"logRecords": [{
        "traceId": TRACE, "spanId": "eee19b7ec3c1b174", "timeUnixNano": "1800000000500000000", "eventName": "gen_ai.choice",
        "body": {"kvlistValue": {"values": [{"key": "content", "value": {"stringValue": "hi"}}]}},
    }]}]}]});
    post(&instance, "/v1/logs", &record).await;
    let events = format!("/traces/{TRACE}/events");
    let step = json!({"event_type": "step", "span_id": "my step"});
    post(&instance, &events, &step).await;

    // The forms of one id are one.
    let (status, why) = ask(
        &instance,
        &format!("/traces/{TRACE}/spans/EEE19B7EC3C1B174/why"),
    )
    .await;
    assert_eq!(status, 200, "{why}");
    assert_eq!(why["rule"]["name"], "gen_ai:operation.name");
    assert_eq!(why["rule"]["reference"], "4.1 step 3, 4.2");
    let passed_over = why["passed_over"].as_array().unwrap();
    assert!(
        passed_over.contains(&json!("openinference:span.kind"))
            && !passed_over.contains(&json!("gen_ai:operation.name"))
    );
    let told = &why["read_from"];
    for (fact, keys) in [
        ("kind", json!(["gen_ai.operation.name"])),
        ("request_model", json!(["gen_ai.request.model"])),
        ("sessions", json!(["session.id"])),
        ("input_tokens", json!(["gen_ai.usage.input_tokens"])),
        ("input_messages", json!(["gen_ai.input.messages"])),
        ("failure", json!(["(status)"])),
        ("service", json!(["resource.service.name"])),
    ] {
        assert_eq!(told[fact], keys, "{fact}");
    }
    assert_eq!(told.get("agent"), None);
    assert_eq!(why["event"]["status"], "error");
    let observations = why["observations"].as_array().unwrap();
    let told: Vec<_> = observations
        .iter()
        .map(|one| {
            (
                one["seq"].as_u64().unwrap(),
                one["status"].as_str().unwrap(),
                one["holds"].as_bool().unwrap(),
            )
        })
        .collect();
    assert_eq!(told, [(1, "running", false), (2, "error", true)]);
    assert_eq!(observations[1]["attributes"]["colour"], "red");
    assert_eq!(observations[1]["scope"]["name"], "a-scope");
    let record = json!([{"seq": 3, "event_type": "gen_ai.choice", "rule": "gen_ai:message.event", "has_content": true}]);
    assert_eq!(why["log_records"], record);

    let (_, short) = ask(
        &instance,
        &format!("/traces/{TRACE}/spans/eee19b7ec3c1b174/why?attributes=false"),
    )
    .await;
    assert_eq!(short["observations"][0].get("attributes"), None);
    let (status, native) = ask(&instance, &format!("/traces/{TRACE}/spans/my%20step/why")).await;
    assert_eq!(
        (status, &native["native_events"][0]["event_type"]),
        (200, &json!("step"))
    );
    assert_eq!(native["rule"], json!({"name": "native:event"}));
}

/// Also those that never came: parents that are only named, calls that only log records know, native events by whichever id.
#[tokio::test]
async fn every_span_of_a_tree_is_explained_by_the_rule_that_its_row_names() {
    let redis = RedisServer::start().await;
    let instance = Instance::start(&redis.url()).await;
    let mut child = span(true);
    child["resourceSpans"][0]["scopeSpans"][0]["spans"][0]["parentSpanId"] =
        json!("00000000000000aa");
    post(&instance, "/v1/traces", &child).await;
    let record = json!({"resourceLogs": [{"scopeLogs": [{"logRecords": [{
        "traceId": TRACE, "spanId": "00000000000000bb", "timeUnixNano": "1800000000500000000", "eventName": "gen_ai.choice",
        "body": {"kvlistValue": {"values": [{"key": "content", "value": {"stringValue": "hi"}}]}},
    }]}]}]});
    post(&instance, "/v1/logs", &record).await;
    let events = json!([
        {"event_type": "step"},
        {"event_type": "step", "span_id": "A \"b\" / ü"},
        {"event_type": "llm_call_started", "call_id": "call 1"},
        {"event_type": "llm_call_completed", "call_id": "call 1"},
        {"event_type": "tool_call_started", "name": "t"},
        {"event_type": "tool_call_completed", "name": "t"},
    ]);
    post(&instance, &format!("/traces/{TRACE}/events"), &events).await;
    let (_, trace) = ask(&instance, &format!("/traces/{TRACE}")).await;
    let mut rules = Vec::new();
    for row in trace["spans"].as_array().unwrap() {
        let id: String = row["span_id"]
            .as_str()
            .unwrap()
            .bytes()
            .map(|byte| format!("%{byte:02x}"))
            .collect();
        let (status, why) = ask(&instance, &format!("/traces/{TRACE}/spans/{id}/why")).await;
        assert_eq!(status, 200, "{row}: {why}");
        assert_eq!(
            (&why["row"], &why["rule"]["name"], &why["span_id"]),
            (row, &row["convention"], &row["span_id"])
        );
        let told = ["observations", "log_records", "native_events", "told_by"];
        let told = told.iter().filter_map(|list| why[list].as_array());
        assert!(
            told.flatten().next().is_some(),
            "nothing tells of {row}: {why}"
        );
        rules.push(why["rule"]["name"].as_str().unwrap().to_owned());
    }
    rules.sort();
    let expected = [
        "gen_ai:operation.name",
        "logs:orphaned",
        "native:event",
        "native:event",
        "native:llm",
        "native:tool",
        "parent:named",
    ];
    assert_eq!(rules, expected);
    let (_, ghost) = ask(
        &instance,
        &format!("/traces/{TRACE}/spans/00000000000000AA/why"),
    )
    .await;
    assert_eq!(ghost["told_by"], json!(["eee19b7ec3c1b174"]));
}

#[tokio::test]
async fn what_cannot_be_explained_is_told_apart() {
    let redis = RedisServer::start().await;
    let instance = Instance::start(&redis.url()).await;
    post(&instance, "/v1/traces", &span(true)).await;
    for (path, status, code) in [
        (
            format!("/traces/{TRACE}/spans/0000000000000001/why"),
            404,
            "span_not_found",
        ),
        (
            "/traces/unknown/spans/0000000000000001/why".to_owned(),
            404,
            "trace_not_found",
        ),
        (
            "/traces/a%20b/spans/0000000000000001/why".to_owned(),
            400,
            "invalid_trace_id",
        ),
        (
            format!("/traces/{TRACE}/spans/%00/why"),
            400,
            "invalid_span_id",
        ),
        (
            format!("/traces/{TRACE}/spans/%ff/why"),
            400,
            "invalid_span_id",
        ),
        (
            format!("/traces/{TRACE}/spans/{}/why", "x".repeat(129)),
            400,
            "invalid_span_id",
        ),
        (
            format!("/traces/{TRACE}/spans/eee19b7ec3c1b174/why?attributes=perhaps"),
            400,
            "invalid_parameter",
        ),
        (
            format!("/traces/{TRACE}/spans/eee19b7ec3c1b174"),
            404,
            "route_not_found",
        ),
    ] {
        let (told, answer) = ask(&instance, &path).await;
        assert_eq!(
            (told, &answer["error"]["code"]),
            (status, &json!(code)),
            "{path}: {answer}"
        );
    }
}
