//! The table `nat` of legacy iptables.

use std::fs::File;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use attach::{Masquerade, MasqueradeBackend};
use kernel::Nfnetlink;
use nix::fcntl::{Flock, FlockArg};

use super::{collect_garbage, in_new_netns, sh};

const HINT: &str = "iptables-legacy -t mangle -N KUBE-IPTABLES-HINT";
const OTHERS: &str =
    "iptables-legacy -t nat -A POSTROUTING -m statistic --mode random --probability 0.5 -j RETURN";
const CHAIN: &str = "CNI-9b8cc9dd5d53e36658bb083e";
const COMMENT: &str = "-m comment --comment \"name: \\\"testnet\\\" id: \\\"pod-a\\\"\"";

fn wanted(container_id: &str, ifname: &str, addresses: &[&str]) -> Masquerade {
    super::wanted(MasqueradeBackend::Iptables, (container_id, ifname), addresses)
}

fn add(container_id: &str, ifname: &str, addresses: &[&str]) {
    wanted(container_id, ifname, addresses).add(&Nfnetlink::open().unwrap()).unwrap();
}

/// The rules in a family's table `nat`, without those of other programs.
fn listed(program: &str) -> Vec<String> {
    let all = sh(&format!("{program} -t nat -S"));
    let is_ours = |line: &&str| line.contains("CNI-");
    all.lines()
        .filter(is_ours)
        .map(|line| line.replace(COMMENT, "#").replace(CHAIN, "CHAIN"))
        .collect()
}

#[test]
fn rules_of_a_dual_stack_pod() {
    in_new_netns(|| {
        sh(&format!("{HINT}; {OTHERS}"));
        let before = sh("iptables-legacy-save -t nat; ip6tables-legacy -t nat -S");
        add("pod-a", "eth0", &["10.88.0.2/24", "fd00:88::2/64"]);
        let expected = |source: &str, network: &str, multicast: &str| {
            vec![
                "-N CHAIN".to_owned(),
                format!("-A POSTROUTING -s {source} # -j CHAIN"),
                format!("-A CHAIN -d {network} # -j ACCEPT"),
                format!("-A CHAIN ! -d {multicast} # -j MASQUERADE"),
            ]
        };
        let v4 = expected("10.88.0.2/32", "10.88.0.0/24", "224.0.0.0/4");
        assert_eq!(listed("iptables-legacy"), v4);
        let v6 = expected("fd00:88::2/128", "fd00:88::/64", "ff00::/8");
        assert_eq!(listed("ip6tables-legacy"), v6);

        let netlink = Nfnetlink::open().unwrap();
        let again = wanted("pod-a", "eth0", &["10.88.0.2/24", "fd00:88::2/64"]);
        again.check(&netlink).unwrap();
        again.add(&netlink).expect("adding again changes nothing");
        assert_eq!(listed("iptables-legacy"), v4);
        sh(&format!("ip6tables-legacy -t nat -D {CHAIN} 2"));
        let missing = again.check(&netlink).unwrap_err().to_string();
        assert!(missing.contains("ip6tables rule -t nat -A CNI-9b8"), "{missing}");
        again.add(&netlink).unwrap();
        assert_eq!(listed("ip6tables-legacy"), v6);

        super::remove(("pod-a", "eth0"));
        let without_time = |text: String| {
            text.lines().filter(|line| !line.starts_with('#')).collect::<Vec<_>>().join("\n")
        };
        let after = sh("iptables-legacy-save -t nat; ip6tables-legacy -t nat -S");
        assert_eq!(without_time(after), without_time(before));
        assert_eq!(sh("nft list ruleset"), "");
    });
}

/// Every process in a network namespace can lock its file.
#[test]
fn a_lock_on_the_namespace_does_not_block() {
    in_new_netns(|| {
        sh(HINT);
        let namespace = File::open("/proc/thread-self/ns/net").unwrap();
        let held = Flock::lock(namespace, FlockArg::LockExclusive).unwrap();
        let (done, added) = mpsc::channel();
        // In the same namespace. It ends with the test at the latest.
        thread::spawn(move || {
            add("pod-a", "eth0", &["10.88.0.2/24"]);
            done.send(()).unwrap();
        });
        added.recv_timeout(Duration::from_secs(60)).expect("the ADD waits for the lock");
        drop(held);
        assert!(!listed("iptables-legacy").is_empty());
    });
}

