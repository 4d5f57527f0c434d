//! Masquerading in an nftables table of its own, `inet cni_plugins_masquerade`.
//!
//! `postrouting` lets packets to multicast groups pass and sends all others to `masq_checks`, which has a
//! rule for each address of a pod. Table, chains, rules and comments are those of the reference plugins. A
//! comment begins with hashes of the network's name, and of the interface's and the container's: by these,
//! rules are found again.

use std::fmt::{self, Display};
use std::net::IpAddr;

use cni::{Cidr, NetworkName, ValidAttachments};
use ipnetwork::IpNetwork;
use kernel::nft::{
    Base, BaseChain, Chain, Expr, Hook, Listed, NewRule, Place, TableFamily, Verdict, meta, octets,
};
use kernel::{Batch, Family, Nfnetlink};

use super::{Owner, lacking, multicast};
use crate::error::Error;
use crate::hashed_name;

/// The rules that one attachment should have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rules {
    comment: String,
    addresses: Vec<Cidr>,
}

/// A rule, and how `nft` would write it.
struct Rule {
    text: String,
    new: NewRule,
}

const TABLE: &str = "cni_plugins_masquerade";
const TABLE_COMMENT: &str = "Masquerading for plugins from github.com/containernetworking/plugins";
const CHECKS: Chain<'_> = Chain { family: TableFamily::Inet, table: TABLE, name: "masq_checks" };
const CHECKS_COMMENT: &str =
    "Masquerade traffic from certain IPs to any (non-multicast) IP outside their subnet";
const POSTROUTING: Chain<'_> = Chain { name: "postrouting", ..CHECKS };
/// `NF_IP_PRI_NAT_SRC`, which `nft` calls `srcnat`.
const PLACE: BaseChain = BaseChain { kind: "nat", hook: Hook::Postrouting, priority: 100 };

/// Digits of each of the two hashes that a comment begins with.
const HASH_DIGITS: usize = 16;
/// What `nft` takes (`NFTNL_UDATA_COMMENT_MAXLEN`).
const COMMENT_MAX: usize = 128;

impl Rules {
    pub(super) fn wanted(owner: &Owner<'_>, addresses: Vec<Cidr>) -> Self {
        Self { comment: comment(owner), addresses }
    }

    pub(super) fn add(&self, netlink: &Nfnetlink) -> Result<(), Error> {
        netlink.transaction(|netlink| {
            let mut batch = frame(netlink)?;
            for rule in self.rules() {
                batch.add_rule(CHECKS, Place::Last, rule.new);
            }
            Ok(batch)
        })
    }

    pub(super) fn check(&self, netlink: &Nfnetlink) -> Result<(), Error> {
        compare(POSTROUTING, &rules_of(netlink, POSTROUTING)?, &ways())?;
        let there = rules_of(netlink, CHECKS)?;
        self.rules().try_for_each(|rule| compare(CHECKS, &there, &[rule]))
    }

    fn rules(&self) -> impl Iterator<Item = Rule> {
        self.addresses.iter().map(|cidr| {
            let (address, network) = (cidr.ip(), IpNetwork::from(cidr.network()));
            let source = source(address);
            let rest = [destination(network, true), vec![Expr::Masquerade]].concat();
            let expressions = [of_family(address), source, rest].concat();
            let ip = ip(address);
            let to = Destination(network);
            let comment = &self.comment;
            Rule {
                text: format!(
                    "{ip} saddr {address} {ip} daddr != {to} masquerade comment \"{comment}\""
                ),
                new: NewRule { expressions, comment: Some(comment.clone()), ..NewRule::default() },
            }
        })
    }
}

/// Adds to a batch what removes an attachment's rules.
pub(super) fn remove(
    netlink: &Nfnetlink,
    batch: &mut Batch,
    owner: &Owner<'_>,
) -> Result<(), kernel::Error> {
    let hashes = hashes(owner);
    remove_rules(netlink, batch, |comment| comment.starts_with(&hashes))
}

/// Adds to a batch what removes the rules of a network's attachments that are not valid.
pub(super) fn collect_garbage(
    netlink: &Nfnetlink,
    batch: &mut Batch,
    network: &NetworkName,
    valid: &ValidAttachments,
) -> Result<(), kernel::Error> {
    let of_network = format!("{}-", hash(network.as_str()));
    let attachments = valid.iter();
    let valid: Vec<String> = attachments
        .map(|(container_id, ifname)| hashes(&Owner { network, container_id, ifname }))
        .collect();
    remove_rules(netlink, batch, |comment| {
        comment.starts_with(&of_network) && !valid.iter().any(|hashes| comment.starts_with(hashes))
    })
}

