//! The configuration's keys, and the values that they set.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use cni::{Args, Error, Mac};
use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::backup::DEFAULT_DIR;
use crate::sysctl::{Name, Sysctl};
use crate::wanted::{LinkSettings, Wanted};

/// The plugin's own keys.
#[derive(Clone, Debug, Default, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct Config {
    /// The directory of the backups, an absolute path.
    #[cfg_attr(feature = "schema", schemars(extend("default" = DEFAULT_DIR)))]
    data_dir: PathBuf,
    /// Sysctls of the pod's namespace, with their values. `IFNAME` in a name is replaced by the interface's
    /// name.
    #[cfg_attr(feature = "schema", schemars(extend("propertyNames" = crate::sysctl::names())))]
    sysctl: BTreeMap<String, String>,
    /// The hardware address of the interface.
    #[cfg_attr(feature = "schema", schemars(with = "cni::schema::UnicastMac"))]
    mac: String,
    /// Whether the interface is promiscuous. If false, it is not changed.
    promisc: bool,
    /// The MTU of the interface in bytes. If 0, it is not changed.
    #[cfg_attr(feature = "schema", schemars(with = "cni::schema::Mtu"))]
    mtu: u32,
    /// The length of the interface's queue in packets.
    #[serde(rename = "txQLen")]
    tx_queue_len: Option<u32>,
    /// Whether the interface receives all multicast packets.
    allmulti: Option<bool>,
    /// The values that the runtime adds.
    runtime_config: RuntimeConfig,
    /// Arguments from the administrator.
    args: ArgsKeys,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
struct RuntimeConfig {
    /// The hardware address of the interface. Overrides the configuration's `mac`.
    #[cfg_attr(feature = "schema", schemars(with = "cni::schema::UnicastMac"))]
    mac: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
struct ArgsKeys {
    /// The arguments for plugins.
    cni: CniArgs,
}

/// The arguments for plugins. They override all other keys.
#[derive(Clone, Debug, Default, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
struct CniArgs {
    /// Additional sysctls.
    #[cfg_attr(feature = "schema", schemars(extend("propertyNames" = crate::sysctl::names())))]
    sysctl: BTreeMap<String, String>,
    /// The hardware address of the interface.
    #[cfg_attr(feature = "schema", schemars(with = "Option<cni::schema::UnicastMac>"))]
    mac: Option<String>,
    /// Whether the interface is promiscuous.
    promisc: Option<bool>,
    /// The MTU of the interface in bytes.
    #[cfg_attr(feature = "schema", schemars(with = "Option<cni::schema::Mtu>"))]
    mtu: Option<u32>,
    /// The length of the interface's queue in packets.
    #[serde(rename = "txQLen")]
    tx_queue_len: Option<u32>,
    /// Whether the interface receives all multicast packets.
    allmulti: Option<bool>,
}

impl Config {
    /// The directory of the backups.
    #[must_use]
    pub fn data_dir(&self) -> &Path {
        if self.data_dir.as_os_str().is_empty() { Path::new(DEFAULT_DIR) } else { &self.data_dir }
    }

    /// The values to set, on the interface `ifname`.
    ///
    /// Errors: code 7, naming the key; code 4 for `CNI_ARGS`.
    pub fn wanted(&self, args: &Args, ifname: &str) -> Result<Wanted, Error> {
        if !self.data_dir().is_absolute() {
            let why = format!("{} must be an absolute path", self.data_dir().display());
            return Err(Error::invalid_key("dataDir", why));
        }
        let cni = &self.args.cni;
        let mut sysctl = sysctls("sysctl", &self.sysctl, ifname)?;
        sysctl.extend(sysctls("args.cni.sysctl", &cni.sysctl, ifname)?);
        let (mtu_key, mtu) = cni.mtu.map_or(("mtu", self.mtu), |mtu| ("args.cni.mtu", mtu));
        let link = LinkSettings {
            mac: self.mac(args)?,
            promisc: cni.promisc.unwrap_or(self.promisc).then_some(true),
            mtu: attach::link::mtu(mtu_key, mtu)?,
            allmulti: cni.allmulti.or(self.allmulti),
            tx_queue_len: cni.tx_queue_len.or(self.tx_queue_len),
        };
        Ok(Wanted { sysctl, link })
    }

