//! Lists: every filter alone and together gives what a scan of everything would, page by page, at a bounded cost.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use tailspan_core::{
    id::{TenantId, TraceId},
    observed::Incoming,
};
use tailspan_service::log::append::AppendOptions;

use crate::{
    log::native,
    support::{Instance, RedisServer, config, http},
};

/// What the test knows of a trace that it made.
#[derive(Clone, Debug, Default)]
struct Made {
    trace: String,
    agents: BTreeSet<String>,
    user: Option<String>,
    session: Option<String>,
    tool: String,
    /// The id of the span that the tool's call names as its parent.
    caller: Option<String>,
    error: Option<String>,
    status: &'static str,
    duration_ms: u64,
    /// As the list says it; filled in from the list.
    started_at: String,
}

/// Numbers that look random and are the same in every run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % sides
    }

    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[self.roll(from.len())]
    }
}

const AGENTS: [&str; 5] = ["Triage", "Writer", "Büro Köln/2", "a+b c", "Researcher"];
const USERS: [&str; 4] = ["u-1", "u-2", "ada@example.org", "7"];
const SESSIONS: [&str; 5] = ["s-1", "s-2", "chat über x", "s/4", "s-5"];
const TOOLS: [&str; 4] = ["read_sensor", "Search Web", "write_file", "read_file"];
const ERRORS: [&str; 3] = ["The index is gone", "timeout after 5 s", "quota exceeded"];
const CALLERS: [&str; 3] = ["00f067aa0ba902b7", "Triage", "some other step"];
const DURATIONS: [u64; 4] = [10, 250, 1_500, 60_000];

/// An instance whose runs are settled as soon as somebody looks.
async fn instance(redis: &RedisServer) -> Instance {
    let mut config = config(&redis.url());
    config.patience.grace_ms = 0;
    Instance::with(config).await
}

/// Makes traces, settles them, and keeps their rows: those of running ones too.
async fn make(instance: &Instance, count: usize) -> Vec<Made> {
    let (log, tenant) = (&instance.app.log, TenantId::default());
    let mut dice = Dice(7);
    let mut all = Vec::new();
    for number in 0..count {
        let mut made = Made {
            trace: format!("t-{number}"),
            tool: dice.pick(&TOOLS).to_owned(),
            duration_ms: DURATIONS[dice.roll(DURATIONS.len())],
            status: ["completed", "completed", "failed", "running"][dice.roll(4)],
            ..Made::default()
        };
        made.caller = (dice.roll(3) > 0).then(|| dice.pick(&CALLERS).to_owned());
        for _ in 0..=dice.roll(3) {
            made.agents.insert(dice.pick(&AGENTS).to_owned());
        }
        made.user = (dice.roll(3) > 0).then(|| dice.pick(&USERS).to_owned());
        made.session = (dice.roll(3) > 0).then(|| dice.pick(&SESSIONS).to_owned());
        // A tool may fail and the run go on.
        made.error =
            (made.status == "failed" || dice.roll(4) == 0).then(|| dice.pick(&ERRORS).to_owned());
        let trace = TraceId::parse(&made.trace).expect("valid");
        let events = events(&made);
        let chunk = events.len() / 2 + 1;
        for events in events.chunks(chunk) {
            let events = events.iter().map(|event| Incoming {
                may_end_run: matches!(
                    event["event_type"].as_str(),
                    Some("workflow_completed" | "workflow_failed")
                ),
                ..native(None, &event.to_string())
            });
            log.append(&tenant, &trace, events.collect(), AppendOptions::default())
                .await
                .expect("appended");
        }
        log.settle(&tenant, &trace).await.expect("looked");
        all.push(made);
    }
    tailspan_worker::work_off(
        &instance.app,
        std::time::Instant::now() + std::time::Duration::from_secs(60),
        |_| (),
    )
    .await
    .expect("worked");
    all
}

