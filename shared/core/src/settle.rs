//! Has the run ended? Decided from the state and two moments, without a clock of its own.

use serde::{Deserialize, Serialize};

use crate::fold::State;
use crate::observed::What;
use crate::run::{Run, is_terminal};

/// How a trace stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    Running,
    /// Silent for longer than an open span may be.
    Stalled,
    /// Silent for so long that nobody expects an end.
    Lost,
    Completed,
    Failed,
}

impl Status {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Stalled => "stalled",
            Self::Lost => "lost",
            Self::Completed => "completed",
            Self::Failed => "failed",
        }
    }
}

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::str::FromStr for Status {
    type Err = ();

    /// The name as [`Status::as_str`] writes it.
    fn from_str(text: &str) -> Result<Self, ()> {
        [
            Self::Running,
            Self::Stalled,
            Self::Lost,
            Self::Completed,
            Self::Failed,
        ]
        .into_iter()
        .find(|status| status.as_str() == text)
        .ok_or(())
    }
}

/// How long silence is borne, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// After a root ended: its last children travel in other requests.
    pub grace_ms: u64,
    /// Silence of the trace after which what is open counts as stalled.
    pub stalled_ms: u64,
    /// Silence after which it counts as lost.
    pub lost_ms: u64,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            grace_ms: 1_000,
            stalled_ms: 60_000,
            lost_ms: 15 * 60_000,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing new is known before `look_again_unix_ms`, unless an event arrives.
    Running {
        look_again_unix_ms: u64,
    },
    Stalled {
        look_again_unix_ms: u64,
    },
    Lost,
    /// `status` is [`Status::Completed`] or [`Status::Failed`].
    Ended {
        status: Status,
    },
}

impl Verdict {
    pub fn status(self) -> Status {
        match self {
            Self::Running { .. } => Status::Running,
            Self::Stalled { .. } => Status::Stalled,
            Self::Lost => Status::Lost,
            Self::Ended { status } => status,
        }
    }
}

/// Decides how a trace stands at `now_unix_ms`, its last event having arrived at `last_arrival_unix_ms`.
///
/// It has ended when a root (a span without a parent) ended and nothing is open, after the grace; or at once when the producer says so
/// (`workflow_completed`, `workflow_failed`; `task_completed`, `task_failed` when no other task is open) and no span is open. A root that ended
/// above spans that never did ends the run when their lease is over. A quiet trace whose root was never seen is stalled, then lost, never
/// completed.
pub fn decide(
    state: &State,
    last_arrival_unix_ms: u64,
    now_unix_ms: u64,
    patience: &Patience,
) -> Verdict {
    let silent_ms = now_unix_ms.saturating_sub(last_arrival_unix_ms);
    let at = |after_ms: u64| last_arrival_unix_ms.saturating_add(after_ms);
    let run = Run::of(state);
    let ended = |run: &Run| Verdict::Ended {
        status: if run.has_failed() {
            Status::Failed
        } else {
            Status::Completed
        },
    };
    match close(&run) {
        Close::Said => ended(&run),
        Close::RootEnded if silent_ms >= patience.grace_ms => ended(&run),
        Close::RootEnded => Verdict::Running {
            look_again_unix_ms: at(patience.grace_ms),
        },
        Close::RootEndedAboveOpen if silent_ms >= patience.stalled_ms => ended(&run),
        _ if silent_ms >= patience.lost_ms => Verdict::Lost,
        _ if silent_ms >= patience.stalled_ms => Verdict::Stalled {
            look_again_unix_ms: at(patience.lost_ms),
        },
        _ => Verdict::Running {
            look_again_unix_ms: at(patience.stalled_ms),
        },
    }
}

/// How a trace stands as far as its events tell, without regard to time: running, completed or failed.
pub fn standing(state: &State) -> Status {
    let run = Run::of(state);
    match close(&run) {
        Close::Said | Close::RootEnded if run.has_failed() => Status::Failed,
        Close::Said | Close::RootEnded => Status::Completed,
        _ => Status::Running,
    }
}

enum Close {
    /// By a native event.
    Said,
    RootEnded,
    RootEndedAboveOpen,
    No,
}

fn close(run: &Run) -> Close {
    let spans = || {
        run.steps
            .iter()
            .filter(|step| !step.native && !step.estimated)
    };
    let span_open = spans().any(|step| step.is_open());
    if let Some(terminal) = run.terminal_native()
        && !span_open
    {
        let is_workflow = terminal.event_type.starts_with("workflow_");
        // Steps of other kinds may never say that they ended; a workflow's end closes them.
        let task_open = run
            .steps
            .iter()
            .any(|step| step.native && step.is_open() && step.facts.rule == "native:run");
        if is_workflow || !task_open {
            return Close::Said;
        }
    }
    let native_open = run
        .steps
        .iter()
        .any(|step| step.native && step.is_open() && step.facts.rule == "native:run");
    let root_ended = run.true_roots().any(|step| !step.is_open());
    match (root_ended, span_open || native_open) {
        (true, false) => Close::RootEnded,
        (true, true) => Close::RootEndedAboveOpen,
        (false, _) => Close::No,
    }
}

/// Whether this observation may end its run, so that the trace should be looked at soon. Cheap, and rather too often true.
pub fn may_end_run(what: &What) -> bool {
    match what {
        What::Span(span) => {
            span.end_time_unix_nano != 0 && span.parent_span_id.iter().all(|byte| *byte == 0)
        }
        What::Log(_) => false,
        What::Native(text) => {
            #[derive(Deserialize)]
            struct Typed<'a> {
                #[serde(borrow)]
                event_type: std::borrow::Cow<'a, str>,
            }
            serde_json::from_str::<Typed>(text).is_ok_and(|typed| is_terminal(&typed.event_type))
        }
    }
}
