//! What the live path costs: ingest per CPU-second, added latency, bytes in Redis. Every figure stands beside a bare one of the same
//! run, because the machine changes from run to run and the ratio does not.
//!
//! `ingest` and `memory` call the product's functions in this process, `latency` and the last rows of `ingest` go through HTTP to a
//! second process of this binary (`--serve`), which is `tailspan serve`. Redis is a child of its own, without persistence.

mod agentevals;
mod analysis;
mod cold;
mod fanout;
mod ingest;
mod latency;
mod limits;
mod lists;
mod memory;
mod phoenix;
mod sample;
mod serve;
mod socket;
mod store;
mod table;

use std::path::PathBuf;

use anyhow::Result;
use clap::{Parser, ValueEnum};

/// Measures Tailspan's live path and prints tables with ratios.
#[derive(Parser)]
struct Arguments {
    /// What to measure; everything when nothing is named.
    parts: Vec<Part>,
    /// A folder of recorded exports (`*/requests/*.body`); measured beside the made ones where it is there.
    #[arg(long, default_value = "../shared/corpus")]
    corpus: PathBuf,
    /// The `agentevals` program, to be given the same requests.
    #[arg(long, env = "TAILSPAN_BENCH_AGENTEVALS")]
    agentevals: Option<PathBuf>,
    /// The `agentevals` program of version 0.7.3, which has a WebSocket.
    #[arg(long, env = "TAILSPAN_BENCH_AGENTEVALS_LIVE")]
    agentevals_live: Option<PathBuf>,
    /// The `phoenix` program, to be given some of the same requests.
    #[arg(long, env = "TAILSPAN_BENCH_PHOENIX")]
    phoenix: Option<PathBuf>,
    /// Seconds of one latency run; there are seven.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Only serve, as `tailspan serve` does, on this Redis, at a free port that is printed: for the other process.
    #[arg(long, hide = true)]
    serve: Option<String>,
    /// Only be a function that does nothing: for the other process.
    #[arg(long, hide = true)]
    bare_function: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Spans per CPU-second, stage by stage.
    Ingest,
    /// From a producer's request to a viewer's frame.
    Latency,
    /// One trace to thousands of viewers, and what an idle one costs.
    Fanout,
    /// Spans over the WebSocket of an agent under development, and the end of a long session.
    Socket,
    /// Bytes in Redis per span and per trace.
    Memory,
    /// A page of the list, over ten thousand to a million traces.
    Lists,
    /// Refusing a tenant that has sent all that it may.
    Limits,
    /// A run of 10,000 spans opened and examined, beside one of 500.
    Analysis,
    /// From the start of each function's process to its first answer, and what it weighs.
    Cold,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    if let Some(redis_url) = arguments.serve {
        return serve::run(&redis_url);
    }
    if arguments.bare_function {
        return cold::bare_function();
    }
    let wanted = |part| arguments.parts.is_empty() || arguments.parts.contains(&part);
    if wanted(Part::Ingest) {
        ingest::measure(
            &arguments.corpus,
            arguments.agentevals.as_deref(),
            arguments.phoenix.as_deref(),
        )?;
    }
    if wanted(Part::Socket) {
        socket::measure(arguments.agentevals_live.as_deref())?;
    }
    if wanted(Part::Memory) {
        memory::measure()?;
    }
    if wanted(Part::Lists) {
        lists::measure()?;
    }
    if wanted(Part::Limits) {
        limits::measure()?;
    }
    if wanted(Part::Analysis) {
        analysis::measure()?;
    }
    if wanted(Part::Cold) {
        cold::measure(&cold::deployed()?)?;
    }
    if wanted(Part::Latency) {
        latency::measure(arguments.seconds)?;
    }
    if wanted(Part::Fanout) {
        let nginx = fanout::installed();
        fanout::measure(
            nginx
                .as_ref()
                .map(|(program, modules)| (program.as_path(), modules.as_path())),
        )?;
    }
    Ok(())
}
