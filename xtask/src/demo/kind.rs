//! `cargo xtask demo --kind`: the case for which this project was started.
//!
//! On a kind cluster, a request to port 8080 of Docker's host reaches the ingress controller by its
//! hostPort, and kube-proxy's rules do not take it:
//!
//! ```text
//! 127.0.0.1:8080 → Docker → node:80 → CNI-DN-… → 10.244.0.5:80 nginx → Service → backend
//! ```
//!
//! The cluster is that of the end-to-end tests ([`tests::kind`]).

mod passed;

use tests::kind::{
    CONTROL_PLANE, CONTROLLER, Cluster, Family, HOST, HOST_PORTS, Kind, SYSTEM, WEB_0, WEB_1,
    WORKER,
};
use tests::{Plugins, TcpEcho, answers, request};

use crate::command::Failure;
use passed::Passed;

/// The port of Docker's host that leads to port 80 of the control plane.
const PUBLISHED: &str = "127.0.0.1:8080";
/// The host in the Ingress rule.
const RULE: &str = "localhost";
const KIND: Kind = Kind { kube_proxy: "iptables", backend: "iptables", dual_stack: false };

/// A pod of the cluster: its node, its name and its address.
type Pod = (&'static str, &'static str, String);

pub(super) fn demonstrate(plugins: &Plugins) -> Result<(), Failure> {
    let cluster = &Cluster::new(KIND, plugins);
    let [control_plane, worker] = [CONTROL_PLANE, WORKER].map(|node| Family::V4.address(node));
    println!("\nDocker's host, the control plane {control_plane}, the worker {worker}");

    println!("\nThe pods, in the order of a new cluster:");
    let mut pods: Vec<Pod> =
        SYSTEM.iter().map(|name| attach(cluster, CONTROL_PLANE, name, &[])).collect();
    let controller = attach(cluster, CONTROL_PLANE, CONTROLLER, &HOST_PORTS);
    pods.extend(
        [(CONTROL_PLANE, WEB_0), (WORKER, WEB_1)]
            .map(|(node, name)| attach(cluster, node, name, &[])),
    );
    let _web = [WEB_0, WEB_1].map(|pod| TcpEcho::start(&cluster.world, pod, "[::]:80", pod));
    let nginx = cluster.ingress(CONTROLLER, Family::V4);

    by_host_port(cluster)?;
    by_node_port(cluster)?;
    println!("\nThe hostPort, asked from everywhere in the cluster:");
    let of_pods = pods.iter().map(|(_, name, _)| *name);
    for netns in of_pods.chain([CONTROLLER, CONTROL_PLANE, WORKER]) {
        expect(cluster, netns, &at(80), RULE, 200)?;
    }
    expect(cluster, CONTROL_PLANE, "127.0.0.1:80", RULE, 200)?;

    println!("\nThe Ingress rule is deleted:");
    let rules = passed::rules_of_plugins(cluster);
    expect(cluster, HOST, PUBLISHED, "example.com", 404)?;
    nginx.delete_rule();
    expect(cluster, HOST, PUBLISHED, RULE, 404)?;
    if passed::rules_of_plugins(cluster) != rules {
        return Err(Failure::Demo("the CNI plugins' rules have changed".to_owned()));
    }
    println!("  the {} rules of the CNI plugins are as before", rules.len());

    println!("\nThe controller's pod is deleted and created again:");
    drop(nginx);
    let old = controller.2.clone();
    detach(cluster, controller)?;
    println!(
        "  the port does not answer; no lease, rule or connection by its hostPort is left of {old}"
    );
    let controller = attach(cluster, CONTROL_PLANE, "ingress-nginx-2", &HOST_PORTS);
    if controller.2 == old {
        return Err(Failure::Demo(format!("the new pod has the address of the old one, {old}")));
    }
    let nginx = cluster.ingress(controller.1, Family::V4);
    by_host_port(cluster)?;
    cluster.move_service(&controller.2);
    by_node_port(cluster)?;

    println!("\nAll pods are deleted:");
    drop(nginx);
    pods.push(controller);
    pods.into_iter().try_for_each(|pod| detach(cluster, pod))?;
    println!("  no lease, rule or connection by a hostPort is left of them");
    println!("\nAll checks passed.");
    Ok(())
}

