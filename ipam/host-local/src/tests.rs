//! The commands, in this process and in the test's own directories.

use std::fs;
use std::net::IpAddr;
use std::path::PathBuf;

use cni::environment::Environment;
use cni::{Args, Call, Code, Error, Network, Plugin, Success, ValidAttachments, Version};
use rustix::fs::{XattrFlags, setxattr};
use serde_json::{Value, json};

use crate::HostLocal;
use crate::config::Config;
use crate::testing::TempDir;

/// The plugin for one network, with its directories.
struct Node {
    dir: TempDir,
    ipam: Value,
}

impl Node {
    fn new(ipam: Value) -> Self {
        let node = Self { dir: TempDir::new("node"), ipam };
        fs::create_dir_all(node.leases()).unwrap();
        node
    }

    fn of_subnet(subnet: &str) -> Self {
        Self::new(json!({"subnet": subnet}))
    }

    fn plugin(&self) -> HostLocal {
        HostLocal { index_root: self.dir.path().join("index") }
    }

    fn leases(&self) -> PathBuf {
        self.dir.path().join("net")
    }

    fn network(&self, extra: Value) -> Network<Config> {
        let mut config = json!({"name": "net", "ipam": self.ipam});
        config["ipam"]["dataDir"] = json!(self.dir.path());
        if let Value::Object(extra) = extra {
            config.as_object_mut().unwrap().extend(extra);
        }
        Network::read(
            cni::Command::Add,
            config.to_string().into_bytes(),
            Version::LATEST,
            Vec::new(),
        )
        .unwrap()
    }

    fn call(&self, container: &str, ifname: &str, extra: Value) -> Call<Config> {
        let environment = Environment {
            container_id: container.parse().unwrap(),
            ifname: ifname.parse().unwrap(),
            netns: None,
            args: Args::default(),
        };
        Call { network: self.network(extra), environment }
    }

    fn add_call(&self, call: &Call<Config>) -> Result<Success, Error> {
        let plugin = self.plugin();
        plugin.add(call, &plugin.settings(&call.network, Some(&call.environment))?)
    }

    fn add_with(&self, container: &str, extra: Value) -> Result<Vec<String>, Error> {
        let result = self.add_call(&self.call(container, "eth0", extra))?;
        Ok(result.ips.iter().map(|ip| ip.address.ip().to_string()).collect())
    }

    fn add(&self, container: &str) -> Result<Vec<String>, Error> {
        self.add_with(container, Value::Null)
    }

    fn del(&self, container: &str) {
        self.plugin().del(&self.call(container, "eth0", Value::Null)).unwrap();
    }

    fn check(&self, container: &str, extra: Value) -> Result<(), Error> {
        let call = self.call(container, "eth0", extra);
        let plugin = self.plugin();
        plugin.check(&call, &plugin.settings(&call.network, Some(&call.environment))?)
    }

    fn gc(&self, valid: &[(&str, &str)]) {
        self.gc_of(&self.network(Value::Null), valid);
    }

    fn gc_of(&self, network: &Network<Config>, valid: &[(&str, &str)]) {
        let entry = |(id, ifname): &(&str, &str)| json!({"containerID": id, "ifname": ifname});
        let valid: Vec<Value> = valid.iter().map(entry).collect();
        let valid = json!({"cni.dev/valid-attachments": valid});
        let valid = ValidAttachments::read(&network.name, &valid).unwrap();
        self.plugin().gc(network, &valid).unwrap();
    }

    fn status(&self) -> Result<(), Error> {
        let (plugin, network) = (self.plugin(), self.network(Value::Null));
        plugin.status(&network, &plugin.settings(&network, None)?)
    }

    /// Writes a file as another program would, without the index.
    fn write(&self, name: &str, content: &str) {
        fs::write(self.leases().join(name), content).unwrap();
    }

    fn remove(&self, name: &str) {
        fs::remove_file(self.leases().join(name)).unwrap();
    }

