//! Names of chains, links and owners that follow from those of a network and a container.

use std::fmt::Write;

use sha2::{Digest, Sha256, Sha512};

/// iptables takes 28 bytes (`XT_EXTENSION_MAXNAMELEN` less the final zero).
const MAX: usize = 28;

/// The name that the reference plugins give a container's chain, so that either can remove what the other
/// made: `CNI-`, a prefix, and as many hexadecimal digits of a hash as fit.
#[must_use]
pub fn chain_name(prefix: &str, network: &str, container_id: &str) -> String {
    hashed_name(&format!("CNI-{prefix}"), MAX, &[network, container_id])
}

/// As [`chain_name`], for anything: a prefix, and digits of the texts one behind another up to `max` bytes.
#[must_use]
pub fn hashed_name(prefix: &str, max: usize, texts: &[&str]) -> String {
    with_digits(prefix, max, &Sha512::digest(texts.concat()))
}

/// A name of a comment that has room for `max` bytes of it: as it is, or 16 bytes of its hash behind
/// `sha256:`. No name of the specification has a colon.
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
        // Writing to a text cannot fail.
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
}
