//! `tailspan import`: trace files into a running server.

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Deserialize;
use tailspan_core::files::{self, FileTrace, Format, UnknownFormat, send};
use tailspan_service::archive;

use super::Outcome;
use super::client::{Client, Failure, ServerOptions};
use super::input::{Source, sources};
use super::terminal;

/// What `tailspan import` can be told.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  tailspan import traces.json
  tailspan import exports/                   # all .json, .jsonl and .ndjson files in it, also packed
  kubectl logs collector | tailspan import -
  tailspan import /archive/default/TRACE.jsonl.zst   # a trace that was archived, as it was
  tailspan import s3://bucket/prefix/default/TRACE.jsonl.zst

Jaeger JSON, OTLP JSON (also as Tempo wraps it), and lines of exports, spans or log records are told apart by what they hold.
A file is taken as a whole or not at all, and sending it again adds nothing. For each trace a line tells its id.

Exit code: 0, or 1 when a file or an item was not taken, 4 when no server answers.")]
pub struct ImportOptions {
    /// Files and directories; - is standard input; https:// and s3:// are fetched from here
    #[arg(value_name = "FILE", required = true)]
    pub files: Vec<PathBuf>,

    /// Read every file as this: jaeger-json, otlp-json or otlp-protobuf
    #[arg(short, long, value_name = "FORMAT", value_parser = parse_format)]
    pub format: Option<Format>,

    /// Of archived traces: take the place of what has their name, also of what was deleted
    #[arg(long)]
    pub replace: bool,

    #[command(flatten)]
    pub server: ServerOptions,
}

pub(super) fn parse_format(name: &str) -> Result<Format, UnknownFormat> {
    name.parse()
}

/// Tries of one request, and the longest pause between two of them.
const TRIES: u32 = 6;
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// Sends the files, one after the other.
///
/// # Errors
/// The server does not answer, or nobody reads.
pub async fn run(options: &ImportOptions) -> anyhow::Result<Outcome> {
    let client = Client::new(&options.server)?;
    let mut all = Vec::new();
    for named in &options.files {
        match named.to_str().filter(|name| is_url(name)) {
            Some(url) => all.push(Ok(Source::Url(url.to_owned()))),
            None => all.extend(sources(std::slice::from_ref(named))),
        }
    }
    let sources = all;
    // On standard error, and only where that is a terminal.
    let bar = ProgressBar::new(sources.len() as u64).with_style(style());
    let mut is_well = true;
    let mut fail = |text: String| {
        is_well = false;
        bar.suspend(|| eprintln!("tailspan: {}", terminal::clean(&text)));
    };
    for source in sources {
        bar.inc(1);
        let read = match source {
            Ok(source) => {
                bar.set_message(terminal::clean(&source.name()).into_owned());
                let bytes = match &source {
                    Source::Url(url) => download(url).await.map_err(|why| source.error(why)),
                    source => source.bytes(),
                };
                match bytes {
                    Ok(bytes) if archive::begins_archive(&bytes) => {
                        if let Err(text) =
                            restore(&client, bytes.into(), options.replace, &source, &bar).await?
                        {
                            fail(text);
                        }
                        continue;
                    }
                    bytes => bytes
                        .and_then(|bytes| source.traces_in(&bytes, options.format))
                        .map(|traces| (traces, source)),
                }
            }
            Err(error) => Err(error),
        };
        match read {
            Err(error) => fail(error.to_string()),
            Ok((None, source)) => bar.suspend(|| {
                let name = source.name();
                eprintln!(
                    "tailspan: {} is no trace file: passed over",
                    terminal::clean(&name)
                );
            }),
            Ok((Some(traces), source)) if traces.is_empty() => {
                fail(format!("{}: there is no trace in it", source.name()));
            }
            Ok((Some(traces), source)) => {
                for trace in &traces {
                    if let Err(text) = send(&client, trace, &source, &bar).await? {
                        fail(text);
                    }
                }
            }
        }
    }
    bar.finish_and_clear();
    Ok(match is_well {
        true => Outcome::Well,
        false => Outcome::Failed,
    })
}

