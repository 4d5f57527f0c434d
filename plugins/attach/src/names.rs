//! Names that follow from those of an attachment: of chains, links, and in aliases and comments.

use std::fmt::Write;

use sha2::{Digest, Sha256, Sha512};

/// The longest name of a chain that iptables accepts (`XT_EXTENSION_MAXNAMELEN` less the final zero).
const CHAIN_MAX: usize = 28;
/// An alias must be shorter than this (`IFALIASZ`).
const ALIAS_LIMIT: usize = 256;

/// The alias of a link; `None` if the kernel does not have room for it.
#[must_use]
pub fn alias_that_fits(alias: &str) -> Option<&str> {
    Some(alias).filter(|alias| alias.len() < ALIAS_LIMIT)
}

/// The name of a container's chain: `CNI-`, a prefix, and as many hexadecimal digits of a hash as fit. The
/// reference plugins use the same name, so either can remove what the other made.
#[must_use]
pub fn chain_name(prefix: &str, network: &str, container_id: &str) -> String {
    hashed_name(&format!("CNI-{prefix}"), CHAIN_MAX, &[network, container_id])
}

/// A prefix and hexadecimal digits of the hash of all `texts`, joined, up to `max` bytes.
#[must_use]
pub fn hashed_name(prefix: &str, max: usize, texts: &[&str]) -> String {
    with_digits(prefix, max, &Sha512::digest(texts.concat()))
}

/// A name in a comment with room for `max` bytes: the name itself, or `sha256:` and 16 bytes of its hash. No
/// name of the specification has a colon.
#[must_use]
pub fn name_that_fits(name: &str, max: usize) -> String {
    if name.len() <= max {
        return name.to_owned();
    }
    let prefix = "sha256:";
    with_digits(prefix, prefix.len() + 32, &Sha256::digest(name))
}

fn with_digits(prefix: &str, max: usize, hash: &[u8]) -> String {
    let mut name = prefix.to_owned();
    for byte in hash {
        // Writing to a string cannot fail.
        let _ = write!(name, "{byte:02x}");
    }
    name.truncate(max);
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_reference_plugins() {
        // From `iptables -t nat -S` after an ADD of theirs.
        assert_eq!(chain_name("", "testnet", "pod-a"), "CNI-9b8cc9dd5d53e36658bb083e");
        assert_eq!(chain_name("DN-", "testnet", "pod-a"), "CNI-DN-9b8cc9dd5d53e36658bb0");
        // From `ip link`.
        assert_eq!(hashed_name("bwp", 15, &["testnet", "pod-a"]), "bwp9b8cc9dd5d53");
    }

    #[test]
    fn a_long_alias_is_left_out() {
        assert_eq!(alias_that_fits(&"a".repeat(255)).map(str::len), Some(255));
        assert_eq!(alias_that_fits(&"a".repeat(256)), None);
    }
}
