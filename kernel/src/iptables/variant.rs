//! Finds out which of the two variants of iptables a node uses.
//!
//! A kernel can have both: `nf_tables` and the legacy `x_tables`. Packets pass both. But rules can only be
//! ordered and listed together with those of kube-proxy and other programs in the variant that these use.

use super::changes::Changes;
use super::legacy::{HINT_TABLE, HINTS, Legacy, has_iptables};
use super::{OwnedRule, Rule, Table};
use crate::error::{Cause, Error, Result};
use crate::family::Family;
use crate::nfnetlink::Nfnetlink;

/// The tables of iptables and ip6tables in one of the variants.
#[derive(Debug)]
pub struct Iptables<'n> {
    netlink: &'n Nfnetlink,
    /// None for `nf_tables`.
    legacy: Option<Legacy>,
}

/// The names of all tables of iptables.
const TABLES: [&str; 5] = ["filter", "nat", "mangle", "raw", "security"];

impl<'n> Iptables<'n> {
    /// The variant that this node uses, the same for both families. If the kernel has both, it is the first
    /// of these:
    ///
    /// 1. the variant with the hint of the kubelet;
    /// 2. the variant with rules of pods, if only one of them has some. So the choice does not change as long
    ///    as a pod has rules, whatever other programs write;
    /// 3. the legacy variant, if it has more rules of other programs;
    /// 4. `nf_tables`.
    ///
    /// If it is the legacy variant, other processes of these plugins wait until the value is dropped.
    ///
    /// Errors: `Cause::NoLegacyProgram` if the legacy variant seems to be in use, and no program that can
    /// change it is installed.
    pub fn of_node(netlink: &'n Nfnetlink) -> Result<Self> {
        let nf_tables = Self { netlink, legacy: None };
        if !Legacy::is_possible()? {
            return Ok(nf_tables);
        }
        let has_nf_tables = netlink.has_nf_tables()?;
        if has_nf_tables && nf_tables.has_hint()? {
            return Ok(nf_tables);
        }
        let count = || if has_nf_tables { nf_tables.count_rules() } else { Ok(Count::default()) };
        let Some(legacy) = Legacy::open()? else {
            // Without the legacy programs, all programs on this node write to nf_tables.
            if count()? != Count::default() {
                return Ok(nf_tables);
            }
            let operation = "find the program that changes the legacy iptables rules";
            return Err(Error::new(operation, Cause::NoLegacyProgram));
        };
        if !has_nf_tables || legacy.has_hint()? || legacy.count_rules()?.outweighs(count()?) {
            return Ok(Self { netlink, legacy: Some(legacy) });
        }
        Ok(nf_tables)
    }

    /// Whether this node uses iptables, in either variant: it has the program, or legacy tables, or the chain
    /// `FORWARD` of iptables, or the hint of the kubelet.
    pub fn is_in_use(netlink: &Nfnetlink) -> Result<bool> {
        if Legacy::is_possible()? || has_iptables() {
            return Ok(true);
        }
        if !netlink.has_nf_tables()? {
            return Ok(false);
        }
        for table in Family::ALL.map(Table::filter) {
            if netlink.has_chain(table.chain("FORWARD"))? {
                return Ok(true);
            }
        }
        Iptables { netlink, legacy: None }.has_hint()
    }

    /// All variants that may have rules in a table `nat`. Rules are removed from all of them, because the
    /// node may have changed from one variant to the other.
    pub fn all(netlink: &'n Nfnetlink) -> Result<Vec<Self>> {
        Self::all_with(netlink, "nat")
    }

