//! The backend `firewalld`: the pod's addresses become sources of a zone, in the runtime configuration.
//!
//! firewalld does not record the owner of a source. So the table of the backend `nftables` records it, and
//! DEL and GC find the sources without a result. That table also isolates bridges, because firewalld cannot
//! accept packets that another table drops.

pub(crate) mod bus;
mod message;

use std::cell::RefCell;
use std::net::IpAddr;

use cni::{Attachment, Failures, Undo};
use ipnetwork::IpNetwork;
use kernel::Nfnetlink;
use kernel::nft::{Chain, TableFamily};

use self::bus::{Bus, BusError};
use self::message::{Method, Value};
use crate::error::Error;
use crate::nftables;
use crate::owner::owner_name;
use crate::pod::Pod;

/// firewalld's chain for forwarded packets. It rejects packets that iptables or our table accepts.
const VERDICTS: Chain<'_> =
    Chain { family: TableFamily::Inet, table: "firewalld", name: "filter_FORWARD" };

const NAME: &str = "org.fedoraproject.FirewallD1";
const OBJECT: &str = "/org/fedoraproject/FirewallD1";
const ZONE: &str = "org.fedoraproject.FirewallD1.zone";
/// The zone that a source is in, whichever it is.
const ANY_ZONE: &str = "";

/// Whether firewalld's rules are in the kernel.
pub(crate) fn is_in_use(netlink: &Nfnetlink) -> Result<bool, kernel::Error> {
    Ok(netlink.has_nf_tables()? && netlink.has_chain(VERDICTS)?)
}

/// Makes a pod's addresses sources of a zone, and isolates its bridge. Removes the sources that an earlier
/// ADD has made for the pod's other addresses.
pub(crate) fn add(
    netlink: &Nfnetlink,
    owner: &Attachment,
    pod: &Pod,
    zone: &str,
) -> Result<(), cni::Error> {
    let mut firewalld = Firewalld::connect()?;
    let before = nftables::sources(netlink)?;
    let plan = nftables::Plan::of_sources(owner, pod);
    let replaced = nftables::add(netlink, &plan)?;
    // Sources that exist before belong to another pod or an earlier ADD.
    let made = RefCell::new(Vec::new());
    Undo::around(|undo| {
        undo.on_error("remove the sources", || {
            remove_all(netlink, Vec::new(), &made.borrow(), zone)?;
            // A DEL finds the sources that are left by their record.
            Ok(nftables::restore(netlink, &plan, &replaced)?)
        });
        for address in &pod.addresses {
            if !firewalld.has_source(zone, *address)? {
                made.borrow_mut().push(*address);
                firewalld.add_source(zone, *address)?;
            }
        }
        let name = owner_name(owner);
        for (address, of) in &before {
            if *of == name && !pod.addresses.contains(address) {
                firewalld.remove_source(ANY_ZONE, *address)?;
            }
        }
        Ok(())
    })
}

/// Finds an address that is not a source of the zone, or a missing part of the isolation of the bridge.
pub(crate) fn check(
    netlink: &Nfnetlink,
    owner: &Attachment,
    pod: &Pod,
    zone: &str,
) -> Result<(), Error> {
    nftables::check(netlink, &nftables::Plan::of_bridge(owner, pod))?;
    let mut firewalld = Firewalld::connect()?;
    for address in &pod.addresses {
        if !firewalld.has_source(zone, *address)? {
            let address = IpNetwork::from(*address);
            let command = format!("firewall-cmd --zone={zone} --add-source={address}");
            return Err(Error::missing("source", command));
        }
    }
    Ok(())
}

/// Removes the sources that a pod's ADD has made. Also removes these addresses from the zone if they have no
/// owner, as sources of the reference plugin.
pub(crate) fn remove(
    netlink: &Nfnetlink,
    owner: &Attachment,
    addresses: &[IpAddr],
    zone: &str,
) -> Result<(), cni::Error> {
    let owner = owner_name(owner);
    let (own, others): (Vec<_>, Vec<_>) =
        nftables::sources(netlink)?.into_iter().partition(|(_, of)| *of == owner);
    let mut unowned = addresses.to_vec();
    unowned.retain(|address| !others.iter().any(|(other, _)| other == address));
    remove_all(netlink, own, &unowned, zone)
}

