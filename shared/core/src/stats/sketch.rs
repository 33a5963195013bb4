//! A histogram from which quantiles are told, small enough to be kept for every name and every five minutes.

use std::collections::BTreeMap;

/// Parts of a millisecond in which durations are sorted in; a power of two, so that whole milliseconds fall on the ends of buckets.
const UNITS_PER_MS: u64 = 1024;
/// Buckets per doubling, and the number of the first units that have one each.
const PER_DOUBLING: u64 = 8;
/// 2^32 ms, 49 days: what takes longer counts as this long, but for the longest, which is kept as it is.
const MOST_UNITS: u64 = 1 << 42;

/// Durations, sorted into buckets of which each ends at most an eighth above where it begins.
///
/// A quantile is told by the end of its bucket, so it is never low, and less than 12.5 % high; whole milliseconds up to 16 are exact, and so is the longest. There are 321 buckets, from
/// a microsecond to 49 days; those that hold nothing take no room. Two sketches add up to that of all their durations.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sketch {
    /// How many durations each bucket holds; none holds none.
    pub(super) counts: BTreeMap<u16, u64>,
    /// The longest, in whole microseconds, rounded up.
    pub(super) longest_us: u64,
}

impl Sketch {
    /// Counts one duration, in nanoseconds.
    pub fn record(&mut self, duration_ns: u64) {
        let count = self.counts.entry(bucket(duration_ns)).or_default();
        *count = count.saturating_add(1);
        self.longest_us = self.longest_us.max(duration_ns.div_ceil(1_000));
    }

    /// Adds all durations of another.
    pub fn merge(&mut self, other: &Self) {
        for (bucket, more) in &other.counts {
            let count = self.counts.entry(*bucket).or_default();
            *count = count.saturating_add(*more);
        }
        self.longest_us = self.longest_us.max(other.longest_us);
    }

    /// How many durations were recorded.
    pub fn count(&self) -> u64 {
        let mut counts = self.counts.values();
        counts
            .try_fold(0u64, |sum, count| sum.checked_add(*count))
            .unwrap_or(u64::MAX)
    }

    /// The longest duration, in milliseconds. `None`: nothing was recorded.
    pub fn longest_ms(&self) -> Option<f64> {
        (!self.counts.is_empty()).then_some(self.longest_us as f64 / 1e3)
    }

    /// The duration, in milliseconds, that a share `q` (0 to 1) of all did not exceed: of nearest rank, at most 12.5 % high and never low. `None`: nothing was recorded.
    pub fn quantile(&self, q: f64) -> Option<f64> {
        let count = self.count();
        // A product such as 0.99 * 100 lies a hair beside the whole number it stands for.
        let rank = (q.clamp(0.0, 1.0) * count as f64 - 1e-9 * count as f64)
            .ceil()
            .max(1.0);
        let mut seen = 0u64;
        let found = self.counts.iter().find(|(_, more)| {
            seen = seen.saturating_add(**more);
            seen as f64 >= rank
        });
        let (bucket, _) = found.or_else(|| self.counts.iter().next_back())?;
        let longest = self.longest_us as f64 / 1e3;
        // The last bucket has no end but the longest.
        Some(match *bucket >= bucket_of_units(MOST_UNITS) {
            true => longest,
            false => (end_units(*bucket) as f64 / UNITS_PER_MS as f64).min(longest),
        })
    }
}

fn bucket(duration_ns: u64) -> u16 {
    let units = (u128::from(duration_ns) * u128::from(UNITS_PER_MS)).div_ceil(1_000_000);
    bucket_of_units(u64::try_from(units).unwrap_or(u64::MAX))
}

