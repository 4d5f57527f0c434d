//! The node's side of a pod's link: addresses and routes.

use std::net::IpAddr;

use attach::Families;
use attach::link::skip_dad;
use cni::IpConfig;
use ipnetwork::IpNetwork;
use kernel::Rtnl;
use kernel::rtnl::{AddressOptions, Link, Route};

use crate::error::Error;

/// The addresses of the node's end, and the destinations of its routes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NodeSide {
    /// The gateways, each as a network of one address.
    addresses: Vec<IpNetwork>,
    /// The pod's addresses.
    destinations: Vec<IpNetwork>,
}

/// `RT_SCOPE_HOST`: the pod counts as a part of the node, as in the reference plugin.
const SCOPE_HOST: u8 = 254;

impl NodeSide {
    /// The node's side of the pod's addresses.
    ///
    /// Errors: an address has no gateway.
    pub(crate) fn of(ips: &[IpConfig]) -> Result<Self, Error> {
        let (mut addresses, mut destinations) = (Vec::new(), Vec::new());
        for ip in ips {
            let of_family = |gateway: &IpAddr| gateway.is_ipv4() == ip.address.is_ipv4();
            let gateway = ip.gateway.filter(of_family);
            let gateway = IpNetwork::from(gateway.ok_or(Error::NoGateway { address: ip.address })?);
            if !addresses.contains(&gateway) {
                addresses.push(gateway);
            }
            destinations.push(ip.address.ip().into());
        }
        Ok(Self { addresses, destinations })
    }

    /// Prepares the link before the pod's end is set up.
    pub(crate) fn prepare(&self, link: &Link) -> Result<(), Error> {
        if self.families().ipv6 {
            skip_dad(&link.name)?;
        }
        Ok(())
    }

    /// Adds the addresses and routes.
    pub(crate) fn make(&self, node: &Rtnl, link: &Link) -> Result<(), Error> {
        for address in &self.addresses {
            let options = AddressOptions { nodad: address.is_ipv6(), ..AddressOptions::default() };
            node.add_address(link.index, *address, options)?;
        }
        for route in self.routes(link) {
            // A pod that vanished without a DEL may have left a route.
            node.replace_route(&route)?;
        }
        Ok(())
    }

    /// Finds what is missing or was changed.
    pub(crate) fn compare(&self, node: &Rtnl, link: &Link) -> Result<(), Error> {
        let missing = |what| Err(attach::Error::missing(what).into());
        let addresses = node.addresses(link.index, None)?;
        for wanted in &self.addresses {
            if !addresses.iter().any(|address| address.network == *wanted) {
                return missing(format!("address {wanted} of {}", link.name));
            }
        }
        let wanted: Vec<Route> = self.routes(link).collect();
        let routes = node.routes_in_families_of(&wanted)?;
        for wanted in &wanted {
            let to = |route: &Route| (route.destination, route.table);
            // Packets take the first one.
            let first = routes.iter().find(|it| to(it) == to(wanted));
            if first.is_none_or(|first| first.link != wanted.link) {
                return missing(format!("route {} by {}", wanted.destination, link.name));
            }
        }
        Ok(())
    }

    /// The families of the pod's addresses.
    pub(crate) fn families(&self) -> Families {
        let has = |ipv4| self.destinations.iter().any(|it| it.is_ipv4() == ipv4);
        Families { ipv4: has(true), ipv6: has(false) }
    }

    fn routes(&self, link: &Link) -> impl Iterator<Item = Route> {
        let index = link.index;
        let route = move |to: &IpNetwork| Route { scope: SCOPE_HOST, ..Route::new(*to, index) };
        self.destinations.iter().map(route)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(ips: &[(&str, &str)], expected: Result<(&[&str], &[&str]), &str>) {
        let ip = |(address, gateway): &(&str, &str)| IpConfig {
            interface: None,
            address: address.parse().unwrap(),
            gateway: gateway.parse().ok(),
        };
        let ips: Vec<_> = ips.iter().map(ip).collect();
        let text = |list: Vec<IpNetwork>| list.iter().map(IpNetwork::to_string).collect::<Vec<_>>();
        match (NodeSide::of(&ips), expected) {
            (Ok(side), Ok((addresses, destinations))) => {
                assert_eq!(text(side.addresses), addresses);
                assert_eq!(text(side.destinations), destinations);
            }
            (Err(Error::NoGateway { address }), Err(refused)) => {
                assert_eq!(address.to_string(), refused);
            }
            (side, _) => panic!("{side:?}"),
        }
    }

    #[test]
    fn host_addresses_and_routes() {
        check(&[("10.0.0.2/24", "10.0.0.1")], Ok((&["10.0.0.1/32"], &["10.0.0.2/32"])));
        check(
            &[("10.0.0.2/24", "10.0.0.1"), ("fd00::2/64", "fd00::1")],
            Ok((&["10.0.0.1/32", "fd00::1/128"], &["10.0.0.2/32", "fd00::2/128"])),
        );
        check(
            &[("10.0.0.2/24", "10.0.0.1"), ("10.0.0.3/24", "10.0.0.1")],
            Ok((&["10.0.0.1/32"], &["10.0.0.2/32", "10.0.0.3/32"])),
        );
    }

    #[test]
    fn no_gateway() {
        check(&[("10.0.0.2/24", "10.0.0.1"), ("fd00::2/64", "")], Err("fd00::2/64"));
        check(&[("10.0.0.2/24", "fd00::1")], Err("10.0.0.2/24"));
    }
}
