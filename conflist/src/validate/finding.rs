//! What `validate` has to say: one mistake each.

use std::fmt;
use std::path::PathBuf;

/// A mistake in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The file, as it was named or found.
    pub file: PathBuf,
    /// The line, from 1.
    pub line: usize,
    /// The path of the key, such as `plugins[0].isGateway`; empty for the whole file.
    pub key: String,
    /// Whether the network cannot work like this.
    pub severity: Severity,
    /// What is wrong.
    pub problem: Problem,
}

/// How bad a mistake is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// It works as it is written, and something that people often expect of it does not.
    Hint,
    /// It works, but perhaps not as it was meant.
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
    /// A file before the network's cannot be read.
    #[error(
        "cannot be read: {0}; runtimes that use libcni read it on the way to the network, and stop there"
    )]
    InTheWay(String),
    /// It is no JSON.
    #[error("not JSON: {0}")]
    Syntax(String),
    /// A key that has to be there is not.
    #[error("missing; {0}")]
    Missing(String),
    /// Nobody reads this key.
    #[error("unknown{}", Meant(.0.as_deref()))]
    Unknown(Option<String>),
    /// The key was there before, and what stood there is not read.
    #[error("given twice; only the last one counts")]
    Twice,
    /// The value is of another type.
    #[error("should be {expected}, is {found}")]
    Type {
        /// What it should be.
        expected: String,
        /// What it is.
        found: &'static str,
    },
    /// The value is of the right type, but wrong.
    #[error("{found} is not {expected}{}", Meant(suggestion.as_deref()))]
    Value {
        /// What it should be.
        expected: String,
        /// What it is, as it was written.
        found: String,
        /// What was probably meant.
        suggestion: Option<String>,
    },
    /// It does not go with what stands elsewhere.
    #[error("{0}")]
    Contradiction(String),
    /// The plugin refuses it, in its own words.
    #[error("{0}")]
    Refused(String),
    /// What does not work, and what to change.
    #[error("{0}")]
    Expectation(&'static str),
    /// The program is not there.
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
    /// The runtime's arguments will not reach the plugin.
    #[error(
        "does not declare {0:?}, so that runtimes pass none: add \"capabilities\": {{{0:?}: true}}"
    )]
    NoCapability(&'static str),
    /// The runtime writes this key.
    #[error("is written by the runtime, and has no place in a file")]
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

/// `FILE:LINE: error: key "…": …`, as compilers have it.
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
