//! Removes everything that the plugins made on a node.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use cni::purge::Known;
use cni::{Code, Purge, json};
use serde_json::Value;

use crate::causes::with_causes;
use crate::error::Error;
use crate::files::{self, FilesError};
use crate::lock::Lock;
use crate::network::Network;
use crate::registry;
use crate::runtime::Runtime;

/// The directory of files that plugins need only until the next boot: indexes and locks.
const RUN_DIR: &str = "/run/podwire";

impl Runtime {
    /// Finds everything that the plugins made on this node for all networks, and the kept results, and
    /// removes it unless this is a dry run. Rules and links of other programs stay, and so do results and
    /// leases of networks with other plugins.
    ///
    /// No plugin is run, so that this works after they were uninstalled. Running pods lose their network.
    ///
    /// Errors: the lock cannot be taken. [`Purge::errors`] has all other failures.
    pub fn purge(&self, is_dry_run: bool) -> Result<Purge, Error> {
        let cache = self.cache();
        let _lock = if is_dry_run { None } else { Some(Lock::exclusive(&cache)?) };
        let kept = cache.all()?;
        let (configured, unreadable) = self.configured();
        let networks: Vec<Network> = kept
            .iter()
            .filter_map(|(_, cached)| self.network_of(cached))
            .chain(configured)
            .filter(is_ours)
            .collect();
        // Reading the legacy tables creates a lock there, also in a dry run.
        let has_run_dir = Path::new(RUN_DIR).exists();
        let mut purge = Purge::new(is_dry_run, known(&networks));
        for error in unreadable {
            purge.leave(format!(
                "the files in the dataDir of this network: {}",
                with_causes(&error)
            ));
        }
        for plugin in registry::PLUGINS {
            (plugin.purge)(&mut purge);
        }
        for (file, cached) in kept {
            if self.network_of(&cached).as_ref().is_some_and(is_ours) {
                purge.remove(format!("{}, a result", file.display()), || remove(&file));
            }
        }
        if has_run_dir {
            purge.remove(RUN_DIR, || gone(fs::remove_dir_all(RUN_DIR)));
        } else if !is_dry_run {
            let _ = fs::remove_dir_all(RUN_DIR);
        }
        let lock = cache.dir().join("conflist.lock");
        if lock.exists() {
            purge.remove(lock.display(), || remove(&lock));
        }
        if !is_dry_run {
            // They stay if they are not empty.
            let _ = fs::remove_dir(cache.results()).and_then(|()| fs::remove_dir(cache.dir()));
        }
        Ok(purge)
    }

    /// The networks that are configured, and why others cannot be read.
    fn configured(&self) -> (Vec<Network>, Vec<FilesError>) {
        let files = match files::networks(&self.net_dir) {
            Ok(files) => files,
            Err(error) => return (Vec::new(), vec![error]),
        };
        let (mut networks, mut unreadable) = (Vec::new(), Vec::new());
        for file in files {
            match files::load(&file) {
                Ok(network) => networks.push(network),
                Err(error) => unreadable.push(error),
            }
        }
        (networks, unreadable)
    }
}

/// Whether all plugins of a network are in the registry.
fn is_ours(network: &Network) -> bool {
    network.plugins.iter().all(|plugin| registry::plugin(&plugin.kind).is_some())
}

fn known(networks: &[Network]) -> Known {
    let mut data_dirs = BTreeSet::new();
    for plugin in networks.iter().flat_map(|network| &network.plugins) {
        let conf = Value::Object(plugin.conf.clone());
        let ipam = json::get(&conf, "ipam").cloned().unwrap_or_default();
        let dirs = [&conf, &ipam].map(|of| json::get(of, "dataDir").and_then(Value::as_str));
        // A relative path depends on the process.
        let dirs = dirs.into_iter().flatten().map(PathBuf::from).filter(|dir| dir.is_absolute());
        data_dirs.extend(dirs);
    }
    let networks = networks.iter().map(|network| network.name.to_string()).collect();
    Known { networks, data_dirs }
}

fn remove(file: &Path) -> Result<(), cni::Error> {
    gone(fs::remove_file(file))
}

fn gone(removed: io::Result<()>) -> Result<(), cni::Error> {
    match removed {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(cni::Error::new(Code::Io, error.to_string()))
        }
        _ => Ok(()),
    }
}
