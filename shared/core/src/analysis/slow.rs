//! Where the time went: one step that has most of the path, steps slower than they were, calls that could have run side by side.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};

use super::timeline::COARSE_CLOCK_NS;
use super::{Class, Finding, Seen, Severity, component, ms, percent, share, spoken};
use crate::model::{Kind, ToolKind};
use crate::stats::Dimension;

/// Output below this rate, or so little of it, on this little input, is not the model's own pace.
const LITTLE_OUTPUT: u64 = 50;
const SLOW_TOKENS_PER_SECOND: f64 = 5.0;
const FEW_TOKENS: u64 = 4_000;
/// Of what could be saved, at least this share of the run.
const MISSED_SHARE: f64 = 0.05;

pub(super) fn findings(seen: &Seen) -> Vec<Finding> {
    let mut findings = bottlenecks(seen);
    findings.extend(slower_than_usual(seen));
    findings.extend(slow_first_tokens(seen));
    findings
}

/// Steps that have a great share of the path to themselves. Never a root that only holds others, nor the only step there is: nothing would be said by it.
fn bottlenecks(seen: &Seen) -> Vec<Finding> {
    let thresholds = seen.asked.thresholds;
    let busy_ns = seen.path.busy_ns();
    let by_owner = seen.path_by_owner();
    let is_alone = seen.timeline.roots.len() <= 1;
    let mut slow: Vec<usize> = seen
        .owners()
        .filter(|at| {
            let node = seen.node(*at);
            let is_holder = is_alone || !seen.timeline.children[*at].is_empty();
            let is_run = node.parent.is_none() && (is_alone || node.work.is_none() && is_holder);
            let on_path_ns = by_owner[*at];
            !is_run
                && !node.is_open
                && on_path_ns >= thresholds.bottleneck_ms.saturating_mul(1_000_000)
                && share(on_path_ns, busy_ns) >= thresholds.bottleneck_share
        })
        .collect();
    slow.sort_by_key(|at| Reverse(by_owner[*at]));
    slow.into_iter()
        .map(|at| {
            let on_path_ns = by_owner[at];
            let of_path = share(on_path_ns, busy_ns);
            let node = seen.node(at);
            let step = seen.step(at);
            let called = seen.called(at);
            let has_parts = !seen.timeline.children[at].is_empty();
            let usage = seen
                .call_of
                .get(&node.step)
                .and_then(|call| seen.calls.get(*call))
                .map(|call| call.usage);
            let of_run = format!("{} of the run's {}", spoken(on_path_ns), spoken(busy_ns));
            let is_slow = usage.is_some_and(|usage| {
                let per_second = usage.output as f64 / (on_path_ns as f64 / 1e9);
                let is_little = usage.output <= LITTLE_OUTPUT || per_second < SLOW_TOKENS_PER_SECOND;
                !usage.is_zero() && usage.input < FEW_TOKENS && is_little
            });
            let recommendation = match (step.facts.kind, usage) {
                _ if step.facts.failure.is_some() => format!(
                    "Let {called} give up sooner (a time-out, fewer tries): it failed, and had {of_run}."
                ),
                (Kind::Llm, Some(usage)) if is_slow => format!(
                    "Look at what {called} waited for (a cold start, a queue at the provider, a retry in its client): {} tokens in and {} out do not take {}; it has {of_run}.",
                    usage.input, usage.output, spoken(on_path_ns)
                ),
                (Kind::Llm, Some(usage)) if !usage.is_zero() => format!(
                    "Ask {called} for less here ({} tokens in, {} out), or use a faster model: it has {of_run}.",
                    usage.input, usage.output
                ),
                (Kind::Llm, _) => format!(
                    "Ask {called} for less here, or use a faster model: it has {of_run}."
                ),
                (Kind::Tool, _) => format!(
                    "Make {called} faster, or keep its answers: it has {of_run}."
                ),
                (Kind::Retriever | Kind::Embedding | Kind::Reranker, _) => format!(
                    "Make {called} faster (fewer candidates, an index, a filter): it has {of_run}."
                ),
                _ if has_parts => format!(
                    "Look into {called} itself: {} of its {} pass between the steps in it, where nothing is recorded.", spoken(on_path_ns), spoken(node.total_ns())
                ),
                _ => format!(
                    "Look into {called}: it has {of_run}, and tells of no steps in it."
                ),
            };
            let mut finding = seen
                .finding(Class::Bottleneck, Severity::Warning, &[at])
                .number("share", of_path)
                .number("path_ms", ms(on_path_ns))
                .number("duration_ms", ms(node.total_ns()))
                .number("self_ms", ms(node.self_ns))
                .number("run_ms", ms(busy_ns));
            if let Some(usage) = usage.filter(|usage| !usage.is_zero()) {
                finding = finding
                    .number("input_tokens", usage.input)
                    .number("output_tokens", usage.output);
            }
            let by = match seen.agent(at) {
                Some(agent) if step.facts.kind != Kind::Agent => {
                    format!(" of {}", super::called(Kind::Agent, agent))
                }
                _ => String::new(),
            };
            finding.saying(
                format!(
                    "{called}{by} has {} of the critical path: {} of {}",
                    percent(of_path),
                    spoken(on_path_ns),
                    spoken(busy_ns)
                ),
                recommendation,
            )
        })
        .collect()
}