    /// Marks a lease as made in an earlier boot.
    fn reboot_since(&self, ip: &str) {
        let id = "00000000-0000-4000-8000-000000000000";
        setxattr(self.leases().join(ip), "user.podwire.boot", id.as_bytes(), XattrFlags::empty())
            .expect(
                "these tests need extended attributes in the directory for temporary files; \
                 tmpfs has them since Linux 6.6, else set TMPDIR",
            );
    }

    /// The files of leases and their contents.
    fn held(&self) -> Vec<String> {
        let names = fs::read_dir(self.leases()).unwrap();
        let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut held: Vec<_> = names
            .filter(|name| name.parse::<IpAddr>().is_ok())
            .map(|name| {
                let owner = fs::read_to_string(self.leases().join(&name)).unwrap();
                format!("{name} {}", owner.replace("\r\n", " "))
            })
            .collect();
        held.sort();
        held
    }
}

#[track_caller]
fn failed<T: std::fmt::Debug>(result: Result<T, Error>, code: Code, expected: &str) {
    let error = result.unwrap_err();
    assert!(error.code == code && error.to_string().contains(expected), "{error:?}");
}

#[test]
fn round_robin_and_free() {
    let node = Node::of_subnet("10.1.2.0/29");
    assert_eq!(node.add("a").unwrap(), ["10.1.2.2"]);
    assert_eq!(node.add("b").unwrap(), ["10.1.2.3"]);
    node.del("a");
    assert_eq!(node.add("c").unwrap(), ["10.1.2.4"]);
    assert_eq!(node.held(), ["10.1.2.3 b eth0", "10.1.2.4 c eth0"]);
    assert_eq!(fs::read_to_string(node.leases().join("last_reserved_ip.0")).unwrap(), "10.1.2.4");
    for (container, expected) in [("d", "10.1.2.5"), ("e", "10.1.2.6"), ("f", "10.1.2.2")] {
        assert_eq!(node.add(container).unwrap(), [expected]);
    }
    failed(node.add("g"), Code::TryAgain, "no address is free in 10.1.2.1-10.1.2.6");
}

#[test]
fn result() {
    let node = Node::new(json!({
        "ranges": [[{"subnet": "10.1.2.0/24", "gateway": "10.1.2.2"}], [{"subnet": "fd00::/64"}]],
        "routes": [{"dst": "0.0.0.0/0"}],
    }));
    let Success { interfaces, ips, routes, dns } =
        node.add_call(&node.call("a", "eth0", Value::Null)).unwrap();
    assert_eq!(ips[0].address.to_string(), "10.1.2.1/24");
    assert_eq!(ips[0].gateway, Some("10.1.2.2".parse().unwrap()));
    assert_eq!(ips[1].address.to_string(), "fd00::2/64");
    assert_eq!((interfaces.len(), routes.len(), dns.is_empty()), (0, 1, true));
}

#[test]
fn a_failed_add_frees_what_it_took() {
    let node = Node::new(json!({
        "ranges": [[{"subnet": "10.1.2.0/24"}], [{"subnet": "10.1.3.0/30"}]],
    }));
    node.add("a").unwrap();
    failed(node.add("b"), Code::TryAgain, "\"ipam.ranges[1]\"");
    assert_eq!(node.held(), ["10.1.2.2 a eth0", "10.1.3.2 a eth0"]);
}

#[test]
fn duplicates() {
    let node = Node::of_subnet("10.1.2.0/29");
    node.add("a").unwrap();
    failed(
        node.add("a"),
        Code::Conflict,
        "10.1.2.2 is already leased to container a, interface eth0",
    );
    assert!(node.add_call(&node.call("a", "eth1", Value::Null)).is_ok());
    // Leases of the reference plugin, old and new, which are not in the index.
    node.write("10.1.2.4", "b\r\neth0");
    failed(node.add("b"), Code::Conflict, "10.1.2.4");
    node.write("10.1.2.5", "c");
    failed(node.add("c"), Code::Conflict, "10.1.2.5");
    failed(node.add("c"), Code::Conflict, "10.1.2.5");
    assert_eq!(node.held().len(), 4);
}

