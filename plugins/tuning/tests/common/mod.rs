//! Pods in their own network namespaces, and the plugin's program.

#![allow(dead_code, reason = "not every test program uses all of it")]

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Stdio, id};
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::{Value, json};
use testbed::{Ended, Namespace, cni_command};

/// The hardware address of a new pod's interface.
pub(crate) const MAC: &str = "02:00:00:00:00:01";

/// A pod with an interface `eth0`, and a directory for its backups.
pub(crate) struct Pod {
    netns: Namespace,
    pub(crate) dir: PathBuf,
}

impl Pod {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("tuning-{}-{number}", id()));
        let pod = Self { netns: Namespace::create(), dir };
        pod.sh(&format!("ip link add eth0 address {MAC} type veth peer name peer"));
        pod
    }

    pub(crate) fn path(&self) -> String {
        self.netns.path()
    }

    #[track_caller]
    pub(crate) fn sh(&self, command: &str) -> String {
        self.netns.sh(command).trim_end().to_owned()
    }

    /// The address, MTU, queue length and flags of the interface, as `ip` shows them.
    pub(crate) fn link(&self) -> String {
        let links: Value = serde_json::from_str(&self.sh("ip -j link show eth0")).unwrap();
        let link = &links[0];
        let has = |flag| link["flags"].as_array().unwrap().contains(&json!(flag));
        format!(
            "{} mtu {} qlen {}{}{}",
            link["address"].as_str().unwrap(),
            link["mtu"],
            link["txqlen"],
            if has("PROMISC") { " promisc" } else { "" },
            if has("ALLMULTI") { " allmulti" } else { "" },
        )
    }

    /// The names of the files in the directory of backups.
    pub(crate) fn files(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.dir).into_iter().flatten();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// The attachment of its interface to network `n`.
    pub(crate) fn call(&self) -> Call {
        let interface = json!({"name": "eth0", "mac": MAC, "mtu": 1500, "sandbox": self.path()});
        let network = json!({
            "cniVersion": "1.1.0", "name": "n", "type": "tuning", "dataDir": self.dir,
            "prevResult": {"cniVersion": "1.1.0", "interfaces": [interface]},
        });
        Call { container_id: "c1", netns: self.path(), args: "", network }
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// A command of the plugin: an attachment and a configuration.
#[derive(Clone)]
pub(crate) struct Call {
    pub(crate) container_id: &'static str,
    pub(crate) netns: String,
    pub(crate) args: &'static str,
    pub(crate) network: Value,
}

impl Call {
    /// The same with another key.
    pub(crate) fn with(&self, key: &str, value: impl Into<Value>) -> Self {
        let mut call = self.clone();
        call.network[key] = value.into();
        call
    }

    pub(crate) fn run(&self, command: &str) -> Ended {
        let program = env!("CARGO_BIN_EXE_tuning");
        let mut call = cni_command(program, command, self.container_id, &self.netns);
        testbed::run(call.env("CNI_ARGS", self.args), &self.network)
    }

    /// Runs a command that must succeed. Returns its stderr.
    #[track_caller]
    pub(crate) fn stderr_of(&self, command: &str) -> String {
        let program = env!("CARGO_BIN_EXE_tuning");
        let mut call = cni_command(program, command, self.container_id, &self.netns);
        let mut child = call.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(self.network.to_string().as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stderr).unwrap()
    }

    /// Runs a command that must fail, with this code and a message that contains `mentions`.
    #[track_caller]
    pub(crate) fn refused(&self, command: &str, code: u32, mentions: &str) {
        let error = self.run(command).unwrap_err();
        let text = format!("{} {}", error["msg"], error["details"]);
        assert!(text.contains(mentions), "{error}");
        assert_eq!(error["code"], code, "{error}");
    }
}
