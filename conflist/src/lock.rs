//! The lock that excludes ADD and DEL while a GC runs, as the specification requires (section 3, "Lifecycle
//! & Ordering").

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::fcntl::{Flock, FlockArg, OFlag};

use crate::cache::{Cache, CacheError};

/// A held lock. It is released when this is dropped or the process ends.
pub(crate) struct Lock {
    _file: Flock<File>,
}

impl Lock {
    /// For ADD and DEL, any number of which may run at the same time.
    pub(crate) fn shared(cache: &Cache) -> Result<Self, CacheError> {
        Self::take(cache, FlockArg::LockShared)
    }

    /// For GC and purge, which run alone.
    pub(crate) fn exclusive(cache: &Cache) -> Result<Self, CacheError> {
        Self::take(cache, FlockArg::LockExclusive)
    }

    fn take(cache: &Cache, how: FlockArg) -> Result<Self, CacheError> {
        let path = cache.dir().join("conflist.lock");
        let locked = cache
            .make_dirs()
            .and_then(|()| open(&path))
            .and_then(|file| Flock::lock(file, how).map_err(|(_, errno)| io::Error::from(errno)));
        match locked {
            Ok(file) => Ok(Self { _file: file }),
            Err(source) => Err(CacheError::Lock { file: path, source }),
        }
    }
}

/// Opens the lock file for reading and writing, which does not block on a FIFO.
fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    let file = options.custom_flags(OFlag::O_NOFOLLOW.bits()).open(path)?;
    if file.metadata()?.is_file() {
        return Ok(file);
    }
    Err(io::Error::new(ErrorKind::InvalidInput, "it is not a regular file"))
}

#[cfg(test)]
mod tests {
    use std::{env, fs, process};

    use super::*;

    #[test]
    fn a_gc_is_alone() {
        let dir = env::temp_dir().join(format!("conflist-lock-{}", process::id()));
        let cache = Cache::new(&dir);
        let try_lock = |how| {
            let file = File::open(dir.join("conflist.lock")).unwrap();
            Flock::lock(file, how).is_ok()
        };
        let add = Lock::shared(&cache).unwrap();
        let del = Lock::shared(&cache).unwrap();
        assert!(!try_lock(FlockArg::LockExclusiveNonblock));
        drop((add, del));
        let gc = Lock::exclusive(&cache).unwrap();
        assert!(!try_lock(FlockArg::LockSharedNonblock));
        drop(gc);
        assert!(try_lock(FlockArg::LockExclusiveNonblock));
        fs::remove_dir_all(dir).unwrap();
    }
}
