//! The pod's veth pair, whose node's end is a port of the bridge. It does not depend on addresses, so ADD
//! makes it while the IPAM plugin runs.

use attach::{HostEnd, Pod, VethOptions, VethPair};
use cni::{Call, Mac, Undo};
use kernel::Rtnl;
use kernel::rtnl::{BridgePort, Link, LinkChange};

use crate::config::Config;
use crate::device;
use crate::error::{Error, changed};
use crate::vlans::Vlans;

/// A pod that is connected. Its interface is still down.
#[derive(Debug)]
pub(crate) struct Connection {
    /// The bridge.
    pub(crate) bridge: Link,
    /// The pair.
    pub(crate) pair: VethPair,
}

impl Connection {
    /// Connects the pod, and makes the bridge if it is not there.
    pub(crate) fn make<'a>(
        call: &'a Call<Config>,
        node: &'a Rtnl,
        pod: &Pod,
        mac: Option<Mac>,
        undo: &mut Undo<'a>,
    ) -> Result<Self, Error> {
        let config = call.config();
        let mut bridge = device::ensure(config, node, undo)?;
        let options = VethOptions {
            mtu: config.mtu(),
            mac: mac.map(|mac| mac.0),
            master: Some(bridge.index),
        };
        let pair = VethPair::create(&HostEnd::of(call.attachment()), node, pod, options, undo)?;
        let port = wanted(config);
        if port != BridgePort::default() {
            let change = LinkChange { port: Some(port), ..LinkChange::default() };
            node.set_link(pair.host.index, change)?;
        }
        if let Some(vlans) = Vlans::of_pods(config) {
            vlans.give(node, &pair.host, &bridge)?;
        }
        if pair.host.mtu != bridge.mtu {
            // A bridge whose MTU was never set takes the lowest one of its ports.
            bridge = device::require(node, config.bridge())?;
        }
        Ok(Self { bridge, pair })
    }
}

/// Finds what is not as ADD made the port. Additional settings are not an error, because another program may
/// have made them: a kubelet sets hairpin mode.
pub(crate) fn compare(
    config: &Config,
    node: &Rtnl,
    bridge: &Link,
    host: &Link,
) -> Result<(), Error> {
    let (wanted, port) = (wanted(config), host.port.unwrap_or_default());
    let not_a_port = format!("is not a port of {}", bridge.name);
    for (is_right, how) in [
        (host.master == Some(bridge.index), not_a_port.as_str()),
        (host.up, "is down"),
        (port.hairpin || !wanted.hairpin, "is not in hairpin mode"),
        (port.isolated || !wanted.isolated, "is not isolated"),
    ] {
        if !is_right {
            return Err(changed(format!("link {}", host.name), how));
        }
    }
    Vlans::of_pods(config).map_or(Ok(()), |vlans| vlans.compare(node, host))
}

/// The wanted settings of the bridge's port.
fn wanted(config: &Config) -> BridgePort {
    BridgePort { hairpin: config.hairpin_mode, isolated: config.port_isolation }
}