#[test]
fn leases_in_ranges_of_another_configuration() {
    let mut node = Node::of_subnet("10.1.2.0/29");
    node.add("a").unwrap();
    node.ipam = json!({"subnet": "10.1.3.0/29"});
    assert_eq!(node.add("a").unwrap(), ["10.1.3.2"]);
    node.del("a");
    assert_eq!(node.held(), [""; 0]);
}

#[test]
fn requested_addresses() {
    let node = Node::of_subnet("10.1.2.0/24");
    let ask = |ip: &str| json!({"runtimeConfig": {"ips": [ip]}});
    assert_eq!(node.add_with("a", ask("10.1.2.77/24")).unwrap(), ["10.1.2.77"]);
    failed(
        node.add_with("b", ask("10.1.2.77")),
        Code::Conflict,
        "10.1.2.77 is leased to container a, interface eth0",
    );
    failed(node.add_with("b", ask("10.9.9.9")), Code::InvalidConfig, "10.9.9.9");
    // An empty lease does not block the address.
    node.write("10.1.2.78", "");
    assert_eq!(node.add_with("b", ask("10.1.2.78")).unwrap(), ["10.1.2.78"]);
    node.reboot_since("10.1.2.77");
    assert_eq!(node.add_with("c", ask("10.1.2.77")).unwrap(), ["10.1.2.77"]);
    assert_eq!(node.held(), ["10.1.2.77 c eth0", "10.1.2.78 b eth0"]);
}

#[test]
fn leases_from_before_the_last_boot_are_reclaimed_when_nothing_else_is_left() {
    let node = Node::of_subnet("10.1.2.0/29");
    for container in ["a", "b", "c"] {
        node.add(container).unwrap();
    }
    node.reboot_since("10.1.2.2");
    node.reboot_since("10.1.2.3");
    assert_eq!(node.add("d").unwrap(), ["10.1.2.5"]);
    // A lease of the reference plugin, whose boot is not known.
    node.write("10.1.2.6", "live\r\neth0");
    assert_eq!(node.add("e").unwrap(), ["10.1.2.2"]);
    assert_eq!(node.add("f").unwrap(), ["10.1.2.3"]);
    failed(node.add("g"), Code::TryAgain, "no address is free");
    assert!(node.held().contains(&"10.1.2.6 live eth0".to_owned()));
    // The DEL of a container that lost its address releases no other one.
    node.del("a");
    assert_eq!(node.held().len(), 5);
}

#[test]
fn old_leases_are_kept_while_others_are_free() {
    let node = Node::of_subnet("10.1.2.0/24");
    for last in 2..60 {
        let ip = format!("10.1.2.{last}");
        node.write(&ip, &format!("c{last}\r\neth0"));
        node.reboot_since(&ip);
    }
    assert_eq!(node.add("new").unwrap(), ["10.1.2.60"]);
    assert_eq!(node.held().len(), 59);
}

#[test]
fn reclaiming_can_be_switched_off() {
    let mut node = Node::of_subnet("10.1.2.0/30");
    node.add("a").unwrap();
    node.reboot_since("10.1.2.2");
    node.ipam["reclaimAfterReboot"] = json!(false);
    failed(node.add("b"), Code::TryAgain, "no address is free");
    failed(node.status(), Code::NotAvailable, "no address is free");
    node.ipam["reclaimAfterReboot"] = json!(true);
    node.status().unwrap();
    assert_eq!(node.add("b").unwrap(), ["10.1.2.2"]);
}

#[test]
fn after_a_reboot_a_container_gets_its_own_addresses_again() {
    let node = Node::new(json!({
        "ranges": [[{"subnet": "10.1.2.0/24"}], [{"subnet": "fd00::/64"}]],
    }));
    let before = node.add("a").unwrap();
    node.add("b").unwrap();
    for ip in &before {
        node.reboot_since(ip);
    }
    assert_eq!(node.add("a").unwrap(), before);
    failed(node.add("a"), Code::Conflict, "duplicate allocation");
    node.del("a");
    assert_eq!(node.held(), ["10.1.2.3 b eth0", "fd00::3 b eth0"]);
}

