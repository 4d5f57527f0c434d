//! Containers of podman with its CNI backend.

use std::thread;

use serde_json::{Value, json};
use tests::{Cmd, Known, NODE, Output, Plugins, workspace};

use crate::node::{FULL, Node, PAGE, ROOTFS, file, wait_until};
use crate::stage::Stage;

/// A web server in the container.
const SERVE: [&str; 8] = ["--rootfs", ROOTFS, "/bin/httpd", "-f", "-p", "80", "-h", "/www"];

pub(crate) fn cases(stage: &mut Stage) {
    stage.both("podman", "a_container_lives_and_dies", None, FULL, a_container_lives_and_dies);
    stage.both("podman", "a_container_has_two_networks", None, FULL, a_container_has_two_networks);
    stage.both("podman", "containers_come_and_go_together", None, FULL, containers_come_and_go);
    stage.both(
        "podman",
        "an_add_fails",
        Some(Known::new(
            "its firewall finds no rules without prevResult, which this DEL has not",
            "-A CNI-FORWARD -s ",
        )),
        FULL,
        an_add_fails,
    );
}

/// podman on a node.
#[derive(Clone, Copy, Debug)]
struct Podman<'a>(&'a Node);

impl<'a> Podman<'a> {
    fn new(node: &'a Node) -> Self {
        for name in ["containers.conf", "storage.conf"] {
            node.write(&format!("/run/{name}"), &std::fs::read(file(name)).unwrap());
        }
        Self(node)
    }

    fn try_run(self, words: &[&str]) -> Output {
        let podman = Cmd::new("podman")
            .args(words)
            .env("CONTAINERS_CONF", "/run/containers.conf")
            .env("CONTAINERS_STORAGE_CONF", "/run/storage.conf")
            .env("HOME", "/run");
        self.0.world.run(NODE, &self.0.enter(podman))
    }

    #[track_caller]
    fn run(self, words: &[&str]) -> String {
        self.try_run(words).success().stdout
    }

    /// Starts a container that serves a page.
    fn serve(self, name: &str, options: &[&str]) -> Output {
        let cgroup = format!("--cgroup-parent={}", self.0.cgroup);
        let run = ["run", "--quiet", "--detach", "--name", name, &cgroup];
        self.try_run(&[&run, options, &SERVE].concat())
    }

    fn inspect(self, name: &str) -> Value {
        serde_json::from_str::<Value>(&self.run(&["inspect", name])).unwrap()[0].take()
    }
}

/// Published ports, and how a container's network is removed and set up again.
fn a_container_lives_and_dies(node: &Node) {
    let podman = Podman::new(node);
    let ports =
        ["--network=full", "--publish=8080:80", "--publish=127.0.0.1:8443:80", "-p=5353:53/udp"];
    drop(podman.serve("web", &ports).success());
    let outside = |port: u16| node.page("outside", &format!("192.0.2.1:{port}"));
    wait_until("the web server", || outside(8080) == PAGE);
    assert_eq!(node.page(NODE, "127.0.0.1:8080"), PAGE);
    assert_eq!(node.page(NODE, "127.0.0.1:8443"), PAGE);
    assert_eq!(outside(8443), "", "it is for the node itself");
    let network = &podman.inspect("web")["NetworkSettings"]["Networks"]["full"];
    let address = network["IPAddress"].as_str().unwrap();
    assert_eq!(node.page(NODE, address), PAGE, "{network}");
    assert_eq!(network["Gateway"], "10.88.0.1", "{network}");

    podman.run(&["network", "reload", "web"]);
    let reloaded = &podman.inspect("web")["NetworkSettings"]["Networks"]["full"];
    assert_eq!(reloaded["MacAddress"], network["MacAddress"], "reload asks for the same");
    wait_until("the web server", || outside(8080) == PAGE);
    podman.run(&["stop", "--time=0", "web"]);
    assert_eq!(outside(8080), "", "the port of a stopped container answers");
    node.assert_nothing_is_left();
    podman.run(&["start", "web"]);
    wait_until("the web server", || outside(8080) == PAGE);
    podman.run(&["rm", "--force", "--time=0", "web"]);
    node.assert_nothing_is_left();
}

