//! Folded states of the traces that were read last: opening, examining and summing up a run folds it once, also when all do it at the same time.
//!
//! A state is good for just the position it was folded at; every reader asks the log for that first, so nothing here can be stale.

use std::{
    collections::{HashMap, VecDeque},
    hash::Hash,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use tailspan_core::{
    fold::State,
    id::{SessionKey, TenantId, TraceId},
};
use tokio::sync::OwnedMutexGuard;

use super::read::{Folded, TraceState};

/// Of all kept states, and of the largest one, in bytes of JSON; in memory a state takes about twice that.
const MOST_BYTES: usize = 32 << 20;
const MOST_BYTES_OF_ONE: usize = MOST_BYTES / 2;
/// Small states are made again about as fast as they are looked for among many.
const MOST_STATES: usize = 32;

/// What was said in sessions, as text: when one ends, its producer and every listener ask for it.
const MOST_TOLD: usize = 8;
const MOST_TOLD_BYTES: usize = 16 << 20;
/// Locks that nobody holds any more are let go when there are so many.
const MANY_TURNS: usize = 256;

#[derive(Default)]
pub(crate) struct Folds {
    /// The least recently used first.
    states: Mutex<VecDeque<Kept>>,
    /// The oldest first.
    told: Mutex<VecDeque<Told>>,
    pub(super) folding: Turns<(TenantId, TraceId)>,
    pub(crate) telling: Turns<(TenantId, SessionKey)>,
}

/// What was said in these states. The memory of a state is not given to another one while there is a `Weak`, so the place tells it.
struct Told {
    of: Vec<Weak<State>>,
    text: Arc<str>,
}

struct Kept {
    tenant: TenantId,
    trace: TraceId,
    at: Position,
    state: Arc<State>,
}

/// What tells one content of a trace from every other: the mark stands for the last chunk's bytes and what came before it.
#[derive(PartialEq, Eq)]
struct Position {
    life: String,
    seq: u64,
    mark: u32,
}

impl From<&TraceState> for Position {
    fn from(state: &TraceState) -> Self {
        Self {
            life: state.life().to_owned(),
            seq: state.seq,
            mark: state.mark,
        }
    }
}

impl Folds {
    /// The state of a trace that stands at `found`.
    pub(super) fn get(
        &self,
        tenant: &TenantId,
        trace: &TraceId,
        found: &TraceState,
    ) -> Option<Arc<State>> {
        let mut states = self.states.lock().unwrap_or_else(PoisonError::into_inner);
        let index = states
            .iter()
            .position(|kept| kept.trace == *trace && kept.tenant == *tenant)?;
        let kept = states.remove(index)?;
        let state = (kept.at == Position::from(found)).then(|| Arc::clone(&kept.state))?;
        states.push_back(kept);
        Some(state)
    }

    /// Keeps a state, and lets those go that were not asked for the longest.
    pub(super) fn keep(&self, tenant: &TenantId, trace: &TraceId, folded: &Folded) {
        if folded.through != folded.trace.seq || folded.state.bytes() > MOST_BYTES_OF_ONE {
            return;
        }
        let mut states = self.states.lock().unwrap_or_else(PoisonError::into_inner);
        states.retain(|kept| kept.trace != *trace || kept.tenant != *tenant);
        states.push_back(Kept {
            tenant: tenant.clone(),
            trace: trace.clone(),
            at: Position::from(&folded.trace),
            state: Arc::clone(&folded.state),
        });
        let mut bytes: usize = states.iter().map(|kept| kept.state.bytes()).sum();
        while states.len() > MOST_STATES || bytes > MOST_BYTES {
            let Some(dropped) = states.pop_front() else {
                break;
            };
            bytes -= dropped.state.bytes();
        }
    }

    /// Lets go of what was folded of a trace, and of what was said in it.
    pub(super) fn forget(&self, tenant: &TenantId, trace: &TraceId) {
        let mut states = self.states.lock().unwrap_or_else(PoisonError::into_inner);
        states.retain(|kept| kept.trace != *trace || kept.tenant != *tenant);
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.clear();
    }

    /// What was said in these states, when it was asked for before.
    pub(crate) fn told(&self, of: &[Arc<State>]) -> Option<Arc<str>> {
        let told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let known = told.iter().find(|told| {
            let mut pairs = told.of.iter().zip(of);
            told.of.len() == of.len()
                && pairs.all(|(told, of)| std::ptr::eq(told.as_ptr(), Arc::as_ptr(of)))
        })?;
        Some(Arc::clone(&known.text))
    }

    pub(crate) fn keep_told(&self, of: &[Arc<State>], text: &Arc<str>) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.retain(|told| told.of.iter().all(|of| of.strong_count() > 0));
        told.push_back(Told {
            of: of.iter().map(Arc::downgrade).collect(),
            text: Arc::clone(text),
        });
        let mut bytes: usize = told.iter().map(|told| told.text.len()).sum();
        while told.len() > MOST_TOLD || bytes > MOST_TOLD_BYTES {
            let Some(dropped) = told.pop_front() else {
                break;
            };
            bytes -= dropped.text.len();
        }
    }
}

