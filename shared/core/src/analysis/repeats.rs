//! What was done again: after a failure, in circles, or for no reason.

use std::collections::{BTreeMap, HashMap, HashSet};

use serde_json::Value;
use xxhash_rust::xxh3::xxh3_64;

use super::timeline::COARSE_CLOCK_NS;
use super::{Class, Finding, Seen, Severity, count};
use crate::model::{Kind, ToolKind};

/// Longest pattern of calls, or of agents, that is looked for.
const LONGEST_PATTERN: usize = 4;

/// One call of a model or a tool.
#[derive(Clone, Debug)]
pub(super) struct Act {
    pub node: usize,
    /// Of a model call its place in [`Seen::calls`].
    pub call: Option<usize>,
    name: String,
    /// Of a tool call its name and arguments; `None` where nobody told the arguments, or there are none.
    same: Option<u64>,
    is_handoff: bool,
    has_failed: bool,
    is_open: bool,
    start_ns: u64,
    end_ns: u64,
    /// 0: not told.
    result_hash: u64,
    pub result_bytes: u64,
}

/// Tries of one call, of which all but the last failed.
#[derive(Clone, Debug)]
pub(super) struct Retry {
    pub nodes: Vec<usize>,
    pub succeeded: bool,
}

/// The calls of each agent in order, and which of them are tries of the same.
#[derive(Debug, Default)]
pub(super) struct Acts {
    pub sequences: Vec<Vec<Act>>,
    pub retries: Vec<Retry>,
    sequence_of: HashMap<usize, usize>,
    /// By sequence the place of the last call that did not fail.
    last_success: Vec<Option<usize>>,
}

impl Acts {
    pub(super) fn of(seen: &Seen) -> Self {
        let mut by_agent: BTreeMap<(Option<usize>, Option<String>), Vec<Act>> = BTreeMap::new();
        let mut add = |seen: &Seen, act: Act| {
            let agent = seen.agent(act.node).map(str::to_owned);
            by_agent
                .entry((unit(seen, act.node), agent))
                .or_default()
                .push(act);
        };
        for (at, call) in seen.calls.iter().enumerate() {
            let Some(node) = seen.timeline.at(call.step) else {
                continue;
            };
            let told = seen.node(node);
            let step = seen.step(node);
            add(
                seen,
                Act {
                    node,
                    call: Some(at),
                    name: seen.component(node),
                    same: None,
                    is_handoff: false,
                    has_failed: step.facts.failure.is_some(),
                    is_open: told.is_open,
                    start_ns: told.start_ns,
                    end_ns: told.own_end_ns,
                    result_hash: 0,
                    result_bytes: 0,
                },
            );
        }
        for tool in &seen.tools {
            let ran = tool.ran.and_then(|ran| seen.timeline.at(ran));
            let Some(node) = ran.or_else(|| seen.timeline.at(tool.step)) else {
                continue;
            };
            let node = match ran {
                Some(ran) => seen.node(ran).owner,
                None => node,
            };
            let told = seen.node(node);
            let step = seen.step(node);
            let facts = ran.and_then(|_| step.facts.tool.as_ref());
            add(
                seen,
                Act {
                    node,
                    call: None,
                    name: tool.name.clone(),
                    same: same(&tool.name, &tool.arguments),
                    is_handoff: tool.kind == ToolKind::Handoff,
                    has_failed: ran.is_some() && step.facts.failure.is_some(),
                    is_open: ran.is_some() && told.is_open,
                    // A tool that nobody watched ran after the answer that asked for it.
                    start_ns: if ran.is_some() {
                        told.start_ns
                    } else {
                        told.own_end_ns
                    },
                    end_ns: told.own_end_ns,
                    result_hash: facts.map_or(0, |facts| facts.result_hash),
                    result_bytes: facts.map_or(0, |facts| facts.result_bytes),
                },
            );
        }
        let mut acts = Self {
            sequences: by_agent.into_values().collect(),
            ..Self::default()
        };
        for sequence in &mut acts.sequences {
            sequence.sort_by_key(|act| (act.start_ns, act.node));
        }
        let success = |sequence: &Vec<Act>| sequence.iter().rposition(|act| !act.has_failed);
        acts.last_success = acts.sequences.iter().map(success).collect();
        for (at, sequence) in acts.sequences.iter().enumerate() {
            for act in sequence {
                acts.sequence_of.entry(act.node).or_insert(at);
            }
        }
        let is_cause: HashSet<usize> = seen
            .causes
            .iter()
            .filter_map(|cause| seen.timeline.at(cause.step))
            .map(|node| seen.node(node).owner)
            .collect();
        for sequence in &acts.sequences {
            let tools = tries(sequence, |before, act| {
                act.call.is_none() && before.name == act.name && before.same == act.same
            });
            let models = tries_of_models(sequence);
            let all = tools.into_iter().chain(models);
            acts.retries.extend(all.filter(|retry| {
                let first = retry.nodes.first();
                first.is_some_and(|first| is_cause.contains(&seen.node(*first).owner))
            }));
        }
        acts.retries.extend(tries_of_steps(seen, &is_cause));
        acts
    }

