//! nfnetlink, the netlink family of netfilter. The kernel makes all changes of a batch to `nf_tables`, or
//! none (`net/netfilter/nfnetlink.c`).

use netlink_packet_core::{
    DefaultNla, Emitable, NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkSerializable,
};
use netlink_packet_netfilter::nftables::{GenMessage, NfTablesMessage};
use netlink_packet_netfilter::none::ControlMessage;
use netlink_packet_netfilter::{
    NetfilterHeader, NetfilterMessage, NetfilterMessageInner, NetfilterProtoFamily,
};
use nix::errno::Errno;
use nix::sys::socket::{
    setsockopt,
    sockopt::{SndBuf, SndBufForce},
};

use crate::error::{Cause, Error, Result};
use crate::family::Family;
use crate::netlink::{LONGEST, Protocol, Reply, Socket};
use crate::nft::TableFamily;
use crate::nft::attribute::{attribute, be_u32};

/// A socket of netfilter. It belongs to the network namespace in which it was opened.
///
/// Closing it after a commit that deleted something waits until the kernel has freed the memory. Make other
/// slow requests first.
#[derive(Debug)]
pub struct Nfnetlink {
    socket: Socket,
}

/// Changes that are made together.
#[derive(Debug, Default)]
pub struct Batch {
    pub(crate) requests: Vec<Request>,
}

/// A message to the kernel.
#[derive(Debug)]
pub(crate) struct Request {
    /// Subsystem and message type.
    pub(crate) kind: u16,
    /// `NLM_F_*`, without `NLM_F_REQUEST`.
    flags: u16,
    /// nfgenmsg and attributes. Empty if they are longer than [`LONGEST`].
    pub(crate) payload: Vec<u8>,
    /// The operation and its object, for errors.
    what: String,
}

const NFNL_MSG_BATCH_BEGIN: u8 = 16;
const NFNL_BATCH_GENID: u16 = 1;
const NFTA_GEN_ID: u16 = 1;
const NFNL_SUBSYS_NFTABLES: u16 = 10;
const NLMSG_HEADER: usize = 16;
const NFGENMSG: usize = 4;

/// How often a transaction or a list is tried if another program changes the tables at the same time.
const ATTEMPTS: u32 = 200;

/// The longest message that fits in the default buffer of a socket (`net.core.wmem_default`).
const DEFAULT_SEND_BUFFER: usize = 200 * 1024;

impl Nfnetlink {
    /// Opens a socket in the namespace of this thread.
    pub fn open() -> Result<Self> {
        let socket = Socket::open(Protocol::Netfilter)
            .map_err(|cause| Error::new("open a netfilter socket", cause))?;
        Ok(Self { socket })
    }

    /// Makes all the changes of a batch, or none of them.
    ///
    /// An error names the first message that the kernel refused. Changes that depend on what was read need a
    /// [transaction](Self::transaction).
    pub fn commit(&self, batch: &Batch) -> Result<()> {
        self.send(batch, None, true)
    }

    /// Makes the kernel check a batch without changing anything (`nft --check`).
    pub fn try_out(&self, batch: &Batch) -> Result<()> {
        self.send(batch, None, false)
    }

    /// Commits the batch that `build` returns. If another program has changed the tables since `build` began,
    /// calls it again.
    pub fn transaction<E: From<Error>>(
        &self,
        mut build: impl FnMut(&Self) -> std::result::Result<Batch, E>,
    ) -> std::result::Result<(), E> {
        for _ in 0..ATTEMPTS {
            let generation = self.generation()?;
            let batch = build(self)?;
            match self.send(&batch, Some(generation), true) {
                Err(error) if error.errno() == Some(Errno::ERESTART) => {}
                done => return Ok(done?),
            }
        }
        Err(Error::new("change the nf_tables ruleset", Cause::Unstable(ATTEMPTS)).into())
    }

    /// The number of the ruleset's current state.
    pub fn generation(&self) -> Result<u32> {
        let message = NfTablesMessage::GetGen(GenMessage { attributes: Vec::new() });
        let what = || "read the generation of the nf_tables ruleset".to_owned();
        let reply = self.get(NetfilterProtoFamily::Unspec, message, what)?;
        let id = reply.and_then(|body| be_u32(attribute(&body, NFTA_GEN_ID)?));
        id.ok_or_else(|| Error::new(what(), Errno::EBADMSG))
    }

