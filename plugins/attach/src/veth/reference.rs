//! Veth pairs that the reference plugins made. They have random names and no alias, so a DEL finds them by
//! the pod's end or by the ADD's result.

use cni::Success;
use kernel::Rtnl;
use kernel::rtnl::Link;

use crate::error::Error;
use crate::link::{self, is_veth, other_end};
use crate::pod::Pod;

/// Deletes the pair of a pod's interface. `bridge` is the one that its node's end must be a port of, if any.
pub(super) fn delete(
    node: &Rtnl,
    pod: Option<&Pod>,
    ifname: &str,
    bridge: Option<&str>,
    result: Option<&Success>,
) -> Result<(), Error> {
    let master = match bridge {
        Some(name) => node.link_by_name(name)?.map(|bridge| bridge.index),
        None => None,
    };
    // The link of another network or container, or one of the node's own, must not be deleted by mistake.
    let is_of_pod =
        |link: &Link| is_random(&link.name) && link.master == master && is_in(result, &link.name);
    match pod {
        Some(pod) => delete_by_pod(node, pod, ifname, is_of_pod),
        None => delete_by_result(node, result, is_of_pod),
    }
}

fn delete_by_pod(
    node: &Rtnl,
    pod: &Pod,
    ifname: &str,
    is_of_pod: impl FnOnce(&Link) -> bool,
) -> Result<(), Error> {
    let Some(inside) = pod.rtnl.link_by_name(ifname)? else {
        return Ok(());
    };
    match other_end(node, &inside)?.filter(is_of_pod) {
        Some(_) if is_veth(&inside) => link::delete(&pod.rtnl, &inside),
        _ => Ok(()),
    }
}

fn delete_by_result(
    node: &Rtnl,
    result: Option<&Success>,
    is_of_pod: impl Fn(&Link) -> bool,
) -> Result<(), Error> {
    let interfaces = result.iter().flat_map(|it| &it.interfaces);
    // A name of another form may be longer than the kernel accepts.
    for interface in interfaces.filter(|it| is_random(&it.name)) {
        let link = node.link_by_name(&interface.name)?;
        if let Some(link) = link.filter(is_veth).filter(&is_of_pod) {
            link::delete(node, &link)?;
        }
    }
    Ok(())
}

/// Whether a result has a link of the node with this name. A result without interfaces does not exclude it.
fn is_in(result: Option<&Success>, name: &str) -> bool {
    result.is_none_or(|result| {
        let mut of_node = result.interfaces.iter().filter(|it| it.sandbox.is_empty());
        result.interfaces.is_empty() || of_node.any(|it| it.name == name)
    })
}

/// Whether a name has the form of those that the reference plugins choose at random.
fn is_random(name: &str) -> bool {
    const DIGITS: usize = 8;
    name.strip_prefix("veth").is_some_and(|digits| {
        digits.len() == DIGITS && digits.bytes().all(|b| b.is_ascii_hexdigit())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_of_names() {
        assert!(is_random("veth0a1b2c3d"));
        for other in ["veth0123456g", "veth0123456789a", "eth0"] {
            assert!(!is_random(other), "{other}");
        }
    }
}