/// What removes the rules of all attachments, and the table with them unless it has rules or chains of
/// another program. The table is added to `found`.
pub(super) fn remove_all(
    netlink: &Nfnetlink,
    found: &mut Vec<String>,
) -> Result<Batch, kernel::Error> {
    let mut batch = Batch::new();
    let chains = netlink.chain_names(TableFamily::Inet, TABLE)?;
    if chains.is_empty() {
        return Ok(batch);
    }
    let ways: Vec<NewRule> = ways().into_iter().map(|way| way.new).collect();
    let is_way = |rule: &NewRule| ways.contains(rule);
    let has_rules_of_others = rules_of(netlink, CHECKS)?.iter().any(|rule| !is_check(rule))
        || rules_of(netlink, POSTROUTING)?.iter().any(|rule| !is_way(rule));
    let is_ours = |name: &String| [CHECKS.name, POSTROUTING.name].contains(&name.as_str());
    if has_rules_of_others || !chains.iter().all(is_ours) {
        remove_rules(netlink, &mut batch, is_comment)?;
        found.extend((!batch.is_empty()).then(|| format!("nft rules in chain {CHECKS}")));
    } else {
        batch.delete_table(TableFamily::Inet, TABLE);
        found.push(format!("nft table inet {TABLE}"));
    }
    Ok(batch)
}

fn is_check(rule: &NewRule) -> bool {
    rule.comment.as_deref().is_some_and(is_comment)
}

/// Whether a comment is of the form that [`comment`] gives it.
fn is_comment(text: &str) -> bool {
    let hashes = text.split_once(", net: ").and_then(|(hashes, _)| hashes.split_once('-'));
    let is_hash =
        |text: &str| text.len() == HASH_DIGITS && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    hashes.is_some_and(|(network, attachment)| is_hash(network) && is_hash(attachment))
}

/// Finds out whether rules could be made. Nothing has to be tried where they would lack nothing but
/// themselves.
pub(super) fn try_out(netlink: &Nfnetlink) -> Result<(), Error> {
    let mut batch = frame(netlink)?;
    if batch.is_empty() {
        return Ok(());
    }
    let expressions = vec![Expr::Masquerade];
    batch.add_rule(CHECKS, Place::Last, NewRule { expressions, ..NewRule::default() });
    Ok(netlink.try_out(&batch)?)
}

fn remove_rules(
    netlink: &Nfnetlink,
    batch: &mut Batch,
    is_meant: impl Fn(&str) -> bool,
) -> Result<(), kernel::Error> {
    for rule in netlink.rules(CHECKS)? {
        if rule.comment.as_deref().is_some_and(&is_meant) {
            batch.delete_rule(CHECKS, rule.handle);
        }
    }
    Ok(())
}

/// A batch that makes the table, its chains, and the rules that all pods share; empty if these rules are
/// there, for they hold the rest: an emptied `postrouting` refuses no rule in `masq_checks`, and sends it no
/// packet.
fn frame(netlink: &Nfnetlink) -> Result<Batch, kernel::Error> {
    let mut batch = Batch::new();
    let there = rules_of(netlink, POSTROUTING)?;
    if compare(POSTROUTING, &there, &ways()).is_ok() {
        return Ok(batch);
    }
    batch.add_table_with_comment(TableFamily::Inet, TABLE, TABLE_COMMENT);
    batch.add_chain_with_comment(CHECKS, CHECKS_COMMENT);
    batch.add_base_chain(POSTROUTING, PLACE);
    // Others have no business in this table; the reference plugins write these again each time.
    if !there.is_empty() {
        batch.flush_chain(POSTROUTING);
    }
    for way in ways() {
        batch.add_rule(POSTROUTING, Place::Last, way.new);
    }
    Ok(batch)
}

/// The rules of `postrouting`.
fn ways() -> Vec<Rule> {
    let multicast = Family::ALL.map(|family| {
        let groups = multicast(family);
        let verdict = vec![Expr::Verdict(Verdict::Return)];
        let expressions = [of_family(groups.ip()), destination(groups, false), verdict].concat();
        let text = format!("{} daddr {groups} return", ip(groups.ip()));
        Rule { text, new: NewRule { expressions, ..NewRule::default() } }
    });
    let goto = vec![Expr::Verdict(Verdict::Goto(CHECKS.name.into()))];
    let rest = Rule {
        text: format!("goto {}", CHECKS.name),
        new: NewRule { expressions: goto, ..NewRule::default() },
    };
    multicast.into_iter().chain([rest]).collect()
}

