//! The VLANs of a bridge's ports: ADD sets them, and makes the bridge filter VLANs. CHECK compares them.

use std::collections::BTreeSet;

use kernel::Rtnl;
use kernel::rtnl::{Link, VlanRange};

use crate::config::Config;
use crate::error::{Error, changed, missing};
use crate::trunk::{VlanTrunk, id};

/// The VLANs of a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Vlans {
    /// The VLAN of untagged frames.
    native: u16,
    /// All VLANs, in as few ranges as possible, the native one first.
    ranges: Vec<VlanRange>,
    /// Whether the port stays in the VLAN that each new port of the bridge gets.
    preserve_default: bool,
}

/// The native VLAN of a trunk without `vlan`.
const DEFAULT_NATIVE: u16 = 1;

impl Vlans {
    /// The VLANs of the pods' ports; `None` if the configuration names none.
    pub(crate) fn of_pods(config: &Config) -> Option<Self> {
        let trunk: BTreeSet<u16> = config.vlan_trunk.iter().flat_map(VlanTrunk::ids).collect();
        let native = match id(config.vlan) {
            0 if trunk.is_empty() => return None,
            0 => DEFAULT_NATIVE,
            vlan => vlan,
        };
        Some(Self::new(native, &trunk, config))
    }

    /// The VLAN of the gateway's port; `None` if the bridge itself is the gateway.
    pub(crate) fn of_gateway(config: &Config) -> Option<Self> {
        match id(config.vlan) {
            0 => None,
            vlan => Some(Self::new(vlan, &BTreeSet::new(), config)),
        }
    }

    fn new(native: u16, trunk: &BTreeSet<u16>, config: &Config) -> Self {
        let mut ranges = vec![VlanRange::native(native)];
        for &id in trunk.iter().filter(|id| **id != native) {
            match ranges.last_mut() {
                Some(range) if !range.pvid && range.last + 1 == id => range.last = id,
                _ => ranges.push(VlanRange::tagged(id, id)),
            }
        }
        Self { native, ranges, preserve_default: config.preserve_default_vlan }
    }

    /// Whether the native VLAN is one of those of a port.
    pub(crate) fn is_native_of(&self, present: &[VlanRange]) -> bool {
        present.iter().any(|range| range.contains(self.native))
    }

    fn contains(&self, id: u16) -> bool {
        self.ranges.iter().any(|range| range.contains(id))
    }

    /// Adds a port of the bridge to the VLANs.
    pub(crate) fn give(&self, node: &Rtnl, port: &Link, bridge: &Link) -> Result<(), Error> {
        node.add_port_vlans(port.index, &self.ranges)?;
        let default = bridge.vlans.unwrap_or_default().default_pvid;
        if !self.preserve_default && default != 0 && !self.contains(default) {
            node.delete_port_vlan(port.index, default)?;
        }
        Ok(())
    }

    /// Finds a VLAN that is missing or was changed. Additional VLANs are not an error.
    pub(crate) fn compare(&self, node: &Rtnl, port: &Link) -> Result<(), Error> {
        let ports = node.port_vlans()?;
        let present = ports.into_iter().find(|it| it.port == port.index);
        self.compare_with(&present.map(|it| it.ranges).unwrap_or_default(), &port.name)
    }

    fn compare_with(&self, present: &[VlanRange], port: &str) -> Result<(), Error> {
        for id in self.ranges.iter().flat_map(|range| range.first..=range.last) {
            let Some(range) = present.iter().find(|range| range.contains(id)) else {
                return Err(missing(format!("VLAN {id} of link {port}")));
            };
            if id == self.native && !(range.pvid && range.untagged) {
                return Err(changed(format!("VLAN {id} of link {port}"), "is tagged"));
            }
            if id != self.native && (range.pvid || range.untagged) {
                return Err(changed(format!("VLAN {id} of link {port}"), "is untagged"));
            }
        }
        Ok(())
    }
}

/// Whether the network needs a bridge that filters VLANs.
pub(crate) fn are_wanted(config: &Config) -> bool {
    config.vlan != 0 || !config.vlan_trunk.is_empty()
}

