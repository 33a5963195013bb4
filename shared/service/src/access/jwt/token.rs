//! One token: its form, what it must say, and its signature. Whatever a header says of where keys are (`jwk`, `jku`, `x5u`, `x5c`) is not looked at.

use std::fmt;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{
    Deserialize, Deserializer,
    de::{Error, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Number, Value};

use super::keyset::{Algorithm, Found, KeySet};

/// Bytes of a token; most have one or two thousand, with many groups some ten thousand.
const LONGEST: usize = 16 * 1024;
/// How far clocks may be apart.
pub(super) const LEEWAY_MS: u64 = 60_000;

/// Why a token is not taken. Its holder is told of none of these apart from the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    #[error("it is no signed JWT: {0}")]
    Malformed(&'static str),
    #[error("{0}")]
    Claim(&'static str),
    #[error("the issuer has no key of this name")]
    UnknownKey,
    #[error("the signature is not that of the key that it names")]
    Signature,
}

/// What a token must say.
#[derive(Clone, Copy, Debug)]
pub(super) struct Expected<'a> {
    pub(super) issuer: &'a str,
    /// One of these is enough.
    pub(super) audiences: &'a [String],
    pub(super) now_unix_ms: u64,
}

/// A token that says what it must, if its signature is good.
#[derive(Debug)]
pub(super) struct Token<'a> {
    algorithm: Algorithm,
    key_id: Option<String>,
    signed: &'a str,
    signature: Vec<u8>,
    claims: Map<String, Value>,
    pub(super) expires_unix_ms: u64,
}

/// Reads a token, and compares what it says with what it must say.
///
/// # Errors
/// [`Refusal`], but for those of keys.
pub(super) fn parse<'a>(text: &'a str, expected: &Expected<'_>) -> Result<Token<'a>, Refusal> {
    use Refusal::Malformed;
    if text.len() > LONGEST {
        return Err(Malformed("it is too long"));
    }
    let (signed, signature) = text.rsplit_once('.').ok_or(Malformed("no parts"))?;
    let (header, claims) = signed.split_once('.').ok_or(Malformed("two parts"))?;
    let object = |part: &str| {
        let json = URL_SAFE_NO_PAD
            .decode(part)
            .map_err(|_| Malformed("a part is not base64url"))?;
        match serde_json::from_slice(&json) {
            Ok(Once(Value::Object(object))) => Ok(object),
            Ok(_) => Err(Malformed("a part is no object")),
            Err(_) => Err(Malformed("a part is not JSON, or says something twice")),
        }
    };
    let header = object(header)?;
    let algorithm = header.get("alg").and_then(Value::as_str);
    let algorithm = algorithm
        .and_then(Algorithm::named)
        .ok_or(Malformed("an algorithm that is not taken"))?;
    // What must be understood and is not: this understands no extension.
    if header.contains_key("crit") {
        return Err(Malformed("an extension that must be understood"));
    }
    // Other kinds of JWT (of a logout, a proof of possession, ..) say of themselves that they are.
    let kind = match header.get("typ") {
        None => "jwt",
        Some(kind) => kind.as_str().ok_or(Malformed("a type that is no text"))?,
    };
    let kind = kind.to_ascii_lowercase();
    let kind = kind.strip_prefix("application/").unwrap_or(&kind);
    if !matches!(kind, "jwt" | "at+jwt") {
        return Err(Malformed("another type"));
    }
    let key_id = match header.get("kid") {
        None => None,
        Some(Value::String(id)) => Some(id.clone()),
        Some(_) => return Err(Malformed("a key's name that is no text")),
    };
    let signature = URL_SAFE_NO_PAD
        .decode(signature)
        .map_err(|_| Malformed("the signature is not base64url"))?;
    let claims = object(claims)?;
    let expires_unix_ms = checked(&claims, expected)?;
    Ok(Token {
        algorithm,
        key_id,
        signed,
        signature,
        claims,
        expires_unix_ms,
    })
}

