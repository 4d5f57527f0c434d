//! Every recorded case of the reference plugins, replayed with our plugins and with theirs.
//!
//! `ours::…` compares with the record; what we mean to do better is listed with its reason in
//! `reference/differences.json`. `go::…` replays with Go plugins of a slightly older version than
//! the recorded one and so shows that the replay itself is right.

#![allow(clippy::panic, reason = "a test fails by panicking")]

use std::process::ExitCode;
use std::sync::Arc;

use tests::reference::{Accepted, Case};
use tests::{Needs, Plugins, Suite, workspace};

/// What this project has; the rest of a chain is taken from the Go plugins.
const OURS: [&str; 6] = ["bandwidth", "bridge", "host-local", "loopback", "portmap", "ptp"];
const OTHERS: [&str; 1] = ["static"];

fn main() -> ExitCode {
    let dir = workspace().join("tests/reference");
    let cases = Case::load_all(&dir.join("cases"));
    let (ours, go) = (Plugins::ours(), Plugins::go());
    let runs = [(vec![ours, go.clone()], "differences.json"), (vec![go], "differences-go.json")];
    let mut suite = Suite::new();
    let mut lists = Vec::new();
    for (sources, list) in runs {
        let accepted = Arc::new(Accepted::load(&dir.join(list)));
        for case in &cases {
            add(&mut suite, case, &sources, &accepted);
        }
        lists.push((list, accepted));
    }
    suite.run_then(move || {
        let unused = |(list, accepted): &(&str, Arc<Vec<Accepted>>)| {
            let unused: Vec<_> = accepted.iter().filter_map(Accepted::unused).collect();
            unused.into_iter().map(|u| format!("{list}: matches no difference: {u}")).collect()
        };
        lists.iter().flat_map::<Vec<String>, _>(unused).collect()
    })
}

fn add(suite: &mut Suite, case: &Case, sources: &[Plugins], accepted: &Arc<Vec<Accepted>>) {
    let used = case.plugins();
    let used = |names: &[&'static str]| -> Vec<&'static str> {
        names.iter().copied().filter(|name| used.contains(*name)).collect()
    };
    let (first, last) = (&sources[0], &sources[sources.len() - 1]);
    let needs = Needs::plugins(first, &used(&OURS)).and(last, &used(&OTHERS));
    let (case, sources, accepted) = (case.clone(), sources.to_vec(), Arc::clone(accepted));
    suite.case(&format!("{}::{}", first.label, case.name), &needs, move || {
        let mut found = case.replay(&sources);
        found.retain(|difference| !accepted.iter().any(|a| a.accepts(&case.name, difference)));
        let report: Vec<String> = found.iter().map(ToString::to_string).collect();
        assert!(found.is_empty(), "{} differences:\n{}", found.len(), report.join("\n"));
    });
}
