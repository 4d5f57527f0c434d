//! The schemas agree with the types of the plugins: values at the limits of each schema are read by
//! the plugin itself and by `conflist validate`, which uses the schemas.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::{env, fs, process};

use cni::{Command, Error, Network, Plugin, Version};
use conflist::validate::{Severity, file};
use serde_json::{Value, json};

/// Values that only one of them refuses: the plugin, the end of the path, who refuses it, and why.
const DIFFERENCES: &[(&str, &str, Who, &str)] = &[
    ("bridge", "/dns/nameservers/0", Who::Schema, RESOLVER),
    ("macvlan", "/dns/nameservers/0", Who::Schema, RESOLVER),
    ("macvlan", "/master", Who::Schema, EMPTY),
    ("macvlan", "/mode", Who::Schema, EMPTY),
    ("ptp", "/dns/nameservers/0", Who::Schema, RESOLVER),
    ("static", "/dns/nameservers/0", Who::Schema, RESOLVER),
    ("static", "/ipam", Who::Plugin, "without ipam.type, static is not asked"),
];
const EMPTY: &str =
    "an empty string is the default, as in the reference plugin; editors need not offer it";
const RESOLVER: &str = "resolv.conf(5) takes addresses only; no plugin looks at them";

/// Who refuses the value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who {
    Plugin,
    Schema,
}

/// Strings of every format that a schema or a plugin distinguishes.
const TEXTS: [&str; 40] = [
    "",
    "x",
    "..",
    "...",
    ".x",
    "a/b",
    "a b",
    "a:b",
    "fifteen-letters",
    "sixteen-letters-",
    "x\n",
    "10.88.0.1",
    "10.88.0.01",
    "10.88.0.256",
    "10.88.0",
    "fd00::1",
    "::",
    "1::2::3",
    "::ffff:1.2.3.4",
    "1:2:3:4:5:6:7:8",
    "1:2:3:4:5:6:7::",
    "1:2:3:4:5:6:7::8",
    "1:2:3:4:5:6:1.2.3.4",
    "fe80::1%eth0",
    "10.88.0.0/24",
    "10.88.0.7/024",
    "10.88.0.7/0024",
    "10.88.0.7/33",
    "10.88.0.7/+8",
    "fd00::/64",
    "fd00::/129",
    "fd00::/008",
    "c2:11:22:33:44:55",
    "C2-11-22-33-44-55",
    "c211.2233.4455",
    "01:00:5e:00:00:01",
    "c2:11-22:33:44:55",
    "tcp",
    "SCTP",
    "icmp",
];

/// A plugin, how it reads a configuration, and configurations that contain the parents of all keys.
struct Subject {
    name: &'static str,
    good: Vec<Value>,
    read: fn(Vec<u8>) -> Result<(), Error>,
}

macro_rules! plugins {
    ($($kind:ident $name:literal $type:ty,)*) => {
        fn subjects() -> Vec<Subject> {
            vec![$(Subject { name: $name, good: good($name), read: read::<$type> }),*]
        }

        fn is_ipam(name: &str) -> bool {
            [$(($name, stringify!($kind))),*].contains(&(name, "ipam"))
        }
    };
}
include!("../../plugins/registry.in");

fn read<P: Plugin + Default>(stdin: Vec<u8>) -> Result<(), Error> {
    let network = Network::<P::Config>::read(Command::Add, stdin, Version::V1_0_0, Vec::new())?;
    P::default().settings(&network, None).map(drop)
}

fn good(name: &str) -> Vec<Value> {
    let dns = json!({"nameservers": ["10.88.0.1"], "search": ["a"], "options": ["b"]});
    let routes = json!([{"dst": "0.0.0.0/0"}]);
    let rates = json!({"ingressRate": 8, "ingressBurst": 8, "egressRate": 8, "egressBurst": 8});
    let ip_ranges = json!([[{"subnet": "fd00:88::/64"}]]);
    let one = match name {
        "bandwidth" => {
            let mut of_network = rates.clone();
            of_network["latency"] = json!(25);
            return vec![of_network, json!({"runtimeConfig": {"bandwidth": rates}})];
        }
        "bridge" => json!({"vlanTrunk": [{"minID": 1, "maxID": 4094, "id": 7}], "dns": dns}),
        "host-local" => json!({"ipam": {
            "type": "host-local", "ranges": [[{"subnet": "10.88.0.0/24"}]], "routes": routes,
        }, "runtimeConfig": {"ipRanges": ip_ranges}}),
        "portmap" => json!({
            "conditionsV4": ["-s", "10.0.0.0/8"],
            "runtimeConfig": {"portMappings": [
                {"hostPort": 80, "containerPort": 80, "protocol": "tcp"},
            ]},
        }),
        "macvlan" => json!({"dns": dns}),
        "dummy" => json!({"ipam": {"type": "static"}}),
        "ptp" => {
            json!({"ipam": {"type": "host-local", "subnet": "10.88.0.0/24"}, "dns": dns})
        }
        "static" => json!({"ipam": {
            "type": "static", "addresses": [{"address": "10.88.0.5/24"}], "routes": routes,
            "dns": dns,
        }}),
        "tuning" => json!({"sysctl": {"net.core.somaxconn": "1"}}),
        _ => json!({}),
    };
    vec![one]
}

