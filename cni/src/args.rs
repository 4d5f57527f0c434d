//! `CNI_ARGS`: `KEY=VALUE` pairs between semicolons.

use std::fmt;

use crate::error::{Code, Error};

/// The pairs of `CNI_ARGS`, in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Args(Vec<(String, String)>);

impl Args {
    /// Reads the value of `CNI_ARGS`; an empty one has no pairs.
    ///
    /// Errors: code 4 if a pair has no `=`.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let pairs = text.split(';').filter(|pair| !pair.is_empty()).map(|pair| {
            let (key, value) = pair.split_once('=').ok_or_else(|| {
                Error::new(
                    Code::InvalidEnvironment,
                    format!("CNI_ARGS: {pair:?} is no KEY=VALUE pair"),
                )
            })?;
            Ok((key.to_owned(), value.to_owned()))
        });
        pairs.collect::<Result<_, _>>().map(Self)
    }

    /// The value of a key; of the last one, if it is given several times.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().rev().find(|(k, _)| k == key).map(|(_, value)| value.as_str())
    }

    /// The pairs, in their order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// Whether there is no pair.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Refuses keys that the plugin does not know, unless `IgnoreUnknown` is set (the
    /// specification's conventions, section `CNI_ARGS`).
    ///
    /// Errors: code 4, naming the keys.
    pub fn allow(&self, known: &[&str]) -> Result<(), Error> {
        let ignore = match self.get("IgnoreUnknown") {
            None => false,
            Some(value) => boolean(value).ok_or_else(|| {
                Error::new(
                    Code::InvalidEnvironment,
                    format!("CNI_ARGS: IgnoreUnknown={value} is neither true nor false"),
                )
            })?,
        };
        let unknown: Vec<&str> = self
            .0
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
                "CNI_ARGS: unknown {}; set IgnoreUnknown=1 if that is meant for another plugin",
                unknown.join(", ")
            ),
        ))
    }
}

impl FromIterator<(String, String)> for Args {
    fn from_iter<I: IntoIterator<Item = (String, String)>>(pairs: I) -> Self {
        Self(pairs.into_iter().collect())
    }
}

/// The value of `CNI_ARGS` that these pairs are read from.
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
        let args = Args::parse("IgnoreUnknown=1;K8S_POD_NAME=web;;MAC=a=b").unwrap();
        assert_eq!(args.get("K8S_POD_NAME"), Some("web"));
        assert_eq!(args.get("MAC"), Some("a=b"));
        assert_eq!(args.get("IP"), None);
        assert_eq!(Args::parse("").unwrap(), Args::default());
        assert!(Args::parse("IP").is_err());
        let text = "IgnoreUnknown=1;K8S_POD_NAME=web;MAC=a=b";
        assert_eq!(args.to_string(), text);
        let pairs = args.iter().map(|(key, value)| (key.to_owned(), value.to_owned()));
        assert_eq!(pairs.collect::<Args>(), args);
        assert!(Args::default().is_empty() && !args.is_empty());
    }

    #[test]
    fn unknown_keys() {
        let check = |text: &str| Args::parse(text).unwrap().allow(&["IP"]);
        assert!(check("IP=10.0.0.1").is_ok());
        assert!(check("IP=10.0.0.1;FOO=1;IgnoreUnknown=true").is_ok());
        assert!(check("FOO=1;IgnoreUnknown=0").is_err());
        assert!(check("IgnoreUnknown=perhaps").is_err());
        let error = check("FOO=1;BAR=2").unwrap_err();
        assert_eq!(error.code, Code::InvalidEnvironment);
        assert!(error.msg.contains("FOO, BAR"), "{error}");
    }
}
