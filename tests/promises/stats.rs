//! Statistics: every run counts once, whoever dies in between, and what they add up to is what counting one by one gives.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::Value;
use tailspan_core::{
    id::{TenantId, TraceId},
    observed::{Canonical, Incoming, What},
    stats::{Dimension, OTHER, Window},
    wire,
};
use tailspan_service::{
    App,
    log::{append::AppendOptions, now_unix_ms},
};

use crate::{
    faults::Process,
    gate::{Gate, Stop},
    log::Case,
    mesh::until,
    support::{Instance, RedisServer, ReservedPort, config, http},
};

const MINUTE_MS: u64 = 60_000;
const HOUR_MS: u64 = 60 * MINUTE_MS;
const DAY_MS: u64 = 24 * HOUR_MS;

/// A step of a run.
#[derive(Clone, Debug)]
struct Told {
    kind: &'static str,
    name: String,
    parent: u64,
    ended_unix_ms: u64,
    duration_ms: u64,
    failed: bool,
    tokens: (i64, i64),
}

fn tool(name: &str, ended_unix_ms: u64, duration_ms: u64) -> Told {
    Told {
        kind: "execute_tool",
        name: name.to_owned(),
        parent: 1,
        ended_unix_ms,
        duration_ms,
        failed: false,
        tokens: (0, 0),
    }
}

fn span(id: u64, told: &Told) -> Incoming {
    let text = |key: &str, text: &str| wire::KeyValue {
        key: key.into(),
        value: Some(wire::AnyValue {
            value: Some(wire::any_value::Value::String(text.into())),
        }),
    };
    let number = |key: &str, number| wire::KeyValue {
        key: key.into(),
        value: Some(wire::AnyValue {
            value: Some(wire::any_value::Value::Int(number)),
        }),
    };
    let mut attributes = vec![text("gen_ai.operation.name", told.kind)];
    match told.kind {
        "execute_tool" => attributes.push(text("gen_ai.tool.name", &told.name)),
        "chat" => attributes.extend([
            text("gen_ai.request.model", &told.name),
            number("gen_ai.usage.input_tokens", told.tokens.0),
            number("gen_ai.usage.output_tokens", told.tokens.1),
        ]),
        _ => attributes.push(text("gen_ai.agent.name", &told.name)),
    }
    let what = What::Span(Arc::new(wire::Span {
        span_id: id.to_be_bytes().to_vec().into(),
        parent_span_id: match told.parent {
            0 => Vec::new().into(),
            parent => parent.to_be_bytes().to_vec().into(),
        },
        name: format!("{} {}", told.kind, told.name),
        start_time_unix_nano: (told.ended_unix_ms - told.duration_ms) * 1_000_000,
        end_time_unix_nano: told.ended_unix_ms * 1_000_000,
        attributes,
        status: Some(wire::Status {
            message: String::new(),
            code: if told.failed { 2 } else { 0 },
        }),
        ..wire::Span::default()
    }));
    Incoming {
        context: std::sync::Arc::default(),
        what: Canonical::from(&what),
        identity: Some(i64::try_from(id * 1_000 + told.ended_unix_ms % 1_000).expect("small")),
        may_end_run: told.parent == 0,
        trace_level: tailspan_core::verbosity::Verbosity::Debug,
    }
}

/// A run of an agent; the root comes last, as spans do.
async fn append(app: &App, tenant: &TenantId, trace: &str, steps: &[Told], first_id: u64) {
    let spans = (first_id..).zip(steps).map(|(id, told)| span(id, told));
    let trace = TraceId::parse(trace).expect("valid");
    app.log
        .append(tenant, &trace, spans.collect(), AppendOptions::default())
        .await
        .expect("appended");
}

fn root(name: &str, ended_unix_ms: u64, duration_ms: u64) -> Told {
    Told {
        kind: "invoke_agent",
        parent: 0,
        ..tool(name, ended_unix_ms, duration_ms)
    }
}

/// Works until that many jobs are done.
async fn work(app: &App, mut jobs: usize) {
    while jobs > 0 {
        let until = Instant::now() + Duration::from_millis(100);
        let done = tailspan_worker::work_off(app, until, |_| {}).await;
        jobs = jobs.saturating_sub(done.expect("worked"));
    }
}

