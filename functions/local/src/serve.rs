//! `tailspan serve`: one process from start to drain.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use axum::extract::Request;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::{Router, middleware};
use tailspan_core::eval::EvalSet;
use tailspan_core::id::TenantId;
use tailspan_service::App;
use tailspan_service::access::settings::Mode;
use tailspan_service::config::Config;
use tailspan_service::error;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::dashboard::{self, Pages};
use crate::dev;
use crate::embedded::{self, Embedded};
use crate::guard::{self, Allowed};
use crate::listen;
use crate::options::ServeOptions;

/// Between two sweeps: deadlines, retention, reclaimed work.
const SWEEP_SECONDS: u64 = 5;
/// What is not answered by then is cut off: an exporter tries again, a viewer resumes.
const DRAIN_SECONDS: u64 = 10;
/// Of `--dev`, as the dev server of the source document has them.
const DEV_SESSIONS: u64 = 100;
const DEV_SESSION_SECONDS: u64 = 2 * 3600;
/// File descriptors that are not connections of clients.
const OWN_FILES: u64 = 256;

/// Runs the service until SIGINT or SIGTERM, then drains it. Returns when all is stored and the private Redis has ended.
///
/// # Errors
///
/// The settings, the data directory, the server or a port cannot be had; each with what to do about it.
pub fn run(options: &ServeOptions) -> anyhow::Result<()> {
    let mut config = config(options)?;
    if let Some(folder) = &config.eval_sets {
        check_eval_sets(folder)?;
    }
    let token = token(options, &config);
    if config.access.mode == Some(Mode::None) {
        if token.is_some() || !config.tokens.is_empty() {
            anyhow::bail!("TAILSPAN_AUTH is none, and a token is given: leave one of them out");
        }
        if !guard::is_loopback(&options.host) && !options.insecure {
            anyhow::bail!(
                "TAILSPAN_AUTH is none, and others reach {}: set it to keys, or add --insecure where the network is yours alone",
                options.host
            );
        }
    }
    if let Some(token) = &token {
        config.tokens.insert(token.clone(), TenantId::default());
    }

    let embedded = match &options.redis_url {
        Some(_) => None,
        None => Some(start_embedded(options)?),
    };
    if let Some(embedded) = &embedded {
        config.redis_url = embedded.url();
        // No agent reaches a private Redis, unless somebody means it to.
        if config.mesh.redis_url.is_none() && std::env::var_os("TAILSPAN_MESH_STREAM").is_none() {
            config.mesh.stream = None;
        }
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let served = runtime.block_on(serve(options, config, token.as_deref(), embedded.as_ref()));
    // Blocking work that did not end in time must not keep the server, which comes last, from ending.
    runtime.shutdown_timeout(Duration::from_secs(1));
    if let Some(embedded) = embedded {
        embedded.stop();
    }
    served
}

/// The variables that all processes share, with what the command line says about them.
fn config(options: &ServeOptions) -> anyhow::Result<Config> {
    let retention = options.retention.map(|seconds| seconds.to_string());
    let named = |path: &Option<PathBuf>| {
        let path = path.as_ref()?;
        Some(path.to_string_lossy().into_owned())
    };
    let max_sessions = options.max_sessions.or(options.dev.then_some(DEV_SESSIONS));
    let session_seconds = options.session_ttl;
    let config = Config::from_vars(|name| match name {
        "TAILSPAN_MAX_SESSIONS" => max_sessions.map(|count| count.to_string()),
        "TAILSPAN_SESSION_TTL_SECONDS" => {
            let said = session_seconds.map(|seconds| seconds.to_string());
            let said = said.or_else(|| std::env::var(name).ok());
            said.or_else(|| options.dev.then(|| DEV_SESSION_SECONDS.to_string()))
        }
        "TAILSPAN_RETENTION_SECONDS" if retention.is_some() => retention.clone(),
        "TAILSPAN_REDIS_URL" => options.redis_url.clone(),
        "TAILSPAN_PRICES" => named(&options.prices),
        "TAILSPAN_EVAL_SETS" => named(&options.eval_sets),
        "TAILSPAN_EVALUATORS" => named(&options.config),
        // Somebody's REDIS_URL is another program's data: only one that was meant for us is used.
        "REDIS_URL" => None,
        _ => std::env::var(name).ok(),
    })?;
    Ok(config)
}

/// Reads every eval set of a folder, so that a broken one is told now and not when a run is scored with it. The folder may hold other things.
fn check_eval_sets(folder: &Path) -> anyhow::Result<()> {
    let failed = || format!("cannot read the eval sets in {}", folder.display());
    let mut sets = 0;
    for entry in std::fs::read_dir(folder).with_context(failed)? {
        let path = entry.with_context(failed)?.path();
        if path.extension().is_none_or(|ending| ending != "json") {
            continue;
        }
        let read = std::fs::read(&path).map_err(|error| error.to_string());
        match read.and_then(|json| EvalSet::parse(&json).map_err(|error| error.to_string())) {
            Ok(_) => sets += 1,
            Err(error) => tracing::warn!("{} is no eval set: {error}", path.display()),
        }
    }
    tracing::info!("{sets} eval sets in {}", folder.display());
    Ok(())
}

/// The token to ask for: the given one, else on an address that others reach a new one, unless told to ask for none.
fn token(options: &ServeOptions, config: &Config) -> Option<String> {
    // A variable that is set to nothing, as a compose file does, names no token: everybody could send that one.
    let given = options.token.as_deref().map(str::trim);
    if let Some(given) = given.filter(|given| !given.is_empty()) {
        return Some(given.to_owned());
    }
    let reachable = !guard::is_loopback(&options.host);
    let wanted =
        reachable && !options.insecure && config.tokens.is_empty() && config.access.mode.is_none();
    wanted.then(|| format!("{:032x}", rand::random::<u128>()))
}

fn start_embedded(options: &ServeOptions) -> anyhow::Result<Embedded> {
    let embedded = Embedded::start(&embedded::Options {
        data_dir: options.data_dir(|name| std::env::var(name).ok())?,
        server: None,
        max_memory_bytes: options.redis_memory,
    })?;
    let program = embedded.program();
    tracing::info!("started {} ({})", program.version, program.path.display());
    Ok(embedded)
}

async fn serve(
    options: &ServeOptions,
    config: Config,
    token: Option<&str>,
    embedded: Option<&Embedded>,
) -> anyhow::Result<()> {
    let pages = match &options.dashboard {
        Some(folder) => Pages::of_folder(folder)?,
        None => Pages::built_in(),
    };
    // Before anything is heard or stored: a signal from here on is a drain.
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;

    let main = listen::bind(&options.host, options.port, "--port").await?;
    let port = port_of(&main)?;
    let otlp_listeners = match options.otlp_port == port {
        true => Vec::new(),
        false => listen::bind(&options.host, options.otlp_port, "--otlp-port").await?,
    };
    let app = App::start(config).await?;

    let allowed = Arc::new(Allowed::new(
        &options.host,
        &options.allow_host,
        &app.config.cors_origins,
    ));
    let guarded = |router: Router| {
        let guard = middleware::from_fn_with_state(allowed.clone(), guard::guard);
        error::with_told_misses(router).layer(guard)
    };
    let ingest = guarded(tailspan_ingest::router(app.clone()));
    let mut all = every_router(&app);
    all = match options.headless {
        true => all.layer(middleware::from_fn(without_pages)),
        false => all.merge(dashboard::router(pages)),
    };
    let all = guarded(all);

    let otlp_port = match otlp_listeners.as_slice() {
        [] => port,
        listeners => port_of(listeners)?,
    };
    let (tracker, stop) = (TaskTracker::new(), app.shutdown.clone());
    let connections = Arc::new(Semaphore::new(connections(options.max_connections)));
    listen::serve(main, &all, &connections, &stop, &tracker);
    listen::serve(otlp_listeners, &ingest, &connections, &stop, &tracker);
    let background = TaskTracker::new();
    background.spawn(tailspan_worker::run(app.clone(), |run| {
        say(&run.to_string())
    }));
    background.spawn(tailspan_mesh::run(app.clone()));
    background.spawn(tailspan_cleanup::run_forever(
        app.clone(),
        Duration::from_secs(SWEEP_SECONDS),
    ));

    let url = format!("http://{}:{port}", in_url(&options.host));
    if let Some(embedded) = embedded {
        embedded.describe_holder(&format!(", listening on {url}"));
    }
    if let Some(token) =
        token.filter(|token| options.token.as_deref().map(str::trim) != Some(token))
    {
        say(&format!("token: {token}"));
    }
    say(&format!("listening on {url}"));
    if options.dev {
        let otlp = format!("http://{}:{otlp_port}", in_url(&options.host));
        for line in dev::banner(&app, &url, &otlp, options.headless) {
            say(&line);
        }
        for tenant in dev::tenants(&app) {
            background.spawn(dev::tell_of_sessions(app.clone(), tenant, say));
        }
    }

    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    tokio::select! {
        () = drain(&stop, &tracker, &background, &app.tasks) => {}
        // Whoever presses Ctrl-C twice does not want to wait. What was acknowledged is on disk.
        _ = interrupt.recv() => {}
    }
    app.close().await;
    Ok(())
}

/// Every route there is, in one process.
fn every_router(app: &App) -> Router {
    tailspan_ingest::router(app.clone())
        .merge(tailspan_query::router(app.clone()))
        .merge(tailspan_stream::router(app.clone()))
        .merge(tailspan_cleanup::router(app.clone()))
        .merge(tailspan_evaluate::router(app.clone()))
        .merge(tailspan_socket::router(app.clone()))
}

/// What people look at is not there; what programs ask for is.
async fn without_pages(request: Request, next: Next) -> Response {
    match request.uri().path() {
        "/docs" => error::ApiError::not_found().into_response(),
        _ => next.run(request).await,
    }
}

/// Streams end with their cursor, requests in flight are answered, then the loops end.
async fn drain(
    stop: &CancellationToken,
    tracker: &TaskTracker,
    background: &TaskTracker,
    tasks: &TaskTracker,
) {
    tracing::info!("draining");
    stop.cancel();
    tracker.close();
    background.close();
    tasks.close();
    let limit = Duration::from_secs(DRAIN_SECONDS);
    let drained = async {
        tracker.wait().await;
        tasks.wait().await;
        background.wait().await;
    };
    if tokio::time::timeout(limit, drained).await.is_err() {
        let (requests, loops, runs) = (tracker.len(), background.len(), tasks.len());
        tracing::warn!(
            "cut off {requests} connections, {loops} loops and {runs} calls to agents after {DRAIN_SECONDS} s"
        );
    }
}

/// The wished number, or what the process may have: its limit of open files is raised as far as it goes.
fn connections(wished: u32) -> usize {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    let _ = setrlimit(Resource::Nofile, raised);
    let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let possible = files.saturating_sub(OWN_FILES).max(16);
    if possible < u64::from(wished) {
        tracing::warn!("at most {possible} connections: the limit of open files is {files}");
    }
    usize::try_from(possible.min(u64::from(wished))).unwrap_or(usize::MAX)
}

fn port_of(listeners: &[TcpListener]) -> anyhow::Result<u16> {
    let first = listeners.first().context("no address to listen on")?;
    Ok(first.local_addr()?.port())
}

/// An IPv6 address stands in brackets.
fn in_url(host: &str) -> String {
    match host.contains(':') && !host.starts_with('[') {
        true => format!("[{host}]"),
        false => host.to_owned(),
    }
}

/// A line on standard output; a reader that is gone must not end the service.
///
/// Names in it come from strangers: what could steer a terminal is left out.
fn say(line: &str) {
    let line: String = line.chars().filter(|c| !c.is_control()).collect();
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}
