//! What a tenant may send, watch and hold: counted once for all instances, told with what remains and when to come again, and cheap to refuse.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use futures::{SinkExt as _, StreamExt as _};
use reqwest::{Client, Response};
use serde_json::{Value, json};
use tailspan_core::{
    id::{SessionKey, TenantId},
    quota::Quotas,
};
use tailspan_service::config::Config;
use tokio_tungstenite::{client_async, tungstenite::Message};

use crate::support::{Instance, RedisServer, Viewer, config, http};

const A: &str = "team-a";
const B: &str = "team-b";

fn tenant(name: &str) -> TenantId {
    TenantId::parse(name).unwrap()
}

/// Two tenants, with tokens of their names: they are known without asking Redis, so that commands can be counted.
fn limited(redis: &RedisServer, limits: &str) -> Config {
    let mut config = config(&redis.url());
    config.quotas = Arc::new(Quotas::parse(limits).unwrap());
    for team in [A, B] {
        config.tokens.insert(team.to_owned(), tenant(team));
    }
    config
}

async fn send(
    http: &Client,
    instance: &Instance,
    of: &str,
    trace: &str,
    events: usize,
) -> Response {
    let events: Vec<_> = (0..events).map(|_| json!({"event_type": "step"})).collect();
    let request = http.post(instance.url(&format!("/traces/{trace}/events")));
    let sent = request.bearer_auth(of).json(&events).send().await;
    sent.expect("answered")
}

fn header<'a>(response: &'a Response, name: &str) -> &'a str {
    let value = response.headers().get(name);
    value.map_or("", |value| value.to_str().unwrap())
}

/// How often Redis ran each command, also within scripts, and for how many seconds it computed.
async fn work(redis: &RedisServer) -> (BTreeMap<String, u64>, f64) {
    let info = redis.cli(&["INFO", "commandstats"]).await;
    let commands = info.lines().filter_map(|line| {
        let (name, rest) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
        let calls = rest.split(',').next()?.parse().ok()?;
        (!matches!(name, "info" | "quit")).then(|| (name.to_owned(), calls))
    });
    let commands = commands.collect();
    let cpu = redis.cli(&["INFO", "cpu"]).await;
    let seconds = cpu.lines().filter_map(|line| {
        let (name, value) = line.split_once(':')?;
        matches!(name, "used_cpu_user" | "used_cpu_sys")
            .then(|| value.trim().parse::<f64>().unwrap())
    });
    (commands, seconds.sum())
}