    /// The hardware address: that of `args.cni`, otherwise the runtime's, otherwise that of `CNI_ARGS`,
    /// otherwise the configuration's. An empty string in `args.cni` also overrides the others.
    fn mac(&self, args: &Args) -> Result<Option<Mac>, Error> {
        args.allow(&["MAC"])?;
        let given = |mac: &'_ str| Some(mac.to_owned()).filter(|mac| !mac.is_empty());
        let given_macs = [
            ("args.cni.mac", self.args.cni.mac.clone()),
            ("runtimeConfig.mac", given(&self.runtime_config.mac)),
            ("MAC of CNI_ARGS", args.get("MAC").and_then(given)),
            ("mac", given(&self.mac)),
        ];
        let first = given_macs.into_iter().find_map(|(from, mac)| mac.map(|mac| (from, mac)));
        let first = first.filter(|(_, mac)| !mac.is_empty());
        first.map(|(from, mac)| Mac::of_interface(from, &mac)).transpose()
    }
}

fn sysctls(
    key: &str,
    given: &BTreeMap<String, String>,
    ifname: &str,
) -> Result<BTreeMap<Name, Sysctl>, Error> {
    let mut sysctls: BTreeMap<Name, Sysctl> = BTreeMap::new();
    for (text, value) in given {
        let key = format!("{key}.{text}");
        let name =
            Name::of_config(text, ifname).map_err(|error| Error::invalid_key(&key, error))?;
        let sysctl = Sysctl { key: text.clone(), value: value.clone() };
        if let Some(other) = sysctls.insert(name, sysctl) {
            return Err(Error::invalid_key(&key, format!("is the same sysctl as {}", other.key)));
        }
    }
    Ok(sysctls)
}

/// Refuses a sysctl that is given twice with the same name. Reading JSON into a map would keep only one of
/// them.
///
/// Errors: code 7, naming the key.
pub(crate) fn refuse_names_given_twice(configuration: &[u8]) -> Result<(), Error> {
    #[derive(Deserialize)]
    struct Written {
        #[serde(default)]
        sysctl: Names,
    }
    // Other errors were reported when the configuration was read.
    let names = serde_json::from_slice::<Written>(configuration).map(|it| it.sysctl.0);
    let mut names = names.unwrap_or_default();
    names.sort_unstable();
    match names.iter().zip(names.iter().skip(1)).find(|(one, other)| one == other) {
        Some((name, _)) => Err(Error::invalid_key(&format!("sysctl.{name}"), "is given twice")),
        None => Ok(()),
    }
}

/// The keys of an object, including repeated ones.
#[derive(Default)]
struct Names(Vec<String>);

impl<'de> Deserialize<'de> for Names {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Keys;
        impl<'de> Visitor<'de> for Keys {
            type Value = Names;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Names, M::Error> {
                let mut names = Vec::new();
                while let Some((name, IgnoredAny)) = map.next_entry()? {
                    names.push(name);
                }
                Ok(Names(names))
            }
        }
        deserializer.deserialize_map(Keys)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn wanted(args: &str, keys: &Value) -> Result<Wanted, Error> {
        cni::json::read::<Config>(keys)?.wanted(&Args::parse(args), "eth0")
    }

    #[track_caller]
    fn mac(args: &str, keys: &Value) -> String {
        let mac = wanted(args, keys).unwrap().link.mac;
        mac.map_or("none".to_owned(), |mac| mac.to_string())
    }

    #[track_caller]
    fn refused(args: &str, keys: &Value, mentions: &str) {
        let error = wanted(args, keys).unwrap_err();
        assert!(error.msg.contains(mentions), "{error}");
    }

    #[test]
    fn nothing_is_changed_by_default() {
        assert!(wanted("", &json!({})).unwrap().is_empty());
        let nothing = json!({"mtu": 0, "mac": "", "promisc": false, "sysctl": {}, "dataDir": ""});
        assert!(wanted("MAC=", &nothing).unwrap().is_empty());
        let config: Config = cni::json::read(&nothing).unwrap();
        assert_eq!(config.data_dir(), Path::new("/run/cni/tuning"));
        let off = wanted("", &json!({"allmulti": false, "txQLen": 0})).unwrap().link;
        assert_eq!((off.allmulti, off.tx_queue_len), (Some(false), Some(0)));
    }

