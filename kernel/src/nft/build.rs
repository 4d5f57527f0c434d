//! Short forms for the expressions and values that rules and elements are built of.

use std::net::IpAddr;

use ipnetwork::IpNetwork;

use super::{Base, Element, Expr, Found, Verdict, meta};
use crate::family::Family;

/// `IFNAMSIZ` of `linux/if.h`.
const IFNAMSIZ: usize = 16;

/// The bytes of an address in a packet.
#[must_use]
pub fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().into(),
        IpAddr::V6(v6) => v6.octets().into(),
    }
}

/// The address of these bytes, if there are 4 or 16.
#[must_use]
pub fn address(octets: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(octets).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(octets).map(IpAddr::from)).ok()
}

/// The offsets of the source and the destination address in the network header.
pub(crate) fn address_offsets(family: Family) -> (u32, u32) {
    if family == Family::V4 { (12, 16) } else { (8, 24) }
}

/// The name of an interface as rules compare it: 16 bytes, padded with zeros.
#[must_use]
pub fn interface_name(name: &str) -> Vec<u8> {
    let mut bytes = name.as_bytes().to_vec();
    bytes.resize(IFNAMSIZ, 0);
    bytes
}

impl Element {
    /// An element of a set without a comment.
    #[must_use]
    pub fn of_key(key: Vec<u8>) -> Self {
        Self { key, data: None, comment: None, expires: false }
    }
}

impl Expr {
    /// Go on only if the loaded value is this one.
    #[must_use]
    pub fn equal(value: impl Into<Vec<u8>>) -> Self {
        Self::Cmp { negated: false, value: value.into() }
    }

    /// Go on only if the loaded value has one of these bits; the kernel keeps it in host byte order.
    #[must_use]
    pub fn any_bit(bits: u32) -> [Self; 2] {
        let mask = bits.to_ne_bytes().into();
        [Self::Bitwise { mask, xor: vec![0; 4] }, Self::Cmp { negated: true, value: vec![0; 4] }]
    }

    /// Go on only if the set contains the loaded value.
    #[must_use]
    pub fn is_in(set: &str) -> Self {
        Self::Lookup { set: set.to_owned(), found: Found::Continue }
    }

    /// Go to a chain and come back at its end.
    #[must_use]
    pub fn jump(chain: &str) -> Self {
        Self::Verdict(Verdict::Jump(chain.to_owned()))
    }

    /// Go on only with packets of this family, in a table that sees both.
    #[must_use]
    pub fn is_of(family: Family) -> [Self; 2] {
        [Self::Meta(meta::NFPROTO), Self::equal([family.number()])]
    }

    /// Load the source address.
    #[must_use]
    pub fn source(family: Family) -> Self {
        let (offset, _) = address_offsets(family);
        Self::Payload { base: Base::Network, offset, len: family.address_len().into() }
    }

    /// Load the destination address.
    #[must_use]
    pub fn destination(family: Family) -> Self {
        let (_, offset) = address_offsets(family);
        Self::Payload { base: Base::Network, offset, len: family.address_len().into() }
    }

    /// Go on only if the loaded address is in a network; if `negated`, only if it is not. Like `nft`, loads
    /// only the bytes of the prefix if it ends with a whole byte, and masks the address otherwise.
    #[must_use]
    pub fn in_network(load: Self, network: IpNetwork, negated: bool) -> Vec<Self> {
        let (mut value, prefix) = (octets(network.network()), network.prefix());
        match load {
            Self::Payload { base, offset, .. } if prefix > 0 && prefix.is_multiple_of(8) => {
                let len = prefix / 8;
                value.truncate(len.into());
                let load = Self::Payload { base, offset, len: len.into() };
                vec![load, Self::Cmp { negated, value }]
            }
            load => {
                let xor = vec![0; value.len()];
                let masked = Self::Bitwise { mask: octets(network.mask()), xor };
                vec![load, masked, Self::Cmp { negated, value }]
            }
        }
    }
}
