//! The configuration: the key `ipam`, and the values that the runtime adds.

use std::net::IpAddr;
use std::path::PathBuf;

use cni::{Args, Cidr, Code, Error, RequestedAddress, Route, Success, Version, json};
use serde::Deserialize;
use serde_json::Value;

use crate::ranges::{Gateways, Range, RangeSet};

/// The default of `ipam.dataDir`.
pub const DEFAULT_DATA_DIR: &str = "/var/lib/cni/networks";

/// The configuration, not yet validated.
///
/// DEL and GC must release addresses even if the ranges are not valid, so they only read
/// [`Config::data_dir`]. Other commands read [`Config::plan`].
#[derive(Clone, Debug, Deserialize)]
#[serde(transparent)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Config(#[cfg_attr(feature = "schema", schemars(with = "Keys"))] Value);

/// The validated values, for ADD, CHECK and STATUS.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The sets. An attachment gets one address of each.
    pub sets: Vec<NamedSet>,
    /// The routes of the result.
    pub routes: Vec<Route>,
    /// The file with the name resolution of the result.
    pub resolv_conf: Option<PathBuf>,
    /// Whether leases from before the last boot can be reused when a set is exhausted.
    pub reclaim_after_reboot: bool,
}

/// A set, and the address of it that is requested.
#[derive(Clone, Debug)]
pub struct NamedSet {
    /// The key of the set, for messages: `ipam.ranges[0]`.
    pub key: String,
    /// The ranges.
    pub set: RangeSet,
    /// The address that the runtime requests.
    pub requested: Option<IpAddr>,
}

#[derive(Default, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
struct Keys {
    /// The ranges and other settings.
    ipam: IpamKeys,
    /// The values that the runtime adds.
    runtime_config: RuntimeKeys,
    /// Arguments from the administrator.
    args: ArgsKeys,
}

#[derive(Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
struct IpamKeys {
    /// The network of an additional set with one range, in the old format.
    subnet: Option<Cidr>,
    /// The first address to assign. By default, the first address after the network's.
    #[serde(deserialize_with = "cni::address_or_nothing")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<cni::schema::Address>"))]
    range_start: Option<IpAddr>,
    /// The last address to assign. By default, the last address; in IPv4, the one before the broadcast
    /// address.
    #[serde(deserialize_with = "cni::address_or_nothing")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<cni::schema::Address>"))]
    range_end: Option<IpAddr>,
    /// The gateway of the result, which is never assigned. By default, the first address after the network's.
    #[serde(deserialize_with = "cni::address_or_nothing")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<cni::schema::Address>"))]
    gateway: Option<IpAddr>,
    /// The sets. An interface gets one address of each. The second range of a set is used when the first is
    /// full.
    #[cfg_attr(feature = "schema", schemars(inner(length(min = 1))))]
    ranges: Vec<Vec<RangeKeys>>,
    /// The routes of the result.
    routes: Vec<Route>,
    /// A file in the format of resolv.conf(5), for `dns` of the result.
    resolv_conf: PathBuf,
    /// Whether leases from before the last boot can be reused when a set is exhausted.
    reclaim_after_reboot: bool,
    /// The parent of the network's directory, an absolute path.
    #[cfg_attr(feature = "schema", schemars(extend("default" = DEFAULT_DATA_DIR)))]
    data_dir: PathBuf,
}

#[derive(Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
struct RangeKeys {
    /// The network of the range.
    subnet: Cidr,
    /// The first address to assign. By default, the first address after the network's.
    #[serde(default, deserialize_with = "cni::address_or_nothing")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<cni::schema::Address>"))]
    range_start: Option<IpAddr>,
    /// The last address to assign. By default, the last address; in IPv4, the one before the broadcast
    /// address.
    #[serde(default, deserialize_with = "cni::address_or_nothing")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<cni::schema::Address>"))]
    range_end: Option<IpAddr>,
    /// The gateway of the result, which is never assigned. By default, the first address after the network's.
    #[serde(default, deserialize_with = "cni::address_or_nothing")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<cni::schema::Address>"))]
    gateway: Option<IpAddr>,
}

