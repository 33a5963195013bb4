//! What a process remembers of a tenant's bucket: until when it is empty, and events that it took beyond what it needed.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use tokio::{sync::Mutex, time::Instant};

use super::Standing;

/// How long events that were taken in advance may be used; then they are given back with the next question.
const LEASE_TIME: Duration = Duration::from_millis(100);

/// Of one tenant.
#[derive(Debug)]
pub(super) struct Known {
    began: Instant,
    /// Microseconds from `began` until the bucket has an event again. Read without waiting for who is asking.
    empty_until_us: AtomicU64,
    pub(super) held: Mutex<Held>,
}

/// Events taken in advance.
#[derive(Debug)]
pub(super) struct Held {
    events: u64,
    until: Instant,
    /// What was left for all when the store was last asked.
    left: u64,
}

/// What is known without asking.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Look {
    Taken(Standing),
    Empty(Duration),
    Ask,
}

impl Known {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            began: now,
            empty_until_us: AtomicU64::new(0),
            held: Mutex::new(Held {
                events: 0,
                until: now,
                left: 0,
            }),
        }
    }

    /// How long there is nothing in the bucket yet. `None`: there may be something.
    pub(super) fn empty_for(&self, now: Instant) -> Option<Duration> {
        let until = Duration::from_micros(self.empty_until_us.load(Ordering::Relaxed));
        let wait = until.saturating_sub(now.saturating_duration_since(self.began));
        (!wait.is_zero()).then_some(wait)
    }

    pub(super) fn look(&self, held: &mut Held, events: u64, now: Instant) -> Look {
        if now < held.until && events <= held.events {
            held.events -= events;
            return Look::Taken(Standing {
                left: held.left + held.events,
                wait: Duration::ZERO,
            });
        }
        match self.empty_for(now) {
            Some(wait) => Look::Empty(wait),
            None => Look::Ask,
        }
    }

    /// What the store said, a moment ago.
    pub(super) fn learn(
        &self,
        held: &mut Held,
        leased: u64,
        left: u64,
        wait: Duration,
        now: Instant,
    ) {
        held.events = leased;
        held.until = now + LEASE_TIME;
        held.left = left;
        let until = now.saturating_duration_since(self.began) + wait;
        let until_us = match wait {
            Duration::ZERO => 0,
            _ => u64::try_from(until.as_micros()).unwrap_or(u64::MAX),
        };
        self.empty_until_us.store(until_us, Ordering::Relaxed);
    }
}

impl Held {
    /// Whoever asks next has these no longer, also when the answer is lost: rather too few than too many.
    pub(super) fn give_back(&mut self) -> u64 {
        std::mem::take(&mut self.events)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_was_told_is_remembered_for_its_time() {
        let now = Instant::now();
        let known = Known::new(now);
        let mut held = known.held.lock().await;
        assert_eq!(known.look(&mut held, 1, now), Look::Ask);

        let wait = Duration::from_millis(300);
        known.learn(&mut held, 0, 0, wait, now);
        assert_eq!(known.look(&mut held, 1, now), Look::Empty(wait));
        assert_eq!(known.empty_for(now + wait / 3), Some(wait - wait / 3));
        assert_eq!(known.look(&mut held, 1, now + wait), Look::Ask);

        known.learn(&mut held, 10, 30, Duration::ZERO, now);
        let taken = |left| {
            Look::Taken(Standing {
                left,
                wait: Duration::ZERO,
            })
        };
        assert_eq!(known.look(&mut held, 4, now), taken(36));
        assert_eq!(known.look(&mut held, 7, now), Look::Ask);
        assert_eq!(known.look(&mut held, 6, now), taken(30));
        known.learn(&mut held, 10, 0, Duration::ZERO, now);
        assert_eq!(known.look(&mut held, 1, now + LEASE_TIME), Look::Ask);
        assert_eq!((held.give_back(), held.give_back()), (10, 0));
    }
}
