//! The archive: what retention removes is read, and comes back, as it was; and nothing is removed that is not there.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    process::Stdio,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, Method, StatusCode, Uri},
};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tailspan_core::id::{TenantId, TraceId};
use tailspan_service::{
    App,
    archive::ArchiveConfig,
    config::Config,
    log::{append::AppendOptions, now_unix_ms},
};
use tempfile::TempDir;

use crate::{
    embedded::program,
    log::native,
    support::{Instance, RedisServer, Viewer, config, http},
};

const OTHER: &str = "5b8efff798038103d269b633813fc60c";

struct Kept {
    redis: RedisServer,
    folder: TempDir,
    instance: Instance,
}

fn in_folder(redis: &RedisServer, folder: &Path) -> Config {
    let mut config = config(&redis.url());
    config.archive = Some(ArchiveConfig::Folder(folder.to_owned()));
    // What never says that it ended is settled within the test.
    (config.patience.stalled_ms, config.patience.lost_ms) = (600, 1200);
    config
}

impl Kept {
    async fn start() -> Self {
        let redis = RedisServer::start().await;
        let folder = tempfile::tempdir().unwrap();
        let instance = Instance::with(in_folder(&redis, folder.path())).await;
        Self {
            redis,
            folder,
            instance,
        }
    }

    fn app(&self) -> &App {
        &self.instance.app
    }

    /// Everything that is archived of the tenant, by name.
    fn files(&self) -> BTreeMap<String, Vec<u8>> {
        let entries = std::fs::read_dir(self.folder.path().join("default"));
        let files = entries.into_iter().flatten().map(|entry| {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            (name, std::fs::read(path).unwrap())
        });
        files.collect()
    }

    async fn traces(&self) -> BTreeSet<String> {
        let keys = self.redis.cli(&["KEYS", "{default/*}:trace"]).await;
        let names = keys.lines().filter_map(|line| {
            let name = line.strip_prefix("{default/")?;
            name.strip_suffix("}:trace").map(str::to_owned)
        });
        names.collect()
    }
}

/// Settles every run, and lets the workers take in what they are told.
async fn settle(app: &App, traces: &BTreeSet<String>) {
    let tenant = TenantId::default();
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        let soon = Instant::now() + Duration::from_secs(5);
        tailspan_cleanup::sweep(app, soon).await.unwrap();
        tailspan_worker::work_off(app, Instant::now() + Duration::from_millis(50), |_| {})
            .await
            .unwrap();
        let mut open = 0;
        for trace in traces {
            let trace = TraceId::parse(trace).unwrap();
            let state = app.log.state(&tenant, &trace).await.unwrap().unwrap();
            open += usize::from(state.ended().is_none());
        }
        if open == 0 {
            break;
        }
        assert!(Instant::now() < until, "{open} runs do not end");
    }
    // Jobs of what was settled last.
    while tailspan_worker::work_off(app, Instant::now() + Duration::from_millis(200), |_| {})
        .await
        .unwrap()
        > 0
    {}
}

async fn remove_all(app: &App) -> u64 {
    let before = now_unix_ms() + 3_600_000;
    let removed = app.log.remove_before(&TenantId::default(), before).await;
    removed.unwrap()
}

/// An answer: its status, whether it is of the archive, and its bytes.
async fn get(instance: &Instance, path: &str) -> (u16, bool, String) {
    let answer = http().get(instance.url(path)).send().await.unwrap();
    let archived = answer.headers().contains_key("x-tailspan-archived");
    (
        answer.status().as_u16(),
        archived,
        answer.text().await.unwrap(),
    )
}

