//! Writing a result where nobody takes a half-written file for one.

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
/// Not synced to disk: what a power cut takes are the results of containers that it took too, and a DEL does
/// without.
pub(super) fn beside(dir: &Path, file: &Path, text: &[u8]) -> io::Result<PathBuf> {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let new = dir.join(format!(".{name}.{}", process::id()));
    let file = create(&new)?;
    or_remove(&new, || write(file, text))?;
    Ok(new)
}

/// Writes a whole text. Where the size of files is limited (`RLIMIT_FSIZE`), the kernel would end the process
/// with the signal SIGXFSZ and leave half a file; with the signal blocked, the write fails.
fn write(mut file: File, text: &[u8]) -> io::Result<()> {
    let signal = SigSet::from(Signal::SIGXFSZ);
    let before = SigSet::thread_get_mask()?;
    signal.thread_block()?;
    let written = file.write_all(text);
    let is_too_large = written.as_ref().is_err_and(|error| error.kind() == ErrorKind::FileTooLarge);
    // After that error the signal is waiting, and would end the process after all.
    if !is_too_large {
        before.thread_set_mask()?;
    }
    written
}

fn create(file: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(file)
}