fn events(made: &Made) -> Vec<Value> {
    const START_MS: u64 = 1_800_000_000_000;
    let event = |event_type: &str, at: u64, more: Value| {
        let mut event = serde_json::json!({"event_type": event_type, "timestamp": START_MS + at});
        let fields = event.as_object_mut().expect("an object");
        for (name, value) in [("user_id", &made.user), ("session_id", &made.session)] {
            if let Some(value) = value {
                fields.insert(name.to_owned(), Value::from(value.as_str()));
            }
        }
        fields.extend(more.as_object().expect("an object").clone());
        event
    };
    let first = made.agents.first().expect("an agent");
    let mut events = vec![event(
        "workflow_started",
        0,
        serde_json::json!({"agent_id": first}),
    )];
    for agent in &made.agents {
        events.push(event(
            "task_started",
            1,
            serde_json::json!({"agent_id": agent, "span_id": agent}),
        ));
        events.push(event(
            "task_completed",
            2,
            serde_json::json!({"agent_id": agent, "span_id": agent}),
        ));
    }
    let mut call = serde_json::json!({"agent_id": first, "tool_name": made.tool, "call_id": "c"});
    if let Some(caller) = &made.caller {
        call["parent_span_id"] = Value::from(caller.as_str());
    }
    events.push(event("tool_call_started", 3, call.clone()));
    let mut ended = call;
    if let Some(error) = &made.error {
        ended["error"] = Value::from(error.as_str());
    }
    let last = made.duration_ms;
    match made.status {
        "running" => events.push(event("tool_call_completed", last, ended)),
        status => {
            events.push(event("tool_call_completed", 4, ended));
            let mut end = serde_json::json!({"agent_id": first});
            if status == "failed" {
                end["error"] = Value::from(made.error.as_deref().unwrap_or_default());
            }
            events.push(event(&format!("workflow_{status}"), last, end));
        }
    }
    events
}

type Query = BTreeMap<&'static str, String>;

/// Whether a scan of everything would show it.
fn fits(made: &Made, query: &Query) -> bool {
    query.iter().all(|(name, value)| match *name {
        "agent_id" => made.agents.contains(value),
        "user_id" => made.user.as_ref() == Some(value),
        "session_id" => made.session.as_ref() == Some(value),
        "status" => made.status == value,
        "has_error" => made.error.is_some().to_string() == *value,
        "start_time" => made.started_at >= *value,
        "end_time" => made.started_at <= *value,
        "min_duration_ms" => made.duration_ms as f64 >= value.parse::<f64>().expect("a number"),
        "max_duration_ms" => made.duration_ms as f64 <= value.parse::<f64>().expect("a number"),
        "operation" => made.tool.to_lowercase() == value.to_lowercase(),
        "parent_span_id" => made.caller.as_ref() == Some(value),
        "text" => {
            let text = value.to_lowercase();
            let names = made.agents.iter().chain([&made.tool]).chain(&made.error);
            names
                .into_iter()
                .any(|name| name.to_lowercase().contains(&text))
        }
        other => panic!("no filter {other}"),
    })
}

