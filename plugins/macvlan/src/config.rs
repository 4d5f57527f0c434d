//! The configuration of `macvlan`, and the values that it refuses.

use cni::{DnsKeys, Environment, Error, IfName, Mac};
use kernel::rtnl::MacvlanMode;
use serde::Deserialize;

/// The keys of `macvlan`.
#[derive(Clone, Debug, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Config {
    /// The link that the interface is made on; by default, the link of the default route.
    #[serde(default)]
    #[cfg_attr(feature = "schema", schemars(with = "Option<IfName>"))]
    master: String,
    /// What the interface can reach on this link, besides its network.
    #[serde(default)]
    #[cfg_attr(feature = "schema", schemars(extend("default" = "bridge")))]
    mode: Mode,
    /// The MTU of the interface, in bytes; 0 for that of `master`.
    #[serde(default)]
    #[cfg_attr(feature = "schema", schemars(with = "cni::schema::Mtu"))]
    mtu: u32,
    /// The hardware address of the interface; by default, a random one.
    #[serde(default)]
    #[cfg_attr(feature = "schema", schemars(with = "Option<cni::schema::UnicastMac>"))]
    mac: Option<String>,
    /// Whether `master` is a link of the pod.
    #[serde(default)]
    link_in_container: bool,
    /// The length of the queue of `master` for broadcast and multicast packets; 0 for the kernel's default.
    #[serde(default)]
    bcqueuelen: u32,
    /// Name resolution; replaces what the IPAM plugin says.
    #[serde(default)]
    pub(crate) dns: DnsKeys,
    /// What the runtime sets.
    #[serde(default)]
    runtime_config: RuntimeConfig,
}

/// The modes.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
enum Mode {
    /// The other interfaces on `master` that have this mode.
    #[default]
    #[serde(alias = "")]
    Bridge,
    /// No other interface on `master`.
    Private,
    /// The other interfaces on `master`, if the switch sends their frames back.
    Vepa,
    /// The interface is the only one on `master`.
    Passthru,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
struct RuntimeConfig {
    /// The hardware address of the interface; preferred to all others.
    #[serde(default)]
    #[cfg_attr(feature = "schema", schemars(with = "Option<cni::schema::UnicastMac>"))]
    mac: Option<String>,
}

/// What the configuration and the variables mean.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The link that the interface is made on; `None` for that of the default route.
    pub(crate) master: Option<IfName>,
    /// Whether this is a link of the pod.
    pub(crate) in_pod: bool,
    /// The mode.
    pub(crate) mode: MacvlanMode,
    /// The MTU; `None` for that of the master.
    pub(crate) mtu: Option<u32>,
    /// The hardware address; `None` for a random one.
    pub(crate) mac: Option<Mac>,
    /// The length of the queue for broadcast packets; `None` for the kernel's default.
    pub(crate) bc_queue_len: Option<u32>,
}

impl Config {
    /// Errors: code 7 for a wrong value, 4 for wrong `CNI_ARGS`.
    pub(crate) fn settings(&self, environment: Option<&Environment>) -> Result<Settings, Error> {
        let master = Some(self.master.as_str()).filter(|name| !name.is_empty());
        let master = master.map(str::parse).transpose();
        let positive = |number: u32| Some(number).filter(|number| *number != 0);
        Ok(Settings {
            master: master.map_err(|why| Error::invalid_key("master", why))?,
            in_pod: self.link_in_container,
            mode: self.mode.into(),
            mtu: attach::link::mtu("mtu", self.mtu)?,
            mac: self.mac(environment)?,
            bc_queue_len: positive(self.bcqueuelen),
        })
    }

    /// The hardware address: that of `runtimeConfig`, else that of `CNI_ARGS`, else that of the key `mac`.
    fn mac(&self, environment: Option<&Environment>) -> Result<Option<Mac>, Error> {
        let args = Environment::args_of(environment);
        args.allow(&["MAC"])?;
        Mac::first_of([
            ("runtimeConfig.mac", self.runtime_config.mac.as_deref()),
            ("MAC of CNI_ARGS", args.get("MAC")),
            ("mac", self.mac.as_deref()),
        ])
    }
}

impl From<Mode> for MacvlanMode {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::Bridge => Self::Bridge,
            Mode::Private => Self::Private,
            Mode::Vepa => Self::Vepa,
            Mode::Passthru => Self::Passthru,
        }
    }
}
