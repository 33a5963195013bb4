//! The errors of a run, each once where it arose, and whether the run failed by them.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::{Run, Step};
use crate::convention::ends_in_failure;
use crate::model::{Failure, Kind};

/// What a clock of whole milliseconds may be behind.
const COARSE_CLOCK_NS: u64 = 1_000_000;
/// Errors that one error is compared with, to tell an echo.
const MAX_ECHOES: usize = 64;

/// One error, at the step where it arose.
#[derive(Clone, Debug)]
pub(crate) struct Cause {
    pub(crate) step: usize,
    pub(crate) failure: Failure,
}

impl Run<'_> {
    /// The errors, each once, where they arose: a failure that passes up through its parents is one.
    pub(crate) fn causes(&self) -> Vec<Cause> {
        let count = self.forest.parent.len();
        // Of every subtree: its latest cause, and when its last successful work began.
        let mut latest: Vec<Option<usize>> = vec![None; count];
        let mut worked_at: Vec<u64> = vec![0; count];
        let mut causes: BTreeMap<usize, Failure> = BTreeMap::new();
        let mut told_by: HashMap<usize, usize> = HashMap::new();
        for index in self.order.iter().rev() {
            let Some(step) = self.steps.get(*index) else {
                continue;
            };
            let below = latest[*index];
            let mut own = below;
            let is_work = matches!(step.facts.kind, Kind::Llm | Kind::Tool);
            if let Some(failure) = &step.facts.failure
                && !step.facts.made_up
            {
                let passed_on = below.and_then(|cause| {
                    let cause_step = self.steps.get(cause)?;
                    let cause_failure = causes.get(&cause)?;
                    let nothing_went_on = worked_at[*index] <= cause_step.end_or_start();
                    (failure.message.is_empty()
                        || nothing_went_on
                        || related(failure, cause_failure))
                    .then_some(cause)
                });
                match passed_on {
                    Some(cause) => {
                        // A tool or a model call tells more than the plain span in it that raised.
                        let cause_is_work = self.steps.get(cause).is_some_and(|step| {
                            matches!(
                                step.facts.kind,
                                Kind::Llm | Kind::Tool | Kind::Retriever | Kind::Embedding
                            )
                        });
                        if is_work && !cause_is_work {
                            told_by.entry(cause).or_insert(*index);
                        }
                    }
                    None => {
                        causes.insert(*index, failure.clone());
                        own = Some(*index);
                    }
                }
            }
            if let Some(above) = self.forest.parent[*index] {
                if is_work && step.facts.failure.is_none() {
                    worked_at[above] = worked_at[above].max(step.facts.start_ns);
                }
                worked_at[above] = worked_at[above].max(worked_at[*index]);
                if let Some(own) = own {
                    let end = |cause: usize| self.steps.get(cause).map(Step::end_or_start);
                    if latest[above].is_none_or(|other| end(other) < end(own)) {
                        latest[above] = Some(own);
                    }
                }
            }
        }
        let mut causes: Vec<Cause> = causes
            .into_iter()
            .map(|(cause, failure)| Cause {
                step: told_by.get(&cause).copied().unwrap_or(cause),
                failure,
            })
            .collect();
        // A call that is told twice fails once.
        let failed: HashSet<usize> = causes.iter().map(|cause| cause.step).collect();
        causes.retain(|cause| {
            let twin = self.twin_of.get(cause.step).copied().flatten();
            twin.is_none_or(|twin| !failed.contains(&twin))
        });
        self.join_siblings(&mut causes);
        causes.sort_by_key(|cause| {
            self.steps
                .get(cause.step)
                .map(|step| (step.end_or_start(), step.id.clone()))
        });
        drop_echoes(&self.steps, &mut causes);
        causes
    }

    /// Within one failed call the same failure may be told side by side (MCP's handler and the writer of its response): it is one.
    fn join_siblings(&self, causes: &mut Vec<Cause>) {
        let mut failed_call: Vec<Option<usize>> = vec![None; self.forest.parent.len()];
        for index in &self.order {
            let Some(step) = self.steps.get(*index) else {
                continue;
            };
            let is_failed_call =
                matches!(step.facts.kind, Kind::Llm | Kind::Tool) && step.facts.failure.is_some();
            failed_call[*index] = if is_failed_call {
                Some(*index)
            } else {
                self.forest.parent[*index].and_then(|above| failed_call[above])
            };
        }
        let mut kept: Vec<Cause> = Vec::new();
        let mut of_call: HashMap<usize, Vec<usize>> = HashMap::new();
        for cause in causes.drain(..) {
            let Some(call) = failed_call[cause.step] else {
                kept.push(cause);
                continue;
            };
            let others = of_call.entry(call).or_default();
            let twin = others.iter().take(MAX_ECHOES).copied().find(|at| {
                kept.get(*at)
                    .is_some_and(|other| related(&other.failure, &cause.failure))
            });
            match twin.and_then(|at| kept.get_mut(at)) {
                Some(twin) => twin.step = call,
                None => {
                    others.push(kept.len());
                    kept.push(cause);
                }
            }
        }
        *causes = kept;
    }

    /// Whether the run, once ended, had failed.
    ///
    /// A root that says so, a native `*_failed` at the end; or, because some frameworks leave the root unset or even OK when the run dies
    /// (openai-agents), a model or tool error after which no model was called successfully any more.
    pub(crate) fn has_failed(&self) -> bool {
        if let Some(last) = self.terminal_native() {
            return ends_in_failure(&last.event_type) || last.failure.is_some();
        }
        let last_root = self.true_roots().max_by_key(|step| step.end_or_start());
        if let Some(root) = last_root {
            if root.facts.failure.is_some() {
                return true;
            }
            // A mesh's agents always say how a call ended: who caught the error of another agent did not fail.
            if root.facts.rule == "mesh:entry" {
                return false;
            }
        }
        let calls = self.llm_calls();
        let answers = || {
            let steps = calls.iter().filter_map(|call| self.steps.get(call.step));
            steps.filter(|step| step.facts.failure.is_none())
        };
        let last_answered_ns = answers()
            .map(|step| match contains_work(step) {
                true => step.facts.start_ns,
                false => step.end_or_start(),
            })
            .max();
        let last_asked = answers().map(Step::began).max();
        let is_followed = |index: usize, step: &Step| {
            let failed_ns = step.end_or_start();
            let is_leaf = self.forest.children.get(index).is_some_and(Vec::is_empty);
            last_answered_ns.is_some_and(|answered_ns| {
                let is_unclear = is_leaf
                    && step.has_coarse_clock()
                    && answered_ns.abs_diff(failed_ns) < COARSE_CLOCK_NS;
                match is_unclear {
                    // Each of the two ends may be early by almost that much: what began later is the better witness.
                    true => last_asked > Some(step.began()),
                    false => answered_ns >= failed_ns,
                }
            })
        };
        self.causes().iter().any(|cause| {
            let Some(step) = self.steps.get(cause.step) else {
                return false;
            };
            let fatal_kind = match step.facts.kind {
                Kind::Llm | Kind::Agent => true,
                Kind::Tool => !calls.is_empty(),
                _ => false,
            };
            fatal_kind && !is_followed(cause.step, step)
        })
    }
}

