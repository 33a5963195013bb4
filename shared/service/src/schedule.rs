//! Functions that a schedule wakes: until when they may work.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Left to answer in, before the platform ends the invocation.
const RESERVE: Duration = Duration::from_secs(2);
/// Without a deadline: the next schedule comes soon.
const WITHOUT_DEADLINE: Duration = Duration::from_secs(50);
/// The longest that an invocation may last (AWS Lambda quotas, "Function timeout").
const LONGEST: Duration = Duration::from_secs(15 * 60);

/// When to stop: a little before the invocation's deadline (milliseconds since 1970). An emulator's lies in 1970 and is none.
pub fn stop_at(deadline_unix_ms: u64) -> Instant {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Instant::now() + left(Duration::from_millis(deadline_unix_ms), now)
}

fn left(deadline: Duration, now: Duration) -> Duration {
    match deadline.checked_sub(now) {
        Some(left) => left.saturating_sub(RESERVE).min(LONGEST),
        None => WITHOUT_DEADLINE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_stops_before_the_deadline() {
        let now = Duration::from_secs(1_800_000_000);
        let after = |seconds| left(now + Duration::from_secs(seconds), now).as_secs();
        assert_eq!((after(60), after(1), after(100_000)), (58, 0, 900));
        assert_eq!(left(Duration::from_secs(50), now), WITHOUT_DEADLINE);
    }
}
