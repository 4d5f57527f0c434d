//! Masquerading in the table `nat` of iptables.
//!
//! `POSTROUTING` sends packets from the pod's address to a chain of the container's own, which lets those to
//! the pod's network and to multicast groups pass. Its rules are, to the letter, those of the reference
//! plugins, and so is its name, which follows from the network's name and the container's ID. Interfaces
//! that a container has in the same network share the chain; the address tells their rules apart.

use cni::{Attachment, Cidr, NetworkName, ValidAttachments};
use ipnetwork::IpNetwork;
use kernel::Family;
use kernel::iptables::{COMMENT_MAX, Changes, Iptables, Is, NatChain, Rule, Table, Target};
use kernel::nft::Place;

use super::{Kept, multicast};
use crate::chain_name;
use crate::error::Error;

/// The rules that one attachment should have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rules {
    chain: String,
    comment: String,
    addresses: Vec<Cidr>,
}

/// How a rule can be missing.
struct Missing {
    family: Family,
    chain: String,
    rule: Rule,
}

const POSTROUTING: &str = "POSTROUTING";
/// What is between the network's name in its quotation marks and the container's ID, in a comment.
const ID: &str = " id: \"";

impl Rules {
    pub(super) fn wanted(owner: &Attachment, addresses: Vec<Cidr>) -> Self {
        let (network, container_id) = (owner.network.as_str(), owner.container_id.as_str());
        Self {
            chain: chain_name("", network, container_id),
            comment: comment(network, container_id),
            addresses,
        }
    }

    pub(super) fn add(&self, iptables: &Iptables<'_>) -> Result<(), Error> {
        if self.addresses.is_empty() {
            return Ok(());
        }
        match iptables.commit(&self.new_chains(false)) {
            Err(error) if error.is_exists() => {}
            Err(error) if error.is_not_found() => match iptables.commit(&self.new_chains(true)) {
                Err(error) if error.is_exists() => {}
                done => return Ok(done?),
            },
            done => return Ok(done?),
        }
        // Of another interface of the container, or of an ADD before this one.
        iptables.transaction(|| self.additions(iptables))
    }

    pub(super) fn check(&self, iptables: &Iptables<'_>) -> Result<(), Error> {
        for family in self.families() {
            for chain in [self.chain.as_str(), POSTROUTING] {
                let there = rules_of(iptables, family, chain)?;
                let wanted = self.rules_in(family, chain);
                // In the chain of its own, the last rule takes all packets; among the jumps to it, none does.
                let together = if chain == self.chain { wanted.len() } else { 1 };
                for wanted in wanted.chunks(together) {
                    if let Some((at, how)) = lacking(&there, wanted) {
                        let rule = format!(
                            "{} rule -t nat -A {chain} {}",
                            Table::nat(family).program(),
                            wanted[at]
                        );
                        return Err(Error::changed(rule, how));
                    }
                }
            }
        }
        Ok(())
    }

    /// Changes that fail with EEXIST if there are chains of the container already.
    fn new_chains(&self, with_table: bool) -> Changes {
        let mut changes = Changes::new();
        for family in self.families() {
            if with_table {
                changes.add_table(Table::nat(family));
                changes.add_base_chain(Table::nat(family), NatChain::Postrouting);
            }
            changes.create_chain(Table::nat(family), &self.chain);
            for (chain, rule) in self.rules(family) {
                changes.add_rule(Table::nat(family), &chain, Place::Last, &rule);
            }
        }
        changes
    }

