//! Removes the tables.

use kernel::nft::{Contents, Listed, Purged as PurgedTable};
use kernel::{Batch, Family, Nfnetlink};

use super::claims::end;
use super::elements::{is_owner, is_port_chain};
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
        let (mut of_family, mut removed) = (Purged::default(), PurgedTable::Nothing);
        netlink.transaction(|netlink| -> Result<Batch, Error> {
            let contents = Contents::read(netlink, table(family))?;
            let ends = contents.owned().filter_map(|owned| end(family, &owned)).collect();
            let links = switched_on_links(&contents).collect();
            of_family = Purged { ends, links, ..Purged::default() };
            let spec = spec(family, &masquerade_prefixes(&contents));
            let is_owned = |rule: &Listed| rule.comment.as_deref().is_some_and(is_owner);
            let mut batch = Batch::new();
            removed = spec.purge(netlink, &mut batch, is_owned, is_port_chain)?;
            Ok(if is_dry_run { Batch::new() } else { batch })
        })?;
        of_family.lines.extend(match removed {
            PurgedTable::Nothing => None,
            PurgedTable::Table => Some(format!("nft table {}", table(family))),
            PurgedTable::Parts => Some(format!("nft rules and sets in table {}", table(family))),
        });
        purged.add(of_family);
    }
    Ok(purged)
}
