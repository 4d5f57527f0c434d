//! Connects each pod to the node by a veth pair of its own, without a bridge: the node routes.
//!
//! While IPAM looks for addresses, ADD makes the pair in one message; then the pod's addresses and
//! routes, and the node's: the gateway's addresses on its end, and a route to each address of the
//! pod. Whatever fails, all of it is taken back. CHECK compares the same with what the kernel says.
//! DEL and GC need the names only.

mod config;
mod error;
mod node_side;
mod wanted;

pub use config::Config;
pub use error::Error;

use attach::masquerade::{self, Kept, Owner};
use attach::{Families, HostEnd, Pod, VethOptions, VethPair, addresses, forwarding};
use cni::{
    Call, Code, Environment, Failures, Network, Plugin, Success, Undo, ValidAttachments, ipam,
};
use kernel::{Nfnetlink, Rtnl};

use crate::wanted::Wanted;

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
        let rules = open_rules(call.config())?;
        Undo::around(|undo| {
            let (pair, lease) = addresses::add_with(&call.network, undo, |undo| {
                let mtu = call.config().mtu();
                let options = VethOptions { mtu, ..VethOptions::default() };
                Ok(VethPair::create(&HostEnd::of(call), &node, &pod, options, undo)?)
            })?;
            let wanted = Wanted::new(call, lease)?;
            Ok(wanted.make(&node, &pod, rules.as_ref(), &pair, undo)?)
        })
    }

    fn check(&self, call: &Call<Config>, (): &()) -> Result<(), cni::Error> {
        let result = call.previous_result()?;
        let pod = Pod::open(call.require_netns()?)?;
        let node = Rtnl::open().map_err(Error::from)?;
        ipam::check(&call.network)?;
        let rules = open_rules(call.config())?;
        Ok(Wanted::of(call, result.clone())?.compare(&node, &pod, rules.as_ref())?)
    }

    fn del(&self, call: &Call<Config>) -> Result<(), cni::Error> {
        let mut failures = Failures::new();
        let pod = failures
            .try_to("look into the pod", || Pod::open_if_there(call.netns()))
            .unwrap_or_default();
        let rules = failures
            .try_to("remove the rules", || open_to_remove(call.config()))
            .unwrap_or_default();
        if let Some(rules) = &rules {
            failures.try_to("remove the rules", || remove_rules(call, rules, pod.as_ref()));
        }
        addresses::del_with(&call.network, &mut failures, |failures| {
            failures.try_to("delete the interface", || -> Result<(), Error> {
                let result = call.network.prev_result.as_ref();
                Ok(HostEnd::of(call).delete(&Rtnl::open()?, pod.as_ref(), None, result)?)
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
        failures.try_to("remove rules", || -> Result<(), Error> {
            let Some(rules) = open_to_remove(&network.config)? else {
                return Ok(());
            };
            Ok(masquerade::collect_garbage(&rules, &network.name, valid)?)
        });
        failures.try_to("release addresses", || ipam::gc(network));
        failures.into_result()
    }

    fn status(&self, network: &Network<Config>, (): &()) -> Result<(), cni::Error> {
        let look = || -> Result<(), Error> {
            Rtnl::open()?;
            let families = Families::of_ipam(network);
            // The node's end of a pod's link does not exist yet.
            families.try_out("default")?;
            forwarding::try_out(families)?;
            let backend = network.config.ip_masq_backend;
            open_rules(&network.config)?.map_or(Ok(()), |rules| Ok(backend.status(&rules)?))
        };
        look().map_err(|error| cni::Error { code: Code::NotAvailable, ..error.into() })?;
        ipam::status(network)
    }
}

/// The way to the packet filter's rules; none for a network that has no rules.
fn open_rules(config: &Config) -> Result<Option<Nfnetlink>, Error> {
    Ok(if config.ip_masq { Some(Nfnetlink::open()?) } else { None })
}

/// Finds the rules of an ADD, which may have had another configuration.
fn open_to_remove(config: &Config) -> Result<Option<Nfnetlink>, Error> {
    Ok(masquerade::open_to_remove(config.ip_masq)?)
}

/// Removes the rules of an attachment, by its names alone.
pub(crate) fn remove_rules(
    call: &Call<Config>,
    rules: &Nfnetlink,
    pod: Option<&Pod>,
) -> Result<(), Error> {
    Ok(masquerade::remove(rules, &Owner::of(call), &Kept::of(call, pod))?)
}
