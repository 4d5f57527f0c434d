//! The pod's interface as an IPAM result wants it: one description for ADD, which makes it so,
//! and for CHECK, which compares.

use std::net::IpAddr;
use std::time::Duration;

use cni::{IpConfig, Success};
use ipnetwork::IpNetwork;
use kernel::rtnl::{self, AddressOptions, Family, Link, LinkChange, wait_for_dad};
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

/// How the pod reaches its neighbours, the other addresses of its own networks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Neighbours {
    /// They are on the link.
    OnLink,
    /// Behind the gateway: nothing else is on the link, whatever the length of a prefix says.
    ByGateway,
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
    /// How the networks of its addresses are reached.
    pub neighbours: Neighbours,
    /// What happens about duplicate address detection.
    pub dad: Dad,
    /// Whether the pod takes addresses and routes from routers on the link (`accept_ra`); `None` leaves the
    /// kernel's default.
    pub accepts_ra: Option<bool>,
}

/// The reference plugins wait as long.
const DAD_LIMIT: Duration = Duration::from_secs(10);
/// `RT_SCOPE_LINK`: the destination is on the link itself.
const SCOPE_LINK: u8 = 253;

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
            // Without, it would be tentative for an instant even if none is done on the link.
            let nodad = self.dad == Dad::Skip && !ip.address.is_ipv4();
            let options = AddressOptions { nodad, no_prefix_route };
            pod.rtnl.add_address(index, ip.address.into(), options)?;
        }
        for route in self.kernel_routes(index) {
            pod.rtnl.add_route(&route)?;
        }
        if self.dad == Dad::Wait && self.has_ipv6() {
            wait_for_dad(&pod.netns, index, DAD_LIMIT)?;
        }
        Ok(())
    }

    /// Tells everybody on the link whose addresses these are, when packets can go through: others may
    /// remember the hardware address of a pod that had them before, and would send there for up to a minute.
    ///
    /// The kernel sends an ARP request and a neighbour advertisement for each address when the hardware
    /// address is set, even to the one that it is (`arp_notify`, `ndisc_notify`). Nothing is waited for. A
    /// packet socket would do the same, but the kernel waits some milliseconds when such a socket is closed.
    pub fn announce(&self, pod: &Pod, link: &Link) -> Result<(), Error> {
        if self.ips.is_empty() || link.mac.is_none() {
            return Ok(());
        }
        let change = LinkChange { mac: link.mac, ..LinkChange::default() };
        Ok(pod.rtnl.set_link(link.index, change)?)
    }

    /// Finds what is missing or was changed. More than ADD made is no fault.
    pub fn compare(&self, pod: &Pod, link: &Link) -> Result<(), Error> {
        let index = link.index;
        if !link.up {
            return Err(Error::changed(format!("interface {} of the pod", self.name), "is down"));
        }
        let addresses = pod.rtnl.addresses(index, None)?;
        for ip in self.ips {
            let wanted = IpNetwork::from(ip.address);
            if !addresses.iter().any(|address| address.network == wanted) {
                return Err(Error::missing(format!("address {wanted} of {}", self.name)));
            }
        }
        let (all_wanted, mut routes) = (self.kernel_routes(index), Vec::new());
        for family in [Family::V4, Family::V6] {
            if all_wanted.iter().any(|it| it.destination.is_ipv4() == (family == Family::V4)) {
                routes.extend(pod.rtnl.routes(family)?);
            }
        }
        for wanted in all_wanted {
            let is_it = |route: &rtnl::Route| {
                let joined = routes.iter().any(|other| is_joined(route, other));
                let source = route.source.or(wanted.source.filter(|_| joined));
                is_route(&rtnl::Route { source, ..*route }, &wanted)
            };
            if !routes.iter().any(is_it) {
                let via = wanted.gateway.map(|ip| format!(" via {ip}")).unwrap_or_default();
                let route = format!("route {}{via} by {}", wanted.destination, self.name);
                return Err(Error::missing(route));
            }
        }
        Ok(())
    }

    /// The routes in the kernel's terms, each one after those that lead to its gateway.
    fn kernel_routes(&self, index: u32) -> Vec<rtnl::Route> {
        let mut routes = Vec::new();
        if self.neighbours == Neighbours::ByGateway {
            routes = routes_by_gateways(self.ips, index);
        }
        let of_ipam = self.routes.iter().map(|route| self.kernel_route(route, index));
        let is_new = |route: &rtnl::Route| !routes.iter().any(|other| is_route(other, route));
        let of_ipam: Vec<_> = of_ipam.filter(is_new).collect();
        routes.extend(of_ipam);
        routes
    }

    /// A route of IPAM's. One that names no gateway goes by that of the first address of its
    /// family, unless its scope says that the destination is on the link.
    fn kernel_route(&self, route: &cni::Route, index: u32) -> rtnl::Route {
        let on_link = route.scope.is_some_and(|scope| scope >= SCOPE_LINK);
        let gateway = route.gw.or_else(|| self.gateway(route.dst.ip()).filter(|_| !on_link));
        let new = rtnl::Route::new(IpNetwork::from(route.dst.network()), index);
        rtnl::Route {
            gateway,
            onlink: gateway.is_some_and(|gateway| self.hides(gateway)),
            scope: route.scope.unwrap_or(if gateway.is_some() { 0 } else { SCOPE_LINK }),
            table: route.table.unwrap_or(new.table),
            priority: route.priority.unwrap_or(new.priority),
            mtu: route.mtu.filter(|mtu| *mtu != 0),
            advmss: route.advmss.filter(|advmss| *advmss != 0),
            ..new
        }
    }

    /// Whether a router seems to be behind the gateway, although it is on the link: another
    /// address of the node.
    fn hides(&self, router: IpAddr) -> bool {
        self.neighbours == Neighbours::ByGateway
            && self.ips.iter().all(|ip| ip.gateway != Some(router))
            && self.ips.iter().any(|ip| IpNetwork::from(ip.address).contains(router))
    }

    fn gateway(&self, family_of: IpAddr) -> Option<IpAddr> {
        let of_family = |ip: &&IpConfig| ip.address.is_ipv4() == family_of.is_ipv4();
        self.ips.iter().filter(of_family).find_map(|ip| ip.gateway)
    }

    fn has_ipv6(&self) -> bool {
        self.ips.iter().any(|ip| !ip.address.is_ipv4())
    }

    /// Runs inside the pod's namespace, before the link is up: with that, duplicate address detection begins,
    /// and routers are listened to.
    fn write_sysctls(&self) -> Result<(), Error> {
        if self.neighbours == Neighbours::OnLink {
            sysctl::write_if_possible(&["ipv4", "conf", self.name, "arp_notify"], "1")?;
        }
        let conf = |key| ["ipv6", "conf", self.name, key];
        match self.accepts_ra {
            None => {}
            // Also if the pod forwards.
            Some(true) => sysctl::write_if_possible(&conf("accept_ra"), "2")?,
            Some(false) => sysctl::write_if_possible(&conf("accept_ra"), "0")?,
        }
        let accept_dad = if self.dad == Dad::Wait { "1" } else { "0" };
        sysctl::write_if_possible(&conf("accept_dad"), accept_dad)?;
        if self.has_ipv6() {
            // Engines make namespaces without IPv6 and leave it to the network to have it.
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

/// The routes to the gateways, and by them to the networks of the addresses.
fn routes_by_gateways(ips: &[IpConfig], index: u32) -> Vec<rtnl::Route> {
    let mut routes: Vec<rtnl::Route> = Vec::new();
    for ip in ips {
        let Some(gateway) = ip.gateway else {
            continue;
        };
        let source = Some(ip.address.ip());
        let to = |destination| rtnl::Route { source, ..rtnl::Route::new(destination, index) };
        let network = IpNetwork::from(ip.address.network());
        let to_gateway = rtnl::Route { scope: SCOPE_LINK, ..to(gateway.into()) };
        let to_network = rtnl::Route { gateway: Some(gateway), ..to(network) };
        for route in [to_gateway, to_network] {
            // Addresses may share a gateway or a network; packets then come from the first one.
            let is_new = routes.iter().all(|other| other.destination != route.destination);
            if is_new && route.destination != IpNetwork::from(ip.address.ip()) {
                routes.push(route);
            }
        }
    }
    routes
}

/// Whether a route of the kernel's is the wanted one. The kernel gives IPv6 routes a metric and no
/// scope of its own, and metrics may be changed by who tunes them.
fn is_route(route: &rtnl::Route, wanted: &rtnl::Route) -> bool {
    let priority = wanted.priority == 0 || wanted.priority == route.priority;
    priority
        && route.destination == wanted.destination
        && route.gateway == wanted.gateway
        && route.table == wanted.table
        && (wanted.source.is_none() || wanted.source == route.source)
        && route.link == wanted.link
}

/// Whether the kernel has joined a route to one of another link: then it does not tell its source address.
fn is_joined(route: &rtnl::Route, other: &rtnl::Route) -> bool {
    let of = |route: &rtnl::Route| (route.destination, route.table, route.priority);
    !route.destination.is_ipv4() && of(route) == of(other) && route.link != other.link
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

    fn interface<'a>(
        ips: &'a [IpConfig],
        routes: &'a [Route],
        neighbours: Neighbours,
    ) -> PodInterface<'a> {
        PodInterface { name: "eth0", ips, routes, neighbours, dad: Dad::Skip, accepts_ra: None }
    }

    #[track_caller]
    fn check(route: Route, gateway: &str, scope: u8) {
        let ips = [ip("10.0.0.2/24", ""), ip("10.0.1.2/24", "10.0.1.1"), ip("fd00::2/64", "")];
        let routes = [route];
        let interface = interface(&ips, &routes, Neighbours::OnLink);
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
        let interface = interface(&[], &routes, Neighbours::OnLink);
        assert_eq!(interface.kernel_routes(1)[0].destination.to_string(), "192.0.2.0/24");
    }

    /// Routes as `ip route` shows them.
    #[track_caller]
    fn check_by_gateway(ips: &[IpConfig], routes: &[Route], expected: &[&str]) {
        let show = |route: rtnl::Route| {
            let mut text = route.destination.to_string();
            text += &route.gateway.map(|ip| format!(" via {ip}")).unwrap_or_default();
            text += if route.scope == SCOPE_LINK { " scope link" } else { "" };
            text += &route.source.map(|ip| format!(" src {ip}")).unwrap_or_default();
            text += if route.onlink { " onlink" } else { "" };
            text
        };
        let made = interface(ips, routes, Neighbours::ByGateway).kernel_routes(7);
        assert_eq!(made.into_iter().map(show).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn neighbours_behind_the_gateway() {
        check_by_gateway(
            &[ip("10.0.0.2/24", "10.0.0.1"), ip("fd00::2/64", "fd00::1")],
            &[to("0.0.0.0/0"), to("::/0")],
            &[
                "10.0.0.1/32 scope link src 10.0.0.2",
                "10.0.0.0/24 via 10.0.0.1 src 10.0.0.2",
                "fd00::1/128 scope link src fd00::2",
                "fd00::/64 via fd00::1 src fd00::2",
                "0.0.0.0/0 via 10.0.0.1",
                "::/0 via fd00::1",
            ],
        );
        // A single address has no network of neighbours, and its gateway may be anywhere.
        check_by_gateway(
            &[ip("10.0.0.2/32", "169.254.1.1")],
            &[to("0.0.0.0/0")],
            &["169.254.1.1/32 scope link src 10.0.0.2", "0.0.0.0/0 via 169.254.1.1"],
        );
    }

    #[test]
    fn one_gateway_of_two_addresses() {
        check_by_gateway(
            &[ip("10.0.0.2/24", "10.0.0.1"), ip("10.0.0.3/24", "10.0.0.1")],
            &[to("10.0.0.0/24")],
            &["10.0.0.1/32 scope link src 10.0.0.2", "10.0.0.0/24 via 10.0.0.1 src 10.0.0.2"],
        );
    }

    #[test]
    fn another_router_among_the_neighbours() {
        let by = |gw: &str| Route { gw: gw.parse().ok(), ..to("192.0.2.0/24") };
        check_by_gateway(
            &[ip("10.0.0.2/24", "10.0.0.1")],
            &[by("10.0.0.1"), by("10.0.0.9"), by("172.16.0.1")],
            &[
                "10.0.0.1/32 scope link src 10.0.0.2",
                "10.0.0.0/24 via 10.0.0.1 src 10.0.0.2",
                "192.0.2.0/24 via 10.0.0.1",
                "192.0.2.0/24 via 10.0.0.9 onlink",
                "192.0.2.0/24 via 172.16.0.1",
            ],
        );
    }
}
