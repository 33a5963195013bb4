//! The command line: the built program against a real server, in a pipe and on a terminal.

use std::{io::Read as _, net::SocketAddr, os::fd::OwnedFd, process::Stdio, time::Duration};

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::sync::mpsc;

use crate::{
    embedded::program,
    proxy::{Proxy, Weather},
    support::{Instance, RedisServer, http},
};

/// Longer than anything here takes; what hangs fails instead of hanging.
const PATIENCE: Duration = Duration::from_secs(40);

struct Answer {
    code: Option<i32>,
    out: String,
    err: String,
}

fn tailspan(at: SocketAddr, words: &[&str]) -> Command {
    let mut command = Command::new(program());
    command
        .args(words)
        .env("TAILSPAN_URL", format!("http://{at}"))
        .env_remove("TAILSPAN_TOKEN")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

async fn answer(mut command: Command) -> Answer {
    let output = tokio::time::timeout(PATIENCE, command.output());
    let output = output.await.expect("it ends").expect("it runs");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    Answer {
        code: output.status.code(),
        out: text(output.stdout),
        err: text(output.stderr),
    }
}

async fn ask(at: SocketAddr, words: &[&str]) -> Answer {
    answer(tailspan(at, words)).await
}

async fn send(instance: &Instance, trace: &str, events: &Value) {
    let answer = http()
        .post(instance.url(&format!("/traces/{trace}/events")))
        .json(events)
        .send()
        .await
        .expect("answered");
    assert!(answer.status().is_success(), "{answer:?}");
}

/// Two agents; the second one's step fails, with words that would clear a terminal.
fn begun() -> Value {
    json!([
        {"event_type": "workflow_started", "span_id": "root", "agent_name": "planner", "name": "plan",
         "timestamp": "2026-01-01T00:00:00Z", "session_id": "chat"},
        {"event_type": "tool_call_started", "span_id": "look", "parent_span_id": "root", "tool_name": "look\u{1b}[2J\u{9b}31m",
         "agent_name": "planner", "timestamp": "2026-01-01T00:00:01Z"},
        {"event_type": "tool_call_completed", "span_id": "look", "parent_span_id": "root", "tool_name": "look\u{1b}[2J\u{9b}31m",
         "agent_name": "planner", "timestamp": "2026-01-01T00:00:01.250Z", "error": {"type": "Timeout", "message": "no\nanswer"}},
    ])
}

fn over(event_type: &str) -> Value {
    json!({"event_type": event_type, "span_id": "root", "agent_name": "planner", "name": "plan", "timestamp": "2026-01-01T00:00:02Z"})
}

async fn start() -> (RedisServer, Instance) {
    let redis = RedisServer::start().await;
    let instance = Instance::start(&redis.url()).await;
    (redis, instance)
}

#[tokio::test]
async fn a_trace_is_a_tree_of_calls_and_an_exit_code() {
    let (_redis, instance) = start().await;
    send(&instance, "good", &begun()).await;
    send(&instance, "good", &over("workflow_completed")).await;
    send(&instance, "bad", &begun()).await;
    send(&instance, "bad", &over("workflow_failed")).await;

    let good = ask(instance.address, &["trace", "good"]).await;
    let expected = "\
Call Tree for trace good
════════════════════════════════════════════════════════════
└─ plan (planner) [2.00s] ✓
   └─ look\u{fffd}[2J\u{fffd}31m (planner) [250ms] ✗
      Error: Timeout: no answer
────────────────────────────────────────────────────────────
Summary: 2 spans across 1 agent | 2.00s | ✓
Agents: planner
";
    assert_eq!(good.out, expected, "{}", good.err);
    assert_eq!(good.code, Some(0));
    assert_eq!(ask(instance.address, &["trace", "bad"]).await.code, Some(1));

    let json = ask(instance.address, &["trace", "bad", "--json"]).await;
    assert!(
        !json.out.trim_end().contains(char::is_control),
        "{}",
        json.out
    );
    let json: Value = serde_json::from_str(&json.out).expect("JSON");
    assert_eq!(json["spans"][1]["name"], "look\u{1b}[2J\u{9b}31m");

    let absent = ask(instance.address, &["trace", "nobody"]).await;
    assert_eq!((absent.code, absent.out.as_str()), (Some(2), ""));
    assert!(
        absent.err.contains("there is no trace nobody"),
        "{}",
        absent.err
    );
}

#[tokio::test]
async fn a_trace_can_be_waited_for() {
    let (_redis, instance) = start().await;
    let command = tailspan(instance.address, &["trace", "later", "--wait", "30s"]);
    let (answer, ()) = tokio::join!(answer(command), async {
        // It waits when the server has its request: it is the only one that counts as a viewer.
        while !metric(&instance, "tailspan_viewers 1").await {
            tokio::task::yield_now().await;
        }
        send(&instance, "later", &begun()).await;
    });
    assert_eq!(answer.code, Some(0), "{}", answer.err);
    assert!(answer.out.contains("plan (planner)"));
}

async fn metric(instance: &Instance, line: &str) -> bool {
    let text = http().get(instance.url("/metrics")).send().await;
    let text = text.expect("answered").text().await.expect("text");
    text.lines().any(|said| said.starts_with(line))
}

#[tokio::test]
async fn the_list_has_filters_and_lines_for_scripts() {
    let (_redis, instance) = start().await;
    for n in 0..205 {
        send(&instance, &format!("run-{n:03}"), &begun()).await;
    }
    send(&instance, "run-000", &over("workflow_failed")).await;

    let all = ask(instance.address, &["list", "--json", "--limit", "1000"]).await;
    let rows: Vec<Value> = all
        .out
        .lines()
        .map(|row| serde_json::from_str(row).expect("JSON"))
        .collect();
    assert_eq!(rows.len(), 205);
    assert_eq!(rows[0]["trace_id"], "run-204");

    let table = ask(instance.address, &["list", "--limit", "201"]).await;
    assert_eq!(table.out.lines().count(), 202);
    assert!(table.out.starts_with("TRACE"), "{}", table.out);
    let none = ask(instance.address, &["list", "--agent", "nobody"]).await;
    assert_eq!((none.code, none.out.as_str()), (Some(0), ""));
    let since = ask(
        instance.address,
        &[
            "list",
            "--since",
            "2000-01-01T00:00:00Z",
            "--session",
            "chat",
            "--limit",
            "3",
            "--json",
        ],
    )
    .await;
    assert_eq!(since.out.lines().count(), 3);
    assert_eq!(
        ask(instance.address, &["list", "--status", "odd"])
            .await
            .code,
        Some(2)
    );
}

/// A program that runs on, and its lines.
fn lines(mut child: Child) -> (Child, Lines<BufReader<ChildStdout>>) {
    let out = child.stdout.take().expect("piped");
    (child, BufReader::new(out).lines())
}

async fn line(lines: &mut Lines<BufReader<ChildStdout>>) -> Option<String> {
    let line = tokio::time::timeout(PATIENCE, lines.next_line());
    line.await.expect("a line in time").expect("readable")
}

#[tokio::test]
async fn a_tail_goes_on_where_it_was_cut_and_says_how_the_run_ended() {
    let (_redis, instance) = start().await;
    let proxy = Proxy::to(instance.address, Weather::CALM).await;
    send(&instance, "run", &begun()).await;
    let mut command = tailspan(proxy.address, &["tail", "run", "--json"]);
    let (mut child, mut told) = lines(command.spawn().expect("it starts"));
    let mut seqs = Vec::new();
    let mut next = async |seqs: &mut Vec<u64>| {
        let line = line(&mut told).await?;
        let event: Value = serde_json::from_str(&line).expect("JSON");
        seqs.extend(event["seq"].as_u64());
        Some(event)
    };
    for _ in 0..3 {
        next(&mut seqs).await;
    }
    for round in 0..5 {
        proxy.cut_all();
        send(
            &instance,
            "run",
            &json!({"event_type": "note", "text": round}),
        )
        .await;
        next(&mut seqs).await;
    }
    proxy.cut_all();
    send(&instance, "run", &over("workflow_failed")).await;
    let mut last = None;
    while let Some(event) = next(&mut seqs).await {
        last = Some(event);
    }
    assert_eq!(seqs, (1..=9).collect::<Vec<_>>());
    assert_eq!(last, Some(json!({"control": "end", "status": "failed"})));
    assert_eq!(child.wait().await.expect("ended").code(), Some(1));

    // Who comes after the end is told the same.
    let again = ask(proxy.address, &["tail", "run"]).await;
    assert_eq!(again.code, Some(1));
    assert_eq!(again.out.lines().count(), 10);
    assert!(
        again
            .out
            .contains("00:00:01.250 planner tool_call_completed"),
        "{}",
        again.out
    );
    assert!(!again.out.contains('\u{1b}') && !again.out.contains('\u{9b}'));
}

#[tokio::test]
async fn a_deleted_trace_ends_a_tail_with_its_own_code() {
    let (_redis, instance) = start().await;
    send(&instance, "run", &begun()).await;
    let mut command = tailspan(instance.address, &["tail", "run"]);
    let (mut child, mut told) = lines(command.spawn().expect("it starts"));
    line(&mut told).await.expect("the first event");
    let url = instance.url("/traces/run?force=true");
    http().delete(url).send().await.expect("answered");
    while line(&mut told).await.is_some() {}
    assert_eq!(child.wait().await.expect("ended").code(), Some(3));
    assert_eq!(
        ask(instance.address, &["tail", "nobody"]).await.code,
        Some(2)
    );
}

#[tokio::test]
async fn a_session_and_everything_are_followed_too() {
    let (_redis, instance) = start().await;
    send(&instance, "one", &begun()).await;
    send(
        &instance,
        "other",
        &json!({"event_type": "note", "session_id": "elsewhere"}),
    )
    .await;
    let mut session = tailspan(instance.address, &["tail", "--session", "chat"]);
    let mut all = tailspan(instance.address, &["tail", "--from", "start", "--json"]);
    let (_session, mut session) = lines(session.spawn().expect("it starts"));
    let (_all, mut all) = lines(all.spawn().expect("it starts"));
    send(&instance, "two", &begun()).await;
    let mut seen = Vec::new();
    while seen.len() < 8 {
        let line = line(&mut session).await.expect("it goes on");
        // HH:MM:SS.mmm trace agent type ...
        seen.push(line.split(' ').nth(1).unwrap_or_default().to_owned());
    }
    assert!(
        seen.iter()
            .all(|trace| ["one", "two"].contains(&trace.as_str())),
        "{seen:?}"
    );
    let mut traces = std::collections::BTreeSet::new();
    while traces.len() < 3 {
        let event: Value =
            serde_json::from_str(&line(&mut all).await.expect("it goes on")).expect("JSON");
        traces.extend(event["trace_id"].as_str().map(str::to_owned));
    }
}

#[tokio::test]
async fn what_is_wrong_is_said_in_plain_words() {
    let nobody: SocketAddr = "127.0.0.1:1".parse().expect("an address");
    let refused = ask(nobody, &["list"]).await;
    assert_eq!(refused.code, Some(4));
    assert!(
        refused.err.contains("start one with `tailspan serve`"),
        "{}",
        refused.err
    );
    let odd = ask(nobody, &["list", "--url", "ftp://x"]).await;
    assert!(odd.err.contains("is no address of a server"), "{}", odd.err);

    let redis = RedisServer::start().await;
    let mut config = crate::support::config(&redis.url());
    config
        .tokens
        .insert("secret".to_owned(), tailspan_core::id::TenantId::default());
    let instance = Instance::with(config).await;
    let asked = ask(instance.address, &["list"]).await;
    assert_eq!(asked.code, Some(4));
    assert!(
        asked.err.contains("--token or TAILSPAN_TOKEN"),
        "{}",
        asked.err
    );
    assert_eq!(
        ask(instance.address, &["list", "--token", "secret"])
            .await
            .code,
        Some(0)
    );
}

#[tokio::test]
async fn a_reader_that_is_gone_ends_it_quietly() {
    let (_redis, instance) = start().await;
    send(&instance, "run", &begun()).await;
    let mut child = tailspan(instance.address, &["tail", "run", "--stay"])
        .spawn()
        .expect("it starts");
    let (mut out, mut err) = (
        child.stdout.take().expect("piped"),
        child.stderr.take().expect("piped"),
    );
    out.read_exact(&mut [0; 8])
        .await
        .expect("it tells something");
    drop(out);
    // The next thing that it tells meets nobody.
    send(&instance, "run", &json!({"event_type": "note"})).await;
    let ended = tokio::time::timeout(PATIENCE, child.wait()).await;
    assert_eq!(ended.expect("it ends").expect("ended").code(), Some(141));
    let mut said = String::new();
    err.read_to_string(&mut said).await.expect("readable");
    assert_eq!(said, "");
}

#[tokio::test]
async fn every_command_helps_and_every_shell_is_completed() {
    let nobody: SocketAddr = "127.0.0.1:1".parse().expect("an address");
    let help = ask(nobody, &["--help"]).await;
    let commands: Vec<&str> = help
        .out
        .lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.split_whitespace().next())
        .filter(|command| *command != "help")
        .collect();
    assert!(commands.contains(&"tail"), "{}", help.out);
    for command in commands {
        let help = ask(nobody, &[command, "--help"]).await;
        assert!(help.out.contains("Examples:"), "{command}: {}", help.out);
    }
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let script = ask(nobody, &["completions", shell]).await;
        assert!(script.out.contains("show-internal"), "{shell}");
    }
}