async fn get(instance: &Instance, path: &str) -> Value {
    let answer = http().get(instance.url(path)).send().await.expect("sent");
    assert_eq!(answer.status(), 200, "{path}");
    answer.json().await.expect("JSON")
}

/// Calls, errors, input tokens and output tokens by name.
fn counted(section: &Value) -> BTreeMap<String, [u64; 4]> {
    let rows = section["rows"].as_array().expect("rows");
    let rows = rows.iter().map(|row| {
        let part = |key: &str| row[key].as_str().unwrap_or_default();
        let name = ["agent", "model", "tool", "source", "target"].map(part);
        let number = |key: &str| row[key].as_u64().expect("a number");
        let counts = ["calls", "errors", "input_tokens", "output_tokens"].map(number);
        (name.concat(), counts)
    });
    rows.collect()
}

#[tokio::test]
async fn windows_count_what_counting_one_by_one_gives() {
    let redis = RedisServer::start().await;
    let instance = Instance::start(&redis.url()).await;
    let (app, tenant) = (&instance.app, TenantId::default());
    let now = now_unix_ms();
    // Numbers that look random, and the same in each run of the test.
    let mut state = 7u64;
    let mut random = move |below: u64| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 33) % below
    };
    let mut all: Vec<Told> = Vec::new();
    for run in 0..40u64 {
        let age = [
            MINUTE_MS,
            50 * MINUTE_MS,
            20 * HOUR_MS,
            6 * DAY_MS,
            20 * DAY_MS,
        ][run as usize % 5];
        let ended = now - random(age);
        let agent = format!("agent-{}", run % 3);
        let mut steps = Vec::new();
        for _ in 0..20 {
            let ended_unix_ms = ended - random(MINUTE_MS);
            let mut step = tool(
                &format!("tool-{}", random(6)),
                ended_unix_ms,
                1 + random(30_000),
            );
            if random(3) == 0 {
                step.kind = "chat";
                step.name = format!("model-{}", random(3));
                step.tokens = (random(1000) as i64 + 1, random(100) as i64 + 1);
            }
            step.failed = random(5) == 0;
            steps.push(step);
        }
        steps.push(root(&agent, ended, 100_000));
        // The root's id is the one that the steps name.
        let spans = steps.iter().zip(2u64..).map(|(told, id)| {
            let id = if told.parent == 0 { 1 } else { id };
            span(id, told)
        });
        let trace = TraceId::parse(&format!("run-{run}")).expect("valid");
        app.log
            .append(&tenant, &trace, spans.collect(), AppendOptions::default())
            .await
            .expect("appended");
        all.extend(steps);
    }
    work(app, 40).await;
    for window in ["5m", "1h", "24h", "7d", "all"] {
        let page = get(&instance, &format!("/stats?window={window}")).await;
        assert_eq!(
            (&page["window"], &page["truncated"]),
            (&window.into(), &false.into())
        );
        let from = match page["from"].as_str() {
            Some(from) => unix_ms(from),
            None => 0,
        };
        let length = [
            ("5m", 5 * MINUTE_MS),
            ("1h", HOUR_MS),
            ("24h", DAY_MS),
            ("7d", 7 * DAY_MS),
        ];
        if let Some((_, length)) = length.iter().find(|(name, _)| *name == window) {
            assert!(
                from <= now_unix_ms() - length && from + length + HOUR_MS > now,
                "{window}"
            );
        }
        for (by, kind) in [
            ("tool", "execute_tool"),
            ("model", "chat"),
            ("agent", "invoke_agent"),
        ] {
            let section = &page[by];
            let mut expected: BTreeMap<String, [u64; 4]> = BTreeMap::new();
            let mut durations: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
            for step in &all {
                if step.kind != kind || step.ended_unix_ms < from {
                    continue;
                }
                let row = expected.entry(step.name.clone()).or_default();
                let counts = [
                    1,
                    u64::from(step.failed),
                    step.tokens.0 as u64,
                    step.tokens.1 as u64,
                ];
                row.iter_mut()
                    .zip(counts)
                    .for_each(|(sum, more)| *sum += more);
                durations
                    .entry(&step.name)
                    .or_default()
                    .push(step.duration_ms);
            }
            let mut told = counted(section);
            if by == "agent" {
                // Its tokens are those of the model calls below it.
                told.values_mut().for_each(|row| (row[2], row[3]) = (0, 0));
                told.retain(|_, row| row[0] > 0);
            }
            assert_eq!(told, expected, "{window} by {by}");
            for row in section["rows"].as_array().expect("rows") {
                let Some(all) = durations.get_mut(row[by].as_str().expect("a name")) else {
                    continue;
                };
                all.sort_unstable();
                for (key, percent) in [("p50_ms", 50), ("p95_ms", 95), ("p99_ms", 99)] {
                    let exact = all[(percent * all.len()).div_ceil(100).max(1) - 1] as f64;
                    let told = row[key].as_f64().expect("a number");
                    assert!(
                        told >= exact && told <= exact * 1.125,
                        "{key}: {told} for {exact}"
                    );
                }
                let mean = all.iter().sum::<u64>() as f64 / all.len() as f64;
                assert!((row["avg_ms"].as_f64().expect("a number") - mean).abs() < 0.01);
            }
            let calls: u64 = expected.values().map(|row| row[0]).sum();
            assert_eq!(section["total"]["calls"], calls, "{window} by {by}");
        }
    }
    // One dimension alone, and none that there is not.
    let page = get(&instance, "/stats?by=model").await;
    assert!(page["window"] == "1h" && page["model"].is_object() && page.get("tool").is_none());
    for bad in ["window=2h", "window=", "by=agents", "by="] {
        let answer = http()
            .get(instance.url(&format!("/stats?{bad}")))
            .send()
            .await;
        let answer = answer.expect("sent");
        assert_eq!(answer.status(), 400, "{bad}");
        let body: Value = answer.json().await.expect("JSON");
        assert!(
            body["error"]["message"]
                .as_str()
                .expect("told")
                .contains("must be one of")
        );
    }
    // What an analysis asks for is the same.
    let names = [
        (Dimension::Tool, "tool-1".to_owned()),
        (Dimension::Tool, "no".to_owned()),
    ];
    let history = app.log.history(&tenant, &names).await.expect("answered");
    let known = history.durations(Dimension::Tool, "tool-1").expect("known");
    let exact = all.iter().filter(|step| step.name == "tool-1").count();
    assert_eq!(known.count(), exact as u64);
    assert!(history.durations(Dimension::Tool, "no").is_none());
    // Nothing of it is another tenant's.
    let other = TenantId::parse("other").expect("valid");
    let history = app.log.history(&other, &names).await.expect("answered");
    assert!(history.is_empty());
}