/// What every read says of a trace, and whether all of it is of the archive.
async fn said(instance: &Instance, trace: &str) -> (BTreeMap<String, String>, BTreeSet<bool>) {
    read(instance, trace, Reads::All).await
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Reads {
    All,
    /// Of many traces: those from which the others are made.
    Few,
}

async fn read(
    instance: &Instance,
    trace: &str,
    reads: Reads,
) -> (BTreeMap<String, String>, BTreeSet<bool>) {
    let mut said = BTreeMap::new();
    let mut archived = BTreeSet::new();
    let mut paths: Vec<String> = [
        "",
        "?format=detailed&level=debug",
        "/events?level=debug&limit=1000",
        "/events?level=debug&limit=3&offset=2",
        "/summary",
        "/summary?level=debug",
        // But for what is told against the tenant's history, which goes with its traces.
        "/analysis?level=debug&history_count=1000000000",
        "/invocations",
        "/digest?level=debug",
        "/export",
        "/export?format=jsonl",
    ]
    .map(|path| format!("/traces/{trace}{path}"))
    .to_vec();
    paths.extend(["", "/events", "/summary"].map(|path| format!("/v1/trace/traces/{trace}{path}")));
    if reads == Reads::Few {
        let few = [
            "level=debug&limit=1000",
            "/summary",
            "history_count",
            "/invocations",
        ];
        paths.retain(|path| {
            !path.contains("/v1/") && few.iter().any(|ending| path.contains(ending))
        });
    }
    while let Some(path) = paths.pop() {
        let (status, is_archived, mut text) = get(instance, &path).await;
        assert_eq!(status, 200, "{path}: {text}");
        archived.insert(is_archived);
        if path.ends_with("limit=1000")
            && let Ok(page) = serde_json::from_str::<Value>(&text)
            && let Some(next) = page["next_cursor"].as_str()
        {
            paths.push(format!(
                "/traces/{trace}/events?level=debug&cursor={next}&limit=1000"
            ));
        }
        if path.contains("/v1/trace") {
            // The envelope says when it was made.
            let mut envelope: Value = serde_json::from_str(&text).unwrap();
            envelope.as_object_mut().unwrap().remove("timestamp");
            text = envelope.to_string();
        }
        said.insert(path, text);
    }
    if reads == Reads::Few {
        return (said, archived);
    }
    let spans: Value = serde_json::from_str(&said[&format!("/traces/{trace}")]).unwrap();
    if let Some(span) = spans["spans"].as_array().and_then(|spans| spans.first()) {
        let path = format!(
            "/traces/{trace}/spans/{}/why",
            span["span_id"].as_str().unwrap()
        );
        let (_, is_archived, text) = get(instance, &path).await;
        archived.insert(is_archived);
        said.insert(path, text);
    }
    let stream = format!("/traces/{trace}/stream?level=debug");
    let mut viewer = Viewer::open(&instance.url(&stream), None).await.unwrap();
    let frames = viewer.rest().await.unwrap();
    assert_eq!(frames.last().unwrap().name, "end", "{frames:?}");
    said.insert(stream, format!("{frames:?}"));
    (said, archived)
}

async fn import(instance: &Instance, query: &str, file: Vec<u8>) -> (u16, Value) {
    let url = instance.url(&format!("/traces/import{query}"));
    let answer = http().post(url).body(file).send().await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap())
}

/// The state of each trace, but for what says something of the store.
async fn states(kept: &Kept) -> BTreeMap<String, BTreeMap<String, String>> {
    let mut states = BTreeMap::new();
    for trace in kept.traces().await {
        let key = format!("{{default/{trace}}}:trace");
        let all = kept.redis.cli(&["HGETALL", &key]).await;
        let words: Vec<&str> = all
            .lines()
            .filter(|line| !line.starts_with(['*', '$']))
            .collect();
        let mut fields: BTreeMap<String, String> = words
            .chunks_exact(2)
            .map(|pair| (pair[0].to_owned(), pair[1].to_owned()))
            .collect();
        for passing in ["fold", "kept_until", "restored", "compacted", "token"] {
            fields.remove(passing);
        }
        states.insert(trace, fields);
    }
    states
}

/// What a list shows, in its order.
async fn listed_traces(kept: &Kept) -> Vec<(String, String)> {
    let (_, _, page) = get(&kept.instance, "/traces?limit=200").await;
    let page: Value = serde_json::from_str(&page).unwrap();
    let rows = page["traces"].as_array().unwrap().iter();
    let text = |row: &Value, field: &str| row[field].as_str().unwrap().to_owned();
    rows.map(|row| (text(row, "trace_id"), text(row, "status")))
        .collect()
}

/// Archives everything, reads it there, brings it back, and compares.
async fn goes_there_and_back(kept: &Kept, reads: Reads) {
    let traces = kept.traces().await;
    assert!(!traces.is_empty());
    settle(kept.app(), &traces).await;
    let was = states(kept).await;
    let mut before = BTreeMap::new();
    for trace in &traces {
        let (all, archived) = read(&kept.instance, trace, reads).await;
        assert_eq!(archived, BTreeSet::from([false]));
        before.insert(trace.clone(), all);
    }
    let listed = listed_traces(kept).await;

    assert_eq!(remove_all(kept.app()).await, traces.len() as u64);
    assert_eq!(kept.redis.cli(&["KEYS", "{default/*"]).await.trim(), "*0");
    let files = kept.files();
    assert_eq!(files.len(), traces.len());
    // Not listed: a list that never forgets would grow without end.
    let empty: Value = serde_json::from_str(&get(&kept.instance, "/traces").await.2).unwrap();
    assert_eq!(empty["traces"], json!([]));
    for trace in &traces {
        let (all, archived) = read(&kept.instance, trace, reads).await;
        assert_eq!(archived, BTreeSet::from([true]), "{trace}");
        assert_same(&before[trace], &all);
    }

    for file in files.values() {
        let (status, told) = import(&kept.instance, "", file.clone()).await;
        assert_eq!(
            (status, &told["traces"][0]["duplicates"]),
            (200, &json!(0)),
            "{told}"
        );
        // Again: nothing is added.
        let (_, told) = import(&kept.instance, "", file.clone()).await;
        let of = &told["traces"][0];
        assert_eq!(of["duplicates"], of["accepted"], "{told}");
    }
    assert_eq!(kept.traces().await, traces);
    for trace in &traces {
        let (all, archived) = read(&kept.instance, trace, reads).await;
        assert_eq!(archived, BTreeSet::from([false]));
        assert_same(&before[trace], &all);
    }
    let is = states(kept).await;
    for (trace, fields) in &was {
        for (field, value) in fields {
            assert_eq!(is[trace].get(field), Some(value), "{trace} {field}");
        }
    }
    assert_eq!(listed_traces(kept).await, listed);
    // It is kept as if it had just come, and not removed by the next sweep.
    let soon = Instant::now() + Duration::from_secs(5);
    let swept = tailspan_cleanup::sweep(kept.app(), soon).await.unwrap();
    assert_eq!(swept.removed, 0);
    // Archived again it is the same.
    assert_eq!(remove_all(kept.app()).await, traces.len() as u64);
    assert!(kept.files().keys().eq(files.keys()));
    for trace in traces.iter().take(5) {
        assert_same(&before[trace], &read(&kept.instance, trace, reads).await.0);
    }
}

