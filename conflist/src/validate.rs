//! Finds the mistakes in a network's configuration, with file, line and key.
//!
//! No plugin is run. Errors are values that a plugin would refuse, and missing programs. The schemas find all
//! values of a wrong type or form. Then each plugin of the registry validates the configuration by the
//! function that its ADD calls, which stops at the first wrong value. An unknown key is a warning: the
//! specification lets plugins ignore keys, which hides misspelt ones. Hints are about networks that work,
//! but not in all cases that people expect.

mod check;
mod document;
mod finding;
mod hints;
mod refused;
mod rules;
mod schema;
mod suggest;

use std::path::{Path, PathBuf};

use cni::{NetworkName, exec};

pub use self::finding::{Finding, Problem, Severity};

use self::check::{Checker, join};
use self::document::{Content, Node};
use self::schema::Schema;
use self::suggest::nearest;
use crate::error::Error;
use crate::files::{self, FilesError};
use crate::network::Network;
use crate::registry::{self, Kind};

/// Validates the network with this name: the file that runtimes use, the plugins beside it, and other
/// files with the name. `plugin_path` has the directories of plugins.
///
/// If no file has the name, this validates the files without a name or without valid JSON, because one of
/// them may be meant.
///
/// Errors: there are no such files, either.
pub fn network(dir: &Path, name: &str, plugin_path: &[PathBuf]) -> Result<Vec<Finding>, Error> {
    let name: NetworkName = name.parse()?;
    let mut files = Vec::new();
    let mut nameless = Vec::new();
    let mut findings = Vec::new();
    for file in files::networks(dir)? {
        let text = files::read_file(&file);
        if let (Err(error), true) = (&text, files.is_empty()) {
            let problem = Problem::InTheWay(error.to_string());
            Checker { file: &file, findings: &mut findings }.warning(1, "", problem);
        }
        let node = text.ok().and_then(|text| Node::parse(&text).ok());
        match node.as_ref().and_then(|node| node.text_of("name")) {
            Some(text) if text == name.as_str() => files.push(file),
            Some(_) => {}
            None => nameless.push(file),
        }
    }
    if files.is_empty() && nameless.is_empty() {
        let name = name.to_string();
        return Err(FilesError::NotFound { name, dir: dir.into(), unreadable: Vec::new() }.into());
    }
    let files = if files.is_empty() {
        findings.clear();
        nameless
    } else {
        files
    };
    for finding in files.iter().flat_map(|path| file(path, plugin_path)) {
        // Files with the same name share the plugins beside them.
        if !findings.contains(&finding) {
            findings.push(finding);
        }
    }
    Ok(findings)
}

/// The chain that a plugin is part of.
#[derive(Clone, Copy)]
struct Chain<'a> {
    /// The network; `None` if it is not valid.
    network: Option<&'a Network>,
    plugin_path: &'a [PathBuf],
}

/// Validates one file, and the plugins of its network beside it.
#[must_use]
pub fn file(path: &Path, plugin_path: &[PathBuf]) -> Vec<Finding> {
    let mut findings = Vec::new();
    if let Some(node) = read(path, &mut findings) {
        let mut checker = Checker { file: path, findings: &mut findings };
        let text = node.to_value().to_string();
        if files::is_list(path) {
            let network = Network::from_list(text.as_bytes()).ok();
            let chain = Chain { network: network.as_ref(), plugin_path };
            list(&mut checker, &node, chain);
            taken(&mut checker, &node);
            plugins_beside(path, &node, chain, &mut findings);
        } else {
            if lone_plugin(&mut checker, &node) {
                let network = Network::from_conf(text.as_bytes()).ok();
                checker.value(&node, "", &[Schema::lone()]);
                let chain = Chain { network: network.as_ref(), plugin_path };
                plugin(&mut checker, &node, "", 0, chain);
            }
            taken(&mut checker, &node);
        }
    }
    findings
        .sort_by(|a, b| (a.file != path, &a.file, a.line).cmp(&(b.file != path, &b.file, b.line)));
    findings
}

fn read(path: &Path, findings: &mut Vec<Finding>) -> Option<Node> {
    let mut checker = Checker { file: path, findings };
    let text = match files::read_file(path) {
        Ok(text) => text,
        Err(error) => {
            checker.error(1, "", Problem::Unreadable(error.to_string()));
            return None;
        }
    };
    match Node::parse(&text) {
        Ok(node) if matches!(node.content, Content::Object(_)) => Some(node),
        Ok(node) => {
            let problem = Problem::Type { expected: "an object".into(), found: node.what() };
            checker.error(node.line, "", problem);
            None
        }
        Err(error) => {
            checker.error(error.line, "", Problem::Syntax(error.why));
            None
        }
    }
}

fn list(checker: &mut Checker<'_>, node: &Node, chain: Chain<'_>) {
    checker.value(node, "", &[Schema::list()]);
    spelling(checker, node);
    version(checker, node);
    let only_inlined = node.is_true("loadOnlyInlinedPlugins");
    match node.get("plugins") {
        None if only_inlined || !may_have_plugins_beside(checker.file, node) => {
            let why = "a network must have at least one plugin";
            checker.error(node.line, "plugins", Problem::Missing(why.to_owned()));
        }
        Some(plugins) => {
            for (index, item) in plugins.value.items().iter().enumerate() {
                plugin(checker, item, &format!("plugins[{index}]"), index, chain);
            }
            hints::list(checker, plugins.value.items());
        }
        None => {}
    }
}

