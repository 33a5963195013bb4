//! What every decoder of this product owes: whatever it lets in, the log can keep and give back.

use std::collections::HashMap;

use tailspan_core::{
    chunk,
    observed::{Canonical, Incoming, Observation, What},
    otlp::Decoded,
};

/// Stores the observations and reads them back.
pub fn assert_stored_and_read_back(incoming: &[Incoming]) {
    let encoded = chunk::encode(incoming.iter().map(|incoming| (&incoming.context, &incoming.what)));
    let pieces: HashMap<_, _> = encoded
        .pieces
        .into_iter()
        .map(|(id, piece)| (id, piece.into()))
        .collect();
    let block = chunk::decode(&encoded.block).expect("the log reads what it wrote");
    let (read, lost) = block.resolve(&pieces);
    assert_eq!(lost, 0);
    assert_eq!(read.len(), incoming.len());
    for (read, sent) in read.iter().zip(incoming) {
        assert_eq!(text(read), text(&sent.observation()));
        assert_eq!(Canonical::from(&read.what), sent.what, "canonical bytes are what writing makes");
    }
}

/// By text, because NaN is not equal to itself.
fn text(observation: &Observation) -> String {
    match &observation.what {
        What::Native(text) => text.to_string(),
        what => format!("{what:?}"),
    }
}

#[allow(dead_code, reason = "not every target has OTLP")]
pub fn assert_accounted(decoded: &Decoded) {
    let kept: usize = decoded.traces.iter().map(|(_, incoming)| incoming.len()).sum();
    assert_eq!(kept as u64 + decoded.repeated, decoded.accepted);
    for (_, incoming) in &decoded.traces {
        assert!(!incoming.is_empty());
        assert_stored_and_read_back(incoming);
    }
    let _ = decoded.partial_success();
}