/// A port of the control plane.
fn at(port: u16) -> String {
    Family::V4.at(CONTROL_PLANE, port).to_string()
}

fn attach(cluster: &Cluster, node: &'static str, name: &'static str, ports: &[(u16, u16)]) -> Pod {
    let address = cluster.attach(node, name, ports);
    let ports: Vec<String> = ports.iter().map(|(host, _)| format!(", hostPort {host}")).collect();
    println!("  ADD {name} on {node}: {address}{}", ports.concat());
    (node, name, address)
}

/// Detaches a pod, removes its namespace and checks that nothing of it is left on its node.
fn detach(cluster: &Cluster, (node, name, address): Pod) -> Result<(), Failure> {
    let is_controller = name.starts_with(CONTROLLER);
    cluster.detach(node, name, if is_controller { &HOST_PORTS } else { &[] });
    println!("  DEL {name} on {node}");
    if is_controller && answers(&cluster.world, HOST, &at(80)) {
        return Err(Failure::Demo(format!("{} still answers", at(80))));
    }
    let left = cluster.traces(node, &address);
    if left.is_empty() {
        return Ok(());
    }
    Err(Failure::Demo(format!("left of {name}: {}", left.join("; "))))
}

/// Sends the request and checks that the hostPort took it, and no node port.
fn by_host_port(cluster: &Cluster) -> Result<(), Failure> {
    println!("\nhttp://{PUBLISHED}/ on Docker's host, by the hostPort:");
    taken(cluster, PUBLISHED, (1, 0))
}

/// Sends a request to the Service's node port, which only kube-proxy's rules take.
fn by_node_port(cluster: &Cluster) -> Result<(), Failure> {
    let address = at(31290);
    println!("\nhttp://{address}/ on Docker's host, by the Service's node port:");
    taken(cluster, &address, (0, 1))
}

fn taken(cluster: &Cluster, address: &str, expected: (u64, u64)) -> Result<(), Failure> {
    let counted = || (cluster.by_host_port(), cluster.by_node_port());
    let before = counted();
    let passed = Passed::of(cluster, || expect(cluster, HOST, address, RULE, 200))?;
    let after = counted();
    println!("  rules that took the two connections, to nginx and from there to the Service:");
    passed.show();
    let seen = (after.0.saturating_sub(before.0), after.1.saturating_sub(before.1));
    println!("  taken by the hostPort's DNAT: {}, by rules of KUBE-NODEPORTS: {}", seen.0, seen.1);
    if seen == expected {
        return Ok(());
    }
    Err(Failure::Demo(format!("by hostPort and by node port: {seen:?}, not {expected:?}")))
}

/// Requests the page of a host and compares the status.
fn expect(
    cluster: &Cluster,
    netns: &str,
    address: &str,
    host: &str,
    status: u16,
) -> Result<(), Failure> {
    let failure = |why: String| Failure::Demo(format!("http://{address}/ for {host}: {why}"));
    let page = request(&cluster.world, netns, address, host);
    let page = page.map_err(|error| failure(error.to_string()))?;
    let by_nginx = page.status == 404 && page.body.contains("nginx");
    let by_web = page.status == 200 && page.body.starts_with("web-");
    if page.status != status || !(by_nginx || by_web) {
        return Err(failure(format!("{page:?}")));
    }
    let who = page.body.split(' ').next().filter(|_| by_web).unwrap_or("nginx itself");
    println!("  {address} from {netns}, Host: {host}: {status} from {who}");
    Ok(())
}
