//! The workspace as `cargo metadata` describes it.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::command::{Failure, cargo, read};
use crate::paths::root;

/// One crate of the workspace.
#[derive(Debug)]
pub(crate) struct Member {
    /// Its name.
    pub name: String,
    /// Its directory, relative to that of the workspace.
    pub dir: PathBuf,
    /// Its description.
    pub description: String,
    /// The names of its programs.
    pub programs: Vec<String>,
    /// The crates that it depends on, including those for tests only.
    pub dependencies: Vec<Dependency>,
}

/// A dependency of a crate.
#[derive(Debug)]
pub(crate) struct Dependency {
    /// The crate's name.
    pub name: String,
    /// Whether it is a development dependency.
    pub is_for_tests: bool,
}

impl Member {
    /// The top-level directory that the crate is in.
    pub(crate) fn folder(&self) -> &str {
        self.dir.iter().next().and_then(|folder| folder.to_str()).unwrap_or_default()
    }

    /// Whether users install its programs.
    pub(crate) fn is_shipped(&self) -> bool {
        ["plugins", "ipam", "conflist"].contains(&self.folder())
    }
}

/// All crates of the workspace.
pub(crate) fn members() -> Result<Vec<Member>, Failure> {
    let text = read(&mut cargo(["metadata", "--no-deps", "--format-version=1"]))?;
    let metadata: Value = serde_json::from_str(&text)
        .map_err(|source| Failure::Output { program: "cargo metadata", source })?;
    let root = root();
    let packages = metadata["packages"].as_array().into_iter().flatten();
    Ok(packages.map(|package| member(package, &root)).collect())
}

fn member(package: &Value, root: &Path) -> Member {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let manifest = PathBuf::from(text(&package["manifest_path"]));
    let dir = manifest.parent().and_then(|dir| dir.strip_prefix(root).ok()).unwrap_or(root);
    let targets = || package["targets"].as_array().into_iter().flatten();
    let programs = targets().filter(|t| t["kind"][0] == "bin").map(|t| text(&t["name"]));
    let dependencies = package["dependencies"].as_array().into_iter().flatten();
    let dependency =
        |d: &Value| Dependency { name: text(&d["name"]), is_for_tests: d["kind"] == "dev" };
    Member {
        name: text(&package["name"]),
        dir: dir.to_owned(),
        description: text(&package["description"]),
        programs: programs.collect(),
        dependencies: dependencies.map(dependency).collect(),
    }
}
