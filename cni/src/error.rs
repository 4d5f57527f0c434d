//! The error object of the specification, and its codes.
//!
//! The code says who must act: the runtime, the administrator, or no one because a retry will succeed.
//! `msg` names the operation and its object. `details` contains the causes, including the kernel's own text.
//! Codes up to 99 are the specification's. Codes from 100 are this suite's and have the same meaning in every
//! plugin.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::version::Version;

/// The kind of a failure (specification, section 5, "Error").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(from = "u32", into = "u32")]
pub enum Code {
    /// 1: the plugin does not support the configuration's `cniVersion`.
    IncompatibleVersion,
    /// 2: a key of the configuration asks for something that is not supported.
    UnsupportedField,
    /// 3: the container is unknown or does not exist. The runtime does not need to clean up.
    UnknownContainer,
    /// 4: a `CNI_*` variable is not set or its value is not valid.
    InvalidEnvironment,
    /// 5: stdin, a file or a pipe could not be read or written.
    Io,
    /// 6: a text is not valid JSON.
    Decode,
    /// 7: a key of the configuration is missing or its value is not valid.
    InvalidConfig,
    /// 8: `CNI_NETNS` is not a network namespace, or it is the node's. This code is the reference plugins'.
    InvalidNetns,
    /// 11: the operation failed for a reason that passes; the runtime should try again later.
    TryAgain,
    /// 50 (STATUS): an ADD would fail now.
    NotAvailable,
    /// 51 (STATUS): as 50, and existing containers may have limited connectivity.
    LimitedConnectivity,
    /// 100: the kernel refused an operation.
    Kernel,
    /// 101 (CHECK): something that ADD made is missing or has changed.
    Changed,
    /// 102: another owner uses a name, an address or a port.
    Conflict,
    /// 103: an IPAM plugin could not be run, or printed neither a result nor an error.
    Delegate,
    /// Any other number, from another plugin.
    Other(u32),
}

/// Writes the conversions of codes from one list, so that the compiler finds a code without a number.
macro_rules! numbers {
    ($($code:ident = $number:literal,)*) => {
        impl From<Code> for u32 {
            fn from(code: Code) -> Self {
                match code {
                    $(Code::$code => $number,)*
                    Code::Other(number) => number,
                }
            }
        }

        impl From<u32> for Code {
            fn from(number: u32) -> Self {
                match number {
                    $($number => Self::$code,)*
                    other => Self::Other(other),
                }
            }
        }
    };
}

numbers! {
    IncompatibleVersion = 1,
    UnsupportedField = 2,
    UnknownContainer = 3,
    InvalidEnvironment = 4,
    Io = 5,
    Decode = 6,
    InvalidConfig = 7,
    InvalidNetns = 8,
    TryAgain = 11,
    NotAvailable = 50,
    LimitedConnectivity = 51,
    Kernel = 100,
    Changed = 101,
    Conflict = 102,
    Delegate = 103,
}

/// How many bytes of a message, and of the details, are printed at most.
const MESSAGE_LIMIT: usize = 1024;
const DETAILS_LIMIT: usize = 4096;

/// The error of a command. Messages can quote long values; what is printed of a message has a limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// The kind of the failure.
    pub code: Code,
    /// The operation and its object.
    pub msg: String,
    /// The causes, one after another. Can be empty.
    pub details: String,
}

impl Error {
    /// An error without details.
    #[must_use]
    pub fn new(code: Code, msg: impl Into<String>) -> Self {
        Self { code, msg: msg.into(), details: String::new() }
    }

    /// An error from a typed one. Its text is the message. The texts of its sources are the details, nearest
    /// first.
    #[must_use]
    pub fn from_source(code: Code, error: &dyn StdError) -> Self {
        let mut causes = Vec::new();
        let mut next = error.source();
        while let Some(cause) = next {
            causes.push(cause.to_string());
            next = cause.source();
        }
        Self { code, msg: error.to_string(), details: causes.join(": ") }
    }

    /// An error about the value of `key`, a path such as `ipam.ranges[0][1].subnet`.
    #[must_use]
    pub fn invalid_key(key: &str, why: impl fmt::Display) -> Self {
        Self::new(Code::InvalidConfig, format!("key {key:?} of the configuration: {why}"))
    }

    /// The same error with `what` in front of its message.
    #[must_use]
    pub fn context(mut self, what: impl fmt::Display) -> Self {
        self.msg = format!("{what}: {}", self.msg);
        self
    }

    /// Adds another failure to the details.
    pub fn also(&mut self, what: &str) {
        if !self.details.is_empty() {
            self.details.push_str("; ");
        }
        self.details.push_str(what);
    }

