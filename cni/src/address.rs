//! Addresses as the specification writes them, parsed strictly.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ipnetwork::IpNetwork;
use serde::{Deserialize, Deserializer, de};

use crate::error::Error;
use crate::text::{read_from_text, written_as_text};

/// An address with a prefix length (`10.88.0.2/24`). Host bits are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cidr(IpNetwork);

/// An address that a runtime requests, with or without a prefix length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestedAddress(IpAddr, Option<u8>);

/// An Ethernet address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac(pub [u8; 6]);

/// A string that is not a valid address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidAddress {
    /// Not an address with a prefix length.
    #[error("{0:?} is not an address with a prefix length, such as 10.88.0.2/24 or fd00:88::2/64")]
    Cidr(String),
    /// Not an address, neither with a prefix length nor without.
    #[error("{0:?} is not an address, with or without a prefix length")]
    Requested(String),
    /// Not an Ethernet address.
    #[error("{0:?} is not an Ethernet address, such as c2:11:22:33:44:55")]
    Mac(String),
}

/// The blocks of addresses that Linux accepts neither as the address of a pod nor as a gateway.
const RESERVED: [(IpAddr, u8, &str); 8] = [
    (IpAddr::V4(Ipv4Addr::UNSPECIFIED), 32, "the unspecified address"),
    (IpAddr::V4(Ipv4Addr::new(127, 0, 0, 0)), 8, "a loopback address"),
    (IpAddr::V4(Ipv4Addr::new(224, 0, 0, 0)), 4, "a multicast address"),
    (IpAddr::V4(Ipv4Addr::BROADCAST), 32, "the broadcast address"),
    (IpAddr::V6(Ipv6Addr::UNSPECIFIED), 128, "the unspecified address"),
    (IpAddr::V6(Ipv6Addr::LOCALHOST), 128, "the loopback address"),
    (IpAddr::V6(Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0, 0)), 96, "an IPv4 address written as IPv6"),
    (IpAddr::V6(Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0)), 8, "a multicast address"),
];

/// The blocks of addresses that neither a pod nor a gateway can have, each with a description.
pub fn reserved() -> impl Iterator<Item = (Cidr, &'static str)> {
    RESERVED.into_iter().filter_map(|(ip, prefix, what)| Some((Cidr::new(ip, prefix)?, what)))
}

impl Cidr {
    /// An address with a prefix length in bits; `None` if that is longer than the address.
    #[must_use]
    pub fn new(address: IpAddr, prefix: u8) -> Option<Self> {
        IpNetwork::new(address, prefix).ok().map(Self)
    }

    /// The address with a prefix of its full length: /32 or /128.
    #[must_use]
    pub fn host(address: IpAddr) -> Self {
        Self(IpNetwork::from(address))
    }

    /// The address, host bits included.
    #[must_use]
    pub fn ip(self) -> IpAddr {
        self.0.ip()
    }

    /// The prefix length in bits.
    #[must_use]
    pub fn prefix(self) -> u8 {
        self.0.prefix()
    }

    /// The network of the address: the same prefix, with all host bits zero.
    #[must_use]
    pub fn network(self) -> Self {
        Self::new(self.0.network(), self.prefix()).unwrap_or(self)
    }

    /// Whether `address` is in the same network.
    #[must_use]
    pub fn contains(self, address: IpAddr) -> bool {
        self.0.contains(address)
    }

    /// Whether it is an IPv4 address.
    #[must_use]
    pub fn is_ipv4(self) -> bool {
        self.0.is_ipv4()
    }

    /// The broadcast address of an IPv4 network; `None` for IPv6, /31 and /32.
    #[must_use]
    pub fn broadcast(self) -> Option<IpAddr> {
        match self.0 {
            IpNetwork::V4(network) if network.prefix() <= 30 => Some(network.broadcast().into()),
            _ => None,
        }
    }

    /// The reason why no host of this network can have `address`; `None` if a host can have it.
    #[must_use]
    pub fn why_not_for_hosts(self, address: IpAddr) -> Option<&'static str> {
        if self.broadcast() == Some(address) {
            return Some("the broadcast address");
        }
        reserved().find(|(block, _)| block.contains(address)).map(|(_, what)| what)
    }
}

impl RequestedAddress {
    /// The address.
    #[must_use]
    pub fn ip(self) -> IpAddr {
        self.0
    }

    /// The address with its prefix length, if it was given with one.
    #[must_use]
    pub fn cidr(self) -> Option<Cidr> {
        Cidr::new(self.0, self.1?)
    }
}

