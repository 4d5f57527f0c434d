//! Programs that run until they are dropped.

use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::thread::{self, JoinHandle};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::process::search_path;
use crate::world::World;

/// A program in a namespace. It is stopped when this is dropped and when the test's process ends.
#[derive(Debug)]
pub struct Daemon {
    pid: Pid,
    end: Option<Sender<()>>,
    owner: Option<JoinHandle<()>>,
}

impl Daemon {
    /// Starts a program in namespace `netns`.
    #[must_use]
    pub fn start(world: &World, netns: &str, words: &[&str]) -> Self {
        let (end, until) = channel::<()>();
        let (started, pid) = channel();
        // The kernel sends the signal when the thread that started the program ends.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "TERM"]).args(words);
        command.env("PATH", search_path()).stdin(Stdio::null()).stdout(Stdio::null());
        let owner = world.inside(netns, || {
            thread::spawn(move || {
                let mut child = command.spawn().expect("start setpriv");
                started.send(pid_of(&child)).expect("the starter waits");
                let _ = until.recv();
                let _ = kill(pid_of(&child), Signal::SIGTERM);
                let _ = child.wait();
            })
        });
        let pid = pid.recv().expect("the owner reports");
        Self { pid, end: Some(end), owner: Some(owner) }
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        kill(self.pid, signal).expect("the program runs");
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        drop(self.end.take());
        let _ = self.owner.take().map(JoinHandle::join);
    }
}

fn pid_of(child: &Child) -> Pid {
    Pid::from_raw(i32::try_from(child.id()).expect("a process id fits an i32"))
}