/// The bucket whose end is the first not below `units`.
fn bucket_of_units(units: u64) -> u16 {
    let units = units.min(MOST_UNITS);
    let number = match units <= PER_DOUBLING {
        true => units,
        false => {
            // Ends belong to the bucket below them.
            let below = units - 1;
            let doublings = u64::from(below.ilog2() - PER_DOUBLING.ilog2());
            let step = (below >> doublings) - PER_DOUBLING;
            PER_DOUBLING + doublings * PER_DOUBLING + step + 1
        }
    };
    u16::try_from(number).unwrap_or(u16::MAX)
}

fn end_units(bucket: u16) -> u64 {
    let number = u64::from(bucket);
    match number.checked_sub(PER_DOUBLING + 1) {
        None => number,
        Some(above) => (above % PER_DOUBLING + PER_DOUBLING + 1)
            .checked_shl(u32::try_from(above / PER_DOUBLING).unwrap_or(u32::MAX))
            .map_or(MOST_UNITS, |units| units.min(MOST_UNITS)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sketch(durations_ns: &[u64]) -> Sketch {
        let mut sketch = Sketch::default();
        durations_ns.iter().for_each(|ns| sketch.record(*ns));
        sketch
    }

    /// Nearest rank over the sorted durations, in ms.
    fn exact(durations_ns: &mut [u64], percent: usize) -> f64 {
        durations_ns.sort_unstable();
        let rank = (percent * durations_ns.len()).div_ceil(100).max(1);
        durations_ns[rank - 1] as f64 / 1e6
    }

    #[test]
    fn buckets_follow_one_another_without_a_hole() {
        let last = bucket_of_units(MOST_UNITS);
        assert_eq!(last, 320);
        for bucket in 1..=last {
            assert_eq!(bucket_of_units(end_units(bucket)), bucket);
            assert_eq!(bucket_of_units(end_units(bucket - 1) + 1), bucket);
        }
    }

    #[test]
    fn whole_milliseconds_up_to_16_are_exact() {
        for ms in 0..=16u64 {
            let mut sketch = sketch(&[ms * 1_000_000]);
            sketch.record(86_400_000_000_000);
            assert_eq!(sketch.quantile(0.5), Some(ms as f64));
        }
    }

    #[test]
    fn nothing_has_no_quantile_and_years_are_told() {
        assert_eq!(Sketch::default().quantile(0.5), None);
        let years = sketch(&[1_000_000, u64::MAX]);
        assert_eq!(years.quantile(1.0), years.longest_ms());
        assert_eq!((years.quantile(0.5), years.count()), (Some(1.0), 2));
    }

    #[test]
    fn p99_of_100_000_durations_is_never_low_and_within_an_eighth() {
        // A long tail, as durations of model calls have: a product of numbers that look random.
        let mut all: Vec<u64> = (0..100_000u64)
            .map(|n| {
                let random = |salt: u64| xxhash_rust::xxh3::xxh3_64(&(n + salt).to_le_bytes());
                1_000 * (1 + random(0) % 30_000) * (1 + random(1 << 40) % 400)
            })
            .collect();
        let sketch = sketch(&all);
        for percent in [1, 50, 90, 95, 99, 100] {
            let exact = exact(&mut all, percent);
            let told = sketch.quantile(percent as f64 / 100.0).unwrap();
            assert!(
                told >= exact && told <= exact * 1.125,
                "p{percent}: {told} for {exact}"
            );
        }
    }

    proptest! {
        #[test]
        fn quantiles_are_never_low_and_within_an_eighth(
            mut all in proptest::collection::vec(1_000u64..1_000_000_000_000_000, 1..400),
            split in 0usize..400,
            percent in 0usize..=100,
        ) {
            let (one, other) = all.split_at(split.min(all.len()));
            let mut merged = sketch(one);
            merged.merge(&sketch(other));
            prop_assert_eq!(&merged, &sketch(&all));
            let exact = exact(&mut all, percent);
            let told = merged.quantile(percent as f64 / 100.0).unwrap();
            // What is below a microsecond is rounded up to one, of the unit and of the longest.
            prop_assert!(told >= exact && told <= exact * 1.125 + 0.001, "{} for {}", told, exact);
        }
    }
}
