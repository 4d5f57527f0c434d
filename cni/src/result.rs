//! The result of an ADD, in the form of every version.
//!
//! Plugins use one form, the newest. Stdout and `prevResult` have the form of the configuration's version: an
//! object with `ip4` and `ip6` up to 0.2.0, lists with the family of each address up to 0.4.0, lists without
//! it since 1.0.0. 1.1.0 added keys to interfaces and routes. As in other plugins, those of routes are
//! written since 0.3.0, those of interfaces only in 1.1.0.

use std::mem;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::address::{Cidr, address_or_nothing};
use crate::dns::Dns;
use crate::error::{Code, Error};
use crate::json;
use crate::version::Version;

/// What an ADD made (specification, section 5, "Success").
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Success {
    /// The interfaces on the node and in the container.
    pub interfaces: Vec<Interface>,
    /// The addresses.
    pub ips: Vec<IpConfig>,
    /// The routes.
    pub routes: Vec<Route>,
    /// Name resolution, which the runtime configures.
    pub dns: Dns,
}

/// An interface.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Interface {
    /// The name.
    pub name: String,
    /// The hardware address; empty if there is none.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub mac: String,
    /// The MTU in bytes (since 1.1.0).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// The path of its network namespace; empty for the node's.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub sandbox: String,
    /// The absolute path of a socket of the interface (since 1.1.0).
    #[serde(skip_serializing_if = "String::is_empty")]
    pub socket_path: String,
    /// The platform's name of the PCI device (since 1.1.0).
    #[serde(rename = "pciID", skip_serializing_if = "String::is_empty")]
    pub pci_id: String,
}

/// An address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IpConfig {
    /// The index of its interface in [`Success::interfaces`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interface: Option<usize>,
    /// The address with the prefix length of its network.
    pub address: Cidr,
    /// The default gateway of its network.
    #[serde(
        default,
        deserialize_with = "address_or_nothing",
        skip_serializing_if = "Option::is_none"
    )]
    pub gateway: Option<IpAddr>,
}

/// A route inside the container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Route {
    /// The destination.
    pub dst: Cidr,
    /// The gateway. If absent, the gateway of the addresses is used.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[serde(default, deserialize_with = "crate::address_or_nothing")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<crate::schema::Address>"))]
    pub gw: Option<IpAddr>,
    /// The MTU of the route in bytes (since 1.1.0).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// The maximal TCP segment size to announce, in bytes (since 1.1.0).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advmss: Option<u32>,
    /// The metric; lower values are preferred (since 1.1.0).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority: Option<u32>,
    /// The number of the routing table (since 1.1.0).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub table: Option<u32>,
    /// The scope, as the number of `rtm_scope` in rtnetlink(7) (since 1.1.0).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scope: Option<u8>,
}

impl Interface {
    /// Without the keys that 1.1.0 added.
    fn as_of_1_0_0(&self) -> Self {
        let Self { name, mac, sandbox, .. } = self.clone();
        Self { name, mac, sandbox, ..Self::default() }
    }
}

impl Route {
    /// A route with nothing but its destination.
    #[must_use]
    pub fn to(dst: Cidr) -> Self {
        Self { dst, gw: None, mtu: None, advmss: None, priority: None, table: None, scope: None }
    }
}

impl Success {
    /// Writes the object of a version. Up to 0.2.0, it has room for one address of each family: the first.
    ///
    /// Errors: code 6, which no value of these types causes.
    pub fn to_json(&self, version: Version) -> Result<Value, Error> {
        let written = match version {
            Version::V0_1_0 | Version::V0_2_0 => serde_json::to_value(Oldest::of(self, version)),
            Version::V0_3_0 | Version::V0_3_1 | Version::V0_4_0 => {
                serde_json::to_value(Older::of(self, version))
            }
            Version::V1_0_0 | Version::V1_1_0 => serde_json::to_value(Current::of(self, version)),
        };
        written.map_err(|error| Error::new(Code::Decode, format!("write the result: {error}")))
    }

    /// Reads what a plugin printed, in the version that its `cniVersion` names, or in `assumed` if it has
    /// none.
    ///
    /// Errors: code 7, naming the key.
    pub fn read(value: &Value, assumed: Version) -> Result<Self, Error> {
        let said = json::get(value, "cniVersion").and_then(Value::as_str);
        let version = said.and_then(|text| text.parse().ok()).unwrap_or(assumed);
        Self::from_json(value, version)
    }

    /// The addresses of an interface of the container, including addresses for which the result names no
    /// interface.
    pub fn ips_of(&self, ifname: &str) -> impl Iterator<Item = &IpConfig> {
        self.ips.iter().filter(move |ip| {
            let interface = ip.interface.and_then(|index| self.interfaces.get(index));
            interface.is_none_or(|it| it.name == ifname && !it.sandbox.is_empty())
        })
    }