fn sum(commands: &BTreeMap<String, u64>) -> f64 {
    commands.values().sum::<u64>() as f64
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_at_a_hundred_times_its_rate_is_refused_cheaply_and_the_other_sees_nothing_of_it()
{
    const BURST: usize = 100;
    const FLOOD: u64 = 3000;
    let redis = RedisServer::start().await;
    let instance = Instance::with(limited(&redis, "team-a: rate=1/s,burst=100")).await;
    let http = http();
    send(&http, &instance, B, "warm", 1).await;

    let before = work(&redis).await;
    let began = Instant::now();
    for number in 0..BURST {
        let answer = send(&http, &instance, A, &format!("of-a-{number}"), 1).await;
        assert_eq!(answer.status(), 200);
        assert_eq!(
            header(&answer, "ratelimit-policy"),
            r#""events";q=100;w=100;qu="events""#
        );
    }
    let after = work(&redis).await;
    let commands_accepting = (sum(&after.0) - sum(&before.0)) / BURST as f64;
    let cpu_accepting = (after.1 - before.1) / BURST as f64;
    // What came meanwhile is used up, one by one.
    let mut accepted = BURST as u64;
    while send(&http, &instance, A, "rest", 1).await.status() == 200 {
        accepted += 1;
    }

    let before = work(&redis).await;
    let flooded = Instant::now();
    let (left, refused, let_in) = (AtomicU64::new(FLOOD), AtomicU64::new(0), AtomicU64::new(0));
    let sender = async || {
        while left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
                left.checked_sub(1)
            })
            .is_ok()
        {
            let answer = send(&http, &instance, A, "flood", 1).await;
            match answer.status().as_u16() {
                200 => let_in.fetch_add(1, Ordering::Relaxed),
                429 => {
                    assert_eq!(header(&answer, "retry-after"), "1");
                    assert_eq!(header(&answer, "ratelimit"), r#""events";r=0;t=1"#);
                    refused.fetch_add(1, Ordering::Relaxed)
                }
                other => panic!("answered {other}"),
            };
        }
    };
    futures::future::join_all((0..8).map(|_| sender())).await;
    let (seconds, after) = (flooded.elapsed().as_secs_f64(), work(&redis).await);
    let (refused, let_in) = (refused.into_inner(), let_in.into_inner());
    accepted += let_in;
    let most = BURST as f64 + began.elapsed().as_secs_f64() + 1.0;
    assert!(accepted as f64 <= most, "{accepted} of at most {most}");

    let commands = sum(&after.0) - sum(&before.0) - commands_accepting * let_in as f64;
    let share = commands.max(0.0) / refused as f64 / commands_accepting;
    let cpu = after.1 - before.1 - cpu_accepting * let_in as f64;
    println!(
        "{FLOOD} requests in {seconds:.1} s ({:.0} times the rate): {let_in} accepted, {refused} refused; commands of Redis for a refused one: {share:.4} of an accepted one ({commands_accepting:.1}), CPU {:.4}",
        FLOOD as f64 / seconds,
        cpu.max(0.0) / refused as f64 / cpu_accepting,
    );
    assert!(refused > FLOOD / 2, "{refused} refused");
    assert!(share <= 0.05, "{share}");

    // The other tenant, in the middle of it.
    let over = AtomicBool::new(false);
    let flood = async || {
        while !over.load(Ordering::Relaxed) {
            send(&http, &instance, A, "flood", 1).await;
        }
    };
    let other = async {
        for _ in 0..100 {
            assert_eq!(send(&http, &instance, B, "calm", 1).await.status(), 200);
        }
        over.store(true, Ordering::Relaxed);
    };
    tokio::join!(flood(), flood(), other);
}

#[tokio::test]
async fn instances_share_one_bucket() {
    let redis = RedisServer::start().await;
    let config = limited(&redis, "rate=5/s,burst=10");
    let instances = [
        Instance::with(config.clone()).await,
        Instance::with(config).await,
    ];
    let http = http();
    let began = Instant::now();
    let mut accepted = 0.0;
    while began.elapsed() < Duration::from_secs(3) {
        for instance in &instances {
            if send(&http, instance, A, "shared", 1).await.status() == 200 {
                accepted += 1.0;
            }
        }
    }
    let fair = 10.0 + 5.0 * began.elapsed().as_secs_f64();
    assert!(
        (fair - 2.0..=fair + 2.0).contains(&accepted),
        "{accepted} and not {fair}"
    );
}

