//! What one request may still spend while it is decoded; shared by both encodings.

use std::cell::Cell;

use super::names::Names;
use crate::limits::Limits;

pub(super) struct Budget {
    /// See [`Limits::list`].
    pub(super) list: usize,
    depth: usize,
    values: usize,
    values_left: Cell<usize>,
    /// The attribute being read went too deep or too far.
    overflowed: Cell<bool>,
    /// Attributes, span events and links left out so far in this request.
    left_out: Cell<u64>,
    /// Of a file: ids of any form, and how they were spelled. A producer's request has none.
    pub(super) names: Option<Names>,
    /// Of a file: where its text begins in memory, and where the first unreadable item is in it.
    text_begin: Cell<Option<usize>>,
    fault: Cell<Option<FaultAt>>,
}

/// Where an item is unreadable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FaultAt {
    /// Where the item begins in the text, bytes.
    pub(crate) item_at: usize,
    /// Within the item, from 1.
    pub(crate) line: usize,
    pub(crate) column: usize,
}

impl Budget {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            list: limits.list,
            depth: limits.value_depth,
            values: limits.values,
            values_left: Cell::new(limits.values),
            overflowed: Cell::new(false),
            left_out: Cell::new(0),
            names: None,
            text_begin: Cell::new(None),
            fault: Cell::new(None),
        }
    }

    /// For files, whose ids may be any names.
    pub(super) fn of_file(limits: &Limits) -> Self {
        Self {
            names: Some(Names::default()),
            ..Self::new(limits)
        }
    }

    /// Items that are read from now on lie in this text.
    pub(super) fn enter_text(&self, text: &str) {
        self.text_begin.set(Some(text.as_ptr().addr()));
    }

    /// An item is unreadable at this place within it.
    pub(super) fn note_fault(&self, item: &str, line: usize, column: usize) {
        if let (Some(begin), None) = (self.text_begin.get(), self.fault.get()) {
            self.fault.set(Some(FaultAt {
                item_at: item.as_ptr().addr().saturating_sub(begin),
                line,
                column,
            }));
        }
    }

    pub(super) fn fault(&self) -> Option<FaultAt> {
        self.fault.get()
    }

    /// May one more value be kept, at this depth (an attribute's own value is at 1)?
    pub(super) fn spend(&self, depth: usize) -> bool {
        let left = self.values_left.get();
        let fits = left > 0 && depth <= self.depth;
        if fits {
            self.values_left.set(left - 1);
        } else {
            self.overflowed.set(true);
        }
        fits
    }

    /// Leaves the budget as it was when `look` finds nothing.
    pub(super) fn all_or_nothing<T>(&self, look: impl FnOnce() -> Option<T>) -> Option<T> {
        let values_left = self.values_left.get();
        let found = look();
        if found.is_none() {
            self.values_left.set(values_left);
            self.overflowed.set(false);
        }
        found
    }

    pub(super) fn overflowed(&self) -> bool {
        self.overflowed.get()
    }

    /// Did the attribute just read not fit? Asking clears it for the next one.
    pub(super) fn take_overflow(&self) -> bool {
        self.overflowed.take()
    }

    pub(super) fn leave_out(&self, counter: &mut u32) {
        *counter = counter.saturating_add(1);
        self.left_out.set(self.left_out.get() + 1);
    }

    pub(super) fn left_out(&self) -> u64 {
        self.left_out.get()
    }

    /// Values kept so far.
    pub(super) fn spent(&self) -> usize {
        self.values - self.values_left.get()
    }
}
