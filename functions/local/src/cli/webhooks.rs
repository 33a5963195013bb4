//! `tailspan webhooks`: what became of notifications, and trying them again.

use std::io::Write as _;

use clap::{Args, Subcommand};
use serde::Deserialize;
use serde_json::json;

use super::Outcome;
use super::client::Client;
use super::keys::{Whose, segment};
use super::terminal::clean;

/// What `tailspan webhooks` can be told.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  tailspan webhooks list
  tailspan webhooks list --standing waiting
  tailspan webhooks replay msg_0123456789abcdef0123456789abcdef
  tailspan webhooks replay --all

The token is the server's TAILSPAN_ADMIN_TOKEN, or a key with the scope admin.")]
pub struct WebhooksOptions {
    #[command(subcommand)]
    pub command: WebhooksCommand,
}

#[derive(Debug, Clone, Subcommand)]
pub enum WebhooksCommand {
    /// List deliveries, the newest first
    List {
        /// Which
        #[arg(long, default_value = "dead", value_parser = ["waiting", "dead", "delivered"])]
        standing: String,

        /// At most so many
        #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=1000))]
        limit: u64,

        #[command(flatten)]
        whose: Whose,
    },
    /// Try a delivery again, or all that were given up
    Replay {
        /// The delivery's id
        #[arg(required_unless_present = "all", conflicts_with = "all")]
        id: Option<String>,

        /// All dead letters
        #[arg(long)]
        all: bool,

        #[command(flatten)]
        whose: Whose,
    },
}

#[derive(Deserialize)]
struct Deliveries {
    deliveries: Vec<Row>,
}

#[derive(Deserialize)]
struct Row {
    id: String,
    endpoint: String,
    #[serde(rename = "type")]
    kind: String,
    trace_id: String,
    attempts: u64,
    created_at: String,
    last_status: Option<u64>,
    last_error: Option<String>,
}

#[derive(Deserialize)]
struct Replayed {
    replayed: u64,
}

/// Does it, and prints what there is to know.
///
/// # Errors
/// The server does not answer, or refuses.
pub async fn run(options: &WebhooksOptions) -> anyhow::Result<Outcome> {
    let mut out = std::io::stdout();
    match &options.command {
        WebhooksCommand::List {
            standing,
            limit,
            whose,
        } => {
            let limit = limit.to_string();
            let query = whose
                .query()
                .with("standing", Some(standing))
                .with("limit", Some(&limit));
            let client = Client::new(&whose.server)?;
            let Deliveries { deliveries } =
                client.json("/admin/webhooks/deliveries", &query).await?;
            for row in deliveries {
                let line = format!(
                    "{}  {}  {:<17} {:<16} {}  {} attempts  {} {}",
                    row.id,
                    row.created_at,
                    row.kind,
                    row.endpoint,
                    row.trace_id,
                    row.attempts,
                    row.last_status
                        .map_or_else(String::new, |status| status.to_string()),
                    row.last_error.unwrap_or_default(),
                );
                writeln!(out, "{}", clean(line.trim_end()))?;
            }
        }
        WebhooksCommand::Replay { id, whose, .. } => {
            let path = match id {
                Some(id) => format!("/admin/webhooks/deliveries/{}/replay", segment(id)),
                None => "/admin/webhooks/replay".to_owned(),
            };
            let client = Client::new(&whose.server)?;
            let Replayed { replayed } = client.post_with(&path, &whose.query(), &json!({})).await?;
            writeln!(out, "{replayed} to be delivered again")?;
        }
    }
    Ok(Outcome::Well)
}