    /// The object that a plugin prints to stdout.
    #[must_use]
    pub fn to_json(&self, version: Version) -> Value {
        let mut object = json!({
            "cniVersion": version,
            "code": u32::from(self.code),
            "msg": shortened(&self.msg, MESSAGE_LIMIT),
        });
        if !self.details.is_empty() {
            object["details"] = Value::from(shortened(&self.details, DETAILS_LIMIT));
        }
        object
    }

    /// Reads what another plugin printed; `None` if it is not an error object.
    #[must_use]
    pub fn from_json(value: &Value) -> Option<Self> {
        let text = |key| value.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let code = u32::try_from(value.get("code")?.as_u64()?).ok()?;
        value.get("msg")?.as_str()?;
        Some(Self { code: code.into(), msg: text("msg"), details: text("details") })
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&shortened(&self.msg, MESSAGE_LIMIT))?;
        if !self.details.is_empty() {
            write!(f, ": {}", shortened(&self.details, DETAILS_LIMIT))?;
        }
        Ok(())
    }
}

impl StdError for Error {}

/// The text, or its beginning and its end if it is longer than `limit` bytes. A message begins with the
/// operation, ends with the reason, and quotes a value in the middle.
fn shortened(text: &str, limit: usize) -> Cow<'_, str> {
    if text.len() <= limit {
        return text.into();
    }
    // A character has at most four bytes.
    let boundary = |at: usize| (at..at + 4).find(|at| text.is_char_boundary(*at)).unwrap_or(at);
    let (head, tail) = (boundary(limit / 2), boundary(text.len() - limit / 4));
    let (before, after) = (text.get(..head), text.get(tail..));
    let (before, after) = (before.unwrap_or_default(), after.unwrap_or_default());
    format!("{before} … ({} bytes left out) … {after}", tail - head).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Specification, section 5, "Error"; 8 is `ErrInvalidNetNS` of libcni.
    #[test]
    fn numbers_are_those_of_the_specification() {
        for (number, code) in [
            (1, Code::IncompatibleVersion),
            (2, Code::UnsupportedField),
            (3, Code::UnknownContainer),
            (4, Code::InvalidEnvironment),
            (5, Code::Io),
            (6, Code::Decode),
            (7, Code::InvalidConfig),
            (8, Code::InvalidNetns),
            (11, Code::TryAgain),
            (50, Code::NotAvailable),
            (51, Code::LimitedConnectivity),
        ] {
            assert_eq!(Code::from(number), code);
        }
        for number in 0..1000 {
            let code = Code::from(number);
            assert_eq!(u32::from(code), number);
            let is_ours = (100..=103).contains(&number);
            let is_known = !matches!(code, Code::Other(_));
            assert_eq!(is_known && number > 99, is_ours, "{number}");
        }
    }

    #[test]
    fn sources_become_details() {
        #[derive(Debug, thiserror::Error)]
        #[error("create link {0}")]
        struct Outer(&'static str, #[source] Inner);
        #[derive(Debug, thiserror::Error)]
        #[error("file exists")]
        struct Inner;

        let error = Error::from_source(Code::Kernel, &Outer("veth0", Inner));
        assert_eq!(error.to_string(), "create link veth0: file exists");
        assert_eq!(
            error.to_json(Version::V1_0_0).to_string(),
            r#"{"cniVersion":"1.0.0","code":100,"details":"file exists","msg":"create link veth0"}"#
        );
    }

    #[test]
    fn long_values_are_quoted_in_part() {
        let value = "ä".repeat(5 << 20);
        let mut error = Error::invalid_key("mtu", format!("{value:?} is not a number"));
        error.also(&value);
        let printed = error.to_json(Version::V1_0_0);
        let (msg, details) =
            (printed["msg"].as_str().unwrap(), printed["details"].as_str().unwrap());
        assert!(msg.starts_with("key \"mtu\" of the configuration: \"ää"), "{msg}");
        assert!(msg.ends_with("ä\" is not a number"), "{msg}");
        assert!(msg.contains(" bytes left out) "), "{msg}");
        assert!(msg.len() < 1024 && details.len() < 4096 && error.to_string().len() < 5120);
    }

    #[test]
    fn another_plugins_error_is_understood() {
        let theirs = json!({"code": 999, "msg": "m"});
        assert_eq!(Error::from_json(&theirs), Some(Error::new(Code::Other(999), "m")));
        for not in [json!({}), json!([]), json!({"code": "1", "msg": ""}), json!({"code": 1})] {
            assert_eq!(Error::from_json(&not), None);
        }
    }
}
