//! When the IPAM plugin runs: before, beside or after the changes to the pod's interface.

use cni::{Code, Failures, Network, Success, Undo, ipam};

use crate::error::Error;

/// Refuses a configuration without `ipam`, for a plugin that needs addresses: `why` says what for.
pub fn require<C>(network: &Network<C>, why: &str) -> Result<(), cni::Error> {
    if network.ipam.is_some() {
        return Ok(());
    }
    let text = format!("key \"ipam\" of the configuration is missing: {why}");
    Err(cni::Error::new(Code::InvalidConfig, text))
}

/// Adds to a plugin's schema that `ipam` is required.
#[cfg(feature = "schema")]
pub fn require_in_schema(schema: &mut schemars::Schema) {
    let ipam = schemars::json_schema!({
        "description": "The plugin that gives the addresses; required",
        "type": "object",
        "required": ["type"],
    });
    schema.insert("required".to_owned(), vec!["ipam"].into());
    let properties =
        schema.ensure_object().entry("properties").or_insert_with(|| serde_json::json!({}));
    properties["ipam"] = ipam.into();
}

/// Asks the IPAM plugin for addresses and makes the interface with `connect`, both at the same time, because
/// neither waits for the other. If the IPAM plugin uses the interface, the interface is made first. Registers
/// how to release the addresses.
///
/// Returns the result of the IPAM plugin for an ADD whose result has the pod's interface at `index`.
///
/// Errors: also [`Error::NoAddress`], if the network has an IPAM plugin that gives no address.
pub fn add_with<'a, C, T>(
    network: &'a Network<C>,
    index: usize,
    undo: &mut Undo<'a>,
    connect: impl FnOnce(&mut Undo<'a>) -> Result<T, cni::Error>,
) -> Result<(T, Success), cni::Error> {
    let (made, lease) = add(network, undo, connect)?;
    if network.ipam.is_some() && lease.ips.is_empty() {
        return Err(Error::NoAddress.into());
    }
    let mut result = Success { interfaces: Vec::new(), ..lease };
    for ip in &mut result.ips {
        ip.interface = Some(index);
    }
    Ok((made, result))
}

fn add<'a, C, T>(
    network: &'a Network<C>,
    undo: &mut Undo<'a>,
    connect: impl FnOnce(&mut Undo<'a>) -> Result<T, cni::Error>,
) -> Result<(T, Success), cni::Error> {
    let release = || ipam::del(network);
    if needs_interface(network) {
        let made = connect(undo)?;
        // Registered after the interface, so that it runs while the interface is there.
        undo.on_error("release the addresses", release);
        return Ok((made, ipam::start_add(network)?.finish()?));
    }
    undo.on_error("release the addresses", release);
    let asked = ipam::start_add(network)?;
    let made = connect(undo)?;
    Ok((made, asked.finish()?))
}

/// Deletes the interface with `detach` and then, even if that fails, releases the addresses. If the IPAM
/// plugin uses the interface, the addresses are released first.
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

/// Finds out whether an ADD could work now: first with `look`, then by asking the IPAM plugin.
///
/// Errors: code 50 for all errors of `look`.
pub fn status_with<C, E: Into<cni::Error>>(
    network: &Network<C>,
    look: impl FnOnce() -> Result<(), E>,
) -> Result<(), cni::Error> {
    look().map_err(|error| cni::Error { code: Code::NotAvailable, ..error.into() })?;
    ipam::status(network)
}

/// Whether the IPAM plugin sends and receives through the pod's interface. `dhcp` does, also to release an
/// address.
fn needs_interface<C>(network: &Network<C>) -> bool {
    network.ipam.as_deref() == Some("dhcp")
}
