//! The switch that makes a router of the node.

use kernel::sysctl;

use crate::error::Error;

const IPV6: &[&str] = &["ipv6", "conf", "all", "forwarding"];

/// Finds that forwarding is off for a family in use.
pub fn check(ipv4: bool, ipv6: bool) -> Result<(), Error> {
    for (used, name) in [(ipv4, &["ipv4", "ip_forward"][..]), (ipv6, IPV6)] {
        if used && sysctl::read(name)? == "0" {
            return Err(Error::changed(format!("forwarding (net.{})", name.join(".")), "is off"));
        }
    }
    Ok(())
}

/// Switches forwarding on for the families that are in use. It is never switched off again: others
/// may have come to need it.
pub fn enable(ipv4: bool, ipv6: bool) -> Result<(), Error> {
    if ipv4 {
        sysctl::write(&["ipv4", "ip_forward"], "1")?;
    }
    if ipv6 {
        sysctl::write(IPV6, "1")?;
    }
    Ok(())
}
