//! Removes the rules of containers that have no valid attachment.

use std::cell::Cell;
use std::net::IpAddr;

use cni::{NetworkName, ValidAttachments};
use kernel::iptables::{Iptables, Rule, Table};
use kernel::{Family, Nfnetlink};

use super::guard;
use super::names::{CHAIN_PREFIX, DNAT_CHAIN, has_cut_id, own_chain, owner_id};
use super::remove::{Doomed, ends_of, in_all_variants, remove_all};
use crate::claim::Removed;

/// This many chains are removed at a time, because a batch must fit in the socket's buffer.
const PIECE: usize = 64;

/// Removes the rules of the network's containers that have no valid attachment, found by the comments on
/// their entries.
pub(crate) fn collect_garbage(
    netlink: &Nfnetlink,
    network: &NetworkName,
    valid: &ValidAttachments,
) -> Removed {
    in_all_variants(netlink, |iptables| {
        let mut removed = remove_in_pieces(iptables, network.as_str(), valid);
        let guarded = guard::collect_garbage(iptables);
        removed.add("remove rules", Removed::of("remove the guard", Vec::new(), guarded));
        removed
    })
}

fn remove_in_pieces(iptables: &Iptables<'_>, network: &str, valid: &ValidAttachments) -> Removed {
    let mut removed = Removed::default();
    loop {
        let is_partial = Cell::new(false);
        let (piece, is_done) = remove_all(iptables, || {
            let mut all = find_garbage(iptables, network, valid)?;
            is_partial.set(all.len() > PIECE);
            all.truncate(PIECE);
            Ok(all)
        });
        removed.add("collect garbage", piece);
        if !is_done || !is_partial.get() {
            return removed;
        }
    }
}

fn find_garbage(
    iptables: &Iptables<'_>,
    network: &str,
    valid: &ValidAttachments,
) -> Result<Vec<Doomed>, kernel::Error> {
    let valid_chains = valid.containers().map(|id| own_chain(network, id.as_str()));
    let valid_chains: Vec<String> = valid_chains.collect();
    let mut garbage: Vec<Doomed> = Vec::new();
    for family in Family::ALL {
        let entries = iptables.rules(Table::nat(family), DNAT_CHAIN)?.map(|(_, entry)| entry);
        let entries: Vec<Rule> = entries.collect();
        let mut taken: Option<Vec<IpAddr>> = None;
        for entry in &entries {
            let Some(chain) = entry.next_chain() else { continue };
            if garbage.iter().any(|known| known.family == family && known.chain == chain) {
                continue;
            }
            let text = entry.comment_text().unwrap_or_default();
            let is_garbage = if let Some(id) = owner_id(text, network) {
                own_chain(network, id) == chain && !valid.contains_container(id)
            } else if !chain.starts_with(CHAIN_PREFIX) || valid_chains.iter().any(|it| it == chain)
            {
                false
            } else if text.is_empty() {
                if taken.is_none() {
                    taken = Some(addresses(iptables, family, &entries, &valid_chains)?);
                }
                has_only(iptables, family, chain, taken.as_deref().unwrap_or_default())?
            } else {
                // A cut ID does not give the chain's name, but all valid chains were excluded above.
                has_cut_id(text, network)
            };
            if is_garbage {
                let (chain, comment) = (chain.to_owned(), text.to_owned());
                garbage.push(Doomed { family, entry_chain: DNAT_CHAIN, chain, comment });
            }
        }
    }
    Ok(garbage)
}

/// The addresses that these chains lead to, if they have entries.
fn addresses(
    iptables: &Iptables<'_>,
    family: Family,
    entries: &[Rule],
    chains: &[String],
) -> Result<Vec<IpAddr>, kernel::Error> {
    let mut addresses = Vec::new();
    for chain in chains {
        if entries.iter().any(|entry| entry.next_chain() == Some(chain)) {
            let ends = ends_of(iptables, family, chain)?;
            addresses.extend(ends.into_iter().map(|end| end.address));
        }
    }
    Ok(addresses)
}

/// Whether a chain leads only to these addresses. A chain without its owner's name is certainly garbage if
/// valid attachments have its addresses now.
fn has_only(
    iptables: &Iptables<'_>,
    family: Family,
    chain: &str,
    addresses: &[IpAddr],
) -> Result<bool, kernel::Error> {
    let ends = ends_of(iptables, family, chain)?;
    Ok(!ends.is_empty() && ends.iter().all(|end| addresses.contains(&end.address)))
}
