//! A running plugin. Its configuration is written and its output is read at the same time.

use std::io::{self, ErrorKind, Read, Write};
use std::mem;
use std::os::fd::OwnedFd;
use std::process::{Child, ChildStdin, ChildStdout, ExitStatus};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::{ioctl_fionbio, ioctl_fionread, retry_on_intr};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde_json::Value;

use super::error::ExecError;
use crate::error::Error;
use crate::file::SIZE_LIMIT;

/// How many bytes are read at a time.
const CHUNK: usize = 16 * 1024;

/// How many bytes every empty pipe has room for (`PIPE_BUF`, pipe(7)).
const PIPE_ROOM: usize = 4096;

/// A plugin that was started. Dropping it waits until the plugin ends and discards its output.
#[derive(Debug)]
pub struct Running {
    program: String,
    child: Child,
    /// Its stdin, until the whole configuration is written.
    stdin: Option<ChildStdin>,
    /// The part of the configuration that is not written yet.
    unwritten: Vec<u8>,
}

/// The output and the status of a plugin that has ended.
struct Ended {
    status: ExitStatus,
    stdout: Vec<u8>,
}

/// What poll(2) reports about a running plugin.
struct Ready {
    stdin: bool,
    stdout: bool,
    end: bool,
}

impl Running {
    /// Writes as much of the configuration as the pipe has room for, usually all of it.
    pub(super) fn new(program: String, mut child: Child, configuration: &[u8]) -> io::Result<Self> {
        let stdin = child.stdin.take();
        let mut running = Self { program, child, stdin, unwritten: Vec::new() };
        if let Some(stdin) = &running.stdin
            && configuration.len() > PIPE_ROOM
        {
            ioctl_fionbio(stdin, true)?;
        }
        let written = running.write(configuration)?;
        running.unwritten = configuration[written..].to_vec();
        Ok(running)
    }

    /// Waits until the plugin ends and returns what it printed, as [`super::run`] does.
    pub fn finish(mut self) -> Result<Option<Value>, Error> {
        let program = mem::take(&mut self.program);
        let Ended { status, stdout } = match self.listen() {
            Ok(Some(ended)) => ended,
            Ok(None) => {
                // The plugin may ignore that its pipe is closed. If it has ended already, kill(2) fails,
                // which is no error.
                let _ = self.child.kill();
                return Err(ExecError::TooLong(program).into());
            }
            Err(source) => return Err(ExecError::Run { program, source }.into()),
        };
        let printed = serde_json::from_slice(&stdout);
        if !status.success() {
            let error = printed.ok().as_ref().and_then(Error::from_json);
            return Err(error.unwrap_or_else(|| ExecError::Silent { program, status }.into()));
        }
        if stdout.trim_ascii().is_empty() {
            return Ok(None);
        }
        let value = printed.map_err(|source| ExecError::Result { program, source })?;
        Ok(Some(value))
    }

    /// Writes and reads until the plugin ends; `None` if it prints more than the limit.
    ///
    /// It waits for the plugin and not for the end of its output, because a process that the plugin left
    /// behind may keep the output open. Before Linux 5.3, which has no pidfds, it waits for the end of the
    /// output.
    fn listen(&mut self) -> io::Result<Option<Ended>> {
        let mut pipe = self.child.stdout.take();
        let end = pidfd_open(Pid::from_child(&self.child), PidfdFlags::empty()).ok();
        let mut stdout = Vec::new();
        while self.exchange(&mut pipe, end.as_ref(), &mut stdout)? {
            if stdout.len() as u64 > SIZE_LIMIT {
                return Ok(None);
            }
        }
        drop(self.stdin.take());
        Ok(Some(Ended { status: self.child.wait()?, stdout }))
    }

    /// Waits until something can be written or read, and does that; `false` after the last time.
    fn exchange(
        &mut self,
        pipe: &mut Option<ChildStdout>,
        end: Option<&OwnedFd>,
        stdout: &mut Vec<u8>,
    ) -> io::Result<bool> {
        let ready = self.wait(pipe.as_ref(), end)?;
        if ready.stdin {
            let unwritten = mem::take(&mut self.unwritten);
            let written = self.write(&unwritten)?;
            self.unwritten = unwritten[written..].to_vec();
        }
        if ready.end {
            if let Some(pipe) = pipe {
                // The pipe now contains everything that the plugin printed.
                let there = ioctl_fionread(&*pipe)?;
                // Without room, the first bytes would be read 32 at a time.
                stdout.reserve(usize::try_from(there).unwrap_or_default());
                pipe.take(there).read_to_end(stdout)?;
            }
            return Ok(false);
        }
        if ready.stdout
            && let Some(open) = pipe
        {
            let mut chunk = [0; CHUNK];
            let length = open.read(&mut chunk)?;
            stdout.extend_from_slice(&chunk[..length]);
            if length == 0 {
                *pipe = None;
            }
        }
        // A plugin that has closed its stdout may still read its configuration.
        Ok(pipe.is_some() || (self.stdin.is_some() && end.is_some()))
    }

    fn wait(&self, stdout: Option<&ChildStdout>, end: Option<&OwnedFd>) -> io::Result<Ready> {
        let mut fds = Vec::with_capacity(3);
        fds.extend(stdout.map(|stdout| PollFd::new(stdout, PollFlags::IN)));
        fds.extend(end.map(|end| PollFd::new(end, PollFlags::IN)));
        fds.extend(self.stdin.as_ref().map(|stdin| PollFd::new(stdin, PollFlags::OUT)));
        retry_on_intr(|| poll(&mut fds, None))?;
        let mut ready = fds.iter().map(|fd| !fd.revents().is_empty());
        let mut next = |is_there: bool| is_there && ready.next() == Some(true);
        let (stdout, end) = (next(stdout.is_some()), next(end.is_some()));
        Ok(Ready { stdout, end, stdin: next(self.stdin.is_some()) })
    }

    /// Writes what the pipe has room for, and closes it after the last byte. Returns how many bytes were
    /// written.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut written = 0;
        while let Some(stdin) = &mut self.stdin {
            if written == bytes.len() {
                self.stdin = None;
                break;
            }
            match stdin.write(&bytes[written..]) {
                Ok(length) => written += length,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // The plugin ended early or does not read. Its output or its status gives the reason.
                Err(error) if error.kind() == ErrorKind::BrokenPipe => self.stdin = None,
                Err(error) => return Err(error),
            }
        }
        Ok(written)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // With closed pipes, the plugin cannot wait for this process. Nobody uses its status.
        drop((self.stdin.take(), self.child.stdout.take()));
        let _ = self.child.wait();
    }
}
