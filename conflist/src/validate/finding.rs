//! A finding of `validate`.

use std::fmt;
use std::path::PathBuf;

/// A mistake in a file, or a hint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The file.
    pub file: PathBuf,
    /// The line, from 1.
    pub line: usize,
    /// The path of the key, such as `plugins[0].isGateway`; empty for the whole file.
    pub key: String,
    /// How serious it is.
    pub severity: Severity,
    /// What is wrong.
    pub problem: Problem,
}

/// How serious a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The network works, but not in a case that people often expect.
    Hint,
    /// The network works, but probably not as it was meant.
    Warning,
    /// A runtime or a plugin will refuse it.
    Error,
}

/// What is wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// The file could not be read.
    #[error("{0}")]
    Unreadable(String),
    /// An earlier file than the network's cannot be read.
    #[error(
        "cannot be read: {0}; runtimes that use libcni read this file before the network's, and fail"
    )]
    InTheWay(String),
    /// It is not valid JSON.
    #[error("not JSON: {0}")]
    Syntax(String),
    /// A required key is missing.
    #[error("missing; {0}")]
    Missing(String),
    /// The key is not known.
    #[error("unknown{}", Meant(.0.as_deref()))]
    Unknown(Option<String>),
    /// The object has the key twice.
    #[error("given twice; only the last one counts")]
    Twice,
    /// The value is of another type.
    #[error("must be {expected}, is {found}")]
    Type {
        /// What it must be.
        expected: String,
        /// What it is.
        found: &'static str,
    },
    /// The value is of the right type, but wrong.
    #[error("{found} is not {expected}{}", Meant(suggestion.as_deref()))]
    Value {
        /// What it must be.
        expected: String,
        /// The value as it was written.
        found: String,
        /// What was probably meant.
        suggestion: Option<String>,
    },
    /// It contradicts another value.
    #[error("{0}")]
    Contradiction(String),
    /// The plugin refuses it; its message.
    #[error("{0}")]
    Refused(String),
    /// What does not work, and what to change.
    #[error("{0}")]
    Expectation(&'static str),
    /// The program does not exist.
    #[error(
        "plugin {kind:?} is in none of the directories of CNI_PATH ({path}){}",
        Meant(suggestion.as_deref())
    )]
    NoProgram {
        /// The plugin's type.
        kind: String,
        /// The directories.
        path: String,
        /// What was probably meant.
        suggestion: Option<String>,
    },
    /// The plugin does not get values from the runtime.
    #[error(
        "does not declare {0:?}, so runtimes pass no values: add \"capabilities\": {{{0:?}: true}}"
    )]
    NoCapability(&'static str),
    /// The runtime writes this key.
    #[error("is written by the runtime; remove it from the file")]
    Reserved,
    /// Another file has the network's name.
    #[error("{name:?} is also the network of {}, which comes first and is used", first.display())]
    NameTaken {
        /// The name.
        name: String,
        /// The file that is used.
        first: PathBuf,
    },
}

/// The end of a message that suggests something.
struct Meant<'a>(Option<&'a str>);

impl fmt::Display for Meant<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |meant| write!(f, "; did you mean {meant:?}?"))
    }
}

/// `FILE:LINE: error: key "…": …`, as compilers write it.
impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Hint => "hint",
            Severity::Warning => "warning",
            Severity::Error => "error",
        };
        write!(f, "{}:{}: {severity}: ", self.file.display(), self.line)?;
        if !self.key.is_empty() {
            write!(f, "key {:?}: ", self.key)?;
        }
        self.problem.fmt(f)
    }
}