    /// What has to be added to chains that are there.
    fn additions(&self, iptables: &Iptables<'_>) -> Result<Changes, Error> {
        let mut changes = Changes::new();
        self.refuse_other_owner(iptables)?;
        // What is there already is not added again: the kernel would take that for an update, whose
        // disposal the closing of the socket waits for.
        for family in self.families() {
            if !iptables.has_chain(Table::nat(family), POSTROUTING)? {
                changes.add_table(Table::nat(family));
                changes.add_base_chain(Table::nat(family), NatChain::Postrouting);
            }
            if !iptables.has_chain(Table::nat(family), &self.chain)? {
                changes.add_chain(Table::nat(family), &self.chain);
            }
        }
        for Missing { family, chain, rule } in self.missing(iptables)? {
            // A further network has to pass before the rule that masquerades the rest.
            let passes = rule.target == Some(Target::Accept);
            let place = if passes { Place::First } else { Place::Last };
            changes.add_rule(Table::nat(family), &chain, place, &rule);
        }
        Ok(changes)
    }

    fn missing(&self, iptables: &Iptables<'_>) -> Result<Vec<Missing>, kernel::Error> {
        let mut missing = Vec::new();
        for family in self.families() {
            for chain in [self.chain.as_str(), POSTROUTING] {
                let there = rules_of(iptables, family, chain)?;
                let wanted = self.rules_in(family, chain).into_iter();
                let gone = wanted.filter(|rule| !there.contains(rule));
                missing.extend(gone.map(|rule| Missing { family, chain: chain.to_owned(), rule }));
            }
        }
        Ok(missing)
    }

    /// Refuses a chain that is another container's too: its rules would let packets to that one's network
    /// pass, and nobody could say whose they are.
    fn refuse_other_owner(&self, iptables: &Iptables<'_>) -> Result<(), Error> {
        for family in self.families() {
            let jumps = rules_of(iptables, family, POSTROUTING)?.into_iter();
            let jumps = jumps.filter(|rule| rule.next_chain() == Some(&self.chain));
            let mut all = jumps.chain(rules_of(iptables, family, &self.chain)?);
            if let Some(foreign) = all.find(|rule| is_foreign(rule, &self.comment)) {
                let holder = foreign.comment_text().unwrap_or_default().to_owned();
                return Err(Error::NameTaken { chain: self.chain.clone(), holder });
            }
        }
        Ok(())
    }

    fn rules_in(&self, family: Family, chain: &str) -> Vec<Rule> {
        let rules = self.rules(family).into_iter().filter(|(of, _)| of == chain);
        rules.map(|(_, rule)| rule).collect()
    }

    /// The rules of one family with their chains, in their order.
    fn rules(&self, family: Family) -> Vec<(String, Rule)> {
        let addresses = || self.addresses.iter().filter(|cidr| Family::of(cidr.ip()) == family);
        let mut rules: Vec<(String, Rule)> = Vec::new();
        let mut push = |chain: &str, rule: Rule| {
            let rule = (chain.to_owned(), rule.comment(self.comment.clone()));
            // Two addresses of one network need its rule but once.
            if !rules.contains(&rule) {
                rules.push(rule);
            }
        };
        for cidr in addresses() {
            let network = Is::equal(IpNetwork::from(cidr.network()));
            push(&self.chain, Rule::to(Target::Accept).destination(network));
        }
        let masquerade = Rule::to(Target::Masquerade { random_fully: false });
        push(&self.chain, masquerade.destination(Is::not(multicast(family))));
        for cidr in addresses() {
            let address = Is::equal(IpNetwork::from(cidr.ip()));
            push(POSTROUTING, Rule::jump(self.chain.clone()).source(address));
        }
        rules
    }

    fn families(&self) -> impl Iterator<Item = Family> {
        let used =
            |family: &Family| self.addresses.iter().any(|cidr| Family::of(cidr.ip()) == *family);
        Family::ALL.into_iter().filter(used)
    }
}

/// Finds out whether rules could be made now.
pub(super) fn try_out(iptables: &Iptables<'_>) -> Result<(), Error> {
    Ok(iptables.has_chain(Table::nat(Family::V4), POSTROUTING).map(drop)?)
}

