//! Docker's part: a port of the host that leads to a port of the node's container.

use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use nix::sys::socket::{Shutdown as Both, shutdown};

use crate::world::World;

/// What Docker calls its userland proxy, the way of `127.0.0.1` and `::1`: Docker's DNAT rule
/// leaves out packets to `127.0.0.0/8`, so that a program takes these connections and makes others
/// from the host's address on the containers' bridge.
#[derive(Debug)]
pub(super) struct DockerProxy {
    listener: Arc<TcpListener>,
    thread: Option<JoinHandle<()>>,
}

impl DockerProxy {
    /// Listens at `port` of namespace `netns`, and leads each connection to the container's address
    /// of the same family, or to the only one that it has.
    pub(super) fn start(world: &World, netns: &str, port: u16, to: &[SocketAddr]) -> Self {
        let to = to.to_vec();
        world.inside(netns, || {
            let listener = TcpListener::bind(("::", port)).expect("listen on the host");
            let listener = Arc::new(listener);
            let accepting = Arc::clone(&listener);
            // Threads are in the namespace of the one that started them.
            let thread = thread::spawn(move || {
                while let Ok((client, peer)) = accepting.accept() {
                    let is_ipv4 = peer.ip().to_canonical().is_ipv4();
                    let same = to.iter().find(|address| address.is_ipv4() == is_ipv4);
                    let target = *same.unwrap_or(&to[0]);
                    // A container that does not answer shows as a connection that ends.
                    thread::spawn(move || relay(&client, target));
                }
            });
            Self { listener, thread: Some(thread) }
        })
    }
}

impl Drop for DockerProxy {
    fn drop(&mut self) {
        let _ = shutdown(self.listener.as_raw_fd(), Both::Both);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

fn relay(client: &TcpStream, target: SocketAddr) -> io::Result<()> {
    let server = TcpStream::connect(target)?;
    thread::scope(|scope| {
        scope.spawn(|| pass(client, &server));
        pass(&server, client)
    })
}

fn pass(mut from: &TcpStream, mut to: &TcpStream) -> io::Result<()> {
    io::copy(&mut from, &mut to)?;
    to.shutdown(Shutdown::Write)
}
