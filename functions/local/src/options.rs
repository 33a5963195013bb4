//! The command line of `tailspan`: what may be said, and what it means for the settings every process shares.

use std::path::PathBuf;

use clap::{ArgAction, Args, Parser, Subcommand};

use crate::cli::export::ExportOptions;
use crate::cli::import::ImportOptions;
use crate::cli::keys::{KeysOptions, ShareOptions};
use crate::cli::list::ListOptions;
use crate::cli::mcp::McpOptions;
use crate::cli::metrics::MetricsOptions;
use crate::cli::redact::RedactOptions;
use crate::cli::run::RunOptions;
use crate::cli::tail::TailOptions;
use crate::cli::trace::TraceOptions;
use crate::cli::webhooks::WebhooksOptions;

/// Watch multi-agent runs while they happen.
#[derive(Debug, Parser)]
#[command(
    name = "tailspan",
    version,
    after_help = "\
Examples:
  tailspan serve                     # then send: OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:4318
  tailspan tail                      # what happens now
  tailspan list --status failed      # what went wrong
  tailspan trace TRACE_ID            # how one run went"
)]
pub struct Cli {
    /// Say more on standard error of what is done: -v what happens (debug), -vv everything (trace)
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub verbose: u8,

    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the whole service on this machine, with a Redis of its own unless one is named
    Serve(Box<ServeOptions>),
    /// Follow a trace, a session or everything while it happens
    Tail(TailOptions),
    /// Show a trace as a tree of calls
    Trace(TraceOptions),
    /// List traces, newest first
    List(ListOptions),
    /// Score recorded runs from trace files
    Run(RunOptions),
    /// List what runs can be evaluated with
    #[command(alias = "list-metrics")]
    Metrics(MetricsOptions),
    /// Send trace files to a server
    Import(ImportOptions),
    /// Write a trace of a server to a file
    Export(ExportOptions),
    /// Take out of a stored trace what must not be kept
    Redact(RedactOptions),
    /// Make, list, rotate and revoke the API keys of a server
    Keys(KeysOptions),
    /// Make a link that shows one trace or session, and nothing else
    Share(ShareOptions),
    /// List notifications of runs that were not taken, and try them again
    Webhooks(WebhooksOptions),
    /// Ask the server on this machine how it is; exits with 0 when it is well
    Health(HealthOptions),
    /// Speak the Model Context Protocol on standard input and output, for assistants
    Mcp(McpOptions),
    /// Print the completions for a shell
    Completions(CompletionsOptions),
}

/// What `tailspan completions` can be told.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  tailspan completions bash > ~/.local/share/bash-completion/completions/tailspan
  tailspan completions zsh > \"${fpath[1]}/_tailspan\"
  tailspan completions fish > ~/.config/fish/completions/tailspan.fish")]
pub struct CompletionsOptions {
    /// The shell
    pub shell: clap_complete::Shell,
}

/// What `tailspan health` can be told; the same variables as the server's, so that it finds the one beside it.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  tailspan health
  tailspan health --ready || restart")]
pub struct HealthOptions {
    /// Address that the server was told to listen on
    #[arg(long, env = "TAILSPAN_HOST", default_value = "127.0.0.1")]
    pub host: String,

    /// Port of the server's routes
    #[arg(long, env = "TAILSPAN_PORT", default_value_t = 8001)]
    pub port: u16,

    /// Ask also whether its Redis answers
    #[arg(long)]
    pub ready: bool,
}

/// What `tailspan serve` can be told. Every option also has a variable; the option wins.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  tailspan serve
  tailspan serve --dev --eval-sets ./evals
  tailspan serve --host 0.0.0.0 --token \"$SECRET\" --retention 30d
  tailspan serve --redis-url redis://redis:6379")]
pub struct ServeOptions {
    /// Address to listen on; anything but loopback asks for a token
    #[arg(long, env = "TAILSPAN_HOST", default_value = "127.0.0.1")]
    pub host: String,

