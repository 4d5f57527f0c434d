//! Network namespaces. Each vanishes with the last thread, process or descriptor that holds it.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::panic::resume_unwind;
use std::process::{Command, Output, id};
use std::thread;

use nix::sched::{CloneFlags, setns, unshare};

/// A network namespace that lives as long as this, and as processes in it.
#[derive(Debug)]
pub struct Namespace(File);

impl Namespace {
    /// Makes a namespace whose loopback is down, as a runtime leaves it.
    pub fn create() -> Self {
        in_new_netns(Self::current)
    }

    /// The one that this thread is in; threads that it starts and processes are there, too.
    pub fn current() -> Self {
        Self(File::open("/proc/thread-self/ns/net").expect("open the network namespace"))
    }

    /// Where it can be opened: what a runtime passes as `CNI_NETNS`.
    pub fn path(&self) -> String {
        format!("/proc/{}/fd/{}", id(), self.0.as_raw_fd())
    }

    /// Does something on a thread inside.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        on_own_thread(|| {
            setns(&self.0, CloneFlags::CLONE_NEWNET).expect("enter the network namespace");
            work()
        })
    }

    /// Runs a shell script inside; it must succeed. Returns what it printed.
    #[track_caller]
    pub fn sh(&self, script: &str) -> String {
        stdout(script, &self.enter(|| execute(script)))
    }
}

/// Does something on a thread in a network namespace of its own, whose loopback is down.
pub fn in_new_netns<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    on_own_thread(|| {
        unshare(CloneFlags::CLONE_NEWNET).expect("root is needed to make a network namespace");
        work()
    })
}

/// Runs a test inside a namespace that stands for the node: its loopback is up.
pub fn on_a_node(test: impl FnOnce() + Send) {
    in_new_netns(|| {
        sh("ip link set lo up");
        test();
    });
}

/// Runs a shell script in this thread's namespace; it must succeed. Returns what it printed.
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

/// Namespaces belong to threads: each change is made on one that ends right after.
fn on_own_thread<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    let outcome = thread::scope(|scope| scope.spawn(work).join());
    outcome.unwrap_or_else(|panic| resume_unwind(panic))
}
