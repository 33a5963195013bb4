//! Interim, until the mapping lands on this branch; on a conflict take the other file whole.
use crate::observed::*;
#[derive(Default, Clone)]
pub struct State {
    pub n: u64,
    pub ended: bool,
}
impl State {
    pub fn apply(&mut self, r: &Recorded) {
        self.n += 1;
        if let What::Native(j) = &r.observation.what {
            if j.contains("workflow_completed") {
                self.ended = true
            }
        }
    }
}
pub fn encode_snapshot(s: &State, through: u64) -> Vec<u8> {
    format!("{} {} {through}", s.n, s.ended).into_bytes()
}
pub fn decode_snapshot(b: &[u8]) -> Option<(State, u64)> {
    let t = std::str::from_utf8(b).ok()?;
    let mut p = t.split(' ');
    Some((
        State {
            n: p.next()?.parse().ok()?,
            ended: p.next()? == "true",
        },
        p.next()?.parse().ok()?,
    ))
}
