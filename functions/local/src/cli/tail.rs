//! `tailspan tail`: follows a trace, a session or everything while it happens, across lost connections.

use std::time::Duration;

use clap::{Args, ValueEnum};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use time::OffsetDateTime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use super::Outcome;
use super::client::{Client, Frame, Next, Query, ServerOptions, session_path, trace_path};
use super::terminal::{self, Paint, Screen, clean};
use super::tree::{Look, Trace, duration};
use crate::options::parse_seconds;

/// What `tailspan tail` can be told.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  tailspan tail abc123def456               # in a terminal a tree that moves, in a pipe a line an event
  tailspan tail abc123def456 --json        # an event a line, as the stream has it
  tailspan tail abc123def456 --wait 5m && echo it went well
  tailspan tail                            # everything that happens from now on
  tailspan tail --session checkout-42 | grep -v heartbeat

Lost connections are taken up where they were cut; nothing is missed or shown twice.

Exit code, of one trace: 0 when the run completed, 1 when it failed, 2 when there is no such trace, 3 when it was lost or deleted,
4 when the server cannot be reached or refuses, 130 after Ctrl-C. A session and everything go on until they are interrupted.")]
pub struct TailOptions {
    /// The trace; without one everything
    #[arg(value_name = "TRACE_ID", conflicts_with = "session")]
    pub trace: Option<String>,

    /// Every trace of this session, by its name or its key
    #[arg(long, value_name = "NAME")]
    pub session: Option<String>,

    /// An event a line, as JSON
    #[arg(long)]
    pub json: bool,

    /// A line an event, in a terminal too
    #[arg(long, conflicts_with = "json")]
    pub lines: bool,

    /// How much of each event is told
    #[arg(long, value_enum, default_value = "detailed")]
    pub level: Level,

    /// Only events of these types
    #[arg(long, value_name = "TYPES", value_delimiter = ',')]
    pub event_types: Vec<String>,

    /// Only events of this agent, by its name or its id
    #[arg(long, value_name = "NAME")]
    pub agent: Option<String>,

    /// From where: a trace and a session from their start, everything from now on, unless told otherwise
    #[arg(long, value_enum, value_name = "PLACE")]
    pub from: Option<From>,

    /// Wait so long for a trace that has not begun
    #[arg(long, value_name = "TIME", value_parser = parse_seconds, requires = "trace")]
    pub wait: Option<u64>,

    /// Stay when the run ends, for the next run of the same trace
    #[arg(long, short = 'F', requires = "trace")]
    pub stay: bool,

