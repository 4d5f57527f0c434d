//! Names of chains and links that belong to a container, as the reference plugins make them.

use std::fmt::Write;

use sha2::{Digest, Sha512};

/// iptables takes 28 bytes (`XT_EXTENSION_MAXNAMELEN` less the final zero).
const MAX: usize = 28;

/// The name that the reference plugins give a container's chain, so that either can remove what the other
/// made: `CNI-`, a prefix, and as many hexadecimal digits of a hash as fit.
#[must_use]
pub fn chain_name(prefix: &str, network: &str, container_id: &str) -> String {
    hashed_name(&format!("CNI-{prefix}"), MAX, network, container_id)
}

/// As [`chain_name`], for anything: a prefix, and digits up to `max` bytes.
#[must_use]
pub fn hashed_name(prefix: &str, max: usize, network: &str, container_id: &str) -> String {
    let mut name = prefix.to_owned();
    for byte in Sha512::new().chain_update(network).chain_update(container_id).finalize() {
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
        assert_eq!(hashed_name("bwp", 15, "testnet", "pod-a"), "bwp9b8cc9dd5d53");
    }
}
