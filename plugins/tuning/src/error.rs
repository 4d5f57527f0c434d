//! The errors of the plugin, and their codes.

use std::io;
use std::path::PathBuf;

use cni::Code;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An error that all plugins have which work on a pod's namespace.
    #[error(transparent)]
    Attach(#[from] attach::Error),
    /// The pod does not have the interface.
    #[error(
        "the pod has no interface {0}; in the list of plugins, write the plugin that makes it before \
         \"tuning\""
    )]
    NoInterface(String),
    /// The kernel refused to change the interface.
    #[error("change interface {ifname}")]
    Link {
        /// The interface.
        ifname: String,
        /// The kernel's error.
        source: kernel::Error,
    },
    /// The kernel does not have the sysctl, or not in a pod's namespace.
    #[error("key \"sysctl.{key}\" of the configuration: the pod's namespace has no such sysctl")]
    NoSysctl {
        /// The sysctl's name, as it is written in the configuration.
        key: String,
        /// The kernel's error.
        source: kernel::Error,
    },
    /// The kernel refused to read or write a sysctl.
    #[error("sysctl {name}")]
    Sysctl {
        /// The sysctl's name.
        name: String,
        /// The kernel's error.
        source: kernel::Error,
    },
    /// The allowlist does not allow the sysctl.
    #[error("key \"sysctl.{key}\" of the configuration: no line of {} allows it", file.display())]
    NotAllowed {
        /// The sysctl's name, as it is written in the configuration.
        key: String,
        /// The allowlist.
        file: PathBuf,
    },
    /// A line of the allowlist is not a valid regular expression.
    #[error("{}, line {line}: {text:?} is not a valid regular expression", file.display())]
    Pattern {
        /// The allowlist.
        file: PathBuf,
        /// The line's number.
        line: usize,
        /// The line.
        text: String,
        /// The reason.
        source: regex_lite::Error,
    },
    /// A file could not be used.
    #[error("{what} {}", path.display())]
    File {
        /// The operation.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
}

impl Error {
    /// An error about a file.
    pub(crate) fn file(
        what: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { what, path, source }
    }
}

impl From<kernel::Error> for Error {
    fn from(error: kernel::Error) -> Self {
        Self::Attach(error.into())
    }
}

impl From<Error> for cni::Error {
    fn from(error: Error) -> Self {
        let code = match error {
            Error::Attach(error) => return error.into(),
            Error::NoInterface(_) | Error::Link { .. } | Error::Sysctl { .. } => Code::Kernel,
            Error::NoSysctl { .. } | Error::NotAllowed { .. } | Error::Pattern { .. } => {
                Code::InvalidConfig
            }
            Error::File { .. } => Code::Io,
        };
        Self::from_source(code, &error)
    }
}
