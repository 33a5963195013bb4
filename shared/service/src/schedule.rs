//! Functions of the cloud: until when they may work.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Left to answer in, before the platform ends the invocation.
const RESERVE: Duration = Duration::from_secs(2);
/// Left to a stream: it waits up to three seconds for the `end` of a run that is being settled, and what it says last has to get out.
const STREAM_RESERVE: Duration = Duration::from_secs(6);
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

/// As [`stop_at`], for an answer that is streamed. `None`: the deadline is none, and the stream's own time counts.
pub fn stream_until(deadline_unix_ms: u64) -> Option<tokio::time::Instant> {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let left = Duration::from_millis(deadline_unix_ms).checked_sub(now)?;
    let left = left.saturating_sub(STREAM_RESERVE).min(LONGEST);
    Some(tokio::time::Instant::now() + left)
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
