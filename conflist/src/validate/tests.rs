//! Tests of `validate`: goldens for broken files, and the examples, which have no mistake.

#![allow(clippy::needless_raw_string_hashes, reason = "expect-test writes them")]

use std::os::unix::fs::symlink;
use std::sync::atomic::{AtomicU32, Ordering};
use std::{env, process};

use expect_test::{Expect, expect};
use proptest::prelude::*;

use super::*;

/// A directory of networks, and one of plugins, that go away with the value.
struct Dir(PathBuf);

impl Dir {
    /// Plugins of all types that are known, without anything in them: nothing is run.
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name =
            format!("conflist-validate-{}-{}", process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let dir = Self(env::temp_dir().join(name));
        fs::create_dir_all(dir.0.join("bin")).unwrap();
        for plugin in known::PLUGINS.iter().chain(known::IPAM) {
            let program = dir.0.join("bin").join(plugin.kind);
            symlink("/bin/true", program).unwrap();
        }
        dir
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let file = self.0.join(name);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, text).unwrap();
        file
    }

    fn bin(&self) -> [PathBuf; 1] {
        [self.0.join("bin")]
    }

    /// What is told, without the directory's name.
    fn told(&self, findings: &[Finding]) -> String {
        let lines: Vec<String> = findings.iter().map(|finding| format!("{finding}\n")).collect();
        lines.concat().replace(&format!("{}/", self.0.display()), "")
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[track_caller]
fn check_file(name: &str, text: &str, expected: &Expect) {
    let dir = Dir::new();
    let path = dir.write(name, text);
    expected.assert_eq(&dir.told(&file(&path, &dir.bin())));
}

#[track_caller]
fn check(text: &str, expected: &Expect) {
    check_file("n.conflist", text, expected);
}

/// A network of one plugin behind a bridge, each on its own line.
#[track_caller]
fn check_plugin(plugin: &str, expected: &Expect) {
    let text = format!(
        "{{\"cniVersion\": \"1.0.0\", \"name\": \"n\", \"plugins\": [\n{{\"type\": \"bridge\"}},\n{plugin}]}}"
    );
    check(&text, expected);
}

/// A bridge with an `ipam` object.
#[track_caller]
fn check_ipam(ipam: &str, expected: &Expect) {
    check_plugin(&format!("{{\"type\": \"bridge\", \"ipam\":\n{ipam}}}"), expected);
}

#[test]
fn the_examples_have_no_mistake() {
    let dir = Dir::new();
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let files = files::networks(&examples).unwrap();
    assert_eq!(files.len(), 6);
    for path in files {
        assert_eq!(dir.told(&file(&path, &dir.bin())), "");
        assert!(files::load(&path).is_ok());
    }
}

#[test]
fn a_list() {
    check(
        r#"{
  "cniVersion": "1.0.9",
  "cniVersions": ["1.0", "2.0.0", 3],
  "nam": "x",
  "disableGC": 1,
  "disableCheck": "yes",
  "plugins": {}
}"#,
        &expect![[r#"
            n.conflist:1: error: key "name": missing; every network has a name
            n.conflist:2: error: key "cniVersion": "1.0.9" is not a known version: 0.1.0, 0.2.0, 0.3.0, 0.3.1, 0.4.0, 1.0.0, 1.1.0
            n.conflist:3: error: key "cniVersions[0]": "1.0" is not a version: three numbers between dots
            n.conflist:3: error: key "cniVersions[2]": should be a text, is a number
            n.conflist:4: warning: key "nam": unknown; did you mean "name"?
            n.conflist:5: error: key "disableGC": should be true or false, is a number
            n.conflist:6: error: key "disableCheck": "yes" is not true or false
            n.conflist:7: error: key "plugins": should be a list of objects, is an object
        "#]],
    );
    check(
        r#"{"plugins": []}"#,
        &expect![[r#"
        n.conflist:1: error: key "name": missing; every network has a name
        n.conflist:1: warning: key "cniVersion": missing; plugins take that for 0.1.0
        n.conflist:1: error: key "plugins": is empty: there is nothing to run
    "#]],
    );
    check(
        r#"{"name": "a/b", "cniVersion": "1.0.0"}"#,
        &expect![[r#"
        n.conflist:1: error: key "name": "a/b" is not a name: letters, digits, '_', '.' and '-', beginning with a letter or digit
        n.conflist:1: error: key "plugins": missing; a network is a list of them
    "#]],
    );
    check(
        r#"{"name": "n", "cniVersion": "1.0.0", "plugins": [7, {}, {"type": "a/b"}, {"type": null}]}"#,
        &expect![[r#"
            n.conflist:1: error: key "plugins[0]": should be an object, is a number
            n.conflist:1: error: key "plugins[1].type": missing; it is the name of the plugin's program
            n.conflist:1: error: key "plugins[2].type": "a/b" is not the name of a program
            n.conflist:1: error: key "plugins[3].type": missing; it is the name of the plugin's program
        "#]],
    );
}

#[test]
fn the_spelling_of_a_list() {
    check(
        r#"{"Name": "n", "CNIVersion": "1.0.0", "plugins": [{"Type": "bridge", "IPMASQ": true}]}"#,
        &expect![[r#"
            n.conflist:1: error: key "Name": unknown; did you mean "name"?
            n.conflist:1: error: key "CNIVersion": unknown; did you mean "cniVersion"?
        "#]],
    );
}

#[test]
fn no_json() {
    check(
        "",
        &expect![[r#"
        n.conflist:1: error: not JSON: the file is empty (column 0)
    "#]],
    );
    check(
        "[]",
        &expect![[r#"
        n.conflist:1: error: should be an object, is a list
    "#]],
    );
    check(
        "{\n  \"name\": \"n\",\n}",
        &expect![[r#"
        n.conflist:3: error: not JSON: trailing comma (column 1)
    "#]],
    );
    check(
        "{\n  // a comment\n  \"name\": \"n\"}",
        &expect![[r#"
        n.conflist:2: error: not JSON: key must be a string (column 3)
    "#]],
    );
}

#[test]
fn keys_that_nobody_reads() {
    check_plugin(
        r#"{"type": "bridge",
"isGatway": true, "ISGATEWAY": true, "colour": "red", "_comment": "x", "//": "y",
"mtu": 1400, "mtu": 1500}"#,
        &expect![[r#"
            n.conflist:4: warning: key "plugins[1].isGatway": unknown; did you mean "isGateway"?
            n.conflist:4: warning: key "plugins[1].colour": unknown
            n.conflist:5: warning: key "plugins[1].mtu": given twice; only the last one counts
        "#]],
    );
    check_plugin(
        r#"{"type": "loopback", "mtu": 1}"#,
        &expect![[r#"
            n.conflist:3: warning: key "plugins[1].mtu": unknown
        "#]],
    );
}

#[test]
fn programs() {
    check_plugin(
        r#"{"type": "brigde"}, {"type": "bridge", "ipam":
{"type": "hostlocal", "x": 1}},
{"type": "calico", "etcd": "x", "ipam": {"type": "calico-ipam"}}"#,
        &expect![[r#"
            n.conflist:3: error: key "plugins[1].type": plugin "brigde" is in none of the directories of CNI_PATH (bin); did you mean "bridge"?
            n.conflist:4: error: key "plugins[2].ipam.type": plugin "hostlocal" is in none of the directories of CNI_PATH (bin); did you mean "host-local"?
            n.conflist:5: error: key "plugins[3].type": plugin "calico" is in none of the directories of CNI_PATH (bin)
            n.conflist:5: error: key "plugins[3].ipam.type": plugin "calico-ipam" is in none of the directories of CNI_PATH (bin)
        "#]],
    );
}

#[test]
fn bridges() {
    check_plugin(
        r#"{"type": "bridge",
"bridge": "sixteen-letters-", "ipMasq": "true", "ipMasqBackend": "nftable",
"vlan": 4095, "mtu": 1500.5, "hairpinMode": true, "promiscMode": true,
"vlanTrunk": [{"minID": 5}, {"minID": 9, "maxID": 3}, {"id": 0}, 7],
"disableContainerInterface": true, "ipam": {"type": "host-local", "subnet": "10.0.0.0/8"}}"#,
        &expect![[r#"
            n.conflist:4: error: key "plugins[1].bridge": "sixteen-letters-" is not the name of an interface: at most 15 bytes, no '/', ':' or space
            n.conflist:4: error: key "plugins[1].ipMasq": should be true or false, is a text
            n.conflist:4: error: key "plugins[1].ipMasqBackend": "nftable" is not one of iptables, nftables; did you mean "nftables"?
            n.conflist:5: error: key "plugins[1].vlan": 4095 is not a whole number from 0 to 4094
            n.conflist:5: error: key "plugins[1].mtu": 1500.5 is not a whole number from 0 to 65535
            n.conflist:5: error: key "plugins[1].promiscMode": does not go with hairpinMode
            n.conflist:6: error: key "plugins[1].vlanTrunk[2].id": 0 is not a whole number from 1 to 4094
            n.conflist:6: error: key "plugins[1].vlanTrunk[3]": should be an object, is a number
            n.conflist:6: error: key "plugins[1].vlanTrunk[0].minID": does not go without maxID
            n.conflist:6: error: key "plugins[1].vlanTrunk[1].maxID": is less than minID
            n.conflist:7: error: key "plugins[1].disableContainerInterface": does not go with ipam: an interface that is down gets no address
        "#]],
    );
}

#[test]
fn chained_plugins() {
    check_plugin(
        r#"{"type": "portmap", "backend": "ip_tables", "markMasqBit": 32, "externalSetMarkChain": "X"},
{"type": "portmap", "capabilities": {"portMapping": true, "calico": true}, "conditionsV4": "-d"},
{"type": "bandwidth", "ingressRate": 1000, "egressBurst": 0},
{"type": "bandwidth"},
{"type": "firewall", "backend": "ufw", "ingressPolicy": "samebridge", "firewalldZone": 1},
{"type": "tuning", "sysctl": {
"net.core.somaxconn": 500, "kernel.x": "1", "net/../x": "2", "net/ipv4/conf/IFNAME/arp_notify": "1"}, "mac": "c2", "MTU": 67},
{"type": "portmap", "runtimeConfig": {"portMappings": []}, "prevResult": {}},
{"type": "bandwidth", "egressRate": 7, "egressBurst": 34359738360, "latency": 0}"#,
        &expect![[r#"
            n.conflist:3: error: key "plugins[1].backend": "ip_tables" is not one of iptables, nftables; did you mean "iptables"?
            n.conflist:3: error: key "plugins[1].markMasqBit": 32 is not a whole number from 0 to 31
            n.conflist:3: error: key "plugins[1].externalSetMarkChain": does not go with markMasqBit: who marks, that chain or portmap?
            n.conflist:3: warning: key "plugins[1]": does not declare "portMappings", so that runtimes pass none: add "capabilities": {"portMappings": true}
            n.conflist:4: warning: key "plugins[2].capabilities.portMapping": unknown; did you mean "portMappings"?
            n.conflist:4: error: key "plugins[2].conditionsV4": should be a list of texts, is a text
            n.conflist:4: warning: key "plugins[2]": does not declare "portMappings", so that runtimes pass none: add "capabilities": {"portMappings": true}
            n.conflist:5: error: key "plugins[3].ingressRate": does not go without ingressBurst
            n.conflist:6: warning: key "plugins[4]": does not declare "bandwidth", so that runtimes pass none: add "capabilities": {"bandwidth": true}
            n.conflist:7: error: key "plugins[5].backend": "ufw" is not one of iptables, nftables, firewalld
            n.conflist:7: error: key "plugins[5].ingressPolicy": "samebridge" is not one of open, same-bridge, isolated; did you mean "same-bridge"?
            n.conflist:7: error: key "plugins[5].firewalldZone": should be a text, is a number
            n.conflist:9: error: key "plugins[6].sysctl.net.core.somaxconn": should be a text, is a number
            n.conflist:9: error: key "plugins[6].mac": "c2" is not an Ethernet address, such as c2:11:22:33:44:55
            n.conflist:9: error: key "plugins[6].mtu": is neither 0 nor at least 68, the smallest that IPv4 allows
            n.conflist:9: error: key "plugins[6].sysctl.kernel.x": is not below net.: a container's network has no others
            n.conflist:9: error: key "plugins[6].sysctl.net/../x": is not below net.: a container's network has no others
            n.conflist:10: warning: key "plugins[7].runtimeConfig": is written by the runtime, and has no place in a file
            n.conflist:10: warning: key "plugins[7].prevResult": is written by the runtime, and has no place in a file
            n.conflist:11: error: key "plugins[8].egressBurst": 34359738360 is not a whole number from 0 to 34359738359
            n.conflist:11: error: key "plugins[8].latency": 0 is not a whole number from 1 to 10000
            n.conflist:11: error: key "plugins[8].egressRate": is neither 0 nor at least 8, the bits of one byte
        "#]],
    );
    check(
        r#"{"name": "n", "cniVersion": "1.0.0", "plugins": [
{"type": "tuning"}]}"#,
        &expect![[r#"
            n.conflist:2: error: key "plugins[0].type": tuning changes what a plugin before it made: it cannot be the first
        "#]],
    );
    check_plugin(
        r#"{"type": "ptp"}"#,
        &expect![[r#"
        n.conflist:3: error: key "plugins[1].ipam": missing; ptp has no link without addresses
    "#]],
    );
}

#[test]
fn addresses() {
    check_ipam(
        r#"{"type": "host-local"}"#,
        &expect![[r#"
        n.conflist:4: error: key "plugins[1].ipam.ranges": missing; host-local hands out nothing without it
    "#]],
    );
    check_ipam(
        r#"{"type": "host-local", "ranges": [[]]}"#,
        &expect![[r#"
        n.conflist:4: error: key "plugins[1].ipam.ranges[0]": is empty: it has no address to hand out
    "#]],
    );
    check_ipam(
        r#"{"type": "host-local", "ranges": [{"subnet": "10.0.0.0/8"}]}"#,
        &expect![[r#"
        n.conflist:4: error: key "plugins[1].ipam.ranges[0]": should be a list of objects, is an object
    "#]],
    );
    check_ipam(
        r#"{"type": "host-local", "ranges": [
[{"subnet": "10.0.0.1/24"}, {}],
[{"subnet": "10.1.0.0/24", "rangeStart": "10.2.0.1", "rangeEnd": "10.1.0.300"}],
[{"subnet": "10.3.0.0/24", "rangeStart": "10.3.0.9", "rangeEnd": "10.3.0.8"}],
[{"subnet": "10.1.0.128/25"}, {"subnet": "fd00::/64"}],
[{"subnet": "10.4.0.0/31"}]],
"dataDir": "var", "routes": [{"gw": "x"}, {"dst": "0.0.0.0/0", "scope": 256}]}"#,
        &expect![[r#"
            n.conflist:5: error: key "plugins[1].ipam.ranges[0][0].subnet": "10.0.0.1/24" is not a network without host bits, such as 10.88.0.0/16
            n.conflist:5: error: key "plugins[1].ipam.ranges[0][1].subnet": missing; a range is part of a network
            n.conflist:6: error: key "plugins[1].ipam.ranges[1][0].rangeEnd": "10.1.0.300" is not an address, such as 10.88.0.1 or fd00:88::1
            n.conflist:6: error: key "plugins[1].ipam.ranges[1][0].rangeStart": 10.2.0.1 is not in 10.1.0.0/24
            n.conflist:7: error: key "plugins[1].ipam.ranges[2][0].rangeEnd": 10.3.0.8 is before rangeStart 10.3.0.9
            n.conflist:8: error: key "plugins[1].ipam.ranges[3][0].subnet": overlaps with plugins[1].ipam.ranges[1][0]
            n.conflist:8: error: key "plugins[1].ipam.ranges[3]": has IPv4 and IPv6: an address is handed out from each set, so make it two
            n.conflist:9: error: key "plugins[1].ipam.ranges[4][0].subnet": 10.4.0.0/31 has no address to hand out: /30 is the smallest
            n.conflist:10: error: key "plugins[1].ipam.routes[0].dst": missing; a route leads somewhere
            n.conflist:10: error: key "plugins[1].ipam.routes[0].gw": "x" is not an address, such as 10.88.0.1 or fd00:88::1
            n.conflist:10: error: key "plugins[1].ipam.routes[1].scope": 256 is not a whole number from 0 to 255
            n.conflist:10: warning: key "plugins[1].ipam.dataDir": does not begin with /: it depends on where the runtime was started
        "#]],
    );
    check_ipam(
        r#"{"type": "host-local", "ranges": [
[{"subnet": "10.1.0.0/24", "rangeEnd": "10.1.0.127"}, {"subnet": "10.1.0.0/24", "rangeStart": "10.1.0.128"}],
[{"subnet": "::/0"}]]}"#,
        &expect![[""]],
    );
    check_ipam(
        r#"{"type": "static", "addresses": [{"address": "10.0.0.1"}, {"address": "10.0.0.1/8", "gateway": 1}]}"#,
        &expect![[r#"
            n.conflist:4: error: key "plugins[1].ipam.addresses[0].address": "10.0.0.1" is not an address with a prefix length, such as 10.88.0.2/16 or fd00:88::2/64
            n.conflist:4: error: key "plugins[1].ipam.addresses[1].gateway": should be a text, is a number
        "#]],
    );
    check_ipam(
        r#"{"type": "static"}"#,
        &expect![[r#"
            n.conflist:4: warning: key "plugins[1].ipam.addresses": missing; static has no address, unless "ips" is a capability or CNI_ARGS has IP
        "#]],
    );
}

#[test]
fn lone_plugins() {
    check_file(
        "n.conf",
        r#"{"type": "bridge", "nam": "x"}"#,
        &expect![[r#"
        n.conf:1: error: key "name": missing; every network has a name
        n.conf:1: warning: key "cniVersion": missing; plugins take that for 0.1.0
        n.conf:1: warning: key "nam": unknown; did you mean "name"?
    "#]],
    );
    check_file(
        "n.json",
        r#"{"name": "n", "plugins": [{"type": "bridge"}]}"#,
        &expect![[r#"
        n.json:1: error: key "plugins": belongs into a file whose name ends in .conflist: this one is for one plugin
    "#]],
    );
}

#[test]
fn the_network_of_a_name() {
    let dir = Dir::new();
    let list = |name: &str, key: &str| {
        format!(
            "{{\"name\": {name:?}, \"cniVersion\": \"1.0.0\",\n{key:?}: [{{\"type\": \"bridge\"}}]}}"
        )
    };
    let told = |name: &str| match network(&dir.0, name, &dir.bin()) {
        Ok(findings) => dir.told(&findings),
        Err(error) => crate::error::chain(&error).replace(&dir.0.display().to_string(), "DIR"),
    };
    dir.write("10-a.conflist", &list("a", "plugins"));
    dir.write("20-a.conflist", &list("a", "plugins"));
    dir.write("30-b.conflist", &list("b", "plugin"));
    dir.write("a/extra.conf", r#"{"type": "tuning", "mtuu": 1}"#);
    dir.write("b/extra.conf", r#"{"type": "tuning"}"#);
    expect![[r#"
        a/extra.conf:1: warning: key "mtuu": unknown; did you mean "mtu"?
        20-a.conflist:1: warning: key "name": "a" is also the network of 10-a.conflist, which comes first and is used
    "#]].assert_eq(&told("a"));
    expect![[r#"
        30-b.conflist:2: warning: key "plugin": unknown; did you mean "plugins"?
        b/extra.conf:1: error: key "type": tuning changes what a plugin before it made: it cannot be the first
    "#]].assert_eq(&told("b"));
    expect![[r#"network "c" is in no file of DIR"#]].assert_eq(&told("c"));
    dir.write("40.conflist", "{");
    dir.write("50.conflist", "{\n\"nam\": \"c\"}");
    expect![[r#"
        40.conflist:1: error: not JSON: EOF while parsing an object (column 1)
        50.conflist:1: error: key "name": missing; every network has a name
        50.conflist:1: warning: key "cniVersion": missing; plugins take that for 0.1.0
        50.conflist:1: error: key "plugins": missing; a network is a list of them
        50.conflist:2: warning: key "nam": unknown; did you mean "name"?
    "#]]
    .assert_eq(&told("c"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn no_text_panics(
        keys in proptest::collection::vec(
            ("(type|ipam|ranges|subnet|plugins|capabilities|vlanTrunk|name|sysctl)",
             r#"(\{\}|\[\]|\[\[\{"subnet":"::/0"\}\]\]|"[a-z.:/0-9]{0,9}"|-?[0-9]{1,40}|null|\[\{\}\])"#),
            0..6),
    ) {
        let members: Vec<String> = keys.iter().map(|(k, v)| format!("{k:?}:{v}")).collect();
        let object = format!("{{{}}}", members.join(","));
        let dir = Dir::new();
        for text in [
            object.clone(),
            format!(r#"{{"name":"n","plugins":[{object}]}}"#),
            format!(r#"{{"name":"n","plugins":[{{"type":"bridge","ipam":{object}}}]}}"#),
            format!(
                r#"{{"name":"n","plugins":[{{"type":"bridge","ipam":{{"type":"host-local","ranges":[[{object}]]}}}}]}}"#
            ),
        ] {
            for name in ["n.conflist", "n.conf"] {
                let _ = file(&dir.write(name, &text), &dir.bin());
            }
        }
    }
}
