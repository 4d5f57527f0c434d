//! The backend `firewalld`: addresses of pods become sources of one of its zones, as long as it runs.
//!
//! firewalld does not know whose a source is, so our own table notes it: by that, DEL and GC find sources
//! without a result. Bridges are kept apart there too, for what our table drops, firewalld cannot let
//! through.

pub(crate) mod bus;
mod message;

use std::cell::RefCell;
use std::net::IpAddr;

use cni::{Failures, Undo};
use ipnetwork::IpNetwork;
use kernel::Nfnetlink;
use kernel::nft::{Chain, TableFamily};

use self::bus::Bus;
use self::message::{Method, Value};
use crate::error::Error;
use crate::nftables;
use crate::owner::{Garbage, Owner};
use crate::pod::Pod;

use self::bus::BusError;

/// What decides about forwarded packets where firewalld runs, and rejects what iptables or we accept.
const VERDICTS: Chain<'_> =
    Chain { family: TableFamily::Inet, table: "firewalld", name: "filter_FORWARD" };

const NAME: &str = "org.fedoraproject.FirewallD1";
const OBJECT: &str = "/org/fedoraproject/FirewallD1";
const ZONE: &str = "org.fedoraproject.FirewallD1.zone";

/// Whether firewalld's rules are in the kernel.
pub(crate) fn is_in_use(netlink: &Nfnetlink) -> Result<bool, kernel::Error> {
    Ok(netlink.has_nf_tables()? && netlink.has_chain(VERDICTS)?)
}

/// Makes a pod's addresses sources of a zone, and keeps its bridge apart. Those of an ADD before go.
pub(crate) fn add(
    netlink: &Nfnetlink,
    owner: &Owner,
    pod: &Pod,
    zone: &str,
) -> Result<(), cni::Error> {
    let mut firewalld = Firewalld::connect()?;
    let before = nftables::sources(netlink)?;
    let plan = nftables::Plan::of_sources(owner.clone(), pod);
    let replaced = nftables::add(netlink, &plan)?;
    let made = RefCell::new(Vec::new());
    Undo::around(|undo| {
        // What another pod or an ADD before has made stays theirs.
        undo.on_error("take the sources back", || {
            take_back(zone, &made.borrow())?;
            Ok(nftables::restore(netlink, &plan, &replaced)?)
        });
        for address in &pod.addresses {
            if !firewalld.has_source(zone, *address)? {
                made.borrow_mut().push(*address);
                firewalld.add_source(zone, *address)?;
            }
        }
        for (address, of) in &before {
            if of == owner.as_str() && !pod.addresses.contains(address) {
                firewalld.remove_source(ANY_ZONE, *address)?;
            }
        }
        Ok(())
    })
}

/// Removes sources of a zone.
fn take_back(zone: &str, made: &[IpAddr]) -> Result<(), Error> {
    if made.is_empty() {
        return Ok(());
    }
    let Some(mut firewalld) = Firewalld::connect_if_there()? else { return Ok(()) };
    made.iter().try_for_each(|address| firewalld.remove_source(zone, *address))
}

/// Finds an address that is no source of the zone, whoever made it, or what does not keep the bridge apart.
pub(crate) fn check(
    netlink: &Nfnetlink,
    owner: &Owner,
    pod: &Pod,
    zone: &str,
) -> Result<(), Error> {
    nftables::check(netlink, &nftables::Plan::of_bridge(owner.clone(), pod))?;
    let mut firewalld = Firewalld::connect()?;
    for address in &pod.addresses {
        if !firewalld.has_source(zone, *address)? {
            let (zone, source_address) = (zone.to_owned(), IpNetwork::from(*address));
            return Err(Error::MissingSource { zone, source_address });
        }
    }
    Ok(())
}

/// Removes the sources that a pod's ADD made; in the zone, also those without owner, as the reference plugin
/// leaves them, at the addresses that the result tells.
pub(crate) fn remove(
    netlink: &Nfnetlink,
    owner: &Owner,
    addresses: &[IpAddr],
    zone: &str,
) -> Result<(), cni::Error> {
    let (own, others): (Vec<_>, Vec<_>) =
        nftables::sources(netlink)?.into_iter().partition(|(_, of)| of == owner.as_str());
    remove_all(netlink, own)?;
    if addresses.is_empty() {
        return Ok(());
    }
    let nobodys = addresses.iter().filter(|it| !others.iter().any(|(address, _)| address == *it));
    let Some(mut firewalld) = Firewalld::connect_if_there()? else { return Ok(()) };
    for address in nobodys {
        firewalld.remove_source(zone, *address)?;
    }
    Ok(())
}

