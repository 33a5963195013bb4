//! Our own log lines: to stderr, so that stdout stays for what a person or a script reads.

use std::io::IsTerminal;

use tracing_subscriber::{
    filter::Targets, fmt, layer::SubscriberExt as _, util::SubscriberInitExt as _,
};

/// What is logged where nobody says otherwise.
const DEFAULT: &str = "info,fred=error,lambda_runtime=warn";

/// Text for a terminal, JSON lines for a log service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lines {
    Text,
    Json,
}

/// Starts logging; `TAILSPAN_LOG` says which levels, as [`start_at`] takes them, default `info`. Called once, by `main`.
pub fn start(lines: Lines) {
    start_at(lines, None);
}

/// [`start`], with these levels instead of what the variable says: one for everything (`warn`), or for parts (`info,tailspan_service=debug`). What cannot be read is
/// as if nothing were said.
// Not tracing's own filter, which also knows spans and fields by regular expressions: it is a fifth of a megabyte of each function.
pub fn start_at(lines: Lines, levels: Option<&str>) {
    let said = std::env::var("TAILSPAN_LOG");
    let said = levels.or(said.as_deref().ok());
    let levels = said.and_then(|levels| levels.parse::<Targets>().ok());
    let levels = levels.unwrap_or_else(|| DEFAULT.parse().unwrap_or_default());
    let layer = fmt::layer().with_writer(std::io::stderr);
    let registry = tracing_subscriber::registry().with(levels);
    // A second call (tests) keeps the first subscriber.
    let _ = match lines {
        Lines::Text => {
            let layer = layer
                .with_target(false)
                // Colours are for eyes: in a file they are noise.
                .with_ansi(std::io::stderr().is_terminal());
            registry.with(layer).try_init()
        }
        Lines::Json => registry.with(layer.json()).try_init(),
    };
}
