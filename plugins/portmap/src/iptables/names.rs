//! The names of chains, and the comments that name their owners. Both are those of the reference plugin.

use attach::chain_name;
use kernel::iptables::{COMMENT_MAX, Rule};

/// The chain of all entries.
pub(super) const DNAT_CHAIN: &str = "CNI-HOSTPORT-DNAT";
/// The prefix of the names of containers' chains.
pub(crate) const CHAIN_PREFIX: &str = "CNI-DN-";
/// The chain that marks packets for masquerading.
pub(super) const SET_MARK_CHAIN: &str = "CNI-HOSTPORT-SETMARK";
/// The chain that masquerades marked packets.
pub(super) const MASQUERADE_CHAIN: &str = "CNI-HOSTPORT-MASQ";
/// The chains that all containers share.
pub(crate) const SHARED_CHAINS: [&str; 3] = [DNAT_CHAIN, SET_MARK_CHAIN, MASQUERADE_CHAIN];
/// The chain of entries of the second kind, which reference plugins before 0.8 made.
pub(super) const OLD_SNAT_CHAIN: &str = "CNI-HOSTPORT-SNAT";
/// The prefix of the names of the chains that these entries jump to.
pub(super) const OLD_CHAIN_PREFIX: &str = "CNI-SN-";

/// The end of a comment that was too long.
const CUT: &str = "...";

/// The name of a container's chain. Network and ID are hashed with nothing between them, as the reference
/// plugin does, so that another container's chain can have the same name; [`is_foreign`] finds out.
pub(super) fn own_chain(network: &str, container_id: &str) -> String {
    chain_name("DN-", network, container_id)
}

/// The name of the container's chain of the second kind.
pub(super) fn old_chain(network: &str, container_id: &str) -> String {
    chain_name("SN-", network, container_id)
}

/// The comment on a container's entries; cut if it is too long.
pub(super) fn comment(network: &str, container_id: &str) -> String {
    let mut text = format!("dnat name: \"{network}\" id: \"{container_id}\"");
    if text.len() > COMMENT_MAX {
        // Names are ASCII, so every byte is a character.
        text.truncate(COMMENT_MAX - CUT.len());
        text.push_str(CUT);
    }
    text
}

/// The ID of the container that a comment names, if it is one of this network.
pub(super) fn owner_id<'a>(comment: &'a str, network: &str) -> Option<&'a str> {
    owner_rest(comment, network)?.strip_suffix('"')
}

/// Whether a comment names a container of this network, with an ID that was cut.
pub(super) fn has_cut_id(comment: &str, network: &str) -> bool {
    comment.len() == COMMENT_MAX
        && owner_rest(comment, network).is_some_and(|rest| rest.ends_with(CUT))
}

fn owner_rest<'a>(comment: &'a str, network: &str) -> Option<&'a str> {
    let rest = comment.strip_prefix("dnat name: \"")?.strip_prefix(network)?;
    rest.strip_prefix("\" id: \"")
}

/// Whether the comment on an entry names another container than `comment` does. The second kind of old
/// reference plugins begins with `snat`.
pub(super) fn is_foreign(entry: &Rule, comment: &str) -> bool {
    let owner = |text: &str| {
        let rest = text.strip_prefix("dnat ").or_else(|| text.strip_prefix("snat "))?;
        rest.starts_with("name: \"").then(|| rest.to_owned())
    };
    let theirs = entry.comment_text().and_then(owner);
    theirs.is_some() && theirs != owner(comment)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_are_read_from_comments() {
        assert_eq!(owner_id(&comment("testnet", "pod-a"), "testnet"), Some("pod-a"));
        assert_eq!(owner_id(&comment("testnet", "pod-a"), "test"), None);
        assert_eq!(owner_id("name: \"testnet\" id: \"pod-a\"", "testnet"), None);
        let long = comment("testnet", &"a".repeat(300));
        assert_eq!(long.len(), COMMENT_MAX);
        assert_eq!(owner_id(&long, "testnet"), None);
        assert!(has_cut_id(&long, "testnet"));
    }
}
