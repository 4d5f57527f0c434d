//! Interfaces as an ADD's result tells of them.

use cni::{Interface, Mac, Success};
use kernel::rtnl::Link;

use crate::error::Error;
use crate::pod::Pod;

/// What a result says of a link of the pod, or of the node if that is `None`.
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

/// Compares a link with what the result says of it, if it says anything.
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

fn mac(link: &Link) -> String {
    link.mac.map(|mac| Mac(mac).to_string()).unwrap_or_default()
}

fn path(pod: Option<&Pod>) -> String {
    pod.map(|pod| pod.netns.path().display().to_string()).unwrap_or_default()
}
