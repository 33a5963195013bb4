//! The trace service of seed 001 as its clients know it: its routes, its envelope, its names, under true statuses.

use serde_json::{Value, json};

use crate::support::{Instance, RedisServer, Viewer, http};

async fn ask(instance: &Instance, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
    let mut request = http().request(
        method.parse().unwrap(),
        instance.url(&format!("/v1/trace{path}")),
    );
    if let Some(body) = body {
        request = request.json(&body);
    }
    let response = request.send().await.unwrap();
    let status = response.status().as_u16();
    (status, response.json().await.expect("JSON"))
}

async fn get(instance: &Instance, path: &str) -> Value {
    let (status, told) = ask(instance, "GET", path, None).await;
    assert_eq!((status, &told["code"]), (200, &json!(0)), "{path}: {told}");
    assert_eq!(told["message"], "success");
    told["data"].clone()
}

async fn run(instance: &Instance, trace: &str, agent: &str) {
    let events = json!([
        {"event_type": "workflow_started", "agent_id": agent, "session_id": "s", "user_id": "u", "inputs": {"question": "Q"}},
        {"event_type": "node_started", "span_id": "n", "component_name": "Plan", "component_type": "Agent"},
        {"event_type": "tool_call_completed", "call_id": "t", "tool_name": "calc", "arguments": {"x": 1}, "result": 2},
        {"event_type": "node_finished", "span_id": "n", "component_name": "Plan", "elapsed_time": 0.5, "outputs": {"o": 1}},
        {"event_type": "workflow_completed", "agent_id": agent, "outputs": {"answer": "A"}},
    ]);
    let response = http()
        .post(instance.url(&format!("/traces/{trace}/events")))
        .json(&events)
        .send()
        .await
        .unwrap();
    assert_eq!(response.status(), 200);
    // Until it is settled: the stream ends.
    let path = format!("/v1/trace/traces/{trace}/stream");
    let mut viewer = Viewer::open(&instance.url(&path), None).await.unwrap();
    let frames = viewer.rest().await.unwrap();
    assert_eq!(frames.last().unwrap().data, "[DONE]");
    assert_eq!(frames[0].json()["event"], "trace");
    assert_eq!(frames[0].json()["data"]["event_type"], "workflow_started");
}

#[tokio::test]
async fn its_routes_answer_in_its_envelope() {
    let redis = RedisServer::start().await;
    let instance = Instance::start(&redis.url()).await;
    let worker = tokio::spawn(tailspan_worker::run(instance.app.clone(), |_| {}));
    for n in 0..3 {
        run(
            &instance,
            &format!("task-{n}"),
            if n == 0 { "first" } else { "other" },
        )
        .await;
    }

    let list = get(&instance, "/traces?page=1&page_size=2").await;
    assert_eq!(
        (&list["total"], &list["page"], &list["page_size"]),
        (&json!(3), &json!(1), &json!(2))
    );
    let sessions = list["sessions"].as_array().unwrap();
    assert_eq!(sessions.len(), 2);
    assert_eq!(sessions[0]["task_id"], "task-2");
    for key in [
        "agent_id",
        "session_id",
        "user_id",
        "tenant_id",
        "created_at",
        "status",
    ] {
        assert!(sessions[0].get(key).is_some(), "{key}");
    }
    let of_agent = get(&instance, "/agents/first/traces").await;
    assert_eq!(of_agent["total"], 1);
    assert_eq!(of_agent["sessions"][0]["task_id"], "task-0");
    assert_eq!(
        get(&instance, "/traces?status=completed&user_id=u").await["total"],
        3
    );

    let trace = get(&instance, "/traces/task-1?level=debug").await;
    assert_eq!(
        (&trace["task_id"], &trace["status"]),
        (&json!("task-1"), &json!("completed"))
    );
    assert_eq!(trace["events"].as_array().unwrap().len(), 5);
    assert_eq!(trace["events"][0]["inputs"], json!({"question": "Q"}));
    assert_eq!(
        get(&instance, "/traces/task-1?format=compact").await["tool_calls"],
        1
    );

    let events = get(&instance, "/traces/task-1/events?limit=2&offset=1").await;
    assert_eq!((&events["count"], &events["total"]), (&json!(2), &json!(5)));
    assert_eq!(events["events"][0]["event_type"], "node_started");
    let events = get(
        &instance,
        "/traces/task-1/events?event_types=node_started,node_finished",
    )
    .await;
    assert_eq!(events["total"], 2);
    assert_eq!(
        get(&instance, "/traces/task-1/events?component_id=n").await["total"],
        2
    );

    let summary = get(&instance, "/traces/task-1/summary").await;
    for key in [
        "total_events",
        "total_llm_calls",
        "total_retrievals",
        "total_tool_calls",
        "total_tokens",
        "total_chunks_retrieved",
        "nodes_executed",
        "errors_count",
    ] {
        assert!(summary[key].is_u64(), "{key}: {summary}");
    }
    let analysis = get(&instance, "/traces/task-1/analysis").await;
    for key in [
        "task_id",
        "total_events",
        "event_distribution",
        "component_execution_times",
        "bottlenecks",
        "errors",
        "recommendations",
    ] {
        assert!(analysis.get(key).is_some(), "{key}: {analysis}");
    }
    assert_eq!(analysis["event_distribution"]["node_started"], 1);

    let (status, told) = ask(&instance, "DELETE", "/traces/task-1", None).await;
    assert_eq!((status, &told["data"]["task_id"]), (200, &json!("task-1")));
    let (status, told) = ask(
        &instance,
        "POST",
        "/traces/cleanup",
        Some(json!({"days": 7})),
    )
    .await;
    assert_eq!(
        (status, &told["data"]["deleted"]),
        (200, &json!(0)),
        "{told}"
    );

    for (method, path, body, status, code) in [
        ("GET", "/traces/task-1", None, 404, 102),
        ("GET", "/traces/task-1/events", None, 404, 102),
        ("GET", "/traces/task-1/summary", None, 404, 102),
        ("GET", "/traces/task-1/analysis", None, 404, 102),
        ("GET", "/traces/task-1/stream", None, 404, 102),
        ("DELETE", "/traces/task-1", None, 404, 102),
        ("GET", "/traces/a%2Fb", None, 400, 101),
        ("GET", "/traces?page=abc", None, 400, 101),
        ("GET", "/traces/task-0?format=long", None, 400, 101),
        ("GET", "/traces/task-0/events?offset=-1", None, 400, 101),
        (
            "POST",
            "/traces/cleanup",
            Some(json!({"days": 0})),
            400,
            101,
        ),
        (
            "POST",
            "/agents/nobody/completions/trace",
            Some(json!({"question": "Q"})),
            404,
            102,
        ),
    ] {
        let (seen, told) = ask(&instance, method, path, body).await;
        assert_eq!(
            (seen, &told["code"]),
            (status, &json!(code)),
            "{method} {path}: {told}"
        );
        assert!(!told["message"].as_str().unwrap().is_empty());
        assert_eq!(told["data"], Value::Null);
    }
    worker.abort();
}
