//! A map of bounded size that does not tell in which order it was filled.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Items and bytes (as JSON) of one map. A trace of 50,000 ordinary spans fits, and so do some thousand model calls whose every text is as long as is kept.
const MOST: Most = Most {
    items: 50_000,
    bytes: 64 << 20,
};

#[derive(Clone, Copy, Debug)]
struct Most {
    items: usize,
    bytes: usize,
}

/// The first items by key, as many as there is room for.
///
/// Any order of the same additions leaves the same map: an item weighs as much as the heaviest of its versions, and once something had to go, nothing
/// comes in at its key or beyond.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Kept<T> {
    items: BTreeMap<String, (T, usize)>,
    bytes: usize,
    /// The least key that had to go.
    end: Option<String>,
}

impl<T> Default for Kept<T> {
    fn default() -> Self {
        Self {
            items: BTreeMap::new(),
            bytes: 0,
            end: None,
        }
    }
}

impl<T> Kept<T> {
    /// In the order of their keys.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&String, &T)> {
        self.items.iter().map(|(key, (item, _))| (key, item))
    }

    pub(crate) fn values(&self) -> impl DoubleEndedIterator<Item = &T> {
        self.items.values().map(|(item, _)| item)
    }

    pub(crate) fn len(&self) -> usize {
        self.items.len()
    }

    /// Something had to go.
    /// Weight of what is kept.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn is_truncated(&self) -> bool {
        self.end.is_some()
    }
}

impl<T: Clone> Kept<T> {
    /// Takes in what another has and this has not, as far as there is room.
    pub(crate) fn absorb(&mut self, other: &Self) {
        for (key, (item, weight)) in &other.items {
            let has_room = self.items.len() < MOST.items && self.bytes + weight <= MOST.bytes;
            if has_room && !self.items.contains_key(key) {
                self.items.insert(key.clone(), (item.clone(), *weight));
                self.bytes += weight;
            }
        }
    }

    pub(crate) fn contains(&self, key: &str) -> bool {
        self.items.contains_key(key)
    }
}

impl<T: Serialize> Kept<T> {
    /// Adds an item; of two under one key the one with the greater `version` stays.
    pub(crate) fn add<V: Ord>(&mut self, key: String, item: T, version: impl Fn(&T) -> V) {
        self.add_within(MOST, key, item, version);
    }

    fn add_within<V: Ord>(&mut self, most: Most, key: String, item: T, version: impl Fn(&T) -> V) {
        if self.end.as_ref().is_some_and(|end| key >= *end) {
            return;
        }
        let weight = key.len() + json_bytes(&item);
        match self.items.get_mut(&key) {
            Some((known, known_weight)) => {
                if version(&item) > version(known) {
                    *known = item;
                }
                self.bytes += weight.saturating_sub(*known_weight);
                *known_weight = weight.max(*known_weight);
            }
            None => {
                self.bytes += weight;
                self.items.insert(key, (item, weight));
            }
        }
        while (self.items.len() > most.items || self.bytes > most.bytes)
            && let Some((key, (_, weight))) = self.items.pop_last()
        {
            self.bytes -= weight;
            self.end = Some(key);
        }
    }
}

/// How long the JSON of a value would be.
fn json_bytes(value: &impl Serialize) -> usize {
    struct Counter(usize);
    impl std::io::Write for Counter {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut counter = Counter(0);
    // Counting does not fail, and facts have text keys only.
    let _ = serde_json::to_writer(&mut counter, value);
    counter.0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn filled(items: &[(String, (u32, String))]) -> Kept<(u32, String)> {
        let most = Most {
            items: 6,
            bytes: 120,
        };
        let mut kept = Kept::default();
        for (key, item) in items {
            kept.add_within(most, key.clone(), item.clone(), Clone::clone);
            assert!(kept.len() <= most.items && kept.bytes <= most.bytes);
        }
        kept
    }

    proptest! {
        #[test]
        fn any_order_leaves_the_same_and_never_more_than_there_is_room_for(
            (items, shuffled) in proptest::collection::vec(("[a-j]", (0u32..3, "x{0,30}")), 0..24)
                .prop_flat_map(|items| (Just(items.clone()), Just(items).prop_shuffle())),
        ) {
            prop_assert_eq!(filled(&items), filled(&shuffled));
        }
    }

    #[test]
    fn what_weighs_nothing_much_is_all_kept() {
        let item = |key: &str| (key.to_owned(), (0, String::new()));
        let kept = filled(&[item("b"), item("a"), item("b")]);
        assert_eq!((kept.len(), kept.is_truncated()), (2, false));
    }
}
