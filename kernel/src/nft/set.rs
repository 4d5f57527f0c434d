//! Sets and maps. A rule finds a value in them in constant time.

use std::fmt;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_netfilter::nftables::{
    DataAttribute, ListAttribute, NfTablesMessage, SetAttribute, SetElementAttribute,
    SetElementList, SetElementMessage, SetFlags, SetMessage,
};

use super::attribute::{attribute, attributes, be_u32, string};
use super::read::comment;
use super::write::comment_udata;
use super::{Table, TableFamily, Verdict};
use crate::error::Result;
use crate::nfnetlink::{Batch, Nfnetlink};

/// A set or map by its full name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Set<'a> {
    /// The family of its table.
    pub family: TableFamily,
    /// Name of its table.
    pub table: &'a str,
    /// Its own name.
    pub name: &'a str,
}

/// The type of a set or map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetType {
    /// The types of the parts of a key.
    pub key: Vec<Type>,
    /// The types of the parts of a map's data; empty for a set.
    pub data: Vec<Type>,
    /// Whether its elements can expire.
    pub expires: bool,
}

/// A type of values, with its name in `nft`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Type {
    /// `ipv4_addr`.
    Ipv4,
    /// `ipv6_addr`.
    Ipv6,
    /// `inet_proto`: the protocol above IP.
    Protocol,
    /// `inet_service`: a port.
    Port,
    /// `ifname`: the name of an interface.
    Ifname,
    /// `verdict`.
    Verdict,
}

/// An element of a set or map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Element {
    /// The parts of its key, each padded to 4 bytes.
    pub key: Vec<u8>,
    /// Its data; none in a set.
    pub data: Option<Data>,
    /// Its comment in the format of `nft`, at most 128 bytes.
    pub comment: Option<String>,
    /// Whether it expires. New elements do not; see [`Batch::expire_element`].
    pub expires: bool,
}

/// The data of a map's element.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Data {
    /// The parts of a value, each padded to 4 bytes.
    Value(Vec<u8>),
    /// A verdict.
    Verdict(Verdict),
}

const NFTA_SET_TABLE: u16 = 1;
const NFTA_SET_NAME: u16 = 2;
const NFTA_SET_ELEM_LIST_ELEMENTS: u16 = 3;
const NFTA_SET_ELEM_KEY: u16 = 1;
const NFTA_SET_ELEM_DATA: u16 = 2;
const NFTA_SET_ELEM_FLAGS: u16 = 3;
const NFTA_SET_ELEM_EXPIRATION: u16 = 5;
const NFTA_SET_ELEM_USERDATA: u16 = 6;
const NFTA_DATA_VALUE: u16 = 1;
const NFT_SET_ELEM_INTERVAL_END: u32 = 1;
/// The bits of one part in the number of a type with several parts. Only `nft` reads that number.
const TYPE_BITS: u32 = 6;

/// The user data that tells `nft` that keys are in the host's byte order (`NFTNL_UDATA_SET_KEYBYTEORDER`, 4
/// bytes). Without it, `nft` does not show names.
const HOST_ORDER: [u8; 6] = {
    let [a, b, c, d] = 1_u32.to_ne_bytes();
    [0, 4, a, b, c, d]
};

impl Batch {
    /// Adds a set or map unless it exists.
    pub fn add_set(&mut self, set: Set<'_>, of: &SetType) {
        let mut flags = SetFlags::empty();
        flags.set(SetFlags::Map, !of.data.is_empty());
        flags.set(SetFlags::Timeout, of.expires);
        let mut all = vec![
            SetAttribute::Table(set.table.into()),
            SetAttribute::Name(set.name.into()),
            SetAttribute::Flags(flags),
            SetAttribute::KeyType(type_number(&of.key)),
            SetAttribute::KeyLen(length(&of.key)),
        ];
        if !of.data.is_empty() {
            all.push(SetAttribute::DataType(type_number(&of.data)));
            all.push(SetAttribute::DataLen(length(&of.data)));
        }
        // The kernel requires a number, although rules refer to the set by name.
        all.push(SetAttribute::Id(1));
        if of.key == [Type::Ifname] {
            all.push(SetAttribute::UserData(HOST_ORDER.into()));
        }
        let message = NfTablesMessage::NewSet(SetMessage { attributes: all });
        self.push(set.family, NLM_F_CREATE, message, || format!("add set {set}"));
    }

