//! Docker's userland proxy, the way of `127.0.0.1`: Docker's DNAT rule leaves out packets to
//! `127.0.0.0/8`, so that a program takes these connections and makes others to the container.

use std::io;
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;

use crate::demo::DemoError;
use crate::demo::machine::Machine;

/// Leads a port of the host to the container, until this program ends.
pub(super) fn publish(host: &Machine, port: u16, to: SocketAddr) -> Result<(), DemoError> {
    let published = host.run(move || -> io::Result<()> {
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))?;
        // Threads stay in the namespace where they are born.
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                // A container that does not answer shows as a connection that ends.
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
