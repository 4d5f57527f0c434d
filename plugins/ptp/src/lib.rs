//! Connects each pod to the node by a veth pair, without a bridge: the node routes packets to each pod.
//!
//! ADD makes the pair while the IPAM plugin runs. Then it makes what the addresses need (`wanted`): those
//! of the pod with their routes, and the node's side, which is the gateway's addresses and a route to each
//! address of the pod. If a step fails, ADD removes what it made, but forwarding stays on. CHECK compares the
//! same with the kernel. DEL and GC find everything by the names of the attachment.

mod config;
mod error;
mod node_side;
mod wanted;

pub use config::Config;
pub use error::Error;

use attach::ipam::{add_with, status_with};
use attach::{Families, HostEnd, Pod, Rules, VethOptions, VethPair, forwarding};
use cni::{Call, Environment, Network, Plugin, Success, Undo, ValidAttachments, ipam};
use kernel::Rtnl;

use crate::wanted::{POD_INTERFACE, Wanted};

/// The plugin.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ptp;

impl Plugin for Ptp {
    const NAME: &'static str = "ptp";
    type Config = Config;
    type Settings = ();

    fn settings(
        &self,
        network: &Network<Config>,
        _environment: Option<&Environment>,
    ) -> Result<(), cni::Error> {
        Config::validate(network)?;
        ipam::validate(network)
    }

    fn add(&self, call: &Call<Config>, (): &()) -> Result<Success, cni::Error> {
        let pod = Pod::open(call.require_netns()?)?;
        pod.refuse_second(call.ifname().as_str())?;
        let node = Rtnl::open().map_err(Error::from)?;
        let rules = Rules::open(call, call.config().rules())?;
        Undo::around(|undo| {
            let (pair, result) = add_with(&call.network, POD_INTERFACE, undo, |undo| {
                let mtu = call.config().mtu();
                let options = VethOptions { mtu, ..VethOptions::default() };
                Ok(VethPair::create(&HostEnd::of(call.attachment()), &node, &pod, options, undo)?)
            })?;
            let wanted = Wanted::new(call, result)?;
            Ok(wanted.make(&node, &pod, &rules, &pair, undo)?)
        })
    }

    fn check(&self, call: &Call<Config>, (): &()) -> Result<(), cni::Error> {
        let result = call.previous_result()?;
        let pod = Pod::open(call.require_netns()?)?;
        let node = Rtnl::open().map_err(Error::from)?;
        ipam::check(&call.network)?;
        let rules = Rules::open(call, call.config().rules())?;
        Ok(Wanted::of(call, result.clone())?.compare(&node, &pod, &rules)?)
    }

    fn del(&self, call: &Call<Config>) -> Result<(), cni::Error> {
        call.config().detach().del(call)
    }

    fn gc(&self, network: &Network<Config>, valid: &ValidAttachments) -> Result<(), cni::Error> {
        network.config.detach().gc(network, valid)
    }

    fn status(&self, network: &Network<Config>, (): &()) -> Result<(), cni::Error> {
        status_with(network, || -> Result<(), Error> {
            Rtnl::open()?;
            let families = Families::of_ipam(network);
            // The node's end of a pod's link does not exist yet.
            families.try_out("default")?;
            forwarding::try_out(families)?;
            Ok(network.config.rules().status()?)
        })
    }
}
