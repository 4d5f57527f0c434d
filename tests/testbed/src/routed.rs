//! A node that forwards, a pod of its own and a machine outside, with IPv4 and IPv6.

use crate::{Namespace, in_new_netns, sh};

/// Routers resolve their neighbours from link-local addresses, which would be tentative at first.
const NO_DAD: &str = "sysctl -qw net.ipv6.conf.default.accept_dad=0 net.ipv6.conf.all.accept_dad=0";

/// Runs a test in a new namespace that stands for the node.
pub fn on_a_node(test: impl FnOnce() + Send) {
    in_new_netns(|| {
        sh(NO_DAD);
        sh("ip link set lo up; sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1");
        test();
    });
}

/// A pod behind the veth pair `vethpod`: 10.88.0.2 and `fd00:88::2`; the node is 10.88.0.10 and
/// `fd00:88::10` to it.
pub fn pod() -> Namespace {
    neighbour("vethpod", ("10.88.0", "fd00:88"), 2)
}

/// A machine outside, behind `uplink`: 192.0.2.1 and `2001:db8::1`; the node is 192.0.2.10 and
/// `2001:db8::10` to it.
pub fn client() -> Namespace {
    neighbour("uplink", ("192.0.2", "2001:db8"), 1)
}

fn neighbour(link: &str, (v4, v6): (&str, &str), last: u8) -> Namespace {
    let namespace = Namespace::create();
    namespace.sh(NO_DAD);
    sh(&format!(
        "ip link add {link} type veth peer name eth0 netns {}
        ip addr add {v4}.10/24 dev {link}; ip addr add {v6}::10/64 dev {link} nodad
        ip link set {link} up",
        namespace.path()
    ));
    namespace.sh(&format!(
        "ip link set lo up; ip link set eth0 up
        ip addr add {v4}.{last}/24 dev eth0; ip addr add {v6}::{last}/64 dev eth0 nodad
        ip route add default via {v4}.10; ip -6 route add default via {v6}::10"
    ));
    namespace
}
