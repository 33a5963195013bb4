//! Leaves. One of the wrong type is never worth a span: it becomes the nearest thing it can be.

use std::{borrow::Cow, fmt};

use base64::{
    Engine, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use bytes::Bytes;
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor},
};

use crate::{otlp::budget::Budget, wire::any_value::Value};

/// A key, borrowed where it can be.
pub(super) struct Key<'d>(pub(super) Cow<'d, str>);

impl<'de> Deserialize<'de> for Key<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Read;
        impl<'de> Visitor<'de> for Read {
            type Value = Key<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a key")
            }

            fn visit_borrowed_str<E>(self, key: &'de str) -> Result<Key<'de>, E> {
                Ok(Key(Cow::Borrowed(key)))
            }

            fn visit_str<E>(self, key: &str) -> Result<Key<'de>, E> {
                Ok(Key(Cow::Owned(key.to_owned())))
            }
        }
        deserializer.deserialize_str(Read)
    }
}

/// A value without parts; lists and objects read as `None`, as `null` does.
pub(super) enum Leaf<'d> {
    Bool(bool),
    Int(i64),
    Large(u64),
    Double(f64),
    Text(Cow<'d, str>),
}

pub(super) struct Scalar;

impl<'de> DeserializeSeed<'de> for Scalar {
    type Value = Option<Leaf<'de>>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Scalar {
    type Value = Option<Leaf<'de>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Self::Value, E> {
        Ok(Some(Leaf::Bool(value)))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Self::Value, E> {
        Ok(Some(Leaf::Int(value)))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Self::Value, E> {
        Ok(Some(
            i64::try_from(value).map_or(Leaf::Large(value), Leaf::Int),
        ))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Self::Value, E> {
        Ok(Some(Leaf::Double(value)))
    }

    fn visit_borrowed_str<E>(self, value: &'de str) -> Result<Self::Value, E> {
        Ok(Some(Leaf::Text(Cow::Borrowed(value))))
    }

    fn visit_str<E>(self, value: &str) -> Result<Self::Value, E> {
        Ok(Some(Leaf::Text(Cow::Owned(value.to_owned()))))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(None)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(None)
    }
}

leaf! {
    Text -> String, |leaf| match leaf {
        None => String::new(),
        Some(Leaf::Text(text)) => text.into_owned(),
        Some(Leaf::Bool(value)) => value.to_string(),
        Some(Leaf::Int(value)) => value.to_string(),
        Some(Leaf::Large(value)) => value.to_string(),
        Some(Leaf::Double(value)) => value.to_string(),
    }
}

/// An id of so many bytes; what is none comes out with a length that no id has, unless any name will do.
pub(super) struct Id<'a>(pub(super) usize, pub(super) &'a Budget);

impl<'de> DeserializeSeed<'de> for Id<'_> {
    type Value = Bytes;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Bytes, D::Error> {
        let Self(length, budget) = self;
        let text = match Scalar.deserialize(deserializer)? {
            None => return Ok(Bytes::new()),
            Some(Leaf::Text(text)) => text,
            Some(Leaf::Int(number)) if budget.names.is_some() => number.to_string().into(),
            Some(_) => return Ok(NO_ID),
        };
        Ok(match &budget.names {
            Some(names) => names.id(text.trim(), length),
            None => id(text.trim(), length),
        })
    }
}

leaf! {
    /// Nanoseconds; what is no time comes out beyond every time.
    Time -> u64, |leaf| match leaf {
        None => 0,
        Some(Leaf::Text(text)) if text.trim().is_empty() => 0,
        Some(leaf) => as_u64(&leaf).unwrap_or(u64::MAX),
    }
}

leaf! {
    /// An enum by ordinal or by name.
    Enum(names: &'static [(&'static str, i32)]) -> i32, |leaf| match leaf {
        Some(Leaf::Int(ordinal)) => i32::try_from(ordinal).unwrap_or(0),
        Some(Leaf::Double(ordinal)) if ordinal.fract() == 0.0 => ordinal as i32,
        Some(Leaf::Text(name)) => ordinal(name.trim(), names),
        _ => 0,
    }
}

/// Adds a `uint32` to a place, which may hold a count of ours already.
pub(super) struct Count<'a>(pub(super) &'a mut u32);

impl<'de> DeserializeSeed<'de> for Count<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        let leaf = Scalar.deserialize(deserializer)?;
        let number = leaf.as_ref().and_then(as_u64).unwrap_or(0);
        *self.0 = self
            .0
            .saturating_add(u32::try_from(number).unwrap_or(u32::MAX));
        Ok(())
    }
}

