//! `macspoofchk`: a pod may send frames from its own hardware address only.
//!
//! In the table `bridge nat`, `PREROUTING` sends what comes in by the node's end of the pod's veth pair to a
//! chain of the attachment's own, and that one to a second one, which lets the pod's address pass and
//! drops the rest. Names, rules and comments are those of the reference plugins.

use std::cell::Cell;

use kernel::nft::{
    Base, BaseChain, Chain, Expr, Family, Hook, Listed, NewRule, Place, Verdict, meta,
};
use kernel::{Batch, Nfnetlink};

use crate::chain_name::hashed_name;
use crate::error::Error;

/// The rules of one attachment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MacSpoofCheck {
    names: Names,
    host_interface: String,
    mac: [u8; 6],
}

/// What follows from the names of a container and its interface.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Names {
    interface_chain: String,
    mac_chain: String,
    comment: String,
}

const TABLE: &str = "nat";
const PREROUTING: Chain<'_> = chain("PREROUTING");
const CHAIN_PREFIX: &str = "cni-br-iface-";
const MAC_SUFFIX: &str = "-mac";
/// `NFT_NAME_MAXLEN` less the final zero.
const CHAIN_NAME_MAX: usize = 255;
const HASH_DIGITS: usize = 32;
const IFNAMSIZ: usize = 16;

/// As the reference plugins have it: `NF_IP_PRI_RAW`, which `nft` calls `dstnat` in a bridge.
const PLACE: BaseChain = BaseChain { kind: "filter", hook: Hook::Prerouting, priority: -300 };

impl MacSpoofCheck {
    /// The rules for a container's interface with this hardware address behind the node's interface.
    #[must_use]
    pub fn wanted(container_id: &str, ifname: &str, host_interface: &str, mac: [u8; 6]) -> Self {
        let names = Names::of(container_id, ifname);
        Self { names, host_interface: host_interface.to_owned(), mac }
    }

    /// Makes the rules, in place of older ones of the same attachment. Nothing but additions if there are
    /// none. Says by `made_table` whether the table has to be made first, also if that then fails.
    pub fn add(&self, netlink: &Nfnetlink, made_table: &Cell<bool>) -> Result<(), Error> {
        let result = match netlink.commit(&self.additions(Batch::new(), false)) {
            Err(error) if error.is_not_found() => {
                made_table.set(netlink.chain_names(Family::Bridge, TABLE)?.is_empty());
                netlink.commit(&self.additions(Batch::new(), true))
            }
            result => result,
        };
        match result {
            Err(error) if error.is_exists() => netlink.transaction(|netlink| {
                let mut batch = Batch::new();
                self.names.remove(netlink, &mut batch)?;
                Ok(self.additions(batch, true))
            }),
            result => Ok(result?),
        }
    }

    /// Finds a rule that is missing.
    pub fn check(&self, netlink: &Nfnetlink) -> Result<(), Error> {
        for (in_chain, wanted) in self.rules() {
            let is_it = |rule: Listed| rule.expressions == wanted.expressions;
            if !netlink.rules(in_chain)?.any(is_it) {
                let id = &self.names.comment;
                return Err(Error::missing(format!("rule {id} of chain {in_chain}")));
            }
        }
        Ok(())
    }

    /// Fails with EEXIST if the attachment's chains are there already.
    fn additions(&self, mut batch: Batch, with_table: bool) -> Batch {
        if with_table {
            batch.add_table(Family::Bridge, TABLE);
            batch.add_base_chain(PREROUTING, PLACE);
        }
        batch.create_chain(chain(&self.names.interface_chain));
        batch.create_chain(chain(&self.names.mac_chain));
        for (in_chain, rule) in self.rules() {
            batch.add_rule(in_chain, Place::Last, rule);
        }
        batch
    }

    fn rules(&self) -> Vec<(Chain<'_>, NewRule)> {
        let rule = |expressions| NewRule {
            expressions,
            comment: Some(self.names.comment.clone()),
            ..NewRule::default()
        };
        let jump = |to: &str| Expr::Verdict(Verdict::Jump(to.to_owned()));
        let equal = |value| Expr::Cmp { negated: false, value };
        let mut interface = self.host_interface.as_bytes().to_vec();
        interface.resize(IFNAMSIZ, 0);
        let source = Expr::Payload { base: Base::Link, offset: 6, len: 6 };
        let own = equal(self.mac.to_vec());
        let Names { interface_chain, mac_chain, .. } = &self.names;
        vec![
            (
                PREROUTING,
                rule(vec![Expr::Meta(meta::IIFNAME), equal(interface), jump(interface_chain)]),
            ),
            (chain(interface_chain), rule(vec![jump(mac_chain)])),
            (chain(mac_chain), rule(vec![source, own, Expr::Verdict(Verdict::Return)])),
            (chain(mac_chain), rule(vec![Expr::Verdict(Verdict::Drop)])),
        ]
    }
}

