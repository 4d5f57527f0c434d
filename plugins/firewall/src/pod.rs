//! The pod, as the result of the earlier plugins describes it.

use std::net::IpAddr;

use cni::Success;
use kernel::Rtnl;

use crate::config::{Isolation, Settings};
use crate::error::Error;

/// What the rules are about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pod {
    /// Each once.
    pub(crate) addresses: Vec<IpAddr>,
    /// The bridge that is to be kept apart, and from what.
    pub(crate) bridge: Option<(String, Isolation)>,
    /// Whether connections get through that came by a published port.
    pub(crate) published: bool,
}

impl Pod {
    pub(crate) fn of(result: &Success, settings: &Settings) -> Result<Self, Error> {
        let (addresses, published) = (addresses(result), settings.published);
        let Some(isolation) = settings.isolation else {
            return Ok(Self { addresses, bridge: None, published });
        };
        // The plugin `bridge` puts its bridge first. Before version 0.3.0, results name no interfaces.
        let first = result.interfaces.first().filter(|it| it.sandbox.is_empty());
        let name = match first {
            Some(first) => Some(first.name.clone()),
            None if result.interfaces.is_empty() => way_to(&addresses)?,
            None => None,
        };
        let name = name.filter(|name| is_plain(name));
        let name = name.ok_or(Error::NoBridge { policy: isolation.name() })?;
        Ok(Self { addresses, bridge: Some((name, isolation)), published })
    }
}

/// All addresses of the result, whichever interface they are on: that one may have no sandbox in the result,
/// as those of virtual machines have not, or another name than the attachment.
pub(crate) fn addresses(result: &Success) -> Vec<IpAddr> {
    let mut all = Vec::new();
    for ip in &result.ips {
        let address = ip.address.ip();
        if !all.contains(&address) {
            all.push(address);
        }
    }
    all
}

/// The link that packets to the pod leave the node by.
fn way_to(addresses: &[IpAddr]) -> Result<Option<String>, Error> {
    let Some(address) = addresses.first() else { return Ok(None) };
    let rtnl = Rtnl::open()?;
    let Some(index) = rtnl.link_towards(*address)? else { return Ok(None) };
    Ok(rtnl.link_by_index(index)?.map(|link| link.name))
}

/// Whether a rule with this name is about that interface and no other: a final `+` would stand for many.
fn is_plain(name: &str) -> bool {
    name.parse::<cni::IfName>().is_ok() && !name.ends_with('+')
}
