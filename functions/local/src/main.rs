//! The command `tailspan`.

use std::io::Write;
use std::process::ExitCode;

use clap::{CommandFactory, Parser};
use tailspan_local::cli::{self, Outcome};
use tailspan_local::options::{Cli, Command, CompletionsOptions};
use tailspan_local::{health, serve};
use tailspan_service::telemetry::{self, Lines};

fn main() -> ExitCode {
    let said = Cli::parse();
    let is_server = matches!(said.command, Command::Serve(_));
    let is_check = matches!(said.command, Command::Health(_) | Command::Run(_));
    telemetry::start_at(Lines::Text, levels(is_server, said.verbose));
    let outcome = match said.command {
        Command::Serve(options) => serve::run(&options).map(|()| Outcome::Well),
        Command::Tail(options) => cli::block_on(cli::tail::run(&options)),
        Command::Trace(options) => cli::block_on(cli::trace::run(&options)),
        Command::List(options) => cli::block_on(cli::list::run(&options)),
        Command::Run(options) => cli::block_on(cli::run::run(&options)),
        Command::Mcp(options) => cli::block_on(cli::mcp::run(&options)),
        Command::Redact(options) => cli::block_on(cli::redact::run(&options)),
        Command::Keys(options) => cli::block_on(cli::keys::run(&options)),
        Command::Share(options) => cli::block_on(cli::keys::share(&options)),
        Command::Webhooks(options) => cli::block_on(cli::webhooks::run(&options)),
        Command::Metrics(options) => cli::metrics::run(&options),
        Command::Import(options) => cli::block_on(cli::import::run(&options)),
        Command::Export(options) => cli::block_on(cli::export::run(&options)),
        Command::Health(options) => health::ask(&options).and_then(|said| print(&said)),
        Command::Completions(options) => completions(&options),
    };
    match outcome {
        Ok(outcome) => outcome.into(),
        // A server that does not start has failed; of a check that cannot be made pipelines and containers' runtimes know 1.
        Err(error) if is_server || (is_check && !Outcome::is_unread(&error)) => {
            eprintln!("tailspan: {error:#}");
            ExitCode::FAILURE
        }
        Err(error) => {
            let (outcome, text) = Outcome::of_error(&error);
            if let Some(text) = text {
                let _ = writeln!(std::io::stderr(), "tailspan: {}", cli::one_line(&text));
            }
            outcome.into()
        }
    }
}

/// Which log lines are wanted; `None` leaves it to `TAILSPAN_LOG` and its default.
fn levels(is_server: bool, verbose: u8) -> Option<&'static str> {
    match (verbose, is_server) {
        (0, true) => None,
        // A command's answer is its output; what goes wrong is told in it.
        (0, false) => Some("error"),
        (1, _) => Some(concat!(
            "info,fred=error,tailspan_core=debug,tailspan_service=debug,tailspan_ingest=debug,tailspan_query=debug,",
            "tailspan_stream=debug,tailspan_cleanup=debug,tailspan_worker=debug,tailspan_mesh=debug,",
            "tailspan_socket=debug,tailspan_evaluate=debug,tailspan_local=debug",
        )),
        (_, _) => Some("trace"),
    }
}

fn completions(options: &CompletionsOptions) -> anyhow::Result<Outcome> {
    let mut script = Vec::new();
    clap_complete::generate(options.shell, &mut Cli::command(), "tailspan", &mut script);
    print(String::from_utf8(script)?.trim_end())
}

fn print(text: &str) -> anyhow::Result<Outcome> {
    writeln!(std::io::stdout(), "{text}")?;
    Ok(Outcome::Well)
}
