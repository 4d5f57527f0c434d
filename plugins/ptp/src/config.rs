//! The configuration of `ptp`, and the values that it refuses.

use attach::{Detach, MasqueradeBackend, RuleKeys};
use cni::{DnsKeys, Error, Network};
use serde::Deserialize;

/// The keys of `ptp`.
#[derive(Clone, Debug, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(transform = attach::ipam::require_in_schema))]
#[serde(rename_all = "camelCase")]
pub struct Config {
    /// Whether packets that leave the pod's network get the node's address.
    #[serde(default)]
    pub ip_masq: bool,
    /// The rules that masquerading uses.
    #[serde(default)]
    #[cfg_attr(feature = "schema", schemars(extend("default" = "iptables")))]
    pub ip_masq_backend: MasqueradeBackend,
    /// The MTU of the veth pair, in bytes; 0 for the kernel's default.
    #[serde(default)]
    #[cfg_attr(feature = "schema", schemars(with = "cni::schema::Mtu"))]
    pub mtu: u32,
    /// Name resolution; replaces what the IPAM plugin says.
    #[serde(default)]
    pub dns: DnsKeys,
}

impl Config {
    /// The keys that ask for rules.
    pub(crate) fn rules(&self) -> RuleKeys {
        RuleKeys { masquerade: self.ip_masq.then_some(self.ip_masq_backend), macspoofchk: None }
    }

    /// How DEL and GC remove what ADD made.
    pub(crate) fn detach(&self) -> Detach<'static> {
        Detach { rules: self.rules(), bridge: None }
    }

    /// The MTU, if one is set.
    #[must_use]
    pub fn mtu(&self) -> Option<u32> {
        Some(self.mtu).filter(|mtu| *mtu != 0)
    }

    /// Refuses values that are wrong.
    pub fn validate(network: &Network<Self>) -> Result<(), Error> {
        let config = &network.config;
        attach::ipam::require(
            network,
            "ptp needs addresses, because the node routes packets to them",
        )?;
        attach::link::mtu("mtu", config.mtu).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use cni::{Code, Version};
    use serde_json::{Value, json};

    use super::*;

    fn validate(keys: &Value) -> Result<(), Error> {
        let mut configuration = json!({"name": "n", "ipam": {"type": "host-local"}});
        configuration.as_object_mut().unwrap().extend(keys.as_object().unwrap().clone());
        let stdin = configuration.to_string().into_bytes();
        Config::validate(&Network::read(cni::Command::Add, stdin, Version::V1_1_0, Vec::new())?)
    }

    #[track_caller]
    fn refused(keys: &Value, code: Code, key: &str) {
        let error = validate(keys).unwrap_err();
        assert_eq!(error.code, code, "{keys}: {error}");
        assert!(error.msg.contains(&format!("{key:?}")), "{keys}: {error}");
    }

    #[test]
    fn keys_of_kind() {
        validate(&json!({"ipMasq": false, "mtu": 65535})).unwrap();
        validate(&json!({"ipMasq": true, "ipMasqBackend": "nftables"})).unwrap();
    }

    #[test]
    fn wrong_values() {
        for mtu in [json!(67), json!(65536), json!(-1), json!("x")] {
            refused(&json!({"mtu": mtu}), Code::InvalidConfig, "mtu");
        }
        refused(&json!({"ipam": null}), Code::InvalidConfig, "ipam");
        refused(&json!({"ipMasqBackend": "ipvs"}), Code::InvalidConfig, "ipMasqBackend");
    }
}
