//! Delegation to the network's IPAM plugin (specification, section 4).
//!
//! The IPAM plugin gets the same configuration and the same environment; only `CNI_COMMAND` differs when a
//! failed ADD is undone. Without the key `ipam`, no plugin is run and there are no addresses.
//!
//! If `ipam.type` named a plugin that delegates, that plugin would get the same `ipam.type` and run itself
//! without end. [`validate`] refuses such a configuration.

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

/// The variable that is set for an IPAM plugin. A plugin that delegates and finds it set refuses to run, even
/// if its program has another name.
const RUN_AS_IPAM: &str = "PODWIRE_RUN_AS_IPAM";

/// Refuses an IPAM plugin that itself delegates to an IPAM plugin. Plugins that delegate call this in
/// [`crate::Plugin::settings`].
///
/// Errors: code 7, naming the key.
pub fn validate<C>(network: &Network<C>) -> Result<(), Error> {
    let Some(kind) = &network.ipam else {
        return Ok(());
    };
    let why = if DELEGATING.contains(&kind.as_str()) {
        format!("{kind:?} is not an IPAM plugin; use one such as host-local or static")
    } else if env::var_os(RUN_AS_IPAM).is_some() {
        format!("this plugin was run as an IPAM plugin, so it must not run {kind:?}")
    } else {
        return Ok(());
    };
    Err(Error::invalid_key("ipam.type", why))
}

/// An ADD of the IPAM plugin that runs while the caller does other work.
#[derive(Debug)]
pub struct Asked<'a, C> {
    network: &'a Network<C>,
    running: Option<Running>,
}

/// Starts an ADD of the IPAM plugin and does not wait for it. If anything fails afterwards, also the IPAM
/// plugin itself, the caller must call [`del`] (specification, section 4).
pub fn start_add<C>(network: &Network<C>) -> Result<Asked<'_, C>, Error> {
    Ok(Asked { network, running: start(network, Command::Add)? })
}

impl<C> Asked<'_, C> {
    /// Waits for the result, which is empty if the network has no IPAM plugin.
    pub fn finish(self) -> Result<Success, Error> {
        let printed = finish(self.network, self.running)?;
        printed.map_or_else(
            || Ok(Success::default()),
            |result| Success::read(&result, self.network.version),
        )
    }
}

/// Releases the addresses.
pub fn del<C>(network: &Network<C>) -> Result<(), Error> {
    delegate(network, Command::Del).map(drop)
}

/// Runs the IPAM plugin's CHECK: whether the addresses are still reserved.
pub fn check<C>(network: &Network<C>) -> Result<(), Error> {
    delegate(network, Command::Check).map(drop)
}

/// Runs the IPAM plugin's GC, which releases the addresses of attachments that no longer exist.
pub fn gc<C>(network: &Network<C>) -> Result<(), Error> {
    delegate(network, Command::Gc).map(drop)
}

/// Runs the IPAM plugin's STATUS: whether an ADD can succeed now.
///
/// Errors: those of the plugin, with their code; code 50 if the plugin cannot be run.
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
        // An ADD refuses this value, so none has reserved an address.
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
