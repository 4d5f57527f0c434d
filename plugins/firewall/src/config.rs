//! The configuration's keys, and what they come to.

use cni::Error;
use serde::Deserialize;

use crate::iptables::{BASE_CHAINS, OWN_CHAINS};

/// The plugin's own keys.
#[derive(Clone, Debug, Default, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct Config {
    /// What lets packets through: `iptables`, `nftables` or `firewalld`; empty for what the node uses.
    #[cfg_attr(feature = "schema", schemars(extend("enum" = BACKENDS, "default" = "")))]
    pub backend: Option<String>,
    /// With the backend `iptables`, the chain of the administrator's own rules, which packets of pods pass
    /// first; `CNI-ADMIN` by default.
    #[cfg_attr(
        feature = "schema",
        schemars(extend(
            "default" = DEFAULT_ADMIN_CHAIN,
            "pattern" = "^([^\\s\"!-][^\\s\"]{0,27})?$",
            "patternErrorMessage" = "is not the name of a chain: at most 28 characters without spaces and \
                                     quotation marks, the first neither - nor !",
        ))
    )]
    pub iptables_admin_chain_name: Option<String>,
    /// With the backend `firewalld`, the zone that addresses of pods become sources of; `trusted` by default.
    #[cfg_attr(feature = "schema", schemars(extend("default" = DEFAULT_ZONE)))]
    pub firewalld_zone: Option<String>,
    /// Who may open connections to pods: `open`, the default, `same-bridge` or `isolated`.
    #[cfg_attr(feature = "schema", schemars(extend("enum" = POLICIES, "default" = "open")))]
    pub ingress_policy: Option<String>,
    /// Let packets through that a published port (`hostPort`) of the node was the destination of, whatever
    /// the node's chain for forwarded packets and `ingressPolicy` say; `false` by default.
    #[cfg_attr(feature = "schema", schemars(extend("default" = false)))]
    pub allow_published_ports: Option<bool>,
}

#[cfg(feature = "schema")]
const BACKENDS: [&str; 4] = ["", "iptables", "nftables", "firewalld"];
#[cfg(feature = "schema")]
const POLICIES: [&str; 4] = ["", "open", "same-bridge", "isolated"];

/// The configuration, found to make sense.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// None for what the node uses.
    pub(crate) backend: Option<Backend>,
    pub(crate) admin_chain: String,
    pub(crate) zone: String,
    pub(crate) isolation: Option<Isolation>,
    /// Whether connections that came by DNAT get through.
    pub(crate) published: bool,
}

