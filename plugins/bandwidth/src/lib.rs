//! Limits the traffic to and from a pod that an earlier plugin of the chain has attached.
//!
//! Packets to the pod are queued in a token bucket filter on the node's end of the pod's veth pair. Packets
//! from the pod arrive at that end and cannot be queued there, so they are redirected to an ifb device of the
//! pod, which queues them. ADD computes both queues as a plain value, and CHECK compares the kernel with the
//! same value. DEL and GC find the ifb device by its name and alias. The other queue is deleted with the veth
//! pair.

mod config;
mod error;
mod ifb;
mod plan;
mod purge;
mod shape;

pub use config::{Config, Limits, RuntimeConfig, Settings};
pub use error::Error;

use attach::{Pod, VethPair, link};
use cni::{Call, Code, Environment, Network, Plugin, Purge, Success, Undo, ValidAttachments};
use kernel::rtnl::{Clock, Link};
use kernel::{Netns, Rtnl};

use crate::ifb::OwnIfb;
use crate::plan::Plan;

/// The plugin.
#[derive(Clone, Copy, Debug, Default)]
pub struct Bandwidth;

impl Plugin for Bandwidth {
    const NAME: &'static str = "bandwidth";
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
        let mut result = call.previous_result()?.clone();
        if settings.is_empty() {
            return Ok(result);
        }
        let plan = Plan::new(settings, Clock::read().map_err(Error::from)?);
        let node = Rtnl::open().map_err(Error::from)?;
        let host = host_end(call, &node, &result).map_err(Error::at_add)?;
        Undo::around(|undo| {
            let ifb = shape::apply(&node, &host, &OwnIfb::of(&call.attachment()), &plan, undo)?;
            result.interfaces.extend(ifb.map(|ifb| link::describe(&ifb, None)));
            Ok(result)
        })
    }

    fn check(&self, call: &Call<Config>, settings: &Settings) -> Result<(), cni::Error> {
        let result = call.previous_result()?;
        if settings.is_empty() {
            return Ok(());
        }
        let plan = Plan::new(settings, Clock::read().map_err(Error::from)?);
        let node = Rtnl::open().map_err(Error::from)?;
        let host = host_end(call, &node, result)?;
        Ok(shape::check(&node, &host, &OwnIfb::of(&call.attachment()), &plan, result)?)
    }

    fn del(&self, call: &Call<Config>) -> Result<(), cni::Error> {
        Ok(OwnIfb::of(&call.attachment()).delete(&Rtnl::open().map_err(Error::from)?)?)
    }

    fn gc(&self, _network: &Network<Config>, valid: &ValidAttachments) -> Result<(), cni::Error> {
        let node = Rtnl::open().map_err(Error::from)?;
        ifb::collect_garbage(&node, valid)
    }

    fn status(&self, network: &Network<Config>, settings: &Settings) -> Result<(), cni::Error> {
        let is_known = network.config.has_own_limits();
        if is_known && settings.is_empty() {
            return Ok(());
        }
        let settings = is_known.then_some(settings);
        let tried = Netns::in_new(|| try_out(settings))
            .unwrap_or_else(|error| Err(Error::from(error).into()));
        tried.map_err(|error| cni::Error { code: Code::NotAvailable, ..error })
    }

    fn purge(&self, purge: &mut Purge) {
        purge::purge(purge);
    }
}

/// The node's end of the pod's veth pair. The result must contain it, unless it contains no interfaces:
/// results before 0.3.0 have none.
fn host_end(call: &Call<Config>, node: &Rtnl, result: &Success) -> Result<Link, Error> {
    let ifname = call.ifname().as_str();
    let pod = Pod::open(call.require_netns()?)?;
    let VethPair { host, .. } = VethPair::find(node, &pod, ifname)?;
    let mut interfaces = result.interfaces.iter();
    if result.interfaces.is_empty()
        || interfaces.any(|it| it.sandbox.is_empty() && it.name == host.name)
    {
        return Ok(host);
    }
    Err(Error::NotInResult { name: host.name, ifname: ifname.to_owned() })
}

/// Makes what an ADD makes, at the loopback interface of a temporary namespace. Without `settings`, the
/// runtime sets the limits, and both directions are tried.
fn try_out(settings: Option<&Settings>) -> Result<(), cni::Error> {
    let clock = Clock::read().map_err(Error::from)?;
    let plan = settings.map_or_else(|| Plan::example(clock), |it| Plan::new(it, clock));
    let node = Rtnl::open().map_err(Error::from)?;
    let lo = node.link_by_name("lo").map_err(Error::from)?;
    let lo = lo.ok_or_else(|| attach::Error::missing("link lo"))?;
    let ifb = OwnIfb { name: "ifb-status".into(), alias: "status".into() };
    Undo::around(|undo| Ok(shape::apply(&node, &lo, &ifb, &plan, undo).map(drop)?))
}
