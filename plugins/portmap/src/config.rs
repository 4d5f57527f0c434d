//! The keys of the configuration, and the settings that they give.

use cni::Error;
use kernel::Family;
use kernel::iptables::{ArgumentError, Bits, NatChain, Rule, parse_rules};
use serde::Deserialize;

use crate::iptables::{CHAIN_PREFIX, SHARED_CHAINS};
use crate::mapping::{Entry, Mapping};
use crate::nftables::{self, Conditions};

/// The plugin's own keys.
#[derive(Clone, Debug, Default, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct Config {
    /// What ports are mapped with: rules of `iptables`, the default, or a table of our own, `nftables`.
    #[cfg_attr(feature = "schema", schemars(extend("enum" = ["iptables", "nftables"])))]
    #[cfg_attr(feature = "schema", schemars(extend("default" = "iptables")))]
    pub backend: Option<String>,
    /// Whether connections from the node and from the pod to itself get the node's address, which they need;
    /// true by default.
    #[cfg_attr(feature = "schema", schemars(extend("default" = true)))]
    pub snat: Option<bool>,
    /// Further conditions on IPv4 packets, as arguments of `iptables` or matches of `nft`; see the plugin's
    /// README for what is supported.
    pub conditions_v4: Vec<String>,
    /// Further conditions on IPv6 packets, as arguments of `ip6tables` or matches of `nft`.
    pub conditions_v6: Vec<String>,
    /// Whether all connections get the node's address.
    pub masq_all: bool,
    /// The bit of the packet mark for such connections, 0 to 31; 13 by default.
    #[cfg_attr(feature = "schema", schemars(range(min = 0, max = 31), extend("default" = DEFAULT_MARK_BIT)))]
    pub mark_masq_bit: Option<i64>,
    /// A chain of the table `nat` that sets another mark, which another program masquerades. Without such a
    /// chain, packets are marked with bit 13.
    #[cfg_attr(
        feature = "schema",
        schemars(extend(
            "pattern" = "^[^ \\t\\n]{1,28}$",
            "patternErrorMessage" = "is not the name of a chain: 1 to 28 characters without spaces",
        ))
    )]
    pub external_set_mark_chain: Option<String>,
    /// What happens if another container has the port.
    #[cfg_attr(feature = "schema", schemars(extend("default" = "replace")))]
    pub on_conflict: OnConflict,
    /// What the runtime adds.
    pub runtime_config: RuntimeConfig,
}

/// What happens if another container has the port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub enum OnConflict {
    /// The newest ADD gets it, because an older one may be a leftover.
    #[default]
    Replace,
    /// The ADD is refused.
    Error,
}

/// What the runtime adds to the configuration.
#[derive(Clone, Debug, Default, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct RuntimeConfig {
    /// The ports to map.
    pub port_mappings: Vec<Entry>,
}

/// The values of a valid configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    pub(crate) backend: Backend,
    /// How to mark packets that need the node's address; `None` for no packets.
    pub(crate) mark: Option<Mark>,
    /// Whether all packets need it.
    pub(crate) mark_all: bool,
    /// Whether a port that another container has is an error.
    pub(crate) refuse_conflicts: bool,
    pub(crate) mappings: Vec<Mapping>,
    conditions: [Vec<String>; 2],
    nft_conditions: [Conditions; 2],
}

/// What ports are mapped with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Backend {
    /// Rules in the table `nat` of iptables.
    Iptables,
    /// A table of our own.
    Nftables,
}

/// How to mark packets that need the node's address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Mark {
    /// With a bit of our own.
    Bit(Bits),
    /// By a chain of another program.
    External(String),
}

/// `XT_EXTENSION_MAXNAMELEN` less the final zero.
const CHAIN_NAME_MAX: usize = 28;

const DEFAULT_MARK_BIT: i64 = 13;