/// A pseudo-terminal: what a program draws, as it comes.
struct Terminal {
    master: OwnedFd,
    seen: mpsc::UnboundedReceiver<Vec<u8>>,
    text: String,
}

impl Terminal {
    fn open(rows: u16, columns: u16, command: &mut Command) -> (Self, Child) {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
        grantpt(&master).expect("granted");
        unlockpt(&master).expect("unlocked");
        let name = ptsname(&master, Vec::new()).expect("it has a name");
        let slave = std::fs::OpenOptions::new()
            .read(true)
            .write(true)
            .open(name.to_str().expect("a path"))
            .expect("opened");
        let master = Self::sized(master, rows, columns);
        let child = command
            .stdout(slave.try_clone().expect("cloned"))
            .stderr(slave)
            .env("TERM", "xterm-256color")
            .env_remove("NO_COLOR")
            .spawn()
            .expect("it starts");
        // What the command keeps of the terminal would keep it open for ever.
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let mut reader = std::fs::File::from(master.try_clone().expect("cloned"));
        let (tell, seen) = mpsc::unbounded_channel();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = reader.read(&mut buffer) {
                if tell.send(buffer[..count].to_vec()).is_err() {
                    break;
                }
            }
        });
        let text = String::new();
        (Self { master, seen, text }, child)
    }

    fn sized(master: OwnedFd, rows: u16, columns: u16) -> OwnedFd {
        let size = Winsize {
            ws_row: rows,
            ws_col: columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        tcsetwinsize(&master, size).expect("sized");
        master
    }

    /// Reads on until this was drawn after what was read before; what was drawn up to there.
    async fn until(&mut self, wanted: &str) -> String {
        let found = tokio::time::timeout(PATIENCE, async {
            loop {
                if let Some(at) = self.text.find(wanted) {
                    return Some(at + wanted.len());
                }
                let part = self.seen.recv().await?;
                self.text.push_str(&String::from_utf8_lossy(&part));
            }
        });
        let Ok(Some(end)) = found.await else {
            panic!("never drawn: {wanted:?} in {:?}", self.text);
        };
        let rest = self.text.split_off(end);
        std::mem::replace(&mut self.text, rest)
    }
}

