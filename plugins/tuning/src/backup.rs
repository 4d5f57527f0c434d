//! The values before an ADD, in files with the reference plugin's name and format:
//! `dataDir/CONTAINER_IFNAME.json`, an object with an interface's attributes.
//!
//! The key `podwire`, which the reference plugin ignores, contains the owner of the file, which GC reads, the
//! identity of the interface, and the sysctls. A file without that key is the reference plugin's: DEL
//! restores its values, and GC does not remove it.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use attach::hashed_name;
use cni::file::{self, SIZE_LIMIT};
use cni::{Attachment, json};
use rustix::process::geteuid;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::Error;
use crate::sysctl::Name;
use crate::wanted::{Before, Changed, Identity, LinkSettings};

/// The default of `dataDir`. It is empty after a reboot, when no pod exists either.
pub const DEFAULT_DIR: &str = "/run/cni/tuning";

/// The suffix of a file that is being written.
const FRESH: &str = ".new";

/// The longest name of a file, in bytes.
const NAME_MAX: usize = 255;

/// The backup of one attachment.
#[derive(Debug)]
pub struct Backup<'a> {
    dir: &'a Path,
    owner: Attachment,
}

/// The content of a file.
#[derive(Serialize)]
struct Content<'a> {
    #[serde(flatten)]
    link: LinkSettings,
    podwire: OwnContent<&'a Attachment, &'a BTreeMap<Name, Changed>>,
}

/// The part that only this plugin writes.
#[derive(Serialize, Deserialize)]
struct OwnContent<O, S> {
    owner: O,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    interface: Option<Identity>,
    sysctl: S,
}

impl<'a> Backup<'a> {
    /// The backup of an attachment in `dir`.
    #[must_use]
    pub fn new(dir: &'a Path, owner: Attachment) -> Self {
        Self { dir, owner }
    }

    /// Reads the values that a DEL must restore: those of this plugin or of the reference plugin. `None` if
    /// there is no backup, or if it belongs to another network, to which the interface has been attached
    /// since.
    pub fn load(&self) -> Result<Option<Before>, Error> {
        let found = self.found()?;
        Ok(found.filter(|(_, owner)| self.may_be_ours(owner.as_ref())).map(|(before, _)| before))
    }

    /// Reads the values that an earlier ADD of this plugin has saved for the same attachment.
    pub fn load_own(&self) -> Result<Option<Before>, Error> {
        let found = self.found()?;
        Ok(found.filter(|(_, owner)| owner.as_ref() == Some(&self.owner)).map(|(before, _)| before))
    }

    /// Reads the file for a command that uses its values. If the file is not trusted, prints a message on
    /// stderr.
    fn found(&self) -> Result<Option<(Before, Option<Attachment>)>, Error> {
        let file = self.file();
        let say = |why| eprintln!("tuning: the backup {} is not used: {why}", file.display());
        read(&file, say)
    }

    /// Writes the file. If this fails, the previous file is not changed.
    pub fn save(&self, before: &Before) -> Result<(), Error> {
        let content = Content {
            link: before.link,
            podwire: OwnContent {
                owner: &self.owner,
                interface: before.interface,
                sysctl: &before.sysctl,
            },
        };
        let (fresh, file) = (self.fresh(), self.file());
        let write = || {
            let text = text(&content)?;
            file::own_dir(self.dir)?;
            // The path may exist and not be a regular file, so it must not be opened.
            file::remove(&fresh)?;
            let options = &mut OpenOptions::new();
            let mut new = options.write(true).create_new(true).mode(0o600).open(&fresh)?;
            file::or_remove(&fresh, || {
                new.write_all(&text)?;
                fs::rename(&fresh, &file)
            })
        };
        write().map_err(Error::file("write the backup", &file))
    }

    /// Restores the backup of an earlier ADD. Without one, removes the backup.
    pub fn replace_by(&self, earlier: Option<&Before>) -> Result<(), Error> {
        earlier.map_or_else(|| self.remove(), |earlier| self.save(earlier))
    }

    /// Removes the file, and one that a killed plugin has not finished.
    pub fn remove(&self) -> Result<(), Error> {
        remove_file(&self.fresh())?;
        match read(&self.file(), drop)? {
            Some((_, owner)) if self.may_be_ours(owner.as_ref()) => remove_file(&self.file()),
            _ => Ok(()),
        }
    }

