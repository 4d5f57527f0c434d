//! The configuration: the key `ipam`, and the values that the runtime adds.

use std::net::IpAddr;

use cni::{
    Args, Cidr, Code, Dns, DnsKeys, Error, IpConfig, RequestedAddress, Route, Success, Version,
};
use serde::Deserialize;

/// The plugin's keys.
#[derive(Clone, Debug, Default, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct Config {
    /// The addresses and other settings.
    ipam: Option<IpamKeys>,
    /// The values that the runtime adds. They replace all others.
    runtime_config: Requested,
    /// Arguments from the administrator.
    args: ArgsKeys,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
struct IpamKeys {
    /// The addresses.
    addresses: Vec<AddressKeys>,
    /// The routes of the result.
    routes: Vec<Route>,
    /// The name resolution of the result.
    dns: DnsKeys,
}

#[derive(Clone, Debug, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
struct AddressKeys {
    /// The address, with the prefix length of its network.
    address: Cidr,
    /// The gateway, of the same family.
    #[serde(default, deserialize_with = "cni::address_or_nothing")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<cni::schema::Address>"))]
    gateway: Option<IpAddr>,
}

/// The addresses that a runtime requests.
#[derive(Clone, Debug, Default, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
struct Requested {
    /// Addresses that replace those of the configuration. Those set the gateways, and prefix lengths that are
    /// not given.
    #[cfg_attr(feature = "schema", schemars(with = "Vec<cni::schema::AddressOrCidr>"))]
    ips: Vec<RequestedAddress>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
struct ArgsKeys {
    /// The arguments for plugins. They replace the configuration's.
    cni: Requested,
}

/// The validated values of the result.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The addresses.
    pub addresses: Vec<Address>,
    /// The routes.
    pub routes: Vec<Route>,
    /// The name resolution.
    pub dns: Dns,
}

/// An address to assign.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// The key of the address, for messages: `ipam.addresses[0]`.
    pub key: String,
    /// The address with the prefix length of its network.
    pub address: Cidr,
    /// The gateway, if it is set.
    pub gateway: Option<IpAddr>,
}

impl Address {
    /// An address that the runtime requests. It gets the gateway, and the prefix length if that is not given,
    /// of the configured address whose network contains it.
    fn requested(key: &str, ip: RequestedAddress, configured: &[Self]) -> Result<Self, String> {
        let contains = |it: &&Self| it.address.contains(ip.ip());
        let nearest = configured.iter().filter(contains).max_by_key(|it| it.address.prefix());
        let prefix = || Cidr::new(ip.ip(), nearest?.address.prefix());
        let address = ip.cidr().or_else(prefix).ok_or_else(|| {
            format!(
                "{} has no prefix length, and is in no network of ipam.addresses; add the length, \
                 such as {}",
                ip.ip(),
                Cidr::host(ip.ip())
            )
        })?;
        Ok(Self { key: key.to_owned(), address, gateway: nearest.and_then(|it| it.gateway) })
    }

    /// Refuses an address or a gateway that no host can have.
    fn refuse_reserved(&self) -> Result<(), Error> {
        let refused = |what: &str, ip: IpAddr| {
            let why = self.address.why_not_for_hosts(ip)?;
            Some(Error::invalid_key(&self.key, format!("{what} {ip} is {why} and cannot be used")))
        };
        let gateway = || refused("gateway", self.gateway?);
        refused("address", self.address.ip()).or_else(gateway).map_or(Ok(()), Err)
    }

    /// The address as it is written in a result.
    #[must_use]
    pub fn ip_config(&self) -> IpConfig {
        IpConfig { interface: None, address: self.address, gateway: self.gateway }
    }
}

