//! Files that are not regular, directories of other users, the longest names.

use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::process::geteuid;

use super::*;

fn fifo(path: &Path) {
    let _ = fs::remove_file(path);
    mknodat(CWD, path, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
}

/// Opening one of them would wait forever, as in the reference plugin 1.10.0.
#[test]
fn fifos_do_not_block() {
    let node = Node::of_subnet("10.1.2.0/29");
    // In place of a lease: the address is not assigned, as with a directory.
    fifo(&node.leases().join("10.1.2.2"));
    assert_eq!(node.add("a").unwrap(), ["10.1.2.3"]);
    node.check("a", Value::Null).unwrap();
    node.del("a");
    node.gc(&[]);

    let last = node.leases().join("last_reserved_ip.0");
    fifo(&last);
    failed(node.add("b"), Code::Io, "last_reserved_ip.0");
    failed(node.status(), Code::NotAvailable, "last_reserved_ip.0 must be a regular file");
    assert_eq!(fs::read_dir(node.leases()).unwrap().count(), 3);
    fs::remove_file(last).unwrap();

    fifo(&node.leases().join("lock"));
    failed(node.add("b"), Code::Io, "lock must be a regular file");
    failed(node.status(), Code::NotAvailable, "lock must be a regular file");
    failed(node.plugin().del(&node.call("a", "eth0", Value::Null)), Code::Io, "lock");
}

#[test]
fn resolv_conf_must_be_a_file() {
    let mut node = Node::of_subnet("10.1.2.0/29");
    let pipe = node.dir.path().join("resolv.conf");
    fifo(&pipe);
    for path in [&*pipe, Path::new("/dev/zero"), Path::new("/nonexistent")] {
        node.ipam["resolvConf"] = json!(path);
        failed(node.add("a"), Code::Io, "ipam.resolvConf");
        // Because an ADD would fail.
        failed(node.status(), Code::NotAvailable, "ipam.resolvConf");
    }
    assert_eq!(node.held(), [""; 0]);
}

#[test]
fn devices_are_not_leases() {
    let node = Node::of_subnet("10.1.2.0/29");
    symlink("/dev/zero", node.leases().join("10.1.2.2")).unwrap();
    let large = fs::File::create(node.leases().join("10.1.2.3")).unwrap();
    large.set_len(1 << 40).unwrap();
    assert_eq!(node.add("a").unwrap(), ["10.1.2.4"]);
    node.del("a");
    node.gc(&[]);
    assert!(node.leases().join("10.1.2.3").exists());
}

#[test]
fn a_directory_of_another_user_is_not_trusted() {
    if !geteuid().is_root() {
        return;
    }
    let node = Node::of_subnet("10.1.2.0/29");
    node.add("a").unwrap();
    chown(node.leases(), Some(1), None).unwrap();
    failed(node.add("b"), Code::Io, "belongs to user 1");
    failed(node.check("a", Value::Null), Code::Io, "belongs to user 1");
    failed(node.status(), Code::NotAvailable, "belongs to user 1");
}

#[test]
fn other_users_cannot_write_to_leases_and_index() {
    let node = Node::of_subnet("10.1.2.0/29");
    let index = node.dir.path().join("index");
    fs::create_dir(&index).unwrap();
    for dir in [&index, &node.leases()] {
        fs::set_permissions(dir, fs::Permissions::from_mode(0o777)).unwrap();
    }
    node.add("a").unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o7777;
    let of_leases = fs::read_dir(&index).unwrap().next().unwrap().unwrap().path();
    assert_eq!([&*index, &*node.leases(), &*of_leases].map(mode), [0o755; 3]);

    // An index that other users can write to is not used.
    fs::remove_file(of_leases.join("a:eth0")).unwrap();
    symlink("10.1.2.5", of_leases.join("a:eth0")).unwrap();
    fs::set_permissions(&of_leases, fs::Permissions::from_mode(0o777)).unwrap();
    node.del("a");
    assert_eq!(node.held(), [""; 0]);
}

#[test]
fn the_longest_names() {
    let node = Node::of_subnet("10.1.2.0/29");
    let long = "a".repeat(4000);
    assert_eq!(node.add(&long).unwrap(), ["10.1.2.2"]);
    failed(node.add(&long), Code::Conflict, "10.1.2.2");
    node.check(&long, Value::Null).unwrap();
    assert_eq!(node.add("b").unwrap(), ["10.1.2.3"]);
    node.del(&long);
    assert_eq!(node.held(), ["10.1.2.3 b eth0"]);

    let network = json!({"name": "n".repeat(300)});
    let call = node.call("a", "eth0", network.clone());
    failed(node.add_call(&call), Code::Io, "File name too long");
    node.plugin().del(&call).unwrap();
    node.gc_of(&node.network(network), &[]);
}
