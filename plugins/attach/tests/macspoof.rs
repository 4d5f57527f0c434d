//! `macspoofchk` seen by the program `nft`. Needs root.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

use std::cell::Cell;

use attach::{MacSpoofCheck, macspoof};
use cni::Attachment;
use kernel::Nfnetlink;
use testbed::{in_new_netns, sh};

fn attachment(letter: char) -> Attachment {
    Attachment::from_names("n", &format!("pod-{letter}"), "eth0").unwrap()
}

fn pod(letter: char) -> MacSpoofCheck {
    let mac = [2, 0, 0, 0, 0, letter as u8];
    MacSpoofCheck::wanted(&attachment(letter), &format!("veth{letter}"), mac)
}

const EMPTY: &str = "\
table bridge nat {
\tchain PREROUTING {
\t\ttype filter hook prerouting priority dstnat; policy accept;
\t}
}
";

/// What `nft` lists after an ADD of the reference plugin with these names.
const ONE: &str = "\
table bridge nat {
\tchain PREROUTING {
\t\ttype filter hook prerouting priority dstnat; policy accept;
\t\tiifname \"vetha\" jump cni-br-iface-pod-a-eth0 comment \"macspoofchk-pod-a-eth0\"
\t}

\tchain cni-br-iface-pod-a-eth0 {
\t\tjump cni-br-iface-pod-a-eth0-mac comment \"macspoofchk-pod-a-eth0\"
\t}

\tchain cni-br-iface-pod-a-eth0-mac {
\t\tether saddr 02:00:00:00:00:61 return comment \"macspoofchk-pod-a-eth0\"
\t\tdrop comment \"macspoofchk-pod-a-eth0\"
\t}
}
";

#[test]
fn rules_are_those_of_the_reference_plugin() {
    in_new_netns(|| {
        let netlink = Nfnetlink::open().unwrap();
        pod('a').add(&netlink, &Cell::default()).unwrap();
        assert_eq!(sh("nft list ruleset"), ONE);
        pod('a').add(&netlink, &Cell::default()).expect("adding again changes nothing");
        assert_eq!(sh("nft list ruleset"), ONE);
        pod('a').check(&netlink).unwrap();
        pod('b').check(&netlink).unwrap_err();
        pod('b').add(&netlink, &Cell::default()).unwrap();
        pod('b').check(&netlink).unwrap();
        sh("nft flush chain bridge nat cni-br-iface-pod-b-eth0-mac");
        let missing = pod('b').check(&netlink).unwrap_err().to_string();
        assert_eq!(
            missing,
            "rule macspoofchk-pod-b-eth0 of chain bridge nat cni-br-iface-pod-b-eth0-mac is missing"
        );
        macspoof::remove(&netlink, &attachment('b')).unwrap();
        assert_eq!(sh("nft list ruleset"), ONE);
        macspoof::remove(&netlink, &attachment('b')).unwrap();
        macspoof::remove(&netlink, &attachment('a')).unwrap();
        assert_eq!(sh("nft list ruleset"), EMPTY);
    });
}

#[test]
fn gc_removes_rules_of_interfaces_that_are_gone() {
    in_new_netns(|| {
        let netlink = Nfnetlink::open().unwrap();
        macspoof::collect_garbage(&netlink, |_| true)
            .expect("without a table, GC has nothing to do");
        pod('a').add(&netlink, &Cell::default()).unwrap();
        pod('b').add(&netlink, &Cell::default()).unwrap();
        macspoof::collect_garbage(&netlink, |name| name == "vetha").unwrap();
        assert_eq!(sh("nft list ruleset"), ONE);
    });
}

#[test]
fn an_incomplete_removal_is_completed() {
    in_new_netns(|| {
        let netlink = Nfnetlink::open().unwrap();
        pod('a').add(&netlink, &Cell::default()).unwrap();
        sh("nft flush chain bridge nat PREROUTING");
        sh("nft flush chain bridge nat cni-br-iface-pod-a-eth0");
        sh("nft delete chain bridge nat cni-br-iface-pod-a-eth0");
        macspoof::remove(&netlink, &attachment('a')).unwrap();
        assert_eq!(sh("nft list ruleset"), EMPTY);
    });
}
