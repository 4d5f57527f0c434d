//! An ADD that fails leaves the node as it was. In namespaces of the test's own; needs root.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio, id};
use std::sync::mpsc;
use std::thread;

use nix::sched::{CloneFlags, unshare};
use nix::unistd::gettid;

/// An IPAM plugin that gives out the same two addresses always.
const DUAL_STACK: &str = r#"#!/bin/sh
cat > /dev/null
[ "$CNI_COMMAND" != ADD ] || echo '{"cniVersion": "1.0.0", "ips": [
  {"address": "10.88.0.2/24", "gateway": "10.88.0.1"},
  {"address": "fd00:88::2/64", "gateway": "fd00:88::1"}]}'
"#;

const NETWORK: &str = r#"{"cniVersion": "1.0.0", "name": "n", "type": "bridge", "isGateway": true,
  "forceAddress": true, "ipam": {"type": "dual-stack"}}"#;

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

/// The links and addresses of the node, as `ip` shows them.
fn node() -> String {
    ip("-o link show") + &ip("-o -4 addr show") + &ip("-o -6 addr show scope global")
}

fn bridge(command: &str, pod: &Path) -> (bool, String) {
    let plugins = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("undo");
    fs::create_dir_all(&plugins).unwrap();
    let ipam = plugins.join("dual-stack");
    if !ipam.exists() {
        fs::write(&ipam, DUAL_STACK).unwrap();
        fs::set_permissions(&ipam, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let mut child = Command::new(env!("CARGO_BIN_EXE_bridge"))
        .env("CNI_COMMAND", command)
        .env("CNI_CONTAINERID", "c1")
        .env("CNI_NETNS", pod)
        .env("CNI_IFNAME", "eth0")
        .env("CNI_PATH", &plugins)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(NETWORK.as_bytes()).unwrap();
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
