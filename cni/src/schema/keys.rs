//! The keys of every plugin, and the keys of a list of plugins.

use std::collections::BTreeMap;

use schemars::{JsonSchema, Schema};
use serde_json::Value;

use super::{AnyVersion, Program, Switch};
use crate::{NetworkName, Version};

/// The configuration of one plugin. It can have more keys.
#[derive(Debug, JsonSchema)]
#[schemars(rename = "plugin", rename_all = "camelCase", extend("additionalProperties" = true))]
#[expect(dead_code, reason = "only the schema of this type is used")]
pub struct Every {
    /// The name of the plugin's program.
    #[schemars(rename = "type")]
    kind: Program,
    /// What the runtime passes to the plugin for each container.
    capabilities: Option<Capabilities>,
    /// Arguments from the administrator. Those for plugins are below `cni`.
    #[schemars(extend("additionalProperties" = true))]
    args: Option<BTreeMap<String, Value>>,
    /// The plugin that assigns addresses.
    ipam: Option<Ipam>,
    /// The name of the network. In a list, the list's name is used.
    name: Option<String>,
    /// The version of the specification. In a list, the list's version is used.
    cni_version: Option<String>,
    /// The values that the runtime passes, by capability.
    #[schemars(extend("readOnly" = true, "additionalProperties" = true))]
    runtime_config: Option<BTreeMap<String, Value>>,
    /// The result of the previous plugin.
    #[schemars(extend("readOnly" = true))]
    prev_result: Option<Value>,
    /// The attachments that exist, for a GC.
    #[schemars(rename = "cni.dev/valid-attachments", extend("readOnly" = true))]
    valid_attachments: Option<Value>,
    /// The same, with the name that the first runtimes use.
    #[schemars(rename = "cni.dev/attachments", extend("readOnly" = true))]
    attachments: Option<Value>,
}

/// The IPAM plugin. It can have more keys. An empty object means no IPAM plugin.
#[derive(Debug, JsonSchema)]
#[schemars(extend(
    "additionalProperties" = true,
    "required" = [],
    "if" = {"minProperties": 1},
    "then" = {"required": ["type"]},
))]
#[expect(dead_code, reason = "only the schema of this type is used")]
struct Ipam {
    /// The name of the IPAM plugin's program.
    #[schemars(rename = "type")]
    kind: Program,
}

/// The capabilities that the specification's CONVENTIONS.md defines.
#[derive(Debug, JsonSchema)]
#[schemars(rename_all = "camelCase", transform = or_others)]
#[expect(dead_code, reason = "only the schema of this type is used")]
struct Capabilities {
    /// Ports of the node that are forwarded to the container.
    port_mappings: Option<bool>,
    /// Ranges of addresses to allocate from.
    ip_ranges: Option<bool>,
    /// Limits of the traffic to and from the container.
    bandwidth: Option<bool>,
    /// Name resolution.
    dns: Option<bool>,
    /// Requested addresses.
    ips: Option<bool>,
    /// A requested hardware address.
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

/// A list of plugins (specification, section 1), and keys that nerdctl adds.
#[derive(Debug, JsonSchema)]
#[schemars(rename_all = "camelCase", extend("required" = ["name"]))]
#[expect(dead_code, reason = "only the schema of this type is used")]
pub struct List {
    /// The version of the specification that the plugins are run with.
    #[schemars(extend("default" = "0.1.0"))]
    cni_version: Version,
    /// The versions that the configuration supports. The runtime uses the newest that it supports.
    cni_versions: Vec<AnyVersion>,
    /// The name of the network, which must be unique on the node.
    name: NetworkName,
    /// Whether the runtime must not run CHECK.
    #[schemars(extend("default" = false))]
    disable_check: Switch,
    /// Whether the runtime must not run GC.
    #[schemars(rename = "disableGC", extend("default" = false))]
    disable_gc: Switch,
    /// Whether the runtime must ignore plugins in files of the directory with the network's name.
    #[schemars(extend("default" = false))]
    load_only_inlined_plugins: Switch,
    /// The plugins, in the order of ADD.
    #[schemars(length(min = 1))]
    plugins: Vec<Every>,
    /// Not used here; each plugin has its own `args`.
    args: Value,
    /// The ID that nerdctl gives the network.
    #[schemars(rename = "nerdctlID")]
    nerdctl_id: String,
    /// The labels that nerdctl gives the network.
    nerdctl_labels: BTreeMap<String, String>,
    /// The JSON Schema that editors use for this file.
    #[schemars(rename = "$schema")]
    schema: String,
}
