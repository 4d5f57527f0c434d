//! Docker's port forwarding: from a port of the host to a port of the node's container.

use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;

use crate::server::Server;
use crate::world::World;

/// Docker's userland proxy for `127.0.0.1` and `::1`. Docker's DNAT rule excludes packets to
/// `127.0.0.0/8`; a program accepts these connections and opens others, with the host's address on the
/// containers' bridge.
#[derive(Debug)]
pub(super) struct DockerProxy {
    _server: Server<TcpListener>,
}

impl DockerProxy {
    /// Listens at `port` in namespace `netns` and forwards each connection to the container's address
    /// of the same family, or to its only address.
    pub(super) fn start(world: &World, netns: &str, port: u16, to: &[SocketAddr]) -> Self {
        let to = to.to_vec();
        world.inside(netns, || {
            let listener = TcpListener::bind(("::", port)).expect("listen on the host");
            let serve = move |listener: &TcpListener| {
                while let Ok((client, peer)) = listener.accept() {
                    let is_ipv4 = peer.ip().to_canonical().is_ipv4();
                    let same = to.iter().find(|address| address.is_ipv4() == is_ipv4);
                    let target = *same.unwrap_or(&to[0]);
                    // If the container does not answer, the connection is closed.
                    thread::spawn(move || relay(&client, target));
                }
            };
            Self { _server: Server::start(listener, serve) }
        })
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
