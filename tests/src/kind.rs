//! A kind cluster in one world: Docker's host, two nodes, and what other programs write on them.
//!
//! ```text
//! host 172.18.0.1 :8080 ── bridge kind ──┬── control plane 172.18.0.2, pods 10.244.0.0/24
//!                                        └── worker        172.18.0.3, pods 10.244.1.0/24
//! ```
//!
//! `kind/` beside `src/` contains what other programs write on a node: the rules of kube-proxy and
//! kindnet, and the files of the ingress controller's nginx. The pods' addresses in them are those
//! that host-local assigns in this order on a new node.

mod counts;
mod docker;
mod family;
mod ingress;

use std::fs;
use std::net::SocketAddr;

use serde_json::{Value, json};

use crate::binaries::{Plugins, workspace};
use crate::chain::{Chain, Pod};
use crate::configs::port;
use crate::process::Cmd;
use crate::suite::Needs;
use crate::world::{NODE, World};
use docker::DockerProxy;

pub use family::Family;
pub use ingress::Ingress;

/// The machine on which Docker runs.
pub const HOST: &str = "host";
/// The node of the ingress controller.
pub const CONTROL_PLANE: &str = NODE;
/// The other node.
pub const WORKER: &str = "worker";

/// The pod of the ingress controller.
pub const CONTROLLER: &str = "ingress-nginx";
/// Its first address: kind's own three pods are created before it.
pub const CONTROLLER_ADDRESS: &str = "10.244.0.5";
/// The ports of the node that lead to it: hostPort and containerPort.
pub const HOST_PORTS: [(u16, u16); 2] = [(80, 80), (443, 443)];
/// The backend's pod on the control plane, 10.244.0.6.
pub const WEB_0: &str = "web-0";
/// The backend's pod on the worker, 10.244.1.2.
pub const WEB_1: &str = "web-1";
/// The pods that kind itself creates on the control plane.
pub const SYSTEM: [&str; 3] = ["coredns-0", "coredns-1", "local-path"];

/// The directory of host-local's leases. Both nodes are in the same world.
fn leases(node: &str) -> &'static str {
    if node == WORKER { "/run/worker/cni-ipam-state" } else { "/run/cni-ipam-state" }
}

/// The options of a cluster.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    /// The mode of kube-proxy, `iptables` or `nftables`.
    pub kube_proxy: &'static str,
    /// The `backend` of portmap.
    pub backend: &'static str,
    /// Whether nodes, pods and Services also have IPv6 addresses.
    pub dual_stack: bool,
}

/// A cluster without pods.
#[derive(Debug)]
pub struct Cluster {
    /// The namespaces.
    pub world: World,
    kind: Kind,
    plugins: Plugins,
    _docker: DockerProxy,
}

impl Kind {
    /// The same cluster with IPv6.
    #[must_use]
    pub fn dual_stack(self) -> Self {
        Self { dual_stack: true, ..self }
    }

    /// What the cases need.
    #[must_use]
    pub fn needs(plugins: &Plugins) -> Needs {
        let names = ["host-local", "loopback", "portmap", "ptp"];
        // Variants that use nf_tables, whatever the machine's default is.
        let iptables = [Family::V4, Family::V6].map(|family| [family.restore(), family.save()]);
        let needs = Needs::plugins(plugins, &names).tools(&["conntrack", "nginx", "setpriv"]);
        needs.tools(iptables.as_flattened())
    }

    fn families(self) -> &'static [Family] {
        if self.dual_stack { &[Family::V4, Family::V6] } else { &[Family::V4] }
    }

    /// The network configuration of a node, with the addresses of its pods.
    fn conflist(self, node: &str) -> Value {
        let text = fs::read(workspace().join("conflist/examples/kind.conflist"));
        let mut list: Value = serde_json::from_slice(&text.expect("read kind's conflist"))
            .expect("kind's conflist is JSON");
        let ipam = &mut list["plugins"][0]["ipam"];
        let ranges = self.families().iter().map(|f| json!([{"subnet": f.pods_of(node)}]));
        ipam["ranges"] = ranges.collect();
        ipam["routes"] = self.families().iter().map(|f| json!({"dst": f.default()})).collect();
        ipam["dataDir"] = json!(leases(node));
        if self.backend != "iptables" {
            list["plugins"][1]["backend"] = json!(self.backend);
        }
        list
    }
}

impl Cluster {
    /// Creates the host and the nodes, and what runs on them before any pod.
    #[must_use]
    pub fn new(kind: Kind, plugins: &Plugins) -> Self {
        let world = World::new(&[HOST, WORKER]);
        world.sh(HOST, "ip link add kind type bridge; ip link set kind up; ip link set lo up");
        for family in kind.families() {
            let address = family.cidr(HOST);
            world.sh(HOST, &format!("ip addr add {address} dev kind {}", family.nodad()));
        }
        for node in [CONTROL_PLANE, WORKER] {
            let addresses: Vec<&str> = kind.families().iter().map(|f| f.cidr(node)).collect();
            world.connect((node, "eth0", &addresses), (HOST, node, &[]));
            world.sh(HOST, &format!("ip link set {node} master kind"));
        }
        for (node, other) in [(CONTROL_PLANE, WORKER), (WORKER, CONTROL_PLANE)] {
            // In the order in which Docker, kind and kube-proxy configure a node.
            let switches = match kind.kube_proxy {
                "iptables" => {
                    "ipv4/ip_forward ipv6/conf/all/forwarding ipv4/conf/all/route_localnet"
                }
                _ => "ipv4/ip_forward ipv6/conf/all/forwarding",
            };
            world.sh(node, &format!("for s in {switches}; do echo 1 > /proc/sys/net/$s; done"));
            for family in kind.families() {
                let (host, other_node) = (family.address(HOST), family.address(other));
                let pods = family.pods_of(other);
                world.sh(node, &format!("ip route add {} via {host}", family.default()));
                world.sh(node, &format!("ip route add {pods} via {other_node}"));
                restore(&world, node, *family, &data(family.kindnet()));
            }
        }
        let container: Vec<SocketAddr> =
            kind.families().iter().map(|f| f.at(CONTROL_PLANE, 80)).collect();
        let docker = DockerProxy::start(&world, HOST, 8080, &container);
        let this = Self { world, kind, plugins: plugins.clone(), _docker: docker };
        this.sync_kube_proxy(CONTROLLER_ADDRESS, true);
        if kind.backend == "nftables" {
            this.count_host_ports();
        }
        this
    }

