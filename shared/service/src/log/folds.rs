//! Folded states of the traces that were read last: opening, examining and summing up a run folds it once.
//!
//! A state is good for just the position it was folded at; every reader asks the log for that first, so nothing here can be stale.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

use tailspan_core::{
    fold::State,
    id::{TenantId, TraceId},
};

use super::read::{Folded, TraceState};

/// Of all kept states, and of the largest one, in bytes of JSON; in memory a state takes about twice that.
const MOST_BYTES: usize = 32 << 20;
const MOST_BYTES_OF_ONE: usize = MOST_BYTES / 2;
/// Small states are made again about as fast as they are looked for among many.
const MOST_STATES: usize = 32;

/// The states, the least recently used first.
#[derive(Default)]
pub(super) struct Folds(Mutex<VecDeque<Kept>>);

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
        let mut states = self.0.lock().unwrap_or_else(PoisonError::into_inner);
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
        let mut states = self.0.lock().unwrap_or_else(PoisonError::into_inner);
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
}
