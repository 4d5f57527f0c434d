//! Name resolution: what a result tells the runtime, and what a configuration says of it.

use serde::{Deserialize, Serialize};

/// Name resolution, as a result has it.
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

/// The key `dns` of a configuration. A list that is present but empty differs from one that is absent: it
/// asks for none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(rename = "Dns"))]
#[serde(default)]
pub struct DnsKeys {
    /// Addresses of name servers, the first one preferred.
    // Text, as nothing is done with it; but resolv.conf(5) has room for addresses only.
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
    /// Whether nothing is said.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// What the result says if the IPAM plugin said `self` and the configuration says `wanted`: `wanted`
    /// alone if it has any list, even an empty one, or a domain; else `self`.
    #[must_use]
    pub fn overridden_by(self, wanted: &DnsKeys) -> Self {
        if *wanted == DnsKeys::default() { self } else { wanted.clone().into() }
    }
}

/// Name resolution as the configuration says it, with nothing below it.
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

    /// As the reference plugins bridge and ptp do: one key that is present replaces all that IPAM said.
    #[test]
    fn present_keys_override_even_if_they_are_empty() {
        for key in ["nameservers", "search", "options"] {
            assert_eq!(overridden_by(&json!({key: []})), json!({}), "{key}");
        }
        assert_eq!(overridden_by(&json!({"domain": "b.test"})), json!({"domain": "b.test"}));
    }
}
