//! Reads and writes settings in `/proc/sys/net`, in the namespace of this thread.
//!
//! A name is a list of components, because the name of an interface may contain dots.

use std::path::{Path, PathBuf};
use std::{fs, io};

use nix::errno::Errno;

use crate::error::{Error, Result, file_error};
use crate::netns::ensure_home;

/// Reads a setting, without the final newline: `read(&["ipv4", "ip_forward"])`.
pub fn read(name: &[&str]) -> Result<String> {
    ensure_home()?;
    let path = path(name);
    let text = fs::read_to_string(&path).map_err(failed("read", &path))?;
    Ok(text.trim_end().to_owned())
}

/// Writes a setting if it has another value, and returns that value. If the value is right already, this also
/// works with a read-only `/proc/sys`.
pub fn write(name: &[&str], value: &str) -> Result<Option<String>> {
    let before = read(name)?;
    if before == value {
        return Ok(None);
    }
    set(name, value)?;
    Ok(Some(before))
}

/// Finds out whether a setting could be written, without writing it.
pub fn try_out(name: &[&str]) -> Result<()> {
    ensure_home()?;
    let path = path(name);
    let opened = fs::File::options().write(true).open(&path);
    opened.map(drop).map_err(failed("write to", &path))
}

/// Writes a setting without reading it first. Some settings cannot be read.
pub fn set(name: &[&str], value: &str) -> Result<()> {
    ensure_home()?;
    let path = path(name);
    // With the newline, write(2) is called for an empty value, too.
    fs::write(&path, format!("{value}\n")).map_err(failed(&format!("write {value} to"), &path))
}

/// Like [`write()`], but ignores that the setting does not exist (a link may have no IPv6) or cannot be
/// written (a container may have a read-only `/proc/sys`). Use it for settings that a pod does not need.
pub fn write_if_possible(name: &[&str], value: &str) -> Result<()> {
    match write(name, value) {
        Err(error)
            if error.is_not_found()
                || matches!(error.errno(), Some(Errno::EROFS | Errno::EACCES | Errno::EPERM)) =>
        {
            Ok(())
        }
        written => written.map(drop),
    }
}

/// Whether the kernel has IPv6.
#[must_use]
pub fn has_ipv6() -> bool {
    path(&["ipv6"]).is_dir()
}

fn failed(operation: &str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    move |error| Error::new(format!("{operation} {}", path.display()), file_error(path, error))
}

fn path(name: &[&str]) -> PathBuf {
    ["/proc/sys/net"].iter().chain(name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_of_this_namespace() {
        testbed::in_new_netns(|| {
            let name = ["ipv4", "conf", "lo", "route_localnet"];
            assert_eq!(read(&name).unwrap(), "0");
            assert_eq!(write(&name, "1").unwrap().as_deref(), Some("0"));
            assert_eq!(write(&name, "1").unwrap(), None);
            assert_eq!(read(&name).unwrap(), "1");

            let ports = ["ipv4", "ip_local_reserved_ports"];
            assert_eq!(write(&ports, "8080").unwrap().as_deref(), Some(""));
            assert_eq!(write(&ports, "").unwrap().as_deref(), Some("8080"));
            assert_eq!(read(&ports).unwrap(), "");
            set(&["ipv4", "route", "flush"], "1").unwrap();
        });
    }

    #[test]
    fn errors_name_the_file() {
        let error = write(&["ipv4", "conf", "no.such", "arp_notify"], "1").unwrap_err();
        assert!(error.is_not_found());
        assert_eq!(error.operation, "read /proc/sys/net/ipv4/conf/no.such/arp_notify");
        write_if_possible(&["ipv4", "conf", "no.such", "arp_notify"], "1").unwrap();
    }
}
