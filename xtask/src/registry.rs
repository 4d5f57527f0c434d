//! The plugins of `plugins/registry.in`, and what must agree with that file: the folders of plugins, and
//! the table of programs in `README.md`.

use std::fs;

use crate::command::Failure;
use crate::paths::root;
use crate::workspace::{Member, members};

/// A line of the registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Plugin {
    /// What it does in a chain: `interface`, `chained` or `ipam`.
    pub kind: &'static str,
    /// Its name.
    pub name: &'static str,
}

macro_rules! plugins {
    ($($kind:ident $name:literal $type:ty,)*) => {
        /// All plugins.
        pub(crate) const PLUGINS: &[Plugin] =
            &[$(Plugin { kind: stringify!($kind), name: $name }),*];
    };
}
// Only words: this crate does not depend on the plugins' crates.
include!("../../plugins/registry.in");

/// The kinds in the order of the table of programs. Programs that are not plugins come last.
const ORDER: [&str; 3] = ["interface", "ipam", "chained"];
/// The line above the first row of the table of programs.
const HEAD: &str = "| program | what it does |\n| --- | --- |\n";

/// Folders of plugins without a line in the registry, and lines without a folder.
pub(crate) fn offences() -> Result<Vec<String>, Failure> {
    let members = members()?;
    let is_plugin = |it: &&Member| it.is_shipped() && it.folder() != "conflist";
    let mut offences = Vec::new();
    for member in members.iter().filter(is_plugin).filter(|it| !it.programs.is_empty()) {
        let found = PLUGINS.iter().find(|plugin| plugin.name == member.name);
        if found.is_none_or(|plugin| (plugin.kind == "ipam") != (member.folder() == "ipam")) {
            let (dir, name) = (member.dir.display(), &member.name);
            offences.push(format!("{dir}: plugins/registry.in must have a line for {name}"));
        }
    }
    for Plugin { name, .. } in PLUGINS {
        if !members.iter().filter(is_plugin).any(|it| it.programs.iter().any(|it| it == name)) {
            offences.push(format!("plugins/registry.in: no folder has the program {name}"));
        }
    }
    Ok(offences)
}

/// Writes the table of programs into `README.md`, from the descriptions in `Cargo.toml` files.
pub(crate) fn write_table() -> Result<(), Failure> {
    let path = root().join("README.md");
    fs::write(&path, with_table()?.1).map_err(Failure::file("write", &path))
}

/// Finds out whether the table in `README.md` is up to date.
pub(crate) fn compare_table() -> Result<(), Failure> {
    let (found, expected) = with_table()?;
    if found == expected { Ok(()) } else { Err(Failure::Table) }
}

/// The content of `README.md`, as it is and with the current table.
fn with_table() -> Result<(String, String), Failure> {
    let path = root().join("README.md");
    let text = fs::read_to_string(&path).map_err(Failure::file("read", &path))?;
    let (before, rest) = text.split_once(HEAD).ok_or(Failure::Table)?;
    let end = rest.find("\n\n").map_or(rest.len(), |at| at + 1);
    let expected = format!("{before}{HEAD}{}{}", table(&members()?), &rest[end..]);
    Ok((text, expected))
}

fn table(members: &[Member]) -> String {
    let rank = |name: &str| {
        let kind = PLUGINS.iter().find(|plugin| plugin.name == name).map(|plugin| plugin.kind);
        ORDER.iter().position(|it| Some(*it) == kind).unwrap_or(ORDER.len())
    };
    let mut shipped: Vec<&Member> =
        members.iter().filter(|it| it.is_shipped() && !it.programs.is_empty()).collect();
    shipped.sort_by_key(|member| (rank(&member.name), &member.name));
    let row = |member: &&Member| {
        let Member { name, dir, description, .. } = member;
        format!("| [`{name}`]({}/README.md) | {description} |\n", dir.display())
    };
    shipped.iter().map(row).collect()
}
