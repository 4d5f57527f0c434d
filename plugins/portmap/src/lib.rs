//! Leads ports of the node (`hostPort`) to the pod that an earlier plugin of the chain attached.
//!
//! ADD computes the rules as a plain value and adds them in one batch, for a new container nothing but
//! additions; CHECK compares the same value with what the kernel holds. DEL and GC find what is a container's
//! by its name, so they need neither namespace nor result nor mappings; and they look for what either backend
//! leaves, because a node may change over.

mod apply;
mod chains;
mod config;
mod ends;
mod error;
mod flows;
mod guard;
mod loopback;
mod mapping;
mod nftables;
mod plan;
mod purge;
mod remove;

pub use config::{Config, OnConflict, Settings};
pub use error::Error;
pub use mapping::{Entry, Mapping};
pub use purge::purge;

use attach::Pod;
use cni::{
    Call, Cidr, Code, ContainerId, Environment, Failures, Network, NetworkName, Plugin, Purge,
    Success, Undo, ValidAttachments,
};
use kernel::Family;
use kernel::Nfnetlink;

use crate::config::Backend;
use crate::ends::End;
use crate::plan::Plan;

/// The plugin.
#[derive(Clone, Copy, Debug, Default)]
pub struct Portmap;

impl Plugin for Portmap {
    const NAME: &'static str = "portmap";
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
        let pod = addresses(call, result);
        let is_mapped = !settings.mappings.is_empty() && !pod.is_empty();
        let netlink = Nfnetlink::open().map_err(Error::from)?;
        if !is_mapped && !netlink.has_nf_tables().map_err(Error::from)? {
            return Ok(result.clone());
        }
        let names = (&call.network.name, call.container_id());
        let needs_loopback = is_mapped && settings.needs_loopback();
        let link = if needs_loopback { loopback::link_towards(&pod)? } else { None };
        let link = link.as_deref();
        Undo::around(|undo| {
            let elements = nftables::Plan::new(names.0, names.1, settings, &pod, link);
            let mut replaced = match add_rules(&netlink, names, settings, &pod, &elements) {
                Err(error) if !error.may_have_changed_rules() => return Err(error.into()),
                added => {
                    undo.on_error("remove the rules", || {
                        let rules = remove::remove(&netlink, names.0, names.1, &mut Vec::new());
                        nftables::remove(&netlink, names.0, names.1, &mut Vec::new())?;
                        Ok(rules?)
                    });
                    added?
                }
            };
            take_over(&netlink, names, settings.backend, &elements, &mut replaced)?;
            flows::forget_ends(&netlink, &replaced)?;
            if let Some(link) = link {
                loopback::switch_on(link)?;
            }
            flows::forget_udp(&netlink, &settings.mappings, &pod)?;
            Ok(result.clone())
        })
    }

    fn check(&self, call: &Call<Config>, settings: &Settings) -> Result<(), cni::Error> {
        let result = call.previous_result()?;
        let pod = addresses(call, result);
        if settings.mappings.is_empty() || pod.is_empty() {
            return Ok(());
        }
        let netlink = Nfnetlink::open().map_err(Error::from)?;
        let names = (&call.network.name, call.container_id());
        match settings.backend {
            Backend::Iptables => {
                apply::check(&netlink, &Plan::new(names.0, names.1, settings, &pod))?;
            }
            Backend::Nftables => {
                nftables::check(
                    &netlink,
                    &nftables::Plan::new(names.0, names.1, settings, &pod, None),
                )?;
            }
        }
        Ok(())
    }

    fn del(&self, call: &Call<Config>) -> Result<(), cni::Error> {
        let netlink = Nfnetlink::open().map_err(Error::from)?;
        let names = (&call.network.name, call.container_id());
        let (mut failures, mut ends) = (Failures::new(), Vec::new());
        let remove_rules = || remove::remove(&netlink, names.0, names.1, &mut ends);
        failures.try_to("remove rules", remove_rules);
        let remove_elements = || nftables::remove(&netlink, names.0, names.1, &mut ends);
        failures.try_to("remove elements", remove_elements);
        // However far the removal came.
        failures.try_to("forget connections to it", || flows::forget_ends(&netlink, &ends));
        failures.try_to("forget its connections", || {
            // If it vanished some time ago, who knows whose its address is by now.
            if !ends.is_empty() && Pod::open_if_there(call.netns())?.is_some() {
                flows::forget_opened(&netlink, &ends)?;
            }
            Ok::<_, cni::Error>(())
        });
        failures.into_result()
    }

    fn gc(&self, network: &Network<Config>, valid: &ValidAttachments) -> Result<(), cni::Error> {
        let netlink = Nfnetlink::open().map_err(Error::from)?;
        let name = &network.name;
        let (mut failures, mut ends) = (Failures::new(), Vec::new());
        let remove_rules = || remove::collect_garbage(&netlink, name, valid, &mut ends);
        failures.try_to("remove rules", remove_rules);
        let remove_elements = || nftables::collect_garbage(&netlink, name, valid, &mut ends);
        failures.try_to("remove elements", remove_elements);
        // Not those from its address, which may be another's by now.
        failures.try_to("forget connections", || flows::forget_ends(&netlink, &ends));
        failures.into_result()
    }

    fn status(&self, _network: &Network<Config>, settings: &Settings) -> Result<(), cni::Error> {
        let status = match settings.backend {
            Backend::Iptables => apply::status(),
            Backend::Nftables => nftables::status(),
        };
        status.map_err(|error| cni::Error { code: Code::NotAvailable, ..error.into() })
    }

    fn purge(&self, purge: &mut Purge) {
        purge.all("purge portmap", crate::purge);
    }
}

