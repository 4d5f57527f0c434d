//! Making a plan's rules, and comparing them with those that are there.

use kernel::iptables::{Changes, Iptables, Match, Rule, Table, Target};
use kernel::nft::Place;
use kernel::{Family, Nfnetlink};

use crate::chains::DNAT_CHAIN;
use crate::ends::End;
use crate::error::Error;
use crate::guard::{self, GUARD_TABLE};
use crate::loopback::SwitchedOff;
use crate::mapping::protocol_name;
use crate::plan::{External, FamilyPlan, Plan, Shared, is_foreign, same_port};
use crate::remove;

/// Makes the rules of a plan, all or none, and removes what the container has from an ADD before in a family
/// that the plan has nothing for; gives the ends that this led to. If there is nothing of before, nothing is
/// sent but additions, so that nobody waits for a disposal. `link` is the one that packets from 127.0.0.1
/// leave by to the pod.
pub(crate) fn add(
    netlink: &Nfnetlink,
    plan: &Plan,
    link: Option<&str>,
    refuse_conflicts: bool,
) -> Result<Vec<End>, Error> {
    let mut ends = Vec::new();
    let ((network, id), comment) = (plan.owner(), plan.comment());
    if plan.is_empty() {
        // Which variant of iptables the node uses does not matter to such a pod.
        remove::remove_of(netlink, (network, id), &mut ends)?;
        return Ok(ends);
    }
    let iptables = &Iptables::of_node(netlink)?;
    let mut switched_off = SwitchedOff::default();
    let mut absent: Vec<(Table, &str)> = Vec::new();
    let added = iptables.transaction(|| -> Result<Changes, Error> {
        let mut changes = Changes::new();
        ends.clear();
        guard::take_back(iptables, &mut switched_off)?;
        absent.clear();
        for of in Family::ALL {
            if let Some(mut family) = plan.families().iter().find(|it| it.family == of) {
                let nat = Table::nat(of);
                if let Some(External { chain, otherwise }) = &family.external
                    && !iptables.has_chain(nat, chain)?
                {
                    absent.push((nat, chain));
                    family = otherwise;
                }
                let is_new =
                    add_family(iptables, &mut changes, family, &comment, refuse_conflicts)?;
                let own_chain = family.own_chain.as_str();
                match link.filter(|_| of == Family::V4) {
                    Some(link) => guard::add(iptables, &mut changes, own_chain, link)?,
                    None if is_new || of == Family::V6 => {}
                    None => {
                        guard::remove(iptables, &mut changes, &[own_chain], &mut switched_off)?;
                    }
                }
            } else {
                let stale = remove::find(iptables, of, network, id)?;
                let off = &mut switched_off;
                remove::removal(iptables, &mut changes, &stale, true, &mut ends, off)?;
            }
        }
        Ok(changes)
    });
    if let Err(error) = added {
        guard::take_back(iptables, &mut switched_off)?;
        return Err(error);
    }
    for (nat, chain) in absent {
        // The program's stderr goes to the runtime's log.
        eprintln!(
            "portmap: {} has no chain {chain} in its table nat, which key \"externalSetMarkChain\" names; \
             packets are marked with bit 13 instead",
            nat.program()
        );
    }
    Ok(ends)
}

/// Finds a rule that is missing. Which variant of iptables the node uses may have changed since ADD, by what
/// others do, so the rules may be in either.
pub(crate) fn check(netlink: &Nfnetlink, plan: &Plan) -> Result<(), Error> {
    Iptables::check(netlink, |iptables| check_in(iptables, plan))
}

fn check_in(iptables: &Iptables<'_>, plan: &Plan) -> Result<(), Error> {
    for family in plan.families() {
        let mut checked = check_family(iptables, family);
        // The chain may have come or gone since the ADD; the rules that it made work all the same.
        if let (Err(_), Some(External { otherwise, .. })) = (&checked, &family.external) {
            checked = check_family(iptables, otherwise).or(checked);
        }
        checked?;
    }
    Ok(())
}

fn check_family(iptables: &Iptables<'_>, family: &FamilyPlan) -> Result<(), Error> {
    let nat = Table::nat(family.family);
    let missing = |chain: &str, rule: &Rule| Error::Missing {
        program: nat.program(),
        table: "nat",
        chain: chain.to_owned(),
        rule: rule.to_string(),
    };
    for Shared { chain, rule, .. } in &family.shared {
        if !has_rule(iptables, nat, chain, rule)? {
            return Err(missing(chain, rule));
        }
    }
    for (chain, wanted) in [(DNAT_CHAIN, &family.entries), (&family.own_chain, &family.rules)] {
        let there: Vec<Rule> = iptables.rules(nat, chain)?.map(|(_, rule)| rule).collect();
        if let Some(rule) = wanted.iter().find(|rule| !there.contains(rule)) {
            return Err(missing(chain, rule));
        }
    }
    // A container that the reference plugin added has no rule in the guard.
    if family.family == Family::V4 && guard::has_entry(iptables, &family.own_chain)? {
        let (base, jump) = (guard::BASE.name(), guard::jump());
        if !iptables.rules(GUARD_TABLE, base)?.any(|(_, rule)| rule == jump) {
            let (chain, rule) = (base.to_owned(), jump.to_string());
            let (program, table) = (nat.program(), GUARD_TABLE.name());
            return Err(Error::Missing { program, table, chain, rule });
        }
    }
    Ok(())
}