/// Refuses VLANs before anything is made if the kernel does not support them.
pub(crate) fn require(config: &Config, node: &Rtnl) -> Result<(), Error> {
    if are_wanted(config) && !node.has_bridge_vlans()? {
        return Err(Error::NoVlans);
    }
    Ok(())
}

/// Makes a bridge filter VLANs that does not filter them yet.
pub(crate) fn filter(config: &Config, node: &Rtnl, bridge: &Link) -> Result<(), Error> {
    if are_wanted(config) && !bridge.vlans.unwrap_or_default().filtering {
        node.filter_vlans(bridge.index)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn config(keys: &Value) -> Config {
        serde_json::from_value(keys.clone()).unwrap()
    }

    #[track_caller]
    fn check(keys: &Value, expected: &[VlanRange]) {
        let vlans = Vlans::of_pods(&config(keys));
        assert_eq!(vlans.map(|it| it.ranges).unwrap_or_default(), expected, "{keys}");
    }

    #[test]
    fn vlans_of_a_pod() {
        let (native, tagged) = (VlanRange::native, VlanRange::tagged);
        check(&json!({}), &[]);
        check(&json!({"vlanTrunk": [{}]}), &[]);
        check(&json!({"vlan": 100}), &[native(100)]);
        check(
            &json!({"vlanTrunk": [{"id": 200}, {"minID": 100, "maxID": 102}]}),
            &[native(1), tagged(100, 102), tagged(200, 200)],
        );
        check(
            &json!({"vlan": 101, "vlanTrunk": [{"minID": 100, "maxID": 103, "id": 104}]}),
            &[native(101), tagged(100, 100), tagged(102, 104)],
        );
        check(&json!({"vlanTrunk": [{"id": 1}]}), &[native(1)]);
    }

    #[test]
    fn what_check_finds() {
        let keys = json!({"vlan": 100, "vlanTrunk": [{"minID": 200, "maxID": 202}]});
        let vlans = Vlans::of_pods(&config(&keys)).unwrap();
        let (native, tagged) = (VlanRange::native, VlanRange::tagged);
        let found = |present: &[VlanRange]| {
            vlans.compare_with(present, "veth0").err().map(|error| error.to_string())
        };
        let says = |text: &str| Some(format!("VLAN {text}"));
        assert_eq!(found(&[tagged(150, 300), native(100)]), None);
        assert_eq!(found(&[native(100), tagged(200, 201)]), says("202 of link veth0 is missing"));
        assert_eq!(found(&[tagged(200, 202)]), says("100 of link veth0 is missing"));
        assert_eq!(found(&[tagged(100, 202)]), says("100 of link veth0 is tagged"));
        let untagged = VlanRange { untagged: true, ..tagged(201, 202) };
        assert_eq!(
            found(&[native(100), tagged(200, 200), untagged]),
            says("201 of link veth0 is untagged")
        );
    }

    proptest! {
        #[test]
        fn ranges_hold_each_vlan_once(
            vlan in 0i32..=4094,
            trunk in proptest::collection::vec((1i32..=40, 0i32..=40, proptest::option::of(1i32..=99)), 1..5),
        ) {
            let entries: Vec<Value> = trunk.iter()
                .map(|(min, more, id)| json!({"minID": min, "maxID": min + more, "id": id}))
                .collect();
            let vlans = Vlans::of_pods(&config(&json!({"vlan": vlan, "vlanTrunk": entries}))).unwrap();
            let mut wanted: BTreeSet<u16> = trunk.iter()
                .flat_map(|(min, more, other)| (*min..=min + more).chain(*other).map(id))
                .collect();
            wanted.insert(id(vlan.max(1)));
            let made: Vec<u16> =
                vlans.ranges.iter().flat_map(|range| range.first..=range.last).collect();
            prop_assert_eq!(made.len(), wanted.len());
            prop_assert_eq!(made.into_iter().collect::<BTreeSet<_>>(), wanted);
        }
    }
}
