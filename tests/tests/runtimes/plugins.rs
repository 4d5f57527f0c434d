//! The plugins that a runtime runs: ours, and the Go ones for what we do not have yet.

use tests::{Needs, Plugins};

/// All plugins that the suite's networks name.
pub(crate) const ALL: [&str; 9] = [
    "bandwidth",
    "bridge",
    "firewall",
    "host-local",
    "loopback",
    "portmap",
    "ptp",
    "static",
    "tuning",
];

/// Those that we may not have yet: the Go ones stand in for them.
const MAY_BE_MISSING: [&str; 1] = ["firewall"];

/// A directory of plugins, filled up from the Go ones.
#[derive(Clone, Debug)]
pub(crate) struct Mixture {
    first: Plugins,
}

impl Mixture {
    /// The plugins of `first`, and the Go ones where it has none.
    pub(crate) fn of(first: &Plugins) -> Self {
        Self { first: first.clone() }
    }

    /// What must be there.
    pub(crate) fn needs(first: &Plugins) -> Needs {
        let borrowed = Self::of(first).borrowed();
        let own: Vec<_> = ALL.into_iter().filter(|name| !borrowed.contains(name)).collect();
        Needs::plugins(first, &own).and(&Plugins::go(), &borrowed)
    }

    /// Whether this plugin is the Go one.
    pub(crate) fn is_go(&self, name: &str) -> bool {
        self.first == Plugins::go() || self.borrowed().contains(&name)
    }

    /// The names of those that are the Go ones for lack of our own.
    pub(crate) fn borrowed(&self) -> Vec<&'static str> {
        MAY_BE_MISSING.into_iter().filter(|name| !self.first.path(name).is_file()).collect()
    }

    /// A script that puts a recorder in front of each of them.
    pub(crate) fn install(&self) -> String {
        let recorder = env!("CARGO_BIN_EXE_recorder");
        let place = |name: &str| {
            let from = if self.is_go(name) { &Plugins::go() } else { &self.first };
            let real = from.path(name);
            format!("ln -s '{recorder}' bin/{name}; ln -s '{}' real/{name}\n", real.display())
        };
        let lines: String = ALL.into_iter().map(place).collect();
        format!("mkdir -p /run/plugins/bin /run/plugins/real; cd /run/plugins\n{lines}")
    }
}
