//! The names of networks, containers and interfaces, which administrators and runtimes choose.
//!
//! Plugins use them in paths, chain names and comments, so each name is validated once, when it is read.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;

use serde::Serialize;

use crate::text::read_from_text;

/// Why a name is not valid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidName {
    /// The name is empty.
    #[error("{what} is empty")]
    Empty {
        /// The kind of name.
        what: &'static str,
    },
    /// A character is not allowed, or not allowed at the beginning.
    #[error(
        "{what} {name:?} must begin with a letter or digit, and contain only letters, digits, \
         '_', '.' and '-'"
    )]
    Characters {
        /// The kind of name.
        what: &'static str,
        /// The name.
        name: String,
    },
    /// Linux does not accept the name for an interface.
    #[error(
        "interface name {name:?} must have at most 15 bytes, not be \".\" or \"..\", and contain no '/', \
         ':', '%' or white space"
    )]
    Interface {
        /// The name.
        name: String,
    },
}

/// The name of a network (`name` of a configuration).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct NetworkName(String);

/// The ID that the runtime gives a container (`CNI_CONTAINERID`).
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

    /// Accepts what the kernel accepts (`dev_valid_name` in `net/core/dev.c`), except `%`.
    fn from_str(text: &str) -> Result<Self, InvalidName> {
        const IFNAMSIZ: usize = 16;
        if text.is_empty() {
            return Err(InvalidName::Empty { what: "interface name" });
        }
        // The kernel replaces '%d' by a number that it chooses.
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

    )*};
}

text_of!(NetworkName, ContainerId, IfName);
read_from_text!(NetworkName, ContainerId, IfName);

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
