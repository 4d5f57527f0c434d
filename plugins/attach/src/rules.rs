//! The rules of an attachment in the packet filter: masquerading, and the check of the pod's hardware
//! address.

use std::cell::Cell;

use cni::{Call, Failures, Network, Success, ValidAttachments};
use kernel::{Nfnetlink, Rtnl};

use crate::error::Error;
use crate::macspoof::{self, MacSpoofCheck};
use crate::masquerade::{self, Kept, Masquerade, MasqueradeBackend};
use crate::pod::Pod;

/// The keys of a configuration that ask for rules.
#[derive(Clone, Copy, Debug)]
pub struct RuleKeys {
    /// What `ipMasq` uses; `None` if `ipMasq` is not set.
    pub masquerade: Option<MasqueradeBackend>,
    /// Whether `macspoofchk` is set; `None` for a plugin without this key, which never makes such rules.
    pub macspoofchk: Option<bool>,
}

/// The rules of one attachment, as ADD makes and CHECK compares them.
#[derive(Debug)]
pub struct Rules<'a, C> {
    call: &'a Call<C>,
    keys: RuleKeys,
    /// Open until the command ends. Closing it after a deletion waits until the kernel has disposed of what
    /// was deleted, and the kernel can do so while it disposes of the link. `None` for a network without
    /// rules.
    netlink: Option<Nfnetlink>,
    /// Whether this ADD made the table of `macspoofchk`.
    made_table: Cell<bool>,
}

impl RuleKeys {
    /// Finds out whether the rules could be made now.
    pub fn status(self) -> Result<(), Error> {
        if self.macspoofchk == Some(true) {
            macspoof::try_out(&Nfnetlink::open()?)?;
        }
        self.masquerade.map_or(Ok(()), |backend| backend.status(&Nfnetlink::open()?))
    }

    /// Opens a socket to remove rules of an ADD, whatever its configuration was; `None` if the kernel has no
    /// `nf_tables` and the configuration asks for no rules.
    pub(crate) fn open_to_remove(self) -> Result<Option<Nfnetlink>, Error> {
        masquerade::open_to_remove(self.are_set())
    }

    /// Removes the rules of an attachment by its names alone. A step that fails does not keep the others from
    /// running.
    pub(crate) fn remove<C>(
        self,
        netlink: &Nfnetlink,
        call: &Call<C>,
        pod: Option<&Pod>,
    ) -> Result<(), cni::Error> {
        let mut failures = Failures::new();
        if self.macspoofchk.is_some() {
            failures.try_to("rules of macspoofchk", || {
                unless_impossible(netlink, macspoof::remove(netlink, &call.attachment()))
            });
        }
        failures.try_to("rules of ipMasq", || {
            masquerade::remove(netlink, &call.attachment(), &Kept::of(call, pod))
        });
        failures.into_result()
    }

    /// Removes the rules of attachments that are not valid, after their links were deleted.
    pub(crate) fn collect_garbage<C>(
        self,
        network: &Network<C>,
        valid: &ValidAttachments,
    ) -> Result<(), cni::Error> {
        let Some(netlink) = &self.open_to_remove()? else { return Ok(()) };
        let mut failures = Failures::new();
        if self.macspoofchk.is_some() {
            failures.try_to("rules of macspoofchk", || -> Result<(), Error> {
                let node = Rtnl::open()?;
                // A link that cannot be looked up may be there.
                let exists = |name: &str| !matches!(node.link_by_name(name), Ok(None));
                unless_impossible(netlink, macspoof::collect_garbage(netlink, exists))
            });
        }
        failures.try_to("rules of ipMasq", || {
            masquerade::collect_garbage(netlink, &network.name, valid)
        });
        failures.into_result()
    }

    fn are_set(self) -> bool {
        self.masquerade.is_some() || self.macspoofchk == Some(true)
    }
}

impl<'a, C> Rules<'a, C> {
    /// Opens the packet filter's socket, if the configuration asks for rules.
    pub fn open(call: &'a Call<C>, keys: RuleKeys) -> Result<Self, Error> {
        let netlink = if keys.are_set() { Some(Nfnetlink::open()?) } else { None };
        Ok(Self { call, keys, netlink, made_table: Cell::default() })
    }

    /// Adds the rules that drop frames from other hardware addresses than the pod's.
    pub fn add_mac_check(&self, host_end: &str, mac: Option<[u8; 6]>) -> Result<(), Error> {
        if let (Some(netlink), Some(check)) = (&self.netlink, self.mac_check(host_end, mac)) {
            check.add(netlink, &self.made_table)?;
        }
        Ok(())
    }

    /// Adds the rules that give packets from the pod's addresses the node's address when they leave.
    pub fn add_masquerading(&self, result: &Success) -> Result<(), Error> {
        if let (Some(netlink), Some(masquerade)) = (&self.netlink, self.masquerading(result)) {
            masquerade.add(netlink)?;
        }
        Ok(())
    }

    /// Finds what is missing or was changed.
    pub fn compare(
        &self,
        host_end: &str,
        mac: Option<[u8; 6]>,
        result: &Success,
    ) -> Result<(), Error> {
        let Some(netlink) = &self.netlink else { return Ok(()) };
        self.mac_check(host_end, mac).map_or(Ok(()), |check| check.check(netlink))?;
        self.masquerading(result).map_or(Ok(()), |masquerade| masquerade.check(netlink))
    }

    /// Removes what a failed ADD has added, also the table if the ADD made it.
    pub fn undo(&self, pod: &Pod) -> Result<(), cni::Error> {
        let Some(netlink) = &self.netlink else { return Ok(()) };
        let mut failures = Failures::new();
        failures.try_to("rules", || self.keys.remove(netlink, self.call, Some(pod)));
        if self.made_table.get() {
            failures.try_to("table of macspoofchk", || macspoof::remove_empty_table(netlink));
        }
        failures.into_result()
    }

    fn mac_check(&self, host_end: &str, mac: Option<[u8; 6]>) -> Option<MacSpoofCheck> {
        let mac = mac.filter(|_| self.keys.macspoofchk == Some(true))?;
        Some(MacSpoofCheck::wanted(&self.call.attachment(), host_end, mac))
    }

    fn masquerading(&self, result: &Success) -> Option<Masquerade> {
        self.keys.masquerade.map(|backend| Masquerade::of(self.call, backend, result))
    }
}

/// On a node with legacy iptables, the kernel may have no `nf_tables`. Then there are no rules in them.
fn unless_impossible(netlink: &Nfnetlink, removed: Result<(), Error>) -> Result<(), Error> {
    match removed {
        Err(_) if !netlink.has_nf_tables()? => Ok(()),
        removed => removed,
    }
}
