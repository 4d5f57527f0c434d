//! Sysctls below `net`: their names, and whether two strings are the same value.

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::error::Error;

/// The part of a sysctl's name that is replaced by the interface's name.
pub const PLACEHOLDER: &str = "IFNAME";

/// A sysctl of the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sysctl {
    /// The name, as it is written in the configuration.
    pub key: String,
    /// The value.
    pub value: String,
}

/// The name of a sysctl: the parts of its path below `/proc/sys/net`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name(Vec<String>);

/// A string that is not the name of a sysctl below `net`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "must be the name of a sysctl below net, such as net.core.somaxconn or net/ipv4/conf/IFNAME/arp_notify"
)]
pub struct InvalidName;

impl Name {
    /// Reads a name of a configuration, whose parts are separated by dots or slashes. The placeholder is
    /// replaced last, because an interface's name can contain dots.
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

    /// The parts, for [`kernel::sysctl`].
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

/// Whether sysctls can be written. They cannot if `/proc/sys` is mounted read-only.
pub fn are_writable() -> Result<(), Error> {
    // A sysctl that every namespace has.
    let name = ["ipv4", "ip_forward"];
    kernel::sysctl::try_out(&name)
        .map_err(|source| Error::Sysctl { name: format!("net/{}", name.join("/")), source })
}

/// The schema of a name of a configuration, as [`Name::of_config`] reads it.
#[cfg(feature = "schema")]
pub(crate) fn names() -> schemars::Schema {
    schemars::json_schema!({
        "pattern": "^net([./][^./]+)+$",
        "patternErrorMessage": "is not below net: a network namespace has no other sysctls",
    })
}

/// Whether the kernel's value `now` is the same as `asked`. The kernel writes tabs for spaces, all numbers in
/// decimal, IPv6 addresses with all digits, and joins ranges (`8080,8081` becomes `8080-8081`).
#[must_use]
pub fn is_same(asked: &str, now: &str) -> bool {
    let words = |text| str::split_whitespace(text).map(|word| number(word).ok_or(word));
    let same_ranges = || ranges(asked).is_some_and(|asked| Some(asked) == ranges(now));
    let address = |text: &str| text.trim().parse::<Ipv6Addr>().ok();
    let same_address = || address(asked).is_some_and(|asked| Some(asked) == address(now));
    words(asked).eq(words(now)) || same_ranges() || same_address()
}

/// A number as the kernel reads it: hexadecimal after `0x`, octal after `0`.
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

/// A list of numbers and ranges, separated by commas. The result is sorted and joined.
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
    fn other_names_are_refused() {
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
    fn values_that_the_kernel_writes_in_another_form() {
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
