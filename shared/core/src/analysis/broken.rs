//! What went wrong: errors where they arose, steps that never ended, clocks that disagree.

use std::collections::{HashMap, HashSet};

use super::repeats::Acts;
use super::{Class, Finding, MAX_OF_CLASS, MAX_SPANS, Seen, Severity, count, ms, spoken};
use crate::model::Kind;
use crate::run::Step;
use crate::settle::Status;

/// Whether something may still come of an open step: events that only happen never say that they are over.
pub(super) fn may_be_waited_for(step: &Step) -> bool {
    let facts = &step.facts;
    let only_happens = step.native && matches!(&*facts.rule, "native:event" | "native:agent");
    let is_no_step = facts.made_up || matches!(facts.kind, Kind::Log | Kind::AgentAdmin);
    step.is_open() && !only_happens && !is_no_step
}

pub(super) fn findings(seen: &Seen, acts: &Acts) -> Vec<Finding> {
    let mut findings = errors(seen, acts);
    findings.extend(unclosed(seen));
    findings.extend(skewed(seen));
    findings
}

/// The same failure of the same step, however often.
struct Group {
    /// In the order of their ends.
    nodes: Vec<usize>,
    cause: usize,
    /// Its agent went on after each of them.
    is_handled: bool,
}

fn errors(seen: &Seen, acts: &Acts) -> Vec<Finding> {
    let recovered: HashSet<usize> = acts
        .retries
        .iter()
        .filter(|retry| retry.succeeded)
        .flat_map(|retry| retry.nodes.iter().copied())
        .collect();
    let mut groups: Vec<Group> = Vec::new();
    let mut group_of: HashMap<(String, &str), usize> = HashMap::new();
    for (at, cause) in seen.causes.iter().enumerate() {
        let Some(node) = seen.timeline.at(cause.step) else {
            continue;
        };
        let owner = seen.node(node).owner;
        if recovered.contains(&owner) {
            continue;
        }
        let is_handled = acts.went_on_after(seen, owner);
        let key = (seen.component(owner), cause.failure.kind.as_str());
        let place = *group_of.entry(key).or_insert_with(|| {
            groups.push(Group {
                nodes: Vec::new(),
                cause: at,
                is_handled: true,
            });
            groups.len() - 1
        });
        if let Some(group) = groups.get_mut(place) {
            group.nodes.push(owner);
            group.is_handled &= is_handled;
        }
    }
    let fatal = (seen.asked.status == Status::Failed)
        .then(|| {
            let first = groups.iter().position(|group| !group.is_handled);
            first.or_else(|| groups.len().checked_sub(1))
        })
        .flatten();
    // What ended the run stands before what did not.
    let shown = fatal
        .into_iter()
        .chain((0..groups.len()).filter(|at| fatal != Some(*at)));
    let is_cause: HashSet<usize> = seen.causes.iter().map(|cause| cause.step).collect();
    shown
        .take(MAX_OF_CLASS)
        .filter_map(|at| error(seen, groups.get(at)?, fatal == Some(at), &is_cause))
        .collect()
}

fn error(seen: &Seen, group: &Group, is_fatal: bool, is_cause: &HashSet<usize>) -> Option<Finding> {
    let cause = seen.causes.get(group.cause)?;
    let first = group.nodes.first().copied().unwrap_or_default();
    let mut echoes: Vec<String> = Vec::new();
    let mut names: Vec<String> = Vec::new();
    let mut above = seen.node(first).parent;
    while let Some(at) = above {
        let step = seen.step(at);
        if step.facts.failure.is_some()
            && !is_cause.contains(&seen.node(at).step)
            && echoes.len() < MAX_SPANS
        {
            echoes.push(step.id.clone());
            if names.len() < 3 {
                names.push(seen.called(at));
            }
        }
        above = seen.node(at).parent;
    }
    let kind = match cause.failure.kind.as_str() {
        "" => String::new(),
        kind => format!(" with {}", super::shorten(kind.to_owned(), 80)),
    };
    let times = match group.nodes.len() {
        1 => String::new(),
        more => format!(" {more} times"),
    };
    let who = match seen.agent(first) {
        Some(agent) if seen.step(first).facts.kind != Kind::Agent => {
            format!(" of {}", super::called(Kind::Agent, agent))
        }
        _ => String::new(),
    };
    let called = seen.called(first);
    let (what_then, severity) = match (is_fatal, group.is_handled) {
        (true, _) => ("and the run failed", Severity::Error),
        (false, true) => ("and the run went on", Severity::Warning),
        (false, false) => ("", Severity::Warning),
    };
    let passed_on = match names.is_empty() {
        true => String::new(),
        false => format!(
            "; the errors of {} only repeat it",
            match echoes.len() - names.len() {
                0 => names.join(", "),
                more => format!("{} and {more} more", names.join(", ")),
            }
        ),
    };
    let mut message = format!("{called}{who} failed{times}{kind}");
    if !what_then.is_empty() {
        message.push_str(&format!(", {what_then}"));
    }
    message.push_str(&passed_on);
    let recommendation = match (is_fatal, group.is_handled) {
        (true, _) => format!(
            "Mend {called} first{kind_hint}: it is where this run failed.",
            kind_hint = match seen.step(first).facts.kind {
                Kind::Tool => ", or let it answer the model with an error that it can work with",
                Kind::Llm => ", or call it again after a while",
                _ => "",
            }
        ),
        (false, true) => format!(
            "Look at why {called} fails{times}: the run could go on, and paid for the detour."
        ),
        (false, false) => format!("Look at why {called} fails{times}."),
    };
    let mut finding = seen
        .finding(Class::RootCauseError, severity, &group.nodes)
        .number("failures", group.nodes.len())
        .number("ended_the_run", is_fatal)
        .number("went_on", group.is_handled)
        .number("echoes", echoes)
        .saying(message, recommendation);
    if !cause.failure.kind.is_empty() {
        finding = finding.number("type", cause.failure.kind.as_str());
    }
    finding.error = Some(cause.failure.message.clone()).filter(|text| !text.is_empty());
    Some(finding)
}

