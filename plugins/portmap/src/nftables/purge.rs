//! Removing the tables with all that is in them.

use kernel::nft::TableFamily;
use kernel::{Batch, Family, Nfnetlink};

use super::guard::switched_on_links;
use super::held::{Held, Holding};
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
    for family in Family::ALL {
        let held = Held::read(netlink, family)?;
        // Even an empty table of ours has its sets.
        if held.sets.is_empty() {
            continue;
        }
        ends.extend(held.holdings().filter_map(|holding: Holding<'_>| holding.end()));
        links.extend(switched_on_links(&held));
        done.push(format!("nft table {} {TABLE}", TableFamily::from(family).name()));
        if dry_run {
            continue;
        }
        let mut batch = Batch::new();
        batch.delete_table(family.into(), TABLE);
        match netlink.commit(&batch) {
            Err(error) if error.is_not_found() => {}
            deleted => deleted?,
        }
    }
    Ok(())
}
