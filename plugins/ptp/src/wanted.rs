//! What the pod and the node must have after the IPAM plugin has answered. ADD makes it, and CHECK compares
//! it. ADD makes the veth pair before that.

use attach::{Neighbours, Pod, PodInterface, Rules, VethPair, forwarding, link};
use cni::{Call, Success, Undo};
use kernel::Rtnl;

use crate::config::Config;
use crate::error::Error;
use crate::node_side::NodeSide;

/// Both sides of the pod's link.
#[derive(Debug)]
pub(crate) struct Wanted<'a> {
    call: &'a Call<Config>,
    /// Addresses, routes and name resolution. ADD adds the interfaces.
    result: Success,
    node_side: NodeSide,
}

/// The index of the pod's interface in the result, after the node's end.
pub(crate) const POD_INTERFACE: usize = 1;

impl<'a> Wanted<'a> {
    /// What an ADD must make for a result of the IPAM plugin.
    pub(crate) fn new(call: &'a Call<Config>, mut result: Success) -> Result<Self, Error> {
        result.dns = result.dns.overridden_by(&call.config().dns);
        Self::of(call, result)
    }

    /// What an ADD made that had this result.
    pub(crate) fn of(call: &'a Call<Config>, result: Success) -> Result<Self, Error> {
        let node_side = NodeSide::of(&result.ips)?;
        Ok(Self { call, result, node_side })
    }

    /// Makes what is wanted.
    pub(crate) fn make(
        self,
        node: &'a Rtnl,
        pod: &'a Pod,
        rules: &'a Rules<'a, Config>,
        pair: &VethPair,
        undo: &mut Undo<'a>,
    ) -> Result<Success, Error> {
        self.node_side.prepare(&pair.host)?;
        self.pod_interface().configure(pod, pair.inside.index)?;
        self.node_side.make(node, &pair.host)?;
        undo.on_error("remove the rules", || rules.undo(pod));
        rules.add_masquerading(&self.result)?;
        // Almost last, because forwarding stays on if a later step fails.
        forwarding::enable(node, self.node_side.families())?;
        pair.wait_until_operational(node)?;
        // The order must agree with [`POD_INTERFACE`].
        let interfaces =
            vec![link::describe(&pair.host, None), link::describe(&pair.inside, Some(pod))];
        Ok(Success { interfaces, ..self.result })
    }

    /// Finds what is missing or was changed.
    pub(crate) fn compare(
        &self,
        node: &Rtnl,
        pod: &Pod,
        rules: &Rules<'_, Config>,
    ) -> Result<(), Error> {
        let pair = VethPair::find(node, pod, self.call.ifname().as_str())?;
        link::compare(&self.result, &pair.inside, Some(pod))?;
        self.pod_interface().compare(pod, &pair.inside)?;
        self.node_side.compare(node, &pair.host)?;
        Ok(rules.compare(&pair.host.name, pair.inside.mac, &self.result)?)
    }

    fn pod_interface(&self) -> PodInterface<'_> {
        let interface = PodInterface::of(self.call.ifname().as_str(), &self.result);
        PodInterface { neighbours: Neighbours::ByGateway, ..interface }
    }
}