    /// All variants that may have rules in a table of this name.
    pub fn all_with(netlink: &'n Nfnetlink, table: &str) -> Result<Vec<Self>> {
        let nf_tables = Self { netlink, legacy: None };
        if !Legacy::is_possible()? {
            return Ok(vec![nf_tables]);
        }
        let mut all = Vec::new();
        if netlink.has_nf_tables()? {
            all.push(nf_tables);
        }
        if Legacy::has_table(table)? {
            // Without the programs, there are no legacy rules.
            let legacy = Legacy::open()?;
            all.extend(legacy.map(|legacy| Self { netlink, legacy: Some(legacy) }));
        }
        Ok(all)
    }

    /// Runs the checks of `look` on the variant that the node uses now. If they fail, runs them on the other
    /// variant, because the node may have changed from one to the other since the ADD. Packets pass both.
    ///
    /// Errors: if the checks fail on both variants, the error of the first.
    pub fn check<E: From<Error>>(
        netlink: &'n Nfnetlink,
        look: impl Fn(&Self) -> std::result::Result<(), E>,
    ) -> std::result::Result<(), E> {
        let of_node = Self::of_node(netlink)?;
        let (found, is_legacy) = (look(&of_node), of_node.is_legacy());
        // It may hold the lock that the other variant needs.
        drop(of_node);
        if found.is_err() {
            for other in Self::all(netlink)?.iter().filter(|it| it.is_legacy() != is_legacy) {
                if look(other).is_ok() {
                    return Ok(());
                }
            }
        }
        found
    }

    /// Whether these are the tables of the legacy variant.
    #[must_use]
    pub fn is_legacy(&self) -> bool {
        self.legacy.is_some()
    }

