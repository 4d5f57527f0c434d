//! Removing all that this plugin ever wrote on a node, whatever the network.

use kernel::iptables::{Changes, Iptables, NatChain, Rule, Table};
use kernel::{Family, Nfnetlink};

use crate::chains::{CHAIN_PREFIX, SHARED_CHAINS};
use crate::ends::{self, End};
use crate::error::Error;
use crate::flows;
use crate::guard::{self, GUARD_CHAIN, GUARD_TABLE};
use crate::loopback::SwitchedOff;
use crate::nftables;
use crate::remove::OLD_CHAINS;

/// Removes the chains, rules, tables and settings of all networks, of both backends and of both variants of
/// iptables, and the connections that they led to pods; with `dry_run` it only looks. Gives what it removed,
/// or would remove, one thing a line, as people know it from `iptables`, `nft` and `sysctl`.
///
/// The reference plugin's chains in the table `nat` have the same names, so they are removed as well; its
/// tables `cni_hostport` stay. Empty tables and base chains of iptables stay, which others may use, and so
/// does a chain that rules of others lead to, without its rules.
///
/// Errors: what the kernel refused; what came before is done.
pub fn purge(dry_run: bool) -> Result<Vec<String>, Error> {
    let netlink = Nfnetlink::open()?;
    let (mut done, mut ends, mut links) = (Vec::new(), Vec::new(), Vec::new());
    for iptables in &Iptables::all(&netlink)? {
        links.extend(guard::switched_on_links(iptables)?);
        purge_iptables(iptables, dry_run, &mut done, &mut ends)?;
    }
    nftables::purge(&netlink, dry_run, &mut done, &mut ends, &mut links)?;
    links.sort_unstable();
    links.dedup();
    done.extend(links.iter().map(|link| format!("sysctl net.ipv4.conf.{link}.route_localnet = 1")));
    if !dry_run {
        let mut switched_off = SwitchedOff::default();
        links.iter().try_for_each(|link| switched_off.add(link))?;
        flows::forget_ends(&netlink, &ends)?;
    }
    Ok(done)
}

fn purge_iptables(
    iptables: &Iptables<'_>,
    dry_run: bool,
    done: &mut Vec<String>,
    ends: &mut Vec<End>,
) -> Result<(), Error> {
    let (lines, before) = (done.len(), ends.len());
    let mut build = || -> Result<Changes, Error> {
        let mut changes = Changes::new();
        done.truncate(lines);
        ends.truncate(before);
        for family in Family::ALL {
            let chains = [NatChain::Prerouting, NatChain::Output, NatChain::Postrouting];
            let bases = chains.map(NatChain::name);
            for chain in purge_table(iptables, &mut changes, Table::nat(family), &bases, done)? {
                for (_, rule) in iptables.rules(Table::nat(family), &chain)? {
                    ends.extend(ends::end(family, &rule));
                }
            }
        }
        purge_table(iptables, &mut changes, GUARD_TABLE, &[guard::BASE.name()], done)?;
        Ok(changes)
    };
    if dry_run {
        build()?;
        return Ok(());
    }
    iptables.transaction(build)
}

/// Adds what removes our chains from a table, and the rules of its base chains that lead there; gives the
/// chains' names.
fn purge_table(
    iptables: &Iptables<'_>,
    changes: &mut Changes,
    table: Table,
    bases: &[&str],
    done: &mut Vec<String>,
) -> Result<Vec<String>, Error> {
    let names = iptables.chain_names(table)?;
    let (ours, others): (Vec<_>, Vec<_>) = names.into_iter().partition(|name| is_ours(name));
    let variant = if iptables.is_legacy() { "-legacy" } else { "" };
    let program = format!("{}{variant} -t {}", table.program(), table.name());
    let is_to_ours = |rule: &Rule| rule.next_chain().is_some_and(is_ours);
    let mut kept: Vec<String> = Vec::new();
    for chain in if ours.is_empty() { &[] } else { others.as_slice() } {
        for (handle, rule) in iptables.rules(table, chain)?.filter(|(_, rule)| is_to_ours(rule)) {
            if bases.contains(&chain.as_str()) && rule.next_chain().is_some_and(is_shared) {
                changes.delete_rule(table, chain, handle);
                done.push(format!("{program} -A {chain} {rule}"));
            } else {
                kept.extend(rule.next_chain().map(str::to_owned));
            }
        }
    }
    for chain in &ours {
        changes.flush_chain(table, chain);
    }
    for chain in &ours {
        if kept.contains(chain) {
            done.push(format!("{program} -F {chain} (rules of others lead to it, so it stays)"));
        } else {
            changes.delete_chain(table, chain);
            done.push(format!("{program} -N {chain}"));
        }
    }
    Ok(ours)
}

fn is_ours(chain: &str) -> bool {
    is_shared(chain) || chain.starts_with(CHAIN_PREFIX) || chain.starts_with("CNI-SN-")
}

/// Whether base chains lead to a chain.
fn is_shared(chain: &str) -> bool {
    SHARED_CHAINS.contains(&chain) || OLD_CHAINS.contains(&chain) || chain == GUARD_CHAIN
}
