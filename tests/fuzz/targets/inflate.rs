//! Any bytes under any content encoding: never more than the limit, never a panic.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tailspan_core::otlp::inflate;

const LIMIT: usize = 1 << 16;

fuzz_target!(|input: &[u8]| {
    let Some((choice, body)) = input.split_first() else {
        return;
    };
    let encoding = match choice % 6 {
        0 => "gzip",
        1 => "deflate",
        2 => "zstd",
        3 => "gzip, zstd",
        4 => "deflate,gzip",
        _ => "zstd, zstd, deflate",
    };
    match inflate(Some(encoding), body, LIMIT) {
        Ok(unpacked) => assert!(unpacked.len() <= LIMIT),
        Err(refused) => assert!(matches!(refused.status, 400 | 413)),
    }
});
