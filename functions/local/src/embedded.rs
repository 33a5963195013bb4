//! The private Redis of one data directory: found, started, kept alive, stopped with its data safe.
//!
//! Owns the files of the data directory (`lock`, `redis/`) and the server child. Knows nothing of what is stored.
//!
//! Two locks keep one writer on the data. `lock` is held by this process: a second start reads in it who came first.
//! `redis/lock` is held by the server too, which inherits it as its standard input: as long as any server of any earlier start
//! lives, a new start sees it, whatever became of its parent, its socket or its process id.

mod find;
mod memory;

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

pub use find::{ServerProgram, find_server};
pub use memory::default_max_memory_bytes;

/// The smallest limit of the platforms for a Unix socket's path (macOS; Linux has 107), without the closing NUL.
const MAX_SOCKET_PATH_BYTES: usize = 103;
/// A server of an earlier start gets this long to write out and go.
const SURVIVOR_SECONDS: u64 = if cfg!(test) { 2 } else { 15 };
/// And once killed, this long until the kernel has let go of its files: writing out what it holds may take a busy disk a while.
const KILLED_SECONDS: u64 = 30;
/// Reading a full log of 2 GiB takes well under a minute; a server that loads for longer than this will not come.
const LOADING_SECONDS: u64 = 600;
/// The server gets this long to end after `SHUTDOWN`; every acknowledged write is on disk before that, so killing it is safe.
const STOP_SECONDS: u64 = 10;
/// The server's own log is begun anew at a start that finds it larger.
const MAX_SERVER_LOG_BYTES: u64 = 1 << 20;

/// What a private Redis needs to know.
#[derive(Debug, Clone)]
pub struct Options {
    /// Holds all data; made with mode 0700 when absent.
    pub data_dir: PathBuf,
    /// The server program; `None` looks for one ([`find_server`]).
    pub server: Option<PathBuf>,
    /// The server refuses writes beyond this; `None` is [`default_max_memory_bytes`].
    pub max_memory_bytes: Option<u64>,
}

/// Why there is no private Redis. Each text is for the person who typed the command.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("no server found: {0}")]
    NoServer(String),
    #[error("data directory {} is in use by {holder}", .data_dir.display())]
    InUse { data_dir: PathBuf, holder: String },
    #[error("a server of an earlier start still holds {} and does not end: stop {holder} first", .data_dir.display())]
    Survivor { data_dir: PathBuf, holder: String },
    #[error("the server {} ended at its start; its last words: {last_words}", .server.display())]
    Ended { server: PathBuf, last_words: String },
    #[error("the server {} did not become ready within {LOADING_SECONDS} s", .server.display())]
    NotReady { server: PathBuf },
    #[error("no directory for a socket: {0} is too long, set TMPDIR to a short path")]
    SocketPath(String),
    #[error("cannot {doing} {}: {source}", .path.display())]
    Io {
        doing: &'static str,
        path: PathBuf,
        source: io::Error,
    },
}

/// A running private Redis. Dropping it stops the server, as [`Embedded::stop`] does.
#[derive(Debug)]
pub struct Embedded {
    supervised: Arc<Supervised>,
    ended: mpsc::Receiver<()>,
    /// Held until the server is gone: the order of the fields is the order of their release.
    run_dir: TempDir,
    own_lock: File,
    program: ServerProgram,
}

