//! Delegation to the network's IPAM plugin (specification, section 4).
//!
//! It gets the same configuration and the same environment; only undoing an ADD changes the
//! command. A network without an `ipam` section has no addresses, and nothing is run.

use std::ffi::OsStr;

use serde_json::Value;

use crate::call::Network;
use crate::environment::Command;
use crate::error::{Code, Error};
use crate::exec::{self, Running};
use crate::result::Success;

/// Addresses that were asked for, while the caller does something else.
#[derive(Debug)]
pub struct Asked<'a, C> {
    network: &'a Network<C>,
    running: Option<Running>,
}

/// Asks for addresses, without waiting for them. Whoever asks sees to it that [`del`] follows if
/// anything fails, the IPAM plugin itself included (specification, section 4).
pub fn start_add<C>(network: &Network<C>) -> Result<Asked<'_, C>, Error> {
    Ok(Asked { network, running: start(network, Command::Add)? })
}

impl<C> Asked<'_, C> {
    /// Waits for the addresses; an empty result if the network has no IPAM.
    pub fn finish(self) -> Result<Success, Error> {
        let printed = finish(self.network, self.running)?;
        printed.map_or_else(
            || Ok(Success::default()),
            |result| Success::read(&result, self.network.version),
        )
    }
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
///
/// Errors: code 50 also if it cannot be run at all; what it says of itself keeps its own code.
pub fn status<C>(network: &Network<C>) -> Result<(), Error> {
    delegate(network, Command::Status).map(drop).map_err(|error| match error.code {
        Code::Delegate => Error { code: Code::NotAvailable, ..error },
        _ => error,
    })
}

fn delegate<C>(network: &Network<C>, command: Command) -> Result<Option<Value>, Error> {
    finish(network, start(network, command)?)
}

fn start<C>(network: &Network<C>, command: Command) -> Result<Option<Running>, Error> {
    let Some(kind) = &network.ipam else {
        return Ok(None);
    };
    let program = exec::find(kind, &network.path)?;
    let changes = [("CNI_COMMAND", OsStr::new(command.as_str()))];
    exec::start(&program, &changes, &network.stdin)
        .map(Some)
        .map_err(|error| by_ipam(network, error))
}

fn finish<C>(network: &Network<C>, running: Option<Running>) -> Result<Option<Value>, Error> {
    let printed = running.map_or(Ok(None), Running::finish);
    printed.map_err(|error| by_ipam(network, error))
}

fn by_ipam<C>(network: &Network<C>, error: Error) -> Error {
    error.context(format!("IPAM plugin {}", network.ipam.as_deref().unwrap_or_default()))
}