/// Removes the rules of an attachment, also of one that the reference plugins made, by its names alone.
pub fn remove(netlink: &Nfnetlink, container_id: &str, ifname: &str) -> Result<(), Error> {
    let names = Names::of(container_id, ifname);
    netlink.transaction(|netlink| {
        let mut batch = Batch::new();
        names.remove(netlink, &mut batch)?;
        Ok(batch)
    })
}

/// Removes the table if nothing is in it but an empty `PREROUTING`, after an ADD that made the table has
/// failed. A DEL leaves it, as the next pod would have to make it again.
pub fn remove_empty_table(netlink: &Nfnetlink) -> Result<(), Error> {
    netlink.transaction(|netlink| {
        let mut batch = Batch::new();
        let chains = netlink.chain_names(Family::Bridge, TABLE)?;
        if chains == [PREROUTING.name]
            && netlink.rules(PREROUTING)?.next().is_none()
            && netlink.set_names(Family::Bridge, TABLE)?.is_empty()
        {
            batch.delete_table(Family::Bridge, TABLE);
        }
        Ok(batch)
    })
}

/// Finds out whether rules could be made now.
pub fn try_out(netlink: &Nfnetlink) -> Result<(), Error> {
    let check = MacSpoofCheck::wanted("status", "lo", "lo", [0; 6]);
    match netlink.try_out(&check.additions(Batch::new(), true)) {
        // A container may be called so.
        Err(error) if !error.is_exists() => Err(error.into()),
        _ => Ok(()),
    }
}

/// Removes the rules for interfaces of the node that are gone. The rules do not say which network they
/// belong to, so GC deletes links first, and this comes after. `link_exists` is asked once the rules have
/// been read, again if they change: it has to look at that time, for a link of before may have its rules only
/// now.
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
                Names::of_id(id).remove(netlink, &mut batch)?;
            }
        }
        Ok(batch)
    })
}

/// Removes the rules of all attachments, and the table if nothing is left in it; in a dry run, only looks.
/// Returns the chains and the table.
pub(crate) fn purge(netlink: &Nfnetlink, is_dry_run: bool) -> Result<Vec<String>, Error> {
    let mut found = Vec::new();
    let mut build = |netlink: &Nfnetlink| -> Result<Batch, Error> {
        let mut batch = Batch::new();
        let names = netlink.chain_names(Family::Bridge, TABLE)?;
        let (ours, others): (Vec<_>, Vec<_>) =
            names.into_iter().partition(|name| name.starts_with(CHAIN_PREFIX));
        found = ours.iter().map(|name| format!("nft chain {}", chain(name))).collect();
        if ours.is_empty() {
            return Ok(batch);
        }
        let mut is_needed = others.iter().any(|name| name != PREROUTING.name);
        for rule in netlink.rules(PREROUTING)? {
            match rule.expressions.last() {
                Some(Expr::Verdict(Verdict::Jump(target))) if ours.contains(target) => {
                    batch.delete_rule(PREROUTING, rule.handle);
                }
                _ => is_needed = true,
            }
        }
        for name in &ours {
            batch.flush_chain(chain(name));
        }
        for name in &ours {
            batch.delete_chain(chain(name));
        }
        if !is_needed {
            batch.delete_table(Family::Bridge, TABLE);
            found.push(format!("nft table bridge {TABLE}"));
        }
        Ok(batch)
    };
    if is_dry_run {
        build(netlink)?;
    } else {
        netlink.transaction(build)?;
    }
    Ok(found)
}

impl Names {
    /// The names that the reference plugins give them, or a hash if these are longer than the kernel's.
    fn of(container_id: &str, ifname: &str) -> Self {
        let id = format!("{container_id}-{ifname}");
        if CHAIN_PREFIX.len() + id.len() + MAC_SUFFIX.len() > CHAIN_NAME_MAX {
            return Self::of_id(&hashed_name("", HASH_DIGITS, &[&id]));
        }
        Self::of_id(&id)
    }

    fn of_id(id: &str) -> Self {
        let interface_chain = format!("{CHAIN_PREFIX}{id}");
        let mac_chain = format!("{interface_chain}{MAC_SUFFIX}");
        Self { interface_chain, mac_chain, comment: format!("macspoofchk-{id}") }
    }

    /// Adds to a batch what removes both chains and the rules that lead to them.
    fn remove(&self, netlink: &Nfnetlink, batch: &mut Batch) -> Result<(), kernel::Error> {
        let mut there = Vec::new();
        for name in [&self.interface_chain, &self.mac_chain] {
            if netlink.has_chain(chain(name))? {
                there.push(chain(name));
            }
        }
        if there.contains(&chain(&self.interface_chain)) {
            for rule in netlink.rules(PREROUTING)? {
                let target = rule.expressions.last();
                if target == Some(&Expr::Verdict(Verdict::Jump(self.interface_chain.clone()))) {
                    batch.delete_rule(PREROUTING, rule.handle);
                }
            }
        }
        for chain in &there {
            batch.flush_chain(*chain);
        }
        for chain in &there {
            batch.delete_chain(*chain);
        }
        Ok(())
    }
}

const fn chain(name: &str) -> Chain<'_> {
    Chain { family: Family::Bridge, table: TABLE, name }
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