/// Removes the sources of pods that are no longer valid.
pub(crate) fn collect_garbage(
    netlink: &Nfnetlink,
    is_garbage: impl Fn(&str) -> bool,
) -> Result<(), cni::Error> {
    let mut doomed = nftables::sources(netlink)?;
    doomed.retain(|(_, of)| is_garbage(of));
    remove_all(netlink, doomed, &[], ANY_ZONE)
}

/// Removes all sources that are recorded. A dry run changes nothing. Returns a line for each source.
pub(crate) fn purge(netlink: &Nfnetlink, dry_run: bool) -> Result<Vec<String>, cni::Error> {
    let all = nftables::sources(netlink)?;
    let shown = all.iter().map(|(address, _)| format!("firewalld: source {address}")).collect();
    if !dry_run {
        remove_all(netlink, all, &[], ANY_ZONE)?;
    }
    Ok(shown)
}

/// Checks that firewalld answers and has the zone.
pub(crate) fn status(netlink: &Nfnetlink, zone: &str, published: bool) -> Result<(), Error> {
    Firewalld::connect()?.has_source(zone, IpAddr::from([192, 0, 2, 1]))?;
    nftables::status(netlink, published)
}

/// Removes recorded sources from any zone, with the records of those that are gone, and other sources from
/// one zone.
fn remove_all(
    netlink: &Nfnetlink,
    mut recorded: Vec<(IpAddr, String)>,
    others: &[IpAddr],
    zone: &str,
) -> Result<(), cni::Error> {
    if recorded.is_empty() && others.is_empty() {
        return Ok(());
    }
    let mut failures = Failures::new();
    // Sources of the runtime configuration end with firewalld.
    if let Some(mut firewalld) = Firewalld::connect_if_there()? {
        let mut remove = |zone: &str, address| {
            let what = format!("remove source {address}");
            failures.try_to(what, || firewalld.remove_source(zone, address)).is_some()
        };
        recorded.retain(|(address, _)| remove(ANY_ZONE, *address));
        for address in others {
            remove(zone, *address);
        }
    }
    if !recorded.is_empty() {
        failures.try_to("remove records", || nftables::remove_sources(netlink, &recorded));
    }
    failures.into_result()
}

/// A connection to firewalld.
struct Firewalld(Bus);

impl Firewalld {
    fn connect() -> Result<Self, Error> {
        Ok(Self(Bus::system().map_err(not_there)?))
    }

    /// `None` if there is no bus, and so no firewalld.
    fn connect_if_there() -> Result<Option<Self>, Error> {
        match Bus::system() {
            Err(error) if error.is_absent() => Ok(None),
            connected => Ok(Some(Self(connected?))),
        }
    }

    /// Succeeds if the source is there already.
    fn add_source(&mut self, zone: &str, address: IpAddr) -> Result<(), Error> {
        match self.call("addSource", zone, address) {
            Err(error) if error.is_about("ZONE_ALREADY_SET") => Ok(()),
            added => added.map(drop).map_err(|error| of_zone(zone, error)),
        }
    }

    fn has_source(&mut self, zone: &str, address: IpAddr) -> Result<bool, Error> {
        let found = self.call("querySource", zone, address);
        Ok(found.map_err(|error| of_zone(zone, error))? == Value::Boolean(true))
    }

    /// Succeeds if the source or firewalld is not there.
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

/// The error of a call about a zone.
fn of_zone(zone: &str, error: BusError) -> Error {
    if error.is_about("INVALID_ZONE") {
        return Error::NoZone { zone: zone.to_owned(), source: error };
    }
    not_there(error)
}

/// The error of a call that firewalld must answer.
fn not_there(error: BusError) -> Error {
    if error.is_absent() { Error::NoFirewalld(error) } else { error.into() }
}
