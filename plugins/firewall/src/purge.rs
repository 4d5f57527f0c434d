//! Removing everything that the plugin has ever made on a node.

use cni::{Error, Failures};
use kernel::Nfnetlink;

use crate::{firewalld, iptables, nftables};

/// Removes everything that the plugin ever makes on a node, of all networks and backends; with `dry_run`,
/// only says what that would be. Rules and chains of others stay, and so do sources of firewalld whose
/// owner is not noted. Gives a line for everything that was removed.
///
/// Errors: one that names all steps that failed; the other steps were done.
pub fn purge(dry_run: bool) -> Result<Vec<String>, Error> {
    let netlink = Nfnetlink::open().map_err(crate::Error::from)?;
    let (mut failures, mut removed) = (Failures::new(), Vec::new());
    // Sources first: the table notes them.
    let sources =
        failures.try_to("remove sources from firewalld", || firewalld::purge(&netlink, dry_run));
    let table = match sources {
        // Without the notes, nobody would find the sources again.
        None => None,
        Some(_) => failures.try_to("remove the table", || nftables::purge(&netlink, dry_run)),
    };
    let rules = failures.try_to("remove rules", || iptables::purge(&netlink, dry_run));
    for lines in [sources, table, rules] {
        removed.extend(lines.into_iter().flatten());
    }
    failures.into_result().map(|()| removed)
}
