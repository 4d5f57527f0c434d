//! `macspoofchk`: a pod may send frames from its own hardware address only.
//!
//! In the table `bridge nat`, a rule of the chain `PREROUTING` sends the frames that come in by the node's
//! end of the pod's veth pair to a chain of the attachment. That chain jumps to a second one, which accepts
//! frames from the pod's address and drops all others. Names, rules and comments are those of the reference
//! plugins.

mod names;
mod remove;

pub use remove::{collect_garbage, remove, remove_empty_table};

pub(crate) use remove::purge;

use std::cell::Cell;

use cni::Attachment;
use kernel::nft::{
    Base, BaseChain, Chain, Expr, Hook, Listed, NewRule, Place, Verdict, interface_name, meta,
};
use kernel::{Batch, Nfnetlink};

use crate::error::Error;
use names::{Names, PREROUTING, TABLE, chain};

/// The rules of one attachment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MacSpoofCheck {
    names: Names,
    host_interface: String,
    mac: [u8; 6],
}

/// The place of the reference plugins: `NF_IP_PRI_RAW`, which `nft` calls `dstnat` in a bridge.
const PLACE: BaseChain = BaseChain { kind: "filter", hook: Hook::Prerouting, priority: -300 };

impl MacSpoofCheck {
    /// The rules for an attachment whose interface has this hardware address and is behind `host_interface`.
    #[must_use]
    pub fn wanted(attachment: &Attachment, host_interface: &str, mac: [u8; 6]) -> Self {
        let names = Names::of(attachment);
        Self { names, host_interface: host_interface.to_owned(), mac }
    }

    /// Makes the rules, and replaces older ones of the same attachment. If there are none, it only adds. Sets
    /// `made_table` if the table must be made first, even if that then fails.
    pub fn add(&self, netlink: &Nfnetlink, made_table: &Cell<bool>) -> Result<(), Error> {
        let result = match netlink.commit(&self.additions(Batch::new(), false)) {
            Err(error) if error.is_not_found() => {
                made_table.set(netlink.chain_names(TABLE)?.is_empty());
                netlink.commit(&self.additions(Batch::new(), true))
            }
            result => result,
        };
        match result {
            Err(error) if error.is_exists() => netlink.transaction(|netlink| {
                let mut batch = Batch::new();
                remove::delete_names(netlink, &mut batch, &self.names)?;
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
            batch.add_table(TABLE, None);
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
        let interface = Expr::equal(interface_name(&self.host_interface));
        let source = Expr::Payload { base: Base::Link, offset: 6, len: 6 };
        let own = Expr::equal(self.mac);
        let Names { interface_chain, mac_chain, .. } = &self.names;
        vec![
            (
                PREROUTING,
                rule(vec![Expr::Meta(meta::IIFNAME), interface, Expr::jump(interface_chain)]),
            ),
            (chain(interface_chain), rule(vec![Expr::jump(mac_chain)])),
            (chain(mac_chain), rule(vec![source, own, Expr::Verdict(Verdict::Return)])),
            (chain(mac_chain), rule(vec![Expr::Verdict(Verdict::Drop)])),
        ]
    }
}

/// Finds out whether rules could be made now.
pub fn try_out(netlink: &Nfnetlink) -> Result<(), Error> {
    let names = Names::of_id("status-lo");
    let check = MacSpoofCheck { names, host_interface: "lo".to_owned(), mac: [0; 6] };
    match netlink.try_out(&check.additions(Batch::new(), true)) {
        // A container may have this name.
        Err(error) if !error.is_exists() => Err(error.into()),
        _ => Ok(()),
    }
}