/// Sends a trace and tells of it. The inner error is the trace's own, and the next may go better.
async fn send(
    client: &Client,
    trace: &FileTrace,
    source: &Source,
    bar: &ProgressBar,
) -> anyhow::Result<Result<(), String>> {
    let name = || format!("{}: trace {}", source.name(), trace.spelled);
    let (mut sent, mut lost, mut why) = (0, 0, String::new());
    for request in send::requests(trace) {
        match post(client, &request).await {
            Ok(answer) => {
                if let Some((rejected, message)) = request.not_taken(&answer) {
                    lost += rejected;
                    why = message;
                }
                sent += request.items as u64;
            }
            Err(Failure::Refused { message, .. }) => {
                return Ok(Err(format!("{}: {message}", name())));
            }
            Err(failure) => return Err(failure.into()),
        }
        bar.tick();
    }
    let taken = sent.saturating_sub(lost);
    let line = format!("{}  {taken} events  {}", trace.trace_id, source.name());
    bar.suspend(|| terminal::say(&terminal::clean(&line)))?;
    Ok(match (lost, why.is_empty()) {
        (0, true) => Ok(()),
        (0, false) => Err(format!("{}: {why}", name())),
        _ => Err(format!("{}: {lost} not taken: {why}", name())),
    })
}

fn is_url(name: &str) -> bool {
    ["https://", "http://", "s3://"]
        .iter()
        .any(|scheme| name.starts_with(scheme))
}

async fn download(url: &str) -> Result<Vec<u8>, String> {
    let var = |name: &str| std::env::var(name).ok();
    let most = files::limits().body_bytes as u64;
    let bytes = archive::fetch_url(url, &var, most).await?;
    Ok(bytes.into())
}

/// Sends an archived trace as it is: only the server can bring it back with its numbers. The inner error is the file's own.
async fn restore(
    client: &Client,
    file: Bytes,
    replace: bool,
    source: &Source,
    bar: &ProgressBar,
) -> anyhow::Result<Result<(), String>> {
    #[derive(Deserialize)]
    struct Imported {
        traces: Vec<ImportedTrace>,
    }
    #[derive(Deserialize)]
    struct ImportedTrace {
        trace_id: String,
        accepted: u64,
        deleted: bool,
    }
    let path = match replace {
        true => "/traces/import?replace=true",
        false => "/traces/import",
    };
    let answer = match post_again(client, path, &[], file).await {
        Ok(answer) => answer,
        Err(Failure::Refused { message, .. }) => {
            return Ok(Err(format!("{}: {message}", source.name())));
        }
        Err(failure) => return Err(failure.into()),
    };
    let imported: Imported = serde_json::from_slice(&answer)?;
    for trace in imported.traces {
        if trace.deleted {
            let (name, id) = (source.name(), trace.trace_id);
            return Ok(Err(format!(
                "{name}: trace {id} was deleted; bring it back with --replace"
            )));
        }
        let (id, events) = (trace.trace_id, trace.accepted);
        let line = format!("{id}  {events} events  {}", source.name());
        bar.suspend(|| terminal::say(&terminal::clean(&line)))?;
    }
    Ok(Ok(()))
}

/// Posts, and again after a while when that may help: what is sent twice is stored once.
async fn post(client: &Client, request: &send::Request) -> Result<Bytes, Failure> {
    let mut headers = vec![("content-type", request.content_type)];
    headers.extend(request.key.as_deref().map(|key| ("idempotency-key", key)));
    let body = Bytes::from(request.body.clone());
    post_again(client, &request.path, &headers, body).await
}

async fn post_again(
    client: &Client,
    path: &str,
    headers: &[(&'static str, &str)],
    body: Bytes,
) -> Result<Bytes, Failure> {
    let mut pause = Duration::from_millis(250);
    for _ in 1..TRIES {
        match client.post_bytes(path, headers, body.clone()).await {
            // A server that is not there is not worth waiting for.
            Err(failure) if failure.passes() && !matches!(failure, Failure::Unreachable { .. }) => {
                let asked = match &failure {
                    Failure::Refused { retry_after, .. } => *retry_after,
                    _ => None,
                };
                tokio::time::sleep(asked.unwrap_or(pause).min(LONGEST_PAUSE)).await;
                pause *= 2;
            }
            answer => return answer,
        }
    }
    client.post_bytes(path, headers, body).await
}

fn style() -> ProgressStyle {
    ProgressStyle::with_template("{bar:24} {pos}/{len} files  {elapsed}  {wide_msg}")
        .unwrap_or_else(|_| ProgressStyle::default_bar())
}
