//! Plugins that put one link into the pod, such as dummy: everything but the link itself.
//!
//! The link is made inside the pod's namespace, with its final name. It vanishes with the namespace, so
//! nothing of it is left on the node.

use cni::{Call, DnsKeys, Environment, Failures, Network, Plugin, Success, Undo};
use cni::{ValidAttachments, ipam};
use kernel::Rtnl;
use kernel::rtnl::{Kind, Link, NewLink};
use serde::de::DeserializeOwned;

use crate::error::Error;
use crate::ipam::{add_with, del_with, status_with};
use crate::link;
use crate::names::alias_that_fits;
use crate::pod::{Dad, Pod, PodInterface};
use crate::undo::undo_unless_refused;

/// What differs between these plugins: the configuration, and the link.
pub trait Driver {
    /// The plugin's name, which is also the kind of its links (`ip link show type NAME`).
    const NAME: &'static str;

    /// Whether the link is part of a network with other machines. If so, ADD detects duplicate IPv6
    /// addresses, and announces the addresses to the neighbours.
    const HAS_NEIGHBOURS: bool = false;

    /// The keys of the plugin's configuration.
    type Config: DeserializeOwned;

    /// What the configuration and the command's variables mean.
    type Settings;

    /// Reads the values of a configuration and refuses those that are wrong, as [`Plugin::settings`].
    fn settings(
        &self,
        network: &Network<Self::Config>,
        environment: Option<&Environment>,
    ) -> Result<Self::Settings, cni::Error>;

    /// The link to be made in the pod, down. Looks up what it needs, such as a master on the node.
    fn new_link<'a>(
        &self,
        settings: &'a Self::Settings,
        pod: &'a Pod,
        ifname: &'a str,
    ) -> Result<NewLink<'a>, cni::Error>;

    /// Finds out whether the link could be made now.
    fn status(&self, settings: &Self::Settings) -> Result<(), cni::Error>;

    /// Finds what of the link was changed, except kind, hardware address, addresses and routes.
    fn compare(&self, _: &Self::Settings, _pod: &Pod, _link: &Link) -> Result<(), cni::Error> {
        Ok(())
    }

    /// The key `dns` of the configuration, which replaces the IPAM plugin's.
    fn dns(&self, _config: &Self::Config) -> DnsKeys {
        DnsKeys::default()
    }
}

/// The plugin of a driver.
#[derive(Clone, Copy, Debug, Default)]
pub struct Single<D>(D);

/// The index of the pod's interface in the result.
const POD_INTERFACE: usize = 0;

impl<D: Driver> Plugin for Single<D> {
    const NAME: &'static str = D::NAME;
    type Config = D::Config;
    type Settings = D::Settings;

    fn settings(
        &self,
        network: &Network<D::Config>,
        environment: Option<&Environment>,
    ) -> Result<D::Settings, cni::Error> {
        ipam::validate(network)?;
        self.0.settings(network, environment)
    }

    fn add(&self, call: &Call<D::Config>, settings: &D::Settings) -> Result<Success, cni::Error> {
        let pod = Pod::open(call.require_netns()?)?;
        pod.refuse_second(call.ifname().as_str())?;
        Undo::around(|undo| {
            let (link, result) = add_with(&call.network, POD_INTERFACE, undo, |undo| {
                self.make(call, settings, &pod, undo)
            })?;
            let interface = interface::<D>(&link.name, &result);
            interface.configure(&pod, link.index)?;
            if D::HAS_NEIGHBOURS {
                interface.announce(&pod, &link)?;
            }
            let interfaces = vec![link::describe(&link, Some(&pod))];
            let dns = result.dns.clone().overridden_by(&self.0.dns(call.config()));
            Ok(Success { interfaces, dns, ..result })
        })
    }

