//! The private Redis of `tailspan serve`: whatever is killed and whenever, nothing acknowledged is lost and nothing is doubled.
//!
//! These promises are about processes, so the built program is what runs here.

use std::{
    collections::HashMap,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::OnceLock,
    time::{Duration, Instant},
};

use futures::StreamExt;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Twenty of each kind.
const KILLS: u32 = 60;
const WRITERS: usize = 8;

/// The program of this very source: built here, because a test run does not build other packages' programs by itself.
pub(crate) fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml");
        let mut build = Command::new(cargo);
        // What cargo tells about the package under test would make it believe that everything has changed.
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
                build.env_remove(name);
            }
        }
        let built = build
            .args([
                "build",
                "--quiet",
                "--package",
                "tailspan-local",
                "--manifest-path",
                manifest,
            ])
            .status()
            .expect("cargo runs");
        assert!(built.success(), "tailspan builds");
        // target/debug/deps/promises-... -> target/debug/tailspan
        let test = std::env::current_exe().expect("the test has a path");
        test.ancestors()
            .nth(2)
            .expect("a target directory")
            .join("tailspan")
    })
}

struct Tailspan {
    child: Child,
    url: String,
    data_dir: PathBuf,
}

fn command(data_dir: &Path) -> Command {
    let mut command = Command::new(program());
    command
        .args(["serve", "--port", "0", "--otlp-port", "0", "--data-dir"])
        .arg(data_dir)
        .env("TAILSPAN_LOG", "warn")
        .stdout(Stdio::piped());
    command
}

impl Tailspan {
    fn start(data_dir: &Path) -> Self {
        let mut child = command(data_dir).spawn().expect("tailspan starts");
        let url = listening(&mut child).expect("tailspan listens");
        Self {
            child,
            url,
            data_dir: data_dir.to_owned(),
        }
    }

    /// Process id of the private Redis.
    fn redis_pid(&self) -> Option<u32> {
        redis_pid(&self.data_dir)
    }

    fn kill_tailspan(&mut self) {
        self.child.kill().expect("alive until now");
        self.child.wait().expect("it is our child");
    }

    fn terminate(&mut self) -> ExitStatus {
        signal("TERM", self.child.id());
        self.child.wait().expect("it is our child")
    }
}

impl Drop for Tailspan {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The address from the line that says that it is ready; `None` when it ended without one. The rest of its lines are read and dropped.
pub(crate) fn listening(child: &mut Child) -> Option<String> {
    let mut lines = BufReader::new(child.stdout.take()?).lines();
    let url = lines
        .by_ref()
        .map_while(Result::ok)
        .find_map(|line| line.strip_prefix("listening on ").map(str::to_owned));
    std::thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
    url
}

fn redis_pid(data_dir: &Path) -> Option<u32> {
    let record = std::fs::read_to_string(data_dir.join("redis/run")).ok()?;
    record.lines().nth(1)?.parse().ok()
}

fn signal(name: &str, pid: u32) {
    let status = Command::new("kill")
        .args([&format!("-{name}"), &pid.to_string()])
        .status();
    assert!(
        status.is_ok_and(|status| status.success()),
        "kill -{name} {pid}"
    );
}

fn is_alive(pid: u32) -> bool {
    // A zombie has ended; it waits for its parent, which in a container may be nobody.
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| {
        !stat
            .rsplit(')')
            .next()
            .is_some_and(|rest| rest.trim_start().starts_with('Z'))
    })
}

fn client() -> reqwest::Client {
    reqwest::Client::builder()
        .no_proxy()
        .timeout(Duration::from_secs(5))
        .build()
        .expect("a client")
}

