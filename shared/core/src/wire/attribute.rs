//! Attributes on the wire: what the derive writes for a message, by hand, because it knows no other text than `String`.
//!
//! `KeyValue` (1 key, 2 value) and `AnyValue` (one of: 1 string, 2 bool, 3 int, 4 double, 5 array, 6 map, 7 bytes).

use bytes::{Buf, BufMut, Bytes};
use prost::{
    DecodeError, Message,
    encoding::{self, DecodeContext, WireType},
};

use super::{AnyValue, ArrayValue, KeyValue, KeyValueList, Text, any_value::Value};

fn encode_text(tag: u32, text: &Text, buf: &mut impl BufMut) {
    encoding::encode_key(tag, WireType::LengthDelimited, buf);
    encoding::encode_varint(text.len() as u64, buf);
    buf.put_slice(text.as_bytes());
}

fn text_len(tag: u32, text: &Text) -> usize {
    encoding::key_len(tag) + encoding::encoded_len_varint(text.len() as u64) + text.len()
}

fn merge_text(
    wire_type: WireType,
    buf: &mut impl Buf,
    ctx: DecodeContext,
) -> Result<Text, DecodeError> {
    let read = |text: &mut String| encoding::string::merge(wire_type, text, buf, ctx);
    Ok(merged(String::new(), read)?.into())
}

/// A value after a field was read into it.
fn merged<T>(
    mut value: T,
    read: impl FnOnce(&mut T) -> Result<(), DecodeError>,
) -> Result<T, DecodeError> {
    read(&mut value)?;
    Ok(value)
}

impl Message for KeyValue {
    fn encode_raw(&self, buf: &mut impl BufMut) {
        if !self.key.is_empty() {
            encode_text(1, &self.key, buf);
        }
        if let Some(value) = &self.value {
            encoding::message::encode(2, value, buf);
        }
    }

    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        buf: &mut impl Buf,
        ctx: DecodeContext,
    ) -> Result<(), DecodeError> {
        match tag {
            1 => {
                self.key = merge_text(wire_type, buf, ctx)?;
                Ok(())
            }
            2 => {
                let value = self.value.get_or_insert_default();
                encoding::message::merge(wire_type, value, buf, ctx)
            }
            _ => encoding::skip_field(wire_type, tag, buf, ctx),
        }
    }

    fn encoded_len(&self) -> usize {
        let key = match self.key.is_empty() {
            true => 0,
            false => text_len(1, &self.key),
        };
        let value = self.value.as_ref();
        key + value.map_or(0, |value| encoding::message::encoded_len(2, value))
    }

    fn clear(&mut self) {
        *self = Self::default();
    }
}

impl Message for AnyValue {
    fn encode_raw(&self, buf: &mut impl BufMut) {
        match &self.value {
            None => {}
            Some(Value::String(text)) => encode_text(1, text, buf),
            Some(Value::Bool(yes)) => encoding::bool::encode(2, yes, buf),
            Some(Value::Int(number)) => encoding::int64::encode(3, number, buf),
            Some(Value::Double(number)) => encoding::double::encode(4, number, buf),
            Some(Value::Array(array)) => encoding::message::encode(5, array, buf),
            Some(Value::Map(map)) => encoding::message::encode(6, map, buf),
            Some(Value::Bytes(bytes)) => encoding::bytes::encode(7, bytes, buf),
        }
    }

    /// Of several values the last one counts; arrays and maps that follow one another are one (protobuf's encoding guide, "Last One Wins").
    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        buf: &mut impl Buf,
        ctx: DecodeContext,
    ) -> Result<(), DecodeError> {
        self.value = Some(match (tag, self.value.take()) {
            (1, _) => Value::String(merge_text(wire_type, buf, ctx)?),
            (2, _) => Value::Bool(merged(false, |yes| {
                encoding::bool::merge(wire_type, yes, buf, ctx)
            })?),
            (3, _) => Value::Int(merged(0, |number| {
                encoding::int64::merge(wire_type, number, buf, ctx)
            })?),
            (4, _) => Value::Double(merged(0.0, |number| {
                encoding::double::merge(wire_type, number, buf, ctx)
            })?),
            (5, before) => {
                let before = match before {
                    Some(Value::Array(array)) => array,
                    _ => ArrayValue::default(),
                };
                Value::Array(merged(before, |array| {
                    encoding::message::merge(wire_type, array, buf, ctx)
                })?)
            }
            (6, before) => {
                let before = match before {
                    Some(Value::Map(map)) => map,
                    _ => KeyValueList::default(),
                };
                Value::Map(merged(before, |map| {
                    encoding::message::merge(wire_type, map, buf, ctx)
                })?)
            }
            (7, _) => Value::Bytes(merged(Bytes::new(), |bytes| {
                encoding::bytes::merge(wire_type, bytes, buf, ctx)
            })?),
            (_, before) => {
                self.value = before;
                return encoding::skip_field(wire_type, tag, buf, ctx);
            }
        });
        Ok(())
    }

    fn encoded_len(&self) -> usize {
        match &self.value {
            None => 0,
            Some(Value::String(text)) => text_len(1, text),
            Some(Value::Bool(yes)) => encoding::bool::encoded_len(2, yes),
            Some(Value::Int(number)) => encoding::int64::encoded_len(3, number),
            Some(Value::Double(number)) => encoding::double::encoded_len(4, number),
            Some(Value::Array(array)) => encoding::message::encoded_len(5, array),
            Some(Value::Map(map)) => encoding::message::encoded_len(6, map),
            Some(Value::Bytes(bytes)) => encoding::bytes::encoded_len(7, bytes),
        }
    }

    fn clear(&mut self) {
        self.value = None;
    }
}
