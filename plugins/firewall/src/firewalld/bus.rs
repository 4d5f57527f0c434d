//! The system's bus: a connection, and calls that wait for their answers.

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
    /// How long it may take to answer a call.
    patience: Duration,
}

/// Why the bus, or who was called by it, did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum BusError {
    /// Nobody listens there, or does not let us in.
    #[error("connect to the D-Bus system bus at {path}")]
    Connect {
        /// The socket.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// The connection broke, or there was no answer for long.
    #[error("call {method} over D-Bus")]
    Broken {
        /// The method.
        method: String,
        /// Why.
        source: io::Error,
    },
    /// The answer was an error.
    #[error("call {method} over D-Bus: {text} ({name})")]
    Refused {
        /// The method, with its arguments.
        method: String,
        /// The error's name.
        name: String,
        /// What it says.
        text: String,
    },
}

/// Where the bus is, if the environment does not say.
const SOCKET: &str = "/run/dbus/system_bus_socket";
const ADDRESS: &str = "DBUS_SYSTEM_BUS_ADDRESS";

/// What programs usually wait for an answer.
const PATIENCE: Duration = Duration::from_secs(25);

const THE_BUS: Method<'_> = Method {
    destination: "org.freedesktop.DBus",
    path: "/org/freedesktop/DBus",
    interface: "org.freedesktop.DBus",
    name: "Hello",
};

impl Bus {
    /// Connects to the system's bus.
    pub(super) fn system() -> Result<Self, BusError> {
        Self::at(&socket(), PATIENCE)
    }

    fn at(path: &Path, patience: Duration) -> Result<Self, BusError> {
        let connect = || {
            let stream = connect(path, patience)?;
            stream.set_write_timeout(Some(patience))?;
            authenticate(&stream, Instant::now() + patience)?;
            Ok(Self { stream, serial: 0, patience })
        };
        let mut bus = connect()
            .map_err(|source| BusError::Connect { path: path.display().to_string(), source })?;
        bus.call(THE_BUS, &[])?;
        Ok(bus)
    }

    /// Calls a method with these texts, and waits for the answer.
    pub(super) fn call(
        &mut self,
        method: Method<'_>,
        arguments: &[&str],
    ) -> Result<Value, BusError> {
        let shown = || format!("{}.{}({})", method.interface, method.name, arguments.join(", "));
        self.serial += 1;
        let answer = self.ask(&call(self.serial, method, arguments)).map_err(|source| {
            // Who is silent once is not waited for again.
            let _ = self.stream.shutdown(Shutdown::Both);
            BusError::Broken { method: shown(), source }
        })?;
        match (answer.kind, answer.value) {
            (Kind::Error(name), Value::Text(text)) => {
                Err(BusError::Refused { method: shown(), name, text })
            }
            (Kind::Error(name), _) => {
                Err(BusError::Refused { method: shown(), name, text: "no reason given".into() })
            }
            (_, value) => Ok(value),
        }
    }

    /// Sends a call. What comes before its answer is news that nobody asked for.
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
    /// Whether it is firewalld's error of this code.
    pub(crate) fn is_about(&self, code: &str) -> bool {
        matches!(self, Self::Refused { text, .. } if text.starts_with(code))
    }

    /// Whether nobody of that name is there to be called.
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

/// The socket that the environment names, as other programs find it, or the usual one.
fn socket() -> PathBuf {
    let address = std::env::var(ADDRESS).unwrap_or_default();
    let mut paths = address.split(';').filter_map(|one| one.strip_prefix("unix:path="));
    let path = paths.find_map(|rest| rest.split(',').next());
    path.unwrap_or(SOCKET).into()
}

/// Connects, which waits as long as those are many who wait already.
fn connect(path: &Path, patience: Duration) -> io::Result<UnixStream> {
    let (connected, connection) = mpsc::channel();
    let path = path.to_owned();
    // Ends with the program, if not before.
    thread::spawn(move || connected.send(UnixStream::connect(path)));
    connection.recv_timeout(patience).unwrap_or_else(|_| Err(late()))
}

/// Says who we are, which the socket itself confirms, all in one go ("Authentication Protocol").
fn authenticate(mut stream: &UnixStream, deadline: Instant) -> io::Result<()> {
    stream.write_all(b"\0AUTH EXTERNAL\r\nDATA\r\nBEGIN\r\n")?;
    for expected in ["DATA", "OK"] {
        let line = read_line(stream, deadline)?;
        if line.split(' ').next() != Some(expected) {
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, line));
        }
    }
    Ok(())
}

/// Reads byte by byte, so that nothing of what comes after the line is lost.
fn read_line(stream: &UnixStream, deadline: Instant) -> io::Result<String> {
    const LENGTH_MAX: usize = 1024;
    let mut line = Vec::new();
    while !line.ends_with(b"\r\n") {
        let mut byte = [0];
        read(stream, &mut byte, deadline)?;
        line.extend(byte);
        if line.len() > LENGTH_MAX {
            return Err(io::ErrorKind::InvalidData.into());
        }
    }
    Ok(String::from_utf8_lossy(&line).trim_end().to_owned())
}

/// Reads all of it before the deadline, in however many pieces it comes.
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

/// A time that ran out has a text of its own: the kernel's says "try again".
fn or_late(error: io::Error) -> io::Error {
    if error.kind() == io::ErrorKind::WouldBlock { late() } else { error }
}

fn late() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "no answer in time")
}

#[cfg(test)]
mod tests;
