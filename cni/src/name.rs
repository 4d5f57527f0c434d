//! Names that runtimes choose: networks, containers, interfaces.
//!
//! They end up in paths, chain names and comments, so each is checked once, on its way in.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, de};

/// Why a name was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidName {
    /// The name has no character at all.
    #[error("{what} is empty")]
    Empty {
        /// What the name is of.
        what: &'static str,
    },
    /// A character that the specification does not allow, or not there.
    #[error(
        "{what} {name:?} may hold letters, digits, '_', '.' and '-' only, and begins with a letter or digit"
    )]
    Characters {
        /// What the name is of.
        what: &'static str,
        /// The name as given.
        name: String,
    },
    /// Linux would not take it as the name of an interface.
    #[error(
        "interface name {name:?} is none: at most 15 bytes, not \".\" or \"..\", without '/', ':', '%' and \
         white space"
    )]
    Interface {
        /// The name as given.
        name: String,
    },
}

/// The name of a network (`name` of a configuration).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct NetworkName(String);

/// The runtime's name of a container (`CNI_CONTAINERID`).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct ContainerId(String);

/// The name of an interface inside a container (`CNI_IFNAME`).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct IfName(String);

impl FromStr for NetworkName {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        identifier("network name", text).map(Self)
    }
}

impl FromStr for ContainerId {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        identifier("container ID", text).map(Self)
    }
}

impl FromStr for IfName {
    type Err = InvalidName;

    /// The kernel's own rule: `dev_valid_name` in `net/core/dev.c`.
    fn from_str(text: &str) -> Result<Self, InvalidName> {
        const IFNAMSIZ: usize = 16;
        if text.is_empty() {
            return Err(InvalidName::Empty { what: "interface name" });
        }
        // The kernel takes a '%' for a number that it is to choose.
        let odd = |c: char| matches!(c, '/' | ':' | '%' | '\0') || c.is_whitespace();
        if text.len() >= IFNAMSIZ || text == "." || text == ".." || text.contains(odd) {
            return Err(InvalidName::Interface { name: text.to_owned() });
        }
        Ok(Self(text.to_owned()))
    }
}

/// The specification's expression for identifiers: `^[a-zA-Z0-9][a-zA-Z0-9_.\-]*$`.
fn identifier(what: &'static str, text: &str) -> Result<String, InvalidName> {
    let Some(first) = text.bytes().next() else {
        return Err(InvalidName::Empty { what });
    };
    let inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
    if !first.is_ascii_alphanumeric() || !text.bytes().all(inner) {
        return Err(InvalidName::Characters { what, name: text.to_owned() });
    }
    Ok(text.to_owned())
}

macro_rules! text_of {
    ($($name:ident),*) => {$(
        impl $name {
            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
            }
        }
    )*};
}

text_of!(NetworkName, ContainerId, IfName);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers() {
        for good in ["a", "9", "kindnet", "a-b_c.d", "0a0a"] {
            assert!(good.parse::<NetworkName>().is_ok(), "{good}");
            assert!(good.parse::<ContainerId>().is_ok(), "{good}");
        }
        for bad in ["", "-a", ".", "../x", "a/b", "a b", "ä", "a\n", "_x"] {
            assert!(bad.parse::<NetworkName>().is_err(), "{bad}");
            assert!(bad.parse::<ContainerId>().is_err(), "{bad}");
        }
    }

    #[test]
    fn interface_names() {
        for good in ["eth0", "lo", "a.100", "0123456789abcde", "€uro"] {
            assert!(good.parse::<IfName>().is_ok(), "{good}");
        }
        for bad in ["", ".", "..", "a/b", "a:b", "a b", "a\t", "br%d", "0123456789abcdef"] {
            assert!(bad.parse::<IfName>().is_err(), "{bad}");
        }
    }
}
