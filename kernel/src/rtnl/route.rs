//! Routes.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteMetric, RouteNextHop,
    RouteProtocol, RouteScope, RouteType,
};

use nix::errno::Errno;

use super::Rtnl;
use crate::error::Result;
use crate::family::Family;

/// Numbers of routing tables (`enum rt_class_t` in `include/uapi/linux/rtnetlink.h`).
pub mod table {
    /// The default table.
    pub const MAIN: u32 = 254;
    /// The addresses of this machine.
    pub const LOCAL: u32 = 255;
}

/// A unicast route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// The destination.
    pub destination: IpNetwork,
    /// The router; `None` if the destination is on the link.
    pub gateway: Option<IpAddr>,
    /// Whether the router is on the link even if no other route leads there (`RTNH_F_ONLINK`).
    pub onlink: bool,
    /// The index of the link.
    pub link: Option<u32>,
    /// The source address for packets of this machine. If the kernel has joined IPv6 routes into one with
    /// several next hops, only the first one has it.
    pub source: Option<IpAddr>,
    /// The distance of the destination (`rtm_scope`): 0 anywhere, 253 on the link, 254 this machine.
    pub scope: u8,
    /// The routing table.
    pub table: u32,
    /// The metric: lower is preferred; 0 for the kernel's default.
    pub priority: u32,
    /// The path's MTU in bytes.
    pub mtu: Option<u32>,
    /// The TCP segment size to announce, in bytes.
    pub advmss: Option<u32>,
}

impl Route {
    /// A route in the main table with only a destination and a link.
    #[must_use]
    pub fn new(destination: IpNetwork, link: u32) -> Self {
        Self {
            destination,
            gateway: None,
            onlink: false,
            link: Some(link),
            source: None,
            scope: 0,
            table: table::MAIN,
            priority: 0,
            mtu: None,
            advmss: None,
        }
    }
}

impl Rtnl {
    /// Adds a route. There may be others to the same destination.
    ///
    /// Errors: EEXIST if the route exists; ENETUNREACH if no link leads to the gateway.
    pub fn add_route(&self, route: &Route) -> Result<()> {
        let message = RouteNetlinkMessage::NewRoute(route_message(route));
        self.change(message, NLM_F_CREATE, || match route.gateway {
            Some(gateway) => format!("add route {} via {gateway}", route.destination),
            None => format!("add route {}", route.destination),
        })
    }

    /// Adds a route. It replaces a route to the same destination with the same metric.
    pub fn replace_route(&self, route: &Route) -> Result<()> {
        let message = RouteNetlinkMessage::NewRoute(route_message(route));
        self.change(message, NLM_F_CREATE | NLM_F_REPLACE, || {
            format!("replace route {}", route.destination)
        })
    }

    /// The index of the link on which packets from this machine to an address leave; `None` if there is no
    /// route.
    pub fn link_towards(&self, address: IpAddr) -> Result<Option<u32>> {
        Ok(self.route_to(address)?.map(|(index, _)| index))
    }

    /// The index of the link that leads to an address directly, without a router; `None` if there is no such
    /// link.
    pub fn direct_link_towards(&self, address: IpAddr) -> Result<Option<u32>> {
        Ok(self.route_to(address)?.and_then(|(index, is_direct)| is_direct.then_some(index)))
    }

    /// The link on which packets to an address leave, and whether it leads to the address directly.
    fn route_to(&self, address: IpAddr) -> Result<Option<(u32, bool)>> {
        let mut message = RouteMessage::default();
        message.header.address_family = Family::of(address).into();
        message.header.destination_prefix_length = if address.is_ipv4() { 32 } else { 128 };
        message.attributes.push(RouteAttribute::Destination(address.into()));
        let get = RouteNetlinkMessage::GetRoute(message);
        let replies = match self.request(get, 0, || format!("find the route to {address}")) {
            Err(error) if error.errno() == Some(Errno::ENETUNREACH) => return Ok(None),
            replies => replies?,
        };
        let Some(RouteNetlinkMessage::NewRoute(message)) = replies.into_iter().next() else {
            return Ok(None);
        };
        let (mut link, mut is_direct) = (None, true);
        for attribute in message.attributes {
            match attribute {
                RouteAttribute::Oif(index) => link = Some(index),
                RouteAttribute::Gateway(_) | RouteAttribute::Via(_) => is_direct = false,
                _ => {}
            }
        }
        Ok(link.map(|index| (index, is_direct)))
    }

    /// The unicast routes of all families that `wanted` has, as [`Rtnl::routes`].
    pub fn routes_in_families_of(&self, wanted: &[Route]) -> Result<Vec<Route>> {
        let mut routes = Vec::new();
        for family in Family::ALL {
            if wanted.iter().any(|route| Family::of(route.destination.ip()) == family) {
                routes.extend(self.routes(family)?);
            }
        }
        Ok(routes)
    }

