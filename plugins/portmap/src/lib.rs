//! Leads ports of the node (`hostPort`) to the pod that an earlier plugin of the chain attached.
//!
//! A `Plan` is what an ADD asks for. The two backends, `iptables` and `nftables`, have the same functions:
//! `add` turns the plan into rules or elements and adds them in one batch, `check` compares them with the
//! kernel. `remove` (DEL) and `collect_garbage` (GC) find them by the owner's names, so that they need
//! neither namespace nor result nor mappings. DEL and GC use both backends, because the configuration may
//! have changed.

mod claim;
mod config;
mod error;
mod flows;
mod iptables;
mod loopback;
mod mapping;
mod nftables;
mod plan;
mod purge;

pub use config::{Config, OnConflict, Settings};
pub use error::Error;
pub use mapping::{Entry, Mapping};
pub use purge::purge;

use attach::Pod;
use cni::{
    Attachment, Call, Code, Environment, Network, Plugin, Purge, Success, Undo, ValidAttachments,
};
use kernel::Nfnetlink;

use crate::claim::{End, Removed};
use crate::config::Backend;
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
        let mut plan = Plan::new(call, settings, result);
        let netlink = Nfnetlink::open().map_err(Error::from)?;
        if plan.is_empty() {
            // An earlier ADD may have mapped ports.
            if netlink.has_nf_tables().map_err(Error::from)? {
                let ends = remove(&netlink, &plan.owner).into_result()?;
                flows::forget_ends(&netlink, &ends)?;
            }
            return Ok(result.clone());
        }
        if settings.needs_loopback() {
            plan.link = loopback::link_towards(&plan.pod)?;
        }
        find_holder(&netlink, &plan)?;
        Undo::around(|undo| {
            let mut ends = match add_rules(&netlink, &plan) {
                Err(error) if !error.may_have_changed_rules() => return Err(error.into()),
                added => {
                    // Other containers do not get back the ports that were taken from them.
                    undo.on_error("remove the rules", || {
                        remove(&netlink, &plan.owner).into_result().map(drop)
                    });
                    added?
                }
            };
            ends.extend(take_over(&netlink, &plan)?);
            flows::forget_ends(&netlink, &ends)?;
            if let Some(link) = &plan.link {
                loopback::switch_on(link)?;
            }
            flows::forget_udp(&netlink, &plan)?;
            Ok(result.clone())
        })
    }

    fn check(&self, call: &Call<Config>, settings: &Settings) -> Result<(), cni::Error> {
        let plan = Plan::new(call, settings, call.previous_result()?);
        if plan.is_empty() {
            return Ok(());
        }
        let netlink = Nfnetlink::open().map_err(Error::from)?;
        match settings.backend {
            Backend::Iptables => iptables::check(&netlink, &plan)?,
            Backend::Nftables => nftables::check(&netlink, &plan)?,
        }
        Ok(())
    }

    fn del(&self, call: &Call<Config>) -> Result<(), cni::Error> {
        let netlink = Nfnetlink::open().map_err(Error::from)?;
        let Removed { ends, mut failures } = remove(&netlink, &call.attachment());
        failures.try_to("forget connections to it", || flows::forget_ends(&netlink, &ends));
        failures.try_to("forget its connections", || {
            // Without a namespace, the pod may have vanished long ago, and another one may have its address.
            if !ends.is_empty() && Pod::open_if_there(call.netns())?.is_some() {
                flows::forget_opened(&netlink, &ends)?;
            }
            Ok::<_, cni::Error>(())
        });
        failures.into_result()
    }

    fn gc(&self, network: &Network<Config>, valid: &ValidAttachments) -> Result<(), cni::Error> {
        let netlink = Nfnetlink::open().map_err(Error::from)?;
        let mut removed = Removed::default();
        let rules = iptables::collect_garbage(&netlink, &network.name, valid);
        removed.add("remove rules", rules);
        let elements = nftables::collect_garbage(&netlink, &network.name, valid);
        removed.add("remove elements", elements);
        let Removed { ends, mut failures } = removed;
        // Connections from these addresses stay, because another pod may have one of them now.
        failures.try_to("forget connections", || flows::forget_ends(&netlink, &ends));
        failures.into_result()
    }

    fn status(&self, _network: &Network<Config>, settings: &Settings) -> Result<(), cni::Error> {
        let status =
            Nfnetlink::open().map_err(Error::from).and_then(|netlink| match settings.backend {
                Backend::Iptables => iptables::status(&netlink),
                Backend::Nftables => nftables::status(&netlink),
            });
        status.map_err(|error| cni::Error { code: Code::NotAvailable, ..error.into() })
    }

    fn purge(&self, purge: &mut Purge) {
        purge.all("purge portmap", crate::purge);
    }
}

/// With `onConflict` = `error`, refuses a port that another container has in the backend that the plan does
/// not use. The plan's own backend compares when it adds.
fn find_holder(netlink: &Nfnetlink, plan: &Plan<'_>) -> Result<(), Error> {
    match plan.settings.backend {
        _ if !plan.settings.refuse_conflicts => Ok(()),
        Backend::Iptables if !netlink.has_nf_tables()? => Ok(()),
        Backend::Iptables => nftables::find_holder(netlink, plan),
        Backend::Nftables => iptables::find_holder(netlink, plan),
    }
}

/// Maps the ports with the backend of the configuration, and removes what an earlier ADD has made in it for
/// the container. Returns the ends that this led to.
fn add_rules(netlink: &Nfnetlink, plan: &Plan<'_>) -> Result<Vec<End>, Error> {
    match plan.settings.backend {
        Backend::Iptables => iptables::add(netlink, plan),
        Backend::Nftables => nftables::add(netlink, plan),
    }
}

/// Removes what a container has in both backends.
fn remove(netlink: &Nfnetlink, owner: &Attachment) -> Removed {
    let mut removed = Removed::default();
    removed.add("remove rules", iptables::remove(netlink, owner));
    removed.add("remove elements", nftables::remove(netlink, owner));
    removed
}

/// Removes what the container has in the other backend, and in the reference plugins' `nftables`. Takes its
/// ports from other containers there if packets would pass their rules first. Returns the ends of the
/// container's rules.
fn take_over(netlink: &Nfnetlink, plan: &Plan<'_>) -> Result<Vec<End>, cni::Error> {
    let mut ends = match plan.settings.backend {
        Backend::Iptables if !netlink.has_nf_tables().map_err(Error::from)? => {
            return Ok(Vec::new());
        }
        Backend::Iptables => nftables::remove_own(netlink, &plan.owner).into_result()?,
        Backend::Nftables => {
            let ends = iptables::remove(netlink, &plan.owner).into_result()?;
            iptables::take(netlink, plan)?;
            ends
        }
    };
    ends.extend(nftables::take_from_reference(netlink, plan)?);
    Ok(ends)
}