fn a_query(dice: &mut Dice, all: &[Made], filters: &[&'static str]) -> Query {
    let mut query = Query::new();
    for name in filters {
        let value = match *name {
            "agent_id" => dice.pick(&AGENTS),
            "user_id" => dice.pick(&USERS),
            "session_id" => dice.pick(&SESSIONS),
            "status" => dice.pick(&["running", "completed", "failed", "stalled", "lost"]),
            "has_error" => dice.pick(&["true", "false"]),
            "start_time" => &all[all.len() - 1 - dice.roll(all.len() * 2 / 3)].started_at,
            "end_time" => &all[all.len() - 1 - dice.roll(all.len() / 3)].started_at,
            "min_duration_ms" => dice.pick(&["0", "250", "250.5", "1500"]),
            "max_duration_ms" => dice.pick(&["60000", "250", "9"]),
            "operation" => dice.pick(&["READ_sensor", "search web", "read"]),
            "parent_span_id" => dice.pick(&CALLERS),
            "text" => dice.pick(&["read", "SENSOR", "index is", "köln", "nowhere", "5 s"]),
            other => panic!("no filter {other}"),
        };
        query.insert(name, value.to_owned());
    }
    query
}

async fn get(instance: &Instance, path: &str, query: &[(&str, &str)]) -> (u16, Value) {
    let answer = http()
        .get(instance.url(path))
        .query(query)
        .send()
        .await
        .expect("answered");
    (
        answer.status().as_u16(),
        answer.json().await.unwrap_or_default(),
    )
}

fn names(page: &Value) -> Vec<String> {
    let traces = page["traces"].as_array().expect("traces");
    traces
        .iter()
        .map(|trace| trace["trace_id"].as_str().expect("a name").to_owned())
        .collect()
}

/// All pages by cursor.
async fn listed(instance: &Instance, path: &str, query: &Query, limit: usize) -> Vec<Value> {
    let limit = limit.to_string();
    let mut pages: Vec<Value> = Vec::new();
    loop {
        let cursor = pages.last().and_then(|page| page["next_cursor"].as_str());
        let mut pairs: Vec<(&str, &str)> = query
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        pairs.push(("limit", &limit));
        pairs.extend(cursor.map(|cursor| ("cursor", cursor)));
        let (status, page) = get(instance, path, &pairs).await;
        assert_eq!(status, 200, "{pairs:?}: {page}");
        let is_last = page["next_cursor"].is_null();
        pages.push(page);
        if is_last {
            return pages;
        }
    }
}

fn traces(pages: &[Value]) -> Vec<&Value> {
    let traces = pages
        .iter()
        .map(|page| page["traces"].as_array().expect("traces"));
    traces.flatten().collect()
}

#[tokio::test]
async fn every_filter_gives_what_a_scan_of_everything_would() {
    const FILTERS: [&str; 12] = [
        "agent_id",
        "user_id",
        "session_id",
        "status",
        "has_error",
        "start_time",
        "end_time",
        "min_duration_ms",
        "max_duration_ms",
        "operation",
        "parent_span_id",
        "text",
    ];
    let redis = RedisServer::start().await;
    let instance = instance(&redis).await;
    let mut all = make(&instance, 260).await;
    redis.cli(&["CONFIG", "RESETSTAT"]).await;

    let pages = listed(&instance, "/traces", &Query::new(), 100).await;
    let rows = traces(&pages);
    assert_eq!(pages[0]["total"], 260);
    assert_eq!(rows.len(), 260);
    for row in rows {
        let made = all
            .iter_mut()
            .find(|made| made.trace == row["trace_id"])
            .expect("made");
        made.started_at = row["started_at"].as_str().expect("a time").to_owned();
        assert_eq!(row["status"], made.status, "{row}");
        assert_eq!(row["run"]["duration_ms"], made.duration_ms as f64, "{row}");
        assert_eq!(row["run"]["as_of_seq"], row["as_of_seq"], "{row}");
        let agents: BTreeSet<String> =
            serde_json::from_value(row["run"]["agents"].clone()).expect("names");
        assert_eq!(agents, made.agents, "{row}");
    }
    // Newest first; of one millisecond by name, the greatest first.
    all.sort_by(|one, other| (&other.started_at, &other.trace).cmp(&(&one.started_at, &one.trace)));

    let mut dice = Dice(11);
    let mut queries: Vec<Query> = Vec::new();
    for filter in FILTERS {
        queries.extend((0..3).map(|_| a_query(&mut dice, &all, &[filter])));
    }
    for (at, one) in FILTERS.iter().enumerate() {
        queries.extend(
            FILTERS[at + 1..]
                .iter()
                .map(|other| a_query(&mut dice, &all, &[one, other])),
        );
    }
    for _ in 0..60 {
        let some: Vec<&str> = FILTERS.into_iter().filter(|_| dice.roll(3) == 0).collect();
        queries.push(a_query(&mut dice, &all, &some));
    }
    queries.retain(|query| {
        let ends = query.get("start_time").zip(query.get("end_time"));
        let durations = (query.get("min_duration_ms"), query.get("max_duration_ms"));
        ends.is_none_or(|(from, to)| from <= to)
            && durations.0.zip(durations.1).is_none_or(|(least, most)| {
                least.parse::<f64>().expect("a number") <= most.parse().expect("a number")
            })
    });
    let mut shown = 0;
    for query in &queries {
        let expected: Vec<&str> = all
            .iter()
            .filter(|made| fits(made, query))
            .map(|made| made.trace.as_str())
            .collect();
        let pages = listed(&instance, "/traces", query, 1 + dice.roll(60)).await;
        let found: Vec<&str> = traces(&pages)
            .iter()
            .map(|row| row["trace_id"].as_str().expect("a name"))
            .collect();
        assert_eq!(found, expected, "{query:?}");
        shown += found.len();
        match &pages[0]["total"] {
            Value::Null => {
                assert!(pages[0]["total_at_least"].as_u64() <= Some(expected.len() as u64))
            }
            total => assert_eq!(*total, expected.len(), "{query:?}"),
        }

        // The same by number.
        let (size, page) = (1 + dice.roll(30), 1 + dice.roll(4));
        let (size_text, page_text) = (size.to_string(), page.to_string());
        let mut pairs: Vec<(&str, &str)> = query
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        pairs.extend([("page", page_text.as_str()), ("page_size", &size_text)]);
        let (status, numbered) = get(&instance, "/traces", &pairs).await;
        assert_eq!(status, 200, "{pairs:?}: {numbered}");
        let expected: Vec<&str> = expected
            .into_iter()
            .skip((page - 1) * size)
            .take(size)
            .collect();
        assert_eq!(names(&numbered), expected, "{pairs:?}");
        assert_eq!(
            (&numbered["page"], &numbered["page_size"]),
            (&Value::from(page), &Value::from(size))
        );
    }
    assert!(
        queries.len() > 120 && shown > 1_000,
        "{} queries showed {shown}",
        queries.len()
    );

    // One agent's, by its name in the path.
    for agent in AGENTS {
        let path = format!("/agents/{}/traces", percent(agent));
        let pages = listed(
            &instance,
            &path,
            &Query::from([("status", "failed".to_owned())]),
            7,
        )
        .await;
        let expected: Vec<&Made> = all
            .iter()
            .filter(|made| made.agents.contains(agent) && made.status == "failed")
            .collect();
        let found: Vec<&Value> = traces(&pages);
        assert_eq!(found.len(), expected.len(), "{agent}");
        assert!(
            found
                .iter()
                .zip(expected)
                .all(|(row, made)| row["trace_id"] == *made.trace)
        );
    }
    // Nothing that looks at all keys, or at all of one, was asked of Redis.
    let asked = redis.cli(&["INFO", "commandstats"]).await;
    for command in [
        "keys", "scan", "hscan", "zscan", "sscan", "hgetall", "hvals", "hkeys",
    ] {
        assert!(
            !asked.contains(&format!("cmdstat_{command}:")),
            "{command} was asked"
        );
    }
}

fn percent(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => char::from(byte).to_string(),
            _ => format!("%{byte:02X}"),
        })
        .collect()
}

