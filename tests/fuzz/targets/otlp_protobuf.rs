//! Any bytes as an OTLP/protobuf body; and, differently from the product's decoder, by a generated one: what prost can read of a
//! good span must not be refused.
#![no_main]

mod kept;

use libfuzzer_sys::fuzz_target;
use prost::Message;
use tailspan_core::{
    limits::Limits,
    otlp::{self, Encoding},
    wire,
};

fuzz_target!(|body: &[u8]| {
    let limits = Limits::default();
    let _ = otlp::check_metrics(Encoding::Protobuf, body);
    let logs = otlp::decode_logs(Encoding::Protobuf, body, &limits);
    let traces = otlp::decode_traces(Encoding::Protobuf, body, &limits);
    assert_eq!(logs.is_ok(), traces.is_ok(), "both are the same envelope");
    for decoded in [&logs, &traces].into_iter().flatten() {
        kept::assert_accounted(decoded);
    }
    // The whole input as one span.
    if let Ok(span) = wire::Span::decode(body)
        && span.trace_id.len() == 16
        && span.trace_id.iter().any(|byte| *byte != 0)
    {
        let request = wire::ExportRequest {
            resources: vec![wire::ResourceItems {
                scopes: vec![wire::ScopeItems {
                    items: vec![body.to_vec().into()],
                    ..Default::default()
                }],
                ..Default::default()
            }],
        };
        let decoded = otlp::decode_traces(Encoding::Protobuf, &request.encode_to_vec(), &limits)
            .expect("a whole envelope");
        assert_eq!(decoded.accepted + decoded.rejected_count(), 1);
        // With a field of no meaning it is read field by field, and not taken over as it is.
        let mut slow = request;
        slow.resources[0].scopes[0].items[0] = [body, b"\xf8\x7f\x01"].concat().into();
        let slow = otlp::decode_traces(Encoding::Protobuf, &slow.encode_to_vec(), &limits)
            .expect("a whole envelope");
        assert_eq!(decoded.traces, slow.traces);
        // Groups, which proto3 does not have, are the one thing prost skips and we do not read.
        if let [rejected] = &decoded.rejected[..] {
            assert!(
                rejected.reason.starts_with("invalid_") || rejected.reason == "malformed",
                "{rejected:?}"
            );
        }
    }
});
