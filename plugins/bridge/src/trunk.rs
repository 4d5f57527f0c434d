//! The values of `vlan` and `vlanTrunk`.

use std::ops::RangeInclusive;

use cni::Error;
use serde::Deserialize;

/// VLANs of a port: a range, a single one, or both.
#[derive(Clone, Copy, Debug, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct VlanTrunk {
    /// The first VLAN of a range.
    #[serde(default, rename = "minID")]
    #[cfg_attr(feature = "schema", schemars(range(min = 1, max = 4094)))]
    pub min_id: Option<i32>,
    /// The last VLAN of a range.
    #[serde(default, rename = "maxID")]
    #[cfg_attr(feature = "schema", schemars(range(min = 1, max = 4094)))]
    pub max_id: Option<i32>,
    /// A single VLAN.
    #[serde(default)]
    #[cfg_attr(feature = "schema", schemars(range(min = 1, max = 4094)))]
    pub id: Option<i32>,
}

impl VlanTrunk {
    /// The VLANs of one entry.
    pub(crate) fn ids(&self) -> impl Iterator<Item = u16> {
        let range = self.min_id.zip(self.max_id).map(|(min, max)| id(min)..=id(max));
        range.into_iter().flatten().chain(self.id.map(id))
    }

    /// Refuses numbers that are not VLANs. `key` is the key of the entry.
    fn validate(&self, key: &str) -> Result<(), Error> {
        const ONE: RangeInclusive<i32> = 1..=4094;
        let key = |name: &str| format!("{key}.{name}");
        match (self.min_id, self.max_id) {
            (None, None) => {}
            (Some(min), Some(max)) => {
                within(&key("minID"), ONE, min)?;
                within(&key("maxID"), ONE, max)?;
                if min > max {
                    return Err(Error::invalid_key(&key("minID"), "is greater than maxID"));
                }
            }
            (None, Some(_)) => return Err(Error::invalid_key(&key("minID"), "is missing")),
            (Some(_), None) => return Err(Error::invalid_key(&key("maxID"), "is missing")),
        }
        self.id.map_or(Ok(()), |id| within(&key("id"), ONE, id))
    }
}

/// Refuses numbers that are not VLANs.
pub(crate) fn validate(vlan: i32, trunk: &[VlanTrunk]) -> Result<(), Error> {
    within("vlan", 0..=4094, vlan)?;
    let mut entries = trunk.iter().enumerate();
    entries.try_for_each(|(index, entry)| entry.validate(&format!("vlanTrunk[{index}]")))
}

/// The VLAN of a number that [`validate`] accepts.
pub(crate) fn id(number: i32) -> u16 {
    u16::try_from(number).unwrap_or_default()
}

fn within(key: &str, vlans: RangeInclusive<i32>, id: i32) -> Result<(), Error> {
    if vlans.contains(&id) {
        return Ok(());
    }
    let (first, last) = vlans.into_inner();
    Err(Error::invalid_key(key, format!("{id} must be between {first} and {last}")))
}
