//! The rules that go with a pod's interface: masquerading (`ipMasq`) and `macspoofchk`.

use std::net::IpAddr;

use attach::{MacSpoofCheck, Masquerade, Pod, macspoof, masquerade};
use cni::{Call, Failures, IpConfig, Network, Undo, ValidAttachments};
use kernel::rtnl::Link;
use kernel::{Nfnetlink, Rtnl};

use crate::config::Config;
use crate::error::Error;

/// The rules of one attachment, and the way to them.
#[derive(Debug)]
pub(crate) struct Rules<'a> {
    netlink: Nfnetlink,
    call: &'a Call<Config>,
}

impl<'a> Rules<'a> {
    /// `None` if the configuration asks for no rules: netfilter is not spoken to then, which a
    /// kernel may lack.
    pub(crate) fn open(call: &'a Call<Config>) -> Result<Option<Self>, Error> {
        if !are_wanted(call.config()) {
            return Ok(None);
        }
        Ok(Some(Self { netlink: Nfnetlink::open()?, call }))
    }

    /// Lets the pod send from its own hardware address only.
    pub(crate) fn check_source<'u>(
        &'u self,
        host: &Link,
        inside: &Link,
        undo: &mut Undo<'u>,
    ) -> Result<(), Error> {
        let Some(check) = self.mac_spoof_check(host, inside) else {
            return Ok(());
        };
        check.add(&self.netlink)?;
        undo.on_error("remove the rules of macspoofchk", || Ok(self.remove_source_check()?));
        Ok(())
    }

    /// Lets the pod's packets leave its network under the node's address.
    pub(crate) fn masquerade<'u>(
        &'u self,
        ips: &[IpConfig],
        pod: &'u Pod,
        undo: &mut Undo<'u>,
    ) -> Result<(), Error> {
        let Some(wanted) = self.wanted_masquerade(ips) else {
            return Ok(());
        };
        wanted.add(&self.netlink)?;
        undo.on_error("remove masquerading", || Ok(self.remove_masquerade(Some(pod))?));
        Ok(())
    }

    /// Finds a rule that is missing.
    pub(crate) fn compare(
        &self,
        host: &Link,
        inside: &Link,
        ips: &[IpConfig],
    ) -> Result<(), Error> {
        if let Some(check) = self.mac_spoof_check(host, inside) {
            check.check(&self.netlink)?;
        }
        if let Some(wanted) = self.wanted_masquerade(ips) {
            wanted.check(&self.netlink)?;
        }
        Ok(())
    }

    /// Removes the rules by the attachment's names. The caller closes the socket after it has
    /// deleted the link, so that the kernel disposes of both at a time.
    pub(crate) fn remove(&self, pod: Option<&Pod>, failures: &mut Failures) {
        if self.call.config().macspoofchk {
            failures.try_to("remove the rules of macspoofchk", || self.remove_source_check());
        }
        if self.call.config().ip_masq {
            failures.try_to("remove masquerading", || self.remove_masquerade(pod));
        }
    }

    fn mac_spoof_check(&self, host: &Link, inside: &Link) -> Option<MacSpoofCheck> {
        let mac = inside.mac.filter(|_| self.call.config().macspoofchk)?;
        let (id, ifname) = self.attachment();
        Some(MacSpoofCheck::wanted(id, ifname, &host.name, mac))
    }

    fn wanted_masquerade(&self, ips: &[IpConfig]) -> Option<Masquerade> {
        if !self.call.config().ip_masq {
            return None;
        }
        let addresses = ips.iter().map(|ip| ip.address).collect();
        Some(Masquerade::wanted(&self.call.network.name, self.attachment().0, addresses))
    }

    fn remove_source_check(&self) -> Result<(), Error> {
        let (id, ifname) = self.attachment();
        Ok(macspoof::remove(&self.netlink, id, ifname)?)
    }

    /// A container's interfaces in one network share a chain, so that the others' rules stay.
    fn remove_masquerade(&self, pod: Option<&Pod>) -> Result<(), Error> {
        let (id, ifname) = self.attachment();
        let others = pod.map_or(Ok(Vec::new()), |pod| other_addresses(pod, ifname))?;
        Ok(masquerade::remove(&self.netlink, &self.call.network.name, id, &others)?)
    }

    fn attachment(&self) -> (&str, &str) {
        (self.call.container_id().as_str(), self.call.ifname().as_str())
    }
}

/// Removes the rules of attachments that are not valid, after their links were deleted.
pub(crate) fn collect_garbage(
    network: &Network<Config>,
    valid: &ValidAttachments,
    failures: &mut Failures,
) {
    if !are_wanted(&network.config) {
        return;
    }
    let Some(netlink) = failures.try_to("collect rules", || Nfnetlink::open().map_err(Error::from))
    else {
        return;
    };
    if network.config.macspoofchk {
        failures.try_to("collect the rules of macspoofchk", || -> Result<(), Error> {
            let node = Rtnl::open()?;
            // What cannot be looked up may be there.
            let exists = |name: &str| !matches!(node.link_by_name(name), Ok(None));
            Ok(macspoof::collect_garbage(&netlink, exists)?)
        });
    }
    if network.config.ip_masq {
        failures.try_to("collect masquerading", || {
            masquerade::collect_garbage(&netlink, &network.name, valid)
        });
    }
}

/// Whether rules could be made now, as far as they are asked for.
pub(crate) fn status(config: &Config) -> Result<(), Error> {
    if are_wanted(config) {
        // Any question will do: a kernel without nf_tables answers none.
        Nfnetlink::open()?.has_chain(macspoof::PREROUTING)?;
    }
    Ok(())
}

fn are_wanted(config: &Config) -> bool {
    config.ip_masq || config.macspoofchk
}

/// The addresses of a pod's interfaces but one.
fn other_addresses(pod: &Pod, ifname: &str) -> Result<Vec<IpAddr>, Error> {
    let index = pod.rtnl.link_by_name(ifname)?.map(|link| link.index);
    let all = pod.rtnl.addresses(0, None)?;
    let others = all.iter().filter(|address| Some(address.index) != index);
    Ok(others.map(|address| address.network.ip()).collect())
}
