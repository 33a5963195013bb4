//! A viewer can tell that it has every event once and in order: its own count and digest are the server's, on any instance.

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::support::{Instance, RedisServer, Viewer, http};

const TRACE: &str = "run-1";

async fn send(instance: &Instance, from: u64, count: u64) {
    let event = |n: u64| match n % 3 {
        0 => {
            json!({"event_type": "llm_call_completed", "model": "m", "output": format!("word ü {n}")})
        }
        1 => json!({"event_type": "agent_called", "agent_id": format!("a{n}")}),
        _ => json!({"event_type": "odd", "details": {"line": "a\nb"}}),
    };
    let events: Vec<Value> = (from..from + count).map(event).collect();
    let url = instance.url(&format!("/traces/{TRACE}/events"));
    let sent = http().post(url).json(&events).send().await;
    assert_eq!(sent.expect("answered").status(), 200);
}

/// What a viewer of a stream would say that it has: the number of the last event, the count, the digest.
async fn received(instance: &Instance, query: &str) -> (u64, u64, String) {
    let url = instance.url(&format!("/traces/{TRACE}/stream?{query}"));
    let mut viewer = Viewer::open(&url, None).await.expect("a stream");
    let (mut last, mut count, mut hash) = (0, 0, Sha256::new());
    while let Some(frame) = viewer.next().await.expect("a frame") {
        if !frame.name.is_empty() && frame.name != "message" {
            continue;
        }
        let id = frame.id.expect("an id");
        last = id
            .split('-')
            .next()
            .and_then(|seq| seq.parse().ok())
            .expect("a number");
        count += 1;
        hash.update(frame.data.as_bytes());
        hash.update(b"\n");
    }
    (last, count, format!("{:x}", hash.finalize()))
}

async fn told(instance: &Instance, query: &str) -> Value {
    let url = instance.url(&format!("/traces/{TRACE}/digest?{query}"));
    let answer = http().get(url).send().await.expect("answered");
    assert_eq!(answer.status(), 200);
    answer.json().await.expect("json")
}

#[tokio::test]
async fn what_a_viewer_received_is_what_any_instance_says_there_is() {
    let redis = RedisServer::start().await;
    let (one, other) = (
        Instance::start(&redis.url()).await,
        Instance::start(&redis.url()).await,
    );
    send(&one, 0, 700).await;
    send(&other, 700, 41).await;
    let end = json!([{"event_type": "workflow_completed"}]);
    let url = one.url(&format!("/traces/{TRACE}/events"));
    http().post(url).json(&end).send().await.expect("answered");

    for (query, count) in [
        ("level=detailed", 742),
        ("level=standard&event_types=*", 742),
        ("event_types=llm_call_completed", 247),
        ("format=compact&event_types=*", 742),
    ] {
        let (last, seen, sha256) = received(&one, query).await;
        assert_eq!(seen, count, "{query}");
        let told = told(&other, &format!("{query}&through={last}")).await;
        let expected = json!({"trace_id": TRACE, "through": last, "events": seen, "left_out": 0, "sha256": sha256});
        assert_eq!(told, expected, "{query}");
    }
}

#[tokio::test]
async fn it_counts_up_to_where_the_viewer_is_and_tells_another_log_apart() {
    let redis = RedisServer::start().await;
    let instance = Instance::start(&redis.url()).await;
    send(&instance, 0, 9).await;
    let nine = told(&instance, "level=detailed").await;
    send(&instance, 9, 3).await;
    assert_eq!(told(&instance, "level=detailed&through=9").await, nine);
    let all = told(&instance, "level=detailed&through=1000").await;
    assert_eq!(
        (&all["through"], &all["events"]),
        (&json!(12), &json!(12)),
        "{all}"
    );

    let url = instance.url(&format!("/traces/{TRACE}/events?replace=true"));
    let anew = json!([{"event_type": "agent_called", "agent_id": "new"}]);
    http().post(url).json(&anew).send().await.expect("answered");
    let replaced = told(&instance, "level=detailed").await;
    assert_eq!(replaced["events"], json!(1));
    assert_ne!(replaced["sha256"], nine["sha256"]);
}
