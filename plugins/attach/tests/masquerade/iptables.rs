//! The table `nat` of iptables.

use attach::masquerade::{self, Kept};
use attach::{Masquerade, MasqueradeBackend};
use cni::NetworkName;
use kernel::Nfnetlink;

use super::{collect_garbage, in_new_netns, owner, sh, valid};

/// The rules and own chains of a table `nat`, one in each line, without handles and policies.
#[track_caller]
fn check(program: &str, expected: &[&str]) {
    let listed = sh(&format!("{program} -t nat -S"));
    let lines: Vec<_> = listed.lines().filter(|line| !line.starts_with("-P ")).collect();
    assert_eq!(lines, expected);
}

fn wanted(container_id: &str, addresses: &[&str]) -> Masquerade {
    super::wanted(MasqueradeBackend::Iptables, (container_id, "eth0"), addresses)
}

fn add(container_id: &str, addresses: &[&str]) {
    wanted(container_id, addresses).add(&Nfnetlink::open().unwrap()).unwrap();
}

fn remove(container_id: &str) {
    super::remove((container_id, "eth0"));
}

const CHAIN: &str = "CNI-9b8cc9dd5d53e36658bb083e";
const COMMENT: &str = "-m comment --comment \"name: \\\"testnet\\\" id: \\\"pod-a\\\"\"";

fn rules(of_chain: &[&str], sources: &[&str]) -> Vec<String> {
    let mut out = vec![format!("-N {CHAIN}")];
    for source in sources {
        out.push(format!("-A POSTROUTING -s {source} {COMMENT} -j {CHAIN}"));
    }
    for rule in of_chain {
        out.push(format!("-A {CHAIN} {}", rule.replace('#', COMMENT)));
    }
    out
}

#[track_caller]
fn check_v4(of_chain: &[&str], sources: &[&str]) {
    let expected = rules(of_chain, sources);
    check("iptables", &expected.iter().map(String::as_str).collect::<Vec<_>>());
}

const PASS: &str = "-d 10.88.0.0/24 # -j ACCEPT";
const REST: &str = "! -d 224.0.0.0/4 # -j MASQUERADE";

#[test]
fn rules_of_a_dual_stack_pod() {
    in_new_netns(|| {
        add("pod-a", &["10.88.0.2/24", "fd00:88::2/64"]);
        check_v4(&[PASS, REST], &["10.88.0.2/32"]);
        let six = rules(
            &["-d fd00:88::/64 # -j ACCEPT", "! -d ff00::/8 # -j MASQUERADE"],
            &["fd00:88::2/128"],
        );
        check("ip6tables", &six.iter().map(String::as_str).collect::<Vec<_>>());
        let netlink = Nfnetlink::open().unwrap();
        let wanted = wanted("pod-a", &["10.88.0.2/24", "fd00:88::2/64"]);
        wanted.check(&netlink).unwrap();
        wanted.add(&netlink).expect("adding again changes nothing");
        check_v4(&[PASS, REST], &["10.88.0.2/32"]);
        sh(&format!("ip6tables -t nat -D {CHAIN} 2"));
        let missing = wanted.check(&netlink).unwrap_err().to_string();
        assert!(missing.contains("ip6tables rule -t nat -A CNI-9b8"), "{missing}");
        assert!(missing.contains("! -d ff00::/8"), "{missing}");
        remove("pod-a");
        check("iptables", &[]);
        check("ip6tables", &[]);
        remove("pod-a");
    });
}

#[test]
fn a_second_interface_shares_the_chain() {
    in_new_netns(|| {
        add("pod-a", &["10.88.0.2/24"]);
        add("pod-a", &["10.88.0.3/24"]);
        check_v4(&[PASS, REST], &["10.88.0.2/32", "10.88.0.3/32"]);
        add("pod-a", &["10.99.0.2/24"]);
        let other = "-d 10.99.0.0/24 # -j ACCEPT";
        let all = ["10.88.0.2/32", "10.88.0.3/32", "10.99.0.2/32"];
        check_v4(&[other, PASS, REST], &all);
        super::remove_one(("pod-a", "eth2"), &["10.99.0.2"]);
        check_v4(&[other, PASS, REST], &["10.88.0.2/32", "10.88.0.3/32"]);
        remove("pod-a");
        check("iptables", &[]);
    });
}

