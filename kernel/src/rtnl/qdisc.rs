//! Queueing disciplines (tc(8)): the rate at which packets leave a link, and the filters for packets that
//! arrive.

use netlink_packet_core::{DefaultNla, NLM_F_CREATE, NLM_F_EXCL, Nla, NlasIterator};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::tc::{TcAttribute, TcHandle, TcMessage, TcOption};

use super::Rtnl;
use crate::error::Result;

/// A token bucket filter (tc-tbf(8)): a queue that is emptied at a rate. In the kernel's units.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenBucket {
    /// The rate in bytes per second.
    pub rate: u64,
    /// The length of the queue in bytes. Packets beyond it are dropped.
    pub limit: u32,
    /// The time in which a full bucket is emptied at this rate, in ticks (see [`super::Clock`]).
    pub buffer: u32,
}

/// A queueing discipline of a link, as the kernel has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Qdisc {
    /// Its kind: `tbf`, `ingress`, `noqueue`.
    pub kind: String,
    /// Its place in the link.
    pub place: Place,
    /// Its parameters, if it is a token bucket filter.
    pub token_bucket: Option<TokenBucket>,
}

/// The place of a queueing discipline in a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// For packets that leave.
    Root,
    /// For packets that arrive.
    Ingress,
    /// Inside another queueing discipline.
    Within,
}

/// The handle of the reference plugins' queueing disciplines: `1:`.
const FIRST: TcHandle = TcHandle { major: 1, minor: 0 };
/// The handle of every ingress queueing discipline: `ffff:`.
pub(super) const INGRESS: TcHandle = TcHandle { major: 0xffff, minor: 0 };

const TBF: &str = "tbf";
/// Attributes of `tbf` (`include/uapi/linux/pkt_sched.h`).
const TCA_TBF_PARMS: u16 = 1;
const TCA_TBF_RATE64: u16 = 4;
const TC_LINKLAYER_ETHERNET: u8 = 1;

impl Rtnl {
    /// Adds a token bucket filter for packets that leave a link.
    ///
    /// Errors: EEXIST if it has a queueing discipline other than the kernel's default.
    pub fn add_token_bucket(&self, link: u32, bucket: &TokenBucket) -> Result<()> {
        let message = RouteNetlinkMessage::NewQueueDiscipline(token_bucket_message(link, bucket));
        let operation = || format!("add queueing discipline {TBF} to link {link}");
        self.change(message, NLM_F_CREATE | NLM_F_EXCL, operation)
    }

    /// Adds the queueing discipline `ingress`, whose filters see the packets that arrive on a link.
    ///
    /// Errors: EEXIST if the link has one.
    pub fn add_ingress(&self, link: u32) -> Result<()> {
        let message = RouteNetlinkMessage::NewQueueDiscipline(ingress_message(link));
        let operation = || format!("add queueing discipline ingress to link {link}");
        self.change(message, NLM_F_CREATE | NLM_F_EXCL, operation)
    }

    /// Deletes the queueing discipline for packets that leave a link. The link gets the kernel's default.
    ///
    /// Errors: ENOENT if the link has the default.
    pub fn delete_root_qdisc(&self, link: u32) -> Result<()> {
        let message = RouteNetlinkMessage::DelQueueDiscipline(root_message(link));
        let operation = || format!("delete the root queueing discipline of link {link}");
        self.change(message, 0, operation)
    }

    /// Deletes the queueing discipline `ingress` and its filters.
    ///
    /// Errors: ENOENT or EINVAL if the link has none.
    pub fn delete_ingress(&self, link: u32) -> Result<()> {
        let message = RouteNetlinkMessage::DelQueueDiscipline(ingress_message(link));
        let operation = || format!("delete queueing discipline ingress of link {link}");
        self.change(message, 0, operation)
    }

    /// The queueing disciplines of a link.
    pub fn qdiscs(&self, link: u32) -> Result<Vec<Qdisc>> {
        let get = RouteNetlinkMessage::GetQueueDiscipline(TcMessage::default());
        let replies = self.dump(get, || "list queueing disciplines".to_owned())?;
        let of_link = replies.into_iter().filter_map(|reply| match reply {
            RouteNetlinkMessage::NewQueueDiscipline(message)
                if message.header.index == index(link) =>
            {
                Some(read_qdisc(&message))
            }
            _ => None,
        });
        Ok(of_link.collect())
    }
}