    /// Whether the agent of a step that failed called anything with success after it.
    pub(super) fn went_on_after(&self, seen: &Seen, node: usize) -> bool {
        let failed = seen.node(node);
        let at = self.sequence_of.get(&node).copied();
        let sequence = at.and_then(|at| self.sequences.get(at).zip(self.last_success.get(at)));
        let Some((sequence, last_success)) = sequence else {
            // A step that is no call: whoever its parent is went on if something in it did well later.
            let Some(parent) = failed.parent else {
                return false;
            };
            let siblings = seen.timeline.children.get(parent);
            return siblings.and_then(|list| list.last()).is_some_and(|last| {
                seen.node(*last).start_ns >= failed.own_end_ns
                    && *last != node
                    && seen.step(*last).facts.failure.is_none()
            });
        };
        let later = sequence.partition_point(|act| {
            act.start_ns.saturating_add(COARSE_CLOCK_NS) < failed.own_end_ns
                || act.start_ns < failed.start_ns
        });
        last_success.is_some_and(|last| last >= later)
    }
}

/// Calls of one root belong together; bare calls and flat native events have none, and belong together too.
fn unit(seen: &Seen, node: usize) -> Option<usize> {
    let root_of = |step: usize| seen.run.root_of.get(step).copied();
    let mut root = root_of(seen.node(node).step)?;
    if seen.run.steps.get(root).is_some_and(|root| root.native) {
        root = seen.node(seen.timeline.top_of(node)).step;
    }
    let facts = seen
        .run
        .steps
        .get(root)
        .map(|step| (&step.facts, step.native));
    let is_bare = facts.is_some_and(|(facts, is_native)| match facts.kind {
        Kind::Llm | Kind::Tool | Kind::Retriever => true,
        Kind::Workflow | Kind::Agent => false,
        _ => is_native,
    });
    (!is_bare).then_some(root)
}

fn same(name: &str, arguments: &Value) -> Option<u64> {
    let is_empty = match arguments {
        Value::Null => true,
        Value::Object(object) => object.is_empty(),
        _ => false,
    };
    (!is_empty).then(|| {
        let mut text = name.to_owned();
        text.push('\u{1f}');
        write_sorted(arguments, &mut text);
        xxh3_64(text.as_bytes())
    })
}

/// JSON whose objects are sorted by key: one call's arguments come in more than one order.
fn write_sorted(value: &Value, text: &mut String) {
    match value {
        Value::Object(object) => {
            let mut pairs: Vec<(&String, &Value)> = object.iter().collect();
            pairs.sort_by_key(|(key, _)| key.as_str());
            text.push('{');
            for (key, value) in pairs {
                text.push_str(&Value::from(key.as_str()).to_string());
                text.push(':');
                write_sorted(value, text);
                text.push(',');
            }
            text.push('}');
        }
        Value::Array(items) => {
            text.push('[');
            for item in items {
                write_sorted(item, text);
                text.push(',');
            }
            text.push(']');
        }
        other => text.push_str(&other.to_string()),
    }
}

/// A tool's name, and what its arguments make of it.
type Key<'a> = (&'a str, Option<u64>);