fn assert_same(before: &BTreeMap<String, String>, after: &BTreeMap<String, String>) {
    for (path, text) in before {
        assert_eq!(after.get(path), Some(text), "{path}");
    }
    assert_eq!(before.len(), after.len());
}

fn scenarios() -> Vec<PathBuf> {
    let folder = std::env::var("TAILSPAN_CORPUS")
        .unwrap_or_else(|_| concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/corpus").to_owned());
    let Ok(entries) = std::fs::read_dir(&folder) else {
        println!("no corpus at {folder}: skipped");
        return Vec::new();
    };
    let folders = entries.map(|entry| entry.unwrap().path());
    let mut scenarios: Vec<_> = folders
        .filter(|path| path.join("requests").exists())
        .collect();
    scenarios.sort();
    scenarios
}

async fn send_scenario(instance: &Instance, scenario: &Path) {
    let files = std::fs::read_dir(scenario.join("requests")).unwrap();
    let mut files: Vec<_> = files.map(|file| file.unwrap().path()).collect();
    files.sort();
    for file in files {
        if file.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        let about: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
        let path = about["path"].as_str().unwrap();
        let mut request = http().post(instance.url(path));
        for header in about["headers"].as_array().unwrap() {
            let (name, value) = (header[0].as_str().unwrap(), header[1].as_str().unwrap());
            if ["content-type", "content-encoding"].contains(&name.to_lowercase().as_str()) {
                request = request.header(name, value);
            }
        }
        let body = std::fs::read(file.with_extension("body")).unwrap();
        let answer = request.body(body).send().await.unwrap();
        assert!(
            answer.status().is_success(),
            "{file:?}: {}",
            answer.status()
        );
    }
}

#[tokio::test]
async fn every_recorded_run_goes_there_and_back() {
    let scenarios = scenarios();
    if scenarios.is_empty() {
        return;
    }
    let kept = Kept::start().await;
    for scenario in &scenarios {
        send_scenario(&kept.instance, scenario).await;
    }
    let traces = kept.traces().await.len();
    println!("{} scenarios, {traces} traces", scenarios.len());
    goes_there_and_back(&kept, Reads::Few).await;
}

async fn post(instance: &Instance, path: &str, body: &Value) {
    let sent = http().post(instance.url(path)).json(body).send().await;
    let answer = sent.unwrap();
    assert!(
        answer.status().is_success(),
        "{}",
        answer.text().await.unwrap()
    );
}

fn span(trace: &str, id: u64, parent: u64, text: &str) -> Value {
    let attribute = |key: &str, value: Value| json!({"key": key, "value": value});
    let start = 1_800_000_000_000_000_000 + id * 1_000_000;
    let mut span = json!({"traceId": trace, "spanId": format!("{id:016x}"), "name": "chat m", "kind": 3,
    "startTimeUnixNano": start.to_string(), "endTimeUnixNano": (start + 500_000).to_string(),
    "attributes": [
        attribute("gen_ai.operation.name", json!({"stringValue": "chat"})),
        attribute("gen_ai.conversation.id", json!({"stringValue": "talk"})),
        attribute("gen_ai.input.messages", json!({"stringValue": text})),
        attribute("odd", json!({"arrayValue": {"values": [{"intValue": "9007199254740993"}, {"doubleValue": "NaN"}, {"bytesValue": "AQI="}, {}]}})),
    ]});
    if parent > 0 {
        span["parentSpanId"] = format!("{parent:016x}").into();
    }
    span
}

fn export(spans: Vec<Value>) -> Value {
    json!({"resourceSpans": [{"resource": {"attributes": [{"key": "service.name", "value": {"stringValue": "a"}}]},
        "scopeSpans": [{"scope": {"name": "s", "version": "1"}, "spans": spans}]}]})
}

/// Runs of every sort that the store can hold.
async fn made_up(kept: &Kept) {
    let instance = &kept.instance;
    // Many requests, long texts that share their pieces, a re-send; then log records and a native event of the same trace.
    for request in 0..5u64 {
        let text = format!(
            "[{{\"role\":\"user\",\"content\":\"{}\"}}]",
            "what was said ".repeat(400)
        );
        let spans = (2..14)
            .map(|n| span(OTHER, request * 30 + n, 1, &format!("{text}{n}")))
            .collect();
        post(instance, "/v1/traces", &export(spans)).await;
    }
    post(
        instance,
        "/v1/traces",
        &export(vec![span(OTHER, 2, 1, "changed")]),
    )
    .await;
    post(instance, "/v1/logs", &json!({"resourceLogs": [{"scopeLogs": [{"logRecords": [
        {"traceId": OTHER, "spanId": "0000000000000002", "timeUnixNano": "1800000000000000009", "eventName": "gen_ai.choice", "body": {"stringValue": "hi"}}]}]}]})).await;
    post(
        instance,
        &format!("/traces/{OTHER}/events"),
        &json!({"event_type": "step", "event_id": "e1", "odd": [null, -0.5, "\u{2028}\n\"}}"]}),
    )
    .await;
    post(
        instance,
        "/v1/traces",
        &export(vec![span(OTHER, 1, 0, "root")]),
    )
    .await;
    // Native only, under a name that is no id of OpenTelemetry's, failed.
    for event in [
        json!({"event_type": "workflow_started", "agent_id": "a", "session_id": "s", "user_id": "u"}),
        json!({"event_type": "tool_call", "name": "t", "arguments": {"a": [1, 2.5, null]}}),
        json!({"event_type": "workflow_failed", "agent_id": "a", "error": "boom"}),
    ] {
        post(instance, "/traces/Run-7_x/events", &event).await;
    }
    // Several runs of one trace.
    for run in 1..=3u64 {
        let trace = "000000000000000000000000000000aa";
        let root = run * 10;
        post(
            instance,
            "/v1/traces",
            &export(vec![
                span(trace, root + 1, root, "x"),
                span(trace, root, 0, "y"),
            ]),
        )
        .await;
        let only = BTreeSet::from([trace.to_owned()]);
        settle(kept.app(), &only).await;
    }
    // Recorded at a lower level.
    let lowered = http()
        .post(instance.url("/v1/traces"))
        .header("x-trace-level", "standard")
        .json(&export(vec![span(
            "000000000000000000000000000000bb",
            1,
            0,
            "not to be told",
        )]));
    assert!(lowered.send().await.unwrap().status().is_success());
    // Never ended.
    post(
        instance,
        "/traces/open/events",
        &json!({"event_type": "workflow_started", "agent_id": "a"}),
    )
    .await;
    // Begun again, with numbers above those of its first life.
    post(
        instance,
        "/traces/again/events",
        &json!({"event_type": "step", "name": "old"}),
    )
    .await;
    post(
        instance,
        "/traces/again/events?replace=true",
        &json!({"event_type": "workflow_completed", "name": "new"}),
    )
    .await;
    // What an evaluation said about a run stands behind it, and is no part of it.
    let scored = BTreeSet::from(["Run-7_x".to_owned()]);
    settle(kept.app(), &scored).await;
    let result = native(
        Some(77),
        r#"{"event_type":"gen_ai.evaluation.result","gen_ai.evaluation.name":"n","gen_ai.evaluation.score.value":0.5}"#,
    );
    let (tenant, trace) = (TenantId::default(), TraceId::parse("Run-7_x").unwrap());
    let aside = kept
        .app()
        .log
        .append_aside(&tenant, &trace, vec![result], vec![]);
    assert_eq!(aside.await.unwrap().stored, 1);
}

#[tokio::test]
async fn every_sort_of_run_goes_there_and_back() {
    let kept = Kept::start().await;
    made_up(&kept).await;
    goes_there_and_back(&kept, Reads::All).await;
    // What was joined meanwhile reads as before.
    for file in kept.files().into_values() {
        assert_eq!(import(&kept.instance, "", file).await.0, 200);
    }
    let tenant = TenantId::default();
    let trace = TraceId::parse(OTHER).unwrap();
    let (before, _) = said(&kept.instance, OTHER).await;
    let state = kept
        .app()
        .log
        .state(&tenant, &trace)
        .await
        .unwrap()
        .unwrap();
    kept.app()
        .log
        .compact(&tenant, &trace, &state)
        .await
        .unwrap();
    remove_all(kept.app()).await;
    let (after, archived) = said(&kept.instance, OTHER).await;
    assert_eq!(archived, BTreeSet::from([true]));
    assert_same(&before, &after);
}

#[tokio::test]
async fn the_command_brings_back_what_was_archived_and_what_is_sent_again_is_known() {
    let kept = Kept::start().await;
    let spans = vec![span(OTHER, 2, 1, "x"), span(OTHER, 1, 0, "y")];
    post(&kept.instance, "/v1/traces", &export(spans.clone())).await;
    settle(kept.app(), &kept.traces().await).await;
    remove_all(kept.app()).await;
    let path = kept
        .folder
        .path()
        .join(format!("default/{OTHER}.jsonl.zst"));
    let run = |words: Vec<String>| {
        let child = tokio::process::Command::new(program())
            .args(words)
            .env("TAILSPAN_URL", kept.instance.url(""))
            .stdin(Stdio::null())
            .output();
        async move {
            let output = child.await.unwrap();
            let text = |bytes| String::from_utf8(bytes).unwrap();
            (
                output.status.code(),
                text(output.stdout),
                text(output.stderr),
            )
        }
    };
    let words = || vec!["import".to_owned(), path.display().to_string()];
    let (code, told, error) = run(words()).await;
    assert_eq!((code, error.as_str()), (Some(0), ""));
    assert!(told.starts_with(&format!("{OTHER}  2 events")), "{told}");
    post(&kept.instance, "/v1/traces", &export(spans)).await;
    let app = kept.app();
    let state = |trace: &str| {
        let trace = TraceId::parse(trace).unwrap();
        async move {
            app.log
                .state(&TenantId::default(), &trace)
                .await
                .unwrap()
                .unwrap()
        }
    };
    let is = state(OTHER).await;
    assert_eq!((is.seq, is.ended()), (2, Some("completed")));

    // It went on since: not overwritten unawares.
    post(
        &kept.instance,
        "/v1/traces",
        &export(vec![span(OTHER, 3, 1, "z")]),
    )
    .await;
    let (code, _, error) = run(words()).await;
    assert_eq!(code, Some(1));
    assert!(error.contains("replace=true"), "{error}");
    let with = || {
        words()
            .into_iter()
            .chain(["--replace".to_owned()])
            .collect()
    };
    assert_eq!(run(with()).await.0, Some(0));
    let deleted = http().delete(kept.instance.url(&format!("/traces/{OTHER}")));
    let file = std::fs::read(&path).unwrap();
    assert_eq!(deleted.send().await.unwrap().status(), 204);
    std::fs::write(&path, &file).unwrap();
    let (code, _, error) = run(words()).await;
    assert_eq!(code, Some(1));
    assert!(error.contains("was deleted"), "{error}");
    // A tombstone hides a copy that somebody put there again.
    assert_eq!(
        get(&kept.instance, &format!("/traces/{OTHER}")).await.0,
        404
    );
    assert_eq!(run(with()).await.0, Some(0));
    assert_eq!(
        get(&kept.instance, &format!("/traces/{OTHER}")).await.0,
        200
    );

    // What is no whole archive changes nothing.
    for cut in [file.len() / 2, file.len() - 3] {
        let (status, told) = import(&kept.instance, "?replace=true", file[..cut].to_vec()).await;
        assert_eq!(
            (status, told["error"]["code"].as_str()),
            (400, Some("invalid_file")),
            "{told}"
        );
    }
    assert_eq!(
        get(&kept.instance, &format!("/traces/{OTHER}")).await.0,
        200
    );
}

#[tokio::test]
async fn what_comes_after_a_trace_was_archived_is_archived_behind_it() {
    let kept = Kept::start().await;
    let ended = |id: u64| json!({"event_type": "workflow_completed", "event_id": id.to_string()});
    for round in 1..=3u64 {
        post(
            &kept.instance,
            "/traces/late/events",
            &json!({"event_type": "step", "event_id": format!("s{round}")}),
        )
        .await;
        post(&kept.instance, "/traces/late/events", &ended(round)).await;
        settle(kept.app(), &kept.traces().await).await;
        assert_eq!(remove_all(kept.app()).await, 1);
    }
    let (status, archived, page) = get(&kept.instance, "/traces/late/events?level=debug").await;
    assert_eq!((status, archived), (200, true));
    let page: Value = serde_json::from_str(&page).unwrap();
    let seqs: Vec<u64> = page["events"]
        .as_array()
        .unwrap()
        .iter()
        .map(|event| event["seq"].as_u64().unwrap())
        .collect();
    assert_eq!(seqs, [1, 2, 3, 4, 5, 6], "{page}");
    assert_eq!(
        (page["gap"].as_object(), page["total"].as_u64()),
        (None, Some(6))
    );
    let (before, _) = said(&kept.instance, "late").await;
    let (_, file) = kept.files().pop_first().unwrap();
    assert_eq!(import(&kept.instance, "", file.clone()).await.0, 200);
    assert_same(&before, &said(&kept.instance, "late").await.0);
    // All of it is one log now, and what was sent before is known.
    post(&kept.instance, "/traces/late/events", &ended(1)).await;
    assert_same(&before, &said(&kept.instance, "late").await.0);
    remove_all(kept.app()).await;
    let (again, _) = said(&kept.instance, "late").await;
    assert_same(&before, &again);
}

#[tokio::test]
async fn a_trace_stays_for_as_long_as_it_cannot_be_archived() {
    let kept = Kept::start().await;
    post(
        &kept.instance,
        "/traces/run/events",
        &json!({"event_type": "workflow_completed"}),
    )
    .await;
    settle(kept.app(), &kept.traces().await).await;
    let aside = kept.folder.path().with_extension("away");
    std::fs::rename(kept.folder.path(), &aside).unwrap();
    let before = now_unix_ms() + 3_600_000;
    let failed = kept
        .app()
        .log
        .remove_before(&TenantId::default(), before)
        .await;
    assert!(failed.is_err());
    let cleanup = http()
        .post(kept.instance.url("/traces/cleanup"))
        .json(&json!({"older_than": "0s"}));
    let refused = cleanup.send().await.unwrap().status().as_u16();
    assert!([400, 503].contains(&refused), "{refused}");
    assert_eq!(get(&kept.instance, "/traces/run").await.0, 200);
    // We do not know whether there is one: that is not "there is none".
    assert_eq!(get(&kept.instance, "/traces/nosuch").await.0, 503);
    assert_eq!(get(&kept.instance, "/traces/nosuch/stream").await.0, 503);
    std::fs::rename(&aside, kept.folder.path()).unwrap();
    assert_eq!(get(&kept.instance, "/traces/nosuch").await.0, 404);
    assert_eq!(get(&kept.instance, "/traces/nosuch/stream").await.0, 404);
    assert_eq!(remove_all(kept.app()).await, 1);
    assert_eq!(get(&kept.instance, "/traces/run").await.0, 200);
    // Nothing half-written lies about.
    let parts = std::fs::read_dir(kept.folder.path().join(".parts")).unwrap();
    assert_eq!(parts.count(), 0);
}

#[tokio::test]
async fn deleting_removes_the_archived_copy_and_only_ones_own() {
    let redis = RedisServer::start().await;
    let folder = tempfile::tempdir().unwrap();
    let mut config = in_folder(&redis, folder.path());
    for team in ["a", "b"] {
        let tenant = TenantId::parse(&format!("team-{team}")).unwrap();
        config.tokens.insert(format!("token-{team}"), tenant);
    }
    let instance = Instance::with(config).await;
    let ask = async |method: &str, path: &str, token: &str, body: &str| {
        let request = http().request(method.parse().unwrap(), instance.url(path));
        let answer = request
            .bearer_auth(token)
            .body(body.to_owned())
            .send()
            .await
            .unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    };
    let event = r#"{"event_type":"workflow_completed"}"#;
    assert_eq!(
        ask("POST", "/traces/run/events", "token-a", event).await.0,
        200
    );
    let tenant = TenantId::parse("team-a").unwrap();
    let removed = instance
        .app
        .log
        .remove_before(&tenant, now_unix_ms() + 3_600_000)
        .await;
    assert_eq!(removed.unwrap(), 1);
    assert_eq!(ask("GET", "/traces/run", "token-a", "").await.0, 200);
    for path in [
        "",
        "/events",
        "/summary",
        "/digest",
        "/export",
        "/stream",
        "/spans/step/why",
    ] {
        let foreign = ask("GET", &format!("/traces/run{path}"), "token-b", "").await;
        let absent = ask("GET", &format!("/traces/nun{path}"), "token-b", "").await;
        assert_eq!(foreign.0, 404, "{path}");
        assert_eq!(foreign.1.replace("run", "nun"), absent.1, "{path}");
    }
    for query in ["", "?force=true"] {
        assert_eq!(
            ask("DELETE", &format!("/traces/run{query}"), "token-b", "")
                .await
                .0,
            404
        );
    }
    let file = folder.path().join("team-a/run.jsonl.zst");
    assert!(file.exists());
    assert_eq!(ask("DELETE", "/traces/run", "token-a", "").await.0, 204);
    assert!(!file.exists());
    assert_eq!(ask("GET", "/traces/run", "token-a", "").await.0, 404);
    assert_eq!(ask("DELETE", "/traces/run", "token-a", "").await.0, 404);
    // What comes late does not bring it back.
    assert_eq!(
        ask("POST", "/traces/run/events", "token-a", event).await.0,
        410
    );
    // Begun anew by a person: what was archived of it goes.
    assert_eq!(
        ask("POST", "/traces/run/events?replace=true", "token-a", event)
            .await
            .0,
        200
    );
    instance
        .app
        .log
        .remove_before(&tenant, now_unix_ms() + 3_600_000)
        .await
        .unwrap();
    assert!(file.exists());
    assert_eq!(
        ask("POST", "/traces/run/events?replace=true", "token-a", event)
            .await
            .0,
        200
    );
    assert!(!file.exists());
}

#[tokio::test]
async fn a_trace_that_moves_while_it_is_archived_stays() {
    let kept = Kept::start().await;
    let trace = TraceId::parse("busy").unwrap();
    let tenant = TenantId::default();
    const SENT: u64 = 120;
    // Whatever the sweep has written when an event comes, nothing may be missing in the end.
    let sending = async {
        for sent in 0..SENT {
            let event = native(
                Some(i64::try_from(sent).unwrap()),
                &format!(r#"{{"event_type":"step","n":{sent}}}"#),
            );
            let log = &kept.app().log;
            let options = AppendOptions::default();
            let appended = log.append(&tenant, &trace, vec![event], options).await;
            assert_eq!(appended.unwrap().stored, 1);
        }
    };
    let sweeping = async {
        for _ in 0..40 {
            remove_all(kept.app()).await;
        }
    };
    tokio::join!(sending, sweeping);
    settle(kept.app(), &kept.traces().await).await;
    remove_all(kept.app()).await;
    let (_, archived, file) = get(&kept.instance, "/traces/busy/export?format=jsonl").await;
    assert!(archived);
    for n in 0..SENT {
        let event = format!(r#""n":{n}}}"#);
        assert_eq!(file.matches(&event).count(), 1, "{n}");
    }
}

// A store that speaks as S3 does, and believes nobody who does not sign as the specification says.

const KEY: &str = "AKIDEXAMPLE";
const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";

#[derive(Clone, Default)]
struct Bucket {
    objects: Arc<Mutex<BTreeMap<String, Bytes>>>,
    is_away: Arc<AtomicBool>,
    loses: Arc<AtomicBool>,
    refused: Arc<AtomicUsize>,
}

fn hmac(key: &[u8], text: &str) -> Vec<u8> {
    let mut block = [0u8; 64];
    block[..key.len()].copy_from_slice(key);
    let padded = |pad: u8| block.map(|byte| byte ^ pad);
    let inner = Sha256::new()
        .chain_update(padded(0x36))
        .chain_update(text)
        .finalize();
    let outer = Sha256::new().chain_update(padded(0x5c)).chain_update(inner);
    outer.finalize().to_vec()
}

/// "Authenticating Requests: Using Query Parameters (AWS Signature Version 4)".
fn is_signed(method: &Method, uri: &Uri, headers: &HeaderMap) -> bool {
    let hex = |bytes: &[u8]| {
        bytes
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>()
    };
    let mut pairs: Vec<&str> = uri.query().unwrap_or_default().split('&').collect();
    pairs.sort_unstable();
    let of = |name: &str| {
        let found = pairs
            .iter()
            .find_map(|pair| pair.strip_prefix(&format!("{name}=")));
        found
            .unwrap_or_default()
            .replace("%2F", "/")
            .replace("%3B", ";")
    };
    let signed = of("X-Amz-SignedHeaders");
    let lines: String = signed
        .split(';')
        .map(|name| format!("{name}:{}\n", headers[name].to_str().unwrap().trim()))
        .collect();
    let query: Vec<&str> = pairs
        .iter()
        .copied()
        .filter(|pair| !pair.starts_with("X-Amz-Signature="))
        .collect();
    let canonical = format!(
        "{method}\n{}\n{}\n{lines}\n{signed}\nUNSIGNED-PAYLOAD",
        uri.path(),
        query.join("&")
    );
    let credential = of("X-Amz-Credential");
    let (key, scope) = credential.split_once('/').unwrap();
    let text = format!(
        "AWS4-HMAC-SHA256\n{}\n{scope}\n{}",
        of("X-Amz-Date"),
        hex(&Sha256::digest(canonical))
    );
    let signing = scope
        .split('/')
        .fold(format!("AWS4{SECRET}").into_bytes(), |key, part| {
            hmac(&key, part)
        });
    key == KEY
        && of("X-Amz-Security-Token") == "token"
        && hex(&hmac(&signing, &text)) == of("X-Amz-Signature")
}

async fn answer(
    State(bucket): State<Bucket>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> (StatusCode, HeaderMap, Bytes) {
    let told = |status| (status, HeaderMap::new(), Bytes::new());
    if bucket.is_away.load(Ordering::SeqCst) {
        return told(StatusCode::SERVICE_UNAVAILABLE);
    }
    if !is_signed(&method, &uri, &headers) {
        bucket.refused.fetch_add(1, Ordering::SeqCst);
        return told(StatusCode::FORBIDDEN);
    }
    let mut objects = bucket.objects.lock().unwrap();
    let name = uri.path().to_owned();
    match method {
        Method::PUT => {
            use base64::Engine as _;
            let hash = base64::engine::general_purpose::STANDARD.encode(Sha256::digest(&body));
            if headers["x-amz-checksum-sha256"] != hash {
                return told(StatusCode::BAD_REQUEST);
            }
            if !bucket.loses.load(Ordering::SeqCst) {
                objects.insert(name, body);
            }
            told(StatusCode::OK)
        }
        Method::DELETE => {
            objects.remove(&name);
            told(StatusCode::NO_CONTENT)
        }
        _ => match objects.get(&name) {
            Some(object) => (StatusCode::OK, HeaderMap::new(), object.clone()),
            None => told(StatusCode::NOT_FOUND),
        },
    }
}

#[tokio::test]
async fn a_bucket_is_an_archive_too() {
    let bucket = Bucket::default();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = Router::new().fallback(answer).with_state(bucket.clone());
    let router = router.layer(axum::extract::DefaultBodyLimit::max(64 << 20));
    tokio::spawn(async move { axum::serve(listener, router).await });
    let with = |secret: &'static str| {
        move |name: &str| {
            let value = match name {
                "TAILSPAN_ARCHIVE" => "s3://team.bucket/some/prefix",
                "TAILSPAN_ARCHIVE_ENDPOINT" => return Some(format!("http://{address}")),
                "AWS_REGION" => "eu-central-1",
                "AWS_ACCESS_KEY_ID" => KEY,
                "AWS_SECRET_ACCESS_KEY" => secret,
                "AWS_SESSION_TOKEN" => "token",
                _ => return None,
            };
            Some(value.to_owned())
        }
    };
    let redis = RedisServer::start().await;
    let start = async |secret| {
        let mut config = config(&redis.url());
        (config.patience.stalled_ms, config.patience.lost_ms) = (600, 1200);
        config.archive = ArchiveConfig::from_vars(&with(secret), &mut Vec::new());
        assert!(config.archive.is_some());
        Instance::with(config).await
    };
    let instance = start(SECRET).await;
    let long = "what was said ".repeat(9000);
    post(
        &instance,
        "/v1/traces",
        &export(vec![span(OTHER, 2, 1, &long), span(OTHER, 1, 0, "y")]),
    )
    .await;
    settle(&instance.app, &BTreeSet::from([OTHER.to_owned()])).await;
    let (before, _) = said(&instance, OTHER).await;
    let remove = async |instance: &Instance| {
        let before = now_unix_ms() + 3_600_000;
        instance
            .app
            .log
            .remove_before(&TenantId::default(), before)
            .await
    };

    // Whatever goes wrong with the store, the trace stays.
    bucket.is_away.store(true, Ordering::SeqCst);
    assert!(remove(&instance).await.is_err());
    assert_eq!(get(&instance, "/traces/nosuch").await.0, 503);
    bucket.is_away.store(false, Ordering::SeqCst);
    bucket.loses.store(true, Ordering::SeqCst);
    assert!(remove(&instance).await.is_err());
    bucket.loses.store(false, Ordering::SeqCst);
    let stranger = start("another secret").await;
    assert!(remove(&stranger).await.is_err());
    assert!(bucket.refused.load(Ordering::SeqCst) > 0);
    assert_same(&before, &said(&instance, OTHER).await.0);

    assert_eq!(remove(&instance).await.unwrap(), 1);
    let name = format!("/team.bucket/some/prefix/default/{OTHER}.jsonl.zst");
    let file = bucket.objects.lock().unwrap().get(&name).cloned().unwrap();
    let (after, archived) = said(&instance, OTHER).await;
    assert_eq!(archived, BTreeSet::from([true]));
    assert_same(&before, &after);
    assert_eq!(get(&instance, "/traces/nosuch").await.0, 404);

    // Fetched by its address, from where the command runs.
    let url = format!("s3://team.bucket/some/prefix/default/{OTHER}.jsonl.zst");
    let mut command = tokio::process::Command::new(program());
    command
        .args(["import", &url])
        .env("TAILSPAN_URL", instance.url(""));
    for name in [
        "TAILSPAN_ARCHIVE_ENDPOINT",
        "AWS_REGION",
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
    ] {
        command.env(name, with(SECRET)(name).unwrap());
    }
    let output = command.output().await.unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_same(&before, &said(&instance, OTHER).await.0);
    let deleted = http().delete(instance.url(&format!("/traces/{OTHER}")));
    assert_eq!(deleted.send().await.unwrap().status(), 204);
    assert!(bucket.objects.lock().unwrap().is_empty());
    assert!(!file.is_empty());
}