#[test]
fn leases_that_a_crash_left_empty() {
    let node = Node::of_subnet("10.1.2.0/28");
    node.write("10.1.2.2", "");
    node.write("10.1.2.3", "\0\0\0\0");
    node.write("10.1.2.4", "the printer's");
    // The first command reads every lease and removes the empty ones.
    node.del("nobody");
    assert_eq!(node.held(), ["10.1.2.4 the printer's"]);
    // Later commands do not read all leases.
    node.add("a").unwrap();
    fs::write(node.leases().join("10.1.2.2"), "").unwrap();
    let given: Vec<_> = ["b", "c", "d"].map(|container| node.add(container).unwrap()).concat();
    assert_eq!(given, ["10.1.2.3", "10.1.2.5", "10.1.2.6"]);
    node.gc(&[]);
    assert_eq!(node.held(), ["10.1.2.4 the printer's"]);
}

#[test]
fn an_exhausted_set_has_the_empty_leases_left() {
    let mut node = Node::of_subnet("10.1.2.0/30");
    node.ipam["reclaimAfterReboot"] = json!(false);
    node.add("a").unwrap();
    failed(node.add("b"), Code::TryAgain, "no address is free");
    node.write("10.1.2.2", "");
    node.status().unwrap();
    assert_eq!(node.add("b").unwrap(), ["10.1.2.2"]);
}

#[test]
fn other_files_are_ignored() {
    let node = Node::of_subnet("10.1.2.0/29");
    node.write("notes", "a\r\neth0");
    node.write("last_reserved_ip.0", "nonsense");
    fs::create_dir(node.leases().join("10.1.2.2")).unwrap();
    assert_eq!(node.add("a").unwrap(), ["10.1.2.3"]);
    node.del("a");
    node.gc(&[]);
    assert!(node.leases().join("notes").exists() && node.leases().join("10.1.2.2").exists());
    assert_eq!(node.add("a").unwrap(), ["10.1.2.4"]);
}

#[test]
fn del_of_what_no_longer_exists() {
    let node = Node::of_subnet("10.1.2.0/29");
    node.del("nobody");
    node.add("a").unwrap();
    node.remove("10.1.2.2");
    node.del("a");
    fs::remove_dir_all(node.leases()).unwrap();
    node.del("a");
    assert!(!node.leases().exists());
    // The data directory is not a directory.
    fs::write(node.leases(), "").unwrap();
    node.del("a");
}

#[test]
fn del_of_the_old_format_only_where_the_new_one_has_nothing() {
    let node = Node::of_subnet("10.1.2.0/29");
    node.write("10.1.2.2", "a");
    node.write("10.1.2.3", "a\r\neth0");
    node.del("a");
    assert_eq!(node.held(), ["10.1.2.2 a"]);
    node.del("a");
    assert_eq!(node.held(), [""; 0]);
}

#[test]
fn del_does_not_read_the_ranges() {
    let mut node = Node::of_subnet("10.1.2.0/29");
    node.add("a").unwrap();
    node.ipam = json!({"ranges": "broken", "routes": 5});
    node.del("a");
    assert_eq!(node.held(), [""; 0]);
    failed(node.add("a"), Code::InvalidConfig, "\"ipam.");
}

