//! Masquerading in the table `nat` of iptables.
//!
//! `POSTROUTING` sends packets from the pod's address to a chain of the container's own, which lets those to
//! the pod's network and to multicast groups pass. Its rules are, to the letter, those of the reference
//! plugins, and so is its name, which follows from the network's name and the container's ID. Interfaces
//! that a container has in the same network share the chain; the address tells their rules apart.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use cni::{Cidr, NetworkName, ValidAttachments};
use ipnetwork::{IpNetwork, Ipv4Network, Ipv6Network};
use kernel::iptables::{COMMENT_MAX, Is, Nat, NatChain, Rule, Target};
use kernel::nft::Place;
use kernel::{Batch, Nfnetlink};

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
    nat: Nat,
    chain: String,
    rule: Rule,
}

const POSTROUTING: &str = "POSTROUTING";
const FAMILIES: [Nat; 2] = [Nat::V4, Nat::V6];

impl Rules {
    /// What an attachment with these addresses, each with its network's prefix, should have.
    pub(super) fn wanted(network: &NetworkName, container_id: &str, addresses: Vec<Cidr>) -> Self {
        Self {
            chain: chain_name("", network.as_str(), container_id),
            comment: comment(network.as_str(), container_id),
            addresses,
        }
    }

    /// Makes the rules. Nothing but additions, so that nobody has to wait for a disposal.
    pub(super) fn add(&self, netlink: &Nfnetlink) -> Result<(), Error> {
        if self.addresses.is_empty() {
            return Ok(());
        }
        match netlink.commit(&self.new_chains(false)) {
            Err(error) if error.is_exists() => {}
            Err(error) if error.is_not_found() => match netlink.commit(&self.new_chains(true)) {
                Err(error) if error.is_exists() => {}
                done => return Ok(done?),
            },
            done => return Ok(done?),
        }
        // Of another interface of the container, or of an ADD before this one.
        netlink.transaction(|netlink| Ok(self.additions(netlink)?))
    }

    /// Finds a rule that is missing.
    pub(super) fn check(&self, netlink: &Nfnetlink) -> Result<(), Error> {
        match self.missing(netlink)?.first() {
            None => Ok(()),
            Some(Missing { nat, chain, rule }) => {
                let program = if *nat == Nat::V6 { "ip6tables" } else { "iptables" };
                let object = format!("{program} rule -t nat -A {chain} {rule}");
                Err(Error::missing(object))
            }
        }
    }

    /// A batch that fails with EEXIST if there are chains of the container already.
    fn new_chains(&self, with_table: bool) -> Batch {
        let mut batch = Batch::new();
        for nat in self.families() {
            if with_table {
                nat.add_table(&mut batch);
                nat.add_base_chain(&mut batch, NatChain::Postrouting);
            }
            batch.create_chain(nat.chain(&self.chain));
            for (chain, rule) in self.rules(nat) {
                nat.add_rule(&mut batch, &chain, Place::Last, &rule);
            }
        }
        batch
    }

    /// What has to be added to chains that are there.
    fn additions(&self, netlink: &Nfnetlink) -> Result<Batch, kernel::Error> {
        let mut batch = Batch::new();
        // What is there already is not added again: the kernel would take that for an update, whose
        // disposal the closing of the socket waits for.
        for nat in self.families() {
            if !netlink.has_chain(nat.chain(POSTROUTING))? {
                nat.add_table(&mut batch);
                nat.add_base_chain(&mut batch, NatChain::Postrouting);
            }
            if !netlink.has_chain(nat.chain(&self.chain))? {
                batch.add_chain(nat.chain(&self.chain));
            }
        }
        for Missing { nat, chain, rule } in self.missing(netlink)? {
            // A further network has to pass before the rule that masquerades the rest.
            let passes = rule.target == Some(Target::Accept);
            let place = if passes { Place::First } else { Place::Last };
            nat.add_rule(&mut batch, &chain, place, &rule);
        }
        Ok(batch)
    }

    fn missing(&self, netlink: &Nfnetlink) -> Result<Vec<Missing>, kernel::Error> {
        let mut missing = Vec::new();
        for nat in self.families() {
            for chain in [self.chain.as_str(), POSTROUTING] {
                let there: Vec<Rule> = nat.rules(netlink, chain)?.map(|(_, rule)| rule).collect();
                let wanted = self.rules(nat).into_iter().filter(|(of, _)| of == chain);
                let gone = wanted.filter(|(_, rule)| !there.contains(rule));
                missing.extend(gone.map(|(chain, rule)| Missing { nat, chain, rule }));
            }
        }
        Ok(missing)
    }

    /// The rules of one family with their chains, in their order.
    fn rules(&self, nat: Nat) -> Vec<(String, Rule)> {
        let addresses = || self.addresses.iter().filter(|cidr| Nat::of(cidr.ip()) == nat);
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
        push(&self.chain, masquerade.destination(Is::not(multicast(nat))));
        for cidr in addresses() {
            let address = Is::equal(IpNetwork::from(cidr.ip()));
            push(POSTROUTING, Rule::jump(self.chain.clone()).source(address));
        }
        rules
    }

    fn families(&self) -> impl Iterator<Item = Nat> {
        let used = |nat: &Nat| self.addresses.iter().any(|cidr| Nat::of(cidr.ip()) == *nat);
        FAMILIES.into_iter().filter(used)
    }
}

