//! Delegation to the network's IPAM plugin (specification, section 4).
//!
//! It gets the same configuration and the same environment; only undoing an ADD changes the
//! command. A network without an `ipam` section has no addresses, and nothing is run.
//!
//! Because the configuration is the same, a plugin that delegates would, in the place of an IPAM plugin,
//! run itself again, and so on without end. [`validate`] refuses such a configuration.

use std::env;
use std::ffi::OsStr;

use serde_json::Value;

use crate::call::Network;
use crate::environment::Command;
use crate::error::{Code, Error};
use crate::exec::{self, Running};
use crate::result::Success;

/// The plugins that delegate to an IPAM plugin: those of this suite and of the reference suite.
const DELEGATING: [&str; 8] =
    ["bridge", "dummy", "host-device", "ipvlan", "macvlan", "ptp", "tap", "vlan"];

/// The variable that tells an IPAM plugin that it is run as one, for plugins that delegate under another
/// name.
const RUN_AS_IPAM: &str = "PODWIRE_RUN_AS_IPAM";

/// Refuses an IPAM plugin that delegates to an IPAM plugin itself, for [`crate::Plugin::settings`] of
/// plugins that delegate.
///
/// Errors: code 7, naming the key.
pub fn validate<C>(network: &Network<C>) -> Result<(), Error> {
    let Some(kind) = &network.ipam else {
        return Ok(());
    };
    let why = if DELEGATING.contains(&kind.as_str()) {
        format!("{kind:?} is not an IPAM plugin: it needs one itself, such as host-local or static")
    } else if env::var_os(RUN_AS_IPAM).is_some() {
        format!("this plugin was run as an IPAM plugin itself, and must not run {kind:?}")
    } else {
        return Ok(());
    };
    Err(Error::invalid_key("ipam.type", why))
}

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
    let cleans_up = matches!(command, Command::Del | Command::Gc);
    let program = match validate(network).and_then(|()| Ok(exec::find(kind, &network.path)?)) {
        Ok(program) => program,
        // With such a value, no ADD has reserved anything.
        Err(error) if cleans_up && error.code == Code::InvalidConfig => return Ok(None),
        Err(error) => return Err(error),
    };
    let changes = [("CNI_COMMAND", OsStr::new(command.as_str())), (RUN_AS_IPAM, OsStr::new("1"))];
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
