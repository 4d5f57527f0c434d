//! The machine of one test: network namespaces and files that no other process sees.
//!
//! A world is a mount namespace with empty `/run` and `/var/lib`, in which each network namespace is
//! bound to a name as `ip netns` does it. A descriptor of this process is the only reference to it:
//! when it is closed, by `drop`, panic or SIGKILL, the kernel removes everything.

use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::stat::{Mode, umask};

use crate::process::{Cmd, Output};

/// The network namespace in which plugins run.
pub const NODE: &str = "node";

/// An empty directory for the files of a test's plugins, such as host-local's `dataDir`.
pub const STATE_DIR: &str = "/run/state";

/// The path of namespace `name` inside a world, as a runtime passes it in `CNI_NETNS`.
#[must_use]
pub fn netns_path(name: &str) -> String {
    format!("/run/netns/{name}")
}

/// A set of network namespaces with files of their own.
#[derive(Debug)]
pub struct World {
    mounts: OwnedFd,
}

impl World {
    /// Makes a world with the namespace [`NODE`], in which the loopback is up and forwarding is off,
    /// and with the named ones.
    ///
    /// # Panics
    ///
    /// If the kernel refuses; [`crate::Needs`] requires root beforehand.
    #[must_use]
    pub fn new(namespaces: &[&str]) -> Self {
        let mounts = on_own_thread(private_mounts);
        let world = Self { mounts };
        for name in [NODE].iter().chain(namespaces) {
            world.add_netns(name);
        }
        world.sh(NODE, "ip link set lo up");
        world
    }

    /// Adds a network namespace with its loopback down, as a runtime does.
    pub fn add_netns(&self, name: &str) {
        on_own_thread(|| {
            self.enter_mounts();
            unshare(CloneFlags::CLONE_NEWNET).expect("unshare the network namespace");
            let path = netns_path(name);
            File::create(&path).expect("create the namespace's file");
            bind("/proc/thread-self/ns/net", &path);
            // A new namespace inherits this from the initial one.
            fs::write("/proc/sys/net/ipv4/ip_forward", "0").expect("switch forwarding off");
        });
    }

    /// Removes a network namespace and waits until the node's ends of its veth pairs are gone.
    pub fn remove_netns(&self, name: &str) {
        let expected = self.veth_pairs(NODE).saturating_sub(self.veth_pairs(name));
        on_own_thread(|| {
            self.enter_mounts();
            let path = netns_path(name);
            umount2(path.as_str(), MntFlags::MNT_DETACH).expect("unmount the namespace");
            fs::remove_file(&path).expect("remove the namespace's file");
        });
        let deadline = Instant::now() + Duration::from_secs(10);
        while self.veth_pairs(NODE) > expected && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Whether namespace `name` exists.
    #[must_use]
    pub fn has_netns(&self, name: &str) -> bool {
        self.files(|| Path::new(&netns_path(name)).exists())
    }

    /// Runs `work` on a thread in namespace `netns`: it opens, reads and starts everything there.
    pub fn inside<T: Send>(&self, netns: &str, work: impl FnOnce() -> T + Send) -> T {
        on_own_thread(|| {
            self.enter_mounts();
            let file = File::open(netns_path(netns)).expect("open the network namespace");
            setns(file, CloneFlags::CLONE_NEWNET).expect("enter the network namespace");
            work()
        })
    }

    /// Runs `work` on a thread that sees this world's files; its network is not defined.
    pub fn files<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        on_own_thread(|| {
            self.enter_mounts();
            work()
        })
    }

    /// Runs a command in namespace `netns` to its end.
    pub fn run(&self, netns: &str, command: &Cmd) -> Output {
        self.inside(netns, || command.execute(netns))
    }

    /// Runs a shell script in namespace `netns`; it must succeed. Returns its output.
    #[track_caller]
    pub fn sh(&self, netns: &str, script: &str) -> String {
        self.run(netns, &Cmd::new("sh").args(["-ec", script])).success().stdout
    }

    /// Connects two namespaces with a veth pair of the given names and addresses ("10.0.0.1/24").
    pub fn connect(&self, left: (&str, &str, &[&str]), right: (&str, &str, &[&str])) {
        let (a, b) = (left.1, right.1);
        self.sh(left.0, &format!("ip link add {a} type veth peer name {b} netns {}", right.0));
        for (netns, dev, addresses) in [left, right] {
            for address in addresses {
                let nodad = if address.contains(':') { "nodad" } else { "" };
                self.sh(netns, &format!("ip addr add {address} dev {dev} {nodad}"));
            }
            self.sh(netns, &format!("ip link set lo up; ip link set {dev} up"));
        }
    }

    fn veth_pairs(&self, netns: &str) -> usize {
        let links = self.run(netns, &Cmd::new("ip").args(["-o", "link", "show", "type", "veth"]));
        links.success().stdout.lines().count()
    }

    /// Moves the calling thread, which must end afterwards, into the mount namespace.
    fn enter_mounts(&self) {
        unshare(CloneFlags::CLONE_FS).expect("unshare the thread's root and working directory");
        setns(&self.mounts, CloneFlags::CLONE_NEWNS).expect("enter the mount namespace");
        umask(Mode::from_bits_truncate(0o022));
    }
}

/// A namespace belongs to a thread: each change is made on a thread that ends right after.
fn on_own_thread<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    let result = thread::scope(|scope| scope.spawn(work).join());
    result.unwrap_or_else(|panic| resume_unwind(panic))
}

fn private_mounts() -> OwnedFd {
    unshare(CloneFlags::CLONE_NEWNS).expect("unshare the mount namespace");
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
        .expect("make all mounts private");
    for dir in ["/run", "/var/lib"] {
        mount(Some("world"), dir, Some("tmpfs"), MsFlags::empty(), None::<&str>)
            .expect("mount a tmpfs");
    }
    for dir in ["/run/netns", STATE_DIR] {
        fs::create_dir(PathBuf::from(dir)).expect("create a directory of the world");
    }
    File::open("/proc/thread-self/ns/mnt").expect("open the mount namespace").into()
}

fn bind(from: &str, to: &str) {
    mount(Some(from), to, None::<&str>, MsFlags::MS_BIND, None::<&str>)
        .expect("bind the namespace to its name");
}
