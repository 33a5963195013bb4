//! One call, two instrumentations: a framework's (or a third party's) span of it and its client's own, side by side.
//!
//! Spans of one call that lie within one another are handled where calls are read. Side by side they have nothing in common by structure, so
//! the evidence is: two instrumentations, and the provider's id of the answer; or one parent, the same model or tool, no counts that differ, and
//! the one wholly within the other's time.

use std::collections::HashMap;

use super::{Step, forest::Forest};
use crate::model::Kind;
use crate::summary::plain_model;

/// The JavaScript SDK starts spans at whole milliseconds.
const COARSE_CLOCK_NS: u64 = 1_000_000;
/// Calls before a call that are looked at.
const MAX_BEFORE: usize = 16;
/// Tellings of one call that are joined.
const MAX_TELLINGS: usize = 4;

/// For every step the one that tells of the same call and is counted instead: the one that knows what was said, else the earlier.
pub(super) fn twins(steps: &[Step], forest: &Forest) -> Vec<Option<usize>> {
    let mut twin_of: Vec<Option<usize>> = vec![None; steps.len()];
    let is_call = |step: &Step| {
        matches!(step.facts.kind, Kind::Llm | Kind::Tool)
            && !step.facts.made_up
            && !step.facts.scope.is_empty()
    };
    let mut by_answer: HashMap<&str, Vec<usize>> = HashMap::new();
    for (index, step) in steps.iter().enumerate() {
        if is_call(step)
            && let Some(id) = step.facts.response_id.as_deref()
        {
            by_answer.entry(id).or_default().push(index);
        }
    }
    for told in by_answer.values() {
        for (at, index) in told.iter().enumerate().skip(1) {
            let others = &told[at.saturating_sub(MAX_TELLINGS)..at];
            for other in others {
                if steps[*other].facts.scope != steps[*index].facts.scope
                    && !is_above(forest, *other, *index)
                    && !is_above(forest, *index, *other)
                {
                    join(steps, &mut twin_of, *other, *index);
                    break;
                }
            }
        }
    }
    let mut is_joined: Vec<bool> = twin_of.iter().map(Option::is_some).collect();
    for kept in twin_of.iter().flatten() {
        is_joined[*kept] = true;
    }
    for siblings in &forest.children {
        let mut before: Vec<usize> = Vec::new();
        for index in siblings {
            let Some(step) = steps.get(*index).filter(|step| is_call(step)) else {
                continue;
            };
            if is_joined[*index] {
                continue;
            }
            let mut earlier = before.iter().rev().take(MAX_BEFORE).copied();
            if let Some(other) =
                earlier.find(|other| !is_joined[*other] && same_call(&steps[*other], step))
            {
                join(steps, &mut twin_of, other, *index);
                is_joined[other] = true;
                is_joined[*index] = true;
            }
            before.push(*index);
        }
    }
    twin_of
}

fn is_above(forest: &Forest, above: usize, below: usize) -> bool {
    /// Deeper than spans of one call lie within one another.
    const DEEPEST: usize = 16;
    let mut at = below;
    for _ in 0..DEEPEST {
        match forest.parent.get(at).copied().flatten() {
            Some(parent) if parent == above => return true,
            Some(parent) => at = parent,
            None => return false,
        }
    }
    false
}

fn join(steps: &[Step], twin_of: &mut [Option<usize>], a: usize, b: usize) {
    let a = twin_of[a].unwrap_or(a);
    let b = twin_of[b].unwrap_or(b);
    if a == b {
        return;
    }
    let says = |index: usize| match steps[index].facts.tool.as_ref() {
        Some(tool) => tool.arguments.is_some(),
        None => !steps[index].said.is_empty(),
    };
    let key = |index: usize| (!says(index), steps[index].began(), index);
    let (kept, other) = if key(a) <= key(b) { (a, b) } else { (b, a) };
    twin_of[other] = Some(kept);
}

fn same_call(a: &Step, b: &Step) -> bool {
    let (x, y) = (&a.facts, &b.facts);
    if x.kind != y.kind || x.scope == y.scope {
        return false;
    }
    let (Some(x_end), Some(y_end)) = (x.end_ns, y.end_ns) else {
        return false;
    };
    let within = |start: u64, end: u64, outer_start: u64, outer_end: u64| {
        outer_start <= start.saturating_add(COARSE_CLOCK_NS)
            && end <= outer_end.saturating_add(COARSE_CLOCK_NS)
    };
    let overlap = within(x.start_ns, x_end, y.start_ns, y_end)
        || within(y.start_ns, y_end, x.start_ns, x_end);
    // A try that failed lies within the call that succeeded at last, and is not that call.
    overlap
        && x.failure.is_some() == y.failure.is_some()
        && agree(x.response_id.as_deref(), y.response_id.as_deref())
        && agree(
            x.request_model.as_deref().map(plain_model),
            y.request_model.as_deref().map(plain_model),
        )
        && agree(counts(a), counts(b))
        && match (&x.tool, &y.tool) {
            (Some(x), Some(y)) => {
                x.name == y.name
                    && agree(x.call_id.as_deref(), y.call_id.as_deref())
                    && agree(x.arguments.as_deref(), y.arguments.as_deref())
            }
            (None, None) => true,
            _ => false,
        }
}

fn counts(step: &Step) -> Option<(u64, u64)> {
    let usage = step.facts.usage.filter(|usage| !usage.is_zero())?;
    Some((usage.input, usage.output))
}

/// Both say the same, or one says nothing.
fn agree<T: PartialEq>(a: Option<T>, b: Option<T>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => a == b,
        _ => true,
    }
}
