//! Has the run ended? Decided from the state and two moments, without a clock of its own.

use serde::{Deserialize, Serialize};

use crate::convention::ends_run;
use crate::fold::State;
use crate::observed::What;
use crate::run::Run;

/// How a trace stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = TraceStatus))]
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
    /// The name on the wire.
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

/// How a trace stands, and when to ask again.
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
    /// The verdict without its time.
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
/// above spans that never did ends the run when their lease is over; so does one after which spans of a next run came whose own root has
/// not. A quiet trace whose root was never seen is stalled, then lost, never
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
    match (root_ended, span_open || native_open || next_run_began(run)) {
        (true, false) => Close::RootEnded,
        (true, true) => Close::RootEndedAboveOpen,
        (false, _) => Close::No,
    }
}

/// Steps below a parent that has not come, begun after every root had ended: spans of the trace's next run, which end before its root does.
fn next_run_began(run: &Run) -> bool {
    let ends = run.true_roots().filter_map(|step| step.facts.end_ns);
    let first_ghost = run.steps.len();
    let mut ghosts = first_ghost..first_ghost + run.forest.ghosts.len();
    ends.max().is_some_and(|last_end| {
        let mut told = run.steps.iter().filter(|step| step.estimated);
        ghosts.any(|ghost| run.ghost_start_ns(ghost) > last_end)
            || told.any(|step| step.facts.start_ns > last_end)
    })
}

/// A span without a parent that has ended.
pub(crate) fn is_ended_root(span: &crate::wire::Span) -> bool {
    span.end_time_unix_nano != 0 && span.parent_span_id.iter().all(|byte| *byte == 0)
}

