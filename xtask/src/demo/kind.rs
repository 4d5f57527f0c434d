//! `cargo xtask demo --kind`: the case for which this project was started.
//!
//! On a kind cluster, a request to port 8080 of Docker's host reaches the ingress controller by its
//! hostPort; kube-proxy's rules do not take it:
//!
//! ```text
//! 127.0.0.1:8080 → Docker → node:80 → CNI-DN-… → 10.244.0.5:80 nginx → Service → backend
//! ```
//!
//! kube-proxy's rules and nginx's files are those of `tests/kind`.

mod cluster;
mod docker;
mod ingress;
pub(super) mod programs;
mod way;

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::machine::{Machine, Workplace};
use super::{DemoError, page};
use crate::workspace::root;
use cluster::{Cluster, Pod};
use ingress::Ingress;
use way::Way;

/// The ports of the node that lead to the controller: hostPort and containerPort.
const HOST_PORTS: &[(u16, u16)] = &[(80, 80), (443, 443)];
/// The Service of the controller, port 80.
const NODE_PORT: u16 = 31290;
/// The Service of the backend.
const SERVICE: Ipv4Addr = Ipv4Addr::new(10, 96, 200, 40);
const PUBLISHED: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8080);
/// The host in the Ingress rule.
const HOST: &str = "localhost";

pub(super) fn demonstrate(workplace: &Workplace) -> Result<(), DemoError> {
    let cluster = Cluster::new(workplace)?;
    let (control_plane, worker) = (&cluster.control_plane, &cluster.worker);
    println!(
        "\nDocker's host, the control plane {}, the worker {}",
        control_plane.address, worker.address
    );

    println!("\nThe pods, in the order of a fresh cluster:");
    let mut pods = Vec::new();
    for name in ["coredns-0", "coredns-1", "local-path"] {
        pods.push((control_plane, cluster.attach(control_plane, name, &[])?));
    }
    let controller = cluster.attach(control_plane, "ingress-nginx", HOST_PORTS)?;
    for (node, name) in [(control_plane, "web-0"), (worker, "web-1")] {
        let web = cluster.attach(node, name, &[])?;
        page::serve(&web.machine, 80, name)?;
        pods.push((node, web));
    }
    let nginx = ingress(&cluster, &controller, workplace)?;

    by_host_port(&cluster, &controller)?;
    by_node_port(&cluster, &controller)?;
    from_pods(&cluster, &controller, pods.iter().map(|(_, pod)| pod))?;

    println!("\nThe Ingress rule is deleted:");
    let rules = way::rules_of_plugins(&control_plane.machine)?;
    expect(&cluster.host, PUBLISHED, "example.com", 404)?;
    nginx.delete_rule()?;
    expect(&cluster.host, PUBLISHED, HOST, 404)?;
    if way::rules_of_plugins(&control_plane.machine)? != rules {
        return Err(DemoError::Evidence("the CNI plugins' rules have changed".to_owned()));
    }
    println!("  the {} rules of the CNI plugins are as before", rules.len());

    println!("\nThe controller's pod is deleted and created again:");
    drop(nginx);
    let old = controller.address;
    cluster.detach(control_plane, controller)?;
    page::no_answer(&cluster.host, control_plane.at(80))?;
    println!(
        "  the port does not answer; no link, lease, rule or connection by its hostPort is left of {old}"
    );
    let controller = cluster.attach(control_plane, "ingress-nginx-2", HOST_PORTS)?;
    if controller.address == old {
        return Err(DemoError::Evidence(format!(
            "the new pod has the address of the old one, {old}"
        )));
    }
    let nginx = ingress(&cluster, &controller, workplace)?;
    by_host_port(&cluster, &controller)?;
    cluster.move_service(controller.address)?;
    by_node_port(&cluster, &controller)?;

    println!("\nAll pods are deleted:");
    drop(nginx);
    pods.push((control_plane, controller));
    for (node, pod) in pods {
        cluster.detach(node, pod)?;
    }
    page::no_answer(&cluster.host, control_plane.at(80))?;
    println!("  no link, lease, rule or connection by a hostPort is left of them");
    println!("\nAll checks passed.");
    Ok(())
}

