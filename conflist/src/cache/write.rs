//! Writes a result so that no reader finds a partial file.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process;

use cni::file::or_remove;
use nix::sys::signal::{SigSet, Signal};

/// Writes a new file in `dir` that can replace `file`, and returns its path. If that fails, no file
/// is left.
///
/// The file is not synced: after a power failure the containers are gone, too, and a DEL needs no result.
pub(super) fn beside(dir: &Path, file: &Path, text: &[u8]) -> io::Result<PathBuf> {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let new = dir.join(format!(".{name}.{}", process::id()));
    let file = create(&new)?;
    or_remove(&new, || write(file, text))?;
    Ok(new)
}

/// Writes all bytes. Beyond a limit for the size of files (`RLIMIT_FSIZE`), the signal SIGXFSZ would end the
/// process and leave a partial file; because it is blocked, the write fails instead.
fn write(mut file: File, text: &[u8]) -> io::Result<()> {
    let signal = SigSet::from(Signal::SIGXFSZ);
    let before = SigSet::thread_get_mask()?;
    signal.thread_block()?;
    let written = file.write_all(text);
    let is_too_large = written.as_ref().is_err_and(|error| error.kind() == ErrorKind::FileTooLarge);
    // The signal is pending after that error. It must stay blocked, or it would end the process.
    if !is_too_large {
        before.thread_set_mask()?;
    }
    written
}

fn create(file: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(file)
}
