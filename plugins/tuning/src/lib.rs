//! Changes sysctls of the pod's namespace, and attributes of the interface that an earlier plugin of the
//! chain has made.
//!
//! ADD reads the current values, writes them to a [`backup`], and sets the [`Wanted`] ones. CHECK compares
//! the wanted values with the kernel's. DEL restores the values of the backup that the pod allows, and
//! removes the backup; if the namespace no longer exists, it only removes the backup. GC reads the owner of
//! each backup from the file.

pub mod allowlist;
pub mod backup;
mod config;
mod error;
mod purge;
pub mod sysctl;
pub mod wanted;

pub use config::Config;
pub use error::Error;

use std::path::PathBuf;

use attach::Pod;
use cni::{
    Call, Code, Environment, Failures, Network, Plugin, Purge, Success, Undo, ValidAttachments,
};

use crate::backup::Backup;
use crate::wanted::Wanted;

/// The plugin.
#[derive(Clone, Debug)]
pub struct Tuning {
    /// The file that lists the sysctls which can be set.
    pub allowlist: PathBuf,
}

impl Default for Tuning {
    fn default() -> Self {
        Self { allowlist: allowlist::DEFAULT.into() }
    }
}

impl Plugin for Tuning {
    const NAME: &'static str = "tuning";
    type Config = Config;
    type Settings = Wanted;

    fn settings(
        &self,
        network: &Network<Config>,
        environment: Option<&Environment>,
    ) -> Result<Wanted, cni::Error> {
        config::refuse_names_given_twice(&network.stdin)?;
        let args = Environment::args_of(environment);
        let ifname = environment.map_or(sysctl::PLACEHOLDER, |it| it.ifname.as_str());
        network.config.wanted(&args, ifname)
    }

    fn add(&self, call: &Call<Config>, wanted: &Wanted) -> Result<Success, cni::Error> {
        let result = call.previous_result()?.clone();
        allowlist::check(&self.allowlist, wanted.sysctls())?;
        if wanted.is_empty() {
            return Ok(result);
        }
        let ifname = call.ifname().as_str();
        let pod = Pod::open(call.require_netns()?)?;
        let link = pod.rtnl.link_by_name(ifname).map_err(Error::from)?;
        let before = wanted.before(&pod, ifname, link.as_ref())?;
        let backup = Backup::new(call.config().data_dir(), call.attachment());
        // The backup of an earlier tuning in the same chain, or of an ADD without a DEL, has the values
        // before that. The backup of an earlier interface with the same name is not used.
        let earlier = backup.load_own()?.filter(|earlier| earlier.is_of(link.as_ref()));
        Undo::around(|undo| {
            undo.on_error("restore the values", || {
                before.restore(&pod, ifname)?;
                Ok(backup.replace_by(earlier.as_ref())?)
            });
            if !before.is_empty() {
                backup.save(&before.after(earlier.as_ref()))?;
            }
            wanted.apply(&pod, ifname)?;
            Ok(wanted.update(result, ifname))
        })
    }

    fn check(&self, call: &Call<Config>, wanted: &Wanted) -> Result<(), cni::Error> {
        call.previous_result()?;
        if wanted.is_empty() {
            return Ok(());
        }
        Ok(wanted.compare(&Pod::open(call.require_netns()?)?, call.ifname().as_str())?)
    }

    fn del(&self, call: &Call<Config>) -> Result<(), cni::Error> {
        let backup = Backup::new(call.config().data_dir(), call.attachment());
        if let Some(before) = backup.load()?
            && let Some(pod) = Pod::open_if_there(call.netns())?
            && let Err(error) = before.restore(&pod, call.ifname().as_str())
        {
            // The pod is being removed, and may itself be the cause.
            eprintln!("tuning: not all values of the pod are restored: {error}");
        }
        Ok(backup.remove()?)
    }

    fn gc(&self, network: &Network<Config>, valid: &ValidAttachments) -> Result<(), cni::Error> {
        let mut failures = Failures::new();
        for file in backup::files(network.config.data_dir())? {
            failures.try_to("collect garbage", || match backup::owner(&file)? {
                Some(owner) if valid.is_garbage(&owner) => backup::remove_file(&file),
                _ => Ok(()),
            });
        }
        failures.into_result()
    }

    fn status(&self, network: &Network<Config>, wanted: &Wanted) -> Result<(), cni::Error> {
        let not_available = |error: Error| cni::Error { code: Code::NotAvailable, ..error.into() };
        match allowlist::check(&self.allowlist, wanted.sysctls()) {
            Err(error @ Error::File { .. }) => return Err(not_available(error)),
            checked => checked?,
        }
        if wanted.is_empty() {
            return Ok(());
        }
        if wanted.sysctls().next().is_some() {
            sysctl::are_writable().map_err(not_available)?;
        }
        backup::is_writable(network.config.data_dir()).map_err(not_available)
    }

    fn purge(&self, purge: &mut Purge) {
        purge::purge(purge);
    }
}
