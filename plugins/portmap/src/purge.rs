//! Removes everything that this plugin has ever made on a node, of all networks.

use kernel::Nfnetlink;
use kernel::iptables::Iptables;

use crate::claim::End;
use crate::error::Error;
use crate::loopback::SwitchedOff;
use crate::{flows, iptables, nftables};

/// What a backend removes.
#[derive(Debug, Default)]
pub(crate) struct Purged {
    /// A line for each thing, as `iptables`, `nft` and `sysctl` show it.
    pub(crate) lines: Vec<String>,
    /// The ends that the rules led to.
    pub(crate) ends: Vec<End>,
    /// The links whose setting `route_localnet` was switched on for a mapping.
    pub(crate) links: Vec<String>,
}

/// Removes the chains, rules, tables and settings of all networks, of both backends and of both variants of
/// iptables, and the connections that they led to pods. A dry run changes nothing. Returns a line for each
/// thing that is removed.
///
/// The reference plugin's chains in the table `nat` have the same names, so they are removed too; its
/// tables `cni_hostport` stay. Empty tables and base chains of iptables stay, because other programs may use
/// them, and so do chains to which rules of other programs jump, without their rules.
///
/// Errors: what the kernel refused; the steps before were done.
pub fn purge(is_dry_run: bool) -> Result<Vec<String>, Error> {
    let netlink = Nfnetlink::open()?;
    let mut all = Purged::default();
    for iptables in &Iptables::all(&netlink)? {
        all.add(iptables::purge(iptables, is_dry_run)?);
    }
    all.add(nftables::purge(&netlink, is_dry_run)?);
    all.links.sort_unstable();
    all.links.dedup();
    let setting = |link: &String| format!("sysctl net.ipv4.conf.{link}.route_localnet = 1");
    all.lines.extend(all.links.iter().map(setting));
    if !is_dry_run {
        let mut switched_off = SwitchedOff::default();
        all.links.iter().try_for_each(|link| switched_off.add(link))?;
        flows::forget_ends(&netlink, &all.ends)?;
    }
    Ok(all.lines)
}

impl Purged {
    pub(crate) fn add(&mut self, other: Self) {
        self.lines.extend(other.lines);
        self.ends.extend(other.ends);
        self.links.extend(other.links);
    }
}