/// Whether rules could be made: netfilter answers.
pub(crate) fn status() -> Result<(), Error> {
    let netlink = Nfnetlink::open()?;
    let iptables = Iptables::of_node(&netlink)?;
    iptables.has_chain(Table::nat(Family::V4), DNAT_CHAIN)?;
    Ok(())
}

/// Adds a family's rules; true if the container had none there.
fn add_family(
    iptables: &Iptables<'_>,
    changes: &mut Changes,
    family: &FamilyPlan,
    comment: &str,
    refuse_conflicts: bool,
) -> Result<bool, Error> {
    let nat = Table::nat(family.family);
    let existing: Vec<(u64, Rule)> = iptables.rules(nat, DNAT_CHAIN)?.collect();
    let (own, others): (Vec<_>, Vec<_>) =
        existing.into_iter().partition(|(_, rule)| rule.next_chain() == Some(&family.own_chain));
    if let Some((_, foreign)) = own.iter().find(|(_, rule)| is_foreign(rule, comment)) {
        return Err(Error::NameTaken {
            chain: family.own_chain.clone(),
            holder: foreign.comment_text().unwrap_or_default().to_owned(),
        });
    }
    if refuse_conflicts {
        find_holder(iptables, family, &others)?;
    }

    // What is there already is not added again: the kernel would take that for an update, whose disposal
    // the closing of the socket waits for.
    let mut missing = Vec::new();
    for shared in &family.shared {
        if !has_rule(iptables, nat, shared.chain, &shared.rule)? {
            missing.push(shared);
        }
    }
    if !missing.is_empty() {
        add_shared(changes, nat, &missing);
    }
    let is_new = !iptables.has_chain(nat, &family.own_chain)?;
    if is_new {
        changes.add_chain(nat, &family.own_chain);
    } else {
        for (handle, _) in &own {
            changes.delete_rule(nat, DNAT_CHAIN, *handle);
        }
        changes.flush_chain(nat, &family.own_chain);
    }
    for rule in &family.rules {
        changes.add_rule(nat, &family.own_chain, Place::Last, rule);
    }
    for entry in &family.entries {
        // Before whoever had one of the ports, so that a crashed pod's leftovers do not swallow packets.
        let older = others.iter().find(|(_, other)| same_port(entry, other));
        let place = older.map_or(Place::Last, |(handle, _)| Place::Before(*handle));
        changes.add_rule(nat, DNAT_CHAIN, place, entry);
    }
    Ok(is_new)
}

fn add_shared(changes: &mut Changes, nat: Table, missing: &[&Shared]) {
    changes.add_table(nat);
    changes.add_chain(nat, DNAT_CHAIN);
    for Shared { chain, base, place, rule } in missing {
        match base {
            Some(base) => changes.add_base_chain(nat, *base),
            None => changes.add_chain(nat, chain),
        }
        changes.add_rule(nat, chain, *place, rule);
    }
}

fn has_rule(
    iptables: &Iptables<'_>,
    nat: Table,
    chain: &str,
    rule: &Rule,
) -> Result<bool, kernel::Error> {
    Ok(iptables.rules(nat, chain)?.any(|(_, there)| there == *rule))
}

/// Refuses a plan if one of its ports leads to another container already, at an address that both have.
fn find_holder(
    iptables: &Iptables<'_>,
    family: &FamilyPlan,
    others: &[(u64, Rule)],
) -> Result<(), Error> {
    let same =
        |(_, other): &&(u64, Rule)| family.entries.iter().any(|entry| same_port(entry, other));
    for (_, other) in others.iter().filter(same) {
        let Some(chain) = other.next_chain() else { continue };
        for (_, theirs) in iptables.rules(Table::nat(family.family), chain)? {
            let Some(ours) = family.rules.iter().find(|ours| same_place(ours, &theirs)) else {
                continue;
            };
            return Err(Error::Taken {
                port: destination_port(ours).unwrap_or_default(),
                protocol: protocol_name(ours.protocol.map_or(0, |is| is.value)),
                holder: other.comment_text().unwrap_or(chain).to_owned(),
            });
        }
    }
    Ok(())
}

/// Whether two DNAT rules can be meant by the same packet.
fn same_place(one: &Rule, other: &Rule) -> bool {
    let is_dnat = |rule: &Rule| matches!(rule.target, Some(Target::Dnat { .. }));
    let overlap = match (one.destination, other.destination) {
        (Some(a), Some(b)) => a == b,
        _ => true,
    };
    is_dnat(one) && is_dnat(other) && same_port(one, other) && overlap
}

/// The port of a mapping's own rule.
pub(crate) fn destination_port(rule: &Rule) -> Option<u16> {
    rule.matches.iter().find_map(|one| match one {
        Match::DestinationPort(is) => Some(is.value.first),
        _ => None,
    })
}
