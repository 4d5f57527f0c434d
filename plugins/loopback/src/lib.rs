//! Sets the loopback interface `lo` of a pod up. Runtimes run this plugin for every pod, in addition to the
//! pod's network. Some runtimes set `CNI_IFNAME` to another name, which is ignored.

use attach::{Error, Pod, link};
use cni::{Call, Environment, IpConfig, Network, Plugin, Success, ValidAttachments};
use kernel::Rtnl;
use kernel::rtnl::{Link, LinkChange};
use serde::Deserialize;

/// The plugin.
#[derive(Clone, Copy, Debug, Default)]
pub struct Loopback;

/// The configuration, which has no keys.
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

    /// The kernel adds the addresses of `lo` when it is set up. The result contains them.
    fn add(&self, call: &Call<Config>, (): &()) -> Result<Success, cni::Error> {
        let pod = Pod::open(call.require_netns()?)?;
        let lo = find(&pod.rtnl)?;
        set_up(&pod.rtnl, &lo, true)?;
        let addresses = pod.rtnl.addresses(lo.index, None).map_err(Error::from)?;
        let found = Success {
            interfaces: vec![link::describe(&lo, Some(&pod))],
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
        // In a chain, the result is the previous plugin's.
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

    /// The loopback interface vanishes with its namespace, so nothing is left to remove.
    fn gc(&self, _network: &Network<Config>, _valid: &ValidAttachments) -> Result<(), cni::Error> {
        Ok(())
    }

    fn status(&self, _network: &Network<Config>, (): &()) -> Result<(), cni::Error> {
        Ok(())
    }
}

/// The loopback interface, which every namespace has.
fn find(rtnl: &Rtnl) -> Result<Link, Error> {
    rtnl.link_by_name("lo")?.ok_or_else(|| Error::missing("interface lo of the pod"))
}

fn set_up(rtnl: &Rtnl, lo: &Link, up: bool) -> Result<(), Error> {
    rtnl.set_link(lo.index, LinkChange { up: Some(up), ..LinkChange::default() })?;
    Ok(())
}
