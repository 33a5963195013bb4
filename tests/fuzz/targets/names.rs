//! Cursors, ids and trace contexts out of any text: what is accepted is printed as it is read.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tailspan_core::{
    cursor::Cursor,
    id::{TenantId, TraceId},
    otlp::Encoding,
    propagation::TraceParent,
};

fuzz_target!(|text: &str| {
    if let Ok(cursor) = text.parse::<Cursor>() {
        assert_eq!(cursor.to_string().parse(), Ok(cursor));
    }
    if let Ok(trace) = TraceId::parse(text) {
        assert_eq!(TraceId::parse(trace.as_str()), Ok(trace));
    }
    if let Ok(tenant) = TenantId::parse(text) {
        assert_eq!(tenant.as_str(), text);
    }
    if let Some(parent) = TraceParent::parse(text) {
        assert_eq!(TraceParent::parse(&parent.to_string()), Some(parent));
    }
    let _ = Encoding::of(Some(text), b"");
});
