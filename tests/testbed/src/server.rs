//! A TCP server.

use std::io::Write;
use std::net::TcpListener;
use std::thread;

/// Answers each connection to an address of this thread's namespace with a name and the address of the
/// client.
#[track_caller]
pub fn serve(address: &str, name: &str) {
    let (listener, name) = (TcpListener::bind(address).unwrap(), name.to_owned());
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let peer = stream.peer_addr().unwrap().ip().to_canonical();
            let _ = write!(stream, "{name} {peer}");
        }
    });
}
