//! `CNI_ARGS`: `KEY=VALUE` pairs, separated by semicolons.

use std::fmt;

use crate::error::{Code, Error};

/// The pairs of `CNI_ARGS`, in their order.
///
/// All plugins of a chain get the same value. A value that has other parts than pairs is an error only for a
/// plugin that reads it: [`Args::allow`] refuses it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Args {
    pairs: Vec<(String, String)>,
    /// A part that is not a pair.
    malformed: Option<String>,
}

impl Args {
    /// Reads the value of `CNI_ARGS`. An empty value has no pairs.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut args = Self::default();
        for pair in text.split(';').filter(|pair| !pair.is_empty()) {
            match pair.split_once('=') {
                Some((key, value)) => args.pairs.push((key.to_owned(), value.to_owned())),
                None => args.malformed = Some(pair.to_owned()),
            }
        }
        args
    }

    /// The pairs only, for commands that must not fail because of other parts.
    #[must_use]
    pub fn without_malformed(self) -> Self {
        Self { malformed: None, ..self }
    }

    /// The value of a key. If the key is given several times, the last value.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&str> {
        self.pairs.iter().rev().find(|(k, _)| k == key).map(|(_, value)| value.as_str())
    }

    /// The pairs, in their order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.pairs.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// Whether there is no pair.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pairs.is_empty()
    }

    /// Refuses a value that has other parts than pairs.
    ///
    /// Errors: code 4, with a part that is not a pair.
    pub fn refuse_malformed(&self) -> Result<(), Error> {
        let Some(text) = &self.malformed else { return Ok(()) };
        let why = format!("CNI_ARGS: {text:?} is not a KEY=VALUE pair");
        Err(Error::new(Code::InvalidEnvironment, why))
    }

    /// Refuses what the plugin does not understand, before it reads a value: parts that are not pairs, and
    /// keys that are not in `known`, unless `IgnoreUnknown` is set (the specification's conventions, section
    /// `CNI_ARGS`).
    ///
    /// Errors: code 4, naming the keys.
    pub fn allow(&self, known: &[&str]) -> Result<(), Error> {
        self.refuse_malformed()?;
        let ignore = match self.get("IgnoreUnknown") {
            None => false,
            Some(value) => boolean(value).ok_or_else(|| {
                Error::new(
                    Code::InvalidEnvironment,
                    format!("CNI_ARGS: IgnoreUnknown={value} must be true or false"),
                )
            })?,
        };
        let unknown: Vec<&str> = self
            .pairs
            .iter()
            .map(|(key, _)| key.as_str())
            .filter(|key| !known.contains(key) && *key != "IgnoreUnknown")
            .collect();
        if ignore || unknown.is_empty() {
            return Ok(());
        }
        Err(Error::new(
            Code::InvalidEnvironment,
            format!(
                "CNI_ARGS: unknown keys {}; set IgnoreUnknown=1 if they are for another plugin",
                unknown.join(", ")
            ),
        ))
    }
}

impl FromIterator<(String, String)> for Args {
    fn from_iter<I: IntoIterator<Item = (String, String)>>(pairs: I) -> Self {
        Self { pairs: pairs.into_iter().collect(), malformed: None }
    }
}

/// Writes the pairs as the value of `CNI_ARGS`.
impl fmt::Display for Args {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (key, value)) in self.iter().enumerate() {
            let separator = if index == 0 { "" } else { ";" };
            write!(f, "{separator}{key}={value}")?;
        }
        Ok(())
    }
}

fn boolean(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "1" | "true" => Some(true),
        "0" | "false" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs() {
        let args = Args::parse("IgnoreUnknown=1;K8S_POD_NAME=web;;MAC=a=b");
        assert_eq!(args.get("K8S_POD_NAME"), Some("web"));
        assert_eq!(args.get("MAC"), Some("a=b"));
        assert_eq!(args.get("IP"), None);
        assert_eq!(Args::parse(""), Args::default());
        let text = "IgnoreUnknown=1;K8S_POD_NAME=web;MAC=a=b";
        assert_eq!(args.to_string(), text);
        let pairs = args.iter().map(|(key, value)| (key.to_owned(), value.to_owned()));
        assert_eq!(pairs.collect::<Args>(), args);
        assert!(Args::default().is_empty() && !args.is_empty());
    }

    #[test]
    fn only_a_plugin_that_reads_the_pairs_refuses_other_parts() {
        let args = Args::parse("MAC=a;none");
        assert_eq!(args.get("MAC"), Some("a"));
        let error = args.allow(&["MAC"]).unwrap_err();
        assert_eq!(error.code, Code::InvalidEnvironment);
        assert_eq!(error.msg, "CNI_ARGS: \"none\" is not a KEY=VALUE pair");
        assert!(args.without_malformed().allow(&["MAC"]).is_ok());
    }

    #[test]
    fn unknown_keys() {
        let check = |text: &str| Args::parse(text).allow(&["IP"]);
        assert!(check("IP=10.0.0.1").is_ok());
        assert!(check("IP=10.0.0.1;FOO=1;IgnoreUnknown=true").is_ok());
        assert!(check("FOO=1;IgnoreUnknown=0").is_err());
        assert!(check("IgnoreUnknown=perhaps").is_err());
        let error = check("FOO=1;BAR=2").unwrap_err();
        assert_eq!(error.code, Code::InvalidEnvironment);
        assert!(error.msg.contains("FOO, BAR"), "{error}");
    }
}
