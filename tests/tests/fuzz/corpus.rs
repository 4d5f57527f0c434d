//! What is mutated: the configurations and environments of the recorded cases.

use std::collections::BTreeMap;
use std::fs;

use serde_json::{Value, json};
use tests::{Normaliser, workspace};

/// A recorded call.
#[derive(Clone)]
pub(crate) struct Seed {
    /// The plugin's stdin.
    pub(crate) config: Value,
    /// `CNI_ARGS`, if the call had it.
    pub(crate) args: String,
}

/// The calls of the recorded cases by plugin.
pub(crate) fn load() -> BTreeMap<String, Vec<Seed>> {
    let dir = workspace().join("tests/reference/cases");
    let mut paths: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    // The order of a directory differs between machines, but a seed must always mean the same input.
    paths.sort();
    let mut corpus: BTreeMap<String, Vec<Seed>> = BTreeMap::new();
    for path in paths {
        let text = Normaliser::expand(&fs::read_to_string(path).unwrap());
        let case: Value = serde_json::from_str(&text).unwrap();
        for step in case["steps"].as_array().unwrap() {
            let (Some(plugin), true) = (step["plugin"].as_str(), step["stdin"].is_object()) else {
                continue;
            };
            let args = step["env"]["CNI_ARGS"].as_str().unwrap_or_default().to_owned();
            let seeds = corpus.entry(plugin.to_owned()).or_default();
            seeds.push(Seed { config: usable(step["stdin"].clone()), args });
        }
    }
    corpus
}

/// A configuration without the previous result, which belongs to the recorded node.
fn usable(mut config: Value) -> Value {
    config.as_object_mut().unwrap().remove("prevResult");
    if config["cniVersion"].is_null() {
        config["cniVersion"] = json!("1.0.0");
    }
    config
}
