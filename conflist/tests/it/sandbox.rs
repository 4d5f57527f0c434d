//! A temporary directory of networks, fake plugins and results.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::{env, fs, process};

use conflist::{Attachment, Network, Runtime};
use serde_json::{Value, json};

pub(crate) struct Sandbox {
    pub(crate) dir: PathBuf,
    pub(crate) runtime: Runtime,
}

impl Sandbox {
    /// With plugins of types `first`, `second` and `third`.
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name =
            format!("conflist-it-{}-{}", process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let dir = env::temp_dir().join(name);
        for part in ["bin", "calls", "answers", "net.d"] {
            fs::create_dir_all(dir.join(part)).unwrap();
        }
        // Linked, not written: no other thread's child can hold it open for writing (ETXTBSY).
        let fake = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fake-plugin");
        for kind in ["first", "second", "third"] {
            symlink(&fake, dir.join("bin").join(kind)).unwrap();
        }
        let runtime = Runtime {
            net_dir: dir.join("net.d"),
            plugin_path: vec![dir.join("bin")],
            cache_dir: dir.join("cache"),
        };
        Self { dir, runtime }
    }

    /// A network of three plugins: one with two capabilities, one with one, one with none.
    pub(crate) fn network(&self, version: &str) -> Network {
        self.write_list(
            "10.conflist",
            &json!({
                "name": "net", "cniVersion": version,
                "plugins": [
                    {"type": "first", "ipam": {"type": "first"}, "capabilities": {"ips": true, "mac": true}},
                    {"type": "second", "capabilities": {"portMappings": true, "mac": false}},
                    {"type": "third", "cni.dev/note": 1, "name": "other", "cniVersion": "0.1.0"},
                ],
            }),
        );
        self.runtime.network("net").unwrap()
    }

    pub(crate) fn write_list(&self, file: &str, list: &Value) {
        fs::write(self.dir.join("net.d").join(file), list.to_string()).unwrap();
    }

    /// Sets the answer of a plugin to a command.
    pub(crate) fn answer(&self, command: &str, kind: &str, answer: &Value) {
        let file = self.dir.join("answers").join(format!("{command}-{kind}"));
        fs::write(file, answer.to_string()).unwrap();
    }

    /// Makes a plugin fail a command with this message.
    pub(crate) fn fail(&self, command: &str, kind: &str, msg: &str) {
        let error = json!({"cniVersion": "1.0.0", "code": 100, "msg": msg, "details": "why"});
        self.answer(command, &format!("{kind}.error"), &error);
    }

    /// The calls since the last time, in order: a line with the environment, one with stdin.
    pub(crate) fn calls(&self) -> String {
        let mut files: Vec<PathBuf> = fs::read_dir(self.dir.join("calls"))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        files.sort();
        let mut calls = String::new();
        for file in files {
            calls.push_str(fs::read_to_string(&file).unwrap().trim_end());
            calls.push('\n');
            fs::remove_file(file).unwrap();
        }
        calls.replace(self.dir.to_str().unwrap(), "$SANDBOX")
    }

    /// The same without stdin: commands and plugins only.
    pub(crate) fn commands(&self) -> Vec<String> {
        let calls = self.calls();
        let lines = calls.lines().filter(|line| !line.starts_with('{'));
        lines.map(|line| line.split(' ').take(3).collect::<Vec<_>>().join(" ")).collect()
    }

    /// The names of the results that are kept.
    pub(crate) fn results(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.dir.join("cache/results")) else {
            return Vec::new();
        };
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// An attachment with `CNI_ARGS` and capability arguments.
pub(crate) fn attachment(id: &str) -> Attachment {
    let capability_args = json!({
        "ips": ["10.0.0.9"], "mac": "c2:0:0:0:0:1", "portMappings": [{"hostPort": 80}],
        "bandwidth": {},
    });
    Attachment {
        args: cni::Args::parse("IgnoreUnknown=1;A=b"),
        capability_args: capability_args.as_object().unwrap().clone(),
        ..bare_attachment(id)
    }
}

/// The same attachment without arguments, as from a runtime that lost them.
pub(crate) fn bare_attachment(id: &str) -> Attachment {
    let netns = PathBuf::from(format!("/run/netns/{id}"));
    Attachment::new(id.parse().unwrap(), "eth0".parse().unwrap(), Some(netns))
}
