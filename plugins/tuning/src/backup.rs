//! How everything was before an ADD, in files of the reference plugin's place and format:
//! `dataDir/CONTAINER_IFNAME.json`, an object with an interface's attributes.
//!
//! The key `podwire`, which the reference plugin ignores, names the network and the attachment, by
//! which GC knows the owner of a file; it identifies the interface, and holds the settings. A file
//! without that key is the reference plugin's: DEL restores it, GC leaves it alone.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use attach::hashed_name;
use cni::file::SIZE_LIMIT;
use cni::{Attachment, Call, json};
use nix::errno::Errno;
use nix::unistd::{AccessFlags, access};
use rustix::process::geteuid;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::config::Config;
use crate::error::Error;
use crate::sysctl::Name;
use crate::wanted::{Before, Changed, Identity, LinkSettings};

/// Where backups are kept if `dataDir` does not say: gone after a reboot, as the pods are.
pub const DEFAULT_DIR: &str = "/run/cni/tuning";

/// What ends the name of a file that is being written.
const FRESH: &str = ".new";

/// What a file's name has room for.
const NAME_MAX: usize = 255;

/// The backup of one attachment.
#[derive(Debug)]
pub struct Backup<'a> {
    dir: &'a Path,
    owner: Attachment,
}

/// What a file holds.
#[derive(Serialize)]
struct Content<'a> {
    #[serde(flatten)]
    link: LinkSettings,
    podwire: OwnContent<&'a Attachment, &'a BTreeMap<Name, Changed>>,
}

/// What only we write.
#[derive(Serialize, Deserialize)]
struct OwnContent<O, S> {
    owner: O,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    interface: Option<Identity>,
    sysctl: S,
}

impl<'a> Backup<'a> {
    /// That of the attachment which a command is about.
    #[must_use]
    pub fn of(call: &'a Call<Config>) -> Self {
        Self { dir: call.config().data_dir(), owner: call.attachment() }
    }

    /// Reads what a DEL has to put back: ours or the reference plugin's, but not that of another
    /// network, which has given the interface to the container meanwhile.
    pub fn load(&self) -> Result<Option<Before>, Error> {
        let found = self.found()?;
        Ok(found.filter(|(_, owner)| self.may_be_ours(owner.as_ref())).map(|(before, _)| before))
    }

    /// Reads what an earlier ADD of this plugin has left for the same attachment.
    pub fn load_own(&self) -> Result<Option<Before>, Error> {
        let found = self.found()?;
        Ok(found.filter(|(_, owner)| owner.as_ref() == Some(&self.owner)).map(|(before, _)| before))
    }

    /// Reads the file for a command that would use its values, and says on stderr if it is not trusted.
    fn found(&self) -> Result<Option<(Before, Option<Attachment>)>, Error> {
        let file = self.file();
        let say = |why| eprintln!("tuning: the backup {} is not used: {why}", file.display());
        read(&file, say)
    }

    /// Writes it, whole or not at all.
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
            cni::file::own_dir(self.dir)?;
            // What is left there may be no regular file, and is not to be opened.
            remove_if_there(&fresh)?;
            let options = &mut OpenOptions::new();
            options.write(true).create_new(true).mode(0o600).open(&fresh)?.write_all(&text)?;
            fs::rename(&fresh, &file)
        };
        write().map_err(|source| {
            // The write's error says more than one of the removal.
            let _ = fs::remove_file(&fresh);
            Error::File { what: "write the backup", path: file.clone(), source }
        })
    }

    /// Goes back to what an earlier ADD has written, or to none.
    pub fn replace_by(&self, earlier: Option<&Before>) -> Result<(), Error> {
        earlier.map_or_else(|| self.remove(), |earlier| self.save(earlier))
    }

    /// Removes it, and what of it was being written when something died.
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

    /// No part can hold the colons between them. Of names too long for that, it is a hash, by which
    /// DEL finds it, and GC does not.
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

/// The files of a directory, which need not be there.
pub fn files(dir: &Path) -> Result<Vec<PathBuf>, Error> {
    let failed = || Error::file("list the backups in", dir);
    let entries = match fs::read_dir(dir) {
        Err(error) if is_gone(&error) => return Ok(Vec::new()),
        entries => entries.map_err(failed())?,
    };
    entries.map(|entry| Ok(entry.map_err(failed())?.path())).collect()
}

/// Whether files can be made in a directory, or else in what is there of the way to it.
pub fn is_writable(dir: &Path) -> Result<(), Error> {
    if let Ok(found) = fs::metadata(dir)
        && found.uid() != geteuid().as_raw()
    {
        let why = format!("it belongs to user {}; make it root's", found.uid());
        let why = io::Error::new(ErrorKind::PermissionDenied, why);
        return Err(Error::file("write backups in", dir)(why));
    }
    for part in dir.ancestors() {
        match access(part, AccessFlags::W_OK | AccessFlags::X_OK) {
            Err(Errno::ENOENT) => {}
            other => return other.map_err(|no| Error::file("write backups in", dir)(no.into())),
        }
    }
    Ok(())
}

/// Removes a file, if it is there.
pub fn remove_file(file: &Path) -> Result<(), Error> {
    remove_if_there(file).map_err(Error::file("remove the backup", file))
}

fn remove_if_there(file: &Path) -> io::Result<()> {
    match fs::remove_file(file) {
        Err(error) if is_gone(&error) => Ok(()),
        removed => removed,
    }
}

/// Whose a file is, by its content, or by its name if it is being written; `None` if that cannot be
/// told.
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

/// Reads a file; `None` if it is not there. What cannot be understood is left out, because half a file is
/// better than a DEL that fails. A file that is not trusted counts as empty, and `is_untrusted` is called
/// with the reason: it is not a regular file, it is huge, or it belongs to another user.
fn read(
    file: &Path,
    is_untrusted: impl FnOnce(io::Error),
) -> Result<Option<(Before, Option<Attachment>)>, Error> {
    use ErrorKind::{FileTooLarge, InvalidInput, PermissionDenied};
    let text = match cni::file::read_own(file, SIZE_LIMIT) {
        Err(error) if is_gone(&error) => return Ok(None),
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

/// Whether there is no such file, nor a directory to hold one, or could not be by that name.
fn is_gone(error: &io::Error) -> bool {
    use ErrorKind::{InvalidFilename, NotADirectory, NotFound};
    matches!(error.kind(), NotFound | NotADirectory | InvalidFilename)
}

/// As the reference plugin indents it.
fn text(content: &Content<'_>) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    let indent = serde_json::ser::PrettyFormatter::with_indent(b" ");
    content.serialize(&mut serde_json::Serializer::with_formatter(&mut text, indent))?;
    Ok(text)
}

#[cfg(test)]
mod tests;
