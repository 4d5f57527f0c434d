//! The binaries under test and those to compare them with.

use std::env;
use std::path::{Path, PathBuf};

/// A directory of plugins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plugins {
    /// Its name in reports: `ours`, `go` or `debian`.
    pub label: &'static str,
    /// Its path.
    pub dir: PathBuf,
}

macro_rules! plugins {
    ($($kind:ident $name:literal $type:ty,)*) => {
        impl Plugins {
            /// The names of all plugins that we ship.
            pub const ALL: [&str; [$($name),*].len()] = [$($name),*];
        }

        const KINDS: &[(&str, &str)] = &[$(($name, stringify!($kind))),*];
    };
}
// Only words: this crate does not depend on the plugins' crates.
include!("../../plugins/registry.in");

impl Plugins {
    /// Whether a plugin is of this kind of the registry: `interface`, `chained` or `ipam`.
    #[must_use]
    pub fn is_kind(plugin: &str, kind: &str) -> bool {
        KINDS.contains(&(plugin, kind))
    }

    /// The binaries under test: `PODWIRE_BIN`, or else `dist/bin`, where `cargo xtask build` puts
    /// them.
    #[must_use]
    pub fn ours() -> Self {
        Self::at("ours", "PODWIRE_BIN", "dist/bin")
    }

    /// The Go plugins, 1.10.0: `GO_PLUGINS`, or else where `cargo xtask test` installs them.
    #[must_use]
    pub fn go() -> Self {
        Self::at("go", "GO_PLUGINS", "target/reference/bin")
    }

    /// The Go plugins as Debian 12 packages them, 1.1.1: `DEBIAN_PLUGINS`, or else `/usr/lib/cni`.
    #[must_use]
    pub fn debian() -> Self {
        Self::at("debian", "DEBIAN_PLUGINS", "/usr/lib/cni")
    }

    fn at(label: &'static str, variable: &str, default: &str) -> Self {
        let dir = env::var_os(variable).map_or_else(|| workspace().join(default), PathBuf::from);
        Self { label, dir }
    }

    /// The path of one plugin.
    #[must_use]
    pub fn path(&self, plugin: &str) -> PathBuf {
        self.dir.join(plugin)
    }
}

/// The directory of the workspace.
#[must_use]
pub fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("/")).to_owned()
}

/// A program of the search path, including the `sbin` directories.
#[must_use]
pub fn tool(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .chain([Plugins::go().dir])
        .map(|dir| dir.join(name))
        .find(|file| file.is_file())
}

/// Our program `conflist`, which is in the directory of the plugins.
#[must_use]
pub fn conflist_program() -> PathBuf {
    Plugins::ours().path("conflist")
}