/// tc's messages have a signed index.
pub(super) fn index(link: u32) -> i32 {
    link.cast_signed()
}

fn root_message(link: u32) -> TcMessage {
    let mut message = TcMessage::with_index(index(link));
    message.header.parent = TcHandle::ROOT;
    message
}

pub(super) fn token_bucket_message(link: u32, bucket: &TokenBucket) -> TcMessage {
    let mut message = root_message(link);
    message.header.handle = FIRST;
    let mut options = vec![option(TCA_TBF_PARMS, parameters(bucket))];
    if u32::try_from(bucket.rate).is_err() {
        options.push(option(TCA_TBF_RATE64, bucket.rate.to_ne_bytes().to_vec()));
    }
    message.attributes.push(TcAttribute::Kind(TBF.to_owned()));
    message.attributes.push(TcAttribute::Options(options));
    message
}

pub(super) fn ingress_message(link: u32) -> TcMessage {
    let mut message = TcMessage::with_index(index(link));
    message.header.handle = INGRESS;
    message.header.parent = TcHandle::INGRESS;
    message.attributes.push(TcAttribute::Kind("ingress".to_owned()));
    message
}

fn option(kind: u16, value: Vec<u8>) -> TcOption {
    TcOption::Other(DefaultNla::new(kind, value))
}

/// `struct tc_tbf_qopt`: two of `struct tc_ratespec`, then limit, buffer and MTU. The second rate is the peak
/// rate, which is not set. The first one names the link layer, so kernels since 3.8 do not need the table of
/// transmission times that tc sends.
fn parameters(bucket: &TokenBucket) -> Vec<u8> {
    let rate = u32::try_from(bucket.rate).unwrap_or(u32::MAX);
    let mut bytes = vec![0; 36];
    bytes[1] = TC_LINKLAYER_ETHERNET;
    for (at, number) in [(RATE_AT, rate), (LIMIT_AT, bucket.limit), (BUFFER_AT, bucket.buffer)] {
        bytes[at..at + 4].copy_from_slice(&number.to_ne_bytes());
    }
    bytes
}

/// Offsets in `struct tc_tbf_qopt`.
const RATE_AT: usize = 8;
const LIMIT_AT: usize = 24;
const BUFFER_AT: usize = 28;

fn read_qdisc(message: &TcMessage) -> Qdisc {
    let place = match message.header.parent {
        TcHandle::ROOT => Place::Root,
        TcHandle::INGRESS => Place::Ingress,
        _ => Place::Within,
    };
    let mut qdisc = Qdisc { kind: String::new(), place, token_bucket: None };
    for attribute in &message.attributes {
        match attribute {
            TcAttribute::Kind(kind) => kind.clone_into(&mut qdisc.kind),
            TcAttribute::Options(options) if qdisc.kind == TBF => {
                qdisc.token_bucket = options.first().and_then(read_token_bucket);
            }
            _ => {}
        }
    }
    qdisc
}

/// The library returns all options of a kind that it does not know as one.
fn read_token_bucket(options: &TcOption) -> Option<TokenBucket> {
    let mut nested = vec![0; options.value_len()];
    options.emit_value(&mut nested);
    let (mut bucket, mut rate64) = (None, None);
    for attribute in NlasIterator::new(nested.as_slice()).filter_map(std::result::Result::ok) {
        let value = attribute.value();
        match attribute.kind() {
            TCA_TBF_PARMS => bucket = read_parameters(value),
            TCA_TBF_RATE64 => rate64 = value.first_chunk().copied().map(u64::from_ne_bytes),
            _ => {}
        }
    }
    let bucket = bucket?;
    Some(TokenBucket { rate: rate64.unwrap_or(bucket.rate), ..bucket })
}

fn read_parameters(bytes: &[u8]) -> Option<TokenBucket> {
    let number = |at: usize| bytes.get(at..)?.first_chunk().copied().map(u32::from_ne_bytes);
    let (limit, buffer) = (number(LIMIT_AT)?, number(BUFFER_AT)?);
    Some(TokenBucket { rate: number(RATE_AT)?.into(), limit, buffer })
}
