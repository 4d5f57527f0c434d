//! JSON Schemas of the types that configurations use: the forms of strings and numbers, and the keys that
//! every plugin has. Only with the feature `schema`, which no plugin is built with.
//!
//! Each pattern has a `patternErrorMessage`, which editors show and `conflist validate` prints.

pub mod keys;
mod patterns;

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use crate::{Cidr, IfName, NetworkName, Version};

/// An address, or an empty string: what [`crate::address_or_nothing`] reads.
#[derive(Debug)]
pub struct Address;

/// An address with or without a prefix length.
#[derive(Debug)]
pub struct AddressOrCidr;

/// A protocol that has ports.
#[derive(Debug)]
pub struct Protocol;

/// The hardware address of one interface, or an empty string for none.
#[derive(Debug)]
pub struct UnicastMac;

/// The name of a file in `CNI_PATH`.
#[derive(Debug)]
pub struct Program;

/// A switch of a list, for which libcni also accepts a string.
#[derive(Debug)]
pub struct Switch;

/// Three numbers separated by dots.
#[derive(Debug)]
pub struct AnyVersion;

/// 0, or a number from `MIN` to `MAX`.
#[derive(Debug)]
pub struct ZeroOr<const MIN: u64, const MAX: u64>;

/// An MTU in bytes, at least that of IPv4. With 0, the kernel chooses.
pub type Mtu = ZeroOr<68, 65535>;

/// A string with a pattern. The error message is "is not" and `what`.
fn form(pattern: &str, what: &str) -> Schema {
    json_schema!({
        "type": "string",
        "pattern": pattern,
        "patternErrorMessage": format!("is not {what}"),
    })
}

macro_rules! form {
    ($name:ident, $inline:literal, $schema:expr) => {
        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn inline_schema() -> bool {
                $inline
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                $schema
            }
        }
    };
}

// Schemas with a long pattern are written once and referred to.
form!(
    Address,
    false,
    form(&patterns::address_or_nothing(), "an address, such as 10.88.0.1 or fd00:88::1")
);
form!(
    Cidr,
    false,
    form(
        &patterns::cidr(),
        "an address with a prefix length, such as 10.88.0.2/16 or fd00:88::2/64"
    )
);
form!(
    AddressOrCidr,
    false,
    form(&patterns::address_or_cidr(), "an address, with or without a prefix length")
);
form!(Protocol, true, form(patterns::PROTOCOL, "one of tcp, udp, sctp"));
form!(
    UnicastMac,
    false,
    form(patterns::UNICAST_MAC, "a unicast Ethernet address, such as c2:11:22:33:44:55")
);
form!(
    IfName,
    true,
    form(
        patterns::INTERFACE,
        "the name of an interface: at most 15 bytes, no '/', ':', '%' or white space"
    )
);
form!(
    NetworkName,
    true,
    form(patterns::NAME, "a name: a letter or digit, then letters, digits, '_', '.' and '-'")
);
form!(Program, true, form(patterns::FILE, "the name of a program"));
form!(AnyVersion, true, form(patterns::VERSION, "a version: three numbers separated by dots"));
form!(Version, true, json_schema!({"enum": Version::ALL.map(Version::as_str)}));
form!(
    Switch,
    true,
    json_schema!({
        "type": ["boolean", "string"],
        "pattern": patterns::TRUTH,
        "patternErrorMessage": "is not true or false",
    })
);

impl<const MIN: u64, const MAX: u64> JsonSchema for ZeroOr<MIN, MAX> {
    fn schema_name() -> Cow<'static, str> {
        format!("ZeroOr{MIN}To{MAX}").into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "integer",
            "anyOf": [{"const": 0}, {"minimum": MIN, "maximum": MAX}],
        })
    }
}
