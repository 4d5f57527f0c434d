//! Decodes the expressions of a rule, whichever version of iptables wrote them.
//!
//! Older versions have ports, marks and protocols in `x_tables` matches or in fields of the header, and
//! always mask addresses. Newer versions load only the bytes that they compare. Expressions that no known
//! version writes are kept in `Other`.

use std::net::IpAddr;

use ipnetwork::IpNetwork;

use super::{Bits, Is, Match, Ports, Rule, Target, xt};
use crate::family::Family;
use crate::nft::{Base, Expr, Verdict, address_offsets, meta};

impl Rule {
    /// Decodes a rule. This cannot fail: see [`Match::Other`] and [`Target::Other`].
    pub(crate) fn decode(family: Family, expressions: &[Expr]) -> Rule {
        let mut rule = Rule::default();
        let mut rest = expressions;
        while let Some((first, after)) = rest.split_first() {
            rest = match first {
                Expr::Meta(_) | Expr::Payload { .. } => rule.read_comparison(family, rest),
                Expr::Counter { .. } => after,
                Expr::Match(xt) => {
                    let known = xt::read_match(family, xt).unwrap_or_else(|| other_match(first));
                    rule.matches.extend(known);
                    after
                }
                Expr::Verdict(verdict) => {
                    rule.target = Some(read_verdict(verdict));
                    after
                }
                Expr::Target(xt) => {
                    let known = xt::read_target(family, xt);
                    rule.target = Some(known.unwrap_or_else(|| Target::Other(first.clone())));
                    after
                }
                _ => {
                    rule.matches.extend(other_match(first));
                    after
                }
            };
        }
        rule
    }

    /// Reads a load, an optional mask, and a comparison. Returns the expressions that follow.
    fn read_comparison<'e>(&mut self, family: Family, from: &'e [Expr]) -> &'e [Expr] {
        let (load, mask, test, len) = match from {
            [load, Expr::Bitwise { mask, xor }, test, ..] if xor.iter().all(|byte| *byte == 0) => {
                (load, Some(mask.as_slice()), test, 3)
            }
            [load, test, ..] => (load, None, test, 2),
            _ => (&from[0], None, &from[0], 1),
        };
        let (group, after) = from.split_at(len);
        if self.take_comparison(family, load, mask, test).is_none() {
            self.matches.push(Match::Other(group.to_vec()));
        }
        after
    }

    /// Sets the field or adds the match for a comparison. None if there is no field for it, or if the field
    /// is already set.
    fn take_comparison(
        &mut self,
        family: Family,
        load: &Expr,
        mask: Option<&[u8]>,
        test: &Expr,
    ) -> Option<()> {
        let (source, destination) = address_offsets(family);
        let next_header = if family == Family::V6 { 6 } else { 9 };
        match (load, test) {
            (Expr::Meta(meta::IIFNAME), Expr::Cmp { negated, value }) if mask.is_none() => {
                fill(&mut self.in_interface, *negated, interface(value)?)
            }
            (Expr::Meta(meta::OIFNAME), Expr::Cmp { negated, value }) if mask.is_none() => {
                fill(&mut self.out_interface, *negated, interface(value)?)
            }
            (Expr::Meta(meta::L4PROTO), Expr::Cmp { negated, value }) if mask.is_none() => {
                fill(&mut self.protocol, *negated, *value.first()?)
            }
            (
                Expr::Payload { base: Base::Network, offset, len: 1 },
                Expr::Cmp { negated, value },
            ) if *offset == next_header && mask.is_none() => {
                fill(&mut self.protocol, *negated, *value.first()?)
            }
            (Expr::Payload { base: Base::Network, offset, .. }, Expr::Cmp { negated, value }) => {
                let place = match *offset {
                    at if at == source => &mut self.source,
                    at if at == destination => &mut self.destination,
                    _ => return None,
                };
                fill(place, *negated, network(family, value, mask)?)
            }
            (Expr::Meta(meta::MARK), Expr::Cmp { negated, value }) => {
                let mask = mask.map_or(Some(u32::MAX), host_u32)?;
                let value = Bits { value: host_u32(value)?, mask };
                self.matches.push(Match::Mark(Is { value, negated: *negated }));
                Some(())
            }
            (Expr::Payload { base: Base::Transport, offset, len: 2 }, test) if mask.is_none() => {
                let ports = ports(test)?;
                self.matches.push(match offset {
                    0 => Match::SourcePort(ports),
                    2 => Match::DestinationPort(ports),
                    _ => return None,
                });
                Some(())
            }
            _ => None,
        }
    }
}

fn other_match(expression: &Expr) -> Vec<Match> {
    vec![Match::Other(vec![expression.clone()])]
}

fn fill<T>(place: &mut Option<Is<T>>, negated: bool, value: T) -> Option<()> {
    place.is_none().then(|| *place = Some(Is { value, negated }))
}

/// Reads an interface name. A name with a final zero is a whole name, one without is a beginning.
fn interface(value: &[u8]) -> Option<String> {
    let name = value.split(|byte| *byte == 0).next()?;
    let mut text = std::str::from_utf8(name).ok()?.to_owned();
    if name.len() == value.len() {
        text.push('+');
    }
    Some(text)
}

fn network(family: Family, value: &[u8], mask: Option<&[u8]>) -> Option<IpNetwork> {
    let prefix = match mask {
        None => u8::try_from(value.len() * 8).ok()?,
        Some(mask) => prefix_length(mask)?,
    };
    let address = if family == Family::V6 {
        IpAddr::from(padded::<16>(value)?)
    } else {
        IpAddr::from(padded::<4>(value)?)
    };
    IpNetwork::new(address, prefix).ok()
}

/// The number of leading ones, if all other bits are zero.
fn prefix_length(mask: &[u8]) -> Option<u8> {
    let ones: u32 = mask.iter().map(|byte| byte.count_ones()).sum();
    let mut leading = 0;
    for byte in mask {
        leading += byte.leading_ones();
        if *byte != u8::MAX {
            break;
        }
    }
    (ones == leading).then(|| u8::try_from(ones).ok())?
}

fn padded<const N: usize>(value: &[u8]) -> Option<[u8; N]> {
    let mut out = [0; N];
    out.get_mut(..value.len())?.copy_from_slice(value);
    Some(out)
}

fn ports(test: &Expr) -> Option<Is<Ports>> {
    let port = |bytes: &[u8]| bytes.try_into().ok().map(u16::from_be_bytes);
    Some(match test {
        Expr::Cmp { negated, value } => Is { value: port(value)?.into(), negated: *negated },
        Expr::Range { negated, from, to } => {
            Is { value: Ports { first: port(from)?, last: port(to)? }, negated: *negated }
        }
        _ => return None,
    })
}

fn host_u32(bytes: &[u8]) -> Option<u32> {
    bytes.try_into().ok().map(u32::from_ne_bytes)
}

fn read_verdict(verdict: &Verdict) -> Target {
    match verdict {
        Verdict::Accept => Target::Accept,
        Verdict::Drop => Target::Drop,
        Verdict::Return => Target::Return,
        Verdict::Jump(chain) => Target::Jump(chain.clone()),
        Verdict::Goto(chain) => Target::Goto(chain.clone()),
    }
}
