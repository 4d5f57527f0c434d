//! Files and directories that plugins read and make: regular files with a size limit, and directories that no
//! other user can write to.
//!
//! Plugins run as root. They read files whose names come from configurations, or that are in directories
//! which other users can write to. A FIFO or a device would block a plugin forever, a huge file would fill
//! its memory, and a file of another user must not be trusted.

use std::fs::{self, DirBuilder, File, Metadata, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Access, OFlags, access};
use rustix::io::Errno;
use rustix::process::geteuid;

/// The size limit in bytes of configurations, results and other files that a person or a runtime writes.
pub const SIZE_LIMIT: u64 = 16 << 20;

/// The permissions of a directory that a plugin makes: only the owner can write to it.
const DIR_MODE: u32 = 0o755;
/// Write permission of the group and of others.
const WRITABLE_BY_OTHERS: u32 = 0o022;
/// In a sticky directory, users cannot remove the files of other users.
const STICKY: u32 = 0o1000;

/// Reads a regular file of at most `limit` bytes.
///
/// Errors: those of open(2) and read(2); [`ErrorKind::InvalidInput`] if it is not a regular file (a FIFO does
/// not block); [`ErrorKind::FileTooLarge`] if it is larger than the limit.
pub fn read(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    read_open(open(path)?, limit)
}

/// As [`read`], for a file that only plugins of the same user write.
///
/// Errors: also [`ErrorKind::PermissionDenied`] if the file belongs to another user.
pub fn read_own(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let file = open(path)?;
    refuse_other_owner(&file)?;
    read_open(file, limit)
}

/// Makes a directory and its parents, with permissions that do not depend on the caller's umask. A directory
/// that exists is not changed.
pub fn create_dir(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(DIR_MODE).create(path)
}

/// As [`create_dir`], for a directory that only plugins use. If it exists and other users can write to it,
/// that permission is removed.
///
/// Errors: [`ErrorKind::PermissionDenied`] if it belongs to another user.
pub fn own_dir(path: &Path) -> io::Result<()> {
    create_dir(path)?;
    let directory = File::open(path)?;
    refuse_other_owner(&directory)?;
    let mode = directory.metadata()?.mode();
    if mode & WRITABLE_BY_OTHERS == 0 || mode & STICKY != 0 {
        return Ok(());
    }
    directory.set_permissions(Permissions::from_mode(mode & 0o7777 & !WRITABLE_BY_OTHERS))
}

/// Runs `write`, which writes to the new file `path`. If it fails, removes the file, so that no part of it
/// remains.
///
/// Errors: that of `write`; if the file cannot be removed either, with that error in its text.
pub fn or_remove<T>(path: &Path, write: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    write().map_err(|error| match remove(path) {
        Ok(()) => error,
        Err(another) => {
            let both = format!("{error}; also: remove {}: {another}", path.display());
            io::Error::new(error.kind(), both)
        }
    })
}

/// The paths in a directory, sorted; none if the directory does not exist.
pub fn entries(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(dir) {
        Err(error) if is_missing(&error) => return Ok(Vec::new()),
        entries => entries?,
    };
    let paths: io::Result<Vec<_>> = entries.map(|entry| Ok(entry?.path())).collect();
    let mut paths = paths?;
    paths.sort();
    Ok(paths)
}

/// Removes a file. A file that does not exist is not an error.
pub fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if is_missing(&error) => Ok(()),
        removed => removed,
    }
}

/// Whether an error means that a file or its directory does not exist, also because its name is too long.
#[must_use]
pub fn is_missing(error: &io::Error) -> bool {
    use ErrorKind::{InvalidFilename, NotADirectory, NotFound};
    matches!(error.kind(), NotFound | NotADirectory | InvalidFilename)
}

/// Tests whether files can be made in `dir`, or in its nearest parent that exists.
///
/// Errors: why they cannot.
pub fn is_writable(dir: &Path) -> io::Result<()> {
    for part in dir.ancestors() {
        match access(part, Access::WRITE_OK | Access::EXEC_OK) {
            Err(Errno::NOENT) => {}
            other => return other.map_err(io::Error::from),
        }
    }
    Ok(())
}

/// Whether a file or directory belongs to the effective user and no other user can write to it.
#[must_use]
pub fn is_own(metadata: &Metadata) -> bool {
    metadata.uid() == geteuid().as_raw() && metadata.mode() & WRITABLE_BY_OTHERS == 0
}

fn open(path: &Path) -> io::Result<File> {
    // Opening a FIFO would wait for a writer. Opening a terminal could make it the controlling terminal.
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
    let flags = i32::try_from(flags.bits()).unwrap_or_default();
    // Opening a device can have side effects, so the file's type is read first.
    if !fs::metadata(path)?.is_file() {
        return Err(not_regular());
    }
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(not_regular()) }
}