#[derive(Default, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
struct RuntimeKeys {
    /// Sets before those of the configuration.
    #[serde(rename = "ipRanges")]
    #[cfg_attr(feature = "schema", schemars(inner(length(min = 1))))]
    ip_ranges: Vec<Vec<RangeKeys>>,
    /// Requested addresses, at most one of each set.
    #[cfg_attr(feature = "schema", schemars(with = "Vec<cni::schema::AddressOrCidr>"))]
    ips: Vec<RequestedAddress>,
}

#[derive(Default, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
struct ArgsKeys {
    /// The arguments for plugins.
    cni: CniArgsKeys,
}

#[derive(Default, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
struct CniArgsKeys {
    /// Requested addresses, at most one of each set.
    #[cfg_attr(feature = "schema", schemars(with = "Vec<cni::schema::AddressOrCidr>"))]
    ips: Vec<RequestedAddress>,
}

impl Default for IpamKeys {
    fn default() -> Self {
        Self {
            subnet: None,
            range_start: None,
            range_end: None,
            gateway: None,
            ranges: Vec::new(),
            routes: Vec::new(),
            resolv_conf: PathBuf::new(),
            reclaim_after_reboot: true,
            data_dir: PathBuf::new(),
        }
    }
}

impl Config {
    /// The parent of the networks' directories. A value that an ADD refuses is treated as absent, except a
    /// relative path, which an ADD of the reference plugin accepts.
    #[must_use]
    pub fn data_dir(&self) -> PathBuf {
        let dir = json::get(&self.0, "ipam").and_then(|ipam| json::get(ipam, "dataDir"));
        let dir = dir.and_then(Value::as_str).filter(|dir| !dir.is_empty() && !dir.contains('\0'));
        dir.unwrap_or(DEFAULT_DATA_DIR).into()
    }

    /// Reads and validates all values.
    ///
    /// Errors: code 7, naming the key; code 4 for `CNI_ARGS`.
    pub fn plan(&self, version: Version, args: &Args) -> Result<Plan, Error> {
        let keys: Keys = json::read(&self.0)?;
        let dir = &keys.ipam.data_dir;
        let has_zero = dir.as_os_str().as_encoded_bytes().contains(&0);
        if !dir.as_os_str().is_empty() && (dir.is_relative() || has_zero) {
            let why = format!("{} must be an absolute path without zero bytes", dir.display());
            return Err(Error::invalid_key("ipam.dataDir", why));
        }
        let mut requested = requested_by_args(args)?.into_iter().collect::<Vec<_>>();
        requested.extend(keys.args.cni.ips.iter().map(|ip| ip.ip()));
        requested.extend(keys.runtime_config.ips.iter().map(|ip| ip.ip()));

        let is_ptp = json::get(&self.0, "type").and_then(Value::as_str) == Some("ptp");
        let gateways = if is_ptp { Gateways::Anywhere } else { Gateways::OnLink };
        let mut sets = sets(&keys.ipam, &keys.runtime_config, gateways)?;
        let addresses = sets.iter().map(|named| (named.set.is_ipv4(), named.key.as_str()));
        Success::refuse_too_many(addresses, version)?;
        assign(requested, &mut sets)?;
        let IpamKeys { routes, resolv_conf, reclaim_after_reboot, .. } = keys.ipam;
        let resolv_conf = Some(resolv_conf).filter(|path| !path.as_os_str().is_empty());
        Ok(Plan { sets, routes, resolv_conf, reclaim_after_reboot })
    }
}

impl RangeKeys {
    /// The ranges of each set of a list, with the set's key.
    fn sets(
        key: &str,
        sets: &[Vec<Self>],
        gateways: Gateways,
    ) -> Result<Vec<(String, Vec<Range>)>, Error> {
        let set = |(at, ranges): (usize, &Vec<Self>)| {
            let key = format!("{key}[{at}]");
            let ranges = ranges.iter().enumerate();
            let ranges = ranges.map(|(at, range)| range.range(&format!("{key}[{at}]"), gateways));
            let ranges: Result<_, Error> = ranges.collect();
            ranges.map(|ranges| (key, ranges))
        };
        sets.iter().enumerate().map(set).collect()
    }

