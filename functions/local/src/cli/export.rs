//! `tailspan export`: a trace of a running server into a file.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use indicatif::ProgressBar;
use tempfile::NamedTempFile;

use super::Outcome;
use super::client::{Client, Query, ServerOptions, trace_path};
use super::terminal;

/// What `tailspan export` can be told.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  tailspan export abc123def456 -o run.json
  tailspan export abc123def456 --format jaeger -o run.jaeger.json
  tailspan export abc123def456 --format jsonl | gzip > run.jsonl.gz

otlp and jsonl hold all that was sent, and `tailspan import` gives the same trace again; jaeger holds the spans.

Exit code: 0, or 2 when there is no such trace, 4 when no server answers.")]
pub struct ExportOptions {
    /// The trace
    #[arg(value_name = "TRACE_ID")]
    pub trace: String,

    /// How it is written
    #[arg(short, long, value_enum, default_value_t = Form::Otlp)]
    pub format: Form,

    /// How much of it: minimal, standard, detailed or debug (everything)
    #[arg(long, default_value = "debug")]
    pub level: String,

    /// Write to this file, once all of it is there [default: standard output]
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,

    #[command(flatten)]
    pub server: ServerOptions,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Form {
    /// One OTLP JSON document
    Otlp,
    /// What Jaeger's page loads
    Jaeger,
    /// Lines, in the order of the log
    Jsonl,
}

/// Writes the file.
///
/// # Errors
/// There is no such trace, the server does not answer or breaks off, or the file cannot be written.
pub async fn run(options: &ExportOptions) -> anyhow::Result<Outcome> {
    let client = Client::new(&options.server)?;
    let form = options.format.to_possible_value();
    let query = Query::new()
        .with("format", form.as_ref().map(|form| form.get_name()))
        .with("level", Some(options.level.as_str()));
    let path = trace_path(&options.trace, "/export");
    match &options.output {
        Some(file) => to_file(&client, &path, &query, file).await?,
        None => to_stdout(&client, &path, &query).await?,
    }
    Ok(Outcome::Well)
}

/// The file appears when it is whole.
async fn to_file(client: &Client, path: &str, query: &Query, file: &Path) -> anyhow::Result<()> {
    let failed = || format!("cannot write {}", file.display());
    let directory = match file.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let mut part = NamedTempFile::new_in(directory).with_context(failed)?;
    let bar = ProgressBar::new_spinner();
    let download = client.download(path, query, |bytes| {
        bar.inc(bytes.len() as u64);
        bar.set_message(format!("{} kB", bar.position() / 1_000));
        part.write_all(bytes)
    });
    download.await?;
    bar.finish_and_clear();
    part.flush().with_context(failed)?;
    // As any file that a program writes; a temporary one is its owner's alone.
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = std::fs::Permissions::from_mode(0o644);
        part.as_file().set_permissions(mode).with_context(failed)?;
    }
    part.persist(file)
        .map_err(|error| error.error)
        .with_context(failed)?;
    Ok(())
}

async fn to_stdout(client: &Client, path: &str, query: &Query) -> anyhow::Result<()> {
    let mut out = std::io::stdout();
    if !out.is_terminal() {
        client
            .download(path, query, |bytes| out.write_all(bytes))
            .await?;
        return Ok(out.flush()?);
    }
    // A terminal gets whole characters, without what would steer it.
    let mut rest = Vec::new();
    let download = client.download(path, query, |bytes| {
        rest.extend_from_slice(bytes);
        let whole = match std::str::from_utf8(&rest) {
            Ok(text) => text.len(),
            Err(error) => error.valid_up_to(),
        };
        let after = rest.split_off(whole);
        let text = String::from_utf8_lossy(&rest).into_owned();
        rest = after;
        out.write_all(terminal::clean_json(&text).as_bytes())
    });
    download.await?;
    Ok(out.flush()?)
}
