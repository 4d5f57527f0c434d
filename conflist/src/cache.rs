//! The results of ADDs, kept for CHECK, DEL and GC in the files and the format of libcni:
//! `CACHE_DIR/results/NETWORK-CONTAINERID-IFNAME`, one JSON object of kind `cniCacheV1`.
//!
//! Source: libcni v1.3.1; the keys and their order are those that cnitool writes.

mod error;
mod write;

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use base64::prelude::{BASE64_STANDARD, Engine};
use cni::{Args, ContainerId, IfName, NetworkName, Success, Version, file};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::attachment::Attachment;
use crate::network::Network;

pub use error::CacheError;

/// The directory of results, by default `/var/lib/cni`.
#[derive(Clone, Debug)]
pub struct Cache {
    dir: PathBuf,
}

/// The kept result of an ADD, and how it was made.
#[derive(Clone, Debug, PartialEq)]
pub struct Cached {
    /// The network.
    pub network: NetworkName,
    /// The attachment, with the arguments of the ADD.
    pub attachment: Attachment,
    /// The network's list of plugins as JSON; empty if an early libcni wrote the file.
    pub config: Vec<u8>,
    /// The result of the last plugin.
    pub result: Value,
}

/// What a file of a network contains.
#[derive(Debug)]
pub enum Kept {
    /// It names the attachment.
    Named(Cached),
    /// It does not name the attachment: an early libcni wrote it, or it cannot be read. The name of the file
    /// is ambiguous, because names may contain the dash that separates them.
    Unnamed {
        /// The file.
        file: PathBuf,
        /// The attachments that it may be of, the most likely one first; never empty.
        readings: Vec<(ContainerId, IfName)>,
        /// Why it cannot be read; `None` if an early libcni wrote it.
        error: Option<CacheError>,
    },
}

/// The keys of the file. Go's encoder omits empty values.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Stored {
    kind: Kind,
    container_id: ContainerId,
    config: Base64,
    if_name: IfName,
    network_name: NetworkName,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    netns: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cni_args: Option<Vec<(String, String)>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    capability_args: Option<Map<String, Value>>,
    #[serde(default)]
    result: Value,
}

#[derive(Serialize, Deserialize)]
enum Kind {
    #[serde(rename = "cniCacheV1")]
    CniCacheV1,
}

/// The content of a file.
enum Content {
    Named(Cached),
    /// Up to 0.8, libcni kept the bare result.
    Bare(Value),
}

/// Bytes as Go's encoder writes them, in base64; `null` if empty.
#[derive(Clone, Serialize, Deserialize)]
#[serde(try_from = "Option<String>", into = "String")]
struct Base64(Vec<u8>);

impl TryFrom<Option<String>> for Base64 {
    type Error = base64::DecodeError;

    fn try_from(text: Option<String>) -> Result<Self, base64::DecodeError> {
        BASE64_STANDARD.decode(text.unwrap_or_default()).map(Self)
    }
}

impl From<Base64> for String {
    fn from(bytes: Base64) -> Self {
        BASE64_STANDARD.encode(bytes.0)
    }
}

impl Cached {
    /// The result, converted from the version that it names, or else from `default`.
    pub fn success(&self, default: Version) -> Result<Success, CacheError> {
        read_result(&self.result, default)
            .map_err(|source| CacheError::Result { network: self.network.to_string(), source })
    }

    fn is_of(&self, network: &NetworkName, id: &ContainerId, ifname: &IfName) -> bool {
        let Attachment { container_id, ifname: name, .. } = &self.attachment;
        (&self.network, container_id, name) == (network, id, ifname)
    }
}

/// Reads a result of the version that it names, or else of `default`.
///
/// Errors: code 1 if that version is unknown, code 7 if the result is not valid.
pub(crate) fn read_result(result: &Value, default: Version) -> Result<Success, cni::Error> {
    let version = match result.get("cniVersion").and_then(Value::as_str) {
        None | Some("") => default,
        Some(text) => text.parse().map_err(|error: cni::version::UnknownVersion| {
            cni::Error::new(cni::Code::IncompatibleVersion, format!("its result: {error}"))
        })?,
    };
    Success::from_json(result, version)
}

