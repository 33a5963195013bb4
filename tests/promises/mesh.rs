//! Entries that agents publish into their mesh's stream become events, each once, whoever dies in between.

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    time::Duration,
};

use tailspan_service::{
    App,
    config::Config,
    mesh::{Intake, read},
};

use crate::{
    gate::{Gate, Stop},
    log::Case,
    support::{Instance, RedisServer, ReservedPort, Viewer, config, http},
};

const STREAM: &str = "mesh:trace";

/// What every agent says, in the way of the Python runtime.
const COMMON: &[&str] = &[
    "parent_span",
    "null",
    "success",
    "True",
    "error",
    "null",
    "agent_id",
    "planner-1f2e",
    "agent_name",
    "planner",
    "agent_ip",
    "10.0.0.7",
    "runtime",
    "python",
    "start_time",
    "1737369045.25",
    "end_time",
    "1737369045.5",
    "duration_ms",
    "250.0",
];

fn entry<'a>(trace: &'a str, name: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let head = [
        "XADD",
        STREAM,
        "*",
        "trace_id",
        trace,
        "function_name",
        name,
    ];
    // Of a field that is named twice the last value holds.
    head.iter().chain(COMMON).chain(more).copied().collect()
}

fn quick(url: &str) -> Config {
    let mut config = config(url);
    config.mesh.take_over = Duration::from_millis(200);
    config.mesh.tries = 3;
    config
}

/// An instance that reads the mesh.
async fn reading(config: Config) -> Instance {
    let instance = Instance::with(config).await;
    tokio::spawn(tailspan_mesh::run(instance.app.clone()));
    instance
}

/// Asks until the answer is right; the time-out is the test's own.
pub(crate) async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    for _ in 0..6_000 {
        if holds().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("within 30 s: {what}");
}

async fn nothing_pending(redis: &RedisServer) {
    until("nothing is pending", async || {
        let pending = redis.cli(&["XPENDING", STREAM, "tailspan"]).await;
        pending.starts_with("*4\r\n:0\r\n")
    })
    .await;
}

/// How often each step of a trace was seen, by its name.
async fn steps(base: &str, trace: &str) -> BTreeMap<String, u64> {
    let mut steps = BTreeMap::new();
    let mut cursor = String::new();
    loop {
        let url = format!("{base}/traces/{trace}/events?limit=1000{cursor}");
        let page: serde_json::Value = http().get(&url).send().await.unwrap().json().await.unwrap();
        for event in page["events"].as_array().into_iter().flatten() {
            let name = event["name"].as_str().unwrap_or_default();
            *steps.entry(name.to_owned()).or_default() += 1;
        }
        match page["next"].as_str() {
            Some(next) => cursor = format!("&after={next}"),
            None => return steps,
        }
    }
}

#[tokio::test]
async fn a_viewer_sees_what_an_agent_published() {
    let redis = RedisServer::start().await;
    let instance = reading(quick(&redis.url())).await;
    let failed = [
        "span_id",
        "00f067aa0ba902b7",
        "parent_span",
        "b7ad6b7169203331",
        "success",
        "False",
        "error",
        "no seat left",
    ];
    redis.cli(&entry("trip-7", "book", &failed)).await;
    let url = instance.url("/traces/trip-7/stream?wait=10s");
    let mut viewer = Viewer::open(&url, None).await.unwrap();
    redis
        .cli(&entry("trip-7", "plan", &["span_id", "b7ad6b7169203331"]))
        .await;

    let event = viewer.soon().await.unwrap().unwrap().json();
    let told = [
        &event["event_type"],
        &event["name"],
        &event["error"]["message"],
    ];
    assert_eq!(told, ["task_failed", "book", "no seat left"]);
    let event = viewer.soon().await.unwrap().unwrap().json();
    let told = serde_json::json!({
        "event_type": event["event_type"], "trace_id": event["trace_id"], "agent_id": event["agent_id"], "timestamp": event["timestamp"],
        "duration_ms": event["duration_ms"], "convention": event["convention"], "operation": event["details"]["operation"],
    });
    let expected = serde_json::json!({
        "event_type": "agent_called", "trace_id": "trip-7", "agent_id": "planner-1f2e", "timestamp": "2025-01-20T10:30:45.500000Z",
        "duration_ms": 250.0, "convention": "mesh:entry", "operation": "plan",
    });
    assert_eq!(told, expected);
    let end = viewer.soon().await.unwrap().unwrap();
    assert_eq!(
        (end.name.as_str(), &end.json()["status"]),
        ("end", &serde_json::json!("completed"))
    );
}

