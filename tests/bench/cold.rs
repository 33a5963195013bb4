//! From the start of a function's process to its first answer, and what its package weighs.
//!
//! The platform is played by this process: it hands out one invocation by the runtime API (AWS Lambda runtime API, 2018-06-01) and takes the answer. Beside each function stands a
//! process that only speaks that API, which is what starting a process and two requests cost on this machine.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result, bail};
use flate2::{Compression, write::ZlibEncoder};
use serde_json::json;

use crate::{
    store::Store,
    table::{self, Row},
};

const STARTS: usize = 20;
/// Of those whose start somebody waits for.
const REQUEST_PATH: [&str; 5] = ["ingest", "query", "stream", "socket", "evaluate"];
const ALL: [&str; 8] = [
    "ingest", "query", "stream", "socket", "evaluate", "worker", "cleanup", "mesh",
];
/// What they may take at most: bytes of the package, and milliseconds to the first poll, its connection to Redis made.
const MOST_BYTES: usize = 5_000_000;
const MOST_MS: f64 = 10.0;
const NEXT: &str = "/2018-06-01/runtime/invocation/next";
const PATIENCE: Duration = Duration::from_secs(20);

/// Of one start.
#[derive(Clone, Copy, PartialEq, PartialOrd)]
struct Start {
    /// The process asked for its first invocation.
    asked_ms: f64,
    answered_ms: f64,
}

/// Measures every function whose program lies in `folder`.
pub(crate) fn measure(folder: &Path) -> Result<()> {
    let store = Store::start()?;
    let bare = best(
        &std::env::current_exe()?,
        &["--bare-function"],
        &store,
        "schedule",
    )?;
    let mut rows = Vec::new();
    let mut beyond = Vec::new();
    for name in ALL {
        let program = folder.join(name);
        if !program.is_file() {
            println!("  {name}: no program at {}", program.display());
            continue;
        }
        let start = best(&program, &[], &store, name)?;
        if REQUEST_PATH.contains(&name) && start.asked_ms > MOST_MS {
            // Told, and no failure: where other work keeps the cores busy it says nothing of the function.
            println!(
                "  {name} polls after {:.1} ms: more than {MOST_MS}",
                start.asked_ms
            );
        }
        for (what, ours, theirs) in [
            ("to its first question", start.asked_ms, bare.asked_ms),
            ("to its first answer", start.answered_ms, bare.answered_ms),
        ] {
            if name == "mesh" && what.ends_with("answer") {
                continue; // it answers when its time is over
            }
            rows.push(Row::new(
                format!("{name} {what}, ms"),
                format!("{ours:.1}"),
                format!("{theirs:.1}"),
                format!("{:.1}", ours / theirs),
            ));
        }
    }
    table::print(
        &format!(
            "Cold start, the median of {STARTS}; beside a process that only speaks the runtime API"
        ),
        ["function", "tailspan", "bare", "ratio"],
        &rows,
    );
    let mut rows = Vec::new();
    for name in ALL {
        let Ok(program) = std::fs::read(folder.join(name)) else {
            continue;
        };
        let packed = deflated(&program)?;
        if REQUEST_PATH.contains(&name) && packed > MOST_BYTES {
            beyond.push(format!("{name} has {packed} bytes"));
        }
        rows.push(Row::new(
            name,
            format!("{:.2} MB", packed as f64 / 1e6),
            format!("{:.2} MB", program.len() as f64 / 1e6),
            format!("{:.2}", packed as f64 / program.len() as f64),
        ));
    }
    table::print(
        "Package of each function",
        ["function", "zipped", "program", "ratio"],
        &rows,
    );
    if !beyond.is_empty() {
        bail!("more than {MOST_BYTES} bytes: {}", beyond.join(", "));
    }
    Ok(())
}

/// What a zip of one file takes, but for its 150 bytes of names.
fn deflated(bytes: &[u8]) -> Result<usize> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes)?;
    Ok(encoder.finish()?.len())
}

