//! Deletes tracked connections that changed rules would not affect: a tracked connection keeps the
//! destination of its first packet.

use std::collections::HashSet;
use std::net::IpAddr;

use kernel::conntrack::Filter;
use kernel::iptables::UDP;
use kernel::{Family, Nfnetlink, Rtnl};

use crate::claim::End;
use crate::error::Error;
use crate::mapping::Mapping;
use crate::plan::Plan;

/// Up to this many ports, each has a request of its own: the kernel reads all connections for each, but sends
/// few.
const FEW: usize = 4;

/// Deletes the UDP flows to the node's ports from before the rules: a client that goes on sending from one
/// port would never reach the pod. TCP clients connect again.
///
/// Flows to other nodes with the same port stay.
pub(crate) fn forget_udp(netlink: &Nfnetlink, plan: &Plan<'_>) -> Result<(), Error> {
    let mappings = plan.settings.mappings.iter();
    let udp: Vec<&Mapping> = mappings.filter(|mapping| mapping.protocol == UDP).collect();
    if udp.is_empty() {
        return Ok(());
    }
    let addresses = Rtnl::open()?.addresses(0, None)?;
    let is_local =
        |ip: IpAddr| ip.is_loopback() || addresses.iter().any(|address| address.network.ip() == ip);
    for family in plan.pod.iter().map(|cidr| Family::of(cidr.ip())) {
        let of_family = udp.iter().filter(|mapping| mapping.is_of(family));
        let places: HashSet<(Option<IpAddr>, u16)> = of_family
            .map(|mapping| (mapping.host_ip.filter(|ip| !ip.is_unspecified()), mapping.host_port))
            .collect();
        let all = Filter { protocol: Some(UDP), ..Filter::default() };
        let to = |(address, port): &(Option<IpAddr>, u16)| Filter {
            original_destination: *address,
            original_destination_port: Some(*port),
            ..all
        };
        let questions: Vec<Filter> =
            if places.len() > FEW { vec![all] } else { places.iter().map(to).collect() };
        for question in questions {
            for flow in netlink.flows(family, &question)? {
                let (ip, port) = (flow.original.destination, flow.original.destination_port);
                let is_mapped = [None, Some(ip)].iter().any(|at| places.contains(&(*at, port)));
                if is_mapped && is_local(ip) {
                    netlink.delete_flow(family, &flow)?;
                }
            }
        }
    }
    Ok(())
}

/// Deletes the flows, of every protocol, to the ends that removed rules led to.
pub(crate) fn forget_ends(netlink: &Nfnetlink, ends: &[End]) -> Result<(), Error> {
    for family in Family::ALL {
        let of_family = ends.iter().filter(|end| end.family == family);
        let addresses: HashSet<IpAddr> = of_family.map(|end| end.address).collect();
        let Some(address) = addresses.iter().next() else { continue };
        // For each request the kernel reads all flows, so that a GC of many pods makes only one.
        let reply_source = (addresses.len() == 1).then_some(*address);
        for flow in netlink.flows(family, &Filter { reply_source, ..Filter::default() })? {
            let is_end = |end: &End| {
                end.address == flow.reply.source
                    && end.protocol == flow.reply.protocol
                    && end.port.is_none_or(|port| port == flow.reply.source_port)
            };
            if addresses.contains(&flow.reply.source) && ends.iter().any(is_end) {
                netlink.delete_flow(family, &flow)?;
            }
        }
    }
    Ok(())
}

/// Deletes the flows that a deleted pod has opened, so that the next pod with its address does not get them.
pub(crate) fn forget_opened(netlink: &Nfnetlink, ends: &[End]) -> Result<(), Error> {
    let addresses: HashSet<IpAddr> = ends.iter().map(|end| end.address).collect();
    for address in addresses {
        let opened = Filter { original_source: Some(address), ..Filter::default() };
        netlink.delete_flows(Family::of(address), &opened)?;
    }
    Ok(())
}
