//! Our own log lines: to stderr, so that stdout stays for what a person or a script reads.

use std::io::IsTerminal;

use tracing_subscriber::{EnvFilter, fmt};

/// Text for a terminal, JSON lines for a log service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lines {
    Text,
    Json,
}

/// Starts logging; `TAILSPAN_LOG` takes tracing's filter syntax, default `info`. Called once, by `main`.
pub fn start(lines: Lines) {
    start_at(lines, None);
}

/// [`start`], with these levels instead of what the variable says.
pub fn start_at(lines: Lines, levels: Option<&str>) {
    let filter = || match levels {
        Some(levels) => EnvFilter::new(levels),
        None => EnvFilter::try_from_env("TAILSPAN_LOG")
            .unwrap_or_else(|_| EnvFilter::new("info,fred=error,lambda_runtime=warn")),
    };
    // A second call (tests) keeps the first subscriber.
    let _ = match lines {
        Lines::Text => fmt()
            .with_env_filter(filter())
            .with_writer(std::io::stderr)
            .with_target(false)
            // Colours are for eyes: in a file they are noise.
            .with_ansi(std::io::stderr().is_terminal())
            .try_init(),
        Lines::Json => fmt()
            .json()
            .with_env_filter(filter())
            .with_writer(std::io::stderr)
            .try_init(),
    };
}
