//! The table and the chains of `macspoofchk`.

use cni::Attachment;
use kernel::Nfnetlink;
use kernel::nft::{Chain, Table, TableFamily};

use crate::names::hashed_name;

/// What follows from the names of a container and its interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Names {
    pub(super) interface_chain: String,
    pub(super) mac_chain: String,
    pub(super) comment: String,
}

pub(super) const TABLE: Table = Table { family: TableFamily::Bridge, name: "nat" };
pub(super) const PREROUTING: Chain<'_> = chain("PREROUTING");
pub(super) const CHAIN_PREFIX: &str = "cni-br-iface-";
const MAC_SUFFIX: &str = "-mac";
/// `NFT_NAME_MAXLEN` less the final zero.
const CHAIN_NAME_MAX: usize = 255;
const HASH_DIGITS: usize = 32;

impl Names {
    /// The names of the reference plugins, or a hash in their place if the kernel does not have room for
    /// them.
    pub(super) fn of(attachment: &Attachment) -> Self {
        let id = format!("{}-{}", attachment.container_id, attachment.ifname);
        if CHAIN_PREFIX.len() + id.len() + MAC_SUFFIX.len() > CHAIN_NAME_MAX {
            return Self::of_id(&hashed_name("", HASH_DIGITS, &[&id]));
        }
        Self::of_id(&id)
    }

    /// `id` is what the chains of an attachment have in common.
    pub(super) fn of_id(id: &str) -> Self {
        let interface_chain = format!("{CHAIN_PREFIX}{id}");
        let mac_chain = format!("{interface_chain}{MAC_SUFFIX}");
        Self { interface_chain, mac_chain, comment: format!("macspoofchk-{id}") }
    }

    /// The chains of the attachment that the table has.
    pub(super) fn present(&self, netlink: &Nfnetlink) -> kernel::Result<Vec<String>> {
        let mut present = Vec::new();
        for name in [&self.interface_chain, &self.mac_chain] {
            if netlink.has_chain(chain(name))? {
                present.push(name.clone());
            }
        }
        Ok(present)
    }
}

/// A chain of the table.
pub(super) const fn chain(name: &str) -> Chain<'_> {
    TABLE.chain(name)
}
