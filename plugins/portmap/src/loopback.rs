//! `route_localnet`: the setting of a link that lets packets from 127.0.0.1 leave by it.
//!
//! A connection from 127.0.0.1 to a `hostPort` needs it on the link towards the pod. But a link that has it
//! also takes packets to 127.0.0.0/8 that come in (CVE-2020-8558), so both backends drop those that come in
//! by such a link, before any of them gets another destination. The rules or elements of that guard say
//! which links have the setting because of a mapping; it is switched off with the last mapping that needs it.
//! IPv6 has no such setting: nothing leads from `::1` to a pod.

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

/// Whether one of these addresses of pods is behind a link. Those without a route are behind none.
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

/// Links whose setting is switched off for a change of the tables that is not made yet. To switch off first
/// keeps a parallel ADD from finding neither the guard nor a setting that it has to switch on itself.
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

    /// Switches on again what is still needed, because the change was not made. What a parallel DEL or GC has
    /// removed needs nothing any more.
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
