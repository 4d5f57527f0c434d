//! The lock of processes of these plugins that change the same legacy tables.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg, OFlag};
use nix::unistd::geteuid;

use crate::error::{Cause, Error, Result};

/// The lock of a network namespace. It is held until it is dropped or the process ends.
///
/// It is a file that only root can open. The file of the namespace itself is not used, because every process
/// in the namespace could lock it and never unlock it.
#[derive(Debug)]
pub(super) struct Lock {
    #[expect(dead_code, reason = "it is held, not used")]
    file: Flock<File>,
}

/// The directory of the locks. They are empty files that stay until the next boot.
const DIRECTORY: &str = "/run/podwire/iptables";

/// How long to wait for the lock: as long as the programs of iptables wait for theirs.
const WAIT: Duration = Duration::from_secs(10);

/// The time between two attempts. A command holds the lock for a few milliseconds, while it runs programs.
const PAUSE: Duration = Duration::from_millis(5);

impl Lock {
    /// Locks the namespace of this thread.
    pub(super) fn take() -> Result<Self> {
        Self::take_in(Path::new(DIRECTORY), WAIT)
    }

    fn take_in(directory: &Path, wait: Duration) -> Result<Self> {
        let path = file_of_namespace(directory)?;
        let failed = |cause: Cause| Error::new(format!("lock {}", path.display()), cause);
        let mut file = open(directory, &path).map_err(|error| failed(error.into()))?;
        let deadline = Instant::now() + wait;
        loop {
            file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(file) => return Ok(Self { file }),
                Err((_, errno)) if errno != Errno::EWOULDBLOCK => return Err(failed(errno.into())),
                Err((file, _)) => file,
            };
            if Instant::now() >= deadline {
                let seconds = wait.as_secs();
                let text =
                    format!("another process did not release it within {seconds} s; try again");
                return Err(failed(Cause::Locked(text)));
            }
            thread::sleep(PAUSE);
        }
    }
}

/// The path of the lock for the namespace of this thread. Its name has the inode of the namespace.
fn file_of_namespace(directory: &Path) -> Result<PathBuf> {
    let namespace = "/proc/thread-self/ns/net";
    let inode = fs::metadata(namespace)
        .map_err(|error| Error::new(format!("look at {namespace}"), error))?
        .ino();
    Ok(directory.join(format!("netns-{inode}.lock")))
}

fn open(directory: &Path, path: &Path) -> io::Result<File> {
    // Only the inner directory is for root alone. The outer one has other directories of plugins.
    directory.parent().map(|parent| own_dir(parent, 0o755)).transpose()?;
    own_dir(directory, 0o700)?;
    // If there is a FIFO instead of the file, open must not wait.
    let flags = (OFlag::O_NONBLOCK | OFlag::O_NOFOLLOW).bits();
    let options = &mut OpenOptions::new();
    options.write(true).create(true).truncate(false).mode(0o600).custom_flags(flags).open(path)
}

/// Makes a directory with the permissions `mode`. If it exists, removes the permissions that `mode` does not
/// have. (`cni::file` has the same function for plugins; this crate does not use `cni`.)
///
/// Errors: if the directory belongs to another user, because that user could replace the locks in it.
fn own_dir(directory: &Path, mode: u32) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(mode).create(directory)?;
    let flags = (OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW).bits();
    let opened = OpenOptions::new().read(true).custom_flags(flags).open(directory)?;
    let found = opened.metadata()?;
    let (owner, own) = (found.uid(), geteuid().as_raw());
    if owner != own {
        let why = format!(
            "{} belongs to user {owner}; it must belong to user {own}",
            directory.display()
        );
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
    }
    if found.mode() & 0o777 & !mode == 0 {
        return Ok(());
    }
    opened.set_permissions(Permissions::from_mode(found.mode() & mode))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::chown;
    use std::{env, process};

    use super::*;

    #[test]
    fn one_at_a_time_and_root_alone() {
        let base = env::temp_dir().join(format!("podwire-lock-{}", process::id()));
        let directory = base.join("iptables");
        let held = Lock::take_in(&directory, WAIT).unwrap();
        let error = Lock::take_in(&directory, Duration::ZERO).unwrap_err();
        assert!(error.is_locked(), "{error}");
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
        assert_eq!(mode(&directory), 0o700);
        assert_eq!(mode(&file_of_namespace(&directory).unwrap()), 0o600);

        // Another thread waits until the lock is released.
        thread::scope(|scope| {
            let waiting = scope.spawn(|| Lock::take_in(&directory, WAIT).map(drop));
            thread::sleep(2 * PAUSE);
            drop(held);
            waiting.join().unwrap().unwrap();
        });
        fs::remove_dir_all(base).unwrap();
    }

    /// Earlier releases made the directories with the umask of the caller, so that other users could replace
    /// the locks.
    #[test]
    fn directories_of_others() {
        let base = env::temp_dir().join(format!("podwire-lock-others-{}", process::id()));
        let directory = base.join("iptables");
        let set_mode =
            |path: &Path| fs::set_permissions(path, Permissions::from_mode(0o777)).unwrap();
        fs::create_dir_all(&directory).unwrap();
        set_mode(&base);
        set_mode(&directory);
        drop(Lock::take_in(&directory, WAIT).unwrap());
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
        assert_eq!((mode(&base), mode(&directory)), (0o755, 0o700));

        if geteuid().is_root() {
            for path in [&directory, &base] {
                chown(path, Some(65534), None).unwrap();
                let error = Lock::take_in(&directory, WAIT).unwrap_err();
                assert!(format!("{error:?}").contains("belongs to user 65534"), "{error:?}");
            }
        }
        fs::remove_dir_all(base).unwrap();
    }
}
