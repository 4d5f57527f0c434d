//! A bus that does not answer, or not with what was asked for, in threads of the tests.

use std::os::fd::AsRawFd;
use std::os::unix::net::UnixListener;

use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, listen, socket as new_socket,
};

use super::*;

const SHORT: Duration = Duration::from_millis(300);

/// A path for the socket of a test, which nobody has yet.
fn path_for(test: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("firewall-{test}-{}", std::process::id()));
    let _ = std::fs::remove_file(&path);
    path
}

/// What comes of calling a bus that goes on like this after its welcome.
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
    let error = bus.call(THE_BUS, &[]).unwrap_err();
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
fn news_do_not_put_off_the_end_of_waiting() {
    const SIGNAL: u8 = 4;
    let (mut bus, error) = called("news", |mut stream| {
        // All of it takes longer than the caller waits, each piece less.
        for byte in message(SIGNAL, &[]).repeat(4) {
            let _ = stream.write_all(&[byte]);
            thread::sleep(SHORT / 10);
        }
    });
    assert!(is_late(&error), "{error:?}");
    let again = bus.call(THE_BUS, &[]).unwrap_err();
    assert!(matches!(again, BusError::Broken { .. }) && !is_late(&again), "{again:?}");
}

#[test]
fn who_never_answers_is_not_waited_for_twice() {
    let (mut bus, error) = called("silence", |stream| {
        thread::sleep(SHORT * 100);
        drop(stream);
    });
    assert!(is_late(&error), "{error:?}");
    let again = bus.call(THE_BUS, &[]).unwrap_err();
    assert!(matches!(again, BusError::Broken { .. }) && !is_late(&again), "{again:?}");
}

#[test]
fn who_lets_nobody_in_is_not_waited_for_without_end() {
    let path = path_for("queue");
    let fd = new_socket(AddressFamily::Unix, SockType::Stream, SockFlag::empty(), None).unwrap();
    bind(fd.as_raw_fd(), &UnixAddr::new(&path).unwrap()).unwrap();
    listen(&fd, Backlog::new(0).unwrap()).unwrap();
    let _first = UnixStream::connect(&path).unwrap();
    let error = Bus::at(&path, SHORT).map(drop).unwrap_err();
    std::fs::remove_file(path).unwrap();
    assert!(is_late(&error), "{error:?}");
}
