//! Follows a packet through the rules of a table.

use std::cell::RefCell;
use std::collections::HashMap;

use super::Packet;
use super::step::{Act, Known, read};
use crate::error::Result;
use crate::nft::{Element, Expr};

/// A source of chains and sets.
pub(super) trait Chains {
    /// The rules of a chain, in the order of the chain. Empty if the chain does not exist.
    fn rules(&self, chain: &str) -> Result<Vec<Vec<Expr>>>;

    /// The elements of a set or map, including the catch-all element, which has an empty key.
    fn elements(&self, set: &str) -> Result<Vec<Element>>;
}

/// What may happen to a packet in a chain, other than a drop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Fate {
    /// It may be accepted.
    accepts: bool,
    /// It may reach the end of the chain, or a rule that returns.
    falls: bool,
}

/// The maximum depth of jumps, as in the kernel (`NFT_JUMP_STACK_SIZE`).
const DEPTH: u32 = 16;

/// Follows one packet through a table.
pub(super) struct Walk<'a, C> {
    chains: &'a C,
    known: Known,
    /// The results of chains that were already followed.
    seen: RefCell<HashMap<String, Fate>>,
}

impl<'a, C: Chains> Walk<'a, C> {
    pub(super) fn new(chains: &'a C, packet: Packet<'_>) -> Self {
        Self { chains, known: Known::of(packet), seen: RefCell::default() }
    }

    /// Some if a base chain certainly drops the packet: true if its policy does, false if a rule does.
    pub(super) fn drops(&self, chain: &str, policy: bool) -> Result<Option<bool>> {
        let fate = self.walk(chain, DEPTH)?;
        let is_dropped = !fate.accepts && (!fate.falls || policy);
        Ok(is_dropped.then_some(fate.falls))
    }

    fn walk(&self, chain: &str, depth: u32) -> Result<Fate> {
        if let Some(fate) = self.seen.borrow().get(chain) {
            return Ok(*fate);
        }
        let fate = match depth {
            0 => Fate { accepts: true, falls: true },
            _ => self.walk_rules(chain, depth - 1)?,
        };
        self.seen.borrow_mut().insert(chain.to_owned(), fate);
        Ok(fate)
    }

    fn walk_rules(&self, chain: &str, depth: u32) -> Result<Fate> {
        let mut fate = Fate { accepts: false, falls: false };
        for rule in self.chains.rules(chain)? {
            let step = read(&rule, &self.known, |set| self.chains.elements(set))?;
            let mut goes_on = !step.is_certain;
            for act in step.acts {
                match act {
                    Act::Accept => fate.accepts = true,
                    Act::Drop => {}
                    Act::Continue => goes_on = true,
                    Act::Return => fate.falls = true,
                    Act::Jump(next) => {
                        let next = self.walk(&next, depth)?;
                        fate.accepts |= next.accepts;
                        goes_on |= next.falls;
                    }
                    Act::Goto(next) => {
                        let next = self.walk(&next, depth)?;
                        fate.accepts |= next.accepts;
                        fate.falls |= next.falls;
                    }
                }
            }
            // The rules that follow cannot change the result.
            if fate.accepts || !goes_on {
                return Ok(fate);
            }
        }
        fate.falls = true;
        Ok(fate)
    }
}
