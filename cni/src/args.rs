//! `CNI_ARGS`: `KEY=VALUE` pairs between semicolons.

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
