//! The mapping of a port of the node to a port of the pod.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use cni::{Code, Error};
use kernel::Family;
use kernel::iptables::{SCTP, TCP, UDP};
use serde::de::{self, Deserializer, Unexpected, Visitor};

/// One of `portMappings`, as the runtime sends it.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(
    feature = "schema",
    schemars(extend("required" = ["hostPort", "containerPort", "protocol"]))
)]
#[serde(rename_all = "camelCase", default)]
pub struct Entry {
    /// Port of the node.
    #[serde(deserialize_with = "port")]
    #[cfg_attr(feature = "schema", schemars(range(min = 1, max = 65535)))]
    pub host_port: i64,
    /// Port of the pod.
    #[serde(deserialize_with = "port")]
    #[cfg_attr(feature = "schema", schemars(range(min = 1, max = 65535)))]
    pub container_port: i64,
    /// `tcp`, `udp` or `sctp`, in any case.
    #[cfg_attr(feature = "schema", schemars(with = "cni::schema::Protocol"))]
    pub protocol: String,
    /// The node's address at which the port is open; empty or unspecified (0.0.0.0, ::) for all of a family.
    #[serde(rename = "hostIP")]
    #[cfg_attr(feature = "schema", schemars(with = "cni::schema::Address"))]
    pub host_ip: String,
}

/// A valid mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// Port of the node.
    pub host_port: u16,
    /// Port of the pod.
    pub container_port: u16,
    /// IPPROTO number.
    pub protocol: u8,
    /// The node's address at which the port is open; `None` for all of both families.
    pub host_ip: Option<IpAddr>,
}

const PROTOCOLS: [(&str, u8); 3] = [("sctp", SCTP), ("tcp", TCP), ("udp", UDP)];

impl Mapping {
    /// Reads all mappings of a request.
    ///
    /// Errors: code 7, naming the key.
    pub(crate) fn read_all(entries: &[Entry]) -> Result<Vec<Self>, Error> {
        let mut all: Vec<Self> = Vec::with_capacity(entries.len());
        for (index, entry) in entries.iter().enumerate() {
            let key = format!("runtimeConfig.portMappings[{index}]");
            let mapping = Self::read(entry, &key)?;
            if let Some(before) = all.iter().position(|other| other.is_same_place(&mapping)) {
                return Err(Error::new(
                    Code::InvalidConfig,
                    format!(
                        "key {key:?} of the configuration: hostPort {}/{} is mapped by \
                         portMappings[{before}] already; use another hostPort, protocol or hostIP",
                        mapping.host_port,
                        protocol_name(mapping.protocol)
                    ),
                ));
            }
            all.push(mapping);
        }
        Ok(all)
    }

    fn read(entry: &Entry, key: &str) -> Result<Self, Error> {
        let port = |name: &str, number: i64| match u16::try_from(number) {
            Ok(port) if port > 0 => Ok(port),
            _ => {
                let why = format!("{number} is not a port; it must be 1 to 65535");
                Err(Error::invalid_key(&format!("{key}.{name}"), why))
            }
        };
        let lower = entry.protocol.to_ascii_lowercase();
        let protocol = PROTOCOLS.iter().find(|(name, _)| *name == lower).map(|(_, number)| *number);
        let protocol = protocol.ok_or_else(|| {
            let why = format!("{:?} is unknown; use \"tcp\", \"udp\" or \"sctp\"", entry.protocol);
            Error::invalid_key(&format!("{key}.protocol"), why)
        })?;
        let host_ip = host_ip(&entry.host_ip)
            .map_err(|why| Error::invalid_key(&format!("{key}.hostIP"), why))?;
        Ok(Self {
            host_port: port("hostPort", entry.host_port)?,
            container_port: port("containerPort", entry.container_port)?,
            protocol,
            host_ip,
        })
    }

    /// Whether the port is open at all addresses of its family, or of both.
    pub(crate) fn is_at_all_addresses(&self) -> bool {
        self.host_ip.is_none_or(|ip| ip.is_unspecified())
    }

    /// Whether the port is open at addresses of this family.
    pub(crate) fn is_of(&self, family: Family) -> bool {
        self.host_ip.is_none_or(|ip| Family::of(ip) == family)
    }

    /// Whether one of the two would never get a packet, in one of the families.
    fn is_same_place(&self, other: &Self) -> bool {
        let all = self.is_at_all_addresses() && other.is_at_all_addresses();
        let one_family =
            Family::ALL.iter().any(|family| self.is_of(*family) && other.is_of(*family));
        (self.protocol, self.host_port) == (other.protocol, other.host_port)
            && (self.host_ip == other.host_ip || all && one_family)
    }
}