const OPENED: &str = "\u{1b}[?1049h";
const GIVEN_BACK: &str = "\u{1b}[?1049l";
const DRAWN: &str = "\u{1b}[?2026l";

#[tokio::test]
async fn on_a_terminal_the_tree_moves_and_stays_when_the_run_ends() {
    let (_redis, instance) = start().await;
    send(&instance, "run", &begun()).await;
    let mut command = tailspan(instance.address, &["tail", "run"]);
    let (mut terminal, mut child) = Terminal::open(10, 60, &mut command);
    terminal.until(OPENED).await;
    terminal.until("plan (planner)").await;
    terminal.until(DRAWN).await;

    // More steps than there are lines: what is open is shown, and never more lines than the terminal has.
    let steps: Vec<Value> = (0..40)
        .map(|n| json!({"event_type": "node_started", "span_id": format!("n{n}"), "parent_span_id": "root",
            "name": format!("step-{n}"), "timestamp": format!("2026-01-01T00:00:01.{n:03}Z")}))
        .collect();
    send(&instance, "run", &json!(steps)).await;
    terminal.until("step-39").await;
    let picture = terminal.until(DRAWN).await;
    assert!(picture.contains("not shown"), "{picture:?}");
    assert!(picture.matches("\r\n").count() < 10, "{picture:?}");

    // A narrower terminal gets shorter lines.
    let master = terminal.master.try_clone().expect("cloned");
    drop(Terminal::sized(master, 6, 14));
    let pid = child.id().expect("it runs").to_string();
    let told = std::process::Command::new("kill")
        .args(["-WINCH", &pid])
        .status();
    assert!(told.expect("kill runs").success());
    // A line is cut where the terminal ends.
    terminal.until("plan (plan…").await;
    terminal.until(DRAWN).await;
    let picture = terminal.until(DRAWN).await;
    assert!(picture.matches("\r\n").count() < 6, "{picture:?}");

    send(&instance, "run", &over("workflow_completed")).await;
    terminal.until(GIVEN_BACK).await;
    let left = terminal.until("Agents: planner").await;
    assert!(
        left.contains("Call Tree for trace run") && left.contains("step-0"),
        "{left:?}"
    );
    assert!(
        left.contains("\u{1b}[31m") && !left.contains("\u{1b}[2J\u{9b}"),
        "{left:?}"
    );
    assert_eq!(child.wait().await.expect("ended").code(), Some(0));
}

