//! What the result tells of the pod.

use std::net::IpAddr;

use cni::{Call, Success};

use crate::config::{Config, Isolation, Settings};
use crate::error::Error;

/// What the rules are about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pod {
    /// Each once.
    pub(crate) addresses: Vec<IpAddr>,
    /// The bridge that is to be kept apart, and from what.
    pub(crate) bridge: Option<(String, Isolation)>,
}

impl Pod {
    pub(crate) fn of(
        call: &Call<Config>,
        result: &Success,
        settings: &Settings,
    ) -> Result<Self, Error> {
        let bridge = settings.isolation.map(|isolation| {
            // The plugin `bridge` puts its bridge first.
            let first = result.interfaces.first().filter(|it| it.sandbox.is_empty());
            let name = first.map(|it| it.name.clone()).filter(|name| is_plain(name));
            name.map(|name| (name, isolation)).ok_or(Error::NoBridge { policy: isolation.name() })
        });
        Ok(Self { addresses: addresses(call, result), bridge: bridge.transpose()? })
    }
}

/// The addresses on the pod's interface, as far as the result says where they are.
pub(crate) fn addresses(call: &Call<Config>, result: &Success) -> Vec<IpAddr> {
    let mut all = Vec::new();
    for ip in result.ips_of(call.ifname().as_str()) {
        let address = ip.address.ip();
        if !all.contains(&address) {
            all.push(address);
        }
    }
    all
}

/// Whether a rule with this name is about that interface and no other: a final `+` would stand for many.
fn is_plain(name: &str) -> bool {
    name.parse::<cni::IfName>().is_ok() && !name.ends_with('+')
}
