//! Accepts the forwarded packets of a pod that an earlier plugin of the chain attached.
//!
//! ADD computes what the pod needs as a plain value, and adds what is missing of it. CHECK compares the same
//! value with the kernel or firewalld. What ADD makes names its owner, so that DEL and GC find it without the
//! namespace and the result. They remove the leftovers of all backends, because a node may change from one to
//! another.

mod config;
mod error;
mod firewalld;
mod iptables;
mod nftables;
mod obstacle;
mod owner;
mod pod;
mod purge;

pub use config::{Config, Settings};
pub use purge::purge;

use cni::{Call, Code, Environment, Failures, Network, Plugin, Purge, Success, ValidAttachments};
use kernel::Nfnetlink;
use kernel::iptables::Iptables;

use crate::config::{BACKENDS, Backend};
use crate::error::Error;
use crate::pod::Pod;

/// The plugin.
#[derive(Clone, Copy, Debug, Default)]
pub struct Firewall;

impl Plugin for Firewall {
    const NAME: &'static str = "firewall";
    type Config = Config;
    type Settings = Settings;

    fn settings(
        &self,
        network: &Network<Config>,
        _environment: Option<&Environment>,
    ) -> Result<Settings, cni::Error> {
        network.config.settings()
    }

    fn add(&self, call: &Call<Config>, settings: &Settings) -> Result<Success, cni::Error> {
        let result = call.previous_result()?;
        let (pod, owner) = (Pod::of(result, settings)?, call.attachment());
        let netlink = Nfnetlink::open().map_err(Error::from)?;
        match chosen(&netlink, settings.backend)? {
            Backend::Iptables => iptables::add(&netlink, &owner, &pod, &settings.admin_chain)?,
            Backend::Nftables => {
                nftables::add(&netlink, &nftables::Plan::new(&owner, &pod))?;
            }
            Backend::Firewalld => firewalld::add(&netlink, &owner, &pod, &settings.zone)?,
        }
        Ok(result.clone())
    }

    fn check(&self, call: &Call<Config>, settings: &Settings) -> Result<(), cni::Error> {
        let result = call.previous_result()?;
        let (pod, owner) = (Pod::of(result, settings)?, call.attachment());
        let netlink = Nfnetlink::open().map_err(Error::from)?;
        let look = |backend| match backend {
            Backend::Iptables => iptables::check(&netlink, &owner, &pod, &settings.admin_chain),
            Backend::Nftables => nftables::check(&netlink, &nftables::Plan::new(&owner, &pod)),
            Backend::Firewalld => firewalld::check(&netlink, &owner, &pod, &settings.zone),
        };
        let backend = chosen(&netlink, settings.backend)?;
        let found = look(backend);
        // The node may have changed to another backend since the ADD. But firewalld rejects the packets of
        // addresses that it does not have.
        let all = BACKENDS.into_iter().filter_map(|(_, backend)| backend);
        let mut others = all.filter(|other| *other != backend);
        let may_be_elsewhere = settings.backend.is_none() && backend != Backend::Firewalld;
        if !(found.is_err() && may_be_elsewhere && others.any(|it| look(it).is_ok())) {
            found?;
        }
        let changed = |error| cni::Error { code: Code::Changed, ..cni::Error::from(error) };
        obstacle::check(&netlink, &pod.addresses).map_err(changed)
    }

    fn del(&self, call: &Call<Config>) -> Result<(), cni::Error> {
        let (backend, zone) = call.config().for_removal();
        let netlink = Nfnetlink::open().map_err(Error::from)?;
        let result = call.network.prev_result.as_ref();
        let addresses = result.map(pod::addresses).unwrap_or_default();
        let owner = call.attachment();
        let mut failures = Failures::new();
        failures.try_to("remove rules", || iptables::remove(&netlink, &owner, &addresses));
        failures.try_to("remove elements", || nftables::remove(&netlink, &owner));
        failures.try_to("remove sources from firewalld", || {
            // The reference plugin makes sources where an ADD would make them now.
            let is_chosen = chosen(&netlink, backend)? == Backend::Firewalld;
            let addresses = if is_chosen { addresses.as_slice() } else { &[] };
            firewalld::remove(&netlink, &owner, addresses, &zone)
        });
        failures.into_result()
    }

    fn gc(&self, network: &Network<Config>, valid: &ValidAttachments) -> Result<(), cni::Error> {
        let netlink = Nfnetlink::open().map_err(Error::from)?;
        let is_garbage = owner::is_garbage(&network.name, valid);
        let mut failures = Failures::new();
        failures.try_to("remove elements", || nftables::collect_garbage(&netlink, &is_garbage));
        failures.try_to("remove sources from firewalld", || {
            firewalld::collect_garbage(&netlink, &is_garbage)
        });
        failures.try_to("remove rules", || {
            let held = nftables::addresses(&netlink)?;
            iptables::collect_garbage(&netlink, &is_garbage, &held)
        });
        failures.into_result()
    }

    fn status(&self, _network: &Network<Config>, settings: &Settings) -> Result<(), cni::Error> {
        let netlink = Nfnetlink::open().map_err(Error::from)?;
        let status = chosen(&netlink, settings.backend).and_then(|backend| match backend {
            Backend::Iptables => iptables::status(&netlink),
            Backend::Nftables => nftables::status(&netlink, settings.published),
            Backend::Firewalld => firewalld::status(&netlink, &settings.zone, settings.published),
        });
        status.map_err(|error| cni::Error { code: Code::NotAvailable, ..error.into() })
    }

    fn purge(&self, purge: &mut Purge) {
        purge.all("purge firewall", crate::purge);
    }
}

/// The backend of the configuration, or what the node uses: firewalld rejects what other backends accept, and
/// the chain `FORWARD` of iptables may drop what our own table accepts.
fn chosen(netlink: &Nfnetlink, named: Option<Backend>) -> Result<Backend, Error> {
    Ok(match named {
        Some(backend) => backend,
        None if firewalld::is_in_use(netlink)? => Backend::Firewalld,
        None if Iptables::is_in_use(netlink)? => Backend::Iptables,
        None => Backend::Nftables,
    })
}
