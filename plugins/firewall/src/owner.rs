//! What an attachment's rules and elements are known by.

use attach::name_that_fits;
use cni::{Attachment, ContainerId, IfName, NetworkName, ValidAttachments};

/// Whose a rule or an element is: names of network, container and interface, at most 128 bytes, which is what
/// a comment can have. No name has a space, so the parts can be told apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Owner(String);

const NETWORK_MAX: usize = 39;
const CONTAINER_ID_MAX: usize = 72;

impl Owner {
    pub(crate) fn new(network: &NetworkName, container_id: &ContainerId, ifname: &IfName) -> Self {
        Self::of(network.as_str(), container_id.as_str(), ifname.as_str())
    }

    fn of(network: &str, container_id: &str, ifname: &str) -> Self {
        let (network, id) =
            (name_that_fits(network, NETWORK_MAX), name_that_fits(container_id, CONTAINER_ID_MAX));
        Self(format!("{network} {id} {ifname}"))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

/// The owners of a network that have no valid attachment.
pub(crate) struct Garbage {
    network: String,
    valid: Vec<Owner>,
}

impl Garbage {
    pub(crate) fn new(network: &NetworkName, valid: &ValidAttachments) -> Self {
        let owner = |it: Attachment| Owner::new(network, &it.container_id, &it.ifname);
        let valid = valid.attachments().map(owner).collect();
        Self { network: name_that_fits(network.as_str(), NETWORK_MAX), valid }
    }

    pub(crate) fn contains(&self, owner: &str) -> bool {
        let of = owner.split(' ').next();
        of == Some(self.network.as_str()) && !self.valid.iter().any(|valid| valid.0 == owner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_names_fit() {
        assert_eq!(Owner::of("podnet", "abc", "eth0").as_str(), "podnet abc eth0");
        let (id, longer) = ("a".repeat(72), "a".repeat(73));
        let longest = Owner::of(&"n".repeat(39), &id, "fifteen-letters");
        assert!(longest.as_str().len() <= 128 && longest.as_str().contains(&id));
        assert!(Owner::of(&"n".repeat(200), &longer, "fifteen-letters").as_str().len() <= 128);
        assert_ne!(Owner::of("n", &longer, "e"), Owner::of("n", &(longer.clone() + "a"), "e"));
    }

    #[test]
    fn garbage_is_the_networks_own() {
        let network = "net".parse().unwrap();
        let list = serde_json::json!({
            "cni.dev/valid-attachments": [{"containerID": "abc", "ifname": "eth0"}],
        });
        let valid = ValidAttachments::read(&network, &list).unwrap();
        let garbage = Garbage::new(&network, &valid);
        assert!(garbage.contains("net abc eth1") && garbage.contains("net abcd eth0"));
        for other in ["net abc eth0", "net1 abcd eth0", "another's", ""] {
            assert!(!garbage.contains(other), "{other}");
        }
    }
}