impl FromStr for RequestedAddress {
    type Err = InvalidAddress;

    fn from_str(text: &str) -> Result<Self, InvalidAddress> {
        let cidr = text.parse::<Cidr>().ok();
        let ip = cidr.map_or_else(|| text.parse(), |cidr| Ok(cidr.ip()));
        let ip: IpAddr = ip.map_err(|_| InvalidAddress::Requested(text.to_owned()))?;
        let prefix = cidr.map(Cidr::prefix);
        let canonical = ip.to_canonical();
        let prefix =
            if canonical == ip { prefix } else { prefix.and_then(|it| it.checked_sub(96)) };
        Ok(Self(canonical, prefix))
    }
}

impl From<Cidr> for IpNetwork {
    fn from(cidr: Cidr) -> Self {
        cidr.0
    }
}

impl From<IpNetwork> for Cidr {
    fn from(network: IpNetwork) -> Self {
        Self(network)
    }
}

impl FromStr for Cidr {
    type Err = InvalidAddress;

    /// Accepts `ADDRESS/PREFIX` only. `ipnetwork` alone also accepts a bare address, a netmask and `/+24`.
    fn from_str(text: &str) -> Result<Self, InvalidAddress> {
        let invalid = || InvalidAddress::Cidr(text.to_owned());
        let (address, prefix) = text.split_once('/').ok_or_else(invalid)?;
        if prefix.is_empty() || prefix.len() > 3 || !prefix.bytes().all(|b| b.is_ascii_digit()) {
            return Err(invalid());
        }
        let address = address.parse().map_err(|_| invalid())?;
        let prefix = prefix.parse().map_err(|_| invalid())?;
        Self::new(address, prefix).ok_or_else(invalid)
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.ip(), self.prefix())
    }
}

impl Mac {
    /// Reads the address that `key` of a configuration gives to an interface.
    ///
    /// Errors: code 7, naming the key.
    pub fn of_interface(key: &str, text: &str) -> Result<Self, Error> {
        let mac: Self = text.parse().map_err(|error| Error::invalid_key(key, error))?;
        if mac.0[0] & 1 != 0 {
            return Err(Error::invalid_key(
                key,
                format!("{mac} must be a unicast address, but is a group address"),
            ));
        }
        Ok(mac)
    }

    /// Reads the first of these addresses that is set and not empty; each has the name of its source.
    ///
    /// Errors: as [`Mac::of_interface`].
    pub fn first_of<'a>(
        sources: impl IntoIterator<Item = (&'a str, Option<&'a str>)>,
    ) -> Result<Option<Self>, Error> {
        let set = |(from, mac): (&'a str, Option<&'a str>)| {
            mac.filter(|mac| !mac.is_empty()).map(|mac| (from, mac))
        };
        let first = sources.into_iter().find_map(set);
        first.map(|(from, mac)| Self::of_interface(from, mac)).transpose()
    }
}

impl FromStr for Mac {
    type Err = InvalidAddress;

    /// Accepts the forms that runtimes send: six pairs of hexadecimal digits separated by colons or dashes,
    /// or three groups of four digits separated by dots.
    fn from_str(text: &str) -> Result<Self, InvalidAddress> {
        let invalid = || InvalidAddress::Mac(text.to_owned());
        let separator = text.chars().find(|c| !c.is_ascii_hexdigit()).ok_or_else(invalid)?;
        let digits = match separator {
            ':' | '-' => 2,
            '.' => 4,
            _ => return Err(invalid()),
        };
        let groups: Vec<&str> = text.split(separator).collect();
        let hexadecimal =
            |group: &&str| group.len() == digits && group.bytes().all(|b| b.is_ascii_hexdigit());
        if groups.len() * digits != 12 || !groups.iter().all(hexadecimal) {
            return Err(invalid());
        }
        let number = u64::from_str_radix(&groups.concat(), 16).map_err(|_| invalid())?;
        let [_, _, bytes @ ..] = number.to_be_bytes();
        Ok(Self(bytes))
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.map(|byte| format!("{byte:02x}")).join(":"))
    }
}

/// Reads an address, for `#[serde(deserialize_with)]`. An empty string means no address, because Go's
/// `net.IP` reads it so and configurations depend on it.
pub fn address_or_nothing<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<IpAddr>, D::Error> {
    let text = String::deserialize(deserializer)?;
    if text.is_empty() {
        return Ok(None);
    }
    let address = text.parse::<IpAddr>();
    let address =
        address.map_err(|_| de::Error::custom(format!("{text:?} is not a valid address")))?;
    Ok(Some(address.to_canonical()))
}