#[tokio::test]
async fn what_is_owed_is_waited_for_and_retry_after_is_honest() {
    let redis = RedisServer::start().await;
    let instance = Instance::with(limited(&redis, "rate=10/s,burst=10")).await;
    let http = http();
    // More than there is: how many there are was known when it was read. 80 are owed then, and one more is there after 8.1 s.
    let began = Instant::now();
    let is_honest = |seconds: u64| {
        let left = 8.1 - began.elapsed().as_secs_f64();
        (left.ceil().max(1.0) as u64..=9).contains(&seconds)
    };
    let answer = send(&http, &instance, A, "large", 90).await;
    assert_eq!(answer.status(), 200);
    let told = header(&answer, "ratelimit");
    let until = told.strip_prefix(r#""events";r=0;t="#);
    assert!(is_honest(until.unwrap().parse().unwrap()), "{told}");
    let refused = send(&http, &instance, A, "small", 1).await;
    assert_eq!(refused.status(), 429);
    let retry_after = |answer: &reqwest::Response| -> u64 {
        header(answer, "retry-after").parse().expect("seconds")
    };
    assert!(is_honest(retry_after(&refused)), "{refused:?}");
    let told: Value = refused.json().await.unwrap();
    assert_eq!(told["error"]["code"], "rate_exceeded");

    // Refused in the words of OTLP, before anybody looks whether there are spans in it; also on a process that was not told yet.
    let fresh = Instance::with(limited(&redis, "rate=10/s,burst=10")).await;
    send(&http, &fresh, A, "small", 1).await;
    for instance in [&instance, &fresh] {
        for (kind, body) in [
            ("application/x-protobuf", "no span"),
            ("application/json", "no span"),
        ] {
            let request = http.post(instance.url("/v1/traces")).bearer_auth(A);
            let answer = request
                .header("content-type", kind)
                .body(body)
                .send()
                .await
                .unwrap();
            assert_eq!(answer.status(), 429);
            assert_eq!(header(&answer, "content-type"), kind);
            assert!(!header(&answer, "retry-after").is_empty());
        }
        let request = http.post(instance.url("/traces/import")).bearer_auth(A);
        let answer = request.body("no file").send().await.unwrap();
        assert_eq!(answer.status(), 429);
    }
    // Metrics are not kept, and exporters stay quiet.
    let metrics = http
        .post(instance.url("/v1/metrics"))
        .bearer_auth(A)
        .json(&json!({}));
    assert_eq!(metrics.send().await.unwrap().status(), 200);

    let limits = http
        .get(fresh.url("/status/limits"))
        .bearer_auth(A)
        .send()
        .await
        .unwrap();
    let limits: Value = limits.json().await.unwrap();
    assert_eq!(
        (&limits["events"]["burst"], &limits["events"]["left"]),
        (&json!(10), &json!(0)),
        "{limits}"
    );
    let refused = send(&http, &instance, A, "small", 1).await;
    assert_eq!(refused.status(), 429);
    assert!(is_honest(retry_after(&refused)), "{refused:?}");
    tokio::time::sleep(Duration::from_secs(retry_after(&refused))).await;
    assert_eq!(send(&http, &instance, A, "small", 1).await.status(), 200);
}

#[tokio::test]
async fn at_a_high_rate_not_every_request_asks_redis() {
    let redis = RedisServer::start().await;
    let instance = Instance::with(limited(&redis, "rate=10000/s")).await;
    let http = http();
    let asked = async || work(&redis).await.0.get("set").copied().unwrap_or_default();
    let before = asked().await;
    for _ in 0..300 {
        assert_eq!(send(&http, &instance, A, "fast", 1).await.status(), 200);
    }
    let asked = asked().await - before;
    println!("300 requests asked {asked} times");
    assert!(asked < 150, "{asked}");
}

#[tokio::test]
async fn frames_of_a_websocket_are_slowed_down_and_refused_by_a_word_when_that_takes_too_long() {
    let redis = RedisServer::start().await;
    let instance = Instance::with(limited(
        &redis,
        "rate=10/s,burst=5;team-b: rate=1/h,burst=1",
    ))
    .await;
    let connect = async |of: &str| {
        let stream = tokio::net::TcpStream::connect(instance.address)
            .await
            .unwrap();
        let url = format!("ws://{}/ws/traces?token={of}", instance.address);
        client_async(url, stream).await.unwrap().0
    };
    let frame = |value: Value| Message::text(value.to_string());
    let start = || frame(json!({"type": "session_start", "session_id": "s", "trace_id": "t"}));
    let span = |id: u64| {
        let span = json!({"traceId": "t", "spanId": format!("{id:016x}"), "name": "step", "startTimeUnixNano": "1", "endTimeUnixNano": "2"});
        frame(json!({"type": "span", "session_id": "s", "span": span}))
    };

    let mut slow = connect(A).await;
    let began = Instant::now();
    slow.send(start()).await.unwrap();
    for id in 1..=25 {
        slow.send(span(id)).await.unwrap();
    }
    // What they owe is waited for, by what comes behind them.
    let session = async || {
        let key = SessionKey::of("s");
        let log = &instance.app.log;
        log.live_session(&tenant(A), &key).await.unwrap()
    };
    while session().await.is_none_or(|session| session.spans < 25) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    slow.send(span(26)).await.unwrap();
    slow.send(frame(json!({"type": "session_end", "session_id": "s"})))
        .await
        .unwrap();
    let answer = slow.next().await.unwrap().unwrap().into_text().unwrap();
    assert!(answer.contains("session_complete"), "{answer}");
    assert_eq!(session().await.unwrap().spans, 26);
    assert!(began.elapsed() > Duration::from_millis(1500));

    let mut refused = connect(B).await;
    refused.send(start()).await.unwrap();
    refused.send(span(1)).await.unwrap();
    // Of its own, so that it is not taken together with the first.
    while instance
        .app
        .limits
        .standing(&tenant(B))
        .await
        .unwrap()
        .unwrap()
        .left
        > 0
    {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    refused.send(span(2)).await.unwrap();
    let answer = refused.next().await.unwrap().unwrap().into_text().unwrap();
    assert!(
        answer.contains("error")
            && answer.contains("1 spans and 0 logs of session s were not stored"),
        "{answer}"
    );
}

#[tokio::test]
async fn a_tenants_streams_are_counted_over_all_instances() {
    let redis = RedisServer::start().await;
    let mut config = limited(&redis, "team-a: streams=2");
    config.stream_lease = Duration::from_millis(2500);
    let (one, other) = (
        Instance::with(config.clone()).await,
        Instance::with(config).await,
    );
    let http = http();
    send(&http, &one, A, "watched", 1).await;
    let open = async |instance: &Instance, of: &str| {
        Viewer::open(
            &instance.url(&format!("/traces/watched/stream?wait=1ms&token={of}")),
            None,
        )
        .await
    };
    let first = open(&one, A).await.unwrap();
    let mut second = open(&other, A).await.unwrap();
    second.soon().await.unwrap();
    // Longer than a lease: who is there renews it.
    tokio::time::sleep(Duration::from_millis(4000)).await;
    for path in [
        "/traces/watched/stream",
        "/stream",
        "/stream/ui-updates",
        "/v1/trace/traces/watched/stream",
    ] {
        let asked = http
            .get(other.url(path))
            .bearer_auth(A)
            .send()
            .await
            .unwrap();
        assert_eq!(asked.status(), 429, "{path}");
        // Until the place that ends first, unless it is renewed.
        let seconds: u64 = header(&asked, "retry-after").parse().unwrap();
        assert!((1..=3).contains(&seconds), "{path}: {seconds} s");
    }
    let stream = tokio::net::TcpStream::connect(other.address).await.unwrap();
    let url = format!("ws://{}/ws/traces?token={A}", other.address);
    assert!(client_async(url, stream).await.is_err());
    send(&http, &one, B, "watched", 1).await;
    let others = [
        open(&one, B).await.unwrap(),
        open(&one, B).await.unwrap(),
        open(&one, B).await.unwrap(),
    ];
    assert_eq!(others.len(), 3);

    let limits = http
        .get(one.url("/status/limits"))
        .bearer_auth(A)
        .send()
        .await
        .unwrap();
    let limits: Value = limits.json().await.unwrap();
    assert_eq!(limits, json!({"streams": {"limit": 2, "used": 2}}));
    drop(first);
    let until = Instant::now() + Duration::from_secs(10);
    while let Err(error) = open(&other, A).await {
        assert!(Instant::now() < until, "{error}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[test]
fn a_process_that_dies_leaves_no_place_taken_for_long() {
    let runtime = || tokio::runtime::Runtime::new().unwrap();
    let survivor = runtime();
    let (redis, instance, config) = survivor.block_on(async {
        let redis = RedisServer::start().await;
        let mut config = limited(&redis, "streams=1");
        config.stream_lease = Duration::from_millis(1500);
        let instance = Instance::with(config.clone()).await;
        send(&http(), &instance, A, "watched", 1).await;
        (redis, instance, config)
    });
    // Another process: it has a runtime of its own, which ends without a word.
    let killed = runtime();
    let viewer = killed.block_on(async {
        let instance = Instance::with(config).await;
        let url = instance.url(&format!("/traces/watched/stream?token={A}"));
        (Viewer::open(&url, None).await.unwrap(), instance)
    });
    std::mem::forget(viewer);
    killed.shutdown_background();
    survivor.block_on(async {
        let url = instance.url(&format!("/traces/watched/stream?token={A}"));
        let died = Instant::now();
        let refused = Viewer::open(&url, None).await;
        assert!(refused.is_err());
        while let Err(error) = Viewer::open(&url, None).await {
            assert!(error.to_string().starts_with("429"), "{error}");
            assert!(died.elapsed() < Duration::from_secs(15));
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    drop(redis);
}

/// As an exporter sends them: spans with ids from `first` on.
async fn spans(
    http: &Client,
    instance: &Instance,
    of: &str,
    trace: &str,
    first: u64,
    count: u64,
    content: &str,
) -> Response {
    let spans: Vec<_> = (first..first + count)
        .map(|id| {
            json!({
                "traceId": trace, "spanId": format!("{id:016x}"), "name": "step", "startTimeUnixNano": "1", "endTimeUnixNano": "2",
                "attributes": [{"key": "said", "value": {"stringValue": content}}],
            })
        })
        .collect();
    let body = json!({"resourceSpans": [{"scopeSpans": [{"spans": spans}]}]});
    let sent = http
        .post(instance.url("/v1/traces"))
        .bearer_auth(of)
        .json(&body)
        .send()
        .await;
    sent.expect("answered")
}

#[tokio::test]
async fn spans_beyond_those_that_a_trace_may_have_are_refused_by_number() {
    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
    let redis = RedisServer::start().await;
    let instance = Instance::with(limited(&redis, "spans=10")).await;
    let http = http();
    let first: Value = spans(&http, &instance, A, TRACE, 1, 7, "")
        .await
        .json()
        .await
        .unwrap();
    assert_eq!(first, json!({}));
    let more: Value = spans(&http, &instance, A, TRACE, 6, 7, "")
        .await
        .json()
        .await
        .unwrap();
    // Two were there, three found a place.
    assert_eq!(more["partialSuccess"]["rejectedSpans"], "2");
    let told = more["partialSuccess"]["errorMessage"].as_str().unwrap();
    assert!(told.contains(TRACE) && told.contains("10 spans"), "{told}");
    // Sent again, they are known, or refused again.
    let again: Value = spans(&http, &instance, A, TRACE, 6, 7, "")
        .await
        .json()
        .await
        .unwrap();
    assert_eq!(again["partialSuccess"]["rejectedSpans"], "2");
    // What is no span has no part in it.
    assert_eq!(send(&http, &instance, A, TRACE, 3).await.status(), 200);
    let events = http
        .get(instance.url(&format!("/traces/{TRACE}")))
        .bearer_auth(A)
        .send()
        .await
        .unwrap();
    let shown = events.text().await.unwrap();
    let ids = (1..=12)
        .filter(|id| shown.contains(&format!("{id:016x}")))
        .collect::<Vec<u64>>();
    assert_eq!(ids, (1..=10).collect::<Vec<_>>());
    // A file says it too.
    let file = json!({"resourceSpans": [{"scopeSpans": [{"spans": [
        {"traceId": TRACE, "spanId": "00000000000000aa", "name": "step", "startTimeUnixNano": "1", "endTimeUnixNano": "2"},
    ]}]}]});
    let imported = http
        .post(instance.url("/traces/import"))
        .bearer_auth(A)
        .json(&file)
        .send()
        .await
        .unwrap();
    let imported: Value = imported.json().await.unwrap();
    assert_eq!(
        (
            &imported["traces"][0]["accepted"],
            &imported["traces"][0]["refused"]
        ),
        (&json!(0), &json!(1))
    );
    let metrics = instance.app.metrics.render();
    assert!(
        metrics.contains(r#"rejected_total{reason="spans_exceeded"}"#),
        "{metrics}"
    );
}

#[tokio::test]
async fn what_is_stored_is_bounded_and_deleting_makes_room() {
    let redis = RedisServer::start().await;
    let mut config = limited(&redis, "team-a: stored=20kB");
    config.compact_after_ms = 0;
    let instances = [
        Instance::with(config.clone()).await,
        Instance::with(config).await,
    ];
    let (app, http) = (&instances[0].app, http());
    // What zstd makes nothing of, of a size that is cut into pieces too.
    let noise = |length: usize| {
        (0..length)
            .map(|_| char::from(rand::random_range(b'!'..b'~')))
            .collect::<String>()
    };
    let trace = |number: usize| format!("{number:032x}");
    let stored = async || app.log.stored_bytes(&tenant(A)).await.unwrap();
    let mut refused = None;
    for number in 1..=12 {
        let answer = spans(
            &http,
            &instances[number % 2],
            A,
            &trace(number),
            1,
            1,
            &noise(3000),
        )
        .await;
        match answer.status().as_u16() {
            200 => assert!(refused.is_none(), "what was refused goes on to be"),
            429 => refused = Some((number, answer)),
            other => panic!("answered {other}"),
        }
        // The other instance believes its own sum for a while.
        for instance in &instances {
            instance.app.log.stored_bytes(&tenant(A)).await.unwrap();
        }
    }
    let (first_refused, answer) = refused.expect("there is a limit");
    assert_eq!(header(&answer, "retry-after"), "10");
    let bytes = stored().await;
    assert!(
        (20_000..25_000).contains(&bytes),
        "{bytes} for {first_refused}"
    );
    assert_eq!(
        spans(&http, &instances[0], B, &trace(1), 1, 1, &noise(3000))
            .await
            .status(),
        200
    );

    // Reading and deleting go on, and what is deleted is stored no more.
    let url = instances[0].url(&format!("/traces/{}", trace(1)));
    assert_eq!(
        http.get(&url).bearer_auth(A).send().await.unwrap().status(),
        200
    );
    let forced = format!("{url}?force=true");
    let deleted = http.delete(forced).bearer_auth(A).send().await.unwrap();
    assert!(deleted.status().is_success());
    let left = stored().await;
    assert!(left + 2_000 < bytes, "{left} of {bytes}");
    assert_eq!(
        spans(&http, &instances[0], A, &trace(2), 2, 1, "")
            .await
            .status(),
        200
    );

    let limits = http
        .get(instances[0].url("/status/limits"))
        .bearer_auth(A)
        .send()
        .await
        .unwrap();
    let limits: Value = limits.json().await.unwrap();
    assert_eq!(
        limits,
        json!({"stored_bytes": {"limit": 20_000, "used": stored().await}})
    );
    // All of it: nothing is left over.
    let cleaned = app.log.remove_before(&tenant(A), u64::MAX).await.unwrap();
    assert!(cleaned > 0);
    assert_eq!(stored().await, 0);

    // What was not counted, and what was and is gone, is found by the sweep.
    assert_eq!(
        send(&http, &instances[0], A, "uncounted", 3).await.status(),
        200
    );
    let counted = stored().await;
    redis.cli(&["DEL", "{team-a}:stored"]).await;
    redis
        .cli(&["HSET", "{team-a}:stored", "gone", "5000", "*", "5000"])
        .await;
    app.log.heal_stored(&tenant(A)).await.unwrap();
    assert_eq!(stored().await, counted);
}

/// A route of each function, and what answers an error.
const ROUTES: [(&str, &str); 9] = [
    ("POST", "/v1/traces"),
    ("POST", "/traces/t/events"),
    ("GET", "/traces"),
    ("GET", "/health"),
    ("GET", "/traces/t/stream"),
    ("POST", "/traces/cleanup"),
    ("GET", "/api/health"),
    ("GET", "/v1/trace/traces"),
    ("GET", "/nowhere"),
];

#[tokio::test]
async fn only_named_pages_may_read_what_is_answered() {
    use tailspan_service::cors::Origins;
    const NAMED: &str = "https://dash.example";
    let redis = RedisServer::start().await;
    let mut config = config(&redis.url());
    let closed = Instance::with(config.clone()).await;
    config.cors_origins = Arc::new(Origins::parse(NAMED).unwrap());
    let open = Instance::with(config.clone()).await;
    config.cors_origins = Arc::new(Origins::parse("*").unwrap());
    let wide = Instance::with(config).await;
    let http = http();
    for (method, path) in ROUTES {
        let ask = async |instance: &Instance, origin: Option<&str>, preflight: bool| {
            let method = if preflight { "OPTIONS" } else { method };
            let mut request = http.request(method.parse().unwrap(), instance.url(path));
            if let Some(origin) = origin {
                request = request.header("origin", origin);
            }
            if preflight {
                request = request.header("access-control-request-method", "POST");
                request = request.header("access-control-request-headers", "authorization, x-evil");
            }
            request.send().await.unwrap()
        };
        let told = |answer: &Response| {
            answer
                .headers()
                .keys()
                .filter(|name| name.as_str().starts_with("access-control-"))
                .count()
        };
        for preflight in [false, true] {
            for (instance, origin) in [
                (&closed, Some(NAMED)),
                (&closed, None),
                (&open, Some("https://evil.example")),
                (&open, Some("https://dash.example.evil.example")),
                (&open, Some("null")),
                (&open, None),
            ] {
                let answer = ask(instance, origin, preflight).await;
                assert_eq!(told(&answer), 0, "{path} {origin:?}");
                assert!(!preflight || !answer.status().is_success(), "{path}");
            }
            for (instance, origin) in [(&open, NAMED), (&wide, "https://any.example")] {
                let answer = ask(instance, Some(origin), preflight).await;
                assert_eq!(
                    header(&answer, "access-control-allow-origin"),
                    origin,
                    "{path}"
                );
                assert_eq!(header(&answer, "access-control-allow-credentials"), "");
                assert!(
                    answer
                        .headers()
                        .get_all("vary")
                        .iter()
                        .any(|vary| vary == "origin")
                );
                let exposed = header(&answer, "access-control-expose-headers");
                assert!(exposed.contains("retry-after") && exposed.contains("ratelimit"));
                if preflight {
                    assert_eq!(answer.status(), 204, "{path}");
                    let allowed = header(&answer, "access-control-allow-headers");
                    for name in [
                        "authorization",
                        "last-event-id",
                        "traceparent",
                        "x-trace-id",
                        "idempotency-key",
                    ] {
                        assert!(allowed.contains(name), "{name}");
                    }
                    assert!(!allowed.contains("evil"));
                }
            }
        }
        // Whoever keeps answers in between must not give one page's to another.
        let answer = ask(&open, None, false).await;
        assert!(
            answer
                .headers()
                .get_all("vary")
                .iter()
                .any(|vary| vary == "origin"),
            "{path}"
        );
    }
}

/// Where requests to others begin. Their addresses come from the operator's configuration, and none from a request.
#[test]
fn nothing_fetches_an_address_from_a_request() {
    // By the beginnings of their paths.
    const MAY: [(&str, &str); 12] = [
        ("functions/local/src/cli", "a person's own command line"),
        (
            "functions/local/src/health.rs",
            "a person's own command line",
        ),
        ("functions/local/src/listen.rs", "its own tests"),
        (
            "functions/socket/src/cloud.rs",
            "the gateway that holds the connection: its own event names it",
        ),
        (
            "functions/stream/src/completion/call.rs",
            "agents of the operator's file",
        ),
        ("shared/service/src/access/jwt", "the configured issuer"),
        ("shared/service/src/archive", "the operator's bucket"),
        ("shared/service/src/aws.rs", "AWS itself"),
        (
            "shared/service/src/evaluation",
            "judges of the operator's environment",
        ),
        (
            "shared/service/src/function",
            "the runtime, and secrets that the environment names",
        ),
        (
            "shared/service/src/outward.rs",
            "receivers of the operator's file",
        ),
        ("shared/service/src/tls.rs", "nobody: how it is done"),
    ];
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut folders = vec![root.join("functions"), root.join("shared")];
    let mut strangers = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            if path.extension().is_none_or(|ending| ending != "rs") {
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap();
            let asks = [
                "reqwest",
                "TcpStream::connect",
                "UdpSocket",
                "Aws::new",
                "hyper::client",
            ];
            let name = path.strip_prefix(&root).unwrap().display().to_string();
            let may = MAY.iter().any(|(place, _)| name.starts_with(place));
            if asks.iter().any(|word| text.contains(word)) && !may {
                strangers.push(name);
            }
        }
    }
    assert!(
        strangers.is_empty(),
        "say whose addresses these ask: {strangers:?}"
    );
}
