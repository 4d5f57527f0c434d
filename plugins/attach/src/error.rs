//! Errors of attaching a pod, and their codes.

use std::path::PathBuf;

use cni::Code;

/// Why an attachment could not be made, checked or removed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel refused something.
    #[error(transparent)]
    Kernel(#[from] kernel::Error),
    /// `CNI_NETNS` is not the path of a network namespace.
    #[error("CNI_NETNS={} cannot be entered", path.display())]
    Netns {
        /// The path.
        path: PathBuf,
        /// What is wrong with it.
        source: kernel::Error,
    },
    /// The kernel does not have this kind of link.
    #[error(
        "this kernel has no links of the kind {kind}; load its module (modprobe rtnl-link-{kind}), or use a \
             kernel that has it"
    )]
    NoKind {
        /// The kind.
        kind: &'static str,
        /// The kernel's answer.
        source: kernel::Error,
    },
    /// The link that the interface is to be made on does not exist.
    #[error("key \"master\" is {master:?}, but {place} has no link of this name")]
    NoMaster {
        /// The name in the configuration.
        master: String,
        /// Where it was looked up: `the node`.
        place: &'static str,
    },
    /// The link to make the interface on is not configured, and there is no default route to find it.
    #[error("{place} has no default route, so \"master\" must be set to the name of a link there")]
    NoDefaultRoute {
        /// Where it was looked up: `the node`.
        place: &'static str,
    },
    /// The parent cannot have a link of this kind now.
    #[error(
        "the link \"master\" cannot have this {kind} interface: it is not an Ethernet link, is a port of a \
         bridge or bond, or has other interfaces (macvlan and ipvlan exclude each other, and mode passthru \
         excludes all others); use another \"master\""
    )]
    MasterInUse {
        /// The kind of the interface.
        kind: &'static str,
        /// The kernel's answer.
        source: kernel::Error,
    },
    /// The pod has an interface of this name already.
    #[error("the pod has an interface {ifname} already; is it attached twice?")]
    Attached {
        /// The interface's name.
        ifname: String,
    },
    /// The container's chain has the name of the chain of another container of another network: the names of
    /// network and container, joined, are the same string.
    #[error(
        "chain {chain} of this container belongs to {holder}: network name and container ID, joined, are the \
         same string for both; rename one of the networks, or set \"ipMasqBackend\" to \"nftables\""
    )]
    NameTaken {
        /// The chain.
        chain: String,
        /// The owner, according to the comment on its rules.
        holder: String,
    },
    /// CHECK found that something is not as ADD made it.
    #[error("{object} {how}")]
    Changed {
        /// The object: `address 10.88.0.2/24 of eth0`.
        object: String,
        /// What is wrong with it: `is missing`.
        how: String,
    },
    /// The IPAM plugin succeeded without an address.
    #[error("the IPAM plugin gave no address")]
    NoAddress,
}

impl Error {
    /// CHECK found that something is missing.
    pub fn missing(object: impl Into<String>) -> Self {
        Self::changed(object, "is missing")
    }

    /// CHECK found that something is not as ADD made it.
    pub fn changed(object: impl Into<String>, how: impl Into<String>) -> Self {
        Self::Changed { object: object.into(), how: how.into() }
    }
}

/// The code for an operation that the kernel, or a program that changes its rules, has refused.
#[must_use]
pub fn code_of(error: &kernel::Error) -> Code {
    if error.is_locked() {
        Code::TryAgain
    } else if error.needs_program() {
        Code::NotAvailable
    } else {
        Code::Kernel
    }
}

impl From<Error> for cni::Error {
    fn from(error: Error) -> Self {
        let code = match &error {
            Error::Kernel(error) if error.is_exists() => Code::Conflict,
            Error::Kernel(error) => code_of(error),
            Error::Attached { .. } | Error::NameTaken { .. } | Error::MasterInUse { .. } => {
                Code::Conflict
            }
            Error::Netns { .. } => Code::InvalidNetns,
            Error::NoKind { .. } | Error::NoMaster { .. } | Error::NoDefaultRoute { .. } => {
                Code::Kernel
            }
            Error::Changed { .. } => Code::Changed,
            Error::NoAddress => Code::Delegate,
        };
        Self::from_source(code, &error)
    }
}
