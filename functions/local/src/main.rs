//! The command `tailspan`.

use std::process::ExitCode;

use clap::Parser;
use tailspan_local::options::{Cli, Command};

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Serve(options) => tailspan_local::serve::run(&options),
        Command::Health(options) => {
            tailspan_local::health::ask(&options).map(|said| println!("{said}"))
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tailspan: {error:#}");
            ExitCode::FAILURE
        }
    }
}