impl Config {
    /// Errors: code 7 for a value that is not valid, or not valid with another one.
    pub(crate) fn settings(&self) -> Result<Settings, Error> {
        let backend = self.backend()?;
        let conditions = [self.conditions_v4.clone(), self.conditions_v6.clone()];
        let mut settings = Settings {
            backend,
            mark: self.mark()?,
            mark_all: self.masq_all,
            refuse_conflicts: self.on_conflict == OnConflict::Error,
            mappings: Mapping::read_all(&self.runtime_config.port_mappings)?,
            conditions,
            nft_conditions: [Vec::new(), Vec::new()],
        };
        for (family, key) in [(Family::V4, "conditionsV4"), (Family::V6, "conditionsV6")] {
            if backend == Backend::Nftables {
                let texts = &settings.conditions[usize::from(family == Family::V6)];
                let parsed = nftables::read_conditions(family, texts);
                let parsed = parsed.map_err(|why| Error::invalid_key(key, why))?;
                settings.nft_conditions[usize::from(family == Family::V6)] = parsed;
            } else {
                let parsed = settings.with_conditions(family, &Rule::default());
                parsed.map_err(|error| Error::invalid_key(key, error))?;
            }
        }
        Ok(settings)
    }

    fn backend(&self) -> Result<Backend, Error> {
        match self.backend.as_deref() {
            None | Some("iptables") => Ok(Backend::Iptables),
            Some("nftables") if self.external_set_mark_chain.is_some() => {
                let why =
                    "chains of iptables cannot be used with backend \"nftables\"; remove this key";
                Err(Error::invalid_key("externalSetMarkChain", why))
            }
            Some("nftables") => Ok(Backend::Nftables),
            Some(other) => {
                let why = format!("{other:?} is unknown; use \"iptables\" or \"nftables\"");
                Err(Error::invalid_key("backend", why))
            }
        }
    }

    fn mark(&self) -> Result<Option<Mark>, Error> {
        let bit = self.mark_masq_bit.unwrap_or(DEFAULT_MARK_BIT);
        let bits = u32::try_from(bit).ok().and_then(|bit| 1_u32.checked_shl(bit));
        let bits = bits.ok_or_else(|| {
            Error::invalid_key("markMasqBit", format!("{bit} is not a bit of a mark; use 0 to 31"))
        })?;
        let external = self.external_set_mark_chain.clone();
        if let Some(why) = external.as_deref().and_then(wrong_mark_chain) {
            return Err(Error::invalid_key("externalSetMarkChain", why));
        }
        if external.is_some() && self.mark_masq_bit.is_some() {
            let why = "it cannot be used with \"externalSetMarkChain\"; remove one of them";
            return Err(Error::invalid_key("markMasqBit", why));
        }
        let own = Mark::Bit(Bits { value: bits, mask: bits });
        Ok(self.snat.unwrap_or(true).then(|| external.map_or(own, Mark::External)))
    }
}

/// Why a chain cannot be one that sets a mark for another program.
fn wrong_mark_chain(name: &str) -> Option<String> {
    let chains = [NatChain::Prerouting, NatChain::Output, NatChain::Postrouting];
    let is_base = name == "INPUT" || chains.iter().any(|base| base.name() == name);
    let is_ours = name.starts_with(CHAIN_PREFIX) || SHARED_CHAINS.contains(&name);
    if !(1..=CHAIN_NAME_MAX).contains(&name.len()) || name.contains(['\0', ' ', '\t', '\n']) {
        Some(format!(
            "{name:?} is not the name of a chain: 1 to {CHAIN_NAME_MAX} characters without spaces"
        ))
    } else if is_base {
        Some(format!("{name:?} is a base chain, to which no rule can jump"))
    } else if is_ours {
        Some(format!("{name:?} is a chain of this plugin; leave the key out to use its mark"))
    } else {
        None
    }
}

impl Settings {
    /// The same with the default mark.
    pub(crate) fn with_own_mark(&self) -> Self {
        let bits = 1 << DEFAULT_MARK_BIT;
        Self { mark: Some(Mark::Bit(Bits { value: bits, mask: bits })), ..self.clone() }
    }

    /// Whether some packets get the node's address.
    pub(crate) fn masquerades(&self) -> bool {
        self.mark.is_some()
    }

    /// Whether connections from 127.0.0.1 should reach the pod.
    pub(crate) fn needs_loopback(&self) -> bool {
        self.masquerades() && self.mappings.iter().any(|mapping| mapping.is_of(Family::V4))
    }

    /// Whether mappings of a family have conditions.
    pub(crate) fn has_conditions(&self, family: Family) -> bool {
        !self.conditions[usize::from(family == Family::V6)].is_empty()
    }

    /// The conditions of a family, for backend `nftables`.
    pub(crate) fn nft_conditions(&self, family: Family) -> &Conditions {
        &self.nft_conditions[usize::from(family == Family::V6)]
    }

