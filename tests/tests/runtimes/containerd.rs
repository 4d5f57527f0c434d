//! Pods of containerd, requested over CRI.

use std::panic::resume_unwind;
use std::thread;

use serde_json::Value;
use tests::{Known, NODE, Plugins, differences};

use crate::cri::{Cri, PodRequest};
use crate::node::{FULL, Node, PAGE, ROOTFS, file, wait_until};
use crate::stage::Stage;

pub(crate) const SOCKET: &str = "/run/containerd.sock";
pub(crate) const IMAGE: &str = "localhost/busybox:1";

/// containerd on a node, with an image imported for CRI.
pub(crate) struct Containerd<'a> {
    node: &'a Node,
    cri: Cri<'a>,
}

pub(crate) fn cases(stage: &mut Stage) {
    let (kind, fixed) = ("conflist/examples/kind.conflist", "tests/runtimes/static.conflist");
    stage.both("containerd", "a_pod_of_kind", None, kind, a_pod_serves);
    stage.both("containerd", "a_pod_with_a_static_address", None, fixed, a_pod_serves);
    stage.both("containerd", "a_pod_lives_and_dies", None, FULL, a_pod_lives_and_dies);
    stage.both("containerd", "pods_come_and_go_together", None, FULL, pods_come_and_go_together);
    stage.both("containerd", "a_udp_flow_is_forgotten", None, FULL, a_udp_flow_is_forgotten);
    stage.both(
        "containerd",
        "an_add_fails",
        Some(Known::new(
            "its firewall finds no rules without prevResult, which this DEL has not",
            "-A CNI-FORWARD -s ",
        )),
        FULL,
        an_add_fails,
    );
    stage.both("containerd", "containerd_is_killed", None, FULL, containerd_is_killed);
    stage.both(
        "containerd",
        "a_namespace_is_lost",
        Some(Known::new(
            "its bridge leaves the rules that masquerade when CNI_NETNS is empty",
            " -j MASQUERADE\n",
        )),
        FULL,
        a_namespace_is_lost,
    );
}

impl<'a> Containerd<'a> {
    pub(crate) fn start(node: &'a Node) -> Self {
        let config = std::fs::read(file("containerd.toml")).unwrap();
        node.write("/run/containerd.toml", &config);
        let containerd = Self { node, cri: Cri::new(node, SOCKET) };
        containerd.launch();
        make_image(node);
        containerd.import("k8s.io");
        containerd
    }

    /// Imports the image into one of containerd's own namespaces.
    pub(crate) fn import(&self, namespace: &str) {
        let ctr = ["ctr", "--address", SOCKET, "--namespace", namespace];
        let import = ["images", "import", "--snapshotter", "native", "/run/image.tar"];
        drop(self.node.run(&[&ctr[..], &import].concat()).success());
    }

    fn launch(&self) {
        self.node.start("containerd", "containerd -c /run/containerd.toml");
        wait_until("containerd", || self.cri.is_up());
    }

    /// The page of a pod's web server, requested from outside through a port of the node.
    fn page(&self, port: u16) -> String {
        self.node.page("outside", &format!("192.0.2.1:{port}"))
    }
}

/// An image in the format of `docker save`: busybox alone, which sleeps.
fn make_image(node: &Node) {
    let script = format!(
        r#"mkdir /run/image; cd /run/image; tar -cf layer.tar -C {ROOTFS} .
        layer=$(sha256sum layer.tar | cut -d' ' -f1)
        echo '{{"architecture": "amd64", "os": "linux",
          "config": {{"Entrypoint": ["/bin/sleep", "1000000"], "Env": ["PATH=/bin"]}},
          "rootfs": {{"type": "layers", "diff_ids": ["sha256:'$layer'"]}}}}' >config.json
        echo '[{{"Config": "config.json", "RepoTags": ["{IMAGE}"], "Layers": ["layer.tar"]}}]' \
          >manifest.json
        tar -cf ../image.tar manifest.json config.json layer.tar"#
    );
    node.world.sh(NODE, &script);
}

/// Two pods with ports, limits and a page; stopped twice, then removed.
fn a_pod_lives_and_dies(node: &Node) {
    let containerd = Containerd::start(node);
    let cri = &containerd.cri;
    let web = PodRequest::new("web")
        .port(8080, 80)
        .udp_port(5353, 53)
        .port_on("127.0.0.1", 8443, 80)
        .annotation("kubernetes.io/ingress-bandwidth", "10M")
        .annotation("kubernetes.io/egress-bandwidth", "20M");
    let id = cri.run_pod(&web).unwrap();
    let plain = cri.run_pod(&PodRequest::new("plain")).unwrap();
    cri.serve(&id, &web, IMAGE);
    wait_until("the web server", || containerd.page(8080) == PAGE);
    assert_eq!(node.page(NODE, "127.0.0.1:8080"), PAGE);
    assert_eq!(node.page(NODE, "127.0.0.1:8443"), PAGE);
    assert_eq!(node.page("outside", "192.0.2.1:8443"), "", "it is for the node itself");
    let limits = node.world.sh(NODE, "tc qdisc show");
    assert_eq!(limits.matches("qdisc tbf").count(), 2, "one queue for each way: {limits}");

    cri.stop_pod(&id);
    assert_eq!(containerd.page(8080), "", "the port of a stopped pod answers");
    cri.stop_pod(&id);
    cri.remove_pod(&id);
    // Removed without being stopped first.
    cri.remove_pod(&plain);
    node.assert_nothing_is_left();

    // What stays after the first pods is for all later ones: these do not change it.
    let state = |node: &Node| -> Value { node.world.snapshot() };
    let before = state(node);
    let id = cri.run_pod(&web).unwrap();
    cri.remove_pod(&id);
    let found: Vec<_> =
        differences(&before, &state(node)).iter().map(ToString::to_string).collect();
    assert!(found.iter().all(|line| line.contains("last_reserved_ip")), "{}", found.join("\n"));
}

