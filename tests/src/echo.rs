//! Small servers inside a namespace, and clients that ask them; they use only the standard library.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::panic::resume_unwind;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::server::Server;
use crate::vm::patience;
use crate::world::World;

/// How long a client waits for an answer that should come.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long a client waits if no answer is expected.
const IMPATIENCE: Duration = Duration::from_millis(400);

/// An HTTP server that answers each request with its own name and the client's address.
#[derive(Debug)]
pub struct TcpEcho {
    _server: Server<TcpListener>,
}

impl TcpEcho {
    /// Serves in namespace `netns` until dropped. `address` may be `0.0.0.0:80` or `[::]:80`.
    #[must_use]
    pub fn start(world: &World, netns: &str, address: &str, name: &str) -> Self {
        let listener = world.inside(netns, || TcpListener::bind(address));
        let listener = listener.unwrap_or_else(|e| panic!("listen on {address}: {e}"));
        let name = name.to_owned();
        let serve = move |listener: &TcpListener| {
            while let Ok((stream, peer)) = listener.accept() {
                // A client that has closed the connection reports that itself.
                let _ = answer(stream, &name, peer);
            }
        };
        Self { _server: Server::start(listener, serve) }
    }
}

fn answer(mut stream: TcpStream, name: &str, peer: SocketAddr) -> io::Result<()> {
    stream.set_read_timeout(Some(patience(PATIENCE)))?;
    let mut request = Vec::new();
    let mut part = [0; 1024];
    while !request.ends_with(b"\r\n\r\n") {
        match stream.read(&mut part)? {
            0 => break,
            n => request.extend_from_slice(&part[..n]),
        }
    }
    let body = format!("{name} {}", peer.ip().to_canonical());
    let length = body.len();
    write!(
        stream,
        "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )?;
    stream.shutdown(Shutdown::Write)
}

/// The datagram that [`fetch_udp`] sends.
const QUESTION: &str = "hello";

/// A UDP server that answers each datagram with its own name, the client's address and the datagram.
#[derive(Debug)]
pub struct UdpEcho {
    _server: Server<UdpSocket>,
}

impl UdpEcho {
    /// Serves in namespace `netns` until dropped.
    #[must_use]
    pub fn start(world: &World, netns: &str, address: &str, name: &str) -> Self {
        let socket = world.inside(netns, || UdpSocket::bind(address));
        let socket = socket.unwrap_or_else(|e| panic!("bind {address}: {e}"));
        let name = name.to_owned();
        let serve = move |socket: &UdpSocket| {
            let mut datagram = [0; 512];
            while let Ok((length @ 1.., peer)) = socket.recv_from(&mut datagram) {
                let question = String::from_utf8_lossy(&datagram[..length]);
                let text = format!("{name} {} {question}", peer.ip().to_canonical());
                let _ = socket.send_to(text.as_bytes(), peer);
            }
        };
        Self { _server: Server::start(socket, serve) }
    }
}

/// Whether a TCP connection is accepted soon, for a port that should not answer.
pub fn answers(world: &World, netns: &str, address: &str) -> bool {
    let address: SocketAddr = address.parse().expect("an address and a port");
    world.inside(netns, || TcpStream::connect_timeout(&address, patience(IMPATIENCE)).is_ok())
}

/// The answer of an HTTP server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// The status, such as 404.
    pub status: u16,
    /// The page.
    pub body: String,
}

/// Requests a page from namespace `netns`: "NAME CLIENT" as the server saw it.
pub fn fetch(world: &World, netns: &str, address: &str) -> io::Result<String> {
    request(world, netns, address, address).map(|response| response.body)
}

/// Requests a page of `host` from namespace `netns`.
pub fn request(world: &World, netns: &str, address: &str, host: &str) -> io::Result<Response> {
    let address: SocketAddr = address.parse().map_err(io::Error::other)?;
    world.inside(netns, || {
        let mut stream = TcpStream::connect_timeout(&address, patience(PATIENCE))?;
        stream.set_read_timeout(Some(patience(PATIENCE)))?;
        write!(stream, "GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")?;
        let mut response = String::new();
        stream.read_to_string(&mut response)?;
        let status = response.split(' ').nth(1).and_then(|status| status.parse().ok());
        let body = response.split_once("\r\n\r\n").map(|(_, body)| body.to_owned());
        let whole = status.zip(body).map(|(status, body)| Response { status, body });
        whole.ok_or_else(|| io::Error::other(format!("no HTTP response: {response:?}")))
    })
}

