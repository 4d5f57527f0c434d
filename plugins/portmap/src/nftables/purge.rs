//! Removes the tables.

use kernel::nft::{Contents, Purged as PurgedTable};
use kernel::{Batch, Family, Nfnetlink};

use super::claims::end;
use super::guard::switched_on_links;
use super::table::{masquerade_prefixes, spec, table};
use crate::error::Error;
use crate::purge::Purged;

/// Removes the tables. Rules and chains of other programs in them stay. A dry run changes nothing.
pub(crate) fn purge(netlink: &Nfnetlink, is_dry_run: bool) -> Result<Purged, Error> {
    let mut purged = Purged::default();
    if !netlink.has_nf_tables()? {
        return Ok(purged);
    }
    for family in Family::ALL {
        let contents = Contents::read(netlink, table(family))?;
        purged.ends.extend(contents.owned().filter_map(|owned| end(family, &owned)));
        purged.links.extend(switched_on_links(&contents));
        let spec = spec(family, &masquerade_prefixes(&contents));
        let mut removed = PurgedTable::Nothing;
        netlink.transaction(|netlink| -> Result<Batch, Error> {
            let mut batch = Batch::new();
            removed = spec.purge(netlink, &mut batch, |rule| rule.comment.is_some())?;
            Ok(if is_dry_run { Batch::new() } else { batch })
        })?;
        purged.lines.extend(match removed {
            PurgedTable::Nothing => None,
            PurgedTable::Table => Some(format!("nft table {}", table(family))),
            PurgedTable::Parts => Some(format!("nft rules and sets in table {}", table(family))),
        });
    }
    Ok(purged)
}