    fn check(&self, call: &Call<D::Config>, settings: &D::Settings) -> Result<(), cni::Error> {
        let result = call.previous_result()?;
        let pod = Pod::open(call.require_netns()?)?;
        ipam::check(&call.network)?;
        let ifname = call.ifname().as_str();
        let link = pod.interface(ifname)?;
        if !is_of::<D>(&link) {
            let kind = link.kind.as_deref().unwrap_or("device");
            let how = format!("is a {kind}, not a {}", D::NAME);
            return Err(Error::changed(format!("interface {ifname} of the pod"), how).into());
        }
        link::compare(result, &link, Some(&pod))?;
        self.0.compare(settings, &pod, &link)?;
        // Plugins after this one in the chain may have added interfaces.
        let ips = result.ips_of(ifname).cloned().collect();
        let result = Success { ips, ..result.clone() };
        Ok(interface::<D>(ifname, &result).compare(&pod, &link)?)
    }

    fn del(&self, call: &Call<D::Config>) -> Result<(), cni::Error> {
        let mut failures = Failures::new();
        let pod = failures.try_to("look into the pod", || Pod::open_if_there(call.netns()));
        del_with(&call.network, &mut failures, |failures| {
            if let Some(pod) = pod.flatten() {
                failures.try_to("delete the interface", || delete::<D, _>(&pod, call));
            }
        });
        failures.into_result()
    }

    fn gc(&self, network: &Network<D::Config>, _: &ValidAttachments) -> Result<(), cni::Error> {
        ipam::gc(network)
    }

    fn status(
        &self,
        network: &Network<D::Config>,
        settings: &D::Settings,
    ) -> Result<(), cni::Error> {
        status_with(network, || self.0.status(settings))
    }
}

impl<D: Driver> Single<D> {
    /// Makes the link. Its alias says who owns it.
    fn make<'a>(
        &self,
        call: &'a Call<D::Config>,
        settings: &D::Settings,
        pod: &'a Pod,
        undo: &mut Undo<'a>,
    ) -> Result<Link, cni::Error> {
        let ifname = call.ifname().as_str();
        let alias = call.attachment().to_string();
        let new = self.0.new_link(settings, pod, ifname)?;
        let created = pod.rtnl.create_link(&NewLink { alias: alias_that_fits(&alias), ..new });
        let undo_it = move || delete::<D, _>(pod, call);
        undo_unless_refused(undo, created, "delete the interface", undo_it)
            .map_err(|error| refused(error, new))?;
        Ok(pod.interface(ifname)?)
    }
}

/// The pod's interface of an ADD's result.
fn interface<'a, D: Driver>(name: &'a str, result: &'a Success) -> PodInterface<'a> {
    let dad = if D::HAS_NEIGHBOURS { Dad::Wait } else { Dad::Skip };
    PodInterface { dad, ..PodInterface::of(name, result) }
}

/// Finds out whether the kernel has a kind of link. It asks for a link with a multicast hardware address,
/// which the kernel refuses after it has looked for the kind and loaded its module.
pub fn require_kind(kind: Kind<'_>) -> Result<(), Error> {
    let new = NewLink { mac: Some([1, 0, 0, 0, 0, 0]), ..NewLink::new("status", kind) };
    match Rtnl::open()?.create_link(&new) {
        Err(error) if error.is_unsupported() => Err(refused(error, new)),
        _ => Ok(()),
    }
}

/// Why the kernel did not make a link.
fn refused(source: kernel::Error, new: NewLink<'_>) -> Error {
    let kind = new.kind.name();
    if source.is_unsupported() {
        Error::NoKind { kind, source }
    } else if new.parent.is_some() && (source.is_busy() || source.is_invalid()) {
        Error::MasterInUse { kind, source }
    } else {
        source.into()
    }
}

/// Deletes the interface of an attachment. An interface of another kind or with the alias of another
/// attachment stays; one without an alias may have been made by the reference plugin.
fn delete<D: Driver, C>(pod: &Pod, call: &Call<C>) -> Result<(), Error> {
    let owner = call.attachment().to_string();
    let is_own = |link: &Link| is_of::<D>(link) && (link.alias.is_empty() || link.alias == owner);
    let link = pod.rtnl.link_by_name(call.ifname().as_str())?;
    link.filter(is_own).map_or(Ok(()), |link| link::delete(&pod.rtnl, &link))
}

fn is_of<D: Driver>(link: &Link) -> bool {
    link.kind.as_deref() == Some(D::NAME)
}