    #[test]
    fn the_order_of_the_hardware_addresses() {
        let [a, b, c, d] = [1, 2, 3, 4].map(|n| format!("02:00:00:00:00:0{n}"));
        let args = format!("MAC={b}");
        assert_eq!(mac("", &json!({"mac": a})), a);
        assert_eq!(mac(&args, &json!({"mac": a})), b);
        let runtime = json!({"mac": c});
        assert_eq!(mac(&args, &json!({"mac": a, "runtimeConfig": runtime})), c);
        let all = json!({"mac": a, "runtimeConfig": runtime, "args": {"cni": {"mac": d}}});
        assert_eq!(mac(&args, &all), d);
        let cleared = json!({"mac": a, "args": {"cni": {"mac": ""}}});
        assert_eq!(mac(&args, &cleared), "none");
        assert_eq!(mac("", &json!({"mac": "02-00-00-00-00-0A"})), "02:00:00:00:00:0a");
    }

    #[test]
    fn args_override_the_configuration() {
        let config = json!({
            "mtu": 1400, "promisc": true, "allmulti": true, "txQLen": 5,
            "sysctl": {"net.core.somaxconn": "500", "net.ipv4.conf.IFNAME.arp_notify": "1"},
            "args": {"cni": {
                "mtu": 1300, "promisc": false, "allmulti": false, "txQLen": 6,
                "sysctl": {"net/core/somaxconn": "600"},
            }},
        });
        let Wanted { sysctl, link } = wanted("", &config).unwrap();
        let expected = LinkSettings {
            mtu: Some(1300),
            allmulti: Some(false),
            tx_queue_len: Some(6),
            ..LinkSettings::default()
        };
        assert_eq!(link, expected);
        let sysctl = sysctl.iter().map(|(name, it)| format!("{name}={}", it.value));
        assert_eq!(
            sysctl.collect::<Vec<_>>(),
            ["net/core/somaxconn=600", "net/ipv4/conf/eth0/arp_notify=1"]
        );
    }

    #[test]
    fn wrong_values_are_named() {
        for mtu in [json!(67), json!(65536), json!(-1), json!("1500")] {
            refused("", &json!({"mtu": mtu}), "\"mtu\"");
        }
        refused("", &json!({"args": {"cni": {"mtu": 1}}}), "\"args.cni.mtu\"");
        refused("", &json!({"mac": "02:00"}), "\"mac\"");
        refused("", &json!({"runtimeConfig": {"mac": "x"}}), "\"runtimeConfig.mac\"");
        refused("", &json!({"args": {"cni": {"mac": "01:00:5e:00:00:01"}}}), "a group address");
        refused("MAC=x", &json!({}), "MAC of CNI_ARGS");
        refused("IP=1.2.3.4", &json!({}), "IP");
        refused("", &json!({"dataDir": "run/tuning"}), "\"dataDir\"");
        refused("", &json!({"txQLen": -1}), "\"txQLen\"");
        refused("", &json!({"allmulti": "yes"}), "\"allmulti\"");
        refused("", &json!({"sysctl": {"net.core.somaxconn": 500}}), "sysctl.net.core.somaxconn");
        refused("", &json!({"sysctl": {"kernel.pid_max": "1"}}), "\"sysctl.kernel.pid_max\"");
        let twice =
            json!({"net.ipv4.conf.IFNAME.arp_notify": "1", "net/ipv4/conf/eth0/arp_notify": "0"});
        refused("", &json!({"sysctl": twice}), "the same sysctl as net.ipv4.conf.IFNAME");
    }

    #[test]
    fn the_same_name_twice() {
        let twice =
            br#"{"sysctl": {"net.core.somaxconn": "1", "net.a": "2", "net.core.somaxconn": "3"}}"#;
        let error = refuse_names_given_twice(twice).unwrap_err();
        assert!(error.msg.contains("\"sysctl.net.core.somaxconn\""), "{error}");
        for good in [r#"{"sysctl": {"net.a": "1", "net.b": "1"}}"#, "{}", r#"{"sysctl": 5}"#] {
            refuse_names_given_twice(good.as_bytes()).unwrap();
        }
    }
}
