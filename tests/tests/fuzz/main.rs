//! Runs the real binaries with random input: mutations of the recorded cases.
//!
//! Each run has a seed, which determines its input. `PODWIRE_FUZZ_RUNS` is the number of runs for each
//! plugin, `PODWIRE_FUZZ_SEED` the first seed: the seed of a failure and one run repeat its input.
//!
//! Not run with the Go plugins, which leave state behind after most failures.

#![allow(clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

mod corpus;
mod judge;
mod mutate;
mod node;
mod race;
mod random;

use std::collections::BTreeMap;
use std::env;
use std::process::ExitCode;

use serde_json::{Value, json};
use tests::{Cmd, NODE, Needs, Output, Plugins, Suite, netns_path};

use corpus::Seed;
use judge::{Input, addresses, complaint};
use node::{BIN, Node, PODS};
use random::Random;

/// The number of runs for each plugin, if the environment does not set it.
const RUNS: u64 = 350;
/// A case ends after this many failures, because most of them are alike.
const ENOUGH: usize = 10;
const COMMANDS: [&str; 10] =
    ["ADD", "ADD", "ADD", "ADD", "ADD", "CHECK", "DEL", "GC", "STATUS", "VERSION"];

fn main() -> ExitCode {
    let number = |name: &str| env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let first = number("PODWIRE_FUZZ_SEED").unwrap_or(1);
    let runs = number("PODWIRE_FUZZ_RUNS").unwrap_or(RUNS);
    let mut suite = Suite::new();
    let needs = Needs::plugins(&Plugins::ours(), &Plugins::ALL);
    for (plugin, seeds) in corpus::load() {
        suite.case(&format!("mutations::{plugin}"), &needs, move || {
            let mut fuzz = Fuzz { node: Node::new(&plugin), plugin, seeds, alive: BTreeMap::new() };
            fuzz.run(first..first + runs);
        });
    }
    let needs = needs.tools(&["timeout"]);
    for main in ["bridge", "ptp"] {
        for backend in ["iptables", "nftables"] {
            suite.case(&format!("race::{main}_{backend}"), &needs, move || {
                race::run(main, backend, first, runs);
            });
        }
    }
    suite.run()
}

/// The runs of one plugin.
struct Fuzz {
    node: Node,
    plugin: String,
    seeds: Vec<Seed>,
    /// The state that a DEL must remove, and the addresses, by pod.
    alive: BTreeMap<&'static str, (Input, Vec<String>)>,
}

impl Fuzz {
    fn run(&mut self, seeds: std::ops::Range<u64>) {
        let mut failures = Vec::new();
        for seed in seeds {
            let Err(failure) = self.one(seed) else { continue };
            let plugin = &self.plugin;
            failures.push(format!("{plugin}: PODWIRE_FUZZ_SEED={seed}\n{failure}"));
            if failures.len() == ENOUGH {
                break;
            }
            self.node = Node::new(&self.plugin);
            self.alive.clear();
        }
        if let Err(failure) = self.all_gone() {
            failures.push(failure);
        }
        assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n\n"));
    }

    fn one(&mut self, seed: u64) -> Result<(), String> {
        let mut random = Random::new(seed, &self.plugin);
        let index = random.below(PODS.len());
        let pod = PODS[index];
        let input = self.input(index, &mut random);
        if input.is("GC") {
            // GC removes what belongs to pods that it does not name, so no pod may be alive.
            self.all_gone()?;
        }
        if !input.is("ADD") {
            return self.call(&input).map(drop);
        }
        self.del(pod)?;
        let before = self.node.view(pod);
        let output = self.call(&input)?;
        if output.code() == 0 {
            let found = addresses(&output.json());
            self.look_for_duplicates(&input, &found, &output)?;
            self.alive.insert(pod, (input, found));
            return Ok(());
        }
        if let Some(difference) = self.node.view(pod).difference(&before) {
            return Err(format!("a failed ADD leaves something behind\n{difference}\n{output}"));
        }
        self.call(&input.command("DEL")).map(drop)
    }