fn slower_than_usual(seen: &Seen) -> Vec<Finding> {
    let thresholds = seen.asked.thresholds;
    if seen.asked.history.is_empty() {
        return Vec::new();
    }
    let mut by_name: BTreeMap<(Dimension, String), Vec<usize>> = BTreeMap::new();
    for at in seen.owners() {
        let dimension = match seen.step(at).facts.kind {
            Kind::Agent => Dimension::Agent,
            Kind::Tool => Dimension::Tool,
            Kind::Llm => Dimension::Model,
            _ => continue,
        };
        if !seen.node(at).is_open {
            let name = component(seen.step(at));
            by_name.entry((dimension, name)).or_default().push(at);
        }
    }
    let mut findings = Vec::new();
    for ((dimension, name), nodes) in by_name {
        let Some(usual) = seen.asked.history.durations(dimension, &name) else {
            continue;
        };
        let samples = usual.count();
        let (Some(p50), Some(p95)) = (usual.quantile(0.5), usual.quantile(0.95)) else {
            continue;
        };
        if samples < thresholds.history_count.max(1) {
            continue;
        }
        let limit_ms = (p95 * thresholds.slower_factor).max(p95 + thresholds.slower_ms as f64);
        let mut slow: Vec<usize> = nodes
            .into_iter()
            .filter(|at| ms(seen.node(*at).total_ns()) > limit_ms)
            .collect();
        slow.sort_by_key(|at| Reverse(seen.node(*at).total_ns()));
        let Some(worst) = slow.first().copied() else {
            continue;
        };
        let called = seen.called(worst);
        let worst_ns = seen.node(worst).total_ns();
        let usual_ns = (p95 * 1e6) as u64;
        let times = match slow.len() {
            1 => String::new(),
            more => format!(" ({more} times slower than usual)"),
        };
        findings.push(
            seen.finding(Class::SlowerThanUsual, Severity::Warning, &slow)
                .number("steps", slow.len())
                .number("worst_ms", ms(worst_ns))
                .number("usual_p50_ms", p50)
                .number("usual_p95_ms", p95)
                .number("samples", samples)
                .saying(
                    format!(
                        "{called} took {}{times}; 95 of 100 calls take at most {}",
                        spoken(worst_ns),
                        spoken(usual_ns)
                    ),
                    format!(
                        "Compare this call of {called} with its usual ones ({} at the median): look for a longer input, a limit that was hit, or a slow day of what is behind it.",
                        spoken((p50 * 1e6) as u64)
                    ),
                ),
        );
    }
    findings.sort_by_key(|finding| {
        let worst = finding.numbers.get("worst_ms");
        Reverse(worst.and_then(serde_json::Value::as_f64).unwrap_or(0.0) as u64)
    });
    findings
}

/// Answers whose first piece was long in coming, by model.
fn slow_first_tokens(seen: &Seen) -> Vec<Finding> {
    let limit_ns = seen
        .asked
        .thresholds
        .first_token_ms
        .saturating_mul(1_000_000);
    let mut by_model: BTreeMap<String, Vec<(u64, usize, usize)>> = BTreeMap::new();
    for (call, told) in seen.calls.iter().enumerate() {
        let step = seen.run.steps.get(told.step);
        if let Some(waited_ns) = step.and_then(|step| step.facts.first_chunk_ns)
            && waited_ns > limit_ns
            && let Some(at) = seen.timeline.at(told.step)
        {
            let calls = by_model.entry(seen.component(at)).or_default();
            calls.push((waited_ns, at, call));
        }
    }
    let slow = by_model.into_values();
    slow.filter_map(|mut calls| {
        calls.sort_by_key(|(waited_ns, at, _)| (Reverse(*waited_ns), *at));
        let (worst_ns, worst, call) = calls.first().copied()?;
        let usage = seen.calls.get(call)?.usage;
        let called = seen.called(worst);
        let nodes: Vec<usize> = calls.iter().map(|(_, at, _)| *at).collect();
        let times = match calls.len() {
            1 => String::new(),
            more => format!(", the slowest of {more} calls"),
        };
        let recommendation = match usage.reasoning {
            0 => format!("Send {called} a shorter or a cached prompt ({} tokens in), or one that is nearer or less busy: the first piece took {}.", usage.input, spoken(worst_ns)),
            reasoning => format!("Let {called} reason less ({reasoning} tokens before its answer), or show what it thinks: the first piece took {}.", spoken(worst_ns)),
        };
        let finding = seen
            .finding(Class::SlowFirstToken, Severity::Info, &nodes)
            .number("calls", calls.len())
            .number("worst_ms", ms(worst_ns))
            .number("input_tokens", usage.input)
            .number("reasoning_tokens", usage.reasoning);
        Some(finding.saying(
            format!("{called} took {} to its first piece{times}", spoken(worst_ns)),
            recommendation,
        ))
    })
    .collect()
}

