//! Removing a container's rules, by nothing but names.

use std::net::IpAddr;

use attach::chain_name;
use cni::{ContainerId, NetworkName, ValidAttachments};
use kernel::iptables::{Nat, Rule, Target};
use kernel::{Batch, Nfnetlink};

use crate::apply::same_port;
use crate::error::Error;
use crate::plan::{DNAT_CHAIN, own_chain, owner_id};

/// Where a removed rule led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct End {
    pub(crate) nat: Nat,
    pub(crate) protocol: u8,
    pub(crate) address: IpAddr,
    pub(crate) port: Option<u16>,
}

/// Reference plugins before 0.8 had a second chain for each container.
const OLD_SNAT_CHAIN: &str = "CNI-HOSTPORT-SNAT";

/// Removes all rules of a container, those of the reference plugins too; gives the ends they led to, save
/// those that another container's rules for the same ports lead to as well.
pub(crate) fn remove(
    netlink: &Nfnetlink,
    network: &NetworkName,
    container_id: &ContainerId,
) -> Result<Vec<End>, Error> {
    let (network, id) = (network.as_str(), container_id.as_str());
    let chains =
        [(DNAT_CHAIN, own_chain(network, id)), (OLD_SNAT_CHAIN, chain_name("SN-", network, id))];
    let mut ends = Vec::new();
    netlink.transaction(|netlink| -> Result<Batch, Error> {
        let mut batch = Batch::new();
        ends.clear();
        for nat in [Nat::V4, Nat::V6] {
            for (entry_chain, chain) in &chains {
                if netlink.has_chain(nat.chain(chain))? {
                    let entries: Vec<_> = nat.rules(netlink, entry_chain)?.collect();
                    let entry_chain = (*entry_chain, entries.as_slice());
                    remove_chain(netlink, nat, &mut batch, entry_chain, chain, &mut ends)?;
                }
            }
        }
        Ok(batch)
    })?;
    Ok(ends)
}

/// Removes the rules of the network's containers that have no valid attachment, known by their entries'
/// comments; gives the ends they led to.
pub(crate) fn collect_garbage(
    netlink: &Nfnetlink,
    network: &NetworkName,
    valid: &ValidAttachments,
) -> Result<Vec<End>, Error> {
    let mut ends = Vec::new();
    netlink.transaction(|netlink| -> Result<Batch, Error> {
        let mut batch = Batch::new();
        ends.clear();
        for nat in [Nat::V4, Nat::V6] {
            let entries: Vec<_> = nat.rules(netlink, DNAT_CHAIN)?.collect();
            let mut garbage: Vec<&str> = Vec::new();
            for (_, entry) in &entries {
                let Some(chain) = entry.next_chain() else { continue };
                if is_garbage(entry, chain, network, valid) && !garbage.contains(&chain) {
                    garbage.push(chain);
                }
            }
            for chain in garbage {
                remove_chain(netlink, nat, &mut batch, (DNAT_CHAIN, &entries), chain, &mut ends)?;
            }
        }
        Ok(batch)
    })?;
    Ok(ends)
}

/// Adds to a batch what removes a chain and the entries that lead to it.
fn remove_chain(
    netlink: &Nfnetlink,
    nat: Nat,
    batch: &mut Batch,
    (entry_chain, entries): (&str, &[(u64, Rule)]),
    chain: &str,
    ends: &mut Vec<End>,
) -> Result<(), kernel::Error> {
    let (own, others): (Vec<_>, Vec<_>) =
        entries.iter().partition(|(_, entry)| entry.next_chain() == Some(chain));
    let mut shared = Vec::new();
    for (_, other) in &others {
        if own.iter().any(|(_, entry)| same_port(entry, other)) {
            let rules = other.next_chain().map(|next| nat.rules(netlink, next)).transpose()?;
            shared.extend(rules.into_iter().flatten().filter_map(|(_, rule)| end(nat, &rule)));
        }
    }
    let led_to = nat.rules(netlink, chain)?.filter_map(|(_, rule)| end(nat, &rule));
    ends.extend(led_to.filter(|end| !shared.contains(end)));
    for (handle, _) in own {
        batch.delete_rule(nat.chain(entry_chain), *handle);
    }
    batch.flush_chain(nat.chain(chain));
    batch.delete_chain(nat.chain(chain));
    Ok(())
}

fn is_garbage(entry: &Rule, chain: &str, network: &NetworkName, valid: &ValidAttachments) -> bool {
    let network = network.as_str();
    let owner = entry.comment_text().and_then(|comment| owner_id(comment, network));
    owner.is_some_and(|id| own_chain(network, id) == chain && !valid.contains_container(id))
}

fn end(nat: Nat, rule: &Rule) -> Option<End> {
    match rule.target {
        Some(Target::Dnat { address, port }) => {
            Some(End { nat, protocol: rule.protocol?.value, address, port })
        }
        _ => None,
    }
}
