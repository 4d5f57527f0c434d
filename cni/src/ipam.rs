//! Delegation to the network's IPAM plugin (specification, section 4).
//!
//! It gets the same configuration and the same environment; only undoing an ADD changes the
//! command. A network without an `ipam` section has no addresses, and nothing is run.

use std::ffi::OsStr;

use crate::call::Network;
use crate::environment::Command;
use crate::error::Error;
use crate::exec;
use crate::result::Success;

/// Asks for addresses; an empty result if the network has no IPAM.
pub fn add<C>(network: &Network<C>) -> Result<Success, Error> {
    let printed = delegate(network, Command::Add)?;
    printed.map_or_else(
        || Ok(Success::default()),
        |result| Success::from_json(&result, network.version),
    )
}

/// Gives the addresses back.
pub fn del<C>(network: &Network<C>) -> Result<(), Error> {
    delegate(network, Command::Del).map(drop)
}

/// Asks whether the addresses are still reserved.
pub fn check<C>(network: &Network<C>) -> Result<(), Error> {
    delegate(network, Command::Check).map(drop)
}

/// Lets it release what belongs to no valid attachment.
pub fn gc<C>(network: &Network<C>) -> Result<(), Error> {
    delegate(network, Command::Gc).map(drop)
}

/// Asks whether it could serve an ADD now.
pub fn status<C>(network: &Network<C>) -> Result<(), Error> {
    delegate(network, Command::Status).map(drop)
}

fn delegate<C>(network: &Network<C>, command: Command) -> Result<Option<serde_json::Value>, Error> {
    let Some(kind) = &network.ipam else {
        return Ok(None);
    };
    let program = exec::find(kind, &network.path)?;
    let changes = [("CNI_COMMAND", OsStr::new(command.as_str()))];
    exec::run(&program, &changes, &network.stdin)
        .map_err(|error| error.context(format!("IPAM plugin {kind}")))
}
