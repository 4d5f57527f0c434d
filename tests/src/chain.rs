//! Runs the plugins of a network as a container runtime does.

use std::collections::BTreeMap;
use std::sync::Mutex;

use serde_json::{Map, Value, json};

use crate::binaries::Plugins;
use crate::process::{Cmd, Output};
use crate::world::{NODE, World, netns_path};

/// One attachment: its container, network namespace and interface.
#[derive(Clone, Debug)]
pub struct Pod {
    /// `CNI_CONTAINERID`.
    pub id: String,
    /// `CNI_NETNS`; empty if the namespace does not exist any more.
    pub netns: String,
    /// `CNI_IFNAME`.
    pub ifname: String,
}

impl Pod {
    /// A pod whose container ID is the name of its namespace. Its interface is `eth0`.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self { id: name.to_owned(), netns: netns_path(name), ifname: "eth0".to_owned() }
    }

    /// Stands for an attachment in commands that concern the whole network.
    fn nobody() -> Self {
        Self { id: String::new(), netns: String::new(), ifname: String::new() }
    }

    /// The same attachment as a runtime names it after its namespace has been removed.
    #[must_use]
    pub fn without_netns(&self) -> Self {
        Self { netns: String::new(), ..self.clone() }
    }

    /// The same container with another interface name.
    #[must_use]
    pub fn ifname(&self, ifname: &str) -> Self {
        Self { ifname: ifname.to_owned(), ..self.clone() }
    }
}

/// A network configuration list, and what its runtime keeps about it.
#[derive(Debug)]
pub struct Chain<'a> {
    world: &'a World,
    node: String,
    plugins: Plugins,
    conflist: Value,
    /// The capability arguments by name (`portMappings`, …), for plugins that declare the capability.
    pub capabilities: Value,
    results: Mutex<BTreeMap<(String, String), Value>>,
}

impl<'a> Chain<'a> {
    /// A list with these plugin configurations, `cniVersion` 1.0.0 and the network name `testnet`.
    #[must_use]
    pub fn new(world: &'a World, plugins: &Plugins, configs: &[Value]) -> Self {
        let conflist = json!({"cniVersion": "1.0.0", "name": "testnet", "plugins": configs});
        Self::of(world, plugins, conflist)
    }

    /// A list given as a whole.
    #[must_use]
    pub fn of(world: &'a World, plugins: &Plugins, conflist: Value) -> Self {
        Self {
            world,
            node: NODE.to_owned(),
            plugins: plugins.clone(),
            conflist,
            capabilities: json!({}),
            results: Mutex::default(),
        }
    }

    /// Runs the plugins in another network namespace than [`NODE`].
    #[must_use]
    pub fn on(mut self, node: &str) -> Self {
        node.clone_into(&mut self.node);
        self
    }

    /// Sets the network's name and sets `cniVersion` to 1.1.0, which has GC and STATUS.
    #[must_use]
    pub fn network(mut self, name: &str, version: &str) -> Self {
        self.conflist["name"] = json!(name);
        self.conflist["cniVersion"] = json!(version);
        self
    }

    /// Sets the port mappings that are passed to ADD, CHECK and DEL.
    #[must_use]
    pub fn ports(mut self, mappings: &Value) -> Self {
        self.capabilities = json!({"portMappings": mappings});
        self
    }

    /// The same network and kept results with other binaries: a node that changes over.
    #[must_use]
    pub fn with(&self, plugins: &Plugins) -> Self {
        Self {
            world: self.world,
            node: self.node.clone(),
            plugins: plugins.clone(),
            conflist: self.conflist.clone(),
            capabilities: self.capabilities.clone(),
            results: Mutex::new(self.results.lock().unwrap().clone()),
        }
    }

    /// Runs ADD; returns the result of the last plugin, or the output of the first plugin that failed.
    pub fn try_add(&self, pod: &Pod) -> Result<Value, Box<Output>> {
        let mut result = Value::Null;
        for config in self.configs() {
            let output = self.run("ADD", pod, &config, &result, &json!({}));
            if output.code() != 0 {
                return Err(Box::new(output));
            }
            result = output.json();
        }
        self.results.lock().unwrap().insert(key(pod), result.clone());
        Ok(result)
    }

    /// Runs ADD, which must succeed.
    #[track_caller]
    pub fn add(&self, pod: &Pod) -> Value {
        self.try_add(pod).unwrap_or_else(|output| panic!("ADD of {}\n{output}", pod.id))
    }

    /// Runs CHECK with the kept result.
    pub fn try_check(&self, pod: &Pod) -> Result<(), Box<Output>> {
        let previous = self.result(pod);
        each(&self.configs(), |config| self.run("CHECK", pod, config, &previous, &json!({})))
    }

    /// Runs CHECK, which must succeed.
    #[track_caller]
    pub fn check(&self, pod: &Pod) {
        self.try_check(pod).unwrap_or_else(|output| panic!("CHECK of {}\n{output}", pod.id));
    }

    /// Runs DEL from the last plugin to the first, with the kept result.
    pub fn try_del(&self, pod: &Pod) -> Result<(), Box<Output>> {
        let previous = self.result(pod);
        each(&self.reversed(), |config| self.run("DEL", pod, config, &previous, &json!({})))
    }

