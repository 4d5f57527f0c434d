//! ADD, CHECK and DEL of an attachment.

use std::path::PathBuf;

use cni::{Command, ContainerId, IfName, NetworkName, Success, Version};

use crate::attachment::Attachment;
use crate::cache::{Cache, Cached};
use crate::chain::Chain;
use crate::error::Error;
use crate::files;
use crate::lock::Lock;
use crate::network::Network;

/// A container runtime: its directories, and its commands on networks.
#[derive(Clone, Debug)]
pub struct Runtime {
    /// The directory of network configurations, such as `/etc/cni/net.d`.
    pub net_dir: PathBuf,
    /// The directories of plugins, such as `/opt/cni/bin`.
    pub plugin_path: Vec<PathBuf>,
    /// The directory of kept results, such as `/var/lib/cni`.
    pub cache_dir: PathBuf,
}

impl Runtime {
    /// Finds a network by its name.
    pub fn network(&self, name: &str) -> Result<Network, Error> {
        let name: NetworkName = name.parse()?;
        Ok(files::find(&self.net_dir, &name)?)
    }

    /// The network as it was configured when an attachment was made; `None` if no configuration is kept with
    /// its result.
    ///
    /// A DEL needs it after the network's file was removed or became unreadable.
    pub fn kept_network(
        &self,
        name: &str,
        id: &ContainerId,
        ifname: &IfName,
    ) -> Result<Option<Network>, Error> {
        let name: NetworkName = name.parse()?;
        // An unreadable result counts as none.
        let cached = self.cache().load(&name, id, ifname).ok().flatten();
        Ok(cached.and_then(|cached| self.network_of(&cached)))
    }

    /// The configuration that is kept with a result.
    pub(crate) fn network_of(&self, cached: &Cached) -> Option<Network> {
        let kept = Network::from_list(&cached.config).ok();
        let mut network = kept.filter(|network| network.name == cached.network)?;
        if !network.only_inlined {
            // libcni keeps the text of the list, without the plugins in files beside it.
            network.extend(files::readable_plugins(&self.net_dir, &network.name)).ok()?;
        }
        (!network.plugins.is_empty()).then_some(network)
    }

    /// Attaches a container.
    ///
    /// After a failed ADD, the whole chain gets a DEL, as the specification requires and containerd, CRI-O
    /// and podman do. (cnitool leaves that to its user.)
    pub fn add(&self, network: &Network, attachment: &Attachment) -> Result<Success, Error> {
        let cache = self.cache();
        let _lock = Lock::shared(&cache)?;
        let Attachment { container_id, ifname, .. } = attachment;
        // An early libcni kept only the bare result, whose file name is ambiguous.
        let attached = match cache.load(&network.name, container_id, ifname)? {
            None => cache.of_interface(container_id, ifname)?.into_iter().next(),
            own => own,
        };
        if let Some(attached) = attached {
            return Err(Error::Attached {
                network: attached.network.to_string(),
                id: container_id.clone(),
                ifname: ifname.clone(),
            });
        }
        // `store` would find it, too, but only after the plugins ran.
        cache.vacant(&network.name, container_id, ifname)?;
        let chain = self.chain(network);
        chain.find(Command::Add)?;
        let done = chain.add(attachment).map_err(Error::from).and_then(|result| {
            keep(&cache, network, attachment, &result)?;
            Ok(result)
        });
        done.map_err(|add| match chain.del(attachment, None) {
            Ok(()) => add,
            Err(del) => Error::NotUndone { add: Box::new(add), del: Box::new(del.into()) },
        })
    }

    /// Checks whether an attachment is still as its ADD made it. Result, arguments and configuration are
    /// those that the ADD kept, because the network's file may have changed since; `network` is used only if
    /// no configuration was kept. Does nothing if `network` disables CHECK.
    ///
    /// Arguments of `attachment` replace those of the ADD.
    pub fn check(&self, network: &Network, attachment: &Attachment) -> Result<(), Error> {
        let Attachment { container_id, ifname, .. } = attachment;
        let cached = self.cache().load(&network.name, container_id, ifname)?;
        let kept = cached.as_ref().and_then(|cached| self.network_of(cached));
        let is_disabled = network.disable_check;
        let network = kept.as_ref().unwrap_or(network);
        if network.version < Version::V0_4_0 {
            return Err(Error::NoCheck {
                network: network.name.to_string(),
                version: network.version,
            });
        }
        if is_disabled {
            return Ok(());
        }
        let Some(cached) = cached else {
            return Err(Error::NotAttached {
                network: network.name.to_string(),
                id: container_id.clone(),
                ifname: ifname.clone(),
            });
        };
        let attachment = with_cached_args(attachment, &cached);
        let result = cached.success(network.version)?;
        Ok(self.chain(network).check(&attachment, &result)?)
    }

    /// Detaches a container. It succeeds for a container that is not known or already detached.
    ///
    /// The plugins are those of the configuration that the ADD kept, so that each plugin removes what it made
    /// even if the network's file changed since. `network` is used if no configuration was kept. Arguments
    /// that `attachment` does not have are those of the ADD.
    pub fn del(&self, network: &Network, attachment: &Attachment) -> Result<(), Error> {
        let cache = self.cache();
        let _lock = Lock::shared(&cache)?;
        self.del_locked(&cache, network, attachment)
    }

    pub(crate) fn del_locked(
        &self,
        cache: &Cache,
        network: &Network,
        attachment: &Attachment,
    ) -> Result<(), Error> {
        let Attachment { container_id, ifname, .. } = attachment;
        // An unreadable result counts as none; it is removed below.
        let cached = cache.load(&network.name, container_id, ifname).ok().flatten();
        let kept = cached.as_ref().and_then(|cached| self.network_of(cached));
        let network = kept.as_ref().unwrap_or(network);
        // DEL has a result from version 0.4.0 on.
        let result = cached
            .as_ref()
            .filter(|_| network.version >= Version::V0_4_0)
            .and_then(|cached| cached.success(network.version).ok());
        let attachment = match &cached {
            Some(cached) => with_cached_args(attachment, cached),
            None => attachment.clone(),
        };
        self.chain(network).del(&attachment, result.as_ref())?;
        Ok(cache.remove(&network.name, container_id, ifname)?)
    }

    pub(crate) fn cache(&self) -> Cache {
        Cache::new(&self.cache_dir)
    }

    pub(crate) fn chain<'a>(&'a self, network: &'a Network) -> Chain<'a> {
        Chain { network, path: &self.plugin_path }
    }
}

fn keep(
    cache: &Cache,
    network: &Network,
    attachment: &Attachment,
    result: &Success,
) -> Result<(), Error> {
    let written = result.to_json(network.version).map_err(|source| {
        crate::cache::CacheError::Result { network: network.name.to_string(), source }
    })?;
    Ok(cache.store(network, attachment, &written)?)
}

/// Plugins such as portmap need the arguments of the ADD in CHECK and DEL.
fn with_cached_args(attachment: &Attachment, cached: &Cached) -> Attachment {
    let mut attachment = attachment.clone();
    if attachment.args.is_empty() {
        attachment.args = cached.attachment.args.clone();
    }
    if attachment.capability_args.is_empty() {
        attachment.capability_args.clone_from(&cached.attachment.capability_args);
    }
    attachment
}
