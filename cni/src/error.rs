//! The error object of the specification, and its codes.
//!
//! Policy: the code says whose turn it is (the runtime's, the administrator's, nobody's because it
//! passes by itself); `msg` says what was being done to what; `details` has the causes, down to the
//! kernel's own text. Codes up to 99 are the specification's; from 100 on they are this suite's and
//! mean the same in every plugin.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::version::Version;

/// What kind of failure it was (specification, section 5, "Error").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(from = "u32", into = "u32")]
pub enum Code {
    /// 1: the plugin does not take the configuration's `cniVersion`.
    IncompatibleVersion,
    /// 2: a field of the configuration asks for what is not supported here.
    UnsupportedField,
    /// 3: the container is unknown or does not exist; the runtime need not clean up.
    UnknownContainer,
    /// 4: a `CNI_*` variable is missing or wrong.
    InvalidEnvironment,
    /// 5: stdin, a file or a pipe could not be read or written.
    Io,
    /// 6: a text that should be JSON is none.
    Decode,
    /// 7: a key of the configuration is missing or its value is wrong.
    InvalidConfig,
    /// 8: `CNI_NETNS` is no network namespace, or the node's own (as the reference plugins have it).
    InvalidNetns,
    /// 11: it did not work now, but will when something else has passed by.
    TryAgain,
    /// 50 (STATUS): an ADD could not work now.
    NotAvailable,
    /// 51 (STATUS): as 50, and containers that are there already may be cut off.
    LimitedConnectivity,
    /// 100: the kernel refused an operation.
    Kernel,
    /// 101 (CHECK): something that ADD made is missing or was changed.
    Changed,
    /// 102: a name, an address or a port is taken by somebody else.
    Conflict,
    /// 103: a plugin that was delegated to could not be run, or printed neither result nor error.
    Delegate,
    /// Any other number, from another plugin.
    Other(u32),
}

/// Known codes and their numbers: the one table.
const NUMBERS: [(Code, u32); 15] = [
    (Code::IncompatibleVersion, 1),
    (Code::UnsupportedField, 2),
    (Code::UnknownContainer, 3),
    (Code::InvalidEnvironment, 4),
    (Code::Io, 5),
    (Code::Decode, 6),
    (Code::InvalidConfig, 7),
    (Code::InvalidNetns, 8),
    (Code::TryAgain, 11),
    (Code::NotAvailable, 50),
    (Code::LimitedConnectivity, 51),
    (Code::Kernel, 100),
    (Code::Changed, 101),
    (Code::Conflict, 102),
    (Code::Delegate, 103),
];

impl From<Code> for u32 {
    fn from(code: Code) -> Self {
        match code {
            Code::Other(number) => number,
            known => NUMBERS.iter().find(|(c, _)| *c == known).map_or(0, |(_, number)| *number),
        }
    }
}

impl From<u32> for Code {
    fn from(number: u32) -> Self {
        let known = NUMBERS.iter().find(|(_, n)| *n == number);
        known.map_or(Self::Other(number), |(code, _)| *code)
    }
}

/// How many bytes of a message, and of the details, are printed at most.
const MESSAGE_LIMIT: usize = 1024;
const DETAILS_LIMIT: usize = 4096;

/// A failed command. Messages quote values of whatever length; what is printed of them has a limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// What kind of failure it was.
    pub code: Code,
    /// What was being done to what.
    pub msg: String,
    /// The causes, one after the other; may be empty.
    pub details: String,
}

impl Error {
    /// An error whose message says all there is to say.
    #[must_use]
    pub fn new(code: Code, msg: impl Into<String>) -> Self {
        Self { code, msg: msg.into(), details: String::new() }
    }

    /// An error from a typed one: its own text is the message, the texts of its sources are the
    /// details, nearest first.
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

    /// A wrong value of `key` (a path such as `ipam.ranges[0][1].subnet`) in the configuration.
    #[must_use]
    pub fn invalid_key(key: &str, why: impl fmt::Display) -> Self {
        Self::new(Code::InvalidConfig, format!("key {key:?} of the configuration: {why}"))
    }

    /// The same error with `what` said in front of its message.
    #[must_use]
    pub fn context(mut self, what: impl fmt::Display) -> Self {
        self.msg = format!("{what}: {}", self.msg);
        self
    }

    /// Adds to the details what else went wrong.
    pub fn also(&mut self, what: &str) {
        if !self.details.is_empty() {
            self.details.push_str("; ");
        }
        self.details.push_str(what);
    }

    /// The object that goes to stdout.
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

    /// Reads what another plugin printed; `None` if that is no error object.
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

/// The beginning and the end of a text that is longer than `limit`: what was being done stands at the
/// beginning, what is wrong with it at the end, and a value that is quoted in between.
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

    #[test]
    fn every_code_has_one_number() {
        for (code, number) in NUMBERS {
            assert_eq!(u32::from(code), number);
            assert_eq!(Code::from(number), code);
        }
        assert_eq!(u32::from(Code::from(999)), 999);
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
