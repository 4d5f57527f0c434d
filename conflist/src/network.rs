//! A network: the list of plugins that its configuration names, read and checked.

use cni::name::InvalidName;
use cni::version::UnknownVersion;
use cni::{NetworkName, Version, json};
use serde_json::{Map, Value, json};

/// A network: section 1 of the specification describes its configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Network {
    /// Its name.
    pub name: NetworkName,
    /// The version of requests to plugins: the newest known one of `cniVersion` and `cniVersions`.
    pub version: Version,
    /// Whether CHECK is disabled.
    pub disable_check: bool,
    /// Whether GC is disabled.
    pub disable_gc: bool,
    /// Whether plugins in files of their own are ignored.
    pub only_inlined: bool,
    /// The plugins, in the order of ADD.
    pub plugins: Vec<PluginConf>,
    /// The list as JSON, as it is kept with the result of an ADD.
    pub text: Vec<u8>,
}

/// The configuration of one plugin of a chain.
#[derive(Clone, Debug, PartialEq)]
pub struct PluginConf {
    /// Its `type`: the name of its program.
    pub kind: String,
    /// The configuration as it was written.
    pub conf: Map<String, Value>,
}

/// Why a configuration is not a valid network.
#[derive(Debug, thiserror::Error)]
pub enum InvalidNetwork {
    /// It is not valid JSON.
    #[error("read JSON")]
    Json(#[source] serde_json::Error),
    /// A required key is missing.
    #[error("key {key:?} is missing")]
    Missing {
        /// The path of the key.
        key: String,
    },
    /// A value is of the wrong type.
    #[error("key {key:?} must be {expected}")]
    Type {
        /// The path of the key; empty for the whole document.
        key: String,
        /// What it must be.
        expected: &'static str,
    },
    /// The name is not valid.
    #[error("key \"name\"")]
    Name(#[source] InvalidName),
    /// None of the versions is known.
    #[error("key \"cniVersion\"")]
    Version(#[source] UnknownVersion),
    /// There are no plugins.
    #[error("the network has no plugins")]
    NoPlugins,
    /// A file for one plugin contains a list of plugins.
    #[error("key \"plugins\" belongs in a file whose name ends in .conflist")]
    ListInConf,
}

impl Network {
    /// Reads a list of plugins (a `.conflist` file).
    ///
    /// Its `plugins` may be absent: they can be in files of their own, see [`crate::files`].
    pub fn from_list(text: &[u8]) -> Result<Self, InvalidNetwork> {
        let list = object(text, "")?;
        let name = string(&list, "name")?.ok_or_else(|| missing("name"))?;
        let name = name.parse().map_err(InvalidNetwork::Name)?;
        let only_inlined = boolean(&list, "loadOnlyInlinedPlugins")?;
        let plugins = match list.get("plugins") {
            None if only_inlined => return Err(missing("plugins")),
            None => Vec::new(),
            Some(Value::Array(plugins)) if plugins.is_empty() => {
                return Err(InvalidNetwork::NoPlugins);
            }
            Some(Value::Array(plugins)) => plugins
                .iter()
                .enumerate()
                .map(|(index, plugin)| PluginConf::read(plugin, &format!("plugins[{index}]")))
                .collect::<Result<_, _>>()?,
            Some(_) => return Err(wrong("plugins", "a list")),
        };
        Ok(Self {
            name,
            version: version(&list)?,
            disable_check: boolean(&list, "disableCheck")?,
            disable_gc: boolean(&list, "disableGC")?,
            only_inlined,
            plugins,
            text: text.to_vec(),
        })
    }

    /// Appends plugins that were read from files of their own, and adds them to the kept JSON.
    pub(crate) fn extend(&mut self, plugins: Vec<PluginConf>) -> Result<(), InvalidNetwork> {
        if plugins.is_empty() {
            return Ok(());
        }
        self.plugins.extend(plugins);
        let mut list = object(&self.text, "")?;
        let plugins = self.plugins.iter().map(|plugin| Value::Object(plugin.conf.clone()));
        list.insert("plugins".into(), plugins.collect());
        list.insert("loadOnlyInlinedPlugins".into(), true.into());
        self.text = Value::Object(list).to_string().into_bytes();
        Ok(())
    }

    /// Reads the configuration of a lone plugin (a `.conf` or `.json` file) and makes a list of
    /// it, as libcni does.
    pub fn from_conf(text: &[u8]) -> Result<Self, InvalidNetwork> {
        let conf = Value::Object(object(text, "")?);
        if json::get(&conf, "plugins").is_some() && json::get(&conf, "type").is_none() {
            return Err(InvalidNetwork::ListInConf);
        }
        // libcni reads these keys like a plugin's: case does not matter.
        let string = |key| match json::get(&conf, key) {
            None => Ok(""),
            Some(value) => value.as_str().ok_or_else(|| wrong(key, "a string")),
        };
        let (name, version) = (string("name")?, string("cniVersion")?);
        if name.is_empty() {
            return Err(missing("name"));
        }
        let list = json!({"name": name, "cniVersion": version, "plugins": [conf]});
        Self::from_list(list.to_string().as_bytes())
    }
}

impl PluginConf {
    /// Reads the configuration of one plugin; `key` is its path in the document.
    pub fn read(value: &Value, key: &str) -> Result<Self, InvalidNetwork> {
        let Value::Object(conf) = value else {
            return Err(wrong(key, "an object"));
        };
        let kind = format!("{key}{}type", if key.is_empty() { "" } else { "." });
        match json::get(value, "type") {
            Some(Value::String(text)) if !text.is_empty() => {
                Ok(Self { kind: text.clone(), conf: conf.clone() })
            }
            Some(Value::String(_)) | None => Err(InvalidNetwork::Missing { key: kind }),
            Some(_) => Err(wrong(&kind, "a string")),
        }
    }

    /// Reads a file with the configuration of one plugin.
    pub fn parse(text: &[u8]) -> Result<Self, InvalidNetwork> {
        Self::read(&Value::Object(object(text, "")?), "")
    }

    /// Whether the plugin declares a capability.
    #[must_use]
    pub fn is_capable_of(&self, capability: &str) -> bool {
        let declared = self.conf.iter().find(|(key, _)| key.eq_ignore_ascii_case("capabilities"));
        declared.is_some_and(|(_, value)| value.get(capability) == Some(&Value::Bool(true)))
    }
}

fn object(text: &[u8], key: &str) -> Result<Map<String, Value>, InvalidNetwork> {
    match serde_json::from_slice(text).map_err(InvalidNetwork::Json)? {
        Value::Object(object) => Ok(object),
        _ => Err(wrong(key, "a JSON object")),
    }
}

fn string<'a>(
    object: &'a Map<String, Value>,
    key: &str,
) -> Result<Option<&'a str>, InvalidNetwork> {
    match object.get(key) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(wrong(key, "a string")),
    }
}

