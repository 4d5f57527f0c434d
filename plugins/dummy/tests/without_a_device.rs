//! What can be tested on a kernel without dummy devices. The crate `tests` runs the others in a virtual
//! machine. Needs root.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::path::PathBuf;
use std::{env, fs, process};

use serde_json::{Value, json};
use testbed::{Ended, Namespace, cni_command, on_a_node};

/// A pod and its network.
struct Call {
    pod: Namespace,
    config: Value,
    ipam_log: PathBuf,
}

impl Call {
    fn new(test: &str) -> Self {
        let config = json!({
            "cniVersion": "1.1.0", "name": "n", "type": "dummy", "ipam": {"type": "logged"},
            "cni.dev/valid-attachments": [],
        });
        let ipam_log = env::temp_dir().join(format!("dummy-{test}-{}", process::id()));
        Self { pod: Namespace::create(), config, ipam_log }
    }

    fn run(&self, command: &str) -> Ended {
        let mut call = cni_command(env!("CARGO_BIN_EXE_dummy"), command, "c1", &self.pod.path());
        call.env("CNI_PATH", concat!(env!("CARGO_MANIFEST_DIR"), "/tests/ipam"));
        testbed::run(call.env("IPAM_LOG", &self.ipam_log), &self.config)
    }

    /// The commands that the IPAM plugin got.
    fn asked(&self) -> String {
        let asked = fs::read_to_string(&self.ipam_log).unwrap_or_default();
        let _ = fs::remove_file(&self.ipam_log);
        asked
    }
}

#[test]
fn a_kernel_without_dummy_devices() {
    on_a_node(|| {
        let call = Call::new("kernel");
        let is_there = Namespace::create().enter(|| {
            let mut ip = process::Command::new("ip");
            ip.args(["link", "add", "d0", "type", "dummy"]).output().unwrap().status.success()
        });
        let (added, status) = (call.run("ADD"), call.run("STATUS"));
        assert_eq!((added.is_ok(), status.is_ok()), (is_there, is_there), "{added:?} {status:?}");
        if let (Err(added), Err(status)) = (added, status) {
            assert_eq!((&added["code"], &status["code"]), (&json!(100), &json!(50)));
            for error in [added, status] {
                assert!(error["msg"].as_str().unwrap().contains("rtnl-link-dummy"), "{error}");
            }
            assert_eq!(call.asked(), "ADD\nDEL\n");
            assert_eq!(call.pod.sh("ip -o link | wc -l"), "1\n");
        }
    });
}

#[test]
fn an_interface_that_exists_is_left_alone() {
    on_a_node(|| {
        let mut call = Call::new("taken");
        call.pod.sh("ip link add eth0 type veth peer name other");
        let error = call.run("ADD").unwrap_err();
        assert_eq!(error["code"], 102, "{error}");
        assert_eq!(call.asked(), "");
        // It is not a dummy device.
        call.run("DEL").unwrap();
        assert_eq!(call.asked(), "DEL\n");
        call.pod.sh("ip link show eth0");
        let result = json!({"interfaces": [{"name": "eth0", "sandbox": call.pod.path()}]});
        call.config["prevResult"] = result;
        let error = call.run("CHECK").unwrap_err();
        assert_eq!(error["msg"], "interface eth0 of the pod is a veth, not a dummy", "{error}");
        call.asked();
    });
}

#[test]
fn del_and_gc_release_addresses_whatever_is_missing() {
    on_a_node(|| {
        let mut call = Call::new("gone");
        for command in ["DEL", "GC"] {
            call.run(command).unwrap();
            assert_eq!(call.asked(), format!("{command}\n"));
        }
        let mut del = cni_command(env!("CARGO_BIN_EXE_dummy"), "DEL", "c1", "/run/netns/vanished");
        del.env("CNI_PATH", concat!(env!("CARGO_MANIFEST_DIR"), "/tests/ipam"));
        testbed::run(del.env("IPAM_LOG", &call.ipam_log), &call.config).unwrap();
        assert_eq!(call.asked(), "DEL\n");
        call.config["ipam"] = Value::Null;
        call.run("DEL").unwrap();
        let error = call.run("ADD").unwrap_err();
        assert_eq!(error["code"], 7, "{error}");
    });
}