/// Calls of tools that follow a failed one which is the same.
fn tries(sequence: &[Act], is_again: impl Fn(&Act, &Act) -> bool) -> Vec<Retry> {
    let mut chains: Vec<(Vec<usize>, bool)> = Vec::new();
    // By name and arguments the last try, and the chain that it belongs to.
    let mut last: HashMap<Key, (usize, Option<usize>)> = HashMap::new();
    let mut last_tool: Option<usize> = None;
    for (at, act) in sequence.iter().enumerate() {
        if act.call.is_some() {
            continue;
        }
        let key = (act.name.as_str(), act.same);
        let before = last.get(&key).copied().filter(|(before, _)| {
            sequence.get(*before).is_some_and(|earlier| {
                earlier.has_failed
                    && act.start_ns.saturating_add(COARSE_CLOCK_NS) >= earlier.end_ns
                    && earlier.node != act.node
                    // Without arguments only the very next call can be meant.
                    && (act.same.is_some() || last_tool == Some(*before))
                    && is_again(earlier, act)
            })
        });
        let chain = before.map(|(before, chain)| {
            let chain = chain.unwrap_or_else(|| {
                chains.push((
                    sequence
                        .get(before)
                        .map(|act| act.node)
                        .into_iter()
                        .collect(),
                    false,
                ));
                chains.len() - 1
            });
            if let Some((nodes, succeeded)) = chains.get_mut(chain) {
                nodes.push(act.node);
                *succeeded = !act.has_failed && !act.is_open;
            }
            chain
        });
        last.insert(key, (at, chain));
        last_tool = Some(at);
    }
    let chains = chains.into_iter();
    chains
        .map(|(nodes, succeeded)| Retry { nodes, succeeded })
        .collect()
}

/// Model calls that follow a failed one at once.
fn tries_of_models(sequence: &[Act]) -> Vec<Retry> {
    let mut retries: Vec<Retry> = Vec::new();
    let mut is_going = false;
    for (before, act) in sequence.iter().zip(sequence.iter().skip(1)) {
        let is_again = before.call.is_some()
            && act.call.is_some()
            && before.has_failed
            && act.start_ns.saturating_add(COARSE_CLOCK_NS) >= before.end_ns;
        if is_again {
            if !is_going {
                retries.push(Retry {
                    nodes: vec![before.node],
                    succeeded: false,
                });
            }
            if let Some(retry) = retries.last_mut() {
                retry.nodes.push(act.node);
                retry.succeeded = !act.has_failed && !act.is_open;
            }
        }
        is_going = is_again;
    }
    retries
}

/// Other steps: the same one again within the same parent.
fn tries_of_steps(seen: &Seen, is_cause: &HashSet<usize>) -> Vec<Retry> {
    let mut retries: Vec<Retry> = Vec::new();
    for siblings in seen.timeline.children.iter().chain([&seen.timeline.roots]) {
        let mut last: HashMap<(Kind, String), (usize, Option<usize>)> = HashMap::new();
        for at in siblings {
            let step = seen.step(*at);
            let node = seen.node(*at);
            if matches!(step.facts.kind, Kind::Llm | Kind::Tool) || node.owner != *at {
                continue;
            }
            let key = (step.facts.kind, seen.component(*at));
            let before = last.get(&key).copied().filter(|(before, chain)| {
                seen.step(*before).facts.failure.is_some()
                    && (chain.is_some() || is_cause.contains(before))
                    && node.start_ns.saturating_add(COARSE_CLOCK_NS)
                        >= seen.node(*before).own_end_ns
            });
            let chain = before.map(|(before, chain)| {
                let chain = chain.unwrap_or_else(|| {
                    retries.push(Retry {
                        nodes: vec![before],
                        succeeded: false,
                    });
                    retries.len() - 1
                });
                if let Some(retry) = retries.get_mut(chain) {
                    retry.nodes.push(*at);
                    retry.succeeded = step.facts.failure.is_none() && !node.is_open;
                }
                chain
            });
            last.insert(key, (*at, chain));
        }
    }
    retries
}

