//! Removing all leases of a node that this plugin has made, and the files beside them.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use cni::{Code, Error, NetworkName, Purge, file};

use crate::HostLocal;
use crate::boot::BootId;
use crate::config::DEFAULT_DATA_DIR;
use crate::index::Index;
use crate::lease::Owner;
use crate::store::{Leases, Store};

impl HostLocal {
    /// Removes the leases of all networks whose directory this plugin has used, which an index or a mark on a
    /// lease shows. Other directories may belong to the reference plugin, which has the same format, and to
    /// running pods. Their leases are not removed. Addresses that an administrator has reserved are not
    /// removed either.
    pub(crate) fn purge_all(&self, purge: &mut Purge) {
        let mut data_dirs = purge.known().data_dirs.clone();
        data_dirs.insert(DEFAULT_DATA_DIR.into());
        for data_dir in data_dirs {
            let networks = purge.look("list leases", || networks(&data_dir)).unwrap_or_default();
            for network in networks {
                let leases = Leases::of(&data_dir, network);
                let taken = purge.look("list leases", || leases.taken()).unwrap_or_default();
                if self.has_used(&leases, &taken) || (taken.is_empty() && is_known(&leases, purge))
                {
                    self.purge_network(&leases, purge);
                } else if is_known(&leases, purge) {
                    purge.leave(format!(
                        "{}: these leases have no mark of this suite; remove them if no pod uses them",
                        leases.dir().display()
                    ));
                }
            }
            remove_if_empty(&data_dir, purge);
        }
    }

    fn has_used(&self, leases: &Leases, taken: &HashSet<IpAddr>) -> bool {
        self.index(leases.dir()).is_some_and(|index| index.exists())
            || taken.iter().any(|ip| BootId::is_marked(&leases.path(*ip)))
    }

    fn index(&self, dir: &Path) -> Option<Index> {
        Some(Index::of(&self.index_root, &fs::metadata(dir).ok()?))
    }

    fn purge_network(&self, leases: &Leases, purge: &mut Purge) {
        let dir = leases.dir();
        // With the lock, no other process assigns addresses.
        let lock =
            || if purge.is_dry_run() { Ok(None) } else { Store::open(leases, &self.index_root) };
        let (_lock, index) = (lock().unwrap_or_default(), self.index(dir));
        let place = format!("list the leases in {}", dir.display());
        let mut taken: Vec<IpAddr> =
            purge.look(place, || leases.taken()).into_iter().flatten().collect();
        taken.sort_unstable();
        for ip in taken {
            lease(leases, ip, purge);
        }
        for path in purge.look("list files", || own_files(dir)).unwrap_or_default() {
            purge.remove(path.display(), || removed(file::remove(&path), &path));
        }
        if let Some(index) = index.filter(Index::exists) {
            let what = format!("index of {}", dir.display());
            purge.remove(what, || removed(index.delete(), &self.index_root));
        }
        remove_if_empty(dir, purge);
    }
}

/// Whether the network is configured with plugins of this suite only.
fn is_known(leases: &Leases, purge: &Purge) -> bool {
    purge.known().networks.contains(leases.network().as_str())
}

fn lease(leases: &Leases, ip: IpAddr, purge: &mut Purge) {
    let path = leases.path(ip);
    let place = format!("read {}", path.display());
    match purge.look(place, || leases.owner(ip)).flatten() {
        Some(owner @ Owner::Other) => {
            purge.leave(format!("{}: reserved by {owner}", path.display()));
        }
        Some(owner) => {
            let what = format!("{}, lease of {owner}", path.display());
            purge.remove(what, || removed(file::remove(&path), &path));
        }
        None => {}
    }
}

/// The networks that have a directory in `data_dir`; none if `data_dir` does not exist.
fn networks(data_dir: &Path) -> Result<Vec<NetworkName>, Error> {
    let mut dirs = entries(data_dir)?;
    dirs.retain(|path| fs::symlink_metadata(path).is_ok_and(|it| it.is_dir()));
    Ok(dirs.iter().filter_map(|dir| dir.file_name()?.to_str()?.parse().ok()).collect())
}

/// The files beside the leases.
fn own_files(dir: &Path) -> Result<Vec<PathBuf>, Error> {
    let mut files = entries(dir)?;
    files.retain(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name == "lock" || name.starts_with("last_reserved_ip.")
    });
    Ok(files)
}

fn entries(dir: &Path) -> Result<Vec<PathBuf>, Error> {
    file::entries(dir)
        .map_err(|error| Error::new(Code::Io, format!("list {}: {error}", dir.display())))
}

fn removed(result: io::Result<()>, path: &Path) -> Result<(), Error> {
    result.map_err(|error| Error::new(Code::Io, format!("{}: {error}", path.display())))
}

/// Removes a directory. If it contains files of other programs, rmdir(2) fails, which is not an error.
fn remove_if_empty(dir: &Path, purge: &Purge) {
    if !purge.is_dry_run() {
        let _ = fs::remove_dir(dir);
    }
}
