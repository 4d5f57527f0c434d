//! Name resolution, in results and in configurations.

use serde::{Deserialize, Serialize};

/// The key `dns` of a result.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Dns {
    /// Addresses of name servers, the first one preferred.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub nameservers: Vec<String>,
    /// The local domain.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub domain: String,
    /// Domains to search in.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub search: Vec<String>,
    /// Options for the resolver.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
}

/// The key `dns` of a configuration. An empty list is not the same as an absent list: it replaces the list of
/// the IPAM plugin.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(rename = "Dns"))]
#[serde(default)]
pub struct DnsKeys {
    /// Addresses of name servers, the first one preferred.
    // Strings, because they are only passed on. resolv.conf(5) accepts addresses only.
    #[cfg_attr(feature = "schema", schemars(with = "Option<Vec<crate::schema::Address>>"))]
    nameservers: Option<Vec<String>>,
    /// The local domain.
    domain: String,
    /// Domains to search in.
    search: Option<Vec<String>>,
    /// Options for the resolver.
    options: Option<Vec<String>>,
}

impl Dns {
    /// Whether all keys are empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The `dns` of the result, if the IPAM plugin's is `self` and the configuration's is `wanted`: `wanted`
    /// if it has any list, even an empty one, or a domain; otherwise `self`.
    #[must_use]
    pub fn overridden_by(self, wanted: &DnsKeys) -> Self {
        if *wanted == DnsKeys::default() { self } else { wanted.clone().into() }
    }
}

/// The result's `dns` if only the configuration has one.
impl From<DnsKeys> for Dns {
    fn from(DnsKeys { nameservers, domain, search, options }: DnsKeys) -> Self {
        let list = Option::unwrap_or_default;
        Self {
            nameservers: list(nameservers),
            domain,
            search: list(search),
            options: list(options),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::json;

    fn of_ipam() -> Dns {
        Dns { nameservers: vec!["10.0.0.53".into()], domain: "a.test".into(), ..Dns::default() }
    }

    fn overridden_by(keys: &Value) -> Value {
        let wanted: DnsKeys = json::read(keys).unwrap();
        serde_json::to_value(of_ipam().overridden_by(&wanted)).unwrap()
    }

    #[test]
    fn absent_keys_override_nothing() {
        let unchanged = serde_json::to_value(of_ipam()).unwrap();
        for keys in [json!({}), json!({"nameservers": null, "Search": null}), json!({"domain": ""})]
        {
            assert_eq!(overridden_by(&keys), unchanged, "{keys}");
        }
    }

    /// As in the reference plugins bridge and ptp: one key that is present replaces the IPAM plugin's `dns`.
    #[test]
    fn present_keys_override_even_if_they_are_empty() {
        for key in ["nameservers", "search", "options"] {
            assert_eq!(overridden_by(&json!({key: []})), json!({}), "{key}");
        }
        assert_eq!(overridden_by(&json!({"domain": "b.test"})), json!({"domain": "b.test"}));
    }
}
