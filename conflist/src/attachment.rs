//! An attachment: one interface of one container, on one network.

use std::path::{Component, Path, PathBuf};

use cni::{Args, ContainerId, IfName};
use serde_json::{Map, Value};
use sha2::{Digest, Sha512};

/// What the runtime says about an attachment (specification, section 3, "Attachment Parameters").
#[derive(Clone, Debug, PartialEq)]
pub struct Attachment {
    /// The container.
    pub container_id: ContainerId,
    /// The name of the interface inside it.
    pub ifname: IfName,
    /// The path of its network namespace; `None` for a DEL after the namespace was removed.
    pub netns: Option<PathBuf>,
    /// Pairs for every plugin of the chain (`CNI_ARGS`).
    pub args: Args,
    /// Values for those plugins that declare the capability of the same name.
    pub capability_args: Map<String, Value>,
}

impl Attachment {
    /// An attachment without `CNI_ARGS` and capability arguments.
    #[must_use]
    pub fn new(container_id: ContainerId, ifname: IfName, netns: Option<PathBuf>) -> Self {
        Self { container_id, ifname, netns, args: Args::default(), capability_args: Map::new() }
    }
}

/// The container ID that cnitool derives from the path of a namespace, so that either program
/// can undo the other's ADD.
///
/// Errors: none in practice, because the derived name is always valid.
pub fn container_id_of(netns: &Path) -> Result<ContainerId, cni::name::InvalidName> {
    let hash = Sha512::digest(netns.as_os_str().as_encoded_bytes());
    let hex: Vec<String> = hash.iter().take(10).map(|byte| format!("{byte:02x}")).collect();
    format!("cnitool-{}", hex.concat()).parse()
}

/// Makes a path absolute and removes `.`, `..` and repeated slashes, as cnitool does before it derives the
/// container ID. Symbolic links are not followed.
#[must_use]
pub fn absolute(path: &Path, current_dir: &Path) -> PathBuf {
    let mut absolute = PathBuf::from("/");
    for component in current_dir.join(path).components() {
        match component {
            Component::Normal(name) => absolute.push(name),
            Component::ParentDir => {
                absolute.pop();
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    absolute
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The ID that cnitool v1.3.1 gave to `cnitool add probe /run/netns/../netns/a`.
    #[test]
    fn container_ids_are_those_of_cnitool() {
        let netns = absolute(Path::new("/run/netns/../netns/a"), Path::new("/nowhere"));
        let id = container_id_of(&netns).unwrap();
        assert_eq!(id.as_str(), "cnitool-a145bc1ace582bff43bd");
    }

    #[test]
    fn paths_by_their_text() {
        let absolute = |path| absolute(Path::new(path), Path::new("/run/user/0"));
        for (path, expected) in [
            ("/run//netns/./a/", "/run/netns/a"),
            ("netns/a", "/run/user/0/netns/a"),
            ("../a", "/run/user/a"),
            ("/../../a", "/a"),
            ("", "/run/user/0"),
        ] {
            assert_eq!(absolute(path), Path::new(expected), "{path}");
        }
    }
}