/// The claims of a token whose signature is good.
///
/// # Errors
/// [`Refusal::Signature`], [`Refusal::UnknownKey`].
pub(super) fn verified<'t>(
    token: &'t Token<'_>,
    keys: &KeySet,
) -> Result<&'t Map<String, Value>, Refusal> {
    let key_id = token.key_id.as_deref();
    let signed = token.signed.as_bytes();
    match keys.check(key_id, token.algorithm, signed, &token.signature) {
        Found::Good => Ok(&token.claims),
        Found::Bad => Err(Refusal::Signature),
        Found::NoKey => Err(Refusal::UnknownKey),
    }
}

/// When it expires, if it says whose it is, for whom and until when, and all of it is so.
fn checked(claims: &Map<String, Value>, expected: &Expected<'_>) -> Result<u64, Refusal> {
    use Refusal::Claim;
    if claims.get("iss").and_then(Value::as_str) != Some(expected.issuer) {
        return Err(Claim("it is of another issuer"));
    }
    let is_ours = |it: &Value| {
        let it = it.as_str();
        it.is_some_and(|it| expected.audiences.iter().any(|ours| ours == it))
    };
    let is_for_us = match claims.get("aud") {
        Some(Value::Array(all)) => all.iter().any(is_ours),
        Some(one) => is_ours(one),
        None => false,
    };
    if !is_for_us {
        return Err(Claim("it is for another audience"));
    }
    let expires = unix_ms(claims, "exp")?.ok_or(Claim("it never expires"))?;
    let now = expected.now_unix_ms;
    if expires.saturating_add(LEEWAY_MS) <= now {
        return Err(Claim("it is expired"));
    }
    let latest = now.saturating_add(LEEWAY_MS);
    if unix_ms(claims, "nbf")?.is_some_and(|from| from > latest) {
        return Err(Claim("it is not good yet"));
    }
    if unix_ms(claims, "iat")?.is_some_and(|made| made > latest) {
        return Err(Claim("it was made in the future"));
    }
    Ok(expires)
}

/// A time of a claim: seconds since 1970, which may have a fraction.
fn unix_ms(claims: &Map<String, Value>, name: &str) -> Result<Option<u64>, Refusal> {
    let Some(value) = claims.get(name) else {
        return Ok(None);
    };
    let seconds = value.as_f64().filter(|seconds| *seconds >= 0.0);
    let seconds = seconds.ok_or(Refusal::Claim("a time is no number"))?;
    // Beyond what a u64 holds it is the largest.
    Ok(Some((seconds * 1000.0) as u64))
}

/// JSON in which no object says anything twice: of two readers one would take the first, another the last.
#[derive(Debug)]
struct Once(Value);

impl<'de> Deserialize<'de> for Once {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;

        impl<'de> Visitor<'de> for Reader {
            type Value = Once;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("JSON without members of the same name")
            }

            fn visit_unit<E: Error>(self) -> Result<Once, E> {
                Ok(Once(Value::Null))
            }

            fn visit_bool<E: Error>(self, value: bool) -> Result<Once, E> {
                Ok(Once(value.into()))
            }

            fn visit_i64<E: Error>(self, value: i64) -> Result<Once, E> {
                Ok(Once(value.into()))
            }

            fn visit_u64<E: Error>(self, value: u64) -> Result<Once, E> {
                Ok(Once(value.into()))
            }

            fn visit_f64<E: Error>(self, value: f64) -> Result<Once, E> {
                let number = Number::from_f64(value).ok_or_else(|| E::custom("no number"))?;
                Ok(Once(number.into()))
            }

            fn visit_str<E: Error>(self, value: &str) -> Result<Once, E> {
                Ok(Once(value.into()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Once, A::Error> {
                let mut all = Vec::new();
                while let Some(Once(value)) = seq.next_element()? {
                    all.push(value);
                }
                Ok(Once(all.into()))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Once, A::Error> {
                let mut all = Map::new();
                while let Some((name, Once(value))) = map.next_entry::<String, Once>()? {
                    if all.insert(name, value).is_some() {
                        return Err(A::Error::custom("two members of the same name"));
                    }
                }
                Ok(Once(all.into()))
            }
        }

        deserializer.deserialize_any(Reader)
    }
}
