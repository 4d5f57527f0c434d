//! The calls of libcni 1.3, byte for byte; nerdctl and CRI-O use it.
//!
//! It parses a plugin's configuration into a map, adds its own keys and prints the map sorted; only
//! what it adds last keeps the order of its Go structures. `recorded.rs` shows that containerd was
//! seen to send the same bytes.

use std::collections::BTreeMap;
use std::fs;

use serde_json::{Value, json};
use tests::{Cmd, NODE, Output};

use crate::node::Node;

/// The latest version of the specification that this libcni knows.
pub(crate) const NEWEST: &str = "1.1.0";
/// The directory of the recorders.
const BIN: &str = "/run/plugins/bin";

/// What a runtime passes for an attachment.
#[derive(Clone, Debug)]
pub(crate) struct Attachment {
    pub id: String,
    pub netns: String,
    pub ifname: &'static str,
    pub args: String,
    /// Capability arguments as they are printed, by name.
    pub capabilities: BTreeMap<&'static str, String>,
}

impl Attachment {
    /// For a call that concerns no container.
    pub(crate) fn nobody() -> Self {
        Self {
            id: String::new(),
            netns: String::new(),
            ifname: "",
            args: String::new(),
            capabilities: BTreeMap::new(),
        }
    }
}

/// A network and the kept results of its attachments.
#[derive(Debug)]
pub(crate) struct Network<'a> {
    node: &'a Node,
    name: String,
    version: String,
    plugins: Vec<Value>,
    /// By container ID and interface, in the order of the cache: the attachment and its result.
    cache: BTreeMap<(String, &'static str), (Attachment, Value)>,
    /// Whether any result has been kept: without the directory of the cache there is no GC.
    has_cache: bool,
}

impl<'a> Network<'a> {
    /// The network of a conflist, as a string.
    pub(crate) fn new(node: &'a Node, conflist: &Value) -> Self {
        let text = |key: &str| conflist[key].as_str().unwrap().to_owned();
        let plugins = conflist["plugins"].as_array().unwrap().clone();
        let (name, version) = (text("name"), text("cniVersion"));
        Self { node, name, version, plugins, cache: BTreeMap::new(), has_cache: false }
    }