    /// Deletes a set or map with its elements. Fails with EBUSY if a rule uses it, with ENOENT if it does not
    /// exist.
    pub fn delete_set(&mut self, set: Set<'_>) {
        let attributes =
            vec![SetAttribute::Table(set.table.into()), SetAttribute::Name(set.name.into())];
        let message = NfTablesMessage::DeleteSet(SetMessage { attributes });
        self.push(set.family, 0, message, || format!("delete set {set}"));
    }

    /// Adds an element unless it exists.
    pub fn add_element(&mut self, set: Set<'_>, element: &Element) {
        let message = NfTablesMessage::NewSetElement(list(set, element.to_wire()));
        self.push(set.family, NLM_F_CREATE, message, || format!("add element to {set}"));
    }

    /// Adds an element. The whole batch fails with EEXIST if the key exists.
    pub fn create_element(&mut self, set: Set<'_>, element: &Element) {
        let message = NfTablesMessage::NewSetElement(list(set, element.to_wire()));
        let flags = NLM_F_CREATE | NLM_F_EXCL;
        self.push(set.family, flags, message, || format!("create element of {set}"));
    }

    /// Makes an element expire at the next tick of the clock. This deletes nothing, so closing the socket
    /// does not wait.
    ///
    /// Kernels before 6.12 refuse or ignore this. Read the element again to see whether it
    /// [expires](Element::expires).
    pub fn expire_element(&mut self, set: Set<'_>, element: &Element) {
        let mut attributes =
            vec![SetElementAttribute::Timeout(1), SetElementAttribute::Expiration(1)];
        attributes.extend(Element { comment: None, ..element.clone() }.to_wire());
        let message = NfTablesMessage::NewSetElement(list(set, attributes));
        self.push(set.family, NLM_F_CREATE, message, || format!("let element of {set} expire"));
    }

    /// Deletes an element. Fails with ENOENT if it does not exist.
    pub fn delete_element(&mut self, set: Set<'_>, key: &[u8]) {
        let message = NfTablesMessage::DeleteSetElement(list(set, wire_key(key)));
        self.push(set.family, 0, message, || format!("delete element of {set}"));
    }
}

impl Nfnetlink {
    /// The names of a table's sets and maps. Empty if the table does not exist.
    pub fn set_names(&self, table: Table) -> Result<Vec<String>> {
        let of = vec![SetAttribute::Table(table.name.into())];
        let message = NfTablesMessage::GetSet(SetMessage { attributes: of });
        let what = || format!("list the sets of table {table}");
        let bodies = unless_missing(self.dump(table.family, message, what))?;
        let names = bodies.iter().filter_map(|body| {
            let name = string(attribute(body, NFTA_SET_NAME)?);
            (string(attribute(body, NFTA_SET_TABLE)?) == table.name).then(|| name.to_owned())
        });
        Ok(names.collect())
    }

    /// The elements of a set or map that have not expired. Empty if the set does not exist.
    pub fn elements(&self, set: Set<'_>) -> Result<Vec<Element>> {
        let mut elements = self.elements_and_catch_all(set)?;
        elements.retain(|element| !element.key.is_empty());
        Ok(elements)
    }

    /// Like [`Nfnetlink::elements`], with the element for all other keys. Its key is empty.
    pub fn elements_and_catch_all(&self, set: Set<'_>) -> Result<Vec<Element>> {
        let message = NfTablesMessage::GetSetElement(list(set, Vec::new()));
        let what = || format!("list the elements of {set}");
        let bodies = unless_missing(self.dump(set.family, message, what))?;
        Ok(bodies.iter().flat_map(|body| Element::parse_with_catch_all(body)).collect())
    }

    /// The element with this key. None if it has expired, or if the set does not exist.
    pub fn element(&self, set: Set<'_>, key: &[u8]) -> Result<Option<Element>> {
        let message = NfTablesMessage::GetSetElement(list(set, wire_key(key)));
        let body = self.get(set.family, message, || format!("look for an element of {set}"))?;
        Ok(body.and_then(|body| Element::parse_all(&body).next()))
    }
}

