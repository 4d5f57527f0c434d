//! The configuration that one plugin reads on stdin, derived from the network (specification, section 3,
//! "Deriving request configuration from plugin configuration").

use std::collections::BTreeSet;

use cni::{ContainerId, IfName, Success};
use serde_json::{Map, Value, json};

use crate::network::{Network, PluginConf};

/// The request of an ADD, CHECK or DEL. It has the result of the previous plugin, or of the whole chain,
/// and the capability arguments.
pub(crate) fn of_attachment(
    network: &Network,
    plugin: &PluginConf,
    previous: Option<&Success>,
    capability_args: &Map<String, Value>,
) -> Result<Vec<u8>, cni::Error> {
    let mut request = common(network, plugin);
    if let Some(previous) = previous {
        request.insert("prevResult".into(), previous.to_json(network.version)?);
    }
    let runtime_config: Map<String, Value> = capability_args
        .iter()
        .filter(|(capability, _)| plugin.is_capable_of(capability))
        .map(|(capability, value)| (capability.clone(), value.clone()))
        .collect();
    if !runtime_config.is_empty() {
        request.insert("runtimeConfig".into(), Value::Object(runtime_config));
    }
    Ok(bytes(request))
}

/// The request of a GC.
pub(crate) fn of_gc(
    network: &Network,
    plugin: &PluginConf,
    valid: &BTreeSet<(ContainerId, IfName)>,
) -> Vec<u8> {
    let list: Vec<Value> = valid
        .iter()
        .map(|(container_id, ifname)| json!({"containerID": container_id, "ifname": ifname}))
        .collect();
    let mut request = common(network, plugin);
    request.insert("cni.dev/valid-attachments".into(), list.clone().into());
    // An earlier name of the key, which libcni still sends.
    request.insert("cni.dev/attachments".into(), list.into());
    bytes(request)
}

/// The request of a STATUS.
pub(crate) fn of_status(network: &Network, plugin: &PluginConf) -> Vec<u8> {
    bytes(common(network, plugin))
}

/// `name` and `cniVersion` are the network's. `capabilities` and keys that start with `cni.dev/` are only
/// for the runtime. All other keys are passed on unchanged.
fn common(network: &Network, plugin: &PluginConf) -> Map<String, Value> {
    let mut request = plugin.conf.clone();
    request
        .retain(|key, _| !key.eq_ignore_ascii_case("capabilities") && !key.starts_with("cni.dev/"));
    request.insert("name".into(), network.name.as_str().into());
    request.insert("cniVersion".into(), network.version.as_str().into());
    request
}

fn bytes(request: Map<String, Value>) -> Vec<u8> {
    Value::Object(request).to_string().into_bytes()
}