    fn may_be_ours(&self, owner: Option<&Attachment>) -> bool {
        owner.is_none_or(|owner| *owner == self.owner)
    }

    fn file(&self) -> PathBuf {
        let Attachment { container_id, ifname, .. } = &self.owner;
        self.dir.join(format!("{container_id}_{ifname}.json"))
    }

    /// The file that is being written. No name contains a colon. If the names are too long, they are replaced
    /// by a hash; then DEL finds the file, but GC does not.
    fn fresh(&self) -> PathBuf {
        let Attachment { network, container_id, ifname } = &self.owner;
        let name = format!(".{network}:{container_id}:{ifname}{FRESH}");
        if name.len() <= NAME_MAX {
            return self.dir.join(name);
        }
        let hash = hashed_name(".", NAME_MAX / 2, &[network.as_str(), container_id.as_str()]);
        self.dir.join(format!("{hash}:{ifname}{FRESH}"))
    }
}

/// The files of a directory; none if it does not exist.
pub fn files(dir: &Path) -> Result<Vec<PathBuf>, Error> {
    file::entries(dir).map_err(Error::file("list the backups in", dir))
}

/// Whether files can be made in a directory, or in its nearest parent that exists.
pub fn is_writable(dir: &Path) -> Result<(), Error> {
    if let Ok(found) = fs::metadata(dir)
        && found.uid() != geteuid().as_raw()
    {
        let why = format!("it belongs to user {}; it must belong to root", found.uid());
        let why = io::Error::new(ErrorKind::PermissionDenied, why);
        return Err(Error::file("write backups in", dir)(why));
    }
    file::is_writable(dir).map_err(Error::file("write backups in", dir))
}

/// Removes a file, if it exists.
pub fn remove_file(path: &Path) -> Result<(), Error> {
    file::remove(path).map_err(Error::file("remove the backup", path))
}

/// The owner of a file, from its content, or from its name if it is being written; `None` if it names none.
pub fn owner(file: &Path) -> Result<Option<Attachment>, Error> {
    let name = file.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    if let Some(names) = name.strip_prefix('.').and_then(|name| name.strip_suffix(FRESH)) {
        let names: Vec<&str> = names.split(':').collect();
        let [network, container_id, ifname] = names[..] else { return Ok(None) };
        return Ok(Attachment::from_names(network, container_id, ifname));
    }
    if Path::new(name).extension().is_none_or(|extension| extension != "json") {
        return Ok(None);
    }
    Ok(read(file, drop)?.and_then(|(_, owner)| owner))
}

/// Reads a file; `None` if it does not exist. Values that are not valid are left out, so that a DEL does not
/// fail. A file that is not trusted is read as empty, and `is_untrusted` is called with the reason: it is not
/// a regular file, it is too large, or it belongs to another user.
fn read(
    file: &Path,
    is_untrusted: impl FnOnce(io::Error),
) -> Result<Option<(Before, Option<Attachment>)>, Error> {
    use ErrorKind::{FileTooLarge, InvalidInput, PermissionDenied};
    let text = match file::read_own(file, SIZE_LIMIT) {
        Err(error) if file::is_missing(&error) => return Ok(None),
        Err(error) if matches!(error.kind(), FileTooLarge | InvalidInput | PermissionDenied) => {
            is_untrusted(error);
            Vec::new()
        }
        text => text.map_err(Error::file("read the backup", file))?,
    };
    let value: Value = serde_json::from_slice(&text).unwrap_or_default();
    let link = json::read_what_is_right(&value).unwrap_or_default();
    let own = json::get(&value, "podwire").and_then(|own| json::read(own).ok());
    let OwnContent { owner, interface, sysctl } =
        own.unwrap_or(OwnContent { owner: None, interface: None, sysctl: BTreeMap::new() });
    Ok(Some((Before { link, interface, sysctl }, owner)))
}

/// The content with the reference plugin's indentation.
fn text(content: &Content<'_>) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    let indent = serde_json::ser::PrettyFormatter::with_indent(b" ");
    content.serialize(&mut serde_json::Serializer::with_formatter(&mut text, indent))?;
    Ok(text)
}

#[cfg(test)]
mod tests;
