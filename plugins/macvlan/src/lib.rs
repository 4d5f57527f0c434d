//! Puts the pod on the network of a link of the node, with a hardware address of its own.

mod config;
#[cfg(test)]
mod tests;

pub use config::{Config, Settings};

use attach::{Driver, Error, FoundParent, Pod, Single, find_on_node, single};
use cni::{DnsKeys, Environment, Network};
use kernel::rtnl::{Kind, Link, MacvlanMode, NewLink};

/// The plugin.
pub type Macvlan = Single<Device>;

/// What differs from other plugins that put one link into the pod.
#[derive(Clone, Copy, Debug, Default)]
pub struct Device;

impl Driver for Device {
    const NAME: &'static str = "macvlan";
    const HAS_NEIGHBOURS: bool = true;
    type Config = Config;
    type Settings = Settings;

    fn settings(
        &self,
        network: &Network<Config>,
        environment: Option<&Environment>,
    ) -> Result<Settings, cni::Error> {
        network.config.settings(environment)
    }

    fn new_link<'a>(
        &self,
        settings: &'a Settings,
        pod: &'a Pod,
        ifname: &'a str,
    ) -> Result<NewLink<'a>, cni::Error> {
        let master = FoundParent::find(settings.master.as_ref(), settings.in_pod, pod)?;
        refuse_larger_mtu(settings.mtu, &master.link)?;
        Ok(NewLink {
            mac: settings.mac.map(|mac| mac.0),
            mtu: settings.mtu,
            parent: Some(master.parent),
            ..NewLink::new(ifname, kind(settings))
        })
    }

    fn status(&self, settings: &Settings) -> Result<(), cni::Error> {
        single::require_kind(kind(settings))?;
        if !settings.in_pod {
            refuse_larger_mtu(settings.mtu, &find_on_node(settings.master.as_ref())?)?;
        }
        Ok(())
    }

    /// Without the key `master`, the default route may have changed since the ADD. So the link is compared
    /// only with a `master` that is set.
    fn compare(&self, settings: &Settings, pod: &Pod, link: &Link) -> Result<(), cni::Error> {
        let changed = |how| Err(Error::changed(format!("interface {}", link.name), how).into());
        if link.macvlan != Some(settings.mode) {
            let now = link.macvlan.map_or("unknown", MacvlanMode::name);
            return changed(format!("has the mode {now}, not {}", settings.mode.name()));
        }
        if let Some(mtu) = settings.mtu.filter(|mtu| *mtu != link.mtu) {
            return changed(format!("has the MTU {}, not {mtu}", link.mtu));
        }
        if let Some(name) = &settings.master {
            let master = FoundParent::find(Some(name), settings.in_pod, pod)?.parent;
            if (link.peer, link.peer_namespace) != (Some(master.index), master.namespace) {
                return changed(format!("is not on the link {}", name.as_str()));
            }
        }
        Ok(())
    }

    fn dns(&self, config: &Config) -> DnsKeys {
        config.dns.clone()
    }
}

fn kind(settings: &Settings) -> Kind<'static> {
    Kind::Macvlan { mode: settings.mode, bc_queue_len: settings.bc_queue_len }
}

fn refuse_larger_mtu(mtu: Option<u32>, master: &Link) -> Result<(), cni::Error> {
    match mtu.filter(|mtu| *mtu > master.mtu) {
        Some(_) => {
            let why = format!("must be at most {}, the MTU of {}", master.mtu, master.name);
            Err(cni::Error::invalid_key("mtu", why))
        }
        None => Ok(()),
    }
}
