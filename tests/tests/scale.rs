//! A node with many pods that have a hostPort each, many of which are attached and detached at once.
//!
//! Not run with the Go plugins: they run `iptables` dozens of times for each pod, which takes longer
//! with each existing pod.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::sync::Mutex;
use std::thread;

use serde_json::{Value, json};
use tests::configs::{POD_SUBNET6, PORTMAP_BACKENDS, kind, port};
use tests::{Chain, NODE, Needs, Plugins, Pod, Suite, TcpEcho, World, differences, fetch};

const ALL: [&str; 3] = ["host-local", "portmap", "ptp"];
const PODS: u16 = 1000;
const AT_ONCE: usize = 16;
const FIRST_PORT: u16 = 20_000;

fn main() -> ExitCode {
    let mut suite = Suite::new();
    for &backend in PORTMAP_BACKENDS {
        let needs = Needs::plugins(&Plugins::ours(), &ALL).tools(&["iptables"]);
        suite.case(&format!("{backend}::a_thousand_pods"), &needs, move || {
            a_thousand_pods(backend);
        });
    }
    suite.run()
}

fn a_thousand_pods(backend: &str) {
    let world = World::new(&["outside", "pod"]);
    world.connect((NODE, "uplink", &["192.0.2.1/24"]), ("outside", "eth0", &["192.0.2.2/24"]));
    // What stays after any pod, such as the shared chains.
    let network = chain(&world, backend, FIRST_PORT);
    network.add(&Pod::new("pod"));
    network.del(&Pod::new("pod"));
    let expected = state(&world);

    let pods: Vec<(Pod, Chain<'_>)> = (0..PODS)
        .map(|n| (Pod::new(&format!("pod-{n}")), chain(&world, backend, FIRST_PORT + n)))
        .collect();
    each(&pods, |(pod, _)| world.add_netns(&pod.id));
    let addresses = Mutex::new(BTreeSet::new());
    each(&pods, |(pod, chain)| {
        let result = chain.add(pod);
        for ip in result["ips"].as_array().unwrap() {
            let address = ip["address"].as_str().unwrap().to_owned();
            let is_new = addresses.lock().unwrap().insert(address.clone());
            assert!(is_new, "{address} was given out twice");
        }
    });
    assert_eq!(addresses.into_inner().unwrap().len(), usize::from(PODS) * 2);

    for (n, (pod, chain)) in pods.iter().enumerate().step_by(pods.len() / 7) {
        chain.check(pod);
        let _web = TcpEcho::start(&world, &pod.id, "[::]:80", &pod.id);
        let address = format!("192.0.2.1:{}", usize::from(FIRST_PORT) + n);
        assert_eq!(fetch(&world, "outside", &address).unwrap(), format!("{} 192.0.2.2", pod.id));
    }

    // One GC removes half of them, and a DEL each the others.
    let (kept, _) = pods.split_at(pods.len() / 2);
    let valid: Vec<&Pod> = kept.iter().map(|(pod, _)| pod).collect();
    network.gc(&valid);
    for (pod, chain) in [&kept[0], &kept[kept.len() - 1]] {
        chain.check(pod);
    }
    each(kept, |(pod, chain)| chain.del(pod));
    let found = differences(&expected, &state(&world));
    let found: Vec<_> = found.iter().map(ToString::to_string).collect();
    assert!(found.is_empty(), "{}", found.join("\n"));
}

/// kind's chain with enough addresses.
fn chain<'a>(world: &'a World, backend: &str, host_port: u16) -> Chain<'a> {
    let configs = kind(&["10.88.0.0/16", POD_SUBNET6], backend);
    Chain::new(world, &Plugins::ours(), &configs)
        .network("testnet", "1.1.0")
        .ports(&json!([port("tcp", host_port, 80)]))
}

/// Runs `work` for each pod, sixteen at a time.
fn each<T: Sync>(pods: &[T], work: impl Fn(&T) + Sync) {
    let queue = Mutex::new(pods.iter());
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let Some(pod) = queue.lock().unwrap().next() else { return };
                    work(pod);
                }
            });
        }
    });
}

/// The state of the node. The address given out last is the only trace that a pod may leave.
fn state(world: &World) -> Value {
    let mut state = world.snapshot();
    let files = state["files"].as_object_mut().unwrap();
    files.retain(|path, _| !path.contains("/last_reserved_ip."));
    state
}
