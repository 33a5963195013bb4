//! Tokens that were paid for again and again: histories that are sent anew with every call, and results that are too large to be read.

use super::repeats::{Act, Acts};
use super::{Class, Finding, Seen, Severity, count, percent};
use crate::fold::Line;

/// Calls below which sending the history again is no waste but how it works.
const MIN_CALLS: usize = 4;
/// Of all input at least this share was sent before.
const MIN_REPEATED_SHARE: f64 = 0.5;
/// Output that is a greater share of the input was worth its history.
const MAX_OUTPUT_SHARE: f64 = 0.1;
/// The fold keeps as many lines of a history, the last ones.
const WHOLE_OUTLINE: usize = 128;
/// Bytes of JSON per token, roughly.
const BYTES_PER_TOKEN: u64 = 4;

pub(super) fn findings(seen: &Seen, acts: &Acts) -> Vec<Finding> {
    let mut findings = Vec::new();
    for acts in &acts.sequences {
        findings.extend(repeated_context(seen, acts));
        findings.extend(oversized_results(seen, acts));
    }
    findings
}

/// One conversation whose whole history goes to the model with each call, without a cache.
fn repeated_context(seen: &Seen, acts: &[Act]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut one: Vec<usize> = Vec::new();
    let calls = acts.iter().filter_map(|act| act.call);
    for at in calls {
        let Some(call) = seen.calls.get(at) else {
            continue;
        };
        if call.usage.input == 0 {
            continue;
        }
        let goes_on = one
            .last()
            .and_then(|last| seen.calls.get(*last))
            .is_some_and(|last| {
                call.usage.input >= last.usage.input
                    && begins_with(&call.said.outline, &last.said.outline)
            });
        if !goes_on {
            findings.extend(waste(seen, &one));
            one.clear();
        }
        one.push(at);
    }
    findings.extend(waste(seen, &one));
    findings
}

fn begins_with(later: &[Line], earlier: &[Line]) -> bool {
    later.is_empty()
        || earlier.is_empty()
        || later.len() >= WHOLE_OUTLINE
        || later.starts_with(earlier)
}

fn waste(seen: &Seen, conversation: &[usize]) -> Option<Finding> {
    if conversation.len() < MIN_CALLS {
        return None;
    }
    let calls = || conversation.iter().filter_map(|at| seen.calls.get(*at));
    let (mut input, mut output, mut cached, mut repeated) = (0u64, 0u64, 0u64, 0u64);
    let mut before = 0;
    for call in calls() {
        let again = call.usage.input.min(before);
        repeated = repeated.saturating_add(again.saturating_sub(call.usage.cache_read));
        before = call.usage.input;
        input = input.saturating_add(call.usage.input);
        output = output.saturating_add(call.usage.output);
        cached = cached.saturating_add(call.usage.cache_read);
    }
    let of_input = |tokens: u64| tokens as f64 / input.max(1) as f64;
    if repeated < seen.asked.thresholds.repeated_tokens
        || of_input(repeated) < MIN_REPEATED_SHARE
        || of_input(output) > MAX_OUTPUT_SHARE
    {
        return None;
    }
    let nodes: Vec<usize> = calls()
        .filter_map(|call| seen.timeline.at(call.step))
        .collect();
    let last = nodes.last().copied()?;
    let who = match seen.agent(last) {
        Some(agent) => super::called(crate::model::Kind::Agent, agent),
        None => "the run".to_owned(),
    };
    let called = seen.called(last);
    Some(
        seen.finding(Class::TokenWaste, Severity::Info, &nodes)
            .number("what", "repeated_context")
            .number("calls", conversation.len())
            .number("input_tokens", input)
            .number("repeated_tokens", repeated)
            .number("cached_tokens", cached)
            .number("output_tokens", output)
            .saying(
                format!(
                    "{who} sent the same history again with each of {} calls: {repeated} of {input} input tokens ({}) were sent before and came from no cache",
                    conversation.len(), percent(of_input(repeated))
                ),
                format!(
                    "Let {called} cache the prompt of {who} (keep its beginning unchanged), or shorten the history: {repeated} input tokens were paid for again in {}, for {output} tokens of output.",
                    count(conversation.len(), "call", "calls")
                ),
            ),
    )
}

/// Results that are too large to be fed back to a model as they are.
fn oversized_results(seen: &Seen, acts: &[Act]) -> Vec<Finding> {
    let mut later_calls = 0usize;
    let mut findings = Vec::new();
    for act in acts.iter().rev() {
        if act.call.is_some() {
            later_calls += 1;
        }
        if act.result_bytes < seen.asked.thresholds.result_bytes.max(1) || later_calls == 0 {
            continue;
        }
        let called = seen.called(act.node);
        let tokens = act.result_bytes / BYTES_PER_TOKEN;
        findings.push(
            seen.finding(Class::TokenWaste, Severity::Info, &[act.node])
                .number("what", "oversized_result")
                .number("result_bytes", act.result_bytes)
                .number("about_tokens", tokens)
                .number("later_calls", later_calls)
                .saying(
                    format!(
                        "{called} returned {} bytes, about {tokens} tokens, which go to the model with each of the {} after it",
                        act.result_bytes, count(later_calls, "call", "calls")
                    ),
                    format!(
                        "Let {called} return less (a summary, a page, the fields that are needed): its result costs about {} input tokens in this run.",
                        tokens.saturating_mul(later_calls as u64)
                    ),
                ),
        );
    }
    findings.reverse();
    findings
}
