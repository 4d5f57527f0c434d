//! The pod's interface as an IPAM result describes it: ADD configures it, CHECK compares it.

use std::time::Duration;

use cni::{IpConfig, Success};
use ipnetwork::IpNetwork;
use kernel::rtnl::{AddressOptions, Link, LinkChange, wait_for_dad};
use kernel::sysctl;

use super::Pod;
use super::routes::{self, Neighbours, Plan};
use crate::error::Error;

/// Whether ADD does duplicate address detection (RFC 4862) for the pod's IPv6 addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dad {
    /// It does not. IPAM gives an address to one pod only, so the pod can use it at once.
    Skip,
    /// It does, and waits until detection ends.
    Wait,
}

/// The pod's interface.
#[derive(Clone, Debug)]
pub struct PodInterface<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its addresses.
    pub ips: &'a [IpConfig],
    /// The routes through it.
    pub routes: &'a [cni::Route],
    /// How the networks of its addresses are reached.
    pub neighbours: Neighbours,
    /// Whether duplicate address detection is done.
    pub dad: Dad,
    /// Whether the pod takes addresses and routes from routers on the link (`accept_ra`); `None` leaves the
    /// kernel's default.
    pub accepts_ra: Option<bool>,
}

/// How long ADD waits for duplicate address detection: as long as the reference plugins.
const DAD_LIMIT: Duration = Duration::from_secs(10);

impl<'a> PodInterface<'a> {
    /// The interface of an ADD's result, with its neighbours on the link and without duplicate
    /// address detection.
    #[must_use]
    pub fn of(name: &'a str, result: &'a Success) -> Self {
        let (ips, routes) = (&result.ips, &result.routes);
        Self { name, ips, routes, neighbours: Neighbours::OnLink, dad: Dad::Skip, accepts_ra: None }
    }

    /// Sets the link up, with its addresses and routes.
    pub fn configure(&self, pod: &Pod, index: u32) -> Result<(), Error> {
        pod.netns.enter(|| self.write_sysctls())??;
        pod.rtnl.set_link(index, LinkChange { up: Some(true), ..LinkChange::default() })?;
        let no_prefix_route = self.neighbours == Neighbours::ByGateway;
        for ip in self.ips {
            // Without this, the address would be tentative for a moment even where the link has no detection.
            let nodad = self.dad == Dad::Skip && !ip.address.is_ipv4();
            let options = AddressOptions { nodad, no_prefix_route };
            pod.rtnl.add_address(index, ip.address.into(), options)?;
        }
        for route in self.plan().routes(index) {
            pod.rtnl.add_route(&route)?;
        }
        if self.dad == Dad::Wait && self.has_ipv6() {
            wait_for_dad(&pod.netns, index, DAD_LIMIT)?;
        }
        Ok(())
    }

    /// Announces the addresses to all neighbours, when the link can carry packets: a neighbour may remember
    /// the hardware address of a pod that had them before, and would send there for up to a minute.
    ///
    /// The kernel sends an ARP request and a neighbour advertisement for each address when the hardware
    /// address is set, even to the same value (`arp_notify`, `ndisc_notify`). This does not wait for
    /// anything. A packet socket would do the same, but the kernel waits some milliseconds when such a socket
    /// is closed.
    pub fn announce(&self, pod: &Pod, link: &Link) -> Result<(), Error> {
        if self.ips.is_empty() || link.mac.is_none() {
            return Ok(());
        }
        let change = LinkChange { mac: link.mac, ..LinkChange::default() };
        Ok(pod.rtnl.set_link(link.index, change)?)
    }

    /// Finds what is missing or was changed. Additional addresses and routes are not an error.
    pub fn compare(&self, pod: &Pod, link: &Link) -> Result<(), Error> {
        if !link.up {
            return Err(Error::changed(format!("interface {} of the pod", self.name), "is down"));
        }
        let addresses = pod.rtnl.addresses(link.index, None)?;
        for ip in self.ips {
            let wanted = IpNetwork::from(ip.address);
            if !addresses.iter().any(|address| address.network == wanted) {
                return Err(Error::missing(format!("address {wanted} of {}", self.name)));
            }
        }
        let wanted = self.plan().routes(link.index);
        let present = pod.rtnl.routes_in_families_of(&wanted)?;
        routes::missing(&wanted, &present).map_or(Ok(()), |route| {
            let via = route.gateway.map(|ip| format!(" via {ip}")).unwrap_or_default();
            Err(Error::missing(format!("route {}{via} by {}", route.destination, self.name)))
        })
    }

    fn plan(&self) -> Plan<'_> {
        Plan { ips: self.ips, routes: self.routes, neighbours: self.neighbours }
    }

    fn has_ipv6(&self) -> bool {
        self.ips.iter().any(|ip| !ip.address.is_ipv4())
    }

    /// Writes the sysctls of the link, inside the pod's namespace. The link must still be down: when it is
    /// set up, it begins to detect duplicate addresses and to listen to routers.
    fn write_sysctls(&self) -> Result<(), Error> {
        if self.neighbours == Neighbours::OnLink {
            sysctl::write_if_possible(&["ipv4", "conf", self.name, "arp_notify"], "1")?;
        }
        let conf = |key| ["ipv6", "conf", self.name, key];
        match self.accepts_ra {
            None => {}
            // With 2, the pod listens also if it forwards.
            Some(true) => sysctl::write_if_possible(&conf("accept_ra"), "2")?,
            Some(false) => sysctl::write_if_possible(&conf("accept_ra"), "0")?,
        }
        let accept_dad = if self.dad == Dad::Wait { "1" } else { "0" };
        sysctl::write_if_possible(&conf("accept_dad"), accept_dad)?;
        if self.has_ipv6() {
            // Container engines make namespaces without IPv6 and expect the network plugin to enable it.
            for link in ["lo", self.name] {
                sysctl::write(&["ipv6", "conf", link, "disable_ipv6"], "0")?;
            }
            sysctl::write_if_possible(&conf("keep_addr_on_down"), "1")?;
            if self.neighbours == Neighbours::OnLink {
                sysctl::write_if_possible(&conf("ndisc_notify"), "1")?;
            }
        }
        Ok(())
    }
}
