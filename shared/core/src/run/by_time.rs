//! Log records that name no span: to which model call each belongs.
//!
//! The dev server's client sends what was said in log records without their span. A record is one of the call that went on at its time, of
//! several the innermost: what a model was asked is told right after its call begins, what it answered right before it ends. What lies in no
//! call (clocks, records without a time) goes in its order, up to each answer, to the calls that follow.

use std::collections::BTreeSet;

use crate::fold::{LogFacts, SpanFacts};

/// A call to a model, as far as records are told apart by it.
pub(super) struct Moment {
    start_ns: u64,
    /// An open call goes on for ever.
    end_ns: u64,
    seq: u64,
}

impl Moment {
    pub(super) fn of(facts: &SpanFacts) -> Self {
        Self {
            start_ns: facts.start_ns,
            end_ns: facts.end_ns.unwrap_or(u64::MAX),
            seq: facts.seq,
        }
    }
}

/// The records of every call, by its index; and those of calls of which nothing else is known (yet), call by call.
pub(super) struct Attributed<'a> {
    pub(super) of_call: Vec<Vec<&'a LogFacts>>,
    pub(super) orphans: Vec<Vec<&'a LogFacts>>,
}

/// Gives every record to a call. `logs` are in the order of their times; of one moment, as they came.
pub(super) fn attribute<'a>(calls: &[Moment], logs: &[&'a LogFacts]) -> Attributed<'a> {
    let order_by = |key: fn(&Moment) -> (u64, u64)| {
        let mut order: Vec<usize> = (0..calls.len()).collect();
        order.sort_by_key(|at| calls.get(*at).map(key));
        order
    };
    let by_start = order_by(|call| (call.start_ns, call.seq));
    let by_arrival = order_by(|call| (call.seq, 0));
    let mut of_call: Vec<Vec<&LogFacts>> = vec![Vec::new(); calls.len()];
    let mut groups: Vec<Stray> = Vec::new();
    let mut sweep = Sweep::new(calls, &by_start);
    for log in logs {
        let answers = log.answers();
        if !log.untimed {
            sweep.to(log.time_ns);
            if let Some(logs) = sweep.going_on(answers).and_then(|at| of_call.get_mut(at)) {
                logs.push(log);
                continue;
            }
        }
        match groups.last_mut() {
            Some(group) if answers || !group.is_answered => {
                group.is_answered |= answers;
                group.logs.push(log);
            }
            _ => groups.push(Stray {
                logs: vec![log],
                is_answered: answers,
                asks: !answers,
                just_ended: sweep.last_ended.filter(|_| !log.untimed),
            }),
        }
    }
    let is_answered = |logs: &[&LogFacts]| logs.iter().any(|log| log.answers());
    let mut orphans = Vec::new();
    let mut taken = vec![false; calls.len()];
    let (mut next_start, mut next_arrival) = (0, 0);
    for group in groups {
        let Some(first) = group.logs.first() else {
            continue;
        };
        let mut at = None;
        if group.asks {
            let (order, next) = match first.untimed {
                true => (&by_arrival, &mut next_arrival),
                false => (&by_start, &mut next_start),
            };
            // The groups are in order too: what was passed over is never looked at again.
            while let Some(candidate) = order.get(*next).copied() {
                let is_before = calls.get(candidate).is_none_or(|call| match first.untimed {
                    true => call.seq < first.seq,
                    false => call.start_ns < first.time_ns,
                });
                let is_told = taken.get(candidate) == Some(&true)
                    || of_call.get(candidate).is_some_and(|logs| !logs.is_empty());
                if !is_before && !is_told {
                    at = Some(candidate);
                    break;
                }
                *next += 1;
            }
        } else {
            // An answer that came late.
            at = group
                .just_ended
                .filter(|at| of_call.get(*at).is_some_and(|logs| !is_answered(logs)));
        }
        match at.and_then(|at| Some((of_call.get_mut(at)?, taken.get_mut(at)?))) {
            Some((logs, taken)) => {
                logs.extend(group.logs);
                *taken = true;
            }
            None => orphans.push(group.logs),
        }
    }
    Attributed { of_call, orphans }
}

/// Records that lie in no call, up to an answer.
struct Stray<'a> {
    logs: Vec<&'a LogFacts>,
    is_answered: bool,
    /// It begins with what was asked.
    asks: bool,
    /// The call that had ended last before it.
    just_ended: Option<usize>,
}

/// The calls that go on at a moment that only moves forward.
struct Sweep<'c> {
    calls: &'c [Moment],
    by_start: &'c [usize],
    /// How many of `by_start` have begun.
    begun: usize,
    /// Of those that go on: (start, call), (end, call).
    innermost: BTreeSet<(u64, usize)>,
    first_to_end: BTreeSet<(u64, usize)>,
    last_ended: Option<usize>,
}

impl<'c> Sweep<'c> {
    fn new(calls: &'c [Moment], by_start: &'c [usize]) -> Self {
        Self {
            calls,
            by_start,
            begun: 0,
            innermost: BTreeSet::new(),
            first_to_end: BTreeSet::new(),
            last_ended: None,
        }
    }

    fn to(&mut self, time_ns: u64) {
        while let Some(at) = self.by_start.get(self.begun).copied()
            && let Some(call) = self.calls.get(at)
            && call.start_ns <= time_ns
        {
            self.innermost.insert((call.start_ns, at));
            self.first_to_end.insert((call.end_ns, at));
            self.begun += 1;
        }
        while let Some(first) = self.first_to_end.first().copied()
            && first.0 < time_ns
        {
            self.first_to_end.remove(&first);
            if let Some(call) = self.calls.get(first.1) {
                self.innermost.remove(&(call.start_ns, first.1));
            }
            self.last_ended = Some(first.1);
        }
    }

    fn going_on(&self, answers: bool) -> Option<usize> {
        let of_those = if answers {
            self.first_to_end.first()
        } else {
            self.innermost.last()
        };
        of_those.map(|(_, at)| *at)
    }
}
