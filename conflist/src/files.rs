//! The files that configure networks, in a directory such as `/etc/cni/net.d`.
//!
//! As in libcni, the `.conflist` files come first, then `.conf` and `.json` files with one plugin
//! each, both in the order of their names; the first one with the network's name is taken. The
//! plugins of a `.conflist` may also be files of their own, `NETWORK/*.conf` beside it. Only regular files of
//! at most 16 MiB are read.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::{fmt, fs, io};

use cni::NetworkName;

use crate::causes::with_causes;
use crate::network::{InvalidNetwork, Network, PluginConf};

/// Why a network was not found.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    /// The directory could not be listed.
    #[error("list directory {}", dir.display())]
    List {
        /// The directory.
        dir: PathBuf,
        /// What went wrong.
        #[source]
        source: io::Error,
    },
    /// A file could not be read.
    #[error("read {}", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// What went wrong.
        #[source]
        source: io::Error,
    },
    /// A file does not contain a valid network.
    #[error("read {}", file.display())]
    Invalid {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        #[source]
        source: InvalidNetwork,
    },
    /// No file of the directory has this network.
    #[error("no file in {} has network {name:?}{}", dir.display(), Unreadable(unreadable))]
    NotFound {
        /// The network.
        name: String,
        /// The directory.
        dir: PathBuf,
        /// The files that cannot be read, one of which may have it.
        unreadable: Vec<FilesError>,
    },
}

/// The part of a message that lists files that could not be read.
struct Unreadable<'a>(&'a [FilesError]);

impl fmt::Display for Unreadable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for error in self.0 {
            write!(f, "; {}", with_causes(error))?;
        }
        Ok(())
    }
}

/// Finds a network by its name.
///
/// A file that cannot be read does not prevent that another file is found.
pub fn find(dir: &Path, name: &NetworkName) -> Result<Network, FilesError> {
    let mut unreadable = Vec::new();
    for file in networks(dir)? {
        match load(&file) {
            Ok(network) if network.name == *name => return Ok(network),
            Ok(_) => {}
            Err(error) => unreadable.push(error),
        }
    }
    Err(FilesError::NotFound { name: name.to_string(), dir: dir.to_owned(), unreadable })
}

/// All files of a directory that may configure a network, in the order in which they are searched.
pub fn networks(dir: &Path) -> Result<Vec<PathBuf>, FilesError> {
    let mut files = with_extension(dir, &["conflist"])?;
    files.extend(with_extension(dir, &["conf", "json"])?);
    Ok(files)
}

/// Reads the network of a file, with the plugins in files of their own.
pub fn load(file: &Path) -> Result<Network, FilesError> {
    let text = read(file)?;
    let invalid = |source| FilesError::Invalid { file: file.to_owned(), source };
    if !is_list(file) {
        return Network::from_conf(&text).map_err(invalid);
    }
    let mut network = Network::from_list(&text).map_err(invalid)?;
    if !network.only_inlined {
        let mut more = Vec::new();
        for file in plugins(file, &network.name)? {
            let conf = PluginConf::parse(&read(&file)?)
                .map_err(|source| FilesError::Invalid { file, source })?;
            more.push(conf);
        }
        network.extend(more).map_err(invalid)?;
    }
    if network.plugins.is_empty() {
        return Err(invalid(InvalidNetwork::NoPlugins));
    }
    Ok(network)
}

/// Whether the name of a file is that of a list of plugins.
#[must_use]
pub fn is_list(file: &Path) -> bool {
    file.extension() == Some(OsStr::new("conflist"))
}

/// The files beside `file` that contain plugins of its network.
pub fn plugins(file: &Path, network: &NetworkName) -> Result<Vec<PathBuf>, FilesError> {
    with_extension(&file.with_file_name(network.as_str()), &["conf"])
}

/// The plugins in `DIR/NETWORK/*.conf` whose files can be read.
pub(crate) fn readable_plugins(dir: &Path, network: &NetworkName) -> Vec<PluginConf> {
    let files = with_extension(&dir.join(network.as_str()), &["conf"]).unwrap_or_default();
    files.iter().filter_map(|file| PluginConf::parse(&read(file).ok()?).ok()).collect()
}

fn with_extension(dir: &Path, extensions: &[&str]) -> Result<Vec<PathBuf>, FilesError> {
    let list = |source| FilesError::List { dir: dir.to_owned(), source };
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        // A file with the name of a network is not a directory of its plugins.
        Err(error)
            if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) =>
        {
            return Ok(Vec::new());
        }
        Err(error) => return Err(list(error)),
    };
    let mut files = Vec::new();
    for entry in entries {
        let file = entry.map_err(list)?.path();
        let known = file.extension().is_some_and(|it| extensions.iter().any(|known| it == *known));
        if known && !file.is_dir() {
            files.push(file);
        }
    }
    files.sort();
    Ok(files)
}

/// Reads a regular file. Anything else, such as a FIFO or a device, is refused without blocking.
pub(crate) fn read_file(file: &Path) -> io::Result<Vec<u8>> {
    cni::file::read(file, cni::file::SIZE_LIMIT)
}

fn read(file: &Path) -> Result<Vec<u8>, FilesError> {
    read_file(file).map_err(|source| FilesError::Read { file: file.to_owned(), source })
}