/// The median by the time of the answer.
fn best(program: &Path, arguments: &[&str], store: &Store, function: &str) -> Result<Start> {
    let mut starts = Vec::new();
    for _ in 0..STARTS {
        starts.push(start(program, arguments, store, function)?);
    }
    starts.sort_by(|a, b| a.answered_ms.total_cmp(&b.answered_ms));
    starts.get(STARTS / 2).copied().context("a start")
}

fn start(program: &Path, arguments: &[&str], store: &Store, function: &str) -> Result<Start> {
    let platform = TcpListener::bind("127.0.0.1:0")?;
    let address = platform.local_addr()?.to_string();
    let event = event_for(function);
    let (sender, receiver) = mpsc::channel();
    let began = Instant::now();
    let mut child = Command::new(program)
        .args(arguments)
        .env("AWS_LAMBDA_RUNTIME_API", &address)
        .env("AWS_LAMBDA_FUNCTION_NAME", function)
        .env("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "256")
        .env("AWS_LAMBDA_FUNCTION_VERSION", "1")
        .env("AWS_LAMBDA_LOG_STREAM_NAME", "stream")
        .env("AWS_LAMBDA_LOG_GROUP_NAME", "group")
        .env("TAILSPAN_REDIS_URL", store.url())
        .env("TAILSPAN_AUTH", "none")
        .env("TAILSPAN_MESH_SECONDS", "1")
        .env("TAILSPAN_LOG", "error")
        .stdout(Stdio::null())
        .spawn()
        .with_context(|| format!("failed to start {}", program.display()))?;
    // The listener's thread ends with the process's connections.
    thread::spawn(move || {
        while let Ok((socket, _)) = platform.accept() {
            let (event, sender) = (event.clone(), sender.clone());
            thread::spawn(move || serve(socket, &event, &sender, began));
        }
    });
    let mut asked_ms = None;
    let outcome = loop {
        match receiver.recv_timeout(PATIENCE) {
            Ok(Said::Asked(after)) => {
                asked_ms.get_or_insert(after);
            }
            Ok(Said::Answered(after)) => {
                let asked_ms = asked_ms.context("answered before it asked")?;
                break Ok(Start {
                    asked_ms,
                    answered_ms: after,
                });
            }
            Err(_) => {
                break Err(anyhow::anyhow!(
                    "{function} did not answer within {PATIENCE:?}"
                ));
            }
        }
    };
    let _ = child.kill();
    let _ = child.wait();
    outcome
}

/// Milliseconds since the process was started.
enum Said {
    Asked(f64),
    Answered(f64),
}

fn serve(socket: TcpStream, event: &str, said: &mpsc::Sender<Said>, began: Instant) -> Result<()> {
    let after = || began.elapsed().as_secs_f64() * 1e3;
    socket.set_nodelay(true)?;
    let mut writer = socket.try_clone()?;
    let mut reader = BufReader::new(socket);
    let mut given = false;
    loop {
        let head = head(&mut reader)?;
        let first = head.first().map(String::as_str).unwrap_or_default();
        if first.starts_with("GET ") && first.contains(NEXT) {
            let _ = said.send(Said::Asked(after()));
            if given {
                // One invocation was asked for; the next never comes.
                thread::park();
            }
            given = true;
            let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis();
            write!(
                writer,
                "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\nlambda-runtime-aws-request-id: 8476a536-e9f4-11e8-9739-2dfe598c3fcd\r\n\
                 lambda-runtime-deadline-ms: {}\r\nlambda-runtime-invoked-function-arn: arn:aws:lambda:eu-central-1:123456789012:function:f\r\nlambda-runtime-trace-id: Root=1-5bef4de7-ad49b0e87f6ef6c87fc2e700;Parent=9a9197af755a6419;Sampled=1\r\n\r\n{event}",
                event.len(),
                now + 60_000
            )?;
        } else {
            body(&mut reader, &head)?;
            let _ = said.send(Said::Answered(after()));
            write!(writer, "HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n")?;
        }
    }
}

fn head(reader: &mut BufReader<TcpStream>) -> Result<Vec<String>> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            bail!("closed");
        }
        match line.trim_end() {
            "" => return Ok(lines),
            line => lines.push(line.to_owned()),
        }
    }
}

