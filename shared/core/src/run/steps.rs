//! Steps from facts: the spans with what log records say of them, calls that only log records know, and what native events tell.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};

use super::{Step, natives::native_steps};
use crate::fold::{LogFacts, Said, SpanFacts, State};
use crate::model::Kind;

/// The state's spans with what log records say of them, the calls that only log records know, and the native events as steps.
pub(super) fn steps(state: &State) -> Vec<Step<'_>> {
    let mut said_in_logs: BTreeMap<&str, Vec<&LogFacts>> = BTreeMap::new();
    for log in state.logs.values() {
        if let Some(span_id) = log.span_id.as_deref()
            && !log.said.is_empty()
        {
            said_in_logs.entry(span_id).or_default().push(log);
        }
    }
    let mut steps = Vec::with_capacity(state.spans.len());
    for (id, facts) in state.spans.iter() {
        let logs = said_in_logs.remove(id.as_str());
        let said = match logs {
            Some(logs) if facts.said.is_empty() => Cow::Owned(join(&logs)),
            _ => Cow::Borrowed(&facts.said),
        };
        steps.push(Step {
            id: id.clone(),
            facts: Cow::Borrowed(facts),
            said,
            estimated: false,
            native: false,
        });
    }
    add_ancestors(&mut steps);
    for (id, logs) in said_in_logs {
        // Messages of a span that has not come (yet): a call under way, or one that was given up.
        let first = logs.iter().map(|log| log.time_ns).min().unwrap_or(0);
        steps.push(Step {
            id: id.to_owned(),
            said: Cow::Owned(join(&logs)),
            facts: Cow::Owned(SpanFacts {
                name: "unknown".to_owned(),
                kind: Kind::Llm,
                rule: Cow::Borrowed("logs:orphaned"),
                start_ns: first,
                agent: logs.iter().find_map(|log| log.agent.clone()),
                ..SpanFacts::default()
            }),
            estimated: true,
            native: false,
        });
    }
    native_steps(state, &mut steps);
    steps
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
    }));
}

fn join(logs: &[&LogFacts]) -> Said {
    if let Some(whole) = logs.iter().rev().find(|log| log.is_whole_call) {
        return whole.said.clone();
    }
    let mut said = Said::default();
    logs.iter().for_each(|log| said.extend(&log.said));
    said
}
