//! What an ADD that fails, a DEL and a GC leave on the node. In namespaces of the tests' own; needs root.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio, id};
use std::sync::mpsc;
use std::thread;

use nix::sched::{CloneFlags, unshare};
use nix::unistd::gettid;

/// The directory of an IPAM plugin that gives out the same two addresses always.
const IPAM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/ipam");

const NETWORK: &str = r#"{"cniVersion": "1.1.0", "name": "n", "type": "bridge", "isGateway": true,
  "forceAddress": true, "ipMasq": true, "macspoofchk": true, "ipam": {"type": "dual-stack"},
  "cni.dev/valid-attachments": []}"#;

/// Runs a test in a node namespace of its own, with a second one for a pod, which vanish with the
/// threads that are in them.
fn in_namespaces(test: impl FnOnce(&Path) + Send + 'static) {
    let new_netns = || {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        PathBuf::from(format!("/proc/{}/task/{}/ns/net", id(), gettid()))
    };
    let (path_out, path_in) = mpsc::channel();
    let (done_out, done_in) = mpsc::channel::<()>();
    let pod = thread::spawn(move || {
        path_out.send(new_netns()).unwrap();
        done_in.recv().unwrap_err();
    });
    let pod_path = path_in.recv().unwrap();
    let node = thread::spawn(move || {
        new_netns();
        test(&pod_path);
    });
    let outcome = node.join();
    drop(done_out);
    pod.join().unwrap();
    outcome.unwrap();
}