impl Step<'_> {
    /// Its producer reads a clock of whole milliseconds, as the JavaScript SDK does for the start of a span.
    fn has_coarse_clock(&self) -> bool {
        self.facts.start_ns.is_multiple_of(COARSE_CLOCK_NS)
    }
}

/// Google ADK 1's `call_llm` lasts as long as the tools and agents that it triggers.
fn contains_work(step: &Step) -> bool {
    step.facts.rule == "adk:span.name"
}

/// Whether two failures tell of the same: one message holds the other.
fn related(a: &Failure, b: &Failure) -> bool {
    let (a, b) = (a.message.trim(), b.message.trim());
    a == b || (a.len().min(b.len()) > 8 && (a.contains(b) || b.contains(a)))
}

/// A flat native stream tells of one failure several times: the node's, then the workflow's.
fn drop_echoes(steps: &[Step], causes: &mut Vec<Cause>) {
    let mut kept: Vec<Cause> = Vec::new();
    for cause in causes.drain(..) {
        let is_echo = steps
            .get(cause.step)
            .is_some_and(|step| step.native && step.facts.rule == "native:run")
            && kept.iter().rev().take(MAX_ECHOES).any(|earlier| {
                steps.get(earlier.step).is_some_and(|step| step.native)
                    && (cause.failure.message.is_empty()
                        || related(&cause.failure, &earlier.failure))
            });
        if !is_echo {
            kept.push(cause);
        }
    }
    *causes = kept;
}