impl Cache {
    /// The results in `dir`.
    #[must_use]
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
    }

    /// The file that keeps the result of an attachment.
    #[must_use]
    pub fn file(&self, network: &NetworkName, id: &ContainerId, ifname: &IfName) -> PathBuf {
        self.results().join(format!("{network}-{id}-{ifname}"))
    }

    /// Keeps the result of an ADD. The file appears as a whole, and never replaces that of another
    /// attachment.
    pub fn store(
        &self,
        network: &Network,
        attachment: &Attachment,
        result: &Value,
    ) -> Result<(), CacheError> {
        let Attachment { container_id, ifname, netns, args, capability_args } = attachment;
        let pairs: Vec<_> = args.iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
        let stored = Stored {
            kind: Kind::CniCacheV1,
            container_id: container_id.clone(),
            config: Base64(network.text.clone()),
            if_name: ifname.clone(),
            network_name: network.name.clone(),
            netns: netns.as_ref().map(|path| path.display().to_string()).unwrap_or_default(),
            cni_args: Some(pairs).filter(|pairs| !pairs.is_empty()),
            capability_args: Some(capability_args.clone()).filter(|args| !args.is_empty()),
            result: result.clone(),
        };
        let file = self.file(&network.name, container_id, ifname);
        let written = serde_json::to_vec(&stored).map_err(io::Error::from).and_then(|text| {
            self.make_dirs()?;
            write::beside(&self.dir, &file, &text)
        });
        let new = written.map_err(|source| CacheError::Write { file: file.clone(), source })?;
        let done = match fs::hard_link(&new, &file) {
            // Of two concurrent ADDs, one finds the other's file here.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                self.vacant(&network.name, container_id, ifname).and_then(|()| {
                    fs::rename(&new, &file).map_err(|source| CacheError::Write { file, source })
                })
            }
            linked => linked.map_err(|source| CacheError::Write { file, source }),
        };
        // The first error is reported; after a rename there is nothing to remove.
        let _ = fs::remove_file(&new);
        done
    }

    /// Checks that no other attachment has the file of this one. An unreadable file counts as free.
    pub(crate) fn vacant(
        &self,
        network: &NetworkName,
        id: &ContainerId,
        ifname: &IfName,
    ) -> Result<(), CacheError> {
        let file = self.file(network, id, ifname);
        match read(&file) {
            Ok(Some(Content::Named(other))) if !other.is_of(network, id, ifname) => {
                let Attachment { container_id: id, ifname, .. } = other.attachment;
                Err(CacheError::Taken { file, network: other.network.to_string(), id, ifname })
            }
            _ => Ok(()),
        }
    }

    /// The kept result of an attachment; `None` if there is none.
    pub fn load(
        &self,
        network: &NetworkName,
        id: &ContainerId,
        ifname: &IfName,
    ) -> Result<Option<Cached>, CacheError> {
        let file = self.file(network, id, ifname);
        Ok(match read(&file)? {
            Some(Content::Named(cached)) => Some(cached).filter(|it| it.is_of(network, id, ifname)),
            Some(Content::Bare(result)) => Some(Cached {
                network: network.clone(),
                attachment: Attachment::new(id.clone(), ifname.clone(), None),
                config: Vec::new(),
                result,
            }),
            None => None,
        })
    }

    /// Removes the kept result of an attachment, if there is one, also an unreadable file with its name.
    pub fn remove(
        &self,
        network: &NetworkName,
        id: &ContainerId,
        ifname: &IfName,
    ) -> Result<(), CacheError> {
        if matches!(self.vacant(network, id, ifname), Err(CacheError::Taken { .. })) {
            return Ok(());
        }
        let file = self.file(network, id, ifname);
        match fs::remove_file(&file) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(CacheError::Remove { file, source })
            }
            _ => Ok(()),
        }
    }

    /// The files that contain, or may contain, attachments of a network, sorted by name.
    pub fn of_network(&self, network: &NetworkName) -> Result<Vec<Kept>, CacheError> {
        let mut found = Vec::new();
        for name in self.names()? {
            let readings = readings(&name, network);
            if readings.is_empty() {
                continue;
            }
            let file = self.results().join(name);
            match read(&file) {
                Ok(Some(Content::Named(cached))) if cached.network == *network => {
                    found.push(Kept::Named(cached));
                }
                Ok(Some(Content::Named(_)) | None) => {}
                Ok(Some(Content::Bare(_))) => {
                    found.push(Kept::Unnamed { file, readings, error: None });
                }
                Err(error) => found.push(Kept::Unnamed { file, readings, error: Some(error) }),
            }
        }
        Ok(found)
    }

    /// The attachments of an interface of a container, in all networks. Only files that name their attachment
    /// count.
    pub fn of_interface(
        &self,
        id: &ContainerId,
        ifname: &IfName,
    ) -> Result<Vec<Cached>, CacheError> {
        let mut found = Vec::new();
        for name in self.names()? {
            if !name.ends_with(&format!("-{id}-{ifname}")) {
                continue;
            }
            if let Ok(Some(Content::Named(cached))) = read(&self.results().join(name))
                && cached.attachment.container_id == *id
                && cached.attachment.ifname == *ifname
            {
                found.push(cached);
            }
        }
        Ok(found)
    }

    /// All files that name an attachment, in all networks, sorted by name.
    pub(crate) fn all(&self) -> Result<Vec<(PathBuf, Cached)>, CacheError> {
        let mut found = Vec::new();
        for file in self.names()?.into_iter().map(|name| self.results().join(name)) {
            if let Ok(Some(Content::Named(cached))) = read(&file) {
                found.push((file, cached));
            }
        }
        Ok(found)
    }

    /// The sorted names of all files. A name that is not UTF-8 is of no attachment.
    fn names(&self) -> Result<Vec<String>, CacheError> {
        let dir = self.results();
        let entries = match fs::read_dir(&dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(source) => return Err(CacheError::Read { file: dir, source }),
        };
        let mut names = Vec::new();
        for entry in entries {
            match entry {
                Ok(entry) => names.extend(entry.file_name().into_string()),
                Err(source) => return Err(CacheError::Read { file: dir, source }),
            }
        }
        names.sort();
        Ok(names)
    }

    /// Makes the directories, or checks that they belong to this user and removes write permission of others.
    /// Only root can list the results; `dir` itself also has host-local's leases.
    pub(crate) fn make_dirs(&self) -> io::Result<()> {
        file::own_dir(&self.dir)?;
        match DirBuilder::new().mode(0o700).create(self.results()) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
            _ => file::own_dir(&self.results()),
        }
    }

    pub(crate) fn results(&self) -> PathBuf {
        self.dir.join("results")
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }
}

