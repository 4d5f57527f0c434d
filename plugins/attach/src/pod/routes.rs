//! The kernel's routes for the addresses and routes of an IPAM result.

use std::net::IpAddr;

use cni::IpConfig;
use ipnetwork::IpNetwork;
use kernel::rtnl;

/// How the pod reaches the other addresses of its own networks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Neighbours {
    /// They are on the link.
    OnLink,
    /// They are behind the gateway. Only the gateway is on the link, whatever the length of the prefix is.
    ByGateway,
}

/// The input for the routes of an interface.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan<'a> {
    /// The addresses of the interface, with their gateways.
    pub(super) ips: &'a [IpConfig],
    pub(super) routes: &'a [cni::Route],
    /// How the networks of the addresses are reached.
    pub(super) neighbours: Neighbours,
}

/// `RT_SCOPE_LINK`: the destination is on the link itself.
const SCOPE_LINK: u8 = 253;

impl Plan<'_> {
    /// The routes by the link of this index, each one after those that lead to its gateway.
    pub(super) fn routes(self, index: u32) -> Vec<rtnl::Route> {
        let mut routes = Vec::new();
        if self.neighbours == Neighbours::ByGateway {
            routes = routes_by_gateways(self.ips, index);
        }
        let of_ipam = self.routes.iter().map(|route| self.route(route, index));
        let is_new = |route: &rtnl::Route| !routes.iter().any(|other| is_route(other, route));
        let of_ipam: Vec<_> = of_ipam.filter(is_new).collect();
        routes.extend(of_ipam);
        routes
    }

    /// A route that IPAM gave. One without a gateway uses that of the first address of its family, unless its
    /// scope says that the destination is on the link.
    fn route(self, route: &cni::Route, index: u32) -> rtnl::Route {
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

    /// Whether the routes say that a router is behind the gateway although it is on the link, because it is
    /// another address of the node.
    fn hides(self, router: IpAddr) -> bool {
        self.neighbours == Neighbours::ByGateway
            && self.ips.iter().all(|ip| ip.gateway != Some(router))
            && self.ips.iter().any(|ip| IpNetwork::from(ip.address).contains(router))
    }

    fn gateway(self, family_of: IpAddr) -> Option<IpAddr> {
        let of_family = |ip: &&IpConfig| ip.address.is_ipv4() == family_of.is_ipv4();
        self.ips.iter().filter(of_family).find_map(|ip| ip.gateway)
    }
}

/// The routes to the gateways, and through them to the networks of the addresses.
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

/// Finds the first wanted route that is not among those of the kernel.
pub(super) fn missing<'a>(
    wanted: &'a [rtnl::Route],
    present: &[rtnl::Route],
) -> Option<&'a rtnl::Route> {
    wanted.iter().find(|wanted| {
        let is_it = |route: &rtnl::Route| {
            let joined = present.iter().any(|other| is_joined(route, other));
            let source = route.source.or(wanted.source.filter(|_| joined));
            is_route(&rtnl::Route { source, ..*route }, wanted)
        };
        !present.iter().any(is_it)
    })
}

/// Whether a route of the kernel is the wanted one. The kernel gives IPv6 routes a metric and no scope of
/// their own, and an administrator may change metrics.
fn is_route(route: &rtnl::Route, wanted: &rtnl::Route) -> bool {
    let priority = wanted.priority == 0 || wanted.priority == route.priority;
    priority
        && route.destination == wanted.destination
        && route.gateway == wanted.gateway
        && route.table == wanted.table
        && (wanted.source.is_none() || wanted.source == route.source)
        && route.link == wanted.link
}

/// Whether the kernel has joined a route to one of another link. If so, it does not report the source address
/// of the second route.
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

    #[track_caller]
    fn check(route: Route, gateway: &str, scope: u8) {
        let ips = [ip("10.0.0.2/24", ""), ip("10.0.1.2/24", "10.0.1.1"), ip("fd00::2/64", "")];
        let routes = [route];
        let made = Plan { ips: &ips, routes: &routes, neighbours: Neighbours::OnLink }.routes(7);
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
        let plan = Plan { ips: &[], routes: &routes, neighbours: Neighbours::OnLink };
        assert_eq!(plan.routes(1)[0].destination.to_string(), "192.0.2.0/24");
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
        let made = Plan { ips, routes, neighbours: Neighbours::ByGateway }.routes(7);
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
