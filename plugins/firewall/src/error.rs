//! What can go wrong, and the codes for it.

use cni::Code;

/// Why packets could not be let through, or why not all is there that does that.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel refused something.
    #[error(transparent)]
    Kernel(#[from] kernel::Error),
    /// What iptables accepts does not get through, and nobody said that it need not.
    #[error(
        "firewalld runs on this node, and rejects what iptables accepts; add the network's addresses to its \
         zone trusted (firewall-cmd --permanent --zone=trusted --add-source=NETWORK && firewall-cmd \
         --reload), and set \"backend\" to \"iptables\""
    )]
    Firewalld,
    /// The result names no bridge that could be kept apart from others.
    #[error(
        "key \"ingressPolicy\" is {policy:?}, but the first interface of \"prevResult\" is no interface of \
         the node; put firewall behind bridge, or leave the key out"
    )]
    NoBridge {
        /// The policy.
        policy: &'static str,
    },
    /// CHECK found that a rule is not there.
    #[error("rule is missing: {program} -A {chain} {rule}")]
    Missing {
        /// `iptables` or `ip6tables`.
        program: &'static str,
        /// The chain it should be in.
        chain: String,
        /// The rule, as `iptables -S` would show it.
        rule: String,
    },
}

impl From<Error> for cni::Error {
    fn from(error: Error) -> Self {
        let code = match &error {
            Error::Kernel(error) if error.is_locked() => Code::TryAgain,
            Error::Kernel(error) if error.needs_program() => Code::NotAvailable,
            Error::Kernel(_) => Code::Kernel,
            Error::Firewalld => Code::UnsupportedField,
            Error::NoBridge { .. } => Code::InvalidConfig,
            Error::Missing { .. } => Code::Changed,
        };
        Self::from_source(code, &error)
    }
}
