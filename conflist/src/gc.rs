//! GC, STATUS and VERSION: commands on a network as a whole.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use cni::{Command, ContainerId, IfName, Version, exec};
use serde::Deserialize;

use crate::attachment::Attachment;
use crate::cache::{Cached, Kept, readings};
use crate::error::Error;
use crate::files;
use crate::lock::Lock;
use crate::network::Network;
use crate::request;
use crate::runtime::Runtime;

/// The attachments of a network that a GC keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Valid {
    /// All attachments whose results are kept, except these.
    KeptBut(BTreeSet<(ContainerId, IfName)>),
    /// Only these.
    Only(BTreeSet<(ContainerId, IfName)>),
}

/// The versions that a plugin of a network supports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PluginVersions {
    /// Its type.
    pub kind: String,
    /// Its program.
    pub program: PathBuf,
    /// The versions of the specification that it supports, as it printed them.
    pub supported: Vec<String>,
}

/// What is kept of a network, before a GC.
#[derive(Default)]
struct Sorted {
    kept: BTreeSet<(ContainerId, IfName)>,
    gone: Vec<Attachment>,
    errors: Vec<Error>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct VersionAnswer {
    supported_versions: Vec<String>,
}

impl Valid {
    fn has(&self, id: &ContainerId, ifname: &IfName) -> bool {
        let key = (id.clone(), ifname.clone());
        match self {
            Self::KeptBut(gone) => !gone.contains(&key),
            Self::Only(these) => these.contains(&key),
        }
    }
}

impl Runtime {
    /// Removes everything that belongs to no valid attachment. Kept attachments that are not valid get a
    /// DEL, even after one of them failed. Then every plugin gets a GC, if the network's version is 1.1.0 or
    /// later. Does nothing for a network that disables GC.
    ///
    /// Errors: nothing is removed if kept attachments are valid and one of them cannot be read.
    ///
    /// A lock excludes ADD and DEL of this library meanwhile, but not those of other runtimes: stop them, or
    /// name the valid attachments.
    pub fn gc(&self, network: &Network, valid: &Valid) -> Result<(), Error> {
        if network.disable_gc {
            return Ok(());
        }
        let cache = self.cache();
        let _lock = Lock::exclusive(&cache)?;
        let Sorted { kept, gone, mut errors } =
            self.sort(network, valid, cache.of_network(&network.name)?)?;
        for attachment in gone {
            if let Err(error) = self.del_locked(&cache, network, &attachment) {
                let Attachment { container_id: id, ifname, .. } = attachment;
                errors.push(Error::NotDetached { id, ifname, error: Box::new(error) });
            }
        }
        if network.version >= Version::V1_1_0 {
            let valid = match valid {
                Valid::KeptBut(_) => &kept,
                Valid::Only(these) => these,
            };
            self.gc_plugins(network, valid, &mut errors);
        }
        match errors.len() {
            0 => Ok(()),
            1 => Err(errors.remove(0)),
            _ => Err(Error::Several(errors)),
        }
    }

    /// Runs STATUS of each plugin: could an ADD work now? Before version 1.1.0 there is no STATUS; then this
    /// only checks that the plugins exist.
    pub fn status(&self, network: &Network) -> Result<(), Error> {
        let chain = self.chain(network);
        chain.find(Command::Status)?;
        if network.version < Version::V1_1_0 {
            return Ok(());
        }
        for (index, plugin) in network.plugins.iter().enumerate() {
            chain.run(Command::Status, index, None, &request::of_status(network, plugin))?;
        }
        Ok(())
    }

    /// The versions that each plugin of a network supports, in the order of the chain.
    pub fn versions(&self, network: &Network) -> Result<Vec<PluginVersions>, Error> {
        let chain = self.chain(network);
        let ask = |index: usize| {
            let printed = chain.version(index)?;
            let kind = network.plugins[index].kind.clone();
            let failed = |error| chain.error(Command::Version, index, error);
            let answer: VersionAnswer =
                cni::json::read(&printed.unwrap_or_default()).map_err(failed)?;
            let program =
                exec::find(&kind, &self.plugin_path).map_err(|error| failed(error.into()))?;
            Ok(PluginVersions { kind, program, supported: answer.supported_versions })
        };
        (0..network.plugins.len()).map(ask).collect()
    }

    fn sort(&self, network: &Network, valid: &Valid, found: Vec<Kept>) -> Result<Sorted, Error> {
        let mut sorted = Sorted::default();
        for found in found {
            match (found, valid) {
                (Kept::Named(Cached { attachment, .. }), _) => {
                    let Attachment { container_id, ifname, .. } = &attachment;
                    if valid.has(container_id, ifname) {
                        sorted.kept.insert((container_id.clone(), ifname.clone()));
                    } else {
                        sorted.gone.push(attachment);
                    }
                }
                (Kept::Unnamed { error: Some(error), .. }, Valid::KeptBut(_)) => {
                    return Err(Error::Unreadable { network: network.name.to_string(), error });
                }
                (Kept::Unnamed { readings, .. }, Valid::KeptBut(gone)) => {
                    let named: Vec<_> = readings.iter().filter(|it| gone.contains(it)).collect();
                    if named.is_empty() {
                        // All attachments that it may be of are kept.
                        sorted.kept.extend(readings);
                    } else {
                        sorted.gone.extend(named.into_iter().map(bare_attachment));
                    }
                }
                (Kept::Unnamed { file, readings, .. }, Valid::Only(these)) => {
                    if readings.iter().any(|it| these.contains(it)) {
                        continue;
                    }
                    match self.other_network(network, &file)? {
                        None => sorted.gone.extend(readings.iter().map(bare_attachment)),
                        Some(other) => sorted.errors.push(Error::Ambiguous { file, other }),
                    }
                }
            }
        }
        Ok(sorted)
    }

    /// Another configured network that a file may belong to by its name.
    fn other_network(&self, network: &Network, file: &Path) -> Result<Option<String>, Error> {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        let mut others = files::networks(&self.net_dir)?
            .into_iter()
            .filter_map(|file| files::load(&file).ok())
            .map(|other| other.name)
            .filter(|other| *other != network.name);
        let other = others.find(|other| !readings(&name, other).is_empty());
        Ok(other.map(|other| other.to_string()))
    }

    fn gc_plugins(
        &self,
        network: &Network,
        valid: &BTreeSet<(ContainerId, IfName)>,
        errors: &mut Vec<Error>,
    ) {
        let chain = self.chain(network);
        for (index, plugin) in network.plugins.iter().enumerate() {
            let stdin = request::of_gc(network, plugin, valid);
            if let Err(error) = chain.run(Command::Gc, index, None, &stdin) {
                errors.push(error.into());
            }
        }
    }
}

fn bare_attachment((id, ifname): &(ContainerId, IfName)) -> Attachment {
    Attachment::new(id.clone(), ifname.clone(), None)
}
