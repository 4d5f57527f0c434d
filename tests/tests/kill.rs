//! Plugins that are killed at each of their system calls in turn.
//!
//! The plugin is killed during ADD, the pod's namespace vanishes, and a runtime that has lost its
//! state calls DEL with an empty `CNI_NETNS`. Then the next pod is attached and detached: the node
//! must be as if that pod had been the only one. After a killed GC, another GC must do the rest; both
//! are called with a valid neighbour, which must keep everything.
//!
//! Not run with the Go plugins: they make thousands of system calls from many threads in no fixed
//! order, and leave rules behind after most kills.

#![allow(clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::panic::catch_unwind;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Mutex;
use std::thread;

use serde_json::{Value, json};
use tests::configs::{
    MASQUERADE_BACKENDS, POD_SUBNET, POD_SUBNET6, PORTMAP_BACKENDS, bandwidth, bridge, firewall,
    host_local, port, portmap, portmap_by, ptp, tuning, with,
};
use tests::{
    Chain, NODE, Needs, Plugins, Pod, Suite, World, differences, panic_message, workspace,
};

/// The IPAM plugins, called by another plugin.
const IPAM: [&str; 2] = ["host-local", "static"];
/// The plugins that keep nothing for GC to remove.
const FORGETFUL: [&str; 2] = ["loopback", "static"];
/// The runtimes whose chains contain firewall and tuning.
const RUNTIMES: [&str; 2] = ["nerdctl", "podman"];
/// The directory of the plugins in a world: links, and a script for the one that is killed.
const BIN: &str = "/run/bin";
/// The file into which strace writes.
const TRACE: &str = "/run/trace";
/// The sign that the kernel restarts a call any number of times: the write that switches forwarding
/// on, while another process holds the lock of all links.
const MADE_AGAIN: &str = "ERESTARTNOINTR";
/// Calls that change nothing outside the process, when the kernel has carried out the request before
/// its answer is read. To be killed at one of them is the same as to be killed at the next call that
/// is not among them.
const HARMLESS: [&str; 31] = [
    "access",
    "arch_prctl",
    "brk",
    "clock_nanosleep",
    "connect",
    "fstat",
    "fstatfs",
    "getpid",
    "getrandom",
    "gettid",
    "lseek",
    "madvise",
    "mmap",
    "mprotect",
    "munmap",
    "newfstatat",
    "poll",
    "pread64",
    "prlimit64",
    "recvfrom",
    "rseq",
    "rt_sigaction",
    "rt_sigprocmask",
    "sched_getaffinity",
    "set_robust_list",
    "set_tid_address",
    "setns",
    "setsockopt",
    "sigaltstack",
    "socket",
    "statx",
];
/// A kill mostly waits: for grace periods, and until the kernel has removed links.
const AT_ONCE: usize = 4;

fn main() -> ExitCode {
    let mut suite = Suite::new();
    let needs = Needs::plugins(&Plugins::ours(), &Plugins::ALL).tools(&["strace", "iptables"]);
    for victim in victims() {
        for command in ["ADD", "DEL", "GC"] {
            let Victim { plugin, by } = victim;
            if command != "GC" || !FORGETFUL.contains(&plugin) {
                suite.case(&format!("{plugin}_{by}_dies_in_{command}"), &needs, move || {
                    dies(victim, command);
                });
            }
        }
    }
    suite.run()
}

/// The plugin that is killed.
#[derive(Clone, Copy, Debug)]
struct Victim {
    plugin: &'static str,
    /// The backend of its rules, the plugin that calls it, or the runtime whose chain it is in.
    by: &'static str,
}

/// Each plugin with each backend; bridge uses the same code as ptp for masquerading.
fn victims() -> Vec<Victim> {
    let with = |plugin| move |&by: &&'static str| Victim { plugin, by };
    let mut victims: Vec<_> =
        ["bandwidth", "bridge", "loopback"].iter().map(|it| with(*it)(&"iptables")).collect();
    victims.extend(RUNTIMES.iter().map(with("firewall")));
    victims.push(with("firewall")(&"nftables"));
    victims.extend(RUNTIMES.iter().map(with("tuning")));
    victims.extend(["bridge", "ptp"].iter().map(with("host-local")));
    victims.push(with("static")(&"bridge"));
    victims.extend(PORTMAP_BACKENDS.iter().map(with("portmap")));
    victims.extend(MASQUERADE_BACKENDS.iter().map(with("ptp")));
    victims
}

