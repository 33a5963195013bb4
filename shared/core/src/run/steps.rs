//! Steps from facts: the spans with what log records say of them, calls that only log records know, and what native events tell.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};

use super::by_time::{Moment, attribute};
use super::{Step, natives::native_steps};
use crate::fold::{Line, LogFacts, Said, SpanFacts, State};
use crate::model::Kind;

/// The state's spans with what log records say of them, the calls that only log records know, and the native events as steps.
pub(super) fn steps(state: &State) -> Vec<Step<'_>> {
    let mut said_in_logs: BTreeMap<&str, Vec<&LogFacts>> = BTreeMap::new();
    let mut without_span: Vec<&LogFacts> = Vec::new();
    for log in state.logs.values() {
        match log.span_id.as_deref() {
            _ if log.says_nothing() => {}
            Some(span_id) => said_in_logs.entry(span_id).or_default().push(log),
            None => without_span.push(log),
        }
    }
    let mut steps = Vec::with_capacity(state.spans.len());
    for (id, facts) in state.spans.iter() {
        let logs = said_in_logs.remove(id.as_str());
        steps.push(Step {
            id: id.clone(),
            facts: Cow::Borrowed(facts),
            said: with_logs(&facts.said, logs.as_deref().unwrap_or_default()),
            estimated: false,
            native: false,
            told_by_time: false,
        });
    }
    let orphans = add_by_time(&mut steps, &without_span);
    add_ancestors(&mut steps);
    for (id, logs) in said_in_logs {
        // Messages of a span that has not come (yet): a call under way, or one that was given up.
        steps.push(orphan(id.to_owned(), &logs));
    }
    for logs in orphans {
        if join(&logs).is_empty() {
            continue;
        }
        let first = logs.first().map_or(0, |log| log.seq);
        steps.push(Step {
            told_by_time: true,
            ..orphan(format!("log-{first}"), &logs)
        });
    }
    native_steps(state, &mut steps);
    steps
}

/// Records that name no span are told by time; what is left is of calls that are not known.
fn add_by_time<'a>(steps: &mut [Step], logs: &[&'a LogFacts]) -> Vec<Vec<&'a LogFacts>> {
    if logs.is_empty() {
        return Vec::new();
    }
    let is_call = |step: &&mut Step| step.facts.kind == Kind::Llm && !step.facts.made_up;
    let mut calls: Vec<&mut Step> = steps.iter_mut().filter(is_call).collect();
    let moments: Vec<Moment> = calls.iter().map(|step| Moment::of(&step.facts)).collect();
    let told = attribute(&moments, logs);
    // Where every span tells what was said in it, records repeat it.
    let is_repeated = !calls.is_empty() && calls.iter().all(|step| step.said.is_whole());
    for (step, logs) in calls.iter_mut().zip(told.of_call) {
        if !logs.is_empty() && !step.said.is_whole() {
            let mut said = step.said.clone().into_owned();
            step.told_by_time = said.is_empty();
            said.learn(&join(&logs));
            step.said = Cow::Owned(said);
        }
    }
    if is_repeated {
        return Vec::new();
    }
    told.orphans
}

/// What a span says of itself holds; records add what it lacks.
fn with_logs<'a>(said: &'a Said, logs: &[&LogFacts]) -> Cow<'a, Said> {
    if logs.is_empty() || said.is_whole() {
        return Cow::Borrowed(said);
    }
    let mut whole = said.clone();
    whole.learn(&join(logs));
    Cow::Owned(whole)
}

fn orphan<'a>(id: String, logs: &[&LogFacts]) -> Step<'a> {
    Step {
        id,
        said: Cow::Owned(join(logs)),
        facts: Cow::Owned(SpanFacts {
            seq: logs.iter().map(|log| log.seq).min().unwrap_or(0),
            name: "unknown".to_owned(),
            kind: Kind::Llm,
            rule: Cow::Borrowed("logs:orphaned"),
            start_ns: logs.iter().map(|log| log.time_ns).min().unwrap_or(0),
            agent: logs.iter().find_map(|log| log.agent.clone()),
            ..SpanFacts::default()
        }),
        estimated: true,
        native: false,
        told_by_time: false,
    }
}

/// Spans that have not come, of which those below them tell: they run, since their first child at least.
fn add_ancestors(steps: &mut Vec<Step<'_>>) {
    let known: HashSet<String> = steps.iter().map(|step| step.id.clone()).collect();
    let mut missing: BTreeMap<String, SpanFacts> = BTreeMap::new();
    for step in steps.iter() {
        let mut parent: Option<&str> = None;
        for above in &step.facts.ancestors {
            if !known.contains(&above.id) {
                let began = match above.start_ns {
                    0 => step.facts.start_ns,
                    told => told,
                };
                let facts = missing
                    .entry(above.id.clone())
                    .or_insert_with(|| SpanFacts {
                        seq: step.facts.seq,
                        parent: parent.map(str::to_owned),
                        name: above.name.clone(),
                        rule: Cow::Borrowed("path:ancestor"),
                        start_ns: began,
                        ..SpanFacts::default()
                    });
                facts.start_ns = facts.start_ns.min(began);
                facts.seq = facts.seq.min(step.facts.seq);
            }
            parent = Some(&above.id);
        }
    }
    steps.extend(missing.into_iter().map(|(id, facts)| Step {
        id,
        facts: Cow::Owned(facts),
        said: Cow::Owned(Said::default()),
        estimated: true,
        native: false,
        told_by_time: false,
    }));
}

/// What the records of one call say together, in their order.
fn join(logs: &[&LogFacts]) -> Said {
    if let Some(whole) = logs.iter().rev().find(|log| log.is_whole_call) {
        return whole.said.clone();
    }
    let is_answered = logs.iter().any(|log| log.answers());
    let mut said = Said::default();
    // Some tell the answer as one more message of the assistant: it stands after the last question.
    let mut reply = Said::default();
    for log in logs {
        if log.said.question.is_some() {
            reply = Said::default();
        }
        if !log.reply.calls.is_empty() {
            // What was said on former calls, a former call was told.
            said.results.clear();
        }
        said.extend(&log.said);
        reply.extend(&log.reply);
    }
    if !is_answered && !reply.is_empty() {
        let own = Line('a', reply.answer_hash);
        while reply.answer.is_some() && said.outline.last() == Some(&own) {
            said.outline.pop();
        }
        said.learn(&reply);
    }
    said
}
