//! A thread that serves a socket.

use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use nix::sys::socket::{Shutdown, shutdown};

/// A server, which ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Server<S: AsRawFd> {
    socket: Arc<S>,
    thread: Option<JoinHandle<()>>,
}

impl<S: AsRawFd + Send + Sync + 'static> Server<S> {
    /// Serves on a thread, in the namespace of the calling thread, until the socket is shut down: then
    /// a listener returns an error, and an empty datagram is received.
    pub(crate) fn start(socket: S, serve: impl FnOnce(&S) + Send + 'static) -> Self {
        let socket = Arc::new(socket);
        let serving = Arc::clone(&socket);
        let thread = thread::spawn(move || serve(&serving));
        Self { socket, thread: Some(thread) }
    }
}

impl<S: AsRawFd> Drop for Server<S> {
    fn drop(&mut self) {
        // For UDP the kernel returns ENOTCONN, but wakes the receiver.
        let _ = shutdown(self.socket.as_raw_fd(), Shutdown::Both);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}