#[test]
fn check_names_what_is_missing() {
    let node = Node::of_subnet("10.1.2.0/29");
    let result = |ips: &[&str]| {
        let ips: Vec<_> = ips.iter().map(|ip| json!({"address": ip})).collect();
        json!({"prevResult": {"ips": ips}})
    };
    failed(node.check("a", Value::Null), Code::Changed, "no address is leased to container a");
    node.add("a").unwrap();
    node.add("b").unwrap();
    node.check("a", Value::Null).unwrap();
    node.check("a", result(&["10.1.2.2/29"])).unwrap();
    // Addresses of other plugins in the chain's result are ignored.
    node.check("a", result(&["10.1.2.2/29", "192.0.2.7/24"])).unwrap();
    failed(node.check("a", result(&["10.1.2.3/29"])), Code::Changed, "10.1.2.3 of the result");
    failed(node.check("c", result(&["10.1.2.2/29"])), Code::Changed, "no address");
    node.write("10.1.2.2", "c\r\neth0");
    failed(node.check("a", result(&["10.1.2.2/29"])), Code::Changed, "no address");
    fs::remove_dir_all(node.leases()).unwrap();
    failed(node.check("a", Value::Null), Code::Changed, "no address");
    assert!(!node.leases().exists());
}

#[test]
fn gc_keeps_the_valid_ones() {
    let node = Node::of_subnet("10.1.2.0/28");
    for container in ["a", "b"] {
        node.add(container).unwrap();
    }
    node.add_call(&node.call("a", "eth1", Value::Null)).unwrap();
    node.write("10.1.2.5", "old-valid");
    node.write("10.1.2.6", "old-gone");
    node.gc(&[("a", "eth0"), ("old-valid", "eth7")]);
    assert_eq!(node.held(), ["10.1.2.2 a eth0", "10.1.2.5 old-valid"]);
    node.gc(&[]);
    assert_eq!(node.held(), [""; 0]);
    fs::remove_dir_all(node.leases()).unwrap();
    node.gc(&[]);
}

#[test]
fn status() {
    let node = Node::new(json!({
        "ranges": [[{"subnet": "10.1.2.0/24"}], [{"subnet": "10.1.3.0/30"}]],
    }));
    fs::remove_dir(node.leases()).unwrap();
    node.status().unwrap();
    assert!(!node.leases().exists());
    node.add("a").unwrap();
    failed(node.status(), Code::NotAvailable, "10.1.3.1-10.1.3.2 (key \"ipam.ranges[1]\")");
    node.del("a");
    node.status().unwrap();
    fs::remove_dir_all(node.leases()).unwrap();
    fs::write(node.leases(), "").unwrap();
    failed(node.status(), Code::NotAvailable, "no lease can be written in");
}

#[test]
fn the_index_is_removed_with_the_last_lease() {
    let node = Node::of_subnet("10.1.2.0/29");
    let index = node.dir.path().join("index");
    node.add("a").unwrap();
    node.add("b").unwrap();
    assert_eq!(fs::read_dir(&index).unwrap().count(), 1);
    node.del("b");
    node.del("a");
    assert_eq!(fs::read_dir(&index).unwrap().count(), 0);
}

#[test]
fn commands_work_without_an_index() {
    let node = Node::of_subnet("10.1.2.0/29");
    fs::write(node.dir.path().join("index"), "in the way").unwrap();
    node.add("a").unwrap();
    failed(node.add("a"), Code::Conflict, "10.1.2.2");
    node.check("a", Value::Null).unwrap();
    node.del("a");
    assert_eq!(node.held(), [""; 0]);
}

#[test]
fn the_index_is_used() {
    let node = Node::of_subnet("10.1.2.0/29");
    node.add("a").unwrap();
    // The file is written in place, so that the directory does not change.
    node.write("10.1.2.2", "b\r\neth0");
    assert_eq!(node.add("b").unwrap(), ["10.1.2.3"]);
}

#[test]
fn large_ranges() {
    let node = Node::new(json!({
        "ranges": [[{"subnet": "10.0.0.0/8"}], [{"subnet": "fd00::/8"}], [{"subnet": "fe00::/64"}]],
    }));
    for last in 0..100 {
        node.write(&format!("10.0.0.{}", last + 2), "x\r\neth0");
    }
    assert_eq!(node.add("a").unwrap(), ["10.0.0.102", "fd00::2", "fe00::2"]);
    node.status().unwrap();
}

mod hostile;
mod model;
