//! A blocking netlink socket: a request goes out, and its answer is waited for.
//!
//! A process of ours does one thing and ends, so there is nothing to do while the kernel works;
//! and the kernel answers a request before its `send` returns. Every request asks for an
//! acknowledgement, with the extended error text that netlink-packet-core passes over
//! (`include/uapi/linux/netlink.h`, `enum nlmsgerr_attrs`).

use std::cell::Cell;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Instant;

use netlink_packet_core::{
    DecodeError, NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkBuffer, NetlinkDeserializable,
    NetlinkHeader, NetlinkMessage, NetlinkPayload, NetlinkSerializable, NlasIterator,
};
use netlink_sys::SocketAddr;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::error::Cause;

/// The families of netlink that are spoken here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// rtnetlink(7): links, addresses, routes.
    Route,
    /// nfnetlink: nf_tables and conntrack.
    Netfilter,
}

/// A socket, which belongs to the network namespace that it was opened in.
#[derive(Debug)]
pub struct Socket {
    inner: netlink_sys::Socket,
    sequence: Cell<u32>,
}

/// One message of a reply: what it is an answer to, its type, flags and payload.
#[derive(Clone, Copy, Debug)]
pub struct Reply<'a> {
    /// The sequence number of the request.
    pub sequence: u32,
    /// `nlmsg_type`.
    pub kind: u16,
    /// `nlmsg_flags`.
    pub flags: u16,
    /// The bytes behind the header.
    pub payload: &'a [u8],
}

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_DUMP_INTR: u16 = 0x10;
const NLM_F_CAPPED: u16 = 0x100;
const NLM_F_ACK_TLVS: u16 = 0x200;
const NLMSGERR_ATTR_MSG: u16 = 1;
const NLMSG_HEADER: usize = 16;

/// The kernel's dumps fill at most 32 KiB, whatever room there is (`netlink_dump`).
const BUFFER: usize = 32 * 1024;

/// Listing is begun anew this often if the objects change meanwhile.
const DUMPS: u32 = 8;

impl Socket {
    /// Opens a socket in the namespace that this thread is in.
    pub fn open(protocol: Protocol) -> Result<Self, Cause> {
        let number = match protocol {
            Protocol::Route => netlink_sys::protocols::NETLINK_ROUTE,
            Protocol::Netfilter => netlink_sys::protocols::NETLINK_NETFILTER,
        };
        let inner = netlink_sys::Socket::new(number)?;
        inner.set_ext_ack(true)?;
        // Without the request's copy in each error, a failed batch cannot outgrow the buffer.
        inner.set_cap_ack(true)?;
        if protocol == Protocol::Route {
            // Filters in dump requests are honoured, or refused.
            inner.set_netlink_get_strict_chk(true)?;
        }
        inner.connect(&SocketAddr::new(0, 0))?;
        Ok(Self { inner, sequence: Cell::new(0) })
    }

    /// Opens a socket that hears what the kernel tells a multicast group.
    pub fn subscribe(protocol: Protocol, group: u32) -> Result<Self, Cause> {
        let socket = Self::open(protocol)?;
        socket.inner.add_membership(group)?;
        Ok(socket)
    }

