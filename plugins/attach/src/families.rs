//! The families of addresses that a network uses.

use cni::Network;
use ipnetwork::IpNetwork;
use kernel::sysctl;
use serde_json::Value;

use crate::error::Error;

/// The families of addresses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Families {
    /// Whether there are IPv4 addresses.
    pub ipv4: bool,
    /// Whether there are IPv6 addresses.
    pub ipv6: bool,
}

impl Families {
    /// The families of the addresses that a network's IPAM plugin gives, if its section of the configuration
    /// says so: by the subnets of `host-local`, and by the addresses of `static`.
    #[must_use]
    pub fn of_ipam<C>(network: &Network<C>) -> Self {
        let configuration = serde_json::from_slice::<Value>(&network.stdin).unwrap_or_default();
        let ipam = &configuration["ipam"];
        let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
        let ranges = list(&ipam["ranges"]).iter().flat_map(list).collect::<Vec<_>>();
        let subnets = ranges.iter().chain([ipam]).map(|range| range["subnet"].clone());
        let addresses = list(&ipam["addresses"]).into_iter().map(|it| it["address"].clone());
        let mut families = Self::default();
        for text in subnets.chain(addresses) {
            match text.as_str().and_then(|text| text.parse().ok()) {
                Some(IpNetwork::V4(_)) => families.ipv4 = true,
                Some(IpNetwork::V6(_)) => families.ipv6 = true,
                None => {}
            }
        }
        families
    }

    /// Finds out whether a link of the node can have addresses of these families. If there is no link of this
    /// name, whether a new one could.
    pub fn try_out(self, link: &str) -> Result<(), Error> {
        if !self.ipv6 {
            return Ok(());
        }
        let because = "but \"ipam\" gives IPv6 addresses";
        if !sysctl::has_ipv6() {
            return Err(Error::changed("IPv6", format!("is not in this kernel, {because}")));
        }
        let setting = |link| sysctl::read(&["ipv6", "conf", link, "disable_ipv6"]);
        let (link, value) = match setting(link) {
            Err(error) if error.is_not_found() => ("default", setting("default")?),
            value => (link, value?),
        };
        if value == "0" {
            return Ok(());
        }
        let object = format!("IPv6 (net.ipv6.conf.{link}.disable_ipv6={value})");
        Err(Error::changed(object, format!("is switched off on the node, {because}")))
    }
}

#[cfg(test)]
mod tests {
    use cni::{Command, Version};
    use serde::Deserialize;
    use serde_json::json;

    use super::*;

    #[derive(Deserialize)]
    struct Nothing {}

    #[track_caller]
    fn check(ipam: &Value, ipv4: bool, ipv6: bool) {
        let stdin = json!({"name": "n", "ipam": ipam}).to_string().into_bytes();
        let network: Network<Nothing> =
            Network::read(Command::Status, stdin, Version::V1_1_0, Vec::new()).unwrap();
        assert_eq!(Families::of_ipam(&network), Families { ipv4, ipv6 }, "{ipam}");
    }

    #[test]
    fn families_of_ipam() {
        check(&json!(null), false, false);
        check(&json!({"type": "dhcp"}), false, false);
        check(&json!({"type": "host-local", "subnet": "10.1.0.0/16"}), true, false);
        check(
            &json!({"ranges": [[{"subnet": "10.1.0.0/16"}], [{"subnet": "fd00::/64"}]]}),
            true,
            true,
        );
        check(&json!({"ranges": [[{"subnet": 1}], 2], "subnet": "fd00::/64"}), false, true);
        check(&json!({"type": "static", "addresses": [{"address": "fd00::2/64"}, 5]}), false, true);
    }
}
