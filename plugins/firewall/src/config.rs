//! The configuration's keys, and what they come to.

use cni::{Code, Error};
use serde::Deserialize;

use crate::iptables::{BASE_CHAINS, OWN_CHAINS};

/// The plugin's own keys.
#[derive(Clone, Debug, Default, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct Config {
    /// Whose rules are written: `iptables`; empty for the same, unless firewalld runs on the node.
    #[cfg_attr(feature = "schema", schemars(extend("enum" = ["", "iptables", "firewalld"], "default" = "")))]
    pub backend: Option<String>,
    /// The chain of the administrator's own rules, which packets of pods pass first; `CNI-ADMIN` by default.
    #[cfg_attr(feature = "schema", schemars(extend("default" = DEFAULT_ADMIN_CHAIN)))]
    pub iptables_admin_chain_name: Option<String>,
    /// Who may open connections to pods: `open`, the default, `same-bridge` or `isolated`.
    #[cfg_attr(feature = "schema", schemars(extend("enum" = ["", "open", "same-bridge", "isolated"], "default" = "open")))]
    pub ingress_policy: Option<String>,
}

/// The configuration, found to make sense.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    /// Whether iptables is asked for by name, and not just where firewalld does not run.
    pub(crate) iptables_by_name: bool,
    pub(crate) admin_chain: String,
    pub(crate) isolation: Option<Isolation>,
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

impl Config {
    /// Errors: code 7 for values that are wrong, code 2 for a backend that is not supported.
    pub(crate) fn settings(&self) -> Result<Settings, Error> {
        let given = self.iptables_admin_chain_name.as_deref().filter(|name| !name.is_empty());
        let admin_chain = given.unwrap_or(DEFAULT_ADMIN_CHAIN).to_owned();
        if let Some(why) = wrong_admin_chain(&admin_chain) {
            return Err(Error::invalid_key("iptablesAdminChainName", why));
        }
        let (iptables_by_name, isolation) = (self.iptables_by_name()?, self.isolation()?);
        Ok(Settings { iptables_by_name, admin_chain, isolation })
    }

    fn iptables_by_name(&self) -> Result<bool, Error> {
        match self.backend.as_deref() {
            None | Some("") => Ok(false),
            Some("iptables") => Ok(true),
            Some(other @ ("firewalld" | "nftables")) => Err(Error::new(
                Code::UnsupportedField,
                format!(
                    "key \"backend\": {other:?} is not supported; use \"iptables\", on a node where \
                     firewalld runs after the network's addresses have become a source of its zone trusted \
                     (firewall-cmd --permanent --zone=trusted --add-source=NETWORK)"
                ),
            )),
            Some(other) => {
                let why = format!("{other:?} is unknown; use \"iptables\", or leave it out");
                Err(Error::invalid_key("backend", why))
            }
        }
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
            "{name:?} is no name of a chain: at most {CHAIN_NAME_MAX} characters without spaces, of which \
             the first is neither \"-\" nor \"!\""
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
    fn values_are_read() {
        let nothing =
            Settings { iptables_by_name: false, admin_chain: "CNI-ADMIN".into(), isolation: None };
        assert_eq!(read(serde_json::json!({})), Ok(nothing.clone()));
        let empty =
            serde_json::json!({"backend": "", "iptablesAdminChainName": "", "ingressPolicy": ""});
        assert_eq!(read(empty), Ok(nothing));
        let all = read(serde_json::json!({
            "backend": "iptables", "iptablesAdminChainName": "SITE", "ingressPolicy": "isolated",
        }));
        let expected = Settings {
            iptables_by_name: true,
            admin_chain: "SITE".into(),
            isolation: Some(Isolation::Isolated),
        };
        assert_eq!(all, Ok(expected));
    }

    #[test]
    fn a_backend_that_is_not_there_says_what_to_use() {
        for backend in ["firewalld", "nftables"] {
            let error = read(serde_json::json!({"backend": backend})).unwrap_err();
            assert_eq!(error.code, Code::UnsupportedField);
            assert!(error.msg.contains(backend) && error.msg.contains("\"iptables\""), "{error}");
        }
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