pub(super) fn findings(seen: &Seen, acts: &Acts) -> Vec<Finding> {
    let mut findings: Vec<Finding> = acts
        .retries
        .iter()
        .map(|retry| tried(seen, retry))
        .collect();
    let again: HashSet<usize> = acts
        .retries
        .iter()
        .flat_map(|retry| retry.nodes.iter().rev().skip(1).copied())
        .collect();
    for sequence in &acts.sequences {
        // Of several tries of one call only the last is a call.
        let calls: Vec<&Act> = sequence
            .iter()
            .filter(|act| act.call.is_none() && !act.is_handoff && !again.contains(&act.node))
            .collect();
        findings.extend(circles(seen, &calls));
    }
    findings.extend(agents_in_turns(seen));
    findings
}

fn tried(seen: &Seen, retry: &Retry) -> Finding {
    let first = retry.nodes.first().copied().unwrap_or_default();
    let called = seen.called(first);
    let lost_ns = retry
        .nodes
        .iter()
        .take(retry.nodes.len() - 1)
        .fold(0u64, |sum, at| {
            sum.saturating_add(seen.node(*at).total_ns())
        });
    let tries = retry.nodes.len();
    let (severity, outcome, recommendation) = match retry.succeeded {
        true => (
            Severity::Info,
            "the last one succeeded",
            format!(
                "Nothing to mend in this run; look at why {called} fails at first if that is often so: {} went into tries that failed.",
                super::spoken(lost_ns)
            ),
        ),
        false => (
            Severity::Warning,
            "none succeeded",
            format!(
                "Do not try {called} again for an error that does not pass, and wait longer between tries for one that does: {tries} tries failed."
            ),
        ),
    };
    seen.finding(Class::Retry, severity, &retry.nodes)
        .number("tries", tries)
        .number("succeeded", retry.succeeded)
        .number("lost_ms", super::ms(lost_ns))
        .saying(
            format!("{called} was tried {tries} times, and {outcome}"),
            recommendation,
        )
}

/// Loops and repeats among the tool calls of one agent.
fn circles(seen: &Seen, calls: &[&Act]) -> Vec<Finding> {
    let loop_count =
        usize::try_from(seen.asked.thresholds.loop_count).map_or(usize::MAX, |count| count.max(2));
    let keys: Vec<Option<u64>> = calls.iter().map(|act| act.same).collect();
    let mut findings = Vec::new();
    let mut is_told = vec![false; calls.len()];
    for (from, to, length) in patterns(&keys, loop_count) {
        let nodes: Vec<usize> = calls[from..to].iter().map(|act| act.node).collect();
        is_told[from..to].fill(true);
        findings.push(pattern(seen, &nodes, length, "calls"));
    }
    let mut by_call: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    let mut first_of: HashMap<u64, usize> = HashMap::new();
    for (at, key) in keys.iter().enumerate() {
        if let Some(key) = key
            && !is_told[at]
        {
            let first = *first_of.entry(*key).or_insert(at);
            by_call.entry(first).or_default().push(at);
        }
    }
    for times in by_call.into_values().filter(|times| times.len() > 1) {
        let acts: Vec<&Act> = times
            .iter()
            .filter_map(|at| calls.get(*at).copied())
            .collect();
        let nodes: Vec<usize> = acts.iter().map(|act| act.node).collect();
        let hashes: HashSet<u64> = acts.iter().map(|act| act.result_hash).collect();
        let same_result = (!hashes.contains(&0)).then_some(hashes.len() == 1);
        let Some(first) = acts.first() else { continue };
        let called = super::called(Kind::Tool, &first.name);
        let who = match seen.agent(first.node) {
            Some(agent) => super::called(Kind::Agent, agent),
            None => "the run".to_owned(),
        };
        let results = match same_result {
            Some(true) => ", with the same result",
            Some(false) => ", with differing results",
            None => "",
        };
        let is_loop = times.len() >= loop_count;
        let finding = match is_loop {
            true => seen
                .finding(Class::Loop, Severity::Warning, &nodes)
                .saying(
                    format!("{who} called {called} {} times with the same arguments{results}", times.len()),
                    match same_result {
                        Some(false) => format!("If {who} waits for something here, let {called} wait for it in one call, or wait between the {} calls.", times.len()),
                        _ => format!("Stop {who} after the second call of {called} with the same arguments (a limit on steps, a remark in the prompt, or an answer that says what to do next): it made {}.", times.len()),
                    },
                ),
            false => seen
                .finding(Class::RepeatedCall, Severity::Info, &nodes)
                .saying(
                    format!("{who} called {called} twice with the same arguments{results}"),
                    format!("Keep the answer of {called} for the run, or tell {who} that it has it already: the second call was the same."),
                ),
        };
        let lost_ns = acts.iter().skip(1).fold(0u64, |sum, act| {
            sum.saturating_add(act.end_ns.saturating_sub(act.start_ns))
        });
        findings.push(
            finding
                .number("calls", times.len())
                .number("same_result", same_result)
                .number("repeats_ms", super::ms(lost_ns)),
        );
    }
    findings
}

