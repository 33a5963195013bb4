//! Events of one trace to thousands of viewers, beside Nchan (nginx), which does nothing else.
//!
//! Both servers are processes of their own, whose CPU time is what they spent; the viewers are tasks of this process. Both send the same bytes as an
//! event: what Nchan is given to publish is the frame's `data` that a viewer of ours gets. Ours stores each event in Redis on the way.
//!
//! Bare is a thread that knows its sockets and the bytes, and does nothing but write the ones to the others: what the kernel takes for a write to
//! each viewer. A server that writes once for an event and viewer cannot deliver more for its CPU time.

use std::{
    io::{Read as _, Write as _},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
        mpsc as blocking,
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use rustix::{
    process::{Resource, Rlimit, setrlimit},
    time::{ClockId, clock_gettime},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::mpsc,
};

use crate::{
    latency::Http,
    serve::{Server, cpu_of},
    store::Store,
    table::{self, Row, whole},
};

const VIEWERS: usize = 4_000;
const EVENTS: usize = 50;
/// Ours and Nchan take turns this often.
const RUNS: usize = 5;
const EVENTS_A_SECOND: u32 = 10;
/// Of one event on the wire, in either server's frame.
const FRAME_BYTES: usize = 456;
const IDLE_VIEWERS: usize = 5_000;
/// A busy machine opens thousands of connections slowly.
const PATIENCE: Duration = Duration::from_secs(60);

/// What one server did.
struct Outcome {
    cpu: Duration,
    /// Of the Redis behind it.
    store_cpu: Duration,
    latencies: Vec<Duration>,
}

/// `nginx`: the program, and the folder of its modules with Nchan in it.
pub(crate) fn measure(nginx: Option<(&Path, &Path)>) -> Result<()> {
    let many = Some(20_000);
    setrlimit(
        Resource::Nofile,
        Rlimit {
            current: many,
            maximum: many,
        },
    )
    .context("20,000 open files")?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let store = Store::start()?;
    let mut redis = store.client()?;
    let server = Server::start(&store.url())?;
    let nchan = nginx.map(|(program, modules)| Nchan::start(program, modules));
    let nchan = nchan.transpose()?;
    let mut rows = Vec::new();
    let mut ratios = Vec::new();
    for run in 1..=RUNS {
        let mut producer = Http::connect(&server.address)?;
        let events = format!("/traces/{}/events", trace(run));
        let path = format!("/traces/{}/stream", trace(run));
        publish(&mut producer, &events, &event(0))?;
        let ours = runtime.block_on(fan_out(
            &server.address,
            &path,
            || Ok([server.cpu()?, redis.cpu()?]),
            |number| publish(&mut producer, &events, &event(number)),
        ))?;
        let Some(nchan) = &nchan else {
            rows.push(Row::new("deliveries/CPU-s", whole(rate(&ours)), "-", "-"));
            continue;
        };
        let mut producer = Http::connect(&nchan.address)?;
        let theirs = runtime.block_on(fan_out(
            &nchan.address,
            "/sub",
            || {
                let parent = cpu_of(&nchan.worker_parent)?;
                Ok([parent + nchan.workers_cpu()?, Duration::ZERO])
            },
            |number| publish(&mut producer, "/pub", &data(number)),
        ))?;
        ratios.push(rate(&ours) / rate(&theirs));
        rows.extend(compare(run, ours, theirs));
    }
    table::print(
        &format!(
            "Fan-out: {EVENTS} events of {FRAME_BYTES} bytes to {VIEWERS} viewers, {EVENTS_A_SECOND}/s"
        ),
        ["figure", "tailspan", "nchan", "ratio"],
        &rows,
    );
    ratios.sort_by(f64::total_cmp);
    if let (Some(middle), Some(best)) = (ratios.get(ratios.len() / 2), ratios.last()) {
        println!(
            "  of {RUNS} runs: {middle:.2} times Nchan's deliveries per CPU-second in the middle one, {best:.2} in the best"
        );
    }
    drop(nchan);
    let bare = Bare::start()?;
    let wrote = runtime.block_on(fan_out(
        &bare.address,
        "/",
        || Ok([bare.cpu(), Duration::ZERO]),
        |number| Ok(bare.events.send(frame(number))?),
    ))?;
    println!(
        "  bare, a thread that only writes: {} deliveries/CPU-s",
        whole(rate(&wrote))
    );
    drop(server);
    idle(&runtime, &store)
}

fn publish(producer: &mut Http, path: &str, body: &[u8]) -> Result<()> {
    let (status, answer) = producer.answer_to(path, "application/json", body)?;
    ensure!(
        (200..300).contains(&status),
        "{path} answered {status}: {}",
        String::from_utf8_lossy(&answer)
    );
    Ok(())
}

fn rate(outcome: &Outcome) -> f64 {
    outcome.latencies.len() as f64 / outcome.cpu.as_secs_f64()
}

fn compare(run: usize, mut ours: Outcome, mut theirs: Outcome) -> Vec<Row> {
    let mut rows = vec![Row::new(
        format!("run {run}, deliveries/CPU-s"),
        whole(rate(&ours)),
        whole(rate(&theirs)),
        format!("{:.2}", rate(&ours) / rate(&theirs)),
    )];
    let redis = ours.store_cpu.as_secs_f64() / ours.cpu.as_secs_f64();
    rows.push(Row::new(
        "  Redis's CPU beside it",
        format!("{:.1} %", redis * 100.0),
        "-",
        "-",
    ));
    for (name, share) in [("  p50 ms", 0.5), ("  p99 ms", 0.99)] {
        let [ours, theirs] = [&mut ours, &mut theirs].map(|outcome| {
            outcome.latencies.sort_unstable();
            let at = (outcome.latencies.len() as f64 * share) as usize;
            let found = outcome.latencies.get(at).copied();
            found.unwrap_or_default().as_secs_f64() * 1e3
        });
        rows.push(Row::new(
            name,
            format!("{ours:.1}"),
            format!("{theirs:.1}"),
            format!("{:.2}", ours / theirs),
        ));
    }
    rows
}

/// A trace for each run: its viewers begin at its start.
fn trace(run: usize) -> String {
    format!("fanout-{run}")
}

/// A native event whose frame has [`FRAME_BYTES`].
fn event(number: usize) -> Vec<u8> {
    // What a frame has beside the text: id, names and times that we add.
    let text = "x".repeat(FRAME_BYTES.saturating_sub(216));
    format!(
        r#"{{"event_type":"step","agent_id":"a","n":{number},"sent":{},"text":"{text}"}}"#,
        now_ns()
    )
    .into_bytes()
}

/// The same as Nchan is given it.
fn data(number: usize) -> Vec<u8> {
    // Its frame is `id: 1795208184:0\ndata: ...\n\n`.
    let head = format!(r#"{{"seq":{number},"sent":{}"#, now_ns());
    let text = "x".repeat(FRAME_BYTES.saturating_sub(head.len() + 27 + 11));
    format!(r#"{head},"text":"{text}"}}"#).into_bytes()
}

/// As a viewer gets it, in [`FRAME_BYTES`].
fn frame(number: usize) -> Vec<u8> {
    let data = data(number);
    let id = "id: 1795208184:0\ndata: ";
    [id.as_bytes(), &data, b"\n\n"].concat()
}

fn now_ns() -> i128 {
    let now = clock_gettime(ClockId::Monotonic);
    i128::from(now.tv_sec) * 1_000_000_000 + i128::from(now.tv_nsec)
}

async fn fan_out(
    address: &str,
    path: &str,
    mut cpu: impl FnMut() -> Result<[Duration; 2]>,
    mut publish: impl FnMut(usize) -> Result<()>,
) -> Result<Outcome> {
    let (sender, mut receiver) = mpsc::unbounded_channel();
    let seen = Arc::new(AtomicUsize::new(0));
    let mut viewers = tokio::task::JoinSet::new();
    for _ in 0..VIEWERS {
        let socket = open(address, path).await?;
        viewers.spawn(view(socket, Arc::clone(&seen), sender.clone()));
    }
    drop(sender);
    // Until all have what there was before.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let before = cpu()?;
    let start = Instant::now();
    for number in 1..=EVENTS {
        let at = start + Duration::from_secs(1) / EVENTS_A_SECOND * u32::try_from(number)?;
        tokio::time::sleep_until(at.into()).await;
        tokio::task::block_in_place(|| publish(number))?;
    }
    let since = Instant::now();
    while seen.load(Ordering::Relaxed) < VIEWERS * EVENTS {
        ensure!(
            since.elapsed() < PATIENCE,
            "{} of {} events arrived",
            seen.load(Ordering::Relaxed),
            VIEWERS * EVENTS
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let after = cpu()?;
    viewers.shutdown().await;
    let mut latencies = Vec::new();
    while let Some(part) = receiver.recv().await {
        latencies.extend(part);
    }
    let [cpu, store_cpu] = [0, 1].map(|at| after[at] - before[at]);
    Ok(Outcome {
        cpu,
        store_cpu,
        latencies,
    })
}

async fn open(address: &str, path: &str) -> Result<TcpStream> {
    let mut socket = TcpStream::connect(address).await?;
    let request =
        format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nAccept: text/event-stream\r\n\r\n");
    socket.write_all(request.as_bytes()).await?;
    let mut head = [0; 12];
    socket.read_exact(&mut head).await?;
    ensure!(
        &head == b"HTTP/1.1 200",
        "{path} answered {:?}",
        String::from_utf8_lossy(&head)
    );
    Ok(socket)
}

/// Notes for each event how long it was on its way; whole events only, so a number that was cut waits for its rest.
async fn view(
    mut socket: TcpStream,
    seen: Arc<AtomicUsize>,
    done: mpsc::UnboundedSender<Vec<Duration>>,
) {
    struct Report(Vec<Duration>, mpsc::UnboundedSender<Vec<Duration>>);
    impl Drop for Report {
        fn drop(&mut self) {
            let _ = self.1.send(std::mem::take(&mut self.0));
        }
    }
    let mut report = Report(Vec::with_capacity(EVENTS), done);
    let mut buffer: Vec<u8> = Vec::with_capacity(4096);
    while let Ok(1..) = socket.read_buf(&mut buffer).await {
        let now = now_ns();
        while let Some(end) = buffer.windows(3).position(|bytes| bytes == b"}\n\n") {
            let event: Vec<u8> = buffer.drain(..end + 3).collect();
            let text = String::from_utf8_lossy(&event);
            let field = |name: &str| -> Option<i128> {
                let (_, rest) = text.split_once(name)?;
                let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
                digits.parse().ok()
            };
            // The first event of ours was there before.
            if let (Some(sent), true) = (field("\"sent\":"), field("\"n\":") != Some(0)) {
                report.0.push(Duration::from_nanos(
                    u64::try_from(now - sent).unwrap_or_default(),
                ));
                seen.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

/// nginx with Nchan: a place to publish and one to subscribe.
struct Nchan {
    address: String,
    worker_parent: Child,
    _folder: tempfile::TempDir,
}

impl Nchan {
    fn start(program: &Path, modules: &Path) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let port = std::net::TcpListener::bind("127.0.0.1:0")?
            .local_addr()?
            .port();
        let home = folder.path().display();
        let module = modules.join("ngx_nchan_module.so");
        let configuration = format!(
            "daemon off; pid {home}/pid; error_log {home}/error.log; load_module {}; worker_processes 1; worker_rlimit_nofile 20000;\n\
             events {{ worker_connections 16000; }}\n\
             http {{ access_log off; client_body_temp_path {home}/b; proxy_temp_path {home}/p; fastcgi_temp_path {home}/f; uwsgi_temp_path {home}/u; scgi_temp_path {home}/s;\n\
             server {{ listen 127.0.0.1:{port} backlog=8192; keepalive_requests 1000000;\n\
             location = /pub {{ nchan_publisher; nchan_channel_id c; }}\n\
             location = /sub {{ nchan_subscriber eventsource; nchan_channel_id c; nchan_subscriber_first_message newest; }} }} }}\n",
            module.display()
        );
        let file = folder.path().join("nginx.conf");
        std::fs::write(&file, configuration)?;
        let worker_parent = Command::new(program)
            .arg("-c")
            .arg(&file)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let nchan = Self {
            address: format!("127.0.0.1:{port}"),
            worker_parent,
            _folder: folder,
        };
        let since = Instant::now();
        while Http::connect(&nchan.address).is_err() {
            ensure!(since.elapsed() < PATIENCE, "nginx does not serve");
            thread::sleep(Duration::from_millis(20));
        }
        Ok(nchan)
    }

    /// The CPU time of the processes that serve.
    fn workers_cpu(&self) -> Result<Duration> {
        let parent = self.worker_parent.id();
        let children = std::fs::read_to_string(format!("/proc/{parent}/task/{parent}/children"))?;
        children
            .split_whitespace()
            .map(|process| crate::serve::cpu_of_process(process.parse()?))
            .sum()
    }
}

impl Drop for Nchan {
    fn drop(&mut self) {
        // The workers end with their parent only when it is asked.
        if let Some(process) = rustix::process::Pid::from_raw(self.worker_parent.id().cast_signed())
        {
            let _ = rustix::process::kill_process(process, rustix::process::Signal::TERM);
        }
        let _ = self.worker_parent.wait();
    }
}

/// A thread that accepts [`VIEWERS`], and writes to all of them what it is sent.
struct Bare {
    address: String,
    events: blocking::Sender<Vec<u8>>,
    cpu_ns: Arc<AtomicU64>,
}

impl Bare {
    fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?.to_string();
        let (events, received) = blocking::channel::<Vec<u8>>();
        let cpu_ns = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&cpu_ns);
        thread::spawn(move || -> Result<()> {
            let mut sockets = Vec::with_capacity(VIEWERS);
            while sockets.len() < VIEWERS {
                let (mut socket, _) = listener.accept()?;
                socket.set_nodelay(true)?;
                // The request comes in one piece from the same machine, and is not looked at.
                let _ = socket.read(&mut [0; 1024])?;
                socket.write_all(b"HTTP/1.1 200 OK\r\n\r\n")?;
                sockets.push(socket);
            }
            let cpu = || Duration::try_from(clock_gettime(ClockId::ThreadCPUTime));
            let before = cpu()?;
            for event in received {
                for socket in &mut sockets {
                    socket.write_all(&event)?;
                }
                let spent = (cpu()? - before).as_nanos();
                counted.store(u64::try_from(spent)?, Ordering::Relaxed);
            }
            Ok(())
        });
        Ok(Self {
            address,
            events,
            cpu_ns,
        })
    }

    fn cpu(&self) -> Duration {
        Duration::from_nanos(self.cpu_ns.load(Ordering::Relaxed))
    }
}

/// Resident memory of a server by viewers that have seen all there is and wait.
fn idle(runtime: &tokio::runtime::Runtime, store: &Store) -> Result<()> {
    let server = Server::start(&store.url())?;
    let path = format!("/traces/{}/stream?from=now", trace(1));
    let (before, after) = runtime.block_on(async {
        // What the first viewers bring into being is not theirs.
        let mut sockets = Vec::new();
        for _ in 0..100 {
            sockets.push(open(&server.address, &path).await?);
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        let before = server.resident_bytes()?;
        for _ in 0..IDLE_VIEWERS {
            sockets.push(open(&server.address, &path).await?);
        }
        tokio::time::sleep(Duration::from_secs(3)).await;
        anyhow::Ok((before, server.resident_bytes()?))
    })?;
    println!(
        "  an idle viewer, over {IDLE_VIEWERS}: {:.1} KiB of resident memory",
        after.saturating_sub(before) as f64 / IDLE_VIEWERS as f64 / 1024.0
    );
    Ok(())
}

/// Where Debian puts them.
pub(crate) fn installed() -> Option<(PathBuf, PathBuf)> {
    let program = ["/usr/sbin/nginx", "/usr/local/sbin/nginx"]
        .map(PathBuf::from)
        .into_iter()
        .find(|path| path.is_file())?;
    let modules = PathBuf::from("/usr/lib/nginx/modules");
    modules
        .join("ngx_nchan_module.so")
        .is_file()
        .then_some((program, modules))
}
