//! A netlink socket: sends requests and reads their answers.
//!
//! The kernel answers a request before `send` returns, so reading an answer never waits: if there is none, it
//! was lost. Only [`Socket::wait_until`] waits, for messages of a multicast group. Every request asks for an
//! acknowledgement with the kernel's text (`include/uapi/linux/netlink.h`, `enum nlmsgerr_attrs`), which
//! netlink-packet-core does not read.

use std::cell::{Cell, RefCell};
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Instant;

use netlink_packet_core::{
    DecodeError, NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkBuffer, NetlinkDeserializable,
    NetlinkHeader, NetlinkMessage, NetlinkPayload, NetlinkSerializable, NlasIterator,
};
use netlink_sys::SocketAddr;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::MsgFlags;

use crate::error::Cause;
use crate::netns::ensure_home;

/// The families of netlink.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// rtnetlink(7): links, addresses, routes.
    Route,
    /// nfnetlink: nf_tables and conntrack.
    Netfilter,
}

/// A socket. It belongs to the network namespace in which it was opened.
#[derive(Debug)]
pub struct Socket {
    inner: netlink_sys::Socket,
    sequence: Cell<u32>,
    /// The buffer for answers.
    buffer: RefCell<Vec<u8>>,
}

/// One message of a reply.
#[derive(Clone, Copy, Debug)]
pub struct Reply<'a> {
    /// The sequence number of the request.
    pub sequence: u32,
    /// `nlmsg_type`.
    pub kind: u16,
    /// `nlmsg_flags`.
    pub flags: u16,
    /// The bytes after the header.
    pub payload: &'a [u8],
}

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_DUMP_INTR: u16 = 0x10;
const NLM_F_CAPPED: u16 = 0x100;
const NLM_F_ACK_TLVS: u16 = 0x200;
const NLMSGERR_ATTR_MSG: u16 = 1;
const NLMSG_HEADER: usize = 16;
/// Where the sequence number is in a message.
const SEQUENCE: Range<usize> = 8..12;

/// The initial size of the buffer: the largest part of a list that the kernel sends at once (`netlink_dump`).
/// A single object can be larger, such as a link with hundreds of alternative names.
const BUFFER: usize = 32 * 1024;

/// How often a list is read if the objects change at the same time.
const DUMPS: u32 = 8;

/// How often a request is sent if its answer is larger than the buffer.
const ENLARGEMENTS: u32 = 8;

impl Socket {
    /// Opens a socket in the namespace that this thread is in.
    pub fn open(protocol: Protocol) -> Result<Self, Cause> {
        ensure_home().map_err(|error| error.cause)?;
        let number = match protocol {
            Protocol::Route => netlink_sys::protocols::NETLINK_ROUTE,
            Protocol::Netfilter => netlink_sys::protocols::NETLINK_NETFILTER,
        };
        let inner = netlink_sys::Socket::new(number)?;
        inner.set_ext_ack(true)?;
        // Without a copy of the request in each error, acknowledgements are short.
        inner.set_cap_ack(true)?;
        if protocol == Protocol::Route {
            // The kernel applies the filter of a dump request, or refuses the request.
            inner.set_netlink_get_strict_chk(true)?;
        }
        inner.connect(&SocketAddr::new(0, 0))?;
        Ok(Self { inner, sequence: Cell::new(0), buffer: RefCell::default() })
    }

    /// Opens a socket that receives the messages of a multicast group.
    pub fn subscribe(protocol: Protocol, group: u32) -> Result<Self, Cause> {
        let socket = Self::open(protocol)?;
        socket.inner.add_membership(group)?;
        Ok(socket)
    }

