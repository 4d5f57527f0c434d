//! The errors of running a plugin.

use std::io;
use std::process::ExitStatus;

use crate::error::{Code, Error};
use crate::file::SIZE_LIMIT;

/// Why a plugin could not be run, or its output could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ExecError {
    /// The type is not a file name.
    #[error("plugin type {0:?} is not a file name")]
    Type(String),
    /// No directory contains the plugin.
    #[error("find plugin {kind:?} in CNI_PATH {path}")]
    NotFound {
        /// The plugin's type.
        kind: String,
        /// The directories that were searched.
        path: String,
    },
    /// The program could not be started, or a pipe to it failed.
    #[error("run plugin {program}")]
    Run {
        /// The path of the program.
        program: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// It printed more than the limit.
    #[error("plugin {0} printed more than the limit of {SIZE_LIMIT} bytes and was killed")]
    TooLong(String),
    /// It failed and printed no error object.
    #[error("plugin {program} ended with {status} and printed no error object")]
    Silent {
        /// The path of the program.
        program: String,
        /// How it ended.
        status: ExitStatus,
    },
    /// It succeeded, but its output is not JSON.
    #[error("read the result of plugin {program}")]
    Result {
        /// The path of the program.
        program: String,
        /// The position of the error.
        #[source]
        source: serde_json::Error,
    },
}

impl From<ExecError> for Error {
    fn from(error: ExecError) -> Self {
        let code = match error {
            ExecError::Type(_) => Code::InvalidConfig,
            _ => Code::Delegate,
        };
        Self::from_source(code, &error)
    }
}
