//! How rules, elements and sources name their owner.

use attach::name_that_fits;
use cni::{Attachment, NetworkName, ValidAttachments};

const NETWORK_MAX: usize = 39;
const CONTAINER_ID_MAX: usize = 72;

/// The names of network, container and interface, with spaces between them, which no name contains. Long
/// names are hashed, because a comment in nf_tables has at most 128 bytes.
pub(crate) fn owner_name(owner: &Attachment) -> String {
    let network = name_that_fits(owner.network.as_str(), NETWORK_MAX);
    let container_id = name_that_fits(owner.container_id.as_str(), CONTAINER_ID_MAX);
    format!("{network} {container_id} {}", owner.ifname)
}

/// Returns whether an owner is an attachment of this network that is not valid.
pub(crate) fn is_garbage(network: &NetworkName, valid: &ValidAttachments) -> impl Fn(&str) -> bool {
    let network = name_that_fits(network.as_str(), NETWORK_MAX);
    let valid: Vec<String> = valid.attachments().map(|it| owner_name(&it)).collect();
    move |owner| {
        owner.split(' ').next() == Some(&network) && !valid.iter().any(|valid| valid == owner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_names_fit() {
        let of = |network: &str, container_id: &str, ifname: &str| {
            owner_name(&Attachment::from_names(network, container_id, ifname).unwrap())
        };
        assert_eq!(of("podnet", "abc", "eth0"), "podnet abc eth0");
        let (id, longer) = ("a".repeat(72), "a".repeat(73));
        let longest = of(&"n".repeat(39), &id, "fifteen-letters");
        assert!(longest.len() <= 128 && longest.contains(&id));
        assert!(of(&"n".repeat(200), &longer, "fifteen-letters").len() <= 128);
        assert_ne!(of("n", &longer, "e"), of("n", &(longer.clone() + "a"), "e"));
    }

    #[test]
    fn garbage_is_of_the_network() {
        let network = "net".parse().unwrap();
        let list = serde_json::json!({
            "cni.dev/valid-attachments": [{"containerID": "abc", "ifname": "eth0"}],
        });
        let valid = ValidAttachments::read(&network, &list).unwrap();
        let is_garbage = is_garbage(&network, &valid);
        assert!(is_garbage("net abc eth1") && is_garbage("net abcd eth0"));
        for other in ["net abc eth0", "net1 abcd eth0", "another's", ""] {
            assert!(!is_garbage(other), "{other}");
        }
    }
}
