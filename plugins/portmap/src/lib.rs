//! Leads ports of the node (`hostPort`) to the pod that an earlier plugin of the chain attached.
//!
//! ADD computes the rules as a plain value and adds them in one batch, for a new container nothing but additions; CHECK compares
//! the same value with what the kernel holds. DEL and GC find a container's chain by its name, so they need
//! neither namespace nor result nor mappings.

mod apply;
mod config;
mod error;
mod flows;
mod mapping;
mod plan;
mod remove;

pub use config::{Config, OnConflict};
pub use error::Error;
pub use mapping::{Entry, Mapping};

use cni::{Call, Cidr, Code, Failures, Network, Plugin, Success, Undo, ValidAttachments};
use kernel::iptables::Nat;
use kernel::{Nfnetlink, Rtnl, sysctl};

use crate::plan::Plan;

/// The plugin.
#[derive(Clone, Copy, Debug)]
pub struct Portmap;

impl Plugin for Portmap {
    const NAME: &'static str = "portmap";
    type Config = Config;

    fn validate(&self, network: &Network<Config>) -> Result<(), cni::Error> {
        network.config.settings().map(drop)
    }

    fn add(&self, call: &Call<Config>) -> Result<Success, cni::Error> {
        let result = call.previous_result()?;
        let settings = call.config().settings()?;
        let pod = addresses(call, result);
        let plan = Plan::new(&call.network.name, call.container_id(), &settings, &pod);
        let netlink = Nfnetlink::open().map_err(Error::from)?;
        if plan.is_empty() && !netlink.has_nf_tables().map_err(Error::from)? {
            return Ok(result.clone());
        }
        Undo::around(|undo| {
            let replaced = apply::add(&netlink, &plan, settings.refuse_conflicts)?;
            undo.on_error("remove the rules", || {
                let names = (&call.network.name, call.container_id());
                Ok(remove::remove(&netlink, names.0, names.1, &mut Vec::new())?)
            });
            flows::forget_ends(&netlink, &replaced)?;
            if settings.masquerades() && !plan.is_empty() {
                for cidr in pod.iter().filter(|cidr| cidr.is_ipv4()) {
                    route_loopback_to(*cidr)?;
                }
            }
            flows::forget_udp(&netlink, &settings.mappings, &pod)?;
            Ok(result.clone())
        })
    }

    fn check(&self, call: &Call<Config>) -> Result<(), cni::Error> {
        let result = call.previous_result()?;
        let settings = call.config().settings()?;
        let pod = addresses(call, result);
        let plan = Plan::new(&call.network.name, call.container_id(), &settings, &pod);
        if plan.is_empty() {
            return Ok(());
        }
        Ok(apply::check(&Nfnetlink::open().map_err(Error::from)?, &plan)?)
    }

    fn del(&self, call: &Call<Config>) -> Result<(), cni::Error> {
        let netlink = Nfnetlink::open().map_err(Error::from)?;
        forget_after(&netlink, |ends| {
            remove::remove(&netlink, &call.network.name, call.container_id(), ends)
        })
    }

    fn gc(&self, network: &Network<Config>, valid: &ValidAttachments) -> Result<(), cni::Error> {
        let netlink = Nfnetlink::open().map_err(Error::from)?;
        forget_after(&netlink, |ends| remove::collect_garbage(&netlink, &network.name, valid, ends))
    }

    fn status(&self, network: &Network<Config>) -> Result<(), cni::Error> {
        apply::status(&network.config.settings()?)
            .map_err(|error| cni::Error { code: Code::NotAvailable, ..error.into() })
    }
}

/// Removes rules, and forgets the connections that ended where they led to, however far the removal came.
fn forget_after(
    netlink: &Nfnetlink,
    remove: impl FnOnce(&mut Vec<remove::End>) -> Result<(), Error>,
) -> Result<(), cni::Error> {
    let (mut failures, mut ends) = (Failures::new(), Vec::new());
    failures.try_to("remove rules", || remove(&mut ends));
    failures.try_to("forget connections", || flows::forget_ends(netlink, &ends));
    failures.into_result()
}

/// The pod's first IPv4 and its first IPv6 address, of those that are on its interface as far as the result
/// says where they are.
fn addresses(call: &Call<Config>, result: &Success) -> Vec<Cidr> {
    let all: Vec<Cidr> = result.ips_of(call.ifname().as_str()).map(|ip| ip.address).collect();
    let first = |nat: Nat| all.iter().find(move |cidr| Nat::of(cidr.ip()) == nat).copied();
    [Nat::V4, Nat::V6].into_iter().filter_map(first).collect()
}

/// Lets packets from 127.0.0.0/8 leave by the link towards the pod. Never undone: on a bridge, other pods
/// need it too. IPv6 has no such switch: nothing leads from `::1` to a pod.
fn route_loopback_to(pod: Cidr) -> Result<(), Error> {
    let rtnl = Rtnl::open()?;
    let Some(index) = rtnl.link_towards(pod.ip())? else { return Ok(()) };
    let Some(link) = rtnl.link_by_index(index)? else { return Ok(()) };
    sysctl::write(&["ipv4", "conf", &link.name, "route_localnet"], "1")?;
    Ok(())
}