/// Finds a rule that is missing from a chain, or comes too late in it.
fn compare(chain: Chain<'_>, there: &[NewRule], wanted: &[Rule]) -> Result<(), Error> {
    let rules: Vec<NewRule> = wanted.iter().map(|rule| rule.new.clone()).collect();
    match lacking(there, &rules) {
        None => Ok(()),
        Some((at, how)) => {
            Err(Error::changed(format!("nft rule {chain} {}", wanted[at].text), how))
        }
    }
}

fn rules_of(netlink: &Nfnetlink, chain: Chain<'_>) -> Result<Vec<NewRule>, kernel::Error> {
    let rules = netlink.rules(chain)?;
    let written = |rule: Listed| NewRule {
        expressions: rule.expressions,
        comment: rule.comment,
        ..NewRule::default()
    };
    Ok(rules.map(written).collect())
}

fn of_family(address: IpAddr) -> Vec<Expr> {
    let value = vec![Family::of(address).number()];
    vec![Expr::Meta(meta::NFPROTO), Expr::Cmp { negated: false, value }]
}

fn source(address: IpAddr) -> Vec<Expr> {
    let value = octets(address);
    let (offset, len) = if address.is_ipv4() { (12, 4) } else { (8, 16) };
    let load = Expr::Payload { base: Base::Network, offset, len };
    vec![load, Expr::Cmp { negated: false, value }]
}

fn destination(network: IpNetwork, negated: bool) -> Vec<Expr> {
    let (mut value, mask) = (octets(network.network()), octets(network.mask()));
    let (offset, mut len) = if network.is_ipv4() { (16, 4) } else { (24, 16) };
    let mut masked = Vec::new();
    // As `nft` has it: whole bytes are all that is loaded, where a prefix ends with one.
    let bytes = network.prefix() / 8;
    if network.prefix().is_multiple_of(8) && bytes != 0 {
        value.truncate(bytes.into());
        len = bytes.into();
    } else {
        masked.push(Expr::Bitwise { xor: vec![0; mask.len()], mask });
    }
    let load = Expr::Payload { base: Base::Network, offset, len };
    [vec![load], masked, vec![Expr::Cmp { negated, value }]].concat()
}

/// What `nft` calls the header of such an address.
fn ip(address: IpAddr) -> &'static str {
    if address.is_ipv4() { "ip" } else { "ip6" }
}

/// A network as `nft` shows it: that of one address is the address.
struct Destination(IpNetwork);

impl Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = if self.0.is_ipv4() { 32 } else { 128 };
        if self.0.prefix() == whole { self.0.ip().fmt(f) } else { self.0.fmt(f) }
    }
}

/// The reference plugins' comment, cut at `nft`'s limit.
fn comment(owner: &Owner<'_>) -> String {
    let Owner { network, container_id, ifname } = owner;
    let (hashes, ifname) = (hashes(owner), ifname.replace('"', ""));
    let mut text = format!("{hashes}, net: {network}, if: {ifname}, id: {container_id}");
    while text.len() > COMMENT_MAX {
        text.pop();
    }
    text
}

/// What an attachment's comment begins with.
fn hashes(owner: &Owner<'_>) -> String {
    let Owner { network, container_id, ifname } = owner;
    format!("{}-{}", hash(network.as_str()), hash(&format!("{ifname}:{container_id}")))
}

fn hash(text: &str) -> String {
    hashed_name("", HASH_DIGITS, &[text])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_are_those_of_the_reference_plugins() {
        let network = "testnet".parse().unwrap();
        let owner = Owner { network: &network, container_id: "pod-a", ifname: "eth0" };
        assert_eq!(
            comment(&owner),
            "c5964c6794a1152e-4fc55df38455c536, net: testnet, if: eth0, id: pod-a"
        );
        let long = "a".repeat(200);
        let cut = comment(&Owner { container_id: &long, ..owner });
        assert_eq!(cut.len(), 128);
        assert!(cut.ends_with("aaa"), "{cut}");
        assert!(is_comment(&cut) && is_comment(&comment(&owner)));
        assert!(!is_comment("the uplink, net: of another"));
    }
}
