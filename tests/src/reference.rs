//! Replays recorded cases of the reference plugins and compares the outcome.
//!
//! `reference/README.md` describes the files.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Map, Value, json};

use crate::binaries::Plugins;
use crate::compare::{Difference, differences, matches_pattern};
use crate::host_ports::summarise;
use crate::normalise::Normaliser;
use crate::process::{Cmd, Output};
use crate::world::{NODE, World};

/// The directory of a case's plugins in its world; it contains links to the real ones.
const BIN: &str = "/run/bin";

/// One recorded case.
#[derive(Clone, Debug)]
pub struct Case {
    /// Its name, which is also the name of its file.
    pub name: String,
    text: String,
    steps: Vec<Value>,
}

impl Case {
    /// Reads all cases of a directory, by name.
    #[must_use]
    pub fn load_all(dir: &Path) -> Vec<Self> {
        let entries = fs::read_dir(dir).unwrap_or_else(|e| panic!("read {}: {e}", dir.display()));
        let mut cases: Vec<Self> = entries
            .map(|entry| Self::load(&entry.expect("read a directory entry").path()))
            .collect();
        cases.sort_by(|a, b| a.name.cmp(&b.name));
        cases
    }

    fn load(path: &Path) -> Self {
        let text = fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let document: Value =
            serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let name = document["case"].as_str().expect("a case has a name").to_owned();
        assert_eq!(path.file_stem().and_then(|s| s.to_str()), Some(name.as_str()));
        let steps = document["steps"].as_array().expect("a case has steps").clone();
        Self { name, text, steps }
    }

    /// The plugins that the case runs, including IPAM plugins.
    #[must_use]
    pub fn plugins(&self) -> BTreeSet<String> {
        let called = self.steps.iter().filter_map(|step| step["plugin"].as_str());
        let delegated = self.steps.iter().filter_map(|step| step["stdin"]["ipam"]["type"].as_str());
        let known = delegated.filter(|name| Plugins::is_kind(name, "ipam"));
        called.chain(known).map(str::to_owned).collect()
    }

    /// Runs the case in a new world and returns the differences from the record.
    #[must_use]
    pub fn replay(&self, plugins: &Plugins) -> Vec<Difference> {
        let world = World::new(&["pod-a", "pod-b"]);
        world.files(|| link_plugins(&self.plugins(), plugins));
        let mut replay = Replay {
            case: self,
            world: &world,
            normaliser: Normaliser::new(BIN, &self.text),
            results: Vec::new(),
        };
        let records: Vec<Value> = self.steps.iter().map(|step| replay.step(step)).collect();
        let found: Vec<Value> = records.iter().map(|r| replay.normaliser.value(r)).collect();
        let pairs = self.expected().into_iter().zip(found).enumerate();
        let of_step = |(number, (mut expected, mut found)): (usize, (Value, Value))| {
            for outcome in [&mut expected, &mut found] {
                outcome.pointer_mut("/state/node/nft").into_iter().for_each(summarise);
            }
            let found = differences(&expected, &found).into_iter();
            found.map(move |d| Difference { path: format!("/steps/{number}{}", d.path), ..d })
        };
        pairs.flat_map(of_step).collect()
    }

    /// The namespaces whose state the case records.
    fn observed(&self) -> Vec<&str> {
        let mut names = vec![NODE];
        for name in ["pod-a", "pod-b"] {
            if self.steps.iter().any(|step| !step["state"][name].is_null()) {
                names.push(name);
            }
        }
        names
    }

    /// The recorded outcome of each step, in which each "same" is replaced by what it stands for.
    fn expected(&self) -> Vec<Value> {
        let mut last = Map::new();
        let mut result = Vec::new();
        for step in &self.steps {
            let mut outcome = json!({"exit": step["exit"], "stderr": step["stderr"]});
            if step["rmns"].is_string() {
                outcome = json!({});
            }
            if step["plugin"].is_string() {
                put_stdout(&mut outcome, step["stdout"].clone());
            }
            if let Some(state) = step["state"].as_object() {
                let whole = state.iter().map(|(part, value)| {
                    let value = if value == "same" { &last[part] } else { value };
                    (part.clone(), value.clone())
                });
                last = whole.collect();
                outcome["state"] = Value::Object(last.clone());
            }
            result.push(outcome);
        }
        result
    }
}

struct Replay<'a> {
    case: &'a Case,
    world: &'a World,
    normaliser: Normaliser,
    results: Vec<Value>,
}

