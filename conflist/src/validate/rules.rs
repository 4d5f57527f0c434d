//! Values that plugins accept, but that are probably not meant.

use super::check::{Checker, join};
use super::document::Node;
use super::finding::Problem;

/// The rules of a plugin of a chain.
pub(crate) fn plugin(checker: &mut Checker<'_>, kind: &str, node: &Node, path: &str) {
    match kind {
        "tuning" => from_root(checker, node, path, "dataDir"),
        "portmap" => needs(checker, "portMappings", node, path),
        "bandwidth" => needs(checker, "bandwidth", node, path),
        _ => {}
    }
}

/// Finds a plugin that has nothing to do, because it gets no values of a capability.
fn needs(checker: &mut Checker<'_>, capability: &'static str, node: &Node, path: &str) {
    let declared = node.get("capabilities").is_some_and(|it| it.value.is_true(capability));
    let limited = ["ingressRate", "egressRate"].iter().any(|key| node.get(key).is_some());
    let given = node.get("runtimeConfig").is_some_and(|it| it.value.get(capability).is_some());
    if !declared && !limited && !given {
        checker.warning(node.line, path, Problem::NoCapability(capability));
    }
}

/// The rules of an `ipam` object; `conf` is the plugin's configuration that it is part of.
pub(crate) fn ipam(checker: &mut Checker<'_>, kind: &str, conf: &Node, node: &Node, path: &str) {
    let capable = |capability| {
        conf.get("capabilities").is_some_and(|declared| declared.value.is_true(capability))
    };
    match kind {
        "host-local" => {
            from_root(checker, node, path, "dataDir");
            from_root(checker, node, path, "resolvConf");
        }
        "static" => {
            let given = conf.get("args").is_some() || capable("ips");
            if node.get("addresses").is_none() && !given {
                let why =
                    "static has no address, unless \"ips\" is a capability or CNI_ARGS has IP";
                checker.warning(
                    node.line,
                    &join(path, "addresses"),
                    Problem::Missing(why.to_owned()),
                );
            }
        }
        _ => {}
    }
}

/// Finds a relative path, which depends on the working directory of the runtime.
fn from_root(checker: &mut Checker<'_>, node: &Node, path: &str, key: &str) {
    let Some(member) = node.get(key) else { return };
    if member.value.text().is_some_and(|text| !text.is_empty() && !text.starts_with('/')) {
        let why =
            "is relative to the runtime's working directory; write an absolute path".to_owned();
        checker.warning(member.line, &join(path, key), Problem::Contradiction(why));
    }
}
