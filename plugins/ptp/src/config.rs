//! The configuration of `ptp`, and what it refuses.

use attach::MasqueradeBackend;
use cni::{Code, DnsKeys, Error, Network};
use serde::Deserialize;

/// The keys of `ptp`.
#[derive(Clone, Debug, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(transform = needs_ipam))]
#[serde(rename_all = "camelCase")]
pub struct Config {
    /// Whether traffic that leaves the pod's network takes the node's address.
    #[serde(default)]
    pub ip_masq: bool,
    /// What masquerading is written with.
    #[serde(default)]
    #[cfg_attr(feature = "schema", schemars(extend("default" = "iptables")))]
    pub ip_masq_backend: MasqueradeBackend,
    /// The MTU of the veth pair, in bytes; 0 for the kernel's default.
    #[serde(default)]
    #[cfg_attr(feature = "schema", schemars(with = "cni::schema::Mtu"))]
    pub mtu: u32,
    /// Name resolution, in place of what IPAM says.
    #[serde(default)]
    pub dns: DnsKeys,
}

/// Says of the schema what [`Config::validate`] asks for.
#[cfg(feature = "schema")]
fn needs_ipam(schema: &mut schemars::Schema) {
    let ipam = schemars::json_schema!({
        "description": "Who gives out the addresses, without which ptp has no link",
        "type": "object",
        "required": ["type"],
    });
    schema.insert("required".to_owned(), vec!["ipam"].into());
    if let Some(properties) = schema.get_mut("properties").and_then(|it| it.as_object_mut()) {
        properties.insert("ipam".to_owned(), ipam.into());
    }
}

impl Config {
    /// The MTU, if one was chosen.
    #[must_use]
    pub fn mtu(&self) -> Option<u32> {
        Some(self.mtu).filter(|mtu| *mtu != 0)
    }

    /// Refuses what cannot be made.
    pub fn validate(network: &Network<Self>) -> Result<(), Error> {
        let config = &network.config;
        if network.ipam.is_none() {
            return Err(Error::new(
                Code::InvalidConfig,
                "key \"ipam\" of the configuration is missing: without addresses there is nothing \
                 to route to the pod",
            ));
        }
        let mtus = 68..=65535;
        if config.mtu != 0 && !mtus.contains(&config.mtu) {
            return Err(Error::invalid_key("mtu", "is neither 0 nor between 68 and 65535"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use cni::Version;
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
