//! Masquerading in the table `nat` of iptables.
//!
//! `POSTROUTING` sends packets from the pod's address to a chain of the container. This chain accepts packets
//! to the pod's network, and masquerades all others except those to multicast groups. Rules and chains are
//! those of the reference plugins. The chain's name is a hash of the network's name and the container's ID.
//! If a container has several interfaces in the network, they share the chain, and their addresses tell their
//! rules apart.

use cni::{Attachment, Cidr, NetworkName, ValidAttachments};
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

const TABLES: [Table; 2] = [Table::nat(Family::V4), Table::nat(Family::V6)];
const POSTROUTING: &str = "POSTROUTING";
/// What a comment begins with, before the network's name and its closing quotation mark.
const NAME: &str = "name: \"";
/// What follows the network's name, before the container's ID and its closing quotation mark.
const ID: &str = " id: \"";

impl Rules {
    pub(super) fn wanted(owner: &Attachment, addresses: Vec<Cidr>) -> Self {
        let (chain, comment) = names(owner);
        Self { chain, comment, addresses }
    }

    pub(super) fn add(&self, iptables: &Iptables<'_>) -> Result<(), Error> {
        let mut made = iptables.commit(&self.new_chains(false));
        if made.as_ref().is_err_and(kernel::Error::is_not_found) {
            made = iptables.commit(&self.new_chains(true));
        }
        match made {
            // Another interface of the container or an earlier ADD has made the chain.
            Err(error) if error.is_exists() => iptables.transaction(|| self.additions(iptables)),
            made => Ok(made?),
        }
    }

    pub(super) fn check(&self, iptables: &Iptables<'_>) -> Result<(), Error> {
        for (table, chain, wanted) in self.by_chain() {
            let there: Vec<Rule> = iptables.rules(table, chain)?.map(|(_, rule)| rule).collect();
            // The last rule of the container's chain matches almost all packets. The jumps in POSTROUTING can
            // have any order.
            let together = if chain == POSTROUTING { 1 } else { wanted.len() };
            for wanted in wanted.chunks(together) {
                if let Some((at, how)) = lacking(&there, wanted) {
                    let rule = &wanted[at];
                    let rule = format!("{} rule -t nat -A {chain} {rule}", table.program());
                    return Err(Error::changed(rule, how));
                }
            }
        }
        Ok(())
    }

    /// Changes that fail with EEXIST if the container's chain exists.
    fn new_chains(&self, with_table: bool) -> Changes {
        let mut changes = Changes::new();
        for (table, chain, rules) in self.by_chain() {
            if chain == self.chain {
                if with_table {
                    add_postrouting(&mut changes, table);
                }
                changes.create_chain(table, chain);
            }
            for rule in &rules {
                changes.add_rule(table, chain, Place::Last, rule);
            }
        }
        changes
    }

    /// What has to be added if the container's chain exists. Fails if rules of another container use the
    /// chain: they would accept packets to that container's network.
    ///
    /// This does not add a chain again that exists: the kernel treats that as an update, and closing the
    /// socket waits until it has disposed of the old version.
    fn additions(&self, iptables: &Iptables<'_>) -> Result<Changes, Error> {
        let mut changes = Changes::new();
        for (table, chain, wanted) in self.by_chain() {
            if chain == self.chain {
                if !iptables.has_chain(table, POSTROUTING)? {
                    add_postrouting(&mut changes, table);
                }
                if !iptables.has_chain(table, chain)? {
                    changes.add_chain(table, chain);
                }
            }
            let there: Vec<Rule> = iptables.rules(table, chain)?.map(|(_, rule)| rule).collect();
            let mut of_chain = there
                .iter()
                .filter(|rule| chain == self.chain || rule.next_chain() == Some(&self.chain));
            if let Some(foreign) = of_chain.find(|rule| is_foreign(rule, &self.comment)) {
                let holder = foreign.comment_text().unwrap_or_default().to_owned();
                return Err(Error::NameTaken { chain: self.chain.clone(), holder });
            }
            for rule in wanted.iter().filter(|rule| !there.contains(rule)) {
                // A rule that accepts must come before the rule that masquerades the rest.
                let accepts = rule.target == Some(Target::Accept);
                let place = if accepts { Place::First } else { Place::Last };
                changes.add_rule(table, chain, place, rule);
            }
        }
        Ok(changes)
    }

