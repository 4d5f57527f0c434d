//! Named cases and what they need. `testbed` decides what happens to one whose needs are not met.

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::process::ExitCode;

use libtest_mimic::{Arguments, Failed, Trial};
use testbed::{Fate, fate, skip_line};

use crate::binaries::{Plugins, conflist_program, tool};

thread_local! {
    /// Whether this thread runs a case that the Go plugins are known to fail.
    static EXPECTS_PANIC: Cell<bool> = const { Cell::new(false) };
}

/// What a case needs.
#[derive(Clone, Debug, Default)]
pub struct Needs {
    plugins: Vec<(Plugins, Vec<&'static str>)>,
    tools: Vec<&'static str>,
    conflist: bool,
    lack: Option<String>,
}

impl Needs {
    /// Root, the usual tools, and plugins of a directory.
    #[must_use]
    pub fn plugins(plugins: &Plugins, names: &[&'static str]) -> Self {
        Self::default().and(plugins, names)
    }

    /// More plugins.
    #[must_use]
    pub fn and(mut self, plugins: &Plugins, names: &[&'static str]) -> Self {
        self.plugins.push((plugins.clone(), names.to_vec()));
        self
    }

    /// Programs in the search path.
    #[must_use]
    pub fn tools(mut self, names: &[&'static str]) -> Self {
        self.tools.extend(names);
        self
    }

    /// Our program `conflist`.
    #[must_use]
    pub fn conflist(mut self) -> Self {
        self.conflist = true;
        self
    }

    /// Something that has been found to be missing.
    #[must_use]
    pub fn lacking(mut self, what: Option<&str>) -> Self {
        self.lack = what.map(str::to_owned);
        self
    }

    /// The first thing that is missing.
    #[must_use]
    pub fn missing(&self) -> Option<String> {
        if !nix::unistd::geteuid().is_root() {
            return Some("not root; try it in a user namespace: unshare -Ur".to_owned());
        }
        if let Some(lack) = &self.lack {
            return Some(lack.clone());
        }
        for (plugins, names) in &self.plugins {
            if let Some(name) = names.iter().find(|name| !plugins.path(name).is_file()) {
                let (label, dir) = (plugins.label, plugins.dir.display());
                return Some(format!("no {label} plugin {name} in {dir}"));
            }
        }
        if self.conflist && !conflist_program().is_file() {
            return Some(format!("no {}", conflist_program().display()));
        }
        let usual = ["ip", "iptables-save", "nft", "tc"];
        let tools = usual.iter().chain(&self.tools);
        tools.into_iter().find(|name| tool(name).is_none()).map(|name| format!("no program {name}"))
    }
}

/// A known failure of the Go plugins.
#[derive(Clone, Copy, Debug)]
pub struct Known {
    /// What they do instead.
    reason: &'static str,
    /// A part of the case's message then.
    says: &'static str,
}

impl Known {
    /// A case that fails for this reason, with this string in its message.
    #[must_use]
    pub const fn new(reason: &'static str, says: &'static str) -> Self {
        Self { reason, says }
    }

    /// Fails if the test passes, or if its message does not contain the string.
    fn is_failed_by(self, test: impl FnOnce()) {
        let Self { reason, says } = self;
        EXPECTS_PANIC.set(true);
        let outcome = catch_unwind(AssertUnwindSafe(test));
        EXPECTS_PANIC.set(false);
        let Err(panic) = outcome else { panic!("the Go plugins pass now, but we say: {reason}") };
        let message = panic_message(panic.as_ref());
        assert!(
            message.contains(says),
            "the Go plugins fail without saying {says:?}, but we say: {reason}\n{message}"
        );
    }
}

/// The cases of one test program.
///
/// A case is skipped, or fails if `CI=true`, when the machine lacks something that it needs.
#[derive(Debug, Default)]
pub struct Suite {
    trials: Vec<Trial>,
    skipped: Vec<String>,
    is_partial: bool,
}

impl Suite {
    /// A suite without cases.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a case.
    pub fn case(&mut self, name: &str, needs: &Needs, test: impl FnOnce() + Send + 'static) {
        let trial = match needs.missing() {
            None => Trial::test(name, move || {
                test();
                Ok(())
            }),
            Some(reason) => match fate(name, &reason) {
                Fate::Fails(message) => Trial::test(name, || Err(Failed::from(message))),
                Fate::Skipped(line) => {
                    self.skipped.push(line);
                    Trial::test(name, || Ok(())).with_ignored_flag(true)
                }
            },
        };
        self.trials.push(trial);
    }

    /// Omits a case that does not apply to this machine. That is no failure, even if `CI=true`.
    pub fn omit(&mut self, name: &str, reason: &str) {
        self.skipped.push(skip_line(name, reason));
        self.is_partial = true;
    }

    /// Adds a case twice, `ours::NAME` and `go::NAME`.
    ///
    /// `go::NAME` shows that the case tests the specification and not our plugins. If the Go plugins
    /// are known to fail it, `go_fails` says why and with which message; the case then fails if they
    /// pass.
    pub fn both(
        &mut self,
        name: &str,
        go_fails: Option<Known>,
        needs: impl Fn(&Plugins) -> Needs,
        test: impl Fn(&Plugins) + Clone + Send + 'static,
    ) {
        let (ours, go) = (Plugins::ours(), Plugins::go());
        let (our_needs, go_needs, our_test) = (needs(&ours), needs(&go), test.clone());
        self.case(&format!("ours::{name}"), &our_needs, move || our_test(&ours));
        self.case(&format!("go::{name}"), &go_needs, move || match go_fails {
            None => test(&go),
            Some(known) => known.is_failed_by(|| test(&go)),
        });
    }

    /// Runs the cases that the command line selects.
    #[must_use]
    pub fn run(self) -> ExitCode {
        self.run_then(Vec::new)
    }

    /// Runs the cases. If all of them were run and none failed, prints `complaints` about the run as a
    /// whole, and fails if there are any.
    #[must_use]
    pub fn run_then(self, complaints: impl FnOnce() -> Vec<String>) -> ExitCode {
        let mut arguments = Arguments::from_args();
        let hook = take_hook();
        set_hook(Box::new(move |info| {
            if !EXPECTS_PANIC.get() {
                hook(info);
            }
        }));
        // A case mostly waits for the kernel: for grace periods and duplicate address detection.
        arguments.test_threads = arguments.test_threads.or(Some(4));
        if !arguments.list {
            for line in &self.skipped {
                println!("{line}");
            }
        }
        let conclusion = libtest_mimic::run(&arguments, self.trials);
        let was_whole =
            !self.is_partial && conclusion.num_filtered_out + conclusion.num_ignored == 0;
        if arguments.list || !was_whole || conclusion.has_failed() {
            return conclusion.exit_code();
        }
        let complaints = complaints();
        for complaint in &complaints {
            println!("{complaint}");
        }
        if complaints.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

/// The message of a caught panic.
#[must_use]
pub fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("panicked").to_owned()
}
