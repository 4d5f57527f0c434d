//! What an ADD asks for, whatever the backend. Each backend turns it into rules or elements of its own.

use cni::{Attachment, Call, Cidr, Success};
use kernel::Family;

use crate::claim::Claim;
use crate::config::{Config, Settings};
use crate::mapping::Mapping;

/// The mappings of a pod, and their owner.
#[derive(Clone, Debug)]
pub(crate) struct Plan<'a> {
    /// The owner. Interfaces that a container has in the same network share its rules.
    pub(crate) owner: Attachment,
    pub(crate) settings: &'a Settings,
    /// The pod's address in each family that it has; none if there is nothing to map.
    pub(crate) pod: Vec<Cidr>,
    /// The link by which packets from 127.0.0.1 get to the pod; `None` if they should not.
    pub(crate) link: Option<String>,
}

impl<'a> Plan<'a> {
    /// The plan for the pod of a result. It has no link yet.
    pub(crate) fn new(call: &Call<Config>, settings: &'a Settings, result: &Success) -> Self {
        let pod = if settings.mappings.is_empty() { Vec::new() } else { addresses(call, result) };
        Self { owner: call.attachment(), settings, pod, link: None }
    }

    /// The plan for a pod with these addresses.
    #[cfg(test)]
    pub(crate) fn of_pod(network: &str, id: &str, settings: &'a Settings, pod: &[&str]) -> Self {
        let owner = Attachment::from_names(network, id, "eth0").unwrap();
        let pod = if settings.mappings.is_empty() { &[] } else { pod };
        let pod = pod.iter().map(|address| address.parse().unwrap()).collect();
        Self { owner, settings, pod, link: None }
    }

    /// Whether there is nothing to map, or no address to map it to.
    pub(crate) fn is_empty(&self) -> bool {
        self.pod.is_empty()
    }

    /// The families of which the pod has an address.
    pub(crate) fn families(&self) -> impl Iterator<Item = Family> {
        self.pod.iter().map(|cidr| Family::of(cidr.ip()))
    }

    /// The pod's address of a family.
    pub(crate) fn address(&self, family: Family) -> Option<Cidr> {
        self.pod.iter().find(|cidr| Family::of(cidr.ip()) == family).copied()
    }

    pub(crate) fn mappings(&self, family: Family) -> impl Iterator<Item = &'a Mapping> {
        self.settings.mappings.iter().filter(move |mapping| mapping.is_of(family))
    }

    /// The ports of the node that the plan claims in a family.
    pub(crate) fn claims(&self, family: Family) -> Vec<Claim> {
        self.mappings(family).map(Claim::from).collect()
    }
}

/// The pod's first IPv4 and its first IPv6 address, on its interface if the result names interfaces.
fn addresses(call: &Call<Config>, result: &Success) -> Vec<Cidr> {
    let all: Vec<Cidr> = result.ips_of(call.ifname().as_str()).map(|ip| ip.address).collect();
    let first =
        |family: Family| all.iter().find(move |cidr| Family::of(cidr.ip()) == family).copied();
    Family::ALL.into_iter().filter_map(first).collect()
}
