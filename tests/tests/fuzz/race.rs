//! Many commands at a time, some of which are killed.
//!
//! Afterwards GC gets the pods that are alive: it keeps their state and removes everything else.
//! `kill.rs` kills at each system call of a single process; here the moments are random, and other
//! processes use the same bridge, rules and leases at the same time.

use std::collections::{BTreeMap, BTreeSet};
use std::thread;

use regex::Regex;
use serde_json::{Value, json};
use tests::configs::{
    POD_SUBNET, POD_SUBNET6, bandwidth, bridge, firewall, port, portmap_by, ptp, tuning, with,
};
use tests::{Chain, NODE, Plugins, Pod, World};

use crate::judge::addresses;
use crate::random::Random;

/// The number of pods at a time.
const PODS: usize = 6;
/// The directory of the plugins and of the scripts that kill them.
const BIN: &str = "/run/bin";
/// The time in which most ADDs of a plugin end, in microseconds.
const LONGEST: usize = 30_000;

/// Runs `commands` commands and kills a sixth of them.
pub(crate) fn run(main: &str, backend: &str, seed: u64, commands: u64) {
    let names: Vec<String> = (0..PODS).map(|n| format!("pod-{n}")).collect();
    let namespaces: Vec<&str> = names.iter().map(String::as_str).collect();
    let world = World::new(&namespaces);
    install(&world);
    let turns = commands / 2 / PODS as u64;
    let alive: BTreeMap<&str, Option<Value>> = thread::scope(|scope| {
        let run = |index: usize| {
            let (world, name) = (&world, names[index].as_str());
            let random = Random::new(seed, name);
            scope.spawn(move || (name, of_pod(world, main, backend, index, random, turns)))
        };
        let running: Vec<_> = (0..PODS).map(run).collect();
        running.into_iter().map(|pod| pod.join().unwrap()).collect()
    });
    let what = format!("PODWIRE_FUZZ_SEED={seed}");
    let pods: Vec<Pod> = alive.keys().map(|name| Pod::new(name)).collect();
    let pods: Vec<&Pod> = pods.iter().filter(|pod| alive[pod.id.as_str()].is_some()).collect();
    let network = chain(&world, &Plugins::ours(), main, backend, 0);
    network.gc(&pods);
    let found = Traces::of(&world);
    let held: Vec<String> = alive.values().flatten().flat_map(addresses).collect();
    let held = held.iter().filter_map(|address| Some(address.split_once('/')?.0.to_owned()));
    let held: BTreeSet<String> = held.collect();
    // Two families: the pods need as many addresses, and no two may have the same.
    assert_eq!(held.len(), 2 * pods.len(), "{what}: {held:?} for {pods:?}");
    let names: BTreeSet<String> = pods.iter().map(|pod| pod.id.clone()).collect();
    assert_eq!(found.leases, held, "{what}: leases");
    assert_eq!(found.links, [pods.len(); 2], "{what}: veth pairs and ifbs");
    let known = &names | &held;
    let strange: Vec<_> = found.in_rules.difference(&known).collect();
    assert!(strange.is_empty(), "{what}: GC leaves rules of {strange:?}\n{}", found.rules);
    network.gc(&[]);
    let found = Traces::of(&world);
    let is_empty = found.leases.is_empty() && found.links == [0; 2] && found.in_rules.is_empty();
    assert!(is_empty, "{what}: GC without pods leaves {found:#?}");
}

/// Puts a script before each plugin that kills it after the number of microseconds in `/run/kill/ID`.
fn install(world: &World) {
    let dir = Plugins::ours().dir;
    let script = "#!/bin/sh
after=$(cat /run/kill/$CNI_CONTAINERID 2>/dev/null) || exec DIR/NAME
exec timeout --signal=KILL $after DIR/NAME";
    let script = script.replace("DIR", &dir.display().to_string());
    let names = Plugins::ALL.join(" ");
    world.sh(
        NODE,
        &format!(
            "mkdir {BIN} /run/kill; for name in {names}; do
                 sed \"s/NAME/$name/\" > {BIN}/$name <<'END'\n{script}\nEND\nchmod +x {BIN}/$name\ndone"
        ),
    );
}

