//! What is in the tables at the moment, and whose it is.

use std::net::IpAddr;

use kernel::Family;
use kernel::nft::{Data, Element, Expr, Listed};
use kernel::{Batch, Nfnetlink};

use super::plan::Claim;
use super::table::{CONDITIONAL_PORTS, HOST_IP_PORTS, HOST_PORTS, TABLE, chain, destination, set};
use crate::ends::End;

/// The table of one family: nothing in it if it is not there.
pub(super) struct Held {
    pub(super) family: Family,
    pub(super) sets: Vec<(String, Vec<Element>)>,
    /// With the names of their chains.
    pub(super) rules: Vec<(String, Listed)>,
}

/// Something that has an owner.
#[derive(Clone, Copy)]
pub(super) struct Holding<'a> {
    family: Family,
    pub(super) owner: &'a str,
    pub(super) place: Place<'a>,
}

/// Where it is.
#[derive(Clone, Copy)]
pub(super) enum Place<'a> {
    /// In this set.
    Element(&'a str, &'a Element),
    /// In this chain.
    Rule(&'a str, &'a Listed),
}

/// How elements are taken away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// They vanish by themselves, at the next tick of the clock.
    Expire,
    /// They are deleted, and the socket's closing waits for their disposal.
    Delete,
}

impl Held {
    pub(super) fn read(netlink: &Nfnetlink, family: Family) -> Result<Self, kernel::Error> {
        let mut sets = Vec::new();
        for name in netlink.set_names(family.into(), TABLE)? {
            let elements = netlink.elements(set(family, &name))?;
            sets.push((name, elements));
        }
        // Without sets there is no table, or nothing of ours in it.
        let rules =
            if sets.is_empty() { Vec::new() } else { netlink.table_rules(family.into(), TABLE)? };
        Ok(Self { family, sets, rules })
    }

    pub(super) fn elements(&self, set: &str) -> &[Element] {
        self.sets.iter().find(|(name, _)| name == set).map_or(&[], |(_, elements)| elements)
    }

    /// All that has an owner.
    pub(super) fn holdings(&self) -> impl Iterator<Item = Holding<'_>> {
        let of_sets = self.sets.iter().flat_map(move |(set, elements)| {
            elements.iter().filter_map(move |element| {
                let place = Place::Element(set, element);
                Some(Holding { family: self.family, owner: element.comment.as_deref()?, place })
            })
        });
        let of_chains = self.rules.iter().filter_map(move |(chain, rule)| {
            let place = Place::Rule(chain, rule);
            Some(Holding { family: self.family, owner: rule.comment.as_deref()?, place })
        });
        of_sets.chain(of_chains)
    }

    /// Adds to a batch what takes holdings away, and with the last rule of a port its chain.
    pub(super) fn remove(&self, batch: &mut Batch, doomed: &[Holding<'_>], way: Way) {
        let mut chains: Vec<&str> = Vec::new();
        for Holding { place, .. } in doomed {
            match place {
                Place::Element(name, element) if way == Way::Expire => {
                    batch.expire_element(set(self.family, name), element);
                }
                Place::Element(name, element) => {
                    batch.delete_element(set(self.family, name), &element.key);
                }
                Place::Rule(name, rule) => {
                    batch.delete_rule(chain(self.family, name), rule.handle);
                    chains.push(name);
                }
            }
        }
        chains.sort_unstable();
        let gone = chains.chunk_by(|a, b| a == b).filter(|same| {
            same.len() == self.rules.iter().filter(|(chain, _)| chain == same[0]).count()
        });
        for name in gone.map(|same| same[0]) {
            for entry in
                self.elements(CONDITIONAL_PORTS).iter().filter(|entry| leads_to(entry, name))
            {
                batch.delete_element(set(self.family, CONDITIONAL_PORTS), &entry.key);
            }
            batch.delete_chain(chain(self.family, name));
        }
    }
}

impl Holding<'_> {
    pub(super) fn family(&self) -> Family {
        self.family
    }

    /// Whether it will be gone by itself.
    pub(super) fn expires(&self) -> bool {
        matches!(self.place, Place::Element(_, element) if element.expires)
    }

    /// The port of the node that it stands for.
    pub(super) fn claim(&self) -> Option<Claim> {
        match self.place {
            Place::Element(HOST_PORTS, element) => claim_of_key(None, &element.key),
            Place::Element(HOST_IP_PORTS, element) => {
                let (host_ip, key) = split_address(self.family, &element.key)?;
                claim_of_key(Some(host_ip), key)
            }
            Place::Element(..) => None,
            Place::Rule(_, rule) => claim_of_rule(self.family, &rule.expressions),
        }
    }

    /// Where it leads to.
    pub(super) fn end(&self) -> Option<End> {
        let protocol = self.claim()?.protocol;
        let (address, port) = match self.place {
            Place::Element(_, element) => {
                let Some(Data::Value(data)) = &element.data else { return None };
                let (address, port) = split_address(self.family, data)?;
                (address, port.first_chunk().copied()?)
            }
            Place::Rule(_, rule) => written_out(self.family, &rule.expressions)?,
        };
        Some(End { family: self.family, protocol, address, port: Some(u16::from_be_bytes(port)) })
    }
}

/// The destination that a rule ends with.
pub(super) fn written_out(family: Family, expressions: &[Expr]) -> Option<(IpAddr, [u8; 2])> {
    let [.., Expr::Immediate(address), Expr::At(_, port), Expr::Dnat { .. }] = expressions else {
        return None;
    };
    let Expr::Immediate(port) = port.as_ref() else { return None };
    Some((split_address(family, address)?.0, port.first_chunk().copied()?))
}

fn leads_to(entry: &Element, chain: &str) -> bool {
    use kernel::nft::Verdict::{Goto, Jump};
    matches!(&entry.data, Some(Data::Verdict(Jump(to) | Goto(to))) if to == chain)
}

fn claim_of_key(host_ip: Option<IpAddr>, key: &[u8]) -> Option<Claim> {
    let [protocol, _, _, _, high, low, ..] = *key else { return None };
    Some(Claim { protocol, port: u16::from_be_bytes([high, low]), host_ip })
}

fn claim_of_rule(family: Family, expressions: &[Expr]) -> Option<Claim> {
    let [_, Expr::Cmp { value: protocol, .. }, _, Expr::Cmp { value: port, .. }, rest @ ..] =
        expressions
    else {
        return None;
    };
    let host_ip = match rest {
        [load, Expr::Cmp { negated: false, value }, ..] if *load == destination(family) => {
            Some(split_address(family, value)?.0)
        }
        _ => None,
    };
    let port = u16::from_be_bytes(port.first_chunk().copied()?);
    Some(Claim { protocol: *protocol.first()?, port, host_ip })
}

/// An address, and the bytes behind it.
pub(super) fn split_address(family: Family, bytes: &[u8]) -> Option<(IpAddr, &[u8])> {
    if family == Family::V6 {
        let (address, rest) = bytes.split_first_chunk::<16>()?;
        Some((IpAddr::from(*address), rest))
    } else {
        let (address, rest) = bytes.split_first_chunk::<4>()?;
        Some((IpAddr::from(*address), rest))
    }
}