#[tokio::test]
async fn ctrl_c_gives_the_terminal_back() {
    let (_redis, instance) = start().await;
    send(&instance, "run", &begun()).await;
    let mut command = tailspan(instance.address, &["tail", "run"]);
    let (mut terminal, mut child) = Terminal::open(24, 80, &mut command);
    terminal.until(DRAWN).await;
    let pid = child.id().expect("it runs").to_string();
    let told = std::process::Command::new("kill")
        .args(["-INT", &pid])
        .status();
    assert!(told.expect("kill runs").success());
    terminal.until("\u{1b}[?25h").await;
    terminal.until(GIVEN_BACK).await;
    assert_eq!(child.wait().await.expect("ended").code(), Some(130));
}

#[tokio::test]
async fn no_color_means_none() {
    let (_redis, instance) = start().await;
    send(&instance, "run", &begun()).await;
    let mut command = tailspan(instance.address, &["trace", "run"]);
    let (mut terminal, mut child) = Terminal::open(24, 80, &mut command);
    assert!(terminal.until("Agents: planner").await.contains("\u{1b}["));
    child.wait().await.expect("ended");
    let name = program().display().to_string();
    // The terminal's own set-up takes NO_COLOR away, so a shell sets it again.
    let mut shell = Command::new("sh");
    shell
        .args(["-c", &format!("NO_COLOR=1 exec {name} trace run")])
        .env("TAILSPAN_URL", format!("http://{}", instance.address))
        .kill_on_drop(true);
    let (mut terminal, mut child) = Terminal::open(24, 80, &mut shell);
    let text = terminal.until("Agents: planner").await;
    assert!(!text.contains('\u{1b}'), "{text:?}");
    child.wait().await.expect("ended");
}

