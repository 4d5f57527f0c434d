//! The pod, as the result of the earlier plugins describes it.

use std::net::IpAddr;

use cni::Success;
use kernel::Rtnl;

use crate::config::{Isolation, Settings};
use crate::error::Error;

/// What the rules need to know of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pod {
    /// Without duplicates.
    pub(crate) addresses: Vec<IpAddr>,
    /// The bridge to isolate, and what it is isolated from.
    pub(crate) bridge: Option<(String, Isolation)>,
    /// Whether connections with a DNAT to the pod are accepted.
    pub(crate) published: bool,
}

impl Pod {
    pub(crate) fn of(result: &Success, settings: &Settings) -> Result<Self, Error> {
        let (addresses, published) = (addresses(result), settings.published);
        let Some(isolation) = settings.isolation else {
            return Ok(Self { addresses, bridge: None, published });
        };
        // The plugin `bridge` puts its bridge first. Before version 0.3.0, results name no interfaces.
        let name = match result.interfaces.first() {
            Some(first) => first.sandbox.is_empty().then(|| first.name.clone()),
            None => link_towards(&addresses)?,
        };
        let name = name.filter(|name| is_plain(name));
        let name = name.ok_or(Error::NoBridge { policy: isolation.name() })?;
        Ok(Self { addresses, bridge: Some((name, isolation)), published })
    }
}

/// All addresses of the result, on any interface. The pod's interface may have no sandbox in the result, as
/// those of virtual machines, or another name than that of the attachment.
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

/// The link that the node sends packets to the pod through.
fn link_towards(addresses: &[IpAddr]) -> Result<Option<String>, Error> {
    let Some(address) = addresses.first() else { return Ok(None) };
    let rtnl = Rtnl::open()?;
    let Some(index) = rtnl.link_towards(*address)? else { return Ok(None) };
    Ok(rtnl.link_by_index(index)?.map(|link| link.name))
}

/// Whether a rule with this name matches only that interface. In iptables, a final `+` matches all names with
/// this prefix.
fn is_plain(name: &str) -> bool {
    name.parse::<cni::IfName>().is_ok() && !name.ends_with('+')
}
