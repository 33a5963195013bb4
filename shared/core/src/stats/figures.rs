//! What is counted of one name, and how it is written.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

use super::Sketch;

/// How often, how long and how much. Everything adds up.
///
/// In a bucket it is JSON, `[slot, calls, errors, input tokens, output tokens, nano-dollars, priced calls, unpriced calls, microseconds, longest in microseconds, {bucket: count}]`, with the
/// latest five minutes that something ended in as the slot: the script that adds what a run contributed goes by place.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Steps that ended.
    pub calls: u64,
    /// Of those, the ones that failed.
    pub errors: u64,
    pub input_tokens: u64,
    pub output_tokens: u64,
    /// Billionths of a US dollar, over the model calls whose cost is known.
    pub cost_nano_usd: u64,
    /// Model calls whose cost is known, and those whose cost is not.
    pub priced_calls: u64,
    pub unpriced_calls: u64,
    /// Of all calls together, in microseconds.
    pub total_us: u64,
    pub durations: Sketch,
}

/// Sums; before them stands the slot, behind them the longest, which is none, and the histogram.
const SUMS: usize = 8;

impl Figures {
    /// Counts a step that ended.
    pub fn record(&mut self, duration_ns: u64, failed: bool) {
        self.calls = self.calls.saturating_add(1);
        self.errors = self.errors.saturating_add(u64::from(failed));
        self.total_us = self.total_us.saturating_add(duration_ns / 1_000);
        self.durations.record(duration_ns);
    }

    /// Adds all of another.
    pub fn merge(&mut self, other: &Self) {
        let mut numbers = self.numbers();
        for (number, more) in numbers.iter_mut().zip(other.numbers()) {
            *number = number.saturating_add(more);
        }
        self.set_numbers(numbers);
        self.durations.merge(&other.durations);
    }

    /// The mean duration in milliseconds.
    pub fn mean_ms(&self) -> Option<f64> {
        (self.calls > 0).then(|| self.total_us as f64 / self.calls as f64 / 1e3)
    }

    /// In US dollars; `None`: of no call is the cost known.
    pub fn cost_usd(&self) -> Option<f64> {
        (self.priced_calls > 0).then_some(self.cost_nano_usd as f64 / 1e9)
    }

    /// What has to be added to `old` to make it this, as JSON of the form above with signs; slot and longest as they are now. `None`: nothing.
    pub(super) fn change_from(&self, old: &Self, slot: u64) -> Option<String> {
        if self == old {
            return None;
        }
        let difference = |new: u64, old: u64| i128::from(new) - i128::from(old);
        let mut text = format!("[{slot},");
        for (new, old) in self.numbers().into_iter().zip(old.numbers()) {
            text += &format!("{},", difference(new, old));
        }
        text += &format!("{},{{", self.durations.longest_us);
        let (new, old) = (&self.durations.counts, &old.durations.counts);
        let mut buckets: Vec<u16> = new.keys().chain(old.keys()).copied().collect();
        buckets.sort_unstable();
        buckets.dedup();
        let of = |counts: &std::collections::BTreeMap<u16, u64>, bucket| {
            counts.get(bucket).copied().unwrap_or_default()
        };
        let changes = buckets.iter().filter_map(|bucket| {
            let change = difference(of(new, bucket), of(old, bucket));
            (change != 0).then(|| format!("\"{bucket}\":{change}"))
        });
        text += &changes.collect::<Vec<_>>().join(",");
        Some(text + "}]")
    }

    fn numbers(&self) -> [u64; SUMS] {
        [
            self.calls,
            self.errors,
            self.input_tokens,
            self.output_tokens,
            self.cost_nano_usd,
            self.priced_calls,
            self.unpriced_calls,
            self.total_us,
        ]
    }

    fn set_numbers(&mut self, numbers: [u64; SUMS]) {
        [
            self.calls,
            self.errors,
            self.input_tokens,
            self.output_tokens,
            self.cost_nano_usd,
            self.priced_calls,
            self.unpriced_calls,
            self.total_us,
        ] = numbers;
    }
}

impl Serialize for Figures {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (
            self.numbers(),
            self.durations.longest_us,
            &self.durations.counts,
        )
            .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Figures {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (numbers, longest_us, counts) = Deserialize::deserialize(deserializer)?;
        let mut figures = Self::default();
        figures.set_numbers(numbers);
        figures.durations = Sketch { counts, longest_us };
        Ok(figures)
    }
}

impl Figures {
    /// Reads what the script wrote. Its numbers are those of Lua: from 10^14 on with an exponent and 14 digits.
    ///
    /// # Errors
    /// The text is no such list.
    pub fn parse(text: &[u8]) -> Result<Self, serde_json::Error> {
        let fields: Vec<&RawValue> = serde_json::from_slice(text)?;
        let number = |at: usize| -> Result<u64, serde_json::Error> {
            let text = fields.get(at).map(|field| field.get());
            text.and_then(whole)
                .ok_or_else(|| serde_json::Error::custom(format!("field {at} is no number")))
        };
        let mut numbers = [0; SUMS];
        for (at, slot) in numbers.iter_mut().enumerate() {
            *slot = number(at + 1)?;
        }
        let mut figures = Self::default();
        figures.set_numbers(numbers);
        figures.durations.longest_us = number(SUMS + 1)?;
        let counts = fields.get(SUMS + 2).map_or("{}", |counts| counts.get());
        let counts: std::collections::BTreeMap<u16, f64> = serde_json::from_str(counts)?;
        figures.durations.counts = counts
            .into_iter()
            .map(|(bucket, count)| (bucket, count as u64))
            .filter(|(_, count)| *count > 0)
            .collect();
        Ok(figures)
    }
}

/// A number that is not negative; what is beyond the fraction goes.
fn whole(text: &str) -> Option<u64> {
    text.parse()
        .ok()
        .or_else(|| text.parse::<f64>().ok().map(|number| number as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_read_as_lua_writes_them() {
        let figures =
            Figures::parse(br#"[7,3,1,1e+15,20,0,0,2,123456,99999,{"7":2,"31":1,"40":0}]"#);
        let figures = figures.unwrap();
        assert_eq!((figures.calls, figures.errors), (3, 1));
        assert_eq!(figures.input_tokens, 1_000_000_000_000_000);
        assert_eq!(figures.durations.count(), 3);
        assert_eq!((figures.cost_usd(), figures.unpriced_calls), (None, 2));
        assert!(Figures::parse(b"[1]").is_err() && Figures::parse(b"").is_err());
    }

    #[test]
    fn a_change_says_only_what_differs() {
        let mut old = Figures::default();
        old.record(5_000_000, true);
        let mut new = old.clone();
        new.record(7_000_000, false);
        new.input_tokens = 9;
        assert_eq!(old.change_from(&old, 5), None);
        let change = new.change_from(&old, 5).unwrap();
        assert!(
            change.starts_with("[5,1,0,9,0,0,0,0,7000,7000,{\""),
            "{change}"
        );
        assert!(change.ends_with("\":1}]"), "{change}");
        let back = old.change_from(&new, 5).unwrap();
        assert!(
            back.starts_with("[5,-1,0,-9,0,0,0,0,-7000,5000,{"),
            "{back}"
        );
    }
}
