//! Ports of the node that mappings claim, and the ends at pods that they lead to. Both backends use the same
//! form, so that each can read what the other one has made.

use std::net::IpAddr;

use cni::Failures;
use kernel::Family;

use crate::error::Error;
use crate::mapping::{Mapping, protocol_name};

/// A port of the node that a mapping claims, in one address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Claim {
    pub(crate) protocol: u8,
    pub(crate) port: u16,
    /// `None` for all addresses.
    pub(crate) host_ip: Option<IpAddr>,
}

/// The port of a pod that a mapping leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct End {
    pub(crate) family: Family,
    pub(crate) protocol: u8,
    pub(crate) address: IpAddr,
    pub(crate) port: Option<u16>,
}

/// What a removal has found. It has the ends even if there are errors, because the kernel may have removed
/// rules although its answer was lost.
#[derive(Debug, Default)]
pub(crate) struct Removed {
    /// The ends that nothing leads to any more.
    pub(crate) ends: Vec<End>,
    /// The errors of the steps that failed.
    pub(crate) failures: Failures,
}

impl Claim {
    /// Whether a packet can match both.
    pub(crate) fn overlaps(&self, other: &Self) -> bool {
        self.covers(other) || other.covers(self)
    }

    /// Whether all packets that match the other one match this one.
    pub(crate) fn covers(&self, other: &Self) -> bool {
        let covers_address = self.host_ip.is_none() || self.host_ip == other.host_ip;
        (self.protocol, self.port) == (other.protocol, other.port) && covers_address
    }

    /// The error for a port that another container has.
    pub(crate) fn taken(&self, holder: &str) -> Error {
        let protocol = protocol_name(self.protocol);
        Error::Taken { port: self.port, protocol, holder: holder.to_owned() }
    }
}

impl From<&Mapping> for Claim {
    fn from(mapping: &Mapping) -> Self {
        let host_ip = mapping.host_ip.filter(|_| !mapping.is_at_all_addresses());
        Self { protocol: mapping.protocol, port: mapping.host_port, host_ip }
    }
}

impl Removed {
    /// The outcome of one step.
    pub(crate) fn of(what: &str, ends: Vec<End>, outcome: Result<(), Error>) -> Self {
        let mut removed = Self { ends, failures: Failures::new() };
        removed.failures.try_to(what, || outcome);
        removed
    }

    /// Adds the outcome of another removal; its errors begin with `what`.
    pub(crate) fn add(&mut self, what: &str, other: Self) {
        self.ends.extend(other.ends);
        self.failures.try_to(what, || other.failures.into_result());
    }

    /// The ends, or all errors in one.
    pub(crate) fn into_result(self) -> Result<Vec<End>, cni::Error> {
        self.failures.into_result().map(|()| self.ends)
    }
}