/// Posts numbered events one by one, each until it is acknowledged, as an exporter does; returns how many were.
async fn write_until(stop: CancellationToken, url: watch::Receiver<String>, trace: String) -> u64 {
    let client = client();
    let mut acknowledged = 0;
    while !stop.is_cancelled() {
        let next = acknowledged + 1;
        let event = serde_json::json!({ "event_type": "tick", "event_id": format!("tick-{next}"), "agent_id": next.to_string() });
        let path = format!("{}/traces/{trace}/events", *url.borrow());
        match client.post(path).json(&event).send().await {
            Ok(answer) if answer.status().is_success() => acknowledged = next,
            Ok(answer) => {
                assert!(
                    matches!(answer.status().as_u16(), 429 | 503),
                    "{}",
                    answer.status()
                );
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
    acknowledged
}

/// What a viewer of the trace sees, until it has seen the event numbered `last` and nothing came for a moment.
async fn read_all(url: &str, trace: &str, last: u64) -> Vec<u64> {
    let answer = client()
        .get(format!("{url}/traces/{trace}/stream"))
        .timeout(Duration::from_secs(60))
        .send()
        .await
        .expect("the stream opens");
    assert_eq!(answer.status(), 200);
    let mut body = answer.bytes_stream();
    let (mut seen, mut text) = (Vec::new(), String::new());
    loop {
        let silence = match seen.contains(&last) {
            true => Duration::from_millis(300),
            false => Duration::from_secs(10),
        };
        match tokio::time::timeout(silence, body.next()).await {
            Ok(Some(Ok(bytes))) => text.push_str(&String::from_utf8_lossy(&bytes)),
            _ => return seen,
        }
        while let Some((frame, rest)) = text.split_once("\n\n") {
            assert!(!frame.contains("event: gap"), "{frame}");
            let data = frame.lines().find_map(|line| line.strip_prefix("data: "));
            let event = data.and_then(|data| serde_json::from_str::<serde_json::Value>(data).ok());
            let agent = event
                .as_ref()
                .and_then(|event| event.get("agent_id")?.as_str());
            seen.extend(agent.and_then(|agent| agent.parse::<u64>().ok()));
            text = rest.to_owned();
        }
    }
}

fn duplicates(seen: &[u64]) -> Vec<u64> {
    let mut counts = HashMap::new();
    for number in seen {
        *counts.entry(*number).or_insert(0) += 1;
    }
    counts
        .into_iter()
        .filter(|(_, count)| *count > 1)
        .map(|(number, _)| number)
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_acknowledged_is_lost_whatever_is_killed_under_load() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut tailspan = Tailspan::start(dir.path());
    let (address, url) = watch::channel(tailspan.url.clone());
    let stop = CancellationToken::new();
    let writers: Vec<_> = (0..WRITERS)
        .map(|n| {
            tokio::spawn(write_until(
                stop.clone(),
                url.clone(),
                format!("killed-{n}"),
            ))
        })
        .collect();

    for kill in 0..KILLS {
        tokio::time::sleep(Duration::from_millis(100 + 37 * u64::from(kill % 5))).await;
        let redis = tailspan.redis_pid();
        // Tailspan alone, Redis alone, both.
        if kill % 3 != 0 {
            signal("KILL", redis.expect("redis runs"));
        }
        if kill % 3 != 1 {
            tailspan.kill_tailspan();
            tailspan = Tailspan::start(dir.path());
            address.send_replace(tailspan.url.clone());
        }
        // Not before the next one is there: killing nobody proves nothing.
        let begun = Instant::now();
        while tailspan
            .redis_pid()
            .is_none_or(|pid| redis == Some(pid) || !is_alive(pid))
        {
            assert!(
                begun.elapsed() < Duration::from_secs(10),
                "redis came back after kill {kill}"
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    stop.cancel();

    let mut total = 0;
    for (n, writer) in writers.into_iter().enumerate() {
        let acknowledged = writer.await.expect("the writer ends");
        assert!(acknowledged > 0, "writer {n} got nothing through");
        let seen = read_all(&tailspan.url, &format!("killed-{n}"), acknowledged).await;
        let lost: Vec<u64> = (1..=acknowledged)
            .filter(|number| !seen.contains(number))
            .collect();
        assert!(
            lost.is_empty(),
            "trace {n}: acknowledged {acknowledged}, lost {lost:?}"
        );
        assert_eq!(duplicates(&seen), Vec::<u64>::new(), "trace {n}");
        assert!(seen.is_sorted(), "trace {n}");
        total += acknowledged;
    }
    println!("{total} events acknowledged across {KILLS} kills");
}

#[test]
fn of_two_starts_at_once_one_serves_and_the_other_says_who() {
    let dir = tempfile::tempdir().expect("a directory");
    for _ in 0..5 {
        let mut starts: Vec<Child> = (0..2)
            .map(|_| {
                command(dir.path())
                    .stderr(Stdio::piped())
                    .spawn()
                    .expect("tailspan starts")
            })
            .collect();
        let listens: Vec<bool> = starts
            .iter_mut()
            .map(|child| listening(child).is_some())
            .collect();
        assert_eq!(
            listens.iter().filter(|listens| **listens).count(),
            1,
            "{listens:?}"
        );

        for (child, listens) in starts.into_iter().zip(listens) {
            if listens {
                signal("TERM", child.id());
            }
            let output = child.wait_with_output().expect("it ends");
            let words = String::from_utf8_lossy(&output.stderr);
            match listens {
                true => assert!(output.status.success(), "{words}"),
                false => {
                    assert_eq!(output.status.code(), Some(1));
                    assert!(words.contains(" is in use by "), "{words}");
                }
            }
        }
    }
}

#[tokio::test]
async fn a_killed_tailspan_leaves_no_server_and_a_stopped_one_keeps_its_data() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut tailspan = Tailspan::start(dir.path());
    let redis = tailspan.redis_pid().expect("redis runs");
    let event = serde_json::json!({ "event_type": "tick", "agent_id": "1" });
    let path = format!("{}/traces/kept/events", tailspan.url);
    let answer = client()
        .post(path)
        .json(&event)
        .send()
        .await
        .expect("an answer");
    assert!(answer.status().is_success(), "{}", answer.status());
    tailspan.kill_tailspan();
    if cfg!(target_os = "linux") {
        let begun = Instant::now();
        while is_alive(redis) {
            assert!(
                begun.elapsed() < Duration::from_secs(2),
                "redis ends with tailspan"
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    let mut tailspan = Tailspan::start(dir.path());
    assert_eq!(read_all(&tailspan.url, "kept", 1).await, [1]);
    assert!(tailspan.terminate().success());
    assert_eq!(redis_pid(dir.path()), None);

    let tailspan = Tailspan::start(dir.path());
    assert_eq!(read_all(&tailspan.url, "kept", 1).await, [1]);
}
