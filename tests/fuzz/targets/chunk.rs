//! Any bytes as a stored block, plain and packed, and as a piece of stored text: a damaged store is told, never a crash.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tailspan_core::{chunk, observed::Canonical};

fuzz_target!(|input: &[u8]| {
    let (message, piece) = input.split_at(input.len() / 2);
    let mut packed = chunk::encode([]).block;
    packed.truncate(2);
    packed.extend(zstd::bulk::compress(message, 1).expect("in memory"));
    for block in [input, &packed] {
        if let Ok(decoded) = chunk::decode(block) {
            let ids = decoded.pieces();
            let pieces = ids
                .into_iter()
                .map(|id| (id, piece.to_vec().into()))
                .collect();
            let (observations, _) = decoded.resolve(&pieces);
            let again: Vec<_> = observations
                .iter()
                .map(|seen| (&seen.context, Canonical::from(&seen.what)))
                .collect();
            let _ = chunk::encode(again.iter().map(|(context, what)| (*context, what)));
        }
    }
});
