//! The pod's interface as an IPAM result wants it: one description for ADD, which makes it so,
//! and for CHECK, which compares.

use std::net::IpAddr;
use std::time::Duration;

use cni::{IpConfig, Success};
use ipnetwork::IpNetwork;
use kernel::rtnl::{self, AddressOptions, Family, LinkChange, wait_for_dad};
use kernel::sysctl;

use crate::error::Error;
use crate::pod::Pod;

/// What happens about duplicate address detection (RFC 4862) of the pod's IPv6 addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dad {
    /// None: IPAM knows that nobody else has them, and the pod can use them at once.
    Skip,
    /// As on any link, and ADD waits for its end.
    Wait,
}

/// The pod's interface.
#[derive(Clone, Debug)]
pub struct PodInterface<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its addresses.
    pub ips: &'a [IpConfig],
    /// The routes that lead out by it.
    pub routes: &'a [cni::Route],
    /// What happens about duplicate address detection.
    pub dad: Dad,
}

/// The reference plugins wait as long.
const DAD_LIMIT: Duration = Duration::from_secs(10);
/// `RT_SCOPE_LINK`: the destination is on the link itself.
const SCOPE_LINK: u8 = 253;

impl<'a> PodInterface<'a> {
    /// The interface of an ADD's result.
    #[must_use]
    pub fn of(name: &'a str, result: &'a Success, dad: Dad) -> Self {
        Self { name, ips: &result.ips, routes: &result.routes, dad }
    }

    /// Sets the link up, with its addresses and routes.
    pub fn configure(&self, pod: &Pod, index: u32) -> Result<(), Error> {
        pod.netns.enter(|| self.write_sysctls())??;
        pod.rtnl.set_link(index, LinkChange { up: Some(true), ..LinkChange::default() })?;
        for ip in self.ips {
            pod.rtnl.add_address(index, ip.address.into(), AddressOptions::default())?;
        }
        for route in self.kernel_routes(index) {
            pod.rtnl.add_route(&route)?;
        }
        if self.dad == Dad::Wait && self.has_ipv6() {
            wait_for_dad(&pod.netns, index, DAD_LIMIT)?;
        }
        Ok(())
    }

    /// Finds what is missing or was changed. More than ADD made is no fault.
    pub fn compare(&self, pod: &Pod, index: u32) -> Result<(), Error> {
        let addresses = pod.rtnl.addresses(index, None)?;
        for ip in self.ips {
            let wanted = IpNetwork::from(ip.address);
            if !addresses.iter().any(|address| address.network == wanted) {
                return Err(Error::missing(format!("address {wanted} of {}", self.name)));
            }
        }
        let mut routes = Vec::new();
        for family in [Family::V4, Family::V6] {
            if self.routes.iter().any(|route| route.dst.is_ipv4() == (family == Family::V4)) {
                routes.extend(pod.rtnl.routes(family)?);
            }
        }
        for wanted in self.kernel_routes(index) {
            if !routes.iter().any(|route| is_route(route, &wanted)) {
                let via = wanted.gateway.map(|ip| format!(" via {ip}")).unwrap_or_default();
                let route = format!("route {}{via} by {}", wanted.destination, self.name);
                return Err(Error::missing(route));
            }
        }
        Ok(())
    }

    /// The routes in the kernel's terms. One that names no gateway goes by that of the first
    /// address of its family, unless its scope says that the destination is on the link.
    fn kernel_routes(&self, index: u32) -> Vec<rtnl::Route> {
        let to_kernel = |route: &cni::Route| {
            let on_link = route.scope.is_some_and(|scope| scope >= SCOPE_LINK);
            let gateway = route.gw.or_else(|| self.gateway(route.dst.ip()).filter(|_| !on_link));
            let new = rtnl::Route::new(IpNetwork::from(route.dst.network()), index);
            rtnl::Route {
                gateway,
                scope: route.scope.unwrap_or(if gateway.is_some() { 0 } else { SCOPE_LINK }),
                table: route.table.unwrap_or(new.table),
                priority: route.priority.unwrap_or(new.priority),
                mtu: route.mtu.filter(|mtu| *mtu != 0),
                advmss: route.advmss.filter(|advmss| *advmss != 0),
                ..new
            }
        };
        self.routes.iter().map(to_kernel).collect()
    }

    fn gateway(&self, family_of: IpAddr) -> Option<IpAddr> {
        let of_family = |ip: &&IpConfig| ip.address.is_ipv4() == family_of.is_ipv4();
        self.ips.iter().filter(of_family).find_map(|ip| ip.gateway)
    }

    fn has_ipv6(&self) -> bool {
        self.ips.iter().any(|ip| !ip.address.is_ipv4())
    }

    /// Runs inside the pod's namespace, before the link is up: detection begins with that, and so
    /// does the announcement of the addresses.
    fn write_sysctls(&self) -> Result<(), Error> {
        sysctl::write(&["ipv4", "conf", self.name, "arp_notify"], "1")?;
        if !sysctl::has_ipv6() {
            return Ok(());
        }
        let conf = |key| ["ipv6", "conf", self.name, key];
        match self.dad {
            Dad::Skip => sysctl::write(&conf("accept_dad"), "0")?,
            Dad::Wait => sysctl::write(&conf("accept_dad"), "1")?,
        };
        if self.has_ipv6() {
            sysctl::write(&conf("keep_addr_on_down"), "1")?;
        }
        Ok(())
    }
}

/// Whether a route of the kernel's is the wanted one. The kernel gives IPv6 routes a metric and no
/// scope of its own, and metrics may be changed by who tunes them.
fn is_route(route: &rtnl::Route, wanted: &rtnl::Route) -> bool {
    let priority = wanted.priority == 0 || wanted.priority == route.priority;
    priority
        && route.destination == wanted.destination
        && route.gateway == wanted.gateway
        && route.table == wanted.table
        && (route.link == wanted.link || route.link.is_none())
}

#[cfg(test)]
mod tests {
    use cni::{Cidr, Route};

    use super::*;

    fn ip(address: &str, gateway: &str) -> IpConfig {
        let address = address.parse().unwrap();
        IpConfig { interface: None, address, gateway: gateway.parse().ok() }
    }

    fn to(dst: &str) -> Route {
        Route::to(dst.parse::<Cidr>().unwrap())
    }

    #[track_caller]
    fn check(route: Route, gateway: &str, scope: u8) {
        let ips = [ip("10.0.0.2/24", ""), ip("10.0.1.2/24", "10.0.1.1"), ip("fd00::2/64", "")];
        let routes = [route];
        let interface = PodInterface { name: "eth0", ips: &ips, routes: &routes, dad: Dad::Skip };
        let made = interface.kernel_routes(7);
        assert_eq!((made[0].gateway, made[0].scope), (gateway.parse().ok(), scope));
        assert_eq!(made[0].link, Some(7));
    }

    #[test]
    fn gateways_of_routes() {
        check(to("0.0.0.0/0"), "10.0.1.1", 0);
        check(to("::/0"), "", SCOPE_LINK);
        check(Route { gw: "10.0.0.9".parse().ok(), ..to("0.0.0.0/0") }, "10.0.0.9", 0);
        check(Route { scope: Some(253), ..to("192.0.2.0/24") }, "", 253);
    }

    #[test]
    fn host_bits_of_a_destination_do_not_matter() {
        let routes = [to("192.0.2.7/24")];
        let interface = PodInterface { name: "eth0", ips: &[], routes: &routes, dad: Dad::Skip };
        assert_eq!(interface.kernel_routes(1)[0].destination.to_string(), "192.0.2.0/24");
    }
}
