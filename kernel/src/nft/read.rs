//! Reads tables, chains and rules.

use netlink_packet_netfilter::nftables::{
    ChainAttribute, ChainMessage, NfTablesMessage, RuleAttribute, RuleMessage, TableAttribute,
    TableMessage,
};

use super::attribute::{attribute, attributes, be_u32, be_u64, string};
use super::write::{COMMENT, OWNER};
use super::{Chain, Expr, Hook, Table, TableFamily, Verdict};
use crate::error::Result;
use crate::nfnetlink::Nfnetlink;

const NFTA_CHAIN_TABLE: u16 = 1;
const NFTA_CHAIN_NAME: u16 = 3;
const NFTA_CHAIN_HOOK: u16 = 4;
const NFTA_CHAIN_POLICY: u16 = 5;
const NFTA_CHAIN_TYPE: u16 = 7;
const NFTA_HOOK_HOOKNUM: u16 = 1;
const NFTA_TABLE_FLAGS: u16 = 2;
const NFT_TABLE_F_DORMANT: u32 = 1;
const NF_DROP: u32 = 0;
const NFTA_RULE_TABLE: u16 = 1;
const NFTA_RULE_CHAIN: u16 = 2;
const NFTA_RULE_HANDLE: u16 = 3;
const NFTA_RULE_EXPRESSIONS: u16 = 4;
const NFTA_RULE_USERDATA: u16 = 7;

/// A rule as the kernel lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// The number that identifies it in its table.
    pub handle: u64,
    /// Its expressions.
    pub expressions: Vec<Expr>,
    /// Its comment in the format of `nft`.
    pub comment: Option<String>,
    /// Its owner, if a [`NewRule`](super::NewRule) has set it.
    pub owner: Option<String>,
}

/// A base chain of the kind `filter`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilterChain {
    /// The family of its table.
    pub family: TableFamily,
    /// The name of its table.
    pub table: String,
    /// Its own name.
    pub name: String,
    /// Its hook.
    pub hook: Hook,
    /// Whether its policy is to drop packets.
    pub drops: bool,
}

impl FilterChain {
    /// Reads the attributes of an `NFT_MSG_NEWCHAIN`. None if it is not a base chain of this kind.
    fn parse(family: TableFamily, body: &[u8]) -> Option<Self> {
        let text = |kind| attribute(body, kind).map(|value| string(value).to_owned());
        let hook = attribute(attribute(body, NFTA_CHAIN_HOOK)?, NFTA_HOOK_HOOKNUM)?;
        (string(attribute(body, NFTA_CHAIN_TYPE)?) == "filter").then_some(())?;
        Some(Self {
            family,
            table: text(NFTA_CHAIN_TABLE)?,
            name: text(NFTA_CHAIN_NAME)?,
            hook: Hook::from_number(be_u32(hook)?)?,
            drops: attribute(body, NFTA_CHAIN_POLICY).and_then(be_u32) == Some(NF_DROP),
        })
    }
}

impl Nfnetlink {
    /// Whether a chain exists.
    pub fn has_chain(&self, chain: Chain<'_>) -> Result<bool> {
        let message = NfTablesMessage::GetChain(ChainMessage {
            attributes: vec![
                ChainAttribute::Table(chain.table.into()),
                ChainAttribute::Name(chain.name.into()),
            ],
        });
        let found = self.get(chain.family, message, || format!("look for chain {chain}"))?;
        Ok(found.is_some())
    }

    /// The names of a table's chains. Empty if the table does not exist.
    ///
    /// The kernel reads the chains of all tables of the family, so this is too slow for every ADD.
    pub fn chain_names(&self, table: Table) -> Result<Vec<String>> {
        let message = NfTablesMessage::GetChain(ChainMessage { attributes: Vec::new() });
        let what = || format!("list the chains of table {table}");
        let bodies = self.dump(table.family, message, what)?;
        let names = bodies.iter().filter_map(|body| {
            let name = string(attribute(body, NFTA_CHAIN_NAME)?);
            (string(attribute(body, NFTA_CHAIN_TABLE)?) == table.name).then(|| name.to_owned())
        });
        Ok(names.collect())
    }

    /// The base chains of a family whose kind is `filter`.
    ///
    /// The kernel reads all chains of the family, so this is too slow for every ADD.
    pub fn filter_chains(&self, family: TableFamily) -> Result<Vec<FilterChain>> {
        let message = NfTablesMessage::GetChain(ChainMessage { attributes: Vec::new() });
        let what = || format!("list the chains of family {}", family.name());
        let bodies = self.dump(family, message, what)?;
        Ok(bodies.iter().filter_map(|body| FilterChain::parse(family, body)).collect())
    }