/// `tailspan serve`, and the lines that it says.
async fn serve(words: &[&str]) -> (tempfile::TempDir, Child, Lines<BufReader<ChildStdout>>) {
    let data = tempfile::tempdir().expect("a directory");
    let mut command = Command::new(program());
    command
        .args(["serve", "-p", "0", "--otlp-http-port", "0", "--data-dir"])
        .arg(data.path())
        .args(words)
        .env_remove("TAILSPAN_TOKEN")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let (child, told) = lines(command.spawn().expect("it starts"));
    (data, child, told)
}

async fn stop(mut child: Child) -> String {
    let pid = child.id().expect("it runs").to_string();
    let told = std::process::Command::new("kill")
        .args(["-TERM", &pid])
        .status();
    assert!(told.expect("kill runs").success());
    let mut said = String::new();
    let mut err = child.stderr.take().expect("piped");
    let _ = err.read_to_string(&mut said).await;
    assert!(child.wait().await.expect("ended").success());
    said
}

#[tokio::test]
async fn serve_dev_says_where_everything_is_and_tells_of_sessions() {
    let sets = tempfile::tempdir().expect("a directory");
    std::fs::copy(golden("golden.json"), sets.path().join("golden.json")).expect("copied");
    std::fs::write(sets.path().join("broken.json"), "{}").expect("written");
    let folder = sets.path().display().to_string();
    let (_data, child, mut told) =
        serve(&["--dev", "--headless", "-v", "--eval-sets", &folder]).await;
    let mut banner = Vec::new();
    while !banner
        .last()
        .is_some_and(|line: &String| line.starts_with("  pages"))
    {
        banner.push(line(&mut told).await.expect("a banner"));
    }
    let url = banner
        .iter()
        .find_map(|line| line.strip_prefix("listening on "))
        .expect("said")
        .to_owned();
    let has = |line: &str| banner.iter().any(|said| said == line);
    assert!(
        has("dev: at most 100 sessions, kept for 2h after they began"),
        "{banner:?}"
    );
    assert!(
        has(&format!(
            "  WebSocket  {}/ws/traces",
            url.replace("http", "ws")
        )),
        "{banner:?}"
    );
    assert!(
        has(&format!("  SSE        {url}/stream/ui-updates")),
        "{banner:?}"
    );
    assert!(has("  pages      none (--headless)"), "{banner:?}");

    let status = async |path: &str| {
        let answer = http().get(format!("{url}{path}")).send().await;
        answer.expect("answered").status().as_u16()
    };
    assert_eq!(status("/docs").await, 404);
    assert_eq!(status("/openapi.json").await, 200);

    let span = json!({"traceId": "5b8efff798038103d269b633813fc60c", "spanId": "eee19b7ec3c1b174", "name": "run",
        "startTimeUnixNano": "1700000000000000000", "endTimeUnixNano": "1700000001000000000"});
    let name =
        json!({"key": "agentevals.session_name", "value": {"stringValue": "chat-\u{1b}[2J1"}});
    let export = json!({"resourceSpans": [{"resource": {"attributes": [name]}, "scopeSpans": [{"spans": [span]}]}]});
    let sent = http()
        .post(format!("{url}/v1/traces"))
        .json(&export)
        .send()
        .await;
    assert!(sent.expect("answered").status().is_success());
    loop {
        let line = line(&mut told).await.expect("a line for the session");
        if line.starts_with("session") {
            assert!(line.contains("chat-[2J1 ended  1 trace  1 spans"), "{line}");
            break;
        }
    }
    // -v: what happens is logged.
    let logged = stop(child).await;
    assert!(logged.contains("DEBUG"));
    assert!(
        logged.contains("1 eval sets in") && logged.contains("broken.json is no eval set"),
        "{logged}"
    );
}

