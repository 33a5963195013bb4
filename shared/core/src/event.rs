//! Interim, until the mapping lands on this branch; on a conflict take the other file whole.
use crate::{id::TraceId, observed::*};
pub fn view(trace: &TraceId, recorded: &Recorded) -> serde_json::Value {
    let mut v = match &recorded.observation.what {
        What::Native(json) => serde_json::from_str(json).unwrap_or_default(),
        _ => serde_json::json!({}),
    };
    v["seq"] = recorded.seq.into();
    v["trace_id"] = trace.as_str().into();
    v
}
