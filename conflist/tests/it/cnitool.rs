//! With the real cnitool: each program checks and detaches what the other one attached, and both keep the
//! same bytes.
//!
//! Needs root (each test has network and mount namespaces of its own), cnitool (`CNITOOL`, or in
//! `PATH`) and the plugins loopback, bridge and host-local of any project (`CNI_PATH`, or
//! `/opt/cni/bin`). If something is missing, the tests are skipped, or fail if `CI=true`.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use expect_test::expect;

use crate::sandbox::Sandbox;

const PLUGINS: [&str; 3] = ["loopback", "bridge", "host-local"];

/// The program and the plugins; or what is missing.
fn available() -> Result<(PathBuf, String), String> {
    let root = Command::new("id").arg("-u").output().is_ok_and(|it| it.stdout == b"0\n");
    if !root {
        return Err("it needs root, for namespaces".into());
    }
    let path = env::var_os("PATH").unwrap_or_default();
    let named = env::var_os("CNITOOL").map(PathBuf::from);
    let cnitool = named
        .into_iter()
        .chain(env::split_paths(&path).map(|dir| dir.join("cnitool")))
        .find(|program| program.is_file())
        .ok_or("there is no cnitool in PATH, and CNITOOL does not name one")?;
    let plugins = env::var("CNI_PATH").unwrap_or_else(|_| "/opt/cni/bin".into());
    let has_all = |dir: &PathBuf| PLUGINS.iter().all(|kind| dir.join(kind).is_file());
    if !env::split_paths(&plugins).any(|dir| has_all(&dir)) {
        return Err(format!("CNI_PATH ({plugins}) has not all of {}", PLUGINS.join(", ")));
    }
    Ok((cnitool, plugins))
}

/// Runs a script on a node of its own, with a pod `/run/netns/pod`; returns its output, or `None` if the test
/// is skipped.
fn on_a_node(script: &str) -> Option<String> {
    let (cnitool, plugins) = match available() {
        Ok(found) => found,
        Err(why) => {
            testbed::skip(&why);
            return None;
        }
    };
    let sandbox = Sandbox::new();
    let net_dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/net.d");
    let file = sandbox.dir.join("script");
    let prologue = "
        mount -t tmpfs tmpfs /run; mount -t tmpfs tmpfs /var/lib; mkdir /run/netns
        ip link set lo up; ip netns add pod
        pod=/run/netns/pod
        kept() { cat /var/lib/cni/results/*; }
        addresses() { ip -n pod -4 -br address show up | sed -E 's,(@[^ ]*)? +[A-Z]+ +, ,'; }
        nothing_left() {
            [ -z \"$(ls /var/lib/cni/results)\" ]
            [ -z \"$(ip -br link show type veth)\" ]
            [ -z \"$(ip -n pod -br link show up)\" ]
            [ -z \"$(ls /var/lib/cni/networks/*/*.*.*.* 2>/dev/null)\" ]
        }
    ";
    fs::write(&file, format!("set -eu\n{prologue}\n{script}")).unwrap();
    let output = Command::new("unshare")
        .args(["--mount", "--net", "--propagation", "private", "sh"])
        .arg(&file)
        .env("NETCONFPATH", net_dir)
        .env("CNI_PATH", plugins)
        .env("conflist", env!("CARGO_BIN_EXE_conflist"))
        .env("cnitool", cnitool)
        .env_remove("CNI_ARGS")
        .env_remove("CAP_ARGS")
        .output()
        .unwrap();
    let reported = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {reported}", output.status);
    Some(String::from_utf8(output.stdout).unwrap())
}

#[test]
fn either_detaches_what_the_other_attached() {
    let printed = on_a_node(
        "
        for pair in \"$conflist $cnitool\" \"$cnitool $conflist\"; do
            one=${pair% *} other=${pair#* }
            for net in loopback bridge; do
                [ $net = loopback ] && export CNI_IFNAME=lo || export CNI_IFNAME=eth0
                $one add $net $pod >/dev/null
                echo ${one##*/}: $net: $(addresses)
                $one check $net $pod
                $other check $net $pod
                $other del $net $pod
                nothing_left
                $one del $net $pod
            done
        done",
    );
    if let Some(printed) = printed {
        expect![[r#"
            conflist: loopback: lo 127.0.0.1/8
            conflist: bridge: eth0 10.99.0.2/24
            cnitool: loopback: lo 127.0.0.1/8
            cnitool: bridge: eth0 10.99.0.3/24
        "#]]
        .assert_eq(&printed);
    }
}

#[test]
fn both_keep_the_same_text() {
    let printed = on_a_node(
        "
        export CNI_ARGS='IgnoreUnknown=1;K8S_POD_NAME=web' \
        CAP_ARGS='{\"mac\":\"c2:00:00:00:00:01\",\"x\":[1]}'
        for program in $conflist $cnitool; do
            $program add bridge $pod >/dev/null
            stat -c '%a %n' /var/lib/cni/results /var/lib/cni/results/*
            kept | sed -E 's/([0-9a-f]{2}:){5}[0-9a-f]{2}/MAC/g; s/veth[0-9a-f]+/VETH/; s/10.99.0.[2-9]/IP/'
            echo
            $program del bridge $pod
        done",
    );
    if let Some(printed) = printed {
        let lines: Vec<&str> = printed.lines().collect();
        assert_eq!(lines.len(), 6, "{printed}");
        assert_eq!(lines[..3], lines[3..]);
    }
}

/// A single plugin is made a list, and kept, as cnitool does it.
#[test]
fn both_wrap_a_lone_plugin_alike() {
    let printed = on_a_node(
        "
        export CNI_IFNAME=lo
        for program in $conflist $cnitool; do
            $program add lone $pod >/dev/null
            kept
            echo
            $program del lone $pod
        done",
    );
    if let Some(printed) = printed {
        let (ours, theirs) = printed.trim().split_once('\n').unwrap();
        assert_eq!(ours, theirs);
    }
}
