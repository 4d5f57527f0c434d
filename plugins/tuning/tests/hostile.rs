//! Pods and files that were changed after an ADD. Needs root.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

mod common;

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};

use common::{MAC, Pod};
use serde_json::json;
use testbed::sh;

/// DEL succeeds. The reference plugin 1.10.0 also succeeds, but sets the MTU of the old interface on the new
/// one.
#[test]
fn a_pod_that_prevents_its_own_restoration() {
    let pod = Pod::new();
    let sysctl = json!({"net.ipv4.ip_unprivileged_port_start": "0"});
    let call = pod.call().with("mtu", 1420).with("sysctl", sysctl);
    call.run("ADD").unwrap();
    // The kernel refuses the previous value, 1024.
    pod.sh("echo 500 60000 > /proc/sys/net/ipv4/ip_local_port_range");
    pod.sh("ip link del eth0; ip tuntap add eth0 mode tun; ip link set eth0 mtu 1400");
    call.run("DEL").unwrap();
    assert!(pod.files().is_empty());
    assert!(pod.sh("ip -o link show eth0").contains("mtu 1400"));
}

/// The values of the first interface are not set on the second one.
#[test]
fn a_backup_of_an_earlier_interface() {
    let pod = Pod::new();
    let call = pod.call().with("mac", "02:11:22:33:44:55").with("mtu", 1420);
    call.run("ADD").unwrap();
    // It has the index of the first one.
    let again = |mac: &str| {
        let index = pod.sh("ip -o link show eth0 | cut -d: -f1");
        pod.sh(&format!(
            "ip link del eth0; ip link add eth0 address {mac} mtu 1450 index {index} type veth peer name peer"
        ));
    };
    again("02:00:00:00:00:0b");
    call.run("ADD").unwrap();
    call.run("DEL").unwrap();
    assert_eq!(pod.link(), "02:00:00:00:00:0b mtu 1450 qlen 1000");

    // A DEL without an ADD does not restore them either.
    call.run("ADD").unwrap();
    again("02:00:00:00:00:0c");
    call.run("DEL").unwrap();
    assert_eq!(pod.link(), "02:00:00:00:00:0c mtu 1450 qlen 1000");
    assert!(pod.files().is_empty());
}

/// They are written in the order of their names, and those that are refused again.
#[test]
fn sysctls_that_depend_on_each_other() {
    let pod = Pod::new();
    let range = "cat /proc/sys/net/ipv4/ip_local_port_range";
    let before = pod.sh(range);
    let sysctl = json!({
        "net.ipv4.ip_local_port_range": "500 60000",
        "net.ipv4.ip_unprivileged_port_start": "400",
    });
    let call = pod.call().with("sysctl", sysctl);
    call.run("ADD").unwrap();
    assert_eq!(pod.sh(range), "500\t60000");
    call.run("CHECK").unwrap();
    call.run("DEL").unwrap();
    assert_eq!(pod.sh(range), before);
    assert_eq!(pod.sh("cat /proc/sys/net/ipv4/ip_unprivileged_port_start"), "1024");
}

