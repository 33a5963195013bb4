//! Interim, until the mapping lands on this branch; on a conflict take the other file whole.
use crate::fold::State;
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    pub grace_ms: u64,
    pub stalled_ms: u64,
    pub lost_ms: u64,
}
impl Default for Patience {
    fn default() -> Self {
        Self {
            grace_ms: 1000,
            stalled_ms: 60_000,
            lost_ms: 900_000,
        }
    }
}
pub enum Verdict {
    Running { look_again_unix_ms: u64 },
    Stalled { look_again_unix_ms: u64 },
    Lost,
    Ended { status: &'static str },
}
pub fn decide(s: &State, _last: u64, now: u64, p: &Patience) -> Verdict {
    if s.ended {
        Verdict::Ended {
            status: "completed",
        }
    } else {
        Verdict::Running {
            look_again_unix_ms: now + p.stalled_ms,
        }
    }
}