impl Embedded {
    /// Starts the server of a data directory and returns when it answers, all its data loaded. Blocks the calling thread.
    ///
    /// A server left over by a killed process is shut down and awaited first. From here on a server that dies is started again
    /// at once on the same data, for as long as the value lives.
    ///
    /// # Errors
    ///
    /// Another process holds the directory, no usable server program, a file cannot be made, or the server ends at its start.
    pub fn start(options: &Options) -> Result<Self, StartError> {
        let program = match &options.server {
            Some(path) => find::examine(path).map_err(StartError::NoServer)?,
            None => find_server().map_err(StartError::NoServer)?,
        };
        let redis_dir = options.data_dir.join("redis");
        make_private_dir(&redis_dir)?;

        let own_lock = hold(&options.data_dir)?;
        let server_lock = await_survivor(&redis_dir)?;
        let run_dir = make_run_dir(&redis_dir)?;
        let socket = run_dir.path().join("s");
        shorten_log(&redis_dir);

        let supervised = Arc::new(Supervised {
            program: program.path.clone(),
            redis_dir,
            socket,
            server_lock,
            max_memory_bytes: options
                .max_memory_bytes
                .unwrap_or_else(default_max_memory_bytes),
            restarts: AtomicU64::new(0),
            state: Mutex::default(),
            wake: Condvar::new(),
        });
        let (ends, ended) = mpsc::channel();
        let supervisor = supervised.clone();
        // A thread of its own, which lives as long as the process: the parent-death signal follows the thread that spawned.
        thread::Builder::new()
            .name("redis-keeper".into())
            .spawn(move || {
                supervisor.keep_alive();
                drop(ends);
            })
            .map_err(|source| io_error("start a thread for", &options.data_dir, source))?;

        let embedded = Self {
            supervised,
            ended,
            run_dir,
            own_lock,
            program,
        };
        embedded.await_ready()?;
        Ok(embedded)
    }

    /// Where clients connect: `redis+unix:///path/of/socket`. Stays the same across restarts of the server.
    #[must_use]
    pub fn url(&self) -> String {
        format!("redis+unix://{}", self.supervised.socket.display())
    }

    /// The program in use, with its version.
    #[must_use]
    pub fn program(&self) -> &ServerProgram {
        &self.program
    }

    /// Process id of the server, `None` between its death and its next start.
    #[must_use]
    pub fn server_pid(&self) -> Option<u32> {
        self.supervised.lock_state().pid
    }

    /// How often the server died and was started again.
    #[must_use]
    pub fn restarts(&self) -> u64 {
        self.supervised.restarts.load(Ordering::Relaxed)
    }

    /// Writes into the lock file what a second start will say about this one, after "process N": for example `, listening on ...`.
    pub fn describe_holder(&self, text: &str) {
        // Only a better message is at stake.
        let _ = write_holder(&self.own_lock, text);
    }

    /// Ends the server with all its data on disk and gives the data directory back. Blocks up to ten seconds.
    pub fn stop(self) {
        drop(self);
    }

    /// Returns once the server answers `PING`; while it loads it says so instead.
    fn await_ready(&self) -> Result<(), StartError> {
        let begun = Instant::now();
        let mut told = false;
        while begun.elapsed() < Duration::from_secs(LOADING_SECONDS) {
            if let Some(last_words) = self.supervised.lock_state().last_words.clone() {
                return Err(StartError::Ended {
                    server: self.program.path.clone(),
                    last_words,
                });
            }
            if ask(&self.supervised.socket, "PING").is_ok_and(|answer| answer.starts_with("+PONG"))
            {
                return Ok(());
            }
            if !told && begun.elapsed() > Duration::from_secs(2) {
                told = true;
                tracing::info!("the embedded Redis is loading its data");
            }
            thread::sleep(Duration::from_millis(2));
        }
        Err(StartError::NotReady {
            server: self.program.path.clone(),
        })
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        self.supervised.lock_state().stopping = true;
        self.supervised.wake.notify_all();
        if ask(&self.supervised.socket, "SHUTDOWN NOSAVE").is_err() {
            self.supervised.signal(Signal::TERM);
        }
        let wait = self.ended.recv_timeout(Duration::from_secs(STOP_SECONDS));
        if wait == Err(mpsc::RecvTimeoutError::Timeout) {
            tracing::warn!("the embedded Redis did not end in {STOP_SECONDS} s and is killed");
            self.supervised.signal(Signal::KILL);
            let _ = self.ended.recv_timeout(Duration::from_secs(STOP_SECONDS));
        }
        // The next start need not look for a socket that is gone with `run_dir`.
        let _ = std::fs::remove_file(self.supervised.redis_dir.join("run"));
        let _ = self.run_dir.path();
    }
}

/// What the keeper thread and the handle share.
#[derive(Debug)]
struct Supervised {
    program: PathBuf,
    redis_dir: PathBuf,
    socket: PathBuf,
    server_lock: File,
    max_memory_bytes: u64,
    restarts: AtomicU64,
    state: Mutex<State>,
    wake: Condvar,
}

