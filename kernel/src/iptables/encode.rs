//! Encodes a rule as the expressions that `iptables` 1.8.9 (`nf_tables`) writes.

use super::{Bits, Is, Match, Ports, Rule, SCTP, Target, iprange, xt};
use crate::family::Family;
use crate::nft::{Base, Expr, Verdict, meta};

impl Rule {
    /// The rule's expressions, in the order of `iptables`.
    pub(crate) fn encode(&self, family: Family) -> Vec<Expr> {
        let mut out = Vec::with_capacity(12);
        if let Some(name) = &self.in_interface {
            interface(&mut out, meta::IIFNAME, name);
        }
        if let Some(name) = &self.out_interface {
            interface(&mut out, meta::OIFNAME, name);
        }
        if let Some(protocol) = &self.protocol {
            out.push(Expr::Meta(meta::L4PROTO));
            out.push(Expr::Cmp { negated: protocol.negated, value: vec![protocol.value] });
        }
        if let Some(Is { value, negated }) = self.source {
            out.extend(Expr::in_network(Expr::source(family), value, negated));
        }
        if let Some(Is { value, negated }) = self.destination {
            out.extend(Expr::in_network(Expr::destination(family), value, negated));
        }
        let protocol = self.protocol.map(|is| is.value);
        for one in &self.matches {
            encode_match(&mut out, one, protocol);
        }
        out.push(Expr::ZERO);
        out.extend(self.target.as_ref().map(|target| encode_target(target, family)));
        out
    }

    /// The values of `NFTA_RULE_COMPAT`: the protocol, and the flag that inverts it. `x_tables` uses them to
    /// check its extensions.
    pub(crate) fn compat(&self) -> (u32, u32) {
        const NFT_RULE_COMPAT_F_INV: u32 = 1 << 1;
        match self.protocol {
            None => (0, 0),
            Some(is) => (is.value.into(), if is.negated { NFT_RULE_COMPAT_F_INV } else { 0 }),
        }
    }
}

/// Compares an interface name. Without the final zero, only the beginning is compared, as for `eth+`.
fn interface(out: &mut Vec<Expr>, key: u32, name: &Is<String>) {
    let value = match name.value.strip_suffix('+') {
        Some("") => return,
        Some(beginning) => beginning.as_bytes().to_vec(),
        None => [name.value.as_bytes(), &[0]].concat(),
    };
    out.push(Expr::Meta(key));
    out.push(Expr::Cmp { negated: name.negated, value });
}

fn encode_match(out: &mut Vec<Expr>, one: &Match, protocol: Option<u8>) {
    match one {
        Match::SourcePort(ports) if protocol == Some(SCTP) => {
            out.push(xt::sctp(Some(*ports), None));
        }
        Match::DestinationPort(ports) if protocol == Some(SCTP) => {
            out.push(xt::sctp(None, Some(*ports)));
        }
        Match::SourcePort(ports) => port(out, 0, *ports),
        Match::DestinationPort(ports) => port(out, 2, *ports),
        Match::DestinationPorts(ports) => out.push(xt::multiport(ports)),
        Match::AddressType { source, destination } => {
            out.push(xt::address_type(*source, *destination));
        }
        Match::AddressRange { source, destination } => {
            out.push(iprange::encode(*source, *destination));
        }
        Match::Mark(bits) => mark(out, *bits),
        Match::Comment(text) => out.push(xt::comment(text)),
        Match::ConntrackState(states) => out.push(xt::conntrack_state(*states)),
        Match::Other(expressions) => out.extend_from_slice(expressions),
    }
}

fn port(out: &mut Vec<Expr>, offset: u32, ports: Is<Ports>) {
    let negated = ports.negated;
    let Ports { first, last } = ports.value;
    out.push(Expr::Payload { base: Base::Transport, offset, len: 2 });
    let from = first.to_be_bytes().to_vec();
    out.push(if first == last {
        Expr::Cmp { negated, value: from }
    } else {
        Expr::Range { negated, from, to: last.to_be_bytes().to_vec() }
    });
}

fn mark(out: &mut Vec<Expr>, bits: Is<Bits>) {
    let Bits { value, mask } = bits.value;
    out.push(Expr::Meta(meta::MARK));
    if mask != u32::MAX {
        out.push(Expr::Bitwise { mask: mask.to_ne_bytes().to_vec(), xor: vec![0; 4] });
    }
    out.push(Expr::Cmp { negated: bits.negated, value: value.to_ne_bytes().to_vec() });
}

fn encode_target(target: &Target, family: Family) -> Expr {
    match target {
        Target::Jump(chain) => Expr::Verdict(Verdict::Jump(chain.clone())),
        Target::Goto(chain) => Expr::Verdict(Verdict::Goto(chain.clone())),
        Target::Accept => Expr::Verdict(Verdict::Accept),
        Target::Drop => Expr::Verdict(Verdict::Drop),
        Target::Return => Expr::Verdict(Verdict::Return),
        Target::Dnat { address, port } => xt::dnat(*address, *port),
        Target::Masquerade { random_fully } => xt::masquerade(family, *random_fully),
        Target::Mark(bits) => xt::set_mark(*bits),
        Target::Other(expression) => expression.clone(),
    }
}
