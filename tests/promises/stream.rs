//! A viewer sees every event of its trace in order exactly once.

use tailspan_core::id::{TenantId, TraceId};
use tailspan_service::log::append::AppendOptions;

use crate::{
    log::native,
    support::{Instance, RedisServer, Store, Viewer, http},
};

const TRACE: &str = "abc123";

async fn append(instance: &Instance, range: std::ops::Range<i64>) {
    let events = range
        .map(|n| native(Some(n), "{\"event_type\":\"step\"}"))
        .collect();
    store(instance, events, false).await;
}

async fn store(instance: &Instance, events: Vec<tailspan_core::observed::Incoming>, replace: bool) {
    let trace = TraceId::parse(TRACE).expect("valid");
    let log = &instance.app.log;
    log.append(
        &TenantId::default(),
        &trace,
        events,
        AppendOptions { replace },
    )
    .await
    .expect("appended");
}

fn stream_url(instance: &Instance) -> String {
    instance.url(&format!("/traces/{TRACE}/stream"))
}

#[track_caller]
fn seq(frame: &crate::support::Frame) -> u64 {
    frame.json()["seq"].as_u64().expect("a data frame")
}

#[tokio::test]
async fn history_then_live_then_end_on_any_instance() {
    from_history_to_end(Store::node().await).await;
}

#[tokio::test]
async fn history_then_live_then_end_on_a_cluster() {
    from_history_to_end(Store::cluster().await).await;
}

async fn from_history_to_end(redis: Store) {
    let (one, other) = (
        Instance::start(&redis.url()).await,
        Instance::start(&redis.url()).await,
    );
    append(&one, 0..300).await;
    let mut viewer = Viewer::open(&stream_url(&other), None)
        .await
        .expect("a stream");
    for n in 1..=300 {
        assert_eq!(seq(&viewer.soon().await.unwrap().unwrap()), n);
    }
    for n in 301..=320 {
        append(&one, n..n + 1).await;
        assert_eq!(seq(&viewer.soon().await.unwrap().unwrap()), n as u64);
    }
    store(
        &one,
        vec![native(None, "{\"event_type\":\"workflow_completed\"}")],
        false,
    )
    .await;
    let rest = viewer.rest().await.unwrap();
    assert_eq!(rest.len(), 2);
    assert_eq!(seq(&rest[0]), 321);
    assert_eq!(
        (rest[1].name.as_str(), &rest[1].json()["status"]),
        ("end", &"completed".into())
    );

    // EventSource comes back: 204 tells it to stop.
    let again = Viewer::open(&stream_url(&one), viewer.last_event_id.as_deref()).await;
    assert!(
        again
            .err()
            .expect("no stream")
            .to_string()
            .starts_with("204")
    );
    // A cursor in the middle gets the rest.
    let mut late = Viewer::open(&format!("{}?cursor=319", stream_url(&one)), None)
        .await
        .unwrap();
    assert_eq!(
        late.rest()
            .await
            .unwrap()
            .iter()
            .filter(|frame| frame.name.is_empty())
            .count(),
        2
    );
}