read_from_text!(Cidr, Mac, RequestedAddress);
written_as_text!(Cidr, Mac);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn other_forms_are_refused() {
        for bad in [
            "",
            "/",
            "10.0.0.1",
            "10.0.0.1/",
            "10.0.0.1/+24",
            "10.0.0.1/255.255.255.0",
            "10.0.0.1/33",
            "10.0.0.01/24",
            "10.0.0/24",
            "::1/129",
            "fe80::1%eth0/64",
            " 10.0.0.1/24",
            "10.0.0.1/24 ",
            "10.0.0.1/-1",
        ] {
            assert!(bad.parse::<Cidr>().is_err(), "{bad}");
        }
    }

    #[test]
    fn networks() {
        let cidr: Cidr = "10.88.3.7/16".parse().unwrap();
        assert_eq!(cidr.network().to_string(), "10.88.0.0/16");
        assert_eq!(Cidr::host(cidr.ip()).to_string(), "10.88.3.7/32");
        assert!(cidr.contains("10.88.255.1".parse().unwrap()));
        assert!(!cidr.contains("::1".parse().unwrap()));
    }

    #[test]
    fn requested_addresses() {
        for (text, ip, cidr) in [
            ("10.1.2.3", "10.1.2.3", None),
            ("10.1.2.3/24", "10.1.2.3", Some("10.1.2.3/24")),
            ("fd00::1/64", "fd00::1", Some("fd00::1/64")),
            ("::ffff:10.1.2.3/120", "10.1.2.3", Some("10.1.2.3/24")),
            ("::ffff:10.1.2.3/64", "10.1.2.3", None),
        ] {
            let address: RequestedAddress = text.parse().unwrap();
            assert_eq!(address.ip(), ip.parse::<IpAddr>().unwrap());
            assert_eq!(address.cidr().map(|cidr| cidr.to_string()).as_deref(), cidr, "{text}");
        }
        for bad in ["", "x", "10.1.2.3/33", "10.1.2", "10.1.2.3/"] {
            assert!(bad.parse::<RequestedAddress>().is_err(), "{bad}");
        }
    }

    /// Each was tried on a veth pair: it does not work as a pod's address or as its gateway.
    #[test]
    fn addresses_that_no_host_has() {
        for (network, ip, expected) in [
            ("10.1.2.0/24", "10.1.2.255", Some("the broadcast address")),
            ("10.1.2.0/24", "10.1.2.254", None),
            ("10.1.2.0/31", "10.1.2.1", None),
            ("224.0.0.0/24", "224.0.0.2", Some("a multicast address")),
            ("127.3.0.0/24", "127.3.0.2", Some("a loopback address")),
            ("0.0.0.0/0", "0.0.0.0", Some("the unspecified address")),
            ("240.1.2.0/24", "240.1.2.2", None),
            ("fd00::/64", "fd00::", None),
            ("::/0", "::1", Some("the loopback address")),
            ("::/0", "::ffff:10.1.2.3", Some("an IPv4 address written as IPv6")),
            ("ff05::/64", "ff05::2", Some("a multicast address")),
        ] {
            let network: Cidr = network.parse().unwrap();
            assert_eq!(network.why_not_for_hosts(ip.parse().unwrap()), expected, "{network} {ip}");
        }
    }

    #[test]
    fn ethernet_addresses() {
        let mac = Mac([0xc2, 0x11, 0x22, 0x33, 0x44, 0x55]);
        for good in ["c2:11:22:33:44:55", "C2-11-22-33-44-55", "c211.2233.4455"] {
            assert_eq!(good.parse(), Ok(mac));
        }
        for bad in ["", "c2", "c2:11:22:33:44", "c2:11:22:33:44:5", "c2:11-22:33:44:55", "x", "é"]
        {
            assert!(bad.parse::<Mac>().is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn texts_come_back(bits: u128, v4: Option<u32>, prefix in 0u8..=128, mac: [u8; 6]) {
            let v6 = || IpAddr::from(bits.to_be_bytes());
            let address = v4.map_or_else(v6, |bits| IpAddr::from(bits.to_be_bytes()));
            if let Some(cidr) = Cidr::new(address, prefix) {
                prop_assert_eq!(cidr.to_string().parse(), Ok(cidr));
            }
            prop_assert_eq!(Mac(mac).to_string().parse(), Ok(Mac(mac)));
        }

        #[test]
        fn no_text_panics(text: String) {
            let _ = text.parse::<Cidr>();
            let _ = text.parse::<Mac>();
        }
    }
}
