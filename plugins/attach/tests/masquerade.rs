//! Masquerading seen by the real `iptables`. Needs root.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

use std::net::IpAddr;
use std::process::Command;
use std::thread;

use attach::{Masquerade, masquerade};
use cni::{Cidr, NetworkName, ValidAttachments};
use kernel::Nfnetlink;
use nix::sched::{CloneFlags, unshare};

fn in_new_netns(test: impl FnOnce() + Send + 'static) {
    let body = move || {
        unshare(CloneFlags::CLONE_NEWNET).expect("root is needed to make a network namespace");
        test();
    };
    if let Err(panic) = thread::spawn(body).join() {
        std::panic::resume_unwind(panic);
    }
}

#[track_caller]
fn sh(command: &str) -> String {
    let output = Command::new("sh").args(["-c", command]).output().expect("run sh");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command}: {errors}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The rules and own chains of a table `nat`, one a line, without handles and policies.
#[track_caller]
fn check(program: &str, expected: &[&str]) {
    let listed = sh(&format!("{program} -t nat -S"));
    let lines: Vec<_> = listed.lines().filter(|line| !line.starts_with("-P ")).collect();
    assert_eq!(lines, expected);
}

fn network() -> NetworkName {
    "testnet".parse().unwrap()
}

fn wanted(container_id: &str, addresses: &[&str]) -> Masquerade {
    let addresses: Vec<Cidr> = addresses.iter().map(|text| text.parse().unwrap()).collect();
    Masquerade::wanted(&network(), container_id, addresses)
}

fn remove(container_id: &str, in_use: &[&str]) {
    let in_use: Vec<IpAddr> = in_use.iter().map(|text| text.parse().unwrap()).collect();
    let netlink = Nfnetlink::open().unwrap();
    masquerade::remove(&netlink, &network(), container_id, &in_use).unwrap();
}

fn add(container_id: &str, addresses: &[&str]) {
    wanted(container_id, addresses).add(&Nfnetlink::open().unwrap()).unwrap();
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
        remove("pod-a", &[]);
        check("iptables", &[]);
        check("ip6tables", &[]);
        remove("pod-a", &[]);
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
        remove("pod-a", &["10.88.0.2", "10.88.0.3"]);
        check_v4(&[other, PASS, REST], &["10.88.0.2/32", "10.88.0.3/32"]);
        remove("pod-a", &["192.0.2.1"]);
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
        remove("pod-a", &[]);
        assert_eq!(sh("iptables -t nat -S"), before);
    });
}

#[test]
fn what_is_left_of_a_removal_that_was_cut_short_is_removed() {
    in_new_netns(|| {
        // The reference plugins delete rule by rule, with the network as source in old versions.
        sh(&format!(
            "iptables -t nat -N {CHAIN}; iptables -t nat -A POSTROUTING -s 10.88.0.0/24 -j {CHAIN}"
        ));
        remove("pod-a", &[]);
        check("iptables", &[]);
        sh(&format!("iptables -t nat -N {CHAIN}"));
        remove("pod-a", &[]);
        check("iptables", &[]);
    });
}

#[test]
fn garbage_is_what_belongs_to_no_valid_attachment_of_the_network() {
    in_new_netns(|| {
        add("pod-b", &["10.88.0.3/24"]);
        let other: NetworkName = "othernet".parse().unwrap();
        let netlink = Nfnetlink::open().unwrap();
        let address = "10.99.0.2/24".parse().unwrap();
        Masquerade::wanted(&other, "pod-a", vec![address]).add(&netlink).unwrap();
        sh("iptables -t nat -N CNI-HOSTPORT-DNAT; iptables -t nat -A CNI-HOSTPORT-DNAT -j RETURN");
        let before = sh("iptables -t nat -S; ip6tables -t nat -S");
        add("pod-a", &["10.88.0.2/24", "fd00:88::2/64"]);
        let valid: ValidAttachments =
            [("pod-b".to_owned(), "eth0".to_owned())].into_iter().collect();
        masquerade::collect_garbage(&netlink, &network(), &valid).unwrap();
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
        let valid: ValidAttachments = [(one, "eth0".to_owned())].into_iter().collect();
        let netlink = Nfnetlink::open().unwrap();
        masquerade::collect_garbage(&netlink, &network(), &valid).unwrap();
        assert_eq!(sh("iptables -t nat -S"), before);
    });
}

#[test]
fn containers_whose_chains_have_one_name() {
    in_new_netns(|| {
        let netlink = Nfnetlink::open().unwrap();
        let of = |network: &str| network.parse::<NetworkName>().unwrap();
        let add = |network: &str, id: &str, address: &str| {
            let addresses = vec![address.parse().unwrap()];
            Masquerade::wanted(&of(network), id, addresses).add(&netlink).unwrap();
        };
        add("net", "1abc", "10.88.0.2/24");
        let before = sh("iptables -t nat -S");
        masquerade::remove(&netlink, &of("net1"), "abc", &[]).unwrap();
        assert_eq!(sh("iptables -t nat -S"), before);
        add("net1", "abc", "10.89.0.2/24");
        masquerade::remove(&netlink, &of("net1"), "abc", &[]).unwrap();
        assert_eq!(sh("iptables -t nat -S"), before);
        masquerade::remove(&netlink, &of("net"), "1abc", &[]).unwrap();
        check("iptables", &[]);
    });
}
