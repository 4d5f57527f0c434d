//! The rules of this tree that no other tool checks.

mod circles;
mod words;

use std::fs;
use std::path::{Path, PathBuf};

use crate::command::{Failure, command, read};
use crate::paths::root;
use crate::registry;
use crate::workspace::{Dependency, Member, members};

/// The limit of lines in a file; [`LONG_FILES`] lists the exceptions.
const MAX_LINES: usize = 480;
/// The limit of columns in a line. rustfmt has a lower one, but does not change comments and literals.
const MAX_COLUMNS: usize = 110;
/// Files over the limit, and why they are not split.
const LONG_FILES: [(&str, &str); 0] = [];

/// The top-level directories and the directories whose crates theirs may use.
const DEPENDENCIES: [(&str, &[&str]); 8] = [
    ("cni", &[]),
    ("kernel", &[]),
    ("plugins", &["cni", "kernel", "plugins"]),
    ("ipam", &["cni"]),
    // `validate` and `purge` call functions of the plugins.
    ("conflist", &["cni", "ipam", "plugins"]),
    ("schema", &["cni", "conflist", "ipam", "plugins"]),
    // The tests share no code with the plugins.
    ("tests", &[]),
    ("xtask", &["cni", "conflist", "kernel", "tests"]),
];
/// A crate that the tests of all crates may use.
const TESTBED: &str = "testbed";
/// The folders whose crates exist only to test others: they may use [`TESTBED`] everywhere.
const TESTERS: [&str; 2] = ["tests", "xtask"];
/// The one crate that speaks netlink.
const KERNEL: &str = "kernel";

/// Marks of unfinished work, each in two halves so that this file contains none.
const UNFINISHED: [(&str, &str); 5] =
    [("TO", "DO"), ("FIX", "ME"), ("todo", "!("), ("dbg", "!("), ("unimplemented", "!(")];

/// What a rule found, one line for each offence.
type Offences = Vec<String>;

/// The names of all rules, and what each found.
pub(crate) fn rules() -> Vec<(&'static str, Result<Offences, Failure>)> {
    vec![
        ("each file says what it is for", each_source(starts_with_its_purpose)),
        ("no file is too long", each_source(is_too_long)),
        ("no line is too wide", each_source(is_too_wide)),
        ("no unfinished work", each_source(is_unfinished)),
        ("plain words", each_file(&words::FILES, words::are_not_plain)),
        ("crates inherit the lints", manifests()),
        ("dependencies between folders", dependencies()),
        ("no circles between files", files(&["*.rs"]).map(|files| circles::circles(&files))),
        ("the registry has every plugin", registry::offences()),
    ]
}

/// Prints the offences; returns a failure if there are any.
pub(crate) fn verdict(offences: &Offences) -> Result<(), Failure> {
    for offence in offences {
        println!("  {offence}");
    }
    if offences.is_empty() { Ok(()) } else { Err(Failure::Checks(offences.len())) }
}

fn starts_with_its_purpose(_: &Path, text: &str) -> Option<String> {
    let first = text.lines().next().unwrap_or_default();
    (!first.starts_with("//! ")).then(|| "the first line is not a //! comment".to_owned())
}

fn is_too_long(path: &Path, text: &str) -> Option<String> {
    let lines = text.lines().count();
    let has_reason = LONG_FILES.iter().any(|(file, _)| Path::new(file) == path);
    (lines > MAX_LINES && !has_reason).then(|| format!("{lines} lines, over {MAX_LINES}"))
}

/// A line in a raw literal may have any width: these contain the output or input of programs.
fn is_too_wide(_: &Path, text: &str) -> Option<String> {
    let mut raw = None;
    for (line, number) in text.lines().zip(1..) {
        let (mut has_raw, mut rest) = (raw.is_some(), line);
        loop {
            let end: String = if let Some(end) = raw.take() {
                end
            } else if let Some((end, content)) = raw_literal(rest) {
                (has_raw, rest) = (true, content);
                end
            } else {
                break;
            };
            let Some((_, after)) = rest.split_once(&end) else {
                raw = Some(end);
                break;
            };
            rest = after;
        }
        let columns = line.chars().count();
        if columns > MAX_COLUMNS && !has_raw {
            return Some(format!("line {number}: {columns} columns, over {MAX_COLUMNS}"));
        }
    }
    None
}

