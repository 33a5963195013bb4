//! Any bytes as a stored snapshot, and any JSON packed as one: a damaged one reads as none.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tailspan_core::fold::{State, decode_snapshot, encode_snapshot};

fuzz_target!(|input: &[u8]| {
    let _ = decode_snapshot(input);
    let mut packed = encode_snapshot(&State::default(), 0);
    packed.truncate(2);
    packed.extend(zstd::bulk::compress(input, 1).expect("in memory"));
    if let Some((state, seq)) = decode_snapshot(&packed) {
        let again = decode_snapshot(&encode_snapshot(&state, seq)).expect("readable");
        assert!(again == (state, seq));
    }
});
