//! `cargo xtask bench`: how long a runtime waits for our plugins and for the Go ones.
//!
//! Both run in one go on the same machine, turn about, each on a node of its own that no scenario
//! has used before. A time is that of a whole process as its runtime sees it, from the spawn to the
//! end with all output read; of a chain it is the sum. Every pod has a fresh namespace, which stays
//! until its scenario is over so that the kernel's work of taking it down disturbs nobody.

mod config;
mod rates;
mod scale;
mod scenario;
mod site;
mod table;

use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use serde_json::Value;

use crate::command::Failure;
use crate::demo::machine::{Machine, Workplace, become_root};
use crate::{build, needs};
use scenario::{SCENARIOS, Scenario, Step};
use table::Row;

/// What a plugin is asked to do.
const COMMANDS: [&str; 3] = ["ADD", "CHECK", "DEL"];

/// How the task is to be done.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// How often each command is timed [default: 50], or each rate measured [default: 5]
    #[arg(long)]
    rounds: Option<usize>,
    /// Print a JSON list instead of a table
    #[arg(long)]
    json: bool,
    /// Measure the portmap of a pod that comes after 9 others and after 999, and how fast it is
    /// visited, and all of them in turn
    #[arg(long, conflicts_with = "json")]
    scale: bool,
    /// Measure with iperf3 how fast packets enter and leave a pod that bandwidth limits
    #[arg(long, conflicts_with_all = ["json", "scale"])]
    rates: bool,
}

/// Why nothing could be measured.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BenchError {
    /// The machine could not be set up.
    #[error("{0}: {1}; run as root, or where the kernel lets users make user namespaces")]
    Setup(&'static str, nix::Error),
    /// A plugin could not be started.
    #[error("start {}: {}", .0.display(), .1)]
    Start(PathBuf, std::io::Error),
    /// A plugin failed.
    #[error("{command} of {}: {output}", plugin.display())]
    Plugin {
        /// Which one.
        plugin: PathBuf,
        /// What it was asked to do.
        command: String,
        /// What it printed.
        output: String,
    },
    /// A hostPort could not be visited.
    #[error("visit the hostPort: {0}")]
    Visit(std::io::Error),
    /// A rate could not be measured.
    #[error("measure with iperf3: {0}")]
    Iperf(String),
    /// The kernel refused to build a node, or to forget connections.
    #[error("{}: {}", .0.operation, .0.cause)]
    Kernel(#[from] kernel::Error),
}

/// The task.
pub(crate) fn run(options: &Options) -> Result<(), Failure> {
    let progress = |text: &str| eprintln!("{text}");
    progress("Building the plugins");
    build::build_all()?;
    needs::provide();
    // From here on there is nothing but this process and its children: no other threads yet.
    become_root()?;
    private_run()?;
    let workplace = Workplace::new()?;
    let places = [("ours", build::dist()), ("go", needs::go_dir())];
    let rounds = options.rounds.unwrap_or(if options.rates { 5 } else { 50 });
    if options.scale {
        print!("{}", scale::measure(rounds, &places, workplace.path())?);
        return Ok(());
    }
    if options.rates {
        print!("{}", rates::measure(rounds, &places, workplace.path())?);
        return Ok(());
    }
    let mut rows = Vec::new();
    for scenario in SCENARIOS {
        progress(&format!("Measuring {} ({rounds} rounds)", scenario.name));
        let [ours, go] = &places;
        let contenders =
            [Contender::new(ours, workplace.path())?, Contender::new(go, workplace.path())?];
        rows.extend(measure(scenario, rounds, contenders)?);
    }
    if options.json {
        println!("{}", table::json(&rows));
    } else {
        print!("{}", table::text(&rows));
    }
    Ok(())
}

/// A set of plugins: what it is called, and where it is.
type Place = (&'static str, PathBuf);

/// One set of plugins and the node that they run on.
struct Contender {
    bin: PathBuf,
    leases: PathBuf,
    node: Machine,
    pods: Vec<Machine>,
}

impl Contender {
    fn new((name, bin): &Place, workplace: &Path) -> Result<Self, Failure> {
        let (leases, node) = (workplace.join(name), Machine::new("node")?);
        Ok(Self { bin: bin.clone(), leases, node, pods: Vec::new() })
    }

    /// One pod's life: the time of each command.
    fn round(&mut self, scenario: &Scenario) -> Result<Vec<Duration>, Failure> {
        let pod = Machine::new("pod")?;
        let netns = pod.netns();
        self.pods.push(pod);
        let id = format!("pod-{}", self.pods.len());
        let mut result = Value::Null;
        let mut times = Vec::new();
        for command in scenario.commands {
            let mut time = Duration::ZERO;
            for step in scenario.steps(command, &self.leases) {
                let request = step.request(&result);
                let (took, printed) = self.call(command, &step, &request, &id, &netns)?;
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

    /// Runs one plugin on the node: how long it took and what it printed.
    fn call(
        &self,
        command: &str,
        step: &Step,
        request: &str,
        id: &str,
        netns: &Path,
    ) -> Result<(Duration, Value), BenchError> {
        // The path of an absolute one is its own.
        let plugin = self.bin.join(&step.plugin);
        let mut call = Command::new(&plugin);
        call.env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("CNI_COMMAND", command)
            .env("CNI_CONTAINERID", id)
            .env("CNI_NETNS", netns)
            .env("CNI_IFNAME", step.ifname)
            .env("CNI_PATH", &self.bin)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let request = request.to_owned();
        let outcome = self.node.run(move || {
            let begin = Instant::now();
            let mut child = call.spawn()?;
            if let Some(mut stdin) = child.stdin.take() {
                // VERSION is answered without a look at the request.
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
    // The first pod finds an empty node and cold files; it is not measured.
    for round in 0..=rounds {
        let mut both: Vec<_> = contenders.iter_mut().zip(&mut times).collect();
        // Who comes second finds other caches.
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

/// Hides this machine's `/run`, where iptables keeps a lock, from all that is started from here on.
fn private_run() -> Result<(), BenchError> {
    let step = |what, outcome: nix::Result<()>| outcome.map_err(|e| BenchError::Setup(what, e));
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    let none = None::<&str>;
    step("make a mount namespace", unshare(CloneFlags::CLONE_NEWNS))?;
    step("make mounts private", mount(none, "/", none, private, none))?;
    step("mount /run", mount(none, "/run", Some("tmpfs"), MsFlags::empty(), none))
}