    /// The rules in their order, for each family of the addresses: first those of the container's chain, then
    /// those of `POSTROUTING`.
    fn by_chain(&self) -> Vec<(Table, &str, Vec<Rule>)> {
        let mut all = Vec::new();
        for table in TABLES {
            let is_of_table = |cidr: &&Cidr| Family::of(cidr.ip()) == table.family();
            let of_table = || self.addresses.iter().filter(is_of_table);
            if of_table().next().is_none() {
                continue;
            }
            let accept = |cidr: &Cidr| {
                Rule::to(Target::Accept).destination(Is::equal(cidr.network().into()))
            };
            let jump =
                |cidr: &Cidr| Rule::jump(self.chain.clone()).source(Is::equal(cidr.ip().into()));
            let masquerade = Rule::to(Target::Masquerade { random_fully: false })
                .destination(Is::not(multicast(table.family())));
            let own = self.distinct(of_table().map(accept).chain([masquerade]));
            all.push((table, self.chain.as_str(), own));
            all.push((table, POSTROUTING, self.distinct(of_table().map(jump))));
        }
        all
    }

    /// The rules with the comment, without duplicates: two addresses of one network need its rule once.
    fn distinct(&self, rules: impl Iterator<Item = Rule>) -> Vec<Rule> {
        let mut all = Vec::new();
        for rule in rules.map(|rule| rule.comment(self.comment.clone())) {
            if !all.contains(&rule) {
                all.push(rule);
            }
        }
        all
    }
}

fn add_postrouting(changes: &mut Changes, table: Table) {
    changes.add_table(table);
    changes.add_base_chain(table, NatChain::Postrouting);
}

/// Checks that the rules can be read and written.
pub(super) fn try_out(iptables: &Iptables<'_>) -> Result<(), Error> {
    Ok(iptables.has_chain(TABLES[0], POSTROUTING).map(drop)?)
}

/// The changes that remove an attachment's rules.
pub(super) fn remove(
    iptables: &Iptables<'_>,
    owner: &Attachment,
    kept: &Kept<'_>,
) -> Result<Changes, Error> {
    let (chain, comment) = names(owner);
    let mut changes = Changes::new();
    for table in TABLES {
        if iptables.has_chain(table, &chain)? {
            remove_chain(iptables, table, &mut changes, (&chain, &comment), kept)?;
        }
    }
    Ok(changes)
}

/// The changes that remove the rules of a network's containers without a valid attachment.
pub(super) fn collect_garbage(
    iptables: &Iptables<'_>,
    network: &NetworkName,
    valid: &ValidAttachments,
) -> Result<Changes, Error> {
    let is_chain_of = |chain: &str, id: &str| chain_name("", network.as_str(), id) == chain;
    let is_garbage = |chain: &str, comment: &str| match parse(comment) {
        Some((of, Some(id))) if of == network.as_str() => {
            is_chain_of(chain, id) && !valid.contains_container(id)
        }
        // The ID was cut. It is garbage if no valid container has the chain.
        Some((of, None)) if of == network.as_str() => {
            !valid.containers().any(|id| is_chain_of(chain, id.as_str()))
        }
        _ => false,
    };
    remove_chains(iptables, is_garbage, &mut Vec::new())
}

/// The changes that remove the chains of all containers. Adds their names to `found`.
pub(super) fn remove_all(
    iptables: &Iptables<'_>,
    found: &mut Vec<String>,
) -> Result<Changes, Error> {
    let is_of_container = |chain: &str, comment: &str| match parse(comment) {
        Some((network, Some(id))) => chain_name("", network, id) == chain,
        _ => comment.starts_with(NAME) && comment.len() == COMMENT_MAX,
    };
    remove_chains(iptables, is_of_container, found)
}