/// Sends the request and checks that the hostPort took it, and no node port.
fn by_host_port(cluster: &Cluster<'_>, controller: &Pod) -> Result<(), DemoError> {
    println!("\nhttp://{PUBLISHED}/ on Docker's host, by the hostPort:");
    let node = &cluster.control_plane.machine;
    let ((), way) = Way::of(node, || expect(&cluster.host, PUBLISHED, HOST, 200))?;
    passed(&way, controller, (1, 0))
}

/// Sends a request that only kube-proxy's rules take.
fn by_node_port(cluster: &Cluster<'_>, controller: &Pod) -> Result<(), DemoError> {
    let address = cluster.control_plane.at(NODE_PORT);
    println!("\nhttp://{address}/ on Docker's host, by the Service's node port:");
    let node = &cluster.control_plane.machine;
    let ((), way) = Way::of(node, || expect(&cluster.host, address, HOST, 200))?;
    passed(&way, controller, (0, 1))
}

fn passed(way: &Way, controller: &Pod, expected: (u64, u64)) -> Result<(), DemoError> {
    println!("  rules that took the two connections, to nginx and from there to the Service:");
    way.show();
    let seen = (way.by_host_port(controller.address), way.by_node_port());
    println!("  taken by the hostPort's DNAT: {}, by rules of KUBE-NODEPORTS: {}", seen.0, seen.1);
    if seen == expected {
        return Ok(());
    }
    Err(DemoError::Evidence(format!("by hostPort and by node port: {seen:?}, not {expected:?}")))
}

/// Requests the hostPort from pods of both nodes, from the controller's pod and from the nodes.
fn from_pods<'a>(
    cluster: &Cluster<'_>,
    controller: &Pod,
    pods: impl Iterator<Item = &'a Pod>,
) -> Result<(), DemoError> {
    let (control_plane, worker) = (&cluster.control_plane, &cluster.worker);
    let host_port = control_plane.at(80);
    println!("\nThe hostPort, asked from everywhere in the cluster:");
    expect(&controller.machine, host_port, HOST, 200)?;
    for pod in pods {
        expect(&pod.machine, host_port, HOST, 200)?;
    }
    expect(&control_plane.machine, (Ipv4Addr::LOCALHOST, 80).into(), HOST, 200)?;
    expect(&worker.machine, host_port, HOST, 200)
}

/// Requests the page of a host and compares the status.
fn expect(from: &Machine, at: SocketAddr, host: &str, status: u16) -> Result<(), DemoError> {
    let page = page::get(from, at, host, "ask nginx")?;
    let by_nginx = page.status == 404 && page.text.contains("nginx");
    let by_web = page.status == 200 && page.text.starts_with("web-");
    if page.status != status || !(by_nginx || by_web) {
        return Err(DemoError::Page(format!("http://{at}/ for {host}"), format!("{page:?}")));
    }
    let who = if by_web { page.text } else { "nginx itself".to_owned() };
    println!("  {at} from {}, Host: {host}: {status} from {who}", from.name());
    Ok(())
}

fn ingress(cluster: &Cluster<'_>, pod: &Pod, workplace: &Workplace) -> Result<Ingress, DemoError> {
    let seen_from = (&cluster.control_plane.machine, (pod.address, 80).into());
    Ingress::start(&pod.machine, workplace, (SERVICE, 80).into(), seen_from)
}

/// A file of `tests/kind`.
fn data(name: &str) -> Result<String, DemoError> {
    let path = root().join("tests/kind").join(name);
    fs::read_to_string(&path).map_err(|error| DemoError::File("read", path, error))
}
