//! The configuration of `bridge`, and the values that it refuses.

use attach::{Detach, MasqueradeBackend, RuleKeys};
use cni::{DnsKeys, Environment, Error, IfName, Mac, Network};
use serde::Deserialize;

use crate::trunk::{self, VlanTrunk};

/// The keys of `bridge`.
#[derive(Clone, Debug, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Config {
    /// The bridge's name on the node.
    #[serde(default)]
    #[cfg_attr(feature = "schema", schemars(extend("default" = "cni0")))]
    bridge: Option<IfName>,
    /// Whether the bridge has the gateway's addresses, and the node forwards packets.
    #[serde(default)]
    pub is_gateway: bool,
    /// Whether the pod's default route uses the gateway; implies `isGateway`.
    #[serde(default)]
    pub is_default_gateway: bool,
    /// Whether another address of the bridge is deleted if the gateway's address needs it.
    #[serde(default)]
    pub force_address: bool,
    /// Whether packets that leave the pod's network get the node's address.
    #[serde(default)]
    pub ip_masq: bool,
    /// The rules that masquerading uses.
    #[serde(default)]
    #[cfg_attr(feature = "schema", schemars(extend("default" = "iptables")))]
    pub ip_masq_backend: MasqueradeBackend,
    /// The MTU of the veth pair and of a new bridge, in bytes; 0 for the kernel's default.
    #[serde(default)]
    #[cfg_attr(feature = "schema", schemars(with = "cni::schema::Mtu"))]
    pub mtu: u32,
    /// Whether a pod can reach itself through the bridge.
    #[serde(default)]
    pub hairpin_mode: bool,
    /// Whether the bridge is promiscuous.
    #[serde(default)]
    pub promisc_mode: bool,
    /// The VLAN of the pod's port, untagged; 0 for none.
    #[serde(default)]
    #[cfg_attr(feature = "schema", schemars(range(min = 0, max = 4094)))]
    pub vlan: i32,
    /// The VLANs that the pod's port carries tagged.
    #[serde(default)]
    pub vlan_trunk: Vec<VlanTrunk>,
    /// Whether the pod's port stays in the bridge's default VLAN too.
    #[serde(default)]
    pub preserve_default_vlan: bool,
    /// Whether the pod may send from its own hardware address only.
    #[serde(default)]
    pub macspoofchk: bool,
    /// Whether ADD does duplicate address detection for the pod's IPv6 addresses and waits for it.
    #[serde(default)]
    pub enabledad: bool,
    /// Whether the pod takes addresses and routes from routers on the bridge (IPv6 router advertisements);
    /// if absent, the pod does so unless IPAM gives it an IPv6 address.
    #[serde(default, rename = "acceptRA")]
    pub accept_ra: Option<bool>,
    /// Whether the pod's interface stays down and without addresses.
    #[serde(default)]
    pub disable_container_interface: bool,
    /// Whether pods of the bridge cannot reach each other.
    #[serde(default)]
    pub port_isolation: bool,
    /// Name resolution; replaces what the IPAM plugin says.
    #[serde(default)]
    pub dns: DnsKeys,
    /// Arguments that an administrator sets.
    #[serde(default)]
    args: Args,
    /// What the runtime sets.
    #[serde(default)]
    runtime_config: RuntimeConfig,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
struct Args {
    /// Arguments for plugins.
    #[serde(default)]
    cni: CniArgs,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
struct CniArgs {
    /// The hardware address of the pod's interface.
    #[serde(default)]
    #[cfg_attr(feature = "schema", schemars(with = "Option<cni::schema::UnicastMac>"))]
    mac: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
struct RuntimeConfig {
    /// The hardware address of the pod's interface; preferred to all others.
    #[serde(default)]
    #[cfg_attr(feature = "schema", schemars(with = "Option<cni::schema::UnicastMac>"))]
    mac: Option<String>,
}

/// What the configuration and the variables mean.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// The hardware address of the pod's interface; `None` for a random one.
    pub(crate) mac: Option<Mac>,
}

impl Config {
    /// The bridge's name on the node.
    #[must_use]
    pub fn bridge(&self) -> &str {
        self.bridge.as_ref().map_or("cni0", IfName::as_str)
    }

    /// Whether the bridge gets the gateway's addresses.
    #[must_use]
    pub fn gateway(&self) -> bool {
        self.is_gateway || self.is_default_gateway
    }

    /// The name of the link that has the gateway's addresses: the bridge, or the interface of the VLAN, which
    /// has the name that the reference plugin gives it.
    #[must_use]
    pub fn gateway_link(&self) -> String {
        match self.vlan {
            0 => self.bridge().to_owned(),
            vlan => format!("{}.{vlan}", self.bridge()),
        }
    }

    /// The keys that ask for rules.
    pub(crate) fn rules(&self) -> RuleKeys {
        let masquerade = self.ip_masq.then_some(self.ip_masq_backend);
        RuleKeys { masquerade, macspoofchk: Some(self.macspoofchk) }
    }

    /// How DEL and GC remove what ADD made.
    pub(crate) fn detach(&self) -> Detach<'_> {
        Detach { rules: self.rules(), bridge: Some(self.bridge()) }
    }