    /// Whether this kernel has `nf_tables`. It loads the module if it must.
    pub fn has_nf_tables(&self) -> Result<bool> {
        match self.generation() {
            Err(error) if is_unknown_subsystem(&error) => Ok(false),
            asked => asked.map(|_| true),
        }
    }

    /// Sends a batch. The kernel checks a batch without an end, and discards it.
    fn send(&self, batch: &Batch, generation: Option<u32>, with_end: bool) -> Result<()> {
        let Some((last, others)) = batch.requests.split_last() else { return Ok(()) };
        let begin = Request::batch(NFNL_MSG_BATCH_BEGIN, generation);
        let end = Request::batch(NFNL_MSG_BATCH_BEGIN + 1, None);
        let sequence = self.socket.next_sequence();
        let mut bytes = Vec::new();
        let mut append = |request: &Request, flags, sequence| {
            let appended = request.append_to(&mut bytes, flags, sequence);
            appended.map_err(|cause| Error::new(request.what.as_str(), cause))
        };
        append(&begin, 0, sequence)?;
        for request in others {
            append(request, 0, self.socket.next_sequence())?;
        }
        let acknowledged = self.socket.next_sequence();
        append(last, NLM_F_ACK, acknowledged)?;
        if with_end {
            append(&end, 0, self.socket.next_sequence())?;
        }

        let what = |at: u32| {
            let index = at.wrapping_sub(sequence).wrapping_sub(1) as usize;
            let request = batch.requests.get(index);
            request.map_or("commit to the nf_tables ruleset", |request| request.what.as_str())
        };
        if bytes.len() > DEFAULT_SEND_BUFFER {
            let size = 2 * bytes.len();
            // Root of a user namespace cannot exceed `net.core.wmem_max`.
            let enlarged = match setsockopt(&self.socket, SndBufForce, &size) {
                Err(Errno::EPERM) => setsockopt(&self.socket, SndBuf, &size),
                forced => forced,
            };
            enlarged.map_err(|errno| Error::new("enlarge the netfilter socket's buffer", errno))?;
        }
        self.socket.send(&bytes).map_err(|cause| Error::new(what(sequence), cause))?;
        self.collect(sequence, acknowledged, what)
    }

    /// Reads answers until that of the last message, or that of the whole batch. Returns the first error,
    /// because the others are usually its consequences.
    ///
    /// Every refused message has an answer. If they do not fit in the socket's buffer, the kernel drops the
    /// later ones, including that of the last message.
    fn collect<'a>(&self, begin: u32, last: u32, what: impl Fn(u32) -> &'a str) -> Result<()> {
        let mut first = Ok(());
        let answered = self.socket.answers(|reply| {
            let position = reply.sequence.wrapping_sub(begin);
            if position > last.wrapping_sub(begin) {
                return Ok(false);
            }
            let Some(outcome) = reply.outcome() else { return Ok(false) };
            if first.is_ok() {
                first = outcome.map_err(|cause| Error::new(what(reply.sequence), cause));
            }
            Ok(reply.sequence == begin || reply.sequence == last)
        });
        first?;
        answered.map_err(|cause| Error::new(what(begin), cause))
    }

    /// The attributes of one object. None if it does not exist.
    pub(crate) fn get(
        &self,
        family: impl Into<NetfilterProtoFamily>,
        message: impl Into<NetfilterMessageInner>,
        what: impl Fn() -> String,
    ) -> Result<Option<Vec<u8>>> {
        let bodies = self.ask(family.into(), message.into(), what)?;
        Ok(bodies.and_then(|bodies| bodies.into_iter().next()))
    }

    /// Carries out one request outside of any batch. False if its object does not exist.
    pub(crate) fn execute(
        &self,
        family: impl Into<NetfilterProtoFamily>,
        message: impl Into<NetfilterMessageInner>,
        what: impl Fn() -> String,
    ) -> Result<bool> {
        Ok(self.ask(family.into(), message.into(), what)?.is_some())
    }

    /// The attributes of all objects. Starts again if they change at the same time.
    pub(crate) fn dump(
        &self,
        family: impl Into<NetfilterProtoFamily>,
        message: impl Into<NetfilterMessageInner>,
        what: impl Fn() -> String,
    ) -> Result<Vec<Vec<u8>>> {
        let mut bytes = Vec::new();
        let request = Request::new(family.into(), NLM_F_DUMP, message.into(), String::new());
        let listed = request
            .append_to(&mut bytes, 0, 0)
            .and_then(|()| self.socket.list(&mut bytes, ATTEMPTS, |reply| Ok(body(reply))));
        listed.map_err(|cause| Error::new(what(), cause))
    }

    /// Sends one request and reads its answer. None if its object does not exist.
    fn ask(
        &self,
        family: NetfilterProtoFamily,
        message: NetfilterMessageInner,
        what: impl Fn() -> String,
    ) -> Result<Option<Vec<Vec<u8>>>> {
        let mut bytes = Vec::new();
        let request = Request::new(family, NLM_F_ACK, message, String::new());
        let asked = request
            .append_to(&mut bytes, 0, 0)
            .and_then(|()| self.socket.ask(&mut bytes, |reply| Ok(body(reply))));
        match asked {
            Ok((bodies, _)) => Ok(Some(bodies)),
            Err(cause) if cause.errno() == Some(Errno::ENOENT) => Ok(None),
            Err(cause) => Err(Error::new(what(), cause)),
        }
    }
}