#[tokio::test]
async fn absent_invalid_and_waiting() {
    let redis = RedisServer::start().await;
    let instance = Instance::start(&redis.url()).await;
    let status = async |path: &str, header: Option<(&'static str, &'static str)>| {
        let mut request = http().get(instance.url(path));
        if let Some((name, value)) = header {
            request = request.header(name, value);
        }
        let response = request.send().await.unwrap();
        let status = response.status().as_u16();
        let kind = response
            .headers()
            .get("content-type")
            .map(|kind| kind.to_str().unwrap().to_owned());
        assert_eq!(kind.as_deref(), Some("application/json"), "{path}");
        let body: serde_json::Value = response.json().await.unwrap();
        (status, body["error"]["code"].as_str().unwrap().to_owned())
    };
    let told = |status: u16, code: &str| (status, code.to_owned());
    assert_eq!(
        status("/traces/nope/stream", None).await,
        told(404, "trace_not_found")
    );
    assert_eq!(
        status("/traces/nope/stream?wait=50ms", None).await,
        told(404, "trace_not_found")
    );
    assert_eq!(
        status("/traces/a%20b/stream", None).await,
        told(400, "invalid_trace_id")
    );
    assert_eq!(
        status("/traces/%00/stream", None).await,
        told(400, "invalid_trace_id")
    );
    assert_eq!(
        status("/traces/%ff/stream", None).await,
        told(400, "invalid_trace_id")
    );
    assert_eq!(
        status(&format!("/traces/{}/stream", "a".repeat(129)), None).await,
        told(400, "invalid_trace_id")
    );
    assert_eq!(
        status("/traces/nope/stream?cursor=18446744073709551615", None).await,
        told(400, "invalid_cursor")
    );
    assert_eq!(
        status("/traces/a/nowhere", None).await,
        told(404, "route_not_found")
    );
    assert_eq!(
        status("/v1/traces", None).await,
        told(405, "method_not_allowed")
    );
    assert_eq!(
        status("/traces/a/stream?cursor=x", None).await,
        told(400, "invalid_cursor")
    );
    assert_eq!(
        status("/traces/a/stream", Some(("accept", "application/json"))).await,
        told(406, "not_acceptable")
    );

    let waiting = tokio::spawn({
        let url = format!("{}?wait=10s", stream_url(&instance));
        async move {
            Viewer::open(&url, None)
                .await
                .unwrap()
                .soon()
                .await
                .unwrap()
                .unwrap()
        }
    });
    tokio::task::yield_now().await;
    append(&instance, 0..1).await;
    assert_eq!(seq(&waiting.await.unwrap()), 1);
}

#[tokio::test]
async fn a_trace_deleted_or_begun_again_is_announced() {
    let redis = RedisServer::start().await;
    let instance = Instance::start(&redis.url()).await;
    append(&instance, 0..10).await;
    let mut viewer = Viewer::open(&stream_url(&instance), None).await.unwrap();
    for _ in 0..10 {
        viewer.soon().await.unwrap().unwrap();
    }
    let known = viewer.last_event_id.clone().unwrap();
    store(
        &instance,
        (0..3)
            .map(|n| native(Some(n), "{\"event_type\":\"anew\"}"))
            .collect(),
        true,
    )
    .await;
    let gap = viewer.soon().await.unwrap().unwrap();
    assert_eq!(
        (gap.name.as_str(), &gap.json()["reason"]),
        ("gap", &"replaced".into())
    );
    for n in 11..=13 {
        assert_eq!(seq(&viewer.soon().await.unwrap().unwrap()), n);
    }
    // The same for one who was away meanwhile.
    let mut away = Viewer::open(&stream_url(&instance), Some(&known))
        .await
        .unwrap();
    assert_eq!(
        away.soon().await.unwrap().unwrap().json()["reason"],
        "replaced"
    );
    assert_eq!(seq(&away.soon().await.unwrap().unwrap()), 11);

    let trace = TraceId::parse(TRACE).unwrap();
    assert!(
        instance
            .app
            .log
            .delete(&TenantId::default(), &trace)
            .await
            .unwrap()
    );
    let end = viewer.rest().await.unwrap().pop().unwrap();
    assert_eq!(
        (end.name.as_str(), &end.json()["status"]),
        ("end", &"deleted".into())
    );
    let absent = Viewer::open(&stream_url(&instance), None)
        .await
        .err()
        .unwrap();
    assert!(absent.to_string().starts_with("404"), "{absent}");
    let mut known = Viewer::open(&stream_url(&instance), Some(&known))
        .await
        .unwrap();
    let frames: Vec<_> = known
        .rest()
        .await
        .unwrap()
        .into_iter()
        .map(|frame| frame.name)
        .collect();
    assert_eq!(frames, ["gap", "end"]);
}