    /// Whether a table is switched off (`dormant`), so that packets skip its chains. False if it does not
    /// exist.
    pub fn is_dormant(&self, family: TableFamily, table: &str) -> Result<bool> {
        let attributes = vec![TableAttribute::Name(table.into())];
        let message = NfTablesMessage::GetTable(TableMessage { attributes });
        let what = || format!("look for table {} {table}", family.name());
        let found = self.get(family, message, what)?;
        let flags = found.as_ref().and_then(|body| be_u32(attribute(body, NFTA_TABLE_FLAGS)?));
        Ok(flags.unwrap_or(0) & NFT_TABLE_F_DORMANT != 0)
    }

    /// Calls `each` for all rules of some tables of a family, with the rule's chain and the chain to which
    /// the rule jumps.
    pub fn each_rule(
        &self,
        family: TableFamily,
        tables: &[&str],
        mut each: impl FnMut(&str, Option<&str>),
    ) -> Result<()> {
        let message = NfTablesMessage::GetRule(RuleMessage { attributes: Vec::new() });
        let what = || format!("list the rules of family {}", family.name());
        for body in &self.dump(family, message, what)? {
            let name = |kind| attribute(body, kind).map(string);
            let (Some(table), Some(chain)) = (name(NFTA_RULE_TABLE), name(NFTA_RULE_CHAIN)) else {
                continue;
            };
            if !tables.contains(&table) {
                continue;
            }
            // The verdict is the last expression.
            let all = attribute(body, NFTA_RULE_EXPRESSIONS);
            let last = all.and_then(|all| attributes(all).last());
            match last.map(|(_, last)| Expr::parse(last)) {
                Some(Expr::Verdict(Verdict::Jump(next) | Verdict::Goto(next))) => {
                    each(chain, Some(&next));
                }
                _ => each(chain, None),
            }
        }
        Ok(())
    }

    /// The rules of a table, each with the name of its chain. Empty if the table does not exist.
    pub fn table_rules(&self, table: Table) -> Result<Vec<(String, Listed)>> {
        let of = vec![RuleAttribute::Table(table.name.into())];
        let message = NfTablesMessage::GetRule(RuleMessage { attributes: of });
        let what = || format!("list the rules of table {table}");
        let bodies = self.dump(table.family, message, what)?;
        let rules = bodies.iter().filter_map(|body| {
            let name = string(attribute(body, NFTA_RULE_CHAIN)?);
            Some((name.to_owned(), Listed::parse(body, table.chain(name))?))
        });
        Ok(rules.collect())
    }

    /// The rules of a chain in their order. Empty if the chain does not exist.
    pub fn rules(&self, chain: Chain<'_>) -> Result<impl Iterator<Item = Listed>> {
        let message = NfTablesMessage::GetRule(RuleMessage {
            attributes: vec![
                RuleAttribute::Table(chain.table.into()),
                RuleAttribute::Chain(chain.name.into()),
            ],
        });
        let bodies = self.dump(chain.family, message, || format!("list the rules of {chain}"))?;
        Ok(bodies.into_iter().filter_map(move |body| Listed::parse(&body, chain)))
    }
}

impl Listed {
    /// The names of the sets and chains that the rule uses.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.expressions.iter().filter_map(|step| match step {
            Expr::Lookup { set: name, .. }
            | Expr::Verdict(Verdict::Jump(name) | Verdict::Goto(name)) => Some(name.as_str()),
            _ => None,
        })
    }

    /// Reads the attributes of an `NFT_MSG_NEWRULE`. None if the rule is in another chain: some kernels do
    /// not filter by chain.
    pub(crate) fn parse(body: &[u8], chain: Chain<'_>) -> Option<Self> {
        let mut rule = Listed { handle: 0, expressions: Vec::new(), comment: None, owner: None };
        for (kind, value) in attributes(body) {
            match kind {
                NFTA_RULE_TABLE if string(value) != chain.table => return None,
                NFTA_RULE_CHAIN if string(value) != chain.name => return None,
                NFTA_RULE_HANDLE => rule.handle = be_u64(value)?,
                NFTA_RULE_EXPRESSIONS => {
                    rule.expressions = attributes(value).map(|e| Expr::parse(e.1)).collect();
                }
                NFTA_RULE_USERDATA => {
                    rule.comment = comment(value);
                    rule.owner = udata_text(value, OWNER);
                }
                _ => {}
            }
        }
        Some(rule)
    }
}

/// The comment in the user data of `nft`, which has entries of type, length and value.
pub(super) fn comment(udata: &[u8]) -> Option<String> {
    udata_text(udata, COMMENT)
}

fn udata_text(mut udata: &[u8], wanted: u8) -> Option<String> {
    while let [kind, len, rest @ ..] = udata {
        let (value, after) = rest.split_at_checked((*len).into())?;
        if *kind == wanted {
            return Some(string(value).to_owned());
        }
        udata = after;
    }
    None
}