fn unclosed(seen: &Seen) -> Option<Finding> {
    let status = seen.asked.status;
    if status == Status::Running {
        return None;
    }
    let nodes = &seen.timeline.nodes;
    let is_unclosed = |at: usize| {
        let step = seen.step(at);
        may_be_waited_for(step) && !step.estimated
    };
    let mut holds_open = vec![false; nodes.len()];
    let mut open: Vec<usize> = Vec::new();
    for at in (0..nodes.len()).rev() {
        let is_open = is_unclosed(at);
        if is_open {
            open.push(at);
        }
        if let Some(parent) = nodes[at].parent {
            holds_open[parent] |= is_open || holds_open[at];
        }
    }
    // The innermost first: those around them wait for these.
    open.sort_by_key(|at| (holds_open[*at], nodes[*at].start_ns));
    let silent_ns = seen
        .asked
        .now_unix_ms
        .saturating_sub(seen.run.state.last_arrival_unix_ms)
        .saturating_mul(1_000_000);
    let severity = match status {
        Status::Lost => Severity::Error,
        _ => Severity::Warning,
    };
    let how = match status {
        Status::Stalled => format!("nothing has come for {}", spoken(silent_ns)),
        Status::Lost => "nothing came any more".to_owned(),
        _ => "the run has ended".to_owned(),
    };
    let Some(first) = open.first().copied() else {
        // Only the parents that nobody sent are missing.
        let ghosts = &seen.run.forest.ghosts;
        if ghosts.is_empty() || !matches!(status, Status::Stalled | Status::Lost) {
            return None;
        }
        let mut finding = seen
            .finding(Class::UnclosedSpan, severity, &[])
            .number("open_spans", ghosts.len())
            .saying(
                format!("{} never came, although others name it as their parent; {how}", count(ghosts.len(), "span", "spans")),
                format!(
                    "Look whether the process that runs span `{}` died, or its exporter was not shut down: a span is exported when it ends.",
                    ghosts.first().map_or("", String::as_str)
                ),
            );
        finding.spans = ghosts.iter().take(MAX_SPANS).cloned().collect();
        return Some(finding);
    };
    let called = seen.called(first);
    Some(
        seen.finding(Class::UnclosedSpan, severity, &open)
            .number("open_spans", open.len())
            .number("since", crate::event::rfc3339_ns(nodes[first].start_ns))
            .saying(
                match open.len() {
                    1 => format!("{called} never ended; {how}"),
                    more => format!("{called} and {} never ended; {how}", count(more - 1, "more step", "more steps")),
                },
                format!("Give {called} a time-out, and end its span on every way out of it; if its process died, flush the exporter when it is told to stop."),
            ),
    )
}

fn skewed(seen: &Seen) -> Option<Finding> {
    let mut skews = seen.timeline.skews.clone();
    skews.sort_by_key(|skew| std::cmp::Reverse(skew.by_ns));
    let worst = *skews.first()?;
    let nodes: Vec<usize> = skews.iter().map(|skew| skew.node).collect();
    let cut = skews.iter().filter(|skew| skew.is_cut).count();
    let service = seen.step(worst.node).facts.service.as_deref();
    let caller = seen.node(worst.node).parent;
    let above = caller.and_then(|at| seen.step(at).facts.service.as_deref());
    let called = seen.called(worst.node);
    let off = spoken(worst.by_ns);
    let recommendation = match service {
        // One process has one clock.
        Some(service) if above == Some(service) => format!(
            "Look at which span {called} gets as its parent: it lies {off} outside of it, and both are of service `{}`.",
            super::shortened(service)
        ),
        Some(service) => format!(
            "Set the clock of service `{}` right (NTP): {called} is {off} off against its caller.",
            super::shortened(service)
        ),
        None => format!("Set the clocks right (NTP): {called} is {off} off against its caller."),
    };
    let done = match (cut, skews.len() - cut) {
        (0, _) => "they are moved into them here, with their durations".to_owned(),
        (_, 0) => "what lies outside is cut off here".to_owned(),
        (cut, moved) => {
            format!(
                "{moved} of them are moved into them here, of {cut} what lies outside is cut off"
            )
        }
    };
    Some(
        seen.finding(Class::ClockSkew, Severity::Info, &nodes)
            .number("steps", skews.len())
            .number("most_ms", ms(worst.by_ns))
            .number("cut", cut)
            .saying(
                format!(
                    "{} outside the steps that called them, {called} by {off}; {done}",
                    match skews.len() {
                        1 => "1 step lies".to_owned(),
                        more => format!("{more} steps lie"),
                    },
                ),
                recommendation,
            ),
    )
}
