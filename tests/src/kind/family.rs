//! The two address families, and the addresses of the cluster.

use std::net::SocketAddr;

use super::{HOST, WORKER};

/// IPv4 or IPv6, and the words that differ between them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// The address of the host or of a node.
    #[must_use]
    pub fn address(self, machine: &str) -> &'static str {
        let cidr = self.cidr(machine);
        cidr.split('/').next().unwrap_or(cidr)
    }

    /// A port of the host or of a node.
    #[must_use]
    pub fn at(self, machine: &str, port: u16) -> SocketAddr {
        SocketAddr::new(self.address(machine).parse().expect("an address"), port)
    }

    /// The backend's Service: its address and port.
    #[must_use]
    pub fn web(self) -> &'static str {
        self.either("10.96.200.40:80", "[fd00:10:96::c828]:80")
    }

    pub(super) fn cidr(self, machine: &str) -> &'static str {
        match machine {
            HOST => self.either("172.18.0.1/16", "fc00:f853:ccd:e793::1/64"),
            WORKER => self.either("172.18.0.3/16", "fc00:f853:ccd:e793::3/64"),
            _ => self.either("172.18.0.2/16", "fc00:f853:ccd:e793::2/64"),
        }
    }

    pub(super) fn pods_of(self, node: &str) -> &'static str {
        match node {
            WORKER => self.either("10.244.1.0/24", "fd00:10:244:1::/64"),
            _ => self.either("10.244.0.0/24", "fd00:10:244::/64"),
        }
    }

    /// The control plane's own addresses in the syntax of an nft set.
    pub(super) fn addresses_of_node(self) -> &'static str {
        self.either("172.18.0.2, 127.0.0.1", "fc00:f853:ccd:e793::2")
    }

    pub(super) fn default(self) -> &'static str {
        self.either("0.0.0.0/0", "::/0")
    }

    pub(super) fn nodad(self) -> &'static str {
        self.either("", "nodad")
    }

    pub(super) fn nft(self) -> &'static str {
        self.either("ip", "ip6")
    }

    pub(super) fn conntrack(self) -> &'static str {
        self.either("ipv4", "ipv6")
    }

    pub(super) fn restore(self) -> &'static str {
        self.either("iptables-nft-restore", "ip6tables-nft-restore")
    }

    pub(super) fn save(self) -> &'static str {
        self.either("iptables-nft-save", "ip6tables-nft-save")
    }

    pub(super) fn kindnet(self) -> &'static str {
        self.either("kindnet.iptables", "kindnet.ip6tables")
    }

    pub(super) fn kube_proxy(self, mode: &str) -> &'static str {
        match mode {
            "nftables" => self.either("kube-proxy.nft", "kube-proxy.nft6"),
            _ => self.either("kube-proxy.iptables", "kube-proxy.ip6tables"),
        }
    }

    fn either<T>(self, v4: T, v6: T) -> T {
        if self == Family::V4 { v4 } else { v6 }
    }
}
