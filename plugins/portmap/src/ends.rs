//! The ends that mappings lead to.

use std::net::IpAddr;

use kernel::Family;
use kernel::iptables::{Rule, Target};

/// Where a removed rule led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct End {
    pub(crate) family: Family,
    pub(crate) protocol: u8,
    pub(crate) address: IpAddr,
    pub(crate) port: Option<u16>,
}

/// The end that a rule leads to; none if it is not a DNAT rule.
pub(crate) fn end(family: Family, rule: &Rule) -> Option<End> {
    match rule.target {
        Some(Target::Dnat { address, port }) => {
            Some(End { family, protocol: rule.protocol?.value, address, port })
        }
        _ => None,
    }
}