/// A system call: the `count`th one named `name`.
#[derive(Clone, Debug)]
struct Point {
    name: String,
    count: usize,
}

fn dies(victim: Victim, command: &str) {
    // The shortest of three runs: the number of calls differs when a plugin waits for elements to
    // expire.
    let runs = (0..3).map(|_| points(victim, command));
    let points = runs.min_by_key(Vec::len).unwrap_or_default();
    assert!(points.len() > 5, "{victim:?} makes hardly any system call: {points:?}");
    let expected = undisturbed(victim, command);
    let (queue, kills, wrecks) = (Mutex::new(points.iter()), Mutex::new(0), Mutex::default());
    let work = || {
        loop {
            let Some(point) = queue.lock().unwrap().next() else { return };
            let outcome = catch_unwind(|| disturbed(victim, command, point));
            let trouble = match outcome {
                Ok((was_killed, found)) => {
                    *kills.lock().unwrap() += usize::from(was_killed);
                    let found = differences(&expected, &found);
                    found.iter().map(ToString::to_string).collect()
                }
                Err(panic) => vec![panic_message(panic.as_ref())],
            };
            if !trouble.is_empty() {
                let wreck = format!("{} {}:\n{}", point.name, point.count, trouble.join("\n"));
                Mutex::<Vec<_>>::lock(&wrecks).unwrap().push(wreck);
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(work);
        }
    });
    let wrecks = wrecks.into_inner().unwrap();
    assert!(wrecks.is_empty(), "{} kills did harm: at {}", wrecks.len(), wrecks.join("\nat "));
    // The number of calls differs by one or two between runs, because a message may come in two parts.
    // A kill comes early if calls before it are restarted.
    let kills = *kills.lock().unwrap();
    assert!(kills * 10 >= points.len() * 8, "only {kills} of {} kills took place", points.len());
}

/// The system calls of a command that is not disturbed.
fn points(victim: Victim, command: &str) -> Vec<Point> {
    let node = Node::new(victim, command);
    if command != "ADD" {
        node.chain().add(&node.pod);
    }
    node.place(Some("strace -qq -o /run/trace"));
    match command {
        "ADD" => drop(node.chain().add(&node.pod)),
        "GC" => node.chain().gc(&[&node.neighbour]),
        _ => node.chain().del_by_names(&node.pod),
    }
    let trace = node.world.files(|| fs::read_to_string(TRACE).unwrap());
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    let mut points = Vec::new();
    let calls = trace.lines().filter(|line| !line.contains(MADE_AGAIN));
    for (name, _) in calls.filter_map(|line| line.split_once('(')) {
        let count = counts.entry(name).or_default();
        *count += 1;
        // The first execve is the one of strace.
        if !HARMLESS.contains(&name) && name != "execve" {
            points.push(Point { name: name.to_owned(), count: *count });
        }
    }
    points
}

/// The node after a pod that was not disturbed.
fn undisturbed(victim: Victim, command: &str) -> Value {
    let node = Node::new(victim, command);
    node.next_pod();
    node.state()
}

/// The node after a kill, the recovery and the next pod; and whether the kill took place.
fn disturbed(victim: Victim, command: &str, point: &Point) -> (bool, Value) {
    let node = Node::new(victim, command);
    if command != "ADD" {
        node.chain().add(&node.pod);
    }
    let Point { name, count } = point;
    node.place(Some(&format!(
        "strace -qq -o {TRACE} -e trace={name} -e inject={name}:signal=SIGKILL:when={count}"
    )));
    let failure = match command {
        "ADD" => node.chain().try_add(&node.pod).err().map(|output| *output),
        "GC" => node.chain().try_gc(&[&node.neighbour]).err().map(|mut outputs| outputs.remove(0)),
        _ => node.chain().try_del(&node.pod).err().map(|output| *output),
    };
    // The plugin that delegated to the killed one is alive and reports an error.
    let was_killed = failure.is_some_and(|output| {
        output.status.signal() == Some(9) || (IPAM.contains(&victim.plugin) && output.code() == 1)
    });
    node.place(None);
    if command == "GC" {
        // The namespace of the pod stays, so that GC and not the kernel removes everything.
        node.chain().gc(&[&node.neighbour]);
    } else {
        node.world.remove_netns("pod-a");
        node.chain().del_by_names(&node.pod.without_netns());
    }
    node.next_pod();
    (was_killed, node.state())
}

/// A node with our plugins, one of them perhaps under strace.
struct Node {
    world: World,
    victim: Victim,
    pod: Pod,
    next: Pod,
    neighbour: Pod,
}

