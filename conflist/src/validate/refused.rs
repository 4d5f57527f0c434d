//! Values that a plugin itself refuses. The function that its ADD calls reads the configuration here, too, so
//! that both refuse the same values.

use cni::Code;
use serde_json::{Map, Value, json};

use super::check::{Checker, join};
use super::document::Node;
use super::finding::Problem;
use crate::network::{Network, PluginConf};
use crate::registry;
use crate::request;

/// Reports the first value that the plugin, or the IPAM plugin that it runs, refuses.
pub(crate) fn plugin(checker: &mut Checker<'_>, node: &Node, path: &str, network: &Network) {
    let Ok(conf) = PluginConf::read(&node.to_value(), path) else { return };
    let ipam = node.get("ipam").and_then(|ipam| ipam.value.text_of("type")).unwrap_or_default();
    let capability_args = necessary_args(node, ipam);
    let Ok(request) = request::of_attachment(network, &conf, None, &capability_args) else {
        return;
    };
    let kinds = [conf.kind.as_str(), ipam];
    for plugin in kinds.into_iter().filter_map(registry::plugin) {
        if let Err(error) = (plugin.validate)(request.clone()) {
            report(checker, node, path, &error);
            return;
        }
    }
}

/// Example values of the runtime, for an IPAM plugin that gets its addresses only from there. They reach
/// the plugin only if it declares the capability.
fn necessary_args(node: &Node, ipam: &str) -> Map<String, Value> {
    let has = |key: &str| node.get("ipam").is_some_and(|ipam| ipam.value.get(key).is_some());
    let args = match ipam {
        "host-local" if !has("ranges") && !has("subnet") => {
            json!({"ipRanges": [[{"subnet": "192.0.2.0/24"}]]})
        }
        "static" if !has("addresses") => json!({"ips": ["192.0.2.2/24"]}),
        _ => json!({}),
    };
    args.as_object().cloned().unwrap_or_default()
}

fn report(checker: &mut Checker<'_>, node: &Node, path: &str, error: &cni::Error) {
    let message = error.to_string();
    let named = message
        .strip_prefix("key \"")
        .and_then(|rest| rest.split_once("\" of the configuration: "));
    let (key, why) = match named {
        Some((key, why)) if error.code == Code::InvalidConfig => (join(path, key), why),
        _ => (path.to_owned(), message.as_str()),
    };
    let line = named.map_or(node.line, |(key, _)| node.line_of(key));
    checker.error(line, &key, Problem::Refused(why.to_owned()));
}
