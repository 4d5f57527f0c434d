//! Traffic that must not be interrupted while the node is changed.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use crate::server::Server;
use crate::world::World;

/// If an answer takes longer than this, the traffic has stopped.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long the first connection may take. The reference's bridge does not resolve neighbours over IPv6
/// before its address has passed duplicate address detection.
const START: Duration = Duration::from_secs(20);

/// A server that sends back what it receives, on any number of connections.
#[derive(Debug)]
pub struct Mirror {
    _server: Server<TcpListener>,
}

impl Mirror {
    /// Serves in namespace `netns` until dropped.
    #[must_use]
    pub fn start(world: &World, netns: &str, address: &str) -> Self {
        let listener = world.inside(netns, || TcpListener::bind(address));
        let listener = listener.unwrap_or_else(|e| panic!("listen on {address}: {e}"));
        let serve = |listener: &TcpListener| {
            while let Ok((stream, _)) = listener.accept() {
                // The thread ends when the client closes the connection.
                thread::spawn(move || io::copy(&mut &stream, &mut &stream));
            }
        };
        Self { _server: Server::start(listener, serve) }
    }
}

/// Runs `work` while a client in namespace `netns` talks to a [`Mirror`] without a pause, over one
/// connection that stays open and over new ones. None of them may fail.
#[track_caller]
pub fn while_visited<T>(world: &World, netns: &str, address: &str, work: impl FnOnce() -> T) -> T {
    let address: SocketAddr = address.parse().expect("an address and a port");
    let stop = AtomicBool::new(false);
    let (begun, first_visit) = channel();
    let (outcome, visits) = thread::scope(|scope| {
        let has_stopped = &stop;
        // The client drops the sender when it ends, also by an error.
        let client =
            scope.spawn(move || world.inside(netns, || visit(address, has_stopped, &begun)));
        let stop = StopAtEnd(&stop);
        // An error of a client that could not start is reported below.
        let outcome = first_visit.recv().ok().map(|()| work());
        drop(stop);
        (outcome, client.join().expect("the client does not panic"))
    });
    visits.unwrap_or_else(|error| panic!("traffic from {netns} to {address} stopped: {error}"));
    outcome.expect("the client has begun, for it has no error")
}

/// Ends the client when `work` has ended, even by a panic.
struct StopAtEnd<'a>(&'a AtomicBool);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

fn visit(address: SocketAddr, stop: &AtomicBool, begun: &Sender<()>) -> io::Result<()> {
    let lasting = first_connection(address)?;
    loop {
        // Read before the visits: the last ones are made after the work is done.
        let is_last = stop.load(Ordering::SeqCst);
        talk(&lasting).map_err(|e| io::Error::other(format!("the lasting connection: {e}")))?;
        let another = connect(address).and_then(|stream| {
            talk(&stream)?;
            stream.shutdown(Shutdown::Both)
        });
        another.map_err(|e| io::Error::other(format!("a new connection: {e}")))?;
        let _ = begun.send(());
        if is_last {
            return Ok(());
        }
    }
}

fn first_connection(address: SocketAddr) -> io::Result<TcpStream> {
    let deadline = Instant::now() + START;
    loop {
        match connect(address) {
            Err(error) if error.kind() == ErrorKind::TimedOut && Instant::now() < deadline => {}
            connected => return connected,
        }
    }
}

fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

fn talk(mut stream: &TcpStream) -> io::Result<()> {
    const WORD: &[u8] = b"still there?";
    let mut answer = [0; WORD.len()];
    stream.write_all(WORD)?;
    stream.read_exact(&mut answer)?;
    if answer == WORD { Ok(()) } else { Err(io::Error::other("another answer")) }
}
