//! DEL and GC of the plugins that connect pods by veth pairs.

use cni::{Call, Failures, Network, ValidAttachments};
use kernel::Rtnl;

use crate::error::Error;
use crate::ipam;
use crate::pod::Pod;
use crate::rules::RuleKeys;
use crate::veth::{self, HostEnd};

/// How a plugin removes what its ADD made, by the names of the attachment. The configuration may have changed
/// since the ADD.
#[derive(Clone, Copy, Debug)]
pub struct Detach<'a> {
    /// The keys that ask for rules.
    pub rules: RuleKeys,
    /// The bridge that the node's end of a pair must be a port of, if any.
    pub bridge: Option<&'a str>,
}

impl Detach<'_> {
    /// Removes the rules, deletes the veth pair and releases the addresses. A step that fails does not keep
    /// the others from running.
    pub fn del<C>(self, call: &Call<C>) -> Result<(), cni::Error> {
        let mut failures = Failures::new();
        let pod = failures.try_to("look into the pod", || Pod::open_if_there(call.netns()));
        let pod = pod.flatten();
        let netlink = failures.try_to("remove the rules", || self.rules.open_to_remove());
        let netlink = netlink.flatten();
        if let Some(netlink) = &netlink {
            failures.try_to("remove the rules", || self.rules.remove(netlink, call, pod.as_ref()));
        }
        ipam::del_with(&call.network, &mut failures, |failures| {
            failures.try_to("delete the interface", || -> Result<(), Error> {
                let result = call.network.prev_result.as_ref();
                let end = HostEnd::of(call.attachment());
                end.delete(&Rtnl::open()?, pod.as_ref(), self.bridge, result)
            });
            // Closing waits until the kernel has disposed of the rules, which it does beside the link.
            drop(netlink);
        });
        failures.into_result()
    }

    /// Deletes the veth pairs of attachments that are not valid, removes their rules and releases their
    /// addresses.
    pub fn gc<C>(self, network: &Network<C>, valid: &ValidAttachments) -> Result<(), cni::Error> {
        let mut failures = Failures::new();
        failures.try_to("delete interfaces", || -> Result<(), cni::Error> {
            veth::collect_garbage(&Rtnl::open().map_err(Error::from)?, valid)
        });
        failures.try_to("remove rules", || self.rules.collect_garbage(network, valid));
        failures.try_to("release addresses", || cni::ipam::gc(network));
        failures.into_result()
    }
}
