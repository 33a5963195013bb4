//! Any bytes as a frame of an agent under development: what is taken can be kept, and is written back as it came.
#![no_main]

mod kept;

use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use tailspan_core::{
    id::TraceId,
    live::{
        protocol::{Message, Reader},
        wire_form::{wire_log, wire_span},
    },
    observed::{Canonical, Sent},
};

fuzz_target!(|frame: &[u8]| {
    let Ok(Message::Item { item, .. }) = Reader::new(1).read(frame) else {
        return;
    };
    let sent: Value = serde_json::from_slice(frame).expect("it was read");
    let trace = TraceId::parse("run-1").expect("a valid id");
    let observation = item.observation();
    let written = wire_span(&trace, &observation).or_else(|| wire_log(&observation));
    let written: Value = serde_json::from_str(&written.expect("one of the two")).expect("JSON");
    assert!(written == sent["span"] || written == sent["log"], "{written}");
    if let Canonical::Span(span) = &item.what
        && let Some(json) = span.sent().map(Sent::as_str)
    {
        let shown: Value = serde_json::from_str(json).expect("JSON");
        assert!(shown == written && !json.contains(['\n', '\r']), "{json}");
    }
    kept::assert_stored_and_read_back(&[*item]);
});
