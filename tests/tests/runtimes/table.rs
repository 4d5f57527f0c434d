//! The table of runtimes and plugins in `docs/runtimes.md`, which must agree with the calls in these cases.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::sync::Mutex;

use tests::{Plugins, workspace};

use crate::calls::Call;

/// Where the table is, relative to the workspace.
const DOCUMENT: &str = "docs/runtimes.md";
/// The runtimes, and whether they are run or replayed.
const RUNTIMES: [(&str, &str); 4] =
    [("containerd", "run"), ("podman", "run"), ("nerdctl", "run"), ("CRI-O", "replayed")];
/// The specification's commands, in the order of an attachment's life.
const COMMANDS: [&str; 6] = ["VERSION", "STATUS", "ADD", "CHECK", "DEL", "GC"];

/// The commands that each runtime gave to each plugin.
static SEEN: Mutex<BTreeMap<(&'static str, String), BTreeSet<String>>> =
    Mutex::new(BTreeMap::new());

/// Keeps a runtime's calls for the table.
pub(crate) fn note(runtime: &'static str, calls: &[Call]) {
    let mut seen = SEEN.lock().unwrap();
    for call in calls {
        let commands = seen.entry((runtime, call.plugin.clone())).or_default();
        commands.extend(call.env.get("CNI_COMMAND").cloned());
    }
}

/// What is wrong with the document's table; with `UPDATE_EXPECT=1` the table is replaced instead.
pub(crate) fn complaints() -> Vec<String> {
    let (expected, path) = (table(), workspace().join(DOCUMENT));
    let document = fs::read_to_string(&path).unwrap();
    let head = expected.lines().next().unwrap();
    let Some(begin) = document.find(head) else {
        return vec![format!("{DOCUMENT} has no table of runtimes:\n{expected}")];
    };
    let rows = document[begin..].split_inclusive('\n').take_while(|line| line.starts_with('|'));
    let end = begin + rows.map(str::len).sum::<usize>();
    if document[begin..end] == expected {
        return Vec::new();
    }
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        let text = format!("{}{expected}{}", &document[..begin], &document[end..]);
        fs::write(&path, text).unwrap();
        return Vec::new();
    }
    vec![format!(
        "the table of {DOCUMENT} is not what was seen:\n{expected}\
         to put it in: UPDATE_EXPECT=1 cargo xtask test"
    )]
}

fn table() -> String {
    let seen = SEEN.lock().unwrap();
    let row = |first: &str, cell: &dyn Fn(&'static str, &str) -> String| {
        let cells = RUNTIMES.map(|(runtime, how)| cell(runtime, how));
        format!("| {first} | {} |\n", cells.join(" | "))
    };
    let mut table = row("plugin", &|runtime, how| format!("{runtime}, {how}"));
    table += &row("---", &|_, _| "---".to_owned());
    let mut plugins = Plugins::ALL;
    plugins.sort_unstable();
    // A plugin that no runtime ran here has no row.
    let was_run = |plugin: &&str| seen.keys().any(|(_, name)| name == plugin);
    for plugin in plugins.into_iter().filter(was_run) {
        table += &row(&format!("`{plugin}`"), &|runtime, _| {
            let commands = seen.get(&(runtime, plugin.to_owned()));
            let was_given = |name: &&str| commands.is_some_and(|seen| seen.contains(*name));
            COMMANDS.into_iter().filter(was_given).collect::<Vec<_>>().join(" ")
        });
    }
    table
}