/// libcni accepts a boolean as a string, too.
fn boolean(object: &Map<String, Value>, key: &str) -> Result<bool, InvalidNetwork> {
    match object.get(key) {
        None => Ok(false),
        Some(Value::Bool(truth)) => Ok(*truth),
        Some(Value::String(text)) if text.eq_ignore_ascii_case("true") => Ok(true),
        Some(Value::String(text)) if text.eq_ignore_ascii_case("false") => Ok(false),
        Some(_) => Err(wrong(key, "true or false")),
    }
}

/// The newest of the versions that the configuration supports, without those newer than all known ones.
/// As in libcni, an invalid version, or an unknown one that is the newest, is an error.
fn version(list: &Map<String, Value>) -> Result<Version, InvalidNetwork> {
    let single = string(list, "cniVersion")?;
    let several = match list.get("cniVersions") {
        None => return single.unwrap_or_default().parse().map_err(InvalidNetwork::Version),
        Some(Value::Array(versions)) => versions
            .iter()
            .map(|version| {
                version.as_str().ok_or_else(|| wrong("cniVersions", "a list of strings"))
            })
            .collect::<Result<Vec<_>, _>>()?,
        Some(_) => return Err(wrong("cniVersions", "a list of strings")),
    };
    let known = Version::ALL.iter().filter_map(|version| numbers(version.as_str())).max();
    let mut chosen = None;
    for text in several.iter().copied().chain(single).filter(|text| !text.is_empty()) {
        let numbers = numbers(text).ok_or_else(|| wrong("cniVersions", "a list of versions"))?;
        if Some(numbers) <= known {
            chosen = chosen.max(Some((numbers, text)));
        }
    }
    let chosen = chosen.map(|(_, text)| text).or(single).or(several.first().copied());
    chosen.unwrap_or_default().parse().map_err(InvalidNetwork::Version)
}

/// The numbers of a version; missing ones are 0.
fn numbers(version: &str) -> Option<[u32; 3]> {
    let mut numbers = [0; 3];
    let parts: Vec<&str> = version.split('.').collect();
    if parts.len() > numbers.len() {
        return None;
    }
    for (number, part) in numbers.iter_mut().zip(parts) {
        *number = part.parse().ok()?;
    }
    Some(numbers)
}

fn missing(key: &str) -> InvalidNetwork {
    InvalidNetwork::Missing { key: key.to_owned() }
}

