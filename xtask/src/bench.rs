//! `cargo xtask bench`: measures how long a runtime waits for our plugins and for the Go ones.
//!
//! Both run alternately on the same machine. Each has a node of its own, which no other scenario uses:
//! network namespaces and files of the end-to-end tests. A time is that of a whole process as its runtime
//! sees it: from the spawn until it has ended and all output is read. The time of a chain is the sum. Each
//! pod has a new namespace, which stays until its scenario is over, so that its removal by the kernel does
//! not disturb the measurement.

mod config;
pub(crate) mod error;
mod rates;
mod scale;
mod scenario;
mod site;
mod table;

use std::io::{ErrorKind, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tests::{NODE, World, netns_path};

use crate::command::Failure;
use crate::root::become_root;
use crate::{build, needs, paths};
use error::BenchError;
use scenario::{SCENARIOS, Scenario, Step};
use table::Row;

/// The commands that are measured.
const COMMANDS: [&str; 3] = ["ADD", "CHECK", "DEL"];

/// The options of the task.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// How often each command is timed [default: 50], or each rate measured [default: 5]
    #[arg(long)]
    rounds: Option<usize>,
    /// Print a JSON list instead of a table
    #[arg(long)]
    json: bool,
    /// Measure portmap for the 10th and the 1000th pod of a node, and how many connections a second
    /// their hostPorts take
    #[arg(long, conflicts_with = "json")]
    scale: bool,
    /// Measure with iperf3 the rates of a pod that bandwidth limits
    #[arg(long, conflicts_with_all = ["json", "scale"])]
    rates: bool,
}

/// The task.
pub(crate) fn run(options: &Options) -> Result<(), Failure> {
    eprintln!("Building the plugins");
    build::build_all()?;
    needs::provide();
    become_root()?;
    let places = [("ours", paths::dist()), ("go", needs::go_dir())];
    let rounds = options.rounds.unwrap_or(if options.rates { 5 } else { 50 });
    let text = if options.scale {
        scale::measure(rounds, &places)?
    } else if options.rates {
        rates::measure(rounds, &places)?
    } else {
        let mut rows = Vec::new();
        for scenario in SCENARIOS {
            eprintln!("Measuring {} ({rounds} rounds)", scenario.name);
            rows.extend(measure(scenario, rounds, places.each_ref().map(Contender::new))?);
        }
        if options.json { table::json(&rows).to_string() } else { table::text(&rows) }
    };
    println!("{}", text.trim_end());
    Ok(())
}

/// A set of plugins: its name and its directory.
type Place = (&'static str, PathBuf);

/// One set of plugins and the node that they run on.
struct Contender {
    bin: PathBuf,
    world: World,
    pods: usize,
}

impl Contender {
    fn new((_, bin): &Place) -> Self {
        Self { bin: bin.clone(), world: World::new(&[]), pods: 0 }
    }

    /// Runs all commands for one new pod; the time of each.
    fn round(&mut self, scenario: &Scenario) -> Result<Vec<Duration>, Failure> {
        self.pods += 1;
        let pod = format!("pod-{}", self.pods);
        self.world.add_netns(&pod);
        let mut result = Value::Null;
        let mut times = Vec::new();
        for command in scenario.commands {
            let mut time = Duration::ZERO;
            for step in scenario.steps(command) {
                let request = step.request(&result);
                let (took, printed) = self.call(command, &step, &request, &pod, &pod)?;
                if step.timed {
                    time += took;
                }
                if *command == "ADD" {
                    result = printed;
                }
            }
            times.push(time);
        }
        Ok(times)
    }

    /// Runs one plugin on the node; its time and its output.
    fn call(
        &self,
        command: &str,
        step: &Step,
        request: &str,
        id: &str,
        netns: &str,
    ) -> Result<(Duration, Value), BenchError> {
        // `join` keeps an absolute path as it is.
        let plugin = self.bin.join(&step.plugin);
        let mut call = Command::new(&plugin);
        call.env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("CNI_COMMAND", command)
            .env("CNI_CONTAINERID", id)
            .env("CNI_NETNS", netns_path(netns))
            .env("CNI_IFNAME", step.ifname)
            .env("CNI_PATH", &self.bin)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let outcome = self.world.inside(NODE, || {
            let begin = Instant::now();
            let mut child = call.spawn()?;
            if let Some(mut stdin) = child.stdin.take() {
                // VERSION is answered before the request is read.
                match stdin.write_all(request.as_bytes()) {
                    Err(error) if error.kind() != ErrorKind::BrokenPipe => return Err(error),
                    _ => {}
                }
            }
            let output = child.wait_with_output()?;
            Ok((begin.elapsed(), output))
        });
        let (took, output) = outcome.map_err(|error| BenchError::Start(plugin.clone(), error))?;
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        if !output.status.success() {
            let (command, output) = (command.to_owned(), printed);
            return Err(BenchError::Plugin { plugin, command, output });
        }
        Ok((took, serde_json::from_str(&printed).unwrap_or_default()))
    }
}

fn measure(
    scenario: &Scenario,
    rounds: usize,
    mut contenders: [Contender; 2],
) -> Result<Vec<Row>, Failure> {
    let mut times = [Vec::new(), Vec::new()];
    // The first round runs on an empty node with cold caches; it is not measured.
    for round in 0..=rounds {
        let mut both: Vec<_> = contenders.iter_mut().zip(&mut times).collect();
        // The second one finds warmer caches.
        if round % 2 == 1 {
            both.reverse();
        }
        for (contender, times) in both {
            let measured = contender.round(scenario)?;
            if round > 0 {
                times.push(measured);
            }
        }
    }
    let [ours, go] = times;
    let column = |times: &[Vec<Duration>], n: usize| times.iter().map(|t| t[n]).collect();
    let row = |(n, command): (usize, &&'static str)| {
        Row::new(scenario.name, command, column(&ours, n), column(&go, n))
    };
    Ok(scenario.commands.iter().enumerate().map(row).collect())
}
