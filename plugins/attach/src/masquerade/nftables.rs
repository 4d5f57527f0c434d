//! Masquerading in an nftables table of its own, `inet cni_plugins_masquerade`.
//!
//! `postrouting` accepts packets to multicast groups and sends all others to `masq_checks`, which has a rule
//! for each address of a pod. Table, chains, rules and comments are those of the reference plugins. A comment
//! begins with hashes of the network's name, and of the interface's and the container's: DEL and GC find the
//! rules by these.

use std::fmt::{self, Display};

use cni::{Attachment, Cidr, NetworkName, ValidAttachments};
use ipnetwork::IpNetwork;
use kernel::nft::{
    BaseChain, Chain, ChainSpec, Contents, Expr, Hook, Listed, NewRule, Order, Place, Purged,
    RuleSpec, Table, TableFamily, TableSpec, Verdict, octets,
};
use kernel::{Batch, Family, Nfnetlink};

use super::multicast;
use crate::error::Error;
use crate::hashed_name;

/// The rules that one attachment should have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rules {
    comment: String,
    addresses: Vec<Cidr>,
}

const TABLE: Table = Table { family: TableFamily::Inet, name: "cni_plugins_masquerade" };
const TABLE_COMMENT: &str = "Masquerading for plugins from github.com/containernetworking/plugins";
const CHECKS: Chain<'_> = TABLE.chain("masq_checks");
const CHECKS_COMMENT: &str =
    "Masquerade traffic from certain IPs to any (non-multicast) IP outside their subnet";
const POSTROUTING: &str = "postrouting";
/// `NF_IP_PRI_NAT_SRC`, which `nft` calls `srcnat`.
const PLACE: BaseChain = BaseChain { kind: "nat", hook: Hook::Postrouting, priority: 100 };

/// Digits of each of the two hashes that a comment begins with.
const HASH_DIGITS: usize = 16;
/// What `nft` takes (`NFTNL_UDATA_COMMENT_MAXLEN`).
const COMMENT_MAX: usize = 128;

impl Rules {
    pub(super) fn wanted(owner: &Attachment, addresses: Vec<Cidr>) -> Self {
        Self { comment: comment(owner), addresses }
    }

    pub(super) fn add(&self, netlink: &Nfnetlink) -> Result<(), Error> {
        netlink.transaction(|netlink| {
            let mut batch = Batch::new();
            let (spec, contents) = (spec(), shared(netlink)?);
            spec.missing(&contents).add_to(&mut batch);
            for RuleSpec { expressions, .. } in self.rules() {
                let comment = Some(self.comment.clone());
                let rule = NewRule { expressions, comment, ..NewRule::default() };
                batch.add_rule(CHECKS, Place::Last, rule);
            }
            Ok(batch)
        })
    }

    pub(super) fn check(&self, netlink: &Nfnetlink) -> Result<(), Error> {
        let (spec, contents) = (spec(), shared(netlink)?);
        if let Some(part) = spec.missing(&contents).first() {
            return Err(Error::changed(format!("nft {} {}", part.what, part.name), part.how()));
        }
        let listed: Vec<_> = netlink.rules(CHECKS)?.collect();
        for RuleSpec { expressions, text } in self.rules() {
            let is_it = |rule: &Listed| {
                rule.expressions == expressions && rule.comment.as_ref() == Some(&self.comment)
            };
            if !listed.iter().any(is_it) {
                return Err(Error::missing(format!("nft rule {CHECKS} {text}")));
            }
        }
        Ok(())
    }

    fn rules(&self) -> impl Iterator<Item = RuleSpec> {
        self.addresses.iter().map(|cidr| {
            let (address, network) = (cidr.ip(), IpNetwork::from(cidr.network()));
            let family = Family::of(address);
            let source = [Expr::source(family), Expr::equal(octets(address))];
            let rest = [destination(network, true), vec![Expr::Masquerade]].concat();
            let expressions = [&Expr::is_of(family)[..], &source, &rest].concat();
            let (ip, to) = (TableFamily::from(family).name(), Destination(network));
            let comment = &self.comment;
            let text =
                format!("{ip} saddr {address} {ip} daddr != {to} masquerade comment \"{comment}\"");
            RuleSpec { expressions, text }
        })
    }
}

