//! The commands beside `serve`: what a person or a script asks of a running server, or of files.
//!
//! Each command has a module with what it may be told and what it does. Answers go to standard output, everything else to standard
//! error; what strangers wrote passes through [`terminal`] on its way. The exit code says how it went, see [`Outcome`].

pub mod client;
pub mod export;
pub mod import;
pub mod input;
pub mod keys;
pub mod list;
pub mod mcp;
pub mod metrics;
pub mod redact;
pub mod run;
pub mod tail;
mod terminal;
pub mod trace;
mod tree;
pub mod webhooks;

use std::io::ErrorKind;
use std::process::ExitCode;

/// How a command ended, in words that an exit code can say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// 0: what was asked for was done; a run that was asked about has not failed.
    Well,
    /// 1: the run failed, or what was evaluated did not pass.
    Failed,
    /// 2: there is no such trace. Also what cannot be said on the command line, by clap.
    Absent,
    /// 3: nobody can say how the run ended: it fell silent, or was deleted.
    Lost,
    /// 4: it could not be found out: no server, no permission, no answer.
    Unknown,
    /// 130: Ctrl-C.
    Interrupted,
    /// 141: whoever read the output is gone, which ends a program quietly, as it does `cat`.
    Unread,
}

impl Outcome {
    /// Of a run, by the word that its status is told with.
    pub(crate) fn of_run(status: &str) -> Self {
        match status {
            "failed" => Self::Failed,
            "lost" | "deleted" | "expired" => Self::Lost,
            _ => Self::Well,
        }
    }

    /// Whether what went wrong is that nobody reads any more.
    #[must_use]
    pub fn is_unread(error: &anyhow::Error) -> bool {
        error.chain().any(|cause| {
            cause
                .downcast_ref::<std::io::Error>()
                .is_some_and(|cause| cause.kind() == ErrorKind::BrokenPipe)
        })
    }

    /// What an error says of the outcome; `None` is said of an end that needs no words.
    #[must_use]
    pub fn of_error(error: &anyhow::Error) -> (Self, Option<String>) {
        match error.downcast_ref::<client::Failure>() {
            _ if Self::is_unread(error) => (Self::Unread, None),
            Some(failure) if failure.is_absent() => (Self::Absent, Some(format!("{error:#}"))),
            _ => (Self::Unknown, Some(format!("{error:#}"))),
        }
    }
}

impl From<Outcome> for ExitCode {
    fn from(outcome: Outcome) -> Self {
        Self::from(match outcome {
            Outcome::Well => 0,
            Outcome::Failed => 1,
            Outcome::Absent => 2,
            Outcome::Lost => 3,
            Outcome::Unknown => 4,
            Outcome::Interrupted => 130,
            Outcome::Unread => 141,
        })
    }
}

/// Words for standard error, whoever wrote them.
#[must_use]
pub fn one_line(text: &str) -> std::borrow::Cow<'_, str> {
    terminal::clean(text)
}

/// Runs a command that waits for the network; one thread is enough for one conversation.
///
/// # Errors
/// The runtime cannot be started, or what the command says.
pub fn block_on<T>(command: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(command)
}
