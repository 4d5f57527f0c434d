//! Runs cases on nodes with our plugins and with the Go ones, and keeps the calls for the report.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

use tests::{Known, Needs, Plugins, Suite, panic_message};

use crate::node::Node;
use crate::table;

/// A case: what it does on a node.
pub(crate) type Story = fn(&Node);

/// The cases of all runtimes.
#[derive(Debug, Default)]
pub(crate) struct Stage {
    suite: Suite,
}

impl Stage {
    /// Adds a case with our plugins and with the Go ones; `go_fails` as in [`Suite::both`].
    pub(crate) fn both(
        &mut self,
        runtime: &'static str,
        name: &str,
        go_fails: Option<Known>,
        network: &'static str,
        story: Story,
    ) {
        let name = format!("{runtime}::{name}");
        self.suite.both(
            &name,
            go_fails,
            |plugins| needs(runtime, plugins),
            move |plugins| {
                tell(runtime, plugins, network, story);
            },
        );
    }

    /// Adds a case that needs no node.
    pub(crate) fn case(&mut self, name: &str, needs: &Needs, test: impl FnOnce() + Send + 'static) {
        self.suite.case(name, needs, test);
    }

    /// Runs them and compares the calls with the README's table.
    pub(crate) fn run(self) -> ExitCode {
        self.suite.run_then(table::complaints)
    }
}

fn needs(runtime: &str, plugins: &Plugins) -> Needs {
    let programs: &[&str] = match runtime {
        "containerd" => &["containerd", "containerd-shim-runc-v2", "ctr", "runc", "tar"],
        "podman" => &["podman", "conmon", "runc"],
        "nerdctl" => &["nerdctl", "containerd", "containerd-shim-runc-v2", "ctr", "runc", "tar"],
        _ => &[],
    };
    let common = ["busybox", "conntrack", "curl", "iptables", "nsenter", "unshare"];
    Needs::plugins(plugins, &Plugins::ALL).tools(&common).tools(programs)
}

/// Runs a case on a new node; the report of a failure contains the plugin calls.
fn tell(runtime: &'static str, plugins: &Plugins, network: &str, story: Story) {
    let node = Node::new(plugins, network);
    let outcome = catch_unwind(AssertUnwindSafe(|| story(&node)));
    let calls = node.calls();
    if plugins == &Plugins::ours() {
        table::note(runtime, &calls);
    }
    if let Err(panic) = outcome {
        let calls: Vec<_> = calls.iter().map(ToString::to_string).collect();
        let message = panic_message(panic.as_ref());
        panic!("{message}\n\nthe plugin calls:\n{}", calls.join("\n"));
    }
}
