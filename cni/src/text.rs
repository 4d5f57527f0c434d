//! Types that JSON has as strings: they are read with [`FromStr`] and written with [`Display`].
//!
//! [`FromStr`]: std::str::FromStr
//! [`Display`]: std::fmt::Display

/// Implements `Deserialize` with `FromStr`.
macro_rules! read_from_text {
    ($($name:ident),*) => {$(
        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }
    )*};
}

/// Implements `Serialize` with `Display`.
macro_rules! written_as_text {
    ($($name:ident),*) => {$(
        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
    )*};
}

pub(crate) use {read_from_text, written_as_text};
