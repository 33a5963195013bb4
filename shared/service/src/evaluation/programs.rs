//! Evaluators that are programs of the operator's: started for one trace, told on stdin, heard on stdout, and ended in time.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::Value;
use tailspan_core::eval::config::Program;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _},
    process::Command,
    time::timeout,
};

/// Of stdout, which is one JSON.
const MAX_STDOUT_BYTES: u64 = 4 << 20;
/// Of stderr, what is kept for an error, from its end.
const MAX_STDERR_BYTES: usize = 4 << 10;
/// What a program may know of our environment: how to find things and write text. No key is among it.
const ENVIRONMENT: [&str; 9] = [
    "PATH",
    "HOME",
    "LANG",
    "LC_ALL",
    "LC_CTYPE",
    "TMPDIR",
    "TZ",
    "VIRTUAL_ENV",
    "PYTHONPATH",
];

/// Runs a program with `input`, and returns what it wrote on stdout. Dropping it kills the program and all that it started.
///
/// # Errors
/// A sentence for people: it is not there, cannot be started, took too long, said too much, or failed.
pub(super) async fn run(
    program: &Program,
    folder: Option<&Path>,
    input: &Value,
) -> Result<Vec<u8>, String> {
    let path = find(&program.path, folder)?;
    let (starts, first) = command(program, path);
    let mut command = Command::new(&starts);
    command
        .args(first)
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // A group of its own, so that what it starts ends with it.
        .process_group(0);
    let named = program.environment.iter().map(String::as_str);
    for name in ENVIRONMENT.into_iter().chain(named) {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    let mut child = command
        .spawn()
        .map_err(|error| format!("cannot start {}: {error}", starts.display()))?;
    let group = Group::of(child.id());
    let (Some(mut stdin), Some(stdout), Some(stderr)) =
        (child.stdin.take(), child.stdout.take(), child.stderr.take())
    else {
        return Err(format!("cannot talk to {}", starts.display()));
    };
    let input = input.to_string();
    let told = async move {
        // One that does not read its input may still have something to say.
        let _ = stdin.write_all(input.as_bytes()).await;
        drop(stdin);
    };
    let heard = async {
        let ((), stdout, stderr) = tokio::join!(told, beginning(stdout), end(stderr));
        // Only now: as long as the leader was not waited for, its group's number is its own.
        (stdout, stderr, child.wait().await)
    };
    let time = Duration::from_secs(program.seconds);
    let Ok((stdout, stderr, status)) = timeout(time, heard).await else {
        drop(group);
        return Err(format!("timed out after {}s", program.seconds));
    };
    group.ended();
    let stderr = String::from_utf8_lossy(&stderr).trim().to_owned();
    let with_stderr = |why: String| match stderr.is_empty() {
        true => why,
        false => format!("{why}: {stderr}"),
    };
    match status {
        Err(error) => return Err(with_stderr(format!("cannot tell how it ended: {error}"))),
        Ok(status) if !status.success() => return Err(with_stderr(status.to_string())),
        Ok(_) => {}
    }
    match stdout {
        Some(stdout) if stdout.iter().all(u8::is_ascii_whitespace) => {
            Err(with_stderr("it wrote nothing on stdout".to_owned()))
        }
        Some(stdout) => Ok(stdout),
        None => Err(format!("it wrote more than {MAX_STDOUT_BYTES} bytes")),
    }
}

/// Beside the file that names it, else in the working directory.
fn find(path: &str, folder: Option<&Path>) -> Result<PathBuf, String> {
    let path = Path::new(path);
    let beside = folder.map(|folder| folder.join(path));
    let found = [beside, Some(path.to_owned())]
        .into_iter()
        .flatten()
        .find(|path| path.is_file());
    let found = found.ok_or_else(|| format!("there is no file {}", path.display()))?;
    std::path::absolute(&found).map_err(|error| format!("no path to {}: {error}", found.display()))
}

/// What is started, and its first argument.
fn command(program: &Program, path: PathBuf) -> (PathBuf, Option<OsString>) {
    let ending = path
        .extension()
        .map(|ending| ending.to_string_lossy().to_ascii_lowercase());
    let interpreter = match (&program.interpreter, ending.as_deref()) {
        (Some(interpreter), _) => Some(interpreter.as_str()),
        (None, Some("py")) => Some("python3"),
        (None, Some("js" | "mjs" | "cjs" | "ts" | "mts")) => Some("node"),
        _ => None,
    };
    match interpreter {
        Some(interpreter) => (interpreter.into(), Some(path.into())),
        None => (path, None),
    }
}

/// All of it; `None`: it is too much. The rest is read and let go, so that nobody blocks on a full pipe.
async fn beginning(mut from: impl AsyncRead + Unpin) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut limited = (&mut from).take(MAX_STDOUT_BYTES + 1);
    let _ = limited.read_to_end(&mut bytes).await;
    if bytes.len() as u64 <= MAX_STDOUT_BYTES {
        return Some(bytes);
    }
    let _ = tokio::io::copy(&mut from, &mut tokio::io::sink()).await;
    None
}

async fn end(mut from: impl AsyncRead + Unpin) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut piece = [0; 4096];
    while let Ok(count @ 1..) = from.read(&mut piece).await {
        bytes.extend_from_slice(piece.get(..count).unwrap_or_default());
        if bytes.len() > 2 * MAX_STDERR_BYTES {
            bytes.drain(..bytes.len() - MAX_STDERR_BYTES);
        }
    }
    let from = bytes.len().saturating_sub(MAX_STDERR_BYTES);
    bytes.split_off(from)
}

/// A process group that is killed unless it ended.
struct Group(Option<Pid>);

impl Group {
    fn of(id: Option<u32>) -> Self {
        Self(id.and_then(|id| Pid::from_raw(i32::try_from(id).ok()?)))
    }

    fn ended(mut self) {
        self.0 = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            // It may have ended just now.
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}