    /// The input of a run.
    fn input(&self, index: usize, random: &mut Random) -> Input {
        let seed = random.pick(&self.seeds);
        let mut config = seed.config.clone();
        if let Some(previous) = self.node.previous.get(index) {
            config["prevResult"] = previous.clone();
            config["prevResult"]["cniVersion"] = config["cniVersion"].clone();
        }
        let command = *random.pick(&COMMANDS);
        if ["GC", "STATUS"].contains(&command) {
            config["cniVersion"] = json!("1.1.0");
        }
        for _ in 0..random.below(4) {
            mutate::mutate(&mut config, random);
        }
        let pod = PODS[index];
        let ifname = if self.plugin == "loopback" { "lo" } else { "eth0" };
        let mut env: Vec<(&'static str, Option<String>)> = vec![
            ("CNI_COMMAND", Some(command.to_owned())),
            ("CNI_CONTAINERID", Some(pod.to_owned())),
            ("CNI_NETNS", Some(netns_path(pod))),
            ("CNI_IFNAME", Some(ifname.to_owned())),
            ("CNI_ARGS", Some(seed.args.clone())),
            ("CNI_PATH", Some(BIN.to_owned())),
        ];
        let is_usual = !random.once_in(6);
        if !is_usual {
            let changed = random.below(env.len());
            let (name, value) = &mut env[changed];
            *value = mutate::variable(name, random);
        }
        let stdin = mutate::text(&config, random);
        Input { plugin: self.plugin.clone(), env, stdin, is_usual }
    }

    fn call(&self, input: &Input) -> Result<Output, String> {
        let mut command = Cmd::new(Plugins::ours().path(&input.plugin)).stdin(input.stdin.clone());
        for (name, value) in &input.env {
            if let Some(value) = value {
                command = command.env(*name, value);
            }
        }
        let output = self.node.world.run(NODE, &command);
        if let Some(complaint) = complaint(input, &output) {
            return Err(format!("{complaint}\n{output}"));
        }
        if input.is("DEL") && output.code() != 0 && input.can_be_deleted() {
            return Err(format!("a DEL fails for what the configuration says\n{output}"));
        }
        Ok(output)
    }

    /// Removes what an earlier run left of a pod.
    fn del(&mut self, pod: &str) -> Result<(), String> {
        let Some((input, _)) = self.alive.remove(pod) else { return Ok(()) };
        let output = self.call(&input.command("DEL"))?;
        if output.code() == 0 {
            Ok(())
        } else {
            Err(format!("a DEL fails after its ADD\n{output}"))
        }
    }

    /// Deletes all pods and checks that nothing of them is left.
    fn all_gone(&mut self) -> Result<(), String> {
        for pod in PODS {
            self.del(pod)?;
        }
        let chained = !self.node.previous.is_empty();
        let left = self.node.view(PODS[0]).of_pods();
        if chained || left.is_empty() { Ok(()) } else { Err(format!("left of pods: {left:?}")) }
    }

    /// No two pods of a network have the same address.
    fn look_for_duplicates(
        &self,
        input: &Input,
        found: &[String],
        output: &Output,
    ) -> Result<(), String> {
        let network = |input: &Input| {
            let config = input.config().unwrap_or_default();
            let ipam = &config["ipam"];
            let keys = [&config["name"], &ipam["type"], &ipam["dataDir"]];
            keys.map(Value::clone)
        };
        for (pod, (other, addresses)) in &self.alive {
            let leases = self.plugin != "loopback"
                && network(input)[1] == "host-local"
                && network(other) == network(input);
            if let Some(twice) = found.iter().find(|a| leases && addresses.contains(a)) {
                return Err(format!("{twice} is the address of {pod} as well\n{output}"));
            }
        }
        Ok(())
    }
}
