//! The plugins, and the functions of their crates that `validate` and `purge` call. All other commands run
//! plugins as programs.

use cni::{Plugin, Purge};

/// A plugin of `plugins/registry.in`.
pub(crate) struct Entry {
    pub(crate) name: &'static str,
    /// What it does in a chain.
    pub(crate) kind: Kind,
    /// Returns the error of the first value of a configuration that an ADD would refuse.
    pub(crate) validate: fn(Vec<u8>) -> Result<(), cni::Error>,
    /// Removes everything that it made on the node.
    pub(crate) purge: fn(&mut Purge),
}

/// What a plugin does in a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(non_camel_case_types, reason = "the words of plugins/registry.in")]
pub(crate) enum Kind {
    /// It gives the pod an interface.
    interface,
    /// It changes what a plugin before it made, and cannot be the first.
    chained,
    /// It allocates addresses for another plugin, which names it as `ipam.type`.
    ipam,
}

macro_rules! plugins {
    ($($kind:ident $name:literal $type:ty,)*) => {
        /// All plugins, in the order of a purge.
        pub(crate) const PLUGINS: &[Entry] = &[$(entry::<$type>($name, Kind::$kind)),*];
    };
}
include!("../../plugins/registry.in");

const fn entry<P: Plugin + Default>(name: &'static str, kind: Kind) -> Entry {
    Entry {
        name,
        kind,
        validate: |configuration| cni::validate(&P::default(), configuration),
        purge: |purge| P::default().purge(purge),
    }
}

/// The plugin with this type; `None` if it is not in the registry.
pub(crate) fn plugin(name: &str) -> Option<&'static Entry> {
    PLUGINS.iter().find(|plugin| plugin.name == name)
}