    /// Port of every route
    #[arg(short, long, env = "TAILSPAN_PORT", default_value_t = 8001)]
    pub port: u16,

    /// Port for OpenTelemetry exporters, where they look by default
    #[arg(
        long,
        visible_alias = "otlp-http-port",
        env = "TAILSPAN_OTLP_PORT",
        default_value_t = 4318
    )]
    pub otlp_port: u16,

    /// Use this Redis instead of a private one (redis://, redis-cluster://, redis-sentinel://, rediss... for TLS, or redis+unix://)
    #[arg(
        long,
        env = "TAILSPAN_REDIS_URL",
        value_name = "URL",
        hide_env_values = true
    )]
    pub redis_url: Option<String>,

    /// Where the private Redis keeps its data [default: $XDG_DATA_HOME/tailspan or ~/.local/share/tailspan]
    #[arg(long, env = "TAILSPAN_DATA_DIR", value_name = "DIR")]
    pub data_dir: Option<PathBuf>,

    /// Memory for the private Redis: bytes, or with k, m, g [default: a quarter of the memory, at most 2g]
    #[arg(long, env = "TAILSPAN_REDIS_MEMORY", value_name = "SIZE", value_parser = parse_size)]
    pub redis_memory: Option<u64>,

    /// How long a trace is kept after its last event: seconds, or with s, m, h, d [default: 7d]
    #[arg(long, env = "TAILSPAN_RETENTION", value_name = "TIME", value_parser = parse_seconds)]
    pub retention: Option<u64>,

    /// A JSON file of prices of models, which go before the built-in ones
    #[arg(long, env = "TAILSPAN_PRICES", value_name = "FILE")]
    pub prices: Option<PathBuf>,

    /// For whoever develops an agent beside it: at most 100 sessions, each for two hours, unless told otherwise; says where
    /// everything is, and a line for every session that ends
    #[arg(long, env = "TAILSPAN_DEV")]
    pub dev: bool,

    /// Live sessions of a tenant; beyond, the oldest complete ones make room [default: 1000, with --dev 100]
    #[arg(long, env = "TAILSPAN_MAX_SESSIONS", value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub max_sessions: Option<u64>,

    /// How long a live session is kept after it began: seconds, or with s, m, h, d; its traces stay [default: 7d, with --dev 2h]
    #[arg(long, env = "TAILSPAN_SESSION_TTL", value_name = "TIME", value_parser = parse_seconds)]
    pub session_ttl: Option<u64>,

    /// A folder of eval sets, checked at the start: a session's eval_set_id names one of them
    #[arg(long, env = "TAILSPAN_EVAL_SETS", value_name = "DIR")]
    pub eval_sets: Option<PathBuf>,

    /// A YAML file of evaluators that run when a run ends
    #[arg(long, env = "TAILSPAN_EVALUATORS", value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Serve no pages for people, only what programs ask for
    #[arg(long, env = "TAILSPAN_HEADLESS")]
    pub headless: bool,

    /// Serve the built dashboard of this folder instead of the one in the program, for whoever works on it
    #[arg(long, env = "TAILSPAN_DASHBOARD", value_name = "DIR")]
    pub dashboard: Option<PathBuf>,

    /// Ask for this token (Authorization: Bearer, or ?token=) instead of one made at the start
    #[arg(long, env = "TAILSPAN_TOKEN", hide_env_values = true)]
    pub token: Option<String>,

    /// Ask for no token even on an address that others can reach
    #[arg(long, env = "TAILSPAN_INSECURE")]
    pub insecure: bool,

    /// Another name under which this server is addressed and whose pages may use it; may be repeated
    #[arg(
        long,
        env = "TAILSPAN_ALLOW_HOST",
        value_name = "NAME",
        value_delimiter = ','
    )]
    pub allow_host: Vec<String>,

    /// Connections at a time; more are answered 503
    #[arg(long, env = "TAILSPAN_MAX_CONNECTIONS", value_name = "N", default_value_t = 12_000,
          value_parser = clap::value_parser!(u32).range(1..))]
    pub max_connections: u32,
}

