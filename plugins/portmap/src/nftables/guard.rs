//! The guard of this backend: the links towards pods whose packets to 127.0.0.0/8 are dropped, and the pods
//! that need that; see [`crate::loopback`].

use std::net::IpAddr;

use kernel::iptables::Iptables;
use kernel::nft::{Contents, Element, Owned, OwnedPlace, Removal, interface_name, octets};
use kernel::{Batch, Family, Nfnetlink};

use super::reference;
use super::table::{GUARDED_LINKS, LOOPBACK_PODS, table};
use crate::error::Error;
use crate::iptables;
use crate::loopback::{self, SWITCHED_ON, SwitchedOff};

/// The element for a pod that gets packets from 127.0.0.1 by a link.
pub(super) fn pod_element(link: &str, pod: IpAddr) -> (String, Element) {
    let key = [interface_name(link), octets(pod)].concat();
    (LOOPBACK_PODS.to_owned(), Element::of_key(key))
}

/// Whether a container of this backend, or of the reference plugins' `nftables`, needs the setting on a link.
pub(crate) fn needs_loopback(netlink: &Nfnetlink, link: &str) -> Result<bool, kernel::Error> {
    if !netlink.has_nf_tables()? {
        return Ok(false);
    }
    let pods = netlink.elements(table(Family::V4).set(LOOPBACK_PODS))?;
    Ok(pods.iter().any(|pod| !pod.expires && is_on(pod, link))
        || reference::needs_loopback(netlink, link)?)
}

/// Whether a container of the reference plugins, or of the backend `iptables`, needs the setting on a link.
fn others_need(netlink: &Nfnetlink, link: &str) -> Result<bool, kernel::Error> {
    let mut needed = reference::needs_loopback(netlink, link)?;
    for iptables in &Iptables::all(netlink)? {
        needed = needed || iptables::needs_loopback(iptables, link)?;
    }
    Ok(needed)
}

/// Commits changes of which some switch off settings of links. Before each attempt and after a failure, it
/// switches on again what was switched off for an earlier attempt and is still needed.
pub(super) fn transaction(
    netlink: &Nfnetlink,
    mut build: impl FnMut(&mut Batch, &mut SwitchedOff) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut switched_off = SwitchedOff::default();
    let switch_on = |switched_off: &mut SwitchedOff| {
        switched_off
            .take_back(|link| Ok(needs_loopback(netlink, link)? || others_need(netlink, link)?))
    };
    let committed = netlink.transaction(|_| -> Result<Batch, Error> {
        switch_on(&mut switched_off)?;
        let mut batch = Batch::new();
        build(&mut batch, &mut switched_off)?;
        Ok(batch)
    });
    committed.map_err(|error| error.unless(switch_on(&mut switched_off)))
}

/// Whether a link has the setting because a mapping of this backend needed it.
pub(crate) fn has_switched_on(netlink: &Nfnetlink, link: &str) -> Result<bool, kernel::Error> {
    if !netlink.has_nf_tables()? {
        return Ok(false);
    }
    let guarded = netlink.element(table(Family::V4).set(GUARDED_LINKS), &interface_name(link))?;
    Ok(guarded.is_some_and(|link| is_switched_on(&link)))
}

/// Guards a link unless it is guarded. Its setting is switched on afterwards.
pub(super) fn add(
    netlink: &Nfnetlink,
    batch: &mut Batch,
    contents: &Contents,
    link: &str,
) -> Result<(), Error> {
    let key = interface_name(link);
    let is_same = |one: &&Element| one.key == key;
    let guarded = contents.elements(GUARDED_LINKS).iter().find(is_same);
    if guarded.is_some_and(|link| !link.expires) {
        return Ok(());
    }
    let mut switched_on = guarded.is_some_and(is_switched_on) || !loopback::is_on(link)?;
    if !switched_on {
        for iptables in &Iptables::all_with(netlink, iptables::GUARD_TABLE.name())? {
            switched_on |= iptables::has_switched_on(iptables, link)?;
        }
    }
    let comment = switched_on.then(|| SWITCHED_ON.to_owned());
    let element = Element { comment, ..Element::of_key(key) };
    batch.create_element(table(Family::V4).set(GUARDED_LINKS), &element);
    Ok(())
}

/// Adds what removes the guard of links whose last pods are among `doomed`, except of the link `kept`, and
/// switches off their settings.
pub(super) fn remove(
    netlink: &Nfnetlink,
    batch: &mut Batch,
    contents: &Contents,
    doomed: &[Owned<'_>],
    (how, kept): (Removal, Option<&str>),
    switched_off: &mut SwitchedOff,
) -> Result<(), kernel::Error> {
    let gone: Vec<&Element> = doomed
        .iter()
        .filter_map(|one| match one.place {
            OwnedPlace::Element(LOOPBACK_PODS, element) => Some(element),
            _ => None,
        })
        .collect();
    for guarded in contents.elements(GUARDED_LINKS) {
        let is_on = |pod: &Element| pod.key.starts_with(&guarded.key);
        let stays = |pod: &Element| {
            is_on(pod) && !pod.expires && !gone.iter().any(|gone| gone.key == pod.key)
        };
        let Some(link) = link_name(&guarded.key).filter(|link| Some(*link) != kept) else {
            continue;
        };
        if guarded.expires
            || !gone.iter().any(|pod| is_on(pod))
            || contents.elements(LOOPBACK_PODS).iter().any(stays)
        {
            continue;
        }
        match how {
            Removal::Expire => batch.expire_element(table(Family::V4).set(GUARDED_LINKS), guarded),
            Removal::Delete => {
                batch.delete_element(table(Family::V4).set(GUARDED_LINKS), &guarded.key);
            }
        }
        if is_switched_on(guarded) && !others_need(netlink, link)? {
            switched_off.add(link)?;
        }
    }
    Ok(())
}

/// The links that have the setting because a mapping of this backend needed it.
pub(super) fn switched_on_links(contents: &Contents) -> impl Iterator<Item = String> + '_ {
    let links = contents.elements(GUARDED_LINKS).iter().filter(|link| is_switched_on(link));
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