/// On every store there is.
pub(crate) async fn a_meshs_entries_are_taken_once_and_its_readers_vanish(case: Case) {
    let entries = 250;
    for n in 0..entries {
        let name = format!("step {n}");
        case.server.cli(&entry("shared", &name, &[])).await;
    }
    // Two processes, and one that read and died.
    let dead = ["XGROUP", "CREATE", STREAM, "tailspan", "0"];
    case.server.cli(&dead).await;
    let taken = [
        "XREADGROUP",
        "GROUP",
        "tailspan",
        "dead",
        "COUNT",
        "30",
        "STREAMS",
        STREAM,
        ">",
    ];
    case.server.cli(&taken).await;
    let mut config = case.server.config();
    config.mesh.take_over = Duration::from_millis(100);
    let apps = [
        App::start(config.clone()).await.unwrap(),
        App::start(config).await.unwrap(),
    ];
    let readers = apps
        .each_ref()
        .map(|app| tokio::spawn(tailspan_mesh::run(app.clone())));
    until("all are stored", async || {
        let stored = apps.iter().map(|app| app.metrics.events_stored.get());
        stored.sum::<u64>() >= entries
    })
    .await;
    until(
        "nothing is pending, and the dead reader is gone",
        async || {
            let pending = case.server.cli(&["XPENDING", STREAM, "tailspan"]).await;
            let members = case
                .server
                .cli(&["XINFO", "CONSUMERS", STREAM, "tailspan"])
                .await;
            pending.contains(":0\r\n") && !members.contains("dead")
        },
    )
    .await;
    let names = case.spans().await;
    assert_eq!(names.len() as u64, entries);
    assert_eq!(names.values().max(), Some(&1), "each once");

    // A stream that was deleted is made anew, and its group with it.
    case.server.cli(&["DEL", STREAM]).await;
    case.server.cli(&entry("shared", "after", &[])).await;
    until("the entry after the DEL is stored", async || {
        case.spans().await.contains_key("after")
    })
    .await;
    for (app, reader) in apps.iter().zip(readers) {
        app.shutdown.cancel();
        reader.await.unwrap();
    }
    let members = case
        .server
        .cli(&["XINFO", "CONSUMERS", STREAM, "tailspan"])
        .await;
    assert!(
        !members.contains("mesh-"),
        "who shuts down leaves the group: {members}"
    );
}

#[tokio::test]
async fn what_cannot_be_stored_is_set_aside_and_counted_and_holds_nothing_back() {
    let redis = RedisServer::start().await;
    // What stands where a trace's events should be makes every append fail.
    redis
        .cli(&["SET", "{default/broken}:events", "no stream"])
        .await;
    let instance = reading(quick(&redis.url())).await;
    redis.cli(&entry("good", "before", &[])).await;
    redis
        .cli(&["XADD", STREAM, "*", "function_name", "of no trace"])
        .await;
    redis.cli(&entry("not an id", "x", &[])).await;
    let large = "x".repeat(2 << 20);
    redis
        .cli(&["XADD", STREAM, "*", "trace_id", "good", "error", &large])
        .await;
    redis.cli(&entry("broken", "refused", &[])).await;
    redis.cli(&entry("good", "after", &[])).await;
    until("four are set aside", async || {
        instance.app.metrics.mesh_set_aside.get() == 4
    })
    .await;
    nothing_pending(&redis).await;
    let steps = steps(&instance.url(""), "good").await;
    assert_eq!(steps.into_keys().collect::<Vec<_>>(), ["after", "before"]);
    let aside = redis.cli(&["XRANGE", "mesh:set-aside", "-", "+"]).await;
    for reason in [
        "its trace_id is missing",
        "its trace_id is \"not an id\"",
        "it has 2097",
        "WRONGTYPE",
    ] {
        assert!(aside.contains(reason), "{reason}: {aside}");
    }
    assert!(aside.len() < 20_000, "of a large entry a part is kept");
    let metrics = http()
        .get(instance.url("/metrics"))
        .send()
        .await
        .unwrap()
        .text()
        .await
        .unwrap();
    for line in [
        "tailspan_mesh_set_aside_total 4",
        "tailspan_mesh_entries_total 2",
        "tailspan_mesh_pending 0",
    ] {
        assert!(metrics.contains(line), "{line}: {metrics}");
    }
}