#[tokio::test]
async fn what_is_no_filter_is_refused_and_said() {
    let redis = RedisServer::start().await;
    let instance = instance(&redis).await;
    for (query, expected) in [
        (("agent", "x"), "valid are agent_id"),
        (
            ("status", "done"),
            "status must be running, stalled, lost, completed or failed",
        ),
        (("start_time", "yesterday"), "start_time"),
        (("has_error", "perhaps"), "true or false"),
        (("page_size", "0"), "page_size must be 1 to 200"),
        (("page", "9999"), "next_cursor"),
        (("level", "loud"), "minimal, standard, detailed, debug"),
        (("cursor", "x"), "cursor"),
    ] {
        let (status, body) = get(&instance, "/traces", &[query]).await;
        assert_eq!(status, 400, "{query:?}: {body}");
        let message = body["error"]["message"].as_str().expect("a message");
        assert!(message.contains(expected), "{query:?}: {message}");
    }
    for path in ["/agents/a/traces", "/v1/trace/agents/a/traces"] {
        let (status, body) = get(&instance, path, &[("agent_id", "b")]).await;
        assert_eq!(status, 400, "{path}: {body}");
    }
    let (status, body) = get(&instance, "/agents/nobody/traces", &[]).await;
    assert_eq!((status, &body["total"]), (200, &Value::from(0)));
}

