//! How DEL and GC take elements of our tables away, heard by `nft monitor`. Needs root.
//!
//! Whoever deletes something waits for a grace period, and everybody with him who closes a netlink
//! socket then; elements that expire keep nobody waiting.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

mod common;

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use common::{config, names, of, portmap, tcp};
use serde_json::json;
use testbed::routed::{on_a_node, pod};
use testbed::sh;

/// What changes in the tables of this namespace.
struct Monitor {
    child: Child,
    lines: Receiver<String>,
}

impl Monitor {
    fn start() -> Self {
        let mut command = Command::new("nft");
        let mut child = command.arg("monitor").stdout(Stdio::piped()).spawn().unwrap();
        let (sender, lines) = channel();
        let out: BufReader<ChildStdout> = BufReader::new(child.stdout.take().unwrap());
        thread::spawn(move || out.lines().map_while(Result::ok).try_for_each(|l| sender.send(l)));
        // It does not say when it begins to listen.
        while lines.recv_timeout(Duration::from_millis(20)).is_err() {
            sh("nft add table ip anybody; nft delete table ip anybody");
        }
        Self { child, lines }
    }

    /// All that was said of elements until now.
    fn elements(mut self) -> Vec<String> {
        sh("nft add table ip the_end");
        let until_end = self.lines.iter().take_while(|line| !line.contains("the_end"));
        let elements = until_end.filter(|line| line.contains(" element ")).collect();
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        elements
    }
}

/// Makes elements of both families for a pod, and hears what becomes of them.
fn heard(remove: impl FnOnce()) -> Vec<String> {
    let pod = pod();
    let config = of("nftables", config(&json!([tcp(8080, 80)])));
    portmap("ADD", "pod-a", &pod.path(), &config).unwrap();
    let monitor = Monitor::start();
    remove();
    let elements = monitor.elements();
    assert!(!sh("nft list ruleset").contains("id: pod-a"), "something is left");
    elements
}

fn del() {
    portmap("DEL", "pod-a", "", &names()).unwrap();
}

fn gc() {
    let mut gc = names();
    gc["cni.dev/valid-attachments"] = json!([]);
    portmap("GC", "", "", &gc).unwrap();
}

#[test]
fn elements_are_not_deleted_but_expire() {
    for remove in [del, gc] {
        on_a_node(move || {
            let heard = heard(remove);
            let of_port = |family: &str| {
                let start = format!("element {family} podwire_hostport host_ports {{ tcp . 8080 ");
                heard.iter().filter(|line| line.contains(&start)).count()
            };
            assert!(heard.iter().all(|line| line.contains(" expires ")), "{heard:#?}");
            assert_eq!((of_port("ip"), of_port("ip6")), (1, 1), "{heard:#?}");
        });
    }
}

/// Stands for kernels that cannot do it: there, elements do not get a time to live later on.
#[test]
fn elements_that_cannot_expire_are_deleted() {
    for remove in [del, gc] {
        on_a_node(move || {
            sh("nft -f - <<E
                table ip podwire_hostport {
                    map host_ports { type inet_proto . inet_service : ipv4_addr . inet_service; }
                }\nE");
            let heard = heard(remove);
            let deleted = "delete element ip podwire_hostport host_ports { tcp . 8080 ";
            assert!(heard.iter().any(|line| line.starts_with(deleted)), "{heard:#?}");
        });
    }
}
