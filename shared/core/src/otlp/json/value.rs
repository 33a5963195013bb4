//! Attributes and their values.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor},
};

use super::leaf::{Key, Scalar, Text, as_bool, as_bytes, as_double, as_int};
use crate::{
    otlp::budget::Budget,
    wire::{self, any_value::Value},
};

/// `[{"key": .., "value": ..}]`, or the `{key: value}` that hand-written producers send.
pub(super) struct Attributes<'a> {
    pub(super) budget: &'a Budget,
    pub(super) list: &'a mut Vec<wire::KeyValue>,
    pub(super) dropped: &'a mut u32,
}

impl Attributes<'_> {
    fn is_full(&self) -> bool {
        self.list.len() >= self.budget.list
    }

    fn take(&mut self, pair: wire::KeyValue) {
        if self.budget.take_overflow() {
            self.budget.leave_out(self.dropped);
        } else {
            self.list.push(pair);
        }
    }
}

impl<'de> DeserializeSeed<'de> for Attributes<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Attributes<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of attributes")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut seq: A) -> Result<(), A::Error> {
        loop {
            if self.is_full() {
                if seq.next_element::<IgnoredAny>()?.is_none() {
                    return Ok(());
                }
                self.budget.leave_out(self.dropped);
            } else {
                let mut pair = wire::KeyValue::default();
                let seed = Pair {
                    budget: self.budget,
                    depth: 1,
                    pair: &mut pair,
                };
                if seq.next_element_seed(seed)?.is_none() {
                    return Ok(());
                }
                self.take(pair);
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(mut self, map: A) -> Result<(), A::Error> {
        Flat {
            into: &mut self,
            path: "",
        }
        .visit_map(map)
    }
}

/// How long the path of a nested key may grow: each level repeats it for each of its keys.
const MAX_PATH_BYTES: usize = 512;

/// Values by key, nested in each other where a column store split keys at their dots: `{"gen_ai": {"request": {"model": ..}}}`.
struct Flat<'a, 'b> {
    into: &'a mut Attributes<'b>,
    path: &'a str,
}

impl<'de> DeserializeSeed<'de> for Flat<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Flat<'_, '_> {
    fn take(&mut self, value: Option<Value>) {
        self.into.take(wire::KeyValue {
            key: self.path.into(),
            value: value.map(some),
        });
    }

    /// A value that stands by itself costs as everywhere, and its path what it repeats.
    fn take_scalar(&mut self, value: Value) {
        let budget = self.into.budget;
        for _ in 0..=self.path.len() / 64 {
            budget.spend(1);
        }
        self.take(Some(value));
    }
}

impl<'de> Visitor<'de> for Flat<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("attributes by key")
    }

    fn visit_unit<E>(mut self) -> Result<(), E> {
        self.into.budget.spend(1);
        self.take(None);
        Ok(())
    }

    fn visit_bool<E>(mut self, value: bool) -> Result<(), E> {
        self.take_scalar(Value::Bool(value));
        Ok(())
    }

    fn visit_i64<E>(mut self, value: i64) -> Result<(), E> {
        self.take_scalar(Value::Int(value));
        Ok(())
    }

    fn visit_u64<E>(mut self, value: u64) -> Result<(), E> {
        self.take_scalar(match i64::try_from(value) {
            Ok(value) => Value::Int(value),
            Err(_) => Value::Double(value as f64),
        });
        Ok(())
    }

    fn visit_f64<E>(mut self, value: f64) -> Result<(), E> {
        self.take_scalar(Value::Double(value));
        Ok(())
    }

    fn visit_str<E>(mut self, value: &str) -> Result<(), E> {
        self.take_scalar(Value::String(value.into()));
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, seq: A) -> Result<(), A::Error> {
        let budget = self.into.budget;
        budget.spend(1);
        let list = Any { budget, depth: 1 }.visit_seq(seq)?;
        self.take(list);
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        while let Some(Key(key)) = map.next_key()? {
            let budget = self.into.budget;
            // `{"stringValue": ..}` under a key is a value as OTLP writes it.
            if !self.path.is_empty() && is_kind_of_value(&key) {
                budget.spend(1);
                let value = Any { budget, depth: 1 }.read_kind(&key, &mut map)?;
                self.take(value);
                continue;
            }
            let path = if self.path.is_empty() {
                key.into_owned()
            } else {
                format!("{}.{key}", self.path)
            };
            if self.into.is_full() || !self.path.is_empty() && path.len() > MAX_PATH_BYTES {
                map.next_value::<IgnoredAny>()?;
                budget.leave_out(self.into.dropped);
            } else {
                map.next_value_seed(Flat {
                    into: &mut *self.into,
                    path: &path,
                })?;
            }
        }
        Ok(())
    }
}

fn is_kind_of_value(key: &str) -> bool {
    matches!(
        key,
        "stringValue"
            | "string_value"
            | "boolValue"
            | "bool_value"
            | "intValue"
            | "int_value"
            | "doubleValue"
            | "double_value"
            | "bytesValue"
            | "bytes_value"
            | "arrayValue"
            | "array_value"
            | "kvlistValue"
            | "kvlist_value"
    )
}

/// A `KeyValue`. One without a value costs as much as one with.
struct Pair<'a> {
    budget: &'a Budget,
    depth: usize,
    pair: &'a mut wire::KeyValue,
}

impl<'de> DeserializeSeed<'de> for Pair<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        let mut has_value = false;
        PairFields {
            budget: self.budget,
            depth: &self.depth,
            pair: self.pair,
            has_value: &mut has_value,
        }
        .deserialize(deserializer)?;
        if !has_value {
            self.budget.spend(self.depth);
        }
        Ok(())
    }
}

