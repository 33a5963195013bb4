//! Evaluation: how good a run was.
//!
//! Files and requests are read (`config`, `eval_set`), a trace becomes a [`Subject`], and [`task`] says for each evaluator what is to be
//! done: nothing more, since it could be computed; ask a judge; run a program. What those say goes back in as text. Nothing here asks.

pub mod config;
pub mod eval_set;
pub mod judge;
pub mod metrics;
pub mod outcome;
pub mod performance;
pub mod plan;
pub mod program;
mod reader;
pub mod record;
pub mod report;
pub mod rouge;
mod stem;
pub mod trajectory;
pub mod turn;

pub use self::config::{Config, Evaluator, Overrides};
pub use self::eval_set::{EvalCase, EvalSet};
pub use self::outcome::{MetricResult, RunResult, Status, TraceResult};
pub use self::plan::{Subject, Task, task};
pub use self::turn::Turn;
