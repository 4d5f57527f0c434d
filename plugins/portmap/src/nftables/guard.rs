//! The guard of this backend: which links towards pods take no packets to 127.0.0.0/8, and which containers
//! need that, see [`crate::loopback`].

use std::net::IpAddr;

use kernel::iptables::Iptables;
use kernel::nft::{Element, octets};
use kernel::{Batch, Family, Nfnetlink};

use super::held::{Held, Holding, Place, Way};
use super::reference;
use super::table::{GUARDED_LINKS, LOOPBACK_PODS, interface_name, set};
use crate::error::Error;
use crate::guard;
use crate::loopback::{self, SWITCHED_ON, SwitchedOff};

/// The element that says that a pod gets packets from 127.0.0.1 by a link.
pub(super) fn pod_element(link: &str, pod: IpAddr) -> (String, Element) {
    let key = [interface_name(link), octets(pod)].concat();
    (LOOPBACK_PODS.to_owned(), Element { key, data: None, comment: None, expires: false })
}

/// Whether a container of this backend, or of the reference plugins' `nftables`, needs the setting on a link.
pub(crate) fn needs_loopback(netlink: &Nfnetlink, link: &str) -> Result<bool, kernel::Error> {
    if !netlink.has_nf_tables()? {
        return Ok(false);
    }
    let pods = netlink.elements(set(Family::V4, LOOPBACK_PODS))?;
    Ok(pods.iter().any(|pod| !pod.expires && is_on(pod, link))
        || reference::needs_loopback(netlink, link)?)
}

/// Whether a container of the reference plugins, or of the backend `iptables`, needs the setting on a link.
fn others_need(netlink: &Nfnetlink, link: &str) -> Result<bool, kernel::Error> {
    let mut needed = reference::needs_loopback(netlink, link)?;
    for iptables in &Iptables::all(netlink)? {
        needed = needed || guard::is_needed(iptables, link)?;
    }
    Ok(needed)
}

/// Switches on again what is needed in either backend, see [`SwitchedOff::take_back`].
pub(super) fn take_back(
    netlink: &Nfnetlink,
    switched_off: &mut SwitchedOff,
) -> Result<(), kernel::Error> {
    switched_off.take_back(|link| Ok(needs_loopback(netlink, link)? || others_need(netlink, link)?))
}

/// Whether a link has the setting because a mapping of this backend needed it.
pub(crate) fn has_switched_on(netlink: &Nfnetlink, link: &str) -> Result<bool, kernel::Error> {
    if !netlink.has_nf_tables()? {
        return Ok(false);
    }
    let guarded = netlink.element(set(Family::V4, GUARDED_LINKS), &interface_name(link))?;
    Ok(guarded.is_some_and(|link| is_switched_on(&link)))
}

/// Guards a link unless it is guarded. Its setting is switched on afterwards.
pub(super) fn add(
    netlink: &Nfnetlink,
    batch: &mut Batch,
    held: &Held,
    link: &str,
) -> Result<(), Error> {
    let key = interface_name(link);
    let is_same = |one: &&Element| one.key == key;
    let guarded = held.elements(GUARDED_LINKS).iter().find(is_same);
    if guarded.is_some_and(|link| !link.expires) {
        return Ok(());
    }
    let mut switched_on = guarded.is_some_and(is_switched_on) || !loopback::is_on(link)?;
    if !switched_on {
        for iptables in &Iptables::all_with(netlink, guard::GUARD_TABLE.name())? {
            switched_on |= guard::has_switched_on(iptables, link)?;
        }
    }
    let comment = switched_on.then(|| SWITCHED_ON.to_owned());
    let element = Element { key, data: None, comment, expires: false };
    batch.create_element(set(Family::V4, GUARDED_LINKS), &element);
    Ok(())
}

/// Adds what removes the guard of links that nobody needs any more once `doomed` is gone, save for `kept`,
/// and switches off their settings.
pub(super) fn remove(
    netlink: &Nfnetlink,
    batch: &mut Batch,
    held: &Held,
    doomed: &[Holding<'_>],
    (way, kept): (Way, Option<&str>),
    switched_off: &mut SwitchedOff,
) -> Result<(), kernel::Error> {
    let gone: Vec<&Element> = doomed
        .iter()
        .filter_map(|holding| match holding.place {
            Place::Element(LOOPBACK_PODS, element) => Some(element),
            _ => None,
        })
        .collect();
    for guarded in held.elements(GUARDED_LINKS) {
        let is_on = |pod: &Element| pod.key.starts_with(&guarded.key);
        let stays = |pod: &Element| {
            is_on(pod) && !pod.expires && !gone.iter().any(|gone| gone.key == pod.key)
        };
        let Some(link) = link_name(&guarded.key).filter(|link| Some(*link) != kept) else {
            continue;
        };
        if guarded.expires
            || !gone.iter().any(|pod| is_on(pod))
            || held.elements(LOOPBACK_PODS).iter().any(stays)
        {
            continue;
        }
        match way {
            Way::Expire => batch.expire_element(set(Family::V4, GUARDED_LINKS), guarded),
            Way::Delete => batch.delete_element(set(Family::V4, GUARDED_LINKS), &guarded.key),
        }
        if is_switched_on(guarded) && !others_need(netlink, link)? {
            switched_off.add(link)?;
        }
    }
    Ok(())
}

/// The links that have the setting because a mapping of this backend needed it.
pub(super) fn switched_on_links(held: &Held) -> impl Iterator<Item = String> + '_ {
    let links = held.elements(GUARDED_LINKS).iter().filter(|link| is_switched_on(link));
    links.filter_map(|link| link_name(&link.key).map(str::to_owned))
}

fn is_on(pod: &Element, link: &str) -> bool {
    pod.key.starts_with(&interface_name(link))
}

fn is_switched_on(link: &Element) -> bool {
    link.comment.as_deref() == Some(SWITCHED_ON)
}

fn link_name(key: &[u8]) -> Option<&str> {
    std::str::from_utf8(key).ok().map(|name| name.trim_end_matches('\0'))
}