/// Removes a container's rules, those that the reference plugins made too, by its names alone.
///
/// `in_use` are addresses that other interfaces of the container still have; what these need stays. The
/// caller closes the socket after it has deleted the pod's link: then the kernel disposes of both at a time.
pub(super) fn remove(
    netlink: &Nfnetlink,
    network: &NetworkName,
    container_id: &str,
    in_use: &[IpAddr],
) -> Result<(), Error> {
    let chain = chain_name("", network.as_str(), container_id);
    let comment = comment(network.as_str(), container_id);
    netlink.transaction(|netlink| {
        let mut batch = Batch::new();
        for nat in FAMILIES {
            if netlink.has_chain(nat.chain(&chain))? {
                remove_chain(netlink, nat, &mut batch, (&chain, &comment), in_use)?;
            }
        }
        Ok(batch)
    })
}

/// Removes the rules of a network's containers that have no valid attachment.
pub(super) fn collect_garbage(
    netlink: &Nfnetlink,
    network: &NetworkName,
    valid: &ValidAttachments,
) -> Result<(), Error> {
    netlink.transaction(|netlink| {
        let mut batch = Batch::new();
        for nat in FAMILIES {
            for chain in netlink.chain_names(nat.family(), "nat")? {
                if !chain.starts_with("CNI-") {
                    continue;
                }
                if let Some(comment) = garbage(netlink, nat, &chain, network, valid)? {
                    remove_chain(netlink, nat, &mut batch, (&chain, &comment), &[])?;
                }
            }
        }
        Ok(batch)
    })
}

/// Adds to a batch what removes a chain and the rules that lead to it, save for those of addresses in use.
///
/// Its name is a hash with nothing between network and ID, so it can be another container's too, known by the
/// comments on its rules: these stay, and the chain with them.
fn remove_chain(
    netlink: &Nfnetlink,
    nat: Nat,
    batch: &mut Batch,
    (chain, comment): (&str, &str),
    in_use: &[IpAddr],
) -> Result<(), kernel::Error> {
    // Old versions of the reference plugins gave the network, which holds the addresses as well.
    let used = |rule: &Rule| {
        let source = rule.source.map(|is| is.value);
        source.is_some_and(|source| in_use.iter().any(|address| source.contains(*address)))
    };
    let is_foreign = |rule: &Rule| {
        let text = rule.comment_text();
        text.is_some_and(|text| text.starts_with("name: \"") && text != comment)
    };
    let (mut still_needed, mut foreign) = (false, false);
    for (handle, rule) in nat.rules(netlink, POSTROUTING)? {
        if rule.next_chain() == Some(chain) {
            if is_foreign(&rule) {
                foreign = true;
            } else if used(&rule) {
                still_needed = true;
            } else {
                batch.delete_rule(nat.chain(POSTROUTING), handle);
            }
        }
    }
    if still_needed {
        return Ok(());
    }
    if !foreign {
        batch.flush_chain(nat.chain(chain));
        batch.delete_chain(nat.chain(chain));
        return Ok(());
    }
    for (handle, rule) in nat.rules(netlink, chain)? {
        if !is_foreign(&rule) {
            batch.delete_rule(nat.chain(chain), handle);
        }
    }
    Ok(())
}

/// The comment on a chain's rules, if by that and its name it is the chain of a container of this network, and
/// none of the container's attachments is valid.
fn garbage(
    netlink: &Nfnetlink,
    nat: Nat,
    chain: &str,
    network: &NetworkName,
    valid: &ValidAttachments,
) -> Result<Option<String>, kernel::Error> {
    let first = nat.rules(netlink, chain)?.next();
    let Some(text) = first.and_then(|(_, rule)| rule.comment_text().map(str::to_owned)) else {
        return Ok(None);
    };
    let is_chain_of = |id: &str| chain_name("", network.as_str(), id) == chain;
    let is_garbage = owner_rest(&text, network.as_str()).is_some_and(|rest| {
        match rest.strip_suffix('"') {
            Some(id) => is_chain_of(id) && !valid.contains_container(id),
            // What is left of a long ID is not enough to find the chain by; all others have to be excluded.
            None => text.len() == COMMENT_MAX && !valid.iter().any(|(id, _)| is_chain_of(id)),
        }
    });
    Ok(is_garbage.then_some(text))
}

/// As the reference plugins have it, as far as it fits.
fn comment(network: &str, container_id: &str) -> String {
    let mut text = format!("name: \"{network}\" id: \"{container_id}\"");
    while text.len() > COMMENT_MAX {
        text.pop();
    }
    text
}

/// What follows the network's name in a comment: the container's ID and a quotation mark, unless they were cut.
fn owner_rest<'a>(text: &'a str, network: &str) -> Option<&'a str> {
    let rest = text.strip_prefix("name: \"")?.strip_prefix(network)?;
    rest.strip_prefix("\" id: \"")
}

/// Groups that pods on the same network may talk to among themselves.
fn multicast(nat: Nat) -> IpNetwork {
    const V4: Ipv4Network = match Ipv4Network::new_checked(Ipv4Addr::new(224, 0, 0, 0), 4) {
        Some(network) => network,
        None => unreachable!(),
    };
    const V6: Ipv6Network =
        match Ipv6Network::new_checked(Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0), 8) {
            Some(network) => network,
            None => unreachable!(),
        };
    if nat == Nat::V6 { V6.into() } else { V4.into() }
}
