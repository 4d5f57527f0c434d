//! The gateway's addresses: which ones there must be, and what must change for them.

use std::net::IpAddr;

use cni::{Cidr, IpConfig, Route, Success};
use ipnetwork::IpNetwork;

use crate::error::Error;

/// How the addresses of the gateway's link must change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct AddressPlan {
    /// Addresses to delete.
    pub(crate) delete: Vec<IpNetwork>,
    /// Addresses to add.
    pub(crate) add: Vec<IpNetwork>,
}

/// Adds what IPAM did not say: the first address of a network is its gateway. With `is_default`, each family
/// that has no default route gets one through the gateway.
pub(crate) fn complete(result: &mut Success, is_default: bool) {
    for ip in &mut result.ips {
        ip.gateway = ip.gateway.or_else(|| first_address(ip.address));
    }
    if !is_default {
        return;
    }
    for ip in &result.ips {
        let default = default_destination(ip.address);
        if !result.routes.iter().any(|route| route.dst == default) {
            result.routes.push(Route { gw: ip.gateway, ..Route::to(default) });
        }
    }
}

/// The gateways of a pod's addresses, with the prefixes of their networks.
pub(super) fn of(ips: &[IpConfig]) -> Vec<Cidr> {
    ips.iter().filter_map(|ip| Cidr::new(ip.gateway?, ip.address.prefix())).collect()
}

/// Compares the addresses that a link has with those that it must have. It has IPv4 addresses of one network
/// only, and IPv6 addresses of networks that do not overlap.
///
/// Errors: an address excludes a wanted one, and `force` does not allow to delete it.
pub(super) fn plan(
    bridge: &str,
    present: &[IpNetwork],
    wanted: &[Cidr],
    force: bool,
) -> Result<AddressPlan, Error> {
    let mut plan = AddressPlan::default();
    for &gateway in wanted {
        let gateway = IpNetwork::from(gateway);
        if present.contains(&gateway) || plan.add.contains(&gateway) {
            continue;
        }
        for &other in present {
            if !excludes(other, gateway) || wanted.contains(&other.into()) {
                continue;
            }
            if !force {
                return Err(Error::OtherAddress { bridge: bridge.to_owned(), other, gateway });
            }
            if !plan.delete.contains(&other) {
                plan.delete.push(other);
            }
        }
        plan.add.push(gateway);
    }
    Ok(plan)
}

fn excludes(other: IpNetwork, gateway: IpNetwork) -> bool {
    let both_ipv4 = other.is_ipv4() && gateway.is_ipv4();
    both_ipv4 || other.contains(gateway.ip()) || gateway.contains(other.ip())
}

fn first_address(address: Cidr) -> Option<IpAddr> {
    match address.network().ip() {
        IpAddr::V4(v4) => v4.to_bits().checked_add(1).map(|bits| IpAddr::V4(bits.into())),
        IpAddr::V6(v6) => v6.to_bits().checked_add(1).map(|bits| IpAddr::V6(bits.into())),
    }
}

fn default_destination(family_of: Cidr) -> Cidr {
    let anywhere = match family_of.ip() {
        IpAddr::V4(_) => IpAddr::from([0; 4]),
        IpAddr::V6(_) => IpAddr::from([0; 16]),
    };
    Cidr::new(anywhere, 0).unwrap_or(family_of)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ip(address: &str, gateway: &str) -> IpConfig {
        let address = address.parse().unwrap();
        IpConfig { interface: None, address, gateway: gateway.parse().ok() }
    }

    fn networks(texts: &[&str]) -> Vec<IpNetwork> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[track_caller]
    fn check(present: &[&str], wanted: &str, force: bool, delete: &[&str], add: &[&str]) {
        let plan = plan("cni0", &networks(present), &[wanted.parse().unwrap()], force).unwrap();
        assert_eq!(plan, AddressPlan { delete: networks(delete), add: networks(add) });
    }

    #[test]
    fn the_first_address_is_the_gateway() {
        let mut result = Success {
            ips: vec![ip("10.88.0.5/24", ""), ip("fd00::5/64", "fd00::99")],
            ..Success::default()
        };
        complete(&mut result, false);
        assert_eq!(of(&result.ips), ["10.88.0.1/24", "fd00::99/64"].map(|t| t.parse().unwrap()));
        assert!(result.routes.is_empty());
    }

    #[test]
    fn one_default_route_a_family() {
        let default = Route::to("0.0.0.0/0".parse().unwrap());
        let mut result = Success {
            ips: vec![ip("10.88.0.5/24", ""), ip("10.89.0.5/24", ""), ip("fd00::5/64", "")],
            routes: vec![default.clone()],
            ..Success::default()
        };
        complete(&mut result, true);
        assert_eq!(result.routes.len(), 2);
        assert_eq!(result.routes[0], default);
        assert_eq!(result.routes[1].gw, "fd00::1".parse().ok());
    }

    #[test]
    fn addresses_of_the_bridge() {
        check(&[], "10.88.0.1/24", false, &[], &["10.88.0.1/24"]);
        check(&["10.88.0.1/24"], "10.88.0.1/24", false, &[], &[]);
        check(&["10.99.0.1/24"], "10.88.0.1/24", true, &["10.99.0.1/24"], &["10.88.0.1/24"]);
        check(&["fe80::1/64", "fd01::1/64"], "fd00::1/64", false, &[], &["fd00::1/64"]);
        check(&["fd00::9/48"], "fd00::1/64", true, &["fd00::9/48"], &["fd00::1/64"]);
        let wanted = ["10.88.0.1/24".parse().unwrap()];
        let refused = plan("cni0", &networks(&["10.99.0.1/24"]), &wanted, false).unwrap_err();
        assert!(matches!(refused, Error::OtherAddress { .. }));
    }

    #[test]
    fn two_networks_of_one_pod_do_not_exclude_each_other() {
        let wanted = ["10.88.0.1/24", "10.89.0.1/24"].map(|text| text.parse().unwrap());
        let plan = plan("cni0", &networks(&["10.88.0.1/24"]), &wanted, false).unwrap();
        assert_eq!(plan, AddressPlan { delete: vec![], add: networks(&["10.89.0.1/24"]) });
    }

    proptest! {
        #[test]
        fn no_address_panics(bits: u128, prefix in 0u8..=128, four: Option<u32>) {
            let ip = four.map_or(IpAddr::from(bits.to_be_bytes()), |v4| v4.to_be_bytes().into());
            if let Some(address) = Cidr::new(ip, prefix) {
                let mut result = Success {
                    ips: vec![IpConfig { interface: None, address, gateway: None }],
                    ..Success::default()
                };
                complete(&mut result, true);
                prop_assert_eq!(result.routes.len(), 1);
            }
        }
    }
}
