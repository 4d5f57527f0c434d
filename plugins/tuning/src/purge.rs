//! Removing all backups that this plugin has written on a node.

use std::fs;
use std::path::Path;

use cni::Purge;

use crate::backup;

/// Removes the backups of all attachments, and restores no values, because the pods are removed. Backups of
/// the reference plugin are not removed.
pub(crate) fn purge(purge: &mut Purge) {
    let mut dirs = purge.known().data_dirs.clone();
    dirs.insert(backup::DEFAULT_DIR.into());
    for dir in dirs {
        directory(purge, &dir);
    }
}

fn directory(purge: &mut Purge, dir: &Path) {
    let files = purge.look("list backups", || backup::files(dir)).unwrap_or_default();
    let owner = |file: &Path| backup::owner(file).ok().flatten();
    for (file, owner) in files.iter().filter_map(|file| Some((file, owner(file)?))) {
        let what = format!("{}, backup of network {}", file.display(), owner.network);
        purge.remove(what, || backup::remove_file(file));
    }
    // The directory is removed only if it is empty; otherwise rmdir(2) fails, which is not an error.
    if !files.is_empty() && !purge.is_dry_run() {
        let above = dir.parent().filter(|_| dir == Path::new(backup::DEFAULT_DIR));
        let _ = fs::remove_dir(dir).and_then(|()| above.map_or(Ok(()), fs::remove_dir));
    }
}
