//! The rule "no circles": no two files of a crate import each other. Both should use a third one.
//!
//! Only paths from `crate` and `super` count: a module may use its own submodules, which are parts of it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Pairs of files that are one thing in two files, and why.
const ALLOWED: [(&str, &str, &str); 0] = [];

/// A crate's directory and a module's path in it.
type Module = (PathBuf, Vec<String>);

/// The pairs of files that import each other and are not in [`ALLOWED`].
pub(super) fn circles(files: &[(PathBuf, String)]) -> Vec<String> {
    let modules: BTreeMap<Module, &Path> =
        files.iter().filter_map(|(path, _)| Some((module(path)?, path.as_path()))).collect();
    let mut uses = BTreeSet::new();
    for (path, text) in files {
        let Some((root, own)) = module(path) else { continue };
        for imported in imports(text, &own) {
            // The longest part of the path that is a module; the rest are items in it.
            let target = (1..=imported.len()).rev().find_map(|length| {
                modules.get(&(root.clone(), imported[..length].to_vec())).copied()
            });
            uses.extend(target.filter(|target| *target != path).map(|it| (path.as_path(), it)));
        }
    }
    let is_allowed =
        |a: &Path, b: &Path| ALLOWED.iter().any(|(x, y, _)| (a, b) == (Path::new(x), Path::new(y)));
    let pairs = uses.iter().filter(|(a, b)| a < b && uses.contains(&(*b, *a)));
    pairs
        .filter(|(a, b)| !is_allowed(a, b))
        .map(|(a, b)| format!("{} and {} import each other", a.display(), b.display()))
        .collect()
}

/// The module that a file is; `None` for tests and for files outside of `src`.
fn module(path: &Path) -> Option<Module> {
    let mut parts: Vec<String> =
        path.iter().map(|part| part.to_string_lossy().into_owned()).collect();
    let src = parts.iter().position(|part| part == "src")?;
    let mut module = parts.split_off(src + 1);
    let name = module.pop()?.strip_suffix(".rs")?.to_owned();
    if ["tests", "testing"].contains(&name.as_str()) || name.ends_with("_tests") {
        return None;
    }
    if !["lib", "main", "mod"].contains(&name.as_str()) {
        module.push(name);
    }
    Some((parts[..src].iter().collect(), module))
}

/// The paths from `crate` and `super` in a file's code, as paths from the crate's root.
fn imports(text: &str, own: &[String]) -> Vec<Vec<String>> {
    let text = text.split("\n#[cfg(test)]\nmod ").next().unwrap_or_default();
    let code: Vec<&str> =
        text.lines().map(|line| line.split("//").next().unwrap_or_default().trim()).collect();
    let code = code.join(" ");
    let mut imports = Vec::new();
    for keyword in ["crate::", "super::"] {
        for (at, _) in code.match_indices(keyword) {
            let is_word = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
            if code[..at].ends_with(is_word) {
                continue;
            }
            let mut base: &[String] = if keyword == "crate::" { &[] } else { parent(own) };
            let mut rest = &code[at + keyword.len()..];
            while let Some(after) = rest.strip_prefix("super::") {
                (base, rest) = (parent(base), after);
            }
            let prefix = &rest[..rest.find(|c| !is_word(c)).unwrap_or(rest.len())];
            let group = rest[prefix.len()..].strip_prefix('{').and_then(|it| it.split_once('}'));
            let ends = group.map_or(vec![""], |(inner, _)| inner.split(',').collect());
            for end in ends {
                let whole = format!("{prefix}{}", end.trim());
                let words = whole.split("::").filter(|word| !word.is_empty());
                imports.push(base.iter().cloned().chain(words.map(str::to_owned)).collect());
            }
        }
    }
    imports
}

fn parent(module: &[String]) -> &[String] {
    module.split_last().map_or(&[], |(_, parent)| parent)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(files: &[(&str, &str)]) -> Vec<String> {
        let file = |(path, text): &(&str, &str)| (PathBuf::from(path), (*text).to_owned());
        circles(&files.iter().map(file).collect::<Vec<_>>())
    }

    #[test]
    fn files_that_import_each_other_are_found() {
        let a = ("x/src/a.rs", "use crate::b::{B, C};\n");
        for b in ["use crate::a::A;\n", "use super::a;\n", "fn f() { crate::a::f() }\n"] {
            let offences = found(&[a, ("x/src/b.rs", b)]);
            assert_eq!(offences, ["x/src/a.rs and x/src/b.rs import each other"], "{b}");
        }
        let group = ("x/src/c/d.rs", "use crate::{\n    a, c,\n};\n");
        assert_eq!(found(&[group, ("x/src/a.rs", "use crate::c::d;")]).len(), 1);
    }

    #[test]
    fn other_imports_are_no_circle() {
        let a = ("x/src/a.rs", "use crate::b::B;\n");
        for b in [
            "// use crate::a::A;\n",
            "use a::A;\n",
            "fn f() {}\n#[cfg(test)]\nmod tests {\nuse crate::a;\n}",
        ] {
            assert_eq!(found(&[a, ("x/src/b.rs", b)]), Vec::<String>::new(), "{b}");
        }
        // A module and its submodule.
        let parent = ("x/src/a.rs", "mod b;\nuse b::B;\n");
        assert_eq!(found(&[parent, ("x/src/a/b.rs", "use super::A;\n")]), Vec::<String>::new());
        // Another crate.
        assert_eq!(found(&[a, ("y/src/b.rs", "use crate::a::A;\n")]), Vec::<String>::new());
    }
}