    /// Waits until there is something to receive, and takes it unread.
    ///
    /// Errors: ETIMEDOUT when the deadline has passed.
    pub fn wait_until(&self, deadline: Instant) -> Result<(), Cause> {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(self.as_fd(), PollFlags::POLLIN)], timeout) {
            Ok(0) => Err(Errno::ETIMEDOUT.into()),
            // A signal is as good a reason to look again as an event.
            Err(Errno::EINTR) => Ok(()),
            Ok(_) => self.receive(|_| Ok(())),
            Err(errno) => Err(errno.into()),
        }
    }

    /// The next sequence number, from 1 on.
    pub fn next_sequence(&self) -> u32 {
        let next = self.sequence.get().wrapping_add(1).max(1);
        self.sequence.set(next);
        next
    }

    /// Sends one request and waits until it was carried out; returns the messages that came
    /// before the acknowledgement.
    pub fn request<R: NetlinkDeserializable>(
        &self,
        payload: impl NetlinkSerializable,
        flags: u16,
    ) -> Result<Vec<R>, Cause> {
        let sequence = self.next_sequence();
        self.send(&encode(payload, NLM_F_REQUEST | NLM_F_ACK | flags, sequence))?;
        self.collect(sequence).map(|(messages, _)| messages)
    }

    /// Sends two requests in one send(2), so that a signal cannot end this process between them, and waits
    /// until both were carried out. Returns how each of them ended; the kernel also carries out the second
    /// one after it has refused the first.
    ///
    /// Errors: how one of them ended is not known.
    pub fn request_both<P: NetlinkSerializable + NetlinkDeserializable>(
        &self,
        requests: [(P, u16); 2],
    ) -> Result<[Result<(), Cause>; 2], Cause> {
        let mut bytes = Vec::new();
        let [first, second] = requests.map(|(payload, flags)| {
            let sequence = self.next_sequence();
            bytes.extend(encode(payload, NLM_F_REQUEST | NLM_F_ACK | flags, sequence));
            bytes.resize(bytes.len().next_multiple_of(4), 0);
            sequence
        });
        self.send(&bytes)?;
        let outcome = |sequence| match self.collect::<P>(sequence) {
            Err(cause @ Cause::Refused { .. }) => Ok(Err(cause)),
            collected => collected.map(|_| Ok(())),
        };
        Ok([outcome(first)?, outcome(second)?])
    }

    /// Lists objects; begins anew if they changed meanwhile.
    pub fn dump<R: NetlinkDeserializable>(
        &self,
        payload: &(impl NetlinkSerializable + Clone),
    ) -> Result<Vec<R>, Cause> {
        for _ in 0..DUMPS {
            let sequence = self.next_sequence();
            self.send(&encode(payload.clone(), NLM_F_REQUEST | NLM_F_DUMP, sequence))?;
            let (messages, interrupted) = match self.collect(sequence) {
                // nf_tables says so by an error, the others by a flag.
                Err(cause) if cause.errno() == Some(Errno::EINTR) => continue,
                collected => collected?,
            };
            if !interrupted {
                return Ok(messages);
            }
        }
        Err(Cause::Unstable(DUMPS))
    }

    /// Sends bytes that hold one or more whole messages.
    pub fn send(&self, bytes: &[u8]) -> Result<(), Cause> {
        loop {
            match self.inner.send(bytes, 0) {
                Err(error) if error.raw_os_error() == Some(Errno::EINTR as i32) => {}
                sent => return Ok(sent.map(drop)?),
            }
        }
    }

    /// Waits for one datagram and hands its messages, one by one, to `each`.
    pub fn receive<E: From<Cause>>(
        &self,
        mut each: impl FnMut(Reply<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut buffer: Vec<u8> = Vec::with_capacity(BUFFER);
        let length = loop {
            // With MSG_TRUNC the length is that of the datagram, not of the part that fitted.
            match self.inner.recv(&mut &mut buffer, MSG_TRUNC) {
                Err(error) if error.raw_os_error() == Some(Errno::EINTR as i32) => {}
                received => break received.map_err(Cause::from)?,
            }
        };
        if length > BUFFER {
            return Err(Cause::Truncated(length).into());
        }
        let mut rest = buffer.as_slice();
        while !rest.is_empty() {
            let message = NetlinkBuffer::new_checked(rest).map_err(Cause::from)?;
            let length = message.length() as usize;
            each(Reply {
                sequence: message.sequence_number(),
                kind: message.message_type(),
                flags: message.flags(),
                payload: rest.get(NLMSG_HEADER..length).unwrap_or_default(),
            })?;
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
        Ok(())
    }

    /// Reads until the request is acknowledged, refused or its list is complete. Also says
    /// whether the list changed meanwhile.
    fn collect<T: NetlinkDeserializable>(&self, sequence: u32) -> Result<(Vec<T>, bool), Cause> {
        let (mut messages, mut interrupted, mut done) = (Vec::new(), false, false);
        while !done {
            self.receive(|reply| {
                if reply.sequence != sequence {
                    return Ok(());
                }
                interrupted |= reply.flags & NLM_F_DUMP_INTR != 0;
                if let Some(outcome) = reply.outcome() {
                    done = true;
                    return outcome;
                }
                messages.push(reply.decode()?);
                Ok(())
            })?;
        }
        Ok((messages, interrupted))
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inner.as_fd()
    }
}

impl Reply<'_> {
    /// How the request ended, if this message says so: acknowledged, refused, or listed to the end.
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

    /// The attributes come behind the code and, in an error, behind what is repeated of the
    /// request: its header if capped, else all of it.
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

    /// Reads the payload as a message of a family.
    pub fn decode<T: NetlinkDeserializable>(&self) -> Result<T, DecodeError> {
        let mut header = NetlinkHeader::default();
        header.message_type = self.kind;
        header.flags = self.flags;
        header.sequence_number = self.sequence;
        T::deserialize(&header, self.payload).map_err(|error| DecodeError::from(error.to_string()))
    }
}

/// The bytes of one message.
pub fn encode<T: NetlinkSerializable>(payload: T, flags: u16, sequence: u32) -> Vec<u8> {
    let mut header = NetlinkHeader::default();
    header.flags = flags;
    header.sequence_number = sequence;
    let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(payload));
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    bytes
}

/// `MSG_TRUNC` of recv(2), which netlink-sys takes as a number.
const MSG_TRUNC: i32 = nix::sys::socket::MsgFlags::MSG_TRUNC.bits();

#[cfg(test)]
mod tests;
