//! Undoing `Content-Encoding`, up to a limit.

use std::{borrow::Cow, io::Read};

use super::Refused;

/// A body may be packed this many times over; more is a trick.
const MAX_ENCODINGS: usize = 3;

/// The largest zstd window we give memory to: 2^24 bytes = 16 MiB, more than levels up to 19 ask for.
const ZSTD_WINDOW_LOG_MAX: u32 = 24;

/// Unpacks a body: `identity`, `gzip`, `deflate` (zlib as RFC 9110 says, or raw as some clients send) and `zstd`, several
/// separated by commas in the order they were applied.
///
/// # Errors
/// 413 when the result (or a step to it) is larger than `limit` bytes: unpacking stops there. 415 for an encoding
/// that is not one of these. 400 when the bytes are not what the header says.
pub fn inflate<'a>(
    content_encoding: Option<&str>,
    body: &'a [u8],
    limit: usize,
) -> Result<Cow<'a, [u8]>, Refused> {
    let mut encodings: Vec<&str> = content_encoding
        .unwrap_or("")
        .split(',')
        .map(str::trim)
        .filter(|name| !name.is_empty() && !name.eq_ignore_ascii_case("identity"))
        .collect();
    if encodings.len() > MAX_ENCODINGS {
        return Err(Refused::unsupported(format!(
            "at most {MAX_ENCODINGS} content encodings, not {}",
            encodings.len()
        )));
    }
    if body.len() > limit {
        return Err(Refused::too_large(limit));
    }
    let mut unpacked = Cow::Borrowed(body);
    while let Some(name) = encodings.pop() {
        unpacked = Cow::Owned(unpack(name, &unpacked, limit)?);
    }
    Ok(unpacked)
}

fn unpack(name: &str, packed: &[u8], limit: usize) -> Result<Vec<u8>, Refused> {
    let name = name.to_ascii_lowercase();
    match name.as_str() {
        "gzip" | "x-gzip" => read(flate2::read::MultiGzDecoder::new(packed), &name, limit),
        "deflate" if is_zlib(packed) => read(flate2::read::ZlibDecoder::new(packed), &name, limit),
        "deflate" => read(flate2::read::DeflateDecoder::new(packed), &name, limit),
        "zstd" => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(packed)
                .map_err(|error| damaged(&name, &error))?;
            decoder
                .window_log_max(ZSTD_WINDOW_LOG_MAX)
                .map_err(|error| damaged(&name, &error))?;
            read(decoder, &name, limit)
        }
        _ => Err(Refused::unsupported(
            "content encoding must be identity, gzip, deflate or zstd".to_owned(),
        )),
    }
}

/// RFC 1950: method 8 in the low half of the first byte, and the first two bytes divisible by 31.
fn is_zlib(packed: &[u8]) -> bool {
    matches!(packed, [method, flags, ..]
        if method & 15 == 8 && (u16::from(*method) << 8 | u16::from(*flags)).is_multiple_of(31))
}

fn read(decoder: impl Read, name: &str, limit: usize) -> Result<Vec<u8>, Refused> {
    let mut unpacked = Vec::new();
    decoder
        .take(limit as u64 + 1)
        .read_to_end(&mut unpacked)
        .map_err(|error| damaged(name, &error))?;
    if unpacked.len() > limit {
        return Err(Refused::too_large(limit));
    }
    Ok(unpacked)
}

fn damaged(name: &str, error: &std::io::Error) -> Refused {
    Refused::bad_request(format!(
        "the body is not complete {name} as content-encoding says: {error}"
    ))
}