#[tokio::test]
async fn serve_without_dev_has_its_pages_and_says_less() {
    let (_data, child, mut told) = serve(&[]).await;
    let line = line(&mut told).await.expect("a line");
    let url = line
        .strip_prefix("listening on ")
        .expect("nothing before it");
    let page = http().get(format!("{url}/docs")).send().await;
    assert!(page.expect("answered").status().is_success());
    assert!(!stop(child).await.contains("DEBUG"));
}

/// A golden run that a pipeline evaluates: `examples/ci`.
fn golden(name: &str) -> String {
    format!("{}/../examples/ci/{name}", env!("CARGO_MANIFEST_DIR"))
}

#[tokio::test]
async fn a_golden_run_is_evaluated_as_a_pipeline_expects() {
    let nobody: SocketAddr = "127.0.0.1:1".parse().expect("an address");
    let (trace, set) = (golden("trace.json"), golden("golden.json"));
    let folder = tempfile::tempdir().expect("a directory");
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (xml, results) = (path("report.xml"), path("results.json"));
    let metrics = [
        "-m",
        "tool_trajectory_avg_score",
        "-m",
        "response_match_score",
    ];

    let files = ["-o", "summary", "-o", xml.as_str(), "-o", results.as_str()];
    let words = [&["run", &trace, "--eval-set", &set][..], &metrics, &files].concat();
    let passed = ask(nobody, &words).await;
    assert_eq!(passed.code, Some(0), "{}{}", passed.out, passed.err);
    assert!(
        passed
            .out
            .contains("[PASS] tool_trajectory_avg_score: 1.0000 (PASSED)"),
        "{}",
        passed.out
    );
    let report = std::fs::read_to_string(&xml).expect("written");
    assert!(
        report.contains("tests=\"2\" failures=\"0\" errors=\"0\""),
        "{report}"
    );
    let read = |text: &str| serde_json::from_str::<Value>(text).expect("JSON");
    let written = read(&std::fs::read_to_string(&results).expect("written"));
    assert_eq!(written["traces"][0]["metrics"][0]["eval_status"], "PASSED");
    assert_eq!(written["errors"], json!([]));

    // Below its threshold: the exit code, the JSON and the report say so.
    let strict = ["--threshold", "0.99", "--output", "json"];
    let failed = ask(
        nobody,
        &[&["run", &trace, "-e", &set][..], &metrics, &strict].concat(),
    )
    .await;
    assert_eq!(failed.code, Some(1));
    assert_eq!(
        read(&failed.out)["traces"][0]["metrics"][1]["eval_status"],
        "FAILED"
    );
    let strict = ["--threshold", "0.99", "--output", "junit"];
    let failed = ask(
        nobody,
        &[&["run", &trace, "-e", &set][..], &metrics, &strict].concat(),
    )
    .await;
    assert!(failed.out.contains("<failure"), "{}", failed.out);

    // Without an eval set the default metric has nothing to compare with.
    assert_eq!(ask(nobody, &["run", &trace]).await.code, Some(1));
    // One file that is broken fails the run, and the rest is told.
    let broken = path("broken.json");
    std::fs::write(&broken, "{\"resourceSpans\":[\n1]}").expect("written");
    let some = ask(
        nobody,
        &["run", &broken, &trace, "-e", &set, "--output", "json"],
    )
    .await;
    assert_eq!(some.code, Some(1));
    let some = read(&some.out);
    assert!(
        some["errors"][0]
            .as_str()
            .is_some_and(|error| error.contains("line 2")),
        "{some}"
    );
    assert_eq!(some["traces"][0]["metrics"][0]["score"], 1.0);
    // What is not there, or not said right, is no result.
    for words in [
        &["run", "gone.json"][..],
        &["run", &trace, "-e", "gone.json"],
        &["run"],
        &["run", &trace, "-o", "tabel"],
        &["run", &trace, "-f", "xml"],
        &["run", &trace, "--trajectory-match-type", "sorted"],
    ] {
        assert_eq!(ask(nobody, words).await.code, Some(2), "{words:?}");
    }
}

