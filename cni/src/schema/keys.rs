//! The keys that are not of one plugin: those of every plugin, and those of a list of them.

use std::collections::BTreeMap;

use schemars::{JsonSchema, Schema};
use serde_json::Value;

use super::{AnyVersion, Program, Switch};
use crate::{NetworkName, Version};

/// The configuration of one plugin, which may have more keys than these.
#[derive(Debug, JsonSchema)]
#[schemars(rename = "plugin", rename_all = "camelCase", extend("additionalProperties" = true))]
#[expect(dead_code, reason = "read by nobody: these are to be described")]
pub struct Every {
    /// The name of the plugin's program.
    #[schemars(rename = "type")]
    kind: Program,
    /// What the runtime is to pass on of what it knows of a container.
    capabilities: Option<Capabilities>,
    /// Arguments of the administrator's; those for plugins are below `cni`.
    #[schemars(extend("additionalProperties" = true))]
    args: Option<BTreeMap<String, Value>>,
    /// Who gives out the addresses.
    ipam: Option<Ipam>,
    /// The name of the network: that of the list, if there is one.
    name: Option<String>,
    /// The version of the specification: that of the list, if there is one.
    cni_version: Option<String>,
    /// What the runtime passes on, by capability.
    #[schemars(extend("readOnly" = true, "additionalProperties" = true))]
    runtime_config: Option<BTreeMap<String, Value>>,
    /// The result of the plugin before this one.
    #[schemars(extend("readOnly" = true))]
    prev_result: Option<Value>,
    /// The attachments that a GC leaves alone.
    #[schemars(rename = "cni.dev/valid-attachments", extend("readOnly" = true))]
    valid_attachments: Option<Value>,
    /// The same, as the first runtimes called it.
    #[schemars(rename = "cni.dev/attachments", extend("readOnly" = true))]
    attachments: Option<Value>,
}

/// An `ipam` object, which may have more keys than these; an empty one asks for nothing.
#[derive(Debug, JsonSchema)]
#[schemars(extend(
    "additionalProperties" = true,
    "required" = [],
    "if" = {"minProperties": 1},
    "then" = {"required": ["type"]},
))]
#[expect(dead_code, reason = "read by nobody: these are to be described")]
struct Ipam {
    /// The name of the IPAM plugin's program.
    #[schemars(rename = "type")]
    kind: Program,
}

/// The capabilities of the conventions (CONVENTIONS.md of the specification).
#[derive(Debug, JsonSchema)]
#[schemars(rename_all = "camelCase", transform = or_others)]
#[expect(dead_code, reason = "read by nobody: these are to be described")]
struct Capabilities {
    /// Ports of the node that lead to the container.
    port_mappings: Option<bool>,
    /// Ranges of addresses to choose from.
    ip_ranges: Option<bool>,
    /// Limits of what enters and leaves the container.
    bandwidth: Option<bool>,
    /// Name resolution, as the runtime wants it.
    dns: Option<bool>,
    /// Certain addresses.
    ips: Option<bool>,
    /// A hardware address.
    mac: Option<bool>,
    /// The GUID of an InfiniBand device.
    #[schemars(rename = "infinibandGUID")]
    infiniband_guid: Option<bool>,
    /// A device of the node.
    #[schemars(rename = "deviceID")]
    device_id: Option<bool>,
    /// Other names of the container in the network.
    aliases: Option<bool>,
    /// The container's control group.
    cgroup_path: Option<bool>,
    /// Annotations of the pod, from containerd and CRI-O.
    #[schemars(rename = "io.kubernetes.cri.pod-annotations")]
    pod_annotations: Option<bool>,
}

fn or_others(schema: &mut Schema) {
    schema.insert("additionalProperties".to_owned(), serde_json::json!({"type": "boolean"}));
}

/// A list of plugins: the specification's section 1, and what nerdctl keeps there for itself.
#[derive(Debug, JsonSchema)]
#[schemars(rename_all = "camelCase", extend("required" = ["name"]))]
#[expect(dead_code, reason = "read by nobody: these are to be described")]
pub struct List {
    /// The version of the specification that plugins are spoken to in.
    #[schemars(extend("default" = "0.1.0"))]
    cni_version: Version,
    /// The versions that the configuration is right for; the newest that the runtime knows is taken.
    cni_versions: Vec<AnyVersion>,
    /// The name of the network, which no other file has.
    name: NetworkName,
    /// Whether CHECK is never run.
    #[schemars(extend("default" = false))]
    disable_check: Switch,
    /// Whether GC is never run.
    #[schemars(rename = "disableGC", extend("default" = false))]
    disable_gc: Switch,
    /// Whether plugins in files of a directory beside this one are left out.
    #[schemars(extend("default" = false))]
    load_only_inlined_plugins: Switch,
    /// The plugins, in the order of ADD.
    #[schemars(length(min = 1))]
    plugins: Vec<Every>,
    /// Read by nobody here; each plugin has its own.
    args: Value,
    /// nerdctl's name of the network.
    #[schemars(rename = "nerdctlID")]
    nerdctl_id: String,
    /// nerdctl's labels of the network.
    nerdctl_labels: BTreeMap<String, String>,
    /// The JSON Schema that editors check this file by.
    #[schemars(rename = "$schema")]
    schema: String,
}
