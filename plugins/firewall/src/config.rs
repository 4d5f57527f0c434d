//! The configuration's keys, and what they come to.

use cni::Error;
use serde::Deserialize;

use crate::iptables::{BASE_CHAINS, OWN_CHAINS};

/// The plugin's own keys.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Config {
    /// Whose rules are written: `iptables`, `nftables` or `firewalld`; empty for what the node uses.
    pub backend: Option<String>,
    /// The chain of the administrator's own rules, which packets of pods pass first; `CNI-ADMIN` by default.
    pub iptables_admin_chain_name: Option<String>,
    /// The zone of firewalld that pods belong to; `trusted` by default.
    pub firewalld_zone: Option<String>,
    /// Who may open connections to pods: `open`, the default, `same-bridge` or `isolated`.
    pub ingress_policy: Option<String>,
}

/// The configuration, found to make sense.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    /// None for what the node uses.
    pub(crate) backend: Option<Backend>,
    pub(crate) admin_chain: String,
    pub(crate) zone: String,
    pub(crate) isolation: Option<Isolation>,
}

/// Whose rules are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Backend {
    /// Those in the table `filter` of iptables.
    Iptables,
    /// Those of a table of our own.
    Nftables,
    /// Sources of a zone of firewalld.
    Firewalld,
}

/// What a bridge is kept apart from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Isolation {
    /// From other bridges that have a policy.
    SameBridge,
    /// From those, and its pods from each other.
    Isolated,
}

/// `XT_EXTENSION_MAXNAMELEN` less the final zero.
const CHAIN_NAME_MAX: usize = 28;

const DEFAULT_ADMIN_CHAIN: &str = "CNI-ADMIN";
const DEFAULT_ZONE: &str = "trusted";

impl Config {
    /// Errors: code 7 for values that are wrong.
    pub(crate) fn settings(&self) -> Result<Settings, Error> {
        let or = |text: &Option<String>, default: &str| {
            let given = text.as_deref().filter(|text| !text.is_empty());
            given.unwrap_or(default).to_owned()
        };
        let admin_chain = or(&self.iptables_admin_chain_name, DEFAULT_ADMIN_CHAIN);
        if let Some(why) = wrong_admin_chain(&admin_chain) {
            return Err(Error::invalid_key("iptablesAdminChainName", why));
        }
        let zone = or(&self.firewalld_zone, DEFAULT_ZONE);
        if zone.contains('\0') {
            return Err(Error::invalid_key("firewalldZone", "no zone has such a name"));
        }
        Ok(Settings { backend: self.backend()?, admin_chain, zone, isolation: self.isolation()? })
    }

    fn backend(&self) -> Result<Option<Backend>, Error> {
        Ok(Some(match self.backend.as_deref() {
            None | Some("") => return Ok(None),
            Some("iptables") => Backend::Iptables,
            Some("nftables") => Backend::Nftables,
            Some("firewalld") => Backend::Firewalld,
            Some(other) => {
                let why = format!(
                    "{other:?} is unknown; use \"iptables\", \"nftables\" or \"firewalld\", or leave it out for \
                     what the node uses"
                );
                return Err(Error::invalid_key("backend", why));
            }
        }))
    }

    fn isolation(&self) -> Result<Option<Isolation>, Error> {
        match self.ingress_policy.as_deref() {
            None | Some("" | "open") => Ok(None),
            Some("same-bridge") => Ok(Some(Isolation::SameBridge)),
            Some("isolated") => Ok(Some(Isolation::Isolated)),
            Some(other) => {
                let why =
                    format!("{other:?} is unknown; use \"open\", \"same-bridge\" or \"isolated\"");
                Err(Error::invalid_key("ingressPolicy", why))
            }
        }
    }
}

impl Isolation {
    /// The value of `ingressPolicy`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::SameBridge => "same-bridge",
            Self::Isolated => "isolated",
        }
    }
}

/// Why a chain cannot be one of the administrator's.
fn wrong_admin_chain(name: &str) -> Option<String> {
    let splits = |character: char| character.is_whitespace() || character.is_control();
    if name.len() > CHAIN_NAME_MAX || name.contains(splits) || name.starts_with(['-', '!']) {
        Some(format!(
            "{name:?} is no name of a chain: at most {CHAIN_NAME_MAX} characters without spaces, of which the first \
             is neither \"-\" nor \"!\""
        ))
    } else if BASE_CHAINS.contains(&name) || OWN_CHAINS.contains(&name) || VERDICTS.contains(&name)
    {
        Some(format!("{name:?} has another meaning already; name a chain of your own"))
    } else {
        None
    }
}

const VERDICTS: [&str; 4] = ["ACCEPT", "DROP", "RETURN", "QUEUE"];

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: serde_json::Value) -> Result<Settings, Error> {
        serde_json::from_value::<Config>(json).unwrap().settings()
    }

    #[test]
    fn nothing_stands_for_the_defaults() {
        let nothing = read(serde_json::json!({})).unwrap();
        assert_eq!((nothing.backend, nothing.isolation), (None, None));
        assert_eq!((nothing.admin_chain.as_str(), nothing.zone.as_str()), ("CNI-ADMIN", "trusted"));
        let empty = serde_json::json!({
            "backend": "", "iptablesAdminChainName": "", "firewalldZone": "", "ingressPolicy": "",
        });
        assert_eq!(read(empty).unwrap(), nothing);
    }

    #[test]
    fn values_are_read() {
        let all = read(serde_json::json!({
            "backend": "nftables", "iptablesAdminChainName": "SITE", "firewalldZone": "public",
            "ingressPolicy": "isolated",
        }));
        let expected = Settings {
            backend: Some(Backend::Nftables),
            admin_chain: "SITE".into(),
            zone: "public".into(),
            isolation: Some(Isolation::Isolated),
        };
        assert_eq!(all.unwrap(), expected);
    }

    #[test]
    fn a_wrong_value_is_refused_by_the_name_of_its_key() {
        for (key, value) in [
            ("backend", "ufw"),
            ("ingressPolicy", "closed"),
            ("iptablesAdminChainName", "two words"),
            ("iptablesAdminChainName", "-A"),
            ("iptablesAdminChainName", "FORWARD"),
            ("iptablesAdminChainName", "CNI-FORWARD"),
            ("iptablesAdminChainName", "DROP"),
            ("iptablesAdminChainName", "a-name-of-twenty-nine-letters"),
        ] {
            let error = read(serde_json::json!({key: value})).unwrap_err();
            assert_eq!(error.code, cni::Code::InvalidConfig);
            let text = error.to_string();
            assert!(text.contains(key) && text.contains(value), "{text}");
        }
    }
}