#[tokio::test]
async fn runs_come_from_directories_and_standard_input_too() {
    use std::io::Write as _;
    use tokio::io::AsyncWriteExt as _;

    let nobody: SocketAddr = "127.0.0.1:1".parse().expect("an address");
    let text = std::fs::read(golden("trace.json")).expect("there");
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(&text).expect("packed");
    let packed = packed.finish().expect("packed");
    let folder = tempfile::tempdir().expect("a directory");
    std::fs::write(folder.path().join("a.json.gz"), &packed).expect("written");
    std::fs::write(folder.path().join("b.json"), &text).expect("written");
    let at = folder.path().display().to_string();
    let both = ask(nobody, &["run", &at, "-m", "error_free", "-o", "json"]).await;
    let both: Value = serde_json::from_str(&both.out).expect("JSON");
    assert_eq!(both["traces"].as_array().map(Vec::len), Some(2), "{both}");

    let mut command = tailspan(nobody, &["run", "-", "-m", "error_free", "-o", "summary"]);
    let mut child = command.stdin(Stdio::piped()).spawn().expect("it starts");
    let mut input = child.stdin.take().expect("piped");
    input.write_all(&packed).await.expect("taken");
    drop(input);
    let told = child.wait_with_output().await.expect("ended");
    assert!(told.status.success(), "{told:?}");
}

#[tokio::test]
async fn serve_does_not_start_with_evaluators_or_eval_sets_that_cannot_be_read() {
    let folder = tempfile::tempdir().expect("a directory");
    let wrong = folder.path().join("wrong.yaml");
    std::fs::write(&wrong, "evaluators: 3").expect("written");
    let gone = folder.path().join("gone").display().to_string();
    for words in [
        ["--config", wrong.to_str().expect("UTF-8")],
        ["--eval-sets", &gone],
    ] {
        let nobody: SocketAddr = "127.0.0.1:1".parse().expect("an address");
        let told = ask(
            nobody,
            &[&["serve", "-p", "0", "--otlp-port", "0"][..], &words].concat(),
        )
        .await;
        assert_eq!(told.code, Some(1), "{words:?}");
        assert!(told.err.contains("TAILSPAN_EVAL"), "{}", told.err);
    }
}