object! {
    PairFields<'a> for <'_> {
        budget: &'a Budget,
        depth: &'a usize,
        pair: &'a mut wire::KeyValue,
        has_value: &'a mut bool,
    },
    |this, map| {
        "key" => this.pair.key = map.next_value_seed(Text)?.into(),
        "value" => {
            *this.has_value = true;
            let seed = Any { budget: this.budget, depth: *this.depth };
            this.pair.value = map.next_value_seed(seed)?.map(some);
        },
    }
}

pub(super) fn some(value: Value) -> wire::AnyValue {
    wire::AnyValue { value: Some(value) }
}

/// An `AnyValue`; `None` is null, or what overflowed the budget.
pub(super) struct Any<'a> {
    pub(super) budget: &'a Budget,
    pub(super) depth: usize,
}

impl<'de> DeserializeSeed<'de> for Any<'_> {
    type Value = Option<Value>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        if self.budget.overflowed() || !self.budget.spend(self.depth) {
            return IgnoredAny::deserialize(deserializer).map(|_| None);
        }
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Any<'_> {
    type Value = Option<Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Self::Value, E> {
        Ok(Some(Value::Bool(value)))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Self::Value, E> {
        Ok(Some(Value::Int(value)))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Self::Value, E> {
        Ok(Some(match i64::try_from(value) {
            Ok(value) => Value::Int(value),
            Err(_) => Value::Double(value as f64),
        }))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Self::Value, E> {
        Ok(Some(Value::Double(value)))
    }

    fn visit_str<E>(self, value: &str) -> Result<Self::Value, E> {
        Ok(Some(Value::String(value.into())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut values = Vec::new();
        loop {
            let element = Any {
                budget: self.budget,
                depth: self.depth + 1,
            };
            match seq.next_element_seed(element)? {
                None => return Ok(Some(Value::Array(wire::ArrayValue { values }))),
                Some(_) if self.budget.overflowed() => {}
                Some(value) => values.push(wire::AnyValue { value }),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut value = None;
        while let Some(Key(key)) = map.next_key()? {
            if is_kind_of_value(&key) {
                value = self.read_kind(&key, &mut map)?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(value)
    }
}

impl Any<'_> {
    /// What stands under a key that names the kind of a value.
    fn read_kind<'de, A: MapAccess<'de>>(
        &self,
        key: &str,
        map: &mut A,
    ) -> Result<Option<Value>, A::Error> {
        // A scalar costs what its `AnyValue` has paid already.
        let scalar = |map: &mut A| map.next_value_seed(Scalar);
        Ok(match key {
            "stringValue" | "string_value" => {
                Some(Value::String(map.next_value_seed(Text)?.into()))
            }
            "boolValue" | "bool_value" => scalar(map)?.map(as_bool),
            "intValue" | "int_value" => scalar(map)?.map(as_int),
            "doubleValue" | "double_value" => scalar(map)?.map(as_double),
            "bytesValue" | "bytes_value" => scalar(map)?.map(as_bytes),
            "arrayValue" | "array_value" => {
                let mut values = Vec::new();
                map.next_value_seed(ArrayFields {
                    budget: self.budget,
                    depth: &(self.depth + 1),
                    values: &mut values,
                })?;
                Some(Value::Array(wire::ArrayValue { values }))
            }
            _ => {
                let mut values = Vec::new();
                map.next_value_seed(MapFields {
                    budget: self.budget,
                    depth: &(self.depth + 1),
                    values: &mut values,
                })?;
                Some(Value::Map(wire::KeyValueList { values }))
            }
        })
    }
}

object! {
    ArrayFields<'a> for <'_> {
        budget: &'a Budget,
        depth: &'a usize,
        values: &'a mut Vec<wire::AnyValue>,
    },
    |this, map| {
        "values" => map.next_value_seed(Elements {
            budget: this.budget,
            depth: this.depth,
            values: &mut *this.values,
        })?,
    }
}

list! {
    Elements<'a> for <'_> {
        budget: &'a Budget,
        depth: &'a usize,
        values: &'a mut Vec<wire::AnyValue>,
    },
    |this| Element {
        budget: this.budget,
        depth: *this.depth,
        values: &mut *this.values,
    }
}

struct Element<'a> {
    budget: &'a Budget,
    depth: usize,
    values: &'a mut Vec<wire::AnyValue>,
}

impl<'de> DeserializeSeed<'de> for Element<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        let any = Any {
            budget: self.budget,
            depth: self.depth,
        };
        let value = any.deserialize(deserializer)?;
        if !self.budget.overflowed() {
            self.values.push(wire::AnyValue { value });
        }
        Ok(())
    }
}

object! {
    MapFields<'a> for <'_> {
        budget: &'a Budget,
        depth: &'a usize,
        values: &'a mut Vec<wire::KeyValue>,
    },
    |this, map| {
        "values" => map.next_value_seed(Pairs {
            budget: this.budget,
            depth: this.depth,
            values: &mut *this.values,
        })?,
    }
}

list! {
    Pairs<'a> for <'_> {
        budget: &'a Budget,
        depth: &'a usize,
        values: &'a mut Vec<wire::KeyValue>,
    },
    |this| OnePair {
        budget: this.budget,
        depth: *this.depth,
        values: &mut *this.values,
    }
}

struct OnePair<'a> {
    budget: &'a Budget,
    depth: usize,
    values: &'a mut Vec<wire::KeyValue>,
}

impl<'de> DeserializeSeed<'de> for OnePair<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        let mut pair = wire::KeyValue::default();
        Pair {
            budget: self.budget,
            depth: self.depth,
            pair: &mut pair,
        }
        .deserialize(deserializer)?;
        if !self.budget.overflowed() {
            self.values.push(pair);
        }
        Ok(())
    }
}
