//! Network namespaces that stand for machines. A thread in each does the work.

use std::fs;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::mpsc::{self, Sender};
use std::thread;

use nix::sched::{CloneFlags, unshare};
use nix::unistd::{getegid, geteuid, gettid};

use crate::demo::error::DemoError;

type Job = Box<dyn FnOnce() + Send>;

/// A namespace; it is removed with its thread when this is dropped.
#[derive(Debug)]
pub(crate) struct Machine {
    jobs: Sender<Job>,
    netns: PathBuf,
}

impl Machine {
    /// Makes a machine whose only link is `lo`; `name` is for errors.
    pub(crate) fn new(name: &'static str) -> Result<Self, DemoError> {
        let (jobs, inbox) = mpsc::channel::<Job>();
        let (ready_out, ready_in) = mpsc::channel();
        thread::spawn(move || {
            let made = unshare(CloneFlags::CLONE_NEWNET).map(|()| gettid());
            // The receiver waits for this message.
            let _ = ready_out.send(made);
            for job in inbox {
                job();
            }
        });
        let thread = ready_in.recv().unwrap_or(Err(nix::Error::ESRCH));
        let thread = thread.map_err(|errno| DemoError::Namespace(name, errno))?;
        let netns = PathBuf::from(format!("/proc/{}/task/{thread}/ns/net", process::id()));
        Ok(Self { jobs, netns })
    }

    /// The path of its namespace.
    pub(crate) fn netns(&self) -> PathBuf {
        self.netns.clone()
    }

    /// Runs a closure on the machine and waits for it.
    pub(crate) fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let (out, back) = mpsc::channel();
        let job = Box::new(move || {
            // The receiver waits for this message.
            let _ = out.send(work());
        });
        // The thread ends only with this machine, or when a job panics, which ends the task.
        let sent = self.jobs.send(job).is_ok();
        match back.recv() {
            Ok(value) if sent => value,
            _ => process::abort(),
        }
    }
}

/// A directory for the files of the plugins; it is removed in the end.
#[derive(Debug)]
pub(crate) struct Workplace(PathBuf);

impl Workplace {
    pub(crate) fn new() -> Result<Self, DemoError> {
        let path = std::env::temp_dir().join(format!("podwire-bench-{}", process::id()));
        fs::create_dir(&path).map_err(|error| DemoError::File("create", path.clone(), error))?;
        Ok(Self(path))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Workplace {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("remove {}: {error}", self.0.display());
        }
    }
}

/// Makes an ordinary user root in a new user namespace (`user_namespaces(7)`). Must be called before
/// there is a second thread.
pub(crate) fn become_root() -> Result<(), DemoError> {
    let (user, group) = (geteuid(), getegid());
    if user.is_root() {
        return Ok(());
    }
    unshare(CloneFlags::CLONE_NEWUSER)
        .map_err(|errno| DemoError::Namespace("make a user namespace", errno))?;
    let write = |file: &str, text: String| {
        let path = Path::new("/proc/self").join(file);
        fs::write(&path, text).map_err(|error| DemoError::File("write", path, error))
    };
    write("setgroups", "deny".to_owned())?;
    write("uid_map", format!("0 {user} 1"))?;
    write("gid_map", format!("0 {group} 1"))
}
