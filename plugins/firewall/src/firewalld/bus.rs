//! A connection to the D-Bus system bus, with calls that wait for their answers.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use super::message::{FIXED, Kind, Message, Method, Value, call, rest_length};

/// A connection to the bus.
pub(super) struct Bus {
    stream: UnixStream,
    serial: u32,
    /// How long to wait for the answer to a call.
    patience: Duration,
}

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BusError {
    #[error("connect to the D-Bus system bus at {path}")]
    Connect { path: String, source: io::Error },
    /// The connection broke, or no answer came in time.
    #[error("call {method} over D-Bus")]
    Broken { method: String, source: io::Error },
    /// The answer is an error with this name and text.
    #[error("call {method} over D-Bus: {text} ({name})")]
    Refused { method: String, name: String, text: String },
}

/// The environment variable with the bus's address, and its usual socket.
const ADDRESS: &str = "DBUS_SYSTEM_BUS_ADDRESS";
const SOCKET: &str = "/run/dbus/system_bus_socket";

/// The usual timeout of D-Bus programs.
const PATIENCE: Duration = Duration::from_secs(25);

/// The first call of each connection.
const HELLO: Method<'_> = Method {
    destination: "org.freedesktop.DBus",
    path: "/org/freedesktop/DBus",
    interface: "org.freedesktop.DBus",
    name: "Hello",
};

impl Bus {
    pub(super) fn system() -> Result<Self, BusError> {
        Self::at(&socket(), PATIENCE)
    }

    fn at(path: &Path, patience: Duration) -> Result<Self, BusError> {
        let stream = connect(path, patience)
            .map_err(|source| BusError::Connect { path: path.display().to_string(), source })?;
        let mut bus = Self { stream, serial: 0, patience };
        bus.call(HELLO, &[])?;
        Ok(bus)
    }

    /// Calls a method with string arguments, and waits for the answer.
    pub(super) fn call(
        &mut self,
        method: Method<'_>,
        arguments: &[&str],
    ) -> Result<Value, BusError> {
        let shown = || format!("{}.{}({})", method.interface, method.name, arguments.join(", "));
        self.serial += 1;
        let answer = self.ask(&call(self.serial, method, arguments)).map_err(|source| {
            // Later calls fail at once.
            let _ = self.stream.shutdown(Shutdown::Both);
            BusError::Broken { method: shown(), source }
        })?;
        let Kind::Error(name) = answer.kind else { return Ok(answer.value) };
        let text = match answer.value {
            Value::String(text) => text,
            _ => "no reason given".into(),
        };
        Err(BusError::Refused { method: shown(), name, text })
    }

    /// Sends a call. Skips signals and other messages that come before its answer.
    fn ask(&mut self, call: &[u8]) -> io::Result<Message> {
        let deadline = Instant::now() + self.patience;
        self.stream.write_all(call).map_err(or_late)?;
        loop {
            let mut message = vec![0; FIXED];
            read(&self.stream, &mut message, deadline)?;
            let fixed = message.first_chunk().ok_or(io::ErrorKind::InvalidData)?;
            let rest = rest_length(fixed).ok_or(io::ErrorKind::InvalidData)?;
            message.resize(FIXED + rest, 0);
            read(&self.stream, &mut message[FIXED..], deadline)?;
            let message = Message::parse(&message).ok_or(io::ErrorKind::InvalidData)?;
            if message.kind != Kind::Other && message.answers == Some(self.serial) {
                return Ok(message);
            }
        }
    }
}

impl BusError {
    /// Whether it is firewalld's error with this code.
    pub(crate) fn is_about(&self, code: &str) -> bool {
        matches!(self, Self::Refused { text, .. } if text.starts_with(code))
    }

    /// Whether there is no bus, or no program has the name that was called.
    pub(super) fn is_absent(&self) -> bool {
        use io::ErrorKind::{ConnectionRefused, NotFound};
        match self {
            Self::Connect { source, .. } => [NotFound, ConnectionRefused].contains(&source.kind()),
            Self::Broken { .. } => false,
            Self::Refused { name, .. } => [
                "org.freedesktop.DBus.Error.ServiceUnknown",
                "org.freedesktop.DBus.Error.NameHasNoOwner",
            ]
            .contains(&name.as_str()),
        }
    }
}

/// The socket that the environment names, or the usual one.
fn socket() -> PathBuf {
    let address = std::env::var(ADDRESS).unwrap_or_default();
    let mut paths = address.split(';').filter_map(|one| one.strip_prefix("unix:path="));
    let path = paths.find_map(|rest| rest.split(',').next());
    path.unwrap_or(SOCKET).into()
}

/// Connects in a thread, because the kernel waits while the queue of the socket is full. Then authenticates.
fn connect(path: &Path, patience: Duration) -> io::Result<UnixStream> {
    let (connected, connection) = mpsc::channel();
    let path = path.to_owned();
    // The thread ends with the program at the latest.
    thread::spawn(move || connected.send(UnixStream::connect(path)));
    let stream = connection.recv_timeout(patience).unwrap_or_else(|_| Err(late()))?;
    stream.set_write_timeout(Some(patience))?;
    authenticate(&stream, Instant::now() + patience)?;
    Ok(stream)
}

/// Authenticates with the credentials of the socket (D-Bus specification, "Authentication Protocol").
fn authenticate(mut stream: &UnixStream, deadline: Instant) -> io::Result<()> {
    const LINE_MAX: usize = 1024;
    stream.write_all(b"\0AUTH EXTERNAL\r\nDATA\r\nBEGIN\r\n")?;
    for expected in ["DATA", "OK"] {
        let mut line = Vec::new();
        // One byte at a time, because messages follow the last line.
        while !line.ends_with(b"\r\n") && line.len() < LINE_MAX {
            let mut byte = [0];
            read(stream, &mut byte, deadline)?;
            line.extend(byte);
        }
        let line = String::from_utf8_lossy(&line);
        if line.split_whitespace().next() != Some(expected) {
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, line.trim_end()));
        }
    }
    Ok(())
}

/// Fills `to` before the deadline.
fn read(mut stream: &UnixStream, mut to: &mut [u8], deadline: Instant) -> io::Result<()> {
    while !to.is_empty() {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(late());
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(to) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(len) => to = &mut to[len..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(or_late(error)),
        }
    }
    Ok(())
}

/// Replaces the kernel's error for a timeout, whose text is "try again".
fn or_late(error: io::Error) -> io::Error {
    if error.kind() == io::ErrorKind::WouldBlock { late() } else { error }
}

fn late() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "no answer in time")
}

#[cfg(test)]
mod tests;
