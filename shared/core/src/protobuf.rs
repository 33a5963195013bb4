//! Protobuf messages as they lie on the wire: numbered fields, not yet told what they mean.

use bytes::Bytes;
use prost::encoding::encoded_len_varint;

/// Bytes that are no protobuf message: cut short, or damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Damaged;

/// Calls `take` with every message of the repeated field `wanted`.
pub(crate) fn each_message<'a>(
    message: &'a [u8],
    wanted: u32,
    mut take: impl FnMut(&'a [u8]) -> Result<(), Damaged>,
) -> Result<(), Damaged> {
    let mut fields = Fields(message);
    while let Some((number, raw)) = fields.next()? {
        if let (true, Raw::Bytes(bytes)) = (number == wanted, raw) {
            take(bytes)?;
        }
    }
    Ok(())
}

/// A field's payload as it lies on the wire. Where the wire type is not the declared one, a reader below gives the
/// type's default, as for an absent field.
#[derive(Clone, Copy)]
pub(crate) enum Raw<'a> {
    Varint(u64),
    Fixed64(u64),
    Fixed32(u32),
    Bytes(&'a [u8]),
}

impl<'a> Raw<'a> {
    pub(crate) fn bytes(self) -> &'a [u8] {
        match self {
            Self::Bytes(bytes) => bytes,
            _ => &[],
        }
    }

    /// Copied: a slice would keep the whole body alive for as long as the id.
    pub(crate) fn id(self) -> Bytes {
        // Longer than any id is wrong however long it is.
        Bytes::copy_from_slice(self.bytes().get(..17).unwrap_or(self.bytes()))
    }

    pub(crate) fn text(self) -> String {
        // Nearly all text is UTF-8, and this check is several times quicker than the one that mends.
        match std::str::from_utf8(self.bytes()) {
            Ok(text) => text.to_owned(),
            Err(_) => String::from_utf8_lossy(self.bytes()).into_owned(),
        }
    }

    pub(crate) fn uint64(self) -> u64 {
        match self {
            Self::Varint(value) | Self::Fixed64(value) => value,
            Self::Fixed32(value) => u64::from(value),
            Self::Bytes(_) => 0,
        }
    }

    /// Truncates as protobuf does: negative enums come as ten-byte varints.
    pub(crate) fn int32(self) -> i32 {
        self.uint64() as i32
    }

    pub(crate) fn uint32(self) -> u32 {
        self.uint64() as u32
    }

    pub(crate) fn double(self) -> f64 {
        let value = match self {
            Self::Fixed64(bits) => f64::from_bits(bits),
            _ => 0.0,
        };
        // One NaN, so that the same content has the same identity in JSON, which has only one.
        if value.is_nan() { f64::NAN } else { value }
    }
}

/// The fields of a message, in the order they lie.
pub(crate) struct Fields<'a>(pub(crate) &'a [u8]);

impl<'a> Fields<'a> {
    pub(crate) fn next(&mut self) -> Result<Option<(u32, Raw<'a>)>, Damaged> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let number = u32::try_from(tag >> 3).map_err(|_| Damaged)?;
        if number == 0 {
            return Err(Damaged);
        }
        let raw = match tag & 7 {
            0 => Raw::Varint(self.varint()?),
            1 => Raw::Fixed64(u64::from_le_bytes(self.array()?)),
            2 => {
                let length = usize::try_from(self.varint()?).map_err(|_| Damaged)?;
                Raw::Bytes(self.take(length)?)
            }
            5 => Raw::Fixed32(u32::from_le_bytes(self.array()?)),
            // Groups (3, 4) do not exist in proto3.
            _ => return Err(Damaged),
        };
        Ok(Some((number, raw)))
    }

    pub(crate) fn varint(&mut self) -> Result<u64, Damaged> {
        // Nearly all tags and lengths are of one byte.
        if let Some((byte @ 0..0x80, rest)) = self.0.split_first() {
            self.0 = rest;
            return Ok(u64::from(*byte));
        }
        let mut value = 0u64;
        for (at, byte) in self.0.iter().take(10).enumerate() {
            value |= u64::from(byte & 0x7f) << (7 * at);
            if byte & 0x80 == 0 {
                self.0 = self.0.get(at + 1..).ok_or(Damaged)?;
                return Ok(value);
            }
        }
        Err(Damaged)
    }

    pub(crate) fn take(&mut self, length: usize) -> Result<&'a [u8], Damaged> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(Damaged)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Damaged> {
        self.take(N)?.try_into().map_err(|_| Damaged)
    }
}

/// Bytes of a field that is a text, bytes or a message of this length; its number is below 16.
pub(crate) fn field_len(length: usize) -> usize {
    1 + encoded_len_varint(length as u64) + length
}

pub(crate) fn put_varint(mut number: u64, out: &mut Vec<u8>) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Begins a field that is a text, bytes or a message of this length; its number is below 16.
pub(crate) fn begin_field(number: u8, length: usize, out: &mut Vec<u8>) {
    out.push(number << 3 | 2);
    put_varint(length as u64, out);
}

pub(crate) fn put_bytes(number: u8, bytes: &[u8], out: &mut Vec<u8>) {
    begin_field(number, bytes.len(), out);
    out.extend_from_slice(bytes);
}

pub(crate) fn put_number(number: u8, value: u64, out: &mut Vec<u8>) {
    out.push(number << 3);
    put_varint(value, out);
}

pub(crate) fn put_fixed64(number: u8, value: u64, out: &mut Vec<u8>) {
    out.push(number << 3 | 1);
    out.extend_from_slice(&value.to_le_bytes());
}