/// Sends a datagram from namespace `netns` and returns the answer, "NAME CLIENT"; tries twice.
///
/// `port` is the client's own: two calls with the same port belong to the same flow.
pub fn fetch_udp(world: &World, netns: &str, address: &str, port: u16) -> io::Result<String> {
    let address: SocketAddr = address.parse().map_err(io::Error::other)?;
    let own = if address.is_ipv4() { format!("0.0.0.0:{port}") } else { format!("[::]:{port}") };
    world.inside(netns, || {
        let socket = bind_again(&own)?;
        socket.set_read_timeout(Some(patience(IMPATIENCE)))?;
        socket.connect(address)?;
        let mut answer = [0; 512];
        let mut ask = || {
            socket.send(QUESTION.as_bytes())?;
            socket.recv(&mut answer)
        };
        // The first datagram may be lost while the neighbour's address is being resolved.
        let length = ask().or_else(|_| ask())?;
        let answer = String::from_utf8_lossy(&answer[..length]);
        Ok(answer.trim_end_matches(QUESTION).trim_end().to_owned())
    })
}

/// Repeats [`fetch_udp`] until there is an answer, at most 20 times.
///
/// For the first datagram: while an IPv6 address of the node is in duplicate address detection, the
/// node does not resolve neighbours with it. A lost datagram is repeated after a second.
pub fn fetch_udp_at_last(
    world: &World,
    netns: &str,
    address: &str,
    port: u16,
) -> io::Result<String> {
    let ask = || fetch_udp(world, netns, address, port);
    (1..20).fold(ask(), |answer, _| answer.or_else(|_| ask()))
}

/// Binds a port that was closed just before. A child of another thread that has not called exec yet
/// may still have it open.
fn bind_again(own: &str) -> io::Result<UdpSocket> {
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        match UdpSocket::bind(own) {
            Err(error) if error.kind() == ErrorKind::AddrInUse && Instant::now() < deadline => {
                thread::sleep(Duration::from_millis(5));
            }
            bound => return bound,
        }
    }
}

/// A client that keeps sending numbered datagrams from one socket, whether they are answered or not.
#[derive(Debug)]
pub struct UdpStream {
    sent: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<BTreeMap<usize, String>>>,
}

impl UdpStream {
    /// Sends from namespace `netns` every two milliseconds.
    #[must_use]
    pub fn start(world: &World, netns: &str, address: &str) -> Self {
        let own = if address.starts_with('[') { "[::]:0" } else { "0.0.0.0:0" };
        let socket = world.inside(netns, || {
            let socket = UdpSocket::bind(own)?;
            socket.set_nonblocking(true)?;
            socket.connect(address).map(|()| socket)
        });
        let socket = socket.unwrap_or_else(|e| panic!("a socket for {address}: {e}"));
        let (sent, stop) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let (counter, end) = (Arc::clone(&sent), Arc::clone(&stop));
        let thread = thread::spawn(move || {
            let mut answers = BTreeMap::new();
            while !end.load(Ordering::SeqCst) {
                let number = counter.fetch_add(1, Ordering::SeqCst);
                // While no server listens, the kernel reports that at each of these calls.
                let _ = socket.send(number.to_string().as_bytes());
                thread::sleep(Duration::from_millis(2));
                collect(&socket, &mut answers);
            }
            // The last ones may be late on a busy machine.
            let _ = socket.set_nonblocking(false);
            let _ = socket.set_read_timeout(Some(IMPATIENCE));
            collect(&socket, &mut answers);
            answers
        });
        Self { sent, stop, thread: Some(thread) }
    }

    /// The number of the next datagram.
    #[must_use]
    pub fn next(&self) -> usize {
        self.sent.load(Ordering::SeqCst)
    }

    /// Waits until this many more datagrams have been sent.
    pub fn send_more(&self, count: usize) {
        let last = self.next() + count;
        while self.next() < last {
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Ends the stream; returns who answered which datagram, "NAME CLIENT" by number.
    #[must_use]
    pub fn end(mut self) -> BTreeMap<usize, String> {
        self.stop.store(true, Ordering::SeqCst);
        let thread = self.thread.take().expect("the stream ends once");
        thread.join().unwrap_or_else(|panic| resume_unwind(panic))
    }
}

impl Drop for UdpStream {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
    }
}

/// Reads the answers that have arrived.
fn collect(socket: &UdpSocket, answers: &mut BTreeMap<usize, String>) {
    let mut datagram = [0; 512];
    while let Ok(length) = socket.recv(&mut datagram) {
        let text = String::from_utf8_lossy(&datagram[..length]);
        let (who, number) = text.rsplit_once(' ').expect("an answer ends with its question");
        answers.insert(number.parse().expect("the questions are numbers"), who.to_owned());
    }
}
