//! The file in which an administrator lists the sysctls that networks can set: regular expressions, one per
//! line. One of them must match a part of the name as it is written in the configuration.

use std::io::{self, ErrorKind};
use std::path::Path;

use cni::file::SIZE_LIMIT;
use regex_lite::Regex;

use crate::error::Error;
use crate::sysctl::Sysctl;

/// The path of the file.
pub const DEFAULT: &str = "/etc/cni/tuning/allowlist.conf";

/// Refuses sysctls that the file does not allow. Without the file, all are allowed. Without sysctls, the file
/// is not read.
pub fn check<'a>(file: &Path, sysctls: impl Iterator<Item = &'a Sysctl>) -> Result<(), Error> {
    let mut sysctls = sysctls.peekable();
    if sysctls.peek().is_none() {
        return Ok(());
    }
    let text = match cni::file::read(file, SIZE_LIMIT) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        text => text.and_then(text_of).map_err(Error::file("read the allowlist", file))?,
    };
    sysctls.try_for_each(|Sysctl { key, .. }| {
        if allows(file, &text, key)? {
            return Ok(());
        }
        Err(Error::NotAllowed { key: key.clone(), file: file.to_owned() })
    })
}

fn text_of(bytes: Vec<u8>) -> io::Result<String> {
    String::from_utf8(bytes).map_err(|_| io::Error::new(ErrorKind::InvalidData, "it is not UTF-8"))
}

/// Whether a line matches. As in the reference plugin, the lines after it are not read.
fn allows(file: &Path, text: &str, key: &str) -> Result<bool, Error> {
    let lines = text.lines().map(str::trim).zip(1..).filter(|(line, _)| !line.is_empty());
    for (text, line) in lines {
        let pattern = Regex::new(text).map_err(|source| Error::Pattern {
            file: file.to_owned(),
            line,
            text: text.to_owned(),
            source,
        })?;
        if pattern.is_match(key) {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "/etc/cni/tuning/allowlist.conf";

    #[track_caller]
    fn allowed(text: &str, key: &str) -> bool {
        allows(Path::new(FILE), text, key).unwrap()
    }

    #[test]
    fn a_line_matches_anywhere_in_a_name() {
        assert!(allowed("net.core.somaxconn", "net.core.somaxconn"));
        assert!(allowed("\n  somax \r\n", "net.core.somaxconn"));
        assert!(allowed("^net\\.ipv4\n^net\\.core\\.[a-z]+$", "net.core.somaxconn"));
        assert!(allowed("(?i)SOMAX|\\Atcp", "net.core.somaxconn"));
        assert!(!allowed("^net\\.ipv4\\.", "net.core.somaxconn"));
        assert!(!allowed("core$", "net.core.somaxconn"));
        assert!(!allowed("", "net.core.somaxconn"));
        assert!(allowed("arp_notify$", "net.ipv4.conf.IFNAME.arp_notify"));
    }

    #[test]
    fn a_line_that_is_not_valid_is_an_error_if_it_is_reached() {
        let text = "net.core\n\nnet.(ipv4";
        assert!(allowed(text, "net.core.somaxconn"));
        let error = allows(Path::new(FILE), text, "net.ipv4.tcp_syncookies").unwrap_err();
        assert_eq!(
            error.to_string(),
            "/etc/cni/tuning/allowlist.conf, line 3: \"net.(ipv4\" is not a valid regular expression"
        );
        // Go supports these; the README says that this plugin does not.
        for text in ["\\Qnet.core\\E", "\\pL"] {
            assert!(allows(Path::new(FILE), text, "net.core.somaxconn").is_err(), "{text}");
        }
    }
}
