//! `route_localnet`: the setting of a link that lets packets from 127.0.0.1 leave by it.
//!
//! A connection from 127.0.0.1 to a `hostPort` needs it on the link towards the pod. But such a link also
//! accepts packets to 127.0.0.0/8 that come in (CVE-2020-8558). So both backends have a guard, which drops
//! these before any of them gets another destination. The guard also records which links have the setting
//! because of a mapping; it is switched off with the last mapping that needs it. IPv6 has no such setting, so
//! that connections from `::1` do not reach pods.

use std::net::IpAddr;

use cni::Cidr;
use kernel::{Rtnl, sysctl};

use crate::error::Error;

/// The comment of a guard whose link has the setting because a mapping needed it.
pub(crate) const SWITCHED_ON: &str = "route_localnet was switched on";

/// The link towards a pod's IPv4 address.
pub(crate) fn link_towards(pod: &[Cidr]) -> Result<Option<String>, Error> {
    let Some(pod) = pod.iter().find(|cidr| cidr.is_ipv4()) else { return Ok(None) };
    Ok(link_to(pod.ip())?)
}

/// Whether the route to one of these pods uses a link.
pub(crate) fn leads_to_any(link: &str, pods: &[IpAddr]) -> bool {
    pods.iter().any(|pod| link_to(*pod).is_ok_and(|found| found.as_deref() == Some(link)))
}

fn link_to(pod: IpAddr) -> Result<Option<String>, kernel::Error> {
    let rtnl = Rtnl::open()?;
    let Some(index) = rtnl.link_towards(pod)? else { return Ok(None) };
    Ok(rtnl.link_by_index(index)?.map(|link| link.name))
}

/// Whether packets from 127.0.0.1 can leave by a link.
pub(crate) fn is_on(link: &str) -> Result<bool, Error> {
    Ok(sysctl::read(&name(link))? == "1")
}

/// Lets packets from 127.0.0.1 leave by a link.
pub(crate) fn switch_on(link: &str) -> Result<(), Error> {
    sysctl::write(&name(link), "1")?;
    Ok(())
}

/// Links whose setting was switched off for a change of the tables that is not committed yet. If it were
/// switched off afterwards, a parallel ADD could find the guard gone and the setting still on, and not switch
/// it on.
#[derive(Debug, Default)]
pub(crate) struct SwitchedOff {
    links: Vec<String>,
}

impl SwitchedOff {
    /// Switches off a link's setting; the link may be gone.
    pub(crate) fn add(&mut self, link: &str) -> Result<(), kernel::Error> {
        sysctl::write_if_possible(&name(link), "0")?;
        self.links.push(link.to_owned());
        Ok(())
    }

    /// Switches on again what is still needed, because the change was not committed. A parallel DEL or GC may
    /// have removed what needed it.
    pub(crate) fn take_back(
        &mut self,
        is_needed: impl Fn(&str) -> Result<bool, kernel::Error>,
    ) -> Result<(), kernel::Error> {
        for link in self.links.drain(..) {
            if is_needed(&link)? {
                sysctl::write_if_possible(&name(&link), "1")?;
            }
        }
        Ok(())
    }
}

fn name(link: &str) -> [&str; 4] {
    ["ipv4", "conf", link, "route_localnet"]
}
