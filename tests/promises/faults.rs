//! Promises 1 and 2 under faults: every viewer ends with exactly 1..n in order, or was told by a `gap` what it cannot have.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

mod clock;
mod store;

use crate::{
    embedded::{listening, program},
    proxy::{Proxy, Weather},
    support::{Instance, RedisServer, ReservedPort, Viewer, config, http},
};

const TRACE: &str = "faulty";

/// A viewer that is not heard of for this long connects again, as any client with a watchdog does; the heartbeat is 250 ms, that of processes 1 s.
const SILENCE: Duration = Duration::from_millis(2500);

/// What one viewer saw in the end.
#[derive(Debug, Default)]
struct Seen {
    /// Events since the start, or since the last announced replacement.
    seqs: Vec<u64>,
    /// Their ids: of two logs, other ids.
    ids: Vec<Option<String>>,
    gaps: Vec<String>,
    cuts: u32,
}

struct Writing {
    /// Any of them takes a batch; a repeat may go to another.
    urls: Vec<String>,
    written: Arc<AtomicU64>,
}

/// Writes events `from..=to`, each with its id, in batches; repeats a batch until it is acknowledged, as exporters do.
async fn write(writing: &Writing, from: u64, to: u64) {
    let http = http();
    let mut next = from;
    while next <= to {
        let last = (next + rand::random_range(1..20)).min(to);
        let body: String = (next..=last)
            .map(|n| format!("{{\"event_type\":\"step\",\"event_id\":\"e{n}\",\"n\":{n}}}\n"))
            .collect();
        let started = Instant::now();
        loop {
            let sent = http
                .post(any(&writing.urls))
                .header("content-type", "application/x-ndjson")
                .body(body.clone())
                .send()
                .await;
            let refused = match sent {
                Ok(response) if response.status().is_success() => break,
                Ok(response) => {
                    let is_passing = response.status() == 503;
                    let text = response.text().await.unwrap_or_default();
                    assert!(is_passing, "{text}");
                    text
                }
                Err(error) => error.to_string(),
            };
            assert!(
                started.elapsed() < Duration::from_secs(60),
                "not taken for a minute: {refused}"
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        writing.written.store(last, Ordering::SeqCst);
        next = last + 1;
    }
}

fn any(urls: &[String]) -> &str {
    &urls[rand::random_range(0..urls.len())]
}

/// Waits until so many viewers were cut often enough: the run must not end before.
async fn cut_enough(enough: &AtomicU64, viewers: u64) {
    while enough.load(Ordering::SeqCst) < viewers {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn end_run(urls: &[String]) {
    let body = "{\"event_type\":\"workflow_completed\",\"event_id\":\"the-end\"}";
    let http = http();
    for _ in 0..200 {
        if let Ok(response) = http.post(any(urls)).body(body).send().await
            && response.status().is_success()
        {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the end was not taken");
}

/// Watches through rough connections until it was cut `cuts` times, says so in `enough`, and goes on calmly to the end.
async fn view(
    rough: Vec<SocketAddr>,
    calm: Vec<SocketAddr>,
    cuts: u32,
    enough: Arc<AtomicU64>,
) -> Seen {
    let mut seen = Seen::default();
    let mut last_event_id: Option<String> = None;
    let mut is_calm = false;
    loop {
        if seen.cuts >= cuts && !is_calm {
            is_calm = true;
            enough.fetch_add(1, Ordering::SeqCst);
        }
        let through = if is_calm { &calm } else { &rough };
        let address = through[rand::random_range(0..through.len())];
        let url = format!("http://{address}/traces/{TRACE}/stream?wait=5s");
        let mut viewer =
            match tokio::time::timeout(SILENCE * 5, Viewer::open(&url, last_event_id.as_deref()))
                .await
            {
                Ok(Ok(viewer)) => viewer,
                Ok(Err(error)) if error.to_string().starts_with("204") => {
                    // Everything was seen; the frame that said so was cut.
                    return seen;
                }
                _ => {
                    seen.cuts += 1;
                    tokio::time::sleep(Duration::from_millis(5)).await;
                    continue;
                }
            };
        // Silence, a cut and an error are all the same to a client: it comes back.
        while let Ok(Ok(Some(frame))) =
            tokio::time::timeout(SILENCE, viewer.next_or_heartbeat()).await
        {
            match frame.name.as_str() {
                "" if frame.data.is_empty() => {}
                "" => {
                    seen.seqs
                        .push(frame.json()["seq"].as_u64().expect("a number"));
                    seen.ids.push(frame.id);
                }
                "gap" => {
                    if frame.json()["reason"] == "replaced" {
                        seen.seqs.clear();
                        seen.ids.clear();
                    }
                    seen.gaps.push(frame.data);
                }
                "end" => return seen,
                other => panic!("unknown frame {other}"),
            }
        }
        seen.cuts += 1;
        last_event_id = viewer.last_event_id.clone();
    }
}

struct Scene {
    instances: Vec<Instance>,
    rough: Vec<Proxy>,
}

impl Scene {
    async fn start(redis_url: &str, weather: Weather) -> Self {
        let mut scene = Self {
            instances: Vec::new(),
            rough: Vec::new(),
        };
        for _ in 0..2 {
            let mut config = config(redis_url);
            config.heartbeat = Duration::from_millis(250);
            let instance = Instance::with(config).await;
            scene.rough.push(Proxy::to(instance.address, weather).await);
            scene.instances.push(instance);
        }
        scene
    }

    fn writing(&self) -> Writing {
        Writing {
            urls: vec![self.instances[0].url(&format!("/traces/{TRACE}/events"))],
            written: Arc::default(),
        }
    }

    fn viewers(
        &self,
        count: usize,
        cuts: u32,
        enough: &Arc<AtomicU64>,
    ) -> tokio::task::JoinSet<Seen> {
        let rough: Vec<_> = self.rough.iter().map(|proxy| proxy.address).collect();
        let calm: Vec<_> = self
            .instances
            .iter()
            .map(|instance| instance.address)
            .collect();
        let mut viewers = tokio::task::JoinSet::new();
        for _ in 0..count {
            let (rough, calm, enough) = (rough.clone(), calm.clone(), Arc::clone(enough));
            viewers.spawn(async move {
                tokio::time::sleep(Duration::from_millis(rand::random_range(0..2000))).await;
                view(rough, calm, cuts, enough).await
            });
        }
        viewers
    }
}

/// Every viewer saw exactly `first..=last`, in order.
#[track_caller]
fn assert_exact(seen: &[Seen], first: u64, last: u64) {
    for viewer in seen {
        let broken = viewer
            .seqs
            .iter()
            .zip(first..)
            .find(|(seq, expected)| **seq != *expected);
        assert_eq!(
            broken, None,
            "after {} cuts, gaps {:?}",
            viewer.cuts, viewer.gaps
        );
        assert_eq!(
            viewer.seqs.len() as u64,
            last + 1 - first,
            "gaps {:?}",
            viewer.gaps
        );
    }
}

const ROUGH: Weather = Weather {
    longest_life: Some(Duration::from_millis(120)),
    longest_delay: Duration::from_millis(30),
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_viewers_cut_a_hundred_times_see_ten_thousand_events_once() {
    let redis = RedisServer::start().await;
    let scene = Scene::start(&redis.url(), ROUGH).await;
    let enough = Arc::default();
    let viewers = scene.viewers(50, 100, &enough);
    let writing = scene.writing();
    write(&writing, 1, 10_000).await;
    cut_enough(&enough, 50).await;
    end_run(&writing.urls).await;
    let seen = viewers.join_all().await;
    assert_exact(&seen, 1, 10_001);
    assert!(
        seen.iter()
            .all(|viewer| viewer.gaps.is_empty() && viewer.cuts >= 100)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_killed_and_restarted_loses_and_doubles_nothing() {
    let mut redis = RedisServer::durable().await;
    let scene = Scene::start(&redis.url(), ROUGH).await;
    let enough = Arc::default();
    let viewers = scene.viewers(10, 20, &enough);
    let writing = scene.writing();
    let urls = writing.urls.clone();
    let written = Arc::clone(&writing.written);
    let writer = tokio::spawn(async move { write(&writing, 1, 3_000).await });
    for kill_at in [500, 1200, 2000] {
        while written.load(Ordering::SeqCst) < kill_at && !writer.is_finished() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        redis.kill();
        redis.launch().await;
    }
    writer.await.expect("written");
    cut_enough(&enough, 10).await;
    end_run(&urls).await;
    let seen = viewers.join_all().await;
    assert_exact(&seen, 1, 3_001);
    assert!(seen.iter().all(|viewer| viewer.gaps.is_empty()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_promoted_replica_without_the_last_writes_is_announced() {
    let primary = RedisServer::start().await;
    let replica = RedisServer::start().await;
    let address = |server: &RedisServer| SocketAddr::from(([127, 0, 0, 1], server.port));
    let door = Proxy::to(address(&primary), Weather::CALM).await;
    replica
        .cli(&["REPLICAOF", "127.0.0.1", &primary.port.to_string()])
        .await;
    while !replica
        .cli(&["INFO", "replication"])
        .await
        .contains("master_link_status:up")
    {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let scene = Scene::start(&format!("redis://{}", door.address), Weather::CALM).await;
    let enough = Arc::default();
    let viewers = scene.viewers(10, 0, &enough);
    let writing = scene.writing();
    write(&writing, 1, 500).await;
    let kept: String = primary
        .cli(&["HGET", "{default/faulty}:trace", "seq"])
        .await;
    while replica
        .cli(&["HGET", "{default/faulty}:trace", "seq"])
        .await
        != kept
    {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // The link breaks; what is written from here on is lost when the replica takes over.
    replica.cli(&["REPLICAOF", "NO", "ONE"]).await;
    write(&writing, 501, 700).await;
    tokio::time::sleep(Duration::from_millis(2500)).await;
    door.lead_to(address(&replica));
    drop(primary);
    write(&writing, 701, 900).await;
    end_run(&writing.urls).await;
    let seen = viewers.join_all().await;
    // 500 survived, 501..=700 are lost, 701..=900 and the end became 501..=701.
    assert_exact(&seen, 1, 701);
    assert!(
        seen.iter()
            .all(|viewer| viewer.gaps.len() == 1 && viewer.gaps[0].contains("replaced")),
        "{seen:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trace_begun_again_under_load_is_announced_to_everybody() {
    let redis = RedisServer::start().await;
    let scene = Scene::start(&redis.url(), Weather::CALM).await;
    let enough = Arc::default();
    let writing = scene.writing();
    write(&writing, 1, 200).await;
    let viewers = scene.viewers(10, 0, &enough);
    tokio::time::sleep(Duration::from_millis(2500)).await;
    let anew = http()
        .post(format!("{}?replace=true", writing.urls[0]))
        .body("{\"event_type\":\"anew\"}")
        .send()
        .await;
    assert!(anew.expect("answered").status().is_success());
    write(&writing, 201, 400).await;
    end_run(&writing.urls).await;
    let seen = viewers.join_all().await;
    assert_exact(&seen, 201, 402);
    assert!(seen.iter().all(|viewer| viewer.gaps.len() == 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_redis_is_told_and_streams_go_on() {
    let redis = RedisServer::start().await;
    let scene = Scene::start(&redis.url(), ROUGH).await;
    let enough = Arc::default();
    let viewers = scene.viewers(10, 20, &enough);
    let writing = scene.writing();
    write(&writing, 1, 500).await;
    redis.cli(&["CONFIG", "SET", "maxmemory", "1"]).await;
    let full = http()
        .post(&writing.urls[0])
        .body("{\"event_type\":\"x\"}")
        .send()
        .await
        .expect("answered");
    assert_eq!(full.status(), 503);
    assert!(full.headers().contains_key("retry-after"));
    assert_eq!(
        full.json::<serde_json::Value>().await.expect("json")["error"]["code"],
        "store_full"
    );
    let metrics = http().get(scene.instances[0].url("/metrics")).send().await;
    let metrics = metrics.expect("answered").text().await.expect("text");
    let counted = "tailspan_append_failures_total{reason=\"full\"} 1";
    assert!(metrics.contains(counted), "{metrics}");
    // A viewer that comes now gets its history all the same.
    let mut late = Viewer::open(
        &scene.instances[1].url(&format!("/traces/{TRACE}/stream")),
        None,
    )
    .await
    .expect("a stream");
    assert_eq!(
        late.soon().await.expect("read").expect("a frame").json()["seq"],
        1
    );
    redis.cli(&["CONFIG", "SET", "maxmemory", "0"]).await;
    write(&writing, 501, 1_000).await;
    cut_enough(&enough, 10).await;
    end_run(&writing.urls).await;
    let seen = viewers.join_all().await;
    assert_exact(&seen, 1, 1_001);
    assert!(seen.iter().all(|viewer| viewer.gaps.is_empty()));
}

/// `tailspan serve` as a process of its own on an outside Redis, always on the same port.
pub(crate) struct Process {
    port: u16,
    redis_url: String,
    variables: Vec<(String, String)>,
    child: std::process::Child,
}

impl Process {
    fn start(port: u16, redis_url: &str) -> Self {
        Self::with(port, redis_url, Vec::new())
    }

    pub(crate) fn with(port: u16, redis_url: &str, variables: Vec<(String, String)>) -> Self {
        let mut child = std::process::Command::new(program())
            .args([
                "serve",
                "--port",
                &port.to_string(),
                "--otlp-port",
                "0",
                "--redis-url",
                redis_url,
            ])
            .env("TAILSPAN_LOG", "error")
            .env("TAILSPAN_HEARTBEAT_SECONDS", "1")
            .envs(variables.iter().cloned())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .expect("tailspan starts");
        listening(&mut child).expect("tailspan listens");
        Self {
            port,
            redis_url: redis_url.to_owned(),
            variables,
            child,
        }
    }

    fn kill_and_start_again(&mut self) {
        self.kill();
        *self = Self::with(
            self.port,
            &self.redis_url.clone(),
            std::mem::take(&mut self.variables),
        );
    }

    fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn instances_killed_in_mid_append_lose_and_double_nothing() {
    let redis = RedisServer::start().await;
    let ports = [(); 2].map(|()| ReservedPort::take());
    let mut processes =
        [0, 1].map(|index: usize| Process::start(ports[index].number, &redis.url()));
    let addresses: Vec<_> = processes
        .iter()
        .map(|process| SocketAddr::from(([127, 0, 0, 1], process.port)))
        .collect();
    let enough = Arc::default();
    let mut viewers = tokio::task::JoinSet::new();
    for _ in 0..10 {
        viewers.spawn(view(
            addresses.clone(),
            addresses.clone(),
            0,
            Arc::clone(&enough),
        ));
    }
    let writing = Writing {
        urls: addresses
            .iter()
            .map(|address| format!("http://{address}/traces/{TRACE}/events"))
            .collect(),
        written: Arc::default(),
    };
    let urls = writing.urls.clone();
    let written = Arc::clone(&writing.written);
    let writer = tokio::spawn(async move { write(&writing, 1, 4_000).await });
    for kill in 0..10u64 {
        while written.load(Ordering::SeqCst) < kill * 380 + 50 && !writer.is_finished() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let at = usize::from(kill % 2 == 1);
        tokio::task::block_in_place(|| processes[at].kill_and_start_again());
    }
    writer.await.expect("written");
    end_run(&urls).await;
    let seen = viewers.join_all().await;
    assert_exact(&seen, 1, 4_001);
    assert!(seen.iter().all(|viewer| viewer.gaps.is_empty()));
}

/// Resident memory of a process without what is mapped of files (its code), bytes.
fn resident_bytes(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"))
        .unwrap_or_default();
    line.trim()
        .trim_end_matches(" kB")
        .parse::<u64>()
        .unwrap_or_default()
        * 1024
}

/// Waits until a process holds less than so much: what a fold or an answer took for a while goes, what is held stays. How much it is when it does not go.
async fn comes_below(pid: u32, most_bytes: u64) -> Result<(), u64> {
    let started = Instant::now();
    loop {
        let resident = resident_bytes(pid);
        if resident < most_bytes {
            return Ok(());
        }
        if started.elapsed() > Duration::from_secs(60) {
            return Err(resident);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn viewers_that_never_read_cost_little_and_delay_nobody() {
    use tokio::io::AsyncWriteExt as _;

    const EVENTS: u64 = 4_000;
    const AT_ONCE: u64 = 10;
    const TRACE: &str = "dea0dea0dea0dea0dea0dea0dea0dea0";
    // What was written for each of the fifty may be held, and no more however much goes by: 40 MB do.
    const MOST_HELD_BYTES: u64 = 24 << 20;
    let redis = RedisServer::start().await;
    let port = ReservedPort::take();
    // What is free is given back at once: else the allocator's own stock is measured too.
    let variables = vec![("MIMALLOC_PURGE_DELAY".to_owned(), "0".to_owned())];
    let process = Process::with(port.number, &redis.url(), variables);
    let pid = process.child.id();
    let base = format!("http://127.0.0.1:{}", process.port);
    let client = http();
    // One span below another, told again and again: each time is an event, and of all of them a state keeps the last. Random digits: nothing to compress, nothing to share.
    let post = async |from: u64| {
        let spans: Vec<_> = (from..from + AT_ONCE)
            .map(|n| {
                let text: String = (0..640)
                    .map(|_| format!("{:016x}", rand::random::<u64>()))
                    .collect();
                serde_json::json!({
                    "traceId": TRACE, "spanId": "dea0dea0dea0dea0", "parentSpanId": "0dea0dea0dea0dea",
                    "name": "step",
                    "startTimeUnixNano": "1", "endTimeUnixNano": (n + 1).to_string(),
                    "attributes": [{"key": "text", "value": {"stringValue": text}}],
                })
            })
            .collect();
        let export = serde_json::json!({"resourceSpans": [{"scopeSpans": [{"spans": spans}]}]});
        let sent = client
            .post(format!("{base}/v1/traces"))
            .json(&export)
            .send()
            .await
            .expect("answered");
        assert!(sent.status().is_success());
    };
    post(1).await;
    let before = resident_bytes(pid);
    let mut deaf = Vec::new();
    for _ in 0..50 {
        let mut socket = tokio::net::TcpStream::connect(("127.0.0.1", process.port))
            .await
            .expect("connected");
        let request = format!(
            "GET /traces/{TRACE}/stream HTTP/1.1\r\nhost: 127.0.0.1:{}\r\n\r\n",
            process.port
        );
        socket.write_all(request.as_bytes()).await.expect("sent");
        deaf.push(socket);
    }
    let reading = tokio::spawn({
        let url = format!("{base}/traces/{TRACE}/stream");
        async move {
            Viewer::open(&url, None)
                .await
                .expect("a stream")
                .rest()
                .await
                .expect("read to its end")
        }
    });
    for from in (1 + AT_ONCE..=EVENTS).step_by(AT_ONCE as usize) {
        post(from).await;
    }
    let held = comes_below(pid, before + MOST_HELD_BYTES).await;
    end_run(&[format!("{base}/traces/{TRACE}/events")]).await;
    let seen = reading.await.expect("read");
    let seqs: Vec<u64> = seen
        .iter()
        .filter(|frame| frame.name.is_empty())
        .map(|frame| frame.json()["seq"].as_u64().expect("a number"))
        .collect();
    assert_eq!(seqs, (1..=EVENTS + 1).collect::<Vec<_>>());
    drop(deaf);
    assert_eq!(held, Ok(()), "of {before} bytes before");
}