impl Replay<'_> {
    /// Runs one step and returns its outcome in the form of [`Case::expected`].
    fn step(&mut self, step: &Value) -> Value {
        self.results.push(Value::Null);
        let mut outcome = if let Some(netns) = step["rmns"].as_str() {
            self.world.remove_netns(netns);
            json!({})
        } else if let Some(script) = step["sh"].as_str() {
            let netns = step["ns"].as_str().expect("a script has a namespace");
            let command = Cmd::new("sh").args(["-ec", &Normaliser::expand(script)]);
            let output = self.world.run(netns, &command);
            json!({"exit": output.code(), "stderr": output.stderr})
        } else {
            self.plugin(step)
        };
        if step["state"].is_object() {
            let namespaces = self.case.observed();
            outcome["state"] = self.world.snapshot_with(&namespaces, &mut self.normaliser);
        }
        outcome
    }

    fn plugin(&mut self, step: &Value) -> Value {
        let output = self.world.run(NODE, &self.command(step));
        // Numbers the names in the order in which the plugin printed them.
        self.normaliser.text(&output.stdout);
        let stdout = stdout_of(&output);
        *self.results.last_mut().expect("a step is being taken") = stdout.clone();
        let mut outcome = json!({"exit": output.code(), "stderr": output.stderr});
        put_stdout(&mut outcome, stdout);
        outcome
    }

    fn command(&self, step: &Value) -> Cmd {
        let plugin = step["plugin"].as_str().expect("a step runs a plugin");
        let mut command = Cmd::new(Path::new(BIN).join(plugin)).stdin(self.stdin(&step["stdin"]));
        if let Some(name) = step["command"].as_str() {
            command = command.env("CNI_COMMAND", name);
        }
        let variables = step["env"].as_object().cloned().unwrap_or_default();
        if !variables.contains_key("CNI_PATH") {
            command = command.env("CNI_PATH", BIN);
        }
        for (name, value) in &variables {
            if let Some(value) = value.as_str() {
                command = command.env(name, Normaliser::expand(value));
            }
        }
        command
    }

    fn stdin(&self, recorded: &Value) -> String {
        if let Value::String(text) = recorded {
            return Normaliser::expand(text);
        }
        let mut config = recorded.clone();
        if let Some(step) = config["prevResult"]["$stdout-of-step"].as_u64() {
            let step = usize::try_from(step).expect("a step's number is small");
            config["prevResult"] = self.results[step].clone();
        }
        Normaliser::expand(&config.to_string())
    }
}

/// An intended difference from the record.
#[derive(Debug)]
pub struct Accepted {
    case: String,
    path: String,
    /// The expected and the found value, if the entry has them; null if there is none.
    expected: Option<Value>,
    found: Option<Value>,
    reason: String,
    used: AtomicBool,
}

impl Accepted {
    /// Reads a list of objects with the keys `case`, `path` (patterns) and `reason`, and optionally
    /// `expected` and `found`.
    #[must_use]
    pub fn load(file: &Path) -> Vec<Self> {
        let text = fs::read_to_string(file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        let list: Vec<Map<String, Value>> =
            serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        let entry = |entry: Map<String, Value>| {
            let field = |name: &str| match entry.get(name) {
                Some(Value::String(text)) if !text.is_empty() => text.clone(),
                _ => panic!("{}: an entry without {name}", file.display()),
            };
            let (case, path, reason) = (field("case"), field("path"), field("reason"));
            let known = ["case", "path", "expected", "found", "reason"];
            if let Some(key) = entry.keys().find(|key| !known.contains(&key.as_str())) {
                panic!("{}: an entry with {key}", file.display());
            }
            let (expected, found) = (entry.get("expected").cloned(), entry.get("found").cloned());
            Self { case, path, expected, found, reason, used: AtomicBool::new(false) }
        };
        list.into_iter().map(entry).collect()
    }

    /// Whether this entry accepts a difference; marks it as used if so.
    #[must_use]
    pub fn accepts(&self, case: &str, difference: &Difference) -> bool {
        let is_given = |given: &Option<Value>, value: &Option<Value>| {
            given.as_ref().is_none_or(|given| given == value.as_ref().unwrap_or(&Value::Null))
        };
        let accepts = matches_pattern(&self.case, case)
            && matches_pattern(&self.path, &difference.path)
            && is_given(&self.expected, &difference.expected)
            && is_given(&self.found, &difference.found);
        if accepts {
            self.used.store(true, Ordering::Relaxed);
        }
        accepts
    }

    /// The entry in one line, if it has accepted no difference.
    #[must_use]
    pub fn unused(&self) -> Option<String> {
        let unused = !self.used.load(Ordering::Relaxed);
        unused.then(|| format!("{} {} ({})", self.case, self.path, self.reason))
    }
}

fn link_plugins(names: &BTreeSet<String>, plugins: &Plugins) {
    fs::create_dir(BIN).expect("create the directory of plugins");
    for name in names {
        symlink(plugins.path(name), Path::new(BIN).join(name)).expect("link a plugin");
    }
}

/// One JSON value; the string if it is not valid JSON; null if it is empty.
fn stdout_of(output: &Output) -> Value {
    if output.stdout.trim().is_empty() {
        return Value::Null;
    }
    serde_json::from_str(&output.stdout).unwrap_or_else(|_| json!(output.stdout))
}

/// Results and error objects get different names, so that a list of accepted differences can
/// distinguish `error/code` from `stdout/cniVersion`.
fn put_stdout(outcome: &mut Value, stdout: Value) {
    let is_error = !stdout["code"].is_null() && !stdout["msg"].is_null();
    outcome[if is_error { "error" } else { "stdout" }] = stdout;
}
