//! Name resolution from a file in the format of resolv.conf(5).

use std::io;
use std::path::{Path, PathBuf};

use cni::{Code, Dns, Error, file};

/// The file cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("read {} (key \"ipam.resolvConf\")", .0.display())]
pub struct ReadError(PathBuf, #[source] io::Error);

impl From<ReadError> for Error {
    fn from(error: ReadError) -> Self {
        Self::from_source(Code::Io, &error)
    }
}

/// Reads name servers, domain, search list and options.
///
/// As in the reference plugin, and unlike the C library, several `search` lines are joined, and so are
/// several `options` lines. Of several `domain` lines, the last one is used.
pub fn read(path: &Path) -> Result<Dns, ReadError> {
    let text =
        file::read(path, file::SIZE_LIMIT).map_err(|source| ReadError(path.to_owned(), source))?;
    Ok(parse(&String::from_utf8_lossy(&text)))
}

fn parse(text: &str) -> Dns {
    let mut dns = Dns::default();
    for line in text.lines().filter(|line| !line.trim_start().starts_with(['#', ';'])) {
        let mut words = line.split_whitespace();
        let (Some(keyword), Some(first)) = (words.next(), words.next()) else {
            continue;
        };
        let values = std::iter::once(first).chain(words).map(str::to_owned);
        match keyword {
            "nameserver" => dns.nameservers.push(first.to_owned()),
            "domain" => first.clone_into(&mut dns.domain),
            "search" => dns.search.extend(values),
            "options" => dns.options.extend(values),
            _ => {}
        }
    }
    dns
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_keyword() {
        let dns = parse(
            "# comment\n ; another\nnameserver 10.0.0.53 trailing\nnameserver\nnameserver\tfd00::53\n\
             search a.test b.test\nsearch c.test\ndomain d.test\ndomain e.test\n\
             options ndots:3 edns0\nsortlist 10.0.0.0\n",
        );
        assert_eq!(dns.nameservers, ["10.0.0.53", "fd00::53"]);
        assert_eq!(dns.search, ["a.test", "b.test", "c.test"]);
        assert_eq!(dns.domain, "e.test");
        assert_eq!(dns.options, ["ndots:3", "edns0"]);
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = read(Path::new("/nonexistent/resolv.conf")).unwrap_err();
        assert_eq!(error.to_string(), "read /nonexistent/resolv.conf (key \"ipam.resolvConf\")");
    }
}