/// Adds to a batch what removes an attachment's rules.
pub(super) fn remove(
    netlink: &Nfnetlink,
    batch: &mut Batch,
    owner: &Attachment,
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
    let valid: Vec<String> = valid.attachments().map(|it| hashes(&it)).collect();
    remove_rules(netlink, batch, |comment| {
        comment.starts_with(&of_network) && !valid.iter().any(|hashes| comment.starts_with(hashes))
    })
}

/// What removes the table, or only the rules of attachments and those that they share if the table has rules
/// or chains of another program. What is removed is added to `found`.
pub(super) fn remove_all(
    netlink: &Nfnetlink,
    found: &mut Vec<String>,
) -> Result<Batch, kernel::Error> {
    let mut batch = Batch::new();
    let is_owned = |rule: &Listed| rule.comment.as_deref().is_some_and(is_comment);
    match spec().purge(netlink, &mut batch, is_owned, |_| false)? {
        Purged::Nothing => {}
        Purged::Table => found.push(format!("nft table {TABLE}")),
        Purged::Parts => found.push(format!("nft rules in table {TABLE}")),
    }
    Ok(batch)
}

/// Whether a comment is of the form that [`comment`] gives it.
fn is_comment(text: &str) -> bool {
    let hashes = text.split_once(", net: ").and_then(|(hashes, _)| hashes.split_once('-'));
    let is_hash =
        |text: &str| text.len() == HASH_DIGITS && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    hashes.is_some_and(|(network, attachment)| is_hash(network) && is_hash(attachment))
}

/// Checks that the kernel can masquerade, unless the table is complete.
pub(super) fn try_out(netlink: &Nfnetlink) -> Result<(), Error> {
    let (spec, mut batch) = (spec(), Batch::new());
    spec.missing(&shared(netlink)?).add_to(&mut batch);
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

/// The table, which all pods share. The reference plugins also replace all rules of `postrouting`.
fn spec() -> TableSpec {
    let multicast = Family::ALL.map(|family| {
        let groups = multicast(family);
        let rest = [destination(groups, false), vec![Expr::Verdict(Verdict::Return)]].concat();
        let text = format!("{} daddr {groups} return", TableFamily::from(family).name());
        RuleSpec { expressions: [&Expr::is_of(family)[..], &rest].concat(), text }
    });
    let goto = RuleSpec {
        expressions: vec![Expr::Verdict(Verdict::Goto(CHECKS.name.into()))],
        text: format!("goto {}", CHECKS.name),
    };
    let order = Order::Alone;
    let comment = Some(CHECKS_COMMENT);
    let checks = ChainSpec { name: CHECKS.name, base: None, comment, rules: Vec::new(), order };
    let rules = multicast.into_iter().chain([goto]).collect();
    let postrouting =
        ChainSpec { name: POSTROUTING, base: Some(PLACE), comment: None, rules, order };
    let (comment, chains) = (Some(TABLE_COMMENT), vec![checks, postrouting]);
    TableSpec { table: TABLE, comment, sets: Vec::new(), chains }
}

/// The rules of `postrouting`. They prove that the chain `masq_checks` is there, so that the rules of all
/// pods need not be read.
fn shared(netlink: &Nfnetlink) -> Result<Contents, kernel::Error> {
    Contents::of_chain(netlink, TABLE, POSTROUTING)
}

fn destination(network: IpNetwork, negated: bool) -> Vec<Expr> {
    Expr::in_network(Expr::destination(Family::of(network.ip())), network, negated)
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
fn comment(owner: &Attachment) -> String {
    let Attachment { network, container_id, ifname } = owner;
    let (hashes, ifname) = (hashes(owner), ifname.as_str().replace('"', ""));
    let mut text = format!("{hashes}, net: {network}, if: {ifname}, id: {container_id}");
    while text.len() > COMMENT_MAX {
        text.pop();
    }
    text
}

/// What an attachment's comment begins with.
fn hashes(owner: &Attachment) -> String {
    let Attachment { network, container_id, ifname } = owner;
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
        let owner = |id: &str| Attachment::from_names("testnet", id, "eth0").unwrap();
        assert_eq!(
            comment(&owner("pod-a")),
            "c5964c6794a1152e-4fc55df38455c536, net: testnet, if: eth0, id: pod-a"
        );
        let cut = comment(&owner(&"a".repeat(200)));
        assert_eq!(cut.len(), 128);
        assert!(cut.ends_with("aaa"), "{cut}");
        assert!(is_comment(&cut) && is_comment(&comment(&owner("pod-a"))));
        assert!(!is_comment("the uplink, net: of another"));
    }
}
