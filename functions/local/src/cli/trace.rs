//! `tailspan trace`: one trace as a tree of calls.

use std::time::Duration;

use clap::Args;

use super::Outcome;
use super::client::{Client, Query, ServerOptions, trace_path};
use super::terminal::{self, Paint};
use super::tree::{Look, Trace};
use crate::options::parse_seconds;

/// What `tailspan trace` can be told.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  tailspan trace abc123def456
  tailspan trace abc123def456 --usage
  tailspan trace abc123def456 --json | jq .cost_usd
  tailspan trace \"$TRACE_ID\" --wait 30s     # its spans may still be on their way

Exit code: 0, or 1 when the run failed, 2 when there is no such trace, 3 when it was lost, 4 when no server answers.")]
pub struct TraceOptions {
    /// The trace
    #[arg(value_name = "TRACE_ID")]
    pub trace: String,

    /// The server's own answer, as JSON
    #[arg(long)]
    pub json: bool,

    /// Tokens and cost of each call of a model
    #[arg(long, conflicts_with = "json")]
    pub usage: bool,

    /// Show also the caller's side of calls between agents of a mesh
    #[arg(long, conflicts_with = "json")]
    pub show_internal: bool,

    /// Wait so long for a trace that has not begun
    #[arg(long, value_name = "TIME", value_parser = parse_seconds)]
    pub wait: Option<u64>,

    #[command(flatten)]
    pub server: ServerOptions,
}

/// Prints the tree.
///
/// # Errors
/// There is no such trace, the server does not answer, or nobody reads.
pub async fn run(options: &TraceOptions) -> anyhow::Result<Outcome> {
    let client = Client::new(&options.server)?;
    if let Some(seconds) = options.wait {
        let found = client.wait_for_trace(&options.trace, Duration::from_secs(seconds));
        found.await.map_err(|failure| explained(failure, options))?;
    }
    let path = trace_path(&options.trace, "");
    let text = client
        .text(&path, &Query::new())
        .await
        .map_err(|failure| explained(failure, options))?;
    let mut trace: Trace = serde_json::from_str(&text)?;
    if options.json {
        terminal::say(&terminal::clean_json(&text))?;
    } else {
        show(&mut trace, options.usage, options.show_internal)?;
    }
    Ok(Outcome::of_run(&trace.status))
}

/// Prints a trace as its tree.
pub(super) fn show(trace: &mut Trace, usage: bool, internal: bool) -> std::io::Result<()> {
    let hidden = if internal { 0 } else { trace.hide_wrappers() };
    let look = Look {
        paint: Paint::of_stdout(),
        usage,
        now: None,
    };
    terminal::say(&trace.page(look, hidden).join("\n"))
}

/// A trace that is not there has one of few causes; the reader cannot know which.
fn explained(failure: super::client::Failure, options: &TraceOptions) -> anyhow::Error {
    if !failure.is_absent() {
        return failure.into();
    }
    let text = format!(
        "there is no trace {}: its spans are still on their way (--wait 30s waits for them), they went to another server than {}, \
         or it is older than what that one keeps",
        options.trace, options.server.url
    );
    anyhow::Error::from(failure).context(text)
}
