//! How often each name came, of names that strangers choose.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Names that are counted apart.
const MOST_NAMES: usize = 1_000;
/// What the count of the rest is called.
const OTHERS: &str = "(others)";

/// Counts by name, the first names in their order as far as there is room; the others are counted together.
///
/// Any order of the same additions leaves the same: a name at or beyond the least that had to go is never counted apart again.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Counted {
    by_name: BTreeMap<String, u64>,
    #[serde(default)]
    others: u64,
    /// The least name that had to go.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    end: Option<String>,
}

impl Counted {
    pub(crate) fn add(&mut self, name: &str) {
        self.add_within(MOST_NAMES, name);
    }

    fn add_within(&mut self, most: usize, name: &str) {
        if self.end.as_deref().is_some_and(|end| name >= end) {
            self.others = self.others.saturating_add(1);
            return;
        }
        match self.by_name.get_mut(name) {
            Some(count) => *count = count.saturating_add(1),
            None => {
                self.by_name.insert(name.to_owned(), 1);
            }
        }
        while self.by_name.len() > most
            && let Some((name, count)) = self.by_name.pop_last()
        {
            self.others = self.others.saturating_add(count);
            self.end = Some(name);
        }
    }

    /// Every name's count; those without room for their name as `(others)`.
    pub(crate) fn counts(&self) -> BTreeMap<String, u64> {
        let mut counts = self.by_name.clone();
        if self.others > 0 {
            let others = counts.entry(OTHERS.to_owned()).or_default();
            *others = others.saturating_add(self.others);
        }
        counts
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn counted(names: &[String]) -> Counted {
        let mut counted = Counted::default();
        names.iter().for_each(|name| counted.add_within(4, name));
        counted
    }

    proptest! {
        #[test]
        fn any_order_counts_the_same_and_every_one_once(
            (names, shuffled) in proptest::collection::vec("[a-h]", 0..40)
                .prop_flat_map(|names| (Just(names.clone()), Just(names).prop_shuffle())),
        ) {
            let counted_once = counted(&names);
            prop_assert_eq!(&counted_once, &counted(&shuffled));
            prop_assert!(counted_once.by_name.len() <= 4);
            prop_assert_eq!(counted_once.counts().values().sum::<u64>(), names.len() as u64);
        }
    }
}