    /// A cluster with kind's own pods, the ingress controller and the two pods of the backend.
    #[must_use]
    pub fn with_pods(kind: Kind, plugins: &Plugins) -> Self {
        let this = Self::new(kind, plugins);
        for pod in SYSTEM {
            this.attach(CONTROL_PLANE, pod, &[]);
        }
        this.attach(CONTROL_PLANE, CONTROLLER, &HOST_PORTS);
        this.attach(CONTROL_PLANE, WEB_0, &[]);
        this.attach(WORKER, WEB_1, &[]);
        this
    }

    /// Attaches a new pod as containerd does; returns its address.
    pub fn attach(&self, node: &str, name: &str, ports: &[(u16, u16)]) -> String {
        self.world.add_netns(name);
        let pod = Pod::new(name);
        self.loopback(node).add(&pod.ifname("lo"));
        let result = self.chain(node, ports).add(&pod);
        let address = result["ips"][0]["address"].as_str().expect("a result has an address");
        address.split('/').next().unwrap_or(address).to_owned()
    }

    /// Detaches a pod as containerd does, and removes its namespace.
    pub fn detach(&self, node: &str, name: &str, ports: &[(u16, u16)]) {
        let pod = Pod::new(name);
        self.chain(node, ports).del(&pod);
        self.loopback(node).del(&pod.ifname("lo"));
        self.world.remove_netns(name);
    }

    /// The pod network of a node, with these hostPorts and containerPorts of the pod.
    fn chain(&self, node: &str, ports: &[(u16, u16)]) -> Chain<'_> {
        let ports = ports.iter().map(|(host, container)| port("tcp", *host, *container));
        let chain = Chain::of(&self.world, &self.plugins, self.kind.conflist(node)).on(node);
        chain.ports(&ports.collect())
    }

    fn loopback(&self, node: &str) -> Chain<'_> {
        let conflist = json!({
            "cniVersion": "0.3.1", "name": "cni-loopback", "plugins": [{"type": "loopback"}],
        });
        Chain::of(&self.world, &self.plugins, conflist).on(node)
    }

    /// Starts nginx in the controller's pod, for Services of this family.
    #[must_use]
    pub fn ingress(&self, pod: &str, family: Family) -> Ingress<'_> {
        Ingress::start(&self.world, pod, family.web())
    }

    /// Changes kube-proxy's rules to another IPv4 address of the controller.
    pub fn move_service(&self, controller: &str) {
        self.sync_kube_proxy(controller, false);
        if self.kind.kube_proxy == "nftables" {
            let rules = data(Family::V4.kube_proxy("nftables"));
            let chains = rules.lines().filter_map(|line| line.strip_prefix("add chain "));
            let old = chains.filter(|chain| chain.contains(CONTROLLER_ADDRESS));
            let delete: Vec<String> = old.map(|chain| format!("delete chain {chain}")).collect();
            for node in [CONTROL_PLANE, WORKER] {
                self.nft(node, &delete.join("\n"));
            }
        }
    }

    fn sync_kube_proxy(&self, controller: &str, for_the_first_time: bool) {
        for (node, family) in [CONTROL_PLANE, WORKER]
            .into_iter()
            .flat_map(|node| self.kind.families().iter().map(move |family| (node, *family)))
        {
            let rules = data(family.kube_proxy(self.kind.kube_proxy));
            // The names of chains are hashes that include addresses, but no test reads them.
            let rules = rules.replace(CONTROLLER_ADDRESS, controller);
            if self.kind.kube_proxy == "nftables" {
                let rules = rules.replace(family.address(CONTROL_PLANE), family.address(node));
                self.nft(node, &with_counters(&rules));
                continue;
            }
            let is_wanted = |line: &&str| for_the_first_time || !line.starts_with("-I ");
            let rules: Vec<&str> = rules.lines().filter(is_wanted).collect();
            restore(&self.world, node, family, &format!("{}\n", rules.join("\n")));
        }
    }

    fn nft(&self, node: &str, commands: &str) {
        let nft = Cmd::new("nft").args(["-f", "-"]).stdin(commands);
        let _ = self.world.run(node, &nft).success();
    }
}

/// A file of `kind/`.
fn data(name: &str) -> String {
    let path = workspace().join("tests/kind").join(name);
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("read {}: {e}", path.display()))
}

fn restore(world: &World, node: &str, family: Family, rules: &str) {
    let restore = Cmd::new(family.restore()).arg("--noflush").stdin(rules);
    let _ = world.run(node, &restore).success();
}

/// kube-proxy's table has no counters; this adds one where node ports are handled.
fn with_counters(rules: &str) -> String {
    let counting = |line: &str| {
        let is_node_ports = line.contains(" external-");
        let counted = line.replace(" jump mark-for", " counter jump mark-for");
        format!("{}\n", if is_node_ports { counted } else { line.to_owned() })
    };
    rules.lines().map(counting).collect()
}
