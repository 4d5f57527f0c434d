//! When the IPAM plugin is asked: before, beside or after what is done to the pod's interface.

use cni::{Error, Failures, Network, Success, Undo, ipam};

/// Asks the IPAM plugin for addresses and makes the interface with `connect`: both at a time, because neither
/// waits for the other; but first the interface if the IPAM plugin works with it. Registers what releases
/// the addresses.
pub fn add_with<'a, C, T>(
    network: &'a Network<C>,
    undo: &mut Undo<'a>,
    connect: impl FnOnce(&mut Undo<'a>) -> Result<T, Error>,
) -> Result<(T, Success), Error> {
    let release = || ipam::del(network);
    if needs_interface(network) {
        let made = connect(undo)?;
        // Registered after the interface, to be run while it is there.
        undo.on_error("release the addresses", release);
        return Ok((made, ipam::start_add(network)?.finish()?));
    }
    undo.on_error("release the addresses", release);
    let asked = ipam::start_add(network)?;
    let made = connect(undo)?;
    Ok((made, asked.finish()?))
}

/// Deletes the interface with `detach` and releases the addresses: after that, so that nobody gets an
/// address while this pod could still use it; but before that if the IPAM plugin works with the interface.
pub fn del_with<C>(
    network: &Network<C>,
    failures: &mut Failures,
    detach: impl FnOnce(&mut Failures),
) {
    let release = |failures: &mut Failures| {
        failures.try_to("release the addresses", || ipam::del(network));
    };
    if needs_interface(network) {
        release(failures);
        detach(failures);
    } else {
        detach(failures);
        release(failures);
    }
}

/// Whether the IPAM plugin sends and receives by the pod's interface, as `dhcp` does, which tells the server
/// of the release.
fn needs_interface<C>(network: &Network<C>) -> bool {
    network.ipam.as_deref() == Some("dhcp")
}
