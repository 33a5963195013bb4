//! Stretches of time: in which buckets a call is counted, and which buckets a window reads.

/// The finest that is kept apart: five minutes, in milliseconds.
pub const SLOT_MS: u64 = 5 * 60 * 1000;
const SLOTS_OF_AN_HOUR: u64 = 12;
const HOUR_MS: u64 = SLOT_MS * SLOTS_OF_AN_HOUR;
const WEEK_MS: u64 = 7 * 24 * HOUR_MS;
/// How long the buckets of five minutes are kept: a day, and what its edges need.
const SLOTS_KEPT: u64 = 26 * SLOTS_OF_AN_HOUR;

/// Where calls are counted together, by when they ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Bucket {
    /// Five minutes, counted from 1970.
    Slot(u64),
    /// An hour, counted from 1970.
    Hour(u64),
    /// All there ever was.
    All,
}

impl Bucket {
    /// The three that count what ended in a slot.
    pub fn of_slot(slot: u64) -> [Self; 3] {
        [
            Self::Slot(slot),
            Self::Hour(slot / SLOTS_OF_AN_HOUR),
            Self::All,
        ]
    }

    /// As it stands in a key: `5m-<number>`, `1h-<number>`, `all`.
    pub fn name(self) -> String {
        match self {
            Self::Slot(number) => format!("5m-{number}"),
            Self::Hour(number) => format!("1h-{number}"),
            Self::All => "all".to_owned(),
        }
    }

    /// When it is not needed any more, in ms since 1970, where hours are kept for `retention_ms`, at least for a week. `None`: as long as something is added to it.
    pub fn kept_until_unix_ms(self, retention_ms: u64) -> Option<u64> {
        match self {
            Self::Slot(number) => Some(number.saturating_add(SLOTS_KEPT).saturating_mul(SLOT_MS)),
            // One more than the retention: a window reads the hour that it begins in.
            Self::Hour(number) => Some(
                number
                    .saturating_add(2)
                    .saturating_mul(HOUR_MS)
                    .saturating_add(retention_ms.max(WEEK_MS)),
            ),
            Self::All => None,
        }
    }
}

/// How far back statistics look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Window {
    FiveMinutes,
    #[default]
    Hour,
    Day,
    Week,
    All,
}

impl Window {
    pub const EVERY: [Self; 5] = [
        Self::FiveMinutes,
        Self::Hour,
        Self::Day,
        Self::Week,
        Self::All,
    ];

    /// The name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::FiveMinutes => "5m",
            Self::Hour => "1h",
            Self::Day => "24h",
            Self::Week => "7d",
            Self::All => "all",
        }
    }

    /// Since when calls count, in ms since 1970, and the buckets that have them, each call in one. The window begins where the bucket that it reaches into does: up to five minutes before its time, with [`Window::Week`]
    /// up to an hour. `None`: since ever.
    pub fn buckets(self, now_unix_ms: u64) -> (Option<u64>, Vec<Bucket>) {
        let (length_ms, by_hours_alone) = match self {
            Self::FiveMinutes => (SLOT_MS, false),
            Self::Hour => (HOUR_MS, false),
            Self::Day => (24 * HOUR_MS, false),
            Self::Week => (WEEK_MS, true),
            Self::All => return (None, vec![Bucket::All]),
        };
        let begin_ms = now_unix_ms.saturating_sub(length_ms);
        let (first, last) = match by_hours_alone {
            true => (
                begin_ms / HOUR_MS * SLOTS_OF_AN_HOUR,
                now_unix_ms / HOUR_MS * SLOTS_OF_AN_HOUR + SLOTS_OF_AN_HOUR,
            ),
            false => (begin_ms / SLOT_MS, now_unix_ms / SLOT_MS + 1),
        };
        let mut buckets = Vec::new();
        let mut slot = first;
        while slot < last {
            // Whole hours as such; so is the one that runs, of which nothing is later than now.
            let whole_hour = slot % SLOTS_OF_AN_HOUR == 0;
            if whole_hour {
                buckets.push(Bucket::Hour(slot / SLOTS_OF_AN_HOUR));
                slot += SLOTS_OF_AN_HOUR;
            } else {
                buckets.push(Bucket::Slot(slot));
                slot += 1;
            }
        }
        (Some(first * SLOT_MS), buckets)
    }
}

impl std::str::FromStr for Window {
    type Err = ();

    /// The name as [`Window::as_str`] writes it.
    fn from_str(text: &str) -> Result<Self, ()> {
        let mut every = Self::EVERY.into_iter();
        every.find(|one| one.as_str() == text).ok_or(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_call_of_the_window_is_in_one_of_its_buckets_and_an_older_one_in_none(
            now in 1_700_000_000_000u64..1_900_000_000_000,
            age in 0u64..9 * 24 * HOUR_MS,
            which in 0usize..4,
        ) {
            let window = Window::EVERY[which];
            let (from, buckets) = window.buckets(now);
            let from = from.unwrap();
            let ended = now - age;
            let of_call = Bucket::of_slot(ended / SLOT_MS);
            let counted = buckets.iter().filter(|bucket| of_call.contains(bucket)).count();
            prop_assert_eq!(counted, usize::from(ended >= from), "{} of {}", ended, from);
            let length = [SLOT_MS, HOUR_MS, 24 * HOUR_MS, 7 * 24 * HOUR_MS][which];
            let edge = if which == 3 { HOUR_MS } else { SLOT_MS };
            prop_assert!(from <= now - length && now - length - from < edge);
            // What a window reads is kept for as long as it is read.
            for bucket in &buckets {
                let kept = bucket.kept_until_unix_ms(0);
                prop_assert!(kept.is_none_or(|kept| kept > now));
            }
        }
    }
}
