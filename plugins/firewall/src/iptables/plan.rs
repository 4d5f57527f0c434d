//! The rules of an attachment as a plain value.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use kernel::iptables::{Is, Match, Rule, Table, Target, ct_state};
use kernel::nft::Place;

use super::FAMILIES;
use crate::config::Isolation;
use crate::owner::Owner;
use crate::pod::Pod;

/// Base chains of the table `filter`.
pub(crate) const BASE_CHAINS: [&str; 3] = ["INPUT", FORWARD, "OUTPUT"];
/// The plugin's own chains.
pub(crate) const OWN_CHAINS: [&str; 3] = [FORWARD_CHAIN, STAGE_1, STAGE_2];

pub(super) const FORWARD: &str = "FORWARD";
/// Lets packets of pods through.
pub(super) const FORWARD_CHAIN: &str = "CNI-FORWARD";
/// Packets from a bridge that is kept apart from others.
pub(super) const STAGE_1: &str = "CNI-ISOLATION-STAGE-1";
/// Packets from such a bridge to anything else.
pub(super) const STAGE_2: &str = "CNI-ISOLATION-STAGE-2";

/// All rules of an attachment, in the families that it has addresses of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(super) owner: Owner,
    pub(super) families: Vec<FamilyPlan>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FamilyPlan {
    pub(super) table: Table,
    /// What all pods share, in the order in which it is made.
    shared: Vec<(String, Vec<(Place, Rule)>)>,
    /// The pod's own, in `CNI-FORWARD`.
    pub(super) rules: Vec<Rule>,
}

impl Plan {
    pub(crate) fn new(owner: Owner, admin_chain: &str, pod: &Pod) -> Self {
        let families = FAMILIES.into_iter().filter_map(|table| {
            let of_family = |address: &&IpAddr| Table::filter_of(**address) == table;
            let addresses = pod.addresses.iter().filter(of_family);
            let rules: Vec<Rule> = addresses.flat_map(|address| own_rules(*address)).collect();
            let shared = shared(admin_chain, pod.bridge.as_ref());
            (!rules.is_empty()).then_some(FamilyPlan { table, shared, rules })
        });
        Self { owner, families: families.collect() }
    }
}

impl FamilyPlan {
    /// The shared rules, chain by chain.
    pub(super) fn shared_by_chain(&self) -> impl Iterator<Item = (&str, &[(Place, Rule)])> {
        self.shared.iter().map(|(chain, rules)| (chain.as_str(), rules.as_slice()))
    }

    /// The chains that have to be there, which are not iptables' own.
    pub(super) fn own_chains(&self) -> Vec<&str> {
        let rules = self.shared.iter().flat_map(|(_, rules)| rules);
        let mut chains: Vec<&str> = rules.filter_map(|(_, rule)| rule.next_chain()).collect();
        chains.sort_unstable();
        chains.dedup();
        chains
    }
}

/// What lets packets of an address through: whatever comes from it, and the answers.
pub(super) fn own_rules(address: IpAddr) -> [Rule; 2] {
    let answers = ct_state::RELATED | ct_state::ESTABLISHED;
    let accept = Rule::to(Target::Accept);
    [
        accept
            .clone()
            .destination(Is::equal(IpNetwork::from(address)))
            .matching(Match::ConntrackState(Is::equal(answers))),
        accept.source(Is::equal(IpNetwork::from(address))),
    ]
}

fn shared(
    admin_chain: &str,
    bridge: Option<&(String, Isolation)>,
) -> Vec<(String, Vec<(Place, Rule)>)> {
    let admin = Rule::jump(admin_chain).comment("CNI firewall plugin admin overrides");
    let forward = Rule::jump(FORWARD_CHAIN).comment("CNI firewall plugin rules");
    let mut all = bridge.map(isolation).unwrap_or_default();
    all.push((FORWARD_CHAIN.to_owned(), vec![(Place::First, admin)]));
    let of_forward = (Place::First, forward);
    // Made first, so that what keeps bridges apart comes before it.
    match all.iter_mut().find(|(chain, _)| chain == FORWARD) {
        Some((_, rules)) => rules.insert(0, of_forward),
        None => all.push((FORWARD.to_owned(), vec![of_forward])),
    }
    all
}

/// What drops packets from a bridge that is kept apart to another one that is.
fn isolation((bridge, isolation): &(String, Isolation)) -> Vec<(String, Vec<(Place, Rule)>)> {
    let policy = isolation.name();
    let own =
        |rule: Rule| rule.comment(format!("CNI firewall plugin rules (ingressPolicy: {policy})"));
    let common = |rule: Rule| {
        rule.comment("CNI firewall plugin rules (ingressPolicy: same-bridge|isolated)")
    };
    let this = || Some(Is::equal(bridge.clone()));
    let to_others = Rule {
        in_interface: this(),
        out_interface: Some(Is::not(bridge.clone())),
        ..Rule::jump(STAGE_2)
    };
    let to_itself = Rule { in_interface: this(), out_interface: this(), ..Rule::to(Target::Drop) };
    let to_this = Rule { out_interface: this(), ..Rule::to(Target::Drop) };

    let mut stage_1 = vec![(Place::First, own(to_others))];
    if *isolation == Isolation::Isolated {
        stage_1.push((Place::First, own(to_itself)));
    }
    let go_on = || (Place::Last, common(Rule::to(Target::Return)));
    stage_1.push(go_on());
    let stage_2 = vec![(Place::First, common(to_this)), go_on()];
    let enter = vec![(Place::First, common(Rule::jump(STAGE_1)))];
    vec![(STAGE_1.into(), stage_1), (STAGE_2.into(), stage_2), (FORWARD.into(), enter)]
}
