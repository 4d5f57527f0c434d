//! What may stand under a key.

use std::net::IpAddr;

use cni::{Cidr, Mac, NetworkName, Version};

/// A key that somebody reads.
#[derive(Debug)]
pub(crate) struct Key {
    pub(crate) name: &'static str,
    pub(crate) shape: Shape,
    /// Why it has to be there, if it has to.
    pub(crate) required: Option<&'static str>,
}

impl Key {
    /// A key that may be absent.
    pub(crate) const fn new(name: &'static str, shape: Shape) -> Self {
        Self { name, shape, required: None }
    }

    /// A key that has to be there, and why.
    pub(crate) const fn required(name: &'static str, shape: Shape, why: &'static str) -> Self {
        Self { name, shape, required: Some(why) }
    }
}

/// What a value has to look like.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Shape {
    /// Anything.
    Any,
    /// `true` or `false`.
    Bool,
    /// The same; libcni takes it as text too.
    BoolOrText,
    /// Any text.
    Text,
    /// A text of a form.
    Form(Form),
    /// One of some texts.
    OneOf(&'static [&'static str]),
    /// A whole number, from and to.
    Number(i128, i128),
    /// A list of such values.
    List(&'static Shape),
    /// An object with these keys.
    Object(&'static [Key]),
    /// An object with any keys and such values.
    Map(&'static Shape),
}

/// The form of a text.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Form {
    /// `10.88.0.1`
    Address,
    /// `10.88.0.2/16`
    AddressInNetwork,
    /// `10.88.0.0/16`
    Network,
    /// `c2:11:22:33:44:55`
    Mac,
    /// The name of an interface.
    Interface,
    /// The name of a network.
    NetworkName,
    /// A version of the specification.
    Version,
    /// Three numbers between dots.
    AnyVersion,
    /// The name of a file.
    FileName,
}

impl Shape {
    /// What it is, for a message.
    pub(crate) fn what(&self) -> String {
        match self {
            Self::Any => "anything".into(),
            Self::Bool | Self::BoolOrText => "true or false".into(),
            Self::Text | Self::Form(_) | Self::OneOf(_) => "a text".into(),
            Self::Number(..) => "a number".into(),
            Self::List(Self::List(_)) => "a list of lists".into(),
            Self::List(Self::Object(_)) => "a list of objects".into(),
            Self::List(Self::Number(..)) => "a list of numbers".into(),
            Self::List(_) => "a list of texts".into(),
            Self::Object(_) | Self::Map(_) => "an object".into(),
        }
    }
}

impl Form {
    /// Whether a text has this form. Where Go reads nothing from an empty text, so do we.
    pub(crate) fn fits(self, text: &str) -> bool {
        match self {
            Self::Address | Self::Mac if text.is_empty() => true,
            Self::Address => text.parse::<IpAddr>().is_ok(),
            Self::AddressInNetwork => text.parse::<Cidr>().is_ok(),
            Self::Network => text.parse::<Cidr>().is_ok_and(|cidr| cidr.network() == cidr),
            Self::Mac => text.parse::<Mac>().is_ok(),
            Self::Interface => text.parse::<cni::IfName>().is_ok(),
            Self::NetworkName => text.parse::<NetworkName>().is_ok(),
            Self::Version => !text.is_empty() && text.parse::<Version>().is_ok(),
            Self::AnyVersion => {
                let numbers: Vec<&str> = text.split('.').collect();
                numbers.len() == 3 && numbers.iter().all(|number| number.parse::<u32>().is_ok())
            }
            Self::FileName => {
                !text.is_empty() && !text.contains('/') && text != "." && text != ".."
            }
        }
    }

    /// What it is, for a message: `… is not …`.
    pub(crate) fn what(self) -> String {
        match self {
            Self::Address => "an address, such as 10.88.0.1 or fd00:88::1".into(),
            Self::AddressInNetwork => {
                "an address with a prefix length, such as 10.88.0.2/16 or fd00:88::2/64".into()
            }
            Self::Network => "a network without host bits, such as 10.88.0.0/16".into(),
            Self::Mac => "an Ethernet address, such as c2:11:22:33:44:55".into(),
            Self::Interface => {
                "the name of an interface: at most 15 bytes, no '/', ':' or space".into()
            }
            Self::NetworkName => {
                "a name: letters, digits, '_', '.' and '-', beginning with a letter or digit".into()
            }
            Self::Version => format!("a known version: {}", Version::list()),
            Self::AnyVersion => "a version: three numbers between dots".into(),
            Self::FileName => "the name of a program".into(),
        }
    }
}
