//! Replays each recorded case of the reference plugins with our plugins and with theirs.
//!
//! `ours::…` compares with the record; intended differences are listed with their reasons in
//! `reference/differences.json`. `go::…` replays with the Go plugins, which shows that the replay
//! itself is right.

#![allow(clippy::panic, reason = "a test fails by panicking")]

use std::process::ExitCode;
use std::sync::Arc;

use tests::reference::{Accepted, Case};
use tests::{Needs, Plugins, Suite, vm, workspace};

/// Cases of an ADD that the kernel refuses; `vlan.rs` has those that succeed.
const WITHOUT_VLANS: &str = "bridge-vlan";

fn main() -> ExitCode {
    let dir = workspace().join("tests/reference");
    let cases = Case::load_all(&dir.join("cases"));
    let runs = [(Plugins::ours(), "differences.json"), (Plugins::go(), "differences-go.json")];
    let mut suite = Suite::new();
    let mut lists = Vec::new();
    for (plugins, list) in runs {
        let accepted = Arc::new(Accepted::load(&dir.join(list)));
        for case in &cases {
            add(&mut suite, case, &plugins, &accepted);
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

fn add(suite: &mut Suite, case: &Case, plugins: &Plugins, accepted: &Arc<Vec<Accepted>>) {
    let used = case.plugins();
    if case.name.starts_with(WITHOUT_VLANS) && vm::has_bridge_vlans() {
        let name = format!("{}::{}", plugins.label, case.name);
        return suite.omit(&name, "recorded on a kernel whose bridges have no VLANs");
    }
    let used: Vec<&str> = Plugins::ALL.into_iter().filter(|name| used.contains(*name)).collect();
    let needs = Needs::plugins(plugins, &used);
    let (case, plugins, accepted) = (case.clone(), plugins.clone(), Arc::clone(accepted));
    suite.case(&format!("{}::{}", plugins.label, case.name), &needs, move || {
        let mut found = case.replay(&plugins);
        found.retain(|difference| !accepted.iter().any(|a| a.accepts(&case.name, difference)));
        let report: Vec<String> = found.iter().map(ToString::to_string).collect();
        assert!(found.is_empty(), "{} differences:\n{}", found.len(), report.join("\n"));
    });
}
