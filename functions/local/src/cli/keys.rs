//! `tailspan keys` and `tailspan share`: who may use a server, and links that show one thing of it.

use std::io::Write as _;

use clap::{Args, Subcommand};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Outcome;
use super::client::{Client, Query, ServerOptions};
use super::terminal::clean;
use crate::options::parse_seconds;

/// What `tailspan keys` can be told.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  TAILSPAN_TOKEN=$ADMIN_TOKEN tailspan keys create --tenant team-a --scopes ingest --name agents
  tailspan keys list
  tailspan keys rotate 0123456789abcdef --grace 1h
  tailspan keys revoke 0123456789abcdef

The token is the server's TAILSPAN_ADMIN_TOKEN, or a key with the scope admin, which keeps the keys of its own tenant.")]
pub struct KeysOptions {
    #[command(subcommand)]
    pub command: KeysCommand,
}

#[derive(Debug, Clone, Subcommand)]
pub enum KeysCommand {
    /// Make a key, and print it: it is shown this once
    Create {
        /// What it may do
        #[arg(long, value_delimiter = ',', required = true, value_name = "SCOPE", value_parser = ["ingest", "read", "admin"])]
        scopes: Vec<String>,

        /// What it is for
        #[arg(long, default_value = "")]
        name: String,

        /// How long it is good: seconds, or with s, m, h, d [default: for ever]
        #[arg(long, value_name = "TIME", value_parser = parse_seconds)]
        expires: Option<u64>,

        #[command(flatten)]
        whose: Whose,
    },
    /// List the keys, with their last use
    List {
        #[command(flatten)]
        whose: Whose,
    },
    /// Give a key a new secret, and print it; the former one stays good for a while
    Rotate {
        /// The key's id
        id: String,

        /// How long the former secret stays good: seconds, or with s, m, h, d
        #[arg(long, value_name = "TIME", default_value = "1d", value_parser = parse_seconds)]
        grace: u64,

        #[command(flatten)]
        whose: Whose,
    },
    /// End a key
    Revoke {
        /// The key's id
        id: String,

        #[command(flatten)]
        whose: Whose,
    },
}

#[derive(Debug, Clone, Args)]
pub struct Whose {
    /// Whose keys, for the admin token [default: those of the token's tenant]
    #[arg(long)]
    pub tenant: Option<String>,

    #[command(flatten)]
    pub server: ServerOptions,
}

impl Whose {
    pub(super) fn query(&self) -> Query {
        Query::new().with("tenant", self.tenant.as_deref())
    }
}

/// What `tailspan share` can be told.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  tailspan share abc123def456
  tailspan share --session checkout-42 --expires 7d --redact")]
pub struct ShareOptions {
    /// The trace to show
    #[arg(value_name = "TRACE_ID", required_unless_present = "session")]
    pub trace: Option<String>,

    /// The session to show, by its name
    #[arg(long, value_name = "NAME", conflicts_with = "trace")]
    pub session: Option<String>,

    /// Show no contents: what was said, given and answered
    #[arg(long)]
    pub redact: bool,

    /// How long the link is good: seconds, or with s, m, h, d; at most 30d
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = parse_seconds)]
    pub expires: u64,

    #[command(flatten)]
    pub server: ServerOptions,
}

#[derive(Deserialize)]
struct Made {
    key: String,
}

#[derive(Deserialize)]
struct Keys {
    keys: Vec<Row>,
}

#[derive(Deserialize)]
struct Row {
    id: String,
    name: String,
    scopes: Vec<String>,
    expires_at: Option<String>,
    last_used_at: Option<String>,
}

/// Does it, and prints what there is to know.
///
/// # Errors
/// The server does not answer, or refuses.
pub async fn run(options: &KeysOptions) -> anyhow::Result<Outcome> {
    let mut out = std::io::stdout();
    match &options.command {
        KeysCommand::Create {
            scopes,
            name,
            expires,
            whose,
        } => {
            let mut body = json!({"scopes": scopes, "name": name});
            if let Some(seconds) = expires {
                body["expires_in_seconds"] = Value::from(*seconds);
            }
            let client = Client::new(&whose.server)?;
            let made: Made = client
                .post_with("/admin/keys", &whose.query(), &body)
                .await?;
            writeln!(out, "{}", clean(&made.key))?;
        }
        KeysCommand::List { whose } => {
            let client = Client::new(&whose.server)?;
            let Keys { keys } = client.json("/admin/keys", &whose.query()).await?;
            for key in keys {
                let line = format!(
                    "{}  {:<18} used {}  expires {}  {}",
                    key.id,
                    key.scopes.join(","),
                    key.last_used_at.as_deref().unwrap_or("never"),
                    key.expires_at.as_deref().unwrap_or("never"),
                    key.name
                );
                writeln!(out, "{}", clean(&line))?;
            }
        }
        KeysCommand::Rotate { id, grace, whose } => {
            let client = Client::new(&whose.server)?;
            let path = format!("/admin/keys/{}/rotate", segment(id));
            let body = json!({"grace_seconds": grace});
            let made: Made = client.post_with(&path, &whose.query(), &body).await?;
            writeln!(out, "{}", clean(&made.key))?;
        }
        KeysCommand::Revoke { id, whose } => {
            let client = Client::new(&whose.server)?;
            let path = format!("/admin/keys/{}", segment(id));
            client.delete(&path, &whose.query()).await?;
        }
    }
    Ok(Outcome::Well)
}

/// An id has no other characters; what has them is sent as something that is none.
pub(super) fn segment(id: &str) -> String {
    id.chars()
        .map(|c| match c {
            '_' => c,
            c if c.is_ascii_alphanumeric() => c,
            _ => '-',
        })
        .collect()
}

#[derive(Deserialize)]
struct Token {
    token: String,
    expires_at: String,
    id: String,
}

/// Makes a viewer token, and prints where it shows what.
///
/// # Errors
/// The server does not answer, or refuses.
pub async fn share(options: &ShareOptions) -> anyhow::Result<Outcome> {
    let client = Client::new(&options.server)?;
    let mut body = json!({"redact": options.redact, "expires_in_seconds": options.expires});
    let path = match (&options.trace, &options.session) {
        (Some(trace), _) => {
            body["trace_id"] = Value::from(trace.as_str());
            super::client::trace_path(trace, "/stream")
        }
        (None, session) => {
            let name = session.as_deref().unwrap_or_default();
            body["session_id"] = Value::from(name);
            super::client::session_path(name, "/stream")
        }
    };
    let made: Token = client.post("/tokens", &body).await?;
    let mut out = std::io::stdout();
    let url = format!("{}{path}?token={}", client.url(), made.token);
    writeln!(out, "{}", clean(&url))?;
    let told = format!("token {} is good until {}", made.id, made.expires_at);
    writeln!(std::io::stderr(), "{}", clean(&told))?;
    Ok(Outcome::Well)
}
