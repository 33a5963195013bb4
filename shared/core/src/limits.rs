//! How much of a stranger's request is looked at.
//!
//! Every bound is on something that a small body can make large: compressed bytes, two-byte list items, nesting.

/// The bounds of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a body after decompression; beyond: refused with 413.
    pub body_bytes: usize,
    /// Spans or log records of one OTLP request; the items beyond are rejected one by one (`too_many_items`).
    pub items: usize,
    /// Attributes of one span, span event, link, log record, scope or resource, and span events or links of one span.
    /// Those beyond are left out and counted in the span's own `dropped_*_count`, as an SDK with such a limit does.
    pub list: usize,
    /// Attributes and array elements of all items of one OTLP request together, because two bytes of a body can become 64
    /// in memory. An attribute that does not fit any more is left out and counted as dropped.
    pub values: usize,
    /// How deep an attribute's value may nest arrays and maps; a deeper attribute is left out and counted as dropped.
    pub value_depth: usize,
    /// Bytes of resource and scope that a request's scopes may hold together (each scope carries its resource): the
    /// items of the scopes beyond are rejected (`too_many_scopes`).
    pub context_bytes: usize,
    /// Native events of one request; beyond: refused with 413.
    pub native_events: usize,
    /// Bytes of one native event; a larger one is rejected.
    pub native_event_bytes: usize,
    /// How deep a native event may nest; a deeper one is rejected.
    pub native_depth: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body_bytes: 16 << 20,
            items: 65_536,
            list: 4_096,
            values: 1_000_000,
            // Each map costs JSON four levels, and serde_json reads 128.
            value_depth: 24,
            context_bytes: 32 << 20,
            native_events: 10_000,
            native_event_bytes: 1 << 20,
            native_depth: 64,
        }
    }
}