#[tokio::test]
async fn a_cursor_neither_repeats_nor_misses_while_traces_are_added() {
    let redis = RedisServer::start().await;
    let instance = instance(&redis).await;
    let (log, tenant) = (&instance.app.log, TenantId::default());
    let begin = async |name: String| {
        let trace = TraceId::parse(&name).expect("valid");
        let event = native(None, r#"{"event_type":"workflow_started","agent_id":"a"}"#);
        log.append(&tenant, &trace, vec![event], AppendOptions::default())
            .await
            .expect("appended");
    };
    for number in 0..30 {
        begin(format!("old-{number}")).await;
    }
    let mut seen = Vec::new();
    let mut cursor: Option<String> = None;
    for round in 0.. {
        let mut pairs = vec![("agent_id", "a"), ("limit", "7")];
        pairs.extend(cursor.as_deref().map(|cursor| ("cursor", cursor)));
        let (status, page) = get(&instance, "/traces", &pairs).await;
        assert_eq!(status, 200);
        seen.extend(names(&page));
        begin(format!("new-{round}")).await;
        cursor = page["next_cursor"].as_str().map(str::to_owned);
        if cursor.is_none() {
            break;
        }
    }
    let once: BTreeSet<&String> = seen.iter().collect();
    assert_eq!((seen.len(), once.len()), (30, 30), "{seen:?}");
}

#[tokio::test]
async fn sessions_are_listed_by_their_last_event_and_go_with_their_last_trace() {
    let redis = RedisServer::start().await;
    let instance = instance(&redis).await;
    let all = make(&instance, 80).await;
    let of = |session: &str| -> Vec<&Made> {
        let traces = all
            .iter()
            .filter(|made| made.session.as_deref() == Some(session));
        traces.collect()
    };

    // One is heard of again, and comes first.
    let told = of("s-2")[0];
    post(
        &instance,
        &told.trace,
        r#"{"event_type":"note","session_id":"s-2"}"#,
    )
    .await;
    let mut names = Vec::new();
    let mut cursor: Option<String> = None;
    loop {
        let mut pairs = vec![("limit", "2")];
        pairs.extend(cursor.as_deref().map(|cursor| ("cursor", cursor)));
        let (status, page) = get(&instance, "/sessions", &pairs).await;
        assert_eq!(status, 200, "{page}");
        for session in page["sessions"].as_array().expect("sessions") {
            let name = session["session_id"].as_str().expect("a name").to_owned();
            assert_eq!(session["traces"], of(&name).len(), "{session}");
            names.push(name);
        }
        cursor = page["next_cursor"].as_str().map(str::to_owned);
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!(names.first().map(String::as_str), Some("s-2"));
    let once: BTreeSet<&str> = names.iter().map(String::as_str).collect();
    assert_eq!(
        (names.len(), once),
        (SESSIONS.len(), SESSIONS.into_iter().collect())
    );

    // By its name and by its key, with totals and filters.
    let name = "chat über x";
    let path = format!("/sessions/{}", percent(name));
    let (status, session) = get(&instance, &path, &[("limit", "3")]).await;
    assert_eq!(status, 200, "{session}");
    let members = of(name);
    assert_eq!(session["session_id"], name);
    assert_eq!(session["total"], members.len());
    assert_eq!(session["traces"].as_array().map(Vec::len), Some(3));
    let totals = &session["totals"];
    assert_eq!(totals["traces"], members.len());
    let duration: u64 = members.iter().map(|made| made.duration_ms).sum();
    assert_eq!(totals["duration_ms"], duration as f64);
    let failed = members
        .iter()
        .filter(|made| made.status == "failed")
        .count();
    assert_eq!(
        totals["by_status"]["failed"].as_u64().unwrap_or(0),
        failed as u64
    );
    let key = session["key"].as_str().expect("a key");
    let (status, by_key) = get(
        &instance,
        &format!("/sessions/{key}"),
        &[("status", "failed")],
    )
    .await;
    assert_eq!((status, &by_key["session_id"]), (200, &Value::from(name)));
    assert_eq!(by_key["traces"].as_array().map(Vec::len), Some(failed));
    for unknown in ["/sessions/nobody", "/sessions/aaaaaaaaaaaaaaaaaaaaaaaaaa"] {
        assert_eq!(get(&instance, unknown, &[]).await.0, 404, "{unknown}");
    }
    for (path, query) in [
        ("/sessions", ("page", "1")),
        ("/sessions", ("cursor", "1-x")),
        (path.as_str(), ("session_id", "x")),
    ] {
        assert_eq!(
            get(&instance, path, &[query]).await.0,
            400,
            "{path} {query:?}"
        );
    }

    agrees(&redis, &instance, &all).await;
    for made in members {
        delete(&instance, &made.trace).await;
    }
    assert_eq!(get(&instance, &path, &[]).await.0, 404);
    let left: Vec<Made> = all
        .iter()
        .filter(|made| made.session.as_deref() != Some(name))
        .cloned()
        .collect();
    agrees(&redis, &instance, &left).await;
    for made in &left {
        delete(&instance, &made.trace).await;
    }
    agrees(&redis, &instance, &[]).await;
    let (_, sessions) = get(&instance, "/sessions", &[]).await;
    assert_eq!(sessions["sessions"], Value::Array(Vec::new()));
}

async fn post(instance: &Instance, trace: &str, event: &str) {
    let answer = http()
        .post(instance.url(&format!("/traces/{trace}/events")))
        .body(event.to_owned())
        .send()
        .await
        .expect("answered");
    assert_eq!(answer.status(), 200);
}

/// Deletes a trace, after which no read knows it.
async fn delete(instance: &Instance, trace: &str) {
    let path = format!("/traces/{trace}");
    let ask = async |path: &str| {
        let answer = http().delete(instance.url(path)).send().await;
        answer.expect("answered").status().as_u16()
    };
    let (_, known) = get(instance, &path, &[]).await;
    if known["status"] == "running" {
        assert_eq!(ask(&path).await, 409, "{trace}");
    }
    assert_eq!(ask(&format!("{path}?force=true")).await, 204, "{trace}");
    for read in ["", "/events", "/summary", "/invocations", "/stream"] {
        assert_eq!(
            get(instance, &format!("{path}{read}"), &[]).await.0,
            404,
            "{path}{read}"
        );
    }
    assert_eq!(ask(&path).await, 404, "{trace}");
}

/// Every index holds just what it should: the traces that are left, and nothing of those that are gone.
async fn agrees(redis: &RedisServer, instance: &Instance, left: &[Made]) {
    let members = async |words: &[&str]| -> BTreeSet<String> {
        bulk(&redis.cli(words).await).into_iter().collect()
    };
    let names: BTreeSet<String> = left.iter().map(|made| made.trace.clone()).collect();
    let pages = listed(instance, "/traces", &Query::new(), 100).await;
    let listed: BTreeSet<String> = traces(&pages)
        .iter()
        .map(|row| row["trace_id"].as_str().expect("a name").to_owned())
        .collect();
    assert_eq!(listed, names);
    for index in ["traces", "rows", "noted"] {
        let key = format!("{{default}}:{index}");
        let command = if index == "traces" { "ZRANGE" } else { "HKEYS" };
        let words: &[&str] = if index == "traces" {
            &[command, &key, "0", "-1"]
        } else {
            &[command, &key]
        };
        assert_eq!(members(words).await, names, "{index}");
    }
    assert!(
        members(&["ZRANGE", "{default}:due", "0", "-1"])
            .await
            .is_subset(&names)
    );

    // What each trace stands in, from both sides.
    let mut stands: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for key in members(&["KEYS", "{default}:by:*"]).await {
        let traces = members(&["ZRANGE", &key, "0", "-1"]).await;
        assert!(traces.is_subset(&names), "{key}");
        for trace in traces {
            stands
                .entry(trace)
                .or_default()
                .insert(key.replace("{default}:by:", ""));
        }
    }
    let sessions: BTreeSet<String> = stands
        .values()
        .flatten()
        .filter_map(|label| label.strip_prefix("session:").map(str::to_owned))
        .collect();
    assert_eq!(
        members(&["ZRANGE", "{default}:sessions", "0", "-1"]).await,
        sessions
    );
    let keys = members(&["KEYS", "{default/s/*"]).await;
    assert_eq!(
        keys.len(),
        2 * sessions.len(),
        "a hash and a log for each: {keys:?}"
    );
    for made in left {
        let noted = bulk(&redis.cli(&["HGET", "{default}:noted", &made.trace]).await).remove(0);
        let labels: BTreeSet<String> = noted
            .split(' ')
            .skip(1)
            // Its live session stands among them, and in no index.
            .filter(|label| !label.starts_with('@'))
            .map(str::to_owned)
            .collect();
        assert_eq!(
            stands.remove(&made.trace).unwrap_or_default(),
            labels,
            "{}",
            made.trace
        );
        let kinds = |kind: &str| {
            labels
                .iter()
                .filter(|label| label.starts_with(kind))
                .count()
        };
        assert_eq!(kinds("status:"), 1, "{noted}");
        assert_eq!(kinds("agent:"), made.agents.len(), "{noted}");
        assert_eq!(
            kinds("session:"),
            usize::from(made.session.is_some()),
            "{noted}"
        );
        assert_eq!(kinds("user:"), usize::from(made.user.is_some()), "{noted}");
        assert_eq!(kinds("error"), usize::from(made.error.is_some()), "{noted}");
        if let Some(session) = &made.session {
            let key = tailspan_core::id::SessionKey::of(session);
            let hash = format!("{{default/s/{}}}:session", key.as_str());
            let known = redis
                .cli(&["HEXISTS", &hash, &format!("t:{}", made.trace)])
                .await;
            assert_eq!(known.trim(), ":1", "{}", made.trace);
        }
    }
}

/// The texts of an answer.
fn bulk(answer: &str) -> Vec<String> {
    let lines: Vec<&str> = answer.split("\r\n").collect();
    let mut texts = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        if line.starts_with('$') && !line.starts_with("$-") {
            texts.extend(lines.get(at + 1).map(ToString::to_string));
        }
    }
    texts
}

#[tokio::test]
async fn a_trace_is_found_by_how_it_stands_now() {
    let redis = RedisServer::start().await;
    let mut config = config(&redis.url());
    config.patience.grace_ms = 0;
    // Each state lasts long enough to be seen on a machine that stands still for a second.
    config.patience.stalled_ms = 2_000;
    config.patience.lost_ms = 4_500;
    let instance = Instance::with(config).await;
    let worker = tokio::spawn({
        let app = instance.app.clone();
        async move { tailspan_worker::run(app, |_| ()).await }
    });
    let found_as = async |status: &str| {
        for _ in 0..1_000 {
            let (answered, page) = get(&instance, "/traces", &[("status", status)]).await;
            assert_eq!(answered, 200, "{page}");
            if names(&page) == ["t"] {
                assert_eq!(page["traces"][0]["status"], status);
                return page;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        panic!("never found as {status}");
    };
    // While it runs its row shows its agents.
    let begin = r#"{"event_type":"workflow_started","agent_id":"Triage"}"#;
    post(&instance, "t", begin).await;
    found_as("running").await;
    let row = found_as("stalled").await;
    assert_eq!(row["traces"][0]["run"]["agents"][0], "Triage");
    post(&instance, "t", r#"{"event_type":"note"}"#).await;
    found_as("running").await;
    found_as("lost").await;
    // A new event opens it again.
    post(&instance, "t", r#"{"event_type":"note"}"#).await;
    found_as("running").await;
    post(
        &instance,
        "t",
        r#"{"event_type":"workflow_completed","agent_id":"Triage"}"#,
    )
    .await;
    found_as("completed").await;
    for status in ["running", "stalled", "lost", "failed"] {
        let (_, page) = get(&instance, "/traces", &[("status", status)]).await;
        assert_eq!(
            (names(&page), &page["total"]),
            (Vec::new(), &Value::from(0)),
            "{status}"
        );
    }
    worker.abort();
}

#[tokio::test]
async fn a_trace_that_is_begun_anew_is_found_by_what_it_names_now() {
    let redis = RedisServer::start().await;
    let instance = instance(&redis).await;
    let event = |agent: &str| {
        format!(
            "{{\"event_type\":\"workflow_started\",\"agent_id\":\"{agent}\",\"session_id\":\"of {agent}\"}}"
        )
    };
    post(&instance, "t", &event("first")).await;
    let answer = http()
        .post(instance.url("/traces/t/events?replace=true"))
        .body(event("second"))
        .send()
        .await
        .expect("answered");
    assert_eq!(answer.status(), 200);
    for (agent, expected) in [("first", 0), ("second", 1)] {
        let (_, page) = get(&instance, "/traces", &[("agent_id", agent)]).await;
        assert_eq!(page["total"], expected, "{agent}");
        let (status, _) = get(&instance, &format!("/sessions/of%20{agent}"), &[]).await;
        assert_eq!(status, if expected == 1 { 200 } else { 404 }, "{agent}");
    }
}

#[tokio::test]
async fn a_trace_that_names_more_than_it_can_be_found_by_says_so() {
    let redis = RedisServer::start().await;
    let instance = instance(&redis).await;
    for number in 0..80 {
        post(
            &instance,
            "t",
            &format!("{{\"event_type\":\"step\",\"agent_id\":\"agent-{number}\"}}"),
        )
        .await;
    }
    let (_, page) = get(&instance, "/traces", &[]).await;
    assert_eq!(page["traces"][0]["labels_truncated"], true, "{page}");
    for (agent, expected) in [("agent-1", 1), ("agent-79", 0)] {
        let (_, page) = get(&instance, "/traces", &[("agent_id", agent)]).await;
        assert_eq!(page["total"], expected, "{agent}");
    }
    delete(&instance, "t").await;
    agrees(&redis, &instance, &[]).await;
}

/// Ten agents with a tenth of the traces each, one in five failed; in the form that the product gives them.
const FILL: &str = r#"
for i = tonumber(ARGV[1]), tonumber(ARGV[2]) - 1 do
  local trace, at = string.format('%032x', i), string.format('%.0f', tonumber(ARGV[3]) + i)
  local failed = i % 5 == 3
  redis.call('ZADD', '{default}:traces', at, trace)
  redis.call('ZADD', '{default}:by:' .. ARGV[4 + i % 10], at, trace)
  redis.call('ZADD', '{default}:by:status:' .. (failed and 'failed' or 'completed'), at, trace)
  redis.call('HSET', '{default}:rows', trace, '9 0 {"duration_ms":' .. i % 97 .. '.0,"as_of_seq":9}\n\nplan' .. (i % 50 == 3 and '\nneedle' or ''))
  redis.call('HSET', '{default/' .. trace .. '}:trace', 'seq', '9', 'mark', '7', 'at', at, 'from', at, 'settled', failed and 'failed' or 'completed', 'settled_seq', '9')
end"#;

#[tokio::test]
async fn a_page_asks_as_much_of_redis_however_many_traces_there_are() {
    let redis = RedisServer::start().await;
    let instance = instance(&redis).await;
    let agents: Vec<String> = (0..10)
        .map(|n| tailspan_core::listing::Label::agent(&format!("agent-{n}")).to_string())
        .collect();
    let queries: [&[(&str, &str)]; 5] = [
        &[],
        &[("agent_id", "agent-3")],
        &[("agent_id", "agent-3"), ("status", "failed")],
        &[("agent_id", "agent-3"), ("min_duration_ms", "50")],
        &[("text", "needle")],
    ];
    let mut asked: Vec<Vec<BTreeMap<String, u64>>> = Vec::new();
    let mut made = 0;
    for size in [2_000, 20_000] {
        while made < size {
            let (from, to) = (made.to_string(), (made + 1_000).to_string());
            let mut words = vec!["EVAL", FILL, "0", &from, &to, "1800000000000"];
            words.extend(agents.iter().map(String::as_str));
            let answer = redis.cli(&words).await;
            assert!(!answer.starts_with('-'), "{answer}");
            made += 1_000;
        }
        let mut of_size = Vec::new();
        for query in queries {
            // The scripts are loaded by then.
            get(&instance, "/traces", query).await;
            redis.cli(&["CONFIG", "RESETSTAT"]).await;
            let (status, page) = get(&instance, "/traces", query).await;
            assert_eq!((status, names(&page).len()), (200, 20), "{query:?}");
            of_size.push(calls(&redis.cli(&["INFO", "commandstats"]).await));
        }
        asked.push(of_size);
    }
    assert_eq!(asked[0], asked[1]);
    for (commands, query) in asked[1].iter().zip(queries) {
        let known = ["evalsha", "hmget", "zcount", "zmscore", "zrange"];
        assert!(
            commands.keys().all(|name| known.contains(&name.as_str())),
            "{query:?}: {commands:?}"
        );
        // A state for each of twenty rows; what is left is the walk.
        assert!(
            commands.values().sum::<u64>() < 20 * 2 + 50,
            "{query:?}: {commands:?}"
        );
    }
}

/// How often each command was called, but for those of the test.
fn calls(stats: &str) -> BTreeMap<String, u64> {
    let lines = stats
        .lines()
        .filter_map(|line| line.strip_prefix("cmdstat_")?.split_once(":calls="));
    lines
        .filter(|(name, _)| {
            !matches!(
                *name,
                "config|resetstat" | "config" | "info" | "quit" | "ping"
            )
        })
        .map(|(name, rest)| {
            let count = rest.split(',').next().and_then(|count| count.parse().ok());
            (name.to_owned(), count.expect("a count"))
        })
        .collect()
}
