//! The plugins of the suite, each once: what it refuses, and how it removes what it made. All else that runs
//! plugins goes by their programs.

use cni::{Plugin, Purge};

/// What is known of a plugin of the suite.
pub(crate) struct Entry {
    /// Its type.
    pub(crate) kind: &'static str,
    /// Finds the first value of a configuration that an ADD would refuse.
    pub(crate) validate: fn(Vec<u8>) -> Result<(), cni::Error>,
    /// Removes what it made on the node.
    pub(crate) purge: fn(&mut Purge),
}

/// All of them, in the order of a purge: what leads packets to pods comes before pods' interfaces, and these
/// before their addresses.
pub(crate) const PLUGINS: [Entry; 9] = [
    entry(portmap::Portmap::NAME, |it| cni::validate(&portmap::Portmap, it), nothing),
    entry(firewall::Firewall::NAME, |it| cni::validate(&firewall::Firewall, it), nothing),
    entry(
        bandwidth::Bandwidth::NAME,
        |it| cni::validate(&bandwidth::Bandwidth, it),
        bandwidth::purge,
    ),
    entry(tuning::Tuning::NAME, |it| cni::validate(&tuning::Tuning::default(), it), tuning::purge),
    entry(bridge::Bridge::NAME, |it| cni::validate(&bridge::Bridge, it), bridge::purge),
    // What it makes has the form of what bridge makes, and goes with that.
    entry(ptp::Ptp::NAME, |it| cni::validate(&ptp::Ptp, it), nothing),
    entry(loopback::Loopback::NAME, |it| cni::validate(&loopback::Loopback, it), nothing),
    entry(
        host_local::HostLocal::NAME,
        |it| cni::validate(&host_local::HostLocal::default(), it),
        |purge| host_local::HostLocal::default().purge(purge),
    ),
    entry(
        static_addresses::Static::NAME,
        |it| cni::validate(&static_addresses::Static, it),
        nothing,
    ),
];

const fn entry(
    kind: &'static str,
    validate: fn(Vec<u8>) -> Result<(), cni::Error>,
    purge: fn(&mut Purge),
) -> Entry {
    Entry { kind, validate, purge }
}

/// Of a plugin that leaves nothing on the node.
fn nothing(_: &mut Purge) {}

/// The plugin of a type; `None` if it is not of the suite.
pub(crate) fn plugin(kind: &str) -> Option<&'static Entry> {
    PLUGINS.iter().find(|plugin| plugin.kind == kind)
}