    /// VERSION of each plugin; the answers must include the network's version.
    pub(crate) fn validate(&self) {
        let dummy = |plugin| {
            let nobody =
                Attachment { netns: "dummy".to_owned(), ifname: "dummy", ..Attachment::nobody() };
            let stdin = format!(r#"{{"cniVersion":"{NEWEST}"}}"#);
            call(plugin, "VERSION", &nobody, &stdin).env("CNI_PATH", "dummy")
        };
        for plugin in &self.plugins {
            let answer = self.node.world.run(NODE, &dummy(type_of(plugin))).success();
            let versions = answer.json()["supportedVersions"].take();
            let is_there = versions.as_array().unwrap().contains(&json!(self.version));
            assert!(is_there, "{} is missing\n{answer}", self.version);
        }
    }

    /// `AddNetworkList`.
    pub(crate) fn add(&mut self, attachment: &Attachment) -> Value {
        let mut previous = None;
        for plugin in &self.plugins {
            let output = self.run("ADD", plugin, attachment, previous.as_ref()).success();
            previous = Some(output.json());
        }
        let key = (attachment.id.clone(), attachment.ifname);
        let result = previous.unwrap();
        self.cache.insert(key, (attachment.clone(), result.clone()));
        self.has_cache = true;
        result
    }

    /// `CheckNetworkList`.
    pub(crate) fn check(&self, attachment: &Attachment) {
        let previous = self.cached(attachment);
        for plugin in &self.plugins {
            drop(self.run("CHECK", plugin, attachment, previous.as_ref()).success());
        }
    }

    /// `DelNetworkList`.
    pub(crate) fn del(&mut self, attachment: &Attachment) {
        let previous = self.cached(attachment);
        for plugin in self.plugins.iter().rev() {
            drop(self.run("DEL", plugin, attachment, previous.as_ref()).success());
        }
        self.cache.remove(&(attachment.id.clone(), attachment.ifname));
    }

    /// `GetStatusNetworkList`: does nothing before version 1.1.0.
    pub(crate) fn status(&self) {
        if self.version == NEWEST {
            self.of_the_network("STATUS", &BTreeMap::new());
        }
    }

    /// `GCNetworkList`: DEL of the attachments in the cache that are not valid, then GC from version
    /// 1.1.0 on.
    pub(crate) fn gc(&mut self, valid: &[&Attachment]) {
        let is_valid = |a: &Attachment| valid.iter().any(|v| v.id == a.id && v.ifname == a.ifname);
        let cached = self.cache.values().map(|(attachment, _)| attachment.clone());
        let stale: Vec<_> = cached.filter(|attachment| !is_valid(attachment)).collect();
        for attachment in &stale {
            self.del(attachment);
        }
        if self.version != NEWEST || !self.has_cache {
            return;
        }
        let print =
            |a: &&Attachment| format!(r#"{{"containerID":"{}","ifname":"{}"}}"#, a.id, a.ifname);
        let printed: Vec<_> = valid.iter().map(print).collect();
        // An empty Go slice that was never assigned.
        let list =
            if printed.is_empty() { "null".to_owned() } else { format!("[{}]", printed.join(",")) };
        let keys = ["cni.dev/attachments", "cni.dev/valid-attachments"];
        self.of_the_network("GC", &keys.map(|key| (key, list.clone())).into());
    }

    /// Removes a result, as when a runtime gets a new disk.
    pub(crate) fn forget(&mut self, attachment: &Attachment) {
        self.cache.remove(&(attachment.id.clone(), attachment.ifname));
    }

    fn of_the_network(&self, command: &str, more: &BTreeMap<&str, String>) {
        let nobody = Attachment::nobody();
        for plugin in &self.plugins {
            let mut members = self.members(plugin);
            members.extend(more.iter().map(|(key, value)| ((*key).to_owned(), value.clone())));
            let call = call(type_of(plugin), command, &nobody, &print(&members));
            drop(self.node.world.run(NODE, &call).success());
        }
    }

    fn cached(&self, attachment: &Attachment) -> Option<Value> {
        let key = (attachment.id.clone(), attachment.ifname);
        self.cache.get(&key).map(|(_, result)| result.clone())
    }

    fn run(
        &self,
        command: &str,
        plugin: &Value,
        of: &Attachment,
        previous: Option<&Value>,
    ) -> Output {
        let stdin = request(&self.members(plugin), &plugin["capabilities"], of, previous);
        self.node.world.run(NODE, &call(type_of(plugin), command, of, &stdin))
    }

    fn members(&self, plugin: &Value) -> BTreeMap<String, String> {
        let mut members = members(plugin);
        members.insert("name".to_owned(), json!(self.name).to_string());
        members.insert("cniVersion".to_owned(), json!(self.version).to_string());
        members
    }
}

/// A conflist of the workspace.
pub(crate) fn conflist(path: &str) -> Value {
    serde_json::from_slice(&fs::read(tests::workspace().join(path)).unwrap()).unwrap()
}

/// The printed members of an object, by name.
pub(crate) fn members(object: &Value) -> BTreeMap<String, String> {
    let members = object.as_object().unwrap().iter();
    members.map(|(key, value)| (key.clone(), value.to_string())).collect()
}

/// What a plugin reads for ADD, CHECK and DEL.
pub(crate) fn request(
    config: &BTreeMap<String, String>,
    declared: &Value,
    attachment: &Attachment,
    previous: Option<&Value>,
) -> String {
    let used: BTreeMap<String, String> = attachment
        .capabilities
        .iter()
        .filter(|(name, _)| declared[**name] == true)
        .map(|(name, value)| ((*name).to_owned(), value.clone()))
        .collect();
    let mut members = config.clone();
    if let Some(previous) = previous {
        // With a runtimeConfig, everything is parsed and printed again, so it is sorted.
        let printed =
            if used.is_empty() { result(previous) } else { complete(previous).to_string() };
        members.insert("prevResult".to_owned(), printed);
    }
    if !used.is_empty() {
        members.insert("runtimeConfig".to_owned(), print(&used));
    }
    print(&members)
}

fn call(plugin: &str, command: &str, attachment: &Attachment, stdin: &str) -> Cmd {
    Cmd::new(format!("{BIN}/{plugin}"))
        .env("CNI_COMMAND", command)
        .env("CNI_CONTAINERID", &attachment.id)
        .env("CNI_NETNS", &attachment.netns)
        .env("CNI_ARGS", &attachment.args)
        .env("CNI_IFNAME", attachment.ifname)
        .env("CNI_PATH", BIN)
        .stdin(stdin)
}

fn type_of(plugin: &Value) -> &str {
    plugin["type"].as_str().unwrap()
}

fn print(members: &BTreeMap<String, String>) -> String {
    let members: Vec<_> =
        members.iter().map(|(key, value)| format!("{}:{value}", json!(key))).collect();
    format!("{{{}}}", members.join(","))
}

/// An empty `dns` is not omitted, because it is not a pointer.
fn complete(result: &Value) -> Value {
    let mut result = result.clone();
    result.as_object_mut().unwrap().entry("dns").or_insert_with(|| json!({}));
    result
}

/// A result in the order of libcni's structure.
fn result(value: &Value) -> String {
    let value = &complete(value);
    let each = |list: &str, keys: &[&str]| {
        let list = value[list].as_array().into_iter().flatten();
        let printed: Vec<_> = list.map(|item| ordered(item, keys)).collect();
        (!printed.is_empty()).then(|| format!("[{}]", printed.join(",")))
    };
    let routes = ["dst", "gw", "mtu", "advmss", "priority", "table", "scope"];
    let parts = [
        ("cniVersion", Some(value["cniVersion"].to_string())),
        ("interfaces", each("interfaces", &["name", "mac", "mtu", "sandbox"])),
        ("ips", each("ips", &["version", "interface", "address", "gateway"])),
        ("routes", each("routes", &routes)),
        ("dns", Some(ordered(&value["dns"], &["nameservers", "domain", "search", "options"]))),
    ];
    let printed = parts.into_iter().filter_map(|(key, part)| Some(format!("\"{key}\":{}", part?)));
    format!("{{{}}}", printed.collect::<Vec<_>>().join(","))
}

fn ordered(object: &Value, keys: &[&str]) -> String {
    let members = keys.iter().filter_map(|key| Some(format!("\"{key}\":{}", object.get(*key)?)));
    format!("{{{}}}", members.collect::<Vec<_>>().join(","))
}
