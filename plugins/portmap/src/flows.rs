//! Connections that the kernel remembers and that the rules would not reach any more: a tracked connection
//! keeps the destination that its first packet was given.

use std::collections::HashSet;
use std::net::IpAddr;

use kernel::conntrack::Filter;
use kernel::iptables::UDP;
use kernel::{Family, Nfnetlink, Rtnl};

use crate::claim::End;
use crate::error::Error;
use crate::mapping::Mapping;
use crate::plan::Plan;

/// So many ports are asked for one by one: each time, the kernel goes through all connections, but tells few.
const FEW: usize = 4;

/// Forgets the UDP flows to the node's ports, as of before the rules: clients that go on sending from one
/// port would never get to the pod. TCP clients connect again.
///
/// Only packets to the node itself are mapped, so flows to elsewhere that happen to have the same port stay.
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

/// Forgets the flows of every protocol that end where removed rules led to, at a pod that is gone.
pub(crate) fn forget_ends(netlink: &Nfnetlink, ends: &[End]) -> Result<(), Error> {
    for family in Family::ALL {
        let of_family = ends.iter().filter(|end| end.family == family);
        let addresses: HashSet<IpAddr> = of_family.map(|end| end.address).collect();
        let Some(address) = addresses.iter().next() else { continue };
        // Each question makes the kernel look at all that it tracks: one for a GC's many pods.
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

/// Forgets the flows that a pod opened itself, which is gone as are the rules that led to it: the next pod of
/// its address has nothing to do with them.
pub(crate) fn forget_opened(netlink: &Nfnetlink, ends: &[End]) -> Result<(), Error> {
    let addresses: HashSet<IpAddr> = ends.iter().map(|end| end.address).collect();
    for address in addresses {
        let opened = Filter { original_source: Some(address), ..Filter::default() };
        netlink.delete_flows(Family::of(address), &opened)?;
    }
    Ok(())
}
