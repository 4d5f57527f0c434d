//! A command as a plugin gets it: read and validated.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::attachment::Attachment;
use crate::environment::{Command, Environment};
use crate::error::{Code, Error};
use crate::json;
use crate::name::{ContainerId, IfName, NetworkName};
use crate::result::Success;
use crate::version::Version;

/// A network: its configuration, and the directories of other plugins.
#[derive(Clone, Debug)]
pub struct Network<C> {
    /// The network's name.
    pub name: NetworkName,
    /// The version of the configuration. The result must have the same version.
    pub version: Version,
    /// The plugin's own keys.
    pub config: C,
    /// The type of the IPAM plugin; `None` if the configuration has none.
    pub ipam: Option<String>,
    /// The result of the previous plugin in the chain (ADD), or of the whole chain (CHECK, DEL).
    pub prev_result: Option<Success>,
    /// The directories of other plugins (`CNI_PATH`).
    pub path: Vec<PathBuf>,
    /// The configuration as it was read, for the IPAM plugin.
    pub stdin: Vec<u8>,
}

/// An ADD, CHECK or DEL of one attachment.
#[derive(Clone, Debug)]
pub struct Call<C> {
    /// The network.
    pub network: Network<C>,
    /// The `CNI_*` variables, which name the attachment.
    pub environment: Environment,
}

/// The keys of every plugin's configuration.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Common {
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    ipam: Option<Ipam>,
    #[serde(default)]
    prev_result: Option<Value>,
}

#[derive(Deserialize)]
struct Ipam {
    #[serde(default, rename = "type")]
    kind: String,
}

impl<C: DeserializeOwned> Network<C> {
    /// Reads a configuration of a supported `version`, for `command`. DEL and GC must clean up even if values
    /// are not valid, so they treat such values as absent.
    ///
    /// Errors: code 7, naming the key.
    pub fn read(
        command: Command,
        stdin: Vec<u8>,
        version: Version,
        path: Vec<PathBuf>,
    ) -> Result<Self, Error> {
        let cleans_up = matches!(command, Command::Del | Command::Gc);
        let value = json::object(&stdin)?;
        let common: Common =
            if cleans_up { json::read_what_is_right(&value) } else { json::read(&value) }?;
        let name = common.name.ok_or_else(|| {
            Error::new(Code::InvalidConfig, "key \"name\" of the configuration is missing")
        })?;
        let name = name.parse().map_err(|error| Error::invalid_key("name", error))?;
        let prev_result = common
            .prev_result
            .map(|result| Success::read(&result, version))
            .transpose()
            .map_err(|error| error.context("key \"prevResult\""));
        let prev_result = if cleans_up { prev_result.unwrap_or_default() } else { prev_result? };
        let ipam = common.ipam.map(|ipam| ipam.kind).filter(|kind| !kind.is_empty());
        let config = if cleans_up { json::read_what_is_right(&value) } else { json::read(&value) }?;
        Ok(Self { name, version, config, ipam, prev_result, path, stdin })
    }
}

impl<C> Call<C> {
    /// The names of the attachment.
    #[must_use]
    pub fn attachment(&self) -> Attachment {
        Attachment {
            network: self.network.name.clone(),
            container_id: self.environment.container_id.clone(),
            ifname: self.environment.ifname.clone(),
        }
    }

    /// The container's ID.
    #[must_use]
    pub fn container_id(&self) -> &ContainerId {
        &self.environment.container_id
    }

    /// The name of the interface inside the container.
    #[must_use]
    pub fn ifname(&self) -> &IfName {
        &self.environment.ifname
    }

    /// The path of the container's network namespace; `None` in a DEL if the namespace no longer exists.
    #[must_use]
    pub fn netns(&self) -> Option<&Path> {
        self.environment.netns.as_deref()
    }

    /// The path of the container's network namespace, which ADD and CHECK always have.
    ///
    /// Errors: code 4 if it is not set.
    pub fn require_netns(&self) -> Result<&Path, Error> {
        self.netns().ok_or_else(|| Error::new(Code::InvalidEnvironment, "CNI_NETNS is not set"))
    }

    /// The plugin's own keys of the configuration.
    #[must_use]
    pub fn config(&self) -> &C {
        &self.network.config
    }

    /// The result of the previous plugin in the chain, for a plugin that cannot be the first one.
    ///
    /// Errors: code 7 if it is missing.
    pub fn previous_result(&self) -> Result<&Success, Error> {
        self.network.prev_result.as_ref().ok_or_else(|| {
            Error::new(
                Code::InvalidConfig,
                "key \"prevResult\" of the configuration is missing: this command needs the \
                 result of the ADD, or of the previous plugin in the chain",
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[derive(Debug, Deserialize)]
    struct Config {
        #[serde(default)]
        mtu: u32,
    }

    fn read_for(command: Command, configuration: &Value) -> Result<Network<Config>, Error> {
        let stdin = configuration.to_string().into_bytes();
        Network::read(command, stdin, Version::V1_0_0, Vec::new())
    }

    fn read(configuration: &Value) -> Result<Network<Config>, Error> {
        read_for(Command::Add, configuration)
    }

    #[test]
    fn common_and_own_keys() {
        let network = read(&json!({"name": "n", "MTU": 1400, "ipam": {"type": ""}})).unwrap();
        assert_eq!((network.config.mtu, network.ipam), (1400, None));
        let network = read(&json!({"name": "n", "ipam": {"type": "host-local"}})).unwrap();
        assert_eq!(network.ipam.as_deref(), Some("host-local"));
    }

    #[test]
    fn wrong_values_are_named() {
        for (configuration, key) in [
            (json!({}), "\"name\""),
            (json!({"name": ""}), "\"name\""),
            (json!({"name": 1}), "\"name\""),
            (json!({"name": "a/b"}), "\"name\""),
            (json!({"name": "n", "ipam": []}), "\"ipam"),
            (json!({"name": "n", "ipam": {"type": 1}}), "\"ipam.type\""),
            (json!({"name": "n", "mtu": "1500"}), "\"mtu\""),
            (json!({"name": "n", "prevResult": 5}), "\"prevResult\""),
            (json!({"name": "n", "prevResult": {"ips": [{"address": 1}]}}), "ips[0].address"),
        ] {
            let error = read(&configuration).unwrap_err();
            assert_eq!(error.code, Code::InvalidConfig, "{error}");
            assert!(error.msg.contains(key), "{configuration}: {error}");
        }
    }

    #[test]
    fn cleaning_up_leaves_out_wrong_values() {
        let configuration =
            json!({"name": "n", "mtu": "1500", "prevResult": {"ips": 5}, "ipam": {"type": 5}});
        let network = read_for(Command::Del, &configuration).unwrap();
        assert_eq!((network.config.mtu, network.prev_result, network.ipam), (0, None, None));
        assert!(read_for(Command::Gc, &configuration).is_ok());
        assert!(read_for(Command::Del, &json!({"mtu": 1})).is_err());
    }
}
