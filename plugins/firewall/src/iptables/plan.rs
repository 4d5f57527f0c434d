//! The rules of an attachment as a plain value.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use kernel::Family;
use kernel::iptables::{Is, Match, Rule, Table, Target, ct_state};
use kernel::nft::Place;

use crate::config::Isolation;
use crate::owner::Owner;
use crate::pod::Pod;

/// Base chains of the table `filter`.
pub(crate) const BASE_CHAINS: [&str; 3] = ["INPUT", FORWARD, "OUTPUT"];
/// The plugin's own chains.
pub(crate) const OWN_CHAINS: [&str; 4] = [FORWARD_CHAIN, STAGE_1, STAGE_2, PUBLISHED];
/// The chains that have rules of a pod's own.
pub(super) const POD_CHAINS: [&str; 2] = [FORWARD_CHAIN, PUBLISHED];

pub(super) const FORWARD: &str = "FORWARD";
/// Lets packets of pods through.
pub(super) const FORWARD_CHAIN: &str = "CNI-FORWARD";
/// Connections that came by DNAT; it comes before what keeps bridges apart.
pub(super) const PUBLISHED: &str = "CNI-PUBLISHED";
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
    /// The pod's own, with their chains.
    pub(super) rules: Vec<(&'static str, Rule)>,
}

impl Plan {
    pub(crate) fn new(owner: Owner, admin_chain: &str, pod: &Pod) -> Self {
        let families = Family::ALL.map(Table::filter).into_iter().filter_map(|table| {
            let of_family = |address: &&IpAddr| Family::of(**address) == table.family();
            let addresses = pod.addresses.iter().filter(of_family);
            let is_meant = |(chain, _): &_| *chain != PUBLISHED || pod.published;
            let rules = addresses.flat_map(|address| own_rules(*address)).filter(is_meant);
            let rules: Vec<_> = rules.collect();
            let shared = shared(admin_chain, pod);
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

/// What lets packets of an address through: whatever comes from it, and the answers; and with published ports
/// whatever comes to it by DNAT, and the answers.
pub(super) fn own_rules(address: IpAddr) -> [(&'static str, Rule); 4] {
    let states = ct_state::RELATED | ct_state::ESTABLISHED;
    let are_answers = || Match::ConntrackState(Is::equal(states));
    let to = Rule::to(Target::Accept).destination(Is::equal(IpNetwork::from(address)));
    let from = Rule::to(Target::Accept).source(Is::equal(IpNetwork::from(address)));
    [
        (FORWARD_CHAIN, to.clone().matching(are_answers())),
        (FORWARD_CHAIN, from.clone()),
        (PUBLISHED, to),
        (PUBLISHED, from.matching(are_answers())),
    ]
}

/// The order of the jumps in `FORWARD`, by the chains that they lead to; none for the rules of others.
pub(super) fn rank(rule: &Rule) -> Option<usize> {
    let order = [PUBLISHED, STAGE_1, FORWARD_CHAIN];
    rule.next_chain().and_then(|next| order.iter().position(|chain| *chain == next))
}

fn shared(admin_chain: &str, pod: &Pod) -> Vec<(String, Vec<(Place, Rule)>)> {
    let admin = || {
        let jump = Rule::jump(admin_chain).comment(TO_ADMIN);
        vec![(Place::First, jump)]
    };
    let mut all = pod.bridge.as_ref().map(isolation).unwrap_or_default();
    all.push((FORWARD_CHAIN.to_owned(), admin()));
    // The last one is made first, each next one before it.
    let forward = Rule::jump(FORWARD_CHAIN).comment("CNI firewall plugin rules");
    let mut jumps = vec![(Place::First, forward)];
    jumps.extend(pod.bridge.as_ref().map(|_| (Place::First, enter_stage_1())));
    if pod.published {
        all.push((PUBLISHED.to_owned(), admin()));
        let enter = Rule::jump(PUBLISHED)
            .matching(Match::ConntrackState(Is::equal(ct_state::DNAT)))
            .comment("CNI firewall plugin rules (published ports)");
        jumps.push((Place::First, enter));
    }
    all.push((FORWARD.to_owned(), jumps));
    all
}

/// The comment of jumps to the administrator's chain.
pub(super) const TO_ADMIN: &str = "CNI firewall plugin admin overrides";
const OF_POLICIES: &str = "CNI firewall plugin rules (ingressPolicy: same-bridge|isolated)";

fn enter_stage_1() -> Rule {
    Rule::jump(STAGE_1).comment(OF_POLICIES)
}

/// What drops packets from a bridge that is kept apart to another one that is.
fn isolation((bridge, isolation): &(String, Isolation)) -> Vec<(String, Vec<(Place, Rule)>)> {
    let policy = isolation.name();
    let own =
        |rule: Rule| rule.comment(format!("CNI firewall plugin rules (ingressPolicy: {policy})"));
    let common = |rule: Rule| rule.comment(OF_POLICIES);
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
    vec![(STAGE_1.into(), stage_1), (STAGE_2.into(), stage_2)]
}
