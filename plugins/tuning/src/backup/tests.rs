//! Files of both implementations, and other files.

use std::env;
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};

use cni::Mac;

use super::*;

/// A directory that is removed with the value.
struct Dir(PathBuf);

impl Dir {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = env::temp_dir().join(format!("tuning-backup-{}-{number}", process::id()));
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn of(&self, network: &str) -> Backup<'_> {
        let owner = Attachment::from_names(network, "a_b", "eth0").unwrap();
        Backup { dir: &self.0, owner }
    }

    fn names(&self) -> Vec<String> {
        let name = |file: PathBuf| file.file_name().unwrap().to_str().unwrap().to_owned();
        let mut names: Vec<_> = files(&self.0).unwrap().into_iter().map(name).collect();
        names.sort();
        names
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

fn before() -> Before {
    let link = LinkSettings {
        mac: Some(Mac([2, 0, 0, 0, 0, 1])),
        promisc: Some(false),
        mtu: Some(1500),
        allmulti: Some(false),
        tx_queue_len: Some(1000),
    };
    let changed = Changed { before: "4096".into(), set: "500".into() };
    let sysctl = [("net/core/somaxconn".parse().unwrap(), changed)];
    let mac = Some(Mac([2, 0, 0, 0, 0, 2]));
    let interface = Some(Identity { index: 2, peer: Some(7), mac });
    Before { link, interface, sysctl: sysctl.into() }
}

#[test]
fn a_backup_is_saved_loaded_and_removed() {
    let dir = Dir::new();
    let backup = dir.of("n");
    assert_eq!((backup.load().unwrap(), backup.load_own().unwrap()), (None, None));
    backup.remove().unwrap();
    backup.save(&before()).unwrap();
    assert_eq!(dir.names(), ["a_b_eth0.json"]);
    assert_eq!(backup.load().unwrap(), Some(before()));
    assert_eq!(backup.load_own().unwrap(), Some(before()));
    assert_eq!(owner(&backup.file()).unwrap(), Some(backup.owner.clone()));
    backup.remove().unwrap();
    assert_eq!(dir.names(), Vec::<String>::new());
}

/// The reference plugin reads the first five keys; Go's decoder ignores the last.
#[test]
fn the_format_of_the_file() {
    let dir = Dir::new();
    dir.of("n").save(&before()).unwrap();
    assert_eq!(
        fs::read_to_string(dir.of("n").file()).unwrap(),
        r#"{
 "mac": "02:00:00:00:00:01",
 "promisc": false,
 "mtu": 1500,
 "allmulti": false,
 "txQLen": 1000,
 "podwire": {
  "owner": {
   "network": "n",
   "containerID": "a_b",
   "ifname": "eth0"
  },
  "interface": {
   "index": 2,
   "peer": 7,
   "mac": "02:00:00:00:00:02"
  },
  "sysctl": {
   "net/core/somaxconn": {
    "before": "4096",
    "set": "500"
   }
  }
 }
}"#
    );
}

/// As in the recorded case tuning-link-del-only.
#[test]
fn a_file_of_the_reference_plugin() {
    let dir = Dir::new();
    let backup = dir.of("n");
    let text = "{\n \"mac\": \"02:00:00:00:00:01\",\n \"promisc\": false,\n \"mtu\": 1500,\n \
                \"allmulti\": false,\n \"txQLen\": 1000\n}";
    fs::write(backup.file(), text).unwrap();
    let expected = Before { interface: None, sysctl: BTreeMap::new(), ..before() };
    assert_eq!(backup.load().unwrap(), Some(expected));
    assert_eq!((backup.load_own().unwrap(), owner(&backup.file()).unwrap()), (None, None));
    backup.remove().unwrap();
    assert_eq!(dir.names(), Vec::<String>::new());
}

#[test]
fn another_networks_file_is_not_removed() {
    let dir = Dir::new();
    let (ours, theirs) = (dir.of("ours"), dir.of("theirs"));
    theirs.save(&before()).unwrap();
    assert_eq!(ours.load().unwrap(), None);
    ours.remove().unwrap();
    assert_eq!(theirs.load().unwrap(), Some(before()));
}

#[test]
fn a_file_that_is_not_valid_does_not_fail() {
    let dir = Dir::new();
    let backup = dir.of("n");
    for text in ["", "{\"mtu\": 15", "[]", "{\"mtu\": \"big\", \"mac\": 5}"] {
        fs::write(backup.file(), text).unwrap();
        assert_eq!(backup.load().unwrap(), Some(Before::default()), "{text}");
        assert_eq!(owner(&backup.file()).unwrap(), None);
        backup.remove().unwrap();
        assert_eq!(dir.names(), Vec::<String>::new());
    }
    // Only one value is valid.
    fs::write(backup.file(), r#"{"mtu": 1500, "txQLen": -1, "podwire": 5}"#).unwrap();
    let link = LinkSettings { mtu: Some(1500), ..LinkSettings::default() };
    assert_eq!(backup.load().unwrap().unwrap().link, link);
}

#[test]
fn a_file_that_was_being_written() {
    let dir = Dir::new();
    let backup = dir.of("a.net_work");
    fs::write(backup.fresh(), "").unwrap();
    assert_eq!(owner(&backup.fresh()).unwrap(), Some(backup.owner.clone()));
    backup.remove().unwrap();
    assert_eq!(dir.names(), Vec::<String>::new());
    for foreign in ["x.txt", ".x.new", ".swp"] {
        let file = dir.0.join(foreign);
        fs::write(&file, "{}").unwrap();
        assert_eq!(owner(&file).unwrap(), None, "{foreign}");
    }
}

#[test]
fn directories_to_write_in() {
    let dir = Dir::new();
    is_writable(&dir.0).unwrap();
    is_writable(&dir.0.join("a/b")).unwrap();
    fs::write(dir.0.join("file"), "").unwrap();
    let error = is_writable(&dir.0.join("file/b")).unwrap_err();
    assert!(error.to_string().starts_with("write backups in"), "{error}");
}