    #[command(flatten)]
    pub server: ServerOptions,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Level {
    Minimal,
    Standard,
    Detailed,
    Debug,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum From {
    Start,
    Now,
}

impl TailOptions {
    fn path(&self) -> String {
        match (&self.trace, &self.session) {
            (Some(trace), _) => trace_path(trace, "/stream"),
            (None, Some(session)) => session_path(session, "/stream"),
            (None, None) => "/stream".to_owned(),
        }
    }

    fn query(&self) -> Query {
        let level = match self.level {
            Level::Minimal => "minimal",
            Level::Standard => "standard",
            Level::Detailed => "detailed",
            Level::Debug => "debug",
        };
        let from = self.from.map(|from| match from {
            From::Start => "start",
            From::Now => "now",
        });
        let types = (!self.event_types.is_empty()).then(|| self.event_types.join(","));
        Query::new()
            .with("level", Some(level))
            .with("from", from)
            .with("event_types", types)
            .with("agent", self.agent.clone())
            .with("until", self.stay.then_some("closed"))
    }
}

/// Shows what happens until it ends.
///
/// # Errors
/// There is no such trace, the server cannot be reached at the start or refuses, or nobody reads.
pub async fn run(options: &TailOptions) -> anyhow::Result<Outcome> {
    let client = Client::new(&options.server)?;
    if let (Some(trace), Some(seconds)) = (&options.trace, options.wait) {
        let wait = Duration::from_secs(seconds);
        client.wait_for_trace(trace, wait).await?;
    }
    let told = listen(&client, options);
    match &options.trace {
        Some(trace) if !options.json && !options.lines && terminal::is_drawable() => {
            draw(&client, trace, told).await
        }
        _ => print(&client, options, told).await,
    }
}

type Told = Result<Next, super::client::Failure>;

/// Follows in a task of its own, so that whoever shows what it tells can do other things meanwhile.
fn listen(client: &Client, options: &TailOptions) -> mpsc::Receiver<Told> {
    let (tell, told) = mpsc::channel(64);
    let mut follow = client.follow(options.path(), options.query());
    tokio::spawn(async move {
        loop {
            let next = follow.next().await;
            let is_last = matches!(next, Err(_) | Ok(Next::Over));
            if tell.send(next).await.is_err() || is_last {
                break;
            }
        }
    });
    told
}

/// A line an event.
async fn print(
    client: &Client,
    options: &TailOptions,
    mut told: mpsc::Receiver<Told>,
) -> anyhow::Result<Outcome> {
    let paint = Paint::of_stdout();
    let many = options.trace.is_none();
    while let Some(next) = told.recv().await {
        let frame = match next? {
            Next::Frame(frame) => frame,
            Next::Over => break,
            Next::Lost(why) => {
                terminal::remark(&format!("{why}; trying again"));
                continue;
            }
            Next::Back => {
                terminal::remark("connected again");
                continue;
            }
        };
        match options.json {
            true => terminal::say(&terminal::clean_json(&json_line(&frame)))?,
            false => {
                if let Some(line) = event_line(&frame, many, paint) {
                    terminal::say(&line)?;
                }
            }
        }
        if let Some(status) = ended(&frame)
            && !options.stay
        {
            return Ok(Outcome::of_run(&status));
        }
    }
    outcome_now(client, options).await
}

/// How a trace stands of which everything was shown.
async fn outcome_now(client: &Client, options: &TailOptions) -> anyhow::Result<Outcome> {
    let Some(trace) = &options.trace else {
        return Ok(Outcome::Well);
    };
    let trace: Trace = client.json(&trace_path(trace, ""), &Query::new()).await?;
    Ok(Outcome::of_run(&trace.status))
}

/// The status that an `end` tells.
fn ended(frame: &Frame) -> Option<String> {
    if frame.event.as_deref() != Some("end") {
        return None;
    }
    let data: Value = serde_json::from_str(&frame.data).unwrap_or_default();
    let status = data.get("status").and_then(Value::as_str);
    Some(status.unwrap_or_default().to_owned())
}

/// An event as it came; what the stream says of itself is marked, since an event may have any type.
fn json_line(frame: &Frame) -> String {
    let Some(name) = &frame.event else {
        return frame.data.clone();
    };
    let mut line = Map::new();
    line.insert("control".to_owned(), json!(name));
    if let Ok(Value::Object(data)) = serde_json::from_str(&frame.data) {
        line.extend(data);
    }
    Value::Object(line).to_string()
}

/// What is shown of an event.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Shown {
    event_type: String,
    trace_id: String,
    timestamp: String,
    agent_id: String,
    agent_name: Option<String>,
    name: Option<String>,
    status: Option<String>,
    duration_ms: Option<f64>,
    error: Option<Wrong>,
    output: Option<Value>,
    session_id: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Wrong {
    #[serde(rename = "type")]
    kind: String,
    message: String,
}

/// `13:04:22.594 planner  tool_call_completed search [2.01s] ✓`
fn event_line(frame: &Frame, many: bool, paint: Paint) -> Option<String> {
    if let Some(name) = &frame.event {
        let data: Map<String, Value> = serde_json::from_str(&frame.data).unwrap_or_default();
        let said = data.iter().map(|(key, value)| match value.as_str() {
            Some(text) => format!("{}={}", clean(key), clean(text)),
            None => format!("{}={}", clean(key), clean(&value.to_string())),
        });
        let said: Vec<_> = said.collect();
        return Some(paint.faint(&format!("-- {} {}", clean(name), said.join(" "))));
    }
    let event: Shown = serde_json::from_str(&frame.data).ok()?;
    // A trace that moved is followed by what moved in it.
    if many && event.event_type == "trace_updated" {
        return None;
    }
    // 2026-11-21T13:04:22.594880Z -> 13:04:22.594
    let time = event.timestamp.get(11..23).unwrap_or(&event.timestamp);
    let mut line = paint.faint(&clean(time));
    if many {
        let short: String = event.trace_id.chars().take(8).collect();
        line += &format!(" {}", paint.moving(&clean(&short)));
    }
    let agent = event.agent_name.as_deref().filter(|name| !name.is_empty());
    let agent = agent.unwrap_or(&event.agent_id);
    if !agent.is_empty() {
        line += &format!(" {}", paint.strong(&clean(agent)));
    }
    line += &format!(" {}", clean(&event.event_type));
    // What happens to a session is said of no step.
    let session = event
        .session_id
        .filter(|_| event.event_type.starts_with("session_"));
    if let Some(name) = event.name.or(session).filter(|name| !name.is_empty()) {
        line += &format!(" {}", clean(&name));
    }
    if let Some(took) = event.duration_ms {
        line += &paint.faint(&format!(" [{}]", duration(took)));
    }
    match event.status.as_deref() {
        Some("ok") => line += &format!(" {}", paint.good("✓")),
        Some("error") => line += &format!(" {}", paint.bad("✗")),
        // A run's end says in words how it ended.
        Some(status) if event.event_type == "trace_completed" => {
            line += &format!(" {}", paint.status(&clean(status)));
        }
        _ => {}
    }
    if let Some(error) = event.error {
        let text = match (error.kind.as_str(), error.message.as_str()) {
            ("", message) => message.to_owned(),
            (kind, "") => kind.to_owned(),
            (kind, message) => format!("{kind}: {message}"),
        };
        line += &format!(" {}", paint.bad(&clean(&text)));
    } else if let Some(Value::String(said)) = event.output {
        line += &paint.faint(&format!(" {}", clean(&said)));
    }
    Some(line)
}

/// Between two looks at a tree; longer when a look takes long, so that watching a large run is a small part of its server's work.
const LOOK_AGAIN: Duration = Duration::from_millis(250);
/// Open steps say for how long they have been open.
const CLOCK: Duration = Duration::from_secs(1);

/// The tree of one trace, on a screen of its own until the run ends; then it stays on the terminal.
async fn draw(
    client: &Client,
    id: &str,
    mut told: mpsc::Receiver<Told>,
) -> anyhow::Result<Outcome> {
    let mut stops = Stops::new()?;
    let mut resized = signal(SignalKind::window_change())?;
    let path = trace_path(id, "");
    // Before the screen is taken: a trace that is not there is told where the command was typed.
    let mut trace: Trace = client.json(&path, &Query::new()).await?;
    let mut status = None;
    let mut remark = String::new();
    let screen = Screen::open()?;
    let mut clock = interval(CLOCK);
    clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // When to look again, if something happened since.
    let mut look_at = Instant::now();
    let mut is_stale = false;
    while status.is_none() {
        show(&screen, &trace, &remark)?;
        tokio::select! {
            next = told.recv() => match next {
                Some(Ok(Next::Frame(frame))) => {
                    is_stale = true;
                    status = ended(&frame);
                    if frame.event.as_deref() == Some("gap") {
                        remark = format!("not all of it can be shown: {}", frame.data);
                    }
                }
                Some(Ok(Next::Lost(why))) => remark = format!("{why}; trying again"),
                Some(Ok(Next::Back)) => {
                    remark.clear();
                    is_stale = true;
                }
                Some(Ok(Next::Over)) | None => break,
                Some(Err(failure)) => return Err(failure.into()),
            },
            () = sleep_until(look_at), if is_stale => {
                let began = Instant::now();
                let whole = Query::new();
                let fresh = tokio::select! {
                    fresh = client.json::<Trace>(&path, &whole) => fresh,
                    () = stops.any() => return Ok(Outcome::Interrupted),
                };
                match fresh {
                    Ok(fresh) => trace = fresh,
                    // The stream notices by itself when the server is away.
                    Err(failure) => remark = failure.to_string(),
                }
                is_stale = false;
                look_at = Instant::now() + LOOK_AGAIN.max(began.elapsed() * 4);
            }
            _ = resized.recv() => {}
            _ = clock.tick() => {}
            () = stops.any() => {
                drop(screen);
                return Ok(Outcome::Interrupted);
            }
        }
    }
    drop(screen);
    match client.json::<Trace>(&path, &Query::new()).await {
        Ok(mut last) => {
            super::trace::show(&mut last, false, false)?;
            Ok(Outcome::of_run(status.as_deref().unwrap_or(&last.status)))
        }
        // Deleted: what was seen of it last is what there is.
        Err(failure) if failure.is_absent() => {
            super::trace::show(&mut trace, false, false)?;
            terminal::remark(&format!(
                "the trace was {}",
                status.as_deref().unwrap_or("deleted")
            ));
            Ok(Outcome::of_run(status.as_deref().unwrap_or("deleted")))
        }
        Err(failure) => Err(failure.into()),
    }
}

fn show(screen: &Screen, trace: &Trace, remark: &str) -> std::io::Result<()> {
    let (rows, _) = Screen::size();
    let look = Look {
        paint: Paint::of_stdout(),
        usage: false,
        now: Some(OffsetDateTime::now_utc()),
    };
    // The last line of a screen is where Ctrl-C is echoed.
    screen.show(&trace.screen(look, rows.saturating_sub(2), remark))
}

/// What ends a program from outside, and must not end it before its terminal is given back.
struct Stops {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Stops {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn any(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hangup.recv() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(data: &Value, many: bool) -> Option<String> {
        let frame = Frame {
            event: None,
            data: data.to_string(),
        };
        event_line(&frame, many, Paint::none())
    }

    #[test]
    fn an_event_is_a_line() {
        let event = json!({"seq": 1, "event_type": "tool_call_completed", "trace_id": "abcdefghij",
            "timestamp": "2026-11-21T13:04:22.594880Z", "agent_id": "a1", "agent_name": "planner",
            "name": "search\u{1b}[31m", "status": "error", "duration_ms": 2010.0,
            "error": {"type": "Timeout", "message": "no\nanswer"}});
        assert_eq!(
            line(&event, false).unwrap(),
            "13:04:22.594 planner tool_call_completed search\u{fffd}[31m [2.01s] ✗ Timeout: no answer"
        );
        assert!(
            line(&event, true)
                .unwrap()
                .starts_with("13:04:22.594 abcdefgh planner ")
        );
    }

    #[test]
    fn a_trace_that_moved_is_told_by_what_moved() {
        let notice = |kind| json!({"event_type": kind, "trace_id": "t", "timestamp": "2026-11-21T13:04:22.594Z", "status": "failed"});
        assert_eq!(line(&notice("trace_updated"), true), None);
        assert_eq!(
            line(&notice("trace_completed"), true).unwrap(),
            "13:04:22.594 t trace_completed failed"
        );
    }

    #[test]
    fn what_a_stream_says_of_itself_is_marked() {
        let frame = Frame {
            event: Some("end".to_owned()),
            data: r#"{"status":"completed"}"#.to_owned(),
        };
        assert_eq!(
            json_line(&frame),
            r#"{"control":"end","status":"completed"}"#
        );
        assert_eq!(ended(&frame).as_deref(), Some("completed"));
        assert_eq!(
            event_line(&frame, false, Paint::none()).unwrap(),
            "-- end status=completed"
        );
    }
}