/// The changes that remove the chains that `is_doomed` accepts by their names and the comments on their
/// rules.
fn remove_chains(
    iptables: &Iptables<'_>,
    is_doomed: impl Fn(&str, &str) -> bool,
    found: &mut Vec<String>,
) -> Result<Changes, Error> {
    let mut changes = Changes::new();
    let kept = Kept::new(Vec::new(), || Ok(false));
    let variant = if iptables.is_legacy() { "-legacy" } else { "" };
    for table in TABLES {
        let chains = iptables.chain_names(table)?;
        for chain in chains.iter().filter(|name| name.starts_with("CNI-")) {
            let first = iptables.rules(table, chain)?.next();
            let comment = first.as_ref().and_then(|(_, rule)| rule.comment_text());
            if let Some(comment) = comment.filter(|comment| is_doomed(chain, comment)) {
                remove_chain(iptables, table, &mut changes, (chain, comment), &kept)?;
                found.push(format!("{}{variant} -t nat chain {chain}, {comment}", table.program()));
            }
        }
    }
    Ok(changes)
}

/// Adds what removes a chain and the jumps to it, except jumps that are kept.
///
/// The hash in the chain's name has no separator between network and ID. So the chain can be another
/// container's too, as the comments on its rules show. Then these rules stay, and the chain with them.
fn remove_chain(
    iptables: &Iptables<'_>,
    table: Table,
    changes: &mut Changes,
    (chain, comment): (&str, &str),
    kept: &Kept<'_>,
) -> Result<(), Error> {
    let (mut is_needed, mut is_shared) = (false, false);
    let leads_here = |(_, rule): &(u64, Rule)| rule.next_chain() == Some(chain);
    for (handle, rule) in iptables.rules(table, POSTROUTING)?.filter(leads_here) {
        if is_foreign(&rule, comment) {
            is_shared = true;
        } else if rule.source.as_ref().map_or(Ok(false), |source| kept.has(source.value))? {
            is_needed = true;
        } else {
            changes.delete_rule(table, POSTROUTING, handle);
        }
    }
    if is_needed {
        return Ok(());
    }
    if !is_shared {
        changes.flush_chain(table, chain);
        changes.delete_chain(table, chain);
        return Ok(());
    }
    for (handle, rule) in iptables.rules(table, chain)? {
        if !is_foreign(&rule, comment) {
            changes.delete_rule(table, chain, handle);
        }
    }
    Ok(())
}

/// Whether a rule belongs to another container, by its comment.
fn is_foreign(rule: &Rule, comment: &str) -> bool {
    rule.comment_text().is_some_and(|text| text.starts_with(NAME) && text != comment)
}

/// The name of the container's chain, and the comment on its rules. The reference plugins use the same. The
/// comment is cut at iptables' limit.
fn names(owner: &Attachment) -> (String, String) {
    let (network, id) = (owner.network.as_str(), owner.container_id.as_str());
    let mut comment = format!("{NAME}{network}\"{ID}{id}\"");
    comment.truncate(COMMENT_MAX);
    (chain_name("", network, id), comment)
}

/// The network and the container's ID that a comment names; no ID if it was cut. `None` if the network's name
/// was cut, or the comment is of another form.
fn parse(comment: &str) -> Option<(&str, Option<&str>)> {
    let (network, rest) = comment.strip_prefix(NAME)?.split_once('"')?;
    let id = rest.strip_prefix(ID).and_then(|rest| rest.strip_suffix('"'));
    let is_cut = comment.len() == COMMENT_MAX && (rest.starts_with(ID) || ID.starts_with(rest));
    (id.is_some() || is_cut).then_some((network, id))
}

/// Finds the first rule of `wanted` that is not in a chain, or comes after the last one of `wanted`, which
/// matches what the others have left: its index, and what is wrong with it.
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