/// Whether this observation may end its run, so that the trace should be looked at soon. Cheap, and rather too often true.
pub fn may_end_run(what: &What) -> bool {
    match what {
        What::Span(span) => is_ended_root(span),
        What::Log(_) => false,
        What::Native(text) => {
            #[derive(Deserialize)]
            struct Typed<'a> {
                #[serde(borrow)]
                event_type: std::borrow::Cow<'a, str>,
            }
            serde_json::from_str::<Typed>(text).is_ok_and(|typed| ends_run(&typed.event_type))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::observed::{Context, Observation, Recorded};
    use crate::wire;

    const PATIENCE: Patience = Patience {
        grace_ms: 1_000,
        stalled_ms: 60_000,
        lost_ms: 900_000,
    };

    fn span(id: u8, parent: u8, end: u64) -> What {
        span_with(id, parent, end, 0, "")
    }

    fn span_with(id: u8, parent: u8, end: u64, status: i32, operation: &str) -> What {
        What::Span(Arc::new(wire::Span {
            span_id: vec![id; 8].into(),
            parent_span_id: if parent == 0 {
                vec![].into()
            } else {
                vec![parent; 8].into()
            },
            start_time_unix_nano: u64::from(id),
            end_time_unix_nano: end,
            attributes: vec![wire::KeyValue {
                key: "gen_ai.operation.name".into(),
                value: Some(wire::AnyValue {
                    value: Some(wire::any_value::Value::String(operation.into())),
                }),
            }],
            status: Some(wire::Status {
                message: "no".to_owned(),
                code: status,
            }),
            ..wire::Span::default()
        }))
    }

    fn native(event_type: &str) -> What {
        What::Native(format!(r#"{{"event_type":"{event_type}","agent_id":"a"}}"#).into())
    }

    /// The status after a silence, all events having arrived one per millisecond up to second 1,000.
    fn check(whats: &[What], silent_ms: u64, expected: Status) {
        let mut state = State::default();
        for (n, what) in whats.iter().enumerate() {
            state.apply(&Recorded {
                seq: n as u64 + 1,
                arrived_unix_ms: 1_000_000 - whats.len() as u64 + n as u64,
                observation: Observation {
                    context: Arc::new(Context::default()),
                    what: what.clone(),
                },
            });
        }
        let verdict = decide(&state, 1_000_000, 1_000_000 + silent_ms, &PATIENCE);
        assert_eq!(verdict.status(), expected, "{silent_ms} ms after {whats:?}");
        if let Verdict::Running { look_again_unix_ms } | Verdict::Stalled { look_again_unix_ms } =
            verdict
        {
            assert!(
                look_again_unix_ms > 1_000_000 + silent_ms,
                "look again later"
            );
        }
    }

    #[test]
    fn spans_of_the_next_run_keep_it_open_until_its_root_comes() {
        let first_run = [span(2, 1, 5), span(1, 0, 10)];
        // A late child of the first run changes nothing; one that began after its root's end is of the next.
        let late = [first_run.as_slice(), &[span(3, 1, 9)]].concat();
        check(&late, 1_500, Status::Completed);
        let second_run = [late.as_slice(), &[span(20, 30, 25)]].concat();
        check(&second_run, 1_500, Status::Running);
        check(&second_run, 60_000, Status::Completed);
        let both = [second_run.as_slice(), &[span(30, 0, 40)]].concat();
        check(&both, 1_500, Status::Completed);
    }

    #[test]
    fn a_root_that_ended_ends_the_run_after_the_grace() {
        let run = [span(2, 1, 5), span(1, 0, 9)];
        check(&run, 0, Status::Running);
        check(&run, 999, Status::Running);
        check(&run, 1_000, Status::Completed);
    }

    #[test]
    fn children_alone_are_never_complete() {
        let run = [span(2, 1, 5)];
        check(&run, 59_999, Status::Running);
        check(&run, 60_000, Status::Stalled);
        check(&run, 900_000, Status::Lost);
    }

    #[test]
    fn an_open_child_keeps_the_run_open_until_its_lease_is_over() {
        let run = [span(2, 1, 0), span(1, 0, 9)];
        check(&run, 5_000, Status::Running);
        check(&run, 60_000, Status::Completed);
    }

    #[test]
    fn an_open_span_alone_stalls_and_is_lost() {
        let run = [span(1, 0, 0)];
        check(&run, 5_000, Status::Running);
        check(&run, 60_000, Status::Stalled);
        check(&run, 900_000, Status::Lost);
    }

    #[test]
    fn the_producer_may_say_it_at_once() {
        check(
            &[native("workflow_started"), native("workflow_completed")],
            0,
            Status::Completed,
        );
        check(
            &[native("task_started"), native("task_failed")],
            0,
            Status::Failed,
        );
        check(
            &[
                native("task_started"),
                native("task_started"),
                native("task_completed"),
            ],
            0,
            Status::Running,
        );
        check(&[native("agent_called")], 5_000, Status::Running);
        check(
            &[native("workflow_completed"), native("workflow_started")],
            5_000,
            Status::Running,
        );
    }

    #[test]
    fn a_run_fails_with_its_root_or_with_a_last_error_that_nothing_followed() {
        check(
            &[span_with(1, 0, 9, 2, "invoke_agent")],
            1_000,
            Status::Failed,
        );
        let died = [
            span_with(3, 1, 5, 0, "chat"),
            span_with(4, 1, 8, 2, "chat"),
            span_with(1, 0, 9, 1, "invoke_workflow"),
        ];
        check(&died, 1_000, Status::Failed);
        let recovered = [
            span_with(3, 1, 3, 2, "chat"),
            span_with(4, 1, 8, 0, "chat"),
            span_with(1, 0, 9, 0, "invoke_workflow"),
        ];
        check(&recovered, 1_000, Status::Completed);
    }

    #[test]
    fn a_clock_of_whole_milliseconds_does_not_hide_what_came_after_an_error() {
        // As the JavaScript SDK tells it: a start is cut to the millisecond, and the end is counted from there.
        let from_javascript = |id, start_us: u64, lasted_us: u64, status, operation| {
            let start_ns = (5_000 + start_us) / 1_000 * 1_000_000;
            let mut what = span_with(id, 9, start_ns + lasted_us * 1_000, status, operation);
            if let What::Span(span) = &mut what {
                Arc::make_mut(span).start_time_unix_nano = start_ns;
            }
            what
        };
        let root = || span_with(9, 0, 99_000_000, 0, "invoke_agent");
        // The tool seems to end at 5.7 ms and the answer at 5.1 ms.
        let answered = [
            from_javascript(1, 10, 700, 2, "execute_tool"),
            from_javascript(2, 720, 100, 0, "chat"),
            root(),
        ];
        check(&answered, 1_000, Status::Completed);
        // The model seems to answer at 5.7 ms and the tool to fail at 5.1 ms.
        let died = [
            from_javascript(2, 10, 700, 0, "chat"),
            from_javascript(1, 720, 100, 2, "execute_tool"),
            root(),
        ];
        check(&died, 1_000, Status::Failed);
    }

    #[test]
    fn no_flood_of_events_hides_the_end() {
        let mut flood = vec![native("step"); 50_001];
        flood.push(native("workflow_completed"));
        check(&flood, 0, Status::Completed);
    }

    #[test]
    fn only_ends_are_worth_a_look() {
        assert!(may_end_run(&span(1, 0, 9)));
        assert!(!may_end_run(&span(1, 0, 0)));
        assert!(!may_end_run(&span(2, 1, 9)));
        assert!(may_end_run(&native("task_failed")));
        assert!(!may_end_run(&native("node_finished")));
    }
}
