//! The packet filter's part: masquerading, and the check of the pod's hardware address.

use std::cell::Cell;

use attach::Pod;
use attach::macspoof::{self, MacSpoofCheck};
use attach::masquerade::{self, Kept, Masquerade, Owner};
use cni::{Call, Failures, Network, Success, ValidAttachments};
use kernel::{Nfnetlink, Rtnl};

use crate::config::Config;
use crate::error::Error;

/// The rules of one attachment.
#[derive(Debug)]
pub(crate) struct Rules<'a> {
    call: &'a Call<Config>,
    /// Open until the command ends: closing it after a deletion waits until the kernel has
    /// disposed of what was deleted, and it can do so while it disposes of the link.
    netlink: Option<Nfnetlink>,
    /// Whether this ADD made the table of `macspoofchk`.
    made_table: Cell<bool>,
}

impl<'a> Rules<'a> {
    /// The way to the rules; none is opened for a network that has no rules.
    pub(crate) fn open(call: &'a Call<Config>) -> Result<Self, Error> {
        let netlink = if has_rules(call.config()) { Some(Nfnetlink::open()?) } else { None };
        Ok(Self { call, netlink, made_table: Cell::default() })
    }

    /// Finds the rules of an ADD, which may have had another configuration.
    pub(crate) fn open_to_remove(call: &'a Call<Config>) -> Result<Self, Error> {
        let netlink = masquerade::open_to_remove(has_rules(call.config()))?;
        Ok(Self { call, netlink, made_table: Cell::default() })
    }

    /// Refuses frames from any other hardware address than the pod's.
    pub(crate) fn check_mac(&self, host_end: &str, mac: Option<[u8; 6]>) -> Result<(), Error> {
        if let (Some(netlink), Some(check)) = (&self.netlink, self.mac_check(host_end, mac)) {
            check.add(netlink, &self.made_table)?;
        }
        Ok(())
    }

    /// Gives packets from the pod's addresses the node's address where they leave.
    pub(crate) fn masquerade(&self, result: &Success) -> Result<(), Error> {
        if let (Some(netlink), Some(masquerade)) = (&self.netlink, self.masquerading(result)) {
            masquerade.add(netlink)?;
        }
        Ok(())
    }

    /// Finds what is missing or was changed.
    pub(crate) fn compare(
        &self,
        host_end: &str,
        mac: Option<[u8; 6]>,
        result: &Success,
    ) -> Result<(), Error> {
        let Some(netlink) = &self.netlink else {
            return Ok(());
        };
        if let Some(check) = self.mac_check(host_end, mac) {
            check.check(netlink)?;
        }
        if let Some(masquerade) = self.masquerading(result) {
            masquerade.check(netlink)?;
        }
        Ok(())
    }

    /// Removes all of them, by the names alone, whatever the configuration says by now. One that
    /// cannot be removed does not keep the others.
    pub(crate) fn remove(&self, pod: Option<&Pod>) -> Result<(), cni::Error> {
        let Some(netlink) = &self.netlink else {
            return Ok(());
        };
        let (call, id) = (self.call, self.call.container_id().as_str());
        let mut failures = Failures::new();
        failures.try_to("rules of macspoofchk", || {
            unless_impossible(netlink, macspoof::remove(netlink, id, call.ifname().as_str()))
        });
        failures.try_to("rules of ipMasq", || {
            masquerade::remove(netlink, &Owner::of(call), &Kept::of(call, pod))
        });
        failures.into_result()
    }

    /// As [`Rules::remove`], after an ADD that failed: also what other pods would need, if it made that.
    pub(crate) fn undo(&self, pod: Option<&Pod>) -> Result<(), cni::Error> {
        let mut failures = Failures::new();
        failures.try_to("rules", || self.remove(pod));
        if let Some(netlink) = self.netlink.as_ref().filter(|_| self.made_table.get()) {
            failures.try_to("table of macspoofchk", || macspoof::remove_empty_table(netlink));
        }
        failures.into_result()
    }

    fn mac_check(&self, host_end: &str, mac: Option<[u8; 6]>) -> Option<MacSpoofCheck> {
        let (id, ifname) = (self.call.container_id().as_str(), self.call.ifname().as_str());
        let mac = mac.filter(|_| self.call.config().macspoofchk)?;
        Some(MacSpoofCheck::wanted(id, ifname, host_end, mac))
    }

    fn masquerading(&self, result: &Success) -> Option<Masquerade> {
        let config = self.call.config();
        config.ip_masq.then(|| Masquerade::of(self.call, config.ip_masq_backend, result))
    }
}

/// Removes the rules of a network's attachments that are not valid, after their links.
pub(crate) fn collect_garbage(
    network: &Network<Config>,
    valid: &ValidAttachments,
) -> Result<(), cni::Error> {
    let Some(netlink) = masquerade::open_to_remove(has_rules(&network.config))? else {
        return Ok(());
    };
    let mut failures = Failures::new();
    failures.try_to("rules of macspoofchk", || -> Result<(), Error> {
        let node = Rtnl::open()?;
        // One that cannot be looked up may be there.
        let exists = |name: &str| !matches!(node.link_by_name(name), Ok(None));
        unless_impossible(&netlink, macspoof::collect_garbage(&netlink, exists))
    });
    failures
        .try_to("rules of ipMasq", || masquerade::collect_garbage(&netlink, &network.name, valid));
    failures.into_result()
}

/// Whether rules could be written now.
pub(crate) fn status(network: &Network<Config>) -> Result<(), Error> {
    let config = &network.config;
    if config.macspoofchk {
        macspoof::try_out(&Nfnetlink::open()?)?;
    }
    if config.ip_masq {
        config.ip_masq_backend.status(&Nfnetlink::open()?)?;
    }
    Ok(())
}

/// The kernel of a node with legacy iptables may have no `nf_tables`, and then it has no rules in them.
fn unless_impossible(netlink: &Nfnetlink, removed: Result<(), attach::Error>) -> Result<(), Error> {
    match removed {
        Err(_) if !netlink.has_nf_tables()? => Ok(()),
        removed => Ok(removed?),
    }
}

fn has_rules(config: &Config) -> bool {
    config.ip_masq || config.macspoofchk
}
