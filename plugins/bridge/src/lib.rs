//! Connects pods to a bridge of the node by a veth pair each.
//!
//! ADD makes the bridge (`device`), if it is not there, and the veth pair (`port`) while the IPAM plugin
//! runs. Then it makes what the addresses need (`wanted`): the pod's addresses and routes, rules, and the
//! `gateway`. If a step fails, ADD removes what it made. Forwarding and the settings of a bridge that was
//! there stay. CHECK compares the same with the kernel. DEL and GC remove the pair, the rules and the
//! addresses (`attach::Detach`); the bridge stays.

mod config;
mod device;
mod error;
mod gateway;
mod port;
mod purge;
mod trunk;
mod vlans;
mod wanted;

pub use config::{Config, Settings};
pub use error::Error;
pub use trunk::VlanTrunk;

use attach::ipam::{add_with, status_with};
use attach::{Families, Pod, Rules, forwarding};
use cni::{Call, Environment, Network, Plugin, Purge, Success, Undo, ValidAttachments, ipam};
use kernel::Rtnl;

use crate::port::Connection;
use crate::wanted::{POD_INTERFACE, Wanted};

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
        let rules = Rules::open(call, call.config().rules())?;
        Undo::around(|undo| {
            let (connection, result) = add_with(&call.network, POD_INTERFACE, undo, |undo| {
                Ok(Connection::make(call, &node, &pod, settings.mac, undo)?)
            })?;
            let wanted = Wanted::new(call, result);
            Ok(wanted.make(&node, &pod, &rules, connection, undo)?)
        })
    }

    fn check(&self, call: &Call<Config>, _settings: &Settings) -> Result<(), cni::Error> {
        let result = call.previous_result()?;
        let pod = Pod::open(call.require_netns()?)?;
        let node = Rtnl::open().map_err(Error::from)?;
        ipam::check(&call.network)?;
        Ok(Wanted::of(call, result).compare(
            &node,
            &pod,
            &Rules::open(call, call.config().rules())?,
        )?)
    }

    fn del(&self, call: &Call<Config>) -> Result<(), cni::Error> {
        call.config().detach().del(call)
    }

    fn gc(&self, network: &Network<Config>, valid: &ValidAttachments) -> Result<(), cni::Error> {
        network.config.detach().gc(network, valid)
    }

    fn status(&self, network: &Network<Config>, _settings: &Settings) -> Result<(), cni::Error> {
        status_with(network, || -> Result<(), Error> {
            let node = Rtnl::open()?;
            vlans::require(&network.config, &node)?;
            device::find(&node, network.config.bridge())?;
            if network.config.gateway() {
                let families = Families::of_ipam(network);
                families.try_out(&network.config.gateway_link())?;
                forwarding::try_out(families)?;
            }
            Ok(network.config.rules().status()?)
        })
    }

    fn purge(&self, purge: &mut Purge) {
        purge::purge(purge);
    }
}