#[test]
fn rules_of_others_stay() {
    in_new_netns(|| {
        sh("iptables -t nat -A POSTROUTING -s 10.88.0.0/24 -j RETURN");
        add("pod-b", &["10.88.0.3/24"]);
        let before = sh("iptables -t nat -S");
        add("pod-a", &["10.88.0.2/24"]);
        assert_ne!(sh("iptables -t nat -S"), before);
        remove("pod-a");
        assert_eq!(sh("iptables -t nat -S"), before);
    });
}

#[test]
fn the_rest_of_an_incomplete_removal_is_removed() {
    in_new_netns(|| {
        // The reference plugins delete rule by rule, with the network as source in old versions.
        sh(&format!(
            "iptables -t nat -N {CHAIN}; iptables -t nat -A POSTROUTING -s 10.88.0.0/24 -j {CHAIN}"
        ));
        remove("pod-a");
        check("iptables", &[]);
        sh(&format!("iptables -t nat -N {CHAIN}"));
        remove("pod-a");
        check("iptables", &[]);
    });
}

#[test]
fn garbage_is_what_belongs_to_no_valid_attachment_of_the_network() {
    in_new_netns(|| {
        add("pod-b", &["10.88.0.3/24"]);
        let other: NetworkName = "othernet".parse().unwrap();
        let netlink = Nfnetlink::open().unwrap();
        let owner = owner(&other, "pod-a", "eth0");
        let addresses = vec!["10.99.0.2/24".parse().unwrap()];
        let wanted = Masquerade::wanted(MasqueradeBackend::Iptables, &owner, addresses);
        wanted.add(&netlink).unwrap();
        sh("iptables -t nat -N CNI-HOSTPORT-DNAT; iptables -t nat -A CNI-HOSTPORT-DNAT -j RETURN");
        let before = sh("iptables -t nat -S; ip6tables -t nat -S");
        add("pod-a", &["10.88.0.2/24", "fd00:88::2/64"]);
        collect_garbage(&[("pod-b", "eth0")]);
        assert_eq!(sh("iptables -t nat -S; ip6tables -t nat -S"), before);
    });
}

#[test]
fn garbage_of_containers_with_long_names() {
    in_new_netns(|| {
        let (one, other) = ("a".repeat(250), "b".repeat(250));
        add(&one, &["10.88.0.3/24"]);
        let before = sh("iptables -t nat -S");
        add(&other, &["10.88.0.2/24"]);
        collect_garbage(&[(&one, "eth0")]);
        assert_eq!(sh("iptables -t nat -S"), before);
    });
}

/// The comments are cut after the network's name, or in it. If they are cut in it, the owner is not known.
#[test]
fn garbage_of_networks_with_long_names() {
    for (length, is_collected) in
        [(241, true), (242, true), (244, true), (247, true), (248, false), (252, false)]
    {
        in_new_netns(move || {
            let netlink = Nfnetlink::open().unwrap();
            let network: NetworkName = "n".repeat(length).parse().unwrap();
            let longer: NetworkName = "n".repeat(length + 1).parse().unwrap();
            let add = |network: &NetworkName, container_id: &str, address: &str| {
                let owner = owner(network, container_id, "eth0");
                let addresses = vec![address.parse().unwrap()];
                let wanted = Masquerade::wanted(MasqueradeBackend::Iptables, &owner, addresses);
                wanted.add(&netlink).unwrap();
            };
            add(&network, "pod-b", "10.88.0.3/24");
            add(&longer, "pod-a", "10.89.0.2/24");
            let before = sh("iptables -t nat -S");
            add(&network, "pod-a", "10.88.0.2/24");
            let valid = valid(&network, &[("pod-b", "eth0")]);
            masquerade::collect_garbage(&netlink, &network, &valid).unwrap();
            let after = sh("iptables -t nat -S");
            assert_eq!(after == before, is_collected, "{length}: {after}");
            assert!(after.contains("10.89.0.2"), "{length}: a network with a longer name");
        });
    }
}