impl ServeOptions {
    /// The directory of the private Redis.
    ///
    /// # Errors
    ///
    /// None is named and there is no home to put one into.
    pub(crate) fn data_dir(&self, var: impl Fn(&str) -> Option<String>) -> anyhow::Result<PathBuf> {
        if let Some(dir) = &self.data_dir {
            return Ok(std::path::absolute(dir)?);
        }
        // Relative values are to be ignored, says the XDG specification.
        let dir = |name| var(name).map(PathBuf::from).filter(|dir| dir.is_absolute());
        dir("XDG_DATA_HOME")
            .or_else(|| dir("HOME").map(|home| home.join(".local/share")))
            .map(|share| share.join("tailspan"))
            .ok_or_else(|| {
                anyhow::anyhow!(
                    "neither XDG_DATA_HOME nor HOME is set: name a directory with --data-dir"
                )
            })
    }
}

/// `90`, `90s`, `15m`, `12h`, `7d` as seconds.
pub(crate) fn parse_seconds(text: &str) -> Result<u64, String> {
    let units = [("s", 1), ("m", 60), ("h", 3600), ("d", 24 * 3600)];
    match parse_with_unit(text, &units) {
        Some(seconds) if seconds > 0 => Ok(seconds),
        _ => Err("expected a time such as 90s, 15m, 12h or 7d".into()),
    }
}

/// `1000000`, `512m`, `2g` as bytes.
fn parse_size(text: &str) -> Result<u64, String> {
    // Below this the server itself hardly fits, and a bound of 0 would mean none.
    const LEAST_BYTES: u64 = 16 << 20;
    let units = [("k", 1 << 10), ("m", 1 << 20), ("g", 1 << 30)];
    match parse_with_unit(&text.to_ascii_lowercase(), &units) {
        Some(bytes) if bytes >= LEAST_BYTES => Ok(bytes),
        _ => Err("expected a size of at least 16m, such as 512m or 2g".into()),
    }
}

fn parse_with_unit(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let (digits, factor) = units
        .iter()
        .find_map(|(unit, factor)| Some((text.strip_suffix(unit)?, *factor)))
        .unwrap_or((text, 1));
    digits.parse::<u64>().ok()?.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_sizes_have_units() {
        assert_eq!(parse_seconds("7d"), Ok(604_800));
        assert_eq!(parse_seconds("90"), Ok(90));
        assert!(parse_seconds("0").is_err());
        assert!(parse_seconds("soon").is_err());
        assert!(parse_seconds("99999999999999999999d").is_err());
        assert_eq!(parse_size("512M"), Ok(512 << 20));
        assert!(parse_size("0").is_err());
        assert!(parse_size("-1g").is_err());
    }

    #[test]
    fn data_goes_where_the_platform_wants_it() {
        let options = |more: &[&str]| {
            let line = ["tailspan", "serve"].iter().chain(more);
            match Cli::try_parse_from(line).unwrap().command {
                Command::Serve(options) => options,
                _ => panic!("`serve` was asked for"),
            }
        };
        let check = |options: &ServeOptions, vars: &[(&str, &str)]| {
            let var = |name: &str| {
                vars.iter()
                    .find(|(n, _)| *n == name)
                    .map(|(_, value)| (*value).to_owned())
            };
            options
                .data_dir(var)
                .map(|dir| dir.display().to_string())
                .ok()
        };
        let plain = options(&[]);
        assert_eq!(
            check(&plain, &[("HOME", "/home/a")]),
            Some("/home/a/.local/share/tailspan".into())
        );
        assert_eq!(
            check(&plain, &[("HOME", "/home/a"), ("XDG_DATA_HOME", "/d")]),
            Some("/d/tailspan".into())
        );
        assert_eq!(check(&plain, &[]), None);
        assert_eq!(
            check(&options(&["--data-dir", "/x"]), &[]),
            Some("/x".into())
        );
    }
}
