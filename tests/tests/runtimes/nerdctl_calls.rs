//! The calls of nerdctl 2, which needs a newer containerd than the tests have. Its OCI hook makes them
//! with go-cni.
//!
//! `createRuntime` first calls DEL without a namespace and ignores its outcome, in case the container
//! is one that containerd has restarted; `postStop` calls the same DEL with fewer `CNI_ARGS`. The keys
//! of port mappings begin with capitals.

use std::collections::BTreeMap;
use std::process::{Child, Command};

use tests::{Cmd, Known, NODE, Plugins, TcpEcho, fetch};

use crate::libcni::{Attachment, Network, conflist};
use crate::node::Node;
use crate::stage::Stage;

const CONFLIST: &str = "conflist/examples/nerdctl.conflist";
/// The first word is nerdctl's own namespace, the second one the container's ID in it.
const ID: &str = "default-d1fa5e7ab1e0c0ffee00d1fa5e7ab1e0c0ffee00d1fa5e7ab1e0c0ffee00cafe";
const PORTS: &str = r#"[{"HostPort":8080,"ContainerPort":80,"Protocol":"tcp","HostIP":"0.0.0.0"}]"#;

pub(crate) fn cases(stage: &mut Stage) {
    let leaves = Some(Known::new(
        "its bridge leaves the rules that masquerade when CNI_NETNS is empty",
        " -j MASQUERADE\n",
    ));
    stage.both("nerdctl_calls", "a_container_starts_and_stops", leaves, CONFLIST, starts_and_stops);
    stage.both("nerdctl_calls", "containerd_restarts_its_containers", leaves, CONFLIST, restarts);
    stage.both("nerdctl_calls", "firewall_tells_its_version", None, CONFLIST, firewall_version);
}

/// A process in a namespace of its own; nerdctl names that namespace by the process's `/proc` entry.
struct Container<'a> {
    node: &'a Node,
    netns: &'static str,
    process: Child,
}

impl<'a> Container<'a> {
    fn new(node: &'a Node, netns: &'static str) -> Self {
        node.world.add_netns(netns);
        let process = node.world.inside(netns, || Command::new("sleep").arg("1000").spawn());
        Self { node, netns, process: process.unwrap() }
    }

    /// Runs the hook `createRuntime`.
    fn create(&self, network: &mut Network<'_>) {
        let hostname = &ID[8..20];
        let attachment = Attachment {
            netns: format!("/proc/{}/ns/net", self.process.id()),
            args: format!("IgnoreUnknown=1;NERDCTL_CNI_DHCP_HOSTNAME={hostname}"),
            ..attachment()
        };
        network.del(&Attachment { netns: String::new(), ..attachment.clone() });
        network.add(&attachment);
    }

    /// Ends the process, and with it the namespace.
    fn dies(mut self) {
        self.end();
        self.node.world.remove_netns(self.netns);
    }

    /// The same, and runs the hook `postStop`.
    fn stops(self, network: &mut Network<'_>) {
        self.dies();
        network.del(&attachment());
    }

    fn end(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Drop for Container<'_> {
    fn drop(&mut self) {
        self.end();
    }
}

/// The container as `postStop` names it.
fn attachment() -> Attachment {
    let capabilities = BTreeMap::from([("portMappings", PORTS.to_owned())]);
    Attachment { id: ID.to_owned(), ifname: "eth0", capabilities, ..Attachment::nobody() }
}

fn starts_and_stops(node: &Node) {
    let mut network = Network::new(node, &conflist(CONFLIST));
    let container = Container::new(node, "box");
    container.create(&mut network);
    let web = TcpEcho::start(&node.world, "box", "0.0.0.0:80", "page");
    assert_eq!(fetch(&node.world, "outside", "192.0.2.1:8080").unwrap(), "page 192.0.2.2");
    // As nerdctl finds the ports of a container, and the ports in use.
    let rules = node.world.sh(NODE, "iptables -t nat -S");
    assert!(rules.lines().any(|rule| rule.contains(ID)), "no rule names the container:\n{rules}");
    let taken = node.world.sh(NODE, "iptables -t nat -S CNI-HOSTPORT-DNAT");
    assert!(taken.contains("--dports 8080 "), "the port is not seen to be taken:\n{taken}");
    drop(web);
    container.stops(&mut network);
    node.assert_nothing_is_left();
}

/// The container's process ends without `postStop`, and `createRuntime` runs for its successor.
fn restarts(node: &Node) {
    let mut network = Network::new(node, &conflist(CONFLIST));
    let container = Container::new(node, "box");
    container.create(&mut network);
    container.dies();
    let again = Container::new(node, "again");
    again.create(&mut network);
    let web = TcpEcho::start(&node.world, "again", "0.0.0.0:80", "page");
    assert_eq!(fetch(&node.world, "outside", "192.0.2.1:8080").unwrap(), "page 192.0.2.2");
    drop(web);
    again.stops(&mut network);
    node.assert_nothing_is_left();
}

/// Called without `CNI_COMMAND`, firewall prints its version on stderr. nerdctl reads it there, and
/// uses the policy of older versions if it finds none.
fn firewall_version(node: &Node) {
    let firewall = Cmd::new("/run/plugins/bin/firewall");
    let output = node.world.run(NODE, &firewall).success();
    let says = output.stderr.lines().find_map(|line| line.strip_prefix("CNI firewall plugin "));
    let says = says.unwrap_or_else(|| panic!("no line that nerdctl looks for\n{output}"));
    // A plugin built by `go install` does not know its version.
    if node.plugins != Plugins::go() {
        let version: Vec<u32> =
            says.trim_start_matches('v').split('.').map(|part| part.parse().unwrap()).collect();
        assert!(version.len() == 3 && version >= vec![1, 7, 1], "too old for nerdctl: {says}");
    }
}
