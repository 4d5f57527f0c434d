//! Reads the claims and ends of elements and rules.

use std::net::IpAddr;

use kernel::Family;
use kernel::nft::{Data, Element, Expr, Owned, OwnedPlace};

use super::table::{HOST_IP_PORTS, HOST_PORTS, destination_port, protocol};
use crate::claim::{Claim, End};

/// The port of the node that an element or rule stands for.
pub(super) fn claim(family: Family, owned: &Owned<'_>) -> Option<Claim> {
    match owned.place {
        OwnedPlace::Element(HOST_PORTS, element) => claim_of_key(None, &element.key),
        OwnedPlace::Element(HOST_IP_PORTS, element) => {
            let (host_ip, key) = split_address(family, &element.key)?;
            claim_of_key(Some(host_ip), key)
        }
        OwnedPlace::Element(..) => None,
        OwnedPlace::Rule(_, rule) => claim_of_rule(family, &rule.expressions),
    }
}

/// The end that an element or rule leads to.
pub(super) fn end(family: Family, owned: &Owned<'_>) -> Option<End> {
    let protocol = claim(family, owned)?.protocol;
    let (address, port) = match owned.place {
        OwnedPlace::Element(_, element) => {
            let Some(Data::Value(data)) = &element.data else { return None };
            let (address, port) = split_address(family, data)?;
            (address, u16::from_be_bytes(port.first_chunk().copied()?))
        }
        OwnedPlace::Rule(_, rule) => dnat_destination(family, &rule.expressions)?,
    };
    Some(End { family, protocol, address, port: Some(port) })
}

/// Whether an element or rule is an element that will expire soon.
pub(super) fn expires(owned: &Owned<'_>) -> bool {
    matches!(owned.place, OwnedPlace::Element(_, Element { expires: true, .. }))
}

/// The claim of a rule `ip daddr 192.0.2.1 tcp dport 8080 …`, with the address before or after the port, or
/// without it.
pub(super) fn claim_of_rule(family: Family, expressions: &[Expr]) -> Option<Claim> {
    let at = expressions.iter().position(|step| *step == protocol())?;
    let [_, Expr::Cmp { value: protocol, .. }, load, Expr::Cmp { value: port, .. }, rest @ ..] =
        &expressions[at..]
    else {
        return None;
    };
    if *load != destination_port() {
        return None;
    }
    let address = |load: &Expr, value| {
        (*load == Expr::destination(family)).then(|| split_address(family, value)).flatten()
    };
    let host_ip = match (&expressions[..at], rest) {
        ([.., load, Expr::Cmp { negated: false, value }], _)
        | ([], [load, Expr::Cmp { negated: false, value }, ..]) => address(load, value),
        _ => None,
    };
    let port = u16::from_be_bytes(port.first_chunk().copied()?);
    let host_ip = host_ip.map(|(address, _)| address);
    Some(Claim { protocol: *protocol.first()?, port, host_ip })
}

/// The address and port at the end of a rule with a DNAT.
pub(super) fn dnat_destination(family: Family, expressions: &[Expr]) -> Option<(IpAddr, u16)> {
    let [.., Expr::Immediate(address), Expr::At(_, port), Expr::Dnat { .. }] = expressions else {
        return None;
    };
    let Expr::Immediate(port) = port.as_ref() else { return None };
    let port = u16::from_be_bytes(port.first_chunk().copied()?);
    Some((split_address(family, address)?.0, port))
}

fn claim_of_key(host_ip: Option<IpAddr>, key: &[u8]) -> Option<Claim> {
    let [protocol, _, _, _, high, low, ..] = *key else { return None };
    Some(Claim { protocol, port: u16::from_be_bytes([high, low]), host_ip })
}

/// An address, and the bytes after it.
pub(super) fn split_address(family: Family, bytes: &[u8]) -> Option<(IpAddr, &[u8])> {
    let (address, rest) = bytes.split_at_checked(family.address_len().into())?;
    Some((kernel::nft::address(address)?, rest))
}