#[derive(Debug, Default)]
struct State {
    stopping: bool,
    /// The living server.
    pid: Option<u32>,
    /// What the server that ended last, or could not be started, left in its log.
    last_words: Option<String>,
}

impl Supervised {
    /// Runs one server after the other until told to stop.
    fn keep_alive(&self) {
        let mut short_lives: u32 = 0;
        loop {
            let begun = Instant::now();
            let end = self.live_once();
            // Read before the next server writes into the same log.
            let last_words = last_words(&self.redis_dir);
            let stopping = {
                let mut state = self.lock_state();
                state.pid = None;
                state.last_words = Some(last_words);
                state.stopping
            };
            if stopping {
                return;
            }
            self.restarts.fetch_add(1, Ordering::Relaxed);
            tracing::error!("the embedded Redis ended ({end}); starting it again on the same data");

            // At once the first time; a server that cannot live (disk full) must not take the machine with it.
            short_lives = match begun.elapsed() {
                long if long > Duration::from_millis(500) => 0,
                _ => short_lives.saturating_add(1),
            };
            if short_lives > 1 {
                let pause = Duration::from_millis(25 << short_lives.min(6));
                let state = self.lock_state();
                let _ = self
                    .wake
                    .wait_timeout_while(state, pause, |state| !state.stopping);
            }
        }
    }

    /// One life of the server: starts it, waits for its end, says how it ended.
    fn live_once(&self) -> String {
        let mut child = {
            // Under the lock, so that a stop either prevents the start or sees the child.
            let mut state = self.lock_state();
            if state.stopping {
                return "not started".into();
            }
            match self.spawn() {
                Ok(child) => {
                    state.pid = Some(child.id());
                    child
                }
                Err(error) => return format!("cannot start it: {error}"),
            }
        };
        // For a later start that finds this server alive.
        let _ = write_run_record(&self.redis_dir, &self.socket, Some(child.id()));
        match child.wait() {
            Ok(status) => status.to_string(),
            Err(error) => format!("cannot wait for it: {error}"),
        }
    }

    fn spawn(&self) -> io::Result<Child> {
        let log = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(self.redis_dir.join("redis.log"))?;
        let socket = self.socket.to_string_lossy();
        let max_memory = self.max_memory_bytes.to_string();
        let settings: [(&str, &str); 16] = [
            // Reachable by this user only: no port at all, and a socket in a directory of mode 0700.
            ("--port", "0"),
            ("--unixsocket", &socket),
            ("--unixsocketperm", "700"),
            ("--daemonize", "no"),
            // An answer means: on disk.
            ("--appendonly", "yes"),
            ("--appendfsync", "always"),
            ("--no-appendfsync-on-rewrite", "no"),
            // Killed in the middle of a write: what follows the last whole command was never acknowledged.
            ("--aof-load-truncated", "yes"),
            // Plain commands can be read by every other server found on a later day; a binary preamble ties the data to the
            // format of the server that wrote it.
            ("--aof-use-rdb-preamble", "no"),
            ("--save", ""),
            ("--dbfilename", "unused.rdb"),
            // Full is an answer (503); silently losing the oldest half is not.
            ("--maxmemory", &max_memory),
            ("--maxmemory-policy", "noeviction"),
            ("--loglevel", "notice"),
            ("--logfile", ""),
            ("--always-show-logo", "no"),
        ];

        let mut command = Command::new(&self.program);
        for (name, value) in settings {
            command.arg(name).arg(value);
        }
        command
            // The data goes to the working directory: no path of the user's needs quoting in the server's syntax.
            .current_dir(&self.redis_dir)
            // Not read by the server: it holds the lock.
            .stdin(Stdio::from(self.server_lock.try_clone()?))
            .stdout(Stdio::from(log.try_clone()?))
            .stderr(Stdio::from(log))
            // Ctrl-C in the terminal is for us; the server is stopped last.
            .process_group(0);
        die_with_parent(&mut command);
        command.spawn()
    }

    fn signal(&self, signal: Signal) {
        // Under the lock the child is either unreaped or already forgotten, but for an instant after its end.
        let state = self.lock_state();
        if let Some(pid) = state.pid.and_then(to_pid) {
            let _ = kill_process(pid, signal);
        }
    }

