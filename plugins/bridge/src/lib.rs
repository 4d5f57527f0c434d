//! Connects pods to a bridge of the node by a veth pair each.
//!
//! While IPAM looks for addresses, ADD makes the bridge (unless it is there) and the pair, in one
//! message; then the pod's addresses and routes; last what others see: rules, the gateway's
//! addresses, forwarding. Whatever fails, all of it is taken back. CHECK compares the same with what
//! the kernel says. DEL and GC need the names only.

mod config;
mod connection;
mod error;
mod gateway;
mod gateway_link;
mod purge;
mod rules;
mod vlans;
mod wanted;

pub use config::{Config, Settings, VlanTrunk};
pub use error::Error;

use attach::{Families, HostEnd, Pod, addresses, forwarding};
use cni::{
    Call, Code, Environment, Failures, Network, Plugin, Purge, Success, Undo, ValidAttachments,
    ipam,
};
use kernel::Rtnl;

use crate::connection::{Connection, find_bridge};
use crate::rules::Rules;
use crate::wanted::Wanted;

/// The plugin.
#[derive(Clone, Copy, Debug, Default)]
pub struct Bridge;

impl Plugin for Bridge {
    const NAME: &'static str = "bridge";
    type Config = Config;
    type Settings = Settings;

    fn settings(
        &self,
        network: &Network<Config>,
        environment: Option<&Environment>,
    ) -> Result<Settings, cni::Error> {
        Config::validate(network)?;
        ipam::validate(network)?;
        Ok(Settings { mac: network.config.mac(environment)? })
    }

    fn add(&self, call: &Call<Config>, settings: &Settings) -> Result<Success, cni::Error> {
        let pod = Pod::open(call.require_netns()?)?;
        pod.refuse_second(call.ifname().as_str())?;
        let node = Rtnl::open().map_err(Error::from)?;
        vlans::require(call.config(), &node)?;
        let rules = Rules::open(call)?;
        Undo::around(|undo| {
            let (connection, lease) = addresses::add_with(&call.network, undo, |undo| {
                Ok(Connection::make(call, &node, &pod, settings.mac, undo)?)
            })?;
            let wanted = Wanted::new(call, lease)?;
            Ok(wanted.make(&node, &pod, &rules, connection, undo)?)
        })
    }

    fn check(&self, call: &Call<Config>, _settings: &Settings) -> Result<(), cni::Error> {
        let result = call.previous_result()?;
        let pod = Pod::open(call.require_netns()?)?;
        let node = Rtnl::open().map_err(Error::from)?;
        ipam::check(&call.network)?;
        Ok(Wanted::of(call, result).compare(&node, &pod, &Rules::open(call)?)?)
    }

    fn del(&self, call: &Call<Config>) -> Result<(), cni::Error> {
        let mut failures = Failures::new();
        let pod = failures
            .try_to("look into the pod", || Pod::open_if_there(call.netns()))
            .unwrap_or_default();
        let rules = failures.try_to("remove the rules", || Rules::open_to_remove(call));
        if let Some(rules) = &rules {
            failures.try_to("remove the rules", || rules.remove(pod.as_ref()));
        }
        addresses::del_with(&call.network, &mut failures, |failures| {
            failures.try_to("delete the interface", || -> Result<(), Error> {
                let result = call.network.prev_result.as_ref();
                let bridge = Some(call.config().bridge());
                Ok(HostEnd::of(call).delete(&Rtnl::open()?, pod.as_ref(), bridge, result)?)
            });
            // Closing waits until the kernel has disposed of the rules, and it does so beside the link.
            drop(rules);
        });
        failures.into_result()
    }

    fn gc(&self, network: &Network<Config>, valid: &ValidAttachments) -> Result<(), cni::Error> {
        let mut failures = Failures::new();
        failures.try_to("delete interfaces", || -> Result<(), Error> {
            Ok(HostEnd::collect_garbage(&Rtnl::open()?, valid)?)
        });
        failures.try_to("remove rules", || rules::collect_garbage(network, valid));
        failures.try_to("release addresses", || ipam::gc(network));
        failures.into_result()
    }

    fn status(&self, network: &Network<Config>, _settings: &Settings) -> Result<(), cni::Error> {
        let look = || -> Result<(), Error> {
            let node = Rtnl::open()?;
            vlans::require(&network.config, &node)?;
            find_bridge(&node, network.config.bridge())?;
            if network.config.gateway() {
                let families = Families::of_ipam(network);
                families.try_out(&network.config.gateway_link())?;
                forwarding::try_out(families)?;
            }
            rules::status(network)
        };
        look().map_err(|error| cni::Error { code: Code::NotAvailable, ..error.into() })?;
        ipam::status(network)
    }

    fn purge(&self, purge: &mut Purge) {
        purge::purge(purge);
    }
}
