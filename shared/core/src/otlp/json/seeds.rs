//! Seeds are how serde reads into places that are there already; these macros write their ceremony.

/// Makes a seed that reads an object field by field into a value given by reference. An unknown key is skipped, `null`
/// leaves everything as it is, anything but an object is an error of this item.
macro_rules! object {
    (
        $(#[$doc:meta])*
        $name:ident<$($life:lifetime),+> for <$($argument:lifetime),+>
        { $($field:ident: $type:ty),* $(,)? },
        |$this:ident, $map:ident| { $($($key:literal)|+ => $read:expr,)* }
    ) => {
        $(#[$doc])*
        pub(in crate::otlp::json) struct $name<$($life),+> { $(pub(in crate::otlp::json) $field: $type),* }

        impl<'de> DeserializeSeed<'de> for $name<$($argument),+> {
            type Value = ();

            fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
                deserializer.deserialize_any(self)
            }
        }

        impl<'de> Visitor<'de> for $name<$($argument),+> {
            type Value = ();

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_unit<E>(self) -> Result<(), E> {
                Ok(())
            }

            fn visit_map<A: MapAccess<'de>>(self, mut $map: A) -> Result<(), A::Error> {
                #[allow(unused_mut, reason = "not every object has places of its own")]
                let mut $this = self;
                while let Some(Key(key)) = $map.next_key()? {
                    match key.as_ref() {
                        $($($key)|+ => $read,)*
                        _ => {
                            $map.next_value::<IgnoredAny>()?;
                        }
                    }
                }
                let _ = &mut $this;
                Ok(())
            }
        }
    };
}

/// Makes a seed that reads a list with one seed per element; `null` is an empty list.
macro_rules! list {
    (
        $(#[$doc:meta])*
        $name:ident<$($life:lifetime),+> for <$($argument:lifetime),+>
        { $($field:ident: $type:ty),* $(,)? },
        |$this:ident| $element:expr
    ) => {
        $(#[$doc])*
        pub(in crate::otlp::json) struct $name<$($life),+> { $(pub(in crate::otlp::json) $field: $type),* }

        impl<'de> DeserializeSeed<'de> for $name<$($argument),+> {
            type Value = ();

            fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
                deserializer.deserialize_any(self)
            }
        }

        impl<'de> Visitor<'de> for $name<$($argument),+> {
            type Value = ();

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list")
            }

            fn visit_unit<E>(self) -> Result<(), E> {
                Ok(())
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
                #[allow(unused_mut, reason = "not every list has places of its own")]
                let mut $this = self;
                while seq.next_element_seed($element)?.is_some() {}
                let _ = &mut $this;
                Ok(())
            }
        }
    };
}
/// Makes a seed out of what a leaf is read as.
macro_rules! leaf {
    ($(#[$doc:meta])* $name:ident $(($field:ident: $type:ty))? -> $value:ty, |$leaf:ident| $read:expr) => {
        $(#[$doc])*
        pub(in crate::otlp::json) struct $name $((pub(in crate::otlp::json) $type))?;

        impl<'de> DeserializeSeed<'de> for $name {
            type Value = $value;

            fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<$value, D::Error> {
                $(let Self($field) = self;)?
                let $leaf = Scalar.deserialize(deserializer)?;
                Ok($read)
            }
        }
    };
}
