//! `tailspan redact`: takes out of a stored trace what must not be kept.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;
use serde::Deserialize;
use serde_json::Value;

use super::{
    Outcome,
    client::{Client, ServerOptions, trace_path},
};

/// What `tailspan redact` can be told.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  tailspan redact 4bf92f3577b34da6a3ce929d0e0e4736
  tailspan redact run-7 --name user.email --pattern card
  tailspan redact run-7 --rules rules.json
  tailspan redact run-7 --content-off

What the server always takes out, and what its TAILSPAN_REDACT says, is taken out too. The trace's numbers and cursors stay.
The token is a key with the scope admin, where the server asks for one.")]
pub struct RedactOptions {
    /// The trace's id
    pub trace: String,

    /// A file with rules, as TAILSPAN_REDACT has them
    #[arg(long, value_name = "FILE")]
    pub rules: Option<PathBuf>,

    /// The name of an attribute or of a field of JSON, * for anything; again for more
    #[arg(long = "name", value_name = "NAME")]
    pub names: Vec<String>,

    /// A path into JSON, such as 'args $.customer.iban' or '$..birthday'; again for more
    #[arg(long = "path", value_name = "PATH")]
    pub paths: Vec<String>,

    /// email, card, or an expression between slashes; again for more
    #[arg(long = "pattern", value_name = "PATTERN")]
    pub patterns: Vec<String>,

    /// What was said goes: messages, prompts, arguments and results
    #[arg(long)]
    pub content_off: bool,

    #[command(flatten)]
    pub server: ServerOptions,
}

#[derive(Debug, Deserialize)]
struct Answer {
    events: u64,
    redacted: u64,
    archived: bool,
}

/// # Errors
/// There is no such trace, a rule is none, or the server does not answer.
pub async fn run(options: &RedactOptions) -> anyhow::Result<Outcome> {
    let rules = rules(options)?;
    let client = Client::new(&options.server)?;
    let path = trace_path(&options.trace, "/redact");
    let answer: Answer = client.post(&path, &rules).await?;
    let copy = if answer.archived {
        ", its archived copy too"
    } else {
        ""
    };
    println!(
        "{} values taken out of {} events{copy}",
        answer.redacted, answer.events
    );
    Ok(Outcome::Well)
}

/// The rules of the file, and those of the options.
fn rules(options: &RedactOptions) -> anyhow::Result<Value> {
    let mut rules = match &options.rules {
        Some(file) => read(file)?,
        None => Value::Object(serde_json::Map::new()),
    };
    for (field, more) in [
        ("names", &options.names),
        ("paths", &options.paths),
        ("patterns", &options.patterns),
    ] {
        if more.is_empty() {
            continue;
        }
        let mut all = rules[field].as_array().cloned().unwrap_or_default();
        all.extend(more.iter().cloned().map(Value::from));
        rules[field] = Value::Array(all);
    }
    if options.content_off {
        rules["content"] = Value::from("off");
    }
    Ok(rules)
}

fn read(file: &Path) -> anyhow::Result<Value> {
    let text =
        std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let rules: serde_json::Map<String, Value> = serde_json::from_str(&text)
        .with_context(|| format!("{} is no JSON object of rules", file.display()))?;
    Ok(Value::Object(rules))
}
