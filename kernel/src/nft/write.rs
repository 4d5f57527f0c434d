//! Changes to tables, chains and rules, as messages of a batch.

use netlink_packet_core::{DefaultNla, NLM_F_APPEND, NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_netfilter::nftables::{
    ChainAttribute, ChainMessage, Hook as WireHook, HookNumber, InetHookNumber, NfTablesMessage,
    RuleAttribute, RuleMessage, TableAttribute, TableMessage,
};

use super::{BaseChain, Chain, NewRule, Place, Table};
use crate::nfnetlink::Batch;

/// The longest comment that `nft` accepts.
const COMMENT_MAX: usize = 128;
/// `NFT_USERDATA_MAXLEN` less type, length and final zero.
const OWNER_MAX: usize = 253;
/// `NFTNL_UDATA_RULE_COMMENT`.
pub(super) const COMMENT: u8 = 0;
/// A type of our own. nft and iptables ignore unknown types.
pub(super) const OWNER: u8 = 0x70;

impl Batch {
    /// Adds a table unless it exists. The comment has the format of `nft`.
    pub fn add_table(&mut self, table: Table, comment: Option<&str>) {
        let mut attributes = vec![TableAttribute::Name(table.name.into())];
        attributes.extend(comment.map(|text| TableAttribute::UserData(comment_udata(text))));
        let message = NfTablesMessage::NewTable(TableMessage { attributes });
        self.push(table.family, NLM_F_CREATE, message, || format!("add table {table}"));
    }

    /// Deletes a table with all its contents. Fails with ENOENT if it does not exist.
    pub fn delete_table(&mut self, table: Table) {
        let attributes = vec![TableAttribute::Name(table.name.into())];
        let message = NfTablesMessage::DeleteTable(TableMessage { attributes });
        self.push(table.family, 0, message, || format!("delete table {table}"));
    }

    /// Adds a chain unless it exists. The comment has the format of `nft`.
    pub fn add_chain(&mut self, chain: Chain<'_>, comment: Option<&str>) {
        let mut attributes = named(chain);
        attributes.extend(comment.map(|text| ChainAttribute::UserData(comment_udata(text))));
        let message = NfTablesMessage::NewChain(ChainMessage { attributes });
        self.push(chain.family, NLM_F_CREATE, message, || format!("add chain {chain}"));
    }

    /// Adds a chain. The whole batch fails with EEXIST if it exists.
    pub fn create_chain(&mut self, chain: Chain<'_>) {
        let message = NfTablesMessage::NewChain(ChainMessage { attributes: named(chain) });
        let flags = NLM_F_CREATE | NLM_F_EXCL;
        self.push(chain.family, flags, message, || format!("create chain {chain}"));
    }

    /// Adds a base chain unless it exists. Fails with EOPNOTSUPP or EEXIST if it has another hook. A new
    /// chain accepts packets. The policy of an existing one does not change.
    pub fn add_base_chain(&mut self, chain: Chain<'_>, base: BaseChain) {
        let mut attributes = named(chain);
        attributes.extend([
            ChainAttribute::Hook(vec![
                WireHook::Number(HookNumber::Inet(InetHookNumber::from(base.hook.number()))),
                WireHook::Priority(base.priority.cast_unsigned()),
            ]),
            ChainAttribute::Type(base.kind.into()),
        ]);
        let message = NfTablesMessage::NewChain(ChainMessage { attributes });
        self.push(chain.family, NLM_F_CREATE, message, || format!("add base chain {chain}"));
    }

    /// Deletes a chain, which must be empty and unused. Fails with ENOENT if it does not exist.
    pub fn delete_chain(&mut self, chain: Chain<'_>) {
        let message = NfTablesMessage::DeleteChain(ChainMessage { attributes: named(chain) });
        self.push(chain.family, 0, message, || format!("delete chain {chain}"));
    }

    /// Adds a rule.
    pub fn add_rule(&mut self, chain: Chain<'_>, place: Place, rule: NewRule) {
        let mut attributes = in_chain(chain);
        let elements = rule.expressions.iter().map(super::Expr::to_wire).collect();
        attributes.push(RuleAttribute::Expressions(elements));
        if let Some((protocol, flags)) = rule.compat {
            attributes.push(RuleAttribute::Compat(vec![
                DefaultNla::new(1, protocol.to_be_bytes().to_vec()),
                DefaultNla::new(2, flags.to_be_bytes().to_vec()),
            ]));
        }
        let mut udata = rule.comment.map(|text| comment_udata(&text)).unwrap_or_default();
        if let Some(owner) = rule.owner {
            udata.extend(text_udata(OWNER, &owner, OWNER_MAX));
        }
        if !udata.is_empty() {
            attributes.push(RuleAttribute::UserData(udata));
        }
        let flags = match place {
            Place::First => NLM_F_CREATE,
            Place::Last => NLM_F_CREATE | NLM_F_APPEND,
            Place::Before(handle) => {
                attributes.push(RuleAttribute::Position(handle));
                NLM_F_CREATE
            }
        };
        let message = NfTablesMessage::NewRule(RuleMessage { attributes });
        self.push(chain.family, flags, message, || format!("add rule to {chain}"));
    }

    /// Deletes one rule. Fails with ENOENT if it does not exist.
    pub fn delete_rule(&mut self, chain: Chain<'_>, handle: u64) {
        let mut attributes = in_chain(chain);
        attributes.push(RuleAttribute::Handle(handle));
        let message = NfTablesMessage::DeleteRule(RuleMessage { attributes });
        self.push(chain.family, 0, message, || format!("delete rule {handle} of {chain}"));
    }

    /// Deletes all rules of a chain. Fails with ENOENT if the chain does not exist.
    pub fn flush_chain(&mut self, chain: Chain<'_>) {
        let attributes = in_chain(chain);
        let message = NfTablesMessage::DeleteRule(RuleMessage { attributes });
        self.push(chain.family, 0, message, || format!("delete all rules of {chain}"));
    }
}

fn named(chain: Chain<'_>) -> Vec<ChainAttribute> {
    vec![ChainAttribute::Table(chain.table.into()), ChainAttribute::Name(chain.name.into())]
}

fn in_chain(chain: Chain<'_>) -> Vec<RuleAttribute> {
    vec![RuleAttribute::Table(chain.table.into()), RuleAttribute::Chain(chain.name.into())]
}

/// A comment in the format of `nft` (`include/udata.h` of libnftnl): type 0, length with the final zero,
/// text.
pub(super) fn comment_udata(comment: &str) -> Vec<u8> {
    text_udata(COMMENT, comment, COMMENT_MAX)
}

fn text_udata(kind: u8, text: &str, max: usize) -> Vec<u8> {
    let text = text.as_bytes();
    let text = &text[..text.len().min(max)];
    let len = u8::try_from(text.len() + 1).unwrap_or(u8::MAX);
    [&[kind, len], text, &[0]].concat()
}