/// The end of the first raw literal that begins in a line, and what follows its beginning.
fn raw_literal(line: &str) -> Option<(String, &str)> {
    line.char_indices().filter(|(_, c)| *c == 'r').find_map(|(at, _)| {
        let is_word = line[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_');
        let after = line[at + 1..].trim_start_matches('#');
        let hashes = &line[at + 1..line.len() - after.len()];
        let content = after.strip_prefix('"')?;
        (!is_word).then(|| (format!("\"{hashes}"), content))
    })
}

fn is_unfinished(_: &Path, text: &str) -> Option<String> {
    let marks = UNFINISHED.map(|(a, b)| format!("{a}{b}"));
    let found = text.lines().zip(1..).find(|(line, _)| marks.iter().any(|m| line.contains(m)));
    found.map(|(line, number)| format!("line {number}: {}", line.trim()))
}

fn manifests() -> Result<Offences, Failure> {
    let mut offences = Vec::new();
    for member in members()? {
        let path = root().join(&member.dir).join("Cargo.toml");
        if !read_file(&path)?.contains("[lints]\nworkspace = true") {
            offences.push(format!("{}: no [lints] workspace = true", path.display()));
        }
    }
    Ok(offences)
}

fn dependencies() -> Result<Offences, Failure> {
    let members = members()?;
    let mut offences = Vec::new();
    for member in &members {
        let folder = member.folder();
        let Some((_, open)) = DEPENDENCIES.iter().find(|(name, _)| *name == folder) else {
            offences.push(format!("{}: no rule for the folder {folder}", member.name));
            continue;
        };
        for Dependency { name: used, is_for_tests } in &member.dependencies {
            let uses_netlink = used.starts_with("netlink-") && folder != KERNEL;
            let target = members.iter().find(|m| m.name == *used).map(Member::folder);
            let is_open = |target| match used.as_str() {
                TESTBED => *is_for_tests || TESTERS.contains(&folder),
                _ => open.contains(&target),
            };
            if uses_netlink || target.is_some_and(|target| !is_open(target)) {
                offences.push(format!("{} must not depend on {used}", member.name));
            }
        }
    }
    Ok(offences)
}

fn each_source(rule: fn(&Path, &str) -> Option<String>) -> Result<Offences, Failure> {
    each_file(&["*.rs"], rule)
}

/// What a rule finds in the files that match git's patterns.
fn each_file(
    patterns: &[&str],
    rule: fn(&Path, &str) -> Option<String>,
) -> Result<Offences, Failure> {
    let offence = |(path, text): &(PathBuf, String)| {
        rule(path, text).map(|what| format!("{}: {what}", path.display()))
    };
    Ok(files(patterns)?.iter().filter_map(offence).collect())
}

/// The files that git tracks or would add, with their content.
fn files(patterns: &[&str]) -> Result<Vec<(PathBuf, String)>, Failure> {
    let args = ["ls-files", "--cached", "--others", "--exclude-standard"];
    let listed = read(command("git", args).args(patterns))?;
    let present = listed.lines().map(PathBuf::from).filter(|path| root().join(path).is_file());
    present.map(|path| read_file(&root().join(&path)).map(|text| (path, text))).collect()
}

fn read_file(path: &Path) -> Result<String, Failure> {
    fs::read_to_string(path).map_err(Failure::file("read", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_purpose_offends() {
        assert_eq!(starts_with_its_purpose(Path::new("a.rs"), "//! Why.\n"), None);
        assert!(starts_with_its_purpose(Path::new("a.rs"), "use std::fs;\n//! Why.\n").is_some());
    }

    #[test]
    fn a_long_file_offends() {
        assert_eq!(is_too_long(Path::new("a.rs"), &"\n".repeat(MAX_LINES)), None);
        assert!(is_too_long(Path::new("a.rs"), &"\n".repeat(MAX_LINES + 1)).is_some());
    }

    #[test]
    fn a_wide_line_offends_unless_it_is_raw() {
        let wide = "x".repeat(MAX_COLUMNS + 1);
        let found = is_too_wide(Path::new("a.rs"), &format!("// y\n// {wide}\n"));
        assert_eq!(found, Some("line 2: 114 columns, over 110".to_owned()));
        assert_eq!(is_too_wide(Path::new("a.rs"), &"x".repeat(MAX_COLUMNS)), None);
        assert_eq!(is_too_wide(Path::new("a.rs"), &"ü".repeat(MAX_COLUMNS)), None);
        let raw = |rest: &str| format!("let a = r#\"one\n{wide} r\"\n{wide}\"#;\n{rest}\n");
        assert_eq!(is_too_wide(Path::new("a.rs"), &raw("")), None);
        assert!(is_too_wide(Path::new("a.rs"), &raw(&wide)).is_some());
        assert!(is_too_wide(Path::new("a.rs"), &format!("for\"{wide}")).is_some());
    }

    #[test]
    fn marks_of_unfinished_work_are_found_with_their_line() {
        let (a, b) = UNFINISHED[0];
        let found = is_unfinished(Path::new("a.rs"), &format!("fn f() {{}}\n// {a}{b}: g\n"));
        assert_eq!(found, Some(format!("line 2: // {a}{b}: g")));
        assert_eq!(is_unfinished(Path::new("a.rs"), "fn f() {}\n"), None);
    }
}