#[tokio::test]
async fn an_entry_whose_readers_died_often_is_stored_all_the_same() {
    let redis = RedisServer::start().await;
    redis.cli(&entry("t", "unlucky", &[])).await;
    redis
        .cli(&["XGROUP", "CREATE", STREAM, "tailspan", "0"])
        .await;
    redis
        .cli(&[
            "XREADGROUP",
            "GROUP",
            "tailspan",
            "dead",
            "STREAMS",
            STREAM,
            ">",
        ])
        .await;
    let id = redis.cli(&["XRANGE", STREAM, "-", "+"]).await;
    let id = id.lines().find(|line| line.contains('-')).unwrap();
    redis
        .cli(&[
            "XCLAIM",
            STREAM,
            "tailspan",
            "dead",
            "0",
            id,
            "RETRYCOUNT",
            "100",
        ])
        .await;
    let instance = reading(quick(&redis.url())).await;
    until("it is stored", async || {
        instance.app.metrics.mesh_entries.get() == 1
    })
    .await;
    nothing_pending(&redis).await;
    assert_eq!(
        redis.cli(&["EXISTS", "mesh:tries", "mesh:set-aside"]).await,
        ":0\r\n"
    );

    // One that was looked at alone as often as is allowed, and never survived by who did.
    redis.cli(&entry("t", "deadly", &[])).await;
    nothing_pending(&redis).await;
    instance.app.shutdown.cancel();
    until("the reader has left", async || {
        let members = redis.cli(&["XINFO", "CONSUMERS", STREAM, "tailspan"]);
        !members.await.contains("mesh-")
    })
    .await;
    redis.cli(&entry("t", "deadly too", &[])).await;
    let id = redis
        .cli(&["XREVRANGE", STREAM, "+", "-", "COUNT", "1"])
        .await;
    let id = id.lines().find(|line| line.contains('-')).unwrap();
    redis
        .cli(&[
            "XREADGROUP",
            "GROUP",
            "tailspan",
            "dead",
            "STREAMS",
            STREAM,
            ">",
        ])
        .await;
    redis
        .cli(&[
            "XCLAIM",
            STREAM,
            "tailspan",
            "dead",
            "0",
            id,
            "RETRYCOUNT",
            "100",
        ])
        .await;
    redis
        .cli(&["HSET", "mesh:tries", &format!("{STREAM} {id}"), "3"])
        .await;
    let instance = reading(quick(&redis.url())).await;
    until("it is set aside", async || {
        instance.app.metrics.mesh_set_aside.get() == 1
    })
    .await;
    nothing_pending(&redis).await;
    assert_eq!(redis.cli(&["EXISTS", "mesh:tries"]).await, ":0\r\n");
}

#[tokio::test]
async fn retention_removes_what_is_old_and_done_with() {
    let redis = RedisServer::start().await;
    let mut config = quick(&redis.url());
    config.mesh.retention = Some(Duration::from_millis(300));
    config.mesh.take_over = Duration::from_secs(3_600);
    // Old, and in the hand of one who is not known to be dead.
    redis.cli(&entry("t", "in hand", &[])).await;
    redis
        .cli(&["XGROUP", "CREATE", STREAM, "tailspan", "0"])
        .await;
    redis
        .cli(&[
            "XREADGROUP",
            "GROUP",
            "tailspan",
            "slow",
            "STREAMS",
            STREAM,
            ">",
        ])
        .await;
    let app = App::start(config).await.unwrap();
    let intake = Intake::of(&app).unwrap();
    let look = async || {
        let until = std::time::Instant::now() + Duration::from_millis(50);
        read(&intake, Some(until)).await.unwrap();
        redis.cli(&["XLEN", STREAM]).await
    };
    redis.cli(&entry("t", "done", &[])).await;
    for _ in 0..10 {
        assert_eq!(
            look().await,
            ":2\r\n",
            "nothing before what is in hand goes, and nothing after"
        );
    }
    let id = redis.cli(&["XRANGE", STREAM, "-", "+", "COUNT", "1"]).await;
    let id = id.lines().find(|line| line.contains('-')).unwrap();
    redis.cli(&["XACK", STREAM, "tailspan", id]).await;
    until("what is old and done with is gone", async || {
        // The last that was read stays, so that nothing unread can ever go.
        look().await == ":1\r\n"
    })
    .await;
}

#[tokio::test]
async fn a_mesh_of_its_own_waits_while_the_store_is_away() {
    let (mesh, mut store) = (RedisServer::start().await, RedisServer::durable().await);
    let mut config = quick(&store.url());
    config.mesh.redis_url = Some(mesh.url());
    let instance = reading(config).await;
    mesh.cli(&entry("t", "first", &[])).await;
    until("the first is stored", async || {
        instance.app.metrics.mesh_entries.get() == 1
    })
    .await;
    store.kill();
    for name in ["second", "third"] {
        mesh.cli(&entry("t", name, &[])).await;
    }
    until("the second is read", async || {
        let pending = mesh.cli(&["XPENDING", STREAM, "tailspan"]).await;
        !pending.starts_with("*4\r\n:0\r\n")
    })
    .await;
    store.launch().await;
    until("all are stored", async || {
        instance.app.metrics.mesh_entries.get() == 3
    })
    .await;
    nothing_pending(&mesh).await;
    let steps = steps(&instance.url(""), "t").await;
    assert_eq!(
        steps,
        ["first", "second", "third"]
            .map(|name| (name.to_owned(), 1))
            .into()
    );
}