fn not_regular() -> io::Error {
    io::Error::new(ErrorKind::InvalidInput, "it is not a regular file")
}

fn refuse_other_owner(file: &File) -> io::Result<()> {
    let (owner, own) = (file.metadata()?.uid(), geteuid().as_raw());
    if owner == own {
        return Ok(());
    }
    let what = format!("it belongs to user {owner}, not to user {own}, and is not trusted");
    Err(io::Error::new(ErrorKind::PermissionDenied, what))
}

fn read_open(file: File, limit: u64) -> io::Result<Vec<u8>> {
    let size = file.metadata()?.len();
    let mut bytes = Vec::new();
    if size <= limit {
        bytes.reserve(usize::try_from(size).unwrap_or_default() + 1);
        file.take(limit + 1).read_to_end(&mut bytes)?;
    }
    if size > limit || bytes.len() as u64 > limit {
        let what = format!("it is larger than the limit of {limit} bytes");
        return Err(io::Error::new(ErrorKind::FileTooLarge, what));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use rustix::fs::{CWD, FileType, Mode, mknodat};
    use rustix::process::umask;

    use super::*;

    /// A directory of the test's own, removed at its end.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let dir = std::env::temp_dir().join(format!("cni-file-{name}-{}", std::process::id()));
            fs::create_dir_all(&dir).unwrap();
            Self(dir)
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o7777
    }

    #[test]
    fn regular_files_up_to_the_limit() {
        let scratch = Scratch::new("limit");
        let file = scratch.0.join("file");
        fs::write(&file, "12345").unwrap();
        assert_eq!(read(&file, 5).unwrap(), b"12345");
        assert_eq!(read(&file, 4).unwrap_err().kind(), ErrorKind::FileTooLarge);
        assert_eq!(read(&scratch.0.join("none"), 5).unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(read_own(&file, 5).unwrap(), b"12345");
        // Files of procfs and sysfs report a size of 0.
        assert!(!read(Path::new("/proc/self/status"), SIZE_LIMIT).unwrap().is_empty());
    }

    #[test]
    fn other_files_than_regular_ones_are_refused() {
        let scratch = Scratch::new("kinds");
        let fifo = scratch.0.join("fifo");
        mknodat(CWD, &fifo, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
        for path in [&*fifo, Path::new("/dev/zero"), &*scratch.0] {
            assert_eq!(read(path, 5).unwrap_err().kind(), ErrorKind::InvalidInput, "{path:?}");
        }
    }

    #[test]
    fn files_of_others_are_not_trusted() {
        if !geteuid().is_root() {
            // A file of another user that every machine has.
            let error = read_own(Path::new("/etc/passwd"), SIZE_LIMIT).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::PermissionDenied);
            return;
        }
        let scratch = Scratch::new("owner");
        let file = scratch.0.join("file");
        fs::write(&file, "forged").unwrap();
        std::os::unix::fs::chown(&file, Some(1), None).unwrap();
        assert_eq!(read_own(&file, 9).unwrap_err().kind(), ErrorKind::PermissionDenied);
        assert_eq!(read(&file, 9).unwrap(), b"forged");
        std::os::unix::fs::chown(&scratch.0, Some(1), None).unwrap();
        assert_eq!(own_dir(&scratch.0).unwrap_err().kind(), ErrorKind::PermissionDenied);
    }

    #[test]
    fn a_file_that_cannot_be_written_is_removed() {
        let scratch = Scratch::new("remove");
        let file = scratch.0.join("file");
        let fail = || {
            fs::write(&file, "half")?;
            Err::<(), _>(io::Error::from(ErrorKind::StorageFull))
        };
        let error = or_remove(&file, fail).unwrap_err();
        assert_eq!((error.to_string().as_str(), file.exists()), ("no storage space", false));
        let error = or_remove(&scratch.0, fail).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::StorageFull);
        assert!(error.to_string().starts_with("no storage space; also: remove "), "{error}");
        assert!(or_remove(&file, || Ok(())).is_ok() && file.exists());
    }

    #[test]
    fn directories_do_not_depend_on_the_umask() {
        let scratch = Scratch::new("umask");
        let before = umask(Mode::empty());
        let made = scratch.0.join("a/b");
        own_dir(&made).unwrap();
        umask(before);
        assert_eq!((mode(&made), mode(&scratch.0.join("a"))), (0o755, 0o755));
        fs::set_permissions(&made, Permissions::from_mode(0o777)).unwrap();
        create_dir(&made).unwrap();
        assert_eq!(mode(&made), 0o777);
        own_dir(&made).unwrap();
        assert_eq!(mode(&made), 0o755);
        fs::set_permissions(&made, Permissions::from_mode(0o1777)).unwrap();
        own_dir(&made).unwrap();
        assert_eq!(mode(&made), 0o1777);
    }
}
