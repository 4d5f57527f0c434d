//! Buses in threads of the tests, which do not answer, or send something else.

use std::os::fd::AsRawFd;
use std::os::unix::net::UnixListener;

use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, listen, socket as new_socket,
};

use super::*;

const SHORT: Duration = Duration::from_millis(300);

/// An unused path for the socket of a test.
fn path_for(test: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("firewall-{test}-{}", std::process::id()));
    let _ = std::fs::remove_file(&path);
    path
}

/// Calls a bus that continues with `goes_on` after the first answer. Returns the error of the call.
fn called(test: &str, goes_on: impl FnOnce(UnixStream) + Send + 'static) -> (Bus, BusError) {
    let path = path_for(test);
    let listener = UnixListener::bind(&path).unwrap();
    let serve = move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut byte = [0];
        let mut heard = Vec::new();
        while !heard.ends_with(b"BEGIN\r\n") {
            stream.read_exact(&mut byte).unwrap();
            heard.extend(byte);
        }
        stream.write_all(b"DATA\r\nOK 0123456789abcdef0123456789abcdef\r\n").unwrap();
        stream.write_all(&message(2, &[5, 1, b'u', 0, 1, 0, 0, 0])).unwrap();
        goes_on(stream);
    };
    thread::spawn(serve);
    let mut bus = Bus::at(&path, SHORT).unwrap();
    std::fs::remove_file(path).unwrap();
    let error = bus.call(HELLO, &[]).unwrap_err();
    (bus, error)
}

/// A message without a body.
fn message(kind: u8, fields: &[u8]) -> Vec<u8> {
    let length = u8::try_from(fields.len()).unwrap();
    [&[b'l', kind, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, length, 0, 0, 0], fields].concat()
}

fn is_late(error: &BusError) -> bool {
    matches!(error, BusError::Connect { source, .. } | BusError::Broken { source, .. }
        if source.kind() == io::ErrorKind::TimedOut)
}

#[test]
fn signals_do_not_extend_the_timeout() {
    const SIGNAL: u8 = 4;
    let (mut bus, error) = called("news", |mut stream| {
        // The whole message takes longer than the caller waits, and each byte less.
        for byte in message(SIGNAL, &[]).repeat(4) {
            let _ = stream.write_all(&[byte]);
            thread::sleep(SHORT / 10);
        }
    });
    assert!(is_late(&error), "{error:?}");
    let again = bus.call(HELLO, &[]).unwrap_err();
    assert!(matches!(again, BusError::Broken { .. }) && !is_late(&again), "{again:?}");
}

#[test]
fn a_call_after_a_timeout_fails_at_once() {
    let (mut bus, error) = called("silence", |stream| {
        thread::sleep(SHORT * 100);
        drop(stream);
    });
    assert!(is_late(&error), "{error:?}");
    let again = bus.call(HELLO, &[]).unwrap_err();
    assert!(matches!(again, BusError::Broken { .. }) && !is_late(&again), "{again:?}");
}

#[test]
fn connecting_to_a_full_queue_has_a_timeout() {
    let path = path_for("queue");
    let fd = new_socket(AddressFamily::Unix, SockType::Stream, SockFlag::empty(), None).unwrap();
    bind(fd.as_raw_fd(), &UnixAddr::new(&path).unwrap()).unwrap();
    listen(&fd, Backlog::new(0).unwrap()).unwrap();
    let _first = UnixStream::connect(&path).unwrap();
    let error = Bus::at(&path, SHORT).map(drop).unwrap_err();
    std::fs::remove_file(path).unwrap();
    assert!(is_late(&error), "{error:?}");
}
