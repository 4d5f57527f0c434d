//! Removing everything that the plugin has made on a node.

use cni::{Error, Failures};
use kernel::Nfnetlink;

use crate::{firewalld, iptables, nftables};

/// Removes everything that the plugin has made on a node, for all networks and with all backends. Rules and
/// chains of other programs stay, and so do sources of firewalld whose owner is not recorded. A dry run
/// changes nothing. Returns a line for everything that is removed.
///
/// Errors: one that names all steps that failed. The other steps are done.
pub fn purge(dry_run: bool) -> Result<Vec<String>, Error> {
    let netlink = Nfnetlink::open().map_err(crate::error::Error::from)?;
    let (mut failures, mut removed) = (Failures::new(), Vec::new());
    // The table records the sources. It stays if they could not be removed.
    let sources =
        failures.try_to("remove sources from firewalld", || firewalld::purge(&netlink, dry_run));
    let table = sources
        .as_ref()
        .and_then(|_| failures.try_to("remove the table", || nftables::purge(&netlink, dry_run)));
    let rules = failures.try_to("remove rules", || iptables::purge(&netlink, dry_run));
    for lines in [sources, table, rules] {
        removed.extend(lines.into_iter().flatten());
    }
    failures.into_result().map(|()| removed)
}