impl Config {
    /// Reads and validates all values. The addresses are those of `runtimeConfig` if there are any, otherwise
    /// those of `args.cni`, otherwise those of the configuration and of `CNI_ARGS`.
    ///
    /// Errors: code 7, naming the key; code 4 for `CNI_ARGS`.
    pub fn plan(&self, version: Version, args: &Args) -> Result<Plan, Error> {
        let ipam = self.ipam.clone().ok_or_else(|| Error::invalid_key("ipam", "is missing"))?;
        let configured = configured(&ipam.addresses)?;
        let mut addresses = configured.clone();
        addresses.extend(of_args(args, &configured)?);
        for (key, ips) in
            [("args.cni.ips", &self.args.cni.ips), ("runtimeConfig.ips", &self.runtime_config.ips)]
        {
            if !ips.is_empty() {
                addresses = requested(key, ips, &configured)?;
            }
        }
        for address in &addresses {
            address.refuse_reserved()?;
        }
        refuse_twice(&addresses)?;
        let families = addresses.iter().map(|it| (it.address.is_ipv4(), it.key.as_str()));
        Success::refuse_too_many(families, version)?;
        Ok(Plan { addresses, routes: ipam.routes, dns: ipam.dns.into() })
    }
}

fn configured(keys: &[AddressKeys]) -> Result<Vec<Address>, Error> {
    let address = |(at, keys): (usize, &AddressKeys)| {
        let &AddressKeys { address, gateway } = keys;
        let key = format!("ipam.addresses[{at}]");
        match gateway {
            Some(gateway) if gateway.is_ipv4() != address.is_ipv4() => Err(Error::invalid_key(
                &format!("{key}.gateway"),
                format!("{gateway} must have the same family as {address}"),
            )),
            _ => Ok(Address { key, address, gateway }),
        }
    };
    keys.iter().enumerate().map(address).collect()
}

fn requested(
    key: &str,
    ips: &[RequestedAddress],
    configured: &[Address],
) -> Result<Vec<Address>, Error> {
    let address = |(at, ip): (usize, &RequestedAddress)| {
        let key = format!("{key}[{at}]");
        Address::requested(&key, *ip, configured).map_err(|why| Error::invalid_key(&key, why))
    };
    ips.iter().enumerate().map(address).collect()
}

/// The addresses of `IP`, with the gateways of `GATEWAY`, each a list separated by commas. A gateway is for
/// the addresses whose network contains it. Other addresses have the configuration's gateway.
fn of_args(args: &Args, configured: &[Address]) -> Result<Vec<Address>, Error> {
    args.allow(&["IP", "GATEWAY"])?;
    let wrong = |why: String| Error::new(Code::InvalidEnvironment, format!("CNI_ARGS: {why}"));
    let list = |name| {
        let text = args.get(name).unwrap_or_default();
        let items = text.split(',').filter(|_| !text.is_empty());
        items.map(|item| item.trim().to_owned()).collect::<Vec<_>>()
    };
    let mut addresses = Vec::new();
    for text in list("IP") {
        let ip = text.parse().map_err(|error| wrong(format!("IP: {error}")))?;
        let address = Address::requested("IP of CNI_ARGS", ip, configured);
        addresses.push(address.map_err(|why| wrong(format!("IP: {why}")))?);
    }
    for text in list("GATEWAY") {
        let gateway: IpAddr =
            text.parse().map_err(|_| wrong(format!("GATEWAY: {text:?} is not a valid address")))?;
        let mut of_network =
            addresses.iter_mut().filter(|it| it.address.contains(gateway)).peekable();
        if of_network.peek().is_none() {
            return Err(wrong(format!(
                "GATEWAY: {gateway} is not in the network of an address of IP"
            )));
        }
        of_network.for_each(|it| it.gateway = Some(gateway));
    }
    Ok(addresses)
}

/// Refuses an address that is given twice, because an interface cannot have it twice.
fn refuse_twice(addresses: &[Address]) -> Result<(), Error> {
    for (at, one) in addresses.iter().enumerate() {
        let same = |other: &&Address| other.address.ip() == one.address.ip();
        if let Some(other) = addresses.iter().take(at).find(same) {
            let why = format!("{} is given twice, also by {}", one.address, other.key);
            return Err(Error::invalid_key(&one.key, why));
        }
    }
    Ok(())
}
