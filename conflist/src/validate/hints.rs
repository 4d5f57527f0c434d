//! What people expect of a network and do not get, as far as its list tells.

use super::check::Checker;
use super::document::Node;
use super::finding::Problem;

const HAIRPIN: &str = "without hairpinMode or promiscMode, a pod does not reach its own hostPorts where the \
     kernel filters bridged packets (br_netfilter), as Kubernetes wants it; see portmap's README, \"Hairpin\"";
const FORWARD: &str = "where the policy of FORWARD is DROP, as Docker sets it, hostPorts are not reached from \
     other machines; add the plugin firewall, and see its README, \"Published ports\"";

/// Hints at what the plugins of a list lack together.
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
    if find("firewall").is_none() {
        checker.hint(portmap.line, &path, Problem::Expectation(FORWARD));
    }
}
