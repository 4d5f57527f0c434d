//! Settings below `net`: their names, and when two texts are the same value.

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::error::Error;

/// What stands for the interface's name in the name of a setting.
pub const PLACEHOLDER: &str = "IFNAME";

/// A setting that is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sysctl {
    /// Its name, as it stands in the configuration.
    pub key: String,
    /// Its value.
    pub value: String,
}

/// The name of a setting: the parts of its path behind `/proc/sys/net`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name(Vec<String>);

/// A string that is not the name of a setting of the network.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "is no setting of the network, such as net.core.somaxconn or net/ipv4/conf/IFNAME/arp_notify"
)]
pub struct InvalidName;

impl Name {
    /// Reads a name of a configuration, whose parts stand between dots or slashes. An interface's
    /// name may hold dots, so the placeholder is replaced last.
    pub fn of_config(text: &str, ifname: &str) -> Result<Self, InvalidName> {
        let mut parts = text.split(['.', '/']).map(str::to_owned).collect::<Vec<_>>();
        if let Some(part) = parts.iter_mut().find(|part| part.contains(PLACEHOLDER)) {
            *part = part.replacen(PLACEHOLDER, ifname, 1);
        }
        Self::of_parts(parts)
    }

    fn of_parts(mut parts: Vec<String>) -> Result<Self, InvalidName> {
        let is_name = |part: &String| !part.is_empty() && part != "." && part != "..";
        if parts.len() < 2 || parts.remove(0) != "net" || !parts.iter().all(is_name) {
            return Err(InvalidName);
        }
        Ok(Self(parts))
    }

    /// The parts, as [`kernel::sysctl`] takes them.
    #[must_use]
    pub fn parts(&self) -> Vec<&str> {
        self.0.iter().map(String::as_str).collect()
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "net/{}", self.0.join("/"))
    }
}

impl FromStr for Name {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        Self::of_parts(text.split('/').map(str::to_owned).collect())
    }
}

impl Serialize for Name {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// Whether settings can be written, which they cannot where `/proc/sys` is mounted read-only.
pub fn are_writable() -> Result<(), Error> {
    // A setting that every namespace has.
    let name = ["ipv4", "ip_forward"];
    kernel::sysctl::try_out(&name)
        .map_err(|source| Error::Sysctl { name: format!("net/{}", name.join("/")), source })
}

/// What a name of a configuration looks like: as [`Name::of_config`] reads it.
#[cfg(feature = "schema")]
pub(crate) fn names() -> schemars::Schema {
    schemars::json_schema!({
        "pattern": "^net([./][^./]+)+$",
        "patternErrorMessage": "is not below net.: a container's network has no others",
    })
}

/// Whether the kernel means by `now` what `asked` says. It writes tabs for spaces, decimal numbers
/// for others, all digits of an IPv6 address, and joins ranges (`8080,8081` becomes `8080-8081`).
#[must_use]
pub fn is_same(asked: &str, now: &str) -> bool {
    let words = |text| str::split_whitespace(text).map(|word| number(word).ok_or(word));
    let same_ranges = || ranges(asked).is_some_and(|asked| Some(asked) == ranges(now));
    let address = |text: &str| text.trim().parse::<Ipv6Addr>().ok();
    let same_address = || address(asked).is_some_and(|asked| Some(asked) == address(now));
    words(asked).eq(words(now)) || same_ranges() || same_address()
}

/// As the kernel reads them: hexadecimal behind `0x`, octal behind `0`.
fn number(word: &str) -> Option<i128> {
    let (sign, digits) = word.strip_prefix('-').map_or((1, word), |digits| (-1, digits));
    let (radix, digits) = match digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")) {
        Some(digits) => (16, digits),
        None if digits.len() > 1 && digits.starts_with('0') => (8, digits),
        None => (10, digits),
    };
    let is_digit = |c: char| c.is_digit(radix);
    let number = i128::from_str_radix(digits, radix).ok()?;
    digits.chars().all(is_digit).then_some(sign * number)
}

/// A list of numbers and ranges between commas, sorted and joined.
fn ranges(text: &str) -> Option<Vec<(u64, u64)>> {
    let range = |text: &str| {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        Some((first.parse().ok()?, last.parse().ok()?))
    };
    let mut ranges: Vec<(u64, u64)> = text.trim().split(',').map(range).collect::<Option<_>>()?;
    ranges.sort_unstable();
    let mut joined: Vec<(u64, u64)> = Vec::new();
    for (first, last) in ranges {
        match joined.last_mut() {
            Some(before) if first <= before.1.saturating_add(1) => before.1 = before.1.max(last),
            _ => joined.push((first, last)),
        }
    }
    Some(joined)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let name = |text, ifname| Name::of_config(text, ifname).unwrap().to_string();
        assert_eq!(name("net.core.somaxconn", "eth0"), "net/core/somaxconn");
        assert_eq!(name("net/core/somaxconn", "eth0"), "net/core/somaxconn");
        assert_eq!(
            name("net.ipv4.conf.IFNAME.arp_notify", "eth0.5"),
            "net/ipv4/conf/eth0.5/arp_notify"
        );
        let with_dot = Name::of_config("net/ipv4/conf/IFNAME/arp_notify", "eth0.5").unwrap();
        assert_eq!(with_dot.parts(), ["ipv4", "conf", "eth0.5", "arp_notify"]);
        assert_eq!(with_dot.to_string().parse(), Ok(with_dot));
    }

    #[test]
    fn only_the_network_has_settings() {
        for bad in [
            "",
            "net",
            "net.",
            "net..core",
            "kernel.pid_max",
            "net/../kernel/pid_max",
            "net.core...vm.swappiness",
            "/net/core/somaxconn",
            "network.x",
        ] {
            assert_eq!(Name::of_config(bad, "eth0"), Err(InvalidName), "{bad}");
        }
        assert_eq!("net/../kernel/pid_max".parse::<Name>(), Err(InvalidName));
    }

    #[test]
    fn values_that_the_kernel_writes_in_another_way() {
        for (asked, now) in [
            ("500", "500"),
            ("1024 65000", "1024\t65000"),
            (" 1\n", "1"),
            ("0x10", "16"),
            ("010", "8"),
            ("-1", "-1"),
            ("cubic", "cubic"),
            ("", ""),
            ("8081,8080,9000", "8080-8081,9000"),
            ("2001:db8::1", "2001:0db8:0000:0000:0000:0000:0000:0001"),
        ] {
            assert!(is_same(asked, now), "{asked} {now}");
        }
        for (asked, now) in [
            ("500", "501"),
            ("1024 65000", "1024"),
            ("cubic", "reno"),
            ("", "0"),
            ("1", "-1"),
            ("8080", "8080-8081"),
            ("2001:db8::1", "2001:0db8:0000:0000:0000:0000:0000:0002"),
            ("0x", "0"),
            ("--1", "1"),
        ] {
            assert!(!is_same(asked, now), "{asked} {now}");
        }
    }
}
