//! Links: how a result describes them, how CHECK compares them, and what the plugins set on them.

use cni::{Interface, Mac, Success};
use kernel::rtnl::Link;
use kernel::{Rtnl, sysctl};

use crate::error::Error;
use crate::pod::Pod;

/// What a result says about a link of the pod, or of the node if that is `None`.
#[must_use]
pub fn describe(link: &Link, pod: Option<&Pod>) -> Interface {
    Interface {
        name: link.name.clone(),
        mac: mac(link),
        mtu: Some(link.mtu),
        sandbox: path(pod),
        ..Interface::default()
    }
}

/// Compares a link with what the result says about it, if it says anything.
pub fn compare(result: &Success, link: &Link, pod: Option<&Pod>) -> Result<(), Error> {
    let (now, sandbox) = (mac(link), path(pod));
    let is_it = |it: &&Interface| it.name == link.name && it.sandbox == sandbox;
    match result.interfaces.iter().find(is_it) {
        Some(told) if !told.mac.eq_ignore_ascii_case(&now) => Err(Error::changed(
            format!("interface {}", link.name),
            format!("has the hardware address {now}, not {}", told.mac),
        )),
        _ => Ok(()),
    }
}

/// The MTU of a key; `None` for 0, which means the kernel's default.
///
/// Errors: code 7 unless it is 0 or between 68, the minimum for IPv4 (RFC 791), and 65535.
pub fn mtu(key: &str, mtu: u32) -> Result<Option<u32>, cni::Error> {
    match mtu {
        0 => Ok(None),
        68..=65535 => Ok(Some(mtu)),
        _ => Err(cni::Error::invalid_key(key, "must be 0, or between 68 and 65535")),
    }
}

/// Whether a link is one end of a veth pair.
#[must_use]
pub fn is_veth(link: &Link) -> bool {
    link.kind.as_deref() == Some("veth")
}

/// The other end of a link's veth pair; `None` if it is not in the namespace of `rtnl`, or if the link is not
/// a veth.
pub fn other_end(rtnl: &Rtnl, link: &Link) -> Result<Option<Link>, Error> {
    let other_end = link.peer.map_or(Ok(None), |index| rtnl.link_by_index(index))?;
    Ok(other_end.filter(|it| it.peer == Some(link.index)))
}

/// Deletes a link. One that has vanished in the meantime is no failure.
pub fn delete(rtnl: &Rtnl, link: &Link) -> Result<(), Error> {
    match rtnl.delete_link(link.index) {
        Err(error) if !error.is_not_found() => Err(error.into()),
        _ => Ok(()),
    }
}

/// Ignores router advertisements on a link of the node: a pod must not be able to make itself the node's
/// router (CVE-2020-10749).
pub fn ignore_router_advertisements(link: &str) -> Result<(), Error> {
    Ok(sysctl::write_if_possible(&["ipv6", "conf", link, "accept_ra"], "0")?)
}

/// Switches duplicate address detection off on a link of the node that leads to pods, before it is used.
///
/// The node asks for its neighbours from the link-local address. Until the kernel has probed that for
/// duplicates, a second or two, pods could not be reached by IPv6. The link is new and its address is random,
/// so there is no duplicate.
pub fn skip_dad(link: &str) -> Result<(), Error> {
    Ok(sysctl::write_if_possible(&["ipv6", "conf", link, "accept_dad"], "0")?)
}

fn mac(link: &Link) -> String {
    link.mac.map(|mac| Mac(mac).to_string()).unwrap_or_default()
}

fn path(pod: Option<&Pod>) -> String {
    pod.map(|pod| pod.netns.path().display().to_string()).unwrap_or_default()
}