/// Maps the ports with the backend of the configuration, and removes what the container has in that from an
/// ADD before; gives the ends that this led to.
fn add_rules(
    netlink: &Nfnetlink,
    (network, container_id): (&NetworkName, &ContainerId),
    settings: &Settings,
    pod: &[Cidr],
    elements: &nftables::Plan,
) -> Result<Vec<End>, Error> {
    if settings.backend == Backend::Nftables {
        return nftables::add(netlink, elements, settings.refuse_conflicts);
    }
    if settings.refuse_conflicts && netlink.has_nf_tables()? {
        nftables::find_holder(netlink, elements)?;
    }
    let plan = Plan::new(network, container_id, settings, pod);
    apply::add(netlink, &plan, elements.link(), settings.refuse_conflicts)
}

/// Removes what the container has of another backend, the reference plugins' `nftables` included, and takes
/// its ports from others there whose rules would come first.
fn take_over(
    netlink: &Nfnetlink,
    (network, container_id): (&NetworkName, &ContainerId),
    backend: Backend,
    elements: &nftables::Plan,
    ends: &mut Vec<End>,
) -> Result<(), Error> {
    match backend {
        Backend::Iptables if !netlink.has_nf_tables()? => return Ok(()),
        Backend::Iptables => nftables::remove_elements(netlink, network, container_id, ends)?,
        Backend::Nftables => {
            remove::remove(netlink, network, container_id, ends)?;
            nftables::take_from_iptables(netlink, elements)?;
        }
    }
    nftables::take_from_reference(netlink, elements, ends)
}

/// The pod's first IPv4 and its first IPv6 address, of those that are on its interface as far as the result
/// says where they are.
fn addresses(call: &Call<Config>, result: &Success) -> Vec<Cidr> {
    let all: Vec<Cidr> = result.ips_of(call.ifname().as_str()).map(|ip| ip.address).collect();
    let first =
        |family: Family| all.iter().find(move |cidr| Family::of(cidr.ip()) == family).copied();
    Family::ALL.into_iter().filter_map(first).collect()
}