/// Of those who want the same thing made, one makes it; the others wait, and find it done.
pub(crate) struct Turns<K>(Mutex<HashMap<K, Weak<tokio::sync::Mutex<()>>>>);

impl<K> Default for Turns<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

/// Kept for as long as the thing is being made.
pub(crate) struct Turn {
    _lock: OwnedMutexGuard<()>,
    /// Somebody was before, and may have made it.
    pub(crate) waited: bool,
}

impl<K: Eq + Hash> Turns<K> {
    pub(crate) async fn take(&self, of: K) -> Turn {
        let lock = {
            let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if all.len() >= MANY_TURNS {
                all.retain(|_, lock| lock.strong_count() > 0);
            }
            let known = all.get(&of).and_then(Weak::upgrade);
            known.unwrap_or_else(|| {
                let lock = Arc::default();
                all.insert(of, Arc::downgrade(&lock));
                lock
            })
        };
        match Arc::clone(&lock).try_lock_owned() {
            Ok(lock) => Turn {
                _lock: lock,
                waited: false,
            },
            Err(_) => Turn {
                _lock: lock.lock_owned().await,
                waited: true,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_comes_second_waits_and_knows_it() {
        let turns: Arc<Turns<u8>> = Arc::default();
        let first = turns.take(1).await;
        assert!(!first.waited);
        // Another thing is made meanwhile.
        assert!(!turns.take(2).await.waited);
        let second = tokio::spawn({
            let turns = Arc::clone(&turns);
            async move { turns.take(1).await.waited }
        });
        tokio::task::yield_now().await;
        assert!(!second.is_finished());
        drop(first);
        assert!(second.await.unwrap());
        assert!(!turns.take(1).await.waited);
    }

    #[tokio::test]
    async fn what_nobody_holds_is_let_go() {
        let turns: Turns<usize> = Turns::default();
        let held = turns.take(0).await;
        for of in 1..3 * MANY_TURNS {
            turns.take(of).await;
        }
        assert!(turns.0.lock().unwrap().len() <= MANY_TURNS);
        assert!(turns.0.lock().unwrap().contains_key(&0));
        drop(held);
    }

    #[test]
    fn what_was_said_is_known_by_the_states_it_was_said_in() {
        let folds = Folds::default();
        let states: Vec<Arc<State>> = (0..MOST_TOLD + 1).map(|_| Arc::default()).collect();
        let text: Arc<str> = "[]".into();
        for state in &states {
            folds.keep_told(std::slice::from_ref(state), &text);
        }
        assert_eq!(folds.told(&states[..1]), None);
        assert_eq!(folds.told(&states[1..2]), Some(text));
        assert_eq!(folds.told(&states[1..3]), None);
        assert_eq!(folds.told(&[]), None);
    }
}
