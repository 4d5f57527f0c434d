//! The packet filter's part: masquerading, and the check of the pod's hardware address.

use attach::macspoof::{self, MacSpoofCheck};
use attach::masquerade::{self, Masquerade};
use attach::{MasqueradeBackend, Pod};
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
}

impl<'a> Rules<'a> {
    /// The way to the rules; none is opened for a network that has no rules.
    pub(crate) fn open(call: &'a Call<Config>) -> Result<Self, Error> {
        Ok(Self { call, netlink: open(call.config())? })
    }

    /// Refuses frames from any other hardware address than the pod's.
    pub(crate) fn check_mac(&self, host_end: &str, mac: Option<[u8; 6]>) -> Result<(), Error> {
        if let (Some(netlink), Some(check)) = (&self.netlink, self.mac_check(host_end, mac)) {
            check.add(netlink)?;
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

    /// Removes all of them, by the names alone. One that cannot be removed does not keep the others.
    pub(crate) fn remove(&self, pod: Option<&Pod>) -> Result<(), cni::Error> {
        let Some(netlink) = &self.netlink else {
            return Ok(());
        };
        let (call, id) = (self.call, self.call.container_id().as_str());
        let mut failures = Failures::new();
        if call.config().macspoofchk {
            failures.try_to("rules of macspoofchk", || {
                macspoof::remove(netlink, id, call.ifname().as_str())
            });
        }
        if call.config().ip_masq {
            failures.try_to("rules of ipMasq", || -> Result<(), Error> {
                let others = |pod: &Pod| pod.addresses_beside(call.ifname().as_str());
                let in_use = pod.map_or(Ok(Vec::new()), others)?;
                Ok(masquerade::remove(netlink, &call.network.name, id, &in_use)?)
            });
        }
        failures.into_result()
    }

    fn mac_check(&self, host_end: &str, mac: Option<[u8; 6]>) -> Option<MacSpoofCheck> {
        let (id, ifname) = (self.call.container_id().as_str(), self.call.ifname().as_str());
        let mac = mac.filter(|_| self.call.config().macspoofchk)?;
        Some(MacSpoofCheck::wanted(id, ifname, host_end, mac))
    }

    fn masquerading(&self, result: &Success) -> Option<Masquerade> {
        self.call.config().ip_masq.then(|| Masquerade::of(self.call, result))
    }
}

/// Removes the rules of a network's attachments that are not valid, after their links.
pub(crate) fn collect_garbage(
    network: &Network<Config>,
    valid: &ValidAttachments,
) -> Result<(), cni::Error> {
    let Some(netlink) = open(&network.config)? else {
        return Ok(());
    };
    let mut failures = Failures::new();
    if network.config.macspoofchk {
        failures.try_to("rules of macspoofchk", || -> Result<(), Error> {
            let links = Rtnl::open()?.links()?;
            let exists = |name: &str| links.iter().any(|link| link.name == name);
            Ok(macspoof::collect_garbage(&netlink, exists)?)
        });
    }
    if network.config.ip_masq {
        failures.try_to("rules of ipMasq", || {
            masquerade::collect_garbage(&netlink, &network.name, valid)
        });
    }
    failures.into_result()
}

/// Whether rules could be written now.
pub(crate) fn status(network: &Network<Config>) -> Result<(), Error> {
    if let Some(netlink) = open(&network.config)? {
        netlink.generation()?;
    }
    Ok(())
}

fn open(config: &Config) -> Result<Option<Nfnetlink>, Error> {
    let by_iptables = config.ip_masq && config.ip_masq_backend == MasqueradeBackend::Iptables;
    if by_iptables || config.macspoofchk {
        return Ok(Some(Nfnetlink::open()?));
    }
    Ok(None)
}
