//! What is said of a run that ended.

use std::fmt;

use tailspan_core::{
    pricing::Prices,
    settle::Status,
    summary::{Summary, summary},
};
use tailspan_service::log::{read::Folded, work::Job};

/// A run that ended, for a line on a terminal and a row in a list.
#[derive(Clone, Debug)]
pub struct FinishedRun {
    pub job: Job,
    pub summary: Summary,
}

impl FinishedRun {
    pub(crate) fn of(job: &Job, folded: &Folded, prices: &Prices) -> Self {
        let status = job.status.parse().unwrap_or(Status::Completed);
        Self {
            summary: summary(&folded.state, job.trace.as_str(), status, prices),
            job: job.clone(),
        }
    }

    pub(crate) fn status_label(&self) -> &'static str {
        self.summary.status.as_str()
    }
}

/// One line: status, trace, agents, duration, tokens, errors.
impl fmt::Display for FinishedRun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let run = &self.summary;
        write!(f, "{:<9} {}", run.status.as_str(), run.trace_id)?;
        if self.job.run > 0 {
            write!(f, " (run {})", self.job.run + 1)?;
        }
        match run.agents.len() {
            0 => {}
            1 => write!(f, "  1 agent")?,
            count => write!(f, "  {count} agents")?,
        }
        if !run.agents.is_empty() {
            write!(f, " ({})", run.agents.join(", "))?;
        }
        if let Some(ms) = run.duration_ms {
            write!(f, "  {:.1} s", ms / 1000.0)?;
        }
        write!(f, "  {} + {} tokens", run.input_tokens, run.output_tokens)?;
        match run.errors_count {
            0 => Ok(()),
            1 => f.write_str("  1 error"),
            count => write!(f, "  {count} errors"),
        }
    }
}