#[test]
fn interfaces_of_one_container_share_the_chain() {
    in_new_netns(|| {
        sh(HINT);
        add("pod-a", "eth0", &["10.88.0.2/24"]);
        let before = listed("iptables-legacy");
        add("pod-a", "eth1", &["10.89.0.2/24"]);
        assert_eq!(listed("iptables-legacy").len(), before.len() + 2);
        let first = listed("iptables-legacy").into_iter().find(|line| line.starts_with("-A CHAIN"));
        assert_eq!(first.as_deref(), Some("-A CHAIN -d 10.89.0.0/24 # -j ACCEPT"));
        super::remove_one(("pod-a", "eth0"), &["10.88.0.2"]);
        wanted("pod-a", "eth1", &["10.89.0.2/24"]).check(&Nfnetlink::open().unwrap()).unwrap();
        super::remove(("pod-a", "eth1"));
        assert!(listed("iptables-legacy").is_empty());
    });
}

/// While there are pods, the plugin uses the variant that has their rules. After the DEL of the last pod, the
/// rules of other programs decide. These nodes do not have the kubelet's hint.
#[test]
fn the_variant_stays_as_long_as_there_are_pods() {
    let without_hint = HINT.replace("-N", "-X");
    for (before, meanwhile, first, other) in [
        ("true", "iptables-legacy -A INPUT -j ACCEPT", "iptables-nft", "iptables-legacy"),
        (
            HINT,
            &format!("{without_hint}; iptables-nft -A INPUT -j ACCEPT"),
            "iptables-legacy",
            "iptables-nft",
        ),
    ] {
        in_new_netns(|| {
            let has_pod_b = |program: &str| sh(&format!("{program} -t nat -S")).contains("pod-b");
            sh(before);
            add("pod-a", "eth0", &["10.88.0.2/24"]);
            sh(meanwhile);
            add("pod-b", "eth0", &["10.88.0.3/24"]);
            assert_eq!((has_pod_b(first), has_pod_b(other)), (true, false), "{first}");
            super::remove(("pod-a", "eth0"));
            super::remove(("pod-b", "eth0"));
            add("pod-b", "eth0", &["10.88.0.3/24"]);
            assert_eq!((has_pod_b(first), has_pod_b(other)), (false, true), "{first}");
        });
    }
}

#[test]
fn check_finds_the_rules_in_the_other_variant() {
    for (before, after, program) in [
        ("true", HINT.to_owned(), "iptables-nft"),
        (HINT, HINT.replace("-N", "-X"), "iptables-legacy"),
    ] {
        in_new_netns(move || {
            sh(before);
            let (netlink, wanted) =
                (Nfnetlink::open().unwrap(), wanted("pod-a", "eth0", &["10.88.0.2/24"]));
            wanted.add(&netlink).unwrap();
            sh(&after);
            wanted.check(&netlink).unwrap();
            sh(&format!("{program} -t nat -D {CHAIN} 1"));
            let missing = wanted.check(&netlink).unwrap_err().to_string();
            assert!(missing.contains("iptables rule -t nat -A CNI-9b8"), "{missing}");
        });
    }
}

#[test]
fn garbage_of_both_variants() {
    in_new_netns(|| {
        for id in ["pod-a", "pod-b"] {
            add(id, "eth0", &["10.88.0.2/24"]);
        }
        sh(HINT);
        for id in ["pod-c", "pod-d"] {
            add(id, "eth0", &["10.88.0.3/24"]);
        }
        collect_garbage(&[("pod-a", "eth0"), ("pod-c", "eth0")]);
        let ids = |program: &str| {
            let listed = sh(&format!("{program} -t nat -S POSTROUTING"));
            ["pod-a", "pod-b", "pod-c", "pod-d"].map(|id| listed.contains(id))
        };
        assert_eq!(ids("iptables-nft"), [true, false, false, false]);
        assert_eq!(ids("iptables-legacy"), [false, false, true, false]);
        super::remove(("pod-a", "eth0"));
        super::remove(("pod-c", "eth0"));
        assert!(listed("iptables-nft").is_empty() && listed("iptables-legacy").is_empty());
    });
}
