//! Any bytes as an OTLP/JSON body, of traces and of logs.
#![no_main]

mod kept;

use libfuzzer_sys::fuzz_target;
use tailspan_core::{
    limits::Limits,
    otlp::{self, Encoding},
};

fuzz_target!(|body: &[u8]| {
    let limits = Limits::default();
    let _ = otlp::check_metrics(Encoding::Json, body);
    let logs = otlp::decode_logs(Encoding::Json, body, &limits);
    let traces = otlp::decode_traces(Encoding::Json, body, &limits);
    for decoded in [logs, traces].iter().flatten() {
        kept::assert_accounted(decoded);
    }
});