/// Reads a `hostIP`; `None` for all addresses. The error says why it is not valid.
fn host_ip(text: &str) -> Result<Option<IpAddr>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    let ip = text
        .parse::<IpAddr>()
        .map(|ip| ip.to_canonical())
        .map_err(|_| format!("{text:?} is not an IP address; remove it for all addresses"))?;
    if ip.is_multicast() || ip == IpAddr::V4(Ipv4Addr::BROADCAST) {
        return Err(format!("{text:?} is a multicast or broadcast address; use one of this node"));
    }
    Ok(Some(ip))
}

/// Reads the number of a port. The range is checked later, together with the other values.
fn port<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
    struct Port;

    impl Visitor<'_> for Port {
        type Value = i64;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a whole number from 1 to 65535")
        }

        fn visit_i64<E: de::Error>(self, number: i64) -> Result<i64, E> {
            Ok(number)
        }

        fn visit_u64<E: de::Error>(self, number: u64) -> Result<i64, E> {
            i64::try_from(number).map_err(|_| E::invalid_value(Unexpected::Unsigned(number), &self))
        }
    }

    deserializer.deserialize_i64(Port)
}

/// The name of one of the protocols that can be mapped.
pub(crate) fn protocol_name(protocol: u8) -> &'static str {
    PROTOCOLS.iter().find(|(_, number)| *number == protocol).map_or("", |(name, _)| name)
}

/// The protocols that can be mapped, in the order of their names.
pub(crate) fn protocols() -> impl Iterator<Item = u8> {
    PROTOCOLS.iter().map(|(_, number)| *number)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(host_port: i64, protocol: &str, host_ip: &str) -> Entry {
        let (protocol, host_ip) = (protocol.to_owned(), host_ip.to_owned());
        Entry { host_port, container_port: 80, protocol, host_ip }
    }

    #[track_caller]
    fn refused(entries: &[Entry], expected: &str) {
        let error = Mapping::read_all(entries).unwrap_err();
        assert_eq!(error.code, Code::InvalidConfig);
        assert!(error.msg.contains(expected), "{error}");
    }

    #[test]
    fn wrong_values_are_named() {
        refused(&[entry(0, "tcp", "")], "portMappings[0].hostPort\"");
        refused(&[entry(-1, "tcp", "")], "-1 is not a port");
        refused(&[entry(80, "tcp", ""), entry(70000, "tcp", "")], "portMappings[1].hostPort\"");
        refused(&[Entry { container_port: 0, ..entry(80, "tcp", "") }], "containerPort\"");
        refused(&[entry(80, "icmp", "")], "portMappings[0].protocol\"");
        refused(&[entry(80, "", "")], "portMappings[0].protocol\"");
        refused(&[entry(80, "tcp", "bogus")], "portMappings[0].hostIP\"");
        refused(&[entry(80, "tcp", ""), entry(80, "TCP", "")], "portMappings[0] already");
        refused(&[entry(80, "tcp", "::ffff:192.0.2.1"), entry(80, "tcp", "192.0.2.1")], "already");
        refused(&[entry(80, "tcp", ""), entry(80, "tcp", "0.0.0.0")], "portMappings[0] already");
        refused(&[entry(80, "tcp", "::"), entry(80, "tcp", "")], "portMappings[0] already");
        refused(&[entry(80, "tcp", "224.0.0.1")], "portMappings[0].hostIP\"");
        refused(&[entry(80, "tcp", "255.255.255.255")], "portMappings[0].hostIP\"");
        refused(&[entry(80, "tcp", "ff02::1")], "portMappings[0].hostIP\"");
    }

    #[test]
    fn what_runtimes_send_is_taken() {
        let all = [
            entry(80, "TCP", ""),
            entry(80, "udp", ""),
            entry(81, "tcp", "0.0.0.0"),
            entry(81, "tcp", "::"),
            entry(80, "tcp", "192.0.2.1"),
            entry(65535, "sctp", "::1"),
        ];
        let mappings = Mapping::read_all(&all).unwrap();
        assert_eq!(mappings.len(), 6);
        assert_eq!((mappings[0].protocol, mappings[1].protocol), (TCP, UDP));
        assert_eq!(mappings[5].host_ip, "::1".parse().ok());
    }
}
