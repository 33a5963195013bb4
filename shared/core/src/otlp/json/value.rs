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

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        while let Some(Key(key)) = map.next_key()? {
            if self.is_full() {
                map.next_value::<IgnoredAny>()?;
                self.budget.leave_out(self.dropped);
            } else {
                let seed = Any {
                    budget: self.budget,
                    depth: 1,
                };
                let value = map.next_value_seed(seed)?.map(some);
                self.take(wire::KeyValue {
                    key: key.into_owned(),
                    value,
                });
            }
        }
        Ok(())
    }
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
        "key" => this.pair.key = map.next_value_seed(Text)?,
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
        Ok(Some(Value::String(value.to_owned())))
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
            // A scalar costs what its `AnyValue` has paid already.
            let scalar = |map: &mut A| map.next_value_seed(Scalar);
            match key.as_ref() {
                "stringValue" | "string_value" => {
                    value = Some(Value::String(map.next_value_seed(Text)?));
                }
                "boolValue" | "bool_value" => value = scalar(&mut map)?.map(as_bool),
                "intValue" | "int_value" => value = scalar(&mut map)?.map(as_int),
                "doubleValue" | "double_value" => value = scalar(&mut map)?.map(as_double),
                "bytesValue" | "bytes_value" => value = scalar(&mut map)?.map(as_bytes),
                "arrayValue" | "array_value" => {
                    let mut values = Vec::new();
                    map.next_value_seed(ArrayFields {
                        budget: self.budget,
                        depth: &(self.depth + 1),
                        values: &mut values,
                    })?;
                    value = Some(Value::Array(wire::ArrayValue { values }));
                }
                "kvlistValue" | "kvlist_value" => {
                    let mut values = Vec::new();
                    map.next_value_seed(MapFields {
                        budget: self.budget,
                        depth: &(self.depth + 1),
                        values: &mut values,
                    })?;
                    value = Some(Value::Map(wire::KeyValueList { values }));
                }
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(value)
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
