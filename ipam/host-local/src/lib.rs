//! An IPAM plugin that assigns addresses from ranges of the configuration, and stores leases on the node's
//! disk.
//!
//! [`config`] reads the [`ranges`] and the addresses that the runtime requests. [`store`] contains the
//! leases. [`allocate`] chooses the next addresses. A lease is a file, and creating it reserves the address,
//! so the duration of an ADD does not depend on the number of leases.

use std::path::PathBuf;

use cni::{
    Call, Code, Environment, Error, Failures, Network, Plugin, Purge, Success, ValidAttachments,
    file,
};

pub mod allocate;
pub mod boot;
pub mod config;
pub mod index;
pub mod lease;
mod purge;
pub mod ranges;
pub mod resolv_conf;
pub mod store;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

use crate::boot::BootId;
use crate::config::{Config, Plan};
use crate::lease::Owner;
use crate::store::{Leases, Store, StoreError};

/// The plugin.
#[derive(Clone, Debug)]
pub struct HostLocal {
    /// The directory of the indexes ([`index`]).
    pub index_root: PathBuf,
}

impl Default for HostLocal {
    fn default() -> Self {
        Self { index_root: "/run/podwire/host-local".into() }
    }
}

impl Plugin for HostLocal {
    const NAME: &'static str = "host-local";

    type Config = Config;
    type Settings = Plan;

    fn settings(
        &self,
        network: &Network<Config>,
        environment: Option<&Environment>,
    ) -> Result<Plan, Error> {
        let args = Environment::args_of(environment);
        network.config.plan(network.version, &args)
    }

    fn add(&self, call: &Call<Config>, plan: &Plan) -> Result<Success, Error> {
        let dns = plan.resolv_conf.as_deref().map(resolv_conf::read).transpose()?;
        let leases = leases(&call.network);
        let store = Store::create(&leases, &self.index_root)?;
        let allocated = allocate::allocate(&store, plan, &call.attachment());
        store.close();

        let (draft, ips) = allocated?;
        if let Err(source) = draft.sync() {
            let mut error = Error::from(StoreError::Sync(leases.dir().to_owned(), source));
            if let Err(another) = self.del(call) {
                error.also(&format!("and undoing the ADD: {another}"));
            }
            return Err(error);
        }
        let dns = dns.unwrap_or_default();
        Ok(Success { ips, routes: plan.routes.clone(), dns, ..Success::default() })
    }

    fn check(&self, call: &Call<Config>, plan: &Plan) -> Result<(), Error> {
        let attachment = call.attachment();
        let leases = leases(&call.network);
        let held = match Store::open(&leases, &self.index_root)? {
            Some(store) => {
                let held = store.held(&attachment)?;
                store.close();
                held
            }
            None => Vec::new(),
        };
        let missing = |what: String| {
            let owner = Owner::Attachment(attachment.clone());
            let why = format!("{what} is leased to {owner} in {}", leases.dir().display());
            Err(Error::new(Code::Changed, why))
        };
        if held.is_empty() {
            return missing("no address".into());
        }
        // The result of a chain can contain addresses of other plugins.
        let ours = |ip: &_| plan.sets.iter().any(|named| named.set.contains(*ip));
        let result = call.network.prev_result.iter().flat_map(|result| &result.ips);
        match result.map(|ip| ip.address.ip()).filter(ours).find(|ip| !held.contains(ip)) {
            Some(ip) => missing(format!("{ip} of the result is not an address that")),
            None => Ok(()),
        }
    }

    fn del(&self, call: &Call<Config>) -> Result<(), Error> {
        let attachment = call.attachment();
        let Some(store) = Store::open(&leases(&call.network), &self.index_root)? else {
            return Ok(());
        };
        let mut failures = Failures::new();
        for ip in store.held(&attachment)? {
            failures.try_to(format!("free {ip}"), || store.release(ip));
        }
        failures.into_result()?;
        store.note(&attachment, &[]);
        store.close();
        Ok(())
    }

    fn gc(&self, network: &Network<Config>, valid: &ValidAttachments) -> Result<(), Error> {
        let Some(store) = Store::open(&leases(network), &self.index_root)? else {
            return Ok(());
        };
        let mut failures = Failures::new();
        let mut kept = Vec::new();
        for (ip, owner) in store.survey()? {
            let keep = match &owner {
                Owner::Attachment(attachment) => valid.contains(attachment),
                Owner::Container(id) => valid.contains_container(id.as_str()),
                Owner::Unfinished => false,
                Owner::Other => true,
            };
            let freed =
                !keep && failures.try_to(format!("free {ip}"), || store.release(ip)).is_some();
            if !freed {
                kept.push((ip, owner));
            }
        }
        store.reindex(&kept);
        store.close();
        failures.into_result()
    }

    fn status(&self, network: &Network<Config>, plan: &Plan) -> Result<(), Error> {
        let leases = leases(network);
        let unavailable = |error: Error| Error { code: Code::NotAvailable, ..error };
        plan.resolv_conf
            .as_deref()
            .map_or(Ok(()), |path| resolv_conf::read(path).map(drop))
            .map_err(|error| unavailable(error.into()))?;
        leases.refuse_unsafe(plan.sets.len()).map_err(|error| unavailable(error.into()))?;
        file::is_writable(leases.dir()).map_err(|error| {
            let what = format!("no lease can be written in {}", leases.dir().display());
            Error { code: Code::NotAvailable, msg: what, details: error.to_string() }
        })?;
        let boot = BootId::current().filter(|_| plan.reclaim_after_reboot);
        for (number, named) in plan.sets.iter().enumerate() {
            if !allocate::has_room(&leases, number, named, boot.as_ref())? {
                let why = format!("no address is free in {} (key {:?})", named.set, named.key);
                return Err(Error::new(Code::NotAvailable, why));
            }
        }
        Ok(())
    }

    fn purge(&self, purge: &mut Purge) {
        self.purge_all(purge);
    }
}

fn leases(network: &Network<Config>) -> Leases {
    Leases::of(&network.config.data_dir(), network.name.clone())
}