/// Agents that pass the work to and fro: A, B, A, B, A, B.
fn agents_in_turns(seen: &Seen) -> Vec<Finding> {
    let loop_count =
        usize::try_from(seen.asked.thresholds.loop_count).map_or(usize::MAX, |count| count.max(2));
    let mut by_unit: BTreeMap<Option<usize>, Vec<usize>> = BTreeMap::new();
    for at in seen.owners() {
        let step = seen.step(at);
        // An agent told twice, one span within the other, is one.
        let is_told_above = seen.node(at).parent.is_some_and(|parent| {
            seen.step(parent).facts.kind == Kind::Agent
                && seen.component(parent) == seen.component(at)
        });
        if step.facts.kind == Kind::Agent && !is_told_above {
            by_unit.entry(unit(seen, at)).or_default().push(at);
        }
    }
    let mut findings = Vec::new();
    for mut nodes in by_unit.into_values() {
        nodes.sort_by_key(|at| (seen.node(*at).start_ns, *at));
        let keys: Vec<Option<u64>> = nodes
            .iter()
            .map(|at| Some(xxh3_64(seen.component(*at).as_bytes())))
            .collect();
        for (from, to, length) in patterns(&keys, loop_count) {
            findings.push(pattern(seen, &nodes[from..to], length, "runs"));
        }
    }
    findings
}

fn pattern(seen: &Seen, nodes: &[usize], length: usize, what: &str) -> Finding {
    let rounds = nodes.len() / length.max(1);
    let names: Vec<String> = nodes
        .iter()
        .take(length)
        .map(|at| seen.called(*at))
        .collect();
    let names = names.join(", ");
    seen.finding(Class::Loop, Severity::Warning, nodes)
        .number("calls", nodes.len())
        .number("pattern", length)
        .number("rounds", rounds)
        .saying(
            format!("{names} follow one another in turns, {rounds} rounds of the same"),
            format!(
                "Limit the rounds of {names}, or give one of them the last word: {} of the same went round {rounds} times.",
                count(nodes.len(), what, what)
            ),
        )
}

/// Stretches in which the same 2 to 4 keys, not all the same, follow one another at least `rounds` times: from, to, length of the pattern. They do not overlap.
fn patterns(keys: &[Option<u64>], rounds: usize) -> Vec<(usize, usize, usize)> {
    let mut found: Vec<(usize, usize, usize)> = Vec::new();
    let mut is_taken = vec![false; keys.len()];
    for length in 2..=LONGEST_PATTERN {
        let mut from = 0;
        while from + length < keys.len() {
            let mut to = from + length;
            while to < keys.len() && keys[to].is_some() && keys[to] == keys[to - length] {
                to += 1;
            }
            let whole = (to - from) / length * length;
            let is_one = keys[from..from + length]
                .iter()
                .all(|key| *key == keys[from]);
            let is_free = !is_taken[from..to].contains(&true);
            if whole >= length.saturating_mul(rounds) && !is_one && is_free && keys[from].is_some()
            {
                is_taken[from..from + whole].fill(true);
                found.push((from, from + whole, length));
                from += whole;
            } else {
                // What did not repeat here cannot begin before the place where it broke off.
                from = (to - length + 1).max(from + 1);
            }
        }
    }
    found
}
