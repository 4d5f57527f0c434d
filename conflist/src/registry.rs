//! The plugins of the suite, each once: what it refuses. All else that runs them goes by their programs.

use cni::Plugin;

/// What is known of a plugin of the suite.
pub(crate) struct Entry {
    /// Its type.
    pub(crate) kind: &'static str,
    /// Finds the first value of a configuration that an ADD would refuse.
    pub(crate) validate: fn(Vec<u8>) -> Result<(), cni::Error>,
}

/// All of them.
const PLUGINS: [Entry; 9] = [
    entry(|it| cni::validate(&bandwidth::Bandwidth, it), bandwidth::Bandwidth::NAME),
    entry(|it| cni::validate(&bridge::Bridge, it), bridge::Bridge::NAME),
    entry(|it| cni::validate(&firewall::Firewall, it), firewall::Firewall::NAME),
    entry(|it| cni::validate(&host_local::HostLocal::default(), it), host_local::HostLocal::NAME),
    entry(|it| cni::validate(&loopback::Loopback, it), loopback::Loopback::NAME),
    entry(|it| cni::validate(&portmap::Portmap, it), portmap::Portmap::NAME),
    entry(|it| cni::validate(&ptp::Ptp, it), ptp::Ptp::NAME),
    entry(|it| cni::validate(&static_addresses::Static, it), static_addresses::Static::NAME),
    entry(|it| cni::validate(&tuning::Tuning::default(), it), tuning::Tuning::NAME),
];

const fn entry(validate: fn(Vec<u8>) -> Result<(), cni::Error>, kind: &'static str) -> Entry {
    Entry { kind, validate }
}

/// The plugin of a type; `None` if it is not of the suite.
pub(crate) fn plugin(kind: &str) -> Option<&'static Entry> {
    PLUGINS.iter().find(|plugin| plugin.kind == kind)
}
