//! Many traces as one stream: every event of every trace once, in the trace's order, wherever the viewer comes back.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::support::{Frame, Instance, Store, Viewer, http};

async fn post(instance: &Instance, trace: &str, lines: &[String]) {
    let response = http()
        .post(instance.url(&format!("/traces/{trace}/events")))
        .header("content-type", "application/x-ndjson")
        .body(lines.join("\n"))
        .send()
        .await
        .unwrap();
    assert_eq!(response.status(), 200);
}

fn step(session: &str, n: u64) -> String {
    format!(r#"{{"event_type":"step","session_id":"{session}","event_id":"{n}","agent_id":"a"}}"#)
}

/// Of the data frames: which event of which trace, and what happened to traces.
fn told(frame: &Frame) -> Option<(String, u64)> {
    let data: Value = frame.json();
    let seq = data.get("seq")?.as_u64()?;
    Some((data["trace_id"].as_str()?.to_owned(), seq))
}

async fn until_all(viewer: &mut Viewer, seen: &mut Vec<(String, u64)>, count: usize) {
    while seen.len() < count {
        let frame = viewer.soon().await.unwrap().expect("goes on");
        assert_ne!(frame.name, "gap", "{}", frame.data);
        seen.extend(told(&frame));
    }
}

#[track_caller]
fn assert_each_once(seen: &[(String, u64)], expected: &[(&str, u64)]) {
    let mut by_trace: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
    for (trace, seq) in seen {
        by_trace.entry(trace).or_default().push(*seq);
    }
    let expected: BTreeMap<&str, Vec<u64>> = expected
        .iter()
        .map(|(trace, last)| (*trace, (1..=*last).collect()))
        .collect();
    assert_eq!(by_trace, expected);
}

#[tokio::test]
async fn a_conversation_is_one_stream_on_any_instance() {
    conversation(Store::node().await).await;
}

#[tokio::test]
async fn a_conversation_is_one_stream_on_a_cluster() {
    conversation(Store::cluster().await).await;
}

async fn conversation(redis: Store) {
    let one = Instance::start(&redis.url()).await;
    let other = Instance::start(&redis.url()).await;
    let url = one.url("/sessions/talk%20one/stream");
    let absent = Viewer::open(&url, None).await.err().expect("no session");
    assert!(absent.to_string().contains("session_not_found"), "{absent}");

    let patient = format!("{url}?wait=60s");
    let (waiting, ()) = tokio::join!(Viewer::open(&patient, None), async {
        post(
            &other,
            "turn-1",
            &[step("talk one", 1), step("talk one", 2)],
        )
        .await;
    });
    let mut viewer = waiting.expect("the session began");
    let mut seen = Vec::new();
    until_all(&mut viewer, &mut seen, 2).await;
    // Two turns at once, and one of another conversation.
    for n in 0..20 {
        post(&one, "turn-2", &[step("talk one", n)]).await;
        post(
            &other,
            "turn-3",
            &[step("talk one", n), step("talk one", n + 100)],
        )
        .await;
        post(&other, "elsewhere", &[step("another talk", n)]).await;
    }
    until_all(&mut viewer, &mut seen, 62).await;
    let expected = [("turn-1", 2), ("turn-2", 20), ("turn-3", 40)];
    assert_each_once(&seen, &expected);

    // From its beginning, cut at every frame and gone on with elsewhere.
    let mut seen = Vec::new();
    let mut cursor: Option<String> = None;
    while seen.len() < 62 {
        let instance = if seen.len() % 2 == 0 { &one } else { &other };
        let url = instance.url("/sessions/talk%20one/stream");
        let mut viewer = Viewer::open(&url, cursor.as_deref()).await.unwrap();
        let frame = viewer.soon().await.unwrap().expect("goes on");
        assert_ne!(frame.name, "gap", "{}", frame.data);
        cursor = frame.id.clone();
        seen.extend(told(&frame));
    }
    assert_each_once(&seen, &expected);

    let gone = Viewer::open(&url, Some("1-0.7")).await.unwrap();
    let mut gone = gone;
    let first = gone.soon().await.unwrap().expect("a frame");
    assert_eq!(
        (first.name.as_str(), &first.json()["reason"]),
        ("gap", &"trimmed".into())
    );
}

#[tokio::test]
async fn a_tenant_sees_traces_begin_move_and_end() {
    let redis = Store::node().await;
    let instance = Instance::start(&redis.url()).await;
    let mut viewer = Viewer::open(&instance.url("/stream"), None).await.unwrap();
    let mut lists = Viewer::open(&instance.url("/stream?view=traces"), None)
        .await
        .unwrap();
    let mut steps = Viewer::open(&instance.url("/stream?event_types=step"), None)
        .await
        .unwrap();
    let worker = tokio::spawn(tailspan_worker::run(instance.app.clone(), |_| {}));
    let end = r#"{"event_type":"workflow_completed"}"#.to_owned();
    post(&instance, "t-1", &[step("s", 1)]).await;
    post(&instance, "t-1", &[step("s", 2), end]).await;
    let of = |frame: &Frame| frame.json()["event_type"].as_str().unwrap().to_owned();
    let mut all = Vec::new();
    while all.last().map(String::as_str) != Some("trace_completed") {
        all.push(of(&viewer.soon().await.unwrap().expect("goes on")));
    }
    assert_eq!(
        all,
        [
            "trace_started",
            "step",
            "trace_updated",
            "step",
            "workflow_completed",
            "trace_completed"
        ]
    );
    for expected in ["trace_started", "trace_updated", "trace_completed"] {
        let frame = lists.soon().await.unwrap().expect("goes on");
        assert_eq!(of(&frame), expected);
        assert_eq!(frame.json()["trace_id"], "t-1");
    }
    for seq in [1, 2] {
        let frame = steps.soon().await.unwrap().expect("goes on");
        assert_eq!(frame.json()["seq"], seq);
    }
    // Nothing was missed by who comes now and wants to know.
    let mut late = Viewer::open(&instance.url("/stream?from=start&view=events"), None)
        .await
        .unwrap();
    for seq in [1, 2, 3] {
        assert_eq!(
            late.soon().await.unwrap().expect("goes on").json()["seq"],
            seq
        );
    }
    worker.abort();
}

#[tokio::test]
async fn who_waits_is_woken_and_leaves_nothing_behind() {
    let redis = Store::node().await;
    let instance = Instance::start(&redis.url()).await;
    let mut viewer = Viewer::open(&instance.url("/stream"), None).await.unwrap();
    for n in 0..50 {
        post(&instance, "t-2", &[step("s", n)]).await;
        let mut seen = Vec::new();
        until_all(&mut viewer, &mut seen, 1).await;
        assert_eq!(seen[0].1, n + 1);
    }
    drop(viewer);
    // The subscription goes with its last viewer.
    let gone = async {
        while redis
            .cli(&["PUBSUB", "CHANNELS"])
            .await
            .contains(":log:bell")
        {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(10), gone)
        .await
        .expect("unsubscribed");
}