fn wrong(key: &str, expected: &'static str) -> InvalidNetwork {
    InvalidNetwork::Type { key: key.to_owned(), expected }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn list(value: &Value) -> Result<Network, InvalidNetwork> {
        Network::from_list(value.to_string().as_bytes())
    }

    #[test]
    fn the_newest_known_version_is_chosen() {
        for (single, several, expected) in [
            (json!("0.4.0"), json!(null), Version::V0_4_0),
            (json!("1.0.0"), json!(["0.4.0", "1.1.0", "0.3.1"]), Version::V1_1_0),
            (json!("1.1.0"), json!(["0.4.0"]), Version::V1_1_0),
            (json!("0.3.0"), json!(["2.0.0"]), Version::V0_3_0),
            (json!(null), json!(["1.0.0", "7.0.0"]), Version::V1_0_0),
            (json!(""), json!(["0.4.0"]), Version::V0_4_0),
            (json!(null), json!(["0.9.0", "1.0.0"]), Version::V1_0_0),
            (json!("1.0.0"), json!([]), Version::V1_0_0),
            (json!(""), json!(null), Version::V0_1_0),
            (json!(null), json!(null), Version::V0_1_0),
        ] {
            let mut network = json!({"name": "n", "plugins": [{"type": "t"}]});
            for (key, value) in [("cniVersion", &single), ("cniVersions", &several)] {
                if !value.is_null() {
                    network[key] = value.clone();
                }
            }
            assert_eq!(list(&network).unwrap().version, expected, "{network}");
        }
        for unknown in [json!(["2.0.0"]), json!(["0.4.0", "0.9.0"]), json!(["0.4.0", "1.0"])] {
            let network = json!({"name": "n", "cniVersions": unknown, "plugins": [{"type": "t"}]});
            assert!(matches!(list(&network), Err(InvalidNetwork::Version(_))), "{network}");
        }
        for wrong in ["one", "1.0.0.0", "1..0", "-1.0.0"] {
            let network = json!({"name": "n", "cniVersion": "1.0.0", "cniVersions": [wrong]});
            let expected = "key \"cniVersions\" must be a list of versions";
            assert_eq!(list(&network).unwrap_err().to_string(), expected, "{network}");
        }
    }

    #[test]
    fn switches_may_be_strings() {
        let network = json!({
            "name": "n", "disableCheck": "TRUE", "disableGC": false, "plugins": [{"type": "t"}],
            "loadOnlyInlinedPlugins": true,
        });
        let network = list(&network).unwrap();
        assert!(network.disable_check && !network.disable_gc && network.only_inlined);
        let wrong = json!({"name": "n", "disableGC": "yes", "plugins": [{"type": "t"}]});
        assert_eq!(
            list(&wrong).unwrap_err().to_string(),
            "key \"disableGC\" must be true or false"
        );
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (network, expected) in [
            (json!({}), "key \"name\" is missing"),
            (json!({"name": 1}), "key \"name\" must be a string"),
            (json!({"name": "n", "plugins": []}), "the network has no plugins"),
            (json!({"name": "n", "plugins": {}}), "key \"plugins\" must be a list"),
            (json!({"name": "n", "plugins": [1]}), "key \"plugins[0]\" must be an object"),
            (json!({"name": "n", "plugins": [{}]}), "key \"plugins[0].type\" is missing"),
            (
                json!({"name": "n", "plugins": [{"type": []}]}),
                "key \"plugins[0].type\" must be a string",
            ),
            (json!({"name": "n", "loadOnlyInlinedPlugins": true}), "key \"plugins\" is missing"),
        ] {
            assert_eq!(list(&network).unwrap_err().to_string(), expected, "{network}");
        }
        assert!(matches!(list(&json!({"name": "a/b"})), Err(InvalidNetwork::Name(_))));
        assert!(matches!(Network::from_list(b"{"), Err(InvalidNetwork::Json(_))));
    }

    /// Key for key the text that libcni keeps for such a network.
    #[test]
    fn a_lone_plugin_becomes_a_list() {
        let text = br#"{"type": "loopback", "name": "lo", "Z": 1, "a": [ ]}"#;
        let network = Network::from_conf(text).unwrap();
        assert_eq!(network.plugins[0].kind, "loopback");
        assert_eq!(
            String::from_utf8(network.text).unwrap(),
            r#"{"cniVersion":"","name":"lo","plugins":[{"Z":1,"a":[],"name":"lo","type":"loopback"}]}"#
        );
        let list = br#"{"name": "n", "plugins": []}"#;
        assert!(matches!(Network::from_conf(list), Err(InvalidNetwork::ListInConf)));
    }

    #[test]
    fn capabilities_are_declared_with_true() {
        let conf = json!({"type": "t", "capabilities": {"mac": true, "ips": false, "dns": 1}});
        let plugin = PluginConf::read(&conf, "").unwrap();
        assert!(plugin.is_capable_of("mac"));
        for not in ["ips", "dns", "bandwidth"] {
            assert!(!plugin.is_capable_of(not), "{not}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(bytes: Vec<u8>, inner in r#"[\[\]{}0-9",:a-z]{0,30}"#) {
            let _ = Network::from_list(&bytes);
            let _ = Network::from_conf(&bytes);
            for text in [
                format!(r#"{{"name":"n","plugins":{inner}}}"#),
                format!(r#"{{"name":"n","cniVersions":{inner}}}"#),
            ] {
                let _ = Network::from_list(text.as_bytes());
                let _ = Network::from_conf(text.as_bytes());
            }
        }
    }
}