/// The attachments of a network that a file of this name can be of. Names may contain the dash that
/// separates them; names of interfaces rarely do, so the last dash is tried first.
pub(crate) fn readings(name: &str, network: &NetworkName) -> Vec<(ContainerId, IfName)> {
    let rest = name.strip_prefix(network.as_str()).and_then(|rest| rest.strip_prefix('-'));
    let Some(rest) = rest else {
        return Vec::new();
    };
    let split = |(dash, _)| Some((rest[..dash].parse().ok()?, rest[dash + 1..].parse().ok()?));
    rest.rmatch_indices('-').filter_map(split).collect()
}

/// Reads a file; `None` if it does not exist.
fn read(path: &Path) -> Result<Option<Content>, CacheError> {
    let text = match file::read_own(path, file::SIZE_LIMIT) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(CacheError::Read { file: path.to_owned(), source }),
    };
    match parse(&text) {
        Ok(cached) => Ok(Some(Content::Named(cached))),
        Err(source) => match serde_json::from_slice::<Value>(&text) {
            Ok(result) if result.get("cniVersion").is_some() => Ok(Some(Content::Bare(result))),
            _ => Err(CacheError::Invalid { file: path.to_owned(), source }),
        },
    }
}

fn parse(text: &[u8]) -> Result<Cached, serde_json::Error> {
    let stored: Stored = serde_json::from_slice(text)?;
    let attachment = Attachment {
        container_id: stored.container_id,
        ifname: stored.if_name,
        netns: Some(stored.netns).filter(|path| !path.is_empty()).map(PathBuf::from),
        args: stored.cni_args.unwrap_or_default().into_iter().collect::<Args>(),
        capability_args: stored.capability_args.unwrap_or_default(),
    };
    Ok(Cached {
        network: stored.network_name,
        attachment,
        config: stored.config.0,
        result: stored.result,
    })
}

#[cfg(test)]
mod tests;
