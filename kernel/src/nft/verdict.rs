//! Verdicts.

use netlink_packet_netfilter::nftables as wire;

use super::attribute::{attribute, be_u32, string};

/// What a rule does with a packet (`enum nft_verdicts` and `NF_ACCEPT`, `NF_DROP`).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Verdict {
    /// Accept it. Later base chains can still drop it.
    Accept,
    /// Drop it.
    Drop,
    /// Return to the calling chain.
    Return,
    /// Continue in another chain, and return at its end.
    Jump(String),
    /// Continue in another chain, without returning.
    Goto(String),
}

const NF_DROP: u32 = 0;
const NF_ACCEPT: u32 = 1;
const NFT_JUMP: u32 = u32::MAX - 2;
const NFT_GOTO: u32 = u32::MAX - 3;
const NFT_RETURN: u32 = u32::MAX - 4;

impl Verdict {
    pub(super) fn to_wire(&self) -> wire::DataAttribute {
        let code = |code: u32| wire::VerdictAttribute::Code(code.into());
        let chain = |name: &str| wire::VerdictAttribute::Chain(name.into());
        wire::DataAttribute::Verdict(match self {
            Verdict::Accept => vec![code(NF_ACCEPT)],
            Verdict::Drop => vec![code(NF_DROP)],
            Verdict::Return => vec![code(NFT_RETURN)],
            Verdict::Jump(name) => vec![code(NFT_JUMP), chain(name)],
            Verdict::Goto(name) => vec![code(NFT_GOTO), chain(name)],
        })
    }

    /// Reads an `NFTA_IMMEDIATE_DATA` or `NFTA_SET_ELEM_DATA`.
    pub(super) fn parse(data: &[u8]) -> Option<Self> {
        let verdict = attribute(data, 2)?;
        let chain = attribute(verdict, 2).map(string).unwrap_or_default();
        Some(match be_u32(attribute(verdict, 1)?)? {
            NF_ACCEPT => Verdict::Accept,
            NF_DROP => Verdict::Drop,
            NFT_RETURN => Verdict::Return,
            NFT_JUMP => Verdict::Jump(chain.into()),
            NFT_GOTO => Verdict::Goto(chain.into()),
            _ => return None,
        })
    }
}