/// The life of one pod; its last result if it is alive in the end.
fn of_pod(
    world: &World,
    main: &str,
    backend: &str,
    index: usize,
    mut random: Random,
    turns: u64,
) -> Option<Value> {
    let name = format!("pod-{index}");
    let pod = Pod::new(&name);
    let plugins = Plugins { label: "ours", dir: BIN.into() };
    let network = chain(world, &plugins, main, backend, index);
    let mut kill = |is_possible: bool| {
        let after = (is_possible && random.once_in(3)).then(|| random.below(LONGEST));
        kill_after(world, &name, after);
        after.is_some()
    };
    for _ in 0..turns {
        let may_fail = kill(true);
        if let Err(output) = network.try_add(&pod) {
            assert!(may_fail, "ADD of {name} fails\n{output}");
        }
        let may_fail = kill(true);
        if let Err(output) = network.try_del(&pod) {
            assert!(may_fail, "DEL of {name} fails\n{output}");
        }
        kill(false);
        network.del_by_names(&pod);
    }
    // In the end, a pod is either alive or garbage that no DEL removes.
    let may_fail = kill(true);
    let alive = network.try_add(&pod);
    kill(false);
    alive.map_err(|output| assert!(may_fail, "ADD of {name} fails\n{output}")).ok()
}

fn kill_after(world: &World, name: &str, microseconds: Option<usize>) {
    let path = format!("/run/kill/{name}");
    world.files(|| match microseconds {
        Some(n) => std::fs::write(path, format!("0.{n:06}")).unwrap(),
        None => drop(std::fs::remove_file(path)),
    });
}

fn chain<'a>(
    world: &'a World,
    plugins: &Plugins,
    main: &str,
    backend: &str,
    index: usize,
) -> Chain<'a> {
    let subnets = [POD_SUBNET, POD_SUBNET6];
    let first = if main == "ptp" { ptp(&subnets) } else { bridge(&subnets) };
    let configs = [
        with(first, &json!({"ipMasqBackend": backend})),
        portmap_by(backend),
        with(firewall(), &json!({"backend": backend})),
        with(tuning(), &json!({"mac": null})),
        bandwidth(10, 10),
    ];
    let number = u16::try_from(index).unwrap();
    let ports = json!([port("tcp", 8080 + number, 80), port("udp", 5353 + number, 53)]);
    Chain::new(world, plugins, &configs).network("testnet", "1.1.0").ports(&ports)
}

/// The state of pods on a node.
#[derive(Debug)]
struct Traces {
    leases: BTreeSet<String>,
    /// The number of veth interfaces and ifbs of the node.
    links: [usize; 2],
    /// The names and addresses of pods in the rules.
    in_rules: BTreeSet<String>,
    rules: String,
}

impl Traces {
    fn of(world: &World) -> Self {
        let links = world.sh(NODE, "ip -o link");
        let count = |kind| links.lines().filter(|line| line.contains(kind)).count();
        let links = [count(": veth"), count(": bwp")];
        let rules = world.sh(NODE, "nft -s list ruleset");
        let pattern =
            Regex::new(r"pod-[0-9]+|(?-u:\b)10\.88\.0\.[0-9]+|(?-u:\b)fd00:88::[0-9a-f]+").unwrap();
        let common = ["10.88.0.0", "10.88.0.1", "10.88.0.255", "fd00:88::1"];
        let in_rules = pattern.find_iter(&rules).map(|found| found.as_str().to_owned());
        let in_rules = in_rules.filter(|text| !common.contains(&text.as_str())).collect();
        let leases = world.sh(NODE, "ls /run/state/ipam/testnet");
        let leases = leases.lines().filter(|name| name.starts_with("10.") || name.contains("::"));
        Self { leases: leases.map(str::to_owned).collect(), links, in_rules, rules }
    }
}
