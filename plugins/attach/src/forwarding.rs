//! The switch that makes a router of the node.

use kernel::sysctl;

use crate::error::Error;

/// Switches forwarding on for the families that are in use. It is never switched off again: others
/// may have come to need it.
pub fn enable(ipv4: bool, ipv6: bool) -> Result<(), Error> {
    if ipv4 {
        sysctl::write(&["ipv4", "ip_forward"], "1")?;
    }
    if ipv6 {
        sysctl::write(&["ipv6", "conf", "all", "forwarding"], "1")?;
    }
    Ok(())
}
