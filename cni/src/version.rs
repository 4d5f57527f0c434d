//! The versions of the specification.

use std::fmt;
use std::str::FromStr;

use crate::text::{read_from_text, written_as_text};

/// A version of the specification, in the order of release.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Version {
    /// 0.1.0: one IPv4 and one IPv6 address; no interfaces.
    V0_1_0,
    /// 0.2.0: as 0.1.0, with the VERSION command.
    V0_2_0,
    /// 0.3.0: several addresses and interfaces; chains.
    V0_3_0,
    /// 0.3.1: as 0.3.0, with a corrected text.
    V0_3_1,
    /// 0.4.0: the CHECK command, `prevResult` on DEL.
    V0_4_0,
    /// 1.0.0: addresses without their own `version` key; only lists of plugins.
    V1_0_0,
    /// 1.1.0: GC and STATUS; more properties of interfaces and routes.
    V1_1_0,
}

/// A `cniVersion` that this suite does not support.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cniVersion {0:?} is not supported; must be one of {known}", known = Version::list())]
pub struct UnknownVersion(pub String);

impl Version {
    /// Every version, oldest first.
    pub const ALL: [Self; 7] = [
        Self::V0_1_0,
        Self::V0_2_0,
        Self::V0_3_0,
        Self::V0_3_1,
        Self::V0_4_0,
        Self::V1_0_0,
        Self::V1_1_0,
    ];
    /// The newest version.
    pub const LATEST: Self = Self::V1_1_0;

    /// The value of `cniVersion`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::V0_1_0 => "0.1.0",
            Self::V0_2_0 => "0.2.0",
            Self::V0_3_0 => "0.3.0",
            Self::V0_3_1 => "0.3.1",
            Self::V0_4_0 => "0.4.0",
            Self::V1_0_0 => "1.0.0",
            Self::V1_1_0 => "1.1.0",
        }
    }

    /// All versions for messages: `0.1.0, 0.2.0, …`.
    #[must_use]
    pub fn list() -> String {
        Self::ALL.map(Self::as_str).join(", ")
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Version {
    type Err = UnknownVersion;

    /// An empty string means 0.1.0, which has no `cniVersion`.
    fn from_str(text: &str) -> Result<Self, UnknownVersion> {
        if text.is_empty() {
            return Ok(Self::V0_1_0);
        }
        let known = Self::ALL.into_iter().find(|version| version.as_str() == text);
        known.ok_or_else(|| UnknownVersion(text.to_owned()))
    }
}

read_from_text!(Version);
written_as_text!(Version);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_is_the_order_of_release() {
        assert!(Version::ALL.is_sorted());
        assert_eq!(Version::ALL.last(), Some(&Version::LATEST));
    }

    #[test]
    fn texts_come_back() {
        for version in Version::ALL {
            assert_eq!(version.as_str().parse(), Ok(version));
        }
        assert_eq!("".parse(), Ok(Version::V0_1_0));
        assert_eq!("1.1".parse::<Version>(), Err(UnknownVersion("1.1".into())));
    }
}