/// What lets packets through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Backend {
    /// Rules in the table `filter` of iptables.
    Iptables,
    /// A table of our own.
    Nftables,
    /// A zone of firewalld.
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
        let given = self.iptables_admin_chain_name.as_deref().filter(|name| !name.is_empty());
        let admin_chain = given.unwrap_or(DEFAULT_ADMIN_CHAIN).to_owned();
        if let Some(why) = wrong_admin_chain(&admin_chain) {
            return Err(Error::invalid_key("iptablesAdminChainName", why));
        }
        let published = self.allow_published_ports.unwrap_or_default();
        let (backend, isolation) = (self.backend()?, self.isolation()?);
        Ok(Settings { backend, admin_chain, zone: self.zone()?, isolation, published })
    }

    /// What a DEL needs: the backend and the zone, as if wrong values were not there.
    pub(crate) fn for_removal(&self) -> (Option<Backend>, String) {
        let zone = self.zone().unwrap_or_else(|_| DEFAULT_ZONE.to_owned());
        (self.backend().unwrap_or_default(), zone)
    }

    fn zone(&self) -> Result<String, Error> {
        let given = self.firewalld_zone.as_deref().filter(|name| !name.is_empty());
        let zone = given.unwrap_or(DEFAULT_ZONE);
        if zone.contains(char::is_control) {
            let why =
                format!("{zone:?} is not the name of a zone: control characters are not allowed");
            return Err(Error::invalid_key("firewalldZone", why));
        }
        Ok(zone.to_owned())
    }

    fn backend(&self) -> Result<Option<Backend>, Error> {
        match self.backend.as_deref() {
            None | Some("") => Ok(None),
            Some("iptables") => Ok(Some(Backend::Iptables)),
            Some("nftables") => Ok(Some(Backend::Nftables)),
            Some("firewalld") => Ok(Some(Backend::Firewalld)),
            Some(other) => {
                let why = format!(
                    "{other:?} is unknown; use \"iptables\", \"nftables\" or \"firewalld\", or leave it out"
                );
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

impl Backend {
    pub(crate) const ALL: [Self; 3] = [Self::Iptables, Self::Nftables, Self::Firewalld];
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
    let splits = |it: char| it.is_whitespace() || it.is_control() || it == '"';
    if name.len() > CHAIN_NAME_MAX || name.contains(splits) || name.starts_with(['-', '!']) {
        Some(format!(
            "{name:?} is no name of a chain: at most {CHAIN_NAME_MAX} bytes without spaces and quotation \
             marks, of which the first is neither \"-\" nor \"!\""
        ))
    } else if [&BASE_CHAINS[..], &OWN_CHAINS, &TARGETS].concat().contains(&name) {
        Some(format!("{name:?} has another meaning already; name a chain of your own"))
    } else {
        None
    }
}

/// Names that `-j` does not treat as chains, in the table `filter` (iptables-extensions(8)).
const TARGETS: [&str; 27] = [
    "ACCEPT",
    "AUDIT",
    "CHECKSUM",
    "CLASSIFY",
    "CONNMARK",
    "CONNSECMARK",
    "CT",
    "DNAT",
    "DROP",
    "DSCP",
    "HMARK",
    "IDLETIMER",
    "LED",
    "LOG",
    "MARK",
    "MASQUERADE",
    "NETMAP",
    "NFLOG",
    "NFQUEUE",
    "QUEUE",
    "REDIRECT",
    "REJECT",
    "RETURN",
    "SECMARK",
    "SNAT",
    "TCPMSS",
    "TRACE",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: serde_json::Value) -> Result<Settings, Error> {
        serde_json::from_value::<Config>(json).unwrap().settings()
    }

    #[test]
    fn values_are_read() {
        let nothing = Settings {
            backend: None,
            admin_chain: "CNI-ADMIN".into(),
            zone: "trusted".into(),
            isolation: None,
            published: false,
        };
        assert_eq!(read(serde_json::json!({})), Ok(nothing.clone()));
        let empty = serde_json::json!({
            "backend": "", "iptablesAdminChainName": "", "ingressPolicy": "", "firewalldZone": "",
        });
        assert_eq!(read(empty), Ok(nothing));
        let all = read(serde_json::json!({
            "backend": "iptables", "iptablesAdminChainName": "SITE", "ingressPolicy": "isolated",
            "firewalldZone": "pods", "allowPublishedPorts": true,
        }));
        let expected = Settings {
            backend: Some(Backend::Iptables),
            admin_chain: "SITE".into(),
            zone: "pods".into(),
            isolation: Some(Isolation::Isolated),
            published: true,
        };
        assert_eq!(all, Ok(expected));
        for (name, backend) in [("nftables", Backend::Nftables), ("firewalld", Backend::Firewalld)]
        {
            let settings = read(serde_json::json!({"backend": name})).unwrap();
            assert_eq!(settings.backend, Some(backend));
        }
    }

    #[test]
    fn a_wrong_value_is_refused_by_the_name_of_its_key() {
        for (key, value) in [
            ("backend", "ufw"),
            ("ingressPolicy", "closed"),
            ("firewalldZone", "a\0b"),
            ("iptablesAdminChainName", "two words"),
            ("iptablesAdminChainName", "-A"),
            ("iptablesAdminChainName", "FORWARD"),
            ("iptablesAdminChainName", "CNI-FORWARD"),
            ("iptablesAdminChainName", "DROP"),
            ("iptablesAdminChainName", "REJECT"),
            ("iptablesAdminChainName", "a'quoted'\"name\""),
            ("iptablesAdminChainName", "a-name-of-twenty-nine-letters"),
        ] {
            let error = read(serde_json::json!({key: value})).unwrap_err();
            assert_eq!(error.code, cni::Code::InvalidConfig);
            let text = error.to_string();
            assert!(text.contains(key) && text.contains(&format!("{value:?}")), "{text}");
        }
    }
}
