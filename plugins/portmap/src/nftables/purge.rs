//! Removing the tables with all that is in them.

use kernel::{Batch, Nfnetlink};

use super::guard::switched_on_links;
use super::held::{FAMILIES, Held, Holding};
use super::table::TABLE;
use crate::ends::End;
use crate::error::Error;

/// Deletes the tables; adds to `ends` what they led to, to `links` those whose setting was switched on,
/// and to
/// `done` what was deleted.
pub(crate) fn purge(
    netlink: &Nfnetlink,
    dry_run: bool,
    done: &mut Vec<String>,
    ends: &mut Vec<End>,
    links: &mut Vec<String>,
) -> Result<(), Error> {
    if !netlink.has_nf_tables()? {
        return Ok(());
    }
    for nat in FAMILIES {
        let held = Held::read(netlink, nat)?;
        // Even an empty table of ours has its sets.
        if held.sets.is_empty() {
            continue;
        }
        ends.extend(held.holdings().filter_map(|holding: Holding<'_>| holding.end()));
        links.extend(switched_on_links(&held));
        done.push(format!("nft table {} {TABLE}", nat.family().name()));
        if dry_run {
            continue;
        }
        let mut batch = Batch::new();
        batch.delete_table(nat.family(), TABLE);
        match netlink.commit(&batch) {
            Err(error) if error.is_not_found() => {}
            deleted => deleted?,
        }
    }
    Ok(())
}