    /// The unicast routes of a family in all tables except the local one.
    pub fn routes(&self, family: Family) -> Result<Vec<Route>> {
        let mut message = RouteMessage::default();
        message.header.address_family = family.into();
        let operation = || "list routes".to_owned();
        let replies = self.dump(RouteNetlinkMessage::GetRoute(message), operation)?;
        let routes =
            replies.into_iter().flat_map(|reply| read_route(reply, family).unwrap_or_default());
        Ok(routes.filter(|route| route.table != table::LOCAL).collect())
    }
}

pub(super) fn route_message(route: &Route) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = Family::of(route.destination.ip()).into();
    message.header.destination_prefix_length = route.destination.prefix();
    message.header.protocol = RouteProtocol::Boot;
    message.header.scope = RouteScope::from(route.scope);
    message.header.flags.set(RouteFlags::Onlink, route.onlink);
    message.header.kind = RouteType::Unicast;
    // A number that needs more than one byte is only in the attribute.
    message.header.table = u8::try_from(route.table).unwrap_or(0);

    let attributes = &mut message.attributes;
    attributes.push(RouteAttribute::Destination(route.destination.network().into()));
    attributes.extend(route.gateway.map(|ip| RouteAttribute::Gateway(ip.into())));
    attributes.extend(route.link.map(RouteAttribute::Oif));
    attributes.extend(route.source.map(|ip| RouteAttribute::PrefSource(ip.into())));
    attributes.push(RouteAttribute::Table(route.table));
    if route.priority != 0 {
        attributes.push(RouteAttribute::Priority(route.priority));
    }
    let metrics = [route.mtu.map(RouteMetric::Mtu), route.advmss.map(RouteMetric::Advmss)];
    let metrics: Vec<_> = metrics.into_iter().flatten().collect();
    if !metrics.is_empty() {
        attributes.push(RouteAttribute::Metrics(metrics));
    }
    message
}

/// Reads a route. One with several next hops becomes one route for each: the kernel joins IPv6 routes.
fn read_route(reply: RouteNetlinkMessage, family: Family) -> Option<Vec<Route>> {
    let RouteNetlinkMessage::NewRoute(message) = reply else { return None };
    let RouteMessage { header, attributes, .. } = message;
    // A cloned route is not configured: the kernel keeps it because it was used.
    if header.kind != RouteType::Unicast || header.flags.contains(RouteFlags::Cloned) {
        return None;
    }
    let anywhere: IpAddr = match family {
        Family::V4 => [0; 4].into(),
        Family::V6 => [0; 16].into(),
    };
    let (mut destination, mut hops) = (anywhere, Vec::new());
    let mut route = Route {
        link: None,
        onlink: header.flags.contains(RouteFlags::Onlink),
        scope: header.scope.into(),
        table: header.table.into(),
        ..Route::new(IpNetwork::from(anywhere), 0)
    };
    for attribute in attributes {
        match attribute {
            RouteAttribute::Destination(to) => destination = ip(&to)?,
            RouteAttribute::Gateway(via) => route.gateway = ip(&via),
            RouteAttribute::PrefSource(from) => route.source = ip(&from),
            RouteAttribute::Oif(index) => route.link = Some(index),
            RouteAttribute::MultiPath(several) => hops = several,
            RouteAttribute::Table(table) => route.table = table,
            RouteAttribute::Priority(priority) => route.priority = priority,
            RouteAttribute::Metrics(metrics) => read_metrics(&mut route, &metrics),
            _ => {}
        }
    }
    route.destination = IpNetwork::new(destination, header.destination_prefix_length).ok()?;
    if hops.is_empty() {
        return Some(vec![route]);
    }
    let by_hop = |(at, hop): (usize, &RouteNextHop)| {
        let source = route.source.filter(|_| at == 0 || family == Family::V4);
        Route { link: Some(hop.interface_index), gateway: gateway(hop), source, ..route }
    };
    Some(hops.iter().enumerate().map(by_hop).collect())
}

fn read_metrics(route: &mut Route, metrics: &[RouteMetric]) {
    for metric in metrics {
        match metric {
            RouteMetric::Mtu(mtu) => route.mtu = Some(*mtu),
            RouteMetric::Advmss(advmss) => route.advmss = Some(*advmss),
            _ => {}
        }
    }
}

fn gateway(hop: &RouteNextHop) -> Option<IpAddr> {
    hop.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Gateway(via) => ip(via),
        _ => None,
    })
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(v4) => Some((*v4).into()),
        RouteAddress::Inet6(v6) => Some((*v6).into()),
        _ => None,
    }
}
