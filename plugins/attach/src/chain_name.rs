//! Names of iptables chains that belong to a container.

use std::fmt::Write;

use sha2::{Digest, Sha512};

/// iptables takes 28 bytes (`XT_EXTENSION_MAXNAMELEN` less the final zero).
const MAX: usize = 28;

/// The name that the reference plugins give a container's chain, so that either can remove what the other
/// made: `CNI-`, a prefix, and as many hexadecimal digits of a hash as fit.
#[must_use]
pub fn chain_name(prefix: &str, network: &str, container_id: &str) -> String {
    let mut name = format!("CNI-{prefix}");
    for byte in Sha512::new().chain_update(network).chain_update(container_id).finalize() {
        // Writing to a text cannot fail.
        let _ = write!(name, "{byte:02x}");
    }
    name.truncate(MAX);
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
    }
}