impl Nfnetlink {
    /// Deletes the elements of sets that `is_doomed` selects, at most 500 in one batch.
    pub fn delete_elements(
        &self,
        sets: &[Set<'_>],
        is_doomed: impl Fn(&Element) -> bool,
    ) -> Result<()> {
        /// A batch must fit in the socket's buffer.
        const PIECE: usize = 500;
        let mut is_partial = true;
        while is_partial {
            self.transaction(|netlink| -> Result<Batch> {
                let (mut batch, mut count) = (Batch::new(), 0);
                for set in sets {
                    let elements = netlink.elements(*set)?;
                    for element in elements.iter().filter(|it| is_doomed(it)).take(PIECE - count) {
                        batch.delete_element(*set, &element.key);
                        count += 1;
                    }
                }
                is_partial = count == PIECE;
                Ok(batch)
            })?;
        }
        Ok(())
    }
}

impl Element {
    fn to_wire(&self) -> Vec<SetElementAttribute> {
        let mut all = wire_key(&self.key);
        all.extend(self.data.as_ref().map(|data| {
            SetElementAttribute::Data(match data {
                Data::Value(bytes) => DataAttribute::Value(bytes.clone()),
                Data::Verdict(verdict) => verdict.to_wire(),
            })
        }));
        let text = self.comment.as_deref();
        all.extend(text.map(|text| SetElementAttribute::UserData(comment_udata(text))));
        all
    }

    /// Reads the attributes of an `NFT_MSG_NEWSETELEM`.
    pub(crate) fn parse_all(body: &[u8]) -> impl Iterator<Item = Self> {
        Self::parse_with_catch_all(body).filter(|element| !element.key.is_empty())
    }

    fn parse_with_catch_all(body: &[u8]) -> impl Iterator<Item = Self> {
        let lists = attributes(body).filter(|(kind, _)| *kind == NFTA_SET_ELEM_LIST_ELEMENTS);
        lists.flat_map(|(_, list)| attributes(list)).filter_map(|(_, element)| Self::parse(element))
    }

    fn parse(list: &[u8]) -> Option<Self> {
        let mut element = Self { key: Vec::new(), data: None, comment: None, expires: false };
        for (kind, value) in attributes(list) {
            match kind {
                NFTA_SET_ELEM_KEY => element.key = attribute(value, NFTA_DATA_VALUE)?.to_vec(),
                NFTA_SET_ELEM_DATA => element.data = Data::parse(value),
                // The end of a range is not an element.
                NFTA_SET_ELEM_FLAGS if be_u32(value)? & NFT_SET_ELEM_INTERVAL_END != 0 => {
                    return None;
                }
                NFTA_SET_ELEM_EXPIRATION => element.expires = true,
                NFTA_SET_ELEM_USERDATA => element.comment = comment(value),
                _ => {}
            }
        }
        Some(element)
    }
}

impl Data {
    fn parse(data: &[u8]) -> Option<Self> {
        attribute(data, NFTA_DATA_VALUE)
            .map(|value| Self::Value(value.to_vec()))
            .or_else(|| Verdict::parse(data).map(Self::Verdict))
    }
}

impl Type {
    /// Its number in `nft` (`enum datatypes`), and its length in bytes.
    fn number_and_length(self) -> (u32, u32) {
        match self {
            Type::Ipv4 => (7, 4),
            Type::Ipv6 => (8, 16),
            Type::Protocol => (12, 1),
            Type::Port => (13, 2),
            Type::Ifname => (41, 16),
            Type::Verdict => (0xffff_ff00, 0),
        }
    }
}

impl fmt::Display for Set<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.family.name(), self.table, self.name)
    }
}

fn type_number(parts: &[Type]) -> u32 {
    parts.iter().fold(0, |number, part| number << TYPE_BITS | part.number_and_length().0)
}

fn length(parts: &[Type]) -> u32 {
    parts.iter().map(|part| part.number_and_length().1.next_multiple_of(4)).sum()
}

fn wire_key(key: &[u8]) -> Vec<SetElementAttribute> {
    vec![SetElementAttribute::Key(DataAttribute::Value(key.into()))]
}

/// A set with one element, or without elements.
fn list(set: Set<'_>, element: Vec<SetElementAttribute>) -> SetElementMessage {
    let mut all =
        vec![SetElementList::Table(set.table.into()), SetElementList::Set(set.name.into())];
    if !element.is_empty() {
        all.push(SetElementList::Elements(vec![ListAttribute::Element(element)]));
    }
    SetElementMessage { attributes: all }
}

fn unless_missing(listed: Result<Vec<Vec<u8>>>) -> Result<Vec<Vec<u8>>> {
    match listed {
        Err(error) if error.is_not_found() => Ok(Vec::new()),
        listed => listed,
    }
}