/// Removes the sources of pods that are not valid any more.
pub(crate) fn collect_garbage(netlink: &Nfnetlink, garbage: &Garbage) -> Result<(), cni::Error> {
    let mut doomed = nftables::sources(netlink)?;
    doomed.retain(|(_, of)| garbage.contains(of));
    remove_all(netlink, doomed)
}

/// Removes all sources that are noted; or only says which, a line for each.
pub(crate) fn purge(netlink: &Nfnetlink, dry_run: bool) -> Result<Vec<String>, cni::Error> {
    let all = nftables::sources(netlink)?;
    let shown = all.iter().map(|(address, _)| format!("firewalld: source {address}")).collect();
    if !dry_run {
        remove_all(netlink, all)?;
    }
    Ok(shown)
}

/// Whether firewalld answers, and has the zone.
pub(crate) fn status(netlink: &Nfnetlink, zone: &str, published: bool) -> Result<(), Error> {
    Firewalld::connect()?.has_source(zone, IpAddr::from([192, 0, 2, 1]))?;
    nftables::status(netlink, published)
}

/// Removes sources of ours from whatever zones, and then the notes of those that are gone.
fn remove_all(netlink: &Nfnetlink, mut doomed: Vec<(IpAddr, String)>) -> Result<(), cni::Error> {
    if doomed.is_empty() {
        return Ok(());
    }
    let mut failures = Failures::new();
    // Sources live as long as firewalld runs.
    if let Some(mut firewalld) = Firewalld::connect_if_there()? {
        let mut remove = |address| firewalld.remove_source(ANY_ZONE, address);
        doomed.retain(|(address, _)| {
            failures.try_to(format!("remove source {address}"), || remove(*address)).is_some()
        });
    }
    failures.try_to("forget the sources", || nftables::remove_sources(netlink, &doomed));
    failures.into_result()
}

/// The zone that a source is in, whichever that is.
const ANY_ZONE: &str = "";

/// A connection to firewalld.
struct Firewalld(Bus);

impl Firewalld {
    fn connect() -> Result<Self, Error> {
        Ok(Self(Bus::system().map_err(silent)?))
    }

    /// None if there is no bus, and so no firewalld.
    fn connect_if_there() -> Result<Option<Self>, Error> {
        match Bus::system() {
            Err(error) if error.is_absent() => Ok(None),
            connected => Ok(Some(Self(connected?))),
        }
    }

    /// Already there is success.
    fn add_source(&mut self, zone: &str, address: IpAddr) -> Result<(), Error> {
        match self.call("addSource", zone, address) {
            Err(error) if error.is_about("ZONE_ALREADY_SET") => Ok(()),
            added => added.map(drop).map_err(|error| of_zone(zone, error)),
        }
    }

    fn has_source(&mut self, zone: &str, address: IpAddr) -> Result<bool, Error> {
        let found = self.call("querySource", zone, address);
        Ok(found.map_err(|error| of_zone(zone, error))? == Value::Truth(true))
    }

    /// Success if it is not there, or firewalld is not there.
    fn remove_source(&mut self, zone: &str, address: IpAddr) -> Result<(), Error> {
        const NOT_THERE: [&str; 3] = ["UNKNOWN_SOURCE", "ZONE_CONFLICT", "INVALID_ZONE"];
        let is_gone = |error: &BusError| NOT_THERE.iter().any(|code| error.is_about(code));
        match self.call("removeSource", zone, address) {
            Err(error) if error.is_absent() || is_gone(&error) => Ok(()),
            removed => Ok(removed.map(drop)?),
        }
    }

    fn call(&mut self, name: &str, zone: &str, address: IpAddr) -> Result<Value, BusError> {
        let method = Method { destination: NAME, path: OBJECT, interface: ZONE, name };
        self.0.call(method, &[zone, &IpNetwork::from(address).to_string()])
    }
}

/// What it means that firewalld refuses to do something with a zone.
fn of_zone(zone: &str, error: BusError) -> Error {
    if error.is_about("INVALID_ZONE") {
        return Error::NoZone { zone: zone.to_owned(), source: error };
    }
    silent(error)
}

/// What it means that nobody answers.
fn silent(error: BusError) -> Error {
    if error.is_absent() { Error::NoFirewalld(error) } else { error.into() }
}
