//! Whose a link of the node is: noted as the link's alias, where `ip link` shows it and GC reads it.

use cni::NetworkName;

/// The kernel takes less than this many bytes (`IFALIASZ`). Longer names do without.
const LIMIT: usize = 256;

/// What the alias of an attachment's link says: `NETWORK/CONTAINER/IFNAME`.
#[must_use]
pub fn alias(network: &NetworkName, container_id: &str, ifname: &str) -> String {
    format!("{network}/{container_id}/{ifname}")
}

/// An alias, if the kernel has room for it.
#[must_use]
pub fn alias_that_fits(alias: &str) -> Option<&str> {
    Some(alias).filter(|alias| alias.len() < LIMIT)
}

/// The container and the interface that an alias names, if it is one of the network's.
#[must_use]
pub fn alias_owner<'a>(alias: &'a str, network: &NetworkName) -> Option<(&'a str, &'a str)> {
    let mut parts = alias.split('/');
    let (Some(of), Some(id), Some(ifname), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return None;
    };
    (of == network.as_str()).then_some((id, ifname))
}

/// The network, the container and the interface that an alias names, if it is of this form.
#[must_use]
pub fn alias_parts(alias: &str) -> Option<(NetworkName, &str, &str)> {
    let network: NetworkName = alias.split('/').next()?.parse().ok()?;
    let (id, ifname) = alias_owner(alias, &network)?;
    Some((network, id, ifname))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alias_names_its_owner() {
        let network: NetworkName = "kindnet".parse().unwrap();
        let text = alias(&network, "c1", "eth0");
        assert_eq!(text, "kindnet/c1/eth0");
        assert_eq!(alias_owner(&text, &network), Some(("c1", "eth0")));
        assert_eq!(alias_parts(&text), Some((network.clone(), "c1", "eth0")));
        assert_eq!(alias_parts("an uplink/of/somebody"), None);
        assert_eq!(alias_owner(&text, &"kind".parse().unwrap()), None);
        for other in ["", "kindnet", "kindnet/c1", "kindnet/c1/eth0/x", "uplink to kindnet"] {
            assert_eq!(alias_owner(other, &network), None, "{other}");
        }
        assert_eq!(alias_that_fits(&"a".repeat(255)).map(str::len), Some(255));
        assert_eq!(alias_that_fits(&"a".repeat(256)), None);
    }
}