    /// Adds the conditions of a family to a rule. Returns a rule for each address of their lists.
    pub(crate) fn with_conditions(
        &self,
        family: Family,
        rule: &Rule,
    ) -> Result<Vec<Rule>, ArgumentError> {
        let [v4, v6] = &self.conditions;
        parse_rules(rule, family, if family == Family::V6 { v6 } else { v4 })
    }
}

#[cfg(test)]
mod tests {
    use cni::Code;
    use serde_json::{Value, json};

    use super::*;

    fn settings(config: &Value) -> Result<Settings, Error> {
        cni::json::read::<Config>(config)?.settings()
    }

    #[track_caller]
    fn refused(config: &Value, code: Code, expected: &str) {
        let error = settings(config).unwrap_err();
        assert_eq!(error.code, code, "{error}");
        assert!(error.msg.contains(expected), "{error}");
    }

    #[test]
    fn defaults() {
        let settings = settings(&json!({})).unwrap();
        assert_eq!(settings.mark, Some(Mark::Bit(Bits { value: 0x2000, mask: 0x2000 })));
        assert!(settings.mappings.is_empty() && !settings.mark_all && !settings.refuse_conflicts);
    }

    #[test]
    fn marks() {
        let top = settings(&json!({"markMasqBit": 31})).unwrap();
        assert_eq!(top.mark, Some(Mark::Bit(Bits { value: 1 << 31, mask: 1 << 31 })));
        let chain = settings(&json!({"externalSetMarkChain": "KUBE-MARK-MASQ"})).unwrap();
        assert_eq!(chain.mark, Some(Mark::External("KUBE-MARK-MASQ".into())));
        assert_eq!(settings(&json!({"snat": false})).unwrap().mark, None);
    }

    #[test]
    fn keys_in_go_spelling() {
        let mapping =
            json!({"HostPort": 8080, "ContainerPort": 80, "Protocol": "tcp", "HostIP": ""});
        let config = json!({"runtimeConfig": {"portMappings": [mapping]}, "onConflict": "error"});
        let settings = settings(&config).unwrap();
        assert_eq!((settings.mappings.len(), settings.refuse_conflicts), (1, true));
    }

    #[test]
    fn wrong_values_are_named() {
        let invalid = Code::InvalidConfig;
        refused(&json!({"backend": "ipvs"}), invalid, "\"backend\"");
        let chain = json!({"backend": "nftables", "externalSetMarkChain": "X"});
        refused(&chain, invalid, "\"externalSetMarkChain\"");
        let of_iptables = json!({"backend": "nftables", "conditionsV4": ["-s", "192.0.2.1"]});
        refused(&of_iptables, invalid, "\"conditionsV4\"");
        refused(&of_iptables, invalid, "\"-s\" is not supported");
        refused(&json!({"markMasqBit": 32}), invalid, "\"markMasqBit\"");
        refused(&json!({"markMasqBit": -1}), invalid, "\"markMasqBit\"");
        let both = json!({"markMasqBit": 5, "externalSetMarkChain": "X"});
        refused(&both, invalid, "externalSetMarkChain");
        refused(&json!({"snat": "x"}), invalid, "\"snat\"");
        refused(&json!({"onConflict": "x"}), invalid, "\"onConflict\"");
        refused(&json!({"conditionsV4": ["ip", "daddr", "1.2.3.4"]}), invalid, "\"ip\"");
        refused(&json!({"conditionsV4": ["-m", "set"]}), invalid, "\"-m set\"");
        refused(&json!({"conditionsV6": ["-d", "1.2.3.4"]}), invalid, "\"conditionsV6\"");
        refused(&json!({"conditionsV4": ["!", "-d"]}), invalid, "no value");
        let text_port = json!({"runtimeConfig": {"portMappings": [{"hostPort": "80"}]}});
        refused(&text_port, invalid, "portMappings[0].hostPort");
        refused(&text_port, invalid, "a whole number from 1 to 65535");
        let part = json!({"runtimeConfig": {"portMappings": [{"containerPort": 80.5}]}});
        refused(&part, invalid, "a whole number from 1 to 65535");
        for chain in ["", "A B", "CNI-HOSTPORT-SETMARK", "CNI-DN-1", "POSTROUTING", "INPUT"] {
            let config = json!({"externalSetMarkChain": chain});
            refused(&config, invalid, "\"externalSetMarkChain\"");
        }
        let long = json!({"externalSetMarkChain": "X".repeat(29)});
        refused(&long, invalid, "1 to 28 characters");
    }
}
