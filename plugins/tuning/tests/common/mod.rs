//! Pods in network namespaces of their own, and the plugin's program.

#![allow(dead_code, reason = "not every test program uses all of it")]

use std::fs::{self, File};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio, id};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use kernel::Netns;
use nix::sched::{CloneFlags, unshare};
use nix::unistd::gettid;
use serde_json::{Value, json};

/// The hardware address of a new pod's interface.
pub(crate) const MAC: &str = "02:00:00:00:00:01";

/// A pod with an interface `eth0`, whose namespace lives as long as this, but for processes in it;
/// and a directory for its backups.
pub(crate) struct Pod {
    netns: File,
    pub(crate) dir: PathBuf,
}

impl Pod {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let netns = thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).expect("root is needed to make a network namespace");
            File::open(format!("/proc/self/task/{}/ns/net", gettid())).unwrap()
        });
        let dir = std::env::temp_dir().join(format!("tuning-{}-{number}", id()));
        let pod = Self { netns: netns.join().unwrap(), dir };
        pod.sh(&format!("ip link add eth0 address {MAC} type veth peer name peer"));
        pod
    }

    pub(crate) fn path(&self) -> String {
        format!("/proc/{}/fd/{}", id(), self.netns.as_raw_fd())
    }

    #[track_caller]
    pub(crate) fn sh(&self, command: &str) -> String {
        let netns = Netns::open(Path::new(&self.path())).unwrap();
        let sh = || Command::new("sh").args(["-c", command]).output().expect("run sh");
        let output = netns.enter(sh).unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{command}: {errors}");
        String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
    }

    /// Address, MTU, queue length and flags of its interface, as `ip` shows them.
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

/// How a command ended: its result, or its error object.
pub(crate) type Ended = Result<Value, Value>;

/// A command of the plugin: an attachment, and what else it is told.
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
        let mut child = Command::new(env!("CARGO_BIN_EXE_tuning"))
            .env("CNI_COMMAND", command)
            .env("CNI_CONTAINERID", self.container_id)
            .env("CNI_NETNS", &self.netns)
            .env("CNI_IFNAME", "eth0")
            .env("CNI_ARGS", self.args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(self.network.to_string().as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let value = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
        if output.status.success() { Ok(value) } else { Err(value) }
    }

    /// Runs a command that must fail; its error object.
    #[track_caller]
    pub(crate) fn refused(&self, command: &str, code: u32, mentions: &str) {
        let error = self.run(command).unwrap_err();
        let text = format!("{} {}", error["msg"], error["details"]);
        assert!(text.contains(mentions), "{error}");
        assert_eq!(error["code"], code, "{error}");
    }
}
