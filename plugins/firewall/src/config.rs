//! The keys of the configuration, and the settings that they mean.

use cni::Error;
use serde::Deserialize;

use crate::iptables::{BASE_CHAINS, OWN_CHAINS};

/// The plugin's own keys.
#[derive(Clone, Debug, Default, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct Config {
    /// What accepts packets: `iptables`, `nftables` or `firewalld`; empty for what the node uses.
    #[cfg_attr(feature = "schema", schemars(extend("enum" = BACKENDS.map(|it| it.0), "default" = "")))]
    pub backend: Option<String>,
    /// With the backend `iptables`, the chain for the administrator's own rules, which packets of pods pass
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
    /// With the backend `firewalld`, the zone that gets the pods' addresses as sources; `trusted` by default.
    #[cfg_attr(feature = "schema", schemars(extend("default" = DEFAULT_ZONE)))]
    pub firewalld_zone: Option<String>,
    /// Whether packets between bridges are dropped: `open`, the default, `same-bridge` or `isolated`.
    #[cfg_attr(feature = "schema", schemars(extend("enum" = POLICIES.map(|it| it.0), "default" = "open")))]
    pub ingress_policy: Option<String>,
    /// Accept connections that came through a published port (`hostPort`), even if the policy of the node's
    /// chain for forwarded packets or an `ingressPolicy` drops others; `false` by default.
    #[cfg_attr(feature = "schema", schemars(extend("default" = false)))]
    pub allow_published_ports: Option<bool>,
}

/// The values of the configuration, all of them valid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// `None` for what the node uses.
    pub(crate) backend: Option<Backend>,
    pub(crate) admin_chain: String,
    pub(crate) zone: String,
    pub(crate) isolation: Option<Isolation>,
    /// Whether connections with a DNAT to the pod are accepted.
    pub(crate) published: bool,
}

/// What accepts packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Backend {
    /// Rules in the table `filter` of iptables.
    Iptables,
    /// A table of our own.
    Nftables,
    /// A zone of firewalld.
    Firewalld,
}

/// What a bridge is isolated from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Isolation {
    /// From other bridges with a policy.
    SameBridge,
    /// From those, and its pods from each other.
    Isolated,
}

/// The values of `backend`.
pub(crate) const BACKENDS: [(&str, Option<Backend>); 4] = [
    ("", None),
    ("iptables", Some(Backend::Iptables)),
    ("nftables", Some(Backend::Nftables)),
    ("firewalld", Some(Backend::Firewalld)),
];
/// The values of `ingressPolicy`.
const POLICIES: [(&str, Option<Isolation>); 4] = [
    ("", None),
    ("open", None),
    ("same-bridge", Some(Isolation::SameBridge)),
    ("isolated", Some(Isolation::Isolated)),
];

/// The longest name of a chain: `XT_EXTENSION_MAXNAMELEN` less the final zero.
const CHAIN_NAME_MAX: usize = 28;

const DEFAULT_ADMIN_CHAIN: &str = "CNI-ADMIN";
const DEFAULT_ZONE: &str = "trusted";

impl Config {
    /// Errors: code 7 for values that are not valid.
    pub(crate) fn settings(&self) -> Result<Settings, Error> {
        let admin_chain =
            or_default(self.iptables_admin_chain_name.as_deref(), DEFAULT_ADMIN_CHAIN);
        if let Some(why) = wrong_admin_chain(admin_chain) {
            return Err(Error::invalid_key("iptablesAdminChainName", why));
        }
        Ok(Settings {
            backend: self.backend()?,
            admin_chain: admin_chain.to_owned(),
            isolation: meaning("ingressPolicy", self.ingress_policy.as_deref(), &POLICIES)?,
            zone: self.zone()?,
            published: self.allow_published_ports.unwrap_or_default(),
        })
    }

    /// The backend and the zone, for a DEL: values that are not valid are treated as not set.
    pub(crate) fn for_removal(&self) -> (Option<Backend>, String) {
        let zone = self.zone().unwrap_or_else(|_| DEFAULT_ZONE.to_owned());
        (self.backend().unwrap_or_default(), zone)
    }

    fn backend(&self) -> Result<Option<Backend>, Error> {
        meaning("backend", self.backend.as_deref(), &BACKENDS)
    }

    fn zone(&self) -> Result<String, Error> {
        let zone = or_default(self.firewalld_zone.as_deref(), DEFAULT_ZONE);
        if zone.contains(char::is_control) {
            let why = format!("{zone:?} is not a valid zone: it has control characters");
            return Err(Error::invalid_key("firewalldZone", why));
        }
        Ok(zone.to_owned())
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

fn or_default<'a>(value: Option<&'a str>, default: &'a str) -> &'a str {
    value.filter(|value| !value.is_empty()).unwrap_or(default)
}

/// What the value of a key means. Errors: code 7 if the value is not in the table.
fn meaning<T: Copy>(
    key: &str,
    value: Option<&str>,
    table: &[(&str, Option<T>)],
) -> Result<Option<T>, Error> {
    let value = value.unwrap_or_default();
    let known = table.iter().find(|(name, _)| *name == value);
    known.map(|(_, meaning)| *meaning).ok_or_else(|| {
        let names: Vec<_> = table.iter().map(|(name, _)| format!("{name:?}")).collect();
        // The first one is empty.
        let names = names[1..].join(", ");
        Error::invalid_key(
            key,
            format!("{value:?} is unknown; use one of {names}, or leave it out"),
        )
    })
}

/// Why the administrator's chain cannot have this name.
fn wrong_admin_chain(name: &str) -> Option<String> {
    let is_wrong = |it: char| it.is_whitespace() || it.is_control() || it == '"';
    if name.len() > CHAIN_NAME_MAX || name.contains(is_wrong) || name.starts_with(['-', '!']) {
        return Some(format!(
            "{name:?} is not a valid name of a chain: at most {CHAIN_NAME_MAX} bytes without spaces and \
             quotation marks, the first neither \"-\" nor \"!\""
        ));
    }
    let is_used = BASE_CHAINS.contains(&name)
        || OWN_CHAINS.contains(&name)
        || TARGETS.split_whitespace().any(|target| target == name);
    is_used.then(|| {
        format!("{name:?} is a base chain, a target or a chain of this plugin; use another name")
    })
}

/// Names that `-j` does not treat as chains in the table `filter` (iptables-extensions(8)).
const TARGETS: &str = "ACCEPT AUDIT CHECKSUM CLASSIFY CONNMARK CONNSECMARK CT DNAT DROP DSCP HMARK \
                       IDLETIMER LED LOG MARK MASQUERADE NETMAP NFLOG NFQUEUE QUEUE REDIRECT REJECT \
                       RETURN SECMARK SNAT TCPMSS TRACE";

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: serde_json::Value) -> Result<Settings, Error> {
        serde_json::from_value::<Config>(json).unwrap().settings()
    }

    #[test]
    fn values_are_read() {
        let default = Settings {
            backend: None,
            admin_chain: "CNI-ADMIN".into(),
            zone: "trusted".into(),
            isolation: None,
            published: false,
        };
        assert_eq!(read(serde_json::json!({})), Ok(default.clone()));
        let empty = serde_json::json!({
            "backend": "", "iptablesAdminChainName": "", "ingressPolicy": "", "firewalldZone": "",
        });
        assert_eq!(read(empty), Ok(default));
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
    fn an_error_names_the_key_and_the_value() {
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