/// A pod of a network serves a page and is removed.
fn a_pod_serves(node: &Node) {
    let containerd = Containerd::start(node);
    let pod = PodRequest::new("web").port(8080, 80);
    let id = containerd.cri.run_pod(&pod).unwrap();
    containerd.cri.serve(&id, &pod, IMAGE);
    wait_until("the web server", || containerd.page(8080) == PAGE);
    containerd.cri.stop_pod(&id);
    containerd.cri.remove_pod(&id);
    node.assert_nothing_is_left();
}

/// A datagram was sent to the pod: the node tracks the flow for half a minute.
fn a_udp_flow_is_forgotten(node: &Node) {
    let containerd = Containerd::start(node);
    let id = containerd.cri.run_pod(&PodRequest::new("dns").udp_port(5353, 53)).unwrap();
    node.world.sh("outside", "bash -c 'echo >/dev/udp/192.0.2.1/5353'");
    let flows = node.world.conntrack();
    assert!(flows.iter().any(|flow| flow.contains("dport=5353")), "no flow: {flows:?}");
    containerd.cri.remove_pod(&id);
    node.assert_nothing_is_left();
}

/// Three pods are created and removed at the same time.
fn pods_come_and_go_together(node: &Node) {
    let containerd = Containerd::start(node);
    let cri = &containerd.cri;
    if node.plugins == Plugins::go() {
        // Only one of them can create the chain that they share.
        cri.remove_pod(&cri.run_pod(&PodRequest::new("first")).unwrap());
    }
    let ids: Vec<String> = thread::scope(|scope| {
        let start = |number: u16| {
            let pod = PodRequest::new(&format!("pod-{number}")).port(9090 + number, 80);
            scope.spawn(move || {
                let id = cri.run_pod(&pod).unwrap();
                cri.serve(&id, &pod, IMAGE);
                id
            })
        };
        let threads: Vec<_> = (1..=3).map(start).collect();
        threads.into_iter().map(|t| t.join().unwrap_or_else(|panic| resume_unwind(panic))).collect()
    });
    for port in 9091..=9093 {
        wait_until("the web servers", || containerd.page(port) == PAGE);
    }
    thread::scope(|scope| {
        for id in &ids {
            scope.spawn(move || {
                cri.stop_pod(id);
                cri.remove_pod(id);
            });
        }
    });
    node.assert_nothing_is_left();
}

/// The last plugin of the chain fails: containerd undoes what the others did.
fn an_add_fails(node: &Node) {
    let containerd = Containerd::start(node);
    let wrong = PodRequest::new("wrong").port_on("bogus", 8082, 80);
    let error = containerd.cri.run_pod(&wrong).unwrap_err();
    assert!(error.contains("bogus"), "the error does not say what is wrong: {error}");
    node.assert_nothing_is_left();
    // Nothing is left on the node.
    let pod = PodRequest::new("right").port(8082, 80);
    let id = containerd.cri.run_pod(&pod).unwrap();
    containerd.cri.serve(&id, &pod, IMAGE);
    wait_until("the web server", || containerd.page(8082) == PAGE);
    containerd.cri.remove_pod(&id);
    node.assert_nothing_is_left();
}

/// containerd is killed while a pod runs, and is started again.
fn containerd_is_killed(node: &Node) {
    let containerd = Containerd::start(node);
    let pod = PodRequest::new("keep").port(8083, 80);
    let id = containerd.cri.run_pod(&pod).unwrap();
    containerd.cri.serve(&id, &pod, IMAGE);
    wait_until("the web server", || containerd.page(8083) == PAGE);
    drop(node.run(&["sh", "-c", "kill -9 $(cat /run/containerd.pid)"]).success());
    wait_until("containerd's end", || !containerd.cri.is_up());
    assert_eq!(containerd.page(8083), PAGE, "the pod needs no containerd");

    containerd.launch();
    assert_eq!(containerd.page(8083), PAGE);
    containerd.cri.stop_pod(&id);
    containerd.cri.remove_pod(&id);
    node.assert_nothing_is_left();
}

/// A pod's namespace is removed before its DEL, as by a reboot.
fn a_namespace_is_lost(node: &Node) {
    let containerd = Containerd::start(node);
    let id = containerd.cri.run_pod(&PodRequest::new("lost").port(8081, 80)).unwrap();
    let script = "umount /run/netns/cni-* && rm /run/netns/cni-*";
    drop(node.run(&["sh", "-ec", script]).success());
    containerd.cri.stop_pod(&id);
    containerd.cri.remove_pod(&id);
    node.assert_nothing_is_left();
}
