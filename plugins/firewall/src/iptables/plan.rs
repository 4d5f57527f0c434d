//! The rules of an attachment as a plain value.

use std::net::IpAddr;

use cni::Attachment;
use ipnetwork::IpNetwork;
use kernel::Family;
use kernel::iptables::{Is, Match, Rule, Table, Target, ct_state};
use kernel::nft::Place;

use crate::config::Isolation;
use crate::owner::owner_name;
use crate::pod::Pod;

/// The table `filter` of both families.
pub(super) const TABLES: [Table; 2] = [Table::filter(Family::V4), Table::filter(Family::V6)];
/// The base chains of the table.
pub(crate) const BASE_CHAINS: [&str; 3] = ["INPUT", FORWARD, "OUTPUT"];
/// The plugin's own chains.
pub(crate) const OWN_CHAINS: [&str; 4] = [FORWARD_CHAIN, STAGE_1, STAGE_2, PUBLISHED];
/// The chains with rules of pods.
pub(super) const POD_CHAINS: [&str; 2] = [FORWARD_CHAIN, PUBLISHED];

pub(super) const FORWARD: &str = "FORWARD";
/// Accepts packets of pods.
pub(super) const FORWARD_CHAIN: &str = "CNI-FORWARD";
/// Accepts connections with a DNAT. It comes before the isolation of bridges.
pub(super) const PUBLISHED: &str = "CNI-PUBLISHED";
/// Packets from an isolated bridge.
const STAGE_1: &str = "CNI-ISOLATION-STAGE-1";
/// Packets from an isolated bridge to another interface.
const STAGE_2: &str = "CNI-ISOLATION-STAGE-2";

/// All rules of an attachment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) owner: String,
    /// The rules that all pods share, chain by chain: those for the start of the chain ([`Place::First`]) and
    /// those for its end, in their order.
    pub(super) shared: Vec<(&'static str, Vec<(Place, Rule)>)>,
    /// The pod's own rules with their chains, by table; none in a family that the pod has no address of.
    pub(super) own: [(Table, Vec<(&'static str, Rule)>); 2],
}

impl Plan {
    pub(super) fn new(owner: &Attachment, admin_chain: &str, pod: &Pod) -> Self {
        let is_meant = |(chain, _): &_| *chain != PUBLISHED || pod.published;
        let own = |table: Table| {
            let addresses = pod.addresses.iter().filter(|it| Family::of(**it) == table.family());
            addresses.flat_map(|address| own_rules(*address)).filter(is_meant).collect()
        };
        let own = TABLES.map(|table| (table, own(table)));
        Self { owner: owner_name(owner), shared: shared(admin_chain, pod), own }
    }

    /// The tables in which the pod has rules, and these rules.
    pub(super) fn used(&self) -> impl Iterator<Item = &(Table, Vec<(&'static str, Rule)>)> {
        self.own.iter().filter(|(_, rules)| !rules.is_empty())
    }

    /// The chains that the shared rules jump to.
    pub(super) fn chains(&self) -> Vec<&str> {
        let rules = self.shared.iter().flat_map(|(_, rules)| rules);
        let mut chains: Vec<&str> = rules.filter_map(|(_, rule)| rule.next_chain()).collect();
        chains.sort_unstable();
        chains.dedup();
        chains
    }
}

/// Those of a pod's own rules that are for this chain.
pub(super) fn rules_of<'a>(own: &'a [(&'static str, Rule)], chain: &str) -> Vec<&'a Rule> {
    own.iter().filter(|(of, _)| *of == chain).map(|(_, rule)| rule).collect()
}

/// The rules that accept packets of an address: all packets from it, and the answers to them; and for
/// published ports, packets to it with a DNAT, and the answers to them.
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

/// The position of a jump in `FORWARD`, by the chain that it leads to; `None` for other rules.
pub(super) fn rank(rule: &Rule) -> Option<usize> {
    let order = [PUBLISHED, STAGE_1, FORWARD_CHAIN];
    rule.next_chain().and_then(|next| order.iter().position(|chain| *chain == next))
}

/// The comment of jumps to the administrator's chain.
pub(super) const TO_ADMIN: &str = "CNI firewall plugin admin overrides";
const OF_POLICIES: &str = "CNI firewall plugin rules (ingressPolicy: same-bridge|isolated)";

fn shared(admin_chain: &str, pod: &Pod) -> Vec<(&'static str, Vec<(Place, Rule)>)> {
    let first = |rule: Rule, comment: &str| (Place::First, rule.comment(comment));
    let admin = || vec![first(Rule::jump(admin_chain), TO_ADMIN)];
    let mut all = pod.bridge.as_ref().map(isolation).unwrap_or_default();
    all.push((FORWARD_CHAIN, admin()));
    let mut jumps = Vec::new();
    if pod.published {
        all.push((PUBLISHED, admin()));
        let is_mapped = Match::ConntrackState(Is::equal(ct_state::DNAT));
        let enter = Rule::jump(PUBLISHED).matching(is_mapped);
        jumps.push(first(enter, "CNI firewall plugin rules (published ports)"));
    }
    jumps.extend(pod.bridge.as_ref().map(|_| first(Rule::jump(STAGE_1), OF_POLICIES)));
    jumps.push(first(Rule::jump(FORWARD_CHAIN), "CNI firewall plugin rules"));
    all.push((FORWARD, jumps));
    all
}

/// The rules that drop packets from an isolated bridge to another one.
fn isolation((bridge, isolation): &(String, Isolation)) -> Vec<(&'static str, Vec<(Place, Rule)>)> {
    let own = format!("CNI firewall plugin rules (ingressPolicy: {})", isolation.name());
    let this = || Some(Is::equal(bridge.clone()));
    let others = Some(Is::not(bridge.clone()));
    let to_itself = Rule { in_interface: this(), out_interface: this(), ..Rule::to(Target::Drop) };
    let to_others = Rule { in_interface: this(), out_interface: others, ..Rule::jump(STAGE_2) };
    let to_this = Rule { out_interface: this(), ..Rule::to(Target::Drop) };
    let go_on = || (Place::Last, Rule::to(Target::Return).comment(OF_POLICIES));
    let mut stage_1 = vec![(Place::First, to_others.comment(own.clone())), go_on()];
    if *isolation == Isolation::Isolated {
        stage_1.insert(0, (Place::First, to_itself.comment(own)));
    }
    vec![(STAGE_1, stage_1), (STAGE_2, vec![(Place::First, to_this.comment(OF_POLICIES)), go_on()])]
}
