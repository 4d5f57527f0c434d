//! Docker's userland proxy for `127.0.0.1`. Docker's DNAT rule excludes packets to `127.0.0.0/8`; a
//! program accepts these connections and opens others to the container.

use std::io;
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;

use crate::demo::DemoError;
use crate::demo::machine::Machine;

/// Forwards a port of the host to the container until this program ends.
pub(super) fn publish(host: &Machine, port: u16, to: SocketAddr) -> Result<(), DemoError> {
    let published = host.run(move || -> io::Result<()> {
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))?;
        // A thread stays in the namespace in which it starts.
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                // If the container does not answer, the connection is closed.
                thread::spawn(move || relay(&client, to));
            }
        });
        Ok(())
    });
    published.map_err(|error| DemoError::Page("publish the port".to_owned(), error.to_string()))
}

fn relay(client: &TcpStream, to: SocketAddr) -> io::Result<()> {
    let server = TcpStream::connect(to)?;
    thread::scope(|scope| {
        scope.spawn(|| pass(client, &server));
        pass(&server, client)
    })
}

fn pass(mut from: &TcpStream, mut to: &TcpStream) -> io::Result<()> {
    io::copy(&mut from, &mut to)?;
    to.shutdown(Shutdown::Write)
}