    /// The MTU, if one is set.
    #[must_use]
    pub fn mtu(&self) -> Option<u32> {
        Some(self.mtu).filter(|mtu| *mtu != 0)
    }

    /// The hardware address for the pod's interface: the one of `runtimeConfig`, else that of `args.cni`,
    /// else that of `CNI_ARGS`.
    ///
    /// Errors: code 7 or 4, naming where the wrong address is set.
    pub(crate) fn mac(&self, environment: Option<&Environment>) -> Result<Option<Mac>, Error> {
        let args = Environment::args_of(environment);
        args.allow(&["MAC"])?;
        Mac::first_of([
            ("runtimeConfig.mac", self.runtime_config.mac.as_deref()),
            ("args.cni.mac", self.args.cni.mac.as_deref()),
            ("MAC of CNI_ARGS", args.get("MAC")),
        ])
    }

    /// Refuses values that are wrong or contradict each other.
    pub fn validate(network: &Network<Self>) -> Result<(), Error> {
        let config = &network.config;
        if config.hairpin_mode && config.promisc_mode {
            return Err(Error::invalid_key(
                "promiscMode",
                "must not be set together with \"hairpinMode\"; remove one of them",
            ));
        }
        if config.disable_container_interface && network.ipam.is_some() {
            return Err(Error::invalid_key(
                "disableContainerInterface",
                "must not be set together with \"ipam\", whose addresses need it; remove one of them",
            ));
        }
        attach::link::mtu("mtu", config.mtu)?;
        trunk::validate(config.vlan, &config.vlan_trunk)?;
        let gateway = config.gateway_link();
        if config.gateway() && network.ipam.is_some() && gateway.parse::<IfName>().is_err() {
            return Err(Error::invalid_key(
                "bridge",
                format!(
                    "is too long: the interface of the VLAN would have the name {gateway}, and Linux allows \
                     15 bytes"
                ),
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use cni::Version;
    use serde_json::{Value, json};

    use super::*;

    fn network(keys: &Value) -> Result<Network<Config>, Error> {
        let mut configuration = json!({"name": "n"});
        configuration.as_object_mut().unwrap().extend(keys.as_object().unwrap().clone());
        let stdin = configuration.to_string().into_bytes();
        Network::read(cni::Command::Add, stdin, Version::V1_1_0, Vec::new())
    }

    #[track_caller]
    fn refused(keys: &Value, key: &str) {
        let error = match network(keys) {
            Ok(network) => Config::validate(&network).unwrap_err(),
            Err(error) => error,
        };
        assert!(error.msg.contains(&format!("{key:?}")), "{keys}: {error}");
    }

    #[test]
    fn defaults() {
        let network = network(&json!({})).unwrap();
        assert_eq!(network.config.bridge(), "cni0");
        assert_eq!((network.config.mtu(), network.config.gateway()), (None, false));
        Config::validate(&network).unwrap();
    }

    #[test]
    fn values_that_contradict_each_other() {
        refused(&json!({"hairpinMode": true, "promiscMode": true}), "promiscMode");
        refused(
            &json!({"disableContainerInterface": true, "ipam": {"type": "x"}}),
            "disableContainerInterface",
        );
        refused(&json!({"mtu": 99999}), "mtu");
        refused(&json!({"mtu": 67}), "mtu");
        refused(&json!({"mtu": -5}), "mtu");
        refused(&json!({"bridge": "a/b"}), "bridge");
        refused(&json!({"bridge": ""}), "bridge");
        refused(&json!({"ipMasqBackend": "ipvs"}), "ipMasqBackend");
    }

    #[test]
    fn vlans() {
        for vlan in [-1, 4095] {
            refused(&json!({"vlan": vlan}), "vlan");
        }
        refused(&json!({"vlanTrunk": [{"id": 1}, {"minID": 5}]}), "vlanTrunk[1].maxID");
        refused(&json!({"vlanTrunk": [{"maxID": 5}]}), "vlanTrunk[0].minID");
        refused(&json!({"vlanTrunk": [{"minID": 9, "maxID": 5}]}), "vlanTrunk[0].minID");
        refused(&json!({"vlanTrunk": [{"minID": 0, "maxID": 5}]}), "vlanTrunk[0].minID");
        refused(&json!({"vlanTrunk": [{"id": 5000}]}), "vlanTrunk[0].id");
        refused(&json!({"vlanTrunk": [{"id": 0}]}), "vlanTrunk[0].id");
        refused(&json!({"vlan": 4, "preserveDefaultVlan": "no"}), "preserveDefaultVlan");
        for vlan in [0, 1, 4094] {
            Config::validate(&network(&json!({"vlan": vlan})).unwrap()).unwrap();
        }
    }

    #[test]
    fn the_gateways_name_has_room() {
        let vlan = json!({"vlan": 4094, "isGateway": true, "ipam": {"type": "x"}});
        let keys = |bridge: &str| {
            let mut keys = vlan.clone();
            keys["bridge"] = bridge.into();
            keys
        };
        let longest = network(&keys("abcdefghij")).unwrap();
        Config::validate(&longest).unwrap();
        assert_eq!(longest.config.gateway_link(), "abcdefghij.4094");
        refused(&keys("abcdefghijk"), "bridge");
    }
}