    /// The name of the variant, as `iptables -V` shows it.
    #[must_use]
    pub fn variant(&self) -> &'static str {
        if self.is_legacy() { "legacy" } else { "nf_tables" }
    }

    /// Whether the chain exists.
    pub fn has_chain(&self, table: Table, chain: &str) -> Result<bool> {
        match &self.legacy {
            None => self.netlink.has_chain(table.chain(chain)),
            Some(legacy) => legacy.has_chain(table, chain),
        }
    }

    /// The names of all chains. This is slow: use it for GC, not for ADD.
    pub fn chain_names(&self, table: Table) -> Result<Vec<String>> {
        match &self.legacy {
            None => self.netlink.chain_names(table.into()),
            Some(legacy) => legacy.chain_names(table),
        }
    }

    /// The rules of a chain with their handles, in the order of the chain. Empty if the chain does not exist.
    pub fn rules(&self, table: Table, chain: &str) -> Result<impl Iterator<Item = (u64, Rule)>> {
        Ok(self.owned_rules(table, chain)?.map(|one| (one.handle, one.rule)))
    }

    /// The same as [`Iptables::rules`], with the owners of the rules.
    pub fn owned_rules(
        &self,
        table: Table,
        chain: &str,
    ) -> Result<impl Iterator<Item = OwnedRule>> {
        let (nf_tables, legacy) = match &self.legacy {
            None => (Some(table.listed(self.netlink, chain)?), Vec::new()),
            Some(legacy) => (None, legacy.rules(table, chain)?),
        };
        let unnamed = |(handle, rule)| OwnedRule { handle, rule, owner: None };
        Ok(nf_tables.into_iter().flatten().chain(legacy.into_iter().map(unnamed)))
    }

    /// Makes all changes or none. The tables may have changed since they were read.
    pub fn commit(&self, changes: &Changes) -> Result<()> {
        match &self.legacy {
            None => self.netlink.commit(&changes.batch()),
            Some(legacy) => legacy.transaction(|| Ok(changes.clone())),
        }
    }

    /// Makes the changes that `build` computes from the tables. If the tables change before that is done,
    /// calls `build` again.
    pub fn transaction<E: From<Error>>(
        &self,
        mut build: impl FnMut() -> std::result::Result<Changes, E>,
    ) -> std::result::Result<(), E> {
        match &self.legacy {
            None => self.netlink.transaction(|_| Ok(build()?.batch())),
            Some(legacy) => legacy.transaction(build),
        }
    }

    /// Of `nf_tables`.
    fn has_hint(&self) -> Result<bool> {
        for family in Family::ALL {
            for name in HINTS {
                if self.netlink.has_chain(Table { family, name: HINT_TABLE }.chain(name))? {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    /// Of `nf_tables`.
    fn count_rules(&self) -> Result<Count> {
        let mut count = Count::default();
        for family in Family::ALL {
            self.netlink.each_rule(family.into(), &TABLES, |chain, next| count.add(chain, next))?;
        }
        Ok(count)
    }
}

/// The number of rules that a variant has, by the programs that wrote them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Count {
    /// Rules that CNI plugins (these or the reference plugins) wrote for one pod.
    pub(super) pods: usize,
    /// Rules that CNI plugins wrote for all pods. They stay when the last pod is deleted.
    pub(super) shared: usize,
    /// Rules of other programs.
    pub(super) others: usize,
}

impl Count {
    /// Counts a rule, by its chain and the chain that it leads to.
    pub(super) fn add(&mut self, chain: &str, next: Option<&str>) {
        let names = || [Some(chain), next].into_iter().flatten();
        if !names().any(|name| name.starts_with("CNI-")) {
            self.others += 1;
        } else if names().any(is_of_pod) || (chain == "CNI-FORWARD" && next.is_none()) {
            self.pods += 1;
        } else {
            self.shared += 1;
        }
    }

    /// The sum of two families.
    pub(super) fn plus(self, other: Self) -> Self {
        Self {
            pods: self.pods + other.pods,
            shared: self.shared + other.shared,
            others: self.others + other.others,
        }
    }

    /// Whether the node uses the variant with these rules, and not the variant with the `other` rules.
    fn outweighs(self, other: Self) -> bool {
        match (self.pods > 0, other.pods > 0) {
            (true, false) => true,
            (false, true) => false,
            _ => self.others > other.others,
        }
    }
}

/// Whether a chain belongs to one pod: its name is `CNI-DN-` or `CNI-` and a hash.
fn is_of_pod(chain: &str) -> bool {
    let Some(name) = chain.strip_prefix("CNI-") else { return false };
    let hash = name.strip_prefix("DN-").unwrap_or(name);
    hash.len() >= 16 && hash.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(rules: &[(&str, Option<&str>)]) -> Count {
        let mut count = Count::default();
        for (chain, next) in rules {
            count.add(chain, *next);
        }
        count
    }

    #[test]
    fn whose_rules_are_counted() {
        let pods = [
            ("POSTROUTING", Some("CNI-0123456789abcdef01234567")),
            ("CNI-0123456789abcdef01234567", None),
            ("CNI-HOSTPORT-DNAT", Some("CNI-DN-9b8cc9dd5d53e36658bb0")),
            ("CNI-FORWARD", None),
        ];
        assert_eq!(count(&pods), Count { pods: 4, shared: 0, others: 0 });
        let shared = [
            ("FORWARD", Some("CNI-FORWARD")),
            ("CNI-FORWARD", Some("CNI-ADMIN")),
            ("PREROUTING", Some("CNI-HOSTPORT-DNAT")),
            ("CNI-HOSTPORT-MASQ", None),
        ];
        assert_eq!(count(&shared), Count { pods: 0, shared: 4, others: 0 });
        let others = [("FORWARD", Some("DOCKER-USER")), ("INPUT", None)];
        assert_eq!(count(&others), Count { pods: 0, shared: 0, others: 2 });
    }

    #[test]
    fn a_choice_stays() {
        let (pods, others) =
            (Count { pods: 1, ..Count::default() }, Count { others: 9, ..Count::default() });
        assert!(pods.outweighs(others) && !others.outweighs(pods));
        let both = Count { pods: 1, others: 9, ..Count::default() };
        assert!(both.outweighs(pods) && !pods.outweighs(both) && !pods.outweighs(pods));
    }
}
