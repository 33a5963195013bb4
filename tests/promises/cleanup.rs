//! What is old goes, on schedule and on request: all of it and nothing else, in steps that can be stopped anywhere.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tailspan_core::{
    id::{TenantId, TraceId},
    listing::Place,
    retention::Retention,
    settle::Status,
};
use tailspan_service::{
    App,
    log::{
        append::AppendOptions,
        now_unix_ms,
        remove::{Removal, Wanted},
    },
};

use crate::{
    log::native,
    support::{Instance, RedisServer, config, http},
};

const DAY_MS: u64 = 24 * 60 * 60 * 1000;

/// A run of a session that ended so; `None`: it goes on.
async fn run(app: &App, tenant: &TenantId, trace: &str, ended: Option<&str>) {
    let mut events = vec![native(
        Some(1),
        r#"{"event_type":"workflow_started","agent_id":"a","session_id":"s","user_id":"u"}"#,
    )];
    // Long text has pieces of its own.
    let text = "what was said ".repeat(400);
    events.push(native(
        Some(2),
        &format!(r#"{{"event_type":"message","text":"{text}"}}"#),
    ));
    if let Some(ended) = ended {
        let mut end = native(
            Some(3),
            &format!(r#"{{"event_type":"{ended}","agent_id":"a"}}"#),
        );
        end.may_end_run = true;
        events.push(end);
    }
    let trace = TraceId::parse(trace).expect("valid");
    let appended = app
        .log
        .append(tenant, &trace, events, AppendOptions::default());
    appended.await.expect("appended");
}

/// Works until every run that ended is settled and taken in.
async fn work(app: &App, mut runs: usize) {
    while runs > 0 {
        let until = Instant::now() + Duration::from_millis(100);
        let done = tailspan_worker::work_off(app, until, |_| {}).await;
        runs = runs.saturating_sub(done.expect("worked"));
    }
}

/// Makes a trace as old as that, without waiting for it.
async fn age(redis: &RedisServer, tenant: &str, trace: &str, age_ms: u64) {
    let at = (now_unix_ms() - age_ms).to_string();
    let key = format!("{{{tenant}/{trace}}}:trace");
    if redis.cli(&["EXISTS", &key]).await.trim() == ":1" {
        redis.cli(&["HSET", &key, "at", &at]).await;
    }
    for index in keys(redis, &format!("{{{tenant}}}:*")).await {
        if index.ends_with(":traces") || index.contains(":by:") {
            redis.cli(&["ZADD", &index, "XX", &at, trace]).await;
        }
    }
}

async fn keys(redis: &RedisServer, pattern: &str) -> BTreeSet<String> {
    let answer = redis.cli(&["KEYS", pattern]).await;
    let names = answer.lines().filter(|line| !line.starts_with(['*', '$']));
    names.map(str::to_owned).collect()
}

async fn post(instance: &Instance, path: &str, body: &str) -> (u16, Value) {
    let request = http().post(instance.url(path)).body(body.to_owned());
    let answer = request.send().await.expect("sent");
    let status = answer.status().as_u16();
    (status, answer.json().await.expect("JSON"))
}

async fn status_of(instance: &Instance, path: &str) -> u16 {
    let answer = http().get(instance.url(path)).send().await;
    answer.expect("sent").status().as_u16()
}

/// What Redis holds when no trace is left: who there was, what was counted, the capped logs.
async fn nothing_is_left_of_traces(redis: &RedisServer) {
    let left: Vec<_> = keys(redis, "*").await.into_iter().collect();
    let expected = |key: &String| {
        ["tenants", "work", "{default}:log", "{other}:log"].contains(&key.as_str())
            || key.contains("}:stats:") && !key.ends_with(":stats:of")
    };
    let surplus: Vec<_> = left.iter().filter(|key| !expected(key)).collect();
    assert!(surplus.is_empty(), "{surplus:?}");
}

#[tokio::test]
async fn a_request_removes_what_ended_and_is_old_of_its_tenant_alone() {
    let redis = RedisServer::start().await;
    let mut config = config(&redis.url());
    config.tokens.insert("mine".to_owned(), TenantId::default());
    config.tokens.insert(
        "theirs".to_owned(),
        TenantId::parse("other").expect("valid"),
    );
    let instance = Instance::with(config).await;
    let (app, mine) = (&instance.app, TenantId::default());
    let theirs = TenantId::parse("other").expect("valid");
    for (tenant, trace, ended) in [
        (&mine, "old", Some("workflow_completed")),
        (&mine, "failed", Some("workflow_failed")),
        (&mine, "young", Some("workflow_completed")),
        (&mine, "running", None),
        (&theirs, "old", Some("workflow_completed")),
    ] {
        run(app, tenant, trace, ended).await;
    }
    work(app, 4).await;
    for (tenant, trace) in [("default", "old"), ("default", "failed"), ("other", "old")] {
        age(&redis, tenant, trace, 8 * DAY_MS).await;
    }
    // Running, and not silent for long enough to be lost.
    age(&redis, "default", "running", 60_000).await;

    let clean = async |body: Value| {
        let (status, answer) =
            post(&instance, "/traces/cleanup?token=mine", &body.to_string()).await;
        assert_eq!(
            (status, &answer["complete"]),
            (200, &json!(true)),
            "{answer}"
        );
        (
            answer["matched"].as_u64().unwrap(),
            answer["deleted"].as_u64().unwrap(),
        )
    };
    for body in [
        "",
        "[]",
        "{}",
        r#"{"days":0}"#,
        r#"{"days":-1}"#,
        r#"{"days":"7"}"#,
        r#"{"days":7,"older_than":"7d"}"#,
        r#"{"days":7,"all":true}"#,
    ] {
        let (status, answer) = post(&instance, "/traces/cleanup?token=mine", body).await;
        assert_eq!(
            (status, &answer["error"]["code"]),
            (400, &json!("invalid_body")),
            "{body}"
        );
    }
    let (status, _) = post(&instance, "/traces/cleanup?token=mine", &" ".repeat(70_000)).await;
    assert_eq!(status, 413);
    let (status, _) = post(&instance, "/traces/cleanup", r#"{"days":7}"#).await;
    assert_eq!(status, 401);
    assert_eq!(clean(json!({"days": 9})).await, (0, 0));
    assert_eq!(clean(json!({"days": 7, "dry_run": true})).await, (2, 0));
    assert_eq!(status_of(&instance, "/traces/old?token=mine").await, 200);
    assert_eq!(
        clean(json!({"older_than": "168h", "status": "failed"})).await,
        (1, 1)
    );
    assert_eq!(clean(json!({"days": 7})).await, (1, 1));
    assert_eq!(clean(json!({"days": 7})).await, (0, 0), "done is done");
    // Running for a minute, and nobody calls it ended.
    assert_eq!(clean(json!({"older_than": "30s"})).await, (0, 0));
    for (path, status) in [
        ("/traces/old?token=mine", 404),
        ("/traces/failed/events?token=mine", 404),
        ("/traces/young?token=mine", 200),
        ("/traces/running?token=mine", 200),
        ("/traces/old?token=theirs", 200),
    ] {
        assert_eq!(status_of(&instance, path).await, status, "{path}");
    }
    let list: Value = http()
        .get(instance.url("/traces?token=mine"))
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    let listed: BTreeSet<_> = list["traces"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["trace_id"].as_str().unwrap())
        .collect();
    assert_eq!(listed, BTreeSet::from(["running", "young"]));
    // As the clients of seed 001 ask, in its envelope; silent for so long it is lost.
    age(&redis, "default", "running", 8 * DAY_MS).await;
    let (status, answer) = post(&instance, "/v1/trace/traces/cleanup?token=mine", "").await;
    assert_eq!(
        (status, &answer["code"], &answer["data"]["deleted"]),
        (200, &json!(0), &json!(1))
    );
    let (status, answer) = post(
        &instance,
        "/v1/trace/traces/cleanup?token=mine",
        r#"{"days":-3}"#,
    )
    .await;
    assert_eq!((status, &answer["code"]), (400, &json!(101)));
    // With the last of them all is gone.
    age(&redis, "default", "young", 8 * DAY_MS).await;
    assert_eq!(clean(json!({"days": 7})).await, (1, 1));
    let (status, answer) = post(&instance, "/traces/cleanup?token=theirs", r#"{"days":7}"#).await;
    assert_eq!((status, &answer["deleted"]), (200, &json!(1)));
    nothing_is_left_of_traces(&redis).await;
}

#[tokio::test]
async fn a_removal_that_is_stopped_anywhere_goes_on_and_leaves_nothing() {
    let redis = RedisServer::start().await;
    let app = App::start(config(&redis.url()))
        .await
        .expect("the app starts");
    let tenant = TenantId::default();
    // More than two steps, many of them of one millisecond.
    for n in 0..230 {
        let trace = TraceId::parse(&format!("t{n:03}")).expect("valid");
        let end = native(
            Some(1),
            r#"{"event_type":"workflow_completed","session_id":"s"}"#,
        );
        let appended = app
            .log
            .append(&tenant, &trace, vec![end], AppendOptions::default());
        appended.await.expect("appended");
    }
    work(&app, 230).await;
    let began = (now_unix_ms() - 1_000_000).to_string();
    for n in 0..150 {
        redis
            .cli(&[
                "ZADD",
                "{default}:traces",
                "XX",
                &began,
                &format!("t{n:03}"),
            ])
            .await;
    }
    let later = now_unix_ms() + 1;
    let removal = |wanted, dry_run| Removal {
        before_unix_ms: later,
        wanted,
        dry_run,
    };
    let walk = async |removal: Removal, most: usize| {
        let (mut steps, mut matched, mut after) = (0, 0, None::<Place>);
        while steps < most {
            let step = app
                .log
                .remove_step(&tenant, &removal, after.as_ref())
                .await
                .expect("done");
            steps += 1;
            matched += step.matched;
            after = step.next;
            if after.is_none() {
                break;
            }
        }
        (steps, matched)
    };
    assert_eq!(
        walk(removal(Wanted::Ended, true), 9).await,
        (3, 230),
        "each once"
    );
    assert_eq!(
        walk(removal(Wanted::As(Status::Failed), true), 9).await,
        (1, 0)
    );
    assert_eq!(
        walk(removal(Wanted::Ended, false), 1).await,
        (1, 100),
        "and stopped"
    );
    // Killed between data and rows: what is left of a trace is its row.
    for n in 150..170 {
        for key in keys(&redis, &format!("{{default/t{n}}}:*")).await {
            redis.cli(&["DEL", &key]).await;
        }
    }
    assert_eq!(walk(removal(Wanted::Ended, true), 9).await.1, 110);
    assert_eq!(walk(removal(Wanted::Ended, false), 9).await.1, 110);
    assert_eq!(walk(removal(Wanted::Any, false), 9).await, (1, 0));
    nothing_is_left_of_traces(&redis).await;
}

#[tokio::test]
async fn retention_is_that_of_the_tenant_and_of_how_a_run_ended() {
    let redis = RedisServer::start().await;
    let mut config = config(&redis.url());
    let rules = "failed=30d,completed=2d,other/completed=12h";
    config.retention = Retention::new(7 * DAY_MS).with_rules(rules).expect("rules");
    let app = App::start(config).await.expect("the app starts");
    let tenants = ["default", "other"].map(|name| TenantId::parse(name).expect("valid"));
    for tenant in &tenants {
        run(&app, tenant, "completed", Some("workflow_completed")).await;
        run(&app, tenant, "failed", Some("workflow_failed")).await;
        run(&app, tenant, "open", None).await;
    }
    work(&app, 4).await;
    let left = async || {
        let soon = Instant::now() + Duration::from_secs(20);
        let swept = tailspan_cleanup::sweep(&app, soon).await.expect("swept");
        assert!(swept.complete);
        let mut left = BTreeSet::new();
        for key in keys(&redis, "*}:trace").await {
            left.insert(key.trim_start_matches('{').replace("}:trace", ""));
        }
        left
    };
    let all = ["completed", "failed", "open"];
    for tenant in ["default", "other"] {
        for trace in all {
            age(&redis, tenant, trace, DAY_MS).await;
        }
    }
    let expected = |names: &[&str]| {
        names
            .iter()
            .map(|name| (*name).to_owned())
            .collect::<BTreeSet<_>>()
    };
    // Silent for a day, what is open is lost, and kept as long as what is lost.
    assert_eq!(
        left().await,
        expected(&[
            "default/completed",
            "default/failed",
            "default/open",
            "other/failed",
            "other/open"
        ])
    );
    for (trace, days) in [("completed", 3), ("failed", 8), ("open", 6)] {
        age(&redis, "default", trace, days * DAY_MS).await;
        age(&redis, "other", trace, days * DAY_MS).await;
    }
    assert_eq!(
        left().await,
        expected(&[
            "default/failed",
            "default/open",
            "other/failed",
            "other/open"
        ])
    );
    for trace in ["failed", "open"] {
        age(&redis, "default", trace, 31 * DAY_MS).await;
    }
    assert_eq!(left().await, expected(&["other/failed", "other/open"]));
    for trace in ["failed", "open"] {
        age(&redis, "other", trace, 31 * DAY_MS).await;
    }
    assert_eq!(left().await, BTreeSet::new());
    // The jobs of runs that were lost and are gone do nothing.
    let until = Instant::now() + Duration::from_millis(100);
    tailspan_worker::work_off(&app, until, |_| {})
        .await
        .expect("worked");
    nothing_is_left_of_traces(&redis).await;
}
