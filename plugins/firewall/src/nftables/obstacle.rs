//! What no rule of ours can help against: a chain of another table that drops.

use std::net::IpAddr;

use kernel::Nfnetlink;
use kernel::iptables::ct_state;
use kernel::nft::{Chain, Expr, Family, Found, Hook, Verdict};

use super::table::TABLE;
use crate::error::Error;

/// Refuses if packets to and from all these addresses are certain to be dropped.
pub(super) fn refuse(netlink: &Nfnetlink, addresses: &[IpAddr]) -> Result<(), Error> {
    let mut found = None;
    for address in addresses {
        let of_address = if address.is_ipv4() { Family::Ipv4 } else { Family::Ipv6 };
        found = find(netlink, of_address)?;
        if found.is_none() {
            return Ok(());
        }
    }
    found.map_or(Ok(()), |chain| Err(Error::Dropped { chain }))
}

/// A chain whose policy is to drop what is forwarded, and that has no rule which would let through what is
/// new.
fn find(netlink: &Nfnetlink, family: Family) -> Result<Option<String>, kernel::Error> {
    for family in [Family::Inet, family] {
        for (table, name) in netlink.dropping_chains(family, Hook::Forward)? {
            let chain = Chain { family, table: &table, name: &name };
            let is_ours = family == Family::Inet && table == TABLE;
            if !is_ours && !netlink.rules(chain)?.any(|rule| may_accept(&rule.expressions)) {
                return Ok(Some(chain.to_string()));
            }
        }
    }
    Ok(None)
}

/// Whether a rule may let packets of new connections through, itself or by other chains.
fn may_accept(rule: &[Expr]) -> bool {
    let ends = |expression: &Expr| match expression {
        Expr::Verdict(verdict) => !matches!(verdict, Verdict::Drop | Verdict::Return),
        Expr::Lookup { found, .. } => *found == Found::Verdict,
        Expr::Other { name, .. } => !["log", "limit", "reject"].contains(&name.as_str()),
        Expr::Match(_) | Expr::Target(_) => true,
        _ => false,
    };
    rule.iter().any(ends) && !is_for_answers(rule)
}

/// Whether a rule is about nothing but packets of connections that are there already.
fn is_for_answers(rule: &[Expr]) -> bool {
    let new = u32::from(ct_state::NEW | ct_state::UNTRACKED);
    rule.windows(3).any(|three| match three {
        [Expr::ConntrackState, Expr::Bitwise { mask, .. }, Expr::Cmp { negated: true, value }] => {
            let bits = mask.first_chunk().copied().map_or(new, u32::from_ne_bytes);
            bits & new == 0 && value.iter().all(|byte| *byte == 0)
        }
        _ => false,
    })
}