/// Whether a file for one plugin has one, and not a list.
fn lone_plugin(checker: &mut Checker<'_>, node: &Node) -> bool {
    if let (Some(plugins), None) = (node.get("plugins"), node.get("type")) {
        let why = "belongs in a file whose name ends in .conflist; this file is for one plugin";
        checker.error(plugins.line, "plugins", Problem::Contradiction(why.to_owned()));
        return false;
    }
    version(checker, node);
    true
}

/// Finds keys of a list with wrong case: plugins ignore case, but runtimes do not.
fn spelling(checker: &mut Checker<'_>, node: &Node) {
    for member in node.members() {
        let same = |key: &&str| key.eq_ignore_ascii_case(&member.key);
        if let Some(key) = Schema::list().keys().find(same).filter(|key| *key != member.key) {
            checker.error(member.line, &member.key, Problem::Unknown(Some(key.to_owned())));
        }
    }
}

fn version(checker: &mut Checker<'_>, node: &Node) {
    if node.get("cniVersion").is_none() && node.get("cniVersions").is_none() {
        let why = "plugins then use 0.1.0";
        checker.warning(node.line, "cniVersion", Problem::Missing(why.to_owned()));
    }
}

/// Validates the plugins in files of their own, which follow those of the list.
fn plugins_beside(path: &Path, list: &Node, chain: Chain<'_>, findings: &mut Vec<Finding>) {
    let Some(name) = list.text_of("name").and_then(|name| name.parse().ok()) else { return };
    if list.is_true("loadOnlyInlinedPlugins") {
        return;
    }
    let inlined = list.get("plugins").map_or(0, |it| it.value.items().len());
    for (index, file) in files::plugins(path, &name).unwrap_or_default().iter().enumerate() {
        if let Some(node) = read(file, findings) {
            let mut checker = Checker { file, findings };
            checker.value(&node, "", &[Schema::plugin()]);
            plugin(&mut checker, &node, "", inlined + index, chain);
        }
    }
}

fn may_have_plugins_beside(path: &Path, list: &Node) -> bool {
    let name = list.text_of("name").and_then(|name| name.parse().ok());
    name.is_some_and(|name| files::plugins(path, &name).is_ok_and(|files| !files.is_empty()))
}

/// Validates what no schema can express. The plugin is number `index` of the chain, from 0.
fn plugin(checker: &mut Checker<'_>, node: &Node, path: &str, index: usize, chain: Chain<'_>) {
    if !matches!(node.content, Content::Object(_)) {
        // The schema of the list has reported it.
        return;
    }
    if let (Some(network), false) = (chain.network, checker.has_error_in(path)) {
        refused::plugin(checker, node, path, network);
    }
    capabilities(checker, node, path);
    let Chain { plugin_path, .. } = chain;
    let kind = node.text_of("type").unwrap_or_default();
    program(checker, node, path, Schema::types(false), plugin_path);
    if index == 0 && registry::plugin(kind).is_some_and(|plugin| plugin.kind == Kind::chained) {
        let why = format!("{kind} needs the result of another plugin, so it must not be the first");
        checker.error(node.line, &join(path, "type"), Problem::Contradiction(why));
    }
    rules::plugin(checker, kind, node, path);
    if let Some(ipam) = node.get("ipam").filter(|it| !it.value.members().is_empty()) {
        let path = join(path, &ipam.key);
        let kind = ipam.value.text_of("type").unwrap_or_default();
        program(checker, &ipam.value, &path, Schema::types(true), plugin_path);
        rules::ipam(checker, kind, node, &ipam.value, &path);
    }
}

/// Looks for the program of a type; `known` has types to suggest.
fn program(
    checker: &mut Checker<'_>,
    node: &Node,
    path: &str,
    known: impl Iterator<Item = &'static str>,
    plugin_path: &[PathBuf],
) {
    let Some(member) = node.get("type") else { return };
    let Some(kind) = member.value.text() else { return };
    // The schema reports a type that is not a valid file name.
    if let Err(exec::ExecError::NotFound { kind, path: dirs }) = exec::find(kind, plugin_path) {
        let suggestion = nearest(&kind, known.filter(|other| *other != kind)).map(str::to_owned);
        let problem = Problem::NoProgram { kind, path: dirs, suggestion };
        checker.error(member.line, &join(path, "type"), problem);
    }
}

/// Finds misspelt capabilities. Other unknown ones are allowed, because any plugin may define some.
fn capabilities(checker: &mut Checker<'_>, node: &Node, path: &str) {
    let Some(declared) = node.get("capabilities") else { return };
    for member in declared.value.members() {
        let mut known = Schema::capabilities().keys();
        let Some(meant) = nearest(&member.key, known.clone()) else { continue };
        if meant != member.key && !known.any(|key| key == member.key) {
            let key = join(&join(path, &declared.key), &member.key);
            checker.warning(member.line, &key, Problem::Unknown(Some(meant.to_owned())));
        }
    }
}

/// Finds an earlier file with the network's name.
fn taken(checker: &mut Checker<'_>, node: &Node) {
    let Some(name) = node.get("name") else { return };
    let Some(text) = name.value.text() else { return };
    let dir = checker.file.parent().filter(|dir| !dir.as_os_str().is_empty());
    for other in files::networks(dir.unwrap_or(Path::new("."))).unwrap_or_default() {
        if other.file_name() == checker.file.file_name() {
            return;
        }
        let theirs = files::read_file(&other).ok().and_then(|text| Node::parse(&text).ok());
        if theirs.is_some_and(|node| node.text_of("name") == Some(text)) {
            let problem = Problem::NameTaken { name: text.to_owned(), first: other };
            checker.warning(name.line, &name.key, problem);
            return;
        }
    }
}

#[cfg(test)]
mod tests;