/// A FIFO blocks no command, and a file of another user is not used.
#[test]
fn backups_that_are_not_trusted() {
    let pod = Pod::new();
    let call = pod.call().with("mtu", 1420);
    let file = pod.dir.join("c1_eth0.json");
    for command in ["DEL", "ADD"] {
        fs::create_dir_all(&pod.dir).unwrap();
        sh(&format!("mkfifo {} {}", file.display(), pod.dir.join(".n:c1:eth0.new").display()));
        call.with("cni.dev/valid-attachments", json!([])).run("GC").unwrap();
        call.run(command).unwrap();
        call.run("DEL").unwrap();
        assert_eq!(pod.link(), format!("{MAC} mtu 1500 qlen 1000"));
        assert!(pod.files().is_empty());
    }
    fs::write(&file, r#"{"mtu": 1300}"#).unwrap();
    chown(&file, Some(65534), None).unwrap();
    let said = call.stderr_of("DEL");
    assert_eq!(said.matches("is not used").count(), 1, "{said}");
    assert_eq!(pod.link(), format!("{MAC} mtu 1500 qlen 1000"));
    assert!(pod.files().is_empty());
}

#[test]
fn directories_of_other_users() {
    let pod = Pod::new();
    let call = pod.call().with("mtu", 1420);
    fs::create_dir(&pod.dir).unwrap();
    fs::set_permissions(&pod.dir, fs::Permissions::from_mode(0o777)).unwrap();
    call.run("ADD").unwrap();
    assert_eq!(fs::metadata(&pod.dir).unwrap().permissions().mode() & 0o777, 0o755);
    call.run("DEL").unwrap();
    chown(&pod.dir, Some(65534), None).unwrap();
    call.refused("ADD", 5, "belongs to user 65534");
    call.refused("STATUS", 50, "belongs to user 65534");
    call.run("DEL").unwrap();
    call.with("dataDir", "run/tuning").refused("ADD", 7, "dataDir");
    call.with("dataDir", "run/tuning").run("DEL").unwrap();
}

/// Runs a shell script in namespaces of mounts and the network, with the plugin's program as `$P`, the
/// namespace of a pod mounted on the file `pod`, and `mtu` to show that of its `eth0`, which is 1500.
fn alone(name: &str, script: &str) -> String {
    let dir = std::env::temp_dir().join(format!("tuning-{name}-{}", std::process::id()));
    fs::create_dir(&dir).unwrap();
    let config = json!({
        "cniVersion": "1.1.0", "name": "n", "type": "tuning", "dataDir": dir.join("backups"),
        "mtu": 1420, "prevResult": {"cniVersion": "1.1.0"},
    });
    fs::write(dir.join("config"), config.to_string()).unwrap();
    let setup = format!(
        "export P={} CNI_CONTAINERID=c1 CNI_IFNAME=eth0 CNI_NETNS=$PWD/pod CNI_PATH=/nowhere
        touch pod
        unshare -n sh -ec 'ip link add eth0 type veth peer name peer; mount --bind /proc/self/ns/net pod'
        mtu() {{ nsenter --net=pod ip -o link show eth0 | grep -o 'mtu [0-9]*'; }}\n",
        env!("CARGO_BIN_EXE_tuning")
    );
    fs::write(dir.join("script"), setup + script).unwrap();
    let run = "unshare -nm --propagation private bash -e script 2>&1";
    let seen = sh(&format!("cd {}; {run}", dir.display()));
    fs::remove_dir_all(dir).unwrap();
    seen
}

/// The namespace counts as existing, so the backup is not removed.
#[test]
fn without_proc() {
    let seen = alone(
        "proc",
        "CNI_COMMAND=ADD $P < config
        mkdir empty; mount --bind empty /proc
        ! CNI_COMMAND=DEL $P < config
        umount /proc; mtu
        CNI_COMMAND=DEL $P < config
        mtu; ls backups",
    );
    assert!(seen.contains("no /proc is mounted here"), "{seen}");
    assert!(seen.ends_with("mtu 1420\nmtu 1500\n"), "{seen}");
}

/// The process is not killed by a signal, and does not leave the file that it was writing.
#[test]
fn no_room_for_the_backup() {
    let seen = alone(
        "limit",
        "! (ulimit -f 0; CNI_COMMAND=ADD $P < config | cat)
        mtu; ls -A backups 2> /dev/null || true",
    );
    assert!(seen.contains("File too large") && seen.ends_with("mtu 1500\n"), "{seen}");
}

/// STATUS fails.
#[test]
fn status_if_sysctls_cannot_be_written() {
    let seen = alone(
        "ro",
        r#"mount -o bind,ro /proc/sys /proc/sys
        CNI_COMMAND=STATUS $P < config
        sed 's/"mtu"/"sysctl":{"net.core.somaxconn":"5"},&/' config > with
        ! CNI_COMMAND=STATUS $P < with"#,
    );
    assert!(seen.contains("\"code\":50") && seen.contains("Read-only"), "{seen}");
}
