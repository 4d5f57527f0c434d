//! A node for a runtime: a world with its own processes, shared memory and cgroups.

use std::fs::{self, File};
use std::io;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use tests::{Cmd, NODE, Output, Plugins, World, workspace};

use crate::calls::Call;

/// A network with the plugins that runtimes usually have.
pub(crate) const FULL: &str = "tests/runtimes/full.conflist";
/// The directory of network configurations.
const NETWORKS: &str = "/run/net.d";
/// The root file system of a container: busybox and a page.
pub(crate) const ROOTFS: &str = "/run/rootfs";
/// The page of a container.
pub(crate) const PAGE: &str = "a page of the container";
/// The time limit of all waiting, also on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// A world whose processes see only each other, and end with the first of them.
#[derive(Debug)]
pub(crate) struct Node {
    pub world: World,
    /// `unshare`; its child ends when this handle's pipe is closed, by drop, panic or SIGKILL.
    init: Child,
    /// The cgroup below which a runtime creates its own.
    pub cgroup: String,
    pub plugins: Plugins,
}

impl Node {
    /// A node with a recorder for each plugin, and with a network file of the workspace.
    pub(crate) fn new(plugins: &Plugins, network: &str) -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let world = World::new(&["outside"]);
        world.connect((NODE, "uplink", &["192.0.2.1/24"]), ("outside", "eth0", &["192.0.2.2/24"]));
        world.sh(NODE, &place(plugins));
        world.sh(NODE, &format!("mkdir {NETWORKS}"));
        let cgroup = format!("/podwire-tests-{}-{number}.node", std::process::id());
        let init = world.inside(NODE, first_process);
        let node = Self { world, init, cgroup, plugins: plugins.clone() };
        node.wait_for("/run/node-is-up");
        let file = workspace().join(network);
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        node.write(&format!("{NETWORKS}/{name}"), &fs::read(file).unwrap());
        node.make_rootfs();
        node
    }

    /// Writes a file of the node.
    pub(crate) fn write(&self, path: &str, content: &[u8]) {
        self.world.files(|| fs::write(path, content).unwrap());
    }

    /// Reads a file of the node; empty if it does not exist.
    pub(crate) fn read(&self, path: &str) -> Vec<u8> {
        self.world.files(|| fs::read(path).unwrap_or_default())
    }

    /// Waits until a file of the node exists.
    #[track_caller]
    pub(crate) fn wait_for(&self, path: &str) {
        wait_until(path, || self.world.files(|| fs::exists(path).unwrap()));
    }

    /// Makes a command one of the node's processes.
    pub(crate) fn enter(&self, command: Cmd) -> Cmd {
        command.wrapped_by(self.entrance())
    }

    /// Runs a command among the node's processes to its end.
    pub(crate) fn run(&self, words: &[&str]) -> Output {
        self.world.run(NODE, &self.enter(Cmd::new(words[0]).args(&words[1..])))
    }

    /// Starts a program and does not wait for it. Its output is in `/run/NAME.log`, its process ID in
    /// `/run/NAME.pid`.
    pub(crate) fn start(&self, name: &str, command: &str) {
        let script =
            format!("{command} </dev/null >>/run/{name}.log 2>&1 & echo $! >/run/{name}.pid");
        drop(self.run(&["sh", "-c", &script]).success());
    }

    /// A page as `curl` gets it in a namespace; empty if it fails.
    pub(crate) fn page(&self, netns: &str, address: &str) -> String {
        let url = format!("http://{address}/");
        let curl = Cmd::new("curl").args(["-s", "--max-time", "5", &url]);
        self.world.run(netns, &curl).stdout.trim().to_owned()
    }

    /// All calls of plugins so far.
    pub(crate) fn calls(&self) -> Vec<Call> {
        Call::parse_all(&String::from_utf8_lossy(&self.read("/run/plugins/calls.jsonl")))
    }

    /// The words in front of a command that make it one of the node's processes.
    fn entrance(&self) -> Vec<String> {
        let unshare = format!("/proc/{}/ns", self.init.id());
        let namespace = |kind: &str, file: &str| format!("--{kind}={unshare}/{file}");
        vec![
            "nsenter".to_owned(),
            namespace("mount", "mnt"),
            namespace("pid", "pid_for_children"),
            namespace("ipc", "ipc"),
            namespace("uts", "uts"),
            "--".to_owned(),
        ]
    }

    /// A root file system of busybox and a page, for containers and for an image.
    fn make_rootfs(&self) {
        let script = format!(
            "mkdir -p {ROOTFS} && cd {ROOTFS} && mkdir bin dev etc proc run sys tmp www
             cp /bin/busybox bin/ && for tool in httpd ip sleep; do ln -s busybox bin/$tool; done
             echo '{PAGE}' >www/index.html && echo 'root:x:0:0:root:/:/bin/sh' >etc/passwd"
        );
        self.world.sh(NODE, &script);
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        drop(self.init.stdin.take());
        let _ = self.init.wait();
        let script = format!(
            "find /sys/fs/cgroup -depth -type d -path '*{}*' -exec rmdir {{}} + 2>/dev/null || true",
            self.cgroup
        );
        // The cgroup of a process that has just been killed is emptied a little later.
        for _ in 0..50 {
            let _ = Command::new("sh").args(["-c", &script]).status();
            let left = Command::new("find")
                .args(["/sys/fs/cgroup", "-type", "d", "-path", &format!("*{}*", self.cgroup)])
                .output();
            if left.is_ok_and(|output| output.stdout.is_empty()) {
                break;
            }
            thread::sleep(Duration::from_millis(100));
        }
    }
}

/// A script that puts a recorder in front of each plugin.
fn place(plugins: &Plugins) -> String {
    let recorder = env!("CARGO_BIN_EXE_recorder");
    let place = |name: &str| {
        let real = plugins.path(name);
        format!("ln -s '{recorder}' bin/{name}; ln -s '{}' real/{name}\n", real.display())
    };
    let lines: String = Plugins::ALL.into_iter().map(place).collect();
    format!("mkdir -p /run/plugins/bin /run/plugins/real; cd /run/plugins\n{lines}")
}

/// Waits until a condition holds.
#[track_caller]
pub(crate) fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "waited too long for {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// Creates the namespaces that a world lacks, and a first process that lives as long as its stdin.
fn first_process() -> Child {
    let script = "mount -t tmpfs tmpfs /dev/shm && hostname node &&
                  touch /run/node-is-up && exec cat";
    let log = File::create("/run/node.log").unwrap();
    let spawned: io::Result<Child> = Command::new("unshare")
        .args(["--mount", "--pid", "--ipc", "--uts", "--fork", "--kill-child", "--mount-proc"])
        .args(["--propagation", "private", "sh", "-ec", script])
        .stdin(Stdio::piped())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn();
    spawned.unwrap()
}

/// A file of the suite's directory.
pub(crate) fn file(name: &str) -> PathBuf {
    workspace().join("tests/runtimes").join(name)
}
