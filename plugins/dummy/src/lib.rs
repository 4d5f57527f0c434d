//! Gives the pod a dummy device: an interface with addresses that drops all packets.

use attach::{Driver, Pod, Single, ipam, single};
use cni::{Environment, Network};
use kernel::rtnl::{Kind, NewLink};
use serde::Deserialize;

/// The plugin.
pub type Dummy = Single<Device>;

/// What differs from other plugins that put one link into the pod.
#[derive(Clone, Copy, Debug, Default)]
pub struct Device;

/// The keys of `dummy`: none but the common ones.
#[derive(Clone, Copy, Debug, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(transform = ipam::require_in_schema))]
pub struct Config {}

impl Driver for Device {
    const NAME: &'static str = "dummy";
    type Config = Config;
    type Settings = ();

    fn settings(
        &self,
        network: &Network<Config>,
        _environment: Option<&Environment>,
    ) -> Result<(), cni::Error> {
        ipam::require(network, "an interface of dummy has no other use than its addresses")
    }

    fn new_link<'a>(
        &self,
        (): &'a (),
        _pod: &'a Pod,
        ifname: &'a str,
    ) -> Result<NewLink<'a>, cni::Error> {
        Ok(NewLink::new(ifname, Kind::Dummy))
    }

    fn status(&self, (): &()) -> Result<(), cni::Error> {
        Ok(single::require_kind(Kind::Dummy)?)
    }
}

#[cfg(test)]
mod tests {
    use cni::{Code, Command, Plugin, Version};
    use serde_json::{Value, json};

    use super::*;

    fn validate(ipam: &Value) -> Result<(), cni::Error> {
        let stdin = json!({"name": "n", "ipam": ipam}).to_string().into_bytes();
        let network = Network::read(Command::Add, stdin, Version::V1_1_0, Vec::new())?;
        Dummy::default().settings(&network, None)
    }

    #[test]
    fn ipam_is_required() {
        validate(&json!({"type": "static"})).unwrap();
        for ipam in [json!(null), json!({}), json!({"type": "dummy"})] {
            let error = validate(&ipam).unwrap_err();
            assert_eq!(error.code, Code::InvalidConfig, "{ipam}: {error}");
            assert!(error.msg.contains("\"ipam"), "{ipam}: {error}");
        }
    }
}