/// The reference plugins let two containers share a chain.
#[test]
fn two_containers_with_the_same_name_of_the_chain() {
    in_new_netns(|| {
        let netlink = Nfnetlink::open().unwrap();
        let of = |network: &str| network.parse::<NetworkName>().unwrap();
        let add = |network: &str, container_id: &str, address: &str| {
            let owner = owner(&of(network), container_id, "eth0");
            let addresses = vec![address.parse().unwrap()];
            Masquerade::wanted(MasqueradeBackend::Iptables, &owner, addresses).add(&netlink)
        };
        let remove = |network: &str, container_id: &str| {
            let owner = owner(&of(network), container_id, "eth0");
            let kept = Kept::new(Vec::new(), || Ok(false));
            masquerade::remove(&netlink, &owner, &kept).unwrap();
        };
        add("net", "1abc", "10.88.0.2/24").unwrap();
        let before = sh("iptables -t nat -S");
        let refused = add("net1", "abc", "10.89.0.2/24").unwrap_err();
        assert!(refused.to_string().contains("name: \"net\" id: \"1abc\""), "{refused}");
        assert_eq!(cni::Error::from(refused).code, cni::Code::Conflict);
        remove("net1", "abc");
        assert_eq!(sh("iptables -t nat -S"), before);

        let chain = attach::chain_name("", "net", "1abc");
        let comment = "-m comment --comment 'name: \"net1\" id: \"abc\"'";
        sh(&format!(
            "iptables -t nat -I {chain} -d 10.89.0.0/24 {comment} -j ACCEPT
             iptables -t nat -A POSTROUTING -s 10.89.0.2 {comment} -j {chain}"
        ));
        remove("net1", "abc");
        assert_eq!(sh("iptables -t nat -S"), before);
        remove("net", "1abc");
        check("iptables", &[]);
    });
}

#[test]
fn a_rule_that_gets_no_packets_is_reported() {
    in_new_netns(|| {
        let addresses = ["10.88.0.2/24", "10.99.0.2/24"];
        add("pod-a", &addresses);
        let wanted = wanted("pod-a", &addresses);
        let netlink = Nfnetlink::open().unwrap();
        let comment = "-m comment --comment 'name: \"testnet\" id: \"pod-a\"'";
        let moved = format!("-d 10.99.0.0/24 {comment} -j ACCEPT");
        // The order of the rules that accept does not matter, nor do rules of other programs.
        sh(&format!(
            "iptables -t nat -D {CHAIN} {moved}
             iptables -t nat -I {CHAIN} {moved}
             iptables -t nat -I {CHAIN} -d 10.77.0.0/24 -j ACCEPT
             iptables -t nat -I POSTROUTING -d 10.77.0.0/24 -j ACCEPT"
        ));
        wanted.check(&netlink).unwrap();
        sh(&format!("iptables -t nat -D {CHAIN} {moved}; iptables -t nat -A {CHAIN} {moved}"));
        let late = wanted.check(&netlink).unwrap_err().to_string();
        assert!(late.contains("-d 10.99.0.0/24") && late.contains("comes too late"), "{late}");
    });
}

#[test]
fn rules_of_another_interface_stay_if_its_addresses_are_not_known() {
    in_new_netns(|| {
        add("pod-a", &["10.88.0.2/24"]);
        add("pod-a", &["10.88.0.3/24"]);
        let remove = |own: &[&str]| {
            super::remove_one(("pod-a", "eth0"), own);
        };
        remove(&[]);
        check_v4(&[PASS, REST], &["10.88.0.2/32", "10.88.0.3/32"]);
        remove(&["10.88.0.2"]);
        check_v4(&[PASS, REST], &["10.88.0.3/32"]);
        remove(&["10.88.0.3"]);
        check("iptables", &[]);
    });
}