/// The attributes of an answer, after its nfgenmsg.
fn body(reply: Reply<'_>) -> Vec<u8> {
    reply.payload.get(NFGENMSG..).unwrap_or_default().to_vec()
}

/// Whether a request without attributes was refused because the kernel does not have the subsystem
/// (`nfnetlink_rcv_msg`). In a request with attributes, EINVAL may be about one of them.
pub(crate) fn is_unknown_subsystem(error: &Error) -> bool {
    error.errno() == Some(Errno::EINVAL)
}

impl Batch {
    /// An empty batch.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether the batch has no changes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.requests.is_empty()
    }

    pub(crate) fn push(
        &mut self,
        family: TableFamily,
        flags: u16,
        message: NfTablesMessage,
        what: impl FnOnce() -> String,
    ) {
        self.requests.push(Request::new(family.into(), flags, message.into(), what()));
    }
}

impl Request {
    fn new(
        family: NetfilterProtoFamily,
        flags: u16,
        message: NetfilterMessageInner,
        what: String,
    ) -> Self {
        let message = NetfilterMessage::new(NetfilterHeader::new(family, 0, 0), message);
        Self::of(&message, flags, what)
    }

    fn of(message: &NetfilterMessage, flags: u16, what: String) -> Self {
        let mut payload = Vec::new();
        let length = Emitable::buffer_len(message);
        if length <= LONGEST {
            payload.resize(length, 0);
            message.emit(&mut payload);
        }
        Self { kind: message.message_type(), flags, payload, what }
    }

    /// The first or last message of a batch. The first one may contain the expected generation.
    fn batch(message_type: u8, generation: Option<u32>) -> Self {
        let id = |id: u32| DefaultNla::new(NFNL_BATCH_GENID, id.to_be_bytes().to_vec());
        let attributes = generation.map(id).into_iter().collect();
        let message = ControlMessage::Other { message_type, attributes };
        let header = NetfilterHeader::new(NetfilterProtoFamily::Unspec, 0, NFNL_SUBSYS_NFTABLES);
        Self::of(&NetfilterMessage::new(header, message), 0, String::new())
    }

    /// Appends the complete netlink message, padded to 4 bytes.
    ///
    /// Errors: EMSGSIZE if it is longer than [`LONGEST`].
    fn append_to(
        &self,
        bytes: &mut Vec<u8>,
        flags: u16,
        sequence: u32,
    ) -> std::result::Result<(), Cause> {
        if self.payload.is_empty() {
            return Err(Errno::EMSGSIZE.into());
        }
        let length = u32::try_from(NLMSG_HEADER + self.payload.len()).unwrap_or(u32::MAX);
        bytes.extend_from_slice(&length.to_ne_bytes());
        bytes.extend_from_slice(&self.kind.to_ne_bytes());
        bytes.extend_from_slice(&(NLM_F_REQUEST | self.flags | flags).to_ne_bytes());
        bytes.extend_from_slice(&sequence.to_ne_bytes());
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&self.payload);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        Ok(())
    }
}

impl From<Family> for NetfilterProtoFamily {
    fn from(family: Family) -> Self {
        family.number().into()
    }
}

impl From<TableFamily> for NetfilterProtoFamily {
    fn from(family: TableFamily) -> Self {
        family.number().into()
    }
}