/// A network that podman creates, with a requested address and MAC address, and ours.
fn a_container_has_two_networks(node: &Node) {
    let podman = Podman::new(node);
    podman.run(&["network", "create", "--subnet=10.91.0.0/24", "own"]);
    let networks = [
        "--network=own:ip=10.91.0.50,mac=02:00:00:00:00:50",
        "--network=full",
        "--publish=8081:80",
    ];
    drop(podman.serve("two", &networks).success());
    wait_until("the web server", || node.page("outside", "192.0.2.1:8081") == PAGE);
    let networks = podman.inspect("two")["NetworkSettings"]["Networks"].take();
    assert_eq!(networks["own"]["IPAddress"], "10.91.0.50");
    assert_eq!(networks["own"]["MacAddress"], "02:00:00:00:00:50");
    assert_eq!(node.page(NODE, "10.91.0.50"), PAGE);

    podman.run(&["network", "disconnect", "full", "two"]);
    podman.run(&["network", "connect", "full", "two"]);
    // Its first process ends, and podman cleans up by itself.
    podman.run(&["kill", "two"]);
    wait_until("podman to clean up", || node.remains().is_empty());
    podman.run(&["rm", "two"]);
    podman.run(&["network", "rm", "own"]);
    node.assert_nothing_is_left();
}

/// Three at the same time.
fn containers_come_and_go(node: &Node) {
    let podman = Podman::new(node);
    if node.plugins == Plugins::go() {
        // Only one of them can create the chain that they share.
        drop(podman.serve("first", &["--network=full"]).success());
        podman.run(&["rm", "--force", "--time=0", "first"]);
    }
    thread::scope(|scope| {
        for number in 1..=3 {
            scope.spawn(move || {
                let (name, port) = (format!("web-{number}"), format!("-p=909{number}:80"));
                drop(podman.serve(&name, &["--network=full", &port]).success());
            });
        }
    });
    for port in 9091..=9093 {
        let address = format!("192.0.2.1:{port}");
        wait_until("the web servers", || node.page("outside", &address) == PAGE);
    }
    thread::scope(|scope| {
        for number in 1..=3 {
            scope.spawn(move || podman.run(&["rm", "-f", "-t=0", &format!("web-{number}")]));
        }
    });
    node.assert_nothing_is_left();
}

/// The last plugin of the chain fails: podman undoes what the others did.
fn an_add_fails(node: &Node) {
    let conflist = std::fs::read_to_string(workspace().join(FULL)).unwrap();
    let conflist = conflist.replace("10.88.", "10.92.").replace("fd00:88:", "fd00:92:");
    let mut conflist: Value = serde_json::from_str(&conflist).unwrap();
    conflist["name"] = json!("broken");
    conflist["plugins"][0]["bridge"] = json!("cni9");
    conflist["plugins"][4]["conditionsV4"] = json!(["--bogus"]);
    node.write("/run/net.d/broken.conflist", conflist.to_string().as_bytes());
    let podman = Podman::new(node);
    let output = podman.serve("bad", &["--network=broken", "--publish=8084:80"]);
    assert_ne!(output.code(), 0, "{output}");
    assert!(output.stderr.contains("--bogus"), "the error does not say what is wrong\n{output}");
    podman.run(&["rm", "--force", "bad"]);
    node.assert_nothing_is_left();

    drop(podman.serve("good", &["--network=full", "--publish=8084:80"]).success());
    wait_until("the web server", || node.page("outside", "192.0.2.1:8084") == PAGE);
    podman.run(&["rm", "--force", "--time=0", "good"]);
    node.assert_nothing_is_left();
}