    /// Refuses more addresses than a result of a version has room for: before 0.3.0, one of each family.
    /// `addresses` has, for each address, whether it is IPv4 and the key that requests it.
    ///
    /// Errors: code 7, naming the key.
    pub fn refuse_too_many<'a>(
        addresses: impl IntoIterator<Item = (bool, &'a str)>,
        version: Version,
    ) -> Result<(), Error> {
        let mut taken = [false; 2];
        for (is_ipv4, key) in addresses {
            let is_second = mem::replace(&mut taken[usize::from(is_ipv4)], true);
            if is_second && version < Version::V0_3_0 {
                let family = if is_ipv4 { "IPv4" } else { "IPv6" };
                let why = format!(
                    "a second {family} address needs cniVersion 0.3.0 or later, but it is {version}"
                );
                return Err(Error::invalid_key(key, why));
            }
        }
        Ok(())
    }

    /// Reads an object of a version.
    ///
    /// Errors: code 7, naming the key.
    pub fn from_json(value: &Value, version: Version) -> Result<Self, Error> {
        match version {
            Version::V0_1_0 | Version::V0_2_0 => json::read(value).map(Oldest::into_success),
            Version::V0_3_0 | Version::V0_3_1 | Version::V0_4_0 => {
                json::read(value).map(Older::into_success)
            }
            Version::V1_0_0 | Version::V1_1_0 => json::read(value).map(Current::into_success),
        }
    }
}

/// 1.0.0 and 1.1.0.
#[derive(Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Current {
    #[serde(skip_deserializing)]
    cni_version: Option<Version>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    interfaces: Vec<Interface>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ips: Vec<IpConfig>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    routes: Vec<Route>,
    #[serde(skip_serializing_if = "Dns::is_empty")]
    dns: Dns,
}

impl Current {
    fn of(result: &Success, version: Version) -> Self {
        let Success { mut interfaces, ips, routes, dns } = result.clone();
        if version < Version::V1_1_0 {
            for interface in &mut interfaces {
                *interface = interface.as_of_1_0_0();
            }
        }
        Self { cni_version: Some(version), interfaces, ips, routes, dns }
    }

    fn into_success(self) -> Success {
        let Self { cni_version: _, interfaces, ips, routes, dns } = self;
        Success { interfaces, ips, routes, dns }
    }
}

/// 0.3.0 to 0.4.0.
#[derive(Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Older {
    #[serde(skip_deserializing)]
    cni_version: Option<Version>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    interfaces: Vec<Interface>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ips: Vec<OlderIp>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    routes: Vec<Route>,
    dns: Dns,
}

#[derive(Serialize, Deserialize)]
struct OlderIp {
    /// The family. It is only written, because the address shows it.
    #[serde(skip_deserializing)]
    version: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    interface: Option<usize>,
    address: Cidr,
    #[serde(skip_serializing_if = "Option::is_none")]
    gateway: Option<IpAddr>,
}

impl Older {
    fn of(result: &Success, version: Version) -> Self {
        let ip = |it: &IpConfig| OlderIp {
            version: if it.address.is_ipv4() { "4" } else { "6" },
            interface: it.interface,
            address: it.address,
            gateway: it.gateway,
        };
        Self {
            cni_version: Some(version),
            interfaces: result.interfaces.iter().map(Interface::as_of_1_0_0).collect(),
            ips: result.ips.iter().map(ip).collect(),
            routes: result.routes.clone(),
            dns: result.dns.clone(),
        }
    }

    fn into_success(self) -> Success {
        let ip = |OlderIp { version: _, interface, address, gateway }| IpConfig {
            interface,
            address,
            gateway,
        };
        Success {
            interfaces: self.interfaces.iter().map(Interface::as_of_1_0_0).collect(),
            ips: self.ips.into_iter().map(ip).collect(),
            routes: self.routes,
            dns: self.dns,
        }
    }
}

/// 0.1.0 and 0.2.0.
#[derive(Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Oldest {
    #[serde(skip_deserializing)]
    cni_version: Option<Version>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ip4: Option<OldestIp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ip6: Option<OldestIp>,
    dns: Dns,
}

#[derive(Serialize, Deserialize)]
struct OldestIp {
    ip: Cidr,
    #[serde(skip_serializing_if = "Option::is_none")]
    gateway: Option<IpAddr>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    routes: Vec<Route>,
}

impl Oldest {
    fn of(result: &Success, version: Version) -> Self {
        let family = |v4: bool| {
            let ip = result.ips.iter().find(|ip| ip.address.is_ipv4() == v4)?;
            let routes = result.routes.iter().filter(|route| route.dst.is_ipv4() == v4);
            let routes = routes.map(|route| Route { gw: route.gw, ..Route::to(route.dst) });
            Some(OldestIp { ip: ip.address, gateway: ip.gateway, routes: routes.collect() })
        };
        Self {
            cni_version: Some(version),
            ip4: family(true),
            ip6: family(false),
            dns: result.dns.clone(),
        }
    }

    fn into_success(self) -> Success {
        let mut result = Success { dns: self.dns, ..Success::default() };
        for OldestIp { ip, gateway, routes } in self.ip4.into_iter().chain(self.ip6) {
            result.ips.push(IpConfig { interface: None, address: ip, gateway });
            result.routes.extend(routes);
        }
        result
    }
}

#[cfg(test)]
mod tests;
