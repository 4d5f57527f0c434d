//! Brings the loopback interface of a pod up. Runtimes run it for every pod, beside the network,
//! some of them with another `CNI_IFNAME` than the one interface that this is about.

use attach::{Error, Pod, interfaces};
use cni::{Call, Environment, IpConfig, Network, Plugin, Success, ValidAttachments};
use kernel::Rtnl;
use kernel::rtnl::{Link, LinkChange};
use serde::Deserialize;

/// The plugin.
#[derive(Clone, Copy, Debug)]
pub struct Loopback;

/// There is nothing to configure.
#[derive(Clone, Copy, Debug, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Config {}

impl Plugin for Loopback {
    const NAME: &'static str = "loopback";
    type Config = Config;
    type Settings = ();

    fn settings(
        &self,
        _network: &Network<Config>,
        _environment: Option<&Environment>,
    ) -> Result<(), cni::Error> {
        Ok(())
    }

    /// The kernel gives `lo` its addresses when it comes up; they are reported as found.
    fn add(&self, call: &Call<Config>, (): &()) -> Result<Success, cni::Error> {
        let pod = Pod::open(call.require_netns()?)?;
        let lo = find(&pod.rtnl)?;
        set_up(&pod.rtnl, &lo, true)?;
        let addresses = pod.rtnl.addresses(lo.index, None).map_err(Error::from)?;
        let found = Success {
            interfaces: vec![interfaces::describe(&lo, Some(&pod))],
            ips: addresses
                .into_iter()
                .map(|address| IpConfig {
                    interface: Some(0),
                    address: address.network.into(),
                    gateway: None,
                })
                .collect(),
            ..Success::default()
        };
        // As one of a chain, it has nothing to add to what is there already.
        Ok(call.network.prev_result.clone().unwrap_or(found))
    }

    fn check(&self, call: &Call<Config>, (): &()) -> Result<(), cni::Error> {
        let pod = Pod::open(call.require_netns()?)?;
        let lo = find(&pod.rtnl)?;
        if lo.up {
            return Ok(());
        }
        Err(Error::Changed { object: lo.name, how: "is down".to_owned() }.into())
    }

    fn del(&self, call: &Call<Config>) -> Result<(), cni::Error> {
        let Some(pod) = Pod::open_if_there(call.netns())? else {
            return Ok(());
        };
        Ok(set_up(&pod.rtnl, &find(&pod.rtnl)?, false)?)
    }

    /// A vanished pod took its loopback interface with it.
    fn gc(&self, _network: &Network<Config>, _valid: &ValidAttachments) -> Result<(), cni::Error> {
        Ok(())
    }

    fn status(&self, _network: &Network<Config>, (): &()) -> Result<(), cni::Error> {
        Ok(())
    }
}

/// Every namespace has it, for as long as it exists.
fn find(rtnl: &Rtnl) -> Result<Link, Error> {
    rtnl.link_by_name("lo")?.ok_or_else(|| Error::missing("interface lo of the pod"))
}

fn set_up(rtnl: &Rtnl, lo: &Link, up: bool) -> Result<(), Error> {
    rtnl.set_link(lo.index, LinkChange { up: Some(up), ..LinkChange::default() })?;
    Ok(())
}