    fn lock_state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Has the kernel kill the server when this process dies, however it dies.
///
/// Elsewhere than on Linux a server outlives a killed parent; the next start shuts it down.
#[cfg(target_os = "linux")]
fn die_with_parent(command: &mut Command) {
    let parent = rustix::process::getpid();
    let in_child = move || {
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
        // The parent may have died before the line above: then no signal will come.
        if rustix::process::getppid() != Some(parent) {
            return Err(rustix::io::Errno::SRCH.into());
        }
        Ok(())
    };
    #[allow(
        unsafe_code,
        reason = "the closure runs between fork and exec: it makes two bare system calls, and neither allocates nor locks"
    )]
    unsafe {
        command.pre_exec(in_child);
    }
}

#[cfg(not(target_os = "linux"))]
fn die_with_parent(_command: &mut Command) {}

/// Takes the directory's lock for this process.
fn hold(data_dir: &Path) -> Result<File, StartError> {
    let path = data_dir.join("lock");
    let mut file = open_lock(&path)?;
    match file.try_lock() {
        Ok(()) => {
            write_holder(&file, "").map_err(|source| io_error("write", &path, source))?;
            Ok(file)
        }
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            // A start that has the lock and not yet written its name.
            if file.read_to_string(&mut holder).is_err() || holder.trim().is_empty() {
                holder = "another process".into();
            }
            Err(StartError::InUse {
                data_dir: data_dir.to_owned(),
                holder: holder.trim().to_owned(),
            })
        }
        Err(TryLockError::Error(source)) => Err(io_error("lock", &path, source)),
    }
}

fn write_holder(mut lock: &File, text: &str) -> io::Result<()> {
    lock.set_len(0)?;
    lock.rewind()?;
    writeln!(lock, "process {}{text}", std::process::id())
}

/// Returns the server's lock, free: a server of an earlier start is asked to end, then awaited.
fn await_survivor(redis_dir: &Path) -> Result<File, StartError> {
    let path = redis_dir.join("lock");
    let lock = open_lock(&path)?;
    let record = read_run_record(redis_dir);
    let begun = Instant::now();
    let mut asked = false;
    let mut killed = false;
    loop {
        match lock.try_lock() {
            Ok(()) => break,
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(source)) => return Err(io_error("lock", &path, source)),
        }
        // The server of a process killed a moment ago is about to die by itself; only one that stays is asked.
        if !asked && begun.elapsed() > Duration::from_millis(200) {
            asked = true;
            tracing::warn!("a server of an earlier start is alive and is shut down");
            if let Some(record) = &record {
                let _ = ask(&record.socket, "SHUTDOWN NOSAVE");
            }
        }
        let patience = match killed {
            // Its files go before its locks do: from here on only the lock tells when it is gone.
            true => SURVIVOR_SECONDS + KILLED_SECONDS,
            false => SURVIVOR_SECONDS,
        };
        if begun.elapsed() > Duration::from_secs(patience) {
            // It does not listen any more (stopped, or its socket was removed). What it acknowledged is on disk.
            let pid = record.as_ref().and_then(|record| record.pid);
            let holder = pid
                .filter(|pid| !killed && holds_as_stdin(*pid, &path))
                .and_then(to_pid);
            killed = holder.is_some_and(|pid| kill_process(pid, Signal::KILL).is_ok());
            if !killed {
                let holder = pid.map_or_else(|| "it".into(), |pid| format!("process {pid}"));
                return Err(StartError::Survivor {
                    data_dir: redis_dir.to_owned(),
                    holder,
                });
            }
        }
        thread::sleep(Duration::from_millis(5));
    }
    if let Some(run_dir) = record.as_ref().and_then(|record| record.socket.parent()) {
        // Our own name pattern only: the record is a file, and files get edited.
        let ours = |name: &std::ffi::OsStr| name.to_string_lossy().starts_with(RUN_DIR_PREFIX);
        if run_dir.file_name().is_some_and(ours) {
            let _ = std::fs::remove_dir_all(run_dir);
        }
    }
    Ok(lock)
}

