//! Connections that the kernel remembers and that the rules would not reach any more: a tracked connection
//! keeps the destination that its first packet was given.

use std::net::IpAddr;

use cni::Cidr;
use kernel::conntrack::Filter;
use kernel::iptables::{Nat, UDP};
use kernel::{Nfnetlink, Rtnl};

use crate::error::Error;
use crate::mapping::Mapping;
use crate::remove::End;

/// Forgets the UDP flows to the node's ports, as of before the rules: clients that go on sending from one port
/// would never get to the pod. TCP clients connect anew.
///
/// Only packets to the node itself are mapped, so flows to elsewhere that happen to have the same port stay.
pub(crate) fn forget_udp(
    netlink: &Nfnetlink,
    mappings: &[Mapping],
    pod: &[Cidr],
) -> Result<(), Error> {
    let udp: Vec<&Mapping> = mappings.iter().filter(|mapping| mapping.protocol == UDP).collect();
    if udp.is_empty() {
        return Ok(());
    }
    let addresses = Rtnl::open()?.addresses(0, None)?;
    let is_local =
        |ip: IpAddr| ip.is_loopback() || addresses.iter().any(|address| address.network.ip() == ip);
    for nat in pod.iter().map(|cidr| Nat::of(cidr.ip())) {
        for mapping in udp.iter().filter(|mapping| mapping.is_of(nat)) {
            let filter = Filter {
                protocol: Some(UDP),
                original_destination: mapping.host_ip.filter(|ip| !ip.is_unspecified()),
                original_destination_port: Some(mapping.host_port),
                ..Filter::default()
            };
            for flow in netlink.flows(nat.family(), &filter)? {
                if is_local(flow.original.destination) {
                    netlink.delete_flow(nat.family(), &flow)?;
                }
            }
        }
    }
    Ok(())
}

/// Forgets the flows of every protocol that end where removed rules led to, at a pod that is gone.
pub(crate) fn forget_ends(netlink: &Nfnetlink, ends: &[End]) -> Result<(), Error> {
    let mut done: Vec<IpAddr> = Vec::new();
    for End { nat, address, .. } in ends {
        if done.contains(address) {
            continue;
        }
        done.push(*address);
        let filter = Filter { reply_source: Some(*address), ..Filter::default() };
        for flow in netlink.flows(nat.family(), &filter)? {
            let ended = ends.iter().any(|end| {
                end.address == flow.reply.source
                    && end.protocol == flow.reply.protocol
                    && end.port.is_none_or(|port| port == flow.reply.source_port)
            });
            if ended {
                netlink.delete_flow(nat.family(), &flow)?;
            }
        }
    }
    Ok(())
}