impl Node {
    /// For GC, the neighbour is attached before everything else.
    fn new(victim: Victim, command: &str) -> Self {
        let ifname = if victim.plugin == "loopback" { "lo" } else { "eth0" };
        let names = ["pod-a", "pod-b", "neighbour"];
        let [pod, next, neighbour] = names.map(|name| Pod::new(name).ifname(ifname));
        let node = Self { world: World::new(&names), victim, pod, next, neighbour };
        node.place(None);
        if command == "GC" {
            let ports = json!([port("tcp", 8081, 80), port("udp", 5354, 53)]);
            node.chain().ports(&ports).add(&node.neighbour);
        }
        node
    }

    /// Puts the plugins in their directory, the killed one as a script that runs it after `wrapper`.
    ///
    /// A shell writes the script: a script that this process writes could not be run while a child of
    /// another thread, which has not called exec yet, has the open file.
    fn place(&self, wrapper: Option<&str>) {
        let line = |name: &str| {
            let real = Plugins::ours().path(name);
            let real = real.display();
            match wrapper {
                Some(words) if name == self.victim.plugin => {
                    format!("printf '#!/bin/sh\\nexec {words} {real}\\n' > {name}; chmod +x {name}")
                }
                _ => format!("ln -s '{real}' {name}"),
            }
        };
        let lines = Plugins::ALL.map(line).join("\n");
        self.world.sh(NODE, &format!("rm -rf {BIN}; mkdir {BIN}; cd {BIN}\n{lines}"));
    }

    fn chain(&self) -> Chain<'_> {
        let plugins = Plugins { label: "ours", dir: PathBuf::from(BIN) };
        let Victim { plugin, by } = self.victim;
        let subnets = [POD_SUBNET, POD_SUBNET6];
        let masquerading = json!({"ipMasqBackend": by});
        let configs = match plugin {
            "loopback" => vec![json!({"type": "loopback"})],
            "ptp" => vec![with(ptp(&subnets), &masquerading), portmap()],
            "portmap" => vec![ptp(&subnets), portmap_by(by)],
            "host-local" if by == "ptp" => vec![ptp(&subnets), portmap()],
            "bandwidth" => vec![bridge(&subnets), portmap(), bandwidth(10, 10)],
            "firewall" if by == "nftables" => {
                vec![bridge(&subnets), portmap(), with(firewall(), &json!({"backend": by}))]
            }
            "firewall" | "tuning" => whole_chain(by),
            "static" => vec![with(bridge(&[]), &fixed_addresses()), portmap()],
            _ => vec![bridge(&subnets), portmap()],
        };
        let ports = json!([port("tcp", 8080, 80), port("udp", 5353, 53)]);
        Chain::new(&self.world, &plugins, &configs).network("testnet", "1.1.0").ports(&ports)
    }

    fn next_pod(&self) {
        let chain = self.chain();
        chain.add(&self.next);
        chain.del(&self.next);
    }

    fn state(&self) -> Value {
        let mut state = self.world.snapshot();
        for (path, content) in state["files"].as_object_mut().into_iter().flatten() {
            // The address given out last is the only trace that a pod may leave.
            if path.contains("/last_reserved_ip.") {
                *content = json!("an address");
            }
        }
        state
    }
}

/// podman's or nerdctl's chain, for both families. In podman's, tuning has nothing to change, as in
/// the example; in nerdctl's it has.
fn whole_chain(runtime: &str) -> Vec<Value> {
    let file = workspace().join(format!("conflist/examples/{runtime}.conflist"));
    let list: Value = serde_json::from_str(&fs::read_to_string(file).unwrap()).unwrap();
    let ipam = json!({"ipam": host_local(&[POD_SUBNET, POD_SUBNET6])});
    let own = |plugin: &Value| match plugin["type"].as_str() {
        Some("bridge") => with(plugin.clone(), &ipam),
        Some("tuning") if runtime == "nerdctl" => with(plugin.clone(), &tuning()),
        _ => plugin.clone(),
    };
    list["plugins"].as_array().unwrap().iter().map(own).collect()
}

fn fixed_addresses() -> Value {
    let addresses = json!([
        {"address": "10.88.0.5/24", "gateway": "10.88.0.1"},
        {"address": "fd00:88::5/64", "gateway": "fd00:88::1"},
    ]);
    let routes = json!([{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]);
    json!({"ipam": {"type": "static", "addresses": addresses, "routes": routes}})
}