/// What removes an attachment's rules.
pub(super) fn remove(
    iptables: &Iptables<'_>,
    owner: &Attachment,
    kept: &Kept<'_>,
) -> Result<Changes, Error> {
    let (network, container_id) = (owner.network.as_str(), owner.container_id.as_str());
    let chain = chain_name("", network, container_id);
    let comment = comment(network, container_id);
    let mut changes = Changes::new();
    for family in Family::ALL {
        if iptables.has_chain(Table::nat(family), &chain)? {
            remove_chain(iptables, family, &mut changes, (&chain, &comment), kept)?;
        }
    }
    Ok(changes)
}

/// What removes the rules of a network's containers that have no valid attachment.
pub(super) fn collect_garbage(
    iptables: &Iptables<'_>,
    network: &NetworkName,
    valid: &ValidAttachments,
) -> Result<Changes, Error> {
    let mut changes = Changes::new();
    let none = Kept::new(Vec::new(), || Ok(false));
    for family in Family::ALL {
        for chain in iptables.chain_names(Table::nat(family))? {
            if !chain.starts_with("CNI-") {
                continue;
            }
            if let Some(comment) = garbage(iptables, family, &chain, network, valid)? {
                remove_chain(iptables, family, &mut changes, (&chain, &comment), &none)?;
            }
        }
    }
    Ok(changes)
}

/// What removes the chains of all containers, whose names are added to `found`.
pub(super) fn remove_all(
    iptables: &Iptables<'_>,
    found: &mut Vec<String>,
) -> Result<Changes, Error> {
    let mut changes = Changes::new();
    let none = Kept::new(Vec::new(), || Ok(false));
    let variant = if iptables.is_legacy() { "-legacy" } else { "" };
    for family in Family::ALL {
        for chain in iptables.chain_names(Table::nat(family))? {
            let first = iptables.rules(Table::nat(family), &chain)?.next();
            let Some(text) = first.and_then(|(_, rule)| rule.comment_text().map(str::to_owned))
            else {
                continue;
            };
            if is_chain_of_an_owner(&chain, &text) {
                remove_chain(iptables, family, &mut changes, (&chain, &text), &none)?;
                found.push(format!(
                    "{}{variant} -t nat chain {chain}, {text}",
                    Table::nat(family).program()
                ));
            }
        }
    }
    Ok(changes)
}

/// Whether a chain is that of the container which the comment on its rules names.
fn is_chain_of_an_owner(chain: &str, comment: &str) -> bool {
    let Some(text) = comment.strip_prefix("name: \"").filter(|_| chain.starts_with("CNI-")) else {
        return false;
    };
    let named = text
        .split_once('"')
        .and_then(|(network, rest)| Some((network, rest.strip_prefix(ID)?.strip_suffix('"')?)));
    // Names that were cut do not tell the chain's name.
    named.map_or(comment.len() == COMMENT_MAX, |(network, id)| chain_name("", network, id) == chain)
}

/// Finds the first rule of `wanted` that is not in a chain, or behind the last one of `wanted`, which takes
/// what the others have left: its index, and what is wrong with it.
fn lacking<T: PartialEq>(there: &[T], wanted: &[T]) -> Option<(usize, &'static str)> {
    let place = |one: &T| there.iter().position(|it| it == one);
    let end = wanted.last().and_then(place);
    let wrong = |one: &T| match place(one) {
        None => Some("is missing"),
        Some(at) if end.is_some_and(|end| at > end) => {
            Some("comes too late, behind one that takes its packets")
        }
        Some(_) => None,
    };
    wanted.iter().enumerate().find_map(|(at, one)| Some((at, wrong(one)?)))
}

