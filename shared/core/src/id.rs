//! Names that may enter a key: only our own alphabet, checked once, trusted afterwards.

use std::fmt;

use serde::Serialize;
use sha2::{Digest, Sha256};

/// Why a name was not accepted; the text goes to the client.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} must be {rule}")]
pub struct InvalidId {
    pub what: &'static str,
    pub rule: &'static str,
}

/// A trace's id: 1-128 of `[A-Za-z0-9_-]`.
///
/// The forms of one OTel id (upper case, UUID dashes) map to one: 32 lower-case hex digits.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(
    value_type = String, pattern = "^[A-Za-z0-9_-]{1,128}$"
))]
#[serde(transparent)]
pub struct TraceId(String);

impl TraceId {
    /// Which texts are ids, for who sent another.
    pub const RULE: &'static str = "1 to 128 characters of A-Z a-z 0-9 _ -";

    /// Parses a client's text.
    ///
    /// # Errors
    /// Empty, longer than 128, or with a character outside the alphabet.
    pub fn parse(text: &str) -> Result<Self, InvalidId> {
        let valid = (1..=128).contains(&text.len())
            && text
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
        if !valid {
            return Err(InvalidId {
                what: "trace_id",
                rule: Self::RULE,
            });
        }
        let is_otel = (text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit()))
            || is_dashed_uuid(text);
        Ok(Self(if is_otel {
            text.replace('-', "").to_ascii_lowercase()
        } else {
            text.to_owned()
        }))
    }

    /// The id of an OTel trace: 16 bytes, not all zero (W3C Trace Context 3.2.2.3).
    pub fn from_otel(bytes: &[u8]) -> Option<Self> {
        (bytes.len() == 16 && bytes.iter().any(|b| *b != 0)).then(|| Self(hex(bytes)))
    }

    /// As [`TraceId::from_otel`], of bytes that were checked.
    pub(crate) fn of_otel(bytes: &[u8; 16]) -> Self {
        Self(hex(bytes))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<'de> serde::Deserialize<'de> for TraceId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

impl<'de> serde::Deserialize<'de> for TenantId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// 8-4-4-4-12 hex digits: how a UUID library prints the 16 bytes of an OTel id.
fn is_dashed_uuid(text: &str) -> bool {
    text.len() == 36
        && text.bytes().enumerate().all(|(at, b)| match at {
            8 | 13 | 18 | 23 => b == b'-',
            _ => b.is_ascii_hexdigit(),
        })
}

/// A tenant: 1-40 of `[a-z0-9-]`, given by us and never by a stranger.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct TenantId(String);

impl TenantId {
    /// # Errors
    /// Empty, longer than 40, or with a character outside `[a-z0-9-]`.
    pub fn parse(text: &str) -> Result<Self, InvalidId> {
        let valid = (1..=40).contains(&text.len())
            && text
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        if valid {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidId {
                what: "tenant",
                rule: "1 to 40 characters of a-z 0-9 -",
            })
        }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for TenantId {
    /// Whoever runs Tailspan without tokens is this tenant.
    fn default() -> Self {
        Self("default".to_owned())
    }
}

impl fmt::Display for TenantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A session's key: base32 of 128 bits of SHA-256 of its name. The name itself is a field, so it may hold anything.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionKey(String);

impl SessionKey {
    /// The key of any name, always the same.
    pub fn of(name: &str) -> Self {
        let digest = Sha256::digest(name.as_bytes());
        Self(base32(&digest[..16]))
    }

    /// A key as it was made once. `None`: it is none.
    pub fn parse(text: &str) -> Option<Self> {
        let is_base32 = |byte: u8| byte.is_ascii_lowercase() || (b'2'..=b'7').contains(&byte);
        (text.len() == 26 && text.bytes().all(is_base32)).then(|| Self(text.to_owned()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// RFC 4648 base32, lower case, no padding: 26 characters for 16 bytes.
fn base32(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    let mut text = String::with_capacity((bytes.len() * 8).div_ceil(5));
    let (mut buffer, mut bits) = (0u32, 0);
    for byte in bytes {
        buffer = (buffer << 8) | u32::from(*byte);
        bits += 8;
        while bits >= 5 {
            bits -= 5;
            text.push(char::from(ALPHABET[(buffer >> bits) as usize & 31]));
        }
    }
    if bits > 0 {
        text.push(char::from(ALPHABET[(buffer << (5 - bits)) as usize & 31]));
    }
    text
}

/// Lower-case hex of any bytes: how span ids are written.
pub fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(2 * bytes.len());
    push_hex(&mut text, bytes);
    text
}

/// Writes what [`hex`] gives.
pub(crate) fn push_hex(into: &mut String, bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for digit in bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]) {
        into.push(char::from(DIGITS[usize::from(digit)]));
    }
}
