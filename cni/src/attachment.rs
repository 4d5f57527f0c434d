//! An attachment: one interface of one container on one network. It owns what a plugin makes for it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::Error;
use crate::json;
use crate::name::{ContainerId, IfName, NetworkName};

/// The names of one attachment. They identify it: a container has one interface of a name, and the network
/// tells apart what plugins of several networks make on the node.
///
/// Its text is `NETWORK/CONTAINER/IFNAME`. No name has a slash, so [`Attachment::parse`] can read it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Attachment {
    /// The network's name.
    pub network: NetworkName,
    /// The container's ID.
    #[serde(rename = "containerID")]
    pub container_id: ContainerId,
    /// The name of the interface inside the container.
    pub ifname: IfName,
}

/// The attachments of a network that exist. A GC must not remove what belongs to them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValidAttachments {
    network: NetworkName,
    interfaces: BTreeMap<ContainerId, BTreeSet<IfName>>,
}

impl Attachment {
    /// Reads `NETWORK/CONTAINER/IFNAME`; `None` if the text has another form, or a name is not valid.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('/');
        let (network, container_id, ifname) = (parts.next()?, parts.next()?, parts.next()?);
        if parts.next().is_some() {
            return None;
        }
        Self::from_names(network, container_id, ifname)
    }

    /// The attachment with these names; `None` if one of them is not valid.
    #[must_use]
    pub fn from_names(network: &str, container_id: &str, ifname: &str) -> Option<Self> {
        Some(Self {
            network: network.parse().ok()?,
            container_id: container_id.parse().ok()?,
            ifname: ifname.parse().ok()?,
        })
    }
}

impl fmt::Display for Attachment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.network, self.container_id, self.ifname)
    }
}

impl ValidAttachments {
    /// Reads `cni.dev/valid-attachments` of a configuration, or `cni.dev/attachments`, the name that the key
    /// had in the first runtimes.
    ///
    /// Null is an empty list: libcni prints an empty list so, and CRI-O sends it when it starts.
    ///
    /// Names that are not valid are left out, because no ADD accepts them.
    ///
    /// Errors: code 7 if both keys are missing: without the list, a GC would remove every attachment.
    pub fn read(network: &NetworkName, configuration: &Value) -> Result<Self, Error> {
        #[derive(Deserialize)]
        struct Entry {
            #[serde(rename = "containerID")]
            container_id: String,
            ifname: String,
        }
        const KEY: &str = "cni.dev/valid-attachments";
        let lists = [KEY, "cni.dev/attachments"].map(|key| configuration.get(key));
        let list = lists.into_iter().flatten().min_by_key(|list| list.is_null());
        let list = list.ok_or_else(|| Error::invalid_key(KEY, "is missing"))?;
        let list: Option<Vec<Entry>> =
            json::read(list).map_err(|error| error.context(format!("key {KEY:?}")))?;
        let mut interfaces: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
        for Entry { container_id, ifname } in list.into_iter().flatten() {
            if let Ok(container_id) = container_id.parse() {
                interfaces.entry(container_id).or_default().extend(ifname.parse());
            }
        }
        Ok(Self { network: network.clone(), interfaces })
    }

    /// Whether the attachment exists.
    #[must_use]
    pub fn contains(&self, attachment: &Attachment) -> bool {
        let Attachment { network, container_id, ifname } = attachment;
        *network == self.network
            && self.interfaces.get(container_id).is_some_and(|names| names.contains(ifname))
    }

    /// Whether the container has any attachment to the network.
    #[must_use]
    pub fn contains_container(&self, container_id: &str) -> bool {
        self.interfaces.contains_key(container_id)
    }

    /// Whether a GC must remove what belongs to the attachment: it is one of the network's and does not
    /// exist. Attachments of other networks are never garbage.
    #[must_use]
    pub fn is_garbage(&self, attachment: &Attachment) -> bool {
        attachment.network == self.network && !self.contains(attachment)
    }

    /// The attachments.
    pub fn attachments(&self) -> impl Iterator<Item = Attachment> {
        let attachment = |container_id: &ContainerId, ifname: &IfName| Attachment {
            network: self.network.clone(),
            container_id: container_id.clone(),
            ifname: ifname.clone(),
        };
        self.interfaces
            .iter()
            .flat_map(move |(id, names)| names.iter().map(move |name| attachment(id, name)))
    }

    /// The containers that have any attachment to the network.
    pub fn containers(&self) -> impl Iterator<Item = &ContainerId> {
        self.interfaces.keys()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn attachment(text: &str) -> Attachment {
        Attachment::parse(text).unwrap()
    }

    fn read(configuration: &Value) -> Result<ValidAttachments, Error> {
        ValidAttachments::read(&"n".parse().unwrap(), configuration)
    }

    #[test]
    fn an_attachment_is_written_and_read() {
        let one = attachment("kindnet/c1/eth0");
        assert_eq!((one.container_id.as_str(), one.ifname.as_str()), ("c1", "eth0"));
        assert_eq!(one.to_string(), "kindnet/c1/eth0");
        let other =
            ["", "kindnet", "kindnet/c1", "kindnet/c1/eth0/x", "an uplink/of/it", "n/c/a:b"];
        for text in other {
            assert_eq!(Attachment::parse(text), None, "{text}");
        }
    }

    #[test]
    fn valid_attachments() {
        let one = json!([{"containerID": "c1", "ifname": "eth0"}]);
        for key in ["cni.dev/valid-attachments", "cni.dev/attachments"] {
            let valid = read(&json!({key: one})).unwrap();
            assert_eq!(valid.attachments().collect::<Vec<_>>(), [attachment("n/c1/eth0")]);
            assert!(valid.contains(&attachment("n/c1/eth0")) && valid.contains_container("c1"));
            assert!(!valid.contains(&attachment("n/c1/eth1")) && !valid.contains_container("c2"));
            assert!(valid.is_garbage(&attachment("n/c1/eth1")));
            assert!(!valid.is_garbage(&attachment("n/c1/eth0")));
            assert!(!valid.is_garbage(&attachment("other/c1/eth1")));
        }
        for none in [json!(null), json!([]), json!([{"containerID": "a/b", "ifname": "eth0"}])] {
            let valid = read(&json!({"cni.dev/valid-attachments": none})).unwrap();
            assert_eq!((valid.attachments().count(), valid.containers().count()), (0, 0));
        }
        let both = json!({"cni.dev/valid-attachments": null, "cni.dev/attachments": one});
        assert!(read(&both).unwrap().contains(&attachment("n/c1/eth0")));
        assert!(read(&json!({})).is_err());
        assert!(read(&json!({"cni.dev/valid-attachments": [{}]})).is_err());
        assert!(read(&json!({"cni.dev/valid-attachments": "x"})).is_err());
    }
}