/// Adds what removes a chain and the rules that lead to it, save for those that are kept.
///
/// Its name is a hash with nothing between network and ID, so it can be another container's too, known by the
/// comments on its rules: these stay, and the chain with them.
fn remove_chain(
    iptables: &Iptables<'_>,
    family: Family,
    changes: &mut Changes,
    (chain, comment): (&str, &str),
    kept: &Kept<'_>,
) -> Result<(), Error> {
    let (mut still_needed, mut foreign) = (false, false);
    for (handle, rule) in iptables.rules(Table::nat(family), POSTROUTING)? {
        if rule.next_chain() != Some(chain) {
            continue;
        }
        if is_foreign(&rule, comment) {
            foreign = true;
        } else if rule.source.as_ref().map_or(Ok(false), |source| kept.has(source.value))? {
            still_needed = true;
        } else {
            changes.delete_rule(Table::nat(family), POSTROUTING, handle);
        }
    }
    if still_needed {
        return Ok(());
    }
    if !foreign {
        changes.flush_chain(Table::nat(family), chain);
        changes.delete_chain(Table::nat(family), chain);
        return Ok(());
    }
    for (handle, rule) in iptables.rules(Table::nat(family), chain)? {
        if !is_foreign(&rule, comment) {
            changes.delete_rule(Table::nat(family), chain, handle);
        }
    }
    Ok(())
}

/// Whether a rule is that of another container, by the comment on it.
fn is_foreign(rule: &Rule, comment: &str) -> bool {
    let text = rule.comment_text();
    text.is_some_and(|text| text.starts_with("name: \"") && text != comment)
}

fn rules_of(
    iptables: &Iptables<'_>,
    family: Family,
    chain: &str,
) -> Result<Vec<Rule>, kernel::Error> {
    Ok(iptables.rules(Table::nat(family), chain)?.map(|(_, rule)| rule).collect())
}

/// The comment on a chain's rules, if by that and its name it is the chain of a container of this network,
/// and none of the container's attachments is valid.
fn garbage(
    iptables: &Iptables<'_>,
    family: Family,
    chain: &str,
    network: &NetworkName,
    valid: &ValidAttachments,
) -> Result<Option<String>, kernel::Error> {
    let first = iptables.rules(Table::nat(family), chain)?.next();
    let Some(text) = first.and_then(|(_, rule)| rule.comment_text().map(str::to_owned)) else {
        return Ok(None);
    };
    let is_chain_of = |id: &str| chain_name("", network.as_str(), id) == chain;
    let is_garbage = owner_rest(&text, network.as_str()).is_some_and(|rest| {
        match rest.strip_prefix(ID).and_then(|rest| rest.strip_suffix('"')) {
            Some(id) => is_chain_of(id) && !valid.contains_container(id),
            // What is left of a long ID is not enough to find the chain by; all others have to be excluded.
            None => {
                text.len() == COMMENT_MAX && !valid.containers().any(|id| is_chain_of(id.as_str()))
            }
        }
    });
    Ok(is_garbage.then_some(text))
}

/// The reference plugins' comment, cut at iptables' limit.
fn comment(network: &str, container_id: &str) -> String {
    let mut text = format!("name: \"{network}\"{ID}{container_id}\"");
    while text.len() > COMMENT_MAX {
        text.pop();
    }
    text
}

/// What follows the network's name in a comment, [`ID`], the container's ID and a quotation mark, unless they
/// were cut: all but the quotation mark at the name's end, without which it could be that of a longer name.
fn owner_rest<'a>(text: &'a str, network: &str) -> Option<&'a str> {
    let rest = text.strip_prefix("name: \"")?.strip_prefix(network)?.strip_prefix('"')?;
    (rest.starts_with(ID) || ID.starts_with(rest)).then_some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(there: &str, expected: Option<usize>) {
        let found = lacking(there.as_bytes(), b"abz");
        assert_eq!(found.map(|(at, _)| at), expected, "{there}: {found:?}");
    }

    #[test]
    fn what_is_lacking() {
        check("abz", None);
        check("xbyazb", None);
        check("az", Some(1));
        check("ab", Some(2));
        check("azb", Some(1));
        check("", Some(0));
    }
}
