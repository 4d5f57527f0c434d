//! What should be there for one pod: computed before anything is touched, made by ADD, compared
//! by CHECK.

use attach::{Masquerade, Neighbours, Pod, PodInterface, VethPair, forwarding, interfaces};
use cni::{Call, Success, Undo};
use kernel::{Nfnetlink, Rtnl};

use crate::config::Config;
use crate::error::Error;
use crate::node_side::NodeSide;
use crate::remove_rules;

/// Both sides of the pod's link.
#[derive(Debug)]
pub(crate) struct Wanted<'a> {
    call: &'a Call<Config>,
    /// Addresses, routes and name resolution; the interfaces are known when they are made.
    result: Success,
    node_side: NodeSide,
}

/// The index of the pod's interface in the result: behind the node's end.
const POD_INTERFACE: usize = 1;

impl<'a> Wanted<'a> {
    /// What an ADD has to make for what IPAM gave.
    pub(crate) fn new(call: &'a Call<Config>, lease: Success) -> Result<Self, Error> {
        let config = call.config();
        if lease.ips.is_empty() {
            return Err(attach::Error::NoAddress.into());
        }
        let mut result = Success { interfaces: Vec::new(), ..lease };
        for ip in &mut result.ips {
            ip.interface = Some(POD_INTERFACE);
        }
        result.dns = result.dns.overridden_by(&config.dns);
        Self::of(call, result)
    }

    /// What an ADD made that had this result.
    pub(crate) fn of(call: &'a Call<Config>, result: Success) -> Result<Self, Error> {
        let node_side = NodeSide::of(&result.ips)?;
        Ok(Self { call, result, node_side })
    }

    /// Makes it so.
    pub(crate) fn make(
        self,
        node: &'a Rtnl,
        pod: &'a Pod,
        rules: Option<&'a Nfnetlink>,
        pair: &VethPair,
        undo: &mut Undo<'a>,
    ) -> Result<Success, Error> {
        let call = self.call;
        self.node_side.skip_dad(&pair.host)?;
        self.pod_interface().configure(pod, pair.inside.index)?;
        self.node_side.make(node, &pair.host)?;
        if let Some(rules) = rules {
            undo.on_error("remove the rules", move || Ok(remove_rules(call, rules, Some(pod))?));
            self.masquerade().add(rules)?;
        }
        // Last, because it stays on once it is.
        forwarding::enable(node, self.node_side.families())?;
        pair.wait_until_operational(node)?;
        // In the order that [`POD_INTERFACE`] counts on.
        let interfaces = vec![
            interfaces::describe(&pair.host, None),
            interfaces::describe(&pair.inside, Some(pod)),
        ];
        Ok(Success { interfaces, ..self.result })
    }

    /// Finds what is missing or was changed.
    pub(crate) fn compare(
        &self,
        node: &Rtnl,
        pod: &Pod,
        rules: Option<&Nfnetlink>,
    ) -> Result<(), Error> {
        let pair = VethPair::find(node, pod, self.call.ifname().as_str())?;
        interfaces::compare(&self.result, &pair.inside, Some(pod))?;
        self.pod_interface().compare(pod, &pair.inside)?;
        self.node_side.compare(node, &pair.host)?;
        if let Some(rules) = rules {
            self.masquerade().check(rules)?;
        }
        Ok(())
    }

    fn masquerade(&self) -> Masquerade {
        Masquerade::of(self.call, self.call.config().ip_masq_backend, &self.result)
    }

    fn pod_interface(&self) -> PodInterface<'_> {
        let interface = PodInterface::of(self.call.ifname().as_str(), &self.result);
        PodInterface { neighbours: Neighbours::ByGateway, ..interface }
    }
}