/// Where a reader is killed: when its process has sent, or has been answered, a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Point {
    /// Entries were read, nobody knows.
    ReadUnheard,
    /// Read, and the append is not sent.
    BeforeAppend,
    /// Appended, and nobody knows.
    AppendUnheard,
    BeforeAcknowledgement,
    AcknowledgementUnheard,
    BeforeTakingOver,
    TakenOverUnheard,
    /// Set aside, and not acknowledged.
    SetAsideUnheard,
}

impl Point {
    const ALL: [Self; 8] = [
        Self::ReadUnheard,
        Self::BeforeAppend,
        Self::AppendUnheard,
        Self::BeforeAcknowledgement,
        Self::AcknowledgementUnheard,
        Self::BeforeTakingOver,
        Self::TakenOverUnheard,
        Self::SetAsideUnheard,
    ];

    fn stop(self) -> Stop {
        let sent = |part, passes| Stop {
            part,
            sent: true,
            passes,
            after: 0,
        };
        match self {
            Self::ReadUnheard => Stop {
                part: b"function_name\r\n",
                sent: false,
                passes: false,
                after: 0,
            },
            Self::BeforeAppend => sent(b"}:events\r\n", false),
            Self::AppendUnheard => sent(b"}:events\r\n", true),
            Self::BeforeAcknowledgement => sent(b"XACK\r\n", false),
            Self::AcknowledgementUnheard => sent(b"XACK\r\n", true),
            Self::BeforeTakingOver => sent(b"XCLAIM\r\n", false),
            Self::TakenOverUnheard => sent(b"XCLAIM\r\n", true),
            Self::SetAsideUnheard => sent(b"mesh:set-aside\r\n", true),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_readers_killed_at_named_points_lose_and_double_nothing() {
    const KILLS: usize = 100;
    let redis = RedisServer::start().await;
    let gate = Gate::before(SocketAddr::from(([127, 0, 0, 1], redis.port))).await;
    let url = format!("redis://{}", gate.address);
    let port = ReservedPort::take();
    let start = || {
        let variables = [
            ("TAILSPAN_MESH_TAKE_OVER_SECONDS", "1"),
            ("TAILSPAN_MESH_TRIES", "5"),
        ];
        let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
        crate::faults::Process::with(port.number, &url, variables.to_vec())
    };
    let mut published: HashMap<String, Vec<String>> = HashMap::new();
    let mut unreadable = 0;
    for kill in 0..KILLS {
        let point = Point::ALL[kill % Point::ALL.len()];
        gate.arm(Some(point.stop()));
        let process = tokio::task::block_in_place(start);
        for n in 0..5 {
            let (trace, name) = (format!("t{}", n % 3), format!("step {kill} {n}"));
            redis.cli(&entry(&trace, &name, &[])).await;
            published.entry(trace).or_default().push(name);
        }
        if point == Point::SetAsideUnheard {
            redis
                .cli(&["XADD", STREAM, "*", "function_name", "of no trace"])
                .await;
            unreadable += 1;
        }
        tokio::time::timeout(Duration::from_secs(30), gate.reached())
            .await
            .unwrap_or_else(|_| panic!("kill {kill}: {point:?} is never reached"));
        drop(process);
    }
    gate.arm(None);
    let process = tokio::task::block_in_place(start);
    nothing_pending(&redis).await;
    let base = format!("http://127.0.0.1:{}", port.number);
    for (trace, names) in published {
        until("all are stored", async || {
            steps(&base, &trace).await.len() >= names.len()
        })
        .await;
        let steps = steps(&base, &trace).await;
        let expected: BTreeMap<_, _> = names.into_iter().map(|name| (name, 1)).collect();
        assert_eq!(steps, expected, "{trace}");
    }
    until(
        "readers that were killed are gone from the group",
        async || {
            let members = redis.cli(&["XINFO", "CONSUMERS", STREAM, "tailspan"]).await;
            members.matches("mesh-").count() == 1
        },
    )
    .await;
    let aside = redis.cli(&["XRANGE", "mesh:set-aside", "-", "+"]).await;
    let kept = aside.matches("its trace_id is missing").count();
    assert!(
        kept >= unreadable,
        "{kept} of {unreadable} entries without a trace are kept"
    );
    drop(process);
}