/// Whether a process has this very file as its standard input, which is how a server of ours holds its lock.
fn holds_as_stdin(pid: u32, lock: &Path) -> bool {
    let held = std::fs::read_link(format!("/proc/{pid}/fd/0"));
    held.is_ok_and(|held| lock.canonicalize().is_ok_and(|lock| lock == held))
}

const RUN_DIR_PREFIX: &str = "tailspan-";

/// Makes a directory of mode 0700 with a short name for the socket, and notes the socket's path in the data directory.
fn make_run_dir(redis_dir: &Path) -> Result<TempDir, StartError> {
    let runtime_dir = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    let candidates = [
        runtime_dir,
        Some(std::env::temp_dir()),
        Some(PathBuf::from("/tmp")),
    ];
    let mut refused = String::from("every candidate");
    for base in candidates.into_iter().flatten() {
        let Ok(made) = tempfile::Builder::new()
            .prefix(RUN_DIR_PREFIX)
            .rand_bytes(6)
            .tempdir_in(&base)
        else {
            continue;
        };
        let socket = made.path().join("s");
        // A URL holds it too, so it has to be text that needs no escaping there.
        let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"/._-+".contains(byte);
        let bytes = socket.as_os_str().as_encoded_bytes();
        if bytes.len() <= MAX_SOCKET_PATH_BYTES && bytes.iter().all(plain) {
            write_run_record(redis_dir, &socket, None)
                .map_err(|source| io_error("write", &redis_dir.join("run"), source))?;
            return Ok(made);
        }
        refused = socket.display().to_string();
    }
    Err(StartError::SocketPath(refused))
}

/// What a start leaves for the next one, should it be killed.
struct RunRecord {
    socket: PathBuf,
    pid: Option<u32>,
}

fn write_run_record(redis_dir: &Path, socket: &Path, pid: Option<u32>) -> io::Result<()> {
    let pid = pid.map(|pid| pid.to_string()).unwrap_or_default();
    // Renamed into place: a record is whole or the one before.
    let unfinished = redis_dir.join("run.new");
    std::fs::write(&unfinished, format!("{}\n{pid}\n", socket.display()))?;
    std::fs::rename(unfinished, redis_dir.join("run"))
}

fn read_run_record(redis_dir: &Path) -> Option<RunRecord> {
    let text = std::fs::read_to_string(redis_dir.join("run")).ok()?;
    let mut lines = text.lines();
    Some(RunRecord {
        socket: PathBuf::from(lines.next()?),
        pid: lines.next().and_then(|pid| pid.parse().ok()),
    })
}

/// Sends one command without binary arguments and returns the first line of the answer.
fn ask(socket: &Path, command: &str) -> io::Result<String> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    stream.set_write_timeout(Some(Duration::from_secs(1)))?;
    stream.write_all(format!("{command}\r\n").as_bytes())?;
    let mut answer = [0; 256];
    let read = stream.read(&mut answer)?;
    let answer = answer.get(..read).unwrap_or_default();
    Ok(String::from_utf8_lossy(answer).into_owned())
}

fn shorten_log(redis_dir: &Path) {
    let path = redis_dir.join("redis.log");
    if std::fs::metadata(&path).is_ok_and(|log| log.len() > MAX_SERVER_LOG_BYTES) {
        let _ = std::fs::rename(&path, redis_dir.join("redis.log.old"));
    }
}

/// The end of the server's log on one line.
fn last_words(redis_dir: &Path) -> String {
    let log = std::fs::read(redis_dir.join("redis.log")).unwrap_or_default();
    let log = String::from_utf8_lossy(&log);
    let mut lines: Vec<&str> = log.lines().rev().take(4).collect();
    lines.reverse();
    match lines.is_empty() {
        true => "none".into(),
        false => lines.join(" | "),
    }
}

fn make_private_dir(path: &Path) -> Result<(), StartError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|source| io_error("make", path, source))
}

fn open_lock(path: &Path) -> Result<File, StartError> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(|source| io_error("open", path, source))
}

fn to_pid(pid: u32) -> Option<Pid> {
    Pid::from_raw(i32::try_from(pid).ok()?)
}

fn io_error(doing: &'static str, path: &Path, source: io::Error) -> StartError {
    StartError::Io {
        doing,
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests;