/// Reads a body of a known length, or in chunks up to the last.
fn body(reader: &mut BufReader<TcpStream>, head: &[String]) -> Result<()> {
    let field = |name: &str| {
        head.iter().find_map(|line| {
            line.to_ascii_lowercase()
                .strip_prefix(name)
                .map(str::to_owned)
        })
    };
    if let Some(length) = field("content-length: ") {
        let mut bytes = vec![0; length.parse()?];
        reader.read_exact(&mut bytes)?;
        return Ok(());
    }
    loop {
        let mut size = String::new();
        reader.read_line(&mut size)?;
        let size = usize::from_str_radix(size.trim(), 16).context("a chunk's size")?;
        let mut bytes = vec![0; size + 2];
        reader.read_exact(&mut bytes)?;
        if size == 0 {
            return Ok(());
        }
    }
}

fn event_for(function: &str) -> String {
    let (method, path, body) = match function {
        "ingest" => (
            "POST",
            "/v1/traces",
            json!({"resourceSpans": [{"scopeSpans": [{"spans": [{"traceId": "5b8efff798038103d269b633813fc60c", "spanId": "eee19b7ec3c1b174", "name": "s",
                "startTimeUnixNano": "1800000000000000000", "endTimeUnixNano": "1800000001000000000"}]}]}]})
            .to_string()
            .into(),
        ),
        "query" => ("GET", "/traces", serde_json::Value::Null),
        "stream" => ("GET", "/traces/unknown/stream", serde_json::Value::Null),
        "evaluate" => ("GET", "/api/health", serde_json::Value::Null),
        "socket" => {
            return json!({"requestContext": {"eventType": "CONNECT", "connectionId": "c", "routeKey": "$connect"}, "isBase64Encoded": false})
                .to_string();
        }
        _ => {
            return include_str!("../../infra/events/schedule.json").to_owned();
        }
    };
    json!({
        "resource": "/{proxy+}", "path": path, "httpMethod": method, "body": body, "isBase64Encoded": false,
        "headers": {"Host": "localhost", "Content-Type": "application/json"},
        "multiValueHeaders": {"Host": ["localhost"], "Content-Type": ["application/json"]},
        "queryStringParameters": null, "multiValueQueryStringParameters": null, "pathParameters": {"proxy": path}, "stageVariables": null,
        "requestContext": {"resourceId": "r", "resourcePath": "/{proxy+}", "httpMethod": method, "path": path, "accountId": "123456789012", "protocol": "HTTP/1.1", "stage": "$default",
            "identity": {"sourceIp": "127.0.0.1"}, "requestId": "c6af9ac6-7b61-11e6-9a41-93e8deadbeef", "apiId": "a"},
    })
    .to_string()
}

/// What is compared with: asks for an invocation and answers it.
pub(crate) fn bare_function() -> Result<()> {
    let address = std::env::var("AWS_LAMBDA_RUNTIME_API")?;
    let socket = TcpStream::connect(&address)?;
    socket.set_nodelay(true)?;
    let mut writer = socket.try_clone()?;
    let mut reader = BufReader::new(socket);
    write!(writer, "GET {NEXT} HTTP/1.1\r\nhost: {address}\r\n\r\n")?;
    let head = head(&mut reader)?;
    body(&mut reader, &head)?;
    write!(
        writer,
        "POST /2018-06-01/runtime/invocation/1/response HTTP/1.1\r\nhost: {address}\r\ncontent-length: 2\r\n\r\n{{}}"
    )?;
    let _ = reader.read(&mut [0; 64])?;
    Ok(())
}

/// Where cargo puts the functions as they are deployed: programs of the profile `lambda`, beside those of ours.
pub(crate) fn deployed() -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    let target = own.parent().and_then(Path::parent);
    Ok(target.context("a folder of programs")?.join("lambda"))
}