#[test]
fn types_and_schemas_agree() {
    let judge = Judge::new();
    let (mut values, mut refused, mut complaints) = (0, 0, Vec::new());
    let mut seen = BTreeSet::new();
    for subject in subjects() {
        let name = format!("{}.json", subject.name);
        let schema = schema::files().into_iter().find(|file| file.name == name).unwrap();
        let schema: Value = serde_json::from_str(&schema.text).unwrap();
        let mut tries = Vec::new();
        edges(&schema, &schema, "", &mut tries);
        tries.sort_by_key(|(place, value)| format!("{place} {value}"));
        tries.dedup();
        let each = subject.good.iter().flat_map(|good| tries.iter().map(move |it| (good, it)));
        for (good, (place, value)) in each {
            let mut config = good.clone();
            if !put(&mut config, place, value.clone()) {
                continue;
            }
            for (key, text) in [("name", "n"), ("cniVersion", "1.0.0"), ("type", subject.name)] {
                config[key] = json!(text);
            }
            if is_ipam(subject.name) {
                config["type"] = json!("bridge");
            }
            let by_type = (subject.read)(config.to_string().into_bytes()).err();
            let by_schema = judge.refuses(&config);
            values += 1;
            refused += usize::from(by_type.is_some());
            let who = match (&by_type, &by_schema) {
                (Some(_), None) => Who::Plugin,
                (None, Some(_)) => Who::Schema,
                _ => continue,
            };
            let known = DIFFERENCES.iter().position(|(kind, end, refuses, _)| {
                (*kind, *refuses) == (subject.name, who) && place.ends_with(end)
            });
            let Some(at) = known else {
                complaints.push(format!("{name} {place} {value}: {by_type:?}, {by_schema:?}"));
                continue;
            };
            seen.insert(at);
        }
    }
    let unseen = DIFFERENCES.iter().enumerate().filter(|(at, _)| !seen.contains(at));
    complaints.extend(unseen.map(|(_, it)| format!("{it:?}: there is no such difference")));
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
    println!("{values} values, {refused} refused by the plugin");
    assert!(refused > 300 && values - refused > 300, "{values} values, {refused} refused");
}

/// Valid and invalid values for each key of a schema, with their paths.
fn edges(root: &Value, schema: &Value, place: &str, tries: &mut Vec<(String, Value)>) {
    if let Some(name) = schema["$ref"].as_str() {
        return edges(root, root.pointer(&name[1..]).unwrap(), place, tries);
    }
    let types = schema["type"].to_string();
    if !place.is_empty() {
        let all = [json!(true), json!(1), json!("x"), json!([]), json!({}), json!(null)];
        tries.extend(all.map(|value| (place.to_owned(), value)));
    }
    for key in ["minimum", "maximum", "const"] {
        if let Some(number) = schema[key].as_i64() {
            let around = [number - 1, number, number + 1];
            tries.extend(around.map(|number| (place.to_owned(), json!(number))));
        }
    }
    for word in schema["enum"].as_array().into_iter().flatten() {
        tries.push((place.to_owned(), word.clone()));
    }
    if types.contains("string") {
        tries.extend(TEXTS.map(|text| (place.to_owned(), json!(text))));
    }
    for (key, inner) in schema["properties"].as_object().into_iter().flatten() {
        edges(root, inner, &format!("{place}/{key}"), tries);
    }
    if schema["items"].is_object() {
        edges(root, &schema["items"], &format!("{place}/0"), tries);
    }
    for inner in schema["anyOf"].as_array().into_iter().flatten() {
        edges(root, inner, place, tries);
    }
    if let (true, Some(all)) = (!place.is_empty(), schema["allOf"].as_array()) {
        edges(root, &all[0], place, tries);
    }
}

/// Puts a value at a path, if its parent exists.
fn put(config: &mut Value, place: &str, value: Value) -> bool {
    let (parent, key) = place.rsplit_once('/').unwrap();
    match config.pointer_mut(parent) {
        Some(Value::Object(object)) => {
            object.insert(key.to_owned(), value);
            true
        }
        Some(Value::Array(items)) if !items.is_empty() => {
            items[0] = value;
            true
        }
        _ => false,
    }
}

/// Runs `conflist validate`, with an executable for each plugin; none of them is run.
struct Judge(PathBuf);

impl Judge {
    fn new() -> Self {
        let dir = env::temp_dir().join(format!("schema-types-{}", process::id()));
        fs::create_dir_all(dir.join("bin")).unwrap();
        for file in schema::files() {
            let name = file.name.trim_end_matches(".json");
            symlink("/bin/true", dir.join("bin").join(name)).unwrap();
        }
        Self(dir)
    }

    /// The errors of a configuration that follows a bridge.
    fn refuses(&self, config: &Value) -> Option<String> {
        let list = json!({
            "name": "n", "cniVersion": "1.0.0", "plugins": [{"type": "bridge"}, config],
        });
        let path = self.0.join("n.conflist");
        fs::write(&path, list.to_string()).unwrap();
        let findings = file(&path, &[self.0.join("bin")]);
        let errors = findings.iter().filter(|finding| finding.severity == Severity::Error);
        let errors: Vec<String> = errors.map(ToString::to_string).collect();
        Some(errors.join("; ")).filter(|errors| !errors.is_empty())
    }
}

impl Drop for Judge {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
