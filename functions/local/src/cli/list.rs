//! `tailspan list`: the traces that a server has, newest first.

use clap::{Args, ValueEnum};
use serde::Deserialize;
use serde_json::value::RawValue;
use time::{Duration, OffsetDateTime};

use super::Outcome;
use super::client::{Client, Query, ServerOptions};
use super::terminal::{self, Paint, clean};
use super::tree::{cost, duration};
use crate::options::parse_seconds;

/// What `tailspan list` can be told.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  tailspan list
  tailspan list --status failed --since 1h
  tailspan list --agent planner --limit 500 --json | jq -r .trace_id
  tailspan list --session checkout-42")]
pub struct ListOptions {
    /// Only traces that stand so now
    #[arg(long, value_enum)]
    pub status: Option<Status>,

    /// Only traces that name this agent, by its name or its id
    #[arg(long, value_name = "NAME")]
    pub agent: Option<String>,

    /// Only traces of this session, by its name or its key
    #[arg(long, value_name = "NAME")]
    pub session: Option<String>,

    /// Only traces of this user
    #[arg(long, value_name = "NAME")]
    pub user: Option<String>,

    /// Only traces that have this in one of their names or errors
    #[arg(long, value_name = "WORDS")]
    pub text: Option<String>,

    /// Only traces that began since: so long ago (90s, 15m, 12h, 7d), or a moment (RFC 3339)
    #[arg(long, value_name = "TIME", value_parser = parse_since)]
    pub since: Option<Since>,

    /// At most so many
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    pub limit: u32,

    /// A line of JSON for each
    #[arg(long)]
    pub json: bool,

    #[command(flatten)]
    pub server: ServerOptions,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Status {
    Running,
    Stalled,
    Lost,
    Completed,
    Failed,
}

impl Status {
    fn word(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Stalled => "stalled",
            Self::Lost => "lost",
            Self::Completed => "completed",
            Self::Failed => "failed",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Since {
    Ago(u64),
    At(OffsetDateTime),
}

fn parse_since(text: &str) -> Result<Since, String> {
    match super::tree::moment(text) {
        Some(at) => Ok(Since::At(at)),
        None => parse_seconds(text).map(Since::Ago),
    }
}

/// The most that the server gives at once.
const PAGE: u32 = 200;

#[derive(Deserialize)]
struct Page {
    traces: Vec<Box<RawValue>>,
    #[serde(default)]
    next_cursor: Option<String>,
}

#[derive(Deserialize)]
struct Row {
    trace_id: String,
    status: String,
    #[serde(default)]
    started_at: String,
    #[serde(default)]
    total_events: u64,
    #[serde(default)]
    run: Option<Run>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Run {
    name: String,
    duration_ms: Option<f64>,
    agents: Vec<String>,
    total_tokens: u64,
    cost_usd: Option<f64>,
    errors_count: u64,
}

/// Prints the table, or the lines.
///
/// # Errors
/// The server does not answer or refuses a filter, or nobody reads.
pub async fn run(options: &ListOptions) -> anyhow::Result<Outcome> {
    let client = Client::new(&options.server)?;
    let mut rows = vec![heads()];
    let mut left = options.limit;
    let mut cursor = None;
    let since = options
        .since
        .map(|since| moment(since, OffsetDateTime::now_utc()));
    while left > 0 {
        let query = Query::new()
            .with("status", options.status.map(Status::word))
            .with("agent_id", options.agent.clone())
            .with("session_id", options.session.clone())
            .with("user_id", options.user.clone())
            .with("text", options.text.clone())
            .with("start_time", since.clone())
            .with("limit", Some(left.min(PAGE).to_string()))
            .with("cursor", cursor.take());
        let page: Page = client.json("/traces", &query).await?;
        for trace in page
            .traces
            .iter()
            .take(usize::try_from(left).unwrap_or(usize::MAX))
        {
            match options.json {
                true => terminal::say(&terminal::clean_json(trace.get()))?,
                false => rows.push(cells(&serde_json::from_str(trace.get())?)),
            }
        }
        left = left.saturating_sub(u32::try_from(page.traces.len()).unwrap_or(u32::MAX));
        // A page may be empty and yet not the last one: so many traces were looked at as one request may.
        cursor = page.next_cursor;
        if cursor.is_none() {
            break;
        }
    }
    match rows.as_slice() {
        _ if options.json => {}
        [_] => terminal::remark(&format!("no traces at {} that fit", client.url())),
        rows => terminal::say(&terminal::columns(rows, terminal::width()).join("\n"))?,
    }
    Ok(Outcome::Well)
}

fn moment(since: Since, now: OffsetDateTime) -> String {
    let at = match since {
        Since::At(at) => at,
        Since::Ago(seconds) => {
            let ago = Duration::seconds(i64::try_from(seconds).unwrap_or(i64::MAX));
            now.checked_sub(ago).unwrap_or(OffsetDateTime::UNIX_EPOCH)
        }
    };
    (at.unix_timestamp_nanos() / 1_000_000).max(0).to_string()
}

fn heads() -> Vec<String> {
    let heads = [
        "TRACE", "STATUS", "STARTED", "TIME", "EVENTS", "TOKENS", "COST", "ERRORS", "NAME",
        "AGENTS",
    ];
    let paint = Paint::of_stdout();
    heads.iter().map(|head| paint.strong(head)).collect()
}

fn cells(row: &Row) -> Vec<String> {
    let paint = Paint::of_stdout();
    let none = Run::default();
    let run = row.run.as_ref();
    // What is not known yet is not zero.
    let known = |text: fn(&Run) -> String| run.map_or_else(|| "-".to_owned(), text);
    let name = run.unwrap_or(&none);
    // 2026-11-21T13:04:04.527Z -> 2026-11-21 13:04:04
    let started = row.started_at.get(..19).unwrap_or(&row.started_at);
    vec![
        clean(&row.trace_id).into_owned(),
        paint.status(&clean(&row.status)),
        clean(started).replace('T', " "),
        run.and_then(|run| run.duration_ms)
            .map_or("-".to_owned(), duration),
        row.total_events.to_string(),
        known(|run| run.total_tokens.to_string()),
        run.and_then(|run| run.cost_usd)
            .map_or("-".to_owned(), cost),
        match name.errors_count {
            0 => known(|_| "0".to_owned()),
            errors => paint.bad(&errors.to_string()),
        },
        clean(&name.name).into_owned(),
        clean(&name.agents.join(", ")).into_owned(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn since_is_an_age_or_a_moment() {
        let now = OffsetDateTime::from_unix_timestamp(10_000).unwrap();
        let check = |text: &str| parse_since(text).ok().map(|since| moment(since, now));
        assert_eq!(check("1h").as_deref(), Some("6400000"));
        assert_eq!(check("1970-01-01T01:00:00+01:00").as_deref(), Some("0"));
        assert_eq!(check("9999999d").as_deref(), Some("0"));
        assert_eq!(check("yesterday"), None);
    }
}
