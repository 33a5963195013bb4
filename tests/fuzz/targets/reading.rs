//! Whatever was let in, every reader can read: events, fold (in both directions the same), snapshot, summary, invocations, tree,
//! settlement.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tailspan_core::{
    event, fold,
    fold::State,
    id::TraceId,
    invocations,
    limits::Limits,
    native::{self, Format, Sender},
    observed::{Incoming, Recorded},
    otlp::{self, Encoding},
    pricing::Prices,
    settle::{self, Patience},
    summary, tree,
};

const ARRIVED_UNIX_MS: u64 = 1_795_208_185_000;

fuzz_target!(|input: &[u8]| {
    let Some((choice, body)) = input.split_first() else {
        return;
    };
    let limits = Limits::default();
    let encoding = match choice % 2 {
        0 => Encoding::Json,
        _ => Encoding::Protobuf,
    };
    let decoded = match choice % 5 {
        0 | 1 => otlp::decode_traces(encoding, body, &limits),
        2 | 3 => otlp::decode_logs(encoding, body, &limits),
        _ => {
            let trace = TraceId::parse("run-1").expect("a valid id");
            let posted = native::decode(&trace, body, Format::Unsaid, Sender::default(), &limits);
            if let Ok(posted) = posted {
                read(&trace, posted.events);
            }
            return;
        }
    };
    for (trace, incoming) in decoded.into_iter().flat_map(|decoded| decoded.traces) {
        read(&trace, incoming);
    }
});

fn read(trace: &TraceId, incoming: Vec<Incoming>) {
    let recorded: Vec<_> = (1..)
        .zip(incoming)
        .map(|(seq, incoming)| Recorded {
            seq,
            arrived_unix_ms: ARRIVED_UNIX_MS + seq,
            observation: incoming.observation(),
        })
        .collect();
    let (mut state, mut reversed) = (State::default(), State::default());
    for event in &recorded {
        let seen = event::view_with_attributes(trace, event);
        let json = serde_json::to_string(&seen).expect("an event is JSON");
        assert!(!json.contains('\n'), "an SSE frame is one line");
        state.apply(event);
    }
    for event in recorded.iter().rev() {
        reversed.apply(event);
    }
    assert!(state == reversed, "the fold depends on the order");
    let seq = recorded.len() as u64;
    let (read, through) = fold::decode_snapshot(&fold::encode_snapshot(&state, seq)).expect("readable");
    assert!(read == state && through == seq, "the snapshot is another state");
    let verdict = settle::decide(&state, ARRIVED_UNIX_MS, ARRIVED_UNIX_MS + 5_000, &Patience::default());
    let prices = Prices::builtin();
    let summary = summary::summary(&state, trace.as_str(), verdict.status(), &prices);
    serde_json::to_string(&summary).expect("a summary is JSON");
    serde_json::to_string(&invocations::invocations(&state)).expect("invocations are JSON");
    let _ = tree::rows(&state, &prices);
}