fn ip(arguments: &str) -> String {
    let output = Command::new("ip").args(arguments.split(' ')).output().unwrap();
    assert!(output.status.success(), "ip {arguments}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn nft(arguments: &str) -> String {
    let output = Command::new("nft").args(arguments.split(' ')).output().unwrap();
    assert!(output.status.success(), "nft {arguments}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// The names of the node's links, and its addresses, as `ip` shows them. Not the links' states, which
/// follow their carrier some time later.
fn node() -> String {
    let links = ip("-o link show");
    let names: Vec<_> = links.lines().filter_map(|line| line.split(' ').nth(1)).collect();
    names.join("\n") + "\n" + &ip("-o -4 addr show") + &ip("-o -6 addr show scope global")
}

/// The lines of all rules and chains that belong to the pod, as `nft` shows them.
fn rules() -> Vec<String> {
    let text = nft("list ruleset");
    let of_pod = |line: &&str| line.contains("cni-br-iface-") || line.contains("CNI-");
    text.lines().filter(of_pod).map(str::to_owned).collect()
}

fn bridge(command: &str, pod: &Path) -> (bool, String) {
    bridge_with(command, pod, NETWORK)
}

fn bridge_with(command: &str, pod: &Path, network: &str) -> (bool, String) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_bridge"))
        .env("CNI_COMMAND", command)
        .env("CNI_CONTAINERID", "c1")
        .env("CNI_NETNS", pod)
        .env("CNI_IFNAME", "eth0")
        .env("CNI_PATH", IPAM)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(network.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    (output.status.success(), String::from_utf8(output.stdout).unwrap())
}

/// The gateway's last address is refused after the first one was added, and after a foreign one
/// was taken away: all of it comes back.
#[test]
fn a_refused_gateway_address_takes_the_others_back() {
    in_namespaces(|pod| {
        ip("link add cni0 address c2:00:00:00:00:01 up type bridge");
        ip("addr add 192.0.2.1/24 brd + dev cni0");
        fs::write("/proc/sys/net/ipv6/conf/cni0/disable_ipv6", "1").unwrap();
        let before = node();

        let (done, said) = bridge("ADD", pod);
        assert!(!done && said.contains("add address fd00:88::1/64"), "{said}");
        assert_eq!(node(), before);
        assert_eq!(rules(), Vec::<String>::new());
        assert_eq!(fs::read_to_string("/proc/sys/net/ipv4/ip_forward").unwrap(), "0\n");

        // The same ADD works as soon as the reason has gone, so nothing else was in its way.
        fs::write("/proc/sys/net/ipv6/conf/cni0/disable_ipv6", "0").unwrap();
        let (done, said) = bridge("ADD", pod);
        assert!(done, "{said}");
        let after = node();
        for address in ["10.88.0.1/24 brd 10.88.0.255", "fd00:88::1/64"] {
            assert!(after.contains(address), "{after}");
        }
    });
}

#[test]
fn del_and_gc_remove_the_rules_with_the_link() {
    in_namespaces(|pod| {
        for command in ["DEL", "GC"] {
            let (done, said) = bridge("ADD", pod);
            assert!(done, "{said}");
            let made = rules().join("\n");
            for expected in
                ["jump cni-br-iface-c1-eth0", "ip saddr 10.88.0.2", "ip6 saddr fd00:88::2"]
            {
                assert!(made.contains(expected), "{made}");
            }
            assert!(node().contains("veth"));
            let (done, said) = bridge(command, pod);
            assert!(done, "{command}: {said}");
            assert_eq!(rules(), Vec::<String>::new(), "after {command}");
            assert!(!node().contains("veth"), "after {command}: {}", node());
        }
        // Once more: there is nothing left to do, which is no error.
        let (done, said) = bridge("DEL", Path::new("/run/netns/it-has-vanished"));
        assert!(done, "{said}");
    });
}

/// By the names, whatever masquerades now.
#[test]
fn del_and_gc_remove_the_rules_of_the_other_backend() {
    let other = NETWORK.replacen('{', "{\"ipMasqBackend\": \"nftables\", ", 1);
    for (before, now) in [(other.clone(), NETWORK.to_owned()), (NETWORK.to_owned(), other)] {
        in_namespaces(move |pod| {
            for command in ["DEL", "GC"] {
                let (done, said) = bridge_with("ADD", pod, &before);
                assert!(done, "{said}");
                let of_pod = || nft("list ruleset").matches("10.88.0.2").count();
                assert_eq!(of_pod(), 1);
                let (done, said) = bridge_with(command, pod, &now);
                assert!(done, "{command}: {said}");
                assert_eq!(of_pod(), 0, "after {command}");
                assert_eq!(rules(), Vec::<String>::new(), "after {command}");
            }
            let (done, said) = bridge_with("STATUS", pod, &now);
            assert!(done, "{said}");
        });
    }
}

#[test]
fn check_misses_the_rules() {
    for (family, chain, expected) in
        [("bridge", "PREROUTING", "macspoofchk-c1-eth0"), ("ip", "POSTROUTING", "-s 10.88.0.2")]
    {
        in_namespaces(move |pod| {
            let (done, result) = bridge("ADD", pod);
            assert!(done, "{result}");
            let with_result = NETWORK.replacen('{', &format!("{{\"prevResult\": {result}, "), 1);
            let (done, said) = bridge_with("CHECK", pod, &with_result);
            assert!(done, "{said}");
            nft(&format!("flush chain {family} nat {chain}"));
            let (done, said) = bridge_with("CHECK", pod, &with_result);
            assert!(!done && said.contains(expected), "{said}");
        });
    }
}

/// Somebody's own rule needs a chain of ours, so that the kernel refuses to delete it.
#[test]
fn a_step_that_fails_does_not_keep_the_others() {
    for command in ["DEL", "GC"] {
        in_namespaces(move |pod| {
            let (done, said) = bridge("ADD", pod);
            assert!(done, "{said}");
            nft("add chain bridge nat theirs");
            nft("add rule bridge nat theirs jump cni-br-iface-c1-eth0");

            let (done, said) = bridge(command, pod);
            assert!(!done && said.contains("cni-br-iface-c1-eth0"), "{command}: {said}");
            let left = rules();
            assert!(!left.iter().any(|line| line.contains("CNI-")), "after {command}: {left:?}");
            assert!(!node().contains("veth"), "after {command}: {}", node());
        });
    }
}
