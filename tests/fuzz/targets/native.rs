//! Any bytes as a body of native events: what is taken is an object that any reader can parse.
#![no_main]

mod kept;

use libfuzzer_sys::fuzz_target;
use tailspan_core::{
    id::TraceId,
    limits::Limits,
    native::{self, Format, Sender},
    observed::Canonical,
};

fuzz_target!(|body: &[u8]| {
    let trace = TraceId::parse("run-1").expect("a valid id");
    let sender = Sender {
        idempotency_key: Some("key"),
        parent_span_id: Some("00f067aa0ba902b7"),
    };
    for format in [Format::Json, Format::Lines, Format::Unsaid] {
        let Ok(posted) = native::decode(&trace, body, format, sender, &Limits::default()) else {
            continue;
        };
        for incoming in &posted.events {
            let Canonical::Native(text) = &incoming.what else {
                panic!("a native event");
            };
            let event: serde_json::Value = serde_json::from_str(text).expect("readable");
            assert!(event["event_type"].is_string() && !event["parent_span_id"].is_null());
        }
        kept::assert_stored_and_read_back(&posted.events);
    }
});
