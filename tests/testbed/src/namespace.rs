//! Network namespaces. The kernel removes one when no thread, process or descriptor refers to it.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::panic::resume_unwind;
use std::process::{Command, Output, id};
use std::thread;

use nix::sched::{CloneFlags, setns, unshare};

/// A network namespace. It exists at least as long as this value.
#[derive(Debug)]
pub struct Namespace(File);

impl Namespace {
    /// Makes a namespace with its loopback down, as a runtime does.
    pub fn create() -> Self {
        in_new_netns(Self::current)
    }

    /// The namespace of this thread, and of the threads and processes that it starts.
    pub fn current() -> Self {
        Self(File::open("/proc/thread-self/ns/net").expect("open the network namespace"))
    }

    /// Its path, as a runtime passes it in `CNI_NETNS`.
    pub fn path(&self) -> String {
        format!("/proc/{}/fd/{}", id(), self.0.as_raw_fd())
    }

    /// Runs a closure on a thread in the namespace.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        on_own_thread(|| {
            setns(&self.0, CloneFlags::CLONE_NEWNET).expect("enter the network namespace");
            work()
        })
    }

    /// Runs a shell script in the namespace; it must succeed. Returns its output.
    #[track_caller]
    pub fn sh(&self, script: &str) -> String {
        stdout(script, &self.enter(|| execute(script)))
    }
}

/// Runs a closure on a thread in a new network namespace with its loopback down.
pub fn in_new_netns<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    on_own_thread(|| {
        unshare(CloneFlags::CLONE_NEWNET).expect("root is needed to make a network namespace");
        work()
    })
}

/// Runs a test in a new namespace that stands for the node, with its loopback up.
pub fn on_a_node(test: impl FnOnce() + Send) {
    in_new_netns(|| {
        sh("ip link set lo up");
        test();
    });
}

/// Runs a shell script in this thread's namespace; it must succeed. Returns its output.
#[track_caller]
pub fn sh(script: &str) -> String {
    stdout(script, &execute(script))
}

fn execute(script: &str) -> Output {
    Command::new("sh").args(["-ec", script]).output().expect("run sh")
}

#[track_caller]
fn stdout(script: &str, output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{script}: {}\n{text}{errors}", output.status);
    text
}

/// A namespace belongs to a thread: each change is made on a thread that ends right after.
fn on_own_thread<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    let outcome = thread::scope(|scope| scope.spawn(work).join());
    outcome.unwrap_or_else(|panic| resume_unwind(panic))
}
