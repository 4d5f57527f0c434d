//! The errors of the plugin, and their codes.

use cni::Code;
use kernel::Cause;

/// Why ports could not be mapped, checked or removed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel refused something.
    #[error(transparent)]
    Kernel(#[from] kernel::Error),
    /// Another container has the port, and `onConflict` is `error`.
    #[error(
        "host port {port}/{protocol} is taken by {holder}; delete that container, map another hostPort or \
         hostIP, or remove \"onConflict\" to take the port over"
    )]
    Taken {
        /// The port of the node.
        port: u16,
        /// Its protocol.
        protocol: &'static str,
        /// Its owner, by the comment on the rule.
        holder: String,
    },
    /// A container of another network has a chain of the same name: network name and ID together are the same
    /// text.
    #[error(
        "chain {chain} of this container is that of {holder}: network name and container ID together are the \
         same text; rename one of the networks"
    )]
    NameTaken {
        /// The chain.
        chain: String,
        /// Its owner, by the comment on the rule that jumps there.
        holder: String,
    },
    /// A container's chain could not be deleted, because rules lead to it that are not the container's.
    #[error(
        "chain {chain} is empty but cannot be deleted, because rules of another program jump to it; delete \
         these rules"
    )]
    StillUsed {
        /// The chain.
        chain: String,
        /// The kernel's error.
        source: kernel::Error,
    },
    /// CHECK found that a rule is not there.
    #[error("rule is missing: {program} -t {table} -A {chain} {rule}")]
    Missing {
        /// `iptables` or `ip6tables`.
        program: &'static str,
        /// The table it should be in.
        table: &'static str,
        /// The chain it should be in.
        chain: String,
        /// The rule, as `iptables -S` would show it.
        rule: String,
    },
    /// CHECK found that something is not in the table of the backend `nftables`.
    #[error("{what} {how}: nft {command}")]
    MissingInTable {
        /// A set, a map, a rule or an element.
        what: &'static str,
        /// What is wrong with it.
        how: &'static str,
        /// How the program `nft` would add it.
        command: String,
    },
    /// Something failed, and so did undoing what was done before it.
    #[error("{error}; also: {another}")]
    NotUndone {
        /// The first error.
        error: Box<Error>,
        /// The error of undoing it.
        another: kernel::Error,
    },
}

impl Error {
    /// This error, or both if undoing what was done before has failed too.
    pub(crate) fn unless(self, undone: Result<(), kernel::Error>) -> Self {
        match undone {
            Ok(()) => self,
            Err(another) => Self::NotUndone { error: Box::new(self), another },
        }
    }

    /// Whether the kernel has refused to delete a chain to which rules jump.
    pub(crate) fn is_busy(&self) -> bool {
        matches!(self, Self::Kernel(error) if error.is_busy())
    }

    fn code(&self) -> Code {
        match self {
            Self::Kernel(error) => attach::code_of(error),
            Self::NotUndone { error, .. } => error.code(),
            Self::StillUsed { .. } => Code::Kernel,
            Self::Taken { .. } | Self::NameTaken { .. } => Code::Conflict,
            Self::Missing { .. } | Self::MissingInTable { .. } => Code::Changed,
        }
    }

    /// Whether the kernel may have made the changes, for example because its answer was lost. What it
    /// refused, or what was not sent, has changed nothing.
    pub(crate) fn may_have_changed_rules(&self) -> bool {
        let error = match self {
            Self::Kernel(error) => error,
            Self::NotUndone { error, .. } => return error.may_have_changed_rules(),
            _ => return false,
        };
        !matches!(
            error.cause,
            Cause::Refused { .. } | Cause::Locked(_) | Cause::NoLegacyProgram | Cause::Unstable(_)
        )
    }
}

impl From<Error> for cni::Error {
    fn from(error: Error) -> Self {
        Self::from_source(error.code(), &error)
    }
}
