//! Containers of nerdctl, in its default network and in one of ours.

use std::thread;

use serde_json::Value;
use tests::{Cmd, Known, NODE, Output, Plugins};

use crate::containerd::{Containerd, IMAGE, SOCKET};
use crate::node::{FULL, Node, PAGE, wait_until};
use crate::stage::Stage;

/// The default network of nerdctl.
const OWN: &str = "conflist/examples/nerdctl.conflist";
/// A web server in the container; by default the image sleeps.
const SERVE: [&str; 5] = ["-f", "-p", "80", "-h", "/www"];

pub(crate) fn cases(stage: &mut Stage) {
    let leaves = Some(Known::new(
        "its bridge leaves the rules that masquerade when CNI_NETNS is empty",
        " -j MASQUERADE\n",
    ));
    let mut both = |name, story| stage.both("nerdctl", name, leaves, OWN, story);
    both("a_container_lives_and_dies", lives_and_dies);
    both("a_container_is_started_again", is_started_again);
    both("containers_come_and_go_together", come_and_go_together);
    stage.both("nerdctl", "a_container_has_two_networks", leaves, FULL, has_two_networks);
}

/// nerdctl and its containerd on a node.
struct Nerdctl<'a> {
    node: &'a Node,
    _containerd: Containerd<'a>,
}

impl<'a> Nerdctl<'a> {
    fn new(node: &'a Node) -> Self {
        let containerd = Containerd::start(node);
        containerd.import("default");
        Self { node, _containerd: containerd }
    }

    fn try_run(&self, words: &[&str]) -> Output {
        let global = [
            "--address",
            SOCKET,
            "--snapshotter=native",
            "--cgroup-manager=cgroupfs",
            "--data-root=/var/lib/nerdctl",
            "--cni-path=/run/plugins/bin",
            "--cni-netconfpath=/run/net.d",
        ];
        let program = tests::tool("nerdctl").unwrap_or_else(|| "nerdctl".into());
        let nerdctl = Cmd::new(program).args(global).args(words).env("HOME", "/run");
        self.node.world.run(NODE, &self.node.enter(nerdctl))
    }

    #[track_caller]
    fn run(&self, words: &[&str]) -> String {
        self.try_run(words).success().stdout
    }

    /// Starts a container that serves a page.
    fn serve(&self, name: &str, options: &[&str]) -> Output {
        let cgroup = format!("--cgroup-parent={}", self.node.cgroup);
        let run = ["run", "--detach", "--pull=never", "--name", name, &cgroup];
        self.try_run(&[&run, options, &["--entrypoint=/bin/httpd", IMAGE], &SERVE].concat())
    }

    fn inspect(&self, name: &str) -> Value {
        serde_json::from_str::<Value>(&self.run(&["inspect", name])).unwrap()[0].take()
    }
}

/// Published ports, ports that nerdctl chooses, stop and start.
fn lives_and_dies(node: &Node) {
    let nerdctl = Nerdctl::new(node);
    let ports = ["-p=8080:80", "-p=127.0.0.1:8443:80", "-p=5353:53/udp"];
    drop(nerdctl.serve("web", &ports).success());
    let outside = |port: u16| node.page("outside", &format!("192.0.2.1:{port}"));
    wait_until("the web server", || outside(8080) == PAGE);
    assert_eq!(node.page(NODE, "127.0.0.1:8080"), PAGE);
    assert_eq!(node.page(NODE, "127.0.0.1:8443"), PAGE);
    assert_eq!(outside(8443), "", "it is for the node itself");
    let networks = nerdctl.inspect("web")["NetworkSettings"].take();
    let address = networks["IPAddress"].as_str().unwrap();
    assert_eq!(node.page(NODE, address), PAGE, "{networks}");

    // It reads portmap's rules to find a free port.
    let ports = ["second", "third"].map(|name| {
        drop(nerdctl.serve(name, &["-p=80"]).success());
        nerdctl.run(&["port", name])
    });
    assert_eq!(ports, ["80/tcp -> 0.0.0.0:49153\n", "80/tcp -> 0.0.0.0:49154\n"]);
    for port in [49153, 49154] {
        wait_until("the web servers", || outside(port) == PAGE);
    }
    nerdctl.run(&["rm", "--force", "second", "third"]);

    nerdctl.run(&["stop", "--time=0", "web"]);
    assert_eq!(outside(8080), "", "the port of a stopped container answers");
    // Only now does it remove the previous network.
    nerdctl.run(&["start", "web"]);
    wait_until("the web server", || outside(8080) == PAGE);
    nerdctl.run(&["rm", "--force", "web"]);
    node.assert_nothing_is_left();
}

/// The container's process ends, and containerd starts it again as configured.
fn is_started_again(node: &Node) {
    let nerdctl = Nerdctl::new(node);
    drop(nerdctl.serve("web", &["-p=8080:80"]).success());
    let page = || node.page("outside", "192.0.2.1:8080");
    wait_until("the web server", || page() == PAGE);
    // With `run --restart`, containerd may start it between its creation and its start.
    nerdctl.run(&["update", "--restart=always", "web"]);
    let process = || nerdctl.inspect("web")["State"]["Pid"].to_string();
    let first = process();
    drop(node.run(&["kill", "-9", &first]).success());
    wait_until("its successor", || ![first.as_str(), "0"].contains(&process().as_str()));
    wait_until("the web server", || page() == PAGE);
    nerdctl.run(&["rm", "--force", "web"]);
    node.assert_nothing_is_left();
}

/// Networks that nerdctl creates, with a requested address, and ours.
fn has_two_networks(node: &Node) {
    let nerdctl = Nerdctl::new(node);
    nerdctl.run(&["network", "create", "--subnet=10.91.0.0/24", "own"]);
    let networks = ["--network=own", "--network=full", "-p=8081:80"];
    drop(nerdctl.serve("two", &networks).success());
    drop(nerdctl.serve("one", &["--network=own", "--ip=10.91.0.50"]).success());
    for address in ["192.0.2.1:8081", "10.91.0.2", "10.91.0.50"] {
        let netns = if address.starts_with("10.") { NODE } else { "outside" };
        wait_until("the web servers", || node.page(netns, address) == PAGE);
    }
    nerdctl.run(&["rm", "--force", "one", "two"]);
    nerdctl.run(&["network", "rm", "own"]);
    node.assert_nothing_is_left();
}

/// Three at the same time.
fn come_and_go_together(node: &Node) {
    let nerdctl = &Nerdctl::new(node);
    if node.plugins == Plugins::go() {
        // Only one of them can create the chain that they share.
        drop(nerdctl.serve("first", &[]).success());
        nerdctl.run(&["rm", "--force", "first"]);
    }
    let names = [1, 2, 3].map(|number| (format!("web-{number}"), format!("-p=909{number}:80")));
    thread::scope(|scope| {
        for (name, port) in &names {
            scope.spawn(|| drop(nerdctl.serve(name, &[port]).success()));
        }
    });
    for port in 9091..=9093 {
        let address = format!("192.0.2.1:{port}");
        wait_until("the web servers", || node.page("outside", &address) == PAGE);
    }
    thread::scope(|scope| {
        for (name, _) in &names {
            scope.spawn(|| nerdctl.run(&["rm", "--force", name]));
        }
    });
    node.assert_nothing_is_left();
}
