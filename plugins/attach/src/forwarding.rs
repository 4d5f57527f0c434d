//! IP forwarding, which makes the node a router.

use std::net::IpAddr;

use kernel::rtnl::{Link, Route};
use kernel::sysctl;
use kernel::{Family, Rtnl};

use crate::error::Error;
use crate::families::Families;

const IPV4: &[&str] = &["ipv4", "ip_forward"];
const IPV6: &[&str] = &["ipv6", "conf", "all", "forwarding"];

/// Finds whether forwarding is off for a family in use.
///
/// Errors: [`Error::Changed`] if it is.
pub fn check(used: Families) -> Result<(), Error> {
    match switched_off(used)?.first() {
        Some(name) => Err(Error::changed(format!("forwarding (net.{})", name.join(".")), "is off")),
        None => Ok(()),
    }
}

/// Finds out whether forwarding is on or could be switched on for the families that are in use.
pub fn try_out(used: Families) -> Result<(), Error> {
    switched_off(used)?.into_iter().try_for_each(|name| Ok(sysctl::try_out(name)?))
}

/// Switches forwarding on for the families that are in use. It is never switched off again, because other
/// programs may need it by then.
pub fn enable(node: &Rtnl, used: Families) -> Result<(), Error> {
    for name in switched_off(used)? {
        if name == IPV6 {
            keep_routers(node)?;
        }
        sysctl::write(name, "1")?;
    }
    Ok(())
}

fn switched_off(used: Families) -> Result<Vec<&'static [&'static str]>, Error> {
    let mut off = Vec::new();
    for (used, name) in [(used.ipv4, IPV4), (used.ipv6, IPV6)] {
        if used && sysctl::read(name)? == "0" {
            off.push(name);
        }
    }
    Ok(off)
}

/// Makes the node keep the routes that it has learned from routers: a node that forwards ignores router
/// advertisements, and forgets the default routes of earlier ones, unless `accept_ra` is 2 on their link.
///
/// `default` is not changed, because with 2 the node would accept advertisements of pods on every link that
/// any program makes later (CVE-2020-10749).
fn keep_routers(node: &Rtnl) -> Result<(), Error> {
    let routes = node.routes(Family::V6)?;
    for link in node.links()?.iter().filter(|link| may_lead_to_router(link, &routes)) {
        let name = ["ipv6", "conf", &link.name, "accept_ra"];
        match sysctl::read(&name) {
            Ok(value) if value == "1" => sysctl::write_if_possible(&name, "2")?,
            Err(error) if !error.is_not_found() => return Err(error.into()),
            _ => {}
        }
    }
    Ok(())
}

/// Whether advertisements on a link come from the node's own routers. Bridges and veths usually lead to pods;
/// one leads to a router if a route has a gateway there.
fn may_lead_to_router(link: &Link, routes: &[Route]) -> bool {
    let is_router = |gateway: IpAddr| match gateway {
        IpAddr::V6(gateway) => gateway.is_unicast_link_local(),
        IpAddr::V4(_) => false,
    };
    let leads_there =
        |route: &Route| route.link == Some(link.index) && route.gateway.is_some_and(is_router);
    match link.kind.as_deref() {
        Some("bridge" | "veth") => routes.iter().any(leads_there),
        _ => link.name != "lo",
    }
}
