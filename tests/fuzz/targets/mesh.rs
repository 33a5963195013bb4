//! Any fields as an entry of a mesh's stream: what is taken is stored and read back, and its step takes no negative time.
#![no_main]

mod kept;

use libfuzzer_sys::fuzz_target;
use tailspan_core::{
    convention::read_span,
    limits::Limits,
    mesh::Decoder,
    observed::{Observation, What},
};

/// Names that mean something, by a byte: a fuzzer seldom guesses them.
const NAMES: &[&str] = &[
    "trace_id",
    "span_id",
    "parent_span",
    "function_name",
    "start_time",
    "end_time",
    "timestamp",
    "duration_ms",
    "published_at",
    "success",
    "error",
    "event_type",
    "status_code",
    "agent_name",
    "agent_ip",
    "llm_model",
    "llm_input_tokens",
    "llm_total_tokens",
    "dependencies",
];

fuzz_target!(|entry: &[u8]| {
    // Fields are separated by 0: a byte for the name (or the name itself, up to "="), then the value.
    let mut fields: Vec<_> = entry
        .split(|byte| *byte == 0)
        .map(|field| match field {
            [name, value @ ..] if usize::from(*name) < NAMES.len() => {
                (NAMES[usize::from(*name)].into(), value.to_vec().into())
            }
            other => {
                let at = other.iter().position(|byte| *byte == b'=');
                let (name, value) = other.split_at(at.unwrap_or(other.len()));
                (name.to_vec().into(), value.to_vec().into())
            }
        })
        .collect();
    fields.push(("trace_id".into(), "run-1".into()));
    let limits = Limits::default();
    let id = String::from_utf8_lossy(entry.get(..20).unwrap_or(entry));
    let mut decoder = Decoder::new("mesh:trace", &limits);
    let Ok((trace, incoming)) = decoder.decode(&id, &fields) else {
        return;
    };
    assert_eq!(trace.as_str(), "run-1");
    let Observation { context, what } = incoming.observation();
    if let What::Span(span) = what {
        let read = read_span(&span, &context);
        assert!(read.end_ns.is_none_or(|end| end >= read.start_ns));
        assert_eq!(read.id.len(), 16);
    }
    kept::assert_stored_and_read_back(&[incoming]);
});