#[tokio::test]
async fn a_stream_ends_before_its_lifetime_and_goes_on_at_its_cursor() {
    let redis = RedisServer::start().await;
    let mut config = crate::support::config(&redis.url());
    config.stream_lifetime = std::time::Duration::from_millis(500);
    let instance = Instance::with(config).await;
    append(&instance, 0..5).await;
    let mut viewer = Viewer::open(&stream_url(&instance), None).await.unwrap();
    assert_eq!(viewer.rest().await.unwrap().len(), 5);
    append(&instance, 5..8).await;
    let mut again = Viewer::open(&stream_url(&instance), viewer.last_event_id.as_deref())
        .await
        .unwrap();
    assert_eq!(
        again
            .rest()
            .await
            .unwrap()
            .iter()
            .map(seq)
            .collect::<Vec<_>>(),
        [6, 7, 8]
    );
}

#[tokio::test]
async fn too_many_streams_are_refused_and_places_come_back() {
    let redis = RedisServer::start().await;
    let mut config = crate::support::config(&redis.url());
    config.max_streams = 2;
    let instance = Instance::with(config).await;
    append(&instance, 0..1).await;
    let url = stream_url(&instance);
    let one = Viewer::open(&url, None).await.unwrap();
    let _two = Viewer::open(&url, None).await.unwrap();
    let refused = Viewer::open(&url, None).await.err().unwrap();
    assert!(refused.to_string().starts_with("429"), "{refused}");
    drop(one);
    for _ in 0..200 {
        if Viewer::open(&url, None).await.is_ok() {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("the place of a viewer that left was not given back");
}

#[tokio::test]
async fn a_redis_that_comes_after_the_product_is_found_without_a_restart() {
    let mut redis = RedisServer::start().await;
    redis.kill();
    let instance = Instance::start(&redis.url()).await;
    let http = http();
    for path in [
        "/traces/t/stream",
        "/traces/t",
        "/traces",
        "/traces/t/events",
        "/traces/t/summary",
        "/traces/t/invocations",
        "/traces/t/spans/s/why",
        "/ready",
    ] {
        let asked = std::time::Instant::now();
        let response = http.get(instance.url(path)).send().await.unwrap();
        assert_eq!(response.status(), 503, "{path}");
        assert!(
            asked.elapsed() < std::time::Duration::from_secs(6),
            "{path} took {:?}",
            asked.elapsed()
        );
    }
    assert_eq!(
        http.get(instance.url("/health"))
            .send()
            .await
            .unwrap()
            .status(),
        200
    );
    redis.launch().await;
    for _ in 0..300 {
        if http
            .get(instance.url("/ready"))
            .send()
            .await
            .unwrap()
            .status()
            == 200
        {
            append(&instance, 0..1).await;
            let mut viewer = Viewer::open(&stream_url(&instance), None).await.unwrap();
            assert_eq!(seq(&viewer.soon().await.unwrap().unwrap()), 1);
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    panic!("Redis is back and was not found");
}

#[tokio::test]
async fn a_chunk_that_cannot_be_read_is_announced_and_what_follows_is_shown() {
    let redis = RedisServer::start().await;
    let instance = Instance::start(&redis.url()).await;
    append(&instance, 0..1).await;
    let mark = redis.cli(&["HGET", "{default/abc123}:trace", "mark"]).await;
    let mark = mark.lines().nth(1).unwrap();
    // As a later release would write it: events 2 to 4 in a format that this one does not know.
    let events = "{default/abc123}:events";
    let chunk = [
        "XADD", events, "4-7", "n", "3", "t", "1", "p", mark, "b", "?",
    ];
    redis.cli(&chunk).await;
    let state = ["HSET", "{default/abc123}:trace", "seq", "4", "mark", "7"];
    redis.cli(&state).await;
    append(&instance, 1..2).await;

    let gap = serde_json::json!({"reason": "unreadable", "from": 2, "to": 4});
    for cursor in ["0", "1", "3"] {
        let url = format!("{}?cursor={cursor}", stream_url(&instance));
        let mut viewer = Viewer::open(&url, None).await.unwrap();
        let mut told = viewer.soon().await.unwrap().unwrap();
        if cursor == "0" {
            assert_eq!(seq(&told), 1);
            told = viewer.soon().await.unwrap().unwrap();
        }
        assert_eq!((told.name.as_str(), told.json()), ("gap", gap.clone()));
        assert_eq!(seq(&viewer.soon().await.unwrap().unwrap()), 5);
    }
    let url = instance.url(&format!("/traces/{TRACE}/events"));
    let http = http();
    let page: serde_json::Value = http.get(url).send().await.unwrap().json().await.unwrap();
    let seqs: Vec<_> = page["events"]
        .as_array()
        .unwrap()
        .iter()
        .map(|event| &event["seq"])
        .collect();
    assert_eq!(seqs, [1, 5]);
    assert_eq!(page["gap"], gap);
    assert_eq!(page["next_cursor"], serde_json::Value::Null);
}

/// Only what was asked for is shown, and a cut at any place loses and doubles nothing of it.
#[tokio::test]
async fn a_filtered_stream_is_resumed_like_any_other() {
    let redis = RedisServer::start().await;
    let (one, other) = (
        Instance::start(&redis.url()).await,
        Instance::start(&redis.url()).await,
    );
    let events = (0..60).map(|n| {
        let text = format!(
            r#"{{"event_type":"{}","agent_id":"agent-{}","n":{n}}}"#,
            if n % 3 == 0 { "wanted" } else { "other" },
            n % 2
        );
        native(Some(n), &text)
    });
    let events: Vec<_> = events.collect();
    for some in events.chunks(7) {
        store(&one, some.to_vec(), false).await;
    }
    let end = native(None, "{\"event_type\":\"workflow_completed\"}");
    store(&one, vec![end], false).await;
    let query = "event_types=wanted&agent=agent-0&level=debug";
    let expected: Vec<u64> = (0..60).filter(|n| n % 6 == 0).map(|n| n + 1).collect();

    let all = format!("{}?{query}", stream_url(&one));
    let frames = Viewer::open(&all, None)
        .await
        .unwrap()
        .rest()
        .await
        .unwrap();
    let data = |frames: &[crate::support::Frame]| -> Vec<u64> {
        let data = frames.iter().filter(|frame| frame.name.is_empty());
        data.map(seq).collect()
    };
    assert_eq!(data(&frames), expected);
    assert_eq!(frames.last().unwrap().name, "end");

    let (mut seen, mut cursor) = (Vec::<u64>::new(), None::<String>);
    while seen.len() < expected.len() {
        let instance = if seen.len() % 2 == 0 { &one } else { &other };
        let url = format!("{}?{query}&format=compact", stream_url(instance));
        let mut viewer = Viewer::open(&url, cursor.as_deref()).await.unwrap();
        let frame = viewer.soon().await.unwrap().expect("goes on");
        assert_eq!(frame.json()["event"], "trace_compact");
        assert_eq!(frame.json()["data"]["type"], "wanted");
        let id = frame.id.expect("an id");
        let (seq, _) = id.split_once('-').expect("a cursor");
        seen.push(seq.parse().expect("a number"));
        cursor = Some(id);
    }
    assert_eq!(seen, expected);

    // As the seed's clients read it: unnamed frames, then the word that ends it.
    let url = one.url(&format!("/v1/trace/traces/{TRACE}/stream?{query}"));
    let frames = Viewer::open(&url, None)
        .await
        .unwrap()
        .rest()
        .await
        .unwrap();
    assert!(frames.iter().all(|frame| frame.name.is_empty()));
    assert_eq!(frames.last().unwrap().data, "[DONE]");
    assert_eq!(frames.len(), expected.len() + 1);
    assert_eq!(frames[0].json()["event"], "trace");
}

/// Viewers who look differently at the same trace each get their own, live.
#[tokio::test]
async fn viewers_of_many_lenses_share_a_trace() {
    let redis = RedisServer::start().await;
    let instance = Instance::start(&redis.url()).await;
    append(&instance, 0..1).await;
    // More lenses than are framed for as chunks come.
    let mut viewers = Vec::new();
    for n in 0..20 {
        let url = format!(
            "{}?event_types=step,other-{n}&from=now",
            stream_url(&instance)
        );
        viewers.push(Viewer::open(&url, None).await.unwrap());
    }
    for n in 1..=5 {
        append(&instance, n..n + 1).await;
        for viewer in &mut viewers {
            let frame = viewer.soon().await.unwrap().expect("goes on");
            assert_eq!(seq(&frame), n as u64 + 1);
        }
    }
}