    /// Waits for a message and discards it.
    ///
    /// Errors: ETIMEDOUT when the deadline has passed.
    pub fn wait_until(&self, deadline: Instant) -> Result<(), Cause> {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(self.as_fd(), PollFlags::POLLIN)], timeout) {
            Ok(0) => Err(Errno::ETIMEDOUT.into()),
            // After a signal, the caller looks again, too.
            Err(Errno::EINTR) => Ok(()),
            // The same if the kernel has dropped messages because there were too many.
            Ok(_) => match self.receive(|_| Ok(())) {
                Err(Failure::Io(error)) if is_lost(&error) => Ok(()),
                Err(Failure::Io(error)) => Err(error.into()),
                Err(Failure::Truncated(_)) | Ok(()) => Ok(()),
                Err(Failure::Read(cause)) => Err(cause),
            },
            Err(errno) => Err(errno.into()),
        }
    }

    /// The next sequence number. The first one is 1.
    pub fn next_sequence(&self) -> u32 {
        let next = self.sequence.get().wrapping_add(1).max(1);
        self.sequence.set(next);
        next
    }

    /// Writes the next sequence number into a message, and returns it.
    fn number(&self, message: &mut [u8]) -> u32 {
        let sequence = self.next_sequence();
        if let Some(at) = message.get_mut(SEQUENCE) {
            at.copy_from_slice(&sequence.to_ne_bytes());
        }
        sequence
    }

    /// Sends one request and returns the messages before its acknowledgement.
    pub fn request<R: NetlinkDeserializable>(
        &self,
        payload: impl NetlinkSerializable,
        flags: u16,
    ) -> Result<Vec<R>, Cause> {
        let mut bytes = encode(payload, NLM_F_REQUEST | NLM_F_ACK | flags)?;
        self.ask(&mut bytes, |reply| Ok(reply.decode()?)).map(|(messages, _)| messages)
    }

    /// Sends two requests in one send(2), so that a signal cannot end this process between them. Returns the
    /// outcome of each. The kernel carries out the second one even if it refuses the first.
    ///
    /// Errors: the outcome of one of them is not known.
    pub fn request_both<P: NetlinkSerializable>(
        &self,
        requests: [(P, u16); 2],
    ) -> Result<[Result<(), Cause>; 2], Cause> {
        let [first, second] = requests.map(|(payload, flags)| {
            let mut message = encode(payload, NLM_F_REQUEST | NLM_F_ACK | flags)?;
            let sequence = self.number(&mut message);
            Ok::<_, Cause>((message, sequence))
        });
        let ((mut bytes, first), (message, second)) = (first?, second?);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes.extend(message);
        self.send(&bytes)?;
        let (mut one, mut other) = (None, None);
        self.answers(|reply| {
            match reply.sequence {
                sequence if sequence == first => one = reply.outcome(),
                sequence if sequence == second => other = reply.outcome(),
                _ => {}
            }
            Ok(one.is_some() && other.is_some())
        })?;
        let unknown = || Err(Cause::Unanswered(Errno::ENOMSG));
        Ok([one.unwrap_or_else(unknown), other.unwrap_or_else(unknown)])
    }

    /// Lists objects. Starts again if they change at the same time.
    pub fn dump<R: NetlinkDeserializable>(
        &self,
        payload: impl NetlinkSerializable,
    ) -> Result<Vec<R>, Cause> {
        let mut bytes = encode(payload, NLM_F_REQUEST | NLM_F_DUMP)?;
        self.list(&mut bytes, DUMPS, |reply| Ok(reply.decode()?))
    }

    /// Sends the bytes of a request for a list, like [`Socket::ask`]. Sends it again if the list changed at
    /// the same time.
    ///
    /// Errors: `Cause::Unstable` if the list changed in each attempt.
    pub fn list<T>(
        &self,
        bytes: &mut [u8],
        attempts: u32,
        read: impl Fn(Reply<'_>) -> Result<T, Cause>,
    ) -> Result<Vec<T>, Cause> {
        for _ in 0..attempts {
            match self.ask(bytes, &read) {
                Ok((messages, false)) => return Ok(messages),
                Ok((_, true)) => {}
                // nf_tables reports a change by an error, the others by a flag.
                Err(cause) if cause.errno() == Some(Errno::EINTR) => {}
                Err(cause) => return Err(cause),
            }
        }
        Err(Cause::Unstable(attempts))
    }

    /// Sends the bytes of one request with the next sequence number, and reads the answer. Also returns
    /// whether a list changed at the same time.
    ///
    /// If the answer is larger than the buffer, the buffer grows and the request is sent again. This happens
    /// only to requests that read, because acknowledgements are short.
    pub fn ask<T>(
        &self,
        bytes: &mut [u8],
        read: impl Fn(Reply<'_>) -> Result<T, Cause>,
    ) -> Result<(Vec<T>, bool), Cause> {
        let mut attempt = 0;
        loop {
            let sequence = self.number(bytes);
            self.send(bytes)?;
            let (mut messages, mut interrupted) = (Vec::new(), false);
            let answered = self.answers(|reply| {
                if reply.sequence != sequence {
                    return Ok(false);
                }
                interrupted |= reply.flags & NLM_F_DUMP_INTR != 0;
                if let Some(outcome) = reply.outcome() {
                    return outcome.map(|()| true);
                }
                messages.push(read(reply)?);
                Ok(false)
            });
            attempt += 1;
            match answered {
                Err(Cause::Truncated(_)) if attempt < ENLARGEMENTS => {}
                answered => return answered.map(|()| (messages, interrupted)),
            }
        }
    }

    /// Sends one or more complete messages.
    ///
    /// Errors: those of send(2). Then the kernel has not read the messages.
    pub fn send(&self, bytes: &[u8]) -> Result<(), Cause> {
        loop {
            match self.inner.send(bytes, 0) {
                Err(error) if error.raw_os_error() == Some(Errno::EINTR as i32) => {}
                sent => return Ok(sent.map(drop)?),
            }
        }
    }

    /// Calls `each` with the messages of the kernel's answer, until it returns true for the last one.
    ///
    /// Errors: `Cause::Unanswered` if the last message is missing, because it did not fit into the socket's
    /// buffer. `Cause::Truncated` if a message did not fit into our buffer, which is larger afterwards.
    pub fn answers(
        &self,
        mut each: impl FnMut(Reply<'_>) -> Result<bool, Cause>,
    ) -> Result<(), Cause> {
        let (mut done, mut is_lost, mut truncated) = (false, false, None);
        while !done {
            let received = self.receive(|reply| {
                done |= each(reply)?;
                Ok(())
            });
            match received {
                Ok(()) => {}
                Err(Failure::Read(cause)) => return Err(cause),
                // Read the rest, so that the next request does not get it.
                Err(Failure::Truncated(length)) => truncated = Some(length),
                // The lost messages may belong to another request.
                Err(Failure::Io(error)) if self::is_lost(&error) && !is_lost => is_lost = true,
                Err(Failure::Io(_)) if truncated.is_some() => break,
                Err(Failure::Io(error)) => return Err(unanswered(&error, is_lost)),
            }
        }
        truncated.map_or(Ok(()), |length| Err(Cause::Truncated(length)))
    }

    /// Calls `each` with the messages of the next datagram. Does not wait for it.
    fn receive(&self, each: impl FnMut(Reply<'_>) -> Result<(), Cause>) -> Result<(), Failure> {
        let mut buffer = self.buffer.take();
        let received = self.fill(&mut buffer);
        let handed = received.and_then(|()| messages(&buffer, each).map_err(Failure::Read));
        self.buffer.replace(buffer);
        handed
    }

    fn fill(&self, buffer: &mut Vec<u8>) -> Result<(), Failure> {
        buffer.clear();
        buffer.reserve(BUFFER);
        let length = loop {
            // With MSG_TRUNC, the length is that of the whole datagram.
            match self.inner.recv(&mut &mut *buffer, RECEIVE) {
                Err(error) if error.raw_os_error() == Some(Errno::EINTR as i32) => {}
                received => break received.map_err(Failure::Io)?,
            }
        };
        if length > buffer.capacity() {
            buffer.clear();
            buffer.reserve(length);
            return Err(Failure::Truncated(length));
        }
        Ok(())
    }
}

/// Why a datagram was not read.
enum Failure {
    /// Nothing was received.
    Io(io::Error),
    /// The datagram is longer than the buffer: its length.
    Truncated(usize),
    /// The datagram has an unknown format, or reports an error.
    Read(Cause),
}

/// Whether the kernel dropped messages because the socket's buffer was full.
fn is_lost(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::ENOBUFS as i32)
}

/// Why there is no answer.
fn unanswered(error: &io::Error, is_lost: bool) -> Cause {
    let errno = error.raw_os_error().map_or(Errno::EIO, Errno::from_raw);
    Cause::Unanswered(match errno {
        Errno::EAGAIN if is_lost => Errno::ENOBUFS,
        // The kernel has no message for us.
        Errno::EAGAIN => Errno::ENOMSG,
        errno => errno,
    })
}

/// Calls `each` with the messages of a datagram.
fn messages(
    mut datagram: &[u8],
    mut each: impl FnMut(Reply<'_>) -> Result<(), Cause>,
) -> Result<(), Cause> {
    while !datagram.is_empty() {
        let message = NetlinkBuffer::new_checked(datagram)?;
        let length = message.length() as usize;
        each(Reply {
            sequence: message.sequence_number(),
            kind: message.message_type(),
            flags: message.flags(),
            payload: datagram.get(NLMSG_HEADER..length).unwrap_or_default(),
        })?;
        datagram = datagram.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(())
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inner.as_fd()
    }
}

impl Reply<'_> {
    /// The outcome of the request, if this is the last message of the answer.
    #[must_use]
    pub fn outcome(&self) -> Option<Result<(), Cause>> {
        if self.kind != NLMSG_ERROR && self.kind != NLMSG_DONE {
            return None;
        }
        let code = self.payload.first_chunk().map_or(0, |bytes| i32::from_ne_bytes(*bytes));
        if code == 0 {
            return Some(Ok(()));
        }
        let errno = Errno::from_raw(code.saturating_neg());
        Some(Err(Cause::Refused { errno, text: self.extended_text() }))
    }

    /// The kernel's text. The attributes come after the code. In an error, the request comes between them:
    /// its header if the message is capped, otherwise all of it.
    fn extended_text(&self) -> Option<String> {
        if self.flags & NLM_F_ACK_TLVS == 0 {
            return None;
        }
        let mut rest = self.payload.get(4..)?;
        if self.kind == NLMSG_ERROR {
            let repeated = if self.flags & NLM_F_CAPPED == 0 {
                u32::from_ne_bytes(*rest.first_chunk()?) as usize
            } else {
                NLMSG_HEADER
            };
            rest = rest.get(repeated.next_multiple_of(4)..)?;
        }
        let text = NlasIterator::new(rest)
            .filter_map(Result::ok)
            .find(|attribute| attribute.kind() == NLMSGERR_ATTR_MSG)?;
        let text = text.value().split(|byte| *byte == 0).next()?;
        Some(String::from_utf8_lossy(text).into_owned())
    }

    /// Decodes the payload.
    pub fn decode<T: NetlinkDeserializable>(&self) -> Result<T, DecodeError> {
        let mut header = NetlinkHeader::default();
        header.message_type = self.kind;
        header.flags = self.flags;
        header.sequence_number = self.sequence;
        T::deserialize(&header, self.payload).map_err(|error| DecodeError::from(error.to_string()))
    }
}

/// The longest message, which is also the longest attribute: its length has 16 bits. Only a name that the
/// kernel does not accept needs more, and netlink-packet-core panics if it writes such an attribute.
pub(crate) const LONGEST: usize = u16::MAX as usize;

/// The bytes of one message with the sequence number 0.
///
/// Errors: EMSGSIZE if it is longer than [`LONGEST`].
fn encode<T: NetlinkSerializable>(payload: T, flags: u16) -> Result<Vec<u8>, Cause> {
    if payload.buffer_len() > LONGEST {
        return Err(Errno::EMSGSIZE.into());
    }
    let mut header = NetlinkHeader::default();
    header.flags = flags;
    let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(payload));
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    Ok(bytes)
}

/// Flags of recv(2).
const RECEIVE: i32 = MsgFlags::MSG_TRUNC.union(MsgFlags::MSG_DONTWAIT).bits();

#[cfg(test)]
mod tests;