fn as_u64(leaf: &Leaf<'_>) -> Option<u64> {
    match leaf {
        Leaf::Int(value) => u64::try_from(*value).ok(),
        Leaf::Large(value) => Some(*value),
        Leaf::Double(value) => whole(*value).and_then(|value| u64::try_from(value).ok()),
        Leaf::Text(text) => {
            let text = text.trim();
            text.parse().ok().or_else(|| {
                let value = whole(text.parse().ok()?)?;
                u64::try_from(value).ok()
            })
        }
        Leaf::Bool(_) => None,
    }
}

/// A double that is an integer of 63 bits.
fn whole(value: f64) -> Option<i64> {
    (value.fract() == 0.0 && value.abs() < 9.2e18).then_some(value as i64)
}

pub(super) fn as_bool(leaf: Leaf<'_>) -> Value {
    match leaf {
        Leaf::Bool(value) => Value::Bool(value),
        Leaf::Text(text) if text == "true" => Value::Bool(true),
        Leaf::Text(text) if text == "false" => Value::Bool(false),
        leaf => as_is(leaf),
    }
}

pub(super) fn as_int(leaf: Leaf<'_>) -> Value {
    match leaf {
        Leaf::Double(value) => whole(value).map_or(Value::Double(value), Value::Int),
        Leaf::Text(text) => match text.trim().parse() {
            Ok(value) => Value::Int(value),
            Err(_) => Value::String(text.into()),
        },
        leaf => as_is(leaf),
    }
}

pub(super) fn as_double(leaf: Leaf<'_>) -> Value {
    match leaf {
        Leaf::Int(value) => Value::Double(value as f64),
        // Also "NaN", "Infinity" and "-Infinity", which protobuf's JSON mapping writes as text.
        Leaf::Text(text) => match text.trim().parse::<f64>() {
            Ok(value) if value.is_nan() => Value::Double(f64::NAN),
            Ok(value) => Value::Double(value),
            Err(_) => Value::String(text.into()),
        },
        leaf => as_is(leaf),
    }
}

pub(super) fn as_bytes(leaf: Leaf<'_>) -> Value {
    match leaf {
        Leaf::Text(text) => match decode_base64(text.trim()) {
            Some(bytes) => Value::Bytes(Bytes::from(bytes)),
            None => Value::String(text.into()),
        },
        leaf => as_is(leaf),
    }
}

fn as_is(leaf: Leaf<'_>) -> Value {
    match leaf {
        Leaf::Bool(value) => Value::Bool(value),
        Leaf::Int(value) => Value::Int(value),
        Leaf::Large(value) => Value::Double(value as f64),
        Leaf::Double(value) => Value::Double(value),
        Leaf::Text(text) => Value::String(text.into()),
    }
}

/// One byte: neither "no id" nor an id.
const NO_ID: Bytes = Bytes::from_static(b"?");

/// Hex as OTLP/JSON says, or base64 as protobuf's JSON mapping would have it; a text of one is never one of the other,
/// for their lengths differ.
pub(in crate::otlp) fn id(text: &str, length: usize) -> Bytes {
    if text.is_empty() {
        return Bytes::new();
    }
    let bytes = if text.len() == 2 * length {
        decode_hex(text)
    } else if text.len() == 36 && length == 16 {
        // A UUID library's dashes.
        decode_hex(&text.replace('-', ""))
    } else {
        decode_base64(text)
    };
    bytes
        .filter(|bytes| bytes.len() == length)
        .map_or(NO_ID, Bytes::from)
}

fn decode_hex(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u8> = text
        .chars()
        .map(|digit| {
            digit
                .to_digit(16)
                .and_then(|digit| u8::try_from(digit).ok())
        })
        .collect::<Option<_>>()?;
    let (pairs, rest) = digits.as_chunks::<2>();
    rest.is_empty()
        .then(|| pairs.iter().map(|[high, low]| high << 4 | low).collect())
}

fn decode_base64(text: &str) -> Option<Vec<u8>> {
    const LENIENT: GeneralPurposeConfig = GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true);
    const STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, LENIENT);
    const URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, LENIENT);
    STANDARD
        .decode(text)
        .or_else(|_| URL_SAFE.decode(text))
        .ok()
}

/// A name with or without its prefix, in any case; an unknown one is 0, "unspecified".
fn ordinal(name: &str, names: &[(&str, i32)]) -> i32 {
    if let Ok(number) = name.parse() {
        return number;
    }
    let name = name.to_ascii_uppercase();
    names
        .iter()
        .find(|(known, _)| {
            name.strip_suffix(known)
                .is_some_and(|prefix| prefix.is_empty() || prefix.ends_with('_'))
        })
        .map_or(0, |(_, ordinal)| *ordinal)
}
