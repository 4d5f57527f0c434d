//! The calls of CRI-O, which uses ocicni.
//!
//! When it starts and when a configuration changes: VERSION of each plugin, then GC with the sandboxes
//! that it knows. For a sandbox: STATUS (requested by the kubelet), ADD, CHECK right after it, DEL. It
//! brings `lo` up itself. Plugins get STATUS and GC in networks of version 1.1.0.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use tests::{Known, TcpEcho, fetch, netns_path};

use crate::libcni::{Attachment, NEWEST, Network, conflist};
use crate::node::Node;
use crate::stage::Stage;

const CONFLIST: &str = "conflist/examples/crio.conflist";

pub(crate) fn cases(stage: &mut Stage) {
    stage.both("CRI-O", "a_pod_lives_and_dies", None, CONFLIST, as_installed);
    stage.both("CRI-O", "a_pod_lives_and_dies_in_1_1_0", None, CONFLIST, at_its_newest);
    let leaves = Some(Known::new(
        "its bridge collects neither addresses nor the rules that masquerade",
        " -j MASQUERADE\n",
    ));
    stage.both("CRI-O", "pods_are_gone_at_its_start", leaves, CONFLIST, pods_are_gone);
}

/// CRI-O's own network with a port plugin and limits, in the latest version.
fn newest() -> Value {
    let mut conflist = conflist(CONFLIST);
    conflist["cniVersion"] = json!(NEWEST);
    let plugins = conflist["plugins"].as_array_mut().unwrap();
    plugins.push(json!({"type": "bandwidth", "capabilities": {"bandwidth": true}}));
    plugins.push(json!({"type": "portmap", "capabilities": {"portMappings": true}}));
    conflist
}

fn pod(node: &Node, name: &str) -> Attachment {
    node.world.add_netns(name);
    let id = format!("{:064x}", name.bytes().fold(0_u64, |id, byte| id << 8 | u64::from(byte)));
    let args = format!(
        "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME={name};\
         K8S_POD_INFRA_CONTAINER_ID={id};K8S_POD_UID=uid-{name}"
    );
    let ports = r#"[{"hostPort":8080,"containerPort":80,"protocol":"tcp","hostIP":""}]"#;
    // A Go map, so it is sorted.
    let unlimited = u32::MAX;
    let bandwidth = json!({
        "ingressRate": 10_000_000, "ingressBurst": unlimited,
        "egressRate": 20_000_000, "egressBurst": unlimited,
    });
    let capabilities = BTreeMap::from([
        ("bandwidth", bandwidth.to_string()),
        ("cgroupPath", r#""/kubepods/burstable/pod1""#.to_owned()),
        ("io.kubernetes.cri.pod-annotations", r#"{"who":"asks"}"#.to_owned()),
        ("portMappings", ports.to_owned()),
    ]);
    Attachment { id, netns: netns_path(name), ifname: "eth0", args, capabilities }
}

fn as_installed(node: &Node) {
    lives_and_dies(node, &conflist(CONFLIST));
}

fn at_its_newest(node: &Node) {
    lives_and_dies(node, &newest());
}

fn lives_and_dies(node: &Node, conflist: &Value) {
    let mut network = Network::new(node, conflist);
    network.validate();
    network.gc(&[]);
    network.status();
    let (web, other) = (pod(node, "web"), pod(node, "other"));
    let other = Attachment { capabilities: BTreeMap::new(), ..other };
    for pod in [&web, &other] {
        network.add(pod);
        network.check(pod);
    }
    if conflist["cniVersion"] == NEWEST {
        let _web = TcpEcho::start(&node.world, "web", "0.0.0.0:80", "page");
        assert_eq!(fetch(&node.world, "outside", "192.0.2.1:8080").unwrap(), "page 192.0.2.2");
    }
    network.status();
    network.check(&web);
    network.del(&web);
    // StopPodSandbox again; the namespace does not exist any more.
    node.world.remove_netns("web");
    network.del(&Attachment { netns: String::new(), ..web });
    network.check(&other);
    network.del(&other);
    node.world.remove_netns("other");
    network.gc(&[]);
    node.assert_nothing_is_left();
}

/// Pods end while CRI-O is stopped; when it starts it has their results, or not even these.
fn pods_are_gone(node: &Node) {
    let mut network = Network::new(node, &newest());
    network.validate();
    let [kept, known, unknown] = ["kept", "known", "unknown"].map(|name| pod(node, name));
    let known = Attachment { capabilities: BTreeMap::new(), ..known };
    let unknown = Attachment { capabilities: BTreeMap::new(), ..unknown };
    for pod in [&kept, &known, &unknown] {
        network.add(pod);
    }
    network.forget(&unknown);
    node.world.remove_netns("known");
    node.world.remove_netns("unknown");
    network.gc(&[&kept]);
    network.check(&kept);
    let _web = TcpEcho::start(&node.world, "kept", "0.0.0.0:80", "page");
    assert_eq!(fetch(&node.world, "outside", "192.0.2.1:8080").unwrap(), "page 192.0.2.2");
    network.del(&kept);
    node.world.remove_netns("kept");
    node.assert_nothing_is_left();
}
