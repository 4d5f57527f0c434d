//! The `ipam` section of a network's configuration, and what a command makes of it.

use std::net::IpAddr;
use std::path::PathBuf;

use cni::{Args, Cidr, Code, Error, Route, Version, json};
use serde::{Deserialize, Deserializer, de};
use serde_json::Value;

use crate::ranges::{Range, RangeSet};

/// Where leases are kept if `ipam.dataDir` does not say.
pub const DEFAULT_DATA_DIR: &str = "/var/lib/cni/networks";

/// The configuration as it came.
///
/// It is read in two steps, because a DEL or a GC has to free addresses even if somebody has
/// broken the ranges meanwhile: these two need [`Config::data_dir`] and no more.
#[derive(Clone, Debug, Deserialize)]
#[serde(transparent)]
pub struct Config(Value);

/// What an ADD, a CHECK or a STATUS is about, everything validated.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The sets: an attachment gets one address of each.
    pub sets: Vec<NamedSet>,
    /// The routes of the result, as they stand in the configuration.
    pub routes: Vec<Route>,
    /// The file to read name resolution from.
    pub resolv_conf: Option<PathBuf>,
    /// Whether leases from before the last boot may be given to others when a set is exhausted.
    pub reclaim_after_reboot: bool,
}

/// A set, and what the attachment wants of it.
#[derive(Clone, Debug)]
pub struct NamedSet {
    /// The key that it comes from, for messages: `ipam.ranges[0]`.
    pub key: String,
    /// The ranges.
    pub set: RangeSet,
    /// The address that the runtime asks for.
    pub requested: Option<IpAddr>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Keys {
    ipam: IpamKeys,
    runtime_config: RuntimeKeys,
    args: ArgsKeys,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct IpamKeys {
    subnet: Option<Cidr>,
    #[serde(deserialize_with = "cni::address_or_nothing")]
    range_start: Option<IpAddr>,
    #[serde(deserialize_with = "cni::address_or_nothing")]
    range_end: Option<IpAddr>,
    #[serde(deserialize_with = "cni::address_or_nothing")]
    gateway: Option<IpAddr>,
    ranges: Vec<Vec<RangeKeys>>,
    routes: Vec<Route>,
    resolv_conf: PathBuf,
    reclaim_after_reboot: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RangeKeys {
    subnet: Cidr,
    #[serde(default, deserialize_with = "cni::address_or_nothing")]
    range_start: Option<IpAddr>,
    #[serde(default, deserialize_with = "cni::address_or_nothing")]
    range_end: Option<IpAddr>,
    #[serde(default, deserialize_with = "cni::address_or_nothing")]
    gateway: Option<IpAddr>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RuntimeKeys {
    #[serde(rename = "ipRanges")]
    ip_ranges: Vec<Vec<RangeKeys>>,
    ips: Vec<RequestedAddress>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ArgsKeys {
    cni: CniArgsKeys,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct CniArgsKeys {
    ips: Vec<RequestedAddress>,
}

/// An address that a runtime asks for; it may bring a prefix, which the subnet knows better.
struct RequestedAddress(IpAddr);

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
        }
    }
}

impl Config {
    /// The directory below which every network has its own.
    ///
    /// Errors: code 7 if it is no text.
    pub fn data_dir(&self) -> Result<PathBuf, Error> {
        match json::get(&self.0, "ipam").and_then(|ipam| json::get(ipam, "dataDir")) {
            None => Ok(DEFAULT_DATA_DIR.into()),
            Some(Value::String(dir)) if dir.is_empty() => Ok(DEFAULT_DATA_DIR.into()),
            Some(Value::String(dir)) => Ok(dir.into()),
            Some(_) => Err(Error::invalid_key("ipam.dataDir", "is not a text")),
        }
    }

    /// Reads and checks everything.
    ///
    /// Errors: code 7, naming the key; code 4 for `CNI_ARGS`.
    pub fn plan(&self, version: Version, args: &Args) -> Result<Plan, Error> {
        let keys: Keys = json::read(&self.0)?;
        self.data_dir()?;
        let mut requested = requested_by_args(args)?.into_iter().collect::<Vec<_>>();
        requested.extend(keys.args.cni.ips.iter().map(|ip| ip.0));
        requested.extend(keys.runtime_config.ips.iter().map(|ip| ip.0));

        let mut sets = sets(&keys.ipam, &keys.runtime_config)?;
        version.has_room_for(sets.iter().map(|named| (named.set.is_ipv4(), named.key.as_str())))?;
        assign(requested, &mut sets)?;
        let IpamKeys { routes, resolv_conf, reclaim_after_reboot, .. } = keys.ipam;
        let resolv_conf = Some(resolv_conf).filter(|path| !path.as_os_str().is_empty());
        Ok(Plan { sets, routes, resolv_conf, reclaim_after_reboot })
    }
}

impl RangeKeys {
    fn range(&self, key: &str) -> Result<Range, Error> {
        Range::new(self.subnet, self.range_start, self.range_end, self.gateway)
            .map_err(|error| Error::invalid_key(&format!("{key}.{}", error.key()), error))
    }
}

/// The sets in the reference plugin's order, which numbers the `last_reserved_ip` files: those of
/// the runtime, the one of the old style, the others.
fn sets(ipam: &IpamKeys, runtime: &RuntimeKeys) -> Result<Vec<NamedSet>, Error> {
    let mut sets = Vec::new();
    let mut add = |key: String, ranges: Result<Vec<Range>, Error>| {
        let set = RangeSet::new(ranges?).map_err(|error| Error::invalid_key(&key, error))?;
        sets.push(NamedSet { key, set, requested: None });
        Ok::<_, Error>(())
    };
    let list = |key: &str, ranges: &[RangeKeys]| {
        let ranges = ranges.iter().enumerate();
        ranges.map(|(at, range)| range.range(&format!("{key}[{at}]"))).collect()
    };
    for (at, ranges) in runtime.ip_ranges.iter().enumerate() {
        let key = format!("runtimeConfig.ipRanges[{at}]");
        let ranges = list(&key, ranges);
        add(key, ranges)?;
    }
    if let Some(subnet) = ipam.subnet {
        let (range_start, range_end) = (ipam.range_start, ipam.range_end);
        let range = RangeKeys { subnet, range_start, range_end, gateway: ipam.gateway };
        add("ipam".into(), range.range("ipam").map(|range| vec![range]))?;
    }
    for (at, ranges) in ipam.ranges.iter().enumerate() {
        let key = format!("ipam.ranges[{at}]");
        let ranges = list(&key, ranges);
        add(key, ranges)?;
    }
    if sets.is_empty() {
        return Err(Error::invalid_key(
            "ipam.ranges",
            "no range to hand out addresses of; the shortest one is [[{\"subnet\": \"10.88.0.0/16\"}]]",
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

/// Gives each requested address to the set that it is of, one a set.
fn assign(requested: Vec<IpAddr>, sets: &mut [NamedSet]) -> Result<(), Error> {
    for ip in requested {
        let Some(named) = sets.iter_mut().find(|named| named.set.contains(ip)) else {
            let known: Vec<String> = sets.iter().map(|named| named.set.to_string()).collect();
            let known = known.join(" and ");
            return Err(refused(ip, format!("is in none of the ranges, which are {known}")));
        };
        if named.set.range_of(ip).is_some_and(|range| range.gateway() == ip) {
            return Err(refused(ip, "is the gateway"));
        }
        match named.requested.replace(ip) {
            Some(other) if other != ip => {
                return Err(refused(
                    ip,
                    format!("is of the same set as {other}, and an attachment gets one of each"),
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

/// The address that `CNI_ARGS` asks for.
fn requested_by_args(args: &Args) -> Result<Option<IpAddr>, Error> {
    args.allow(&["IP"])?;
    let Some(text) = args.get("IP").filter(|text| !text.is_empty()) else {
        return Ok(None);
    };
    requested_address(text).map(Some).ok_or_else(|| {
        Error::new(Code::InvalidEnvironment, format!("CNI_ARGS: IP={text} is no address"))
    })
}

fn requested_address(text: &str) -> Option<IpAddr> {
    let address = match text.parse::<Cidr>() {
        Ok(cidr) => cidr.ip(),
        Err(_) => text.parse().ok()?,
    };
    Some(address.to_canonical())
}

impl<'de> Deserialize<'de> for RequestedAddress {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let wrong = || {
            de::Error::custom(format!("{text:?} is no address, with or without a prefix length"))
        };
        requested_address(&text).map(Self).ok_or_else(wrong)
    }
}

#[cfg(test)]
mod tests;