    /// Runs DEL, which must succeed.
    #[track_caller]
    pub fn del(&self, pod: &Pod) {
        self.try_del(pod).unwrap_or_else(|output| panic!("DEL of {}\n{output}", pod.id));
    }

    /// Runs DEL as a runtime that has lost its state: without previous result and capabilities.
    #[track_caller]
    pub fn del_by_names(&self, pod: &Pod) {
        let bare =
            Self { capabilities: json!({}), results: Mutex::default(), ..self.with(&self.plugins) };
        bare.del(pod);
    }

    /// The kept result of a pod; null if there is none.
    #[must_use]
    pub fn result(&self, pod: &Pod) -> Value {
        self.results.lock().unwrap().get(&key(pod)).cloned().unwrap_or_default()
    }

    /// Runs GC with the valid attachments. As a runtime must, it goes on after a plugin that fails;
    /// returns the outputs of those that failed.
    pub fn try_gc(&self, valid: &[&Pod]) -> Result<(), Vec<Output>> {
        let valid: Vec<Value> =
            valid.iter().map(|p| json!({"containerID": p.id, "ifname": p.ifname})).collect();
        let more = json!({"cni.dev/valid-attachments": valid, "cni.dev/attachments": valid});
        let run = |config: &Value| self.run("GC", &Pod::nobody(), config, &Value::Null, &more);
        let outputs = self.configs().into_iter().map(|config| run(&config));
        let failed: Vec<Output> = outputs.filter(|output| output.code() != 0).collect();
        if failed.is_empty() { Ok(()) } else { Err(failed) }
    }

    /// Runs GC, which must succeed.
    #[track_caller]
    pub fn gc(&self, valid: &[&Pod]) {
        self.try_gc(valid).unwrap_or_else(|outputs| panic!("GC\n{}", outputs[0]));
    }

    /// Runs STATUS; returns the output of the first plugin that is not ready.
    pub fn try_status(&self) -> Result<(), Box<Output>> {
        let run =
            |config: &Value| self.run("STATUS", &Pod::nobody(), config, &Value::Null, &json!({}));
        each(&self.configs(), run)
    }

    /// What plugin number `index` reads on stdin for ADD; `previous` is the result before it.
    #[must_use]
    pub fn stdin(&self, index: usize, previous: &Value) -> Value {
        self.request(&self.configs()[index], previous, &json!({}))
    }

    fn configs(&self) -> Vec<Value> {
        self.conflist["plugins"].as_array().expect("a conflist has plugins").clone()
    }

    fn reversed(&self) -> Vec<Value> {
        self.configs().into_iter().rev().collect()
    }

    fn run(&self, command: &str, pod: &Pod, config: &Value, prev: &Value, more: &Value) -> Output {
        let plugin = config["type"].as_str().expect("a plugin has a type").to_owned();
        let stdin = self.request(config, prev, more).to_string();
        self.world.run(&self.node, &call_with(&self.plugins, &plugin, command, pod, &stdin))
    }

    fn request(&self, config: &Value, previous: &Value, more: &Value) -> Value {
        let mut request = config.as_object().expect("a configuration is an object").clone();
        for name in ["name", "cniVersion"] {
            request.insert(name.to_owned(), self.conflist[name].clone());
        }
        if !previous.is_null() {
            request.insert("prevResult".to_owned(), previous.clone());
        }
        let offered = self.capabilities.as_object().expect("capabilities are an object");
        let declared = &config["capabilities"];
        let used: Map<_, _> =
            offered.clone().into_iter().filter(|(k, _)| declared[k] == true).collect();
        if !used.is_empty() {
            request.insert("runtimeConfig".to_owned(), Value::Object(used));
        }
        request.extend(more.as_object().expect("an object").clone());
        Value::Object(request)
    }
}

/// Runs one plugin with a configuration.
#[must_use]
pub fn call(plugins: &Plugins, plugin: &str, command: &str, pod: &Pod, config: &Value) -> Cmd {
    call_with(plugins, plugin, command, pod, &config.to_string())
}

/// Runs one plugin with any string on stdin.
#[must_use]
pub fn call_with(plugins: &Plugins, plugin: &str, command: &str, pod: &Pod, stdin: &str) -> Cmd {
    Cmd::new(plugins.path(plugin))
        .env("CNI_COMMAND", command)
        .env("CNI_CONTAINERID", &pod.id)
        .env("CNI_NETNS", &pod.netns)
        .env("CNI_IFNAME", &pod.ifname)
        .env("CNI_ARGS", "")
        .env("CNI_PATH", plugins.dir.to_string_lossy())
        .stdin(stdin)
}

fn each(configs: &[Value], run: impl Fn(&Value) -> Output) -> Result<(), Box<Output>> {
    let mut outputs = configs.iter().map(run);
    outputs.find(|output| output.code() != 0).map_or(Ok(()), |output| Err(Box::new(output)))
}

fn key(pod: &Pod) -> (String, String) {
    (pod.id.clone(), pod.ifname.clone())
}