fn unix_ms(text: &str) -> u64 {
    let json = format!(r#"{{"event_type":"x","timestamp":"{text}"}}"#);
    tailspan_core::convention::read_native(&json, 0).timestamp_ms
}

#[tokio::test]
async fn a_run_that_ends_again_and_a_job_that_comes_twice_count_once() {
    let redis = RedisServer::start().await;
    let instance = Instance::start(&redis.url()).await;
    let (app, tenant) = (&instance.app, TenantId::default());
    let now = now_unix_ms();
    append(
        app,
        &tenant,
        "t",
        &[tool("search", now - 100, 40), root("a", now, 500)],
        1,
    )
    .await;
    work(app, 1).await;
    // Late, in another five minutes, and the first step anew: it took longer, and failed.
    let mut longer = tool("search", now - 10, 400);
    longer.failed = true;
    append(app, &tenant, "t", &[longer.clone()], 1).await;
    append(
        app,
        &tenant,
        "t",
        &[tool("look", now - 30 * MINUTE_MS, 40)],
        5,
    )
    .await;
    work(app, 1).await;
    let check = async || {
        let page = get(&instance, "/stats").await;
        let expected = BTreeMap::from([
            ("look".to_owned(), [1, 0, 0, 0]),
            ("search".to_owned(), [1, 1, 0, 0]),
        ]);
        assert_eq!(counted(&page["tool"]), expected);
        assert_eq!(page["tool"]["rows"][1]["p50_ms"], 400.0);
        assert_eq!(page["agent"]["total"]["calls"], 1);
        assert_eq!(page["agent"]["total"]["p99_ms"], 500.0);
    };
    check().await;
    // The same work again, by many at the same time, from the beginning and from the middle.
    let trace = TraceId::parse("t").expect("valid");
    let folded = app
        .log
        .folded(&tenant, &trace)
        .await
        .expect("read")
        .expect("there");
    let contribution = tailspan_core::stats::of(&folded.state, &app.config.prices);
    let keep = || {
        app.log
            .keep_stats(&tenant, &trace, &contribution, folded.through)
    };
    redis.cli(&["HDEL", "{default}:stats:of", "none"]).await;
    for kept in futures::future::join_all((0..8).map(|_| keep())).await {
        kept.expect("kept");
    }
    check().await;
    let other = TraceId::parse("u").expect("valid");
    append(app, &tenant, "u", &[tool("look", now, 40)], 5).await;
    let keep = || app.log.keep_stats(&tenant, &other, &contribution, 3);
    for kept in futures::future::join_all((0..8).map(|_| keep())).await {
        kept.expect("kept");
    }
    let page = get(&instance, "/stats").await;
    assert_eq!(
        page["tool"]["total"]["calls"], 4,
        "twice what it was, once each"
    );
    // A trace that is gone adds nothing.
    let gone = TraceId::parse("gone").expect("valid");
    app.log
        .keep_stats(&tenant, &gone, &contribution, 9)
        .await
        .expect("answered");
    let page = get(&instance, "/stats").await;
    assert_eq!(page["tool"]["total"]["calls"], 4);
}

#[tokio::test]
async fn names_beyond_those_of_a_bucket_are_flagged_and_none_is_lost() {
    let redis = RedisServer::start().await;
    let instance = Instance::start(&redis.url()).await;
    let (app, tenant) = (&instance.app, TenantId::default());
    let now = now_unix_ms();
    for run in 0..5 {
        let mut steps: Vec<_> = (0..60)
            .map(|n| tool(&format!("tool-{run}-{n}"), now - 1000, 40))
            .collect();
        steps.push(root("a", now, 2000));
        append(app, &tenant, &format!("t{run}"), &steps, 1).await;
    }
    work(app, 5).await;
    for window in ["1h", "7d", "all"] {
        let page = get(&instance, &format!("/stats?window={window}")).await;
        assert_eq!(page["truncated"], true);
        assert_eq!(page["tool"]["total"]["calls"], 300);
        let rows = page["tool"]["rows"].as_array().expect("rows");
        assert_eq!(rows.len(), 201);
        assert_eq!(rows[200]["tool"], "(other)");
        assert_eq!(rows[200]["calls"], 100);
    }
    // In history, names that nothing ended under for the retention make room for new ones.
    let key = "{default}:stats:tool:all";
    for n in 0..60 {
        for run in 0..3 {
            let old = r#"[5,1,0,0,0,0,0,0,40000,40000,{"9":1}]"#;
            redis
                .cli(&["HSET", key, &format!("tool-{run}-{n}"), old])
                .await;
        }
    }
    let steps = [tool("newcomer", now - 1000, 40), root("a", now, 2000)];
    append(app, &tenant, "last", &steps, 1).await;
    work(app, 1).await;
    let page = get(&instance, "/stats?window=all&by=tool").await;
    assert!(
        counted(&page["tool"]).contains_key("newcomer"),
        "180 of 201 make room, 4 are asked"
    );
}

pub(crate) async fn what_a_run_adds_is_counted_and_stays_when_the_run_goes(case: Case) {
    let (app, tenant) = (&case.app, TenantId::default());
    let now = now_unix_ms();
    // More names than there is room for.
    for run in 0..4 {
        let mut steps: Vec<_> = (0..60)
            .map(|n| tool(&format!("tool-{run}-{n}"), now - 1000, 40))
            .collect();
        steps.push(root("a", now, 2000));
        append(app, &tenant, &format!("t{run}"), &steps, 1).await;
    }
    work(app, 4).await;
    let counted = async || {
        let stats = app.log.stats(&tenant, Window::Hour, &Dimension::ALL).await;
        let mut rows = stats.expect("answered").rows;
        let tools = rows.remove(&Dimension::Tool).expect("asked for");
        let calls: u64 = tools.values().map(|figures| figures.calls).sum();
        (calls, tools.get(OTHER).map(|figures| figures.calls))
    };
    assert_eq!(counted().await, (240, Some(40)));
    let of = async || {
        let kept = case.server.cli(&["HLEN", "{default}:stats:of"]).await;
        kept.trim().to_owned()
    };
    assert_eq!(of().await, ":4");
    let removed = app.log.remove_before(&tenant, now_unix_ms() + 1_000).await;
    assert_eq!(
        (removed.expect("removed"), of().await),
        (4, ":0".to_owned())
    );
    assert_eq!(counted().await, (240, Some(40)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_killed_at_named_points_count_every_run_once() {
    const POINTS: usize = 8;
    let redis = RedisServer::start().await;
    let gate = Gate::before(SocketAddr::from(([127, 0, 0, 1], redis.port))).await;
    let (url, port) = (format!("redis://{}", gate.address), ReservedPort::take());
    let variables = vec![("TAILSPAN_GRACE_MS".to_owned(), "50".to_owned())];
    let start = || Process::with(port.number, &url, variables.clone());
    let app = App::start(config(&redis.url()))
        .await
        .expect("the app starts");
    let tenant = TenantId::default();
    let now = now_unix_ms();
    // 40 names each, and an agent: seven steps of eight cells.
    let mut steps: Vec<_> = (0..40)
        .map(|n| tool(&format!("tool-{n}"), now - 1000, 40))
        .collect();
    steps.push(root("a", now, 2000));
    for kill in 0..POINTS {
        // Every other time Redis does what it is told, and nobody hears of it.
        gate.arm(Some(Stop {
            part: b"}:stats:of\r\n",
            sent: true,
            passes: kill % 2 == 0,
            after: kill / 2,
        }));
        let process = tokio::task::block_in_place(start);
        append(&app, &tenant, &format!("run-{kill}"), &steps, 1).await;
        tokio::time::timeout(Duration::from_secs(30), gate.reached())
            .await
            .unwrap_or_else(|_| panic!("kill {kill}: the point is never reached"));
        drop(process);
        // XCLAIM with IDLE makes a job old without waiting for it.
        for entry in pending(&redis).await {
            let claim = [
                "XCLAIM",
                "work",
                "workers",
                "dead",
                "0",
                &entry,
                "IDLE",
                "60000",
                "RETRYCOUNT",
                "1",
            ];
            redis.cli(&claim).await;
        }
    }
    gate.arm(None);
    let process = tokio::task::block_in_place(start);
    until("every job is done", async || {
        let work = app.log.work_counts().await.expect("counted");
        work.length == 0
    })
    .await;
    let page: Value = http()
        .get(format!("http://127.0.0.1:{}/stats?window=all", port.number))
        .send()
        .await
        .expect("sent")
        .json()
        .await
        .expect("JSON");
    let expected: BTreeMap<_, _> = (0..40)
        .map(|n| (format!("tool-{n}"), [POINTS as u64, 0, 0, 0]))
        .collect();
    assert_eq!(counted(&page["tool"]), expected);
    assert_eq!(page["agent"]["total"]["calls"], POINTS);
    drop(process);
}

/// Jobs that were taken and not done.
async fn pending(redis: &RedisServer) -> Vec<String> {
    let pending = redis
        .cli(&["XPENDING", "work", "workers", "-", "+", "100"])
        .await;
    let is_id = |line: &&str| {
        line.split_once('-').is_some_and(|(ms, n)| {
            ms.len() == 13
                && [ms, n]
                    .iter()
                    .all(|part| part.bytes().all(|b| b.is_ascii_digit()))
        })
    };
    pending
        .lines()
        .map(str::trim)
        .filter(is_id)
        .map(str::to_owned)
        .collect()
}