    fn range(&self, key: &str, gateways: Gateways) -> Result<Range, Error> {
        Range::new(self.subnet, self.range_start, self.range_end, self.gateway, gateways)
            .map_err(|error| Error::invalid_key(&format!("{key}.{}", error.key()), error))
    }
}

/// The sets in the reference plugin's order, because `last_reserved_ip` files have their numbers: those of
/// the runtime, the one in the old format, the others.
fn sets(
    ipam: &IpamKeys,
    runtime: &RuntimeKeys,
    gateways: Gateways,
) -> Result<Vec<NamedSet>, Error> {
    let mut named = RangeKeys::sets("runtimeConfig.ipRanges", &runtime.ip_ranges, gateways)?;
    if let Some(subnet) = ipam.subnet {
        let (range_start, range_end) = (ipam.range_start, ipam.range_end);
        let range = RangeKeys { subnet, range_start, range_end, gateway: ipam.gateway };
        named.push(("ipam".to_owned(), vec![range.range("ipam", gateways)?]));
    }
    named.extend(RangeKeys::sets("ipam.ranges", &ipam.ranges, gateways)?);

    // A gateway of one range can be an address of another one.
    let all = named.iter().flat_map(|(_, ranges)| ranges);
    let all: Vec<IpAddr> = all.map(Range::gateway).collect();
    let set = |(key, ranges)| match RangeSet::new(ranges, &all) {
        Ok(set) => Ok(NamedSet { key, set, requested: None }),
        Err(error) => Err(Error::invalid_key(&key, error)),
    };
    let sets: Vec<NamedSet> = named.into_iter().map(set).collect::<Result<_, _>>()?;
    if sets.is_empty() {
        return Err(Error::invalid_key(
            "ipam.ranges",
            "there is no range; set one, such as [[{\"subnet\": \"10.88.0.0/16\"}]]",
        ));
    }
    for (at, one) in sets.iter().enumerate() {
        if let Some(other) = sets.iter().take(at).find(|other| one.set.overlaps(&other.set)) {
            let why = format!("{} overlaps with {} of key {:?}", one.set, other.set, other.key);
            return Err(Error::invalid_key(&one.key, why));
        }
    }
    Ok(sets)
}

/// Assigns each requested address to its set, at most one to each set.
fn assign(requested: Vec<IpAddr>, sets: &mut [NamedSet]) -> Result<(), Error> {
    for ip in requested {
        let Some(named) = sets.iter_mut().find(|named| named.set.range_of(ip).is_some()) else {
            let known: Vec<String> = sets.iter().map(|named| named.set.to_string()).collect();
            let known = known.join(" and ");
            return Err(refused(ip, format!("is not in the ranges {known}")));
        };
        if !named.set.contains(ip) {
            let why =
                "is a gateway, a network's address or a broadcast address, which are not assigned";
            return Err(refused(ip, why));
        }
        match named.requested.replace(ip) {
            Some(other) if other != ip => {
                return Err(refused(
                    ip,
                    format!(
                        "is of the same set as {other}; an attachment gets one address of each set"
                    ),
                ));
            }
            _ => {}
        }
    }
    Ok(())
}

fn refused(ip: IpAddr, why: impl AsRef<str>) -> Error {
    Error::new(Code::InvalidConfig, format!("requested address {ip} {}", why.as_ref()))
}

/// The address that `CNI_ARGS` requests.
fn requested_by_args(args: &Args) -> Result<Option<IpAddr>, Error> {
    args.allow(&["IP"])?;
    let Some(text) = args.get("IP").filter(|text| !text.is_empty()) else {
        return Ok(None);
    };
    let address: Result<RequestedAddress, _> = text.parse();
    address
        .map(|address| Some(address.ip()))
        .map_err(|error| Error::new(Code::InvalidEnvironment, format!("CNI_ARGS: IP: {error}")))
}

#[cfg(test)]
mod tests;
