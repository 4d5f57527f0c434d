//! Masquerading, observed with `iptables` and `nft`. Needs root.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

mod iptables;
mod legacy;
mod nftables;

use attach::masquerade::{self, Kept};
use attach::{Masquerade, MasqueradeBackend};
use cni::{Attachment, Cidr, NetworkName, ValidAttachments};
use kernel::Nfnetlink;
use serde_json::{Value, json};
use testbed::{in_new_netns, sh};

fn network() -> NetworkName {
    "testnet".parse().unwrap()
}

fn owner(network: &NetworkName, container_id: &str, ifname: &str) -> Attachment {
    Attachment::from_names(network.as_str(), container_id, ifname).unwrap()
}

fn wanted(
    backend: MasqueradeBackend,
    (container_id, ifname): (&str, &str),
    addresses: &[&str],
) -> Masquerade {
    let addresses: Vec<Cidr> = addresses.iter().map(|text| text.parse().unwrap()).collect();
    let owner = owner(&network(), container_id, ifname);
    Masquerade::wanted(backend, &owner, addresses)
}

/// Removes the rules of an interface with these addresses, of a container with other interfaces.
fn remove_one((container_id, ifname): (&str, &str), own: &[&str]) {
    let own = own.iter().map(|text| text.parse().unwrap()).collect();
    let netlink = Nfnetlink::open().unwrap();
    let owner = owner(&network(), container_id, ifname);
    masquerade::remove(&netlink, &owner, &Kept::new(own, || Ok(true))).unwrap();
}

/// Removes the rules of a container's last interface.
fn remove((container_id, ifname): (&str, &str)) {
    let netlink = Nfnetlink::open().unwrap();
    let owner = owner(&network(), container_id, ifname);
    masquerade::remove(&netlink, &owner, &Kept::new(Vec::new(), || Ok(false))).unwrap();
}

fn valid(network: &NetworkName, valid: &[(&str, &str)]) -> ValidAttachments {
    let entry = |(id, ifname): &(&str, &str)| json!({"containerID": id, "ifname": ifname});
    let valid: Vec<Value> = valid.iter().map(entry).collect();
    let valid = json!({"cni.dev/valid-attachments": valid});
    ValidAttachments::read(network, &valid).unwrap()
}

fn collect_garbage(attachments: &[(&str, &str)]) {
    let valid = valid(&network(), attachments);
    masquerade::collect_garbage(&Nfnetlink::open().unwrap(), &network(), &valid).unwrap();
}
