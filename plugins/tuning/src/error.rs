//! What can go wrong while a pod is tuned, and the codes for it.

use std::io;
use std::path::PathBuf;

use cni::Code;

/// Why something could not be changed, checked or put back.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The pod's namespace, or what CHECK finds there.
    #[error(transparent)]
    Attach(#[from] attach::Error),
    /// The pod has no such interface, which an earlier plugin of the chain should have made.
    #[error("the pod has no interface {0}; tuning goes behind the plugin that makes it")]
    NoInterface(String),
    /// The kernel refused to change the interface.
    #[error("change interface {ifname}")]
    Link {
        /// The interface.
        ifname: String,
        /// The kernel's words.
        source: kernel::Error,
    },
    /// The kernel has no such setting, or not in a pod's namespace.
    #[error("key \"sysctl.{key}\" of the configuration: a pod has no such setting here")]
    NoSysctl {
        /// The setting's name, as it stands in the configuration.
        key: String,
        /// The kernel's words.
        source: kernel::Error,
    },
    /// The kernel refused to read or write a setting.
    #[error("sysctl {name}")]
    Sysctl {
        /// The setting's name.
        name: String,
        /// The kernel's words.
        source: kernel::Error,
    },
    /// A setting is not in the allowlist.
    #[error("key \"sysctl.{key}\" of the configuration: no line of {} allows it", file.display())]
    NotAllowed {
        /// The setting's name, as it stands in the configuration.
        key: String,
        /// The allowlist.
        file: PathBuf,
    },
    /// The allowlist has a line that cannot be understood.
    #[error("{}, line {line}: {text:?} is no regular expression", file.display())]
    Pattern {
        /// The allowlist.
        file: PathBuf,
        /// The line's number.
        line: usize,
        /// The line.
        text: String,
        /// What is wrong with it.
        source: regex_lite::Error,
    },
    /// A file could not be used.
    #[error("{what} {}", path.display())]
    File {
        /// What was being done.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why that is impossible.
        source: io::Error,
    },
}

impl Error {
    /// For a file that could not be used.
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
