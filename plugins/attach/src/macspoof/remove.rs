//! Removing rules of `macspoofchk`: by DEL, by GC, after a failed ADD, and from the whole node.

use cni::Attachment;
use kernel::nft::{Expr, Verdict, meta};
use kernel::{Batch, Nfnetlink};

use super::names::{CHAIN_PREFIX, Names, PREROUTING, TABLE, chain};
use crate::error::Error;

/// Removes the rules of an attachment by its names alone, also if the reference plugins made them.
pub fn remove(netlink: &Nfnetlink, attachment: &Attachment) -> Result<(), Error> {
    let names = Names::of(attachment);
    netlink.transaction(|netlink| {
        let mut batch = Batch::new();
        delete_names(netlink, &mut batch, &names)?;
        Ok(batch)
    })
}

/// Removes the rules for interfaces of the node that are gone. The rules do not say which network they
/// belong to, so GC deletes links first and calls this after that.
///
/// `link_exists` is called after the rules have been read, and again if they change. It must look at that
/// time: a link that it saw before may have got its rules only now.
pub fn collect_garbage(
    netlink: &Nfnetlink,
    link_exists: impl Fn(&str) -> bool,
) -> Result<(), Error> {
    netlink.transaction(|netlink| {
        let mut batch = Batch::new();
        for rule in netlink.rules(PREROUTING)? {
            let Some((interface, target)) = jump_by_interface(&rule.expressions) else { continue };
            let Some(id) = target.strip_prefix(CHAIN_PREFIX) else { continue };
            if !link_exists(interface) {
                delete_names(netlink, &mut batch, &Names::of_id(id))?;
            }
        }
        Ok(batch)
    })
}

/// Removes the table if it contains nothing but an empty `PREROUTING`, after an ADD that made the table has
/// failed. A DEL leaves it, because the next pod would have to make it again.
pub fn remove_empty_table(netlink: &Nfnetlink) -> Result<(), Error> {
    netlink.transaction(|netlink| Ok(clear(netlink, &[])?.0))
}

/// Removes the rules of all attachments, and the table if nothing else is in it. A dry run changes nothing.
/// Returns the chains and the table.
pub(crate) fn purge(netlink: &Nfnetlink, is_dry_run: bool) -> Result<Vec<String>, Error> {
    let mut found = Vec::new();
    let mut build = |netlink: &Nfnetlink| -> Result<Batch, Error> {
        let mut ours = netlink.chain_names(TABLE)?;
        ours.retain(|name| name.starts_with(CHAIN_PREFIX));
        found = ours.iter().map(|name| format!("nft chain {}", chain(name))).collect();
        if ours.is_empty() {
            return Ok(Batch::new());
        }
        let (batch, deletes_table) = clear(netlink, &ours)?;
        found.extend(deletes_table.then(|| format!("nft table {TABLE}")));
        Ok(batch)
    };
    if is_dry_run {
        build(netlink)?;
    } else {
        netlink.transaction(build)?;
    }
    Ok(found)
}

/// What deletes chains, and the table if nothing else is in it. Also returns whether it deletes the table.
fn clear(netlink: &Nfnetlink, chains: &[String]) -> kernel::Result<(Batch, bool)> {
    let mut batch = Batch::new();
    let mut names = netlink.chain_names(TABLE)?;
    names.retain(|name| !chains.contains(name));
    let kept = delete_chains(netlink, &mut batch, chains)?;
    let deletes_table =
        names == [PREROUTING.name] && kept == 0 && netlink.set_names(TABLE)?.is_empty();
    if deletes_table {
        batch.delete_table(TABLE);
    }
    Ok((batch, deletes_table))
}

/// Deletes what an attachment has: its chains and the rule that jumps to them.
pub(super) fn delete_names(
    netlink: &Nfnetlink,
    batch: &mut Batch,
    names: &Names,
) -> kernel::Result<()> {
    let present = names.present(netlink)?;
    if !present.is_empty() {
        delete_chains(netlink, batch, &present)?;
    }
    Ok(())
}

/// Deletes chains and the rules of `PREROUTING` that jump to them. Returns how many rules `PREROUTING` keeps.
fn delete_chains(
    netlink: &Nfnetlink,
    batch: &mut Batch,
    chains: &[String],
) -> kernel::Result<usize> {
    let mut kept = 0;
    for rule in netlink.rules(PREROUTING)? {
        match rule.expressions.last() {
            Some(Expr::Verdict(Verdict::Jump(target))) if chains.contains(target) => {
                batch.delete_rule(PREROUTING, rule.handle);
            }
            _ => kept += 1,
        }
    }
    for name in chains {
        batch.flush_chain(chain(name));
    }
    for name in chains {
        batch.delete_chain(chain(name));
    }
    Ok(kept)
}

/// The interface and the chain of a rule `iifname "…" jump …`.
fn jump_by_interface(expressions: &[Expr]) -> Option<(&str, &str)> {
    match expressions {
        [
            Expr::Meta(meta::IIFNAME),
            Expr::Cmp { negated: false, value },
            ..,
            Expr::Verdict(Verdict::Jump(target)),
        ] => {
            let name = value.split(|byte| *byte == 0).next()?;
            Some((std::str::from_utf8(name).ok()?, target))
        }
        _ => None,
    }
}
