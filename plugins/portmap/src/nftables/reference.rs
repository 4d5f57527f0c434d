//! What the reference plugins' backend `nftables` leaves: rules with the container's ID as their comment.

use cni::ContainerId;
use kernel::iptables::Nat;
use kernel::nft::{Chain, Expr, Listed};
use kernel::{Batch, Nfnetlink};

use super::held::{FAMILIES, written_out};
use super::table::protocol;
use crate::error::Error;
use crate::remove::End;

const TABLE: &str = "cni_hostport";
const CHAINS: [&str; 3] = ["hostports", "hostip_hostports", "masquerading"];

/// Removes the rules of a container, as those plugins do: whatever the network, which is not on them.
pub(super) fn remove(
    netlink: &Nfnetlink,
    container_id: &ContainerId,
    ends: &mut Vec<End>,
) -> Result<(), Error> {
    let is_unused = |nat: Nat| -> Result<bool, kernel::Error> {
        Ok(netlink.table_rules(nat.family(), TABLE)?.is_empty())
    };
    if is_unused(Nat::V4)? && is_unused(Nat::V6)? {
        return Ok(());
    }
    let before = ends.len();
    Ok(netlink.transaction(|netlink| -> Result<Batch, kernel::Error> {
        let mut batch = Batch::new();
        ends.truncate(before);
        for nat in FAMILIES {
            for (chain, rule) in netlink.table_rules(nat.family(), TABLE)? {
                let is_theirs = CHAINS.contains(&chain.as_str());
                if is_theirs && rule.comment.as_deref() == Some(container_id.as_str()) {
                    let chain = Chain { family: nat.family(), table: TABLE, name: &chain };
                    batch.delete_rule(chain, rule.handle);
                    ends.extend(end(nat, &rule));
                }
            }
        }
        Ok(batch)
    })?)
}

/// Where a rule leads to: `tcp dport 8080 dnat to 10.88.0.2:80`, perhaps with an address before.
fn end(nat: Nat, rule: &Listed) -> Option<End> {
    let at = rule.expressions.iter().position(|step| *step == protocol())?;
    let Some(Expr::Cmp { value, .. }) = rule.expressions.get(at + 1) else { return None };
    let (address, port) = written_out(nat, &rule.expressions)?;
    Some(End { nat, protocol: *value.first()?, address, port: Some(u16::from_be_bytes(port)) })
}
