//! Hints about lists that do not do what people often expect.

use super::check::Checker;
use super::document::Node;
use super::finding::Problem;

const HAIRPIN: &str = "without hairpinMode or promiscMode, a pod cannot reach its own hostPorts where \
     bridged packets pass iptables (br_netfilter), as on most nodes of Kubernetes; see docs/hostports.md";
const FORWARD: &str = "if FORWARD has the policy DROP, as Docker sets it, hostPorts cannot be reached from \
     other machines; add the plugin firewall with \"allowPublishedPorts\": true";
const PUBLISHED: &str = "without \"allowPublishedPorts\": true, hostPorts cannot be reached from other \
     machines if FORWARD has the policy DROP, as Docker sets it";

/// Adds hints about combinations of plugins.
pub(crate) fn list(checker: &mut Checker<'_>, plugins: &[Node]) {
    let find = |kind| {
        let position = plugins.iter().position(|plugin| plugin.text_of("type") == Some(kind));
        position.map(|index| (format!("plugins[{index}]"), &plugins[index]))
    };
    let Some((path, portmap)) = find("portmap") else { return };
    if let Some((path, bridge)) = find("bridge")
        && !["hairpinMode", "promiscMode"].iter().any(|key| bridge.is_true(key))
    {
        checker.hint(bridge.line, &path, Problem::Expectation(HAIRPIN));
    }
    match find("firewall") {
        None => checker.hint(portmap.line, &path, Problem::Expectation(FORWARD)),
        Some((path, firewall)) if !firewall.is_true("allowPublishedPorts") => {
            checker.hint(firewall.line, &path, Problem::Expectation(PUBLISHED));
        }
        Some(_) => {}
    }
}