/// Tool calls that one answer asked for and that ran one after the other; and how much time that cost in all.
pub(super) fn missed(seen: &Seen) -> (Vec<Finding>, u64) {
    let thresholds = seen.asked.thresholds;
    let mut findings: Vec<(u64, Finding)> = Vec::new();
    let mut missed_ns: u64 = 0;
    for group in asked_together(seen) {
        let mut ran: Vec<usize> = group;
        ran.sort_by_key(|at| (seen.node(*at).start_ns, *at));
        ran.dedup();
        // Stretches in which each began when the one before had ended.
        let mut rows: Vec<Vec<usize>> = Vec::new();
        for at in ran {
            let follows = rows
                .last()
                .and_then(|row| row.last())
                .is_some_and(|before| {
                    let end_ns = seen.node(*before).own_end_ns;
                    seen.node(at).start_ns.saturating_add(COARSE_CLOCK_NS) >= end_ns
                });
            match rows.last_mut() {
                Some(row) if follows => row.push(at),
                _ => rows.push(vec![at]),
            }
        }
        for row in rows.into_iter().filter(|row| row.len() > 1) {
            let lengths = || row.iter().map(|at| seen.node(*at).total_ns());
            let all_ns = lengths().fold(0u64, u64::saturating_add);
            let longest_ns = lengths().max().unwrap_or(0);
            let saved_ns = all_ns - longest_ns;
            missed_ns = missed_ns.saturating_add(saved_ns);
            if saved_ns < thresholds.missed_ms.saturating_mul(1_000_000)
                || share(saved_ns, seen.path.busy_ns()) < MISSED_SHARE
            {
                continue;
            }
            let first = row.first().copied().unwrap_or_default();
            let asker = match seen.agent(first) {
                Some(agent) => super::called(Kind::Agent, agent),
                None => "the run".to_owned(),
            };
            let finding = seen
                .finding(Class::MissedParallelism, Severity::Info, &row)
                .number("calls", row.len())
                .number("one_after_the_other_ms", ms(all_ns))
                .number("longest_ms", ms(longest_ns))
                .number("could_save_ms", ms(saved_ns));
            let names = finding
                .components
                .iter()
                .take(4)
                .map(|name| super::called(Kind::Tool, name))
                .collect::<Vec<_>>()
                .join(", ");
            let finding = finding.saying(
                format!(
                    "{} tool calls that one answer asked for ran one after the other in {}; side by side they take {}",
                    row.len(), spoken(all_ns), spoken(longest_ns)
                ),
                format!(
                    "Let {asker} run the {} calls of one answer ({names}) side by side, where their order does not matter: that saves up to {}.",
                    row.len(), spoken(saved_ns)
                ),
            );
            findings.push((saved_ns, finding));
        }
    }
    findings.sort_by_key(|(saved_ns, _)| Reverse(*saved_ns));
    let findings = findings.into_iter().map(|(_, finding)| finding);
    (findings.collect(), missed_ns)
}

/// The parent and the agent of a step.
type Place<'a> = (Option<usize>, Option<&'a str>);

/// Tools that ran, by the answer that asked for them. Where the answers were not recorded: those that follow one call of their agent's model, before its next one.
fn asked_together(seen: &Seen) -> Vec<Vec<usize>> {
    let mut by_answer: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    let mut unasked: Vec<usize> = Vec::new();
    for tool in &seen.tools {
        let Some(at) = tool.ran.and_then(|ran| seen.timeline.at(ran)) else {
            continue;
        };
        let at = seen.node(at).owner;
        if tool.kind == ToolKind::Handoff || seen.node(at).is_open {
            continue;
        }
        match tool.asked_by {
            Some(asker) => by_answer.entry(asker).or_default().push(at),
            None => unasked.push(at),
        }
    }
    // Within one parent and agent, between the same two model calls.
    let mut models: HashMap<Place, Vec<u64>> = HashMap::new();
    for call in &seen.calls {
        if let Some(at) = seen.timeline.at(call.step)
            && !call.said.calls.is_empty()
        {
            // Answers are recorded here: a tool that none of them asks for is the framework's own.
            let key = (seen.node(at).parent, seen.agent(at));
            models.entry(key).or_default();
        } else if let Some(at) = seen.timeline.at(call.step) {
            let at = seen.node(at).owner;
            let key = (seen.node(at).parent, seen.agent(at));
            models
                .entry(key)
                .or_default()
                .push(seen.node(at).own_end_ns);
        }
    }
    for ends in models.values_mut() {
        ends.sort_unstable();
    }
    let mut by_place: BTreeMap<(Place, usize), Vec<usize>> = BTreeMap::new();
    for at in unasked {
        let node = seen.node(at);
        let key = (node.parent, seen.agent(at));
        let Some(ends) = models.get(&key) else {
            continue;
        };
        let begun_ns = node.start_ns.saturating_add(COARSE_CLOCK_NS);
        let answers = ends.partition_point(|end_ns| *end_ns <= begun_ns);
        if answers > 0 {
            by_place.entry((key, answers)).or_default().push(at);
        }
    }
    by_answer
        .into_values()
        .chain(by_place.into_values())
        .collect()
}
